#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::report::metrics::Probabilities;
use crate::run::results::evaluate::Classes;

fn predicted<'a>(task: &'a str, labels: &'a [String], evaluation: &'a Evaluation) -> Predicted<'a> {
    Predicted { task, labels, separator: "|", evaluation, data: None }
}

#[test]
fn names_and_numbers_come_back_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let labels = ["no, never", "a\t\"b\"\nc"].map(String::from);
    let found = Classes::new(&labels, vec![0, 1], vec![1, 1], None);
    let p = vec![0.25, 0.75, 0.125, 0.875];
    let probabilities = Some(Probabilities::new(2, p.clone()));
    let classes = Classes { confidences: vec![Some(0.75), Some(0.875)], probabilities, ..found };
    let classes = Evaluation::new(Some(0.5), Outcome::Classes(classes), 2);
    let (targets, predictions) = (vec![0.1f32, 1e-20], vec![f32::NAN, 1.0 / 3.0]);
    let values = Evaluation::new(Some(0.5), Outcome::Values { targets, predictions }, 0);

    for all in [true, false] {
        let tasks = [predicted("a", &labels, &classes), predicted("b", &[], &values)];
        let worst = write(&path, &tasks, all).unwrap();
        assert_eq!((worst[0].len(), worst[0][0].example, worst[0][0].prediction.as_str()), (1, 1, labels[1].as_str()));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.starts_with("task,target,prediction,example,probability\n"), !all, "{text}");
        let back = read(&path, "a", &labels).unwrap();
        assert_eq!(back.iter().map(|row| row.prediction.as_str()).collect::<Vec<_>>(), [labels[1].as_str(); 2]);
        let wide: Vec<f64> = p.iter().map(|&p| f64::from(p)).collect();
        let found: Vec<f64> = back.iter().flat_map(|row| row.probabilities.clone()).collect();
        assert_eq!(found, if all { wide } else { Vec::new() });
        let back = read(&path, "b", &[]).unwrap();
        assert_eq!(back[1].prediction.parse(), Ok(1.0f32 / 3.0));
        assert_eq!(back[1].target.parse(), Ok(1e-20f32));
        assert_eq!(back.iter().map(|row| row.example).collect::<Vec<_>>(), [1, 2]);
    }

    // Of three examples the first has two words that count, the second none.
    let words = Classes::new(&labels, vec![0, 1, 1], vec![1, 1, 0], Some(vec![2, 0, 1]));
    let words = Evaluation::new(Some(0.5), Outcome::Classes(words), 2);
    write(&path, &[predicted("c", &labels, &words)], false).unwrap();
    let back = read(&path, "c", &labels).unwrap();
    assert_eq!(back.iter().map(|row| row.example).collect::<Vec<_>>(), [1, 1, 3]);

    std::fs::write(&path, "task,target,prediction,example\na,b\n").unwrap();
    assert!(read(&path, "a", &[]).unwrap_err().to_string().contains("predictions.csv:2: "));
}
