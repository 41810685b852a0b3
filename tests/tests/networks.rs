//! Which strategies adapt networks of convolutions: what README.md says of each is what it does on a ResNet and on EfficientNet-Lite0.

use std::fs;
use std::path::Path;

use fthost_tests::{Workdir, on_one_line, root};
use safetensors::SafeTensors;

use crate::pictures::picture_workdir;

/// A ResNet of Transformers' with two stages, and EfficientNet-Lite0 of timm's; both of random weights, for pictures of 32 x 32 pixels.
pub(crate) const NETWORKS: [(&str, &str); 2] = [
    (
        "resnet",
        r#"{ "model_type": "resnet", "num_channels": 3, "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1],
            "layer_type": "basic", "hidden_act": "relu", "downsample_in_first_stage": false, "image_size": 32 }"#,
    ),
    (
        "efficientnet",
        r#"{ "architecture": "tf_efficientnet_lite0", "num_classes": 3, "num_features": 1280, "pretrained_cfg": {
            "input_size": [3, 32, 32], "crop_pct": 1.0, "interpolation": "bicubic", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
            "num_classes": 3, "first_conv": "conv_stem", "classifier": "classifier" } }"#,
    ),
];

/// Strategies with what they need to be told of each network, and what they say where they cannot adapt one.
const STRATEGIES: [(&str, [&str; 2], Option<&str>); 12] = [
    ("full", ["", ""], None),
    ("freezing", ["top = 1\ndecay = 0.5", "top = 1\ndecay = 0.5"], None),
    ("bitfit", ["", ""], None),
    ("lora", ["targets = [\"convolution\"]", "targets = [\"conv_pw\", \"conv_pwl\"]"], None),
    ("adalora", ["targets = [\"convolution\"]", "targets = [\"conv_pw\", \"conv_pwl\"]"], None),
    ("ia3", ["targets = [\"convolution\"]\nfeedforward = []", "targets = [\"conv_pwl\"]\nfeedforward = []"], None),
    ("adapter", ["kind = \"pfeiffer\"", "kind = \"pfeiffer\""], None),
    ("prompt", ["", ""], Some("has no input embedding to adapt")),
    ("prefix", ["", ""], Some("has no attention to adapt")),
    ("vera", ["", ""], Some("this model has no linear layer")),
    ("ema", ["", ""], None),
    ("swa", ["start = 0.0", "start = 0.0"], None),
];

fn workdir(network: &str, config: &str, strategy: &str) -> Workdir {
    let workdir = picture_workdir();
    workdir.write(&format!("{network}/config.json"), config);
    let run = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
    let run = run.replace("path = \"model\"", &format!("path = \"{network}\"\nimage = {{ size = 32 }}"));
    workdir.write("run.toml", run.replace("plugin = \"full\"", strategy));
    workdir
}

#[test]
fn every_strategy_does_on_convolutions_what_the_readme_says() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let strategies: Vec<&str> = readme.lines().filter(|line| line.contains("| strategy |")).collect();
    let named: usize = strategies.iter().map(|row| row.matches("](plugins/").count()).sum();
    assert_eq!(named, STRATEGIES.len(), "a strategy is not tried here");
    for (name, options, refused) in STRATEGIES {
        let row = strategies.iter().find(|row| row.contains(&format!("(plugins/{name})")));
        let says = row.unwrap().trim_end_matches('|').rsplit('|').next().unwrap().trim();
        assert_eq!(says.starts_with("yes"), refused.is_none(), "{name}: {says}");
        for ((network, config), options) in NETWORKS.into_iter().zip(options) {
            let workdir = workdir(network, config, &format!("plugin = \"{name}\"\n{options}"));
            let outcome = workdir.fthost(["run.toml", "--out", "run", "--set", "train.steps=2"]);
            match refused {
                None => drop(outcome.succeeded()),
                Some(why) => {
                    let error = on_one_line(&outcome.failed(2));
                    assert!(error.contains(why), "{name} on {network}: {error}");
                }
            }
        }
    }
}

/// The running means of what a run has saved, one after the other.
fn running_means(folder: &Path) -> Vec<f32> {
    let bytes = fs::read(folder.join("model/model.safetensors")).unwrap();
    let saved = SafeTensors::deserialize(&bytes).unwrap();
    let means = saved.iter().filter(|(name, _)| name.ends_with("running_mean"));
    means
        .flat_map(|(_, view)| {
            view.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn norms_that_train_follow_the_batches_unless_told_to_keep_their_statistics() {
    let (network, config) = NETWORKS[0];
    let workdir = workdir(network, config, "plugin = \"full\"");
    let means = |out: &str, batch_norm: &str| {
        let set = format!("train.batch_norm={batch_norm}");
        workdir.fthost(["run.toml", "--out", out, "--set", "train.steps=2", "--set", &set]).succeeded();
        running_means(&workdir.path().join(out))
    };
    // Those of new norms are zero.
    let kept = means("kept", "running");
    assert!(!kept.is_empty() && kept.iter().all(|&mean| mean == 0.0));
    assert!(means("followed", "batch").iter().any(|&mean| mean != 0.0));

    let outcome = workdir.fthost(["--plugin", "full", "--set", "train.batch_norm=running", "--out", "demo"]);
    let error = on_one_line(&outcome.failed(2));
    assert!(error.contains("has no batch norms") && error.contains("leave it out"), "{error}");
}
