//! Which tokens of a text are to be guessed, and what stands in their places.

use fthost_autograd::random::Stream;
use fthost_plugin_api::Masking;

use super::store::UNCOUNTED;

/// What the tokens of a language model are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TokensOf {
    /// The id of the mask, where there is one.
    pub(super) mask: Option<u32>,
    /// Ids are below it.
    pub(super) vocabulary: u32,
    /// Whether an example is a pair of sequences.
    pub(super) pairs: bool,
}

/// How tokens are chosen: of those chosen the mask takes the place of 80 of 100, a random token that of 10, and 10 stay (Devlin et al. 2018,
/// arXiv:1810.04805).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choosing {
    pub(super) masking: Masking,
    /// The id of the mask.
    pub(super) mask: u32,
    /// Ids are below it.
    pub(super) vocabulary: u32,
    /// Where the choice for an evaluation comes from, which is the same each time.
    pub(super) seed: u64,
}

/// What is seen of a text, and what is to be guessed of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Guessed {
    /// Token ids.
    pub(super) ids: Vec<u32>,
    /// The token of each place that was chosen, elsewhere [`UNCOUNTED`].
    pub(super) targets: Vec<u32>,
}

/// Shares of the chosen places.
const MASKED: f64 = 0.8;
const RANDOM: f64 = 0.1;

impl Choosing {
    /// What is seen of a row in evaluation.
    pub(super) fn of_row(&self, row: u32, ids: &[u32], words: &[u32]) -> Guessed {
        self.choose(&Stream::new(self.seed, "guessed tokens of an evaluation").at(&[u64::from(row)]), ids, words)
    }

    /// Chooses by the numbers of a stream: each token, or each word, alone with the probability that is asked for, and one where none was.
    /// `words` are the numbers of the tokens' words, [`UNCOUNTED`] where a token is special.
    pub(super) fn choose(&self, stream: &Stream, ids: &[u32], words: &[u32]) -> Guessed {
        // The numbers of a place: whether it is chosen, what becomes of it, and by which token.
        let draw = |place: usize, what: u64| stream.uniform(3 * place as u64 + what);
        let unit = |place: usize| if self.masking.whole_words { words[place] as usize } else { place };
        let counts = |place: &usize| words[*place] != UNCOUNTED;
        let mut chosen: Vec<usize> =
            (0..ids.len()).filter(counts).filter(|&place| draw(unit(place), 0) < self.masking.share).collect();
        if chosen.is_empty() {
            // The one that was nearest to being chosen: a text without a target teaches nothing.
            let nearest = (0..ids.len()).filter(counts).min_by(|&a, &b| draw(unit(a), 0).total_cmp(&draw(unit(b), 0)));
            let unit_of = nearest.map(unit);
            chosen = (0..ids.len()).filter(counts).filter(|&place| Some(unit(place)) == unit_of).collect();
        }
        let mut guessed = Guessed { ids: ids.to_vec(), targets: vec![UNCOUNTED; ids.len()] };
        for place in chosen {
            guessed.targets[place] = ids[place];
            let what = draw(place, 1);
            if what < MASKED {
                guessed.ids[place] = self.mask;
            } else if what < MASKED + RANDOM {
                guessed.ids[place] = (draw(place, 2) * f64::from(self.vocabulary)) as u32;
            }
        }
        guessed
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const MASK: u32 = 4;
    const VOCABULARY: u32 = 1000;

    fn choosing(share: f64, whole_words: bool) -> Choosing {
        Choosing { masking: Masking { share, whole_words }, mask: MASK, vocabulary: VOCABULARY, seed: 7 }
    }

    /// Ids that are no mask; special ones at both ends; words of two tokens.
    fn text(len: usize) -> (Vec<u32>, Vec<u32>) {
        let ids = (0..len as u32).map(|i| 10 + i % 900).collect();
        let special = |place: usize| place == 0 || place + 1 == len;
        (ids, (0..len).map(|place| if special(place) { UNCOUNTED } else { (place as u32 - 1) / 2 }).collect())
    }

    #[test]
    fn shares_are_those_of_the_paper() {
        let (ids, words) = text(20_000);
        let Guessed { ids: seen, targets } = choosing(0.15, false).of_row(0, &ids, &words);
        let chosen: Vec<usize> = (0..ids.len()).filter(|&place| targets[place] != UNCOUNTED).collect();
        assert!((chosen.len() as f64 / 20_000.0 - 0.15).abs() < 0.01, "{}", chosen.len());
        let share =
            |is: &dyn Fn(usize) -> bool| chosen.iter().filter(|&&place| is(place)).count() as f64 / chosen.len() as f64;
        assert!((share(&|place| seen[place] == MASK) - 0.8).abs() < 0.03);
        assert!((share(&|place| seen[place] == ids[place]) - 0.1).abs() < 0.03);
        assert!(chosen.iter().all(|&place| targets[place] == ids[place] && words[place] != UNCOUNTED));
        assert!((0..ids.len()).filter(|place| targets[*place] == UNCOUNTED).all(|place| seen[place] == ids[place]));
        assert!(seen.iter().all(|&id| id < VOCABULARY));
    }

    #[test]
    fn words_are_chosen_whole_where_it_is_asked_for() {
        let (ids, words) = text(2_002);
        let Guessed { targets, .. } = choosing(0.3, true).of_row(3, &ids, &words);
        let chosen = |place: usize| targets[place] != UNCOUNTED;
        assert!((1..2_001).step_by(2).all(|place| chosen(place) == chosen(place + 1)));
        assert!((1..2_001).any(chosen) && !(1..2_001).all(chosen));
    }

    #[test]
    fn a_short_text_has_one_target_and_a_row_always_the_same() {
        let (ids, words) = text(3);
        for row in 0..50 {
            let guessed = choosing(0.01, false).of_row(row, &ids, &words);
            assert_eq!(guessed.targets, [UNCOUNTED, ids[1], UNCOUNTED]);
            assert_eq!(guessed, choosing(0.01, false).of_row(row, &ids, &words));
        }
        let none = choosing(0.15, false).of_row(0, &[1, 2], &[UNCOUNTED; 2]);
        assert_eq!(none.targets, [UNCOUNTED; 2]);
    }
}
