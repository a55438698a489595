"""The command of the report rule."""

from pathlib import Path

import pytest

from rlassay.cli import ablation_report
from rlassay.cli.common import main


def test_an_unfinished_study_is_an_error_that_says_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["--study", "digits", "--scale", "tiny", "--results", str(tmp_path)]
    code = main(ablation_report.__doc__, ablation_report.add_arguments, ablation_report.run, arguments)
    said = capsys.readouterr().err
    assert code == 2
    assert "is missing; make it with: snakemake --cores all" in said
    assert (
        f"make all with: snakemake --cores all ablation_report --config study=digits scale=tiny results={tmp_path}"
        in said
    )


def test_a_partial_report_needs_the_data_at_least(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["--study", "digits", "--scale", "tiny", "--results", str(tmp_path), "--partial"]
    code = main(ablation_report.__doc__, ablation_report.add_arguments, ablation_report.run, arguments)
    assert code == 2
    assert "data.json is missing; make it with" in capsys.readouterr().err
