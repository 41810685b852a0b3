//! Which pictures count, and how they are turned: rows that are not the pictures of a file one after the other.

use std::collections::BTreeSet;

use super::pixels::{Pictures, View};
use crate::data::row::Row;
use crate::data::rows::no_class;
use crate::data::source::Source;
use crate::{Error, Result};

/// Leaves out the pictures of classes that do not count. Of those in a table that is done already.
///
/// # Errors
/// Where none is left.
pub(super) fn keep_what_counts(all: &mut Vec<Row>, pictures: &mut Pictures, source: &Source<'_>) -> Result<()> {
    if all.iter().all(|row| source.form.counts(&row.label)) {
        return Ok(());
    }
    let rows = std::mem::take(all);
    let classes: BTreeSet<String> = rows.iter().map(|row| row.label.clone()).collect();
    let (numbers, kept): (Vec<u32>, Vec<Row>) =
        (0..).zip(rows).filter(|(_, row)| source.form.counts(&row.label)).unzip();
    if kept.is_empty() {
        return Err(no_class(source.files.first(), source.form, classes.iter().map(String::as_str).take(NAMED)));
    }
    *all = kept;
    pictures.views = Some(numbers.into_iter().map(|number| View { number, quarters: 0 }).collect());
    Ok(())
}

/// Classes that a message names.
const NAMED: usize = 20;

/// Makes four classes of each: as it is, and turned to the left by a quarter, a half and three quarters of a circle.
pub(super) fn turn(all: &mut Vec<Row>, pictures: &mut Pictures) -> Result<()> {
    let rows = std::mem::take(all);
    let number = rows.len().checked_mul(4).filter(|&number| u32::try_from(number).is_ok());
    let number = number.ok_or_else(|| Error::usage("there are too many pictures to turn each of them"))?;
    let (mut views, mut turned) = (Vec::with_capacity(number), Vec::with_capacity(number));
    for quarters in 0..4u8 {
        for (place, row) in (0..).zip(&rows) {
            let View { number, .. } = pictures.view(place);
            views.push(View { number, quarters });
            turned.push(if quarters == 0 { row.clone() } else { of_turned(row, quarters) });
        }
    }
    *all = turned;
    pictures.views = Some(views.into());
    Ok(())
}

/// The row of a turned picture: its class and its name say how.
fn of_turned(row: &Row, quarters: u8) -> Row {
    let degrees = 90 * u32::from(quarters);
    let text = if row.text.is_empty() { String::new() } else { format!("{}, turned by {degrees}", row.text) };
    Row { label: format!("{}, turned by {degrees}", row.label), text, ..row.clone() }
}
