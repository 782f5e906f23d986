"""Which engine generates, and how it is reached."""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from pydantic import Field

from qwenops.recipe.config import Config
from qwenops.recipe.outside import Outside

_URL = re.compile(r"https?://[^/\s]+")


class EngineConfig(Config):
    """One generation engine."""

    kind: Literal["in_process", "vllm", "endpoint"] = Field(
        default="in_process", description="Who runs the model. house choice: the stage's own process needs no server."
    )
    model: str = Field(
        default="",
        description="Folder or hub id (owner/name[@revision]), or a server's name for its model; empty means the "
        "stage's checkpoint. house choice: its own model.",
    )
    url: str = Field(
        default="", description="Base URL of an OpenAI-compatible endpoint, up to /v1. house choice: none by default."
    )
    api: Literal["completions", "chat"] = Field(
        default="completions",
        description="Endpoint route; completions sends the rendered text as it is. house choice: exact prompts.",
    )
    api_key_variable: str = Field(
        default="", description="Environment variable that holds the key. house choice: a recipe never holds a secret."
    )
    timeout_seconds: float = Field(
        default=120.0, gt=0, description="Wait for one request. house choice: a long answer on a busy server."
    )
    max_retries: int = Field(
        default=4, ge=0, description="Attempts after the first, on busy or broken answers. house choice: about 15 s."
    )
    concurrency: int = Field(default=16, ge=1, description="Requests in flight. house choice: fills one server.")
    batch_tokens: int = Field(
        default=65536, ge=1, description="Cached tokens per in-process batch. house choice: under 1 GB for 7B layers."
    )
    long_context: Literal["plain", "yarn", "dca"] = Field(
        default="plain",
        description="How inputs beyond the trained length are read, §2.2.1. house choice: plain, most are short.",
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="Arithmetic of the in-process engine. house choice: exact on a CPU."
    )

    def weights(self) -> Iterator[Outside]:
        """The model that is loaded where this engine is opened, if it is named."""
        if self.model and self.kind != "endpoint":
            yield Outside("model", self.model)

    def lacking(self, *, has_own_model: bool) -> Iterator[str]:
        """Fields without which this engine cannot be opened, each with what it must hold.

        Args:
            has_own_model: Whether the stage has a checkpoint that it generates with where none is named.
        """
        if self.kind == "endpoint":
            if not _URL.match(self.url):
                yield "url (http:// or https:// address of the server)"
            if not self.model:
                yield "model (the name that the server knows it by)"
            if self.long_context != "plain":
                yield "long_context plain (the server decides how it reads long inputs)"
        elif not self.model and not has_own_model:
            yield "model (a folder or a hub id; the stage has no model of its own)"


class EngineUse(NamedTuple):
    """One engine that a stage opens: its dotted path in the config, and whether the stage has a model for it."""

    field: str
    engine: EngineConfig
    has_own_model: bool
