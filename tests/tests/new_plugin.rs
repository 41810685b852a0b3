//! An author's road: what docs/authors.md prints is what is run here, for each kind, and in C.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use fthost_tests::{Workdir, build, on_one_line, result_json, root, skipped, steps, target_folder};
use serde_json::Value;

/// The shell commands of docs/authors.md, block by block.
fn blocks() -> Vec<Vec<String>> {
    let page = fs::read_to_string(root().join("docs/authors.md")).unwrap();
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.map(|block| block.lines().map(str::to_owned).collect()).collect()
}

/// Runs the commands of a block one after the other, as a shell does: `cd` holds for those after it. `begun` sees the folder that the first
/// has made.
fn type_in(workdir: &Workdir, commands: &[String], begun: impl Fn(&Path)) {
    let mut folder = workdir.path().to_owned();
    let path = std::env::var("PATH").unwrap();
    for command in commands {
        if let Some(inside) = command.strip_prefix("cd ") {
            folder.push(inside);
            begun(&folder);
            continue;
        }
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(&folder).env("PATH", format!("{}:{path}", build().folder().display()));
        shell.env("CARGO_NET_OFFLINE", "true").env("NO_COLOR", "1").env_remove("CARGO_TARGET_DIR");
        let outcome = workdir.run(shell);
        assert_eq!(outcome.code, Some(0), "{command}:\n{}\n{}", outcome.stdout, outcome.stderr);
    }
}

/// Checks that a run of the demo has learned something and used the plugin of this name.
fn has_learned(folder: &Path, library: &str) {
    let run = folder.join("runs/run");
    let result = result_json(&run);
    let used = result["plugins"].as_array().unwrap();
    assert!(used.iter().any(|plugin| plugin["name"] == library), "{used:?}");
    let task = &result["tasks"]["digits"];
    let (before, after) = (task["before"]["accuracy"].as_f64().unwrap(), task["metrics"]["accuracy"].as_f64().unwrap());
    assert!(after > 0.8 && after > before, "{library}: accuracy {before} before, {after} after");
}

#[test]
fn a_crate_of_each_kind_is_tested_built_validated_and_run_as_the_page_says() {
    let commands = &blocks()[0];
    let begins = "fthost new-plugin my-method --kind strategy";
    assert_eq!(commands[0], begins);
    // What they are built of is built once for all.
    let shared = target_folder().join("new-plugin");
    fs::create_dir_all(&shared).unwrap();
    for kind in ["strategy", "scheduler", "regularizer", "head"] {
        let workdir = Workdir::new();
        let mut commands = commands.clone();
        let api = root().join("plugin-api");
        commands[0] = format!("{} --api {}", begins.replace("strategy", kind), api.display());
        type_in(&workdir, &commands, |folder| {
            symlink(&shared, folder.join("target")).unwrap();
            // The workspace's versions, which need no network.
            fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
        });
        let folder = workdir.path().join("my-method");
        has_learned(&folder, "my_method");
        // As its own CI wants it.
        let formatted = Command::new("cargo").args(["fmt", "--check"]).current_dir(&folder).output().unwrap();
        assert!(formatted.status.success(), "{kind}: {}", String::from_utf8_lossy(&formatted.stdout));
    }
}

#[test]
fn a_plugin_in_c_is_built_validated_and_run_as_the_page_says() {
    if Command::new("make").arg("--version").output().is_err() || Command::new("cc").arg("--version").output().is_err()
    {
        return skipped("no make, or no C compiler");
    }
    let (begins, commands) = ("fthost new-plugin my-schedule --kind scheduler --c", &blocks()[1]);
    assert_eq!(commands[0], begins);
    for kind in ["strategy", "regularizer", "head"] {
        let workdir = Workdir::new();
        let mut commands = commands.clone();
        commands[0] = begins.replace("scheduler", kind);
        type_in(&workdir, &commands, |_| {});
        has_learned(&workdir.path().join("my-schedule"), "my_schedule");
    }
    let workdir = Workdir::new();
    type_in(&workdir, commands, |_| {});
    let folder = workdir.path().join("my-schedule");
    has_learned(&folder, "my_schedule");
    // eta t / w in the first w steps, a tenth of the run, then eta sqrt(w / t).
    let rates: Vec<f64> = steps(&folder.join("runs/run")).iter().map(|step| step["lr"].as_f64().unwrap()).collect();
    assert!(rates.len() > 100);
    let warmup = (0.1 * rates.len() as f64).ceil();
    for (step, rate) in rates.iter().enumerate() {
        let step = step as f64;
        let factor = if step < warmup { step / warmup } else { (warmup / step).sqrt() };
        assert!((rate - 5e-3 * factor).abs() < 1e-12, "step {step} of {}: {rate}", rates.len());
    }
}

#[test]
fn a_plugin_that_cannot_be_begun_is_an_error() {
    let workdir = Workdir::new();
    let begin = |arguments: &str| {
        let arguments = ["new-plugin"].into_iter().chain(arguments.split(' '));
        on_one_line(&workdir.fthost(arguments).failed(2))
    };
    let check = |arguments: &str, expected: &[&str]| {
        let error = begin(arguments);
        expected
            .iter()
            .for_each(|expected| assert!(error.contains(expected), "{arguments}: no {expected:?} in {error}"));
    };
    check("Mine --kind head", &["a plugin cannot be named \"Mine\"", "a name begins with a letter", ": mine"]);
    check(
        "wsd --kind strategy",
        &["there is a scheduler \"wsd\" already, in [built]/libwsd.so", "choose another name"],
    );
    check("mine --kind optimiser", &["invalid value 'optimiser' for '--kind <KIND>'"]);
    check("mine --kind head --api .", &["is not the folder of fthost-plugin-api", "of a checkout of fthost"]);
    check("mine --kind scheduler --c --api .", &["the argument '--c' cannot be used with '--api <PATH>'"]);
    assert_eq!(workdir.listing(), Vec::<String>::new());

    let begun = workdir.fthost(["new-plugin", "mine", "--kind", "scheduler", "--c", "--json"]).succeeded().stdout;
    let begun: Value = serde_json::from_str(&begun).unwrap();
    assert_eq!((&begun["kind"], &begun["library"]), (&"scheduler".into(), &"libmine.so".into()));
    assert!(
        begun["files"].as_array().unwrap().iter().all(|file| workdir
            .path()
            .join("mine")
            .join(file.as_str().unwrap())
            .is_file())
    );
    check("mine --kind head", &["[work]/mine exists already", "nothing is overwritten"]);
}
