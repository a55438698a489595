"""Names that MLflow refuses become names that it takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlassay.tracking.names import legal_name


@pytest.mark.parametrize(
    ("name", "legal"),
    [
        ("reward", "reward"),
        ("rewards/choice_accuracy/mean", "rewards/choice_accuracy/mean"),
        ("pass@1", "pass_at_1"),
        ("eval/pass@16", "eval/pass_at_16"),
        ("clip ratio/low-mean", "clip ratio/low-mean"),
        ("kl(π|ref)", "kl___ref_"),
        ("100%", "100_"),
        ("a//b", "a/_/b"),
        ("../up", "__/up"),
        ("./here", "_/here"),
        ("", "_"),
    ],
)
def test_legal_names_stay_and_others_change(name: str, legal: str) -> None:
    assert legal_name(name) == legal


@given(st.text(max_size=30))
def test_mlflow_takes_every_name(name: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    _validate_metric_name(legal_name(name))
