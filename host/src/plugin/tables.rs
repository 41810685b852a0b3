//! What is wrong with the tables that a plugin hands over, as far as reading them tells: sizes, versions, functions that are missing.

use fthost_plugin_api::abi::draft::optimizer::OptimizerVtable;
use fthost_plugin_api::abi::growth::{Grows, Theirs};
use fthost_plugin_api::abi::tables::{
    ABI_MINOR, BaseVtable, Instance, OK, PluginApi, RegularizerVtable, SchedulerVtable, Str, StrategyVtable,
    TaskHeadVtable,
};
use fthost_plugin_api::{MethodKind, PluginNote, field};
use serde_json::Value;

use super::Plugin;
use super::bridge::session::take_reported;
use super::instance::{Vtable, make};

/// What is wrong with a plugin's own table, beside the note in its file: a sentence each.
pub(crate) fn of_plugin(plugin: &Plugin, note: &PluginNote) -> Vec<String> {
    let api = plugin.api();
    let minor = api.get(field!(PluginApi, abi_minor));
    let mut wrong = size(api, minor);
    if minor != note.abi_minor {
        wrong.push(format!("its PluginApi is of minor {minor}, and its note says {}", note.abi_minor));
    }
    if api.get(field!(PluginApi, reserved)) != 0 {
        wrong.push("the reserved field of its PluginApi is not 0".to_owned());
    }
    wrong.extend(missing([api.need(field!(PluginApi, create)).map(drop)]));
    wrong
}

/// What is wrong with the table of an instance that a plugin makes of these options.
///
/// # Errors
/// Where it makes none: the plugin's words.
pub(crate) fn of_method(
    plugin: &Plugin,
    (kind, name): (MethodKind, &str),
    options: &Value,
) -> Result<Vec<String>, String> {
    let api = plugin.api();
    let make = make(plugin, kind)?;
    let mut made = Instance { data: std::ptr::null_mut(), vtable: std::ptr::null() };
    let _ = take_reported();
    let options = options.to_string();
    let status = make(Str::new(name), Str::new(&options), &raw mut made);
    if status != OK {
        return Err(take_reported().unwrap_or_else(|| format!("status {status} and no reason")));
    }
    let minor = api.get(field!(PluginApi, abi_minor));
    let wrong = match kind {
        MethodKind::Strategy => checked::<StrategyVtable>(made, minor, |_, _| ()),
        MethodKind::Scheduler => checked::<SchedulerVtable>(made, minor, |_, _| ()),
        MethodKind::Regularizer => checked::<RegularizerVtable>(made, minor, |table, wrong| {
            let penalty = table.get(field!(RegularizerVtable, penalty)).is_some();
            let output = table.get(field!(RegularizerVtable, output_penalty)).is_some();
            if !penalty && !output {
                wrong.push("its RegularizerVtable has neither `penalty` nor `output_penalty`: it does nothing".into());
            }
            if output && table.get(field!(RegularizerVtable, needs_reference)).is_none() {
                wrong
                    .push("it has `output_penalty` and no `needs_reference`, so the penalty is never asked for".into());
            }
        }),
        MethodKind::TaskHead => checked::<TaskHeadVtable>(made, minor, |_, _| ()),
        MethodKind::Optimizer => checked::<OptimizerVtable>(made, minor, |_, _| ()),
    };
    Ok(wrong)
}

/// Looks at the table of an instance, and frees it.
fn checked<V: Vtable>(
    made: Instance,
    minor: u32,
    more: impl FnOnce(Theirs<'static, V>, &mut Vec<String>),
) -> Vec<String> {
    // SAFETY: the plugin gives a table of this kind that lives as long as the process, or null.
    let table = match unsafe { Theirs::new(made.vtable.cast::<V>()) } {
        Ok(table) => table,
        Err(error) => return vec![error.to_string()],
    };
    // SAFETY: every vtable of an instance begins with the common part.
    let base: Theirs<'static, BaseVtable> = unsafe { table.prefix() };
    let mut wrong = size(table, minor);
    if base.get(field!(BaseVtable, reserved)) != 0 {
        wrong.push(format!("the reserved field of its {} is not 0", V::NAME));
    }
    if base.get(field!(BaseVtable, save)).is_some() != base.get(field!(BaseVtable, load)).is_some() {
        wrong.push(format!("its {} has one of `save` and `load`: what is saved must come back", V::NAME));
    }
    wrong.extend(missing(V::required(table)));
    more(table, &mut wrong);
    if let Some(drop) = base.get(field!(BaseVtable, drop)) {
        // SAFETY: the plugin's own function, and nobody uses the instance any more.
        unsafe { drop(made.data) }
    }
    wrong
}

/// What is wrong with the size that a table says it has, for the minor that its maker was built with.
fn size<T: Grows>(table: Theirs<'static, T>, minor: u32) -> Vec<String> {
    let (size, name) = (table.size(), T::NAME);
    let wanted = if minor == 0 { T::MINOR_0 } else { size_of::<T>() };
    // How long tables of other minors are is theirs to know.
    let known = minor == 0 || minor == ABI_MINOR;
    if size == wanted || !known && size.is_multiple_of(align_of::<T>()) {
        return Vec::new();
    }
    vec![format!("its {name} says that it has {size} bytes, and that of minor {minor} has {wanted}")]
}

/// What says of functions that they are null.
fn missing(required: impl IntoIterator<Item = fthost_plugin_api::Result<()>>) -> impl Iterator<Item = String> {
    required.into_iter().filter_map(|there| there.err().map(|error| error.to_string()))
}
