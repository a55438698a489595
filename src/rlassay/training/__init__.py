"""The two training stages, and the plug-in into TRL: `from rlassay.training import CreditGRPOTrainer`.

The imports are lazy: `import rlassay.training` alone loads neither torch nor TRL.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlassay.signals.measuring import SignalPlan
    from rlassay.training.algorithms.choice import GroupPlan
    from rlassay.training.algorithms.dynamic_sampling import DynamicSampling
    from rlassay.training.algorithms.kl_control import KLControl
    from rlassay.training.algorithms.replay import Replay
    from rlassay.training.group_reward import trl_reward
    from rlassay.training.seq2seq import Seq2SeqGRPOTrainer
    from rlassay.training.trainer import CreditGRPOTrainer

__all__ = [
    "CreditGRPOTrainer",
    "DynamicSampling",
    "GroupPlan",
    "KLControl",
    "Replay",
    "Seq2SeqGRPOTrainer",
    "SignalPlan",
    "trl_reward",
]

_MODULES = {
    "CreditGRPOTrainer": "rlassay.training.trainer",
    "DynamicSampling": "rlassay.training.algorithms.dynamic_sampling",
    "GroupPlan": "rlassay.training.algorithms.choice",
    "KLControl": "rlassay.training.algorithms.kl_control",
    "Replay": "rlassay.training.algorithms.replay",
    "Seq2SeqGRPOTrainer": "rlassay.training.seq2seq",
    "SignalPlan": "rlassay.signals.measuring",
    "trl_reward": "rlassay.training.group_reward",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
