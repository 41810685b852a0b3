//! Training pictures as the model sees them, for a person to look at before training.

use fthost_images::{Augment, Picture};
use maud::{Markup, html};
use serde::Serialize;

use super::file::RunFile;
use super::machine::DeviceChoice;
use super::setup::phase::Batch;
use super::setup::{self, Setup};
use super::train::ahead::Ahead;
use crate::report::numbers::count;
use crate::report::page::{document, picture};
use crate::{Error, Result};

/// Pictures that are shown of a task.
const SHOWN: usize = 16;
/// Side of a picture as it was before, in pixels of the page.
const THUMBNAIL: usize = 224;

/// What the model sees of a task's first training pictures.
#[derive(Debug, Serialize)]
pub struct Look {
    /// The task.
    pub task: String,
    /// Height and width of what the model takes.
    pub size: (usize, usize),
    /// The random changes, as the run file writes them.
    pub augment: Augment,
    /// The pictures, in the order in which the run trains on them.
    pub pictures: Vec<Looked>,
}

/// A training picture.
#[derive(Debug, Serialize)]
pub struct Looked {
    /// What it is called; nothing where it has no name.
    pub name: String,
    /// Its class or value.
    pub label: String,
    /// As it is.
    #[serde(skip)]
    before: Option<Picture>,
    /// As the model sees it.
    #[serde(skip)]
    seen: Picture,
}

/// Looks at the first training pictures of each task, as the run's first steps would.
///
/// # Errors
/// As a run's; where no task has pictures.
pub fn augment(file: RunFile, plugins: &[String], device: DeviceChoice) -> Result<Vec<Look>> {
    let setup = setup::set_up(file, plugins, device)?;
    let mut looks = Vec::new();
    for (i, task) in setup.tasks.iter().enumerate() {
        if let Some(transform) = task.train.transform() {
            looks.push(Look {
                task: task.name.clone(),
                size: transform.preprocess().size(),
                augment: transform.augment().clone(),
                pictures: pictures(&setup, i)?,
            });
        }
    }
    if looks.is_empty() {
        return Err(Error::usage("no task of the run file has pictures that are read from files")
            .with_help("fthost data RUN.toml shows what is in texts"));
    }
    Ok(looks)
}

/// The pictures of a task's first steps.
fn pictures(setup: &Setup, task: usize) -> Result<Vec<Looked>> {
    let data = &setup.tasks[task].train;
    let mut looked = Vec::new();
    let own = |step: Vec<Batch>| step.into_iter().filter(|batch| batch.task == task).collect::<Vec<_>>();
    let steps = setup.phases.iter().flat_map(|phase| phase.epoch_from(0, 0)).map(own).collect::<Vec<_>>().into_iter();
    let wanted = SHOWN.min(data.len());
    for shows in Ahead::new(steps, 0, (&setup.tasks, &setup.model), &setup.file.train) {
        for shown in shows?.iter().flat_map(|shows| &shows.passes) {
            for (&row, input) in shown.rows().iter().zip(shown.pictures()) {
                let Some(seen) = data.seen(&input)? else { continue };
                if looked.len() < wanted {
                    let before = data.picture(row)?.map(|picture| picture.thumbnail(THUMBNAIL));
                    let (name, label) = (data.id(row)?.unwrap_or_default(), data.label(row)?);
                    looked.push(Looked { name, label, before, seen });
                }
            }
        }
        if looked.len() == wanted {
            break;
        }
    }
    Ok(looked)
}

impl Look {
    /// `flowers: 16 training pictures of 224 x 224 pixels, changed by random_resized_crop, flip`
    pub fn to_text(&self) -> String {
        let ops = self.augment.names();
        let changed =
            if ops.is_empty() { "not changed at random".into() } else { format!("changed by {}", ops.join(", ")) };
        let (height, width) = self.size;
        format!(
            "{}: {} training pictures of {width} x {height} pixels, {changed}",
            self.task,
            count(self.pictures.len())
        )
    }

    fn gallery(&self) -> Markup {
        html! {
            section {
                h2 { (self.task) }
                p.note { (self.to_text()) ". Above as the model sees it in the first steps, below as it is." }
                div.gallery {
                    @for Looked { name, label, before, seen } in &self.pictures {
                        figure {
                            (picture(seen, &format!("{name} as the model sees it")))
                            @if let Some(before) = before { (picture(before, name)) }
                            figcaption { (label) span { (name) } }
                        }
                    }
                }
            }
        }
    }
}

/// The pictures as an HTML page of one file; `name` says what they are from: the run file.
pub fn page(name: &str, looks: &[Look]) -> String {
    let content = html! { @for look in looks { (look.gallery()) } };
    document(name, "Training pictures as the model sees them", &content)
}
