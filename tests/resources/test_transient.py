"""Which errors are worth a second try."""

import errno
import sqlite3

import pytest

from ml.errors import DataError, LakeError, TransientError, UsageError
from resources.transient import is_transient


def chained(cause: BaseException) -> RuntimeError:
    try:
        raise RuntimeError("outer") from cause
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        TransientError("the store is away"),
        TimeoutError("slow"),
        ConnectionResetError("gone"),
        OSError(errno.ESTALE, "stale file handle"),
        sqlite3.OperationalError("database is locked"),
        chained(ConnectionRefusedError("nobody there")),
    ],
)
def test_what_may_pass(error):
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        DataError("a column is missing"),
        UsageError("no such model"),
        LakeError("damaged"),
        OSError(errno.ENOSPC, "no space left"),
        OSError(errno.EROFS, "read-only"),
        FileNotFoundError("gone"),
        PermissionError("not yours"),
        sqlite3.OperationalError("no such table: runs"),
        ValueError("a bug"),
        chained(ValueError("a bug")),
    ],
)
def test_what_stays(error):
    assert not is_transient(error)


def test_an_error_with_a_message_for_the_user_is_final_whatever_caused_it():
    try:
        raise DataError("unreadable") from TimeoutError("slow")
    except DataError as error:
        assert not is_transient(error)


def test_a_tracker_that_is_away_or_locked_may_come_back(monkeypatch):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(MlflowException) as away:
        MlflowClient("http://127.0.0.1:9").get_experiment("0")
    assert is_transient(away.value)
    assert not is_transient(MlflowException("no such run"))
