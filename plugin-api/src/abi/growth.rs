//! Tables and calls that grow: how those of the other side are read and written, field by field.
//!
//! What the other side made may be shorter than our type, because it is older, or longer, because it is newer. So no reference to one is
//! ever made: a field is read through a raw pointer, one of minor 0 because less is refused at the door, and a later one where the
//! size that its maker wrote reaches it.

use std::{marker::PhantomData, mem::MaybeUninit, ptr::NonNull};

#[cfg(feature = "longer-tables")]
use super::calls::Appended;
use super::{
    calls::{Evaluation, ExamplesCall, Group, HeadCall, HookCall, LogRecord, OpCall, Progress, Rate},
    tables::{
        ABI_MAJOR, BaseVtable, HookVtable, HostApi, PluginApi, RegularizerVtable, SchedulerVtable, StrategyVtable,
        TaskHeadVtable, minor_0,
    },
};
use crate::{Error, Result};

/// A table or call that begins with its size.
///
/// # Safety
/// The type is `repr(C)` and begins with a `u32` that is its size; all-zero bytes are a value of every field.
pub unsafe trait Grows: Sized {
    /// Its name in errors.
    const NAME: &'static str;
    /// Bytes at the minor in which it came, 0 of most: the least that is accepted.
    const MINOR_0: usize;
    /// Bytes at this minor, without what tests append.
    const NOW: usize = Self::MINOR_0;
    /// One that says its size and nothing else: numbers 0, functions null, slices empty.
    const EMPTY: Self = empty();
}

const fn empty<T: Grows>() -> T {
    let mut made = MaybeUninit::<T>::zeroed();
    // SAFETY: by the trait's promise zero is a value of every field, and the size stands first.
    unsafe {
        made.as_mut_ptr().cast::<u32>().write(size_of::<T>() as u32);
        #[cfg(feature = "longer-tables")]
        if size_of::<T>() > T::NOW {
            made.as_mut_ptr().byte_add(T::NOW).cast::<Appended>().write(Appended::MINE);
        }
        made.assume_init()
    }
}

macro_rules! grows {
    ($($type:ident $size:ident $($now:literal)?),+ $(,)?) => {
        $(
            // SAFETY: as its definition says.
            unsafe impl Grows for $type {
                const NAME: &'static str = stringify!($type);
                const MINOR_0: usize = minor_0::$size as usize;
                $(const NOW: usize = $now;)?
            }
            // The type is as long as it was said to be, and what tests append begins where it ended: so no table ends in padding.
            #[cfg(all(target_pointer_width = "64", not(feature = "longer-tables")))]
            const _: () = assert!(size_of::<$type>() == $type::NOW, "not the frozen size");
        )+
        #[cfg(all(target_pointer_width = "64", feature = "longer-tables"))]
        const _: () = {
            $(assert!(size_of::<$type>() == $type::NOW + 16 || matches!(stringify!($type).as_bytes(), b"BaseVtable"));)+
        };
    };
}
// The second number: bytes at this minor, where something was appended since.
grows! {
    HostApi HOST_API 128,
    PluginApi PLUGIN_API,
    BaseVtable BASE_VTABLE,
    StrategyVtable STRATEGY_VTABLE,
    SchedulerVtable SCHEDULER_VTABLE,
    RegularizerVtable REGULARIZER_VTABLE,
    TaskHeadVtable TASK_HEAD_VTABLE 88,
    HookVtable HOOK_VTABLE,
    OpCall OP_CALL,
    LogRecord LOG_RECORD,
    HookCall HOOK_CALL,
    HeadCall HEAD_CALL,
    ExamplesCall EXAMPLES_CALL,
    Progress PROGRESS,
    Group GROUP,
    Rate RATE,
    Evaluation EVALUATION,
}

/// A field: its place, type and name. [`field!`](crate::field) makes one of minor 0, [`later!`](crate::later) one that came after.
pub struct Field<T, F> {
    offset: usize,
    name: &'static str,
    of: PhantomData<fn(&T) -> &F>,
}

impl<T: Grows, F> Field<T, F> {
    /// For the macros alone.
    ///
    /// # Safety
    /// A field of this type stands at this place of `T`.
    #[doc(hidden)]
    pub const unsafe fn new(offset: usize, name: &'static str, _: fn(&T) -> &F) -> Self {
        Self { offset, name, of: PhantomData }
    }

    /// Bytes up to its end.
    #[doc(hidden)]
    pub const fn end(&self) -> usize {
        self.offset + size_of::<F>()
    }
}

/// A field that came after minor 0.
pub struct Later<T, F>(Field<T, F>);

impl<T: Grows, F> Later<T, F> {
    /// For the macro alone.
    #[doc(hidden)]
    pub const fn new(field: Field<T, F>) -> Self {
        Self(field)
    }
}

/// A [`Field`](crate::abi::growth::Field) of minor 0, `field!(HookCall, inputs)`; one that came later does not compile.
#[macro_export]
macro_rules! field {
    ($type:ty, $($field:ident).+) => {
        const {
            #[allow(unused_unsafe, reason = "it may stand in an unsafe block")]
            let field = $crate::__field!($type, $($field).+);
            assert!(field.end() <= <$type as $crate::abi::growth::Grows>::MINOR_0, "it came later: use later!");
            field
        }
    };
}

/// A field that came after minor 0, [`Later`](crate::abi::growth::Later).
#[macro_export]
macro_rules! later {
    ($type:ty, $($field:ident).+) => {
        const {
            #[allow(unused_unsafe, reason = "it may stand in an unsafe block")]
            let field = $crate::__field!($type, $($field).+);
            assert!(field.end() > <$type as $crate::abi::growth::Grows>::MINOR_0, "it is of minor 0: use field!");
            $crate::abi::growth::Later::new(field)
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __field {
    ($type:ty, $($field:ident).+) => {
        // SAFETY: place and type are those of one field.
        unsafe {
            $crate::abi::growth::Field::new(
                ::core::mem::offset_of!($type, $($field).+),
                stringify!($($field).+),
                |table: &$type| &table.$($field).+,
            )
        }
    };
}

/// A table or call of the other side's, to be read. At least as long as at minor 0.
pub struct Theirs<'a, T> {
    at: NonNull<T>,
    lent: PhantomData<&'a ()>,
}

impl<T> Clone for Theirs<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Theirs<'_, T> {}

// SAFETY: its maker does not change it while it is lent, and reading it copies plain words.
unsafe impl<T> Send for Theirs<'_, T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Theirs<'_, T> {}

impl<'a, T: Grows> Theirs<'a, T> {
    /// # Errors
    /// Where it is null, or shorter than at minor 0.
    ///
    /// # Safety
    /// `at` is null, or points to as many bytes as the `u32` there says, laid out as far as they go as `T` is, which stay valid and
    /// unchanged for `'a`.
    pub unsafe fn new(at: *const T) -> Result<Self> {
        let Some(at) = NonNull::new(at.cast_mut()).filter(|at| at.is_aligned()) else {
            return Err(Error::new(format!("there is no {}", T::NAME)));
        };
        let theirs = Self { at, lent: PhantomData };
        if theirs.size() < T::MINOR_0 {
            return Err(Error::new(format!(
                "its {} has {} bytes where plugin ABI {ABI_MAJOR}.0 has {}",
                T::NAME,
                theirs.size(),
                T::MINOR_0
            )));
        }
        #[cfg(feature = "longer-tables")]
        theirs.check_appended()?;
        Ok(theirs)
    }

    /// Of our own making.
    pub const fn ours(table: &'a T) -> Self {
        // SAFETY: a reference is not null.
        Self { at: unsafe { NonNull::new_unchecked(std::ptr::from_ref(table).cast_mut()) }, lent: PhantomData }
    }

    /// Its bytes, as its maker says.
    pub fn size(self) -> usize {
        // SAFETY: the size stands first, and stays for `'a`.
        unsafe { self.at.cast::<u32>().read() as usize }
    }

    /// A field of minor 0.
    pub fn get<F: Copy>(self, field: Field<T, F>) -> F {
        // SAFETY: all of minor 0 is there, as `new` has seen.
        unsafe { self.at.byte_add(field.offset).cast::<F>().read() }
    }

    /// A field that came later; `None` where it is older than that.
    pub fn later<F: Copy>(self, Later(field): Later<T, F>) -> Option<F> {
        // SAFETY: its maker says that it reaches so far.
        (field.end() <= self.size()).then(|| unsafe { self.at.byte_add(field.offset).cast::<F>().read() })
    }

    /// A function that there must be.
    ///
    /// # Errors
    /// Where it is null, by its name.
    pub fn need<F: Copy>(self, field: Field<T, Option<F>>) -> Result<F> {
        let name = field.name;
        self.get(field).ok_or_else(|| Error::new(format!("its {} has no `{name}`", T::NAME)))
    }

    /// A function that came later and that there must be.
    ///
    /// # Errors
    /// Where its maker does not offer it, by its name.
    pub fn need_later<F: Copy>(self, field: Later<T, Option<F>>) -> Result<F> {
        let name = field.0.name;
        self.later(field).flatten().ok_or_else(|| Error::new(format!("its {} is older than `{name}`", T::NAME)))
    }

    /// Where it lies.
    pub fn as_ptr(self) -> *const T {
        self.at.as_ptr()
    }

    /// The part that it begins with.
    ///
    /// # Safety
    /// The first field of `T` is a `U`.
    pub unsafe fn prefix<U: Grows>(self) -> Theirs<'a, U> {
        Theirs { at: self.at.cast(), lent: PhantomData }
    }
}

#[cfg(feature = "longer-tables")]
impl<T: Grows> Theirs<'_, T> {
    /// What is appended is what its maker wrote, or not there at all.
    fn check_appended(self) -> Result<()> {
        let promised = size_of::<T>() == T::NOW; // of a type that tests append nothing to
        if promised || self.size() < T::NOW + size_of::<Appended>() {
            return Ok(());
        }
        // SAFETY: its maker says that it reaches so far, and its kind appends this.
        let appended = unsafe { self.at.byte_add(T::NOW).cast::<Appended>().read() };
        // SAFETY: the function takes nothing and gives a number.
        let called = appended.call.map(|call| unsafe { call() });
        if appended.number == Appended::NUMBER && called == Some(Appended::NUMBER) {
            return Ok(());
        }
        Err(Error::new(format!("what is appended to its {} is not what its maker wrote", T::NAME)))
    }
}

#[cfg(feature = "longer-tables")]
impl Appended {
    /// What tells it from other bytes.
    pub const NUMBER: u64 = 0x1a7e_1a7e_1a7e_1a7e;
    /// What this side appends to all that it makes.
    pub const MINE: Self = Self { number: Self::NUMBER, call: Some(number) };
}

#[cfg(feature = "longer-tables")]
unsafe extern "C" fn number() -> u64 {
    Appended::NUMBER
}

/// A struct of the other side's, to be written.
pub struct Place<'a, T> {
    at: NonNull<T>,
    theirs: Theirs<'a, T>,
}

impl<T: Grows> Place<'_, T> {
    /// # Errors
    /// As [`Theirs::new`].
    ///
    /// # Safety
    /// As [`Theirs::new`], and it may be written.
    pub unsafe fn new(at: *mut T) -> Result<Self> {
        // SAFETY: the caller's promise.
        let theirs = unsafe { Theirs::new(at) }?;
        Ok(Self { at: theirs.at, theirs })
    }

    /// Writes a field of minor 0.
    pub fn set<F: Copy>(&mut self, field: Field<T, F>, value: F) {
        // SAFETY: all of minor 0 is there, as `new` has seen, and may be written.
        unsafe { self.at.byte_add(field.offset).cast::<F>().write(value) }
    }

    /// Writes a field that came later, where there is room; says whether there was.
    pub fn set_later<F: Copy>(&mut self, Later(field): Later<T, F>, value: F) -> bool {
        let reaches = field.end() <= self.theirs.size();
        if reaches {
            // SAFETY: its maker says that it reaches so far, and it may be written.
            unsafe { self.at.byte_add(field.offset).cast::<F>().write(value) }
        }
        reaches
    }
}
