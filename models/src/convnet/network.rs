//! The network: blocks from the stem up, and what is read of them.

use std::ops::Range;
use std::path::Path;

use fthost_autograd::{Layout, Map, Parameter, Result, Tape, Tensor, Value};

use super::block::{Block, width};
use super::layer::layout;
use super::plan::{LayerPlan, Place, Plan};
use crate::builder::Builder;
use crate::family::Source;
use crate::folder::{self, InFiles};
use crate::hooks::{Hooks, Pass};
use crate::{
    BaseParameter, BlockGroup, Classification, FeatureMap, Features, FileState, Hook, Input, LoadError, Modality,
    Model, ModelInfo, PoolBy, Pooling, Read, SavedHead, Site, Stream, fold,
};

/// Pixels of images that pass blocks at once where nothing is learned of these: ten of 224 x 224. Of ResNet-50 their largest maps have
/// 32 MB; more at once are no faster.
const PIXELS: usize = 1 << 19;
/// A side of the patches that images are counted by.
const PATCH: usize = 16;

/// A convolutional network, or an MLP. Sites and parameters have the paths of the files that it came from.
pub(crate) struct Network {
    info: ModelInfo,
    flattens: bool,
    blocks: Vec<Block>,
    /// How many blocks each map of [`Stream::maps`] takes.
    ends: Vec<usize>,
    sites: Vec<Site>,
    hooks: Hooks,
    parameters: Vec<BaseParameter>,
    stored: InFiles,
    files: Vec<FileState>,
}

impl Network {
    pub(super) fn build(source: &Source<'_>, plan: &Plan) -> std::result::Result<Self, LoadError> {
        source.refuse_vocabulary()?;
        let origin = source.origin()?;
        let mut builder = Builder::new(&origin, plan.prefix, 0.0, source.device).quantized(source.quantize);
        let mut blocks = Vec::with_capacity(plan.blocks.len());
        for (i, block) in plan.blocks.iter().enumerate() {
            builder.group = i;
            blocks.push(Block::build(&mut builder, plan, block)?);
        }
        let Builder { sites, parameters, stored_shapes, counters, .. } = builder;
        let (maps, ends) = maps(plan);
        Ok(Self {
            info: info(plan, maps),
            flattens: plan.flattens,
            blocks,
            ends,
            hooks: Hooks::none(sites.len()),
            sites,
            parameters,
            stored: InFiles {
                config: source.config.clone(),
                shapes: stored_shapes,
                counters,
                transposed: Default::default(),
            },
            files: origin.files(source.quantize),
        })
    }

    /// Images as rows of pixels; as one row of each where an MLP reads them.
    fn rows(&self, input: &Input) -> Result<(Value, Map)> {
        let Input::Images(images) = input else { candle_core::bail!("an image model got text; give it pixels") };
        let Modality::Images { channels, size, .. } = self.info.plain().modality else {
            candle_core::bail!("{} takes no images", self.info.model_type)
        };
        match *images.dims() {
            [n, height, width, of] if of == channels && n * height * width > 0 => {
                if !self.flattens {
                    let pixels = images.reshape((n * height * width, channels))?;
                    return Ok((Value::constant(pixels.contiguous()?), Map::new(n, height, width)));
                }
                if (height, width) == (size, size) {
                    let flat = images.permute((0, 3, 1, 2))?.contiguous()?; // [n, channels, size, size]
                    return Ok((Value::constant(flat.reshape((n, channels * size * size))?), Map::new(n, 1, 1)));
                }
            }
            _ => {}
        }
        let side = if self.flattens { size.to_string() } else { "any".into() };
        candle_core::bail!(
            "images have shape {:?}, the model takes [images, height, width, {channels}] with a height and width of {side}",
            images.dims()
        )
    }

    /// Features of a micro-batch by the layers' hooks.
    fn forward_pass(&self, pass: Pass<'_>, input: &Input, read: Read) -> Result<Features> {
        let taken = self.taken(read)?;
        let (x, map) = self.through(pass, self.rows(input)?, 0..taken)?;
        self.read(pass.tape, x, map, read)
    }

    /// Pixels through some of the blocks. The lowest ones, as far as nothing is learned of them, a few images at a time: theirs are the
    /// largest maps, and nothing of them is kept.
    fn through(&self, pass: Pass<'_>, (x, map): (Value, Map), blocks: Range<usize>) -> Result<(Value, Map)> {
        let few = Self::few(map);
        let settled = blocks.start..blocks.clone().find(|&block| !self.settled(block)).unwrap_or(blocks.end);
        if map.images <= few || settled.is_empty() || x.requires_grad() || !x.tensor().device().is_cpu() {
            return self.at_once(pass, (x, map), blocks);
        }
        let each = map.images.div_ceil(map.images.div_ceil(few));
        let mut passed = Vec::new();
        let mut places = map;
        for start in (0..map.images).step_by(each) {
            let part = Map::new(each.min(map.images - start), map.height, map.width);
            let pixels = x.tensor().narrow(0, start * map.pixels(), part.rows())?;
            let (y, at) = self.at_once(pass, (Value::constant(pixels), part), settled.clone())?;
            passed.push(y.tensor().clone());
            places = at;
        }
        drop(x);
        let passed = Value::constant(Tensor::cat(&passed, 0)?);
        self.at_once(pass, (passed, map.resized(places.size())), settled.end..blocks.end)
    }

    /// How many images pass at once blocks of which nothing is learned.
    fn few(map: Map) -> usize {
        (PIXELS / map.pixels().max(1)).max(1)
    }

    fn at_once(&self, pass: Pass<'_>, (mut x, mut map): (Value, Map), blocks: Range<usize>) -> Result<(Value, Map)> {
        for block in &self.blocks[blocks] {
            (x, map) = block.forward(pass, x, map)?;
        }
        Ok((x, map))
    }

    /// Whether nothing is learned of a block: none of its parameters trains, and no hook is in it.
    fn settled(&self, block: usize) -> bool {
        let trains = |base: &BaseParameter| base.group == block && base.parameter.trainable();
        let hooked = |(i, site): (usize, &Site)| site.group == block && self.hooks.any(i);
        !self.parameters.iter().any(trains) && !self.sites.iter().enumerate().any(hooked)
    }

    /// How many blocks are passed before what is read.
    fn taken(&self, read: Read) -> Result<usize> {
        Ok(match read {
            Read::Pooled => self.blocks.len(),
            Read::Spatial if !self.flattens => self.blocks.len(),
            Read::Stage(map) if map < self.ends.len() => self.ends[map],
            Read::Stage(map) => {
                let maps = self.ends.len();
                candle_core::bail!("there are {maps} maps of an image, got a read of map {map}, counted from 0")
            }
            Read::Spatial | Read::Sequence => {
                let what = if read == Read::Spatial { "spatial" } else { "sequence" };
                candle_core::bail!("{} gives no {what} features", self.info.model_type)
            }
        })
    }

    /// What is read of the pixels of a map.
    fn read(&self, tape: &Tape, x: Value, map: Map, read: Read) -> Result<Features> {
        let rows = layout(map);
        if read != Read::Pooled {
            tape.set_layout(rows.clone());
            return Ok(Features { value: x, layout: rows, map: Some(map) });
        }
        let Pooling { by, normalize } = self.info.plain().pooling;
        let x = match by {
            _ if self.flattens => x,
            PoolBy::Max => tape.segment_max(&x, &rows)?,
            _ => tape.global_avg_pool2d(&x, map)?,
        }; // [images, channels]
        let layout = Layout::single_rows(map.images);
        tape.set_layout(layout.clone());
        Ok(Features { value: if normalize { tape.normalize(&x)? } else { x }, layout, map: None })
    }
}

impl Model for Network {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn sites(&self) -> &[Site] {
        &self.sites
    }

    fn parameters(&self) -> &[BaseParameter] {
        &self.parameters
    }

    fn files(&self) -> &[FileState] {
        &self.files
    }

    fn batch_statistics(&self) -> bool {
        self.blocks.iter().flat_map(Block::norms).any(|norm| norm.by_batch())
    }

    fn set_pooling(&mut self, stream: usize, pooling: Pooling) -> Result<()> {
        self.info.refuse_stream(stream)?;
        if !matches!(pooling.by, PoolBy::Mean | PoolBy::Max) {
            candle_core::bail!(
                "the pixels of a map have no first and no last; pool this {} by mean or max",
                self.info.model_type
            );
        }
        self.info.streams[stream].pooling = pooling;
        Ok(())
    }

    fn set_hook(&mut self, path: &str, hook: Hook) -> Result<()> {
        self.hooks.set(&self.sites, path, hook)
    }

    fn folded(&self, inputs: &[Input]) -> Result<Vec<(Parameter, Tensor)>> {
        let inputs = fold::of_each_stream(&self.info, inputs)?;
        fold::folded(&self.sites, &self.parameters, &self.hooks, |pass| {
            inputs.iter().try_for_each(|input| self.forward_pass(pass, input, Read::Pooled).map(drop))
        })
    }

    fn hooked(&self, path: &str) -> bool {
        self.sites.iter().position(|site| site.path == path).is_some_and(|site| self.hooks.any(site))
    }

    fn clear_hooks(&mut self) {
        self.hooks = Hooks::none(self.sites.len());
    }

    fn save_folder(&self, folder: &Path, head: &SavedHead<'_>) -> std::result::Result<(), LoadError> {
        folder::write(self, &self.stored, folder, head)
    }

    fn passes(&self, _: usize, read: Read, parameter: &str) -> bool {
        let Read::Stage(map) = read else { return true };
        let below = self.ends.get(map).copied().unwrap_or_default();
        self.parameters.iter().any(|base| base.group < below && base.parameter.name() == parameter)
    }

    fn map_size(&self, stream: usize, [height, width]: [usize; 2]) -> Result<Option<[usize; 2]>> {
        if stream != 0 || self.flattens {
            return Ok(None);
        }
        let map = self.blocks.iter().try_fold(Map::new(1, height, width), |map, block| block.output(map))?;
        Ok(Some(map.size()))
    }

    fn held(&self, images: usize, [height, width]: [usize; 2], training: bool) -> Result<Option<usize>> {
        let Modality::Images { channels, .. } = self.info.plain().modality else { return Ok(None) };
        let all = Map::new(images, height, width);
        let mut map = if self.flattens { Map::new(images, 1, 1) } else { all };
        let pixels = all.rows() * channels;
        let settled = (0..self.blocks.len()).find(|&block| training && !self.settled(block));
        let (settled, learned) = self.blocks.split_at(settled.unwrap_or(self.blocks.len()));
        let (mut kept, mut most) = (0, 0);
        for block in settled {
            let part = Map { images: images.min(Self::few(all)), ..map };
            let held = block.held(&self.hooks, part)?;
            most = most.max(held.read);
            kept = held.made * images / part.images.max(1);
            map = Map { images, ..held.map };
        }
        most = (most + kept).max(2 * kept);
        for block in learned {
            let held = block.held(&self.hooks, map)?;
            kept += held.kept;
            // Gradients of what the widest layer reads and makes, and what it reads made once more.
            most = most.max(kept + 2 * held.read);
            map = held.map;
        }
        Ok(Some(pixels + most))
    }

    fn can_be_cut(&self) -> bool {
        !self.flattens
    }

    fn halfway(&self, tape: &Tape, input: &Input, groups: usize) -> Result<Features> {
        let groups = groups.clamp(1, self.blocks.len());
        let (value, map) = self.through(Pass::new(tape, &self.hooks), self.rows(input)?, 0..groups)?;
        Ok(Features { value, layout: layout(map), map: Some(map) })
    }

    fn onward(&self, tape: &Tape, halfway: &Features, groups: usize, read: Read) -> Result<Features> {
        let (groups, taken) = (groups.clamp(1, self.blocks.len()), self.taken(read)?);
        let Some(map) = halfway.map.filter(|_| groups <= taken) else {
            candle_core::bail!("what is read lies below the cut above {groups} groups")
        };
        let pass = Pass::new(tape, &self.hooks);
        let (x, map) = self.through(pass, (halfway.value.clone(), map), groups..taken)?;
        self.read(tape, x, map, read)
    }

    fn features(&self, tape: &Tape, stream: usize, input: &Input, read: Read) -> Result<Features> {
        self.info.refuse_stream(stream)?;
        self.forward_pass(Pass::new(tape, &self.hooks), input, read)
    }
}

/// The maps that a plan's blocks give, and how many blocks each takes: the last of each stride, in which all that is known at this height
/// has come together.
fn maps(plan: &Plan) -> (Vec<FeatureMap>, Vec<usize>) {
    let (mut maps, mut ends): (Vec<FeatureMap>, Vec<usize>) = (Vec::new(), Vec::new());
    if plan.flattens {
        return (maps, ends);
    }
    let mut stride = 1;
    for (i, block) in plan.blocks.iter().enumerate() {
        for layer in &block.layers {
            if let LayerPlan::Conv(conv) = layer {
                stride *= conv.stride;
            }
        }
        stride *= block.pool.map_or(1, |window| window.stride[0]);
        let channels = block.layers.last().map_or(0, width);
        if maps.last().is_some_and(|last| last.stride == stride) {
            maps.pop();
            ends.pop();
        }
        maps.push(FeatureMap { channels, stride });
        ends.push(i + 1);
    }
    (maps, ends)
}

fn info(plan: &Plan, maps: Vec<FeatureMap>) -> ModelInfo {
    let Plan { channels, size, .. } = *plan;
    let patches = size.div_ceil(PATCH);
    let modality = Modality::Images { channels, size, any_size: !plan.flattens, tokens: patches * patches };
    let width = plan.blocks.last().and_then(|block| block.layers.last()).map_or(0, width);
    let pooling = Pooling { by: PoolBy::Mean, normalize: false };
    let of_stream = |place: Place| BlockGroup { name: place.group(), stream: Some(0) };
    let mut groups: Vec<BlockGroup> = plan.blocks.iter().map(|block| of_stream(block.place)).collect();
    groups.push(BlockGroup { name: "head".into(), stream: None });
    let head = plan.head;
    ModelInfo {
        model_type: plan.name.clone(),
        streams: vec![Stream {
            name: modality.name().into(),
            modality,
            prefix: plan.prefix.into(),
            root: String::new(),
            width,
            layers: None,
            heads: None,
            block: None,
            word_embeddings: None,
            reads: if plan.flattens { vec![Read::Pooled] } else { vec![Read::Pooled, Read::Spatial] },
            maps,
            pooling,
        }],
        groups,
        base_class: head.classes.map(|(base, _)| base.into()),
        classification: Some(Classification {
            class: head.classes.map(|(_, class)| class.into()),
            output: head.output.into(),
            bias: true,
            tokens: false,
            hidden: None,
            dropout_key: head.dropout_key.map(str::to_owned),
            pooling,
        }),
        vocabulary: None,
        contrastive: None,
        sight: None,
        head_dropout: head.dropout,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use fthost_autograd::{Device, Tape, Tensor};
    use serde_json::json;

    use super::PIXELS;
    use crate::{Input, Read};

    /// Three images where two pass the frozen blocks at once, below a block that learns.
    #[test]
    fn images_that_pass_frozen_blocks_in_turns_give_the_bits_of_each_alone() {
        let config = json!({
            "model_type": "resnet", "num_channels": 3, "embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1],
            "layer_type": "basic", "hidden_act": "relu", "downsample_in_first_stage": false
        });
        let model = crate::random(&config.to_string(), 1, &Device::Cpu).unwrap();
        for base in model.parameters() {
            base.parameter.set_trainable(base.group == 2 && base.parameter.dims().len() > 1);
        }
        let side = 512;
        assert_eq!(PIXELS / (side * side), 2);
        let images = Tensor::rand(-1f32, 1., (3, side, side, 3), &Device::Cpu).unwrap();
        let map_of = |images: Tensor| {
            let map = model.forward(&Tape::recording(), &Input::Images(images), Read::Spatial).unwrap().value;
            assert!(map.requires_grad());
            map.tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let alone = (0..3).flat_map(|i| map_of(images.narrow(0, i, 1).unwrap()));
        assert_eq!(alone.collect::<Vec<_>>(), map_of(images.clone()));
    }
}
