#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::super::suggest::tests::curve;
use super::*;

/// Leaves a page to be looked at where `FTHOST_PAGES` names a folder.
fn leave(name: &str, text: &str) {
    if let Some(folder) = std::env::var_os("FTHOST_PAGES") {
        std::fs::write(std::path::Path::new(&folder).join(name), text).unwrap();
    }
}

#[test]
fn the_page_of_a_search_names_one_rate() {
    let text = page("sentiment.toml", &curve(&[0.0, 0.01, 0.3, 0.8, -9.0, f64::NAN], 0.01, 1000));
    leave("lr_find.html", &text);
    for said in [
        "<title>sentiment.toml · fthost</title>",
        "6 learning rates from 1.0e-5 to 1.0e0, 40 steps each; the highest diverge",
        "<strong>2.0e-3</strong>",
        "1000 steps want 0.20 of that rate",
        ">suggestion 2.0e-3</text>",
        "</i>untrained</span>",
        "</i>after the trial</span>",
        "<td class=\"number\">1.000e-2</td>",
        "diverged",
    ] {
        assert!(text.contains(said), "{said} is missing in {text}");
    }
    assert_eq!(text.matches("<line class=\"marker\"").count(), 1);
    let quoted = |rest: &str| rest.split('"').next().unwrap().to_owned();
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
    for curve in [curve(&[], 0.0, 40), curve(&[0.0, 0.0], 0.1, 40), curve(&[f64::NAN], 0.0, 40)] {
        let text = page("<script>&.toml", &curve);
        assert!(text.contains("<h1>&lt;script&gt;&amp;.toml</h1>") && !text.contains("<script"), "{text}");
        assert!(text.contains("<strong>none</strong>") && !text.contains("NaN"), "{text}");
        for loads in ["http:", "https:", "src=", "href=", "url("] {
            assert!(!text.contains(loads), "{loads}");
        }
    }
}
