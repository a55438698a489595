"""Markdown logs of a running training job, for people: `tail -f state/rollout_results.md`."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from rlassay.config.settings import Diagnostics
from rlassay.records import PromptRow
from rlassay.signals.measuring import floats
from rlassay.token_words import split_words, word_mean
from rlassay.training.rollouts import Rollout, TokenRecord

LAYER_SEGMENTS = ("early", "middle", "late", "all")
_HEADING = "## Step "
_BETTER, _WORSE, _PLAIN = "\033[32m", "\033[31m", "\033[0m"


class ReadableLog:
    """A listener that appends a section per generation batch to a Markdown file.

    The heading of a section has the step.
    """

    def __init__(self, path: Path, title: str, section: Callable[[Rollout], str], resumed_step: int) -> None:
        """
        Args:
            path: the file.
            title: its first line.
            section: writes the text of a generation batch; an empty text adds nothing to the file.
            resumed_step: step that the job resumes from; sections of later steps, of a killed attempt, are removed.
        """
        self.path = path
        self.section = section
        kept = _until(path.read_text(encoding="utf-8", errors="replace"), resumed_step) if path.exists() else ""
        path.write_text(kept if resumed_step and kept else f"# {title}\n", encoding="utf-8")

    def __call__(self, rollout: Rollout) -> None:
        text = self.section(rollout)
        if text:
            with self.path.open("a", encoding="utf-8") as out:
                out.write(f"\n{_HEADING}{rollout.step}\n\n{text}")


def readable_logs(
    folder: Path, rows: Mapping[str, PromptRow], settings: Diagnostics, resumed_step: int
) -> list[Callable[[Rollout], None]]:
    """The logs that the settings enable, in `folder`; `rows` are the prompts by `prompt_id`."""

    def completions(rollout: Rollout) -> str:
        return completions_section(
            rollout,
            rows,
            prompt_chars=settings.prompt_preview_chars,
            completion_chars=settings.completion_preview_chars,
        )

    def log(name: str, title: str, section: Callable[[Rollout], str]) -> ReadableLog:
        return ReadableLog(folder / name, title, section, resumed_step)

    logs: list[Callable[[Rollout], None]] = []
    if settings.realtime_rollout_logging:
        logs.append(log(settings.rollout_log_path, "Completions", completions))
        logs.append(log(settings.token_weights_log_path, "Words and the mean weight of their tokens", weights_section))
    if settings.compute_attention_metrics:
        title = "Attention by layers"
        logs.append(log(settings.attention_diag_log_path, title, lambda rollout: attention_section(rollout.metrics)))
    return [*logs, print_first_completion] if settings.colorize_output else logs


def completions_section(
    rollout: Rollout, rows: Mapping[str, PromptRow], *, prompt_chars: int, completion_chars: int
) -> str:
    """The recorded prompts and completions with their rewards."""
    parts: list[str] = []
    for index, each in enumerate(rollout.token_records):
        if each.sample == 0:
            row = rows[each.prompt_id]
            parts.append(f"**Prompt {each.prompt_id}** (gold {row.answer!r}):\n\n{_quoted(row.question, prompt_chars)}")
        values = zip(rollout.reward_names, floats(rollout.raw[index]), strict=True)
        rewards = " · ".join(f"{name} {value:.4g}" for name, value in values)
        text = _quoted("".join(each.tokens), completion_chars)
        parts.append(f"Sample {each.sample}: reward {each.reward:.4g} ({rewards}), {_advantage(each)}\n\n{text}")
    return "\n".join(parts)


def weights_section(rollout: Rollout) -> str:
    """The words of the recorded completions, each with the mean weight of its tokens: `word(weight)`."""
    return "".join(
        f"- {each.prompt_id} sample {each.sample}, {_advantage(each)}: "
        + " ".join(f"{word.text}({word_mean(word, each.weight):.2f})" for word in split_words(each.tokens))
        + "\n"
        for each in rollout.token_records
    )


def attention_section(metrics: Mapping[str, float]) -> str:
    """A table of the attention metrics of a step by layer segment; empty if none were measured."""
    known = ("mdi", "aei_text", "aei_vision", "text_ratio", "vision_ratio", "mdi_balance", "mdi_penalty")
    to_document = any(f"attention/{segment}/attended_tokens" in metrics for segment in LAYER_SEGMENTS)
    columns = ("attended_tokens",) if to_document else known
    lines = ["| layers | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for segment in LAYER_SEGMENTS:
        values = [metrics.get(f"attention/{segment}/{column}") for column in columns]
        if any(value is not None for value in values):
            shown = " | ".join("n/a" if value is None else f"{value:.4f}" for value in values)
            lines.append(f"| {segment} | {shown} |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def print_first_completion(rollout: Rollout) -> None:
    """Print the first completion in colour, green for a positive advantage; on a terminal only."""
    if sys.stdout.isatty() and rollout.token_records:
        first = rollout.token_records[0]
        colour = _BETTER if first.advantage > 0 else _WORSE if first.advantage < 0 else _PLAIN
        print(f"\nstep {rollout.step}: {colour}{_one_line(''.join(first.tokens))}{_PLAIN} ({_advantage(first)})")


def _advantage(each: TokenRecord) -> str:
    scaled = "" if each.scale is None else f", scale {each.scale:.3f}"
    return f"advantage {each.advantage:+.3f}{scaled}"


def _quoted(text: str, max_chars: int) -> str:
    """The text cut to `max_chars` and indented as code, so that nothing is markup."""
    shown = text if len(text) <= max_chars else f"{text[:max_chars]} ... ({len(text) - max_chars} more characters)"
    return "".join(f"    {line}\n" for line in shown.splitlines() or [""])


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n").replace("\033", "")


def _until(text: str, step: int) -> str:
    """The title and the sections up to `step`."""
    title, *sections = text.split(f"\n{_HEADING}")
    kept = [section for section in sections if _number(section) <= step]
    return f"\n{_HEADING}".join([title, *kept])


def _number(section: str) -> int:
    """The step of a section; `sys.maxsize` for a heading cut off by a kill, so that the section is dropped."""
    first = section.split("\n", 1)[0]
    return int(first) if first.isdigit() else sys.maxsize
