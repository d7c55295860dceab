"""Our MQTT connection against a real broker, and against one that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qilu_common.broker import BrokerAddress
from qilu_common.mqtt.codec import DISCONNECT_WITH_WILL, ConnectOptions, Decoder, Will
from qilu_common.mqtt.connection import Connection, connect
from qilu_common.mqtt.errors import ConnectRefused, MessageRefused, MqttError
from qilu_common.mqtt.messages import Message

PATIENCE_S = 30.0
CONNACK = b"\x20\x03\x00\x00\x00"


async def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def connected(broker: Any, options: ConnectOptions, **callbacks: Any) -> AsyncIterator[Connection]:
    connection = await connect(BrokerAddress.from_url(broker.url), options, **callbacks)
    try:
        yield connection
    finally:
        await connection.disconnect()


def local(port: int) -> BrokerAddress:
    return BrokerAddress("127.0.0.1", port, tls=False)


def some_options(**settings: Any) -> ConnectOptions:
    return ConnectOptions(f"test-{secrets.token_hex(6)}", **settings)


async def test_the_broker_hands_over_as_many_as_agreed_and_the_rest_for_acknowledgements(
    mosquitto: Any,
) -> None:
    topic = f"test/{secrets.token_hex(6)}"
    came: list[Message] = []
    acked: list[int] = []
    async with (
        connected(mosquitto, some_options(receive_maximum=5), take=came.extend) as receiver,
        connected(mosquitto, some_options(), acked=acked.extend) as sender,
    ):
        await receiver.subscribe([topic])
        for number in range(1, 21):
            sender.send_qos1(topic, b"%d" % number, number)
        sender.flush()
        await until(lambda: len(acked) == 20)
        assert (acked, sender.in_flight) == (list(range(1, 21)), 0)
        while len(came) < 20:
            await until(lambda: len(came) % 5 == 0 and came)
            receiver.acknowledge(message.mid for message in came[-5:])
            known = len(came)
            await until(lambda known=known: len(came) > known)
            assert len(came) <= known + 5
            await until(lambda: len(came) % 5 == 0)
    assert [message.payload for message in came] == [b"%d" % number for number in range(1, 21)]


async def test_what_was_not_acknowledged_comes_again_on_the_next_connection(mosquitto: Any) -> None:
    topic = f"test/{secrets.token_hex(6)}"
    options = some_options(clean_start=False, session_expiry_s=600)
    first: list[Message] = []
    async with connected(mosquitto, options, take=first.extend) as receiver:
        await receiver.subscribe([topic])
        async with connected(mosquitto, some_options()) as sender:
            for text in (b"one", b"two", b"three", b"four"):
                await sender.publish(topic, text)
        await until(lambda: len(first) == 4)
        # The third waits for the second: brokers want acknowledgements in the order of the messages.
        receiver.acknowledge([first[2].mid])
        receiver.acknowledge([first[0].mid])
    again: list[Message] = []
    async with connected(mosquitto, options, take=again.extend):
        await until(lambda: len(again) == 3)
    assert [(message.payload, message.dup) for message in again] == [
        (b"two", True),
        (b"three", True),
        (b"four", True),
    ]


async def test_a_message_that_takes_long_holds_up_acknowledgements_only_up_to_a_bound(mosquitto: Any) -> None:
    topic = f"test/{secrets.token_hex(6)}"
    options = some_options(session_expiry_s=3600, clean_start=False, receive_maximum=8)
    first: list[Message] = []
    async with connected(mosquitto, options, take=first.extend) as receiver:
        await receiver.subscribe([topic])
        async with connected(mosquitto, some_options()) as sender:
            for number in range(13):
                await sender.publish(topic, b"%d" % number)
        await until(lambda: len(first) == 8)
        receiver.acknowledge([message.mid for message in first[1:5]])  # half the window: they wait
        receiver.acknowledge([first[5].mid])
        await until(lambda: len(first) == 13)  # the window has moved past the first message
    assert first[0].payload == b"0"


async def test_large_messages_arrive_whole_and_pausing_holds_them_back(mosquitto: Any) -> None:
    topic = f"test/{secrets.token_hex(6)}"
    came: list[Message] = []
    bodies = [secrets.token_bytes(size) for size in (100, 130, 20_000, 2_200_000)]
    options = some_options(max_packet_bytes=4_000_000)
    async with (
        connected(mosquitto, options, take=came.extend) as receiver,
        connected(mosquitto, some_options()) as sender,
    ):
        await receiver.subscribe([topic])
        receiver.pause()
        for body in bodies:
            await sender.publish(topic, body)
        assert not came
        receiver.resume()
        await until(lambda: len(came) == len(bodies))
    assert [message.payload for message in came] == bodies


async def test_the_will_is_published_unless_we_say_goodbye(mosquitto: Any) -> None:
    topic = f"test/{secrets.token_hex(6)}"
    came: list[Message] = []
    async with connected(mosquitto, some_options(), take=came.extend) as watcher:
        await watcher.subscribe([topic])
        for reason in (0, DISCONNECT_WITH_WILL):
            body = b"gone with %d" % reason
            leaving = await connect(
                BrokerAddress.from_url(mosquitto.url), some_options(will=Will(topic, body))
            )
            await leaving.disconnect(reason)
        await until(lambda: came)
    assert [message.payload for message in came] == [b"gone with 4"]


class _Answers(asyncio.Protocol):
    """Sends the next of its answers for each packet it reads, then nothing more."""

    def __init__(self, answers: list[bytes]) -> None:
        self._left = list(answers)
        self.gone = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._transport.write(self._left.pop(0))

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()


@contextlib.asynccontextmanager
async def a_broker_that(answers: list[bytes]) -> AsyncIterator[int]:
    broker = _Answers(answers)
    server = await asyncio.get_running_loop().create_server(lambda: broker, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        await broker.gone.wait()


async def test_a_refusal_says_the_reason() -> None:
    text = b"\x1f\x00\x05later"
    async with a_broker_that([b"\x20" + bytes((3 + len(text), 0, 0x89, len(text))) + text]) as port:
        with pytest.raises(ConnectRefused, match="reason 137, later") as refusal:
            await connect(local(port), some_options())
    assert refusal.value.reason == 0x89


async def test_a_broker_that_falls_silent_is_noticed() -> None:
    async with a_broker_that([CONNACK]) as port:
        connection = await connect(local(port), some_options(keepalive_s=1))
        waiting = asyncio.create_task(connection.publish("test/topic", b"body"))
        error = await asyncio.wait_for(connection.ended, PATIENCE_S)
        assert "does not answer" in str(error)
        with pytest.raises(MqttError, match="does not answer"):
            await waiting
        await connection.disconnect()


@pytest.mark.parametrize(
    ("packet", "what"),
    [
        (b"\x40\x03\x00\x01\x87", "rejected a message"),
        (b"\xe0\x01\x8e", "ended the connection"),
        (b"\x30\xff\xff\xff\xff\x01", "packet length"),
        (b"\x30\xff\xff\xff\x7f", "more than we agreed to"),
        (b"\x34\x06\x00\x01a\x00\x01\x00", "QoS 2"),
        (b"\x30\x02\x00\x09", "malformed packet"),
        (b"\xf0\x00", "type 15"),
    ],
)
async def test_a_packet_that_we_cannot_take_ends_the_connection(packet: bytes, what: str) -> None:
    async with a_broker_that([CONNACK, packet]) as port:
        connection = await connect(local(port), some_options())
        connection.send_qos1("test/topic", b"body", "item")
        connection.flush()
        error = await asyncio.wait_for(connection.ended, PATIENCE_S)
        assert what in str(error)
        # A refused message is not delivered either: its owner takes it back.
        assert connection.unacknowledged == ["item"]
        await connection.disconnect()


async def test_a_refused_message_stays_with_its_sender_and_those_before_it_do_not() -> None:
    acked: list[str] = []
    answers = [CONNACK, b"\x40\x02\x00\x01" + b"\x40\x03\x00\x02\x97" + b"\x40\x02\x00\x03"]
    async with a_broker_that(answers) as port:
        connection = await connect(local(port), some_options(), acked=acked.extend)
        for item in ("first", "second", "third"):
            connection.send_qos1("test/topic", b"body", item)
        connection.flush()
        with pytest.raises(MessageRefused, match="reason 151"):
            raise await asyncio.wait_for(connection.ended, PATIENCE_S)
        assert acked == ["first"]
        assert connection.unacknowledged == ["second", "third"]
        await connection.disconnect()


async def test_what_nobody_subscribed_to_is_not_acknowledged(mosquitto: Any) -> None:
    topic = f"test/{secrets.token_hex(6)}"
    acked: list[str] = []
    async with connected(mosquitto, some_options(), acked=acked.extend) as sender:
        assert not await sender.publish(topic, b"body")
        async with connected(mosquitto, some_options()) as receiver:
            await receiver.subscribe([topic])
            assert await sender.publish(topic, b"body")
            sender.send_qos1(topic, b"body", "first")
            sender.flush()
            await until(lambda: acked == ["first"])
        while await sender.publish(topic, b"body"):  # the broker has not seen the receiver's end yet
            await asyncio.sleep(0.01)
        sender.send_qos1(topic, b"body", "second")
        sender.flush()
        with pytest.raises(MessageRefused, match="has no subscriber for a message"):
            raise await asyncio.wait_for(sender.ended, PATIENCE_S)
        assert (acked, sender.unacknowledged) == (["first"], ["second"])


async def test_a_subscription_shares_no_packet_identifier_with_what_is_in_flight() -> None:
    came = bytearray()

    class Silent(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.write(CONNACK)

        def data_received(self, data: bytes) -> None:
            came.extend(data)

    server = await asyncio.get_running_loop().create_server(Silent, "127.0.0.1", 0)
    async with server:
        connection = await connect(local(server.sockets[0].getsockname()[1]), some_options())
        connection.send_qos1("t", b"before", "before")
        subscribing = asyncio.create_task(connection.subscribe(["a"]))
        await until(lambda: b"\x82" in came)
        connection.send_qos1("t", b"after", "after")
        connection.flush()
        await until(lambda: came.endswith(b"after"))
        before, subscribed, after = (
            bytes(came[came.rindex(mark) - 3 :][:2]) for mark in (b"before", b"\0\1a", b"after")
        )
        assert (before, subscribed, after) == (b"\0\1", b"\0\2", b"\0\3")
        await connection.disconnect()
        with pytest.raises(MqttError):
            await subscribing


def _publish(topic: bytes, body: bytes, mid: int) -> bytes:
    content = len(topic).to_bytes(2, "big") + topic + mid.to_bytes(2, "big") + b"\x00" + body
    length, size = b"", len(content)
    while size > 0x7F:
        length, size = length + bytes((size & 0x7F | 0x80,)), size >> 7
    return b"\x32" + length + bytes((size,)) + content


@given(
    st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=400)), max_size=20),
    st.lists(st.integers(1, 300), min_size=1),
)
def test_messages_are_the_same_however_the_stream_is_cut(
    given: list[tuple[bytes, bytes]], sizes: list[int]
) -> None:
    stream = b"".join(_publish(topic, body, mid) for mid, (topic, body) in enumerate(given, 1))

    came: list[Message] = []
    decoder = Decoder(max_packet_bytes=64 * 1024)
    place = number = 0
    while place < len(stream):
        size = sizes[number % len(sizes)]
        received = decoder.feed(stream[place : place + size])
        assert received.error is None
        came.extend(received.messages)
        place, number = place + size, number + 1
    # Topics that are not UTF-8 come too: what is wrong with them is for the receiver to say.
    assert came == [
        Message(topic.decode("utf-8", "replace"), body, False, mid)
        for mid, (topic, body) in enumerate(given, 1)
    ]
