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
    for precision in ["f32", "bf16", "f16"] {
        let set = format!("train.precision={precision}");
        let run = |device: &str| {
            let out = format!("{device}-{precision}");
            workdir.fthost(["--plugin", "liblora.so", "--device", device, "--out", &out, "--set", &set])
        };
        let gpu = run("cuda");
        if gpu.code != Some(0) && gpu.stderr.contains("cannot be used") {
            return skipped("no CUDA device");
        }
        gpu.succeeded();
        run("cpu").succeeded();

        let at = |device: &str| workdir.path().join(format!("{device}-{precision}"));
        let (cpu, gpu) = (at("cpu"), at("cuda"));
        assert_eq!(result_json(&gpu)["device"], "cuda:0");
        // Sums in another order differ in the last bits, and training carries them on: the first steps agree closely.
        let tolerance = if precision == "f32" { 1e-3 } else { 2e-2 };
        let first = |run| steps(run).into_iter().take(5).map(|step| step["loss"].as_f64().unwrap());
        for (cpu, gpu) in first(&cpu).zip(first(&gpu)) {
            assert!((cpu - gpu).abs() < tolerance, "{precision}: loss {cpu} on the CPU, {gpu} on the GPU");
        }
        let accuracy = |run| result_json(run)["tasks"]["digits"]["metrics"]["accuracy"].as_f64().unwrap();
        assert!(
            (accuracy(&cpu) - accuracy(&gpu)).abs() < 0.02,
            "{precision}: {} and {}",
            accuracy(&cpu),
            accuracy(&gpu)
        );
    }
}
