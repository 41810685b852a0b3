//! What a trained model comes to: fitted to its validation examples, evaluated, and its predictions saved.

use std::collections::BTreeMap;

use super::file::RunFile;
use super::results::calibrated::{self, Calibration};
use super::results::evaluate::{self, Evaluation, Outcome};
use super::results::predictions::{self, Predicted};
use super::results::result::Split;
use super::results::worst::Worst;
use super::setup::task::Task;
use super::state::folder::{RunFolder, cannot_write};
use super::train::Trainer;
use crate::Result;
use crate::data::Dataset;
use crate::report::progress::EvaluationProgress;

/// The folder of pictures whose masks the model is far off at.
const OVERLAYS: &str = "overlays";

/// Evaluates the test examples of each task that has some, in the order of the run file.
pub(super) fn test(trainer: &Trainer<'_>, shown: bool, when: &str) -> Result<Vec<(String, Evaluation)>> {
    let tests = trainer.learner.tasks.iter().enumerate();
    let tests = tests.filter_map(|(i, task)| Some((i, task.test.as_ref()?)));
    tests.map(|(i, data)| evaluate_task(trainer, shown, i, data, when)).collect()
}

/// Evaluates the validation examples of each task that has no others, by the model that is saved.
pub(super) fn validate(trainer: &Trainer<'_>, shown: bool) -> Result<Vec<(String, (Split, Evaluation))>> {
    let tasks = trainer.learner.tasks.iter().enumerate().filter(|(_, task)| task.test.is_none());
    let one = |(i, data)| {
        let (task, found) = evaluate_task(trainer, shown, i, data, "on validation examples")?;
        Ok((task, (Split::Validation, found)))
    };
    tasks.filter_map(|(i, task)| Some((i, task.validation.as_ref()?))).map(one).collect()
}

fn evaluate_task(
    trainer: &Trainer<'_>,
    shown: bool,
    task: usize,
    data: &Dataset,
    when: &str,
) -> Result<(String, Evaluation)> {
    let tasks: &[Task] = trainer.learner.tasks;
    let name = &tasks[task].name;
    let of = if tasks.len() > 1 { format!(" {name}") } else { String::new() };
    let progress = EvaluationProgress::new(shown, &format!("evaluating{of} {when}"), data.len());
    let found = evaluate::evaluate(&trainer.learner.pass(task, data), &|examples| progress.advance(examples))?;
    Ok((name.clone(), found))
}

/// Fits temperatures and thresholds on validation examples, where the run file asks for them: what follows predicts by them.
pub(super) fn calibrate(trainer: &mut Trainer<'_>, shown: bool) -> Result<BTreeMap<String, Calibration>> {
    let mut found = BTreeMap::new();
    for i in 0..trainer.learner.tasks.len() {
        let learner = &trainer.learner;
        let task = &learner.tasks[i];
        let validation = task.validation.as_ref().map(|data| learner.pass(i, data));
        let predicted = (task.spec.predictions, task.train.labels());
        let Some(mut calibration) = calibrated::fit(learner.settings, validation.as_ref(), predicted)? else {
            continue;
        };
        if let Some(data) = task.test.as_ref().or(task.validation.as_ref()) {
            calibration.compare(&evaluate_task(trainer, shown, i, data, "before calibration")?.1);
        }
        let task = &mut trainer.learner.tasks[i];
        task.decision = calibration.decision.clone();
        found.insert(task.name.clone(), calibration);
    }
    Ok(found)
}

/// Saves what the model predicts after a step for the test examples, and for the validation examples of tasks that have no others. Gives by
/// task the examples that it is worst at, and shows these to TensorBoard where they are pictures.
pub(super) fn save_predictions(
    trainer: &Trainer<'_>,
    file: &RunFile,
    (after, step): (&BTreeMap<String, (Split, Evaluation)>, u64),
    folder: &mut RunFolder,
) -> Result<BTreeMap<String, Vec<Worst>>> {
    let tasks: &[Task] = trainer.learner.tasks;
    let mut worst = BTreeMap::new();
    for (split, name) in [(Split::Test, predictions::FILE), (Split::Validation, predictions::VALIDATION)] {
        let mut predicted = Vec::new();
        for task in tasks {
            let data = if split == Split::Test { &task.test } else { &task.validation };
            let (Some(data), Some((on, evaluation))) = (data, after.get(&task.name)) else { continue };
            if *on == split {
                let (separator, labels) = (task.label_separator(file), task.train.labels());
                let task = task.name.as_str();
                predicted.push(Predicted { task, labels, separator, evaluation, data: Some(data) });
            }
        }
        let names: Vec<String> = predicted.iter().map(|task| task.task.to_owned()).collect();
        if !names.is_empty() {
            let found = predictions::write(&folder.path().join(name), &predicted, file.run.probabilities)?;
            for (i, (task, found)) in predicted.iter().zip(&found).enumerate() {
                let pictures = found.iter().filter_map(|worst| worst.picture.as_ref());
                for (number, picture) in (1..).zip(pictures) {
                    folder.show(&format!("{}/worst/{number:02}", task.task), step, picture)?;
                }
                if let Outcome::Masks(_) = task.evaluation.outcome {
                    save_overlays(folder, (tasks.len() > 1).then_some(i), found)?;
                }
            }
            worst.extend(names.into_iter().zip(found));
        }
    }
    Ok(worst)
}

/// Saves the pictures whose masks the model is far off at, beside what is true and what is predicted, as files to look at.
fn save_overlays(folder: &RunFolder, task: Option<usize>, worst: &[Worst]) -> Result<()> {
    let of_task = task.map_or(String::new(), |task| format!("{}-", task + 1));
    let overlays = folder.path().join(OVERLAYS);
    std::fs::create_dir_all(&overlays).map_err(cannot_write(&overlays))?;
    for (worst, picture) in worst.iter().filter_map(|worst| Some((worst, worst.picture.as_ref()?))) {
        folder.write(&format!("{OVERLAYS}/{of_task}{:06}.png", worst.example), &picture.to_png())?;
    }
    Ok(())
}
