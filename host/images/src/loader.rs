//! Work done ahead of whoever needs it: batches of results, in order, by several threads, in bounded memory.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Batches of results, made ahead by threads. The iterator gives them in the order of the jobs, whatever the number of threads.
///
/// A batch is the result of each of its jobs, in their order; where results are errors, the caller sees each at its place and decides. At
/// most `ahead` batches are made or under way beyond the one that was taken last. Dropping it stops the threads, each after the job that
/// it is at. A job that panics makes the iterator panic when it gets there.
pub struct Loader<R> {
    shared: Arc<Shared<R>>,
    threads: Vec<JoinHandle<()>>,
    waited: Duration,
}

type Outcome<R> = Result<R, Box<dyn Any + Send>>;
type Job<R> = Box<dyn FnOnce() -> R + Send>;
/// Gives the next batch.
type Jobs<R> = Box<dyn FnMut() -> Option<Vec<Job<R>>> + Send>;

struct Shared<R> {
    state: Mutex<State<R>>,
    /// Something may be done: a batch was taken, or it stops.
    work: Condvar,
    /// The first batch may be complete.
    done: Condvar,
}

struct State<R> {
    jobs: Jobs<R>,
    ahead: usize,
    /// The number of the batch that stands first in `batches`.
    first: usize,
    batches: VecDeque<Batch<R>>,
    /// There are no more batches than those.
    ended: bool,
    stopped: bool,
}

struct Batch<R> {
    /// Those that no thread has begun, the next one last.
    left: Vec<(usize, Job<R>)>,
    results: Vec<Option<Outcome<R>>>,
    /// How many are still missing.
    missing: usize,
}

impl<R: Send + 'static> Loader<R> {
    /// Starts `threads` threads (at least one) that do `work` on the jobs of each batch, at most `ahead` batches (at least one) ahead.
    pub fn new<J: Send + 'static>(
        batches: impl Iterator<Item = Vec<J>> + Send + 'static,
        work: impl Fn(&J) -> R + Send + Sync + 'static,
        threads: usize,
        ahead: usize,
    ) -> Self {
        let work = Arc::new(work);
        let mut batches = batches;
        let jobs: Jobs<R> = Box::new(move || {
            let job = |job: J| -> Job<R> {
                let work = work.clone();
                Box::new(move || work(&job))
            };
            batches.next().map(|jobs| jobs.into_iter().map(job).collect())
        });
        let state =
            State { jobs, ahead: ahead.max(1), first: 0, batches: VecDeque::new(), ended: false, stopped: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), work: Condvar::new(), done: Condvar::new() });
        let thread = |_| {
            let shared = shared.clone();
            std::thread::spawn(move || shared.run())
        };
        Self { threads: (0..threads.max(1)).map(thread).collect(), shared, waited: Duration::ZERO }
    }
}

impl<R> Loader<R> {
    /// How long [`next`](Iterator::next) has waited for batches that were not there yet, in all.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl<R> Shared<R> {
    fn lock(&self) -> MutexGuard<'_, State<R>> {
        // Nothing that may panic runs while it is held but the caller's iterator; what it leaves is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread's life.
    fn run(&self) {
        let mut state = self.lock();
        while !state.stopped {
            let Some((batch, place, job)) = state.next_job() else {
                // A batch of no job is complete without anyone finishing it.
                self.done.notify_all();
                if state.ended {
                    return;
                }
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let outcome = catch_unwind(AssertUnwindSafe(job));
            state = self.lock();
            if state.finish(batch, place, outcome) {
                self.done.notify_all();
            }
        }
    }
}

impl<R> State<R> {
    /// The next job that nobody has begun, of the first batch that has one, with its batch's number and its place there.
    fn next_job(&mut self) -> Option<(usize, usize, Job<R>)> {
        loop {
            let open = self.batches.iter_mut().enumerate().find_map(|(i, batch)| Some((i, batch.left.pop()?)));
            if let Some((i, (place, job))) = open {
                return Some((self.first + i, place, job));
            }
            if self.ended || self.batches.len() >= self.ahead {
                return None;
            }
            self.fetch();
        }
    }

    /// Asks for one more batch.
    fn fetch(&mut self) {
        match catch_unwind(AssertUnwindSafe(&mut self.jobs)) {
            Ok(Some(jobs)) => {
                let missing = jobs.len();
                let results = jobs.iter().map(|_| None).collect();
                let left = jobs.into_iter().enumerate().rev().collect();
                self.batches.push_back(Batch { left, results, missing });
            }
            Ok(None) => self.ended = true,
            // A panic of the caller's iterator is handed on in its batch's place.
            Err(panic) => {
                self.ended = true;
                self.batches.push_back(Batch { left: Vec::new(), results: vec![Some(Err(panic))], missing: 0 });
            }
        }
    }

    /// Keeps a result. Whether its batch is complete.
    fn finish(&mut self, batch: usize, place: usize, outcome: Outcome<R>) -> bool {
        let batch = &mut self.batches[batch - self.first];
        batch.results[place] = Some(outcome);
        batch.missing -= 1;
        batch.missing == 0
    }

    /// The first batch, where it is complete.
    fn take(&mut self) -> Option<Vec<Option<Outcome<R>>>> {
        if self.batches.front()?.missing > 0 {
            return None;
        }
        self.first += 1;
        self.batches.pop_front().map(|batch| batch.results)
    }
}

impl<R> Iterator for Loader<R> {
    type Item = Vec<R>;

    fn next(&mut self) -> Option<Vec<R>> {
        let mut state = self.shared.lock();
        let mut since = None;
        let results = loop {
            if let Some(results) = state.take() {
                break Some(results);
            }
            if state.batches.is_empty() && state.ended {
                break None;
            }
            since.get_or_insert_with(Instant::now);
            state = self.shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        drop(state);
        self.waited += since.map_or(Duration::ZERO, |since| since.elapsed());
        self.shared.work.notify_all();
        let open = |outcome: Option<Outcome<R>>| match outcome? {
            Ok(result) => Some(result),
            Err(panic) => resume_unwind(panic),
        };
        results.map(|results| results.into_iter().filter_map(open).collect())
    }
}

impl<R> Drop for Loader<R> {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A thread's panic has been handed on already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
