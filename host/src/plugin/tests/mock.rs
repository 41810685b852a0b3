//! The mock host that plugins are tested with computes what this host computes: every op through both tables.

use fthost_autograd::{Device, Tape, Tensor, Value};
use fthost_plugin_api::abi::borrow::collect_text;
use fthost_plugin_api::abi::calls::OpCall;
use fthost_plugin_api::abi::growth::{Grows, Theirs};
use fthost_plugin_api::abi::tables::{HostApi, OK, Slice, SliceMut, Str};
use fthost_plugin_api::field;
use fthost_plugin_api::test::raw::{self, Case, Input};

use super::plugin;
use crate::plugin::bridge::host_api::HOST_API;
use crate::plugin::bridge::session::{Caller, Failure, Scope};

/// Runs a case through a host's table; gives the handles of its results.
fn call(host: &'static HostApi, case: &Case, inputs: &[u64]) -> Result<Vec<u64>, String> {
    let host = Theirs::ours(host);
    let said = || {
        let last_error = host.need(field!(HostApi, last_error)).unwrap();
        let (_, text) = collect_text(|sink| {
            unsafe { last_error(sink) };
            OK
        });
        text
    };
    let (mut number, mut outputs) = (0, vec![0; case.outputs]);
    let resolve_op = host.need(field!(HostApi, resolve_op)).unwrap();
    if unsafe { resolve_op(Str::new(case.op), &raw mut number) } != OK {
        return Err(said());
    }
    let call = OpCall {
        inputs: Slice::new(inputs),
        ints: Slice::new(&case.ints),
        floats: Slice::new(&case.floats),
        outputs: SliceMut::new(&mut outputs),
        ..OpCall::EMPTY
    };
    let call_op = host.need(field!(HostApi, call_op)).unwrap();
    if unsafe { call_op(number, &raw const call) } == OK { Ok(outputs) } else { Err(said()) }
}

fn shown(value: &Value) -> (Vec<usize>, Vec<f64>) {
    let data = value.tensor().to_dtype(fthost_autograd::DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    (value.dims().to_vec(), data)
}

/// What this host makes of a case, through its table: results, and gradients of the first one's elements by the inputs.
fn here(case: &Case) -> raw::Ran {
    let tape = Tape::recording();
    let value = |input: &Input| match input {
        Input::Float(shape, data) => {
            Some(tape.variable(Tensor::from_slice(data, shape.as_slice(), &Device::Cpu).unwrap()))
        }
        Input::Ids(ids) => Some(Value::constant(Tensor::new(ids.as_slice(), &Device::Cpu).unwrap())),
        Input::None => None,
    };
    let inputs: Vec<Option<Value>> = case.inputs.iter().map(value).collect();
    let caller = Caller::new(plugin(), "ops");
    let results: Vec<Value> = caller
        .call(case.op.into(), Scope { tape: Some(&tape), ..Scope::default() }, |session| {
            let handle = |input: &Option<Value>| input.as_ref().map_or(0, |value| session.lend(value.clone()));
            let inputs: Vec<u64> = inputs.iter().map(handle).collect();
            let outputs = call(&HOST_API, case, &inputs).map_err(Failure::Answer)?;
            outputs.into_iter().map(|handle| session.take(handle)).collect()
        })
        .unwrap();
    let (shape, data) = shown(&results[0]);
    let seed = Tensor::from_vec(raw::seed(data.len()), shape, &Device::Cpu).unwrap();
    let gradients = if results[0].requires_grad() {
        let gradients = tape.backward_from(vec![(results[0].clone(), seed)]).unwrap();
        let by = |input: &Option<Value>| {
            input
                .as_ref()
                .and_then(|input| gradients.of(input))
                .map(|gradient| gradient.flatten_all().unwrap().to_vec1().unwrap())
        };
        inputs.iter().map(by).collect()
    } else {
        vec![None; inputs.len()]
    };
    (results.iter().map(shown).collect(), gradients)
}

/// The results through the mock host's table.
fn by_table(case: &Case) -> Vec<(Vec<usize>, Vec<f64>)> {
    let input = |input: &Input| match input {
        Input::Float(shape, data) => raw::floats(data, shape),
        Input::Ids(ids) => raw::indices(ids),
        Input::None => 0,
    };
    let run = || {
        let inputs: Vec<u64> = case.inputs.iter().map(input).collect();
        let outputs = call(raw::table(), case, &inputs).map_err(fthost_plugin_api::Error::new)?;
        outputs.into_iter().map(raw::take).collect()
    };
    raw::call(run).unwrap()
}

#[track_caller]
fn near(what: &str, case: &Case, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what} of {case:?}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let fits = (found - expected).abs() <= 1e-9 * (1.0 + expected.abs());
        assert!(
            fits,
            "{what} of {} {:?}, element {i}: {found} in the mock host, {expected} in this one",
            case.op, case.ints
        );
    }
}

#[test]
fn the_mock_host_computes_what_this_one_does() {
    for case in raw::cases() {
        // Dropout drops nothing where no run draws: both pass the input on.
        let (expected, gradients) = here(&case);
        let found = by_table(&case);
        assert_eq!(found.len(), expected.len(), "{}", case.op);
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.0, expected.0, "shapes of {} {:?}", case.op, case.ints);
            near("results", &case, &found.1, &expected.1);
        }
        let (_, mock) = raw::run(&case).unwrap();
        for (at, (found, expected)) in mock.iter().zip(&gradients).enumerate() {
            let zeros = |by: &Option<Vec<f64>>| by.as_ref().is_none_or(|by| by.iter().all(|x| *x == 0.0));
            match (found, expected) {
                (Some(found), Some(expected)) => near(&format!("the gradient by input {at}"), &case, found, expected),
                (found, expected) => {
                    assert!(
                        zeros(found) && zeros(expected),
                        "{}: input {at} gets {found:?} here, {expected:?} there",
                        case.op
                    );
                }
            }
        }
    }
}
