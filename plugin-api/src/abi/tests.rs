//! The boundary's own laws, against a host that knows nothing but how to remember what it is told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{cell::RefCell, ffi::c_void, ptr};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    borrow::collect_text,
    calls,
    calls::{Evaluation, HeadCall, HookCall, LogRecord, OpCall},
    draft::about::ABOUT_DRAFT,
    growth::{Field, Grows, Theirs},
    note::{MethodFacts, PluginFacts, first_line},
    tables::*,
};
use crate::{MethodKind, MethodNote, PluginInfo, PluginNote, builtin, field, prelude::*};

thread_local! {
    static ERRORS: RefCell<Vec<(Status, String)>> = const { RefCell::new(Vec::new()) };
    static LOGS: RefCell<Vec<(u32, String, String)>> = const { RefCell::new(Vec::new()) };
}

/// What the plugin said since the last time.
fn last_error() -> (Status, String) {
    ERRORS.take().pop().expect("the plugin said why")
}

mod host {
    use super::*;

    pub(super) unsafe extern "C" fn set_error(status: Status, message: Str) {
        let message = unsafe { message.as_str() }.unwrap().to_owned();
        ERRORS.with_borrow_mut(|errors| errors.push((status, message)));
    }
    pub(super) unsafe extern "C" fn last_error(sink: TextSink) {
        unsafe { sink.put("this host has no ") };
        unsafe { sink.put("device") };
    }
    pub(super) unsafe extern "C" fn log(record: *const LogRecord) {
        let record = unsafe { Theirs::new(record) }.unwrap();
        let text = |field: Field<LogRecord, Str>| unsafe { record.get(field).as_str() }.unwrap().to_owned();
        let (message, fields) = (text(field!(LogRecord, message)), text(field!(LogRecord, fields)));
        LOGS.with_borrow_mut(|logs| logs.push((record.get(field!(LogRecord, level)), message, fields)));
    }
    pub(super) unsafe extern "C" fn resolve_op(_: Str, _: *mut u32) -> Status {
        FAILED
    }
    pub(super) unsafe extern "C" fn call_op(_: u32, _: *const OpCall) -> Status {
        FAILED
    }
    pub(super) unsafe extern "C" fn tensor_new(_: u32, _: *const c_void, _: Slice<u64>, _: *mut u64) -> Status {
        FAILED
    }
    pub(super) unsafe extern "C" fn tensor_info(_: u64, _: *mut u32, _: *mut usize, _: SliceMut<u64>) -> Status {
        FAILED
    }
    pub(super) unsafe extern "C" fn tensor_read(_: u64, _: *mut c_void, _: usize) -> Status {
        FAILED
    }
    pub(super) unsafe extern "C" fn tensor_release(_: u64) -> Status {
        OK
    }
    pub(super) unsafe extern "C" fn model_call(method: Str, _: Str, reply: TextSink) -> Status {
        if unsafe { method.as_str() }.unwrap() == model_call::DESCRIBE {
            let text = r#"{"model_type": "bert", "groups": 3, "layers": 2, "width": 8, "heads": 2, "parameters": []}"#;
            unsafe { reply.put(text) };
            return OK;
        }
        FAILED
    }
    pub(super) unsafe extern "C" fn hook(_: Str, _: u32, data: *mut c_void, vtable: *const HookVtable) -> Status {
        unsafe { Theirs::new(vtable).unwrap().need(field!(HookVtable, drop)).unwrap()(data) };
        OK
    }
    pub(super) unsafe extern "C" fn example_gradients(
        _: u32,
        _: u64,
        ctx: *mut c_void,
        visit: unsafe extern "C" fn(*mut c_void, u64, u64, f64) -> Status,
    ) -> Status {
        unsafe { visit(ctx, 1, 2, 1.0) }
    }
    pub(super) unsafe extern "C" fn get_extension(_: Str) -> *const c_void {
        ptr::null()
    }
}

static HOST: HostApi = HostApi {
    abi_major: ABI_MAJOR,
    abi_minor: ABI_MINOR,
    set_error: Some(host::set_error),
    last_error: Some(host::last_error),
    log: Some(host::log),
    resolve_op: Some(host::resolve_op),
    call_op: Some(host::call_op),
    tensor_new: Some(host::tensor_new),
    tensor_info: Some(host::tensor_info),
    tensor_read: Some(host::tensor_read),
    tensor_release: Some(host::tensor_release),
    model_call: Some(host::model_call),
    hook: Some(host::hook),
    example_gradients: Some(host::example_gradients),
    get_extension: Some(host::get_extension),
    ..HostApi::EMPTY
};

/// A strategy that fails as it is told.
struct Failing(FailingConfig);

#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct FailingConfig {
    /// How it fails.
    mode: String,
    limit: Option<u32>,
}

impl Strategy for Failing {
    type Config = FailingConfig;

    fn new(config: FailingConfig) -> Result<Self> {
        Ok(Self(config))
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        match self.0.mode.as_str() {
            "panic" => panic!("attach of {}", model.model_type()?),
            "error" => Err(Error::new("no such layer").context("hooking `query`").context("LoRA")),
            "host" => Tensor::scalar(1.0).map(drop),
            "visitor panic" => host_gradients(&mut |_, _, _| panic!("in the visitor")),
            "visitor error" => host_gradients(&mut |_, _, _| Err(Error::new("the visitor's own"))),
            _ => Ok(()),
        }
    }

    fn save(&self) -> Result<SavedState> {
        Ok(SavedState { json: json!({ "mode": self.0.mode }), ..Default::default() })
    }

    fn load(&mut self, state: SavedState) -> Result<()> {
        self.0.mode = state.json["mode"].as_str().unwrap_or_default().into();
        Ok(())
    }
}

fn host_gradients(visit: super::host::Visit<'_>) -> Result<()> {
    super::host::example_gradients((1, 0, None), visit)
}

struct Half;

#[derive(Deserialize, JsonSchema)]
struct Nothing {}

impl Scheduler for Half {
    type Config = Nothing;

    fn new(_: Nothing) -> Result<Self> {
        Ok(Self)
    }

    fn rate(&self, _: &Progress, group: &Group<'_>) -> Result<Rate> {
        Ok(group.scaled(0.5))
    }
}

register! {
    /// Fails in any way that is asked for.
    ///
    /// For tests.
    Strategy "failing" => Failing,
    Scheduler "half" => Half,
}

/// An instance of the test's own methods.
struct Made(Instance);

impl Made {
    fn new(kind: u32, name: &str, config: &str) -> Result<Self, (Status, String)> {
        let api = builtin(&HOST).unwrap();
        let mut instance = Instance { data: ptr::null_mut(), vtable: ptr::null() };
        let create = api.need(field!(PluginApi, create)).unwrap();
        match unsafe { create(kind, Str::new(name), Str::new(config), &raw mut instance) } {
            OK => Ok(Self(instance)),
            _ => Err(last_error()),
        }
    }

    fn failing(mode: &str) -> Self {
        Self::new(kind::STRATEGY, "failing", &json!({ "mode": mode }).to_string()).unwrap()
    }

    fn table<T: Grows>(&self) -> Theirs<'static, T> {
        unsafe { Theirs::new(self.0.vtable.cast()) }.unwrap()
    }

    fn base(&self) -> Theirs<'static, BaseVtable> {
        self.table()
    }

    fn attach(&self) -> Status {
        let attach = self.table().need(field!(StrategyVtable, attach)).unwrap();
        unsafe { attach(self.0.data) }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        unsafe { self.base().need(field!(BaseVtable, drop)).unwrap()(self.0.data) }
    }
}

#[test]
fn a_panic_stays_inside_with_message_and_place() {
    let made = Made::failing("panic");
    assert_eq!(made.attach(), PANICKED);
    let (status, text) = last_error();
    assert_eq!(status, PANICKED);
    assert!(text.contains("attach of bert"), "{text}");
    let place = text.strip_prefix("panicked at ").unwrap().split(": ").next().unwrap();
    let [file, line, column] = place.split(':').collect::<Vec<_>>()[..] else { panic!("{place}") };
    assert!(file.ends_with("tests.rs"), "{file}");
    line.parse::<u32>().and(column.parse::<u32>()).unwrap();

    // Whatever is called next, but for drop, is refused.
    assert_eq!(made.attach(), PANICKED);
    assert!(last_error().1.contains("earlier call"));
}

#[test]
fn an_error_comes_with_its_chain() {
    for (mode, expected) in [
        ("error", "LoRA: hooking `query`: no such layer"),
        ("host", "this host has no device"),
        ("visitor error", "the visitor's own"),
    ] {
        let made = Made::failing(mode);
        assert_eq!(made.attach(), FAILED, "{mode}");
        assert_eq!(last_error(), (FAILED, expected.into()));
        assert_eq!(made.attach(), FAILED, "an error does not poison");
        ERRORS.take();
    }
}

#[test]
fn a_panic_in_a_visitor_crosses_the_host_as_a_status() {
    let made = Made::failing("visitor panic");
    assert_eq!(made.attach(), PANICKED);
    assert!(last_error().1.contains("tests.rs"));
}

#[test]
fn state_goes_out_and_in() {
    let made = Made::failing("error");
    let (status, state) =
        collect_text(|sink| unsafe { made.base().need(field!(BaseVtable, save)).unwrap()(made.0.data, sink) });
    assert_eq!((status, state.as_str()), (OK, r#"{"json":{"mode":"error"},"tensors":{}}"#));
    let other = Made::failing("");
    let load = other.base().need(field!(BaseVtable, load)).unwrap();
    assert_eq!(unsafe { load(other.0.data, Str::new(&state)) }, OK);
    assert_eq!(other.attach(), FAILED);
}

#[test]
fn events_of_newer_hosts_are_passed_over() {
    let made = Made::failing("");
    for event in [json!({ "event": "epoch_begin", "epoch": 0, "epochs": 2 }), json!({ "event": "full_moon" })] {
        let hear = made.base().need(field!(BaseVtable, event)).unwrap();
        assert_eq!(unsafe { hear(made.0.data, Str::new(&event.to_string())) }, OK, "{event}");
    }
}

#[test]
fn create_says_what_is_wrong() {
    for (kind, name, config, expected) in [
        (kind::STRATEGY, "half", "{}", "there are strategy `failing`, scheduler `half`"),
        (kind::STRATEGY, "failing", r#"{"mood": "bad"}"#, "options: unknown field `mood`"),
    ] {
        let Err((status, text)) = Made::new(kind, name, config) else { panic!("{name} {config} was made") };
        assert_eq!(status, FAILED);
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_scheduler_answers() {
    let made = Made::new(kind::SCHEDULER, "half", "{}").unwrap();
    let table = made.table::<SchedulerVtable>();
    assert_eq!(table.size(), size_of::<SchedulerVtable>());
    let progress = calls::Progress { total_steps: 1, steps_per_epoch: 1, ..calls::Progress::EMPTY };
    let group = calls::Group { lr: 3.0, momentum: 0.9, ..calls::Group::EMPTY };
    // Behind it lies what is none of its: a plugin that is newer than the host writes no further than the size says.
    #[repr(C)]
    struct Place {
        rate: calls::Rate,
        beyond: [u64; 4],
    }
    let mut place = Place { rate: calls::Rate::EMPTY, beyond: [7; 4] };
    place.rate.struct_size = minor_0::RATE;
    let rate = table.need(field!(SchedulerVtable, rate)).unwrap();
    let out = &raw mut place;
    let status = unsafe { rate(made.0.data, &raw const progress, &raw const group, out.cast()) };
    assert_eq!((status, place.rate.lr, place.rate.momentum, place.beyond), (OK, 1.5, 0.9, [7; 4]));
    #[cfg(feature = "longer-tables")]
    assert_eq!(place.rate.later.number, calls::Appended::NUMBER, "what there is no room for stays as it was");

    place.rate.struct_size = minor_0::RATE - 8;
    let out = &raw mut place;
    assert_eq!(unsafe { rate(made.0.data, &raw const progress, &raw const group, out.cast()) }, FAILED);
    assert_eq!(last_error().1, "its Rate has 16 bytes where plugin ABI 1.0 has 24");
    assert_eq!(unsafe { rate(made.0.data, ptr::null(), &raw const group, out.cast()) }, FAILED);
    assert_eq!(last_error().1, "there is no Progress");
}

/// Bytes with a table of minor 0 at their beginning, and behind it what would be taken for functions and sizes if it were read.
fn followed_by_rubbish<T: Grows>() -> Vec<u64> {
    let mut words = vec![0x5a5a_5a5a_5a5a_5a5a; size_of::<T>() / 8 + 8];
    words[0] = T::MINOR_0 as u64;
    words
}

#[test]
fn nothing_is_read_behind_a_table_of_minor_0() {
    fn check<T: Grows>() {
        let words = followed_by_rubbish::<T>();
        let theirs = unsafe { Theirs::<T>::new(words.as_ptr().cast()) }.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(theirs.size(), T::MINOR_0);
        // A longer one, of a newer side, is taken too; a shorter one is not.
        let shorter = [T::MINOR_0 as u64 - 1, 0];
        let error = unsafe { Theirs::<T>::new(shorter.as_ptr().cast()) }.map(drop).unwrap_err().to_string();
        assert_eq!(error, format!("its {} has {} bytes where plugin ABI 1.0 has {}", T::NAME, shorter[0], T::MINOR_0));
    }
    check::<HostApi>();
    check::<PluginApi>();
    check::<StrategyVtable>();
    check::<SchedulerVtable>();
    check::<RegularizerVtable>();
    check::<TaskHeadVtable>();
    check::<HookVtable>();
    check::<OpCall>();
    check::<LogRecord>();
    check::<HookCall>();
    check::<HeadCall>();
    check::<calls::Progress>();
    check::<calls::Group>();
    check::<calls::Rate>();
    check::<Evaluation>();
}

#[cfg(feature = "longer-tables")]
#[test]
fn what_came_later_is_absent_or_refused_by_name() {
    use crate::later;
    let words = followed_by_rubbish::<HostApi>();
    let old = unsafe { Theirs::<HostApi>::new(words.as_ptr().cast()) }.unwrap();
    assert!(old.later(later!(HostApi, later)).is_none());
    assert!(old.later(later!(HostApi, later.number)).is_none());
    let error = old.need_later(later!(HostApi, later.call)).map(drop).unwrap_err().to_string();
    assert_eq!(error, "its HostApi is older than `later.call`");
    let new = Theirs::ours(&HOST);
    assert_eq!(new.later(later!(HostApi, later.number)), Some(calls::Appended::NUMBER));
    assert_eq!(unsafe { new.need_later(later!(HostApi, later.call)).unwrap()() }, calls::Appended::NUMBER);
}

/// The places of all fields at minor 0, as every plugin and every host of this major has them.
#[test]
fn fields_stand_where_they_stood() {
    macro_rules! places {
        ($($type:ty { $($field:ident $at:literal),+ })+) => {
            $($(assert_eq!(std::mem::offset_of!($type, $field), $at, concat!(stringify!($type), ".", stringify!($field)));)+)+
        };
    }
    places! {
        HostApi {
            struct_size 0, abi_major 4, abi_minor 8, reserved 12, set_error 16, last_error 24, log 32, resolve_op 40, call_op 48,
            tensor_new 56, tensor_info 64, tensor_read 72, tensor_release 80, model_call 88, hook 96, example_gradients 104,
            get_extension 112
        }
        PluginApi {
            struct_size 0, abi_major 4, abi_minor 8, reserved 12, describe 16, create 24, get_extension 32, options_from_peft 40
        }
        BaseVtable { struct_size 0, reserved 4, drop 8, save 16, load 24, event 32 }
        StrategyVtable { base 0, attach 40, adapter_config 48, adapter_tensors 56, starts_at_base 64 }
        SchedulerVtable { base 0, rate 40, on_evaluation 48 }
        RegularizerVtable { base 0, attach 40, penalty 48, needs_reference 56, output_penalty 64 }
        TaskHeadVtable { base 0, attach 40, forward 48, loss 56, predict 64, fit 72 }
        HookVtable {
            struct_size 0, reserved 4, drop 8, forward 16, merge 24, input 32, merge_bias 40, position_shift 48
        }
        OpCall { struct_size 0, reserved 4, inputs 8, ints 24, floats 40, outputs 56 }
        LogRecord { struct_size 0, level 4, what 8, reserved 12, target 16, message 32, fields 48 }
        HookCall { struct_size 0, reserved 4, inputs 8, offsets 24, outputs 40, flags 56 }
        HeadCall { struct_size 0, reserved 4, tensors 8, offsets 24, targets 40, support 56, outputs 72, weight 88 }
        calls::Progress { struct_size 0, reserved 4, step 8, total_steps 16, steps_per_epoch 24 }
        calls::Group { struct_size 0, number 4, name 8, stream 24, lr 40, momentum 48 }
        calls::Rate { struct_size 0, reserved 4, lr 8, momentum 16 }
        Evaluation { struct_size 0, higher_is_better 4, value 8, metric 16, task 32 }
        Instance { data 0, vtable 8 }
        Str { ptr 0, len 8 }
        TextSink { ctx 0, write 8 }
    }
}

#[test]
fn there_is_no_draft_that_nobody_named() {
    let get_extension = builtin(&HOST).unwrap().need(field!(PluginApi, get_extension)).unwrap();
    for name in [ABOUT_DRAFT, "ft.about.draft/0", "ft.moon.draft/1", ""] {
        assert!(
            unsafe { get_extension(Str::new(name)) }.is_null(),
            "{name}: built-in methods say nothing of themselves"
        );
    }
    assert!(crate::draft::Run::of_host().is_none(), "this host offers none");
}

#[test]
fn describe_lists_methods_with_schema_and_defaults() {
    let api = builtin(&HOST).unwrap();
    let (status, text) = collect_text(|sink| unsafe { api.need(field!(PluginApi, describe)).unwrap()(sink) });
    assert_eq!(status, OK);
    let info: PluginInfo = serde_json::from_str(&text).unwrap();
    let names: Vec<_> = info.methods.iter().map(|method| (method.kind, method.name.as_str())).collect();
    assert_eq!(names, [(MethodKind::Strategy, "failing"), (MethodKind::Scheduler, "half")]);
    let failing = &info.methods[0];
    assert_eq!(failing.summary, "Fails in any way that is asked for.");
    assert_eq!(failing.config_default, json!({ "mode": "", "limit": null }));
    assert_eq!(failing.config_schema["properties"]["mode"]["description"], "How it fails.");
    assert_eq!(failing.config_schema["additionalProperties"], json!(false));
}

#[test]
fn hosts_of_another_major_or_too_small_are_refused() {
    for (major, size, expected) in
        [(ABI_MAJOR + 1, HOST.struct_size, "rebuild the plugin"), (ABI_MAJOR, 40, "update the host")]
    {
        let host: &HostApi = Box::leak(Box::new(HostApi { abi_major: major, struct_size: size, ..HOST }));
        let Err(error) = builtin(host) else { panic!("a host of ABI {major} with {size} bytes was taken") };
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn tracing_reaches_the_host() {
    builtin(&HOST).unwrap();
    super::log::forward();
    tracing::warn!(rank = 8, name = "query", "too wide");
    assert_eq!(LOGS.take(), [(2, "too wide".into(), r#"{"name":"query","rank":8}"#.into())]);
}

const PLUGIN: PluginFacts = PluginFacts {
    name: "a \"b\"\n",
    version: "1.2.3",
    license: "MIT",
    ops: &["linear@1", "keep@1"],
    min_host_minor: 0,
};
static PLUGIN_NOTE: super::note::Note<{ PLUGIN.text_len() }> = PLUGIN.note();
const METHOD: MethodFacts = MethodFacts {
    kind: MethodKind::TaskHead,
    name: "classes",
    summary: first_line(" One line.\n Two.\n"),
    serves: "words",
};
static METHOD_NOTE: super::note::Note<{ METHOD.text_len() }> = METHOD.note();

/// Reads a note as the ELF standard lays it out.
fn parse(note: &[u8]) -> (u32, String, Value) {
    let word = |at: usize| u32::from_le_bytes(note[at..at + 4].try_into().unwrap()) as usize;
    let (owner_len, text_len, note_type) = (word(0), word(4), word(8));
    let text_at = 12 + owner_len.next_multiple_of(4);
    assert_eq!(note.len(), text_at + text_len.next_multiple_of(4));
    let owner = std::str::from_utf8(&note[12..12 + owner_len]).unwrap().trim_end_matches('\0').to_owned();
    (note_type as u32, owner, serde_json::from_slice(&note[text_at..text_at + text_len]).unwrap())
}

fn bytes<T>(note: &'static T) -> Vec<u8> {
    // The last bytes may be padding, which a file has as zeros and Rust must not read: copy what counts, then pad.
    let words = ptr::from_ref(note).cast::<u8>();
    let head = unsafe { std::slice::from_raw_parts(words, 20) };
    let text_len = u32::from_le_bytes(head[4..8].try_into().unwrap()) as usize;
    let mut bytes = unsafe { std::slice::from_raw_parts(words, 20 + text_len) }.to_vec();
    bytes.resize(size_of::<T>(), 0);
    bytes
}

#[test]
fn notes_read_as_elf_notes() {
    let (note_type, owner, text) = parse(&bytes(&PLUGIN_NOTE));
    assert_eq!((note_type, owner.as_str()), (NOTE_PLUGIN, NOTE_NAME));
    let note: PluginNote = serde_json::from_value(text).unwrap();
    assert_eq!((note.abi_major, note.name.as_str(), note.panic.as_str()), (ABI_MAJOR, "a \"b\"\n", "unwind"));
    assert_eq!(note.ops, ["linear@1", "keep@1"]);
    assert!(note.compiler.starts_with("rustc "), "{}", note.compiler);

    let (note_type, owner, text) = parse(&bytes(&METHOD_NOTE));
    assert_eq!((note_type, owner.as_str()), (NOTE_METHOD, NOTE_NAME));
    let expected = MethodNote {
        kind: MethodKind::TaskHead,
        name: "classes".into(),
        summary: "One line.".into(),
        serves: "words".into(),
    };
    assert_eq!(serde_json::from_value::<MethodNote>(text).unwrap(), expected);
}
