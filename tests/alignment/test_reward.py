import numpy as np
import pytest
import torch
from tests.alignment.conftest import small_model

from qwenops.alignment.examples import pad_id_of
from qwenops.alignment.objectives import reward_objective
from qwenops.alignment.reward.data import balanced_shares, share_by_tag
from qwenops.alignment.reward_model import RewardModel, RewardScale, load_reward_model, save_reward_head, score
from qwenops.contracts.conversation import ask
from qwenops.errors import ContractError
from qwenops.model.checkpoints import save_checkpoint


def test_reward_does_not_depend_on_right_padding():
    model = RewardModel(small_model()).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    padded = torch.tensor([[5, 6, 7, 8, 9, 9, 9]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0]])
    alone = model({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    torch.testing.assert_close(model({"input_ids": padded, "attention_mask": mask}), alone, atol=1e-5, rtol=1e-5)


def test_reward_reads_the_last_token():
    model = RewardModel(small_model()).eval()
    mask = torch.ones(1, 3, dtype=torch.int64)
    first, second = (model({"input_ids": torch.tensor([[5, 6, last]]), "attention_mask": mask}) for last in (7, 8))
    assert first.item() != second.item()


def test_reward_objective_falls_as_the_model_learns_one_pair():
    model = RewardModel(small_model())
    batch = {
        "input_ids": torch.tensor([[5, 6, 7], [5, 6, 8]]),
        "attention_mask": torch.ones(2, 3, dtype=torch.int64),
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss, facts = reward_objective(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert facts["accuracy"] == (1.0, 1.0)


def test_saved_reward_model_scores_alike_and_standardised(tokenizer, tmp_path):
    model = RewardModel(small_model()).eval()
    prompts, responses = [ask("Hi"), ask("Sort: 21")], ["Hello there.", "12"]
    raw = score(model, tokenizer, prompts, responses)
    model.scale = RewardScale(mean=0.5, deviation=2.0)
    save_checkpoint(model.policy, tokenizer, tmp_path, 128, 0)
    save_reward_head(model, tmp_path)
    loaded = score(load_reward_model(tmp_path), tokenizer, prompts, responses)
    assert loaded == pytest.approx([(value - 0.5) / 2.0 for value in raw], abs=1e-5)


def test_checkpoint_without_a_head_is_refused(tokenizer, tmp_path):
    save_checkpoint(small_model(), tokenizer, tmp_path, 128, 0)
    with pytest.raises(ContractError, match="not a reward model"):
        load_reward_model(tmp_path)


def test_pad_id_is_the_end_of_text(tokenizer):
    assert tokenizer.decode([pad_id_of(tokenizer)]) == "<|endoftext|>"


def test_balanced_shares_flatten_the_tags():
    tags = [("sort",)] * 40 + [("reverse",)] * 35 + [("code",)] * 20 + [("safety",)] * 5
    even = share_by_tag(tags, np.full(100, 0.01))
    drawn = share_by_tag(tags, balanced_shares(tags, cap=0.5, most_repeats=3.0))
    assert drawn["safety"] > even["safety"]
    assert max(drawn.values()) - min(drawn.values()) < max(even.values()) - min(even.values())


def test_balanced_shares_hold_the_cap_and_sum_to_one():
    tags = [("sort",)] * 49 + [(f"rare{n}",) for n in range(51)]
    shares = balanced_shares(tags, cap=0.1, most_repeats=3.0)
    assert shares.sum() == pytest.approx(1.0)
    assert share_by_tag(tags, shares)["sort"] == pytest.approx(0.1, rel=0.02)


def test_a_tag_that_nearly_all_carry_does_not_starve_its_pairs():
    tags = [("english", "sort")] * 45 + [("english", "reverse")] * 45 + [("safety",)] * 10
    drawn = share_by_tag(tags, balanced_shares(tags, cap=0.4, most_repeats=3.0))
    assert drawn["english"] > 0.7


def test_no_pair_is_drawn_much_more_often_than_the_mean():
    tags = [("sort",)] * 50 + [("reverse",)] * 49 + [("once",)]
    shares = balanced_shares(tags, cap=1.0, most_repeats=3.0)
    assert shares[-1] <= 3.3 * shares.mean()
