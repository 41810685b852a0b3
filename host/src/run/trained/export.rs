//! What a run has trained, or a folder that PEFT or Transformers saved, in the form that another tool opens, and what that tool does not take.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use fthost_models::GgufType;
use fthost_plugin_api::TargetKind;
use serde::Serialize;
use serde_json::{Value, json};

use super::head::read;
use super::merge::must_not_exist;
use super::model::{TrainedModel, TrainedTask};
use super::{modelfile, peft};
use crate::data::{ChatTemplate, GoTemplate, Tokenizer, template_text};
use crate::run::file::ModelTable;
use crate::run::results::export::{Exported, Format as Saved};
use crate::run::state::folder::{RunFolder, cannot_write, write_atomically, write_json};
use crate::{Error, Result};

/// The file of weights in what llama.cpp gets.
const WEIGHTS: &str = "model.gguf";
/// How many tokens of a rank vLLM takes without being asked.
const RANK: u64 = 16;

/// For whom it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A plain Hugging Face folder, everything folded into the weights: what merge writes
    Hf,
    /// The adapter alone, as PEFT opens it over the base model
    Peft,
    /// One file for llama.cpp and Ollama, everything folded into the weights, and a Modelfile
    Gguf,
}

/// How a GGUF file keeps the numbers of matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// Two bytes each
    F16,
    /// Two bytes each, with the range of four
    Bf16,
    /// Four bytes each
    F32,
    /// Blocks of 32 bytes with a scale
    #[value(name = "q8_0")]
    Q8_0,
}

impl From<Dtype> for GgufType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::BF16,
            Dtype::F32 => Self::F32,
            Dtype::Q8_0 => Self::Q8_0,
        }
    }
}

/// What was written, and what to know of it.
#[derive(Debug, Serialize)]
pub struct Handed {
    /// Where it is.
    #[serde(flatten)]
    pub saved: Exported,
    /// What other tools do not take of it, and what to do then.
    pub notes: Vec<String>,
}

impl std::fmt::Display for Handed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.saved)?;
        self.notes.iter().try_for_each(|note| write!(f, "\n- {note}"))
    }
}

/// Writes what is in `run` to the folder `to`, which must not exist. `open` opens it, where it has to be; `dtype` is for GGUF alone.
///
/// # Errors
/// Where there is no such form of it, before anything is written; where the folder exists or cannot be written. Nothing stays of half a
/// folder.
pub fn export(
    run: &Path,
    to: &Path,
    format: Format,
    dtype: Option<Dtype>,
    open: impl FnOnce() -> Result<TrainedModel>,
) -> Result<Handed> {
    must_not_exist(to)?;
    if dtype.is_some() && format != Format::Gguf {
        return Err(Error::usage("--dtype is for --format gguf: the other formats keep numbers as f32")
            .with_help("leave --dtype out"));
    }
    match format {
        Format::Peft => adapter(run, to),
        Format::Hf => {
            let model = open()?;
            let causal = model.causal().is_ok() && model.model.model.info().streams.len() == 1;
            let mut handed = model.merge_and_say(to)?;
            if causal {
                handed
                    .notes
                    .push("Transformers and vLLM open the folder; for llama.cpp and Ollama: --format gguf".into());
            }
            Ok(handed)
        }
        Format::Gguf => open()?.gguf(to, dtype.map_or_else(GgufType::default, GgufType::from)),
    }
}

/// Writes a folder beside its name and renames it, so that half of it is never taken for the whole.
fn folder(to: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = to.with_file_name(name);
    must_not_exist(&partial)?;
    let written = std::fs::create_dir_all(&partial)
        .map_err(cannot_write(to))
        .and_then(|()| write(&partial))
        .and_then(|()| std::fs::rename(&partial, to).map_err(cannot_write(to)));
    written.inspect_err(|_| {
        // Why it is half says more than that it stays.
        let _ = std::fs::remove_dir_all(&partial);
    })
}

impl TrainedModel {
    /// The task of a model that says the next token.
    fn causal(&self) -> Result<(&TrainedTask, &Tokenizer)> {
        let causal = |task: &&TrainedTask| task.spec.targets == TargetKind::NextToken;
        let task = self.tasks.iter().find(causal);
        task.and_then(|task| Some((task, task.tokenizer.as_ref()?))).ok_or_else(|| {
            let of = &self.model.model.info().model_type;
            Error::usage(format!(
                "a GGUF file holds a model that says the next token, and this {of} was trained for another task"
            ))
            .with_help("--format hf writes it with what was trained in its weights, and with its head")
        })
    }

    /// Merges into a folder that must not exist, and says what the adapter was added to.
    ///
    /// # Errors
    /// As [`merge`](Self::merge).
    pub fn merge_and_say(self, to: &Path) -> Result<Handed> {
        let notes = self.notes_of_base();
        Ok(Handed { saved: self.merge(to)?, notes })
    }

    /// What the adapter was added to.
    fn notes_of_base(&self) -> Vec<String> {
        let quantized = self.model.parameters.iter().filter(|parameter| parameter.quantized).count();
        let of_run = (quantized > 0).then(|| {
            format!(
                "{quantized} weights of the base model were quantised by model.quantize: what was trained is added to their quantised values, as it \
                 was trained beside these, not to those of the full model"
            )
        });
        let of_file = |base: &&Path| base.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"));
        let note = |base: &Path| {
            format!(
                "the base model is {}: its weights are as precise as its blocks, and what was trained is added to these, not to those of the \
                 full model",
                base.display()
            )
        };
        self.base.iter().flat_map(ModelTable::folders).filter(of_file).map(note).chain(of_run).collect()
    }

    fn gguf(mut self, to: &Path, of: GgufType) -> Result<Handed> {
        let (task, tokenizer) = self.causal()?;
        // What it trained with goes before what the base model came with.
        let template = match (&task.form.language.template, tokenizer.template()) {
            (Some(name), _) => Some(template_text(name)?),
            (None, own) => own.map(|(text, _)| text.to_owned()),
        };
        let chat = template
            .as_deref()
            .map(|text| ChatTemplate::new(text, "the model".into(), tokenizer.special_tokens().clone()));
        let chat = chat.transpose()?;
        let first = tokenizer.first_text()?;
        let go = chat.as_ref().and_then(|chat| GoTemplate::of(chat, first.as_deref()));
        let end = tokenizer.special_tokens().get("eos_token").cloned();
        let file = tokenizer.as_in_file(template)?;
        let (modelfile, mut notes) = modelfile::write(WEIGHTS, chat.is_some(), go.as_ref(), end.as_deref());
        notes.extend(self.notes_of_base());
        self.fold()?;
        folder(to, |partial| {
            self.model.model.save_gguf(&partial.join(WEIGHTS), &file, of)?;
            write_atomically(&partial.join(modelfile::NAME), modelfile.as_bytes())
        })?;
        let weights = to.join(WEIGHTS);
        notes.insert(0, format!("llama.cpp: llama-cli -m {}", weights.display()));
        notes.insert(1, format!("Ollama: ollama create NAME -f {}", to.join(modelfile::NAME).display()));
        Ok(Handed { saved: Exported { format: Saved::Gguf, path: to.to_owned(), own_heads: None }, notes })
    }
}

/// Copies the adapter that a run has left, or that PEFT saved.
fn adapter(run: &Path, to: &Path) -> Result<Handed> {
    let from = if run.join(peft::CONFIG).is_file() { run.to_owned() } else { run.join("adapter") };
    let file = from.join(peft::CONFIG);
    if !file.is_file() {
        // What is no run's folder has no adapter either.
        RunFolder::run_file(run)?;
        return Err(Error::usage(format!(
            "{} holds no adapter: the run has not ended, or trained the model itself",
            run.display()
        ))
        .with_help("--format hf writes the whole model"));
    }
    let config: Value = read(&file)?;
    // Of models that are joined PEFT opens each by itself: there is an adapter for each below.
    let joined = !config["peft_type"].is_string();
    let folders = if joined { below(&from)? } else { vec![PathBuf::new()] };
    if folders.is_empty() {
        return Err(Error::usage(format!("PEFT knows no form of the method of {}", run.display()))
            .with_help("--format hf folds it into the weights"));
    }
    let (mut notes, mut configs) = (Vec::new(), Vec::new());
    for name in &folders {
        let mut config: Value = read(&from.join(name).join(peft::CONFIG))?;
        let base = config["base_model_name_or_path"].as_str().map(str::to_owned).unwrap_or_default();
        if joined {
            notes.push(format!(
                "PEFT has no class for two models that are joined: {} is the adapter of {base} alone, without the head",
                to.join(name).display()
            ));
        } else {
            notes.extend(refusals(&config));
        }
        if Path::new(&base).exists() {
            let path = std::path::absolute(&base).unwrap_or(base.into());
            if path.is_file() {
                notes.push(format!(
                    "PEFT opens the base model from a Hugging Face folder, and this one is the file {}: give PeftModel.from_pretrained a model that \
                     AutoModelForCausalLM.from_pretrained(FOLDER, gguf_file=NAME) has opened",
                    path.display()
                ));
            }
            config["base_model_name_or_path"] = json!(path);
        }
        configs.push(config);
    }
    folder(to, |partial| {
        folders.iter().zip(&configs).try_for_each(|(name, config)| {
            let (from, to) = (from.join(name), partial.join(name));
            std::fs::create_dir_all(&to).map_err(cannot_write(&to))?;
            copy(&from, &to)?;
            write_json(&to.join(peft::CONFIG), config)
        })
    })?;
    Ok(Handed { saved: Exported { format: Saved::Peft, path: to.to_owned(), own_heads: None }, notes })
}

/// The folders below one that have an adapter each, by name.
fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = || Error::io(format!("cannot read {}", folder.display()));
    let entries = std::fs::read_dir(folder).map_err(unreadable())?;
    let mut names: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.file_name().into()))
        .collect::<std::io::Result<_>>()
        .map_err(unreadable())?;
    names.retain(|name| folder.join(name).join(peft::CONFIG).is_file());
    names.sort();
    Ok(names)
}

/// All files of a folder, and those of folders in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let unreadable = || Error::io(format!("cannot read {}", from.display()));
    for entry in std::fs::read_dir(from).map_err(unreadable())? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).map_err(unreadable())?;
        let target = to.join(name);
        if path.is_dir() {
            std::fs::create_dir(&target).map_err(cannot_write(&target))?;
            copy(&path, &target)?;
        } else {
            std::fs::copy(&path, &target).map(drop).map_err(cannot_write(&target))?;
        }
    }
    Ok(())
}

/// What of an adapter other tools do not serve.
fn refusals(config: &Value) -> Vec<String> {
    let given = |field: &str| !matches!(&config[field], Value::Null | Value::Bool(false)) && config[field] != json!([]);
    let all = |field: &str| config[field].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut notes = Vec::new();
    let mut merge = |what: String| notes.push(format!("{what}; --format hf or gguf folds it into the weights"));
    let kind = config["peft_type"].as_str().unwrap_or_default();
    if kind != "LORA" {
        merge(format!("vLLM, llama.cpp and Ollama serve adapters of the type LORA, and this is {kind}"));
    }
    if given("modules_to_save") {
        merge("vLLM refuses modules_to_save, which this adapter has".into());
    }
    if given("use_dora") {
        merge("vLLM and llama.cpp refuse use_dora, which this adapter has".into());
    }
    if config["bias"].as_str().is_some_and(|bias| bias != "none") {
        merge("vLLM and llama.cpp leave out the biases that this adapter trained".into());
    }
    let ends = ["lm_head", "embed_tokens"];
    if let Some(target) = all("target_modules").find(|path| ends.iter().any(|end| path.ends_with(end))) {
        merge(format!("llama.cpp refuses an adapter on {target}"));
    }
    if let Some(rank) = config["r"].as_u64().filter(|rank| *rank > RANK) {
        notes.push(format!("vLLM takes ranks up to {RANK} unless it is started with --max-lora-rank {rank}"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tools_refuse_is_said() {
        let check = |config: Value, expected: &[&str]| {
            let notes = refusals(&config);
            assert_eq!(notes.len(), expected.len(), "{notes:?}");
            notes.iter().zip(expected).for_each(|(note, part)| assert!(note.contains(part), "{note}"));
        };
        let plain = json!({ "peft_type": "LORA", "r": 8, "bias": "none", "modules_to_save": [], "use_dora": false });
        check(plain.clone(), &[]);
        check(json!({ "peft_type": "IA3" }), &["this is IA3"]);
        let mut all = plain;
        all["modules_to_save"] = json!(["score"]);
        all["use_dora"] = json!(true);
        all["bias"] = json!("all");
        all["target_modules"] = json!(["q_proj", "lm_head"]);
        all["r"] = json!(64);
        check(all, &["modules_to_save", "use_dora", "biases", "on lm_head", "--max-lora-rank 64"]);
    }

    #[test]
    fn half_a_folder_does_not_stay() {
        let home = tempfile::tempdir().unwrap();
        let to = home.path().join("out");
        let failed = folder(&to, |partial| {
            write_atomically(&partial.join("a"), b"a")?;
            Err(Error::usage("no"))
        });
        assert!(failed.is_err() && std::fs::read_dir(home.path()).unwrap().next().is_none());
        folder(&to, |partial| write_atomically(&partial.join("a"), b"a")).unwrap();
        assert!(to.join("a").is_file());
        assert!(must_not_exist(&to).unwrap_err().to_string().contains("exists already"));
    }
}
