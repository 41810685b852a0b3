//! Models that pool as no class of Transformers does: what the folder says is done, and what is saved is a model of sentence-transformers
//! that gives the head's outputs.

use serde_json::{Value, json};

use fthost_tests::{Workdir, on_one_line, reference, result_json, skipped};

use crate::saved::{Base, FULL, Folder, LLAMA, SCALED, agree, predict, stale, task, train};
use crate::text::{LORA, python};

const CLASSES: &str = r#"{ plugin = "classification", init_std = 0.5 }"#;

/// Mean over the tokens, divided by its length, as sentence-transformers before 6 writes it.
fn mean_normalised(folder: &mut Folder) {
    let modules = ["Transformer", "Pooling", "Normalize"].into_iter().zip(["", "1_Pooling", "2_Normalize"]);
    let modules =
        modules.map(|(class, path)| json!({ "path": path, "type": format!("sentence_transformers.models.{class}") }));
    folder.beside.push(("modules.json", modules.collect()));
    let flags =
        json!({ "word_embedding_dimension": 16, "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true });
    folder.beside.push(("1_Pooling/config.json", flags));
    stale(folder);
}

/// The greatest of the tokens, as later versions write it.
fn greatest(folder: &mut Folder) {
    let modules = json!([
        { "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer" },
        { "path": "1_Pooling", "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling" },
    ]);
    folder.beside.push(("modules.json", modules));
    folder.beside.push(("1_Pooling/config.json", json!({ "embedding_dimension": 16, "pooling_mode": "max" })));
}

static MEAN: Base = Base { name: "mean", architecture: "bert", change: mean_normalised };
static MAX: Base = Base { name: "max", architecture: "roberta", change: greatest };
// Its class of Transformers has no bias, and a standardised value needs one.
static DECODER: Base = Base { name: "decoder", architecture: LLAMA, change: stale };
static PLAIN: Base = Base { name: "plain", architecture: "bert", change: stale };

/// What `fthost embed` writes of a file, row by row.
fn embed(workdir: &Workdir, folder: &str, data: &str, out: &str) -> Vec<Value> {
    workdir.fthost(["embed", folder, data, "--out", out]).succeeded();
    let text = std::fs::read_to_string(workdir.path().join(out)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Of this model the mean is read, and not what its pooler makes of the first token.
#[test]
fn what_no_head_reads_does_not_thaw() {
    let judge = task("judge", CLASSES, "classes.tsv", "");
    for options in ["top = 1", "top = \"all\"\ndecay = 0.5", "top = 0\nunfreeze = { every = { steps = 1 } }"] {
        let strategy = format!("plugin = \"freezing\"\n{options}");
        train(&Workdir::new(), options, &MEAN, &judge, &strategy);
    }
}

#[test]
fn what_is_saved_gives_the_heads_outputs() {
    let (classes, values) = (task("judge", CLASSES, "classes.tsv", ""), task("judge", SCALED, "values.tsv", ""));
    let cases = [
        (&MEAN, &classes, FULL, "classes.tsv", "mean, normalised, as modules.json"),
        (&MEAN, &classes, LORA, "classes.tsv", "mean, normalised, as modules.json"),
        (&MEAN, &values, LORA, "values.tsv", "mean, normalised, as modules.json"),
        (&MAX, &values, FULL, "values.tsv", "max, as modules.json"),
        (&MAX, &classes, LORA, "classes.tsv", "max, as modules.json"),
        (&DECODER, &values, FULL, "values.tsv", "last"),
    ];
    let (mut left, mut kept) = (Vec::new(), Vec::new());
    for (base, tasks, strategy, data, says) in cases {
        let (workdir, of) = (Workdir::new(), format!("{} by {strategy}: {tasks}", base.name));
        let said = on_one_line(&train(&workdir, &of, base, tasks, strategy));
        assert!(said.contains(says), "{of}: {said}");
        let result = result_json(&workdir.path().join("run"));
        let whole = strategy == FULL;
        let (format, saved) = if whole { ("sentence_transformers", "run/model") } else { ("peft", "run/adapter") };
        assert_eq!(result["saved"]["format"], format, "{of}");
        let run = predict(&workdir, "run", data, &[]);
        agree(&format!("{of}: {saved}"), &run, &predict(&workdir, saved, data, &[]));
        let mut folders = vec![saved];
        if !whole {
            workdir.fthost(["merge", "run", "merged"]).succeeded();
            agree(&format!("{of}: merged"), &run, &predict(&workdir, "merged", data, &[]));
            folders.push("merged");
        }
        let vectors = embed(&workdir, "run", data, "vectors.jsonl");
        for folder in folders {
            assert_eq!(
                embed(&workdir, folder, data, &format!("{}.jsonl", folder.replace('/', "-"))).len(),
                vectors.len()
            );
            left.push(json!({
                "of": format!("{of}: {folder}"), "folder": workdir.path().join(folder), "data": workdir.path().join(data),
                "predictions": run, "labels": result["tasks"]["judge"]["labels"], "vectors": vectors,
            }));
        }
        kept.push(workdir);
    }

    let Some(python) = python() else {
        return skipped("FTHOST_PYTHON names no Python: folders are opened by fthost alone");
    };
    let list = Workdir::new();
    let wrong = reference(&python, "sentences_check.py", [list.write("cases.json", Value::Array(left).to_string())]);
    if wrong == json!("no sentence-transformers") {
        return skipped("there is no sentence-transformers: folders are opened by fthost alone");
    }
    assert_eq!(wrong, json!([]), "folders that are opened elsewhere");
}

/// What the run file says goes before what the folder says, and stays so for who opens the run again.
#[test]
fn the_run_file_says_how_examples_are_pooled() {
    let tasks = task("judge", CLASSES, "classes.tsv", "");
    for (pooling, says, format) in [
        ("pooling = \"last\"", "last, as model.pooling says", "sentence_transformers"),
        ("pooling = \"cls\"\nnormalize = true", "cls, normalised, as model.pooling says", "sentence_transformers"),
        ("normalize = false", "mean, as modules.json", "sentence_transformers"),
        ("pooling = \"pooler\"", "pooler, as model.pooling says", "huggingface"),
    ] {
        let workdir = Workdir::new();
        let said = train(&workdir, pooling, &MEAN, &format!("{pooling}\n\n{tasks}"), FULL);
        assert!(on_one_line(&said).contains(says), "{said}");
        assert_eq!(result_json(&workdir.path().join("run"))["saved"]["format"], format, "{pooling}");
        let run = predict(&workdir, "run", "classes.tsv", &[]);
        agree(pooling, &run, &predict(&workdir, "run/model", "classes.tsv", &[]));
    }
    let workdir = Workdir::new();
    let said = on_one_line(&train(&workdir, "plain", &PLAIN, &tasks, LORA));
    assert!(said.contains("pooler, as Transformers' class for classification does"), "{said}");
}

/// A head of words reads tokens: pooling has no say, and Transformers' class opens what is saved.
#[test]
fn words_and_prompts_are_saved_as_before() {
    let words = task("judge", r#"{ plugin = "token-classification" }"#, "words.jsonl", "");
    let workdir = Workdir::new();
    train(&workdir, "words", &MEAN, &words, LORA);
    assert_eq!(result_json(&workdir.path().join("run"))["saved"]["format"], "peft");
    let run = predict(&workdir, "run", "words.jsonl", &[]);
    agree("words", &run, &predict(&workdir, "run/adapter", "words.jsonl", &[]));

    let classes = task("judge", CLASSES, "classes.tsv", "");
    let workdir = Workdir::new();
    let said = on_one_line(&train(&workdir, "prompt", &MEAN, &classes, "plugin = \"prompt\"\ntokens = 3"));
    assert!(said.contains("prompts and prefixes are no part of what sentence-transformers pools"), "{said}");
    let result = result_json(&workdir.path().join("run"));
    assert_eq!(result["saved"]["format"], "fthost");
    let found = workdir.fthost(["eval", "run", "classes.tsv", "--json"]).succeeded().stdout;
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["tasks"]["judge"]["metrics"], result["tasks"]["judge"]["metrics"]);
}

/// Each form of vectors holds the same, and what cannot be written is said before anything is read.
#[test]
fn vectors_are_written_in_three_forms() {
    let workdir = Workdir::new();
    train(&workdir, "forms", &MEAN, &task("judge", CLASSES, "classes.tsv", ""), LORA);
    let rows = embed(&workdir, "model", "classes.tsv", "a.jsonl");
    assert_eq!((rows.len(), rows[0]["line"].clone(), rows[0]["vector"].as_array().unwrap().len()), (22, json!(2), 16));
    let length: f64 = rows[0]["vector"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap().powi(2)).sum();
    assert!((length - 1.0).abs() < 1e-5, "{length}");

    let said = workdir.fthost(["embed", "model", "classes.tsv", "--out", "a.npy"]).succeeded().stdout;
    assert!(said.contains("22 rows of 16 numbers (mean, normalised) in a.npy"), "{said}");
    let bytes = std::fs::read(workdir.path().join("a.npy")).unwrap();
    assert_eq!(bytes.len(), 128 + 4 * 22 * 16);
    let header = String::from_utf8_lossy(&bytes[10..128]).into_owned();
    assert!(header.contains("'descr': '<f4', 'fortran_order': False, 'shape': (22, 16)"), "{header}");
    let values = bytes[128..].chunks_exact(4).map(|raw| f64::from(f32::from_le_bytes(raw.try_into().unwrap())));
    let expected = rows.iter().flat_map(|row| row["vector"].as_array().unwrap()).map(|x| x.as_f64().unwrap());
    assert!(values.zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-7));

    let error = workdir.fthost(["embed", "model", "classes.tsv", "--out", "a.npy"]).failed(2);
    assert!(error.contains("a.npy exists already"), "{error}");
    let error = workdir.fthost(["embed", "model", "nowhere.tsv", "--out", "a.txt"]).failed(2);
    assert!(error.contains("vectors are not written as .txt"), "{error}");
    workdir.fthost(["embed", "model", "classes.tsv", "--out", "a.parquet"]).succeeded();
    if let Some(python) = python() {
        let found = reference(&python, "vectors_check.py", [workdir.path().join("a.parquet")]);
        if found != json!("no pyarrow") {
            let expected: Vec<&Value> = rows.iter().map(|row| &row["line"]).collect();
            assert_eq!((found["lines"].clone(), found["width"].clone()), (json!(expected), json!(16)));
        }
    }
}
