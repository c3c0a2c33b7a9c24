"""The files in config that operators install: the tool that reads each file accepts it."""

import json
import os
import pathlib
import re
import shutil
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


def last_stage():
    """The instructions of the image that is kept, each in one line."""
    text = re.sub(r"\\\n\s*", "", (CONFIG.parent / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    start = max(at for at, line in enumerate(lines) if line.startswith("FROM "))
    return lines[start:]


def environment_of_the_image():
    line = next(line for line in last_stage() if line.startswith("ENV "))
    return dict(pair.split("=", 1) for pair in line.split()[1:])


def test_the_image_holds_one_program_and_no_shell_and_is_not_root():
    stage = last_stage()
    assert stage[0] == "FROM scratch"
    assert [line for line in stage if line.startswith("USER ")] == ["USER 65532:65532"]
    assert not any(line.startswith(("RUN", "SHELL", "ADD")) for line in stage)
    started = [line for line in stage if line.startswith(("HEALTHCHECK", "ENTRYPOINT", "CMD"))]
    assert len(started) == 3 and all(line.endswith("]") for line in started), "a string would need a shell"
    assert [line.split()[-1] for line in stage if line.startswith("COPY ")] == ["/tollgate", "/data"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change the root directory")
def test_the_program_runs_where_there_is_nothing_but_its_own_files(tmp_path):
    """As in the image: a user without a name, no /tmp, no shell, and the environment of the Dockerfile. The image's
    program is static. This one is not, so it gets its libraries."""
    program, root = os.environ["TOLLGATE_BINARY"], tmp_path / "root"
    (root / "data").mkdir(parents=True)
    root.chmod(0o755)
    os.chown(root / "data", 65532, 65532)
    shutil.copy(program, root / "tollgate")
    for library in re.findall(r"(/\S+) \(0x", subprocess.check_output(["ldd", program], text=True)):
        (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, root / library[1:])
    environment = environment_of_the_image() | {
        "TOLLGATE__SERVER__LISTEN": "127.0.0.1:0", "TOLLGATE__OPS__LISTEN": "127.0.0.1:18099", "TOLLGATE__LOG__FORMAT": "text"}
    inside = ["/usr/sbin/chroot", "--userspec=65532:65532", str(root), "/tollgate"]

    def run(*arguments):
        return subprocess.run([*inside, *arguments], env=environment, capture_output=True, text=True)

    server = subprocess.Popen([*inside, "serve"], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert any("ready" in line for line in server.stderr), "it did not start"
        assert run("healthcheck").returncode == 0
        made = run("merchant", "onboard", "Acme")
        assert made.returncode == 0, made.stderr
        assert sorted(path.name for path in (root / "data").iterdir())[0] == "token.keys"
    finally:
        server.terminate()
        assert server.wait() == 0
    assert run("healthcheck").returncode == 1
