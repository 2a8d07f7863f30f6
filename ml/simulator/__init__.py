"""The simulated newspaper: a bundle in the published EB-NeRD layout with a sealed oracle beside it.

Belongs here: `simulate`, which writes a bundle as a whole or not at all, and `report`, which checks one. The parts
are `config` (sizes, presets), `text` (words), `world` (articles, readers), `page` (the front page), `kernel` (one
session, compiled), `play` (the log), `write` (files), `bundle` (the whole), `check` (figures), `expected` (what they
should be), `compare` (both) and `calibrate` (how that was measured). The model is described in docs/simulator.md.
"""

from ml.simulator.bundle import Summary, simulate
from ml.simulator.compare import report
from ml.simulator.config import PRESETS, SIZES, Size

__all__ = ["PRESETS", "SIZES", "Size", "Summary", "report", "simulate"]
