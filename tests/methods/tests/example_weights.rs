//! Losses of examples with weights, through the heads' own files, against the numbers that
//! `tests/reference/make_example_weights.py` got from torch.

use fthost::adapted::AdaptedModel;
use fthost::data::{Columns, Dataset, Files, Form, Part, Source, Tokenizer, load};
use fthost::plugin::HeadInstance;
use fthost::run::pass::{Decision, Pass};
use fthost_autograd::{Device, Precision, Tape, Tensor};
use fthost_plugin_api::{HeadSpec, TaskInfo};
use fthost_tests::Workdir;
use serde_json::{Value, from_value, json};

use crate::host::{attach_head, tiny_bert};
use crate::reference::{self, close};

struct Head {
    model: AdaptedModel,
    head: HeadInstance,
    spec: HeadSpec,
    data: Dataset,
}

/// A head on the tiny BERT, and a data set of JSON lines with weights.
fn head(name: &str, options: &Value, labels: &[&str], rows: &[Value]) -> Head {
    let workdir = Workdir::new();
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    workdir.write("rows.jsonl", lines);
    let mut model = tiny_bert();
    let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
    let counts = vec![1; labels.len()];
    let task = TaskInfo {
        name: "task".into(),
        labels: labels.clone(),
        class_counts: counts,
        examples: 0,
        width: 16,
        streams: Vec::new(),
        hidden_activation: None,
        bias: true,
        dropout: 0.0,
        image: None,
        vocabulary: None,
        comparison: None,
        sequences: 1,
    };
    let (head, spec) = attach_head(name, options, &task, &mut model);
    let tokenizer = Tokenizer::load(&reference::path("tiny/bert/tokenizer.json"), 24).unwrap();
    let files = Files::One(workdir.path().join("rows.jsonl"));
    let form = Form { columns: Columns { weight: Some("w".into()), ..Columns::default() }, ..Form::default() };
    let source = Source {
        files: &files,
        part: Part::Train,
        form: &form,
        only: None,
        texts: false,
        labels: Some(&labels),
        modalities: &[model.model.info().plain().modality],
        language: None,
        transform: None,
        device: &Device::Cpu,
    };
    let mut data = load(&source, Some(&tokenizer)).unwrap();
    data.set_targets(spec.targets).unwrap();
    Head { model, head, spec, data }
}

impl Head {
    /// Sum and weight of the loss of some examples, and the sum's gradient.
    fn loss(&self, outputs: &Tensor, rows: &[u32]) -> (f32, f64, Vec<f32>) {
        let Self { model, head, spec, data } = self;
        let decision = Decision::default();
        let pass = Pass { model, head, spec, data, precision: Precision::F32, decision };
        let tape = Tape::recording();
        let outputs = tape.variable(outputs.clone());
        let (sum, weight) = pass.loss(&tape, &outputs, &data.show(rows).unwrap(), &[]).unwrap();
        let loss = sum.tensor().to_scalar::<f32>().unwrap();
        let gradients = tape.backward(&sum).unwrap();
        let gradient = gradients.of(&outputs).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        (loss, weight, gradient)
    }

    #[track_caller]
    fn check(&self, outputs: &Tensor, expected: &Value) {
        let (loss, weight, gradient) = self.loss(outputs, &[0, 1, 2, 3, 4]);
        close(&[loss, loss / weight as f32], &json!([expected["sum"], expected["mean"]]));
        let mean: Vec<f32> = gradient.iter().map(|gradient| gradient / weight as f32).collect();
        close(&mean, &expected["gradient"]);
    }
}

fn rows(numbers: &Value, label: impl Fn(usize) -> Value, text: impl Fn(usize) -> Value) -> Vec<Value> {
    let weights: Vec<f64> = from_value(numbers["weights"].clone()).unwrap();
    weights.iter().enumerate().map(|(i, w)| json!({ "text": text(i), "label": label(i), "w": w })).collect()
}

#[test]
fn classes_and_values_weigh_as_in_torch() {
    let numbers = reference::read("example_weights.json");
    let classes = &numbers["classes"];
    let outputs = reference::tensor(&classes["outputs"], &[5, 2]);
    for case in classes["cases"].as_array().unwrap() {
        let of = rows(&numbers, |i| classes["targets"][i].clone(), |_| json!("good"));
        let head = head("classification", &json!({ "class_weights": case["class_weights"] }), &["0", "1"], &of);
        head.check(&outputs, case);
        // Micro-batches add up to the batch, whatever weighs in each.
        let (whole, weight, gradient) = head.loss(&outputs, &[0, 1, 2, 3, 4]);
        let parts = [[0u32, 3].as_slice(), &[1, 2, 4]].map(|part| {
            let outputs = outputs.index_select(&Tensor::new(part, &Device::Cpu).unwrap(), 0).unwrap();
            head.loss(&outputs, part)
        });
        assert!((parts[0].0 + parts[1].0 - whole).abs() < 1e-5 && (parts[0].1 + parts[1].1 - weight).abs() < 1e-9);
        close(&parts[0].2, &json!([gradient[0], gradient[1], gradient[6], gradient[7]]));
    }
    let values = &numbers["regression"];
    let of = rows(&numbers, |i| values["targets"][i].clone(), |_| json!("good"));
    head("regression", &json!({}), &[], &of).check(&reference::tensor(&values["outputs"], &[5]), values);
}

#[test]
fn a_word_has_its_texts_weight_as_in_torch() {
    let numbers = reference::read("example_weights.json");
    let words = &numbers["words"];
    let lengths: Vec<usize> = from_value(words["lengths"].clone()).unwrap();
    let begin = |i: usize| lengths[..i].iter().sum::<usize>();
    let names = ["B-X", "I-X", "O"];
    let label = |i: usize| {
        (0..lengths[i]).map(|word| json!(names[words["targets"][begin(i) + word].as_u64().unwrap() as usize])).collect()
    };
    let of = rows(&numbers, |i| Value::Array(label(i)), |i| json!(vec!["good"; lengths[i]]));
    let head = head("token-classification", &json!({}), &names, &of);
    // The words' outputs between those of [CLS] and [SEP], which do not count.
    let outputs: Vec<f32> = from_value(words["outputs"].clone()).unwrap();
    let (mut all, mut counted) = (Vec::new(), Vec::new());
    for (i, &length) in lengths.iter().enumerate() {
        all.extend([0.0; 3]);
        counted.extend((0..3 * length).map(|place| all.len() + place));
        all.extend(&outputs[3 * begin(i)..][..3 * length]);
        all.extend([0.0; 3]);
    }
    let rows = all.len() / 3;
    let (loss, weight, gradient) =
        head.loss(&Tensor::from_vec(all, (rows, 3), &Device::Cpu).unwrap(), &[0, 1, 2, 3, 4]);
    close(&[loss, loss / weight as f32], &json!([words["sum"], words["mean"]]));
    let mean: Vec<f32> = counted.iter().map(|&place| gradient[place] / weight as f32).collect();
    close(&mean, &words["gradient"]);
}
