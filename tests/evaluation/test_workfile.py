from rlassay.evaluation.workfile import WorkFile
from rlassay.records import CompletionRow

ROW = CompletionRow(prompt_id="p", mode="sampled", sample=0, text="<answer>B</answer>", token_count=4, finished=True)


def test_finished_batches_outlive_the_process(tmp_path):
    with WorkFile(tmp_path / "work", "key") as work:
        work.add(3, [ROW])

    with WorkFile(tmp_path / "work", "key") as work:
        assert work.done == {3: [ROW]}


def test_batches_of_other_weights_do_not_count(tmp_path):
    with WorkFile(tmp_path / "work", "key") as work:
        work.add(3, [ROW])

    with WorkFile(tmp_path / "work", "other") as work:
        assert work.done == {}


def test_a_torn_line_spoils_nothing_but_itself(tmp_path):
    path = tmp_path / "work"
    with WorkFile(path, "key") as work:
        work.add(1, [ROW])
        work.add(2, [ROW])
    path.write_bytes(path.read_bytes()[:-40])

    with WorkFile(path, "key") as work:
        assert work.done == {1: [ROW]}
        work.add(2, [ROW])

    with WorkFile(path, "key") as work:
        assert work.done == {1: [ROW], 2: [ROW]}


def test_lines_that_are_no_batches_do_not_count(tmp_path):
    (tmp_path / "work").write_text('[1]\n{"key": "key"}\n{"key": "key", "batch": 1, "rows": [{"text": 1}]}\nnull\n')

    with WorkFile(tmp_path / "work", "key") as work:
        assert work.done == {}
