//! Pointwise loops over whole maps, split over the threads of the pool where an argument says so.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::{elementwise, multiversion, pieces, scratch};
use crate::Activation;

/// Elements that one task takes, about: a multiple of the row's length.
const PIECE: usize = 1 << 14;

#[inline(always)]
fn sum_body<const FMA: bool>(a: &[f32], b: &[f32], out: &mut [MaybeUninit<f32>]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        out.write(a + b);
    }
}

multiversion! {
    fn write_sum(a: &[f32], b: &[f32], out: &mut [MaybeUninit<f32>]) = sum_body
}

/// `activation(a + b)`, element by element; equal lengths.
pub(crate) fn sum(a: &[f32], b: &[f32], activation: Activation, parallel: bool) -> Vec<f32> {
    assert_eq!(a.len(), b.len());
    // SAFETY: each piece is written whole.
    unsafe {
        pieces::written(a.len(), PIECE, parallel, |i, out| {
            let part = i * PIECE..i * PIECE + out.len();
            write_sum(&a[part.clone()], &b[part], out);
            elementwise::activate(activation, pieces::initialized(out));
        })
    }
}

/// `activation(gate) up`, element by element; equal lengths.
pub(crate) fn gate(activation: Activation, gate: &[f32], up: &[f32], parallel: bool) -> Vec<f32> {
    assert_eq!(gate.len(), up.len());
    let mut out = vec![0f32; gate.len()];
    pieces::each(&mut out, PIECE, parallel, |i, out| {
        let part = i * PIECE..i * PIECE + out.len();
        elementwise::gate(activation, &gate[part.clone()], &up[part], out);
    });
    out
}

/// From the operands of [`gate`] and the gradient of its result the gradients of the operands.
pub(crate) fn gate_backward(
    activation: Activation,
    gate: &[f32],
    up: &[f32],
    g: &[f32],
    parallel: bool,
) -> (Vec<f32>, Vec<f32>) {
    assert!(gate.len() == up.len() && gate.len() == g.len());
    let (mut gate, mut up) = (gate.to_vec(), up.to_vec());
    let one = |((gate, up), g): ((&mut [f32], &mut [f32]), &[f32])| {
        elementwise::gate_backward(activation, gate, up, g);
    };
    if parallel {
        let parts = gate.par_chunks_mut(PIECE).zip(up.par_chunks_mut(PIECE)).zip(g.par_chunks(PIECE));
        parts.for_each(one);
    } else {
        one(((&mut gate, &mut up), g));
    }
    (gate, up)
}

/// `g` times the derivative of `activation` at `at`; equal lengths.
pub(crate) fn chain(activation: Activation, at: &[f32], g: &[f32], parallel: bool) -> Vec<f32> {
    assert_eq!(at.len(), g.len());
    // SAFETY: each piece is written whole.
    unsafe {
        pieces::written(g.len(), PIECE, parallel, |i, out| {
            let part = i * PIECE..i * PIECE + out.len();
            for (out, g) in out.iter_mut().zip(&g[part.clone()]) {
                out.write(*g);
            }
            elementwise::activate_backward(activation, &at[part], pieces::initialized(out));
        })
    }
}

#[inline(always)]
fn product_body<const FMA: bool>(a: &[f32], b: &[f32], out: &mut [MaybeUninit<f32>]) {
    for (a, out) in a.chunks_exact(b.len()).zip(out.chunks_exact_mut(b.len())) {
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            out.write(a * b);
        }
    }
}

multiversion! {
    fn write_product(a: &[f32], b: &[f32], out: &mut [MaybeUninit<f32>]) = product_body
}

/// `a b`, element by element; equal lengths.
pub(crate) fn product(a: &[f32], b: &[f32], parallel: bool) -> Vec<f32> {
    assert_eq!(a.len(), b.len());
    // SAFETY: each piece is written whole.
    unsafe {
        pieces::written(a.len(), PIECE, parallel, |i, out| {
            let part = i * PIECE..i * PIECE + out.len();
            write_product(&a[part.clone()], &b[part], out);
        })
    }
}

/// Each row of `a` times the row `row`.
pub(crate) fn scale_rows(a: &[f32], row: &[f32], parallel: bool) -> Vec<f32> {
    let piece = (PIECE / row.len().max(1)).max(1) * row.len().max(1);
    // SAFETY: each piece is written whole.
    unsafe { pieces::written(a.len(), piece, parallel, |i, out| write_product(&a[i * piece..][..out.len()], row, out)) }
}

/// Rows that are summed in `f32` before they join an `f64` sum.
const ROWS: usize = 64;
/// Rows that one task takes. Fixed, so that sums do not depend on the number of threads.
const TASK_ROWS: usize = 16 * ROWS;

/// The sums of the columns of rows of this width.
pub(crate) fn column_sums(x: &[f32], width: usize, parallel: bool) -> Vec<f32> {
    let (task, few) = ((TASK_ROWS * width).max(1), (ROWS * width).max(1));
    let parts = pieces::collect(x.len().div_ceil(task), parallel, |i| {
        let mut sums = vec![0f64; width];
        scratch::with(width, |room| {
            for rows in x[i * task..x.len().min((i + 1) * task)].chunks(few) {
                room.fill(0.0);
                elementwise::add_column_sums(rows, room);
                sums.iter_mut().zip(room.iter()).for_each(|(sum, x)| *sum += f64::from(*x));
            }
        });
        sums
    });
    let mut all = vec![0f64; width];
    parts.iter().for_each(|part| all.iter_mut().zip(part).for_each(|(all, x)| *all += x));
    all.into_iter().map(|x| x as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_the_whole() {
        let n = 3 * PIECE + 17;
        let a: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
        let b: Vec<f32> = (0..n).map(|i| (i as f32 * 0.11).cos()).collect();
        for parallel in [false, true] {
            let y = sum(&a, &b, Activation::Relu, parallel);
            assert!(y.iter().zip(a.iter().zip(&b)).all(|(y, (a, b))| *y == (a + b).max(0.0)));
            let g = chain(Activation::Relu, &y, &b, parallel);
            assert!(g.iter().zip(y.iter().zip(&b)).all(|(g, (y, b))| *g == if *y > 0.0 { *b } else { 0.0 }));
        }
        assert!(product(&a, &b, true).iter().zip(a.iter().zip(&b)).all(|(y, (a, b))| *y == a * b));
        let rows = &a[..(n / 7) * 7];
        let scaled = scale_rows(rows, &b[..7], true);
        assert!(scaled.iter().enumerate().all(|(i, x)| *x == rows[i] * b[i % 7]));
        let sums = column_sums(rows, 7, true);
        assert_eq!(sums, column_sums(rows, 7, false));
        for (j, sum) in sums.iter().enumerate() {
            let exact: f64 = rows.iter().skip(j).step_by(7).map(|x| f64::from(*x)).sum();
            assert!((f64::from(*sum) - exact).abs() < 1e-3, "{sum}, exact {exact}");
        }
    }
}
