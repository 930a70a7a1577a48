"""Everything that a resumed training must find as it left it, as tensors and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from postclick.binding import plain
from postclick.errors import ConfigError, Finding
from postclick.models.base import ConversionModel
from postclick.training.config import SAFE_TO_CHANGE, TrainingConfig
from postclick.training.rows import TouchedRows
from postclick.training.step import TrainingStep
from postclick.training.stopping import EarlyStopping

__all__ = ["Counters", "TrainingState", "check_compatible", "identity"]


@dataclass
class Counters:
    """Where training stands: `batch` batches of epoch `epoch` and `step` steps in all are done."""

    epoch: int = 0
    batch: int = 0
    step: int = 0


@dataclass
class TrainingState:
    """All that changes while training.

    Parameters
    ----------
    model, step, stopping, touched
        Weights and buffers; optimisers, learned loss weights and running sums; early stopping; table rows seen.
    counters
        Where training stands.
    history
        One entry a check.
    best
        Weights and buffers at the best check; None before the first.
    """

    model: ConversionModel
    step: TrainingStep
    stopping: EarlyStopping
    touched: TouchedRows
    counters: Counters = field(default_factory=Counters)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] | None = None

    @torch.no_grad()
    def remember_best(self) -> None:
        """Keep the present weights as the best."""
        now = self.model.state_dict()
        if self.best is None:
            self.best = {name: tensor.clone() for name, tensor in now.items()}
        else:
            for name, tensor in now.items():
                self.best[name].copy_(tensor)

    def restore_best(self) -> None:
        """Put the best weights back into the model, where there was a check."""
        if self.best is not None:
            self.model.load_state_dict(self.best)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name; they are those in use."""
        named = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        named |= {f"best.{name}": tensor for name, tensor in (self.best or {}).items()}
        for index, optimiser in enumerate(self.step.optimisers):
            named |= {f"phase{index}.{name}": tensor for name, tensor in optimiser.state().items()}
        for index, balancer in enumerate(self.step.balancers):
            if balancer is not None:
                named |= {f"balance{index}.{name}": tensor for name, tensor in balancer.state().items()}
        named |= {f"sum.{name}": tensor for name, tensor in self.step.sums.items()}
        named["touched"] = torch.from_numpy(self.touched.mask)
        named |= {f"random.{device}": state for device, state in _random_states().items()}
        return named

    def counts(self) -> dict[str, Any]:
        """Return what is not a tensor, as JSON holds it."""
        return {
            "counters": asdict(self.counters),
            "steps_summed": self.step.steps_summed,
            "stopping": self.stopping.state(),
            "history": self.history,
        }

    def load(self, tensors: Mapping[str, Tensor], counts: Mapping[str, Any]) -> None:
        """Take over what `tensors` and `counts` returned."""
        self.model.load_state_dict(_below(tensors, "model."))
        device = next(self.model.parameters()).device
        best = _below(tensors, "best.")
        self.best = {name: tensor.to(device) for name, tensor in best.items()} or None
        for index, optimiser in enumerate(self.step.optimisers):
            optimiser.load(_below(tensors, f"phase{index}."))
        for index, balancer in enumerate(self.step.balancers):
            if balancer is not None:
                balancer.load(_below(tensors, f"balance{index}."))
        self.step.sums = {name: tensor.to(device) for name, tensor in _below(tensors, "sum.").items()}
        self.step.steps_summed = int(counts["steps_summed"])
        self.touched.mask[:] = tensors["touched"].numpy()
        self.counters = Counters(**counts["counters"])
        self.stopping.load(counts["stopping"])
        self.history = list(counts["history"])
        _set_random_states(_below(tensors, "random."))


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _random_states() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_random_states(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def identity(model: ConversionModel, log_hash: str, config: TrainingConfig, seed: int) -> dict[str, Any]:
    """Return what must be equal for a checkpoint to fit: data, system, shapes, seed, settings, and the code."""
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    return {
        "log": log_hash,
        "system": type(model).__name__,
        "shapes": shapes,
        "seed": seed,
        "code": _code(version("postclick")),
        "training": plain(config),
    }


def _code(release: str) -> str:
    """Return the part of a version that stands for equal results: 1 of 1.4.2, and 0.3 of 0.3.1."""
    major, minor = (*release.split("."), "0")[:2]
    return f"0.{minor}" if major == "0" else major


def check_compatible(now: Mapping[str, Any], then: Mapping[str, Any], allowed: tuple[str, ...] = ()) -> None:
    """Refuse a checkpoint of another training.

    Parameters
    ----------
    now, then
        What `identity` returned, for this call and in the checkpoint.
    allowed
        Settings that may differ; only those in `SAFE_TO_CHANGE` can be named.

    Raises
    ------
    ConfigError
        ``ckpt.incompatible``, one finding a difference.
    """
    problems = [
        _differs(name, then.get(name), now[name])
        for name in ("log", "system", "seed", "code")
        if then.get(name) != now[name]
    ]
    problems += _diff("shapes", now["shapes"], then.get("shapes", {}))
    settings = _diff("training", now["training"], then.get("training", {}))
    passed = SAFE_TO_CHANGE & {name.removeprefix("training.") for name in allowed}
    problems += [finding for finding in settings if finding.where.removeprefix("training.") not in passed]
    if problems:
        raise ConfigError(*problems)


def _diff(where: str, now: Mapping[str, Any], then: Mapping[str, Any]) -> list[Finding]:
    names = sorted(name for name in {*now, *then} if now.get(name) != then.get(name))
    return [_differs(f"{where}.{name}", then.get(name), now.get(name)) for name in names]


def _differs(where: str, then: object, now: object) -> Finding:
    leaf = where.removeprefix("training.")
    fix = "resume with what the run was started with, or train anew with --force"
    if leaf in SAFE_TO_CHANGE:
        fix = f"pass --allow-config-change {leaf} to go on with the new value"
    return Finding("ckpt.incompatible", f"the checkpoint has {then!r}, this run {now!r}", where, fix=fix)
