"""The `smoke` recipe: the same DAG and code as `tiny`, with numbers so small that tests can run it.

It proves that every stage runs and that its figures are written; the figures themselves say nothing about quality.
Hardware: two CPU cores. Expected: under 4 minutes. Command: `qwenops run smoke`.
"""

from qwenops.alignment.measure_config import MeasureConfig
from qwenops.alignment.online.config import GuardConfig
from qwenops.data.collect.config import CollectConfig, PythonSource
from qwenops.data.decontaminate.config import DecontaminateConfig
from qwenops.data.dedup.config import DedupConfig
from qwenops.data.ingest.config import IngestConfig
from qwenops.data.mixture.config import MixtureConfig
from qwenops.data.quality.config import ClassifierConfig, QualityConfig
from qwenops.data.tokenizer.config import TokenizerConfig
from qwenops.data.tokens.config import TokensConfig
from qwenops.delivery.export.config import ExportConfig
from qwenops.delivery.gate_config import NotGated
from qwenops.delivery.register.config import RegisterConfig
from qwenops.delivery.report.config import ReportConfig
from qwenops.evaluation.benchmarks.config import BenchmarksConfig
from qwenops.evaluation.contamination.config import ContaminationConfig
from qwenops.evaluation.long_context.config import LongContextConfig
from qwenops.evaluation.multilingual.config import MultilingualConfig
from qwenops.evaluation.safety.config import SafetyConfig
from qwenops.generation.engine import Sampling
from qwenops.instructions.select.config import Quota, SelectConfig
from qwenops.model.sizes import Experts
from qwenops.pretraining.extend.config import ExtendConfig
from qwenops.pretraining.phases import Phase, Practice
from qwenops.pretraining.pretrain.config import PretrainConfig
from qwenops.pretraining.upcycle.config import UpcycleConfig
from qwenops.recipe.schema import Recipe
from qwenops.training.config import TrainingConfig
from qwenops_pipelines.recipes import tiny

_UNTAUGHT = "forty steps of training teach nothing that a figure could show; this recipe asks that every stage runs"
_NOT_GATED = (
    NotGated(figure="online.*", why="one episode of eight prompts gains nothing that sixteen questions could show"),
    NotGated(figure="reward.pair_accuracy", why="a handful of held-out pairs says nothing about a reward model"),
    NotGated(figure="upcycle.experts.dead", why="three steps do not even out fresh routers"),
    NotGated(figure="benchmarks.*.low", why=_UNTAUGHT),
    NotGated(figure="multilingual.same_language.*", why=_UNTAUGHT),
    NotGated(figure="safety.*", why="a model that answers nothing yet is neither safe nor unsafe"),
)


def smoke() -> Recipe:
    """Return the recipe of the test suite."""
    return Recipe(
        name="smoke",
        seed=7,
        collect=CollectConfig(
            sources=(
                PythonSource(name="python-code", packages=("stdlib",), cap_bytes=400_000),
                PythonSource(
                    name="python-docs", packages=("stdlib",), content="docstrings", domain="prose", cap_bytes=600_000
                ),
                PythonSource(
                    name="math-docs", packages=("numpy",), content="docstrings", domain="math", cap_bytes=300_000
                ),
                tiny._guide(("en", "zh_CN", "de"), 400_000),
            ),
            part_bytes=1_000_000,
        ),
        ingest=IngestConfig(extractor="resiliparse", heldout_share=0.04),
        quality=QualityConfig(
            **tiny._RULES,
            classifier=ClassifierConfig(
                num_features=1 << 14,
                num_documents=1500,
                num_characters=500,
                strict_threshold=0.3,
                relaxed_threshold=0.1,
            ),
        ),
        dedup=DedupConfig(planted_documents=60),
        decontaminate=DecontaminateConfig(sets=("continuation",), planted_items=40),
        tokenizer=TokenizerConfig(vocabulary=512, sample_bytes=300_000, measured_bytes=50_000),
        mixture=MixtureConfig(
            proxies=10,
            hidden_size=32,
            num_layers=1,
            num_heads=2,
            context_length_tokens=64,
            sample_bytes=60_000,
            measured_rows=4,
            planned_tokens=200_000,
            simulated=2000,
            averaged=20,
            training=TrainingConfig(
                steps=6,
                batch_tokens=512,
                learning_rate=1e-2,
                final_learning_rate=1e-3,
                warmup_steps=1,
                schedule="wsd",
                optimizer="muon",
                precision="fp32",
            ),
        ),
        tokens=TokensConfig(checked_documents=50),
        pretrain=PretrainConfig(
            # The smoke tokenizer has 512 tokens.
            size=tiny.TINY_SIZE.model_copy(update={"vocab_rows": 512}),
            initializer_range=0.06,
            phases=(Phase(length=64, steps=30), Phase(length=128, steps=10)),
            practice=Practice(needle_share=0.25),
            training=TrainingConfig(
                steps=40,
                batch_tokens=2048,
                learning_rate=4e-3,
                final_learning_rate=4e-4,
                warmup_steps=5,
                schedule="wsd",
                optimizer="muon",
                checkpoint_every_steps=20,
            ),
            evaluation_tokens=4096,
            evaluation_needles=16,
        ),
        extend=ExtendConfig(
            phases=(Phase(length=256, steps=6),),
            practice=Practice(needle_share=0.25),
            training=TrainingConfig(
                steps=6,
                batch_tokens=4096,
                learning_rate=2e-3,
                final_learning_rate=2e-4,
                warmup_steps=2,
                schedule="wsd",
                decay_share=0.5,
                optimizer="muon",
                checkpoint_every_steps=3,
            ),
            evaluation_tokens=4096,
            evaluation_needles=16,
        ),
        upcycle=UpcycleConfig(
            experts=Experts(num_experts=4, num_active=2, expert_width=32, shared_width=64),
            length=64,
            training=TrainingConfig(
                steps=3,
                batch_tokens=512,
                learning_rate=1e-3,
                final_learning_rate=1e-4,
                warmup_steps=1,
                checkpoint_every_steps=100,
            ),
            heldout_tokens=512,
        ),
        ontology=tiny.ONTOLOGY.model_copy(
            update={"tasks_per_kind": 60, "heldout_per_kind": 10, "document_instructions": 20}
        ),
        select=SelectConfig(
            size=300,
            quotas=(
                Quota(source="verifiable", rows=240),
                Quota(source="documents", rows=10),
                Quota(source="safety", rows=50),
            ),
        ),
        evolve=tiny.EVOLVE.model_copy(
            update={"verifiable_demonstrations": 120, "demonstrations_per_source": 10, "heldout_evolved": 5}
        ),
        sft_seed=tiny.SFT_SEED.model_copy(
            update={
                "training": tiny.SFT_SEED.training.model_copy(
                    update={"steps": 4, "batch_tokens": 1024, "warmup_steps": 0}
                ),
                "measure": MeasureConfig(prompts=16, max_new_tokens=4),
            }
        ),
        rank=tiny.RANK.model_copy(update={"prompts": 24}),
        synthesize=tiny.SYNTHESIZE.model_copy(
            update={
                "rejection_prompts": 60,
                "rejection_rounds": 1,
                "rejection_sampling": Sampling(temperature=1.0, n=3, max_new_tokens=12),
                "programs_per_task": 3,
                "following_instructions": 4,
                "repurposed_documents": 5,
                "constitution_prompts": 60,
            }
        ),
        sft=tiny.SFT.model_copy(
            update={
                "training": tiny.SFT.training.model_copy(update={"steps": 4, "batch_tokens": 1024, "warmup_steps": 0}),
                "measure": MeasureConfig(prompts=16, max_new_tokens=4),
            }
        ),
        reward=tiny.REWARD.model_copy(
            update={"pretraining_pairs": 32, "pairs": 64, "pairs_per_step": 16, "heldout_pairs": 32}
        ),
        dpo=tiny.DPO.model_copy(
            update={
                "training": tiny.DPO.training.model_copy(update={"steps": 3, "warmup_steps": 0}),
                "pairs_per_step": 8,
                "measure": MeasureConfig(prompts=16, max_new_tokens=4),
            }
        ),
        online=tiny.ONLINE.model_copy(
            update={
                "episodes": 1,
                # A model of forty steps solves nothing.
                "screened_prompts": 0,
                "compare_with": "adamw",
                "prompts_per_episode": 8,
                "samples": 2,
                "pairs_per_step": 4,
                "max_new_tokens": 4,
                "guard": GuardConfig(prompts=8),
                "measure": MeasureConfig(prompts=16, max_new_tokens=4),
            }
        ),
        benchmarks=BenchmarksConfig(
            tasks=("continuation", "verifiable"),
            limit_items=4,
            max_shots=1,
            max_new_tokens=8,
            verifiable_per_kind=4,
        ),
        long_context=LongContextConfig(
            multiples=(1, 2, 4, 8),
            depths=(0.1, 0.5, 0.9),
            needles_per_depth=2,
            text_tokens=256,
        ),
        safety=SafetyConfig(languages=("en", "zh"), limit_per_cell=2, max_new_tokens=8),
        multilingual=MultilingualConfig(tokens_per_language=500, prompts_per_language=1, max_new_tokens=8),
        contamination=ContaminationConfig(),
        export=ExportConfig(
            model_name="qwenops-smoke-chat",
            dtype="float32",
            decoding="greedy",
            repetition_penalty=1.0,
            compared_tokens=64,
            quickstart_prompt="Reverse 4 1 7 2.",
            quickstart_new_tokens=16,
        ),
        register=RegisterConfig(model_name="qwenops-smoke-chat", not_gated=_NOT_GATED),
        report=ReportConfig(),
    )
