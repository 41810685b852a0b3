#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use fthost_plugin_api::test::Host;

fn adalora(options: Value) -> Result<AdaLora> {
    AdaLora::new(from_value(options)?)
}

#[test]
fn refuses_what_cannot_be_meant() {
    for options in [
        json!({ "target_r": 0 }),
        json!({ "target_r": 12 }),
        json!({ "init_r": 4, "target_r": 5 }),
        json!({ "delta_t": 0 }),
        json!({ "beta1": 1.0 }),
        json!({ "beta2": 0.0 }),
        json!({ "alpha": 0.0 }),
        json!({ "dropout": 1.0 }),
        json!({ "rank_pattern": { "query": 13 } }),
        json!({ "rank": 8 }),
        json!({ "orth_reg_weight": 0.5 }),
    ] {
        assert!(adalora(options.clone()).is_err(), "{options}");
    }
    let penalty = |options: Value| from_value(options).map_err(Error::new).and_then(Orthogonality::new);
    penalty(json!({})).unwrap();
    for options in [json!({ "orth_reg_weight": 0.0 }), json!({ "orth_reg_weight": -1.0 }), json!({ "weight": 1.0 })] {
        assert!(penalty(options.clone()).is_err(), "{options}");
    }
}

/// PEFT's `budget_schedule` of ten layers.
#[test]
fn the_budget_falls_by_a_cube() {
    let config = |options: Value| adalora(options).unwrap().config;
    let of = config(json!({ "tinit": 10, "tfinal": 20, "delta_t": 5 }));
    let schedule = of.schedule(100).unwrap();
    let budgets = [0, 5, 10, 11, 15, 45, 75, 79, 80, 81, 99].map(|step| schedule.budget(step, 10));
    let expected = [None, None, None, None, Some(112), Some(85), Some(80), None, Some(80), Some(80), Some(80)];
    assert_eq!(budgets, expected);
    assert_eq!([79, 80].map(|step| (schedule.learns(step), schedule.settles(step))), [(true, false), (false, true)]);
    // Without steps at the end the last one settles.
    let schedule = config(json!({})).schedule(7).unwrap();
    assert_eq!([0, 1, 5, 6].map(|step| schedule.budget(step, 10)), [None, Some(105), Some(80), Some(80)]);
    assert_eq!([5, 6].map(|step| (schedule.learns(step), schedule.settles(step))), [(true, false), (true, true)]);
}

#[test]
fn a_training_that_is_too_short_is_refused_before_it_begins() {
    let mut run = Host::new().strategy::<AdaLora>(json!({ "tinit": 30, "tfinal": 20 })).unwrap();
    run.event(&Event::StepBegin { step: 0, total_steps: 51 }).unwrap();
    for total_steps in [10, 20, 50] {
        let error = run.event(&Event::StepBegin { step: 0, total_steps }).unwrap_err().to_string();
        assert!(error.contains(&format!("leave none of the {total_steps} steps to allocate ranks in")), "{error}");
    }
}

#[test]
fn starts_at_the_model_learns_and_merges() {
    for options in [
        json!({ "init_r": 3, "target_r": 1 }),
        json!({ "init_r": 4, "target_r": 2, "tinit": 1, "tfinal": 1, "dropout": 0.3, "targets": "all-linear" }),
        json!({ "init_r": 3, "target_r": 1, "targets": ["query", "convolution"], "exclude": ["1.attention.self.query"] }),
        json!({ "init_r": 3, "target_r": 1, "rank_pattern": { "0.attention.self.query": 2, "1.attention.self.query": 0 } }),
    ] {
        let run = Host::new().strategy::<AdaLora>(options.clone()).unwrap();
        assert!(run.starts_at_base().unwrap(), "{options}");
        run.check().unwrap_or_else(|error| panic!("{options}: {error}"));
    }
    let pictures = Host::new().of_pictures().strategy::<AdaLora>(json!({ "targets": ["projection"] }));
    pictures.unwrap().check().unwrap();
}

const LAYERS: [&str; 4] = [
    "encoder.layer.0.attention.self.query",
    "encoder.layer.0.attention.self.value",
    "encoder.layer.1.attention.self.query",
    "encoder.layer.1.attention.self.value",
];

#[test]
fn as_many_triplets_are_left_as_the_budget_says_and_they_are_what_is_saved() {
    let mut run =
        Host::new().strategy::<AdaLora>(json!({ "init_r": 4, "target_r": 2, "tinit": 2, "tfinal": 4 })).unwrap();
    let losses = run.train(1, 20).unwrap();
    assert!(losses[19] < losses[0]);
    let config = run.adapter_config().unwrap().expect("PEFT knows AdaLoRA");
    assert_eq!((&config["total_step"], &config["init_r"]), (&json!(20), &json!(4)));
    let (mut total, saved) = (0, run.adapter_tensors().unwrap());
    for layer in LAYERS {
        let name = format!("{layer}.lora_E");
        let values = run.value(&name).unwrap();
        let left: Vec<bool> = from_value(config["rank_pattern"][&name].clone()).unwrap();
        assert_eq!(values.iter().map(|value| *value != 0.0).collect::<Vec<_>>(), left, "{layer}");
        let rank = left.iter().filter(|left| **left).count();
        total += rank;
        assert_eq!(saved[&name], [rank, 1]);
        assert_eq!(saved[&format!("{layer}.lora_A")], [rank, 6]);
        assert_eq!(saved[&format!("{layer}.lora_B")], [6, rank]);
    }
    assert_eq!(total, 2 * LAYERS.len());
    run.check_state().unwrap();
}

#[test]
fn before_its_ranks_are_settled_a_model_is_saved_whole() {
    let mut run =
        Host::new().strategy::<AdaLora>(json!({ "init_r": 4, "target_r": 2, "tinit": 2, "tfinal": 4 })).unwrap();
    assert_eq!(run.adapter_config().unwrap().unwrap()["rank_pattern"], Value::Null);
    assert!(run.adapter_tensors().unwrap().is_empty());
    run.train(1, 20).unwrap();
    let said = run.logged().join("\n");
    assert!(said.contains("add [[regularizer]] plugin = \"adalora\"") && !said.contains("before its ranks"), "{said}");
    let mut stopped = Host::new().strategy::<AdaLora>(json!({})).unwrap();
    stopped.event(&Event::TaskEnd { task: "grades".into() }).unwrap();
    let said = stopped.logged().join("\n");
    assert!(said.contains("the model that grades leaves is of a step before its ranks were settled"), "{said}");
}

#[test]
fn ranks_that_were_allocated_stay() {
    let pattern = json!({ LAYERS[0]: 0, "0.attention.self.value": 1, LAYERS[2]: 3, LAYERS[3]: 3 });
    let mut run =
        Host::new().strategy::<AdaLora>(json!({ "init_r": 3, "target_r": 1, "rank_pattern": pattern })).unwrap();
    let shapes = |run: &fthost_plugin_api::test::StrategyRun| {
        LAYERS.map(|layer| run.value(&format!("{layer}.lora_E")).map_or(0, |e| e.len()))
    };
    assert_eq!(shapes(&run), [0, 1, 3, 3]);
    run.train(1, 4).unwrap();
    assert!(LAYERS[1..].iter().all(|layer| run.value(&format!("{layer}.lora_E")).unwrap().iter().all(|e| *e != 0.0)));
    let config = run.adapter_config().unwrap().unwrap();
    let left = |layer: usize| config["rank_pattern"][format!("{}.lora_E", LAYERS[layer])].clone();
    assert_eq!([left(0), left(1)], [json!([false, false, false]), json!([true, false, false])]);
    for (pattern, expected) in [
        (json!({ "key": 2 }), "rank_pattern names \"key\", which gets no update"),
        (json!({ "query": 0, "value": 0 }), "leaves no layer a triplet"),
    ] {
        let error = Host::new().strategy::<AdaLora>(json!({ "rank_pattern": pattern })).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_state_of_another_model_is_refused() {
    let make = |options: Value| {
        let mut strategy = adalora(options).unwrap();
        Host::new().call(|model| strategy.attach(model)).unwrap();
        strategy
    };
    let state = |left: Value, tensors: BTreeMap<String, Tensor>| SavedState {
        json: json!({ "total_steps": 4, "moved": true, "settled": left }),
        tensors,
    };
    let mut strategy = make(json!({ "init_r": 2, "target_r": 1 }));
    strategy.load(state(json!({ LAYERS[0]: [true, false] }), BTreeMap::new())).unwrap();
    for left in [json!({ LAYERS[0]: [true] }), json!({ "pooler.dense": [true, false] })] {
        let error = strategy.load(state(left, BTreeMap::new())).unwrap_err().to_string();
        assert!(error.contains("it is of another model"), "{error}");
    }
}

#[test]
fn pefts_config_becomes_the_options_that_it_came_from() {
    let written = json!({
        "init_r": 6, "target_r": 2, "tinit": 3, "tfinal": 5, "delta_t": 2, "beta1": 0.5, "beta2": 0.75, "alpha": 16.0, "targets": ["key"],
        "exclude": ["0.key"], "dropout": 0.1, "rank_pattern": {},
    });
    let back = |config: Value| AdaLora::options_from_peft(&mut from_value(config).unwrap());
    let config = adalora(written.clone()).unwrap().adapter_config().unwrap().unwrap();
    assert_eq!(config["total_step"], json!(9), "PEFT needs one that leaves steps to allocate in");
    assert_eq!(back(config).unwrap(), written);

    let given = json!({
        "target_modules": ["query"], "r": 8, "total_step": 10, "orth_reg_weight": 0.5,
        "rank_pattern": { "bert.0.query.lora_E": [true, false, true], "bert.1.query.lora_E": [false, false, false] },
    });
    assert_eq!(back(given).unwrap()["rank_pattern"], json!({ "bert.0.query": 2, "bert.1.query": 0 }));
    for (field, value, expected) in [
        ("bias", json!("all"), "bias = \"all\""),
        ("target_modules", json!(null), "names no target_modules"),
        ("rank_pattern", json!({ "query": [true] }), "names \"query\", and no layer's lora_E"),
    ] {
        let mut config = json!({ "target_modules": ["query"] });
        config[field] = value;
        let error = back(config).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_penalty_belongs_to_the_strategy() {
    let error = Host::new().regularizer::<Orthogonality>(json!({})).err().unwrap().to_string();
    assert!(error.contains("add [[strategy]] plugin = \"adalora\""), "{error}");
    let penalty = |orthogonal: bool| {
        Host::new().call(|model| {
            let site = model.linears(&Targets::from(["pooler.dense"]))?.remove(0);
            let rows: &[f32] = if orthogonal { &[1.0, 0.0, 0.0, 1.0] } else { &[3.0, 0.0, 0.0, 4.0] };
            let square = Tensor::from_slice(rows, [2, 2])?;
            for name in ["lora_A", "lora_B"] {
                model.param(&site, name, [2, 2], Init::copy_of(&square))?;
            }
            model.param(&site, "lora_E", [2, 1], Init::Zeros)?;
            let mut penalty = Orthogonality::new(from_value(json!({ "orth_reg_weight": 2.0 }))?)?;
            penalty.attach(model)?;
            penalty.penalty()?.expect("there are vectors").to_scalar()
        })
    };
    assert!(penalty(true).unwrap().abs() < 1e-15);
    assert!((penalty(false).unwrap() - 2.0 * (8.0_f64 * 8.0 + 15.0 * 15.0).sqrt()).abs() < 1e-9);
}
