"""The simulated newspaper: a bundle in the published EB-NeRD layout with a sealed oracle beside it.

Belongs here: `simulate`, which writes a bundle as a whole or not at all, and `report`, which checks one. The parts
are `config` (sizes, constants), `text` (words), `world` (articles, readers), `play` (the log), `write` (files),
`bundle` (the whole) and `check` (the report). The model is described in docs/simulator.md.
"""

from ml.simulator.bundle import Summary, simulate
from ml.simulator.check import report
from ml.simulator.config import SIZES, Size

__all__ = ["SIZES", "Size", "Summary", "report", "simulate"]
