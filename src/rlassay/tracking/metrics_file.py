"""`metrics.jsonl`, read while another process writes it."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlassay.tracking.names import legal_name


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value of one metric at one step."""

    key: str
    """The metric's name in MLflow."""
    value: float
    """Always finite."""
    step: int
    """Optimiser step."""
    timestamp: int
    """When it was logged, unix milliseconds."""


class MetricsFile:
    """The lines that were added since the last look, also when a resumed job has cut the file back in between."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rewind()

    def rewind(self) -> None:
        """Begin again with the first line."""
        self._seen = 0
        self._last = b""

    def new_points(self) -> list[Point]:
        """The points of all complete lines that were not returned yet; a torn line is left out."""
        try:
            with self.path.open("rb") as content:
                content.seek(self._seen - len(self._last))
                if content.read(len(self._last)) != self._last:  # cut back and written anew
                    self.rewind()
                    content.seek(0)
                text = content.read()
        except FileNotFoundError:
            self.rewind()
            return []
        text = text[: text.rfind(b"\n") + 1]
        lines = text.splitlines(keepends=True)
        self._seen += len(text)
        self._last = lines[-1] if lines else self._last
        return [point for line in lines for point in _points(line)]


def _points(line: bytes) -> Iterator[Point]:
    try:
        logged: dict[str, Any] = json.loads(line)
    except ValueError:
        return
    for name, value in logged.items():
        if name in ("step", "time") or not isinstance(value, int | float) or not math.isfinite(value):
            continue
        key, timestamp = legal_name(name), int(logged["time"] * 1000)
        yield Point(key=key, value=float(value), step=logged["step"], timestamp=timestamp)
