//! The learning rates of a run, as its plan shows them before the first step.

use fthost_plugin_api::{Group, Progress};
use serde::Serialize;

use super::schedules::Schedules;
use crate::Result;
use crate::adapted::{AdaptedModel, ModelParameter};
use crate::report::numbers::significant;
use crate::run::file::RunFile;

/// What is part of no stream.
pub(crate) const HEADS: &str = "heads";
/// Columns of a picture.
const COLUMNS: u64 = 40;
/// Steps among which the one with the largest rate is looked for at first.
const ASKED: u64 = 1000;
/// From the lowest rate to the largest.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The rates of a stream's parameters, or of heads and of all that is part of no stream. Evaluations have no say in them: a schedule that
/// reacts to those goes as it does without any.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// The stream's name, or `heads`; empty where all parameters are meant.
    pub of: String,
    /// The schedule.
    pub schedule: String,
    /// Steps all over the run, counted from 1, with the rate of the fastest of the parameters.
    pub points: Vec<(u64, f64)>,
    /// The first step with the largest rate, and that rate.
    pub largest: (u64, f64),
    /// The rate of the last step.
    pub last: f64,
    /// The smallest and the largest factor by which `train.lr` is multiplied for what trains, as far as strategies have set them by now.
    pub factors: [f64; 2],
    /// Whether anything of it trains by now.
    pub trains: bool,
}

/// What rates follow from.
pub(crate) struct Run<'a> {
    pub(crate) file: &'a RunFile,
    pub(crate) model: &'a AdaptedModel,
    pub(crate) schedules: &'a Schedules,
    /// The first step of each phase.
    pub(crate) phases: Vec<Progress>,
    /// The optimizer's momentum or beta1.
    pub(crate) momentum: f64,
}

impl Run<'_> {
    /// The rates, where there are several streams or schedules, or where rates change.
    ///
    /// # Errors
    /// A schedule's own.
    pub(crate) fn rates(&self) -> Result<Vec<Rates>> {
        let streams = &self.model.model.info().streams;
        if streams.len() > 1 || self.schedules.len() > 1 {
            let own = streams.iter().enumerate().map(|(i, stream)| (stream.name.as_str(), Some(i)));
            return own.chain([(HEADS, None)]).map(|(name, of)| self.of(name, of, &|p| p.stream == of)).collect();
        }
        let rates = self.of("", None, &|_| true)?;
        let changes = rates.points.iter().any(|(_, rate)| *rate != rates.last);
        Ok(if changes { vec![rates] } else { Vec::new() })
    }

    /// The rates of the parameters that are `own`, by the schedule of their stream.
    fn of(&self, name: &str, stream: Option<usize>, own: &dyn Fn(&ModelParameter) -> bool) -> Result<Rates> {
        let &Self { file, model, schedules, ref phases, momentum } = self;
        let training = || model.trainable().filter(|p| own(p)).map(|p| p.lr_factor);
        let trains = training().next().is_some();
        let factors = match trains {
            true => [training().fold(f64::INFINITY, f64::min), training().fold(0.0, f64::max)],
            false => [1.0; 2],
        };
        // The top block stands for a stream: schedules know groups by their names and numbers.
        let info = model.model.info();
        let top = info.groups.iter().rposition(|group| group.stream == stream).unwrap_or(info.head_group());
        let (group, of, number) = model.block_group(top);
        let group = Group { name: group, number, stream: of, lr: file.train.lr * factors[1], momentum };
        let method = &file.schedules[schedules.place_of(stream)];
        let rate = |now: &Progress| {
            let rate = schedules.of(stream).rate(now, &group);
            rate.map(|rate| rate.lr).map_err(|error| file.at_option(method, error))
        };
        let Curve { points, largest, last } = Curve::of(phases, &rate)?;
        Ok(Rates { of: name.to_owned(), schedule: method.plugin.clone(), points, largest, last, factors, trains })
    }
}

/// A rate over the run.
#[derive(Debug, Default, PartialEq)]
struct Curve {
    points: Vec<(u64, f64)>,
    largest: (u64, f64),
    last: f64,
}

impl Curve {
    fn of(phases: &[Progress], rate: &dyn Fn(&Progress) -> Result<f64>) -> Result<Self> {
        let steps: u64 = phases.iter().map(|phase| phase.total_steps).sum();
        let Some(end) = steps.checked_sub(1) else { return Ok(Self::default()) };
        let at = |mut step: u64| {
            // Each phase begins its schedules anew.
            for phase in phases {
                if step < phase.total_steps {
                    return rate(&Progress { step, ..*phase });
                }
                step -= phase.total_steps;
            }
            Ok(0.0) // behind the last step
        };
        let columns = COLUMNS.min(steps);
        let column = |i: u64| {
            let step = end * i / (columns - 1).max(1);
            Ok((step + 1, at(step)?))
        };
        let points = (0..columns).map(column).collect::<Result<Vec<_>>>()?;

        let mut largest = (0, at(0)?);
        let look = |step: u64, largest: &mut (u64, f64)| {
            let rate = at(step)?;
            if rate > largest.1 {
                *largest = (step, rate);
            }
            Ok::<_, crate::Error>(())
        };
        let stride = steps.div_ceil(ASKED);
        (0..steps).step_by(stride as usize).try_for_each(|step| look(step, &mut largest))?;
        let near = largest.0.saturating_sub(stride)..(largest.0 + stride).min(steps);
        near.into_iter().try_for_each(|step| look(step, &mut largest))?;
        Ok(Self { points, largest: (largest.0 + 1, largest.1), last: at(end)? })
    }
}

/// A line each, as a person reads them.
pub(crate) fn lines(all: &[Rates]) -> Vec<String> {
    let width = all.iter().map(|rates| rates.of.chars().count()).max().unwrap_or_default();
    let gap = if width > 0 { "  " } else { "" };
    all.iter().map(|rates| format!("{:width$}{gap}{}", rates.of, rates.to_text())).collect()
}

impl Rates {
    /// `▁▃▅▇█▇▅▃▁  5e-4 at step 30, 1e-6 at the end`
    fn to_text(&self) -> String {
        let (step, largest) = self.largest;
        let block = |&(_, rate): &(u64, f64)| {
            let share = if largest > 0.0 { rate / largest } else { 0.0 };
            BLOCKS[((share * 7.0).round() as usize).min(7)]
        };
        let picture: String = self.points.iter().map(block).collect();
        let (end, peak) = (format!("{} at the end", significant(self.last)), significant(largest));
        let rates = match self.points.last() {
            _ if self.points.iter().all(|(_, rate)| *rate == self.last) => format!("{peak} throughout"),
            Some((last, _)) if *last == step => end,
            _ if largest == self.last => format!("{peak} at step {step} and at the end"),
            _ => format!("{peak} at step {step}, {end}"),
        };
        let [least, most] = self.factors;
        let slower = match least < most {
            true => format!(", by parameter down to {} times that", significant(least / most)),
            false => String::new(),
        };
        let frozen = if self.trains { "" } else { ", nothing of it trains at first" };
        format!("{picture}  {rates}{slower}{frozen}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn phase(total_steps: u64) -> Progress {
        Progress { step: 0, total_steps, steps_per_epoch: 10 }
    }

    fn rates(of: &str, phases: &[Progress], rate: impl Fn(&Progress) -> f64) -> Rates {
        let Curve { points, largest, last } = Curve::of(phases, &|now| Ok(rate(now))).unwrap();
        Rates { of: of.into(), schedule: "s".into(), points, largest, last, factors: [1.0; 2], trains: true }
    }

    #[test]
    fn a_rate_is_drawn_over_all_phases() {
        let rises = |now: &Progress| 1e-3 * now.step as f64 / 7.0;
        let one = rates("", &[phase(8)], rises);
        assert_eq!(one.points.len(), 8, "no more columns than steps");
        assert_eq!(
            (one.points[1], one.largest, one.last),
            ((2, rises(&Progress { step: 1, ..phase(8) })), (8, 1e-3), 1e-3)
        );
        let two = rates("", &[phase(8), phase(4)], rises);
        assert_eq!(two.largest, (8, 1e-3));
        assert_eq!(lines(&[one, two])[1], "▁▂▃▄▅▆▇█▁▂▃▄  0.001 at step 8, 4.286e-4 at the end");
        assert_eq!(rates("", &[], rises).points, []);
    }

    #[test]
    fn the_largest_of_very_many_rates_is_found() {
        let peak = |now: &Progress| 5e-4 - 1e-9 * now.step.abs_diff(31_234) as f64;
        let found = rates("", &[phase(100_000)], peak);
        assert_eq!((found.largest, found.points.len()), ((31_235, 5e-4), 40));
        assert_eq!((found.points[0].0, found.points[39].0), (1, 100_000));
    }

    #[test]
    fn lines_say_of_what_they_are() {
        let constant = |of: &str| rates(of, &[phase(3)], |_| 2e-5);
        let slower = Rates { factors: [0.05, 0.5], ..constant("image") };
        let frozen = Rates { trains: false, ..rates("heads", &[phase(2)], |now| now.step as f64) };
        assert_eq!(
            lines(&[constant("text"), slower, frozen]),
            [
                "text   ███  2e-5 throughout",
                "image  ███  2e-5 throughout, by parameter down to 0.1 times that",
                "heads  ▁█  1 at the end, nothing of it trains at first",
            ]
        );
        assert_eq!(lines(&[rates("", &[phase(2)], |_| 0.0)]), ["▁▁  0 throughout"]);
        let warmed = |now: &Progress| 2.0 * f64::min(now.step as f64, 2.0);
        assert_eq!(lines(&[rates("", &[phase(4)], warmed)]), ["▁▅██  4 at step 3 and at the end"]);
    }
}
