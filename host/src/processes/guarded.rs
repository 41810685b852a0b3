//! The work of a command in a child of this process, which says what the child cannot say any more.
//!
//! A plugin can end its process without a word: `_exit(0)` is a success to whoever asks, and a signal leaves a number. And it can keep it
//! forever. So a command that calls plugins is two processes from its start: one works, and the other, which maps no plugin, waits for its end, passes
//! signals on and reads on a page of both ([`underway`](crate::plugin::underway)) which call into which plugin was the last. The child
//! is a fork: it has the same terminal, the same group of processes, nothing is loaded twice, and the start takes well below a
//! millisecond longer. It ends when its parent is killed.
//!
//! The parent alone counts signals. The first goes to the child, which makes of it what it did before: it ends at once, or after its step with a checkpoint
//! ([`Interrupt`]). Ctrl-C reaches the child by itself too, so there a second one means nothing; it is the parent that ends both.
#![allow(unsafe_code)]

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, getppid, kill_process, set_parent_process_death_signal, waitpid,
};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGQUIT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::plugin::underway::{Board, UnderWay};
use crate::run::state::checkpoint::Checkpoints;
use crate::{Error, Result};

/// How often is looked whether plugins still do something.
const GLANCE: Duration = Duration::from_millis(250);
/// Glances after which a call that does nothing is spoken of: 10 seconds.
const SAY_AFTER: u32 = 40;
/// Each time that it is spoken of again, so many times later.
const SAY_AGAIN: u32 = 6;
/// Glances that a call which does nothing has from the first signal on: 2 seconds.
const GRACE: u32 = 8;
/// By these a user ends a process: there is nothing to explain.
const OF_USERS: [i32; 5] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE];

/// Does the work in a child of this process and gives the exit code that the work gave. It comes back twice: in the child once the work
/// is done, and in this process once the child has ended.
///
/// Where there can be no child, or this process has threads already, the work is done here.
///
/// # Errors
/// In this process, where the child ended in the midst of its work, or did not end when the user asked it to: which plugin was called
/// then, and how the run goes on.
pub fn guarded(work: impl FnOnce() -> u8) -> Result<u8> {
    let (1, Ok(board)) = (threads(), Board::share()) else { return Ok(work()) };
    let parent = getpid();
    // SAFETY: this process has one thread, which goes on in the child: no other can have left a lock or a structure half done.
    match unsafe { libc::fork() } {
        0 => {
            // Where the system has no such signal, a child that its parent has left ends its work as a process of its own.
            let _ = set_parent_process_death_signal(Some(Signal::KILL));
            if getppid() != Some(parent) {
                low_level::exit(1);
            }
            board.keep();
            let code = work();
            board.end(code);
            Ok(code)
        }
        child => match Pid::from_raw(child) {
            Some(child) if child.as_raw_nonzero().get() > 0 => Watch::new(child, board)?.until_it_ends(),
            _ => Ok(work()),
        },
    }
}

/// Threads of this process; 0 where that is not known.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// What the parent watches.
struct Watch {
    child: Pid,
    board: Board,
    /// Signals that came.
    came: [(i32, Signal, Arc<AtomicBool>); 2],
    /// Where a byte comes with every signal and with the child's end.
    bell: UnixStream,
}

impl Watch {
    fn new(child: Pid, board: Board) -> Result<Self> {
        let failed = || Error::io("cannot listen to Ctrl-C");
        let (bell, ring) = UnixStream::pair().map_err(failed())?;
        bell.set_read_timeout(Some(GLANCE)).map_err(failed())?;
        let came =
            [(SIGINT, Signal::INT), (SIGTERM, Signal::TERM)].map(|(number, signal)| (number, signal, Arc::default()));
        for (number, _, flag) in &came {
            // In this order: whoever hears the bell finds the flag raised.
            flag::register(*number, Arc::clone(flag)).map_err(failed())?;
        }
        for number in [SIGINT, SIGTERM, SIGCHLD] {
            let ring = ring.try_clone().map_err(failed())?;
            low_level::pipe::register(number, ring).map_err(failed())?;
        }
        Ok(Self { child, board, came, bell })
    }

    /// Waits for the child's end. Two signals end it at once, and one where a plugin does not come back.
    fn until_it_ends(mut self) -> Result<u8> {
        // Glances since the first signal, and since something was last heard of a call.
        let (mut told, mut still) = (None, 0);
        let (mut beats, mut say_at) = (self.board.beats(), SAY_AFTER);
        loop {
            if let Some((_, status)) = self.wait(WaitOptions::NOHANG)? {
                return self.ended(status);
            }
            for (number, signal, came) in &self.came {
                match (came.swap(false, Ordering::Relaxed), told) {
                    (false, _) => {}
                    (true, None) => {
                        told = Some(0);
                        self.send(*signal);
                    }
                    (true, Some(_)) => {
                        self.end()?;
                        // As a shell says it.
                        return Ok(u8::try_from(128 + number).unwrap_or(u8::MAX));
                    }
                }
            }
            if !self.rests() {
                continue;
            }
            let (calls, now) = (self.board.calls(), self.board.beats());
            still = if now == beats && !calls.is_empty() { still + 1 } else { 0 };
            if still == 0 {
                (beats, say_at) = (now, SAY_AFTER);
            } else if still == say_at {
                say_at *= SAY_AGAIN;
                let seconds = (still * GLANCE).as_secs();
                tracing::warn!("{} and has not come back for {seconds} s; Ctrl-C ends the run", listed("is", &calls));
            }
            told = told.map(|glances: u32| glances + 1);
            if told.is_some_and(|glances| glances >= GRACE) && still >= GRACE {
                self.end()?;
                return Err(self.stuck(&calls));
            }
        }
    }

    /// Waits for a glance; `false` where a signal comes before, or the child's end.
    fn rests(&mut self) -> bool {
        let heard = self.bell.read(&mut [0; 64]);
        heard.is_err_and(|error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
    }

    fn wait(&self, options: WaitOptions) -> Result<Option<(Pid, WaitStatus)>> {
        loop {
            match waitpid(Some(self.child), options) {
                Err(rustix::io::Errno::INTR) => {}
                found => {
                    return found.map_err(|error| Error::io("cannot wait for the process that works")(error.into()));
                }
            }
        }
    }

    fn send(&self, signal: Signal) {
        // It may just have ended: then there is nobody to tell.
        let _ = kill_process(self.child, signal);
    }

    /// Ends the child at once.
    fn end(&self) -> Result<()> {
        self.send(Signal::KILL);
        self.wait(WaitOptions::empty()).map(drop)
    }

    /// The exit code of a child that has ended with its work, or what is to be said of its end.
    fn ended(&self, status: WaitStatus) -> Result<u8> {
        if let (Some(code), Some(_)) = (self.board.ended(), status.exit_status()) {
            return Ok(code);
        }
        if let Some(number) = status.terminating_signal().filter(|number| OF_USERS.contains(number)) {
            // This process ends as its child has, so that a shell sees what it would have seen.
            let _ = low_level::emulate_default_handler(number);
            return Ok(u8::try_from(128 + number).unwrap_or(u8::MAX));
        }
        Err(self.lost(status))
    }

    /// The error where the child ended in the midst of its work.
    fn lost(&self, status: WaitStatus) -> Error {
        let how = match (status.terminating_signal(), status.exit_status()) {
            (Some(number), _) => format!("signal {number} ({})", low_level::signal_name(number).unwrap_or("unknown")),
            (None, code) => format!("exit code {}", code.unwrap_or(-1)),
        };
        if self.board.ended().is_some() {
            return Error::run(format!("the process ended with {how} after all its work was done")).with_help(
                "what it has written is whole; a plugin, or a library that it brings, fails when a process ends",
            );
        }
        let calls = self.board.calls();
        let (error, first) = match calls.as_slice() {
            [] => {
                let memory =
                    "the system ends what takes too much memory (its log, dmesg, says so): lower train.batch_size";
                let advice = if status.terminating_signal() == Some(SIGKILL) {
                    memory
                } else {
                    "no plugin was called then: it may have been a thread of one, or a fault of fthost"
                };
                (Error::run(format!("the process ended with {how} before its work was done")), advice)
            }
            [UnderWay { whose, what }] => {
                (Error::plugin(format!("{whose} ended the process in {what}, with {how}")), "tell the plugin's author")
            }
            calls => (
                Error::plugin(format!("the process ended with {how} while {}", listed("was", calls))),
                "tell the plugin's author",
            ),
        };
        error.with_help(match self.way_on() {
            Some(way_on) => format!("{first}; {way_on}"),
            None => first.to_owned(),
        })
    }

    /// The error where the user wants to stop and a plugin keeps the child.
    fn stuck(&self, calls: &[UnderWay]) -> Error {
        let error = Error::Interrupted {
            message: format!("stopped at once: {} and did not come back", listed("was", calls)),
            help: None,
        };
        match self.way_on() {
            Some(way_on) => error.with_help(way_on),
            None => error,
        }
    }

    /// How the run goes on, where it has begun.
    fn way_on(&self) -> Option<String> {
        let (folder, arguments) = self.board.run()?;
        Some(match Checkpoints::new(&folder, usize::MAX).latest() {
            Some(_) => format!("go on from the last checkpoint with: fthost {arguments}"),
            None => format!("remove {} and begin again: there is no checkpoint yet", folder.display()),
        })
    }
}

/// `plugin a was in attach`, of several calls all.
fn listed(verb: &str, calls: &[UnderWay]) -> String {
    let calls: Vec<String> = calls.iter().map(|UnderWay { whose, what }| format!("{whose} {verb} in {what}")).collect();
    calls.join(", ")
}
