//! Curves over the steps, from the lines of `metrics.jsonl`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::report::chart::{Chart, Scale, Series};
use crate::report::numbers::count;

/// A curve: steps and values.
pub(crate) type Points = Vec<(f64, f64)>;

/// Metrics of a validation that say best how good the model is, where it has them; otherwise all are drawn.
const SCORES: [&str; 5] = ["accuracy", "macro_f1", "entity_f1", "pearson", "spearman"];

/// What is drawn over the steps.
#[derive(Debug, Default)]
pub(crate) struct Curves {
    /// By task; under the empty name where there is one task.
    pub(crate) loss: BTreeMap<String, Points>,
    penalty: Points,
    /// Of each regularizer by its name, where there are several.
    penalties: BTreeMap<String, Points>,
    /// What plugins have told, by `METHOD/NAME`.
    scalars: BTreeMap<String, Points>,
    lr: Points,
    gradient_norm: Points,
    /// By task, then by metric.
    pub(crate) validation: BTreeMap<String, BTreeMap<String, Points>>,
}

impl Curves {
    /// Reads the lines of steps and validations. Other lines, and what else a line holds, are left alone.
    pub(crate) fn read(lines: &[Value]) -> Self {
        let mut curves = Self::default();
        for line in lines {
            let Some(step) = line["step"].as_f64() else { continue };
            match line["event"].as_str() {
                // A loss over nothing is no point of the curve.
                Some("step") if line["left_out"] == "no weight" => {}
                Some("step") => {
                    let mut loss = |task: &str, loss| add(curves.loss.entry(task.to_owned()).or_default(), step, loss);
                    match line["losses"].as_object() {
                        Some(losses) => losses.iter().for_each(|(task, value)| loss(task, Some(value))),
                        None => loss(line["task"].as_str().unwrap_or_default(), line.get("loss")),
                    }
                    add(&mut curves.penalty, step, line.get("penalty"));
                    for (name, value) in line["penalties"].as_object().into_iter().flatten() {
                        add(curves.penalties.entry(name.clone()).or_default(), step, Some(value));
                    }
                    add(&mut curves.lr, step, line.get("lr"));
                    add(&mut curves.gradient_norm, step, line.get("gradient_norm"));
                }
                Some("scalar") => {
                    let name = line["name"].as_str().unwrap_or_default();
                    add(curves.scalars.entry(name.to_owned()).or_default(), step, line.get("value"));
                }
                Some("evaluation") if line["when"] == "validation" => {
                    let task =
                        curves.validation.entry(line["task"].as_str().unwrap_or_default().to_owned()).or_default();
                    for (metric, value) in line["metrics"].as_object().into_iter().flatten() {
                        add(task.entry(metric.clone()).or_default(), step, Some(value));
                    }
                }
                _ => {}
            }
        }
        curves
    }

    /// A chart of each curve that there is, the loss first; wide where that fills the page's two columns. Of validations the metric that
    /// is `watched` is drawn, and the step of the model that was `saved` is marked.
    pub(crate) fn charts(&self, watched: Option<&str>, saved: Option<u64>) -> Vec<Chart> {
        let marked =
            |chart: Chart| saved.into_iter().fold(chart, |chart, step| chart.marker("saved model", step as f64));
        let steps = |title: &str, points: &Points| Chart::new(title, "step").y_scale(scale(points));
        let mut charts = Vec::new();
        let validation_loss = self.validation(|metric, _| metric == "loss");
        if !self.loss.is_empty() {
            let chart = match self.loss.values().next().filter(|_| self.loss.len() == 1) {
                Some(only) => noisy(steps("Training loss", only), "each step", only),
                None => self.loss.iter().fold(Chart::new("Training loss", "step"), |chart, (task, points)| {
                    chart.series(Series::new(task.clone(), smoothed(points, span(points.len()))))
                }),
            };
            charts.push(marked(validation_loss.into_iter().fold(chart, Chart::series)));
        } else if !validation_loss.is_empty() {
            let chart = Chart::new("Validation loss", "step");
            charts.push(marked(validation_loss.into_iter().fold(chart, Chart::series)));
        }
        let scores = self.validation(|metric, all| {
            let known = SCORES.iter().any(|&score| all.contains_key(score));
            let wanted = SCORES.contains(&metric) || (watched == Some(metric) && metric != "loss");
            if known { wanted } else { metric != "loss" }
        });
        if !scores.is_empty() {
            charts.push(marked(scores.into_iter().fold(Chart::new("Validation", "step"), Chart::series)));
        }
        if !self.lr.is_empty() {
            charts.push(Chart::new("Learning rate", "step").series(Series::new("learning rate", self.lr.clone())));
        }
        if !self.gradient_norm.is_empty() {
            let chart = steps("Gradient norm", &self.gradient_norm);
            charts.push(noisy(chart, "before clipping", &self.gradient_norm));
        }
        if !self.penalty.is_empty() {
            let all = Series::new("penalty", self.penalty.clone());
            let each = self.penalties.iter().map(|(name, points)| Series::new(name.clone(), points.clone()));
            charts.push(each.fold(steps("Penalty", &self.penalty).series(all), Chart::series));
        }
        for (name, points) in &self.scalars {
            charts.push(steps(name, points).series(Series::new(name.clone(), points.clone())));
        }
        if charts.len() % 2 == 1 {
            let first = charts.remove(0);
            charts.insert(0, first.wide());
        }
        charts
    }

    /// The validation metrics that are wanted among all of their task, each named with its task where there are several.
    fn validation(&self, wanted: impl Fn(&str, &BTreeMap<String, Points>) -> bool) -> Vec<Series> {
        let name = |task: &str, metric: &str| {
            let metric = if metric == "loss" { "validation".to_owned() } else { metric.replace('_', " ") };
            if self.validation.len() > 1 { format!("{task}: {metric}") } else { metric }
        };
        let of_task = |(task, all): (&String, &BTreeMap<String, Points>)| {
            let wanted = all.iter().filter(|(metric, _)| wanted(metric, all));
            wanted.map(|(metric, points)| Series::new(name(task, metric), points.clone()).marked()).collect::<Vec<_>>()
        };
        self.validation.iter().flat_map(of_task).collect()
    }
}

/// A curve that is noisy from step to step, behind itself smoothed.
fn noisy(chart: Chart, name: &str, points: &Points) -> Chart {
    let span = span(points.len());
    chart
        .series(Series::new(name, points.clone()).faint())
        .series(Series::new(format!("smoothed over {} steps", count(span)), smoothed(points, span)))
}

/// Adds a point where the line has the value. JSON has no number that is not finite: such a one was written as `null`.
fn add(points: &mut Points, step: f64, value: Option<&Value>) {
    let Some(value) = value else { return };
    // A run that was resumed repeats the steps since its checkpoint: what comes later counts.
    while points.last().is_some_and(|last| last.0 >= step) {
        points.pop();
    }
    points.push((step, value.as_f64().unwrap_or(f64::NAN)));
}

pub(crate) fn scale(points: &Points) -> Scale {
    Scale::fitting(points.iter().map(|point| point.1))
}

/// Steps that a smoothed curve averages over: a fiftieth of the run, so that it is as smooth in a long run as in a short one.
pub(crate) fn span(steps: usize) -> usize {
    (steps / 50).max(5)
}

/// An exponential moving average in which the first values count in full. Values that are not finite are passed over.
pub(crate) fn smoothed(points: &Points, span: usize) -> Points {
    let keep = 1.0 - 1.0 / span as f64;
    let (mut sum, mut weight) = (0.0, 0.0);
    let smooth = |&(step, value): &(f64, f64)| {
        (sum, weight) = (keep * sum + value, keep * weight + 1.0);
        (step, sum / weight)
    };
    points.iter().filter(|point| point.1.is_finite()).map(smooth).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_become_curves_and_unknown_ones_are_left_alone() {
        let lines = [
            json!({"event": "evaluation", "step": 0, "task": "t", "when": "before", "metrics": {"loss": 9.0}}),
            json!({"event": "step", "step": 1, "loss": 2.0, "lr": 0.1, "gradient_norm": null, "new": [1]}),
            json!({"event": "step", "step": 2, "loss": 1.0, "lr": 0.2, "gradient_norm": 3.0, "penalty": 0.5}),
            json!({
                "event": "evaluation", "step": 2, "task": "t", "when": "validation",
                "metrics": {"loss": 1.5, "macro_f1": 0.5},
            }),
            json!({"event": "checkpoint", "step": 2}),
            json!({"event": "step"}),
            json!("a string"),
            json!(null),
        ];
        let curves = Curves::read(&lines);
        assert_eq!(curves.loss[""], [(1.0, 2.0), (2.0, 1.0)]);
        assert_eq!(curves.penalty, [(2.0, 0.5)]);
        assert_eq!(curves.gradient_norm.len(), 2);
        assert!(curves.gradient_norm[0].1.is_nan());
        assert_eq!(curves.validation["t"]["macro_f1"], [(2.0, 0.5)]);
        assert_eq!(curves.validation["t"]["loss"], [(2.0, 1.5)]);
        assert_eq!(curves.charts(None, Some(2)).len(), 5);
        assert!(Curves::read(&[]).charts(None, None).is_empty());
    }

    #[test]
    fn losses_of_several_tasks_are_curves_of_their_own() {
        let line = |(step, task): (u64, &str)| json!({"event": "step", "step": step, "task": task, "loss": 1.0});
        let curves = Curves::read(&[(1, "a"), (2, "b"), (3, "a")].map(line));
        assert_eq!(curves.loss["a"], [(1.0, 1.0), (3.0, 1.0)]);
        assert_eq!((curves.loss["b"].len(), curves.charts(None, Some(2)).len()), (1, 1));
        let together = json!({"event": "step", "step": 1, "losses": {"a": 2.0, "b": 3.0}, "loss": 5.0});
        let curves = Curves::read(&[together]);
        assert_eq!(
            (curves.loss.len(), &curves.loss["a"], &curves.loss["b"]),
            (2, &vec![(1.0, 2.0)], &vec![(1.0, 3.0)])
        );
    }

    #[test]
    fn steps_that_a_resumed_run_repeats_replace_the_first_ones() {
        let line = |(step, loss): (u64, f64)| json!({"event": "step", "step": step, "loss": loss});
        let curves = Curves::read(&[(1, 5.0), (2, 4.0), (3, 3.0), (2, 4.5), (3, 3.5), (4, 2.5)].map(line));
        assert_eq!(curves.loss[""], [(1.0, 5.0), (2.0, 4.5), (3.0, 3.5), (4.0, 2.5)]);
    }

    #[test]
    fn the_first_values_count_in_full_when_smoothed() {
        let points = [4.0, 4.0, f64::NAN, 0.0].iter().enumerate().map(|(i, &y)| (i as f64, y)).collect();
        let smooth = smoothed(&points, 2);
        assert_eq!(smooth[..2], [(0.0, 4.0), (1.0, 4.0)]);
        assert!((smooth[2].1 - 3.0 / 1.75).abs() < 1e-12 && smooth.len() == 3, "{smooth:?}");
    }
}
