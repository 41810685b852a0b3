//! The C header is generated from the Rust tables; this test says when it is not.
//!
//! `FTHOST_BLESS=1 cargo test -p fthost-plugin-api --test header` writes it anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{collections::HashMap, env, fs, path::Path, process::Command};

use fthost_plugin_api::abi::tables::{NOTE_NAME, NOTE_SECTION, model_call};

/// Prefixes of the constants, by the module they stand in.
const CONSTANTS: &[(&str, &[&str])] = &[
    ("FT_", &["ABI_MAJOR", "ABI_MINOR", "OK", "FAILED", "PANICKED", "NOTE_PLUGIN", "NOTE_METHOD"]),
    ("FT_DTYPE_", &["F32", "F64", "U32", "BF16", "F16", "U8", "I64"]),
    ("FT_KIND_", &["STRATEGY", "SCHEDULER", "REGULARIZER", "TASK_HEAD"]),
    ("FT_HOOK_", &["LINEAR", "BLOCK", "EMBEDDINGS", "ATTENTION"]),
    ("FT_LABELS_", &["SAMPLED", "EMPIRICAL", "EXACT"]),
];

const TYPES: &[&str] = &[
    "Status",
    "Str",
    "TextSink",
    "OpCall",
    "LogRecord",
    "HostApi",
    "HookVtable",
    "HookCall",
    "Instance",
    "PluginApi",
    "BaseVtable",
    "StrategyVtable",
    "SchedulerVtable",
    "RegularizerVtable",
    "HeadCall",
    "TaskHeadVtable",
    "EntryV1",
    "Progress",
    "Group",
    "Rate",
    "Slice_u64",
    "Slice_i64",
    "Slice_f64",
    "Slice_u32",
    "Slice_u8",
    "SliceMut_u64",
    "SliceMut_i64",
];

const TOP: &str = "\
/* The boundary between fthost and its plugins, for plugins in C. Generated from plugin-api/src/abi/tables.rs; the rules
   stand there, the ops in plugin-api/src/ops.rs. */
#ifndef FTHOST_PLUGIN_H
#define FTHOST_PLUGIN_H
";

const BOTTOM: &str = "\
#ifdef __cplusplus
extern \"C\"
#endif
/* What a plugin exports; FtEntryV1 says how. */
FtStatus fthost_plugin_entry_v1(const FtHostApi *host, const FtPluginApi **out);

#endif /* FTHOST_PLUGIN_H */
";

/// The constants that cbindgen leaves out: text.
fn texts() -> String {
    let texts = [
        ("FT_NOTE_SECTION", NOTE_SECTION),
        ("FT_NOTE_NAME", NOTE_NAME),
        ("FT_CALL_DESCRIBE", model_call::DESCRIBE),
        ("FT_CALL_SITES", model_call::SITES),
        ("FT_CALL_SET_TRAINABLE", model_call::SET_TRAINABLE),
        ("FT_CALL_PARAM", model_call::PARAM),
        ("FT_CALL_PARAM_INFO", model_call::PARAM_INFO),
        ("FT_CALL_SET_LR_FACTOR", model_call::SET_LR_FACTOR),
        ("FT_CALL_PARAMS", model_call::PARAMS),
        ("FT_CALL_SET_PARAMS", model_call::SET_PARAMS),
        ("FT_CALL_SET_VALUE", model_call::SET_VALUE),
    ];
    texts.map(|(name, text)| format!("#define {name} {text:?}")).join("\n")
}

/// `Slice_u64` as `FtSliceU64`.
fn c_name(name: &str) -> String {
    let (base, element) = name.split_once('_').unwrap_or((name, ""));
    format!("Ft{base}{}", element.to_uppercase())
}

/// Rust's links as plain text: ``[`Event`](crate::Event)`` is `Event` in a C comment.
fn unlink(header: &str) -> String {
    let mut text = String::new();
    for (at, piece) in header.split("](crate::").enumerate() {
        text.push_str(if at == 0 { piece } else { piece.split_once(')').unwrap().1 });
    }
    text.replace("[`", "`").replace("`]", "`")
}

fn generate(root: &Path) -> String {
    let mut config = cbindgen::Config {
        language: cbindgen::Language::C,
        header: Some(TOP.into()),
        after_includes: Some(format!("\n{}", texts())),
        trailer: Some(BOTTOM.into()),
        no_includes: true,
        sys_includes: vec!["stddef.h".into(), "stdint.h".into()],
        usize_is_size_t: true,
        style: cbindgen::Style::Type,
        documentation_style: cbindgen::DocumentationStyle::C,
        ..Default::default()
    };
    let constants = CONSTANTS
        .iter()
        .flat_map(|(prefix, names)| names.iter().map(move |name| (name.to_string(), format!("{prefix}{name}"))));
    let types = TYPES.iter().map(|name| (name.to_string(), c_name(name)));
    config.export.rename = constants.chain(types).collect::<HashMap<_, _>>();
    config.export.include = TYPES.iter().map(ToString::to_string).collect();
    let mut header = Vec::new();
    cbindgen::Builder::new()
        .with_config(config)
        .with_src(root.join("src/abi/tables.rs"))
        .with_src(root.join("src/scheduler.rs"))
        .generate()
        .expect("cbindgen reads the tables")
        .write(&mut header);
    unlink(&String::from_utf8(header).unwrap())
}

#[test]
fn the_header_is_that_of_the_tables() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("include/fthost_plugin.h");
    let header = generate(root);
    if env::var_os("FTHOST_BLESS").is_some() {
        fs::write(&path, &header).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == header, "{} is not what the tables give: run this test with FTHOST_BLESS=1", path.display());
}

#[test]
fn a_c_compiler_takes_the_header() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let check = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", "c"])
        .arg(root.join("include/fthost_plugin.h"))
        .output();
    match check {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => eprintln!("no C compiler here ({error}), so the header was not compiled"),
    }
}
