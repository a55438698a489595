"""An unknown name is answered with the known ones and the nearest."""

from rlassay.names import nearest, one_of, unknown


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
