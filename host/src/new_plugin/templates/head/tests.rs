//! What the method promises.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use fthost_plugin_api::serde_json::from_value;

use super::*;

fn made(options: Value) -> Result<Angles> {
    Angles::new(from_value(options)?)
}

#[test]
fn options_have_defaults_and_limits() {
    assert_eq!(made(json!({})).unwrap().config.temperature, 0.1);
    for wrong in [
        json!({ "temperature": 0 }),
        json!({ "label_smoothing": 1 }),
        json!({ "no_such_option": 1 }),
    ] {
        assert!(made(wrong.clone()).is_err(), "{wrong}");
    }
}
