//! What a head is given: features of the toy model, and targets of every kind.

use std::sync::Arc;

use super::{
    forward,
    ops::{concat, mul, narrow},
    random::Stream,
    run::Run,
    toy::{PICTURE, VOCABULARY},
    value::Value,
};
use crate::{DType, FeatureKind, HeadSpec, Result, Sampling, TargetKind};

/// One batch of them. Pairs of answers are two sequences each.
#[derive(Clone)]
pub(super) struct Examples {
    pub(super) features: Value,
    pub(super) offsets: Vec<u32>,
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

/// Which features a head reads.
pub(super) fn kind_of(spec: &HeadSpec) -> FeatureKind {
    spec.streams.first().map_or(spec.features, |read| read.features)
}

/// A target that does not count.
const IGNORED: f64 = u32::MAX as f64;

impl Examples {
    pub(super) fn new(run: &Arc<Run>, spec: &HeadSpec, classes: usize) -> Result<Self> {
        let (mut n, mut support) = (5, Vec::new());
        let mut ways = classes;
        if let Sampling::Episodes { ways: of, shots, queries, .. } = spec.sampling {
            ways = (of as usize).min(classes.max(1));
            n = ways * (shots + queries) as usize;
            support = (0..n).map(|row| u8::from(row < ways * shots as usize)).collect();
        }
        let pair = if spec.targets == TargetKind::Preference { 2 } else { 1 };
        let batch = run.toy.batch(n * pair);
        let found = forward::features(run, &batch)?;
        let (features, offsets) = match kind_of(spec) {
            FeatureKind::Pooled => (found.pooled, (0..=(n * pair) as u32).collect()),
            FeatureKind::Sequence | FeatureKind::Spatial => (found.sequence, found.offsets),
        };
        let features = features.detached();
        let rows = features.shape()[0];
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
        };
        let next = (spec.targets == TargetKind::Preference).then(|| u32s(&[rows], &next));
        Ok(Self { features, offsets, targets, next, support, pair, passes: 1 })
    }

    /// The same as training has them: each example passes so many times, under dropout masks of its own.
    pub(super) fn in_training(self, passes: usize) -> Result<Self> {
        const DROPPED: f64 = 0.2;
        if passes == 1 {
            return Ok(self);
        }
        let dropped = |pass: usize| {
            let stream = Stream::new(pass as u64, "masks");
            let keeps = |i| if stream.uniform(i) < DROPPED { 0.0 } else { 1.0 / (1.0 - DROPPED) };
            let mask = (0..self.features.data().len() as u64).map(keeps).collect();
            mul(&self.features, &Value::constant(self.features.dtype(), self.features.shape(), mask))
        };
        let features = (0..passes).map(dropped).collect::<Result<Vec<_>>>()?;
        let rows = self.features.shape()[0] as u32;
        let ends = (0..passes as u32).flat_map(|pass| self.offsets[1..].iter().map(move |end| pass * rows + end));
        let all = |one: &Value| concat(&vec![one; passes], 0);
        Ok(Self {
            features: concat(&features.iter().collect::<Vec<_>>(), 0)?,
            offsets: std::iter::once(0).chain(ends).collect(),
            next: self.next.as_ref().map(all).transpose()?,
            passes,
            ..self
        })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        (self.offsets.len() - 1) / self.pair / self.passes
    }

    /// One of them alone, with all its passes.
    pub(super) fn one(&self, example: usize) -> Result<Self> {
        let sequences = self.len() * self.pair;
        let bounds = |pass: usize| {
            let first = pass * sequences + example * self.pair;
            &self.offsets[first..=first + self.pair]
        };
        let of_pass = |x: &Value, pass: usize| {
            let (start, end) = (bounds(pass)[0] as usize, bounds(pass)[self.pair] as usize);
            narrow(x, 0, start, end - start)
        };
        let rows = |x: &Value| {
            let parts = (0..self.passes).map(|pass| of_pass(x, pass)).collect::<Result<Vec<_>>>()?;
            concat(&parts.iter().collect::<Vec<_>>(), 0)
        };
        let (start, end) = (bounds(0)[0], bounds(0)[self.pair]);
        let ends = (0..self.passes as u32)
            .flat_map(|pass| bounds(0)[1..].iter().map(move |at| pass * (end - start) + at - start));
        // Targets stand beside examples or beside rows.
        let by_row = self.targets.shape()[0] != self.len();
        Ok(Self {
            features: rows(&self.features)?,
            targets: if by_row { of_pass(&self.targets, 0)? } else { narrow(&self.targets, 0, example, 1)? },
            next: self.next.as_ref().map(rows).transpose()?,
            offsets: std::iter::once(0).chain(ends).collect(),
            support: self.support.get(example).map(|support| vec![*support]).unwrap_or_default(),
            pair: self.pair,
            passes: self.passes,
        })
    }
}
