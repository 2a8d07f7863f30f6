"""The peak of resident memory is that of now."""

import numpy as np

from ml.memory import forget_peak, peak_mib


def test_a_peak_that_was_forgotten_does_not_count() -> None:
    held = np.ones(20_000_000)
    del held
    forget_peak()
    before = peak_mib()
    held = np.ones(10_000_000)
    assert 70 < peak_mib() - before < 110
    del held
