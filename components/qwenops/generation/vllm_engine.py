"""Generation with vLLM in this process: the extra `vllm` and a CUDA device are needed.

The import stands inside the class because vLLM is an optional accelerator: images without a GPU do not carry it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qwenops.contracts.tokens import END_OF_TEXT, IM_END
from qwenops.errors import PlatformError
from qwenops.generation.chat import control_ids, decode, encode_prompts
from qwenops.generation.engine import Prompt, Sample, Sampling
from qwenops.recipe.addresses import split_hub_id


class VllmEngine:
    """An engine over `vllm.LLM`.

    Args:
        model: Checkpoint folder, or hub id with or without `@revision`.
        precision: vLLM's dtype name.
        overrides: Entries of the model's config to replace, such as those of a long-context mode.

    Raises:
        PlatformError: vLLM is not installed here.
    """

    def __init__(self, model: str, precision: str = "bfloat16", overrides: Mapping[str, object] | None = None) -> None:
        try:
            import vllm  # pyright: ignore[reportMissingImports]  # in an extra of its own
        except ImportError as error:
            raise PlatformError(
                "vLLM is not installed here",
                expected="an image with vLLM",
                found=error,
                action="set engine.kind to in_process or endpoint, or use the GPU image",
            ) from None
        self._name = model
        self._parameters: Any = vllm.SamplingParams
        hub = None if Path(model).exists() else split_hub_id(model)
        place, revision = hub or (model, "")
        self._llm: Any = vllm.LLM(
            model=place, revision=revision or None, dtype=precision, hf_overrides=dict(overrides or {})
        )

    @property
    def name(self) -> str:
        """The model's folder or name."""
        return self._name

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Sample]]:
        """See `Engine.generate`; prompts go in and answers come out as token ids."""
        tokenizer = self._llm.get_tokenizer()
        stops = [i for i, token in control_ids(tokenizer).items() if token in (IM_END, END_OF_TEXT)]
        parameters = self._parameters(
            n=sampling.n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_new_tokens,
            stop_token_ids=stops,
            seed=sampling.seed,
            detokenize=False,
        )
        asked = [{"prompt_token_ids": ids} for ids in encode_prompts(tokenizer, prompts)]
        results = self._llm.generate(asked, parameters, use_tqdm=False)
        return [[self._sample(tokenizer, output) for output in result.outputs] for result in results]

    def _sample(self, tokenizer: Any, output: Any) -> Sample:
        ids = tuple(output.token_ids)
        finish = "stop" if output.finish_reason == "stop" else "length"
        return Sample(decode(tokenizer, [ids])[0], finish, ids, self._name)
