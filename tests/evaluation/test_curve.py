"""The held-out curve: weights of the middle of training answer after it, once, and are removed."""

import json
import logging
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from rlassay.config import Study
from rlassay.evaluation import curve
from rlassay.evaluation.curve import run_curve
from rlassay.evaluation.generate import Answerer, Batch, run_generate
from rlassay.evaluation.score import run_score
from rlassay.layout import Layout, checkpoint
from rlassay.records import CompletionRow, write_rows
from rlassay.training.rl import run_rl
from rlassay.training.sft import run_sft
from tests.evaluation.tiny import NUM_TEST, only
from tests.training.short_run import RUN, fresh_layout, load_short, policy_of

EDITS = {"rl__max_steps": 5, "evaluation__num_samples": 2, "evaluation__max_completion_length": 8}


def asked(folder: Path, **edits: object) -> Study:
    return load_short(folder, **EDITS | {"evaluation__every": 2} | edits)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A run of five steps that kept its weights at steps 2 and 4."""
    folder = tmp_path_factory.mktemp("trained")
    study, layout = asked(folder), fresh_layout(folder / "results")
    run_sft(study, layout, only(study, "sft"))
    run_rl(study, layout, policy_of(study))
    return layout


@pytest.fixture
def layout(trained: Layout, tmp_path: Path) -> Layout:
    shutil.copytree(trained.root, tmp_path / "results" / "digits")
    return Layout(root=tmp_path / "results" / "digits")


def kept(layout: Layout) -> list[str]:
    return sorted(path.name for path in layout.intermediate(RUN).glob("*"))


def table(layout: Layout) -> list[dict[str, object]]:
    return pq.read_table(layout.curve(RUN, "test")).to_pylist()


def test_keeping_weights_changes_no_training(trained: Layout, tmp_path: Path):
    plain = load_short(tmp_path, **EDITS)
    layout = Layout(root=tmp_path / "results" / "digits")
    shutil.copytree(trained.root, layout.root, ignore=shutil.ignore_patterns("runs"))
    run_rl(plain, layout, policy_of(plain))

    assert policy_of(plain).fingerprint == policy_of(asked(tmp_path)).fingerprint
    assert kept(layout) == []
    assert kept(trained) == ["checkpoint-2", "checkpoint-4"]
    ours, theirs = (load_file(one.state(RUN) / "weights/model.safetensors") for one in (trained, layout))
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    middle = load_file(checkpoint(trained.intermediate(RUN), 4) / "model.safetensors")
    assert any((middle[name] != ours[name]).any() for name in ours)


def test_each_step_answers_with_its_own_weights_and_the_seeds_of_the_evaluation(layout: Layout, tmp_path: Path):
    study = asked(tmp_path)
    policy = policy_of(study)
    # The same weights, presented as the result of the run: its evaluation must give the same scores.
    as_result = Layout(root=tmp_path / "as_result")
    shutil.copytree(layout.root, as_result.root)
    shutil.rmtree(as_result.state(RUN) / "weights")
    shutil.copytree(checkpoint(layout.intermediate(RUN), 4), as_result.state(RUN) / "weights")
    run_generate(study, as_result, policy, "test")
    run_score(study, as_result, policy, "test")

    run_curve(study, layout, policy)

    scores = table(layout)
    assert sorted({row["step"] for row in scores}) == [2, 4]
    at_4 = [{key: value for key, value in row.items() if key != "step"} for row in scores if row["step"] == 4]
    assert at_4 == pq.read_table(as_result.scores(RUN, "test")).to_pylist()
    lengths = {
        row["step"]: sum(r["value"] for r in scores if r["step"] == row["step"] and r["metric"] == "token_count")
        for row in scores
    }
    assert lengths[2] != lengths[4]
    assert not layout.intermediate(RUN).exists()
    assert not layout.curve_part(RUN, "test").exists()


def test_a_killed_job_answers_no_batch_twice_and_gives_the_same_files(layout, tmp_path, monkeypatch):
    study = asked(tmp_path)
    undisturbed = Layout(root=tmp_path / "undisturbed")
    shutil.copytree(layout.root, undisturbed.root)
    run_curve(study, undisturbed, policy_of(study))
    whole, done = Answerer.answer, []

    def answer(self: Answerer, batch: Batch) -> list[CompletionRow]:
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(batch.number)
        return whole(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(Answerer, "answer", answer)
        with pytest.raises(KeyboardInterrupt):
            run_curve(study, layout, policy_of(study))
    assert kept(layout) == ["checkpoint-2", "checkpoint-4"]
    with monkeypatch.context() as patched:  # killed again, before the scores: the completions are kept, weights too
        patched.setattr(Answerer, "answer", lambda self, batch: done.append(batch.number) or whole(self, batch))
        patched.setattr(curve, "write_scores", _vanish)
        with pytest.raises(KeyboardInterrupt):
            run_curve(study, layout, policy_of(study))

    monkeypatch.setattr(curve, "answering", _vanish)
    run_curve(study, layout, policy_of(study))

    batches = -(-2 * NUM_TEST // study.evaluation.batch_size) + -(-NUM_TEST // study.evaluation.batch_size)
    assert len(done) == 2 * batches
    assert table(layout) == table(undisturbed)
    assert not layout.intermediate(RUN).exists()


def test_scores_are_made_again_without_weights(layout, tmp_path, monkeypatch):
    study = asked(tmp_path)
    run_curve(study, layout, policy_of(study))
    before = table(layout)
    layout.curve(RUN, "test").unlink()
    monkeypatch.setattr(curve, "answering", _vanish)

    run_curve(study, layout, policy_of(study))

    assert table(layout) == before


def test_steps_whose_weights_are_gone_are_left_out_with_a_warning(layout, tmp_path, caplog):
    run_curve(asked(tmp_path), layout, policy_of(asked(tmp_path)))
    changed = asked(tmp_path, evaluation__num_samples=3)

    with caplog.at_level(logging.WARNING):
        run_curve(changed, layout, policy_of(changed))

    assert table(layout) == []
    assert f"{RUN} kept no weights at 2, 4" in caplog.text
    assert "rlassay rerun base --seed 1" in caplog.text


def test_completions_of_another_training_do_not_count(layout, tmp_path):
    study = asked(tmp_path)
    run_curve(study, layout, policy_of(study))
    content = json.loads(layout.run_record(RUN).read_text())
    content["attempts"][0]["started"] += 1
    layout.run_record(RUN).write_text(json.dumps(content))

    run_curve(study, layout, policy_of(study))

    assert table(layout) == []


def test_a_file_that_lacks_completions_is_refused(layout, tmp_path):
    study = asked(tmp_path)
    run_curve(study, layout, policy_of(study))
    path = layout.curve_completions(RUN, "test", 2)
    lines = path.read_text().splitlines()
    write_rows(path, [CompletionRow.model_validate_json(line) for line in lines[1:]])

    with pytest.raises(ValueError, match="1 missing"):
        run_curve(study, layout, policy_of(study))


def test_a_study_without_a_curve_and_a_run_without_training_are_refused(layout, tmp_path):
    plain = load_short(tmp_path, **EDITS)
    with pytest.raises(ValueError, match=r"evaluation\.every is null"):
        run_curve(plain, layout, policy_of(plain))
    layout.train_manifest(RUN).unlink()
    with pytest.raises(ValueError, match="is not trained yet"):
        run_curve(asked(tmp_path), layout, policy_of(asked(tmp_path)))


def _vanish(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
