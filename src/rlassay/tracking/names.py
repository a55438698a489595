"""Names and values for MLflow: tags of runs, legal metric names, points of `metrics.jsonl`."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STUDY = "rlassay.study"
"""Name of the results folder, which is also the experiment's name."""
POLICY = "rlassay.policy"
"""Folder of the policy, relative to the study's results; for a parent run, the folder of all its seeds."""
STAGE = "rlassay.stage"
"""`sft`, `rl`, `evaluation` or `report`; for a parent run `arm`, `warm start` or `model`."""
ARM = "rlassay.arm"
"""The arm; absent for runs that arms share."""
ARM_LABEL = "rlassay.arm_label"
"""The arm as the page names it; absent for runs that arms share."""
SEED = "rlassay.seed"
"""The seed; absent for runs that seeds share."""
IDENTITY = "rlassay.identity"
"""Identity of the results that the run shows; unchanged when a killed job resumes."""
CURRENT = "rlassay.current"
"""`true` for the results now on disk, `false` for those that a later training replaced."""
DIGEST = "rlassay.digest."
"""Prefix before an artifact's name: the digest of its uploaded content."""


def legal_name(name: str) -> str:
    """`name` as MLflow accepts it for a metric or a param: `pass@1` becomes `pass_at_1`.

    Letters, digits, `_ - . : /` and blanks stay, everything else becomes `_`. As in a path, no part may be empty or
    consist of dots.
    """
    parts = [re.sub(r"[^A-Za-z0-9_\-. :]", "_", part.replace("@", "_at_")) for part in name.split("/")]
    return "/".join(part if part.strip(".") else "_" * max(1, len(part)) for part in parts)


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
    """Time of logging, unix milliseconds."""


class MetricsFile:
    """Reader of lines added to `metrics.jsonl` since the last read.

    It works even if a resumed job truncated the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rewind()

    def rewind(self) -> None:
        """Start again from the first line."""
        self._offset = 0
        self._last_line = b""

    def new_points(self) -> list[Point]:
        """Points of all complete lines not returned before; an incomplete line waits."""
        try:
            with self.path.open("rb") as content:
                content.seek(self._offset - len(self._last_line))
                if content.read(len(self._last_line)) != self._last_line:  # truncated and rewritten
                    self.rewind()
                    content.seek(0)
                text = content.read()
        except FileNotFoundError:
            self.rewind()
            return []
        text = text[: text.rfind(b"\n") + 1]
        lines = text.splitlines(keepends=True)
        self._offset += len(text)
        self._last_line = lines[-1] if lines else self._last_line
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
