#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use fthost_plugin_api::test::{HeadRun, Host};

use super::*;

fn made(options: &Value) -> HeadRun {
    Host::new().of_pair().head::<Fusion>(options.clone()).unwrap_or_else(|error| panic!("{options}: {error}"))
}

#[test]
fn refuses_what_cannot_be_meant() {
    let check = |host: Host, options: Value, expected: &str| {
        let Err(error) = host.head::<Fusion>(options.clone()) else { panic!("{options} is taken") };
        assert!(error.to_string().contains(expected), "{error}");
    };
    let pair = Host::new().of_pair();
    check(pair, json!({ "dropout": 1.0 }), "below 1");
    check(pair, json!({ "width": 0 }), "at least 1");
    check(pair, json!({ "heads": 2 }), "set fuse = \"attention\", or leave heads out");
    check(pair, json!({ "fuse": "attention", "width": 6, "heads": 4 }), "width is 6, and cannot be shared by 4 heads");
    check(pair, json!({ "scale": 0.0 }), "scale above 0");
    for of_classes in
        [json!({ "label_smoothing": 0.1 }), json!({ "class_weights": "balanced" }), json!({ "class_weights": [1.0] })]
    {
        let mut options = of_classes.clone();
        options["answer"] = json!("values");
        check(pair, options, "with answer = \"values\" leave them out");
    }
    check(Host::new(), json!({}), "fuses two streams, and this model (toy) has 1 (text): take a head of one");
    check(Host::new().of_pictures(), json!({}), "this model (toy-pictures) has 1 (image)");
    check(pair.classes(1), json!({}), "needs two");
}

#[test]
fn every_way_of_fusing_learns_classes_and_values() {
    for (fuse, features) in [
        (json!({ "fuse": "concat" }), FeatureKind::Pooled),
        (json!({ "fuse": "gated" }), FeatureKind::Pooled),
        (json!({ "fuse": "attention", "heads": 2 }), FeatureKind::Sequence),
    ] {
        for besides in [
            json!({}),
            json!({ "class_weights": [1.0, 2.0, 0.5], "label_smoothing": 0.2, "dropout": 0.3 }),
            json!({ "answer": "values", "center": 1.0, "scale": 2.0 }),
        ] {
            let mut options = fuse.clone();
            options["width"] = json!(8);
            options.as_object_mut().unwrap().extend(besides.as_object().unwrap().clone());
            let run = made(&options);
            let read: Vec<_> = run.spec().streams.iter().map(|read| (read.stream.as_str(), read.features)).collect();
            assert_eq!(read, [("text", features), ("image", features)]);
            run.check().unwrap_or_else(|error| panic!("{options}: {error}"));
            let losses = made(&options).train(1, 20).unwrap();
            assert!(losses[19] < losses[0], "{options}: {losses:?}");
        }
    }
}

/// Rows of a matrix.
type Rows = Vec<Vec<f64>>;

/// `W x + b` by the head's parameters, for each row.
fn dense(run: &HeadRun, name: &str, rows: &[Vec<f64>]) -> Rows {
    let (weight, bias) = (run.value(&format!("{name}.weight")).unwrap(), run.value(&format!("{name}.bias")).unwrap());
    let of_row = |row: &Vec<f64>| {
        let product = |(matrix, bias): (&[f64], &f64)| bias + matrix.iter().zip(row).map(|(w, x)| w * x).sum::<f64>();
        weight.chunks(row.len()).zip(&bias).map(product).collect()
    };
    rows.iter().map(of_row).collect()
}

fn map(x: &[f64], f: impl Fn(f64) -> f64) -> Vec<f64> {
    x.iter().copied().map(f).collect()
}

fn near(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{found:?} is not {expected:?}");
}

const A: [f64; 6] = [0.3, -1.2, 0.8, 0.1, 2.0, -0.4];
const B: [f64; 4] = [1.5, 0.2, -0.7, 0.9];

#[test]
fn pooled_features_are_fused_as_the_equations_say() {
    let (a, b) = ([A.to_vec()], [B.to_vec()]);
    let both = [[&A[..], &B[..]].concat()];
    let given = [(&[0, 1][..], &A[..]), (&[0, 1][..], &B[..])];
    let run = made(&json!({ "width": 3 }));
    let hidden = map(&dense(&run, "dense", &both)[0], |x| x.max(0.0));
    near(&run.forward(&given).unwrap(), &dense(&run, "classifier", &[hidden])[0]);

    let run = made(&json!({ "width": 3, "fuse": "gated", "answer": "values" }));
    let (of_text, of_image) = (&dense(&run, "text_layer", &a)[0], &dense(&run, "image_layer", &b)[0]);
    let gate = map(&dense(&run, "gate", &both)[0], |x| 1.0 / (1.0 + (-x).exp()));
    let hidden = (0..3).map(|i| gate[i] * of_text[i].tanh() + (1.0 - gate[i]) * of_image[i].tanh()).collect();
    near(&run.forward(&given).unwrap(), &dense(&run, "classifier", &[hidden])[0]);
}

/// The mean of one stream's rows once it has seen the other's, an example's.
fn attended(run: &HeadRun, name: &str, own: &[Vec<f64>], other: &[Vec<f64>], heads: usize) -> Vec<f64> {
    let width = own[0].len();
    let mean: Vec<f64> = (0..width).map(|i| own.iter().map(|row| row[i]).sum::<f64>() / own.len() as f64).collect();
    let of = |end: &str, rows: &[Vec<f64>]| dense(run, &format!("{name}_attention.{end}"), rows);
    let (query, keys, values) = (&of("query", std::slice::from_ref(&mean))[0], of("key", other), of("value", other));
    let size = width / heads;
    let mut seen = vec![0.0; width];
    for head in 0..heads {
        let range = head * size..(head + 1) * size;
        let score = |key: &Vec<f64>| range.clone().map(|i| query[i] * key[i]).sum::<f64>() / (size as f64).sqrt();
        let weights: Vec<f64> = keys.iter().map(|key| score(key).exp()).collect();
        let total: f64 = weights.iter().sum();
        for (weight, value) in weights.iter().zip(&values) {
            range.clone().for_each(|i| seen[i] += weight / total * value[i]);
        }
    }
    let row: Vec<f64> = of("output", &[seen])[0].iter().zip(&mean).map(|(found, mean)| found + mean).collect();
    let middle = row.iter().sum::<f64>() / width as f64;
    let variance = row.iter().map(|x| (x - middle).powi(2)).sum::<f64>() / width as f64;
    map(&row, |x| (x - middle) / (variance + 1e-5).sqrt())
}

#[test]
fn streams_attend_to_all_rows_of_each_other_and_to_no_others() {
    let run = made(&json!({ "width": 4, "fuse": "attention", "heads": 2 }));
    // Texts of one and three tokens, pictures of two and one place.
    let tokens: Rows = (0..4).map(|i| map(&A, |x| (x * f64::from(3 * i + 1)).sin())).collect();
    let places: Rows = (0..3).map(|i| map(&B, |x| (x * f64::from(2 * i + 1)).cos())).collect();
    let (tokens_end, places_end) = ([0, 1, 4], [0, 2, 3]);
    let found = run.forward(&[(&tokens_end, &tokens.concat()), (&places_end, &places.concat())]).unwrap();
    let (text, image) =
        (dense(&run, "text_attention.projection", &tokens), dense(&run, "image_attention.projection", &places));
    let expected = [(&text[..1], &image[..2]), (&text[1..], &image[2..])].map(|(text, image)| {
        let both = [attended(&run, "text", text, image, 2), attended(&run, "image", image, text, 2)].concat();
        dense(&run, "classifier", &[both]).concat()
    });
    near(&found, &expected.concat());
}

#[test]
fn values_are_learned_in_units_of_their_own() {
    let run = made(&json!({ "answer": "values", "center": 10.0, "scale": 4.0, "width": 2 }));
    let (sum, weight) = run.loss([2], &[0.5, -1.0], &[12.0, 10.0]).unwrap();
    assert_eq!((sum, weight), (1.0, 2.0));
    assert_eq!(run.predict([2], &[0.5, -1.0]).unwrap(), [12.0, 6.0]);
}
