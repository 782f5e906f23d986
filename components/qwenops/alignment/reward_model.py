"""The reward model: a Qwen2 of the policy's size whose reward is read at the last end token.

A linear layer maps the hidden state at the closing `<|im_end|>` to one number (Qwen1, section 3.2.1: a pooling layer
that reads the reward at a specific end token). Rows are padded on the right, so the reward does not depend on the
padding. The folder is an ordinary checkpoint plus `reward_head.safetensors` and `reward.json`.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qwenops.alignment.examples import encode_response, pad_id_of
from qwenops.alignment.shared_prompt import hidden_states_at
from qwenops.contracts.conversation import Message
from qwenops.errors import ContractError
from qwenops.model.checkpoints import load_model
from qwenops.training.batching import pad_batch
from qwenops.training.terms import Batch

HEAD, FACTS = "reward_head.safetensors", "reward.json"


@dataclass(frozen=True)
class RewardScale:
    """Mean and deviation of the raw rewards on held-out responses; makes scores of two models comparable."""

    mean: float = 0.0
    deviation: float = 1.0


class RewardModel(nn.Module):
    """A decoder and a linear head on its last real position.

    Args:
        policy: A causal language model; its decoder body becomes part of this module.
        scale: Standardisation that `score` applies.
    """

    def __init__(self, policy: PreTrainedModel, scale: RewardScale | None = None) -> None:
        super().__init__()
        self.policy = policy
        self.scale = scale or RewardScale()
        self.head = nn.Linear(policy.config.hidden_size, 1)
        nn.init.normal_(self.head.weight, std=1.0 / (policy.config.hidden_size + 1) ** 0.5)
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: Batch) -> Tensor:
        """Raw rewards [rows] of a batch of right-padded rows that end with `<|im_end|>`."""
        ends = batch["attention_mask"].sum(1, keepdim=True) - 1
        places = torch.arange(batch["attention_mask"].shape[1], device=ends.device) == ends
        return self.head(hidden_states_at(self.policy, batch, places)).squeeze(-1).float()


def save_reward_head(model: RewardModel, folder: Path) -> None:
    """Write the head and the scale beside the backbone's checkpoint in `folder`."""
    save_file({name: tensor.detach().contiguous() for name, tensor in model.head.state_dict().items()}, folder / HEAD)
    (folder / FACTS).write_text(json.dumps(asdict(model.scale), indent=1, sort_keys=True), encoding="utf-8")


def load_reward_model(folder: Path) -> RewardModel:
    """Load what the reward stage published.

    Raises:
        ContractError: the folder holds a checkpoint but no reward head.
    """
    missing = [name for name in (HEAD, FACTS) if not (folder / name).is_file()]
    if missing:
        raise ContractError(
            f"{folder} is not a reward model",
            expected=f"{HEAD} and {FACTS} beside a checkpoint",
            found=f"no {', '.join(missing)}",
            action="run the reward stage again",
        )
    scale = RewardScale(**json.loads((folder / FACTS).read_text(encoding="utf-8")))
    model = RewardModel(load_model(folder), scale)
    model.head.load_state_dict(load_file(folder / HEAD))
    return model.eval()


@torch.inference_mode()
def score(
    model: RewardModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[Message]],
    responses: Sequence[str],
    batch_size: int = 256,
) -> list[float]:
    """Standardised rewards of responses, one per prompt, in the order given."""
    model.eval()
    examples = [encode_response(tokenizer, *row) for row in zip(prompts, responses, strict=True)]
    order = sorted(range(len(examples)), key=lambda index: len(examples[index].tokens))
    rewards = [0.0] * len(examples)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = pad_batch([examples[index] for index in chosen], pad_id_of(tokenizer))
        for index, reward in zip(chosen, unscaled_rewards(model, batch).tolist(), strict=True):
            rewards[index] = (reward - model.scale.mean) / model.scale.deviation
    return rewards


def unscaled_rewards(model: nn.Module, batch: Batch) -> Tensor:
    """Raw rewards [rows] of a padded batch."""
    device = next(model.parameters()).device
    return model({name: value.to(device) for name, value in batch.items() if isinstance(value, Tensor)})
