//! Classes by their names alone: an example is of the class whose text is nearest to it (Radford et al. 2021, arXiv:2103.00020).

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use fthost_autograd::DType;
use fthost_plugin_api::{PredictionKind, TargetKind};

use super::model::TrainedModel;
use super::predict::{Place, Prediction, Style, Writer};
use super::side::{Compared, Side};
use crate::adapted::Owner;
use crate::report::metrics::Probabilities;
use crate::report::progress::EvaluationProgress;
use crate::run::pass::Decision;
use crate::run::results::evaluate::{Classes, Evaluation, Outcome};
use crate::run::results::result::{Split, TaskResult};
use crate::{Error, Result};

/// What stands for the name of a class in a template.
const NAME: &str = "{}";
/// The last part of the name of the parameter whose exponential cosines are multiplied with, as CLIP calls it.
const SCALE: &str = "logit_scale";

/// How classes become texts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Named<'a> {
    /// Names of the classes; without them those that the labels of the examples name.
    pub names: Option<&'a [String]>,
    /// Texts in which `{}` stands for a name; the mean of their vectors stands for a class. Without any a name is its text.
    pub templates: &'a [String],
    /// What cosines are divided by, to become probabilities; without it what the head has learned.
    pub temperature: Option<f64>,
}

impl Named<'_> {
    /// The texts of each class, as many of one as of another.
    fn texts(&self, names: &[String]) -> Result<Vec<String>> {
        if let Some(template) = self.templates.iter().find(|template| !template.contains(NAME)) {
            return Err(Error::usage(format!("the template {template:?} has no place for a class's name"))
                .with_help("write {} there: --template \"a photo of a {}\""));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(Error::usage(format!("the class {twice:?} is named twice")).with_help("name each class once"));
        }
        if names.len() < 2 {
            let found = names.first().map_or("none".to_owned(), |name| format!("{name:?} alone"));
            return Err(Error::usage(format!("an example is of one class of several, and there is {found}"))
                .with_help("name two classes at least: --classes \"a cat,a dog\", or a file with one on each line"));
        }
        Ok(match self.templates {
            [] => names.to_vec(),
            templates => {
                let of =
                    |name: &String| templates.iter().map(|template| template.replace(NAME, name)).collect::<Vec<_>>();
                names.iter().flat_map(of).collect()
            }
        })
    }
}

/// Classes as vectors.
struct Classifier {
    names: Vec<String>,
    /// Of length 1, by the classes.
    vectors: Vec<Vec<f32>>,
    /// What cosines are multiplied with.
    scale: f64,
}

impl Classifier {
    /// The probabilities of the classes for an example's vector.
    fn probabilities(&self, example: &[f32]) -> Vec<f32> {
        let product = |class: &Vec<f32>| class.iter().zip(example).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let logits: Vec<f64> = self.vectors.iter().map(|class| self.scale * product(class)).collect();
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let parts: Vec<f64> = logits.iter().map(|logit| (logit - most).exp()).collect();
        let total: f64 = parts.iter().sum();
        parts.iter().map(|part| (part / total) as f32).collect()
    }
}

/// The mean of vectors of length 1, brought to that length: CLIP's ensemble of prompts.
fn mean(vectors: &[Vec<f32>]) -> Vec<f32> {
    let width = vectors.first().map_or(0, Vec::len);
    let sums: Vec<f64> = (0..width).map(|i| vectors.iter().map(|of| f64::from(of[i])).sum()).collect();
    let length = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
    sums.iter().map(|sum| (sum / length.max(f64::MIN_POSITIVE)) as f32).collect()
}

impl TrainedModel {
    /// Evaluates on a file of labelled examples, or a folder with one of pictures for each class, by the classes' names. Gives the task's name
    /// and its result.
    ///
    /// # Errors
    /// Where no head compares, the examples cannot be read, or have a label that none of the classes is.
    pub fn evaluate_named(
        &self,
        task: Option<&str>,
        path: &Path,
        named: Named<'_>,
        shown: bool,
    ) -> Result<(String, TaskResult)> {
        let task = self.comparing(task)?;
        let compared = self.of_examples(task)?;
        let side = self.side(task, compared.0, &compared.1);
        let mut data = side.labelled(path)?;
        data.notes().iter().for_each(|note| tracing::warn!("{note}"));
        data.set_targets(TargetKind::Class)?;
        let own = data.labels().to_vec();
        let names = named.names.unwrap_or(&own);
        let class = |label: &String| {
            names.iter().position(|name| name == label).ok_or_else(|| Error::Data {
                file: path.to_owned(),
                line: None,
                message: format!("has examples of the class {label:?}, which is none of those that are named"),
                help: Some("name it by --classes too; --classes without names takes those of the examples".into()),
            })
        };
        let classes = own.iter().map(class).collect::<Result<Vec<usize>>>()?;
        let classifier = self.classifier(task, names, named)?;

        let progress = EvaluationProgress::new(shown, "evaluating", data.len());
        let vectors = side.vectors(&data, &|examples| progress.advance(examples))?;
        let rows: Vec<Vec<f32>> = vectors.iter().map(|vector| classifier.probabilities(vector)).collect();
        let target = |row: u32| -> Result<u32> {
            let own = data.class(row)?.ok_or_else(|| Error::run("an example without a class"))?;
            Ok(classes[own as usize] as u32)
        };
        let targets = (0..rows.len() as u32).map(target).collect::<Result<Vec<u32>>>()?;
        let decision = Decision::default();
        let predictions: Vec<u32> = rows.iter().map(|row| decision.class(row)).collect();
        let confidences = rows.iter().zip(&predictions).map(|(row, &class)| Some(row[class as usize])).collect();
        let probabilities = Some(Probabilities::new(names.len(), rows.concat()));
        let classes = Classes { confidences, probabilities, ..Classes::new(names, targets, predictions, None) };
        let losses: Vec<f64> = classes.losses().map(|(_, loss)| loss).collect();
        let loss = losses.iter().sum::<f64>() / losses.len() as f64;
        let evaluation = Evaluation::new(Some(loss), Outcome::Classes(classes), names.len());
        let found = Some((Split::Test, &evaluation));
        let name = self.tasks[task].name.clone();
        Ok((name, TaskResult::new(names, Vec::new(), BTreeMap::new(), None, found)))
    }

    /// Writes the most probable class of each example of a file by the classes' names; how many there were.
    ///
    /// # Errors
    /// As [`evaluate_named`](Self::evaluate_named), and where no class is named, or `out` takes no more.
    pub fn predict_named(
        &self,
        task: Option<&str>,
        path: &Path,
        named: Named<'_>,
        style: Style,
        out: &mut dyn Write,
    ) -> Result<u64> {
        let task = self.comparing(task)?;
        let classifier = self.classifier(task, named.names.unwrap_or_default(), named)?;
        let compared = self.of_examples(task)?;
        let side = self.side(task, compared.0, &compared.1);
        let ids = self.tasks[task].form.columns.id.is_some() || side.is_of_pictures();
        let mut writer = Writer::new(out, style, PredictionKind::Classes, &classifier.names, ids, Decision::default());
        let mut number = 0;
        side.each_of_file(path, true, |data| {
            for (row, vector) in (0..).zip(side.vectors(data, &|_| {})?) {
                number += 1;
                let (line, id, texts) = (data.place(row)?.1.unwrap_or(number), data.id(row)?, data.texts(row)?);
                let prediction = Prediction::Example(classifier.probabilities(&vector));
                writer.write(&Place { line, id: id.as_deref(), texts: &texts }, &prediction)?;
            }
            Ok(())
        })?;
        writer.finish()?;
        Ok(number)
    }

    /// The stream whose inputs are examples: that of pictures, or where the head reads none that of texts.
    fn of_examples(&self, task: usize) -> Result<(usize, Compared)> {
        let stream = self.stream_for(task, true, "").or_else(|_| self.stream_for(task, false, "it needs texts"))?;
        Ok((stream, Compared::new(&self.tasks[task], &self.model, stream, self.precision)?))
    }

    fn classifier(&self, task: usize, names: &[String], named: Named<'_>) -> Result<Classifier> {
        let texts = named.texts(names)?;
        let stream = self.stream_for(task, false, "classes are named by texts")?;
        let compared = Compared::new(&self.tasks[task], &self.model, stream, self.precision)?;
        let side: Side<'_> = self.side(task, stream, &compared);
        let vectors = side.of_texts(&texts, "the classes")?;
        let vectors = vectors.chunks(named.templates.len().max(1)).map(mean).collect();
        let scale = match named.temperature {
            Some(temperature) if temperature.is_finite() && temperature > 0.0 => 1.0 / temperature,
            Some(temperature) => {
                return Err(Error::usage(format!("the temperature is {temperature}, and must be above 0"))
                    .with_help("CLIP's own is 0.01"));
            }
            None => self.scale(task)?,
        };
        Ok(Classifier { names: names.to_vec(), vectors, scale })
    }

    /// What a task's head has learned to multiply cosines with.
    fn scale(&self, task: usize) -> Result<f64> {
        let (name, several) = (&self.tasks[task].name, self.tasks.len() > 1);
        let of_model = self.model.model.info().contrastive.as_ref().map(|own| own.scale.as_str());
        let begin = if several { format!("{name}.") } else { String::new() };
        let is_scale = |path: &str, owner: &Owner| match (of_model, owner) {
            (Some(own), _) => path == own,
            (None, Owner::Head(_)) => path.strip_prefix(&begin) == Some(SCALE),
            (None, _) => false,
        };
        let found = self.model.parameters.iter().find(|p| is_scale(p.parameter.name(), &p.owner));
        let Some(found) = found else {
            return Err(Error::usage(format!(
                "the head of the task {name} has learned no temperature, by which cosines become probabilities"
            ))
            .with_help("name it: --temperature 0.05, say, or what its options say"));
        };
        let log = found.parameter.tensor().to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        Ok(log.first().copied().unwrap_or_default().exp())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn names(of: &[&str]) -> Vec<String> {
        of.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn each_class_has_a_text_by_each_template() {
        let templates = names(&["a {}", "{}, a {}"]);
        let named = Named { templates: &templates, ..Named::default() };
        let texts = named.texts(&names(&["cat", "dog"])).unwrap();
        assert_eq!(texts, ["a cat", "cat, a cat", "a dog", "dog, a dog"]);
        assert_eq!(Named::default().texts(&names(&["cat", "dog"])).unwrap(), ["cat", "dog"]);
        let refused = |named: Named<'_>, of: &[&str]| named.texts(&names(of)).unwrap_err().to_string();
        assert!(refused(named, &["cat", "cat"]).contains("the class \"cat\" is named twice"));
        assert!(refused(named, &["cat"]).contains("there is \"cat\" alone"));
        assert!(refused(named, &[]).contains("there is none"));
        let templates = names(&["a photo"]);
        assert!(refused(Named { templates: &templates, ..Named::default() }, &["cat", "dog"]).contains("no place"));
    }

    #[test]
    fn probabilities_are_those_of_scaled_cosines() {
        // The mean of two directions is the one between them, of length 1.
        let between = mean(&[vec![1.0, 0.0], vec![0.0, 1.0]]);
        assert!(between.iter().all(|x| (x - 0.5f32.sqrt()).abs() < 1e-6), "{between:?}");
        let names = names(&["across", "up"]);
        let classifier = Classifier { names, vectors: vec![vec![1.0, 0.0], vec![0.0, 1.0]], scale: 5.0 };
        let found = classifier.probabilities(&[0.6, 0.8]);
        let expected = 1.0 / (1.0 + (-1.0f64).exp()); // e^4 beside e^3
        assert!((f64::from(found[1]) - expected).abs() < 1e-6 && (found[0] + found[1] - 1.0).abs() < 1e-6, "{found:?}");
    }
}
