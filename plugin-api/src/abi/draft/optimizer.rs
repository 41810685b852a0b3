//! `ft.optimizer/1`, of a plugin: update rules.
//!
//! A host finds them in the note, as methods of the kind `optimizer`, and makes instances by this table. Values, gradients and states stay
//! the host's: a rule gets them as tensors and gives new ones, which the host writes in place.

use std::ffi::c_void;

use crate::abi::{
    growth::Grows,
    lent::{Slice, SliceMut},
    tables::{BaseVtable, Instance, Status, Str, TextSink},
};

/// The name to ask `PluginApi::get_extension` for.
pub const OPTIMIZER: &str = "ft.optimizer/1";

/// Makes update rules.
#[repr(C)]
pub struct OptimizerExtension {
    /// Bytes of this table.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Makes an instance of a rule from JSON options that fit its schema; its vtable is an [`OptimizerVtable`]. `[run thread]`
    pub create: Option<unsafe extern "C" fn(name: Str, config: Str, out: *mut Instance) -> Status>,
}

/// An [`Optimizer`](crate::Optimizer).
#[repr(C)]
pub struct OptimizerVtable {
    /// Common part.
    pub base: BaseVtable,
    /// `Optimizer::momentum`: writes it. Null for 0. `[run thread]`
    pub momentum: Option<unsafe extern "C" fn(data: *const c_void, out: *mut f64) -> Status>,
    /// `Optimizer::states`: a parameter's name and shape in, JSON `[StateSpec]` out. Null where it keeps none. `[run thread]`
    pub states:
        Option<unsafe extern "C" fn(data: *const c_void, name: Str, shape: Slice<u64>, sink: TextSink) -> Status>,
    /// `Optimizer::step`. `[run thread]`
    pub step: Option<unsafe extern "C" fn(data: *const c_void, call: *const UpdateCall) -> Status>,
}

/// One parameter's update, as [`Update`](crate::Update) says.
#[repr(C)]
pub struct UpdateCall {
    /// Bytes of this call.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// The parameter's name.
    pub name: Str,
    /// Its value. Borrowed.
    pub value: u64,
    /// Its gradient, of its shape. Borrowed.
    pub gradient: u64,
    /// Its states, in the order of `states`. Borrowed.
    pub states: Slice<u64>,
    /// How many updates it has had, this one counted: 1 is the first.
    pub step: u64,
    /// Learning rate.
    pub lr: f64,
    /// Momentum or beta1, as the schedule says.
    pub momentum: f64,
    /// Weight decay; 0 where the parameter gets none.
    pub weight_decay: f64,
    /// Room for the new value and the new states, which pass to the host; 0, as when called, leaves one as it is.
    pub outputs: SliceMut<u64>,
}

// SAFETY: `repr(C)` with its size first; a zero is a value of every field.
unsafe impl Grows for OptimizerExtension {
    const NAME: &'static str = "OptimizerExtension";
    const MINOR_0: usize = size_of::<[u32; 2]>() + size_of::<*const c_void>();
}
// SAFETY: as above; the common part begins with the size.
unsafe impl Grows for OptimizerVtable {
    const NAME: &'static str = "OptimizerVtable";
    const MINOR_0: usize = size_of::<BaseVtable>() + 3 * size_of::<*const c_void>();
}
// SAFETY: as above.
unsafe impl Grows for UpdateCall {
    const NAME: &'static str = "UpdateCall";
    const MINOR_0: usize = size_of::<[u32; 2]>() + 3 * size_of::<Str>() + 6 * size_of::<u64>();
}
