"""What leaves training: a data-only folder, read without trust, and the one path that scores with it."""

from postclick.bundle.bundle import Bundle, write_bundle
from postclick.bundle.header import Constant, Header
from postclick.bundle.scorer import ScoredTable, Scorer

__all__ = ["Bundle", "Constant", "Header", "ScoredTable", "Scorer", "write_bundle"]
