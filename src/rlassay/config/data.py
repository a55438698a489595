"""The `data` section: a class per kind of source, and limits that they share."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rlassay.config.section import Section

Count = Annotated[int, Field(ge=1)]
RepeatRule = Literal["exact", "near", "off"]
AnswerIs = Literal["letter", "text", "index"]
SplitName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]


class PromptLimit(Section):
    """Prompts of too many tokens are refused and counted."""

    tokens: int = Field(ge=1)
    """Most tokens of a prompt, with the chat template and placeholders of its images.

    A prompt counts in its longest form, with the system turn that states the completion format.
    """
    model: str = Field(min_length=1)
    """Hub name, or path of a local folder, of the model whose processor counts."""
    revision: str | None = None
    """Commit, tag or branch of the hub repository; pin it, since a branch moves."""
    trust_remote_code: bool = False
    """Whether code shipped with the processor may run on this machine."""


class DataSection(Section):
    """Fields of all sources."""

    max_prompt_length: PromptLimit | None = None
    """Refuses prompts that are too long for a model; null takes prompts of any length."""
    duplicates: RepeatRule = "near"
    """Which repeated prompts of a split are refused: `exact`, also `near`, or none (`off`).

    Near prompts have the same words and formulas with the same media, or also the same answer and images that look
    alike.
    """
    leaks: RepeatRule = "near"
    """Which training rows are refused because of an evaluation split.

    They are those with `exact` prompts of it, also `near` ones, or none (`off`). `exact` and `near` also refuse
    training rows that show an image or clip of an evaluation split.
    """
    max_rejected: float = Field(default=0.5, ge=0, le=1)
    """Largest share of a split's records that may be rejected, for any reason; above it the stage stops."""


class Digits(DataSection):
    """Two real handwritten digits side by side and a question about them, with lettered options."""

    kind: Literal["digits"]
    """Selects this section."""
    duplicates: RepeatRule = "exact"
    """Which repeated prompts are refused; small drawn digits look alike too often for `near`."""
    leaks: RepeatRule = "exact"
    """Which training rows are refused because of an evaluation split."""
    seed: int = Field(default=0, ge=0)
    """Seed of the image split, the pairs, the questions and the demonstrations."""
    splits: dict[SplitName, Count] = Field(default={"sft": 6000, "train": 2000, "test": 400})
    """Rows per split; `sft` and `train` share their digit images, every other split draws on held-out digits."""
    held_out: float = Field(default=0.3, gt=0, lt=1)
    """Share of the 1,797 digit images kept for the splits other than `sft` and `train`."""
    num_choices: int = Field(default=4, ge=2, le=10)
    """Lettered options per question."""
    guess_share: float = Field(default=0.40, ge=0, le=1)
    """Share of demonstrations that answer immediately with a guessed letter."""
    misread_share: float = Field(default=0.15, ge=0, le=1)
    """Share of demonstrations that think first and then name a wrong letter; the rest think and are right."""


class Jsonl(DataSection):
    """Rows that are already in this project's format: `<folder>/<split>.jsonl` and the images they name."""

    kind: Literal["jsonl"]
    """Selects this section."""
    folder: str = Field(min_length=1)
    """Folder of the files, which is also the root that image paths may not leave."""
    splits: dict[SplitName, Count | None] = Field(default={"train": None, "test": None})
    """Rows to take from the head of each file; null takes all."""


class ImagePolicy(Section):
    """Limits on the size of images; all are converted to RGB, and rows whose image is refused are counted."""

    max_side: int = Field(default=1024, ge=1)
    """Largest width and height, in pixels."""
    too_large: Literal["drop", "resize"] = "drop"
    """Whether a larger image drops its row, or is scaled down to fit."""
    min_pixels: int | None = Field(default=None, ge=1)
    """Images of fewer pixels are scaled up to as many, proportions kept; null leaves them small."""
    max_pixels: int | None = Field(default=None, ge=1)
    """Images of more pixels are scaled down to as many, proportions kept; null sets no limit but `max_side`."""


class ClipPolicy(Section):
    """Number and size of the frames that are shown of a clip; the `meta` of a record overrides the counts."""

    base_interval: float = Field(default=2.0, gt=0)
    """Seconds of the clip for each frame that is shown."""
    video_fps: float | None = Field(default=None, gt=0)
    """Frames that are shown for each second of the clip, in place of `base_interval`; null leaves it to that."""
    min_frames: int = Field(default=4, ge=1)
    """Fewest frames; a clip that has fewer shows all of them."""
    max_frames: int = Field(default=8, ge=1)
    """Most frames."""
    min_pixels: int | None = Field(default=None, ge=1)
    """Frames of fewer pixels are scaled up to as many, proportions kept; null leaves them small."""
    max_pixels: int | None = Field(default=None, ge=1)
    """Frames of more pixels are scaled down to as many, proportions kept; null leaves them large."""

    @model_validator(mode="after")
    def _in_order(self) -> "ClipPolicy":
        for low, high in (("min_frames", "max_frames"), ("min_pixels", "max_pixels")):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                raise ValueError(f"{low}: got {least}, more than {high} = {most}; lower it, or raise {high}")
        return self


def _is_default_policy(value: object) -> bool:
    return value == ClipPolicy()


class Files(Section):
    """Tables in files, one or more per split."""

    kind: Literal["parquet", "json"]
    """The files' format; `json` reads one object per line, or a list of objects."""
    folder: str = Field(default=".", min_length=1)
    """The data root. File names are relative to it, and image paths may not leave it."""
    files: dict[SplitName, str] = Field(default={})
    """File name or pattern of each split; a split that is not named here takes `<split>*.<kind>*`."""


class Hub(Section):
    """A dataset of the Hugging Face hub."""

    kind: Literal["hub"]
    """Selects this section."""
    name: str = Field(min_length=1)
    """Its name, or the path of a dataset folder."""
    revision: str = Field(min_length=1)
    """Commit, tag or branch; a commit keeps the rows the same for ever."""
    config: str | None = None
    """Which of the dataset's configurations."""
    names: dict[SplitName, str] = Field(default={})
    """The hub's name of each split where it differs, such as `test: validation`."""


class Builtin(Section):
    """Rows in the source's own schema that are generated, without any download."""

    kind: Literal["builtin"]
    """Selects this section."""
    seed: int = Field(default=0, ge=0)
    """Seed of the rows."""


class TableSection(DataSection):
    """Fields of all sources in tables."""

    origin: Annotated[Files | Hub | Builtin, Field(discriminator="kind")]
    """The table's files, hub dataset or generator."""
    splits: dict[SplitName, Count | None] = Field(default={"train": None, "test": None})
    """Usable rows to take from the head of each split; null takes all."""
    images: ImagePolicy = ImagePolicy()
    """Limits on the size of images."""


class Columns(Section):
    """The table's column for each field of a row."""

    question: str = "question"
    """The question."""
    answer: str = "answer"
    """The gold answer. It is text, or for rows with choices an option's letter, text or 0-based number."""
    answer_is: AnswerIs | None = None
    """Form of `answer` in rows with choices: an option's letter, text or 0-based `index`.

    Null decides row by row, and stops at a number that is the index of one option and the text of another.
    """
    choices: str | None = None
    """A list of option texts."""
    images: str | None = None
    """An image, or a list of images. Each is bytes, a path below the data root, or a mapping with `bytes` or `path`."""
    demonstration: str | None = None
    """A completion to imitate, for the `sft` split."""
    meta: tuple[str, ...] = ()
    """Columns that are kept with the row as they are: texts, numbers and truth values."""


class Table(TableSection):
    """Any table, by the names of its columns."""

    kind: Literal["table"]
    """Selects this section."""
    columns: Columns | None = None
    """The columns' names; null takes those of `preset`, or the defaults."""
    preset: Literal["image_problem_solution"] | None = None
    """A known shape: `image`, `problem` and `solution`. The `<answer>` block of the solution, or its whole text, is the
    gold answer."""


class Aokvqa(TableSection):
    """A-OKVQA: image, question, choices, correct_choice_idx, rationales, question_id."""

    kind: Literal["aokvqa"]
    """Selects this section."""
    question_ids: str | None = None
    """A text file with one question id per line; only those are taken."""


class Gsm8k(TableSection):
    """Word problems: `question`, and `answer` with the working and then `#### <number>`."""

    kind: Literal["gsm8k"]
    """Selects this section."""


class Summarization(TableSection):
    """Documents and their summaries."""

    kind: Literal["summarization"]
    """Selects this section."""
    document: str = Field(default="document", exclude_if=lambda given: given == "document")
    """The table's column for the document."""
    summary: str = Field(default="summary", exclude_if=lambda given: given == "summary")
    """The table's column for the summary."""


class RecordSection(DataSection):
    """Fields of all sources whose records are JSON.

    A `.jsonl` file has one object per line, a `.json` file one list of objects.
    """

    folder: str = Field(min_length=1)
    """The data root. File names are relative to it, and media paths may not leave it."""
    files: dict[SplitName, str] = Field(default={})
    """File of each split; a split that is not named here takes `<split>.jsonl`."""
    splits: dict[SplitName, Count | None] = Field(default={"train": None, "test": None})
    """Usable rows to take from the head of each file; null takes all."""
    images: ImagePolicy = ImagePolicy()
    """Limits on the size of images."""
    clips: ClipPolicy = Field(default=ClipPolicy(), exclude_if=_is_default_policy)
    """Which frames of video clips are shown."""


class JsonlPrompts(RecordSection):
    """Records with a prompt, an answer and lists of image and video paths."""

    kind: Literal["jsonl_prompts"]
    """Selects this section."""
    prompt_key: str = "prompt"
    """Key of the prompt; `<image>` and `<video>` marks are taken out, since media always come first."""
    answer_key: str = "answer"
    """Key of the gold answer."""
    image_key: str = "images"
    """Key of the image paths: a list, one path, or nothing."""
    video_key: str = "videos"
    """Key of the video paths: a list, one path, or nothing."""
    image_dir: str = "."
    """Folder below `folder` to which media paths are relative."""


class Conversations(RecordSection):
    """Records with `conversations`, `image` or `video`, and `meta` about the frames.

    The conversations have one human turn and one gpt turn.
    """

    kind: Literal["conversations"]
    """Selects this section."""


class MovingDigits(DataSection):
    """Generated mp4 files of a handwritten digit that performs two actions.

    They have the schema of `conversations`.
    """

    kind: Literal["moving_digits"]
    """Selects this section."""
    duplicates: RepeatRule = "exact"
    """Which repeated prompts are refused."""
    leaks: RepeatRule = "exact"
    """Which training rows are refused because of an evaluation split."""
    seed: int = Field(default=0, ge=0)
    """Seed of the image split, the clips and the demonstrations."""
    splits: dict[SplitName, Count] = Field(default={"sft": 6000, "train": 1500, "test": 400})
    """Rows per split; `sft` and `train` share their digit images, every other split draws on held-out digits."""
    guess_share: float = Field(default=0.40, ge=0, le=1)
    """Share of demonstrations that answer immediately with guessed actions."""
    misread_share: float = Field(default=0.15, ge=0, le=1)
    """Share of demonstrations that think first and then name a wrong action; the rest think and are right."""
    clips: ClipPolicy = ClipPolicy(base_interval=0.5)
    """Which frames of the clips are shown: their `meta` allows 4 to 6 of 12."""


class PackageTexts(DataSection):
    """Fields of the sources that read the docstrings of installed packages."""

    packages: tuple[str, ...] = Field(default=("numpy", "scipy", "pandas"), min_length=1)
    """Packages whose source files are read; none is imported."""


class Docstrings(PackageTexts):
    """Summarization made from installed packages: a docstring's body and its first line."""

    kind: Literal["docstrings"]
    """Selects this section."""
    splits: dict[SplitName, Count] = Field(default={"sft": 500, "train": 500, "test": 100})
    """Rows per split; `sft` and `train` share no docstring with the other splits, nor with each other."""
    max_words: int = Field(default=200, ge=20)
    """A document is cut after as many words."""


class Headlines(PackageTexts):
    """Headlines for sentences of installed packages' docstrings: the first five content words of each sentence."""

    kind: Literal["headlines"]
    """Selects this section."""
    splits: dict[SplitName, Count] = Field(default={"sft": 4000, "train": 1000, "test": 200})
    """Rows per split; `sft` and `train` share no sentence with the other splits, nor with each other."""


DataConfig = Annotated[
    Digits
    | Jsonl
    | Table
    | Aokvqa
    | JsonlPrompts
    | Conversations
    | MovingDigits
    | Gsm8k
    | Summarization
    | Docstrings
    | Headlines,
    Field(discriminator="kind"),
]
