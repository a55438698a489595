from pathlib import Path

import pytest

from rlassay.records import PromptRow
from rlassay.training.readable_logs import (
    ReadableLog,
    attention_section,
    completions_section,
    print_first_completion,
    weights_section,
)
from rlassay.training.rollouts import Rollout
from tests.training.test_rollouts import rollout
from tests.training.test_token_records import record

ROWS = {name: PromptRow(prompt_id=name, question=f"What is {name}?", answer="B") for name in "ab"}


def two_records(step: int = 3) -> Rollout:
    records = (record(sample=0), record(tokens=["no", " way", "\n## Step 9"], scale=0.9))
    return rollout(step, token_records=records)


def test_the_log_of_completions_shows_prompt_rewards_and_previews():
    text = completions_section(two_records(), ROWS, prompt_chars=4, completion_chars=2000)
    assert "**Prompt a** (gold 'B'):\n\n    What ... (6 more characters)\n" in text
    assert "Sample 0: reward 2 (accuracy 1 · length 0.5), advantage -0.500\n\n    <answer>B\n" in text
    assert "Sample 1: reward 2 (accuracy 0 · length nan), advantage -0.500, scale 0.900" in text
    assert text.count("**Prompt") == 1


def test_the_log_of_weights_writes_words_with_their_weights():
    lines = weights_section(two_records()).splitlines()
    assert lines[0] == "- a sample 0, advantage -0.500: <answer>(0.50) B(1.50) ⟨end⟩(1.00)"
    assert lines[1] == "- a sample 1, advantage -0.500, scale 0.900: no(0.50) way(1.50) ##(1.00) Step(1.00) 9(1.00)"


def test_the_log_of_attention_is_a_table_of_the_measured_metrics():
    metrics = {"attention/late/mdi": 10.78, "attention/late/aei_text": 2.69, "entropy": 1.0}
    lines = attention_section(metrics).splitlines()
    assert len(lines) == 3
    assert lines[2] == "| late | 10.7800 | 2.6900 | n/a | n/a | n/a | n/a | n/a |"
    assert attention_section({"entropy": 1.0}) == ""
    of_document = attention_section({"attention/late/attended_tokens": 3.5, "attention/text_tokens": 9.0})
    assert of_document == "| layers | attended_tokens |\n|---|---|\n| late | 3.5000 |\n"


def test_a_log_grows_step_by_step_and_a_resumed_job_drops_later_steps(tmp_path: Path):
    path = tmp_path / "log.md"
    log = ReadableLog(path, "Weights", weights_section, resumed_step=0)
    for step in (1, 2, 12):
        log(two_records(step))
        assert f"## Step {step}\n" in path.read_text(encoding="utf-8")  # readable as soon as the step ends
    log(rollout(13))
    assert "Step 13" not in path.read_text(encoding="utf-8")
    whole = path.read_text(encoding="utf-8")
    resumed = ReadableLog(path, "Weights", weights_section, resumed_step=2)
    assert path.read_text(encoding="utf-8") == whole[: whole.index("\n## Step 12")]
    resumed(two_records(12))
    assert path.read_text(encoding="utf-8") == whole
    ReadableLog(path, "Weights", weights_section, resumed_step=0)
    assert path.read_text(encoding="utf-8") == "# Weights\n"


def test_nothing_is_printed_except_to_a_terminal(capsys: pytest.CaptureFixture[str]):
    print_first_completion(two_records())
    assert capsys.readouterr().out == ""
