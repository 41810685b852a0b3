//! Whether a task's classes, its pictures and its head fit together.

use fthost_plugin_api::{HeadSpec, TargetKind};

use crate::Result;
use crate::data::Dataset;
use crate::run::file::RunFile;

/// Refuses a choice of classes, one of which no example has.
pub(super) fn every_class_counts(file: &RunFile, index: usize, train: &Dataset) -> Result<()> {
    let only = &file.tasks[index].form.only;
    let Some(place) = only.iter().position(|class| !train.has_label(class)) else { return Ok(()) };
    let message = format!("no training example has the class {:?}", only[place]);
    let there = train.labels().iter().take(NAMED).map(|label| format!("{label:?}")).collect::<Vec<_>>();
    let help = format!("of the classes that only names there are {}", there.join(", "));
    Err(file.error_at(&format!("task[{index}].only[{place}]"), message, "no example has it", Some(help)))
}

/// Refuses a choice of classes where examples have none, pixels that change places under a mask, and samples where no text is said.
pub(super) fn fits_the_head(file: &RunFile, index: usize, spec: &HeadSpec) -> Result<()> {
    let table = &file.tasks[index];
    let refuse = |key: &str, message: String, label: &str| {
        Err(file.error_at(&format!("task[{index}].{key}"), message, label, Some("leave it out".into())))
    };
    if table.permute_pixels.is_some() && spec.targets == TargetKind::Mask {
        let message = format!("the task {} learns a class for each pixel, and its pixels change places", table.name);
        return refuse("permute_pixels", message, "moves pixels");
    }
    if !table.form.only.is_empty() && spec.targets != TargetKind::Class {
        let message =
            format!("task[{index}].only needs one class for each example, and the task {} has none", table.name);
        return refuse("only", message, "does nothing");
    }
    if table.samples.is_some() && spec.targets != TargetKind::NextToken {
        let message =
            format!("task[{index}].samples needs a model of next tokens, and the task {} has none", table.name);
        return refuse("samples", message, "does nothing");
    }
    Ok(())
}

/// Classes that a message names.
const NAMED: usize = 20;

/// Refuses the head of another task, whose classes are `theirs`, that answers something else, or learns by episodes: it predicts by that
/// task's own examples then.
pub(super) fn same_answers(
    file: &RunFile,
    index: usize,
    own: &[String],
    theirs: &[String],
    by_episodes: bool,
) -> Result<()> {
    let table = &file.tasks[index];
    let (name, owner) = (&table.name, &file.tasks[table.head_of.unwrap_or(index)].name);
    let refuse = |message: String, help: &str| {
        let path = format!("task[{index}].head.task");
        Err(file.error_at(&path, message, "another task's head", Some(help.into())))
    };
    if by_episodes {
        let message = format!("the head of {owner} predicts by examples of its own task, and {name} has others");
        return refuse(message, "give the task a head of its own");
    }
    let missing = |have: &[String], lack: &[String]| have.iter().find(|label| !lack.contains(label)).cloned();
    let (has, label, lacks) = match (missing(own, theirs), missing(theirs, own)) {
        (Some(label), _) => (name, label, owner),
        (None, Some(label)) => (owner, label, name),
        (None, None) => return Ok(()),
    };
    let message =
        format!("{has} has the class {label:?}, and {lacks} has not: one head cannot tell the classes of both");
    refuse(message, "give the task a head of its own, or both tasks examples of the same classes")
}
