"""From a row to chat messages: the only place where a prompt is worded."""

from typing import Any

from rlassay.records import PromptRow


def messages(row: PromptRow, system: str | None = None) -> list[dict[str, Any]]:
    """One user turn, its images first, after an optional system turn.

    The user turn holds nothing but the question and its options, as short as it can be: `(B)7` keeps each letter a
    token of its own, which a small model needs in order to learn to name it. A model that has not been shown the
    completion format by demonstrations is told it by `system=instruction(row)`.
    """
    parts = [{"type": item.kind} for item in row.media] + [{"type": "text", "text": question_text(row)}]
    turn = {"role": "user", "content": parts}
    return [turn] if system is None else [{"role": "system", "content": [{"type": "text", "text": system}]}, turn]


def instruction(row: PromptRow) -> str:
    """The completion format in words, for the system turn of a model that does not know it yet."""
    answer = "the letter of the right option" if row.choices else "your answer"
    return (
        "Think first, between <think> and </think>. "
        f"Then give {answer}, and nothing else, between <answer> and </answer>."
    )


def demonstrate(answer: str, thinking: str | None = None) -> str:
    """A completion in the format of `instruction`; without `thinking` it answers at once."""
    thought = "" if thinking is None else f"<think>{thinking}</think>"
    return f"{thought}<answer>{answer}</answer>"


def question_text(row: PromptRow) -> str:
    """The question with its options, as the policy reads it."""
    if not row.choices:
        return row.question
    options = " ".join(f"({letter}){choice}" for letter, choice in zip(row.letters, row.choices, strict=True))
    return f"{row.question}\n{options}"
