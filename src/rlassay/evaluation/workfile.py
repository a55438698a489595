"""Finished batches of a generation job, kept where a kill cannot reach them."""

import json
from pathlib import Path
from types import TracebackType

from rlassay.records import CompletionRow


class WorkFile:
    """One line per finished batch: `{"key", "batch", "rows"}`. Lines that are torn or have another key do not count."""

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.done: dict[int, list[CompletionRow]] = {}
        """Finished batches by number."""
        self._key = key

    def __enter__(self) -> "WorkFile":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._read()
        self._out = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out.close()

    def add(self, batch: int, rows: list[CompletionRow]) -> None:
        """Keep a finished batch."""
        self.done[batch] = rows
        line = json.dumps({"key": self._key, "batch": batch, "rows": [row.model_dump(mode="json") for row in rows]})
        # The newline comes first as well, so that a torn line before this one does not spoil it.
        self._out.write(f"\n{line}\n")
        self._out.flush()

    def _read(self) -> None:
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                content = json.loads(line)
                if content["key"] == self._key:
                    rows = [CompletionRow.model_validate(row) for row in content["rows"]]
                    self.done[content["batch"]] = rows
            except (ValueError, KeyError, TypeError):  # pydantic raises ValueError
                continue
