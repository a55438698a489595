"""The `credit` and `signals` sections: tokens' credit, and how its signals are measured.

A part's defaults are those of its function in `rlassay.credit.parts`.
"""

import ast
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

import rlassay
from rlassay.config.section import Section

PARTS = Path(rlassay.__file__).parent / "credit/parts.py"
"""Source of the credit parts."""
Fraction = Annotated[float, Field(gt=0, le=1)]


@cache
def _signatures() -> dict[str, dict[str, Any]]:
    """Function -> option -> default, read from the source. Importing the functions would load torch."""
    found: dict[str, dict[str, Any]] = {}
    for node in ast.parse(PARTS.read_bytes()).body:
        if isinstance(node, ast.FunctionDef) and node.args.defaults:
            options = node.args.args[-len(node.args.defaults) :]
            defaults = [ast.literal_eval(default) for default in node.args.defaults]
            found[node.name] = {option.arg: value for option, value in zip(options, defaults, strict=True)}
    return found


def _default(part: str, option: str) -> Any:
    """The default that a part's function has for one of its options."""
    return _signatures()[part][option]


class UniformCredit(Section):
    """Every completion token carries its completion's advantage."""

    kind: Literal["uniform"]
    """Selects this section."""


class AttentionWeights(Section):
    """Tokens that attended to the image count more.

    Their weights are 1 / dominance, with mean 1 within each completion.
    """

    kind: Literal["attention_weights"]
    """Selects this section."""
    clip: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=1)]] = _default(
        "attention_weights", "clip"
    )
    """Smallest and largest weight."""
    sigma: float = Field(default=_default("attention_weights", "sigma"), ge=0)
    """Width of the Gaussian that smooths over neighbouring tokens, in tokens; 0 does not smooth."""
    smooth_first: bool = _default("attention_weights", "smooth_first")
    """Smooth, divide by the mean, clip, as the published code does; instead of divide, clip, smooth, divide again."""
    quantile_cap: Fraction | None = _default("attention_weights", "quantile_cap")
    """Weights are held at this quantile of their own completion's weights; null caps nothing."""
    negative_scale: float = Field(default=_default("attention_weights", "negative_scale"), ge=0)
    """The weights of completions whose advantage is not positive are multiplied by it."""


class EntropyFilter(Section):
    """Train only on tokens that were sampled at high entropy."""

    kind: Literal["entropy_filter"]
    """Selects this section."""
    fraction: Fraction = _default("entropy_filter", "fraction")
    """Share of tokens to keep."""
    scope: Literal["completion", "batch"] = _default("entropy_filter", "scope")
    """Whether the share is of each completion, or a quantile of the whole generation batch."""
    choice: Literal["highest", "lowest"] = Field(
        default=_default("entropy_filter", "choice"), exclude_if=lambda given: given == "highest"
    )
    """Keep the tokens of highest entropy, or those of lowest."""


class PerceptionFilter(Section):
    """Train only on tokens that depend most on the image; completions without an image keep all tokens."""

    kind: Literal["perception_filter"]
    """Selects this section."""
    fraction: Fraction = _default("perception_filter", "fraction")
    """Share of each completion's tokens to keep."""


class TrajectoryScaling(Section):
    """Scales each completion by its mean perception, from `min_scale` up; the mean over a generation batch is 1."""

    kind: Literal["trajectory_scaling"]
    """Selects this section."""
    min_scale: float = Field(default=_default("trajectory_scaling", "min_scale"), ge=0, le=1)
    """Scale of the completion that depends least on the image."""
    max_scale: float | None = Field(default=_default("trajectory_scaling", "max_scale"), ge=1)
    """Largest scale; null sets no limit. A limit may lower the mean below 1."""


class CovarianceFilter(Section):
    """Leave out the tokens whose log-probability and advantage covary most, which make the entropy fall."""

    kind: Literal["covariance_filter"]
    """Selects this section."""
    fraction: Fraction = _default("covariance_filter", "fraction")
    """Share of the generation batch's tokens to leave out, one token at least."""
    choice: Literal["largest", "random"] = _default("covariance_filter", "choice")
    """The largest covariances, or random ones between the bounds."""
    bounds: tuple[float, float] = _default("covariance_filter", "bounds")
    """For `random`, the smallest and the largest covariance, both excluded."""


class CovariancePenalty(Section):
    """Penalise tokens for leaving the policy that sampled them.

    These are the tokens whose log-probability and advantage covary most. Its gradient is 0 unless a generation batch is
    used for more than one optimiser step.
    """

    kind: Literal["covariance_penalty"]
    """Selects this section."""
    fraction: Fraction = _default("covariance_penalty", "fraction")
    """Share of the generation batch's tokens to penalise, one token at least."""
    coef: float = Field(default=_default("covariance_penalty", "coef"), ge=0)
    """Weight of the absolute log-ratio in the loss of these tokens."""


class RandomFilter(Section):
    """A control: train only on tokens chosen at random."""

    kind: Literal["random_filter"]
    """Selects this section."""
    fraction: Fraction = _default("random_filter", "fraction")
    """Share of each completion's tokens to keep."""


class ShuffledWeights(Section):
    """A control: permute the credit of the parts before it among each completion's tokens."""

    kind: Literal["shuffled_weights"]
    """Selects this section."""


_Weights = (
    AttentionWeights
    | EntropyFilter
    | PerceptionFilter
    | TrajectoryScaling
    | CovarianceFilter
    | RandomFilter
    | ShuffledWeights
)
CreditConfig = Annotated[
    UniformCredit | _Weights | CovariancePenalty,
    Field(discriminator="kind"),
]
"""One section per key of `rlassay.credit.CREDITS`."""
TokenWeightConfig = Annotated[_Weights, Field(discriminator="kind")]
"""The parts that give weights to tokens."""


class AttentionSignal(Section):
    """Attention from completion tokens to text and image, by groups of layers.

    Credit reads one of the groups.
    """

    layers: Literal["thirds", "paper"] = "thirds"
    """Which layers are early, middle and late. `thirds` divides all layers, `paper` takes two each at the start, middle
    and end."""
    dominance: Literal["early", "middle", "late", "all"] | Annotated[int, Field(ge=1)] = "late"
    """Layers whose attention gives the modality dominance that credit uses. It is a segment, or the number of last
    layers."""


class PerceptionSignal(Section):
    """Change of the log-probabilities when the image is masked."""

    probability: float = Field(default=0.5, gt=0, le=1)
    """Probability with which each block of the image is masked."""
    block: int | None = Field(default=14, ge=1)
    """Side of a block, pixels; null masks whole images, and whole frames of clips."""
    mode: Literal["black", "noise", "blur", "grey"] = "black"
    """Content of a masked block."""
    mask_per: Literal["completion", "prompt"] = Field(
        default="completion", exclude_if=lambda given: given == "completion"
    )
    """`completion` draws a mask for each completion; `prompt` one for all completions of a prompt at a step, whose
    masked prompt is then processed once."""
    estimator: Literal["k3", "kl", "js"] = "k3"
    """`k3` uses the sampled token alone; `kl` and `js` (Jensen-Shannon) the whole vocabulary."""


class SignalsConfig(Section):
    """How to measure the signals that rewards and credit use; a signal that nothing uses is not measured."""

    attention: AttentionSignal = AttentionSignal()
    """Attention mass."""
    perception: PerceptionSignal = PerceptionSignal()
    """Sensitivity to the image."""
