"""Errors that a user sees: one clear line that says what is wrong, where, and what to do.

Belongs here: exception types shared by the rooms. Does not belong here: handling of them.
"""


class NewsrecError(Exception):
    """Base of all errors with a message meant for the user; the command line prints it without a traceback."""


class DataError(NewsrecError):
    """Bad input data: names the file, the column or row, and the remedy. Never retried."""


class UsageError(NewsrecError):
    """A command, recipe or configuration that cannot be carried out as given (exit code 2)."""


class LakeError(NewsrecError):
    """The lake is damaged, locked or lacks an input that should be there."""


class DamagedLake(LakeError, DataError):
    """A file of the lake that is damaged, or that a stranger made: as bad as any bad input (exit code 2)."""


class TransientError(NewsrecError):
    """Something outside that may work again in a moment: a store that is away or locked. Retried a few times."""
