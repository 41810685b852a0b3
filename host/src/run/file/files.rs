//! What a task's keys say of its files.

use std::path::{Path, PathBuf};

use super::document::Document;
use super::tables::{ClassKey, DEMO, Drawn, DrawnKey, FilesKey, HeldOut, PartKey, Share, TaskKeys, TestKey};
use crate::data::{
    Columns, Files, Fold, Form, LanguageForm, Learns, MASKS, MaskForm, PictureForm, Quote, is_chat_template,
};
use crate::{Error, Result};

/// Names of embedded data sets: these are no paths.
const EMBEDDED_DATA: [&str; 2] = [DEMO, "demo-pretrain"];

/// Keys of a table that is texts beside labels, and no files by class.
const PAIR: [&str; 2] = ["label", "text"];

/// The files of a key.
pub(super) fn files(document: &Document, folder: &Path, path: &str, key: FilesKey) -> Result<Files> {
    let table = match key {
        FilesKey::File(file) => {
            let path = absolute(folder, &file, &EMBEDDED_DATA)?;
            // Said as it was found: what a run learned from is then known without the folder.
            return Ok(match Files::folders_of_masks(&path) {
                Some((images, masks)) => Files::Masks { images, masks },
                None => Files::One(path),
            });
        }
        FilesKey::Table(table) => table,
    };
    if table.len() < 2 {
        let help = "a table names { text = \"FILE\", label = \"FILE\" }, or a file for each of two classes or more";
        return Err(document.error(
            document.place(path),
            format!("{path} is a table of {} file{}", table.len(), if table.len() == 1 { "" } else { "s" }),
            "needs two files or more",
            Some(help.into()),
        ));
    }
    let (is_pair, has_masks) = (table.keys().eq(PAIR), table.keys().eq(MASKS));
    let mut paths = table.into_iter().map(|(key, file)| Ok((key, absolute(folder, &file, &[])?)));
    if !is_pair && !has_masks {
        return paths.collect::<Result<_>>().map(Files::ByClass);
    }
    match (paths.next().transpose()?, paths.next().transpose()?) {
        (Some((_, images)), Some((_, masks))) if has_masks => Ok(Files::Masks { images, masks }),
        (Some((_, label)), Some((_, text))) => Ok(Files::Pair { text, label }),
        _ => Err(Error::usage(format!("{path} names no files"))),
    }
}

/// How the files of a task are read.
pub(super) fn form(document: &Document, folder: &Path, index: usize, task: &TaskKeys) -> Result<Form> {
    let one = |key: &str, text: &str| {
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (Some(character), None) if character.is_ascii() && !matches!(character, '\n' | '\r' | '\0') => {
                Ok(character)
            }
            _ => {
                let path = format!("task[{index}].{key}");
                let message = format!("{path} must be one ASCII character, and is {text:?}");
                Err(document.error(document.place(&path), message, "must be one ASCII character", None))
            }
        }
    };
    let quote = match task.quote.as_deref() {
        None => None,
        Some("" | "none") => Some(Quote(None)),
        Some(text) => Some(Quote(Some(one("quote", text)?))),
    };
    let separator = task.separator.as_deref().map(|text| one("separator", text)).transpose()?;
    if separator.is_some() && quote == Some(Quote(separator)) {
        let path = format!("task[{index}].quote");
        let message = format!("{path} is what separates the cells");
        return Err(document.error(document.place(&path), message, "is the separator", None));
    }
    let columns = Columns {
        text: task.columns.text.clone(),
        text_pair: task.columns.text_pair.clone(),
        text_negative: task.columns.text_negative.clone(),
        image: task.columns.image.clone(),
        label: task.columns.label.clone(),
        part: task.split.as_ref().map(|split| split.column.clone()),
        id: task.columns.id.clone(),
        weight: task.columns.weight.clone(),
        group: task.columns.group.clone(),
    };
    let pictures = PictureForm {
        class_folder: task.class_folder,
        under: task.archive_folder.clone(),
        on_bad_image: task.on_bad_image,
        rotate_classes: task.rotate_classes,
        masks: MaskForm { classes: task.classes.clone(), ignore_index: task.ignore_index },
    };
    let class = |class: &ClassKey| match class {
        ClassKey::Name(name) => name.clone(),
        ClassKey::Number(number) => number.to_string(),
    };
    let only = task.only.iter().flatten().map(class).collect();
    let label_separator = task.label_separator.clone();
    let (header, format, encoding) = (task.header, task.format, task.encoding);
    let file = |name: &String| {
        if is_chat_template(name) { name.clone() } else { folder.join(name).display().to_string() }
    };
    let language = LanguageForm { template: task.template.as_ref().map(file), score: task.score, blocks: task.blocks };
    let learns = Learns::default();
    Ok(Form { columns, header, format, separator, quote, label_separator, encoding, pictures, language, only, learns })
}

/// The test and the validation examples.
pub(super) fn held_out(
    document: &Document,
    folder: &Path,
    index: usize,
    task: &TaskKeys,
) -> Result<[Option<HeldOut>; 2]> {
    let split = task.split.as_ref();
    let one = |key: &str, part: Option<Part>, rows: Option<&String>| {
        let path = format!("task[{index}].{key}");
        match (part, rows) {
            (Some(_), Some(_)) => {
                let help =
                    format!("leave one of them out: {key} of split names rows of train, and {key} other examples");
                let message = format!("{path} is said twice, by {key} and by split");
                Err(document.error(document.place(&path), message, "said in split too", Some(help)))
            }
            (None, Some(rows)) => Ok(Some(HeldOut::Rows(rows.clone()))),
            (None, None) => Ok(None),
            (Some(Part::Drawn(drawn)), None) => {
                there_is(document, &path, drawn).map(|drawn| Some(HeldOut::Drawn(drawn)))
            }
            (Some(Part::Files(key)), None) => {
                files(document, folder, &path, key).map(|files| Some(HeldOut::Files(files)))
            }
        }
    };
    let test = one("test", task.test.as_ref().map(Part::from), split.and_then(|split| split.test.as_ref()))?;
    let validation = split.and_then(|split| split.validation.as_ref());
    let validation = one("validation", task.validation.as_ref().map(Part::from), validation)?;
    if let (Some(_), Some(HeldOut::Drawn(_))) = (&task.set_aside, &test) {
        let path = format!("task[{index}].set_aside");
        let help = "leave it out: it is for a run without the test examples that another has";
        return Err(document.error(
            document.place(&path),
            format!("{path} and test are both drawn from the training examples"),
            "said beside test",
            Some(help.into()),
        ));
    }
    let share = |part: &Option<HeldOut>| part.as_ref().and_then(HeldOut::drawn).map_or(0.0, Drawn::share);
    if share(&test) + share(&validation) >= 1.0 {
        let path = format!("task[{index}].validation");
        let message = format!("{path} and test together take all training examples");
        return Err(document.error(
            document.place(&path),
            message,
            "nothing is left",
            Some("lower one of them".into()),
        ));
    }
    Ok([test, validation])
}

/// What of the training examples the run leaves alone.
pub(super) fn set_aside(document: &Document, index: usize, task: &TaskKeys) -> Result<Option<Drawn>> {
    let drawn = task.set_aside.as_ref().map(Drawn::from);
    drawn.map(|drawn| there_is(document, &format!("task[{index}].set_aside"), drawn)).transpose()
}

/// Refuses a fold beyond the last.
fn there_is(document: &Document, path: &str, drawn: Drawn) -> Result<Drawn> {
    match drawn {
        Drawn::Fold(Fold { fold, of }) if fold > of => {
            let path = format!("{path}.fold");
            let message = format!("{path} is {fold}, and there are {of} folds");
            let help = format!("folds are numbered from 1 to {of}");
            Err(document.error(document.place(&path), message, "there is no such fold", Some(help)))
        }
        drawn => Ok(drawn),
    }
}

/// What the keys of examples that are not trained on have in common.
enum Part {
    Drawn(Drawn),
    Files(FilesKey),
}

impl From<&PartKey> for Part {
    fn from(key: &PartKey) -> Self {
        match key {
            PartKey::Share(Share(share)) => Self::Drawn(Drawn::Share(*share)),
            PartKey::Files(files) => Self::Files(files.clone()),
        }
    }
}

impl From<&TestKey> for Part {
    fn from(key: &TestKey) -> Self {
        match key {
            TestKey::Share(Share(share)) => Self::Drawn(Drawn::Share(*share)),
            TestKey::Fold(fold) => Self::Drawn(Drawn::Fold(*fold)),
            TestKey::Files(files) => Self::Files(files.clone()),
        }
    }
}

impl From<&DrawnKey> for Drawn {
    fn from(key: &DrawnKey) -> Self {
        match key {
            DrawnKey::Share(Share(share)) => Self::Share(*share),
            DrawnKey::Fold(fold) => Self::Fold(*fold),
        }
    }
}

/// A path of the run file, absolute, so that the run folder's copy of the file means the same.
pub(super) fn absolute(folder: &Path, path: &str, embedded: &[&str]) -> Result<PathBuf> {
    if embedded.contains(&path) {
        return Ok(PathBuf::from(path));
    }
    std::path::absolute(folder.join(path))
        .map_err(Error::io(format!("cannot find the working directory, from which {path} starts")))
}
