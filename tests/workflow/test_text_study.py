"""The text study at its smallest, stage by stage, from data to the page."""

from pathlib import Path

from rlassay.config.load import resolve_study
from rlassay.config.policies import policies
from rlassay.config.settings import Settings
from rlassay.config.load import read_yaml
from rlassay.data.prepare import run_prepare_data
from rlassay.evaluation.generate import run_generate
from rlassay.evaluation.score import run_score
from rlassay.layout import Layout
from rlassay.report.run import run_report
from rlassay.training.rl import run_rl
from rlassay.training.sft import run_sft

SMALLEST = {
    "seeds": [1],
    "model": {"kind": "tiny_lm", "layers": 1, "width": 32},
    "data": {"kind": "gsm8k", "origin": {"kind": "builtin"}, "splits": {"sft": 32, "train": 8, "test": 3}},
    "sft": {"max_steps": 2, "learning_rate": 2e-3, "per_device_train_batch_size": 4},
    "rl": {
        "max_steps": 2,
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 4,
        "num_generations": 2,
        "max_completion_length": 6,
    },
    "evaluation": {"num_samples": 2, "max_completion_length": 6},
}


def test_from_sums_to_a_page_without_a_word_about_options(tmp_path: Path):
    written = read_yaml(Path("config/studies/gsm8k_text.yaml"))
    arms = {name: written["arms"][name] for name in ("base", "brief")}
    study = resolve_study(written | SMALLEST | {"arms": arms})
    layout = Layout(root=tmp_path / study.id)

    counts = run_prepare_data(study, layout)
    for policy in policies(study).values():
        if policy.stage != "model":
            {"sft": run_sft, "rl": run_rl}[policy.stage](study, layout, policy)
        run_generate(study, layout, policy, "test")
        run_score(study, layout, policy, "test")
    content = run_report(study, layout, Settings(study="gsm8k_text"))

    assert {name: count.rows for name, count in counts.items()} == {"sft": 32, "train": 8, "test": 3}
    assert [row.row for row in content.tables["main"].rows] == ["untrained", "sft", "base", "brief"]
    titles = [column.title for column in content.tables["main"].columns]
    assert titles[:2] == ["math accuracy, avg@2", "math accuracy, greedy"]
    assert "parsing" not in content.tables
    page = (layout.report / "index.html").read_text()
    assert "lenient" not in page
    assert "How many" in page
