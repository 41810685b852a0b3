//! SmolLM2-135M-Instruct, a real pretrained decoder, against Transformers on the same weights.
//!
//! The folder is looked for in `FTHOST_SMOLLM2`, then in target/fixtures/smollm2; the text in `FTHOST_DATA`, then beside the repository.
//! Without them the test is skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::path::{Path, PathBuf};

use fthost_models::autograd::{DType, Device, Layout, Tape, Tensor};
use fthost_models::{Input, Read, TextInput, Weights};
use tokenizers::Tokenizer;

fn path(variable: &str, other: &str) -> Option<PathBuf> {
    let given = std::env::var_os(variable).map(PathBuf::from);
    let path = given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(other));
    if !path.exists() {
        println!("skipped: nothing at {} (set {variable})", path.display());
        return None;
    }
    Some(path)
}

/// Transformers: a loss of 3.31812 over the 4,088 tokens that follow others in eight blocks of 512.
#[test]
fn the_loss_of_the_next_token_equals_transformers() {
    const BLOCK: usize = 512;
    let (Some(folder), Some(data)) =
        (path("FTHOST_SMOLLM2", "../target/fixtures/smollm2"), path("FTHOST_DATA", "../../shared/data"))
    else {
        return;
    };
    let text = std::fs::read_to_string(data.join("language/wikitext2-test.txt")).unwrap();
    // Eight blocks are far less than this.
    let start: String = text.chars().take(60_000).collect();
    let tokenizer = Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
    let ids = tokenizer.encode(start, false).unwrap().get_ids().to_vec();

    let model = fthost_models::open(&folder, &Device::Cpu).unwrap();
    // The head is the word embeddings.
    let words = Weights::open(&folder).unwrap().tensor("model.embed_tokens.weight", &Device::Cpu).unwrap();
    let (mut sum, mut scored) = (0f64, 0);
    for block in ids.chunks(BLOCK).take(8) {
        let input = TextInput {
            ids: block.to_vec(),
            types: vec![0; BLOCK],
            layout: Layout::from_lengths([BLOCK]),
            before: None,
        };
        let hidden = model.forward(&Tape::evaluation(), &Input::Text(input), Read::Sequence).unwrap().value;
        let logits = hidden.tensor().narrow(0, 0, BLOCK - 1).unwrap().matmul(&words.t().unwrap()).unwrap();
        let log_sums = logits.log_sum_exp(1).unwrap();
        let targets = Tensor::new(&block[1..], &Device::Cpu).unwrap().unsqueeze(1).unwrap();
        let of_targets = logits.gather(&targets, 1).unwrap().squeeze(1).unwrap();
        let losses = (log_sums - of_targets).unwrap().to_dtype(DType::F64).unwrap();
        sum += losses.sum_all().unwrap().to_scalar::<f64>().unwrap();
        scored += BLOCK - 1;
    }
    let loss = sum / scored as f64;
    println!("loss {loss:.6} over {scored} tokens");
    assert_eq!(scored, 4088);
    assert!((loss - 3.31812).abs() < 1e-4, "{loss}");
}

/// The folder was made of the file: its weights are the file's, rounded to bf16.
#[test]
fn a_file_of_llama_cpp_is_the_same_model() {
    let Some(folder) = path("FTHOST_SMOLLM2", "../target/fixtures/smollm2") else { return };
    let file = folder.join("../gguf/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !file.exists() {
        return println!("skipped: nothing at {}", file.display());
    }
    let [folder, file] = [&folder, &file].map(|path| fthost_models::open(path, &Device::Cpu).unwrap());
    assert_eq!(folder.info(), file.info());
    assert_eq!(folder.parameters().len(), file.parameters().len());
    for (one, other) in folder.parameters().iter().zip(file.parameters()) {
        assert_eq!(one.parameter.name(), other.parameter.name());
        let rounded = other.parameter.tensor().to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
        let difference = (one.parameter.tensor() - rounded).unwrap().abs().unwrap().flatten_all().unwrap();
        assert_eq!(difference.max(0).unwrap().to_scalar::<f32>().unwrap(), 0.0, "{}", one.parameter.name());
    }
    let input =
        TextInput { ids: (5..25).collect(), types: vec![0; 20], layout: Layout::from_lengths([20]), before: None };
    let of = |model: &dyn fthost_models::Model| {
        let hidden = model.forward(&Tape::evaluation(), &Input::Text(input.clone()), Read::Sequence).unwrap().value;
        hidden.into_tensor()
    };
    // What rounding weights to bf16 makes of thirty layers.
    let difference =
        (of(&*folder) - of(&*file)).unwrap().sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
    let size = of(&*file).sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(difference < 1e-3 * size, "{difference} of {size}");
}

/// The tokenizer that the file comes with reads texts as that of the folder does.
#[test]
fn a_file_of_llama_cpp_splits_texts_as_the_folder_does() {
    let (Some(folder), Some(data)) =
        (path("FTHOST_SMOLLM2", "../target/fixtures/smollm2"), path("FTHOST_DATA", "../../shared/data"))
    else {
        return;
    };
    let file = folder.join("../gguf/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !file.exists() {
        return println!("skipped: nothing at {}", file.display());
    }
    let found = fthost_models::tokenizer(&file).unwrap().unwrap();
    assert_eq!(found.template.as_deref(), std::fs::read_to_string(folder.join("chat_template.jinja")).ok().as_deref());
    let of_file = Tokenizer::from_bytes(found.json.to_string()).unwrap();
    let of_folder = Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
    let text = std::fs::read_to_string(data.join("language/wikitext2-test.txt")).unwrap();
    let mut tokens = 0;
    for line in text.lines().take(1_000).chain(["<|im_start|>user\nWas 1066 before 1815?  \tYes\n\n<|im_end|>", ""]) {
        let [found, expected] = [&of_file, &of_folder].map(|of| of.encode(line, true).unwrap().get_ids().to_vec());
        assert_eq!(found, expected, "{line}");
        tokens += found.len();
    }
    println!("{tokens} tokens");
    assert!(tokens > 50_000);
}
