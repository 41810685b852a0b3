#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

/// Leaves a page to be looked at where `FTHOST_PAGES` names a folder.
fn leave(name: &str, text: &str) {
    if let Some(folder) = std::env::var_os("FTHOST_PAGES") {
        std::fs::write(std::path::Path::new(&folder).join(name), text).unwrap();
    }
}

/// A search over eight decades: the loss falls around 6e-3 and leaps at the last rate.
fn search() -> LrCurve {
    let point = |i: u32| {
        let at = f64::from(i) / 79.0;
        let smoothed = 0.7 - 0.4 / (1.0 + (-30.0 * (at - 0.6)).exp()) + (200.0 * (at - 0.99)).exp();
        let noise = f64::from(i * 5 % 7) / 10.0 - 0.3;
        Point { lr: 1e-7 * 10f64.powf(f64::from(i) / 10.0), loss: smoothed * (1.0 + noise), smoothed }
    };
    let points: Vec<Point> = (0..80).map(point).collect();
    LrCurve {
        suggestion: Some(points[45].lr),
        steepest: Some(points[47].lr),
        tenth_of_minimum: Some(points[70].lr / 10.0),
        diverged: true,
        points,
    }
}

#[test]
fn the_page_of_a_search_marks_its_rates() {
    let text = page("sentiment.toml", &search());
    leave("lr_find.html", &text);
    for said in [
        "<title>sentiment.toml · fthost</title>",
        "80 learning rates from 1.0e-7 to 7.9e0, one step each; the loss diverged, which ended the search",
        "<strong>3.2e-3</strong>",
        ">suggestion 3.2e-3</text>",
        ">steepest 5.0e-3</text>",
        ">a tenth of the minimum's rate 1.0e-1</text>",
        ">1e-7</text>",
        ">0.1</text>",
        "</i>each batch</span>",
        "</i>smoothed</span>",
        "are not drawn",
        "<td class=\"number\">3.162e-3</td>",
        "<b>suggestion</b>",
        "<b>steepest</b>",
    ] {
        assert!(text.contains(said), "{said} is missing");
    }
    let quoted = |rest: &str| rest.split('"').next().unwrap().to_owned();
    let lines = text.split("<line class=\"marker\" x1=\"").skip(1);
    let lines: Vec<f64> = lines.map(|rest| quoted(rest).parse().unwrap()).collect();
    assert!(lines.len() == 3 && lines.is_sorted() && lines.iter().all(|x| (0.0..1150.0).contains(x)), "{lines:?}");
    assert!(text.contains("viewBox=\"0 -48 1150 318\""), "{text}");
    let paths: Vec<String> = text.split(" d=\"").skip(1).map(quoted).collect();
    assert_eq!(paths.len(), 2);
    for place in paths.iter().flat_map(|path| path.split(['M', 'L'])).filter(|place| !place.is_empty()) {
        let (x, y) = place.trim_end_matches("h0").split_once(' ').unwrap();
        let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
        assert!((0.0..=1150.0).contains(&x) && (0.0..=270.0).contains(&y), "{place}");
    }
}

#[test]
fn a_search_that_found_nothing_has_a_page_and_a_name_is_no_markup() {
    let nothing =
        LrCurve { points: Vec::new(), suggestion: None, steepest: None, tenth_of_minimum: None, diverged: true };
    for curve in [nothing, LrCurve { suggestion: None, steepest: None, ..search() }] {
        let text = page("<script>&.toml", &curve);
        assert!(text.contains("<h1>&lt;script&gt;&amp;.toml</h1>") && !text.contains("<script"), "{text}");
        assert!(text.contains("the loss fell nowhere") && !text.contains("NaN"), "{text}");
        for loads in ["http:", "https:", "src=", "href=", "url("] {
            assert!(!text.contains(loads), "{loads}");
        }
    }
}
