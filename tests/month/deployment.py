"""A deployment in a folder of its own: log, lake, MLflow store, Dagster's home, command line and daemon.

Belongs here: environment, processes, starting and ending them. Does not belong here: what happens in the month.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resources.places import REPOSITORY
from tests.month.calendar import FILE

DATASET = "simulated"
SETTINGS = {
    "NEWSREC_DATASET": DATASET,
    "NEWSREC_AUTOPILOT": "1",
    "NEWSREC_LANDING_SECONDS": "5",
    "NEWSREC_MODELS": "snert,popular_15",
    "NEWSREC_RECIPE": "snert_smoke",
    "NEWSREC_PROFILE": "smoke",
    "OMP_NUM_THREADS": "1",
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "DAGSTER_GRPC_TIMEOUT_SECONDS": "900",
    "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS": "900",
    "DAGSTER_SCHEDULE_GRPC_TIMEOUT_SECONDS": "900",
}
"""What the deployment is started with. One thread a process: night and drop share two cores. Long time-outs: where
the machine is busy with other work the month is slow, and fails for no other reason."""
START_SECONDS = 900
PATIENCE_SECONDS = 1800.0


class Missed(Exception):
    """Something that was promised did not come to be."""


def wait_for(what: str, look: Callable[[], Any], every: float = 1.0, patience: float = PATIENCE_SECONDS) -> Any:
    """Look until there is something; raises Missed after `patience` seconds."""
    end = time.monotonic() + patience
    while not (found := look()):
        if time.monotonic() > end:
            raise Missed(f"{what}: not in {patience:.0f} s")
        time.sleep(every)
    return found


@dataclass
class Deployment:
    """Everything below `folder`. Code server and daemon run between `start` and `stop`, each in a session of its own;
    runs are in the code server's. `program` is the daemon's module."""

    folder: Path
    settings: dict[str, str] = field(default_factory=lambda: dict(SETTINGS))
    program: str = "dagster._daemon"
    daemon: subprocess.Popen[bytes] | None = None
    code_server: subprocess.Popen[bytes] | None = None
    port: int = field(default_factory=lambda: free_port())

    def __post_init__(self) -> None:
        home = self.folder / "dagster"
        home.mkdir(parents=True)
        usual = (REPOSITORY / "dagster.yaml").read_text()
        patient = usual.replace("run_monitoring:\n", f"run_monitoring:\n  start_timeout_seconds: {START_SECONDS}\n")
        (home / "dagster.yaml").write_text(patient)

    @property
    def lake(self) -> Path:
        """Root of the lake."""
        return self.folder / "lake"

    @property
    def log(self) -> Path:
        """The data root."""
        return self.folder / "log"

    @property
    def environment(self) -> dict[str, str]:
        """Of every process of the deployment."""
        own = {
            "DAGSTER_HOME": str(self.folder / "dagster"),
            "NEWSREC_LAKE": str(self.lake),
            "NEWSREC_DATA_ROOT": str(self.log),
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder / 'mlflow.db'}",
            FILE: str(self.folder / "calendar"),
            "PYTHONPATH": str(REPOSITORY),
        }
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("NEWSREC_", "DAGSTER_", "MLFLOW_"))}
        return {**inherited, **self.settings, **own}

    def newsrec(self, *arguments: str, code: int | None = 0) -> str:
        """Standard output of the command; Missed unless it ends with `code` (None: with any)."""
        command = [sys.executable, "-m", "pipeline.cli", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if code is not None and done.returncode != code:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise Missed(f"newsrec {' '.join(arguments)} ended with {done.returncode}: {said[-1] if said else ''}")
        return done.stdout

    def asked(self, *arguments: str, code: int | None = 0) -> Any:
        """What the command prints with --json."""
        return json.loads(self.newsrec(*arguments, "--json", code=code))

    def start(self) -> None:
        """Start the code server, unless it is there, and the daemon, each in a session of its own."""
        workspace = self.folder / "workspace.yaml"
        if self.code_server is None:
            where = {"grpc_server": {"host": "localhost", "port": self.port, "location_name": "newsrec"}}
            workspace.write_text(json.dumps({"load_from": [where]}))
            served = ("-m", "pipeline.definitions", "-h", "localhost", "-p", str(self.port))
            self.code_server = self._background("dagster", "api", "grpc", *served)
            wait_for("the code server", lambda: _listens(self.port))
        self.daemon = self._background(self.program, "run", "-w", str(workspace))

    def cut_power(self) -> None:
        """kill -9 of everything that runs, all at once."""
        assert self.daemon is not None and self.code_server is not None
        for process in (self.daemon, self.code_server):
            os.killpg(process.pid, signal.SIGKILL)
        for process in (self.daemon, self.code_server):
            process.wait()
        self.daemon = self.code_server = None

    def stop(self) -> None:
        """End daemon and code server, and what is left of their sessions."""
        for process in (self.daemon, self.code_server):
            if process is None:
                continue
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.daemon = self.code_server = None

    def _background(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        """A process of the deployment that stays, its output in a file."""
        with (self.folder / f"{module}.log").open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env=self.environment, cwd=REPOSITORY, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return int(found.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("localhost", port)) == 0
