//! More threads than cores.

use std::process::Stdio;
use std::time::{Duration, Instant};

use fthost_tests::{Workdir, steps};

use crate::text::{RUN, text_workdir};

/// A BERT wide enough that sums of its gradients are split over the threads.
fn wide_workdir() -> Workdir {
    let workdir = text_workdir();
    let config = std::fs::read_to_string(workdir.path().join("model/config.json")).unwrap();
    let config = config.replace("\"hidden_size\": 16", "\"hidden_size\": 256");
    let config = config.replace("\"intermediate_size\": 32", "\"intermediate_size\": 512");
    workdir.write("model/config.json", config.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1"));
    let run = RUN.replace("path = \"model\"", "path = \"model\"\ninit = \"random\"").replace("rank = 4\n", "");
    let run = run.replace("plugin = \"lora\"\ntargets = [\"query\", \"value\"]", "plugin = \"full\"");
    workdir
        .write("run.toml", run.replace("epochs = 2", "epochs = 100\nsteps = 200").replace("lr = 0.01", "lr = 0.0001"));
    workdir
}

#[test]
fn eight_threads_end_with_the_bits_of_one() {
    let logs = [1, 8].map(|threads| {
        let workdir = wide_workdir();
        let threads = threads.to_string();
        let mut command = workdir.command([
            "--config",
            "run.toml",
            "--out",
            "run",
            "--threads",
            &threads,
            "--set",
            "train.batch_size=16",
        ]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() > Duration::from_secs(300) {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("200 steps with {threads} threads do not end");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success());
        let mut log = steps(&workdir.path().join("run"));
        log.iter_mut().for_each(|step| drop(step.as_object_mut().unwrap().remove("seconds")));
        log
    });
    assert_eq!(logs[0].len(), 200);
    assert_eq!(logs[0], logs[1]);
}
