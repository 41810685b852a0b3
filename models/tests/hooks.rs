//! Hooks: that every kind runs, with the shapes it is promised and in order, that gradients pass through it, and what is said
//! where one is set at the wrong place.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use fthost_models::autograd::{DType, Device, Layout, Parameter, Result, Tape, Tensor, Value};
use fthost_models::{
    AttentionHook, BlockHook, EmbeddingHook, Hook, LinearHook, Model, Prefix, Prompt, Read, Site, SiteKind,
};
use support::{ARCHITECTURES, Expected, assert_close, tiny};

fn open(architecture: &str) -> Box<dyn Model> {
    fthost_models::open(&tiny(architecture), &Device::Cpu).unwrap()
}

/// Adds a trained row wherever it is set, and notes that it ran.
struct Shift {
    site: Site,
    name: String,
    row: Parameter,
    log: Arc<Mutex<Vec<String>>>,
}

impl Shift {
    fn shift(&self, tape: &Tape, x: &Value, width: usize) -> Result<Value> {
        assert_eq!(x.dims()[1], width, "{}", self.site.path);
        self.log.lock().unwrap().push(self.name.clone());
        tape.add(x, &tape.parameter(&self.row))
    }
}

impl LinearHook for Shift {
    fn input(&self, _: &Tape, x: &Value) -> Result<Option<Value>> {
        assert_eq!(x.dims()[1], self.site.in_features);
        Ok(None)
    }

    fn forward(&self, tape: &Tape, x: &Value, y: Value, weight: &Value) -> Result<Value> {
        assert_eq!(x.dims(), [y.dims()[0], self.site.in_features]);
        assert_eq!(weight.dims(), [self.site.out_features, self.site.in_features]);
        self.shift(tape, &y, self.site.out_features)
    }

    fn merge(&self, _: &Tape, _: &Value) -> Result<Option<Value>> {
        Ok(None)
    }
}

impl BlockHook for Shift {
    fn forward(&self, tape: &Tape, x: Value, residual: &Value) -> Result<Value> {
        assert_eq!(x.dims(), residual.dims());
        self.shift(tape, &x, self.site.out_features)
    }
}

impl EmbeddingHook for Shift {
    fn forward(&self, tape: &Tape, embeddings: Value, layout: &Layout) -> Result<(Value, Option<Prompt>)> {
        assert_eq!(layout.tokens(), embeddings.dims()[0]);
        Ok((self.shift(tape, &embeddings, self.site.out_features)?, None))
    }
}

impl AttentionHook for Shift {
    fn forward(
        &self,
        tape: &Tape,
        keys: Value,
        values: Value,
        layout: &Layout,
    ) -> Result<(Value, Value, Option<Prefix>)> {
        assert_eq!((keys.dims(), layout.tokens()), (values.dims(), values.dims()[0]));
        let values = self.shift(tape, &values, self.site.out_features)?;
        Ok((keys, values, None))
    }
}

/// Sets a hook of the right kind.
///
/// The row is a wave of this height: a row of equal elements would be lost in the next layer norm.
fn set(model: &mut dyn Model, site: &Site, name: &str, height: f32, log: &Arc<Mutex<Vec<String>>>) -> Parameter {
    let row: Vec<f32> = (0..site.out_features).map(|i| height * (i as f32 + 1.0).sin()).collect();
    let row = Parameter::new(name, Tensor::new(row, &Device::Cpu).unwrap(), true);
    let hook = Shift { site: site.clone(), name: name.into(), row: row.clone(), log: log.clone() };
    let hook = match site.kind {
        SiteKind::Linear | SiteKind::Conv => Hook::Linear(Arc::new(hook)),
        SiteKind::AttentionOutput | SiteKind::FeedForwardOutput => Hook::Block(Arc::new(hook)),
        SiteKind::Embeddings => Hook::Embeddings(Arc::new(hook)),
        SiteKind::Attention => Hook::Attention(Arc::new(hook)),
    };
    model.set_hook(&site.path, hook).unwrap();
    row
}

#[test]
fn a_hook_at_every_site_runs_and_trains() {
    for architecture in ARCHITECTURES {
        let (mut model, expected) = (open(architecture), Expected::tiny(architecture));
        for base in model.parameters() {
            base.parameter.set_trainable(false);
        }
        let log = Arc::default();
        let sites = model.sites().to_vec();
        let rows: Vec<Parameter> = sites.iter().map(|site| set(&mut *model, site, &site.path, 0.0, &log)).collect();

        let tape = Tape::recording();
        let pooled = model.forward(&tape, &expected.input(), Read::Pooled).unwrap().value;
        // Rows of zeros change nothing.
        assert_close(pooled.tensor(), &expected.stacked("pooled"), 1e-5, architecture);
        let ran: BTreeSet<String> = log.lock().unwrap().iter().cloned().collect();
        let all: BTreeSet<String> = sites.iter().map(|site| site.path.clone()).collect();
        assert_eq!(ran, all, "{architecture}");

        let gradients = tape.backward_from(vec![(pooled, expected.stacked("weights"))]).unwrap();
        assert_eq!(gradients.len(), rows.len(), "{architecture}: base parameters are frozen, every hook trains");

        // Other rows change something; without hooks it is the base model again.
        let moved = |model: &dyn Model| {
            let value = model.forward(&Tape::evaluation(), &expected.input(), Read::Pooled).unwrap().value;
            let difference = (value.tensor() - expected.stacked("pooled")).unwrap().abs().unwrap();
            difference.max_all().unwrap().to_scalar::<f32>().unwrap()
        };
        for site in &sites {
            model.clear_hooks();
            set(&mut *model, site, &site.path, 1.0, &log);
            let keys = site.path.ends_with(".key") || site.path.ends_with(".k_lin");
            // A row added to all keys moves all scores of a query alike, and the softmax does not see it.
            assert_eq!(moved(&*model) > 1e-4, !keys, "{architecture}: {}", site.path);
        }
        model.clear_hooks();
        assert!(moved(&*model) < 1e-5, "{architecture}");
    }
}

#[test]
fn hooks_at_one_site_run_in_order() {
    let mut model = open("bert");
    let log = Arc::default();
    let site = model.sites().iter().find(|site| site.path == "pooler.dense").unwrap().clone();
    for name in ["first", "second", "third"] {
        set(&mut *model, &site, name, 0.0, &log);
    }
    model.forward(&Tape::evaluation(), &Expected::tiny("bert").input(), Read::Pooled).unwrap();
    assert_eq!(*log.lock().unwrap(), ["first", "second", "third"]);
}

#[test]
fn a_hook_at_the_wrong_place_is_an_error() {
    let mut model = open("bert");
    let log = Arc::default();
    let sites = model.sites().to_vec();
    let linear = |log: &Arc<Mutex<Vec<String>>>| {
        let row = Parameter::new("row", Tensor::zeros(16, DType::F32, &Device::Cpu).unwrap(), true);
        Hook::Linear(Arc::new(Shift { site: sites[0].clone(), name: "x".into(), row, log: log.clone() }))
    };
    let error = model.set_hook("encoder.layer.0.attention.self.qeury", linear(&log)).unwrap_err().to_string();
    assert!(error.contains("the closest is encoder.layer.0.attention.self.query"), "{error}");
    let error = model.set_hook("embeddings", linear(&log)).unwrap_err().to_string();
    assert!(error.contains("embeddings is of kind Embeddings and takes no linear hook"), "{error}");
}

/// Counts the rows that reach a site.
struct Rows(Arc<Mutex<Vec<usize>>>);

impl LinearHook for Rows {
    fn input(&self, _: &Tape, _: &Value) -> Result<Option<Value>> {
        Ok(None)
    }

    fn forward(&self, _: &Tape, x: &Value, y: Value, _: &Value) -> Result<Value> {
        self.0.lock().unwrap().push(x.dims()[0]);
        Ok(y)
    }

    fn merge(&self, _: &Tape, _: &Value) -> Result<Option<Value>> {
        Ok(None)
    }
}

#[test]
fn the_last_layer_computes_only_the_rows_that_are_read() {
    let (mut model, expected) = (open("bert"), Expected::tiny("bert"));
    let log: Arc<Mutex<Vec<usize>>> = Arc::default();
    let at = |layer, name| format!("encoder.layer.{layer}.{name}");
    for path in [
        at(0, "intermediate.dense"),
        at(1, "attention.self.query"),
        at(1, "attention.self.key"),
        at(1, "attention.output.dense"),
        at(1, "intermediate.dense"),
    ] {
        model.set_hook(&path, Hook::Linear(Arc::new(Rows(log.clone())))).unwrap();
    }
    // 21 tokens in 4 sequences. Keys are computed before queries.
    for (read, rows) in [(Read::Pooled, [21, 21, 4, 4, 4]), (Read::Sequence, [21; 5])] {
        log.lock().unwrap().clear();
        model.forward(&Tape::evaluation(), &expected.input(), read).unwrap();
        assert_eq!(*log.lock().unwrap(), rows, "{read:?}");
    }
}

#[test]
fn inputs_that_do_not_fit_are_errors() {
    let run = |architecture: &str, input, read| {
        open(architecture).forward(&Tape::evaluation(), &input, read).unwrap_err().to_string()
    };
    let text = |ids: Vec<u32>, kind: u32| support::text(std::slice::from_ref(&ids), &[vec![kind; ids.len()]]);
    let cases = [
        (run("bert", text(vec![3, 50], 0), Read::Pooled), "token id 50 is outside embeddings.word_embeddings.weight"),
        (run("bert", text(vec![3, 4], 2), Read::Pooled), "token type 2 is outside"),
        (run("bert", text(vec![3; 25], 0), Read::Pooled), "needs position 24, and the model has 24"),
        (run("roberta", text(vec![3; 23], 0), Read::Pooled), "lower the length"),
        (run("bert", text(vec![], 0), Read::Pooled), "sequence 0 is empty"),
        (run("bert", text(vec![3], 0), Read::Spatial), "no spatial features"),
        (run("vit", text(vec![3], 0), Read::Pooled), "give it pixels"),
        (run("bert", Expected::tiny("vit").input(), Read::Pooled), "give it token ids"),
    ];
    for (error, part) in cases {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

/// Multiplies a layer's output, which its weight and bias can do as well.
struct Scale(f64);

impl LinearHook for Scale {
    fn input(&self, _: &Tape, _: &Value) -> Result<Option<Value>> {
        Ok(None)
    }

    fn forward(&self, tape: &Tape, _: &Value, y: Value, _: &Value) -> Result<Value> {
        tape.affine(&y, self.0, 0.0)
    }

    fn merge(&self, tape: &Tape, weight: &Value) -> Result<Option<Value>> {
        tape.affine(weight, self.0, 0.0).map(Some)
    }

    fn merge_bias(&self, tape: &Tape, bias: &Value) -> Result<Option<Value>> {
        tape.affine(bias, self.0, 0.0).map(Some)
    }
}

#[test]
fn merged_hooks_compute_the_same_and_are_gone() {
    for architecture in ARCHITECTURES {
        let (mut model, input) = (open(architecture), Expected::tiny(architecture).input());
        let linear: Vec<Site> = model.sites().iter().filter(|site| site.kind == SiteKind::Linear).cloned().collect();
        for (i, site) in linear.iter().enumerate() {
            // Two at the first sites: they are folded in order.
            for factor in [1.1, 0.8].iter().take(if i < 3 { 2 } else { 1 }) {
                model.set_hook(&site.path, Hook::Linear(Arc::new(Scale(*factor)))).unwrap();
            }
        }
        let pooled = |model: &dyn Model| model.forward(&Tape::evaluation(), &input, Read::Pooled).unwrap().value;
        let (hooked, weight) = (pooled(&*model), model.parameters()[0].parameter.clone());
        model.merge_hooks(std::slice::from_ref(&input)).unwrap();
        assert_close(pooled(&*model).tensor(), hooked.tensor(), 1e-5, &format!("{architecture}, merged"));
        assert_eq!(weight.version(), 0, "what no hook touched has changed");
        model.merge_hooks(std::slice::from_ref(&input)).unwrap();
        assert_close(pooled(&*model).tensor(), hooked.tensor(), 1e-5, &format!("{architecture}, merged again"));
    }
}

#[test]
fn what_cannot_be_merged_is_named_and_nothing_changes() {
    let (mut model, input) = (open("bert"), Expected::tiny("bert").input());
    let sites = model.sites().to_vec();
    model.set_hook(&sites[1].path, Hook::Linear(Arc::new(Scale(2.0)))).unwrap();
    let block = sites.iter().find(|site| site.kind == SiteKind::FeedForwardOutput).unwrap();
    set(&mut *model, block, "block", 1.0, &Arc::default());
    let pooled = |model: &dyn Model| model.forward(&Tape::evaluation(), &input, Read::Pooled).unwrap().value;
    let before = pooled(&*model);
    let error = model.merge_hooks(std::slice::from_ref(&input)).unwrap_err().to_string();
    assert!(error.contains(&block.path), "{error}");
    assert_close(pooled(&*model).tensor(), before.tensor(), 0.0, "a failed merge");
}

/// What a hook can do to y = W x + b.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    /// l * y
    Output,
    /// W (l * x) + b
    Input,
    /// y + V x
    Beside,
    /// y + V x, folded as if it were y + 2 V x.
    Wrong,
}

/// Changes a layer with numbers that differ from row to row and column to column.
struct Changed(Change);

impl Changed {
    /// `[n]`: around one.
    fn factors(n: usize) -> Value {
        let factors: Vec<f32> = (0..n).map(|i| 1.0 + 0.5 * (i as f32 + 1.0).sin()).collect();
        Value::constant(Tensor::new(factors, &Device::Cpu).unwrap())
    }

    /// V, `[out, in]`.
    fn beside(out: usize, width: usize) -> Value {
        let elements: Vec<f32> = (0..out * width).map(|i| 0.3 * (0.7 * i as f32).cos()).collect();
        Value::constant(Tensor::from_vec(elements, (out, width), &Device::Cpu).unwrap())
    }
}

impl LinearHook for Changed {
    fn input(&self, tape: &Tape, x: &Value) -> Result<Option<Value>> {
        match self.0 {
            Change::Input => tape.mul(x, &Self::factors(x.dims()[1])).map(Some),
            _ => Ok(None),
        }
    }

    fn forward(&self, tape: &Tape, x: &Value, y: Value, weight: &Value) -> Result<Value> {
        match self.0 {
            Change::Output => tape.mul(&y, &Self::factors(y.dims()[1])),
            Change::Input => Ok(y),
            Change::Beside | Change::Wrong => {
                tape.add(&y, &tape.linear(x, &Self::beside(weight.dims()[0], weight.dims()[1]), None)?)
            }
        }
    }

    fn merge(&self, tape: &Tape, weight: &Value) -> Result<Option<Value>> {
        let (out, width) = (weight.dims()[0], weight.dims()[1]);
        let merged = match self.0 {
            Change::Output => tape.mul(weight, &tape.reshape(&Self::factors(out), &[out, 1])?),
            Change::Input => tape.mul(weight, &Self::factors(width)),
            Change::Beside => tape.add(weight, &Self::beside(out, width)),
            Change::Wrong => tape.add(weight, &tape.affine(&Self::beside(out, width), 2.0, 0.0)?),
        };
        merged.map(Some)
    }

    fn merge_bias(&self, tape: &Tape, bias: &Value) -> Result<Option<Value>> {
        match self.0 {
            Change::Output => tape.mul(bias, &Self::factors(bias.dims()[0])).map(Some),
            _ => Ok(None),
        }
    }
}

#[test]
fn hooks_merge_in_the_order_of_the_forward_pass_whatever_their_own() {
    const ALL: [Change; 3] = [Change::Output, Change::Input, Change::Beside];
    let pairs = ALL.iter().flat_map(|a| ALL.map(|b| vec![*a, b]));
    let triples = ALL.iter().flat_map(|a| ALL.iter().flat_map(move |b| ALL.map(|c| vec![*a, *b, c])));
    for changes in pairs.chain(triples) {
        for architecture in ["bert", "vit"] {
            let (mut model, input) = (open(architecture), Expected::tiny(architecture).input());
            let sites = model.sites().to_vec();
            for site in sites.iter().filter(|site| matches!(site.kind, SiteKind::Linear | SiteKind::Conv)) {
                for change in &changes {
                    model.set_hook(&site.path, Hook::Linear(Arc::new(Changed(*change)))).unwrap();
                }
                assert!(model.hooked(&site.path));
            }
            let pooled = |model: &dyn Model| model.forward(&Tape::evaluation(), &input, Read::Pooled).unwrap().value;
            let hooked = pooled(&*model);
            model.merge_hooks(std::slice::from_ref(&input)).unwrap();
            assert_close(pooled(&*model).tensor(), hooked.tensor(), 1e-4, &format!("{architecture}, {changes:?}"));
            assert!(!sites.iter().any(|site| model.hooked(&site.path)));
        }
    }
}

#[test]
fn a_layer_that_folds_into_another_one_is_named_and_nothing_changes() {
    let (mut model, input) = (open("bert"), Expected::tiny("bert").input());
    let wrong = "encoder.layer.1.intermediate.dense";
    for site in model.sites().to_vec().iter().filter(|site| site.kind == SiteKind::Linear) {
        let change = if site.path == wrong { Change::Wrong } else { Change::Beside };
        model.set_hook(&site.path, Hook::Linear(Arc::new(Changed(change)))).unwrap();
    }
    let pooled = |model: &dyn Model| model.forward(&Tape::evaluation(), &input, Read::Pooled).unwrap().value;
    let before = pooled(&*model);
    let error = model.merge_hooks(std::slice::from_ref(&input)).unwrap_err().to_string();
    assert!(error.contains(&format!("what is added at {wrong} cannot be folded")), "{error}");
    assert!(error.contains("differ by up to"), "{error}");
    assert_close(pooled(&*model).tensor(), before.tensor(), 0.0, "a failed merge");
}
