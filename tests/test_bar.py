"""Bars in logs: whole lines, not redrawn ones."""

import pytest

from rlassay.bar import progress_bar


def test_a_log_gets_lines_and_the_last_one_is_complete(capsys: pytest.CaptureFixture[str]):
    with progress_bar("count", 3, "row", done=1) as bar:
        bar.update()
        bar.update()

    printed = capsys.readouterr().err

    assert "\r" not in printed
    assert printed.endswith("\n")
    assert printed.splitlines()[-1].startswith("count: 100%")
    assert " 3/3 " in printed.splitlines()[-1]


def test_without_a_total_it_counts(capsys: pytest.CaptureFixture[str]):
    with progress_bar("lines", None, "row") as bar:
        bar.update(5)

    assert "lines: 5row" in capsys.readouterr().err
