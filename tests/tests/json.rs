//! What `--json` gives: one object on standard output, of every command.

use std::collections::BTreeSet;

use fthost_tests::Workdir;
use serde_json::Value;

use crate::language::causal_workdir;
use crate::pictures::picture_workdir;
use crate::search::pair_workdir;
use crate::text::text_workdir;

/// Commands whose objects other modules read.
const ELSEWHERE: [&str; 2] = ["auto", "compare"];

/// The commands of `fthost --help`.
fn commands() -> BTreeSet<String> {
    let help = Workdir::new().fthost(["--help"]).succeeded().stdout;
    let listed = help.split("Other commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next());
    // A line that goes on is indented further.
    let lines = listed.expect("help lists commands").lines().filter_map(|line| line.strip_prefix("  "));
    lines.filter(|line| !line.starts_with(' ')).map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn every_command_prints_one_object_where_it_is_asked_for_json() {
    let (texts, pictures, language) = (text_workdir(), picture_workdir(), causal_workdir());
    let pairs = pair_workdir();
    texts.fthost(["run.toml", "--out", "run"]).succeeded();
    let mut seen: BTreeSet<String> = ELSEWHERE.map(str::to_owned).into();
    let mut check = |workdir: &Workdir, line: &str, keys: &[&str]| {
        let words: Vec<&str> = line.split(' ').collect();
        let said = workdir.fthost(words.iter().chain(&["--json"])).succeeded().stdout;
        let object: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{line}: {error} in {said}"));
        for key in keys {
            assert!(object.get(key).is_some(), "{line}: no {key:?} in {said}");
        }
        seen.insert(words[0].to_owned());
    };
    check(&texts, "inspect lora cosine", &["plugins"]);
    check(&texts, "plugins", &["plugins", "places"]);
    check(&texts, "help lora", &["path", "methods"]);
    check(&texts, "help run-file", &["sections"]);
    check(&texts, "schema", &["properties"]);
    check(&texts, "new-plugin mine --kind head", &["folder", "library", "commands"]);
    check(&texts, "init train.tsv --model model --out first.toml", &["file", "entries"]);
    check(&texts, "plan run.toml", &["steps", "memory"]);
    check(&texts, "data run.toml", &["data"]);
    check(&texts, "lr-find run.toml --steps 10 --out curve.html", &["points", "suggestion"]);
    check(&texts, "eval run test.tsv", &["tasks"]);
    check(&texts, "predict run test.tsv --out predictions.csv", &["rows", "out"]);
    check(&texts, "embed run test.tsv --out vectors.npy", &["rows", "width"]);
    check(&texts, "export run peft --format peft", &[]);
    check(&texts, "merge run merged", &[]);
    check(&pictures, "augment run.toml --out looks.html", &["tasks", "page"]);
    check(&pairs, "search model blue --images pictures --page found.html", &["found", "candidates"]);
    check(&language, "generate model.gguf colour --raw --max-tokens 2", &["text"]);
    let lora = fthost_tests::build().folder().join("liblora.so");
    check(&texts, &format!("validate {} --only note", lora.display()), &["passed", "tests"]);
    let unseen: Vec<_> = commands().difference(&seen).cloned().collect();
    assert!(unseen.is_empty(), "nothing here asks these for JSON: {unseen:?}");

    // The file has what would be printed without --out; its extension says the form.
    let predicted = std::fs::read_to_string(texts.path().join("predictions.csv")).unwrap();
    let printed = texts.fthost(["predict", "run", "test.tsv", "--format", "csv"]).succeeded().stdout;
    assert_eq!(predicted, printed);
}
