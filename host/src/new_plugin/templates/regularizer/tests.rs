//! What the method promises.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use fthost_plugin_api::serde_json::from_value;

use super::*;

fn made(options: Value) -> Result<AbsoluteValues> {
    AbsoluteValues::new(from_value(options)?)
}

#[test]
fn options_have_defaults_and_limits() {
    assert_eq!(made(json!({})).unwrap().config.alpha, 1e-4);
    for wrong in [
        json!({ "alpha": 0 }),
        json!({ "alpha": -1 }),
        json!({ "heads": 1 }),
        json!({ "no_such_option": 1 }),
    ] {
        assert!(made(wrong.clone()).is_err(), "{wrong}");
    }
}
