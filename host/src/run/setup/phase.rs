//! What trains one after the other, and which task gives each batch.

use fthost_autograd::random::Stream;
use fthost_plugin_api::Progress;

use crate::data::{Permutation, Sampler};
use crate::run::file::{Sampling, TaskOrder, TrainTable};

/// Tasks that train together. A run of one task has one phase, joint tasks share one, and tasks in sequence have one each.
///
/// Each optimizer step learns from one task, or from all together. Which one is a function of the seed and the step, as is the order
/// of the examples: a resumed run needs nothing but its place.
#[derive(Clone, Debug)]
pub struct Phase {
    shares: Vec<Share>,
    /// Whether every step takes a batch of each task.
    together: bool,
    order: Stream,
    /// Passes over the examples; as many as the steps take where nothing is said.
    epochs: Option<u64>,
    /// Most steps to take.
    cap: Option<u64>,
}

/// What a task takes part in a phase.
#[derive(Clone, Debug)]
struct Share {
    /// Its place in the run file.
    task: usize,
    sampler: Sampler,
    /// Its batches in an epoch of the phase.
    batches: u64,
}

/// Examples of one task that an optimizer step learns from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The task's place in the run file.
    pub task: usize,
    /// Rows of the task's training examples.
    pub rows: Vec<u32>,
    /// Whether it is the task's first batch of the phase.
    pub first: bool,
}

impl Phase {
    /// The phases of a run, from its tasks' batches, each the examples of one optimizer step.
    pub fn all(settings: &TrainTable, samplers: &[Sampler]) -> Vec<Self> {
        let tasks: Vec<usize> = (0..samplers.len()).collect();
        let groups: Vec<&[usize]> = match settings.tasks {
            TaskOrder::Joint => vec![&tasks],
            TaskOrder::Sequence => tasks.chunks(1).collect(),
        };
        groups.into_iter().map(|group| Self::new(settings, group, samplers)).collect()
    }

    fn new(settings: &TrainTable, tasks: &[usize], samplers: &[Sampler]) -> Self {
        let samplers: Vec<Sampler> = tasks.iter().map(|&task| samplers[task].clone()).collect();
        let passes: Vec<u64> = samplers.iter().map(|sampler| sampler.batches().max(1) as u64).collect();
        let batches = share_out(&passes, settings.sampling);
        let shares = tasks.iter().zip(samplers).zip(batches);
        Self {
            shares: shares.map(|((&task, sampler), batches)| Share { task, sampler, batches }).collect(),
            together: settings.sampling == Sampling::Together,
            order: Stream::new(settings.seed, "tasks"),
            epochs: settings.epochs,
            cap: settings.steps,
        }
    }

    /// Places of its tasks in the run file.
    pub fn tasks(&self) -> impl Iterator<Item = usize> + '_ {
        self.shares.iter().map(|share| share.task)
    }

    /// Optimizer steps of one epoch. With several tasks that is as many as once through all their examples takes; through those of the
    /// largest where every step takes a batch of each.
    pub fn steps_per_epoch(&self) -> u64 {
        let batches = self.shares.iter().map(|share| share.batches);
        if self.together { batches.max().unwrap_or_default() } else { batches.sum() }
    }

    /// Optimizer steps in all.
    pub fn steps(&self) -> u64 {
        let all = self.epochs.map_or(u64::MAX, |epochs| self.steps_per_epoch().saturating_mul(epochs));
        self.cap.map_or(all, |cap| cap.min(all))
    }

    /// Its first step.
    pub fn begin(&self) -> Progress {
        Progress { step: 0, total_steps: self.steps(), steps_per_epoch: self.steps_per_epoch() }
    }

    /// Epochs that begin.
    pub fn epochs(&self) -> u64 {
        self.steps().div_ceil(self.steps_per_epoch())
    }

    /// Evaluations on validation examples: every so many steps, or at the end of each epoch.
    pub fn evaluations(&self, every: Option<u64>) -> u64 {
        every.map_or(self.epochs(), |every| self.steps() / every)
    }

    /// Those of them after which steps are left.
    pub fn evaluations_before_the_end(&self, every: Option<u64>) -> u64 {
        let all = self.evaluations(every);
        let last_at_the_end = every.is_none_or(|every| self.steps().is_multiple_of(every));
        all.saturating_sub(u64::from(last_at_the_end))
    }

    /// How often the phase goes through a task's examples: about, where tasks are mixed and steps are capped.
    pub fn passes(&self, task: usize) -> f64 {
        let epochs = self.steps() as f64 / self.steps_per_epoch() as f64;
        let of_task = self.shares.iter().filter(|share| share.task == task);
        of_task.map(|share| epochs * share.batches as f64 / share.sampler.batches().max(1) as f64).sum()
    }

    /// What each step of an epoch learns from, from step `first` on: a batch of one task, or of each.
    pub fn epoch_from(&self, epoch: u64, first: u64) -> impl Iterator<Item = Vec<Batch>> + Clone + Send + use<> {
        let turns = self.turns(epoch);
        // How many batches each task has given by then, in the whole phase.
        let mut given: Vec<u64> = self.shares.iter().map(|share| epoch * share.batches).collect();
        turns.iter().take(first as usize).flatten().for_each(|&turn| given[turn] += 1);
        let shares = self.shares.clone();
        turns.into_iter().skip(first as usize).filter_map(move |turns| {
            let batch = |turn: usize| {
                let Share { task, ref sampler, .. } = shares[turn];
                let number = given[turn];
                given[turn] += 1;
                let (pass, batch) = (number / sampler.batches() as u64, number % sampler.batches() as u64);
                let rows = sampler.batch(pass, batch as usize)?;
                Some(Batch { task, rows, first: number == 0 })
            };
            turns.into_iter().map(batch).collect()
        })
    }

    /// Whose turn it is at each step of an epoch: places in `shares`.
    fn turns(&self, epoch: u64) -> Vec<Vec<usize>> {
        if self.together {
            return vec![(0..self.shares.len()).collect(); self.steps_per_epoch() as usize];
        }
        let owners: Vec<usize> =
            self.shares.iter().enumerate().flat_map(|(i, share)| (0..share.batches).map(move |_| i)).collect();
        let order = Permutation::new(self.order.at(&[epoch]), owners.len() as u32);
        let place = |place: usize| if self.shares.len() == 1 { place } else { order.at(place as u32) as usize };
        (0..owners.len()).map(|step| vec![owners[place(step)]]).collect()
    }
}

/// The batches of each task in an epoch that has as many batches as once through all tasks, in proportion to a power of the tasks'
/// sizes: 1, 1/2 or 0. Every task has one at least. Together, each has as many as the largest.
fn share_out(passes: &[u64], sampling: Sampling) -> Vec<u64> {
    let power = match sampling {
        Sampling::Proportional => return passes.to_vec(),
        Sampling::Together => return vec![passes.iter().copied().max().unwrap_or_default(); passes.len()],
        Sampling::Sqrt => 0.5,
        Sampling::Uniform => 0.0,
    };
    let total: u64 = passes.iter().sum();
    let weights: Vec<f64> = passes.iter().map(|&batches| (batches as f64).powf(power)).collect();
    let sum: f64 = weights.iter().sum();
    let wanted = |i: usize| total as f64 * weights[i] / sum;
    let mut shares: Vec<u64> = (0..passes.len()).map(|i| (wanted(i) as u64).max(1)).collect();
    // What rounding left goes to those that it took most from.
    let mut order: Vec<usize> = (0..passes.len()).collect();
    order.sort_by(|&a, &b| (wanted(b).fract()).total_cmp(&wanted(a).fract()));
    let left = total.saturating_sub(shares.iter().sum());
    order.iter().cycle().take(left as usize).for_each(|&i| shares[i] += 1);
    shares
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::data::Shuffled;
    use crate::run::file::RunFile;

    /// The settings of a run file with two tasks.
    fn settings(train: &str) -> TrainTable {
        let task = |name| format!("[[task]]\nname = \"{name}\"\nhead = {{ plugin = \"h\" }}\ntrain = \"a.tsv\"\n");
        let text = format!("[model]\npath = \"m\"\n{}{}[train]\nbatch_size = 2\n{train}", task("a"), task("b"));
        RunFile::parse(&text, std::path::Path::new("run.toml"), &[]).unwrap().train
    }

    fn all(settings: &TrainTable, examples: &[usize]) -> Vec<Phase> {
        let sampler =
            |&examples: &usize| Sampler::Shuffled(Shuffled::new(settings.seed, examples, settings.examples_per_step()));
        Phase::all(settings, &examples.iter().map(sampler).collect::<Vec<_>>())
    }

    /// Batches of the first epochs as the task's number followed by its rows.
    fn batches(phase: &Phase, epochs: u64) -> Vec<Batch> {
        (0..epochs).flat_map(|epoch| phase.epoch_from(epoch, 0)).flatten().collect()
    }

    #[test]
    fn one_task_takes_the_samplers_batches() {
        let settings = settings("seed = 3");
        let phases = all(&settings, &[7]);
        assert_eq!((phases.len(), phases[0].steps_per_epoch(), phases[0].steps()), (1, 4, 12));
        let sampler = Shuffled::new(3, 7, 2);
        let expected: Vec<Vec<u32>> = (0..2).flat_map(|epoch| sampler.epoch(epoch)).collect();
        let found = batches(&phases[0], 2);
        assert_eq!(found.iter().map(|batch| batch.rows.clone()).collect::<Vec<_>>(), expected);
        assert_eq!(found.iter().position(|batch| batch.first), Some(0));
        assert_eq!(found.iter().filter(|batch| batch.first).count(), 1);
    }

    #[test]
    fn joint_tasks_in_proportion_pass_once_through_each_of_them() {
        let settings = settings("epochs = 2");
        let phases = all(&settings, &[5, 12]);
        let [phase] = phases.as_slice() else { panic!("joint tasks share a phase") };
        assert_eq!((phase.steps_per_epoch(), phase.steps()), (3 + 6, 18));
        for epoch in 0..2 {
            for (task, examples) in [(0, 5), (1, 12)] {
                let own = phase.epoch_from(epoch, 0).flatten().filter(|batch| batch.task == task);
                let mut rows: Vec<u32> = own.flat_map(|batch| batch.rows).collect();
                rows.sort_unstable();
                assert_eq!(rows, (0..examples).collect::<Vec<u32>>(), "task {task}");
            }
        }
        let turns = |epoch| phase.epoch_from(epoch, 0).flatten().map(|batch| batch.task).collect::<Vec<_>>();
        assert_ne!(turns(0), turns(1), "each epoch has an order of its own");
    }

    #[test]
    fn an_epoch_goes_on_at_any_batch() {
        for sampling in ["proportional", "sqrt", "uniform", "together"] {
            let phases = all(&settings(&format!("sampling = \"{sampling}\"")), &[3, 20, 9]);
            for epoch in 0..3 {
                let all: Vec<Vec<Batch>> = phases[0].epoch_from(epoch, 0).collect();
                assert_eq!(all.len() as u64, phases[0].steps_per_epoch());
                for first in 0..all.len() {
                    let rest: Vec<Vec<Batch>> = phases[0].epoch_from(epoch, first as u64).collect();
                    assert_eq!(rest, all[first..], "{sampling}");
                }
            }
        }
    }

    #[test]
    fn together_every_step_takes_a_batch_of_each_task() {
        let phases = all(&settings("sampling = \"together\"\nepochs = 2"), &[5, 12]);
        let [phase] = phases.as_slice() else { panic!("joint tasks share a phase") };
        assert_eq!((phase.steps_per_epoch(), phase.steps(), phase.passes(0), phase.passes(1)), (6, 12, 4.0, 2.0));
        let steps: Vec<Vec<Batch>> = (0..2).flat_map(|epoch| phase.epoch_from(epoch, 0)).collect();
        assert!(steps.iter().all(|step| step.iter().map(|batch| batch.task).eq([0, 1])));
        assert!(steps[0].iter().all(|batch| batch.first) && !steps[6].iter().any(|batch| batch.first));
        // The smaller task begins anew where it ends, in another order; the larger passes once an epoch.
        let rows = |task: usize, from: usize, count: usize| {
            let batches = steps[from..from + count].iter().flat_map(|step| step[task].rows.clone());
            batches.collect::<Vec<u32>>()
        };
        let sorted = |mut rows: Vec<u32>| {
            rows.sort_unstable();
            rows
        };
        assert_eq!(sorted(rows(0, 0, 3)), (0..5).collect::<Vec<u32>>());
        assert_eq!(sorted(rows(0, 3, 3)), (0..5).collect::<Vec<u32>>());
        assert_ne!(rows(0, 0, 3), rows(0, 3, 3));
        assert_eq!(sorted(rows(1, 0, 6)), (0..12).collect::<Vec<u32>>());
    }

    #[test]
    fn sampling_rules() {
        let check = |passes: &[u64], sampling, expected: &[u64]| assert_eq!(share_out(passes, sampling), expected);
        check(&[100, 1], Sampling::Proportional, &[100, 1]);
        check(&[100, 1], Sampling::Uniform, &[51, 50]);
        check(&[81, 9, 10], Sampling::Sqrt, &[59, 20, 21]);
        check(&[90_000, 1], Sampling::Sqrt, &[89_702, 299]);
        check(&[7, 7, 7], Sampling::Uniform, &[7, 7, 7]);
        check(&[3, 7, 5], Sampling::Together, &[7, 7, 7]);
    }

    #[test]
    fn steps_are_taken_where_nothing_is_said_of_epochs() {
        let check = |train: &str, steps: u64, epochs: u64| {
            let phase = &all(&settings(train), &[7])[0]; // 4 steps an epoch
            assert_eq!((phase.steps(), phase.epochs()), (steps, epochs), "{train}");
        };
        check("", 12, 3);
        check("steps = 60", 60, 15);
        check("steps = 61", 61, 16);
        check("epochs = 2\nsteps = 60", 8, 2);
        check("epochs = 2\nsteps = 5", 5, 2);
        check("epochs = 9\nsteps = 5", 5, 2);
    }

    #[test]
    fn evaluations_are_counted() {
        let check = |train: &str, every: Option<u64>, expected: (u64, u64)| {
            let phase = &all(&settings(train), &[7])[0]; // 4 steps an epoch
            assert_eq!(
                (phase.evaluations(every), phase.evaluations_before_the_end(every)),
                expected,
                "{train} {every:?}"
            );
        };
        check("", None, (3, 2));
        check("steps = 10", None, (3, 2));
        check("", Some(12), (1, 0));
        check("", Some(13), (0, 0));
        check("", Some(5), (2, 2));
        check("", Some(4), (3, 2));
    }

    #[test]
    fn tasks_in_sequence_have_a_phase_each_and_the_cap_is_that_of_each() {
        let phases = all(&settings("tasks = \"sequence\"\nsteps = 4"), &[5, 40]);
        let found: Vec<(Vec<usize>, u64)> = phases.iter().map(|p| (p.tasks().collect(), p.steps())).collect();
        assert_eq!(found, [(vec![0], 4), (vec![1], 4)]);
        assert!(batches(&phases[1], 1)[0].first);
        assert!((phases[1].passes(1) - 0.2).abs() < 1e-12 && phases[1].passes(0) == 0.0);
    }
}
