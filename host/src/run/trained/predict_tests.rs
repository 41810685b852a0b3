#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;

/// An example's id and its texts.
type Given<'a> = (Option<&'a str>, &'a [&'a str]);

#[track_caller]
fn check(
    form: (Format, bool),
    kind: PredictionKind,
    labels: &[&str],
    rows: &[(Given<'_>, Prediction)],
    expected: &str,
) {
    let labels: Vec<String> = labels.iter().map(|&label| label.into()).collect();
    let mut out = Vec::new();
    let style = Style { format: form.0, probabilities: form.1 };
    let ids = rows.iter().any(|((id, _), _)| id.is_some());
    let mut writer = Writer::new(&mut out, style, kind, &labels, ids, Decision::default());
    for (line, ((id, texts), prediction)) in (2..).zip(rows) {
        let texts: Vec<String> = texts.iter().map(|&text| text.into()).collect();
        writer.write(&Place { line, id: *id, texts: &texts }, prediction).unwrap();
    }
    writer.finish().unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn classes_with_their_probabilities_and_texts() {
    use PredictionKind::Classes;
    let rows: [(Given<'_>, Prediction); 2] = [
        ((None, &["good, but\tlong"]), Prediction::Example(vec![0.25, 0.75])),
        ((None, &[""]), Prediction::Example(vec![0.5, 0.5])),
    ];
    check(
        (Format::Tsv, true),
        Classes,
        &["a\tb", "c, d"],
        &rows,
        "line\tlabel\tprobability\tp(a b)\tp(c, d)\ttext\n2\tc, d\t0.75\t0.25\t0.75\tgood, but long\n3\ta b\t0.5\t0.5\t0.5\t\n",
    );
    check(
        (Format::Csv, false),
        Classes,
        &["a", "c, d"],
        &rows[..1],
        "line,label,probability,text\n2,\"c, d\",0.75,\"good, but\tlong\"\n",
    );
    let pair = [((Some("a"), &["x", "y"][..]), Prediction::Example(vec![0.25, 0.75]))];
    check(
        (Format::Jsonl, false),
        Classes,
        &["b", "a"],
        &pair,
        "{\"line\":2,\"id\":\"a\",\"label\":\"a\",\"probability\":0.75,\"probabilities\":{\"b\":0.25,\"a\":0.75},\"text\":\"x\",\"text_pair\":\"y\"}\n",
    );
    check(
        (Format::Csv, false),
        Classes,
        &["a", "b"],
        &[((None, &[]), Prediction::Example(vec![1.0, 0.0]))],
        "line,label,probability\n2,a,1\n",
    );
}

#[test]
fn words_have_a_row_each_in_a_table_and_lists_in_an_object() {
    use PredictionKind::Classes;
    let text: Given<'_> = (Some("7"), &["EU", "", "rejects"]);
    let found = || Prediction::Words(vec![Some(vec![0.25, 0.75]), None, Some(vec![0.75, 0.25])]);
    check(
        (Format::Tsv, false),
        Classes,
        &["B-X", "O"],
        &[(text, found())],
        "line\tid\tword\tlabel\tprobability\ttext\n2\t7\t1\tO\t0.75\tEU\n2\t7\t2\t\t\t\n2\t7\t3\tB-X\t0.75\trejects\n",
    );
    check(
        (Format::Jsonl, false),
        Classes,
        &["B-X", "O"],
        &[(text, found())],
        "{\"line\":2,\"id\":\"7\",\"labels\":[\"O\",null,\"B-X\"],\"probability\":[0.75,null,0.75],\"text\":[\"EU\",\"\",\"rejects\"]}\n",
    );
}

#[test]
fn values() {
    let value = || Prediction::Example(vec![3.5]);
    check(
        (Format::Tsv, false),
        PredictionKind::Values,
        &[],
        &[((None, &["x"]), value())],
        "line\tvalue\ttext\n2\t3.5\tx\n",
    );
    check(
        (Format::Jsonl, false),
        PredictionKind::Values,
        &[],
        &[((None, &[]), value())],
        "{\"line\":2,\"value\":3.5}\n",
    );
}

#[test]
fn the_extension_tells_the_format_and_may_not_be_contradicted() {
    let choose = |named, out: Option<&str>, input: &str| Format::choose(named, out.map(Path::new), Path::new(input));
    assert_eq!(choose(None, Some("a.csv"), "b.tsv").unwrap(), Format::Csv);
    assert_eq!(choose(None, None, "b.ndjson").unwrap(), Format::Jsonl);
    assert_eq!(choose(None, None, "b.parquet").unwrap(), Format::Tsv);
    assert_eq!(choose(Some(Format::Jsonl), Some("a.txt"), "b.tsv").unwrap(), Format::Jsonl);
    let error = choose(Some(Format::Jsonl), Some("a.csv"), "b.tsv").unwrap_err().to_string();
    assert!(error.contains("--format says jsonl, and --out a.csv is a .csv file"), "{error}");
    let error = choose(None, Some("a.xlsx"), "b.tsv").unwrap_err().to_string();
    assert!(error.contains("the extension of a.xlsx names no format"), "{error}");
}

#[test]
fn a_threshold_decides_between_two_classes() {
    let labels = ["ham", "spam"].map(String::from);
    let decision = Decision { threshold: Some(0.25), ..Decision::default() };
    let style = Style { format: Format::Csv, probabilities: false };
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, style, PredictionKind::Classes, &labels, false, decision);
    for p in [0.25, 0.125] {
        let place = Place { line: 1, id: None, texts: &[] };
        writer.write(&place, &Prediction::Example(vec![1.0 - p, p])).unwrap();
    }
    writer.finish().unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "line,label,probability\n1,spam,0.25\n1,ham,0.875\n");
}
