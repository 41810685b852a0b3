//! Which strategies adapt networks of convolutions: what README.md says of each is what it does on a ResNet and on EfficientNet-Lite0.

use std::fs;

use fthost_tests::{Workdir, on_one_line, root};

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
