"""The OpenAPI document in the hands of tools: two linters have nothing against it, and clients that two generators make
of it do the whole job."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import openapi_spec_validator
import pytest

from world import call

NODE = pathlib.Path(os.environ["TOLLGATE_CLIENTS_CACHE"]) / "node"
TOOLS = NODE / "node_modules/.bin"
HERE = pathlib.Path(__file__).parent


def run(command, folder, **env):
    ran = subprocess.run(
        [str(word) for word in command], cwd=folder, env=os.environ | env, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-8000:]
    return ran.stdout + ran.stderr


@pytest.fixture
def document(shop, tmp_path):
    answer = call(shop.world.issuer, "GET", "/openapi.json")
    path = tmp_path / "openapi.json"
    path.write_bytes(answer.body)
    return path


def test_redocly_has_nothing_against_it(document, tmp_path):
    quiet = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    said = run([TOOLS / "redocly", "lint", document, "--extends=recommended", "--format=json"], tmp_path, **quiet)
    totals = json.loads(said[said.index("{"):said.rindex("}") + 1])["totals"]
    assert totals["errors"] == totals["warnings"] == 0, said[-8000:]


def test_openapi_spec_validator_has_nothing_against_it(document):
    openapi_spec_validator.validate(json.loads(document.read_text()))


def test_a_typescript_client_does_the_whole_job(shop, document, tmp_path):
    (tmp_path / "node_modules").symlink_to(NODE / "node_modules")
    (tmp_path / "package.json").write_text('{"type":"module"}')
    shutil.copy(HERE / "node/generated.ts", tmp_path)
    run([TOOLS / "openapi-typescript", document, "--output", "schema.ts"], tmp_path)
    run([TOOLS / "tsc", "--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck", "generated.ts"], tmp_path)
    run(["node", "generated.js", shop.world.issuer, shop.world.operator["token"]], tmp_path)


def test_a_python_client_does_the_whole_job(shop, document, tmp_path):
    programs = pathlib.Path(sys.executable).parent
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"  # It formats what it writes with ruff.
    said = run(
        [programs / "openapi-python-client", "generate", "--path", document, "--meta", "none", "--output-path", "tollgate_client",
         "--fail-on-warning"],
        tmp_path, PATH=path)
    assert "rror" not in said, said
    run([sys.executable, HERE / "generated.py", shop.world.issuer, shop.world.operator["token"]], tmp_path,
        PYTHONPATH=str(tmp_path))
