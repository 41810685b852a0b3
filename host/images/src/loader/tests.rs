#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;

use super::*;
use crate::fixtures::noise;
use crate::random::seeded;
use crate::{Augment, Preprocess, Sample, Transform};

fn batches(sizes: impl IntoIterator<Item = usize>) -> Vec<Vec<usize>> {
    let mut next = 0;
    let mut batch = |size| {
        next += size;
        (next - size..next).collect()
    };
    sizes.into_iter().map(&mut batch).collect()
}

/// Whatever the threads: the same bits in the same order.
#[test]
fn results_do_not_depend_on_threads() {
    let ops = r#"["random_resized_crop", "flip", "rotation", "color_jitter", "rand_augment", "random_erasing"]"#;
    let augment: Augment = serde_json::from_str(ops).unwrap();
    let transform = Transform::new(Preprocess::imagenet((24, 24)).unwrap(), augment).unwrap();
    let run = |threads, ahead| -> Vec<Vec<Sample>> {
        let transform = transform.clone();
        let work = move |i: &usize| transform.train(noise(30, 40, *i as u64), None, &mut seeded(*i as u64));
        Loader::new(batches([5, 1, 0, 7, 8, 3, 8]).into_iter(), work, threads, ahead).collect()
    };
    let alone = run(1, 1);
    assert_eq!(alone.iter().map(Vec::len).collect::<Vec<_>>(), [5, 1, 0, 7, 8, 3, 8]);
    for (threads, ahead) in [(2, 1), (3, 2), (8, 3), (16, 100)] {
        assert!(run(threads, ahead) == alone, "{threads} threads, {ahead} ahead");
    }
}

/// No more than so many batches are begun before one is taken.
#[test]
fn memory_is_bounded() {
    let begun = Arc::new(AtomicUsize::new(0));
    let count = begun.clone();
    let work = move |_: &usize| count.fetch_add(1, Ordering::SeqCst);
    let mut loader = Loader::new(batches([4; 50]).into_iter(), work, 3, 2);
    for taken in 1..=10 {
        assert_eq!(loader.next().unwrap().len(), 4);
        sleep(Duration::from_millis(20));
        assert!(begun.load(Ordering::SeqCst) <= 4 * (taken + 2), "{begun:?} after {taken}");
    }
}

/// Errors stand in their places; what comes after them comes.
#[test]
fn errors_come_in_order() {
    let work = |i: &usize| if i % 3 == 1 { Err(*i) } else { Ok(*i) };
    let all: Vec<_> = Loader::new(batches([4, 4, 4]).into_iter(), work, 4, 2).flatten().collect();
    let expected: Vec<_> = (0..12).map(|i| if i % 3 == 1 { Err(i) } else { Ok(i) }).collect();
    assert_eq!(all, expected);
}

/// Dropped amid an endless sequence: its threads end, and soon.
#[test]
fn dropping_it_stops_the_threads() {
    let alive = Arc::new(AtomicUsize::new(0));
    let held = alive.clone();
    let work = move |_: &usize| {
        held.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_millis(1));
        held.fetch_sub(1, Ordering::SeqCst);
    };
    let mut loader = Loader::new((0..).map(|i| vec![i; 3]), work, 4, 3);
    loader.next().unwrap();
    let start = Instant::now();
    drop(loader);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    // One that nobody asked for anything, and one without batches.
    drop(Loader::new((0..).map(|i| vec![i; 3]), |i: &i32| *i, 4, 3));
    assert_eq!(Loader::new(std::iter::empty(), |i: &i32| *i, 4, 3).next(), None);
    let only_empty = Loader::new((0..40).map(|_| Vec::new()), |i: &i32| *i, 2, 1);
    assert_eq!(only_empty.count(), 40);
}

#[test]
fn waiting_is_counted() {
    let slow = |_: &usize| sleep(Duration::from_millis(30));
    let mut loader = Loader::new(batches([1; 3]).into_iter(), slow, 1, 1);
    assert_eq!(loader.waited(), Duration::ZERO);
    assert_eq!(loader.by_ref().count(), 3);
    assert!(loader.waited() >= Duration::from_millis(60), "{:?}", loader.waited());
    // Where batches are there before they are asked for, nothing is waited for.
    let mut loader = Loader::new(batches([1; 3]).into_iter(), |i: &usize| *i, 1, 3);
    sleep(Duration::from_millis(200));
    loader.next();
    assert!(loader.waited() < Duration::from_millis(50), "{:?}", loader.waited());
}

/// A panic reaches whoever takes the batches, at its place.
#[test]
fn a_panic_is_handed_on() {
    let work = |i: &usize| crate::guarded(|| assert_ne!(*i, 2)).unwrap_or_else(|| resume_unwind(Box::new("two")));
    let mut loader = Loader::new(batches([2, 2]).into_iter(), work, 2, 2);
    loader.next().unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| loader.next())).unwrap_err();
    assert_eq!(*panic.downcast::<&str>().unwrap(), "two");
}
