"""Hand-made `DataSplit`s: options and free answers, rejected rows of every kind, sample rows."""

from rlassay.records import Histogram
from rlassay.report.numbers import DataSplit, SampleRow


def fake_data() -> tuple[DataSplit, ...]:
    """An evaluation split with options, and an SFT split with free answers, some of them rejected."""
    test = DataSplit(
        split="test",
        rows=400,
        refused={},
        choices={"4": 400},
        media={"1": 400},
        answers={"A": 100, "B": 90, "C": 110, "D": 100},
        distinct_answers=4,
        question_length=Histogram(quartiles=(22, 24, 27, 31, 45), width=2, bars=(100, 200, 60, 20, 20)),
        answer_length=Histogram(quartiles=(1, 1, 1, 1, 1), width=1, bars=(400,)),
        duplicates=0,
        leaks=0,
        samples=(_row("0123456789abcdef", choices=("1", "3", "5", "7"), images=("../data/images/gone.png",)),),
    )
    sft = DataSplit(
        split="sft",
        rows=63,
        refused={
            "no image": 1,
            "duplicate: nearly the same prompt is in the split 'sft'": 4,
            "leak: nearly the same image is in the split 'test'": 2,
        },
        choices={"0": 63},
        media={"0": 60, "1": 3},
        answers={"yes": 30, "no": 20},
        distinct_answers=12,
        question_length=Histogram(quartiles=(10, 10, 10, 10, 10), width=1, bars=(63,)),
        answer_length=Histogram(quartiles=(1, 2, 3, 3, 1200), width=100, bars=(62, *[0] * 10, 1)),
        duplicates=4,
        leaks=2,
        samples=(_row("fedcba9876543210", demonstration="<think>Look.</think><answer>yes</answer>", clips=("a.mp4",)),),
    )
    return test, sft


def _row(
    prompt_id: str,
    choices: tuple[str, ...] = (),
    images: tuple[str, ...] = (),
    demonstration: str | None = None,
    clips: tuple[str, ...] = (),
) -> SampleRow:
    return SampleRow(
        prompt_id=prompt_id,
        question="Which digit of the sample is on the left?",
        choices=choices,
        answer="B" if choices else "yes",
        demonstration=demonstration,
        images=images,
        clips=clips,
    )
