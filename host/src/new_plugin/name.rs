//! Which names a plugin may have.

use crate::{Error, Result};

/// What cargo and rustc keep for themselves, and what a plugin depends on.
const TAKEN: [&str; 11] = [
    "alloc",
    "core",
    "fthost",
    "fthost-plugin-api",
    "proc_macro",
    "run-file",
    "schemars",
    "serde",
    "std",
    "target",
    "test",
];

/// Words of Rust, which name no crate.
const WORDS: [&str; 51] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod",
    "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true",
    "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// Longer names are none of a file on many systems, once `lib` and `.so` are around them.
const LONGEST: usize = 64;

/// Refuses what is no name of a crate, a folder and a method.
///
/// # Errors
/// Says the rule, and a name that keeps to it.
pub(super) fn check(name: &str) -> Result<()> {
    const RULE: &str =
        "a name begins with a letter and goes on with letters, digits, - and _, all of them small, up to 64 of them";
    let refused = |why: String| Err(Error::usage(format!("a plugin cannot be named {name:?}")).with_help(why));
    let in_rule = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.ends_with(['-', '_']);
    if !begins || !name.chars().all(in_rule) || name.len() > LONGEST {
        let like = near(name);
        return refused(if like.is_empty() { RULE.to_owned() } else { format!("{RULE}: {like}") });
    }
    if TAKEN.contains(&name) || WORDS.contains(&name) {
        return refused(format!("it stands for something else already: my-{name}"));
    }
    Ok(())
}

/// A name like this one that keeps to the rule; empty where nothing of it is left.
fn near(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or_default().to_lowercase();
    let plain = name.replace(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_', "-");
    let begun = plain.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    let cut: String = begun.chars().take(LONGEST).collect();
    cut.trim_end_matches(['-', '_']).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn names_keep_to_the_rule() {
        for name in ["a", "my-method", "scale_2", "x".repeat(64).as_str()] {
            check(name).unwrap();
        }
        let refused = |name: &str, expected: &str| {
            let Error::Usage { help, .. } = check(name).unwrap_err() else { panic!("another kind of error") };
            assert!(help.as_deref().unwrap().ends_with(expected), "{name}: {help:?}");
        };
        refused("", "up to 64 of them");
        refused("MyMethod", ": mymethod");
        refused("my method", ": my-method");
        refused("../Plugins/2nd", ": nd");
        refused("größe", ": gr--e");
        refused("ends-", ": ends");
        refused("match", "my-match");
        refused("serde", "my-serde");
        refused(&"x".repeat(65), &"x".repeat(64));
    }
}
