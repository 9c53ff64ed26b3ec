"""What systemd hands over is read in place of what only root may read."""

from pathlib import Path

import pytest

from daemon.clock import boot_id
from daemon.credentials import handed, is_there, missing


def test_a_file_among_the_secrets_is_read_where_systemd_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    named = "/etc/pondwatch/secrets/gw1-made-here.key"
    assert handed(named) == named
    assert not is_there(named)
    copy = tmp_path / "secrets_gw1-made-here.key"
    copy.write_text("key")
    assert handed(named) == str(copy)
    assert is_there(named)


def test_files_elsewhere_are_read_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "secrets_ca.pem").write_text("another")
    (tmp_path / "ca.pem").write_text("ca")
    assert handed(str(tmp_path / "ca.pem")) == str(tmp_path / "ca.pem")
    assert handed("ca.pem") == "ca.pem"
    assert handed("") == ""


def test_what_is_not_there_is_said_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = "/etc/pondwatch/secrets/new-password"
    assert missing(named) == f"there is no file {named}"
    assert missing("password") == "there is no file password; give its whole path"
    monkeypatch.setenv(
        "CREDENTIALS_DIRECTORY", str(tmp_path)
    )  # a service was handed what was there as it began
    assert missing(named).endswith("systemctl restart pondwatch does so")
    assert missing("/no/ca.pem") == "there is no file /no/ca.pem"


def test_the_boot_a_unit_names_is_the_kernels_own(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = boot_id()
    monkeypatch.setenv("PONDWATCH_BOOT_ID", kernels.replace("-", ""))
    monkeypatch.setattr("daemon.clock._BOOT_ID", Path("/proc/hidden"))
    assert boot_id() == kernels
