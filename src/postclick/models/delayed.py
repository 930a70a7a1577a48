"""What the systems for conversions that come late have in common: a CTR, a CVR on clicks, networks of their own.

No system lives here, and no loss.
"""

from __future__ import annotations

from collections.abc import Mapping

from postclick.data.log import LogSpec
from postclick.models.base import Batch, ConversionModel, HeadKind, Outputs
from postclick.models.batching import attribution_days
from postclick.models.task_heads import product_outputs
from postclick.nn.interaction import Interaction
from postclick.nn.tower import Tower
from postclick.nn.trunk import TaskNetwork

__all__ = ["DelayedConversion"]


class DelayedConversion(ConversionModel):
    """Networks of the click, of the conversion, and of what tells of the delay; ``ctcvr`` is the product.

    Parameters
    ----------
    spec
        What is known of the log.
    more
        Name of each further network, and the probability at which its head starts.
    tower, embedding_size, interaction, shared_embedding
        As the system has them.

    Raises
    ------
    ValueError
        On a log that says until when it was observed and not when its conversions came.
    """

    def __init__(
        self,
        spec: LogSpec,
        more: Mapping[str, float],
        *,
        tower: Tower,
        embedding_size: int,
        interaction: Interaction | None,
        shared_embedding: bool,
    ) -> None:
        super().__init__(spec)
        self.days, self._more = attribution_days(spec.schema), tuple(more)
        self.network = TaskNetwork(
            spec.schema,
            spec.table_rows,
            {"ctr": spec.ctr, "cvr": spec.cvr, **more},
            tower=tower,
            embedding_size=embedding_size,
            interaction=interaction,
            shared_embedding=shared_embedding,
        )

    @property
    def heads(self) -> dict[str, HeadKind]:
        """All three; ctcvr is the product."""
        return {"ctr": "head", "cvr": "head", "ctcvr": "head"}

    @property
    def observed(self) -> tuple[tuple[str, str], ...]:
        """The CTR over exposures, and the CVR on clicks whose window has closed."""
        return (("ctr", "exposure"), ("cvr", "click"))

    def forward(self, batch: Batch) -> Outputs:
        """Return ctr, cvr, ctcvr; extras are the logits of the further networks."""
        found = self.network(batch.features)
        return product_outputs(found, {name: found.logits[name] for name in self._more})
