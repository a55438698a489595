"""Ingest a source: each raw example becomes an accepted row or a reasoned rejection.

`Ingestor.ingest_split` reads the examples of one split; `Ingestor.ingest` takes one example through all steps. Splits
are ingested in `reading_order`, since a training row is compared with the rows of every evaluation split.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from PIL.Image import Image

from rlassay.bar import progress_bar
from rlassay.config import StudyError
from rlassay.config.data import PromptLimit, RepeatRule
from rlassay.data.clips import ClipKey, EncodedClip, encode_clip
from rlassay.data.duplicates import PromptSignature, SplitIndex, digest_of, plain_digest, text_digest
from rlassay.data.images import EncodedImage, ImageStore, encode_image, media_path, perceptual_hash
from rlassay.data.outcomes import Accepted, Outcome, Rejected
from rlassay.data.raw_examples import RawExample, RowRejectedError, Source, UnsuitableRowError, rejecting
from rlassay.data.row_checks import checked_row, content_id
from rlassay.files import sha256_of
from rlassay.records import TRAINING_SPLITS, Media, PromptRow, RefusedPair, parse_row, row_line

MAX_PROBLEMS = 20
"""Problems of a strict source that an error lists; the others are only counted."""
LONGEST_SHOWN = 300
"""Characters kept of a refused duplicate's or leak's texts."""
LengthCheck = Callable[[PromptRow, Sequence[Image], str], str | None]
"""The reason why a row is too long, or None. It takes the row, its images, and its place in the source."""


def reading_order(splits: Iterable[str]) -> list[str]:
    """The splits in the order in which they are ingested: evaluation splits first.

    Thus a training row that is also in an evaluation split is rejected, and never changes that split. `sft` and `train`
    may share rows, since reinforcement learning may continue on the rows of the warm start.
    """
    return sorted(splits, key=lambda split: split in TRAINING_SPLITS)


class Problems(list[str]):
    """Problems of a strict source: the first MAX_PROBLEMS sentences, and the number of others."""

    more = 0

    def note(self, problem: str) -> None:
        """Add a sentence, or only count it once the list is full."""
        if len(self) < MAX_PROBLEMS:
            self.append(problem)
        else:
            self.more += 1

    def check(self) -> None:
        """Raise StudyError with all problems, if there are any."""
        if self:
            raise StudyError([*self, *([f"... and {self.more} more"] if self.more else [])])


@dataclass(kw_only=True)
class Ingestor:
    """Turns the raw examples of a study's source into rows, one split after the other."""

    source: Source
    """The source of the examples."""
    images: ImageStore
    """Receives the images of accepted rows."""
    too_long: LengthCheck
    """Rejects prompts with too many tokens."""
    duplicates: RepeatRule = "near"
    """Which repeated prompts of a split are rejected."""
    leaks: RepeatRule = "near"
    """Which training rows are rejected because of an evaluation split."""
    splits: dict[str, SplitIndex] = field(default_factory=dict[str, SplitIndex])
    """Signatures of the rows accepted so far, by split."""
    clips: dict[ClipKey, tuple[Media, str]] = field(default_factory=dict[ClipKey, tuple[Media, str]])
    """Facts about the clips of accepted rows, and paths of their film strips. Several rows decode a clip once."""

    def ingest_split(self, split: str, limit: int | None, done: Iterable[Outcome] = ()) -> Iterator[Outcome]:
        """The outcome of each record of a split; a record is read when its outcome is requested.

        Args:
            split: which split.
            limit: number of rows to accept; None accepts all usable ones.
            done: outcomes of the first records from an earlier attempt; they count, and are not yielded again.

        Errors: StudyError if fewer rows than `limit` are usable. A strict source also raises it at the end if any
            record is invalid, listing all problems; from the first problem on, no outcome is yielded.
        """
        earlier = Counter(isinstance(outcome, Accepted) for outcome in done)
        accepted, problems = earlier[True], Problems()
        examples = islice(self.source.examples[split](), earlier.total(), None)
        with progress_bar(split, limit, "row", done=accepted) as bar:
            while accepted != limit and (example := next(examples, None)) is not None:
                outcome = self._outcome(example, split, problems)
                if outcome is not None and not problems:
                    yield outcome
                accepted += isinstance(outcome, Accepted)
                bar.update(isinstance(outcome, Accepted))
        problems.check()
        if limit is not None and accepted < limit:
            raise StudyError(
                [f"data.splits.{split}: asks for {limit} rows, but only {accepted} are usable; lower it, or null"]
            )

    def ingest(self, example: RawExample, split: str) -> Accepted:
        """Check an example, reject long and repeated ones, store its images, and return its row.

        Errors: RowRejectedError with the reason; nothing of a rejected example is stored or indexed.
        """
        with rejecting(example.where):
            # 1. Its content and its gold answer.
            row = checked_row(example, split)
            # 2. Its media, under names that depend on their content only.
            encoded = [self._encode(image, example) for image in example.images]
            clips = [self._encode_clip(video, example) for video in example.videos]
            row = row.model_copy(update={"media": _content_named(encoded, clips)})
            # 3. Its length.
            frames = [frame for clip in clips for frame in clip.frames]
            if reason := self.too_long(row, [one.image for one in encoded] + frames, example.where):
                raise UnsuitableRowError(reason)
            # 4. Duplicates and leaks, by its signature.
            signature = PromptSignature(
                text=text_digest(row),
                plain=plain_digest(row),
                answer=digest_of(row.answer),
                exact=(*(one.digest for one in encoded), *(clip.digest for clip in clips)),
                hashes=tuple(perceptual_hash(one.image) for one in encoded),
                prompt_id=example.prompt_id,
            )
            try:
                self._reject_repeated(signature, split)
            except UnsuitableRowError as repeated:
                repeated.pair = _pair(row, example, repeated)
                raise
        # 5. It is accepted: only now is anything stored.
        images = tuple(self.images.add(one.content, one.suffix, example.jpeg_name) for one in encoded)
        self._index(split).add(signature)
        shown, stored = zip(*(self._store(clip) for clip in clips), strict=True) if clips else ((), ())
        key = self._key(example.prompt_id or content_id(row), split)
        row = row.model_copy(update={"prompt_id": key, "media": (*images, *shown)})
        files = {image.path: one.digest for image, one in zip(images, encoded, strict=True)}
        for each in stored:
            files |= each
        return Accepted(row=row_line(row), signature=signature, images=tuple(files), digests=tuple(files.values()))

    def restore(self, outcome: Outcome, split: str) -> bool:
        """Whether an outcome of an earlier attempt is still valid, its images unchanged; if so, its row is indexed."""
        if isinstance(outcome, Rejected):
            return True
        images = zip(outcome.images, outcome.digests, strict=True)
        if not all(self.images.restore(path, digest) for path, digest in images):
            return False
        self._index(split).add(outcome.signature)
        if self.duplicates == "off":
            self._key(parse_row(outcome.row.encode("utf-8"), split).prompt_id, split)
        return True

    def _outcome(self, example: RawExample | RowRejectedError, split: str, problems: Problems) -> Outcome | None:
        """The outcome of a record; None if a strict source has an invalid one, which is added to `problems`."""
        try:
            if isinstance(example, RowRejectedError):
                raise example
            return self.ingest(example, split)
        except UnsuitableRowError as unsuitable:
            return _rejection(unsuitable)
        except RowRejectedError as rejected:
            if not self.source.strict:
                return _rejection(rejected)
            detail = f" ({rejected.detail})" if rejected.detail else ""
            problems.note(f"{_location(example)}{rejected}{detail}")
            return None

    def _encode(self, image: object, example: RawExample) -> EncodedImage:
        return encode_image(image, example.media_root, self.source.images, jpeg=example.jpeg_name is not None)

    def _encode_clip(self, video: str | bytes, example: RawExample) -> EncodedClip:
        return encode_clip(video, example.media_root, self.source.clips, example.frames, self._known_clip)

    def _known_clip(self, key: ClipKey) -> tuple[Media, bytes] | None:
        if key not in self.clips:
            return None
        media, strip = self.clips[key]
        return media, (self.images.data / strip).read_bytes()

    def _store(self, clip: EncodedClip) -> tuple[Media, dict[str, str]]:
        """Store the film strip of a clip, and its content if it has no file; returns path -> SHA-256."""
        strip = self.images.add(clip.strip)
        files = {strip.path: sha256_of(clip.strip)}
        path = clip.path
        if path is None:
            path = self.images.add(clip.content, "mp4").path
            files[path] = clip.digest
        self.clips[clip.digest, clip.media.frames] = clip.media, strip.path
        return clip.media.model_copy(update={"path": path, "strip": strip.path}), files

    def _index(self, split: str) -> SplitIndex:
        if split not in self.splits:
            self.splits[split] = SplitIndex(split=split, rules=frozenset({self.duplicates, self.leaks}))
        return self.splits[split]

    def _key(self, key: str, split: str) -> str:
        """The row's key, with a number if the split holds the same prompt twice."""
        if self.duplicates != "off":
            return key
        index = self._index(split)
        own = index.own_key(key)
        index.keys.add(digest_of(own))
        return own

    def _reject_repeated(self, signature: PromptSignature, split: str) -> None:
        """Raise UnsuitableRowError for a duplicate or leak.

        A leak is a training row with a prompt or image of evaluation.
        """
        self._index(split).reject_duplicate(signature, self.duplicates)
        for name, other in self.splits.items():
            if split in TRAINING_SPLITS and name not in TRAINING_SPLITS:
                other.reject_duplicate(signature, self.leaks, "leak")
                if self.leaks != "off":
                    other.reject_shared_image(signature)
            elif name != split and self.source.drawn:
                other.reject_duplicate(signature, self.duplicates)


def length_check(limit: PromptLimit | None) -> LengthCheck:
    """A check that rejects prompts of more than `limit.tokens` tokens, image tokens included.

    Errors: StudyError if the processor cannot be loaded, or cannot process a prompt, such as one with images or clips.
    """
    if limit is None:
        return lambda row, images, where: None
    from rlassay.models.hub import load_processor  # seconds to import
    from rlassay.models.prompt_length import count_tokens

    try:
        processor = load_processor(limit.model, revision=limit.revision, trust_remote_code=limit.trust_remote_code)
    except ValueError as error:
        raise StudyError([f"data.max_prompt_length.model: {error}"]) from error

    def too_long(row: PromptRow, images: Sequence[Image], where: str) -> str | None:
        try:
            tokens = count_tokens(row, images, processor)
        except ValueError as error:
            place = f"{where}: " if where else ""  # built-in sources have no files
            raise StudyError([f"data.max_prompt_length: {place}{error}"]) from error
        return f"prompt: more than {limit.tokens} tokens" if tokens > limit.tokens else None

    return too_long


def _rejection(error: RowRejectedError) -> Rejected:
    return Rejected(reason=str(error), where=error.where, detail=error.detail, pair=error.pair)


def _pair(row: PromptRow, example: RawExample, repeated: UnsuitableRowError) -> RefusedPair | None:
    """A duplicate or leak beside the row that it repeats."""
    if repeated.match is None:
        return None
    by, split, number = repeated.match
    return RefusedPair(
        kind="leak" if str(repeated).startswith("leak") else "duplicate",
        by=by,
        where=example.where,
        prompt_id=example.prompt_id or content_id(row),
        question=row.question[:LONGEST_SHOWN],
        choices=tuple(choice[:LONGEST_SHOWN] for choice in row.choices),
        answer=row.answer[:LONGEST_SHOWN],
        match_split=split,
        match_row=number,
    )


def _location(example: RawExample | RowRejectedError) -> str:
    """`file:line` and images of an invalid record; empty if the source rejected it, since its message has them."""
    if not isinstance(example, RawExample):
        return ""
    images = f" (with {', '.join(map(repr, example.images))})" if example.images else ""
    return f"{example.where}{images}: "


def _content_named(encoded: Sequence[EncodedImage], clips: Sequence[EncodedClip]) -> tuple[Media, ...]:
    """The row's media under names that do not depend on their paths; clips with their frames."""
    images = [Media(path=media_path(one.digest, one.suffix)) for one in encoded]
    shown = (clip.media.model_copy(update={"path": media_path(sha256_of(clip.strip), "png")}) for clip in clips)
    return (*images, *shown)
