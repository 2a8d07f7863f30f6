"""Benchmarks of what runs around the science: orchestration, imports, text encoding, audit, a whole large log.

Belongs here: which there are, in the form of `ml.benchmarks`. Does not belong here: the command (`pipeline.bench`).
"""

from pkgutil import iter_modules

BENCHMARKS = {m.name: f"{__name__}.{m.name}" for m in iter_modules(__path__)}
"""Module of each benchmark of the pipeline, by name."""
