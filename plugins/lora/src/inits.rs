//! Updates that begin as a part of the layer's own weight, which is then taken out of what the layer gives: at step 0 the layer computes what
//! it did, but for rounding, and what trains from there on is that part.
//!
//! - PiSSA (Meng et al. 2024, arXiv:2404.02948): the largest singular values, W = U S V^T, A = sqrt(S_r / s) V_r^T, B = U_r sqrt(S_r / s).
//! - OLoRA (Büyükakyüz 2024, arXiv:2406.01775): of W = Q R the first columns B = Q_r, and A = R_r, the first rows.
//!
//! As PEFT's `pissa_init` and `olora_init`. Singular vectors come by subspace iteration (Halko et al. 2011, arXiv:0909.4061, algorithm 4.4).

use fthost_plugin_api::prelude::*;

use crate::options::Start;

/// Columns that are iterated beside those that are wanted.
const BESIDE: usize = 8;
/// Times that the weight is applied there and back.
const ROUNDS: usize = 24;

/// Vectors of one length, side by side.
type Columns = Vec<Vec<f64>>;

/// A matrix that is known by what it makes of vectors.
trait Matrix {
    /// `[rows, columns]`
    fn size(&self) -> [usize; 2];
    /// W X, of the columns of X `[columns, k]`.
    fn times(&self, x: &[Vec<f64>]) -> Result<Columns>;
    /// W^T Y, of the columns of Y `[rows, k]`.
    fn transposed_times(&self, y: &[Vec<f64>]) -> Result<Columns>;
}

/// A weight `[out, in]` where the host computes.
struct Weight<'a> {
    tensor: &'a Tensor,
    size: [usize; 2],
}

impl Matrix for Weight<'_> {
    fn size(&self) -> [usize; 2] {
        self.size
    }

    fn times(&self, x: &[Vec<f64>]) -> Result<Columns> {
        columns(&self.tensor.matmul(&tensor(x)?)?)
    }

    fn transposed_times(&self, y: &[Vec<f64>]) -> Result<Columns> {
        columns(&self.tensor.t()?.matmul(&tensor(y)?)?)
    }
}

/// `[n, k]`
fn tensor(columns: &[Vec<f64>]) -> Result<Tensor> {
    let rows = columns.first().map_or(0, Vec::len);
    let data: Vec<f32> = (0..rows).flat_map(|i| columns.iter().map(move |column| column[i] as f32)).collect();
    Tensor::from_slice(&data, [rows, columns.len()])
}

fn columns(matrix: &Tensor) -> Result<Columns> {
    let shape = matrix.shape()?;
    let [rows, width] = shape[..] else { return Err(Error::new("columns are of a matrix")) };
    let data = matrix.to_vec_f32()?;
    Ok((0..width).map(|j| (0..rows).map(|i| f64::from(data[i * width + j])).collect()).collect())
}

/// The B `[out, rank]` and the A `[rank, in]` that a layer of this weight begins with; none where A is random and B zero.
///
/// # Errors
/// Where the weight has no such part.
pub(crate) fn of_weight(start: Start, weight: &Tensor, rank: usize, scale: f64) -> Result<Option<(Tensor, Tensor)>> {
    let shape = weight.shape()?;
    let [out, width] = shape[..] else { return Err(Error::new("an update needs a matrix")) };
    if start != Start::Lora && rank > out.min(width) {
        return Err(Error::new(format!(
            "rank is {rank}, and a weight of {out} x {width} has no more than {} parts to begin with",
            out.min(width)
        )));
    }
    let weight = Weight { tensor: weight, size: [out, width] };
    let (b, a) = match start {
        Start::Lora => return Ok(None),
        Start::Olora => first_columns(&weight, rank)?,
        Start::Pissa => largest(&weight, rank, scale)?,
    };
    Ok(Some((tensor(&b)?, tensor(&a)?.t()?)))
}

/// B and A^T of OLoRA.
fn first_columns(weight: &impl Matrix, rank: usize) -> Result<(Columns, Columns)> {
    let [_, width] = weight.size();
    let unit = |j: usize| (0..width).map(|i| f64::from(u8::from(i == j))).collect();
    let mut b = weight.times(&(0..rank).map(unit).collect::<Columns>())?;
    orthonormalise(&mut b);
    let a = weight.transposed_times(&b)?;
    Ok((b, a))
}

/// B and A^T of PiSSA.
fn largest(weight: &impl Matrix, rank: usize, scale: f64) -> Result<(Columns, Columns)> {
    let [out, width] = weight.size();
    let count = (rank + BESIDE).min(out.min(width));
    let mut right = scattered(width, count);
    let mut left = Columns::new();
    for _ in 0..ROUNDS {
        left = weight.times(&right)?;
        orthonormalise(&mut left);
        right = weight.transposed_times(&left)?; // Of Q it is (Q^T W)^T.
        if left.iter().all(|column| dot(column, column) == 0.0) {
            break;
        }
        orthonormalise(&mut right);
    }
    // Q^T W = U S V^T of few rows: S^2 and U are the eigenvalues and eigenvectors of (Q^T W)(Q^T W)^T.
    let small = weight.transposed_times(&left)?; // [width, count]
    let gram: Vec<Vec<f64>> = small.iter().map(|a| small.iter().map(|b| dot(a, b)).collect()).collect();
    let (values, vectors) = eigen(gram);
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&i, &j| values[j].total_cmp(&values[i]));
    let mix = |of: &[Vec<f64>], by: &[f64], factor: f64| -> Vec<f64> {
        let rows = of.first().map_or(0, Vec::len);
        (0..rows).map(|i| factor * of.iter().zip(by).map(|(column, share)| column[i] * share).sum::<f64>()).collect()
    };
    let (mut b, mut a) = (Columns::new(), Columns::new());
    for &i in order.iter().take(rank) {
        let singular = values[i].max(0.0).sqrt();
        let share = (singular / scale).sqrt();
        b.push(mix(&left, &vectors[i], share));
        a.push(mix(&small, &vectors[i], if singular > 0.0 { share / singular } else { 0.0 }));
    }
    Ok((b, a))
}

/// Numbers between -1 and 1 that are the same each time and lie in no few directions.
fn scattered(rows: usize, count: usize) -> Columns {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        // SplitMix64 (Steele et al. 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..count).map(|_| (0..rows).map(|_| next()).collect()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Columns of length 1 at right angles that span the same space, by Gram and Schmidt, each twice: once leaves what rounding does. One that
/// lies in the space of those before it becomes 0.
fn orthonormalise(columns: &mut [Vec<f64>]) {
    for i in 0..columns.len() {
        let (before, rest) = columns.split_at_mut(i);
        let Some(column) = rest.first_mut() else { return };
        let length = dot(column, column).sqrt();
        for other in before.iter().chain(before.iter()) {
            let share = dot(column, other);
            column.iter_mut().zip(other).for_each(|(x, other)| *x -= share * other);
        }
        let left = dot(column, column).sqrt();
        // What an f32's rounding leaves of a column is no direction of its own.
        let factor = if left > 1e-6 * length { 1.0 / left } else { 0.0 };
        column.iter_mut().for_each(|x| *x *= factor);
    }
}

/// Eigenvalues of a symmetric matrix, and an eigenvector of each, by Jacobi's rotations.
fn eigen(mut matrix: Vec<Vec<f64>>) -> (Vec<f64>, Columns) {
    const SWEEPS: usize = 60;
    let n = matrix.len();
    let mut vectors: Columns = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    let size: f64 = matrix.iter().map(|row| dot(row, row)).sum();
    for _ in 0..SWEEPS {
        let off: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| matrix[i][j] * matrix[i][j]).sum();
        if off <= 1e-30 * size {
            break;
        }
        for (p, q) in (0..n).flat_map(|q| (0..q).map(move |p| (p, q))) {
            if matrix[p][q] == 0.0 {
                continue;
            }
            let slope = (matrix[q][q] - matrix[p][p]) / (2.0 * matrix[p][q]);
            let tangent = slope.signum() / (slope.abs() + (slope * slope + 1.0).sqrt());
            let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
            let sine = tangent * cosine;
            for row in &mut matrix {
                (row[p], row[q]) = (cosine * row[p] - sine * row[q], sine * row[p] + cosine * row[q]);
            }
            for i in 0..n {
                let (x, y) = (matrix[p][i], matrix[q][i]);
                (matrix[p][i], matrix[q][i]) = (cosine * x - sine * y, sine * x + cosine * y);
                let (x, y) = (vectors[p][i], vectors[q][i]);
                (vectors[p][i], vectors[q][i]) = (cosine * x - sine * y, sine * x + cosine * y);
            }
        }
    }
    ((0..n).map(|i| matrix[i][i]).collect(), vectors)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// By columns.
    struct Dense(Columns);

    impl Matrix for Dense {
        fn size(&self) -> [usize; 2] {
            [self.0[0].len(), self.0.len()]
        }

        fn times(&self, x: &[Vec<f64>]) -> Result<Columns> {
            let one = |x: &Vec<f64>| {
                (0..self.0[0].len()).map(|i| self.0.iter().zip(x).map(|(column, x)| column[i] * x).sum()).collect()
            };
            Ok(x.iter().map(one).collect())
        }

        fn transposed_times(&self, y: &[Vec<f64>]) -> Result<Columns> {
            Ok(y.iter().map(|y| self.0.iter().map(|column| dot(column, y)).collect()).collect())
        }
    }

    fn orthonormal(rows: usize, count: usize) -> Columns {
        let mut columns = scattered(rows, count);
        orthonormalise(&mut columns);
        columns
    }

    /// sum_i values[i] left[i] right[i]^T, by columns.
    fn product(left: &Columns, values: &[f64], right: &Columns) -> Columns {
        let (rows, width) = (left[0].len(), right[0].len());
        let at = |i: usize, j: usize| values.iter().zip(left).zip(right).map(|((s, l), r)| s * l[i] * r[j]).sum();
        (0..width).map(|j| (0..rows).map(|i| at(i, j)).collect()).collect()
    }

    fn largest_difference(a: &Columns, b: &Columns) -> f64 {
        a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn pissa_takes_the_largest_singular_values() {
        let (left, right) = (orthonormal(20, 6), orthonormal(13, 6));
        let values = [5.0, 4.0, 2.0, 1.5, 1.0, 0.5];
        let weight = Dense(product(&left, &values, &right));
        let scale = 2.0;
        let (b, a) = largest(&weight, 3, scale).unwrap();
        let expected = product(&left, &values[..3], &right);
        assert!(largest_difference(&product(&b, &[scale; 3], &a), &expected) < 1e-9);
        // Both halves have the root of each value.
        for (i, (b, a)) in b.iter().zip(&a).enumerate() {
            let expected = values[i] / scale;
            assert!((dot(b, b) - expected).abs() < 1e-9 && (dot(a, a) - expected).abs() < 1e-9, "{i}");
        }
    }

    #[test]
    fn olora_takes_the_first_columns_of_q_and_rows_of_r() {
        let weight = Dense(scattered(9, 7));
        let (b, a) = first_columns(&weight, 3).unwrap();
        for (i, x) in b.iter().enumerate() {
            for (j, y) in b.iter().enumerate() {
                assert!((dot(x, y) - f64::from(u8::from(i == j))).abs() < 1e-12);
            }
            // R is upper triangular.
            assert!(a[i][..i].iter().all(|x| x.abs() < 1e-12), "{:?}", a[i]);
        }
        // The first columns of W lie in the space of those of Q.
        let taken = product(&b, &[1.0; 3], &a);
        assert!(largest_difference(&taken[..3].to_vec(), &weight.0[..3].to_vec()) < 1e-12);
    }

    #[test]
    fn a_weight_of_zeros_gives_zeros() {
        let zeros = Dense(vec![vec![0.0; 6]; 5]);
        for (b, a) in [largest(&zeros, 2, 1.0).unwrap(), first_columns(&zeros, 2).unwrap()] {
            assert!(b.iter().chain(&a).flatten().all(|x| *x == 0.0));
        }
    }

    #[test]
    fn eigenvectors_are_turned_by_their_values_alone() {
        let vectors = orthonormal(5, 5);
        let values = [3.0, -1.0, 0.0, 2.0, 2.0];
        let matrix = product(&vectors, &values, &vectors);
        let (found, vectors) = eigen(matrix.clone());
        for (value, vector) in found.iter().zip(&vectors) {
            for (row, x) in matrix.iter().zip(vector) {
                assert!((dot(row, vector) - value * x).abs() < 1e-9);
            }
        }
        let mut found = found;
        found.sort_by(f64::total_cmp);
        let expected = [-1.0, 0.0, 2.0, 2.0, 3.0];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{found:?}");
    }
}
