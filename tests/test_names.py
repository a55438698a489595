"""Metrics read as words; an unknown name is answered with the known ones and the nearest."""

import re

import pytest

from rlassay.config.study import SCORE_METRICS
from rlassay.names import METRICS_IN_WORDS, in_words, nearest, one_of, unknown
from rlassay.report.read.scores import DISAGREEMENT
from rlassay.rewards import REWARDS


def test_the_sentence_says_what_was_got_what_is_known_and_what_was_meant():
    sentence = unknown("credit", "uniforn", {"uniform": 1, "entropy_filter": 2})
    assert sentence == "credit: got 'uniforn', expected one of uniform, entropy_filter; did you mean 'uniform'?"


def test_nothing_is_suggested_where_nothing_is_near():
    assert unknown("kind", 7, ["low_var_kl", "mse"]) == "kind: got 7, expected one of low_var_kl, mse"


def test_a_name_that_contains_the_given_one_is_near():
    assert nearest("filter", ["spread", "entropy_filter_of_the_batch"]) == (
        "; did you mean 'entropy_filter_of_the_batch'?"
    )
    # Two letters are in too many names.
    assert nearest("en", ["entropy_filter_of_the_batch"]) == ""


def test_one_known_name_is_named_alone():
    assert (one_of(["grpo"]), one_of(["grpo", "rloo"])) == ("grpo", "one of grpo, rloo")


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("rouge_average/rouge1", "ROUGE-1"),
        ("rouge_average/rougeLsum", "ROUGE-Lsum"),
        ("rouge_l", "ROUGE-L, stemmed"),
        ("length_similarity", "length similarity"),
        ("my_reward", "my reward"),
        ("my_reward/time_spent", "my reward: time spent"),
    ],
)
def test_metrics_read_as_words(metric: str, words: str):
    assert in_words(metric) == words


def test_every_built_in_metric_has_words_of_its_own():
    parts = [f"rouge_average/{part}" for part in ("rouge1", "rouge2", "rougeL", "rougeLsum")]
    metrics = [*REWARDS, *SCORE_METRICS, *parts, DISAGREEMENT]
    assert set(METRICS_IN_WORDS) <= set(metrics)
    found = [in_words(metric) for metric in metrics]
    assert len(set(found)) == len(metrics)
    assert [words for words in found if re.search(r"[_/@]|rouge", words)] == []
