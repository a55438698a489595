import pickle

from rlassay.records import Completion
from rlassay.rewards.lift import lift
from tests.rewards.make import completion


@lift
def share_of_limit(completion: Completion, *, limit: int = 10) -> float | None:
    return completion.token_count / limit if completion.token_count else None


def test_a_lifted_scorer_judges_each_completion_with_the_same_options():
    group = [completion(token_count=count) for count in (5, 0, 20)]
    assert share_of_limit(group) == [0.5, None, 2.0]
    assert share_of_limit(group, limit=20) == [0.25, None, 1.0]


def test_it_keeps_its_name_and_can_be_sent_to_another_process():
    assert share_of_limit.__name__ == "share_of_limit"
    from rlassay.rewards import REWARDS

    for reward in REWARDS.values():
        assert pickle.loads(pickle.dumps(reward)) is reward
