"""One run: (LOG, config, seed) -> RUN, and how a run or bundle is judged on a log."""

from postclick.run.assessment import evaluate_bundle
from postclick.run.config import RunConfig
from postclick.run.training_run import RunResult, run

__all__ = ["RunConfig", "RunResult", "evaluate_bundle", "run"]
