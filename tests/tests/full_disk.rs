//! Disks that are full: a small one in memory, mounted where only the host sees it.

use std::fs;
use std::process::Command;

use fthost_tests::{Outcome, Workdir, on_one_line, skipped};

use crate::resume::{bits, checkpoints, long_workdir};
use crate::text::LORA;

/// Root of a namespace of its own, where a disk can be mounted that neither the user nor other processes need to know.
const NAMESPACE: [&str; 3] = ["unshare", "--map-root-user", "--mount"];

fn can_mount() -> bool {
    let [program, arguments @ ..] = NAMESPACE;
    let mount = ["mount", "-t", "tmpfs", "tmpfs", "/mnt"];
    Command::new(program).args(arguments).args(mount).output().is_ok_and(|output| output.status.success())
}

/// Runs the host where `disk` is a disk of this size. What is on it at the end is in `kept` afterwards, on the ordinary disk.
fn on_a_small_disk(workdir: &Workdir, size: &str, arguments: &[&str]) -> Outcome {
    fs::create_dir_all(workdir.path().join("disk")).unwrap();
    let script = format!("mount -t tmpfs -o size={size} tmpfs disk; \"$@\"; code=$?; cp -r disk kept; exit $code");
    let host = workdir.command(arguments);
    let [program, rest @ ..] = NAMESPACE;
    let mut command = Command::new(program);
    command.args(rest).args(["sh", "-c", &script, "sh"]).arg(host.get_program()).args(host.get_args());
    command.current_dir(workdir.path());
    for (name, value) in host.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    workdir.run(command)
}

#[test]
fn a_full_disk_keeps_the_last_whole_checkpoint_and_says_how_to_go_on() {
    if !can_mount() {
        return skipped("no disk can be mounted in a namespace (unshare --map-root-user --mount)");
    }
    let strategy = "plugin = \"full\"";
    let settings = ["--set", "train.keep_checkpoints=1000", "--set", "train.checkpoint_steps=1"];
    let started = |out| ["run.toml", "--out", out].into_iter().chain(settings).collect::<Vec<_>>();
    let workdir = long_workdir(strategy);
    let error = on_one_line(&on_a_small_disk(&workdir, "1m", &started("disk/run")).failed(1));

    let run = workdir.path().join("kept/run");
    let (last, whole) = (checkpoints(&run).pop().unwrap(), checkpoints(&run).len());
    let step = |step: usize| format!("disk/run/checkpoints/step-{step:010}.safetensors");
    assert!(last.ends_with(step(whole).strip_prefix("disk/").unwrap()), "{}", last.display());
    let expected = format!(
        "io x cannot write {}: No space left on device (os error 28) help: free some space on the disk, then go on from the \
         last checkpoint, {}: fthost --resume --out disk/run",
        step(whole + 1),
        step(whole)
    );
    assert_eq!(error, expected);
    let beside = fs::read_dir(run.join("checkpoints")).unwrap().count();
    assert_eq!(beside, whole, "half a file is left: {:?}", workdir.listing());

    workdir.fthost(["--resume", "--out", "kept/run"]).succeeded();
    let through = long_workdir(strategy);
    through.fthost(started("run")).succeeded();
    assert!(bits(&through.path().join("run")) == bits(&run), "the run that went on ends with other bits");
}

#[test]
fn a_model_that_does_not_fit_on_the_disk_leaves_nothing() {
    if !can_mount() {
        return skipped("no disk can be mounted in a namespace (unshare --map-root-user --mount)");
    }
    let workdir = long_workdir(LORA);
    workdir
        .fthost(["run.toml", "--out", "run", "--set", "train.epochs=1", "--set", "train.checkpoint_steps=2"])
        .succeeded();
    let error = on_one_line(&on_a_small_disk(&workdir, "16k", &["merge", "run", "disk/merged"]).failed(1));
    assert_eq!(
        error,
        "io x cannot write disk/merged/model.safetensors: No space left on device (os error 28) \
         help: nothing is left of disk/merged; name a folder on a disk with more space"
    );
    assert_eq!(fs::read_dir(workdir.path().join("kept")).unwrap().count(), 0, "{:?}", workdir.listing());
}
