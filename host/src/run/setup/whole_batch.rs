//! Tasks whose loss is one of a whole batch: what of the run file is about them, and how their batches are computed.

use fthost_plugin_api::{FeatureKind, HeadSpec, LossScope, Sampling, TargetKind};

use super::memory::BatchOf;
use super::task::Task;
use crate::Result;
use crate::adapted::AdaptedModel;
use crate::report::numbers::count;
use crate::report::text::{NAME, shortened};
use crate::run::file::{RunFile, TrainTable};
use crate::run::pass::{Way, Whole, way};

fn needs_all(spec: &HeadSpec) -> bool {
    spec.scope == LossScope::Batch
}

/// Refuses gradients of several batches where a loss is one of the whole batch, and micro-batches that have no say.
///
/// # Errors
/// At the key.
pub(super) fn check(file: &RunFile, tasks: &[Task], model: &AdaptedModel) -> Result<()> {
    let tasks: Vec<Of<'_>> = tasks
        .iter()
        .map(|task| Of {
            name: &task.name,
            spec: &task.spec,
            examples: task.pass_size(&file.train),
            trained: task.train.len(),
        })
        .collect();
    let statistics = model.model.batch_statistics().then_some(model.model.info().model_type.as_str());
    accumulates(file, &tasks)?;
    leaves_none_alone(file, &tasks)?;
    splits(file, &tasks, statistics)
}

/// What of a task is asked for here.
struct Of<'a> {
    name: &'a str,
    spec: &'a HeadSpec,
    /// Examples of a batch, or of an episode.
    examples: usize,
    /// Training examples.
    trained: usize,
}

/// An episode has a loss of its own, however many make a step.
fn accumulates(file: &RunFile, tasks: &[Of<'_>]) -> Result<()> {
    let settings = &file.train;
    let of_batch = tasks.iter().find(|task| needs_all(task.spec) && task.spec.sampling == Sampling::Shuffled);
    let (Some(task), several @ 2..) = (of_batch, settings.accumulate) else { return Ok(()) };
    let message = format!(
        "the task {} has one loss for a whole batch: those of {several} batches are not that of one with all their examples",
        task.name
    );
    let instead = match settings.batch_tokens {
        Some(tokens) => format!("batch_tokens = {}", tokens * several),
        None => format!("batch_size = {}", settings.examples_per_step()),
    };
    let help = format!("set {instead} and micro_batch = {} instead: it takes little memory", task.examples);
    Err(file.error_at("train.accumulate", message, "would be another loss", Some(help)))
}

/// What belongs together is told from what does not, and a batch of one example has nothing that does not.
fn leaves_none_alone(file: &RunFile, tasks: &[Of<'_>]) -> Result<()> {
    let matches = tasks.iter().filter(|task| task.spec.targets == TargetKind::Match);
    // Of batches that hold tokens nobody knows it.
    for task in matches.filter(|_| file.train.batch_tokens.is_none()) {
        let (name, batch, all) = (task.name, task.examples, task.trained);
        let (message, help) = match (batch, all) {
            (1, _) => (
                format!("the task {name} learns which sides belong together, and a batch of one example has no others"),
                "set batch_size = 32 or more: the more examples stand beside each other, the more is learned".into(),
            ),
            (_, 1) => (
                format!("the task {name} learns which sides belong together, and there is one training example"),
                "give it more examples".into(),
            ),
            _ if all % batch == 1 => (
                format!(
                    "the last batch of an epoch has one of the {all} examples of the task {name}, beside which no others stand"
                ),
                // Batches of one more or fewer leave more than one over, or none.
                format!(
                    "set batch_size = {}",
                    [batch + 1, batch - 1].into_iter().find(|b| *b > 1 && all % b != 1).unwrap_or(all)
                ),
            ),
            _ => continue,
        };
        return Err(file.error_at("train.batch_size", message, "leaves one alone", Some(help)));
    }
    Ok(())
}

/// `statistics`: the kind of the model, where its norms take their statistics over the batch.
fn splits(file: &RunFile, tasks: &[Of<'_>], statistics: Option<&str>) -> Result<()> {
    let settings = &file.train;
    let Some(most) = settings.micro_batch else { return Ok(()) };
    let refuse = |message: String, help: &str| {
        Err(file.error_at("train.micro_batch", message, "does nothing", Some(help.into())))
    };
    let Some(largest) = tasks.iter().filter(|task| needs_all(task.spec)).map(|task| task.examples).max() else {
        return refuse(
            "train.micro_batch is for a loss that needs the whole batch, and those here are of single examples".into(),
            "leave it out: such a batch passes in small pieces anyway; a smaller batch_size with accumulate does the same",
        );
    };
    if let Some(model) = statistics {
        return refuse(
            format!("train.micro_batch has no say: norms of this {model} take their statistics over the whole batch"),
            "leave it out, or freeze the norms: a frozen one is that of the pretrained model",
        );
    }
    if most >= largest && settings.batch_tokens.is_none() {
        return refuse(
            format!("train.micro_batch is {most}, and a batch has {largest} examples"),
            "leave it out: all of them would pass at once, and twice",
        );
    }
    Ok(())
}

/// A task's batches, as the model is now.
pub(super) fn batch_of(task: &Task, model: &AdaptedModel, settings: &TrainTable) -> BatchOf {
    let pooled = task.spec.features == FeatureKind::Pooled;
    BatchOf { examples: task.pass_size(settings), way: way(&task.spec, model), pooled }
}

/// How the batches of such tasks are computed, a sentence each.
pub(super) fn computed(tasks: &[Task], model: &AdaptedModel, settings: &TrainTable) -> Vec<String> {
    let one = |task: &Task| {
        let name = shortened(&task.name, NAME);
        let about = if settings.batch_tokens.is_some() { "about " } else { "" };
        let all = format!("{about}{}", count(task.pass_size(settings)));
        let how = match way(&task.spec, model) {
            Way::Gathered => "pass through the network on all cores, and then the head once".to_owned(),
            Way::Twice(most) => format!(
                "pass through the network twice, {most} at once at most: for what the head reads, then for gradients"
            ),
            Way::OneTape(Whole::Statistics) => {
                "pass in one piece, because norms take their statistics over all of them".to_owned()
            }
            Way::OneTape(Whole::Device) | Way::Apart => "pass in one piece".to_owned(),
        };
        format!("{name}: one loss for {all} examples, which {how}")
    };
    tasks.iter().filter(|task| needs_all(&task.spec)).map(one).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::path::Path;

    use fthost_plugin_api::PredictionKind;
    use miette::Diagnostic;

    use super::*;

    /// What is said of a run file with this in `[train]`, whose task has such a head and batches of 8 examples.
    fn said(train: &str, scope: LossScope, sampling: Sampling, statistics: Option<&str>) -> String {
        let text = "[model]\npath = \"m\"\n[[task]]\nname = \"pairs\"\nhead = { plugin = \"h\" }\ntrain = \"a.tsv\"\n";
        let file = RunFile::parse(&format!("{text}[train]\n{train}"), Path::new("run.toml"), &[]).unwrap();
        let spec = HeadSpec::new(FeatureKind::Pooled, TargetKind::Class, PredictionKind::Classes);
        let spec = HeadSpec { scope, sampling, ..spec };
        let tasks = [Of { name: "pairs", spec: &spec, examples: 8, trained: 100 }];
        let checked = accumulates(&file, &tasks).and_then(|()| splits(&file, &tasks, statistics));
        let text = |error: crate::Error| format!("{error}: {}", error.help().expect("it says what to do"));
        checked.err().map(text).unwrap_or_default()
    }

    #[test]
    fn what_would_be_another_loss_or_does_nothing_is_refused() {
        let check = |train: &str, scope, statistics: Option<&str>, expected: &str| {
            let said = said(train, scope, Sampling::Shuffled, statistics);
            assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{train}: {said}");
        };
        let (batch, example) = (LossScope::Batch, LossScope::Example);
        let accumulated = "batch_size = 8\naccumulate = 4";
        check(accumulated, batch, None, "those of 4 batches are not that of one");
        check(accumulated, batch, None, "set batch_size = 32 and micro_batch = 8 instead");
        check("batch_tokens = 100\naccumulate = 2", batch, None, "set batch_tokens = 200 and micro_batch = 8");
        check(accumulated, example, None, "");
        check("batch_size = 8\nmicro_batch = 2", batch, None, "");
        check("batch_size = 8\nmicro_batch = 8", batch, None, "train.micro_batch is 8, and a batch has 8 examples");
        check("batch_size = 8\nmicro_batch = 2", example, None, "those here are of single examples");
        check("batch_size = 8\nmicro_batch = 2", batch, Some("resnet"), "norms of this resnet");
    }

    #[test]
    fn no_example_is_left_alone() {
        let check = |examples: usize, trained: usize, expected: &str| {
            let text = "[model]\npath = \"m\"\n[[task]]\nhead = { plugin = \"h\" }\ntrain = \"a.tsv\"\n";
            let file = RunFile::parse(text, Path::new("run.toml"), &[]).unwrap();
            let spec = HeadSpec::new(FeatureKind::Pooled, TargetKind::Match, PredictionKind::Embeddings);
            let found = leaves_none_alone(&file, &[Of { name: "pairs", spec: &spec, examples, trained }]);
            let said = found.err().map(|error| format!("{error}: {}", error.help().expect("what to do")));
            let said = said.unwrap_or_default();
            assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{examples} {trained}: {said}");
        };
        check(1, 100, "a batch of one example has no others: set batch_size = 32");
        check(16, 1, "there is one training example");
        check(
            16,
            33,
            "the last batch of an epoch has one of the 33 examples of the task pairs, beside which no others",
        );
        check(16, 33, "set batch_size = 17");
        check(2, 3, "set batch_size = 3");
        check(16, 32, "");
        check(16, 34, "");
    }

    #[test]
    fn an_episode_has_a_loss_of_its_own() {
        let episodes = Sampling::Episodes { ways: 2, shots: 2, queries: 2, support: 9 };
        assert_eq!(said("accumulate = 4\nmicro_batch = 2", LossScope::Batch, episodes, None), "");
    }
}
