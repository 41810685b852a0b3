//! HTML pages: what a person looks at, keeps and sends on.
//!
//! A page is one file that loads nothing, runs no script and follows the reader's choice of a light or a dark screen. Text goes
//! through maud's templates, which escape it: names of files, classes and plugins are data and may hold anything.

pub(crate) mod confusion;
pub(crate) mod curves;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fthost_images::Picture;
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// The look of every page, charts included.
const STYLE: &str = include_str!("page/style.css");
/// Even if something slipped through: the browser loads nothing and runs nothing. Pictures stand in the page itself.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// A page of this look: what it is called, what it is in a line, and what it holds.
pub(crate) fn document(name: &str, headline: &str, content: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (name) " · fthost" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (name) }
                    p { (headline) }
                }
                main { (content) }
            }
        }
    };
    page.into_string()
}

/// A figure that stands out, and what there is to say on it.
pub(crate) fn figure(name: &str, value: &str, more: &str) -> Markup {
    html! {
        div.figure {
            span.name { (name) }
            strong { (value) }
            @if !more.is_empty() { span.more { (more) } }
        }
    }
}

/// A picture that stands in the page; `name` says what it is where it cannot be seen.
pub(crate) fn picture(picture: &Picture, name: &str) -> Markup {
    let source = format!("data:image/png;base64,{}", STANDARD.encode(picture.to_png()));
    html! { img src=(source) alt=(name) width=(picture.width()) height=(picture.height()); }
}
