"""Following a training elsewhere: one hook, off by default, for TensorBoard, MLflow or a tracker of your own.

What is followed is what ``metrics.jsonl`` holds, no more. Nothing leaves the machine unless the tool is told to:
TensorBoard writes into ``RUN/tracking``, MLflow too where ``MLFLOW_TRACKING_URI`` names no server.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from postclick.errors import ConfigError, Finding

__all__ = ["FOLDER", "TRACKERS", "Following", "Tracker", "TrackingName", "follow", "require_tracker", "scalars"]

TrackingName = Literal["tensorboard", "mlflow"]
FOLDER = "tracking"
Check = Mapping[str, Any]


class Tracker(Protocol):
    """What is told of a training, in this order: one start, its checks, one end."""

    def on_start(self, settings: Mapping[str, Any]) -> None:
        """Take the settings, plain values by dotted name."""

    def on_check(self, check: Check) -> None:
        """Take a validation check, as ``metrics.jsonl`` has it; those before a resume come again."""

    def on_end(self, status: str) -> None:
        """Take the end: ``finished``, ``interrupted`` or ``failed``."""


def scalars(check: Check) -> dict[str, float]:
    """Return the numbers of a check by name: ``valid/...``, ``terms/...``, ``diagnostics/...``."""
    return {
        f"{part}/{name}": float(value)
        for part in ("valid", "terms", "diagnostics")
        for name, value in check.get(part, {}).items()
        if isinstance(value, int | float)
    }


class TensorBoard:
    """Writes event files; raises ImportError where TensorBoard is not installed."""

    @staticmethod
    def require() -> None:
        """Raise ImportError where it cannot be made."""
        import torch.utils.tensorboard  # noqa: F401

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder))

    def on_start(self, settings: Mapping[str, Any]) -> None:
        """Write the settings as a table of text."""
        rows = [f"| {name} | {value} |" for name, value in settings.items()]
        self.writer.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *rows]))

    def on_check(self, check: Check) -> None:
        """Write a point a number."""
        for name, value in scalars(check).items():
            self.writer.add_scalar(name, value, int(check["step"]))

    def on_end(self, status: str) -> None:
        """Close the file."""
        self.writer.add_text("status", status)
        self.writer.close()


class MLflow:
    """Makes an MLflow run; raises ImportError where MLflow is not installed."""

    @staticmethod
    def require() -> None:
        """Raise ImportError where it cannot be made."""
        import mlflow  # noqa: F401

        if not os.environ.get("MLFLOW_TRACKING_URI"):
            import alembic  # noqa: F401 - MLflow asks for both at its first write, which is too late to say so
            import sqlalchemy  # noqa: F401

    def __init__(self, folder: Path) -> None:
        self.require()
        import mlflow

        if not os.environ.get("MLFLOW_TRACKING_URI"):
            folder.mkdir(parents=True, exist_ok=True)
            mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        self.client: Any = mlflow

    def on_start(self, settings: Mapping[str, Any]) -> None:
        """Start a run with the settings as parameters."""
        self.client.start_run()
        self.client.log_params(dict(settings))

    def on_check(self, check: Check) -> None:
        """Log the numbers; MLflow allows no ``@`` in a name, which becomes ``.at.``."""
        named = {name.replace("@", ".at."): value for name, value in scalars(check).items()}
        self.client.log_metrics(named, step=int(check["step"]))

    def on_end(self, status: str) -> None:
        """End the run with a status of MLflow's own."""
        self.client.end_run({"finished": "FINISHED", "interrupted": "KILLED"}.get(status, "FAILED"))


TRACKERS: dict[str, Callable[[Path], Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow}


class Following:
    """A training that a tracker may follow."""

    def __init__(self, tracker: Tracker | None, on_check: Callable[[dict[str, Any]], None] | None) -> None:
        self.tracker, self.on_check = tracker, on_check
        self.status = "failed"

    def check(self, entry: dict[str, Any]) -> None:
        """Tell of a check: the caller first, then the tracker."""
        if self.on_check is not None:
            self.on_check(entry)
        if self.tracker is not None:
            self.tracker.on_check(entry)


def require_tracker(name: str | None) -> None:
    """Refuse a tool that is not installed, before anything is written or trained.

    Raises
    ------
    ConfigError
        It is not installed: names the extra.
    """
    if name is not None:
        with _named(name):
            getattr(TRACKERS[name], "require", lambda: None)()  # a tracker of one's own need not have it


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Turn a missing module into an error that names the extra."""
    try:
        yield
    except ImportError as error:
        what = f"{name} is not installed ({error})"
        fix = "pip install 'postclick[tracking]', or set training.tracking=off"
        raise ConfigError(Finding("config.value", what, "training.tracking", fix=fix)) from error


@contextlib.contextmanager
def follow(
    name: str | None,
    folder: Path | None,
    settings: Mapping[str, Any],
    on_check: Callable[[dict[str, Any]], None] | None = None,
) -> Iterator[Following]:
    """Yield what tells of a training's checks; its tracker is told the start here, and the end when the block ends.

    Parameters
    ----------
    name
        A key of `TRACKERS`; None follows nothing.
    folder
        The RUN folder; without one nothing is followed.
    settings
        What the tracker shows beside the curves.
    on_check
        Called with each check, too.

    Raises
    ------
    ConfigError
        The tool is not installed: names the extra.
    """
    if name is None or folder is None:
        yield Following(None, on_check)
        return
    with _named(name):
        tracker = TRACKERS[name](folder / FOLDER)
    tracker.on_start(settings)
    following = Following(tracker, on_check)
    try:
        yield following
    finally:
        tracker.on_end(following.status)
