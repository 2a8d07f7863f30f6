"""Alerts reach the log once and the webhook late rather than never, against a server on loopback."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ml.errors import UsageError
from pipeline.alerts import Alert, Alerts

ALERT = Alert("failure", "simulated", "simulated_nightly", "the disk is full", "free some space", "run-1")


@pytest.fixture
def hook():
    """A webhook: `posts` it got, `answers` it gives before it says 200."""

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            code = server.answers.pop(0) if server.answers else 200
            if code == 200:
                server.posts.append(json.loads(body))
            self.send_response(code)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Hook)
    server.posts, server.answers = [], []
    server.address = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def other(event: str) -> Alert:
    return Alert("failure", "simulated", "simulated_nightly", "the disk is full", "free some space", event)


def test_an_alert_is_written_and_posted_once(hook, tmp_path):
    alerts = Alerts(tmp_path / "alerts.jsonl", hook.address)
    assert alerts.record(ALERT) and not alerts.record(ALERT)
    (line,) = [json.loads(text) for text in alerts.log.read_text().splitlines()]
    (post,) = hook.posts
    assert post["id"] == line["id"] and line["kind"] == "failure" and line["text"] == "the disk is full"
    assert "the disk is full" in post["text"] and "free some space" in post["text"]


def test_what_the_webhook_did_not_take_is_sent_later_in_order(hook, tmp_path):
    alerts = Alerts(tmp_path / "alerts.jsonl", hook.address)
    hook.answers += [503, 503]
    alerts.record(other("a"))
    alerts.record(other("b"))
    assert hook.posts == [] and len(alerts.entries()) == 2
    assert alerts.deliver() == 0
    assert [p["event"] for p in hook.posts] == ["a", "b"]
    alerts.deliver()
    assert len(hook.posts) == 2, "delivered once"


def test_a_webhook_that_is_away_loses_nothing_and_raises_nothing(hook, tmp_path):
    away = Alerts(tmp_path / "alerts.jsonl", "http://127.0.0.1:9/")
    away.record(other("a"))
    assert away.deliver() == 1
    back = Alerts(tmp_path / "alerts.jsonl", hook.address)
    assert back.deliver() == 0 and [p["event"] for p in hook.posts] == ["a"]


def test_a_refused_alert_does_not_hold_up_the_next(hook, tmp_path):
    alerts = Alerts(tmp_path / "alerts.jsonl", hook.address)
    hook.answers += [400]
    alerts.record(other("a"))
    alerts.record(other("b"))
    assert [p["event"] for p in hook.posts] == ["b"]


def test_half_a_line_of_a_killed_process_is_cut_off(hook, tmp_path):
    alerts = Alerts(tmp_path / "alerts.jsonl", hook.address)
    alerts.record(other("a"))
    with alerts.log.open("a") as stream:
        stream.write('{"at": "2023')
    alerts.record(other("b"))
    assert [e["event"] for e in alerts.entries()] == ["a", "b"] == [p["event"] for p in hook.posts]


@pytest.mark.parametrize("told", ["", "what?", "7", "99999"])
def test_a_position_that_does_not_fit_the_log_is_its_beginning(hook, tmp_path, told):
    """After a power loss, or beside a log that was rotated and has grown since."""
    alerts = Alerts(tmp_path / "alerts.jsonl", hook.address)
    alerts.record(other("a"))
    (sent,) = [p for p in tmp_path.iterdir() if p.name.endswith(".sent")]
    sent.write_text(told)
    alerts.record(other("b"))
    assert [p["event"] for p in hook.posts] == ["a", "a", "b"]


def test_without_a_webhook_the_log_is_all(tmp_path, monkeypatch):
    monkeypatch.delenv("NEWSREC_ALERT_WEBHOOK", raising=False)
    monkeypatch.delenv("NEWSREC_ALERT_LOG", raising=False)
    alerts = Alerts.configured(tmp_path)
    assert alerts.record(ALERT) and alerts.deliver() == 0
    assert alerts.log.parent.parent == tmp_path


def test_only_http_is_a_webhook(tmp_path, monkeypatch):
    monkeypatch.setenv("NEWSREC_ALERT_WEBHOOK", "file:///etc/passwd")
    with pytest.raises(UsageError, match="http"):
        Alerts.configured(tmp_path)
