#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;

use super::*;
use crate::adapted::PatternMatch;
use crate::data::survey::{ClassSurvey, PartSurvey};
use crate::report::metrics::probabilities::Bin;
use crate::run::pass::Decision;
use crate::run::results::calibrated::Calibration;
use crate::run::results::evaluate::{Classes, Evaluation, Outcome};
use crate::run::results::export::{Exported, Format};
use crate::run::results::proof::{Pairing, Proof};
use crate::run::results::report::Report;
use crate::run::results::result::Parameters;
use crate::run::results::worst::Worst;
use crate::run::setup::memory::Memory;
use crate::run::setup::plan::{DataFile, Share};
use crate::run::setup::start::{Frozen, Start};
use crate::run::state::snapshot::Trained;
use crate::run::state::watch::{Best, Watch};

/// A run that trained a classifier of `labels`, everything named `name`.
fn summary(name: &str, labels: &[&str]) -> Summary {
    let classes = labels.len() as u32;
    let pairs: Vec<(u32, u32)> = (0..classes)
        .flat_map(|class| (0..classes).map(move |predicted| (class, predicted)))
        .flat_map(|(class, predicted)| {
            let n = if class == predicted {
                180u32.saturating_sub(14 * class).max(5)
            } else {
                (class * 5 + predicted * 3) % 7
            };
            std::iter::repeat_n((class, predicted), n as usize)
        })
        .collect();
    let targets: Vec<u32> = pairs.iter().map(|pair| pair.0).collect();
    let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
    let evaluation = |loss: f64, predictions: Vec<u32>| {
        let found = Classes::new(&labels, targets.clone(), predictions, None);
        Evaluation::new(Some(loss), Outcome::Classes(found), labels.len())
    };
    let before = evaluation(2.3071, vec![0; targets.len()]);
    let after = evaluation(0.2832, pairs.iter().map(|pair| pair.1).collect());
    let result = TaskResult::new(&labels, Vec::new(), before.metrics().clone(), None, Some((Split::Test, &after)));
    let plugin = |plugin: &str, hash: &str| PluginUsed {
        name: format!("{plugin}{name}"),
        version: "0.1.0".into(),
        path: format!("target/release/lib{plugin}{name}.so"),
        sha256: hash.repeat(16),
    };
    let share = |owner: &str, tensors, elements| Share { owner: owner.to_owned(), tensors, elements };
    Summary {
        watch: None,
        sequence: Vec::new(),
        continual: None,
        folder: format!("runs/sentiment{name}").into(),
        tasks: [(format!("sentiment{name}"), result)].into(),
        train: Trained {
            seconds: 216.4,
            steps: 1200,
            skipped_steps: 0,
            empty_steps: 0,
            samples: 38_400,
            tokens: 1_013_760,
            loss: 0.1713,
            peak_rss_bytes: 412_000_000,
            waited_seconds: 0.0,
            first_step_seconds: 0.83,
            parameters_with_gradient: 1.0,
        },
        proof: Proof {
            start: Start { claimed: true, equals_base: true, examples: 8, max_difference: 0.0 },
            parameters_with_gradient: 1.0,
            frozen: Frozen { tensors: 101, elements: 22_713_216, unchanged: true },
            pairing: Pairing { order: "0d".into(), head: "4e".into() },
        },
        parameters: Parameters { trainable: 148_614, total: 22_861_830 },
        plugins: vec![plugin("lora", "3fa9"), plugin("cosine", "c01d"), plugin("classification", "77be")],
        seed: 42,
        device: "cpu".into(),
        precision: "f32".into(),
        saved: Exported { format: Format::Peft, path: format!("runs/sentiment{name}/adapter").into(), own_heads: None },
        plan: Plan {
            pooling: Some("cls".into()),
            model: "bert".into(),
            matches: ["query", "value", r"encoder\.layer\.[0-5]\..*"]
                .map(|pattern| PatternMatch {
                    strategy: 0,
                    stream: None,
                    pattern: format!("{pattern}{name}"),
                    matched: 12,
                })
                .into(),
            trainable: vec![share("lora", 24, 110_592), share("head of sentiment", 4, 38_022)],
            trainable_parameters: 148_614,
            total_parameters: 22_861_830,
            quantized_parameters: 0,
            examples: 12_800,
            tokens: 337_920,
            learned_tokens: 0,
            episodes: Vec::new(),
            batches: Vec::new(),
            balance: Vec::new(),
            files: Vec::new(),
            watched: Vec::new(),
            from_data: Vec::new(),
            truncated: 7,
            cut_words: 0,
            notes: Vec::new(),
            data: Vec::new(),
            rates: Vec::new(),
            steps_per_epoch: 400,
            steps: 1200,
            memory: Memory {
                weights: 180_000_000,
                training: 2_377_824,
                plugins: 1_188_912,
                activations: 140_000_000,
                data: 2_703_360,
            },
            estimate: None,
        },
    }
}

/// The lines of a run that learns, with noise that is the same each time.
fn lines(steps: u64) -> Vec<Value> {
    let mut noise = 1u64;
    let mut random = move || {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (noise >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    };
    let mut lines = vec![
        json!({"event": "evaluation", "step": 0, "task": "sentiment", "when": "before", "metrics": {"loss": 2.3}}),
    ];
    for step in 1..=steps {
        let part = step as f64 / steps as f64;
        let lr =
            2e-4 * if part < 0.1 { part / 0.1 } else { 0.5 + 0.5 * ((part - 0.1) / 0.9 * std::f64::consts::PI).cos() };
        let loss = 0.15 + 2.1 * (-7.0 * part).exp() + random() * (0.12 + 0.5 * (-4.0 * part).exp());
        let norm = 0.6 + 2.0 * (-5.0 * part).exp() + random() * 0.5 + if step == steps * 2 / 3 { 6.0 } else { 0.0 };
        lines.push(json!({
            "event": "step", "step": step, "epoch": 1, "loss": loss.abs(), "lr": lr, "gradient_norm": norm.abs(),
            "samples": 32, "tokens": 845, "seconds": step as f64 * 0.18,
        }));
        if step % (steps / 12).max(1) == 0 {
            let accuracy = 0.94 - 0.8 * (-6.0 * part).exp();
            lines.push(json!({
                "event": "evaluation", "step": step, "task": "sentiment", "when": "validation",
                "metrics": {
                    "accuracy": accuracy,
                    "macro_f1": accuracy - 0.02 + 0.01 * random(),
                    "loss": 0.2 + 2.0 * (-6.0 * part).exp(),
                },
            }));
        }
    }
    lines
}

/// Leaves a page to be looked at where `FTHOST_PAGES` names a folder.
fn leave(name: &str, text: &str) {
    if let Some(folder) = std::env::var_os("FTHOST_PAGES") {
        std::fs::write(std::path::Path::new(&folder).join(name), text).unwrap();
    }
}

const EMOTIONS: [&str; 6] = ["anger", "fear", "joy", "love", "sadness", "surprise"];

#[test]
fn a_page_says_what_a_run_came_to() {
    let text = page(&summary("", &EMOTIONS), &lines(1200));
    leave("page.html", &text);
    for said in [
        "<title>sentiment · fthost</title>",
        "<strong>90.06 %</strong><span class=\"more\">20.39 % before training</span>",
        "3 min 36 s",
        "4,685",
        "412 MB",
        "148,614 of 22,861,830 parameters",
        "Training loss",
        "</i>validation</span>",
        "Learning rate",
        "Gradient norm",
        "Classification report",
        "Confusion matrix",
        "encoder\\.layer\\.[0-5]\\..*",
        "head of sentiment",
        "7 texts cut",
        &"77be".repeat(16),
        "runs/sentiment/adapter",
        "<dd>42</dd>",
    ] {
        assert!(text.contains(said), "{said} is missing");
    }
    assert_eq!(text.matches("<svg").count(), 4);
}

#[test]
fn a_page_loads_nothing() {
    let text = page(&summary("", &EMOTIONS), &lines(100));
    for loads in ["http:", "https:", "src=", "href=", "url(", "@import", "<script", "<link"] {
        assert!(!text.contains(loads), "{loads}");
    }
}

#[test]
fn names_are_text_and_never_markup() {
    const NAME: &str = "</style></title><script>alert(\"&'</script>";
    let text = page(
        &summary(NAME, &["a", NAME, "<b>", "\" onload=\"x"]),
        &[
            json!({"event": "evaluation", "step": 1, "task": NAME, "when": "validation", "metrics": {NAME: 0.5}}),
            json!({"event": "evaluation", "step": 1, "task": "other", "when": "validation", "metrics": {NAME: 0.5}}),
        ],
    );
    assert!(text.contains("&lt;script&gt;alert(&quot;&amp;'&lt;/script&gt;"), "{text}");
    assert!(!text.contains("<script") && !text.contains("<b>\"") && !text.contains("\" onload"), "{text}");
    assert_eq!(
        (text.matches("</style>").count(), text.matches("</title>").count()),
        (1, 1 + text.matches("<g class=\"spot\">").count())
    );
}

#[test]
fn numbers_that_are_not_finite_are_said_and_break_nothing() {
    let mut summary = summary("", &["no", "yes"]);
    for result in summary.tasks.values_mut() {
        result.test.metrics = [("pearson", f64::NAN), ("loss", f64::INFINITY)].map(|(k, v)| (k.to_owned(), v)).into();
        result.before = [("pearson", 0.5), ("loss", f64::NEG_INFINITY)].map(|(k, v)| (k.to_owned(), v)).into();
        result.test.report = None;
        result.test.confusion.clear();
    }
    summary.train = Trained { loss: f64::NAN, ..Trained::default() };
    summary.parameters = Parameters { trainable: 0, total: 0 };
    summary.plan.trainable_parameters = 0;
    summary.plan.memory = Memory { weights: 0, training: 0, plugins: 0, activations: 0, data: 0 };
    let lines: Vec<Value> = (1..10)
        .map(|step| json!({"event": "step", "step": step, "loss": f64::NAN, "lr": 1e308, "gradient_norm": -1e308}))
        .collect();
    let text = page(&summary, &lines);
    assert!(text.contains("not a number") && text.contains("∞"), "{text}");
    assert!(!text.contains("NaN") && !text.contains("inf\"") && !text.contains("inf "), "{text}");
}

#[test]
fn a_run_without_tests_plugins_or_steps_has_a_page() {
    let mut summary = summary("", &[]);
    summary.tasks = [("t".to_owned(), TaskResult::default())].into();
    summary.plugins.clear();
    summary.plan.matches.clear();
    summary.folder = "/".into();
    let text = page(&summary, &[]);
    assert!(text.contains("<h1>/</h1>") && text.contains("The task has no test data."), "{text}");
    assert!(!text.contains("<svg"), "{text}");
}

#[test]
fn the_page_of_a_long_run_stays_small() {
    let text = page(&summary("", &EMOTIONS), &lines(100_000));
    leave("long.html", &text);
    assert!(text.len() < 300_000, "{} bytes", text.len());
}

/// A summary whose only task came to something else.
fn with(change: impl FnOnce(&mut Summary, &mut TaskResult)) -> Summary {
    let mut summary = summary("", &EMOTIONS);
    let (name, mut result) = summary.tasks.pop_first().unwrap();
    change(&mut summary, &mut result);
    summary.tasks.insert(name, result);
    summary
}

#[test]
fn calibration_files_and_the_worst_examples_are_shown() {
    let summary = with(|summary, result| {
        let bin = |i: u32| Bin {
            from: f64::from(i) / 15.0,
            to: f64::from(i + 1) / 15.0,
            examples: u64::from(i) * 7,
            confidence: (f64::from(i) + 0.6) / 15.0,
            accuracy: (f64::from(i) + 0.6) / 15.0 - 0.08,
        };
        result.test.reliability = (4..15).map(bin).collect();
        let worst = |example: usize, word: Option<&str>| Worst {
            picture: None,
            place: 0,
            example,
            text: "we loved it, <but> the plot is boring and the actor is not ".repeat(example),
            word: word.map(str::to_owned),
            target: "joy".into(),
            prediction: "anger".into(),
            loss: 4.0 / example as f64,
            instead: None,
        };
        result.test.worst = vec![worst(1, None), worst(4, Some("boring"))];
        result.test.undefined = [("roc_auc".to_owned(), "a class has no example".to_owned())].into();
        result.class_counts = vec![700, 300, 900, 100, 50, 20];
        result.calibration = Some(Calibration {
            decision: Decision { temperature: 1.7311, threshold: Some(0.31), ..Decision::default() },
            positive: Some("joy".into()),
            fitted_on: 812,
            without: [("log_loss".to_owned(), 0.4), ("calibration_error".to_owned(), 0.08)].into(),
        });
        result.watch = Some(Watch { best: Some(Best { step: 800, value: 0.93 }), ..Watch::new("accuracy", 0.0, None) });
        let file = |part: &'static str, examples| DataFile {
            task: "sentiment".into(),
            part,
            path: format!("/data/emotions/{part}.tsv").into(),
            examples,
        };
        summary.plan.files = vec![file("train", 2070), file("validation", 812), file("test", 905)];
    });
    let text = page(&summary, &lines(1200));
    leave("calibrated.html", &text);
    for said in [
        "saved model",
        "share that is right",
        "Wrong with the most confidence",
        "&lt;but&gt;",
        "1.83 %",
        "boring",
        "Not defined, because a class has no example: ROC-AUC.",
        "<b>1.7311</b>",
        "is predicted from a probability of",
        "/data/emotions/validation.tsv",
        "812",
        "Training examples by class",
    ] {
        assert!(text.contains(said), "{said} is missing");
    }
}

#[test]
fn what_is_in_the_data_is_shown_with_what_is_suspicious_first() {
    let survey = Survey {
        task: "sentiment".into(),
        suspicious: vec!["2 of 355 test examples are training examples too: results on them say too much".into()],
        parts: vec![PartSurvey {
            part: "training".into(),
            rows: 12_800,
            tokens: Some([3, 21, 128]),
            cut: 7,
            cut_words: 0,
            empty: 0,
            repeated: 9,
            in_training: 0,
            classes_each: None,
            of_none: None,
            majority: Some(0.25),
        }],
        classes: vec![ClassSurvey { name: "joy".into(), counts: vec![3200], first: "a stirring film & more".into() }],
    };
    let page = |data| {
        let summary = with(|summary, result| {
            summary.plan.data = data;
            result.labels = vec!["joy".into(), "fear".into()];
            result.class_counts = vec![3200, 9600];
        });
        page(&summary, &lines(10))
    };
    let text = page(vec![survey]);
    for said in
        ["<p>2 of 355 test", "tokens, median", "7 (0.05 %)", "<th>first example</th>", "a stirring film &amp; more"]
    {
        assert!(text.contains(said), "{said} is missing");
    }
    let without = page(Vec::new());
    assert!(without.contains(">9,600<") && !without.contains("first example"));
}

#[test]
fn values_are_drawn_beside_the_truth_with_what_they_are_off_by() {
    let summary = with(|_, result| {
        let pair = |i: usize| [i as f32 / 80.0, (i as f32 / 80.0).mul_add(0.8, (i as f32 * 12.9).sin() * 0.4)];
        result.test = Report {
            metrics: [("r2", 0.81), ("rmse", 0.3), ("pearson", 0.9)].map(|(k, v)| (k.to_owned(), v)).into(),
            values: (0..400).map(pair).collect(),
            ..Report::default()
        };
        result.before.clear();
        result.labels.clear();
    });
    let text = page(&summary, &lines(300));
    leave("values.html", &text);
    for said in ["Predicted and true values", "Residuals", "predicted less true", "R²"] {
        assert!(text.contains(said), "{said} is missing");
    }
    assert_eq!(text.matches("<circle class=\"dot c0 faint\"").count(), 800);
}

#[test]
fn a_report_of_many_classes_has_a_row_of_its_own() {
    let names: Vec<String> = (0..77).map(|i| format!("balance_not_updated_after_transfer_{i}")).collect();
    let text = page(&summary("", &names.iter().map(String::as_str).collect::<Vec<_>>()), &lines(8));
    leave("many.html", &text);
    assert!(text.contains("<div class=\"whole\"><h3>Classification report"), "the report is beside something");
    assert!(names.iter().all(|name| text.matches(name.as_str()).count() >= 3));
}
