"""Publishes one JSON reading of a hand-made device to the broker."""

from __future__ import annotations

import math
import re
import secrets
import time

from qilu_common.broker import BrokerAddress
from qilu_common.mqtt.codec import ConnectOptions
from qilu_common.mqtt.connection import connect
from qilu_common.mqtt.errors import MqttError
from qilu_contract.errors import ConfigError, QiluError
from qilu_contract.readings import MIN_TIME_MS, Value
from qilu_contract.wire import json_payload, topics
from qilu_platform.client import Platform, PlatformAway, PlatformError

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def parse_values(words: list[str]) -> dict[str, Value]:
    """`signal=value` words as values: true and false, whole numbers, numbers. Raises ConfigError for anything
    else."""
    values: dict[str, Value] = {}
    for word in words:
        name, separator, text = word.partition("=")
        if not name or not separator:
            raise ConfigError(f"{word!r} is not signal=value: write for example power_in=11.2.")
        if name in values:
            raise ConfigError(f"{name!r} is given twice: one reading holds one value of it.")
        if text in ("true", "false"):
            values[name] = text == "true"
            continue
        if _NUMBER.fullmatch(text) is None or not math.isfinite(float(text)):
            raise ConfigError(f"{word!r}: {text!r} is neither a number nor true or false.")
        value: Value = int(text) if text.lstrip("+-").isdecimal() else float(text)
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ConfigError(f"{word!r}: {text!r} does not fit 64 bits.")
        values[name] = value
    return values


def telemetry_topic(platform: str, key: str, unit: str) -> str:
    """The topic of a registered unit: the platform knows its county and enterprise. Raises QiluError if it
    does not."""
    with Platform(platform, key) as client:
        try:
            found = client.unit(unit)
        except PlatformAway as error:
            raise QiluError(f"{error} Is the stack up?") from error
        except PlatformError as error:
            if error.status == 404:
                raise QiluError(f"{error} Register it first: `qilu unit add`.") from error
            raise
    return topics.telemetry(found.county, found.enterprise, found.id)


async def publish(broker: str, topic: str, values: dict[str, Value], ts_ms: int | None) -> bytes:
    """Send one reading at QoS 1; returns its payload when the broker has confirmed it. Raises QiluError."""
    if ts_ms is not None and ts_ms < MIN_TIME_MS:
        raise ConfigError(f"--ts {ts_ms} lies before 2001-09-09: give milliseconds since 1970, not seconds.")
    address = BrokerAddress.from_url(broker)
    body = json_payload.encode([(ts_ms if ts_ms is not None else time.time_ns() // 1_000_000, values)])
    try:
        async with await connect(
            address, ConnectOptions(f"qilu-publish-{secrets.token_hex(4)}")
        ) as connection:
            heard = await connection.publish(topic, body)
    except (MqttError, OSError, TimeoutError) as error:
        raise QiluError(
            f"the broker at {address} did not take it: {error or 'timeout'}. "
            "Is the stack up, and are QILU_MQTT_USER and QILU_MQTT_PASSWORD_FILE set?"
        ) from error
    if not heard:
        raise QiluError(
            f"nobody subscribes to {topic} at {address}: the reading is lost. "
            "Does a gateway run on this broker?"
        )
    return body
