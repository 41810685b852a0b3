//! What the benchmarks of continual learning need of a task: pixels that change places, some of the classes, a head for several tasks,
//! and classes that are turned.

use std::fs;
use std::path::Path;

use fthost_tests::{Workdir, on_one_line, result_json, steps};
use serde_json::{Value, json};

use crate::pictures::{RUN, picture_workdir};
use crate::text::text_workdir;

const MLP: &str = r#"{ "model_type": "mlp", "num_channels": 3, "image_size": 16, "hidden_sizes": [32] }"#;

/// Another task on the same pictures.
fn task(name: &str, keys: &str) -> String {
    format!("[[task]]\nname = \"{name}\"\ntrain = \"train\"\ntest = \"test\"\n{keys}\n")
}

/// An MLP that learns shapes, and then shapes whose pixels have changed places, with one head.
fn permuted() -> Workdir {
    let workdir = picture_workdir();
    workdir.write("model/config.json", MLP);
    let moved = task("moved", "head = { task = \"shapes\" }\npermute_pixels = 3");
    let run = RUN.replace("[[strategy]]", &format!("{moved}[[strategy]]"));
    workdir.write("run.toml", run.replace("[train]", "[train]\ntasks = \"sequence\""));
    workdir
}

/// A run's steps without what differs from run to run.
fn log(run: &Path) -> Vec<Value> {
    let mut log = steps(run);
    log.iter_mut().for_each(|step| drop(step.as_object_mut().unwrap().remove("seconds")));
    log
}

fn eval(workdir: &Workdir, arguments: &[&str]) -> Value {
    let said = workdir.fthost(["eval", "run"].iter().chain(arguments).chain(&["--json"])).succeeded().stdout;
    serde_json::from_str::<Value>(&said).unwrap()["tasks"].clone()
}

#[test]
fn pixels_change_places_the_same_way_in_training_evaluation_and_prediction_for_one_head() {
    let workdir = permuted();
    let said = workdir.fthost(["run.toml", "--out", "run", "--threads", "1"]).succeeded().stdout;
    assert!(said.contains("before training") && said.contains("average accuracy"), "{said}");
    let result = result_json(&workdir.path().join("run"));
    // Pixels, hidden units and classes; the head counts once.
    assert_eq!(result["parameters"]["trainable"], (16 * 16 * 3 + 1) * 32 + (32 + 1) * 3);
    for name in ["shapes", "moved"] {
        let found = eval(&workdir, &["test", "--task", name]);
        assert_eq!(found[name]["metrics"], result["tasks"][name]["metrics"], "{name}");
    }
    let losses = ["shapes", "moved"].map(|name| result["tasks"][name]["metrics"]["loss"].as_f64().unwrap());
    assert_ne!(losses[0], losses[1], "the pixels have not moved");
    // A row of a prediction says what evaluation says: the loss is the mean of -log p(class).
    let rows = |task: &str| {
        let said = workdir.fthost(["predict", "run", "test", "--task", task, "--format", "jsonl"]).succeeded().stdout;
        let rows: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of = |row: &Value| {
            let class = row["id"].as_str().unwrap().split('/').next().unwrap().to_owned();
            -row["probabilities"][&class].as_f64().unwrap().ln()
        };
        rows.iter().map(of).sum::<f64>() / rows.len() as f64
    };
    for (name, loss) in ["shapes", "moved"].into_iter().zip(losses) {
        assert!((rows(name) - loss).abs() < 1e-4, "{name}: {} is not {loss}", rows(name));
    }
    workdir.fthost(["run.toml", "--out", "again", "--threads", "3"]).succeeded();
    let (one, three) = (log(&workdir.path().join("run")), log(&workdir.path().join("again")));
    assert!(!one.is_empty() && one == three, "the bits depend on the threads");
    // The run's own file reads as what was run.
    let own = fs::read_to_string(workdir.path().join("run/run.toml")).unwrap();
    assert!(own.contains("head = { task = \"shapes\" }") && own.contains("permute_pixels = 3"), "{own}");
}

/// A head that tasks have together is theirs as the layers below are: EWC holds it.
#[test]
fn ewc_holds_a_head_that_tasks_share() {
    let workdir = permuted();
    let run = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
    let regularizer = "[[regularizer]]\nplugin = \"ewc\"\nlabels = \"empirical\"\nlambda = 1e3\n";
    // Of a network that is frozen nothing but the head is held.
    let frozen = run.replace("plugin = \"full\"", "plugin = \"freezing\"");
    workdir.write("run.toml", frozen + regularizer);
    let sets = ["--set", "train.optimizer=\"sgd\"", "--set", "train.lr=1e-4"];
    workdir.fthost(["run.toml", "--out", "run"].iter().chain(&sets)).succeeded();
    let penalties: Vec<Option<f64>> =
        log(&workdir.path().join("run")).iter().map(|step| step["penalty"].as_f64()).collect();
    let half = penalties.len() / 2;
    assert!(penalties[..half].iter().all(Option::is_none), "{penalties:?}");
    assert!(penalties[half + 1..].iter().all(|penalty| penalty.is_some_and(|penalty| penalty > 0.0)), "{penalties:?}");
}

#[test]
fn a_task_of_some_classes_is_what_it_would_be_if_there_were_no_others() {
    let workdir = picture_workdir();
    for part in ["train", "test"] {
        for class in ["across", "plain"] {
            for file in fs::read_dir(workdir.path().join(part).join(class)).unwrap() {
                let file = file.unwrap();
                let name = file.file_name().into_string().unwrap();
                workdir.write(&format!("two/{part}/{class}/{name}"), fs::read(file.path()).unwrap());
            }
        }
    }
    workdir.fthost(["run.toml", "--out", "run", "--set", "task.only=[\"plain\", \"across\"]"]).succeeded();
    let others = ["--set", "task.train=two/train", "--set", "task.test=two/test"];
    workdir.fthost(["run.toml", "--out", "two-run"].iter().chain(&others)).succeeded();
    let [of, two] = ["run", "two-run"].map(|run| workdir.path().join(run));
    assert_eq!(log(&of), log(&two));
    let [of, two] = [of, two].map(|run| result_json(&run)["tasks"]["shapes"].clone());
    assert_eq!((&of["metrics"], &of["labels"]), (&two["metrics"], &json!(["across", "plain"])));
    // A file of all classes is read as the run read its own.
    assert_eq!(eval(&workdir, &["test"])["shapes"]["metrics"], of["metrics"]);

    // The same of a table of texts.
    let workdir = text_workdir();
    let rows = fs::read_to_string(workdir.path().join("train.tsv")).unwrap();
    let third: String =
        rows.lines().take(8).map(|row| format!("{}\tneither\n", row.split('\t').next().unwrap())).collect();
    workdir.write("three.tsv", format!("{third}{rows}"));
    workdir.fthost(["run.toml", "--out", "run"]).succeeded();
    let labels = result_json(&workdir.path().join("run"))["tasks"]["sentiment"]["labels"].clone();
    let only = format!("task.only={labels}");
    workdir.fthost(["run.toml", "--out", "only", "--set", "task.train=three.tsv", "--set", &only]).succeeded();
    assert_eq!(log(&workdir.path().join("run")), log(&workdir.path().join("only")));
}

#[test]
fn classes_that_are_turned_are_classes() {
    let workdir = picture_workdir();
    workdir
        .fthost(["run.toml", "--out", "run", "--set", "task.rotate_classes=true", "--set", "train.epochs=1"])
        .succeeded();
    let result = result_json(&workdir.path().join("run"))["tasks"]["shapes"].clone();
    assert_eq!(
        (result["labels"].as_array().unwrap().len(), &result["labels"][3]),
        (12, &json!("across, turned by 90"))
    );
    assert!(result["class_counts"].as_array().unwrap().iter().all(|count| *count == 12), "{result}");
    assert_eq!(eval(&workdir, &["test"])["shapes"]["metrics"], result["metrics"]);
}

#[test]
fn what_tasks_cannot_have_together_is_refused() {
    let check = |second: &str, change: &dyn Fn(&Workdir), expected: &str| {
        let workdir = picture_workdir();
        change(&workdir);
        let run = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
        workdir.write("run.toml", run.replace("[[strategy]]", &format!("{}[[strategy]]", task("second", second))));
        let error = on_one_line(&workdir.fthost(["run.toml", "--out", "run"]).failed(2));
        assert!(error.contains(expected), "{second}: {error}");
    };
    let nothing = |_: &Workdir| {};
    let of_two = "head = { task = \"shapes\" }\nonly = [\"across\", \"down\"]";
    check(of_two, &nothing, "shapes has the class \"plain\", and second has not: one head cannot tell");
    check("head = { task = \"third\" }", &nothing, "no task above is named \"third\"");
    check(
        "head = { plugin = \"classification\" }\nonly = [\"up\"]",
        &nothing,
        "no example has a class of those that only names",
    );
    let missing = "head = { plugin = \"classification\" }\nonly = [\"down\", \"up\"]";
    check(missing, &nothing, "no training example has the class \"up\"");
    let episodes = |workdir: &Workdir| {
        let head = "{ plugin = \"prototypical\", ways = 2, shots = 2, queries = 2 }";
        workdir.write("run.toml", RUN.replace("{ plugin = \"classification\" }", head));
    };
    check("head = { task = \"shapes\" }", &episodes, "predicts by examples of its own task");
}
