//! Feature maps: rows of pixels whose size stands beside them.

use super::{
    basic::{NOWHERE, add, add_up, gather, mul, sum_of_products},
    call::Call,
};
use crate::{Error, Result, Window, test::value::Value};

/// Where a kernel meets a map: places of the smaller map that a convolution makes, pixels of the larger one.
#[derive(Clone, Debug)]
pub(crate) struct Sweep {
    /// Images, one after the other.
    pub(crate) images: usize,
    /// Of the larger map: height and width.
    pub(crate) map: [usize; 2],
    /// Of the smaller one.
    pub(crate) places: [usize; 2],
    /// Taps.
    pub(crate) kernel: [usize; 2],
    pub(crate) window: Window,
}

impl Sweep {
    /// Calls with row of the place, row of the pixel and tap, wherever a tap meets a pixel.
    fn each(&self, mut meet: impl FnMut(usize, usize, usize)) {
        let Self { images, map: [height, width], places: [down, right], kernel: [taps_down, taps_right], window } =
            *self;
        let axis = |i: usize, place: usize, tap: usize, size: usize| {
            (place * window.stride[i] + tap * window.dilation[i]).checked_sub(window.padding[i]).filter(|at| *at < size)
        };
        for (image, y, x) in triples(images, down, right) {
            for (ky, kx) in (0..taps_down).flat_map(|ky| (0..taps_right).map(move |kx| (ky, kx))) {
                if let (Some(py), Some(px)) = (axis(0, y, ky, height), axis(1, x, kx, width)) {
                    let (place, pixel) = ((image * down + y) * right + x, (image * height + py) * width + px);
                    meet(place, pixel, ky * taps_right + kx);
                }
            }
        }
    }

    /// The patches of `x` `[pixels, channels]` that the kernel meets at each place, `[places, channels * taps]`, by channel, then tap.
    pub(crate) fn patches(&self, x: &Value) -> Value {
        let (channels, taps) = (x.width(), self.kernel[0] * self.kernel[1]);
        let places = self.images * self.places[0] * self.places[1];
        let mut from = vec![NOWHERE; places * channels * taps];
        self.each(|place, pixel, tap| {
            (0..channels).for_each(|c| from[(place * channels + c) * taps + tap] = pixel * channels + c);
        });
        gather(x, [places, channels * taps], from)
    }
}

fn triples(a: usize, b: usize, c: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..a).flat_map(move |i| (0..b).flat_map(move |j| (0..c).map(move |k| (i, j, k))))
}

/// The number of maps in the rows of `x`.
fn images(x: &Value, [height, width]: [usize; 2]) -> Result<usize> {
    match (x.shape(), height * width) {
        ([rows, _], pixels) if pixels > 0 && rows % pixels == 0 => Ok(rows / pixels),
        (shape, _) => Err(Error::new(format!("{shape:?} are no maps of {height} x {width} pixels"))),
    }
}

struct Kernel {
    sweep: Sweep,
    /// First and second dimension of the weight.
    sizes: [usize; 2],
    groups: usize,
}

/// Reads the integers that both convolutions begin with: map, stride, padding, dilation. Gives the map of `x`, too.
fn kernel(call: &Call<'_>, groups: usize) -> Result<(Kernel, [usize; 2])> {
    let (x, weight) = (call.x(0)?, call.x(1)?);
    let [first, second, height, width] = *weight.shape() else {
        return Err(Error::new(format!(
            "a kernel has shape [out, in, height, width], and this one {:?}",
            weight.shape()
        )));
    };
    let pair = |i: usize| Ok::<_, Error>([call.size(i)?, call.size(i + 1)?]);
    let map = pair(0)?;
    let window = Window { stride: pair(2)?, padding: pair(4)?, dilation: pair(6)?, groups };
    if groups == 0 || window.stride.contains(&0) || window.dilation.contains(&0) {
        return Err(Error::new("groups, stride and dilation are at least 1"));
    }
    let sweep = Sweep { images: images(x, map)?, map, places: map, kernel: [height, width], window };
    Ok((Kernel { sweep, sizes: [first, second], groups }, map))
}

fn with_bias(y: Value, bias: Option<&Value>) -> Result<Value> {
    match bias {
        None => Ok(y),
        Some(bias) if bias.shape() == [y.width()] => add(&y, bias),
        Some(bias) => {
            Err(Error::new(format!("a bias of shape {:?} stands beside {} channels", bias.shape(), y.width())))
        }
    }
}

pub(super) fn conv2d(call: &Call<'_>) -> Result<Value> {
    let (Kernel { mut sweep, sizes: [out, inner], groups }, map) = kernel(call, call.size(8)?)?;
    let (x, weight) = (call.x(0)?, call.x(1)?);
    if x.width() != inner * groups || out % groups != 0 {
        return Err(Error::new(format!(
            "{} channels in {groups} groups meet a kernel {:?}",
            x.width(),
            weight.shape()
        )));
    }
    sweep.places = sweep.window.output(map, sweep.kernel);
    let taps = sweep.kernel[0] * sweep.kernel[1];
    let rows = sweep.images * sweep.places[0] * sweep.places[1];
    let y = sum_of_products(x, weight, [rows, out], move |product| {
        sweep.each(|place, pixel, tap| {
            for (o, c) in (0..out).flat_map(|o| (0..inner).map(move |c| (o, c))) {
                let channel = o / (out / groups) * inner + c;
                product(place * out + o, pixel * inner * groups + channel, (o * inner + c) * taps + tap);
            }
        });
    });
    with_bias(y, call.optional(2))
}

pub(super) fn conv_transpose2d(call: &Call<'_>) -> Result<Value> {
    let (Kernel { mut sweep, sizes: [channels, each], groups }, map) = kernel(call, call.size(10)?)?;
    let (x, weight) = (call.x(0)?, call.x(1)?);
    if x.width() != channels || channels % groups != 0 {
        return Err(Error::new(format!(
            "{} channels in {groups} groups meet a kernel {:?}",
            x.width(),
            weight.shape()
        )));
    }
    let larger = sweep.window.transposed_output(map, sweep.kernel);
    // Each input pixel is a place of the convolution that goes the other way.
    sweep.map = [larger[0] + call.size(8)?, larger[1] + call.size(9)?];
    let (taps, out, in_group) = (sweep.kernel[0] * sweep.kernel[1], each * groups, channels / groups);
    let rows = sweep.images * sweep.map[0] * sweep.map[1];
    let y = sum_of_products(x, weight, [rows, out], move |product| {
        sweep.each(|place, pixel, tap| {
            for (c, o) in (0..channels).flat_map(|c| (0..each).map(move |o| (c, o))) {
                let output = c / in_group * each + o;
                product(pixel * out + output, place * channels + c, (c * each + o) * taps + tap);
            }
        });
    });
    with_bias(y, call.optional(2))
}

/// For each pixel of one side of the new map the pixels of the old one that it is made of, with their shares.
type Shares = Vec<Vec<(usize, f64)>>;

/// As torch's `interpolate`, mode bilinear: with `align_corners` the outermost pixels' centres stay where they are, without it the
/// outermost edges.
fn bilinear(old: usize, new: usize, align_corners: bool) -> Shares {
    let place = |o: usize| match align_corners {
        true if new > 1 => o as f64 * (old - 1) as f64 / (new - 1) as f64,
        true => 0.0,
        false => ((o as f64 + 0.5) * old as f64 / new as f64 - 0.5).max(0.0),
    };
    let shares = |o: usize| {
        let at = place(o).min((old - 1) as f64);
        let (low, part) = (at.floor() as usize, at.fract());
        if part == 0.0 { vec![(low, 1.0)] } else { vec![(low, 1.0 - part), (low + 1, part)] }
    };
    (0..new).map(shares).collect()
}

/// As torch's mode nearest, which reckons in `f32`.
fn nearest(old: usize, new: usize) -> Shares {
    let scale = old as f32 / new as f32;
    (0..new).map(|o| vec![(((o as f32 * scale) as usize).min(old - 1), 1.0)]).collect()
}

fn resample(x: &Value, map: [usize; 2], [down, right]: [Shares; 2]) -> Result<Value> {
    let (images, channels) = (images(x, map)?, x.width());
    let (mut from, mut to, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for (row, (image, y, x)) in triples(images, down.len(), right.len()).enumerate() {
        for ((py, share_y), (px, share_x)) in down[y].iter().flat_map(|y| right[x].iter().map(move |x| (y, x))) {
            for c in 0..channels {
                from.push(((image * map[0] + py) * map[1] + px) * channels + c);
                to.push(row * channels + c);
                shares.push(share_y * share_x);
            }
        }
    }
    let terms = shares.len();
    let weighted = mul(&gather(x, [terms], from), &Value::constant(x.dtype(), [terms], shares))?;
    Ok(add_up(&weighted, [images * down.len() * right.len(), channels], to))
}

/// The old and the new size, which the first four integers say.
fn sizes(call: &Call<'_>) -> Result<([usize; 2], [usize; 2])> {
    let (map, size) = ([call.size(0)?, call.size(1)?], [call.size(2)?, call.size(3)?]);
    images(call.x(0)?, map)?;
    if size.contains(&0) { Err(Error::new("a map has at least one pixel")) } else { Ok((map, size)) }
}

pub(super) fn upsample_bilinear2d(call: &Call<'_>) -> Result<Value> {
    let (map, size) = sizes(call)?;
    resample(call.x(0)?, map, [0, 1].map(|i| bilinear(map[i], size[i], call.ints[4] != 0)))
}

pub(super) fn upsample_nearest2d(call: &Call<'_>) -> Result<Value> {
    let (map, size) = sizes(call)?;
    resample(call.x(0)?, map, [0, 1].map(|i| nearest(map[i], size[i])))
}
