//! EWC in a host of the test's own: a tiny BERT on eight sentences, against the numbers that
//! `tests/reference/make_fisher.py` got from torch.

use fthost::adapted::AdaptedModel;
use fthost::data::{self, Dataset, Files, Form, Part, Source, Tokenizer};
use fthost::plugin::{HeadInstance, Plugin, RegularizerInstance, State, Stateful};
use fthost::run::pass::{Decision, Pass};
use fthost::run::train::example_gradients::TaskExamples;
use fthost_autograd::{Device, Precision, Tape, Tensor};
use fthost_plugin_api::{Event, HeadSpec, TargetKind, TaskInfo};
use serde_json::{Value, json};

use crate::host::{attach_head, gradient, parameter, plugin, shift, tiny_bert};
use crate::reference::{self, floats};

const QUERY: &str = "encoder.layer.0.attention.self.query.weight";

fn numbers() -> Value {
    reference::read("fisher.json")
}

/// A model that has learned a task, and what it has learned it from.
struct Run {
    /// EWC's, opened once.
    plugin: Plugin,
    model: AdaptedModel,
    head: HeadInstance,
    spec: HeadSpec,
    data: Dataset,
}

impl Run {
    fn new() -> Self {
        Self::with_head(&json!({}))
    }

    /// With these options of the head.
    fn with_head(options: &Value) -> Self {
        let mut model = tiny_bert();
        let info = model.model.info().plain();
        let task = TaskInfo {
            name: "reviews".into(),
            labels: ["0", "1", "2"].map(String::from).into(),
            class_counts: vec![3, 3, 2],
            examples: 0,
            width: info.width,
            streams: Vec::new(),
            hidden_activation: None,
            bias: true,
            dropout: 0.0,
            image: None,
            vocabulary: None,
            comparison: None,
            sequences: 1,
        };
        let source = Source {
            files: &Files::One(reference::path("fisher.tsv")),
            part: Part::Train,
            form: &Form::default(),
            only: None,
            texts: false,
            labels: None,
            modalities: &[info.modality],
            language: None,
            transform: None,
            device: &Device::Cpu,
        };
        let tokenizer = Tokenizer::load(&reference::path("tiny/bert/tokenizer.json"), 24).unwrap();
        let data = data::load(&source, Some(&tokenizer)).unwrap();
        let (head, spec) = attach_head("classification", options, &task, &mut model);
        let run = Self { plugin: plugin("ewc"), model, head, spec, data };
        for (name, values) in numbers()["head"].as_object().unwrap() {
            run.set(name, &floats(values));
        }
        run
    }

    fn set(&self, name: &str, to: &[f32]) {
        let parameter = parameter(&self.model, name);
        parameter.set(&Tensor::from_slice(to, parameter.dims(), &Device::Cpu).unwrap()).unwrap();
    }

    fn ewc(&mut self, options: Value) -> RegularizerInstance {
        let mut ewc = RegularizerInstance::create(&self.plugin, "ewc", &options).unwrap();
        ewc.attach(&mut self.model).unwrap();
        ewc
    }

    fn tell(&mut self, ewc: &mut RegularizerInstance, event: &Event, seed: u64) -> fthost::Result<()> {
        let mut examples = TaskExamples { head: &self.head, spec: &self.spec, data: &self.data, seed };
        ewc.event(event, &mut self.model, Some(&mut examples))
    }

    fn end_task(&mut self, ewc: &mut RegularizerInstance, seed: u64) {
        self.tell(ewc, &Event::TaskEnd { task: "reviews".into() }, seed).unwrap();
    }

    /// F as it is measured with these options.
    fn fisher(&mut self, options: Value, seed: u64) -> State {
        let mut ewc = self.ewc(options);
        self.end_task(&mut ewc, seed);
        ewc.save().unwrap()
    }
}

impl Run {
    /// Plain gradient descent on all examples, with the penalty where there is a regularizer; the mean loss before each step.
    fn descend(&mut self, steps: usize, ewc: Option<&RegularizerInstance>) -> Vec<f64> {
        let rows: Vec<u32> = (0..self.data.len() as u32).collect();
        let mut losses = Vec::new();
        for _ in 0..steps {
            let Self { model, head, spec, data, .. } = &*self;
            let decision = Decision::default();
            let pass = Pass { model, head, spec, data, precision: Precision::F32, decision };
            let mut batch = pass.gradients(&data.show(&rows).unwrap(), None, 1.0, None).unwrap();
            losses.push(batch.loss / batch.weight);
            batch.gradients.scale(1.0 / batch.weight).unwrap();
            let tape = Tape::recording();
            if let Some(penalty) = ewc.and_then(|ewc| ewc.penalty(&tape).unwrap()) {
                batch.gradients.accumulate(tape.backward(&penalty).unwrap(), true).unwrap();
            }
            for (parameter, gradient) in batch.gradients.iter() {
                let step = gradient.to_dense(parameter.dims()).unwrap().affine(-0.05, 0.0).unwrap();
                parameter.set(&(parameter.tensor() + step).unwrap()).unwrap();
            }
        }
        losses
    }
}

fn tensor(state: &State, name: &str) -> Vec<f32> {
    state.tensors[name].flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference, relative to the largest number.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

/// The penalty, and its gradient with respect to one parameter.
fn penalty(ewc: &RegularizerInstance, run: &Run, name: &str) -> (f32, Vec<f32>) {
    let tape = Tape::recording();
    let penalty = ewc.penalty(&tape).unwrap().unwrap();
    let gradients = tape.backward(&penalty).unwrap();
    (penalty.tensor().to_scalar().unwrap(), gradient(&gradients, parameter(&run.model, name)))
}

#[test]
fn the_fisher_information_is_the_references() {
    // It is of -log p(label), whatever the loss weighs and smooths.
    let weighted = json!({ "class_weights": [0.0, 3.0, 0.5], "label_smoothing": 0.2 });
    for head in [json!({}), weighted] {
        let mut run = Run::with_head(&head);
        for labels in ["empirical", "exact"] {
            let state = run.fisher(json!({ "labels": labels, "examples": 0 }), 0);
            for (name, expected) in numbers()[labels].as_object().unwrap() {
                let off = difference(&tensor(&state, &format!("fisher.{name}")), &floats(expected));
                assert!(off < 1e-5, "{head}, {labels}, {name}: off by {off}");
            }
        }
    }
}

#[test]
fn drawn_labels_come_to_the_expectation_over_labels() {
    let mut run = Run::new();
    let name = "fisher.pooler.dense.weight";
    let mut mean = vec![0f32; 256];
    for seed in 0..200 {
        let drawn = run.fisher(json!({ "labels": "sampled" }), seed);
        mean.iter_mut().zip(tensor(&drawn, name)).for_each(|(mean, x)| *mean += x / 200.0);
    }
    let off = difference(&mean, &floats(&numbers()["exact"]["pooler.dense.weight"]));
    assert!(off < 0.05, "off by {off}");
    // One seed draws the same labels again, and another one others.
    let once = tensor(&run.fisher(json!({}), 1), name);
    assert_eq!(once, tensor(&run.fisher(json!({}), 1), name));
    assert_ne!(once, tensor(&run.fisher(json!({}), 2), name));
}

#[test]
fn a_limit_takes_a_part_of_the_examples() {
    let mut run = Run::new();
    let mut fisher = |examples: u64| run.fisher(json!({ "labels": "empirical", "examples": examples }), 3);
    let all = fisher(0);
    let name = format!("fisher.{QUERY}");
    assert_eq!(tensor(&fisher(100), &name), tensor(&all, &name));
    // Means of one, of two: twice the second less the first is the second example alone, and none of it is negative.
    let (one, two) = (tensor(&fisher(1), &name), tensor(&fisher(2), &name));
    assert!(one.iter().zip(&two).all(|(one, two)| 2.0 * two - one >= -1e-6 * two));
    assert_ne!(one, two);
}

#[test]
fn the_penalty_holds_each_parameter_by_its_fisher_information() {
    let mut run = Run::new();
    let mut ewc = run.ewc(json!({ "lambda": 50.0, "labels": "exact" }));
    assert!(ewc.penalty(&Tape::recording()).unwrap().is_none(), "the first task is free");
    run.end_task(&mut ewc, 0);
    let (at_rest, gradient) = penalty(&ewc, &run, QUERY);
    assert_eq!((at_rest, gradient.iter().all(|g| *g == 0.0)), (0.0, true));

    shift(&run.model, QUERY, 0.1);
    let fisher = floats(&numbers()["exact"][QUERY]);
    let (moved, gradient) = penalty(&ewc, &run, QUERY);
    let expected = 25.0 * 0.01 * fisher.iter().sum::<f32>();
    assert!((moved - expected).abs() < 1e-4 * expected, "{moved} is not {expected}");
    assert!(difference(&gradient, &fisher.iter().map(|f| 50.0 * f * 0.1).collect::<Vec<_>>()) < 1e-4);
}

#[test]
fn terms_add_up_or_one_decays() {
    let name = format!("fisher.{QUERY}");
    let check = |options: Value, expected: &dyn Fn(f32, f32) -> f32| {
        let mut run = Run::new();
        let mut ewc = run.ewc(options);
        run.end_task(&mut ewc, 0);
        let first = tensor(&ewc.save().unwrap(), &name);
        shift(&run.model, QUERY, 0.5);
        run.end_task(&mut ewc, 0);
        let second = tensor(&run.fisher(json!({ "labels": "empirical" }), 0), &name);
        // Moved by 0.6 from where the first task ended, by 0.1 from where the second did.
        shift(&run.model, QUERY, 0.1);
        let expected: f32 = first.iter().zip(&second).map(|(first, second)| expected(*first, *second)).sum();
        let (found, _) = penalty(&ewc, &run, QUERY);
        assert!((found - expected).abs() < 1e-4 * expected, "{found} is not {expected}");
        ewc.save().unwrap()
    };
    let separate = json!({ "lambda": 2.0, "labels": "empirical" });
    let state = check(separate, &|first, second| 0.36 * first + 0.01 * second);
    assert_eq!(state.json["tasks"], json!(["reviews", "reviews"]));
    // gamma (gamma F1 + F2) about the second task's end, as in the reference.
    let online = json!({ "lambda": 2.0, "labels": "empirical", "form": "online", "gamma": 0.5 });
    let state = check(online, &|first, second| 0.5 * 0.01 * (0.5 * first + second));
    assert_eq!(state.json, json!({ "form": "online", "tasks": ["reviews", "reviews"], "rest": 0.0 }));
}

#[test]
fn a_later_run_holds_what_its_model_has() {
    let mut run = Run::new();
    let options = json!({ "lambda": 50.0, "labels": "empirical" });
    let mut first = run.ewc(options.clone());
    run.end_task(&mut first, 0);
    let mut state = first.save().unwrap();
    let named = |name: &str| state.tensors.keys().any(|key| key.ends_with(name));
    assert!(named(&format!("anchor.{QUERY}")) && !named("classifier.weight"), "heads are left out");

    // What the later run's model lacks is let go; a head of the same name is another task's and stays free.
    let stray = state.tensors[&format!("fisher.{QUERY}")].clone();
    for name in ["classifier.weight", "encoder.layer.0.attention.self.query.lora_A.weight"] {
        state.tensors.insert(format!("fisher.{name}"), stray.clone());
        state.tensors.insert(format!("anchor.{name}"), stray.clone());
    }
    let mut later = Run::new();
    let mut second = later.ewc(options);
    second.load(&state).unwrap();
    shift(&later.model, QUERY, 0.1);
    shift(&later.model, "classifier.weight", 1.0);
    shift(&run.model, QUERY, 0.1);
    assert_eq!(penalty(&second, &later, QUERY), penalty(&first, &run, QUERY));
    assert_eq!(second.save().unwrap().tensors.len(), first.save().unwrap().tensors.len());

    let text = later.ewc(json!({ "form": "online" })).load(&state).unwrap_err().to_string();
    assert!(text.ends_with("the state is of another form: set form = \"separate\""), "{text}");
    state.tensors.insert(format!("fisher.{QUERY}"), Tensor::from_slice(&[1f32], &[1], &Device::Cpu).unwrap());
    let text = later.ewc(json!({})).load(&state).unwrap_err().to_string();
    assert!(text.contains("in another shape: it is of another model"), "{text}");
}

#[test]
fn an_earlier_task_is_forgotten_less() {
    let head = floats(&numbers()["head"]["classifier.weight"]);
    let mut another = head.clone();
    another.rotate_left(16); // class 1's row for class 0, and so on
    // The first task's loss after the second, and the second's before and after it.
    let learn_both = |lambda: Option<f64>| {
        let mut run = Run::new();
        for head in run.model.parameters.iter().filter(|p| p.parameter.name().starts_with("classifier")) {
            head.parameter.set_trainable(false);
        }
        run.descend(60, None);
        let ewc = lambda.map(|lambda| {
            let mut ewc = run.ewc(json!({ "lambda": lambda, "labels": "exact" }));
            run.end_task(&mut ewc, 0);
            ewc
        });
        run.set("classifier.weight", &another);
        let second = run.descend(60, ewc.as_ref());
        run.set("classifier.weight", &head);
        (run.descend(1, None)[0], second[0], second[59])
    };
    let (free, held) = (learn_both(None), learn_both(Some(100.0)));
    assert!(held.0 < free.0 / 2.0, "held {held:?}, free {free:?}");
    assert!(held.2 < held.1 / 2.0, "the second task is learned all the same: {held:?}");
}

#[test]
fn labels_that_a_task_cannot_give_are_an_error_before_it_is_learned() {
    let mut run = Run::new();
    let begin = Event::TaskBegin { task: "reviews".into() };
    let mut ewc = run.ewc(json!({}));
    run.tell(&mut ewc, &begin, 0).unwrap();
    assert!(ewc.penalty(&Tape::recording()).unwrap().is_none(), "nothing was learned yet");
    run.spec.targets = TargetKind::Value;
    let text = run.tell(&mut ewc, &begin, 0).unwrap_err().to_string();
    assert!(text.ends_with("use empirical labels"), "{text}");
}

#[test]
fn frozen_parameters_are_not_measured() {
    let mut run = Run::new();
    run.model.parameters.iter().for_each(|p| p.parameter.set_trainable(p.parameter.name() == QUERY));
    let state = run.fisher(json!({}), 0);
    assert_eq!(state.tensors.keys().collect::<Vec<_>>(), [&format!("anchor.{QUERY}"), &format!("fisher.{QUERY}")]);
}
