//! Between runs of one process a plugin that was built again is picked up.

use std::fs;
use std::path::Path;

use fthost::Host;
use fthost::run::file::{Override, RunFile};
use fthost_tests::{Workdir, build, root};

/// A short run of the demo with the plugin in a file: the SHA-256 of the plugin that it used.
fn used(plugin: &Path, folder: &Path) -> String {
    let sets = ["train.steps=12", "train.evaluate_before=false"];
    let sets: Vec<Override> = sets.iter().map(|set| Override::set(set).unwrap()).collect();
    let mut host = Host::new().out(folder);
    for plugin in [plugin, &build().plugin("classification"), &build().plugin("cosine")] {
        host = host.plugin(plugin.to_str().unwrap());
    }
    let summary = host.run(RunFile::demo(&sets).unwrap()).unwrap();
    assert_eq!(summary.train.steps, 12);
    summary.plugins.iter().find(|used| used.name == "lora").unwrap().sha256.clone()
}

#[test]
fn a_plugin_that_was_built_again_is_picked_up_by_the_next_run() {
    let workdir = Workdir::new();
    let file = workdir.path().join("liblora.so");
    let builds = [root().join("tests/golden/1.0/liblora.so"), build().plugin("lora")];
    let [then, now] = builds.map(|built| fs::read(built).unwrap());
    let run = |number: u32| used(&file, &workdir.path().join(format!("run-{number}")));

    fs::write(&file, &then).unwrap();
    let first = run(1);
    // Over the file that is open, as a copy would do it: what runs is a copy of its own.
    fs::write(&file, &now).unwrap();
    let second = run(2);
    assert_ne!(first, second);
    // In its place, as a linker would do it; and this one is known already.
    let beside = workdir.write("beside", &then);
    fs::rename(beside, &file).unwrap();
    assert_eq!(run(3), first);
}
