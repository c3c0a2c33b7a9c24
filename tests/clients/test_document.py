"""schemathesis reads the server's own OpenAPI document and calls everything in it, with good values and bad ones: no 5xx,
no status, type or body that the document does not promise, and no answer that takes long."""

import pathlib
import re
import subprocess
import sys

import pytest

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"

# The number of cases for each operation, in addition to those from the limits in the document, and the longest time.
EXAMPLES = 25
RUN_SECS = 240


def callers(shop):
    """As whom, and which paths."""
    return {
        "operator": ("^/admin/", [f"Authorization: Bearer {shop.world.operator['token']}"]),
        "integrator": ("^/(api|healthz|readyz|[.]well-known)", [f"X-API-KEY: {shop.merchant.key}"]),
        "service": ("^/api/(introspect|revoke)", [f"Authorization: Bearer {shop.service['token']}"]),
        "nobody": ("^/", []),
    }


@pytest.mark.parametrize("who", ["operator", "integrator", "service", "nobody"])
def test_every_answer_is_one_that_the_document_promises(own_shop, tmp_path, who):
    shop = own_shop  # It follows ids from one answer to the next call, and so ends keys, merchants and tokens.
    paths, headers = callers(shop)[who]
    command = [
        pathlib.Path(sys.executable).parent / "st", "run", f"{shop.world.issuer}/openapi.json",
        "--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES,
        "--include-path-regex", paths, "--max-response-time", 5, "--request-timeout", 10, "--seed", 1,
        "--generation-database", "none", "--continue-on-failure", "--no-color", "--warnings", "off",
        *[word for header in headers for word in ("--header", header)],
    ]
    # In its own directory, because it reads settings from there and may leave files there.
    ran = subprocess.run(
        [str(word) for word in command], cwd=tmp_path, capture_output=True, text=True, timeout=RUN_SECS)
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-2_000:]
    # Check that it did something, because a pattern that matches no path would pass too.
    generated = re.search(r"(\d+) generated", ran.stdout)
    assert generated and int(generated[1]) >= EXAMPLES, ran.stdout[-2_000:]
