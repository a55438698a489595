"""The progress bar of every long job.

It is redrawn on a terminal; a log gets one line every few seconds.
"""

import sys
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    Bar = tqdm[Any]

SECONDS_BETWEEN_LOG_LINES = 10.0


class _Lines:
    """Text stream for `tail -f`: each redrawing of a bar on its own line."""

    def __init__(self, stream: Any) -> None:  # a TextIO, which beartype does not recognise under pytest's capture
        self.stream = stream

    def write(self, text: str) -> None:
        if text.strip():
            self.stream.write(text.strip("\r\n ") + "\n")

    def flush(self) -> None:
        self.stream.flush()


def progress_bar(title: str, total: int | None, unit: str, done: int = 0) -> "Bar":
    """A progress bar on standard error, as a context manager.

    Args:
        title: text before the bar.
        total: steps in all; None shows a count without a bar.
        unit: name of a step.
        done: steps done before this process began.

    Returns:
        A `tqdm`; `update(n)` advances it by n steps.
    """
    options: dict[str, Any] = {"desc": title, "initial": done, "total": total, "unit": unit}
    if sys.stderr.isatty():
        return tqdm(**options, dynamic_ncols=True)
    return tqdm(**options, file=_Lines(sys.stderr), mininterval=SECONDS_BETWEEN_LOG_LINES, ascii=True, ncols=110)
