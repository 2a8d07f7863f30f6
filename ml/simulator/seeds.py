"""Lists of seeds as they are written.

Belongs here: `11-13,20`. Does not belong here: what is drawn from a seed (`world`).
"""

from ml.errors import UsageError


def seeds_of(text: str) -> list[int]:
    """Seeds of a list like `11-13,20`. Raises UsageError for anything else."""
    try:
        parts = [[int(n) for n in part.split("-")] for part in text.split(",")]
        return [seed for part in parts for seed in range(part[0], part[-1] + 1)]
    except ValueError as error:
        raise UsageError(f"--seeds {text!r}: write them as 11-13,20") from error
