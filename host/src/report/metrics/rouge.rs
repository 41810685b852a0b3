//! ROUGE-L (Lin 2004): how much of a text's words come in the same order in another, as Google's rouge_score computes it without its stemmer.

/// The F-measure of the longest common subsequence of the words of two texts: 1 where the words are the same, 0 where no word is common or a
/// text has none.
pub(super) fn rouge_l(text: &str, answer: &str) -> f64 {
    let (text, answer) = (text.to_lowercase(), answer.to_lowercase());
    let (found, due) = (words(&text), words(&answer));
    let common = longest_common(&found, &due) as f64;
    if common == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (common / found.len() as f64, common / due.len() as f64);
    2.0 * precision * recall / (precision + recall)
}

/// The words of a text in lower case: runs of Latin letters without accents and of digits. All else separates them, so a text in another
/// script has none.
fn words(text: &str) -> Vec<&str> {
    let part = |letter: char| !(letter.is_ascii_lowercase() || letter.is_ascii_digit());
    text.split(part).filter(|word| !word.is_empty()).collect()
}

/// The length of the longest common subsequence, in time of the product of both lengths, and memory of the shorter one.
fn longest_common(a: &[&str], b: &[&str]) -> usize {
    let (long, short) = if a.len() < b.len() { (b, a) } else { (a, b) };
    // By places of the shorter one: the longest of what was seen of the longer one and of what stands before the place.
    let mut lengths = vec![0; short.len() + 1];
    for word in long {
        let mut before = 0; // that of the place before, without this word
        for (place, other) in short.iter().enumerate() {
            let without = lengths[place + 1];
            lengths[place + 1] = if word == other { before + 1 } else { without.max(lengths[place]) };
            before = without;
        }
    }
    lengths[short.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn f_measures_are_those_of_rouge_score() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/rouge.json");
        let cases: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cases = cases.as_array().unwrap();
        assert!(cases.len() >= 20);
        for case in cases {
            let (text, answer) = (case["text"].as_str().unwrap(), case["answer"].as_str().unwrap());
            let (found, due) = (rouge_l(text, answer), case["rouge_l"].as_f64().unwrap());
            assert!((found - due).abs() < 1e-12, "{text:?}, {answer:?}: {found} is not {due}");
        }
    }

    #[test]
    fn a_subsequence_may_have_gaps_on_both_sides() {
        let of = |a: &str, b: &str| longest_common(&words(a), &words(b));
        assert_eq!(of("a x b y c", "z a b w c"), 3);
        assert_eq!(of("c b a", "a b c"), 1);
        assert_eq!(of("", "a"), 0);
    }
}
