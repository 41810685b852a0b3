//! The files of each kind's template.

use fthost_plugin_api::MethodKind;

/// What a method is called in the templates.
pub(super) const METHOD: &str = "my-method";
/// What its library is called in them.
pub(super) const METHOD_LIBRARY: &str = "my_method";
/// Stands for where `fthost-plugin-api` comes from.
pub(super) const API: &str = "@api@";

/// A file of a template.
#[derive(Clone, Copy, Debug)]
pub(super) struct Template {
    /// Where it comes to lie in the plugin's folder.
    pub(super) path: &'static str,
    pub(super) text: &'static str,
    /// Whether names are put into it; else it is written as it is.
    pub(super) is_filled: bool,
}

macro_rules! template {
    ($path:literal, $($file:literal),+) => {
        Template { path: $path, text: include_str!(concat!("templates/", $($file),+)), is_filled: true }
    };
}

/// What every crate has.
const CRATE: [Template; 3] = [
    template!("Cargo.toml", "rust/manifest.toml"),
    template!(".gitignore", "rust/gitignore"),
    template!(".github/workflows/ci.yml", "rust/ci.yml"),
];

macro_rules! of_kind {
    ($kind:literal) => {
        [
            template!("src/lib.rs", $kind, "/lib.rs"),
            template!("src/tests.rs", $kind, "/tests.rs"),
            template!("run.toml", $kind, "/run.toml"),
            template!("README.md", $kind, "/README.md"),
        ]
    };
}

const STRATEGY: [Template; 4] = of_kind!("strategy");
const SCHEDULER: [Template; 4] = of_kind!("scheduler");
const REGULARIZER: [Template; 4] = of_kind!("regularizer");
const TASK_HEAD: [Template; 4] = of_kind!("head");

/// What every plugin in C has.
const C: [Template; 4] = [
    Template {
        path: "fthost_plugin.h",
        text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../plugin-api/include/fthost_plugin.h")),
        is_filled: false,
    },
    template!("Makefile", "c/Makefile"),
    template!(".gitignore", "c/gitignore"),
    template!(".github/workflows/ci.yml", "c/ci.yml"),
];

/// A kind in C: its one file is put together of what is its own and what all have.
macro_rules! in_c {
    ($kind:literal, [$($shared:literal),*]) => {
        [
            Template {
                path: "my_method.c",
                text: concat!(
                    include_str!(concat!("templates/c/", $kind, "/top.c")),
                    include_str!("templates/c/host.c"),
                    $(include_str!(concat!("templates/c/", $shared)),)*
                    include_str!(concat!("templates/c/", $kind, "/method.c")),
                    include_str!("templates/c/plugin.c")
                ),
                is_filled: true,
            },
            template!("run.toml", "c/", $kind, "/run.toml"),
            template!("README.md", "c/", $kind, "/README.md"),
        ]
    };
}

const STRATEGY_IN_C: [Template; 3] = in_c!("strategy", ["calls.c"]);
const SCHEDULER_IN_C: [Template; 3] = in_c!("scheduler", []);
const REGULARIZER_IN_C: [Template; 3] = in_c!("regularizer", ["calls.c", "chain.c"]);
const TASK_HEAD_IN_C: [Template; 3] = in_c!("head", ["calls.c", "chain.c"]);

/// The template of a kind; none of what is not promised.
pub(super) fn of(kind: MethodKind, in_c: bool) -> Vec<Template> {
    if in_c {
        let own = match kind {
            MethodKind::Strategy => STRATEGY_IN_C,
            MethodKind::Scheduler => SCHEDULER_IN_C,
            MethodKind::Regularizer => REGULARIZER_IN_C,
            MethodKind::TaskHead => TASK_HEAD_IN_C,
            MethodKind::Optimizer => return Vec::new(),
        };
        return own.into_iter().chain(C).collect();
    }
    let own = match kind {
        MethodKind::Strategy => STRATEGY,
        MethodKind::Scheduler => SCHEDULER,
        MethodKind::Regularizer => REGULARIZER,
        MethodKind::TaskHead => TASK_HEAD,
        MethodKind::Optimizer => return Vec::new(),
    };
    CRATE.into_iter().chain(own).collect()
}
