//! What the method promises.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use fthost_plugin_api::serde_json::from_value;

use super::*;

fn made(options: Value) -> Result<ScaleAndShift> {
    ScaleAndShift::new(from_value(options)?)
}

#[test]
fn options_have_defaults_and_limits() {
    assert_eq!(
        made(json!({})).unwrap().0.targets,
        Targets::from(["query", "value", "output.dense"])
    );
    for wrong in [
        json!({ "targets": [] }),
        json!({ "shift": 1 }),
        json!({ "no_such_option": 1 }),
    ] {
        assert!(made(wrong.clone()).is_err(), "{wrong}");
    }
}
