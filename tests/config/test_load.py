"""Studies, scales and settings from files, and from Snakemake's config."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlassay.config import Settings, StudyError, load_settings, load_study, settings_from_snakemake
from rlassay.config.load import CONFIG, snakemake_config
from tests.config.studies import GONE, content, study, write

STUDIES = sorted(path.stem for path in (CONFIG / "studies").glob("*.yaml"))
SCALES = sorted(path.stem for path in (CONFIG / "scales").glob("*.yaml"))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of config/ in a folder that is the current one."""
    shutil.copytree(CONFIG, tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def message(*args: object, **options: object) -> str:
    """The error of `load_study` with these arguments."""
    with pytest.raises(StudyError) as caught:
        load_study(*args, **options)
    return str(caught.value)


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("scale", [None, *SCALES])
def test_every_committed_study_is_sound_at_every_scale(name: str, scale: str | None):
    study = load_study(name, scale)
    assert study.id == (name if scale is None else f"{name}-{scale}")


def test_a_study_is_found_by_name_and_by_path():
    assert (
        load_study("digits") == load_study("config/studies/digits.yaml") == load_study(CONFIG / "studies/digits.yaml")
    )


def test_unknown_names_and_paths():
    known = ", ".join(sorted(path.stem for path in Path("config/studies").glob("*.yaml")))
    assert (
        f"config/studies/digts.yaml: no such file; expected the path of a file, or one of {known}; "
        "did you mean 'digits'?"
    ) in message("digts")
    assert (
        "config/scales/tny.yaml: no such file; expected the path of a file, or tiny; did you mean 'tiny'?"
        in message("digits", "tny")
    )
    assert "other.yaml: no such file" in message("other.yaml")


def test_the_file_in_the_studies_folder_carries_the_name_of_the_study(elsewhere: Path):
    write(elsewhere / "config/studies/other.yaml", content())
    assert "name: got 'digits', expected 'other', the name of its file" in message("other")
    assert load_study(write(elsewhere / "mine.yaml", content())).name == "digits"


def test_an_unreadable_file_is_a_study_error(elsewhere: Path):
    (elsewhere / "broken.yaml").write_text("a: [1")
    assert "broken.yaml: while parsing" in message("broken.yaml")


def test_a_scale_is_checked_by_itself(elsewhere: Path):
    write(elsewhere / "config/scales/odd.yaml", {"sedes": [1]})
    assert message("digits", "odd") == (
        "config/scales/odd.yaml: 1 problem\n  - sedes: unknown key; expected one of model, sft, rl, rewards, "
        "signals, data, evaluation, primary, seeds, sequential_seeds, gpus, at_most, "
        "adds_warm_start, lora, seq2seq, by_source; did you mean 'seeds'?"
    )
    write(elsewhere / "config/scales/odd.yaml", {"rl": {"max_step": 1}})
    assert message("digits", "odd").startswith(
        "config/studies/digits.yaml with config/scales/odd.yaml laid over it: 1 problem\n  - rl.max_step: unknown key"
    )
    write(elsewhere / "config/scales/odd.yaml", {"rl": {"num_generations": 7}})
    assert "  - rl.per_device_train_batch_size: 128 x" in message("digits", "odd")


def test_a_study_that_is_wrong_as_written_is_wrong_at_every_scale(elsewhere: Path):
    path = write(elsewhere / "mine.yaml", content(baseline="bse"))
    assert message(path, "tiny") == message(path)


HUB = {"kind": "hub", "name": "Qwen/Qwen2.5-VL-7B-Instruct", "lora": {"r": 8}}
GEOMETRY = {"kind": "jsonl", "folder": "/nowhere", "splits": {"train": None, "geometry": None}}
LARGE_RL = {
    "max_steps": 500,
    "learning_rate": 1e-6,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 12,
    "steps_per_generation": 6,
    "num_iterations": 2,
    "num_generations": 12,
    "max_completion_length": 4096,
    "save_steps": 25,
}


def large(folder: Path) -> Path:
    """A study for large machines: hub models, rows of its own, no warm start, arms that differ in what a scale sets."""
    arms = {
        "base": {},
        "rank": {"model": {"lora": {"r": 16}}, "varies": ["model.lora.r"]},
        "wide": {"rl": {"num_generations": 6, "max_steps": 900}, "varies": ["rl"]},
        "warm": {
            "sft": {"max_steps": 300, "learning_rate": 1e-5, "per_device_train_batch_size": 4},
            "model": {"name": "Qwen/Qwen2.5-VL-3B-Instruct"},
            "varies": ["sft", "model"],
        },
        "full": {"model": {"lora": None}, "varies": ["model.lora"]},
    }
    edits = content(
        name="large",
        gpus=8,
        seeds=[1, 2, 3, 4, 5],
        model=HUB,
        data={**GEOMETRY, "splits": {**GEOMETRY["splits"], "sft": None}},
        rl=LARGE_RL,
        arms=arms,
    )
    del edits["sft"]
    edits["evaluation"] = {"sets": ["geometry"], "num_samples": 32, "max_completion_length": 4096}
    edits["primary"] = {"set": "geometry", "metric": "choice_accuracy"}
    return write(folder / "large.yaml", edits)


def test_tiny_makes_any_study_small(tmp_path: Path):
    path = large(tmp_path)
    written, tiny = load_study(path), load_study(path, "tiny")
    assert (written.gpus, tiny.gpus, tiny.seeds) == (8, 0, (1, 2))
    assert (tiny.data.kind, tiny.data.splits) == ("digits", {"sft": 256, "train": 64, "test": 24})
    assert (tiny.evaluation.sets, tiny.primary.set) == (("test",), "test")
    assert list(tiny.arms) == list(written.arms)
    for name, arm in tiny.arms.items():
        assert (arm.recipe.model.kind, arm.recipe.rl.max_steps, arm.recipe.rl.num_generations) == ("tiny_vlm", 4, 4)
        assert (arm.recipe.sft is not None) == (name == "warm")
    warm = tiny.arms["warm"].recipe.sft
    assert warm is not None
    assert (warm.max_steps, warm.learning_rate) == (100, 2e-3)  # 1e-5 suits the study's model, not the scale's


def test_settings_come_from_the_file_and_then_from_the_command_line():
    settings = load_settings()
    assert (settings.study, settings.scale, settings.results) == ("digits", None, "results")
    assert load_settings(study=None, scale="tiny", results="/tmp/x").model_dump() == {
        **settings.model_dump(),
        "scale": "tiny",
        "results": "/tmp/x",
    }


@pytest.mark.parametrize("none", ["", "null"])
def test_no_scale_can_be_asked_for(tmp_path: Path, none: str):
    path = write(tmp_path / "config.yaml", {"scale": "tiny"})
    assert load_settings(path).scale == "tiny"
    assert load_settings(path, scale=none).scale is None
    assert settings_from_snakemake({"scale": none}).scale is None


def test_wrong_settings_are_named_with_their_file(tmp_path: Path):
    path = write(tmp_path / "config.yaml", {"studdy": "digits", "resources": {"threads": 0}})
    with pytest.raises(StudyError) as caught:
        load_settings(path)
    assert caught.value.source == str(path)
    assert list(caught.value.problems) == [
        "resources.threads: got the number 0, expected a number of at least 1",
        "studdy: unknown key; expected one of study, scale, engine, results, tracking, report, diagnostics, "
        "resources; did you mean 'study'?",
    ]


def test_snakemake_may_hand_over_numbers_as_text():
    config = {"study": "digits", "resources": {"threads": "2"}, "tracking": {"enabled": "false", "interval": "0.5"}}
    settings = settings_from_snakemake(config)
    assert (settings.resources.threads, settings.tracking.enabled, settings.tracking.interval) == (2, False, 0.5)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"seeds": ["1", "2"]},
            "seeds: belongs to the study, since it decides its results; write it into config/studies/",
        ),
        ({"rl": {"max_steps": "3"}}, "rl: belongs to the study"),
        ({"sacle": "tiny"}, "sacle: unknown key; expected one of study, scale, engine, results"),
        ({"resources": {"threads": "many"}}, "resources.threads: got the text 'many', expected a whole number"),
        ({"tracking": {"interval": "x"}}, "tracking.interval: got the text 'x', expected a number"),
        ({"tracking": {"enabled": "maybe"}}, "tracking.enabled: got the text 'maybe', expected true or false"),
    ],
)
def test_what_snakemake_may_not_hand_over(config: dict, expected: str):
    with pytest.raises(StudyError) as caught:
        settings_from_snakemake(config)
    assert expected in str(caught.value)
    assert caught.value.source == "config/config.yaml or --config"


def test_importing_the_config_loads_nothing_heavy():
    heavy = "{'torch', 'transformers', 'trl', 'mlflow', 'numpy', 'pandas', 'datasets', 'sklearn'}"
    code = f"import sys, rlassay.config; assert not {heavy} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_reward_is_measured_with_the_baselines_options_or_else_the_first_arms():
    def cache(tokens: int) -> dict[str, object]:
        return {"weight": 0.0, "options": {"max_completion_length": 16, "cache": tokens}}

    others = {"early": cache(8), "late": cache(2)}
    arms = {name: {"varies": ["rewards"], "rewards": {"soft_overlong": reward}} for name, reward in others.items()}
    with_it = study(arms={"early": arms["early"], "base": {}, "late": arms["late"]})
    without = study(rewards__soft_overlong=GONE, arms={"base": {}, **arms})
    assert with_it.rewards["soft_overlong"].options["cache"] == 4
    assert without.rewards["soft_overlong"].options["cache"] == 8


def test_mlflows_own_variable_takes_precedence_over_the_settings_file(monkeypatch: pytest.MonkeyPatch):
    before = load_settings()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://store:5000")
    assert load_settings().tracking.uri == "http://store:5000"
    assert settings_from_snakemake({"tracking": {"interval": 2}}).tracking.uri == "http://store:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert load_settings() == before


def test_from_another_folder_the_way_to_the_project_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "my project/config/config.yaml", {"study": "digits"})
    inside = tmp_path / "my project/notes"
    inside.mkdir()
    monkeypatch.chdir(inside)
    with pytest.raises(
        StudyError, match=r"config\.yaml: No such file or directory; run .* folder \(cd '.*/my project'\)"
    ):
        load_settings()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match=r"run the command in the project's folder \(the one with the Snakefile"):
        load_study("digits")


@pytest.mark.parametrize("text", ["plain", "null", "it's", "a: b", '"x"', "'x'", "2024", "nan", "true", "#x", "[x", ""])
def test_snakemake_reads_the_settings_of_a_command_as_they_are(text: str):
    from snakemake.cli import parse_config

    chosen = snakemake_config(
        Settings(study=text or "x", scale="tiny", results=text or "x"), leave_out={"scale": "tiny"}
    )
    expected = {"study": text or "x", "results": text or "x"}
    assert {key: str(value) for key, value in parse_config(chosen).items()} == expected
    assert settings_from_snakemake(parse_config(chosen)).results == (text or "x")
