//! A decoder that sees: what stands before its texts is as if it were embeddings of words, and what makes it of pictures trains, is saved and
//! opened.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;

use fthost_models::autograd::{DType, Device, Layout, Result, Tape, Tensor, Value};
use fthost_models::{
    EmbeddingHook, Hook, Input, LinearHook, Loader, Model, Prompt, Read, SavedHead, TextInput, head_weights,
};
use support::{Expected, assert_close, assert_slope, reference, rows, tiny, weights};

const DECODERS: [&str; 7] = ["llama", "llama3", "mistral", "qwen2", "qwen3", "gemma3_text", "gpt2"];
const TOLERANCE: f64 = 1e-5;

fn texts() -> Vec<Vec<u32>> {
    vec![vec![7, 21, 3, 9], vec![4], vec![30, 11, 8]]
}

fn input(texts: &[Vec<u32>], before: Option<Value>) -> Input {
    let layout = Layout::from_lengths(texts.iter().map(Vec::len));
    Input::Text(TextInput { types: vec![0; layout.tokens()], ids: texts.concat(), layout, before })
}

fn decoder(name: &str) -> Box<dyn Model> {
    fthost_models::open(&reference().join("decoders").join(name), &Device::Cpu).unwrap()
}

/// A llama that sees by a vision transformer.
fn seeing(seed: u64) -> Box<dyn Model> {
    let (text, image) = (reference().join("decoders/llama"), tiny("vit"));
    Loader::new(&Device::Cpu).with_vocabulary(seed).join(&[("text", &text), ("image", &image)]).unwrap()
}

/// Three pictures.
fn pictures() -> Input {
    let Input::Images(images) = Expected::tiny("vit").input() else { panic!("pictures") };
    let one = images.narrow(0, 0, 1).unwrap();
    let others = [1.0, -0.5, 0.3].map(|factor| (&one * factor).unwrap());
    Input::Images(Tensor::cat(&others, 0).unwrap())
}

fn maps(model: &dyn Model, tape: &Tape) -> Value {
    model.features(tape, 1, &pictures(), Read::Spatial).unwrap().value
}

fn seen(model: &dyn Model, tape: &Tape) -> Value {
    let before = maps(model, tape);
    model.features(tape, 0, &input(&texts(), Some(before)), Read::Sequence).unwrap().value
}

fn parameter(model: &dyn Model, name: &str) -> Tensor {
    model.parameters().iter().find(|base| base.parameter.name() == name).unwrap().parameter.tensor()
}

/// Puts rows before every text, as prompt tuning does.
struct Prompts;

impl EmbeddingHook for Prompts {
    fn forward(&self, _: &Tape, x: Value, _: &Layout) -> Result<(Value, Option<Prompt>)> {
        let width = x.dims()[1];
        let rows = (0..2 * width).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<f32>>();
        let rows = Value::constant(Tensor::from_vec(rows, (2, width), &Device::Cpu)?);
        Ok((x, Some(Prompt { rows, pool_first_token: false })))
    }
}

/// Rows that are the embeddings of words are those words.
#[test]
fn what_stands_before_texts_is_as_words_are() {
    let words = vec![5u32, 40, 17];
    for name in DECODERS {
        for prompted in [false, true] {
            let mut model = decoder(name);
            let embeddings = model.info().plain().word_embeddings.clone().unwrap();
            let table = parameter(&*model, &format!("{embeddings}.weight"));
            let scale = if name == "gemma3_text" { (model.info().plain().width as f64).sqrt() } else { 1.0 };
            let one = (table.index_select(&Tensor::new(&*words, &Device::Cpu).unwrap(), 0).unwrap() * scale).unwrap();
            if prompted {
                model.set_hook(&embeddings, Hook::Embeddings(Arc::new(Prompts))).unwrap();
            }
            let texts = texts();
            let before = Value::constant(Tensor::cat(&vec![one; texts.len()], 0).unwrap());
            let (tape, as_words) = (Tape::evaluation(), texts.iter().map(|ids| [&words, &**ids].concat()));
            let expected = model.forward(&tape, &input(&as_words.collect::<Vec<_>>(), None), Read::Sequence).unwrap();
            let found = model.forward(&tape, &input(&texts, Some(before.clone())), Read::Sequence).unwrap();
            assert_eq!(found.layout, Layout::from_lengths(texts.iter().map(Vec::len)), "{name}: own tokens alone");
            for (i, ids) in texts.iter().enumerate() {
                let own = rows(expected.value.tensor(), &expected.layout, i).narrow(0, words.len(), ids.len()).unwrap();
                let what = format!("{name}, text {i}, prompts: {prompted}");
                assert_close(&rows(found.value.tensor(), &found.layout, i), &own, TOLERANCE, &what);
            }

            // Token by token as in one pass.
            let mut cache = model.begin(texts.len()).unwrap();
            let firsts: Vec<Vec<u32>> = texts.iter().map(|ids| ids[..1].to_vec()).collect();
            model.extend(&tape, &mut cache, &firsts, Some(&before)).unwrap();
            cache.keep(&[0]);
            for (end, &id) in texts[0].iter().enumerate().skip(1) {
                let next = model.extend(&tape, &mut cache, &[vec![id]], None).unwrap();
                let last = rows(found.value.tensor(), &found.layout, 0).narrow(0, end, 1).unwrap();
                assert_close(next.value.tensor(), &last, TOLERANCE, &format!("{name}, {end}, prompts: {prompted}"));
            }
            let late = model.extend(&tape, &mut cache, &[vec![1]], Some(&before)).unwrap_err().to_string();
            assert!(late.contains("has begun"), "{late}");
        }
    }
}

#[test]
fn a_picture_stands_before_its_text_through_the_projector() {
    let (model, alone, tape) = (seeing(3), decoder("llama"), Tape::evaluation());
    let sight = model.info().sight.clone().unwrap();
    assert_eq!((sight.pictures, sight.texts, sight.projector.len()), (1, 0, 4));
    let layer = model.info().vocabulary.clone().unwrap();
    assert_eq!((layer.weight.as_str(), layer.output.as_str()), ("text.lm_head.weight", "text.lm_head"));
    assert!(model.sites().iter().filter(|site| site.stream.is_none()).count() == 2, "its layers are sites");

    let maps = maps(&*model, &tape);
    let linear = |x: &Tensor, name: &str| {
        let of = |end: &str| parameter(&*model, &format!("multi_modal_projector.{name}.{end}"));
        x.matmul(&of("weight").t().unwrap()).unwrap().broadcast_add(&of("bias")).unwrap()
    };
    let hidden = linear(maps.tensor(), "linear_1").gelu_erf().unwrap();
    let before = Value::constant(linear(&hidden, "linear_2"));
    let expected = alone.forward(&tape, &input(&texts(), Some(before)), Read::Sequence).unwrap().value;
    assert_close(seen(&*model, &tape).tensor(), expected.tensor(), TOLERANCE, "the projector");

    // Without pictures it is its decoder, and each picture is seen by its own text alone.
    let plain = |model: &dyn Model| model.features(&tape, 0, &input(&texts(), None), Read::Sequence).unwrap().value;
    assert_close(plain(&*model).tensor(), plain(&*alone).tensor(), 0.0, "no pictures");
    let Input::Images(images) = pictures() else { panic!("pictures") };
    let last = Input::Images(images.narrow(0, 2, 1).unwrap());
    let before = model.features(&tape, 1, &last, Read::Spatial).unwrap().value;
    let one = model.features(&tape, 0, &input(&texts()[2..], Some(before)), Read::Sequence).unwrap().value;
    let of_all = seen(&*model, &tape).tensor().narrow(0, 5, 3).unwrap();
    assert_close(one.tensor(), &of_all, TOLERANCE, "by itself");

    // The same when its text goes on from a cache.
    let mut cache = model.begin(3).unwrap();
    let found = model.extend(&tape, &mut cache, &texts(), Some(&maps)).unwrap().value;
    let ends = Tensor::new(&[3u32, 4, 7], &Device::Cpu).unwrap();
    let expected = expected.tensor().index_select(&ends, 0).unwrap();
    assert_close(found.tensor(), &expected, TOLERANCE, "cached");
}

/// The derivative along a direction of each parameter of towers and projector, against a difference.
#[test]
fn gradients_are_slopes() {
    let model = seeing(3);
    let tape = Tape::recording();
    let value = seen(&*model, &tape);
    let of_value = weights(value.dims());
    let gradients = tape.backward_from(vec![(value, of_value)]).unwrap();
    let total = || -> f64 {
        let value = seen(&*model, &Tape::evaluation()).into_tensor();
        let product = (&value * weights(value.dims())).unwrap().to_dtype(DType::F64).unwrap();
        product.sum_all().unwrap().to_scalar::<f64>().unwrap()
    };
    let mut met = 0;
    for base in model.parameters() {
        let parameter = &base.parameter;
        let Some(gradient) = gradients.get(parameter) else {
            let name = parameter.name();
            assert!(["text.lm_head", "image.pooler"].iter().any(|unread| name.starts_with(unread)), "{name}");
            continue;
        };
        met += 1;
        assert_slope(parameter, gradient, &total);
    }
    assert!(met > 40, "{met}");
}

#[test]
fn what_is_saved_opens_again_to_the_bit() {
    let model = seeing(3);
    let bias =
        &model.parameters().iter().find(|base| base.parameter.name().ends_with("linear_2.bias")).unwrap().parameter;
    bias.set(&Tensor::ones(16, DType::F32, &Device::Cpu).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    model.save_folder(folder.path(), &SavedHead::default()).unwrap();
    let tape = Tape::evaluation();
    // Whatever it would start from.
    let again = Loader::new(&Device::Cpu).with_vocabulary(8).open(folder.path()).unwrap();
    assert_close(seen(&*again, &tape).tensor(), seen(&*model, &tape).tensor(), 0.0, "opened again");
    assert_eq!((again.files().len(), model.files().len()), (3, 0), "what is new is from no file");
    assert_eq!(seeing(3).parameters().len(), again.parameters().len());
    let config = std::fs::read_to_string(folder.path().join("text/config.json")).unwrap();
    assert!(config.contains("LlamaForCausalLM"), "{config}");
    assert!(head_weights(folder.path()).unwrap().names().next().is_none());

    // For another head it is a pair as any.
    let plain = Loader::new(&Device::Cpu).open(folder.path()).unwrap();
    assert!(plain.info().sight.is_none() && plain.info().vocabulary.is_none());
    let before = maps(&*plain, &tape);
    let error = plain.features(&tape, 0, &input(&texts(), Some(before)), Read::Sequence).unwrap_err().to_string();
    assert!(error.contains("see no pictures"), "{error}");

    // Another seed starts otherwise.
    let other = parameter(&*seeing(4), "multi_modal_projector.linear_1.weight");
    let difference = (other - parameter(&*seeing(3), "multi_modal_projector.linear_1.weight")).unwrap();
    assert!(difference.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() > 0.01);
}

/// Adds to what a layer gives as a change of its weight would.
struct Shift;

impl LinearHook for Shift {
    fn input(&self, _: &Tape, _: &Value) -> Result<Option<Value>> {
        Ok(None)
    }
    fn forward(&self, tape: &Tape, x: &Value, y: Value, weight: &Value) -> Result<Value> {
        tape.add(&y, &tape.linear(x, &tape.affine(weight, 0.5, 0.0)?, None)?)
    }
    fn merge(&self, tape: &Tape, weight: &Value) -> Result<Option<Value>> {
        tape.affine(weight, 1.5, 0.0).map(Some)
    }
}

#[test]
fn hooks_of_the_projector_are_called_and_merged() {
    let mut model = seeing(3);
    let (tape, plain) = (Tape::evaluation(), seen(&*model, &Tape::evaluation()).into_tensor());
    for path in ["multi_modal_projector.linear_1", "text.layers.1.mlp.down_proj"] {
        model.set_hook(path, Hook::Linear(Arc::new(Shift))).unwrap();
        assert!(model.hooked(path));
    }
    let hooked = seen(&*model, &tape).into_tensor();
    let moved = (&hooked - &plain).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(moved > 1e-3, "{moved}");
    model.merge_hooks(&[input(&texts(), None), pictures()]).unwrap();
    assert!(!model.hooked("multi_modal_projector.linear_1"));
    assert_close(seen(&*model, &tape).tensor(), &hooked, TOLERANCE, "merged");
    let error =
        model.set_hook("multi_modal_projector.linear_3", Hook::Linear(Arc::new(Shift))).unwrap_err().to_string();
    assert!(error.contains("the closest is multi_modal_projector.linear_"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let (model, tape) = (seeing(3), Tape::evaluation());
    let two = Value::constant(maps(&*model, &tape).tensor().narrow(0, 0, 8).unwrap());
    let error = model.features(&tape, 0, &input(&texts(), Some(two)), Read::Sequence).unwrap_err().to_string();
    assert!(error.contains("are not those of 3 pictures"), "{error}");
    let wide = Value::constant(Tensor::zeros((6, 5), DType::F32, &Device::Cpu).unwrap());
    let error = decoder("llama").forward(&tape, &input(&texts(), Some(wide.clone())), Read::Sequence);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("6 rows of 5 numbers cannot stand before 3 texts of 16"), "{error}");
    let bert = fthost_models::open(&tiny("bert"), &Device::Cpu).unwrap();
    let error = bert.forward(&tape, &input(&texts(), Some(wide)), Read::Sequence).unwrap_err().to_string();
    assert!(error.contains("nothing but a decoder"), "{error}");
}
