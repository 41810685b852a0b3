//! What `fthost validate` does to a plugin that no run does: it hands out other tables, has host calls fail, and keeps an account of what
//! plugins did with handles. In a run nothing of it is on: a call costs one look at a flag.

use std::cell::RefCell;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Why a call fails that was told to: a plugin that hands the reason on has it in its error.
pub(crate) const REASON: &str = "fthost validate has this host call fail";

/// Which table of the host's functions plugins get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    /// This host's.
    Whole,
    /// As the first host had it: nothing behind what minor 0 had.
    Oldest,
    /// As a later host will have it: with more behind what is known today.
    Longer,
}

static OFFERED: AtomicU8 = AtomicU8::new(0);

/// Says which table plugins get that are opened from here on in this process.
pub(crate) fn offer(offered: Offered) {
    OFFERED.store(offered as u8, Ordering::Relaxed);
}

/// Which table plugins get.
pub(super) fn offered() -> Offered {
    match OFFERED.load(Ordering::Relaxed) {
        1 => Offered::Oldest,
        2 => Offered::Longer,
        _ => Offered::Whole,
    }
}

/// A call of a plugin into the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostCall {
    /// Of which method.
    pub(crate) method: String,
    /// In which call into the plugin: `attach`, `its linear hook`; empty outside of all.
    pub(crate) during: String,
    /// The function of the host's table.
    pub(crate) function: &'static str,
    /// What it was asked for: an op, a model call.
    pub(crate) what: String,
}

impl Display for HostCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let space = if self.what.is_empty() { "" } else { " " };
        write!(f, "{}{space}{} in {}", self.function, self.what, self.during)
    }
}

#[derive(Default)]
struct Probe {
    /// Those that were made, and how often.
    seen: Vec<(HostCall, u64)>,
    /// The one that fails, and the how manieth of it.
    fails: Option<(HostCall, u64)>,
    failed: bool,
}

static WATCHED: AtomicBool = AtomicBool::new(false);
static PROBE: Mutex<Probe> = Mutex::new(Probe { seen: Vec::new(), fails: None, failed: false });

thread_local! {
    /// The calls into plugins that this thread is in.
    static DURING: RefCell<Vec<(String, String)>> = const { RefCell::new(Vec::new()) };
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does some work while host calls are watched. Of the calls like `fails`, where one is named, that of its number, from 1, fails. Gives the
/// calls that were made, with how often, in the order of their first time, and whether one failed.
pub(crate) fn watching<R>(
    fails: Option<(&HostCall, u64)>,
    work: impl FnOnce() -> R,
) -> (R, Vec<(HostCall, u64)>, bool) {
    *locked(&PROBE) = Probe { fails: fails.map(|(call, number)| (call.clone(), number)), ..Probe::default() };
    WATCHED.store(true, Ordering::SeqCst);
    let result = work();
    WATCHED.store(false, Ordering::SeqCst);
    let Probe { seen, failed, .. } = std::mem::take(&mut *locked(&PROBE));
    (result, seen, failed)
}

/// A call into a plugin is under way on this thread as long as this lives.
pub(super) struct During(bool);

impl Drop for During {
    fn drop(&mut self) {
        if self.0 {
            DURING.with_borrow_mut(Vec::pop);
        }
    }
}

/// Says that a call into a plugin's method begins.
pub(super) fn during(method: &str, what: &dyn Display) -> During {
    let watched = WATCHED.load(Ordering::Relaxed);
    if watched {
        // A hook is the same one at every site.
        let text = what.to_string();
        let text = text.split(" at ").next().unwrap_or_default().to_owned();
        DURING.with_borrow_mut(|during| during.push((method.to_owned(), text)));
    }
    During(watched)
}

/// Has a host call fail where it is to.
pub(super) fn host_call(function: &'static str, what: impl FnOnce() -> String) -> Result<(), String> {
    if !WATCHED.load(Ordering::Relaxed) {
        return Ok(());
    }
    let (method, during) = DURING.with_borrow(|during| during.last().cloned().unwrap_or_default());
    let call = HostCall { method, during, function, what: what() };
    let mut probe = locked(&PROBE);
    let place = probe.seen.iter().position(|(seen, _)| *seen == call);
    let place = place.unwrap_or_else(|| {
        probe.seen.push((call.clone(), 0));
        probe.seen.len() - 1
    });
    probe.seen[place].1 += 1;
    if probe.fails.as_ref().is_some_and(|(fails, number)| *fails == call && *number == probe.seen[place].1) {
        probe.failed = true;
        return Err(format!("{REASON}: {call}"));
    }
    Ok(())
}

/// What plugins of this process did that a run forgives, or ends with.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Tensors that were the plugin's to release at the end of a call, by the call's name.
    pub(crate) forgotten: Vec<(String, usize)>,
    /// Uses of handles that name nothing any more, or another thread's or run's tensor.
    pub(crate) invalid: Vec<String>,
    /// Calls that panicked: where and how.
    pub(crate) panics: Vec<String>,
}

/// As many of a kind are kept: the first ones say enough.
const KEPT: usize = 16;

static ACCOUNT: Mutex<Account> = Mutex::new(Account { forgotten: Vec::new(), invalid: Vec::new(), panics: Vec::new() });

/// What there was since this was asked last.
pub(crate) fn account() -> Account {
    std::mem::take(&mut *locked(&ACCOUNT))
}

fn note<T>(list: impl FnOnce(&mut Account) -> &mut Vec<T>, entry: T) {
    let mut account = locked(&ACCOUNT);
    let list = list(&mut account);
    if list.len() < KEPT {
        list.push(entry);
    }
}

pub(super) fn forgotten(caller: &dyn Display, tensors: usize) {
    note(|account| &mut account.forgotten, (caller.to_string(), tensors));
}

pub(super) fn invalid(text: &dyn Display) {
    let during = DURING.with_borrow(|during| during.last().cloned());
    let at = during.map(|(method, during)| format!("{method} in {during}: ")).unwrap_or_default();
    note(|account| &mut account.invalid, format!("{at}{text}"));
}

pub(super) fn panicked(text: &str) {
    note(|account| &mut account.panics, text.to_owned());
}

/// Tensors that plugins have kept beyond their calls and not released.
static KEPT_TENSORS: AtomicU64 = AtomicU64::new(0);

pub(super) fn kept() {
    KEPT_TENSORS.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn let_go() {
    KEPT_TENSORS.fetch_sub(1, Ordering::Relaxed);
}

/// How many tensors plugins keep now.
pub(crate) fn kept_tensors() -> u64 {
    KEPT_TENSORS.load(Ordering::Relaxed)
}
