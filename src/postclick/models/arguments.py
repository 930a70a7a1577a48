"""Arguments that many systems take in the same words: one meaning, one range, one line in the documentation."""

from __future__ import annotations

from typing import Annotated

from postclick.binding import Argument
from postclick.models.debiasing import PropensityName
from postclick.nn.experts import Experts
from postclick.nn.interaction import Interaction
from postclick.nn.trunk import TrunkName

__all__ = ["Biases", "EmbeddingSize", "Interactions", "Propensity", "TrunkChoice", "TrunkExperts"]

Biases = Annotated[bool, Argument("user, item and global biases of the trunk mf")]
EmbeddingSize = Annotated[int, Argument("width of an embedding", low=4, high=64)]
Interactions = Annotated[Interaction | None, Argument("products of features beside the features")]
Propensity = Annotated[PropensityName, Argument("where P(click | x) comes from")]
TrunkChoice = Annotated[TrunkName, Argument("what the towers share beside the table; shared: nothing")]
TrunkExperts = Annotated[Experts, Argument("experts of the trunks mmoe and ple")]
