//! Numbers, and how gradients flow back through what was computed of them.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::DType;

/// A tensor, and what it was computed of. Elements lie row-major and are `f64` whatever the element type says: a float that is
/// called `f32` is not rounded, so that finite differences are as good as they can be.
#[derive(Clone)]
pub(crate) struct Value(Arc<Node>);

struct Node {
    /// Counts up, so inputs have lower numbers than what is made of them.
    number: u64,
    dtype: DType,
    shape: Vec<usize>,
    data: Vec<f64>,
    /// Whether a gradient is wanted.
    tracked: bool,
    origin: Option<Origin>,
}

/// How a value came to be.
struct Origin {
    inputs: Vec<Value>,
    back: Box<Back>,
}

/// From the gradient by a result to those by its inputs, in their order.
type Back = dyn Fn(&[f64]) -> Vec<Vec<f64>> + Send + Sync;

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {:?}", self.dtype(), self.shape(), self.data())
    }
}

impl Value {
    fn make(dtype: DType, shape: Vec<usize>, data: Vec<f64>, tracked: bool, origin: Option<Origin>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        debug_assert_eq!(data.len(), shape.iter().product::<usize>());
        Self(Arc::new(Node { number: NEXT.fetch_add(1, Ordering::Relaxed), dtype, shape, data, tracked, origin }))
    }

    /// Numbers without history.
    pub(crate) fn constant(dtype: DType, shape: impl Into<Vec<usize>>, data: Vec<f64>) -> Self {
        Self::make(dtype, shape.into(), data, false, None)
    }

    /// `f64` without history.
    pub(crate) fn floats(shape: impl Into<Vec<usize>>, data: Vec<f64>) -> Self {
        Self::constant(DType::F64, shape, data)
    }

    /// Indices or classes.
    pub(crate) fn indices(ids: &[u32]) -> Self {
        Self::constant(DType::U32, [ids.len()], ids.iter().map(|&id| f64::from(id)).collect())
    }

    /// `f64` numbers by which a gradient is wanted.
    pub(crate) fn variable(shape: impl Into<Vec<usize>>, data: Vec<f64>) -> Self {
        Self::make(DType::F64, shape.into(), data, true, None)
    }

    /// What an op made of `inputs`. `back` gives a gradient for each of them, of as many elements.
    pub(crate) fn computed(
        dtype: DType,
        shape: Vec<usize>,
        data: Vec<f64>,
        inputs: &[&Self],
        back: impl Fn(&[f64]) -> Vec<Vec<f64>> + Send + Sync + 'static,
    ) -> Self {
        if !inputs.iter().any(|input| input.0.tracked) {
            return Self::constant(dtype, shape, data);
        }
        let inputs = inputs.iter().map(|&input| input.clone()).collect();
        Self::make(dtype, shape, data, true, Some(Origin { inputs, back: Box::new(back) }))
    }

    /// The same numbers without history.
    pub(crate) fn detached(&self) -> Self {
        Self::constant(self.dtype(), self.shape(), self.data().to_vec())
    }

    pub(crate) fn dtype(&self) -> DType {
        self.0.dtype
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    pub(crate) fn data(&self) -> &[f64] {
        &self.0.data
    }

    /// Size of the last dimension; 1 of a scalar.
    pub(crate) fn width(&self) -> usize {
        self.shape().last().copied().unwrap_or(1)
    }

    /// The gradients of `seed`-weighted elements of this value by all variables below it.
    pub(crate) fn gradients(&self, seed: Vec<f64>) -> Gradients {
        let mut found = HashMap::new();
        let mut waiting = BTreeMap::new();
        if self.0.tracked {
            waiting.insert(self.0.number, (self.clone(), seed));
        }
        // The highest number first: whatever was computed of a value comes before it.
        while let Some((number, (value, gradient))) = waiting.pop_last() {
            let Some(Origin { inputs, back }) = &value.0.origin else {
                found.insert(number, gradient);
                continue;
            };
            for (input, share) in inputs.iter().zip(back(&gradient)) {
                if input.0.tracked {
                    let (_, sum) =
                        waiting.entry(input.0.number).or_insert_with(|| (input.clone(), vec![0.0; share.len()]));
                    sum.iter_mut().zip(share).for_each(|(sum, share)| *sum += share);
                }
            }
        }
        Gradients(found)
    }
}

/// Gradients by variables.
pub(crate) struct Gradients(HashMap<u64, Vec<f64>>);

impl Gradients {
    /// That by one of them; `None` where nothing that counts was computed of it.
    pub(crate) fn by(&self, variable: &Value) -> Option<&[f64]> {
        self.0.get(&variable.0.number).map(Vec::as_slice)
    }
}
