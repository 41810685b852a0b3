//! tokenizer.json, and after each separator a text: alone and as a pair with the next.
#![no_main]

use fthost::data::Tokenizer;
use fthost_fuzz::{file, parts, show};
use libfuzzer_sys::fuzz_target;

const LONGEST: usize = 16;

fuzz_target!(|data: &[u8]| {
    let mut parts = parts(data);
    let json = parts.next().unwrap_or_default();
    let texts: Vec<String> = parts.take(4).map(|text| String::from_utf8_lossy(text).into_owned()).collect();
    let tokenizer = match Tokenizer::load(&file("tokenizer.json", json), LONGEST) {
        Ok(tokenizer) => tokenizer,
        Err(error) => return show(&error),
    };
    let alone = texts.iter().map(|text| (text.as_str(), None));
    let pairs = texts.windows(2).map(|pair| (pair[0].as_str(), Some(pair[1].as_str())));
    match tokenizer.encode(&alone.chain(pairs).collect::<Vec<_>>()) {
        Ok(encoded) => {
            assert!(encoded.iter().all(|tokens| tokens.ids.len() <= LONGEST && tokens.ids.len() == tokens.types.len()));
        }
        Err(error) => show(&error),
    }
});
