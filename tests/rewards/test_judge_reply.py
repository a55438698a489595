"""Replies of judges, read by hand, and properties of any reply."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlassay.rewards.grading.judge_reply import read_score

REPLIES: list[tuple[str, int, int, float | None]] = [
    # Structured
    ("<score>0.9</score>", 0, 1, 0.9),
    ("<score> 8 </score>", 0, 10, 8.0),
    ("<score>8/10</score>", 0, 10, 8.0),
    ("<score>4/5</score>", 0, 10, None),
    ("<score>11</score>", 0, 10, None),
    ("<score>high</score>", 0, 10, None),
    ("<score>8 or 9</score>", 0, 10, None),
    ("<score>0-10</score>", 0, 10, None),
    ("<score>8.</score>", 0, 10, 8.0),
    ("<score>8分</score>", 0, 10, 8.0),
    ("<score>7", 0, 10, 7.0),
    ("On a scale of 0 to 10: <score>7</score>", 0, 10, 7.0),
    ("<think><score>2</score></think><score>7</score>", 0, 10, 7.0),
    ("Between <score> and </score>. <score>7</score>", 0, 10, 7.0),
    ("<rating>3</rating>", 1, 5, 3.0),
    ("<answer>0.5</answer>", 0, 1, 0.5),
    (r"\boxed{0.5}", 0, 1, 0.5),
    ('{"score": 0.9}', 0, 1, 0.9),
    ('{"score": "0.9"}', 0, 1, 0.9),
    ('{"reason": "9 of 10 steps", "score": 8}', 0, 10, 8.0),
    ('```json\n{"score": 8, "max": 10}\n```', 0, 10, 8.0),
    ('{"score": 80}', 0, 10, None),
    ('{"score": null}', 0, 10, None),
    ('{"score": true}', 0, 10, None),
    ('{"score": -1}', 0, 10, None),
    ('{"评分": 8}', 0, 10, 8.0),
    # Scales beside the score
    ("On a scale of 0 to 1, I rate this 0.9", 0, 1, 0.9),
    ("On a scale from 1 to 10, this is a 7.", 1, 10, 7.0),
    ("On a scale of 0 (worst) to 10 (best), I give it 6.", 0, 10, 6.0),
    ("Score (0-10): 8", 0, 10, 8.0),
    ("Score (0–10): 8", 0, 10, 8.0),
    ("Score [0, 10]: about 8", 0, 10, 8.0),
    ("Rating (1 to 5): 4", 1, 5, 4.0),
    ("Rating between 1 and 5: 4", 1, 5, 4.0),
    ("满分10分，我给8分", 0, 10, 8.0),
    ("总分10分，得分：7分", 0, 10, 7.0),
    ("10分制，我打6分", 0, 10, 6.0),
    ("在0到10分之间，我给8分", 0, 10, 8.0),
    ("评分（0-10）：９", 0, 10, 9.0),
    ("我给8分（满分10分）", 0, 10, 8.0),
    ("我给8分", 0, 10, 8.0),
    ("得分：8.5", 0, 10, 8.5),
    ("Maximum score 10. Score: 8", 0, 10, 8.0),
    ("Using a 10-point scale, I assign 5.", 0, 10, 5.0),
    ("With 10 being the best, I give it 3", 0, 10, 3.0),
    ("Range: 0 to 1\nScore: 1", 0, 1, 1.0),
    ("0 to 1", 0, 1, None),
    ("0-10", 0, 10, None),
    ("满分10分", 0, 10, None),
    # Fractions
    ("8/10", 0, 10, 8.0),
    ("8 / 10", 0, 10, 8.0),
    ("8 out of 10", 0, 10, 8.0),
    ("I give it 0.5 of 1", 0, 1, 0.5),
    ("I rate it 8/10.", 0, 10, 8.0),
    ("4/5", 0, 10, None),
    ("4 out of 5", 0, 10, None),
    ("8/10 = 0.8", 0, 1, None),
    ("1/5", 0, 1, None),
    # Signs
    ("-1", -1, 1, -1.0),
    ("Score: -0.5", -1, 1, -0.5),
    ("Score: −0.5", -1, 1, -0.5),
    ("+0.25", 0, 1, 0.25),
    ("On a scale of -1 to 1, I rate this -0.3", -1, 1, -0.3),
    ("-0.1", 0, 1, None),
    ("Score:-0", 0, 1, 0.0),
    # Separators
    ("1,000", 0, 1000, 1000.0),
    ("Score: 1,250", 0, 2000, 1250.0),
    ("1,000", 0, 10, None),
    ("0,8", 0, 1, 0.8),
    ("1.000,5", 0, 10, None),
    ("1 2 3", 0, 10, None),
    # Out of the scale
    ("1.5", 0, 1, None),
    ("Score: 11", 0, 10, None),
    ("100", 0, 10, None),
    ("80%", 0, 100, None),
    ("5 %", 0, 10, None),
    ("80 percent", 0, 100, None),
    # Several numbers
    ("7 or 8", 0, 10, None),
    ("Between 7 and 8", 0, 10, None),
    ("7-8", 0, 10, None),
    ("Score: 7, score: 8", 0, 10, None),
    ("Correctness: 8. Style: 3.", 0, 10, None),
    ("Score: 8. Final score: 8.", 0, 10, 8.0),
    ("There are 3 errors. Score: 4", 0, 10, 4.0),
    ("Score: 4. There are 3 errors.", 0, 10, 4.0),
    ("There are 3 errors and 2 typos.", 0, 10, None),
    # Denied and bounded
    ("not 8", 0, 10, None),
    ("I would not give it 8", 0, 10, None),
    ("at least 8", 0, 10, None),
    # No number
    ("", 0, 1, None),
    ("great", 0, 1, None),
    ("1st", 0, 1, None),
    ("GPT4", 0, 10, None),
    ("version 1.2.3", 0, 10, None),
    ("**8**", 0, 10, 8.0),
    ("**Score:** 8", 0, 10, 8.0),
    ("８", 0, 10, 8.0),
    ("Rating: 8 points", 0, 10, 8.0),
    ("Score = 8", 0, 10, 8.0),
]


@pytest.mark.parametrize(("reply", "low", "high", "expected"), REPLIES)
def test_the_score_is_read_or_the_reply_is_unreadable(reply, low, high, expected):
    assert read_score(reply, low, high) == expected


def test_the_table_is_large_and_its_replies_are_different():
    assert len({(reply, high) for reply, _, high, _ in REPLIES}) == len(REPLIES) >= 80


@given(st.text(), st.floats(-5, 5), st.floats(0.1, 5))
def test_every_score_is_on_the_scale(reply, low, width):
    score = read_score(reply, low, low + width)
    assert score is None or low <= score <= low + width


@given(
    st.integers(0, 10),
    st.sampled_from(
        ["{}", "<score>{}</score>", '{{"score": {}}}', "On a scale of 0 to 10: {}", "Score (0-10): {}", "{}/10"]
    ),
)
def test_each_score_is_read_in_every_frame(score, frame):
    assert read_score(frame.format(score), 0, 10) == score


@given(st.lists(st.integers(0, 10), min_size=2, max_size=4, unique=True))
def test_different_scores_are_unreadable(scores):
    assert read_score(", ".join(f"score: {score}" for score in scores), 0, 10) is None


@pytest.mark.parametrize("unit", ["1", "1,", "1 to ", "score ", "{", "<score>", "1/", "满分", "- ", "not "])
def test_a_long_reply_is_read_without_backtracking(unit):
    start = time.process_time()
    read_score(unit * (20_000 // len(unit)), 0, 10)
    assert time.process_time() - start < 10  # well under 1 s; one that backtracks takes hours
