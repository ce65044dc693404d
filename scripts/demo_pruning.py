"""Gradual pruning of the demo's network, so that its file is small enough for git."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

SPARSITY = 0.95  # final share of zeros among convolution weights
EVERY = 50  # steps between two selections


@dataclass
class Pruning:
    """Gradual magnitude pruning.

    The share of zeros follows Zhu and Gupta's cubic schedule (arXiv:1710.01878). Layers are compared by
    the LAMP score (Lee et al., arXiv:2010.07611): a weight's square divided by the sum of the squares
    not smaller than it.

    Attributes:
        first, last: the steps between which the share grows from 0 to SPARSITY.
        masks: by parameter name, a bool tensor of its shape: the weights that are kept.
    """

    first: int
    last: int
    masks: dict[str, torch.Tensor] = field(default_factory=dict)

    def target(self, step: int) -> float:
        """Return the scheduled share of zeros at a step."""
        progress = min(1.0, max(0.0, (step - self.first) / max(1, self.last - self.first)))
        return SPARSITY * (1 - (1 - progress) ** 3)

    def keep_zeros(self, network: nn.Module) -> None:
        """Select the weights that are not zero: those of a network that was pruned before."""
        self.masks = {name: weight != 0 for name, weight in prunable(network).items()}

    def update(self, network: nn.Module, step: int) -> None:
        """Select the weights anew at every EVERY-th step from ``first`` to ``last``."""
        if self.first <= step <= self.last and step % EVERY == 0:
            self.select(network, step)

    def select(self, network: nn.Module, step: int) -> None:
        """Select the weights with the highest scores."""
        scores = {
            name: lamp_scores(parameter.detach()) for name, parameter in prunable(network).items()
        }
        every = torch.cat([score.flatten() for score in scores.values()])
        rank = int(self.target(step) * every.numel())
        limit = every.kthvalue(rank).values if rank else torch.tensor(-1.0)
        self.masks = {name: score > limit for name, score in scores.items()}

    @torch.no_grad()
    def apply(self, network: nn.Module) -> None:
        """Zero the pruned weights after an optimizer step."""
        for name, mask in self.masks.items():
            network.get_parameter(name).mul_(mask)


def lamp_scores(weight: torch.Tensor) -> torch.Tensor:
    """Return each weight's LAMP score, in the weight's shape."""
    squares, order = weight.flatten().square().sort()
    rest = squares.flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares)
    scores[order] = squares / rest.clamp_min(1e-30)
    return scores.view_as(weight)


def prunable(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the kernels by name, without those of the first layer, which is small."""
    return {n: p for n, p in network.named_parameters() if p.ndim == 4 and p.shape[1] > 3}
