//! Pictures a second of one thread: decoded, a random part resized to 224 pixels, normalised. Beside Pillow where `FTHOST_PYTHON` names an
//! interpreter with Pillow and NumPy.
//!
//! ```sh
//! FTHOST_PYTHON=python cargo bench -p fthost-images [-- FOLDER]
//! ```
//!
//! The folder has a folder of pictures for each class; without one it is `../shared/data/flowers/train` beside the repository.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use fthost_images::source::{Classes, FolderOptions};
use fthost_images::{Augment, Loader, MAX_PIXELS, Preprocess, Transform, decode};

/// The same with Pillow: one thread, files in memory after the first round.
const PILLOW: &str = r#"
import sys, time, random, math, pathlib
import numpy as np
from PIL import Image
files = sorted(pathlib.Path(sys.argv[1]).glob("*/*"))
mean = np.array([.485, .456, .406], np.float32); std = np.array([.229, .224, .225], np.float32)
def one(path):
    image = Image.open(path).convert("RGB")
    w, h = image.size
    for _ in range(10):
        a = w * h * random.uniform(.08, 1); r = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        cw, ch = round(math.sqrt(a * r)), round(math.sqrt(a / r))
        if 0 < cw <= w and 0 < ch <= h: break
    else: cw, ch = w, h
    x, y = random.randint(0, w - cw), random.randint(0, h - ch)
    image = image.crop((x, y, x + cw, y + ch)).resize((224, 224), Image.BILINEAR)
    return (np.asarray(image, np.float32) / np.float32(255) - mean) / std
for path in files: one(path)
best = 0
for _ in range(3):
    start = time.process_time()
    for path in files: one(path)
    best = max(best, len(files) / (time.process_time() - start))
print(f"Pillow: {best:.0f} pictures/s of processor time")
"#;

fn main() {
    let named = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let folder = named.map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/flowers/train"),
        PathBuf::from,
    );
    if !folder.is_dir() {
        println!("skipped: no folder {}", folder.display());
        return;
    }
    let classes = Classes::folder(&folder, &FolderOptions::default()).unwrap();
    let augment: Augment =
        serde_json::from_str(r#"[{ "op": "random_resized_crop", "interpolation": "bilinear" }]"#).unwrap();
    let transform = Transform::new(Preprocess::imagenet((224, 224)).unwrap(), augment).unwrap();
    let count = classes.source.len();
    let source = classes.source;
    let one = move |i: &usize| {
        let mut state = *i as u64;
        let mut random = || {
            state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let picture = decode(&source.read(*i).unwrap(), source.name(*i), MAX_PIXELS).unwrap();
        transform.train(picture, None, &mut random)
    };

    // Processor time is what a shared machine lets one compare.
    (0..count).for_each(|i| drop(one(&i)));
    let mut best = 0.0f64;
    for _ in 0..3 {
        let start = processor_seconds();
        (0..count).for_each(|i| drop(one(&i)));
        best = best.max(count as f64 / (processor_seconds() - start));
    }
    println!("fthost: {best:.0} pictures/s of processor time, {count} pictures");
    for threads in [1, 2] {
        let batches: Vec<Vec<usize>> = (0..count).collect::<Vec<_>>().chunks(32).map(<[usize]>::to_vec).collect();
        let start = Instant::now();
        let mut loader = Loader::new(batches.into_iter(), one.clone(), threads, 4);
        let taken: usize = loader.by_ref().map(|batch| batch.len()).sum();
        println!("loader, {threads} threads: {:.0} pictures/s", taken as f64 / start.elapsed().as_secs_f64());
    }
    if let Some(python) = std::env::var_os("FTHOST_PYTHON") {
        Command::new(python).args(["-c", PILLOW]).arg(&folder).status().unwrap();
    }
}

/// User and system time of this process, by Linux' hundredths of a second.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}
