//! What a head is given: features of the toy model, and targets of every kind.

use std::sync::Arc;

use super::{
    forward,
    ops::{concat, mul, narrow},
    random::Stream,
    run::Run,
    toy::{PICTURE, Toy, VOCABULARY},
    value::Value,
};
use crate::{DType, Error, FeatureKind, HeadSpec, Result, Sampling, StreamFeatures, TargetKind};

/// What is read of one stream.
#[derive(Clone)]
pub(super) struct Read {
    pub(super) features: Value,
    pub(super) offsets: Vec<u32>,
}

/// One batch of them. Pairs of answers are two sequences each.
#[derive(Clone)]
pub(super) struct Examples {
    /// By the streams that the head reads.
    pub(super) reads: Vec<Read>,
    pub(super) targets: Value,
    /// The token after each, where the better of two answers is learned.
    pub(super) next: Option<Value>,
    /// 1 for support rows of an episode.
    pub(super) support: Vec<u8>,
    /// Sequences of an example.
    pub(super) pair: usize,
    /// How often each example passes: features hold all rows of the first pass, then all of the second.
    pub(super) passes: usize,
}

/// A target that does not count.
const IGNORED: f64 = u32::MAX as f64;

/// The streams that a head reads: its toy, width and kind of features for each.
pub(super) fn reads_of(run: &Run, spec: &HeadSpec) -> Result<Vec<(Toy, usize, FeatureKind)>> {
    let towers = run.towers();
    let names = || towers.iter().map(|(toy, _)| format!("{:?}", toy.stream())).collect::<Vec<_>>().join(" and ");
    if let ([], [_, _, ..]) = (spec.streams.as_slice(), towers.as_slice()) {
        return Err(Error::new(format!("it names no stream that it reads, and the toy model has {}", names())));
    }
    let of_stream = |read: &StreamFeatures| {
        let found = towers.iter().find(|(toy, _)| toy.stream() == read.stream);
        let found = found.map(|&(toy, width)| (toy, width, read.features));
        found.ok_or_else(|| {
            let (wanted, has) = (&read.stream, names());
            Error::new(format!("it reads the stream {wanted:?}, and the toy model has {has} alone"))
        })
    };
    match spec.streams.as_slice() {
        [] => Ok(towers.iter().map(|&(toy, width)| (toy, width, spec.features)).collect()),
        streams => streams.iter().map(of_stream).collect(),
    }
}

impl Read {
    /// Of so many sequences through a toy: itself, or of a pair the one of this stream.
    fn new(run: &Arc<Run>, (toy, width, kind): (Toy, usize, FeatureKind), sequences: usize) -> Result<Self> {
        let other = Run::new(toy, None, run.seed);
        let found = forward::features(if toy == run.toy { run } else { &other }, &toy.batch(sequences))?;
        let (features, offsets) = match kind {
            FeatureKind::Pooled => (found.pooled, (0..=sequences as u32).collect()),
            FeatureKind::Sequence | FeatureKind::Spatial => (found.sequence, found.offsets),
        };
        Ok(Self { features: narrow(&features, 1, 0, width)?.detached(), offsets })
    }

    fn rows(&self) -> usize {
        self.features.shape()[0]
    }

    /// Twice and more, each time with other features dropped.
    fn in_training(&self, passes: usize) -> Result<Self> {
        const DROPPED: f64 = 0.2;
        let dropped = |pass: usize| {
            let stream = Stream::new(pass as u64, "masks");
            let keeps = |i| if stream.uniform(i) < DROPPED { 0.0 } else { 1.0 / (1.0 - DROPPED) };
            let mask = (0..self.features.data().len() as u64).map(keeps).collect();
            mul(&self.features, &Value::constant(self.features.dtype(), self.features.shape(), mask))
        };
        let features = (0..passes).map(dropped).collect::<Result<Vec<_>>>()?;
        let rows = self.rows() as u32;
        let ends = (0..passes as u32).flat_map(|pass| self.offsets[1..].iter().map(move |end| pass * rows + end));
        let offsets = std::iter::once(0).chain(ends).collect();
        Ok(Self { features: concat(&features.iter().collect::<Vec<_>>(), 0)?, offsets })
    }

    /// Where the sequences of an example start in one of its passes, and the end of the last.
    fn bounds(&self, of: &Examples, example: usize, pass: usize) -> &[u32] {
        let first = (pass * of.len() + example) * of.pair;
        &self.offsets[first..=first + of.pair]
    }

    /// The rows of an example in one of its passes, of what stands beside the features.
    fn of_pass(&self, x: &Value, of: &Examples, example: usize, pass: usize) -> Result<Value> {
        let bounds = self.bounds(of, example, pass);
        narrow(x, 0, bounds[0] as usize, (bounds[of.pair] - bounds[0]) as usize)
    }

    /// The same in all of them.
    fn of_passes(&self, x: &Value, of: &Examples, example: usize) -> Result<Value> {
        let parts = (0..of.passes).map(|pass| self.of_pass(x, of, example, pass)).collect::<Result<Vec<_>>>()?;
        concat(&parts.iter().collect::<Vec<_>>(), 0)
    }

    /// An example alone, with all its passes.
    fn one(&self, of: &Examples, example: usize) -> Result<Self> {
        let bounds = self.bounds(of, example, 0);
        let (start, length) = (bounds[0], bounds[of.pair] - bounds[0]);
        let ends =
            (0..of.passes as u32).flat_map(|pass| bounds[1..].iter().map(move |end| pass * length + end - start));
        let offsets = std::iter::once(0).chain(ends).collect();
        Ok(Self { features: self.of_passes(&self.features, of, example)?, offsets })
    }
}

impl Examples {
    /// With so many classes, and so many sequences in each where its targets say nothing else.
    pub(super) fn new(run: &Arc<Run>, spec: &HeadSpec, classes: usize, sequences: usize) -> Result<Self> {
        let (mut n, mut support) = (5, Vec::new());
        let mut ways = classes;
        if let Sampling::Episodes { ways: of, shots, queries, .. } = spec.sampling {
            ways = (of as usize).min(classes.max(1));
            n = ways * (shots + queries) as usize;
            support = (0..n).map(|row| u8::from(row < ways * shots as usize)).collect();
        }
        let pair = if spec.targets == TargetKind::Preference { 2 } else { sequences };
        let reads = reads_of(run, spec)?.into_iter().map(|of| Read::new(run, of, n * pair));
        let reads = reads.collect::<Result<Vec<_>>>()?;
        let (rows, offsets) = (reads[0].rows(), &reads[0].offsets);
        let class = |i: usize, of: usize| (i % of.max(1)) as f64;
        let stream = Stream::new(11, "targets");
        let u32s = |shape: &[usize], value: &dyn Fn(usize) -> f64| {
            Value::constant(DType::U32, shape, (0..shape.iter().product()).map(value).collect())
        };
        let floats = |shape: &[usize], value: &dyn Fn(usize) -> f64| {
            Value::constant(DType::F32, shape, (0..shape.iter().product()).map(value).collect())
        };
        // Every third token or pixel does not count, nor does the last of a sequence whose next token is asked for.
        let some = |i: usize, of: usize| if i % 3 == 2 { IGNORED } else { class(i, of) };
        let next = |i: usize| if offsets.contains(&(i as u32 + 1)) { IGNORED } else { class(i * 5 + 3, VOCABULARY) };
        let targets = match spec.targets {
            TargetKind::Class => u32s(&[n], &|i| class(i, ways)),
            TargetKind::Value => floats(&[n], &|i| stream.normal(i as u64)),
            TargetKind::TokenClass => u32s(&[rows], &|i| some(i, classes)),
            TargetKind::MultiLabel => floats(&[n, classes], &|i| f64::from(u8::from(i % 3 == 0))),
            TargetKind::Mask => u32s(&[n, PICTURE[0], PICTURE[1]], &|i| some(i, classes)),
            TargetKind::NextToken => u32s(&[rows], &next),
            TargetKind::MaskedToken => u32s(&[rows], &|i| some(i, VOCABULARY)),
            TargetKind::Preference => floats(&[n, 2], &|_| 0.0),
            TargetKind::Match => u32s(&[n], &|i| i as f64),
        };
        let next = (spec.targets == TargetKind::Preference).then(|| u32s(&[rows], &next));
        Ok(Self { reads, targets, next, support, pair, passes: 1 })
    }

    /// The same as training has them: each example passes so many times, under dropout masks of its own.
    pub(super) fn in_training(self, passes: usize) -> Result<Self> {
        if passes == 1 {
            return Ok(self);
        }
        let all = |one: &Value| concat(&vec![one; passes], 0);
        Ok(Self {
            reads: self.reads.iter().map(|read| read.in_training(passes)).collect::<Result<_>>()?,
            next: self.next.as_ref().map(all).transpose()?,
            passes,
            ..self
        })
    }

    /// The same with other features, by the streams.
    pub(super) fn with_features(&self, features: &[Value]) -> Self {
        let with = |(read, features): (&Read, &Value)| Read { features: features.clone(), ..read.clone() };
        Self { reads: self.reads.iter().zip(features).map(with).collect(), ..self.clone() }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        (self.reads[0].offsets.len() - 1) / self.pair / self.passes
    }

    /// Sides of an example that are compared: its streams, or of one stream its sequences.
    pub(super) fn sides(&self) -> usize {
        self.reads.len().max(self.pair)
    }

    /// One of them alone, with all its passes.
    pub(super) fn one(&self, example: usize) -> Result<Self> {
        let first = &self.reads[0];
        // Targets stand beside examples or beside rows.
        let by_row = self.targets.shape()[0] != self.len();
        let targets = match by_row {
            true => first.of_pass(&self.targets, self, example, 0)?,
            false => narrow(&self.targets, 0, example, 1)?,
        };
        Ok(Self {
            reads: self.reads.iter().map(|read| read.one(self, example)).collect::<Result<_>>()?,
            targets,
            next: self.next.as_ref().map(|next| first.of_passes(next, self, example)).transpose()?,
            support: self.support.get(example).map(|support| vec![*support]).unwrap_or_default(),
            pair: self.pair,
            passes: self.passes,
        })
    }
}
