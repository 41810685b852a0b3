//! Tables and calls of other lengths than ours, functions that are null, several streams: a plugin written by hand, as in C.

#![allow(clippy::needless_update, reason = "a later minor appends fields")]

use std::cell::RefCell;
use std::ffi::c_void;

use fthost_plugin_api::abi::borrow::collect_text;
use fthost_plugin_api::abi::calls::{self, HeadCall, HookCall};
use fthost_plugin_api::abi::growth::{Field, Grows, Theirs};
use fthost_plugin_api::abi::tables::{
    BaseVtable, HookVtable, HostApi, Instance, OK, PluginApi, SchedulerVtable, Slice, Status, Str, StrategyVtable,
    TaskHeadVtable, TextSink, hook_kind, kind, minor_0,
};
use fthost_plugin_api::{Evaluation, FeatureKind, field};

use super::*;

thread_local! {
    /// What the plugin was told, in its own words.
    static HEARD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn heard() -> Vec<String> {
    HEARD.take()
}

fn hear(text: String) {
    HEARD.with_borrow_mut(|heard| heard.push(text));
}

fn host() -> Theirs<'static, HostApi> {
    Theirs::ours(&bridge::host_api::HOST_API)
}

unsafe extern "C" fn describe(sink: TextSink) -> Status {
    let kinds = ["strategy", "scheduler", "task_head"].map(|kind| (kind, "raw"));
    let wrong =
        [("scheduler", "raw-short"), ("strategy", "raw-idle"), ("scheduler", "raw-idle"), ("task_head", "raw-idle")];
    let heads = ["attach", "forward", "loss", "predict"].map(|name| ("task_head", name));
    let methods: Vec<_> = [&kinds[..], &wrong, &heads]
        .concat()
        .into_iter()
        .map(|(kind, name)| json!({ "kind": kind, "name": name, "summary": "", "config_schema": {}, "config_default": {} }))
        .collect();
    let info = json!({ "name": "raw", "version": "1", "license": "MIT", "methods": methods });
    unsafe { sink.put(&info.to_string()) };
    OK
}

unsafe extern "C" fn create(kind: u32, name: Str, _: Str, out: *mut Instance) -> Status {
    let vtable: *const c_void = match (kind, unsafe { name.as_str() }.unwrap()) {
        (kind::STRATEGY, "raw") => (&raw const STRATEGY).cast(),
        (kind::STRATEGY, _) => (&raw const IDLE_STRATEGY).cast(),
        (kind::SCHEDULER, "raw") => (&raw const SCHEDULER).cast(),
        (kind::SCHEDULER, "raw-short") => (&raw const SHORT).cast(),
        (kind::SCHEDULER, _) => (&raw const IDLE_SCHEDULER).cast(),
        (_, "raw") => (&raw const HEAD).cast(),
        (_, "attach") => (&raw const HEADS[0]).cast(),
        (_, "forward") => (&raw const HEADS[1]).cast(),
        (_, "loss") => (&raw const HEADS[2]).cast(),
        (_, "predict") => (&raw const HEADS[3]).cast(),
        _ => std::ptr::null(),
    };
    unsafe { out.write(Instance { data: std::ptr::null_mut(), vtable }) };
    OK
}

static API: PluginApi = PluginApi { abi_major: 1, describe: Some(describe), create: Some(create), ..PluginApi::EMPTY };

pub(super) fn raw() -> Plugin {
    Plugin::describe("raw".into(), String::new(), Theirs::ours(&API)).unwrap()
}

/// A table as a newer side makes it, with more behind what we know.
#[repr(C)]
struct Longer<T> {
    table: T,
    more: [u64; 2],
}

const fn base(struct_size: usize) -> BaseVtable {
    BaseVtable { struct_size: struct_size as u32, ..BaseVtable::EMPTY }
}

static SCHEDULER: Longer<SchedulerVtable> = Longer {
    table: SchedulerVtable {
        base: base(size_of::<Longer<SchedulerVtable>>()),
        rate: Some(rate),
        on_evaluation: Some(on_evaluation),
        ..SchedulerVtable::EMPTY
    },
    more: [u64::MAX; 2],
};

static IDLE_STRATEGY: StrategyVtable =
    StrategyVtable { base: dropped(minor_0::STRATEGY_VTABLE as usize), ..StrategyVtable::EMPTY };
static IDLE_SCHEDULER: SchedulerVtable =
    SchedulerVtable { base: dropped(minor_0::SCHEDULER_VTABLE as usize), ..SchedulerVtable::EMPTY };

/// Heads that lack one function each.
static HEADS: [TaskHeadVtable; 4] = {
    const WHOLE: TaskHeadVtable = TaskHeadVtable {
        base: dropped(minor_0::TASK_HEAD_VTABLE as usize),
        attach: Some(attach_head),
        forward: Some(forward),
        loss: Some(loss),
        predict: Some(forward),
        ..TaskHeadVtable::EMPTY
    };
    [
        TaskHeadVtable { attach: None, ..WHOLE },
        TaskHeadVtable { forward: None, ..WHOLE },
        TaskHeadVtable { loss: None, ..WHOLE },
        TaskHeadVtable { predict: None, ..WHOLE },
    ]
};

/// The common part of a table that hears when its instance is dropped.
const fn dropped(struct_size: usize) -> BaseVtable {
    BaseVtable { drop: Some(on_drop), ..base(struct_size) }
}

unsafe extern "C" fn on_drop(_: *mut c_void) {
    hear("dropped".to_owned());
}

static SHORT: SchedulerVtable = SchedulerVtable { base: base(48), ..SchedulerVtable::EMPTY };

unsafe extern "C" fn rate(
    _: *const c_void,
    progress: *const calls::Progress,
    group: *const calls::Group,
    out: *mut calls::Rate,
) -> Status {
    unsafe {
        let (progress, group) = (Theirs::new(progress).unwrap(), Theirs::new(group).unwrap());
        let text = |field: Field<calls::Group, Str>| group.get(field).as_str().unwrap();
        let (name, stream) = (text(field!(calls::Group, name)), text(field!(calls::Group, stream)));
        let (step, number) = (progress.get(field!(calls::Progress, step)), group.get(field!(calls::Group, number)));
        hear(format!("step {step}: group {number} {name:?} of {stream:?}"));
        (*out).lr = group.get(field!(calls::Group, lr)) / 2.0;
    }
    OK // the momentum stays as the host has set it
}

unsafe extern "C" fn on_evaluation(
    _: *mut c_void,
    _: *const calls::Progress,
    evaluation: *const calls::Evaluation,
) -> Status {
    unsafe {
        let evaluation = Theirs::new(evaluation).unwrap();
        let text = |field: Field<calls::Evaluation, Str>| evaluation.get(field).as_str().unwrap();
        let (metric, task) = (text(field!(calls::Evaluation, metric)), text(field!(calls::Evaluation, task)));
        let value = evaluation.get(field!(calls::Evaluation, value));
        hear(format!("{task}: {metric} {value}, {}", evaluation.get(field!(calls::Evaluation, higher_is_better))));
    }
    OK
}

#[test]
fn a_schedule_by_hand_knows_group_and_metric() {
    let mut scheduler = SchedulerInstance::create(&raw(), "raw", &json!({})).unwrap();
    let progress = Progress { step: 3, total_steps: 10, steps_per_epoch: 5 };
    let group = Group { name: "layer.1", number: 2, stream: "image", lr: 0.5, momentum: 0.9 };
    assert_eq!(scheduler.rate(&progress, &group).unwrap(), Rate { lr: 0.25, momentum: 0.9 });
    let evaluation = Evaluation { value: 0.5, metric: "accuracy", higher_is_better: true, task: "mood" };
    scheduler.on_evaluation(&progress, &evaluation).unwrap();
    assert_eq!(heard(), [r#"step 3: group 2 "layer.1" of "image""#, "mood: accuracy 0.5, 1"]);
    // Null functions: it has no state.
    assert!(scheduler.save().unwrap().is_empty());
    scheduler.load(&State::default()).unwrap();
}

#[test]
fn a_table_shorter_than_at_minor_0_is_refused() {
    let text = message(SchedulerInstance::create(&raw(), "raw-short", &json!({})));
    assert!(text.ends_with("its SchedulerVtable has 48 bytes where plugin ABI 1.0 has 56"), "{text}");
}

static HEAD: TaskHeadVtable = TaskHeadVtable {
    base: base(minor_0::TASK_HEAD_VTABLE as usize),
    attach: Some(attach_head),
    forward: Some(forward),
    loss: Some(loss),
    predict: Some(forward),
    ..TaskHeadVtable::EMPTY
};

unsafe extern "C" fn attach_head(_: *mut c_void, task: Str, spec: TextSink) -> Status {
    let task: TaskInfo = serde_json::from_str(unsafe { task.as_str() }.unwrap()).unwrap();
    let streams: Vec<_> =
        task.labels.iter().map(|stream| json!({ "stream": stream, "features": "sequence" })).collect();
    let json = json!({
        "features": "pooled", "targets": "class", "scope": "example", "predictions": "classes", "streams": streams
    });
    unsafe { spec.put(&json.to_string()) };
    OK
}

/// Gives the last stream's features back, and says what came.
unsafe extern "C" fn forward(_: *const c_void, call: *const HeadCall) -> Status {
    unsafe {
        let call = Theirs::new(call).unwrap();
        let tensors = call.get(field!(HeadCall, tensors)).as_slice();
        let offsets = call.get(field!(HeadCall, offsets));
        let offsets: Vec<&[u32]> = offsets.as_slice().iter().map(|offsets: &Slice<u32>| offsets.as_slice()).collect();
        hear(format!("{} tensors, offsets {offsets:?}", tensors.len()));
        call.get(field!(HeadCall, outputs)).as_mut_slice()[0] = *tensors.last().unwrap();
    }
    OK
}

/// The outputs are the sum, and the targets the weight.
unsafe extern "C" fn loss(_: *const c_void, call: *const HeadCall) -> Status {
    unsafe {
        let call = Theirs::new(call).unwrap();
        let outputs = call.get(field!(HeadCall, outputs)).as_mut_slice();
        outputs[0] = call.get(field!(HeadCall, tensors)).as_slice()[0];
        outputs[1] = call.get(field!(HeadCall, targets)).as_slice()[0];
    }
    OK
}

pub(super) fn task(streams: &[&str]) -> TaskInfo {
    let labels: Vec<String> = streams.iter().map(ToString::to_string).collect();
    let class_counts = vec![1; labels.len()];
    TaskInfo {
        name: "pair".into(),
        labels,
        class_counts,
        examples: 0,
        width: 2,
        streams: Vec::new(),
        hidden_activation: None,
        bias: true,
        dropout: 0.0,
        image: None,
        vocabulary: None,
        comparison: None,
        sequences: 1,
    }
}

#[test]
fn a_head_by_hand_reads_several_streams() {
    let mut model = model();
    let create = || HeadInstance::create(&raw(), "raw", &json!({})).unwrap();
    let spec = create().attach(&task(&["text"]), &mut model, 0).unwrap();
    assert_eq!(spec.features, FeatureKind::Sequence, "what it says of the one stream");
    let text = message(create().attach(&task(&["text", "smell"]), &mut model, 0));
    assert!(text.ends_with("it reads the stream \"smell\", and this model has \"text\" alone"), "{text}");

    let (head, tape) = (create(), Tape::recording());
    let (a, b) = (Value::constant(tensor(&[1.0; 4], &[2, 2])), Value::constant(tensor(&[2.0; 6], &[3, 2])));
    let layouts = (Layout::single_rows(2), Layout::single_rows(3));
    let outputs = head.forward_streams(&tape, &[(&a, &layouts.0), (&b, &layouts.1)], None).unwrap();
    assert_eq!(outputs.dims(), [3, 2]);
    assert_eq!(heard(), ["2 tensors, offsets [[0, 1, 2], [0, 1, 2, 3]]"]);
}

#[test]
fn a_weight_may_be_a_tensor() {
    let (head, tape) = (HeadInstance::create(&raw(), "raw", &json!({})).unwrap(), Tape::recording());
    let sum = Value::constant(tensor(&[3.0], &[1]));
    let (loss, weight) = head.loss(&tape, &sum, &tensor(&[4.0], &[]), &[]).unwrap();
    assert_eq!((loss.tensor().to_vec1::<f32>().unwrap(), weight), (vec![3.0], 4.0));
    let text = message(head.loss(&tape, &sum, &tensor(&[4.0, 5.0], &[2]), &[]));
    assert!(text.ends_with("the weight of the loss must be a scalar, and this has shape [2]"), "{text}");
}

/// Of what there is, a function that is null is one that the plugin does not offer.
#[test]
fn a_function_that_is_null_is_absent() {
    let head = HeadInstance::create(&raw(), "raw", &json!({})).unwrap();
    let outputs = tensor(&[1.0; 4], &[2, 2]);
    head.fit(&mut model(), &outputs, &outputs).unwrap();
    let strategy = StrategyInstance::create(&raw(), "raw", &json!({})).unwrap();
    assert!(!strategy.starts_at_base().unwrap() && strategy.adapter_config().unwrap().is_none());
    assert!(raw().about().unwrap().is_none());
}

/// What nothing of its kind can do without is asked for when the table is taken, and what was made is dropped again.
#[test]
fn a_function_that_must_be_there_is_missed_by_name_when_its_table_is_taken() {
    let check = |text: String, expected: &str| {
        assert!(text.ends_with(&format!("failed in its options: {expected}")), "{text}");
        assert_eq!(heard(), ["dropped"], "{expected}");
    };
    check(message(StrategyInstance::create(&raw(), "raw-idle", &json!({}))), "its StrategyVtable has no `attach`");
    check(message(SchedulerInstance::create(&raw(), "raw-idle", &json!({}))), "its SchedulerVtable has no `rate`");
    for name in ["attach", "forward", "loss", "predict"] {
        let text = message(HeadInstance::create(&raw(), name, &json!({})));
        check(text, &format!("its TaskHeadVtable has no `{name}`"));
    }
    let text = message(HeadInstance::create(&raw(), "raw-idle", &json!({})));
    assert!(text.ends_with("there is no TaskHeadVtable"), "{text}");
    assert!(heard().is_empty(), "nothing can be done with it");
}

static STRATEGY: StrategyVtable = StrategyVtable {
    base: base(minor_0::STRATEGY_VTABLE as usize),
    attach: Some(attach_strategy),
    ..StrategyVtable::EMPTY
};

/// Sets hooks with tables of all lengths, and says what the host said.
unsafe extern "C" fn attach_strategy(_: *mut c_void) -> Status {
    static WHOLE: HookVtable = HookVtable { forward: Some(hook_forward), ..HookVtable::EMPTY };
    static LONGER: Longer<HookVtable> = Longer {
        table: HookVtable {
            struct_size: size_of::<Longer<HookVtable>>() as u32,
            forward: Some(hook_forward),
            ..HookVtable::EMPTY
        },
        more: [u64::MAX; 2],
    };
    static IDLE: HookVtable = HookVtable::EMPTY;
    static CUT: HookVtable = HookVtable { struct_size: 8, ..HookVtable::EMPTY };
    let hook = host().need(field!(HostApi, hook)).unwrap();
    let site = Str::new("layer.0.dense");
    for vtable in [&raw const WHOLE, (&raw const LONGER).cast(), &raw const IDLE, &raw const CUT, std::ptr::null()] {
        let status = unsafe { hook(site, hook_kind::LINEAR, std::ptr::null_mut(), vtable) };
        let last_error = host().need(field!(HostApi, last_error)).unwrap();
        let said = collect_text(|sink| {
            unsafe { last_error(sink) };
            OK
        });
        hear(if status == OK { "set".to_owned() } else { said.1 });
    }
    OK
}

/// Gives the output back as it is.
unsafe extern "C" fn hook_forward(_: *const c_void, call: *const HookCall) -> Status {
    unsafe {
        let call = Theirs::new(call).unwrap();
        call.get(field!(HookCall, outputs)).as_mut_slice()[0] = call.get(field!(HookCall, inputs)).as_slice()[1];
    }
    OK
}

#[test]
fn hooks_have_tables_of_any_length_from_minor_0_on() {
    let mut model = model();
    let mut strategy = StrategyInstance::create(&raw(), "raw", &json!({})).unwrap();
    strategy.attach(&mut model, 0).unwrap();
    let expected = [
        "set",
        "set",
        "its HookVtable has no `forward`",
        "the hook cannot be set: its HookVtable has 8 bytes where plugin ABI 1.0 has 56",
        "the hook cannot be set: there is no HookVtable",
    ];
    assert_eq!(heard(), expected);
    assert_eq!(forward_of(&model), [[1.0, 2.0]], "the hooks do nothing");
}

fn forward_of(model: &AdaptedModel) -> Vec<Vec<f32>> {
    super::forward(model).unwrap().1.tensor().to_vec2().unwrap()
}
