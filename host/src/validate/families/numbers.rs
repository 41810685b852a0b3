//! What a method computes: gradients, merged layers, where it starts, losses that add up, rates.

use fthost_autograd::{DType, Layout, Parameter, Tape, Tensor, Value};
use fthost_models::{Hook, Site};
use fthost_plugin_api::{Event, Group, LossScope, MethodKind, Progress, Sampling, TargetKind};

use crate::Result;
use crate::adapted::Owner;
use crate::run::pass::{head_outputs, scalar};
use crate::run::setup::Setup;
use crate::run::setup::start::NOT_AT_BASE;
use crate::run::train::example_gradients::TaskExamples;
use crate::validate::bench::{Bench, Instance, first_examples, outputs, pass};
use crate::validate::differences::{spread, stir, wrong_gradient};
use crate::validate::outcome::Outcome;
use crate::validate::subject::Subject;

/// So many hooks are tried of each kind: they are the same ones at every site.
const HOOKS: usize = 2;
/// So many parameters are moved for each.
const PARAMETERS: usize = 6;

/// Gradients beside finite differences.
pub(in crate::validate) fn gradients(subject: &Subject) -> Result<Outcome> {
    let bench = Bench::new(subject)?;
    let mut setup = bench.set_up()?;
    let found = match bench.method.kind {
        MethodKind::Strategy => of_hooks(&setup),
        MethodKind::TaskHead => of_head(&setup),
        MethodKind::Regularizer => of_penalties(&mut setup),
        MethodKind::Scheduler | MethodKind::Optimizer => return Ok(Outcome::skipped("it has none")),
    };
    Ok(match found {
        Ok(None) => Outcome::skipped("there is nothing to differentiate"),
        Ok(Some(wrong)) => Outcome::unless(
            &wrong,
            "gradients are those of what is computed: nothing on the way is detached, or read as numbers",
        ),
        // Ops of half the host's are in f32 alone, such as those over a vocabulary.
        Err(error) => Outcome::skipped(format!("it does not compute in f64: {error}")),
    })
}

fn parameters(setup: &Setup, wanted: impl Fn(&Owner) -> bool) -> Vec<Parameter> {
    let of = setup.model.trainable().filter(|p| wanted(&p.owner));
    of.map(|p| p.parameter.clone()).collect()
}

/// What is wrong with the gradients of each kind of hook; none where there is no hook.
fn of_hooks(setup: &Setup) -> Result<Option<Vec<String>>> {
    let mine = parameters(setup, |owner| matches!(owner, Owner::Strategy(_)));
    for (i, parameter) in mine.iter().enumerate() {
        stir(parameter, i as f64)?;
    }
    let (mut seen, mut tried) = (Vec::new(), std::collections::BTreeMap::new());
    for (path, hook) in &setup.model.hooks {
        let kind = match hook {
            Hook::Linear(_) => "layer",
            Hook::Block(_) => "block",
            Hook::Embeddings(_) => "embedding",
            Hook::Attention(_) => "attention",
        };
        let number: &mut usize = tried.entry(kind).or_default();
        *number += 1;
        let site = setup.model.model.sites().iter().find(|site| site.path == *path);
        let Some(site) = site.filter(|_| *number <= HOOKS) else { continue };
        // What lies beside this site, and what belongs to none.
        let beside = |p: &&Parameter| p.name().starts_with(path.as_str()) || !p.name().contains('.');
        let near: Vec<Parameter> = mine.iter().filter(beside).take(PARAMETERS).cloned().collect();
        let wrong = of_hook(site, hook, &near)?;
        seen.extend(wrong.map(|text| format!("{kind} hook at {path}: {text}")));
    }
    Ok((!tried.is_empty()).then_some(seen))
}

fn of_hook(site: &Site, hook: &Hook, parameters: &[Parameter]) -> Result<Option<String>> {
    const ROWS: usize = 5;
    let (inside, outside) = (site.in_features, site.out_features);
    let layout = Layout::from_lengths([2, 3]);
    match hook {
        Hook::Linear(hook) => {
            let (x, y) = (spread(&[ROWS, inside], 1.0)?, spread(&[ROWS, outside], 2.0)?);
            let weight = Value::constant(spread(&[outside, inside], 3.0)?);
            let forward = |tape: &Tape, v: &[Value]| -> Result<Vec<Value>> {
                Ok(vec![hook.forward(tape, &v[0], v[1].clone(), &weight)?])
            };
            if let Some(wrong) = wrong_gradient(&["x", "y"], &[x.clone(), y], parameters, &forward)? {
                return Ok(Some(wrong));
            }
            let input =
                |tape: &Tape, v: &[Value]| -> Result<Vec<Value>> { Ok(hook.input(tape, &v[0])?.into_iter().collect()) };
            wrong_gradient(&["x"], &[x], parameters, &input)
        }
        Hook::Block(hook) => {
            let (x, residual) = (spread(&[ROWS, outside], 1.0)?, spread(&[ROWS, outside], 2.0)?);
            let forward =
                |tape: &Tape, v: &[Value]| -> Result<Vec<Value>> { Ok(vec![hook.forward(tape, v[0].clone(), &v[1])?]) };
            wrong_gradient(&["x", "residual"], &[x, residual], parameters, &forward)
        }
        Hook::Embeddings(hook) => {
            let rows = spread(&[ROWS, outside], 1.0)?;
            let forward = |tape: &Tape, v: &[Value]| -> Result<Vec<Value>> {
                let (rows, prompt) = hook.forward(tape, v[0].clone(), &layout)?;
                Ok(std::iter::once(rows).chain(prompt.map(|prompt| prompt.rows)).collect())
            };
            wrong_gradient(&["embeddings"], &[rows], parameters, &forward)
        }
        Hook::Attention(hook) => {
            let (keys, values) = (spread(&[ROWS, outside], 1.0)?, spread(&[ROWS, outside], 2.0)?);
            let forward = |tape: &Tape, v: &[Value]| -> Result<Vec<Value>> {
                let (keys, values, prefix) = hook.forward(tape, v[0].clone(), v[1].clone(), &layout)?;
                let prefix = prefix.into_iter().flat_map(|prefix| [prefix.keys, prefix.values]);
                Ok([keys, values].into_iter().chain(prefix).collect())
            };
            wrong_gradient(&["keys", "values"], &[keys, values], parameters, &forward)
        }
    }
}

/// From features to the loss.
fn of_head(setup: &Setup) -> Result<Option<Vec<String>>> {
    let shown = first_examples(setup, 0, 6)?;
    let pass = pass(setup, 0);
    let features = pass.features(&Tape::evaluation(), &shown, &pass.reads())?;
    let inputs =
        features.iter().map(|of| Ok(of.value.tensor().to_dtype(DType::F64)?)).collect::<Result<Vec<Tensor>>>()?;
    let next = pass.next(shown.rows())?;
    let episodes = crate::run::pass::episode_shape(pass.spec);
    let support: Vec<u8> = match episodes {
        Some(shape) => (0..shown.rows().len()).map(|place| u8::from(shape.supports(place))).collect(),
        None => Vec::new(),
    };
    let loss = |tape: &Tape, v: &[Value]| -> Result<Vec<Value>> {
        let with = |(of, value): (&fthost_models::Features, &Value)| fthost_models::Features {
            value: value.clone(),
            layout: of.layout.clone(),
            map: of.map,
        };
        let given: Vec<_> = features.iter().zip(v).map(with).collect();
        let outputs = head_outputs(pass.head, tape, &given, next.as_ref())?;
        Ok(vec![pass.loss(tape, &outputs, &shown, &support)?.0])
    };
    let mine = parameters(setup, |owner| matches!(owner, Owner::Head(_)));
    for (i, parameter) in mine.iter().enumerate() {
        stir(parameter, i as f64)?;
    }
    let names = ["the features", "the second stream's features"];
    let wrong = wrong_gradient(&names, &inputs, &mine[..mine.len().min(PARAMETERS)], &loss)?;
    Ok(Some(wrong.into_iter().collect()))
}

/// Penalties on parameters and on outputs.
fn of_penalties(setup: &mut Setup) -> Result<Option<Vec<String>>> {
    let Setup { model, tasks, regularizers, file, .. } = setup;
    let event = Event::TaskEnd { task: tasks[0].name.clone() };
    for regularizer in regularizers.iter_mut() {
        let of = &tasks[0];
        let mut examples = TaskExamples { head: &of.head, spec: &of.spec, data: &of.train, seed: file.train.seed };
        // Some have a penalty only once a task has ended.
        regularizer.event(&event, model, Some(&mut examples))?;
    }
    let mine = parameters(setup, |_| true);
    for (i, parameter) in mine.iter().enumerate() {
        stir(parameter, i as f64)?;
    }
    let (mut seen, mut tried) = (Vec::new(), false);
    for regularizer in &setup.regularizers {
        if regularizer.penalty(&Tape::evaluation())?.is_some() {
            tried = true;
            let penalty = |tape: &Tape, _: &[Value]| -> Result<Vec<Value>> {
                Ok(regularizer.penalty(tape)?.into_iter().collect())
            };
            seen.extend(wrong_gradient(&[], &[], &mine[..mine.len().min(PARAMETERS)], &penalty)?);
        }
        if regularizer.needs_reference()? {
            tried = true;
            let (outputs, reference) = (spread(&[4, 6], 1.0)?, Value::constant(spread(&[4, 6], 2.0)?));
            let penalty = |tape: &Tape, v: &[Value]| -> Result<Vec<Value>> {
                Ok(regularizer.output_penalty(tape, &v[0], &reference)?.into_iter().collect())
            };
            seen.extend(wrong_gradient(&["the outputs"], &[outputs], &[], &penalty)?);
        }
    }
    Ok(tried.then_some(seen))
}

/// A merged model beside the hooked one.
pub(in crate::validate) fn merge(subject: &Subject) -> Result<Outcome> {
    const SHARE: f64 = 1e-4;
    let bench = Bench::new(subject)?;
    let mut setup = bench.set_up()?;
    if setup.model.hooks.is_empty() {
        return Ok(Outcome::skipped("it sets no hooks"));
    }
    for (i, parameter) in parameters(&setup, |owner| matches!(owner, Owner::Strategy(_))).iter().enumerate() {
        stir(parameter, i as f64)?;
    }
    let before = outputs(&setup, 0, 8)?;
    let input = setup.tasks[0].train.input_of(&first_examples(&setup, 0, 8)?)?;
    if let Err(error) = setup.model.model.merge_hooks(std::slice::from_ref(&input)) {
        let error = crate::error::plain(&error);
        let differs = error.contains("differ by up to");
        return Ok(if differs { Outcome::failed(error, MERGED) } else { Outcome::skipped(error) });
    }
    let after = outputs(&setup, 0, 8)?;
    let size = before.iter().fold(0.0_f64, |size, value| size.max(value.abs()));
    let difference = before.iter().zip(&after).fold(0.0_f64, |most, (one, other)| most.max((one - other).abs()));
    // A number that is none is no small difference.
    let equal = before.len() == after.len() && difference <= SHARE * size;
    let text = format!("outputs of the merged model differ by up to {difference:.1e}, and go up to {size:.1e}");
    Ok(Outcome::unless(&if equal { Vec::new() } else { vec![text] }, MERGED))
}

const MERGED: &str = "the weight that `merge` gives computes what the hook computes, or `merge` gives none";

/// A strategy that says it starts at the base model.
pub(in crate::validate) fn start(subject: &Subject) -> Result<Outcome> {
    let bench = match Bench::new(subject).and_then(|bench| Ok((bench.set_up()?, bench))) {
        Ok((setup, _)) if setup.start.claimed => return Ok(Outcome::Passed),
        Ok((_, bench)) => bench,
        Err(error) if error.to_string().contains(NOT_AT_BASE) => {
            return Ok(Outcome::failed(error, "a strategy that says so starts at the base model, to the bit"));
        }
        Err(error) => return Err(error),
    };
    Ok(Outcome::skipped(format!("{} does not say that it starts at the base model", bench.method.name)))
}

/// The loss of a batch is the sum of its parts' losses.
pub(in crate::validate) fn sums(subject: &Subject) -> Result<Outcome> {
    const SHARE: f64 = 1e-4;
    let bench = Bench::new(subject)?;
    let setup = bench.set_up()?;
    let pass = pass(&setup, 0);
    if pass.spec.scope == LossScope::Batch || pass.spec.sampling != Sampling::Shuffled {
        return Ok(Outcome::skipped("its loss is that of a whole batch"));
    }
    let shown = first_examples(&setup, 0, 8)?;
    let loss = |places: &[usize]| -> Result<(f64, f64)> {
        let (tape, shown) = (Tape::evaluation(), shown.select(places));
        let outputs = pass.outputs(&tape, &shown)?;
        let (sum, weight) = pass.loss(&tape, &outputs, &shown, &[])?;
        Ok((scalar(&sum)?, weight))
    };
    let all: Vec<usize> = (0..shown.rows().len()).collect();
    let (first, rest) = all.split_at(all.len() / 3);
    let (whole, one, other) = (loss(&all)?, loss(first)?, loss(rest)?);
    let parts = (one.0 + other.0, one.1 + other.1);
    let near = |a: f64, b: f64| (a - b).abs() <= SHARE * a.abs().max(1e-6);
    let mut seen = Vec::new();
    if !near(whole.0, parts.0) {
        seen.push(format!(
            "the loss of {} examples is {}, and those of its parts add up to {}",
            all.len(),
            whole.0,
            parts.0
        ));
    }
    if !near(whole.1, parts.1) {
        seen.push(format!(
            "the weight of {} examples is {}, and those of its parts add up to {}",
            all.len(),
            whole.1,
            parts.1
        ));
    }
    Ok(Outcome::unless(
        &seen,
        "`loss` gives the sum of its terms and what they are divided by, no mean; LossScope::Batch where that cannot be",
    ))
}

/// Rates of many steps, runs and groups.
pub(in crate::validate) fn rates(subject: &Subject) -> Result<Outcome> {
    let bench = Bench::new(subject)?;
    let Instance::Scheduler(schedule) = bench.instance(&bench.options())? else {
        return Ok(Outcome::skipped("it is no scheduler"));
    };
    let mut seen = Vec::new();
    let (mut tried, mut refused) = (0, None);
    for total_steps in [1_u64, 2, 10, 250] {
        let steps_per_epoch = total_steps.div_ceil(3).max(1);
        for lr in [0.0, 1e-3] {
            let group = Group { name: "layer.0", number: 1, stream: "text", lr, momentum: 0.9 };
            for step in 0..total_steps {
                let now = Progress { step, total_steps, steps_per_epoch };
                match (schedule.rate(&now, &group), schedule.rate(&now, &group)) {
                    // A schedule says at its first step what the run is too short for.
                    (Err(error), _) if step == 0 => {
                        refused = Some(error.to_string());
                        break;
                    }
                    (Ok(one), Ok(other)) if one == other => {
                        tried += 1;
                        if !(0.0..=1.0).contains(&one.momentum) {
                            seen.push(format!("step {step} of {total_steps} has the momentum {}", one.momentum));
                        }
                        if lr == 0.0 && one.lr != 0.0 {
                            seen.push(format!(
                                "step {step} of {total_steps} has the rate {} where the group's is 0",
                                one.lr
                            ));
                        }
                    }
                    (Ok(one), Ok(other)) => seen.push(format!(
                        "step {step} of {total_steps} has the rate {} when it is asked for first, and then {}",
                        one.lr, other.lr
                    )),
                    (Err(error), _) | (_, Err(error)) => seen.push(error.to_string()),
                }
            }
        }
    }
    seen.truncate(3);
    if tried == 0 {
        return Ok(Outcome::skipped(refused.unwrap_or_default()));
    }
    Ok(Outcome::unless(
        &seen,
        "a rate is finite, from 0 up, in proportion to the group's, and follows from step and group alone; a momentum lies in 0 to 1",
    ))
}

/// Targets that are tokens or pixels have no row for each example.
pub(super) fn rows_are_examples(targets: TargetKind) -> bool {
    matches!(
        targets,
        TargetKind::Class | TargetKind::Value | TargetKind::MultiLabel | TargetKind::Preference | TargetKind::Match
    )
}
