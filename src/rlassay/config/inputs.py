"""Identify a study's inputs besides its file: by content, or by commit on the hub.

Files of up to `HASHED_BYTES` together (the files of a split, the media that its records name, a model folder) are
identified by their content, so that a copy or a `touch` changes nothing; larger ones by name, size and modification
time. Contents are read once: digests are kept in the user's cache folder, under the size and times of the files.
"""

import gzip
import hashlib
import json
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from typing import Any, cast

from rlassay.config.data import (
    Aokvqa,
    Conversations,
    DataConfig,
    Files,
    Hub,
    Jsonl,
    JsonlPrompts,
    PromptLimit,
    Table,
    TableSection,
)
from rlassay.config.model import HubModel, ModelConfig
from rlassay.config.section import to_json
from rlassay.config.training import RewardConfig
from rlassay.files import replacing, sha256

HASHED_BYTES = 2 * 2**30
"""Files of more bytes together are not read; their sizes and times identify them."""
SETTLED_SECONDS = 2.0
"""Seconds since the last change of a file from which its digest is kept. A file that changed more recently may change
again within one tick of the clock."""
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_SNAPSHOTS: list[dict[str, dict[str, str]]] = []
"""Digests looked up within `snapshot`; empty outside of it."""


@contextmanager
def snapshot() -> Generator[None]:
    """In the body, look at each local input once.

    All fingerprints then describe the same moment.
    """
    _SNAPSHOTS.append(_SNAPSHOTS[-1] if _SNAPSHOTS else {})
    try:
        yield
    finally:
        _SNAPSHOTS.pop()


def data_inputs(data: DataConfig) -> dict[str, str]:
    """Local inputs of a `data` section: description -> digest, or `missing` for an absent one.

    They are data files, media that their records name, dataset folders, question ids, and the processor that limits
    prompts. Empty for a source that is made here, or read from the hub.
    """
    return _looked_up(to_json(["data", data.model_dump(mode="json")]), lambda: _data_inputs(data))


def model_inputs(model: ModelConfig) -> dict[str, str]:
    """Digests of a `model` section's local folder and, for an adapter, of its base.

    Empty without a local folder.
    """
    if not isinstance(model, HubModel):
        return {}
    return _looked_up(to_json(["model", model.name]), lambda: _model_folders(model.name))


def reward_inputs(rewards: Mapping[str, RewardConfig]) -> dict[str, str]:
    """Digests of local model folders of rewards, and of files that custom rewards' options name."""
    models = sorted({name for each in rewards.values() if isinstance(name := each.options.get("model"), str)})
    options = [each.arguments.get("options") for name, each in rewards.items() if (each.kind or name) == "custom"]
    files = sorted({file for each in options for file in _named_files(each)})
    lookups = [(["model", name], lambda name=name: _model_folders(name)) for name in models]
    lookups += [
        (["file", file], lambda file=file: {f"file {file} of a reward": _digest([Path(file)])}) for file in files
    ]
    found = [_looked_up(to_json(key), look) for key, look in lookups]
    return {name: digest for digests in found for name, digest in digests.items()}


def _named_files(value: Any) -> Iterator[str]:
    """The texts in options, at any depth, that name a file which exists."""
    if isinstance(value, str):
        if _stat(Path(value)) is not None:
            yield value
    elif isinstance(value, Mapping):
        yield from (file for item in cast("Mapping[str, Any]", value).values() for file in _named_files(item))
    elif isinstance(value, list | tuple):
        yield from (file for item in cast("list[Any]", value) for file in _named_files(item))


def changed_inputs(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names of the inputs that were added, removed or changed, sorted."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def hub_commit(origin: Hub) -> str | None:
    """The commit to which the revision of a hub dataset resolves now; None for a local folder, or offline."""
    if Path(origin.name).is_dir():
        return None
    from httpx import HTTPError  # huggingface_hub passes the errors of its client on
    from huggingface_hub import HfApi

    with suppress(OSError, ValueError, RuntimeError, HTTPError):  # being offline stops no study
        return HfApi().dataset_info(origin.name, revision=origin.revision, timeout=10).sha
    return None


def split_paths(data: DataConfig) -> dict[str, list[Path]]:
    """Split -> its local data files, missing ones of a known name included; empty without local files."""
    match data:
        case Jsonl():
            return {split: [Path(data.folder) / f"{split}.jsonl"] for split in data.splits}
        case JsonlPrompts() | Conversations():
            return {split: [Path(data.folder) / data.files.get(split, f"{split}.jsonl")] for split in data.splits}
        case TableSection(origin=Files() as origin):
            return {split: _matching(origin, split) for split in data.splits}
        case _:
            return {}


def _looked_up(key: str, look: Callable[[], dict[str, str]]) -> dict[str, str]:
    if not _SNAPSHOTS:
        return look()
    known = _SNAPSHOTS[-1]
    if key not in known:
        known[key] = look()
    return known[key]


def _data_inputs(data: DataConfig) -> dict[str, str]:
    inputs: dict[str, str] = {}
    root, keys = _media(data)
    for split, files in split_paths(data).items():
        inputs[f"files of split {split!r}"] = _digest(files)
        if keys:
            names = {name for file in files for name in _cached_names(file, data, keys)}
            if media := [path for name in names if (path := _below(root, name))]:
                inputs[f"media of split {split!r}"] = _digest(media, root)
    if isinstance(data, TableSection) and isinstance(data.origin, Hub) and Path(data.origin.name).is_dir():
        inputs[f"dataset folder {data.origin.name}"] = _digest(_files_below(Path(data.origin.name)))
    if isinstance(data, Aokvqa) and data.question_ids is not None:
        inputs["data.question_ids"] = _digest([Path(data.question_ids)])
    if data.max_prompt_length is not None:
        inputs |= _processor_folder(data.max_prompt_length)
    return inputs


def _processor_folder(limit: PromptLimit) -> dict[str, str]:
    """The folder of the processor without its weights, which count no tokens."""
    folder = Path(limit.model)
    if not folder.is_dir():
        return {}
    files = [file for file in _files_below(folder) if file.suffix not in WEIGHT_SUFFIXES]
    return {f"processor folder {limit.model}": _digest(files)}


def _model_folders(name: str) -> dict[str, str]:
    folder = Path(name)
    if not folder.is_dir():
        return {}
    inputs = {f"model folder {name}": _digest(_files_below(folder), folder)}
    with suppress(OSError, ValueError, KeyError, TypeError):
        base = str(json.loads((folder / "adapter_config.json").read_bytes())["base_model_name_or_path"])
        if Path(base).is_dir() and Path(base).resolve() != folder.resolve():
            inputs[f"model folder {base}"] = _digest(_files_below(Path(base)), Path(base))
    return inputs


def _files_below(folder: Path) -> list[Path]:
    """The files of a folder and its subfolders; hidden ones and bytecode are left out."""
    files: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return files


def _matching(origin: Files, split: str) -> list[Path]:
    pattern = origin.files.get(split, f"{split}*.{origin.kind}*")
    try:
        return sorted(file for file in Path(origin.folder).glob(pattern) if file.is_file())
    except (NotImplementedError, ValueError):
        return []


def _below(root: Path, name: str) -> Path | None:
    """The path of a named file; None for one outside of the root, which no source reads, and for an impossible name."""
    path = os.path.normpath(os.path.join(root, name))
    inside = os.path.commonpath([os.path.abspath(path), os.path.abspath(root)]) == os.path.abspath(root)
    return Path(path) if inside and "\0" not in name else None


def _digest(files: Iterable[Path], root: Path | None = None) -> str:
    """The digest of files, which are named relative to `root`; by content if they are not too large together."""
    known = [(str(file if root is None else file.relative_to(root)), file, _stat(file)) for file in files]
    known.sort(key=lambda each: each[0])
    if not known or (root is None and any(status is None for _, _, status in known)):
        return "missing"
    sizes = [status.st_size for _, _, status in known if status is not None]
    if sum(sizes) > HASHED_BYTES:
        return _of([(name, status and (status.st_size, status.st_mtime_ns)) for name, _, status in known])
    times = [(name, str(file.absolute()), _times(status)) for name, file, status in known]
    settled = all(status is None or _is_settled(status) for _, _, status in known)

    def read() -> str:
        return _of([(name, None if status is None else sha256(file)) for name, file, status in known])

    return _kept(_of(["content", times]), read, settled)


def _stat(file: Path) -> os.stat_result | None:
    """The status of a regular file; None for anything else."""
    try:
        status = file.stat()
    except (OSError, ValueError):
        return None
    return status if S_ISREG(status.st_mode) else None


def _times(status: os.stat_result | None) -> tuple[int, ...]:
    """Size, times and inode of a file; empty without a status.

    Tools can set back the modification time (mtime) but not the time of change (ctime).
    """
    return () if status is None else (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _is_settled(status: os.stat_result) -> bool:
    return time.time() - max(status.st_mtime, status.st_ctime) > SETTLED_SECONDS


def _of(content: Any) -> str:
    return hashlib.sha256(to_json(content).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _kept(key: str, make: Callable[[], str], settled: bool) -> str:
    """The cache folder's text under a key, or the one that `make` returns; a cache may always be absent."""
    kept = _cache_folder() / key
    with suppress(OSError):
        return kept.read_text(encoding="utf-8")
    made = make()
    with suppress(OSError):
        if settled:
            with replacing(kept) as unfinished:
                unfinished.write_text(made, encoding="utf-8")
    return made


def _cache_folder() -> Path:
    """`~/.cache/rlassay/inputs`; without a home folder, a path below `~` that no file has."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "rlassay" / "inputs"


# The media that records name.


def _media(data: DataConfig) -> tuple[Path, tuple[str, ...]]:
    """The root folder of media paths, and a record's keys whose values may name media."""
    match data:
        case Jsonl():
            return Path(data.folder), ("media",)
        case JsonlPrompts():
            return Path(data.folder) / data.image_dir, (data.image_key, data.video_key)
        case Conversations():
            return Path(data.folder), ("image", "video")
        case TableSection(origin=Files() as origin) if column := _image_column(data):
            return Path(origin.folder), (column,)
        case _:
            return Path(), ()


def _image_column(data: TableSection) -> str | None:
    if isinstance(data, Aokvqa):
        return "image"
    if not isinstance(data, Table):
        return None
    return data.columns.images if data.columns is not None else "image" if data.preset else None


def _cached_names(file: Path, data: DataConfig, keys: tuple[str, ...]) -> list[str]:
    """The names of media in a data file; none if it cannot be read, which the data stage reports."""
    status = _stat(file)
    if status is None:
        return []
    column = _image_column(data) if isinstance(data, TableSection) else None

    def read() -> str:
        try:
            parquet = isinstance(data, TableSection) and isinstance(data.origin, Files) and data.origin.kind != "json"
            values = _parquet_values(file, str(column)) if parquet else _json_values(file, keys)
            return to_json(sorted({name for value in values for name in _names(value)}))
        except (OSError, ValueError, RecursionError):
            return "[]"

    key = _of(["names", str(file.absolute()), _times(status), data.model_dump(mode="json")])
    return json.loads(_kept(key, read, _is_settled(status)))


def _names(value: Any) -> Iterator[str]:
    """The paths in a value that may name media.

    It is a text, a mapping with `path` or `image` and no `bytes`, or a list of these.
    """
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        mapping = cast("dict[str, Any]", value)
        if mapping.get("bytes") is None:
            yield from _names(mapping["path"] if mapping.get("path") is not None else mapping.get("image"))
    elif isinstance(value, list | tuple):
        for item in cast("list[Any]", value):
            yield from _names(item)


def _json_values(file: Path, keys: tuple[str, ...]) -> Iterator[Any]:
    with (gzip.open if file.suffix == ".gz" else open)(file, "rb") as content:
        start = content.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
        content.seek(0)
        if start.startswith(b"["):
            records = json.loads(content.read().decode("utf-8-sig"))
        else:
            # most lines of most files name no media; a key may be written with escapes
            marks = (*(json.dumps(key, ensure_ascii=False).encode() for key in keys), b"\\u")
            records = (_record(line) for line in content if any(mark in line for mark in marks))
        for record in records:
            if isinstance(record, dict):
                yield from (cast("dict[str, Any]", record).get(key) for key in keys)


def _record(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _parquet_values(file: Path, column: str) -> Iterator[Any]:
    """The paths in a column; embedded images are not read."""
    from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs] - imported here since it takes a third of a second

    table = cast(Any, parquet).ParquetFile(file)
    paths = [str(table.schema.column(index).path) for index in range(len(table.schema))]
    leaves = [path for path in paths if path.split(".")[0] == column and path.split(".")[-1] != "bytes"]
    embedded = [path for path in paths if path.split(".")[0] == column and path.split(".")[-1] == "bytes"]
    if embedded and all(_is_full(table.metadata, paths.index(path)) for path in embedded):
        return
    for batch in table.iter_batches(columns=leaves):
        for values in batch.to_pydict().values():
            yield from values


def _is_full(metadata: Any, column: int) -> bool:
    """Whether a Parquet column has a value in every row, by the file's statistics."""
    groups = [metadata.row_group(index).column(column).statistics for index in range(metadata.num_row_groups)]
    return all(one is not None and one.has_null_count and one.null_count == 0 for one in groups)
