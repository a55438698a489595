"""The records between stages: a frozen type per file format, with reader and writer."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rlassay.files import replacing

TRAINING_SPLITS = ("sft", "train")
"""The splits that training reads; every other split is for evaluation."""
LETTERS = "ABCDEFGHIJ"
"""Names of a multiple-choice row's options."""


class Record(BaseModel):
    """A frozen row; unknown fields and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class FrameSampling(Record):
    """How many frames of a clip are shown."""

    frame_cnts: tuple[int, ...] = ()
    """Source frames of each action segment in the clip."""
    min_frames: int | None = None
    """Fewest frames to show; None leaves it to the study."""
    max_frames: int | None = None
    """Most frames to show; None leaves it to the study."""
    dynamic_sample: bool = True
    """Whether the number follows the clip's duration; False shows `max_frames`."""


class Media(Record):
    """One image or video clip that belongs to a prompt."""

    kind: Literal["image", "video"] = "image"
    """Kind of the file."""
    path: str
    """Path of an image relative to the study's data folder; a video keeps the path of its source."""
    frames: FrameSampling | None = None
    """For a video, how many frames are shown, where its source says so."""
    strip: str = ""
    """Of a video: path of its film strip, relative to the study's data folder. It shows the frames side by side."""
    times: tuple[float, ...] = ()
    """Of a video: time of each strip frame, seconds from the clip's first frame."""
    duration: float = 0.0
    """For a video, its length, seconds."""
    fps: float = 0.0
    """For a video, its frames per second, on average."""

    @property
    def shown(self) -> str:
        """Path of the image that shows it: itself, or the film strip of a video."""
        return self.path if self.kind == "image" else self.strip

    @property
    def num_frames(self) -> int:
        """How many frames that image shows side by side; 1 for an image."""
        return max(1, len(self.times))


class PromptRow(Record):
    """One prompt with its gold answer; the key `prompt_id` follows it through every later file."""

    prompt_id: str
    """Hex digest of the content, written once by the data stage."""
    question: str
    """The question as the source words it, without options and without instructions."""
    answer: str
    """The gold answer; for a multiple-choice row, its letter."""
    choices: tuple[str, ...] = ()
    """The option texts in the order of their letters A, B, C, ...; empty for free answers."""
    media: tuple[Media, ...] = ()
    """Images and videos in the order in which the prompt shows them."""
    demonstration: str | None = None
    """A completion to imitate, on the rows of the `sft` split only."""
    meta: dict[str, str | int | float | bool] = {}
    """Further fields of the source (item id, kind of question)."""

    @property
    def letters(self) -> str:
        """The option letters of this row, `ABCD` for four choices."""
        return LETTERS[: len(self.choices)]


class Histogram(Record):
    """Distribution of whole numbers."""

    quartiles: tuple[int, ...]
    """Smallest, lower quartile, median, upper quartile, largest."""
    width: int
    """Numbers per bar; the first bar begins at the smallest."""
    bars: tuple[int, ...]
    """How many numbers fall into each."""


class RejectedRecord(Record):
    """One record of the source that did not become a row."""

    where: str
    """Its place in the source: `file:line`, or `file: row 3`."""
    reason: str
    """Why it was rejected, a key of `SplitFacts.refused`."""
    detail: str = ""
    """Details of this record, such as the message of an error."""


PairedBy = Literal["prompt", "look", "image"]
"""Content that two rows share: prompt and media; prompt, answer and similar images; or an image or clip."""


class RefusedPair(Record):
    """A record refused as a duplicate or leak, beside the row that it repeats."""

    kind: Literal["duplicate", "leak"]
    """`duplicate` repeats a row of its own split; `leak` is a training record that repeats an evaluation row."""
    by: PairedBy
    """The content that the two share."""
    where: str
    """The refused record's place in the source; empty for generated rows."""
    prompt_id: str
    """The key that the refused record would have."""
    question: str
    """Its question, shortened."""
    choices: tuple[str, ...] = ()
    """Its option texts, shortened."""
    answer: str
    """Its gold answer, shortened."""
    match_split: str
    """The split of the row that it repeats."""
    match_row: int
    """That row's line in `<match_split>.jsonl`, from 0."""
    match_id: str = ""
    """That row's `prompt_id`."""


class SplitFacts(Record):
    """Counts and examples of one split; an entry of `data.json`."""

    rows: int
    """Rows kept."""
    records: int = 0
    """Records read: the rows kept and the records refused."""
    refused: dict[str, int]
    """Reason -> records; `duplicate: ...` = a prompt of the same split, `leak: ...` = of an evaluation split."""
    rejected: tuple[RejectedRecord, ...] = ()
    """The first few refused records of each reason, by their places in the source."""
    pairs: tuple[RefusedPair, ...] = ()
    """The first few duplicates and leaks, each with the row that it repeats."""
    choices: dict[str, int] = {}
    """Number of options -> rows; 0 options = a free answer."""
    media: dict[str, int] = {}
    """Number of images and clips -> rows."""
    answers: dict[str, int] = {}
    """The most frequent gold answers -> rows; empty if there are too many different ones to count."""
    distinct_answers: int | None = None
    """Number of different gold answers; null if there are too many to count."""
    question_length: Histogram | None = None
    """Length of the questions, characters; null without rows."""
    answer_length: Histogram | None = None
    """Length of the gold answers, or of the right options' texts, characters; null without rows."""

    def kept(self, split: str) -> list[str]:
        """Lines such as `train: 7 of 28 rows kept`, then the reasons of rejections.

        There is a line per reason, most frequent first.
        """
        records = max(self.records, self.rows + sum(self.refused.values()))
        reasons = sorted(self.refused.items(), key=lambda item: (-item[1], item[0]))
        return [
            f"{split}: {self.rows} of {records} rows kept",
            *(f"  {count} rejected: {why}{self.first_place(why)}" for why, count in reasons),
        ]

    def first_place(self, reason: str) -> str:
        """` (first: FILE:LINE: DETAIL)` of the records rejected for a reason; empty if the source names no places."""
        first = next((one for one in self.rejected if one.reason == reason), None)
        if first is None:
            return ""
        return f" (first: {first.where}{f': {first.detail}' if first.detail else ''})"


class Completion(Record):
    """One sampled completion, with the fields that a reward may read."""

    text: str
    """The decoded completion, after the text that the template prefilled; without special tokens."""
    token_count: int
    """Number of completion tokens, the end-of-sequence token included."""
    finished: bool
    """Whether it ended by itself; False = truncated at the length limit."""
    row: PromptRow
    """The prompt that it answers."""
    signals: dict[str, float] = {}
    """Per-completion measurements that the study requests (none by default)."""


Mode = Literal["sampled", "greedy", "beams"]
"""How a completion of the evaluation is decoded."""


class CompletionRow(Record):
    """One line of `<set>.completions.jsonl`: a completion of the evaluation stage."""

    prompt_id: str
    """The prompt it answers."""
    mode: Mode
    """How it was decoded."""
    sample: int
    """0-based index among the prompt's completions of this mode."""
    text: str
    """The decoded completion, after the text that the template prefilled."""
    token_count: int
    """Number of completion tokens, the end-of-sequence token included."""
    finished: bool
    """False = truncated at the length limit."""
    signals: dict[str, float] = {}
    """Measurements that a reward of the study reads (none by default)."""


SCORED = "rlassay.scored"
"""Metadata key of a file of scores. Its value is JSON: the `policy`'s folder, and the SHA-256 of its `completions`."""


class ScoreRow(Record):
    """One row of `<set>.scores.parquet`: one metric of one completion."""

    prompt_id: str
    """The prompt that was answered."""
    mode: Mode
    """How the completion was decoded."""
    sample: int
    """0-based index among the prompt's completions of this mode."""
    metric: str
    """A reward's name, or one of the metrics that GLOSSARY.md lists for the score stage."""
    value: float | None
    """The metric's value; None = cannot be scored."""


RecordT = TypeVar("RecordT", bound=Record)


def read_rows(path: Path | str, kind: type[RecordT] = PromptRow) -> Iterator[RecordT]:
    """Yield the records of a JSONL file, one line at a time.

    Errors: ValueError naming file and line for bad UTF-8, bad JSON, a row that does not fit `kind`, and an empty file.
    """
    path = Path(path)
    number = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            yield parse_row(line, f"{path}:{number}", kind)
    if number == 0:
        raise ValueError(f"{path}: empty; expected one {kind.__name__} per line")


def parse_row(line: bytes, where: str, kind: type[RecordT] = PromptRow) -> RecordT:
    """The record in one line of JSON; ValueError begins with `where` and names the field, its value, valid values."""
    try:
        return kind.model_validate_json(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        message = first["msg"][0].lower() + first["msg"][1:]
        if first["type"] == "extra_forbidden":
            message = f"unknown field; the fields are {', '.join(kind.model_fields)}"
        elif first["type"] not in ("missing", "json_invalid"):
            message += f", got {str(first['input'])[:60]!r}"
        raise ValueError(f"{where}: {field}: {message}; expected a {kind.__name__}") from None


def write_rows(path: Path | str, rows: Iterable[Record]) -> int:
    """Write records as JSONL by rename, so that a reader never sees half a file; return how many."""
    count = 0
    with replacing(Path(path)) as unfinished, unfinished.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(row_line(row))
            count += 1
    return count


def row_line(row: Record) -> str:
    """A record as one line of JSON; fields that hold their default are left out."""
    return json.dumps(row.model_dump(mode="json", exclude_defaults=True), ensure_ascii=False) + "\n"
