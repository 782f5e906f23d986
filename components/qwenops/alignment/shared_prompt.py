"""A prompt is computed once for both answers of a pair: one row holds prompt, chosen and rejected answer.

The rejected answer does not see the chosen one and its positions follow the prompt's, so every hidden state is that of
the two rows it stands for, up to rounding. Pairs of a long prompt and short answers take little more than half of the
tokens ("prefix sharing", Wang and Hegde 2024, arXiv:2410.20305). It takes a mask of row length squared: longer rows
than `MOST_TOKENS` are computed as two, by the causal kernel.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qwenops.model import sdpa
from qwenops.training.loss import hidden_states
from qwenops.training.terms import Batch

# House choices: 64 such masks of one byte an entry are 256 MB; a mask costs about what a sixth of the tokens does.
MOST_TOKENS = 2048
_WORTH_IT = 5 / 6
# Attention functions that read a mask of booleans.
_MASKED = (sdpa.NAME, "sdpa")


def shared_length(chosen: Sequence[int], rejected: Sequence[int]) -> int:
    """Tokens that both rows begin with; each keeps at least its last one to itself."""
    most = min(len(chosen), len(rejected)) - 1
    return next((place for place in range(most) if chosen[place] != rejected[place]), max(most, 0))


def share_prompts(pairs: Sequence[tuple[Sequence[int], Sequence[int]]], pad_id: int) -> Batch:
    """Rows of [prompt, chosen, rejected] beside the padded rows of a pair batch.

    Args:
        pairs: Tokens of both sides, prompt included.
        pad_id: Fills the rows.

    Returns:
        Of P pairs whose longer sides have at most L tokens, in rows of T: `shared_ids` and `shared_positions` int64
        [P, T]; `shared_prompts` and `shared_chosen` int64 [P], where the prompt and the chosen answer end; and
        `shared_places` int64 [2 P, L], where the tokens of the chosen and then of the rejected sides lie in the
        flattened rows. Empty where two rows a pair are no dearer.
    """
    prompts = [shared_length(*pair) for pair in pairs]
    length = max(
        len(chosen) + len(rejected) - prompt for (chosen, rejected), prompt in zip(pairs, prompts, strict=True)
    )
    longest = max(len(side) for pair in pairs for side in pair)
    if length > MOST_TOKENS or length > _WORTH_IT * 2 * longest:
        return {}
    ids = torch.full((len(pairs), length), pad_id, dtype=torch.int64)
    positions = torch.zeros_like(ids)
    places = torch.zeros((2, len(pairs), longest), dtype=torch.int64)
    for row, ((chosen, rejected), prompt) in enumerate(zip(pairs, prompts, strict=True)):
        middle, end = len(chosen), len(chosen) + len(rejected) - prompt
        ids[row, :end] = torch.tensor([*chosen, *rejected[prompt:]])
        positions[row, :middle] = torch.arange(middle)
        positions[row, middle:end] = torch.arange(prompt, len(rejected))
        first = row * length
        places[0, row, :middle] = torch.arange(first, first + middle)
        places[1, row, :prompt] = torch.arange(first, first + prompt)
        places[1, row, prompt : len(rejected)] = torch.arange(first + middle, first + end)
    return {
        "shared_ids": ids,
        "shared_positions": positions,
        "shared_prompts": torch.tensor(prompts),
        "shared_chosen": torch.tensor([len(chosen) for chosen, _ in pairs]),
        "shared_places": places.flatten(0, 1),
    }


def hidden_states_at(model: Any, batch: Batch, places: Tensor) -> Tensor:
    """Hidden states [targets, hidden] at the places of a padded batch that `places`, bool [rows, length], marks.

    Args:
        model: A causal language model.
        batch: `input_ids` and `attention_mask`, and for pairs what `share_prompts` returns.
        places: In the order of the rows.
    """
    if "shared_ids" not in batch or model.config._attn_implementation not in _MASKED:
        return hidden_states(model, batch["input_ids"], batch.get("attention_mask"))[places]
    mask = _sees(batch["shared_prompts"], batch["shared_chosen"], batch["shared_ids"].shape[1])
    hidden = hidden_states(model, batch["shared_ids"], mask[:, None], batch["shared_positions"])
    return hidden.flatten(0, 1).index_select(0, batch["shared_places"][places])


def _sees(prompts: Tensor, chosen: Tensor, length: int) -> Tensor:
    """Bool [P, T, T]: whether a token sees another: one before it that is not in the other answer."""
    place = torch.arange(length, device=prompts.device)
    in_chosen = (place >= prompts[:, None]) & (place < chosen[:, None])
    is_rejected = place >= chosen[:, None]
    return (place[:, None] >= place) & ~(is_rejected[:, :, None] & in_chosen[:, None, :])
