"""The commands of the warm start and of the evaluation, from arguments to files."""

import pytest

from rlassay.cli import generate, score, sft_train
from rlassay.cli.common import main
from tests.config.studies import content, write
from tests.evaluation.tiny import SMALL, layout_with_data, only, tiny_study


@pytest.fixture
def arguments(tmp_path) -> list[str]:
    """`--study` and `--results` of a tiny study whose data are there."""
    file = write(tmp_path / "digits.yaml", content(**SMALL))
    layout_with_data(tmp_path / "results/digits")
    return ["--study", str(file), "--results", str(tmp_path / "results")]


def call(module, arguments: list[str]) -> int:
    return main(module.__doc__, module.add_arguments, module.run, arguments)


def test_a_warm_start_is_trained_answers_and_is_scored(arguments, tmp_path):
    policy = only(tiny_study(), "sft").folder

    assert call(sft_train, [*arguments, "--policy", policy]) == 0
    assert call(generate, [*arguments, "--policy", policy, "--set", "test"]) == 0
    assert call(score, [*arguments, "--policy", policy, "--set", "test"]) == 0

    assert (tmp_path / "results/digits" / policy / "eval/test.scores.parquet").exists()


@pytest.mark.parametrize("module", [sft_train, generate, score])
def test_an_unknown_policy_is_refused_with_the_known_ones(module, arguments, capsys):
    options = [] if module is sft_train else ["--set", "test"]

    assert call(module, [*arguments, "--policy", "sft/0", *options]) == 2
    assert "--policy: got 'sft/0', expected" in capsys.readouterr().err


@pytest.mark.parametrize("module", [generate, score])
def test_an_unknown_set_is_refused(module, arguments, capsys):
    policy = only(tiny_study(), "model").folder

    assert call(module, [*arguments, "--policy", policy, "--set", "tset"]) == 2
    assert "--set: got 'tset', expected" in capsys.readouterr().err


@pytest.mark.parametrize(("module", "stage"), [(sft_train, "sft"), (generate, "model")])
def test_a_study_that_changed_after_planning_is_refused(module, stage, arguments, capsys):
    options = [] if module is sft_train else ["--set", "test"]
    policy = only(tiny_study(), stage).folder

    assert call(module, [*arguments, "--policy", policy, *options, "--fingerprint", "0"]) == 2
    assert "the study changed after this job was planned" in capsys.readouterr().err
