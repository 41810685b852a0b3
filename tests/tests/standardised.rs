//! Targets that are values: standardised by those that train, unless the run file says otherwise.

use std::fs;
use std::path::Path;

use fthost_tests::{Workdir, result_json};
use serde_json::Value;

use crate::text::{RUN, text_workdir};

/// Lengths of the sentences as values far from 0.
fn values_workdir(head: &str) -> Workdir {
    let workdir = text_workdir();
    for file in ["train.tsv", "test.tsv"] {
        let rows = fs::read_to_string(workdir.path().join(file)).unwrap();
        let valued = rows.lines().map(|row| {
            let text = row.split('\t').next().unwrap();
            format!("{text}\t{}\n", 300 + text.split(' ').count())
        });
        workdir.write(file, valued.collect::<String>());
    }
    workdir.write("run.toml", RUN.replace("{ plugin = \"classification\" }", head));
    workdir
}

fn kept_options(run: &Path) -> (f64, f64) {
    let text = fs::read_to_string(run.join("run.toml")).unwrap();
    let number = |option: &str| {
        let (_, after) = text.split_once(&format!("{option} = ")).unwrap_or_else(|| panic!("no {option} in {text}"));
        let digits: String = after.chars().take_while(|c| c.is_ascii_digit() || ".-e".contains(*c)).collect();
        digits.parse().unwrap_or_else(|error| panic!("{digits}: {error}"))
    };
    (number("center"), number("scale"))
}

#[test]
fn center_and_scale_are_those_of_the_training_targets_said_in_the_plan_and_kept() {
    let workdir = values_workdir("{ plugin = \"regression\" }");
    let lengths: Vec<f64> = fs::read_to_string(workdir.path().join("train.tsv"))
        .unwrap()
        .lines()
        .map(|row| row.split('\t').nth(1).unwrap().parse().unwrap())
        .collect();
    let mean = lengths.iter().sum::<f64>() / lengths.len() as f64;
    let std = (lengths.iter().map(|length| (length - mean).powi(2)).sum::<f64>() / lengths.len() as f64).sqrt();

    let run = workdir.path().join("run");
    let said = workdir.fthost(["--config", "run.toml", "--out", "run"]).succeeded().stdout;
    assert!(said.contains("center = 30") && said.contains("the mean of the training targets"), "{said}");
    let (center, scale) = kept_options(&run);
    assert!((center - mean).abs() < 1e-9 && (scale - std).abs() < 1e-9, "{center} {scale}, not {mean} {std}");
    let result = result_json(&run);
    let options = |name: &str| {
        let found = result["plan"]["from_data"].as_array().unwrap().iter().find(|found| found["option"] == name);
        found.and_then(|found| found["value"].as_f64())
    };
    assert_eq!((options("center"), options("scale")), (Some(center), Some(scale)));

    // What is opened again predicts in the targets' own units, and so does what is merged.
    let found = workdir.fthost(["eval", "run", "test.tsv", "--json"]).succeeded().stdout;
    let found: Value = serde_json::from_str(&found).unwrap();
    let metrics = |found: &Value| found["tasks"].as_object().unwrap().values().next().unwrap()["metrics"].clone();
    assert_eq!(metrics(&found), metrics(&result));
    workdir.fthost(["merge", "run", "merged"]).succeeded();
    let found = workdir.fthost(["eval", "merged", "test.tsv", "--json"]).succeeded().stdout;
    let found: Value = serde_json::from_str(&found).unwrap();
    let [merged, own] = [&found, &result].map(|result| metrics(result)["mse"].as_f64().unwrap());
    assert!((merged / own - 1.0).abs() < 1e-3 && own < 5.0 * std * std, "mse {own}, merged {merged}");
}

#[test]
fn what_the_run_file_says_stays_and_examples_held_out_have_no_say() {
    let told = values_workdir("{ plugin = \"regression\", center = 300, scale = 1 }");
    let said = told.fthost(["--config", "run.toml", "--out", "run"]).succeeded().stdout;
    assert!(!said.contains("the mean of"), "{said}");
    assert_eq!(kept_options(&told.path().join("run")), (300.0, 1.0));

    // One target out of all proportion: where it is held out, nothing is divided by it.
    let workdir = values_workdir("{ plugin = \"regression\", center = 300 }");
    let rows = fs::read_to_string(workdir.path().join("train.tsv")).unwrap();
    let run = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
    workdir.write("run.toml", run.replace("train = ", "validation = 0.5\ntrain = "));
    let scale = |row: usize| {
        let mut rows: Vec<String> = rows.lines().map(str::to_owned).collect();
        rows[row] = format!("{}\t1e6", rows[row].split('\t').next().unwrap());
        workdir.write("train.tsv", rows.join("\n") + "\n");
        let plan = workdir.fthost(["plan", "run.toml", "--json"]).succeeded().stdout;
        let plan: Value = serde_json::from_str(&plan).unwrap();
        plan["from_data"][0]["value"].as_f64().unwrap()
    };
    let scales: Vec<f64> = (0..12).map(scale).collect();
    assert!(scales.iter().any(|scale| *scale < 100.0) && scales.iter().any(|scale| *scale > 1e4), "{scales:?}");
}
