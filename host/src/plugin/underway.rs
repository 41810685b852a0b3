//! Which calls into plugins are under way: a page that the process which works shares with the one that watches over it
//! ([`guarded`](crate::processes::guarded)).
//!
//! A plugin may end its process (`_exit`, a signal, a stack that overflows), or never come back. Then nothing of ours runs any more that could say
//! so. So each call leaves a note of itself where another process reads it: a few stores to memory that both map, and no call of the
//! system. Threads have places of their own, because hooks run on several. Names are written once and are numbers from then on.
//! Where nobody watches there is no page, and a call costs one look for it.

use std::collections::HashMap;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use libc::{MAP_ANONYMOUS, MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap};

/// Threads that can have a place at one time; calls of further ones are not noted.
const THREADS: usize = 256;
/// Bytes of all names together. What is not written takes no memory.
const NAMES: usize = 1 << 20;
/// Words that a call's name takes: 24 bytes of it are kept.
const WORDS: usize = 3;
/// Stands in for a name that found no room.
const UNKNOWN: &str = "a plugin";

/// The page. Zero bytes are an empty one.
#[repr(C)]
struct Page {
    threads: [Thread; THREADS],
    /// The exit code of the work and one, once it has ended.
    ended: AtomicU32,
    /// Names of the run's folder and of the arguments that go on in it.
    folder: AtomicU32,
    resume: AtomicU32,
    /// Where the next name goes.
    used: AtomicU32,
    /// Names, each with a zero at its end.
    names: [AtomicU8; NAMES],
}

/// What one thread does. A cache line of its own: nobody else writes to it.
#[repr(C, align(64))]
struct Thread {
    taken: AtomicBool,
    /// Grows whenever a call begins or ends, or the plugin asks the host for something.
    beats: AtomicU64,
    call: [AtomicU64; 1 + WORDS],
}

/// A call as it is noted: whose and where, then what it is called. Zeros are no call.
type Note = [u64; 1 + WORDS];

/// The page of this process, where somebody watches over it.
static PAGE: OnceLock<&'static Page> = OnceLock::new();

/// A name on the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Name(u32);

/// A name on the page of this process. The same text is written once.
pub(crate) fn name(text: &str) -> Name {
    static KNOWN: Mutex<Option<HashMap<String, Name>>> = Mutex::new(None);
    let Some(page) = PAGE.get() else { return Name::default() };
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if let Some(name) = known.get(text) {
        return *name;
    }
    let name = page.write(text);
    known.insert(text.to_owned(), name);
    name
}

/// A call into a plugin, until it is dropped.
pub(crate) struct Call {
    of: Option<(&'static Thread, Note)>,
    /// It stays on its thread.
    _here: PhantomData<*const ()>,
}

/// Notes that a call begins: whose, what it is called, and at which site, where it is at one. Calls nest.
pub(crate) fn enter(whose: Name, what: &str, site: Name) -> Call {
    let of = mine().map(|thread| {
        let before = thread.note();
        thread.write(note(whose, what, site));
        (thread, before)
    });
    Call { of, _here: PhantomData }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some((thread, before)) = self.of {
            thread.write(before);
        }
    }
}

/// The plugin on this thread has asked the host for something: it is not stuck.
pub(crate) fn beat() {
    if let Some(thread) = mine() {
        thread.beat();
    }
}

/// Says in which folder this process's run is, and which arguments of `fthost` go on in it.
pub(crate) fn begin_run(folder: &Path, resume: &str) {
    let Some(page) = PAGE.get() else { return };
    page.folder.store(name(&folder.to_string_lossy()).0, Ordering::Relaxed);
    page.resume.store(name(resume).0, Ordering::Relaxed);
}

/// Whether a process watches over this one. It hears signals first, and counts them.
pub(crate) fn watched() -> bool {
    PAGE.get().is_some()
}

/// The place of this thread.
fn mine() -> Option<&'static Thread> {
    /// A place that is taken, and free again when the thread ends.
    struct Place(Option<&'static Thread>);

    impl Place {
        fn take() -> Self {
            let free = |thread: &&Thread| !thread.taken.swap(true, Ordering::Relaxed);
            Self(PAGE.get().and_then(|page| page.threads.iter().find(free)))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            if let Some(thread) = self.0 {
                thread.taken.store(false, Ordering::Relaxed);
            }
        }
    }

    thread_local! {
        static PLACE: Place = Place::take();
    }
    PAGE.get()?;
    // A plugin's instance may be dropped when the thread has lost its place.
    PLACE.try_with(|place| place.0).ok().flatten()
}

fn note(Name(whose): Name, what: &str, Name(site): Name) -> Note {
    let mut note = [u64::from(whose.max(1)) << 32 | u64::from(site), 0, 0, 0];
    for (word, bytes) in note[1..].iter_mut().zip(what.as_bytes().chunks(8)) {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_le_bytes(padded);
    }
    note
}

impl Thread {
    fn note(&self) -> Note {
        std::array::from_fn(|i| self.call[i].load(Ordering::Relaxed))
    }

    fn write(&self, note: Note) {
        self.call.iter().zip(note).for_each(|(place, word)| place.store(word, Ordering::Relaxed));
        self.beat();
    }

    fn beat(&self) {
        self.beats.store(self.beats.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

impl Page {
    fn write(&self, text: &str) -> Name {
        let at = self.used.load(Ordering::Relaxed) as usize;
        let Some(room) = self.names.get(at..at + text.len() + 1) else { return Name::default() };
        room.iter().zip(text.bytes()).for_each(|(place, byte)| place.store(byte, Ordering::Relaxed));
        self.used.store((at + room.len()) as u32, Ordering::Relaxed);
        Name(at as u32)
    }

    /// A name, `None` for that of nothing.
    fn read(&self, name: u32) -> Option<String> {
        let bytes =
            self.names.get(name as usize..).filter(|_| name > 0)?.iter().map(|byte| byte.load(Ordering::Relaxed));
        Some(String::from_utf8_lossy(&bytes.take_while(|byte| *byte != 0).collect::<Vec<_>>()).into_owned())
    }
}

/// A call that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnderWay {
    /// Whose it is: `plugin lora (liblora.so)`.
    pub(crate) whose: String,
    /// What it is: `its linear hook at layer.0`.
    pub(crate) what: String,
}

/// The page as the process sees it that watches.
#[derive(Clone, Copy)]
pub(crate) struct Board(&'static Page);

impl Board {
    /// An empty page that processes share which are forked from now on.
    ///
    /// # Errors
    /// Where the system has no memory for it.
    pub(crate) fn share() -> io::Result<Self> {
        let (access, flags) = (PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
        // SAFETY: no address is asked for, so nothing that is mapped is touched.
        let page = unsafe { mmap(std::ptr::null_mut(), size_of::<Page>(), access, flags, -1, 0) };
        if page == MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the memory is as large and aligned to pages, is never unmapped, and holds zeros, which atomics may.
        let page: &'static Page = unsafe { &*page.cast::<Page>() };
        page.used.store(1, Ordering::Relaxed);
        page.write(UNKNOWN);
        Ok(Self(page))
    }

    /// From now on the calls of this process are noted here.
    pub(crate) fn keep(self) {
        // There is one page in a process: that of the process which watches over it.
        let _ = PAGE.set(self.0);
    }

    /// The work of this process has ended, with this exit code.
    pub(crate) fn end(self, code: u8) {
        self.0.ended.store(u32::from(code) + 1, Ordering::Relaxed);
    }

    /// With which exit code the work has ended, where it has.
    pub(crate) fn ended(self) -> Option<u8> {
        u8::try_from(self.0.ended.load(Ordering::Relaxed).checked_sub(1)?).ok()
    }

    /// The calls that are under way, each once.
    pub(crate) fn calls(self) -> Vec<UnderWay> {
        let mut calls = Vec::new();
        for thread in &self.0.threads {
            let [names, what @ ..] = thread.note();
            let Some(whose) = self.0.read((names >> 32) as u32) else { continue };
            let what: Vec<u8> = what.iter().flat_map(|word| word.to_le_bytes()).take_while(|byte| *byte != 0).collect();
            let what = String::from_utf8_lossy(&what);
            let what = match self.0.read(names as u32) {
                Some(site) => format!("{what} at {site}"),
                None => what.into_owned(),
            };
            let call = UnderWay { whose, what };
            if !calls.contains(&call) {
                calls.push(call);
            }
        }
        calls
    }

    /// Another number as long as plugins are called, come back, or ask the host for something.
    pub(crate) fn beats(self) -> u64 {
        let beats = self.0.threads.iter().map(|thread| thread.beats.load(Ordering::Relaxed));
        beats.fold(0, u64::wrapping_add)
    }

    /// The run's folder and the arguments of `fthost` that go on in it, where it has a folder yet.
    pub(crate) fn run(self) -> Option<(PathBuf, String)> {
        let name = |of: &AtomicU32| self.0.read(of.load(Ordering::Relaxed));
        Some((name(&self.0.folder)?.into(), name(&self.0.resume)?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// All in one test: a process has one page.
    #[test]
    fn calls_stand_on_the_page_as_long_as_they_go_on() {
        let board = Board::share().unwrap();
        assert_eq!((board.calls().len(), board.beats(), board.run(), board.ended()), (0, 0, None, None));
        let thread = &board.0.threads[0];
        let (whose, site) = (board.0.write("plugin lora (liblora.so)"), board.0.write("layer.0"));
        let said = |board: Board| {
            board.calls().iter().map(|call| format!("{} in {}", call.whose, call.what)).collect::<Vec<_>>()
        };
        thread.write(note(whose, "attach", Name::default()));
        assert_eq!(said(board), ["plugin lora (liblora.so) in attach"]);
        board.0.threads[3].write(note(Name::default(), "its embedding hook at all of them", site));
        assert_eq!(said(board)[1], "a plugin in its embedding hook at al at layer.0");
        board.0.threads[3].write([0; 4]);
        thread.write(note(whose, "attach", Name::default()));
        board.0.threads[4].write(thread.note());
        assert_eq!((said(board).len(), board.beats()), (1, 5), "what two threads do is said once");

        board.end(0);
        assert_eq!(board.ended(), Some(0));
        // No name without room, and what there is no name for is still a plugin's.
        assert_eq!(board.0.write(&"x".repeat(NAMES)), Name::default());
    }
}
