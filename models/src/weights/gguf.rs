//! GGUF: a language model of llama.cpp's in one file, with what its config and tokenizer say.

use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, TensorInfo, Value};
use safetensors::tensor::Dtype;

use super::blocks::known;
use super::entry::{Elements, Entry};
use super::pickle::Refusal;

const MAGIC: &[u8] = b"GGUF";
/// Where tensors begin is a multiple of what stands here; its absence means 32.
const ALIGNMENT: &str = "general.alignment";

/// Whether a file is one.
pub(super) fn is(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// What a file says of its model: names and values, without the lists of a tokenizer.
#[derive(Debug)]
pub(crate) struct Metadata(HashMap<String, Value>);

impl Metadata {
    /// What such names and values say.
    pub(crate) fn new(said: &[(String, Value)]) -> Self {
        Self(said.iter().filter(|(_, value)| !matches!(value, Value::Array(_))).cloned().collect())
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.0.get(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// A whole number of any type that is not below 0.
    pub(crate) fn whole(&self, key: &str) -> Option<usize> {
        whole(self.0.get(key)?).and_then(|x| usize::try_from(x).ok())
    }

    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        number(self.0.get(key)?)
    }
}

/// What a file says of its tokenizer: llama.cpp's `tokenizer.ggml.*`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Vocabulary {
    /// `gpt2`: pairs of bytes; `llama`: pieces of SentencePiece.
    pub(crate) model: String,
    /// How texts are split before pairs are merged.
    pub(crate) splits: Option<String>,
    /// By number.
    pub(crate) tokens: Vec<String>,
    /// Their kinds.
    pub(crate) types: Vec<i64>,
    /// Their logarithms of probability, of pieces.
    pub(crate) scores: Vec<f64>,
    /// Pairs with a space between them, in their order.
    pub(crate) merges: Vec<String>,
    pub(crate) unknown: Option<usize>,
    pub(crate) first: Option<usize>,
    pub(crate) last: Option<usize>,
    pub(crate) padding: Option<usize>,
    pub(crate) add_first: bool,
    pub(crate) add_last: bool,
    /// Whether a text is read as if a space stood before it.
    pub(crate) space_first: bool,
    /// Of a chat.
    pub(crate) template: Option<String>,
}

/// What a file says of its tokenizer, where it has one.
pub(super) fn vocabulary(bytes: &[u8]) -> Result<Option<Vocabulary>, Refusal> {
    let content = content(bytes)?;
    let get = |key: &str| content.metadata.get(&format!("tokenizer.{key}"));
    let text = |key: &str| get(key).and_then(|value| value.to_string().ok()).cloned();
    let list = |key: &str| get(key).and_then(|value| value.to_vec().ok()).map_or(&[][..], Vec::as_slice);
    let texts = |key: &str| list(key).iter().filter_map(|value| value.to_string().ok().cloned()).collect::<Vec<_>>();
    let Some(model) = text("ggml.model") else { return Ok(None) };
    let tokens = texts("ggml.tokens");
    let types: Vec<i64> = list("ggml.token_type").iter().filter_map(whole).collect();
    let scores: Vec<f64> = list("ggml.scores").iter().filter_map(number).collect();
    if tokens.is_empty() || ![0, tokens.len()].contains(&types.len()) {
        let why = format!("it has {} tokens, and {} kinds of them", tokens.len(), types.len());
        return Err(damaged(&why));
    }
    let id = |key: &str| get(key).and_then(whole).and_then(|id| usize::try_from(id).ok());
    let flag = |key: &str, usual: bool| get(key).and_then(|value| value.to_bool().ok()).unwrap_or(usual);
    let of_pieces = model == "llama";
    let splits = text("ggml.pre");
    // What llama.cpp does where nothing is said.
    let begins = of_pieces || splits.as_deref().is_some_and(|splits| splits.starts_with("llama"));
    Ok(Some(Vocabulary {
        splits,
        types,
        scores,
        merges: texts("ggml.merges"),
        unknown: id("ggml.unknown_token_id"),
        first: id("ggml.bos_token_id"),
        last: id("ggml.eos_token_id"),
        padding: id("ggml.padding_token_id"),
        add_first: flag("ggml.add_bos_token", begins),
        add_last: flag("ggml.add_eos_token", false),
        space_first: flag("ggml.add_space_prefix", of_pieces),
        template: text("chat_template"),
        tokens,
        model,
    }))
}

impl Vocabulary {
    /// What a file says of such a tokenizer: what [`vocabulary`] reads.
    pub(crate) fn to_metadata(&self) -> Vec<(String, Value)> {
        let texts = |list: &[String]| Value::Array(list.iter().cloned().map(Value::String).collect());
        let ints = |list: &[i64]| Value::Array(list.iter().map(|&x| Value::I32(x as i32)).collect());
        let floats = |list: &[f64]| Value::Array(list.iter().map(|&x| Value::F32(x as f32)).collect());
        let id = |id: Option<usize>| id.map(|id| Value::U32(id as u32));
        let of_pieces = self.model == "llama";
        let all = [
            ("ggml.model", Some(Value::String(self.model.clone()))),
            ("ggml.pre", Some(Value::String(self.splits.clone().unwrap_or_else(|| "default".into())))),
            ("ggml.tokens", Some(texts(&self.tokens))),
            ("ggml.token_type", Some(ints(&self.types))),
            ("ggml.scores", of_pieces.then(|| floats(&self.scores))),
            ("ggml.merges", (!of_pieces).then(|| texts(&self.merges))),
            ("ggml.unknown_token_id", id(self.unknown)),
            ("ggml.bos_token_id", id(self.first)),
            ("ggml.eos_token_id", id(self.last)),
            ("ggml.padding_token_id", id(self.padding)),
            ("ggml.add_bos_token", Some(Value::Bool(self.add_first))),
            ("ggml.add_eos_token", Some(Value::Bool(self.add_last))),
            ("ggml.add_space_prefix", of_pieces.then_some(Value::Bool(self.space_first))),
            ("chat_template", self.template.clone().map(Value::String)),
        ];
        all.into_iter().filter_map(|(key, value)| Some((format!("tokenizer.{key}"), value?))).collect()
    }
}

fn whole(value: &Value) -> Option<i64> {
    match *value {
        Value::U8(x) => Some(x.into()),
        Value::U16(x) => Some(x.into()),
        Value::U32(x) => Some(x.into()),
        Value::U64(x) => i64::try_from(x).ok(),
        Value::I8(x) => Some(x.into()),
        Value::I16(x) => Some(x.into()),
        Value::I32(x) => Some(x.into()),
        Value::I64(x) => Some(x),
        _ => None,
    }
}

fn number(value: &Value) -> Option<f64> {
    match *value {
        Value::F32(x) => Some(x.into()),
        Value::F64(x) => Some(x),
        _ => whole(value).map(|x| x as f64),
    }
}

fn damaged(why: &str) -> Refusal {
    format!("is a damaged GGUF file, or none: {why}; download it again")
}

fn content(bytes: &[u8]) -> Result<Content, Refusal> {
    // An alignment of 0 ends candle's reader with a panic; it has changed nothing by then.
    catch_unwind(AssertUnwindSafe(|| Content::read(&mut Cursor::new(bytes))))
        .map_err(|_| damaged(&format!("its {ALIGNMENT} cannot be")))?
        .map_err(|error| damaged(&error.to_string()))
}

/// What a file says of its tensors and of its model.
pub(super) fn read(bytes: &[u8]) -> Result<(BTreeMap<String, Entry>, Metadata), Refusal> {
    let Content { metadata, tensor_infos, tensor_data_offset, .. } = content(bytes)?;
    let mut entries = BTreeMap::new();
    for (name, info) in tensor_infos {
        let entry = entry(&name, &info, tensor_data_offset, bytes.len()).map_err(|reason| match reason {
            Wrong::Damage(why) => damaged(&why),
            Wrong::Kind(why) => why,
        })?;
        entries.insert(name, entry);
    }
    let metadata = metadata.into_iter().filter(|(_, value)| !matches!(value, Value::Array(_))).collect();
    Ok((entries, Metadata(metadata)))
}

enum Wrong {
    Damage(String),
    Kind(String),
}

/// Where a tensor lies in a file of so many bytes.
fn entry(name: &str, info: &TensorInfo, data: u64, file: usize) -> Result<Entry, Wrong> {
    let shape = info.shape.dims().to_vec();
    let of = info.ggml_dtype;
    let elements = match of {
        GgmlDType::F32 => Elements::Plain(Dtype::F32),
        GgmlDType::F16 => Elements::Plain(Dtype::F16),
        GgmlDType::BF16 => Elements::Plain(Dtype::BF16),
        of if known(of) => Elements::Blocks(of),
        of => {
            return Err(Wrong::Kind(format!(
                "holds {name} in blocks of the kind {of:?}, which is not read; convert it with llama-quantize"
            )));
        }
    };
    let row = shape.last().copied().unwrap_or(1);
    if !row.is_multiple_of(of.block_size()) {
        return Err(Wrong::Damage(format!(
            "{name} has rows of {row} elements, and its blocks have {}",
            of.block_size()
        )));
    }
    let range = shape
        .iter()
        .try_fold(1usize, |product, extent| product.checked_mul(*extent))
        .and_then(|elements| (elements / of.block_size()).checked_mul(of.type_size()))
        .and_then(|length| range(data, info.offset, length))
        .filter(|range| range.end <= file);
    let range =
        range.ok_or_else(|| Wrong::Damage(format!("{name} of shape {shape:?} does not lie in its {file} bytes")))?;
    Ok(Entry { elements, shape, strides: None, range })
}

fn range(data: u64, offset: u64, length: usize) -> Option<Range<usize>> {
    let start = usize::try_from(data.checked_add(offset)?).ok()?;
    Some(start..start.checked_add(length)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use candle_core::quantized::{QTensor, gguf_file};
    use candle_core::{DType, Device, Tensor};
    use fthost_autograd::{Codes, Source};

    use super::super::{Change, Weights};
    use super::*;

    fn values(rows: usize, width: usize) -> Tensor {
        let of = |i: usize| ((i * 37 % 101) as f32 - 50.0) * 0.013 * (1.0 + (i % 7) as f32);
        Tensor::from_vec((0..rows * width).map(of).collect::<Vec<_>>(), (rows, width), &Device::Cpu).unwrap()
    }

    fn file(metadata: &[(&str, Value)], tensors: &[(&str, &QTensor)]) -> Vec<u8> {
        let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
        let mut bytes = Cursor::new(Vec::new());
        gguf_file::write(&mut bytes, &metadata, tensors).unwrap();
        bytes.into_inner()
    }

    fn refusal(bytes: Vec<u8>) -> String {
        Weights::from_bytes("model.gguf", bytes).unwrap_err().to_string()
    }

    #[test]
    fn every_kind_of_block_is_read_whole_and_in_pieces() {
        use GgmlDType::{BF16, F16, F32, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
        let values = values(3, 512);
        for kind in [F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K] {
            let stored = QTensor::quantize(&values, kind).unwrap();
            let expected: Vec<f32> = stored.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let weights = Weights::from_bytes("model.gguf", file(&[], &[("w", &stored)])).unwrap();
            let stored = weights.stored("w", &[3, 512]).unwrap();
            for (start, length) in [(0, 1536), (512, 512), (5, 1000), (700, 3), (31, 2), (0, 0)] {
                let mut piece = vec![0f32; length];
                stored.read(start, &mut piece);
                assert_eq!(piece, expected[start..start + length], "{kind:?} from {start}");
            }
            // Products read codes of the same values.
            let Some(of) = stored.quantization() else {
                assert!(matches!(kind, F32 | F16 | BF16 | Q2K | Q3K), "{kind:?}");
                continue;
            };
            for (start, length) in [(0, 1536), (512, 512)] {
                let (blocks, mut piece) = (length / of.block, vec![0f32; length]);
                let offsets = vec![0.0; if of.has_offsets { blocks } else { 0 }];
                let mut codes = Codes { codes: vec![0; length], scales: vec![0.0; blocks], offsets };
                stored.read_codes(start, &mut codes);
                codes.values(&of, &mut piece);
                assert_eq!(piece, expected[start..start + length], "codes of {kind:?} from {start}");
            }
        }
    }

    #[test]
    fn what_a_file_has_otherwise_is_undone() {
        const DIM: usize = 6;
        let values = values(2 * DIM, 4);
        // As llama.cpp's converter lays them out: `[heads, 2, dim / 2, in]` becomes `[heads, dim / 2, 2, in]`.
        let laid = values.reshape((2, 2, DIM / 2, 4)).unwrap().transpose(1, 2).unwrap().reshape((2 * DIM, 4)).unwrap();
        let made = Change::Neighbours(DIM).made(&values).unwrap();
        assert_eq!(made.to_vec2::<f32>().unwrap(), laid.to_vec2::<f32>().unwrap());
        let laid = QTensor::quantize(&laid.contiguous().unwrap(), GgmlDType::F32).unwrap();
        let weights = Weights::from_bytes("model.gguf", file(&[], &[("q", &laid)])).unwrap();
        let changed = |change| {
            let weights = Weights::from_bytes("model.gguf", file(&[], &[("q", &laid)])).unwrap();
            weights.renamed(|name| Some((format!("new.{name}"), Some(change))))
        };
        let all: Vec<f32> = values.flatten_all().unwrap().to_vec1().unwrap();
        let stored = changed(Change::Neighbours(DIM)).stored("new.q", &[2 * DIM, 4]).unwrap();
        for (start, length) in [(0, 48), (3, 10), (24, 24), (7, 1)] {
            let mut piece = vec![0f32; length];
            stored.read(start, &mut piece);
            assert_eq!(piece, all[start..start + length]);
        }
        let before = weights.tensor("q", &Device::Cpu).unwrap();
        let after = changed(Change::Plus(1.0)).tensor("new.q", &Device::Cpu).unwrap();
        assert_eq!((before - 1.0).unwrap().to_vec2::<f32>().unwrap(), after.to_vec2::<f32>().unwrap());
    }

    #[test]
    fn settings_have_any_type_of_number() {
        let metadata = [
            ("a", Value::U16(7)),
            ("b", Value::I64(-1)),
            ("c", Value::F32(0.5)),
            ("d", Value::String("llama".into())),
            ("tokens", Value::Array(vec![Value::U8(1)])),
        ];
        let weight = QTensor::quantize(&values(1, 32), GgmlDType::Q8_0).unwrap();
        let weights = Weights::from_bytes("model.gguf", file(&metadata, &[("w", &weight)])).unwrap();
        let of = weights.metadata().unwrap();
        assert_eq!(
            (of.whole("a"), of.number("a"), of.whole("b"), of.number("c")),
            (Some(7), Some(7.0), None, Some(0.5))
        );
        assert_eq!((of.text("d"), of.text("a"), of.whole("tokens"), of.number("e")), (Some("llama"), None, None, None));
    }

    #[test]
    fn damage_is_named() {
        let weight = QTensor::quantize(&values(4, 256), GgmlDType::Q4K).unwrap();
        let good = file(&[("general.architecture", Value::String("llama".into()))], &[("w", &weight)]);
        for length in [4, 7, 20, 60, good.len() - 1] {
            let error = refusal(good[..length].to_vec());
            assert!(error.contains("damaged GGUF file") && error.contains("download it again"), "{length}: {error}");
        }
        // Counts that no file could hold.
        for place in [8, 16] {
            let mut absurd = good.clone();
            absurd[place..place + 8].fill(0x7f);
            assert!(refusal(absurd).contains("damaged GGUF file"));
        }
        assert!(refusal(file(&[(ALIGNMENT, Value::U32(0))], &[("w", &weight)])).contains(ALIGNMENT));
        let unknown = QTensor::quantize(&values(4, 256), GgmlDType::Q8K).unwrap();
        assert!(refusal(file(&[], &[("w", &unknown)])).contains("of the kind Q8K, which is not read"));
        let half = Tensor::zeros((1, 3), DType::F32, &Device::Cpu).unwrap();
        let half = QTensor::quantize(&half, GgmlDType::F32).unwrap();
        let mut odd = file(&[], &[("w", &half)]);
        // Its type, after the name and two extents.
        let place = odd.windows(9).position(|bytes| bytes[..9] == [1, 0, 0, 0, 0, 0, 0, 0, b'w']).unwrap() + 9 + 4 + 16;
        odd[place] = 8;
        assert!(refusal(odd).contains("rows of 3 elements"));
    }
}
