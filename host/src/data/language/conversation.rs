//! Conversations: what rows of the usual forms say, and by whom.

use serde_json::{Map, Value};

/// What one side of a conversation says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Turn {
    /// `system`, `user` or `assistant`.
    pub(crate) role: String,
    /// The text.
    pub(crate) content: String,
}

impl Turn {
    pub(crate) fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }

    /// What the user says.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(USER, content)
    }

    /// What the assistant says.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(ASSISTANT, content)
    }
}

pub(crate) const SYSTEM: &str = "system";
pub(crate) const USER: &str = "user";
pub(crate) const ASSISTANT: &str = "assistant";

/// What a row holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Turns, the last one the assistant's.
    Turns(Vec<Turn>),
    /// A text, and how it goes on.
    Completion { prompt: String, completion: String },
    /// A text of which each token counts.
    Text(String),
}

/// The form of a file's rows, as their keys tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RowForm {
    /// `{"messages": [{"role": "user", "content": "..."}, ...]}`; ShareGPT's `conversations` with `from` and `value`.
    Messages { key: String },
    /// `{"instruction": "...", "input": "...", "output": "..."}`, as Alpaca has it.
    Instruction,
    /// `{"prompt": "...", "completion": "..."}`.
    Completion { prompt: String, completion: String },
    /// `{"text": "..."}`.
    Text { key: String },
}

/// Keys of the forms that have two names.
pub(super) const MESSAGES: [&str; 3] = ["messages", "conversations", "conversation"];
pub(super) const COMPLETIONS: [(&str, &str); 4] =
    [("prompt", "completion"), ("prompt", "response"), ("question", "answer"), ("input", "output")];

impl RowForm {
    /// The form of rows with these keys; `None` where it is no known one. `text` is the column that the run file names.
    pub(crate) fn of<'a>(keys: impl Iterator<Item = &'a str> + Clone, text: Option<&str>) -> Option<Self> {
        let has = |name: &str| keys.clone().any(|key| key == name);
        if let Some(text) = text {
            return Some(if MESSAGES.contains(&text) {
                Self::Messages { key: text.into() }
            } else {
                Self::Text { key: text.into() }
            });
        }
        if let Some(key) = MESSAGES.into_iter().find(|key| has(key)) {
            return Some(Self::Messages { key: key.into() });
        }
        if has("instruction") && has("output") {
            return Some(Self::Instruction);
        }
        if let Some((prompt, completion)) =
            COMPLETIONS.into_iter().find(|(prompt, completion)| has(prompt) && has(completion))
        {
            return Some(Self::Completion { prompt: prompt.into(), completion: completion.into() });
        }
        has("text").then(|| Self::Text { key: "text".into() })
    }

    /// What is said of the form in a plan.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Messages { key } => format!("conversations in `{key}`"),
            Self::Instruction => "instructions: `instruction`, `input` and `output`".into(),
            Self::Completion { prompt, completion } => format!("`{prompt}`, and how it goes on in `{completion}`"),
            Self::Text { key } => format!("texts in `{key}`, of which each token counts"),
        }
    }

    /// What a row says.
    ///
    /// # Errors
    /// Where it is not of the form: half a sentence, and what helps.
    pub(crate) fn read(&self, row: &Map<String, Value>) -> Result<Said, Wrong> {
        match self {
            Self::Messages { key } => in_order(key, listed(key, get(row, key)?)?).map(Said::Turns),
            Self::Instruction => {
                let (mut turns, output) = (instruction(row)?, string(row, "output")?);
                refuse_no_answer("output", &output)?;
                turns.push(Turn::new(ASSISTANT, output));
                Ok(Said::Turns(turns))
            }
            Self::Completion { prompt, completion } => {
                // Both may be lists of messages, as in TRL.
                if let (Value::Array(before), Value::Array(after)) = (get(row, prompt)?, get(row, completion)?) {
                    let mut all = messages(prompt, before)?;
                    all.extend(messages(completion, after)?);
                    return in_order(prompt, all).map(Said::Turns);
                }
                let answer = string(row, completion)?;
                refuse_no_answer(completion, &answer)?;
                Ok(Said::Completion { prompt: string(row, prompt)?, completion: answer })
            }
            Self::Text { key } => string(row, key).map(Said::Text),
        }
    }
}

/// What an instruction asks, after what the system says where it says something.
pub(super) fn instruction(row: &Map<String, Value>) -> Result<Vec<Turn>, Wrong> {
    let instruction = string(row, "instruction")?;
    let user = match row.get("input") {
        None | Some(Value::Null) => instruction,
        Some(_) => match string(row, "input")? {
            input if input.is_empty() => instruction,
            input => format!("{instruction}\n\n{input}"),
        },
    };
    let system = match row.get("system") {
        None | Some(Value::Null) => None,
        Some(_) => Some(Turn::new(SYSTEM, string(row, "system")?)),
    };
    Ok(system.into_iter().chain([Turn::new(USER, user)]).collect())
}

/// What is wrong with a row, and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) message: String,
    pub(crate) help: String,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

pub(super) fn get<'a>(row: &'a Map<String, Value>, name: &str) -> Result<&'a Value, Wrong> {
    row.get(name).ok_or_else(|| {
        let there = row.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        Wrong::new(
            format!("there is no `{name}`; this row has {there}"),
            "rows of a file have one form: that of the first",
        )
    })
}

pub(super) fn string(row: &Map<String, Value>, name: &str) -> Result<String, Wrong> {
    match get(row, name)? {
        Value::String(text) => Ok(text.clone()),
        _ => Err(Wrong::new(
            format!("`{name}` must be a string"),
            "write it in quotes, or name another column: columns = { text = \"...\" }",
        )),
    }
}

pub(super) fn refuse_no_answer(name: &str, answer: &str) -> Result<(), Wrong> {
    match answer.trim().is_empty() {
        true => Err(Wrong::new(
            format!("`{name}` is empty: there is no answer to learn"),
            "take the row out, or write the answer",
        )),
        false => Ok(()),
    }
}

/// The messages of a cell that is to be a list of them.
pub(super) fn listed(key: &str, value: &Value) -> Result<Vec<Turn>, Wrong> {
    match value {
        Value::Array(list) => messages(key, list),
        _ => Err(Wrong::new(
            format!("`{key}` must be a list of messages"),
            "such as [{\"role\": \"user\", \"content\": \"...\"}, {\"role\": \"assistant\", \"content\": \"...\"}]",
        )),
    }
}

/// The messages of a list, as `role` and `content`, or as ShareGPT's `from` and `value`. What tools were called and what they gave is left
/// out.
pub(super) fn messages(key: &str, list: &[Value]) -> Result<Vec<Turn>, Wrong> {
    let mut turns = Vec::with_capacity(list.len());
    for (place, message) in list.iter().enumerate() {
        let place = place + 1;
        let of = |names: [&str; 2]| names.into_iter().find_map(|name| message.get(name));
        let Some(role) = of(["role", "from"]).and_then(Value::as_str) else {
            return Err(Wrong::new(
                format!("message {place} of `{key}` has no role"),
                "each has a `role` and a `content`",
            ));
        };
        let role = match role {
            "human" | USER => USER,
            "gpt" | "model" | "bot" | ASSISTANT => ASSISTANT,
            SYSTEM | "developer" => SYSTEM,
            "tool" | "function" | "ipython" | "observation" | "function_call" | "function_response" => continue,
            other => {
                return Err(Wrong::new(
                    format!("message {place} of `{key}` has the role {other:?}"),
                    "roles are system, user and assistant; messages of tools are left out",
                ));
            }
        };
        let content = match of(["content", "value"]) {
            Some(Value::String(text)) => text.clone(),
            // Parts of several kinds, of which texts count here.
            Some(Value::Array(parts)) if parts.iter().all(|part| part.get("text").is_some_and(Value::is_string)) => {
                parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect()
            }
            None | Some(Value::Null) if message.get("tool_calls").is_some() => continue,
            _ => {
                return Err(Wrong::new(
                    format!("message {place} of `{key}` has no text"),
                    "`content` is a string, or a list of {\"type\": \"text\", \"text\": \"...\"}",
                ));
            }
        };
        turns.push(Turn::new(role, content));
    }
    Ok(turns)
}

/// After what the system says, which may lack, user and assistant take turns.
pub(super) fn in_turn(key: &str, turns: &[Turn]) -> Result<(), Wrong> {
    let spoken = turns.iter().skip_while(|turn| turn.role == SYSTEM);
    let first = turns.len() - spoken.clone().count();
    for (place, turn) in spoken.enumerate() {
        let due = if place % 2 == 0 { USER } else { ASSISTANT };
        if turn.role != due {
            return Err(Wrong::new(
                format!("message {} of `{key}` is the {}'s, and it is the {due}'s turn", first + place + 1, turn.role),
                "join messages of one side that follow each other; the system speaks first, then user and assistant by turns",
            ));
        }
    }
    Ok(())
}

/// Turns by turns; the assistant has the last word.
pub(super) fn in_order(key: &str, turns: Vec<Turn>) -> Result<Vec<Turn>, Wrong> {
    in_turn(key, &turns)?;
    match turns.last() {
        Some(last) if last.role == ASSISTANT => {
            refuse_no_answer(key, &last.content)?;
            Ok(turns)
        }
        _ => Err(Wrong::new(
            format!("`{key}` ends without an answer of the assistant"),
            "take the row out, or write the answer",
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::*;

    fn read(row: &Value) -> Result<Said, Wrong> {
        let row = row.as_object().unwrap();
        RowForm::of(row.keys().map(String::as_str), None).unwrap().read(row)
    }

    fn turns_of(row: &Value) -> Vec<(String, String)> {
        match read(row).unwrap() {
            Said::Turns(turns) => turns.into_iter().map(|turn| (turn.role, turn.content)).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn expected(turns: &[(&str, &str)]) -> Vec<(String, String)> {
        turns.iter().map(|&(role, content)| (role.to_owned(), content.to_owned())).collect()
    }

    #[test]
    fn every_form_says_who_said_what() {
        let both = expected(&[("user", "2 + 2?"), ("assistant", "4")]);
        let messages = json!([{ "role": "user", "content": "2 + 2?" }, { "role": "assistant", "content": "4" }]);
        assert_eq!(turns_of(&json!({ "messages": messages })), both);
        let parts = json!([{ "role": "user", "content": [{ "type": "text", "text": "2 + 2?" }] }, { "role": "assistant", "content": "4" }]);
        assert_eq!(turns_of(&json!({ "messages": parts })), both);
        let shared = json!([{ "from": "human", "value": "2 + 2?" }, { "from": "gpt", "value": "4" }]);
        assert_eq!(turns_of(&json!({ "conversations": shared })), both);
        assert_eq!(turns_of(&json!({ "instruction": "2 + 2?", "output": "4" })), both);
        assert_eq!(turns_of(&json!({ "instruction": "2 + 2?", "input": "", "output": "4" })), both);
        assert_eq!(
            turns_of(&json!({ "system": "Be brief.", "instruction": "Add.", "input": "2, 2", "output": "4" })),
            expected(&[("system", "Be brief."), ("user", "Add.\n\n2, 2"), ("assistant", "4")])
        );
        let (prompt, completion) = (json!([messages[0]]), json!([messages[1]]));
        assert_eq!(turns_of(&json!({ "prompt": prompt, "completion": completion })), both);
        let plain = json!({ "prompt": "2 + 2 =", "completion": " 4" });
        assert_eq!(read(&plain).unwrap(), Said::Completion { prompt: "2 + 2 =".into(), completion: " 4".into() });
        assert_eq!(read(&json!({ "text": "four", "id": 4 })).unwrap(), Said::Text("four".into()));
        assert_eq!(RowForm::of(["a", "b"].into_iter(), None), None);
        assert_eq!(RowForm::of(["a", "b"].into_iter(), Some("b")), Some(RowForm::Text { key: "b".into() }));
    }

    #[test]
    fn messages_of_tools_are_left_out() {
        let messages = json!([
            { "role": "user", "content": "Rain?" },
            { "role": "assistant", "content": null, "tool_calls": [{}] },
            { "role": "tool", "content": "wet" },
            { "role": "assistant", "content": "Yes." },
        ]);
        assert_eq!(turns_of(&json!({ "messages": messages })), expected(&[("user", "Rain?"), ("assistant", "Yes.")]));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |row: Value, message: &str| {
            let wrong = read(&row).unwrap_err();
            assert!(wrong.message.contains(message), "{}", wrong.message);
        };
        let message = |role: &str| json!({ "role": role, "content": "x" });
        check(json!({ "messages": [message("user")] }), "ends without an answer");
        check(json!({ "messages": [] }), "ends without an answer");
        check(
            json!({ "messages": [message("assistant")] }),
            "message 1 of `messages` is the assistant's, and it is the user's turn",
        );
        check(
            json!({ "messages": [message("system"), message("user"), message("user"), message("assistant")] }),
            "message 3",
        );
        check(
            json!({ "messages": [message("user"), message("system"), message("assistant")] }),
            "message 2 of `messages` is the system's",
        );
        check(json!({ "messages": [message("narrator")] }), "has the role \"narrator\"");
        check(json!({ "messages": [{ "content": "x" }] }), "message 1 of `messages` has no role");
        check(json!({ "messages": [{ "role": "user" }] }), "message 1 of `messages` has no text");
        check(json!({ "messages": "x" }), "must be a list of messages");
        check(json!({ "instruction": "x", "output": " " }), "`output` is empty");
        check(json!({ "prompt": "x", "completion": "" }), "`completion` is empty");
        check(json!({ "prompt": 1, "completion": "x" }), "`prompt` must be a string");
        check(json!({ "text": null }), "`text` must be a string");
    }
}
