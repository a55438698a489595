"""Every way in which a single value can be wrong, with the sentence a user reads."""

import pytest

from rlassay.config import StudyError
from rlassay.config.explain import describe
from rlassay.names import nearest, one_of
from tests.config.studies import GONE, problems, study

LOSSES = "one of grpo, dr_grpo, dapo, bnpo, cispo, sapo, luspo, vespo"
NAME = "a name of lower-case letters, digits and underscores"

MALFORMED = [
    # seeds
    ({"seeds": ["1"]}, "seeds.0: got the text '1', expected a whole number; write seeds: [1]"),
    ({"seeds": [1, "2"]}, "seeds.1: got the text '2', expected a whole number; write seeds: [1, 2]"),
    (
        {"seeds": 3},
        "seeds: got the number 3, expected a list; write seeds: [1, 2, 3] for 3 seeds, or seeds: [3] for seed 3 alone",
    ),
    ({"seeds": 42}, "seeds: got the number 42, expected a list; write seeds: [42]"),
    ({"seeds": 1}, "seeds: got the number 1, expected a list; write seeds: [1]"),
    ({"seeds": []}, "seeds: got an empty list, expected at least 1 entry"),
    ({"seeds": [-1]}, "seeds.0: got the number -1, expected a number of at least 0"),
    ({"seeds": [2**31]}, "seeds.0: got the number 2147483648, expected a number below 2147483648"),
    ({"seeds": GONE}, "seeds: missing; expected: One run per arm and seed"),
    # numbers
    ({"rl__max_steps": -5}, "rl.max_steps: got the number -5, expected a number of at least 1"),
    ({"rl__max_steps": 2.5}, "rl.max_steps: got the number 2.5, expected a whole number"),
    ({"rl__max_steps": 1e3}, "rl.max_steps: got the number 1000.0, expected a whole number; write max_steps: 1000"),
    ({"rl__max_steps": None}, "rl.max_steps: got nothing (null), expected a whole number"),
    ({"rl__temperature": 0}, "rl.temperature: got the number 0, expected a number above 0"),
    ({"rl__top_p": 1.5}, "rl.top_p: got the number 1.5, expected a number of at most 1"),
    ({"rl__num_generations": 1}, "rl.num_generations: got the number 1, expected a number of at least 2"),
    (
        {"sft__learning_rate": "1e-3"},
        "sft.learning_rate: got the text '1e-3', expected a number; write learning_rate: 1e-3",
    ),
    ({"sft__learning_rate": "fast"}, "sft.learning_rate: got the text 'fast', expected a number"),
    ({"sft__learning_rate": float("nan")}, "sft.learning_rate: got the number nan, expected a finite number"),
    (
        {"rewards__choice_accuracy__weight": float("inf")},
        "rewards.choice_accuracy.weight: got the number inf, expected a finite number",
    ),
    ({"model__width": 100}, "model.width: got the number 100, expected a multiple of 32"),
    ({"gpus": True}, "gpus: got true, expected a whole number"),
    ({"data__splits__test": 0}, "data.splits.test: got the number 0, expected a number of at least 1"),
    # text, switches, lists, sections
    ({"title": 3}, "title: got the number 3, expected text; write title: '3'"),
    ({"title": GONE}, "title: missing; expected: Headline of the report"),
    ({"name": "Digits!"}, f"name: got the text 'Digits!', expected {NAME}"),
    (
        {"evaluation__greedy": "yes"},
        "evaluation.greedy: got the text 'yes', expected true or false; write greedy: true",
    ),
    ({"evaluation__greedy": 1}, "evaluation.greedy: got the number 1, expected true or false"),
    ({"evaluation__sets": "test"}, "evaluation.sets: got the text 'test', expected a list; write sets: [test]"),
    ({"evaluation": None}, "evaluation: got nothing (null), expected a mapping"),
    ({"rewards": {}}, "rewards: got an empty mapping, expected at least 1 entry"),
    ({"rewards__choice_accuracy": 1.0}, "rewards.choice_accuracy: got the number 1.0, expected a mapping"),
    ({"arms": {}}, "arms: got an empty mapping, expected at least 1 entry"),
    ({"arms__base": None}, "arms.base: got nothing (null), expected a mapping"),
    ({"arms__Base": {}}, f"arms.Base: got the text 'Base', expected {NAME}"),
    ({"data__splits__../x": 3}, f"data.splits.../x: got the text '../x', expected {NAME}"),
    ({"arms__base__from": 3}, "arms.base.from: got the number 3, expected text; write from: '3'"),
    (
        {"arms__base__color": "red"},
        "arms.base.color: got the text 'red', expected a colour such as '#1f77b4', in quotes",
    ),
    ({"arms__base__rl": [1]}, "arms.base.rl: got a list, expected a mapping"),
    # names
    ({"sedes": [1]}, "did you mean 'seeds'?"),
    ({"rl__max_step": 3}, "rl.max_step: unknown key; expected one of max_steps, learning_rate, "),
    ({"rl__max_step": 3}, "did you mean 'max_steps'?"),
    (
        {"arms__base__labl": "x"},
        "arms.base.labl: unknown key; expected one of algorithm, from, label, color, varies, model, sft, rl, rewards, "
        "credit, credit_denominator, entropy_penalty_coef, signals; did you mean 'label'?",
    ),
    ({"arms__base__from_": "x"}, "arms.base.from_: unknown key; "),
    (
        {"model__kind": "tinyvlm"},
        "model: kind is the text 'tinyvlm', expected one of tiny_vlm, tiny_lm, tiny_seq2seq, hub; "
        "did you mean 'tiny_vlm'?",
    ),
    ({"model": {"layers": 2}}, "model: kind is missing; expected kind: one of tiny_vlm, tiny_lm, tiny_seq2seq, hub"),
    ({"model": {"kind": "hub"}}, "model.name: missing; expected: Hub name, or path of a local folder"),
    (
        {"model": {"kind": "hub", "name": "x", "lora": {"target_modules": 3}}},
        "model.lora.target_modules: got the number 3, expected text; write target_modules: '3' "
        "or a list; write target_modules: [3]",
    ),
    ({"model": {"kind": "hub", "name": ""}}, "model.name: got the text '', expected text that is not empty"),
    (
        {"data__kind": "digts"},
        "data: kind is the text 'digts', expected one of digits, jsonl, table, aokvqa, jsonl_prompts, conversations, "
        "moving_digits, gsm8k, summarization, docstrings, headlines; did you mean 'digits'?",
    ),
    ({"rl__loss_type": "dapoo"}, f"rl.loss_type: got the text 'dapoo', expected {LOSSES}; did you mean 'dapo'?"),
    ({"rl__scale_rewards": False}, "rl.scale_rewards: got false, expected one of group, batch, none"),
    (
        {"credit": [{"kind": "unifrm"}]},
        "credit.0: kind is the text 'unifrm', expected one of uniform, attention_weights, entropy_filter, "
        "perception_filter, trajectory_scaling, covariance_filter, random_filter, shuffled_weights, "
        "covariance_penalty; did you mean 'uniform'?",
    ),
    ({"credit": {"kind": "uniform"}}, "credit: got a mapping, expected a list"),
    (
        {"primary__mode": "sample"},
        "primary.mode: got the text 'sample', expected one of sampled, greedy, beams; did you mean 'sampled'?",
    ),
]


def identity(edits: object) -> str:
    """A readable test name."""
    return str(edits)[:60]


@pytest.mark.parametrize(("edits", "expected"), MALFORMED, ids=identity)
def test_a_malformed_value_is_named_with_what_was_expected(edits: dict, expected: str):
    found = problems(**edits)
    assert len(found) == 1
    assert expected in found[0]


def test_everything_wrong_is_reported_at_once():
    found = problems(seeds=["1"], rl__max_steps=-5, title=GONE, arms__dr_grpo__rl__loss_type="x", model__kind="y")
    assert [problem.split(":")[0] for problem in found] == [
        "model",
        "rl.max_steps",
        "title",
        "seeds.0",
        "arms.dr_grpo.rl.loss_type",
    ]


def test_a_list_with_a_wrong_item_is_not_also_called_too_short():
    assert problems(seeds=["x"]) == ["seeds.0: got the text 'x', expected a whole number"]


def test_the_error_names_file_and_count():
    error = StudyError(["a: wrong", "b: wrong"], "study.yaml")
    assert str(error) == "study.yaml: 2 problems\n  - a: wrong\n  - b: wrong"
    assert str(StudyError(["a: wrong"])) == "1 problem\n  - a: wrong"
    assert isinstance(error, ValueError)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "nothing (null)"),
        (True, "true"),
        ("x", "the text 'x'"),
        (3, "the number 3"),
        ({}, "an empty mapping"),
        ({"a": 1}, "a mapping"),
        ([], "an empty list"),
        ([1], "a list"),
    ],
)
def test_describe(value: object, words: str):
    assert describe(value) == words


def test_nearest_names_one_only_when_it_is_close():
    assert nearest("dapoo", ["grpo", "dapo"]) == "; did you mean 'dapo'?"
    assert nearest("acc", ["format", "choice_accuracy"]) == "; did you mean 'choice_accuracy'?"
    assert nearest("zzz", ["grpo", "dapo"]) == ""


def test_one_of():
    assert one_of(["a", "b"]) == "one of a, b"
    assert one_of(["a"]) == "a"


def test_the_unedited_study_is_sound():
    assert study().name == "digits"
