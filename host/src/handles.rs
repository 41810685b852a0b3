//! Handles: the numbers by which a plugin names tensors and parameters.
//!
//! A tensor's handle carries the thread it lives on, a slot and the slot's generation, so one that is stale, or carried to another
//! thread, is an error and never another tensor. A kept tensor's is valid on any thread until its release. A parameter's handle carries a run and a place in its table; it stays below
//! 2^53, so that any JSON reader keeps it whole.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use fthost_autograd::{Device, Parameter};

/// What stands in a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handle {
    /// A slot of a thread's tensors.
    Tensor { thread: u16, slot: u32, generation: u32 },
    /// A slot of the tensors that plugins keep between calls.
    Kept { slot: u32, generation: u32 },
    /// A place in a run's table of parameters.
    Parameter { run: u32, index: u32 },
}

const SLOT_BITS: u32 = 20;
const GENERATION_BITS: u32 = 32;
const THREAD_SHIFT: u32 = SLOT_BITS + GENERATION_BITS;
/// Threads are numbered from 1, so a tensor's handle is at least 2^53 and a parameter's below.
pub(crate) const THREADS: u32 = KEPT as u32 - 1;
/// What stands in the place of the thread in the handle of a kept tensor.
const KEPT: u16 = (1 << (64 - THREAD_SHIFT - 1)) - 1;
const PARAMETER: u64 = 1 << THREAD_SHIFT;
/// Slots that one thread may hold at a time.
pub(crate) const SLOTS: usize = 1 << SLOT_BITS;
const RUN_BITS: u32 = 20;

impl Handle {
    pub(crate) fn encode(self) -> u64 {
        match self {
            Self::Kept { slot, generation } => Self::Tensor { thread: KEPT, slot, generation }.encode(),
            Self::Tensor { thread, slot, generation } => {
                u64::from(thread) << (THREAD_SHIFT + 1) | u64::from(generation) << SLOT_BITS | u64::from(slot)
            }
            Self::Parameter { run, index } => PARAMETER | u64::from(run) << 32 | u64::from(index),
        }
    }

    pub(crate) fn decode(handle: u64) -> Self {
        let thread = (handle >> (THREAD_SHIFT + 1)) as u16;
        if thread == 0 {
            let run = (handle >> 32) as u32 & ((1 << RUN_BITS) - 1);
            return Self::Parameter { run, index: handle as u32 };
        }
        let (slot, generation) = (handle as u32 & (SLOTS as u32 - 1), (handle >> SLOT_BITS) as u32);
        if thread == KEPT { Self::Kept { slot, generation } } else { Self::Tensor { thread, slot, generation } }
    }
}

/// Why a handle names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    Null,
    Stale,
    OtherThread,
    OtherRun,
    NoRun,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "an input is missing (handle 0)",
            Self::Stale => {
                "a tensor was used after its release; tensors are valid within the call they were made in or given to"
            }
            Self::OtherThread => "a tensor was used on another thread than the one it was made on",
            Self::OtherRun => "a parameter's handle belongs to no parameter of this run",
            Self::NoRun => "a parameter was used before `attach`",
        })
    }
}

/// Values in slots that are used again, each time under another generation.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    /// Puts a value in; gives its slot and generation, or the value back where all slots are taken.
    pub(crate) fn insert(&mut self, value: T) -> Result<(u32, u32), T> {
        if let Some(slot) = self.free.pop() {
            let place = &mut self.slots[slot as usize];
            place.1 = Some(value);
            return Ok((slot, place.0));
        }
        if self.slots.len() == SLOTS {
            return Err(value);
        }
        self.slots.push((0, Some(value)));
        Ok((self.slots.len() as u32 - 1, 0))
    }

    pub(crate) fn get(&self, slot: u32, generation: u32) -> Option<&T> {
        match self.slots.get(slot as usize) {
            Some((of, value)) if *of == generation => value.as_ref(),
            _ => None,
        }
    }

    pub(crate) fn get_mut(&mut self, slot: u32, generation: u32) -> Option<&mut T> {
        match self.slots.get_mut(slot as usize) {
            Some((of, value)) if *of == generation => value.as_mut(),
            _ => None,
        }
    }

    /// Takes a value out; its generation is over.
    pub(crate) fn remove(&mut self, slot: u32, generation: u32) -> Option<T> {
        let place = self.slots.get_mut(slot as usize).filter(|(of, _)| *of == generation)?;
        let value = place.1.take()?;
        place.0 = place.0.wrapping_add(1);
        self.free.push(slot);
        Some(value)
    }

    /// Takes out all that fit.
    pub(crate) fn remove_where(&mut self, mut fits: impl FnMut(&T) -> bool) -> Vec<T> {
        let fitting: Vec<(u32, u32)> = (0..self.slots.len() as u32)
            .filter_map(|slot| {
                let (generation, value) = &self.slots[slot as usize];
                value.as_ref().is_some_and(&mut fits).then_some((slot, *generation))
            })
            .collect();
        fitting.into_iter().filter_map(|(slot, generation)| self.remove(slot, generation)).collect()
    }
}

/// What all plugin calls of one run share: the device, the seed, the step, and the numbered parameters. Parameters are appended on the run's
/// thread and read on any, without a lock.
pub(crate) struct RunHandles {
    run: u32,
    device: Device,
    seed: u64,
    step: AtomicU64,
    traced: AtomicBool,
    len: AtomicUsize,
    /// Bytes of the tensors that plugins keep beyond their calls.
    kept: AtomicUsize,
    /// Numbers that plugins have told since they were last taken, by method and name.
    scalars: Mutex<Vec<(String, f64)>>,
    /// Chunk `i` has `FIRST_CHUNK << i` places.
    chunks: [OnceLock<Box<[OnceLock<Parameter>]>>; 24],
}

const FIRST_CHUNK: usize = 64;

impl fmt::Debug for RunHandles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunHandles(run {}, {} parameters)", self.run, self.len())
    }
}

impl RunHandles {
    /// An empty table for a run on this device with this seed.
    pub(crate) fn new(device: Device, seed: u64) -> Self {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed) & ((1 << RUN_BITS) - 1);
        let chunks = [const { OnceLock::new() }; 24];
        Self {
            run,
            device,
            seed,
            step: AtomicU64::new(0),
            traced: AtomicBool::new(false),
            len: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
            scalars: Mutex::default(),
            chunks,
        }
    }

    /// Where the run's tensors live.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// The run's seed.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// The optimizer step that is under way, counted from 0 in its phase.
    pub(crate) fn step(&self) -> u64 {
        self.step.load(Ordering::Relaxed)
    }

    /// Says which step is under way.
    pub(crate) fn begin_step(&self, step: u64) {
        self.step.store(step, Ordering::Relaxed);
    }

    /// Bytes of the tensors that plugins keep beyond their calls.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// Counts a tensor that a plugin keeps from now on.
    pub(crate) fn keep(&self, bytes: usize) {
        self.kept.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts one no more that was counted.
    pub(crate) fn let_go(&self, bytes: usize) {
        self.kept.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Keeps a number that a plugin tells, under `METHOD/NAME`.
    pub(crate) fn keep_scalar(&self, name: String, value: f64) {
        self.scalars.lock().unwrap_or_else(PoisonError::into_inner).push((name, value));
    }

    /// The numbers that plugins have told since the last call.
    pub(crate) fn take_scalars(&self) -> Vec<(String, f64)> {
        std::mem::take(&mut *self.scalars.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether each call looks for the first number that is none: after a step that went wrong, to name who is to blame.
    pub(crate) fn is_traced(&self) -> bool {
        self.traced.load(Ordering::Relaxed)
    }

    /// Has each call look for numbers that are none, while `body` runs.
    pub(crate) fn tracing<T>(&self, body: impl FnOnce() -> T) -> T {
        self.traced.store(true, Ordering::Relaxed);
        let result = body();
        self.traced.store(false, Ordering::Relaxed);
        result
    }

    /// Number of parameters.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Numbers a parameter. On the run's thread.
    pub(crate) fn push(&self, parameter: &Parameter) {
        let index = self.len();
        let (chunk, place) = position(index);
        let places = self.chunks[chunk].get_or_init(|| (0..FIRST_CHUNK << chunk).map(|_| OnceLock::new()).collect());
        // The place is free: only the run's thread appends, and it has not yet counted this index.
        let _ = places[place].set(parameter.clone());
        self.len.store(index + 1, Ordering::Release);
    }

    /// The handle of the parameter with this number.
    pub(crate) fn handle(&self, index: usize) -> u64 {
        Handle::Parameter { run: self.run, index: index as u32 }.encode()
    }

    /// The parameter with this handle and its number, `None` where the handle is not one of this run's.
    pub(crate) fn get(&self, handle: u64) -> Option<(usize, &Parameter)> {
        match Handle::decode(handle) {
            Handle::Parameter { run, index } if run == self.run && handle & PARAMETER != 0 => self.at(index),
            _ => None,
        }
    }

    fn at(&self, index: u32) -> Option<(usize, &Parameter)> {
        let index = index as usize;
        let (chunk, place) = position(index);
        Some((index, self.chunks.get(chunk)?.get()?.get(place)?.get()?))
    }
}

/// Chunk and place of an index.
fn position(index: usize) -> (usize, usize) {
    let chunk = (index / FIRST_CHUNK + 1).ilog2() as usize;
    (chunk, index - FIRST_CHUNK * ((1 << chunk) - 1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use fthost_autograd::{DType, Tensor};

    use super::*;

    #[test]
    fn handles_keep_what_they_carry() {
        let check = |handle: Handle| {
            assert_ne!(handle.encode(), 0);
            assert_eq!(Handle::decode(handle.encode()), handle);
        };
        for thread in [1, 2, THREADS as u16] {
            for slot in [0, 1, SLOTS as u32 - 1] {
                for generation in [0, 1, u32::MAX] {
                    check(Handle::Tensor { thread, slot, generation });
                    check(Handle::Kept { slot, generation });
                }
            }
        }
        for (run, index) in [(0, 0), (1, 7), ((1 << RUN_BITS) - 1, u32::MAX)] {
            check(Handle::Parameter { run, index });
            assert!(Handle::Parameter { run, index }.encode() < 1 << 53);
        }
    }

    #[test]
    fn a_slot_is_used_again_under_another_generation() {
        let mut slots = Slots::new();
        let (slot, generation) = slots.insert("a").unwrap();
        assert_eq!(slots.remove(slot, generation), Some("a"));
        let (again, later) = slots.insert("b").unwrap();
        assert_eq!(again, slot);
        assert_eq!((slots.get(slot, generation), slots.get(slot, later)), (None, Some(&"b")));
        assert_eq!(slots.remove(slot, generation), None);
        assert_eq!(slots.remove_where(|value| *value == "b"), ["b"]);
        assert_eq!(slots.get(slot, later), None);
    }

    #[test]
    fn parameters_are_found_by_their_own_runs_handles() {
        let parameter =
            |i: usize| Parameter::new(format!("p{i}"), Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap(), true);
        let (run, other) = (RunHandles::new(Device::Cpu, 1), RunHandles::new(Device::Cpu, 2));
        for i in 0..1000 {
            run.push(&parameter(i));
            other.push(&parameter(i));
        }
        for i in [0, 1, 63, 64, 191, 192, 999] {
            let (index, found) = run.get(run.handle(i)).unwrap();
            assert_eq!((index, found.name()), (i, format!("p{i}").as_str()));
        }
        assert!(run.get(run.handle(1000)).is_none());
        assert!(run.get(other.handle(3)).is_none());
        assert!(run.get(0).is_none());
    }
}
