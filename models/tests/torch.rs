//! Files of `torch.save` are read as PyTorch reads them, and nothing in them is run. `tests/reference/make_torch_files.py` made them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Device;
use fthost_models::Weights;
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    shape: Vec<usize>,
    values: Vec<f64>,
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch").join(name)
}

fn values(weights: &Weights, name: &str) -> (Vec<usize>, Vec<f32>) {
    let tensor = weights.tensor(name, &Device::Cpu).unwrap();
    (tensor.dims().to_vec(), tensor.flatten_all().unwrap().to_vec1().unwrap())
}

fn expected() -> BTreeMap<String, Expected> {
    serde_json::from_slice(&std::fs::read(file("expected.json")).unwrap()).unwrap()
}

#[test]
fn state_dicts_of_both_forms_hold_the_values_that_pytorch_saved() {
    for name in ["zip.pth", "legacy.pth", "training.pth", "training-legacy.pth"] {
        let weights = Weights::open(&file(name)).unwrap();
        let expected = expected();
        assert!(weights.names().eq(expected.keys()), "{name}");
        for (tensor, Expected { shape, values: of_torch }) in expected {
            if tensor.ends_with("num_batches_tracked") {
                let error = weights.tensor(&tensor, &Device::Cpu).unwrap_err().to_string();
                assert!(error.contains("holds I64"), "{error}");
                continue;
            }
            let (found, values) = values(&weights, &tensor);
            assert_eq!(found, shape, "{name}: {tensor}");
            assert!(values.iter().zip(&of_torch).all(|(&ours, &theirs)| ours == theirs as f32), "{name}: {tensor}");
        }
    }
    let weights = Weights::open(&file("parameters.pth")).unwrap();
    assert!(weights.names().eq(["0.bias", "0.weight", "1.bias", "1.weight", "2.bias", "2.weight"]));
}

#[test]
fn tensors_share_storages_and_have_types() {
    let weights = Weights::open(&file("views.pth")).unwrap();
    assert_eq!(values(&weights, "first"), (vec![4], vec![0., 1., 2., 3.]));
    assert_eq!(values(&weights, "second"), (vec![2, 4], vec![4., 5., 6., 7., 8., 9., 10., 11.]));
    let weights = Weights::open(&file("transposed.pth")).unwrap();
    assert_eq!(values(&weights, "x"), (vec![3, 2], vec![0., 3., 1., 4., 2., 5.]), "by its strides");
    for (name, small) in [("float16.pth", 0.001_000_404_4), ("bfloat16.pth", 0.000_999_450_7), ("float64.pth", 0.001)] {
        let weights = Weights::open(&file(name)).unwrap();
        assert_eq!(values(&weights, "x"), (vec![3], vec![1.5, -2.25, small]), "{name}");
    }
}

#[test]
fn what_is_no_state_dict_is_refused_and_never_run() {
    for (name, said) in [
        ("foreign.pth", "is a pickle that calls posix.system, which stands in no state dict and is never run here"),
        ("foreign-legacy.pth", "is a pickle that calls posix.system"),
        ("whole-model.pth", "is a pickle that calls torch.nn.modules.container.Sequential"),
        ("no-tensors.pth", "holds no state dict"),
        ("plain.pth", "is a pickle that torch.save did not write"),
    ] {
        let error = Weights::open(&file(name)).unwrap_err().to_string();
        assert!(error.contains(said), "{name}: {error}");
    }
    assert!(!Path::new("/tmp/a-pickle-was-run").exists());
}

/// Every beginning of a file, and every file with one byte changed, is read or refused.
#[test]
fn damaged_files_are_refused_or_read_and_nothing_else() {
    for name in ["zip.pth", "legacy.pth"] {
        let bytes = std::fs::read(file(name)).unwrap();
        let mut refused = 0;
        for length in 0..bytes.len() {
            let read = Weights::from_bytes(name, bytes[..length].to_vec());
            assert!(read.is_err(), "{name}: {length} of {} bytes", bytes.len());
        }
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x55;
            match Weights::from_bytes(name, damaged) {
                Err(_) => refused += 1,
                Ok(weights) => weights.names().for_each(|tensor| drop(weights.tensor(tensor, &Device::Cpu))),
            }
        }
        assert!(refused > 100, "{name}: {refused}");
    }
}

#[test]
fn a_folder_with_one_file_of_weights_is_that_file() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &str, to: &str| std::fs::copy(file(from), folder.path().join(to)).unwrap();
    copy("zip.pth", "resnet.pth");
    copy("views.pth", "training_args.bin");
    assert!(Weights::open(folder.path()).unwrap().contains("0.weight"));
    copy("views.pth", "other.pt");
    let error = Weights::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("other.pt") && error.contains("name one of them"), "{error}");
    copy("views.pth", "pytorch_model.bin");
    assert!(Weights::open(folder.path()).unwrap().contains("first"));
}

/// A tensor without elements has steps from one index to the next all the same, and these are products.
#[test]
fn a_tensor_without_elements_whose_other_sizes_overflow_is_refused() {
    let sizes = [0u64, 1 << 33, 1 << 33];
    let header = format!(r#"{{"x":{{"dtype":"F32","shape":{sizes:?},"data_offsets":[0,0]}}}}"#);
    let safetensors = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    // Magic and version, one tensor, no metadata; its name, its sizes from the last on, its type F32, where it begins.
    let mut gguf = [b"GGUF".as_slice(), &3u32.to_le_bytes(), &1u64.to_le_bytes(), &0u64.to_le_bytes()].concat();
    gguf.extend([&1u64.to_le_bytes()[..], b"x", &3u32.to_le_bytes()].concat());
    gguf.extend(sizes.iter().rev().flat_map(|size| size.to_le_bytes()));
    gguf.extend([&0u32.to_le_bytes()[..], &0u64.to_le_bytes()].concat());
    gguf.resize(gguf.len().next_multiple_of(32), 0);
    for (name, bytes) in [("x.safetensors", safetensors), ("x.gguf", gguf)] {
        let error = Weights::from_bytes(name, bytes).map(|weights| weights.tensor("x", &Device::Cpu).is_ok());
        let error = error.expect_err("refused").to_string();
        assert!(error.contains("x has the shape [0, 8589934592, 8589934592]"), "{error}");
    }
}
