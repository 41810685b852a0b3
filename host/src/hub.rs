//! Models by name: `hf:org/name@revision`, from the Hugging Face Hub by way of the cache that Python's libraries share.
//!
//! The crate hf-hub speaks the routes and lays files down as Python does. What it leaves to its caller stands here: the environment's
//! variables, which files a model needs, proof that they came whole, and what is done without a network.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::report::progress::DownloadProgress;
use crate::{Error, Result};

/// What stands before a name where a path could stand too.
pub const SCHEME: &str = "hf:";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const CONFIG: &str = "config.json";

/// A model on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// `org/name`; a few old models have no organisation.
    pub id: String,
    /// Branch, tag or commit.
    pub revision: String,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}@{}", self.id, self.revision)
    }
}

impl FromStr for Name {
    type Err = String;

    /// Of `hf:org/name@revision`, the revision by default `main`; otherwise what is wrong with it.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let name = text.strip_prefix(SCHEME).unwrap_or(text);
        let (id, revision) = name.split_once('@').unwrap_or((name, "main"));
        let part = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty() && part.chars().all(allowed) && !part.contains("..") && !part.starts_with(['-', '.'])
        };
        let parts: Vec<&str> = id.split('/').collect();
        if parts.len() > 2 || !parts.into_iter().all(part) {
            return Err(format!("{id:?} names no model of the hub: a name is organisation/model"));
        }
        if revision.is_empty() || !revision.split('/').all(part) {
            return Err(format!("{revision:?} is no revision: a branch, tag or commit"));
        }
        Ok(Self { id: id.into(), revision: revision.into() })
    }
}

impl Name {
    /// The name in a path, where it is one: `hf:` and what follows.
    ///
    /// # Errors
    /// Where it begins as a name and is none.
    pub fn of_path(path: &Path) -> Option<std::result::Result<Self, String>> {
        path.to_str().filter(|text| text.starts_with(SCHEME)).map(str::parse)
    }

    /// Whether the revision is a commit, which never changes.
    fn is_pinned(&self) -> bool {
        self.revision.len() == 40 && self.revision.bytes().all(|c| c.is_ascii_hexdigit())
    }

    fn repo(&self) -> Repo {
        Repo::with_revision(self.id.clone(), RepoType::Model, self.revision.clone())
    }
}

/// The files of a model on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Their folder in the cache.
    pub folder: PathBuf,
    /// The model, its revision the commit that they are of.
    pub name: Name,
}

/// What Python's libraries read from the environment.
#[derive(Debug)]
struct Settings {
    cache: Cache,
    endpoint: String,
    token: Option<String>,
    offline: bool,
    /// Whether progress is not to be seen.
    hidden: bool,
}

impl Settings {
    fn from_env() -> Self {
        let of = |names: &[&str]| {
            names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.trim().is_empty()))
        };
        let on = |name: &str| {
            of(&[name]).is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str()))
        };
        let user_cache =
            of(&["XDG_CACHE_HOME"]).map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cache")));
        let home = of(&["HF_HOME"]).map_or_else(|| user_cache.unwrap_or_default().join("huggingface"), PathBuf::from);
        let cache = of(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]).map_or_else(|| home.join("hub"), PathBuf::from);
        let in_file = || {
            let file = of(&["HF_TOKEN_PATH"]).map_or_else(|| home.join("token"), PathBuf::from);
            let text = std::fs::read_to_string(file).ok().filter(|text| !text.trim().is_empty());
            text.filter(|_| !on("HF_HUB_DISABLE_IMPLICIT_TOKEN"))
        };
        Self {
            cache: Cache::new(cache),
            endpoint: of(&["HF_ENDPOINT"])
                .map_or_else(|| "https://huggingface.co".into(), |url| url.trim_end_matches('/').into()),
            token: of(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]).or_else(in_file).map(|token| token.trim().to_owned()),
            hidden: on("HF_HUB_DISABLE_PROGRESS_BARS"),
            offline: on("HF_HUB_OFFLINE") || on("TRANSFORMERS_OFFLINE"),
        }
    }
}

/// The folder that a path names: itself, or that of a model of the hub, fetched.
///
/// # Errors
/// As [`fetch`].
pub fn local(path: &Path) -> Result<PathBuf> {
    match Name::of_path(path) {
        None => Ok(path.to_owned()),
        Some(name) => Ok(fetch(&name.map_err(Error::usage)?)?.folder),
    }
}

/// Brings what is needed of a model into the cache, if it is not there. Says on standard error what it downloads.
///
/// # Errors
/// Where there is no such model, it is not open to this user, a file came damaged, or there is neither network nor cache.
pub fn fetch(name: &Name) -> Result<Fetched> {
    let settings = Settings::from_env();
    let cached = cached(&settings, name);
    if settings.offline || name.is_pinned() && cached.is_some() {
        return cached.ok_or_else(|| {
            let message = format!("{name} is not in {}, and HF_HUB_OFFLINE is set", settings.cache.path().display());
            Error::usage(message).with_help(ELSEWHERE)
        });
    }
    match download(&settings, name) {
        Err(Failure::Unreachable(why)) => match cached {
            Some(cached) => {
                tracing::warn!(
                    "{} cannot be reached ({why}): {} is what the cache holds",
                    settings.endpoint,
                    cached.name
                );
                Ok(cached)
            }
            None => Err(Error::usage(format!("{} cannot be reached: {why}", settings.endpoint)).with_help(ELSEWHERE)),
        },
        Err(Failure::Said(error)) => Err(error),
        Ok(fetched) => Ok(fetched),
    }
}

const ELSEWHERE: &str = "run it once where there is a network, or name a folder that holds config.json, model.safetensors and, for text, tokenizer.json: model.path";

/// What the cache holds of a model without asking anyone, if that is a whole model.
fn cached(settings: &Settings, name: &Name) -> Option<Fetched> {
    let repo = settings.cache.repo(name.repo());
    let commit = if name.is_pinned() {
        name.revision.clone()
    } else {
        let refs = settings.cache.path().join(name.repo().folder_name()).join("refs").join(&name.revision);
        std::fs::read_to_string(refs).ok()?.trim().to_owned()
    };
    let folder = repo.pointer_path(&commit);
    let whole =
        folder.join(CONFIG).is_file() && weights_of(&folder).ok()?.iter().all(|file| folder.join(file).is_file());
    whole.then(|| Fetched { folder, name: Name { id: name.id.clone(), revision: commit } })
}

/// The files that hold the weights of a folder: one, or the shards of an index.
fn weights_of(folder: &Path) -> Result<Vec<String>> {
    let file = folder.join(INDEX);
    if folder.join(WEIGHTS).is_file() || !file.is_file() {
        return Ok(vec![WEIGHTS.into()]);
    }
    let text = std::fs::read_to_string(&file).map_err(Error::io(format!("cannot read {}", file.display())))?;
    let index: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| Error::usage(format!("{}: {error}", file.display())))?;
    let files =
        index["weight_map"].as_object().into_iter().flat_map(|map| map.values().filter_map(|file| file.as_str()));
    Ok(files.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect())
}

/// Why nothing was downloaded.
enum Failure {
    /// Nobody answered.
    Unreachable(String),
    /// Anything that waiting does not mend.
    Said(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Said(error)
    }
}

fn download(settings: &Settings, name: &Name) -> std::result::Result<Fetched, Failure> {
    let api = ApiBuilder::from_cache(settings.cache.clone())
        .with_endpoint(settings.endpoint.clone())
        .with_token(settings.token.clone())
        .with_retries(3)
        .build()
        .map_err(|error| Failure::Unreachable(error.to_string()))?;
    let info = api.repo(name.repo()).info().map_err(|error| failure(settings, name, None, error))?;
    // From here on by commit: a branch that moves meanwhile must not mix two states.
    let pinned = Name { id: name.id.clone(), revision: info.sha.clone() };
    let files: Vec<&str> = info.siblings.iter().map(|file| file.rfilename.as_str()).collect();
    if !files.contains(&CONFIG) {
        return Err(Error::usage(format!("{name} has no {CONFIG}: it is no model of Transformers'")).into());
    }
    let remote =
        Remote { settings, name: &pinned, api: api.repo(pinned.repo()), cache: settings.cache.repo(pinned.repo()) };
    for file in files.iter().filter(|file| describes(file)) {
        remote.bring(file)?;
    }
    let folder = remote.cache.pointer_path(&info.sha);
    if !files.contains(&WEIGHTS) && !files.contains(&INDEX) {
        let others: Vec<&str> =
            files.iter().copied().filter(|file| WEIGHT_ENDINGS.iter().any(|end| file.ends_with(end))).collect();
        let message = format!(
            "{name} has no {WEIGHTS}; its weights are {}",
            if others.is_empty() { "nowhere".into() } else { others.join(", ") }
        );
        return Err(Error::usage(message).with_help("many such models have a revision with safetensors: refs/pr/N, or convert it with Transformers' save_pretrained").into());
    }
    for file in if files.contains(&WEIGHTS) { vec![WEIGHTS.to_owned()] } else { weights_of(&folder)? } {
        remote.bring(&file)?;
    }
    settings
        .cache
        .repo(name.repo())
        .create_ref(&info.sha)
        .map_err(Error::io(format!("cannot write in {}", settings.cache.path().display())))?;
    Ok(Fetched { folder, name: pinned })
}

/// Endings of files that hold weights in other forms.
const WEIGHT_ENDINGS: [&str; 6] = [".bin", ".pth", ".pt", ".h5", ".msgpack", ".gguf"];

/// Whether a file says what a model is or how text becomes tokens; also the parts of a sentence-transformers model, `1_Pooling/...`.
fn describes(file: &str) -> bool {
    let own = |file: &str| {
        let index = file.ends_with(".index.json") && file != INDEX;
        file.ends_with(".json") && !index || ["vocab.txt", "merges.txt"].contains(&file) || file.ends_with(".model")
    };
    match file.split_once('/') {
        None => own(file),
        Some((folder, file)) => {
            let part = folder.split_once('_').is_some_and(|(number, _)| number.parse::<u32>().is_ok());
            part && !file.contains('/') && (own(file) || file == WEIGHTS)
        }
    }
}

/// One commit of a model.
struct Remote<'a> {
    settings: &'a Settings,
    name: &'a Name,
    api: ApiRepo,
    cache: CacheRepo,
}

impl Remote<'_> {
    /// Downloads a file that the cache has not, goes on where an earlier download ended, and proves that it is what the hub has.
    fn bring(&self, file: &str) -> std::result::Result<(), Failure> {
        if self.cache.pointer_path(&self.name.revision).join(file).is_file() {
            return Ok(());
        }
        let download = || self.api.download_with_progress(file, Shown { hidden: self.settings.hidden, progress: None });
        let path = download().map_err(|error| failure(self.settings, self.name, Some(file), error))?;
        let damaged = |message: String| {
            let blob = std::fs::canonicalize(&path);
            // Neither the link nor what it leads to may be taken for the file another time.
            let gone = std::fs::remove_file(&path).and_then(|()| std::fs::remove_file(blob?));
            let stays = gone.err().map(|error| format!(" ({} stays: {error})", path.display())).unwrap_or_default();
            Error::usage(format!("{file} of {} came damaged: {message}{stays}", self.name))
                .with_help("run it again; if it stays so, something between this machine and the hub changes files")
        };
        match is_what_it_says(&path) {
            Ok(None) => Ok(()),
            Ok(Some(message)) => Err(damaged(message).into()),
            Err(error) => Err(Error::io(format!("cannot read {}", path.display()))(error).into()),
        }
    }
}

/// Compares a file of the cache with its blob's name, the hash that the hub gave: SHA-256 of large files, git's SHA-1 of others. Where
/// they differ, what they are.
fn is_what_it_says(path: &Path) -> std::io::Result<Option<String>> {
    let blob = std::fs::canonicalize(path)?;
    let Some(said) = blob.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
    let mut file = std::fs::File::open(&blob)?;
    let found = match said.len() {
        64 => hash(&mut file, Sha256::new())?,
        40 => {
            let head = format!("blob {}\0", file.metadata()?.len());
            hash(&mut file, Sha1::new_with_prefix(head))?
        }
        // A mirror's own tag says nothing of what the file holds.
        _ => return Ok(None),
    };
    Ok((found != said).then(|| format!("its hash is {found}, the hub says {said}")))
}

fn hash<D: Digest>(file: &mut std::fs::File, mut digest: D) -> std::io::Result<String> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => digest.update(&buffer[..n]),
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What to say of a request that failed; `file` is that of the model which was asked for.
fn failure(settings: &Settings, name: &Name, file: Option<&str>, error: ApiError) -> Failure {
    let what = file.map_or_else(|| name.to_string(), |file| format!("{file} of {name}"));
    let error = match error {
        ApiError::TooManyRetries(error) => *error,
        error => error,
    };
    let ApiError::RequestError(request) = &error else {
        return match error {
            ApiError::IoError(error) => Failure::Unreachable(error.to_string()),
            ApiError::LockAcquisition(path) => {
                let message = format!("another process downloads {what}");
                Error::usage(message)
                    .with_help(format!("wait for it; if there is none, remove {}", path.display()))
                    .into()
            }
            error => Error::usage(format!("cannot download {what}: {error}")).into(),
        };
    };
    let ureq::Error::StatusCode(status) = **request else { return Failure::Unreachable(request.to_string()) };
    let host = &settings.endpoint;
    let open = if settings.token.is_some() { "the token" } else { "HF_TOKEN is not set, and that" };
    match status {
        401 | 403 => Error::usage(format!("{host} does not give {what} ({status})"))
            .with_help(format!("a private or gated model wants a token of someone who may read it ({open} did not do), and its terms accepted on its page; a name that does not exist is answered alike"))
            .into(),
        404 => Error::usage(format!("{host} has no {what}")).with_help("look at the name and the revision: hf:organisation/model@revision").into(),
        500.. => Failure::Unreachable(format!("it answers {status}")),
        _ => Error::usage(format!("{host} answers {status} for {what}")).into(),
    }
}

/// hf-hub's progress on our bar.
struct Shown {
    hidden: bool,
    progress: Option<DownloadProgress>,
}

impl Progress for Shown {
    fn init(&mut self, size: usize, filename: &str) {
        // Called again where a download goes on: the bar begins anew with what is there.
        self.progress = Some(DownloadProgress::new(!self.hidden, filename, size as u64));
    }

    fn update(&mut self, size: usize) {
        self.progress.iter_mut().for_each(|progress| progress.advance(size as u64));
    }

    fn finish(&mut self) {
        self.progress = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn names_are_read() {
        let name = |text: &str| text.parse::<Name>().map(|name| (name.id, name.revision));
        assert_eq!(name("hf:org/name"), Ok(("org/name".into(), "main".into())));
        assert_eq!(name("hf:bert-base-uncased@v1.0"), Ok(("bert-base-uncased".into(), "v1.0".into())));
        assert_eq!(name("hf:org/name@refs/pr/3"), Ok(("org/name".into(), "refs/pr/3".into())));
        for bad in ["hf:", "hf:a/b/c", "hf:org/", "hf:org/na me", "hf:../x", "hf:org/name@", "hf:org/name@a/../b"] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_is_needed_is_wanted() {
        for file in [
            "config.json",
            "tokenizer.json",
            "vocab.txt",
            "spiece.model",
            "modules.json",
            "1_Pooling/config.json",
            "2_Dense/model.safetensors",
            INDEX,
        ] {
            assert!(describes(file), "{file}");
        }
        for file in [
            "README.md",
            "pytorch_model.bin",
            "onnx/model.onnx",
            "onnx/config.json",
            "pytorch_model.bin.index.json",
            "tf_model.h5",
            "openvino/openvino_model.xml",
            WEIGHTS,
        ] {
            assert!(!describes(file), "{file}");
        }
    }

    #[test]
    fn hashes_are_those_of_git_and_of_large_files() {
        let folder = tempfile::tempdir().unwrap();
        // `printf 'hello\n' | git hash-object --stdin`, and sha256sum.
        for said in [
            "ce013625030ba8dba906f756967f9e9ca394464a",
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        ] {
            let path = folder.path().join(said);
            std::fs::write(&path, "hello\n").unwrap();
            assert_eq!(is_what_it_says(&path).unwrap(), None);
            std::fs::write(&path, "hallo\n").unwrap();
            assert!(is_what_it_says(&path).unwrap().unwrap().ends_with(said));
        }
    }
}
