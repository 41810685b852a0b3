//! Regular expressions over whole paths: those parts of the syntax that names of layers need, so that no crate has to be added.

use std::{iter::Peekable, str::Chars};

use crate::{Error, Result};

/// A pattern that must match a whole text.
pub(crate) struct Pattern {
    alternatives: Vec<Sequence>,
    ignores_case: bool,
}

type Sequence = Vec<Item>;

/// One thing, so many times.
struct Item {
    what: What,
    least: usize,
    most: usize,
}

enum What {
    Char(char),
    Any,
    Class { negated: bool, parts: Vec<(char, char)> },
    Group(Vec<Sequence>),
    Start,
    End,
}

/// Goes on at a place of the text; says whether the whole matches.
type Onward<'a> = &'a mut dyn FnMut(usize) -> bool;

impl Pattern {
    /// # Errors
    /// Where it is no regular expression, or one of parts that this matcher does not know.
    pub(crate) fn new(text: &str) -> Result<Self> {
        let wrong =
            |why: &str| Error::new(format!("the pattern {text:?} is no regular expression of the mock host: {why}"));
        let (ignores_case, bare) = text.strip_prefix("(?i)").map_or((false, text), |bare| (true, bare));
        let mut parser = Parser(bare.chars().peekable());
        let alternatives = parser.alternatives().map_err(|why| wrong(&why))?;
        match parser.0.next() {
            None => Ok(Self { alternatives, ignores_case }),
            Some(left) => Err(wrong(&format!("unopened {left:?}"))),
        }
    }

    pub(crate) fn is_match(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let matcher = Matcher { text: &text, ignores_case: self.ignores_case };
        matcher.alternatives(&self.alternatives, 0, &mut |at| at == text.len())
    }
}

struct Parser<'a>(Peekable<Chars<'a>>);

impl Parser<'_> {
    fn alternatives(&mut self) -> Result<Vec<Sequence>, String> {
        let mut all = vec![Sequence::new()];
        while let Some(&next) = self.0.peek() {
            if next == ')' {
                break;
            }
            self.0.next();
            if next == '|' {
                all.push(Sequence::new());
                continue;
            }
            let what = self.what(next)?;
            let (least, most) = self.times()?;
            if let Some(sequence) = all.last_mut() {
                sequence.push(Item { what, least, most });
            }
        }
        Ok(all)
    }

    fn what(&mut self, first: char) -> Result<What, String> {
        Ok(match first {
            '.' => What::Any,
            '^' => What::Start,
            '$' => What::End,
            '[' => self.class()?,
            '\\' => match self.escaped()?.as_slice() {
                &[(a, b)] if a == b => What::Char(a),
                parts => What::Class { negated: false, parts: parts.to_vec() },
            },
            '(' => {
                if self.0.next_if_eq(&'?').is_some() && self.0.next() != Some(':') {
                    return Err("of groups it knows (..) and (?:..), and (?i) at the beginning".into());
                }
                let inner = self.alternatives()?;
                self.0.next().ok_or("a group has no end")?;
                What::Group(inner)
            }
            '*' | '+' | '?' | '{' => return Err(format!("nothing stands before {first:?}")),
            other => What::Char(other),
        })
    }

    /// What a backslash stands before.
    fn escaped(&mut self) -> Result<Vec<(char, char)>, String> {
        Ok(match self.0.next().ok_or("it ends in a backslash")? {
            'd' => vec![('0', '9')],
            'w' => vec![('0', '9'), ('a', 'z'), ('A', 'Z'), ('_', '_')],
            's' => vec![(' ', ' '), ('\t', '\n')],
            letter if letter.is_ascii_alphanumeric() => return Err(format!("it does not know \\{letter}")),
            sign => vec![(sign, sign)],
        })
    }

    fn class(&mut self) -> Result<What, String> {
        let negated = self.0.next_if_eq(&'^').is_some();
        let mut parts = Vec::new();
        loop {
            let first = match self.0.next().ok_or("a class has no end")? {
                ']' if !parts.is_empty() => return Ok(What::Class { negated, parts }),
                '\\' => {
                    parts.extend(self.escaped()?);
                    continue;
                }
                first => first,
            };
            let mut ahead = self.0.clone();
            match (ahead.next(), ahead.next()) {
                (Some('-'), Some(last)) if last != ']' => {
                    parts.push((first, last));
                    self.0 = ahead;
                }
                _ => parts.push((first, first)),
            }
        }
    }

    /// How often what was read may stand there.
    fn times(&mut self) -> Result<(usize, usize), String> {
        let times = match self.0.peek() {
            Some('*') => (0, usize::MAX),
            Some('+') => (1, usize::MAX),
            Some('?') => (0, 1),
            Some('{') => {
                self.0.next();
                let mut inner = String::new();
                while let Some(c) = self.0.next_if(|c| *c != '}') {
                    inner.push(c);
                }
                let number =
                    |text: &str| text.parse::<usize>().map_err(|_| format!("{{{inner}}} is no number of times"));
                match inner.split_once(',') {
                    None => (number(&inner)?, number(&inner)?),
                    Some((least, "")) => (number(least)?, usize::MAX),
                    Some((least, most)) => (number(least)?, number(most)?),
                }
            }
            _ => return Ok((1, 1)),
        };
        self.0.next();
        // Which match is found first makes no difference to whether there is one.
        self.0.next_if_eq(&'?');
        Ok(times)
    }
}

struct Matcher<'a> {
    text: &'a [char],
    ignores_case: bool,
}

impl Matcher<'_> {
    fn alternatives(&self, all: &[Sequence], at: usize, onward: Onward<'_>) -> bool {
        all.iter().any(|sequence| self.sequence(sequence, at, onward))
    }

    fn sequence(&self, items: &[Item], at: usize, onward: Onward<'_>) -> bool {
        match items.split_first() {
            None => onward(at),
            Some((item, rest)) => self.repeated(item, 0, at, &mut |at| self.sequence(rest, at, onward)),
        }
    }

    fn repeated(&self, item: &Item, times: usize, at: usize, onward: Onward<'_>) -> bool {
        let again = times < item.most
            && self.once(&item.what, at, &mut |next| {
                // One more that took nothing would go on for ever.
                (next > at || times < item.least) && self.repeated(item, times + 1, next, onward)
            });
        again || (times >= item.least && onward(at))
    }

    fn once(&self, what: &What, at: usize, onward: Onward<'_>) -> bool {
        let fits = |test: &dyn Fn(char) -> bool| {
            self.text.get(at).is_some_and(|&c| {
                test(c) || (self.ignores_case && (test(c.to_ascii_lowercase()) || test(c.to_ascii_uppercase())))
            })
        };
        match what {
            What::Group(all) => self.alternatives(all, at, onward),
            What::Start => at == 0 && onward(at),
            What::End => at == self.text.len() && onward(at),
            What::Any => at < self.text.len() && onward(at + 1),
            What::Char(of) => fits(&|c| c == *of) && onward(at + 1),
            What::Class { negated, parts } => {
                at < self.text.len()
                    && fits(&|c| parts.iter().any(|(first, last)| (*first..=*last).contains(&c))) != *negated
                    && onward(at + 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn whole_texts_match() {
        for (pattern, text, expected) in [
            ("query", "query", true),
            ("query", "a.query", false),
            (r".*\.query", "layer.0.query", true),
            (r"(.*\.)?(query|value)", "value", true),
            (r"(.*\.)?(?:query|value)", "layer.1.value", true),
            (r"encoder\.layer\.[0-3]\..*", "encoder.layer.2.output.dense", true),
            (r"encoder\.layer\.[^0-3]\..*", "encoder.layer.2.output.dense", false),
            (r"layer\.\d+", "layer.12", true),
            (r"layer\.\d{1}", "layer.12", false),
            (r"layer\.\d{1,}", "layer.12", true),
            ("(?i).*layer_?norm.*", "embeddings.LayerNorm.weight", true),
            ("(a*)*b", "aaaab", true),
            ("(a|ab)(c|bcd)", "abcd", true),
            ("^a$", "a", true),
            ("a+?b", "aab", true),
            ("", "", true),
            ("a|", "", true),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().is_match(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn what_is_none_is_an_error() {
        for pattern in ["(", "a)", "[a", "*", r"a\", r"\bword", "(?!a)", "a{x}"] {
            let error = Pattern::new(pattern).map(drop).unwrap_err().to_string();
            assert!(error.contains("no regular expression of the mock host"), "{error}");
        }
    }
}
