//! What a method says in the end: predictions, and what it leaves.

use fthost_autograd::{DType, Tape, Tensor};
use fthost_plugin_api::{PredictionKind, Sampling};

use super::numbers::rows_are_examples;
use crate::Result;
use crate::run::DeviceChoice;
use crate::run::results::export::Format;
use crate::run::setup::Setup;
use crate::run::trained;
use crate::run::trained::model::TrainedModel;
use crate::run::trained::predict::{Format as Lines, Style};
use crate::validate::bench::{Bench, first_examples, numbers, pass};
use crate::validate::outcome::Outcome;
use crate::validate::subject::Subject;

const PREDICTED: &str = "`predict` gives a row for each row of the outputs, in their order, of the type and in the range that PredictionKind says";

/// Predictions of batches of several sizes.
pub(in crate::validate) fn predictions(subject: &Subject) -> Result<Outcome> {
    let bench = Bench::new(subject)?;
    let mut setup = bench.set_up()?;
    fit(&mut setup)?;
    let mut seen = Vec::new();
    let mut by_size = Vec::new();
    for number in [1, 2, 7] {
        let shown = first_examples(&setup, 0, number)?;
        // An episode is one batch; its rows are examples like any others.
        let shown = shown.select(&(0..number.min(shown.rows().len())).collect::<Vec<_>>());
        let (pass, tape) = (pass(&setup, 0), Tape::evaluation());
        let outputs = pass.outputs(&tape, &shown)?;
        let predicted = pass.head.predict(&tape, &outputs)?;
        let (rows, tokens) = (shown.rows().len(), outputs.dims().first().copied().unwrap_or_default());
        let wanted = if rows_are_examples(pass.spec.targets) { Some(rows) } else { None };
        if let Some(wrong) = wrong(&predicted, pass.spec.predictions, wanted, tokens, pass.data.labels().len())? {
            seen.push(format!("of {rows} examples: {wrong}"));
        }
        by_size.push(predicted);
    }
    // The first example is the first of every batch.
    if seen.is_empty() && rows_are_examples(setup.tasks[0].spec.targets) {
        let first = |of: &Tensor| -> Result<Vec<f64>> {
            let all = numbers(of)?;
            Ok(all[..all.len() / of.dims().first().copied().unwrap_or(1).max(1)].to_vec())
        };
        let (alone, among) = (first(&by_size[0])?, first(&by_size[2])?);
        let far = |(a, b): (&f64, &f64)| (a - b).abs() > 1e-4 * a.abs().max(1.0);
        if alone.len() != among.len() || alone.iter().zip(&among).any(far) {
            seen.push(format!("an example alone is predicted as {alone:?}, and among others as {among:?}"));
        }
    }
    Ok(Outcome::unless(&seen, PREDICTED))
}

/// Lets a head take what it predicts by from examples, where it learns by episodes.
fn fit(setup: &mut Setup) -> Result<()> {
    if setup.tasks[0].spec.sampling == Sampling::Shuffled {
        return Ok(());
    }
    let shown = first_examples(setup, 0, 0)?;
    let outputs = pass(setup, 0).outputs(&Tape::evaluation(), &shown)?.into_tensor();
    let targets = setup.tasks[0].train.targets(shown.rows(), &setup.model.device)?;
    let head = setup.tasks[0].head.clone();
    head.fit(&mut setup.model, &outputs, &targets)
}

/// What is wrong with predictions. `rows`: how many there should be, where that is the number of examples; `outputs`: rows of the outputs.
fn wrong(
    predicted: &Tensor,
    kind: PredictionKind,
    rows: Option<usize>,
    outputs: usize,
    labels: usize,
) -> Result<Option<String>> {
    const ROUNDING: f64 = 1e-3;
    let dims = predicted.dims();
    let is_index = predicted.dtype() == DType::U32;
    if is_index != (kind == PredictionKind::Tokens) || !(is_index || predicted.dtype().is_float()) {
        return Ok(Some(format!("its elements are of type {:?}", predicted.dtype())));
    }
    let rank = match kind {
        PredictionKind::Values | PredictionKind::Tokens => 1,
        PredictionKind::Embeddings => 3,
        _ => 2,
    };
    // Of masks there is a row for each pixel of the picture, whatever the map's size.
    let rows_wanted = rows.or((kind != PredictionKind::Masks).then_some(outputs));
    if dims.len() != rank || rows_wanted.is_some_and(|rows| dims[0] != rows) {
        let wanted =
            rows_wanted.map_or_else(|| "[pixels, classes]".to_owned(), |rows| format!("{rows} in the first place"));
        return Ok(Some(format!("its shape is {dims:?}, and should be {wanted}")));
    }
    let columns = match kind {
        PredictionKind::Preferences => Some(2),
        PredictionKind::Classes | PredictionKind::MultiLabel | PredictionKind::Masks if labels > 0 => Some(labels),
        _ => None,
    };
    if columns.is_some_and(|columns| dims[1] != columns) {
        return Ok(Some(format!("its shape is {dims:?}, and there are {} classes", columns.unwrap_or_default())));
    }
    let values = numbers(predicted)?;
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        return Ok(Some(format!("one of its numbers is {value}")));
    }
    if kind == PredictionKind::Embeddings && dims[2] > 0 {
        let lengths = values.chunks(dims[2]).map(|side| side.iter().map(|x| x * x).sum::<f64>().sqrt());
        if let Some(length) = lengths.into_iter().find(|length| (length - 1.0).abs() > ROUNDING) {
            return Ok(Some(format!("the length of an embedding is {length}, and should be 1")));
        }
    }
    let probabilities = matches!(kind, PredictionKind::Classes | PredictionKind::MultiLabel | PredictionKind::Masks);
    if let Some(value) = values.iter().find(|value| probabilities && !(-ROUNDING..=1.0 + ROUNDING).contains(*value)) {
        return Ok(Some(format!("{value} is no probability")));
    }
    if matches!(kind, PredictionKind::Classes | PredictionKind::Masks) && dims[1] > 0 {
        let sums = values.chunks(dims[1]).map(|row| row.iter().sum::<f64>());
        if let Some(sum) = sums.into_iter().find(|sum| (sum - 1.0).abs() > ROUNDING) {
            return Ok(Some(format!("the probabilities of a row add up to {sum}")));
        }
    }
    Ok(None)
}

/// What a run leaves opens again, and computes the same.
pub(in crate::validate) fn exports(subject: &Subject) -> Result<Outcome> {
    let bench = Bench::new(subject)?;
    let left = bench.run(&subject.folder.join("run"))?;
    let expected = "every folder that a run leaves opens again by fthost, and predicts the same";
    let of_run = match trained::open(&left.folder, &[], &[], DeviceChoice::Cpu) {
        Ok(model) => model,
        Err(error) => return Ok(Outcome::failed(format!("the run folder does not open: {error}"), expected)),
    };
    let saved = &left.summary.saved;
    // What has no form of other tools' is opened by the run folder that it lies in.
    if saved.format == Format::Fthost || saved.own_heads.is_some() {
        return Ok(Outcome::Passed);
    }
    let of_saved = match trained::open(&saved.path, &[], &[], DeviceChoice::Cpu) {
        Ok(model) => model,
        Err(error) => return Ok(Outcome::failed(format!("{saved} does not open: {error}"), expected)),
    };
    let data = bench.set_up()?.tasks[0].train.path().to_owned();
    let says = |model: &TrainedModel| -> Result<Vec<u8>> {
        let (mut said, style) = (Vec::new(), Style { format: Lines::Jsonl, probabilities: true });
        model.predict(None, &data, style, None, &mut said)?;
        Ok(said)
    };
    // Models over a vocabulary predict no classes, and some kinds of data are no files of examples.
    let Ok(one) = says(&of_run) else { return Ok(Outcome::Passed) };
    let seen = match says(&of_saved) {
        Ok(other) if near(&one, &other) => Vec::new(),
        Ok(_) => vec![format!("{saved} predicts something else than the run folder")],
        Err(error) => vec![format!("{saved} opens and cannot predict: {error}")],
    };
    Ok(Outcome::unless(&seen, expected))
}

/// Whether two files of predictions say the same, but for rounding.
fn near(one: &[u8], other: &[u8]) -> bool {
    let words = |bytes: &[u8]| -> Vec<String> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        text.split([',', ':', '[', ']', '{', '}', '\n', ' ']).map(str::to_owned).collect()
    };
    let (one, other) = (words(one), words(other));
    let equal = |(a, b): (&String, &String)| match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => (a - b).abs() <= 1e-3 * a.abs().max(1.0),
        _ => a == b,
    };
    one.len() == other.len() && one.iter().zip(&other).all(equal)
}
