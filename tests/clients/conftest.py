"""Shared by the tests: one Tollgate on SQLite with merchants, which is always stopped at the end.

TOLLGATE_BINARY names the program to test; `run` builds it.
"""

import dataclasses
import os
import pathlib
import tempfile

import pytest

from world import OFFICE, PROXY, Client, World, until


@dataclasses.dataclass
class Shop:
    """The merchants and tokens that the tests call with."""

    world: World
    merchant: Client
    plain: Client
    office: Client
    office_plain: Client
    proxy_plain: Client
    foreign: Client
    service: dict
    expired: str


def stand_up(world):
    world.start(TOKENS__ACCESS_TTL_SECS="1", TOKENS__REFRESH_RETRY_WINDOW_SECS="0")
    merchant_id = world.merchant("Corner shop")
    merchant = world.client(merchant_id)
    expired = world.tokens(merchant)["access_token"]
    shop = Shop(
        world, merchant,
        plain=world.plain_key(merchant_id),
        office=world.client(merchant_id, allowed_ips=[OFFICE]),
        office_plain=world.plain_key(merchant_id, allowed_ips=[OFFICE]),
        proxy_plain=world.plain_key(merchant_id, allowed_ips=[PROXY]),
        foreign=world.client(world.merchant("Other shop")),
        service=world.service_token(), expired=expired)
    until("the token expires", lambda: not world.is_active(expired, shop.service))
    # From here on, tokens live for the usual hour. This one has expired.
    world.stop()
    world.start()
    return shop


@pytest.fixture(scope="session")
def directory():
    with tempfile.TemporaryDirectory(prefix="tollgate-clients-") as made:
        # A proxy that was started by root drops its privileges, and must still be able to read its files. The server's files are in a
        # subdirectory that only the server can read.
        os.chmod(made, 0o711)
        yield pathlib.Path(made)


@pytest.fixture(scope="session")
def shop(directory):
    world = World(os.environ["TOLLGATE_BINARY"], directory)
    try:
        yield stand_up(world)
    finally:
        world.stop()


@pytest.fixture
def own_shop(tmp_path):
    """As `shop`, for a test that leaves nothing as it was."""
    world = World(os.environ["TOLLGATE_BINARY"], tmp_path)
    try:
        yield stand_up(world)
    finally:
        world.stop()


class ClosingLine:
    """The last line: an error in a fixture is a failed test."""

    def __init__(self):
        self.outcomes = {}

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.failed:
            self.outcomes[report.nodeid] = self.outcomes.get(report.nodeid, True) and report.passed

    def pytest_unconfigure(self):
        passed = sum(self.outcomes.values())
        print(f"\n{passed} passed, {len(self.outcomes) - passed} failed")


def pytest_configure(config):
    config.pluginmanager.register(ClosingLine())
