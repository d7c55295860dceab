"""Files that are replaced: whole or not at all, for their owner only."""

from __future__ import annotations

from pathlib import Path

import pytest
from qilu_common.private_files import replacing, write_private


def test_a_file_is_replaced_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, "新")
    assert file.read_text(encoding="utf-8") == "新"
    assert file.stat().st_mode & 0o777 == 0o600
    write_private(file, b"bytes", others=0o044)
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"bytes", 0o644)
    assert list(tmp_path.iterdir()) == [file]


def test_after_an_error_the_file_is_as_it_was_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "table"
    file.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(file) as part:
        part.write_text("half") and (tmp_path / "missing").read_text()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_replaced_raises_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_private(tmp_path / "folder", "text")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]
