"""Runs the code in the documents as a reader would. Each snippet gets a token, and uses or renews it."""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import shutil
import subprocess
import time

import pytest

SNIPPETS = pathlib.Path(__file__).parents[2] / "src/http/docs/snippets"

RUST = pathlib.Path(os.environ["TOLLGATE_CLIENTS_CACHE"]) / "rust/debug"

RUN = {
    "token.sh": ["bash", "token.sh"],
    "token.py": ["python3", "token.py"],
    "token.mjs": ["node", "token.mjs"],
    "token.php": ["php", "token.php"],
    "token.go": ["go", "run", "token.go"],
    "Token.java": ["java", "Token.java"],
    "token.rs": [RUST / "token"],
}


@pytest.fixture(scope="session", autouse=True)
def rust():
    """Builds the Rust snippets, once for all tests."""
    manifest = pathlib.Path(__file__).parent / "rust/Cargo.toml"
    subprocess.run(
        ["cargo", "build", "--quiet", "--locked", "--manifest-path", manifest, "--target-dir", RUST.parent], check=True)


@pytest.fixture
def folder(tmp_path):
    for snippet in SNIPPETS.iterdir():
        shutil.copy(snippet, tmp_path)
    return tmp_path


def run(command, folder, **env):
    home = {"GOFLAGS": "-mod=mod", "GOCACHE": str(folder / "go"), "GO111MODULE": "off"}
    return subprocess.run(
        command, cwd=folder, env=os.environ | home | env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("snippet", RUN)
def test_a_token_is_fetched_and_used(shop, folder, snippet):
    environment = {
        "TOLLGATE_URL": shop.world.issuer, "TOLLGATE_KEY": shop.merchant.key,
        "TOLLGATE_CLIENT_ID": shop.merchant.client_id, "TOLLGATE_CLIENT_SECRET": shop.merchant.client_secret,
        "API_URL": f"{shop.world.issuer}/api/verify",
    }
    good = run(RUN[snippet], folder, **environment)
    assert good.returncode == 0, good.stderr
    bad = run(RUN[snippet], folder, **environment | {"TOLLGATE_CLIENT_SECRET": "wrong"})
    assert bad.returncode != 0, bad.stdout


# Calls a snippet's function with the contents of webhook.json, and prints whether the webhook is genuine.
DRIVERS = {
    "python3 drive.py": ("drive.py", """
import base64, json
from verify import is_genuine
hook = json.load(open("webhook.json"))
print(is_genuine(hook["secret"], hook["headers"], base64.b64decode(hook["body"])))
"""),
    "node drive.mjs": ("drive.mjs", """
import { readFileSync } from "node:fs";
import { isGenuine } from "./verify.mjs";
const hook = JSON.parse(readFileSync("webhook.json"));
console.log(isGenuine(hook.secret, hook.headers, Buffer.from(hook.body, "base64")));
"""),
    "php drive.php": ("drive.php", """<?php
require 'verify.php';
$hook = json_decode(file_get_contents('webhook.json'), true);
echo isGenuine($hook['secret'], $hook['headers'], base64_decode($hook['body'])) ? 'true' : 'false';
"""),
    "go run drive.go verify.go": ("drive.go", """package main
import ("encoding/json"; "fmt"; "net/http"; "os"; "time")
func main() {
	var hook struct { Secret string; Headers map[string]string; Body []byte }
	text, _ := os.ReadFile("webhook.json")
	json.Unmarshal(text, &hook)
	headers := http.Header{}
	for name, value := range hook.Headers { headers.Set(name, value) }
	fmt.Println(IsGenuine(hook.Secret, headers, hook.Body, time.Now()))
}
"""),
    f"{RUST}/verify": ("verify.rs", None),
    "java -cp . Drive": ("Drive.java", """
import java.nio.file.*; import java.util.*; import java.time.Instant;
public class Drive {
    public static void main(String[] lines) throws Exception {
        var hook = Files.readAllLines(Path.of("webhook.lines"));
        var headers = Map.of("webhook-id", hook.get(1), "webhook-timestamp", hook.get(2), "webhook-signature", hook.get(3));
        System.out.println(Verify.isGenuine(hook.get(0), headers, Base64.getDecoder().decode(hook.get(4)), Instant.now()));
    }
}
"""),
}


def webhook(at, altered=False):
    key, body = os.urandom(24), b'{"type":"payment.settled","data":{"amount":10.10}}'
    mac = hmac.new(key, f"msg_1.{at}.".encode() + body, hashlib.sha256).digest()
    other = base64.b64encode(os.urandom(32)).decode()
    return {
        "secret": "whsec_" + base64.b64encode(key).decode(),
        "headers": {
            "webhook-id": "msg_1", "webhook-timestamp": str(at),
            "webhook-signature": f"v1,{other} v1,{base64.b64encode(mac).decode()}"},
        "body": base64.b64encode(body + b" " * altered).decode(),
    }


@pytest.mark.parametrize("command", DRIVERS)
def test_a_webhook_is_verified(folder, command):
    name, code = DRIVERS[command]
    if code is not None:  # else it is built
        (folder / name).write_text(code)
    if name == "drive.go":  # one program of both files
        verify = folder / "verify.go"
        verify.write_text(verify.read_text().replace("package webhook", "package main"))
    if name == "Drive.java":
        compiled = run(["javac", "Verify.java", "Drive.java"], folder)
        assert compiled.returncode == 0, compiled.stderr
    now = int(time.time())
    for hook, genuine in [(webhook(now), True), (webhook(now, altered=True), False), (webhook(now - 3600), False)]:
        (folder / "webhook.json").write_text(json.dumps(hook))
        (folder / "webhook.lines").write_text("\n".join([hook["secret"], *hook["headers"].values(), hook["body"]]))
        said = run(command.split(), folder)
        assert said.returncode == 0, said.stderr
        assert said.stdout.strip().lower() == str(genuine).lower(), said.stdout
