//! What README.md and docs/ say to type: every command of fthost's in a block is run, page by page, in the order of the page.

use std::fs;
use std::path::{Path, PathBuf};

use fthost_images::{MAX_PIXELS, decode_mask};
use fthost_tests::{Workdir, build, root};

use crate::opening::sha256;
use crate::pictures::picture_workdir;
use crate::text::text_workdir;

/// The pages that people read.
fn pages() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("docs")).expect("docs/ is there");
    let mut pages: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.push(root().join("README.md"));
    pages.sort();
    pages
}

/// The commands of a page: lines of blocks that begin with `fthost `, without what `#` says of them.
fn commands(page: &str) -> Vec<Vec<String>> {
    let lines = page.lines().filter_map(|line| line.strip_prefix("    fthost "));
    lines.map(|line| words(line.split(" # ").next().unwrap_or(line))).collect()
}

/// The words of a command line; quotes hold one together.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.trim().chars() {
        let word = words.last_mut().unwrap();
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, ' ') if word.is_empty() => {}
            (None, ' ') => words.push(String::new()),
            (_, c) => word.push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The run files that the README shows: of pictures, and of texts.
fn run_files(readme: &str) -> [String; 2] {
    let block = |n| readme.split("```toml\n").nth(n).and_then(|rest| rest.split("```").next());
    [1, 2].map(|n| block(n).expect("README.md shows two run files").to_owned())
}

/// A folder with everything that the pages name, small: the model, the data of the README's run file and the run file itself.
fn workdir() -> Workdir {
    let workdir = text_workdir();
    fs::rename(workdir.path().join("model"), workdir.path().join("all-MiniLM-L6-v2")).unwrap();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let [flowers, sentiment] = run_files(&readme);
    workdir.write("sentiment.toml", &sentiment);
    let other = sentiment.replace("rank = 8", "rank = 4");
    workdir.write("other.toml", other);
    let test = fs::read(workdir.path().join("test.tsv")).unwrap();
    workdir.write("other.tsv", &test);
    let texts: String = String::from_utf8(test)
        .unwrap()
        .lines()
        .map(|line| format!("{}\n", line.split('\t').next().unwrap()))
        .collect();
    workdir.write("new.tsv", format!("text\n{texts}"));
    let plugins = fs::read_dir(build().folder()).unwrap().map(|entry| entry.unwrap().path());
    let plugins = plugins.filter(|path| path.extension().is_some_and(|extension| extension == "so"));
    let digests = plugins.map(|path| format!("{}  {}\n", sha256(&path), path.display()));
    workdir.write("plugins.sha256", digests.collect::<String>());
    // A tiny decoder in the place of the one that the pages name.
    let decoder = fs::read(root().join("tests/reference/gguf/llama.gguf")).unwrap();
    workdir.write("SmolLM2-135M-Instruct.Q4_1.gguf", decoder);
    workdir.write("questions.jsonl", fs::read(root().join("plugins/causal-lm/example.jsonl")).unwrap());
    write_pictures(&workdir);
    workdir.write("flowers.toml", flowers);
    write_masks(&workdir);
    write_pairs(&workdir);
    workdir
}

/// Pictures with a text each, as docs/towers.md names them, and its run file.
fn write_pairs(workdir: &Workdir) {
    let page = fs::read_to_string(root().join("docs/towers.md")).unwrap();
    let run = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    workdir.write("emoji.toml", run.expect("docs/towers.md shows a run file"));
    for name in ["projector.toml", "captions.toml"] {
        let mut runs = page.split("```toml\n").filter_map(|rest| rest.split("```").next());
        let run = runs.find(|block| block.starts_with(&format!("# {name}")));
        workdir.write(name, run.expect("docs/towers.md shows how a decoder sees"));
    }
    let pictures =
        workdir.listing().into_iter().filter(|file| file.starts_with("flowers/train/") && file.ends_with(".png"));
    let mut rows = "image\ttext\n".to_owned();
    for (number, file) in pictures.take(12).enumerate() {
        let name = format!("{number:02}.png");
        workdir.write(&format!("emoji/images/{name}"), fs::read(workdir.path().join(file)).unwrap());
        rows +=
            &format!("images/{name}\tthe film is {}\n", ["good", "bad", "warm", "cold"][number % 4].repeat(number + 1));
    }
    for part in ["train", "val", "test"] {
        workdir.write(&format!("emoji/{part}.tsv"), &rows);
    }
}

/// Pictures with masks in the folders that docs/pictures.md names, and its run file.
fn write_masks(workdir: &Workdir) {
    let page = fs::read_to_string(root().join("docs/pictures.md")).unwrap();
    let run =
        page.split("```toml\n").filter_map(|rest| rest.split("```").next()).find(|block| block.contains("camvid"));
    workdir.write("camvid.toml", run.expect("docs/pictures.md shows a run file of masks"));
    let example = root().join("plugins/segmentation/example");
    for number in 0..12 {
        let name = format!("{number:02}.png");
        let picture = fs::read(example.join("images").join(&name)).unwrap();
        let mask = fs::read(example.join("masks").join(&name)).unwrap();
        let mut mask = decode_mask(&mask, &name, MAX_PIXELS).unwrap();
        mask.pixels_mut().iter_mut().filter(|pixel| **pixel == [255]).for_each(|pixel| *pixel = [11]);
        for part in ["train", "test"] {
            workdir.write(&format!("camvid/{part}/images/{name}"), &picture);
            workdir.write(&format!("camvid/{part}/masks/{name}"), mask.to_png());
        }
        workdir.write(&format!("street-pictures/{name}"), picture);
    }
}

/// Pictures of three classes in the folders that the pages name, and a small network that has seen some.
fn write_pictures(workdir: &Workdir) {
    let made = picture_workdir();
    let quick = ["run.toml", "--out", "run", "--set", "train.epochs=1"];
    made.fthost(quick).succeeded();
    made.fthost(["merge", "run", "merged"]).succeeded();
    for entry in fs::read_dir(made.path().join("merged")).unwrap() {
        let file = entry.unwrap();
        workdir.write(&format!("efficientnet-lite0/{}", file.file_name().display()), fs::read(file.path()).unwrap());
    }
    for file in made.listing().iter().filter(|file| file.ends_with(".png")) {
        let bytes = fs::read(made.path().join(file)).unwrap();
        workdir.write(&format!("flowers/{file}"), &bytes);
        if let Some(name) = file.strip_prefix("test/") {
            workdir.write(&format!("flowers/val/{name}"), bytes);
        }
    }
}

#[test]
fn what_the_pages_say_to_type_works() {
    std::thread::scope(|scope| {
        for page in pages() {
            scope.spawn(move || {
                let name = page.strip_prefix(root()).unwrap().display().to_string();
                let commands = commands(&fs::read_to_string(&page).unwrap());
                if commands.is_empty() {
                    return;
                }
                let workdir = workdir();
                // Pages begin where the README's first run has ended, if they speak of its folder.
                let begins = |command: &[String]| command == ["sentiment.toml"];
                let speaks = |of: &str| commands.iter().flatten().any(|word| word.contains(of));
                if name != "README.md" && speaks("sentiment") && !commands.iter().any(|command| begins(command)) {
                    workdir.fthost(["sentiment.toml"]).succeeded();
                }
                for command in commands {
                    let outcome = workdir.fthost(&command);
                    assert_eq!(outcome.code, Some(0), "{name}: fthost {}\n{}", command.join(" "), outcome.stderr);
                }
            });
        }
    });
}

#[test]
fn the_readme_is_short_and_its_links_lead_somewhere() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.lines().count() < 150, "README.md has {} lines: details belong to docs/", readme.lines().count());
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            let path = page.parent().unwrap_or(Path::new("")).join(target.split('#').next().unwrap());
            assert!(path.exists(), "{}: {target} leads nowhere", page.display());
        }
    }
}
