"""Makers of the records that reward tests need."""

from rlassay.records import Completion, PromptRow


def row(answer: str = "B", choices: tuple[str, ...] = ("3", "7", "1", "9")) -> PromptRow:
    return PromptRow(prompt_id="p", question="Which digit is larger?", answer=answer, choices=choices)


def completion(
    text: str = "", *, token_count: int = 9, of: PromptRow | None = None, signals: dict[str, float] | None = None
) -> Completion:
    prompt = row() if of is None else of
    return Completion(text=text, token_count=token_count, finished=True, row=prompt, signals=signals or {})
