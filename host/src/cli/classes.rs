//! Classes that are told by their names alone.

use std::path::Path;

use clap::Args;
use fthost::run::trained::zero_shot::Named;
use fthost::{Error, Result};

/// The names of these arguments, for those that they do not go with.
pub(super) const CLASSES: [&str; 3] = ["classes", "templates", "temperature"];

/// Which classes there are, and how they become texts.
#[derive(Debug, Args)]
pub(super) struct ClassArguments {
    /// Zero-shot: tells classes by their names alone, by a head that compares, as CLIP's. Names between commas, or a file with one on each
    /// line; without a value those of the examples' own labels
    #[arg(long, value_name = "NAMES|FILE", num_args = 0..=1, default_missing_value = "")]
    classes: Option<String>,

    /// A text in which {} stands for a class's name, "a photo of a {}"; of several the mean of their vectors stands for the class. Without it
    /// the name is the text
    #[arg(long = "template", value_name = "TEXT")]
    templates: Vec<String>,

    /// What cosines are divided by to become probabilities; without it what the head has learned
    #[arg(long, value_name = "X")]
    temperature: Option<f64>,
}

/// What was asked for, the names read.
pub(super) struct Asked<'a> {
    names: Option<Vec<String>>,
    arguments: &'a ClassArguments,
}

impl ClassArguments {
    /// Whether classes are told by their names; with the names, where there are any.
    ///
    /// # Errors
    /// Where a file of names cannot be read, or there is a temperature without classes.
    pub(super) fn read(&self) -> Result<Option<Asked<'_>>> {
        let names = match self.classes.as_deref() {
            None if self.templates.is_empty() && self.temperature.is_none() => return Ok(None),
            None if self.templates.is_empty() => {
                return Err(Error::usage("--temperature is for classes that are told by their names")
                    .with_help("name them by --classes too, or leave it out"));
            }
            None | Some("") => None,
            Some(named) => Some(names(named)?),
        };
        Ok(Some(Asked { names, arguments: self }))
    }
}

impl Asked<'_> {
    /// The same for a model.
    pub(super) fn named(&self) -> Named<'_> {
        let ClassArguments { templates, temperature, .. } = self.arguments;
        Named { names: self.names.as_deref(), templates, temperature: *temperature }
    }

    /// Refuses to go without names, where no label tells them.
    pub(super) fn must_have_names(&self) -> Result<()> {
        match self.names {
            Some(_) => Ok(()),
            None => Err(Error::usage("nothing names the classes that are to be predicted")
                .with_help("name them: --classes \"a cat,a dog\", or a file with one on each line")),
        }
    }
}

/// Names between commas, or those on the lines of a file.
fn names(named: &str) -> Result<Vec<String>> {
    let path = Path::new(named);
    let (text, between) = match path.is_file() {
        true => (std::fs::read_to_string(path).map_err(Error::io(format!("cannot read {named}")))?, '\n'),
        false => (named.to_owned(), ','),
    };
    let names = text.split(between).map(str::trim).filter(|name| !name.is_empty());
    Ok(names.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_between_commas_or_on_lines() {
        assert_eq!(names("a cat, a dog,").ok(), Some(vec!["a cat".to_owned(), "a dog".to_owned()]));
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "cat, big\r\n\ndog\n").expect("it is written");
        let found = names(&file.path().display().to_string());
        assert_eq!(found.ok(), Some(vec!["cat, big".to_owned(), "dog".to_owned()]));
    }
}
