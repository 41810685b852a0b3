//! How PEFT's files name the parameters of a model.

use fthost_models::{ModelInfo, Site, SiteKind};

use crate::adapted::{AdaptedModel, ModelParameter, Owner};

/// What stands before every path of a model that PEFT added something inside of.
pub const TUNED: &str = "base_model.model.";
/// What stands before the paths of a model that PEFT added nothing inside of, as with prompts and prefixes.
pub const WRAPPED: &str = "base_model.";

/// The names of one model's parameters.
pub struct Keys<'a> {
    info: &'a ModelInfo,
    /// Whether the model has a head in the class that opens it: only then does anything stand before its paths.
    headed: bool,
    /// The layers that PEFT wraps, because something is declared beside them: it moves their own parameters one level down.
    layers: Vec<&'a Site>,
    /// The stream whose own folder the names are for, of models that are joined: nothing stands before its paths there.
    part: Option<usize>,
}

impl<'a> Keys<'a> {
    /// PEFT's names, in the class with a head (`headed`) or without.
    pub fn of(model: &'a AdaptedModel, headed: bool) -> Self {
        let declared = || model.parameters.iter().filter(|p| p.in_model && matches!(p.owner, Owner::Strategy(_)));
        let below = |name: &str, path: &str| name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        let sites = model.model.sites().iter().filter(|site| matches!(site.kind, SiteKind::Linear | SiteKind::Conv));
        let layers = sites.filter(|site| declared().any(|p| below(p.parameter.name(), &site.path))).collect();
        Self { info: model.model.info(), headed, layers, part: None }
    }

    /// PEFT's names in the model of one stream alone, of models that are joined.
    pub fn of_part(model: &'a AdaptedModel, stream: usize) -> Self {
        let mut keys = Self { part: Some(stream), ..Self::of(model, false) };
        keys.layers.retain(|site| site.stream == Some(stream));
        keys
    }

    /// The paths of the layers that PEFT wraps.
    pub fn layers(&self) -> impl Iterator<Item = String> {
        self.layers.iter().map(|site| format!("{}{}", self.prefix(site.stream), self.within(&site.path)))
    }

    /// The stream whose own folder they are for, of models that are joined.
    pub fn part(&self) -> Option<usize> {
        self.part
    }

    /// The names of fthost's own form, which are the same but that nothing is moved down.
    pub fn plain(model: &'a AdaptedModel) -> Self {
        Self { info: model.model.info(), headed: true, layers: Vec::new(), part: None }
    }

    /// A parameter's name below the root, [`TUNED`] or [`WRAPPED`]; that of one that belongs to no place of the model has no root.
    pub fn path(&self, p: &ModelParameter) -> String {
        let name = p.parameter.name();
        match name.rsplit_once('.') {
            Some((layer, tensor)) if p.owner == Owner::Base && self.layers.iter().any(|site| site.path == layer) => {
                format!("{}{}.base_layer.{tensor}", self.prefix(p.stream), self.within(layer))
            }
            _ => self.plain_path(p),
        }
    }

    /// What a name that begins with a layer's path is below the root; as it is, where it begins with none.
    pub fn beside(&self, sites: &[Site], name: &str) -> String {
        let mut layers = sites.iter().filter(|site| matches!(site.kind, SiteKind::Linear | SiteKind::Conv));
        let site = layers.find(|site| name.strip_prefix(&site.path).is_some_and(|rest| rest.starts_with('.')));
        let prefix = site.map_or("", |site| self.prefix(site.stream));
        format!("{prefix}{}", self.within(name))
    }

    fn prefix(&self, stream: Option<usize>) -> &str {
        if self.headed { self.info.prefix(stream) } else { "" }
    }

    fn within<'b>(&self, path: &'b str) -> &'b str {
        if self.part.is_some() { self.info.within(self.part, path) } else { path }
    }

    /// [`path`](Self::path) in a model that nothing wraps.
    pub fn plain_path(&self, p: &ModelParameter) -> String {
        let name = p.parameter.name();
        match p.owner {
            Owner::Head(_) => head_path(self.info, name),
            Owner::Strategy(_) if !p.in_model => name.to_owned(),
            Owner::Strategy(_) | Owner::Base => format!("{}{}", self.prefix(p.stream), self.within(name)),
        }
    }
}

/// The name that a parameter of the only task's head has once the whole model that a run saves is opened again: a layer that the head
/// brought in place of the model's pooler is the model's own then.
pub fn reopened(info: &ModelInfo, name: &str) -> String {
    let path = head_path(info, name);
    let prefix = &info.plain().prefix;
    let brought = info.hidden_layer().is_some_and(|(hidden, _)| hidden.starts_with(prefix));
    if brought { path.strip_prefix(prefix).unwrap_or(&path).to_owned() } else { name.to_owned() }
}

/// Hugging Face's path of a head's parameter: a head with two layers calls them `dense` and `out_proj`, one with a single layer
/// `classifier`, whatever the architecture calls them. Where its own head has two, one with a single layer stands in its token
/// classification, under that name.
pub fn head_path(info: &ModelInfo, name: &str) -> String {
    let Some((module, tensor)) = name.rsplit_once('.') else { return name.to_owned() };
    let (task, module) = match module.rsplit_once('.') {
        Some((task, module)) => (format!("{task}."), module),
        None => (String::new(), module),
    };
    let module = match (module, info.hidden_layer(), &info.classification) {
        ("dense", Some((dense, _)), _) => dense,
        ("out_proj", _, Some(head)) | ("classifier", None, Some(head)) => head.output.as_str(),
        (other, ..) => other,
    };
    format!("{task}{module}.{tensor}")
}
