//! How large the results of ops are whose attributes or shapes can ask for more than there is memory for. Shapes that do not fit each other
//! are the ops' own matter.

use fthost_autograd::{Map, Result, Value, Window};

use super::op_call::Call;
use crate::memory::elements;

/// Elements of the largest tensor that a call would make.
pub(super) type Elements = fn(&Call<'_>) -> Result<u128>;

fn of(value: &Value) -> u128 {
    elements(value.dims())
}

/// Rows of a value under its last dimension.
fn rows(value: &Value) -> u128 {
    value.dims().split_last().map_or(1, |(_, rows)| elements(rows))
}

/// Two operands under one shape.
pub(super) fn broadcast(call: &Call<'_>) -> Result<u128> {
    let (a, b) = (call.x(0)?.dims(), call.x(1)?.dims());
    let side = |dims: &[usize], from_end: usize| dims.len().checked_sub(from_end + 1).map_or(1, |place| dims[place]);
    let sides: Vec<usize> = (0..a.len().max(b.len())).map(|i| side(a, i).max(side(b, i))).collect();
    Ok(elements(&sides))
}

/// `[.., m, n]` of `[.., m, k]` and `[.., k, n]`.
pub(super) fn matmul(call: &Call<'_>) -> Result<u128> {
    let columns = call.x(1)?.dims().last().copied().unwrap_or(1);
    Ok(rows(call.x(0)?).saturating_mul(columns as u128))
}

/// `[.., out]` of `[.., in]` and `[out, in]`.
pub(super) fn linear(call: &Call<'_>) -> Result<u128> {
    let out = call.x(1)?.dims().first().copied().unwrap_or(1);
    Ok(rows(call.x(0)?).saturating_mul(out as u128))
}

/// What lies between the two factors, `[.., rank]`.
pub(super) fn low_rank(call: &Call<'_>) -> Result<u128> {
    let rank = call.x(2)?.dims().first().copied().unwrap_or(1);
    Ok(rows(call.x(1)?).saturating_mul(rank as u128))
}

/// All together.
pub(super) fn concat(call: &Call<'_>) -> Result<u128> {
    Ok(call.inputs.iter().flatten().map(of).fold(0, u128::saturating_add))
}

/// As many of a dimension as there are indices.
pub(super) fn index_select(call: &Call<'_>) -> Result<u128> {
    let (x, dim) = (call.x(0)?, call.dim(0)?);
    let others = x.dims().iter().enumerate().filter(|(i, _)| *i != dim).map(|(_, side)| *side);
    Ok(elements(&others.collect::<Vec<_>>()).saturating_mul(of(call.x(1)?)))
}

/// Pixels of all images.
fn pixels(map: Map) -> u128 {
    elements(&[map.images, map.height, map.width])
}

/// The patches of all places, where they are made real: each as large as a kernel over all channels.
fn patches(places: Map, window: &Window, channels: usize) -> u128 {
    pixels(places).saturating_mul(elements(&[window.kernel[0], window.kernel[1], channels]))
}

/// A result for each place, and the patches that it is made of.
pub(super) fn conv2d(call: &Call<'_>) -> Result<u128> {
    let (x, weight, map) = (call.x(0)?, call.x(1)?, call.map()?);
    let (window, out) = (call.window(weight)?, weight.dims()[0]);
    let places = window.output(map)?;
    let channels = x.dims().last().copied().unwrap_or(1);
    Ok(pixels(places).saturating_mul(out as u128).max(patches(places, &window, channels)))
}

/// The same the other way: each pixel becomes a patch.
pub(super) fn conv_transpose2d(call: &Call<'_>) -> Result<u128> {
    let (weight, map) = (call.x(1)?, call.map()?);
    let (window, out) = (call.window(weight)?, elements(&[weight.dims()[1], call.side(10)?]));
    let side = |axis: usize| {
        let strides = map.size()[axis].saturating_mul(window.stride[axis]);
        strides
            .saturating_add(window.dilation[axis].saturating_mul(window.kernel[axis]))
            .saturating_add(window.stride[axis])
    };
    let places = elements(&[map.images, side(0), side(1)]);
    Ok(places.saturating_mul(out).max(patches(map, &window, usize::try_from(out).unwrap_or(usize::MAX))))
}

/// The map in another size, and the matrices that bring it there.
pub(super) fn upsample(call: &Call<'_>) -> Result<u128> {
    let (x, map, size) = (call.x(0)?, call.map()?, [call.side(2)?, call.side(3)?]);
    let channels = x.dims().last().copied().unwrap_or(1);
    let along = |axis: usize| elements(&[size[axis], map.size()[axis]]);
    let between = elements(&[map.images, size[0].max(map.height), size[1].max(map.width), channels]);
    Ok(between.max(along(0)).max(along(1)))
}
