//! The table of tests. A new one is a row here and a function in a file of `families`.

use fthost_plugin_api::MethodKind;

use super::families::{faults, file, numbers, odd, options, results, runs, same};
use super::outcome::Outcome;
use super::subject::Subject;
use crate::Result;

use MethodKind::{Optimizer, Regularizer, Scheduler, Strategy, TaskHead};

/// What a test is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// The file as a whole.
    File,
    /// Each method of these kinds.
    Methods(&'static [MethodKind]),
}

/// One test. It runs in a process of its own.
pub(super) struct Test {
    /// Its name.
    pub(super) name: &'static str,
    /// What it is about.
    pub(super) of: Of,
    /// What it shows where it holds.
    pub(super) shows: &'static str,
    /// What an author does where it fails.
    pub(super) advice: &'static str,
    /// Whether it has something to say only of a method that runs.
    pub(super) needs_run: bool,
    /// The test.
    pub(super) run: fn(&Subject) -> Result<Outcome>,
}

const ALL: &[MethodKind] = &[Strategy, Scheduler, Regularizer, TaskHead, Optimizer];

/// The test that all others of a method wait for.
pub(super) const RUNS: &str = "runs";

/// All tests, in the order of the report.
pub(super) static TESTS: &[Test] = &[
    Test {
        name: "note",
        of: Of::File,
        shows: "the notes in the file tell what it registers",
        advice: "let `export_plugin!` and `register!` write the notes; in C, keep note and describe beside each other",
        needs_run: false,
        run: file::note,
    },
    Test {
        name: "plugin-table",
        of: Of::File,
        shows: "the plugin's table has its size, its version and its functions",
        advice: "begin every table with sizeof of its type, and fill in what the header says may not be null",
        needs_run: false,
        run: file::tables,
    },
    Test {
        name: "method-table",
        of: Of::Methods(ALL),
        shows: "the table of an instance has its size and its functions",
        advice: "begin every table with sizeof of its type, and fill in what the header says may not be null",
        needs_run: false,
        run: file::table,
    },
    Test {
        name: RUNS,
        of: Of::Methods(ALL),
        shows: "it trains, is evaluated and saved",
        advice: "fthost RUN.toml with the method shows the same error; --set OPTION=VALUE gives options that it needs, --run RUN.toml a run file that fits",
        needs_run: false,
        run: runs::runs,
    },
    Test {
        name: "older-host",
        of: Of::Methods(ALL),
        shows: "it runs in a host of the first minor",
        advice: "read a field of the host's table that came later only where struct_size reaches it, or say min_host_minor in the note",
        needs_run: true,
        run: runs::older_host,
    },
    Test {
        name: "later-host",
        of: Of::Methods(ALL),
        shows: "it runs in a host whose table is longer",
        advice: "refuse a host that is too short, never one that is longer or of a higher minor",
        needs_run: true,
        run: runs::later_host,
    },
    Test {
        name: "options",
        of: Of::Methods(ALL),
        shows: "options that its schema takes work or are refused by an error",
        advice: "return an error from `new` or `attach`, or narrow the schema (#[schemars(range(min = 1))])",
        needs_run: true,
        run: options::right,
    },
    Test {
        name: "wrong-options",
        of: Of::Methods(ALL),
        shows: "options of another type, out of range or unknown are refused",
        advice: "#[serde(deny_unknown_fields)] refuses what is unknown, #[schemars(range(...))] what is out of range",
        needs_run: false,
        run: options::wrong,
    },
    Test {
        name: "failing-calls",
        of: Of::Methods(ALL),
        shows: "a host call that fails ends its call with an error",
        advice: "hand errors on (`?`); never unwrap a result, never go on with what was there before",
        needs_run: true,
        run: faults::failing_calls,
    },
    Test {
        name: "leaked-handles",
        of: Of::Methods(ALL),
        shows: "every tensor is released or given back",
        advice: "no mem::forget; in C, tensor_release for every output of call_op and tensor_new that is not a result",
        needs_run: true,
        run: faults::leaked_handles,
    },
    Test {
        name: "stale-handles",
        of: Of::Methods(ALL),
        shows: "no handle is used beyond its call",
        advice: "keep numbers in a Param or a Kept (keep@1), never a Tensor",
        needs_run: false,
        run: faults::stale_handles,
    },
    Test {
        name: "odd-calls",
        of: Of::Methods(ALL),
        shows: "calls that a run seldom makes do not panic",
        advice: "return an error where a state is another's, a call comes before `attach`, or an event is out of order",
        needs_run: false,
        run: odd::odd_calls,
    },
    Test {
        name: "repeated",
        of: Of::Methods(ALL),
        shows: "two runs of one seed give the same bits",
        advice: "draw by dropout@1 and Init alone, which follow from the seed; no statics, clocks, or hash maps that are gone through",
        needs_run: true,
        run: same::repeated,
    },
    Test {
        name: "threads",
        of: Of::Methods(&[Strategy, TaskHead]),
        shows: "hooks and heads give the same bits on any thread",
        advice: "keep no state that a forward pass changes: functions marked [any thread] are called on several at once",
        needs_run: true,
        run: same::threads,
    },
    Test {
        name: "gradients",
        of: Of::Methods(&[Strategy, Regularizer, TaskHead]),
        shows: "gradients are the finite differences of what is computed",
        advice: "nothing that trains may be read as numbers or detached on the way to a result",
        needs_run: false,
        run: numbers::gradients,
    },
    Test {
        name: "merge",
        of: Of::Methods(&[Strategy]),
        shows: "the merged weight computes what the hook computes",
        advice: "let `merge` and `merge_bias` give the weight and bias of the layer with the hook, or None where there are none",
        needs_run: false,
        run: numbers::merge,
    },
    Test {
        name: "start",
        of: Of::Methods(&[Strategy]),
        shows: "it starts at the base model, as it says",
        advice: "begin what is added at zero, or let `starts_at_base` say no",
        needs_run: false,
        run: numbers::start,
    },
    Test {
        name: "frozen",
        of: Of::Methods(ALL),
        shows: "weights that do not train keep their bits",
        advice: "set no value of a parameter that does not train, but in `attach`",
        needs_run: false,
        run: runs::frozen,
    },
    Test {
        name: "loss-sums",
        of: Of::Methods(&[TaskHead]),
        shows: "the loss of a batch is the sum of its parts'",
        advice: "return the sum of the terms and their number as the weight, no mean",
        needs_run: false,
        run: numbers::sums,
    },
    Test {
        name: "predictions",
        of: Of::Methods(&[TaskHead]),
        shows: "predictions have the rows, type and range of their kind",
        advice: "let `predict` keep rows as they come, and give what PredictionKind says",
        needs_run: false,
        run: results::predictions,
    },
    Test {
        name: "rates",
        of: Of::Methods(&[Scheduler]),
        shows: "rates are finite and follow from step and group alone",
        advice: "compute the rate from what `rate` is given; what has been seen changes in `on_evaluation` alone",
        needs_run: false,
        run: numbers::rates,
    },
    Test {
        name: "state",
        of: Of::Methods(ALL),
        shows: "a state that was saved, loaded and saved is the same",
        advice: "let `load` take back all that `save` gives",
        needs_run: true,
        run: same::state,
    },
    Test {
        name: "resumed",
        of: Of::Methods(ALL),
        shows: "a run that was killed goes on to the same bits",
        advice: "put what changes while it trains into `save`, or into parameters",
        needs_run: true,
        run: same::resumed,
    },
    Test {
        name: "exports",
        of: Of::Methods(ALL),
        shows: "what a run leaves opens again",
        advice: "adapter_config, adapter_tensors and options_from_peft belong together: one opens what the others save",
        needs_run: true,
        run: results::exports,
    },
];

/// The test of a name.
pub(super) fn named(name: &str) -> Option<&'static Test> {
    TESTS.iter().find(|test| test.name == name)
}
