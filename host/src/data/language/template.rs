//! Chat templates: conversations as a model was trained to read them, by the Jinja text that comes with it.

use std::collections::BTreeMap;
use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};
use regex::Regex;

use super::conversation::{ASSISTANT, Turn};
use crate::{Error, Result};

/// Templates that a run file may name in place of a file.
const NAMED: [(&str, &str); 2] = [
    (
        "chatml",
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}\
         {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    ),
    (
        "alpaca",
        "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}\
         {% elif message['role'] == 'user' %}{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}\
         {% else %}{{ '### Response:\\n' + message['content'] + eos_token }}{% if not loop.last %}{{ '\\n\\n' }}{% endif %}{% endif %}{% endfor %}\
         {% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}",
    ),
];

/// The name of the template in its environment.
const NAME: &str = "chat template";

/// A template that has been read.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    /// Where it is from, for errors and for the plan.
    origin: String,
    /// `bos_token`, `eos_token` and so on, as the tokenizer has them.
    special: BTreeMap<String, String>,
}

/// A conversation as text, and the parts of it that the assistant says, its end of a turn with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rendered {
    pub(crate) text: String,
    /// In bytes, ascending.
    pub(crate) answers: Vec<Range<usize>>,
}

impl ChatTemplate {
    /// The template of that name, or in that file.
    ///
    /// # Errors
    /// Where there is neither, or what is there is no template.
    pub(crate) fn named(name: &str, special: BTreeMap<String, String>) -> Result<Self> {
        Self::new(&text_of(name)?, name.to_owned(), special)
    }

    /// From the text of a template.
    ///
    /// # Errors
    /// Where it is none.
    pub(crate) fn new(text: &str, origin: String, special: BTreeMap<String, String>) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| Error::run(words(&error)))?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |message: String| -> std::result::Result<String, minijinja::Error> {
                Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        environment.add_function("strftime_now", |format: String| today(&format));
        environment.add_filter("tojson", to_json);
        let broken = |error: &minijinja::Error| {
            Error::usage(format!("the chat template of {origin} is broken: {}", words(error)))
                .with_help("correct it, or name another by template in the task: a file, or chatml")
        };
        environment.add_template_owned(NAME, without_marks(text)).map_err(|error| broken(&error))?;
        Ok(Self { environment, origin, special })
    }

    /// Where it is from.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// A conversation as text; with `opens` up to where the assistant begins to speak.
    ///
    /// # Errors
    /// What the template raises, in its words.
    pub(crate) fn text(&self, turns: &[Turn], opens: bool) -> std::result::Result<String, String> {
        let template = self.environment.get_template(NAME).map_err(|error| words(&error))?;
        let special = &self.special;
        let special = special.iter().map(|(name, token)| (name.clone(), Value::from(token.as_str())));
        let said = [
            ("messages".to_owned(), Value::from(Serde(turns))),
            ("add_generation_prompt".to_owned(), Value::from(opens)),
        ];
        template.render(Value::from_pairs(said.into_iter().chain(special))).map_err(|error| words(&error))
    }

    /// A conversation as text with the assistant's parts. Where a template writes earlier turns in another way once there are later ones, as
    /// those do that leave out what was thought, the last answer alone is such a part.
    ///
    /// # Errors
    /// What the template raises, in its words; and where the last answer is no part of what it writes.
    pub(crate) fn render(&self, turns: &[Turn]) -> std::result::Result<Rendered, String> {
        let text = self.text(turns, false)?;
        let mut answers = Vec::new();
        for (place, turn) in turns.iter().enumerate().filter(|(_, turn)| turn.role == ASSISTANT) {
            let (before, until) = (self.text(&turns[..place], true)?, self.text(&turns[..=place], false)?);
            let stable = until.starts_with(&before)
                && text.starts_with(&until)
                && until[before.len()..].contains(turn.content.trim());
            if stable {
                answers.push(before.len()..until.len());
            } else if place + 1 == turns.len() {
                let said = turn.content.trim();
                let begins = text.rfind(said).filter(|_| !said.is_empty());
                let begins = begins.ok_or("it does not write what the assistant says last")?;
                answers.clear();
                answers.push(begins..text.len());
            }
        }
        Ok(Rendered { text, answers })
    }
}

/// The text of the template of that name, or in that file.
///
/// # Errors
/// Where there is neither.
pub(crate) fn text_of(name: &str) -> Result<String> {
    if let Some((_, text)) = NAMED.into_iter().find(|(known, _)| *known == name) {
        return Ok(text.into());
    }
    std::fs::read_to_string(name).map_err(|error| {
        let known = NAMED.map(|(name, _)| name).join(", ");
        Error::usage(format!("the chat template {name} cannot be read: {error}"))
            .with_help(format!("name a file of Jinja, or one of {known}"))
    })
}

/// Whether a template has a name of its own, and is no file.
pub(crate) fn has_name(name: &str) -> bool {
    NAMED.iter().any(|(known, _)| *known == name)
}

/// Some templates mark what the assistant says by a tag that Transformers adds to Jinja. What it says is found by prefixes here.
fn without_marks(text: &str) -> String {
    let Ok(mark) = Regex::new(r"\{%(-?)\s*(?:end)?generation\s*(-?)%\}") else { return text.to_owned() };
    mark.replace_all(text, "{#$1 $2#}").into_owned()
}

/// As Transformers' templates write it: letters of all scripts as they are, and on one line unless an indent is asked for.
fn to_json(value: &Value, arguments: Kwargs) -> std::result::Result<Value, minijinja::Error> {
    let indent: Option<usize> = arguments.get("indent")?;
    arguments.get::<Option<bool>>("ensure_ascii")?;
    arguments.get::<Option<bool>>("sort_keys")?;
    arguments.assert_all_used()?;
    let broken = |error: serde_json::Error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string());
    let json = serde_json::to_value(value).map_err(broken)?;
    let text = match indent {
        Some(width) => {
            let (mut out, indent) = (Vec::new(), " ".repeat(width));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            serde::Serialize::serialize(&json, &mut serde_json::Serializer::with_formatter(&mut out, formatter))
                .map_err(broken)?;
            String::from_utf8_lossy(&out).into_owned()
        }
        None => python_json(&json),
    };
    Ok(Value::from_safe_string(text))
}

/// JSON with a space after each comma and colon, as Python writes it.
fn python_json(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Array(list) => format!("[{}]", list.iter().map(python_json).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) => {
            let one =
                |(key, value): (&String, &Value)| format!("{}: {}", Value::from(key.as_str()), python_json(value));
            format!("{{{}}}", entries.iter().map(one).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// An error in the template's own words, on one line.
fn words(error: &minijinja::Error) -> String {
    let what = error.detail().map_or_else(|| error.to_string(), str::to_owned);
    match error.line() {
        Some(line) if error.kind() == ErrorKind::SyntaxError => format!("{what}, in line {line}"),
        _ => what,
    }
}

/// The day, for templates that say it: the parts of a format that they use.
fn today(format: &str) -> String {
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    day_of(seconds / 86_400, format)
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A day by its number since 1970, as the Gregorian calendar has it (Howard Hinnant, days_from_civil).
fn day_of(days: u64, format: &str) -> String {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let name = MONTHS[month as usize - 1];
    format
        .replace("%d", &format!("{day:02}"))
        .replace("%b", &name[..3])
        .replace("%B", name)
        .replace("%m", &format!("{month:02}"))
        .replace("%Y", &year.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::super::conversation::USER;
    use super::*;

    fn special() -> BTreeMap<String, String> {
        [("bos_token", "<s>"), ("eos_token", "</s>")].map(|(name, token)| (name.to_owned(), token.to_owned())).into()
    }

    fn template(text: &str) -> ChatTemplate {
        ChatTemplate::new(text, "a test".into(), special()).unwrap()
    }

    fn talk() -> Vec<Turn> {
        vec![
            Turn::new(USER, "2 + 2?"),
            Turn::new(ASSISTANT, "4"),
            Turn::new(USER, "Sure?"),
            Turn::new(ASSISTANT, "Yes."),
        ]
    }

    fn answers(template: &ChatTemplate, turns: &[Turn]) -> Vec<String> {
        let Rendered { text, answers } = template.render(turns).unwrap();
        answers.into_iter().map(|range| text[range].to_owned()).collect()
    }

    #[test]
    fn answers_end_with_the_end_of_their_turn() {
        let chatml = ChatTemplate::named("chatml", special()).unwrap();
        assert_eq!(answers(&chatml, &talk()), ["4<|im_end|>\n", "Yes.<|im_end|>\n"]);
        assert_eq!(
            chatml.text(&talk()[..1], true).unwrap(),
            "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
        );
        let alpaca = ChatTemplate::named("alpaca", special()).unwrap();
        assert_eq!(answers(&alpaca, &talk()[..2]), ["4</s>"]);
        assert_eq!(alpaca.text(&talk()[..2], false).unwrap(), "### Instruction:\n2 + 2?\n\n### Response:\n4</s>");
    }

    /// As Qwen 3's: thoughts of earlier answers are left out.
    #[test]
    fn a_template_that_rewrites_earlier_turns_scores_the_last_answer() {
        let thinking = template(
            "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' and loop.last %}(thinks)\n{% endif %}{{ m.content }}\n{% endfor %}\
             {% if add_generation_prompt %}<assistant>{% endif %}",
        );
        assert_eq!(answers(&thinking, &talk()), ["(thinks)\nYes.\n"]);
    }

    #[test]
    fn what_templates_use_of_jinja_and_python_is_there() {
        let check = |text: &str, expected: &str| {
            assert_eq!(template(text).text(&talk()[..1], true).unwrap(), expected, "{text}")
        };
        check("{{ bos_token }}{{ messages[0]['content'].strip().upper() }}", "<s>2 + 2?");
        check(
            "{%- for m in messages %}\n  {%- if loop.first and m['role'] != 'system' %}\n    {{- 'x' }}\n  {%- endif %}\n{%- endfor %}",
            "x",
        );
        check(
            "{% for m in messages %}{% if m.role == 'tool' %}{% continue %}{% endif %}{{ m.role }}{% break %}{% endfor %}",
            "user",
        );
        check("{{ {'a': [1, 'é']} | tojson }}", "{\"a\": [1, \"é\"]}");
        check("{{ {'a': 1} | tojson(indent=2) }}", "{\n  \"a\": 1\n}");
        check("{% generation %}a{% endgeneration %}b\n{%- generation -%} c", "abc");
        check(
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
            "1",
        );
        check(
            "{{ tools is defined }}{{ 'no' if tools is none else 'x' }}{{ messages[0].content.split(' ')[0] }}",
            "Falsex2",
        );
        check("{{ messages[0].get('name', 'nobody') }}{{ 'a,b'.startswith('a') }}", "nobodyTrue");
        check("{% macro say(x) %}[{{ x }}]{% endmacro %}{{ say('a') }}", "[a]");
    }

    #[test]
    fn what_a_template_raises_is_said_in_its_words() {
        let strict = template(
            "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}x",
        );
        assert_eq!(strict.text(&[Turn::new("system", "a")], true).unwrap_err(), "System role not supported");
        let broken = ChatTemplate::new("{% if %}", "a file".into(), special()).unwrap_err().to_string();
        assert!(broken.contains("the chat template of a file is broken") && broken.contains("line 1"), "{broken}");
        let missing = ChatTemplate::named("/no/nowhere.jinja", special()).unwrap_err();
        assert!(missing.to_string().contains("/no/nowhere.jinja"), "{missing}");
        let silent = template("{% for m in messages %}{{ m.role }}{% endfor %}");
        assert!(silent.render(&talk()[..2]).unwrap_err().contains("does not write what the assistant says"));
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (day, expected) in [
            (0, "01 Jan 1970"),
            (59, "01 Mar 1970"),
            (11_016, "29 Feb 2000"),
            (20_786, "29 Nov 2026"),
            (47_540, "28 Feb 2100"),
        ] {
            assert_eq!(day_of(day, "%d %b %Y"), expected);
        }
        assert_eq!(day_of(11_016, "%B %m"), "February 02");
    }
}
