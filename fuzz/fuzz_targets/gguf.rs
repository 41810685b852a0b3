//! A model of llama.cpp's in one file: what it says of itself, its tensors and its tokenizer.
#![no_main]

use std::io::Write;

use fthost_fuzz::show;
use fthost_models::autograd::Device;
use fthost_models::{LoadError, Weights};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(mut file) = tempfile::NamedTempFile::with_suffix(".gguf") else { return };
    if file.write_all(data).is_err() {
        return;
    }
    let (path, say) = (file.path(), |error: LoadError| show(&error.into()));
    match Weights::open(path) {
        Ok(weights) => weights.names().for_each(|name| drop(weights.tensor(name, &Device::Cpu))),
        Err(error) => return say(error),
    }
    if let Err(error) = fthost_models::open(path, &Device::Cpu) {
        say(error);
    }
    if let Err(error) = fthost_models::tokenizer(path) {
        say(error);
    }
});
