//! How a library will lie in memory, by its program headers: what the loader maps, and which of the file's bytes stand at an address.
//!
//! What is refused here and in [`super::dynamic`] is what glibc's loader takes on trust (`elf/dl-load.c`, `elf/get-dynamic-info.h`,
//! `elf/dl-reloc.c`, `elf/dl-version.c`): it would read or write outside the mapping, or end the process by an assertion.

use object::LittleEndian as LE;
use object::elf::{self, FileHeader64, ProgramHeader64, ProgramType};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Pod, ReadRef};

use super::refusal::{Refusal, cut_off, damaged};

/// The least page of the machines that this host runs on; segments are mapped by pages.
const PAGE: u64 = 4096;
/// Addresses that a library may take up, its empty ones among them.
const MOST: u64 = 4 << 30;
/// Bytes of thread-local variables that a library may have.
const MOST_TLS: u64 = 16 << 20;

/// A segment that is mapped.
#[derive(Clone, Copy, Debug)]
struct Mapped {
    address: u64,
    /// Bytes in memory; those beyond `in_file` are zeros.
    size: u64,
    offset: u64,
    in_file: u64,
    flags: elf::ProgramFlags,
}

impl Mapped {
    fn holds(&self, address: u64, size: u64) -> bool {
        within(address, size, self.address, self.size)
    }
}

fn within(address: u64, size: u64, from: u64, len: u64) -> bool {
    address >= from && address.checked_add(size).is_some_and(|end| end <= from + len)
}

/// The segments of a library, and its bytes.
#[derive(Clone, Debug)]
pub(super) struct Layout<R> {
    data: R,
    mapped: Vec<Mapped>,
    /// Address of the dynamic entries, and how many there is room for.
    pub(super) dynamic: (u64, u64),
}

impl<'a, R: ReadRef<'a>> Layout<R> {
    /// Reads and checks the program headers.
    pub(super) fn read(header: &FileHeader64<LE>, data: R) -> Result<Self, Refusal> {
        let Ok(headers) = header.program_headers(LE, data) else { return cut_off() };
        let mut mapped: Vec<Mapped> = Vec::new();
        for header in headers.iter().filter(|header| header.p_type(LE) == elf::PT_LOAD) {
            let segment = segment(header)?;
            // The loader takes the first and the last for the extent of all.
            if mapped.last().is_some_and(|last| last.address + last.size > segment.address) {
                return damaged("its segments overlap, or do not ascend");
            }
            mapped.push(segment);
        }
        let (Some(first), Some(last)) = (mapped.first(), mapped.last()) else {
            return damaged("it has no segment to load");
        };
        if last.address + last.size - first.address > MOST {
            return damaged("it takes up more than 4 GB of addresses");
        }
        let mut layout = Self { data, mapped, dynamic: (0, 0) };
        layout.check_others(header, headers)?;
        Ok(layout)
    }

    /// The program headers that say where something lies in what is mapped.
    fn check_others(&mut self, file: &FileHeader64<LE>, headers: &[ProgramHeader64<LE>]) -> Result<(), Refusal> {
        for header in headers {
            let (address, in_file, size) = (header.p_vaddr(LE), header.p_filesz(LE), header.p_memsz(LE));
            match header.p_type(LE) {
                elf::PT_DYNAMIC => {
                    let entries = in_file / size_of::<elf::Dyn64<LE>>() as u64;
                    let there = self.bytes(address, in_file).is_some() && self.holds(address, size);
                    if self.dynamic.1 > 0 || entries == 0 || !there {
                        return damaged("its dynamic section lies outside its segments");
                    }
                    // The loader writes to it where this header says so.
                    if header.p_flags(LE).contains(elf::PF_W) && !self.writable(address, in_file) {
                        return damaged("its dynamic section cannot be written to");
                    }
                    self.dynamic = (address, entries);
                }
                elf::PT_PHDR => {
                    let lies_there = self.offset(address, size) == Some(file.e_phoff(LE));
                    if !lies_there || size != size_of_val(headers) as u64 {
                        return damaged("its program headers are not where they say");
                    }
                }
                elf::PT_TLS if size > 0 => {
                    let aligned = alignment(header).is_some_and(|align| align <= PAGE);
                    if !aligned || in_file > size || size > MOST_TLS || (in_file > 0 && !self.holds(address, in_file)) {
                        return damaged("its thread-local variables lie outside its segments");
                    }
                }
                elf::PT_GNU_RELRO if size > 0 => {
                    let of = |segment: &&Mapped| segment.flags.contains(elf::PF_W) && segment.holds(address, 0);
                    let end = self.mapped.iter().find(of).map(|s| (s.address + s.size).next_multiple_of(PAGE));
                    if end.zip(address.checked_add(size)).is_none_or(|(end, it)| it > end) {
                        return damaged("what becomes read-only lies outside its segments");
                    }
                }
                kind @ (elf::PT_NOTE | elf::PT_GNU_PROPERTY | elf::PT_GNU_EH_FRAME)
                    if size > 0 && !self.holds(address, size) =>
                {
                    return damaged(format!("its {} lie outside its segments", named(kind)));
                }
                _ => {}
            }
        }
        if self.dynamic.1 == 0 { damaged("it has no dynamic section") } else { Ok(()) }
    }

    /// Where in the file these addresses are; `None` where not all of them are in it.
    fn offset(&self, address: u64, size: u64) -> Option<u64> {
        let of = |segment: &&Mapped| within(address, size, segment.address, segment.in_file);
        self.mapped.iter().find(of).map(|segment| segment.offset + (address - segment.address))
    }

    /// The file's bytes at these addresses.
    pub(super) fn bytes(&self, address: u64, size: u64) -> Option<&'a [u8]> {
        self.data.read_bytes_at(self.offset(address, size)?, size).ok()
    }

    /// Elements of the file at an address.
    pub(super) fn slice<T: Pod>(&self, address: u64, count: u64) -> Option<&'a [T]> {
        let size = (size_of::<T>() as u64).checked_mul(count)?;
        self.data.read_slice_at(self.offset(address, size)?, usize::try_from(count).ok()?).ok()
    }

    /// An element of the file at an address.
    pub(super) fn one<T: Pod>(&self, address: u64) -> Option<&'a T> {
        self.slice(address, 1)?.first()
    }

    fn any(&self, address: u64, size: u64, wanted: impl Fn(&Mapped) -> bool) -> bool {
        self.mapped.iter().any(|segment| segment.holds(address, size) && wanted(segment))
    }

    /// Whether these addresses are mapped.
    pub(super) fn holds(&self, address: u64, size: u64) -> bool {
        self.any(address, size, |_| true)
    }

    /// Whether these addresses may be written to.
    pub(super) fn writable(&self, address: u64, size: u64) -> bool {
        self.any(address, size, |segment| segment.flags.contains(elf::PF_W))
    }

    /// Whether code may stand at an address.
    pub(super) fn is_code(&self, address: u64) -> bool {
        self.any(address, 1, |segment| segment.flags.contains(elf::PF_X))
    }
}

fn segment(header: &ProgramHeader64<LE>) -> Result<Mapped, Refusal> {
    let (address, offset) = (header.p_vaddr(LE), header.p_offset(LE));
    let (in_file, size) = (header.p_filesz(LE), header.p_memsz(LE));
    if in_file > size || address.checked_add(size).is_none_or(|end| end > 1 << 47) {
        return damaged("a segment has no such size");
    }
    if alignment(header).is_none_or(|align| align < PAGE) || address % PAGE != offset % PAGE {
        return damaged("a segment is not aligned to pages");
    }
    if size > 0 && !header.p_flags(LE).contains(elf::PF_R) {
        return damaged("a segment cannot be read");
    }
    Ok(Mapped { address, size, offset, in_file, flags: header.p_flags(LE) })
}

/// The alignment, where it is one.
fn alignment(header: &ProgramHeader64<LE>) -> Option<u64> {
    Some(header.p_align(LE).max(1)).filter(|align| align.is_power_of_two())
}

fn named(kind: ProgramType) -> &'static str {
    match kind {
        elf::PT_NOTE => "notes",
        elf::PT_GNU_PROPERTY => "properties",
        _ => "tables for unwinding",
    }
}
