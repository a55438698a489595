"""Read and write small files so that a kill never leaves one half written."""

import hashlib
import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast


@contextmanager
def replacing(path: Path) -> Generator[Path, None, None]:
    """Yield a temporary path to write, then rename it to `path`.

    Readers see the old file or the new one. After an exception the temporary file is removed, and `path` is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON by rename; the keys keep their order."""
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`; None if the file is absent, torn or holds anything else."""
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return cast(dict[str, Any], content) if isinstance(content, dict) else None


def combined_digest(files: dict[str, str]) -> str:
    """One digest of several files, given as name -> digest; for a single file it is that file's own."""
    if len(files) == 1:
        return next(iter(files.values()))
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def sha256_of(content: bytes) -> str:
    """Hex SHA-256 of the content of a file."""
    return hashlib.sha256(content).hexdigest()
