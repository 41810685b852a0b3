//! Sums of parts, in the order of their numbers, whichever core is ready first: the order decides the last bits.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::cores;
use crate::{Error, Result};

/// What `one` gives for each number below `count`, added up by `add` in their order to what there is. On all cores, or where these are
/// within each part, one part after the other.
///
/// # Errors
/// One of those of `one` and `add`. What was not begun by then is not.
pub(super) fn sum<T: Send>(
    begun: T,
    count: usize,
    on_cores: bool,
    one: impl Fn(usize) -> Result<T> + Sync,
    add: impl Fn(&mut T, T) -> Result<()> + Sync,
) -> Result<T> {
    if !on_cores {
        let mut total = begun;
        (0..count).try_for_each(|i| add(&mut total, one(i)?))?;
        return Ok(total);
    }
    let sum = OrderedSum::new(begun);
    let numbers: Vec<usize> = (0..count).collect();
    cores::map(&numbers, |&i| sum.add(i, one(i)?, &add))?;
    sum.into_total().ok_or_else(|| Error::run("a sum was left by a part that failed"))
}

/// Adds parts in the order of their numbers, whichever is ready first.
///
/// The lock guards the parts and is never held while one is added: a thread of the pool that waits for work of the pool may take up
/// another task that adds here.
struct OrderedSum<T>(Mutex<Parts<T>>);

struct Parts<T> {
    /// The sum of the parts before `next`; away while a thread adds to it.
    total: Option<T>,
    next: usize,
    waiting: BTreeMap<usize, T>,
}

impl<T> OrderedSum<T> {
    fn new(begun: T) -> Self {
        Self(Mutex::new(Parts { total: Some(begun), next: 0, waiting: BTreeMap::new() }))
    }

    /// Adds this part, or leaves it to who is adding those before it; then those that have waited for it.
    fn add(&self, number: usize, part: T, add: impl Fn(&mut T, T) -> Result<()>) -> Result<()> {
        let mut parts = lock(&self.0);
        parts.waiting.insert(number, part);
        loop {
            let Some(mut total) = parts.total.take() else { return Ok(()) };
            let next = parts.next;
            let Some(part) = parts.waiting.remove(&next) else {
                parts.total = Some(total);
                return Ok(());
            };
            drop(parts);
            add(&mut total, part)?;
            parts = lock(&self.0);
            parts.total = Some(total);
            parts.next += 1;
        }
    }

    fn into_total(self) -> Option<T> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).total
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thread_that_adds_may_take_up_another_part() {
        let (ended, end) = mpsc::channel();
        std::thread::spawn(move || {
            // The only thread takes up the other parts, the last first, in the midst of adding this one.
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            let sum = OrderedSum::new(Vec::new());
            let add = |total: &mut Vec<usize>, part: Vec<usize>| {
                while rayon::yield_now() == Some(rayon::Yield::Executed) {}
                total.extend(part);
                Ok(())
            };
            pool.scope(|scope| {
                for i in (0..4).rev() {
                    let (sum, add) = (&sum, &add);
                    scope.spawn(move |_| sum.add(i, vec![i], add).unwrap());
                }
            });
            ended.send(sum.into_total().unwrap()).unwrap();
        });
        let found = end.recv_timeout(Duration::from_secs(30)).expect("a thread waits for itself");
        assert_eq!(found, [0, 1, 2, 3]);
    }

    #[test]
    fn parts_are_added_in_order_and_an_error_ends_it() {
        let add = |total: &mut Vec<usize>, part: Vec<usize>| {
            total.extend(part);
            Ok(())
        };
        for on_cores in [false, true] {
            let found = sum(vec![9], 100, on_cores, |i| Ok(vec![i]), add).unwrap();
            assert_eq!(found, [9].into_iter().chain(0..100).collect::<Vec<_>>());
            let one = |i| if i == 3 { Err(Error::run("three")) } else { Ok(vec![i]) };
            assert_eq!(sum(Vec::new(), 100, on_cores, one, add).unwrap_err().to_string(), "three");
        }
    }
}
