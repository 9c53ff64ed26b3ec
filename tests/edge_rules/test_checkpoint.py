from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge_rules.advice import kernels
from edge_rules.advice.checkpoint import Checkpoint, Checkpoints, Table
from edge_rules.advice.messages import Position

if TYPE_CHECKING:
    from pathlib import Path


def checkpoint(seq: int) -> Checkpoint:
    state = kernels.records(kernels.STATE, 2)
    state["x"] = [0.1 * seq, np.nan]
    state["ring"][1] = np.arange(kernels.WINDOW) / 3.0
    hours = kernels.records(kernels.HOURLY, 1)
    hours["ring"][0] = 0.1 * seq
    tables = {
        "channel": Table(["a", "b"], state),
        "hourly": Table(["b"], hours),
        "none": Table([], state[:0]),
    }
    return Checkpoint(Position("s1", seq), "c" * 64, tables)


def loaded_seq(folder: Path) -> int | None:
    found = Checkpoints(folder).load()
    return None if found is None else found.position.seq


def test_nothing_is_loaded_from_an_empty_folder(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).load() is None


def test_the_newest_checkpoint_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for seq in range(1, 6):
        checkpoints.save(checkpoint(seq))
        found = Checkpoints(tmp_path).load()
        assert found is not None
        assert found.position == Position("s1", seq)
        assert found.config_sha256 == "c" * 64
        for (name, table), (its, saved) in zip(
            found.tables.items(), checkpoint(seq).tables.items(), strict=True
        ):
            assert (name, table.ids) == (its, saved.ids)
            assert table.records.tobytes() == saved.records.tobytes()
            assert table.records.dtype == saved.records.dtype


def test_a_save_after_a_restart_spares_the_newest_file(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(checkpoint(1))
    for seq in range(2, 6):
        restarted = Checkpoints(tmp_path)
        restarted.load()
        newest = {path: path.read_bytes() for path in tmp_path.iterdir()}
        restarted.save(checkpoint(seq))
        spared = [path for path, whole in newest.items() if path.read_bytes() == whole]
        assert len(spared) == 1
        assert loaded_seq(tmp_path) == seq


@pytest.mark.parametrize("damage", ["empty", "half", "zeroed page", "one bit", "foreign", "missing"])
def test_a_damaged_file_leaves_the_one_before(tmp_path: Path, damage: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(checkpoint(1))
    checkpoints.save(checkpoint(2))
    newest = max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    whole = newest.read_bytes()
    broken = {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "zeroed page": whole[:100] + bytes(200) + whole[300:],
        "one bit": whole[:500] + bytes([whole[500] ^ 1]) + whole[501:],
        "foreign": b"no checkpoint at all",
    }
    if damage == "missing":
        newest.unlink()
    else:
        newest.write_bytes(broken[damage])
    assert loaded_seq(tmp_path) == 1
