//! Words of error messages.

/// `a, b and c`.
pub(super) fn list(words: &[impl AsRef<str>], before_last: &str) -> String {
    match words {
        [] => String::new(),
        [word] => word.as_ref().to_owned(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} {before_last} {}", first.join(", "), last.as_ref())
        }
    }
}
