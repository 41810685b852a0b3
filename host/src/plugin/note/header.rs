//! The header of a file: that it is a shared library for this machine, and whole.

use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{LittleEndian as LE, ReadRef};

use super::refusal::{Refusal, cut_off, refuse};

/// Bytes from which is told what a file is that is no library.
const SHOWN: u64 = 512;

/// The architecture of this process, as ELF and as people name it.
#[cfg(target_arch = "x86_64")]
pub(super) const MACHINE: (u16, &str) = (elf::EM_X86_64.0, "x86-64");
#[cfg(target_arch = "aarch64")]
pub(super) const MACHINE: (u16, &str) = (elf::EM_AARCH64.0, "AArch64");

/// That it is a shared library for this machine.
pub(super) fn check<'a, R: ReadRef<'a>>(data: R) -> Result<&'a FileHeader64<LE>, Refusal> {
    const BUILD: &str = "a plugin is a shared library: cargo build -p NAME makes target/debug/libNAME.so";
    let size = data.len().unwrap_or(0);
    let Ok(bytes) = data.read_bytes_at(0, size.min(SHOWN)) else { return cut_off() };
    if bytes.is_empty() {
        return refuse("is empty", BUILD);
    }
    if !bytes.starts_with(b"\x7fELF") {
        let looks_like_text =
            std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to() > 500, |text| !text.contains('\0'));
        return match bytes {
            [b'M', b'Z', ..] => refuse("is a Windows library, not a Linux shared library", BUILD),
            [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] => refuse("is a macOS library, not a Linux shared library", BUILD),
            _ if looks_like_text => refuse("is a text file, not a shared library", BUILD),
            _ => refuse("is not a shared library (it does not begin as ELF files do)", BUILD),
        };
    }
    if bytes.get(4) == Some(&1) {
        return refuse("is a 32-bit library, and this host has 64 bits", "build the plugin for this machine");
    }
    if bytes.get(5) == Some(&2) {
        return refuse("is a big-endian library, and this host is little-endian", "build the plugin for this machine");
    }
    let header = match FileHeader64::<LE>::parse(data) {
        Ok(header) => header,
        Err(_) if bytes.len() < size_of::<FileHeader64<LE>>() => return cut_off(),
        Err(error) => return refuse(format!("is a damaged ELF file: {error}"), "build or copy it again"),
    };
    let machine = header.e_machine(LE).0;
    if machine != MACHINE.0 {
        let other = match machine {
            62 => "x86-64".to_owned(),
            183 => "AArch64".to_owned(),
            243 => "RISC-V".to_owned(),
            other => format!("machine {other}"),
        };
        return refuse(
            format!("was built for {other}, and this machine is {}", MACHINE.1),
            "build the plugin for this machine",
        );
    }
    if header.e_type(LE) != elf::ET_DYN {
        let what = if header.e_type(LE) == elf::ET_REL { "an object file" } else { "a program" };
        return refuse(format!("is {what}, not a shared library"), BUILD);
    }
    Ok(header)
}

/// That everything the headers name lies in the file: mapping a truncated library ends in SIGBUS.
pub(super) fn check_extents<'a, R: ReadRef<'a>>(header: &FileHeader64<LE>, data: R) -> Result<(), Refusal> {
    let Ok(len) = data.len() else { return cut_off() };
    let outside = |offset: u64, size: u64| offset.checked_add(size).is_none_or(|end| end > len);
    let (Ok(segments), Ok(sections)) = (header.program_headers(LE, data), header.section_headers(LE, data)) else {
        return cut_off();
    };
    let segment_outside = segments.iter().any(|s| outside(s.p_offset(LE), s.p_filesz(LE)));
    let section_outside =
        sections.iter().any(|s| s.sh_type(LE) != elf::SHT_NOBITS && outside(s.sh_offset(LE), s.sh_size(LE)));
    if segment_outside || section_outside { cut_off() } else { Ok(()) }
}
