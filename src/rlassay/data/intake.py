"""From drafts to rows: content checked, media admitted, duplicates and leaks refused, one split after the other."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import Any

from PIL.Image import Image

from rlassay.bar import progress_bar
from rlassay.config import StudyError
from rlassay.config.data import PromptLimit
from rlassay.data.drafts import Draft, RowRefusedError, Source, UnsuitableError
from rlassay.data.duplicates import Seen, Shown, text_digest
from rlassay.data.images import Images, below, encode, media_path, perceptual_hash
from rlassay.data.journal import Kept, Outcome, Refused
from rlassay.records import LETTERS, TRAINING_SPLITS, Histogram, Media, PromptRow, SplitFacts, row_line
from rlassay.rewards.gold import gold_refusal

# MERGED FROM data.row_checks: What the types of a `PromptRow` cannot say about a row that somebody wrote.

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


# MERGED FROM data.tally: What the rows of a split are like, counted in one pass without holding them.

DISTINCT_ANSWERS = 10_000
"""Free answers that are told apart; where there are more, none is counted."""
SHOWN_ANSWERS = 10
BARS = 12


class Tally:
    """Counts the outcomes of one split."""

    def __init__(self) -> None:
        self.rows = 0
        self._refused: Counter[str] = Counter()
        self._counts: dict[str, Counter[int]] = {name: Counter() for name in ("choices", "media", "question", "answer")}
        self._answers: Counter[str] = Counter()
        self._too_many = False

    def add(self, outcome: Outcome) -> None:
        """Count one more record."""
        if not isinstance(outcome, Kept):
            self._refused[outcome.reason] += 1
            return
        row: dict[str, Any] = json.loads(outcome.row)
        choices = row.get("choices", ())
        self.rows += 1
        self._counts["choices"][len(choices)] += 1
        self._counts["media"][len(row.get("media", ()))] += 1
        self._counts["question"][len(row["question"])] += 1
        self._counts["answer"][len(choices[LETTERS.index(row["answer"])] if choices else row["answer"])] += 1
        if not self._too_many:
            self._answers[row["answer"]] += 1
            self._too_many = len(self._answers) > DISTINCT_ANSWERS

    def refusals(self) -> str:
        """Why records were refused, most frequent first, for a message."""
        return ", ".join(f"{count} because {reason}" for reason, count in self._refused.most_common()) or "none"

    def facts(self) -> SplitFacts:
        """The counts so far."""
        shown = sorted(self._answers.items(), key=lambda item: (-item[1], item[0]))[:SHOWN_ANSWERS]
        if all(answer in LETTERS for answer, _ in shown):
            shown.sort()
        return SplitFacts(
            rows=self.rows,
            refused=dict(sorted(self._refused.items())),
            choices={str(number): count for number, count in sorted(self._counts["choices"].items())},
            media={str(number): count for number, count in sorted(self._counts["media"].items())},
            answers={} if self._too_many else dict(shown),
            distinct_answers=None if self._too_many else len(self._answers),
            question_length=histogram(self._counts["question"]),
            answer_length=histogram(self._counts["answer"]),
        )


def histogram(counts: Counter[int]) -> Histogram | None:
    """Quartiles of whole numbers and at most BARS bars of equal width over their range; None without any."""
    if not counts:
        return None
    values = sorted(counts)
    below = list(accumulate(counts[value] for value in values))
    low, high = values[0], values[-1]
    width = -(-(high - low + 1) // BARS)
    bars: Counter[int] = Counter()
    for value in values:
        bars[(value - low) // width] += counts[value]
    return Histogram(
        quartiles=tuple(_quantile(values, below, quarter / 4) for quarter in range(5)),
        width=width,
        bars=tuple(bars[place] for place in range(max(bars) + 1)),
    )


def _quantile(values: list[int], below: list[int], share: float) -> int:
    """The smallest value that at least `share` of all do not exceed."""
    return next(value for value, count in zip(values, below, strict=True) if count >= share * below[-1])


# MERGED FROM data.identity: The key of a prompt: a digest of what the model is shown.


def content_id(row: PromptRow) -> str:
    """16 hex digits over question, choices and images, whose paths are digests of their bytes.

    The gold answer is left out: the same prompt with another answer is a contradiction and not another prompt.
    """
    shown = [row.question, list(row.choices), [[item.kind, item.path] for item in row.media]]
    return hashlib.sha256(json.dumps(shown, ensure_ascii=False).encode()).hexdigest()[:16]


# MERGED FROM data.intake: From drafts to rows: content checked, media admitted, duplicates and leaks refused,
# one split after the other.

SHOWN_PROBLEMS = 20
Refusal = Callable[[PromptRow, Sequence[Image]], str | None]
"""Why a row with these images may not be used, or None."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An image as it will be stored."""

    content: bytes
    """The file."""
    suffix: str
    """Ending of its name."""
    digest: str
    """SHA-256 of the file."""
    picture: Image
    """The same, decoded."""


@dataclass(kw_only=True)
class Intake:
    """Receives the drafts of all splits of one study."""

    source: Source
    """Where they come from."""
    images: Images
    """Receives their images."""
    too_long: Refusal
    """Refuses prompts of too many tokens."""
    seen: dict[str, Seen] = field(default_factory=dict)
    """What each split holds so far."""

    def admit(self, draft: Draft, split: str) -> Kept:
        """The draft's row; RowRefusedError with the reason if it cannot be used, and then nothing of it is stored."""
        row = _row(draft, split)
        stored = [self._encode(image, draft) for image in draft.images]
        videos = [below(path, draft.media_root, "video") for path in draft.videos]
        row = row.model_copy(update={"media": _named(stored, draft.videos)})
        if reason := self.too_long(row, [one.picture for one in stored]):
            raise UnsuitableError(reason)
        shown = Shown(
            text=text_digest(row),
            exact=(*(one.digest for one in stored), *draft.videos),
            hashes=tuple(perceptual_hash(one.picture) for one in stored),
            prompt_id=draft.prompt_id,
        )
        self._compare(shown, split)
        media = tuple(self.images.add(one.content, one.suffix, draft.jpeg_name) for one in stored)
        self._seen(split).add(shown)
        clips = tuple(Media(kind="video", path=str(path), frames=draft.frames) for path in videos)
        row = row.model_copy(update={"prompt_id": draft.prompt_id or content_id(row), "media": media + clips})
        return Kept(row=row_line(row), shown=shown, images=tuple(one.path for one in media))

    def recall(self, outcome: Outcome, split: str) -> bool:
        """Whether an earlier attempt's outcome still holds, its images being there; its row counts from now on."""
        if isinstance(outcome, Refused):
            return True
        known = zip(outcome.images, outcome.shown.exact, strict=False)
        if not all(self.images.recall(path, digest) for path, digest in known):
            return False
        self._seen(split).add(outcome.shown)
        return True

    def _encode(self, image: object, draft: Draft) -> Stored:
        content, suffix, picture = encode(image, draft.media_root, self.source.images, draft.jpeg_name is not None)
        return Stored(content=content, suffix=suffix, digest=hashlib.sha256(content).hexdigest(), picture=picture)

    def _seen(self, split: str) -> Seen:
        if split not in self.seen:
            self.seen[split] = Seen(split=split, exactly=self.source.drawn)
        return self.seen[split]

    def _compare(self, shown: Shown, split: str) -> None:
        """A training row may show nothing that an evaluation split has; only splits drawn apart share no prompt."""
        self._seen(split).refuse_duplicate(shown)
        for name, other in self.seen.items():
            if split in TRAINING_SPLITS and name not in TRAINING_SPLITS:
                other.refuse_duplicate(shown, "leak")
                other.refuse_shared_image(shown)
            elif name != split and self.source.drawn:
                other.refuse_duplicate(shown)


def in_order(splits: Iterable[str]) -> list[str]:
    """The splits in the order in which they are read: those for evaluation come first.

    So a training row that an evaluation split holds too is refused, and no training row ever changes an evaluation
    split. `sft` and `train` may share rows: one warms up on what the other goes on with.
    """
    return sorted(splits, key=lambda split: split in TRAINING_SPLITS)


def take_in(split: str, limit: int | None, intake: Intake, done: Iterable[Outcome] = ()) -> Iterator[Outcome]:
    """What becomes of the records of a split, one by one, each read when it is asked for.

    Args:
        limit: rows to keep; None keeps all.
        done: what an earlier attempt made of the first records; they are not given again.

    Errors: StudyError if fewer rows than `limit` are usable or, from a strict source, at the end and for all rows that
        are not; once there is such a row, nothing is given any more.
    """
    past = Counter(isinstance(outcome, Kept) for outcome in done)
    kept, problems = past[True], Problems()
    records = islice(intake.source.drafts[split](), past.total(), None)
    with progress_bar(split, limit, "row", done=kept) as bar:
        while kept != limit and (draft := next(records, None)) is not None:
            outcome = _outcome(draft, split, intake, problems)
            if outcome is not None and not problems:
                yield outcome
            kept += isinstance(outcome, Kept)
            bar.update(isinstance(outcome, Kept))
    problems.check()
    if limit is not None and kept < limit:
        raise StudyError([f"data.splits.{split}: asks for {limit} rows, but only {kept} are usable; lower it, or null"])


class Problems(list[str]):
    """What is wrong with a strict source: the first sentences, and how many more there are."""

    more = 0

    def note(self, problem: str) -> None:
        """Add a sentence, or count it where there are enough to show."""
        if len(self) < SHOWN_PROBLEMS:
            self.append(problem)
        else:
            self.more += 1

    def check(self) -> None:
        """StudyError if there is any."""
        if self:
            raise StudyError([*self, *([f"... and {self.more} more"] if self.more else [])])


def _outcome(draft: Draft | RowRefusedError, split: str, intake: Intake, problems: Problems) -> Outcome | None:
    """The record's outcome; None for a mistake in a strict source, which is noted among the problems."""
    try:
        if isinstance(draft, RowRefusedError):
            raise draft
        return intake.admit(draft, split)
    except UnsuitableError as unsuitable:
        return Refused(reason=str(unsuitable))
    except RowRefusedError as refused:
        if not intake.source.strict:
            return Refused(reason=str(refused))
        problems.note(f"{_where(draft)}{refused}")
        return None


def _where(draft: Draft | RowRefusedError) -> str:
    """Where a mistake stands, as its sentence begins; a source that refuses a record itself has said so."""
    if not isinstance(draft, Draft):
        return ""
    images = f" (with {', '.join(map(repr, draft.images))})" if draft.images else ""
    return f"{draft.where}{images}: "


def _row(draft: Draft, split: str) -> PromptRow:
    """The row without its media and its key."""
    row = PromptRow(
        prompt_id=draft.prompt_id,
        question=draft.question,
        answer=draft.answer,
        choices=draft.choices,
        demonstration=draft.demonstration if split == "sft" else None,
        meta=dict(draft.meta),
    )
    for problem in islice(row_problems(row, split), 1):
        raise RowRefusedError(re.sub(r"'.*?'", "...", problem.split(";")[0]))
    if reason := gold_refusal(row):
        raise UnsuitableError(reason)
    return row


def _named(stored: Sequence[Stored], videos: Sequence[str]) -> tuple[Media, ...]:
    """The row's media under names that are the same wherever they lie."""
    images = [Media(path=media_path(one.digest, one.suffix)) for one in stored]
    return (*images, *(Media(kind="video", path=path) for path in videos))


# MERGED FROM data.lengths: Overlong prompts, told by the tokens of a model's own processor.


def length_check(limit: PromptLimit | None) -> Refusal:
    """Refuses a prompt of more than `limit.tokens` tokens, those that stand for its images included.

    Errors: StudyError if the processor cannot be loaded, or cannot take a prompt, such as one with images or clips.
    """
    if limit is None:
        return lambda row, pictures: None
    from rlassay.models.hub import load_processor  # seconds to import
    from rlassay.models.prompt_length import count_tokens

    try:
        processor = load_processor(limit.model, revision=limit.revision, trust_remote_code=limit.trust_remote_code)
    except ValueError as error:
        raise StudyError([f"data.max_prompt_length.model: {error}"]) from error

    def too_long(row: PromptRow, pictures: Sequence[Image]) -> str | None:
        try:
            tokens = count_tokens(row, pictures, processor)
        except ValueError as error:
            raise StudyError([f"data.max_prompt_length: {error}"]) from error
        return f"prompt: more than {limit.tokens} tokens" if tokens > limit.tokens else None

    return too_long
