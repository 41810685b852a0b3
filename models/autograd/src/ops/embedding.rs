//! Gathers of rows: embeddings, the rows that a head reads, and rows put before every sequence.

use candle_core::{Device, Result, Tensor};

use crate::{Layout, Parameter, Tape, Value, slices};

fn within(ids: &[u32], n: usize) -> Result<()> {
    match ids.iter().find(|id| **id as usize >= n) {
        Some(id) => candle_core::bail!("row {id} was asked for of a tensor of {n} rows"),
        None => Ok(()),
    }
}

/// Rows of a contiguous `[n, width]` tensor.
pub(super) fn gather(table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    let (n, width) = table.dims2()?;
    within(ids, n)?;
    let copied = slices::read([table], |[table]| {
        let mut out = Vec::with_capacity(ids.len() * width);
        for id in ids {
            out.extend_from_slice(&table[*id as usize * width..][..width]);
        }
        out
    });
    match copied {
        Some(rows) => Tensor::from_vec(rows, (ids.len(), width), table.device()),
        None => table.contiguous()?.index_select(&Tensor::new(ids, table.device())?, 0),
    }
}

impl Tape {
    /// Rows `ids` of `table` `[rows, width]`; gives `[ids, width]`. The table's gradient stays a list of rows.
    pub fn embedding(&self, table: &Value, ids: &[u32]) -> Result<Value> {
        let rows = match table.parameter().and_then(Parameter::source) {
            // Of a table at rest these rows alone are read.
            Some(source) => {
                let (n, width) = table.dims2()?;
                within(ids, n)?;
                let mut rows = vec![0f32; ids.len() * width];
                for (id, row) in ids.iter().zip(rows.chunks_exact_mut(width.max(1))) {
                    source.read(*id as usize * width, row);
                }
                Tensor::from_vec(rows, (ids.len(), width), &Device::Cpu)?
            }
            None => gather(table.tensor(), ids)?,
        };
        let (ids, shape) = (ids.to_vec(), table.dims().to_vec());
        // Only leaves can take row gradients: a computed table gets a dense one.
        let leaf = table.parameter().is_some();
        Ok(self.record(rows, &[table], move |g, vjp| {
            if leaf {
                let ids = Tensor::new(ids.as_slice(), g.device())?;
                vjp.give_rows(0, ids, g, &shape)
            } else {
                vjp.give(0, scatter(&g, &ids, &shape)?)
            }
        }))
    }

    /// Rows `rows` of `x` `[n, width]`, which may repeat; gives `[rows, width]`.
    pub fn select_rows(&self, x: &Value, rows: &[u32]) -> Result<Value> {
        let selected = gather(x.tensor(), rows)?;
        let (rows, shape) = (rows.to_vec(), x.dims().to_vec());
        Ok(self.record(selected, &[x], move |g, vjp| vjp.give(0, scatter(&g, &rows, &shape)?)))
    }

    /// Puts `rows` `[p, width]` before every sequence of `x` `[tokens, width]`; the result's layout is
    /// `layout.extended(p)`.
    pub fn prepend_rows(&self, x: &Value, rows: &Value, layout: &Layout) -> Result<Value> {
        let (tokens, width) = x.tensor().dims2()?;
        let (p, row_width) = rows.tensor().dims2()?;
        if width != row_width || tokens != layout.tokens() {
            candle_core::bail!(
                "cannot put rows {:?} before the {} sequences ({} tokens) of {:?}",
                rows.dims(),
                layout.sequences(),
                layout.tokens(),
                x.dims()
            );
        }
        let joined = slices::read([x.tensor(), rows.tensor()], |[x, rows]| {
            let mut out = Vec::with_capacity(x.len() + layout.sequences() * rows.len());
            for range in layout.ranges() {
                out.extend_from_slice(rows);
                out.extend_from_slice(&x[range.start * width..range.end * width]);
            }
            out
        });
        let total = tokens + layout.sequences() * p;
        let joined = match joined {
            Some(joined) => Tensor::from_vec(joined, (total, width), x.tensor().device())?,
            None => {
                let mut pieces = Vec::with_capacity(2 * layout.sequences());
                for range in layout.ranges() {
                    pieces.push(rows.tensor().clone());
                    pieces.push(x.tensor().narrow(0, range.start, range.len())?);
                }
                Tensor::cat(&pieces, 0)?
            }
        };
        let layout = layout.clone();
        Ok(self.record(joined, &[x, rows], move |g, vjp| {
            let extended = layout.extended(p);
            if vjp.wants(0) {
                let own: Vec<u32> =
                    extended.ranges().flat_map(|range| (range.start + p) as u32..range.end as u32).collect();
                vjp.give(0, gather(&g, &own)?)?;
            }
            if vjp.wants(1) {
                let put: Vec<u32> =
                    extended.ranges().flat_map(|range| range.start as u32..(range.start + p) as u32).collect();
                let copies = gather(&g, &put)?.reshape((layout.sequences(), p, width))?;
                vjp.give(1, super::elementwise::unbroadcast(copies, &[p, width])?)?;
            }
            Ok(())
        }))
    }
}

/// Zeros of `shape` with `g`'s rows added at `rows`.
pub(super) fn scatter(g: &Tensor, rows: &[u32], shape: &[usize]) -> Result<Tensor> {
    let width = shape[1];
    let sum = slices::read([g], |[g]| {
        let mut sum = vec![0f32; shape[0] * width];
        for (row, id) in g.chunks_exact(width.max(1)).zip(rows) {
            for (sum, x) in sum[*id as usize * width..][..width].iter_mut().zip(row) {
                *sum += x;
            }
        }
        sum
    });
    match sum {
        Some(sum) => Tensor::from_vec(sum, shape, g.device()),
        None => {
            Tensor::zeros(shape, g.dtype(), g.device())?.index_add(&Tensor::new(rows, g.device())?, &g.contiguous()?, 0)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use candle_core::DType;

    use super::*;
    use crate::{Gradient, check};

    fn counting(dims: (usize, usize), dtype: DType) -> Tensor {
        let n = (dims.0 * dims.1) as u32;
        Tensor::arange(0u32, n, &Device::Cpu).unwrap().to_dtype(dtype).unwrap().reshape(dims).unwrap()
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let x = counting((5, 2), DType::F64);
        check::gradients(std::slice::from_ref(&x), |tape, v| tape.select_rows(&v[0], &[4, 0, 4])).unwrap();
        check::gradients(std::slice::from_ref(&x), |tape, v| tape.embedding(&v[0], &[1, 1, 3])).unwrap();
        let layout = Layout::from_lengths([2, 0, 3]);
        check::gradients(&[x, counting((2, 2), DType::F64)], |tape, v| tape.prepend_rows(&v[0], &v[1], &layout))
            .unwrap();
    }

    #[test]
    fn both_forms_give_the_same() {
        let layout = Layout::from_lengths([2, 0, 3]);
        let of = |dtype| {
            let tape = Tape::recording();
            let x = tape.variable(counting((5, 2), dtype));
            let rows = tape.variable(counting((2, 2), dtype).affine(-1.0, 0.0).unwrap());
            let joined = tape.prepend_rows(&x, &rows, &layout).unwrap();
            let picked = tape.select_rows(&joined, &[0, 2, 4, 10, 0]).unwrap();
            let gradients = tape.backward_from(vec![(picked.clone(), counting((5, 2), dtype))]).unwrap();
            [picked.tensor(), gradients.of(&x).unwrap(), gradients.of(&rows).unwrap()]
                .map(|t| t.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap())
        };
        assert_eq!(of(DType::F32), of(DType::F64));
        assert_eq!(of(DType::F32)[0], [[0., -1.], [0., 1.], [0., -1.], [8., 9.], [0., -1.]]);
    }

    #[test]
    fn a_table_gets_the_gradients_of_its_rows() {
        let table = Parameter::new("words", counting((4, 2), DType::F32), true);
        let tape = Tape::recording();
        let rows = tape.embedding(&tape.parameter(&table), &[3, 1, 3]).unwrap();
        let seed = counting((3, 2), DType::F32);
        let gradients = tape.backward_from(vec![(rows, seed)]).unwrap();
        let gradient = gradients.get(&table).unwrap();
        assert!(matches!(gradient, Gradient::Rows(pieces) if pieces.len() == 1));
        let dense = gradient.to_dense(&[4, 2]).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(dense, [[0., 0.], [2., 3.], [0., 0.], [4., 6.]]);
    }

    #[test]
    fn a_row_out_of_range_is_named() {
        let tape = Tape::evaluation();
        let error = tape.embedding(&Value::constant(counting((4, 2), DType::F32)), &[4]).unwrap_err().to_string();
        assert!(error.contains("row 4"), "{error}");
    }
}
