//! The bridge: from the tables of the plugin boundary to the engine and the model.
//!
//! [`session`] is the call that is under way, [`ops`] and
//! [`model_calls`] are what plugins ask for, [`targets`] are PEFT's matching rules, [`hooks`] stand in the model for a plugin's hooks,
//! and [`host_api`] is the table of functions itself. What plugins lend is looked at by [`lent`], what they hand over by [`results`], and how
//! much an op would take by [`sizes`].

pub(in crate::plugin) mod hooks;
pub(in crate::plugin) mod host_api;
mod lent;
pub(in crate::plugin) mod model_calls;
mod op_call;
pub(in crate::plugin) mod ops;
pub(in crate::plugin) mod results;
pub(in crate::plugin) mod session;
mod sizes;
mod targets;
