"""Numbers and sentences of the report; expected texts written by hand."""

import pytest

from rlassay.records import Histogram
from rlassay.report.findings.records import Equivalence, Rounds
from rlassay.report.findings.sentences import (
    cost_summary,
    interval_notes,
    modes_note,
    rejection_summary,
    resume_summary,
    run_summary,
    step_parts,
    version_list,
)
from rlassay.report.numbers import Estimate, PolicyResumes
from rlassay.report.typeset import (
    correlations,
    counted,
    counts,
    duration,
    failures,
    interval,
    number,
    one_line,
    p_values,
    printable,
    probability,
    quoted,
    size,
    spread,
    weights,
    with_interval,
)
from tests.report.fake_content import fake_content, fake_partial


@pytest.mark.parametrize(
    ("value", "unit", "signed", "expected"),
    [
        (0.4321, "share", False, "43.2"),
        (-0.12, "share", True, "−12.0"),
        (0.081, "share", True, "+8.1"),
        (-0.0001, "share", True, "0.0"),  # rounds to nothing: no sign
        (0.0, "value", True, "0.000"),
        (9.46, "tokens", False, "9.5"),
        (-0.00049, "nats", False, "0.000"),
        (-0.0006, "nats", False, "−0.001"),
        (None, "share", True, "–"),
    ],
)
def test_number(value, unit, signed, expected):
    assert number(value, unit, signed) == expected


def test_interval_and_size():
    shown = Estimate(mean=0.4, low=0.37, high=0.43, num_seeds=3, num_items=1400, covers="seeds and items")
    assert interval(shown, "share") == "37.0 to 43.0"
    assert size(shown) == "3 × 1,400"
    assert interval(shown.model_copy(update={"low": None}), "share") == ""
    assert with_interval(0.4, shown, "share") == "40.0  [37.0 to 43.0]"
    assert with_interval(0.4, shown.model_copy(update={"covers": "items"}), "share") == "40.0  [37.0 to 43.0]†"
    assert with_interval(0.4, shown.model_copy(update={"low": None}), "share") == "40.0"


def test_probability_is_never_nothing():
    shown = [probability(value) for value in (0.0, 0.00099, 0.0414, 1.0)]
    assert shown == ["< 0.001", "< 0.001", "= 0.041", "= 1.000"]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.04, "0.0 s"),
        (59.4, "59.4 s"),
        (61.5, "1 min 02 s"),
        (3599.7, "1 h 00 min"),
        (7500.0, "2 h 05 min"),
        (360000.0, "100 h 00 min"),
    ],
)
def test_duration(seconds, expected):
    assert duration(seconds) == expected


def test_characters_that_no_file_can_hold_are_replaced():
    assert printable("a\x00b\ud800c\uffff\n\t😀") == "a\ufffdb\ufffdc\ufffd\n\t😀"
    assert one_line("two\nlines\x07") == "two lines\ufffd"
    assert one_line("x" * 50, 10) == "x" * 9 + "…"


def test_weights_over_training():
    assert weights(((0.0, 0.5),)) == "0.5"
    assert weights(((0.0, 1.0), (0.1, -2.5))) == "1, from 10 % on −2.5"


def test_correlations_are_sorted_by_strength_without_undefined_ones():
    assert correlations({"form": 0.125, "other": None, "length": -0.31}) == "length −0.31, form +0.12"
    assert correlations({"action_set_iou": -0.5}) == "action-set IoU −0.50"  # the name keeps its hyphen
    assert correlations({"other": None}) == correlations({}) == "–"


def test_failures_by_kind():
    assert failures({"timeout": 1200, "not_finite": 1}) == "1,200 timeout, 1 not finite"
    assert failures({}) == "–"


def test_the_run_summary_is_one_sentence():
    # 4 arms and seeds (1, 2, 3) in the fake; its one arm policy asked for 60 steps; 400 prompts in its set.
    assert run_summary(fake_content()) == (
        "4 arms × 3 seeds, 60 RL steps per run, evaluated on 400 held-out prompts with 8 sampled completions each."
    )


def test_the_run_summary_of_seeds_in_rounds_has_the_fewest_and_the_most():
    content = fake_content()
    arms = tuple(arm.model_copy(update={"seeds": (1, 2)}) if arm.name == "dr_grpo" else arm for arm in content.arms)
    facts = {
        "alpha": 0.05,
        "margin": None,
        "looks": (2, 3),
        "drops": False,
        "taken": (),
        "runs": 11,
        "planned_runs": 12,
    }
    rounds = Rounds.model_validate(facts | {"sentence": ""})
    assert run_summary(content.model_copy(update={"arms": arms})).startswith("4 arms × 3 seeds,")
    assert run_summary(content.model_copy(update={"arms": arms, "rounds": rounds})).startswith("4 arms × 2 to 3 seeds,")


def test_the_prompts_of_all_evaluation_sets_are_counted():
    content = fake_content()
    main = content.tables["main"]
    other = main.columns[0].model_copy(update={"set": "sft"})  # of 63 prompts
    tables = content.tables | {"main": main.model_copy(update={"columns": (*main.columns, other)})}
    assert "evaluated on 463 held-out prompts" in run_summary(content.model_copy(update={"tables": tables}))


def test_the_run_summary_of_an_untrained_study_is_a_sentence():
    content = fake_partial().model_copy(update={"policies": ()})
    assert run_summary(content).startswith("4 arms × 3 seeds, evaluated on")


def test_intervals_are_explained_in_three_notes_at_the_level_of_the_study():
    content = fake_content()
    study = content.study.model_copy(update={"confidence": 0.9})
    computed, covered, resolved = interval_notes(content.model_copy(update={"study": study}))
    assert "a 90% interval" in computed
    assert "two crossed random effects" in computed
    assert "(†) covers the prompts only" in covered
    assert "Holm's correction" in resolved
    assert [note.count(". ") for note in (computed, covered, resolved)] == [2, 2, 2]
    assert all(note.endswith(".") for note in (computed, covered, resolved))


def test_labels_are_quoted_and_counts_have_their_plural():
    assert quoted("accuracy only") == "'accuracy only'"
    assert (counted(1, "seed"), counted(1200, "prompt")) == ("1 seed", "1,200 prompts")


def test_cost_and_resumes_are_summed_up():
    content = fake_content()
    # two jobs of 61.5 s and 92,000 tokens
    assert cost_summary(content) == "2 training jobs took 2 min 03 s of wall time in total and sampled 184,000 tokens."
    assert resume_summary(content) == "Resumed from a checkpoint: runs/base/seed1 at step 20."
    untouched = (PolicyResumes(policy="runs/base/seed1", steps=()),)
    assert resume_summary(content.model_copy(update={"resumes": untouched})) == "No job was interrupted."


def test_the_whole_step_comes_before_its_parts():
    content = fake_content()
    cost = content.cost[0].model_copy(update={"seconds_per_step": {"generation": 0.5, "reward": 0.1, "step": 0.9}})
    assert step_parts(content.model_copy(update={"cost": (cost,)})) == ["step", "generation", "reward"]


def test_each_combination_of_versions_is_named_once():
    content = fake_content()
    assert version_list(content) == "torch 2.13.0, trl 1.16.0"
    other = content.policies[1].model_copy(update={"versions": {"torch": "2.14.0"}})
    assert (
        version_list(content.model_copy(update={"policies": (content.policies[0], other)}))
        == "torch 2.13.0, trl 1.16.0; or torch 2.14.0"
    )


def test_lengths_and_counts_as_text():
    assert spread(Histogram(quartiles=(1, 2, 3, 4, 1200), width=100, bars=(1,))) == (
        "1 to 1,200; half of them 2 to 4, median 3"
    )
    assert spread(Histogram(quartiles=(7, 7, 7, 7, 7), width=1, bars=(9,))) == "all 7"
    assert spread(None) == "none"
    assert counts({"4": 9}) == "4"
    assert counts({"0": 1000, "1": 2}) == "0 (1,000), 1 (2)"
    assert counts({}) == "–"


def test_the_top_of_the_page_says_how_many_rows_each_split_kept():
    content = fake_content()
    (first, *others) = content.data
    few = first.model_copy(update={"rows": 7, "refused": {"leak: x": 20, "other": 1}, "leaks": 20, "duplicates": 0})
    rest = tuple(split.model_copy(update={"refused": {}}) for split in others)
    changed = content.model_copy(update={"data": (few, *rest)})
    assert rejection_summary(changed) == f"{first.split}: 7 of 28 rows kept (20 leaks)"


def test_the_modes_that_contradict_each_other_are_explained_and_no_others():
    content = fake_content().model_copy(update={"modes_apart": ("'avg@8' rises, but 'accuracy, pass@4' falls.",)})
    assert modes_note(content) == (
        "Here avg@8 is the mean over 8 sampled completions of each prompt; "
        "pass@4 is the share of prompts of which at least one of 4 sampled completions is right."
    )
    assert modes_note(fake_content()) == ""


def test_the_p_value_of_equivalence_says_so():
    one = fake_content().verdicts[2]
    test = Equivalence(margin=0.05, p_value=0.004, p_holm=0.012)
    assert (
        p_values(one.model_copy(update={"outcome": "equivalent", "equivalence": test})) == "equivalence: Holm p = 0.012"
    )
    assert p_values(one.model_copy(update={"equivalence": test})) == "Holm p = 0.020"
