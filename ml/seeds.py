"""Seeds: which numbers may be one.

Belongs here: their bounds, for every command and setting that takes a seed. Does not belong here: what is drawn from
one, and lists of seeds as they are written (`ml.simulator.seeds`).
"""

from ml.errors import UsageError

MOST_SEED = 2**63 - 1
"""Largest seed: it fits 64 bits with a sign, as every table, store and generator that takes it needs."""


def require_seed(seed: int) -> None:
    """Raises UsageError for a number that is no seed."""
    if not 0 <= seed <= MOST_SEED:
        raise UsageError(f"{seed} is no seed: give a whole number from 0 to {MOST_SEED}")
