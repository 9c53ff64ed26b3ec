"""`make check` looks for secrets in what is committed; here: that it would find one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("site.toml", 'password = "{}"', True),
        ("device.pem", "-----BEGIN {} KEY-----", True),
        ("notes.md", "nothing that opens anything {}", False),
    ],
)
def test_a_secret_that_is_committed_is_found(tmp_path: Path, name: str, text: str, *, found: bool) -> None:
    shutil.copy(ROOT / ".secrets.baseline", tmp_path)
    word = {"site.toml": "tie7Bahg-ohQu", "device.pem": "PRIVATE"}.get(
        name, ""
    )  # put in here, lest it be found here
    (tmp_path / name).write_text(text.format(word) + "\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)  # the hook asks git what has changed
    hook = [
        str(Path(sys.executable).with_name("detect-secrets-hook")),
        "--baseline",
        ".secrets.baseline",
        name,
    ]
    done = subprocess.run(hook, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode == 1) is found, done.stdout
    assert ("Secret Type" in done.stdout) is found
