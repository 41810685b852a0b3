//! The examples that a model is worst at.

use fthost_images::Picture;
use serde::Serialize;

use super::evaluate::{Evaluation, Outcome};
use super::masks::KEPT;
use crate::report::metrics::tokens;
use crate::report::text::shortened;

/// Examples that are shown: as many as masks are kept of.
const SHOWN: usize = KEPT;
/// Characters of a text that are shown.
pub(super) const TEXT: usize = 300;

/// An example, or one of its words, that the model is far off at.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Worst {
    /// Its place among the predictions.
    #[serde(skip)]
    pub place: usize,
    /// The example's number, from 1.
    pub example: usize,
    /// Its text, its middle left out where it is long; a picture's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// It, where it is a picture that is read from a file; where it has a mask, it beside what is true and what is predicted.
    #[serde(skip)]
    pub picture: Option<Picture>,
    /// The word, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub word: Option<String>,
    /// The true class or value.
    pub target: String,
    /// The predicted one.
    pub prediction: String,
    /// The negative natural logarithm of the true class's probability, the binary cross entropy of all classes where there may be any number
    /// of true ones, the distance from the true value, of a mask one less its mean intersection over union, or of a pair of answers by how much the worse
    /// one's reward is greater. Of what belongs together how many are nearer.
    pub loss: f64,
    /// What was found in the place of what belongs to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead: Option<Instead>,
}

/// What is nearest to one side of an example, in the place of its other side.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Instead {
    /// Whether that is its first side, as a text whose picture is looked for.
    pub forward: bool,
    /// The rank of its own other side.
    pub rank: f64,
    /// The text that was found, or that of the picture.
    pub text: String,
    /// The picture that was found.
    #[serde(skip)]
    pub picture: Option<Picture>,
}

impl Worst {
    /// Takes the example's text, and the second of a pair.
    pub(super) fn set_text(&mut self, text: &str, pair: &str) {
        let both = if pair.is_empty() { text.to_owned() } else { format!("{text} / {pair}") };
        self.text = shortened(&both, TEXT).into_owned();
    }
}

/// The examples with the greatest losses of those that are wrong, the worst first; their texts are still to be found.
pub(super) fn least_expected(evaluation: &Evaluation) -> Vec<Worst> {
    let losses: Vec<(usize, f64)> = match &evaluation.outcome {
        Outcome::Classes(found) => {
            let wrong = |&(place, _): &(usize, f64)| found.targets[place] != found.predictions[place];
            found.losses().filter(wrong).collect()
        }
        Outcome::Labels(found) => {
            let wrong = |&(place, _): &(usize, f64)| found.targets[place] != found.predictions[place];
            found.losses().filter(wrong).collect()
        }
        Outcome::Masks(found) => found.losses().collect(),
        Outcome::Tokens(rows) => {
            let mean = |row: &tokens::Counted| row.loss / row.tokens as f64; // not a number without a token
            rows.iter().map(mean).enumerate().collect()
        }
        // Those whose other side is not the nearest.
        Outcome::Matches(found) => {
            let far = found.ranks.iter().map(|ranks| ranks.forward.max(ranks.backward) - 1.0).enumerate();
            far.filter(|(_, rank)| *rank > 0.0).collect()
        }
        // Those of which the worse answer has the greater reward.
        Outcome::Preferences(pairs) => {
            let against = pairs.iter().map(|pair| pair.rejected - pair.chosen).enumerate();
            against.filter(|(_, loss)| *loss >= 0.0).collect()
        }
        Outcome::Values { targets, predictions } => {
            let distance = |(target, found): (&f32, &f32)| (f64::from(*target) - f64::from(*found)).abs();
            targets.iter().zip(predictions).map(distance).enumerate().collect()
        }
    };
    let mut losses: Vec<(usize, f64)> = losses.into_iter().filter(|(_, loss)| loss.is_finite()).collect();
    losses.sort_by(|a, b| b.1.total_cmp(&a.1));
    losses.into_iter().take(SHOWN).map(|(place, loss)| Worst { place, loss, ..Worst::default() }).collect()
}
