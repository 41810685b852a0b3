//! Numbers between 0 and 1.

use fthost_plugin_api::schemars::{self, JsonSchema};
use serde::Deserialize;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub(in crate::run::file) struct Share(
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))] pub(in crate::run::file) f64,
);
