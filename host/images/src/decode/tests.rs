#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::fixtures::{bytes, differences, json, plane};

/// Every kind against Pillow's pixels.
#[test]
fn every_kind_has_pillows_pixels() {
    let expected = json("decoded.json");
    let mut report = String::new();
    for (name, expected) in expected["pictures"].as_object().unwrap() {
        let (picture, expected) = (decode(&bytes(name), name, MAX_PIXELS).unwrap(), plane::<3>(expected));
        let (most, mean) = differences(&picture, &expected);
        // JPEG leaves the rounding of its cosines to the decoder, and how colours are filled in of which there is one for several pixels.
        let shared_colours = ["jpeg_420.jpg", "jpeg_422.jpg", "progressive.jpg", "restarts.jpg"];
        let (at_most, mean_at_most) = match name.as_str() {
            name if shared_colours.contains(&name) => (3, 0.45),
            name if name.ends_with(".jpg") => (2, 0.03),
            _ => (0, 0.0),
        };
        if most > at_most || mean > mean_at_most {
            report += &format!("{name}: {most} at most, {mean:.3} in the mean\n");
        }
    }
    assert!(report.is_empty(), "{report}");
    assert_eq!(expected["pictures"].as_object().unwrap().len(), 44);
}

#[test]
fn masks_keep_their_indices() {
    let expected = json("decoded.json");
    for (name, expected) in expected["masks"].as_object().unwrap() {
        assert!(decode_mask(&bytes(name), name, MAX_PIXELS).unwrap() == plane::<1>(expected), "{name}");
    }
    let refused = |name: &str| decode_mask(&bytes(name), name, MAX_PIXELS).unwrap_err().to_string();
    assert_eq!(refused("rgb.png"), "rgb.png: this is no mask: it has colours");
    assert_eq!(refused("grey_16.png"), "grey_16.png: this is no mask: it has 16 bits for each pixel");
    assert_eq!(refused("grey.jpg"), "grey.jpg: this is no mask: it is no PNG");
}

#[test]
fn a_mask_of_another_size_is_refused_by_its_header() {
    let (picture, mask) = (bytes("rgb.png"), bytes("mask_grey.png"));
    let error = decode_pair((&picture, "a/1.png"), (&mask, "b/1.png"), MAX_PIXELS).unwrap_err();
    assert_eq!(error.to_string(), "b/1.png: the mask has 11 x 7 pixels, its picture a/1.png 20 x 14");
    // Turned by EXIF a picture has its sides exchanged.
    assert_eq!(header(&bytes("exif_6.jpg"), "", MAX_PIXELS).unwrap().height, 20);
    let (one, same) = (bytes("grey.png"), bytes("grey.png"));
    decode_pair((&one, "1"), (&same, "1"), MAX_PIXELS).unwrap();
}

#[test]
fn bombs_are_refused_by_their_header() {
    for (name, side) in
        [("bomb.png", 60_000), ("bomb.jpg", 60_000), ("bomb.gif", 60_000), ("bomb.bmp", 60_000), ("bomb.webp", 16_383)]
    {
        let error = decode(&bytes(name), name, MAX_PIXELS).unwrap_err();
        let expected = format!("{name}: its header says {side} x {side} pixels, more than the limit of {MAX_PIXELS}");
        assert_eq!(error.to_string(), expected);
        assert_eq!(header(&bytes(name), name, MAX_PIXELS).unwrap_err(), error);
    }
    let error = decode(&bytes("rgb.png"), "rgb.png", 279).unwrap_err();
    assert_eq!(error.to_string(), "rgb.png: its header says 20 x 14 pixels, more than the limit of 279");
    decode(&bytes("rgb.png"), "rgb.png", 280).unwrap();
}

#[test]
fn what_is_no_picture_says_so() {
    let no_picture = "x: this is no picture: its content is none of JPEG, PNG, WebP, GIF and BMP";
    let check = |bytes: &[u8], expected: &str| {
        let error = decode(bytes, "x", MAX_PIXELS).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.kind), (expected, crate::Kind::Picture));
        assert!(!error.help.is_empty());
    };
    check(b"", no_picture);
    check(b"a text, whatever its name says", no_picture);
    check(b"II*\0 and so on", "x: this is a TIFF, which is not read");
    check(b"\0\0\0 ftypavif and so on", "x: this is an AVIF or HEIF picture, which is not read");
    check(&[0; 100], no_picture);
}

/// However a file is cut off: an error, or all pixels. Never a picture that is grey from somewhere on.
#[test]
fn a_part_of_a_file_is_no_part_of_a_picture() {
    for name in json("decoded.json")["pictures"].as_object().unwrap().keys() {
        let bytes = bytes(name);
        let whole = decode(&bytes, name, MAX_PIXELS).unwrap();
        let mut complete = 0;
        for length in 0..bytes.len() {
            if let Ok(picture) = decode(&bytes[..length], name, MAX_PIXELS) {
                assert!(picture == whole, "{name} cut at {length} of {} bytes is another picture", bytes.len());
                complete += 1;
            }
        }
        // A JPEG without its last byte is refused; in others what follows the first frame may be missing.
        assert!(!name.ends_with(".jpg") || complete == 0, "{name}: {complete}");
    }
    let cut = |name: &str| decode(&bytes(name)[..bytes(name).len() * 3 / 4], name, MAX_PIXELS).unwrap_err().to_string();
    for name in ["jpeg_420.jpg", "progressive.jpg", "restarts.jpg", "rgb.png", "rgb.bmp"] {
        assert_eq!(cut(name), format!("{name}: the picture is cut off: its file ends before its pixels do"));
    }
}

/// Whatever bytes: an answer.
#[test]
fn damaged_bytes_never_panic() {
    let mut random = crate::random::seeded(3);
    let random = &mut random as &mut dyn crate::Random;
    let names: Vec<String> = json("decoded.json")["pictures"].as_object().unwrap().keys().cloned().collect();
    let mut errors = 0;
    for round in 0..3_000 {
        let mut bytes = bytes(&names[round % names.len()]);
        for _ in 0..=random.below(6) {
            let at = random.below(bytes.len());
            bytes[at] = random.below(256) as u8;
        }
        if random.chance(0.2) {
            bytes.truncate(random.below(bytes.len()));
        }
        // A small limit, so that a header that was hit takes no time.
        errors += usize::from(decode(&bytes, "x", 1 << 20).is_err());
        let _ = decode_mask(&bytes, "x", 1 << 20);
    }
    assert!(errors > 500, "{errors}");
}

#[test]
fn a_picture_is_written_as_png() {
    let picture = crate::fixtures::picture("photo.png");
    assert!(decode(&picture.to_png(), "x", MAX_PIXELS).unwrap() == picture);
    assert_eq!(picture.size(), (18, 24));
    assert_eq!(picture.thumbnail(12).size(), (9, 12));
    assert!(picture.thumbnail(24) == picture);
    assert_eq!(Picture::filled(1, 500, [0; 3]).thumbnail(10).size(), (1, 10));
}
