//! What the method promises, on a host in memory.
use fthost_plugin_api::test::Host;

use super::*;

/// The learning rates of a run of 100 steps at rate 1.
fn rates(options: Value) -> Result<Vec<f64>> {
    let rates = Host::new()
        .scheduler::<InverseSquareRoot>(options)?
        .rates(100)?;
    Ok(rates.iter().map(|rate| rate.lr).collect())
}

#[test]
fn what_holds_for_every_scheduler_holds_for_this_one() -> Result<()> {
    Host::new()
        .scheduler::<InverseSquareRoot>(json!({}))?
        .check(100)
}

#[test]
fn the_rate_rises_and_falls_with_the_inverse_square_root() -> Result<()> {
    // Transformers' get_inverse_sqrt_schedule(optimizer, 4), and with timescale=12.
    let own = rates(json!({ "warmup": 4 }))?;
    assert_eq!(
        [0, 1, 4, 16, 64].map(|step| own[step]),
        [0.0, 0.25, 1.0, 0.5, 0.25]
    );
    let slower = rates(json!({ "warmup": 0.04, "timescale": 12 }))?;
    assert_eq!([2, 4, 40].map(|step| slower[step]), [0.5, 1.0, 0.5]);
    assert_eq!(rates(json!({ "warmup": 0 }))?[0], 1.0);
    Ok(())
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for options in [
        json!({ "warmup": -1 }),
        json!({ "timescale": 0.5 }),
        json!({ "warmup": 100 }),
    ] {
        assert!(rates(options.clone()).is_err(), "{options}");
    }
}
