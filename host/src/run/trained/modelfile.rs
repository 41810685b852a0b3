//! What Ollama is told of a GGUF file: a Modelfile.

use crate::data::GoTemplate;

/// Its name.
pub(super) const NAME: &str = "Modelfile";

/// The Modelfile of weights in a file beside it, and what to know of it. `chats`: whether the weights come with a chat template; `go`: the
/// same in Go, where there is one; `end`: the token that ends a text.
pub(super) fn write(weights: &str, chats: bool, go: Option<&GoTemplate>, end: Option<&str>) -> (String, Vec<String>) {
    let mut lines = vec!["# ollama create NAME -f Modelfile".to_owned(), format!("FROM ./{weights}")];
    let mut notes = Vec::new();
    match go {
        Some(go) => {
            lines.push("# Ollama fills in templates of Go. This one writes conversations as the template of Jinja in the file of weights does: both".into());
            lines.push(
                "# were compared on conversations of system, user and assistant. Tools are no part of it.".into(),
            );
            lines.push(format!("TEMPLATE \"\"\"{}\"\"\"", go.text()));
            if let Some(said) = &go.default_system {
                lines.push(format!("SYSTEM \"\"\"{said}\"\"\""));
            }
        }
        None if chats => {
            let why = "Ollama fills in templates of Go, and none that goes by roles writes what the model's template of Jinja does. Where Ollama \
                       knows that template it takes its own; where it does not, write TEMPLATE in the Modelfile";
            lines.push(format!("# {why}."));
            notes.push(why.to_owned());
        }
        None => {
            lines.push("# The model has no chat template: Ollama hands it texts as they are.".into());
            lines.push("TEMPLATE \"\"\"{{ .Prompt }}\"\"\"".into());
        }
    }
    let mut stops: Vec<&str> = Vec::new();
    for stop in go.map(GoTemplate::end_of_turn).into_iter().chain(end).filter(|stop| !stop.is_empty()) {
        if !stops.contains(&stop) {
            stops.push(stop);
        }
    }
    lines.extend(stops.iter().map(|stop| format!("PARAMETER stop {stop:?}")));
    (lines.join("\n") + "\n", notes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::data::ChatTemplate;

    #[test]
    fn it_names_weights_template_and_stops() {
        let text = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
        let template = ChatTemplate::new(text, "test".into(), BTreeMap::new()).unwrap();
        let go = GoTemplate::of(&template, None).unwrap();
        let (written, notes) = write("model.gguf", true, Some(&go), Some("</s>"));
        assert!(written.contains("\nFROM ./model.gguf\n") && notes.is_empty());
        assert!(
            written
                .contains("TEMPLATE \"\"\"{{ range .Messages }}{{ if eq .Role \"system\" }}<system>{{ .Content }}</s>")
        );
        assert!(written.ends_with("{{ end }}{{ end }}<assistant>\"\"\"\nPARAMETER stop \"</s>\"\n"), "{written}");
        let (written, notes) = write("model.gguf", true, None, Some("</s>"));
        assert!(!written.contains("\nTEMPLATE") && notes.len() == 1, "{written}");
        assert!(write("model.gguf", false, None, None).0.ends_with("TEMPLATE \"\"\"{{ .Prompt }}\"\"\"\n"));
    }
}
