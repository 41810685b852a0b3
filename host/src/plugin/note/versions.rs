//! The versions of symbols: those that a library needs of others, and those that its own symbols have.

use object::LittleEndian as LE;
use object::ReadRef;
use object::elf::{self, Verdaux, Verdef, Vernaux, Verneed};

use super::dynamic::Dynamic;
use super::layout::Layout;
use super::refusal::{Refusal, damaged};

/// The bits of a symbol's version that number it; the other one hides it.
const NUMBER: u16 = 0x7fff;
/// The numbers that need no entry: a symbol of this library alone, and one for all.
const GENERAL: u16 = 1;

/// Checks the lists of versions, and that each symbol's is in one of them: the loader takes it for the place in a table.
pub(super) fn check<'a, R: ReadRef<'a>>(layout: &Layout<R>, dynamic: &Dynamic<'a>) -> Result<(), Refusal> {
    let mut most = GENERAL;
    if let Some(at) = dynamic.value(elf::DT_VERNEED) {
        let Some(highest) = needed(layout, dynamic, at) else {
            return damaged("the versions that it needs do not read");
        };
        most = most.max(highest);
    }
    if let Some(at) = dynamic.value(elf::DT_VERDEF) {
        let Some(highest) = defined(layout, dynamic, at) else {
            return damaged("the versions that it has do not read");
        };
        most = most.max(highest);
    }
    let Some(at) = dynamic.value(elf::DT_VERSYM) else { return Ok(()) };
    let Some(versions) = layout.slice::<u16>(at, dynamic.symbols.len() as u64) else {
        return damaged("the versions of its symbols lie outside its segments");
    };
    // Without either list the loader does not look at them.
    let looked_at = [elf::DT_VERNEED, elf::DT_VERDEF].into_iter().any(|tag| dynamic.value(tag).is_some());
    let known = versions.iter().all(|version| u16::from_le(*version) & NUMBER <= most);
    if known || !looked_at { Ok(()) } else { damaged("a symbol has a version that is in no list") }
}

/// The highest number in the list of what is needed. Every place in it is further on, so it ends.
fn needed<'a, R: ReadRef<'a>>(layout: &Layout<R>, dynamic: &Dynamic<'a>, mut at: u64) -> Option<u16> {
    let mut highest = 0;
    loop {
        let of = layout.one::<Verneed<LE>>(at)?;
        // The loader ends the process where a version is of a library that is not loaded.
        if of.vn_version.get(LE) != elf::VER_NEED_CURRENT || !dynamic.needs(of.vn_file.get(LE)) {
            return None;
        }
        let mut version_at = at + u64::from(of.vn_aux.get(LE));
        loop {
            let version = layout.one::<Vernaux<LE>>(version_at)?;
            if !dynamic.is_name(version.vna_name.get(LE)) {
                return None;
            }
            highest = highest.max(version.vna_other.get(LE).0 & NUMBER);
            match version.vna_next.get(LE) {
                0 => break,
                next => version_at += u64::from(next),
            }
        }
        match of.vn_next.get(LE) {
            0 => return Some(highest),
            next => at += u64::from(next),
        }
    }
}

/// The highest number in the list of what it has.
fn defined<'a, R: ReadRef<'a>>(layout: &Layout<R>, dynamic: &Dynamic<'a>, mut at: u64) -> Option<u16> {
    let mut highest = 0;
    loop {
        let of = layout.one::<Verdef<LE>>(at)?;
        let name = layout.one::<Verdaux<LE>>(at + u64::from(of.vd_aux.get(LE)))?;
        if of.vd_version.get(LE) != elf::VER_DEF_CURRENT || !dynamic.is_name(name.vda_name.get(LE)) {
            return None;
        }
        highest = highest.max(of.vd_ndx.get(LE).0 & NUMBER);
        match of.vd_next.get(LE) {
            0 => return Some(highest),
            next => at += u64::from(next),
        }
    }
}
