//! The SVG of a chart: axes, curves, and what the pointer is told.

use std::fmt::Write;

use maud::{Markup, html};

use super::axis::{Axis, Ends};
use super::{Chart, Marker, Series, Style};
use crate::report::numbers::significant;

/// Places of a chart that say their values when the pointer is over them.
const SPOTS: usize = 120;
/// Width of a half chart and of a wide one, and the height of both, in the SVG's units: about pixels on a full screen.
const WIDTH: f64 = 560.0;
const WIDE: f64 = 1150.0;
pub(super) const HEIGHT: f64 = 270.0;
/// Room around the plot for what stands there.
const TOP: f64 = 10.0;
const RIGHT: f64 = 14.0;
const BOTTOM: f64 = 40.0;
/// Height of a marker's label, and how far it stands from its line.
const ROW: f64 = 16.0;
const GAP: f64 = 5.0;
/// A digit's width.
const DIGIT: f64 = 7.0;

/// A curve as it is drawn: thinned, with its colour's number.
pub(super) struct Curve<'a> {
    pub(super) series: &'a Series,
    pub(super) points: Vec<(f64, f64)>,
    pub(super) colour: usize,
}

/// A chart with its axes laid out.
pub(super) struct Drawing<'a> {
    x: Axis,
    y: Axis,
    x_label: &'a str,
    curves: &'a [Curve<'a>],
    /// From left to right. Each has a row above the plot, so that no label stands on another or on a curve.
    markers: Vec<&'a Marker>,
    width: f64,
    left: f64,
    right: f64,
}

impl<'a> Drawing<'a> {
    pub(super) fn new(chart: &'a Chart, curves: &'a [Curve<'a>]) -> Self {
        let width = if chart.wide { WIDE } else { WIDTH };
        let points = || curves.iter().flat_map(|curve| &curve.points);
        let y = Axis::new(chart.y_scale, points().map(|point| point.1), Ends::Round, 5);
        let mut markers: Vec<&Marker> = chart.markers.iter().filter(|marker| chart.x_scale.takes(marker.x)).collect();
        markers.sort_by(|a, b| a.x.total_cmp(&b.x));
        let across = points().map(|point| point.0).chain(markers.iter().map(|marker| marker.x));
        let x = Axis::new(chart.x_scale, across, Ends::Exact, if chart.wide { 10 } else { 6 });
        let left = 14.0 + y.ticks.iter().map(|tick| wide(&tick.text)).fold(0.0, f64::max);
        // The last tick's text may stand half beyond the plot.
        let right = width - x.ticks.last().map_or(RIGHT, |tick| RIGHT.max(wide(&tick.text) / 2.0));
        Self { x, y, x_label: &chart.x_label, curves, markers, width, left, right }
    }

    fn across(&self, fraction: f64) -> f64 {
        self.left + fraction * (self.right - self.left)
    }

    fn down(&self, fraction: f64) -> f64 {
        HEIGHT - BOTTOM - fraction * (HEIGHT - BOTTOM - TOP)
    }

    /// Where a point is drawn; `None` for a gap.
    fn place(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        (!y.is_nan()).then(|| (self.across(self.x.fraction(x)), self.down(self.y.fraction(y))))
    }

    /// The SVG; `title` is what a screen reader says of it.
    pub(super) fn svg(&self, title: &str) -> Markup {
        let floor = self.down(0.0);
        let above = ROW * self.markers.len() as f64;
        // Not `-above`: without markers that is written `-0`.
        let top = 0.0 - above;
        html! {
            svg viewBox=(format!("0 {top} {} {}", self.width, HEIGHT + above)) role="img" aria-label=(title) {
                @for tick in &self.y.ticks {
                    @let y = number(self.down(tick.place));
                    line.grid x1=(number(self.left)) x2=(number(self.right)) y1=(y) y2=(y) {}
                    text.y x=(number(self.left - 8.0)) y=(y) dy=".32em" { (tick.text) }
                }
                line.axis x1=(number(self.left)) x2=(number(self.right)) y1=(number(floor)) y2=(number(floor)) {}
                @for tick in &self.x.ticks {
                    @let x = number(self.across(tick.place));
                    line.axis x1=(x) x2=(x) y1=(number(floor)) y2=(number(floor + 4.0)) {}
                    text.x x=(x) y=(number(floor + 17.0)) { (tick.text) }
                }
                text.x.label x=(number(self.across(0.5))) y=(number(HEIGHT - 6.0)) { (self.x_label) }
                @for (row, marker) in self.markers.iter().enumerate() {
                    @let x = number(self.across(self.x.fraction(marker.x)));
                    line.marker x1=(x) x2=(x) y1=(number(top + ROW * row as f64)) y2=(number(floor)) {}
                }
                @for (row, marker) in self.markers.iter().enumerate() {
                    @let x = self.across(self.x.fraction(marker.x));
                    @let fits = x + GAP + wide(&marker.label) < self.width;
                    @let x = if fits { x + GAP } else { x - GAP };
                    text.marker.left[!fits] x=(number(x)) y=(number(top + ROW * row as f64 + 12.0)) { (marker.label) }
                }
                @for curve in self.curves {
                    @let style = curve.series.style;
                    // One point is no line.
                    @let alone = curve.points.len() == 1;
                    @if style != Style::Dots && !alone {
                        path.line.faint[style == Style::Faint].{ "c" (curve.colour) } d=(self.path(curve)) {}
                    }
                    @if matches!(style, Style::Marked | Style::Dots) || alone {
                        @for (x, y) in curve.points.iter().filter_map(|&point| self.place(point)) {
                            circle.dot.faint[style == Style::Dots].{ "c" (curve.colour) } cx=(number(x)) cy=(number(y)) r="3" {}
                        }
                    }
                }
                @for spot in self.spots() { (self.spot(&spot)) }
            }
        }
    }

    fn path(&self, curve: &Curve<'_>) -> String {
        let mut path = String::new();
        let mut down = false;
        for &point in &curve.points {
            let place = self.place(point);
            if let Some((x, y)) = place {
                // `h0` makes a dot of a point between two gaps.
                let (command, dot) = if down { ("L", "") } else { ("M", "h0") };
                // Writing to a `String` cannot fail.
                let _ = write!(path, "{command}{} {}{dot}", number(x), number(y));
            }
            down = place.is_some();
        }
        path
    }

    /// The plot cut into upright strips, each with the points of the curves that are nearest to its middle.
    fn spots(&self) -> Vec<Spot<'_>> {
        let strips = self.curves.iter().map(|curve| curve.points.len()).max().unwrap_or_default().min(SPOTS);
        let mut spots: Vec<Spot<'_>> = (0..strips)
            .map(|strip| Spot {
                left: self.across(strip as f64 / strips as f64),
                width: self.across(1.0 / strips as f64) - self.left,
                points: Vec::new(),
            })
            .collect();
        for curve in self.curves {
            let mut nearest: Vec<Option<(f64, (f64, f64))>> = vec![None; strips];
            for &point in curve.points.iter().filter(|point| !point.1.is_nan()) {
                let at = self.x.fraction(point.0) * strips as f64;
                let strip = (at as usize).min(strips - 1);
                let distance = (at - strip as f64 - 0.5).abs();
                if nearest[strip].is_none_or(|(least, _)| distance < least) {
                    nearest[strip] = Some((distance, point));
                }
            }
            for (spot, nearest) in spots.iter_mut().zip(nearest) {
                spot.points.extend(nearest.map(|(_, point)| (curve, point)));
            }
        }
        spots.retain(|spot| !spot.points.is_empty());
        spots
    }

    fn spot(&self, spot: &Spot<'_>) -> Markup {
        let places: Vec<_> =
            spot.points.iter().filter_map(|&(curve, point)| Some((curve.colour, self.place(point)?))).collect();
        let mut title = String::new();
        if let Some((_, (x, _))) = spot.points.first() {
            title = format!("{} {}", self.x_label, significant(*x));
        }
        for (curve, (_, y)) in &spot.points {
            title += &format!("\n{} {}", curve.series.name, significant(*y));
        }
        let top = number(TOP);
        html! {
            g.spot {
                title { (title) }
                rect x=(number(spot.left)) y=(top) width=(number(spot.width)) height=(number(HEIGHT - BOTTOM - TOP)) {}
                @if let Some((_, (x, _))) = places.first() {
                    line x1=(number(*x)) x2=(number(*x)) y1=(top) y2=(number(self.down(0.0))) {}
                }
                @for (colour, (x, y)) in &places {
                    circle.{ "c" (colour) } cx=(number(*x)) cy=(number(*y)) r="3.5" {}
                }
            }
        }
    }
}

/// A strip of the plot that says its values when the pointer is over it.
struct Spot<'a> {
    left: f64,
    width: f64,
    points: Vec<(&'a Curve<'a>, (f64, f64))>,
}

/// How wide a text may be: letters are narrower than digits on average.
fn wide(text: &str) -> f64 {
    DIGIT * text.chars().count() as f64
}

/// A coordinate: tenths of a pixel are enough.
fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}
