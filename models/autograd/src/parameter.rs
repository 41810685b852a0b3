//! Parameters: named tensors that outlive a step, shared by all tapes.
//!
//! What trains is an `f32` tensor that is updated in place. What is frozen may be *at rest*: its values stay in the file that they
//! came from, products read its packed form, and a tensor of it is made only for whoever asks.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, DType, Result, Storage, Tensor};

use crate::kernels::gemm::{Packed, Shape};
use crate::quantized::{Codes, Quantization};
use crate::{Precision, slices};

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Where the values of a parameter at rest are read whenever they are asked for.
pub trait Source: fmt::Debug + Send + Sync {
    /// Copies the elements from `start` on, as many as `into` holds.
    fn read(&self, start: usize, into: &mut [f32]);

    /// How they are quantised, where products may read their codes instead; only of a matrix, whose rows are whole blocks.
    fn quantization(&self) -> Option<Quantization> {
        None
    }

    /// The codes of the elements from `start` on, as many as there is room for: whole blocks, of which [`read`](Self::read) gives the
    /// values to the bit. Only where there is a [`quantization`](Self::quantization).
    fn read_codes(&self, start: usize, into: &mut Codes) {
        let _ = (start, into);
    }
}

/// What layers do with a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// They multiply with it, `[out, in]`, or a convolution's `[out, channels, kh, kw]`.
    Products,
    /// They take single rows.
    Rows,
}

/// A named tensor that may train. Clones share it.
#[derive(Clone)]
pub struct Parameter {
    shared: Arc<Inner>,
    /// What it is called here, where that is not its own name.
    alias: Option<Arc<str>>,
}

struct Inner {
    id: u64,
    name: String,
    dims: Vec<usize>,
    dtype: DType,
    reading: Reading,
    values: RwLock<Values>,
    trainable: AtomicBool,
    version: AtomicU64,
    packed: Mutex<HashMap<Precision, (u64, Arc<Packed>)>>,
    derived: Mutex<Option<(Vec<u64>, Tensor)>>,
}

/// Where a parameter's values are.
enum Values {
    Held(Tensor),
    AtRest(Arc<dyn Source>),
}

impl Parameter {
    /// A parameter over `tensor`, which must be contiguous and not shared with another parameter: it is updated in place.
    pub fn new(name: impl Into<String>, tensor: Tensor, trainable: bool) -> Self {
        let (dims, dtype) = (tensor.dims().to_vec(), tensor.dtype());
        Self::with_values(name.into(), dims, dtype, Reading::Products, Values::Held(tensor.detach()), trainable)
    }

    /// A parameter at rest, `f32` on the CPU. It stays so until it trains or is set.
    pub fn at_rest(
        name: impl Into<String>,
        dims: &[usize],
        source: Arc<dyn Source>,
        reading: Reading,
        trainable: bool,
    ) -> Self {
        Self::with_values(name.into(), dims.to_vec(), DType::F32, reading, Values::AtRest(source), trainable)
    }

    fn with_values(
        name: String,
        dims: Vec<usize>,
        dtype: DType,
        reading: Reading,
        values: Values,
        trainable: bool,
    ) -> Self {
        let shared = Inner {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            name,
            dims,
            dtype,
            reading,
            values: RwLock::new(values),
            trainable: AtomicBool::new(trainable),
            version: AtomicU64::new(0),
            packed: Mutex::new(HashMap::new()),
            derived: Mutex::new(None),
        };
        Self { shared: Arc::new(shared), alias: None }
    }

    /// The same parameter by another name: a model that others are parts of calls theirs so.
    #[must_use]
    pub fn renamed(&self, name: impl Into<Arc<str>>) -> Self {
        Self { shared: self.shared.clone(), alias: Some(name.into()) }
    }

    /// Unique in the process, ascending in the order of creation.
    pub fn id(&self) -> u64 {
        self.shared.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.shared.name)
    }

    /// Its dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.shared.dims
    }

    /// Its element type.
    pub fn dtype(&self) -> DType {
        self.shared.dtype
    }

    /// Number of elements.
    pub fn elem_count(&self) -> usize {
        self.shared.dims.iter().product()
    }

    /// Its current value. What trains is updated in place between steps; of what is at rest each call makes a tensor that is not kept.
    pub fn tensor(&self) -> Tensor {
        match &*self.shared.values.read().unwrap_or_else(PoisonError::into_inner) {
            Values::Held(tensor) => tensor.clone(),
            Values::AtRest(source) => self.tensor_of(source.as_ref()),
        }
    }

    /// The tensor that holds its values from now on.
    pub(crate) fn held(&self) -> Tensor {
        if let Values::Held(tensor) = &*self.shared.values.read().unwrap_or_else(PoisonError::into_inner) {
            return tensor.clone();
        }
        let mut values = self.shared.values.write().unwrap_or_else(PoisonError::into_inner);
        let tensor = match &*values {
            Values::Held(tensor) => return tensor.clone(),
            Values::AtRest(source) => self.tensor_of(source.as_ref()),
        };
        *values = Values::Held(tensor.clone());
        tensor
    }

    fn tensor_of(&self, source: &dyn Source) -> Tensor {
        let mut elements = vec![0f32; self.elem_count()];
        source.read(0, &mut elements);
        Tensor::from_storage(Storage::Cpu(CpuStorage::F32(elements)), self.dims(), BackpropOp::none(), false)
    }

    /// Where its values are read, if it is at rest.
    pub(crate) fn source(&self) -> Option<Arc<dyn Source>> {
        match &*self.shared.values.read().unwrap_or_else(PoisonError::into_inner) {
            Values::Held(_) => None,
            Values::AtRest(source) => Some(source.clone()),
        }
    }

    /// How it is quantised, if it is: at rest, and so that products read its codes.
    pub fn quantization(&self) -> Option<Quantization> {
        self.source()?.quantization()
    }

    /// Whether tapes record gradients for it.
    pub fn trainable(&self) -> bool {
        self.shared.trainable.load(Ordering::Relaxed)
    }

    /// Freezes or thaws. Between steps only.
    pub fn set_trainable(&self, trainable: bool) {
        self.shared.trainable.store(trainable, Ordering::Relaxed);
    }

    /// Counts the changes of its value; what was derived from an older version is stale.
    pub fn version(&self) -> u64 {
        self.shared.version.load(Ordering::Acquire)
    }

    /// Says that the tensor was changed in place.
    pub(crate) fn mark_changed(&self) {
        self.shared.version.fetch_add(1, Ordering::Release);
    }

    /// Copies `value` over the current one, in place. Errors where the shapes differ.
    pub fn set(&self, value: &Tensor) -> Result<()> {
        if value.dims() != self.dims() {
            candle_core::bail!(
                "parameter {} has shape {:?}, the new value {:?}",
                self.name(),
                self.dims(),
                value.dims()
            );
        }
        crate::optim::copy_in_place(&self.held(), value)?;
        self.mark_changed();
        Ok(())
    }

    /// Goes over all values, in order, a few rows at a time.
    pub fn each_value(&self, mut see: impl FnMut(&[f32])) -> Result<()> {
        self.each_rows(|_, rows| see(rows))
    }

    /// Goes over all values as [`each_value`](Self::each_value) does, and on the way packs a weight at rest that layers multiply with
    /// for products in `precision`.
    pub fn prepare(&self, precision: Precision, mut see: impl FnMut(&[f32])) -> Result<()> {
        let shape = Shape::of(self.dims()).filter(|_| self.packs());
        let Some(shape) = shape else { return self.each_value(see) };
        let mut values = Vec::new();
        let show = |of: &Quantization, codes: &Codes| {
            values.resize(codes.codes.len(), 0.0);
            codes.values(of, &mut values);
            see(&values);
        };
        let packed = match self.packed_codes(shape, precision, show) {
            Some(packed) => packed,
            None => {
                let mut packed = Packed::new(shape, precision, None);
                self.each_rows(|_, rows| {
                    see(rows);
                    packed.push(rows);
                })?;
                packed
            }
        };
        lock(&self.shared.packed).insert(precision, (self.version(), Arc::new(packed)));
        Ok(())
    }

    /// Packs a weight for products in `precision`, which would be done by the first of them.
    pub fn pack(&self, precision: Precision) -> Result<()> {
        self.packed(precision).map(drop)
    }

    /// The packed form of a quantised weight at rest, whose codes are shown piece after piece.
    fn packed_codes(
        &self,
        shape: Shape,
        precision: Precision,
        mut see: impl FnMut(&Quantization, &Codes),
    ) -> Option<Packed> {
        let source = self.source()?;
        let of = source.quantization()?;
        let mut packed = Packed::quantized(shape, precision, of);
        let (count, piece, mut codes) = (self.elem_count(), Packed::ROWS * shape.width, Codes::default());
        for start in (0..count).step_by(piece.max(1)) {
            codes.make_room(&of, piece.min(count - start));
            source.read_codes(start, &mut codes);
            packed.push_codes(&codes);
            see(&of, &codes);
        }
        Some(packed)
    }

    /// Whether it is a weight at rest that layers multiply with. One of a single channel is a depthwise convolution's, which do not.
    pub fn packs(&self) -> bool {
        let multiplies = match *self.dims() {
            [_, _] => true,
            [_, channels, _, _] => channels > 1,
            _ => false,
        };
        self.shared.reading == Reading::Products && multiplies && self.source().is_some()
    }

    /// Goes over all values as [`each_value`](Self::each_value) does. Whether every packed form that products read is what they give.
    pub fn verify(&self, mut see: impl FnMut(&[f32])) -> Result<bool> {
        let version = self.version();
        let packed: Vec<Arc<Packed>> = lock(&self.shared.packed)
            .values()
            .filter(|(at, _)| *at == version)
            .map(|(_, packed)| packed.clone())
            .collect();
        let mut holds = true;
        self.each_rows(|piece, rows| {
            see(rows);
            holds &= packed.iter().all(|packed| packed.holds(piece, rows));
        })?;
        Ok(holds)
    }

    /// Calls `f` with the number and the elements of each piece of [`Packed::ROWS`] rows.
    fn each_rows(&self, mut f: impl FnMut(usize, &[f32])) -> Result<()> {
        let width = Shape::of(self.dims()).map_or(self.dims().last().copied().unwrap_or(1), |shape| shape.width);
        let piece = (Packed::ROWS * width).max(1);
        if let Some(source) = self.source() {
            let (count, mut buffer) = (self.elem_count(), Vec::new());
            for (i, start) in (0..count).step_by(piece).enumerate() {
                buffer.resize(piece.min(count - start), 0.0);
                source.read(start, &mut buffer);
                f(i, &buffer);
            }
            return Ok(());
        }
        let tensor = self.tensor();
        let mut all = |elements: &[f32]| elements.chunks(piece).enumerate().for_each(|(i, rows)| f(i, rows));
        match slices::read([&tensor], |[elements]| all(elements)) {
            Some(()) => Ok(()),
            None => {
                all(&tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?);
                Ok(())
            }
        }
    }

    /// The packed form of this weight's current version, made the first time: once for a frozen weight, once per step for one that
    /// trains. `None` where it is not `f32` on the CPU.
    pub(crate) fn packed(&self, precision: Precision) -> Result<Option<Arc<Packed>>> {
        let Some(shape) = Shape::of(self.dims()) else { return Ok(None) };
        let version = self.version();
        let mut cache = lock(&self.shared.packed);
        if let Some((at, packed)) = cache.get(&precision)
            && *at == version
        {
            return Ok(Some(packed.clone()));
        }
        if self.source().is_none() && !slices::is_f32_slice(&self.tensor()) {
            return Ok(None);
        }
        // The memory of the last version's is used again.
        let old = cache.remove(&precision).and_then(|(_, old)| Arc::into_inner(old));
        let packed = match self.packed_codes(shape, precision, |_, _| {}) {
            Some(packed) => packed,
            None => {
                let mut packed = Packed::new(shape, precision, old);
                self.each_rows(|_, rows| packed.push(rows))?;
                packed
            }
        };
        let packed = Arc::new(packed);
        cache.insert(precision, (version, packed.clone()));
        Ok(Some(packed))
    }

    /// A tensor that follows from this parameter and others, made by `make` where `key`, which tells their versions, is not the
    /// last one. Other threads wait for it, so `make` must not wait for them.
    pub(crate) fn derived(&self, key: Vec<u64>, make: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        let mut last = lock(&self.shared.derived);
        if let Some((known, tensor)) = &*last
            && *known == key
        {
            return Ok(tensor.clone());
        }
        let tensor = make()?;
        *last = Some((key, tensor.clone()));
        Ok(tensor)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parameter({} {:?})", self.name(), self.dims())
    }
}
