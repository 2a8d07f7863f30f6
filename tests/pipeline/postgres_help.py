"""A Postgres server on loopback, started for a test and thrown away, as another user where the test is root's.

Looks for the programs on PATH and where Debian's package keeps them; a test that needs them is skipped, with the
reason, where they are not installed.
"""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PASSWORD = "only-for-this-test"


@dataclass(frozen=True)
class Postgres:
    """Where it listens; user `postgres` with PASSWORD."""

    port: int

    def url(self, database: str) -> str:
        """For SQLAlchemy."""
        return f"postgresql+psycopg2://postgres:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def rows(self, database: str, query: str) -> list[tuple]:
        import psycopg2

        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, dbname=database, user="postgres", password=PASSWORD
        )
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(query)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


def binaries() -> Path:
    """The folder of initdb and pg_ctl."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        pytest.skip("Postgres is not installed: apt-get install postgresql")
    return found[-1].parent if found else Path(str(on_path)).resolve().parent


@contextmanager
def serving() -> Iterator[Postgres]:
    """A fresh server."""
    programs = binaries()
    with tempfile.TemporaryDirectory(prefix="newsrec-postgres-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        (home / "password").write_text(PASSWORD)
        person = _unprivileged(home)

        def call(program: str, *arguments: str) -> None:
            command = [str(programs / program), "-D", str(home / "data"), *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=home, **person)
            assert done.returncode == 0, done.stdout + done.stderr

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        call("initdb", "-U", "postgres", "--auth=scram-sha-256", f"--pwfile={home / 'password'}", "--no-sync")
        options = f"-h 127.0.0.1 -p {port} -k {home} -c fsync=off -c max_connections=50"
        call("pg_ctl", "start", "--wait", "-o", options, "-l", str(home / "log"))
        try:
            yield Postgres(port)
        finally:
            call("pg_ctl", "stop", "--wait", "-m", "immediate")


def _unprivileged(home: Path) -> dict[str, object]:
    """What makes a child of root run as `postgres`, else `nobody`; it gets the folder."""
    if os.geteuid() != 0:
        return {}
    known = {p.pw_name: p for p in pwd.getpwall()}
    person = known.get("postgres") or known["nobody"]
    for path in (home, *home.iterdir()):
        os.chown(path, person.pw_uid, person.pw_gid)
    return {"user": person.pw_uid, "group": person.pw_gid, "extra_groups": []}
