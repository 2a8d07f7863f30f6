"""All that is made of a log before an evaluation may ask for the oracle, in a process that watches itself.

Run as `python -m tests.pipeline.sealed_run STAGE ...` with the environment of the command line; makes these stages as
of the last day that can be tested, for every model, with all that they need. Prints JSON: `opened`, the files below the
data root that Python opened (audit event `open`; native readers pass it by, so `tests.pipeline.seal` watches the folder
as well), and `made`, the manifest of every partition in the lake. Does not belong here: what is expected
(`test_sealed_oracle`).
"""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path

OPENED: set[str] = set()
ROOT = Path(os.environ["NEWSREC_DATA_ROOT"]).absolute()


def watch(event: str, arguments: tuple[object, ...]) -> None:
    """Notes the files below ROOT."""
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        path = Path(os.fsdecode(arguments[0])).absolute()
        if path.is_relative_to(ROOT):
            OPENED.add(path.relative_to(ROOT).as_posix())


def main(stages: list[str]) -> None:
    """Materialises `stages`."""
    import dagster as dg

    from assets.build import models_of
    from assets.graph import BY_NAME
    from ml.datasets import dataset
    from pipeline.run import as_of_day, execute
    from resources.bindings import ToolBox, default_settings
    from tests.pipeline.seal import versions

    simulated, settings, toolbox = dataset("simulated"), default_settings(), ToolBox()
    day = as_of_day(simulated, settings, toolbox, None)
    chosen = [BY_NAME[name] for name in stages]
    goals = [
        (s, day - timedelta(days=1) if s.daily else day, model)
        for s in chosen
        for model in models_of(s, settings.models)
    ]
    with dg.DagsterInstance.get():
        execute(simulated, settings, toolbox, goals, lambda line: print(line, file=sys.stderr))
    print(json.dumps({"opened": sorted(OPENED), "made": versions(toolbox.tools().lake)}))


if __name__ == "__main__":
    sys.addaudithook(watch)
    main(sys.argv[1:])
