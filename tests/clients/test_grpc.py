"""An API that uses gRPC behind each of the proxies, with grpcio on both sides."""

import concurrent.futures

import grpc
import pytest

import proxies
from world import PATIENCE_SECS, until

# Messages are plain bytes, because a proxy does not look into them.
UNARY, STREAM, BROKEN = (f"/shop.Orders/{name}" for name in ["Unary", "Stream", "Broken"])


class Api:
    """Answers with what it was sent, and keeps what it was told of each call."""

    def __init__(self):
        self.seen = []

        def told(context):
            self.seen.append(list(context.invocation_metadata()))

        def unary(message, context):
            told(context)
            return message

        def stream(messages, context):
            told(context)
            yield from messages

        def broken(_message, context):
            told(context)
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today")

        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        self.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.Orders", {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "Stream": grpc.stream_stream_rpc_method_handler(stream),
            "Broken": grpc.unary_unary_rpc_method_handler(broken),
        })])
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def stop(self):
        self.server.stop(0).wait()


@pytest.fixture(scope="module")
def api():
    running = Api()
    yield running
    running.stop()


@pytest.fixture(scope="module", params=proxies.ALL, ids=lambda kind: kind.__name__.lower())
def channel(request, shop, api, directory):
    kind = request.param
    proxy = proxies.started(kind, directory, "grpc", shop.world.port, api.port, kind.GRPC)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{proxy.port}", [("grpc.enable_http_proxy", 0)]) as opened:
            # Traefik listens before its routes are loaded.
            until("the proxy is ready", lambda: refusal(opened).code() == grpc.StatusCode.UNAUTHENTICATED)
            yield opened
    finally:
        proxy.stop()


def unary(channel, *metadata, method=UNARY):
    return channel.unary_unary(method)(b"order", PATIENCE_SECS, metadata, wait_for_ready=True)


def refusal(channel, *metadata, method=UNARY):
    with pytest.raises(grpc.RpcError) as error:
        unary(channel, *metadata, method=method)
    return error.value


def test_a_good_key_passes_and_the_api_is_told_who_calls(channel, api, shop):
    assert unary(channel, ("x-api-key", shop.plain.key), ("x-merchant-id", "spoofed"), ("x-own", "kept")) == b"order"
    told = api.seen[-1]
    assert [value for name, value in told if name == "x-merchant-id"] == [shop.plain.merchant_id]
    assert ("x-own", "kept") in told
    assert "x-api-key" not in dict(told)


def test_messages_go_both_ways_while_the_call_lasts(channel, shop):
    sent = [b"one", b"two" * 100_000, b"three"]
    replies = channel.stream_stream(STREAM)(iter(sent), PATIENCE_SECS, [("x-api-key", shop.plain.key)])
    assert list(replies) == sent


def test_what_the_api_says_at_the_end_arrives(channel, shop):
    error = refusal(channel, ("x-api-key", shop.plain.key), method=BROKEN)
    assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not today")


def test_a_bad_key_is_refused_before_the_api(channel, api, shop):
    before = len(api.seen)
    for metadata in [[], [("x-api-key", "0" * 64)], [("x-api-key", shop.merchant.key)]]:
        assert refusal(channel, *metadata).code() == grpc.StatusCode.UNAUTHENTICATED
    assert len(api.seen) == before


def test_a_client_that_may_not_any_more_is_told_so(channel, api, shop):
    client = shop.world.client(shop.world.merchant("Lapsed"))
    credentials = [("x-api-key", client.key), ("access-token", shop.world.tokens(client)["access_token"])]
    assert unary(channel, *credentials) == b"order"
    before = len(api.seen)
    shop.world.admin("PUT", f"/merchants/{client.merchant_id}/licences/enhanced_security", {"active": False})
    assert refusal(channel, *credentials).code() == grpc.StatusCode.PERMISSION_DENIED
    assert len(api.seen) == before
