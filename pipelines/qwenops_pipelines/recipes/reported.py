"""What the recipes of the report's five models share: `reported` turns a size and its token counts into a recipe.

The report publishes sizes, token counts, lengths, RoPE bases and the rates of post-training; these are the defaults of
the stages' configs or stand here. It publishes no rate, batch or optimiser of pre-training: those are Qwen1's (4 M
tokens per step, AdamW, 3e-4 to a tenth of it by cosine), and the last 5 % of the tokens train the long context at the
rate the main phase ended with. Every model is upcycled too, because the DAG has that stage; only 57B-A14B is in the
report.

A run reads its text from `collect.sources` and the official benchmarks from `benchmarks.folder` and
`decontaminate.folder`; set them with `--set`. The default `rank.judge` is people, as in the report. vLLM generates, in
the `train` image; a placement without it refuses these recipes and names every engine.
"""

from typing import Literal, TypeVar

from qwenops.alignment.dpo.config import DpoConfig
from qwenops.alignment.online.config import OnlineConfig
from qwenops.alignment.reward.config import RewardConfig
from qwenops.alignment.sft.config import SftConfig
from qwenops.data.collect.config import CollectConfig
from qwenops.data.decontaminate.config import DecontaminateConfig
from qwenops.data.dedup.config import DedupConfig
from qwenops.data.ingest.config import IngestConfig
from qwenops.data.mixture.config import MixtureConfig
from qwenops.data.quality.config import QualityConfig
from qwenops.data.tokenizer.config import TokenizerConfig
from qwenops.data.tokens.config import TokensConfig
from qwenops.delivery.export.config import ExportConfig
from qwenops.delivery.gate_config import Rule
from qwenops.delivery.register.config import RegisterConfig
from qwenops.delivery.report.config import ReportConfig
from qwenops.evaluation.benchmarks.config import BenchmarksConfig
from qwenops.evaluation.contamination.config import ContaminationConfig
from qwenops.evaluation.long_context.config import LongContextConfig
from qwenops.evaluation.multilingual.config import MultilingualConfig
from qwenops.evaluation.safety.config import SafetyConfig
from qwenops.generation.config import EngineConfig
from qwenops.instructions.evolve.config import EvolveConfig
from qwenops.instructions.ontology.config import OntologyConfig
from qwenops.instructions.rank.config import RankConfig
from qwenops.instructions.select.config import SelectConfig
from qwenops.instructions.synthesize.config import SynthesizeConfig
from qwenops.model.sizes import Experts, Size
from qwenops.pretraining.extend.config import ExtendConfig
from qwenops.pretraining.phases import Phase
from qwenops.pretraining.pretrain.config import PretrainConfig
from qwenops.pretraining.upcycle.config import UpcycleConfig
from qwenops.recipe.schema import Recipe
from qwenops.training.config import TrainingConfig

TRILLION = 10**12
_BATCH_TOKENS = 4_194_304
_LONG_SHARE = 0.05
_ENGINE = EngineConfig(kind="vllm", precision="bf16")
# Tags and harder instructions come from Qwen models (section 4.1.1), which are not named: the largest chat model
# released before Qwen2 whose weights, 65 GB in bf16, one H200 holds. It is fetched from the Hub; a folder does as well.
_EARLIER = _ENGINE.model_copy(update={"model": "Qwen/Qwen1.5-32B-Chat"})
# A conversion that is not in the report is trained just long enough to see whether it recovers.
_SHORT_CONVERSION = 25 * 10**9
# A row of the long context in a pass where weights are divided, two short rows where every worker holds them whole; of
# each layer its input alone is kept. By `qwenops plan` 0.5B, 1.5B and 7B's pre-training then fit on one node of eight
# H200; 7B's post-training, whose weights are whole on each, lacks little, and the larger models need more nodes.
_LONG_PASSES = {"micro_batch_tokens": 32_768, "recompute": "layers"}
_SHORT_PASSES = {"micro_batch_tokens": 4096, "recompute": "layers"}
_Config = TypeVar("_Config", SftConfig, RewardConfig, DpoConfig, OnlineConfig)


def reported(
    name: str,
    size: Size,
    *,
    tokens: int,
    text: Literal["strict", "relaxed"] = "strict",
    learning_rate: float = 3e-4,
    experts: Experts | None = None,
    upcycle_tokens: int = _SHORT_CONVERSION,
) -> Recipe:
    """Return the recipe of a model of the report.

    Args:
        name: Name of the recipe.
        size: Dense dimensions (section 2.2.3).
        tokens: Pre-training tokens, both phases together (section 3.1).
        text: Set of `quality` to train on (section 3.1): strict (7 trillion tokens), relaxed (12) for 0.5B alone.
        learning_rate: Peak rate; not published.
        experts: Layout of the upcycled mixture; by default 57B-A14B's, scaled with the width of the dense layer.
        upcycle_tokens: Tokens the mixture is trained on (section 3.1: 4.5 trillion for 57B-A14B).
    """
    steps = tokens // _BATCH_TOKENS
    long_steps = round(_LONG_SHARE * steps)
    final = learning_rate / 10
    upcycle_steps = upcycle_tokens // _BATCH_TOKENS
    return Recipe(
        name=name,
        seed=1,
        collect=CollectConfig(),
        ingest=IngestConfig(),
        quality=QualityConfig(keep=text),
        dedup=DedupConfig(),
        decontaminate=DecontaminateConfig(),
        tokenizer=TokenizerConfig(),
        mixture=MixtureConfig(planned_tokens=tokens),
        tokens=TokensConfig(),
        pretrain=PretrainConfig(
            size=size,
            phases=(Phase(length=4096, steps=steps - long_steps),),
            training=TrainingConfig(
                steps=steps - long_steps,
                learning_rate=learning_rate,
                final_learning_rate=final,
                warmup_steps=2000,
                **_LONG_PASSES,
            ),
        ),
        extend=ExtendConfig(
            phases=(Phase(length=32_768, steps=long_steps),),
            training=TrainingConfig(
                steps=long_steps, learning_rate=final, final_learning_rate=final / 10, warmup_steps=100, **_LONG_PASSES
            ),
        ),
        upcycle=UpcycleConfig(
            experts=experts or scaled_experts(size),
            training=TrainingConfig(
                steps=upcycle_steps,
                learning_rate=learning_rate,
                final_learning_rate=final,
                warmup_steps=2000,
                **_SHORT_PASSES,
            ),
            control="none",
        ),
        ontology=OntologyConfig(engine=_EARLIER),
        select=SelectConfig(),
        evolve=EvolveConfig(engine=_EARLIER),
        sft_seed=_in_short_passes(SftConfig()),
        rank=RankConfig(engine=_ENGINE),
        synthesize=SynthesizeConfig(engine=_ENGINE, writer_engine=_ENGINE),
        sft=_in_short_passes(SftConfig()),
        reward=_in_short_passes(RewardConfig()),
        dpo=_in_short_passes(DpoConfig()),
        online=_in_short_passes(OnlineConfig()),
        benchmarks=BenchmarksConfig(engine=_ENGINE),
        long_context=LongContextConfig(),
        safety=SafetyConfig(engine=_ENGINE),
        multilingual=MultilingualConfig(engine=_ENGINE),
        contamination=ContaminationConfig(),
        export=ExportConfig(model_name=name.replace("_", "-") + "-instruct"),
        register=RegisterConfig(
            model_name=name.replace("_", "-") + "-instruct",
            # Four times the trained 32,768 tokens: the report's longest input.
            rules=(Rule(figure="long_context.niah.dca.4x.accuracy", bound="at_least", value=0.7),),
        ),
        report=ReportConfig(),
    )


def _in_short_passes(config: _Config) -> _Config:
    return config.model_copy(update={"training": config.training.model_copy(update=_SHORT_PASSES)})


def scaled_experts(size: Size) -> Experts:
    """57B-A14B's layout at another width: 64 experts, 8 active, the same share of the dense layer in each.

    Widths are multiples of 64. The shared expert is as wide as 8 routed ones and holds a whole dense layer.
    """
    width = round(size.intermediate_size * 2560 / 18_944 / 64) * 64
    return Experts(num_experts=64, num_active=8, expert_width=width, shared_width=8 * width)
