"""`rlassay mlflow-sync`: everything on disk, once."""

import socket
from pathlib import Path

import pytest

from rlassay.cli.main import main
from rlassay.config import load_study
from rlassay.layout import Layout
from tests.tracking.conftest import empty_database, reader
from tests.tracking.folders import STEPS, FakeJob
from tests.tracking.reading import Reader

__all__ = ["empty_database", "reader"]


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    study = load_study("digits", "tiny")
    job = FakeJob.of(study, Layout(root=tmp_path / "results" / study.id), "runs/base/seed1")
    job.note("finished")
    job.log(range(1, STEPS + 1))
    results = str(tmp_path / "results")
    return ["mlflow-sync", "--study", "digits", "--scale", "tiny", "--results", results, "--uri"]


def test_it_writes_what_is_missing_and_then_nothing(
    arguments: list[str], reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, reader.uri]) == 0
    printed = capsys.readouterr()
    link = "The arms side by side: after the report is written\n"
    assert printed.out == f"{link}digits-tiny: {2 * STEPS} values written to {reader.uri}\n"
    assert "11/11" in printed.err  # ten policies and the report
    before = reader.dump()
    assert main([*arguments, reader.uri]) == 0
    assert capsys.readouterr().out == f"{link}digits-tiny: {reader.uri} had everything already\n"
    assert reader.dump() == before


def test_a_tracker_that_is_down_is_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert main([*arguments, f"http://127.0.0.1:{unused.getsockname()[1]}"]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert errors[0].endswith("run the command again")
