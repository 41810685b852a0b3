//! Elements in other places and under other shapes.

use super::{
    basic::gather,
    call::{is_float, widest},
};
use crate::{DType, Error, Result, test::value::Value};

/// The same elements under another shape of as many.
pub(crate) fn reshape(x: &Value, shape: impl Into<Vec<usize>>) -> Result<Value> {
    let shape = shape.into();
    let elements = x.data().len();
    if shape.iter().product::<usize>() != elements {
        return Err(Error::new(format!("{elements} elements do not fit shape {shape:?}")));
    }
    Ok(gather(x, shape, (0..elements).collect()))
}

/// The dimensions that are asked for; one may be -1 and takes what is left.
pub(super) fn new_shape(elements: usize, asked: &[i64]) -> Result<Vec<usize>> {
    let known: i64 = asked.iter().filter(|dim| **dim != -1).product();
    let open = asked.iter().filter(|dim| **dim == -1).count();
    if open > 1 || asked.iter().any(|dim| *dim < -1) || (open == 1 && (known == 0 || elements as i64 % known != 0)) {
        return Err(Error::new(format!("{elements} elements do not fit shape {asked:?}")));
    }
    Ok(asked.iter().map(|dim| if *dim == -1 { elements / known as usize } else { *dim as usize }).collect())
}

pub(crate) fn transpose(x: &Value, d0: usize, d1: usize) -> Value {
    let mut shape = x.shape().to_vec();
    let stride = |dim: usize| x.shape()[dim + 1..].iter().product::<usize>();
    let mut strides: Vec<usize> = (0..shape.len()).map(stride).collect();
    shape.swap(d0, d1);
    strides.swap(d0, d1);
    let from = |mut index: usize| {
        let dims = shape.iter().zip(&strides).rev();
        dims.map(|(size, stride)| {
            let at = index % size;
            index /= size;
            at * stride
        })
        .sum::<usize>()
    };
    let from = (0..x.data().len()).map(from).collect();
    gather(x, shape.clone(), from)
}

/// The slices at `ids` along one dimension.
pub(crate) fn index_select(x: &Value, ids: &[usize], dim: usize) -> Result<Value> {
    let size = x.shape()[dim];
    if let Some(id) = ids.iter().find(|id| **id >= size) {
        return Err(Error::new(format!("index {id} is outside a dimension of size {size}")));
    }
    let (outer, inner) = (x.shape()[..dim].iter().product::<usize>(), x.shape()[dim + 1..].iter().product::<usize>());
    let slice = |outer: usize, id: usize| (0..inner).map(move |i| (outer * size + id) * inner + i);
    let from = (0..outer).flat_map(|outer| ids.iter().flat_map(move |&id| slice(outer, id))).collect();
    let mut shape = x.shape().to_vec();
    shape[dim] = ids.len();
    Ok(gather(x, shape, from))
}

pub(crate) fn narrow(x: &Value, dim: usize, start: usize, len: usize) -> Result<Value> {
    let (size, end) = (x.shape()[dim], start.saturating_add(len));
    if end > size {
        return Err(Error::new(format!("elements {start} to {end} are outside a dimension of size {size}")));
    }
    index_select(x, &(start..end).collect::<Vec<_>>(), dim)
}

/// Tensors joined along one dimension.
pub(crate) fn concat(parts: &[&Value], dim: usize) -> Result<Value> {
    let first = parts.first().ok_or_else(|| Error::new("there is nothing to join"))?;
    let others = |x: &Value| [&x.shape()[..dim.min(x.shape().len())], x.shape().get(dim + 1..).unwrap_or(&[])].concat();
    let alike = |x: &&Value| {
        x.shape().len() == first.shape().len()
            && others(x) == others(first)
            && is_float(x.dtype()) == is_float(first.dtype())
    };
    if !parts.iter().all(alike) {
        return Err(Error::new("what is joined must be equal in all other dimensions"));
    }
    let dtype =
        parts.iter().fold(first.dtype(), |dtype, x| if is_float(dtype) { widest(dtype, x.dtype()) } else { dtype });
    let inner: usize = first.shape()[dim + 1..].iter().product();
    let outer: usize = first.shape()[..dim].iter().product();
    let widths: Vec<usize> = parts.iter().map(|x| x.shape()[dim] * inner).collect();
    let mut data = Vec::new();
    for row in 0..outer {
        parts.iter().zip(&widths).for_each(|(x, width)| data.extend_from_slice(&x.data()[row * width..][..*width]));
    }
    let mut shape = first.shape().to_vec();
    shape[dim] = parts.iter().map(|x| x.shape()[dim]).sum();
    Ok(Value::computed(dtype, shape, data, parts, move |gradient| {
        let mut shares: Vec<Vec<f64>> = widths.iter().map(|_| Vec::new()).collect();
        let mut at = 0;
        for (share, width) in (0..outer).flat_map(|_| 0..widths.len()).map(|i| (i, widths[i])) {
            shares[share].extend_from_slice(&gradient[at..at + width]);
            at += width;
        }
        shares
    }))
}

/// Another element type. To an integer, numbers are cut as Rust's `as` cuts them.
pub(crate) fn cast(x: &Value, dtype: DType) -> Value {
    let cut = move |x: f64| match dtype {
        DType::U32 => f64::from(x as u32),
        DType::U8 => f64::from(x as u8),
        DType::I64 => (x as i64) as f64,
        _ => x,
    };
    let data = x.data().iter().map(|&x| cut(x)).collect();
    if !(is_float(dtype) && is_float(x.dtype())) {
        return Value::constant(dtype, x.shape(), data);
    }
    Value::computed(dtype, x.shape().to_vec(), data, &[x], |gradient| vec![gradient.to_vec()])
}
