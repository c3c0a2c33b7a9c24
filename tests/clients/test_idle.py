"""Idle time-outs: no call is lost if it comes just when a proxy's spare connections to Tollgate end.

The examples keep such a connection for 60 s, and the server for 75 s. All of it is divided by 75 here, so that a quarter
of an hour takes a quarter of a minute. Those whose examples leave that time to the proxy's own default (Traefik, HAProxy)
cannot be divided, and Apache keeps no spare connection.
"""

import collections
import concurrent.futures
import contextlib
import itertools
import os
import time

import proxies
from world import World, call

DIVISOR = 75

# Seconds between calls, before the division: around the proxies' time-out, around the server's, and when the server
# really closes, because it measures in quarters of the time.
PAUSES = [59, 60, 61, 74, 75, 76, *[93.75, 112.5] * 3]

# Calls through each proxy come at nearly the same time, so that some of them use a connection just when it ends.
CALLERS = 100
SPREAD_SECS = 0.01


def test_no_call_is_lost_at_the_rhythm_of_idle_time_outs(directory):
    own = directory / "idle"
    own.mkdir()
    own.chmod(0o711)
    api = proxies.Api()
    world = World(os.environ["TOLLGATE_BINARY"], own)
    with contextlib.ExitStack() as ending:
        ending.callback(api.stop)
        ending.callback(world.stop)
        world.start(SERVER__IDLE_TIMEOUT_SECS=str(75 // DIVISOR))
        key = ("X-API-KEY", world.plain_key(world.merchant("Corner shop")).key)
        running = []
        for kind in [kind for kind in proxies.ALL if kind.idle(DIVISOR)]:
            running.append(proxies.started(kind, own, "idle", world.port, api.port, kind.idle(DIVISOR)))
            ending.callback(running[-1].stop)

        def ask(proxy, at):
            time.sleep(max(0, at - time.monotonic()))
            return proxy.program.name, call(proxy.base, "GET", "/", [key]).status

        answers = collections.Counter()
        begin = time.monotonic()
        assert len(running) == 3
        with concurrent.futures.ThreadPoolExecutor(CALLERS * len(running)) as callers:
            for beat in itertools.accumulate([0, *PAUSES]):
                # One proxy after the other, so that each has the whole machine.
                asked = [
                    callers.submit(ask, proxy, begin + beat / DIVISOR + place * 0.1 + nth * SPREAD_SECS / CALLERS)
                    for place, proxy in enumerate(running) for nth in range(CALLERS)]
                answers.update(answer.result() for answer in asked)
        assert answers == {(proxy.program.name, 200): CALLERS * (len(PAUSES) + 1) for proxy in running}
