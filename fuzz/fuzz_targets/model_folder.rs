//! config.json, and after the separator model.safetensors.
#![no_main]

use fthost_fuzz::{SEPARATOR, show};
use fthost_models::autograd::Device;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|&byte| byte == SEPARATOR).unwrap_or(data.len());
    let (config, weights) = data.split_at(end);
    let Ok(config) = std::str::from_utf8(config) else { return };
    let model = match fthost_models::from_parts(config, weights.get(1..).unwrap_or_default(), &Device::Cpu) {
        Ok(model) => model,
        Err(error) => return show(&error.into()),
    };
    for base in model.parameters() {
        base.parameter.tensor();
    }
});
