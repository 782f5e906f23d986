"""`Recipe`: what is trained, as one frozen value with one field per node of the DAG.

Reading a recipe imports the stages' `config.py` files only, so it costs no torch. Checks that concern one
stage stand in that stage's config; checks across stages stand here.
"""

import warnings
from typing import Any

from pydantic import Field, model_validator

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
from qwenops.delivery.register.config import RegisterConfig
from qwenops.delivery.report.config import ReportConfig
from qwenops.evaluation.benchmarks.config import BenchmarksConfig
from qwenops.evaluation.contamination.config import ContaminationConfig
from qwenops.evaluation.long_context.config import LongContextConfig
from qwenops.evaluation.multilingual.config import MultilingualConfig
from qwenops.evaluation.safety.config import SafetyConfig
from qwenops.instructions.evolve.config import EvolveConfig
from qwenops.instructions.ontology.config import OntologyConfig
from qwenops.instructions.rank.config import RankConfig
from qwenops.instructions.select.config import SelectConfig
from qwenops.instructions.synthesize.config import SynthesizeConfig
from qwenops.pretraining.extend.config import ExtendConfig
from qwenops.pretraining.pretrain.config import PretrainConfig
from qwenops.pretraining.upcycle.config import UpcycleConfig
from qwenops.recipe.addresses import check_path, check_readable
from qwenops.recipe.codec import decode
from qwenops.recipe.config import Config
from qwenops.recipe.slice import Slice

RECIPE_VERSION = 1

# pydantic warns that a field hides `ABCMeta.register`, which no config uses; the stage's name is worth more.
warnings.filterwarnings("ignore", message='Field name "register" in "Recipe" shadows', category=UserWarning)


class Recipe(Config):
    """Everything that decides what a run produces. Where it runs is a `Placement` and never stands here."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        max_length=63,
        description="Name of the recipe; house choice: the recipe function's name, fit for a folder and for Kubeflow.",
    )
    recipe_version: int = Field(
        default=RECIPE_VERSION,
        description="Layout of this object; house choice: old recipes are issued again, not converted.",
    )
    seed: int = Field(
        ge=0, description="Seed of every random choice of the run; house choice: one seed, mixed by stage."
    )

    collect: CollectConfig
    ingest: IngestConfig
    quality: QualityConfig
    dedup: DedupConfig
    decontaminate: DecontaminateConfig
    tokenizer: TokenizerConfig
    mixture: MixtureConfig
    tokens: TokensConfig
    pretrain: PretrainConfig
    extend: ExtendConfig
    upcycle: UpcycleConfig
    ontology: OntologyConfig
    select: SelectConfig
    evolve: EvolveConfig
    sft_seed: SftConfig
    rank: RankConfig
    synthesize: SynthesizeConfig
    sft: SftConfig
    reward: RewardConfig
    dpo: DpoConfig
    online: OnlineConfig
    benchmarks: BenchmarksConfig
    long_context: LongContextConfig
    safety: SafetyConfig
    multilingual: MultilingualConfig
    contamination: ContaminationConfig
    export: ExportConfig
    register: RegisterConfig
    report: ReportConfig

    @model_validator(mode="after")
    def _lengths_grow(self) -> "Recipe":
        short, long = self.pretrain.phases[-1].length, self.extend.phases[-1].length
        # Weights that exist may read further than their rows here; then extend trains on and says so.
        if long < short or (long == short and not self.pretrain.init_from):
            raise ValueError(f"extend.phases to end above the {short} tokens that pretrain ends at: not {long}")
        return self

    @model_validator(mode="after")
    def _embedding_holds_the_vocabulary(self) -> "Recipe":
        rows, vocabulary = self.pretrain.size.vocab_rows, self.tokenizer.vocabulary
        if rows < vocabulary:
            raise ValueError(f"pretrain.size.vocab_rows is {rows}, below tokenizer.vocabulary {vocabulary}")
        return self

    @model_validator(mode="after")
    def _experts_come_from_a_dense_model(self) -> "Recipe":
        size, upcycle = self.pretrain.size, self.upcycle
        if size.experts:
            raise ValueError("pretrain.size.experts of null: upcycle makes the experts of a dense model")
        if upcycle.start == "function_preserving" and upcycle.experts.shared_width < size.intermediate_size:
            raise ValueError(
                f"upcycle.experts.shared_width of at least {size.intermediate_size}, the dense layer's, to start "
                f"function_preserving: not {upcycle.experts.shared_width}"
            )
        return self

    @model_validator(mode="after")
    def _places_can_be_read(self) -> "Recipe":
        for node in NODES:
            for thing in getattr(self, node).outside():
                try:
                    (check_readable if node == "collect" and thing.kind == "files" else check_path)(thing.name)
                except ValueError as error:
                    raise ValueError(f"{node}: {error}") from None
        return self

    @model_validator(mode="after")
    def _engines_can_be_opened(self) -> "Recipe":
        lacking = [
            f"{node}.{use.field}.{field}"
            for node in NODES
            for use in getattr(self, node).engines()
            for field in use.engine.lacking(has_own_model=use.has_own_model)
        ]
        if lacking:
            raise ValueError(f"what these engines need: {'; '.join(lacking)}")
        return self

    @model_validator(mode="after")
    def _weights_have_their_tokenizer(self) -> "Recipe":
        weights, tokenizer = self.pretrain.init_from, self.tokenizer.init_from
        if weights != tokenizer:
            raise ValueError(
                f"tokenizer.init_from is {tokenizer!r} and pretrain.init_from {weights!r}; they must be the same source"
            )
        return self


NODES: tuple[str, ...] = tuple(name for name in Recipe.model_fields if name not in ("name", "recipe_version", "seed"))
# Stages that make rows to learn from; where they name no evaluation sets, they follow `decontaminate`.
_CLEANED = ("ontology", "evolve", "rank", "synthesize")


def read_recipe(text: str) -> Recipe:
    """The one door from text to a recipe: a process passes it once and hands the value on.

    Args:
        text: Canonical (or any) JSON text of a `Recipe`.

    Raises:
        RecipeError: the text is no valid recipe; names the dotted path.
    """
    return decode(Recipe, text)


def resolve(recipe: Recipe) -> dict[str, Slice[Config]]:
    """Cut a recipe into one slice per node; what a stage leaves to another's config is filled in."""
    configs: dict[str, Any] = {node: getattr(recipe, node) for node in NODES}
    for node in _CLEANED:
        rule = configs[node].decontamination or recipe.decontaminate.rule_of_rows()
        configs[node] = configs[node].model_copy(update={"decontamination": rule})
    # The card is written before the gate speaks.
    configs["export"] = recipe.export.model_copy(update={"not_gated": recipe.register.not_gated})
    return {node: Slice(node=node, seed=recipe.seed, config=config) for node, config in configs.items()}
