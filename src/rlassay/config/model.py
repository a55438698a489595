"""The `model` section: which policy is trained."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from rlassay.config.section import Section, is_false, is_none


class ClipView(Section):
    """How a model is shown video clips."""

    show: Literal["frames", "video"] = "frames"
    """`frames` shows a clip as one image after the other, to any vision model; `video` by the processor's own video
    input, with the times of the frames where the model takes them."""
    max_frames: int | None = Field(default=None, ge=1)
    """Most frames of a clip, evenly spaced among those that the data stage sampled; null shows all of these."""


def _is_default_view(value: object) -> bool:
    return value == ClipView()


class Lora(Section):
    """Low-rank adapters trained in place of the full weights (PEFT's names)."""

    r: int = Field(default=8, ge=1)
    """Rank of the update."""
    lora_alpha: int = Field(default=32, ge=1)
    """Scale of the update: it is multiplied by lora_alpha / r."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Module names, or PEFT's `all-linear`."""
    load_in_4bit: bool = Field(default=False, exclude_if=is_false)
    """QLoRA: the weights below the adapters are loaded in four bits. This takes bitsandbytes (nf4) and a GPU."""
    in_warm_start: bool = Field(default=True, exclude_if=lambda given: given is True)
    """Whether the warm start trains adapters too; false trains every weight there, and adapters in RL alone."""


class Tune(Section):
    """Parts of a vision-language model that train; the defaults are those of the published video recipe."""

    language_model: bool = True
    """The language model, with its embeddings and its head."""
    vision: bool = False
    """The vision tower."""
    connector: bool = True
    """The layers between vision tower and language model."""


class TinyModel(Section):
    """Fields of the built-in models, which have a tokenizer of their own."""

    seed: int = Field(default=0, ge=0)
    """Seed of the initial weights."""
    layers: int = Field(default=4, ge=1)
    """Layers of the language model."""
    width: int = Field(default=128, ge=32, multiple_of=32)
    """Width of the language model; heads are 32 wide."""
    vocab_size: int = Field(default=400, ge=300)
    """Size of the byte-pair vocabulary learned from the study's own training prompts."""
    lora: Lora | None = Field(default=None, exclude_if=is_none)
    """Adapters to train; null trains every weight."""

    @property
    def num_heads(self) -> int:
        """Attention heads of the language model."""
        return self.width // 32

    @field_validator("lora")
    @classmethod
    def _is_whole(cls, lora: Lora | None) -> Lora | None:
        if lora is not None and lora.load_in_4bit:
            raise ValueError("load_in_4bit: built-in models have 32 bits; set it to false, or take a model of the hub")
        return lora


class TinyLM(TinyModel):
    """A Llama of about 1M parameters that reads text only, built from this section alone."""

    kind: Literal["tiny_lm"]
    """Selects this section."""


class TinySeq2Seq(TinyModel):
    """A T5-shaped encoder-decoder of about 0.8M parameters that reads text only.

    It is built from this section alone.
    """

    kind: Literal["tiny_seq2seq"]
    """Selects this section."""
    layers: int = Field(default=2, ge=1)
    """Layers of the encoder, and of the decoder."""


class TinyVLM(TinyModel):
    """A LLaVA-shaped model of about 1M parameters, built from this section alone."""

    kind: Literal["tiny_vlm"]
    """Selects this section."""
    vision_layers: int = Field(default=2, ge=1)
    """Layers of the CLIP vision tower."""
    vision_width: int = Field(default=64, ge=16, multiple_of=16)
    """Width of the vision tower; heads are 16 wide."""
    patch_size: int = Field(default=4, ge=1)
    """Side of a square image patch, pixels."""
    image_size: int = Field(default=16, ge=4)
    """Side of the square input image, pixels; a multiple of patch_size."""
    clips: ClipView = Field(default=ClipView(), exclude_if=_is_default_view)
    """How it is shown video clips."""

    @field_validator("clips")
    @classmethod
    def _takes_frames(cls, clips: ClipView) -> ClipView:
        if clips.show == "video":
            raise ValueError("show: the built-in model has no video input; take 'frames', or a model of the hub")
        return clips


class HubModel(Section):
    """Any causal LM, image-text-to-text model or encoder-decoder, by hub name or local path."""

    kind: Literal["hub"]
    """Selects this section."""
    architecture: Literal["causal", "seq2seq"] = Field(default="causal", exclude_if=lambda given: given == "causal")
    """`seq2seq` for an encoder-decoder (T5, BART, Pegasus, mBART); `causal` for any other, with or without images."""
    name: str = Field(min_length=1)
    """Hub name, or path of a local folder."""
    revision: str | None = None
    """Commit, tag or branch of the hub repository; pin it, since a branch moves."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Type of the weights."""
    attn_implementation: (
        Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"]
        | Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    ) = "sdpa"
    """Attention kernel, in transformers' words, or the hub name of one, such as `kernels-community/flash-attn2`."""
    trust_remote_code: bool = False
    """Whether code shipped with the model may run on this machine."""
    lora: Lora | None = None
    """Adapters to train; null trains every weight."""
    clips: ClipView = Field(default=ClipView(), exclude_if=_is_default_view)
    """How it is shown video clips."""

    @property
    def in_4bit(self) -> bool:
        """Whether the weights are loaded in four bits."""
        return self.lora is not None and self.lora.load_in_4bit


ModelConfig = Annotated[TinyVLM | TinyLM | TinySeq2Seq | HubModel, Field(discriminator="kind")]


class Reference(Section):
    """A model beside the arms, evaluated with their prompts and decoding.

    The tables show it as a row.
    """

    label: str | None = None
    """Its name on the page; the key by default."""
    path: str = Field(min_length=1)
    """A folder of a model, adapter or checkpoint, or a name on the hub."""
    revision: str | None = None
    """Commit, tag or branch of the hub repository."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type of the weights; null takes that of the baseline's model."""
    compare: bool = False
    """Whether the page compares each arm with it in verdicts; otherwise it is a row and no more."""
