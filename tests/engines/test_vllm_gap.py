"""Another adapter or another template than the trainer's in vLLM stops the run, at the default limit of the gap."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from trl.generation.vllm_generation import VLLMGeneration

from rlassay.config import Study
from rlassay.config.load import read_yaml, resolve_study
from rlassay.data.prepare import run_prepare_data
from rlassay.layout import Layout
from rlassay.models.vllm_engine import SAMPLER_GAP
from rlassay.training.rl import run_rl
from rlassay.training.sft import run_sft
from rlassay.training.vllm import sampler
from rlassay.training.vllm.sampler import SamplerGapError
from tests.engines.test_vllm_study import BETWEEN_ENGINES, ENGINE, VLLM, results
from tests.engines.vllm_process import needs_vllm, vllm_process
from tests.evaluation.tiny import only
from tests.training.short_run import fresh_layout, load_short, policy_of, timeless_metrics
from tests.workflow.test_text_study import SMALLEST

pytestmark = [needs_vllm, pytest.mark.filterwarnings("ignore")]
ADAPTED: dict[str, Any] = VLLM | {"model__lora": {"r": 4}}


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a warm start on which a run trains adapters."""
    folder = tmp_path_factory.mktemp("adapted")
    study, layout = load_short(folder, **ADAPTED), fresh_layout(folder / "results")
    run_sft(study, layout, only(study, "sft"))
    return folder / "results"


def with_adapter_times(factor: float) -> Callable[[Any], Iterator[tuple[str, Any]]]:
    """TRL's weights for vLLM, with another adapter than the trainer's: 0 is none, -1 the opposite one."""
    pushed: Any = VLLMGeneration._iter_named_params  # pyright: ignore[reportPrivateUsage]

    def changed(generation: Any) -> Iterator[tuple[str, Any]]:
        parts: Any = [param for name, param in generation.model.named_parameters() if "lora_B" in name]
        assert parts
        own = [each.data for each in parts]
        for each in parts:
            each.data = factor * each.data
        yield from pushed(generation)
        for each, values in zip(parts, own, strict=True):
            each.data = values

    return changed


@pytest.mark.parametrize("factor", [1.0, 0.0, -1.0], ids=["own", "none", "another"])
def test_another_adapter_stops_the_run(factor: float, adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(adapted, tmp_path / "results")
    study, layout = load_short(tmp_path, **ADAPTED), results(tmp_path)
    monkeypatch.setattr(VLLMGeneration, "_iter_named_params", with_adapter_times(factor))
    with vllm_process():
        if factor == 1.0:
            run_rl(study, layout, policy_of(study))
        else:  # before the first step adapters change nothing
            with pytest.raises(SamplerGapError, match="step 2: the log-probs of vLLM and of the trainer differ by"):
                run_rl(study, layout, policy_of(study))

    gaps = [line[SAMPLER_GAP] for line in timeless_metrics(layout)]
    assert len(gaps) == (4 if factor == 1.0 else 1)
    assert max(gaps) < BETWEEN_ENGINES


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Layout]:
    """A text study whose policy has learned its template."""
    written = read_yaml(Path("config/studies/gsm8k_text.yaml"))
    rl = SMALLEST["rl"] | {"engine": ENGINE | {"max_model_length": 256}}
    sft = SMALLEST["sft"] | {"max_steps": 60, "learning_rate": 1e-2}
    study = resolve_study(written | SMALLEST | {"rl": rl, "sft": sft, "arms": {"base": written["arms"]["base"]}})
    layout = Layout(root=tmp_path_factory.mktemp("text") / study.id)
    run_prepare_data(study, layout)
    run_sft(study, layout, only(study, "sft"))
    return study, layout


@pytest.mark.parametrize("same", [True, False], ids=["own", "another"])
def test_another_template_stops_a_run_on_text(
    same: bool, text: tuple[Study, Layout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    study, layout = text[0], Layout(root=tmp_path / "results")
    shutil.copytree(text[1].root, layout.root)
    generate: Any = VLLMGeneration.generate
    begun: list[str] = []

    def by_another_template(generation: Any, prompts: list[list[int]], *args: Any, **options: Any) -> Any:
        # A template that does not begin the assistant's turn.
        begun.extend(generation.processing_class.convert_ids_to_tokens([ids[-1] for ids in prompts]))
        _, *others = generate(generation, prompts if same else [ids[:-1] for ids in prompts], *args, **options)
        return prompts, *others

    monkeypatch.setattr(VLLMGeneration, "generate", by_another_template)
    with vllm_process():
        if same:
            run_rl(study, layout, only(study, "rl"))
            assert max(line[SAMPLER_GAP] for line in timeless_metrics(layout, only(study, "rl").folder)) < 1e-4
        else:
            with pytest.raises(SamplerGapError, match=r"step 1: the log-probs of vLLM .* or another template than"):
                run_rl(study, layout, only(study, "rl"))
    assert set(begun) == {"<|assistant|>"}


def test_another_template_is_refused_beside_images_before_any_step(
    adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(adapted, tmp_path / "results")
    study, collapse = load_short(tmp_path, **ADAPTED), sampler.collapse_runs
    monkeypatch.setattr(sampler, "collapse_runs", lambda ids, token: collapse(ids, token)[:-1])
    with vllm_process(), pytest.raises(ValueError, match=r"vLLM read a prompt of .* tokens where the processor writes"):
        run_rl(study, results(tmp_path), policy_of(study))
