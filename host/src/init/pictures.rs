//! A first run file for pictures.

use std::path::Path;

use fthost_plugin_api::{MethodKind, problem_type};
use serde_json::json;

use super::common::{FIRST_PICTURE_RUN, FIRST_RUN, absolute, has_option, held_out_beside, method, stem, told_model};
use super::draft::Draft;
use crate::Result;
use crate::data::{MasksSeen, PicturesSeen};
use crate::plugin::Library;

/// Where no model is named: small, quick on a CPU, and good at ImageNet.
const MODEL: &str = "hf:timm/tf_efficientnet_lite0.in1k";
/// One class this much more frequent than another is worth a weight.
const IMBALANCED: usize = 3;
/// Pictures of a class below which changed ones help most.
const FEW: usize = 1_000;

/// Pictures of a batch, and of those with masks, which take more memory each.
const PICTURES_AT_ONCE: usize = 32;
const MASKS_AT_ONCE: usize = 8;
/// The shorter side of pictures with masks at most, and what their sides are multiples of: the stride of most networks.
const SHORTER: usize = 256;
const STEP: usize = 32;

/// Writes a run file for pictures.
pub(super) fn draft(train: &Path, seen: &PicturesSeen, model: Option<&str>, library: &mut Library) -> Result<Draft> {
    let pictures: usize = seen.classes.iter().map(|(_, pictures)| pictures).sum();
    let pictures = seen.masks.as_ref().map_or(pictures, |masks| masks.pictures);
    let mut draft = Draft::new(train, pictures, true, seen.notes.clone());
    draft.section("[model]");
    let (path, why) = told_model(model, MODEL, "no --model was given: a small one that knows ImageNet")?;
    draft.set("path", path.as_str(), why);
    if let Some(masks) = &seen.masks {
        let why = "height and width, nearly those of the pictures; leave it out for a model that takes one size alone";
        draft.set("image", json!({ "size": size_of(masks) }), why);
    }

    draft.section("[[task]]");
    // A folder is seldom called after what is in it, and more often after what it is for.
    let of = train.parent().filter(|parent| stem(train) == "train" && parent.file_name().is_some()).unwrap_or(train);
    draft.set("name", stem(of).as_str(), "by the folder's name");
    if let Some(masks) = &seen.masks {
        of_masks(&mut draft, masks, library)?;
        draft.set("train", absolute(train)?.as_str(), &format!("{} pictures with masks", masks.pictures));
        held_out_beside(&mut draft, train)?;
        draft.set("augment", json!(["flip"]), "left and right exchanged, of the masks too");
        return training(draft, MASKS_AT_ONCE, library);
    }
    let (_, head) = library.serving(MethodKind::TaskHead, problem_type::SINGLE_LABEL)?;
    let (most, least) = (seen.classes.iter().max_by_key(|(_, n)| *n), seen.classes.iter().min_by_key(|(_, n)| *n));
    let balance = most.zip(least).filter(|((_, many), (_, few))| *many > IMBALANCED * few);
    let balance = balance.map(|((most, many), (least, few))| format!("{most:?} has {many} pictures, {least:?} {few}"));
    let balance = balance.filter(|_| has_option(&head, "class_weights"));
    let why = format!("{} folders of pictures, a class each", seen.classes.len());
    draft.head(&head.name, &why, balance.as_deref());
    draft.set("train", absolute(train)?.as_str(), &format!("{pictures} pictures"));
    held_out_beside(&mut draft, train)?;
    if least.is_some_and(|(_, few)| *few < FEW) {
        let why = "few pictures of a class: other parts of them in each epoch, left and right exchanged (not for letters, digits or signs)";
        draft.set("augment", json!(["random_resized_crop", "flip"]), why);
    }
    training(draft, PICTURES_AT_ONCE, library)
}

/// What a task of masks says of them.
fn of_masks(draft: &mut Draft, seen: &MasksSeen, library: &mut Library) -> Result<()> {
    let (_, head) = library.serving(MethodKind::TaskHead, problem_type::MASKS)?;
    let levels: Vec<u8> = seen.levels.iter().copied().filter(|&level| level != u8::MAX).collect();
    let highest = levels.last().copied().unwrap_or_default();
    let why = format!("each picture has a mask; {} of these have levels up to {highest}", seen.looked_at);
    draft.head(&head.name, &why, None);
    let names: Vec<String> = (0..=highest).map(|level| level.to_string()).collect();
    let why = match seen.levels.contains(&u8::MAX) {
        true => "give them names, in the order of the levels; 255 is what pixels without a class have",
        false => {
            "give them names, in the order of the levels; if one of the levels means no class, say it: ignore_index = N"
        }
    };
    draft.set("classes", json!(names), why);
    Ok(())
}

/// The pictures' own shape, no longer than a few hundred pixels and in steps that halve evenly.
fn size_of(seen: &MasksSeen) -> [usize; 2] {
    let (height, width) = seen.size;
    let shrink = (SHORTER as f64 / height.min(width) as f64).min(1.0);
    [height, width].map(|side| ((side as f64 * shrink / STEP as f64).round() as usize).max(1) * STEP)
}

/// How a first run trains.
fn training(mut draft: Draft, batch_size: usize, library: &mut Library) -> Result<Draft> {
    let methods =
        [(MethodKind::Strategy, "[[strategy]]", FIRST_PICTURE_RUN), (MethodKind::Scheduler, "[schedule]", FIRST_RUN)];
    for (kind, section, key) in methods {
        method(&mut draft, library, kind, section, key)?;
    }
    draft.section("[train]");
    draft.set("batch_size", batch_size, "fthost plan measures the memory");
    draft.set("epochs", 10, "the best epoch on the validation examples is kept");
    draft.set("lr", 1e-3, "fthost lr-find looks for a better one");
    Ok(draft)
}
