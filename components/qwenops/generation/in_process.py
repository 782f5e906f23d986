"""Generation in this process: a batched decode loop over any transformers causal LM.

`model.generate` of transformers would do, but for a small model on a CPU its per-step bookkeeping costs more than the
model. This loop pads on the left, computes the prompt once for all n samples of it, drops finished rows from the batch
and stops when none is left.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from qwenops.contracts.tokens import END_OF_TEXT, IM_END
from qwenops.errors import StageError
from qwenops.generation.chat import control_ids, decode, encode_prompts
from qwenops.generation.engine import Prompt, Sample, Sampling
from qwenops.model.modes import Mode, apply_request
from qwenops.training.precision import Precision, autocast

_STOP_TOKENS = (IM_END, END_OF_TEXT)
_NUCLEUS_FIRST_LOOK = 64


class InProcessEngine:
    """Batched generation with a model that is already in memory; always samples its current weights.

    Args:
        model: A transformers causal LM.
        tokenizer: Its tokenizer; `<|im_end|>` and `<|endoftext|>` end a response.
        name: For provenance.
        batch_tokens: Cached tokens (rows x length) per batch.
        precision: "bf16" runs under autocast where the device has the instructions.
        long_context: Mode of batches longer than `trained_length`; shorter ones are read plainly.
        trained_length: Tokens the model was trained at; needed for another mode than plain.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str = "in_process",
        batch_tokens: int = 65536,
        precision: Precision = "fp32",
        long_context: Mode = "plain",
        trained_length: int = 0,
    ) -> None:
        self._model, self._tokenizer, self._name = model, tokenizer, name
        self._batch_tokens = batch_tokens
        self._precision: Precision = precision
        self._mode: Mode = long_context
        self._trained_length = trained_length
        self._stops = torch.tensor(sorted(i for i, token in control_ids(tokenizer).items() if token in _STOP_TOKENS))

    @property
    def name(self) -> str:
        """Name of the model, for provenance."""
        return self._name

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Sample]]:
        """See `Engine.generate`. Equal prompts, sampling and weights give equal responses on one machine."""
        if not prompts:
            return []
        ids = encode_prompts(self._tokenizer, prompts)
        was_training = self._model.training
        self._model.eval()
        device = self._model.device
        generator = torch.Generator(device).manual_seed(sampling.seed)
        responses: list[list[list[int]]] = [[] for _ in prompts]
        try:
            with torch.inference_mode(), autocast(self._model, self._precision):
                for batch in self._batches(ids, sampling):
                    self._read(max(len(ids[index]) for index in batch) + sampling.max_new_tokens)
                    tokens = self._decode([ids[i] for i in batch], sampling, generator)
                    for place, index in enumerate(batch):
                        responses[index] = tokens[place * sampling.n : (place + 1) * sampling.n]
        finally:
            self._read(0)
            self._model.train(was_training)
        flat = [tokens for group in responses for tokens in group]
        stops = set(self._stops.tolist())
        samples = [
            Sample(text, "stop" if tokens[-1] in stops else "length", tuple(tokens), self._name)
            for tokens, text in zip(flat, decode(self._tokenizer, flat), strict=True)
        ]
        return [samples[i : i + sampling.n] for i in range(0, len(samples), sampling.n)]

    def _read(self, length: int) -> None:
        """Set the model for a batch of at most `length` tokens; 0 sets it back to plain."""
        if self._mode != "plain":
            apply_request(self._model, self._mode, length, self._trained_length)

    def _batches(self, ids: Sequence[Sequence[int]], sampling: Sampling) -> Iterator[list[int]]:
        """Indices of prompts of similar length, as many as the budget of cached tokens allows."""
        batch: list[int] = []
        for index in sorted(range(len(ids)), key=lambda i: (len(ids[i]), i)):
            tokens = (len(ids[index]) + sampling.max_new_tokens) * sampling.n * (len(batch) + 1)
            if batch and tokens > self._batch_tokens:
                yield batch
                batch = []
            batch.append(index)
        yield batch

    def _decode(self, ids: list[list[int]], sampling: Sampling, generator: torch.Generator) -> list[list[int]]:
        """Continue prompts; returns n lists of new ids for each, the stop token that ended one included."""
        device, stops = self._model.device, self._stops.to(self._model.device)
        state = self._prefill(ids, sampling)
        rows = len(ids) * sampling.n
        written = torch.full((rows, sampling.max_new_tokens), int(stops[0]), dtype=torch.long, device=device)
        for step in range(sampling.max_new_tokens):
            chosen = sample_next_tokens(state.logits, sampling, generator)
            written[state.alive, step] = chosen
            going = ~torch.isin(chosen, stops)
            if step + 1 == sampling.max_new_tokens or not bool(going.any()):
                break
            # Compacting copies the cache, so it waits until a quarter of the rows is done.
            if int(going.sum()) * 4 <= 3 * len(going):
                state.keep(going)
                chosen = chosen[going]
            self._advance(state, chosen)
        is_stop = torch.isin(written, stops).long()
        # A finished row that was not yet compacted away kept writing: its first stop token ends it.
        lengths = torch.where(is_stop.any(1), is_stop.argmax(1) + 1, sampling.max_new_tokens)
        return [row[:length] for row, length in zip(written.tolist(), lengths.tolist(), strict=True)]

    def _prefill(self, ids: list[list[int]], sampling: Sampling) -> "_State":
        longest = max(len(row) for row in ids)
        tokens = torch.zeros(len(ids), longest, dtype=torch.long)
        mask = torch.zeros(len(ids), longest, dtype=torch.long)
        for index, row in enumerate(ids):
            tokens[index, longest - len(row) :] = torch.tensor(row)
            mask[index, longest - len(row) :] = 1
        device = self._model.device
        tokens, mask = tokens.to(device), mask.to(device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache = DynamicCache(config=self._model.config)
        out = self._model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits, next_position = out.logits[:, -1].float(), positions[:, -1] + 1
        if sampling.n > 1:
            cache.batch_repeat_interleave(sampling.n)
            logits, mask, next_position = (
                part.repeat_interleave(sampling.n, dim=0) for part in (logits, mask, next_position)
            )
        return _State(cache, mask, next_position, logits, torch.arange(len(logits), device=device))

    def _advance(self, state: "_State", chosen: Tensor) -> None:
        state.mask = torch.cat([state.mask, state.mask.new_ones(len(chosen), 1)], dim=1)
        out = self._model(
            input_ids=chosen[:, None],
            attention_mask=state.mask,
            position_ids=state.position[:, None],
            past_key_values=state.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        state.logits, state.position = out.logits[:, -1].float(), state.position + 1


@dataclass
class _State:
    """The rows still being written: cache, mask [R, T], next position [R], logits [R, V], their row numbers [R]."""

    cache: DynamicCache
    mask: Tensor
    position: Tensor
    logits: Tensor
    alive: Tensor

    def keep(self, going: Tensor) -> None:
        """Drop the rows that are done."""
        self.cache.batch_select_indices(going.nonzero()[:, 0])
        self.mask, self.position, self.logits, self.alive = (
            part[going] for part in (self.mask, self.position, self.logits, self.alive)
        )


def sample_next_tokens(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """Choose the next token of each row.

    Args:
        logits: float32, shape [R, V].
        sampling: Temperature and nucleus mass.
        generator: Source of the draws, on the logits' device.

    Returns:
        int64, shape [R].
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits / sampling.temperature, dim=-1)
    if sampling.top_p >= 1:
        return _draw(probabilities, generator)
    # A nucleus is nearly always among the first few dozen tokens; sorting the whole vocabulary is the slow exception.
    size = min(_NUCLEUS_FIRST_LOOK, probabilities.shape[-1])
    top, tokens = probabilities.topk(size, dim=-1)
    if bool((top.sum(-1) < sampling.top_p).any()):
        top, tokens = probabilities.sort(dim=-1, descending=True)
    # A token belongs to the nucleus when the mass before it is still below top_p, so the first always does.
    top = top.masked_fill(top.cumsum(-1) - top >= sampling.top_p, 0.0)
    return tokens.gather(1, _draw(top, generator)[:, None])[:, 0]


def _draw(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a place of each row of weights [R, N] by inverting their running sum; int64 [R].

    `torch.multinomial` draws a random number for every place: 1,024 rows of 2,048 took 60 ms of one core, this 2.3.

    Raises:
        StageError: a weight is no finite number.
    """
    sums = weights.cumsum(-1)
    total = sums[:, -1:]
    if not bool(total.isfinite().all()):
        raise StageError(
            "the model's next-token probabilities are no numbers",
            expected="finite logits",
            found="a row that holds NaN",
            action="look at the loss of the stage that trained the model, and train it again with a lower rate",
        )
    drawn = torch.rand(total.shape, generator=generator, device=weights.device) * total
    # Rounded up to the whole mass, a draw would lie behind every place.
    drawn = torch.minimum(drawn, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(sums, drawn, right=True)[:, 0]
