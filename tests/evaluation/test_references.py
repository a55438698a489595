"""References: any model folder or adapter, evaluated as the arms are, known by content, and no verdict unless asked."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel, get_peft_model

from rlassay.config import Study, StudyError
from rlassay.config.load import resolve_study
from rlassay.config.model import Lora
from rlassay.config.policies import policies
from rlassay.evaluation.generate import run_generate
from rlassay.models.policy import adapter_folder, build_policy, load_policy, peft_config
from rlassay.models.vllm_engine import served
from rlassay.records import CompletionRow, read_rows
from rlassay.training.sft import run_sft
from tests.config.studies import content
from tests.evaluation.tiny import SMALL, layout_with_data, only
from tests.models.hubs import hub, row, text_model


def with_reference(folder: Path, **keys: Any) -> Study:
    return resolve_study(content(**SMALL | {"references": {"earlier": {"path": str(folder), **keys}}}))


def test_a_reference_answers_as_the_policy_whose_weights_it_names(tmp_path: Path):
    plain = resolve_study(content(**SMALL))
    layout = layout_with_data(tmp_path / "results")
    run_sft(plain, layout, only(plain, "sft"))
    weights = shutil.copytree(layout.state(only(plain, "sft").folder) / "weights", tmp_path / "kept" / "weights")

    study = with_reference(weights)
    run_generate(plain, layout, only(plain, "sft"), "test")
    run_generate(study, layout, only(study, "reference"), "test")

    answers = [
        list(read_rows(layout.completions(only(study, stage).folder, "test"), CompletionRow))
        for stage in ("sft", "reference")
    ]
    assert answers[0] == answers[1]


def test_other_content_is_another_policy_and_no_arm_changes(tmp_path: Path):
    folder = text_model(tmp_path / "model")
    before = policies(with_reference(folder))
    (folder / "generation_config.json").write_text("{}")
    after = policies(with_reference(folder))

    (name,) = before.keys() - after.keys()
    assert name.startswith("references/earlier/")
    assert [one for one in before if one != name] == list(policies(resolve_study(content(**SMALL))))
    assert [one.stage for one in before.values()][:3] == ["model", "reference", "sft"]


def test_an_adapter_is_opened_with_its_base(tmp_path: Path):
    base = hub(text_model(tmp_path / "base"))
    model, _ = build_policy(base, [row()])
    config = peft_config(hub(tmp_path / "base", Lora(r=2)))
    assert config is not None
    adapted: Any = get_peft_model(model, config)
    adapted.save_pretrained(str(tmp_path / "adapter"))

    # The folder of the adapter goes to the engine, which loads the base that it names: vLLM loads no adapter alone.
    assert adapter_folder(hub(tmp_path / "base")) is None
    folder = adapter_folder(hub(tmp_path / "adapter"))
    assert folder is not None
    assert folder == tmp_path / "adapter"
    opened, processor = load_policy(hub(tmp_path / "adapter"), folder)
    assert isinstance(opened, PeftModel)
    loaded = served(opened, processor, name=str(folder), weights=folder, revision=None, copy=tmp_path / "copy")
    assert (loaded.model, loaded.adapter, loaded.rank) == (str(tmp_path / "base"), folder, 2)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"earlier": {"path": "./gone"}}, "references.earlier.path: no such folder: './gone'"),
        ({"base": {"path": "owner/name"}}, "references.base: an arm has this name too; choose another"),
    ],
)
def test_mistakes_are_named(keys: dict[str, Any], problem: str):
    with pytest.raises(StudyError) as caught:
        resolve_study(content(references=keys))
    assert caught.value.problems[0].startswith(problem)


def test_a_folder_without_a_model_is_refused(tmp_path: Path):
    with pytest.raises(StudyError, match=r"holds no model: neither config\.json nor adapter_config\.json"):
        with_reference(tmp_path)
