"""Outcomes of a split's records: accepted or rejected, written to a resumable journal, and counted."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any
from zlib import crc32

from rlassay.data.duplicates import PromptSignature
from rlassay.data.raw_examples import NOT_WANTED
from rlassay.records import LETTERS, Histogram, RefusedPair, RejectedRecord, SplitFacts


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A record that became a row."""

    row: str
    """The row's line in `<split>.jsonl`."""
    signature: PromptSignature
    """The digests with which later rows are compared."""
    images: tuple[str, ...] = ()
    """Paths of the files that are stored for it, relative to the study's data folder."""
    digests: tuple[str, ...] = ()
    """SHA-256 of each of these files."""


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A record that did not become a row."""

    reason: str
    """Why; similar records have the same reason."""
    where: str = ""
    """The record's place in the source; empty for generated ones."""
    detail: str = ""
    """Details of this record."""
    pair: RefusedPair | None = None
    """Of a duplicate or leak, the row that it repeats."""


Outcome = Accepted | Rejected


class Journal:
    """The outcomes of a split on disk, from which a killed attempt is resumed.

    The first line identifies the state (study, code, input files); then comes one line per record, in source order:
    `<crc32 of the rest> <JSON>`, followed by `<tab><the row's JSON>` if accepted. Each line is written by one call, so
    only a crash of the machine can leave part of a line; the checksum detects that.
    """

    def __init__(self, path: Path, belongs_to: str) -> None:
        """Open or create the journal at `path`; a journal of another state is emptied."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        head = _line(json.dumps({"belongs_to": belongs_to}))
        self._file.seek(0)
        if self._file.readline() != head:
            self._file.truncate(0)
            self._write(head)
        self._start = len(head)

    def outcomes(self, is_valid: Callable[[Outcome], bool] = lambda _: True) -> Iterator[Outcome]:
        """The recorded outcomes; the first damaged or invalid line and all after it are deleted.

        Args:
            is_valid: whether an outcome can still be used, its images being unchanged.
        """
        valid = self._start
        with open(self._file.fileno(), "rb", closefd=False) as lines:
            lines.seek(valid)
            for line in lines:
                outcome = _parse(line)
                if outcome is None or not is_valid(outcome):
                    break
                yield outcome
                valid += len(line)
        self._file.truncate(valid)

    def append(self, outcome: Outcome) -> None:
        """Record the outcome of the next record."""
        if isinstance(outcome, Accepted):
            known = outcome.signature
            about: dict[str, Any] = {"text": known.text, "plain": known.plain, "answer": known.answer}
            about |= {"exact": known.exact, "hashes": known.hashes}
            about |= {"prompt_id": known.prompt_id, "images": outcome.images, "digests": outcome.digests}
            self._write(_line(f"{json.dumps(about)}\t{outcome.row.rstrip()}"))
        else:
            about = {"reason": outcome.reason, "where": outcome.where, "detail": outcome.detail}
            if outcome.pair is not None:
                about["pair"] = outcome.pair.model_dump_json()
            self._write(_line(json.dumps(about)))

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _write(self, line: bytes) -> None:
        if self._file.write(line) != len(line):
            raise OSError(f"{self._file.name}: only part of a line was written; is the disk full?")


def _line(text: str) -> bytes:
    content = text.encode("utf-8")
    return b"%08x %s\n" % (crc32(content), content)


def _parse(line: bytes) -> Outcome | None:
    checksum, _, content = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % crc32(content):
        return None
    about, tab, row = content.decode("utf-8").partition("\t")
    entry: dict[str, Any] = json.loads(about)
    if not tab:
        pair = RefusedPair.model_validate_json(entry.pop("pair")) if "pair" in entry else None
        return Rejected(**entry, pair=pair)
    signature = PromptSignature(
        text=entry["text"],
        plain=entry["plain"],
        answer=entry["answer"],
        exact=tuple(entry["exact"]),
        hashes=tuple(entry["hashes"]),
        prompt_id=entry["prompt_id"],
    )
    images, digests = tuple(entry["images"]), tuple(entry["digests"])
    return Accepted(row=f"{row}\n", signature=signature, images=images, digests=digests)


MAX_DISTINCT_ANSWERS = 10_000
"""With more distinct free answers than this, answers are not counted."""
TOP_ANSWERS = 10
MAX_PAIRS = 20
"""Duplicates and leaks that are kept with the rows that they repeat."""
MAX_NAMED = 5
"""Rejected records that are listed for each reason."""
MAX_BARS = 12


class SplitStats:
    """Statistics of a split, computed in one pass without holding its rows."""

    def __init__(self) -> None:
        self.rows = 0
        self._rejected: Counter[str] = Counter()
        self._named: dict[str, list[RejectedRecord]] = {}
        self._pairs: list[RefusedPair] = []
        self._counts: dict[str, Counter[int]] = {name: Counter() for name in ("choices", "media", "question", "answer")}
        self._answers: Counter[str] = Counter()
        self._too_many_answers = False

    def add(self, outcome: Outcome) -> None:
        """Count the outcome of one more record."""
        if not isinstance(outcome, Accepted):
            self._add_rejected(outcome)
            return
        row: dict[str, Any] = json.loads(outcome.row)
        choices = row.get("choices", ())
        self.rows += 1
        self._counts["choices"][len(choices)] += 1
        self._counts["media"][len(row.get("media", ()))] += 1
        self._counts["question"][len(row["question"])] += 1
        self._counts["answer"][len(choices[LETTERS.index(row["answer"])] if choices else row["answer"])] += 1
        if not self._too_many_answers:
            self._answers[row["answer"]] += 1
            self._too_many_answers = len(self._answers) > MAX_DISTINCT_ANSWERS

    def rejections(self) -> str:
        """The rejection reasons with counts and first places, most frequent first, for an error message."""
        return "; ".join(self._rejection(*item) for item in self._rejected.most_common()) or "none"

    def rejected_share(self) -> float:
        """Share of the records that were rejected; those that the study leaves out by their ids do not count."""
        unwanted = self._rejected[NOT_WANTED]
        records = self.rows + self._rejected.total() - unwanted
        return (self._rejected.total() - unwanted) / records if records else 0.0

    def _add_rejected(self, outcome: Rejected) -> None:
        self._rejected[outcome.reason] += 1
        if outcome.pair is not None and len(self._pairs) < MAX_PAIRS:
            self._pairs.append(outcome.pair)
        named = self._named.setdefault(outcome.reason, [])
        if outcome.where and outcome.reason != NOT_WANTED and len(named) < MAX_NAMED:
            named.append(RejectedRecord(where=outcome.where, reason=outcome.reason, detail=outcome.detail))

    def _rejection(self, reason: str, count: int) -> str:
        named = [f"{one.where}{f': {one.detail}' if one.detail else ''}" for one in self._named[reason]]
        more = ", ..." if 0 < len(named) < count else ""
        places = f" ({', '.join(named)}{more})" if named else ""
        return f"{count} because {reason}{places}"

    def facts(self) -> SplitFacts:
        """The statistics of all outcomes so far."""
        top = sorted(self._answers.items(), key=lambda item: (-item[1], item[0]))[:TOP_ANSWERS]
        if all(answer in LETTERS for answer, _ in top):
            top.sort()
        return SplitFacts(
            rows=self.rows,
            records=self.rows + self._rejected.total(),
            refused=dict(sorted(self._rejected.items())),
            rejected=tuple(one for _, named in sorted(self._named.items()) for one in named),
            pairs=tuple(self._pairs),
            choices={str(number): count for number, count in sorted(self._counts["choices"].items())},
            media={str(number): count for number, count in sorted(self._counts["media"].items())},
            answers={} if self._too_many_answers else dict(top),
            distinct_answers=None if self._too_many_answers else len(self._answers),
            question_length=histogram(self._counts["question"]),
            answer_length=histogram(self._counts["answer"]),
        )


def histogram(counts: Counter[int]) -> Histogram | None:
    """Quartiles of integers, and up to MAX_BARS bars of equal width over their range; None if there are none."""
    if not counts:
        return None
    values = sorted(counts)
    cumulative = list(accumulate(counts[value] for value in values))
    low, high = values[0], values[-1]
    width = -(-(high - low + 1) // MAX_BARS)
    bars: Counter[int] = Counter()
    for value in values:
        bars[(value - low) // width] += counts[value]
    return Histogram(
        quartiles=tuple(_quantile(values, cumulative, quarter / 4) for quarter in range(5)),
        width=width,
        bars=tuple(bars[index] for index in range(max(bars) + 1)),
    )


def _quantile(values: list[int], cumulative: list[int], share: float) -> int:
    """The smallest value that at least `share` of all values do not exceed."""
    return next(value for value, count in zip(values, cumulative, strict=True) if count >= share * cumulative[-1])
