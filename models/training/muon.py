"""Muon (Jordan et al. 2024): momentum whose steps are orthogonalised, for convolution kernels.

A kernel is seen as a matrix (output channels x the rest). Its momentum is replaced by the nearest matrix with
equal singular values, so that all directions are learned at one speed. On short trainings of a small LaMa
this took half the steps of Adam (docs/training-notes.md). Everything that is not a kernel goes to Adam.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# A quintic whose fixed points are singular values near 1; the coefficients are those of the publication.
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalised(matrix: Tensor, bf16: bool = False) -> Tensor:
    """A 2-D matrix with about the same singular vectors and singular values of about .7 to 1.2.

    bf16: multiplied in bfloat16, as in the publication; a third of the time where the hardware can.
    """
    a, b, c = QUINTIC
    x: Tensor = matrix / (matrix.norm() + 1e-7)
    if bf16:
        x = x.bfloat16()
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised. Every parameter has two dimensions or more."""

    def __init__(self, params: list[Tensor], lr: float, momentum: float = 0.95, bf16: bool = False) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})
        self.bf16 = bf16

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                state = self.state[param]
                if not state:
                    state["momentum"] = torch.zeros_like(param)
                state["momentum"].lerp_(param.grad, 1 - group["momentum"])
                wanted = param.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                step = orthogonalised(wanted, self.bf16)
                scale = max(1.0, step.shape[0] / step.shape[1]) ** 0.5
                param.add_(step.view(param.shape), alpha=-group["lr"] * scale)


class KernelsAndRest:
    """Two optimisers as one: Muon for kernels, at kernel_ratio times the learning rate, Adam for the rest.

    The last convolution, with three outputs, is no hidden layer and goes to Adam as well.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        betas: tuple[float, float],
        kernel_ratio: float,
        bf16: bool = False,
    ) -> None:
        params = list(model.parameters())
        kernels = [p for p in params if p.ndim == 4 and p.shape[0] > 3]
        chosen = {id(p) for p in kernels}
        self.kernels = Muon(list(kernels), lr * kernel_ratio, bf16=bf16)
        self.rest = torch.optim.Adam([p for p in params if id(p) not in chosen], lr=lr, betas=betas)
        self.kernel_ratio = kernel_ratio

    def set_lr(self, lr: float) -> None:
        for optimizer, ratio in ((self.kernels, self.kernel_ratio), (self.rest, 1.0)):
            for group in optimizer.param_groups:
                group["lr"] = lr * ratio

    def zero_grad(self) -> None:
        self.kernels.zero_grad(set_to_none=True)
        self.rest.zero_grad(set_to_none=True)

    def step(self) -> None:
        self.kernels.step()
        self.rest.step()

    def state_dict(self) -> dict[str, Any]:
        return {"kernels": self.kernels.state_dict(), "rest": self.rest.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kernels.load_state_dict(state["kernels"])
        self.rest.load_state_dict(state["rest"])


class AdamOnly:
    """Adam with the interface of KernelsAndRest."""

    def __init__(self, model: nn.Module, lr: float, betas: tuple[float, float]) -> None:
        self.adam = torch.optim.Adam(model.parameters(), lr=lr, betas=betas)

    def set_lr(self, lr: float) -> None:
        for group in self.adam.param_groups:
            group["lr"] = lr

    def zero_grad(self) -> None:
        self.adam.zero_grad(set_to_none=True)

    def step(self) -> None:
        self.adam.step()

    def state_dict(self) -> dict[str, Any]:
        return self.adam.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state)


Optimizer = KernelsAndRest | AdamOnly
