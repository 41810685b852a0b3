//! What tasks that train one after the other come to as numbers: how well each is known after each, how much is forgotten, and how much
//! one helps another.

use std::collections::BTreeMap;

use serde::Serialize;

use super::report::main_metric;
use crate::report::metrics::{Metrics, higher_is_better};
use crate::report::table::Table;
use crate::report::text::{NAME, shortened};
use crate::run::state::snapshot::After;

/// Each task's main metric on its test examples, before training and after each task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Continual {
    /// The tasks that were tested, in the order in which they trained: the columns.
    pub tasks: Vec<String>,
    /// The main metric of each.
    pub metrics: Vec<String>,
    /// The tasks that trained, in order: the rows.
    pub after: Vec<String>,
    /// Before training; empty where nothing was evaluated then.
    pub before: Vec<f64>,
    /// `matrix[i][j]`: task j after task i, also where j is still to come. `null` where a metric is not defined.
    pub matrix: Vec<Vec<f64>>,
    /// In numbers, for each metric over the tasks whose main one it is.
    pub summaries: Vec<Averages>,
}

/// What tasks of one metric come to. Differences are such that more of a transfer is better, and more forgetting worse, also where less of
/// the metric is better. `null` where there is no task to take the mean over, or a value is not defined.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Averages {
    /// The metric.
    pub metric: String,
    /// The tasks that have it.
    pub tasks: Vec<String>,
    /// Mean over the tasks after the last one.
    pub average: Option<f64>,
    /// Mean over the tasks before the last of the best value after any earlier task less the last one (Chaudhry et al. 2018,
    /// arXiv:1801.10112, section 4).
    pub forgetting: Option<f64>,
    /// Mean over the tasks before the last of the last value less that right after the task (Lopez-Paz and Ranzato 2017,
    /// arXiv:1706.08840, equation 3).
    pub backward_transfer: Option<f64>,
    /// Mean over the tasks but the first of the value right before the task less that before training (the same, equation 4).
    pub forward_transfer: Option<f64>,
}

impl Continual {
    /// From the metrics by task before training, and those after each task in turn; none where no tasks follow each other, or none is
    /// tested.
    pub fn of(before: &BTreeMap<String, Metrics>, sequence: &[After]) -> Option<Self> {
        let last = &sequence.last()?.metrics;
        let trained = sequence.iter().enumerate();
        let columns: Vec<(usize, &str, &str)> = trained
            .filter_map(|(place, After { task, .. })| Some((place, task.as_str(), main_metric(last.get(task)?)?.0)))
            .collect();
        if columns.is_empty() {
            return None;
        }
        let row = |metrics: &BTreeMap<String, Metrics>| -> Vec<f64> {
            let value = |&(_, task, metric): &(usize, &str, &str)| metrics.get(task)?.get(metric).copied();
            columns.iter().map(|column| value(column).unwrap_or(f64::NAN)).collect()
        };
        let matrix: Vec<Vec<f64>> = sequence.iter().map(|after| row(&after.metrics)).collect();
        let before = if before.is_empty() { Vec::new() } else { row(before) };
        let mut metrics: Vec<&str> = Vec::new();
        for &(_, _, metric) in &columns {
            if !metrics.contains(&metric) {
                metrics.push(metric);
            }
        }
        let averages = |metric: &str| {
            let of: Vec<usize> = (0..columns.len()).filter(|&j| columns[j].2 == metric).collect();
            let places = columns.iter().map(|column| column.0).collect::<Vec<_>>();
            let tasks = of.iter().map(|&j| columns[j].1.to_owned()).collect();
            let sign = if higher_is_better(metric) { 1.0 } else { -1.0 };
            Averages { tasks, ..Averages::of(metric, sign, &before, &matrix, &of, &places) }
        };
        let summaries = metrics.into_iter().map(averages).collect();
        let of_columns = |name: fn(&(usize, &str, &str)) -> String| columns.iter().map(name).collect();
        Some(Self {
            tasks: of_columns(|column| column.1.to_owned()),
            metrics: of_columns(|column| column.2.to_owned()),
            after: sequence.iter().map(|after| after.task.clone()).collect(),
            before,
            matrix,
            summaries,
        })
    }

    /// The rows: what each is called, how many tasks have trained by then, and the values.
    pub fn rows(&self) -> impl Iterator<Item = (String, usize, &[f64])> {
        let before = (!self.before.is_empty()).then(|| ("before training".to_owned(), 0, self.before.as_slice()));
        let after = (1..).zip(self.after.iter().zip(&self.matrix));
        before.into_iter().chain(after.map(|(trained, (task, row))| (format!("after {task}"), trained, row.as_slice())))
    }

    /// The table and its numbers as a person reads them on a terminal.
    pub fn to_text(&self) -> String {
        let mut table = Table::new().numbers_from(1);
        let heads = |names: &[String]| names.iter().map(|name| shortened(name, HEAD).into_owned()).collect::<Vec<_>>();
        let same = self.metrics.iter().all(|metric| *metric == self.metrics[0]);
        let mut line = |first: &str, cells: &[String]| {
            table.cells(std::iter::once(first).chain(cells.iter().map(String::as_str)));
        };
        line(if same { &self.metrics[0] } else { "" }, &heads(&self.tasks));
        if !same {
            line("", &heads(&self.metrics));
        }
        for (name, _, values) in self.rows() {
            line(&shortened(&name, NAME), &values.iter().map(|&value| four(value)).collect::<Vec<_>>());
        }
        let mut text = format!("{}\n", table.to_text().trim_end());
        for summary in &self.summaries {
            text += &format!("{}\n", summary.to_text());
        }
        text
    }
}

/// Characters of a task's name above its column.
const HEAD: usize = 12;

/// Four decimals, or that there is no number.
pub(super) fn four(value: f64) -> String {
    if value.is_finite() { format!("{value:.4}") } else { "-".to_owned() }
}

impl Averages {
    /// Over the columns `of`; the tasks of all columns trained at these `places`.
    fn of(metric: &str, sign: f64, before: &[f64], matrix: &[Vec<f64>], of: &[usize], places: &[usize]) -> Self {
        let end = matrix.len() - 1;
        let last = |j: usize| matrix[end][j];
        let earlier: Vec<usize> = of.iter().copied().filter(|&j| places[j] < end).collect();
        // Of tasks that are learned before one begins, what they say of it already.
        let later: Vec<usize> = of.iter().copied().filter(|&j| places[j] > 0 && !before.is_empty()).collect();
        let best = |j: usize| matrix[..end].iter().map(|row| sign * row[j]).fold(f64::NEG_INFINITY, most);
        Self {
            metric: metric.to_owned(),
            tasks: Vec::new(),
            average: mean(of, last),
            forgetting: mean(&earlier, |j| best(j) - sign * last(j)),
            backward_transfer: mean(&earlier, |j| sign * (last(j) - matrix[places[j]][j])),
            forward_transfer: mean(&later, |j| sign * (matrix[places[j] - 1][j] - before[j])),
        }
    }

    /// In words: `average accuracy 0.8312 over 10 tasks, forgetting 0.1034, backward transfer -0.1034`.
    pub fn to_text(&self) -> String {
        let Self { metric, tasks, .. } = self;
        let average = self.average.map_or("is not defined".to_owned(), |value| format!("{value:.4}"));
        let over = if tasks.len() == 1 { format!("of {}", tasks[0]) } else { format!("over {} tasks", tasks.len()) };
        let more = self.differences().into_iter().map(|(name, value)| format!(", {name} {value:.4}"));
        let name = if tasks.len() == 1 { "last" } else { "average" };
        format!("{name} {metric} {average} {over}{}", more.collect::<String>())
    }

    /// Those that there are, by name.
    pub fn differences(&self) -> Vec<(&'static str, f64)> {
        let all = [
            ("forgetting", self.forgetting),
            ("backward transfer", self.backward_transfer),
            ("forward transfer", self.forward_transfer),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// The greater of two; no number where one is none.
fn most(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// The mean of a value over columns, where there are some and all have one.
fn mean(columns: &[usize], value: impl Fn(usize) -> f64) -> Option<f64> {
    let sum: f64 = columns.iter().map(|&j| value(j)).sum();
    Some(sum / columns.len() as f64).filter(|mean| mean.is_finite())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// What tasks named by their numbers come to, each by a metric of its own.
    fn sequence(metrics: &[&str], before: &[f64], rows: &[&[f64]]) -> Option<Continual> {
        let row = |values: &[f64]| -> BTreeMap<String, Metrics> {
            let of = |(j, &value): (usize, &f64)| {
                (j.to_string(), Metrics::from([(metrics[j].to_owned(), value), ("macro_f1".into(), 0.5)]))
            };
            values.iter().enumerate().map(of).collect()
        };
        let after = |(i, values): (usize, &&[f64])| After { task: i.to_string(), metrics: row(values) };
        Continual::of(&row(before), &rows.iter().enumerate().map(after).collect::<Vec<_>>())
    }

    fn close(found: Option<f64>, expected: f64) {
        assert!((found.unwrap() - expected).abs() < 1e-12, "{found:?} is not {expected}");
    }

    #[test]
    fn what_is_forgotten_is_less_than_the_best_before_and_transfer_is_measured_around_each_task() {
        let rows: [&[f64]; 3] = [&[0.9, 0.3, 0.2], &[0.95, 0.8, 0.4], &[0.7, 0.6, 0.85]];
        let found = sequence(&["accuracy"; 3], &[0.1, 0.2, 0.1], &rows).unwrap();
        assert_eq!(found.matrix, rows.map(<[f64]>::to_vec));
        assert_eq!((found.before.as_slice(), found.after.len()), (&[0.1, 0.2, 0.1][..], 3));
        let [all] = found.summaries.as_slice() else { panic!("one metric") };
        close(all.average, (0.7 + 0.6 + 0.85) / 3.0);
        close(all.forgetting, ((0.95 - 0.7) + (0.8 - 0.6)) / 2.0);
        close(all.backward_transfer, ((0.7 - 0.9) + (0.6 - 0.8)) / 2.0);
        close(all.forward_transfer, ((0.3 - 0.2) + (0.4 - 0.1)) / 2.0);
        let text = found.to_text();
        assert!(
            text.starts_with("accuracy              0       1       2\nbefore training  0.1000  0.2000  0.1000\n"),
            "{text}"
        );
        assert!(
            text.ends_with(
                "after 2          0.7000  0.6000  0.8500\naverage accuracy 0.7167 over 3 tasks, forgetting 0.2250, backward \
                 transfer -0.2000, forward transfer 0.2000\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn of_a_metric_of_which_less_is_better_more_is_forgotten_too() {
        let found = sequence(&["loss"; 2], &[3.0, 3.0], &[&[0.5, 2.0], &[1.5, 0.4]]).unwrap();
        let [all] = found.summaries.as_slice() else { panic!("one metric") };
        close(all.average, 0.95);
        close(all.forgetting, 1.0);
        close(all.backward_transfer, -1.0);
        close(all.forward_transfer, 1.0);
        assert!(found.to_text().contains("average loss 0.9500 over 2 tasks"), "{}", found.to_text());
    }

    #[test]
    fn metrics_are_not_mixed_and_what_is_not_defined_stays_so() {
        let rows: [&[f64]; 3] = [&[0.9, f64::NAN, 0.2], &[0.8, 0.7, 0.3], &[0.6, 0.5, 0.9]];
        let found = sequence(&["accuracy", "pearson", "accuracy"], &[0.1, f64::NAN, 0.1], &rows).unwrap();
        let [accuracy, pearson] = found.summaries.as_slice() else { panic!("two metrics") };
        assert_eq!((accuracy.tasks.join(" "), pearson.tasks.join(" ")), ("0 2".into(), "1".into()));
        close(accuracy.average, 0.75);
        close(accuracy.forgetting, 0.3);
        close(accuracy.forward_transfer, 0.2);
        close(pearson.average, 0.5);
        close(pearson.backward_transfer, -0.2);
        assert_eq!((pearson.forgetting, pearson.forward_transfer), (None, None));
        let text = found.to_text();
        assert!(
            text.contains("0.9000        -    0.2000") && text.contains("last pearson 0.5000 of 1, backward"),
            "{text}"
        );
        assert!(serde_json::to_string(&found).unwrap().contains("[0.9,null,0.2]"));
    }

    #[test]
    fn without_an_evaluation_before_or_a_second_task_there_is_less_to_say() {
        let after = After { task: "0".into(), metrics: [("0".into(), [("accuracy".into(), 0.9)].into())].into() };
        let found = Continual::of(&BTreeMap::new(), std::slice::from_ref(&after)).unwrap();
        assert!(found.before.is_empty() && found.summaries[0].differences().is_empty(), "{found:?}");
        assert_eq!(found.summaries[0].average, Some(0.9));
        assert_eq!(Continual::of(&BTreeMap::new(), &[]), None);
        assert_eq!(Continual::of(&BTreeMap::new(), &[After { metrics: BTreeMap::new(), ..after }]), None);
    }
}
