//! Which files may be opened as plugins, as far as that can be told without running them.
//!
//! A plugin runs in this process with all its rights: it reads and writes what the user may, and nothing here changes that. What is settled is
//! whose files come so far. Where digests are listed, by `--allow`, by `FTHOST_PLUGIN_SHA256` or in the file that `--allow-list` or
//! `FTHOST_PLUGIN_LIST` names, no other file is opened. A file that every user could have put there or changed is not opened unless that is asked for,
//! and the working directory, which may be somebody else's folder of data, can be left out of the search.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::{Error, Result};

/// SHA-256 digests, separated by commas, colons or spaces; where it is set, only files with one of them are opened.
pub const ALLOW_VARIABLE: &str = "FTHOST_PLUGIN_SHA256";
/// A file of digests, as `sha256sum` writes them.
pub const LIST_VARIABLE: &str = "FTHOST_PLUGIN_LIST";
/// Where it is set and not empty, files and folders that every user can write to are no reason to refuse a plugin.
pub const WORLD_WRITABLE_VARIABLE: &str = "FTHOST_PLUGIN_WORLD_WRITABLE";
/// Where it is set and not empty, plugins are not looked for in the working directory.
pub const NOT_FROM_CWD_VARIABLE: &str = "FTHOST_NO_PLUGINS_FROM_CWD";

/// What holds for all plugins of this process.
static SETTLED: OnceLock<Settled> = OnceLock::new();

/// Which files may be opened.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Digests of files that may be opened, in hexadecimal. With `None` here and no `list`, every file may be.
    pub allow: Option<Vec<String>>,
    /// A file with more of them, a line each; what follows a digest is its name.
    pub list: Option<PathBuf>,
    /// Whether files and folders that every user can write to are no reason to refuse a plugin.
    pub world_writable: bool,
    /// Whether plugins are not looked for in the working directory.
    pub not_from_cwd: bool,
}

/// The same, its list read.
#[derive(Debug)]
struct Settled {
    trust: Trust,
    allowed: Option<BTreeSet<String>>,
}

impl Trust {
    /// What the environment says.
    pub fn from_environment() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let digests = |text: String| {
            let digests = text.split([',', ':', ' ']).map(str::trim).filter(|digest| !digest.is_empty());
            digests.map(str::to_owned).collect()
        };
        Self {
            allow: std::env::var(ALLOW_VARIABLE).ok().map(digests),
            list: set(LIST_VARIABLE).map(PathBuf::from),
            world_writable: set(WORLD_WRITABLE_VARIABLE).is_some(),
            not_from_cwd: set(NOT_FROM_CWD_VARIABLE).is_some(),
        }
    }

    /// Makes it hold for this process, before any plugin is looked for. What holds already stays.
    ///
    /// # Errors
    /// Where the list cannot be read.
    pub fn settle(self) -> Result<()> {
        let settled = Settled::new(self)?;
        SETTLED.get_or_init(|| settled);
        Ok(())
    }

    /// The variables by which a process that this one starts trusts the same files.
    pub(crate) fn environment() -> Result<Vec<(&'static str, OsString)>> {
        Ok(settled()?.trust.variables())
    }

    fn variables(&self) -> Vec<(&'static str, OsString)> {
        let mut variables = Vec::new();
        if let Some(allow) = &self.allow {
            variables.push((ALLOW_VARIABLE, allow.join(",").into()));
        }
        if let Some(list) = &self.list {
            variables.push((LIST_VARIABLE, std::path::absolute(list).unwrap_or_else(|_| list.clone()).into()));
        }
        if self.world_writable {
            variables.push((WORLD_WRITABLE_VARIABLE, "1".into()));
        }
        if self.not_from_cwd {
            variables.push((NOT_FROM_CWD_VARIABLE, "1".into()));
        }
        variables
    }
}

impl Settled {
    fn new(trust: Trust) -> Result<Self> {
        let mut allowed = trust.allow.clone();
        if let Some(list) = &trust.list {
            if !trust.world_writable {
                check_place_of(list)?;
            }
            allowed.get_or_insert_default().extend(read_list(list)?);
        }
        let allowed = allowed.map(|digests| digests.iter().map(|digest| digest.to_ascii_lowercase()).collect());
        Ok(Self { trust, allowed })
    }

    fn check_digest(&self, path: &Path, sha256: &str) -> Result<()> {
        if self.allowed.as_ref().is_none_or(|allowed| allowed.contains(sha256)) {
            return Ok(());
        }
        let list = self.trust.list.as_ref().map(|list| list.display().to_string());
        let named = self.trust.allow.as_ref().map(|_| format!("--allow or {ALLOW_VARIABLE}"));
        let places: Vec<String> = named.into_iter().chain(list).collect();
        let (path, places) = (path.display(), places.join(" or "));
        Err(Error::plugin(format!("{path} has SHA-256 {sha256}, which is not in {places}"))
            .with_help(format!("where you trust the file: --allow {sha256}")))
    }
}

/// What holds: what was settled, else what the environment says.
fn settled() -> Result<&'static Settled> {
    match SETTLED.get() {
        Some(settled) => Ok(settled),
        None => {
            let settled = Settled::new(Trust::from_environment())?;
            Ok(SETTLED.get_or_init(|| settled))
        }
    }
}

/// Whether plugins are looked for in the working directory.
pub(super) fn searches_cwd() -> bool {
    !SETTLED.get().map_or_else(|| Trust::from_environment().not_from_cwd, |settled| settled.trust.not_from_cwd)
}

/// Refuses a file with a digest that is not among those that may be opened.
pub(super) fn check_digest(path: &Path, sha256: &str) -> Result<()> {
    settled()?.check_digest(path, sha256)
}

/// Refuses a file that every user can change or could have put there; warns where another one can change it.
pub(super) fn check_place(path: &Path) -> Result<()> {
    if !settled()?.trust.world_writable {
        check_place_of(path)?;
    }
    let owner = fs::metadata(path).map_or(0, |file| file.uid());
    let user = user();
    if user != 0 && owner != user && owner != 0 {
        tracing::warn!(file = %path.display(), owner, "this plugin belongs to another user, who can change it");
    }
    Ok(())
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The same without what was settled. Folders count up to the root: who can write to one can put another in the place of what is in it, unless
/// it is sticky, as `/tmp` is. There only what is the user's own is.
fn check_place_of(path: &Path) -> Result<()> {
    const ALL_THE_SAME: &str = "--allow-world-writable opens it all the same";
    let by_all = |path: &Path| fs::metadata(path).ok().filter(|found| found.mode() & 0o002 != 0);
    let shown = path.display();
    if by_all(path).is_some() {
        return Err(Error::plugin(format!(
            "{shown} can be written by every user, so anybody could put code into this run"
        ))
        .with_help(format!("chmod o-w {shown}; {ALL_THE_SAME}")));
    }
    // As it was named and where links lead: either could be changed.
    let named = std::path::absolute(path).ok();
    for path in named.into_iter().chain(path.canonicalize().ok()) {
        for (inside, folder) in path.ancestors().zip(path.ancestors().skip(1)) {
            let Some(found) = by_all(folder) else { continue };
            let folder = folder.display();
            if found.mode() & 0o1000 == 0 {
                return Err(Error::plugin(format!(
                    "{shown} lies in {folder}, to which every user can write, so anybody could put another file in its place"
                ))
                .with_help(format!("chmod o-w {folder}; {ALL_THE_SAME}")));
            }
            let owner = fs::symlink_metadata(inside).map_or(0, |found| found.uid());
            if owner != 0 && owner != user() {
                return Err(Error::plugin(format!(
                    "{} belongs to user {owner}, and lies in {folder}, to which every user can write: it may be anybody's",
                    inside.display()
                ))
                .with_help(format!("copy it into a folder of yours; {ALL_THE_SAME}")));
            }
        }
    }
    Ok(())
}

/// The digests of a file that `sha256sum` wrote: a digest and a name on each line. Empty lines and those that begin with `#` say nothing.
fn read_list(path: &Path) -> Result<Vec<String>> {
    let text =
        fs::read_to_string(path).map_err(Error::io(format!("cannot read the list of plugins {}", path.display())))?;
    let lines = text.lines().enumerate().map(|(i, line)| (i as u64 + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let read = lines.map(|(number, line)| {
        let digest = line.split_whitespace().next().unwrap_or_default();
        if is_digest(digest) {
            return Ok(digest.to_owned());
        }
        Err(Error::Data {
            file: path.to_owned(),
            line: Some(number),
            message: format!("{digest:?} is no SHA-256"),
            help: Some("write 64 hexadecimal digits and a name on each line, as `sha256sum FILE` does".to_owned()),
        })
    });
    read.collect()
}

/// Whether a text is a SHA-256 in hexadecimal.
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789ABCDEF";
    const OTHER: &str = "ff23456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn message(result: Result<()>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn digests_are_those_of_all_lists() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("plugins.sha256");
        fs::write(&list, format!("# ours\n\n{OTHER}  liblora.so\n")).unwrap();
        let check = |allow: Option<&[&str]>, list: Option<&Path>, digest: &str| {
            let allow = allow.map(|all| all.iter().map(|digest| (*digest).to_owned()).collect());
            let trust = Trust { allow, list: list.map(Path::to_owned), ..Trust::default() };
            Settled::new(trust).unwrap().check_digest(Path::new("liblora.so"), &digest.to_ascii_lowercase())
        };
        assert!(check(None, None, DIGEST).is_ok());
        assert!(check(Some(&[DIGEST]), None, DIGEST).is_ok());
        assert!(check(Some(&[DIGEST]), Some(&list), OTHER).is_ok());
        assert!(check(None, Some(&list), OTHER).is_ok());
        let refused = message(check(None, Some(&list), DIGEST));
        assert!(refused.contains("which is not in ") && refused.ends_with("plugins.sha256"), "{refused}");
        let refused = message(check(Some(&[OTHER]), None, DIGEST));
        assert!(refused.ends_with("which is not in --allow or FTHOST_PLUGIN_SHA256"), "{refused}");
        assert!(check(Some(&[]), None, DIGEST).is_err(), "a list without entries allows nothing");
    }

    #[test]
    fn a_list_that_does_not_read_allows_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list");
        let read = || message(Settled::new(Trust { list: Some(list.clone()), ..Trust::default() }).map(drop));
        assert!(read().contains("cannot read the list of plugins"));
        fs::write(&list, format!("{DIGEST}  a.so\nliblora.so {DIGEST}\n")).unwrap();
        assert!(read().ends_with(":2: \"liblora.so\" is no SHA-256"), "{}", read());
        fs::write(&list, format!("{DIGEST}  a.so\n")).unwrap();
        fs::set_permissions(&list, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(read().contains("can be written by every user"));
    }

    #[test]
    fn a_child_trusts_the_same() {
        let trust = Trust {
            allow: Some(vec![DIGEST.into(), OTHER.into()]),
            list: Some("/etc/plugins".into()),
            world_writable: true,
            not_from_cwd: true,
        };
        let expected = [
            (ALLOW_VARIABLE, format!("{DIGEST},{OTHER}")),
            (LIST_VARIABLE, "/etc/plugins".into()),
            (WORLD_WRITABLE_VARIABLE, "1".into()),
            (NOT_FROM_CWD_VARIABLE, "1".into()),
        ];
        assert_eq!(trust.variables(), expected.map(|(name, value)| (name, OsString::from(value))));
        assert_eq!(Trust::default().variables(), []);
    }

    #[test]
    fn what_every_user_can_write_to_is_refused_up_to_the_root() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("plugins/mine");
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("liblora.so");
        fs::write(&file, "").unwrap();
        let set = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        check_place_of(&file).unwrap();
        set(&file, 0o666);
        assert!(message(check_place_of(&file)).contains("can be written by every user"));
        set(&file, 0o644);
        let above = root.path().join("plugins");
        for open in [&folder, &above] {
            set(open, 0o777);
            let refused = message(check_place_of(&file));
            assert!(
                refused.contains(&format!("lies in {}, to which every user can write", open.display())),
                "{refused}"
            );
            // Others cannot replace what is the user's own in a sticky folder.
            set(open, 0o1777);
            check_place_of(&file).unwrap();
            set(open, 0o755);
        }
        // A link is followed, and counts itself.
        let link = root.path().join("link.so");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        check_place_of(&link).unwrap();
        set(&folder, 0o777);
        assert!(check_place_of(&link).is_err());
    }
}
