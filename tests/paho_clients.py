"""Clients of paho-mqtt, which is independent of our own client."""

from __future__ import annotations

import paho.mqtt.client as paho


def close(client: paho.Client) -> None:
    """Disconnect, and close the socket, which paho leaves to the garbage collector."""
    client.disconnect()
    client.loop_stop()
    socket = client.socket()
    if socket is not None:
        socket.close()
