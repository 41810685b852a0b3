//! Models by name, from a server on this machine that speaks the hub's routes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use fthost_tests::{Outcome, Workdir, on_one_line, result_json, root, skipped};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::text::{RUN, python, text_workdir};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const WEIGHTS: &str = "model.safetensors";

/// What the server has, and how it behaves.
#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    /// Bodies of weights end after so many bytes of the file.
    cut: Option<usize>,
    /// The first byte of the weights comes wrong.
    damage: bool,
    /// Who may read.
    token: Option<&'static str>,
    /// The request lines and their ranges: `/org/tiny/resolve/main/config.json bytes=0-`.
    asked: Vec<String>,
}

struct Hub {
    endpoint: String,
    state: Arc<Mutex<State>>,
}

impl Hub {
    /// A server of the tiny BERT, with files beside it that nobody needs.
    fn start() -> Self {
        let folder = root().join("tests/reference/tiny/bert");
        let mut files: BTreeMap<String, Vec<u8>> = ["config.json", "tokenizer.json", WEIGHTS]
            .map(|file| (file.to_owned(), std::fs::read(folder.join(file)).unwrap()))
            .into();
        for other in ["README.md", "pytorch_model.bin", "onnx/model.onnx"] {
            files.insert(other.into(), b"not needed".to_vec());
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { files, ..State::default() }));
        let (shared, own) = (state.clone(), endpoint.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (state, endpoint) = (shared.clone(), own.clone());
                // A client that goes away is the client's affair.
                std::thread::spawn(move || stream.and_then(|stream| answer(stream, &state, &endpoint)));
            }
        });
        Self { endpoint, state }
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    /// What was asked since the last call.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }

    /// Runs the host with this hub and a cache in the working directory.
    fn fthost(&self, workdir: &Workdir, arguments: &[&str], environment: &[(&str, &str)]) -> Outcome {
        let mut command = workdir.command(arguments);
        command.env("HF_HOME", workdir.path().join("hf")).env("HF_ENDPOINT", &self.endpoint);
        for name in ["HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
            command.env_remove(name);
        }
        command.envs(environment.iter().copied());
        workdir.run(command)
    }
}

fn answer(stream: TcpStream, state: &Mutex<State>, endpoint: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let range = headers.get("range").map_or("", |range| range);
    let mut state = state.lock().unwrap();
    state.asked.push(format!("{path} {range}"));
    let authorized = state.token.is_none_or(|token| headers.get("authorization") == Some(&format!("Bearer {token}")));

    let mut out = stream;
    let mut say = |status: &str, headers: &str, body: &[u8], length: usize| -> std::io::Result<()> {
        write!(out, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n")?;
        out.write_all(body)
    };
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["cdn", file @ ..] => {
            let (file, mut body) = (file.join("/"), state.files[&file.join("/")].clone());
            if state.damage {
                body[0] ^= 1;
            }
            let end = if file == WEIGHTS { state.cut } else { None };
            part(&body, range, "", end, say)
        }
        _ if !authorized => say("401 Unauthorized", "", b"", 0),
        ["api", "models", "org", "tiny", "revision", "main" | COMMIT] => {
            let siblings: Vec<_> = state.files.keys().map(|file| serde_json::json!({ "rfilename": file })).collect();
            let body = serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string();
            say("200 OK", "Content-Type: application/json\r\n", body.as_bytes(), body.len())
        }
        ["org", "tiny", "resolve", "main" | COMMIT, file @ ..] => {
            let file = file.join("/");
            let body = &state.files[&file];
            let commit = format!("X-Repo-Commit: {COMMIT}\r\n");
            if file.ends_with(".safetensors") {
                let headers = format!(
                    "{commit}X-Linked-Etag: \"{}\"\r\nLocation: {endpoint}/cdn/{file}\r\n",
                    hex::<Sha256>(&[body])
                );
                return say("302 Found", &headers, b"", 0);
            }
            let etag = hex::<Sha1>(&[format!("blob {}\0", body.len()).as_bytes(), body]);
            part(body, range, &format!("{commit}ETag: \"{etag}\"\r\n"), None, say)
        }
        _ => say("404 Not Found", "", b"", 0),
    }
}

/// Answers with what a range asks of a body, or with less: up to `end` of it.
fn part(
    body: &[u8],
    range: &str,
    headers: &str,
    end: Option<usize>,
    mut say: impl FnMut(&str, &str, &[u8], usize) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let (from, to) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
    let (from, to) = (from.parse().unwrap_or(0), to.parse().map_or(body.len(), |to: usize| to + 1).min(body.len()));
    let headers = format!("{headers}Content-Range: bytes {from}-{}/{}\r\n", to.max(1) - 1, body.len());
    let sent = end.map_or(to, |end| end.min(to)).max(from);
    say("206 Partial Content", &headers, &body[from..sent], to - from)
}

fn hex<D: Digest>(parts: &[&[u8]]) -> String {
    let mut digest = D::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A text run whose model is named.
fn workdir() -> Workdir {
    let workdir = text_workdir();
    workdir.write("named.toml", named("hf:org/tiny"));
    workdir
}

fn named(name: &str) -> String {
    let line = RUN.lines().find(|line| line.starts_with("path = ")).expect("the run file names a model");
    RUN.replace(line, &format!("path = \"{name}\""))
}

fn snapshot(workdir: &Workdir) -> PathBuf {
    workdir.path().join("hf/hub/models--org--tiny/snapshots").join(COMMIT)
}

#[test]
fn a_model_comes_by_its_name_once() {
    let (hub, workdir) = (Hub::start(), workdir());
    let said = hub.fthost(&workdir, &["--config", "named.toml", "--out", "run"], &[]).succeeded();
    let asked = hub.asked();
    for other in ["README", "pytorch", "onnx"] {
        assert!(!asked.iter().any(|request| request.contains(other)), "{asked:?}");
    }
    assert!(said.stderr.is_empty() || said.stderr.contains("training"), "{}", said.stderr);

    // It is the model of a folder: the same numbers.
    workdir.fthost(["--config", "run.toml", "--out", "local"]).succeeded();
    let tasks = |run: &str| result_json(&workdir.path().join(run))["tasks"].clone();
    assert_eq!(tasks("run"), tasks("local"));

    // What the run says of itself names the commit, for us and for PEFT.
    let resolved = std::fs::read_to_string(workdir.path().join("run/run.toml")).unwrap();
    assert!(resolved.contains(&format!("path = \"hf:org/tiny@{COMMIT}\"")), "{resolved}");
    let adapter = std::fs::read_to_string(workdir.path().join("run/adapter/adapter_config.json")).unwrap();
    let adapter: serde_json::Value = serde_json::from_str(&adapter).unwrap();
    assert_eq!(
        (adapter["base_model_name_or_path"].as_str(), adapter["revision"].as_str()),
        (Some("org/tiny"), Some(COMMIT))
    );

    // A commit is not asked for again, nor anything where there is no network.
    for folder in ["run", "run/adapter"] {
        hub.fthost(&workdir, &["eval", folder, "test.tsv", "--json"], &[]).succeeded();
        assert_eq!(hub.asked(), [""; 0], "{folder}");
    }
    hub.fthost(&workdir, &["--config", "named.toml", "--out", "again"], &[("HF_HUB_OFFLINE", "1")]).succeeded();
    assert_eq!((hub.asked(), tasks("again")), (Vec::new(), tasks("run")));

    // Where the hub does not answer, the cache does, and it is said.
    let down = [("HF_ENDPOINT", "http://127.0.0.1:9")];
    let said = hub.fthost(&workdir, &["--config", "named.toml", "--out", "down"], &down).succeeded().stderr;
    assert!(on_one_line(&said).contains("http://127.0.0.1:9 cannot be reached"), "{said}");

    // A branch that stands where it stood costs one question and no file.
    hub.fthost(&workdir, &["plan", "named.toml"], &[]).succeeded();
    assert_eq!(hub.asked(), ["/api/models/org/tiny/revision/main "]);

    let Some(python) = python() else {
        return skipped("FTHOST_PYTHON is not set, so huggingface_hub does not look into the cache");
    };
    let find = "import sys, huggingface_hub as h; print(h.snapshot_download('org/tiny', local_files_only=True, cache_dir=sys.argv[1]))";
    let output = Command::new(python).args(["-c", find]).arg(workdir.path().join("hf/hub")).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), snapshot(&workdir).display().to_string());
}

#[test]
fn a_download_goes_on_where_it_ended() {
    let (hub, workdir) = (Hub::start(), workdir());
    hub.set(|state| state.cut = Some(1000));
    let error = hub.fthost(&workdir, &["plan", "named.toml"], &[]).failed(2);
    assert!(on_one_line(&error).contains("cannot be reached"), "{error}");
    assert!(!snapshot(&workdir).join(WEIGHTS).exists());
    hub.asked();

    hub.set(|state| state.cut = None);
    hub.fthost(&workdir, &["plan", "named.toml"], &[]).succeeded();
    let asked = hub.asked();
    assert!(asked.iter().any(|request| request.ends_with("/cdn/model.safetensors bytes=1000-")), "{asked:?}");
    let weights = std::fs::read(root().join("tests/reference/tiny/bert").join(WEIGHTS)).unwrap();
    assert!(std::fs::read(snapshot(&workdir).join(WEIGHTS)).unwrap() == weights);
}

#[test]
fn what_does_not_come_is_said() {
    let hub = Hub::start();
    let check = |name: &str, environment: &[(&str, &str)], expected: &str| {
        let workdir = workdir();
        workdir.write("named.toml", named(name));
        let error = hub.fthost(&workdir, &["plan", "named.toml"], environment).failed(2);
        assert!(on_one_line(&error).contains(expected), "{error}");
        assert!(!snapshot(&workdir).join(WEIGHTS).exists());
    };
    let down = ("HF_ENDPOINT", "http://127.0.0.1:9");
    check("hf:org/tiny", &[("HF_HUB_OFFLINE", "1")], "hf:org/tiny@main is not in");
    check("hf:org/tiny", &[down], "http://127.0.0.1:9 cannot be reached");
    check("hf:org/other", &[], "has no hf:org/other@main");
    check("hf:org/tiny@v2", &[], "has no hf:org/tiny@v2");
    check("hf:org/tiny/x", &[], "names no model of the hub");
    hub.set(|state| state.damage = true);
    check("hf:org/tiny", &[], "model.safetensors of hf:org/tiny@0123456789abcdef0123456789abcdef01234567 came damaged");
    hub.set(|state| (state.damage, state.token) = (false, Some("secret")));
    check("hf:org/tiny", &[], "does not give hf:org/tiny@main (401)");
    check("hf:org/tiny", &[("HF_TOKEN", "wrong")], "does not give hf:org/tiny@main (401)");
    let workdir = workdir();
    hub.fthost(&workdir, &["plan", "named.toml"], &[("HF_TOKEN", "secret")]).succeeded();
    hub.set(|state| {
        let weights = state.files.remove(WEIGHTS).unwrap();
        (state.token, _) = (None, state.files.insert("tf_model.h5".into(), weights));
    });
    check("hf:org/tiny", &[], "has no model.safetensors; its weights are pytorch_model.bin, tf_model.h5");
}

#[test]
fn features_come_from_a_model_by_its_name() {
    let (hub, workdir) = (Hub::start(), text_workdir());
    hub.fthost(&workdir, &["embed", "hf:org/tiny", "test.tsv", "--out", "named.jsonl"], &[]).succeeded();
    let local: &Path = &root().join("tests/reference/tiny/bert");
    workdir
        .fthost([Path::new("embed"), local, Path::new("test.tsv"), Path::new("--out"), Path::new("local.jsonl")])
        .succeeded();
    let read = |file: &str| std::fs::read_to_string(workdir.path().join(file)).unwrap();
    assert_eq!(read("named.jsonl"), read("local.jsonl"));
}
