//! The demo on a GPU gives what it gives on the CPU.

#[cfg(not(feature = "cuda"))]
#[test]
fn the_demo_on_a_gpu() {
    fthost_tests::skipped("no CUDA device: these tests were built without --features cuda");
}

#[cfg(feature = "cuda")]
#[test]
fn the_demo_on_a_gpu() {
    use fthost_tests::{Workdir, result_json, skipped, steps};

    let workdir = Workdir::new();
    let run = |device: &'static str| workdir.fthost(["--plugin", "liblora.so", "--device", device, "--out", device]);
    let gpu = run("cuda");
    if gpu.code != Some(0) && gpu.stderr.contains("cannot be used") {
        return skipped("no CUDA device");
    }
    gpu.succeeded();
    run("cpu").succeeded();

    let (cpu, gpu) = (workdir.path().join("cpu"), workdir.path().join("cuda"));
    assert_eq!(result_json(&gpu)["device"], "cuda:0");
    // Sums in another order differ in the last bits, and training carries them on: the first steps agree closely.
    let first = |run| steps(run).into_iter().take(5).map(|step| step["loss"].as_f64().unwrap());
    for (cpu, gpu) in first(&cpu).zip(first(&gpu)) {
        assert!((cpu - gpu).abs() < 1e-3, "loss {cpu} on the CPU, {gpu} on the GPU");
    }
    let accuracy = |run| result_json(run)["tasks"]["digits"]["metrics"]["accuracy"].as_f64().unwrap();
    assert!((accuracy(&cpu) - accuracy(&gpu)).abs() < 0.02, "{} and {}", accuracy(&cpu), accuracy(&gpu));
}
