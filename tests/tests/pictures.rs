//! Pictures: folders, archives, tables and IDX files train; changed at random they give the same bits however they are made; bad ones
//! name themselves.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use fthost_images::Picture;
use fthost_tests::{Workdir, data, on_one_line, result_json, root, skipped, steps};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::resume::{bits, set_back, start_until_checkpoint};
use crate::text::text_workdir;

/// A network that learns colours and directions within seconds.
const MODEL: &str =
    r#"{ "model_type": "conv4", "num_channels": 3, "image_size": 16, "hidden_size": 8, "num_blocks": 2 }"#;

pub(crate) const RUN: &str = r#"[model]
path = "model"
init = "random"

[[task]]
name = "shapes"
head = { plugin = "classification" }
train = "train"
test = "test"

[[strategy]]
plugin = "full"

[train]
epochs = 4
batch_size = 8
lr = 0.01
"#;

const CLASSES: [&str; 3] = ["across", "down", "plain"];

/// A picture of a class: bars across, bars down, or none, on a ground that differs from number to number.
fn picture(class: usize, number: usize) -> Picture {
    let (height, width) = (18 + number % 3, 20 + number % 5);
    let level = |y: usize, x: usize| match class {
        0 if (y / 3).is_multiple_of(2) => 90,
        1 if (x / 3).is_multiple_of(2) => 90,
        _ => 0,
    };
    let noise = |y: usize, x: usize, c: usize| (number * 31 + y * 7 + x * 13 + c * 29) % 23;
    let pixel = |i: usize| {
        let (y, x) = (i / width, i % width);
        [0, 1, 2].map(|c| (60 + number % 7 * 9 + level(y, x) + noise(y, x, c)) as u8)
    };
    Picture::new(height, width, (0..height * width).map(pixel).collect()).unwrap()
}

/// A folder with pictures of three classes, twelve each to train on and four each to test on, and [`RUN`].
pub(crate) fn picture_workdir() -> Workdir {
    let workdir = Workdir::new();
    workdir.write("model/config.json", MODEL);
    for (class, name) in CLASSES.iter().enumerate() {
        for number in 0..16 {
            let part = if number < 12 { "train" } else { "test" };
            workdir.write(&format!("{part}/{name}/{number:02}.png"), picture(class, number).to_png());
        }
    }
    workdir.write("run.toml", RUN);
    workdir
}

/// The task's metrics after training.
fn metrics(run: &Path) -> Value {
    result_json(run)["tasks"]["shapes"]["metrics"].clone()
}

#[test]
fn a_folder_of_pictures_trains_predicts_and_is_evaluated() {
    let workdir = picture_workdir();
    let said = workdir.fthost(["run.toml", "--out", "run"]).succeeded().stdout;
    let accuracy = metrics(&workdir.path().join("run"))["accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.9, "accuracy {accuracy}\n{said}");
    let predictions = fs::read_to_string(workdir.path().join("run/predictions.csv")).unwrap();
    assert!(predictions.contains("across/12.png"), "{predictions}");

    let eval = workdir.fthost(["eval", "run", "test", "--json"]).succeeded().stdout;
    let eval: Value = serde_json::from_str(&eval).unwrap();
    assert_eq!(eval["tasks"]["shapes"]["metrics"]["accuracy"].as_f64(), Some(accuracy));

    // Pictures without classes: a folder of them, and one alone.
    for (input, rows) in [("test/down", 4), ("test", 12), ("test/down/13.png", 1)] {
        let said = workdir.fthost(["predict", "run", input, "--format", "jsonl"]).succeeded().stdout;
        let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), rows, "{input}");
        assert!(lines.iter().all(|line| line["id"].as_str().is_some_and(|id| id.ends_with(".png"))), "{said}");
    }
}

/// LoRA at a convolution trains, is what PEFT saves, and folds into the kernel.
#[test]
fn lora_adapts_convolutions() {
    let workdir = picture_workdir();
    set(&workdir, "plugin = \"full\"", "plugin = \"lora\"\nrank = 4\ntargets = [\"conv\"]");
    workdir.fthost(["run.toml", "--out", "run"]).succeeded();
    set(&workdir, "plugin = \"lora\"\nrank = 4\ntargets = [\"conv\"]", "plugin = \"freezing\"");
    workdir.fthost(["run.toml", "--out", "head"]).succeeded();
    set(&workdir, "plugin = \"freezing\"", "plugin = \"lora\"\nrank = 4\ntargets = [\"conv\"]");
    let loss = |run: &str| metrics(&workdir.path().join(run))["loss"].as_f64().unwrap();
    assert!(loss("run") < 0.9 * loss("head"), "{} beside {} of the head alone", loss("run"), loss("head"));
    let adapter = fs::read(workdir.path().join("run/adapter/adapter_model.safetensors")).unwrap();
    let adapter = SafeTensors::deserialize(&adapter).unwrap();
    let mut shapes: Vec<(String, Vec<usize>)> = adapter
        .iter()
        .filter(|(name, _)| name.contains("lora"))
        .map(|(name, tensor)| (name.rsplit("blocks.").next().unwrap().to_owned(), tensor.shape().to_vec()))
        .collect();
    shapes.sort();
    let shape = |name: &str, shape: &[usize]| (name.to_owned(), shape.to_vec());
    assert_eq!(
        shapes,
        [
            shape("0.conv.lora_A.weight", &[4, 3, 3, 3]),
            shape("0.conv.lora_B.weight", &[8, 4, 1, 1]),
            shape("1.conv.lora_A.weight", &[4, 8, 3, 3]),
            shape("1.conv.lora_B.weight", &[8, 4, 1, 1]),
        ]
    );

    workdir.fthost(["merge", "run", "merged"]).succeeded();
    let rows = |of: &str| {
        let said = workdir.fthost(["predict", of, "test", "--format", "jsonl"]).succeeded().stdout;
        said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    for (adapted, merged) in rows("run").iter().zip(rows("merged")) {
        let probabilities = |row: &Value| {
            let all = row["probabilities"].as_object().unwrap();
            all.values().map(|p| p.as_f64().unwrap()).collect::<Vec<_>>()
        };
        for (a, b) in probabilities(adapted).iter().zip(probabilities(&merged)) {
            assert!((a - b).abs() < 1e-5, "{adapted} {merged}");
        }
    }
    set(&workdir, "rank = 4", "rank = 4\nuse_dora = true");
    let error = on_one_line(&workdir.fthost(["run.toml", "--out", "dora"]).failed(2));
    assert!(error.contains("use_dora is for linear layers"), "{error}");
}

/// Every strategy on a network of convolutions: it trains, or says what the network lacks.
#[test]
fn every_strategy_adapts_convolutions_or_says_why_not() {
    let fits = [
        "plugin = \"full\"",
        "plugin = \"freezing\"\ntop = 1\ndecay = 0.5",
        "plugin = \"bitfit\"",
        "plugin = \"ia3\"\ntargets = [\"conv\"]\nfeedforward = []",
        "plugin = \"lora\"\ntargets = [\"conv\"]",
    ];
    for strategy in fits {
        let workdir = picture_workdir();
        set(&workdir, "plugin = \"full\"", strategy);
        workdir.fthost(["run.toml", "--out", "run", "--set", "train.steps=2"]).succeeded();
    }
    let lacks = [
        ("plugin = \"lora\"", "target \"query\" matches no linear layer or convolution"),
        ("plugin = \"ia3\"", "matches no linear layer or convolution"),
        ("plugin = \"prompt\"", "has no input embedding to adapt"),
        ("plugin = \"prefix\"", "has no attention to adapt"),
        ("plugin = \"adapter\"", "has no feed-forward output to adapt"),
    ];
    for (strategy, expected) in lacks {
        let workdir = picture_workdir();
        set(&workdir, "plugin = \"full\"", strategy);
        let error = on_one_line(&workdir.fthost(["run.toml", "--out", "run"]).failed(2));
        assert!(error.contains(expected), "{strategy}: {error}");
    }
}

/// A first run file for a folder of pictures runs as it stands.
#[test]
fn a_first_run_file_is_written_for_pictures() {
    let workdir = picture_workdir();
    workdir.fthost(["run.toml", "--out", "run", "--set", "train.steps=1"]).succeeded();
    workdir.fthost(["merge", "run", "small"]).succeeded();
    workdir.fthost(["init", "train", "--model", "small", "--out", "first.toml"]).succeeded();
    let first = fs::read_to_string(workdir.path().join("first.toml")).unwrap();
    for said in
        ["# 3 folders of pictures, a class each", "test = \"test\"", "augment = [\"random_resized_crop\", \"flip\"]"]
    {
        assert!(first.contains(said), "{said}:\n{first}");
    }
    workdir.fthost(["first.toml", "--out", "first"]).succeeded();
}

/// People look at pictures: the page shows those that the model is wrong about.
#[test]
fn the_page_shows_the_worst_mistakes() {
    let workdir = picture_workdir();
    workdir.fthost(["run.toml", "--out", "run", "--set", "train.steps=1"]).succeeded();
    let result = result_json(&workdir.path().join("run"));
    let worst = result["tasks"]["shapes"]["worst"].as_array().unwrap();
    let page = fs::read_to_string(workdir.path().join("run/report.html")).unwrap();
    assert!(!worst.is_empty() && worst[0]["text"].as_str().unwrap().ends_with(".png"), "{worst:?}");
    assert_eq!(page.matches("<img src=\"data:image/png;base64,").count(), worst.len());
}

/// What a run says of the examples is the same wherever the pictures lie.
#[test]
fn archives_and_tables_hold_the_same_pictures_as_folders() {
    let workdir = picture_workdir();
    let tar = |part: &str| {
        let tar = std::process::Command::new("tar")
            .current_dir(workdir.path().join(part))
            .args(["-cf", &format!("../{part}.tar")])
            .args(CLASSES)
            .status();
        assert!(tar.unwrap().success());
        let rows = fs::read_dir(workdir.path().join(part)).unwrap().flat_map(|class| {
            let class = class.unwrap().file_name().into_string().unwrap();
            let files = fs::read_dir(workdir.path().join(part).join(&class)).unwrap();
            files.map(move |file| (class.clone(), file.unwrap().file_name().into_string().unwrap())).collect::<Vec<_>>()
        });
        let mut rows: Vec<String> = rows.map(|(class, file)| format!("{part}/{class}/{file},{class}\n")).collect();
        rows.sort();
        workdir.write(&format!("{part}.csv"), format!("file_name,label\n{}", rows.concat()));
    };
    tar("train");
    tar("test");
    workdir.fthost(["run.toml", "--out", "folder"]).succeeded();
    let expected = bits(&workdir.path().join("folder"));
    for part in ["train", "test"] {
        let table = format!("{part}.parquet"); // by tests/reference/make_picture_tables.py
        workdir.write(&table, fs::read(root().join("tests/data/pictures").join(&table)).unwrap());
    }
    for end in ["tar", "csv", "parquet"] {
        let sets = [format!("task.train=train.{end}"), format!("task.test=test.{end}")];
        workdir.fthost(["run.toml", "--out", end, "--set", &sets[0], "--set", &sets[1]]).succeeded();
        let found = bits(&workdir.path().join(end));
        assert!(found.0 == expected.0 && found.1 == expected.1, "{end}");
    }
}

const AUGMENT: &str = r#"augment = ["random_resized_crop", "flip", { op = "rotation", degrees = 20 }, "color_jitter", "random_erasing", "mixup"]"#;

/// A run with pictures that differ from epoch to epoch, and a checkpoint every few steps.
fn augmented_workdir() -> Workdir {
    let workdir = picture_workdir();
    let run = RUN.replace("test = \"test\"", &format!("test = \"test\"\n{AUGMENT}"));
    workdir.write("run.toml", run.replace("epochs = 4", "epochs = 40\ncheckpoint_steps = 3"));
    workdir
}

#[test]
fn changed_pictures_are_the_same_at_any_number_of_threads_and_after_a_kill() {
    let workdir = augmented_workdir();
    workdir.fthost(["run.toml", "--out", "one", "--threads", "1"]).succeeded();
    workdir.fthost(["run.toml", "--out", "three", "--threads", "3"]).succeeded();
    let expected = bits(&workdir.path().join("one"));
    let mut found = bits(&workdir.path().join("three"));
    assert!(found.0 == expected.0 && found.1 == expected.1, "threads change the bits");

    let losses: Vec<f64> =
        steps(&workdir.path().join("one")).iter().map(|step| step["loss"].as_f64().unwrap()).collect();
    let plain = picture_workdir();
    plain.fthost(["run.toml", "--out", "run"]).succeeded();
    let unchanged: Vec<f64> =
        steps(&plain.path().join("run")).iter().map(|step| step["loss"].as_f64().unwrap()).collect();
    assert_ne!(losses[0], unchanged[0], "pictures are changed from the first step on");

    let mut arguments = vec!["run.toml", "--out", "run"];
    for _ in 0..3 {
        let mut child = start_until_checkpoint(&workdir, &arguments);
        arguments = vec!["--resume", "--out", "run"];
        child.kill().unwrap();
        child.wait().unwrap();
        if workdir.path().join("run/result.json").is_file() {
            set_back(&workdir.path().join("run"));
        }
    }
    workdir.fthost(arguments).succeeded();
    found = bits(&workdir.path().join("run"));
    assert!(found.0 == expected.0, "the weights differ after a kill");
    assert_eq!(found.1, expected.1, "the logs differ after a kill");
}

/// What frozen layers make of pictures is computed once: the head alone, a thawed block, blocks that thaw in turn, an adapter in the
/// upper block.
#[test]
fn what_is_kept_of_frozen_layers_changes_no_bit() {
    let strategies = [
        "plugin = \"freezing\"",
        "plugin = \"freezing\"\ntop = 1",
        "plugin = \"freezing\"\nunfreeze = { every = { steps = 7 } }",
        "plugin = \"bitfit\"\ntargets = [\"blocks.1.conv\"]",
        "plugin = \"lora\"\nrank = 2\ntargets = [\"blocks.1.conv\"]",
    ];
    for strategy in strategies {
        let workdir = picture_workdir();
        set(&workdir, "plugin = \"full\"", strategy);
        set(&workdir, "test = \"test\"", "test = \"test\"\nvalidation = 0.2");
        let said = workdir.fthost(["run.toml", "--out", "kept"]).succeeded().stdout;
        workdir.fthost(["run.toml", "--out", "anew", "--set", "train.keep_features=false"]).succeeded();
        let (kept, anew) = (bits(&workdir.path().join("kept")), bits(&workdir.path().join("anew")));
        assert_eq!(kept.1, anew.1, "{strategy}: the logs differ");
        assert!(kept.0 == anew.0 && kept.2 == anew.2, "{strategy}: weights or results differ");
        assert!(said.contains("computed once and kept"), "{strategy}: {said}");
        set(&workdir, "test = \"test\"", "test = \"test\"\naugment = [\"flip\"]");
        let said = workdir.fthost(["run.toml", "--out", "changed"]).succeeded().stdout;
        assert!(said.contains("run anew in each epoch"), "{strategy}: {said}");
    }
}

#[test]
fn what_the_model_sees_can_be_looked_at() {
    let workdir = augmented_workdir();
    let said = workdir.fthost(["augment", "run.toml", "--out", "page.html", "--json"]).succeeded().stdout;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["tasks"][0]["pictures"].as_array().unwrap().len(), 16);
    assert_eq!(said["tasks"][0]["size"], serde_json::json!([16, 16]));
    let page = fs::read_to_string(workdir.path().join("page.html")).unwrap();
    assert_eq!(page.matches("data:image/png;base64,").count(), 32);
    assert!(workdir.fthost(["augment", "run.toml", "--out", "page.html"]).failed(2).contains("exists already"));
}

/// A mistake with pictures, and what is said of it.
type Mistake = (&'static str, fn(&Workdir), &'static [&'static str]);

#[test]
fn mistakes_with_pictures_are_said_before_training() {
    let cases: &[Mistake] = &[
        (
            "a class without pictures",
            |w| fs::create_dir(w.path().join("train/empty")).unwrap(),
            &["train/empty", "has no picture", "fill or remove the folder"],
        ),
        (
            "a file that is no picture",
            |w| drop(w.write("train/down/99.png", "a text")),
            &["train/down/99.png", "on_bad_image = \"skip\""],
        ),
        (
            "a picture that is cut off in its header",
            |w| drop(w.write("train/down/99.png", &picture(0, 0).to_png()[..20])),
            &["train/down/99.png"],
        ),
        (
            "a decompression bomb",
            |w| {
                let mut bytes = picture(0, 0).to_png();
                bytes[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]); // 65,536 x 65,536
                let crc = crc_of(&bytes[12..29]);
                bytes[29..33].copy_from_slice(&crc.to_be_bytes());
                w.write("train/down/99.png", bytes);
            },
            &["train/down/99.png", "65536"],
        ),
        (
            "a class that training has not",
            |w| drop(w.write("test/round/1.png", picture(0, 0).to_png())),
            &["the label `round` does not occur in the training data", "known are"],
        ),
        (
            "pictures without classes",
            |w| {
                fs::remove_dir_all(w.path().join("train")).unwrap();
                w.write("train/1.png", picture(0, 0).to_png());
            },
            &["no folder", "make a folder for each class"],
        ),
        (
            "a table that names a file that is not there",
            |w| {
                w.write("train.csv", "file_name,label\ntrain/down/00.png,down\ntrain/down/nowhere.png,down\n");
                set(w, "train = \"train\"", "train = \"train.csv\"");
            },
            &["train.csv:3: train/down/nowhere.png", "cannot read it"],
        ),
        (
            "columns of a folder",
            |w| set(w, "train = \"train\"", "train = \"train\"\ncolumns = { label = \"class\" }"),
            &["is a folder of pictures, and has no columns"],
        ),
        (
            "an op that is not known",
            |w| set(w, "train = \"train\"", "train = \"train\"\naugment = [\"twirl\"]"),
            &["twirl", "random_resized_crop"],
        ),
        (
            "a size that the model does not take",
            |w| {
                w.write("model/config.json", MODEL.replace("conv4", "mlp").replace("\"num_blocks\": 2, ", ""));
                set(w, "init = \"random\"", "init = \"random\"\nimage = { size = 32 }");
            },
            &["takes pictures of 16 x 16 pixels"],
        ),
        (
            "means for other channels",
            |w| set(w, "init = \"random\"", "init = \"random\"\nimage = { mean = [0.5], std = [0.5] }"),
            &["model.image.mean has 1 numbers, and the model 3 channels"],
        ),
        (
            "mixed pictures for prototypes",
            |w| {
                set(w, "plugin = \"classification\"", "plugin = \"prototypical\", ways = 2, shots = 2, queries = 2");
                set(w, "train = \"train\"", "train = \"train\"\naugment = [\"cutmix\"]");
            },
            &["pictures that are mixed have two classes", "take mixup and cutmix out"],
        ),
        (
            "an archive that is compressed",
            |w| {
                w.write("train.tar", [0x1F, 0x8B, 8, 0, 0, 0, 0, 0]);
                set(w, "train = \"train\"", "train = \"train.tar\"");
            },
            &["train.tar", "compressed by gzip"],
        ),
    ];
    for (what, make, expected) in cases {
        let workdir = picture_workdir();
        make(&workdir);
        let before = workdir.listing();
        let error = on_one_line(&workdir.fthost(["run.toml", "--out", "run"]).failed(2));
        for part in *expected {
            assert!(error.contains(part), "{what}: {error}");
        }
        assert_eq!(workdir.listing(), before, "{what}: nothing is left behind");
    }
}

/// Keys of pictures do nothing for texts.
#[test]
fn keys_of_pictures_are_refused_for_texts() {
    for (key, path) in [
        ("augment = [\"flip\"]", "task[0].augment"),
        ("class_folder = \"path\"", "task[0].class_folder"),
        ("on_bad_image = \"skip\"", "task[0].on_bad_image"),
    ] {
        let workdir = text_workdir();
        set(&workdir, "train = \"train.tsv\"", &format!("train = \"train.tsv\"\n{key}"));
        let error = on_one_line(&workdir.fthost(["run.toml", "--out", "run"]).failed(2));
        assert!(error.contains(&format!("{path} does nothing: the model reads text")), "{error}");
    }
}

fn set(workdir: &Workdir, from: &str, to: &str) {
    let run = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
    assert!(run.contains(from), "{from}");
    workdir.write("run.toml", run.replace(from, to));
}

/// The CRC of PNG's chunks.
fn crc_of(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { 0xEDB8_8320 ^ (crc >> 1) } else { crc >> 1 };
        }
    }
    !crc
}

/// Cut off behind its header, which is all that is looked at before training: the run ends and names it, or leaves it out.
#[test]
fn a_truncated_picture_stops_the_run_or_is_left_out() {
    let png = picture(1, 3).to_png();
    let jpeg = fs::read(root().join("host/images/tests/data/jpeg_420.jpg")).unwrap();
    let cut = [("train/down/99.png", &png[..png.len() - 40]), ("train/down/98.jpg", &jpeg[..jpeg.len() / 2])];
    for (name, bytes) in cut {
        let workdir = picture_workdir();
        workdir.write(name, bytes);
        let error = workdir.fthost(["run.toml", "--out", "run"]).failed(2);
        assert!(error.contains(name), "{error}");
    }
    let workdir = picture_workdir();
    cut.iter().for_each(|(name, bytes)| drop(workdir.write(name, bytes)));
    set(&workdir, "test = \"test\"", "test = \"test\"\non_bad_image = \"skip\"");
    let said = workdir.fthost(["run.toml", "--out", "skipped"]).succeeded().stdout;
    assert!(said.contains("2 bad pictures are left out"), "{said}");
    let plain = picture_workdir();
    plain.fthost(["run.toml", "--out", "run"]).succeeded();
    assert!(bits(&plain.path().join("run")).0 == bits(&workdir.path().join("skipped")).0);
}

/// MNIST as it is published: IDX files, compressed, labels beside pictures.
#[test]
fn mnist_trains_as_it_is_published() {
    let mnist = data().join("mnist");
    if !mnist.is_dir() {
        return skipped("no MNIST");
    }
    let workdir = Workdir::new();
    workdir.write("model/config.json", r#"{ "model_type": "mlp", "hidden_sizes": [32] }"#);
    let files: Vec<_> =
        fs::read_dir(&mnist).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    let find = |what: &str| mnist.join(files.iter().find(|name| name.contains(what)).unwrap()).display().to_string();
    let run = RUN
        .replace("train = \"train\"", &format!("train = \"{}\"", find("train-images")))
        .replace("test = \"test\"", &format!("test = \"{}\"", find("t10k-images")))
        .replace("epochs = 4\nbatch_size = 8\nlr = 0.01", "steps = 300\nbatch_size = 32\nlr = 0.002");
    workdir.write("run.toml", run);
    let mut command = workdir.command(["run.toml", "--out", "run"]);
    command.stdin(Stdio::null());
    workdir.run(command).succeeded();
    let accuracy = metrics(&workdir.path().join("run"))["accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.85, "{accuracy}");
}

/// A network that others trained, from weights alone, on the pictures that it was measured on: 91.73 % of 10,000.
#[test]
fn a_published_network_says_what_its_authors_say() {
    let (weights, pictures) = (data().join("resnet-cifar10/resnet20.safetensors"), data().join("cifar10-test.tar"));
    if !weights.is_file() || !pictures.is_file() {
        return skipped("no CIFAR-10");
    }
    let arguments = [Path::new("eval"), &weights, &pictures, Path::new("--json")];
    let said = Workdir::new().fthost(arguments).succeeded().stdout;
    let said: Value = serde_json::from_str(&said).unwrap();
    let (_, task) = said["tasks"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(task["metrics"]["accuracy"].as_f64(), Some(0.9173), "{task}");
}
