//! Files of `torch.save`: a ZIP archive that is not packed, since PyTorch 1.6, and before that pickles one after the other with the
//! storages behind them. Nothing in them is run (`pickle`), and tensors are read where they lie.

use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read};
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use super::entry::Entry;
use super::pickle::{Pickle, Refusal, size};

/// How a ZIP archive begins.
const ZIP: &[u8] = b"PK\x03\x04";
/// How the legacy form begins: protocol 2, and its magic number, 0x1950a86a20f9469cfc6c, as a number of ten bytes.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
/// The legacy form's version.
const PROTOCOL: i64 = 1001;
/// Bytes of a pickle in an archive.
const LONGEST: u64 = 1 << 28;

/// Whether bytes begin as a file of `torch.save`, or another pickle. A safetensors file begins with a length of eight bytes, the last of
/// which are zero.
pub(super) fn is(bytes: &[u8]) -> bool {
    let pickle = matches!(bytes, [0x80, 2..=5, rest @ ..] if rest.iter().take(6).any(|&byte| byte != 0));
    bytes.starts_with(ZIP) || pickle
}

/// The tensors of a file, by name, and where they lie.
///
/// # Errors
/// Where it is damaged, or holds what is not read; the text follows `it`.
pub(super) fn entries(bytes: &[u8]) -> Result<BTreeMap<String, Entry>, Refusal> {
    match bytes.starts_with(ZIP) {
        true => of_archive(bytes),
        false => of_legacy(bytes),
    }
}

fn of_archive(bytes: &[u8]) -> Result<BTreeMap<String, Entry>, Refusal> {
    let damaged = |error: zip::result::ZipError| format!("is no archive that can be read: {error}");
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(damaged)?;
    let mut names = archive.file_names().flatten();
    let pickle = names.find(|name| name.ends_with("/data.pkl") || name == "data.pkl").map(|name| name.into_owned());
    drop(names);
    let pickle = pickle.ok_or("is a ZIP archive without data.pkl, and no file of torch.save")?;
    let folder = pickle[..pickle.len() - "data.pkl".len()].to_owned();
    let mut program = Vec::new();
    let stored = archive.by_name(&pickle).map_err(damaged)?;
    stored.take(LONGEST).read_to_end(&mut program).map_err(|error| format!("cannot be unpacked: {error}"))?;
    let mut order = String::new();
    if let Ok(stored) = archive.by_name(&format!("{folder}byteorder")) {
        stored.take(16).read_to_string(&mut order).map_err(|error| format!("cannot be unpacked: {error}"))?;
    }
    if order == "big" {
        return Err("has numbers with the high byte first; save it on the machine that it is used on".into());
    }
    let tensors = Pickle::read(&program)?.state_dict()?;
    let mut places: HashMap<String, Range<usize>> = HashMap::new();
    let mut found = BTreeMap::new();
    for (name, tensor) in tensors {
        let key = &tensor.storage.key;
        let place = match places.get(key) {
            Some(place) => place.clone(),
            None => {
                let stored = archive.by_name(&format!("{folder}data/{key}")).map_err(damaged)?;
                if stored.compression() != CompressionMethod::Stored {
                    return Err(format!("has packed tensors ({name}); torch.save does not pack them"));
                }
                let start = stored.data_start().ok_or("is an archive whose entries lie nowhere")? as usize;
                let place = start..start.saturating_add(stored.size() as usize);
                places.insert(key.clone(), place.clone());
                place
            }
        };
        found.insert(name.clone(), Entry::of(&name, &tensor, place, bytes.len())?);
    }
    Ok(found)
}

fn of_legacy(bytes: &[u8]) -> Result<BTreeMap<String, Entry>, Refusal> {
    if !bytes.starts_with(LEGACY) {
        return Err(
            "is a pickle that torch.save did not write; save model.state_dict() by torch.save, or as safetensors"
                .into(),
        );
    }
    let mut at = LEGACY.len();
    let mut next = || {
        let pickle = Pickle::read(bytes.get(at..).unwrap_or_default())?;
        at += pickle.length;
        Ok::<_, Refusal>(pickle)
    };
    let version = next()?;
    if version.number() != Some(PROTOCOL) {
        return Err(format!("is of a version that PyTorch never wrote: {:?}", version.number()));
    }
    if next()?.truth("little_endian") == Some(false) {
        return Err("has numbers with the high byte first; save it on the machine that it is used on".into());
    }
    let program = next()?;
    let tensors = program.state_dict()?;
    let keys = next()?;
    let keys = keys.texts().ok_or("does not say in which order its storages lie")?;
    // Each storage: the number of its elements, and these.
    let sizes: HashMap<&str, usize> =
        program.storages().map(|storage| (storage.key.as_str(), size(storage.dtype))).collect();
    let mut places: HashMap<&str, Range<usize>> = HashMap::new();
    for key in keys {
        let cut = || format!("ends within its storages: it has {} bytes only", bytes.len());
        let length =
            bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes).ok_or_else(cut)?;
        let size = sizes.get(key).ok_or("has a storage that no tensor is in")?;
        let bytes_of = usize::try_from(length).ok().and_then(|length| length.checked_mul(*size)).ok_or_else(cut)?;
        let end = (at + 8).checked_add(bytes_of).filter(|&end| end <= bytes.len()).ok_or_else(cut)?;
        places.insert(key, at + 8..end);
        at = end;
    }
    let mut found = BTreeMap::new();
    for (name, tensor) in &tensors {
        let place =
            places.get(tensor.storage.key.as_str()).ok_or_else(|| format!("has no storage of the tensor {name}"))?;
        found.insert(name.clone(), Entry::of(name, tensor, place.clone(), bytes.len())?);
    }
    Ok(found)
}
