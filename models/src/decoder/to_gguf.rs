//! A decoder written as one file of llama.cpp's, with its tokenizer. What that file says is read again before any tensor is written: a model
//! that it cannot say is refused.

use std::path::Path;

use candle_core::quantized::gguf_file::Value;
use candle_core::{Device, Tensor};
use serde_json::Value as Json;

use super::config::Config;
use super::gguf::{FACTORS, Row, said};
use super::rope::{Rope, Scaling};
use super::{FileTokenizer, tokens};
use crate::family::{Source, Values};
use crate::folder::replace;
use crate::weights::{GgufType, Metadata, Planned, write_gguf};
use crate::{BaseParameter, LoadError};

/// What helps where the form is at its end.
const OTHERWISE: &str = "export it as a Hugging Face folder, and convert that by llama.cpp's convert_hf_to_gguf.py";
/// The version of llama.cpp's blocks.
const QUANTIZATION: u32 = 2;
/// By how much numbers may differ that are rounded to `f32` on the way.
const ROUNDING: f64 = 1e-5;

/// Writes the parameters of a decoder with this config.json.
///
/// # Errors
/// Where llama.cpp knows no such model or tokenizer, before anything is written; where the file cannot be written.
pub(super) fn write(
    parameters: &[BaseParameter],
    config: &Json,
    file: &Path,
    tokenizer: &FileTokenizer,
    of: GgufType,
) -> Result<(), LoadError> {
    // Where it is written to may be a place on the way.
    let name = file.file_name().map_or(file, Path::new);
    let refused = |why: String| LoadError::Refused {
        file: name.into(),
        reason: format!("cannot hold this model: {why}; {OTHERWISE}"),
    };
    let model_type = config["model_type"].as_str().unwrap_or_default();
    let row = Row::of_model(model_type);
    let row = row.ok_or_else(|| refused(format!("known of llama.cpp's are {}", Row::model_types().join(", "))))?;
    let own = parsed(file, config)?;
    let mut vocabulary = tokens::vocabulary(tokenizer, own.vocabulary).map_err(refused)?;
    // A tokenizer.json that stands alone names none of them.
    let of_config =
        |key: &str| [&config[key], &config[key][0]].into_iter().find_map(Json::as_u64).map(|id| id as usize);
    vocabulary.first = vocabulary.first.or_else(|| of_config("bos_token_id"));
    vocabulary.last = vocabulary.last.or_else(|| of_config("eos_token_id"));
    let mut metadata = metadata(row, &own, of);
    metadata.extend(vocabulary.to_metadata());
    let factors = factors(&own);
    let mut tensors = planned(row, &own, parameters, of).map_err(refused)?;
    if let Some(factors) = &factors {
        let length = factors.len();
        let make = move || Tensor::from_vec(factors.clone(), length, &Device::Cpu);
        tensors.push(Planned { name: FACTORS.into(), shape: vec![length], of: GgufType::F32, make: Box::new(make) });
    }
    let rows = |name: &str| tensors.iter().find(|tensor| tensor.name == name).and_then(|t| t.shape.first().copied());
    let again = said(&Metadata::new(&metadata), &rows, factors.clone())
        .ok_or_else(|| refused("what was written of it is not read again".into()))?;
    same(&own, &parsed(file, &again)?).map_err(refused)?;
    replace(file.into(), |file| write_gguf(file, &metadata, &tensors))
}

/// What a config.json says, whether it is in a file or not.
fn parsed(file: &Path, config: &Json) -> Result<Config, LoadError> {
    let (text, values) = (config.to_string(), Values::New { seed: 0 });
    let device = &Device::Cpu;
    Config::parse(&Source {
        file,
        text: &text,
        config: config.clone(),
        values,
        device,
        vocabulary: None,
        contrastive: false,
        keeps_statistics: false,
        quantize: None,
    })
}

/// The longest text. Where layers have windows and the file has no word for them, no longer than these: in a shorter one they hide nothing.
fn positions(row: &Row, config: &Config) -> usize {
    let windows = config.layers.iter().filter_map(|layer| layer.window).filter(|_| !row.windows);
    windows.chain([config.positions]).min().unwrap_or_default()
}

/// What is said of the model.
fn metadata(row: &Row, config: &Config, of: GgufType) -> Vec<(String, Value)> {
    let text = |text: &str| Some(Value::String(text.into()));
    let whole = |x: usize| Some(Value::U32(x as u32));
    let number = |x: f64| Some(Value::F32(x as f32));
    let rope = config.ropes.first();
    let stretched = rope.and_then(|rope| match rope.scaling {
        Scaling::Linear { factor } => Some(factor),
        _ => None,
    });
    let window = config.layers.iter().find_map(|layer| layer.window).filter(|_| row.windows);
    let of_model = [
        ("context_length", whole(positions(row, config))),
        ("embedding_length", whole(config.width)),
        ("block_count", whole(config.layers.len())),
        ("feed_forward_length", whole(config.inner)),
        ("vocab_size", whole(config.vocabulary)),
        ("attention.head_count", whole(config.heads)),
        ("attention.head_count_kv", whole(config.kv_heads)),
        ("attention.key_length", whole(config.head_dim)),
        ("attention.value_length", whole(config.head_dim)),
        ("attention.layer_norm_rms_epsilon", number(config.eps)),
        ("attention.sliding_window", window.and_then(whole)),
        ("rope.dimension_count", whole(config.head_dim)),
        ("rope.freq_base", rope.and_then(|rope| number(rope.theta))),
        ("rope.scaling.type", stretched.and_then(|_| text("linear"))),
        ("rope.scaling.factor", stretched.and_then(number)),
    ];
    let general = [
        ("general.architecture", text(row.name)),
        ("general.type", text("model")),
        ("general.file_type", Some(Value::U32(of.file_number()))),
        ("general.quantization_version", Some(Value::U32(QUANTIZATION))),
    ];
    let general = general.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    let of_model = of_model.into_iter().filter_map(|(key, value)| Some((format!("{}.{key}", row.name), value?)));
    general.chain(of_model).collect()
}

/// By what the frequencies of positions are divided, where no one number says it.
fn factors(config: &Config) -> Option<Vec<f32>> {
    let rope = config.ropes.first()?;
    if matches!(rope.scaling, Scaling::None | Scaling::Linear { .. }) {
        return None;
    }
    let plain = Rope { scaling: Scaling::None, ..rope.clone() }.frequencies(config.head_dim);
    Some(plain.iter().zip(rope.frequencies(config.head_dim)).map(|(plain, stretched)| plain / stretched).collect())
}

/// The tensors as the file has them.
fn planned<'a>(
    row: &Row,
    config: &Config,
    parameters: &'a [BaseParameter],
    of: GgufType,
) -> Result<Vec<Planned<'a>>, String> {
    let one = |BaseParameter { parameter, .. }: &'a BaseParameter| {
        let name = parameter.name();
        let named = name.rsplit_once('.').and_then(|(path, end)| Some((path, row.name_of(path)?, end)));
        let (path, part, end) = named.ok_or_else(|| format!("llama.cpp has no name for its {name}"))?;
        let change = row.change(path, Some(config.head_dim));
        let make = move || match change {
            Some(change) => change.made(&parameter.tensor()),
            None => Ok(parameter.tensor()),
        };
        let shape = parameter.dims().to_vec();
        Ok(Planned { name: format!("{part}.{end}"), of: of.of_shape(&shape), shape, make: Box::new(make) })
    };
    let tensors = parameters.iter().map(one).collect::<Result<Vec<_>, String>>()?;
    let above = if config.tied { "token_embd.weight" } else { "output.weight" };
    match tensors.iter().any(|tensor| tensor.name == above) {
        true => Ok(tensors),
        false => Err("it was opened without its layer over the vocabulary".into()),
    }
}

/// Whether a model that is read of the file computes the same; else what is another.
fn same(own: &Config, read: &Config) -> Result<(), String> {
    let close = |a: f64, b: f64| (a - b).abs() <= ROUNDING * a.abs().max(b.abs());
    let sizes = |config: &Config| {
        [
            config.width,
            config.heads,
            config.kv_heads,
            config.head_dim,
            config.inner,
            config.vocabulary,
            config.layers.len(),
        ]
    };
    let flags = |config: &Config| [config.qkv_bias, config.output_bias, config.inner_bias, config.tied];
    // A window as wide as the longest text hides nothing.
    let windows = |config: &Config| {
        let window = |window: usize| Some(window).filter(|window| *window < read.positions);
        config.layers.iter().map(|layer| layer.window.and_then(window)).collect::<Vec<_>>()
    };
    let frequencies = |config: &Config| {
        let of = |rope: usize| config.ropes.get(rope).map(|rope| rope.frequencies(config.head_dim));
        config.layers.iter().flat_map(|layer| of(layer.rope).unwrap_or_default()).collect::<Vec<f32>>()
    };
    let turns = frequencies(own).iter().zip(frequencies(read)).all(|(a, b)| close(f64::from(*a), f64::from(b)));
    let checks = [
        ("sizes", sizes(own) == sizes(read)),
        ("biases", flags(own) == flags(read)),
        ("activation", own.activation == read.activation),
        ("rms_norm_eps", close(own.eps, read.eps)),
        ("query_pre_attn_scalar", close(own.scale, read.scale)),
        ("layers with windows", windows(own) == windows(read)),
        ("rotary positions", turns),
    ];
    match checks.iter().find(|(_, same)| !same) {
        None => Ok(()),
        Some((what, _)) => Err(format!("llama.cpp's form has no word for its {what}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use fthost_autograd::{Layout, Tape};
    use serde_json::json;

    use super::*;
    use crate::{Input, Loader, Model, Read, TextInput};

    fn folder(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/decoders").join(name)
    }

    fn model(path: &Path) -> Box<dyn Model> {
        Loader::new(&Device::Cpu).with_vocabulary(0).open(path).unwrap()
    }

    /// The tokenizer of the tiny file of llama.cpp's: the tiny decoders have as many tokens.
    fn tokenizer() -> FileTokenizer {
        crate::tokenizer(&folder("../gguf/llama.gguf")).unwrap().unwrap()
    }

    fn features(model: &dyn Model, longest: usize) -> Vec<f32> {
        let layout = Layout::from_lengths([longest, 2]);
        let ids = (0..longest as u32 + 2).map(|i| i * 5 % 40).collect();
        let input = Input::Text(TextInput { ids, types: vec![0; longest + 2], layout, before: None });
        let features = model.forward(&Tape::evaluation(), &input, Read::Sequence).unwrap();
        features.value.tensor().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// One of the tiny decoders with what llama.cpp has a word for: Gemma's layers are two of six, and its scores those of others.
    fn in_order(name: &str, scratch: &Path) -> std::path::PathBuf {
        for file in std::fs::read_dir(folder(name)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), scratch.join(file.file_name())).unwrap();
        }
        let file = scratch.join("config.json");
        let mut config: Json = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        for key in ["layer_types", "query_pre_attn_scalar"] {
            config.as_object_mut().unwrap().remove(key);
        }
        std::fs::write(&file, config.to_string()).unwrap();
        scratch.to_owned()
    }

    #[test]
    fn every_row_of_the_table_is_read_again_with_equal_features() {
        for name in ["llama", "llama3", "mistral", "qwen2", "qwen3", "gemma3_text"] {
            let scratch = tempfile::tempdir().unwrap();
            let file = scratch.path().join("written.gguf");
            let own = model(&in_order(name, scratch.path()));
            own.save_gguf(&file, &tokenizer(), GgufType::F32).unwrap();
            let read = model(&file);
            // Where the file has no word for windows, its longest text is as wide as they are.
            let longest = if ["mistral", "qwen2"].contains(&name) { 3 } else { 9 };
            let (own, read) = (features(own.as_ref(), longest), features(read.as_ref(), longest));
            let apart = own.iter().zip(&read).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(own.len() == read.len() && apart < 2e-5, "{name}: {apart}");
            let of_file = crate::tokenizer(&file).unwrap().unwrap();
            assert_eq!((of_file.json, of_file.template), (tokenizer().json, tokenizer().template), "{name}");
        }
    }

    #[test]
    fn what_the_form_cannot_say_is_refused_before_a_tensor_is_written() {
        let check = |name: &str, key: &str, value: Json, expected: &str| {
            let scratch = tempfile::tempdir().unwrap();
            let file = scratch.path().join("model.gguf");
            let own = model(&folder(name));
            let text = std::fs::read_to_string(folder(name).join("config.json")).unwrap();
            let mut config: Json = serde_json::from_str(&text).unwrap();
            config.as_object_mut().unwrap().remove("query_pre_attn_scalar");
            config[key] = value;
            let error = write(own.parameters(), &config, &file, &tokenizer(), GgufType::F16).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("convert_hf_to_gguf.py"), "{error}");
            assert!(std::fs::read_dir(scratch.path()).unwrap().next().is_none());
        };
        check("gemma3_text", "query_pre_attn_scalar", json!(3), "query_pre_attn_scalar");
        check("gemma3_text", "attention_dropout", json!(0), "layers with windows");
        check("llama", "hidden_act", json!("gelu"), "activation");
        let bert = model_of_bert();
        let error = bert.save_gguf(Path::new("model.gguf"), &tokenizer(), GgufType::F16).unwrap_err().to_string();
        assert!(error.contains("cannot hold a bert model"), "{error}");
        let headless = crate::open(&folder("llama"), &Device::Cpu).unwrap();
        let error = headless.save_gguf(Path::new("model.gguf"), &tokenizer(), GgufType::F16).unwrap_err().to_string();
        assert!(error.contains("without its layer over the vocabulary"), "{error}");
    }

    fn model_of_bert() -> Box<dyn Model> {
        crate::open(&folder("../tiny/bert"), &Device::Cpu).unwrap()
    }
}
