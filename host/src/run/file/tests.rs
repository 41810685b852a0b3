//! What is said of run files that are wrong, and what comes of those that are right.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use fthost_plugin_api::MethodInfo;
use insta::assert_snapshot;
use miette::{GraphicalReportHandler, GraphicalTheme};
use serde_json::json;

use super::*;
use crate::data::Fold;

const GOOD: &str = r#"[model]
path = "minilm"

[[task]]
name = "sentiment"
head = { plugin = "classification", label_smoothing = 0.1 }
train = "sst2/train.tsv"

[[strategy]]
plugin = "lora"
rank = 8
targets = ["query", "value"]
"#;

fn render(error: &Error) -> String {
    let mut text = String::new();
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::none()).with_width(110);
    handler.render_report(&mut text, error).unwrap();
    text.trim().to_owned()
}

/// Errors of several cases, for one snapshot.
#[derive(Default)]
struct Cases(String);

impl Cases {
    fn add(&mut self, name: &str, rendered: String) {
        self.0.push_str(&format!("## {name}\n{rendered}\n\n"));
    }
}

fn parse(text: &str, sets: &[&str]) -> Result<RunFile> {
    let overrides = sets.iter().map(|set| Override::set(set)).collect::<Result<Vec<_>>>()?;
    RunFile::parse(text, Path::new("/jobs/sst2.toml"), &overrides)
}

fn bad(text: &str) -> String {
    render(&parse(text, &[]).unwrap_err())
}

/// The good file with a line more.
fn bad_with(line: &str) -> String {
    bad(&format!("{GOOD}{line}\n"))
}

fn bad_set(set: &str) -> String {
    render(&parse(GOOD, &[set]).unwrap_err())
}

#[test]
fn defaults_are_filled_in() {
    let file = parse(GOOD, &[]).unwrap();
    assert_eq!(
        file.model,
        ModelTable {
            path: "/jobs/minilm".into(),
            named: None,
            streams: Vec::new(),
            init: ModelInit::Pretrained,
            pooling: PoolingKey::Auto,
            normalize: None,
            image: Default::default(),
            quantize: None,
        }
    );
    assert_eq!(file.tasks[0].train, Path::new("/jobs/sst2/train.tsv").into());
    assert_eq!(file.tasks[0].head.config, json!({ "label_smoothing": 0.1 }));
    assert_eq!(
        file.schedules,
        [Method { plugin: "constant".into(), file: None, config: json!({}), stream: None, path: "schedule".into() }]
    );
    assert_eq!(file.strategies[0].path, "strategy[0]");
    assert_eq!((file.train.epochs, file.train.batch_size, file.train.lr), (Some(3), 16, 5e-4));
    assert_eq!(file.train.optimizer, Optimizer::AdamW { betas: [0.9, 0.999], eps: 1e-8 });
    assert_eq!(file.train.weight_decay, 0.01);
    assert_eq!(file.run_folder(), Path::new("runs/sst2"));
}

#[test]
fn the_resolved_file_reads_back_equal() {
    let everything = r#"
[model]
path = "/models/vit"
init = "random"
[[task]]
name = "a"
head = { plugin = "classification", class_weights = [1, 2.5], note = "\"quoted\"\nand more" }
train = "a.csv"
test = "sub/../b.csv"
validation = { good = "c/good.txt", "not so" = "bad.txt" }
columns = { text = "sentence", label = "kind of" }
format = "csv"
separator = "\t"
quote = ""
encoding = "latin-1"
max_tokens = 64
balance = "undersample"
[[task]]
name = "b"
head = { plugin = "regression", inner = { deep = { deeper = true } } }
train = "demo"
split = { column = "part", train = "a", test = "b" }
[[task]]
name = "c"
head = { plugin = "regression" }
train = { text = "t.txt", label = "l.txt" }
test = 0.2
label_separator = "; "
quote = "'"
[[strategy]]
plugin = "freeze"
[[strategy]]
plugin = "lora"
"odd key" = 1
[[regularizer]]
plugin = "l2sp"
alpha = 1e-3
[schedule]
plugin = "step"
milestones = [1, 2]
[train]
epochs = 2
steps = 1_000
batch_size = 0x10
lr = 1
optimizer = "sgd"
momentum = 0.9
nesterov = true
weight_decay = 1e-4
clip_norm = 1.0
precision = "bf16"
seed = 7
dropout = false
evaluate_before = false
threads = 2
[run]
name = "both"
out = "elsewhere/both"
"#;
    for text in [GOOD, everything, DEMO_TEXT] {
        let file = parse(text, &[]).unwrap();
        let again = RunFile::parse(&file.to_toml(), Path::new("/somewhere/else/run.toml"), &[]);
        assert_eq!(again.unwrap(), file, "{}", file.to_toml());
    }
    assert_snapshot!(parse(GOOD, &[]).unwrap().to_toml());
}

/// Plugin and stream of each schedule, and where it stands.
fn schedules(text: &str, sets: &[&str]) -> Vec<String> {
    let file = parse(&format!("{GOOD}{text}"), sets).unwrap();
    let again = RunFile::parse(&file.to_toml(), Path::new("/somewhere/else/run.toml"), &[]).unwrap();
    assert_eq!(again, file, "{}", file.to_toml());
    let listed = file.methods().filter(|(_, kind)| *kind == MethodKind::Scheduler).count();
    assert_eq!(listed, file.schedules.len());
    let said = |of: &Method| format!("{} at {} {}", of.title(), of.path, of.config);
    file.schedules.iter().map(said).collect()
}

#[test]
fn schedules_are_one_for_all_or_one_for_each_stream_and_one_for_the_rest() {
    let of = |plugin: &str, rest: &str| format!("[[schedule]]\nplugin = \"{plugin}\"\n{rest}\n");
    let text = of("cosine", "stream = \"text\"\nwarmup = 0.1");
    let image = of("wsd", "stream = \"image\"");
    let constant = |i: usize| format!("constant at schedule[{i}] {{}}");
    let own = r#"cosine of text at schedule[0] {"warmup":0.1}"#;
    assert_eq!(schedules(&text, &[]), [own, &constant(1)]);
    assert_eq!(schedules(&format!("{text}{image}"), &[]), [own, "wsd of image at schedule[1] {}", &constant(2)]);
    assert_eq!(schedules(&format!("{}{text}", of("linear", "")), &[]).len(), 2, "that of no stream stands first");
    // A single one has one form, in whichever it was written.
    assert_eq!(schedules(&of("linear", ""), &[]), ["linear at schedule {}"]);
    assert_eq!(
        schedules("[schedule]\nplugin = \"linear\"\n", &["schedule.warmup=3"]),
        [r#"linear at schedule {"warmup":3}"#]
    );
    let table = "[schedule]\nplugin = \"cosine\"\nwarmup = 0.1\n";
    assert_eq!(schedules(table, &["schedule.stream=text"]), [own, &constant(1)]);
    assert_eq!(schedules(&text, &["schedule.warmup=0.1"]), [own, &constant(1)], "there is one");
    let set = schedules(&format!("{text}{image}"), &["schedule.1.decay=2"]);
    assert_eq!(set[1], r#"wsd of image at schedule[1] {"decay":2}"#);
}

#[test]
fn the_stream_of_a_strategy_is_none_of_its_options() {
    let both = "[[strategy]]\nplugin = \"lora\"\nstream = \"image\"\ntask_type = \"x\"\n";
    let file = parse(&format!("{GOOD}{both}"), &["strategy.0.stream=text", "strategy.0.task_type=y"]).unwrap();
    assert_eq!(RunFile::parse(&file.to_toml(), Path::new("/x.toml"), &[]).unwrap(), file, "{}", file.to_toml());
    for (strategy, title) in file.strategies.iter().zip(["lora of text", "lora of image"]) {
        assert_eq!(strategy.title(), title);
        assert!(strategy.config.get("stream").is_none());
        file.check_method(strategy, &lora_schema()).unwrap();
    }
    let mut file = parse(&GOOD[..GOOD.find("[[strategy]]").unwrap()], &["strategy.stream=image"]).unwrap();
    let lora = [info(MethodKind::Strategy, "lora")];
    file.choose_strategies(&[Offer { argument: "liblora.so", methods: &lora }]).unwrap();
    assert_eq!((file.strategies[0].title(), &file.strategies[0].config), ("lora of image".into(), &json!({})));

    // A head's option may have that name.
    let head = GOOD.replace("label_smoothing = 0.1", "stream = \"image\"");
    assert_eq!(parse(&head, &[]).unwrap().tasks[0].head.config, json!({ "stream": "image" }));
}

#[test]
fn method_defaults_are_written_where_they_are_known() {
    let mut file = parse(GOOD, &[]).unwrap();
    file.fill_defaults(|_, method| {
        (method.plugin == "lora").then(|| json!({ "rank": 4, "alpha": 16.0, "exclude": null }))
    });
    assert_eq!(file.strategies[0].config, json!({ "rank": 8, "alpha": 16.0, "targets": ["query", "value"] }));
    assert_eq!(RunFile::parse(&file.to_toml(), Path::new("/x.toml"), &[]).unwrap().strategies, file.strategies);
}

#[test]
fn the_demo_reads() {
    let file = RunFile::demo(&[Override::flag("--seed", "train.seed", 7)]).unwrap();
    assert!(file.model.is_demo() && file.strategies.is_empty());
    assert_eq!((file.train.seed, file.run_folder()), (7, PathBuf::from("runs/demo")));
    assert_eq!(file.tasks[0].test, Some(HeldOut::Files(Path::new("demo").into())));
}

#[test]
fn a_fold_reads_back_and_stays_held_out_where_the_test_is_hidden() {
    let text = GOOD.replace("train =", "test = { fold = 2, of = 5 }\nvalidation = 0.1\ntrain =");
    let file = parse(&text, &[]).unwrap();
    let fold = Drawn::Fold(Fold { fold: 2, of: 5 });
    assert_eq!(file.tasks[0].test, Some(HeldOut::Drawn(fold)));
    let back = |file: &RunFile| RunFile::parse(&file.to_toml(), Path::new("/x.toml"), &[]).unwrap();
    assert_eq!(back(&file).tasks, file.tasks);
    let mut hidden = file.clone();
    hidden.tasks[0].hide_test();
    assert_eq!((&hidden.tasks[0].test, hidden.tasks[0].set_aside), (&None, Some(fold)));
    assert_eq!(back(&hidden).tasks, hidden.tasks);
    // Whatever was tested, a fold takes its place.
    let split = "split = { column = \"part\", train = \"a\", test = \"b\" }\ntrain =";
    let mut split = parse(&GOOD.replace("train =", split), &[]).unwrap();
    split.tasks[0].test_on(Fold { fold: 2, of: 5 });
    assert_eq!(back(&split).tasks[0].test_drawn(), Some(fold));
    assert_eq!(back(&split).tasks[0].split.as_ref().unwrap().test, None);
}

#[test]
fn overrides_set_values() {
    let check = |sets: &[&str], value: fn(&RunFile) -> Json, expected: Json| {
        assert_eq!(value(&parse(GOOD, sets).unwrap()), expected, "{sets:?}");
    };
    check(&["train.lr=1e-3"], |f| json!(f.train.lr), json!(1e-3));
    check(&["train.lr = 2"], |f| json!(f.train.lr), json!(2.0));
    check(&["train.lr=1", "train.lr=3"], |f| json!(f.train.lr), json!(3.0));
    check(&["strategy.rank=4"], |f| f.strategies[0].config["rank"].clone(), json!(4));
    check(&["strategy.0.rank=4"], |f| f.strategies[0].config["rank"].clone(), json!(4));
    check(&["strategy.targets.1=key"], |f| f.strategies[0].config["targets"].clone(), json!(["query", "key"]));
    check(&["strategy.targets=[\"key\"]"], |f| f.strategies[0].config["targets"].clone(), json!(["key"]));
    check(&["task.train=/data/x.tsv"], |f| json!(f.tasks[0].train), json!("/data/x.tsv"));
    check(&["task.columns.text=a=b"], |f| json!(f.tasks[0].form.columns.text), json!("a=b"));
    check(&["task.head.label_smoothing=0.2"], |f| f.tasks[0].head.config["label_smoothing"].clone(), json!(0.2));
    check(
        &["schedule.plugin=cosine", "schedule.warmup=0.1"],
        |f| f.schedules[0].config.clone(),
        json!({ "warmup": 0.1 }),
    );
    check(&["regularizer.plugin=l2sp"], |f| json!(f.regularizers[0].method.plugin), json!("l2sp"));
    check(&["run.name=other"], |f| json!(f.run_folder()), json!("runs/other"));
}

#[test]
fn tables_that_are_wrong() {
    let mut cases = Cases::default();
    cases.add("syntax", bad("[model]\npath = \"minilm\nname = 3\n"));
    cases.add("duplicate_key", bad_with("rank = 4"));
    cases.add("no_model", bad("[[task]]\nhead = { plugin = \"classification\" }\ntrain = \"a.tsv\"\n"));
    cases.add("no_task", bad("[model]\npath = \"minilm\"\n"));
    cases.add("empty_task", bad("task = []\n[model]\npath = \"minilm\"\n"));
    cases.add("no_path", bad("[model]\n[[task]]\nhead = { plugin = \"c\" }\ntrain = \"a.tsv\"\n"));
    cases.add("no_head", bad("[model]\npath = \"m\"\n[[task]]\ntrain = \"a.tsv\"\n"));
    cases.add("no_train", bad("[model]\npath = \"m\"\n[[task]]\nhead = { plugin = \"c\" }\n"));
    cases.add("head_without_plugin", bad("[model]\npath = \"m\"\n[[task]]\nhead = { rank = 1 }\ntrain = \"a\"\n"));
    cases.add("head_is_a_string", bad("[model]\npath = \"m\"\n[[task]]\nhead = \"classification\"\ntrain = \"a\"\n"));
    cases.add("unknown_table", bad_with("[trian]\nlr = 1"));
    cases.add("strategy_is_no_list",
        bad(
            "[model]\npath = \"m\"\n[strategy]\nplugin = \"lora\"\n[[task]]\nhead = { plugin = \"c\" }\ntrain = \"a\"\n"
        )
    );
    cases.add("strategy_without_plugin", bad_with("[[strategy]]\nrank = 3"));
    cases.add("schedule_without_plugin", bad_with("[schedule]\nwarmup = 0.1"));
    let schedule = |stream: &str| format!("[[schedule]]\nplugin = \"cosine\"\n{stream}");
    cases.add("schedules_without_plugin", bad_with("[[schedule]]\nstream = \"text\""));
    cases.add("schedules_of_one_stream", bad_with(&["stream = \"text\"\n"; 2].map(schedule).concat()));
    cases.add("schedules_of_no_stream", bad_with(&["", "stream = \"text\"\n", ""].map(schedule).concat()));
    cases.add("schedule_of_a_number", bad_with("[schedule]\nplugin = \"cosine\"\nstream = 1"));
    cases.add("no_schedules", bad(&format!("schedule = []\n{GOOD}")));
    cases.add("strategy_of_a_number", bad_with("[[strategy]]\nplugin = \"lora\"\nstream = 1"));
    cases.add("validation", bad(&GOOD.replace("train =", "validation = 1.5\ntrain =")));
    let test = |test: &str| bad(&GOOD.replace("train =", &format!("test = {test}\ntrain =")));
    cases.add("fold_beyond_the_last", test("{ fold = 6, of = 5 }"));
    cases.add("fold_zero", test("{ fold = 0, of = 5 }"));
    cases.add("one_fold", test("{ fold = 1, of = 1 }"));
    cases.add("fold_of_nothing", test("{ fold = 1 }"));
    cases.add("fold_misspelt", test("{ fold = 1, off = 5 }"));
    cases.add("fold_of_validation", bad(&GOOD.replace("train =", "validation = { fold = 1, of = 5 }\ntrain =")));
    cases.add("fold_beside_set_aside", test("{ fold = 1, of = 5 }\nset_aside = 0.1"));
    cases.add(
        "set_aside_fold_beyond_the_last",
        bad(&GOOD.replace("train =", "set_aside = { fold = 3, of = 2 }\ntrain =")),
    );
    cases.add("folds_and_validation_take_all", test("{ fold = 1, of = 2 }\nvalidation = 0.5"));
    cases.add("test_file_that_is_a_number", test("{ good = \"a.txt\", bad = 3 }"));
    cases.add("columns", bad(&GOOD.replace("train =", "columns = { txt = \"a\" }\ntrain =")));
    cases.add("max_tokens", bad(&GOOD.replace("train =", "max_tokens = 0\ntrain =")));
    cases.add("samples", bad(&GOOD.replace("train =", "samples = 1001\nvalidation = 0.1\ntrain =")));
    cases.add("samples_without_validation", bad(&GOOD.replace("train =", "samples = 2\ntrain =")));
    cases.add("label_separator", bad(&GOOD.replace("train =", "label_separator = \"\"\ntrain =")));
    cases.add("balance", bad(&GOOD.replace("train =", "balance = \"oversampled\"\ntrain =")));
    cases.add("task_without_name", bad_with("[[task]]\nhead = { plugin = \"c\" }\ntrain = \"b\""));
    cases.add("task_names", bad_with("[[task]]\nname = \"sentiment\"\nhead = { plugin = \"c\" }\ntrain = \"b\""));
    cases.add("task_name_with_dot", bad(&GOOD.replace("sentiment", "a.b")));
    cases.add("init", bad(&GOOD.replace("path = \"minilm\"", "path = \"minilm\"\ninit = \"pretained\"")));
    cases.add("empty_path", bad(&GOOD.replace("minilm", "")));
    cases.add("run_name", bad_with("[run]\nname = \"a/b\""));
    assert_snapshot!(cases.0);
}

#[test]
fn train_settings_that_are_wrong() {
    let mut cases = Cases::default();
    let train = |line: &str| bad_with(&format!("\n[train]\nseed = 1\n{line}"));
    cases.add("unknown_key", train("learning_rate = 1e-3\nlrr = 1"));
    cases.add("near_key", train("batchsize = 8"));
    cases.add("lr_zero", train("lr = 0"));
    cases.add("lr_negative", train("lr = -1e-3"));
    cases.add("lr_infinite", train("lr = inf"));
    cases.add("lr_string", train("lr = \"5e-4\""));
    cases.add("batch_size_zero", train("batch_size = 0"));
    cases.add("batch_size_float", train("batch_size = 16.0"));
    cases.add("epochs_zero", train("epochs = 0"));
    cases.add("epochs_date", train("epochs = 2024-01-01"));
    cases.add("too_large", train("steps = 99999999999999999999"));
    cases.add("seed_negative", bad_with("[train]\nseed = -1"));
    cases.add("clip_norm_zero", train("clip_norm = 0.0"));
    cases.add("precision", train("precision = \"fp16\""));
    cases.add("threshold_range", train("threshold = 1.0"));
    cases.add("threshold_word", train("threshold = \"f2\""));
    cases.add("threshold_without_validation", train("threshold = \"f1\""));
    cases.add("calibrate_without_validation", train("calibrate = true"));
    cases.add("calibrate_number", train("calibrate = 1"));
    cases.add("optimizer", train("optimizer = \"adamW\""));
    cases.add("dropout_number", train("dropout = 0.1"));
    cases.add("betas_one", train("betas = [0.9]"));
    cases.add("betas_range", train("betas = [0.9, 1.0]"));
    cases.add("momentum_of_adamw", train("momentum = 0.9"));
    cases.add("betas_of_sgd", train("optimizer = \"sgd\"\nbetas = [0.9, 0.99]"));
    cases.add("nesterov", train("optimizer = \"sgd\"\nnesterov = true"));
    cases.add("train_is_a_list", bad_with("[[train]]\nlr = 1"));
    assert_snapshot!(cases.0);
}

#[test]
fn overrides_that_are_wrong() {
    let mut cases = Cases::default();
    cases.add("set_no_value", bad_set("train.lr"));
    cases.add("set_no_key", bad_set("=3"));
    cases.add("set_empty_part", bad_set("train..lr=3"));
    cases.add("set_unknown", bad_set("train.lrr=3"));
    cases.add("set_unknown_table", bad_set("trian.lr=3"));
    cases.add("set_range", bad_set("train.lr=0"));
    cases.add("set_type", bad_set("train.lr=1e-"));
    cases.add("set_index", bad_set("strategy.1.rank=3"));
    cases.add("set_inside_value", bad_set("train.lr.x=3"));
    cases.add("set_schedule", bad_set("schedule.warmup=0.1"));
    let two = format!("{GOOD}[[strategy]]\nplugin = \"freeze\"\n");
    let schedules = format!("{GOOD}[[schedule]]\nplugin = \"a\"\n[[schedule]]\nplugin = \"b\"\nstream = \"text\"\n");
    cases.add("set_ambiguous_schedule", render(&parse(&schedules, &["schedule.warmup=3"]).unwrap_err()));
    cases.add("set_ambiguous", render(&parse(&two, &["strategy.rank=3"]).unwrap_err()));
    let flag = Override::flag("--threads", "train.threads", 0);
    cases.add("flag_range", render(&RunFile::demo(&[flag]).unwrap_err()));
    assert_snapshot!(cases.0);
}

/// The schema that schemars writes for LoRA, with an option that must be given and an enum with contents.
fn lora_schema() -> Json {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["task_type"],
        "properties": {
            "rank": { "type": "integer", "format": "uint", "minimum": 1, "description": "Rank of the update." },
            "alpha": { "type": "number", "format": "double" },
            "dropout": { "type": "number", "minimum": 0, "maximum": 1 },
            "scaling": { "oneOf": [
                { "type": "string", "const": "alpha_over_r", "description": "alpha / rank" },
                { "type": "string", "const": "rslora" },
            ] },
            "targets": { "$ref": "#/$defs/Targets" },
            "exclude": { "anyOf": [{ "$ref": "#/$defs/Targets" }, { "type": "null" }] },
            "seed": { "type": ["integer", "null"], "minimum": 0 },
            "init": { "oneOf": [
                { "type": "object", "required": ["kind", "std"],
                  "properties": { "kind": { "const": "normal" }, "std": { "type": "number", "exclusiveMinimum": 0 } } },
                { "type": "object", "required": ["kind"], "properties": { "kind": { "const": "zeros" } } },
            ] },
            "scales": { "type": "object", "additionalProperties": { "type": "number" } },
            "task_type": { "type": "string", "description": "What PEFT calls the task." },
        },
        "$defs": {
            "Targets": { "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] }
        },
    })
}

fn check_options(options: &str, sets: &[&str]) -> Result<()> {
    let text = format!("{}[[strategy]]\nplugin = \"lora\"\n{options}\n", &GOOD[..GOOD.find("[[strategy]]").unwrap()]);
    let file = parse(&text, sets).unwrap();
    file.check_method(&file.strategies[0], &lora_schema())
}

#[test]
fn options_that_fit() {
    for options in [
        "task_type = \"x\"",
        "task_type = \"x\"\nrank = 4\nalpha = 16\ndropout = 0\nscaling = \"rslora\"\ntargets = \".*query\"",
        "task_type = \"x\"\nexclude = [\"query\"]\nseed = 3\ninit = { kind = \"normal\", std = 0.1 }\nscales = { a = 1 }",
        "task_type = \"x\"\ninit = { kind = \"zeros\" }",
    ] {
        check_options(options, &[]).unwrap();
    }
}

#[test]
fn options_that_do_not_fit() {
    let mut cases = Cases::default();
    let option = |line: &str| render(&check_options(&format!("task_type = \"x\"\n{line}"), &[]).unwrap_err());
    cases.add("option_unknown", option("rnak = 4"));
    cases.add("option_missing", render(&check_options("rank = 3", &[]).unwrap_err()));
    cases.add("option_range", option("rank = 0"));
    cases.add("option_both_ends", option("dropout = 1.5"));
    cases.add("option_nan", option("alpha = nan"));
    cases.add("option_type", option("rank = \"8\""));
    cases.add("option_float", option("rank = 8.0"));
    cases.add("option_choice", option("scaling = \"rs_lora\""));
    cases.add("option_untagged", option("targets = 3"));
    cases.add("option_item", option("targets = [\"query\", 3]"));
    cases.add("option_nullable", option("exclude = true"));
    cases.add("option_tagged", option("init = { kind = \"normal\", std = 0 }"));
    cases.add("option_tag", option("init = { kind = \"zeroes\" }"));
    cases.add("option_map", option("scales = { a = \"x\" }"));
    cases.add("option_set", render(&check_options("task_type = \"x\"", &["strategy.rank=-1"]).unwrap_err()));
    assert_snapshot!(cases.0);
}

#[test]
fn options_are_listed() {
    let info = MethodInfo {
        kind: MethodKind::Strategy,
        name: "lora".into(),
        summary: String::new(),
        config_schema: lora_schema(),
        config_default: json!({ "rank": 8, "seed": null }),
        serves: String::new(),
    };
    let lines = options_of(&info).into_iter().map(|o| {
        let default = o.default.map_or("-".into(), |default| default.to_string());
        format!("{} | {} | {default} | {}", o.name, o.takes, o.description)
    });
    assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
}

#[test]
fn errors_of_plugins_get_a_place() {
    let mut cases = Cases::default();
    let file = parse(GOOD, &[]).unwrap();
    let error = Error::plugin("lora: attach: no site matches \"query\"");
    cases.add("at_method", render(&file.at_method(&file.strategies[0], error)));
    let error = Error::plugin("there is no task head \"classification\"").with_help("looked in /opt");
    cases.add("plugin_not_found", render(&file.plugin_not_found(&file.tasks[0].head, error)));
    let error = Error::plugin("there is no scheduler \"constant\"");
    cases.add("default_not_found", render(&file.plugin_not_found(&file.schedules[0], error)));
    assert_snapshot!(cases.0);
}

fn info(kind: MethodKind, name: &str) -> MethodInfo {
    let (config_schema, config_default) = (json!({}), json!({}));
    MethodInfo { kind, name: name.into(), summary: String::new(), config_schema, config_default, serves: String::new() }
}

/// The strategies that a file with `named` has after the plugins' offers.
fn choose(named: &[&str], sets: &[&str], arguments: &[&str]) -> Result<Vec<String>> {
    let mut text = GOOD[..GOOD.find("[[strategy]]").unwrap()].to_owned();
    for name in named {
        text.push_str(&format!("[[strategy]]\nplugin = \"{name}\"\n"));
    }
    let lora = [info(MethodKind::Strategy, "lora")];
    let both = [info(MethodKind::Strategy, "houlsby"), info(MethodKind::Strategy, "pfeiffer")];
    let cosine = [info(MethodKind::Scheduler, "cosine")];
    let offers: Vec<Offer<'_>> = arguments
        .iter()
        .map(|argument| {
            let methods = match split_argument(argument).0 {
                "liblora.so" => &lora[..],
                "libadapter.so" => &both[..],
                _ => &cosine[..],
            };
            Offer { argument, methods }
        })
        .collect();
    let mut file = parse(&text, sets)?;
    file.choose_strategies(&offers)?;
    for method in &file.strategies {
        // Every strategy has a place, so that its errors have one.
        assert_eq!(file.document.find(&method.path).unwrap().child("plugin").unwrap().to_json(), json!(method.plugin));
    }
    Ok(file.strategies.iter().map(|m| format!("{} {}", m.plugin, m.config)).collect())
}

#[test]
fn plugins_choose_or_add_strategies() {
    let check = |named: &[&str], sets: &[&str], arguments: &[&str], expected: &[&str]| {
        assert_eq!(choose(named, sets, arguments).unwrap(), expected, "{named:?} {sets:?} {arguments:?}");
    };
    check(&[], &[], &["liblora.so"], &["lora {}"]);
    check(&[], &[], &["liblora.so", "liblora.so"], &["lora {}"]);
    check(&[], &[], &["liblora.so", "libcosine.so"], &["lora {}"]);
    check(&[], &[], &["liblora.so", "libadapter.so#pfeiffer"], &["lora {}", "pfeiffer {}"]);
    check(&[], &["strategy.rank=2"], &["liblora.so"], &["lora {\"rank\":2}"]);
    check(&[], &["strategy.plugin=lora", "strategy.rank=2"], &[], &["lora {\"rank\":2}"]);
    check(&["lora"], &[], &[], &["lora {}"]);
    check(&["lora"], &[], &["liblora.so"], &["lora {}"]);
    check(&["lora"], &["strategy.rank=2"], &["liblora.so"], &["lora {\"rank\":2}"]);
    check(&["full"], &[], &["liblora.so"], &["full {}", "lora {}"]);
    check(&["pfeiffer"], &[], &["libadapter.so"], &["pfeiffer {}"]);
    check(&["pfeiffer"], &[], &["libadapter.so#houlsby"], &["pfeiffer {}", "houlsby {}"]);
}

#[test]
fn plugins_that_choose_nothing() {
    let mut cases = Cases::default();
    let bad = |named: &[&str], sets: &[&str], arguments: &[&str]| render(&choose(named, sets, arguments).unwrap_err());
    cases.add("choose_none", bad(&[], &[], &[]));
    cases.add("choose_no_strategy", bad(&[], &[], &["libcosine.so"]));
    cases.add("choose_several", bad(&[], &[], &["libadapter.so"]));
    cases.add("choose_several_to_add", bad(&["lora"], &[], &["libadapter.so"]));
    cases.add("choose_unknown", bad(&[], &[], &["libadapter.so#pfeifer"]));
    cases.add("choose_options_only", bad(&[], &["strategy.rank=2"], &["libcosine.so"]));
    assert_snapshot!(cases.0);
}

#[test]
fn keys_that_would_do_nothing_are_refused_at_their_line() {
    let check = |text: &str, line: usize, expected: &str| {
        let said = bad(text);
        assert!(said.contains(expected), "{text}: no {expected:?} in {said}");
        assert!(said.contains(&format!("sst2.toml:{line}:")), "{text}: not line {line} in {said}");
    };
    let train = |lines: &str| format!("{GOOD}[train]\n{lines}\n");
    check(&train("evaluate_before = true"), 14, "train.evaluate_before does nothing here");
    check(&train("lr = 1\nweight_decay = 0\ndecay_biases_and_norms = true"), 16, "there is no weight decay");
    check(&train("optimizer = \"sgd\"\ndecay_biases_and_norms = true"), 15, "there is no weight decay");
    let watched = |lines: &str| train(lines).replace("train = ", "validation = 0.2\ntrain = ");
    check(&watched("min_delta = 0.1"), 15, "set train.patience");
    check(&watched("min_delta = 0.1").replace("min_delta", "patience = 2\nmin_dleta"), 16, "unknown key");
    parse(&watched("patience = 2\nmin_delta = 0.1"), &[]).unwrap();

    // The embedded model.
    let demo = GOOD.replace("minilm", "demo");
    check(&demo.replace("\"demo\"", "\"demo\"\ninit = \"random\""), 3, "model.init does nothing here");
    check(&demo.replace("train = ", "max_tokens = 64\ntrain = "), 7, "the embedded model reads images");
    check(&demo.replace("train = ", "columns = { text = \"a\" }\ntrain = "), 7, "the embedded model reads images");

    // A monitored task that nothing watches, and one that nothing monitors.
    let other = "[[task]]\nname = \"other\"\nhead = { plugin = \"c\" }\ntrain = \"b\"\n";
    let two = |lines: &str, more: &str| {
        format!("{}{other}{more}[train]\n{lines}\n", GOOD.replace("train = ", "validation = 0.2\ntrain = "))
    };
    parse(&two("monitor = \"sentiment.accuracy\"", "validation = 0.2\n"), &[]).unwrap();
    check(&two("monitor = \"other.accuracy\"", ""), 19, "other, which has no validation examples");
    let sequence = "tasks = \"sequence\"\nmonitor = \"sentiment.accuracy\"";
    parse(&two(sequence, ""), &[]).unwrap();
    check(&two(sequence, "validation = 0.2\n"), 21, "the validation examples of other would do nothing");
}

#[test]
fn a_run_folders_own_copy_is_read_whatever_an_earlier_version_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    let text = format!("{GOOD}[train]\nmin_delta = 0.1\n").replace("train = ", "validation = 0.2\ntrain = ");
    std::fs::write(&path, &text).unwrap();
    assert!(RunFile::load(&path, &[]).is_err());
    assert_eq!(RunFile::reopen(&path, &[]).unwrap().train.min_delta, 0.1);
}
