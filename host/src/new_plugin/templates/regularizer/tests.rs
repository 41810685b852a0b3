//! What the method promises, on a host in memory: a toy transformer, with all ops and their gradients.
use fthost_plugin_api::test::Host;

use super::*;

#[test]
fn what_holds_for_every_regularizer_holds_for_this_one() -> Result<()> {
    Host::new()
        .regularizer::<AbsoluteValues>(json!({}))?
        .check()
}

#[test]
fn the_penalty_grows_with_alpha() -> Result<()> {
    let penalty = |alpha: f64| -> Result<f64> {
        let options = json!({ "alpha": alpha });
        let penalty = Host::new()
            .regularizer::<AbsoluteValues>(options)?
            .penalty()?;
        penalty.ok_or_else(|| Error::new("there is no penalty"))
    };
    let (one, three) = (penalty(0.1)?, penalty(0.3)?);
    assert!(
        one > 0.0 && (three / one - 3.0).abs() < 1e-9,
        "{one} and {three}"
    );
    Ok(())
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for options in [
        json!({ "alpha": 0 }),
        json!({ "alpha": -1 }),
        json!({ "heads": 1 }),
    ] {
        assert!(
            Host::new()
                .regularizer::<AbsoluteValues>(options.clone())
                .is_err(),
            "{options}"
        );
    }
}
