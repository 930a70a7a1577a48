"""Towers: the hidden layers of one task, and the linear layer that ends them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from postclick.binding import Argument
from postclick.nn.dropout import Dropout
from postclick.nn.initialise import initialise_hidden, initialise_output

__all__ = ["Head", "Perceptron", "Tower"]


@dataclass(frozen=True)
class Tower:
    """The shape of a tower; defaults are those of AITM (Xi et al. 2021, Table 4) and CSTWA (Ouyang et al. 2023).

    Parameters
    ----------
    hidden
        Widths of the hidden layers; none makes the tower a linear model.
    dropout
        Rate after each hidden layer, or a single rate for all of them.

    Raises
    ------
    ValueError
        On a width below 1, a rate outside [0, 1), or a number of rates that fits neither form.
    """

    hidden: Annotated[tuple[int, ...], Argument("widths of the hidden layers")] = (128, 64, 32)
    dropout: Annotated[tuple[float, ...], Argument("rate after each hidden layer, or one for all")] = (0.1, 0.3, 0.3)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        object.__setattr__(self, "dropout", tuple(self.dropout))
        if any(width < 1 for width in self.hidden):
            raise ValueError(f"hidden widths are at least 1, got {list(self.hidden)}")
        if any(not 0.0 <= rate < 1.0 for rate in self.dropout):
            raise ValueError(f"dropout rates lie in [0, 1), got {list(self.dropout)}")
        if self.hidden and len(self.dropout) not in (1, len(self.hidden)):
            layers, rates = len(self.hidden), len(self.dropout)
            raise ValueError(f"{layers} hidden layers but {rates} dropout rates: give one rate a layer or one for all")

    @property
    def rates(self) -> tuple[float, ...]:
        """One dropout rate a hidden layer."""
        return self.dropout * len(self.hidden) if len(self.dropout) == 1 else self.dropout[: len(self.hidden)]


class Perceptron(nn.Module):
    """Hidden layers x -> dropout(relu(W x + b)), [B, D] -> [B, H].

    ReLU and dropout commute (a dropped or scaled number keeps its sign), so papers that write them in the other order
    mean the same. While training on the CPU each layer is one step of the gradient's graph in place of three
    (`_HiddenLayer`): the same numbers for less memory traffic.

    Parameters
    ----------
    width
        D, the width of the input.
    tower
        Widths and rates.
    """

    def __init__(self, width: int, tower: Tower) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        layers: list[tuple[nn.Linear, Dropout]] = []
        self.width = width
        for hidden, rate in zip(tower.hidden, tower.rates, strict=True):
            linear = nn.Linear(self.width, hidden)
            initialise_hidden(linear)
            dropout = Dropout(rate)
            steps += [linear, nn.ReLU(), dropout]
            layers.append((linear, dropout))
            self.width = hidden
        self.steps = nn.Sequential(*steps)
        self._layers = tuple(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the last hidden layer; `width` is its size."""
        if self.training and x.device.type == "cpu" and x.dim() == 2:
            return self._trained(x)
        hidden: Tensor = self.steps(x)
        return hidden

    def _trained(self, x: Tensor) -> Tensor:
        """Return what `steps` returns, each layer and its gradient in as few passes over memory as there can be."""
        for linear, dropout in self._layers:
            x = _HiddenLayer.apply(x, linear.weight, linear.bias, dropout)  # type: ignore[no-untyped-call]
        return x


class _HiddenLayer(torch.autograd.Function):
    """h = mask * relu(x W' + b), [B, D] -> [B, H], where the mask is 0 or the scale of the dropout.

    h is 0 exactly where ReLU or dropout shut the gradient off, so h is all that the gradient needs: it keeps no mask,
    no pre-activation, and forms dh/dz in one pass. Written with differentiable operations, it has higher gradients.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dropout: Dropout) -> Tensor:
        """Return h."""
        hidden = torch.addmm(bias, x, weight.t()).relu_()
        ctx.scale = dropout.scale if dropout.active else 1.0
        if dropout.active:
            hidden.mul_(dropout.mask(hidden))
        ctx.save_for_backward(x, weight, hidden)
        return hidden

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        """Return the gradients of x, W and b."""
        x, weight, hidden = ctx.saved_tensors
        inner = torch.ops.aten.threshold_backward(gradient, hidden, 0.0) * ctx.scale
        return inner @ weight if ctx.needs_input_grad[0] else None, inner.t() @ x, inner.sum(dim=0), None


class Head(nn.Module):
    """One logit a row, w.h + b, [B, H] -> [B]; b starts at the log-odds of `rate`.

    Parameters
    ----------
    width
        H, the width of the input.
    rate
        Base rate of the label in the training rows; 0 and 1 are held finite.
    """

    def __init__(self, width: int, rate: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)
        initialise_output(self.linear, rate)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the logits."""
        logit: Tensor = self.linear(hidden)
        return logit.squeeze(-1)
