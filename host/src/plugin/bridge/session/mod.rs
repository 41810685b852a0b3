//! The call into a plugin that is under way on this thread, and the tensors it holds.
//!
//! [`Caller::call`] opens a session: it lends values to the plugin as handles, runs the plugin's function, takes results back, turns a
//! status that is not OK into one error that names plugin and call, and drops what the plugin still holds. Sessions nest: a
//! regularizer's event may run the model, whose hooks are calls of their own. Ops and model calls that come back from the plugin
//! work on the innermost session of their thread. No lock and no allocation of our own lies on an op's way but its list of inputs.
//!
//! [`stack`] has the sessions of each thread: who is called ([`caller`]), and what the call may reach ([`scope`]). [`call`] is the host's
//! side of one. Of the plugin's side are [`tensors`], some of them [`kept`] beyond the call, and the [`model`]; [`errors`] go both ways.

mod call;
mod caller;
mod errors;
mod kept;
mod model;
mod scope;
mod stack;
mod tensors;

pub(in crate::plugin) use self::call::{Failure, Session, check};
pub(in crate::plugin) use self::caller::{Caller, Site, What};
pub(in crate::plugin) use self::errors::take_reported;
pub(super) use self::errors::{last_error, report, set_last_error};
pub(super) use self::model::{with_gradients, with_model, with_model_mut};
pub(in crate::plugin) use self::scope::{Declares, Scope, View};
pub(super) use self::stack::{run, who};
pub(super) use self::tensors::{Results, hand_over, lend_for_visit, new_tensor, parameter, release, run_op, value};
