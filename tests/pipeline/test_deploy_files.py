"""What deploy/ holds for other machines: against published schemas, Dagster's own, and what the code reads."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config
from dagster._core.workspace.load import location_origins_from_yaml_paths

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
HELM = yaml.safe_load((DEPLOY / "helm/values.yaml").read_text())
SERVER = yaml.safe_load((DEPLOY / "server/dagster.yaml").read_text())
EXAMPLE = (DEPLOY.parent / ".env.example").read_text()
SECRET = re.compile(r"PASSWORD|SECRET|ACCESS_KEY|TOKEN")
CHART = {
    "global": {"postgresqlSecretName", "dagsterHome", "serviceAccountName", "dagsterInstanceConfigMap"},
    "postgresql": {
        *("image", "enabled", "postgresqlHost", "postgresqlUsername", "postgresqlPassword", "postgresqlDatabase"),
        *("postgresqlParams", "postgresqlScheme", "service"),
    },
    "dagsterWebserver": {"image", "env", "envSecrets", "workspace", "resources", "service"},
    "dagsterDaemon": {"image", "runCoordinator", "runMonitoring", "env", "envSecrets", "resources"},
    "runLauncher": {"type", "config"},
    "telemetry": {"enabled"},
    "pythonLogs": {"pythonLogLevel", "managedPythonLoggers", "dagsterHandlerConfig"},
    "dagster-user-deployments": {"enabled", "enableSubchart", "imagePullSecrets", "deployments"},
}
"""Keys of the chart's published schema that a deployment like ours can want, by section."""


def values(service: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in service.get("environment", {}).items()}


def services() -> Iterator[tuple[str, dict[str, Any]]]:
    yield from COMPOSE["services"].items()


def test_the_compose_file_is_one_by_the_published_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(DEPLOY / "compose.yaml")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_services_refer_to_is_there() -> None:
    assert {name for name, _ in services()} == {
        *("postgres", "s3", "buckets", "mlflow", "code", "webserver", "daemon"),
    }
    for name, service in services():
        for other, condition in service.get("depends_on", {}).items():
            assert other in COMPOSE["services"], name
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in COMPOSE["services"][other], f"{name} waits for a health that nobody tells"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or source.startswith("${") or (DEPLOY / source).is_file(), volume
        image = service["image"]
        assert re.search(r":[^:/]*[0-9]", image) and not image.endswith(":latest"), f"{name}: {image} names no version"


def test_ports_are_open_on_loopback_only() -> None:
    ports = {port for _, service in services() for port in service.get("ports", [])}
    assert ports == {"127.0.0.1:3000:3000", "127.0.0.1:5000:5000"}


def test_secrets_come_from_the_environment_and_are_documented() -> None:
    for name, service in services():
        for key, value in values(service).items():
            found = re.findall(r"\$\{([A-Z0-9_]+)(:[?-])?", value)
            for variable, kind in found:
                assert f"\n{variable}=" in EXAMPLE, f"{variable} of {name} is not in .env.example"
                assert kind == ":?" or not SECRET.search(variable), f"{variable} of {name} may be empty"
            if SECRET.search(key) or ("://" in value and "@" in value):
                assert found, f"{key} of {name} is written down"
    for text in (DEPLOY / "helm/values.yaml").read_text(), (DEPLOY / "server/dagster.yaml").read_text():
        for line in text.splitlines():
            if not line.lstrip().startswith("#") and SECRET.search(line.upper()):
                assert "env:" in line or "Secret" in line, line


def test_the_code_location_gets_what_the_instance_and_the_lake_read() -> None:
    wanted = set(re.findall(r"env: ([A-Z_]+)", (DEPLOY / "server/dagster.yaml").read_text()))
    for name in ("code", "webserver", "daemon"):
        assert wanted <= values(COMPOSE["services"][name]).keys(), name
    ours = {"NEWSREC_BUCKET", "NEWSREC_DATASET", "NEWSREC_DATA_ROOT", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL_S3"}
    (deployment,) = HELM["dagster-user-deployments"]["deployments"]
    assert ours <= values(COMPOSE["services"]["code"]).keys()
    assert ours | {"NEWSREC_LAKE"} <= {entry["name"] for entry in deployment["env"]}
    assert {m["name"] for m in deployment["volumeMounts"]} == {v["name"] for v in deployment["volumes"]}
    claims = {d["metadata"]["name"] for d in yaml.safe_load_all((DEPLOY / "helm/lake.yaml").read_text())}
    named = {v["persistentVolumeClaim"]["claimName"] for v in deployment["volumes"] if "persistentVolumeClaim" in v}
    assert named == claims


def test_the_code_location_is_called_alike_everywhere(monkeypatch) -> None:
    found = [
        location_origins_from_yaml_paths([str(path)])
        for path in (DEPLOY.parent / "workspace.yaml", DEPLOY / "server/workspace.yaml")
    ]
    assert [o.location_name for origins in found for o in origins] == ["newsrec", "newsrec"]
    (grpc,) = found[1]
    assert (grpc.host, grpc.port) == ("code", 4000)
    (deployment,) = HELM["dagster-user-deployments"]["deployments"]
    arguments = deployment["dagsterApiGrpcArgs"]
    assert (deployment["name"], deployment["port"]) == ("newsrec", 4000)
    assert arguments == ["--module-name", "pipeline.definitions", "--location-name", "newsrec"]
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert all(f'"{a}"' in dockerfile.splitlines()[-1] for a in ["4000", *arguments])


@pytest.mark.parametrize("section", sorted(CHART))
def test_the_values_are_those_of_the_chart(section: str) -> None:
    assert HELM[section].keys() <= CHART[section]


def test_all_sections_are_looked_at() -> None:
    assert HELM.keys() - CHART.keys() == {"additionalInstanceConfig", "generatePostgresqlPasswordSecret"}


def test_dagster_takes_the_instance_that_the_chart_writes(tmp_path: Path, monkeypatch) -> None:
    """The chart's template puts these sections together (its configmap-instance.yaml)."""
    monitoring = HELM["dagsterDaemon"]["runMonitoring"]
    store = {
        "postgres_db": {
            "username": HELM["postgresql"]["postgresqlUsername"],
            "password": {"env": "DAGSTER_PG_PASSWORD"},
            "hostname": HELM["postgresql"]["postgresqlHost"],
            "db_name": HELM["postgresql"]["postgresqlDatabase"],
            "port": HELM["postgresql"]["service"]["port"],
            "scheme": HELM["postgresql"]["postgresqlScheme"],
        }
    }
    kinds = {"run_storage": "RunStorage", "event_log_storage": "EventLogStorage", "schedule_storage": "ScheduleStorage"}
    modules = {"run_storage": "run_storage", "event_log_storage": "event_log", "schedule_storage": "schedule_storage"}
    written = {
        name: {"module": f"dagster_postgres.{modules[name]}", "class": f"Postgres{kind}", "config": store}
        for name, kind in kinds.items()
    }
    written["run_launcher"] = HELM["runLauncher"]["config"]["customRunLauncher"]
    written["run_monitoring"] = {
        "enabled": monitoring["enabled"],
        "start_timeout_seconds": monitoring["startTimeoutSeconds"],
        "max_resume_run_attempts": monitoring["maxResumeRunAttempts"],
        "poll_interval_seconds": monitoring["pollIntervalSeconds"],
        "free_slots_after_run_end_seconds": monitoring["freeSlotsAfterRunEndSeconds"],
    }
    written["telemetry"] = HELM["telemetry"]
    written["python_logs"] = {"managed_python_loggers": HELM["pythonLogs"]["managedPythonLoggers"]}
    written |= HELM["additionalInstanceConfig"]
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "x")
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(written))
    config, _ = dagster_instance_config(str(tmp_path))
    assert config["concurrency"] == SERVER["concurrency"]
    assert config["python_logs"] == SERVER["python_logs"]
    assert HELM["dagsterDaemon"]["runCoordinator"] == {"enabled": False}, "else its limits and these would clash"


def test_the_image_copies_what_is_there_and_leaves_data_out() -> None:
    dockerfile, ignored = (DEPLOY / "Dockerfile").read_text(), (DEPLOY.parent / ".dockerignore").read_text().split()
    copied = [
        source
        for line in dockerfile.splitlines()
        if line.startswith("COPY")
        for source in line.split()[1:-1]
        if not source.startswith("--")
    ]
    assert ignored[0] == "*"
    for source in copied:
        assert (DEPLOY.parent / source).exists() and f"!{source.split('/')[0]}" in ignored, source
    assert re.search(r"^USER [1-9][0-9]*$", dockerfile, re.M), "not root, and a number, as Kubernetes wants it"


def test_buckets_are_made_once(monkeypatch) -> None:
    import importlib.util

    from tests.resources.s3_help import serving

    with serving() as s3:
        spec = importlib.util.spec_from_file_location("buckets", DEPLOY / "buckets.py")
        buckets = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(buckets)
        assert buckets.make(["lake", "mlflow", "news"]) == ["lake", "mlflow"]
        assert buckets.make(["lake", "mlflow"]) == []
        assert {b["Name"] for b in s3.client.list_buckets()["Buckets"]} >= {"lake", "mlflow"}
