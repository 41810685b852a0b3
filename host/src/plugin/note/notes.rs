//! The notes of a plugin: what it says of itself in its file.

use fthost_plugin_api::abi::tables::{ABI_MAJOR, ABI_MINOR, NOTE_METHOD, NOTE_NAME, NOTE_PLUGIN, NOTE_SECTION};
use fthost_plugin_api::{MethodNote, PluginNote};
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, NoteIterator, SectionHeader};
use object::{LittleEndian as LE, ReadRef};

use super::refusal::{Refusal, refuse};
use crate::plugin::bridge::ops;
use crate::report::text::one_line;

/// Bytes that the notes of a plugin may take: those of a hundred methods take a tenth of it.
const MOST: u64 = 1 << 20;

/// The notes of a plugin that this host can work with.
pub(super) fn read<'a, R: ReadRef<'a>>(
    header: &FileHeader64<LE>,
    data: R,
) -> Result<(PluginNote, Vec<MethodNote>), Refusal> {
    let notes = texts(header, data)?;
    let of_type = |wanted| notes.iter().filter(move |(kind, _)| *kind == wanted).map(|(_, text)| *text);
    let plugin: Vec<&[u8]> = of_type(NOTE_PLUGIN).collect();
    let note = match plugin.as_slice() {
        [] => {
            return refuse(
                "is a shared library but no fthost plugin",
                "a plugin calls `export_plugin!` of fthost-plugin-api in a crate of type cdylib; see examples/",
            );
        }
        [text] => plugin_note(text)?,
        several => {
            return refuse(
                format!("has {} notes about the plugin, and a plugin is one", several.len()),
                "call `export_plugin!` once; crates that a plugin depends on must not call it",
            );
        }
    };
    let methods: Result<Vec<MethodNote>, _> = of_type(NOTE_METHOD).map(serde_json::from_slice).collect();
    let mut methods = match methods {
        Ok(methods) => methods,
        Err(error) => {
            return refuse(format!("has a note about a method that does not read: {error}"), "rebuild the plugin");
        }
    };
    if methods.is_empty() {
        return refuse(
            "has a note about the plugin and none about a method: there is nothing in it to use",
            "add `register!` for each method, beside `export_plugin!`",
        );
    }
    let twice = methods
        .iter()
        .enumerate()
        .find(|(i, method)| methods[..*i].iter().any(|other| other.kind == method.kind && other.name == method.name));
    if let Some((_, method)) = twice {
        return refuse(
            format!("has two notes about the {} {:?}", method.kind, method.name),
            "give each method a name of its own in `register!`",
        );
    }
    methods.iter_mut().for_each(|method| {
        for text in [&mut method.name, &mut method.summary, &mut method.serves] {
            *text = one_line(text).into_owned();
        }
    });
    Ok((note, methods))
}

/// Type and text of each of our notes.
fn texts<'a, R: ReadRef<'a>>(header: &FileHeader64<LE>, data: R) -> Result<Vec<(u32, &'a [u8])>, Refusal> {
    let Ok(sections) = header.sections(LE, data) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for section in sections.iter() {
        if sections.section_name(LE, section) != Ok(NOTE_SECTION.as_bytes()) {
            continue;
        }
        if section.sh_size(LE) > MOST {
            return refuse(format!("has a {NOTE_SECTION} section of more than 1 MB"), "rebuild the plugin");
        }
        let mut read = || -> object::read::Result<()> {
            let text = section.data(LE, data)?;
            let mut notes = NoteIterator::<FileHeader64<LE>>::new(LE, section.sh_addralign(LE), text)?;
            while let Some(note) = notes.next()? {
                if note.name() == NOTE_NAME.as_bytes() {
                    found.push((note.n_type(LE).0, note.desc()));
                }
            }
            Ok(())
        };
        if let Err(error) = read() {
            return refuse(format!("has a damaged {NOTE_SECTION} section: {error}"), "build or copy it again");
        }
    }
    Ok(found)
}

/// The note about the plugin, where this host can work with what it says.
fn plugin_note(text: &[u8]) -> Result<PluginNote, Refusal> {
    /// What a note of any version says.
    #[derive(serde::Deserialize)]
    struct Versions {
        abi_major: u32,
        #[serde(default)]
        abi_minor: u32,
        #[serde(default)]
        min_host_minor: u32,
    }
    let unreadable = |error: serde_json::Error| {
        let message = format!("has a plugin note that does not read: {error}");
        Refusal { message, help: "rebuild the plugin with fthost-plugin-api".to_owned() }
    };
    let versions: Versions = serde_json::from_slice(text).map_err(unreadable)?;
    if versions.abi_major != ABI_MAJOR {
        let help = if versions.abi_major > ABI_MAJOR {
            "update fthost"
        } else {
            "rebuild the plugin with this host's fthost-plugin-api"
        };
        return refuse(
            format!(
                "was built for fthost ABI {}.{}, this host has {ABI_MAJOR}.{ABI_MINOR}",
                versions.abi_major, versions.abi_minor
            ),
            help,
        );
    }
    if versions.min_host_minor > ABI_MINOR {
        return refuse(
            format!("needs fthost ABI {ABI_MAJOR}.{}, this host has {ABI_MAJOR}.{ABI_MINOR}", versions.min_host_minor),
            "update fthost",
        );
    }
    let mut note: PluginNote = serde_json::from_slice(text).map_err(unreadable)?;
    let missing: Vec<&str> = note.ops.iter().map(String::as_str).filter(|op| ops::resolve(op).is_none()).collect();
    if !missing.is_empty() {
        let plural = if missing.len() == 1 { "" } else { "s" };
        return refuse(
            format!("needs the op{plural} {}, which this host does not have", missing.join(", ")),
            "update fthost",
        );
    }
    if note.panic != "unwind" {
        return refuse(
            format!("was built with panic = {:?}: a panic in it would end this process", note.panic),
            "remove `panic` from the plugin's Cargo profile",
        );
    }
    for text in [&mut note.name, &mut note.version, &mut note.license, &mut note.compiler] {
        *text = one_line(text).into_owned();
    }
    Ok(note)
}
