"""Webhooks to receivers that use the `standardwebhooks` libraries of two languages.

What is slow happens at once: first the events for a receiver that is down, then the kills of the sender. The other
tests have the time until the retries; the last ones wait for them.
"""

import base64
import collections
import dataclasses
import http.client
import json
import os
import pathlib
import sys
import threading
import time

import pytest

from world import CALLER, Program, World, call, free_port, until

HERE = pathlib.Path(__file__).parent
NODE = pathlib.Path(os.environ["TOLLGATE_CLIENTS_CACHE"]) / "node"

RECEIVERS = ["python", "node"]
FORMATS = ["single_json", "multiple_json"]

# A retry comes a minute after the failure, or up to a tenth later. The claim of a killed sender lapses after 90 s.
RETRY_SECS = 75
CLAIM_SECS = 105

# Only its white space may change, but not digits, escapes or the order.
DATA = r"""{ "zeta": 10.10, "note" : "a \"b\": {c, [d]\\ \u00e9 é",
             "lines":[1, {"net":12345678901234567890.0100}], "none":{}, "nothing": null }"""

SINGLE_JSON = (
    r'{"type":"payment.settled","timestamp":"AT","data":{"zeta":10.10,"note":"a \"b\": {c, [d]\\ \u00e9 é",'
    r'"lines":[1,{"net":12345678901234567890.0100}],"none":{},"nothing":null}}')

MULTIPLE_JSON = r"""{
  "type": "payment.settled",
  "timestamp": "AT",
  "data": {
    "zeta": 10.10,
    "note": "a \"b\": {c, [d]\\ \u00e9 é",
    "lines": [
      1,
      {
        "net": 12345678901234567890.0100
      }
    ],
    "none": {},
    "nothing": null
  }
}"""

BODIES = {"single_json": SINGLE_JSON, "multiple_json": MULTIPLE_JSON}


class Receiver:
    """A receiver program. What it is told and what came lie in files, so it may be down."""

    def __init__(self, kind, directory):
        self.kind, self.directory, self.port = kind, directory, free_port()
        self.orders, self.log = directory / f"{kind}-orders.json", directory / f"{kind}-came.jsonl"
        self.log.touch()
        self.secrets, self.holds, self.program = {}, False, None
        self.tell()

    def start(self):
        command = {"python": [sys.executable, HERE / "receiver.py"], "node": ["node", NODE / "receiver.mjs"]}[self.kind]
        self.program = Program(
            f"{self.kind}-receiver", [*command, self.port, self.orders, self.log], self.directory, self.port)

    def stop(self):
        if self.program is not None:
            self.program.stop()

    def tell(self, holds=False):
        self.holds = holds
        written = self.orders.with_suffix(".new")
        written.write_text(json.dumps({"secrets": self.secrets, "holds": self.holds}))
        written.rename(self.orders)

    def came(self, path=None):
        lines = [line for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [came for came in map(json.loads, lines) if path in (None, came["path"])]

    def ids(self, path):
        return {came["id"] for came in self.came(path)}


@dataclasses.dataclass
class Hook:
    """A key with a webhook."""

    receiver: Receiver
    key_id: str
    path: str

    @property
    def secrets(self):
        return self.receiver.secrets[self.path]

    def came(self, event_id):
        return [came for came in self.receiver.came(self.path) if came["id"] == event_id]

    def count(self, held):
        return sum(came["held"] == held for came in self.receiver.came(self.path))

    def first(self, event_id):
        until(f"{event_id} comes to {self.path}", lambda: self.came(event_id))
        return self.came(event_id)[0]


@dataclasses.dataclass
class Shop:
    """A merchant with a webhook for each receiver."""

    world: World
    merchant_id: str
    hooks: dict

    def publish(self, event_type, data="{}", idempotency_key=None):
        """Not through a JSON library, which would write the data anew. Returns the id of the accepted event."""
        body = f'{{"type":"{event_type}","data":{data},"idempotency_key":{json.dumps(idempotency_key)}}}'
        answer = call(
            self.world.issuer, "POST", f"/admin/v1/merchants/{self.merchant_id}/events",
            [("Authorization", f"Bearer {self.world.operator['token']}"), ("Content-Type", "application/json")],
            body.encode(), CALLER)
        assert answer.status == 202, answer
        return answer.json()["id"]

    def deliveries(self, query=""):
        found, cursor = [], ""
        while cursor is not None:
            page = self.world.admin(
                "GET", f"/merchants/{self.merchant_id}/webhook-deliveries?limit=200{query}{cursor}")
            found += page["items"]
            cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
        return found

    def delivery(self, hook, event_id):
        [found] = [item for item in self.deliveries(f"&api_key_id={hook.key_id}") if item["event_id"] == event_id]
        return found

    def is_settled(self):
        return not self.deliveries("&state=pending")

    def holds_true(self, accepted):
        """Every accepted event came to every webhook, and every log entry is that of an event that came."""
        assert self.deliveries()
        came = {hook.key_id: hook.receiver.ids(hook.path) for hook in self.hooks.values()}
        assert all(set(accepted) <= ids for ids in came.values())
        for delivery in self.deliveries():
            assert delivery["state"] == "delivered", delivery
            assert delivery["event_id"] in came[delivery["api_key_id"]], delivery


def open_shop(world, name, receivers, formats):
    """The webhooks are told apart by receiver and output type."""
    merchant_id = world.merchant(name, "worldpay_corporate")
    hooks = {}
    for receiver in receivers:
        for webhook_format in formats:
            path = f"/{name}/{webhook_format}"
            made = world.admin("POST", f"/merchants/{merchant_id}/api-keys", {
                "name": receiver.kind, "environment": "live", "webhook_format": webhook_format,
                "webhook_url": f"http://127.0.0.1:{receiver.port}{path}"})
            receiver.secrets[path] = [made["webhook_secret"]]
            receiver.tell()
            hooks[receiver.kind, webhook_format] = Hook(receiver, made["id"], path)
    return Shop(world, merchant_id, hooks)


@dataclasses.dataclass
class Scene:
    world: World
    receivers: list
    # Its events were accepted while the receiver was down.
    late: Shop
    late_events: list
    late_since: float
    # Its events were accepted just before the sender was killed.
    cut: Shop
    cut_events: dict
    cut_since: float
    # This one has no problem.
    calm: Shop


def start(world):
    world.start(WEBHOOKS__ALLOW_PRIVATE_NETWORKS="true", WEBHOOKS__ALLOW_HTTP="true")


def is_refused(delivery):
    return [attempt["error"] for attempt in delivery["attempts"]] == ["connection_refused"]


def publish_until_it_is_cut_off(shop, prefix, accepted):
    """Fills `accepted`, by idempotency key; the last key is of the event whose answer was lost."""
    number = 0
    while True:
        key = f"{prefix}-{number}"
        accepted[key] = None
        try:
            accepted[key] = shop.publish("payment.settled", f'{{"number":{number}}}', key)
        except (OSError, http.client.HTTPException):
            return
        number += 1


def kill_while_events_are_published(shop, receivers, holds):
    """In the middle of deliveries that are answered, or of such that are not. Returns events by idempotency key."""
    for receiver in receivers:
        receiver.tell(holds)
    before = {hook.path: hook.count(holds) for hook in shop.hooks.values()}
    accepted = {}
    source = threading.Thread(
        target=publish_until_it_is_cut_off, args=(shop, f"holds-{holds}", accepted), daemon=True)
    source.start()

    def is_in_the_middle():
        has_begun = all(hook.count(holds) > before[hook.path] for hook in shop.hooks.values())
        return has_begun and len(accepted) > 12

    until("deliveries are under way", is_in_the_middle)
    shop.world.kill()
    source.join()
    for receiver in receivers:
        receiver.tell()
    start(shop.world)
    # We do not know whether the last one was accepted, so its sender asks again.
    for key in [key for key, event_id in accepted.items() if event_id is None]:
        number = key.rpartition("-")[2]
        accepted[key] = shop.publish("payment.settled", f'{{"number":{number}}}', key)
    return accepted


def set_the_scene(world, receivers):
    start(world)
    late = open_shop(world, "late", receivers, ["single_json"])
    late_events = [late.publish("payment.settled", f'{{"number":{number}}}') for number in range(5)]
    until("every delivery is refused", lambda: all(map(is_refused, late.deliveries())))
    late_since = time.monotonic()

    for receiver in receivers:
        receiver.start()
    cut = open_shop(world, "cut", receivers, ["multiple_json"])
    until("the receivers answer", cut.is_settled)
    cut_events = {}
    for holds in [True, False]:
        cut_events |= kill_while_events_are_published(cut, receivers, holds)
    return Scene(
        world, receivers, late, late_events, late_since, cut, cut_events, time.monotonic(),
        calm=open_shop(world, "calm", receivers, FORMATS))


@pytest.fixture(scope="module")
def scene(directory):
    own = directory / "receivers"
    own.mkdir()
    world, receivers = World(os.environ["TOLLGATE_BINARY"], own), [Receiver(kind, own) for kind in RECEIVERS]
    try:
        yield set_the_scene(world, receivers)
        world.stop()
    finally:
        for receiver in receivers:
            receiver.stop()
        if world.server is not None:
            world.kill()


@pytest.fixture(params=[(kind, webhook_format) for kind in RECEIVERS for webhook_format in FORMATS], ids="-".join)
def hook(scene, request):
    return scene.calm.hooks[request.param]


def test_the_body_is_exact_to_the_byte(scene, hook):
    event_id = scene.calm.publish("payment.settled", DATA)
    came = hook.first(event_id)
    webhook_format = hook.path.rpartition("/")[2]
    created_at = scene.calm.delivery(hook, event_id)["created_at"]
    assert base64.b64decode(came["body"]).decode() == BODIES[webhook_format].replace("AT", created_at)
    assert came["verified"] == [True]
    assert len(came["signatures"]) == 1


def test_a_repeated_idempotency_key_is_one_event(scene, hook):
    key = f"key-{hook.receiver.kind}-{hook.path}"
    first, again = [scene.calm.publish("payment.settled", idempotency_key=key) for _ in range(2)]
    assert first == again
    hook.first(first)
    # Of another one sent after it, there is one as well: the first was not merely slow to come twice.
    hook.first(scene.calm.publish("payment.refunded"))
    until("the webhooks are out", scene.calm.is_settled)
    assert len(hook.came(first)) == 1


def test_a_ping_verifies(scene, hook):
    answer = scene.world.admin("POST", f"/api-keys/{hook.key_id}/test-webhook")
    assert (answer["delivered"], answer["status"]) == (True, 204)


def test_a_redelivery_has_the_same_id_and_a_new_signature_that_verifies(scene, hook):
    event_id = scene.calm.publish("payment.settled", DATA)
    first = hook.first(event_id)
    # The timestamp has whole seconds.
    until("the second is over", lambda: time.time() >= int(first["timestamp"]) + 1)
    delivery = scene.calm.delivery(hook, event_id)
    scene.world.admin(
        "POST", f"/merchants/{scene.calm.merchant_id}/webhook-deliveries/{delivery['id']}/redeliver")
    until("it comes again", lambda: len(hook.came(event_id)) == 2)
    second = hook.came(event_id)[1]
    assert second["body"] == first["body"]
    assert second["signatures"] != first["signatures"]
    assert int(second["timestamp"]) > int(first["timestamp"])
    assert second["verified"] == [True]


def test_a_rotated_secret_signs_beside_the_old_one_until_the_overlap_is_over(scene, hook):
    def rotate(overlap_secs):
        made = scene.world.admin(
            "POST", f"/api-keys/{hook.key_id}/rotate-webhook-secret", {"overlap_secs": overlap_secs})
        hook.secrets.append(made["webhook_secret"])
        hook.receiver.tell()

    def verified(event_ids):
        return [hook.first(event_id)["verified"] for event_id in event_ids]

    publish = lambda: [scene.calm.publish("payment.settled", DATA) for _ in range(3)]
    [old] = hook.secrets
    before = publish()
    # A receiver that does not have the new secret yet accepts webhooks during the overlap.
    assert verified(before) == [[True]] * 3
    rotate(overlap_secs=3600)
    during = publish()
    assert verified(during) == [[True, True]] * 3
    assert {len(hook.first(event_id)["signatures"]) for event_id in during} == {2}
    rotate(overlap_secs=0)
    assert verified(publish()) == [[False, False, True]] * 3
    del hook.secrets[:-1]
    hook.receiver.tell()
    assert old not in hook.secrets


@pytest.mark.parametrize("kind", range(len(RECEIVERS)), ids=RECEIVERS)
def test_a_wrong_secret_does_not_verify(scene, kind):
    receiver = scene.receivers[kind]
    name = f"wrong-{receiver.kind}"
    wrong = "whsec_" + base64.b64encode(b"x" * 32).decode()
    shop = open_shop(scene.world, name, [receiver], ["single_json"])
    [hook] = shop.hooks.values()
    until("the webhooks are out", shop.is_settled)
    right = hook.secrets[0]
    hook.secrets[:] = [wrong, right[:-2] + ("A=" if right[-2] != "A" else "E=")]
    receiver.tell()
    event_id = shop.publish("payment.settled", DATA)
    assert hook.first(event_id)["verified"] == [False, False]
    until("the refusal is on record", lambda: shop.delivery(hook, event_id)["attempts"])
    [attempt] = shop.delivery(hook, event_id)["attempts"]
    assert attempt["status"] == 400


def test_a_receiver_that_was_down_gets_every_event(scene):
    rest = RETRY_SECS - (time.monotonic() - scene.late_since)
    until("the retries are over", scene.late.is_settled, rest)
    scene.late.holds_true(scene.late_events)
    for delivery in scene.late.deliveries():
        assert [attempt["status"] for attempt in delivery["attempts"]] == [None, 204]


def test_a_killed_sender_loses_no_event_that_was_accepted(scene):
    rest = CLAIM_SECS - (time.monotonic() - scene.cut_since)
    until("the claims of the killed senders are over", scene.cut.is_settled, rest)
    assert len(scene.cut_events) > 24 and None not in scene.cut_events.values()
    scene.cut.holds_true(scene.cut_events.values())
    for hook in scene.cut.hooks.values():
        came = hook.receiver.came(hook.path)
        held = {one["id"] for one in came if one["held"]}
        # The webhook that was held when the sender was killed came again, with the same id and the same body.
        assert held and held <= {one["id"] for one in came if not one["held"]}
        assert len({one["body"] for one in came}) == len({one["id"] for one in came})
        times = collections.Counter(one["id"] for one in came)
        assert max(times.values()) <= 2


def test_no_delivery_had_a_wrong_signature(scene):
    for receiver in scene.receivers:
        came = [one for one in receiver.came() if not one["path"].startswith("/wrong-")]
        assert len(came) > 50
        assert all(any(one["verified"]) for one in came)
