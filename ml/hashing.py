"""Counter-based randomness: a number that is a function of its key alone, with no state to keep.

Belongs here: the mixing function for compiled loops. Does not belong here: draws from a generator with a seed.
"""

import numba as nb
import numpy as np


@nb.njit(cache=True)
def mix(x: np.uint64) -> np.uint64:
    """A bijection of uint64 whose output bits look random: SplitMix64 (Steele, Lea, Flood 2014), one step from `x`."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
