//! Why something failed: what the host says to the plugin, and the plugin to the host.

use super::stack::CALLS;

/// Remembers why a host call failed, for `last_error`.
pub(in crate::plugin::bridge) fn set_last_error(text: String) {
    CALLS.with_borrow_mut(|calls| calls.last_error = text);
}

/// Why the last host call on this thread failed.
pub(in crate::plugin::bridge) fn last_error() -> String {
    CALLS.with_borrow(|calls| calls.last_error.clone())
}

/// Remembers what the plugin says of the status it is about to return.
pub(in crate::plugin::bridge) fn report(text: String) {
    CALLS.with_borrow_mut(|calls| calls.reported = Some(text));
}

/// What the plugin said, once.
pub(in crate::plugin) fn take_reported() -> Option<String> {
    CALLS.with_borrow_mut(|calls| calls.reported.take())
}
