"""What has become of a split's records so far, on disk, so that a killed attempt is gone on with and not repeated."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from rlassay.data.duplicates import Shown


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A record that became a row."""

    row: str
    """The row's line in `<split>.jsonl`."""
    shown: Shown
    """The forms in which later rows are compared with it."""
    images: tuple[str, ...] = ()
    """Its images' paths, as in `Media.path`; `shown.exact` begins with their digests."""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A record that was left out."""

    reason: str
    """Why; alike for alike records."""


Outcome = Kept | Refused


class Journal:
    """One line per record of the source, in its order, after a line that says what they belong to.

    A line is `<crc32 of the rest> <JSON>`, and for a row `<tab><the row's JSON>` behind it; it reaches the file whole
    or not at all, but for a crash of the machine, after which its checksum tells.
    """

    def __init__(self, path: Path, belongs_to: str) -> None:
        """Open or begin the journal at `path`; one that belongs to something else is begun anew."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        head = _line(json.dumps({"belongs_to": belongs_to}))
        self._file.seek(0)
        if self._file.readline() != head:
            self._file.truncate(0)
            self._write(head)
        self._start = len(head)

    def outcomes(self, is_sound: Callable[[Outcome], bool] = lambda _: True) -> Iterator[Outcome]:
        """What is written down, up to the first line that is damaged or not sound; this line and what follows is cut.

        Args:
            is_sound: whether what an outcome rests on is still there.
        """
        sound = self._start
        with open(self._file.fileno(), "rb", closefd=False) as lines:
            lines.seek(sound)
            for line in lines:
                outcome = _parse(line)
                if outcome is None or not is_sound(outcome):
                    break
                yield outcome
                sound += len(line)
        self._file.truncate(sound)

    def append(self, outcome: Outcome) -> None:
        """Write down what has become of the next record."""
        if isinstance(outcome, Kept):
            shown = outcome.shown
            about = {"text": shown.text, "exact": shown.exact, "hashes": shown.hashes, "prompt_id": shown.prompt_id}
            about["images"] = outcome.images
            self._write(_line(f"{json.dumps(about)}\t{outcome.row.rstrip()}"))
        else:
            self._write(_line(json.dumps({"reason": outcome.reason})))

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _write(self, line: bytes) -> None:
        if self._file.write(line) != len(line):
            raise OSError(f"{self._file.name}: the line could not be written whole; is the disk full?")


def _line(text: str) -> bytes:
    content = text.encode("utf-8")
    return b"%08x %s\n" % (crc32(content), content)


def _parse(line: bytes) -> Outcome | None:
    checksum, _, content = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % crc32(content):
        return None
    about, mark, row = content.decode("utf-8").partition("\t")
    entry: dict[str, Any] = json.loads(about)
    if not mark:
        return Refused(**entry)
    shown = Shown(
        text=entry["text"], exact=tuple(entry["exact"]), hashes=tuple(entry["hashes"]), prompt_id=entry["prompt_id"]
    )
    return Kept(row=f"{row}\n", shown=shown, images=tuple(entry["images"]))
