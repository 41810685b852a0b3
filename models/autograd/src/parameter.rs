//! Parameters: named tensors that outlive a step, shared by all tapes.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Result, Tensor};

use crate::kernels::gemm::{PackKey, Packed};

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A named tensor that may train. Clones share it.
#[derive(Clone)]
pub struct Parameter(Arc<Inner>);

struct Inner {
    id: u64,
    name: String,
    tensor: Tensor,
    trainable: AtomicBool,
    version: AtomicU64,
    packed: Mutex<HashMap<PackKey, (u64, Arc<Packed>)>>,
    derived: Mutex<Option<(Vec<u64>, Tensor)>>,
}

impl Parameter {
    /// A parameter over `tensor`, which must be contiguous and not shared with another parameter: it is updated in place.
    pub fn new(name: impl Into<String>, tensor: Tensor, trainable: bool) -> Self {
        Self(Arc::new(Inner {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            name: name.into(),
            tensor: tensor.detach(),
            trainable: AtomicBool::new(trainable),
            version: AtomicU64::new(0),
            packed: Mutex::new(HashMap::new()),
            derived: Mutex::new(None),
        }))
    }

    /// Unique in the process, ascending in the order of creation.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its current value. Updated in place between steps.
    pub fn tensor(&self) -> &Tensor {
        &self.0.tensor
    }

    /// Number of elements.
    pub fn elem_count(&self) -> usize {
        self.0.tensor.elem_count()
    }

    /// Whether tapes record gradients for it.
    pub fn trainable(&self) -> bool {
        self.0.trainable.load(Ordering::Relaxed)
    }

    /// Freezes or thaws. Between steps only.
    pub fn set_trainable(&self, trainable: bool) {
        self.0.trainable.store(trainable, Ordering::Relaxed);
    }

    /// Counts the changes of its value; what was derived from an older version is stale.
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// Says that the tensor was changed in place.
    pub(crate) fn mark_changed(&self) {
        self.0.version.fetch_add(1, Ordering::Release);
    }

    /// Copies `value` over the current one, in place. Errors where the shapes differ.
    pub fn set(&self, value: &Tensor) -> Result<()> {
        if value.dims() != self.tensor().dims() {
            candle_core::bail!(
                "parameter {} has shape {:?}, the new value {:?}",
                self.name(),
                self.tensor().dims(),
                value.dims()
            );
        }
        crate::optim::copy_in_place(self.tensor(), value)?;
        self.mark_changed();
        Ok(())
    }

    /// The packed form of this parameter's current version, made by `pack` the first time: once for a frozen weight, once per
    /// step for one that trains.
    pub(crate) fn packed(&self, key: PackKey, pack: impl FnOnce() -> Result<Packed>) -> Result<Arc<Packed>> {
        let version = self.version();
        let mut cache = self.0.packed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, packed)) = cache.get(&key)
            && *at == version
        {
            return Ok(packed.clone());
        }
        let packed = Arc::new(pack()?);
        cache.insert(key, (version, packed.clone()));
        Ok(packed)
    }

    /// A tensor that follows from this parameter and others, made by `make` where `key`, which tells their versions, is not the
    /// last one. Other threads wait for it, so `make` must not wait for them.
    pub(crate) fn derived(&self, key: Vec<u64>, make: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        let mut last = self.0.derived.lock().unwrap_or_else(PoisonError::into_inner);
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

impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parameter({} {:?})", self.name(), self.tensor().dims())
    }
}
