import json
import math

import pyarrow.parquet as pq
import pytest

from rlassay.config import Study
from rlassay.evaluation import generate
from rlassay.evaluation.generate import Answerer, plan_batches, run_generate
from rlassay.evaluation.score import run_score
from rlassay.layout import Layout
from rlassay.records import CompletionRow, read_rows, write_rows
from rlassay.training.sft import run_sft
from tests.evaluation.tiny import NUM_TEST, layout_with_data, only, tiny_study


@pytest.fixture(scope="module")
def study() -> Study:
    return tiny_study()


@pytest.fixture(scope="module")
def answered(study, tmp_path_factory) -> Layout:
    layout = layout_with_data(tmp_path_factory.mktemp("answered") / "results")
    run_sft(study, layout, only(study, "sft"))
    run_generate(study, layout, only(study, "sft"), "test")
    run_generate(study, layout, only(study, "model"), "test")
    return layout


def completions(layout: Layout, study: Study, stage: str = "model") -> list[CompletionRow]:
    return list(read_rows(layout.completions(only(study, stage).folder, "test"), CompletionRow))


def test_every_prompt_is_answered_as_often_as_asked(answered, study):
    keys = [(each.prompt_id, each.mode, each.sample) for each in completions(answered, study)]

    assert keys == [(f"test{index}", "sampled", sample) for index in range(NUM_TEST) for sample in (0, 1)] + [
        (f"test{index}", "greedy", 0) for index in range(NUM_TEST)
    ]


def test_the_warm_start_answers_with_its_own_weights(answered, study):
    trained = [each.text for each in completions(answered, study, "sft")]

    assert trained != [each.text for each in completions(answered, study)]


def test_the_working_file_is_gone(answered, study):
    names = {path.name for path in answered.completions(only(study, "model").folder, "test").parent.iterdir()}

    assert names == {"test.completions.jsonl"}


def test_a_killed_job_goes_on_and_gives_the_same_file(answered, study, tmp_path, monkeypatch):
    layout = layout_with_data(tmp_path / "results")
    target = layout.completions(only(study, "model").folder, "test")
    done: list[int] = []

    def dying(answerer: Answerer, batch: generate.Batch) -> list[CompletionRow]:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(batch.number)
        return Answerer.answer(answerer, batch)

    with monkeypatch.context() as patched:
        patched.setattr(generate, "Answerer", type("Dying", (Answerer,), {"answer": dying}))
        with pytest.raises(KeyboardInterrupt):
            run_generate(study, layout, only(study, "model"), "test")
    assert not target.exists()
    again = _counting(monkeypatch)

    run_generate(study, layout, only(study, "model"), "test")

    assert target.read_bytes() == answered.completions(only(study, "model").folder, "test").read_bytes()
    assert done == [0, 1]
    assert again == [2, 3, 4]  # 10 sampled completions in batches of 4, then 5 greedy ones


def test_a_finished_job_that_was_killed_before_its_rename_loads_no_model(study, tmp_path, monkeypatch):
    layout = layout_with_data(tmp_path / "results")
    with monkeypatch.context() as patched:
        patched.setattr(generate, "write_rows", _vanish)
        with pytest.raises(KeyboardInterrupt):
            run_generate(study, layout, only(study, "model"), "test")
    monkeypatch.setattr(generate, "build_policy", _vanish)

    run_generate(study, layout, only(study, "model"), "test")

    assert len(completions(layout, study)) == 3 * NUM_TEST


def test_seeds_sample_differently_and_decode_greedily_alike(study, tmp_path):
    layout = layout_with_data(tmp_path / "results")
    other = tiny_study(evaluation__seed=7)
    run_generate(study, layout, only(study, "model"), "test")
    first = completions(layout, study)
    run_generate(other, layout, only(other, "model"), "test")
    second = completions(layout, other)

    assert [each for each in first if each.mode == "greedy"] == [each for each in second if each.mode == "greedy"]
    assert [each for each in first if each.mode == "sampled"] != [each for each in second if each.mode == "sampled"]


def test_answers_of_changed_rows_are_not_kept(study, tmp_path, monkeypatch):
    layout = layout_with_data(tmp_path / "results")
    with monkeypatch.context() as patched:
        patched.setattr(generate, "write_rows", _vanish)
        with pytest.raises(KeyboardInterrupt):
            run_generate(study, layout, only(study, "model"), "test")
    rows = [row.model_copy(update={"question": "Which?"}) for row in read_rows(layout.split("test"))]
    write_rows(layout.split("test"), rows)
    again = _counting(monkeypatch)

    run_generate(study, layout, only(study, "model"), "test")

    assert again == [0, 1, 2, 3, 4]


def test_a_batch_holds_batch_size_completions_of_one_mode(study, answered):
    rows = list(read_rows(answered.split("test")))
    batches = plan_batches(rows, study.evaluation)

    assert [(batch.mode, len(batch.items)) for batch in batches] == [
        ("sampled", 4),
        ("sampled", 4),
        ("sampled", 2),
        ("greedy", 4),
        ("greedy", 1),
    ]


def test_greedy_decoding_can_be_left_out(answered):
    evaluation = tiny_study(evaluation__greedy=False).evaluation

    assert {batch.mode for batch in plan_batches(list(read_rows(answered.split("test"))), evaluation)} == {"sampled"}


def test_a_policy_without_weights_is_named(study, tmp_path):
    with pytest.raises(ValueError, match=r"runs/base/seed1 is not trained yet: there is no .*train.json"):
        run_generate(study, layout_with_data(tmp_path / "results"), only(study, "rl"), "test")


def test_damaged_weights_are_named(study, tmp_path):
    layout = layout_with_data(tmp_path / "results")
    policy = only(study, "sft")
    sentinel = layout.train_sentinel(policy.folder)
    (sentinel.parent / "state/weights").mkdir(parents=True)
    sentinel.write_text(json.dumps({"weights": "state/weights"}))

    with pytest.raises(ValueError, match=r"state/weights: no policy here"):
        run_generate(study, layout, policy, "test")


def _vanish(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def _counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the batches that are answered from here on."""
    numbers: list[int] = []

    def counting(answerer: Answerer, batch: generate.Batch) -> list[CompletionRow]:
        numbers.append(batch.number)
        return Answerer.answer(answerer, batch)

    monkeypatch.setattr(generate, "Answerer", type("Counting", (Answerer,), {"answer": counting}))
    return numbers


def test_what_a_reward_reads_is_measured_of_every_completion_and_scored(tmp_path):
    rewards = {"modality_balance": {"weight": 1.0, "options": {"ratio": 40.0}}}
    study = tiny_study(rewards=rewards, primary__metric="modality_balance", arms={"base": {"label": "base"}})
    layout = layout_with_data(tmp_path)
    policy = only(study, "model")
    run_generate(study, layout, policy, "test")
    run_score(study, layout, policy, "test")
    answers = list(read_rows(layout.completions(policy.folder, "test"), CompletionRow))
    rows = pq.read_table(layout.scores(policy.folder, "test")).to_pylist()
    scores = {
        (row["prompt_id"], row["mode"], row["sample"]): row for row in rows if row["metric"] == "modality_balance"
    }
    assert len(answers) == len(scores) == 3 * NUM_TEST
    for answer in answers:
        dominance = answer.signals["modality_dominance/late"]
        balance = max(0.0, 1 - abs(math.log(dominance)) / math.log(40))
        value = scores[answer.prompt_id, answer.mode, answer.sample]["value"]
        assert value == pytest.approx(2 * balance - 1)
        assert answer.signals["vision_tokens"] == 16
