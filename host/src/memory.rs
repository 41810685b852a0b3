//! The machine's memory, as far as this process may still take of it: what a plugin asks for is compared with it before it is taken.

use crate::report::numbers::bytes;

/// Whoever asks for less is not asked whether it is there: to look takes longer than most ops.
const UNASKED: u128 = 64 << 20;

/// Bytes that can still be had: those that Linux holds for available, and no more than the limit of the process's control group.
/// `None` where neither is known.
fn available() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let meminfo = read("/proc/meminfo");
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let limit = read("/sys/fs/cgroup/memory.max").trim().parse::<u64>().ok();
    kib.map(|kib| kib.saturating_mul(1024)).into_iter().chain(limit).min()
}

/// Refuses to take more than there is.
///
/// # Errors
/// How much it would be, and how much is there.
pub(crate) fn room_for(wanted: u128) -> Result<(), String> {
    if wanted <= UNASKED {
        return Ok(());
    }
    match available() {
        Some(there) if wanted > u128::from(there) => Err(format!(
            "it would take {}, and this machine has {} left",
            bytes(u64::try_from(wanted).unwrap_or(u64::MAX)),
            bytes(there)
        )),
        // No memory has so many addresses.
        None if wanted > isize::MAX as u128 => Err("it would take more than any machine has".to_owned()),
        _ => Ok(()),
    }
}

/// Elements of a tensor of this shape, more than fit a `u128` as its greatest.
pub(crate) fn elements(shape: &[usize]) -> u128 {
    shape.iter().fold(1u128, |product, &side| product.saturating_mul(side as u128))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn more_than_there_is_is_refused_with_both_numbers() {
        room_for(1).unwrap();
        room_for(UNASKED).unwrap();
        let text = room_for(elements(&[1 << 40, 1 << 40])).unwrap_err();
        assert!(text.starts_with("it would take ") && text.ends_with(" left"), "{text}");
        assert_eq!(elements(&[usize::MAX; 3]), u128::MAX);
        assert_eq!(elements(&[]), 1);
        assert_eq!(elements(&[0, usize::MAX]), 0);
    }
}
