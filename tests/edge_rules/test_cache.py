"""What was compiled is used again until a file of the kernels changes, whichever of them it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_rules.advice import cache, kernels

ROOM = Path(kernels.__file__).parent
FILES = sorted(file.name for file in ROOM.glob("*.py"))
HELPER = """
from edge_rules.advice.kernels.compiled import compiled

@compiled
def helper(x):
    return x + {}
"""
CALLER = """
from edge_rules.advice.kernels.compiled import entry
from edge_rules.advice.kernels.helper import helper

@entry
def caller(x):
    return helper(x)
"""
ASK = """
from edge_rules.advice.kernels.caller import caller
print(caller(1), sum(caller.stats.cache_hits.values()), caller._cache.cache_path)
"""


@pytest.mark.parametrize("file", FILES)
def test_a_change_in_any_kernel_file_makes_a_new_key(tmp_path: Path, file: str) -> None:
    copy = tmp_path / "kernels"
    shutil.copytree(ROOM, copy)
    assert cache.fingerprint(copy) == cache.fingerprint()
    (copy / file).write_bytes((copy / file).read_bytes() + b"#")
    assert cache.fingerprint(copy) != cache.fingerprint()


def test_a_kernel_file_that_comes_goes_or_is_renamed_makes_a_new_key(tmp_path: Path) -> None:
    copy = tmp_path / "kernels"
    shutil.copytree(ROOM, copy)
    keys = {cache.fingerprint(copy)}
    (copy / "more.py").touch()
    keys.add(cache.fingerprint(copy))
    (copy / "more.py").rename(copy / "other.py")
    keys.add(cache.fingerprint(copy))
    (copy / FILES[-1]).unlink()
    keys.add(cache.fingerprint(copy))
    assert len(keys) == 4


@pytest.mark.parametrize("named", [True, False])
def test_numba_never_runs_what_it_compiled_of_an_older_helper(tmp_path: Path, named: bool) -> None:
    """Wherever the cache lies; Numba by itself looks at the file of the caller alone."""
    room = tmp_path / "edge_rules/advice/kernels"
    room.mkdir(parents=True)
    for folder in (tmp_path / "edge_rules", tmp_path / "edge_rules/advice", room):
        (folder / "__init__.py").touch()
    shutil.copy(ROOM / "compiled.py", room)
    shutil.copy(ROOM.with_name("cache.py"), room.parent)
    (room / "caller.py").write_text(CALLER)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_")}
    if named:
        environ["NUMBA_CACHE_DIR"] = str(tmp_path / "named")

    def ask() -> list[str]:
        run = subprocess.run(
            [sys.executable, "-B", "-c", ASK],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
        return run.stdout.split()

    (room / "helper.py").write_text(HELPER.format(10))
    first, again = ask(), ask()
    assert (first[:2], again[:2]) == (["11", "0"], ["11", "1"])
    assert Path(again[2]).is_relative_to(tmp_path / "named" if named else room / "__pycache__")
    (room / "helper.py").write_text(HELPER.format(20))
    assert ask()[:2] == ["21", "0"]
