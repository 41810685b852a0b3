//! The toy model: what it is, before anything runs. A transformer of two blocks with every kind of site, of texts or of pictures.

use serde_json::Value as Json;

use super::random::Stream;
use crate::{Comparison, Convolution, Error, FeatureKind, Result, Site, SiteKind, Window};

/// Width of the hidden states.
pub(crate) const WIDTH: usize = 6;
/// Attention heads of a block.
pub(crate) const HEADS: usize = 2;
/// Width inside a feed-forward layer.
const INNER: usize = 8;
/// Blocks.
pub(crate) const LAYERS: usize = 2;
/// Block groups: embeddings, blocks, heads.
pub(crate) const GROUPS: usize = LAYERS + 2;
/// Size of the vocabulary.
pub(crate) const VOCABULARY: usize = 13;
/// Rows of the table of positions.
pub(crate) const POSITIONS: usize = 64;
/// Height and width of a picture.
pub(crate) const PICTURE: [usize; 2] = [4, 6];
const CHANNELS: usize = 2;
/// Height and width of the map that is made of a picture.
pub(crate) const MAP: [usize; 2] = [2, 3];
/// Width of a picture's features beside a text's: another one, so that who takes one for the other is found.
const PAIRED_WIDTH: usize = 4;
/// Width of what a pair's own head compares.
const COMPARED: usize = 3;
/// What norms add to the variance.
pub(crate) const EPS: f64 = 1e-6;

/// What a toy model reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toy {
    /// Texts: token ids of sequences of different lengths.
    Text,
    /// Pictures, all of one size.
    Pictures,
}

/// A model of both toys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pair {
    /// Two models that know nothing of each other.
    Joined,
    /// One with a head of its own that compares both, as CLIP has.
    Comparing,
}

impl Pair {
    /// Its toys, and how wide their features are.
    pub(crate) const TOWERS: [(Toy, usize); 2] = [(Toy::Text, WIDTH), (Toy::Pictures, PAIRED_WIDTH)];

    /// Its own head.
    pub(crate) fn comparison(self) -> Option<Comparison> {
        let projections = vec!["text_projection.weight".into(), "visual_projection.weight".into()];
        (self == Self::Comparing).then(|| Comparison { projections, scale: "logit_scale".into(), width: COMPARED })
    }

    /// The parameters of its own head.
    pub(crate) fn parameters(self) -> Vec<Declared> {
        let Some(Comparison { projections, scale, width }) = self.comparison() else { return Vec::new() };
        let matrix = |(name, (_, inputs)): (String, (Toy, usize))| {
            let values = Stream::new(0, &name).normals(width * inputs, 0.0, 1.0 / (inputs as f64).sqrt());
            (name, vec![width, inputs], values, GROUPS - 1)
        };
        let matrices = projections.into_iter().zip(Self::TOWERS).map(matrix);
        matrices.chain([(scale, vec![1], vec![2.0], GROUPS - 1)]).collect()
    }
}

/// Examples.
#[derive(Clone, Debug)]
pub(crate) enum Batch {
    Texts(Vec<Vec<u32>>),
    /// Rows of pixels, `[pictures * height * width * channels]`.
    Pictures(usize, Vec<f64>),
}

/// Name, shape, values and block group.
pub(crate) type Declared = (String, Vec<usize>, Vec<f64>, usize);

impl Toy {
    /// Hugging Face's `model_type`.
    pub(crate) fn model_type(self) -> &'static str {
        match self {
            Self::Text => "toy",
            Self::Pictures => "toy-pictures",
        }
    }

    /// The name of its stream.
    pub(crate) fn stream(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Pictures => "image",
        }
    }

    pub(crate) fn features(self) -> Vec<FeatureKind> {
        let mut kinds = vec![FeatureKind::Pooled, FeatureKind::Sequence];
        if self == Self::Pictures {
            kinds.push(FeatureKind::Spatial);
        }
        kinds
    }

    /// What is said of its stream, whose features have this width.
    pub(crate) fn described(self, width: usize) -> crate::Stream {
        crate::Stream {
            name: self.stream().into(),
            width,
            layers: Some(LAYERS),
            heads: Some(HEADS),
            vocabulary: self.vocabulary(),
            features: self.features(),
        }
    }

    pub(crate) fn vocabulary(self) -> Option<usize> {
        (self == Self::Text).then_some(VOCABULARY)
    }

    /// The convolution's path, and how it moves: over the tokens of each text, or over a picture's patches.
    pub(crate) fn convolution(self) -> (&'static str, Convolution) {
        let groups = 1;
        match self {
            Self::Text => {
                let (kernel, padding) = ([1, 3], Some([0, 1]));
                let of = Convolution { channels: WIDTH, kernel, stride: [1; 2], padding, dilation: [1; 2], groups };
                ("embeddings.convolution", of)
            }
            Self::Pictures => {
                let (kernel, stride, padding) = ([2, 2], [2, 2], Some([0; 2]));
                let of = Convolution { channels: CHANNELS, kernel, stride, padding, dilation: [1; 2], groups };
                ("embeddings.patch_embeddings.projection", of)
            }
        }
    }

    /// How the convolution moves, in the words of the ops.
    pub(crate) fn window(self) -> Window {
        let (_, Convolution { stride, padding, dilation, groups, .. }) = self.convolution();
        Window { stride, padding: padding.unwrap_or_default(), dilation, groups }
    }

    /// All sites, in the order of the forward pass.
    pub(crate) fn sites(self) -> Vec<Site> {
        let site = |path: String, kind, [in_features, out_features]: [usize; 2], group| Site {
            path,
            kind,
            in_features,
            out_features,
            group,
            stream: self.stream().into(),
            hooked: false,
            convolution: None,
        };
        let (path, of) = self.convolution();
        let patch = of.channels * of.kernel[0] * of.kernel[1];
        let convolution = Site { convolution: Some(of), ..site(path.into(), SiteKind::Conv, [patch, WIDTH], 0) };
        let embeddings = site("embeddings".into(), SiteKind::Embeddings, [WIDTH; 2], 0);
        let mut sites = match self {
            Self::Text => vec![embeddings, convolution],
            Self::Pictures => vec![convolution, embeddings],
        };
        for layer in 0..LAYERS {
            let mut add = |end: &str, kind, features| {
                sites.push(site(format!("encoder.layer.{layer}.{end}"), kind, features, layer + 1));
            };
            for name in ["query", "key", "value"] {
                add(&format!("attention.self.{name}"), SiteKind::Linear, [WIDTH; 2]);
            }
            add("attention.self", SiteKind::Attention, [WIDTH; 2]);
            add("attention.output.dense", SiteKind::Linear, [WIDTH; 2]);
            add("attention.output", SiteKind::AttentionOutput, [WIDTH; 2]);
            add("intermediate.dense", SiteKind::Linear, [WIDTH, INNER]);
            add("output.dense", SiteKind::Linear, [INNER, WIDTH]);
            add("output", SiteKind::FeedForwardOutput, [WIDTH; 2]);
        }
        sites.push(site("pooler.dense".into(), SiteKind::Linear, [WIDTH; 2], LAYERS));
        sites
    }

    /// All parameters with the values they are "pretrained" with, which are the same in every test.
    pub(crate) fn parameters(self) -> Vec<Declared> {
        let mut all: Vec<Declared> = Vec::new();
        let mut table = |name: &str, rows: usize| {
            let values = Stream::new(0, name).normals(rows * WIDTH, 0.0, 1.0);
            all.push((name.into(), vec![rows, WIDTH], values, 0));
        };
        if self == Self::Text {
            table("embeddings.word_embeddings.weight", VOCABULARY);
        }
        table("embeddings.position_embeddings.weight", POSITIONS);
        let norm = |path: &str, group| {
            ["weight", "bias"].map(|end| {
                let (name, mean) = (format!("{path}.{end}"), if end == "weight" { 1.0 } else { 0.0 });
                let values = Stream::new(0, &name).normals(WIDTH, mean, 0.2);
                (name, vec![WIDTH], values, group)
            })
        };
        all.extend(norm("embeddings.LayerNorm", 0));
        for site in self.sites() {
            if matches!(site.kind, SiteKind::Linear | SiteKind::Conv) {
                let Site { path, in_features, out_features, group, .. } = site.clone();
                let (weight, bias) = (format!("{path}.weight"), format!("{path}.bias"));
                let deviation = 1.0 / (in_features as f64).sqrt();
                let values = Stream::new(0, &weight).normals(out_features * in_features, 0.0, deviation);
                let shape = match site.convolution {
                    Some(Convolution { channels, kernel: [height, width], .. }) => {
                        vec![out_features, channels, height, width]
                    }
                    None => vec![out_features, in_features],
                };
                all.push((weight, shape, values, group));
                let values = Stream::new(0, &bias).normals(out_features, 0.0, 0.2);
                all.push((bias, vec![out_features], values, group));
            }
            if matches!(site.kind, SiteKind::AttentionOutput | SiteKind::FeedForwardOutput) {
                all.extend(norm(&format!("{}.LayerNorm", site.path), site.group));
            }
        }
        all
    }

    /// The values that a new parameter starts with: random ones are a function of seed and name. `init` is an
    /// [`Init`](crate::Init) as it crosses, so that one that is newer than this crate's has a place here too.
    ///
    /// # Errors
    /// Where the model has none such.
    pub(crate) fn initial(self, seed: u64, name: &str, shape: &[usize], init: &Json) -> Result<Vec<f64>> {
        let (n, stream) = (shape.iter().product(), Stream::new(seed, name));
        let number = |of: &str| init[of].as_f64().ok_or_else(|| Error::new(format!("the init {init} has no {of}")));
        Ok(match init["init"].as_str().unwrap_or_default() {
            "zeros" => vec![0.0; n],
            "ones" => vec![1.0; n],
            "constant" => vec![number("value")?; n],
            "uniform" => stream.uniforms(n, number("low")?, number("high")?),
            "normal" => stream.normals(n, number("mean")?, number("std")?),
            "truncated_normal" => stream.truncated_normals(n, number("std")?),
            "vocabulary_rows" => {
                let ids = stream.permutation(VOCABULARY);
                let rows = self.rows_of(shape)?;
                if rows > VOCABULARY {
                    return Err(Error::new(format!("the vocabulary has only {VOCABULARY} rows")));
                }
                self.words(&ids[..rows])
            }
            "text_rows" => {
                let rows = self.rows_of(shape)?;
                let ids = tokens(init["text"].as_str().unwrap_or_default())?;
                self.words(&ids.into_iter().cycle().take(rows).map(|id| id as usize).collect::<Vec<_>>())
            }
            _ => return Err(Error::new(format!("the mock host does not know the init {init}"))),
        })
    }

    /// How many rows of the word embeddings make this shape.
    fn rows_of(self, shape: &[usize]) -> Result<usize> {
        match shape {
            _ if self == Self::Pictures => Err(Error::new("a model of pictures has no word embeddings")),
            [rows, WIDTH] => Ok(*rows),
            _ => Err(Error::new(format!("rows of the word embeddings [{VOCABULARY}, {WIDTH}] do not have this shape"))),
        }
    }

    fn words(self, ids: &[usize]) -> Vec<f64> {
        let parameters = self.parameters();
        let table = parameters.first().map_or(&[][..], |(_, _, values, _)| values);
        ids.iter().flat_map(|id| &table[id * WIDTH..(id + 1) * WIDTH]).copied().collect()
    }

    /// So many examples, the same each time.
    pub(crate) fn batch(self, examples: usize) -> Batch {
        let stream = Stream::new(1, "examples");
        match self {
            Self::Text => {
                let text = |i: usize| {
                    let length = 2 + (i * 5 + 1) % 4;
                    (0..length).map(|at| (stream.uniform((i * 8 + at) as u64) * VOCABULARY as f64) as u32).collect()
                };
                Batch::Texts((0..examples).map(text).collect())
            }
            Self::Pictures => {
                let n = examples * PICTURE[0] * PICTURE[1] * CHANNELS;
                Batch::Pictures(examples, stream.normals(n, 0.0, 1.0))
            }
        }
    }
}

/// The toy's tokenizer: a word is a token, by its letters.
fn tokens(text: &str) -> Result<Vec<u32>> {
    let token = |word: &str| word.bytes().fold(0, |sum, byte| (sum * 31 + u32::from(byte)) % VOCABULARY as u32);
    let tokens: Vec<u32> = text.split_whitespace().map(token).collect();
    if tokens.is_empty() { Err(Error::new(format!("the text {text:?} has no tokens"))) } else { Ok(tokens) }
}
