//! Pictures that stand before what a model is asked.

use std::collections::BTreeMap;
use std::path::Path;

use fthost_models::Input;

use super::model::TrainedTask;
use crate::adapted::AdaptedModel;
use crate::data::{Dataset, Files, Source, pictures_beside};
use crate::{Error, Result};

/// Pictures by the lines of the rows that name them, or one of a file for whatever is asked.
pub(super) struct Beside {
    pictures: Dataset,
    /// The picture of each line; none where there is one of a file.
    by_line: BTreeMap<u64, u32>,
}

impl Beside {
    /// Those that the rows of a source's file name, for a task that has learned of some; `None` for another.
    ///
    /// # Errors
    /// Where rows name none, and whatever is wrong with a picture.
    pub(super) fn of(model: &AdaptedModel, task: &TrainedTask, source: &Source<'_>) -> Result<Option<Self>> {
        if model.model.info().sight.is_none() || task.transform.is_none() {
            return Ok(None);
        }
        let pictures = pictures_beside(source)?.ok_or_else(|| {
            Error::usage(format!("the rows of {} name no pictures, and the task {} has learned of some", source.files, task.name))
                .with_help("name a table with a column of pictures' paths, as the run's own, and leave columns as the run has them")
        })?;
        Self::by_line(pictures).map(Some)
    }

    /// Those of a file's rows, where these name some.
    ///
    /// # Errors
    /// Whatever is wrong with a picture.
    pub(super) fn of_rows(source: &Source<'_>) -> Result<Option<Self>> {
        pictures_beside(source)?.map(Self::by_line).transpose()
    }

    fn by_line(pictures: Dataset) -> Result<Self> {
        let line = |row: u32| Ok((pictures.place(row)?.1.unwrap_or_default(), row));
        let by_line = (0..pictures.len() as u32).map(line).collect::<Result<_>>()?;
        Ok(Self { pictures, by_line })
    }

    /// The picture of one file, for whatever is asked.
    ///
    /// # Errors
    /// Where it cannot be read or is no picture.
    pub(super) fn of_file(source: &Source<'_>, path: &Path) -> Result<Self> {
        let files = Files::from(path);
        let source = Source { files: &files, ..*source };
        let mut blocks = crate::data::unlabelled(&source, None)?;
        let pictures = blocks.next().transpose()?.filter(|pictures| pictures.len() == 1);
        let pictures = pictures.ok_or_else(|| {
            Error::usage(format!("{} is no picture", path.display())).with_help("name one file, as .png or .jpg")
        })?;
        Ok(Self { pictures, by_line: BTreeMap::new() })
    }

    /// Whether each row of a file has its own.
    pub(super) fn is_by_line(&self) -> bool {
        !self.by_line.is_empty()
    }

    /// Whether there is a picture for a line.
    pub(super) fn has(&self, line: u64) -> bool {
        self.by_line.is_empty() || self.by_line.contains_key(&line)
    }

    /// The pictures of these lines, in their order.
    ///
    /// # Errors
    /// Where one has none, or it cannot be read.
    pub(super) fn of_lines(&self, lines: impl IntoIterator<Item = u64>) -> Result<Input> {
        let of = |line: u64| match self.by_line.get(&line) {
            Some(row) => Ok(*row),
            None if self.by_line.is_empty() => Ok(0),
            None => Err(Error::run(format!("line {line} has no picture"))),
        };
        let rows = lines.into_iter().map(of).collect::<Result<Vec<_>>>()?;
        self.pictures.pictures_of(&self.pictures.show(&rows)?)
    }

    /// How many rows each puts before a text.
    ///
    /// # Errors
    /// Where pictures are too small for the model.
    pub(super) fn rows(&self, model: &AdaptedModel) -> Result<usize> {
        let (Some(sight), Some(transform)) = (&model.model.info().sight, self.pictures.transform()) else {
            return Ok(0);
        };
        let (height, width) = transform.preprocess().size();
        Ok(model.model.map_size(sight.pictures, [height, width])?.map_or(0, |[height, width]| height * width))
    }
}
