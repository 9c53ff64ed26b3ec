"""The units, read by systemd's own programs; nothing is installed and nothing runs."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"
INSTALLED = "/opt/pondwatch/venv/bin/pondwatch"
SERVICES = ("pondwatch.service", "pondwatch-rules.service", "pondwatch-page.service")


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as on a gateway, with a program that exists here in place of the installed one."""
    for name in SERVICES:
        text = (UNITS / name).read_text()
        assert text.count(f"ExecStart={INSTALLED} ") == 1
        (tmp_path / name).write_text(text.replace(INSTALLED, "/bin/true"))
    return tmp_path


def verify(folder: Path) -> str:
    """What systemd says against the units: an unknown key is only a warning, with return code 0."""
    done = subprocess.run(
        ["systemd-analyze", "verify", *(str(folder / name) for name in SERVICES)],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "pondwatch" in line]
    return "\n".join(ours) or ("" if done.returncode == 0 else done.stderr)


@needs("systemd-analyze")
def test_systemd_has_nothing_against_the_units(units: Path) -> None:
    assert verify(units) == ""


@needs("systemd-analyze")
@pytest.mark.parametrize(
    ("mistake", "said"), [("WatchdogSecs=30", "WatchdogSecs"), ("MemoryDenyWriteExecute=perhaps", "perhaps")]
)
def test_systemd_would_have_said_so(units: Path, mistake: str, said: str) -> None:
    service = units / "pondwatch.service"
    service.write_text(service.read_text().replace("[Service]", f"[Service]\n{mistake}"))
    assert said in verify(units)


def setting(name: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", (UNITS / name).read_text(), re.MULTILINE)


def exposure(service: Path) -> float:
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", service],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    (found,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", said)
    return float(found)


@needs("systemd-analyze")
@pytest.mark.parametrize(("name", "most"), [*zip(SERVICES, (1.3, 0.3, 1.2), strict=True)])
def test_systemd_finds_little_exposed(name: str, most: float) -> None:
    assert exposure(UNITS / name) <= most


@needs("systemd-analyze")
def test_with_an_address_list_less_of_the_core_is_exposed(tmp_path: Path) -> None:
    service = tmp_path / SERVICES[0]
    listed = "[Service]\nIPAddressDeny=any\nIPAddressAllow=localhost 192.0.2.0/24\n"
    service.write_text((UNITS / SERVICES[0]).read_text().replace("[Service]\n", listed))
    assert exposure(service) <= 1.2


@needs("systemd-analyze")
def test_systemd_would_find_what_is_left_open(tmp_path: Path) -> None:
    service = tmp_path / SERVICES[0]
    service.write_text(re.sub("^PrivateUsers=.*$", "", (UNITS / SERVICES[0]).read_text(), flags=re.MULTILINE))
    assert exposure(service) > 1.3


@pytest.mark.parametrize("name", SERVICES)
def test_every_unit_is_closed_but_for_what_it_needs(name: str) -> None:
    """The score alone does not show each of these."""
    wanted = {
        "User": ["pondwatch"],
        "NoNewPrivileges": ["yes"],
        "CapabilityBoundingSet": [""],
        "AmbientCapabilities": [""],
        "ProtectSystem": ["strict"],
        "ProtectHome": ["yes"],
        "PrivateTmp": ["yes"],
        "PrivateUsers": ["yes"],
        "ProtectProc": ["invisible"],
        "DevicePolicy": ["closed"],
        "RestrictNamespaces": ["yes"],
        "SystemCallFilter": ["@system-service", "~@privileged @resources"],
        "UMask": ["0077"],
        "LimitCORE": ["0"],
    }
    assert {key: setting(name, key) for key in wanted} == wanted
    assert "any" not in " ".join(setting(name, "IPAddressAllow")).split(), "any is no list"


def test_a_reload_is_checked_before_the_core_hears_of_it() -> None:
    first, second = setting(SERVICES[0], "ExecReload")
    assert first == f"{INSTALLED} check"
    assert second == "/bin/kill -HUP $MAINPID"


def test_secrets_are_handed_over_and_not_readable_on_disk() -> None:
    assert setting(SERVICES[0], "LoadCredential") == ["secrets:/etc/pondwatch/secrets"]
    assert setting(SERVICES[0], "Environment") == ["PONDWATCH_BOOT_ID=%b"]


def test_the_page_is_for_this_gateway_alone_and_goes_first() -> None:
    page = SERVICES[2]
    assert setting(page, "MemoryDenyWriteExecute") == ["yes"]
    assert setting(page, "IPAddressDeny") == ["any"]
    assert setting(page, "IPAddressAllow") == ["localhost"]
    assert setting(page, "PrivateDevices") == ["yes"]
    assert setting(page, "SupplementaryGroups") == []


def test_the_core_is_watched_always_restarted_and_never_writes_code() -> None:
    core = SERVICES[0]
    assert setting(core, "Type") == ["notify"]
    assert setting(core, "WatchdogSec") == ["30"]
    assert setting(core, "Restart") == ["always"]
    assert setting(core, "StartLimitIntervalSec") == ["0"]
    assert setting(core, "MemoryDenyWriteExecute") == ["yes"]


def test_the_rules_process_may_compile_and_has_neither_network_nor_device() -> None:
    rules = SERVICES[1]
    assert setting(rules, "MemoryDenyWriteExecute") == []
    assert setting(rules, "PrivateNetwork") == ["yes"]
    assert setting(rules, "RestrictAddressFamilies") == ["AF_UNIX"]
    assert setting(rules, "DeviceAllow") == []
    assert setting(rules, "CacheDirectory") == ["pondwatch"]
    assert setting(rules, "Environment") == ["NUMBA_CACHE_DIR=%C/pondwatch"]
    assert setting(rules, "Restart") == ["always"]
    assert setting(rules, "WatchdogSec") == ["60"]


def test_the_core_outlives_the_rules_when_memory_is_short() -> None:
    core, rules, page = (int(setting(name, "OOMScoreAdjust")[0]) for name in SERVICES)
    assert core < 0 < rules < page


@needs("systemd-sysusers")
@needs("systemd-tmpfiles")
def test_user_and_folder_are_made_as_the_units_need_them(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", UNITS / "pondwatch.sysusers.conf"],
        check=True,
        capture_output=True,
    )
    assert re.search(
        r"^pondwatch:.*:/var/lib/pondwatch:", (tmp_path / "etc/passwd").read_text(), re.MULTILINE
    )
    subprocess.run(
        ["systemd-tmpfiles", f"--root={tmp_path}", "--create", UNITS / "pondwatch.tmpfiles.conf"],
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "run/pondwatch").stat().st_mode & 0o777 == 0o750
