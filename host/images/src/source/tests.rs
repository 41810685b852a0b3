#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::fixtures::bytes;
use crate::{Mask, decode};

/// A folder with files of these names, each holding its own name.
fn folder(names: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, name).unwrap();
    }
    folder
}

/// A tar of a folder, made by tar.
fn tar_of(folder: &Path, options: &[&str]) -> TempDir {
    let out = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("tar")
        .args(options)
        .arg("-cf")
        .arg(out.path().join("a.tar"))
        .arg("-C")
        .arg(folder)
        .arg(".")
        .status()
        .unwrap();
    assert!(made.success());
    out
}

fn contents(classes: &Classes) -> Vec<String> {
    (0..classes.source.len()).map(|i| String::from_utf8(classes.source.read(i).unwrap()).unwrap()).collect()
}

const FLOWERS: [&str; 9] = [
    "rose/b.PNG",
    "rose/a.jpg",
    "rose/deep/c.webp",
    "Aster/9.jpeg",
    "aster/1.bmp",
    "aster/.hidden.jpg",
    "aster/notes.txt",
    ".git/x.png",
    "loose.gif",
];

#[test]
fn a_folder_is_a_class() {
    let folder = folder(&FLOWERS);
    let classes = Classes::folder(folder.path(), &FolderOptions::default()).unwrap();
    // As Python sorts: capitals first.
    assert_eq!(classes.names, ["Aster", "aster", "rose"]);
    assert_eq!(classes.labels, [0, 1, 2, 2, 2]);
    let read = ["Aster/9.jpeg", "aster/1.bmp", "rose/a.jpg", "rose/b.PNG", "rose/deep/c.webp"];
    assert_eq!(contents(&classes), read);
    assert_eq!(classes.source.name(2), folder.path().join("rose/a.jpg").display().to_string());
    let notes = folder.path().join("aster/notes.txt").display().to_string();
    assert_eq!(classes.left_out, LeftOut { hidden: 2, others: 1, names: vec![notes], classless: 1 });

    let path = FolderOptions { class_name: ClassName::Path, ..FolderOptions::default() };
    let deep = Classes::folder(folder.path(), &path).unwrap();
    assert_eq!(deep.names, ["Aster", "aster", "rose", "rose/deep"]);
}

#[test]
fn a_tar_is_read_as_its_folder() {
    let folder = folder(&FLOWERS);
    let plain = Classes::folder(folder.path(), &FolderOptions::default()).unwrap();
    for format in ["--format=gnu", "--format=pax", "--format=ustar"] {
        let tar = tar_of(folder.path(), &[format]);
        let classes = Classes::tar(&tar.path().join("a.tar"), &FolderOptions::default()).unwrap();
        assert_eq!((&classes.names, &classes.labels), (&plain.names, &plain.labels), "{format}");
        assert_eq!(contents(&classes), contents(&plain));
        assert_eq!(classes.source.name(0), format!("{}: Aster/9.jpeg", tar.path().join("a.tar").display()));
        assert_eq!((classes.left_out.hidden, classes.left_out.others, classes.left_out.classless), (2, 1, 1));
    }
}

/// Folders around the classes are passed, and one may be named.
#[test]
fn classes_of_a_tar_may_lie_deep() {
    let name = "z".repeat(120);
    let long = format!("data/train/cat/{name}.png");
    let folder = folder(&["data/train/cat/1.png", &long, "data/train/dog/1.png"]);
    let tar = tar_of(folder.path(), &["--format=gnu"]);
    let file = tar.path().join("a.tar");
    let classes = Classes::tar(&file, &FolderOptions::default()).unwrap();
    assert_eq!((classes.names.join(" ").as_str(), &classes.labels[..]), ("cat dog", &[0, 0, 1][..]));
    assert_eq!(contents(&classes)[1], long);
    let under = |under: &str| FolderOptions { under: Some(under.into()), ..FolderOptions::default() };
    assert_eq!(Classes::tar(&file, &under("data/train/")).unwrap().names, classes.names);
    assert_eq!(Classes::tar(&file, &under("data")).unwrap().names, ["train"]);
    let nothing = Classes::tar(&file, &under("data/test")).unwrap_err().to_string();
    assert_eq!(nothing, format!("{}: data/test: there is no picture", file.display()));
    // One class alone keeps its name.
    let one = folder_of_one();
    let tar = tar_of(one.path(), &[]);
    assert_eq!(Classes::tar(&tar.path().join("a.tar"), &FolderOptions::default()).unwrap().names, ["cat"]);
}

fn folder_of_one() -> TempDir {
    folder(&["data/cat/1.png", "data/cat/2.png"])
}

#[test]
fn what_is_wrong_with_a_folder_is_said() {
    let error = |path: &Path| Classes::folder(path, &FolderOptions::default()).unwrap_err();
    let empty = folder(&["cat/1.png", "dog/notes.txt"]);
    let place = empty.path().display();
    let expected = format!("{place}/dog: the class dog has no picture (passed over: {place}/dog/notes.txt, ...)");
    assert_eq!(error(empty.path()).to_string(), expected);
    let flat = folder(&["1.png", "2.png"]);
    let expected = format!("{}: its 2 pictures lie in no folder, so they have no class", flat.path().display());
    assert_eq!(error(flat.path()).to_string(), expected);
    let nothing = folder(&[]);
    assert_eq!(error(nothing.path()).to_string(), format!("{}: there is no picture", nothing.path().display()));
    let missing = error(Path::new("/nowhere/at/all")).to_string();
    assert!(missing.starts_with("/nowhere/at/all: cannot read the folder: "), "{missing}");
    let circle = folder(&["cat/1.png"]);
    symlink(circle.path(), circle.path().join("cat/again")).unwrap();
    assert!(error(circle.path()).message.starts_with("folders lie more than 32 deep"));
}

#[test]
fn what_is_wrong_with_an_archive_is_said() {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("a.tar");
    let error = |content: &[u8]| {
        fs::write(&file, content).unwrap();
        Classes::tar(&file, &FolderOptions::default()).unwrap_err().message
    };
    assert_eq!(error(&[0x1F, 0x8B, 8, 0]), "the archive is compressed by gzip; its pictures cannot be read one by one");
    assert_eq!(error(b"PK\x03\x04"), "the archive is a zip file; its pictures cannot be read one by one");
    assert_eq!(error(b""), "there is no picture");
    let text = error(&[b'x'; 2000]);
    assert!(text.starts_with("cannot read the archive: "), "{text}");
    // Cut off within its last picture.
    let folder = folder(&["cat/1.png"]);
    fs::write(folder.path().join("cat/1.png"), vec![7; 5000]).unwrap();
    let tar = tar_of(folder.path(), &[]);
    let whole = fs::read(tar.path().join("a.tar")).unwrap();
    let at = whole.windows(4).position(|four| four == [7; 4]).unwrap();
    assert_eq!(error(&whole[..at + 3000]), "the archive ends within ./cat/1.png");
}

/// What was there at the start may be gone when it is asked for.
#[test]
fn a_picture_that_has_gone_names_itself() {
    let folder = folder(&["cat/1.png"]);
    let classes = Classes::folder(folder.path(), &FolderOptions::default()).unwrap();
    fs::remove_file(folder.path().join("cat/1.png")).unwrap();
    let error = classes.source.read(0).unwrap_err();
    assert_eq!((error.kind, error.place.ends_with("cat/1.png")), (Kind::Picture, true));
    assert!(error.message.starts_with("cannot read it: "), "{error}");
}

#[test]
fn pairs_are_matched_by_name() {
    let folder = folder(&[]);
    let (images, masks) = (folder.path().join("images"), folder.path().join("masks"));
    fs::create_dir_all(&images).unwrap();
    fs::create_dir_all(&masks).unwrap();
    for (name, fixture) in [("b.jpg", "grey.jpg"), ("a.png", "rgb.png")] {
        fs::write(images.join(name), bytes(fixture)).unwrap();
    }
    for name in ["a.png", "b.png"] {
        fs::write(masks.join(name), bytes("grey.png")).unwrap();
    }
    let pairs = Pairs::folders(&images, &masks).unwrap();
    assert!(pairs.pictures.name(0).ends_with("images/a.png") && pairs.masks.name(1).ends_with("masks/b.png"));
    (0..2).for_each(|i| pairs.check(i).unwrap());
    let (picture, mask): (_, Mask) = pairs.decode(1).unwrap();
    assert_eq!((picture.size(), mask.size()), ((14, 20), (14, 20)));

    fs::write(masks.join("b.png"), bytes("mask_grey.png")).unwrap();
    let error = pairs.check(1).unwrap_err();
    assert_eq!(error, pairs.decode(1).unwrap_err());
    assert_eq!(error.message, format!("the mask has 11 x 7 pixels, its picture {} 20 x 14", pairs.pictures.name(1)));

    fs::write(images.join("c.png"), b"").unwrap();
    let error = Pairs::folders(&images, &masks).unwrap_err();
    assert_eq!(error.message, format!("there is no mask c.* in {}", masks.display()));
    fs::rename(images.join("c.png"), masks.join("d.png")).unwrap();
    let error = Pairs::folders(&images, &masks).unwrap_err();
    assert_eq!(error.message, format!("there is no picture d.* in {}", images.display()));
    fs::rename(masks.join("d.png"), masks.join("a.bmp")).unwrap();
    let error = Pairs::folders(&images, &masks).unwrap_err();
    assert!(error.message.starts_with("its name without the end is that of "), "{error}");
}

/// A header is read from a file's beginning, and where that does not do, from all of it.
#[test]
fn headers_are_read_without_the_rest() {
    let folder = folder(&["cat/1.jpg", "cat/2.jpg"]);
    let jpeg = bytes("jpeg_420.jpg");
    // A megabyte behind the picture, and two comments of 60 KB before it.
    let long = [jpeg.clone(), vec![0; 1 << 20]].concat();
    let comment = [&[0xFF, 0xFE, 0xEA, 0x60][..], &vec![b' '; 0xEA60 - 2]].concat();
    let late = [&jpeg[..2], &comment, &comment, &jpeg[2..]].concat();
    fs::write(folder.path().join("cat/1.jpg"), &long).unwrap();
    fs::write(folder.path().join("cat/2.jpg"), &late).unwrap();
    let source = Classes::folder(folder.path(), &FolderOptions::default()).unwrap().source;
    for (i, content) in [long, late].iter().enumerate() {
        let header = source.header(i).unwrap();
        assert_eq!((header.height, header.width), (29, 37));
        assert_eq!(decode(content, "x", MAX_PIXELS).unwrap().size(), (29, 37));
    }
}
