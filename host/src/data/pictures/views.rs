//! Which pictures count, and how they are turned: rows that are not the pictures of a file one after the other.

use std::collections::BTreeSet;

use super::list::Listed;
use crate::data::row::Row;
use crate::data::rows::no_class;
use crate::data::source::Source;
use crate::{Error, Result};

/// A picture, and by how many quarters of a circle it is turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) number: u32,
    pub(super) quarters: u8,
}

/// Leaves out the pictures of classes that do not count. Of those in a table that is done already.
///
/// # Errors
/// Where none is left.
pub(super) fn keep_what_counts(listed: &mut Listed, source: &Source<'_>) -> Result<()> {
    if listed.rows.iter().all(|row| source.form.counts(&row.label)) {
        return Ok(());
    }
    let rows = std::mem::take(&mut listed.rows);
    let classes: BTreeSet<String> = rows.iter().map(|row| row.label.clone()).collect();
    let (numbers, kept): (Vec<u32>, Vec<Row>) =
        (0..).zip(rows).filter(|(_, row)| source.form.counts(&row.label)).unzip();
    if kept.is_empty() {
        return Err(no_class(source.files.first(), source.form, classes.iter().map(String::as_str).take(NAMED)));
    }
    listed.rows = kept;
    listed.pictures.views = Some(numbers.into_iter().map(|number| View { number, quarters: 0 }).collect());
    Ok(())
}

/// Classes that a message names.
const NAMED: usize = 20;

/// Makes four classes of each: as it is, and turned to the left by a quarter, a half and three quarters of a circle.
pub(super) fn turn(listed: &mut Listed) -> Result<()> {
    let rows = std::mem::take(&mut listed.rows);
    let all = rows.len().checked_mul(4).filter(|&all| u32::try_from(all).is_ok());
    let all = all.ok_or_else(|| Error::usage("there are too many pictures to turn each of them"))?;
    let (mut views, mut turned) = (Vec::with_capacity(all), Vec::with_capacity(all));
    for quarters in 0..4u8 {
        for (place, row) in (0..).zip(&rows) {
            let View { number, .. } = listed.pictures.view(place);
            views.push(View { number, quarters });
            turned.push(if quarters == 0 { row.clone() } else { of_turned(row, quarters) });
        }
    }
    listed.rows = turned;
    listed.pictures.views = Some(views.into());
    Ok(())
}

/// The row of a turned picture: its class and its name say how.
fn of_turned(row: &Row, quarters: u8) -> Row {
    let degrees = 90 * u32::from(quarters);
    let text = if row.text.is_empty() { String::new() } else { format!("{}, turned by {degrees}", row.text) };
    Row { label: format!("{}, turned by {degrees}", row.label), text, ..row.clone() }
}
