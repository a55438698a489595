"""Names for readers: metrics in words, and sentences about an unknown name."""

from collections.abc import Iterable
from difflib import get_close_matches

METRICS_IN_WORDS = {
    "choice_accuracy": "accuracy",
    "choice_accuracy_lenient": "accuracy, lenient parser",
    "action_set_iou": "action-set IoU",
    "think_format": "thinking format",
    "think_answer_format": "format",
    "strict_think_answer_format": "strict format",
    "soft_overlong": "soft overlong penalty",
    "rouge_average": "ROUGE average",
    "rouge_average/rouge1": "ROUGE-1",
    "rouge_average/rouge2": "ROUGE-2",
    "rouge_average/rougeL": "ROUGE-L",
    "rouge_average/rougeLsum": "ROUGE-Lsum",
    "rouge_l": "ROUGE-L, stemmed",
    "token_count": "completion length",
    "parse_failure": "parse failures, strict",
    "parse_failure_lenient": "parse failures, lenient",
    "grading_disagreement": "strict and lenient disagree",
}
"""Evaluation metric -> its name in words, for keys that are not readable words."""


def in_words(metric: str) -> str:
    """A metric for readers: `ROUGE-1` for `rouge_average/rouge1`, `mine: time spent` for `mine/time_spent`."""
    return METRICS_IN_WORDS.get(metric, metric.replace("_", " ").replace("/", ": "))


def unknown(what: str, got: object, known: Iterable[str]) -> str:
    """`credit: got 'uniforn', expected one of uniform, entropy_filter; did you mean 'uniform'?`"""
    known = list(known)
    return f"{what}: got {got!r}, expected {one_of(known)}{nearest(str(got), known)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the known name closest to `name`, or the first that contains it; empty if none is."""
    known = list(known)
    close = get_close_matches(name, known, n=1) or [other for other in known if len(name) > 2 and name in other]
    return f"; did you mean {close[0]!r}?" if close else ""


def one_of(known: Iterable[str]) -> str:
    """`one of a, b, c`; the name alone when there is only one."""
    known = list(known)
    return known[0] if len(known) == 1 else "one of " + ", ".join(known)
