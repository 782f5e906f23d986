"""The gradient of a step is that of its formula, however its rows are cut into forward passes and over workers.

The formulas are written here from the definitions (DPO, InstructGPT's PPO, the reward pair loss) in float64, one
sequence at a time, without padding, packing or chunks.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.training.counting import VOCABULARY, tiny_model
from tests.training.workers import on_workers

from qwenops.alignment.examples import Pair, pair_batch, pair_stream
from qwenops.alignment.objectives import chosen_objective, dpo_objective, replay_objective, reward_objective
from qwenops.alignment.online.config import PpoConfig
from qwenops.alignment.online.ppo import ActorCritic, ppo_objective
from qwenops.alignment.online.rollouts import Rollout, to_pair
from qwenops.alignment.reward_model import RewardModel
from qwenops.alignment.sft.data import append_replay
from qwenops.contracts.conversation import Conversation, ask
from qwenops.training.batching import Example, pack_batch, packed_epochs, pad_batch, text_batch
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import fit
from qwenops.training.objective import language_modelling, text_objective
from qwenops.training.terms import Objective

LOOP = TrainingConfig(steps=1, batch_tokens=1, learning_rate=1e-12, precision="fp32", warmup_steps=0, clip_norm=1e9)
TOLERANCE = 1e-5
BETA, NLL, Z_LOSS, TEXT = 0.3, 0.7, 1e-2, 0.5
PPO = PpoConfig(pretraining_coefficient=TEXT)
LENGTH = 24


@dataclass(frozen=True)
class Case:
    """One objective: its model, rows drawn from a generator, rows to a batch, and the loss of rows by its formula."""

    objective: Objective
    model: Callable
    draw: Callable
    batch: Callable
    formula: Callable


def policy(seed=0):
    return tiny_model(seed).double()


def reward_model(seed=0):
    torch.manual_seed(seed)
    return RewardModel(tiny_model(seed)).double()


def actor_critic():
    return ActorCritic(policy(), reward_model(1))


def example(generator, most=LENGTH):
    """A prompt and a response, of very different lengths."""
    size = int(torch.randint(3, most, (1,), generator=generator))
    prompt = int(torch.randint(1, size - 1, (1,), generator=generator))
    tokens = torch.randint(1, VOCABULARY, (size,), generator=generator).tolist()
    return Example(tokens, [False] * prompt + [True] * (size - prompt))


def answered_alike(generator):
    """Two responses to one prompt, which may begin with the same tokens."""
    first, second = example(generator), example(generator)
    prompt = first.loss_mask.index(True)
    begin = prompt + int(torch.randint(0, 2, (1,), generator=generator))
    tokens = [*first.tokens[:begin], *second.tokens[-3:]]
    return first, Example(tokens, [False] * prompt + [True] * (len(tokens) - prompt))


def pair(generator, sides=answered_alike):
    reference = -10 * torch.rand(2, generator=generator)
    return Pair(*sides(generator), tuple(reference.tolist()))


def strangers(generator):
    """Two sides with nothing in common, so that no row holds both."""
    return pair(generator, lambda generator: (example(generator), example(generator)))


def rolled_out(generator):
    """A pair as the online stage makes it of two rollouts."""
    row, found = Conversation(id="a", messages=ask("Hi")), []
    for reward in (1.0, 0.0):
        made = example(generator)
        reference = -torch.rand(sum(made.loss_mask), generator=generator)
        found.append(Rollout(row, "text", reward, made, reference, reference, 0))
    return to_pair(*found)


def experience(generator):
    """A response with what PPO remembers of it (log-probabilities, values, advantages, returns), or a text."""
    made = example(generator)
    count = sum(made.loss_mask)
    if float(torch.rand(1, generator=generator)) < 0.3:
        return made, None
    old = -4 + torch.rand(count, generator=generator)
    old_values, advantages, returns = torch.randn(3, count, generator=generator)
    return made, (old, old_values, advantages, returns)


def plain_row(generator):
    ids = torch.randint(1, VOCABULARY, (LENGTH + 1,), generator=generator)
    return ids, torch.rand(LENGTH, generator=generator) + 0.1


def answered_or_text(generator):
    """A conversation, or a row of replayed text as (inputs, what they predict)."""
    if float(torch.rand(1, generator=generator)) < 0.4:
        return torch.randint(1, VOCABULARY, (LENGTH + 1,), generator=generator)
    return example(generator)


def log_probs(model, made):
    """Log-probability of every learnt token of one sequence, float64."""
    logits = model(input_ids=torch.tensor([made.tokens])).logits[0, :-1].double()
    picked = logits.log_softmax(-1).gather(1, torch.tensor(made.tokens[1:])[:, None])[:, 0]
    return picked[torch.tensor(made.loss_mask[1:])]


def lm_formula(model, rows, z_loss=0.0):
    losses, weights = [], []
    for ids, weight in rows:
        logits = model(input_ids=ids[None, :-1]).logits[0].double()
        loss = -logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0] + z_loss * logits.logsumexp(-1).square()
        losses.append((loss * weight.double()).sum())
        weights.append(weight.double().sum())
    return sum(losses) / sum(weights)


def likelihood_formula(model, rows):
    found = torch.cat([log_probs(model, made) for made in rows])
    return -found.sum() / len(found)


def dpo_formula(model, rows):
    losses = []
    for item in rows:
        ratio = [log_probs(model, side).sum() for side in (item.chosen, item.rejected)]
        margin = BETA * ((ratio[0] - item.reference[0]) - (ratio[1] - item.reference[1]))
        losses.append(-torch.log(torch.sigmoid(margin)))
    return sum(losses) / len(losses) + NLL * likelihood_formula(model, [item.chosen for item in rows])


def reward_formula(model, rows):
    def reward(made):
        hidden = model.policy.model(input_ids=torch.tensor([made.tokens])).last_hidden_state[0, -1]
        return model.head(hidden)[0]

    losses = [-torch.log(torch.sigmoid(reward(item.chosen) - reward(item.rejected))) for item in rows]
    return sum(losses) / len(losses)


def ppo_formula(models, rows):
    value_losses, policy_losses = [], []
    for made, remembered in (row for row in rows if row[1]):
        old, old_values, advantages, returns = (x.double() for x in remembered)
        learnt = torch.tensor(made.loss_mask[1:])
        hidden = models.value.policy.model(input_ids=torch.tensor([made.tokens])).last_hidden_state[0, :-1]
        values = models.value.head(hidden)[:, 0][learnt]
        near = torch.clamp(values, old_values - 0.15, old_values + 0.15)
        value_losses.append(0.5 * torch.maximum((values - returns) ** 2, (near - returns) ** 2))
        ratio = torch.exp(log_probs(models.policy, made) - old)
        policy_losses.append(-torch.minimum(ratio * advantages, torch.clamp(ratio, 0.8, 1.2) * advantages))
    loss = sum(torch.cat(parts).mean() for parts in (value_losses, policy_losses) if parts)
    text = [made for made, remembered in rows if not remembered]
    return loss + TEXT * likelihood_formula(models.policy, text) if text else loss


def replay_formula(model, rows):
    texts = [row for row in rows if not isinstance(row, Example)]
    answers = [row for row in rows if isinstance(row, Example)]
    loss = likelihood_formula(model, answers) if answers else 0.0
    return loss + TEXT * lm_formula(model, [(ids, torch.ones(LENGTH)) for ids in texts]) if texts else loss


def replay_batch(rows):
    texts = [row.numpy() for row in rows if not isinstance(row, Example)]
    packed = pack_batch([[row] for row in rows if isinstance(row, Example)], LENGTH, 0)
    return [append_replay(packed, np.array(texts, dtype=np.int64).reshape(-1, LENGTH + 1))]


def text_rows_batch(rows):
    ids, weights = (torch.stack(column).numpy() for column in zip(*rows, strict=True))
    return [text_batch(ids, weights)]


def experience_batch(rows):
    """Rollouts and text do not share a batch."""
    texts = [made for made, remembered in rows if not remembered]
    rollouts = [row for row in rows if row[1]]
    batches = [pad_batch(texts, 0)] if texts else []
    if rollouts:
        batch = pad_batch([made for made, _ in rollouts], 0)
        mask = batch["labels"] != -100
        for place, name in enumerate(("old", "old_values", "advantages", "returns")):
            values = torch.cat([remembered[place] for _, remembered in rollouts])
            batch[name] = torch.zeros(mask.shape).masked_scatter(mask, values)
        batches.append(batch)
    return batches


DPO = dpo_objective(BETA, NLL)
WITH_Z = text_objective(LOOP.model_copy(update={"z_loss": Z_LOSS}))
CASES = {
    "language modelling": Case(language_modelling, policy, plain_row, text_rows_batch, lm_formula),
    "z-loss": Case(WITH_Z, policy, plain_row, text_rows_batch, lambda m, rows: lm_formula(m, rows, Z_LOSS)),
    "sft, padded": Case(language_modelling, policy, example, lambda rows: [pad_batch(rows, 0)], likelihood_formula),
    "sft, packed": Case(
        language_modelling,
        policy,
        lambda generator: example(generator, LENGTH // 2),
        lambda rows: [pack_batch([rows[i : i + 2] for i in range(0, len(rows), 2)], LENGTH, 0)],
        likelihood_formula,
    ),
    "sft, replayed text": Case(replay_objective(TEXT), policy, answered_or_text, replay_batch, replay_formula),
    "reward": Case(reward_objective, reward_model, pair, lambda rows: [pair_batch(rows, 0)], reward_formula),
    "dpo": Case(DPO, policy, pair, lambda rows: [pair_batch(rows, 0)], dpo_formula),
    "dpo, two prompts": Case(DPO, policy, strangers, lambda rows: [pair_batch(rows, 0)], dpo_formula),
    "online dpo": Case(DPO, policy, rolled_out, lambda rows: [pair_batch(rows, 0)], dpo_formula),
    "control": Case(
        chosen_objective,
        policy,
        pair,
        lambda rows: [pair_batch(rows, 0)],
        lambda model, rows: likelihood_formula(model, [item.chosen for item in rows]),
    ),
    "ppo": Case(ppo_objective(PPO, lambda: False), actor_critic, experience, experience_batch, ppo_formula),
}


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def by_formula(case, rows):
    model = case.model()
    loss = case.formula(model, rows)
    loss.backward()
    return float(loss.detach()), gradients(model)


def by_loop(case, passes):
    model = case.model()
    batches = [batch for rows in passes for batch in case.batch(rows)]
    result = fit(model, case.objective, lambda _: iter([batches]), LOOP)
    return result.curve[0], gradients(model)


def agree(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=TOLERANCE)
    assert float((found[1] - expected[1]).norm() / expected[1].norm()) < TOLERANCE


@st.composite
def cuts(draw):
    """A seed for the rows of a step, and for each row the forward pass that holds it."""
    return draw(st.integers(0, 10_000)), draw(st.lists(st.integers(0, 3), min_size=2, max_size=7))


def rows_of(case, seed, count):
    generator = torch.Generator().manual_seed(seed)
    return [case.draw(generator) for _ in range(count)]


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(cut=cuts())
def test_gradient_of_a_step_is_that_of_its_formula_however_it_is_cut(name, cut):
    case, (seed, places) = CASES[name], cut
    rows, passes = rows_of(case, seed, len(places)), defaultdict(list)
    for row, place in zip(rows, places, strict=True):
        passes[place].append(row)
    agree(by_loop(case, passes.values()), by_formula(case, rows))


def _on_two_workers(rank, size):
    """Each worker's rows in two passes: loss and gradient of every objective."""
    found = {}
    for name, case in CASES.items():
        mine = rows_of(case, 5, 9)[rank::size]
        found[name] = by_loop(case, [mine[:1], mine[1:]])
    return found


def test_gradient_over_two_workers_is_that_of_the_formula():
    found = on_workers(2, _on_two_workers)
    for name, case in CASES.items():
        agree(found[name], by_formula(case, rows_of(case, 5, 9)))


def _streams(rank, size):
    """What `dpo` and `sft` train on in their step 3, each worker its part; 5 pairs and rows do not divide by two."""
    generator = torch.Generator().manual_seed(1)
    pairs, rows = [pair(generator) for _ in range(11)], [example(generator) for _ in range(23)]
    model, dense = policy(), policy()
    curves = [fit(model, DPO, lambda _: pair_stream(pairs, 5, 0, 100, 7, start_step=3), LOOP).curve]
    packed = packed_epochs(rows, length=LENGTH, rows_per_batch=5, pad_id=0, seed=7, start_step=3)
    curves.append(fit(dense, language_modelling, lambda _: packed, LOOP).curve)
    return [(*curve, gradients(trained)) for curve, trained in zip(curves, (model, dense), strict=True)]


def test_step_of_a_stage_has_the_same_rows_on_one_and_on_two_workers():
    for found, expected in zip(on_workers(2, _streams), _streams(0, 1), strict=True):
        agree(found, expected)
