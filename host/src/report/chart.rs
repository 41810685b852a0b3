//! Line charts as inline SVG, for the pages of a run.
//!
//! A chart carries no colours and no fonts: its classes are styled by `page/style.css`, so that one chart serves light and dark
//! screens and paper. That is why the plotters crate does not draw it: plotters writes each colour and font size into the SVG, has
//! no `<title>` to hover over, and brings a drawing back end where a few dozen lines of markup do.

mod axis;
mod figure;
mod svg;
mod thin;

pub use axis::Scale;

/// A line chart: curves over a common x axis.
#[derive(Clone, Debug)]
pub struct Chart {
    title: String,
    x_label: String,
    x_scale: Scale,
    y_scale: Scale,
    wide: bool,
    series: Vec<Series>,
    markers: Vec<Marker>,
}

/// A value of x that an upright line marks.
#[derive(Clone, Debug)]
struct Marker {
    label: String,
    x: f64,
}

/// One curve of a chart.
#[derive(Clone, Debug)]
pub struct Series {
    name: String,
    points: Vec<(f64, f64)>,
    style: Style,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Line,
    Faint,
    Marked,
    Dots,
}

impl Series {
    /// A curve through `(x, y)` points, x rising. Where y is not finite, or has no place on the chart's scale, the curve has a gap.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, style: Style::Line }
    }

    /// Draws it thin and pale in the colour of the next curve, as raw values behind smoothed ones.
    #[must_use]
    pub fn faint(mut self) -> Self {
        self.style = Style::Faint;
        self
    }

    /// Puts a dot on every point, for few points.
    #[must_use]
    pub fn marked(mut self) -> Self {
        self.style = Style::Marked;
        self
    }

    /// Draws the points alone, as pale dots that show where many lie; x need not rise.
    #[must_use]
    pub fn dots(mut self) -> Self {
        self.style = Style::Dots;
        self
    }
}

impl Chart {
    /// An empty chart on linear scales; `x_label` says what x counts: `step`.
    pub fn new(title: impl Into<String>, x_label: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            x_label: x_label.into(),
            x_scale: Scale::Linear,
            y_scale: Scale::Linear,
            wide: false,
            series: Vec::new(),
            markers: Vec::new(),
        }
    }

    /// Sets the x axis's scale.
    #[must_use]
    pub fn x_scale(mut self, scale: Scale) -> Self {
        self.x_scale = scale;
        self
    }

    /// Sets the y axis's scale.
    #[must_use]
    pub fn y_scale(mut self, scale: Scale) -> Self {
        self.y_scale = scale;
        self
    }

    /// Makes it as wide as the page, rather than half of it.
    #[must_use]
    pub fn wide(mut self) -> Self {
        self.wide = true;
        self
    }

    /// Adds a curve.
    #[must_use]
    pub fn series(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }

    /// Marks a value of x by an upright line with a label above the plot; one without a place on the x scale is not marked. The
    /// axis reaches as far as its markers.
    #[must_use]
    pub fn marker(mut self, label: impl Into<String>, x: f64) -> Self {
        self.markers.push(Marker { label: label.into(), x });
        self
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use maud::Render;

    use super::figure::POINTS;
    use super::*;

    fn render(chart: &Chart) -> String {
        chart.render().into_string()
    }

    /// What every `name="..."` of the text says.
    fn attributes<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
        text.split(&format!(" {name}=\"")).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
    }

    #[test]
    fn a_chart_is_drawn() {
        let raw = vec![(1.0, 0.9), (2.0, 0.4), (3.0, 0.6)];
        let chart = Chart::new("Training loss", "step")
            .series(Series::new("loss", raw).faint())
            .series(Series::new("smoothed", vec![(1.0, 0.9), (2.0, 0.7), (3.0, 0.65)]))
            .series(Series::new("validation", vec![(3.0, 0.7)]).marked());
        insta::assert_snapshot!(render(&chart).replace("><", ">\n<"));
    }

    #[test]
    fn markers_are_labelled_above_the_plot_and_inside_the_picture() {
        let points = vec![(1e-5, 1.0), (1e-3, 0.5), (1.0, 2.0)];
        let chart = Chart::new("loss", "rate").x_scale(Scale::Log).series(Series::new("loss", points));
        let chart = chart.marker("at the right end", 1.0).marker("left of <all>", 1e-6).marker("nowhere", 0.0);
        let text = render(&chart);
        let (left, right) = (text.find("left of &lt;all&gt;").unwrap(), text.find("at the right end").unwrap());
        assert!(left < right && !text.contains("nowhere"), "{text}");
        assert_eq!(attributes(&text, "viewBox"), ["0 -32 560 302"]);
        // Only the right one's label would leave the picture, and so stands left of its line.
        let of_class = |class: &str| text.matches(&format!(" class=\"{class}\"")).count();
        assert_eq!((of_class("marker"), of_class("marker left")), (2 + 1, 1), "{text}");
        for (name, low, high) in [("x", 0.0, 560.0), ("x1", 0.0, 560.0), ("y", -32.0, 270.0), ("y1", -32.0, 270.0)] {
            for value in attributes(&text, name) {
                assert!((low..=high).contains(&value.parse::<f64>().unwrap()), "{name} of {text}");
            }
        }
    }

    #[test]
    fn a_faint_curve_has_the_colour_of_the_next() {
        let series = |name: &str| Series::new(name, vec![(0.0, 1.0)]);
        let chart = Chart::new("", "").series(series("a").faint()).series(series("b")).series(series("c"));
        assert_eq!(chart.curves().iter().map(|curve| curve.colour).collect::<Vec<_>>(), [0, 0, 1]);
    }

    #[test]
    fn values_that_are_not_finite_are_gaps() {
        let points = [1.0, f64::NAN, 2.0, 3.0, f64::INFINITY, 1.0].iter().enumerate();
        let points = points.map(|(i, &y)| (i as f64, y)).chain([(f64::NAN, 1.0)]).collect();
        let text = render(&Chart::new("loss", "step").series(Series::new("loss", points)));
        assert_eq!(attributes(&text, "d").iter().map(|path| path.matches('M').count()).collect::<Vec<_>>(), [3]);
        assert!(text.contains("no place on the scale: 3."), "{text}");
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }

    #[test]
    fn empty_and_odd_charts_are_drawn_too() {
        let all = [0.0, -1.0, 1e-320, f64::MAX, f64::MIN, f64::NAN, f64::INFINITY];
        for points in [vec![], vec![(1.0, 1.0)], all.map(|y| (y, y)).to_vec()] {
            for scale in [Scale::Linear, Scale::Log] {
                let chart = Chart::new("odd", "x").x_scale(scale).y_scale(scale);
                let chart = all.into_iter().fold(chart, |chart, x| chart.marker("odd", x));
                let text = render(&chart.series(Series::new("odd", points.clone())));
                for name in ["d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height"] {
                    for value in attributes(&text, name) {
                        assert!(!value.contains("NaN") && !value.contains("inf"), "{name} of {text}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_long_curve_is_thinned_and_keeps_its_spike() {
        let points = (1..=100_000).map(|i| (f64::from(i), if i == 70_001 { 9.0 } else { 1.0 })).collect();
        let text = render(&Chart::new("loss", "step").series(Series::new("loss", points)));
        let path = attributes(&text, "d")[0];
        assert!(path.matches('L').count() < POINTS);
        let highest =
            path.split(['M', 'L']).filter_map(|point| point.split(' ').nth(1)?.trim_end_matches("h0").parse().ok());
        assert!(highest.fold(f64::MAX, f64::min) < svg::HEIGHT / 4.0, "{path}");
        assert!(text.len() < 60_000, "{}", text.len());
    }
}
