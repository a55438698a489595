import pyarrow.parquet as pq
import pytest

from rlassay.config import Study
from rlassay.evaluation.score import metrics_of, run_score, score_group
from rlassay.layout import Layout
from rlassay.records import CompletionRow, read_rows, write_rows
from rlassay.rewards.sandbox.guard import in_process
from tests.evaluation.tiny import NUM_TEST, layout_with_data, only, tiny_study
from tests.models.hubs import row

RIGHT = "<think>7</think><answer>A</answer>"
LENIENT = "Perhaps A?"
NOTHING = "hm"


@pytest.fixture
def study() -> Study:
    return tiny_study()


@pytest.fixture
def layout(tmp_path) -> Layout:
    return layout_with_data(tmp_path / "results")


def answers(layout: Layout, study: Study, **changes: str) -> list[CompletionRow]:
    """For each prompt two samples and a greedy completion; `test0` is answered in three ways, its answer being A."""
    rows = [
        CompletionRow(prompt_id=row.prompt_id, mode=mode, sample=sample, text=NOTHING, token_count=5, finished=False)
        for row in read_rows(layout.split("test"))
        for mode, sample in (("sampled", 0), ("sampled", 1), ("greedy", 0))
    ]
    for index, text in enumerate((RIGHT, LENIENT, NOTHING)):
        rows[index] = rows[index].model_copy(update={"text": text, "token_count": 9 + index, "finished": index != 1})
    return rows


def scored(layout: Layout, study: Study, rows: list[CompletionRow]) -> dict[tuple[str, str, int, str], float | None]:
    policy = only(study, "model")
    write_rows(layout.completions(policy.folder, "test"), rows)
    run_score(study, layout, policy, "test")
    table = pq.read_table(layout.scores(policy.folder, "test")).to_pylist()
    return {(each["prompt_id"], each["mode"], each["sample"], each["metric"]): each["value"] for each in table}


def test_every_metric_of_every_completion(layout, study):
    scores = scored(layout, study, answers(layout, study))
    by_metric = {
        metric: [
            scores["test0", mode, sample, metric] for mode, sample in (("sampled", 0), ("sampled", 1), ("greedy", 0))
        ]
        for metric in metrics_of(study)
    }

    assert len(scores) == 3 * NUM_TEST * len(by_metric)
    assert by_metric == {
        "choice_accuracy": [1, 0, 0],
        "think_answer_format": [1, 0, 0],
        # 16 tokens at most, a penalty-free length of 16 - 4 = 12: none is longer.
        "soft_overlong": [0, 0, 0],
        "choice_accuracy_lenient": [1, 1, 0],
        "parse_failure": [0, 1, 1],
        "parse_failure_lenient": [0, 0, 1],
        "token_count": [9, 10, 11],
        "truncated": [0, 1, 0],
    }


def test_the_order_of_the_completions_does_not_matter(layout, study):
    rows = answers(layout, study)

    assert scored(layout, study, rows[::-1]) == scored(layout, study, rows)


def test_a_reward_sees_the_samples_of_one_prompt_and_mode_together(layout, study, monkeypatch):
    groups: list[tuple[str, int]] = []

    def observing(completions):
        groups.append((completions[0].row.prompt_id, len(completions)))
        return [0.0] * len(completions)

    monkeypatch.setattr(
        "rlassay.evaluation.score.guarded", lambda name, options, **limits: in_process(name, observing, {})
    )
    scored(layout, study, answers(layout, study))

    assert sorted(set(groups)) == [(f"test{index}", size) for index in range(NUM_TEST) for size in (1, 2)]


def test_a_metric_that_cannot_score_is_null(layout, study):
    rows = [row.model_copy(update={"choices": (), "answer": "7"}) for row in read_rows(layout.split("test"))]
    write_rows(layout.split("test"), rows)
    scores = scored(layout, study, answers(layout, study))

    assert scores["test0", "sampled", 0, "parse_failure"] is None
    assert scores["test0", "sampled", 0, "choice_accuracy_lenient"] is None
    assert scores["test0", "sampled", 0, "token_count"] == 9


def test_the_baselines_options_score_every_arm(study):
    arms = {
        "other": {"from": "base", "varies": ["rewards.soft_overlong"]},
        "base": {},
    }
    other = {"soft_overlong": {"weight": 0.0, "options": {"max_completion_length": 16, "cache": 8}}}
    arms["other"]["rewards"] = other
    metric = metrics_of(tiny_study(arms=arms))["soft_overlong"]

    from rlassay.records import Completion
    from tests.models.hubs import row

    # 12 tokens are not too long with a cache of 4 tokens before the limit of 16; with one of 8 they would cost 0.5.
    assert metric([Completion(text="", token_count=12, finished=True, row=row())]) == [0]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: rows[1:], r"1 missing, such as \('test0', 'sampled', 0\)"),
        (lambda rows: [*rows, rows[0]], r"1 duplicate, such as \('test0', 'sampled', 0\)"),
        (lambda rows: [*rows, rows[0].model_copy(update={"prompt_id": "x"})], r"1 unexpected, such as \('x',"),
        (
            lambda rows: [*rows, rows[0].model_copy(update={"sample": 2})],
            r"1 unexpected, such as \('test0', 'sampled', 2",
        ),
    ],
)
def test_completions_that_do_not_fit_the_rows_are_refused(layout, study, spoil, message):
    with pytest.raises(ValueError, match=message):
        scored(layout, study, spoil(answers(layout, study)))


def test_a_reward_that_forgets_a_completion_is_named(layout, study, monkeypatch):
    monkeypatch.setattr(
        "rlassay.evaluation.score.guarded",
        lambda name, options, **limits: in_process(name, lambda completions: [0.0], {}),
    )

    with pytest.raises(ValueError, match=r"reward choice_accuracy, prompt test0: got 1 values for 2 completions"):
        scored(layout, study, answers(layout, study))


def test_failures_of_a_reward_have_no_score_and_are_counted_in_the_log(layout, study, monkeypatch, caplog):
    def spiteful(completions):
        return [float("nan") if each.text == LENIENT else 0.5 for each in completions]

    monkeypatch.setattr(
        "rlassay.evaluation.score.guarded", lambda name, options, **limits: in_process(name, spiteful, {})
    )
    scores = scored(layout, study, answers(layout, study))

    assert scores["test0", "sampled", 0, "choice_accuracy"] == 0.5
    assert scores["test0", "sampled", 1, "choice_accuracy"] is None
    count = "1 of 15 completions failed (1 not_finite); their scores are empty"
    assert f"reward choice_accuracy: {count}" in caplog.messages


def test_metrics_of_a_reward_of_the_users_own_are_scored_beside_it(tmp_path):
    (tmp_path / "own.py").write_text("def reward(item):\n    return 0.5, {'letters': len(item['response'])}\n")
    own = {"weight": 1.0, "kind": "custom", "path": f"{tmp_path}/own.py:reward"}
    metrics = {"brevity": metrics_of(tiny_study(rewards__brevity=own))["brevity"]}
    answers = [
        CompletionRow(prompt_id="p", mode="greedy", sample=0, text="four", token_count=2, finished=True, signals={})
    ]
    scores = score_group(row(), answers, metrics)
    assert [(score.metric, score.value) for score in scores] == [("brevity", 0.5), ("brevity/letters", 4.0)]
