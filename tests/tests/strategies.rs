//! What strategies train and how fast, read off the weights that they save.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use fthost_tests::{Workdir, result_json, root};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::text::{LORA, RUN, text_workdir};

/// Tensors by their names in a file.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn read(file: &Path) -> Tensors {
    let bytes = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let values = |view: &TensorView<'_>| {
        let bytes = view.data().chunks_exact(4);
        bytes.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    };
    tensors.iter().map(|(name, view)| (name.to_owned(), (view.shape().to_vec(), values(&view)))).collect()
}

/// The demo's pretrained weights.
fn pretrained() -> Tensors {
    read(&root().join("host/assets/demo/model.safetensors"))
}

/// A few steps of the demo without dropout; the run's folder. `strategies` are tables of the run file.
fn demo(strategies: &str, train: &str) -> (Workdir, std::path::PathBuf) {
    let workdir = Workdir::new();
    let task = "[[task]]\nhead = { plugin = \"classification\" }\ntrain = \"demo\"";
    let train = format!("[train]\nweight_decay = 0.0\ndropout = false\n{train}");
    workdir.write("run.toml", format!("[model]\npath = \"demo\"\n{task}\n{strategies}\n{train}\n"));
    workdir.fthost(["--config", "run.toml", "--out", "run"]).succeeded();
    let run = workdir.path().join("run");
    (workdir, run)
}

fn freezing(options: &str, train: &str) -> Tensors {
    let (_workdir, run) = demo(&format!("[[strategy]]\nplugin = \"freezing\"\n{options}"), train);
    read(&run.join("model/model.safetensors"))
}

/// How far below the head a tensor of the demo's four blocks stands; `None` for the head's own.
fn depth(name: &str) -> Option<usize> {
    let name = name.strip_prefix("vit.")?;
    let block = name.strip_prefix("encoder.layer.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    Some(match block {
        Some(block) => 4 - block,
        None if name.starts_with("layernorm.") => 1,
        None => 5,
    })
}

/// By how much each element of the pretrained model moved.
fn moves(trained: &Tensors) -> BTreeMap<String, Vec<f32>> {
    let moved = |(name, (_, before)): (String, (Vec<usize>, Vec<f32>))| {
        let (_, after) = &trained[&name];
        (name, after.iter().zip(before).map(|(after, before)| after - before).collect())
    };
    pretrained().into_iter().filter(|(name, _)| depth(name).is_some()).map(moved).collect()
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

/// Written by hand: after so many steps the groups of these depths have moved.
#[test]
fn freezing_thaws_from_the_top_down() {
    let options = "top = 1\nunfreeze = { every = { steps = 2 }, groups = 2 }";
    for (steps, expected) in [(3, vec![1, 2, 3]), (4, vec![1, 2, 3]), (5, vec![1, 2, 3, 4, 5])] {
        let moves = moves(&freezing(options, &format!("steps = {steps}")));
        for (name, moved) in &moves {
            let trains = expected.contains(&depth(name).unwrap());
            assert_eq!(moved.iter().any(|x| *x != 0.0), trains, "{name} after {steps} steps");
        }
    }
}

/// torch: the first update of AdamW is the learning rate in the direction of the gradient, whenever it comes.
#[test]
fn a_layer_that_thaws_late_takes_torchs_first_step() {
    let lr = 1e-3;
    let moves = moves(&freezing("top = 1\nunfreeze = { every = { steps = 20 } }", &format!("steps = 21\nlr = {lr}")));
    for (name, moved) in moves.iter().filter(|(name, _)| depth(name) == Some(2) && !name.contains("key.bias")) {
        let mut sizes: Vec<f64> = moved.iter().map(|x| f64::from(x.abs())).collect();
        sizes.sort_by(f64::total_cmp);
        let (median, most) = (sizes[sizes.len() / 2], sizes[sizes.len() - 1]);
        assert!((median / lr - 1.0).abs() < 1e-2 && most < 1.001 * lr, "{name}: {median} and at most {most}");
    }
}

/// One step of plain gradient descent moves a weight by its rate times its gradient, so two runs show the ratio of their rates.
#[test]
fn freezing_gives_each_group_its_rate() {
    let train = "steps = 1\noptimizer = \"sgd\"\nlr = 0.1";
    let plain = freezing("top = \"all\"", train);
    let check = |options: &str, expected: &dyn Fn(&str, usize) -> f64| {
        let scaled = freezing(&format!("top = \"all\"\n{options}"), train);
        assert_eq!(scaled["classifier.weight"], plain["classifier.weight"], "{options}: the head has the full rate");
        for (name, moved) in moves(&scaled) {
            let (found, full) = (norm(&moved), norm(&moves(&plain)[&name]));
            let expected = full * expected(&name, depth(&name).unwrap());
            assert!((found - expected).abs() < 1e-3 * full + 1e-7, "{options}: {name} moved {found}, not {expected}");
        }
    };
    check("decay = 0.5", &|_, depth| [1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125][depth]);
    check("slice = 0.01", &|_, depth| [1.0, 0.398107, 0.158489, 0.0630957, 0.0251189, 0.01][depth]);
    let factors = r#"factors = { ".*layer\\.3\\..*" = 0.5, ".*\\.query\\..*" = 0.5 }"#;
    check(factors, &|name, _| {
        let block = if name.contains("layer.3.") { 0.5 } else { 1.0 };
        if name.contains(".query.") { block * 0.5 } else { block }
    });
}

#[test]
fn freezing_over_lora_unfreezes_its_updates() {
    let strategies =
        "[[strategy]]\nplugin = \"lora\"\n[[strategy]]\nplugin = \"freezing\"\nunfreeze = { every = { steps = 1 } }";
    let (_workdir, run) = demo(strategies, "steps = 3");
    let result = result_json(&run);
    assert_eq!(result["saved"]["format"], "peft", "{}", result["saved"]);
    let adapter = read(&run.join("adapter/adapter_model.safetensors"));
    assert!(adapter.keys().all(|name| name.contains("lora_") || name.contains("classifier")), "{:?}", adapter.keys());
    for (name, (_, values)) in adapter.iter().filter(|(name, _)| name.contains("lora_B")) {
        let depth = depth(name.strip_prefix("base_model.model.").unwrap()).unwrap();
        assert_eq!(values.iter().any(|x| *x != 0.0), depth <= 2, "{name}");
    }
}

#[test]
fn freezing_comes_last() {
    let workdir = text_workdir();
    let freezing = "plugin = \"freezing\"\nunfreeze = { every = { epochs = 1 } }";
    workdir.write("run.toml", RUN.replace(LORA, &format!("{freezing}\n\n[[strategy]]\n{LORA}")));
    insta::assert_snapshot!(workdir.fthost(["--config", "run.toml", "--out", "run", "--quiet"]).failed(1), @"
    plugin

      x plugin freezing (libfreezing.so) failed in an event: a strategy after this one adds parameters or
      | changes what trains: make freezing the last [[strategy]]
    ");
}

/// One step with weight decay and one with none to speak of: the same gradients, so what differs decays.
#[test]
fn decay_of_biases_and_norms_leaves_out_what_a_plugin_keeps_from_it() {
    let step = |strategy: &str, decay: &str| {
        let task = "[[task]]\nhead = { plugin = \"classification\" }\ntrain = \"demo\"";
        let train =
            format!("[train]\nsteps = 1\ndropout = false\ndecay_biases_and_norms = true\nweight_decay = {decay}");
        let workdir = Workdir::new();
        let strategy = format!("[[strategy]]\nplugin = \"{strategy}\"");
        workdir.write("run.toml", format!("[model]\npath = \"demo\"\n{task}\n{strategy}\n{train}\n"));
        workdir.fthost(["--config", "run.toml", "--out", "run"]).succeeded();
        let run = workdir.path().join("run");
        let adapter = run.join("adapter/adapter_model.safetensors");
        read(&if adapter.is_file() { adapter } else { run.join("model/model.safetensors") })
    };
    let decayed = |strategy: &str| -> Vec<String> {
        let (with, without) = (step(strategy, "0.5"), step(strategy, "1e-30"));
        with.iter().filter(|(name, values)| without[*name] != **values).map(|(name, _)| name.clone()).collect()
    };
    let of_ia3 = decayed("ia3");
    assert!(of_ia3.iter().any(|name| name.ends_with("classifier.weight")), "{of_ia3:?}");
    assert!(of_ia3.iter().all(|name| !name.contains("ia3_l")), "{of_ia3:?}");
    let of_all = decayed("full");
    assert!(of_all.iter().any(|name| name.contains("layernorm")), "norms decay, as the run file says: {of_all:?}");
}

#[test]
fn bitfit_moves_biases_alone() {
    let check = |options: &str, trains: &dyn Fn(&str) -> bool| {
        let (_workdir, run) = demo(&format!("[[strategy]]\nplugin = \"bitfit\"\n{options}"), "steps = 2");
        for (name, moved) in moves(&read(&run.join("model/model.safetensors"))) {
            assert_eq!(moved.iter().any(|x| *x != 0.0), trains(&name), "{options}: {name}");
        }
    };
    check("", &|name| name.ends_with(".bias"));
    let named = |name: &str| name.ends_with("query.bias") || name.ends_with("intermediate.dense.bias");
    check("targets = [\"query\", \"intermediate.dense\"]", &named);
}

/// Multiplies a layer's rows and bias by a vector, or its columns.
fn scale(model: &mut Tensors, path: &str, l: &[f32], by_rows: bool) {
    let (shape, weight) = model.get_mut(&format!("{path}.weight")).unwrap();
    let inputs = shape[1];
    assert_eq!(l.len(), if by_rows { shape[0] } else { inputs }, "{path}");
    weight.iter_mut().enumerate().for_each(|(i, w)| *w *= if by_rows { l[i / inputs] } else { l[i % inputs] });
    if by_rows {
        model.get_mut(&format!("{path}.bias")).unwrap().1.iter_mut().zip(l).for_each(|(b, l)| *b *= l);
    }
}

/// IA3 by its equation: the learned vectors, multiplied into the weights and biases of a plain model, give the same outputs.
#[test]
fn ia3_is_a_rescaling_of_weights_and_biases() {
    // A head that stays as it was drawn is the same in both runs. It is drawn wide, for the tiny model's features are all alike.
    let still = "[[strategy]]\nplugin = \"freezing\"\ntop = \"all\"\nfactors = { \"classifier.*\" = 0.0 }";
    let workdir = text_workdir();
    let run = |name: &str, strategies: &str, model: &str| {
        let text = RUN.replace(&format!("[[strategy]]\n{LORA}"), strategies);
        let text = text.replace("\"classification\"", "\"classification\", init_std = 1.0");
        let text = text.replace("\"model\"", &format!("{model:?}"));
        workdir.write(&format!("{name}.toml"), text);
        let settings = ["--set", "train.evaluate_before=true", "--set", "train.lr=0.5"];
        workdir.fthost(["--config", &format!("{name}.toml"), "--out", name].iter().chain(&settings)).succeeded();
        result_json(&workdir.path().join(name))["tasks"]["sentiment"].clone()
    };
    let loss = |of: &Value| of["loss"].as_f64().unwrap();
    let trained = run("trained", &format!("[[strategy]]\nplugin = \"ia3\"\n{still}"), "model");
    assert!((loss(&trained["before"]) - loss(&trained["metrics"])).abs() > 0.01, "nothing was learned: {trained}");

    let mut model = read(&workdir.path().join("model/model.safetensors"));
    let adapter = read(&workdir.path().join("trained/adapter/adapter_model.safetensors"));
    let vectors = adapter
        .iter()
        .filter_map(|(name, l)| Some((name.strip_prefix("base_model.model.")?.strip_suffix(".ia3_l")?, l)));
    let mut forms = BTreeMap::new();
    for (path, (shape, l)) in vectors {
        let by_rows = shape[1] == 1;
        scale(&mut model, path, l, by_rows);
        *forms.entry((path.rsplit_once("layer.").unwrap().1[2..].to_owned(), by_rows)).or_insert(0) += 1;
    }
    let expected = [
        (("attention.output.dense".to_owned(), false), 2), // as PEFT: `output.dense` names it too
        (("attention.self.key".to_owned(), true), 2),
        (("attention.self.value".to_owned(), true), 2),
        (("output.dense".to_owned(), false), 2),
    ];
    assert_eq!(forms, BTreeMap::from(expected));

    for file in ["config.json", "tokenizer.json"] {
        workdir.write(&format!("merged/{file}"), fs::read(workdir.path().join("model").join(file)).unwrap());
    }
    workdir.write("merged/model.safetensors", written(&model));
    let merged = run("merged-run", still.replace("\"all\"", "0").as_str(), "merged");
    let (found, expected) = (loss(&merged["before"]), loss(&trained["metrics"]));
    assert!((found - expected).abs() < 1e-5, "loss {found} with merged weights, {expected} with the vectors");
}

fn written(tensors: &Tensors) -> Vec<u8> {
    let bytes: BTreeMap<&String, Vec<u8>> = tensors
        .iter()
        .map(|(name, (_, values))| (name, values.iter().flat_map(|x| x.to_le_bytes()).collect()))
        .collect();
    let views = tensors
        .iter()
        .map(|(name, (shape, _))| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), &bytes[name]).unwrap()));
    let format = [("format".to_owned(), "pt".to_owned())].into();
    safetensors::serialize(views, Some(format)).unwrap()
}
