//! How well a run's encoder tells apart classes that it may never have seen, from a few examples of each: accuracy over episodes.

use std::path::Path;

use fthost_autograd::{DType, Tape, Tensor};
use fthost_plugin_api::TargetKind;
use serde::Serialize;

use super::model::TrainedModel;
use crate::data::{self, Episodes, Files, Source, episodes};
use crate::report::progress::EvaluationProgress;
use crate::run::pass::episode_shape;
use crate::run::results::evaluate;
use crate::{Error, Result};

/// Accuracy over episodes.
#[derive(Clone, Debug, Serialize)]
pub struct FewShot {
    /// Number of episodes.
    pub episodes: usize,
    /// What each is made of.
    #[serde(flatten)]
    pub shape: episodes::Shape,
    /// Classes of the file, from which episodes draw theirs.
    pub classes: usize,
    /// Mean over the episodes of the share of queries that were told right.
    pub accuracy: f64,
    /// Half of the 95 % interval of this mean: 1.96 standard errors.
    pub interval: f64,
}

impl FewShot {
    /// As a person reads it.
    pub fn to_text(&self, task: &str) -> String {
        let Self { episodes, shape, classes, accuracy, interval } = self;
        format!(
            "{task}: accuracy {accuracy:.4}, give or take {interval:.4} (95 % interval), over {episodes} episodes of {} of the {classes} \
             classes, with {} support examples and {} queries each",
            shape.ways, shape.shots, shape.queries
        )
    }
}

impl TrainedModel {
    /// Draws episodes from a file of labelled examples, whose classes need not be those of the training, lets the head take its
    /// prototypes from the support examples of each, and counts the queries that it tells right. Episodes follow from `seed`.
    /// What the head has of the training's classes is lost.
    ///
    /// # Errors
    /// Where there is no such task, its head does not learn by episodes, or the file has too few classes or examples.
    pub fn few_shot(
        &mut self,
        task: Option<&str>,
        path: &Path,
        number: usize,
        seed: u64,
        shown: bool,
    ) -> Result<(String, FewShot)> {
        let place = self.place(task)?;
        let task = &self.tasks[place];
        let Some(shape) = episode_shape(&task.spec) else {
            return Err(Error::usage(format!("the head of the task {} does not learn by episodes", task.name))
                .with_help("leave --episodes out, or train a head that does"));
        };
        let files = Files::from(path);
        let of_file = Source { labels: None, ..self.source(task, &files) };
        let mut data = data::load(&of_file, task.tokenizer.as_ref())?;
        data.set_targets(TargetKind::Class)?;
        let episodes = Episodes::new(seed, &data, shape)?;
        let rows: Vec<u32> = (0..data.len() as u32).collect();
        let outputs = evaluate::outputs(&self.pass(task, &data), &rows)?; // [examples, ...]
        let name = task.name.clone();

        let (model, head) = (&mut self.model, &self.tasks[place].head);
        let progress = EvaluationProgress::new(shown, "episodes", number);
        let places: Vec<u32> = (0..shape.size() as u32).collect();
        let (support, queries): (Vec<u32>, Vec<u32>) =
            places.into_iter().partition(|&place| shape.supports(place as usize));
        let class = |places: &[u32]| places.iter().map(|&place| place / shape.per_class() as u32).collect::<Vec<u32>>();
        let (support_classes, query_classes) = (class(&support), class(&queries));
        let mut accuracies = Vec::with_capacity(number);
        for episode in 0..number as u64 {
            let rows = episodes.episode(0, episode);
            let of = |places: &[u32]| {
                let rows: Vec<u32> = places.iter().map(|&place| rows[place as usize]).collect();
                outputs.index_select(&Tensor::new(rows, outputs.device())?, 0)
            };
            head.fit(model, &of(&support)?, &Tensor::new(support_classes.as_slice(), outputs.device())?)?;
            let tape = Tape::evaluation();
            let predicted = head.predict(&tape, &fthost_autograd::Value::constant(of(&queries)?))?; // [queries, classes]
            let predicted = predicted.argmax(1)?.to_dtype(DType::U32)?.to_vec1::<u32>()?;
            let right = predicted.iter().zip(&query_classes).filter(|(predicted, class)| predicted == class).count();
            accuracies.push(right as f64 / queries.len() as f64);
            progress.advance(1);
        }
        let (accuracy, interval) = mean_and_interval(&accuracies);
        let classes = data.labels().len();
        Ok((name, FewShot { episodes: number, shape, classes, accuracy, interval }))
    }
}

/// The mean, and 1.96 times its standard error; the error of one value is taken as 0.
fn mean_and_interval(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, 1.96 * (squares / (n - 1.0).max(1.0) / n).sqrt())
}

#[cfg(test)]
mod tests {
    use super::mean_and_interval;

    #[test]
    fn the_interval_is_that_of_the_mean() {
        assert_eq!(mean_and_interval(&[0.5]), (0.5, 0.0));
        let (mean, interval) = mean_and_interval(&[0.2, 0.4, 0.6, 0.8]);
        // The standard deviation is sqrt(0.2 / 3).
        assert!((mean - 0.5).abs() < 1e-12 && (interval - 1.96 * (0.2f64 / 3.0).sqrt() / 2.0).abs() < 1e-12);
    }
}
