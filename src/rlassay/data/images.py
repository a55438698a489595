"""The images of a study: one file per content, named by its digest."""

import hashlib
from pathlib import Path

from rlassay.data.digests import Digests, digest_of
from rlassay.files import sha256
from rlassay.records import Media

SUFFIXES = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "BMP": "bmp", "GIF": "gif"}
"""Formats that are accepted, with their file names' endings."""


class Images:
    """Receives images into `<data>/images/`; what an earlier run left there goes with `prune`."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.folder = data / "images"
        self._names = Digests()
        self._digest = hashlib.sha256()
        self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, content: bytes, suffix: str = "png", prefix: str | None = None) -> Media:
        """Keep a file's content under `images/<sha256, 16 digits>.<suffix>`, or `<prefix>_<8 digits>.<suffix>`."""
        digest = hashlib.sha256(content).hexdigest()
        name = f"{digest[:16]}.{suffix}" if prefix is None else f"{prefix}_{digest[:8]}.{suffix}"
        if self._note(name):
            (self.folder / name).write_bytes(content)
        return Media(path=f"images/{name}")

    def recall(self, path: str, digest: str) -> bool:
        """Whether an image that an earlier attempt added is there as it was; then it counts as added again."""
        try:
            sound = sha256(self.data / path) == digest
        except OSError:
            return False
        if sound:
            self._note(path.removeprefix("images/"))
        return sound

    def prune(self) -> None:
        """Remove every image that was not added."""
        for file in self.folder.iterdir():
            if digest_of(file.name) not in self._names:
                file.unlink()

    def digest(self) -> str:
        """One sha256 for all images, over their names in the order of the rows: a name is a digest of the content."""
        return self._digest.hexdigest()

    def _note(self, name: str) -> bool:
        """Whether the name is new."""
        if not self._names.add(digest_of(name)):
            return False
        self._digest.update(f"{name}\n".encode())
        return True


def media_path(digest: str, suffix: str) -> str:
    """How a prompt's key names an image: by its content, wherever and however it is stored."""
    return f"images/{digest[:16]}.{suffix}"
