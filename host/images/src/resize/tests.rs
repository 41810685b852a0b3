#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::fixtures::{differences, json, noise, picture, plane};

/// Every filter, to larger and to smaller sizes, against Pillow.
#[test]
fn sizes_are_pillows() {
    let source = picture("photo.png");
    for case in json("resized.json").as_array().unwrap() {
        let filter: Filter = serde_json::from_value(case["filter"].clone()).unwrap();
        let expected = plane::<3>(case);
        let (most, mean) = differences(&resized(&source, expected.size(), filter), &expected);
        let what = format!("{filter:?} to {:?}: {most}, mean {mean:.4}", expected.size());
        assert!(most <= u8::from(filter != Filter::Nearest) && mean < 0.02, "{what}");
    }
}

/// What lies outside of a part has no influence on it.
#[test]
fn a_part_is_resized_as_if_it_were_all() {
    let picture = noise(50, 60, 1);
    let part = Area { top: 7, left: 11, height: 30, width: 21 };
    let alone = picture.crop(part.top, part.left, part.height, part.width);
    for filter in [Filter::Nearest, Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
        for size in [(12, 9), (64, 64), (30, 21)] {
            assert!(resized_part(&picture, part, size, filter) == resized(&alone, size, filter), "{filter:?} {size:?}");
        }
    }
}

/// A mask has no values between its classes.
#[test]
fn masks_keep_their_classes() {
    let mask = Plane::from_fn(17, 23, |y, x| [if (y / 4 + x / 5) % 2 == 0 { 3 } else { 200 }]);
    let other = resized(&mask, (40, 31), Filter::Nearest);
    assert!(other.pixels().iter().all(|[class]| [3, 200].contains(class)));
}
