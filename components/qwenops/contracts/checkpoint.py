"""What a checkpoint folder must hold: a stock transformers model folder, and four facts about how it was trained.

The folder is readable by `AutoModelForCausalLM` and `AutoTokenizer` without this project. `checkpoint.json` lies beside
`config.json` and says what transformers has no field for: the length the weights were trained at (not the
length the config allows), the tokens seen, and which checkpoint this one came from.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from qwenops.errors import ContractError

CHECKPOINT = "checkpoint.json"
REQUIRED_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", CHECKPOINT)


@dataclass(frozen=True)
class CheckpointFacts:
    """How a checkpoint was trained.

    Attributes:
        context_length_tokens: Longest sequence the weights were trained at.
        rope_theta: Base of the rotary position embedding, equal to the one in `config.json`.
        tokens_seen: Tokens trained on so far, ancestors included.
        parent: Name of the checkpoint it continues; empty for a fresh model.
    """

    context_length_tokens: int
    rope_theta: float
    tokens_seen: int
    parent: str = ""


def write_facts(directory: Path, facts: CheckpointFacts) -> None:
    """Write `facts` beside the model's files."""
    (directory / CHECKPOINT).write_text(json.dumps(asdict(facts), indent=1, sort_keys=True), encoding="utf-8")


def read_facts(directory: Path) -> CheckpointFacts:
    """Check a checkpoint folder and return its facts.

    Raises:
        ContractError: a file is missing, or `checkpoint.json` does not hold the four facts, or its RoPE base is
            not the one of `config.json`.
    """
    missing = [name for name in REQUIRED_FILES if not (directory / name).is_file()]
    if not list(directory.glob("*.safetensors")):
        missing.append("model.safetensors")
    if missing:
        raise ContractError(
            f"{directory} is not a checkpoint",
            expected="a folder with " + ", ".join(REQUIRED_FILES),
            found=f"no {', '.join(missing)}",
            action="run the stage that writes the checkpoint again",
        )
    try:
        facts = CheckpointFacts(**json.loads((directory / CHECKPOINT).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ContractError(
            f"unreadable {directory / CHECKPOINT}",
            expected=", ".join(CheckpointFacts.__annotations__),
            found=error,
            action="run the stage that writes the checkpoint again",
        ) from None
    _check_rope_theta(directory, facts)
    return facts


def _check_rope_theta(directory: Path, facts: CheckpointFacts) -> None:
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    if config.get("rope_theta") != facts.rope_theta:
        raise ContractError(
            f"{directory} disagrees with itself about the RoPE base",
            expected=f"{facts.rope_theta} in config.json",
            found=config.get("rope_theta"),
            action="write the folder with qwenops.model.checkpoints.save_checkpoint",
        )
