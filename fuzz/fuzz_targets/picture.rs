//! A picture, or a mask: decoded, brought to a model's size, augmented. The first byte says which.
#![no_main]

use fthost_images::{Augment, Preprocess, Transform, decode, decode_mask, header};
use libfuzzer_sys::fuzz_target;

/// Small, so that what a damaged header asks for takes no time.
const LIMIT: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((&first, content)) = data.split_first() else { return };
    if first % 4 == 0 {
        if let Ok(mask) = decode_mask(content, "mask", LIMIT) {
            assert_eq!(mask.pixels().len(), mask.height() * mask.width());
        }
        return;
    }
    let read = header(content, "picture", LIMIT);
    let picture = match decode(content, "picture", LIMIT) {
        Ok(picture) => picture,
        Err(error) => {
            assert!(error.to_string().starts_with("picture: ") && !error.help.is_empty());
            return;
        }
    };
    let read = read.expect("what can be decoded has a header");
    assert_eq!((read.height, read.width), picture.size());
    let augment: Augment =
        serde_json::from_str(r#"["random_resized_crop", "flip", "rotation", "color_jitter", "rand_augment", "random_erasing"]"#)
            .expect("a list of ops");
    let preprocess = Preprocess::imagenet((16, 16)).expect("ImageNet's");
    let transform = Transform::new(preprocess, augment).expect("sound options");
    let mut state = u64::from(first);
    let mut random = || {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    for sample in [transform.train(picture.clone(), None, &mut random), transform.eval(picture, None)] {
        assert!(sample.input.values.len() == 16 * 16 * 3 && sample.input.values.iter().all(|x| x.is_finite()));
    }
});
