//! Work on all cores at once, no part of which is begun inside another.
//!
//! A thread of rayon's that waits for the parts of an op takes up what else lies about: the next micro-batch, and in it the hook whose
//! op it is in. A plugin would be entered again on the same thread, with its locks held. So micro-batches run on threads of their
//! own, each a pool of one: what an op splits there stays on its thread, and an op never waits for anything else of the run.
//! Where there is one piece of work only, it is done by the calling thread, which is none of rayon's, with its ops split over rayon's.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// The threads so far. They stay: what a thread has set aside for its kernels is used again.
static CORES: Mutex<Vec<Arc<ThreadPool>>> = Mutex::new(Vec::new());

/// So many pools of one thread, or fewer where the system gives no more.
fn cores(count: usize) -> Vec<Arc<ThreadPool>> {
    let mut cores = CORES.lock().unwrap_or_else(PoisonError::into_inner);
    while cores.len() < count {
        match ThreadPoolBuilder::new().num_threads(1).thread_name(|_| "core".into()).build() {
            Ok(pool) => cores.push(Arc::new(pool)),
            Err(error) => {
                tracing::warn!("only {} of {count} threads could be started: {error}", cores.len());
                break;
            }
        }
    }
    cores.iter().take(count).cloned().collect()
}

/// Makes the calling thread one of rayon's, for a program that never does more than one piece of work at once: it does its share of each op
/// itself, where it would hand the op over and sleep. An op of a token takes less time than that. Nothing where rayon's threads run already.
pub fn share_ops() {
    if let Err(error) = ThreadPoolBuilder::new().use_current_thread().build_global() {
        tracing::debug!("ops are left to rayon's threads: {error}");
    }
}

/// Does the work on each core, but on no more than `most`, and returns when all are through.
pub fn on_each(most: usize, work: impl Fn() + Sync) {
    fn start(cores: &[Arc<ThreadPool>], work: &(impl Fn() + Sync)) {
        if let Some((first, rest)) = cores.split_first() {
            first.in_place_scope(|scope| {
                scope.spawn(|_| work());
                start(rest, work);
            });
        }
    }
    match cores(most.min(rayon::current_num_threads())).as_slice() {
        [] => work(),
        cores => start(cores, &work),
    }
}

/// What `one` gives for each item, in order.
///
/// # Errors
/// One of those that `one` gave. What was not begun by then is not.
pub fn map<I: Sync, T: Send, E: Send>(items: &[I], one: impl Fn(&I) -> Result<T, E> + Sync) -> Result<Vec<T>, E> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let failure = Mutex::new(None);
    on_each(items.len(), || {
        while let Some((number, item)) = take(&next, items) {
            match one(item) {
                Ok(result) => lock(&done).push((number, result)),
                Err(error) => {
                    lock(&failure).get_or_insert(error);
                    next.store(items.len(), Ordering::Relaxed);
                }
            }
        }
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// The next item that nobody has taken.
fn take<'a, I>(next: &AtomicUsize, items: &'a [I]) -> Option<(usize, &'a I)> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    Some((number, items.get(number)?))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::cell::RefCell;

    use rayon::prelude::*;

    use super::*;

    /// With eight threads, in a rayon of its own size.
    fn with_eight<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        ThreadPoolBuilder::new().num_threads(8).build().unwrap().install(work)
    }

    #[test]
    fn results_are_in_order_and_an_error_ends_it() {
        let items: Vec<usize> = (0..1000).collect();
        assert_eq!(with_eight(|| map(&items, |item| Ok::<_, ()>(2 * item))).unwrap()[999], 1998);
        let begun = AtomicUsize::new(0);
        let failed = with_eight(|| {
            map(&items, |item| {
                begun.fetch_add(1, Ordering::Relaxed);
                if *item == 3 { Err("three") } else { Ok(()) }
            })
        });
        assert_eq!(failed, Err("three"));
        assert_eq!(map(&[] as &[u8], |_| Ok::<_, ()>(())), Ok(vec![]));
    }

    #[test]
    fn work_that_splits_begins_no_other_on_its_thread() {
        thread_local! {
            static HELD: RefCell<()> = const { RefCell::new(()) };
        }
        let (lock_of_all, items) = (Mutex::new(()), [(); 200]);
        let sums = with_eight(|| {
            map(&items, |()| {
                // Held while what it does is split, as a plugin may hold something across an op.
                HELD.with_borrow_mut(|()| {
                    let _held = lock_of_all.lock().unwrap();
                    Ok::<u32, ()>((0..10_000_u32).into_par_iter().with_max_len(10).sum())
                })
            })
        });
        assert!(sums.unwrap().iter().all(|sum| *sum == 49_995_000));
    }
}
