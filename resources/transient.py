"""Which errors may pass on their own, so that a second try is worth it.

Belongs here: telling transient errors from others, without importing the libraries that raise them. Does not belong
here: how often and when to try again (`assets.build`, `pipeline.steps`).
"""

import errno
import sqlite3
from collections.abc import Iterator

from ml.errors import NewsrecError, TransientError

PASSING = (TimeoutError, ConnectionError, BlockingIOError, InterruptedError)
NUMBERS = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
"""Of an OSError: the network or a file server is away for now. A full or read-only disk is not among them."""
TRACKER_CODES = ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED")
TRACKER_AWAY = ("Max retries exceeded", "Connection refused", "failed with exception HTTPConnectionPool")


def is_transient(error: BaseException) -> bool:
    """Whether `error`, or what it was raised from, may pass on its own. Errors that carry a message for the user are
    final, except TransientError."""
    if isinstance(error, TransientError):
        return True
    if isinstance(error, NewsrecError):
        return False
    return any(_passes(e) for e in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _passes(error: BaseException) -> bool:
    if isinstance(error, PASSING) or (isinstance(error, OSError) and error.errno in NUMBERS):
        return True
    if isinstance(error, sqlite3.OperationalError):
        return _is_locked(error)
    library = type(error).__module__.split(".")[0]
    if library == "sqlalchemy":
        return type(error).__name__ == "OperationalError" and _is_locked(error)
    if library == "mlflow":
        away = getattr(error, "error_code", "") in TRACKER_CODES or any(w in str(error) for w in TRACKER_AWAY)
        return away or _is_locked(error)
    return False


def _is_locked(error: BaseException) -> bool:
    words = ("database is locked", "database table is locked", "could not connect", "server closed the connection")
    return any(w in str(error) for w in words)
