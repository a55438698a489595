"""The progress bar of every long job: redrawn on a terminal, a line now and then in a log."""

import sys
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LOG_LINES = 10.0


class _Lines:
    """A text stream that turns a redrawn bar into lines, so that `tail -f` shows one every few seconds."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        if text.strip():
            self.stream.write(text.strip("\r\n ") + "\n")

    def flush(self) -> None:
        self.stream.flush()


def progress_bar(title: str, total: int | None, unit: str, done: int = 0) -> "tqdm[Any]":
    """A bar on standard error, a context manager; `update(n)` moves it, `total` None only counts."""
    about: dict[str, Any] = {"desc": title, "initial": done, "total": total, "unit": unit}
    if sys.stderr.isatty():
        return tqdm(**about, dynamic_ncols=True)
    return tqdm(**about, file=_Lines(sys.stderr), mininterval=SECONDS_BETWEEN_LOG_LINES, ascii=True, ncols=110)
