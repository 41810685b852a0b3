//! A head for ordered classes: CORAL (Cao, Mirjalili and Raschka 2020, doi:10.1016/j.patrec.2020.11.008).
//!
//! ```text
//! z_k      = w h + b_k                                 one weight vector, a threshold between each class and the next
//! P(y > k) = sigmoid(z_k)
//! loss     = sum_i v_i sum_k -[y_i > k] log P_i(y > k) - [y_i <= k] log P_i(y <= k)  over  sum_i v_i
//! ```
//!
//! with v the weights of the examples' classes. As coral-pytorch's `CoralLayer` and `coral_loss`. A class's probability is the difference of two
//! neighbours, P(y > k - 1) - P(y > k), 0 where training has not put the thresholds in order yet. Where the architecture's own head has one more
//! dense layer (RoBERTa, DistilBERT), so has this one. w starts N(0, 0.02) and the thresholds from 1 down, so at step 0 all examples are given
//! about the same.

use fthost_plugin_api::prelude::*;
use fthost_plugin_api::{HeadLayers, HeadShape, MetricSpec, check_shares};

mod classes;
mod metrics;

use classes::Classes;

/// Options of the head for ordered classes.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct OrdinalConfig {
    /// The classes from the lowest to the highest, where their names are not numbers.
    order: Option<Vec<String>>,
    /// Dropout before the last layer; without it what the model's config asks for.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    dropout: Option<f64>,
    /// Weights of the classes in the loss: "none", "balanced" (examples / (classes * examples of the class)), or a list.
    class_weights: ClassWeights,
    /// Standard deviation of the new matrices.
    #[schemars(range(min = 0))]
    init_std: f64,
}

impl Default for OrdinalConfig {
    fn default() -> Self {
        Self { order: None, dropout: None, class_weights: ClassWeights::default(), init_std: 0.02 }
    }
}

struct Ordinal {
    config: OrdinalConfig,
    attached: Option<Attached>,
}

struct Attached {
    /// From features to w h.
    layers: HeadLayers,
    thresholds: Param, // [classes - 1]
    classes: Classes,
    /// Of each class, where they are not all 1.
    weights: Option<Vec<f32>>,
}

impl Ordinal {
    fn attached(&self) -> Result<&Attached> {
        self.attached.as_ref().ok_or_else(|| Error::new("the head is used before it was attached"))
    }
}

impl TaskHead for Ordinal {
    type Config = OrdinalConfig;

    fn new(config: OrdinalConfig) -> Result<Self> {
        check_shares([("dropout", config.dropout.unwrap_or(0.0))])?;
        Ok(Self { config, attached: None })
    }

    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec> {
        let number = task.classes()?;
        let classes = Classes::of(&task.labels, self.config.order.as_deref())?;
        let shape = HeadShape {
            width: task.width,
            outputs: 1,
            hidden: task.hidden_activation.as_deref(),
            bias: false, // the thresholds are
            init_std: self.config.init_std,
            dropout: self.config.dropout.unwrap_or(task.dropout),
        };
        let layers = shape.declare(model)?;
        let between = number - 1;
        let descending: Vec<f32> = (1..=between).rev().map(|k| k as f32 / between as f32).collect();
        let descending = Tensor::from_slice(&descending, [between])?;
        let thresholds = model.head_param("thresholds", [between], Init::copy_of(&descending))?;
        let weights = self.config.class_weights.resolve(&task.class_counts, number)?;
        self.attached = Some(Attached { layers, thresholds, classes, weights });
        let metric = |name: &str, higher_is_better| MetricSpec { name: name.into(), higher_is_better };
        Ok(HeadSpec {
            metrics: vec![metric(metrics::MAE, false), metric(metrics::KAPPA, true)],
            ..HeadSpec::new(FeatureKind::Pooled, TargetKind::Class, PredictionKind::Classes)
        })
    }

    fn forward(&self, features: &Features<'_>) -> Result<Tensor> {
        let Attached { layers, thresholds, .. } = self.attached()?;
        layers.forward(features.tensor)?.add(thresholds) // [examples, classes - 1]
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        let Attached { classes, weights, .. } = self.attached()?;
        let targets = targets.tensor.to_vec_u32()?; // [examples]
        let of = |target: &u32| weights.as_ref().map_or(1.0, |weights| weights[*target as usize]);
        let weights: Vec<f32> = targets.iter().map(of).collect();

        // log s(z) and log s(-z), each with its share of the loss.
        let between = classes.between();
        let (above, below): (Vec<f32>, Vec<f32>) = (targets.iter().zip(&weights))
            .flat_map(|(&target, &weight)| {
                let rank = classes.rank(target);
                (0..between).map(move |k| if rank > k { (weight, 0.0) } else { (0.0, weight) })
            })
            .unzip();
        let terms = above.len();
        let column = |numbers: &[f32]| Tensor::from_slice(numbers, [terms, 1]);
        let zero = column(&vec![0.0; terms])?;
        let logs = Tensor::concat(&[&outputs.reshape([terms, 1])?, &zero], 1)?.log_softmax()?; // [terms, 2]
        let counts = Tensor::concat(&[&column(&above)?, &column(&below)?], 1)?; // [terms, 2]
        let weight = weights.iter().map(|&weight| f64::from(weight)).sum();
        Ok(Loss { sum: logs.mul(&counts)?.sum()?.neg()?, weight })
    }

    fn predict(&self, outputs: &Tensor) -> Result<Tensor> {
        let classes = &self.attached()?.classes;
        let rows = outputs.shape()?[0];
        let edge = |value: f32| Tensor::from_slice(&vec![value; rows], [rows, 1]);
        let beyond = outputs.sigmoid()?; // [examples, classes - 1]: P(y > k)
        let (at_least, beyond) = (
            Tensor::concat(&[&edge(1.0)?, &beyond], 1)?, // [examples, classes]
            Tensor::concat(&[&beyond, &edge(0.0)?], 1)?,
        );
        let by_rank = at_least.sub(&beyond)?.maximum_scalar(0.0)?;
        let by_rank = by_rank.div(&by_rank.sum_dim(-1, true)?)?;
        match classes.ranks_in_label_order() {
            None => Ok(by_rank),
            Some(ranks) => by_rank.t()?.rows(&ranks)?.t(), // [examples, classes]
        }
    }

    fn metrics(&self, predictions: &Tensor, targets: &Tensor) -> Result<std::collections::BTreeMap<String, f64>> {
        let classes = &self.attached()?.classes;
        let ranks = |labels: &[u32]| labels.iter().map(|&label| classes.rank(label)).collect::<Vec<_>>();
        let predicted = metrics::most_probable(&predictions.to_vec_f32()?, classes.between() + 1);
        let (predicted, targets) = (ranks(&predicted), ranks(&targets.to_vec_u32()?));
        Ok([
            (metrics::MAE.to_owned(), metrics::mean_absolute_error(&predicted, &targets)),
            (metrics::KAPPA.to_owned(), metrics::quadratic_kappa(&predicted, &targets, classes.between() + 1)),
        ]
        .into())
    }
}

register! {
    /// Ordered classes from pooled features, by a threshold between each and the next.
    TaskHead "ordinal" => Ordinal
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = [
        "add@1", "clamp_min@1", "concat@1", "div@1", "dropout@1", "index_select@1", "linear@1", "log_softmax@1", "mul@1", "neg@1",
        "reshape@1", "sigmoid@1", "sub@1", "sum@1", "sum_dim@1", "tanh@1", "relu@1", "gelu@1", "transpose@1",
    ],
    min_host_minor = 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::from_value;
    use fthost_plugin_api::test::{HeadRun, Host};

    /// Of the toy's three classes, from `class-2` down to `class-1` and `class-0`.
    fn descending(options: Value) -> HeadRun {
        let mut options = options;
        options["order"] = json!(["class-2", "class-1", "class-0"]);
        Host::new().head::<Ordinal>(options).unwrap()
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-6, "{a} and {b}");
    }

    #[test]
    fn what_holds_for_every_head_holds_for_this_one() {
        for options in [json!({}), json!({ "class_weights": [1.0, 2.0, 0.5], "dropout": 0.4 })] {
            let mut run = descending(options.clone());
            let losses = run.train(1, 20).unwrap();
            assert!(losses[19] < losses[0], "{losses:?}");
            descending(options.clone()).check().unwrap_or_else(|error| panic!("{options}: {error}"));
        }
    }

    #[test]
    fn its_loss_is_the_equation() {
        let run = descending(json!({ "class_weights": [1.0, 2.0, 0.5] }));
        let logits = [0.7, -0.4, 1.5, 0.2];
        // class-1 is above one threshold, class-2 above none.
        let (sum, weight) = run.loss([2, 2], &logits, &[1.0, 2.0]).unwrap();
        let log = |z: f64| -(1.0 + (-z).exp()).ln();
        let [of_first, of_second] = [log(0.7) + log(0.4), log(-1.5) + log(-0.2)];
        close(sum, -(2.0 * of_first + 0.5 * of_second));
        close(weight, 2.5);
    }

    #[test]
    fn probabilities_are_differences_in_the_order_of_labels() {
        let run = descending(json!({}));
        let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
        let found = run.predict([1, 2], &[0.7, -0.4]).unwrap();
        let (above, far) = (sigmoid(0.7), sigmoid(-0.4));
        found.into_iter().zip([far, above - far, 1.0 - above]).for_each(|(a, b)| close(a, b));
        // Thresholds that are not in order yet.
        let found = run.predict([1, 2], &[-1.0, 1.0]).unwrap();
        assert_eq!(found[1], 0.0);
        close(found.iter().sum(), 1.0);
    }

    #[test]
    fn its_metrics_go_by_the_order() {
        let run = descending(json!({}));
        let sure = |class: usize| (0..3).map(move |other| if other == class { 0.8 } else { 0.1 });
        let predictions: Vec<f64> = [2, 1, 0, 0].into_iter().flat_map(sure).collect();
        let found = run.metrics(&predictions, &[2.0, 0.0, 2.0, 0.0]).unwrap();
        close(found[metrics::MAE], (0.0 + 1.0 + 2.0 + 0.0) / 4.0);
        // Squared distances add up to 5, and by chance to 7: counts in the order are 1, 1, 2 and 2, 0, 2.
        close(found[metrics::KAPPA], 1.0 - 5.0 / 7.0);
        let nothing = run.metrics(&[0.8, 0.1, 0.1], &[0.0]).unwrap();
        assert!(nothing[metrics::KAPPA].is_nan() && nothing[metrics::MAE] == 0.0);
    }

    #[test]
    fn refuses_a_dropout_of_one() {
        assert!(Ordinal::new(from_value(json!({ "dropout": 1.0 })).unwrap()).is_err());
    }
}
