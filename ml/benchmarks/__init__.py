"""Benchmarks by name: ours and a reference, timed in one run (form: DESIGN, section 7).

Belongs here: which there are. A benchmark `NAME` is one module of that name with `bench_NAME(size)`, size `quick` or
`paper`. Does not belong here: timing code (`ml.benchmarks.common`), assertions on times (tests have none).
"""

from pkgutil import iter_modules

_SHARED = {"common", "compare", "trained", "world"}

BENCHMARKS = {m.name: f"{__name__}.{m.name}" for m in iter_modules(__path__) if m.name not in _SHARED}
"""Module of each benchmark of the science, by name."""
