//! The matrix product: B packed in panels, A read in place, C finished in the same pass (bias, addend, activation).
//!
//! ```text
//! for block of A's rows            (second cache)
//!   for block of k
//!     for panel of B, 32 columns   (first cache)
//!       for tile of 12 rows        (registers)
//! ```
//!
//! Every element of C is summed in the order of k by fixed blocks, so its bits depend on neither the tile, the block of rows,
//! nor the thread that computes it.

mod few;
mod micro;
mod pack;
mod patches;
mod quantized;
mod rest;
mod taps;
mod view;

use rayon::prelude::*;

use self::micro::{Family, Kernel, Lanes, MAX_ROWS, PANEL, Tile};
use self::pack::{Format, blocks, convert_left};
pub(crate) use self::pack::{Strided, scratch_len, to_pairs};
pub(crate) use self::patches::{Along, Patches};
pub(crate) use self::rest::{Direction, Packed};
pub(crate) use self::taps::{Shape, Taps, by_tap};
pub(crate) use self::view::PackedView;
use super::{elementwise, scratch};
use crate::Activation;

/// Rows of A in one block: with up to 384 lanes along k they stay in the second cache.
const ROWS: usize = 240;
/// Rows that one task takes where the product is split over threads.
const TASK_ROWS: usize = 48;
/// Multiplications below which a split does not pay.
const PARALLEL: usize = 1 << 21;
/// Rows that a weight could be multiplied with while it is read.
const READ_ROWS: usize = 8;

/// A of a product.
#[derive(Clone, Copy)]
pub(crate) enum Left<'a> {
    Matrix(Strided<'a>),
    Patches(Patches<'a>),
    /// A row for each element of a patch.
    PatchesTransposed(Patches<'a>),
}

impl<'a> From<Strided<'a>> for Left<'a> {
    fn from(matrix: Strided<'a>) -> Self {
        Self::Matrix(matrix)
    }
}

impl Left<'_> {
    /// Whether it is a matrix of `m` by `k`.
    fn holds(&self, m: usize, k: usize, format: Format) -> bool {
        match self {
            Self::Matrix(a) => a.holds(m, k),
            Self::Patches(a) => m == a.rows() && a.width() == if a.pairs { format.lanes(k) } else { k },
            Self::PatchesTransposed(a) => !a.pairs && (m, k) == (a.width(), a.rows()),
        }
    }
}

/// `activation((alpha a b + bias + addend) scale + shift)`: `a` `m` by `k`, `b` `k` by `n`.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    pub(crate) m: usize,
    pub(crate) a: Left<'a>,
    pub(crate) b: PackedView<'a>,
    pub(crate) alpha: f32,
    /// One number for each column.
    pub(crate) bias: Option<&'a [f32]>,
    /// `m` by `n`, rows contiguous.
    pub(crate) addend: Option<&'a [f32]>,
    /// Scale and shift, one number for each column.
    pub(crate) norm: Option<(&'a [f32], &'a [f32])>,
    pub(crate) activation: Activation,
    /// Split over the threads of the pool.
    pub(crate) parallel: bool,
}

impl<'a> Product<'a> {
    /// `a b`
    pub(crate) fn new(m: usize, a: impl Into<Left<'a>>, b: PackedView<'a>) -> Self {
        Self {
            m,
            a: a.into(),
            b,
            alpha: 1.0,
            bias: None,
            addend: None,
            norm: None,
            activation: Activation::Identity,
            parallel: false,
        }
    }

    /// The result, `m` by `n`.
    pub(crate) fn compute(&self) -> Vec<f32> {
        // SAFETY: `run` writes all m by n elements.
        unsafe {
            scratch::written(self.m * self.b.n, |c| {
                self.run(Target { c: c.as_mut_ptr().cast(), row: self.b.n, slope: None });
            })
        }
    }

    /// The result, and where `slope` says so the activation's derivative there.
    pub(crate) fn compute_and_slope(&self, slope: bool) -> (Vec<f32>, Option<Vec<f32>>) {
        if !slope {
            return (self.compute(), None);
        }
        let (y, slope) = self.compute_with_slope();
        (y, Some(slope))
    }

    /// The result and the activation's derivative there.
    fn compute_with_slope(&self) -> (Vec<f32>, Vec<f32>) {
        let len = self.m * self.b.n;
        let mut slope = Vec::new();
        // SAFETY: `run` writes all m by n elements of both.
        let c = unsafe {
            scratch::written(len, |c| {
                slope = scratch::written(len, |slope| {
                    let slope = Some(slope.as_mut_ptr().cast());
                    self.run(Target { c: c.as_mut_ptr().cast(), row: self.b.n, slope });
                });
            })
        };
        (c, slope)
    }

    /// The result to rows of `c` that are `row` apart.
    pub(crate) fn store(&self, c: &mut [f32], row: usize) {
        let fits = self.m == 0 || (row >= self.b.n && (self.m - 1) * row + self.b.n <= c.len());
        assert!(fits && !self.finishes());
        // SAFETY: the rows lie within c.
        unsafe { self.run(Target { c: c.as_mut_ptr(), row, slope: None }) }
    }

    /// # Safety
    /// The target's rows can be written.
    unsafe fn run(&self, target: Target) {
        let family = if self.b.format == Format::Pairs { micro::bf16_family() } else { None };
        // SAFETY: by the same contract; the kernels are those that the processor has.
        unsafe { self.run_with(family.unwrap_or_else(micro::f32_family), target) }
    }

    /// # Safety
    /// The target's rows can be written, and the processor has the family's instructions.
    unsafe fn run_with(&self, family: &Family, target: Target) {
        let (m, k, n) = (self.m, self.b.k, self.b.n);
        assert!(self.a.holds(m, k, self.b.format), "the left operand is none of {m} by {k}");
        assert!(self.bias.is_none_or(|bias| bias.len() == n) && self.addend.is_none_or(|addend| addend.len() == m * n));
        assert!(self.norm.is_none_or(|(scale, shift)| scale.len() == n && shift.len() == n));
        let target = Shared(target);
        // A panel that is made for each task should serve many rows.
        let threads = rayon::current_num_threads();
        let rows = match self.a {
            Left::PatchesTransposed(_) => m.div_ceil(4 * threads).next_multiple_of(12).min(ROWS),
            _ if self.b.panel_scratch() == 0 => TASK_ROWS,
            _ => 2 * TASK_ROWS,
        };
        // A weight takes as long to be read as to be multiplied with several rows.
        let split = self.parallel && m.max(READ_ROWS) * n * k >= PARALLEL;
        let by_rows = split && m > rows;
        let by_columns = split && !by_rows && matches!(self.a, Left::Matrix(_));
        let step = if by_rows { rows } else { ROWS };
        let wide = if by_columns { n.div_ceil(4 * threads).next_multiple_of(PANEL) } else { n.max(1) };
        let (blocks, across) = (m.div_ceil(step), n.div_ceil(wide).max(1));
        let part = |i: usize| {
            let (i, j) = (i / across, i % across);
            let part = Part { rows: i * step..m.min((i + 1) * step), columns: j * wide..n.min((j + 1) * wide) };
            // SAFETY: parts are disjoint.
            unsafe { self.part(family, part, target.get()) }
        };
        if split {
            (0..blocks * across).into_par_iter().for_each(part);
        } else {
            (0..blocks * across).for_each(part);
        }
    }

    /// One part of C.
    ///
    /// # Safety
    /// As for `run_with`.
    unsafe fn part(&self, family: &Family, part: Part, target: Target) {
        let rows = part.rows.clone();
        let format = self.b.format;
        let k = self.b.k;
        let matrix = match self.a {
            Left::Matrix(matrix) => matrix,
            Left::Patches(_) | Left::PatchesTransposed(_) => {
                let longest = blocks(format.lanes(k)).next().map_or(0, |block| block.len());
                return scratch::with(rows.len() * longest, |room| {
                    // SAFETY: by the same contract.
                    unsafe { self.tiles(family, part, Source::Gathered(room), target) }
                });
            }
        };
        // Columns are gathered so that a tile's lanes are not a page apart.
        if format == Format::F32 && (matrix.column == 1 || self.b.n <= PANEL) {
            let data = matrix.data.as_ptr().wrapping_add(rows.start * matrix.row);
            let lanes = Lanes { data, row: matrix.row, column: matrix.column };
            // SAFETY: A holds m by k elements.
            unsafe { self.tiles(family, part, Source::Ready(lanes), target) }
        } else {
            scratch::with(rows.len() * format.lanes(k), |lanes| {
                let (row, column) = convert_left(matrix, rows.clone(), k, format, lanes);
                let lanes = Lanes { data: lanes.as_ptr(), row, column };
                // SAFETY: the lanes hold this block of A.
                unsafe { self.tiles(family, part, Source::Ready(lanes), target) }
            });
        }
    }

    /// The lanes `block` of the rows of A.
    fn gather(&self, rows: std::ops::Range<usize>, block: &std::ops::Range<usize>, room: &mut [f32]) -> Lanes {
        let (format, count) = (self.b.format, rows.len());
        let room = &mut room[..count * block.len()];
        let (row, column) = match self.a {
            Left::PatchesTransposed(patches) => {
                patches.fill_transposed(&rows, block, format, room);
                (1, count)
            }
            Left::Patches(patches) => {
                patches.fill(rows, block, self.b.k, format, room);
                (block.len(), 1)
            }
            Left::Matrix(_) => unreachable!("a matrix is not gathered"),
        };
        Lanes { data: room.as_ptr(), row, column }
    }

    /// # Safety
    /// As for `run_with`; `a` begins with the first of the rows.
    unsafe fn tiles(&self, family: &Family, part: Part, a: Source<'_>, target: Target) {
        if let Source::Ready(a @ Lanes { column: 1, .. }) = a
            && part.rows.len() <= few::ROWS
            && few::kernels()
            && self.b.kept(part.columns.start).is_some()
        {
            // SAFETY: by the same contract.
            return unsafe { self.few_rows(&part, a, target) };
        }
        // SAFETY: by the same contract.
        scratch::with(self.b.panel_scratch(), |scratch| unsafe { self.tiles_with(family, part, a, target, scratch) });
    }

    /// # Safety
    /// As for `tiles`.
    unsafe fn tiles_with(
        &self,
        family: &Family,
        Part { rows, columns: all }: Part,
        mut source: Source<'_>,
        target: Target,
        scratch: &mut [f32],
    ) {
        let n = self.b.n;
        let lanes = self.b.format.lanes(self.b.k);
        for block in blocks(lanes) {
            let (first, last) = (block.start == 0, block.end == lanes);
            let a = match &mut source {
                Source::Ready(a) => Lanes { data: a.data.wrapping_add(block.start * a.column), ..*a },
                Source::Gathered(room) => self.gather(rows.clone(), &block, room),
            };
            for panel in all.clone().step_by(PANEL) {
                let b = self.b.panel(panel, &block, scratch).as_ptr();
                for start in rows.clone().step_by(family.rows) {
                    let height = family.rows.min(rows.end - start);
                    let offset = (start - rows.start) * a.row;
                    let a = Lanes { data: a.data.wrapping_add(offset), ..a };
                    let width = PANEL.min(n - panel);
                    for j in (0..width).step_by(2 * family.lanes) {
                        let columns = (width - j).min(2 * family.lanes);
                        let at = panel + j;
                        // SAFETY: the tile lies within C; bias and addend have its size.
                        unsafe {
                            let c = target.c.add(start * target.row + at);
                            let (addend, addend_row) = match self.addend {
                                _ if !first => (c.cast_const(), target.row),
                                Some(addend) => (addend.as_ptr().add(start * n + at), n),
                                None => (std::ptr::null(), 0),
                            };
                            let bias = self.bias.filter(|_| first);
                            let bias = bias.map_or(std::ptr::null(), |bias| bias.as_ptr().add(at));
                            let tile = Tile { c, c_row: target.row, alpha: self.alpha, bias, addend, addend_row };
                            tile_of(family, block.len(), a, b.wrapping_add(j), height, columns, &tile);
                        }
                    }
                    if last && self.finishes() {
                        // SAFETY: these rows of the panel were just written.
                        unsafe { self.finish(start..start + height, panel..panel + width, target) }
                    }
                }
            }
        }
    }

    /// Panel by panel, so that each is read from one end to the other: rows are few, and stay in the first cache.
    ///
    /// # Safety
    /// As for `tiles`; `a` has contiguous rows, and B's panels are [kept](PackedView::kept).
    unsafe fn few_rows(&self, Part { rows, columns }: &Part, a: Lanes, target: Target) {
        let panels = columns.clone().step_by(PANEL);
        for (panel, kept) in panels.filter_map(|panel| Some((panel, self.b.kept(panel)?))) {
            let columns = panel..self.b.n.min(panel + PANEL);
            for block in blocks(self.b.format.lanes(self.b.k)) {
                let a = Lanes { data: a.data.wrapping_add(block.start), ..a };
                // SAFETY: by the same contract.
                unsafe {
                    let sums = few::sums(kept, &block, a, rows.len());
                    self.put(&sums, rows.clone(), columns.clone(), block.start == 0, target);
                }
            }
            if self.finishes() {
                // SAFETY: these rows of the panel were just written.
                unsafe { self.finish(rows.clone(), columns, target) }
            }
        }
    }

    /// Writes the sums of a block of k, as the kernels of tiles do.
    ///
    /// # Safety
    /// These rows and columns can be written and, unless it is the `first` block, were.
    unsafe fn put(
        &self,
        sums: &few::Sums,
        rows: std::ops::Range<usize>,
        columns: std::ops::Range<usize>,
        first: bool,
        target: Target,
    ) {
        for (sums, i) in sums.iter().zip(rows) {
            // SAFETY: by contract.
            let c =
                unsafe { std::slice::from_raw_parts_mut(target.c.add(i * target.row + columns.start), columns.len()) };
            let sums = sums.iter().map(|sum| sum * self.alpha);
            if !first {
                c.iter_mut().zip(sums).for_each(|(c, sum)| *c += sum);
                continue;
            }
            c.iter_mut().zip(sums).for_each(|(c, sum)| *c = sum);
            let row = i * self.b.n;
            let added =
                [self.bias.map(|bias| &bias[columns.clone()]), self.addend.map(|all| &all[row..][columns.clone()])];
            for added in added.into_iter().flatten() {
                c.iter_mut().zip(added).for_each(|(c, x)| *c += x);
            }
        }
    }

    /// Whether anything comes after the sums.
    fn finishes(&self) -> bool {
        self.norm.is_some() || self.activation != Activation::Identity
    }

    /// Applies the norm and the activation to a part of C.
    ///
    /// # Safety
    /// That part was written, and the slope's can be.
    unsafe fn finish(&self, rows: std::ops::Range<usize>, columns: std::ops::Range<usize>, target: Target) {
        for i in rows {
            let at = i * target.row + columns.start;
            // SAFETY: by contract; the slope's memory is only written.
            unsafe {
                let c = std::slice::from_raw_parts_mut(target.c.add(at), columns.len());
                if let Some((scale, shift)) = self.norm {
                    let line = scale[columns.clone()].iter().zip(&shift[columns.clone()]);
                    c.iter_mut().zip(line).for_each(|(c, (scale, shift))| *c = *c * scale + shift);
                }
                match target.slope {
                    Some(slope) => {
                        let slope = std::slice::from_raw_parts_mut(slope.add(at), columns.len());
                        elementwise::activate_with_slope(self.activation, c, slope);
                    }
                    None => elementwise::activate(self.activation, c),
                }
            }
        }
    }
}

/// Some rows and columns of C; columns begin with a panel.
struct Part {
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
}

/// Where the lanes of a block of A's rows are.
enum Source<'a> {
    /// All of them, from the first of the rows on.
    Ready(Lanes),
    /// Gathered to this room when their block of k is due.
    Gathered(&'a mut [f32]),
}

/// Where a product goes.
#[derive(Clone, Copy)]
struct Target {
    c: *mut f32,
    row: usize,
    slope: Option<*mut f32>,
}

/// Lets tasks that write disjoint rows share a target.
struct Shared(Target);

impl Shared {
    fn get(&self) -> Target {
        self.0
    }
}

// SAFETY: the target is only a place; who writes what is settled where tasks are made.
unsafe impl Sync for Shared {}

/// One tile.
///
/// # Safety
/// As for [`micro::Kernel`].
unsafe fn tile_of(family: &Family, k: usize, a: Lanes, b: *const f32, rows: usize, columns: usize, tile: &Tile) {
    let vectors = columns.div_ceil(family.lanes);
    let kernel = family.kernel(rows, vectors);
    // SAFETY: by contract.
    unsafe {
        if columns == vectors * family.lanes {
            kernel(k, a, b, tile);
        } else {
            edge_tile(kernel, k, a, b, rows, columns, tile);
        }
    }
}

/// One tile whose columns are no whole number of vectors, by way of a small buffer. Not inlined: its loops would take the
/// registers of the loop over tiles.
///
/// # Safety
/// As for [`micro::Kernel`].
#[inline(never)]
unsafe fn edge_tile(kernel: Kernel, k: usize, a: Lanes, b: *const f32, rows: usize, columns: usize, tile: &Tile) {
    let mut buffer = [0f32; MAX_ROWS * PANEL];
    let none = std::ptr::null();
    let whole = Tile { c: buffer.as_mut_ptr(), c_row: PANEL, bias: none, addend: none, ..*tile };
    // SAFETY: by contract; the buffer holds the largest tile.
    unsafe { kernel(k, a, b, &whole) };
    for (i, row) in buffer.chunks_exact_mut(PANEL).enumerate().take(rows) {
        let row = &mut row[..columns];
        let added = [(tile.bias, 0), (tile.addend, i * tile.addend_row)];
        for (data, offset) in added.into_iter().filter(|(data, _)| !data.is_null()) {
            // SAFETY: by contract there are as many elements as columns.
            let data = unsafe { std::slice::from_raw_parts(data.add(offset), columns) };
            row.iter_mut().zip(data).for_each(|(x, y)| *x += y);
        }
        // SAFETY: the row is part of C.
        unsafe { std::ptr::copy_nonoverlapping(row.as_ptr(), tile.c.add(i * tile.c_row), columns) };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Precision;

    fn random(seed: u64, len: usize) -> Vec<f32> {
        let mut data = vec![0.0; len];
        crate::random::Stream::keyed(seed, &[len as u64]).fill_uniform(&mut data, -1.0, 1.0);
        data
    }

    fn exact(m: usize, k: usize, n: usize, a: Strided<'_>, b: Strided<'_>) -> Vec<f64> {
        let at = |x: Strided<'_>, i: usize, j: usize| f64::from(x.data[i * x.row + j * x.column]);
        (0..m * n).map(|ij| (0..k).map(|p| at(a, ij / n, p) * at(b, p, ij % n)).sum()).collect()
    }

    /// Room for a packed B.
    fn room(k: usize, n: usize, precision: Precision) -> Vec<f32> {
        vec![f32::NAN; scratch_len(k, n, precision)]
    }

    fn greatest_error(c: &[f32], exact: &[f64]) -> f64 {
        c.iter().zip(exact).map(|(c, exact)| (f64::from(*c) - exact).abs()).fold(0.0, f64::max)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn every_kernel_multiplies(
            m in 1usize..40, k in 1usize..70, n in 1usize..100, a_columns: bool, b_columns: bool,
        ) {
            let (a, b) = (random(1, m * k), random(2, k * n));
            let a = if a_columns { Strided::rows(&a, m).transposed() } else { Strided::rows(&a, k) };
            let b = if b_columns { Strided::rows(&b, k).transposed() } else { Strided::rows(&b, n) };
            let exact = exact(m, k, n, a, b);
            let (floats, pairs) = micro::runnable();
            let kinds = floats.into_iter().map(|f| (f, Format::F32, 1e-6)).chain(pairs.into_iter().map(|f| (f, Format::Pairs, 8e-3)));
            for (family, format, tolerance) in kinds {
                let mut room = vec![f32::NAN; pack::packed_len(k, n, format)];
                let product = Product::new(m, a, PackedView::pack_as(b, k, n, format, &mut room));
                let mut c = vec![f32::NAN; m * n];
                // SAFETY: c has m by n elements, and the family can run.
                unsafe { product.run_with(family, Target { c: c.as_mut_ptr(), row: n, slope: None }) };
                let error = greatest_error(&c, &exact);
                prop_assert!(error < tolerance * (k as f64).sqrt().max(4.0), "{format:?}: off by {error}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A few rows are multiplied by other kernels than many, and any product is split as it suits: each row is what it is alone.
        #[test]
        fn a_row_is_the_same_alone_and_among_others(
            m in 1usize..60, k in 1usize..900, n in 1usize..300, kind in 0usize..6, bias: bool, added: bool, activated: bool,
        ) {
            use crate::quantized::{Codes, Levels, Quantization};
            let precision = [Precision::F32, Precision::Bf16, Precision::F16][kind % 3];
            let k = if kind < 3 { k } else { k.next_multiple_of(32) };
            let weight = if kind < 3 {
                let mut weight = Packed::new(Shape { out: n, width: k, taps: 1 }, precision, None);
                random(1, n * k).chunks(k * Packed::ROWS).for_each(|rows| weight.push(rows));
                weight
            } else {
                let book = std::array::from_fn(|i| (i as f32 - 7.0) * 0.21);
                let levels = [Levels::Nibble { zero: 8 }, Levels::Book(book), Levels::Byte][kind - 3];
                let of = Quantization { block: 32, levels, has_offsets: added };
                let mut weight = Packed::quantized(Shape { out: n, width: k, taps: 1 }, Precision::F32, of);
                for (i, rows) in random(1, n * k).chunks(k * Packed::ROWS).enumerate() {
                    let code = |x: &f32| (x.to_bits() >> 7) as u8 & if kind == 5 { 255 } else { 15 };
                    // Scales as halves are exact, others are not.
                    let short = |x: f32| if bias { f32::from_bits(x.to_bits() & 0xFFFF_E000) } else { x };
                    let of_blocks = |seed| random(seed + i as u64, rows.len() / 32).into_iter().map(short).collect::<Vec<_>>();
                    let offsets = if of.has_offsets { of_blocks(3000) } else { Vec::new() };
                    weight.push_codes(&Codes { codes: rows.iter().map(code).collect(), scales: of_blocks(2000), offsets });
                }
                weight
            };
            let (x, bias_of, addend) = (random(4, m * k), random(5, n), random(6, m * n));
            let of = |rows: std::ops::Range<usize>, parallel: bool| Product {
                alpha: 0.5,
                bias: bias.then_some(&bias_of[..]),
                addend: added.then(|| &addend[rows.start * n..rows.end * n]),
                activation: if activated { Activation::Gelu } else { Activation::Identity },
                parallel,
                ..Product::new(rows.len(), Strided::rows(&x[rows.start * k..rows.end * k], k), weight.view(Direction::Forward))
            }.compute();
            let bits = |c: &[f32]| c.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let all = bits(&of(0..m, false));
            prop_assert_eq!(&all, &bits(&of(0..m, true)));
            for size in 1..=6 {
                let apart: Vec<f32> = (0..m).step_by(size).flat_map(|i| of(i..m.min(i + size), i % 2 == 0)).collect();
                prop_assert_eq!(&all, &bits(&apart), "{} rows at a time", size);
            }
        }
    }

    #[test]
    fn long_sums_are_blocked() {
        let (m, k, n) = (13, 1000, 33);
        let (a, b) = (random(1, m * k), random(2, k * n));
        let (a, b) = (Strided::rows(&a, k), Strided::rows(&b, n));
        let exact = exact(m, k, n, a, b);
        let addend = random(3, m * n);
        let bias = random(4, n);
        for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
            let mut room = room(k, n, precision);
            let packed = PackedView::pack(b, k, n, precision, &mut room);
            let product =
                Product { alpha: 0.5, addend: Some(&addend), bias: Some(&bias), ..Product::new(m, a, packed) };
            let expected: Vec<f64> = exact
                .iter()
                .enumerate()
                .map(|(i, x)| 0.5 * x + f64::from(addend[i]) + f64::from(bias[i % n]))
                .collect();
            let error = greatest_error(&product.compute(), &expected);
            assert!(error < if precision == Precision::F32 { 1e-4 } else { 0.2 }, "{precision:?}: off by {error}");
        }
    }

    #[test]
    fn nothing_is_written_beside_the_target() {
        let (a, b) = (random(1, 30), random(2, 30));
        let mut room = room(6, 5, Precision::F32);
        let packed = PackedView::pack(Strided::rows(&b, 5), 6, 5, Precision::F32, &mut room);
        let mut c = vec![7.0; 5 * 9];
        Product::new(5, Strided::rows(&a, 6), packed).store(&mut c, 9);
        assert!(c.chunks(9).all(|row| row[..5].iter().all(|x| *x != 7.0) && row[5..].iter().all(|x| *x == 7.0)));
    }

    #[test]
    fn empty_products() {
        let packed = PackedView::pack(Strided::rows(&[], 3), 0, 3, Precision::F32, &mut []);
        let bias = [1.0, 2.0, 3.0];
        let product = Product { bias: Some(&bias), ..Product::new(2, Strided::rows(&[], 0), packed) };
        assert_eq!(product.compute(), [1., 2., 3., 1., 2., 3.]);
        let packed = PackedView::pack(Strided::rows(&[], 0), 3, 0, Precision::F32, &mut []);
        assert!(Product::new(2, Strided::rows(&[0.0; 6], 3), packed).compute().is_empty());
        // A weight at rest without inputs, and one without outputs.
        let weight = Packed::new(Shape { out: 3, width: 0, taps: 1 }, Precision::F32, None);
        let product =
            Product { bias: Some(&bias), ..Product::new(2, Strided::rows(&[], 0), weight.view(Direction::Forward)) };
        assert_eq!(product.compute(), [1., 2., 3., 1., 2., 3.]);
        assert!(Product::new(2, Strided::rows(&[0.0; 6], 3), weight.view(Direction::Backward)).compute().is_empty());
    }
}
