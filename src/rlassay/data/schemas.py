"""Tables whose columns are known: A-OKVQA, GSM8K, documents with summaries."""

import re
from pathlib import Path

from rlassay.config import StudyError
from rlassay.config.data import Aokvqa, Gsm8k, Summarization
from rlassay.data.builtin import digit_photographs, sums
from rlassay.data.drafts import Draft, RowRefusedError, Source, list_of, text_of
from rlassay.data.tables import Record, letter_of, table_source
from rlassay.prompts import demonstrate

_CALCULATION = re.compile(r"<<[^<>]*>>")


def aokvqa(section: Aokvqa) -> Source:
    """Questions about photographs with four options; the first rationale is the demonstration's thought.

    Source: D. Schwenk et al., "A-OKVQA: A Benchmark for Visual Question Answering using World Knowledge" (2022).
    """
    wanted = None if section.question_ids is None else _question_ids(Path(section.question_ids))

    def draft(record: Record) -> Draft:
        name = text_of(record["question_id"], "question_id")
        if wanted is not None and name not in wanted:
            raise RowRefusedError("question_id: not in data.question_ids")
        choices = tuple(text_of(choice, "choices") for choice in list_of(record["choices"]))
        letter = letter_of(record["correct_choice_idx"], choices)
        rationales = [text_of(rationale, "rationales") for rationale in list_of(record["rationales"])]
        return Draft(
            question=text_of(record["question"], "question"),
            answer=letter,
            choices=choices,
            images=(record["image"],),
            jpeg_name=re.sub(r"[^A-Za-z0-9-]", "-", name),
            demonstration=demonstrate(letter, rationales[0] if rationales else None),
            meta={"question_id": name},
        )

    return table_source(section, draft, digit_photographs)


def gsm8k(section: Gsm8k) -> Source:
    """Word problems; the working, without its `<<3*4=12>>` marks, is the demonstration's thought.

    Source: K. Cobbe et al., "Training Verifiers to Solve Math Word Problems" (2021).
    """

    def draft(record: Record) -> Draft:
        working, mark, final = text_of(record["answer"], "answer").rpartition("####")
        if not mark:
            raise RowRefusedError("answer: no #### before the final number")
        answer = final.strip().replace(",", "")
        demonstration = demonstrate(answer, _CALCULATION.sub("", working).strip())
        return Draft(question=text_of(record["question"], "question"), answer=answer, demonstration=demonstration)

    return table_source(section, draft, sums)


def summarization(section: Summarization) -> Source:
    """Documents with their summaries."""

    def draft(record: Record) -> Draft:
        summary = text_of(record["summary"], "summary")
        return Draft(question=text_of(record["document"], "document"), answer=summary, demonstration=summary)

    return table_source(section, draft)


def _question_ids(file: Path) -> set[str]:
    try:
        ids = set(file.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError([f"data.question_ids: {file} cannot be read ({error}); expected one id per line"]) from None
    if not ids:
        raise StudyError([f"data.question_ids: {file} is empty; expected one question id per line"])
    return ids
