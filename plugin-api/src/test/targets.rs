//! Which sites or parameters an option names, by PEFT's rules: [`Targets`].
//!
//! A pattern that matches nothing is an error, because a run that adapts less than was asked looks like any other. Beyond PEFT's rules a
//! stream and a colon may stand before either, and entries of a list may have stars.

use super::pattern::Pattern;
use crate::{Error, Result, Targets};

/// The string by which PEFT names every linear layer.
const ALL: &str = "all-linear";

/// What stands before a path in the toy's files.
pub(crate) const PREFIX: &str = "toy.";

enum Test<'a> {
    All,
    Whole(Pattern),
    /// An entry of a list with stars.
    Stars(Pattern),
    Name(&'a str),
}

fn tests<'a>(targets: &'a Targets) -> Result<Vec<(&'a str, Test<'a>)>> {
    match targets {
        Targets::Pattern(text) if text == ALL => Ok(vec![(text, Test::All)]),
        Targets::Pattern(text) => Ok(vec![(text, Test::Whole(Pattern::new(&text.replace(":*", ":.*"))?))]),
        Targets::Names(names) if names.is_empty() => Err(Error::new("the list of targets is empty")),
        Targets::Names(names) => {
            let test = |name: &'a String| match name.contains('*') {
                true => Pattern::new(&name.replace('.', r"\.").replace('*', ".*")).map(Test::Stars),
                false => Ok(Test::Name(name)),
            };
            names.iter().map(|name| Ok((name.as_str(), test(name)?))).collect()
        }
    }
}

/// Whether `name` is the path, with or without prefix, or its end at a dot.
fn ends_with(path: &str, name: &str) -> bool {
    let bare = name.strip_prefix(PREFIX).filter(|bare| !bare.is_empty()).unwrap_or(name);
    path == bare || path.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}

/// `by_module`: an entry may also name the module that holds it, `query` for `....query.weight`.
fn fits(path: &str, stream: &str, test: &Test<'_>, by_module: bool) -> bool {
    let of_path = |path: &str| match test {
        Test::All => true,
        Test::Whole(pattern) | Test::Stars(pattern) => {
            let forms = [path, &format!("{PREFIX}{path}"), &format!("{stream}:{path}")];
            forms.iter().any(|form| pattern.is_match(form))
        }
        Test::Name(name) => match name.split_once(':') {
            Some((of, name)) => of == stream && ends_with(path, name),
            None => ends_with(path, name),
        },
    };
    // A regular expression is over the whole path, as PEFT has it.
    let module = path.rsplit_once('.').filter(|_| by_module && !matches!(test, Test::Whole(_)));
    of_path(path) || module.is_some_and(|(module, _)| of_path(module))
}

/// Numbers of the paths that `targets` name and `exclude` does not, all of one stream. `None` targets are all. `what` names them in errors:
/// `linear layer`.
pub(crate) fn select(
    what: &str,
    stream: &str,
    paths: &[&str],
    by_module: bool,
    targets: Option<&Targets>,
    exclude: Option<&Targets>,
) -> Result<Vec<usize>> {
    let matching = |option: &str, text: &str, test: &Test<'_>| {
        let found: Vec<usize> = (0..paths.len()).filter(|&i| fits(paths[i], stream, test, by_module)).collect();
        if found.is_empty() { Err(nothing(option, text, what, paths)) } else { Ok(found) }
    };
    let mut excluded = Vec::new();
    // An empty list of excludes, as a default of an option, excludes nothing.
    if let Some(exclude) = exclude.filter(|exclude| **exclude != Targets::Names(Vec::new())) {
        for (text, test) in tests(exclude)? {
            excluded.extend(matching("exclude", text, &test)?);
        }
    }
    let Some(targets) = targets else { return Ok((0..paths.len()).filter(|i| !excluded.contains(i)).collect()) };
    let mut chosen = Vec::new();
    for (text, test) in tests(targets)? {
        let found = matching("target", text, &test)?;
        let before = chosen.len();
        chosen.extend(found.iter().filter(|i| !excluded.contains(i)));
        if chosen.len() == before {
            let n = found.len();
            return Err(Error::new(format!("target {text:?} matches {n} {what}s, and all of them are excluded")));
        }
    }
    chosen.sort_unstable();
    chosen.dedup();
    Ok(chosen)
}

fn nothing(option: &str, text: &str, what: &str, paths: &[&str]) -> Error {
    if paths.is_empty() {
        return Error::new(format!("{option} {text:?} matches nothing: the toy model has no {what}"));
    }
    Error::new(format!("{option} {text:?} matches no {what}; there are {}", paths.join(", ")))
}

#[cfg(test)]
mod tests_of_it {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const PATHS: [&str; 4] =
        ["encoder.layer.0.self.query", "encoder.layer.0.self.value", "encoder.layer.1.self.query", "pooler.dense"];

    #[test]
    fn paths_match_as_in_peft() {
        let check = |targets: Targets, exclude: Option<Targets>, expected: &[usize]| {
            let found = select("linear layer", "text", &PATHS, false, Some(&targets), exclude.as_ref()).unwrap();
            assert_eq!(found, expected, "{targets:?} without {exclude:?}");
        };
        check(["query"].into(), None, &[0, 2]);
        check(["self.query", "dense"].into(), None, &[0, 2, 3]);
        check(["toy.encoder.layer.1.self.query"].into(), None, &[2]);
        check(Targets::Pattern(r"toy\.encoder\.layer\.0\..*".into()), None, &[0, 1]);
        check(Targets::Pattern(".*query".into()), Some(["0.self.query"].into()), &[2]);
        check(["text:query"].into(), None, &[0, 2]);
        check(["text:*.1.*", "*dense"].into(), None, &[2, 3]);
        check(Targets::Pattern("text:*query".into()), None, &[0, 2]);
        check(Targets::Pattern(r"text:encoder\.layer\.0\..*".into()), None, &[0, 1]);
        check(Targets::Pattern("all-linear".into()), Some(Targets::Names(Vec::new())), &[0, 1, 2, 3]);
    }

    #[test]
    fn nothing_is_an_error() {
        let error = |targets: Targets, exclude: Option<Targets>| {
            select("linear layer", "text", &PATHS, false, Some(&targets), exclude.as_ref()).unwrap_err().to_string()
        };
        assert!(
            error(["uery"].into(), None).starts_with("target \"uery\" matches no linear layer; there are encoder.")
        );
        assert!(error(["image:query"].into(), None).starts_with("target \"image:query\" matches no linear layer"));
        assert!(error(["query"].into(), Some(["query"].into())).contains("matches 2 linear layers, and all"));
        assert!(error(Targets::Names(Vec::new()), None).contains("is empty"));
    }
}
