//! A class for each pixel: masks train, are measured, predicted, drawn and compared, alone and beside other tasks; bad ones name themselves.

use std::fs;

use fthost_images::{MAX_PIXELS, Mask, decode_mask};
use fthost_tests::{Workdir, on_one_line, result_json, root};
use serde_json::Value;

use crate::resume::{bits, set_back, start_until_checkpoint};

const TASK: &str = r#"[[task]]
name = "shapes"
head = { plugin = "segmentation", channels = 16, stages = 1, class_weights = "balanced", dropout = 0.0 }
train = "shapes"
test = { images = "shapes/images", masks = "shapes/masks" }
classes = ["ground", "disc", "bar"]
"#;

const RUN: &str = r#"[model]
path = "model"
init = "random"
image = { size = [24, 32] }

TASK
[[strategy]]
plugin = "full"

[train]
epochs = 12
batch_size = 4
lr = 1e-2
"#;

/// The example's pictures of discs and bars.
fn masks_workdir() -> Workdir {
    let workdir = Workdir::new();
    let example = root().join("plugins/segmentation/example");
    for folder in ["images", "masks"] {
        for file in fs::read_dir(example.join(folder)).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            workdir.write(&format!("shapes/{folder}/{name}"), fs::read(&path).unwrap());
        }
    }
    workdir.write("model/config.json", fs::read(example.join("model/config.json")).unwrap());
    workdir.write("run.toml", RUN.replace("TASK", TASK));
    workdir
}

fn mask(bytes: &[u8]) -> Mask {
    decode_mask(bytes, "mask", MAX_PIXELS).unwrap()
}

#[test]
fn masks_train_and_what_is_predicted_is_measured_drawn_and_written() {
    let workdir = masks_workdir();
    let said = workdir.fthost(["run.toml", "--out", "run"]).succeeded().stdout;
    assert!(said.contains("watches") || said.contains("mean_iou"), "{said}");
    assert!(said.contains("IoU") && said.contains("judge by mean IoU"), "{said}");
    let run = workdir.path().join("run");
    let result = result_json(&run);
    let task = &result["tasks"]["shapes"];
    assert!(task["metrics"]["mean_iou"].as_f64().unwrap() > 0.6, "{}", task["metrics"]);
    // A pixel without a class counts in nothing.
    let counted: u64 = task["pixels"].as_object().unwrap().values().map(|of| of["target"].as_u64().unwrap()).sum();
    let there = |name: &str| {
        let mask = mask(&fs::read(workdir.path().join("shapes/masks").join(name)).unwrap());
        mask.pixels().iter().filter(|[class]| *class != 255).count() as u64
    };
    let names: Vec<String> = (0..16).map(|number| format!("{number:02}.png")).collect();
    assert_eq!(counted, names.iter().map(|name| there(name)).sum::<u64>());
    assert_eq!(task["class_counts"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>(), counted);
    let again = workdir.fthost(["eval", "run", "shapes", "--json"]).succeeded().stdout;
    let again: Value = serde_json::from_str(&again).unwrap();
    assert_eq!(again["tasks"]["shapes"]["metrics"], task["metrics"]);

    // The page shows overlays, and they are files too.
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("true classes, predicted ones") && page.contains("data:image/png;base64"));
    assert_eq!(fs::read_dir(run.join("overlays")).unwrap().count(), 10);

    // Masks of pictures without any: what predictions.csv says of them is what stands in the files.
    let said = workdir.fthost(["predict", "run", "shapes/images", "--format", "jsonl", "--masks", "out"]).succeeded();
    let rows: Vec<Value> = said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 16);
    let predictions = fs::read_to_string(run.join("predictions.csv")).unwrap();
    let line = predictions.lines().find(|line| line.contains("03.png")).unwrap();
    let predicted = mask(&fs::read(workdir.path().join("out/masks/03.png")).unwrap());
    let truth = mask(&fs::read(workdir.path().join("shapes/masks/03.png")).unwrap());
    assert_eq!(predicted.size(), truth.size());
    let right = |class: u8| {
        let both = predicted.pixels().iter().zip(truth.pixels());
        both.filter(|(found, target)| **found == [class] && **target == [class]).count()
    };
    let cells: Vec<&str> = line.split(',').nth(2).unwrap().split(' ').collect();
    for (class, cell) in (0..).zip(cells) {
        assert_eq!(cell.split_once('/').unwrap().0, right(class).to_string(), "{line}");
    }
    let share =
        predicted.pixels().iter().filter(|pixel| **pixel == [1]).count() as f64 / predicted.pixels().len() as f64;
    assert!((rows[3]["shares"]["disc"].as_f64().unwrap() - share).abs() < 1e-6, "{}", rows[3]);
    assert!(workdir.path().join("out/overlays/03.png").is_file());
    let refused = workdir.fthost(["predict", "run", "shapes/images", "--masks", "out"]).failed(2);
    assert!(on_one_line(&refused).contains("nothing is overwritten"), "{refused}");

    // Predicted masks are masks to train on.
    workdir.write(
        "again.toml",
        RUN.replace(
            "TASK",
            &TASK.replace("train = \"shapes\"", "train = { images = \"shapes/images\", masks = \"out/masks\" }"),
        ),
    );
    workdir.fthost(["again.toml", "--out", "again", "--set", "train.epochs=1"]).succeeded();
}

#[test]
fn masks_follow_their_pictures_through_random_changes_and_a_killed_run() {
    let changes =
        "augment = [\"random_resized_crop\", \"flip\", { op = \"rotation\", degrees = 20 }]\nvalidation = 0.25\n";
    let run = |task: &str, out: &str, arguments: &[&str]| {
        let workdir = masks_workdir();
        workdir.write("run.toml", RUN.replace("TASK", task) + "checkpoint_steps = 2\n");
        workdir.fthost(["run.toml", "--out", out].iter().chain(arguments)).succeeded();
        bits(&workdir.path().join(out))
    };
    let task = format!("{TASK}{changes}");
    let whole = run(&task, "run", &[]);
    assert!(run(&task, "run", &["--set", "train.threads=1"]).0 == whole.0, "the weights differ with one thread");
    assert!(run(&format!("{TASK}validation = 0.25\n"), "run", &[]).0 != whole.0, "nothing was changed at random");

    let workdir = masks_workdir();
    workdir.write("run.toml", RUN.replace("TASK", &task) + "checkpoint_steps = 2\n");
    let mut child = start_until_checkpoint(&workdir, &["run.toml", "--out", "run"]);
    child.kill().unwrap();
    child.wait().unwrap();
    if workdir.path().join("run/result.json").is_file() {
        set_back(&workdir.path().join("run"));
    }
    workdir.fthost(["--resume", "--out", "run"]).succeeded();
    let found = bits(&workdir.path().join("run"));
    assert!(found.0 == whole.0, "the weights differ after a kill");
    assert_eq!(found.1, whole.1, "the logs differ after a kill");
}

#[test]
fn strategies_are_compared_by_their_masks() {
    let workdir = masks_workdir();
    let run = RUN.replace("TASK", TASK).replace("[[strategy]]\nplugin = \"full\"\n", "");
    workdir.write("run.toml", run);
    let plugins = ["--plugin", "libfull.so", "--plugin", "libbitfit.so", "--seeds", "2", "--out", "c"];
    workdir.fthost(["compare", "run.toml"].iter().chain(&plugins)).succeeded();
    let compared = fs::read_to_string(workdir.path().join("c/comparison.json")).unwrap();
    let compared: Value = serde_json::from_str(&compared).unwrap();
    assert_eq!(compared["metric"], "mean_iou", "{compared}");
    // The metric that is computed of the predictions' counts is the run's own.
    let run = result_json(&workdir.path().join("c/full/seed-0"));
    let runs = compared["candidates"][0]["runs"].as_array().unwrap();
    let own = run["tasks"]["shapes"]["metrics"]["mean_iou"].as_f64().unwrap();
    assert!((runs[0]["value"].as_f64().unwrap() - own).abs() < 1e-12, "{runs:?} {own}");
}

/// What is left out takes its mask with it: the run is that without both.
#[test]
fn a_bad_picture_is_left_out_with_its_mask() {
    let run = |edit: &dyn Fn(&Workdir)| {
        let workdir = masks_workdir();
        let task = TASK.replace("test = ", "on_bad_image = \"skip\"\ntest = ");
        workdir.write("run.toml", RUN.replace("TASK", &task));
        edit(&workdir);
        workdir.fthost(["run.toml", "--out", "run", "--set", "train.epochs=2"]).succeeded();
        let pixels = result_json(&workdir.path().join("run"))["tasks"]["shapes"]["pixels"].clone();
        (bits(&workdir.path().join("run")).0, pixels)
    };
    let path = "shapes/images/04.png";
    let cut = run(&|workdir| {
        let whole = fs::read(workdir.path().join(path)).unwrap();
        workdir.write(path, &whole[..whole.len() - 40]);
    });
    let without = run(&|workdir| {
        for path in [path, "shapes/masks/04.png"] {
            fs::remove_file(workdir.path().join(path)).unwrap();
        }
    });
    let no_picture = run(&|workdir| drop(workdir.write(path, "a text")));
    for run in [cut, no_picture] {
        assert_eq!(run.1, without.1);
        assert!(run.0 == without.0, "the weights differ");
    }
}

/// A first run file for a folder of pictures and masks runs as it stands.
#[test]
fn a_first_run_file_is_written_for_masks() {
    let workdir = masks_workdir();
    workdir.fthost(["run.toml", "--out", "run", "--set", "train.steps=1"]).succeeded();
    workdir.fthost(["init", "shapes", "--model", "run/model", "--out", "first.toml"]).succeeded();
    let first = fs::read_to_string(workdir.path().join("first.toml")).unwrap();
    let said =
        ["image = { size = [32, 32] }", "classes = [\"0\", \"1\", \"2\"]", "255 is what pixels without a class have"];
    said.into_iter().for_each(|said| assert!(first.contains(said), "{said}:\n{first}"));
    workdir.fthost(["first.toml", "--out", "first", "--set", "train.epochs=1"]).succeeded();
    let metrics = &result_json(&workdir.path().join("first"))["tasks"]["shapes"]["metrics"];
    assert!(metrics["mean_iou"].is_f64(), "{metrics}");
}

#[test]
fn what_is_no_mask_of_its_picture_is_refused_by_its_name() {
    let small = Mask::new(5, 5, vec![[0]; 25]).unwrap().to_png();
    let check = |edit: &dyn Fn(&Workdir), expected: &str| {
        let workdir = masks_workdir();
        edit(&workdir);
        let error = on_one_line(&workdir.fthost(["run.toml", "--out", "run"]).failed(2));
        assert!(error.contains(expected), "{error}");
        assert!(!workdir.path().join("run/result.json").exists());
    };
    let change = |from: &'static str, to: &'static str| {
        move |workdir: &Workdir| {
            let run = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
            assert!(run.contains(from));
            workdir.write("run.toml", run.replace(from, to));
        }
    };
    check(&|w| drop(w.write("shapes/masks/04.png", &small)), "the mask has 5 x 5 pixels");
    check(&|w| fs::remove_file(w.path().join("shapes/masks/04.png")).unwrap(), "there is no mask 04.*");
    check(&|w| drop(w.write("shapes/masks/04.png", b"no picture")), "masks/04.png");
    let whole = fs::read(masks_workdir().path().join("shapes/masks/04.png")).unwrap();
    check(&|w| drop(w.write("shapes/masks/04.png", &whole[..whole.len() / 2])), "masks/04.png");
    check(&change("\"disc\", \"bar\"", "\"disc\""), "has pixels of class 2, and the task names 2 classes, 0 to 1");
    check(
        &change("classes = [", "ignore_index = 0\nclasses = ["),
        "has pixels of class 255, and the task names 3 classes",
    );
    check(
        &change(
            "segmentation\", channels = 16, stages = 1, class_weights = \"balanced\", dropout = 0.0",
            "classification\"",
        ),
        "has a mask for each picture",
    );
    check(&change("stages = 1", "stages = 5"), "16 channels cannot be halved 5 times");
    let calibrated = |w: &Workdir| {
        change("epochs = 12", "epochs = 12\ncalibrate = true")(w);
        change("train = \"shapes\"", "validation = 0.25\ntrain = \"shapes\"")(w);
    };
    check(&calibrated, "gives each pixel a class");
}
