//! A first run file for pictures.

use std::path::Path;

use fthost_plugin_api::{MethodKind, problem_type};
use serde_json::json;

use super::common::{FIRST_PICTURE_RUN, FIRST_RUN, absolute, has_option, held_out_beside, method, stem, told_model};
use super::draft::Draft;
use crate::Result;
use crate::data::PicturesSeen;
use crate::plugin::Library;

/// Where no model is named: small, quick on a CPU, and good at ImageNet.
const MODEL: &str = "hf:timm/tf_efficientnet_lite0.in1k";
/// One class this much more frequent than another is worth a weight.
const IMBALANCED: usize = 3;
/// Pictures of a class below which changed ones help most.
const FEW: usize = 1_000;

/// Writes a run file for pictures.
pub(super) fn draft(train: &Path, seen: &PicturesSeen, model: Option<&str>, library: &mut Library) -> Result<Draft> {
    let pictures: usize = seen.classes.iter().map(|(_, pictures)| pictures).sum();
    let mut draft = Draft::new(train, pictures, true, seen.notes.clone());
    draft.section("[model]");
    let (path, why) = told_model(model, MODEL, "no --model was given: a small one that knows ImageNet")?;
    draft.set("path", path.as_str(), why);

    draft.section("[[task]]");
    // A folder is seldom called after what is in it, and more often after what it is for.
    let of = train.parent().filter(|parent| stem(train) == "train" && parent.file_name().is_some()).unwrap_or(train);
    draft.set("name", stem(of).as_str(), "by the folder's name");
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

    let methods =
        [(MethodKind::Strategy, "[[strategy]]", FIRST_PICTURE_RUN), (MethodKind::Scheduler, "[schedule]", FIRST_RUN)];
    for (kind, section, key) in methods {
        method(&mut draft, library, kind, section, key)?;
    }
    draft.section("[train]");
    draft.set("batch_size", 32, "fthost plan measures the memory");
    draft.set("epochs", 10, "the best epoch on the validation examples is kept");
    draft.set("lr", 1e-3, "fthost lr-find looks for a better one");
    Ok(draft)
}
