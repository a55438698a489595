"""`rlassay new`: a file of differences, which is sound or is not written."""

from pathlib import Path

import pytest

from rlassay.cli.main import main
from rlassay.config import load_study
from rlassay.config.load import read_yaml
from tests.config.studies import content, write


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "config/studies/digits.yaml", content())
    monkeypatch.chdir(tmp_path)


def new(*arguments: str) -> int:
    """The exit code of `rlassay new longer --from digits` with further arguments."""
    return main(["new", "longer", "--from", "digits", *arguments])


def test_a_variation_is_one_command_and_a_file_of_its_differences(capsys: pytest.CaptureFixture[str]):
    settings = ["rl.max_steps=80", "rl.learning_rate=1e-5", "seeds=[1, 2]", "arms.dr_grpo=null", "title='80: steps'"]
    assert new(*(part for text in settings for part in ("--set", text))) == 0
    assert read_yaml(Path("config/studies/longer.yaml")) == {
        "name": "longer",
        "extends": "digits",
        "rl": {"max_steps": 80, "learning_rate": 1e-5},
        "seeds": [1, 2],
        "arms": {"dr_grpo": None},
        "title": "80: steps",
    }
    study = load_study("longer")
    assert (study.name, study.seeds, list(study.arms)) == ("longer", (1, 2), ["base", "accuracy_only", "format_only"])
    assert (study.arms["base"].recipe.rl.max_steps, study.arms["base"].recipe.rl.learning_rate) == (80, 1e-5)
    assert capsys.readouterr().out == (
        "config/studies/longer.yaml: 3 arms x 2 seeds = 6 runs; digits has 4 arms x 3 seeds = 12 runs\n"
        "Run it: make ablation_report STUDY=longer\n"
    )


def test_an_existing_file_is_never_overwritten(capsys: pytest.CaptureFixture[str]):
    assert new() == 0
    before = Path("config/studies/longer.yaml").read_text()
    assert new("--set", "seeds=[1]") == 2
    assert "config/studies/longer.yaml: exists already; choose another name" in capsys.readouterr().err
    assert Path("config/studies/longer.yaml").read_text() == before


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rl.max_step=80", "rl.max_step: unknown key; expected one of"),
        ("rl.max_steps", "--set: got 'rl.max_steps', expected KEY=VALUE, such as rl.max_steps=80"),
        ("rl..x=1", "--set: got 'rl..x=1', expected KEY=VALUE"),
        ("seeds=[1", "got the value '[1'"),
        ("name=other", "--set: got 'name=other'"),
    ],
)
def test_a_study_that_is_not_sound_is_not_written(setting: str, message: str, capsys: pytest.CaptureFixture[str]):
    assert new("--set", setting) == 2
    assert message in capsys.readouterr().err
    assert not Path("config/studies/longer.yaml").exists()


def test_a_key_is_set_once(capsys: pytest.CaptureFixture[str]):
    assert new("--set", "rl.beta=0.1", "--set", "rl.beta=0.2") == 2
    assert new("--set", "seeds=[1]", "--set", "seeds.x=2") == 2
    assert capsys.readouterr().err.count("each key once") == 2


def test_an_unknown_parent_and_an_impossible_name(capsys: pytest.CaptureFixture[str]):
    assert main(["new", "longer", "--from", "digts"]) == 2
    assert "config/studies/digts.yaml: no such file" in capsys.readouterr().err
    assert main(["new", "../Longer", "--from", "digits"]) == 2
    assert "name: got the text '../Longer', expected a name of lower-case letters" in capsys.readouterr().err
