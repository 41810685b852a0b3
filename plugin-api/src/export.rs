//! `register!` and `export_plugin!`: from Rust types to a plugin's file.

/// Registers methods under the names that run files use. The doc comment's first line becomes the method's summary.
///
/// ```text
/// register! {
///     /// Low-rank updates beside frozen weights (Hu et al. 2021).
///     Strategy "lora" => Lora
/// }
/// ```
///
/// The kinds are `Strategy`, `Scheduler`, `Regularizer`, `TaskHead` and `Optimizer`; several methods are separated by commas. In a
/// shared library the methods become part of the plugin that [`export_plugin!`](crate::export_plugin) exports; linked
/// statically they are what [`builtin`](crate::builtin) offers. A crate that nobody names is not linked, so a static
/// host says `use method_crate as _;`.
#[macro_export]
macro_rules! register {
    ($($(#[doc = $doc:literal])* $kind:ident $name:literal => $method:ty),+ $(,)?) => {$(
        #[allow(unsafe_code)]
        const _: () = {
            const FACTS: $crate::abi::note::MethodFacts = $crate::abi::note::MethodFacts {
                kind: $crate::__private::kinds::$kind::KIND,
                name: $name,
                summary: $crate::abi::note::first_line(concat!($($doc, "\n",)* "")),
                serves: $crate::__private::kinds::$kind::serves::<$method>(),
            };
            #[used]
            #[cfg_attr(target_os = "linux", unsafe(link_section = ".note.fthost"))]
            static NOTE: $crate::abi::note::Note<{ FACTS.text_len() }> = FACTS.note();
            $crate::__private::inventory::submit! { $crate::__private::kinds::$kind::entry::<$method>(FACTS) }
        };
    )+};
}

/// Makes a `cdylib` a plugin: the note that hosts read first, the frozen root and the C entry. Once per library.
///
/// ```text
/// export_plugin! { license = "MIT OR Apache-2.0", ops = ["low_rank@1", "dropout@1"], about = "a paper, a home page" }
/// ```
///
/// `min_host_minor = 1` says that it cannot do without what came with ABI 1.1, so that an older host refuses it by that. `about` is what `fthost inspect` prints of it (a [draft](crate::abi::draft)).
///
/// `ops` declares the ops the plugin cannot do without, so that a host that lacks one refuses it by that name when it is
/// loaded; without it an op that is missing is an error at its first call. Name and version are those of the library.
///
/// A plugin's crate is a `cdylib` only: two crates that both export the symbols cannot be linked into one binary. Keep
/// the methods in a library crate of their own where they are to be linked statically too.
#[macro_export]
macro_rules! export_plugin {
    (license = $license:literal $(, ops = [$($op:literal),* $(,)?])? $(, min_host_minor = $minor:literal)? $(, about = $about:literal)? $(,)?) => {
        #[cfg(panic = "abort")]
        compile_error!(
            "a plugin that aborts on a panic would kill its host: build it with panic = \"unwind\", in the profile too"
        );

        #[allow(unsafe_code)]
        const _: () = {
            const FACTS: $crate::abi::note::PluginFacts = $crate::abi::note::PluginFacts {
                name: env!("CARGO_CRATE_NAME"),
                version: env!("CARGO_PKG_VERSION"),
                license: $license,
                ops: &[$($($op),*)?],
                min_host_minor: 0 $(+ $minor)?,
            };
            #[used]
            #[cfg_attr(target_os = "linux", unsafe(link_section = ".note.fthost"))]
            static NOTE: $crate::abi::note::Note<{ FACTS.text_len() }> = FACTS.note();

            struct This;
            impl $crate::__private::Exported for This {
                const IDENTITY: &'static $crate::__private::Identity = &$crate::__private::Identity {
                    name: FACTS.name,
                    version: FACTS.version,
                    license: FACTS.license,
                    about: concat!($($about)?),
                };
            }

            // SAFETY: the constructor gives the root module that the type parameter names.
            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            static HEADER: $crate::__private::LibHeader = unsafe {
                $crate::__private::LibHeader::from_constructor::<$crate::abi::root::Root_Ref>(
                    $crate::__private::root_module::<This>,
                    $crate::__private::CheckTypeLayout::Yes,
                )
            };

            /// The C entry, as `EntryV1` says.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn fthost_plugin_entry_v1(
                host: *const $crate::abi::tables::HostApi,
                out: *mut *const $crate::abi::tables::PluginApi,
            ) -> $crate::abi::tables::Status {
                // SAFETY: the host keeps the entry's promises.
                unsafe {
                    $crate::__private::c_entry(host, out, <This as $crate::__private::Exported>::IDENTITY)
                }
            }
        };
    };
}
