"""Clients of paho-mqtt, which is independent of our own client."""

from __future__ import annotations

from typing import Any

import paho.mqtt.client as paho


class Subscriber:
    """Passes messages of these topic filters (with QoS) to `_take`, from `ready` on."""

    def __init__(self, broker: Any, name: str, filters: list[tuple[str, int]]) -> None:
        self.ready = False
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, name, protocol=paho.MQTTv5)
        self.client.on_message = self._take
        self.client.on_subscribe = self._subscribed
        self.client.connect(broker.host, broker.port)
        self.client.subscribe(filters)
        self.client.loop_start()

    def _subscribed(self, *_: object) -> None:
        self.ready = True

    def _take(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        raise NotImplementedError


def close(client: paho.Client) -> None:
    """Disconnect, and close the socket, which paho leaves to the garbage collector."""
    client.disconnect()
    client.loop_stop()
    socket = client.socket()
    if socket is not None:
        socket.close()
