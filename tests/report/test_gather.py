"""Reading results: table rows, averages and sums, and errors for missing, damaged and outdated files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rlassay.config.model import Reference
from rlassay.config.policies import policies
from rlassay.config.study import Study
from rlassay.config.training import RewardConfig
from rlassay.evaluation.score import run_score
from rlassay.layout import Layout
from rlassay.records import SplitFacts
from rlassay.report.gather import Results, ResultsError, gather, reading
from rlassay.report.read.scores import DISAGREEMENT, column_or_nan, read_scores
from rlassay.report.read.training import read_metrics, read_rollouts, read_splits, read_train_manifest
from tests.report.conftest import SETTINGS
from tests.report.synthetic import Size, write_synthetic


def test_rows_are_in_table_order_with_their_policies(results: Results):
    assert list(results.rows) == ["untrained", "sft", "base", "accuracy_only", "format_only", "dr_grpo"]
    assert results.rows["base"].seeds == (1, 2, 3)
    assert results.rows["sft"].seeds == ()
    assert list(results.rows["sft"].folders) == [None]
    assert set(results.metrics) == set(results.rollouts)
    assert len(results.metrics) == 12
    assert len(results.manifests) == 13
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


def test_a_reference_called_sft_does_not_replace_the_warm_start(tmp_path: Path):
    study, layout = write_synthetic(tmp_path, Size(arms=("base",), seeds=(1,), items=2, samples=1, steps=2))
    study = study.model_copy(update={"references": {"sft": Reference(path="owner/name")}})
    rows = gather(study, layout, SETTINGS, partial=True).rows
    assert rows["sft"].kind == "reference"
    assert [row.policies != () for row in rows.values() if row.kind == "sft"] == [True]


def test_a_missing_file_error_has_path_and_command(copied: tuple[Study, Layout]):
    study, layout = copied
    path = layout.scores("runs/base/seed2", "test")
    path.unlink()
    with pytest.raises(ResultsError, match="missing; make it with: snakemake --cores all") as caught:
        gather(study, layout, SETTINGS)
    assert str(path) in str(caught.value)


def test_of_many_missing_files_the_error_lists_the_first(copied: tuple[Study, Layout]):
    study, layout = copied
    for seed in (1, 2, 3):
        for path in (layout.root / f"runs/base/seed{seed}").glob("eval/*"):
            path.unlink()
    layout.train_manifest("runs/base/seed1").unlink()
    with pytest.raises(ResultsError) as caught:
        gather(study, layout, SETTINGS)
    assert len(caught.value.problems) == 6
    assert caught.value.problems[-1].startswith("2 more files are missing; make all with: snakemake --cores all ablat")


def test_a_partial_report_leaves_out_unfinished_policies(copied: tuple[Study, Layout]):
    study, layout = copied
    layout.train_manifest("runs/base/seed2").unlink()
    results = gather(study, layout, SETTINGS, partial=True)
    assert results.rows["base"].seeds == (1, 3)
    assert "runs/base/seed2" not in results.metrics
    assert [(one.path, one.needed_for) for one in results.missing] == [("runs/base/seed2/train.json", "base, seed 2")]


def test_seed1_is_not_mistaken_for_seed10(tmp_path: Path):
    study, layout = write_synthetic(tmp_path, Size(arms=("base",), seeds=(1, 10), items=2, samples=1, steps=2))
    layout.train_manifest("runs/base/seed10").unlink()
    assert gather(study, layout, SETTINGS, partial=True).rows["base"].seeds == (1,)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


DAMAGE: dict[str, tuple[Callable[[Layout], Path], Callable[[Path], object], str]] = {
    "scores": (lambda it: it.scores("sft", "test"), _truncate, "test.scores.parquet"),
    "metrics": (lambda it: it.metrics("runs/base/seed1"), _truncate, "runs/base/seed1/train.json"),
    "no metrics": (lambda it: it.metrics("runs/base/seed1"), Path.unlink, "runs/base/seed1/train.json"),
    "no rollouts": (lambda it: it.rollouts("runs/base/seed1"), shutil.rmtree, "runs/base/seed1/train.json"),
    "rollout": (lambda it: it.rollouts("runs/base/seed1") / "step000001.parquet", _truncate, "runs/base/seed1/train"),
    "manifest": (lambda it: it.train_manifest("runs/base/seed1"), _truncate, "runs/base/seed1/train.json"),
    "data": (lambda it: it.data_manifest, _truncate, "data/data.json"),
    "prompts": (lambda it: it.split("test"), _truncate, "data/data.json"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_file_error_has_path_and_command(copied: tuple[Study, Layout], what: str):
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


def test_a_run_of_another_version_of_the_study_is_an_error(copied: tuple[Study, Layout]):
    study, layout = copied
    path = layout.train_manifest("runs/dr_grpo/seed3")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": "00000000"}))
    with pytest.raises(
        ResultsError, match="another version of the study: its fingerprint is 00000000, but the study now has"
    ):
        gather(study, layout, SETTINGS)


def test_evaluations_of_two_arms_that_were_swapped_are_an_error(tmp_path: Path):
    study, layout = write_synthetic(tmp_path, Size(arms=("base", "dr_grpo"), seeds=(1,), items=8, samples=1, steps=2))
    one, other = "runs/base/seed1", "runs/dr_grpo/seed1"
    scoring = study.model_copy(deep=True)
    for arm in scoring.arms.values():
        options = {"max_completion_length": 16, "cache": 4}
        arm.recipe.rewards["soft_overlong"] = RewardConfig(weight=0.0, options=options)
    for folder in (one, other):
        run_score(scoring, layout, policies(scoring)[folder], "test")
    gather(study, layout, SETTINGS)

    own = layout.completions(one, "test").read_bytes()
    shutil.copy(layout.completions(other, "test"), layout.completions(one, "test"))
    message = rf"(?s){one}/eval/test.scores.parquet .*of other completions than .*-R \S+{one}/eval/test.completions"
    with pytest.raises(ResultsError, match=message):
        gather(study, layout, SETTINGS)
    layout.completions(one, "test").write_bytes(own)

    folders = [layout.scores(folder, "test").parent for folder in (one, other)]
    folders[0].rename(tmp_path / "aside")
    folders[1].rename(folders[0])
    (tmp_path / "aside").rename(folders[1])
    with pytest.raises(ResultsError, match=rf"{one}/eval/test.scores.parquet .*it has the scores of {other}\)"):
        gather(study, layout, SETTINGS)


def _write_scores(path: Path, rows: list[tuple[str, str, int, str, float | None]]) -> Path:
    columns = ["prompt_id", "mode", "sample", "metric", "value"]
    pd.DataFrame(rows, columns=pd.Index(columns)).to_parquet(path, index=False)
    return path


def test_scores_are_averaged_by_prompt_without_null_scores(tmp_path: Path):
    rows = [
        ("b", "sampled", 0, "x", 1.0),
        ("b", "sampled", 1, "x", 0.0),
        ("b", "sampled", 2, "x", 1.0),
        ("a", "sampled", 0, "x", None),
        ("a", "sampled", 1, "x", 0.0),
        ("a", "sampled", 2, "x", None),
    ]
    scores = read_scores(_write_scores(tmp_path / "s.parquet", rows), ["b", "a"])
    assert list(scores.means.index) == ["a", "b"]
    assert scores.means["sampled", "x"].tolist() == pytest.approx([0.0, 2 / 3])
    assert scores.counts["sampled", "x"].tolist() == [1, 3]
    assert scores.binary == {"x"}


def test_disagreement_is_the_share_of_different_strict_and_lenient_scores(tmp_path: Path):
    pairs = [(1.0, 1.0), (0.0, 1.0), (None, 1.0), (0.0, 0.0)]
    rows = []
    for sample, (strict, lenient) in enumerate(pairs):
        rows.append(("a", "greedy", sample, "choice_accuracy", strict))
        rows.append(("a", "greedy", sample, "choice_accuracy_lenient", lenient))
        rows.append(("a", "greedy", sample, "token_count", 7.0))
    scores = read_scores(_write_scores(tmp_path / "s.parquet", rows), ["a"])
    # Three completions have both scores; in one of them they differ.
    assert scores.means["greedy", DISAGREEMENT].tolist() == pytest.approx([1 / 3])
    assert "token_count" not in scores.binary


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "sampled", 0, "x", 1.0)], "1 prompts that are not the 2 prompts of the data"),
        ([(name, "sampled", 0, "x", 1.0) for name in "aab"], "duplicate"),
    ],
)
def test_scores_of_other_prompts_and_duplicates_are_errors(tmp_path: Path, rows: list, message: str):
    with pytest.raises(ValueError, match=message):
        read_scores(_write_scores(tmp_path / "s.parquet", rows), ["a", "b"])


def test_metrics_are_sorted_by_step_with_nan_for_gaps(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2, "loss": null}\n{"step": 1, "loss": 0.5, "kl": 1}\n')
    frame = read_metrics(path)
    assert frame.index.tolist() == [1, 2]
    assert frame["loss"].tolist() == pytest.approx([0.5, np.nan], nan_ok=True)
    assert column_or_nan(frame, "kl").tolist() == pytest.approx([1.0, np.nan], nan_ok=True)
    assert np.isnan(column_or_nan(frame, "absent")).all()


@pytest.mark.parametrize(("text", "message"), [("", "empty"), ('{"step": 1}\n{"st', "line 2 is not JSON")])
def test_broken_metrics_are_errors(tmp_path: Path, text: str, message: str):
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_metrics(tmp_path / "metrics.jsonl")


def test_rollouts_are_summed_by_step(tmp_path: Path):
    for step in (1, 2):
        frame = pd.DataFrame(
            {"step": [step, step], "token_count": [3, 4], "raw.x": [1.0, None], "weighted.x": [0.5, 0.1]}
        )
        frame.to_parquet(tmp_path / f"step{step:06d}.parquet")
    sums = read_rollouts(tmp_path)
    assert sums.index.tolist() == [1, 2]
    first = sums.loc[1].to_dict()
    assert first == pytest.approx(
        {"tokens": 7, "raw.x": 1.0, "weighted.x": 0.6, "scored.x": 1, "completions": 2, "generated": 7}
    )


def test_greedy_completions_count_as_generated(tmp_path: Path):
    frame = pd.DataFrame({"step": [1, 1], "token_count": [3, 4], "greedy_token_count": [5.0, None]})
    frame.to_parquet(tmp_path / "step000001.parquet")
    sums = read_rollouts(tmp_path)
    assert (sums["tokens"].tolist(), sums["generated"].tolist()) == ([7.0], [12.0])


def test_failures_are_counted_by_reward_kind_and_step(tmp_path: Path):
    for step, kinds in ((1, [None, "timeout"]), (2, ["timeout", "timeout"]), (3, [None, "crash"])):
        frame = pd.DataFrame({"step": step, "token_count": [3, 4], "raw.x": [1.0, 2.0], "weighted.x": [1.0, 2.0]})
        frame.assign(**{"failed.x": pd.Series(kinds, dtype=object)}).to_parquet(tmp_path / f"step{step:06d}.parquet")
    sums = read_rollouts(tmp_path)
    assert sums["failed.x.timeout"].tolist() == [1.0, 2.0, 0.0]
    assert sums["failed.x.crash"].tolist() == [0.0, 0.0, 1.0]


def test_a_run_without_rollouts_raises_file_not_found(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        read_rollouts(tmp_path)


def test_a_manifest_error_lists_the_missing_keys(tmp_path: Path):
    (tmp_path / "train.json").write_text(json.dumps({"fingerprint": "x", "steps": 1}))
    with pytest.raises(ValueError, match="lacks generated_tokens, gpus, max_steps"):
        read_train_manifest(tmp_path / "train.json")


def test_splits_have_counts_and_reasons(tmp_path: Path):
    (tmp_path / "data.json").write_text('{"splits": {"test": {"rows": 3, "refused": {"no image": 1}}}}')
    assert read_splits(tmp_path / "data.json") == {"test": SplitFacts(rows=3, refused={"no image": 1})}
    (tmp_path / "data.json").write_text('{"splits": {"test": {"rows": 3, "refused": {"no image": 1}, "more": 2}}}')
    with pytest.raises(ValueError, match="more"):
        read_splits(tmp_path / "data.json")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError("x"), "a.json is missing; make it with: do this"),
        (ValueError("bad\nmore"), r"a.json is damaged \(bad\); make it again with: do this"),
        (KeyError(), r"a.json is damaged \(KeyError\)"),
    ],
)
def test_reading_errors_have_path_and_command(error: Exception, message: str):
    with pytest.raises(ResultsError, match=message), reading(Path("a.json"), "do this"):
        raise error


def test_a_report_refuses_data_that_were_made_from_other_inputs(tmp_path: Path):
    study, layout = write_synthetic(tmp_path, Size(arms=("base",), seeds=(1,), items=2, samples=1, steps=2))
    manifest = json.loads(layout.data_manifest.read_text())
    layout.data_manifest.write_text(json.dumps(manifest | {"inputs": {"files of split 'train'": "0" * 16}}))
    with pytest.raises(ResultsError, match=r"data.json was made from other inputs: files of split 'train' changed"):
        gather(study, layout, SETTINGS)
    layout.data_manifest.write_text(json.dumps(manifest | {"inputs": {}}))
    gather(study, layout, SETTINGS)
