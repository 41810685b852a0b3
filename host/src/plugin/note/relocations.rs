//! The relocations of a library: where the loader writes, and which symbols and functions it takes for that.

use std::collections::HashSet;

use object::LittleEndian as LE;
use object::ReadRef;
use object::elf::{self, DynamicTag, Rela64};

use super::dynamic::Dynamic;
use super::layout::Layout;
use super::refusal::{Refusal, damaged};

/// Bytes of an address.
const WORD: u64 = 8;

/// The numbers of the kinds of relocations that are looked at: nothing to do, a copy of another library's data, an address of this library's,
/// and what a function of this library's gives.
#[cfg(target_arch = "x86_64")]
mod kind {
    pub(super) const NONE: u32 = 0;
    pub(super) const COPY: u32 = 5;
    pub(super) const RELATIVE: u32 = 8;
    pub(super) const BY_FUNCTION: u32 = 37;
}
#[cfg(target_arch = "aarch64")]
mod kind {
    pub(super) const NONE: u32 = 0;
    pub(super) const COPY: u32 = 1024;
    pub(super) const RELATIVE: u32 = 1027;
    pub(super) const BY_FUNCTION: u32 = 1032;
}

/// Checks all relocations, and the functions that run when the library is loaded.
pub(super) fn check<'a, R: ReadRef<'a>>(layout: &Layout<R>, dynamic: &Dynamic<'a>) -> Result<(), Refusal> {
    let of_other_size = |tag, size: usize| dynamic.value(tag).is_some_and(|it| it != size as u64);
    let plt_has_addends = dynamic.value(elf::DT_PLTREL).is_none_or(|tag| tag == elf::DT_RELA.0.cast_unsigned());
    if of_other_size(elf::DT_RELAENT, size_of::<Rela64<LE>>())
        || of_other_size(elf::DT_RELRENT, size_of::<u64>())
        || !plt_has_addends
    {
        return damaged("its relocations have another form than this machine's");
    }
    let functions = Functions::find(layout, dynamic)?;
    let tables = [
        table(layout, dynamic, elf::DT_RELA, elf::DT_RELASZ)?,
        table(layout, dynamic, elf::DT_JMPREL, elf::DT_PLTRELSZ)?,
    ];
    let relative = dynamic.value(elf::DT_RELACOUNT).unwrap_or(0);
    let first = tables[0].iter().take(usize::try_from(relative).unwrap_or(usize::MAX));
    if relative > tables[0].len() as u64 || !first.into_iter().all(|it| kind_of(it) == kind::RELATIVE) {
        return damaged("its first relocations are not what it says");
    }
    let mut seen = HashSet::new();
    for relocation in tables.into_iter().flatten() {
        check_one(layout, dynamic, relocation)?;
        let (at, to) = (relocation.r_offset.get(LE), relocation.r_addend.get(LE));
        if functions.hold(at) {
            seen.insert(at);
            if kind_of(relocation) == kind::RELATIVE && !layout.is_code(to.cast_unsigned()) {
                return damaged("what it runs when it is loaded is no code");
            }
        }
    }
    for at in packed(layout, dynamic)? {
        if functions.hold(at) {
            seen.insert(at);
            if !layout.one::<u64>(at).is_some_and(|to| layout.is_code(*to)) {
                return damaged("what it runs when it is loaded is no code");
            }
        }
    }
    // An address that nothing relocates is none.
    if seen.len() as u64 == functions.count() { Ok(()) } else { damaged("what it runs when it is loaded is no code") }
}

fn kind_of(relocation: &Rela64<LE>) -> u32 {
    // The lower half.
    relocation.r_info.get(LE) as u32
}

fn writable<'a, R: ReadRef<'a>>(layout: &Layout<R>, dynamic: &Dynamic<'a>, at: u64) -> bool {
    let flags = dynamic.value(elf::DT_FLAGS).unwrap_or(0);
    let code_too = dynamic.value(elf::DT_TEXTREL).is_some() || flags & elf::DF_TEXTREL.0 != 0;
    if code_too { layout.holds(at, WORD) } else { layout.writable(at, WORD) }
}

fn check_one<'a, R: ReadRef<'a>>(
    layout: &Layout<R>,
    dynamic: &Dynamic<'a>,
    relocation: &Rela64<LE>,
) -> Result<(), Refusal> {
    let (at, kind, symbol) = (relocation.r_offset.get(LE), kind_of(relocation), relocation.r_info.get(LE) >> 32);
    if kind == kind::NONE {
        return Ok(());
    }
    if !writable(layout, dynamic, at) {
        return damaged("a relocation lies outside of what can be written to");
    }
    if symbol >= dynamic.symbols.len() as u64 && symbol != 0 {
        return damaged("a relocation is of a symbol that it does not have");
    }
    if kind == kind::COPY {
        return damaged("a relocation copies data into it, as programs have them only");
    }
    if kind == kind::BY_FUNCTION && !layout.is_code(relocation.r_addend.get(LE).cast_unsigned()) {
        return damaged("a relocation calls what is no code");
    }
    Ok(())
}

/// The relocations of a table.
fn table<'a, R: ReadRef<'a>>(
    layout: &Layout<R>,
    dynamic: &Dynamic<'a>,
    at: DynamicTag,
    size: DynamicTag,
) -> Result<&'a [Rela64<LE>], Refusal> {
    let (Some(at), Some(size)) = (dynamic.value(at), dynamic.value(size)) else {
        // A size without a table, or a table without a size, is read from address 0 or not at all.
        let neither = dynamic.value(at).is_none() && dynamic.value(size).is_none_or(|size| size == 0);
        return if neither { Ok(&[]) } else { damaged("a table of relocations has no place or no size") };
    };
    let one = size_of::<Rela64<LE>>() as u64;
    let found = layout.slice(at, size / one).filter(|_| size % one == 0);
    found.map_or_else(|| damaged("its relocations lie outside its segments"), Ok)
}

/// The addresses of packed relocations: an address, then words of which each bit stands for one of the next 63.
fn packed<'a, R: ReadRef<'a>>(layout: &Layout<R>, dynamic: &Dynamic<'a>) -> Result<Vec<u64>, Refusal> {
    let (Some(at), Some(size)) = (dynamic.value(elf::DT_RELR), dynamic.value(elf::DT_RELRSZ)) else {
        return Ok(Vec::new());
    };
    let Some(words) = layout.slice::<u64>(at, size / WORD) else {
        return damaged("its relocations lie outside its segments");
    };
    let (mut found, mut next) = (Vec::new(), 0_u64);
    for &word in words {
        if word & 1 == 0 {
            found.push(word);
            next = word.wrapping_add(WORD);
        } else {
            let bits = (0..63).filter(|bit| word >> (bit + 1) & 1 == 1);
            found.extend(bits.map(|bit| next.wrapping_add(bit * WORD)));
            next = next.wrapping_add(63 * WORD);
        }
    }
    let inside = found.iter().all(|&at| writable(layout, dynamic, at));
    if inside { Ok(found) } else { damaged("a relocation lies outside of what can be written to") }
}

/// Where the addresses stand of the functions that run when the library is loaded and when the process ends.
struct Functions {
    /// Address and bytes of each list.
    lists: [(u64, u64); 2],
}

impl Functions {
    fn find<'a, R: ReadRef<'a>>(layout: &Layout<R>, dynamic: &Dynamic<'a>) -> Result<Self, Refusal> {
        let list = |at, size| {
            let (at, size) = (dynamic.value(at).unwrap_or(0), dynamic.value(size).unwrap_or(0));
            let well = size == 0 || (size % WORD == 0 && at % WORD == 0 && layout.bytes(at, size).is_some());
            if well { Ok((at, size)) } else { damaged("the functions that it runs lie outside its segments") }
        };
        let lists = [list(elf::DT_INIT_ARRAY, elf::DT_INIT_ARRAYSZ)?, list(elf::DT_FINI_ARRAY, elf::DT_FINI_ARRAYSZ)?];
        let single = [elf::DT_INIT, elf::DT_FINI].into_iter().filter_map(|tag| dynamic.value(tag));
        if !single.into_iter().all(|at| layout.is_code(at)) {
            return damaged("what it runs when it is loaded is no code");
        }
        Ok(Self { lists })
    }

    fn hold(&self, at: u64) -> bool {
        self.lists.iter().any(|&(from, size)| at >= from && at < from + size)
    }

    /// How many there are.
    fn count(&self) -> u64 {
        self.lists.iter().map(|(_, size)| size / WORD).sum()
    }
}
