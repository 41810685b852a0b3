//! Where a method is tried: small run files with made-up data and random models, one for each kind of data.

use std::fs;
use std::path::Path;

use fthost_autograd::Device;
use fthost_images::{Mask, Picture, Plane};
use fthost_models::{Loader, SavedHead};
use fthost_plugin_api::MethodKind;
use serde_json::json;

use crate::{Error, Result};

/// A run file with what it needs.
#[derive(Debug)]
pub(super) struct Stage {
    /// How tests call it.
    pub(super) name: &'static str,
    /// The run file.
    pub(super) run: &'static str,
    /// Writes what the run file names.
    write: fn(&Path) -> Result<()>,
}

macro_rules! stage {
    ($name:literal, $write:expr) => {
        Stage { name: $name, run: include_str!(concat!("../../assets/validate/", $name, ".toml")), write: $write }
    };
}

static STAGES: [Stage; 10] = [
    stage!("texts", |folder| bert(folder).and_then(|()| write(folder, "texts.tsv", texts(6, "\t")))),
    stage!("words", |folder| bert(folder).and_then(|()| write(folder, "words.jsonl", words()))),
    stage!("labels", |folder| bert(folder).and_then(|()| write(folder, "labels.jsonl", labels()))),
    stage!("masked", |folder| bert(folder).and_then(|()| write(folder, "texts.txt", texts(6, "")))),
    stage!("answers", |folder| llama(folder).and_then(|()| write(folder, "answers.jsonl", answers(false)))),
    stage!("pairs", |folder| llama(folder).and_then(|()| write(folder, "pairs.jsonl", answers(true)))),
    stage!("masks", masks),
    stage!("streams", streams),
    stage!("similar", |folder| bert(folder).and_then(|()| write(folder, "similar.tsv", similar()))),
    stage!("sequence", |folder| bert(folder).and_then(|()| write(folder, "texts.tsv", texts(6, "\t")))),
];

/// The stages that methods of a kind are tried on, the first that one of them fits.
pub(super) fn of(kind: MethodKind) -> Vec<&'static Stage> {
    let fits = |stage: &&Stage| match kind {
        MethodKind::TaskHead => stage.name != "sequence",
        MethodKind::Regularizer => matches!(stage.name, "texts" | "sequence"),
        _ => stage.name == "texts",
    };
    STAGES.iter().filter(fits).collect()
}

/// The stage of a name.
pub(super) fn named(name: &str) -> Option<&'static Stage> {
    STAGES.iter().find(|stage| stage.name == name)
}

impl Stage {
    /// The methods that the run file names.
    pub(super) fn methods(&self) -> Vec<(MethodKind, String)> {
        let table: toml::Table = self.run.parse().unwrap_or_default();
        let name = |of: &toml::Value| of.get("plugin").and_then(toml::Value::as_str).map(str::to_owned);
        let list = |key: &str| table.get(key).and_then(toml::Value::as_array).cloned().unwrap_or_default();
        let heads = list("task").into_iter().filter_map(|task| Some((MethodKind::TaskHead, name(task.get("head")?)?)));
        let strategies = list("strategy").into_iter().filter_map(|of| Some((MethodKind::Strategy, name(&of)?)));
        let schedule = table.get("schedule").and_then(name).map(|name| (MethodKind::Scheduler, name));
        heads.chain(strategies).chain(schedule).collect()
    }

    /// Writes into a folder what the run file names.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        (self.write)(folder)
    }
}

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
    let path = folder.join(name);
    let failed = || Error::io(format!("cannot write {}", path.display()));
    path.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed())?;
    fs::write(&path, content).map_err(failed())
}

const TOKENIZER: &str = include_str!("../../assets/validate/tokenizer.json");

/// A folder with a random model, whose weights are those of every process: what a run leaves is opened beside it.
fn model(folder: &Path, name: &str, loader: Loader<'_>, config: &str) -> Result<()> {
    loader.random(config, 0)?.save_folder(&folder.join(name), &SavedHead::default())?;
    write(folder, &format!("{name}/tokenizer.json"), TOKENIZER)
}

fn bert(folder: &Path) -> Result<()> {
    model(folder, "bert", Loader::new(&Device::Cpu), include_str!("../../assets/validate/bert.json"))
}

fn llama(folder: &Path) -> Result<()> {
    let config = include_str!("../../assets/validate/llama.json");
    model(folder, "llama", Loader::new(&Device::Cpu).with_vocabulary(0), config)?;
    let settings = json!({ "bos_token": "[CLS]", "eos_token": "[SEP]", "pad_token": "[PAD]" });
    write(folder, "llama/tokenizer_config.json", settings.to_string())
}

/// Words of the tokenizer's vocabulary.
const WORDS: [&str; 16] = [
    "the", "film", "was", "good", "a", "movie", "is", "bad", "plot", "actor", "very", "dull", "story", "funny", "we",
    "loved",
];

/// So many words that follow from a number.
fn sentence(number: usize, length: usize) -> Vec<&'static str> {
    (0..length).map(|i| WORDS[(number * 7 + i * (number % 5 + 1) + i * i) % WORDS.len()]).collect()
}

const ROWS: usize = 180;

/// Texts that tell their classes, which are numbers, after what separates them; without a separator texts alone.
fn texts(classes: usize, separator: &str) -> String {
    let row = |i: usize| {
        let class = i % classes;
        let text = [&[WORDS[class * 2]], sentence(i, 3 + i % 4).as_slice()].concat().join(" ");
        if separator.is_empty() { format!("{text}\n") } else { format!("{text}{separator}{class}\n") }
    };
    let header = if separator.is_empty() { String::new() } else { format!("text{separator}label\n") };
    header + &(0..ROWS).map(row).collect::<String>()
}

fn words() -> String {
    let label = |word: &&str| if matches!(*word, "film" | "movie" | "story") { "B-WORK" } else { "O" };
    let row = |i: usize| {
        let words = sentence(i, 3 + i % 4);
        let labels: Vec<&str> = words.iter().map(label).collect();
        json!({ "text": words, "label": labels }).to_string() + "\n"
    };
    (0..ROWS / 2).map(row).collect()
}

fn labels() -> String {
    let row = |i: usize| {
        let words = sentence(i, 3 + i % 4);
        let has = |word: &str| words.contains(&word);
        let named = [("work", has("film") || has("movie")), ("praise", has("good")), ("blame", has("bad"))];
        let labels: Vec<&str> = named.iter().filter(|(_, has)| *has).map(|(label, _)| *label).collect();
        json!({ "text": words.join(" "), "label": labels }).to_string() + "\n"
    };
    (0..ROWS / 2).map(row).collect()
}

/// Instructions with an answer each, or with a better and a worse one.
fn answers(pairs: bool) -> String {
    let row = |i: usize| {
        let (asked, good, bad) = (sentence(i, 3).join(" "), sentence(i + 1, 2).join(" "), sentence(i + 5, 3).join(" "));
        // Words are letters alone, and so quoted as JSON quotes them.
        match pairs {
            true => format!("{{\"prompt\":{asked:?},\"chosen\":{good:?},\"rejected\":{bad:?}}}\n"),
            false => format!("{{\"prompt\":{asked:?},\"completion\":{good:?}}}\n"),
        }
    };
    (0..ROWS / 3).map(row).collect()
}

/// Pairs of texts, and the share of their words that is the same.
fn similar() -> String {
    let row = |i: usize| {
        let (one, alike) = (sentence(i, 4), i % 5);
        let other = [&one[..alike], &sentence(i + 3, 4)[alike..]].concat();
        format!("{}\t{}\t{}\n", one.join(" "), other.join(" "), alike as f64 / 4.0)
    };
    "text\ttext_pair\tlabel\n".to_owned() + &(0..ROWS / 3).map(row).collect::<String>()
}

const NETWORK: &str = include_str!("../../assets/validate/network.json");
const PICTURES: usize = 16;

/// Texts about pictures, with a class for both.
fn streams(folder: &Path) -> Result<()> {
    bert(folder)?;
    Loader::new(&Device::Cpu)
        .random(NETWORK, 0)?
        .save_folder(&folder.join("pictures-network"), &SavedHead::default())?;
    pictures(folder)?;
    let row = |i: usize| {
        let (picture, text) = (i % PICTURES, sentence(i, 3 + i % 4).join(" "));
        format!("pictures/images/{picture:02}.png\t{} {text}\tclass {}\n", WORDS[picture], (picture + i) % 3)
    };
    write(folder, "streams.tsv", "image\ttext\tlabel\n".to_owned() + &(0..3 * PICTURES).map(row).collect::<String>())
}

/// Pictures with masks.
fn masks(folder: &Path) -> Result<()> {
    write(folder, "network/config.json", NETWORK)?;
    pictures(folder)
}

/// Pictures of discs and bars on a ground.
fn pictures(folder: &Path) -> Result<()> {
    const SIDE: usize = 16;
    for i in 0..PICTURES {
        let (middle, bar) = (4 + i % 8, i % 12);
        let class = |place: usize| {
            let (y, x) = (place / SIDE, place % SIDE);
            let disc = y.abs_diff(middle).pow(2) + x.abs_diff(middle).pow(2) <= 9;
            if disc { 1 } else { u8::from((bar..bar + 3).contains(&x)) * 2 }
        };
        let classes: Vec<[u8; 1]> = (0..SIDE * SIDE).map(|place| [class(place)]).collect();
        let pixels = classes.iter().map(|&[class]| [60 + 70 * class, 200 - 60 * class, (i * 9) as u8]).collect();
        let (picture, mask): (Option<Picture>, Option<Mask>) =
            (Plane::new(SIDE, SIDE, pixels), Plane::new(SIDE, SIDE, classes));
        if let (Some(picture), Some(mask)) = (picture, mask) {
            write(folder, &format!("pictures/images/{i:02}.png"), picture.to_png())?;
            write(folder, &format!("pictures/masks/{i:02}.png"), mask.to_png())?;
        }
    }
    Ok(())
}
