//! Losses of classes.

use super::{
    basic::{add_up, gather, mul},
    products::linear,
    rows::{log_softmax, sum},
};
use crate::{DType, Error, Result, test::value::Value};

/// The class of a row that does not count.
const IGNORED: u32 = u32::MAX;

/// Rows and classes of logits that stand beside targets.
fn size(logits: &Value, targets: &[u32]) -> Result<[usize; 2]> {
    let [rows, classes] = *logits.shape() else { return Err(Error::new("logits are [rows, classes]")) };
    if rows != targets.len() {
        return Err(Error::new(format!("{rows} rows of logits have {} targets", targets.len())));
    }
    match targets.iter().find(|&&target| target != IGNORED && target as usize >= classes) {
        Some(target) => Err(Error::new(format!("class {target} is none of {classes}"))),
        None => Ok([rows, classes]),
    }
}

fn scalar(dtype: DType, value: f64) -> Value {
    Value::constant(dtype, [], vec![value])
}

/// The sum of the terms, and of their weights.
pub(crate) fn cross_entropy(
    logits: &Value,
    targets: &[u32],
    weights: Option<&Value>,
    smoothing: f64,
) -> Result<[Value; 2]> {
    let [rows, classes] = size(logits, targets)?;
    let ones = vec![1.0; classes];
    let weights = weights.map_or(ones.as_slice(), Value::data);
    if weights.len() != classes {
        return Err(Error::new(format!("{classes} classes have {} weights", weights.len())));
    }
    // What the log-probability of each class counts for.
    let mut shares = vec![0.0; rows * classes];
    let mut total = 0.0;
    for (row, &target) in shares.chunks_mut(classes.max(1)).zip(targets).filter(|(_, target)| **target != IGNORED) {
        row.iter_mut().zip(weights).for_each(|(share, weight)| *share = -smoothing / classes as f64 * weight);
        row[target as usize] -= (1.0 - smoothing) * weights[target as usize];
        total += weights[target as usize];
    }
    let terms = mul(&log_softmax(logits)?, &Value::constant(logits.dtype(), [rows, classes], shares))?;
    Ok([sum(&terms), scalar(logits.dtype(), total)])
}

/// The sums over each sequence of the log-probabilities of `targets`, and how many rows count.
pub(crate) fn linear_log_likelihood(
    x: &Value,
    weight: &Value,
    bias: Option<&Value>,
    targets: &[u32],
    offsets: &[usize],
) -> Result<[Value; 2]> {
    let logits = linear(x, weight, bias)?;
    let [rows, classes] = size(&logits, targets)?;
    if offsets.first() != Some(&0) || offsets.last() != Some(&rows) || !offsets.is_sorted() {
        return Err(Error::new(format!("{offsets:?} are no starts of sequences in {rows} rows")));
    }
    let counted: Vec<usize> = (0..rows).filter(|&row| targets[row] != IGNORED).collect();
    let sequence = |&row: &usize| offsets.partition_point(|start| *start <= row) - 1;
    let of: Vec<usize> = counted.iter().map(sequence).collect();
    let from = counted.iter().map(|&row| row * classes + targets[row] as usize).collect();
    let sequences = offsets.len() - 1;
    let mut numbers = vec![0.0; sequences];
    of.iter().for_each(|&sequence| numbers[sequence] += 1.0);
    let of_targets = gather(&log_softmax(&logits)?, [counted.len()], from);
    let dtype = of_targets.dtype();
    Ok([add_up(&of_targets, [sequences], of), Value::constant(dtype, [sequences], numbers)])
}

/// The class with the largest logit of each row; of equal ones the first.
pub(crate) fn linear_argmax(x: &Value, weight: &Value, bias: Option<&Value>) -> Result<Value> {
    let logits = linear(x, weight, bias)?;
    let largest = |row: &[f64]| (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best }) as u32;
    Ok(Value::indices(&logits.data().chunks(logits.width().max(1)).map(largest).collect::<Vec<_>>()))
}
