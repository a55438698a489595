"""Turn a row into chat messages; all wording of prompts is in this file."""

from collections.abc import Sequence
from typing import Any

from rlassay.records import Media, PromptRow


def messages(
    row: PromptRow, system: str | None = None, preface: str | None = None, media: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Chat messages of a row: an optional system turn, then one user turn.

    The user turn has its images first. `preface` is text before the question, for a model without a system role.
    `media` are the types of the parts that show its images and clips; None takes their kinds.

    The user turn has only the question and its options, in the shortest form: in `(B)7` each letter is a token of its
    own, which a small model needs to learn the letters. A model without demonstrations of the completion format gets
    it by `system=instruction(row)`.
    """
    text = question_text(row) if preface is None else f"{preface}\n\n{question_text(row)}"
    shown = [item.kind for item in row.media] if media is None else media
    parts = [{"type": kind} for kind in shown] + [{"type": "text", "text": text}]
    turn = {"role": "user", "content": parts}
    return [turn] if system is None else [{"role": "system", "content": [{"type": "text", "text": system}]}, turn]


def shown_frames(clip: Media, max_frames: int | None = None) -> list[int]:
    """Indices into the film strip of a clip: all frames, or `max_frames` evenly spaced ones."""
    count = len(clip.times)
    if max_frames is None or count <= max_frames:
        return list(range(count))
    return [index * (count - 1) // max(1, max_frames - 1) for index in range(max_frames)]


def instruction(row: PromptRow) -> str:
    """The instruction that describes the completion format to a model without a warm start.

    It is for the system turn.
    """
    answer = "the letter of the right option" if row.choices else "your answer"
    return (
        "Think first, between <think> and </think>. "
        f"Then give {answer}, and nothing else, between <answer> and </answer>."
    )


def demonstrate(answer: str, thinking: str | None = None) -> str:
    """A completion in the format of `instruction`; without `thinking` it has no think block."""
    thought = "" if thinking is None else f"<think>{thinking}</think>"
    return f"{thought}<answer>{answer}</answer>"


def question_text(row: PromptRow) -> str:
    """The question with its options, as in the prompt of the policy."""
    if not row.choices:
        return row.question
    options = " ".join(f"({letter}){choice}" for letter, choice in zip(row.letters, row.choices, strict=True))
    return f"{row.question}\n{options}"
