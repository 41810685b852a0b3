//! What a language model is asked by a row that was read: the tokens before its last answer.

use super::dataset::Dataset;
use super::store::UNCOUNTED;
use crate::Result;

/// The most tokens that a text without a prompt goes on from.
const LEAD: usize = 32;

impl Dataset {
    /// The tokens of a row before its last answer, `[tokens]`, where so many stand before every text. Of a row without a prompt its first
    /// 32 tokens, of a shorter one the first half; behind a picture what stands before its text. `None` where nothing of the row is to be learned, so that no answer is left of it.
    ///
    /// # Errors
    /// As all that reads examples.
    pub fn prompt(&self, row: u32, before: usize) -> Result<Option<Vec<u32>>> {
        let record = self.record(row)?;
        let (mut ids, marks) = (Vec::new(), self.store.marks(&record)?);
        self.store.append(&record, &mut ids, &mut Vec::new())?;
        Ok(asked(&marks, before, self.of_pictures()).map(|tokens| {
            ids.truncate(tokens);
            ids
        }))
    }
}

/// How many tokens stand before the last answer, by each token's mark: [`UNCOUNTED`] where it is not learned. A picture before them asks
/// enough by itself.
fn asked(marks: &[u32], before: usize, pictured: bool) -> Option<usize> {
    let last = marks.iter().rposition(|&mark| mark != UNCOUNTED)?;
    let start = marks[..last].iter().rposition(|&mark| mark == UNCOUNTED).map_or(0, |at| at + 1);
    // Nothing says the first token, so it is never learned.
    Some(if pictured || start > before.max(1) { start } else { LEAD.min(marks.len().div_ceil(2)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_end_where_the_last_answer_begins() {
        let marks = |learned: &str| -> Vec<u32> {
            learned.chars().map(|sign| if sign == '.' { UNCOUNTED } else { 0 }).collect()
        };
        assert_eq!(asked(&marks("....AA"), 1, false), Some(4));
        assert_eq!(asked(&marks("....AA...AA."), 1, false), Some(9));
        assert_eq!(asked(&marks("......"), 1, false), None);
        // A text of which every token counts, without a first token of its own and with one.
        assert_eq!(asked(&marks(".AAAA"), 0, false), Some(3));
        assert_eq!(asked(&marks(".AAAA"), 1, false), Some(3));
        assert_eq!(asked(&marks(&format!(".{}", "A".repeat(99))), 1, false), Some(LEAD));
        // A picture asks.
        assert_eq!(asked(&marks(".AAAA"), 1, true), Some(1));
        // Two tokens of a prompt are one.
        assert_eq!(asked(&marks("..A"), 1, false), Some(2));
    }
}
