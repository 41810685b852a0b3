//! Pixels in memory: a picture, a mask.

/// `height` rows of `width` pixels of `C` bytes each.
#[derive(Clone, PartialEq, Eq)]
pub struct Plane<const C: usize> {
    height: usize,
    width: usize,
    pixels: Vec<[u8; C]>,
}

/// A picture: red, green, blue.
pub type Picture = Plane<3>;

/// A segmentation mask: the index of each pixel's class.
pub type Mask = Plane<1>;

impl<const C: usize> std::fmt::Debug for Plane<C> {
    /// The size alone: no test's output should hold a picture.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plane<{C}>({} x {})", self.height, self.width)
    }
}

impl<const C: usize> Plane<C> {
    /// A plane of these pixels, row by row; `None` where there is no pixel, or their number is not `height * width`.
    pub fn new(height: usize, width: usize, pixels: Vec<[u8; C]>) -> Option<Self> {
        let fits = !pixels.is_empty() && height.checked_mul(width) == Some(pixels.len());
        fits.then_some(Self { height, width, pixels })
    }

    /// A plane of one value. `height` and `width` are above zero.
    pub(crate) fn filled(height: usize, width: usize, pixel: [u8; C]) -> Self {
        debug_assert!(height > 0 && width > 0);
        Self { height, width, pixels: vec![pixel; height * width] }
    }

    /// A plane whose pixels follow from their places. `height` and `width` are above zero.
    pub(crate) fn from_fn(height: usize, width: usize, mut pixel: impl FnMut(usize, usize) -> [u8; C]) -> Self {
        debug_assert!(height > 0 && width > 0);
        let mut pixels = Vec::with_capacity(height * width);
        for y in 0..height {
            pixels.extend((0..width).map(|x| pixel(y, x)));
        }
        Self { height, width, pixels }
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height and width.
    pub fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// The pixels, row by row.
    pub fn pixels(&self) -> &[[u8; C]] {
        &self.pixels
    }

    /// The pixels, row by row.
    pub fn pixels_mut(&mut self) -> &mut [[u8; C]] {
        &mut self.pixels
    }

    /// The bytes, `[height, width, C]`.
    pub fn bytes(&self) -> &[u8] {
        self.pixels.as_flattened()
    }

    pub(crate) fn row(&self, y: usize) -> &[[u8; C]] {
        &self.pixels[y * self.width..][..self.width]
    }

    pub(crate) fn rows(&self) -> impl DoubleEndedIterator<Item = &[[u8; C]]> + ExactSizeIterator {
        self.pixels.chunks_exact(self.width)
    }

    /// The part that begins at a row and column. It lies inside.
    pub(crate) fn crop(&self, top: usize, left: usize, height: usize, width: usize) -> Self {
        debug_assert!(top + height <= self.height && left + width <= self.width);
        let mut pixels = Vec::with_capacity(height * width);
        for row in self.rows().skip(top).take(height) {
            pixels.extend_from_slice(&row[left..][..width]);
        }
        Self { height, width, pixels }
    }

    /// With a border of one value: so many rows above and below, columns to the left and right.
    pub(crate) fn pad(&self, [top, bottom, left, right]: [usize; 4], fill: [u8; C]) -> Self {
        let mut padded = Self::filled(top + self.height + bottom, left + self.width + right, fill);
        let width = padded.width;
        for (y, row) in self.rows().enumerate() {
            padded.pixels[(top + y) * width + left..][..self.width].copy_from_slice(row);
        }
        padded
    }
}

/// Red, green and blue of pixels with so many channels: grey is repeated. Alpha is dropped, or lets through what lies below, `over`, as Pillow's
/// `alpha_composite` does.
pub(crate) fn to_rgb(bytes: &[u8], channels: usize, over: Option<[u8; 3]>, pixels: &mut [[u8; 3]]) {
    let grey = channels < 3;
    for (pixel, from) in pixels.iter_mut().zip(bytes.chunks_exact(channels)) {
        *pixel = if grey { [from[0]; 3] } else { [from[0], from[1], from[2]] };
        if let (Some(below), 2 | 4) = (over, channels) {
            let alpha = u32::from(from[channels - 1]);
            for (level, below) in pixel.iter_mut().zip(below) {
                let sum = u32::from(*level) * alpha + u32::from(below) * (255 - alpha) + 128;
                *level = ((sum + (sum >> 8)) >> 8) as u8; // sum / 255, rounded
            }
        }
    }
}
