"""Rules across the sections of a study, each with its message: settings, token credit, and the arms compared."""

from typing import Any

import pytest

from rlassay.config.study import SCORE_METRICS
from rlassay.evaluation.score import metrics_of
from rlassay.rewards import REWARDS
from tests.config.studies import GONE, content, problems, study

HUB = {"kind": "hub", "name": "x/y-1B"}

CONTRADICTIONS = [
    ({"seeds": [1, 2, 1]}, ["seeds: 1 appears twice in the list; expected different seeds"]),
    (
        {"data__splits": {"sft": 10, "test": 10}},
        ["data.splits: no split 'train' to train on; got sft, test"],
    ),
    (
        {"data__guess_share": 0.7, "data__misread_share": 0.4},
        ["data.misread_share: guess_share + misread_share = 0.7 + 0.4, expected at most 1 together"],
    ),
    (
        {"rl__beam_sampling": True},
        ["rl.beam_sampling: true, but only encoder-decoders sample so; set it to false"],
    ),
    (
        {"primary__mode": "beams"},
        ["primary.mode: beams, but evaluation.beams is null; set it, or primary.mode to sampled"],
    ),
    (
        {"primary__set": "tset"},
        ["primary.set: got the text 'tset', expected a set of evaluation.sets: test; did you mean 'test'?"],
    ),
    (
        {"primary__metric": "acc"},
        [
            "primary.metric: got the text 'acc', expected a reward of the study or a metric of the score stage: one of "
            "choice_accuracy, think_answer_format, soft_overlong, choice_accuracy_lenient, parse_failure, "
            "parse_failure_lenient, token_count, truncated; did you mean 'choice_accuracy'?"
        ],
    ),
    (
        {"primary__mode": "greedy", "evaluation__greedy": False},
        ["primary.mode: greedy, but evaluation.greedy is false; set it to true, or primary.mode to sampled"],
    ),
    ({"model__image_size": 18}, ["model.image_size: 18 is not a multiple of patch_size 4; try 16"]),
    (
        {"data__splits": {"train": 100, "test": 10}},
        ["sft: a warm start needs a split 'sft' in data.splits, which has train, test; add it, or set sft to null"],
    ),
    (
        {"rewards__choise_accuracy": {"weight": 1.0}},
        [
            f"rewards.choise_accuracy: unknown reward; expected one of {', '.join(REWARDS)}; "
            "did you mean 'choice_accuracy'?"
        ],
    ),
    (
        {"rewards__soft_overlong__options__cach": 3},
        [
            "rewards.soft_overlong.options: unknown option 'cach'; expected one of cache, max_completion_length; "
            "did you mean 'cache'?"
        ],
    ),
    (
        {"arms__dr_grpo__rewards": {"choice_accuracy": {"weight": 0}, "think_answer_format": {"weight": 0}}},
        ["arms.dr_grpo.rewards: every weight is 0, so nothing would be learned; expected at least one other than 0"],
    ),
    # 60 steps without a warm-up: the early phase ends at a tenth of them.
    (
        {
            "rewards__choice_accuracy": {"weight": 1.0, "early_weight": 0.0},
            "rewards__think_answer_format": {"weight": 0.0},
            "arms": {"base": {}},
        },
        ["arms.base.rewards: every weight is 0, so nothing would be learned; expected at least one other than 0"],
    ),
    (
        {
            "rewards__choice_accuracy": {"weight": 1.0, "schedule": [[0.25, 0.5], [0.5, 0.0]]},
            "rewards__think_answer_format": {"weight": 1.0, "schedule": [[0.25, 0.0]]},
            "arms": {"base": {}},
        },
        [
            "arms.base.rewards: every weight is 0 from progress 0.5 on, so nothing would be learned; "
            "expected at least one other than 0"
        ],
    ),
    (
        {"rewards__choice_accuracy__early_weight": 1.0, "rewards__choice_accuracy__schedule": [[0.5, 2.0]]},
        ["rewards.choice_accuracy: early_weight and schedule both set its weight; leave one of them out"],
    ),
    (
        {"rewards__choice_accuracy__schedule": [[0.5, 2.0], [0.5, 3.0]]},
        ["rewards.choice_accuracy.schedule: got the progress 0.5, 0.5; expected ascending numbers from 0 to 1"],
    ),
    # 128 completions do not divide into groups of 12; a multiple of 12 would.
    (
        {"rl__num_generations": 12},
        [
            "rl.per_device_train_batch_size: 128 x steps_per_generation 1 = 128 completions, which do not divide into "
            "groups of num_generations 12; expected a multiple of 12"
        ],
    ),
    # With two micro-batches per generation batch each needs to bring only a multiple of 6.
    (
        {"rl__num_generations": 12, "rl__steps_per_generation": 2, "rl__save_steps": 20},
        [
            "rl.per_device_train_batch_size: 128 x steps_per_generation 2 = 256 completions, which do not divide into "
            "groups of num_generations 12; expected a multiple of 6"
        ],
    ),
    (
        {"data__splits__train": 15},
        [
            "rl.per_device_train_batch_size: a generation batch takes 16 prompts (128 completions in groups of 8), but "
            "data.splits.train has 15; lower it, or add rows"
        ],
    ),
    # 3 x 2 = 6 micro-batches use up a generation batch; 4 are one step, so that 12 micro-batches = 3 steps.
    (
        {
            "rl__steps_per_generation": 3,
            "rl__num_iterations": 2,
            "rl__gradient_accumulation_steps": 4,
            "rl__save_steps": 20,
        },
        [
            "rl.save_steps: 20 is not a multiple of 3, the steps that one generation batch lasts (steps_per_generation "
            "3 x num_iterations 2 / gradient_accumulation_steps 4); try 21"
        ],
    ),
]


@pytest.mark.parametrize(("edits", "expected"), CONTRADICTIONS, ids=lambda value: str(value)[:60])
def test_sections_that_contradict_each_other(edits: dict, expected: list[str]):
    found = [problem for problem in problems(**edits) if "confound" not in problem and ".varies:" not in problem]
    assert found == expected


@pytest.mark.parametrize("accumulation", [1, 2, 4, 8])
def test_any_step_is_a_boundary_when_a_step_takes_whole_generation_batches(accumulation: int):
    study(rl__gradient_accumulation_steps=accumulation, rl__save_steps=7)


def test_a_checkpoint_may_lie_between_whole_generation_batches_only():
    study(rl__steps_per_generation=4, rl__save_steps=8)
    assert problems(rl__steps_per_generation=4, rl__save_steps=6)[0].endswith("try 8")


def test_a_problem_of_some_arms_names_them_all_and_one_of_all_arms_stands_once():
    found = problems(
        arms__base__rl={"save_steps": 15}, arms__accuracy_only__rl={"steps_per_generation": 2}, rl__save_steps=10
    )
    assert found == [
        "arms.accuracy_only.rl.save_steps: 15 is not a multiple of 2, the steps that one generation batch lasts "
        "(steps_per_generation 2 x num_iterations 1 / gradient_accumulation_steps 1); try 16",
        "arms.accuracy_only: rl.steps_per_generation is 2 here and 1 in the baseline 'base', a confound; add "
        "rl.steps_per_generation to `varies` if this arm tests it, or take the difference out",
    ]
    two = {"a": {"rl": {"num_generations": 7}}, "b": {"rl": {"num_generations": 7, "beta": 0.1}}, "c": {}}
    assert problems(arms=two, baseline="c")[0].endswith("expected a multiple of 7 (also in b)")
    assert [problem[:36] for problem in problems(rl__num_generations=7)] == ["rl.per_device_train_batch_size: 128 "]


def test_a_study_without_a_warm_start_needs_no_sft_split():
    study(sft=GONE, data__splits={"train": 100, "test": 10})
    study(sft=None, data__splits={"train": 100, "test": 10})


def test_rows_that_only_the_file_knows_are_not_checked():
    study(data={"kind": "jsonl", "folder": "x", "splits": {"sft": None, "train": None, "test": None}})
    assert "has 15" in problems(data={"kind": "jsonl", "folder": "x", "splits": {"sft": 1, "train": 15, "test": 1}})[0]


def test_a_hub_model_has_no_patches_to_check():
    study(model=HUB)


def test_the_metrics_that_a_study_may_name_are_those_of_the_score_stage():
    loaded = study()
    assert set(metrics_of(loaded)) == {*loaded.arms["base"].recipe.rewards, *SCORE_METRICS}
    for metric in metrics_of(loaded):
        study(primary__metric=metric)


def test_weights_may_change_over_training_as_long_as_one_is_not_0():
    rewards = {
        "choice_accuracy": {"weight": 2.5, "early_weight": 0.0},
        "think_answer_format": {"weight": 0.5, "schedule": [[0, 2.0], [0.3, 0.0], [1, 1.0]]},
    }
    phases = study(rewards=rewards, arms={"base": {}}).arms["base"].recipe.weight_phases
    assert phases == {
        "choice_accuracy": ((0.0, 0.0), (0.1, 2.5)),
        "think_answer_format": ((0.0, 0.5), (0.0, 2.0), (0.3, 0.0), (1.0, 1.0)),
    }
    warm = study(rewards=rewards, rl__warmup_steps=15, arms={"base": {}}).arms["base"].recipe
    assert warm.weight_phases["choice_accuracy"] == ((0.0, 0.0), (0.25, 2.5))


PERCEPTION = {"kind": "perception_filter"}
GSM8K = {"kind": "gsm8k", "origin": {"kind": "builtin"}, "splits": {"sft": 6000, "train": 2000, "test": 400}}
TABLE = GSM8K | {"kind": "table"}

CREDIT_CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    (
        {"credit": [PERCEPTION, {"kind": "uniform"}, PERCEPTION]},
        "credit.2: perception_filter appears twice in the list; expected one of each kind",
    ),
    (
        {"credit": [{"kind": "shuffled_weights"}, PERCEPTION]},
        "credit.0: shuffled_weights has nothing to shuffle; put a filter or attention_weights before it",
    ),
    (
        {"credit": [{"kind": "trajectory_scaling"}, {"kind": "shuffled_weights"}]},
        "credit.1: shuffled_weights has nothing to shuffle; put a filter or attention_weights before it",
    ),
    (
        {"credit": [{"kind": "random_filter"}, {"kind": "shuffled_weights"}]},
        "credit: random_filter and shuffled_weights use the same random draws, and a random choice needs no "
        "shuffling; leave one out",
    ),
    (
        {"credit": [{"kind": "entropy_filter"}, PERCEPTION], "data": GSM8K},
        "credit.1: perception_filter needs an image, but rows of data.kind gsm8k have none; leave it out",
    ),
    (
        {"credit": [{"kind": "attention_weights"}], "data": TABLE},
        "credit.0: attention_weights needs an image, but rows of data.kind table have none; leave it out",
    ),
    (
        {"credit": [{"kind": "trajectory_scaling"}], "model": {"kind": "tiny_lm"}},
        "credit.0: trajectory_scaling needs an image, but model.kind tiny_lm reads text only; leave it out",
    ),
    (
        {"credit_denominator": "selected"},
        "arms.dr_grpo.credit_denominator: selected, but rl.loss_type dr_grpo does not divide by a number of tokens; "
        "expected all, or another loss_type",
    ),
    (
        {"credit": [{"kind": "entropy_filter", "fraction": 0.0}]},
        "credit.0.fraction: got the number 0.0, expected a number above 0",
    ),
    (
        {"signals": {"attention": {"dominance": "last"}}},
        "signals.attention.dominance: got the text 'last', expected one of early, middle, late, all; "
        "did you mean 'late'? or a whole number",
    ),
    (
        {"signals": {"attention": {"dominance": 0}}},
        "signals.attention.dominance: got the number 0, expected one of early, middle, late, all or a number "
        "of at least 1",
    ),
    (
        {"signals": {"perception": {"mode": "gray"}}},
        "signals.perception.mode: got the text 'gray', expected one of black, noise, blur, grey; did you mean 'grey'?",
    ),
]


@pytest.mark.parametrize(("edits", "expected"), CREDIT_CONTRADICTIONS, ids=lambda value: str(value)[:60])
def test_credit_that_contradicts_itself_or_the_study(edits: dict, expected: str):
    assert [problem for problem in problems(**edits) if "credit" in problem or "signals" in problem] == [expected]


def test_controls_and_what_they_control_are_accepted():
    everything = [{"kind": kind} for kind in ("attention_weights", "entropy_filter", "perception_filter")]
    everything += [{"kind": "shuffled_weights"}, {"kind": "trajectory_scaling", "min_scale": 0.9}]
    assert len(study(credit=everything).arms["base"].recipe.credit) == 5
    with_images = TABLE | {"columns": {"images": "image"}}
    assert study(credit=[{"kind": "random_filter"}], data=GSM8K).data.kind == "gsm8k"
    assert study(credit=[PERCEPTION], data=with_images).data.kind == "table"


def test_an_arm_may_differ_in_credit_denominator_and_signals():
    arm = {
        "from": "base",
        "varies": ["credit", "credit_denominator", "signals.perception.block"],
        "credit": [PERCEPTION],
        "credit_denominator": "selected",
        "signals": {"perception": {"block": 4}},
    }
    recipe = study(arms__perception=arm).arms["perception"].recipe
    assert recipe.credit_denominator == "selected"
    assert (recipe.signals.perception.block, recipe.signals.perception.probability) == (4, 0.5)
    undeclared = arm | {"varies": ["credit", "credit_denominator"]}
    (confound,) = problems(arms__perception=undeclared)
    assert "signals.perception.block is 4 here and 14 in the baseline" in confound


ARMS = "one of base, accuracy_only, format_only, dr_grpo"

UNSOUND = [
    ({"baseline": "bse"}, [f"baseline: got the text 'bse', expected an arm: {ARMS}; did you mean 'base'?"]),
    (
        {"family": ["accuracy_only", "dr_gpo"]},
        [f"family.1: got the text 'dr_gpo', expected an arm: {ARMS}; did you mean 'dr_grpo'?"],
    ),
    ({"family": ["base"]}, ["family.0: 'base' is the baseline, which is never compared with itself; leave it out"]),
    ({"family": ["dr_grpo", "dr_grpo"]}, ["family.1: 'dr_grpo' appears twice in the list"]),
    (
        {"arms__dr_grpo__label": "accuracy only"},
        ["arms.dr_grpo.label: 'accuracy only' is also the label of 'accuracy_only'; expected another text"],
    ),
    (
        {"arms__copy": {"from": "dr_grpo", "varies": ["rl"]}},
        ["arms.copy: equal to arms.dr_grpo and would train the same weights; change or remove one"],
    ),
    # Equal once the defaults are written out.
    (
        {"arms__copy": {"rl": {"top_p": 1.0}}},
        ["arms.copy: equal to arms.base and would train the same weights; change or remove one"],
    ),
    (
        {"arms__dr_grpo__varies": ["rl.scale_rewards"]},
        [
            "arms.dr_grpo: rl.loss_type is 'dr_grpo' here and 'dapo' in the baseline 'base', a confound; add "
            "rl.loss_type to `varies` if this arm tests it, or take the difference out"
        ],
    ),
    (
        {"arms__accuracy_only__sft": None},
        [
            "arms.accuracy_only: sft is nothing (null) here and a mapping in the baseline 'base', a confound; add sft "
            "to `varies` if this arm tests it, or take the difference out"
        ],
    ),
    (
        {"arms__dr_grpo__varies": ["rl", "rl.loss_tpe"]},
        [
            "arms.dr_grpo.varies: nothing below 'rl.loss_tpe' differs from the baseline 'base'; this arm differs in "
            "rl.loss_type, rl.scale_rewards; did you mean 'rl.loss_type'?"
        ],
    ),
    ({"arms__base__varies": ["rl"]}, ["arms.base.varies: nothing below 'rl' differs from the baseline 'base'"]),
]


@pytest.mark.parametrize(("edits", "expected"), UNSOUND, ids=lambda value: str(value)[:60])
def test_an_unsound_comparison_is_refused(edits: dict, expected: list[str]):
    assert problems(**edits) == expected


def test_a_declared_path_covers_everything_below_it_and_nothing_beside_it():
    study(arms__dr_grpo__varies=["rl"])
    assert len(problems(arms__dr_grpo__varies=["r"])) == 3  # two confounds and a declaration in which nothing differs


def test_the_family_is_all_arms_but_the_baseline_unless_it_is_written():
    assert study().family == ("accuracy_only", "format_only", "dr_grpo")
    assert study(baseline="dr_grpo", arms={"a": {"rl": {"beta": 0.1}, "varies": ["rl"]}, "dr_grpo": {}}).family == (
        "a",
    )
    assert study(family=["dr_grpo"]).family == ("dr_grpo",)


def test_one_arm_is_a_study():
    assert study(arms={"base": {}}).family == ()


def test_one_misspelt_reward_is_one_problem():
    rewards = content()["rewards"]
    renamed = {name.replace("accuracy", "acuracy"): reward for name, reward in rewards.items()}
    (problem,) = problems(rewards=renamed)
    assert problem.startswith("rewards.choice_acuracy: unknown reward; expected one of")
    assert problem.endswith("; did you mean 'choice_accuracy'?")


def test_a_misspelt_reward_of_one_arm_is_one_problem():
    arm = {"varies": ["rewards.choice_accuracy.weight"], "rewards": {"choice_acuracy": {"weight": 0.5}}}
    (problem,) = problems(arms__other=arm)
    assert problem.startswith("arms.other.rewards.choice_acuracy: unknown reward")
