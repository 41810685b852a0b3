//! The C header is generated from the Rust tables; this test says when it is not.
//!
//! `FTHOST_BLESS=1 cargo test -p fthost-plugin-api --test header` writes it anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{collections::HashMap, env, fs, path::Path, process::Command};

use fthost_plugin_api::abi::draft::{about::ABOUT_DRAFT, optimizer::OPTIMIZER, run::RUN_DRAFT};
use fthost_plugin_api::abi::tables::{NOTE_NAME, NOTE_SECTION, model_call};

/// Prefixes of the constants, by the module they stand in.
const CONSTANTS: &[(&str, &[&str])] = &[
    ("FT_", &["ABI_MAJOR", "ABI_MINOR", "OK", "FAILED", "PANICKED", "NOTE_PLUGIN", "NOTE_METHOD"]),
    ("FT_DTYPE_", &["F32", "F64", "U32", "BF16", "F16", "U8", "I64"]),
    ("FT_KIND_", &["STRATEGY", "SCHEDULER", "REGULARIZER", "TASK_HEAD", "OPTIMIZER"]),
    ("FT_HOOK_", &["LINEAR", "BLOCK", "EMBEDDINGS", "ATTENTION"]),
    ("FT_LABELS_", &["SAMPLED", "EMPIRICAL", "EXACT", "SQUARED_OUTPUT_NORM"]),
    (
        "FT_MINOR_0_",
        &[
            "HOST_API",
            "PLUGIN_API",
            "BASE_VTABLE",
            "STRATEGY_VTABLE",
            "SCHEDULER_VTABLE",
            "REGULARIZER_VTABLE",
            "TASK_HEAD_VTABLE",
            "HOOK_VTABLE",
            "OP_CALL",
            "LOG_RECORD",
            "HOOK_CALL",
            "HEAD_CALL",
            "PROGRESS",
            "GROUP",
            "RATE",
            "EVALUATION",
            "EXAMPLES_CALL",
        ],
    ),
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
    "ExamplesCall",
    "TaskHeadVtable",
    "EntryV1",
    "Progress",
    "Group",
    "Rate",
    "Evaluation",
    "Slice_u64",
    "Slice_i64",
    "Slice_f64",
    "Slice_u32",
    "Slice_u8",
    "Slice_Slice_u32",
    "SliceMut_u64",
    "SliceMut_i64",
];

const TOP: &str = "\
/* The boundary between fthost and its plugins, for plugins in C. Generated from plugin-api/src/abi/tables.rs and calls.rs; the
   rules stand in the first, the ops in plugin-api/src/ops.rs. */
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
        ("FT_CALL_TRAINABLE", model_call::TRAINABLE),
        ("FT_CALL_GRADIENT", model_call::GRADIENT),
        ("FT_CALL_LOG_SCALAR", model_call::LOG_SCALAR),
    ];
    texts.map(|(name, text)| format!("#define {name} {text:?}")).join("\n")
}

/// `Slice_u64` as `FtSliceU64`, `Slice_Slice_u32` as `FtSliceSliceU32`.
fn c_name(name: &str) -> String {
    let parts = name.split('_').map(|part| part[..1].to_uppercase() + &part[1..]);
    format!("Ft{}", parts.collect::<String>())
}

/// Without what only tests append: what stands in `#if defined(FT_LONGER_TABLES)`.
fn without_longer(header: &str) -> String {
    let (mut text, mut skips, mut inside) = (String::new(), false, false);
    for line in header.lines() {
        match line.trim() {
            "#if defined(FT_LONGER_TABLES)" => (inside, skips) = (true, true),
            "#if !defined(FT_LONGER_TABLES)" => inside = true,
            "#endif" if inside => (inside, skips) = (false, false),
            _ if skips => {}
            _ => text += &format!("{line}\n"),
        }
    }
    // A condition leaves an empty line beside its own.
    while text.contains("\n\n\n") {
        text = text.replace("\n\n\n", "\n\n");
    }
    text.replace(";\n\n}", ";\n}").replace(";\n\n  /**", ";\n  /**")
}

/// Rust's links as plain text: ``[`Event`](crate::Event)`` is `Event` in a C comment.
fn unlink(header: &str) -> String {
    let mut text = String::new();
    for (at, piece) in header.split("](crate::").enumerate() {
        text.push_str(if at == 0 { piece } else { piece.split_once(')').unwrap().1 });
    }
    text.replace("[`", "`").replace("`]", "`")
}

fn config(top: &str, bottom: &str) -> cbindgen::Config {
    let mut config = cbindgen::Config {
        language: cbindgen::Language::C,
        header: Some(top.into()),
        trailer: Some(bottom.into()),
        no_includes: true,
        usize_is_size_t: true,
        style: cbindgen::Style::Type,
        documentation_style: cbindgen::DocumentationStyle::C,
        ..Default::default()
    };
    config.defines.insert("feature = longer-tables".into(), "FT_LONGER_TABLES".into());
    config
}

fn generate(root: &Path) -> String {
    let mut config = cbindgen::Config {
        after_includes: Some(format!("\n{}", texts())),
        sys_includes: vec!["stddef.h".into(), "stdint.h".into()],
        ..config(TOP, BOTTOM)
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
        .with_src(root.join("src/abi/lent.rs"))
        .with_src(root.join("src/abi/tables.rs"))
        .with_src(root.join("src/abi/calls.rs"))
        .generate()
        .expect("cbindgen reads the tables")
        .write(&mut header);
    without_longer(&unlink(&String::from_utf8(header).unwrap()))
}

/// The header of a draft: the file `src/abi/draft/NAME.rs`, its types and the name by which it is asked for.
fn generate_draft(root: &Path, name: &str, tables: &[&str], id: &str) -> String {
    let guard = format!("FTHOST_DRAFT_{}_H", name.to_uppercase());
    let top = format!(
        "/* A draft: an extension that is tried and not promised; see plugin-api/src/abi/draft/mod.rs. Generated from {name}.rs there. */\n\
         #ifndef {guard}\n#define {guard}\n\n#include \"../fthost_plugin.h\"\n"
    );
    let mut config = cbindgen::Config {
        after_includes: Some(format!("\n#define FT_DRAFT_{} {id:?}", name.to_uppercase())),
        ..config(&top, &format!("#endif /* {guard} */\n"))
    };
    let known = tables.iter().chain(TYPES);
    config.export.rename = known.map(|name| ((*name).to_owned(), c_name(name))).collect();
    config.export.include = tables.iter().map(ToString::to_string).collect();
    let mut header = Vec::new();
    cbindgen::Builder::new()
        .with_config(config)
        .with_src(root.join(format!("src/abi/draft/{name}.rs")))
        .generate()
        .expect("cbindgen reads the draft")
        .write(&mut header);
    // The slices are those of the boundary's own header.
    let slices =
        |text: String| text.replace("SliceMut<uint64_t>", "FtSliceMutU64").replace("Slice<uint64_t>", "FtSliceU64");
    slices(unlink(&String::from_utf8(header).unwrap()))
}

/// Each header's file below `include/`, and what it must be.
fn headers(root: &Path) -> [(&'static str, String); 4] {
    [
        ("fthost_plugin.h", generate(root)),
        ("draft/run.h", generate_draft(root, "run", &["RunDraft"], RUN_DRAFT)),
        ("draft/about.h", generate_draft(root, "about", &["AboutDraft"], ABOUT_DRAFT)),
        (
            "draft/optimizer.h",
            generate_draft(root, "optimizer", &["OptimizerExtension", "OptimizerVtable", "UpdateCall"], OPTIMIZER),
        ),
    ]
}

#[test]
fn the_headers_are_those_of_the_tables() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (file, header) in headers(root) {
        let path = root.join("include").join(file);
        if env::var_os("FTHOST_BLESS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &header).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == header, "{} is not what the tables give: run this test with FTHOST_BLESS=1", path.display());
    }
}

#[test]
fn a_c_compiler_takes_the_headers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (file, _) in headers(root) {
        let check = Command::new("cc")
            .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", "c"])
            .arg(root.join("include").join(file))
            .output();
        match check {
            Ok(output) => assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => eprintln!("no C compiler here ({error}), so {file} was not compiled"),
        }
    }
}
