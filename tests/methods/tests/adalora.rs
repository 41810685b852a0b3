//! AdaLoRA in a host of the test's own, against the numbers that `tests/reference/make_adalora.py` got from PEFT.

use fthost::adapted::AdaptedModel;
use fthost::plugin::{RegularizerInstance, Stateful, StrategyInstance};
use fthost_autograd::{Gradients, Tape, Value as Node};
use fthost_plugin_api::Event;
use serde_json::{Value, json};

use crate::host::{gradient, parameter, plugin, tiny_bert};
use crate::reference::{self, close};

/// The two layers, with a penalty on their vectors, along one of PEFT's trainings.
struct Run {
    model: AdaptedModel,
    strategy: StrategyInstance,
    penalty: RegularizerInstance,
    training: Value,
}

impl Run {
    fn new(number: usize) -> Self {
        let training = reference::read("adalora.json")["trainings"][number].clone();
        let mut options = training["options"].clone();
        let options = options.as_object_mut().unwrap();
        let every = options.remove("deltaT").unwrap();
        options.insert("delta_t".into(), every);
        options.insert("targets".into(), json!(["0.attention.self.query", "0.intermediate.dense"]));
        let (mut model, plugin) = (tiny_bert(), plugin("adalora"));
        let mut strategy = StrategyInstance::create(&plugin, "adalora", &json!(options)).unwrap();
        strategy.attach(&mut model, 0).unwrap();
        let options = json!({ "orth_reg_weight": training["orth_reg_weight"] });
        let mut penalty = RegularizerInstance::create(&plugin, "adalora", &options).unwrap();
        penalty.attach(&mut model).unwrap();
        let run = Self { model, strategy, penalty, training };
        run.set(&run.training["start"]);
        run
    }

    fn steps(&self) -> u64 {
        self.training["total_step"].as_u64().unwrap()
    }

    fn set(&self, values: &Value) {
        for (name, values) in values.as_object().unwrap() {
            let parameter = parameter(&self.model, name);
            parameter.set(&reference::tensor(values, parameter.dims())).unwrap();
        }
    }

    fn tell(&mut self, event: &Event) {
        self.strategy.event(event, &mut self.model, None).unwrap();
    }

    /// The penalty, and its gradients.
    fn penalty(&self) -> (f32, Gradients) {
        let tape = Tape::recording();
        let penalty = self.penalty.penalty(&tape).unwrap().unwrap();
        (penalty.tensor().to_scalar().unwrap(), tape.backward(&penalty).unwrap())
    }

    /// The gradients of a loss that has these: a sum of products with constants.
    fn gradients(&self, of: &Value) -> Gradients {
        let tape = Tape::recording();
        let mut sum = Node::constant(reference::tensor(&json!([0.0]), &[]));
        for (name, numbers) in of.as_object().unwrap() {
            let parameter = parameter(&self.model, name);
            let constants = Node::constant(reference::tensor(numbers, parameter.dims()));
            let term = tape.sum(&tape.mul(&tape.parameter(parameter), &constants).unwrap()).unwrap();
            sum = tape.add(&sum, &term).unwrap();
        }
        tape.backward(&sum).unwrap()
    }

    /// A step as PEFT took it, and what PEFT left.
    fn step(&mut self, step: u64) {
        let (of, total_steps) = (self.training["steps"][step as usize].clone(), self.steps());
        close(&[self.penalty().0], &json!([of["penalty"]]));
        self.tell(&Event::StepBegin { step, total_steps });
        self.model.stepped = Some(self.gradients(&of["gradients"]));
        self.set(&of["values"]);
        self.tell(&Event::StepEnd { step, total_steps, loss: 1.0 });
        self.model.stepped = None;
        for (name, expected) in of["left"].as_object().unwrap() {
            let found: Vec<f32> = parameter(&self.model, name).tensor().flatten_all().unwrap().to_vec1().unwrap();
            assert_eq!(found, reference::floats(expected), "{name} after step {step}");
        }
        let state = self.strategy.save().unwrap();
        let expected = of["sensitivity"].as_object().unwrap();
        assert_eq!(state.tensors.is_empty(), expected.is_empty(), "importances end with the allocation");
        for (name, expected) in expected {
            let found = &state.tensors[&format!("sensitivity.{name}")];
            close(&found.flatten_all().unwrap().to_vec1::<f32>().unwrap(), expected);
        }
    }

    /// That of these values those are zero that the ranks leave out.
    fn leaves(&self, values: &Value) {
        for (name, left) in self.training["rank_pattern"].as_object().unwrap() {
            let found: Vec<f32> = parameter(&self.model, name).tensor().flatten_all().unwrap().to_vec1().unwrap();
            let left = left.as_array().unwrap().iter().map(|left| left == true);
            let expected: Vec<f32> = reference::floats(&values[name])
                .into_iter()
                .zip(left)
                .map(|(x, left)| if left { x } else { 0.0 })
                .collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    /// What is saved is what PEFT would save.
    fn end(&self) {
        let config = self.strategy.adapter_config().unwrap().unwrap();
        assert_eq!(config["rank_pattern"], self.training["rank_pattern"]);
        assert_eq!(config["total_step"], self.training["total_step"]);
        let saved = self.strategy.adapter_tensors().unwrap().unwrap();
        let init_r = self.training["options"]["init_r"].as_f64().unwrap();
        for (path, expected) in self.training["delta"].as_object().unwrap() {
            let [a, b, e] = ["lora_A", "lora_B", "lora_E"].map(|part| &saved[&format!("{path}.{part}")]);
            let left = self.training["rank_pattern"][format!("{path}.lora_E")].as_array().unwrap();
            let rank = left.iter().filter(|left| **left == json!(true)).count();
            assert_eq!([a.dims()[0], b.dims()[1], e.dims()[0]], [rank; 3], "{path}");
            if rank > 0 {
                let update = b.matmul(&a.broadcast_mul(e).unwrap()).unwrap().affine(8.0 / (init_r + 1e-5), 0.0);
                let update = update.unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
                close(&update[..32], expected);
            }
        }
    }
}

#[test]
fn penalties_importances_and_ranks_are_pefts() {
    for number in 0..2 {
        let mut run = Run::new(number);
        (0..run.steps()).for_each(|step| run.step(step));
        run.end();
        let (penalty, gradients) = run.penalty();
        close(&[penalty], &json!([run.training["end"]["penalty"]]));
        let expected = run.training["end"]["gradients"].as_object().unwrap();
        assert_eq!((gradients.len(), expected.len()), (4, 4));
        for (name, expected) in expected {
            close(&gradient(&gradients, parameter(&run.model, name)), expected);
        }
    }
}

/// Where a checkpoint is taken up, in each phase of the schedule, all goes on to the same bits.
#[test]
fn states_are_saved_and_taken_back() {
    let mut through = Run::new(0);
    for step in 0..through.steps() {
        through.step(step);
        let state = through.strategy.save().unwrap();
        let mut resumed = Run::new(0);
        resumed.set(&through.training["steps"][step as usize]["values"]);
        resumed.set(&through.training["steps"][step as usize]["left"]);
        resumed.strategy.load(&state).unwrap();
        (step + 1..resumed.steps()).for_each(|step| resumed.step(step));
        resumed.end();
    }
    let state = through.strategy.save().unwrap();
    let mut other = Run::new(0);
    let mut damaged = state.clone();
    damaged.json["settled"] = json!({ "pooler.dense": [true] });
    let error = other.strategy.load(&damaged).unwrap_err().to_string();
    assert!(error.contains("the state has ranks of pooler.dense, and it is of another model"), "{error}");
}

/// Ranks that are settled stay for the tasks that follow.
#[test]
fn a_second_task_trains_within_the_ranks_of_the_first() {
    let mut run = Run::new(0);
    (0..run.steps()).for_each(|step| run.step(step));
    run.tell(&Event::TaskEnd { task: "first".into() });
    let steps = run.training["steps"].clone();
    run.tell(&Event::StepBegin { step: 0, total_steps: 1 }); // too short to allocate in
    run.model.stepped = Some(run.gradients(&steps[0]["gradients"]));
    run.set(&steps[0]["values"]);
    run.tell(&Event::StepEnd { step: 0, total_steps: 1, loss: 1.0 });
    run.leaves(&steps[0]["values"]);
}

/// A step without update, as one that overflowed, is none of importances.
#[test]
fn steps_that_were_left_out_teach_nothing() {
    let mut run = Run::new(0);
    run.tell(&Event::StepBegin { step: 0, total_steps: 8 });
    run.model.stepped = Some(Gradients::default());
    run.tell(&Event::StepEnd { step: 0, total_steps: 8, loss: 1.0 });
    assert!(run.strategy.save().unwrap().tensors.is_empty());
}

#[test]
fn the_penalty_refuses_a_model_without_triplets() {
    let mut penalty = RegularizerInstance::create(&plugin("adalora"), "adalora", &json!({})).unwrap();
    let error = penalty.attach(&mut tiny_bert()).unwrap_err().to_string();
    assert!(error.contains("add [[strategy]] plugin = \"adalora\""), "{error}");
}
