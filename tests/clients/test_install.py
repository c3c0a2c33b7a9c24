"""The files in config that operators install: the tool that reads each file accepts it."""

import json
import os
import pathlib
import subprocess

import kubernetes_validate
import pytest
import yaml

CONFIG = pathlib.Path(__file__).parents[2] / "config"


def documents(path):
    return list(yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("manifest", documents(CONFIG / "kubernetes/tollgate.yaml"), ids=lambda made: made["kind"])
@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_kubernetes_manifests(manifest, version):
    kubernetes_validate.validate(manifest, version, strict=True)


def test_a_pod_stops_in_the_time_that_it_is_given():
    manifests = {made["kind"]: made for made in documents(CONFIG / "kubernetes/tollgate.yaml")}
    drain = int(manifests["ConfigMap"]["data"]["TOLLGATE__SERVER__DRAIN_DELAY_SECS"])
    grace = manifests["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    defaults = (CONFIG / "default.toml").read_text()
    shutdown = next(int(line.split("=")[1]) for line in defaults.splitlines() if line.startswith("shutdown_grace_secs"))
    assert drain + shutdown < grace


@pytest.mark.parametrize("command", [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]], ids=" ".join)
def test_prometheus_alerts(command):
    told = subprocess.run(["promtool", *command], cwd=CONFIG / "prometheus", capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr


def test_every_alert_is_explained():
    explained = (CONFIG / "operations.md").read_text()
    for rule in documents(CONFIG / "prometheus/alerts.yaml")[0]["groups"][0]["rules"]:
        assert f"`{rule['alert']}`" in explained


def test_the_dashboard_is_one():
    dashboard = json.loads((CONFIG / "grafana/tollgate.json").read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids) and all(panel["targets"] and panel["description"] for panel in dashboard["panels"])


def test_the_example_for_production_names_no_setting_that_is_not_there(tmp_path):
    text = (CONFIG / "production.toml").read_text()
    (tmp_path / "database.url").write_text("postgres://tollgate:sesame@127.0.0.1/tollgate")
    (tmp_path / "token.keys").write_text("0" * 64)
    (tmp_path / "token.keys").chmod(0o600)
    (tmp_path / "production.toml").write_text(text.replace("/etc/tollgate", str(tmp_path)))
    told = subprocess.run(
        [os.environ["TOLLGATE_BINARY"], "check-config", "--config", "production.toml"],
        cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "sesame" not in told.stdout
