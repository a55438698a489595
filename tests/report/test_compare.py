"""Two studies side by side: which runs are the same, paired differences, and what makes studies incomparable."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlassay.config import StudyError
from rlassay.config.fingerprints import rl_id
from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.report.compare import compare_studies
from rlassay.report.gather import Results, ResultsError, gather
from tests.report.conftest import SETTINGS


def other_study(results: Results, folder: Path, **changes) -> Results:
    """A copy of the study under another name, with changed fields; manifests fit its recipes."""
    study = Study.model_validate(results.study.model_copy(update={"name": "second", **changes}))
    shutil.copytree(results.layout.root, folder / study.id)
    layout = Layout(root=folder / study.id)
    for arm in study.arms:
        for seed in study.seeds:
            path = layout.train_manifest(layout.run(arm, seed))
            path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": rl_id(study, arm, seed)}))
    return gather(study, layout, SETTINGS)


def with_steps(study: Study, arm: str, steps: int) -> dict:
    """The arms of a study, one of them trained for other steps."""
    recipe = study.arms[arm].recipe
    longer = recipe.model_copy(update={"rl": recipe.rl.model_copy(update={"max_steps": steps})})
    return {**study.arms, arm: study.arms[arm].model_copy(update={"recipe": longer})}


def test_same_runs_have_no_difference_and_other_recipes_name_it(results: Results, tmp_path: Path):
    other = other_study(results, tmp_path, arms=with_steps(results.study, "accuracy_only", 20))
    found = compare_studies(results, other, 0.95)
    assert (found.first, found.second, found.column.metric) == ("synthetic", "second", "choice_accuracy")
    rows = {row.row: row for row in found.rows}
    assert rows["base"].note == "same runs"
    assert rows["base"].difference is None
    assert rows["base"].first == rows["base"].second
    assert rows["accuracy_only"].note == "rl.max_steps 10 → 20"
    # the scores are copies: no difference at all
    assert rows["accuracy_only"].difference.effect == 0
    assert rows["accuracy_only"].difference.num_seeds == 3


def test_the_difference_is_second_minus_first(results: Results, tmp_path: Path):
    other = other_study(results, tmp_path, arms=with_steps(results.study, "base", 20))
    for seed in (1, 2, 3):  # base of the second study gets the scores of accuracy_only
        target = other.layout.scores(f"runs/base/seed{seed}", "test")
        shutil.copy(results.layout.scores(f"runs/accuracy_only/seed{seed}", "test"), target)
    row = next(
        row
        for row in compare_studies(results, gather(other.study, other.layout, SETTINGS), 0.95).rows
        if row.row == "base"
    )
    assert row.difference.effect == pytest.approx(row.second.mean - row.first.mean)
    assert row.difference.effect > 0.1
    assert row.difference.low < row.difference.effect < row.difference.high


def test_arms_of_one_study_alone_are_shown(results: Results, tmp_path: Path):
    fewer = {name: arm for name, arm in results.study.arms.items() if name != "dr_grpo"}
    other = other_study(
        results, tmp_path, arms=fewer, family=tuple(name for name in results.study.family if name != "dr_grpo")
    )
    row = compare_studies(results, other, 0.95).rows[-1]
    assert (row.row, row.second, row.note) == ("dr_grpo", None, "only in synthetic")


# What must be an error, not a number.


def test_swapped_labels_are_an_error(results: Results, tmp_path: Path):
    arms = results.study.arms
    labels = {"base": arms["dr_grpo"].label, "dr_grpo": arms["base"].label}
    swapped = {name: arm.model_copy(update={"label": labels.get(name, arm.label)}) for name, arm in arms.items()}
    with pytest.raises(StudyError, match="is arm base 'base', seed 1, in synthetic, but arm base 'dr grpo'"):
        compare_studies(results, other_study(results, tmp_path, arms=swapped), 0.95)


def test_swapped_arms_are_an_error(results: Results, tmp_path: Path):
    arms = results.study.arms
    swapped = {**arms, "base": arms["dr_grpo"], "dr_grpo": arms["base"]}
    with pytest.raises(StudyError, match="is arm dr_grpo 'dr grpo', seed 1, in synthetic, but arm base"):
        compare_studies(results, other_study(results, tmp_path, arms=swapped), 0.95)


def test_mixed_fingerprints_are_an_error(results: Results, tmp_path: Path):
    other = other_study(results, tmp_path)
    row = other.rows["base"]
    first = row.policies[0]
    changed = type(first)(**{**vars(first), "fingerprint": "0" * 8})
    mixed = type(row)(key=row.key, kind=row.kind, label=row.label, policies=(changed, *row.policies[1:]))
    other.rows["base"] = mixed
    with pytest.raises(StudyError, match="arm base: seeds 2, 3 are the same runs in both studies, the others are not"):
        compare_studies(results, other, 0.95)
    path = other.layout.train_manifest("runs/base/seed1")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": "0" * 8}))
    with pytest.raises(ResultsError, match="belongs to another version of the study"):
        gather(other.study, other.layout, SETTINGS)


def test_other_prompts_are_an_error(results: Results, tmp_path: Path):
    other = other_study(results, tmp_path)
    prompts = dict(other.prompts["test"])
    gone = min(prompts)
    prompts["feedbeef"] = prompts.pop(gone)
    other.prompts["test"] = prompts
    with pytest.raises(StudyError, match=rf"of which 23 are the same; prompt {gone} is only in synthetic"):
        compare_studies(results, other, 0.95)


def test_other_decoding_is_an_error(results: Results, tmp_path: Path):
    evaluation = results.study.evaluation.model_copy(update={"temperature": 0.5})
    with pytest.raises(StudyError, match=r"evaluation\.temperature: synthetic has 1\.0, second has 0\.5"):
        compare_studies(results, other_study(results, tmp_path, evaluation=evaluation), 0.95)


@pytest.mark.parametrize("kind", ["wrong id", "duplicated row"])
def test_damaged_scores_are_an_error(results: Results, tmp_path: Path, kind: str):
    other = other_study(results, tmp_path)
    path = other.layout.scores("runs/base/seed1", "test")
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows = [*rows, rows[0]] if kind == "duplicated row" else [rows[0] | {"prompt_id": "feedbeef"}, *rows[1:]]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    with pytest.raises(ResultsError, match=r"base/seed1/eval/test\.scores\.parquet is damaged"):
        gather(other.study, other.layout, SETTINGS)
