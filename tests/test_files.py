from pathlib import Path

import pytest

from rlassay.files import read_json, replacing, sha256, write_json


def test_what_is_written_is_read_and_nothing_is_left_beside_it(tmp_path: Path):
    path = tmp_path / "deep" / "run.json"
    write_json(path, {"step": 1})
    write_json(path, {"step": 2})
    assert read_json(path) == {"step": 2}
    assert [each.name for each in path.parent.iterdir()] == ["run.json"]


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path):
    path = tmp_path / "run.json"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as unfinished:
            unfinished.write_text("half")
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b'{"step": 1', b"[1, 2]", b"\xff\xfe"])
def test_half_a_file_is_no_file(tmp_path: Path, content: bytes):
    (tmp_path / "run.json").write_bytes(content)
    assert read_json(tmp_path / "run.json") is None
    assert read_json(tmp_path / "absent.json") is None


def test_sha256_is_the_known_digest(tmp_path: Path):
    (tmp_path / "abc").write_bytes(b"abc")  # the first test vector of FIPS 180
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
