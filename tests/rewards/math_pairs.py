"""Gold answers, completions and the right value of `math_accuracy`, each pair different; one pair a line.

Both columns are read as written, except that `¶` is a line end.
"""

from pathlib import Path

PAIRS: list[tuple[str, str, float]] = [
    (gold, text.replace("¶", "\n"), float(value))
    for gold, text, value in (
        line.split(" | ") for line in (Path(__file__).parent / "math_pairs.txt").read_text("utf-8").splitlines() if line
    )
]
