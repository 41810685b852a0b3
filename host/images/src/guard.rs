//! Calls of libraries that answer some damaged files with a panic.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether a guarded call is under way: its panic is not printed.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Calls a library; `None` where it panics. What it was called with must not be used after that.
pub fn guarded<T>(call: impl FnOnce() -> T) -> Option<T> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let print = take_hook();
        set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                print(panic);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(outer);
    result.ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_panic_is_an_answer() {
        assert_eq!(guarded(|| 7), Some(7));
        assert_eq!(guarded(|| -> u8 { panic!("this is not printed") }), None);
        // A call inside a guarded one leaves the outer one guarded, and both leave the thread as it was.
        assert_eq!(guarded(|| (guarded(|| -> u8 { panic!() }), GUARDED.get())), Some((None, true)));
        assert!(!GUARDED.get());
    }
}
