//! What a file says, and the tables that it hands over.

use fthost_plugin_api::{MethodInfo, MethodNote};

use crate::plugin::{Library, Plugin, Search, note, tables};
use crate::validate::bench::Bench;
use crate::validate::options;
use crate::validate::outcome::Outcome;
use crate::validate::subject::Subject;
use crate::{Error, Result};

fn open(subject: &Subject) -> Result<Plugin> {
    Library::new(Search::from_environment()).open(&subject.file.display().to_string())
}

/// The notes, which are read before any code runs, and what the code says.
pub(in crate::validate) fn note(subject: &Subject) -> Result<Outcome> {
    let checked = note::check(&subject.file)?;
    let plugin = open(subject)?;
    let (said, noted) = (plugin.info(), &checked.note);
    let mut wrong = Vec::new();
    for (what, note, code) in [
        ("name", &noted.name, &said.name),
        ("version", &noted.version, &said.version),
        ("license", &noted.license, &said.license),
    ] {
        if note != code {
            wrong.push(format!("its note has the {what} {note:?}, and its code says {code:?}"));
        }
    }
    let is = |note: &MethodNote, info: &MethodInfo| note.kind == info.kind && note.name == info.name;
    for info in &said.methods {
        match checked.methods.iter().find(|note| is(note, info)) {
            None => wrong.push(format!("it registers the {} {:?}, of which no note tells", info.kind, info.name)),
            Some(note) if note.summary != info.summary || note.serves != info.serves => wrong.push(format!(
                "its note tells of the {} {:?}: {:?}, serves {:?}; its code says {:?}, serves {:?}",
                info.kind, info.name, note.summary, note.serves, info.summary, info.serves
            )),
            Some(_) => {}
        }
    }
    for note in &checked.methods {
        if !said.methods.iter().any(|info| is(note, info)) {
            wrong.push(format!("a note tells of the {} {:?}, which it does not register", note.kind, note.name));
        }
    }
    if said.methods.is_empty() {
        wrong.push("it registers no method".to_owned());
    }
    for (i, info) in said.methods.iter().enumerate() {
        if said.methods[..i].iter().any(|other| other.kind == info.kind && other.name == info.name) {
            wrong.push(format!("it registers the {} {:?} twice", info.kind, info.name));
        }
        if info.config_schema.as_object().is_none() {
            wrong.push(format!("the schema of the {} {:?} is no JSON object", info.kind, info.name));
        }
    }
    Ok(Outcome::unless(&wrong, "what the notes in the file tell is what `describe` says"))
}

/// The plugin's own table.
pub(in crate::validate) fn tables(subject: &Subject) -> Result<Outcome> {
    let checked = note::check(&subject.file)?;
    let wrong = tables::of_plugin(&open(subject)?, &checked.note);
    Ok(Outcome::unless(&wrong, "sizes, versions and functions as fthost_plugin.h of its minor has them"))
}

/// The table of an instance.
pub(in crate::validate) fn table(subject: &Subject) -> Result<Outcome> {
    let plugin = open(subject)?;
    let method = subject.method()?;
    // The host may have refused the options; then there is no instance to look at.
    let options = match Bench::new(subject) {
        Ok(bench) => bench.options(),
        Err(_) => {
            let info = plugin.method(method.kind, &method.name)?;
            let mut options = info.config_default.as_object().cloned().unwrap_or_default();
            options.extend(options::needed(info));
            options.into()
        }
    };
    let wrong = tables::of_method(&plugin, (method.kind, &method.name), &options).map_err(Error::plugin)?;
    Ok(Outcome::unless(
        &wrong,
        "sizes and functions as fthost_plugin.h of its minor has them, none null that is needed",
    ))
}
