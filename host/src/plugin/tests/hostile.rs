//! What a plugin may get wrong in a call to the host: null pointers, sizes without end, ops on what they are not for. Each is an error with
//! a name; none is a panic, a signal, or memory that nobody has.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fthost_autograd::random::Stream;
use fthost_autograd::{DType, Tape};
use fthost_plugin_api::abi::borrow::collect_text;
use fthost_plugin_api::abi::calls::{LogRecord, OpCall};
use fthost_plugin_api::abi::draft::run::{RUN_DRAFT, RunDraft};
use fthost_plugin_api::abi::growth::{Grows, Theirs};
use fthost_plugin_api::abi::tables::{
    FAILED, HookVtable, HostApi, OK, Slice, SliceMut, Status, Str, TextSink, dtype, fisher_labels, hook_kind,
    model_call,
};
use fthost_plugin_api::{field, ops};

use super::*;
use crate::plugin::bridge::session::{Caller, Scope, Session};

/// No op of these tests makes a tensor of more elements.
const MOST: u64 = 1 << 26;

fn host() -> Theirs<'static, HostApi> {
    Theirs::ours(&bridge::host_api::HOST_API)
}

macro_rules! call {
    ($function:ident($($argument:expr),* $(,)?)) => {{
        let function = host().need(field!(HostApi, $function)).unwrap();
        #[allow(unused_unsafe)]
        unsafe { function($($argument),*) }
    }};
}

/// What the host says of its last failure.
fn said() -> String {
    collect_text(|sink| {
        call!(last_error(sink));
        OK
    })
    .1
}

/// Runs a body as if a plugin did, on a tape.
fn in_a_call<T>(tape: &Tape, body: impl FnOnce(&Session) -> T) -> T {
    call_of(&Caller::new(plugin(), "hostile"), tape, body)
}

fn call_of<T>(caller: &Arc<Caller>, tape: &Tape, body: impl FnOnce(&Session) -> T) -> T {
    caller.call("a test".into(), Scope { tape: Some(tape), ..Scope::default() }, |session| Ok(body(session))).unwrap()
}

fn op(name: &str) -> u32 {
    let mut number = 0;
    assert_eq!(call!(resolve_op(Str::new(name), &raw mut number)), OK);
    number
}

fn run(number: u32, inputs: &[u64], ints: &[i64], floats: &[f64], outputs: &mut [u64]) -> Status {
    let (inputs, ints, floats) = (Slice::new(inputs), Slice::new(ints), Slice::new(floats));
    let call = OpCall { inputs, ints, floats, outputs: SliceMut::new(outputs), ..OpCall::EMPTY };
    call!(call_op(number, &raw const call))
}

/// That a call was refused, in words that say what was wrong.
#[track_caller]
fn refused(status: Status, part: &str) {
    let said = said();
    assert_eq!(status, FAILED, "{part}: {said}");
    assert!(said.contains(part) && !said.contains("panicked"), "{part:?} is not in {said}");
}

#[test]
fn a_null_pointer_is_an_error_that_names_it() {
    const NULL: Str = Str { ptr: std::ptr::null(), len: 5 };
    let sink = TextSink { ctx: std::ptr::null_mut(), write: None };
    let (mut number, mut handle, mut rank, data) = (0u32, 0u64, 0usize, [0f32; 2]);
    let shape = [2u64];
    in_a_call(&Tape::evaluation(), |session| {
        refused(call!(resolve_op(NULL, &raw mut number)), "a text has length 5, and its pointer is null");
        refused(call!(resolve_op(Str::new("add@1"), std::ptr::null_mut())), "no place for the op's number");
        refused(call!(call_op(0, std::ptr::null())), "there is no OpCall");
        let mut outputs = [0u64];
        for (place, part) in
            ["the inputs of an op", "the integers of an op", "the floats of an op", "the outputs of an op"]
                .iter()
                .enumerate()
        {
            let mut call = OpCall { outputs: SliceMut::new(&mut outputs), ..OpCall::EMPTY };
            match place {
                0 => call.inputs = Slice { ptr: std::ptr::null(), len: 2 },
                1 => call.ints = Slice { ptr: std::ptr::null(), len: 2 },
                2 => call.floats = Slice { ptr: std::ptr::null(), len: 2 },
                _ => call.outputs = SliceMut { ptr: std::ptr::null_mut(), len: 1 },
            }
            let status = call!(call_op(op("add@1"), &raw const call));
            refused(status, part);
        }
        let call = OpCall { inputs: Slice { ptr: std::ptr::dangling(), len: usize::MAX }, ..OpCall::EMPTY };
        refused(call!(call_op(0, &raw const call)), "which no memory holds");

        let elements = data.as_ptr().cast::<c_void>();
        let whole = Slice::new(&shape);
        refused(
            call!(tensor_new(dtype::F32, elements, Slice { ptr: std::ptr::null(), len: 2 }, &raw mut handle)),
            "the shape of a tensor has length 2, and its pointer is null",
        );
        refused(
            call!(tensor_new(dtype::F32, std::ptr::null(), whole, &raw mut handle)),
            "the elements of a tensor has length 2, and its pointer is null",
        );
        refused(
            call!(tensor_new(dtype::F32, elements.wrapping_byte_add(1), whole, &raw mut handle)),
            "is not aligned for its elements",
        );
        refused(
            call!(tensor_new(dtype::F32, elements, whole, std::ptr::null_mut())),
            "no place for the tensor's handle",
        );
        refused(call!(tensor_new(99, elements, whole, &raw mut handle)), "not from element type 99");

        let lent = session.lend(Value::constant(tensor(&[1.0, 2.0], &[2])));
        let none = SliceMut { ptr: std::ptr::null_mut(), len: 0 };
        refused(call!(tensor_info(lent, std::ptr::null_mut(), &raw mut rank, none)), "no place for the element type");
        refused(call!(tensor_info(lent, &raw mut number, std::ptr::null_mut(), none)), "no place for the rank");
        let dims = SliceMut { ptr: std::ptr::null_mut(), len: 4 };
        refused(
            call!(tensor_info(lent, &raw mut number, &raw mut rank, dims)),
            "the dimensions of a tensor has length 4",
        );
        refused(call!(tensor_read(lent, std::ptr::null_mut(), 8)), "the memory for a tensor's elements has length 8");

        refused(call!(model_call(NULL, Str::new("{}"), sink)), "a text has length 5");
        refused(call!(model_call(Str::new(model_call::DESCRIBE), Str::new("{}"), sink)), "the sink's function is null");
        let vtable = HookVtable::EMPTY;
        refused(call!(hook(NULL, hook_kind::LINEAR, std::ptr::null_mut(), &raw const vtable)), "a text has length 5");
        type Visit = unsafe extern "C" fn(*mut c_void, u64, u64, f64) -> Status;
        type Walk<V> = unsafe extern "C" fn(u32, u64, *mut c_void, V) -> Status;
        let walk = host().need(field!(HostApi, example_gradients)).unwrap();
        // SAFETY: both pass a pointer; a null one is what the test is about, as a C author may pass it.
        let walk = unsafe { std::mem::transmute::<Walk<Visit>, Walk<*const c_void>>(walk) };
        refused(
            unsafe { walk(fisher_labels::EXACT, 0, std::ptr::null_mut(), std::ptr::null()) },
            "the function is null",
        );
        // What answers nothing says nothing, and does not end the process either.
        call!(set_error(FAILED, NULL));
        call!(log(std::ptr::null()));
        let record = LogRecord { level: 3, message: NULL, ..LogRecord::EMPTY };
        call!(log(&raw const record));
        call!(last_error(sink));
    });
    let draft = call!(get_extension(Str::new(RUN_DRAFT))).cast::<RunDraft>();
    let seed = unsafe { (*draft).seed }.unwrap();
    refused(unsafe { seed(std::ptr::null_mut()) }, "no place for the seed");
}

#[test]
fn sizes_are_held_against_the_machines_memory() {
    let mut handle = 0;
    let one = [1f32];
    in_a_call(&Tape::evaluation(), |session| {
        for shape in [[100_000u64, 1_000_000_000].as_slice(), &[u64::MAX, u64::MAX], &[1 << 62]] {
            let shape = Slice::new(shape);
            let status = call!(tensor_new(dtype::F32, one.as_ptr().cast(), shape, &raw mut handle));
            refused(status, "it would take ");
        }
        let lend =
            |shape: &[usize]| session.lend(Value::constant(Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()));
        let (row, column) = (lend(&[1, 3_000_000]), lend(&[3_000_000, 1]));
        let mut outputs = [0];
        for name in ["add@1", "sub@1", "mul@1", "div@1"] {
            refused(run(op(name), &[row, column], &[], &[], &mut outputs), "it would take ");
        }
        refused(run(op("matmul@1"), &[column, row], &[], &[], &mut outputs), "it would take ");
        refused(run(op("linear@1"), &[column, column], &[], &[], &mut outputs), "it would take ");
        let side = 1 << 20;
        let pixel = lend(&[1, 1]);
        let size = [1, 1, side, side];
        refused(run(op("upsample_nearest2d@1"), &[pixel], &size, &[], &mut outputs), "it would take ");
        let kernel = lend(&[1, 1, 1, 1]);
        let window = [1, 1, 1, 1, side, side, 1, 1, 1];
        refused(run(op("conv2d@1"), &[pixel, kernel], &window, &[], &mut outputs), "it would take ");
        let pixels = lend(&[4, 1]);
        let window = [2, 2, side, side, 0, 0, 1, 1, 0, 0, 1];
        refused(run(op("conv_transpose2d@1"), &[pixels, kernel], &window, &[], &mut outputs), "it would take ");
        let many = vec![row; 1 << 19];
        refused(run(op("concat@1"), &many, &[0], &[], &mut outputs), "it would take ");
    });
    let mut model = model();
    let text = message(shift("vast").unwrap().attach(&mut model, 0));
    for part in ["cannot make the parameter vast [100000, 1000000000]: with its gradient it would take ", " left"] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

/// Whatever elements: each op that computes takes floats alone.
#[test]
fn an_op_on_another_type_is_refused_by_its_place() {
    let integers = Tensor::new(&[[0u32, 1], [1, 0]], &Device::Cpu).unwrap();
    let floats = tensor(&[0.0; 4], &[2, 2]);
    let moves = ["reshape@1", "transpose@1", "narrow@1", "concat@1", "index_select@1", "detach@1", "cast@1", "keep@1"];
    in_a_call(&Tape::evaluation(), |session| {
        let (integers, floats) = (session.lend(Value::constant(integers)), session.lend(Value::constant(floats)));
        for signature in ops::OPS.iter().filter(|signature| !moves.contains(&signature.name)) {
            let mut outputs = vec![0; signature.outputs];
            let number = op(signature.name);
            // The number of everything that it takes is found by asking.
            let most = 11;
            let mut found = None;
            'search: for inputs in 1..5 {
                for ints in 0..=most {
                    for count in 0..3 {
                        let arguments = (vec![integers; inputs], vec![1i64; ints], vec![0.5; count]);
                        let status = run(number, &arguments.0, &arguments.1, &arguments.2, &mut outputs);
                        if status != OK && said().contains(" takes ") && said().contains("; got ") {
                            continue;
                        }
                        found = Some((status, said()));
                        break 'search;
                    }
                }
            }
            let (status, text) = found.unwrap_or_else(|| panic!("{} takes nothing", signature.name));
            assert_eq!(status, FAILED, "{}", signature.name);
            assert!(text.contains("input 0 must hold floats, not u32: cast it"), "{}: {text}", signature.name);
        }
        let mut output = [0];
        refused(run(op("index_select@1"), &[floats, floats], &[0], &[], &mut output), "must be u32, not f32");
        let mut outputs = [0, 0];
        refused(run(op("cross_entropy@1"), &[floats, floats], &[], &[0.0], &mut outputs), "must be u32, not f32");
    });
}

/// What an op is called with: handles of tensors of all kinds, numbers that no author means.
struct Deck {
    stream: Stream,
    at: std::cell::Cell<u64>,
}

impl Deck {
    fn draw(&self, below: usize) -> usize {
        let at = self.at.get();
        self.at.set(at + 1);
        (self.stream.uniform(at) * below as f64) as usize
    }

    fn one<T: Copy>(&self, of: &[T]) -> T {
        of[self.draw(of.len())]
    }
}

/// Every op with drawn arguments: it computes, or it says why not, forward and backward; it never panics, and never makes a tensor that nobody
/// asked for.
#[test]
fn every_op_survives_whatever_it_is_called_with() {
    const SHAPES: [&[usize]; 14] = [
        &[],
        &[0],
        &[1],
        &[2],
        &[3],
        &[0, 3],
        &[2, 0],
        &[1, 1],
        &[2, 3],
        &[3, 2],
        &[4, 1],
        &[2, 2, 3],
        &[2, 2, 2, 2],
        &[1, 2, 0, 2],
    ];
    const INTS: [i64; 12] = [i64::MIN, -7, -1, 0, 1, 1, 1, 2, 2, 3, 1 << 40, i64::MAX];
    const FLOATS: [f64; 7] = [f64::NAN, f64::INFINITY, -1.0, 0.0, 0.5, 1.0, 1e308];
    const DRAWS: usize = 600;
    let deck = Deck { stream: Stream::new(7, "hostile"), at: std::cell::Cell::new(0) };
    let of_type = |shape: &[usize], code: usize| {
        let ones = Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
        match code {
            0 => ones.to_dtype(DType::F64).unwrap(),
            1 | 2 => ones.to_dtype(DType::U32).unwrap(),
            3 => ones.to_dtype(DType::U8).unwrap(),
            4 => ones.to_dtype(DType::BF16).unwrap(),
            5 => ones.affine(f64::NAN, 0.0).unwrap(),
            6 => Tensor::full(u32::MAX - 1, shape, &Device::Cpu).unwrap(),
            7 => ones.to_dtype(DType::I64).unwrap(),
            _ => ones,
        }
    };
    let caller = Caller::new(plugin(), "hostile");
    let (mut computed, mut refusals) = (0, 0);
    for signature in ops::OPS {
        let number = op(signature.name);
        let count = |text: &str| text.split(", ").filter(|part| !part.is_empty()).count();
        for _ in 0..DRAWS {
            let tape = Tape::recording();
            let results: Vec<Value> = call_of(&caller, &tape, |session| {
                let inputs: Vec<u64> = (0..1 + deck.draw(4))
                    .map(|_| match deck.draw(16) {
                        0 => 0,
                        1 => 0x1234_5678_9abc_def0,
                        _ => {
                            let tensor = of_type(deck.one(&SHAPES), deck.draw(20));
                            let differentiable = tensor.dtype().is_float();
                            session.lend(if differentiable { tape.variable(tensor) } else { Value::constant(tensor) })
                        }
                    })
                    .collect();
                // Mostly as many as it takes.
                let fitting = deck.draw(8) > 0;
                let of = |usual: usize, deck: &Deck| if fitting { usual } else { deck.draw(12) };
                let ints: Vec<i64> = (0..of(ints_of(signature), &deck)).map(|_| deck.one(&INTS)).collect();
                let floats: Vec<f64> = (0..of(count(signature.floats), &deck)).map(|_| deck.one(&FLOATS)).collect();
                let mut outputs = vec![0; signature.outputs];
                if run(number, &inputs, &ints, &floats, &mut outputs) != OK {
                    let said = said();
                    assert!(!said.is_empty() && !said.contains("panicked"), "{} {ints:?}: {said}", signature.name);
                    refusals += 1;
                    return Vec::new();
                }
                computed += 1;
                outputs.into_iter().map(|output| session.take(output).unwrap()).collect()
            });
            for result in &results {
                let elements: u64 = result.dims().iter().map(|&side| side as u64).product();
                assert!(elements <= MOST, "{} gave {:?}", signature.name, result.dims());
            }
            let seeds: Vec<_> = results
                .into_iter()
                .filter(|result| result.dtype().is_float() && result.requires_grad())
                .map(|result| (result.clone(), result.tensor().ones_like().unwrap()))
                .collect();
            // An error is one; a panic would take the run with it.
            let backward = catch_unwind(AssertUnwindSafe(|| tape.backward_from(seeds).is_ok()));
            assert!(backward.is_ok(), "{} panics backward", signature.name);
        }
    }
    assert!(computed > 2_000 && refusals > 10_000, "{computed} computed, {refusals} refused");
}

/// How many integers an op takes, as its signature says.
fn ints_of(signature: &ops::OpSignature) -> usize {
    let mut plain = String::new();
    let mut depth = 0;
    for c in signature.ints.chars() {
        depth += i32::from(c == '(');
        if depth == 0 {
            plain.push(c);
        }
        depth -= i32::from(c == ')');
    }
    plain.split(", ").filter(|part| !part.trim().is_empty()).count()
}
