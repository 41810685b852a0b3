//! Models of two streams, and texts that are compared: what a run of them leaves opens again here and in other tools, merged, exported or
//! after a kill.
//!
//! As in `saved`, each case is one run. Its loss on the test examples is that of CLIP over all of them as one batch, which a Python process
//! computes anew from what was saved (`tests/reference/towers_check.py`): it depends on every number that training has moved.

use std::path::Path;

use fthost_images::Picture;
use fthost_tests::{Workdir, on_one_line, reference, result_json, skipped};
use serde_json::{Value, json};

use crate::networks::NETWORKS;
use crate::pictures::picture_workdir;
use crate::resume::ends_with_the_same_bits;
use crate::saved::{FULL, Folder, predict};
use crate::text::python;

pub(crate) const PAIR: &str = r#"streams = { text = "text", image = "image" }"#;
pub(crate) const CLIP: &str = r#"path = "clip""#;
pub(crate) const CONTRASTIVE: &str = r#"{ plugin = "contrastive" }"#;
pub(crate) const FROZEN: &str = "plugin = \"freezing\"\ntop = 0";
pub(crate) const LORA: &str = "plugin = \"lora\"\nrank = 4\ntargets = [\"query\", \"value\"]";
const OF_CLIP: &str = "plugin = \"lora\"\nrank = 4\ntargets = [\"q_proj\", \"v_proj\"]";

const WORDS: [&str; 8] = ["good", "bad", "great", "awful", "funny", "boring", "warm", "dull"];

/// A tiny CLIP, a tiny model for texts and one for pictures, pictures of 8 x 8 pixels with their texts, and pairs of texts.
pub(crate) fn workdir() -> Workdir {
    workdir_of(8)
}

/// The same with pictures of this height and width.
fn workdir_of(size: usize) -> Workdir {
    let workdir = Workdir::new();
    Folder::tiny("clip").write(&workdir, "clip");
    Folder::tiny("bert").write(&workdir, "text");
    let mut image = Folder::tiny("vit");
    image.config.insert("num_channels".into(), json!(3));
    let patches = image.weights.iter_mut().find(|(name, ..)| name.ends_with("projection.weight")).unwrap();
    let (channels, kernel) = (patches.1[1], patches.1[2..].iter().product::<usize>());
    let of_colours = |kernels: &[f32]| [kernels, &kernels[..kernel]].concat();
    patches.2 = patches.2.chunks(channels * kernel).flat_map(of_colours).collect();
    patches.1[1] = channels + 1;
    image.write(&workdir, "image");

    let frames = ["the film was {}", "a very {} movie", "it was {} ."];
    let header = "image\ttext\n".to_owned();
    let mut tables = [header.clone(), header];
    for (number, (frame, (kind, word))) in
        frames.iter().flat_map(|frame| WORDS.iter().enumerate().map(move |word| (frame, word))).enumerate()
    {
        let pixel = |i: usize| {
            let (y, x) = (i / size * 8 / size, i % size * 8 / size);
            [
                (40 + kind * 25 + number) as u8,
                (y * 30 * (kind % 3)) as u8,
                (x * 30 * (kind % 2) + 200 - kind * 20) as u8,
            ]
        };
        let picture = Picture::new(size, size, (0..size * size).map(pixel).collect()).unwrap();
        workdir.write(&format!("pictures/{number}.png"), picture.to_png());
        tables[usize::from(number >= 16)] += &format!("pictures/{number}.png\t{}\n", frame.replace("{}", word));
    }
    let [train, test] = tables;
    workdir.write("train.tsv", train);
    workdir.write("test.tsv", test);
    let pairs = WORDS.map(|word| format!("the film was {word}\ta very {word} movie\n"));
    workdir.write("pairs.tsv", format!("text\ttext_pair\n{}", pairs.concat()));
    let scored = (0..8).map(|i| format!("the film was {}\tit was {} .\t{}\n", WORDS[i], WORDS[i / 2], i as f64 / 2.0));
    workdir.write("scored.tsv", format!("text\ttext_pair\tlabel\n{}", scored.collect::<String>()));
    workdir
}

/// The run file of a task on these data.
pub(crate) fn run_file(model: &str, head: &str, strategy: &str) -> String {
    format!(
        "[model]\n{model}\n\n[[task]]\nname = \"match\"\nhead = {head}\ntrain = \"train.tsv\"\ntest = \"test.tsv\"\n\n[[strategy]]\n{strategy}\n\n\
         [train]\nepochs = 4\nbatch_size = 8\nlr = 0.02\n"
    )
}

/// The same of pairs of texts, pooled by their mean.
fn of_texts(head: &str, strategy: &str) -> String {
    let columns = "test = \"pairs.tsv\"\ncolumns = { text = \"text\", text_pair = \"text_pair\" }";
    let model = "path = \"text\"\npooling = \"mean\"";
    run_file(model, head, strategy).replace("test = \"test.tsv\"", columns).replace("train.tsv", "pairs.tsv")
}

/// Metrics of a folder on a file.
#[track_caller]
pub(crate) fn eval(workdir: &Workdir, folder: &str, data: &str) -> Value {
    let said = workdir.fthost(["eval", folder, data, "--json"]).succeeded().stdout;
    let said: Value = serde_json::from_str(&said).unwrap();
    let (_, task) = said["tasks"].as_object().unwrap().iter().next().unwrap();
    task["metrics"].clone()
}

/// Trains in a fresh folder; the metrics on the test examples, and what is said of what was saved.
#[track_caller]
fn train(workdir: &Workdir, of: &str, run: &str) -> (Value, Value) {
    workdir.write("run.toml", run);
    let ended = workdir.fthost(["run.toml", "--out", "run"]);
    assert_eq!(ended.code, Some(0), "{of}: {}", ended.stderr);
    let mut result = result_json(&workdir.path().join("run"));
    (result["tasks"]["match"]["metrics"].take(), result["saved"].take())
}

#[track_caller]
pub(crate) fn about(of: &str, found: &Value, expected: &Value) {
    let (found, expected) = (found["loss"].as_f64().unwrap(), expected["loss"].as_f64().unwrap());
    assert!((found - expected).abs() < 1e-5, "{of}: loss {found}, and {expected} in the run");
}

/// What Python finds wrong with folders.
pub(crate) fn opened_elsewhere(script: &str, cases: Vec<Value>) {
    let Some(python) = python() else {
        return skipped("FTHOST_PYTHON names no Python with transformers and peft: folders are opened by fthost alone");
    };
    let list = Workdir::new();
    let wrong = reference(&python, script, [list.write("cases.json", Value::Array(cases).to_string())]);
    if wrong == json!("no timm") {
        return skipped("there is no timm: its folders are opened by fthost alone");
    }
    assert_eq!(wrong, json!([]), "folders that are opened elsewhere");
}

#[test]
fn what_two_streams_leave_opens_again_everywhere() {
    let fixed = r#"{ plugin = "contrastive", learn_temperature = false }"#;
    let of_stream =
        "plugin = \"lora\"\nrank = 4\ntargets = [\"text:*query\"]\nrank_pattern = { \"text:.*1.attention.*\" = 2 }";
    let stars =
        "plugin = \"lora\"\nrank = 4\ntargets = [\"text:*q_proj\", \"image:*layers.1*v_proj\"]\nbias = \"lora_only\"";
    let each = format!("{LORA}\nstream = \"text\"\n\n[[strategy]]\n{LORA}\nstream = \"image\"")
        .replacen("rank = 4", "rank = 2", 1);
    let cases = [
        ("frozen towers", PAIR, CONTRASTIVE, FROZEN, "fthost"),
        ("LoRA in both", PAIR, CONTRASTIVE, LORA, "fthost"),
        ("LoRA in one", PAIR, CONTRASTIVE, of_stream, "fthost"),
        ("each with its own", PAIR, CONTRASTIVE, &each, "fthost"),
        ("all of a pair", PAIR, CONTRASTIVE, FULL, "joined"),
        ("LoRA in CLIP", CLIP, CONTRASTIVE, OF_CLIP, "peft"),
        ("its scale frozen", CLIP, fixed, OF_CLIP, "peft"),
        ("LoRA by streams and stars", CLIP, CONTRASTIVE, stars, "peft"),
        ("all of CLIP", CLIP, CONTRASTIVE, FULL, "huggingface"),
    ];
    let (mut left, mut kept) = (Vec::new(), Vec::new());
    for (of, model, head, strategy, format) in cases {
        let workdir = workdir();
        let (metrics, saved) = train(&workdir, of, &run_file(model, head, strategy));
        assert_eq!(saved["format"], format, "{of}: {saved}");
        assert_eq!(eval(&workdir, "run", "test.tsv"), metrics, "{of}");
        let whole = strategy == FULL;
        let folder = if whole { "run/model" } else { "run/adapter" };
        about(&format!("{of}: {folder}"), &eval(&workdir, folder, "test.tsv"), &metrics);

        let path = |name: &str| workdir.path().join(name);
        let bases = json!({ "text": path("text"), "image": path("image") });
        let case = |kind: &str, folder: &str, more: Value| {
            let mut case = json!({
                "of": format!("{of}: {folder}"), "kind": kind, "folder": path(folder), "data": path("test.tsv"), "loss": metrics["loss"],
            });
            case.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            case
        };
        let heads = |folder: &str| json!({ "head": [path(&format!("{folder}/head.safetensors")), ""] });
        let of_pair = model == PAIR;
        left.push(match (of_pair, whole) {
            (true, true) => case("pair", folder, heads(folder)),
            (true, false) => {
                let head =
                    [path("run/adapter/adapter_model.safetensors").display().to_string(), "base_model.model.".into()];
                case("adapters", folder, json!({ "base": bases, "head": head }))
            }
            (false, true) => case("clip", folder, json!({})),
            (false, false) => case("adapter", folder, json!({ "base": path("clip") })),
        });
        if !whole && strategy != FROZEN {
            workdir.fthost(["merge", "run", "merged"]).succeeded();
            about(&format!("{of}: merged"), &eval(&workdir, "merged", "test.tsv"), &metrics);
            let (kind, more) = if of_pair { ("pair", heads("merged")) } else { ("clip", json!({})) };
            left.push(case(kind, "merged", more));
        }
        kept.push(workdir);
    }
    let listed = |at: usize, folder: &str| {
        let all = kept[at].listing();
        all.iter().filter_map(|file| file.strip_prefix(folder).map(str::to_owned)).collect::<Vec<_>>()
    };
    let adapters = |at: usize| -> Vec<String> {
        listed(at, "run/adapter/").into_iter().filter(|file| file.ends_with("/adapter_config.json")).collect()
    };
    let both = ["image/adapter_config.json", "text/adapter_config.json"];
    assert_eq!([0, 1, 2, 3].map(adapters), [&[][..], &both, &both[1..], &both]);
    let whole = listed(4, "run/model/");
    for file in ["head.safetensors", "streams.json", "text/tokenizer.json", "text/tokenizer_config.json"] {
        assert!(whole.iter().any(|name| name == file), "{file} is not in {whole:?}");
    }
    opened_elsewhere("towers_check.py", left);
}

/// A network of timm's, whose layers PEFT wraps by their names there.
#[test]
fn a_stream_of_timms_opens_there() {
    let network = picture_workdir();
    let (name, config) = NETWORKS[1];
    network.write(&format!("{name}/config.json"), config);
    let run = std::fs::read_to_string(network.path().join("run.toml")).unwrap();
    network.write("run.toml", run.replace("path = \"model\"", &format!("path = \"{name}\"\nimage = {{ size = 32 }}")));
    network.fthost(["run.toml", "--out", "run", "--set", "train.steps=2"]).succeeded();
    let image = network.path().join("run/model");

    // The mean and deviation of ImageNet, as the script has them.
    let pictures = "image = { size = 32, mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] }";
    let model = format!("streams = {{ text = \"text\", image = {image:?} }}\n{pictures}");
    let lora = LORA.replace("\"value\"", "\"value\", \"conv_pw\", \"conv_pwl\"");
    let (mut left, mut kept) = (Vec::new(), Vec::new());
    for strategy in [FULL, &lora] {
        let workdir = workdir_of(32);
        let (metrics, _) = train(&workdir, strategy, &run_file(&model, CONTRASTIVE, strategy));
        let path = |name: &str| workdir.path().join(name);
        let (kind, folder, head, before) = match strategy {
            FULL => ("pair", "run/model", "run/model/head.safetensors", ""),
            _ => ("adapters", "run/adapter", "run/adapter/adapter_model.safetensors", "base_model.model."),
        };
        left.push(json!({
            "of": format!("timm by {strategy}"), "kind": kind, "folder": path(folder), "base": { "text": path("text"), "image": image },
            "data": path("test.tsv"), "loss": metrics["loss"], "head": [path(head).display().to_string(), before], "timm": true,
        }));
        kept.push(workdir);
    }
    opened_elsewhere("towers_check.py", left);
}

/// What pools otherwise than its class, and what a folder says of pictures, goes with the stream that it is of.
#[test]
fn each_stream_keeps_the_files_of_its_inputs() {
    let workdir = workdir();
    let said = json!({
        "image_processor_type": "ViTImageProcessor", "do_resize": false, "do_rescale": true, "rescale_factor": 0.00390625, "do_normalize": true,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "size": { "height": 8, "width": 8 },
    });
    workdir.write("image/preprocessor_config.json", said.to_string());
    let mean = format!("{PAIR}\npooling = \"mean\"");
    let (metrics, _) = train(&workdir, "mean", &run_file(&mean, CONTRASTIVE, FULL));
    assert_eq!(eval(&workdir, "run/model", "test.tsv"), metrics);
    let read = |file: &str| std::fs::read_to_string(workdir.path().join("run/model").join(file)).unwrap();
    let preprocessor: Value = serde_json::from_str(&read("image/preprocessor_config.json")).unwrap();
    assert_eq!(preprocessor, said);
    assert!(read("text/1_Pooling/config.json").contains("\"pooling_mode_mean_tokens\": true"));
    assert!(!workdir.path().join("run/model/image/modules.json").exists());

    // A saved pair is a model as the folders were that it came from.
    let again = run_file("path = \"run/model\"", CONTRASTIVE, LORA);
    workdir.write("again.toml", again);
    workdir.fthost(["again.toml", "--out", "again"]).succeeded();
    let result = result_json(&workdir.path().join("again"));
    assert_eq!(eval(&workdir, "again", "test.tsv"), result["tasks"]["match"]["metrics"]);
    let config = std::fs::read_to_string(workdir.path().join("again/adapter/text/adapter_config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert!(Path::new(config["base_model_name_or_path"].as_str().unwrap()).ends_with("run/model/text"), "{config}");
}

#[test]
fn a_pair_in_other_forms_says_what_there_is_none_of() {
    let workdir = workdir();
    train(&workdir, "LoRA", &run_file(PAIR, CONTRASTIVE, LORA));
    let said = on_one_line(&workdir.fthost(["export", "run", "out", "--format", "peft"]).succeeded().stdout);
    assert!(said.contains("PEFT has no class for two models that are joined: out/text is the adapter of"), "{said}");
    for stream in ["text", "image"] {
        let written =
            |folder: &str, file: &str| std::fs::read(workdir.path().join(folder).join(stream).join(file)).unwrap();
        let weights = "adapter_model.safetensors";
        assert_eq!(written("out", weights), written("run/adapter", weights));
        let config: Value = serde_json::from_slice(&written("out", "adapter_config.json")).unwrap();
        assert_eq!(config["base_model_name_or_path"], json!(workdir.path().join(stream)));
        assert_eq!(config["peft_type"], "LORA");
    }
    let error = on_one_line(&workdir.fthost(["export", "run", "file", "--format", "gguf"]).failed(2));
    assert!(error.contains("a GGUF file holds a model that says the next token, and this pair"), "{error}");
    assert!(!workdir.path().join("file").exists());

    workdir.fthost(["export", "run", "merged", "--format", "hf"]).succeeded();
    std::fs::remove_file(workdir.path().join("merged/fthost.json")).unwrap();
    let error = on_one_line(&workdir.fthost(["eval", "merged", "test.tsv"]).failed(2));
    assert!(error.contains("merged holds two joined models and no head"), "{error}");
    assert!(error.contains("the folders in it open by themselves"), "{error}");

    train_frozen(&workdir);
    let error = on_one_line(&workdir.fthost(["export", "frozen", "none", "--format", "peft"]).failed(2));
    assert!(error.contains("PEFT knows no form of the method of frozen"), "{error}");
}

fn train_frozen(workdir: &Workdir) {
    workdir.write("frozen.toml", run_file(PAIR, CONTRASTIVE, FROZEN));
    workdir.fthost(["frozen.toml", "--out", "frozen"]).succeeded();
}

/// A folder as CLIP's authors publish it compares texts with pictures before any run.
#[test]
fn a_clip_folder_is_its_own_head() {
    let workdir = workdir();
    let untrained = run_file(CLIP, CONTRASTIVE, FULL).replace("[train]", "[train]\nevaluate_before = true");
    train(&workdir, "before", &untrained);
    let before = result_json(&workdir.path().join("run"))["tasks"]["match"]["before"].take();
    about("the folder itself", &eval(&workdir, "clip", "test.tsv"), &before);
}

/// Of texts that are compared nothing but the encoder, and a layer where the head has one, makes vectors.
#[test]
fn texts_that_are_compared_are_saved_as_sentence_transformers() {
    let heads = [
        (CONTRASTIVE, "as they are"),
        (r#"{ plugin = "contrastive", learn_temperature = true }"#, "with a learned temperature"),
        (r#"{ plugin = "contrastive", width = 6 }"#, "by a layer"),
        (r#"{ plugin = "contrastive", width = 6, bias = false }"#, "by a layer without bias"),
    ];
    let (mut left, mut kept) = (Vec::new(), Vec::new());
    for ((head, of), strategy) in heads.into_iter().flat_map(|head| [(head, FULL), (head, LORA)]) {
        let workdir = workdir();
        let (metrics, saved) = train(&workdir, of, &of_texts(head, strategy));
        let (format, folder) =
            if strategy == FULL { ("sentence_transformers", "run/model") } else { ("peft", "run/adapter") };
        assert_eq!(saved["format"], format, "{of}: {saved}");
        assert_eq!(eval(&workdir, "run", "pairs.tsv"), metrics, "{of}");
        let mut folders = vec![folder];
        if strategy != FULL {
            workdir.fthost(["merge", "run", "merged"]).succeeded();
            folders.push("merged");
        }
        for folder in folders {
            let (path, data) = (workdir.path().join(folder), workdir.path().join("pairs.tsv"));
            // A temperature that is learned is no part of what makes vectors: their order alone is compared then.
            let loss = if of.contains("learned") { &Value::Null } else { &metrics["loss"] };
            left.push(json!({
                "of": format!("{of} by {strategy}: {folder}"), "kind": "texts", "folder": path, "data": data, "loss": loss,
                "mean_rank": metrics["forward_mean_rank"],
            }));
        }
        kept.push(workdir);
    }
    opened_elsewhere("towers_check.py", left);

    // Of how alike two texts are the cosine is all.
    let similarity = r#"{ plugin = "similarity", scale = [0.0, 4.0] }"#;
    let (mut left, mut kept) = (Vec::new(), Vec::new());
    for strategy in [FULL, LORA] {
        let workdir = workdir();
        let (metrics, saved) =
            train(&workdir, strategy, &of_texts(similarity, strategy).replace("pairs.tsv", "scored.tsv"));
        let (format, folder) =
            if strategy == FULL { ("sentence_transformers", "run/model") } else { ("peft", "run/adapter") };
        assert_eq!(saved["format"], format, "{saved}");
        assert_eq!(eval(&workdir, "run", "scored.tsv"), metrics);
        let values: Vec<f64> = predict(&workdir, "run", "scored.tsv", &[])
            .iter()
            .map(|row| row["value"].as_f64().unwrap() / 4.0)
            .collect();
        left.push(json!({
            "of": format!("similarity by {strategy}"), "kind": "texts", "folder": workdir.path().join(folder),
            "data": workdir.path().join("scored.tsv"), "cosines": values, "loss": null,
        }));
        kept.push(workdir);
    }
    opened_elsewhere("towers_check.py", left);

    let workdir = workdir();
    let pooler = of_texts(CONTRASTIVE, FULL).replace("\npooling = \"mean\"", "");
    let (_, saved) = train(&workdir, "pooler", &pooler);
    assert_eq!(saved["own_heads"], "features of bert pooled by pooler are none of sentence-transformers'");
}

#[test]
fn a_killed_run_of_two_streams_ends_with_the_same_bits() {
    for (model, strategy) in [(PAIR, LORA), (CLIP, FULL)] {
        let workdir = || {
            let workdir = workdir();
            let run = run_file(model, CONTRASTIVE, strategy);
            workdir.write(
                "run.toml",
                run.replace("epochs = 4", "epochs = 150\ncheckpoint_steps = 7").replace("0.02", "0.001"),
            );
            workdir
        };
        ends_with_the_same_bits(&workdir(), &workdir(), &["--config", "run.toml", "--out", "run"], 3, strategy);
    }
}
