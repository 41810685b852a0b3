//! A plugin's file before any of its code runs: its headers, its notes, and the tables that a loader follows.
#![no_main]

use std::path::Path;

use fthost::plugin::note;
use fthost_fuzz::show;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Err(refusal) = note::read(data) {
        show(&refusal.of(Path::new("plugin.so")));
    }
});
