"""The tags by which a run is found again, and names that MLflow accepts."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# MERGED FROM tracking.names: The tags by which a run is found again, and names that MLflow accepts.

STUDY = "rlassay.study"
"""Name of the results folder, which is the experiment's name too."""
POLICY = "rlassay.policy"
"""Folder of the policy, relative to the study's results; of a parent run, the folder of all its seeds."""
STAGE = "rlassay.stage"
"""`sft`, `rl`, `evaluation`; of a parent run `arm`, `warm start` or `model`; `report`."""
ARM = "rlassay.arm"
"""The arm; absent for what arms share."""
SEED = "rlassay.seed"
"""The seed; absent for what seeds share."""
IDENTITY = "rlassay.identity"
"""Which results on disk the run shows; it stays the same when a killed job goes on."""
CURRENT = "rlassay.current"
"""`true` for the results that lie on disk now, `false` for those that a later training replaced."""
DIGEST = "rlassay.digest."
"""Followed by the name of an artifact: the digest of what was uploaded."""


def legal_name(name: str) -> str:
    """`name` as MLflow takes it for a metric or a param: `pass@1` becomes `pass_at_1`.

    Letters, digits, `_ - . : /` and blanks pass, everything else becomes `_`; as in a path, no part may be empty
    or consist of dots.
    """
    parts = [re.sub(r"[^A-Za-z0-9_\-. :]", "_", part.replace("@", "_at_")) for part in name.split("/")]
    return "/".join(part if part.strip(".") else "_" * max(1, len(part)) for part in parts)


# MERGED FROM tracking.metrics_file: `metrics.jsonl`, read while another process writes it.


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
