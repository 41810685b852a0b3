//! Which pictures there are: of folders, archives, tables and IDX files, each with its label. No pixel is kept.

use std::path::{Path, PathBuf};

use fthost_images::source::{ClassName, Classes, FolderOptions, Item, LeftOut, Pairs, Source as Places, is_picture};
use fthost_images::{Kind, MAX_PIXELS, decode};
use rayon::prelude::*;

use super::digits::{self, Digits};
use super::form::{ClassFolder, OnBadImage, PictureForm};
use super::idx::{self, Planes};
use super::masks::Masks;
use super::parquet;
use super::pixels::{Pictures, Pixels};
use super::views;
use crate::data::arrow::Saved;
use crate::data::files::Files;
use crate::data::form::{Form, Format};
use crate::data::recognise::{self, file_name};
use crate::data::row::{Columns, Labels, Role, Row, data_error};
use crate::data::rows::AllRows;
use crate::data::source::Source;
use crate::report::numbers::count;
use crate::{Error, Result};

/// Pictures, and the row of each. A row's text is what the picture is called.
pub(in crate::data) struct Listed {
    pub(in crate::data) pictures: Pictures,
    pub(in crate::data) rows: Vec<Row>,
    /// The file that rows' lines count in, where there are lines.
    pub(in crate::data) table: Option<PathBuf>,
    pub(in crate::data) notes: Vec<String>,
    /// Names of the classes of masks; empty where pictures have none.
    pub(in crate::data) classes: Vec<String>,
}

/// Columns that name a picture's file, the most usual first.
pub(in crate::data) const PATHS: [&str; 5] = ["image", "file_name", "filename", "path", "file"];
/// The end of an archive's name.
const TAR: &str = "tar";

/// Whether what pictures are read from is a table, whose rows name them: no folder, no archive of them, no picture itself.
pub fn has_rows(path: &Path) -> bool {
    let is_archive = path.extension().is_some_and(|end| end.eq_ignore_ascii_case(TAR));
    !is_archive && !is_picture_file(path) && (!path.is_dir() || Saved::is(path))
}

/// Whether a path is called as pictures are.
pub fn is_picture_file(path: &Path) -> bool {
    is_picture(&file_name(path))
}

/// Lists what a source names. Of every picture the header is read; where bad ones are to be left out, all of it.
///
/// # Errors
/// What cannot be read, is no picture, or has no label.
pub(in crate::data) fn list(source: &Source<'_>, labels: Labels) -> Result<Listed> {
    // A picture's path is what stands for its text.
    let columns = &source.form.columns;
    let columns = Columns { text: columns.image.clone().or(columns.text.clone()), image: None, ..columns.clone() };
    let form = Form { columns, ..source.form.clone() };
    let source = &Source { form: &form, ..*source };
    let mut listed = list_all(source, labels)?;
    if labels == Labels::Read {
        let chooses = !source.form.only.is_empty() || source.form.pictures.rotate_classes;
        if chooses && listed.pictures.masks.is_some() {
            return Err(data_error(
                source.files.first(),
                None,
                "has a mask for each picture, and no class of pictures",
            )
            .with_help("take only and rotate_classes out of the task: they are for pictures that have a class each"));
        }
        views::keep_what_counts(&mut listed.rows, &mut listed.pictures, source)?;
        if source.form.pictures.rotate_classes {
            views::turn(&mut listed.rows, &mut listed.pictures)?;
        }
    }
    Ok(listed)
}

fn list_all(source: &Source<'_>, labels: Labels) -> Result<Listed> {
    let path = match source.files {
        Files::One(path) => path,
        Files::Masks { images, masks } => return of_pairs(images, masks, source, labels),
        Files::Pair { .. } | Files::ByClass(_) => return list_table(source, labels),
    };
    if let Some((images, masks)) = Files::folders_of_masks(path) {
        return of_pairs(&images, &masks, source, labels);
    }
    if let Some(classes) = digits::embedded_classes(path) {
        let (digits, classes) = Digits::new(classes, source.part);
        let rows = classes.into_iter().map(|class| Row { label: class.to_string(), ..Row::default() }).collect();
        return Ok(listed(Pixels::Digits(digits), rows, source));
    }
    if Planes::are_in(path) {
        return list_idx(path, source, labels);
    }
    let options = folder_options(&source.form.pictures);
    if path.is_dir() && !Saved::is(path) {
        refuse_columns(path, &source.form.columns, "a folder of pictures")?;
        return match labels {
            Labels::Read => of_classes(Classes::folder(path, &options)?, path, source),
            Labels::Unread | Labels::None => {
                let (places, left_out) = Places::folder(path)?;
                of_places(places, left_out, path, source)
            }
        };
    }
    if path.extension().is_some_and(|end| end.eq_ignore_ascii_case(TAR)) {
        refuse_columns(path, &source.form.columns, "an archive of pictures")?;
        return match labels {
            Labels::Read => of_classes(Classes::tar(path, &options)?, path, source),
            Labels::Unread | Labels::None => {
                let (places, left_out) = Places::tar(path)?;
                of_places(places, left_out, path, source)
            }
        };
    }
    if recognise::by_name(path) == Some(Format::Parquet)
        && let Some((places, rows)) = parquet::list(path, &source.form.columns, labels)?
    {
        return checked(places, rows, Some(path.clone()), Vec::new(), source);
    }
    if labels == Labels::Unread && is_picture(&file_name(path)) {
        let places = std::iter::once(Item::file(path.clone())).collect();
        return of_places(places, LeftOut::default(), path, source);
    }
    list_table(source, labels)
}

/// Pictures without masks, and nothing to say of them.
fn listed(pixels: Pixels, rows: Vec<Row>, source: &Source<'_>) -> Listed {
    let pictures = Pictures { pixels, masks: None, transform: source.transform.cloned(), views: None };
    Listed { pictures, rows, table: None, notes: Vec::new(), classes: Vec::new() }
}

fn folder_options(form: &PictureForm) -> FolderOptions {
    let class_name = match form.class_folder {
        ClassFolder::Top => ClassName::Top,
        ClassFolder::Path => ClassName::Path,
    };
    FolderOptions { class_name, under: form.under.clone() }
}

/// What has no columns is not asked for some.
fn refuse_columns(path: &Path, columns: &Columns, what: &str) -> Result<()> {
    match columns.given().next() {
        None => Ok(()),
        Some(_) => Err(data_error(path, None, format!("is {what}, and has no columns"))
            .with_help("take columns and split out of the task: a picture's class is its folder's name")),
    }
}

/// Pictures in folders of classes.
fn of_classes(found: Classes, path: &Path, source: &Source<'_>) -> Result<Listed> {
    let Classes { source: places, names, labels, left_out } = found;
    let row = |(number, class): (usize, &u32)| Row {
        text: called(places.name(number), path),
        label: names[*class as usize].clone(),
        ..Row::default()
    };
    let rows = labels.iter().enumerate().map(row).collect();
    of_rows(places, rows, left_out, path, source)
}

/// Pictures without labels.
fn of_places(places: Places, left_out: LeftOut, path: &Path, source: &Source<'_>) -> Result<Listed> {
    let row = |number: usize| Row { text: called(places.name(number), path), ..Row::default() };
    let rows = (0..places.len()).map(row).collect();
    of_rows(places, rows, left_out, path, source)
}

/// Pictures with the masks of the same names.
fn of_pairs(images: &Path, masks: &Path, source: &Source<'_>, labels: Labels) -> Result<Listed> {
    refuse_columns(images, &source.form.columns, "a folder of pictures with masks")?;
    if labels == Labels::Unread {
        let (places, left_out) = Places::folder(images)?;
        return of_places(places, left_out, images, source);
    }
    let pairs = Pairs::folders(images, masks)?;
    let names: Vec<String> =
        (0..pairs.pictures.len()).map(|number| called(pairs.pictures.name(number), images)).collect();
    let rows = names.iter().map(|text| Row { text: text.clone(), ..Row::default() }).collect();
    let mut found = of_rows(pairs.pictures.clone(), rows, pairs.left_out.clone(), images, source)?;
    // A picture that is left out takes its mask with it: both are told by their number.
    let mut left = found.rows.iter().map(|row| &row.text).peekable();
    let stays = |number: &usize| left.next_if(|text| **text == names[*number]).is_some();
    let stay: Vec<usize> = (0..names.len()).filter(stays).collect();
    let bad = stay.par_iter().filter_map(|&number| pairs.check(number).err());
    if let Some(bad) = bad.find_first(|_| true) {
        return Err(bad.into());
    }
    let masks = pairs.masks.select(&stay);
    let (masks, classes) = Masks::new(masks, &source.form.pictures.masks, source.labels)?;
    (found.pictures.masks, found.classes) = (Some(masks), classes);
    Ok(found)
}

fn of_rows(places: Places, rows: Vec<Row>, left_out: LeftOut, path: &Path, source: &Source<'_>) -> Result<Listed> {
    let mut notes = Vec::new();
    let passed_over = left_out.others + left_out.classless;
    if passed_over > 0 {
        let which = left_out.names.first().map_or(String::new(), |name| format!(", {name} for one"));
        notes.push(format!("{}: {} files are no pictures of a class{which}", path.display(), count(passed_over)));
    }
    checked(places, rows, None, notes, source)
}

/// What a picture is called: its path below the folder or in the archive.
fn called(name: &str, root: &Path) -> String {
    let root = root.display().to_string();
    let below = name.strip_prefix(&root).map(|rest| rest.trim_start_matches([':', ' ', '/']));
    match below {
        Some(below) if !below.is_empty() => below.to_owned(),
        _ => file_name(Path::new(name)),
    }
}

/// Grey pictures in an IDX file, with the labels beside it.
fn list_idx(path: &Path, source: &Source<'_>, labels: Labels) -> Result<Listed> {
    refuse_columns(path, &source.form.columns, "an IDX file")?;
    let planes = Planes::read(path)?;
    let mut rows = vec![Row::default(); planes.len()];
    if labels == Labels::Read {
        let Some(file) = idx::labels_beside(path) else {
            return Err(data_error(path, None, "holds pictures in the IDX format, and their labels are not beside it")
                .with_help("of train-images-idx3-ubyte.gz they stand in train-labels-idx1-ubyte.gz"));
        };
        let labels = idx::labels(&file)?;
        if labels.len() != rows.len() {
            let message = format!("holds {} labels, and {} has {} pictures", labels.len(), path.display(), rows.len());
            return Err(data_error(&file, None, message).with_help("bring both files again"));
        }
        rows.iter_mut().zip(labels).for_each(|(row, label)| row.label = label.to_string());
    }
    // Pictures of such a file have no names but their numbers.
    Ok(listed(Pixels::Planes(planes), rows, source))
}

/// Pictures that the rows of a table name.
fn list_table(source: &Source<'_>, labels: Labels) -> Result<Listed> {
    let form = naming(source, labels);
    named_in(source, &form, labels, |file, row| match row.words {
        Some(_) => Err(data_error(file, Some(row.line), "has a list where a picture's path should be")),
        None => Ok(&row.text),
    })
}

/// The pictures of a table's rows, each at the path that the row names.
fn named_in(
    source: &Source<'_>,
    form: &Form,
    labels: Labels,
    path_of: impl for<'r> Fn(&Path, &'r Row) -> Result<&'r str>,
) -> Result<Listed> {
    let mut all = AllRows::open(source.files, form, labels, source.labels, source.only)?;
    let table = all.path().to_owned();
    let (mut items, mut rows) = (Vec::new(), Vec::new());
    loop {
        while let Some(row) = all.next_of_file()? {
            let file = all.path();
            items.push(item(file, row.line, path_of(file, &row)?));
            rows.push(row);
        }
        if !all.next_file()? {
            break;
        }
    }
    let notes = all.notes();
    checked(items.into_iter().collect(), rows, Some(table), notes, source)
}

/// How a table is read whose rows are texts with a picture each: with its column of pictures named.
///
/// # Errors
/// What is no table.
pub(in crate::data) fn form_beside(source: &Source<'_>, labels: Labels) -> Result<Form> {
    let path = source.files.first();
    let has_rows = !path.is_dir() || Saved::is(path);
    if !has_rows || !matches!(source.files, Files::One(_)) || digits::embedded_classes(path).is_some() {
        return Err(data_error(path, None, "is no table, and each example is a text with its picture")
            .with_help("name a .csv, .tsv or .jsonl file with a column of texts and one of pictures' paths"));
    }
    let with = |column: &str| {
        let columns = Columns { image: Some(column.to_owned()), ..source.form.columns.clone() };
        Form { columns, ..source.form.clone() }
    };
    Ok(naming_by(source, labels, source.form.columns.image.is_some(), with))
}

/// Pictures that stand beside texts in the rows of a table, whose column is named. Of every picture the header is read; where bad ones are
/// to be left out, all of it.
///
/// # Errors
/// As [`list`].
pub(in crate::data) fn list_beside(source: &Source<'_>, labels: Labels) -> Result<Listed> {
    let form = source.form;
    let place = form.columns.extra(labels).position(|(role, _)| role == Role::Image);
    let place = place.ok_or_else(|| Error::run("a table without a column of pictures"))?;
    named_in(source, form, labels, |file, row| match row.extra[place].as_str() {
        "" => Err(no_picture(file, row.line, form.columns.image.as_deref().unwrap_or_default())),
        path => Ok(path),
    })
}

/// The error of a row beside whose text there should be a picture.
pub(in crate::data) fn no_picture(file: &Path, line: u64, column: &str) -> Error {
    data_error(file, Some(line), format!("this row has no picture: `{column}` is empty"))
        .with_help("name the picture's file there, relative to the table, or remove the row")
}

/// Pictures at paths that the rows of a file name, each with its line; a row's text is its path. Of every picture the header is read; where bad
/// ones are to be left out, all of it.
///
/// # Errors
/// As [`list`].
pub(in crate::data) fn list_named(source: &Source<'_>, file: &Path, named: Vec<(u64, String)>) -> Result<Listed> {
    let item = |(line, path): &(u64, String)| item(file, *line, path);
    let places = named.iter().map(item).collect();
    let rows = named.into_iter().map(|(line, text)| Row { line, text, ..Row::default() }).collect();
    checked(places, rows, Some(file.to_owned()), Vec::new(), source)
}

/// The picture at a path that a row of a file names.
fn item(file: &Path, line: u64, path: &str) -> Item {
    let name = format!("{}:{line}: {path}", file.display());
    Item::named_file(name, file.parent().unwrap_or(Path::new("")).join(path))
}

/// How a table is read: the column of pictures is the one that the task names, else one that names them usually.
fn naming(source: &Source<'_>, labels: Labels) -> Form {
    let with = |column: &str| {
        let columns = Columns { text: Some(column.to_owned()), ..source.form.columns.clone() };
        Form { columns, ..source.form.clone() }
    };
    naming_by(source, labels, source.form.columns.text.is_some(), with)
}

/// As the task names the column, or with the first usual name of one `with` which rows are there.
fn naming_by(source: &Source<'_>, labels: Labels, named: bool, with: impl Fn(&str) -> Form) -> Form {
    // Columns are looked for when the first row is read.
    let opens = |form: &Form| {
        let rows = AllRows::open(source.files, form, labels, source.labels, source.only);
        rows.and_then(|mut rows| rows.next_of_file()).is_ok()
    };
    if named {
        return source.form.clone();
    }
    // Where none is there, the error names the first.
    PATHS.iter().map(|name| with(name)).find(opens).unwrap_or_else(|| with(PATHS[0]))
}

/// Looks at every picture, so that a bad one is known before anything is made of the others.
fn checked(
    places: Places,
    mut rows: Vec<Row>,
    table: Option<PathBuf>,
    mut notes: Vec<String>,
    source: &Source<'_>,
) -> Result<Listed> {
    if places.is_empty() {
        return Err(data_error(source.files.first(), None, "names no picture"));
    }
    let numbers = 0..places.len();
    let places = match source.form.pictures.on_bad_image {
        OnBadImage::Stop => {
            let bad = numbers.into_par_iter().filter_map(|number| places.header(number).err()).find_first(|_| true);
            if let Some(bad) = bad {
                let help = format!("{}; or leave such files out: on_bad_image = \"skip\" in the task", bad.help);
                return Err(Error::from(bad).with_help(help));
            }
            places
        }
        OnBadImage::Skip => {
            let look = |number: usize| {
                let bytes = places.read(number)?;
                decode(&bytes, places.name(number), MAX_PIXELS).map(drop)
            };
            let bad: Vec<(usize, fthost_images::Error)> =
                numbers.into_par_iter().filter_map(|number| Some((number, look(number).err()?))).collect();
            if let Some((_, error)) = bad.iter().find(|(_, error)| error.kind != Kind::Picture) {
                return Err(error.clone().into());
            }
            if bad.len() == places.len() {
                return Err(bad.into_iter().next().map_or_else(|| Error::run("no picture"), |(_, e)| e.into()));
            }
            leave_out(places, &mut rows, &bad, &mut notes)
        }
    };
    Ok(Listed { table, notes, ..listed(Pixels::Files(places), rows, source) })
}

/// Leaves out what cannot be decoded, and says so.
fn leave_out(
    places: Places,
    rows: &mut Vec<Row>,
    bad: &[(usize, fthost_images::Error)],
    notes: &mut Vec<String>,
) -> Places {
    let Some((_, first)) = bad.first() else { return places };
    notes.push(format!("{} bad pictures are left out; {first} for one", count(bad.len())));
    let is_bad = |number: &usize| bad.binary_search_by_key(number, |(bad, _)| *bad).is_ok();
    let good: Vec<usize> = (0..places.len()).filter(|number| !is_bad(number)).collect();
    let mut number = 0;
    rows.retain(|_| {
        number += 1;
        !is_bad(&(number - 1))
    });
    places.select(&good)
}
