//! A chart as a figure of a page.

use maud::{Markup, Render, html};

use super::axis::Scale;
use super::svg::{Curve, Drawing};
use super::thin::thin;
use super::{Chart, Style};

/// Points that are drawn of one curve.
pub(super) const POINTS: usize = 1000;
/// Colours of the style sheet.
const COLOURS: usize = 6;
/// What is said of points without a place, before their number.
const OMITTED: &str = "Values left out, since they are not finite or have no place on the scale: ";

impl Chart {
    /// The curves thinned, each with its colour's number. A y without a place is not a number; a point without x is left out.
    pub(super) fn curves(&self) -> Vec<Curve<'_>> {
        let mut colour = 0;
        let mut curves = Vec::new();
        for series in &self.series {
            let drawable = |&(x, y): &(f64, f64)| (x, if self.y_scale.takes(y) { y } else { f64::NAN });
            let points: Vec<_> =
                series.points.iter().filter(|point| self.x_scale.takes(point.0)).map(drawable).collect();
            curves.push(Curve { series, points: thin(&points, POINTS), colour: colour % COLOURS });
            colour += usize::from(series.style != Style::Faint);
        }
        curves
    }

    /// Points that have no place in the chart.
    fn left_out(&self) -> usize {
        let place = |(x, y): (f64, f64)| self.x_scale.takes(x) && self.y_scale.takes(y);
        self.series.iter().flat_map(|series| &series.points).filter(|&&point| !place(point)).count()
    }
}

/// A figure with a caption, a legend where there are several curves, and the SVG.
impl Render for Chart {
    fn render(&self) -> Markup {
        let curves = self.curves();
        let drawing = Drawing::new(self, &curves);
        let left_out = self.left_out();
        html! {
            figure.chart.wide[self.wide] {
                figcaption {
                    b { (self.title) }
                    @if self.y_scale == Scale::Log { small { "logarithmic" } }
                    @if curves.len() > 1 {
                        @for curve in &curves {
                            span.key.{ "c" (curve.colour) } {
                                i.faint[curve.series.style == Style::Faint] {} (curve.series.name)
                            }
                        }
                    }
                }
                div.scroll { (drawing.svg(&self.title)) }
                @if left_out > 0 { p.note { (OMITTED) (left_out) "." } }
            }
        }
    }
}
