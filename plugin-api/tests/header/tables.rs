//! Tables, calls and constants in C.

use std::collections::{BTreeMap, BTreeSet};

use syn::{
    Expr, ExprLit, Fields, File, GenericArgument, Item, ItemConst, ItemMod, ItemStruct, Lit, PathArguments, ReturnType,
    TraitItem, Type, TypeBareFn, TypePath,
};

use crate::since::Since;
use crate::source::{self, comment, docs, longer, modules, public};

/// Tables that a plugin makes. Of their functions each says whether it may be null.
const OF_PLUGINS: [&str; 4] = ["PluginApi", "Vtable", "Extension", "AboutDraft"];

/// A type's name in C.
fn c_name(name: &str) -> String {
    format!("Ft{name}")
}

/// What the author's traits say, for the functions of the tables that stand for them: `Strategy` and `Strategy::attach`.
pub type Meanings = BTreeMap<String, String>;

pub fn meanings(files: &[File]) -> Meanings {
    let mut meanings = Meanings::new();
    for item in files.iter().flat_map(|file| &file.items) {
        let Item::Trait(item) = item else { continue };
        meanings.insert(item.ident.to_string(), docs(&item.attrs));
        for method in &item.items {
            if let TraitItem::Fn(method) = method {
                meanings.insert(format!("{}::{}", item.ident, method.sig.ident), docs(&method.attrs));
            }
        }
    }
    meanings
}

/// A text, and below it what those of its names mean that are a trait's.
fn explained(text: &str, meanings: &Meanings) -> String {
    let mut said = text.to_owned();
    for name in text.split('`').skip(1).step_by(2) {
        if let Some(meaning) = meanings.get(name) {
            said += &format!("\n\n{meaning}");
        }
    }
    said
}

/// Types as C writes them, and the slices that they need.
#[derive(Default)]
pub struct Types {
    meanings: Meanings,
    /// Elements by the slice's name; the flag is that of one that the callee writes. Inner ones stand before those of them.
    slices: Vec<(String, String, bool)>,
    /// Structs, in order.
    structs: Vec<String>,
}

impl Types {
    /// None yet; `meanings` stand below what is taken up.
    pub fn new(meanings: Meanings) -> Self {
        Self { meanings, ..Self::default() }
    }

    /// A declaration of something of this type: `const FtStr *name`.
    fn declare(&mut self, of: &Type, name: &str) -> String {
        match of {
            Type::BareFn(function) => self.function(function, name),
            Type::Ptr(pointer) => {
                let constant = if pointer.mutability.is_none() { "const " } else { "" };
                let to = self.named(&pointer.elem);
                // `*mut *const T`: what is written is a pointer to something constant.
                if let Type::Ptr(inner) = &*pointer.elem {
                    return format!("{} *{name}", self.declare(&Type::Ptr(inner.clone()), "").trim_end())
                        .replace("* *", "**");
                }
                format!("{constant}{to} *{name}")
            }
            Type::Path(path) => match argument(path, "Option") {
                Some(inner) => self.declare(&inner, name),
                None => format!("{} {name}", self.named(of)),
            },
            other => panic!("the wire has no type {}", text_of(other)),
        }
    }

    fn named(&mut self, of: &Type) -> String {
        let Type::Path(path) = of else { return String::new() };
        for (generic, written) in [("Slice", false), ("SliceMut", true)] {
            if let Some(element) = argument(path, generic) {
                return self.slice(&element, written);
            }
        }
        let name = path.path.segments.last().unwrap().ident.to_string();
        match name.as_str() {
            "u8" | "u32" | "u64" | "i32" | "i64" => {
                format!("{}int{}_t", if name.starts_with('u') { "u" } else { "" }, &name[1..])
            }
            "f64" => "double".into(),
            "usize" => "size_t".into(),
            "c_void" => "void".into(),
            _ => c_name(&name),
        }
    }

    fn slice(&mut self, element: &Type, written: bool) -> String {
        let c = self.named(element);
        let spoken = match c.strip_prefix("Ft") {
            Some(own) => own.to_owned(),
            None => text_of(element).to_uppercase(),
        };
        let name = format!("FtSlice{}{spoken}", if written { "Mut" } else { "" });
        if !self.slices.iter().any(|(known, ..)| *known == name) {
            self.slices.push((name.clone(), c, written));
        }
        name
    }

    fn function(&mut self, function: &TypeBareFn, name: &str) -> String {
        let arguments: Vec<String> = function
            .inputs
            .iter()
            .map(|input| {
                let name = input.name.as_ref().map_or_else(String::new, |(name, _)| name.to_string());
                self.declare(&input.ty, &name)
            })
            .collect();
        let arguments = if arguments.is_empty() { "void".into() } else { arguments.join(", ") };
        match &function.output {
            ReturnType::Default => format!("void (*{name})({arguments})"),
            ReturnType::Type(_, output) => self.declare(output, &format!("(*{name})({arguments})")),
        }
    }

    /// Takes a struct of the wire up.
    pub fn add(&mut self, item: &ItemStruct, since: &mut Since) {
        let name = item.ident.to_string();
        let plugins = OF_PLUGINS.iter().any(|end| name.ends_with(end));
        let said = explained(&since.of(&name, &docs(&item.attrs)), &self.meanings);
        let mut text = format!("{}struct {} {{\n", comment("", &said), c_name(&name));
        let Fields::Named(fields) = &item.fields else { panic!("{name} has named fields") };
        for field in fields.named.iter().filter(|field| !longer(&field.attrs)) {
            let ident = field.ident.as_ref().unwrap().to_string();
            let mut said = docs(&field.attrs);
            let function = is_function(&field.ty);
            if plugins && function && !said.split_whitespace().any(|word| word == "Null") {
                said += " Never null.";
            }
            let said = since.of(format!("{name}.{ident}"), &said);
            text += &comment("  ", &explained(&said, &self.meanings));
            // A function that takes a function is long.
            text +=
                &format!("  {};\n", self.declare(&field.ty, &ident)).replace(", FtStatus (*", ",\n      FtStatus (*");
        }
        self.structs.push(text + "};\n");
    }

    /// All of it: names first, so that any may point to any; then `aliases`. Without slices where `lent` is not given, because another header
    /// has them.
    pub fn write(&self, lent: Option<&File>, aliases: &str) -> String {
        let mut text = String::new();
        let of_struct = |text: &String| {
            text.lines().find_map(|line| line.strip_prefix("struct ")?.strip_suffix(" {").map(str::to_owned))
        };
        let names: Vec<String> = self.structs.iter().filter_map(of_struct).collect();
        let slices = if lent.is_some() { self.slices.as_slice() } else { &[] };
        for name in slices.iter().map(|(name, ..)| name).chain(&names) {
            text += &format!("typedef struct {name} {name};\n");
        }
        text += aliases;
        let lent: BTreeMap<String, &ItemStruct> =
            lent.into_iter().flat_map(structs).map(|item| (item.ident.to_string(), item)).collect();
        for (name, element, written) in slices {
            let item = lent[if *written { "SliceMut" } else { "Slice" }];
            let said: Vec<String> = item.fields.iter().map(|field| docs(&field.attrs)).collect();
            let constant = if *written { "" } else { "const " };
            text += &format!("\n{}struct {name} {{\n", comment("", &docs(&item.attrs)));
            text += &format!("{}  {constant}{element} *ptr;\n", comment("  ", &said[0]));
            text += &format!("{}  size_t len;\n}};\n", comment("  ", &said[1]));
        }
        self.structs.iter().fold(text, |text, of| text + "\n" + of)
    }
}

/// The type in `Option<...>`, `Slice<...>`.
fn argument(path: &TypePath, of: &str) -> Option<Type> {
    let last = path.path.segments.last()?;
    match &last.arguments {
        PathArguments::AngleBracketed(arguments) if last.ident == of => match arguments.args.first()? {
            GenericArgument::Type(inner) => Some(inner.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn is_function(of: &Type) -> bool {
    matches!(of, Type::BareFn(_))
        || matches!(of, Type::Path(path) if argument(path, "Option").is_some_and(|inner| is_function(&inner)))
}

fn text_of(of: &Type) -> String {
    match of {
        Type::Path(path) => path.path.segments.last().unwrap().ident.to_string(),
        _ => "of another form than a name, a pointer or a function".into(),
    }
}

/// The public structs of the wire in a file; generic ones as well.
pub fn structs(file: &File) -> impl Iterator<Item = &ItemStruct> {
    file.items.iter().filter_map(|item| match item {
        Item::Struct(item) if public(&item.vis) && source::names(&item.attrs, "repr", "C") && !longer(&item.attrs) => {
            Some(item)
        }
        _ => None,
    })
}

/// Public aliases of functions and numbers, such as `Status`.
pub fn aliases(file: &File, types: &mut Types, since: &mut Since) -> String {
    let mut text = String::new();
    for item in &file.items {
        let Item::Type(item) = item else { continue };
        if !public(&item.vis) {
            continue;
        }
        let name = c_name(&item.ident.to_string());
        let said = since.of(item.ident.to_string(), &docs(&item.attrs));
        text += &format!("\n{}typedef {};\n", comment("", &said), types.declare(&item.ty, &name));
    }
    text
}

/// The constants of a file: those at its top under `FT_`, those of each module under its name.
pub fn constants(file: &File, meanings: &Meanings, since: &mut Since) -> String {
    let mut text = defines("FT_", source::constants(&file.items), meanings, since);
    for (module, items) in modules(file) {
        let defined = constants_of(module, items, meanings, since);
        text += &if defined.is_empty() { defined } else { format!("\n{defined}") };
    }
    text
}

/// The constants of a module.
pub fn constants_of(module: &ItemMod, items: &[Item], meanings: &Meanings, since: &mut Since) -> String {
    let prefix = match module.ident.to_string().as_str() {
        "hook_kind" => "FT_HOOK_".to_owned(),
        "fisher_labels" => "FT_LABELS_".to_owned(),
        "model_call" => "FT_CALL_".to_owned(),
        other => format!("FT_{}_", other.to_uppercase()),
    };
    let defined = defines(&prefix, source::constants(items), meanings, since);
    if defined.is_empty() { defined } else { comment("", &docs(&module.attrs)) + "\n" + &defined }
}

/// Constants under a prefix.
pub fn defines<'a>(
    prefix: &str,
    constants: impl Iterator<Item = &'a ItemConst>,
    meanings: &Meanings,
    since: &mut Since,
) -> String {
    let mut text = String::new();
    for constant in constants {
        let ident = constant.ident.to_string();
        let name = format!("{prefix}{}", ident.strip_suffix("_DRAFT").unwrap_or(&ident));
        let Expr::Lit(ExprLit { lit, .. }) = &*constant.expr else { panic!("{name} is no literal") };
        let value = match lit {
            Lit::Int(number) => number.base10_digits().to_owned(),
            Lit::Str(text) => format!("{:?}", text.value()),
            _ => panic!("{name} is neither a number nor a text"),
        };
        // A kind of methods is what its vtable says.
        let known = if prefix == "FT_KIND_" { &Meanings::new() } else { meanings };
        let said = explained(&since.of(&name, &docs(&constant.attrs)), known);
        let line = format!("#define {name} {value}");
        let beside = comment("", &said);
        text += &match (beside.lines().count(), line.len() + beside.len()) {
            (0, _) => line + "\n",
            (1, ..110) => format!("{line} {beside}"),
            _ => format!("{beside}{line}\n"),
        };
    }
    text
}

/// Words between backticks in all that a file says.
pub fn spoken(file: &File) -> BTreeSet<String> {
    let mut said: Vec<String> = Vec::new();
    for item in &file.items {
        match item {
            Item::Struct(item) => {
                said.push(docs(&item.attrs));
                said.extend(item.fields.iter().map(|field| docs(&field.attrs)));
            }
            Item::Const(item) => said.push(docs(&item.attrs)),
            _ => {}
        }
    }
    for (_, items) in modules(file) {
        said.extend(source::constants(items).map(|constant| docs(&constant.attrs)));
    }
    let code = said.iter().flat_map(|text| text.split('`').skip(1).step_by(2));
    code.flat_map(|code| code.split(|c: char| !c.is_alphanumeric())).map(str::to_owned).collect()
}
