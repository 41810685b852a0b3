//! Builds a model's layers from the bottom up, and lists its parameters and sites on the way.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use fthost_autograd::random::Stream;
use fthost_autograd::{Parameter, Reading, Source as Values};

use crate::layers::{LayerNorm, Linear};
use crate::weights::{Quantize, Quantized, Weights};
use crate::{BaseParameter, Convolution, FileState, LoadError, Site, SiteKind};

/// Where the values of parameters come from.
#[derive(Debug)]
pub(crate) enum Origin {
    /// Trained weights.
    Checkpoint(Weights),
    /// New weights: normal, biases zero, norms the identity.
    New { seed: u64 },
}

impl Origin {
    /// The files, and how what they hold is quantised: other values are made of them then.
    pub(crate) fn files(&self, quantize: Option<Quantize>) -> Vec<FileState> {
        let Self::Checkpoint(weights) = self else { return Vec::new() };
        let mut files = weights.files();
        if let Some(quantize) = quantize {
            files.iter_mut().for_each(|file| file.identity = format!("{} {}", file.identity, quantize.name()));
        }
        files
    }
}

/// What a new parameter starts from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Init {
    /// Normal of this standard deviation.
    Normal(f64),
    /// Uniform between minus this and this.
    Uniform(f64),
    Constant(f64),
    Zeros,
    Ones,
}

pub(crate) struct Builder<'a> {
    origin: &'a Origin,
    /// What may stand before the names in a checkpoint.
    prefix: &'a str,
    /// Standard deviation of new weights.
    pub(crate) init_std: f64,
    device: &'a Device,
    /// How the matrices of linear layers are quantised.
    quantize: Option<Quantize>,
    /// What stands before the paths of what is built next.
    pub(crate) root: &'static str,
    /// The block group of what is built next.
    pub(crate) group: usize,
    /// The stream of what is built next.
    pub(crate) stream: Option<usize>,
    /// What the numbers of parameters follow from that a checkpoint may lack; without it all have to be there.
    pub(crate) lacking: Option<u64>,
    /// The parameters that a checkpoint lacked.
    pub(crate) new: Vec<String>,
    pub(crate) sites: Vec<Site>,
    pub(crate) parameters: Vec<BaseParameter>,
    /// The shape of each parameter in the files, where it may have further dimensions.
    pub(crate) stored_shapes: Vec<Vec<usize>>,
    /// Counters of the norms, by name, which the checkpoint holds and nothing reads.
    pub(crate) counters: Vec<(String, i64)>,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(origin: &'a Origin, prefix: &'a str, init_std: f64, device: &'a Device) -> Self {
        Self {
            origin,
            prefix,
            init_std,
            device,
            quantize: None,
            root: "",
            group: 0,
            stream: Some(0),
            lacking: None,
            new: Vec::new(),
            sites: Vec::new(),
            parameters: Vec::new(),
            stored_shapes: Vec::new(),
            counters: Vec::new(),
        }
    }

    /// Quantises the matrices of linear layers so.
    pub(crate) fn quantized(self, quantize: Option<Quantize>) -> Self {
        Self { quantize, ..self }
    }

    /// Adds a site and returns its number.
    pub(crate) fn site(
        &mut self,
        path: impl Into<String>,
        kind: SiteKind,
        in_features: usize,
        out_features: usize,
    ) -> usize {
        self.sites.push(Site {
            path: format!("{}{}", self.root, path.into()),
            kind,
            in_features,
            out_features,
            group: self.group,
            stream: self.stream,
            convolution: None,
        });
        self.sites.len() - 1
    }

    /// `weight` `[out, in]` and `bias` `[out]`.
    pub(crate) fn linear(
        &mut self,
        path: &str,
        inputs: usize,
        outputs: usize,
        bias: bool,
    ) -> Result<Linear, LoadError> {
        let normal = Init::Normal(self.init_std);
        self.linear_from(path, [inputs, outputs], bias, [normal, Init::Zeros])
    }

    /// [`linear`](Self::linear), with what a new weight and a new bias start from.
    pub(crate) fn linear_from(
        &mut self,
        path: &str,
        [inputs, outputs]: [usize; 2],
        bias: bool,
        [of_weight, of_bias]: [Init; 2],
    ) -> Result<Linear, LoadError> {
        let site = self.site(path, SiteKind::Linear, inputs, outputs);
        let shape = [outputs, inputs];
        let quantize = self.quantize.filter(|quantize| quantize.takes(inputs));
        let weight =
            self.parameter_as(format!("{path}.weight"), &shape, &shape, of_weight, Reading::Products, quantize)?;
        let bias = bias.then(|| self.vector(format!("{path}.bias"), outputs, of_bias)).transpose()?;
        Ok(Linear { site, weight, bias })
    }

    /// A convolution's site, weight `[out, channels / groups, kh, kw]` and bias `[out]`, with what new ones start from.
    pub(crate) fn convolution(
        &mut self,
        path: &str,
        convolution: Convolution,
        outputs: usize,
        bias: bool,
        [of_weight, of_bias]: [Init; 2],
    ) -> Result<(usize, Parameter, Option<Parameter>), LoadError> {
        let Convolution { channels, kernel: [height, width], groups, .. } = convolution;
        let shape = [outputs, channels / groups.max(1), height, width];
        let site = self.site(path, SiteKind::Conv, shape[1..].iter().product(), outputs);
        self.sites[site].convolution = Some(convolution);
        let weight = self.parameter(format!("{path}.weight"), &shape, &shape, of_weight, Reading::Products)?;
        let bias = bias.then(|| self.vector(format!("{path}.bias"), outputs, of_bias)).transpose()?;
        Ok((site, weight, bias))
    }

    /// A batch norm's weight, bias, running mean and running variance, `[channels]`. The last two are buffers.
    pub(crate) fn batch_norm(&mut self, path: &str, channels: usize) -> Result<[Parameter; 4], LoadError> {
        let weight = self.vector(format!("{path}.weight"), channels, Init::Ones)?;
        let bias = self.vector(format!("{path}.bias"), channels, Init::Zeros)?;
        let mean = self.buffer(format!("{path}.running_mean"), channels, Init::Zeros)?;
        let variance = self.buffer(format!("{path}.running_var"), channels, Init::Ones)?;
        let count = format!("{path}.num_batches_tracked");
        if let Origin::Checkpoint(weights) = self.origin
            && let Some(value) = stored_name(weights, self.prefix, &count).and_then(|name| weights.counter(&name))
        {
            self.counters.push((count, value));
        }
        Ok([weight, bias, mean, variance])
    }

    /// A convolution whose stride is its kernel: a linear layer over patches, `[out, channels * kernel * kernel]`.
    pub(crate) fn patch_projection(
        &mut self,
        path: &str,
        channels: usize,
        kernel: usize,
        outputs: usize,
        bias: bool,
    ) -> Result<Linear, LoadError> {
        let inputs = channels * kernel * kernel;
        let site = self.site(path, SiteKind::Conv, inputs, outputs);
        let (kernel, stride) = ([kernel; 2], [kernel; 2]);
        let padding = Some([0; 2]);
        self.sites[site].convolution =
            Some(Convolution { channels, kernel, stride, padding, dilation: [1; 2], groups: 1 });
        let stored = [outputs, channels, kernel[0], kernel[1]];
        let (name, normal) = (format!("{path}.weight"), Init::Normal(self.init_std));
        let weight = self.parameter(name, &stored, &[outputs, inputs], normal, Reading::Products)?;
        let bias = bias.then(|| self.vector(format!("{path}.bias"), outputs, Init::Zeros)).transpose()?;
        Ok(Linear { site, weight, bias })
    }

    pub(crate) fn layer_norm(&mut self, path: &str, width: usize, eps: f64) -> Result<LayerNorm, LoadError> {
        let weight = self.vector(format!("{path}.weight"), width, Init::Ones)?;
        let bias = self.vector(format!("{path}.bias"), width, Init::Zeros)?;
        Ok(LayerNorm { weight, bias, eps })
    }

    /// The weight of a norm that has nothing else, `[width]`; all of a new one's elements are `start`, 0 or 1.
    pub(crate) fn scale(&mut self, path: &str, width: usize, start: f64) -> Result<Parameter, LoadError> {
        self.vector(format!("{path}.weight"), width, if start == 0.0 { Init::Zeros } else { Init::Ones })
    }

    /// Learned rows, `[rows, width]`. `leading` ones stand before them in the files' shapes.
    pub(crate) fn rows(
        &mut self,
        name: &str,
        leading: usize,
        rows: usize,
        width: usize,
    ) -> Result<Parameter, LoadError> {
        let mut stored = vec![1; leading];
        stored.extend([rows, width]);
        self.parameter(name.into(), &stored, &[rows, width], Init::Normal(self.init_std), Reading::Rows)
    }

    /// One learned row, `[1, width]`, which is a vector in the files.
    pub(crate) fn row(&mut self, name: &str, width: usize) -> Result<Parameter, LoadError> {
        self.parameter(name.into(), &[width], &[1, width], Init::Normal(self.init_std), Reading::Rows)
    }

    /// A number, `[1]`, which has no dimension in the files; `start` is what a new one is.
    pub(crate) fn number(&mut self, name: &str, start: f64) -> Result<Parameter, LoadError> {
        self.parameter(name.into(), &[], &[1], Init::Constant(start), Reading::Products)
    }

    /// A matrix that products read, `[rows, width]`, and no site.
    pub(crate) fn matrix(&mut self, name: &str, rows: usize, width: usize) -> Result<Parameter, LoadError> {
        let shape = [rows, width];
        self.parameter(name.into(), &shape, &shape, Init::Normal(self.init_std), Reading::Products)
    }

    /// A vector that starts from zeros.
    pub(crate) fn bias(&mut self, name: &str, length: usize) -> Result<Parameter, LoadError> {
        self.vector(name.into(), length, Init::Zeros)
    }

    /// Whether a checkpoint holds this tensor, below the root. New models hold all.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.holds(&format!("{}{name}", self.root))
    }

    fn holds(&self, name: &str) -> bool {
        match self.origin {
            Origin::Checkpoint(weights) => stored_name(weights, self.prefix, name).is_some(),
            Origin::New { .. } => true,
        }
    }

    fn buffer(&mut self, name: String, length: usize, init: Init) -> Result<Parameter, LoadError> {
        let buffer = self.vector(name, length, init)?;
        buffer.set_trainable(false);
        if let Some(base) = self.parameters.last_mut() {
            base.buffer = true;
        }
        Ok(buffer)
    }

    fn vector(&mut self, name: String, length: usize, init: Init) -> Result<Parameter, LoadError> {
        self.parameter(name, &[length], &[length], init, Reading::Products)
    }

    fn parameter(
        &mut self,
        name: String,
        stored_shape: &[usize],
        shape: &[usize],
        init: Init,
        reading: Reading,
    ) -> Result<Parameter, LoadError> {
        self.parameter_as(name, stored_shape, shape, init, reading, None)
    }

    fn parameter_as(
        &mut self,
        name: String,
        stored_shape: &[usize],
        shape: &[usize],
        init: Init,
        reading: Reading,
        quantize: Option<Quantize>,
    ) -> Result<Parameter, LoadError> {
        let name = format!("{}{name}", self.root);
        let lacks = self.lacking.filter(|_| !self.holds(&name));
        if lacks.is_some() {
            self.new.push(name.clone());
        }
        let mut quantized = false;
        let parameter = match (self.origin, lacks.as_ref()) {
            (Origin::Checkpoint(weights), None) => {
                quantized = quantize.is_some();
                let found =
                    stored_name(weights, self.prefix, &name).unwrap_or_else(|| format!("{}{name}", self.prefix));
                let stored = weights.stored(&found, stored_shape)?;
                let elements = shape.iter().product();
                let source: Arc<dyn Values> = match quantize {
                    Some(quantize) => Arc::new(Quantized::new(stored, elements, quantize)),
                    None => Arc::new(stored),
                };
                // Vectors are small, and their ops read them as they are.
                if shape.len() > 1 && self.device.is_cpu() {
                    Parameter::at_rest(name, shape, source, reading, true)
                } else {
                    let mut values = vec![0f32; elements];
                    source.read(0, &mut values);
                    Parameter::new(name, Tensor::from_vec(values, shape, self.device)?, true)
                }
            }
            (Origin::New { seed }, _) | (Origin::Checkpoint(_), Some(seed)) => {
                let mut values = vec![0f32; shape.iter().product()];
                let stream = || Stream::new(*seed, &format!("init/{name}"));
                match init {
                    Init::Normal(std) => stream().fill_normal(&mut values, 0.0, std),
                    Init::Uniform(bound) => stream().fill_uniform(&mut values, -bound, bound),
                    Init::Constant(value) => values.fill(value as f32),
                    Init::Ones => values.fill(1.0),
                    Init::Zeros => {}
                }
                Parameter::new(name, Tensor::from_vec(values, shape, self.device)?, true)
            }
        };
        let (group, stream) = (self.group, self.stream);
        self.parameters.push(BaseParameter { parameter: parameter.clone(), group, stream, buffer: false, quantized });
        self.stored_shapes.push(stored_shape.into());
        Ok(parameter)
    }
}

/// The name that a checkpoint gives a parameter: with or without the prefix, and with TensorFlow's names of a norm's weights,
/// which old checkpoints keep.
fn stored_name(weights: &Weights, prefix: &str, name: &str) -> Option<String> {
    let old = match name.strip_suffix("LayerNorm.weight") {
        Some(path) => Some(format!("{path}LayerNorm.gamma")),
        None => name.strip_suffix("LayerNorm.bias").map(|path| format!("{path}LayerNorm.beta")),
    };
    [Some(name.to_owned()), old]
        .into_iter()
        .flatten()
        .flat_map(|name| [format!("{prefix}{name}"), name])
        .find(|name| weights.contains(name))
}
