//! Models whose linear layers are quantised as they are loaded, and those that lie quantised in a file: what they compute is what weights of
//! the same values do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::Path;

use fthost_models::autograd::{Device, Layout, Precision, Tape, TapeOptions, Tensor};
use fthost_models::{Input, Loader, Model, Quantize, Read, SavedHead, TextInput};
use support::reference;

const CONFIG: &str = r#"{
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": true
}"#;

fn features(model: &dyn Model, precision: Precision) -> Vec<u32> {
    let ids: Vec<u32> = (0..40).map(|i| i * 7 % 300).collect();
    let layout = Layout::from_lengths([24, 16]);
    let input = Input::Text(TextInput { types: vec![0; ids.len()], ids, layout, before: None });
    let tape = Tape::new(TapeOptions { precision, ..TapeOptions::default() });
    let features = model.forward(&tape, &input, Read::Sequence).unwrap();
    features.value.tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// Copies the values of one model's parameters to another's, so that they are held there.
fn copy(from: &dyn Model, to: &dyn Model) {
    for (from, to) in from.parameters().iter().zip(to.parameters()) {
        assert_eq!(from.parameter.name(), to.parameter.name());
        to.parameter.set(&from.parameter.tensor()).unwrap();
    }
}

fn quantized(model: &dyn Model) -> usize {
    model.parameters().iter().filter(|of| of.parameter.quantization().is_some()).count()
}

#[test]
fn quantised_layers_compute_what_their_values_do() {
    let folder = tempfile::tempdir().unwrap();
    let made = fthost_models::random(CONFIG, 1, &Device::Cpu).unwrap();
    made.save_folder(folder.path(), &SavedHead::default()).unwrap();
    let open = |quantize| Loader::new(&Device::Cpu).quantized(quantize).open(folder.path()).unwrap();
    let plain = open(None);
    assert_eq!(quantized(&*plain), 0);
    for kind in [Quantize::Nf4, Quantize::Q8_0] {
        let (kept, held) = (open(Some(kind)), open(None));
        // All linear layers of two blocks, and nothing else.
        assert_eq!(quantized(&*kept), 14);
        copy(&*kept, &*held);
        assert_eq!(quantized(&*held), 0);
        for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
            let found = features(&*kept, precision);
            assert_eq!(found, features(&*held, precision), "{kind:?} {precision:?}");
            assert_ne!(found, features(&*plain, precision), "{kind:?} {precision:?}");
        }
        // What is remembered of a file's parameters is not that of the quantised ones.
        let identity = |model: &dyn Model| model.files()[0].identity.clone();
        assert_ne!(identity(&*kept), identity(&*plain));
    }
}

#[test]
fn gradients_pass_quantised_layers() {
    let folder = tempfile::tempdir().unwrap();
    fthost_models::random(CONFIG, 1, &Device::Cpu).unwrap().save_folder(folder.path(), &SavedHead::default()).unwrap();
    let gradient = |model: &dyn Model| {
        for of in model.parameters() {
            of.parameter.set_trainable(of.parameter.name() == "layers.0.input_layernorm.weight");
        }
        let tape = Tape::recording();
        let ids: Vec<u32> = (0..30).collect();
        let layout = Layout::from_lengths([30]);
        let input = Input::Text(TextInput { types: vec![0; 30], ids, layout, before: None });
        let y = model.forward(&tape, &input, Read::Sequence).unwrap().value;
        let ones = Tensor::ones_like(y.tensor()).unwrap();
        let gradients = tape.backward_from(vec![(y, ones)]).unwrap();
        let norm = &model.parameters()[1].parameter;
        gradients.get(norm).unwrap().to_dense(norm.dims()).unwrap().to_vec1::<f32>().unwrap()
    };
    let open = |quantize| Loader::new(&Device::Cpu).quantized(quantize).open(folder.path()).unwrap();
    for kind in [Quantize::Nf4, Quantize::Q8_0] {
        let (kept, held) = (open(Some(kind)), open(None));
        copy(&*kept, &*held);
        assert_eq!(kept.parameters()[1].parameter.name(), "layers.0.input_layernorm.weight");
        assert_eq!(gradient(&*kept), gradient(&*held), "{kind:?}");
    }
}

#[test]
fn blocks_of_a_file_stay_what_they_are() {
    let file = reference().join("gguf").join("llama.gguf");
    // Its tensors are floats.
    assert_eq!(quantized(&*fthost_models::open(&file, &Device::Cpu).unwrap()), 0);
    let Some(file) = std::env::var_os("FTHOST_SMOLLM2").and_then(|folder| {
        let beside = Path::new(&folder).parent()?.join("gguf");
        std::fs::read_dir(beside)
            .ok()?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|of| of == "gguf"))
    }) else {
        eprintln!("skipped: FTHOST_SMOLLM2 names no folder beside one with a .gguf file");
        return;
    };
    let (kept, held) =
        (fthost_models::open(&file, &Device::Cpu).unwrap(), fthost_models::open(&file, &Device::Cpu).unwrap());
    assert!(quantized(&*kept) >= 7 * 30);
    copy(&*kept, &*held);
    assert_eq!(features(&*kept, Precision::F32), features(&*held, Precision::F32));
}
