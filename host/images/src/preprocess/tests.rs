#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::io::Write;
use std::path::PathBuf;

use super::*;
use crate::fixtures::{json, noise, picture};
use crate::{MAX_PIXELS, decode};
use crate::{Mask, Normalised, Picture};

fn read(case: &Value) -> Preprocess {
    let config = case["config"].to_string();
    match case["kind"].as_str().unwrap() {
        "timm" => Preprocess::from_timm("config.json", &config).unwrap(),
        _ => Preprocess::from_hugging_face("preprocessor_config.json", &config).unwrap(),
    }
}

/// The largest and the mean difference in levels of the picked values, and the largest of the channels' means over all values.
fn apart(preprocess: &Preprocess, input: &Normalised, case: &Value) -> (f32, f64, f64) {
    let side = |i: usize| case["size"][i].as_u64().unwrap() as usize;
    assert_eq!((input.height, input.width, input.channels), (side(0), side(1), 3), "{}", case["config"]);
    let step = case["step"].as_u64().unwrap() as usize;
    let black = preprocess.normalise(&Picture::filled(1, 1, [0; 3])).values;
    let one = preprocess.normalise(&Picture::filled(1, 1, [1; 3])).values;
    let picked = (0..input.height).step_by(step).flat_map(|y| (0..input.width).step_by(step).map(move |x| (y, x)));
    let ours = picked.flat_map(|(y, x)| (0..3).map(move |c| input.values[(y * input.width + x) * 3 + c]));
    let theirs = case["values"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32);
    let levels: Vec<f32> =
        ours.zip(theirs).enumerate().map(|(i, (a, b))| (a - b).abs() / (one[i % 3] - black[i % 3])).collect();
    assert_eq!(levels.len(), case["values"].as_array().unwrap().len());
    let bias = |c: usize| {
        let values = input.values.iter().skip(c).step_by(3).map(|x| f64::from(*x));
        let mean = values.sum::<f64>() / (input.height * input.width) as f64;
        (mean - case["mean"][c].as_f64().unwrap()).abs() / f64::from(one[c] - black[c])
    };
    let mean = levels.iter().map(|x| f64::from(*x)).sum::<f64>() / levels.len() as f64;
    (levels.into_iter().fold(0.0, f32::max), mean, (0..3).map(bias).fold(0.0, f64::max))
}

/// Processors of Transformers and transforms of timm, by their files' own words.
#[test]
fn models_get_what_transformers_and_timm_give_them() {
    let source = picture("photo.png");
    for case in json("preprocessed.json").as_array().unwrap() {
        let preprocess = read(case);
        let input = preprocess.normalise(&preprocess.fit(source.clone()));
        let (most, mean, bias) = apart(&preprocess, &input, case);
        let what = format!("{}: {most} levels at most, {mean} in the mean, bias {bias}", case["config"]);
        assert!(most < 1.01 && mean < 0.02 && bias < 0.02, "{what}");
        assert_eq!(preprocess.size(), (input.height, input.width));
    }
}

/// Real pictures, where they are on this machine.
#[test]
fn flowers_are_what_transformers_and_timm_give_to_models() {
    let data = std::env::var_os("FTHOST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    if !data.join("flowers").is_dir() {
        writeln!(std::io::stderr(), "skipped: no flowers in {}", data.display()).unwrap();
        return;
    }
    for case in json("flowers.json").as_array().unwrap() {
        let (preprocess, file) = (read(case), case["file"].as_str().unwrap());
        let bytes = std::fs::read(data.join("flowers").join(file)).unwrap();
        let input = preprocess.normalise(&preprocess.fit(decode(&bytes, file, MAX_PIXELS).unwrap()));
        let (most, mean, bias) = apart(&preprocess, &input, case);
        // Decoders of JPEG differ in how they fill in colours of which there is one for four pixels.
        let what = format!("{file} {}: {most} levels at most, {mean} in the mean, bias {bias}", case["config"]);
        assert!(most < 4.05 && mean < 0.5 && bias < 0.5, "{what}");
    }
}

#[test]
fn what_would_change_pixels_is_refused_by_its_name() {
    let hugging_face = |config: &str| {
        let config = format!("{{\"image_processor_type\": \"ViTImageProcessor\", {config}}}");
        Preprocess::from_hugging_face("p.json", &config).unwrap_err().to_string()
    };
    let unknown = |key: &str| format!("p.json: {key} may change pictures in a way that is not known here");
    assert_eq!(hugging_face("\"do_flip_channel_order\": true"), unknown("do_flip_channel_order = true"));
    assert_eq!(hugging_face("\"crop_pct\": 0.9"), unknown("crop_pct = 0.9"));
    assert_eq!(hugging_face("\"do_pad\": true"), unknown("do_pad = true"));
    assert_eq!(hugging_face("\"size_divisor\": 32"), unknown("size_divisor = 32"));
    assert_eq!(
        hugging_face("\"size\": {\"longest_edge\": 12}"),
        "p.json: size = {\"longest_edge\":12}, where a side, { height, width } or { shortest_edge } \
         should stand"
    );
    assert_eq!(
        hugging_face("\"resample\": 9"),
        "p.json: resample = 9, where Pillow's number of a filter, 0 to 5 should stand"
    );
    assert_eq!(hugging_face("\"image_std\": [0.5, 0, 0.5]"), "p.json: a deviation of 0");
    assert_eq!(hugging_face("\"image_mean\": [0.5, 0.5]"), "p.json: 3 channels with 2 means and 3 deviations");
    assert_eq!(
        hugging_face("\"size\": {\"height\": 0, \"width\": 3}").split(',').next(),
        Some("p.json: size = {\"height\":0")
    );
    assert_eq!(
        hugging_face("\"size\": {\"shortest_edge\": 9}"),
        "p.json: pictures would keep sizes of their own: neither `size` with height and width nor a crop says one"
    );
    let class = |config: &str| Preprocess::from_hugging_face("p.json", config).unwrap_err().to_string();
    assert_eq!(class("{}"), "p.json: it does not say its image_processor_type");
    assert_eq!(
        class(r#"{"image_processor_type": "SamImageProcessor"}"#),
        "p.json: what SamImageProcessor does to pictures is not known here"
    );
    assert_eq!(class("[1]"), "p.json: this is no JSON object");
    // Off, and without a word on pixels, keys are no matter.
    let neutral = r#"{"feature_extractor_type": "ViTFeatureExtractor", "do_flip_channel_order": false, "do_pad": null,
        "processor_class": "X", "size": 20, "do_convert_rgb": true}"#;
    assert_eq!(Preprocess::from_hugging_face("p.json", neutral).unwrap().size(), (20, 20));

    let timm = |config: &str| Preprocess::from_timm("c.json", config).unwrap_err().to_string();
    assert_eq!(
        timm(r#"{"crop_mode": "random"}"#),
        "c.json: crop_mode = \"random\", where center, squash or border should stand"
    );
    assert_eq!(
        timm(r#"{"crop_border_pixels": 4}"#),
        "c.json: crop_border_pixels = 4 cuts off borders, which is not done here"
    );
    assert_eq!(timm(r#"{"crop_pct": 1.5}"#), "c.json: crop_pct = 1.5, where a share above 0, at most 1 should stand");
    assert_eq!(
        timm(r#"{"input_size": [224]}"#),
        "c.json: input_size = [224], where [channels, height, width] should stand"
    );
    assert_eq!(
        timm(r#"{"interpolation": "random"}"#),
        "c.json: interpolation = \"random\", where the name of a filter (bilinear, bicubic, ...) should stand"
    );
    assert_eq!(timm(r#"{"input_size": [2, 8, 8]}"#), "c.json: 2 channels with 2 means and 2 deviations");
}

#[test]
fn a_folder_says_what_suits_its_model() {
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        Preprocess::from_model(folder.path()).unwrap()
    };
    // Nothing is said: ImageNet's.
    let plain = Preprocess::from_model(folder.path()).unwrap();
    assert_eq!(plain, Preprocess::imagenet((224, 224)).unwrap());
    assert_eq!((plain.resize, plain.crop, plain.filter), (Resize::Shorter(256), Some((224, 224)), Filter::Bicubic));
    assert_eq!(of("config.json", r#"{"image_size": 32}"#), Preprocess::imagenet((32, 32)).unwrap());
    let timm = of("config.json", r#"{"pretrained_cfg": {"input_size": [3, 160, 160], "crop_pct": 0.8, "url": "x"}}"#);
    assert_eq!((timm.resize, timm.size()), (Resize::Shorter(200), (160, 160)));
    let both = of("processor_config.json", r#"{"image_processor": {"image_processor_type": "CLIPImageProcessor"}}"#);
    assert_eq!((both.resize, both.size()), (Resize::Shorter(224), (224, 224)));
    let vit = of("preprocessor_config.json", r#"{"image_processor_type": "ViTImageProcessor", "size": 96}"#);
    assert_eq!(vit.resize, Resize::Exact(96, 96));
    std::fs::write(folder.path().join("preprocessor_config.json"), "{").unwrap();
    let error = Preprocess::from_model(folder.path()).unwrap_err().to_string();
    assert!(error.contains("preprocessor_config.json: this is no JSON: "), "{error}");
}

#[test]
fn another_size_cuts_the_same_share_away() {
    let size = |preprocess: &Preprocess, side| {
        let other = preprocess.clone().with_size((side, side));
        (other.resize, other.size())
    };
    let imagenet = Preprocess::imagenet((224, 224)).unwrap();
    assert_eq!(size(&imagenet, 224), (Resize::Shorter(256), (224, 224)));
    assert_eq!(size(&imagenet, 192), (Resize::Shorter(219), (192, 192)));
    let exact = Preprocess::exact((28, 28), &[0.5], &[0.5]).unwrap();
    assert_eq!(size(&exact, 32), (Resize::Exact(32, 32), (32, 32)));
    assert_eq!(imagenet.with_size((112, 224)).resize, Resize::Cover(128, 256));
}

/// A grey model takes Pillow's lightness, of pictures in colour too.
#[test]
fn grey_models_have_one_channel() {
    let preprocess = Preprocess::exact((9, 7), &[0.1307], &[0.3081]).unwrap();
    let input = preprocess.normalise(&preprocess.fit(picture("photo.png")));
    assert_eq!((input.height, input.width, input.channels, input.values.len()), (9, 7, 1, 63));
    let black = preprocess.normalise(&Picture::filled(1, 1, [0; 3])).values;
    assert!((black[0] + 0.4242).abs() < 1e-4, "{black:?}");
    let timm = Preprocess::from_timm("c", r#"{"input_size": [1, 8, 8], "mean": [0.5], "std": [0.5]}"#).unwrap();
    assert_eq!(timm.channels(), 1);
}

#[test]
fn a_mask_is_cut_as_its_picture() {
    let preprocess =
        Preprocess::from_timm("c", r#"{"input_size": [3, 20, 20], "crop_mode": "border", "crop_pct": 1.0}"#).unwrap();
    let (picture, mask) = (noise(30, 60, 1), Mask::filled(30, 60, [4]));
    let (fitted, mask) = (preprocess.fit(picture), preprocess.fit_mask(mask, 11));
    assert_eq!((fitted.size(), mask.size()), ((20, 20), (20, 20)));
    // Twice as wide as high: ten rows of it, five of void above and below.
    let void: Vec<bool> = mask.rows().map(|row| row.iter().all(|class| *class == [11])).collect();
    let expected: Vec<bool> = (0..20).map(|y| !(5..15).contains(&y)).collect();
    assert_eq!(void, expected);
    assert!(fitted.row(0).iter().all(|pixel| *pixel == [124, 116, 104]));
}

/// What the model takes can be looked at.
#[test]
fn levels_come_back() {
    let preprocess = Preprocess::imagenet((16, 16)).unwrap();
    let picture = noise(16, 16, 3);
    let back = preprocess.normalise.undo(&preprocess.normalise(&picture)).unwrap();
    assert!(back == picture);
}

/// A line of pixels takes no more memory than a picture.
#[test]
fn a_strip_does_not_fill_memory() {
    let line = Picture::filled(1, 1_000_000, [9, 8, 7]);
    let imagenet = Preprocess::imagenet((224, 224)).unwrap();
    let fitted = imagenet.fit(line);
    assert!(fitted.size() == (224, 224) && fitted.pixels().iter().all(|pixel| *pixel == [9, 8, 7]));
    assert_eq!(imagenet.resized(Picture::filled(1, 1_000_000, [0; 3]), Filter::Nearest).size(), (256, 256 * 64));
}
