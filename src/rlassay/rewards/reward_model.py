"""Reward from a trained reward model, or from any other text classifier."""

import json
import math
from collections.abc import Sequence

from rlassay.prompts import question_text
from rlassay.records import Completion
from rlassay.rewards.sandbox.child_process import MODEL_LOAD_SECONDS, child_process

SERVER = "rlassay.models.servers"


def reward_model(
    completions: Sequence[Completion],
    *,
    model: str,
    revision: str | None = None,
    label: int = 1,
    timeout: int | float = 60.0,
) -> list[float | None]:
    """The logit of a sequence-classification model with one label; with several, the log-odds of one of them.

    Log-odds are logit[label] - ln sum exp(the other logits): with two labels the difference of their logits, whose
    logistic function is the label's probability. Both are unbounded and, unlike a probability, never saturate.

    The model reads the question with its options and the completion, in its own chat template if it has one, else as a
    pair of texts; it sees no images. It runs in a process of its own. None for a text that is too long for it. As with
    `judge`, only its name identifies it.

    Args:
        completions: one prompt's group.
        model: hub name or path of the model, or `tiny_lm`, built in with random weights.
        revision: commit, tag or branch on the hub; pin it, since a branch moves.
        label: 0-based index of the rewarded label; ignored for a model with one label.
        timeout: seconds for each completion.

    Raises:
        ValueError: an option is out of range, `label` among them.
        TimeoutError: the group took too long; the model is loaded again for the next group.
        RuntimeError: the model does not load.
    """
    if label < 0:
        raise ValueError(f"label: got {label}; expected 0 or more")
    if not timeout > 0:
        raise ValueError(f"timeout: got {timeout}; expected more than 0 seconds")
    if not completions:
        return []
    pairs = [[question_text(each.row), each.text] for each in completions]
    arguments = json.dumps({"model": model, "revision": revision})
    process = child_process(SERVER, "reward", arguments, start_seconds=MODEL_LOAD_SECONDS)
    logits = process.ask(pairs, float(timeout * len(pairs)))
    return [None if each is None else _value(each, label) for each in logits]


def _value(logits: Sequence[float], label: int) -> float:
    if len(logits) == 1:
        return logits[0]
    if label >= len(logits):
        raise ValueError(f"label: got {label}, but the model has {len(logits)} labels, 0 to {len(logits) - 1}")
    others = [logit for index, logit in enumerate(logits) if index != label]
    highest = max(others)
    return logits[label] - highest - math.log(sum(math.exp(logit - highest) for logit in others))
