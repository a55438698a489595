# pyright: basic
# (TRL leaves most attributes of a trainer open)
"""TRL's trainer with a choice of KL penalties, and added parts' state in checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer

from rlassay.credit import CreditPart
from rlassay.layout import checkpoint as folder_of
from rlassay.training.algorithms.kl_control import KLControl, reference_model
from rlassay.training.algorithms.token_penalty import with_penalty

FILE = "rlassay_state.pt"
"""File in a checkpoint's folder with the states of all parts."""


class KLTrainer(GRPOTrainer):
    """`trl.GRPOTrainer` with `kl`, a `KLControl` in place of TRL's own KL term; the base of `CreditGRPOTrainer`.

    Without `kl` it is `GRPOTrainer`. A subclass has to subtract a penalty in the reward, see `KLControl.of_reward`.
    `xp_stateful` maps names to parts whose state a checkpoint must include: `beta`, and a reference model that
    `sync_ref_model` moves. `xp_parts` write and read files of their own in the checkpoint's folder.

    Raises (`__init__`, beside TRL's errors):
        ValueError: `kl` beside `beta`, without `args`, or in the reward with `normalize_then_sum`.
    """

    def __init__(self, *args: Any, kl: KLControl | None = None, **kwargs: Any) -> None:
        self.xp_kl = kl
        self.xp_stateful: dict[str, Any] = {}
        self.xp_parts: list[Any] = []
        self.xp_per_token_logps: Tensor | None = None
        with reference_model(kwargs["args"] if "args" in kwargs else [*args, None, None, None][2], kl):
            super().__init__(*args, **kwargs)
        if kl is not None:
            self.xp_stateful["beta"] = kl.controller
            if kl.where == "reward" and self.multi_objective_aggregation == "normalize_then_sum":
                raise ValueError(
                    "kl: where is 'reward', but multi_objective_aggregation 'normalize_then_sum' leaves no total "
                    "reward to take nats from; expected 'sum_then_normalize', or where 'loss'"
                )
        arguments: Any = self.args
        if arguments.sync_ref_model:
            self.xp_stateful["reference"] = self.ref_model

    @property
    def xp_kl_credit(self) -> list[CreditPart]:
        """The credit parts that weigh the KL penalty."""
        return [] if self.xp_kl is None else self.xp_kl.credit

    def xp_media_inputs(self, ids: Tensor, completion_length: int) -> dict[str, Tensor]:
        """Inputs of the model besides tokens and TRL's images; `VideoTrainer` adds those of clips."""
        return {}

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Called by TRL; keeps the log-probabilities of the newest call, which in the loss are the policy's."""
        scored = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self.xp_per_token_logps = scored[0]
        return scored

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """TRL's loss; with `kl`, that penalty instead of TRL's own; plus the penalty that credit gives tokens."""
        if self.xp_kl is None:
            loss = super()._compute_loss(model, inputs)
        else:
            loss = self.xp_kl.loss(self, super()._compute_loss, model, inputs)
        return with_penalty(self, loss, inputs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = folder_of(Path(self._get_output_dir(trial=trial)), self.state.global_step)
            save_parts(folder, self.xp_stateful)
            for part in self.xp_parts:
                part.save(folder)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            load_parts(Path(checkpoint), self.xp_stateful)
            for part in self.xp_parts:
                part.load(Path(checkpoint))


def save_parts(checkpoint: Path, parts: Mapping[str, Any]) -> None:
    """Write the state of every part into a checkpoint; without parts, no file.

    A part is anything with `state_dict` and `load_state_dict`: a controller, a model, a guard.
    """
    if parts:
        torch.save({name: part.state_dict() for name, part in parts.items()}, checkpoint / FILE)


def load_parts(checkpoint: Path, parts: Mapping[str, Any]) -> None:
    """Load the state of every part from a checkpoint.

    Errors: ValueError if the checkpoint lacks the state of a part, because its run had no such part.
    """
    if not parts:
        return
    file = checkpoint / FILE
    saved: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True) if file.exists() else {}
    if absent := ", ".join(sorted(set(parts) - set(saved))):
        raise ValueError(f"{checkpoint}: no state of {absent}, so that training cannot continue exactly from it")
    for name, part in parts.items():
        part.load_state_dict(saved[name])
