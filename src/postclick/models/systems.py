"""The systems by key: a literal table, and a test walks the folder."""

from __future__ import annotations

from postclick.models.aitm import AITM
from postclick.models.base import ConversionModel
from postclick.models.chorus import Chorus
from postclick.models.cstwa import CSTWA
from postclick.models.dcmt import DCMT
from postclick.models.ddpo import DDPO
from postclick.models.dfm import DFM
from postclick.models.dr_jl import DRJL
from postclick.models.es_dfm import ESDFM
from postclick.models.escm2 import ESCM2DR, ESCM2IPS
from postclick.models.esm2 import ESM2
from postclick.models.esmc import ESMC, ESMG, ESMS
from postclick.models.esmm import ESMM
from postclick.models.mlp import MLP
from postclick.models.mmoe import MMoE
from postclick.models.mrdr import MRDR
from postclick.models.multi_ipw import MultiDR, MultiIPW
from postclick.models.nise import NISE
from postclick.models.omoe import OMoE
from postclick.models.ple import PLE

__all__ = ["MODELS"]

MODELS: dict[str, type[ConversionModel]] = {
    "mlp": MLP,
    "esmm": ESMM,
    "omoe": OMoE,
    "mmoe": MMoE,
    "ple": PLE,
    "aitm": AITM,
    "esm2": ESM2,
    "esmc": ESMC,
    "esms": ESMS,
    "esmg": ESMG,
    "multi-ipw": MultiIPW,
    "multi-dr": MultiDR,
    "escm2-ips": ESCM2IPS,
    "escm2-dr": ESCM2DR,
    "dr-jl": DRJL,
    "mrdr": MRDR,
    "dcmt": DCMT,
    "ddpo": DDPO,
    "nise": NISE,
    "chorus": Chorus,
    "cstwa": CSTWA,
    "dfm": DFM,
    "es-dfm": ESDFM,
}
