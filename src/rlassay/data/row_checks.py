"""What the types of a `PromptRow` cannot say about a row that somebody wrote."""

import re
from collections.abc import Iterator

from rlassay.records import PromptRow

MAX_CHOICES = 10
_PROMPT_ID = re.compile(r"[A-Za-z0-9._-]{0,64}")


def row_problems(row: PromptRow, split: str) -> Iterator[str]:
    """One sentence per problem: the field, what it got, what is expected, what to do."""
    if not _PROMPT_ID.fullmatch(row.prompt_id):
        yield f"prompt_id: got {row.prompt_id[:80]!r}, expected up to 64 of A-Z a-z 0-9 . _ -; or leave it out"
    if not row.question.strip():
        yield "question: it is blank; expected text"
    yield from _choice_problems(row)
    yield from _answer_problems(row)
    yield from _demonstration_problems(row, split)


def _choice_problems(row: PromptRow) -> Iterator[str]:
    count = len(row.choices)
    if count == 1 or count > MAX_CHOICES:
        yield f"choices: got {count}, expected 2 to {MAX_CHOICES} (letters A-J), or none for a free answer"
    if any(not choice.strip() for choice in row.choices):
        yield "choices: one of them is blank; expected text"
    repeated = [choice for choice in dict.fromkeys(row.choices) if row.choices.count(choice) > 1]
    if repeated:
        yield f"choices: {repeated[0]!r} stands twice, so that two letters would be right; make them differ"


def _answer_problems(row: PromptRow) -> Iterator[str]:
    if not row.choices:
        if not row.answer.strip():
            yield "answer: it is blank; expected the gold answer"
        return
    if len(row.answer) == 1 and row.answer in row.letters:
        return
    problem = (
        f"answer: got {row.answer[:80]!r}, which is not among the choices; expected a letter {'/'.join(row.letters)}"
    )
    if row.answer in row.choices:
        problem += f"; write {row.letters[row.choices.index(row.answer)]!r}"
    elif len(row.answer) == 1 and row.answer.upper() in row.letters:
        problem += f"; write {row.answer.upper()!r}"
    yield problem


def _demonstration_problems(row: PromptRow, split: str) -> Iterator[str]:
    if split == "sft" and not (row.demonstration or "").strip():
        yield "demonstration: it is missing; rows of the sft split need a completion to imitate"
    if split != "sft" and row.demonstration is not None:
        yield f"demonstration: rows of the {split} split have none; remove it, or move the row to sft.jsonl"
