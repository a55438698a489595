"""One step of plain gradient descent inside the trainer, and what an independent formula says of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlassay.training import CreditGRPOTrainer
from tests.training.tiny_lm import make_trainer, weights

LEARNING_RATE = 0.5
DESCENT: dict[str, Any] = {
    **{"max_steps": 1, "optim": "sgd", "learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant"},
    "max_grad_norm": 1e9,
}


class Step:
    """Inputs of the trainer's loss in one step, and the parameters before and after it.

    Args:
        folder: for the trainer.
        nudge: added to the reference model's parameters, so that it differs from the policy, and changed by position so
            that not only its scale does.
        log_ratio: of the policy over the one that sampled, as a function of a (B, T) tensor; None = 0.
        prepare: called with the trainer before it trains.
        settings: of `make_trainer`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        nudge: float = 0.0,
        log_ratio: Callable[[Tensor], Tensor] | None = None,
        prepare: Callable[[Any], None] | None = None,
        **settings: Any,
    ) -> None:
        trainer = self.trainer = make_trainer(CreditGRPOTrainer, folder, **DESCENT | settings)
        if prepare is not None:
            prepare(trainer)
        if nudge:
            with torch.no_grad():
                for parameter in trainer.ref_model.parameters():
                    flat = torch.arange(parameter.numel(), dtype=torch.float32)
                    parameter.add_(nudge * torch.sin(flat).view_as(parameter))
        self.before = weights(trainer)
        self.inputs: dict[str, Any] = {}
        loss = trainer._compute_loss

        def kept(model: Any, inputs: dict[str, Any]) -> Tensor:
            self.inputs = inputs
            if log_ratio is not None:
                with torch.no_grad():
                    own = self.of_sampled(self.log_probs(self.trainer.model))
                inputs["old_per_token_logps"] = own - log_ratio(own)
            return loss(model, inputs)

        trainer._compute_loss = kept
        trainer.train()
        self.after = weights(trainer)

    @property
    def mask(self) -> Tensor:
        """(B, T), 1 on completion tokens."""
        return self.inputs["completion_mask"].float()

    def log_probs(self, model: Any) -> Tensor:
        """(B, T, V), of the next token at each completion token, by the model's plain forward pass."""
        ids = torch.cat([self.inputs["prompt_ids"], self.inputs["completion_ids"]], dim=1)
        mask = torch.cat([self.inputs["prompt_mask"], self.inputs["completion_mask"]], dim=1)
        length = self.inputs["completion_ids"].shape[1]
        return model(input_ids=ids, attention_mask=mask).logits[:, -length - 1 : -1].log_softmax(dim=2)

    def of_sampled(self, log_probs: Tensor) -> Tensor:
        """(B, T), of the tokens that were sampled."""
        return log_probs.gather(2, self.inputs["completion_ids"].unsqueeze(2)).squeeze(2)

    def expect(self, loss: Callable[[Tensor], Tensor]) -> None:
        """Assert that the step went down the gradient of `loss`, a function of the policy's (B, T, V) log-probs."""
        trainer = self.trainer
        for name, parameter in trainer.model.named_parameters():
            parameter.data.copy_(self.before[name])
            parameter.grad = None
        loss(self.log_probs(trainer.model)).backward()
        moved = False
        for name, parameter in trainer.model.named_parameters():
            expected = self.before[name] - LEARNING_RATE * parameter.grad
            torch.testing.assert_close(self.after[name], expected, rtol=2e-4, atol=2e-6, msg=name)
            moved |= bool((LEARNING_RATE * parameter.grad.abs() > 1e-4).any())
        assert moved, "the step is too small to tell one sign from the other"
