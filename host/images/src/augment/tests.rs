#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::geometry::{random_area, rotation, warp};
use super::*;
use crate::fixtures::{differences, json, noise, picture, plane};
use crate::plane::{Mask, Plane};
use crate::random::seeded;
use crate::resize::Area;
use crate::transform::Transform;

fn list(json: &str) -> Augment {
    let augment: Augment = serde_json::from_str(json).unwrap();
    augment.check().unwrap();
    augment
}

fn model(side: usize) -> Preprocess {
    Preprocess::exact((side, side), &[0.5; 3], &[0.25; 3]).unwrap()
}

/// A mask that says of each pixel where it is: what happens to a picture is read off it.
fn places(height: usize, width: usize) -> Mask {
    Plane::from_fn(height, width, |y, x| [(y * width + x) as u8])
}

/// Level for level what torchvision does to Pillow's pictures.
#[test]
fn changes_are_torchvisions() {
    let source = picture("photo_small.png");
    for case in json("changed.json").as_array().unwrap() {
        let mut shown = Shown { picture: source.clone(), mask: None, void: 255 };
        let argument = case["argument"].as_f64().unwrap_or(0.0);
        let (op, of) = (case["op"].as_str().unwrap(), &mut shown.picture);
        match op {
            "brightness" => colour::brightness(of, argument as f32),
            "contrast" => colour::contrast(of, argument as f32),
            "saturation" => colour::saturation(of, argument as f32),
            "sharpness" => colour::sharpness(of, argument as f32),
            "hue" => colour::hue(of, (argument * 255.0) as i32 as u8),
            "grey" => *of = grey(source.clone()),
            "rotate_bilinear" => *of = warp(&source, rotation(source.size(), argument), true, [9, 8, 7]),
            "rand_augment" => {
                let sign = case["sign"].as_i64().unwrap();
                shown = rand_augment::one(
                    shown,
                    case["name"].as_str().unwrap(),
                    case["magnitude"].as_u64().unwrap() as u32,
                    if sign < 0 { 0.0 } else { 0.9 },
                );
            }
            other => panic!("{other}"),
        }
        let expected = plane::<3>(case);
        let (most, mean) = differences(&shown.picture, &expected);
        let at_most = u8::from(op == "rotate_bilinear" || op == "hue");
        assert!(most <= at_most && mean < 0.05, "{op} {argument} {}: {most}, mean {mean}", case["name"]);
    }
}

#[test]
fn flips_are_as_probable_as_they_say() {
    let transform = Transform::new(model(4), list(r#"["flip", {"op": "vertical_flip", "p": 0.25}]"#)).unwrap();
    let (mut mirrored, mut turned) = (0, 0);
    for seed in 0..4000 {
        let sample = transform.train(noise(4, 4, 1), Some(places(4, 4)), &mut seeded(seed));
        let first = sample.mask.unwrap().pixels()[0][0];
        mirrored += usize::from([3, 15].contains(&first));
        turned += usize::from([12, 15].contains(&first));
    }
    assert!((1880..2120).contains(&mirrored) && (900..1100).contains(&turned), "{mirrored} {turned}");
}

/// torchvision's formula: the area's share is uniform, the ratio's logarithm too, and so is the place.
#[test]
fn random_areas_have_torchvisions_distribution() {
    let (size, mut random) = ((300, 400), seeded(4));
    let areas: Vec<Area> = (0..20_000).map(|_| random_area(size, [0.2, 0.6], [0.5, 2.0], &mut random)).collect();
    let mean = |of: &dyn Fn(&Area) -> f64| areas.iter().map(of).sum::<f64>() / areas.len() as f64;
    let share = |area: &Area| (area.height * area.width) as f64 / 120_000.0;
    let log_ratio = |area: &Area| (area.width as f64 / area.height as f64).ln();
    for area in &areas {
        assert!(area.top + area.height <= 300 && area.left + area.width <= 400, "{area:?}");
        assert!((0.195..0.605).contains(&share(area)) && log_ratio(area).abs() < 0.71, "{area:?}");
    }
    // Areas that do not fit are drawn again, so that the largest and narrowest are rarer: the expectations are of the same draws with
    // NumPy's generator, 10^6 times.
    assert!((mean(&share) - 0.3862).abs() < 0.003, "{}", mean(&share));
    assert!((mean(&log_ratio) - 0.0602).abs() < 0.008, "{}", mean(&log_ratio));
    let free = |area: &Area| if area.width == 400 { 0.5 } else { area.left as f64 / (400 - area.width) as f64 };
    assert!((mean(&free) - 0.5).abs() < 0.01);
}

/// Ten tries that cannot fit: the largest part in the middle within the ratios.
#[test]
fn a_strip_is_cut_in_its_middle() {
    let area = |size| random_area(size, [1.0, 1.0], [0.75, 4.0 / 3.0], &mut seeded(1));
    assert_eq!(area((10, 100)), Area { top: 0, left: 43, height: 10, width: 13 });
    assert_eq!(area((100, 10)), Area { top: 43, left: 0, height: 13, width: 10 });
    assert_eq!(area((1, 1)), Area { top: 0, left: 0, height: 1, width: 1 });
}

/// A random crop with a border of 4, as on CIFAR: each of the 81 places as probable.
#[test]
fn random_crops_are_uniform() {
    let transform = Transform::new(model(8), list(r#"["random_crop"]"#)).unwrap().with_void(99);
    let mut counts = std::collections::BTreeMap::new();
    for seed in 0..16_200 {
        let sample = transform.train(noise(8, 8, 1), Some(places(8, 8)), &mut seeded(seed));
        let mask = sample.mask.unwrap();
        assert_eq!(mask.size(), (8, 8));
        *counts.entry(mask.pixels().to_vec()).or_insert(0) += 1;
        let seen = sample.input.values.chunks_exact(3).zip(mask.pixels());
        // Black is -2 of this model, and stands exactly where the mask has no class.
        assert!(seen.into_iter().all(|(pixel, [class])| (pixel == [-2.0; 3]) <= (*class == 99 || *class == 0)));
    }
    assert_eq!(counts.len(), 81);
    assert!(counts.values().all(|count| (130..280).contains(count)), "{counts:?}");
}

/// Picture and mask stay pixel on pixel, whatever is done.
#[test]
fn geometry_is_the_same_for_a_mask() {
    let colours = |class: u8| [class, 255 - class, class / 2];
    let mask = places(12, 20);
    let picture = Plane::from_fn(12, 20, |y, x| colours(mask.row(y)[x][0]));
    let shears = list(r#"["flip", "vertical_flip", {"op": "random_resized_crop", "interpolation": "nearest"}]"#);
    let transform = Transform::new(model(9), shears).unwrap();
    for seed in 0..200 {
        let sample = transform.train(picture.clone(), Some(mask.clone()), &mut seeded(seed));
        let seen = transform.seen(&sample).unwrap();
        let expected = Plane::from_fn(9, 9, |y, x| colours(sample.mask.as_ref().unwrap().row(y)[x][0]));
        assert!(seen == expected, "seed {seed}");
    }
    // A rotation fills in the void; colours leave a mask as it is.
    let turned = Transform::new(model(12), list(r#"[{"op": "rotation", "degrees": 45}]"#)).unwrap().with_void(250);
    let square = Plane::from_fn(12, 12, |_, _| [7]);
    let seen = turned.train(noise(12, 12, 1), Some(square.clone()), &mut seeded(2)).mask.unwrap();
    assert!(seen.pixels().iter().all(|[class]| [7, 250].contains(class)) && seen.pixels().contains(&[250]));
    let colours = list(r#"["color_jitter", "grayscale", {"op": "random_erasing", "p": 1.0}]"#);
    let sample =
        Transform::new(model(12), colours).unwrap().train(noise(12, 12, 1), Some(square.clone()), &mut seeded(2));
    assert!(sample.mask.unwrap() == square);
}

/// A mask changes nothing of what its picture draws.
#[test]
fn numbers_are_drawn_alike_with_and_without_a_mask() {
    let all = list(
        r#"["flip", "vertical_flip", "random_crop", "rotation", "color_jitter", "grayscale", "rand_augment", "random_erasing"]"#,
    );
    let transform = Transform::new(model(16), all).unwrap();
    for seed in 0..50 {
        let with = transform.train(noise(20, 24, 5), Some(places(20, 24)), &mut seeded(seed));
        let without = transform.train(noise(20, 24, 5), None, &mut seeded(seed));
        assert!(with.input == without.input && with.input.values.len() == 16 * 16 * 3, "seed {seed}");
        assert!(with.input.values.iter().all(|x| x.is_finite()));
    }
}

/// Factors are uniform around 1, and each order of the four comes as often.
#[test]
fn jitter_has_its_range() {
    let flat = Plane::filled(1, 1, [100, 100, 100]);
    let levels: Vec<u8> = (0..5_000)
        .map(|seed| {
            let mut picture = flat.clone();
            jitter(&mut picture, [0.4, 0.0, 0.0, 0.0], &mut seeded(seed));
            picture.pixels()[0][0]
        })
        .collect();
    let (least, most) = (*levels.iter().min().unwrap(), *levels.iter().max().unwrap());
    let mean = levels.iter().map(|x| f64::from(*x)).sum::<f64>() / 5_000.0;
    assert!((59..=61).contains(&least) && (138..=140).contains(&most), "{least} {most}");
    // A level is cut off, not rounded.
    assert!((mean - 99.5).abs() < 1.2, "{mean}");
    let mut untouched = noise(5, 5, 1);
    jitter(&mut untouched, [0.0; 4], &mut seeded(1));
    assert!(untouched == noise(5, 5, 1));
}

#[test]
fn erased_parts_have_their_share() {
    let augment = list(r#"[{"op": "random_erasing", "p": 0.5, "scale": [0.1, 0.3], "ratio": [0.5, 2.0]}]"#);
    let full = Normalised { height: 40, width: 50, channels: 3, values: vec![1.0; 40 * 50 * 3] };
    let (mut erased, mut shares) = (0, 0.0);
    for seed in 0..4_000 {
        let mut input = full.clone();
        augment.erase(&mut input, &mut seeded(seed));
        let zeros = input.values.iter().filter(|x| **x == 0.0).count();
        if zeros > 0 {
            let share = zeros as f64 / input.values.len() as f64;
            assert!((0.09..0.31).contains(&share), "{share}");
            erased += 1;
            shares += share;
        }
    }
    assert!((1_880..2_120).contains(&erased), "{erased}");
    assert!((shares / f64::from(erased) - 0.2).abs() < 0.006, "{}", shares / f64::from(erased));
    let noise = list(r#"[{"op": "random_erasing", "p": 1.0, "value": "noise"}]"#);
    let mut input = full.clone();
    noise.erase(&mut input, &mut seeded(1));
    let drawn: Vec<f32> = input.values.into_iter().filter(|x| *x != 1.0).collect();
    let mean = drawn.iter().sum::<f32>() / drawn.len() as f32;
    assert!(drawn.len() > 100 && mean.abs() < 0.2 && drawn.iter().any(|x| *x > 1.5), "{mean}");
}

#[test]
fn mixup_is_a_weighted_mean_with_the_one_before() {
    let augment = list(r#"[{"op": "mixup", "alpha": 0.4}]"#);
    let batch: Vec<f32> = (0..3 * 2 * 2).map(|i| i as f32).collect();
    let mut mixed = batch.clone();
    let how = augment.mix(&mut mixed, [3, 2, 2, 1], &mut seeded(5)).unwrap();
    assert_eq!(how.partners, [2, 0, 1]);
    for (i, partner) in how.partners.iter().enumerate() {
        for at in 0..4 {
            let expected = how.lambda * batch[i * 4 + at] + (1.0 - how.lambda) * batch[partner * 4 + at];
            assert!((mixed[i * 4 + at] - expected).abs() < 1e-5);
        }
    }
    // Alone, and without such an op, a picture stays as it is.
    assert_eq!(augment.mix(&mut mixed[..4], [1, 2, 2, 1], &mut seeded(5)), None);
    assert_eq!(list(r#"["flip"]"#).mix(&mut mixed, [3, 2, 2, 1], &mut seeded(5)), None);
    assert!(augment.mixes() && !list(r#"["flip"]"#).mixes());
}

#[test]
fn cutmix_says_what_it_took() {
    let augment = list(r#"["cutmix"]"#);
    let (height, width) = (20, 30);
    let batch: Vec<f32> = (0..3).flat_map(|i| vec![i as f32; height * width * 2]).collect();
    let mut shares = Vec::new();
    for seed in 0..2_000 {
        let mut mixed = batch.clone();
        let how = augment.mix(&mut mixed, [3, height, width, 2], &mut seeded(seed)).unwrap();
        for (i, picture) in mixed.chunks_exact(height * width * 2).enumerate() {
            let own = picture.iter().filter(|x| **x == i as f32).count() as f32 / picture.len() as f32;
            assert!((own - how.lambda).abs() < 1e-6, "{own} {}", how.lambda);
            assert!(picture.iter().all(|x| *x == i as f32 || *x == how.partners[i] as f32));
        }
        shares.push(f64::from(how.lambda));
    }
    // Lambda is uniform before parts are cut at the border: half of the picture, and more.
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    assert!((0.5..0.75).contains(&mean), "{mean}");
    // Of two that mix, each comes.
    let both = list(r#"["mixup", "cutmix"]"#);
    let blended = (0..200).filter(|seed| {
        let mut mixed = batch.clone();
        both.mix(&mut mixed, [3, height, width, 2], &mut seeded(*seed)).unwrap();
        mixed.iter().any(|x| x.fract() != 0.0)
    });
    assert!((70..130).contains(&blended.count()));
}

#[test]
fn a_list_is_names_and_tables() {
    let augment = list(r#"["flip", {"op": "random_resized_crop", "scale": [0.5, 1.0]}, {"op": "mixup"}]"#);
    let ops: Vec<Op> = augment.ops().copied().collect();
    let crop = Op::RandomResizedCrop { scale: [0.5, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0], interpolation: None };
    assert_eq!(ops, [Op::Flip { p: 0.5 }, crop, Op::Mixup { alpha: 0.2 }]);
    // What is written out is read again.
    let written = serde_json::to_string(&augment).unwrap();
    assert_eq!(serde_json::from_str::<Augment>(&written).unwrap(), augment);
    assert_eq!(Augment::from(ops), augment);
    assert!(augment.is_random() && !Augment::default().is_random());
}

#[test]
fn what_is_wrong_in_a_list_is_said_in_words() {
    let read = |json: &str| match serde_json::from_str::<Augment>(json) {
        Err(error) => error.to_string().split(" at line").next().unwrap().to_owned(),
        Ok(augment) => augment.check().unwrap_err().to_string(),
    };
    let known = "`flip`, `vertical_flip`, `random_resized_crop`, `random_crop`, `rotation`, `color_jitter`, `grayscale`, \
                 `rand_augment`, `random_erasing`, `mixup`, `cutmix`";
    for (json, expected) in [
        (r#"["flop"]"#, format!("unknown variant `flop`, expected one of {known}")),
        (r#"[{"p": 0.5}]"#, "missing field `op`".into()),
        (r#"[{"op": "flip", "q": 1}]"#, "unknown field `q`, expected `p`".into()),
        (
            r#"[7]"#,
            "invalid type: integer `7`, expected the name of an op, or a table with `op` and its options".into(),
        ),
        (r#"[{"op": "flip", "p": 1.5}]"#, "augment: flip: p = 1.5 is not within 0 to 1".into()),
        (
            r#"[{"op": "random_resized_crop", "scale": [0.5, 0.2]}]"#,
            "augment: random_resized_crop: scale = [0.5, 0.2] should be [least, most], above 0, at most 1".into(),
        ),
        (
            r#"[{"op": "random_erasing", "ratio": [0, 1]}]"#,
            "augment: random_erasing: ratio = [0, 1] should be [least, most], above 0".into(),
        ),
        (r#"[{"op": "color_jitter", "hue": 0.7}]"#, "augment: color_jitter: hue = 0.7 is not within 0 to 0.5".into()),
        (
            r#"[{"op": "rand_augment", "magnitude": 31}]"#,
            "augment: rand_augment: magnitude = 31 is not within 0 to 30".into(),
        ),
        (r#"[{"op": "mixup", "alpha": 0}]"#, "augment: mixup: alpha = 0 is not above 0".into()),
        (
            r#"["random_crop", "random_resized_crop"]"#,
            "augment: random_crop and random_resized_crop both bring a picture to the model's size".into(),
        ),
    ] {
        assert_eq!(read(json), expected, "{json}");
    }
}

/// The schema has every op by name and by table, with what its options are for.
#[test]
fn the_schema_is_what_is_read() {
    let schema = serde_json::to_value(schemars::schema_for!(Augment)).unwrap();
    let text = schema.to_string();
    let ops = schema["$defs"]["Op"]["oneOf"].as_array().unwrap();
    assert_eq!(ops.len(), 11);
    for op in ops {
        let name = op["properties"]["op"]["const"].as_str().unwrap();
        assert!(text.matches(&format!("\"{name}\"")).count() >= 2, "{name} is no name of the list");
        assert!(op["description"].is_string() && op["additionalProperties"] == false, "{op}");
        // By its name alone it is read with its defaults, and checked.
        let augment = list(&format!("[\"{name}\"]"));
        assert_eq!(augment.ops().next().unwrap().name(), name);
    }
}
