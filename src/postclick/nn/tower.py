"""Towers: the hidden layers of one task, and the linear layer that ends them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from postclick.binding import Argument
from postclick.nn.dropout import Dropout, random_bits
from postclick.nn.initialise import initialise_hidden, initialise_output

__all__ = ["Head", "Perceptron", "Tower", "side_by_side"]


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
        if self._layers and _in_one_step(self, x):
            return self._trained(x)
        hidden: Tensor = self.steps(x)
        return hidden

    def _trained(self, x: Tensor) -> Tensor:
        """Return what `steps` returns, each layer and its gradient in as few passes over memory as there can be."""
        for (linear, dropout), bits in zip(self._layers, _layer_bits(self, len(x)), strict=True):
            x = _HiddenLayer.apply(x, linear.weight, linear.bias, dropout, bits)  # type: ignore[no-untyped-call]
        return x


def side_by_side(perceptrons: Sequence[Perceptron], x: Tensor) -> Tensor:
    """Return the outputs of K perceptrons of one shape on one input, [B, D] -> [B, K, H].

    Their first layers are one matrix product, and so is the gradient of x. While training on the CPU their dropout is
    one draw of bits; elsewhere the other layers are batched products, a few kernels for any K. Where nothing is dropped
    the numbers are those of each perceptron alone, to rounding.
    """
    layers = list(zip(*(perceptron._layers for perceptron in perceptrons), strict=True))
    if not layers:
        return torch.stack([x] * len(perceptrons), dim=1)
    weight = torch.cat([linear.weight for linear, _ in layers[0]])  # [K H, D]
    bias = torch.cat([linear.bias for linear, _ in layers[0]])
    dropouts = [layer[0][1] for layer in layers]
    if not _in_one_step(perceptrons[0], x):
        return _batched(
            layers[1:], dropouts[1:], dropouts[0](functional.linear(x, weight, bias).relu()), len(perceptrons)
        )
    bits = _layer_bits(perceptrons[0], len(x), count=len(perceptrons))
    joined = _HiddenLayer.apply(x, weight, bias, dropouts[0], bits[0])  # type: ignore[no-untyped-call]
    outputs = joined.chunk(len(perceptrons), dim=1)
    for layer, drawn in zip(layers[1:], bits[1:], strict=True):
        outputs = [
            _HiddenLayer.apply(output, linear.weight, linear.bias, dropout, each)  # type: ignore[no-untyped-call]
            for output, (linear, dropout), each in zip(outputs, layer, drawn.chunk(len(layer)), strict=True)
        ]
    return torch.stack(list(outputs), dim=1)


def _batched(
    layers: list[tuple[tuple[nn.Linear, Dropout], ...]], dropouts: list[Dropout], joined: Tensor, count: int
) -> Tensor:
    """Return the outputs of the layers after the first, [B, K H] -> [B, K, H]."""
    hidden = joined.view(len(joined), count, joined.shape[1] // count).transpose(0, 1)  # [K, B, H]
    for layer, dropout in zip(layers, dropouts, strict=True):
        weight = torch.stack([linear.weight for linear, _ in layer])
        bias = torch.stack([linear.bias for linear, _ in layer])
        hidden = dropout(torch.baddbmm(bias.unsqueeze(1), hidden, weight.transpose(1, 2)).relu())
    return hidden.transpose(0, 1)


def _in_one_step(perceptron: Perceptron, x: Tensor) -> bool:
    """Whether each layer of `perceptron` is a `_HiddenLayer`: while training on the CPU."""
    return perceptron.training and x.device.type == "cpu" and x.dim() == 2 and x.dtype in _EXACT


def _layer_bits(perceptron: Perceptron, rows: int, count: int = 1) -> tuple[Tensor, ...]:
    """Return random bits a layer for the dropout of `count` perceptrons, none where nothing is dropped."""
    # one draw for all layers: making a generator takes as long as drawing for a small layer
    sizes = [count * rows * layer.out_features if dropout.active else 0 for layer, dropout in perceptron._layers]
    return torch.split(random_bits(sum(sizes)), sizes)


_EXACT = (torch.float32, torch.float64)
"""Types that hold 16 random bits exactly, which the comparison of `_HiddenLayer` takes for granted."""


class _HiddenLayer(torch.autograd.Function):
    """h = mask * relu(x W' + b), [B, D] -> [B, H], where the mask is 0 or the scale of the dropout.

    h is 0 exactly where ReLU or dropout shut the gradient off, so h is all that the gradient needs: it keeps no mask,
    no pre-activation, and forms dh/dz in one pass. Written with differentiable operations, it has higher gradients.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dropout: Dropout, bits: Tensor) -> Tensor:
        """Return h; `bits` are `random_bits` for it, none where nothing is dropped."""
        ctx.scale = dropout.scale if len(bits) else 1.0
        # relu(s z) = s relu(z), and the product scales its result for nothing
        hidden = torch.addmm(bias, x, weight.t(), beta=ctx.scale, alpha=ctx.scale).relu_()
        if len(bits):
            # keeps h where its bits are greater: the same kernel as the gradient of ReLU, in one pass
            _keep_greater(hidden, bits.view(hidden.shape), dropout.below - 0.5, grad_input=hidden)
        ctx.save_for_backward(x, weight, hidden)
        return hidden

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        """Return the gradients of x, W and b."""
        x, weight, hidden = ctx.saved_tensors
        inner = _keep_greater(gradient, hidden, 0.0).mul_(ctx.scale)
        outer = _times(inner, weight) if ctx.needs_input_grad[0] else None
        # x' inner, transposed, is inner' x; its rows end with a cache line where those of x do not
        product = (x.t() @ inner).t() if x.shape[1] % _LINE else inner.t() @ x
        return outer, product, inner.sum(dim=0), None, None


_keep_greater = torch.ops.aten.threshold_backward
"""f(x, y, t) = x where y > t, else 0."""
_LINE = 16
"""Numbers in a cache line."""


def _times(inner: Tensor, weight: Tensor) -> Tensor:
    """Return inner @ weight; rows that end within a cache line are padded, which saves a tenth of the product."""
    width = weight.shape[1]
    return (inner @ functional.pad(weight, (0, -width % _LINE)))[:, :width] if width % _LINE else inner @ weight


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
