"""Token credit as tables, for readers of `tables/*.csv`."""

import pandas as pd

from rlassay.report.credit_records import TokenCredit


def credit_frames(credit: TokenCredit) -> dict[str, pd.DataFrame]:
    """`credit_words`: the words with most and least credit; `credit_scenes`: every word of the scenes."""
    ranked = [
        {"arm": arm.arm, "end": end, "word": one.word, **one.weight.model_dump()}
        for arm in credit.words
        for end, words in (("most", arm.most), ("least", arm.least))
        for one in words
    ]
    shown = [
        {"step": scene.step, "prompt_id": scene.prompt_id, "arm": one.arm, "sample": one.sample, **word.model_dump()}
        for scene in credit.scenes
        for one in scene.completions
        for word in one.words
    ]
    return {"credit_words": pd.DataFrame(ranked), "credit_scenes": pd.DataFrame(shown)}
