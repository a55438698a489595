"""The two training stages, and the plug-in into TRL: `from rlassay.training import CreditGRPOTrainer`.

The import is lazy: `import rlassay.training` alone loads neither torch nor TRL.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlassay.training.trainer import CreditGRPOTrainer

__all__ = ["CreditGRPOTrainer"]


def __getattr__(name: str) -> Any:
    if name == "CreditGRPOTrainer":
        from rlassay.training.trainer import CreditGRPOTrainer

        return CreditGRPOTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
