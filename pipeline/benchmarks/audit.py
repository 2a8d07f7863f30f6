"""`newsrec bench audit`: how fast the audit answers.

Belongs here: hashing beside `sha256sum`, `show` in a fresh process, the page of a large graph in a headless browser.
Does not belong here: benchmarks of the science (`ml.benchmarks`).
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ml.errors import LakeError, UsageError
from resources.ledger import Entry
from resources.lineage.archive import Kept
from resources.lineage.check import hash_files
from resources.lineage.graph import Graph, Node, walk_all
from resources.lineage.metric import REPORT
from resources.lineage.page import page
from resources.lineage.payload import payload
from resources.manifest import digest
from resources.places import lake_root
from resources.ref import Ref

NODES = 10_000
LIMIT_S = 2.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ROUNDS = 3
ANSWERED = "document.querySelector('#side h1') && document.querySelector('#side h1').textContent"


def bench_audit(size: str = "quick") -> dict[str, Any]:
    """Measured on the lake that there is, whatever the `size`; both sides from this run. Ratios above 1: ours is
    better. Raises UsageError where there is none."""
    root = lake_root()
    if not root.is_dir():
        raise UsageError(f"no lake at {root}: run `make run`, or point NEWSREC_LAKE at one")
    graph = walk_all(root)
    if not graph.nodes:
        raise UsageError(f"nothing was ever published in {root}: run `make run`")
    rows = [_hashing(graph), *_show(root, graph), *_page()]
    described = {"versions": len(graph.nodes), "bytes": sum(n.size for n in graph.nodes.values()), "page_nodes": NODES}
    return {"bench": "audit", "size": described, "results": rows}


def synthetic_graph(size: int) -> Graph:
    """`size` versions in days and stages like those of a real lake: every day's models read a window of days, so that
    most nodes have many users."""
    graph = Graph(Path("lake"))
    stages = ("raw_parquet", "clicks", "interactions", "checkpoint", "predictions", "evaluation_rq1")
    days: list[list[str]] = []
    while len(graph.nodes) < size - 1:
        day = f"{2000 + len(days) // 336:04}-{len(days) // 28 % 12 + 1:02}-{len(days) % 28 + 1:02}"
        made: list[str] = []
        for number, stage in enumerate(stages):
            window = [d[number - 1] for d in days[-28:] if len(d) > number - 1] if number in (2, 3) else []
            inputs = [*window, *(made[-1:])]
            made.append(_add(graph, Ref("synthetic", stage, day), inputs))
            if len(graph.nodes) >= size - 1:
                break
        days.append(made)
    graph.roots = (_add(graph, Ref("synthetic", REPORT, "2099-01-01.rolling"), [d[-1] for d in days]),)
    return graph


def _add(graph: Graph, ref: Ref, inputs: list[str]) -> str:
    content = digest(str(ref))
    manifest = {
        "format": 1,
        "ref": str(ref),
        "content": content,
        "files": [{"name": f"{ref.stage}.parquet", "bytes": 1000, "sha256": content}],
        "inputs": {str(graph.nodes[i].ref): i for i in inputs},
        "recipe": {"seed": 1},
        "code": {"ml.x": content},
        "rows": {f"{ref.stage}.parquet": 1000},
        "checks": [],
    }
    id_ = digest(manifest)
    record = {"environment": {"git_commit": "0" * 40, "libraries": {"numpy": "2"}}, "run": {"device": "cpu"}}
    kept = Kept(content[:16], Path(str(ref)), id_, manifest)
    graph.nodes[id_] = Node(id_, ref, "intact", kept, manifest, Entry("", "", record), tuple(inputs))
    return id_


def _row(name: str, ours: float, reference: float, unit: str, more_is_better: bool) -> dict[str, Any]:
    ratio = ours / reference if more_is_better else reference / ours
    return {"name": name, "ours": ours, "reference": reference, "ratio": ratio, "unit": unit}


def _hashing(graph: Graph) -> dict[str, Any]:
    """MB/s of `verify` and of `sha256sum` over the same files in turn, the best of three rounds of each."""
    program = shutil.which("sha256sum")
    if program is None:
        raise UsageError("sha256sum is not installed: it is the reference")
    files = [str(n.kept.path / f["name"]) for n in graph.nodes.values() if n.kept for f in (n.manifest or {})["files"]]
    ours, theirs, size = 0.0, 0.0, 0
    for _ in range(ROUNDS):
        hashed = hash_files(graph)
        ours, size = max(ours, hashed.megabytes_per_second), hashed.bytes
        started = time.perf_counter()
        subprocess.run([program], input="", text=True, capture_output=True, check=True)
        start_up = time.perf_counter() - started
        started = time.perf_counter()
        subprocess.run([program, "--", *files], stdout=subprocess.DEVNULL, check=True)
        theirs = max(theirs, size / 1e6 / (time.perf_counter() - started - start_up))
    return _row("verify beside sha256sum", ours, theirs, "MB/s", more_is_better=True)


def _show(root: Path, graph: Graph) -> Iterator[dict[str, Any]]:
    """Seconds of `audit show` of a whole report in a fresh process, against the promised second."""
    reports = [n.ref for n in graph.nodes.values() if n.ref.stage == REPORT and n.state == "intact"]
    if reports:
        ref = max(reports, key=lambda r: r.partition)
        day, _, split = ref.partition.partition(".")
        command = [sys.executable, "-m", "pipeline.cli", "audit", "show", "--lake", str(root), "--dataset", ref.dataset]
        started = time.perf_counter()
        subprocess.run([*command, "--as-of", day, "--split", split], stdout=subprocess.DEVNULL, check=True)
        yield _row("show a report", time.perf_counter() - started, 1.0, "s", more_is_better=False)


def _page() -> Iterator[dict[str, Any]]:
    """Seconds until the page of a large graph has opened, and until it answered a click, against the promise."""
    program = next((p for b in BROWSERS if (p := shutil.which(b))), None)
    if program is None:
        return
    graph = synthetic_graph(NODES)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(page(payload(graph, "synthetic")), encoding="utf-8")
        opened, clicked = time_page(program, path)
    yield _row(f"open the page of {NODES} nodes", opened, LIMIT_S, "s", more_is_better=False)
    yield _row("open it and have a click answered", clicked, LIMIT_S, "s", more_is_better=False)


def time_page(program: str, path: Path) -> tuple[float, float]:
    """Seconds from navigating to `path` until it is loaded and painted, and until a click on its second row is answered
    and painted. Raises LakeError when the browser does not answer."""
    with _browser(program) as tab:
        started = time.perf_counter()
        tab("Page.navigate", url=f"file://{quote(str(path))}")
        _until(tab, "document.readyState === 'complete' && !!document.querySelector('.row')")
        _painted(tab)
        opened = time.perf_counter() - started
        before = _value(tab, ANSWERED)
        place = _value(
            tab, "(r => [r.left + 60, r.top + 8])(document.querySelectorAll('.row')[1].getBoundingClientRect())"
        )
        mouse = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
        tab("Input.dispatchMouseEvent", type="mousePressed", **mouse)
        tab("Input.dispatchMouseEvent", type="mouseReleased", **mouse)
        _until(tab, f"({ANSWERED}) !== {json.dumps(before)}")
        _painted(tab)
        return opened, time.perf_counter() - started


@contextmanager
def _browser(program: str) -> Iterator[Any]:
    """A headless browser with one tab: a function that sends a DevTools command and gives its result."""
    from websockets.sync.client import connect

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0"]
        command = [program, *options, f"--user-data-dir={profile}", "about:blank"]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port = Path(profile) / "DevToolsActivePort"
            _wait(port.exists, "the browser did not start")
            _wait(lambda: len(port.read_text().splitlines()) == 2, "the browser did not start")
            number, way = port.read_text().splitlines()
            with connect(f"ws://127.0.0.1:{number}{way}", max_size=None, proxy=None) as socket:
                yield _tab(socket)
        finally:
            child.kill()
            child.wait()


def _tab(socket: Any) -> Any:
    count, session = 0, ""

    def send(method: str, **parameters: Any) -> Any:
        nonlocal count
        count += 1
        message = {"id": count, "method": method, "params": parameters}
        socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(socket.recv(timeout=60))
            if answer.get("id") == count:
                if "error" in answer:
                    raise LakeError(f"the browser refused {method}: {answer['error']['message']}")
                return answer["result"]

    target = next(t for t in send("Target.getTargets")["targetInfos"] if t["type"] == "page")
    session = send("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
    return send


def _value(tab: Any, expression: str) -> Any:
    return tab("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)["result"].get("value")


def _painted(tab: Any) -> None:
    _value(tab, "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")


def _until(tab: Any, expression: str) -> None:
    _wait(lambda: _value(tab, expression) is True, f"the page never came to: {expression}")


def _wait(condition: Any, message: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise LakeError(message)
        time.sleep(0.005)
