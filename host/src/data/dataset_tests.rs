#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::path::Path;

use fthost_models::Modality;
use miette::Diagnostic;

use super::super::files::Files;
use super::super::fixtures::{DIGITS, TEXT, load_digits, load_file};
use super::super::form::Form;
use super::super::load::{BLOCK, load};
use super::super::part::Part;
use super::super::row::Columns;
use super::super::source::Source;
use super::super::text::Tokenizer;
use super::super::text::tests::write_tokenizer;
use super::*;

/// A TSV file, from memory; that it is the same from disk is checked.
fn load_text(content: &str, labels: Option<&[String]>, modality: Modality) -> Result<Dataset> {
    let load = |memory| load_file(("a.tsv", content.as_bytes()), labels, modality, memory);
    let data = load(usize::MAX)?;
    let spilled = load(0).unwrap();
    assert!(data.in_memory() > 0 && spilled.in_memory() == 0);
    assert_same(&data, &spilled);
    Ok(data)
}

#[track_caller]
fn assert_same(a: &Dataset, b: &Dataset) {
    let figures = |data: &Dataset| (data.len(), data.total_tokens(), data.truncated(), data.empty_texts());
    assert_eq!(figures(a), figures(b));
    assert_eq!((a.labels(), a.class_counts()), (b.labels(), b.class_counts()));
    let rows: Vec<u32> = (0..a.len() as u32).rev().step_by(1 + a.len() / 500).collect();
    let text = |data: &Dataset| match data.input(&rows).unwrap() {
        Input::Text(input) => (input.ids, input.types, input.layout.offsets().to_vec()),
        Input::Images(_) => panic!("not text"),
    };
    assert_eq!(text(a), text(b));
    let targets = |data: &Dataset| data.targets(&rows, &Device::Cpu).ok().map(|t| t.to_vec1::<u32>().unwrap());
    assert_eq!(targets(a), targets(b));
    for &row in &rows {
        assert_eq!(a.tokens(row).unwrap(), b.tokens(row).unwrap());
        assert_eq!(a.class(row).unwrap(), b.class(row).unwrap());
        assert_eq!(a.place(row).unwrap().1, b.place(row).unwrap().1);
    }
}

#[track_caller]
fn check_error<T>(outcome: Result<T>, expected: &[&str]) {
    let error = outcome.err().unwrap();
    let text = format!("{error} ({})", error.help().map(|help| help.to_string()).unwrap_or_default());
    assert!(expected.iter().all(|part| text.contains(part)), "{text}");
}

#[test]
fn rows_are_packed_in_the_order_asked_for() {
    let data = load_text("text\ttext_pair\tlabel\na b\tc\tyes\n\td\tno\na b c d\ta b c d\tyes\n", None, TEXT).unwrap();
    assert_eq!((data.len(), data.total_tokens(), data.truncated(), data.empty_texts()), (3, 16, 1, 1));
    assert_eq!([0, 1, 2].map(|row| data.tokens(row).unwrap()), [6, 4, 6]);
    let Input::Text(input) = data.input(&[1, 0]).unwrap() else { panic!("not text") };
    assert_eq!(input.ids, [1, 2, 6, 2, 1, 3, 4, 2, 5, 2]);
    assert_eq!(input.types, [0, 0, 1, 1, 0, 0, 0, 0, 1, 1]);
    assert_eq!(input.layout.offsets(), [0, 4, 10]);
    assert_eq!(data.targets(&[1, 0, 2], &Device::Cpu).unwrap().to_vec1::<u32>().unwrap(), [0, 1, 1]);
    assert_eq!((data.class(0).unwrap(), data.class_counts()), (Some(1), vec![1, 2]));
    assert_eq!(data.place(2).unwrap().1, Some(4));
}

#[test]
fn classes_are_sorted_as_text_or_as_whole_numbers() {
    let check = |labels: &[&str], expected: &[&str]| {
        let content: String = labels.iter().map(|label| format!("a\t{label}\n")).collect();
        assert_eq!(load_text(&format!("text\tlabel\n{content}"), None, TEXT).unwrap().labels(), expected);
    };
    check(&["pos", "neg", "pos"], &["neg", "pos"]);
    check(&["b", "B", "é", "a"], &["B", "a", "b", "é"]);
    check(&["10", "9", "-1", "10"], &["-1", "9", "10"]);
    check(&["10", "9", "x"], &["10", "9", "x"]);
    check(&["10.5", "9"], &["10.5", "9"]);
}

#[test]
fn test_data_take_the_classes_of_the_training_data() {
    let known = ["no", "yes"].map(String::from);
    let mut data = load_text("a\tyes\nb\tyes\n", Some(&known), TEXT).unwrap();
    assert!(data.targets(&[0], &Device::Cpu).is_err());
    data.set_targets(TargetKind::Class).unwrap();
    assert_eq!((data.class(0).unwrap(), data.class_counts()), (Some(1), vec![0, 2]));
    let mut data = load_text("a\tyes\nb\tmaybe\n", Some(&known), TEXT).unwrap();
    check_error(
        data.set_targets(TargetKind::Class),
        &["a.tsv:2: the label `maybe` does not occur in the training data", "known are `no`, `yes`"],
    );
    // Values need not occur there.
    let mut data = load_text("a\t2.5\n", Some(&["1", "2"].map(String::from)), TEXT).unwrap();
    data.set_targets(TargetKind::Value).unwrap();
    assert_eq!(data.targets(&[0], &Device::Cpu).unwrap().to_vec1::<f32>().unwrap(), [2.5]);
}

/// Nothing but its label tells a header of unknown words.
#[test]
fn a_first_row_whose_label_is_no_others_is_in_doubt() {
    let doubt = ["a.tsv:1: the first row may be a header or an example", "its label `gusto` is that of no other row"];
    check_error(load_text("frase\tgusto\na\tpos\nb\tneg\nc\tpos\n", None, TEXT), &doubt);
    check_error(load_text("frase\tgusto\na\t1.5\nb\t2.5\n", None, TEXT), &doubt);
    check_error(load_text("frase\tgusto\na\tpos\n", Some(&["neg".into(), "pos".into()]), TEXT), &doubt);
    // An example: its label is another row's, a number, or a class of the training data.
    for content in ["a\tpos\nb\tneg\nc\tpos\n", "a\t1\nb\t2\nc\t2\n", "a\t1.5\nb\t2.5\n", "a\t1\nb\t1.0\n"] {
        load_text(content, None, TEXT).unwrap();
    }
    load_text("a\tpos\nb\tneg\n", Some(&["neg".into(), "pos".into()]), TEXT).unwrap();
}

/// Whatever file says it how.
#[test]
fn numbers_are_the_same_classes_in_all_files() {
    let data = load_text("a\t1\nb\t1.0\nc\t0\n", None, TEXT).unwrap();
    assert_eq!((data.labels().join(" "), data.class_counts()), ("0 1".into(), vec![1, 2]));
    let rows =
        "{\"text\": \"a\", \"label\": 1}\n{\"text\": \"a\", \"label\": 1.0}\n{\"text\": \"a\", \"label\": \"1\"}";
    let mut test = load_file(("a.jsonl", rows.as_bytes()), Some(data.labels()), TEXT, 0).unwrap();
    test.set_targets(TargetKind::Class).unwrap();
    assert_eq!(test.class_counts(), [0, 3]);
    let words = "{\"text\": [\"a\", \"b\"], \"label\": [1, 1.0]}";
    assert_eq!(load_file(("a.jsonl", words.as_bytes()), None, TEXT, 0).unwrap().labels(), ["1"]);
}

#[test]
fn labels_may_be_values() {
    let mut data = load_text("a\t4.5\nb\t-1\nc\t1e-1\n", None, TEXT).unwrap();
    data.set_targets(TargetKind::Value).unwrap();
    assert_eq!(data.targets(&[2, 0, 1], &Device::Cpu).unwrap().to_vec1::<f32>().unwrap(), [0.1, 4.5, -1.0]);
    assert!(data.labels().is_empty() && data.class_counts().is_empty() && data.class(0).unwrap().is_none());
    for label in ["x", "nan", "inf"] {
        let mut data = load_text(&format!("a\t1\nb\t{label}\n"), None, TEXT).unwrap();
        check_error(data.set_targets(TargetKind::Value), &[&format!("a.tsv:2: the label `{label}` is no number")]);
    }
    check_error(data.set_targets(TargetKind::Mask), &["no class for each pixel"]);
}

#[test]
fn a_tokenizer_must_fit_the_model_and_the_text() {
    let small = Modality::Text { max_tokens: 6, vocabulary: 5 };
    check_error(
        load_text("a\t1\nc\t1\n", None, small),
        &["a.tsv:2: the tokenizer gives token 5", "has 5 word embeddings"],
    );

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tsv");
    std::fs::write(&path, "a\t1\n\t0\n").unwrap();
    let tokenizer = Tokenizer::load(&write_tokenizer(folder.path(), false), 6).unwrap();
    let (files, form) = (Files::One(path), Form::default());
    let source = Source {
        files: &files,
        part: Part::Train,
        form: &form,
        only: None,
        texts: false,
        labels: None,
        modalities: &[TEXT],
        language: None,
        transform: None,
        device: &Device::Cpu,
    };
    check_error(load(&source, Some(&tokenizer)), &["a.tsv:2: the tokenizer makes no token of this text"]);
    check_error(load(&source, None), &["needs its tokenizer.json"]);
}

#[test]
fn more_rows_than_a_block_stay_in_order() {
    let rows = 2 * BLOCK + 3;
    let words = ["a", "b", "c", "d"];
    let content: String = (0..rows).map(|i| format!("{}\t{}\n", words[i % 4], i % 3)).collect();
    let data = load_text(&content, None, TEXT).unwrap();
    assert_eq!(data.len(), rows);
    for row in (0..rows as u32).step_by(97) {
        let Input::Text(input) = data.input(&[row]).unwrap() else { panic!("not text") };
        assert_eq!(input.ids[1], 3 + row % 4);
        assert_eq!((data.class(row).unwrap(), data.place(row).unwrap().1), (Some(row % 3), Some(u64::from(row) + 1)));
    }
}

#[test]
fn digits_are_embedded() {
    let data = load_digits("demo", Part::Train, DIGITS).unwrap();
    assert_eq!((data.len(), data.labels().join("")), (1442, "0123456789".into()));
    let Input::Images(images) = data.input(&[3, 1]).unwrap() else { panic!("not images") };
    assert_eq!(images.dims(), [2, 8, 8, 1]);
    assert_eq!(data.targets(&[3, 1], &Device::Cpu).unwrap().to_vec1::<u32>().unwrap(), [3, 1]);
    assert_eq!(data.place(3).unwrap().1, None);
    assert_eq!((data.tokens(0).unwrap(), data.total_tokens()), (17, 17 * 1442));
    let pretrain = load_digits("demo-pretrain", Part::Test, DIGITS).unwrap();
    assert_eq!((pretrain.len(), pretrain.labels().join("")), (178, "01234".into()));
}

#[test]
fn data_and_model_must_fit() {
    check_error(
        load_digits("demo", Part::Test, Modality::Images { channels: 3, size: 32, any_size: false, tokens: 65 }),
        &["1 x 8 x 8", "3 x 32 x 32"],
    );
    check_error(load_digits("photos", Part::Test, DIGITS), &["photos: there is no such file"]);
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::load(&write_tokenizer(folder.path(), true), 6).unwrap();
    let (files, form) = (Files::from(Path::new("demo")), Form::default());
    let source = Source {
        files: &files,
        part: Part::Train,
        form: &form,
        only: None,
        texts: false,
        labels: None,
        modalities: &[TEXT],
        language: None,
        transform: None,
        device: &Device::Cpu,
    };
    check_error(load(&source, Some(&tokenizer)), &["the data `demo` are images, and the model reads text"]);
}

/// As many labels as rows, as values are: nothing is kept of each, and classes they are not.
#[test]
fn values_may_all_be_different() {
    let rows = 70_000;
    let content: String = (0..rows).map(|i| format!("a\t{i}.25\n")).collect();
    let load = |memory| load_file(("a.tsv", content.as_bytes()), None, TEXT, memory).unwrap();
    for mut data in [load(0), load(usize::MAX)] {
        assert!(data.targets(&[0], &Device::Cpu).is_err());
        check_error(
            data.set_targets(TargetKind::Class),
            &["a.tsv:65537: the label `65536.25` comes after 65536 different ones", "a head that learns values"],
        );
        data.set_targets(TargetKind::Value).unwrap();
        let values = data.targets(&[rows - 1, 3], &Device::Cpu).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values, [69_999.25, 3.25]);
        assert!(data.labels().is_empty() && data.class_counts().is_empty());
    }
}

/// Threads that read a spilled data set at once each get their own rows.
#[test]
fn many_threads_read_at_once() {
    let content: String =
        (0..3000).map(|i| format!("{}\t{}\n", "a b c d".split_at(1 + 2 * (i % 4)).0, i % 7)).collect();
    let load = |memory| load_file(("a.tsv", content.as_bytes()), None, TEXT, memory).unwrap();
    let (data, spilled) = (load(usize::MAX), load(0));
    let ids = |data: &Dataset, rows: &[u32]| match data.input(rows).unwrap() {
        Input::Text(input) => input.ids,
        Input::Images(_) => panic!("not text"),
    };
    std::thread::scope(|scope| {
        for thread in 0..8u32 {
            let (data, spilled) = (&data, &spilled);
            scope.spawn(move || {
                for i in 0..300 {
                    let rows = [(i * 7 + thread) % 3000, (i * 13 + 5 * thread) % 3000];
                    assert_eq!(ids(data, &rows), ids(spilled, &rows));
                }
            });
        }
    });
}

/// Rows far longer than the tokenizer looks at.
#[test]
fn a_text_of_megabytes_is_cut_and_counted() {
    let began = std::time::Instant::now();
    let content = format!("a b\t1\n{}\t0\n{}\t1\n", "a b c d ".repeat(5 << 17), "b ".repeat(100_000));
    let data = load_text(&content, None, TEXT).unwrap();
    assert_eq!((data.len(), data.truncated(), data.total_tokens()), (3, 2, 4 + 6 + 6));
    let line = format!("{{\"text\": \"{}\", \"label\": 1}}", "a b c d ".repeat(5 << 17));
    let data = load_file(("a.jsonl", line.as_bytes()), None, TEXT, 0).unwrap();
    assert_eq!((data.len(), data.truncated()), (1, 1));
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

/// Rows of words, from memory and from disk.
fn load_words(rows: &[&str], labels: Option<&[String]>) -> Result<Dataset> {
    let content = rows.join("\n");
    let load = |memory| load_file(("a.jsonl", content.as_bytes()), labels, TEXT, memory);
    let data = load(usize::MAX)?;
    let spilled = load(0).unwrap();
    assert!(data.in_memory() > 0 && spilled.in_memory() == 0);
    assert_same(&data, &spilled);
    Ok(data)
}

const WORDS: [&str; 3] = [
    "{\"text\": [\"a b\", \"c\"], \"label\": [\"B-X\", \"O\"]}",
    "{\"text\": [\"d\"], \"label\": [\"O\"]}",
    // Six tokens are the most: the last label goes with its word.
    "{\"text\": [\"a\", \"b c\", \"\", \"d\", \"a\"], \"label\": [\"O\", \"B-X\", \"I-X\", \"I-X\", \"B-Y\"]}",
];

#[test]
fn labels_of_words_belong_to_their_first_tokens() {
    const NONE: u32 = UNCOUNTED;
    let data = load_words(&WORDS, None).unwrap();
    assert_eq!(data.labels(), ["B-X", "B-Y", "I-X", "O"]);
    assert_eq!((data.len(), data.total_tokens(), data.truncated()), (3, 5 + 3 + 6, 1));
    let targets = |rows: &[u32]| data.targets(rows, &Device::Cpu).unwrap().to_vec1::<u32>().unwrap();
    assert_eq!(targets(&[1, 0]), [NONE, 3, NONE, NONE, 0, NONE, 3, NONE]);
    assert_eq!(targets(&[2]), [NONE, 3, 0, NONE, 2, NONE]);
    // Tokens that count: of the word that makes no token, and of the one that is cut off, none does.
    assert_eq!((data.class_counts(), data.class(0).unwrap()), (vec![2, 0, 1, 3], None));
    let Input::Text(input) = data.input(&[0]).unwrap() else { panic!("not text") };
    assert_eq!((input.ids, input.layout.offsets().to_vec()), (vec![1, 3, 4, 5, 2], vec![0, 5]));
}

#[test]
fn words_that_are_scored_have_a_token_or_are_missed() {
    let mut data = load_words(&WORDS, None).unwrap();
    data.set_targets(TargetKind::TokenClass).unwrap();
    // O is predicted for the word that is cut off; nothing is for the one without a token.
    assert_eq!(data.missed(2).unwrap(), (vec![1], false));
    assert_eq!([0, 1, 2].map(|row| data.scored_words(row).unwrap()), [vec![0, 1], vec![0], vec![0, 1, 3, 4]]);
    let renamed = WORDS.map(|row| row.replace("\"O\"", "\"NOUN\""));
    let data = load_words(&renamed.each_ref().map(String::as_str), None).unwrap();
    assert_eq!((data.missed(2).unwrap().0, data.scored_words(2).unwrap()), (Vec::new(), vec![0, 1, 3]));
}

#[test]
fn a_split_counts_the_tokens_of_each_side() {
    let rows: Vec<&str> = WORDS.into_iter().cycle().take(30).collect();
    let data = load_words(&rows, None).unwrap();
    let (all, tokens) = (data.class_counts(), data.total_tokens());
    let (train, held_out) = data.split(0.3, 1).unwrap();
    assert_eq!((train.len(), held_out.len()), (21, 9));
    assert_eq!(train.total_tokens() + held_out.total_tokens(), tokens);
    let both: Vec<u64> = train.class_counts().iter().zip(held_out.class_counts()).map(|(a, b)| a + b).collect();
    assert_eq!(both, all);
}

#[test]
fn words_are_for_heads_that_want_them() {
    let known = ["B-X", "B-Y", "I-X", "O"].map(String::from);
    let mut data = load_words(&WORDS, Some(&known)).unwrap();
    data.set_targets(TargetKind::TokenClass).unwrap();
    assert_eq!(data.class_counts(), [2, 0, 1, 3]);
    for kind in [TargetKind::Class, TargetKind::Value] {
        check_error(data.set_targets(kind), &["a.jsonl: has texts that are lists of words", "a class for each token"]);
    }
    let mut data = load_words(&WORDS, Some(&known[..3])).unwrap();
    check_error(
        data.set_targets(TargetKind::TokenClass),
        &["a.jsonl:1: the label `O` does not occur in the training data"],
    );
    let mut data = load_text("a\t1\n", None, TEXT).unwrap();
    check_error(data.set_targets(TargetKind::TokenClass), &["a.tsv: has one label per example", "\"B-ORG\""]);
    let empty = "{\"text\": [\"\", \" \"], \"label\": [\"O\", \"O\"]}";
    check_error(load_words(&[WORDS[0], empty], None), &["a.jsonl:2: the tokenizer makes no token of any word"]);
}

#[test]
fn texts_and_ids_are_kept_where_they_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tsv");
    std::fs::write(&path, "key\ttext\ttext_pair\tlabel\nr1\ta b\tc\t1\nr2\t\td\t0\n").unwrap();
    let tokenizer = Tokenizer::load(&write_tokenizer(folder.path(), true), 6).unwrap();
    let columns = Columns { id: Some("key".into()), ..Columns::default() };
    let (files, form) = (Files::One(path), Form { columns, ..Form::default() });
    for texts in [false, true] {
        let source = Source {
            files: &files,
            part: Part::Train,
            form: &form,
            only: None,
            texts,
            labels: None,
            modalities: &[TEXT],
            language: None,
            transform: None,
            device: &Device::Cpu,
        };
        let data = load(&source, Some(&tokenizer)).unwrap();
        assert_eq!(data.ids().unwrap(), [Some("r1".to_owned()), Some("r2".to_owned())]);
        let expected = |of: [&str; 2]| if texts { of.map(String::from).to_vec() } else { Vec::new() };
        assert_eq!(data.texts(0).unwrap(), expected(["a b", "c"]));
        assert_eq!(data.texts(1).unwrap(), expected(["", "d"]));
        assert_eq!((data.group(0).unwrap(), data.weights(&[0]).unwrap()), (None, None));
    }
}
