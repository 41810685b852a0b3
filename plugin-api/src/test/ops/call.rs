//! What an op is called with.

use crate::{DType, Error, Result, test::value::Value};

/// One call: inputs, integers and floats as [`ops`](crate::ops) lists them.
pub(super) struct Call<'a> {
    pub(super) inputs: &'a [Option<Value>],
    pub(super) ints: &'a [i64],
    pub(super) floats: &'a [f64],
}

impl Call<'_> {
    /// An input of any element type.
    pub(super) fn any(&self, i: usize) -> Result<&Value> {
        self.optional(i).ok_or_else(|| Error::new(format!("input {i} is missing")))
    }

    /// A floating input.
    pub(super) fn x(&self, i: usize) -> Result<&Value> {
        let x = self.any(i)?;
        if is_float(x.dtype()) {
            return Ok(x);
        }
        Err(Error::new(format!("input {i} is {:?}, and must be a float: cast it", x.dtype())))
    }

    pub(super) fn optional(&self, i: usize) -> Option<&Value> {
        self.inputs.get(i)?.as_ref()
    }

    /// Indices or classes.
    pub(super) fn indices(&self, i: usize) -> Result<Vec<u32>> {
        let x = self.any(i)?;
        if x.dtype() == DType::U32 {
            return Ok(x.data().iter().map(|&id| id as u32).collect());
        }
        Err(Error::new(format!("input {i} holds indices and must be u32, not {:?}", x.dtype())))
    }

    /// A dimension of the first input; a negative one counts from the end.
    pub(super) fn dim(&self, i: usize) -> Result<usize> {
        let (dim, rank) = (self.ints[i], self.any(0)?.shape().len());
        let from_start = if dim < 0 { dim + rank as i64 } else { dim };
        if (0..rank as i64).contains(&from_start) {
            return Ok(from_start as usize);
        }
        Err(Error::new(format!("dimension {dim} is outside a tensor of rank {rank}")))
    }

    pub(super) fn size(&self, i: usize) -> Result<usize> {
        usize::try_from(self.ints[i]).map_err(|_| Error::new(format!("{} is no size", self.ints[i])))
    }

    /// A number in [0, 1).
    pub(super) fn fraction(&self, i: usize) -> Result<f64> {
        let fraction = self.floats[i];
        if (0.0..1.0).contains(&fraction) {
            Ok(fraction)
        } else {
            Err(Error::new(format!("{fraction} is not in [0, 1)")))
        }
    }
}

pub(super) fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64 | DType::BF16 | DType::F16)
}

/// Of two floating types the one that both fit in; neither half type holds the other, so they meet in `f32`.
pub(super) fn widest(a: DType, b: DType) -> DType {
    match (a, b) {
        _ if a == b => a,
        (DType::F64, _) | (_, DType::F64) => DType::F64,
        _ => DType::F32,
    }
}
