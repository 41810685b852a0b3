//! The C headers are generated from this crate's Rust types; these tests say when they are not, and that C takes them.
//!
//! `FTHOST_BLESS=1 cargo test -p fthost-plugin-api --test header` writes them anew, and what is new into `since.txt`.
//!
//! What is read: the tables and calls of `src/abi` (`tables`), the types that serde writes and reads (`json`), the ops, and all their doc
//! comments (`source`). `top.h` and `macros.h` beside this file are what Rust has no words for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod compiled;
mod json;
mod since;
mod source;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{env, fs};

use fthost_plugin_api::ops::OPS;
use fthost_plugin_api::{
    Comparison, Convolution, Event, FeatureKind, HeadSpec, ImageInfo, Init, LossScope, Masking, MethodInfo, MethodKind,
    MethodNote, MetricSpec, ParamInfo, PluginInfo, PluginNote, PredictionKind, Sampling, Site, SiteKind, Stream,
    StreamFeatures, TargetKind, Targets, TaskInfo, Vocabulary, VocabularyTransform,
};
use serde_json::Value;
use syn::File;

use since::Since;
use source::{comment, docs, modules, read};
use tables::{Meanings, Types};

/// Of `src/abi`: what stands first because others are made of it.
const FIRST: [&str; 3] = ["abi/lent.rs", "abi/calls.rs", "abi/tables.rs"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of the wire that have structs of it, in order.
fn wire() -> Vec<File> {
    let mut files: Vec<String> = FIRST.map(str::to_owned).to_vec();
    files.extend(source::files(root(), "abi").into_iter().filter(|file| !FIRST.contains(&file.as_str())));
    let mut files: Vec<File> = files.iter().map(|file| read(root(), file)).collect();
    // A generic struct is made for its uses, and `root` is for Rust alone: its struct derives what C does not see.
    let of_c = |file: &File| {
        tables::structs(file)
            .any(|item| item.generics.params.is_empty() && !source::names(&item.attrs, "derive", "StableAbi"))
    };
    files.retain(|file| of_c(file));
    files
}

/// All files with types that serde knows.
fn others() -> Vec<File> {
    source::files(root(), "").iter().map(|file| read(root(), file)).collect()
}

/// The minor that the tables say.
fn minor() -> u32 {
    let file = read(root(), "abi/tables.rs");
    let minor = source::constants(&file.items).find(|constant| constant.ident == "ABI_MINOR").unwrap();
    let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Int(minor), .. }) = &*minor.expr else { panic!("a number") };
    minor.base10_parse().unwrap()
}

fn section(title: &str) -> String {
    format!("\n/* ---- {title} ---- */\n\n")
}

fn header(since: &mut Since) -> String {
    let (wire, others) = (wire(), others());
    let meanings = tables::meanings(&others);
    let mut text = include_str!("top.h").to_owned();
    let rules = read(root(), FIRST[2]);
    text += &comment("", &docs(&rules.attrs));
    text += &section("Numbers and names");
    for file in &wire {
        text += &tables::constants(file, &meanings, since);
    }
    for (module, items) in others.iter().flat_map(modules) {
        let named = tables::constants_of(module, items, &Meanings::new(), since);
        text += &if named.is_empty() { named } else { format!("\n{named}") };
    }
    text += &section("Macros");
    text += include_str!("macros.h");
    text += &section("Ops");
    text += &ops(since);
    text += &section("JSON");
    text += &json(&wire, &others, since);
    text += &section("Tables and calls");
    text += "#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n";
    let mut types = Types::new(meanings);
    let aliases: String = wire.iter().map(|file| tables::aliases(file, &mut types, since)).collect();
    for item in wire.iter().flat_map(tables::structs).filter(|item| item.generics.params.is_empty()) {
        types.add(item, since);
    }
    text += &types.write(Some(&wire[0]), &aliases);
    text += "\n/* What a plugin exports; FtEntryV1 says how. */\n\
             __attribute__((visibility(\"default\"))) FtStatus fthost_plugin_entry_v1(const FtHostApi *host, const FtPluginApi **out);\n\n\
             #ifdef __cplusplus\n}\n#endif\n\n#endif /* FTHOST_PLUGIN_H */\n";
    text
}

/// The ops, and what holds for all.
fn ops(since: &mut Since) -> String {
    let file = read(root(), "ops.rs");
    let mut text = comment("", &docs(&file.attrs)).trim_end().trim_end_matches(" */").to_owned();
    for op in OPS {
        let mut said = vec![op.inputs.to_owned()];
        said.extend((!op.ints.is_empty()).then(|| format!("Integers: {}.", op.ints)));
        said.extend((!op.floats.is_empty()).then(|| format!("Floats: {}.", op.floats)));
        said.extend((op.outputs != 1).then(|| format!("Outputs: {}.", op.outputs)));
        let said = since.of(format!("op {}", op.name), &said.join("\n\n"));
        let lines: String = source::wrap(&said, 100).iter().map(|line| format!("\n         {line}")).collect();
        text += &format!("\n\n      {}{}", op.name, lines.replace("\n         \n", "\n"));
    }
    text + " */\n"
}

/// The forms of what the tables speak of.
fn json(wire: &[File], others: &[File], since: &mut Since) -> String {
    let head = "The values behind the names that stand in the comments of tables, notes and model calls. A key that \"may be missing\" \
                need not be written, and is not written by an older host. A reader skips keys that it does not know: later minors add \
                some. Where a comment speaks of Rust, `None` is null, `u32::MAX` is 4294967295 and `HeadSpec::masking` a key of that form.";
    let forms = json::forms(others);
    forms_said(head, &forms, &json::reached(&forms, &spoken(wire)), since)
}

fn forms_said(head: &str, forms: &BTreeMap<String, json::Form>, names: &BTreeSet<String>, since: &mut Since) -> String {
    let mut text = comment("", head).trim_end().trim_end_matches(" */").to_owned();
    for name in names {
        text += &format!("\n\n{}", forms[name].said(name, since).trim_end());
    }
    text + " */\n"
}

fn spoken(wire: &[File]) -> BTreeSet<String> {
    wire.iter().flat_map(tables::spoken).collect()
}

/// The header of a draft: the file `src/abi/draft/NAME.rs`. Nothing of it is promised.
fn draft(name: &str) -> String {
    let (file, others) = (read(root(), &format!("abi/draft/{name}.rs")), others());
    let since = &mut Since::new("", 0);
    let guard = format!("FTHOST_DRAFT_{}_H", name.to_uppercase());
    let forms = json::forms(&others);
    let promised = json::reached(&forms, &spoken(&wire()));
    let own = json::reached(&forms, &tables::spoken(&file)).difference(&promised).cloned().collect::<BTreeSet<_>>();
    let json = if own.is_empty() { String::new() } else { "\n".to_owned() + &forms_said("JSON:", &forms, &own, since) };
    let mut types = Types::new(tables::meanings(&others));
    tables::structs(&file).for_each(|item| types.add(item, since));
    format!(
        "/* A draft: an extension that is tried and not promised; see plugin-api/src/abi/draft/mod.rs. Generated from {name}.rs there. */\n\
         #ifndef {guard}\n#define {guard}\n\n#include \"../fthost_plugin.h\"\n\n{}{}{json}\n{}\n#endif /* {guard} */\n",
        comment("", &docs(&file.attrs)),
        tables::defines("FT_DRAFT_", source::constants(&file.items), &Meanings::new(), since),
        types.write(None, ""),
    )
}

/// Each file that is generated, and what it must be.
fn generated() -> Vec<(String, String)> {
    let known = fs::read_to_string(root().join("since.txt")).unwrap_or_default();
    let mut since = Since::new(&known, minor());
    let mut files = vec![("include/fthost_plugin.h".to_owned(), header(&mut since))];
    files.push(("since.txt".to_owned(), since.list()));
    for file in source::files(root(), "abi/draft").iter().filter(|file| !file.ends_with("mod.rs")) {
        let name = Path::new(file).file_stem().unwrap().to_str().unwrap();
        files.push((format!("include/draft/{name}.h"), draft(name)));
    }
    files
}

#[test]
fn the_headers_are_those_of_the_types() {
    for (file, text) in generated() {
        let path = root().join(&file);
        if env::var_os("FTHOST_BLESS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == text, "{file} is not what the types give: run this test with FTHOST_BLESS=1");
    }
}

#[test]
fn what_was_promised_cannot_go() {
    let mut since = Since::new("# a list\n1.0 Table\n1.0 Table.old\n1.1 Table.later\n", 2);
    let said = ["Table", "Table.old", "Table.new", "Other", "Other.field"].map(|symbol| since.of(symbol, "It."));
    assert_eq!(said, ["It.", "It.", "It. Since 1.2.", "It. Since 1.2.", "It."]);
    assert_eq!(since.of("Table.said", "Said. Since 1.2"), "Said. Since 1.2.");
    let otherwise = std::panic::catch_unwind(|| Since::new("1.1 Table", 2).of("Table", "It. Since 1.2"));
    assert!(otherwise.is_err());
    let gone = std::panic::catch_unwind(|| since.list()).unwrap_err();
    assert!(gone.downcast_ref::<String>().unwrap().ends_with("[\"Table.later\"]"));
}

fn taken<T: serde::Serialize + serde::de::DeserializeOwned>(value: Value) -> serde_json::Result<Value> {
    serde_json::to_value(serde_json::from_value::<T>(value)?)
}

/// What the header says of JSON is what serde takes and gives: all keys, and each that may be missing or may not.
#[test]
fn serde_agrees_with_what_is_said_of_json() {
    macro_rules! types {
        ($($type:ident),+ $(,)?) => { [$((stringify!($type), taken::<$type> as fn(Value) -> serde_json::Result<Value>)),+] };
    }
    let types = types! {
        Comparison, Convolution, Event, FeatureKind, HeadSpec, ImageInfo, Init, LossScope, Masking, MethodInfo, MethodKind, MethodNote,
        MetricSpec, ParamInfo, PluginInfo, PluginNote, PredictionKind, Sampling, Site, SiteKind, Stream, StreamFeatures, TargetKind,
        Targets, TaskInfo, Vocabulary, VocabularyTransform,
    };
    let forms = json::forms(&others());
    let checked: BTreeSet<String> = types.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(checked, json::reached(&forms, &spoken(&wire())), "the forms in the header, and those checked here");
    for (name, taken) in types {
        for json::Sample { value, without } in json::samples(&forms, name) {
            let said = format!("{name} {value}");
            match (taken(value.clone()), without) {
                (Ok(again), None) => assert_eq!(again, value, "{said}"),
                (Err(error), None) => panic!("{said}: {error}"),
                (result, Some((key, may_miss))) => {
                    assert_eq!(result.is_ok(), may_miss, "{said} without {key}: {result:?}");
                }
            }
        }
    }
}
