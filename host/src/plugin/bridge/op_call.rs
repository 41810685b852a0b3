//! One call of an op: its inputs and attributes, each read as what it is meant to be.

use fthost_autograd::{DType, Map, Result, Tape, Value, Window};
use fthost_plugin_api::abi::tables::dtype;

/// One call of an op.
pub(super) struct Call<'a> {
    pub(super) tape: &'a Tape,
    pub(super) inputs: &'a [Option<Value>],
    pub(super) ints: &'a [i64],
    pub(super) floats: &'a [f64],
}

/// More pixels than a side of any picture or kernel has. Numbers below it can be multiplied by each other, and nothing overflows.
const MOST_OF_A_SIDE: usize = 1 << 20;

impl Call<'_> {
    pub(super) fn x(&self, i: usize) -> Result<&Value> {
        match self.inputs.get(i) {
            Some(Some(value)) => Ok(value),
            _ => candle_core::bail!("input {i} is missing"),
        }
    }

    pub(super) fn optional(&self, i: usize) -> Option<&Value> {
        self.inputs.get(i)?.as_ref()
    }

    /// The first input, whose last dimension is worked over and must have elements.
    pub(super) fn wide(&self) -> Result<&Value> {
        let x = self.x(0)?;
        if matches!(x.dims().last(), None | Some(0)) {
            candle_core::bail!("its last dimension must have elements");
        }
        Ok(x)
    }

    /// A dimension of the first input; a negative one counts from the end.
    pub(super) fn dim(&self, i: usize) -> Result<usize> {
        let (dim, rank) = (self.ints[i], self.x(0)?.dims().len());
        let from_start = if dim < 0 { dim.saturating_add(rank as i64) } else { dim };
        if !(0..rank as i64).contains(&from_start) {
            candle_core::bail!("dimension {dim} is outside a tensor of rank {rank}");
        }
        Ok(from_start as usize)
    }

    pub(super) fn size(&self, i: usize) -> Result<usize> {
        match usize::try_from(self.ints[i]) {
            Ok(size) => Ok(size),
            Err(_) => candle_core::bail!("{} is no size", self.ints[i]),
        }
    }

    /// A number of pixels in one direction, of groups or the like.
    pub(super) fn side(&self, i: usize) -> Result<usize> {
        match self.size(i)? {
            size if size <= MOST_OF_A_SIDE => Ok(size),
            size => candle_core::bail!("{size} is no size of a picture or kernel"),
        }
    }

    /// A place among rows.
    pub(super) fn offset(&self, i: usize) -> Result<u32> {
        match u32::try_from(self.ints[i]) {
            Ok(offset) => Ok(offset),
            Err(_) => candle_core::bail!("{} is no place among rows", self.ints[i]),
        }
    }

    /// How the rows of the first input are pixels: the first two integers are height and width.
    pub(super) fn map(&self) -> Result<Map> {
        let (height, width) = (self.side(0)?, self.side(1)?);
        let rows = match *self.x(0)?.dims() {
            [rows, channels] if channels > 0 => rows,
            ref other => candle_core::bail!("a map has shape [images * height * width, channels], and this {other:?}"),
        };
        match height.checked_mul(width) {
            Some(pixels) if pixels > 0 && rows > 0 && rows % pixels == 0 => Ok(Map::new(rows / pixels, height, width)),
            _ => candle_core::bail!("{rows} rows are no maps of {height} x {width} pixels"),
        }
    }

    /// How the kernel of these weights `[_, _, kh, kw]` moves: the integers after the map's are stride, padding and dilation.
    pub(super) fn window(&self, weight: &Value) -> Result<Window> {
        let [_, _, height, width] = *weight.dims() else {
            candle_core::bail!("a kernel has shape [out, in, height, width], and this one {:?}", weight.dims())
        };
        if height.max(width) > MOST_OF_A_SIDE {
            candle_core::bail!("a kernel of {height} x {width} is larger than any picture");
        }
        let pair = |i: usize| Ok::<_, candle_core::Error>([self.side(i)?, self.side(i + 1)?]);
        let (stride, padding, dilation) = (pair(2)?, pair(4)?.map(|side| [side; 2]), pair(6)?);
        Ok(Window { stride, padding, dilation, ..Window::new([height, width]) })
    }

    /// A number in [0, 1).
    pub(super) fn fraction(&self, i: usize) -> Result<f64> {
        let fraction = self.floats[i];
        if !(0.0..1.0).contains(&fraction) {
            candle_core::bail!("{fraction} is not in [0, 1)");
        }
        Ok(fraction)
    }

    pub(super) fn dtype(&self, i: usize) -> Result<DType> {
        let code = self.ints[i];
        match u32::try_from(code).ok().and_then(dtype_of) {
            Some(dtype) => Ok(dtype),
            None => candle_core::bail!("{code} is the code of no element type"),
        }
    }
}

/// The engine's type of a code.
pub(super) fn dtype_of(code: u32) -> Option<DType> {
    Some(match code {
        dtype::F32 => DType::F32,
        dtype::F64 => DType::F64,
        dtype::U32 => DType::U32,
        dtype::BF16 => DType::BF16,
        dtype::F16 => DType::F16,
        dtype::U8 => DType::U8,
        dtype::I64 => DType::I64,
        _ => return None,
    })
}

/// The code of an engine's type; 0 for one that plugins do not know.
pub(super) fn code_of(of: DType) -> u32 {
    match of {
        DType::F32 => dtype::F32,
        DType::F64 => dtype::F64,
        DType::U32 => dtype::U32,
        DType::BF16 => dtype::BF16,
        DType::F16 => dtype::F16,
        DType::U8 => dtype::U8,
        DType::I64 => dtype::I64,
        _ => 0,
    }
}
