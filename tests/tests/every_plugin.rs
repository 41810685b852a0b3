//! What holds for every plugin: its example runs, its options are checked, its run is resumed to the bit. A new plugin's folder is
//! found by itself.

use std::fs;
use std::path::Path;
use std::time::Duration;

use fthost_tests::{Workdir, library_name, on_one_line, plugin_folders, result_json, steps};
use serde_json::Value;

use crate::resume::{bits, set_back, start_until_checkpoint};

/// The methods of a plugin, as `inspect` tells them.
fn methods(workdir: &Workdir, folder: &Path) -> Vec<Value> {
    let inspected = workdir.fthost(["inspect", &library_name(folder), "--json"]).succeeded().stdout;
    let mut inspected: Value = serde_json::from_str(&inspected).unwrap();
    inspected["plugins"][0]["methods"].as_array_mut().unwrap().drain(..).collect()
}

#[test]
fn every_plugins_example_runs() {
    let folders = plugin_folders();
    assert!(!folders.is_empty());
    let workdir = Workdir::new();
    for folder in folders {
        let name = library_name(&folder);
        for file in ["README.md", "example.toml"] {
            assert!(folder.join(file).is_file(), "{} is missing", folder.join(file).display());
        }
        let example = folder.join("example.toml").display().to_string();
        let outcome = workdir.fthost(["--config", &example, "--out", &name, "--set", "train.evaluate_before=true"]);
        assert_eq!(outcome.code, Some(0), "{example}:\n{}", outcome.stderr);

        let result = result_json(&workdir.path().join(&name));
        let used = result["plugins"].as_array().unwrap();
        assert!(used.iter().any(|plugin| plugin["name"] == name.as_str()), "{example} does not use {name}: {used:?}");
        for (task, results) in result["tasks"].as_object().unwrap() {
            for (metric, value) in results["metrics"].as_object().unwrap() {
                assert!(value.as_f64().is_some_and(f64::is_finite), "{example}: {task}.{metric} is {value}");
            }
            let (before, after) = (&results["before"]["loss"], &results["metrics"]["loss"]);
            assert!(after.as_f64() < before.as_f64(), "{example}: loss {before} before, {after} after");
        }
    }
}

/// A run file of the embedded demo with one method and one of its options, and the line where the option stands.
fn with_option(method: &Value, option: &str, value: &str) -> (String, usize) {
    let name = method["name"].as_str().unwrap();
    let kind = method["kind"].as_str().unwrap();
    let head = match kind {
        "task_head" => format!("{{ plugin = \"{name}\", {option} = {value} }}"),
        _ => "{ plugin = \"classification\" }".into(),
    };
    let mut text = format!(
        "[model]\npath = \"demo\"\n[[task]]\nname = \"digits\"\nhead = {head}\ntrain = \"demo\"\ntest = \"demo\"\n"
    );
    if kind == "task_head" {
        return (text + "[[strategy]]\nplugin = \"full\"\n", 5);
    }
    let table = match kind {
        "strategy" => "[[strategy]]",
        "regularizer" => "[[strategy]]\nplugin = \"full\"\n[[regularizer]]",
        "scheduler" => "[[strategy]]\nplugin = \"full\"\n[schedule]",
        "optimizer" => {
            text += "[[strategy]]\nplugin = \"full\"\n[train]\n";
            text += &format!("optimizer = {{ plugin = \"{name}\", {option} = {value} }}\n");
            let line = text.lines().count();
            return (text, line);
        }
        other => panic!("a kind of method that this test does not know: {other}"),
    };
    text += &format!("{table}\nplugin = \"{name}\"\n{option} = {value}\n");
    let line = text.lines().count();
    (text, line)
}

/// Values that an option does not take, from what `inspect` says that it takes, each with the words of its error.
fn wrong_values(takes: &str) -> Vec<(String, String)> {
    let (kind, range) =
        takes.split_once(", ").filter(|_| takes.starts_with("a number") || takes.starts_with("a whole")).unzip();
    let kind = kind.unwrap_or(takes);
    let of_other_type = if kind.starts_with("a number")
        || kind.starts_with("a whole")
        || kind == "a table"
        || kind == "true or false"
    {
        "\"wrong\""
    } else {
        "[[7]]"
    };
    // A list may be of so many.
    let expected = if kind.starts_with("a list") { "must " } else { "must be " };
    let mut wrong = vec![(of_other_type.to_owned(), expected.to_owned())];
    for part in range.into_iter().flat_map(|range: &str| range.split(" and ")) {
        let bound = |words: &str| part.strip_prefix(words).map(|number| number.parse::<f64>().unwrap());
        let whole = kind.starts_with("a whole");
        let text = |number: f64| if whole { format!("{number:.0}") } else { format!("{number:?}") };
        let range = range.unwrap();
        let outside =
            match (bound("at least "), bound("above "), bound("at most "), bound("below "), part.strip_prefix("from "))
            {
                (Some(least), ..) => vec![least - 1.0],
                (_, Some(above), ..) => vec![above],
                (_, _, Some(most), ..) => vec![most + 1.0],
                (_, _, _, Some(below), _) => vec![below],
                (.., Some(from)) => {
                    let (from, to) = from.split_once(" to ").unwrap();
                    vec![from.parse::<f64>().unwrap() - 1.0, to.parse::<f64>().unwrap() + 1.0]
                }
                _ => panic!("a range that this test does not know: {range}"),
            };
        wrong.extend(outside.into_iter().map(|number| (text(number), format!("must be {range}"))));
    }
    wrong
}

#[test]
fn a_wrong_option_of_any_plugin_is_an_error_with_its_line_and_what_is_accepted() {
    let workdir = Workdir::new();
    let (mut options, mut errors) = (0, 0);
    for folder in plugin_folders() {
        for method in methods(&workdir, &folder) {
            let name = method["name"].as_str().unwrap();
            let mut check = |option: &str, value: &str, expected: &[&str]| {
                let (text, line) = with_option(&method, option, value);
                workdir.write("run.toml", text);
                let error = on_one_line(&workdir.fthost(["--config", "run.toml", "--out", "run"]).failed(2));
                let place = format!("run.toml:{line}:");
                for expected in [&place, name, option].into_iter().chain(expected.iter().copied()) {
                    assert!(error.contains(expected), "{name}: {option} = {value}: no {expected:?} in: {error}");
                }
                errors += 1;
            };
            check("no-such-option", "1", &["unknown option"]);
            for option in method["options"].as_array().unwrap() {
                options += 1;
                let (key, takes) = (option["name"].as_str().unwrap(), option["takes"].as_str().unwrap());
                for (value, expected) in wrong_values(takes) {
                    check(key, &value, &[&expected]);
                }
            }
        }
    }
    assert!(options >= 60 && errors >= 150, "{options} options, {errors} errors");
}

#[test]
fn every_plugins_run_is_killed_and_resumed_to_the_bit() {
    let (through, killed) = (Workdir::new(), Workdir::new());
    let mut random = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    for folder in plugin_folders() {
        let name = library_name(&folder);
        let example = folder.join("example.toml").display().to_string();
        // What an example counts in epochs has to come within twelve steps.
        let sooner: &[&str] = match name.as_str() {
            "adalora" => &["strategy.tinit=2", "strategy.tfinal=4", "strategy.delta_t=2"],
            "freezing" => &["strategy.unfreeze={ every = { steps = 5 } }"],
            "step_decay" => &["schedule.step_size=5", "schedule.unit=\"steps\""],
            "exponential" => &["schedule.unit=\"steps\""],
            _ => &[],
        };
        let sets = ["train.steps=12", "train.epochs=1", "train.checkpoint_steps=2"];
        let sets = sets.iter().chain(sooner).flat_map(|set| ["--set", set]);
        let start: Vec<&str> = ["--config", &example, "--out", "run"].into_iter().chain(sets).collect();
        through.fthost(&start).succeeded();
        let mut child = start_until_checkpoint(&killed, &start);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros(random >> 48)); // up to 65 ms
        child.kill().unwrap();
        child.wait().unwrap();
        // It may have ended before the kill came.
        if killed.path().join("run/result.json").is_file() {
            set_back(&killed.path().join("run"));
        }
        killed.fthost(["--resume", "--out", "run"]).succeeded();
        let (expected, found) = (bits(&through.path().join("run")), bits(&killed.path().join("run")));
        assert_eq!(expected.1, found.1, "{name}: the logs differ");
        assert_eq!(expected.2, found.2, "{name}: the results differ");
        assert!(expected.0 == found.0, "{name}: the weights differ");
        for workdir in [&through, &killed] {
            fs::remove_dir_all(workdir.path().join("run")).unwrap();
        }
    }
}

/// Each head on the data of its example, which are of its kind.
#[test]
fn four_batches_of_four_give_the_gradient_of_sixteen_with_every_head() {
    let inspected = Workdir::new();
    let mut heads = 0;
    for folder in plugin_folders() {
        let methods = methods(&inspected, &folder);
        let Some(head) = methods.iter().find(|method| method["kind"] == "task_head") else { continue };
        heads += 1;
        // What an example is told from are the others of its batch: four losses of four are none of sixteen, and are refused.
        if head["name"] == "contrastive" {
            continue;
        }
        let example = folder.join("example.toml").display().to_string();
        let logged = |batch: u64, accumulate: u64, more: &[&str]| {
            let workdir = Workdir::new();
            let mut settings = vec![
                format!("batch_size={batch}"),
                format!("accumulate={accumulate}"),
                "optimizer=\"sgd\"".into(),
                "steps=4".into(),
            ];
            settings.extend(more.iter().map(ToString::to_string));
            let settings = settings.into_iter().flat_map(|setting| ["--set".to_owned(), format!("train.{setting}")]);
            let arguments = ["--config", &example, "--out", "run"].map(str::to_owned);
            workdir.fthost(arguments.into_iter().chain(settings)).succeeded();
            let run = workdir.path().join("run");
            (steps(&run), !result_json(&run)["plan"]["episodes"].is_null())
        };
        let ((whole, episodes), (parts, _)) = (logged(16, 1, &[]), logged(4, 4, &[]));
        if episodes {
            // Four episodes are no larger one: their mean is the step's. At no rate all are of one model.
            let (whole, parts) = (
                logged(16, 1, &["dropout=false", "lr=1e-30", "steps=16"]).0,
                logged(4, 4, &["dropout=false", "lr=1e-30"]).0,
            );
            let loss = |step: &Value| step["loss"].as_f64().unwrap();
            assert_eq!((whole.len(), parts.len()), (4 * parts.len(), 4));
            for (four, step) in whole.chunks(4).zip(&parts) {
                let mean = four.iter().map(loss).sum::<f64>() / 4.0;
                assert!((mean - loss(step)).abs() <= 1e-6 * mean, "{}: {mean} and {}", head["name"], loss(step));
            }
            continue;
        }
        assert_eq!((whole.len(), parts.len()), (4, 4));
        for (whole, parts) in whole.iter().zip(&parts) {
            for key in ["loss", "gradient_norm"] {
                let (a, b) = (whole[key].as_f64().unwrap(), parts[key].as_f64().unwrap());
                assert!((a - b).abs() <= 1e-6 * a.abs(), "{}: {key}: {a} and {b}", head["name"]);
            }
            assert_eq!((&whole["tokens"], &whole["samples"]), (&parts["tokens"], &parts["samples"]));
        }
    }
    assert!(heads >= 3);
}
