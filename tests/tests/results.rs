//! What a run comes to, used: validation examples alone, temperatures and thresholds, predictions of files and standard input.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::Stdio;

use fthost_tests::{Workdir, on_one_line, result_json};
use serde_json::Value;

use crate::text::{LORA, RUN, text_workdir};

/// A run of the tiny BERT without test examples, its test file held out for validation, with these settings.
fn validated(strategy: &str, settings: &str) -> (Workdir, String) {
    let workdir = text_workdir();
    let file =
        RUN.replace(LORA, strategy).replace("test = ", "validation = ").replace("epochs = 2", "epochs = 12") + settings;
    workdir.write("run.toml", file);
    let printed = workdir.fthost(["--config", "run.toml", "--out", "run"]).succeeded().stdout;
    (workdir, printed)
}

fn task(workdir: &Workdir) -> Value {
    result_json(&workdir.path().join("run"))["tasks"]["sentiment"].clone()
}

/// The cells of a column of a table without quotes.
fn column(table: &str, separator: char, name: &str) -> Vec<String> {
    let mut rows = table.lines().map(|row| row.split(separator).collect::<Vec<_>>());
    let place = rows.next().unwrap().iter().position(|cell| *cell == name).unwrap_or_else(|| panic!("{name}: {table}"));
    rows.map(|row| row[place].to_owned()).collect()
}

#[test]
fn validation_examples_alone_give_the_whole_report() {
    let (workdir, printed) = validated(LORA, "");
    let task = task(&workdir);
    assert_eq!(task["metrics"], serde_json::json!({}), "there is no test: {task}");
    let report = &task["validation"];
    for metric in
        ["accuracy", "roc_auc", "pr_auc", "log_loss", "brier", "calibration_error", "balanced_accuracy", "kappa"]
    {
        assert!(report["metrics"][metric].is_number(), "{metric}: {report}");
    }
    assert!(
        report["report"].as_str().unwrap().contains("macro avg")
            && !report["reliability"].as_array().unwrap().is_empty()
    );
    assert_eq!(report["metrics"]["accuracy"], task["watch"]["best"]["value"], "it is the model that is saved");
    assert!(printed.contains("measured on the validation examples") && printed.contains("macro avg"), "{printed}");
    assert!(printed.contains("watches") && printed.contains("accuracy on 16 validation examples"), "{printed}");

    let run = workdir.path().join("run");
    assert!(!run.join("predictions.csv").exists());
    let predictions = fs::read_to_string(run.join("validation_predictions.csv")).unwrap();
    assert!(predictions.starts_with("task,target,prediction,example,probability,text\n"), "{predictions}");
    assert!(fs::read_to_string(run.join("report.html")).unwrap().contains("On the validation data"));
    // The texts are those of the file, and what the model is worst at is told with them.
    let test = fs::read_to_string(workdir.path().join("test.tsv")).unwrap();
    let texts: Vec<&str> = test.lines().map(|row| row.split('\t').next().unwrap()).collect();
    assert!(predictions.lines().skip(1).zip(&texts).all(|(row, text)| row.contains(text)), "{predictions}");
    for worst in report["worst"].as_array().unwrap() {
        let example = worst["example"].as_u64().unwrap() as usize;
        assert_eq!(worst["text"], texts[example - 1]);
        assert_ne!(worst["target"], worst["prediction"]);
    }
}

#[test]
fn imbalanced_classes_are_watched_by_macro_f1_and_all_probabilities_are_written_on_request() {
    let workdir = text_workdir();
    let row = |i: usize| {
        format!(
            "the film was {}\t{}\n",
            ["good", "dull"][usize::from(i.is_multiple_of(8))],
            ["ham", "spam"][usize::from(i.is_multiple_of(8))]
        )
    };
    workdir.write("train.tsv", (0..64).map(row).collect::<String>());
    workdir.write("test.tsv", (0..16).map(row).collect::<String>());
    workdir.write("run.toml", RUN.replace("test =", "validation = 0.25\ntest ="));
    let run = ["--config", "run.toml", "--out", "run", "--set", "run.probabilities=true"];
    let printed = workdir.fthost(run).succeeded().stdout;
    assert!(
        printed.contains("macro_f1 on 16 validation examples: 87.5 % of the training examples are \"ham\""),
        "{printed}"
    );
    let result = result_json(&workdir.path().join("run"));
    assert_eq!(result["plan"]["watched"][0]["metric"], "macro_f1");
    let predictions = fs::read_to_string(workdir.path().join("run/predictions.csv")).unwrap();
    let number = |name| column(&predictions, ',', name).iter().map(|p| p.parse::<f32>().unwrap()).collect::<Vec<_>>();
    let (ham, spam, most) = (number("p(ham)"), number("p(spam)"), number("probability"));
    for ((ham, spam), most) in ham.iter().zip(&spam).zip(&most) {
        assert!((ham + spam - 1.0).abs() < 1e-6 && *most == ham.max(*spam));
    }
    // A metric of probabilities may be the one that is watched.
    let watched = ["--config", "run.toml", "--out", "auc", "--set", "train.monitor=roc_auc"];
    workdir.fthost(watched).succeeded();
    assert_eq!(result_json(&workdir.path().join("auc"))["tasks"]["sentiment"]["watch"]["metric"], "roc_auc");
}

#[test]
fn a_temperature_is_fitted_kept_and_saved_in_the_last_layer() {
    for strategy in [LORA, "plugin = \"full\""] {
        let (workdir, printed) = validated(strategy, "calibrate = true\n");
        let task = task(&workdir);
        let calibration = &task["calibration"];
        let temperature = calibration["temperature"].as_f64().unwrap();
        let (without, with) = (&calibration["without"], &task["validation"]["metrics"]);
        assert!((temperature - 1.0).abs() > 1e-3, "{calibration}");
        assert!(with["log_loss"].as_f64().unwrap() < without["log_loss"].as_f64().unwrap(), "{strategy}: {task}");
        assert_eq!(with["accuracy"], without["accuracy"], "a temperature changes no prediction");
        assert!(printed.contains("temperature") && printed.contains("fitted on 16 validation examples"), "{printed}");

        // Whatever of it is opened gives the same probabilities, and none gives them twice.
        workdir.fthost(["merge", "run", "merged"]).succeeded();
        let saved = if strategy == LORA { "run/adapter" } else { "run/model" };
        let probabilities = |folder: &str| -> Vec<f64> {
            let arguments = ["predict", folder, "test.tsv", "--format", "tsv", "--set", "model.path=model"];
            let arguments = if folder == "run/adapter" { &arguments[..] } else { &arguments[..5] };
            let table = workdir.fthost(arguments).succeeded().stdout;
            column(&table, '\t', "probability").iter().map(|p| p.parse().unwrap()).collect()
        };
        let expected = probabilities("run");
        for folder in [saved, "merged"] {
            for (ours, expected) in probabilities(folder).iter().zip(&expected) {
                assert!((ours - expected).abs() < 1e-5, "{strategy} {folder}: {ours} is not {expected}");
            }
            let said: Value =
                serde_json::from_slice(&fs::read(workdir.path().join(folder).join("decision.json")).unwrap()).unwrap();
            assert_eq!((&said["folded"], said["temperature"].as_f64()), (&true.into(), Some(temperature)));
            assert!(said["note"].as_str().unwrap().contains("calibrated"), "{said}");
        }
        let table = fs::read_to_string(workdir.path().join("run/validation_predictions.csv")).unwrap();
        let written: Vec<f64> =
            column(&table.replace(" , ", " "), ',', "probability").iter().map(|p| p.parse().unwrap()).collect();
        assert_eq!(written, expected);
    }
}

#[test]
fn a_threshold_decides_wherever_the_model_is_used() {
    for (threshold, tuned) in [("\"f1\"", true), ("0.9", false)] {
        let (workdir, printed) = validated(LORA, &format!("threshold = {threshold}\n"));
        let calibration = task(&workdir)["calibration"].clone();
        let found = calibration["threshold"].as_f64().unwrap();
        assert_eq!((&calibration["positive"], found == 0.9), (&"1".into(), !tuned), "{calibration}");
        assert!(printed.contains("1 is predicted from a probability of"), "{printed}");
        for (folder, set) in [("run", None), ("run/adapter", Some("model.path=model"))] {
            let arguments = ["predict", folder, "test.tsv", "--probabilities"].into_iter();
            let table = workdir.fthost(arguments.chain(set.iter().flat_map(|set| ["--set", *set]))).succeeded().stdout;
            for (label, p) in column(&table, '\t', "label").iter().zip(column(&table, '\t', "p(1)")) {
                assert_eq!(label == "1", p.parse::<f64>().unwrap() >= found, "{folder}: {table}");
            }
        }
    }
}

#[test]
fn what_cannot_be_calibrated_is_refused() {
    let workdir = text_workdir();
    let check = |file: &str, expected: &str| {
        workdir.write("run.toml", file);
        let error = on_one_line(&workdir.fthost(["--config", "run.toml", "--out", "run"]).failed(2));
        assert!(error.contains(expected), "{error}");
    };
    check(&format!("{RUN}calibrate = true\n"), "it is fitted on validation examples, and there are none");
    check(&format!("{RUN}threshold = \"f1\"\n"), "it is fitted on validation examples, and there are none");
    let values = RUN.replace("\"classification\"", "\"regression\"").replace("test =", "validation = 0.2\ntest =");
    check(&format!("{values}calibrate = true\n"), "predicts values, and they have no probabilities");
    check(
        &format!("{values}threshold = 0.3\n"),
        "a threshold is for two classes, and the task sentiment predicts values",
    );
    assert!(!workdir.path().join("run").exists());
}

#[test]
fn standard_input_is_predicted_and_evaluated_as_a_file_is() {
    let workdir = text_workdir();
    workdir.fthost(["--config", "run.toml", "--out", "run"]).succeeded();
    let through = |arguments: &[&str], input: &str| {
        let mut command = workdir.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let test = fs::read_to_string(workdir.path().join("test.tsv")).unwrap();
    let expected = workdir.fthost(["predict", "run", "test.tsv"]).succeeded().stdout;
    assert_eq!(through(&["predict", "run", "-"], &test).1, expected);
    let objects: String = test
        .lines()
        .map(|row| format!("{}\n", serde_json::json!({ "text": row.split('\t').next().unwrap() })))
        .collect();
    let (code, printed, said) = through(&["predict", "run", "-", "--format", "tsv"], &objects);
    assert_eq!((code, printed), (Some(0), expected), "{said}");
    let report = workdir.fthost(["eval", "run", "test.tsv", "--json"]).succeeded().stdout;
    assert_eq!(through(&["eval", "run", "-", "--json"], &test).1, report);
    let (code, printed, said) = through(&["predict", "run", "-"], "{\"text\": \"a\"}\n{\"text\"\n");
    assert_eq!((code, printed.as_str()), (Some(2), ""));
    assert!(on_one_line(&said).contains("standard input:2: this line is no JSON object"), "{said}");
}

#[test]
fn candidates_are_compared_by_metrics_of_probabilities() {
    let workdir = text_workdir();
    let compare =
        ["compare", "run.toml", "--plugin", "liblora.so", "--plugin", "libbitfit.so", "--seeds", "2", "--json"];
    let printed = workdir.fthost(compare.iter().chain(&["--metric", "roc_auc", "--out", "c"])).succeeded().stdout;
    let found: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&found["metric"], &found["higher_is_better"]), (&"roc_auc".into(), &true.into()));
    for candidate in found["candidates"].as_array().unwrap() {
        for run in candidate["runs"].as_array().unwrap() {
            let folder = workdir.path().join(run["folder"].as_str().unwrap());
            let expected = &result_json(&folder)["tasks"]["sentiment"]["metrics"]["roc_auc"];
            assert_eq!(&run["value"], expected, "{run}");
        }
    }
    let pair = &found["pairs"][0];
    assert!(pair["interval"][0].as_f64() <= pair["difference"].as_f64() && pair["test"] != "mcnemar", "{pair}");
    // Where the runs have written that of the predicted class alone, it is said.
    workdir.fthost(compare.iter().chain(&["--out", "plain"])).succeeded();
    let again = ["compare", "--resume", "--out", "plain", "--metric", "log_loss"];
    let error = on_one_line(&workdir.fthost(again).failed(2));
    assert!(error.contains("log_loss is of the probabilities of all classes"), "{error}");
}

/// Whatever files examples come from, and however they are shared out.
#[test]
fn texts_beside_predictions_are_those_of_the_examples() {
    let workdir = text_workdir();
    let text = |i: usize| format!("film {i} was {}", ["dull", "good"][i % 2]);
    let rows = |wanted: &dyn Fn(usize) -> bool, row: &dyn Fn(usize) -> String| {
        (0..32).filter(|&i| wanted(i)).map(|i| format!("{}\n", row(i))).collect::<String>()
    };
    let table = |i: usize| format!("{}\tand {i}\t{}\t{}\tr{i}", text(i), i % 2, if i % 4 < 2 { "fit" } else { "held" });
    workdir.write("rows.tsv", format!("text\ttext_pair\tlabel\tpart\tname\n{}", rows(&|_| true, &table)));
    for class in [0, 1] {
        workdir.write(&format!("{class}.txt"), rows(&|i| i % 2 == class, &text));
    }
    let pairs = "train = \"rows.tsv\"\ncolumns = { text_pair = \"text_pair\", id = \"name\" }\n";
    let single = "train = { \"0\" = \"0.txt\", \"1\" = \"1.txt\" }\n";
    let split = "split = { column = \"part\", train = \"fit\", test = \"held\" }\n";
    for (n, (train, held_out, file, examples)) in [
        (pairs, "test = 0.25\n", "predictions.csv", 8),
        (pairs, "validation = 0.25\n", "validation_predictions.csv", 8),
        (pairs, split, "predictions.csv", 16),
        (single, "test = 0.25\nvalidation = 0.25\n", "predictions.csv", 8),
        (single, "validation = 0.25\n", "validation_predictions.csv", 8),
    ]
    .into_iter()
    .enumerate()
    {
        let run_file = RUN.replace("train = \"train.tsv\"\n", train).replace("test = \"test.tsv\"\n", held_out);
        workdir.write("run.toml", run_file);
        let out = format!("run{n}");
        workdir.fthost(["--config", "run.toml", "--out", out.as_str()]).succeeded();
        let found = fs::read_to_string(workdir.path().join(&out).join(file)).unwrap();
        let texts = column(&found, ',', "text");
        assert_eq!(texts.len(), examples, "{found}");
        let rows = texts.iter().zip(column(&found, ',', "target"));
        for (place, (said, target)) in rows.enumerate() {
            let i: usize = said.split(' ').nth(1).unwrap().parse().unwrap();
            assert_eq!((said.as_str(), target.as_str()), (text(i).as_str(), (i % 2).to_string().as_str()), "{found}");
            if train == pairs {
                assert_eq!(column(&found, ',', "text_pair")[place], format!("and {i}"));
                assert_eq!(column(&found, ',', "id")[place], format!("r{i}"));
            }
            assert!(held_out != split || i % 4 >= 2, "{found}");
        }
        let different: BTreeSet<&String> = texts.iter().collect();
        assert_eq!(different.len(), examples, "each is there once: {found}");
    }
}
