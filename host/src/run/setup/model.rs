//! The pretrained model that the run file names, and its tokenizer.

use std::path::PathBuf;
use std::sync::Arc;

use fthost_autograd::Device;
use fthost_autograd::random;
use fthost_images::preprocess::{IMAGENET_MEAN, IMAGENET_STD};
use fthost_images::{Preprocess, Transform};
use fthost_models::{Loader, MODULES, Modality, ModelInfo, PoolBy, Pooling, Quantize, Stream};
use fthost_plugin_api::ImageInfo;

use super::demo;
use crate::adapted::AdaptedModel;
use crate::data::{Learns, Permutation, Tokenizer};
use crate::hub;
use crate::run::file::{BatchNorm, ModelTable, PoolingKey, RunFile, TaskTable};
use crate::{Error, Result};

/// Brings the model here, where the run file names one of the hub: its path is a folder then, its revision a commit.
pub(in crate::run) fn fetch(file: &mut RunFile) -> Result<()> {
    let streams = file.model.streams.iter_mut().map(|own| (&mut own.path, &mut own.named));
    for (path, named) in std::iter::once((&mut file.model.path, &mut file.model.named)).chain(streams) {
        let Some(name) = named else { continue };
        let fetched = hub::fetch(name)?;
        (*path, *named) = (fetched.folder, Some(fetched.name));
    }
    Ok(())
}

/// The model that the run file names, nothing attached.
pub(in crate::run) fn load_model(file: &RunFile, device: Device) -> Result<AdaptedModel> {
    let own = file.model.streams.iter().map(|own| (format!("model.streams.{}", own.name), &own.path));
    let one = file.model.streams.is_empty().then(|| ("model.path".to_owned(), &file.model.path));
    let missing = own.chain(one).find(|(_, path)| !file.model.is_demo() && !path.exists());
    if let Some((key, path)) = missing {
        let message = format!("there is no folder {}", path.display());
        let help = "a model folder holds config.json, model.safetensors and, for text, tokenizer.json; its path is relative to the run file's folder";
        return Err(file.error_at(&key, message, "named here", Some(help.into())));
    }
    let keeps = file.train.batch_norm == BatchNorm::Running;
    let mut loader = Loader::new(&device).quantized(file.model.quantize.map(Into::into)).keeping_statistics(keeps);
    if file.language.is_some() {
        loader = loader.with_vocabulary(file.train.seed);
    }
    if file.tasks.iter().any(|task| task.form.learns == Learns::Matches) {
        loader = loader.with_contrastive();
    }
    let mut base = if !file.model.streams.is_empty() {
        let streams: Vec<_> = file.model.streams.iter().map(|own| (own.name.as_str(), own.path.as_path())).collect();
        loader.join(&streams)?
    } else if file.model.is_demo() {
        fthost_models::from_parts(demo::CONFIG, demo::WEIGHTS, &device)?
    } else if file.model.random() {
        let path = file.model.path.join("config.json");
        let config = std::fs::read_to_string(&path).map_err(Error::io(format!("cannot read {}", path.display())))?;
        loader.random(&config, file.train.seed)?
    } else {
        loader.open(&file.model.path)?
    };
    let pooling = pooling(file, base.info())?;
    base.set_pooling(0, pooling)
        .map_err(|error| file.error_at("model.pooling", crate::error::plain(&error), "asked for here", None))?;
    let mut model = AdaptedModel::new(base, device, file.train.seed);
    check_batch_norm(file, &model)?;
    if let Some(quantize) = file.model.quantize {
        check_quantized(file, quantize.into(), &model)?;
    }
    model.tasks = file.tasks.len();
    model.shared_heads = file.tasks.iter().filter_map(|task| task.head_of).collect();
    if let Some(path) = tokenizer_file(file, &model) {
        // Read when a plugin asks: few do.
        model.tokenize = Some(Box::new(move |text| Tokenizer::load(&path, usize::MAX)?.ids(text)));
    }
    Ok(model)
}

/// Refuses to say how norms over batches train where the model has none.
fn check_batch_norm(file: &RunFile, model: &AdaptedModel) -> Result<()> {
    if file.train.batch_norm == BatchNorm::Batch || model.parameters.iter().any(|p| p.buffer) {
        return Ok(());
    }
    let message = format!("a {} has no batch norms", model.model.info().model_type);
    Err(file.error_at("train.batch_norm", message, "would do nothing", Some("leave it out".into())))
}

/// Refuses a quantisation of which nothing comes.
fn check_quantized(file: &RunFile, quantize: Quantize, model: &AdaptedModel) -> Result<()> {
    if model.parameters.iter().any(|p| p.quantized) {
        return Ok(());
    }
    let why = match file.model.is_demo() || file.model.random() {
        true => "weights that are quantised are read from a folder, and those of this model are not".to_owned(),
        false => {
            format!("no linear layer of the model can be kept in {}: none has rows of whole blocks", quantize.name())
        }
    };
    Err(file.error_at("model.quantize", why, "asked for here", Some("leave it out".into())))
}

/// How the run file has examples pooled, those of the first of two streams.
fn pooling(file: &RunFile, info: &ModelInfo) -> Result<Pooling> {
    let own = info.plain().pooling;
    let by = match file.model.pooling {
        PoolingKey::Auto => {
            // What the folders of two streams say they have taken up when they were joined.
            let asked = !file.model.is_demo() && info.streams.len() == 1;
            let of_folder = if asked { Pooling::of_folder(&file.model.path)? } else { None };
            let Pooling { by, normalize } = of_folder.unwrap_or(own);
            return Ok(Pooling { by, normalize: file.model.normalize.unwrap_or(normalize) });
        }
        PoolingKey::Cls => PoolBy::First,
        PoolingKey::Pooler => PoolBy::Pooler,
        PoolingKey::Mean => PoolBy::Mean,
        PoolingKey::Max => PoolBy::Max,
        PoolingKey::Last => PoolBy::Last,
    };
    Ok(Pooling { by, normalize: file.model.normalize.unwrap_or(false) })
}

/// What becomes of a task's pictures, for a model that takes some: what the run file says, else what the model's folder says, else what
/// is usual for pictures of its size.
pub(in crate::run) fn transform(
    file: &RunFile,
    task: &TaskTable,
    model: &AdaptedModel,
) -> Result<Option<Arc<Transform>>> {
    let info = model.model.info();
    let streams = of_task(file, task, info)?;
    let images = streams.iter().find_map(|&stream| match info.streams[stream].modality {
        Modality::Images { channels, size, any_size, .. } => Some((&info.streams[stream], channels, size, any_size)),
        Modality::Text { .. } => None,
    });
    let Some((stream, channels, size, any_size)) = images else {
        return refuse_keys_of_pictures(file, task, info).map(|()| None);
    };
    let keys = &file.model.image;
    let at = |key: &str, message: String, help: &str| {
        file.error_at(&format!("model.image.{key}"), message, "does not fit", Some(help.into()))
    };
    let asked: Option<(usize, usize)> = keys.size.map(Into::into);
    if let Some((height, width)) = asked.filter(|&asked| !any_size && asked != (size, size)) {
        let other = if height == width { format!("{height}") } else { format!("{width} x {height}") };
        let message = format!("the model takes pictures of {size} x {size} pixels, and no others such as {other}");
        return Err(at("size", message, "leave it out"));
    }
    let folder = file.model.folder_of(&stream.name)?;
    let said = if folder.is_dir() { Preprocess::of_folder(&folder)? } else { None };
    let mut preprocess = match said {
        Some(said) => said,
        None if channels == 3 && size > SMALL => Preprocess::imagenet((size, size))?,
        None if channels == 3 => Preprocess::exact((size, size), &IMAGENET_MEAN, &IMAGENET_STD)?,
        None => Preprocess::exact((size, size), &vec![0.5; channels], &vec![0.5; channels])?,
    };
    let wanted = match asked {
        Some(asked) => asked,
        None if any_size => preprocess.size(),
        None => (size, size),
    };
    if preprocess.size() != wanted {
        preprocess = preprocess.with_size(wanted);
    }
    // What is cut away would have no class.
    if task.has_masks() || keys.whole {
        preprocess = preprocess.whole();
    }
    preprocess.over = keys.over.map(Into::into);
    if keys.mean.is_some() || keys.std.is_some() {
        let or_plain = |own: &Option<Vec<f64>>, plain: f64| own.clone().unwrap_or_else(|| vec![plain; channels]);
        let (mean, std) = (or_plain(&keys.mean, 0.0), or_plain(&keys.std, 1.0));
        for (key, values) in [("mean", &mean), ("std", &std)] {
            if values.len() != channels {
                let message =
                    format!("model.image.{key} has {} numbers, and the model {channels} channels", values.len());
                return Err(at(key, message, "give one for each channel"));
            }
        }
        preprocess.normalise = Preprocess::exact((1, 1), &mean, &std)?.normalise;
    }
    // Of a grey model's pictures its folder says one mean, which stands for any number of channels.
    if channels == 1
        && let Some(grey) = preprocess.normalise.of_grey()
    {
        preprocess.normalise = grey;
    }
    if preprocess.channels() != channels {
        let message = format!(
            "the model takes {channels} channels, and its folder says how {} become numbers",
            preprocess.channels()
        );
        return Err(
            Error::usage(message).with_help("say it in the run file: [model] image = { mean = [...], std = [...] }")
        );
    }
    let void = task.form.pictures.masks.void();
    let transform = Transform::new(preprocess, task.augment.clone()).map(|transform| transform.with_void(void));
    let mut transform = transform.map_err(|error| file.at_task(task, "augment", error.into()))?;
    if let Some(seed) = task.permute_pixels {
        if task.has_masks() {
            let error = Error::usage("pixels that change places leave their masks behind");
            return Err(file.at_task(task, "permute_pixels", error.with_help("take permute_pixels out of the task")));
        }
        let order = Permutation::new(random::Stream::new(seed, "pixels"), transform.pixels());
        transform = transform.with_pixels(|place| order.at(place));
    }
    Ok(Some(Arc::new(transform)))
}

/// How large a task's pictures and their maps are, for a model that makes maps of pictures.
pub(in crate::run) fn image_info(file: &RunFile, task: &TaskTable, model: &AdaptedModel) -> Result<Option<ImageInfo>> {
    let Some(transform) = transform(file, task, model)? else { return Ok(None) };
    let (height, width) = transform.preprocess().size();
    let (size, info) = ([height, width], model.model.info());
    let takes = |stream: &usize| matches!(info.streams[*stream].modality, Modality::Images { .. });
    let stream = of_task(file, task, info)?.into_iter().find(takes).unwrap_or_default();
    Ok(model.model.map_size(stream, size)?.map(|map| ImageInfo { size, map }))
}

/// How many rows a picture puts before a text of a task, for a model that sees.
pub(in crate::run) fn rows_before(file: &RunFile, task: &TaskTable, model: &AdaptedModel) -> Result<usize> {
    let info = model.model.info();
    let streams = of_task(file, task, info)?;
    match &info.sight {
        Some(sight) if streams.contains(&sight.pictures) && streams.contains(&sight.texts) => {
            Ok(image_info(file, task, model)?.map_or(0, |image| image.map[0] * image.map[1]))
        }
        _ => Ok(0),
    }
}

/// The folder of the files of a model's texts; none of the embedded one.
pub(in crate::run) fn text_folder(table: &ModelTable, model: &AdaptedModel) -> Result<Option<PathBuf>> {
    let text = text_stream(model).filter(|_| !table.is_demo());
    text.map(|text| table.folder_of(&text.name)).transpose()
}

/// The streams that a task's examples are for: the one that it names, or all.
///
/// # Errors
/// At the key, where the model has no such stream.
pub(in crate::run) fn of_task(file: &RunFile, task: &TaskTable, info: &ModelInfo) -> Result<Vec<usize>> {
    let Some(name) = &task.stream else { return Ok((0..info.streams.len()).collect()) };
    if let Some(stream) = info.stream(name) {
        return Ok(vec![stream]);
    }
    let index = file.tasks.iter().position(|other| other.name == task.name).unwrap_or_default();
    let names: Vec<String> = info.streams.iter().map(|stream| format!("{:?}", stream.name)).collect();
    let message = format!("the model has no stream {name:?}");
    let help = format!("it has {}", names.join(" and "));
    Err(file.error_at(&format!("task[{index}].stream"), message, "is none of the model", Some(help)))
}

/// What these streams take.
pub(in crate::run) fn modalities(info: &ModelInfo, streams: &[usize]) -> Vec<Modality> {
    streams.iter().map(|&stream| info.streams[stream].modality).collect()
}

/// Refuses what says something of pictures, for a model of texts or a task of its texts alone.
fn refuse_keys_of_pictures(file: &RunFile, task: &TaskTable, info: &ModelInfo) -> Result<()> {
    let takes_some = info.streams.iter().any(|stream| matches!(stream.modality, Modality::Images { .. }));
    let index = file.tasks.iter().position(|other| other.name == task.name).unwrap_or_default();
    let pictures = &task.form.pictures;
    let of_task = [
        ("augment", task.augment.is_random()),
        ("class_folder", pictures.class_folder != Default::default()),
        ("archive_folder", pictures.under.is_some()),
        ("on_bad_image", pictures.on_bad_image != Default::default()),
        ("classes", !pictures.masks.classes.is_empty()),
        ("ignore_index", pictures.masks.ignore_index.is_some()),
        ("permute_pixels", task.permute_pixels.is_some()),
        ("rotate_classes", pictures.rotate_classes),
        ("columns.image", task.form.columns.image.is_some()),
    ];
    let of_task = of_task.into_iter().map(|(key, said)| (format!("task[{index}].{key}"), said));
    let all = of_task.chain([("model.image".to_owned(), !takes_some && file.model.image != Default::default())]);
    match all.into_iter().find(|(_, said)| *said) {
        None => Ok(()),
        Some((path, _)) => {
            let (help, why) = match takes_some {
                true => ("leave it out: it is for a task of pictures", "the task reads text"),
                false => ("leave it out: it is for a model that takes pictures", "the model reads text"),
            };
            Err(file.error_at(&path, format!("{path} does nothing: {why}"), "does nothing", Some(help.into())))
        }
    }
}

/// Side of pictures up to which they are taken whole, where nothing says otherwise; of larger ones the middle.
const SMALL: usize = 96;

/// How a model's examples are pooled, and who says so: `mean, normalised, as modules.json in the model's folder says`.
pub(in crate::run) fn pooling_text(file: &RunFile, model: &AdaptedModel) -> String {
    if let [first, second, ..] = &*model.model.info().streams {
        let one = |stream: &Stream| format!("{} of the stream {}", stream.pooling, stream.name);
        return format!("{}, {}", one(first), one(second));
    }
    let says = match (file.model.pooling, model.model.info().pools_as_its_class()) {
        (PoolingKey::Auto, true) => "as Transformers' class for classification does".into(),
        (PoolingKey::Auto, false) => format!("as {MODULES} in the model's folder says"),
        (_, _) => "as model.pooling says".into(),
    };
    format!("{}, {says}", model.model.info().plain().pooling)
}

/// The tokenizer of a model that reads text.
pub(in crate::run) fn tokenizer_file(file: &RunFile, model: &AdaptedModel) -> Option<PathBuf> {
    let text = text_stream(model)?;
    let folder = file.model.folder_of(&text.name).unwrap_or_else(|_| file.model.path.clone());
    Some(fthost_models::tokenizer_file(&folder))
}

/// The stream that takes texts.
fn text_stream(model: &AdaptedModel) -> Option<&Stream> {
    model.model.info().streams.iter().find(|stream| matches!(stream.modality, Modality::Text { .. }))
}

/// The tokenizer with a task's longest text, which leaves room for the prompts of the strategies that have attached.
pub(in crate::run) fn tokenizer(file: &RunFile, task: &TaskTable, model: &AdaptedModel) -> Result<Option<Tokenizer>> {
    let Some(path) = tokenizer_file(file, model) else { return Ok(None) };
    at_longest(file, task, model, |longest| Tokenizer::load(&path, longest)).map(Some)
}

/// Has a tokenizer that is there cut texts as [`tokenizer`] says.
pub(super) fn fit(tokenizer: &mut Tokenizer, file: &RunFile, task: &TaskTable, model: &AdaptedModel) -> Result<()> {
    at_longest(file, task, model, |longest| tokenizer.cut_to(longest))
}

/// Calls `f` with the longest length of a task's texts.
fn at_longest<T>(
    file: &RunFile,
    task: &TaskTable,
    model: &AdaptedModel,
    f: impl FnOnce(usize) -> Result<T>,
) -> Result<T> {
    let text = text_stream(model).map(|stream| stream.modality);
    let Some(Modality::Text { max_tokens, .. }) = text else { return f(task.max_tokens) };
    let rows = rows_before(file, task, model)?;
    let room = model.model.longest_sequence()?.unwrap_or(max_tokens).saturating_sub(rows);
    f(task.max_tokens.min(room)).map_err(|error| match error {
        Error::Usage { .. } if room < task.max_tokens.min(max_tokens) => {
            let taken = max_tokens - room;
            let (what, help) = match rows {
                0 => ("prompts and prefixes", "give these strategies fewer tokens"),
                _ => ("prompts, prefixes and a picture", "give pictures fewer pixels: [model] image = { size = ... }"),
            };
            let message =
                format!("{what} take {taken} of the model's {max_tokens} positions, which leaves no room for a text");
            Error::usage(message).with_help(help)
        }
        error => file.at_task(task, "max_tokens", error),
    })
}
