"""`qilu up` as a process, for tests of the console on a whole stack."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import paho.mqtt.client as mqtt

QILU = Path(sys.executable).parent / "qilu"
START_S = 120.0


def working_hour() -> str:
    """Ten o'clock in Shanghai of the last weekday on which it has struck: equipment is at work. Later, until
    four, where the console's last 24 hours then hold the run."""
    now = datetime.now(tz=ZoneInfo("Asia/Shanghai"))
    day = now - timedelta(hours=10)
    while day.weekday() > FRIDAY:
        day -= timedelta(days=1)
    ten = day.replace(hour=10, minute=0, second=0, microsecond=0)
    recent = now - timedelta(hours=23)
    return (recent if ten < recent <= ten + timedelta(hours=6) else ten).isoformat()


FRIDAY = 4


class Up:
    """A running `qilu up`."""

    def __init__(self, state: Path, ports: dict[str, int], *options: str | Path) -> None:
        self.state, self.mqtt_port = state, ports["--mqtt-port"]
        self.out = state.with_suffix(".out")
        words = [*(word for name, port in ports.items() for word in (name, str(port)))]
        with self.out.open("w") as out:
            self.process = subprocess.Popen(
                [QILU, "up", "--state", state, *words, *options],
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def link(self) -> str:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := re.search(r"sign in +(\S+)", self.out.read_text()):
                return found[1]
            time.sleep(0.1)
        raise AssertionError(self.out.read_text())

    def publish(self, topic: str, reading: dict[str, Any]) -> None:
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        password = (self.state / "keys" / "mqtt-operator.password").read_text().strip()
        client.username_pw_set("operator", password)
        client.connect("127.0.0.1", self.mqtt_port)
        client.loop_start()
        client.publish(topic, json.dumps(reading), qos=1).wait_for_publish(30)
        client.disconnect()
        client.loop_stop()
