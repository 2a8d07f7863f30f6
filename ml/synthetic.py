"""The mark of what rests on in-view lists that nobody was shown.

Belongs here: the words that stand beside such figures wherever they are printed, drawn or stored. Does not belong here:
making the lists (`ml.inview`) and the tables whose column says how (`ml.schema`).
"""

SYNTHETIC = "synthetic_inview"
"""The column, field and tag that says how such lists were made."""
MARK = " (synthetic)"


def marked(name: str, made: str | None) -> str:
    """The name of a figure, with the mark where `made` says how its lists were made.

    >>> marked("AUC", ""), marked("AUC", "synthetic: uniform")
    ('AUC', 'AUC (synthetic)')
    """
    return f"{name}{MARK}" if made else name


def note(what: str, made: str) -> str:
    """The sentence above figures of which `what` rests on such lists."""
    return f"{what} on in-view lists that nobody was shown ({made})."
