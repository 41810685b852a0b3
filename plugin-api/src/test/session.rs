//! The call into a plugin that is under way on this thread, and the tensors it holds.
//!
//! A handle is used once: what comes after its release is an error, and never another tensor.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{run::Run, value::Value};
use crate::{
    Error, Result,
    abi::tables::{OK, Status},
};

/// What a call may reach.
#[derive(Clone, Default)]
pub(crate) struct Scope {
    /// The run's parameters, from `attach` on.
    pub(crate) run: Option<Arc<Run>>,
    /// Whether it may ask about the model and change it: `attach` and events.
    pub(crate) model: bool,
    /// What it may declare.
    pub(crate) declares: Declares,
    /// Whether it may ask for gradients of single examples.
    pub(crate) measures: bool,
}

/// What a call may add to the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Declares {
    #[default]
    Nothing,
    Strategy,
    Head,
}

/// A tensor that a plugin holds.
struct Held {
    value: Value,
    /// The op that made it; `None` where it was lent, so that nobody has to give it back.
    made_by: Option<&'static str>,
}

#[derive(Default)]
struct Frame {
    scope: Scope,
    held: BTreeMap<u64, Held>,
    /// What the plugin did wrong without an error of its own.
    faults: Vec<String>,
}

#[derive(Default)]
struct Thread {
    frames: Vec<Frame>,
    last_error: String,
    reported: Option<String>,
    logged: Vec<String>,
    /// Faults outside of any call.
    faults: Vec<String>,
}

thread_local! {
    static THREAD: RefCell<Thread> = RefCell::default();
    static NUMBER: u64 = NEXT_THREAD.fetch_add(1, Ordering::Relaxed) % 0xffff + 1;
}

static NEXT_THREAD: AtomicU64 = AtomicU64::new(0);
static NEXT_TENSOR: AtomicU64 = AtomicU64::new(1);

/// Tensors that plugins keep between calls and for other threads, with the runs they were kept in.
static KEPT: Mutex<BTreeMap<u64, (Option<u32>, Value)>> = Mutex::new(BTreeMap::new());

/// What tells a kept tensor's handle, and one of a call's, from a parameter's.
const KEPT_BIT: u64 = 1 << 61;
const TENSOR_BIT: u64 = 1 << 62;
const THREAD_SHIFT: u32 = 40;

fn kept() -> MutexGuard<'static, BTreeMap<u64, (Option<u32>, Value)>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tensor_handle() -> u64 {
    let number = NEXT_TENSOR.fetch_add(1, Ordering::Relaxed) & ((1 << THREAD_SHIFT) - 1);
    TENSOR_BIT | NUMBER.with(|thread| thread << THREAD_SHIFT) | number
}

/// Whether a tensor's handle is of this thread.
fn is_here(handle: u64) -> bool {
    (handle & !TENSOR_BIT) >> THREAD_SHIFT == NUMBER.with(|thread| *thread)
}

const STALE: &str =
    "a tensor was used after its release; tensors are valid within the call they were made in or given to";
const ELSEWHERE: &str = "a tensor was used on another thread than the one it was made on";
const OUTSIDE: &str = "there is no call into a plugin on this thread; tensors and the model are at hand only within a call, on its thread";

/// Runs one call into a plugin. `what` names it in errors: `attach`.
///
/// # Errors
/// What the call said; what it did wrong with its tensors.
pub(crate) fn call<T>(what: &str, scope: Scope, body: impl FnOnce() -> Result<T>) -> Result<T> {
    /// Pops the frame, also when `body` unwinds.
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            THREAD.with_borrow_mut(|thread| drop(thread.frames.pop()));
        }
    }
    THREAD.with_borrow_mut(|thread| {
        thread.frames.push(Frame { scope, ..Frame::default() });
        thread.reported = None;
    });
    let leave = Leave;
    let outcome = body();
    let faults = THREAD.with_borrow_mut(|thread| {
        let frame = thread.frames.last_mut();
        frame.map_or_else(Vec::new, |frame| {
            let mut faults = std::mem::take(&mut frame.faults);
            faults.extend(leaked(&frame.held));
            faults
        })
    });
    drop(leave);
    let result = outcome.map_err(|error| error.context(format!("failed in {what}")))?;
    match faults.as_slice() {
        [] => Ok(result),
        faults => Err(Error::new(faults.join("; ")).context(format!("after {what}"))),
    }
}

/// What was made in a call and never released nor given back.
fn leaked(held: &BTreeMap<u64, Held>) -> Option<String> {
    let made: Vec<String> = held
        .values()
        .filter_map(|held| held.made_by.map(|by| format!("what {by} gave, {:?}", held.value.shape())))
        .collect();
    (!made.is_empty())
        .then(|| format!("the plugin still holds {}: every tensor is released before its call ends", made.join(", ")))
}

/// Turns a status into a result, with the plugin's own words.
pub(crate) fn check(status: Status) -> Result<()> {
    if status == OK {
        return Ok(());
    }
    let text = THREAD.with_borrow_mut(|thread| thread.reported.take());
    Err(Error::new(text.unwrap_or_else(|| format!("it gave status {status} and no reason"))))
}

/// Works with the innermost call.
fn innermost<T>(body: impl FnOnce(&mut Frame) -> T) -> Result<T> {
    THREAD.with_borrow_mut(|thread| thread.frames.last_mut().map(body)).ok_or_else(|| Error::new(OUTSIDE))
}

/// What the innermost call may reach.
pub(crate) fn scope() -> Result<Scope> {
    innermost(|frame| frame.scope.clone())
}

/// The run of the innermost call.
pub(crate) fn run() -> Result<Arc<Run>> {
    scope()?.run.ok_or_else(|| Error::new("there is no run before `attach`"))
}

fn insert(value: Value, made_by: Option<&'static str>) -> Result<u64> {
    innermost(|frame| {
        let handle = tensor_handle();
        frame.held.insert(handle, Held { value, made_by });
        handle
    })
}

/// A handle for a value that the plugin may use in this call; 0 outside of one, which every op refuses.
pub(crate) fn lend(value: &Value) -> u64 {
    insert(value.clone(), None).unwrap_or(0)
}

/// A handle that passes to the plugin, which has to release it.
pub(crate) fn hand_over(value: Value, made_by: &'static str) -> Result<u64> {
    insert(value, Some(made_by))
}

/// The value of a result, which nobody has to release any more. It stays until the call ends, because one tensor may be given twice.
pub(crate) fn take(handle: u64) -> Result<Value> {
    if handle == 0 {
        return Err(Error::new("it gave no tensor"));
    }
    let value = value(handle).map_err(|error| error.context("the tensor it gave cannot be used"))?;
    innermost(|frame| {
        if let Some(held) = frame.held.get_mut(&handle) {
            held.made_by = None;
        }
    })?;
    Ok(value)
}

/// As [`take`]; 0 is none.
pub(crate) fn take_optional(handle: u64) -> Result<Option<Value>> {
    if handle == 0 { Ok(None) } else { take(handle).map(Some) }
}

/// The value of a tensor, a kept tensor or a parameter.
pub(crate) fn value(handle: u64) -> Result<Value> {
    if handle == 0 {
        return Err(Error::new("an input is missing (handle 0)"));
    }
    if handle & TENSOR_BIT != 0 {
        if !is_here(handle) {
            return Err(Error::new(ELSEWHERE));
        }
        // A call in a call may use what the one around it was lent.
        let found = THREAD.with_borrow(|thread| {
            let mut frames = thread.frames.iter().rev();
            frames.find_map(|frame| frame.held.get(&handle).map(|held| held.value.clone()))
        });
        return found.ok_or_else(|| Error::new(STALE));
    }
    if handle & KEPT_BIT != 0 {
        return kept().get(&handle).map(|(_, value)| value.clone()).ok_or_else(|| Error::new(STALE));
    }
    let run = scope()?.run.ok_or_else(|| Error::new("a parameter was used before `attach`"))?;
    parameter_of(&run, handle).map(|index| run.state().parameters[index].value.clone())
}

fn parameter_of(run: &Run, handle: u64) -> Result<usize> {
    run.index(handle).ok_or_else(|| Error::new("a parameter's handle belongs to no parameter of this run"))
}

/// The number of a parameter by its handle.
pub(crate) fn parameter(handle: u64) -> Result<usize> {
    parameter_of(&*run()?, handle)
}

/// A handle for a tensor that stays until its release, on any thread.
pub(crate) fn keep(value: Value) -> u64 {
    let run = scope().ok().and_then(|scope| scope.run).map(|run| run.number);
    let handle = KEPT_BIT | NEXT_TENSOR.fetch_add(1, Ordering::Relaxed);
    kept().insert(handle, (run, value));
    handle
}

/// Shapes of what is still kept of a run.
pub(crate) fn kept_of(run: u32) -> Vec<Vec<usize>> {
    kept().values().filter(|(of, _)| *of == Some(run)).map(|(_, value)| value.shape().to_vec()).collect()
}

/// Releases a tensor. Needs no call where it is a kept one.
pub(crate) fn release(handle: u64) -> Result<()> {
    let released = if handle & TENSOR_BIT != 0 {
        let found = THREAD
            .with_borrow_mut(|thread| thread.frames.iter_mut().rev().any(|frame| frame.held.remove(&handle).is_some()));
        found || is_elsewhere(handle)?
    } else if handle & KEPT_BIT != 0 {
        kept().remove(&handle).is_some()
    } else {
        // Parameters live as long as the run; whoever "releases" one has lost nothing.
        Run::is_parameter(handle)
    };
    if released {
        return Ok(());
    }
    let text = if handle == 0 { "handle 0 was released" } else { "a tensor was released twice, or after its call" };
    fault(text.to_owned());
    Err(Error::new(text))
}

fn is_elsewhere(handle: u64) -> Result<bool> {
    if is_here(handle) { Ok(false) } else { Err(Error::new(ELSEWHERE)) }
}

/// Remembers what is wrong although no call says so.
fn fault(text: String) {
    THREAD.with_borrow_mut(|thread| match thread.frames.last_mut() {
        Some(frame) => frame.faults.push(text),
        None => thread.faults.push(text),
    });
}

/// What was wrong outside of any call since the last time.
pub(crate) fn faults_outside() -> Vec<String> {
    THREAD.with_borrow_mut(|thread| std::mem::take(&mut thread.faults))
}

/// Remembers why a host call failed, for `last_error`.
pub(crate) fn set_last_error(text: String) {
    THREAD.with_borrow_mut(|thread| thread.last_error = text);
}

pub(crate) fn last_error() -> String {
    THREAD.with_borrow(|thread| thread.last_error.clone())
}

/// Remembers what the plugin says of the status it is about to return.
pub(crate) fn report(text: String) {
    THREAD.with_borrow_mut(|thread| thread.reported = Some(text));
}

pub(crate) fn log(line: String) {
    THREAD.with_borrow_mut(|thread| thread.logged.push(line));
}

/// What was logged on this thread since the last time.
pub(crate) fn logged() -> Vec<String> {
    THREAD.with_borrow_mut(|thread| std::mem::take(&mut thread.logged))
}
