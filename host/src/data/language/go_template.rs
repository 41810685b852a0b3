//! A chat template of Jinja as one of Go's, which Ollama fills in. It is not translated: what stands around what each role says is found in
//! conversations that the template writes, and the result is tried on others. Where it gives them otherwise, there is none.

use super::conversation::{ASSISTANT, SYSTEM, Turn, USER};
use super::template::ChatTemplate;

/// What roles say in conversations that are tried.
const ASKED: &str = "what the user asks";
const ANSWERED: &str = "what the assistant answers";
const AGAIN: &str = "what the user asks then";
const TOLD: &str = "what the system is told";

/// What stands before and after what a role says.
type Around = (String, String);

/// How conversations are written, by roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GoTemplate {
    /// Nothing where the template knows no such role.
    system: Option<Around>,
    user: Around,
    assistant: Around,
    /// Where the assistant begins to speak.
    opens: String,
    /// What the system says where the conversation begins with the user.
    pub(crate) default_system: Option<String>,
}

impl GoTemplate {
    /// That of a chat template; `None` where a template of Go's by roles would write conversations otherwise. `first`: the token that a text
    /// is begun with by itself, which the template shall not write once more.
    pub(crate) fn of(template: &ChatTemplate, first: Option<&str>) -> Option<Self> {
        let write = |turns: &[Turn], opens: bool| {
            let text = template.text(turns, opens).ok()?;
            Some(first.and_then(|first| text.strip_prefix(first)).map(str::to_owned).unwrap_or(text))
        };
        let (asked, again) = (Turn::new(USER, ASKED), Turn::new(USER, AGAIN));
        let (answered, told) = (Turn::new(ASSISTANT, ANSWERED), Turn::new(SYSTEM, TOLD));
        let talk = [asked.clone(), answered, again];
        let [one, two, three] = [1, 2, 3].map(|turns| write(&talk[..turns], false));
        let (one, two, three) = (one?, two?, three?);
        let user = around(three.strip_prefix(&two)?, AGAIN)?;
        let assistant = around(two.strip_prefix(&one)?, ANSWERED)?;
        let opens = write(&talk[..1], true)?.strip_prefix(&one)?.to_owned();
        let of_user = |said: &str| format!("{}{said}{}", user.0, user.1);
        // Before the first turn there may be what the system says by default.
        let before = one.strip_suffix(&of_user(ASKED))?;
        let system = match write(&[told, asked], false) {
            Some(both) => Some(around(both.strip_suffix(&of_user(ASKED))?, TOLD)?),
            // It raises an error: there is no such role.
            None => None,
        };
        let default_system = match (&system, before) {
            (_, "") => None,
            (Some((begin, end)), before) => Some(before.strip_prefix(begin)?.strip_suffix(end)?.to_owned()),
            (None, _) => return None,
        };
        let found = Self { system, user, assistant, opens, default_system };
        let told = || Turn::new(SYSTEM, TOLD);
        let tried = [
            (vec![Turn::new(USER, AGAIN)], true),
            (talk.to_vec(), true),
            ([vec![told()], talk.to_vec()].concat(), true),
            ([vec![told()], talk[..2].to_vec()].concat(), false),
        ];
        let same = |(turns, opens): &(Vec<Turn>, bool)| {
            found.system.is_none() && turns[0].role == SYSTEM || write(turns, *opens) == found.write(turns, *opens)
        };
        (tried.iter().all(same) && !found.has_actions()).then_some(found)
    }

    fn role(&self, role: &str) -> Option<&Around> {
        match role {
            SYSTEM => self.system.as_ref(),
            USER => Some(&self.user),
            _ => Some(&self.assistant),
        }
    }

    /// What Ollama makes of a conversation.
    fn write(&self, turns: &[Turn], opens: bool) -> Option<String> {
        let default = self.default_system.as_ref().filter(|_| turns.first().is_none_or(|turn| turn.role != SYSTEM));
        let default = default.map(|said| Turn::new(SYSTEM, said.as_str()));
        let mut text = String::new();
        for Turn { role, content } in default.iter().chain(turns) {
            let (begin, end) = self.role(role)?;
            text.extend([begin.as_str(), content, end]);
        }
        text.push_str(if opens { &self.opens } else { "" });
        Some(text)
    }

    /// Whether it holds what would be read as a part of the template's own language, or as the end of it in a file of Ollama's.
    fn has_actions(&self) -> bool {
        let parts = self.system.iter().chain([&self.user, &self.assistant]).flat_map(|(begin, end)| [begin, end]);
        parts.chain([&self.opens]).any(|part| part.contains("{{") || part.contains("\"\"\""))
    }

    /// Its text.
    pub(crate) fn text(&self) -> String {
        let roles = [(SYSTEM, self.system.as_ref()), (USER, Some(&self.user)), (ASSISTANT, Some(&self.assistant))];
        let roles = roles.into_iter().filter_map(|(role, around)| Some((role, around?)));
        let branches: Vec<String> = roles
            .map(|(role, (begin, end))| format!("if eq .Role \"{role}\" }}}}{begin}{{{{ .Content }}}}{end}"))
            .collect();
        format!("{{{{ range .Messages }}}}{{{{ {}{{{{ end }}}}{{{{ end }}}}{}", branches.join("{{ else "), self.opens)
    }

    /// What ends the assistant's turn, without the line breaks around.
    pub(crate) fn end_of_turn(&self) -> &str {
        self.assistant.1.trim()
    }
}

/// What stands before and after what is said.
fn around(text: &str, said: &str) -> Option<Around> {
    let (begin, end) = text.split_once(said)?;
    Some((begin.to_owned(), end.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn of(text: &str, first: Option<&str>) -> Option<GoTemplate> {
        let special = [("bos_token", "<s>"), ("eos_token", "</s>")];
        let special: BTreeMap<String, String> =
            special.into_iter().map(|(name, token)| (name.into(), token.into())).collect();
        GoTemplate::of(&ChatTemplate::new(text, "test".into(), special).unwrap(), first)
    }

    const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe \
                          kind<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}\
                          {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    #[test]
    fn what_stands_around_roles_is_found() {
        let found = of(CHATML, None).unwrap();
        assert_eq!(found.default_system.as_deref(), Some("Be kind"));
        assert_eq!(found.end_of_turn(), "<|im_end|>");
        let expected = "{{ range .Messages }}{{ if eq .Role \"system\" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n\
                        {{ else if eq .Role \"user\" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n\
                        {{ else if eq .Role \"assistant\" }}<|im_start|>assistant\n{{ .Content }}<|im_end|>\n\
                        {{ end }}{{ end }}<|im_start|>assistant\n";
        assert_eq!(found.text(), expected);
        let one = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}{% if add_generation_prompt %}assistant: \
                   {% endif %}";
        assert_eq!(of(one, None).unwrap().default_system, None);
    }

    #[test]
    fn a_first_token_that_the_tokenizer_adds_is_not_written_once_more() {
        let with = format!("{{{{ bos_token }}}}{CHATML}");
        assert_eq!(of(&with, Some("<s>")), of(CHATML, None));
        // Where it does not add it, it stands before what the system says, which is always there.
        assert!(of(&with, None).unwrap().text().contains("}}<s><|im_start|>system"));
    }

    #[test]
    fn a_template_that_is_not_by_roles_has_none() {
        // The system's text stands in the user's turn.
        let merged = "{% if messages[0]['role'] == 'system' %}{% set told = messages[0]['content'] %}{% set rest = messages[1:] %}{% else %}\
                      {% set told = '' %}{% set rest = messages %}{% endif %}{% for m in rest %}[{{ m['role'] }}]{% if loop.first %}{{ told }}\
                      {% endif %}{{ m['content'] }}{% endfor %}";
        assert_eq!(of(merged, None), None);
        assert_eq!(of("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", None), None);
        assert_eq!(of("{{ raise_exception('no') }}", None), None);
    }
}
