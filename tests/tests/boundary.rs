//! The invariants of ARCHITECTURE.md that the source itself can break.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fthost_plugin_api::abi::root::HEADER_SYMBOL;
use fthost_plugin_api::abi::tables::{ENTRY_V1, NOTE_SECTION};
use fthost_tests::{build, library_name, package_name, plugin_folders, root};
use object::{Object, ObjectSection, ObjectSymbol};

/// What is compiled for a package, in `cargo tree`'s words.
const COMPILED: &str = "normal,build";
/// The same, and what is compiled for its own tests.
const WITH_TESTS: &str = "normal,build,dev";

/// Names of all packages that one depends on in these ways, itself included.
fn dependencies(package: &str, ways: &str) -> BTreeSet<String> {
    let output = cargo_tree(package, ways);
    let names: BTreeSet<String> =
        output.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect();
    // An empty answer would forbid nothing.
    assert!(names.contains(package), "cargo tree says nothing of {package}: {output}");
    names
}

fn cargo_tree(package: &str, ways: &str) -> String {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = std::process::Command::new(program)
        .current_dir(root())
        .args(["tree", "--prefix", "none", "--format", "{p}", "--edges", ways, "-p", package])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn knows_nothing_of(package: &str, ways: &str, forbidden: &[&str]) {
    let known = dependencies(package, ways);
    let broken: Vec<&String> = known
        .iter()
        .filter(|name| {
            forbidden.iter().any(|f| f.strip_suffix('*').map_or(*name == f, |start| name.starts_with(start)))
        })
        .collect();
    assert!(broken.is_empty(), "{package} depends on {broken:?}");
}

#[test]
fn a_plugin_depends_on_plugin_api_alone() {
    let folders = plugin_folders();
    let plugins: Vec<String> = folders.iter().map(|folder| package_name(folder)).collect();
    for plugin in &plugins {
        let mut forbidden = vec!["candle*", "fthost", "fthost-models", "fthost-autograd", "fthost-tests"];
        forbidden.extend(plugins.iter().filter(|other| *other != plugin).map(String::as_str));
        // Not for its tests either: those that need a host stand in tests/methods.
        knows_nothing_of(plugin, WITH_TESTS, &forbidden);
        assert!(dependencies(plugin, COMPILED).contains("fthost-plugin-api"), "{plugin} is no plugin");
    }
}

#[test]
fn plugin_api_depends_on_nothing_of_the_host_and_does_no_io() {
    knows_nothing_of("fthost-plugin-api", COMPILED, &["candle*", "fthost", "fthost-models", "fthost-autograd"]);
    for (file, code) in sources("plugin-api/src") {
        for io in ["std::fs", "std::net", "File::", "println!", "eprintln!", "std::process"] {
            assert!(!code.contains(io), "{} uses {io}", file.display());
        }
    }
}

#[test]
fn models_and_engine_know_nothing_of_plugins_run_files_and_command_line() {
    for package in ["fthost-models", "fthost-autograd"] {
        knows_nothing_of(package, COMPILED, &["fthost-plugin-api", "fthost", "clap", "toml", "libloading"]);
    }
    knows_nothing_of("fthost-autograd", COMPILED, &["fthost-models"]);
}

#[test]
fn a_plugins_file_holds_its_ways_in_its_note_and_no_candle() {
    for folder in plugin_folders() {
        let path = build().plugin(&library_name(&folder));
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = object::File::parse(&*bytes).unwrap();
        let exported: BTreeSet<&str> =
            file.dynamic_symbols().filter(|symbol| symbol.is_definition()).filter_map(|s| s.name().ok()).collect();
        for symbol in [ENTRY_V1, HEADER_SYMBOL] {
            assert!(exported.contains(symbol), "{} does not export {symbol}", path.display());
        }
        assert!(file.section_by_name(NOTE_SECTION).is_some_and(|note| note.size() > 0), "{}", path.display());
        let foreign = file
            .symbols()
            .chain(file.dynamic_symbols())
            .find(|symbol| symbol.name().is_ok_and(|name| name.contains("candle") || name.contains("fthost_autograd")));
        assert!(
            foreign.is_none(),
            "{} holds {:?}",
            path.display(),
            foreign.map(|symbol| symbol.name().unwrap().to_owned())
        );
    }
}

/// Plugins whose names are words of the field with other meanings too (a linear layer, a classification report, multi-label metrics): for them
/// only a whole string or a file's name counts as naming the plugin.
const ORDINARY_WORDS: [&str; 15] = [
    "adapter",
    "classification",
    "constant",
    "contrastive",
    "exponential",
    "freezing",
    "full",
    "linear",
    "multi_label",
    "plateau",
    "polynomial",
    "prefix",
    "prompt",
    "regression",
    "similarity",
];

/// Those that name columns too, of data and of what a search finds: for them only a file's name counts.
const COLUMNS: [&str; 1] = ["similarity"];

#[test]
fn no_plugin_is_named_in_the_host() {
    let mut named = Vec::new();
    for (file, code) in sources("host/src") {
        for name in plugin_folders().iter().map(|folder| library_name(folder)) {
            let mut literals = vec![format!("lib{name}.so")];
            literals.extend((!COLUMNS.contains(&name.as_str())).then(|| format!("\"{name}\"")));
            let ordinary = ORDINARY_WORDS.contains(&name.as_str());
            // The folder `adapter` of a run is no plugin, the key `prompt` of a row beside its completion is none, and vLLM's option neither.
            let (folder, key) = (format!("join(\"{name}\")"), format!("(\"{name}\", \"completion\")"));
            let is_other =
                |line: &str| line.contains(&folder) || line.contains(&key) || line.contains("--max-lora-rank");
            for (number, line) in code.lines().enumerate().filter(|(_, line)| !is_other(line)) {
                if literals.iter().any(|literal| line.contains(literal)) || (!ordinary && has_word(line, &name)) {
                    named.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
                }
            }
        }
    }
    assert!(named.is_empty(), "what the host does for one method it does for any:\n{}", named.join("\n"));
}

#[test]
fn unsafe_stands_where_it_may_and_says_why() {
    /// The boundary's tables and loader, the mock host's end of them, the engine's kernels, the mapping of weight files, what is asked of
    /// the allocator, and the process that watches over another.
    const MAY: [&str; 7] = [
        "plugin-api/src/abi/",
        "plugin-api/src/test/wire/",
        "host/src/plugin/",
        "models/autograd/src/kernels/",
        "models/src/weights/",
        "host/src/run/machine.rs",
        "host/src/processes/guarded.rs",
    ];
    // Its macros expand in plugins, to the symbols that hosts look for.
    const EXPANDS_ELSEWHERE: &str = "plugin-api/src/export.rs";
    let mut wrong = Vec::new();
    for folder in ["plugin-api/src", "host/src", "models/src", "models/autograd/src", "plugins", "tests", "examples"] {
        for file in rust_files(&root().join(folder)) {
            let name = file.strip_prefix(root()).unwrap().display().to_string();
            let text = fs::read_to_string(&file).unwrap();
            let code = without_comments(&text);
            // Tests of the boundary play the other side; what they promise each other needs no reason per call.
            let product = !name.ends_with("tests.rs") && !name.contains("/tests/");
            let written: Vec<&str> = text.lines().collect();
            for (at, line) in
                code.lines().enumerate().filter(|(_, line)| has_word(line, "unsafe") && !line.contains('"'))
            {
                if !MAY.iter().any(|place| name.starts_with(place)) && name != EXPANDS_ELSEWHERE {
                    wrong.push(format!("{name}:{}: unsafe code belongs into {MAY:?}", at + 1));
                } else if product && line.contains("unsafe {") && !says_why(&written[..=at]) {
                    wrong.push(format!("{name}:{}: an unsafe block without its `// SAFETY:`", at + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether the last line, or the lines just above it, hold a `SAFETY:` comment. One reason may cover a few blocks of one
/// statement.
fn says_why(lines: &[&str]) -> bool {
    lines.iter().rev().take(8).any(|line| line.contains("SAFETY:"))
}

/// The files below a folder, with their code: no comments, no test modules.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let is_test = |file: &Path| {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        name.ends_with("tests.rs") || name.contains("/tests/")
    };
    let files = rust_files(&root().join(folder)).into_iter().filter(|file| !is_test(file));
    files
        .map(|file| {
            let text = fs::read_to_string(&file).unwrap();
            let product = text.split("#[cfg(test)]").next().unwrap_or_default();
            (file.strip_prefix(root()).unwrap().to_owned(), without_comments(product))
        })
        .collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(is_part)
            && !line[at + word.len()..].chars().next().is_some_and(is_part)
    })
}

/// Rust source without its comments, its lines kept.
fn without_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else {
            let taken = match c {
                '"' => string_length(rest),
                'r' if rest.starts_with("r#\"") => {
                    rest.find("\"#").filter(|end| *end > 2).map_or(rest.len(), |end| end + 2)
                }
                '\'' if rest.starts_with("'\"'") => 3,
                '\'' if rest.starts_with("'\\\"'") => 4,
                _ => c.len_utf8(),
            };
            code.push_str(&rest[..taken]);
            rest = &rest[taken..];
            continue;
        };
        code.extend(rest[..taken].matches('\n'));
        rest = &rest[taken..];
    }
    code
}

/// Bytes of the string literal that a text begins with.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

#[test]
fn comments_are_told_from_code() {
    let code =
        without_comments("let a = \"// no\"; // lora\n/* lora\n */ let b = '\"'; // \"\nlet c = r#\"a \"b\" // c\"#;");
    assert_eq!(code, "let a = \"// no\"; \n\n let b = '\"'; \nlet c = r#\"a \"b\" // c\"#;");
    assert!(has_word("use lora;", "lora") && !has_word("explora(lora_A)", "lora"));
}
