//! What is done with two streams that compare: vectors of one side, what is nearest to a text or a picture, classes by their names alone, and how
//! often what belongs together is found. On a tiny random CLIP, with the tokenizer of a tiny BERT, and on that BERT alone.

use std::fs;

use fthost_images::Picture;
use fthost_tests::{Workdir, build, on_one_line, result_json, root};
use serde_json::{Value, json};

/// Words that the tokenizer knows, each of which names a colour here.
const PAIRS: [(&str, [u8; 3]); 8] = [
    ("warm", [230, 40, 20]),
    ("cold", [20, 40, 230]),
    ("fresh", [30, 220, 40]),
    ("sweet", [240, 130, 200]),
    ("dull", [120, 120, 120]),
    ("awful", [10, 10, 10]),
    ("great", [250, 250, 240]),
    ("bitter", [120, 90, 10]),
];

const RUN: &str = r#"[model]
path = "model"

[[task]]
name = "colours"
head = { plugin = "contrastive" }
train = "pairs.tsv"
test = "pairs.tsv"

[[strategy]]
plugin = "full"

[train]
epochs = 60
batch_size = 8
lr = 3e-3
"#;

/// The exponential of the tiny model's `logit_scale` (tests/reference/make_clip.py).
fn scale() -> f64 {
    1.3f64.exp()
}

/// A tiny CLIP, pictures with a word for each in `pairs.tsv`, the same in class folders, and [`RUN`].
pub(crate) fn pair_workdir() -> Workdir {
    let workdir = Workdir::new();
    let tiny = |name: &str| fs::read(root().join("tests/reference/tiny").join(name)).unwrap();
    for file in ["config.json", "model.safetensors"] {
        workdir.write(&format!("model/{file}"), tiny(&format!("clip/{file}")));
    }
    workdir.write("model/tokenizer.json", tiny("bert/tokenizer.json"));
    let mut rows = "image\ttext\n".to_owned();
    for (word, colour) in PAIRS {
        let shades = |by: u8| colour.map(|level| level.saturating_sub(by));
        let picture = |by: u8| Picture::new(8, 8, vec![shades(by); 64]).unwrap().to_png();
        workdir.write(&format!("pictures/{word}.png"), picture(0));
        workdir.write(&format!("classes/{word}/0.png"), picture(0));
        workdir.write(&format!("classes/{word}/1.png"), picture(6));
        rows += &format!("pictures/{word}.png\ta {word} .\n");
    }
    workdir.write("pairs.tsv", rows);
    workdir.write("run.toml", RUN);
    workdir
}

/// The object that a command prints.
#[track_caller]
fn object(workdir: &Workdir, arguments: &[&str]) -> Value {
    let said = workdir.fthost(arguments.iter().chain(&["--json"])).succeeded().stdout;
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{arguments:?}: {error} in {said}"))
}

/// The vectors that `embed` writes.
#[track_caller]
fn vectors(workdir: &Workdir, arguments: &[&str]) -> Vec<Vec<f64>> {
    let out = format!("{}.jsonl", workdir.listing().len());
    workdir.fthost(["embed"].iter().chain(arguments).chain(&["--out", &out])).succeeded();
    let text = fs::read_to_string(workdir.path().join(&out)).unwrap();
    let line = |line: &str| serde_json::from_str::<Value>(line).unwrap()["vector"].clone();
    text.lines().map(|of| serde_json::from_value(line(of)).unwrap()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A run's vectors of each stream alone give the ranks that its own evaluation of pairs gave, and every search is by them.
#[test]
fn a_trained_pair_finds_what_belongs_together() {
    let workdir = pair_workdir();
    let said = workdir.fthost(["run.toml", "--out", "run"]).succeeded().stdout;
    let table: Vec<&str> = said.lines().skip_while(|line| !line.contains("recall at 1 ")).take(4).collect();
    assert!(table[1].starts_with("text → image  ") && table[2].starts_with("image → text  "), "{said}");
    let result = result_json(&workdir.path().join("run"));
    let (task, metrics) = (&result["tasks"]["colours"], &result["tasks"]["colours"]["metrics"]);
    assert_eq!(task["sides"], json!(["text", "image"]));
    assert!(metrics["recall_at_1"].as_f64().unwrap() >= 0.75, "{metrics}");
    let eval = object(&workdir, &["eval", "run", "pairs.tsv"]);
    assert_eq!(eval["tasks"]["colours"]["metrics"], *metrics);

    let texts = vectors(&workdir, &["run", "pairs.tsv", "--stream", "text"]);
    let images = vectors(&workdir, &["run", "pairs.tsv", "--stream", "image"]);
    assert_eq!((texts.len(), images.len(), texts[0].len()), (8, 8, 12));
    assert!(texts.iter().chain(&images).all(|of| (dot(of, of) - 1.0).abs() < 1e-5));
    let found_first = |from: &[Vec<f64>], to: &[Vec<f64>]| {
        let own = |i: usize| (0..8).all(|j| i == j || dot(&from[i], &to[j]) < dot(&from[i], &to[i]));
        (0..8).filter(|&i| own(i)).count() as f64 / 8.0
    };
    assert_eq!(metrics["forward_recall_at_1"].as_f64(), Some(found_first(&texts, &images)));
    assert_eq!(metrics["backward_recall_at_1"].as_f64(), Some(found_first(&images, &texts)));

    // A folder is in the order of its names, the table in that of its rows; what is found is the same.
    let arguments = ["search", "run", "a cold .", "--images", "pictures", "--top", "3"];
    let found = object(&workdir, &arguments);
    assert_eq!((&found["candidates"], &found["is_picture"]), (&json!(8), &json!(false)));
    let hits = found["found"].as_array().unwrap();
    assert_eq!(hits.len(), 3);
    let mut expected: Vec<(f64, String)> =
        (0..8).map(|i| (dot(&texts[1], &images[i]), format!("pictures/{}.png", PAIRS[i].0))).collect();
    expected.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (rank, (hit, (similarity, path))) in hits.iter().zip(&expected).enumerate() {
        assert_eq!((&hit["rank"], &hit["path"]), (&json!(rank + 1), &json!(path)), "{found}");
        assert!((hit["similarity"].as_f64().unwrap() - similarity).abs() < 1e-5, "{hit} is not {similarity}");
    }
    let of_table = object(&workdir, &["search", "run", "a cold .", "--images", "pairs.tsv", "--top", "3"]);
    let paths =
        |found: &Value| found["found"].as_array().unwrap().iter().map(|hit| hit["path"].clone()).collect::<Vec<_>>();
    assert_eq!(paths(&of_table), paths(&found));
    let said = workdir.fthost(arguments).succeeded().stdout;
    assert!(said.starts_with("rank  similarity  picture\n1 ") && said.ends_with("of 8 pictures\n"), "{said}");

    // The other way, and with a page that loads nothing.
    let page = ["search", "run", "pictures/cold.png", "--texts", "pairs.tsv", "--top", "1", "--page", "texts.html"];
    let found = object(&workdir, &page);
    assert_eq!((&found["is_picture"], &found["found"][0]["text"]), (&json!(true), &json!("a cold .")), "{found}");
    workdir.fthost(arguments.iter().chain(&["--page", "found.html"])).succeeded();
    let page = |name: &str| fs::read_to_string(workdir.path().join(name)).unwrap();
    let pictures = |page: &str| page.matches("src=\"data:image/png;base64,").count();
    assert_eq!((pictures(&page("texts.html")), pictures(&page("found.html"))), (1, 3));
    assert!(page("texts.html").contains("a cold .") && page("found.html").contains("pictures/cold.png"));
    assert!(workdir.fthost(arguments.iter().chain(&["--page", "found.html"])).failed(2).contains("exists already"));
}

/// What a run is worst at stands on its page with what was found instead.
#[test]
fn mistakes_are_shown_beside_what_belongs_there() {
    let workdir = pair_workdir();
    workdir.fthost(["run.toml", "--out", "run", "--set", "train.epochs=1", "--set", "train.lr=1e-6"]).succeeded();
    let worst = result_json(&workdir.path().join("run"))["tasks"]["colours"]["worst"].clone();
    let worst = worst.as_array().unwrap();
    assert!(!worst.is_empty());
    let page = fs::read_to_string(workdir.path().join("run/report.html")).unwrap();
    let mut pictures = 0;
    for of in worst {
        let (instead, text) = (&of["instead"], of["text"].as_str().unwrap());
        let ranks: Vec<f64> = of["prediction"].as_str().unwrap().split(' ').map(|rank| rank.parse().unwrap()).collect();
        let forward = ranks[0] >= ranks[1];
        assert_eq!(instead["forward"], forward, "{of}");
        assert_eq!(instead["rank"].as_f64(), Some(if forward { ranks[0] } else { ranks[1] }), "{of}");
        assert_ne!(instead["text"], text, "{of}");
        pictures += 1 + usize::from(forward);
        assert!(page.contains(text) && page.contains(instead["text"].as_str().unwrap()), "{of}");
    }
    assert_eq!(page.matches("src=\"data:image/png;base64,").count(), pictures);
    assert!(page.contains("text → image") && !page.contains("Forward recall"), "the ways have names");
}

/// A pretrained CLIP, no run: the probabilities are those of its own scale, and several templates are one text's vector each, averaged.
#[test]
fn classes_are_told_by_their_names() {
    let workdir = pair_workdir();
    let names: Vec<&str> = PAIRS.iter().map(|(word, _)| *word).collect();
    let templates = ["this is {} .", "a very {} film ."];
    let texts: String =
        names.iter().flat_map(|name| templates.map(|template| format!("{}\n", template.replace("{}", name)))).collect();
    workdir.write("texts.tsv", format!("text\n{texts}"));
    workdir.write("names.txt", names.join("\n"));
    let texts = vectors(&workdir, &["model", "texts.tsv", "--stream", "text"]);
    let classes: Vec<Vec<f64>> = texts
        .chunks(2)
        .map(|of| {
            let sum: Vec<f64> = of[0].iter().zip(&of[1]).map(|(a, b)| a + b).collect();
            let length = dot(&sum, &sum).sqrt();
            sum.iter().map(|x| x / length).collect()
        })
        .collect();
    let images = vectors(&workdir, &["model", "classes", "--stream", "image"]);
    let asked = ["--classes", "names.txt", "--template", templates[0], "--template", templates[1]];
    let said =
        workdir.fthost(["predict", "model", "classes", "--format", "jsonl"].iter().chain(&asked)).succeeded().stdout;
    let rows: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((rows.len(), images.len()), (16, 16));
    let mut right = 0;
    for (row, image) in rows.iter().zip(&images) {
        let parts: Vec<f64> = classes.iter().map(|class| (scale() * dot(class, image)).exp()).collect();
        let total: f64 = parts.iter().sum();
        for (name, part) in names.iter().zip(&parts) {
            let found = row["probabilities"][*name].as_f64().unwrap();
            assert!((found - part / total).abs() < 1e-5, "{name} in {row} is not {}", part / total);
        }
        let folder = row["id"].as_str().unwrap().split('/').next().unwrap();
        right += usize::from(row["label"] == folder);
    }
    let eval = object(&workdir, &[&["eval", "model", "classes"][..], &asked].concat());
    let (_, task) = eval["tasks"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(task["metrics"]["accuracy"].as_f64(), Some(right as f64 / 16.0));
    assert_eq!(task["labels"], json!(names));
    assert_eq!(task["confusion"].as_array().unwrap().len(), 8);

    // Without names they are those of the folders, and without a template a name is its text.
    let own = object(&workdir, &["eval", "model", "classes", "--classes"]);
    let (_, task) = own["tasks"].as_object().unwrap().iter().next().unwrap();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(task["labels"], json!(sorted));
    let said = workdir.fthost(["eval", "model", "classes", "--classes"]).succeeded().stdout;
    assert!(said.contains("precision") && said.contains("accuracy"), "{said}");
    // Whatever the temperature, the nearest is the same.
    let cold = object(&workdir, &["eval", "model", "classes", "--classes", "--temperature", "0.01"]);
    let (_, cold) = cold["tasks"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(cold["metrics"]["accuracy"], task["metrics"]["accuracy"]);
    assert_ne!(cold["metrics"]["log_loss"], task["metrics"]["log_loss"]);
}

/// Pooled features need no plugin, and are other vectors of other widths.
#[test]
fn pooled_features_are_written_where_they_are_asked_for() {
    let workdir = pair_workdir();
    let mut command =
        workdir.command(["embed", "model", "pictures", "--stream", "image", "--features", "--out", "a.npy"]);
    command.env("FTHOST_PLUGIN_PATH", workdir.path());
    let said = workdir.run(command).succeeded().stdout;
    assert!(said.contains("8 rows of 24 numbers (cls) in a.npy"), "{said}");
    let compared = object(&workdir, &["embed", "model", "pictures", "--stream", "image", "--out", "b.npy"]);
    assert_eq!(
        (&compared["compared"], &compared["width"], &compared["stream"]),
        (&json!(true), &json!(12), &json!("image"))
    );
    // A text by itself and beside its picture is the same.
    workdir.write("alone.txt", "a warm .\na cold .\n");
    let alone = vectors(&workdir, &["model", "alone.txt", "--stream", "text"]);
    let beside = vectors(&workdir, &["model", "pairs.tsv", "--stream", "text"]);
    assert!(alone[..2].iter().zip(&beside).all(|(a, b)| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6)));
}

/// Texts of one stream: the second ones are looked through by a first one.
#[test]
fn texts_are_found_by_texts() {
    let workdir = Workdir::new();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        workdir.write(&format!("model/{file}"), fs::read(root().join("tests/reference/tiny/bert").join(file)).unwrap());
    }
    let words = PAIRS.map(|(word, _)| word);
    let rows = words.map(|word| format!("a {word} film\tthe movie was {word}\n")).concat();
    workdir.write("pairs.tsv", format!("text\ttext_pair\n{rows}"));
    workdir.write("run.toml", RUN.replace("epochs = 60", "epochs = 20"));
    workdir.fthost(["run.toml", "--out", "run"]).succeeded();
    let task = result_json(&workdir.path().join("run"))["tasks"]["colours"].clone();
    assert_eq!(task["sides"], json!(["text", "text_pair"]));

    let answers = words.map(|word| format!("the movie was {word}\n")).concat();
    workdir.write("answers.txt", answers);
    let found = object(&workdir, &["search", "run", "a bitter film", "--texts", "answers.txt", "--top", "8"]);
    let first = vectors(&workdir, &["run", "pairs.tsv"]);
    let second = vectors(&workdir, &["run", "answers.txt"]);
    // Of a row of pairs its first text alone.
    assert_eq!((first.len(), second.len()), (8, 8));
    let best = (0..8).max_by(|&a, &b| dot(&first[7], &second[a]).total_cmp(&dot(&first[7], &second[b]))).unwrap();
    assert_eq!(found["found"][0]["text"], json!(format!("the movie was {}", words[best])), "{found}");
    assert_eq!(found["found"][0]["line"], json!(best + 1));

    let png = Picture::new(8, 8, vec![[9; 3]; 64]).unwrap().to_png();
    workdir.write("a.png", png);
    let error = on_one_line(&workdir.fthost(["search", "run", "a.png", "--texts", "answers.txt"]).failed(2));
    assert!(error.contains("compares texts alone, and \"a.png\" is a picture"), "{error}");
    let error = on_one_line(&workdir.fthost(["search", "run", "a film", "--images", "."]).failed(2));
    assert!(error.contains("compares texts alone, and . is looked through for pictures"), "{error}");
    let error = on_one_line(&workdir.fthost(["eval", "run", "pairs.tsv", "--classes", "good,bad"]).failed(2));
    assert!(error.contains("label"), "{error}");
    let error = on_one_line(&workdir.fthost(["predict", "run", "answers.txt", "--classes", "good,bad"]).failed(2));
    assert!(error.contains("has learned no temperature") && error.contains("--temperature 0.05"), "{error}");
    let said = workdir
        .fthost(["predict", "run", "answers.txt", "--classes", "good,bad", "--temperature", "0.05"])
        .succeeded()
        .stdout;
    assert_eq!(said.lines().count(), 9, "{said}");
}

#[test]
fn what_cannot_be_asked_is_said_plainly() {
    let workdir = pair_workdir();
    fs::create_dir(workdir.path().join("empty")).unwrap();
    let check = |arguments: &[&str], code: i32, parts: &[&str]| {
        let error = on_one_line(&workdir.fthost(arguments).failed(code));
        parts.iter().for_each(|part| assert!(error.contains(part), "{arguments:?}: {part:?} is not in {error}"));
    };
    let names = "has the streams \"text\" and \"image\"";
    check(&["embed", "model", "pairs.tsv", "--out", "a.npy"], 2, &[names, "--stream"]);
    check(
        &["embed", "model", "pairs.tsv", "--out", "a.npy", "--stream", "sound"],
        2,
        &["no stream \"sound\"", "\"text\""],
    );
    check(&["embed", "model", "empty", "--out", "a.npy", "--stream", "image"], 2, &["there is no picture"]);
    check(&["search", "model", "warm", "--images", "nowhere"], 2, &["nowhere"]);
    check(&["search", "model", "warm", "--images", "empty"], 2, &["there is no picture", "is it the right folder?"]);
    check(&["search", "model", "lost.png", "--images", "pictures"], 2, &["there is no picture lost.png"]);
    check(&["search", "model", "warm"], 2, &["--images", "--texts"]);
    check(&["search", "model", "warm", "--images", "pictures", "--texts", "pairs.tsv"], 2, &["cannot be used with"]);
    check(&["search", "model", "warm", "--images", "pictures", "--task", "other"], 2, &["no task \"other\""]);
    check(&["eval", "model", "classes", "--classes", "warm,cold"], 2, &["has examples of the class \"awful\""]);
    check(&["eval", "model", "classes", "--template", "a film"], 2, &["\"a film\" has no place", "a photo of a {}"]);
    check(&["eval", "model", "classes", "--temperature", "1"], 2, &["--temperature is for classes"]);
    check(&["predict", "model", "classes", "--classes"], 2, &["nothing names the classes"]);
    check(&["predict", "model", "classes", "--classes", "warm"], 2, &["there is \"warm\" alone"]);
    check(&["predict", "model", "classes", "--classes", "warm,cold,warm"], 2, &["\"warm\" is named twice"]);
    check(&["predict", "model", "pairs.tsv"], 2, &["gives embeddings", "fthost search"]);

    let bert = root().join("tests/reference/tiny/bert").display().to_string();
    let run = RUN.replace("contrastive", "classification").replace("\"model\"", &format!("{bert:?}"));
    workdir.write("labels.tsv", "text\tlabel\ngood\t1\nbad\t0\nfunny\t1\ndull\t0\n");
    workdir.write("other.toml", run.replace("pairs.tsv", "labels.tsv").replace("epochs = 60", "epochs = 1"));
    workdir.fthost(["other.toml", "--out", "other"]).succeeded();
    check(&["search", "other", "warm", "--texts", "labels.tsv"], 2, &["no head here compares", "colours"]);
    check(&["eval", "other", "labels.tsv", "--classes"], 2, &["no head here compares"]);
}

/// A head whose vectors of one side depend on the other, or are no directions, is refused before anything is made of them.
#[test]
fn a_head_that_breaks_its_promise_is_named() {
    let workdir = pair_workdir();
    let plugin = build().folder().join("examples/libmisconduct.so").display().to_string();
    let search = |how: &str| {
        let how = format!("task.0.head.how={how}");
        workdir.fthost(["search", "model", "warm", "--images", "pictures", "--plugin", &plugin, "--set", &how])
    };
    search("nothing").succeeded();
    let error = on_one_line(&search("lean").failed(1));
    assert!(error.contains("depend on the other side, so that there are none of one side by itself"), "{error}");
    let error = on_one_line(&search("long").failed(1));
    assert!(error.contains("have length 2.000, and not 1"), "{error}");
}
