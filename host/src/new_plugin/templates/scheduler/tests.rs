//! What the method promises.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use fthost_plugin_api::serde_json::from_value;

use super::*;

fn made(options: Value) -> Result<InverseSquareRoot> {
    InverseSquareRoot::new(from_value(options)?)
}

/// The factors of some steps of a run of 100.
fn factors<const N: usize>(options: Value, steps: [u64; N]) -> [f64; N] {
    let schedule = made(options).unwrap();
    steps.map(|step| {
        let progress = Progress {
            step,
            total_steps: 100,
            steps_per_epoch: 10,
        };
        let rate = schedule.rate(&progress, &Group::new(2.0, 0.9)).unwrap();
        assert_eq!(rate.momentum, 0.9);
        rate.lr / 2.0
    })
}

#[test]
fn the_rate_rises_and_falls_with_the_inverse_square_root() {
    // Transformers' get_inverse_sqrt_schedule(optimizer, 4), and with timescale=12.
    assert_eq!(
        factors(json!({ "warmup": 4 }), [0, 1, 4, 16, 64]),
        [0.0, 0.25, 1.0, 0.5, 0.25]
    );
    assert_eq!(
        factors(json!({ "warmup": 0.04, "timescale": 12 }), [2, 4, 40]),
        [0.5, 1.0, 0.5]
    );
    assert_eq!(factors(json!({ "warmup": 0 }), [0]), [1.0]);
}

#[test]
fn options_have_defaults_and_limits() {
    assert_eq!(factors(json!({}), [5, 10, 40]), [0.5, 1.0, 0.5]);
    for wrong in [
        json!({ "warmup": -1 }),
        json!({ "timescale": 0.5 }),
        json!({ "no_such_option": 1 }),
    ] {
        assert!(made(wrong.clone()).is_err(), "{wrong}");
    }
    let progress = Progress {
        step: 0,
        total_steps: 10,
        steps_per_epoch: 10,
    };
    let error = made(json!({ "warmup": 10 }))
        .unwrap()
        .rate(&progress, &Group::new(1.0, 0.9))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("warmup takes 10 steps and the run 10"),
        "{error}"
    );
}
