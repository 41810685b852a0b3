//! Progress on standard error: a bar on a terminal, a line every few seconds elsewhere, nothing where it is not wanted.
//!
//! Colours are used only on a terminal, and not where `NO_COLOR` is set.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How long the lines of a log stand apart.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Share of the past in the loss that is shown.
const SMOOTHING: f64 = 0.95;

/// What one optimizer step came to.
#[derive(Clone, Copy, Debug)]
pub struct StepReport {
    /// Mean loss of the batch; `None` where no example counts in it.
    pub loss: Option<f64>,
    /// Learning rate.
    pub lr: f64,
    /// Examples of the batch.
    pub samples: usize,
    /// Tokens of the batch.
    pub tokens: usize,
}

/// Progress of a training: step, smoothed loss, learning rate, speed and the time left.
#[derive(Debug)]
pub struct TrainProgress {
    line: Line,
    state: Mutex<Smoothed>,
}

impl TrainProgress {
    /// A bar of `steps` optimizer steps, of which `done` were taken before; nothing is drawn where `shown` is false.
    pub fn new(shown: bool, done: u64, steps: u64) -> Self {
        Self { line: Line::new(shown, "training", "step", done, steps), state: Mutex::default() }
    }

    /// A step is over.
    pub fn step(&self, report: &StepReport) {
        let text = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.add(report);
            state.to_text(report.lr, self.line.elapsed())
        };
        self.line.advance(1, &text);
    }

    /// Says something once, above the bar.
    pub fn say(&self, text: &str) {
        self.line.say(text);
    }

    /// Takes the bar away; what stays is the result that the run prints.
    pub fn finish(&self) {
        self.line.finish();
    }
}

/// Progress of an evaluation, by examples. [`advance`](Self::advance) may be called from any thread.
#[derive(Debug)]
pub struct EvaluationProgress {
    line: Line,
}

impl EvaluationProgress {
    /// A bar of `examples` examples that says `what` is done; nothing is drawn where `shown` is false.
    pub fn new(shown: bool, what: &str, examples: usize) -> Self {
        Self { line: Line::new(shown, what, "example", 0, examples as u64) }
    }

    /// Further examples are done.
    pub fn advance(&self, examples: usize) {
        self.line.advance(examples as u64, "");
    }
}

/// Progress of a download, by thousands of bytes.
#[derive(Debug)]
pub struct DownloadProgress {
    line: Line,
    /// Bytes that make no thousand yet.
    rest: u64,
}

impl DownloadProgress {
    /// A bar for a file of `bytes`; nothing is drawn where `shown` is false.
    pub fn new(shown: bool, file: &str, bytes: u64) -> Self {
        let line = Line::new(shown, &format!("downloading {file}"), "kB", 0, bytes.div_ceil(1000));
        Self { line, rest: 0 }
    }

    /// Further bytes have come.
    pub fn advance(&mut self, bytes: u64) {
        self.rest += bytes;
        self.line.advance(self.rest / 1000, "");
        self.rest %= 1000;
    }
}

impl Drop for DownloadProgress {
    fn drop(&mut self) {
        self.line.finish();
    }
}

impl Drop for EvaluationProgress {
    fn drop(&mut self) {
        self.line.finish();
    }
}

/// A smoothed loss and sums for the speed.
#[derive(Debug, Default)]
struct Smoothed {
    loss: f64,
    /// Sum of the weights in `loss`: 1 after many steps, less at first, so that the first losses count in full.
    weight: f64,
    samples: usize,
    tokens: usize,
}

impl Smoothed {
    fn add(&mut self, report: &StepReport) {
        if let Some(loss) = report.loss {
            self.loss = SMOOTHING * self.loss + (1.0 - SMOOTHING) * loss;
            self.weight = SMOOTHING * self.weight + (1.0 - SMOOTHING);
        }
        self.samples += report.samples;
        self.tokens += report.tokens;
    }

    fn to_text(&self, lr: f64, elapsed: Duration) -> String {
        // Images count as examples until the model says how many tokens they are.
        let (count, unit) =
            if self.tokens > self.samples { (self.tokens, "tokens") } else { (self.samples, "samples") };
        let speed = count as f64 / elapsed.as_secs_f64().max(1e-9);
        format!("loss {:.4}  lr {lr:.2e}  {} {unit}/s", self.loss / self.weight, rounded(speed))
    }
}

/// Three digits or more: `8.25`, `312`, `12,340`.
fn rounded(speed: f64) -> String {
    match speed {
        ..10.0 => format!("{speed:.2}"),
        10.0..1000.0 => format!("{speed:.0}"),
        _ => indicatif::HumanCount((speed / 10.0).round() as u64 * 10).to_string(),
    }
}

/// One line that goes on: redrawn on a terminal, printed now and then elsewhere.
#[derive(Debug)]
struct Line {
    what: String,
    unit: &'static str,
    bar: ProgressBar,
    /// Where it began.
    from: u64,
    shown: bool,
    /// Where there is no terminal: when a line was printed last.
    log: Option<Mutex<Instant>>,
}

impl Line {
    fn new(shown: bool, what: &str, unit: &'static str, from: u64, length: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if shown && terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(length), target).with_style(style(colours()));
        bar.set_prefix(what.to_owned());
        // The speed and the time left are those of this process.
        bar.set_position(from);
        bar.reset_eta();
        let log = (shown && !terminal).then(|| Mutex::new(Instant::now()));
        Self { what: what.to_owned(), unit, bar, from, shown, log }
    }

    fn elapsed(&self) -> Duration {
        self.bar.elapsed()
    }

    fn advance(&self, by: u64, text: &str) {
        if !text.is_empty() {
            self.bar.set_message(text.to_owned());
        }
        self.bar.inc(by);
        let Some(last) = &self.log else { return };
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= LINE_EVERY {
            *last = Instant::now();
            eprintln!("{}", self.to_text(text));
        }
    }

    /// `training: step 20 of 100  loss 0.5000  lr 1.00e-3  900 tokens/s  00:00:08 left`
    fn to_text(&self, text: &str) -> String {
        let (done, length) = (self.bar.position(), self.bar.length().unwrap_or_default());
        let here = done.saturating_sub(self.from).max(1);
        let left = self.elapsed().mul_f64(length.saturating_sub(done) as f64 / here as f64);
        let text = if text.is_empty() { String::new() } else { format!("  {text}") };
        let left = indicatif::FormattedDuration(left);
        format!("{}: {} {done} of {length}{text}  {left} left", self.what, self.unit)
    }

    fn say(&self, text: &str) {
        if self.shown {
            self.bar.suspend(|| eprintln!("{text}"));
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn style(colours: bool) -> ProgressStyle {
    let bar = if colours { "{wide_bar:.cyan/dim}" } else { "{wide_bar}" };
    let template = format!("{{prefix}} {bar} {{pos}}/{{len}}  {{msg}}  {{eta_precise}} left");
    match ProgressStyle::with_template(&template) {
        Ok(style) => style.progress_chars("━╸─"),
        Err(_) => ProgressStyle::default_bar(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_first_losses_count_in_full_and_old_ones_fade() {
        let mut state = Smoothed::default();
        let mut check = |losses: &[f64], expected: &str| {
            for &loss in losses {
                state.add(&StepReport { loss: Some(loss), lr: 0.0, samples: 2, tokens: 2 });
            }
            let text = state.to_text(5e-4, Duration::from_secs(1));
            assert!(text.starts_with(&format!("loss {expected}  lr 5.00e-4  ")), "{text}");
        };
        check(&[2.0], "2.0000");
        check(&[2.0, 2.0], "2.0000");
        check(&[0.0; 50], "0.0235"); // 2 (1 - 0.95^3) 0.95^50 / (1 - 0.95^53)
    }

    #[test]
    fn speed_is_in_tokens_where_there_are_any() {
        let check = |samples, tokens, expected| {
            let mut state = Smoothed::default();
            state.add(&StepReport { loss: Some(1.0), lr: 1.0, samples, tokens });
            assert!(state.to_text(1.0, Duration::from_secs(2)).ends_with(expected));
        };
        check(16, 16, " 8.00 samples/s");
        check(16, 400, " 200 tokens/s");
        check(16, 24_690, " 12,350 tokens/s");
    }

    #[test]
    fn lines_say_where_a_run_stands() {
        let line = Line::new(false, "training", "step", 0, 100);
        line.advance(20, "loss 0.5");
        let text = line.to_text("loss 0.5");
        assert!(text.starts_with("training: step 20 of 100  loss 0.5  ") && text.ends_with(" left"), "{text}");
        line.finish();
    }

    #[test]
    fn templates_are_valid() {
        for bar in ["{wide_bar:.cyan/dim}", "{wide_bar}"] {
            let template = format!("{{prefix}} {bar} {{pos}}/{{len}}  {{msg}}  {{eta_precise}} left");
            assert!(ProgressStyle::with_template(&template).is_ok());
        }
    }
}
