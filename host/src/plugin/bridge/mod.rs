//! The bridge: from the tables of the plugin boundary to the engine and the model.
//!
//! [`session`] is the call that is under way, [`ops`] and
//! [`model_calls`] are what plugins ask for, [`targets`] are PEFT's matching rules, [`hooks`] stand in the model for a plugin's hooks,
//! and [`host_api`] is the table of functions itself.

pub(in crate::plugin) mod hooks;
pub(in crate::plugin) mod host_api;
pub(in crate::plugin) mod model_calls;
pub(in crate::plugin) mod ops;
pub(in crate::plugin) mod session;
mod targets;
