"""A name server for the Kubernetes of a test."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable

import httpx


class NameServer(threading.Thread):
    """Answers with the addresses of Services and of a StatefulSet's pods, as CoreDNS does in a cluster."""

    def __init__(self, ask: Callable[[str], httpx.Response], address: str, domain: str) -> None:
        """`ask` gets a path of the API server. Listens at `address`; `domain` is the cluster's."""
        super().__init__(daemon=True)
        self._ask, self._suffix = ask, f"svc.{domain}"
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 53))
        self._known: dict[str, bytes | None] = {}
        self._until_s = 0.0

    def run(self) -> None:
        while True:
            question, sender = self._socket.recvfrom(4096)
            try:
                self._socket.sendto(self._answer(question), sender)
            except (httpx.TransportError, IndexError, struct.error):
                continue  # they ask again

    def _answer(self, question: bytes) -> bytes:
        labels, place = [], 12
        while length := question[place]:
            labels.append(question[place + 1 : place + 1 + length].decode().lower())
            place += 1 + length
        end = place + 5
        (kind,) = struct.unpack_from("!H", question, place + 1)
        address = self._address(".".join(labels))
        answers = [address] if address and kind == 1 else []
        flags = 0x8580 if address else 0x8583  # authoritative; 3: there is no such name
        head = question[:2] + struct.pack("!HHHHH", flags, 1, len(answers), 0, 0)
        records = [b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 1, 4) + each for each in answers]
        return head + question[12:end] + b"".join(records)

    def _address(self, name: str) -> bytes | None:
        if time.monotonic() > self._until_s:
            self._known.clear()
            self._until_s = time.monotonic() + 2.0
        if name not in self._known:
            self._known[name] = self._look_up(name)
        return self._known[name]

    def _look_up(self, name: str) -> bytes | None:
        first, *middle = name.removesuffix(f".{self._suffix}").split(".")
        if not name.endswith(f".{self._suffix}") or len(middle) not in (1, 2):
            return None
        kind = "services" if len(middle) == 1 else "pods"
        found = self._ask(f"/api/v1/namespaces/{middle[-1]}/{kind}/{first}")
        if found.status_code != 200:
            return None
        there = found.json()
        if kind == "services":
            address = there["spec"].get("clusterIP", "None")
        elif there["spec"].get("subdomain") == middle[0]:
            address = there["status"].get("podIP", "None")
        else:
            return None
        return None if address == "None" else socket.inet_aton(address)
