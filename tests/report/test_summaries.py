"""Arms beyond their mean, with values worked by hand."""

import numpy as np
import pytest

from rlassay.report.findings.summaries import seed_share, tokens_per_point
from rlassay.report.gather import Results
from rlassay.report.run import build_content
from rlassay.stats import iqm
from tests.report.conftest import SETTINGS
from tests.report.fake_content import fake_content


def test_the_share_of_the_variance_between_seeds():
    # Seed means 0.2 and 0.6: variance 0.08 over 2 seeds = 0.04.
    # Prompt means 0.1, 0.4 and 0.7: variance 0.09 over 3 prompts = 0.03.
    scores = np.array([[0.0, 0.1, 0.5], [0.2, 0.7, 0.9]])
    assert seed_share(scores) == pytest.approx(0.04 / 0.07, abs=1e-6)
    # A prompt that one seed lacks is left out; one seed or one prompt has no share.
    assert seed_share(np.array([[0.0, 0.1, 0.5, np.nan], [0.2, 0.7, 0.9, 1.0]])) == pytest.approx(0.04 / 0.07, abs=1e-6)
    assert seed_share(scores[:1]) is None
    assert seed_share(np.full((2, 3), 0.5)) is None


def test_tokens_per_point_divide_by_the_gain_in_points():
    gain = fake_content().gains[0]  # 9 points, from 4 to 14
    found = tokens_per_point(63_000, gain)
    assert (found.mean, found.low, found.high) == (7000.0, 4500.0, 15750.0)
    may_be_none = gain.model_copy(update={"difference": gain.difference.model_copy(update={"low": -0.01})})
    assert tokens_per_point(63_000, may_be_none).high is None
    loss = gain.model_copy(update={"difference": gain.difference.model_copy(update={"effect": -0.09})})
    assert tokens_per_point(63_000, loss) is None


def test_every_arm_has_a_summary_from_its_files(results: Results):
    found = {one.arm: one for one in build_content(results, SETTINGS.report).summaries}
    assert list(found) == list(results.study.arms)
    one = found["accuracy_only"]
    means = [
        results.scores[folder, "test"].mean_by_prompt("sampled", "choice_accuracy")
        for folder in results.rows["accuracy_only"].folders.values()
    ]
    assert one.iqm.mean == pytest.approx(np.mean([iqm(line) for line in means]), abs=1e-6)
    curves = [
        results.metrics[folder]["rewards/choice_accuracy/mean"].mean()
        for folder in results.rows["accuracy_only"].folders.values()
    ]
    assert one.curve_area.mean == pytest.approx(np.mean(curves), abs=1e-6)
    assert one.tokens == 10_000
