"""What runs by itself: the operation's jobs, schedules and sensors, and what they add to the assets.

Belongs here: assembly of the parts. Does not belong here: the parts (`pipeline.nightly`, `pipeline.landing_sensor`,
`pipeline.variants`, `pipeline.watch`, `pipeline.automation`).
"""

import warnings
from collections.abc import Sequence
from typing import Any

import dagster as dg

from pipeline.automation import automation_sensor, condition
from pipeline.landing_sensor import landing_job, landing_sensor
from pipeline.nightly import nightly_job, nightly_schedule
from pipeline.steps import operated
from pipeline.variants import variant_job
from pipeline.watch import WATCHED, failure_sensor, freshness_policy, freshness_sensor

warnings.filterwarnings("ignore", category=dg.BetaWarning, message=".*(use_user_code_server|owners).*")


def operations(names: Sequence[str], keys: Sequence[dg.AssetKey]) -> dict[str, list[Any]]:
    """`jobs`, `schedules` and `sensors` for the datasets `names`; `keys` are all assets, of which those with a
    freshness policy are watched."""
    jobs, schedules, sensors = [], [], []
    for name in names:
        nightly, landing = nightly_job(name), landing_job(name)
        jobs += [nightly, landing, variant_job(name)]
        schedules.append(nightly_schedule(name, nightly))
        sensors.append(landing_sensor(name, landing))
    watched = [k for k in keys if is_watched(k)]
    return {
        "jobs": jobs,
        "schedules": schedules,
        "sensors": [*sensors, failure_sensor(), freshness_sensor(watched), automation_sensor()],
    }


def is_watched(key: dg.AssetKey) -> bool:
    """Whether the asset has a freshness policy: checkpoint, index and report of the operated dataset. Published logs
    that nobody adds to would only turn stale."""
    return key.path[0] == operated() and key.path[1] in WATCHED


def with_operation(built: Any) -> Any:
    """The asset with its automation condition and freshness policy, where it belongs to the operated dataset."""

    def add(spec: dg.AssetSpec) -> dg.AssetSpec:
        if spec.key.path[0] != operated():
            return spec
        spec = spec.replace_attributes(automation_condition=condition(spec.key.path[0]))
        return spec.replace_attributes(freshness_policy=freshness_policy()) if is_watched(spec.key) else spec

    return built.map_asset_specs(add)
