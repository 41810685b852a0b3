//! Which sites or parameters a strategy's option names, by PEFT's rules.
//!
//! A string is a regular expression that must match the whole path. An entry of a list matches the path itself or its end at a
//! dot. Paths may be written with the architecture's prefix (`bert.encoder...`) or without. Excludes go first. A pattern that matches
//! nothing is an error, because a run that adapts less than was asked looks like any other.
//!
//! Beyond PEFT's rules, the name of a stream and a colon before either mean that stream alone: `text:query`, `text:.*query`. Behind it
//! paths are those within the stream, which two joined folders or two towers may have in common; and in entries of a list, which name
//! no path with a star, a star stands for anything: `image:blocks.6.*`.

use std::collections::BTreeSet;

use fthost_models::ModelInfo;
use fthost_plugin_api::Targets;
use regex::Regex;

/// The string by which PEFT names every linear layer.
const ALL: &str = "all-linear";

/// What was matched.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selection {
    /// Numbers of the matching candidates, ascending.
    pub(super) chosen: Vec<usize>,
    /// Each pattern and how many it matched.
    pub(super) counts: Vec<(String, usize)>,
}

/// One pattern, ready to match.
enum Pattern<'a> {
    All,
    Whole(Regex),
    /// An entry of a list with stars.
    Stars(Regex),
    Name(&'a str),
}

/// What may be matched: a path, or several names of one thing.
pub(super) struct Candidate<'a> {
    /// The path without prefix.
    pub(super) path: &'a str,
    /// What stands before it in the architecture's files.
    pub(super) prefix: &'a str,
    /// The name of its stream, and its path there; empty names are of none.
    pub(super) stream: &'a str,
    pub(super) within: &'a str,
    /// Whether its stream is all that is seen, so that a path within it needs no stream before it.
    pub(super) alone: bool,
    /// Whether an entry may also name the module that holds it: `query` for `...query.weight`.
    pub(super) by_module: bool,
}

impl Candidate<'_> {
    fn fits(&self, pattern: &Pattern<'_>) -> bool {
        let prefix = self.prefix;
        let named = |path: &str| match pattern {
            Pattern::All => true,
            Pattern::Whole(regex) | Pattern::Stars(regex) => {
                regex.is_match(path) || regex.is_match(&format!("{prefix}{path}"))
            }
            Pattern::Name(name) => ends_with(path, name, prefix),
        };
        let in_stream = |path: &str| match pattern {
            Pattern::All => true,
            Pattern::Whole(regex) | Pattern::Stars(regex) => {
                !self.stream.is_empty() && regex.is_match(&format!("{}:{path}", self.stream))
            }
            Pattern::Name(name) => name
                .split_once(':')
                .is_some_and(|(stream, name)| stream == self.stream && ends_with(path, name, prefix)),
        };
        let of_path = |path: &str, within: &str| {
            named(path) || self.alone && named(within) || in_stream(within) || in_stream(path)
        };
        let module = |path: &'_ str| path.rsplit_once('.').map_or(0, |(module, _)| module.len());
        // A regular expression is over the whole path, as PEFT has it.
        let by_module = self.by_module && !matches!(pattern, Pattern::Whole(_));
        of_path(self.path, self.within)
            || by_module && of_path(&self.path[..module(self.path)], &self.within[..module(self.within)])
    }
}

/// Whether `name` is the path, with or without prefix, or its end at a dot.
fn ends_with(path: &str, name: &str, prefix: &str) -> bool {
    let bare = name.strip_prefix(prefix).filter(|bare| !bare.is_empty()).unwrap_or(name);
    // With a prefix in front, only the whole path is meant.
    path == bare || path.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}

/// Why an adapter has no place in what targets name: word embeddings that are the layer over the vocabulary too. Patterns that fit more than
/// them mean the rest.
pub(super) fn refuse_shared(info: &ModelInfo, targets: Option<&Targets>) -> Result<(), String> {
    let shared = info.shared_vocabulary();
    let (Some([words, output]), Some(Targets::Names(names))) = (shared, targets) else { return Ok(()) };
    let prefix = &info.plain().prefix;
    match names.iter().find(|name| [words, output].iter().any(|path| ends_with(path, name, prefix))) {
        None => Ok(()),
        Some(name) => Err(format!(
            "target {name:?} is {words} and {output} in one: this model's word embeddings are its layer over the vocabulary too, so an \
             adapter on one would miss the other and be lost where it is merged. Leave it out of the targets, or give {output} weights of its \
             own: tie_word_embeddings = false in config.json, and the embeddings once more as {output}.weight"
        )),
    }
}

fn patterns<'a>(targets: &'a Targets) -> Result<Vec<(String, Pattern<'a>)>, String> {
    match targets {
        Targets::Pattern(text) if text == ALL => Ok(vec![(text.clone(), Pattern::All)]),
        // Colons are in no path: behind that of a stream, a star that repeats nothing else stands for anything too.
        Targets::Pattern(text) => {
            whole(text, &text.replace(":*", ":.*")).map(|regex| vec![(text.clone(), Pattern::Whole(regex))])
        }
        Targets::Names(names) if names.is_empty() => Err("the list of targets is empty".to_owned()),
        Targets::Names(names) => {
            let pattern = |name: &'a String| match name.contains('*') {
                true => whole(name, &regex::escape(name).replace("\\*", ".*")).map(Pattern::Stars),
                false => Ok(Pattern::Name(name)),
            };
            names.iter().map(|name| Ok((name.clone(), pattern(name)?))).collect()
        }
    }
}

/// A regular expression that must match all of a path; `text` is what it is written as.
fn whole(text: &str, regex: &str) -> Result<Regex, String> {
    Regex::new(&format!("^(?:{regex})$"))
        .map_err(|error| format!("the pattern {text:?} is no regular expression: {error}"))
}

/// Selects among candidates. `None` targets are all of them. `what` names them in errors: `linear layer`.
pub(super) fn select(
    what: &str,
    candidates: &[Candidate<'_>],
    targets: Option<&Targets>,
    exclude: Option<&Targets>,
) -> Result<Selection, String> {
    let mut counts = Vec::new();
    let mut excluded = vec![false; candidates.len()];
    // An empty list of excludes, as a default of an option, excludes nothing.
    for (text, pattern) in
        exclude.filter(|t| **t != Targets::Names(Vec::new())).map(patterns).transpose()?.into_iter().flatten()
    {
        let mut matched = 0;
        for (candidate, excluded) in candidates.iter().zip(&mut excluded) {
            if candidate.fits(&pattern) {
                *excluded = true;
                matched += 1;
            }
        }
        if matched == 0 {
            return Err(nothing(&format!("exclude {text:?}"), &text, what, candidates));
        }
        counts.push((format!("exclude {text}"), matched));
    }
    let Some(targets) = targets else {
        let chosen = (0..candidates.len()).filter(|i| !excluded[*i]).collect();
        return Ok(Selection { chosen, counts });
    };
    let mut chosen = BTreeSet::new();
    for (text, pattern) in patterns(targets)? {
        let matched: Vec<usize> = (0..candidates.len()).filter(|i| candidates[*i].fits(&pattern)).collect();
        let kept: Vec<usize> = matched.iter().copied().filter(|i| !excluded[*i]).collect();
        match (matched.len(), kept.len()) {
            (0, _) => return Err(nothing(&format!("target {text:?}"), &text, what, candidates)),
            (n, 0) => return Err(format!("target {text:?} matches {n} {what}s, and all of them are excluded")),
            _ => {}
        }
        counts.push((text, kept.len()));
        chosen.extend(kept);
    }
    Ok(Selection { chosen: chosen.into_iter().collect(), counts })
}

/// Says that a pattern matches nothing, and what comes near.
fn nothing(pattern: &str, text: &str, what: &str, candidates: &[Candidate<'_>]) -> String {
    let mut ends: Vec<&str> = Vec::new();
    for candidate in candidates {
        let path = match candidate.path.rsplit_once('.') {
            Some((module, _)) if candidate.by_module => module,
            _ => candidate.path,
        };
        let end = path.rsplit('.').next().unwrap_or(path);
        if !ends.contains(&end) && end.parse::<u64>().is_err() {
            ends.push(end);
        }
    }
    let last = text.rsplit(['.', '*', ':', '\\']).next().unwrap_or(text);
    let mut near: Vec<(f64, &str)> = ends
        .iter()
        .map(|end| (strsim::jaro_winkler(last, end), *end))
        .chain(candidates.iter().map(|candidate| (strsim::jaro_winkler(text, candidate.path), candidate.path)))
        .filter(|(score, _)| *score > 0.8)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    let near: Vec<String> = near.iter().take(3).map(|(_, name)| format!("{name:?}")).collect();
    if candidates.is_empty() {
        return format!("{pattern} matches nothing: this model has no {what}");
    }
    let mut streams: Vec<&str> = candidates.iter().map(|of| of.stream).filter(|name| !name.is_empty()).collect();
    streams.dedup();
    if let Some((stream, _)) = text.split_once(':')
        && stream.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !streams.contains(&stream)
    {
        let streams = streams.join(" and ");
        return format!(
            "{pattern} matches no {what}: it is of the stream {stream:?}, and there is one of {streams} alone"
        );
    }
    let hint = if near.is_empty() { String::new() } else { format!(" Did you mean {}?", near.join(" or ")) };
    format!("{pattern} matches no {what}.{hint} What there is ends in {}.", ends.join(", "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const SITES: [&str; 6] = [
        "encoder.layer.0.attention.self.query",
        "encoder.layer.0.attention.self.value",
        "encoder.layer.1.attention.self.query",
        "encoder.layer.1.attention.self.value",
        "encoder.layer.1.output.dense",
        "pooler.dense",
    ];

    fn candidates<'a>(prefix: &'a str, paths: &[&'a str], by_module: bool) -> Vec<Candidate<'a>> {
        paths
            .iter()
            .map(|path| Candidate { path, prefix, stream: "text", within: path, alone: false, by_module })
            .collect()
    }

    fn names(names: &[&str]) -> Targets {
        Targets::Names(names.iter().map(ToString::to_string).collect())
    }

    fn pattern(text: &str) -> Targets {
        Targets::Pattern(text.to_owned())
    }

    #[test]
    fn paths_match_as_in_peft() {
        let check = |targets: Targets, exclude: Option<Targets>, expected: &[usize]| {
            let selection =
                select("linear layer", &candidates("bert.", &SITES, false), Some(&targets), exclude.as_ref()).unwrap();
            assert_eq!(selection.chosen, expected, "{targets:?} without {exclude:?}");
        };
        check(names(&["query"]), None, &[0, 2]);
        check(names(&["query", "value"]), None, &[0, 1, 2, 3]);
        check(names(&["self.query", "pooler.dense"]), None, &[0, 2, 5]);
        check(names(&["encoder.layer.1.attention.self.query"]), None, &[2]);
        check(names(&["bert.encoder.layer.1.attention.self.query"]), None, &[2]);
        check(names(&["dense"]), Some(names(&["pooler.dense"])), &[4]);
        check(names(&["dense"]), Some(names(&[])), &[4, 5]);
        check(pattern(r".*\.query"), None, &[0, 2]);
        check(pattern(r"encoder\.layer\.1\..*"), None, &[2, 3, 4]);
        check(pattern(r"bert\.encoder\.layer\.0\..*"), None, &[0, 1]);
        check(pattern(r".*query|.*value"), Some(pattern(r".*\.0\..*")), &[2, 3]);
        check(pattern("all-linear"), Some(names(&["dense"])), &[0, 1, 2, 3]);
    }

    #[test]
    fn parameters_are_named_by_path_or_module() {
        let paths = ["encoder.layer.0.query.weight", "encoder.layer.0.query.bias", "pooler.dense.bias"];
        let check = |targets: Targets, expected: &[usize]| {
            let selection = select("parameter", &candidates("", &paths, true), Some(&targets), None).unwrap();
            assert_eq!(selection.chosen, expected, "{targets:?}");
        };
        check(names(&["bias"]), &[1, 2]);
        check(names(&["query"]), &[0, 1]);
        check(names(&["query.weight"]), &[0]);
        check(pattern(r"encoder\..*"), &[0, 1]);
    }

    #[test]
    fn a_stream_stands_before_the_path() {
        let paths = [
            ("text", "text.layer.0.query.weight"),
            ("text", "text.layer.1.query.bias"),
            ("image", "image.layer.1.query.weight"),
            ("image", "image.blocks.6.0.conv.weight"),
            ("", "logit_scale"),
        ];
        let of = |&(stream, path): &(&'static str, &'static str)| {
            let within = path.strip_prefix(stream).and_then(|path| path.strip_prefix('.')).unwrap_or(path);
            Candidate { path, prefix: "", stream, within, alone: false, by_module: true }
        };
        let candidates: Vec<Candidate<'_>> = paths.iter().map(of).collect();
        let found = |targets: Targets| select("parameter", &candidates, Some(&targets), None).map(|found| found.chosen);
        for (targets, expected) in [
            (names(&["query"]), &[0, 1, 2][..]),
            (names(&["text:query"]), &[0, 1]),
            (names(&["text:*query"]), &[0, 1]),
            (names(&["image:layer.1.query"]), &[2]),
            (names(&["image:image.layer.1.query", "text:bias"]), &[1, 2]),
            (names(&["image:blocks.6.*"]), &[3]),
            (names(&["image:*"]), &[2, 3]),
            (names(&["*.layer.1.*"]), &[1, 2]),
            (pattern("text:*query.weight"), &[0]),
            (pattern(r"text:.*weight|image:blocks\..*"), &[0, 3]),
            (pattern("(text|image):layer.*"), &[0, 1, 2]),
            (pattern(r".*query\..*"), &[0, 1, 2]),
        ] {
            assert_eq!(found(targets.clone()).unwrap(), expected, "{targets:?}");
        }
        let error = |targets: Targets| found(targets).unwrap_err();
        assert_eq!(
            error(names(&["sound:query"])),
            "target \"sound:query\" matches no parameter: it is of the stream \"sound\", and there is one of text and image alone"
        );
        assert!(error(names(&["text:conv"])).contains("target \"text:conv\" matches no parameter"));
        assert!(error(names(&["text:querry"])).contains("Did you mean \"query\"?"));
    }

    #[test]
    fn where_a_stream_is_alone_paths_within_it_need_no_name_of_it() {
        let paths = ["text.layer.0.query", "text.layer.1.query"];
        let within = |path: &'static str| path.strip_prefix("text.").unwrap();
        let found = |alone: bool, targets: Targets| {
            let of = |path: &'static str| Candidate {
                path,
                prefix: "bert.",
                stream: "text",
                within: within(path),
                alone,
                by_module: false,
            };
            select("linear layer", &paths.map(of), Some(&targets), None).map(|found| found.chosen).unwrap_or_default()
        };
        for targets in [
            pattern(r"layer\.1\..*"),
            pattern(r"bert\.layer\.1\..*"),
            names(&["bert.layer.1.query"]),
            names(&["layer.1.*"]),
        ] {
            assert_eq!(found(true, targets.clone()), [1], "{targets:?}");
            assert!(found(false, targets.clone()).is_empty(), "{targets:?}");
        }
        for targets in [pattern("text:.*1.query"), pattern(r"text\.layer\.1\..*"), names(&["text.layer.1.query"])] {
            assert_eq!(found(true, targets.clone()), [1], "{targets:?}");
            assert_eq!(found(false, targets.clone()), [1], "{targets:?}");
        }
    }

    #[test]
    fn each_pattern_is_counted() {
        let selection = select(
            "linear layer",
            &candidates("", &SITES, false),
            Some(&names(&["query", "dense"])),
            Some(&names(&["pooler.dense"])),
        );
        let counts = selection.unwrap().counts;
        assert_eq!(counts, [("exclude pooler.dense".to_owned(), 1), ("query".to_owned(), 2), ("dense".to_owned(), 1)]);
    }

    #[test]
    fn nothing_is_an_error_that_helps() {
        let check = |targets: Targets, exclude: Option<Targets>, parts: &[&str]| {
            let text =
                select("linear layer", &candidates("", &SITES, false), Some(&targets), exclude.as_ref()).unwrap_err();
            for part in parts {
                assert!(text.contains(part), "{part:?} is not in {text}");
            }
        };
        check(
            names(&["querry"]),
            None,
            &["target \"querry\" matches no linear layer", "Did you mean \"query\"?", "query, value, dense"],
        );
        check(names(&["uery"]), None, &["matches no linear layer"]);
        check(pattern("query"), None, &["target \"query\" matches no linear layer", "\"query\""]);
        check(pattern("("), None, &["is no regular expression"]);
        check(names(&[]), None, &["is empty"]);
        check(names(&["query"]), Some(names(&["query"])), &["matches 2 linear layers, and all of them are excluded"]);
        check(names(&["query"]), Some(names(&["valve"])), &["exclude \"valve\" matches no linear layer"]);
    }
}
