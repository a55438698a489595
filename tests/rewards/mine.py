"""Rewards as a user writes them, in every accepted form."""

import math
from typing import Any


def half(item: dict[str, Any]) -> float:
    return 0.5


def with_metrics(item: dict[str, Any]) -> tuple[float, dict[str, float]]:
    right = float(item["response"] == item["ground_truth"])
    return right, {"length": item["response_length"]}


def overlap(item: dict[str, Any]) -> tuple[float, dict[str, float]]:
    """The example in Visual-Reweighting's manual: a length in bounds, and the share of the gold answer's words."""
    gold, said = item["ground_truth"], set(item["response"].split())
    shared = len(set(gold.split()) & said) / len(set(gold.split())) if gold else 0.0
    reward = 0.5 * (2 <= len(item["response"]) <= 200) + shared
    return reward, {"length": len(item["response"]), "overlap": shared}


def with_overall(item: dict[str, Any]) -> dict[str, float]:
    return {"overall": item["response_length"] / 10, "format": 1.0}


def longest(items: list[dict[str, Any]]) -> list[float]:
    lengths = [item["response_length"] for item in items]
    return [float(length == max(lengths)) for length in lengths]


def all_overall(items: list[dict[str, Any]]) -> list[dict[str, float]]:
    return [with_overall(item) for item in items]


def without_value(item: dict[str, Any]) -> None:
    return None


def not_a_number(item: dict[str, Any]) -> float:
    return math.nan


def text(item: dict[str, Any]) -> str:
    return "good"


def too_few(items: list[dict[str, Any]]) -> list[float]:
    return [1.0]


def gets_everything(items: list[dict[str, Any]]) -> list[float]:
    expected = {
        "response": "C",
        "response_length": 3,
        "finished": True,
        "prompt": "Which digit is larger?",
        "ground_truth": "B",
        "choices": ["3", "7", "1", "9"],
        "images": ["images/1.png"],
        "meta": {"id": 7},
        "signals": {"modality_dominance/all": 2.0},
    }
    return [float(item == expected) for item in items]


def tuned(item: dict[str, Any], *, scale: float = 1.0, words: tuple[str, ...] = ()) -> float:
    return scale * sum(word in item["response"] for word in words)
