//! Several tasks: trained jointly or in sequence, and used after the run.

use std::collections::BTreeMap;
use std::fs;

use fthost_tests::{Workdir, on_one_line, result_json, steps};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::resume::{bits, set_back};
use crate::text::{LORA, RUN, text_workdir};

/// Three tasks on the tiny BERT: the sentiment of the sentences, their frame, and their length as a value.
fn tasks_workdir(strategy: &str, train: &str) -> Workdir {
    let workdir = text_workdir();
    for file in ["train", "test"] {
        let rows = fs::read_to_string(workdir.path().join(format!("{file}.tsv"))).unwrap();
        let table = |label: fn(&str) -> String| -> String {
            rows.lines()
                .map(|row| row.split('\t').next().unwrap())
                .map(|text| format!("{text}\t{}\n", label(text)))
                .collect()
        };
        workdir.write(&format!("{file}-frame.tsv"), table(|text| text.split(' ').next().unwrap().to_owned()));
        workdir.write(&format!("{file}-length.tsv"), table(|text| (text.split(' ').count() as f64 / 10.0).to_string()));
    }
    // The first word of one frame is the judgement itself: too many classes for so few examples.
    let known = |file: &str| {
        let rows = fs::read_to_string(workdir.path().join(file)).unwrap();
        let kept =
            rows.lines().filter(|row| ["the", "a", "we", "this", "it"].contains(&row.split('\t').nth(1).unwrap()));
        kept.map(|row| format!("{row}\n")).collect::<String>()
    };
    for file in ["train-frame.tsv", "test-frame.tsv"] {
        workdir.write(file, known(file));
    }
    let task = |name: &str, head: &str| {
        format!(
            "[[task]]\nname = \"{name}\"\nhead = {{ {head} }}\ntrain = \"train-{name}.tsv\"\ntest = \"test-{name}.tsv\"\n\n"
        )
    };
    // Lengths as they are: standardised, a head that has not trained is nearly right from the start.
    let as_they_are = "plugin = \"regression\", center = 0.0, scale = 1.0";
    let tasks = task("frame", "plugin = \"classification\"") + &task("length", as_they_are);
    let run =
        RUN.replace("[[strategy]]", &format!("{tasks}[[strategy]]")).replace("[train]\n", &format!("[train]\n{train}"));
    workdir.write("run.toml", run.replace(LORA, strategy));
    workdir
}

/// Steps of each task.
fn turns(workdir: &Workdir) -> BTreeMap<String, usize> {
    let mut turns = BTreeMap::new();
    for step in steps(&workdir.path().join("run")) {
        *turns.entry(step["task"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    turns
}

#[test]
fn joint_tasks_share_the_steps_and_each_is_evaluated_after_the_run() {
    for strategy in [LORA, "plugin = \"full\""] {
        let workdir = tasks_workdir(strategy, "");
        workdir.fthost(["--config", "run.toml", "--out", "run"]).succeeded();
        // 32, 26 and 32 examples in batches of 8, two epochs.
        let expected = [("frame", 8), ("length", 8), ("sentiment", 8)].map(|(name, n)| (name.to_owned(), n));
        assert_eq!(turns(&workdir), BTreeMap::from(expected));
        let result = result_json(&workdir.path().join("run"));
        assert!(result["tasks"]["length"]["metrics"]["pearson"].is_f64(), "{}", result["tasks"]);
        for task in ["sentiment", "frame", "length"] {
            let file = if task == "sentiment" { "test.tsv".to_owned() } else { format!("test-{task}.tsv") };
            let found = workdir.fthost(["eval", "run", &file, "--task", task, "--json"]).succeeded().stdout;
            let found: Value = serde_json::from_str(&found).unwrap();
            assert_eq!(found["tasks"][task]["metrics"], result["tasks"][task]["metrics"], "{strategy}, {task}");
        }
        let labels =
            workdir.path().join(if strategy == LORA { "run/adapter" } else { "run/model" }).join("labels.json");
        let labels: Value = serde_json::from_str(&fs::read_to_string(labels).unwrap()).unwrap();
        assert_eq!(labels["frame"], serde_json::json!(["a", "it", "the", "this", "we"]));
        let error = on_one_line(&workdir.fthost(["predict", "run", "test.tsv"]).failed(2));
        assert!(error.contains("the run has 3 tasks") && error.contains("--task: sentiment, frame, length"), "{error}");
    }
}

#[test]
fn a_heavier_task_learns_more_and_a_rule_says_how_often_each_has_its_turn() {
    let workdir = tasks_workdir(LORA, "sampling = \"uniform\"\n");
    let small = fs::read_to_string(workdir.path().join("train.tsv")).unwrap();
    workdir.write("train.tsv", small.repeat(4));
    workdir.fthost(["--config", "run.toml", "--out", "run"]).succeeded();
    let turns = turns(&workdir);
    assert_eq!(turns.values().sum::<usize>(), 2 * (16 + 4 + 4));
    assert!(turns.values().all(|&steps| steps == 16), "{turns:?}");

    // With a weight near zero a task's head stays near where it began.
    let moved = |weight: &str| {
        let workdir = tasks_workdir("plugin = \"full\"", "optimizer = \"sgd\"\n");
        let outcome =
            workdir.fthost(["--config", "run.toml", "--out", "run", "--set", weight, "--set", "train.lr=0.02"]);
        outcome.succeeded();
        result_json(&workdir.path().join("run"))["tasks"]["length"]["metrics"]["loss"].as_f64().unwrap()
    };
    let (light, heavy) = (moved("task.2.weight=1e-6"), moved("task.2.weight=1.0"));
    assert!(heavy < 0.9 * light, "loss {light} with a weight of nearly nothing, {heavy} with weight 1");
}

#[test]
fn together_a_step_is_the_sum_of_what_each_task_asks_for() {
    let train = "sampling = \"together\"\noptimizer = \"sgd\"\nweight_decay = 0\nsteps = 1\n";
    // What one step makes of B, which begins at 0; and the step's line.
    let step = |weights: [f64; 3]| {
        let workdir = tasks_workdir(LORA, train);
        let weights = (0..).zip(weights).flat_map(|(i, weight)| ["--set".into(), format!("task.{i}.weight={weight}")]);
        let arguments = ["--config", "run.toml", "--out", "run"].map(String::from).into_iter().chain(weights);
        workdir.fthost(arguments).succeeded();
        let run = workdir.path().join("run");
        let bytes = fs::read(run.join("adapter/adapter_model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let mut named: Vec<_> = tensors.tensors().into_iter().filter(|(name, _)| name.contains("lora_B")).collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        let values =
            |data: &[u8]| data.chunks(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect::<Vec<_>>();
        let b: Vec<f32> = named.into_iter().flat_map(|(_, tensor)| values(tensor.data())).collect();
        (b, steps(&run))
    };
    const NOTHING: f64 = 1e-12;
    let (all, lines) = step([1.0, 2.0, 0.5]);
    let alone = [[1.0, NOTHING, NOTHING], [NOTHING, 2.0, NOTHING], [NOTHING, NOTHING, 0.5]].map(|of| step(of).0);
    let largest = all.iter().fold(0f32, |most, x| most.max(x.abs()));
    assert!(largest > 0.0 && alone.iter().all(|of| of.iter().any(|x| x.abs() > 1e-3 * largest)));
    for (i, found) in all.iter().enumerate() {
        let expected: f32 = alone.iter().map(|of| of[i]).sum();
        assert!((found - expected).abs() < 1e-4 * largest, "{found} is not {expected}");
    }

    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    let loss = |task: &str| line["losses"][task].as_f64().unwrap();
    let expected = loss("sentiment") + 2.0 * loss("frame") + 0.5 * loss("length");
    assert!((line["loss"].as_f64().unwrap() - expected).abs() < 1e-9, "{line}");
    assert_eq!((&line["samples"], line.get("task")), (&Value::from(24), None));
}

#[test]
fn together_the_largest_task_makes_the_epoch_and_a_stopped_run_goes_on() {
    let workdir = tasks_workdir(LORA, "sampling = \"together\"\ncheckpoint_steps = 3\n");
    workdir.fthost(["--config", "run.toml", "--out", "run"]).succeeded();
    let run = workdir.path().join("run");
    assert_eq!(steps(&run).len(), 2 * 4, "32 examples in batches of 8, two epochs");
    let result = result_json(&run);
    assert!(["sentiment", "frame", "length"].iter().all(|task| result["tasks"][task]["metrics"]["loss"].is_f64()));

    let expected = bits(&run);
    set_back(&run);
    workdir.fthost(["--resume", "--out", "run"]).succeeded();
    assert_eq!(bits(&run), expected);
}

#[test]
fn tasks_in_sequence_are_tested_after_each_and_a_later_run_takes_up_the_regularizer() {
    let workdir = tasks_workdir("plugin = \"full\"", "tasks = \"sequence\"\n");
    let run = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
    workdir.write("ewc.toml", format!("{run}\n[[regularizer]]\nplugin = \"ewc\"\nlabels = \"empirical\"\n"));
    let outcome = workdir.fthost(["--config", "ewc.toml", "--out", "run"]).succeeded();
    assert!(outcome.stdout.contains("after sentiment"), "{}", outcome.stdout);
    let result = result_json(&workdir.path().join("run"));
    let after: Vec<&str> = result["sequence"].as_array().unwrap().iter().map(|a| a["task"].as_str().unwrap()).collect();
    assert_eq!(after, ["sentiment", "frame", "length"]);
    // What is tested last is what the result says.
    assert_eq!(result["sequence"][2]["metrics"]["frame"], result["tasks"]["frame"]["metrics"]);
    let log = steps(&workdir.path().join("run"));
    let of = |task: &str| log.iter().filter(|step| step["task"] == task).cloned().collect::<Vec<_>>();
    assert!(of("sentiment").iter().all(|step| step["penalty"].is_null()), "nothing is held before the first task ends");
    assert!(of("frame").last().unwrap()["penalty"].as_f64().unwrap() > 0.0);
    assert!(log.windows(2).all(|pair| pair[0]["step"].as_u64().unwrap() + 1 == pair[1]["step"].as_u64().unwrap()));

    // A later run goes on from the model, and holds what the earlier one held.
    let later = RUN.replace("path = \"model\"", "path = \"run/model\"").replace(LORA, "plugin = \"full\"");
    let held = "\n[[regularizer]]\nplugin = \"ewc\"\nlabels = \"empirical\"\nstate = \"run\"\n";
    workdir.write("later.toml", format!("{later}{held}"));
    workdir.fthost(["--config", "later.toml", "--out", "later"]).succeeded();
    let penalties: Vec<f64> =
        steps(&workdir.path().join("later")).iter().map(|step| step["penalty"].as_f64().unwrap()).collect();
    assert!(penalties[1..].iter().all(|penalty| *penalty > 0.0), "{penalties:?}");
    workdir.write("other.toml", format!("{later}{}", held.replace("\"ewc\"\nlabels = \"empirical\"", "\"l2sp\"")));
    let error = on_one_line(&workdir.fthost(["--config", "other.toml", "--out", "other"]).failed(2));
    assert!(error.contains("had no regularizer \"l2sp\""), "{error}");
}

#[test]
fn what_tasks_in_sequence_come_to_follows_from_the_metrics_after_each() {
    let workdir = tasks_workdir("plugin = \"full\"", "tasks = \"sequence\"\n");
    let said = workdir.fthost(["run.toml", "--out", "run"]).succeeded().stdout;
    let result = result_json(&workdir.path().join("run"));
    let names = ["sentiment", "frame", "length"];
    let metric = |of: &Value, task: &str, name: &str| of[task][name].as_f64().unwrap();
    let before = |task: &str| result["tasks"][task]["before"]["accuracy"].as_f64().unwrap();
    let after: Vec<[f64; 2]> = (0..3)
        .map(|i| ["sentiment", "frame"].map(|task| metric(&result["sequence"][i]["metrics"], task, "accuracy")))
        .collect();
    let found = &result["continual"];
    assert_eq!(found["tasks"], serde_json::json!(names));
    assert_eq!(found["metrics"], serde_json::json!(["accuracy", "accuracy", "pearson"]));
    for (i, row) in after.iter().enumerate() {
        assert_eq!((&found["matrix"][i][0], &found["matrix"][i][1]), (&row[0].into(), &row[1].into()));
        assert_eq!(found["matrix"][i][2], result["sequence"][i]["metrics"]["length"]["pearson"]);
    }
    assert_eq!(found["before"][0].as_f64(), Some(before("sentiment")));

    let accuracy = &found["summaries"][0];
    let close = |key: &str, expected: f64| {
        let value = accuracy[key].as_f64().unwrap();
        assert!((value - expected).abs() < 1e-12, "{key}: {value} is not {expected}");
    };
    close("average", (after[2][0] + after[2][1]) / 2.0);
    let forgotten = |task: usize| after[0][task].max(after[1][task]) - after[2][task];
    close("forgetting", (forgotten(0) + forgotten(1)) / 2.0);
    close("backward_transfer", (after[2][0] - after[0][0] + after[2][1] - after[1][1]) / 2.0);
    close("forward_transfer", after[0][1] - before("frame"));
    assert_eq!((accuracy["metric"].as_str(), &accuracy["tasks"]), (Some("accuracy"), &serde_json::json!(names[..2])));
    assert!(said.contains("average accuracy") && said.contains("before training"), "{said}");
    let page = fs::read_to_string(workdir.path().join("run/report.html")).unwrap();
    assert!(page.contains("One task after the other") && page.contains("after frame"));

    // Nobody has to wait for an evaluation before the first step.
    workdir.fthost(["run.toml", "--out", "later", "--set", "train.evaluate_before=false"]).succeeded();
    let later = &result_json(&workdir.path().join("later"))["continual"];
    assert_eq!((&later["matrix"], &later["summaries"][0]["forward_transfer"]), (&found["matrix"], &Value::Null));
}

#[test]
fn the_best_model_of_joint_tasks_is_that_of_their_mean_loss_or_of_one_tasks_metric() {
    let watched = |more: &[&str]| {
        let workdir = tasks_workdir(LORA, "");
        let run = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
        workdir.write("run.toml", run.replace("train = ", "validation = 0.25\ntrain = "));
        let arguments = ["--config", "run.toml", "--out", "run"].iter().chain(more);
        workdir.fthost(arguments).succeeded();
        result_json(&workdir.path().join("run"))["watch"].clone()
    };
    assert_eq!(watched(&[])["metric"], "loss");
    assert_eq!(watched(&["--set", "train.monitor=\"frame.accuracy\""])["metric"], "accuracy");
}

#[test]
fn options_of_several_tasks_that_would_do_nothing_are_refused() {
    let check = |workdir: &Workdir, set: &str, expected: &str| {
        let error = on_one_line(&workdir.fthost(["--config", "run.toml", "--out", "run", "--set", set]).failed(2));
        assert!(error.contains(expected), "{set}: {error}");
    };
    let one = text_workdir();
    check(&one, "train.tasks=\"sequence\"", "train.tasks does nothing here");
    check(&one, "task.0.weight=2.0", "task[0].weight does nothing here");
    let three = tasks_workdir(LORA, "tasks = \"sequence\"\n");
    check(&three, "train.sampling=\"sqrt\"", "train.sampling does nothing here");
    check(&three, "task.1.weight=-1.0", "task[1].weight must be above 0");
}

#[test]
fn what_an_earlier_head_says_is_held_by_distillation() {
    let kept = |lambda: Option<&str>| {
        let workdir = tasks_workdir("plugin = \"full\"", "tasks = \"sequence\"\nepochs = 6\n");
        let run = fs::read_to_string(workdir.path().join("run.toml")).unwrap().replace("epochs = 2\n", "");
        let distill = lambda.map(|lambda| format!("\n[[regularizer]]\nplugin = \"distill\"\nlambda = {lambda}\n"));
        workdir.write("run.toml", run + &distill.unwrap_or_default());
        workdir.fthost(["--config", "run.toml", "--out", "run"]).succeeded();
        let result = result_json(&workdir.path().join("run"));
        let loss = |after: usize| result["sequence"][after]["metrics"]["sentiment"]["loss"].as_f64().unwrap();
        let log = steps(&workdir.path().join("run"));
        let penalty = log.iter().map(|step| (step["task"].clone(), step["penalty"].as_f64())).collect::<Vec<_>>();
        (loss(2) - loss(0), penalty)
    };
    let ((forgotten, none), (held, penalties)) = (kept(None), kept(Some("5.0")));
    assert!(held < 0.5 * forgotten, "the loss rises by {forgotten} without distillation, and by {held} with it");
    assert!(none.iter().all(|(_, penalty)| penalty.is_none()));
    assert!(penalties.iter().all(|(task, penalty)| penalty.is_some() == (task != "sentiment")), "{penalties:?}");

    let workdir = text_workdir();
    let run = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
    workdir.write("run.toml", format!("{run}\n[[regularizer]]\nplugin = \"distill\"\n"));
    let error = on_one_line(&workdir.fthost(["--config", "run.toml", "--out", "run"]).failed(2));
    assert!(error.contains("no task comes before another") && error.contains("train.tasks = \"sequence\""), "{error}");
}
