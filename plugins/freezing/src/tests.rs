#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use fthost_plugin_api::serde_json::from_value;

fn freezing(options: Value) -> Result<Freezing> {
    Freezing::new(from_value(options)?)
}

fn config(options: Value) -> FreezingConfig {
    freezing(options).unwrap().config
}

/// A model of four blocks: groups 0 (embeddings) to 5 (heads, and a norm or pooler of the pretrained model's own).
const GROUPS: usize = 6;
const DEEPEST: usize = GROUPS - 1;

#[test]
fn depth_counts_from_the_head_down() {
    let tower = Towers::of(GROUPS, 1, &[]).whole;
    assert_eq!(tower.deepest(), DEEPEST);
    let table = [
        // group, of the pretrained model, depth
        (5, false, 0), // head, prompt
        (5, true, 1),  // pooler, last norm
        (4, true, 1),  // top block
        (4, false, 1), // LoRA in the top block
        (3, true, 2),
        (1, false, 4),
        (0, true, 5), // embeddings
    ];
    for (group, base, expected) in table {
        assert_eq!(tower.depth(group, base), expected, "group {group}, base {base}");
    }
}

/// A text tower of four blocks above groups 0 to 4, an image tower of two above groups 5 to 7, and heads.
#[test]
fn depth_counts_from_the_head_down_in_each_stream() {
    let of = |stream: &str, group: usize, base: bool| ParamInfo {
        path: String::new(),
        shape: vec![1],
        trainable: true,
        group,
        stream: stream.into(),
        base,
        handle: 0,
        head: false,
        shared: false,
        lr_factor: 1.0,
    };
    let table = [
        // of the pretrained model, depth, deepest
        (of("text", 0, true), 5, 5),  // embeddings
        (of("text", 4, true), 1, 5),  // top block
        (of("text", 4, false), 1, 5), // LoRA in the top block
        (of("text", 8, true), 1, 5),  // what stands above the blocks: a norm, a projection
        (of("text", 8, false), 0, 5), // a prompt of the stream's
        (of("image", 5, true), 3, 3),
        (of("image", 6, true), 2, 3),
        (of("image", 7, true), 1, 3),
        (of("image", 8, true), 1, 3),
        (of("", 8, false), 0, 8), // head
        (of("", 8, true), 1, 8),  // the scale of CLIP's own head
    ];
    let all: Vec<ParamInfo> = table.iter().map(|(of, ..)| of.clone()).collect();
    let towers = Towers::of(9, 2, &all);
    for (of, depth, deepest) in table {
        let tower = towers.tower(&of);
        assert_eq!((tower.depth(of.group, of.base), tower.deepest()), (depth, deepest), "{of:?}");
    }
    // Of one stream alone, or where the host says nothing of streams, all is one tower.
    for streams in [0, 1] {
        assert_eq!(Towers::of(9, streams, &all).tower(&all[5]).depth(5, true), 3);
        assert_eq!(Towers::of(9, streams, &all).tower(&all[0]).depth(0, true), 8);
    }
}

/// Written by hand. T trains, `.` is frozen: head, top block, and so on down to the embeddings.
#[test]
fn what_trains_in_each_epoch_or_step() {
    let check = |options: Value, table: &[(u64, &str)]| {
        let config = config(options.clone());
        for (passed, expected) in table {
            let stage = config.stage(*passed);
            let found: String = (0..=DEEPEST).map(|depth| if depth <= stage { 'T' } else { '.' }).collect();
            assert_eq!(found, *expected, "{options} after {passed}");
        }
    };
    check(json!({}), &[(0, "T....."), (1, "T....."), (1000, "T.....")]);
    check(json!({ "top": 2 }), &[(0, "TTT..."), (7, "TTT...")]);
    check(json!({ "top": "all" }), &[(0, "TTTTTT")]);
    check(
        json!({ "unfreeze": { "every": { "epochs": 1 } } }),
        &[(0, "T....."), (1, "TT...."), (2, "TTT..."), (3, "TTTT.."), (4, "TTTTT."), (5, "TTTTTT"), (6, "TTTTTT")],
    );
    check(
        json!({ "top": 1, "unfreeze": { "every": { "steps": 100 }, "groups": 2 } }),
        &[(0, "TT...."), (99, "TT...."), (100, "TTTT.."), (199, "TTTT.."), (200, "TTTTTT"), (u64::MAX, "TTTTTT")],
    );
}

/// Written by hand: factors from the head down to the embeddings.
#[test]
fn rates_fall_from_the_head_down() {
    let check = |options: Value, table: [f64; GROUPS]| {
        let config = config(options.clone());
        for (depth, expected) in table.into_iter().enumerate() {
            let found = config.rate(depth, DEEPEST);
            assert!((found - expected).abs() < 1e-12, "{options} at depth {depth}: {found}, not {expected}");
        }
    };
    check(json!({ "top": "all" }), [1.0; GROUPS]);
    check(json!({ "top": "all", "decay": 0.5 }), [1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125]);
    // ULMFiT: each layer's rate is that of the layer above over 2.6.
    let ulmfit = [1.0, 1.0 / 2.6, 1.0 / 6.76, 1.0 / 17.576, 1.0 / 45.6976, 1.0 / 118.81376];
    check(json!({ "top": "all", "decay": 1.0 / 2.6 }), ulmfit);
    // fastai's even_mults(1e-5, 1, 6), read from the top.
    check(json!({ "top": "all", "slice": 1e-5 }), [1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5]);
}

#[test]
fn only_epochs_or_only_steps_count() {
    let epoch = |epoch| Event::EpochBegin { epoch, epochs: 9 };
    let step = |step| Event::StepBegin { step, total_steps: 90 };
    let check = |every: Value, events: &[(Event, usize)]| {
        let mut freezing = freezing(json!({ "unfreeze": { "every": every } })).unwrap();
        for (event, stage) in events {
            freezing.hear(event);
            assert_eq!(freezing.stage, *stage, "{event:?}");
        }
    };
    check(json!({ "epochs": 2 }), &[(epoch(0), 0), (step(50), 0), (epoch(2), 1), (step(51), 1), (epoch(5), 2)]);
    check(json!({ "steps": 10 }), &[(epoch(0), 0), (step(9), 0), (step(10), 1), (epoch(7), 1), (step(29), 2)]);
}

#[test]
fn a_resumed_run_goes_on_in_its_stage() {
    let options = json!({ "top": 1, "unfreeze": { "every": { "epochs": 1 } } });
    let mut first = freezing(options.clone()).unwrap();
    (first.applied, first.rates_set) = (Some(1), true);
    for epoch in 0..3 {
        first.hear(&Event::EpochBegin { epoch, epochs: 5 });
    }
    let mut resumed = freezing(options).unwrap();
    resumed.applied = Some(resumed.stage);
    resumed.load(first.save().unwrap()).unwrap();
    assert_eq!((resumed.stage, resumed.applied), (3, None), "the model is told at the next event");
    assert!(resumed.rates_set, "the host has the factors, which must not multiply once more");
    for freezing in [&mut first, &mut resumed] {
        freezing.hear(&Event::EpochBegin { epoch: 3, epochs: 5 });
        assert_eq!(freezing.stage, 4);
    }
    assert!(resumed.load(SavedState::default()).is_err());
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let every = json!({ "epochs": 1 });
    for (options, part) in [
        (json!({ "decay": 0.9 }), "top = \"all\""),
        (json!({ "slice": 0.9 }), "or unfreeze"),
        (json!({ "top": "all", "decay": 0.0 }), "above 0"),
        (json!({ "top": "all", "slice": 1.5 }), "at most 1"),
        (json!({ "top": "all", "decay": 0.5, "slice": 0.5 }), "give one of them"),
        (json!({ "factors": { "classifier.*": -1.0 } }), "from 0 up"),
        (json!({ "unfreeze": { "every": {} } }), "give one of them"),
        (json!({ "unfreeze": { "every": { "epochs": 1, "steps": 1 } } }), "give one of them"),
        (json!({ "unfreeze": { "every": { "steps": 0 } } }), "at least 1 epoch or step"),
        (json!({ "unfreeze": { "every": every, "groups": 0 } }), "at least 1"),
        (json!({ "top": "all", "unfreeze": { "every": every } }), "leave unfreeze out"),
        (json!({ "top": "most" }), "Top"),
        (json!({ "unfreeze": { "every": { "hours": 1 } } }), "hours"),
        (json!({ "freez": [] }), "freez"),
    ] {
        let error = freezing(options.clone()).err().unwrap_or_else(|| panic!("{options} is taken")).to_string();
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
}
