//! Comparisons whose candidates train at rates of their own.

use fthost_tests::{Workdir, result_json};

use crate::compare::comparison;

/// `compare --lr-find` asks `lr-find` for each candidate, says what it found, and trains at that.
#[test]
fn each_candidate_trains_at_the_rate_that_lr_find_suggests_for_it() {
    let workdir = Workdir::new();
    let sets = ["--set", "train.steps=120", "--set", "train.evaluate_before=false"];
    let plugins = ["--plugin", "libfull.so", "--plugin", "libbitfit.so"];
    let arguments = [&["compare"][..], &plugins, &["--seeds", "1", "--lr-find", "--out", "c"], &sets].concat();
    let outcome = workdir.fthost(&arguments).succeeded();
    let said = outcome.stdout + &outcome.stderr;
    let compared = comparison(&workdir, "c");
    let mut rates = Vec::new();
    for (candidate, plugin) in compared["candidates"].as_array().unwrap().iter().zip(["full", "bitfit"]) {
        assert_eq!(candidate["name"], plugin);
        let rate = candidate["lr"].as_f64().unwrap();
        assert!(said.contains(&format!("{plugin} takes train.lr = {rate:e}, by lr-find")), "{said}");
        // What lr-find says of the candidate alone, to three digits.
        let library = format!("lib{plugin}.so");
        let alone = [&["lr-find", "--plugin", library.as_str(), "--json"][..], &sets].concat();
        let alone: serde_json::Value = serde_json::from_str(&workdir.fthost(alone).succeeded().stdout).unwrap();
        let suggested = alone["suggestion"].as_f64().unwrap();
        assert!((rate / suggested - 1.0).abs() < 0.01, "{plugin}: {rate} beside {suggested}");
        let run = workdir.path().join(format!("c/{plugin}/seed-0"));
        assert!(result_json(&run)["tasks"].is_object());
        let trained = std::fs::read_to_string(run.join("run.toml")).unwrap();
        let written = trained.lines().find_map(|line| line.strip_prefix("lr = ")).unwrap();
        assert_eq!(written.parse::<f64>().unwrap(), rate, "{trained}");
        rates.push(rate);
    }
    assert_ne!(rates[0], rates[1], "one rate for both");
}
