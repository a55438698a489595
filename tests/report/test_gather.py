"""Gathering: table rows, and clear words about files that are missing, damaged or out of date."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.report.gather import Results, gather
from rlassay.report.reading import ResultsError
from tests.report.conftest import SETTINGS
from tests.report.synthetic import Size, write_synthetic


def test_rows_stand_in_table_order_with_their_policies(results: Results):
    assert list(results.rows) == ["untrained", "sft", "base", "accuracy_only", "format_only", "dr_grpo"]
    assert results.rows["base"].seeds == (1, 2, 3)
    assert results.rows["sft"].seeds == ()
    assert list(results.rows["sft"].folders) == [None]
    assert set(results.metrics) == set(results.rollouts)
    assert len(results.metrics) == 12
    assert len(results.proofs) == 13
    assert results.missing == ()


def test_one_warm_start_per_seed_is_one_row_with_seeds(tmp_path: Path):
    size = Size(arms=("base",), seeds=(1, 2), items=2, samples=1, steps=2, per_seed=True)
    results = gather(*write_synthetic(tmp_path, size), SETTINGS)
    assert results.rows["sft"].seeds == (1, 2)


def test_an_arm_called_sft_keeps_its_name(tmp_path: Path):
    size = Size(arms=("sft", "base"), seeds=(1,), items=2, samples=1, steps=2)
    results = gather(*write_synthetic(tmp_path, size), SETTINGS)
    shared = [key for key, row in results.rows.items() if row.kind == "sft"]
    assert len(shared) == 1
    assert shared[0].startswith("sft/")
    assert results.rows["sft"].kind == "arm"


def test_a_missing_file_is_named_with_the_command_that_makes_it(copied: tuple[Study, Layout]):
    study, layout = copied
    path = layout.scores("runs/base/seed2", "test")
    path.unlink()
    with pytest.raises(ResultsError, match="missing; make it with: snakemake --cores all") as caught:
        gather(study, layout, SETTINGS)
    assert str(path) in str(caught.value)


def test_of_many_missing_files_the_first_are_named(copied: tuple[Study, Layout]):
    study, layout = copied
    for seed in (1, 2, 3):
        for path in (layout.root / f"runs/base/seed{seed}").glob("eval/*"):
            path.unlink()
    layout.train_sentinel("runs/base/seed1").unlink()
    with pytest.raises(ResultsError) as caught:
        gather(study, layout, SETTINGS)
    assert len(caught.value.problems) == 6
    assert caught.value.problems[-1].startswith("2 more files are missing; make all with: snakemake --cores all ablat")


def test_a_partial_report_leaves_the_unfinished_policy_out(copied: tuple[Study, Layout]):
    study, layout = copied
    layout.train_sentinel("runs/base/seed2").unlink()
    results = gather(study, layout, SETTINGS, partial=True)
    assert results.rows["base"].seeds == (1, 3)
    assert "runs/base/seed2" not in results.metrics
    assert [(one.path, one.needed_for) for one in results.missing] == [("runs/base/seed2/train.json", "base, seed 2")]


def test_seed1_is_not_taken_for_seed10(tmp_path: Path):
    study, layout = write_synthetic(tmp_path, Size(arms=("base",), seeds=(1, 10), items=2, samples=1, steps=2))
    layout.train_sentinel("runs/base/seed10").unlink()
    assert gather(study, layout, SETTINGS, partial=True).rows["base"].seeds == (1,)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


DAMAGE: dict[str, tuple[Callable[[Layout], Path], Callable[[Path], object], str]] = {
    "scores": (lambda it: it.scores("sft", "test"), _truncate, "test.scores.parquet"),
    "metrics": (lambda it: it.metrics("runs/base/seed1"), _truncate, "runs/base/seed1/train.json"),
    "no metrics": (lambda it: it.metrics("runs/base/seed1"), Path.unlink, "runs/base/seed1/train.json"),
    "no rollouts": (lambda it: it.rollouts("runs/base/seed1"), shutil.rmtree, "runs/base/seed1/train.json"),
    "rollout": (lambda it: it.rollouts("runs/base/seed1") / "step000001.parquet", _truncate, "runs/base/seed1/train"),
    "sentinel": (lambda it: it.train_sentinel("runs/base/seed1"), _truncate, "runs/base/seed1/train.json"),
    "data": (lambda it: it.data_sentinel, _truncate, "data/data.json"),
    "prompts": (lambda it: it.split("test"), _truncate, "data/data.json"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named_with_the_file_that_must_be_made_again(copied: tuple[Study, Layout], what: str):
    study, layout = copied
    find, damage, remade = DAMAGE[what]
    path = find(layout)
    if what == "scores":
        path = next(layout.root.glob("sft/*/eval/test.scores.parquet"))
    damage(path)
    with pytest.raises(ResultsError) as caught:
        gather(study, layout, SETTINGS)
    message = str(caught.value)
    assert str(path.parent if what == "rollout" else path) in message
    assert f"-R {layout.root}" in message
    assert remade in message.split("-R ")[1]


def test_a_run_of_another_version_of_the_study_is_refused(copied: tuple[Study, Layout]):
    study, layout = copied
    path = layout.train_sentinel("runs/dr_grpo/seed3")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": "00000000"}))
    with pytest.raises(ResultsError, match="another version of the study: its fingerprint is 00000000, now"):
        gather(study, layout, SETTINGS)
