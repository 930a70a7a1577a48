"""Experiments: a TOML file of data, systems and seeds to one table, run by run through `postclick.run`."""

from postclick.benchmark.benchmark import run_benchmark
from postclick.benchmark.experiment import Experiment
from postclick.benchmark.leaderboard import Leaderboard

__all__ = ["Experiment", "Leaderboard", "run_benchmark"]
