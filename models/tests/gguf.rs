//! Files of llama.cpp's as its own package writes them (tests/reference/make_gguf.py): the model, its tokenizer and template, and what
//! blocks of every kind hold.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::PathBuf;

use fthost_models::autograd::{Device, Layout, Tape};
use fthost_models::{Input, Model, Read, TextInput, Weights};
use support::{Expected, assert_close, reference, rows};
use tokenizers::Tokenizer;

fn file(name: &str) -> PathBuf {
    reference().join("gguf").join(name)
}

/// The model of a file, and of the folder that it was made of.
fn both(row: &str) -> [Box<dyn Model>; 2] {
    let folder = reference().join("decoders").join(row);
    [file(&format!("{row}.gguf")), folder].map(|path| fthost_models::open(&path, &Device::Cpu).unwrap())
}

#[test]
fn blocks_of_every_kind_hold_what_the_package_makes_of_them() {
    let weights = Weights::open(&file("blocks.gguf")).unwrap();
    let expected = candle_core::safetensors::load(file("blocks.safetensors"), &Device::Cpu).unwrap();
    assert_eq!(expected.len(), 10);
    for (kind, expected) in expected {
        let found = weights.tensor(&kind, &Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
        let expected = expected.to_vec2::<f32>().unwrap();
        let bits = |rows: &[Vec<f32>]| rows.concat().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let places = bits(&found).iter().zip(&bits(&expected)).filter(|(a, b)| a != b).count();
        assert_eq!(places, 0, "{kind}: {places} of 1024 differ: {:?} and {:?}", &found[0][..4], &expected[0][..4]);
    }
}

#[test]
fn a_model_is_that_of_the_folder_which_its_file_was_made_of() {
    for row in ["llama", "gemma3_text"] {
        let [of_file, of_folder] = both(row);
        let parameters = |model: &dyn Model| {
            model
                .parameters()
                .iter()
                .map(|of| (of.parameter.name().to_owned(), of.parameter.tensor()))
                .collect::<Vec<_>>()
        };
        let (found, expected) = (parameters(&*of_file), parameters(&*of_folder));
        assert_eq!(found.len(), expected.len(), "{row}");
        for ((name, found), (expected_name, expected)) in found.iter().zip(&expected) {
            assert_eq!(name, expected_name);
            // What is added to the weights of norms and taken away again costs a bit.
            assert_close(found, expected, 1e-6, &format!("{row}: {name}"));
        }
    }
}

#[test]
fn hidden_states_equal_transformers() {
    let [model, _] = both("llama");
    let expected = Expected::open(&reference().join("decoders/llama/expected.safetensors"));
    let ids = expected.numbered("ids");
    let ids: Vec<Vec<u32>> =
        ids.iter().map(|ids| ids.to_vec1::<i64>().unwrap().iter().map(|id| *id as u32).collect()).collect();
    let layout = Layout::from_lengths(ids.iter().map(Vec::len));
    let input = TextInput { ids: ids.concat(), types: vec![0; ids.concat().len()], layout, before: None };
    let features = model.forward(&Tape::evaluation(), &Input::Text(input), Read::Sequence).unwrap();
    for (i, hidden) in expected.numbered("hidden").iter().enumerate() {
        assert_close(&rows(features.value.tensor(), &features.layout, i), hidden, 1e-4, &format!("sequence {i}"));
    }
}

#[test]
fn the_tokenizer_and_the_template_come_from_the_file() {
    let path = file("llama.gguf");
    assert_eq!(fthost_models::tokenizer_file(&path), path);
    let found = fthost_models::tokenizer(&path).unwrap().unwrap();
    let tokenizer = Tokenizer::from_bytes(found.json.to_string()).unwrap();
    let encoded = tokenizer.encode("</s>there an 12.", true).unwrap();
    assert_eq!(encoded.get_tokens(), ["</s>", "th", "er", "e", "\u{120}an", "\u{120}", "1", "2", "."]);
    assert_eq!(tokenizer.decode(encoded.get_ids(), true).unwrap(), "there an 12.");
    let special = [("bos_token", "<s>"), ("eos_token", "</s>"), ("pad_token", "<pad>")];
    assert_eq!(found.special, special.map(|(part, token)| (part, token.to_owned())));
    assert!(found.template.unwrap().contains("message['role']"));
    // A folder of safetensors has its tokenizer in a file of its own.
    let folder = reference().join("decoders/llama");
    assert_eq!(fthost_models::tokenizer(&folder).unwrap(), None);
    assert_eq!(fthost_models::tokenizer_file(&folder), folder.join("tokenizer.json"));
}
