//! What the frozen part of the model gives of examples: computed once, and kept.
//!
//! Below the lowest block group that trains or has a hook, an example that looks the same each time gives the same each time, to the bit.
//! What is kept follows the model: once a parameter below the cut has changed, or the cut has moved, it is forgotten.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fthost_autograd::{DType, Device, Dropout, Layout, Map, Precision, Tape, TapeOptions, Tensor, Value};
use fthost_models::{Features, Input, Model};

use super::read::StreamRead;
use crate::data::unnamed_file;
use crate::{Error, Result};

/// Bytes that are kept in memory; beyond, a file without a name takes them.
pub const IN_MEMORY: usize = 256 << 20;
/// Bytes that are kept at all.
const ON_DISK: u64 = 8 << 30;

/// An example: of which data set, and its row there.
pub type Key = (u64, u32);

/// What the frozen part of a model gives, by example.
#[derive(Debug)]
pub struct Kept {
    /// Of each head's reads one, where they are kept apart.
    states: Mutex<Vec<State>>,
    /// Where the frozen part below drops out in training: then it gives something else each time.
    drops_out: Mutex<Vec<Cut>>,
    /// The folder for what does not stay in memory.
    folder: PathBuf,
}

#[derive(Debug)]
struct State {
    /// What it was computed by.
    by: By,
    examples: HashMap<Key, Place>,
    /// Of one row.
    width: usize,
    /// Height and width of a map.
    map: Option<(usize, usize)>,
    in_memory: usize,
    file: Option<File>,
    written: u64,
}

/// What decides which values are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
struct By {
    cut: Cut,
    /// The sum of the versions of all parameters below the cut.
    versions: u64,
    /// The float type of products, which evaluations of one model may differ in.
    precision: Precision,
}

impl By {
    /// Whether both may be of one model as it is: of several heads' reads, in several float types.
    fn goes_with(self, other: Self) -> bool {
        match (self.cut, other.cut) {
            (Cut::Whole(own), Cut::Whole(of_other)) => own.stream != of_other.stream || self.versions == other.versions,
            _ => self.versions == other.versions && self.cut == other.cut,
        }
    }
}

impl State {
    fn new(by: By) -> Self {
        Self { by, examples: HashMap::new(), width: 0, map: None, in_memory: 0, file: None, written: 0 }
    }
}

/// Where the way through the model is cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cut {
    /// Above so many block groups.
    Above(usize),
    /// Above all that is not the head's: what it reads is kept.
    Whole(StreamRead),
}

#[derive(Clone, Debug)]
enum Place {
    Memory(Arc<[f32]>),
    File { at: u64, floats: usize },
}

impl Kept {
    /// Nothing yet.
    pub fn new(folder: PathBuf) -> Self {
        Self { states: Mutex::default(), drops_out: Mutex::default(), folder }
    }

    /// Whether all that is needed of an example to go on from the cut in a stream is kept.
    pub fn has(&self, example: Key, stream: usize) -> bool {
        let of_stream = |cut: Cut| match cut {
            Cut::Above(_) => true,
            Cut::Whole(read) => read.stream == stream,
        };
        self.lock().iter().any(|state| of_stream(state.by.cut) && state.examples.contains_key(&example))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is read of examples, from what is kept of them; those of which nothing is are computed by `input`, given their places.
    /// `None` where the frozen part drops out, and has to be computed anew.
    pub(super) fn features(
        &self,
        (model, device): (&dyn Model, &Device),
        tape: &Tape,
        (cut, versions): (Cut, u64),
        examples: &[Key],
        read: StreamRead,
        input: impl Fn(&[usize]) -> Result<Input>,
    ) -> Result<Option<Features>> {
        let trains = tape.options().dropout.is_some();
        let drops_out = || self.drops_out.lock().unwrap_or_else(PoisonError::into_inner);
        if trains && drops_out().contains(&cut) {
            return Ok(None);
        }
        let by = By { cut, versions, precision: tape.options().precision };
        let missing = self.missing(by, examples);
        let mut made: HashMap<usize, Arc<[f32]>> = HashMap::new();
        if !missing.is_empty() {
            // Those that are not kept yet, which after a resumed run's first epoch are some of a batch.
            let of_missing = |dropout: Dropout| Dropout {
                examples: missing.iter().filter_map(|&place| dropout.examples.get(place).copied()).collect(),
                ..dropout
            };
            let options = tape.options().clone();
            let dropout = options.dropout.clone().map(of_missing);
            let scratch = Tape::new(TapeOptions { recording: false, dropout, ..options });
            let found = match cut {
                Cut::Above(groups) => model.halfway(&scratch, &input(&missing)?, groups)?,
                Cut::Whole(read) => model.features(&scratch, read.stream, &input(&missing)?, read.read)?,
            };
            if found.value.tensor().dtype() != DType::F32 || scratch.dropouts().iter().any(|&p| p > 0.0) {
                drops_out().push(cut);
                return Ok(None);
            }
            made = missing.iter().copied().zip(rows(&found)?).collect();
            self.keep(by, &found, made.iter().map(|(&place, values)| (examples[place], values)))?;
        }
        let halfway = self.gather(by, device, examples, &made)?;
        Ok(Some(match cut {
            Cut::Above(groups) => model.onward(tape, &halfway, groups, read.read)?,
            Cut::Whole(_) => {
                tape.set_layout(halfway.layout.clone());
                halfway
            }
        }))
    }

    /// The places of examples of which nothing is kept that was made by this; what was made otherwise is forgotten.
    fn missing(&self, by: By, examples: &[Key]) -> Vec<usize> {
        let mut states = self.lock();
        states.retain(|state| state.by.goes_with(by));
        match states.iter().find(|state| state.by == by) {
            Some(state) => {
                (0..examples.len()).filter(|&place| !state.examples.contains_key(&examples[place])).collect()
            }
            None => {
                states.push(State::new(by));
                (0..examples.len()).collect()
            }
        }
    }

    fn keep<'a>(&self, by: By, of: &Features, new: impl Iterator<Item = (Key, &'a Arc<[f32]>)>) -> Result<()> {
        let mut states = self.lock();
        let Some(state) = states.iter_mut().find(|state| state.by == by) else { return Ok(()) };
        state.width = of.value.tensor().dim(1)?;
        state.map = of.map.map(|map| (map.height, map.width));
        for (example, values) in new {
            let bytes = size_of_val(&values[..]);
            if state.in_memory + bytes <= IN_MEMORY {
                state.in_memory += bytes;
                state.examples.insert(example, Place::Memory(Arc::clone(values)));
            } else if state.written + bytes as u64 <= ON_DISK {
                let at = state.written;
                self.write(state, values)?;
                state.examples.insert(example, Place::File { at, floats: values.len() });
            }
        }
        Ok(())
    }

    fn write(&self, state: &mut State, values: &[f32]) -> Result<()> {
        let failed = || Error::io(format!("cannot keep features in {}", self.folder.display()));
        if state.file.is_none() {
            state.file = Some(unnamed_file(&self.folder).map_err(failed())?);
        }
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        if let Some(file) = &state.file {
            file.write_all_at(&bytes, state.written).map_err(|error| {
                failed()(error).with_help("name another folder by FTHOST_CACHE, or set train.keep_features = false")
            })?;
            state.written += bytes.len() as u64;
        }
        Ok(())
    }

    /// What is kept of examples, one after the other.
    fn gather(&self, by: By, device: &Device, examples: &[Key], made: &HashMap<usize, Arc<[f32]>>) -> Result<Features> {
        let gone = || Error::run("what was kept of examples has gone");
        let states = self.lock();
        let state = states.iter().find(|state| state.by == by).ok_or_else(gone)?;
        let mut values = Vec::new();
        let mut lengths = Vec::with_capacity(examples.len());
        for (place, example) in examples.iter().enumerate() {
            let before = values.len();
            match (made.get(&place), state.examples.get(example)) {
                (Some(new), _) => values.extend_from_slice(new),
                (None, Some(Place::Memory(kept))) => values.extend_from_slice(kept),
                (None, Some(&Place::File { at, floats })) => {
                    let mut bytes = vec![0; 4 * floats];
                    let file = state.file.as_ref().ok_or_else(gone)?;
                    file.read_exact_at(&mut bytes, at).map_err(Error::io("cannot read what was kept of examples"))?;
                    values.extend(bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)));
                }
                (None, None) => return Err(gone()),
            }
            lengths.push((values.len() - before) / state.width.max(1));
        }
        let rows: usize = lengths.iter().sum();
        let value = Tensor::from_vec(values, (rows, state.width), device)?; // [rows, width]
        let map = state.map.map(|(height, width)| Map::new(examples.len(), height, width));
        Ok(Features { value: Value::constant(value), layout: Layout::from_lengths(lengths), map })
    }
}

/// The rows of each example.
fn rows(of: &Features) -> Result<Vec<Arc<[f32]>>> {
    let width = of.value.tensor().dim(1)?;
    let values = of.value.tensor().flatten_all()?.to_vec1::<f32>()?;
    Ok(of.layout.ranges().map(|range| Arc::from(&values[range.start * width..range.end * width])).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use fthost_autograd::Precision;
    use fthost_models::Read;

    use super::*;
    use crate::adapted::AdaptedModel;
    use crate::run::setup::demo;

    /// After a resumed run's first epoch some examples of a batch are kept and some are not.
    #[test]
    fn what_is_not_kept_yet_of_a_batch_is_made_in_training() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/tiny/vit");
        let base = fthost_models::open(&folder, &Device::Cpu).unwrap();
        let mut model = AdaptedModel::new(base, Device::Cpu, 0);
        model.parameters.iter().for_each(|p| p.parameter.set_trainable(false));
        model.kept = Some(Arc::new(Kept::new(std::env::temp_dir())));
        let input = |places: &[usize]| {
            let pixels: Vec<f32> = (0..128 * places.len()).map(|i| (0.7 * i as f32).sin()).collect();
            Ok(Input::Images(Tensor::from_vec(pixels, (places.len(), 8, 8, 2), &Device::Cpu)?))
        };
        let read = StreamRead { stream: 0, read: Read::Pooled };
        for examples in [vec![(0, 1)], vec![(0, 0), (0, 1), (0, 2)]] {
            let dropout = Dropout { seed: 0, step: 0, examples: (4..).take(examples.len()).collect() };
            let tape = Tape::new(TapeOptions { dropout: Some(dropout), ..TapeOptions::default() });
            let found = model.kept_features(&tape, &examples, read, input).unwrap().expect("nothing drops out");
            assert_eq!(found.value.dims()[0], examples.len());
        }
    }

    /// A regularizer may look at a run of half precision in full precision.
    #[test]
    fn what_is_kept_in_one_float_type_is_not_given_in_another() {
        let base = fthost_models::from_parts(demo::CONFIG, demo::WEIGHTS, &Device::Cpu).unwrap();
        let mut model = AdaptedModel::new(base, Device::Cpu, 0);
        model.parameters.iter().for_each(|p| p.parameter.set_trainable(false));
        model.kept = Some(Arc::new(Kept::new(std::env::temp_dir())));
        let pixels: Vec<f32> = (0..64).map(|i| (0.7 * i as f32).sin()).collect();
        let input = || Input::Images(Tensor::from_vec(pixels.clone(), (1, 8, 8, 1), &Device::Cpu).unwrap());
        let read = StreamRead { stream: 0, read: Read::Pooled };
        let values = |of: Features| of.value.tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let tape = |precision| Tape::new(TapeOptions { precision, ..TapeOptions::default() });
        let mut found = Vec::new();
        for precision in [Precision::Bf16, Precision::F32, Precision::Bf16] {
            let kept = model.kept_features(&tape(precision), &[(0, 0)], read, |_| Ok(input())).unwrap();
            let anew = model.model.features(&tape(precision), 0, &input(), Read::Pooled).unwrap();
            let kept = values(kept.expect("nothing drops out"));
            assert_eq!(kept, values(anew), "{precision:?}");
            found.push(kept);
        }
        assert!(found[0] != found[1] && found[0] == found[2]);
    }
}
