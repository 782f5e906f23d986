"""The Online Merging Optimizer: AdamW whose update is merged with the direction that SFT took from the base.

Aligning with rewards costs abilities that pre-training and SFT gave (the alignment tax). Lu et al. 2024
(arXiv 2405.17931), the method of the Qwen2 report (section 4.3), adds to every step a small part of
`tau = theta_sft - theta_base`: `theta <- theta + F(delta) (+) F(tau)`, where F keeps a sparse part and (+) is a
weighted merge.

The released values (p = 0.01, alpha = 1e-7, rate 1e-6) were found with the released code, whose OnDARE divides what it
keeps by p, so that its steps go on average as far as AdamW's; the paper's equation 4 does not, and with the same values
goes p times as far. `rescale` says which, and "yes" is the default because the values belong to it. OnTIES keeps the
largest entries as they are, in both. Where else the two differ (a mask of tau drawn once, tau clamped to 1, signs
taken before weighting, decay after the step, parameters skipped between merges) the paper wins.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from qwenops.errors import RecipeError

Merge = Literal["dare", "ties"]


def direction_from(
    model: nn.Module, base: Mapping[str, Tensor], reference: Mapping[str, Tensor]
) -> dict[nn.Parameter, Tensor]:
    """Return `tau = reference - base` for every trainable parameter of `model`.

    Args:
        model: The policy; gives the parameters and their names.
        base: Weights of the pre-trained model by name.
        reference: Weights of the SFT model by name.

    Raises:
        RecipeError: a parameter of the policy is missing from one of the two or has another shape there.
    """
    directions: dict[nn.Parameter, Tensor] = {}
    for name, parameter in model.named_parameters():
        for role, weights in (("base", base), ("reference", reference)):
            if name not in weights or weights[name].shape != parameter.shape:
                found = tuple(weights[name].shape) if name in weights else "nothing"
                raise RecipeError(
                    f"the {role} model does not fit the policy at {name}",
                    expected=str(tuple(parameter.shape)),
                    found=found,
                    action="give models of one architecture and vocabulary",
                )
        directions[parameter] = (reference[name] - base[name]).detach().to(parameter.device, parameter.dtype)
    return directions


class OnlineMergingOptimizer(torch.optim.Optimizer):
    """AdamW with the update merged into the SFT direction at every `merge_every`-th step.

    With `merge_weight` 0 and `keep` 1 the steps are those of `torch.optim.AdamW` bit for bit. Weight decay is
    decoupled and applied before the update, as AdamW does.

    Args:
        parameters: Parameters or parameter groups, as for any torch optimizer.
        directions: tau per parameter, same shape; see `direction_from`.
        learning_rate: Step size of the Adam update.
        betas: Decay rates of the two moments.
        epsilon: Added to the root of the second moment.
        weight_decay: Decoupled weight decay.
        merge: "dare" keeps a random part (OnDARE), "ties" the largest entries and resolves signs (OnTIES).
        merge_weight: alpha, the weight of tau; the update weighs 1 - alpha.
        keep: p, the share of entries that F keeps.
        rescale: Whether OnDARE divides kept entries by p: "yes" as the released code, "no" as the paper's equation 4.
        merge_every: K of step-K merging; plain Adam steps between merges.
        seed: Seeds the masks, with the step and the parameter's place.

    Raises:
        RecipeError: a share outside its range, or a parameter without a direction.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        directions: Mapping[nn.Parameter, Tensor],
        *,
        learning_rate: float = 1e-6,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        merge: Merge = "dare",
        merge_weight: float = 1e-7,
        keep: float = 0.01,
        rescale: Literal["yes", "no"] = "yes",
        merge_every: int = 1,
        seed: int = 0,
    ) -> None:
        if not 0.0 <= merge_weight <= 1.0 or not 0.0 < keep <= 1.0 or merge_every < 1:
            raise RecipeError(
                "the merging optimizer cannot use these numbers",
                expected="0 <= alpha <= 1, 0 < p <= 1, K >= 1",
                found=f"alpha={merge_weight} p={keep} K={merge_every}",
                action="change them in the recipe",
            )
        defaults = {"lr": learning_rate, "betas": betas, "eps": epsilon, "weight_decay": weight_decay}
        super().__init__(parameters, defaults)
        self._merge = merge
        self._weight, self._keep, self._rescale = merge_weight, keep, rescale == "yes"
        self._every, self._seed = merge_every, seed
        for group in self.param_groups:
            for parameter in group["params"]:
                self._start(parameter, directions)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step on every parameter that has a gradient; a merge on every K-th."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        place = 0
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_parameter(parameter, parameter.grad, group, place)
                place += 1
        return loss

    def _start(self, parameter: nn.Parameter, directions: Mapping[nn.Parameter, Tensor]) -> None:
        if parameter not in directions or directions[parameter].shape != parameter.shape:
            raise RecipeError(
                "a parameter has no merging direction",
                expected=f"a direction of shape {tuple(parameter.shape)}",
                action="build the directions with direction_from(model, base, reference)",
            )
        state = self.state[parameter]
        state["step"] = torch.tensor(0.0)
        state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["direction"] = directions[parameter].detach().clone()
        if self._every > 1:
            state["accumulated"] = torch.zeros_like(parameter)

    def _step_parameter(self, parameter: nn.Parameter, gradient: Tensor, group: dict[str, Any], place: int) -> None:
        state = self.state[parameter]
        state["step"] += 1
        step = int(state["step"].item())
        kept = 1.0 - group["lr"] * group["weight_decay"]
        parameter.mul_(kept)
        update = _adam_update(gradient, state, group, step)
        if step % self._every:
            state["accumulated"].mul_(kept).add_(update)
            parameter.add_(update)
            return
        if self._every > 1:
            state["accumulated"].mul_(kept)
            parameter.sub_(state["accumulated"])
            update = update + state["accumulated"]
            state["accumulated"].zero_()
        parameter.add_(self._merged(update, state["direction"], step, place))

    def _merged(self, update: Tensor, direction: Tensor, step: int, place: int) -> Tensor:
        if self._merge == "ties":
            weighted = (1.0 - self._weight) * keep_largest(update, self._keep)
            return resolve_signs(weighted, self._weight * keep_largest(direction, self._keep))
        generator = torch.Generator(update.device).manual_seed(hash((self._seed, step, place)) & 0x7FFFFFFF)
        sparse = [keep_random(entry, self._keep, generator, rescale=self._rescale) for entry in (update, direction)]
        return (1.0 - self._weight) * sparse[0] + self._weight * sparse[1]


def keep_random(entries: Tensor, keep: float, generator: torch.Generator, *, rescale: bool = False) -> Tensor:
    """Keep each entry with probability `keep` and zero the others; divide the kept by `keep` when rescaling."""
    if keep == 1.0:
        return entries
    mask = torch.rand(entries.shape, generator=generator, device=entries.device) < keep
    sparse = torch.where(mask, entries, torch.zeros_like(entries))
    return sparse / keep if rescale else sparse


def keep_largest(entries: Tensor, keep: float) -> Tensor:
    """Keep the `keep` share of entries that are largest in magnitude (at least one) and zero the others."""
    if keep == 1.0:
        return entries
    flat = entries.flatten()
    chosen = flat.abs().topk(math.ceil(keep * flat.numel())).indices
    return torch.zeros_like(flat).index_copy_(0, chosen, flat[chosen]).view_as(entries)


def resolve_signs(first: Tensor, second: Tensor) -> Tensor:
    """Add where the signs agree (or one side is zero); elsewhere take the entry of larger magnitude."""
    larger = torch.where(first.abs() >= second.abs(), first, second)
    return torch.where(first * second >= 0, first + second, larger)


def _adam_update(gradient: Tensor, state: dict[str, Any], group: dict[str, Any], step: int) -> Tensor:
    """The bias-corrected Adam update, in the order of operations of `torch.optim.AdamW`."""
    first, second = group["betas"]
    state["exp_avg"].lerp_(gradient, 1 - first)
    state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
    root = (state["exp_avg_sq"].sqrt() / (1 - second**step) ** 0.5).add_(group["eps"])
    return state["exp_avg"].mul(-group["lr"] / (1 - first**step)).div_(root)
