//! The host in a program of one's own: the example runs as its documentation says.

use std::process::Command;

use fthost_tests::{Workdir, build, result_json, steps};

#[test]
fn the_example_hears_the_run_stops_it_and_goes_on() {
    let (workdir, built) = (Workdir::new(), build());
    let mut command = Command::new(built.folder().join("examples/embed"));
    command.arg(built.plugin("lora")).args(["embedded", "40"]).current_dir(workdir.path());
    // The heads and schedules that the demo names are found there.
    command.env("FTHOST_PLUGIN_PATH", built.folder());
    let outcome = workdir.run(command).succeeded();
    let said: Vec<&str> = outcome.stdout.lines().collect();
    assert!(said[0].starts_with("digits before: accuracy 0."), "{said:?}");
    assert!(said[1].starts_with("step 40: loss "), "{said:?}");
    assert!(said[2].starts_with("stopped after step 40 of "), "{said:?}");
    assert!(said[3..].iter().any(|line| line.starts_with("digits: accuracy ")), "{said:?}");
    assert!(outcome.stderr.is_empty(), "a host that is embedded prints nothing: {}", outcome.stderr);
    let run = workdir.path().join("embedded");
    assert_eq!(result_json(&run)["folder"], "embedded");
    assert_eq!(result_json(&run)["train"]["steps"], steps(&run).len());
}
