//! The dynamic section of a library: its entries, and the names and symbols that they lead to.

use object::LittleEndian as LE;
use object::ReadRef;
use object::elf::{self, Dyn64, DynamicTag, Sym64};

use super::layout::Layout;
use super::refusal::{Refusal, damaged};

/// What the dynamic section says, its names and its symbols, all of them within the file.
#[derive(Debug)]
pub(super) struct Dynamic<'a> {
    entries: Vec<(DynamicTag, u64)>,
    strings: &'a [u8],
    /// The symbols that the hash table leads to, and those before them.
    pub(super) symbols: &'a [Sym64<LE>],
}

impl<'a> Dynamic<'a> {
    /// Reads and checks the dynamic section.
    pub(super) fn read<R: ReadRef<'a>>(layout: &Layout<R>) -> Result<Self, Refusal> {
        let (address, room) = layout.dynamic;
        let Some(all) = layout.slice::<Dyn64<LE>>(address, room) else {
            return damaged("its dynamic section lies outside the file");
        };
        let entries = all.iter().map(|entry| (entry.d_tag.get(LE), entry.d_val.get(LE)));
        let entries: Vec<(DynamicTag, u64)> = entries.take_while(|entry| entry.0 != elf::DT_NULL).collect();
        // The loader reads on until it finds the end.
        if entries.len() == all.len() {
            return damaged("its dynamic section has no end");
        }
        let mut dynamic = Self { entries, strings: &[], symbols: &[] };
        dynamic.read_strings(layout)?;
        dynamic.read_symbols(layout)?;
        Ok(dynamic)
    }

    /// The value of an entry; of two the loader takes the last.
    pub(super) fn value(&self, tag: DynamicTag) -> Option<u64> {
        self.entries.iter().rev().find(|entry| entry.0 == tag).map(|entry| entry.1)
    }

    /// Whether this is the place of a name: names end, and the last one does too.
    pub(super) fn is_name(&self, at: impl Into<u64>) -> bool {
        at.into() < self.strings.len() as u64
    }

    /// Whether it says that it needs the library whose name stands there.
    pub(super) fn needs(&self, at: u32) -> bool {
        let wanted = self.name(at.into());
        let mut needed = self.entries.iter().filter(|entry| entry.0 == elf::DT_NEEDED);
        wanted.is_some() && needed.any(|entry| self.name(entry.1) == wanted)
    }

    fn name(&self, at: u64) -> Option<&'a [u8]> {
        self.strings.get(usize::try_from(at).ok()?..)?.split(|&byte| byte == 0).next()
    }

    fn read_strings<R: ReadRef<'a>>(&mut self, layout: &Layout<R>) -> Result<(), Refusal> {
        const NAMES: [DynamicTag; 8] = [
            elf::DT_NEEDED,
            elf::DT_SONAME,
            elf::DT_RPATH,
            elf::DT_RUNPATH,
            elf::DT_AUDIT,
            elf::DT_DEPAUDIT,
            elf::DT_AUXILIARY,
            elf::DT_FILTER,
        ];
        let place = self.value(elf::DT_STRTAB).zip(self.value(elf::DT_STRSZ));
        let strings = place.and_then(|(at, size)| layout.bytes(at, size));
        let Some(strings) = strings.filter(|strings| strings.last() == Some(&0)) else {
            return damaged("its names lie outside its segments");
        };
        self.strings = strings;
        let outside = self.entries.iter().any(|&(tag, value)| NAMES.contains(&tag) && !self.is_name(value));
        if outside { damaged("a name in its dynamic section lies outside its names") } else { Ok(()) }
    }

    fn read_symbols<R: ReadRef<'a>>(&mut self, layout: &Layout<R>) -> Result<(), Refusal> {
        if self.value(elf::DT_SYMENT) != Some(size_of::<Sym64<LE>>() as u64) {
            return damaged("its symbols have another size");
        }
        // The loader takes the first where there are both.
        let count = match (self.value(elf::DT_GNU_HASH), self.value(elf::DT_HASH)) {
            (Some(at), _) => count_by_gnu_hash(layout, at),
            (None, Some(at)) => count_by_hash(layout, at),
            (None, None) => return damaged("it has no table of its symbols' hashes"),
        };
        let Some(count) = count else { return damaged("its table of symbols' hashes leads outside of itself") };
        let symbols = self.value(elf::DT_SYMTAB).and_then(|at| layout.slice(at, count));
        let Some(symbols) = symbols else { return damaged("its symbols lie outside its segments") };
        self.symbols = symbols;
        if !symbols.iter().all(|symbol| self.is_name(symbol.st_name.get(LE))) {
            return damaged("a symbol's name lies outside its names");
        }
        if !symbols.iter().all(|symbol| lies_well(layout, symbol)) {
            return damaged("a symbol lies outside its segments");
        }
        Ok(())
    }
}

/// Whether a symbol that is defined here is where something of its kind can be.
fn lies_well<'a, R: ReadRef<'a>>(layout: &Layout<R>, symbol: &Sym64<LE>) -> bool {
    let at = symbol.st_value.get(LE);
    match symbol.st_type() {
        _ if symbol.st_shndx.get(LE).is_special() => true,
        elf::STT_FUNC | elf::STT_GNU_IFUNC => layout.is_code(at),
        elf::STT_OBJECT => layout.holds(at, symbol.st_size.get(LE)),
        _ => true,
    }
}

/// How many symbols there are by a table of GNU's form: a filter, buckets, and for each symbol its hash, of which a bit ends a bucket's.
/// `None` where it leads outside of the file.
fn count_by_gnu_hash<'a, R: ReadRef<'a>>(layout: &Layout<R>, at: u64) -> Option<u64> {
    let &[buckets, first, words, _] = layout.one::<[u32; 4]>(at)?;
    // The loader takes the number of words less one for a mask.
    if !words.is_power_of_two() {
        return None;
    }
    let filter = at + size_of::<[u32; 4]>() as u64;
    layout.slice::<u64>(filter, words.into())?;
    let table = filter + 8 * u64::from(words);
    let hashes = table + 4 * u64::from(buckets);
    let last = layout.slice::<u32>(table, buckets.into())?.iter().copied().max().unwrap_or(0);
    let begins = |bucket: &u32| *bucket == 0 || *bucket >= first;
    if !layout.slice::<u32>(table, buckets.into())?.iter().all(begins) {
        return None;
    }
    if last == 0 {
        return Some(first.into());
    }
    let mut symbol = u64::from(last);
    while layout.one::<u32>(hashes + 4 * (symbol - u64::from(first)))? & 1 == 0 {
        symbol += 1;
    }
    Some(symbol + 1)
}

/// How many symbols there are by a table of the older form: buckets and chains of symbols. `None` where it leads outside of itself, or
/// round in circles.
fn count_by_hash<'a, R: ReadRef<'a>>(layout: &Layout<R>, at: u64) -> Option<u64> {
    let &[buckets, count] = layout.one::<[u32; 2]>(at)?;
    let heads = layout.slice::<u32>(at + 8, buckets.into())?;
    let next = layout.slice::<u32>(at + 8 + 4 * u64::from(buckets), count.into())?;
    // Every symbol is in one chain, so all of them together have no more steps than there are symbols.
    let mut steps = 0;
    for head in heads {
        let mut symbol = *head;
        while symbol != 0 {
            symbol = *next.get(symbol as usize)?;
            steps += 1;
            if steps > count {
                return None;
            }
        }
    }
    Some(count.into())
}
