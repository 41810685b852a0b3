//! What a head is given: features of the toy model, and targets of every kind.

use std::sync::Arc;

use super::{
    forward,
    ops::narrow,
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
        Ok(Self { features, offsets, targets, next, support, pair })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        (self.offsets.len() - 1) / self.pair
    }

    /// One of them alone.
    pub(super) fn one(&self, example: usize) -> Result<Self> {
        let offsets = &self.offsets[example * self.pair..=(example + 1) * self.pair];
        let (start, end) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
        let rows = |x: &Value| narrow(x, 0, start, end - start);
        // Targets stand beside examples or beside rows.
        let by_row = self.targets.shape()[0] != self.len();
        Ok(Self {
            features: rows(&self.features)?,
            targets: if by_row { rows(&self.targets)? } else { narrow(&self.targets, 0, example, 1)? },
            next: self.next.as_ref().map(rows).transpose()?,
            offsets: offsets.iter().map(|offset| offset - offsets[0]).collect(),
            support: self.support.get(example).map(|support| vec![*support]).unwrap_or_default(),
            pair: self.pair,
        })
    }
}
