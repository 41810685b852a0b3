//! Strategies on a model of two streams: what they do to both towers, and where they keep to one.

use fthost::adapted::{AdaptedModel, Owner};
use fthost::plugin::StrategyInstance;
use fthost_plugin_api::Event;
use serde_json::{Value, json};

use crate::host::{plugin, tiny_clip};

/// A strategy that has attached as the one of this place in the run file, to a stream or to all of the model.
fn attach(
    name: &str,
    options: &Value,
    stream: Option<&str>,
    model: &mut AdaptedModel,
    index: usize,
) -> StrategyInstance {
    let stream = stream.map(|stream| model.model.info().stream(stream).unwrap());
    let mut strategy = StrategyInstance::create(&plugin(name), name, options).unwrap().within(stream);
    strategy.attach(model, index).unwrap();
    strategy
}

/// Tells a strategy that a step begins.
fn step(strategy: &mut StrategyInstance, model: &mut AdaptedModel, step: u64) {
    strategy.event(&Event::StepBegin { step, total_steps: 100 }, model, None).unwrap();
}

/// One parameter of each depth, from the top down: what stands above the blocks, both blocks, the embeddings.
const TEXT: [&str; 4] = [
    "text_model.final_layer_norm.weight",
    "text_model.encoder.layers.1.self_attn.q_proj.weight",
    "text_model.encoder.layers.0.self_attn.q_proj.weight",
    "text_model.embeddings.token_embedding.weight",
];
const IMAGE: [&str; 4] = [
    "vision_model.post_layernorm.weight",
    "vision_model.encoder.layers.1.self_attn.q_proj.weight",
    "vision_model.encoder.layers.0.self_attn.q_proj.weight",
    "vision_model.embeddings.patch_embedding.weight",
];

/// What of a tower trains: T, or `.` where it is frozen.
fn trains(model: &AdaptedModel, tower: [&str; 4]) -> String {
    let of = |name: &str| model.parameters.iter().find(|p| p.parameter.name() == name).unwrap();
    tower.iter().map(|name| if of(name).parameter.trainable() { 'T' } else { '.' }).collect()
}

/// The factors of a tower's rates.
fn factors(model: &AdaptedModel, tower: [&str; 4]) -> [f64; 4] {
    tower.map(|name| model.parameters.iter().find(|p| p.parameter.name() == name).unwrap().lr_factor)
}

#[test]
fn freezing_counts_from_the_top_of_each_tower() {
    let mut model = tiny_clip();
    let options = json!({ "top": "all", "decay": 0.5, "factors": { "image:.*": 0.1 } });
    step(&mut attach("freezing", &options, None, &mut model, 0), &mut model, 0);
    assert_eq!(factors(&model, TEXT), [0.5, 0.5, 0.25, 0.125]);
    assert_eq!(factors(&model, IMAGE), [0.5, 0.5, 0.25, 0.125].map(|factor| factor * 0.1));

    let mut model = tiny_clip();
    let slice = json!({ "top": "all", "slice": 0.001 });
    step(&mut attach("freezing", &slice, None, &mut model, 0), &mut model, 0);
    for tower in [TEXT, IMAGE] {
        let found = factors(&model, tower);
        for (found, expected) in found.into_iter().zip([0.1, 0.1, 0.01, 0.001]) {
            assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
        }
    }
}

#[test]
fn freezing_thaws_both_towers_at_once() {
    let mut model = tiny_clip();
    let options = json!({ "unfreeze": { "every": { "steps": 10 } } });
    let mut freezing = attach("freezing", &options, None, &mut model, 0);
    for (at, expected) in [(0, "...."), (10, "TT.."), (25, "TTT."), (30, "TTTT")] {
        step(&mut freezing, &mut model, at);
        for tower in [TEXT, IMAGE] {
            assert_eq!(trains(&model, tower), expected, "step {at}");
        }
    }
}

#[test]
fn freezing_of_one_tower_leaves_the_other_as_it_is() {
    let mut model = tiny_clip();
    let mut freezing = attach("freezing", &json!({ "top": 1, "decay": 0.5 }), Some("image"), &mut model, 0);
    step(&mut freezing, &mut model, 0);
    assert_eq!((trains(&model, TEXT).as_str(), trains(&model, IMAGE).as_str()), ("TTTT", "TT.."));
    assert_eq!((factors(&model, TEXT), factors(&model, IMAGE)), ([1.0; 4], [0.5, 0.5, 0.25, 0.125]));

    // Stages of one tower go on beside those of the other.
    let mut model = tiny_clip();
    let every = |steps: u64| json!({ "unfreeze": { "every": { "steps": steps } } });
    let mut both = [("text", 10), ("image", 20)].map(|(stream, steps)| {
        let index = usize::from(stream == "image");
        attach("freezing", &every(steps), Some(stream), &mut model, index)
    });
    for (at, text, image) in [(0, "....", "...."), (10, "TT..", "...."), (20, "TTT.", "TT.."), (60, "TTTT", "TTTT")] {
        both.iter_mut().for_each(|freezing| step(freezing, &mut model, at));
        assert_eq!((trains(&model, TEXT).as_str(), trains(&model, IMAGE).as_str()), (text, image), "step {at}");
    }
}

#[test]
fn each_tower_has_a_lora_of_its_own_rank() {
    let mut model = tiny_clip();
    let lora = |rank: usize, target: &str| json!({ "rank": rank, "targets": [target] });
    attach("lora", &lora(2, "q_proj"), Some("text"), &mut model, 0);
    assert_eq!(trains(&model, IMAGE), "TTTT", "that of text knows nothing of it");
    attach("lora", &lora(3, "v_proj"), Some("image"), &mut model, 1);
    assert_eq!((trains(&model, TEXT), trains(&model, IMAGE)), ("....".into(), "....".into()));
    let declared: Vec<(String, Vec<usize>, bool)> = model
        .trainable()
        .filter(|p| p.owner != Owner::Base)
        .map(|p| (p.parameter.name().to_owned(), p.parameter.dims().to_vec(), p.owner == Owner::Strategy(0)))
        .collect();
    let expected: Vec<_> = [("text", "q_proj", 2, 16), ("vision", "v_proj", 3, 24)]
        .into_iter()
        .flat_map(|(tower, layer, rank, width)| {
            (0..2).flat_map(move |block| {
                let name = format!("{tower}_model.encoder.layers.{block}.self_attn.{layer}");
                let of = |end: &str, shape: [usize; 2]| (format!("{name}.{end}.weight"), shape.to_vec(), rank == 2);
                [of("lora_A", [rank, width]), of("lora_B", [width, rank])]
            })
        })
        .collect();
    assert_eq!(declared, expected);

    let options = json!({ "targets": ["patch_embedding"] });
    let stream = model.model.info().stream("text");
    let mut wrong = StrategyInstance::create(&plugin("lora"), "lora", &options).unwrap().within(stream);
    let error = wrong.attach(&mut model, 2).unwrap_err().to_string();
    assert!(error.contains("target \"patch_embedding\" matches no linear layer or convolution"), "{error}");
}
