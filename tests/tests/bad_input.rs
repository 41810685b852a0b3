//! What a user can hand in that is wrong, and the exact error that each mistake gives.
//!
//! [`CASES`] is the table; the errors stand in `snapshots/`. Each error says what happened, where, and what to do. A case that ends
//! with exit code 2 has changed nothing on the disk, and no case ever changes or removes a file that was there.

use std::collections::BTreeMap;
use std::fs;

use fthost_tests::{Workdir, on_one_line, result_json, skipped};

use crate::text::{LORA, RUN, text_workdir};

/// A mistake in the folder of the tiny text run.
struct Case {
    name: &'static str,
    /// Makes the mistake.
    change: fn(&Workdir),
    /// What the host is called with.
    arguments: &'static [&'static str],
    /// How it must end.
    code: i32,
}

const fn case(name: &'static str, change: fn(&Workdir)) -> Case {
    called(name, change, &["run.toml"])
}

/// A case with other arguments than the run file.
const fn called(name: &'static str, change: fn(&Workdir), arguments: &'static [&'static str]) -> Case {
    Case { name, change, arguments, code: 2 }
}

const CASES: &[Case] = &[
    // The command line.
    called("nothing to run", untouched, &[]),
    called("a run file that is not there", untouched, &["nowhere.toml"]),
    called("a folder for a run file", untouched, &["model"]),
    called("--set of an unknown key", untouched, &["run.toml", "--set", "train.learning_rate=1"]),
    called("--set without a value", untouched, &["run.toml", "--set", "train.lr"]),
    called("a word for a device", untouched, &["run.toml", "--device", "gpu"]),
    // The run file.
    case("no TOML", |w| edit(w, "lr = 0.01", "lr = = 0.01")),
    case("a run file that is not UTF-8", |w| drop(w.write("run.toml", b"[model]\npath = \"mod\xe9le\"\n"))),
    case("an unknown key", |w| edit(w, "batch_size = 8", "batchsize = 8")),
    case("a string for a number", |w| edit(w, "lr = 0.01", "lr = \"fast\"")),
    case("a learning rate of zero", |w| edit(w, "lr = 0.01", "lr = 0")),
    case("a negative learning rate", |w| edit(w, "lr = 0.01", "lr = -0.01")),
    case("a learning rate that is no number", |w| edit(w, "lr = 0.01", "lr = nan")),
    case("a batch size of zero", |w| edit(w, "batch_size = 8", "batch_size = 0")),
    case("a negative batch size", |w| edit(w, "batch_size = 8", "batch_size = -8")),
    case("no epoch", |w| edit(w, "epochs = 2", "epochs = 0")),
    case("no training data", |w| edit(w, "train = \"train.tsv\"\n", "")),
    case("an unknown option of a plugin", |w| edit(w, "rank = 4", "rnak = 4")),
    case("a string for a plugin's number", |w| edit(w, "rank = 4", "rank = \"four\"")),
    case("a plugin's option out of range", |w| edit(w, "rank = 4", "rank = 4\ndropout = 1.5")),
    case("a pattern that matches nothing", |w| edit(w, "[\"query\", \"value\"]", "[\"query\", \"valeu\"]")),
    case("patience without validation", |w| edit(w, "lr = 0.01", "lr = 0.01\npatience = 2")),
    case("max_tokens below the special tokens", |w| edit(w, "test = ", "max_tokens = 2\ntest = ")),
    case("images for a model of text", |w| edit(w, "\"train.tsv\"", "\"demo\"")),
    case("pixels of texts", |w| edit(w, "test = ", "permute_pixels = 1\ntest = ")),
    case("turned texts", |w| edit(w, "test = ", "rotate_classes = true\ntest = ")),
    case("a class that no example has", |w| edit(w, "test = ", "only = [\"1\", \"mediocre\"]\ntest = ")),
    case("classes that no example has", |w| edit(w, "test = ", "only = [\"mediocre\"]\ntest = ")),
    case("no class at all", |w| edit(w, "test = ", "only = []\ntest = ")),
    case("the head of a task that is not above", |w| {
        edit(w, "{ plugin = \"classification\" }", "{ task = \"other\" }")
    }),
    case("options beside another task's head", |w| {
        edit(w, "{ plugin = \"classification\" }", "{ task = \"other\", label_smoothing = 0.1 }");
    }),
    // The model folder.
    case("a model folder that is not there", |w| edit(w, "\"model\"", "\"modle\"")),
    case("a folder without config.json", |w| remove(w, "model/config.json")),
    case("a folder without weights", |w| remove(w, "model/model.safetensors")),
    case("weights in TensorFlow's form", |w| rename(w, "model/model.safetensors", "model/tf_model.h5")),
    case("a folder without tokenizer.json", |w| remove(w, "model/tokenizer.json")),
    case("a vocabulary alone", |w| rename(w, "model/tokenizer.json", "model/vocab.txt")),
    case("a config.json that is broken", |w| cut(w, "model/config.json", 100)),
    case("a config.json without a size", |w| replace(w, "model/config.json", "\"hidden_size\"", "\"hidden\"")),
    case("an unsupported model_type", |w| replace(w, "model/config.json", "\"bert\"", "\"mamba\"")),
    case("an unsupported activation", |w| replace(w, "model/config.json", "\"gelu\"", "\"swish2\"")),
    case("heads that do not divide the width", |w| replace(w, "model/config.json", "heads\": 4", "heads\": 3")),
    case("an absurd size", |w| replace(w, "model/config.json", "\"vocab_size\": 50", "\"vocab_size\": 50000000")),
    case("weights that are cut off", |w| cut(w, "model/model.safetensors", 20_000)),
    case("an empty weights file", |w| drop(w.write("model/model.safetensors", ""))),
    case("a header that is larger than the file", |w| {
        let mut bytes = read(w, "model/model.safetensors");
        bytes[..8].copy_from_slice(&1_000_000u64.to_le_bytes());
        w.write("model/model.safetensors", bytes);
    }),
    case("a header that is no JSON", |w| {
        let mut bytes = read(w, "model/model.safetensors");
        bytes[8..12].copy_from_slice(b"!!!!");
        w.write("model/model.safetensors", bytes);
    }),
    case("a folder for a weights file", |w| {
        remove(w, "model/model.safetensors");
        fs::create_dir(w.path().join("model/model.safetensors")).unwrap();
    }),
    case("a missing tensor", |w| {
        replace(w, "model/model.safetensors", "layer.1.output.dense.b", "layer.1.output.dense.c")
    }),
    case("a tensor of another shape", |w| {
        replace(w, "model/config.json", "\"intermediate_size\": 32", "\"intermediate_size\": 64");
    }),
    case("a tensor of integers", |w| replace(w, "model/model.safetensors", "\"dtype\":\"F32\"", "\"dtype\":\"I32\"")),
    case("a tokenizer.json that is broken", |w| cut(w, "model/tokenizer.json", 1000)),
    case("a tokenizer.json that is cut off", |w| {
        let end = find(&read(w, "model/tokenizer.json"), "\"cleanup\"").unwrap(); // in its decoder
        cut(w, "model/tokenizer.json", end);
    }),
    case("a tokenizer.json with a value of another type", |w| {
        replace(w, "model/tokenizer.json", "\"prefix\": \"##\"", "\"prefix\": 7")
    }),
    case("the tokenizer of another model", |w| replace(w, "model/tokenizer.json", "\"film\": 7", "\"film\": 70")),
    // Data.
    case("a data file that is not there", |w| remove(w, "train.tsv")),
    case("a folder for a data file", |w| edit(w, "\"train.tsv\"", "\"model\"")),
    case("a data file of no known form", |w| edit(w, "\"train.tsv\"", "\"model/tokenizer.json\"")),
    case("an empty file", |w| drop(w.write("train.tsv", ""))),
    case("a header alone", |w| drop(w.write("train.tsv", "text\tlabel\n"))),
    case("a missing column", |w| drop(w.write("train.tsv", "text\tgold\na good film\t1\n"))),
    case("a row without a column", |w| drop(w.write("train.tsv", "a good film\t1\na bad film\t0\na dull film\n"))),
    case("a row without a label", |w| drop(w.write("train.tsv", "a good film\t1\na bad film\t \n"))),
    case("text that is not UTF-8", |w| drop(w.write("train.tsv", b"a good film\t1\na na\xefve film\t0\n"))),
    case("a label that training never saw", |w| drop(w.write("test.tsv", "a good film\t1\na warm film\t2\n"))),
    case("a class with one example to split", |w| {
        edit(w, "test = ", "validation = 0.25\ntest = ");
        let rows = String::from_utf8(read(w, "train.tsv")).unwrap();
        w.write("train.tsv", format!("{rows}a warm movie\t2\n"));
    }),
    case("a row with a cell too many", |w| csv(w, "text,label\na good film,1\na bad film, but short,0\n")),
    case("a row with a cell too many in TSV", |w| drop(w.write("train.tsv", "a good film\t1\na bad\tfilm\t0\n"))),
    case("a row with a cell too few", |w| csv(w, "id,text,label\n1,a good film,1\n2,a bad film\n")),
    case("a first row with a cell too many", |w| csv(w, "a good film, but long,1\na bad film,0\n")),
    case("semicolons in a CSV file that make no even rows", |w| {
        csv(w, "text;label\na good film; warm;1\na bad film;0\n")
    }),
    case("a first row of names", |w| csv(w, "sentence,sentiment\na good film,1\na bad film,0\n")),
    case("a first row whose label is no other's", |w| csv(w, "frase,gusto\na good film,pos\na bad film,neg\n")),
    case("a first row of names in the test file", |w| {
        let rows = String::from_utf8(read(w, "test.tsv")).unwrap();
        w.write("test.tsv", format!("frase\tgusto\n{rows}"));
    }),
    case("a header that is an example", |w| edit(w, "test = ", "header = true\ntest = ")),
    case("a header and none named", |w| {
        edit(w, "test = ", "header = false\ncolumns = { text = \"sentence\" }\ntest = ")
    }),
    case("a header where none can be", |w| {
        edit(w, "test = \"test.tsv\"", "header = true");
        jsonl(w, "{\"text\": \"good\", \"label\": 1}\n{\"text\": \"bad\", \"label\": 0}\n");
    }),
    case("two columns of one name", |w| csv(w, "text,text,label\na,good film,1\na,bad film,0\n")),
    case("a CSV quote that is not closed", |w| csv(w, "a good film,1\n\"a bad film,0\na dull film,0\n")),
    case("a CSV cell that goes on after its quote", |w| csv(w, "a good film,1\n\"a\" bad film,0\n")),
    case("a JSONL line that is broken", |w| jsonl(w, "{\"text\": \"good\", \"label\": 1}\n{\"text\": \"bad\", \"la\n")),
    case("a JSONL line without the key", |w| jsonl(w, "{\"text\": \"good\", \"label\": 1}\n{\"text\": \"bad\"}\n")),
    case("a JSONL text that is a number", |w| {
        jsonl(w, "{\"text\": \"good\", \"label\": 1}\n{\"text\": 7, \"label\": 1}\n")
    }),
    case("a JSON array that ends early", |w| json(w, "[{\"text\": \"good\", \"label\": 1},\n{\"text\": \"bad\"")),
    case("a JSON file of two arrays", |w| {
        let row = "[{\"text\": \"good\", \"label\": 1}]";
        json(w, &format!("{{\"train\": {row},\n\"test\": {row}}}"));
    }),
    case("a file in gzip that is cut off", |w| {
        edit(w, "\"train.tsv\"", "\"train.tsv.gz\"");
        w.write("train.tsv.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x4b\x54");
    }),
    case("texts without labels", |w| {
        edit(w, "\"train.tsv\"", "\"train.txt\"");
        w.write("train.txt", "a good film\na bad film\n");
    }),
    case("texts beside fewer labels", |w| {
        edit(w, "\"train.tsv\"", "{ text = \"a.txt\", label = \"b.txt\" }");
        w.write("a.txt", "a good film\na bad film\n");
        w.write("b.txt", "1\n");
    }),
    case("one file by class", |w| edit(w, "\"train.tsv\"", "{ good = \"a.txt\" }")),
    case("a folder of several data sets", |w| {
        edit(w, "\"train.tsv\"", "\"saved\"");
        w.write("saved/dataset_dict.json", "{\"splits\": [\"train\", \"test\"]}");
    }),
    case("a word with a column too many", |w| {
        edit(w, "\"train.tsv\"", "\"train.conll\"");
        w.write("train.conll", "Ann B-PER\nLee I-PER O\n");
    }),
    case("words for a head of texts", |w| {
        edit(w, "\"train.tsv\"", "\"train.conll\"");
        w.write("train.conll", "Ann B-PER\nLee I-PER\n");
    }),
    case("a list of labels beside one label", |w| {
        jsonl(w, "{\"text\": \"good\", \"label\": [\"a\", \"b\"]}\n{\"text\": \"bad\", \"label\": \"b\"}\n")
    }),
    case("a list of labels for a head of one", |w| {
        jsonl(w, "{\"text\": \"good\", \"label\": [\"a\", \"b\"]}\n{\"text\": \"bad\", \"label\": []}\n")
    }),
    case("an empty label in a cell of several", |w| {
        edit(w, "test = ", "label_separator = \",\"\ntest = ");
        w.write("train.tsv", "a good film\ta,b\na bad film\ta,,b\n");
    }),
    case("several labels in a cell and nothing between them", |w| {
        edit(w, "\"classification\"", "\"multi-label\"");
        w.write("train.tsv", "a good film\ta\na bad film\ta;b\na film\ta\n");
    }),
    case("a label of several that training never saw", |w| {
        edit(w, "\"classification\"", "\"multi-label\"");
        edit(w, "test = ", "label_separator = \",\"\ntest = ");
        w.write("train.tsv", "a good film\ta,b\na bad film\ta\n");
        w.write("test.tsv", "a good film\ta\na dull film\ta,c\n");
    }),
    case("balance for values", |w| {
        edit(w, "\"classification\"", "\"regression\"");
        edit(w, "test = ", "balance = \"undersample\"\ntest = ");
    }),
    case("text in UTF-16", |w| drop(w.write("train.tsv", b"\xff\xfea\0\t\x001\0"))),
    case("a separator of two characters", |w| edit(w, "test = ", "separator = \"||\"\ntest = ")),
    case("a separator that the file has not", |w| edit(w, "test = ", "separator = \";\"\ntest = ")),
    case("an unknown format", |w| edit(w, "test = ", "format = \"xlsx\"\ntest = ")),
    case("another format than the file's", |w| edit(w, "test = ", "format = \"parquet\"\ntest = ")),
    case("a part that no row is of", |w| {
        edit(w, "test = \"test.tsv\"", "split = { column = \"part\", train = \"training\" }");
        w.write("train.tsv", "text\tlabel\tpart\na good film\t1\ttrain\na bad film\t0\tdev\n");
    }),
    case("test examples twice", |w| {
        edit(
            w,
            "test = \"test.tsv\"",
            "test = \"test.tsv\"\nsplit = { column = \"part\", train = \"train\", test = \"test\" }",
        )
    }),
    case("shares that leave nothing", |w| edit(w, "test = \"test.tsv\"", "test = 0.6\nvalidation = 0.4")),
    case("a weight below 0", |w| {
        edit(w, "test = \"test.tsv\"", "columns = { weight = \"w\" }");
        w.write("train.tsv", "text\tlabel\tw\na good film\t1\t1\na bad film\t0\t-1\n");
    }),
    case("weights that are all 0", |w| {
        edit(w, "test = \"test.tsv\"", "columns = { weight = \"w\" }");
        w.write("train.tsv", "text\tlabel\tw\na good film\t1\t0\na bad film\t0\t0\n");
    }),
    case("one group alone to share out", |w| {
        edit(w, "test = \"test.tsv\"", "validation = 0.5\ncolumns = { group = \"author\" }");
        w.write("train.tsv", "text\tlabel\tauthor\na good film\t1\tAnn\na bad film\t0\tAnn\n");
    }),
    case("a fold beyond the last", |w| edit(w, "test = \"test.tsv\"", "test = { fold = 6, of = 5 }")),
    case("more folds than examples of a class", |w| {
        edit(w, "test = \"test.tsv\"", "test = { fold = 1, of = 3 }");
        w.write("train.tsv", "a good film\t1\na bad film\t0\na dull film\t0\na warm film\t1\nso boring\t0\n");
    }),
    case("more folds than groups", |w| {
        edit(w, "test = \"test.tsv\"", "test = { fold = 1, of = 3 }\ncolumns = { group = \"author\" }");
        let row = |i: usize| format!("film {i}\t{}\t{}\n", i % 2, ["Ann", "Bob"][i / 3 % 2]);
        w.write("train.tsv", format!("text\tlabel\tauthor\n{}", (0..12).map(row).collect::<String>()));
    }),
    called("folds of nothing", untouched, &["compare", "--folds", "5"]),
    called("one fold", untouched, &["compare", "run.toml", "--folds", "1"]),
    called("a comparison of one", untouched, &["compare", "run.toml"]),
    called(
        "folds of what leaves examples alone",
        |w| edit(w, "test = ", "set_aside = 0.2\ntest = "),
        &["compare", "run.toml", "--folds", "5"],
    ),
    case("a Parquet file that is none", |w| {
        edit(w, "\"train.tsv\"", "\"train.parquet\"");
        rename(w, "train.tsv", "train.parquet");
    }),
    case("a value that is no number", |w| {
        edit(w, "\"classification\"", "\"regression\"");
        w.write("train.tsv", "a good film\t1.5\na bad film\tNaN\n");
    }),
    case("a value that is a word", |w| {
        edit(w, "\"classification\"", "\"regression\"");
        w.write("test.tsv", "a good film\t1.5\na bad film\tlow\n");
    }),
    case("one class alone", |w| drop(w.write("train.tsv", "a good film\t1\na warm film\t1\n"))),
    // Folders of runs.
    called("an output folder that exists", |w| drop(w.write("kept/file", "")), &["run.toml", "--out", "kept"]),
    called("an output folder below a file", untouched, &["run.toml", "--out", "train.tsv/run"]),
    called("resuming what is no run", untouched, &["--resume", "--out", "model"]),
    called(
        "resuming a run without a checkpoint",
        |w| {
            trained(w);
            fs::remove_dir_all(w.path().join("run/checkpoints")).unwrap();
        },
        RESUME,
    ),
    called(
        "resuming with another run file",
        trained,
        &["run.toml", "--resume", "--out", "run", "--set", "strategy.rank=2"],
    ),
    called(
        "resuming from another run's checkpoint",
        |w| {
            trained(w);
            w.fthost(["run.toml", "--out", "other", "--set", "strategy.rank=2"]).succeeded();
            remove(w, LAST);
            rename(w, &LAST.replace("run", "other"), LAST);
        },
        RESUME,
    ),
    called(
        "resuming from checkpoints that are cut off",
        |w| {
            trained(w);
            for entry in fs::read_dir(w.path().join("run/checkpoints")).unwrap() {
                cut(w, &format!("run/checkpoints/{}", entry.unwrap().file_name().display()), 1000);
            }
        },
        RESUME,
    ),
    called("evaluating what is no run", |w| drop(w.write("notes/today.txt", "")), &["eval", "notes", "test.tsv"]),
    called(
        "evaluating a model without a head",
        |w| replace(w, "model/config.json", "BertForSequenceClassification", "BertModel"),
        &["eval", "model", "test.tsv"],
    ),
    called(
        "evaluating a run that has not ended",
        |w| {
            trained(w);
            remove(w, "run/result.json");
        },
        EVAL,
    ),
    called(
        "evaluating with a saved state that is cut off",
        |w| {
            trained(w);
            cut(w, "run/state.safetensors", 500);
        },
        EVAL,
    ),
    called(
        "evaluating a label that training never saw",
        |w| {
            trained(w);
            w.write("test.tsv", "a good film\t1\na warm film\tfine\n");
        },
        EVAL,
    ),
    called(
        "evaluating a file whose first row may be a header",
        |w| {
            trained(w);
            w.write("test.tsv", "sentence\tsentiment\na good film\t1\na warm film\t1\n");
        },
        EVAL,
    ),
    called(
        "predicting for a file whose first row may be a header",
        |w| {
            trained(w);
            w.write("test.tsv", "Review\na good film\na warm film\n");
        },
        &["predict", "run", "test.tsv"],
    ),
    called(
        "predicting for a labelled file whose first row may be a header",
        |w| {
            trained(w);
            w.write("test.tsv", "frase\tgusto\na good film\t1\na warm film\t1\n");
        },
        &["predict", "run", "test.tsv"],
    ),
    called(
        "predicting for a row with a cell too many",
        |w| {
            trained(w);
            w.write("test.csv", "a good film\na bad film, but short\n");
        },
        &["predict", "run", "test.csv"],
    ),
    called("--header for a file that has none", trained, &["predict", "run", "rows.jsonl", "--header", "true"]),
    called(
        "--format against the extension of --out",
        trained,
        &["predict", "run", "test.tsv", "--format", "csv", "--out", "found.jsonl"],
    ),
    called("--out with an extension of no format", trained, &["predict", "run", "test.tsv", "--out", "found.xlsx"]),
    called("evaluating a file that is not there", trained, &["eval", "run", "tests.tsv"]),
    called("merging into a folder that exists", trained, &["merge", "run", "model"]),
    called(
        "merging a prompt",
        |w| {
            edit(w, LORA, "plugin = \"prompt\"\ntokens = 4");
            trained(w);
        },
        &["merge", "run", "merged"],
    ),
    // The run itself.
    Case {
        name: "a loss that is not finite",
        change: |w| edit(w, LORA, "plugin = \"full\""),
        arguments: &[
            "run.toml",
            "--out",
            "run",
            "--set",
            "train.lr=1e38",
            "--set",
            "train.optimizer=sgd",
            "--set",
            "train.checkpoint_steps=1",
        ],
        code: 1,
    },
];

const RESUME: &[&str] = &["--resume", "--out", "run"];
const EVAL: &[&str] = &["eval", "run", "test.tsv"];
/// The last checkpoint of the tiny run.
const LAST: &str = "run/checkpoints/step-0000000008.safetensors";

fn untouched(_: &Workdir) {}

fn edit(workdir: &Workdir, from: &str, to: &str) {
    replace(workdir, "run.toml", from, to);
}

fn csv(workdir: &Workdir, content: &str) {
    edit(workdir, "\"train.tsv\"", "\"train.csv\"");
    workdir.write("train.csv", content);
}

fn json(workdir: &Workdir, content: &str) {
    edit(workdir, "\"train.tsv\"", "\"train.json\"");
    workdir.write("train.json", content);
}

fn jsonl(workdir: &Workdir, content: &str) {
    edit(workdir, "\"train.tsv\"", "\"train.jsonl\"");
    workdir.write("train.jsonl", content);
}

fn trained(workdir: &Workdir) {
    workdir.fthost(["run.toml", "--out", "run"]).succeeded();
}

fn read(workdir: &Workdir, name: &str) -> Vec<u8> {
    fs::read(workdir.path().join(name)).unwrap()
}

/// Replaces the first occurrence of a text in a file, which need not be all text.
#[track_caller]
fn replace(workdir: &Workdir, name: &str, from: &str, to: &str) {
    let bytes = read(workdir, name);
    let at = find(&bytes, from).unwrap_or_else(|| panic!("{from:?} is not in {name}"));
    workdir.write(name, [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat());
}

fn find(bytes: &[u8], text: &str) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text.as_bytes())
}

fn remove(workdir: &Workdir, name: &str) {
    fs::remove_file(workdir.path().join(name)).unwrap();
}

fn rename(workdir: &Workdir, from: &str, to: &str) {
    fs::rename(workdir.path().join(from), workdir.path().join(to)).unwrap();
}

/// Keeps the beginning of a file.
fn cut(workdir: &Workdir, name: &str, bytes: usize) {
    workdir.write(name, &read(workdir, name)[..bytes]);
}

/// Every file with what is in it.
fn contents(workdir: &Workdir) -> BTreeMap<String, Vec<u8>> {
    let files = workdir.listing().into_iter().filter(|name| workdir.path().join(name).is_file());
    files.map(|name| (name.clone(), read(workdir, &name))).collect()
}

/// The error of a case, as it is printed; on one line where it has paths, whose lengths decide where lines break.
fn error(case: &Case) -> String {
    let workdir = text_workdir();
    (case.change)(&workdir);
    let (folders, files) = (workdir.listing(), contents(&workdir));
    let outcome = workdir.fthost(case.arguments);
    assert_eq!(
        (outcome.code, outcome.stderr.contains("panicked")),
        (Some(case.code), false),
        "{}: {}",
        case.name,
        outcome.stderr
    );
    if case.code == 2 {
        assert_eq!(workdir.listing(), folders, "{} has left something", case.name);
    }
    let after = contents(&workdir);
    let changed = files.iter().find(|(name, content)| after.get(*name) != Some(content));
    assert!(changed.is_none(), "{} has changed {}", case.name, changed.unwrap().0);
    let text = outcome.stderr.trim_end().to_owned();
    let words = on_one_line(&text);
    if let Some(checkpoint) = words.split_whitespace().find(|word| word.starts_with("run/checkpoints/")) {
        assert!(workdir.path().join(checkpoint).is_file(), "{} names a checkpoint that is not there", case.name);
    }
    if ["[work]", "[built]"].iter().any(|path| text.contains(path)) { words } else { text }
}

#[test]
fn every_mistake_has_its_error() {
    let texts = CASES.iter().map(|case| format!("## {} (exit code {})\n{}\n", case.name, case.code, error(case)));
    insta::assert_snapshot!("errors", texts.collect::<Vec<_>>().join("\n"));
}

/// What it answers depends on the host's build and on the driver.
#[test]
fn a_device_that_is_not_there() {
    let error = on_one_line(&text_workdir().fthost(["run.toml", "--device", "cuda:99"]).failed(2));
    assert!(error.contains("usage x device cuda:99 cannot be used: "), "{error}");
    let help = if cfg!(feature = "cuda") { "check the driver" } else { "this fthost was built without CUDA" };
    assert!(error.contains(&format!("help: {help}")) && error.ends_with("or use --device cpu"), "{error}");
}

/// It lists the plugins that there are.
#[test]
fn an_unknown_plugin() {
    let workdir = text_workdir();
    edit(&workdir, "plugin = \"lora\"", "plugin = \"lorra\"");
    let error = on_one_line(&workdir.fthost(["run.toml"]).failed(2));
    for part in [
        "run_file x there is no strategy \"lorra\"",
        "run.toml:11:10",
        "did you mean \"lora\"? known: ",
        "looked in [work] (working directory): no plugins [built] (FTHOST_PLUGIN_PATH): ",
    ] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
}

#[test]
fn with_json_an_error_is_one_object_with_its_place() {
    let workdir = text_workdir();
    workdir.write("run.toml", RUN.replace("batch_size = 8", "batchsize = 8"));
    let outcome = workdir.fthost(["--config", "run.toml", "--json"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(2), ""));
    let error = &serde_json::from_str::<serde_json::Value>(&outcome.stdout).unwrap()["error"];
    assert_eq!((error["line"].as_u64(), error["column"].as_u64()), (Some(17), Some(1)), "{error}");
    assert!(error["file"].as_str().is_some_and(|file| file.ends_with("run.toml")), "{error}");
}

/// The folder that a run is to be in cannot be written to.
#[test]
fn an_output_folder_that_cannot_be_written() {
    let workdir = text_workdir();
    let home = workdir.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
    if fs::write(home.join("probe"), "").is_ok() {
        return skipped("the superuser writes to a folder that is read-only");
    }
    let error = workdir.fthost(["run.toml", "--out", "home/run"]).failed(2);
    insta::assert_snapshot!(on_one_line(&error), @"usage x cannot make the run folder home/run: Permission denied (os error 13) help: name a folder that you can write by --out");
}

#[test]
fn a_text_of_100_000_words_is_cut_counted_and_said() {
    let workdir = text_workdir();
    let rows = String::from_utf8(read(&workdir, "train.tsv")).unwrap();
    workdir.write("train.tsv", format!("{rows}{}\t1\n", "the film was good ".repeat(25_000)));
    let outcome = workdir.fthost(["run.toml", "--out", "run"]).succeeded();
    assert!(outcome.stdout.contains(" tokens, 1 text cut\n"), "{}", outcome.stdout);
    let warning = on_one_line(&outcome.stderr);
    assert!(warning.contains("[work]/train.tsv: texts of more than 24 tokens are cut: 1 of 33"), "{warning}");
    assert_eq!(result_json(&workdir.path().join("run"))["plan"]["truncated"], 1);
    let without = workdir.fthost(["eval", "run", "test.tsv"]).succeeded();
    assert!(without.stderr.is_empty(), "{}", without.stderr);
}

/// What looks odd and is right: a byte order mark, line ends of Windows, blank lines, an empty text.
#[test]
fn what_only_looks_wrong_runs() {
    let workdir = text_workdir();
    let rows = String::from_utf8(read(&workdir, "train.tsv")).unwrap().replace('\n', "\r\n");
    workdir.write("train.tsv", format!("\u{feff}{rows}\r\n\r\n\t1\r\n"));
    let outcome = workdir.fthost(["run.toml", "--out", "run"]).succeeded();
    // A sentence, without the time and the module.
    let sentence = |line: &str| line.starts_with("warning: ") && line.contains("train.tsv: 1 of 33 texts are empty");
    assert!(outcome.stderr.lines().any(sentence), "{}", outcome.stderr);
    let result = result_json(&workdir.path().join("run"));
    assert_eq!(result["tasks"]["sentiment"]["labels"], serde_json::json!(["0", "1"]));
}
