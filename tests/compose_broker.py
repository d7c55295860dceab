"""Mosquitto as the compose stack runs it (compose/): its configuration, rules and certificates by `init.py`,
and `mosquitto.sh`, which passes on what the platform writes. All in one folder, on free ports."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as paho
from qilu.keyring import Keyring
from qilu.mosquitto import Folders, configuration, find_mosquitto
from qilu_common.private_files import write_private

ROOT = Path(__file__).parents[1]
PATIENCE_S = 60.0


class ComposeBroker:
    """`folder` holds what the containers mount: keys in `all`, `mosquitto` and `platform`, rules in `rules`,
    the broker's own copy of them in `own`, its queue in `data`."""

    def __init__(self, folder: Path, free_port: Callable[[], int]) -> None:
        self.folder, self.rules = folder, folder / "rules"
        self.port, self.tls_port, self.devices_port = free_port(), free_port(), free_port()
        self.keyring = Keyring(folder / "all")
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Do the work of the service `init`, and write the configuration with our paths and ports."""
        self.keyring.make()
        spec = importlib.util.spec_from_file_location("compose_init", ROOT / "compose" / "init.py")
        assert spec is not None
        assert spec.loader is not None
        init = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(init)
        for service in ("mosquitto", "platform"):
            (self.folder / service).mkdir()
            for name, text in init.files(self.keyring, "127.0.0.1")[service].items():
                write_private(self.folder / service / name, text)
        init.first_rules(self.rules, self.keyring.directory)
        (self.folder / "data").mkdir()
        found = find_mosquitto()
        assert found is not None
        folders = Folders(*(f"{self.folder}/{name}" for name in ("mosquitto", "own", "data")))
        nodes = (f"{self.tls_port} 127.0.0.1", init.NODES_LISTENER[1])
        devices = (f"{self.devices_port} 127.0.0.1", init.DEVICES_LISTENER[1])
        conf = configuration(folders, f"{self.port} 127.0.0.1", str(found.plugin), nodes, devices)
        if os.geteuid() == 0:
            conf += "user root\n"
        (self.folder / "mosquitto.conf").write_text(conf)

    def start(self) -> None:
        """Returns when it lets the operator in."""
        environment = {
            "KEYS": str(self.folder / "mosquitto"),
            "RULES": str(self.rules),
            "OWN_RULES": str(self.folder / "own"),
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin",
        }
        command = ["sh", str(ROOT / "compose" / "mosquitto.sh"), str(self.folder / "mosquitto.conf")]
        with (self.folder / "broker.log").open("ab") as log:
            # A separate process group, which is killed as a whole, as a container is.
            self._process = subprocess.Popen(
                command, env=os.environ | environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._lets_in():
            assert self._process.poll() is None, (self.folder / "broker.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the broker does not answer"
            time.sleep(0.02)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit code; 0 when it does not run."""
        process, self._process = self._process, None
        if process is None:
            return 0
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        return process.wait(PATIENCE_S)

    def _lets_in(self) -> bool:
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="are-you-there")
        client.username_pw_set("operator", self.keyring.password("operator"))
        answers: list[bool] = []
        client.on_connect = lambda *given: answers.append(not given[3].is_failure)
        try:
            client.connect("127.0.0.1", self.port)
        except OSError:
            return False
        deadline = time.monotonic() + 5
        while not answers and time.monotonic() < deadline:
            client.loop(0.05)
        client.disconnect()
        socket = client.socket()
        if socket is not None:
            socket.close()
        return answers == [True]
