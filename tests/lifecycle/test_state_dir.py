from __future__ import annotations

import os
from pathlib import Path

import pytest

from inferd.server.lifecycle.operations.overrides import OverridesError
from inferd.server.lifecycle.operations.state_dir import claim


def test_a_state_directory_has_one_server_at_a_time(tmp_path: Path) -> None:
    first = claim(tmp_path / "new" / "state")
    try:
        with pytest.raises(OverridesError, match=rf"in use by another server \(process {os.getpid()}\)"):
            claim(tmp_path / "new" / "state")
        os.close(claim(tmp_path / "other"))
    finally:
        os.close(first)
    os.close(claim(tmp_path / "new" / "state"))


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(OverridesError, match="expected a directory that can be written to"):
        claim(tmp_path / "state")
