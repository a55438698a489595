"""The supervised warm start: TRL's `SFTTrainer` on the rows of the `sft` split, which demonstrate a completion."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets  # pyright: ignore[reportMissingTypeStubs]
from peft import PeftModel
from transformers import PrinterCallback
from trl.trainer.sft_config import SFTConfig as SFTArguments
from trl.trainer.sft_trainer import SFTTrainer

from rlassay.config.fingerprints import code_digest
from rlassay.config.policies import Policy
from rlassay.config.study import Study
from rlassay.config.training import SFTConfig
from rlassay.files import sha256
from rlassay.images import StudyImages
from rlassay.layout import Layout
from rlassay.models.policy import ChatFormat, build_policy, chat_format, peft_config, training_rows
from rlassay.records import TRAINING_SPLITS, PromptRow, read_rows
from rlassay.training.process import require_gpus
from rlassay.training.state import RunPlan, open_run

CODE = "rlassay.training.sft"
KEPT_CHECKPOINTS = 2


def run_sft(study: Study, layout: Layout, policy: Policy) -> None:
    """Train the warm start `policy`, or resume it after a kill; its manifest `sft.json` is written last.

    Adapters are merged at the end, so that the saved policy is a full model and RL can train adapters of its own.

    Errors: ValueError for a policy that is no warm start, or for rows that lack a demonstration; RuntimeError for fewer
    GPUs than the study declares; RunBusyError while another process trains it.
    """
    model_config, sft = policy.recipe.model, policy.recipe.sft
    if sft is None or policy.stage != "sft":
        raise ValueError(f"{policy.folder} is not a warm start")
    require_gpus(study.gpus)
    plan = _plan(study, layout, policy, sft)
    with open_run(layout, plan) as run:
        if run.finished:
            return
        rows = demonstrated_rows(layout)
        model, processor = build_policy(model_config, training_rows(layout))
        trainer: Any = SFTTrainer(
            model=model,
            args=sft_arguments(sft, plan.seed, run.checkpoints, on_cpu=study.gpus == 0),
            train_dataset=sft_dataset(rows, chat_format(processor, policy.recipe), layout.data),
            processing_class=processor,
            peft_config=peft_config(model_config),
            callbacks=[run.callback()],
        )
        trainer.remove_callback(PrinterCallback)  # the job's own callback replaces it
        trainer.train(resume_from_checkpoint=run.resume_from)
        if isinstance(trainer.model, PeftModel):
            trainer.model = trainer.model.merge_and_unload()
        run.finish(trainer)


def _plan(study: Study, layout: Layout, policy: Policy, sft: SFTConfig) -> RunPlan:
    return RunPlan(
        policy=policy.folder,
        stage="sft",
        arm=None,
        seed=sft.seed if policy.seed is None else policy.seed,
        max_steps=sft.max_steps,
        gpus=study.gpus,
        fingerprint=policy.fingerprint,
        inputs={"code": code_digest(CODE), **_row_digests(layout)},
    )


def demonstrated_rows(layout: Layout) -> list[PromptRow]:
    """The rows of the `sft` split; ValueError naming the first without a demonstration."""
    path = layout.split("sft")
    rows = list(read_rows(path))
    for number, row in enumerate(rows, 1):
        if row.demonstration is None:
            raise ValueError(f"{path}:{number}: demonstration: missing; every row of the sft split needs one")
    return rows


def sft_dataset(rows: Sequence[PromptRow], chat_format: ChatFormat, data: Path) -> datasets.Dataset:
    """The columns of TRL's prompt-completion format: `prompt`, `completion` and, if any row has some, `images` (RGB).

    Args:
        rows: rows with a demonstration.
        chat_format: turns a row into messages.
        data: folder that the image paths of rows are relative to.
    """
    columns: dict[str, list[Any]] = {
        "prompt": [chat_format.prompt(row) for row in rows],
        "completion": [chat_format.completion(str(row.demonstration)) for row in rows],
    }
    if any(row.media for row in rows):
        columns["images"] = [[item.path for item in row.media] for row in rows]
    datasets.disable_progress_bars()
    library: Any = datasets
    dataset = library.Dataset.from_dict(columns)
    return dataset.with_transform(_OpenImages(data)) if "images" in columns else dataset


class _OpenImages:
    """Opens the images of rows when a batch is drawn; `images` holds their paths until then."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.images = StudyImages(data)

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {**batch, "images": [self.images(paths) for paths in batch["images"]]}

    def __reduce__(self) -> tuple[type["_OpenImages"], tuple[Path]]:
        # `datasets` fingerprints a transform by pickling it; the images in memory are no part of that.
        return type(self), (self.data,)


def sft_arguments(sft: SFTConfig, seed: int, checkpoints: Path, *, on_cpu: bool) -> SFTArguments:
    """TRL's arguments for the `sft` section; the loss counts completion tokens only."""
    return SFTArguments(
        output_dir=str(checkpoints),
        seed=seed,
        max_steps=sft.max_steps,
        learning_rate=sft.learning_rate,
        lr_scheduler_type=sft.lr_scheduler_type,
        warmup_steps=sft.warmup_steps,
        weight_decay=sft.weight_decay,
        max_grad_norm=sft.max_grad_norm,
        per_device_train_batch_size=sft.per_device_train_batch_size,
        gradient_accumulation_steps=sft.gradient_accumulation_steps,
        gradient_checkpointing=sft.gradient_checkpointing,
        save_steps=sft.save_steps,
        save_total_limit=KEPT_CHECKPOINTS,
        completion_only_loss=True,
        max_length=None,
        logging_steps=1,
        use_cpu=on_cpu,
        bf16=not on_cpu,
        dataloader_pin_memory=not on_cpu,
        report_to="none",
        disable_tqdm=True,
    )


def _row_digests(layout: Layout) -> dict[str, str]:
    paths = {name: layout.split(name) for name in TRAINING_SPLITS}
    return {name: sha256(path) for name, path in paths.items() if path.exists()}
