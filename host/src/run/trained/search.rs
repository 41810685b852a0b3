//! What is nearest to a text or a picture, among texts or pictures, by the vectors that a head compares.

use std::fmt::Write;
use std::path::Path;

use fthost_images::Picture;
use maud::{Markup, html};
use serde::Serialize;

use super::model::TrainedModel;
use super::side::Compared;
use crate::data::{Dataset, has_rows, is_picture_file};
use crate::report::numbers::count;
use crate::report::page::{document, picture};
use crate::report::table::Table;
use crate::report::text::{one_line, shortened};
use crate::{Error, Result};

/// Longer side of a picture on a page, in pixels.
const THUMBNAIL: usize = 200;
/// Characters of a text in a table.
const TEXT: usize = 100;

/// What is looked through.
#[derive(Clone, Copy, Debug)]
pub enum Among<'a> {
    /// A folder, an archive or a table of pictures.
    Images(&'a Path),
    /// A file of texts.
    Texts(&'a Path),
}

impl<'a> Among<'a> {
    fn path(self) -> &'a Path {
        match self {
            Self::Images(path) | Self::Texts(path) => path,
        }
    }
}

/// What was found, the nearest first.
#[derive(Debug, Serialize)]
pub struct Found {
    /// What was looked for: a text, or the path of a picture.
    pub query: String,
    /// Whether that is a picture.
    pub is_picture: bool,
    /// How many texts or pictures were looked through.
    pub candidates: usize,
    /// The nearest of them.
    pub found: Vec<Hit>,
    /// The picture that was looked for, to look at.
    #[serde(skip)]
    shown: Option<Picture>,
}

/// A text or a picture that was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Hit {
    /// From 1.
    pub rank: usize,
    /// The cosine of its vector and that of what was looked for.
    pub similarity: f32,
    /// The picture's path; in an archive that within it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The line of its file that names or holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The picture, to look at.
    #[serde(skip)]
    picture: Option<Picture>,
}

impl TrainedModel {
    /// The `top` texts or pictures that are nearest to a text, or to a picture where `query` is the path of one. `shown`: with their pictures, to look at.
    ///
    /// # Errors
    /// Where no head compares, or none reads what is looked for or through, or that cannot be read.
    pub fn search(&self, task: Option<&str>, query: &str, among: Among<'_>, top: usize, shown: bool) -> Result<Found> {
        let task = self.comparing(task)?;
        let file = Path::new(query);
        let is_picture = is_picture_file(file);
        if is_picture && !file.is_file() {
            return Err(Error::usage(format!("there is no picture {query}"))
                .with_help("check the name; what ends as the name of a picture is none of a text"));
        }
        let compared = |stream: usize| Compared::new(&self.tasks[task], &self.model, stream, self.precision);
        let asked = format!("{query:?} is a {}", if is_picture { "picture" } else { "text" });
        let from = self.stream_for(task, is_picture, &asked)?;
        let pictures = matches!(among, Among::Images(_));
        let through =
            format!("{} is looked through for {}", among.path().display(), if pictures { "pictures" } else { "texts" });
        let to = self.stream_for(task, pictures, &through)?;

        let (query_compared, compared) = (compared(from)?, compared(to)?);
        let side = self.side(task, from, &query_compared);
        let (mut vectors, mut seen) = (Vec::new(), None);
        if is_picture {
            side.each_of_file(file, false, |data| {
                vectors.extend(side.vectors(data, &|_| {})?);
                seen = if shown { thumbnail(data, 0)? } else { None };
                Ok(())
            })?;
        } else {
            vectors = side.of_texts(&[query.to_owned()], "the query")?;
        }
        let Some(vector) = vectors.first() else { return Err(Error::run(format!("nothing becomes of {query:?}"))) };

        let side = self.side(task, to, &compared);
        let (mut candidates, mut found) = (0, Vec::<Hit>::new());
        side.each_of_file(among.path(), true, |data| {
            candidates += data.len();
            let mut all: Vec<(usize, f32)> =
                side.vectors(data, &|_| {})?.iter().map(|other| product(vector, other)).enumerate().collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1));
            for (row, similarity) in all.into_iter().take(top) {
                found.push(hit(data, row as u32, similarity, among, shown)?);
            }
            found.sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
            found.truncate(top);
            Ok(())
        })?;
        found.iter_mut().zip(1..).for_each(|(hit, rank)| hit.rank = rank);
        Ok(Found { query: query.to_owned(), is_picture, candidates, found, shown: seen })
    }
}

/// The cosine of vectors, as they have length 1.
fn product(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn thumbnail(data: &Dataset, row: u32) -> Result<Option<Picture>> {
    Ok(data.picture(row)?.map(|picture| picture.thumbnail(THUMBNAIL)))
}

fn hit(data: &Dataset, row: u32, similarity: f32, among: Among<'_>, shown: bool) -> Result<Hit> {
    let line = data.place(row)?.1;
    let hit = Hit { similarity, line, ..Hit::default() };
    Ok(match among {
        Among::Texts(_) => Hit { text: data.texts(row)?.into_iter().next(), ..hit },
        Among::Images(place) => {
            let name = data.id(row)?.unwrap_or_default();
            let path = match has_rows(place) {
                true => place.parent().unwrap_or(Path::new("")).join(name),
                false if place.is_dir() => place.join(name),
                false => name.into(),
            };
            Hit {
                path: Some(path.display().to_string()),
                picture: if shown { thumbnail(data, row)? } else { None },
                ..hit
            }
        }
    })
}

impl Hit {
    /// The text, or the picture's path.
    fn name(&self) -> &str {
        self.text.as_deref().or(self.path.as_deref()).unwrap_or_default()
    }
}

impl Found {
    /// As a person reads it: rank, similarity and what it is.
    pub fn to_text(&self) -> String {
        let pictures = self.found.iter().any(|hit| hit.path.is_some());
        let mut table = Table::new();
        table.row(["rank", "similarity", if pictures { "picture" } else { "text" }]);
        for hit in &self.found {
            let name = one_line(hit.name());
            let name = if pictures { name } else { shortened(&name, TEXT).into_owned().into() };
            table.row([&hit.rank.to_string(), &format!("{:.4}", hit.similarity), &name]);
        }
        let mut text = table.to_text();
        let what = if pictures { "pictures" } else { "texts" };
        let _ = write!(text, "of {} {what}", count(self.candidates));
        text
    }

    /// As an HTML page of one file; `name` says what it is from: the run.
    pub fn page(&self, name: &str) -> String {
        let headline = format!("The nearest {} of {} to {:?}", self.found.len(), count(self.candidates), self.query);
        let content = html! {
            @if let Some(shown) = &self.shown {
                section { h2 { "Looked for" } div.gallery { figure { (picture(shown, &self.query)) figcaption { (self.query) } } } }
            }
            section {
                h2 { "Found" }
                @if self.found.iter().any(|hit| hit.picture.is_some()) { (self.gallery()) } @else { (self.table()) }
            }
        };
        document(name, &headline, &content)
    }

    fn gallery(&self) -> Markup {
        html! {
            div.gallery {
                @for hit in &self.found {
                    figure {
                        @if let Some(seen) = &hit.picture { (picture(seen, hit.name())) }
                        figcaption { b { (hit.rank) } " · " (format!("{:.4}", hit.similarity)) span { (hit.name()) } }
                    }
                }
            }
        }
    }

    fn table(&self) -> Markup {
        html! {
            div.scroll {
                table.rows.worst {
                    thead { tr { th { "text" } th.number { "rank" } th.number { "similarity" } } }
                    tbody {
                        @for hit in &self.found {
                            tr { td { (hit.name()) } td.number { (hit.rank) } td.number { (format!("{:.4}", hit.similarity)) } }
                        }
                    }
                }
            }
        }
    }
}
