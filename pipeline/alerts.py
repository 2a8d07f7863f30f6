"""Alerts: one line each in a log file, and the same to a webhook.

Belongs here: recording an alert once, and delivering it, late rather than never. Does not belong here: what gives
rise to one (`pipeline.watch`, `pipeline.landing_sensor`).

The file is the record: it is written first, and what the webhook did not take is sent again at the next tick of an
alert sensor, in order. `<file>.sent` holds how many bytes of the file were delivered.
"""

import json
import logging
import os
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from ml.durable import replace_whole
from ml.errors import UsageError
from resources.manifest import digest

TIMEOUT_SECONDS = 10
TRY_AGAIN = (408, 425, 429)
"""Answers of a webhook that refuse for now; other 4xx answers refuse the alert itself, which is then left out."""


@dataclass(frozen=True, slots=True)
class Alert:
    """What happened (`kind`: failure, freshness, malformed_drop, changed_drop), to what (`subject`), in one line
    (`text`), and what to do. `event` tells two occurrences apart: the same alert of the same event is recorded once."""

    kind: str
    dataset: str
    subject: str
    text: str
    action: str
    event: str = ""

    @property
    def id(self) -> str:
        """Identifies the alert: sha256 hex over its fields."""
        return digest(asdict(self))


class Alerts:
    """The alert log at `log`, and the address of a webhook (None: the log is all)."""

    def __init__(self, log: Path, webhook: str | None) -> None:
        self.log = log
        self.webhook = webhook
        self._sent = log.with_name(log.name + ".sent")

    @classmethod
    def configured(cls, lake: Path) -> "Alerts":
        """As NEWSREC_ALERT_LOG (default `.alerts/alerts.jsonl` below the lake) and NEWSREC_ALERT_WEBHOOK say. Raises
        UsageError for an address that is not http or https."""
        webhook = os.environ.get("NEWSREC_ALERT_WEBHOOK") or None
        if webhook is not None and not webhook.startswith(("http://", "https://")):
            raise UsageError("NEWSREC_ALERT_WEBHOOK must start with http:// or https://")
        return cls(Path(os.environ.get("NEWSREC_ALERT_LOG") or lake / ".alerts" / "alerts.jsonl"), webhook)

    def record(self, alert: Alert) -> bool:
        """Writes the alert to the log and delivers what is due; False where it was recorded before."""
        with self._lock():
            known = {entry["id"] for entry in self._entries(0)}
            new = alert.id not in known
            if new:
                self._append({"at": _now(), "id": alert.id, **asdict(alert)})
        self.deliver()
        return new

    def deliver(self) -> int:
        """Sends what the webhook has not taken yet, in order, until it fails; how many alerts still wait."""
        with self._lock():
            if self.webhook is None:
                self._mark(self._size())
                return 0
            waiting = self._entries(self._position())
            for number, entry in enumerate(waiting):
                if not self._post(entry):
                    return len(waiting) - number
                self._mark(entry["end"])
        return 0

    def entries(self) -> list[dict[str, Any]]:
        """All alerts, oldest first."""
        return [{k: v for k, v in entry.items() if k != "end"} for entry in self._entries(0)]

    def _post(self, entry: dict[str, Any]) -> bool:
        """Whether the webhook took the alert, or refused it for good."""
        assert self.webhook is not None
        sent = {k: v for k, v in entry.items() if k != "end"}
        line = f"newsrec {entry['kind']} ({entry['dataset']}): {entry['subject']}: {entry['text']}"
        body = json.dumps({**sent, "text": f"{line} What to do: {entry['action']}"}).encode()
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.webhook, data=body, headers=kind, method="POST")  # noqa: S310
        tell = logging.getLogger("pipeline").warning
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):  # noqa: S310
                return True
        except urllib.error.HTTPError as error:
            final = 400 <= error.code < 500 and error.code not in TRY_AGAIN
            tell("the alert webhook answered %s%s", error.code, ": this alert stays in the log only" if final else "")
            return final
        except OSError as error:
            tell("the alert webhook cannot be reached (%s): %s waits in %s", error, entry["id"][:12], self.log)
            return False

    def _entries(self, start: int) -> list[dict[str, Any]]:
        """Complete lines from byte `start` on, each with the position of its `end`."""
        if not self.log.is_file():
            return []
        with self.log.open("rb") as stream:
            stream.seek(start)
            lines = [line for line in stream.read().splitlines(keepends=True) if line.endswith(b"\n")]
        found, end = [], start
        for line in lines:
            end += len(line)
            found.append({**json.loads(line), "end": end})
        return found

    def _append(self, record: dict[str, Any]) -> None:
        """One line, on disk; what a killed process left of a line is cut off first."""
        self.log.touch()
        with self.log.open("r+b") as stream:
            data = stream.read()
            whole = data.rfind(b"\n") + 1
            stream.truncate(whole)
            stream.seek(whole)
            stream.write(json.dumps(record).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _size(self) -> int:
        return self.log.stat().st_size if self.log.is_file() else 0

    def _position(self) -> int:
        """Bytes delivered; a log that does not fit them has been rotated and is read from its beginning."""
        told = self._sent.read_text() if self._sent.is_file() else ""
        if not told.isdecimal() or not 0 < int(told) <= self._size():
            return 0
        with self.log.open("rb") as stream:
            stream.seek(int(told) - 1)
            return int(told) if stream.read(1) == b"\n" else 0

    def _mark(self, position: int) -> None:
        if position == self._position():
            return
        replace_whole(self._sent, str(position).encode())

    def _lock(self) -> FileLock:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.log.with_name(self.log.name + ".lock"))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
