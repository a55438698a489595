"""Checks of a row's content beyond `PromptRow`'s types, and the key of that content."""

import hashlib
import json
import re
from collections.abc import Iterator
from itertools import islice

from rlassay.data.raw_examples import RawExample, RowRejectedError, UnsuitableRowError
from rlassay.records import PromptRow
from rlassay.rewards.gold import gold_refusal

MAX_CHOICES = 10
_PROMPT_ID = re.compile(r"[A-Za-z0-9._-]{0,64}")


def checked_row(example: RawExample, split: str) -> PromptRow:
    """Check an example's content, score its gold answer, and return it as a row.

    The row has no media.

    Errors: RowRejectedError for invalid content; UnsuitableRowError if the gold answer gets less than full reward.
    """
    row = PromptRow(
        prompt_id=example.prompt_id,
        question=example.question,
        answer=example.answer,
        choices=example.choices,
        demonstration=example.demonstration if split == "sft" else None,
        meta=dict(example.meta),
    )
    for problem in islice(row_problems(row, split), 1):
        # Without the quoted values and the advice, similar rows have the same reason and are counted together.
        raise RowRejectedError(re.sub(r"'.*?'", "...", problem.split(";")[0]))
    if reason := gold_refusal(row):
        raise UnsuitableRowError(reason)
    return row


def row_problems(row: PromptRow, split: str) -> Iterator[str]:
    """One sentence per problem: field, value found, value expected, fix."""
    if not _PROMPT_ID.fullmatch(row.prompt_id):
        yield f"prompt_id: got {row.prompt_id[:80]!r}, expected up to 64 of A-Z a-z 0-9 . _ -; or leave it out"
    if not row.question.strip():
        yield "question: it is blank; expected text"
    yield from _choice_problems(row)
    yield from _answer_problems(row)
    yield from _demonstration_problems(row, split)


def content_id(row: PromptRow) -> str:
    """A prompt's key: 16 hex digits of a digest over question, choices and images.

    The paths of the images are digests of their bytes. The gold answer is left out: the same prompt with another
    answer is a contradiction, not another prompt.
    """
    content = [row.question, list(row.choices), [[item.kind, item.path] for item in row.media]]
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()[:16]


def _choice_problems(row: PromptRow) -> Iterator[str]:
    count = len(row.choices)
    if count == 1 or count > MAX_CHOICES:
        yield f"choices: got {count}, expected 2 to {MAX_CHOICES} (letters A-J), or none for a free answer"
    if any(not choice.strip() for choice in row.choices):
        yield "choices: one of them is blank; expected text"
    repeated = [choice for choice in dict.fromkeys(row.choices) if row.choices.count(choice) > 1]
    if repeated:
        yield f"choices: {repeated[0]!r} appears twice, so that two letters would be right; make them differ"


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
