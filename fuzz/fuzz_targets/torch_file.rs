//! A file of `torch.save`: the pickles in it are read as data.
#![no_main]

use fthost_fuzz::show;
use fthost_models::Weights;
use fthost_models::autograd::Device;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let weights = match Weights::from_bytes("fuzz.pth", data.to_vec()) {
        Ok(weights) => weights,
        Err(error) => return show(&error.into()),
    };
    for name in weights.names() {
        let _ = weights.tensor(name, &Device::Cpu);
    }
});
