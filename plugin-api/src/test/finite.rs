//! Finite differences: whether gradients are what a function's values say.

use super::{pass::Pass, random::Stream, value::Value};
use crate::{Error, Result};

/// Steps of central differences. One that meets a kink, such as relu's, is told from a wrong gradient by the others.
const STEPS: [f64; 3] = [1e-5, 1e-6, 1e-4];
/// By how much the two may differ, beside 1 or the difference's own size.
const TOLERANCE: f64 = 1e-6;
/// Random directions that each variable is moved in: each moves all its elements at once.
const DIRECTIONS: u64 = 3;

/// A number that a gradient is taken by.
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) data: Vec<f64>,
    /// Whether it is a fault that no gradient reaches it.
    pub(super) must_matter: bool,
}

/// A scalar of all variables' elements, and the variables as values.
type Function<'a> = &'a dyn Fn(&[Vec<f64>]) -> Result<(Value, Vec<Value>)>;

/// Compares the gradients of `function` with central differences, in a pass of training whose dropout is the same each time. What the
/// function detaches stands still in both.
///
/// # Errors
/// Where they differ: variable, element and both numbers.
pub(super) fn check(variables: &[Variable], function: Function<'_>) -> Result<()> {
    const SEED: u64 = 17;
    let data: Vec<Vec<f64>> = variables.iter().map(|variable| variable.data.clone()).collect();
    let (found, stopped) = Pass::training(SEED).remembering().run(|| function(&data));
    let (scalar, leaves) = found?;
    let gradients = scalar.gradients(vec![1.0]);
    let value = |at: usize, direction: &[f64], step: f64| -> Result<f64> {
        let mut moved = data.clone();
        moved[at].iter_mut().zip(direction).for_each(|(x, d)| *x += step * d);
        let (found, _) = Pass::training(SEED).recalling(stopped.clone()).run(|| function(&moved));
        Ok(found?.0.data()[0])
    };
    // The difference that comes nearest to what is expected.
    let difference = |at: usize, direction: &[f64], expected: f64| -> Result<f64> {
        let mut nearest = f64::INFINITY;
        for step in STEPS {
            let found = (value(at, direction, step)? - value(at, direction, -step)?) / (2.0 * step);
            if (found - expected).abs() < (nearest - expected).abs() || !nearest.is_finite() {
                nearest = found;
            }
            if agree(found, expected) {
                break;
            }
        }
        Ok(nearest)
    };
    for (at, variable) in variables.iter().enumerate() {
        let n = variable.data.len();
        let Some(gradient) = gradients.by(&leaves[at]) else {
            if variable.must_matter {
                let name = &variable.name;
                return Err(Error::new(format!(
                    "no gradient reaches {name}: it trains, and what is computed does not depend on it, or reads its numbers out"
                )));
            }
            continue;
        };
        for draw in 0..DIRECTIONS {
            let direction = Stream::new(draw, &variable.name).normals(n, 0.0, 1.0);
            let expected = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
            if !agree(difference(at, &direction, expected)?, expected) {
                return Err(worst(variable, gradient, &|element, expected| {
                    let unit: Vec<f64> = (0..n).map(|i| f64::from(u8::from(i == element))).collect();
                    difference(at, &unit, expected)
                })?);
            }
        }
    }
    Ok(())
}

fn agree(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= TOLERANCE * found.abs().max(1.0)
}

/// The element whose gradient is furthest off.
fn worst(variable: &Variable, gradient: &[f64], difference: &dyn Fn(usize, f64) -> Result<f64>) -> Result<Error> {
    let mut worst = (0, 0.0, 0.0);
    for (element, &expected) in gradient.iter().enumerate() {
        let found = difference(element, expected)?;
        if (found - expected).abs() >= f64::abs(worst.1 - worst.2) {
            worst = (element, expected, found);
        }
    }
    let (element, gradient, found) = worst;
    let (name, place) = (&variable.name, place(&variable.shape, element));
    Ok(Error::new(format!(
        "the gradient by {name} is wrong: at {place:?} it is {gradient:.9}, and finite differences give {found:.9}"
    )))
}

/// Where an element stands.
pub(super) fn place(shape: &[usize], mut element: usize) -> Vec<usize> {
    let mut place: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&size| {
            let at = element % size.max(1);
            element /= size.max(1);
            at
        })
        .collect();
    place.reverse();
    place
}

/// That two tensors are equal but for `tolerance`, beside the size of the greatest element; 0 is to the bit.
///
/// # Errors
/// Where they are not: which element, both numbers.
pub(super) fn equal(what: &str, [first, second]: [&str; 2], a: &Value, b: &Value, tolerance: f64) -> Result<()> {
    if a.shape() != b.shape() {
        let (a, b) = (a.shape(), b.shape());
        return Err(Error::new(format!("{what}: {first} has shape {a:?}, and {second} {b:?}")));
    }
    let size = b.data().iter().fold(0.0, |size: f64, x| size.max(x.abs()));
    let differences = a.data().iter().zip(b.data()).map(|(a, b)| if a == b { 0.0 } else { (a - b).abs() });
    // No number is a difference beyond all others.
    let key = |difference: f64| if difference.is_nan() { f64::INFINITY } else { difference };
    let worst = differences.map(key).enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
    match worst {
        Some((element, difference)) if difference > tolerance * size => {
            let place = place(a.shape(), element);
            let (x, y) = (a.data()[element], b.data()[element]);
            Err(Error::new(format!(
                "{what}: at {place:?} {first} has {x:?}, and {second} {y:?}, a difference of {difference:.1e}"
            )))
        }
        _ => Ok(()),
    }
}
