"""The `credit` and `signals` sections: how credit is spread over tokens, and how what it rests on is measured."""

from typing import Annotated, Literal

from pydantic import Field

from rlassay.config.section import Section

Fraction = Annotated[float, Field(gt=0, le=1)]


class UniformCredit(Section):
    """Every completion token carries its completion's advantage."""

    kind: Literal["uniform"]
    """Selects this section."""


class AttentionWeights(Section):
    """Tokens that attended to the image count more: weights 1 / dominance, with mean 1 within each completion."""

    kind: Literal["attention_weights"]
    """Selects this section."""
    clip: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=1)]] = (0.2, 3.0)
    """Smallest and largest weight."""
    sigma: float = Field(default=0.0, ge=0)
    """Width of the Gaussian that smooths over neighbouring tokens, in tokens; 0 does not smooth."""
    smooth_first: bool = False
    """Smooth, divide by the mean, clip (the published code), in place of divide, clip, smooth, divide again."""
    quantile_cap: Fraction | None = None
    """Weights are held at this quantile of their own completion's weights; null caps nothing."""
    negative_scale: float = Field(default=1.0, ge=0)
    """The weights of completions whose advantage is not positive are multiplied by it."""


class EntropyFilter(Section):
    """Only tokens that were drawn with high entropy are learned from."""

    kind: Literal["entropy_filter"]
    """Selects this section."""
    fraction: Fraction = 0.2
    """Share of tokens that are kept."""
    scope: Literal["completion", "batch"] = "completion"
    """Whether it is a share of each completion, or a quantile of the whole generation batch."""


class PerceptionFilter(Section):
    """Only tokens that owe much to the image are learned from; completions without an image keep all of theirs."""

    kind: Literal["perception_filter"]
    """Selects this section."""
    fraction: Fraction = 0.2
    """Share of each completion's tokens that are kept."""


class TrajectoryScaling(Section):
    """Completions that owe more to the image count more, with a mean scale of 1 over the generation batch."""

    kind: Literal["trajectory_scaling"]
    """Selects this section."""
    min_scale: float = Field(default=0.8, ge=0, le=1)
    """Scale of the completion that owes the image least."""
    max_scale: float | None = Field(default=None, ge=1)
    """Largest scale; null leaves it to the mean of 1, which a limit may bring down."""


class RandomFilter(Section):
    """A control: tokens drawn at random are learned from."""

    kind: Literal["random_filter"]
    """Selects this section."""
    fraction: Fraction = 0.2
    """Share of each completion's tokens that are kept."""


class ShuffledWeights(Section):
    """A control: the credit of the parts before it is dealt out anew among the tokens of each completion."""

    kind: Literal["shuffled_weights"]
    """Selects this section."""


CreditConfig = Annotated[
    UniformCredit
    | AttentionWeights
    | EntropyFilter
    | PerceptionFilter
    | TrajectoryScaling
    | RandomFilter
    | ShuffledWeights,
    Field(discriminator="kind"),
]


class AttentionSignal(Section):
    """Attention from completion tokens to text and image."""

    layers: Literal["thirds", "paper"] = "thirds"
    """How layers are parted into early, middle and late: by thirds, or two layers each at the start, middle and end."""
    dominance: Literal["early", "middle", "late", "all"] | Annotated[int, Field(ge=1)] = "late"
    """Layers whose attention gives the dominance of text that credit goes by: a segment, or how many of the last."""


class PerceptionSignal(Section):
    """Log-probabilities with the image against those with a masked one."""

    probability: float = Field(default=0.5, gt=0, le=1)
    """Probability with which each block of the image is masked."""
    block: int = Field(default=14, ge=1)
    """Side of a block, pixels."""
    mode: Literal["black", "noise", "blur", "grey"] = "black"
    """What takes the place of a masked block."""
    estimator: Literal["k3", "kl", "js"] = "k3"
    """From the sampled token alone; or from the whole vocabulary: the KL or the Jensen-Shannon divergence."""


class SignalsConfig(Section):
    """How the signals are measured that rewards and credit go by; what nothing needs is not measured."""

    attention: AttentionSignal = AttentionSignal()
    """Attention mass."""
    perception: PerceptionSignal = PerceptionSignal()
    """Sensitivity to the image."""
