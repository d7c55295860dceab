"""Session numbers of edge nodes: Sparkplug's bdSeq, which ties a death to its connection. It continues across
restarts, so the last number of each node is kept in a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from qilu_common.private_files import write_private
from qilu_contract.errors import ConfigError

FILE_NAME = "bdseq"
_NUMBER = 3  # digits, so that a number is written over its predecessor


class Sessions:
    """Generator of session numbers. `next` returns the number of a node's next connection. They are kept in a
    text file in `folder`, one line per node; without a folder, in memory. Written before the connection is
    made, without fsync: the file survives the process, even if it is killed.
    """

    def __init__(self, folder: Path | None, nodes: Iterable[str]) -> None:
        """Raises ConfigError when the file cannot be kept."""
        self._last = dict.fromkeys(nodes, -1)
        self._places: dict[str, int] = {}
        self._file: int | None = None
        if folder is None:
            return
        path = folder / FILE_NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            text = path.read_text(encoding="ascii", errors="replace") if path.exists() else ""
            for words in map(str.split, text.splitlines()):
                if len(words) == 2 and words[1].isdecimal():
                    self._last[words[0]] = int(words[1]) % 256
            body = ""
            for node, number in self._last.items():
                self._places[node] = len(body) + len(node) + 1
                body += f"{node} {number % 256:0{_NUMBER}}\n"
            write_private(path, body)
            self._file = os.open(path, os.O_WRONLY)
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be written: {error.strerror}: give another --state folder."
            ) from error

    def next(self, node: str) -> int:
        """0 to 255; 0 for a node's first."""
        self._last[node] = number = (self._last[node] + 1) % 256
        if self._file is not None:
            with suppress(OSError):  # if the disk fails now, the number is wrong only after a restart
                os.pwrite(self._file, f"{number:0{_NUMBER}}".encode(), self._places[node])
        return number

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
