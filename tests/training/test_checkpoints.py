import logging
from pathlib import Path

import pytest

from rlassay.layout import CHECKPOINT_MANIFEST as MANIFEST
from rlassay.layout import checkpoint_step
from rlassay.training.checkpoints import flaw, newest_sound, seal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sealed checkpoints of steps 2, 4 and 10; text order would put 10 first."""
    for step in (2, 4, 10):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "model.safetensors").write_bytes(bytes(100))
        (checkpoint / "optimizer.pt").write_bytes(b"moments")
        seal(checkpoint)
    return tmp_path


def newest_step(folder: Path) -> int | None:
    found = newest_sound(folder, max_steps=11)
    return None if found is None else checkpoint_step(Path(found))


def test_the_newest_is_the_one_with_most_steps(folder: Path):
    assert newest_step(folder) == 10
    assert newest_sound(folder / "nowhere", max_steps=11) is None


def test_a_truncated_file_makes_it_fall_back_with_a_warning(folder: Path, caplog: pytest.LogCaptureFixture):
    (folder / "checkpoint-10" / "model.safetensors").write_bytes(bytes(60))
    with caplog.at_level(logging.WARNING):
        assert newest_step(folder) == 4
    assert "checkpoint-10 is not sound (model.safetensors has 60 bytes, expected 100)" in caplog.text
    assert not (folder / "checkpoint-10").exists()


def test_a_changed_byte_a_missing_file_and_a_missing_manifest_are_found(folder: Path):
    newest = folder / "checkpoint-10"
    (newest / "optimizer.pt").write_bytes(b"momentS")
    assert flaw(newest) == "optimizer.pt has changed since it was written"
    (newest / "optimizer.pt").unlink()
    assert flaw(newest) == "optimizer.pt is missing"
    (newest / MANIFEST).unlink()
    assert flaw(newest) == "it has no readable manifest, so it was never finished"


def test_none_is_left_when_all_are_broken(folder: Path):
    for checkpoint in folder.iterdir():
        (checkpoint / MANIFEST).write_text("{")
    assert newest_sound(folder, max_steps=11) is None


def test_the_one_of_the_last_step_is_passed_over(folder: Path):
    assert Path(str(newest_sound(folder, max_steps=10))).name == "checkpoint-4"
    assert not (folder / "checkpoint-10").exists()
