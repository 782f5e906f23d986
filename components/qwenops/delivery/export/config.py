"""What the export stage writes and checks."""

from typing import Literal

from pydantic import Field

from qwenops.delivery.gate_config import NotGated
from qwenops.recipe.config import Config


class ExportConfig(Config):
    """Settings of the exported folder: its number type, its default sampling, its card and its checks."""

    model_name: str = Field(
        default="qwenops-chat",
        min_length=1,
        description="Name in the model card. house choice: the folder's own name is a fingerprint.",
    )
    license: str = Field(
        default="apache-2.0", description="SPDX id in the card; most released sizes use Apache-2.0. §1."
    )
    not_gated: tuple[NotGated, ...] = Field(
        default=(),
        description="What the gate does not judge, for the card. house choice: a recipe fills it from "
        "`register.not_gated`, where it is set.",
    )
    dtype: Literal["bfloat16", "float32"] = Field(
        default="bfloat16", description="Number type of the weights, as in the released folders. §1."
    )
    decoding: Literal["sample", "greedy"] = Field(
        default="sample", description="What `generate` does by default. house choice: the released chat models sample."
    )
    temperature: float = Field(
        default=0.7,
        gt=0,
        description="Default sampling temperature. house choice: generation_config of the released models.",
    )
    top_p: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Default nucleus share. house choice: generation_config of the released models.",
    )
    top_k: int = Field(
        default=20,
        ge=0,
        description="Default top-k, 0 for none. house choice: generation_config of the released models.",
    )
    repetition_penalty: float = Field(
        default=1.05,
        ge=1,
        description="Default repetition penalty. house choice: generation_config of the released models.",
    )
    long_context: Literal["plain", "yarn", "dca"] = Field(
        default="plain",
        description="Mode written into config.json, for inputs of up to four times the trained length. §2.2.1. "
        "house choice: plain, because a written mode holds for short inputs too.",
    )
    logit_tolerance: float = Field(
        default=1e-4,
        gt=0,
        description="Largest logit difference allowed between the trained model and the folder, both in float32. "
        "house choice: float32 rounding of a few layers stays below it.",
    )
    compared_tokens: int = Field(
        default=512,
        ge=2,
        description="Held-out tokens the two are compared on. house choice: enough to reach every layer.",
    )
    quickstart: Literal["run", "skip"] = Field(
        default="run",
        description="Run the transformers quickstart on the folder in a process that cannot import this project. "
        "house choice: an export is worth what a stranger can load.",
    )
    quickstart_prompt: str = Field(
        default="Give me a short introduction to large language model.",
        description="Prompt of the quickstart. house choice: the sentence of the released model cards.",
    )
    quickstart_new_tokens: int = Field(
        default=512,
        ge=1,
        description="Longest answer of the quickstart. house choice: the figure of the released model cards.",
    )
    quickstart_timeout_seconds: int = Field(
        default=600,
        ge=1,
        description="Longest time the quickstart may take. house choice: a loading folder needs far less.",
    )
