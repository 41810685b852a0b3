//! The call into a plugin that is under way on this thread, and the tensors it holds.
//!
//! [`Caller::call`] opens a session: it lends values to the plugin as handles, runs the plugin's function, takes results back, turns a
//! status that is not OK into one error that names plugin and call, and drops what the plugin still holds. Sessions nest: a
//! regularizer's event may run the model, whose hooks are calls of their own. Ops and model calls that come back from the plugin
//! work on the innermost session of their thread. No lock and no allocation of our own lies on an op's way but its list of inputs.

use crate::error::plain;
use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};

use fthost_autograd::{Device, Parameter, Tape, Tensor, Value};
use fthost_plugin_api::abi::tables::{OK, PANICKED, Status};

use crate::adapted::AdaptedModel;
use crate::handles::{Handle, Invalid, RunHandles, Slots, THREADS};
use crate::plugin::underway::{self, Name};
use crate::plugin::{ExampleGradients, Plugin, probe};
use crate::{Error, Result};

/// What a call may reach.
#[derive(Default)]
pub(in crate::plugin) struct Scope<'a> {
    /// Where ops record; one that records nothing where there is none.
    pub(in crate::plugin) tape: Option<&'a Tape>,
    /// The run's parameters and device.
    pub(in crate::plugin) run: Option<&'a Arc<RunHandles>>,
    /// The model, in `attach` and events.
    pub(in crate::plugin) model: Option<&'a mut AdaptedModel>,
    /// Who measures gradients of single examples, in events.
    pub(in crate::plugin) gradients: Option<&'a mut dyn ExampleGradients>,
    /// What the call may declare.
    pub(in crate::plugin) declares: Declares,
}

/// What a call may add to the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::plugin) enum Declares {
    /// Nothing: it is no `attach`.
    #[default]
    Nothing,
    /// Hooks and parameters of the strategy at this place of the run file.
    Strategy(usize),
    /// Parameters of the head of this task; their names begin with the prefix.
    Head { task: usize, prefix: String },
}

/// One instance of a method, as calls and their errors name it.
pub(in crate::plugin) struct Caller {
    plugin: Plugin,
    method: String,
    name: Name,
    poisoned: AtomicBool,
}

/// What is called, as errors name it.
#[derive(Clone, Copy)]
pub(in crate::plugin) struct What<'a> {
    /// `attach`, `its linear hook`: up to 24 bytes are noted.
    pub(in crate::plugin) call: &'static str,
    /// Where, if it is at a site.
    pub(in crate::plugin) site: Option<&'a Site>,
}

/// A site of the model.
pub(in crate::plugin) struct Site {
    path: String,
    name: Name,
}

impl Site {
    pub(in crate::plugin) fn new(path: &str) -> Self {
        Self { path: path.to_owned(), name: underway::name(path) }
    }

    /// Its path.
    pub(in crate::plugin) fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

impl From<&'static str> for What<'_> {
    fn from(call: &'static str) -> Self {
        Self { call, site: None }
    }
}

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.site {
            Some(site) => write!(f, "{} at {site}", self.call),
            None => f.write_str(self.call),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin {} ({})", self.method, self.plugin.file_name())
    }
}

/// Why a call gave no result.
#[derive(Debug)]
pub(in crate::plugin) enum Failure {
    /// The plugin returned this status; its words wait in the session.
    Status(Status),
    /// The plugin's answer cannot be used.
    Answer(String),
}

/// The session's side of the host: lends values and takes results.
pub(in crate::plugin) struct Session(());

impl Caller {
    pub(in crate::plugin) fn new(plugin: Plugin, method: &str) -> Arc<Self> {
        let method = method.to_owned();
        let mut caller = Self { plugin, method, name: Name::default(), poisoned: AtomicBool::new(false) };
        caller.name = underway::name(&caller.to_string());
        Arc::new(caller)
    }

    /// Notes that a call begins, for who watches over this process.
    pub(in crate::plugin) fn enter(&self, what: What<'_>) -> underway::Call {
        underway::enter(self.name, what.call, what.site.map_or(Name::default(), |site| site.name))
    }

    /// The method's name.
    pub(in crate::plugin) fn method(&self) -> &str {
        &self.method
    }

    /// Whether it panicked, and is not called again.
    pub(in crate::plugin) fn poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Runs one call into the plugin. `what` names it: `attach`.
    ///
    /// # Errors
    /// What the plugin said, with plugin and call named.
    pub(in crate::plugin) fn call<T>(
        self: &Arc<Self>,
        what: What<'_>,
        scope: Scope<'_>,
        body: impl FnOnce(&Session) -> Result<T, Failure>,
    ) -> Result<T> {
        if self.poisoned() {
            return Err(Error::plugin(format!(
                "{self} is not called for {what}: it panicked before, so its state cannot be trusted"
            ))
            .with_help("run again from the last checkpoint"));
        }
        let during = probe::during(&self.method, &what);
        let outcome = enter(self, scope, || {
            let _noted = self.enter(what);
            body(&Session(()))
        });
        drop(during);
        let failure = match outcome {
            Ok(result) => return Ok(result),
            Err(failure) => failure,
        };
        let text = take_reported();
        Err(Error::plugin(match failure {
            Failure::Status(PANICKED) => {
                self.poisoned.store(true, Ordering::Release);
                let text = text.unwrap_or_else(|| "at an unknown place".to_owned());
                let place = text.strip_prefix("panicked ").unwrap_or(&text);
                let text = format!("{self} panicked in {what} {place}");
                probe::panicked(&text);
                text
            }
            Failure::Status(status) => {
                let text = text.unwrap_or_else(|| format!("it gave status {status} and no reason"));
                format!("{self} failed in {what}: {text}")
            }
            Failure::Answer(text) => format!("{self} failed in {what}: {text}"),
        }))
    }
}

/// Turns a status into a result.
pub(in crate::plugin) fn check(status: Status) -> Result<(), Failure> {
    if status == OK { Ok(()) } else { Err(Failure::Status(status)) }
}

impl Session {
    /// A handle for a value that the plugin may use in this call.
    pub(in crate::plugin) fn lend(&self, value: Value) -> u64 {
        // A session that is full of tensors answers with handle 0, which every op refuses.
        insert(value, true).unwrap_or(0)
    }

    /// A handle for a value that passes to the plugin.
    pub(in crate::plugin) fn hand_over(&self, value: Value) -> u64 {
        insert(value, false).unwrap_or(0)
    }

    /// The value of a result.
    pub(in crate::plugin) fn take(&self, handle: u64) -> Result<Value, Failure> {
        let value = with_tape(|tape| CALLS.with_borrow_mut(|calls| calls.take(tape, handle)));
        match value {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Invalid::Null)) => Err(Failure::Answer("it gave no tensor".to_owned())),
            Ok(Err(invalid)) => Err(Failure::Answer(format!("the tensor it gave cannot be used: {}", said(invalid)))),
            Err(text) => Err(Failure::Answer(text)),
        }
    }

    /// The value of a result that may be absent.
    pub(in crate::plugin) fn take_optional(&self, handle: u64) -> Result<Option<Value>, Failure> {
        if handle == 0 { Ok(None) } else { self.take(handle).map(Some) }
    }
}

/// How a session may use the model.
#[derive(Clone, Copy)]
enum Access {
    None,
    /// While examples' gradients are measured.
    Shared(*const AdaptedModel),
    Exclusive(*mut AdaptedModel),
}

/// One session. The pointers are valid as long as the frame is on the stack: it is pushed and popped by [`enter`], which
/// holds what they point to.
struct Frame {
    tape: *const Tape,
    run: Option<*const Arc<RunHandles>>,
    caller: *const Arc<Caller>,
    model: Access,
    gradients: Option<*mut &'static mut dyn ExampleGradients>,
    declares: Declares,
    /// Tensors in slots that belong to this frame.
    held: usize,
    /// The first handles that were lent, so that the usual call ends without a search.
    lent: [u64; 4],
}

/// A tensor that a plugin holds.
struct Held {
    value: Value,
    /// Place of its session on the stack.
    frame: usize,
    /// Whether it was lent, so that nobody has to give it back.
    lent: bool,
}

/// All sessions of one thread.
struct Calls {
    frames: Vec<Frame>,
    tensors: Slots<Held>,
    thread: u16,
    /// Why the last host call failed.
    last_error: String,
    /// What the plugin reported by `set_error`.
    reported: Option<String>,
}

thread_local! {
    static CALLS: RefCell<Calls> = RefCell::new(Calls::new());
}

/// Tensors that plugins keep between calls and for other threads.
static KEPT: RwLock<Slots<Kept>> = RwLock::new(Slots::new());

/// One of them.
struct Kept {
    tensor: Tensor,
    /// The run that it was kept in, which counts it.
    run: Weak<RunHandles>,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.tensor.elem_count() * self.tensor.dtype().size_in_bytes()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(run) = self.run.upgrade() {
            run.let_go(self.bytes());
        }
    }
}

impl Calls {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let thread = (NEXT.fetch_add(1, Ordering::Relaxed) % THREADS + 1) as u16;
        Self { frames: Vec::new(), tensors: Slots::new(), thread, last_error: String::new(), reported: None }
    }

    /// The value of a result, which nobody has to release any more. It stays until the session ends, because one tensor may be
    /// given as two results.
    fn take(&mut self, tape: &Tape, handle: u64) -> Result<Value, Invalid> {
        let value = self.value(tape, handle)?;
        if let Handle::Tensor { slot, generation, .. } = Handle::decode(handle)
            && let Some(held) = self.tensors.get_mut(slot, generation)
        {
            held.lent = true;
        }
        Ok(value)
    }

    /// The value of a tensor, a kept tensor or a parameter.
    fn value(&self, tape: &Tape, handle: u64) -> Result<Value, Invalid> {
        match Handle::decode(handle) {
            Handle::Tensor { thread, slot, generation } if thread == self.thread => {
                self.tensors.get(slot, generation).map(|held| held.value.clone()).ok_or(Invalid::Stale)
            }
            Handle::Tensor { .. } => Err(Invalid::OtherThread),
            Handle::Kept { slot, generation } => {
                let kept = KEPT.read().unwrap_or_else(PoisonError::into_inner);
                kept.get(slot, generation).map(|kept| Value::constant(kept.tensor.clone())).ok_or(Invalid::Stale)
            }
            Handle::Parameter { .. } if handle == 0 => Err(Invalid::Null),
            Handle::Parameter { .. } => {
                let run = self.frames.last().and_then(|frame| frame.run).ok_or(Invalid::NoRun)?;
                // SAFETY: the innermost frame is alive, and so is what it points to.
                let run = unsafe { &*run };
                run.get(handle).map(|(_, parameter)| tape.parameter(parameter)).ok_or(Invalid::OtherRun)
            }
        }
    }
}

/// Pushes a session, runs `body` in it, and pops it, also when `body` unwinds.
fn enter<T>(caller: &Arc<Caller>, mut scope: Scope<'_>, body: impl FnOnce() -> T) -> T {
    /// Pops the session when dropped.
    struct Leave<'a>(&'a Arc<Caller>);
    impl Drop for Leave<'_> {
        fn drop(&mut self) {
            let leftovers = CALLS.with_borrow_mut(|calls| {
                let depth = calls.frames.len() - 1;
                let lent = calls.frames[depth].lent;
                let mut held = calls.frames[depth].held;
                for handle in lent.into_iter().take_while(|handle| *handle != 0) {
                    if let Handle::Tensor { slot, generation, .. } = Handle::decode(handle)
                        && calls.tensors.remove(slot, generation).is_some()
                    {
                        held -= 1;
                    }
                }
                calls.frames.pop();
                if held > 0 { calls.tensors.remove_where(|held| held.frame == depth) } else { Vec::new() }
            });
            let forgotten = leftovers.iter().filter(|held| !held.lent).count();
            if forgotten > 0 {
                probe::forgotten(self.0, forgotten);
                tracing::debug!(plugin = %self.0, tensors = forgotten, "a call ended with tensors that were not released");
            }
        }
    }

    let evaluation;
    let tape = match scope.tape {
        Some(tape) => tape,
        None => {
            evaluation = Tape::evaluation();
            &evaluation
        }
    };
    let frame = Frame {
        tape,
        run: scope.run.map(std::ptr::from_ref),
        caller,
        model: scope.model.map_or(Access::None, |model| Access::Exclusive(model)),
        gradients: scope.gradients.as_mut().map(|gradients| std::ptr::from_mut(gradients).cast()),
        declares: scope.declares,
        held: 0,
        lent: [0; 4],
    };
    CALLS.with_borrow_mut(|calls| {
        calls.frames.push(frame);
        calls.reported = None;
    });
    let _leave = Leave(caller);
    body()
}

const OUTSIDE: &str = "there is no call into a plugin on this thread; tensors and the model are at hand only within a call, on its thread";

/// A field of the innermost session.
fn innermost<T>(read: impl FnOnce(&Frame) -> T) -> Result<T, String> {
    CALLS.with_borrow(|calls| calls.frames.last().map(read)).ok_or_else(|| OUTSIDE.to_owned())
}

/// Works with the tape of the innermost session.
fn with_tape<T>(body: impl FnOnce(&Tape) -> T) -> Result<T, String> {
    let tape = innermost(|frame| frame.tape)?;
    // SAFETY: the frame cannot be popped before `body` returns: it is the innermost of this thread, and what `body` pushes it pops.
    Ok(body(unsafe { &*tape }))
}

/// Puts a tensor in a slot of the innermost session and gives its handle.
fn insert(value: Value, lent: bool) -> Result<u64, String> {
    CALLS.with_borrow_mut(|calls| {
        let Some(depth) = calls.frames.len().checked_sub(1) else { return Err(OUTSIDE.to_owned()) };
        let Ok((slot, generation)) = calls.tensors.insert(Held { value, frame: depth, lent }) else {
            return Err("this call holds a million tensors; drop those that are done".to_owned());
        };
        let handle = Handle::Tensor { thread: calls.thread, slot, generation }.encode();
        let frame = &mut calls.frames[depth];
        frame.held += 1;
        if lent && let Some(free) = frame.lent.iter_mut().find(|handle| **handle == 0) {
            *free = handle;
        }
        Ok(handle)
    })
}

/// Runs an op on the values of these handles; 0 is an absent one. Gives the handles of the results.
pub(super) fn run_op(
    inputs: &[u64],
    outputs: &mut [u64],
    run: impl FnOnce(&Tape, &[Option<Value>]) -> Result<Results, String>,
) -> Result<(), String> {
    with_tape(|tape| {
        let values: Vec<Option<Value>> = CALLS
            .with_borrow(|calls| {
                let value = |handle: &u64| if *handle == 0 { Ok(None) } else { calls.value(tape, *handle).map(Some) };
                inputs.iter().map(value).collect::<Result<_, Invalid>>()
            })
            .map_err(said)?;
        match (run(tape, &values)?, outputs) {
            (Results::One(value), [output]) => *output = insert(value, false)?,
            (Results::Two(first, second), [one, two]) => {
                *one = insert(first, false)?;
                *two = insert(second, false)?;
            }
            (Results::Kept(tensor), [output]) => *output = keep(tensor)?,
            (_, outputs) => {
                return Err(format!("the caller made room for {} results, which is not what it gives", outputs.len()));
            }
        }
        Ok(())
    })?
}

/// What an op gives.
pub(super) enum Results {
    One(Value),
    Two(Value, Value),
    /// Values that stay beyond the call.
    Kept(Tensor),
}

/// The value of one handle.
pub(super) fn value(handle: u64) -> Result<Value, String> {
    with_tape(|tape| CALLS.with_borrow(|calls| calls.value(tape, handle)))?.map_err(said)
}

/// Makes a tensor on the run's device; the plugin owns its handle.
pub(super) fn new_tensor(make: impl FnOnce(&Device) -> fthost_autograd::Result<Tensor>) -> Result<u64, String> {
    let run = innermost(|frame| frame.run)?;
    // SAFETY: the innermost frame is alive, and so is what it points to.
    let device = run.map_or(&Device::Cpu, |run| unsafe { (*run).device() });
    insert(Value::constant(make(device).map_err(|error| plain(&error))?), false)
}

/// A handle for a tensor that stays until its release, on any thread.
pub(super) fn keep(tensor: Tensor) -> Result<u64, String> {
    let run = innermost(|frame| frame.run)?;
    // SAFETY: the innermost frame is alive, and so is what it points to.
    let run = run.map_or_else(Weak::new, |run| Arc::downgrade(unsafe { &*run }));
    let new = Kept { tensor, run };
    if let Some(run) = new.run.upgrade() {
        run.keep(new.bytes());
    }
    let mut kept = KEPT.write().unwrap_or_else(PoisonError::into_inner);
    match kept.insert(new) {
        Ok((slot, generation)) => {
            probe::kept();
            Ok(Handle::Kept { slot, generation }.encode())
        }
        Err(_) => Err("plugins keep a million tensors; drop those that are done".to_owned()),
    }
}

/// Releases a tensor. Needs no session where it is a kept one.
pub(super) fn release(handle: u64) -> Result<(), String> {
    released(handle).map_err(said)
}

fn released(handle: u64) -> Result<(), Invalid> {
    match Handle::decode(handle) {
        Handle::Tensor { thread, slot, generation } => CALLS.with_borrow_mut(|calls| {
            if thread != calls.thread {
                return Err(Invalid::OtherThread);
            }
            let held = calls.tensors.remove(slot, generation).ok_or(Invalid::Stale)?;
            if let Some(frame) = calls.frames.get_mut(held.frame) {
                frame.held -= 1;
            }
            Ok(())
        }),
        Handle::Kept { slot, generation } => {
            let removed = KEPT.write().unwrap_or_else(PoisonError::into_inner).remove(slot, generation);
            removed.map(|_| probe::let_go()).ok_or(Invalid::Stale)
        }
        // Parameters live as long as the run; whoever "releases" one has lost nothing.
        Handle::Parameter { .. } => Ok(()),
    }
}

/// Why a handle names nothing, in words. What no plugin that keeps its handles in order does is remembered for who tries plugins.
fn said(invalid: Invalid) -> String {
    if !matches!(invalid, Invalid::Null | Invalid::NoRun) {
        probe::invalid(&invalid);
    }
    invalid.to_string()
}

/// Puts the model's place back when dropped.
struct Lent(Access);

impl Drop for Lent {
    fn drop(&mut self) {
        CALLS.with_borrow_mut(|calls| {
            if let Some(frame) = calls.frames.last_mut() {
                frame.model = self.0;
            }
        });
    }
}

/// Takes the model out of the innermost session and leaves `stand_in`, so that no second reference can come up meanwhile.
fn lend_model(stand_in: impl FnOnce(Access) -> Access) -> Result<Lent, String> {
    CALLS.with_borrow_mut(|calls| {
        let frame = calls.frames.last_mut().ok_or(OUTSIDE)?;
        let model = frame.model;
        frame.model = stand_in(model);
        Ok(Lent(model))
    })
}

const NO_MODEL: &str = "the model is at hand in `attach` and in events only";

/// Reads the model of the innermost session.
pub(super) fn with_model<T>(body: impl FnOnce(&AdaptedModel, &Declares) -> Result<T, String>) -> Result<T, String> {
    let declares = innermost(|frame| frame.declares.clone())?;
    let lent = lend_model(|_| Access::None)?;
    match lent.0 {
        Access::None => Err(NO_MODEL.to_owned()),
        // SAFETY: the frame's scope holds the model, and no exclusive reference exists while the frame says shared.
        Access::Shared(model) => body(unsafe { &*model }, &declares),
        // SAFETY: the frame's scope holds the model exclusively, and the frame lends it to nobody else meanwhile.
        Access::Exclusive(model) => body(unsafe { &*model }, &declares),
    }
}

/// Changes the model of the innermost session.
pub(super) fn with_model_mut<T>(
    body: impl FnOnce(&mut AdaptedModel, &Declares) -> Result<T, String>,
) -> Result<T, String> {
    let declares = innermost(|frame| frame.declares.clone())?;
    let lent = lend_model(|_| Access::None)?;
    match lent.0 {
        Access::None => Err(NO_MODEL.to_owned()),
        Access::Shared(_) => Err("the model cannot change while its gradients are measured".to_owned()),
        // SAFETY: the frame's scope holds the model exclusively, and the frame lends it to nobody else meanwhile.
        Access::Exclusive(model) => body(unsafe { &mut *model }, &declares),
    }
}

/// Works with the one who measures gradients of single examples, while the model can be read.
pub(super) fn with_gradients<T>(
    body: impl FnOnce(&AdaptedModel, &mut dyn ExampleGradients) -> Result<T, String>,
) -> Result<T, String> {
    let Some(gradients) = innermost(|frame| frame.gradients)? else {
        return Err("gradients of single examples are measured in events only".to_owned());
    };
    let lent = lend_model(|model| match model {
        Access::Exclusive(model) => Access::Shared(model),
        _ => Access::None,
    })?;
    match lent.0 {
        Access::Exclusive(model) => {
            // SAFETY: the frame's scope holds both; nobody else has the model exclusively while it is shared, and a second
            // walk inside the first is refused below because the model is no longer exclusive.
            let (model, gradients) = unsafe { (&*model, &mut **gradients) };
            body(model, gradients)
        }
        Access::Shared(_) => Err("a walk over examples is already under way".to_owned()),
        Access::None => Err(NO_MODEL.to_owned()),
    }
}

/// Lends a gradient for one visit of a walk, within the session that asked for the walk.
pub(super) fn lend_for_visit<T>(tensor: Tensor, visit: impl FnOnce(u64) -> T) -> Result<T, String> {
    let handle = insert(Value::constant(tensor), true)?;
    let result = visit(handle);
    // It is stale where the visitor released what was only lent, which does no harm.
    let _ = released(handle);
    Ok(result)
}

/// Who is being called, and the run's table.
pub(super) fn who() -> Result<(Arc<Caller>, Option<Arc<RunHandles>>), String> {
    let (caller, run) = innermost(|frame| (frame.caller, frame.run))?;
    // SAFETY: the innermost frame is alive, and so is what it points to.
    Ok(unsafe { ((*caller).clone(), run.map(|run| (*run).clone())) })
}

/// The run of the innermost session.
pub(super) fn run() -> Result<Arc<RunHandles>, String> {
    who()?.1.ok_or_else(|| "there is no run before `attach`".to_owned())
}

/// A handle for a tensor that passes to the plugin.
pub(super) fn hand_over(tensor: Tensor) -> Result<u64, String> {
    insert(Value::constant(tensor), false)
}

/// The number and parameter of a handle.
pub(super) fn parameter(handle: u64) -> Result<(usize, Parameter), String> {
    let run = innermost(|frame| frame.run)?.ok_or_else(|| Invalid::NoRun.to_string())?;
    // SAFETY: the innermost frame is alive, and so is what it points to.
    let found = unsafe { (*run).get(handle) };
    found.map(|(i, parameter)| (i, parameter.clone())).ok_or_else(|| said(Invalid::OtherRun))
}

/// Remembers why a host call failed, for `last_error`.
pub(super) fn set_last_error(text: String) {
    CALLS.with_borrow_mut(|calls| calls.last_error = text);
}

/// Why the last host call on this thread failed.
pub(super) fn last_error() -> String {
    CALLS.with_borrow(|calls| calls.last_error.clone())
}

/// Remembers what the plugin says of the status it is about to return.
pub(super) fn report(text: String) {
    CALLS.with_borrow_mut(|calls| calls.reported = Some(text));
}

/// What the plugin said, once.
pub(in crate::plugin) fn take_reported() -> Option<String> {
    CALLS.with_borrow_mut(|calls| calls.reported.take())
}
