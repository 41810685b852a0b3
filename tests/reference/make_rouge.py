"""Makes rouge.json, the reference of host/src/report/metrics/rouge.rs.

Usage: python tests/reference/make_rouge.py     (needs rouge_score; made with 0.1.2)
"""

import json
import random
from pathlib import Path

from rouge_score import rouge_scorer

HERE = Path(__file__).resolve().parent

PAIRS = [
    ("The capital of France is Paris.", "The capital of France is Paris."),
    ("the capital of france is paris", "The capital of France is Paris!"),
    ("Paris", "The capital of France is Paris."),
    ("The capital of France is Paris, a city on the Seine.", "Paris"),
    ("police kill the gunman", "police killed the gunman"),
    ("the gunman kill police", "police killed the gunman"),
    ("a b c d e", "e d c b a"),
    ("a x b y c", "z a b w c"),
    ("one one one", "one"),
    ("", "Paris"),
    ("Paris", ""),
    ("", ""),
    ("...", "Paris"),
    ("no word in common", "alle anderen Wörter"),
    ("Crème fraîche", "Creme fraiche"),
    ("Straße in Köln", "Strasse in Koeln"),
    ("Париж", "Париж"),
    ("東京 is Tokyo", "Tokyo is 東京"),
    ("don't stop-it", "dont stop it"),
    ("3.14 is pi", "pi is 3.14"),
    ("snake_case and CamelCase", "snake case and camelcase"),
    ("first line\nsecond\tline", "first line second line"),
    ("\u0130stanbul and 100 \u212a", "istanbul and 100 k"),
]


def main():
    draw = random.Random(0)
    words = [f"w{i}" for i in range(12)]
    for long, short in [(40, 30), (7, 60), (120, 120), (1, 50)]:
        PAIRS.append(tuple(" ".join(draw.choice(words) for _ in range(n)) for n in (long, short)))
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    cases = [
        {"text": text, "answer": answer, "rouge_l": scorer.score(answer, text)["rougeL"].fmeasure}
        for text, answer in PAIRS
    ]
    (HERE / "rouge.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
