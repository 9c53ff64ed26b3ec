"""What `make package` makes, looked at by other programs: dpkg-deb, openssl, sha256sum, systemd-analyze."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from email.parser import HeaderParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from systemd.package import bundle, deb, sbom, wheelhouse
from systemd.package.wheelhouse import NotBuilt
from tests.daemon.test_systemd import SERVICES, UNITS, exposure, needs

if TYPE_CHECKING:
    from systemd.package.__main__ import Made

pytestmark = pytest.mark.timeout(400)  # the first makes the package

ROOT = Path(__file__).parents[2]
VENV = Path("opt/pondwatch/venv")
SITE_PACKAGES = VENV / "lib/python3.11/site-packages"


# -- the package ---------------------------------------------------------------------------------------


@needs("systemd-analyze")
def test_the_units_as_packaged_are_the_ones_that_are_looked_at_and_no_more_exposed(tree: Path) -> None:
    for name, most in zip(SERVICES, (1.3, 0.3, 1.2), strict=True):
        packaged = tree / "lib/systemd/system" / name
        assert packaged.read_bytes() == (UNITS / name).read_bytes()
        assert exposure(packaged) <= most


def test_nothing_in_the_package_names_the_machine_it_was_built_on(made: Made, tree: Path) -> None:
    """A venv that is moved still points to where it was made, unless it was written to be moved."""
    for path in (tree / VENV / "bin").iterdir():
        if path.is_symlink():
            assert str(path.readlink()) == "/usr/bin/python3.11"
    assert (tree / VENV / "pyvenv.cfg").read_text().splitlines()[0] == "home = /usr/bin"
    strange = {str(ROOT).encode(), str(made.package.parent).encode()}
    for path in tree.rglob("*"):
        if path.suffix in (".pyc", ".txt", ".json", ".cfg", "") and path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            assert not [each for each in strange if each in content], path


def test_the_package_asks_for_the_time_zones_that_days_end_by(tree: Path) -> None:
    control = HeaderParser().parsestr((tree / "DEBIAN/control").read_text())
    assert {"tzdata", "systemd (>= 252)"} <= set(control["Depends"].split(", "))


def test_every_file_is_roots_and_nobody_elses_to_write(made: Made) -> None:
    listed = subprocess.run(
        ["dpkg-deb", "--contents", made.package], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    for line in listed:
        mode, owner, *_ = line.split()
        assert owner == "root/root", line
        assert mode[0] == "l" or mode[5] == mode[8] == "-", line
        assert "s" not in mode, line
    assert any(line.startswith("drwx------") and line.endswith("./etc/pondwatch/secrets/") for line in listed)


def test_the_example_rules_give_no_port_a_name_until_somebody_writes_one(tree: Path) -> None:
    assert not (tree / "DEBIAN/conffiles").exists(), (
        "dpkg asks about those, and nobody may be there to answer"
    )
    rules = (tree / "usr/share/pondwatch/60-pondwatch-ports.rules").read_text()
    in_force = [line for line in rules.splitlines() if line and not line.startswith("#")]
    assert [line for line in in_force if "SYMLINK+=" in line] == []
    assert any("ID_MM_DEVICE_IGNORE" in line for line in in_force)


def test_the_maintainer_scripts_are_scripts_that_sh_can_read(tree: Path) -> None:
    for name in ("postinst", "prerm", "postrm"):
        script = tree / "DEBIAN" / name
        assert script.stat().st_mode & 0o111
        subprocess.run(["sh", "-n", script], check=True)


def test_the_packaged_program_runs_on_debians_python_with_nothing_but_its_own_packages(tree: Path) -> None:
    """-I: neither the folder it is called in nor any variable adds a module; -S: nor this machine's packages."""
    code = (
        f"import sys; sys.path.insert(0, {str(tree / SITE_PACKAGES)!r});"
        "import daemon.app, numba, numpy, sqlite_utils, apsw, hardware_sim.bench;"
        "print(daemon.app.VERSION, {sys.modules[n].__file__.partition('site-packages')[0]"
        " for n in ('numba', 'numpy', 'apsw', 'daemon')})"
    )
    said = subprocess.run(
        ["/usr/bin/python3.11", "-ISB", "-c", code], check=True, capture_output=True, text=True
    ).stdout
    control = HeaderParser().parsestr((tree / "DEBIAN/control").read_text())
    assert said.startswith(control["Version"] + " ")
    assert said.count(str(tree)) == 1, said


def test_the_package_says_whom_to_tell_of_a_weakness_or_that_its_publisher_did_not_say(tree: Path) -> None:
    text = (ROOT / "SECURITY.md").read_text()
    assert (tree / "usr/share/doc/pondwatch/SECURITY.md").read_text() == text
    assert "none is named" in text
    named = deb.security(text, "mailto:security@publisher.example")
    assert "**Contact:** <mailto:security@publisher.example>\n\nWhat helps" in named
    assert "none is named" not in named
    with pytest.raises(NotBuilt, match="is no contact"):
        deb.security(text, "somebody")


@pytest.mark.campaign
def test_the_same_sources_give_the_same_package(made: Made) -> None:
    again = made.package.parent / "again"
    second = deb.build(again / "stage", [*made.wheels, made.own], made.version, again)
    assert sbom.sha256(second) == sbom.sha256(made.package)
    shutil.rmtree(again)


# -- the wheelhouse ------------------------------------------------------------------------------------


def test_the_wheelhouse_is_the_runtime_part_of_the_lock_and_nothing_of_the_tests(made: Made) -> None:
    names = {wheel.name.partition("-")[0] for wheel in made.wheels}
    assert {"pymodbus", "pyserial", "aiomqtt", "numba", "numpy", "apsw", "msgspec"} <= names
    assert not {"pytest", "mypy", "ruff", "hypothesis", "hatchling"} & names
    lock = (ROOT / "requirements.lock").read_text()
    for wheel in made.wheels:
        assert f"sha256:{sbom.sha256(wheel)}" in lock, wheel


def test_a_wheel_that_is_missing_is_named_before_anything_is_built(made: Made) -> None:
    wheelhouse.wholly(made.wheels)
    without = [wheel for wheel in made.wheels if not wheel.name.startswith("numpy-")]
    with pytest.raises(NotBuilt, match=r"numba-.*needs numpy.*make lock"):
        wheelhouse.wholly(without)


def test_a_lock_without_what_is_needed_is_refused() -> None:
    with pytest.raises(NotBuilt, match=r"has no msgspec: run make lock"):
        wheelhouse.runtime("pyserial==3.5 \\\n    --hash=sha256:00\n", ["pyserial", "msgspec"])


def test_both_pins_of_a_name_are_kept_since_each_is_for_another_python() -> None:
    lock = 'msgspec==1 ; python_version < "3.12"\n    # via x\nmsgspec==2 ; python_version >= "3.12"\n'
    assert wheelhouse.runtime(lock, ["msgspec"]) == lock


def test_the_bill_names_every_wheel_with_its_hash_and_licence(made: Made) -> None:
    bill = sbom.bill([*made.wheels, made.own], made.version)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    assert len(bill["components"]) == len(made.wheels) + 1
    (pymodbus,) = (each for each in bill["components"] if each["name"] == "pymodbus")
    (wheel,) = (each for each in made.wheels if each.name.startswith("pymodbus-"))
    assert pymodbus["purl"] == f"pkg:pypi/pymodbus@{pymodbus['version']}"
    assert pymodbus["hashes"] == [{"alg": "SHA-256", "content": sbom.sha256(wheel)}]
    unsaid = [
        each["name"] for each in bill["components"] if each["licenses"][0]["license"]["name"] == "not stated"
    ]
    assert unsaid in ([], ["pondwatch"]), "a licence nobody stated"
    assert json.loads(json.dumps(bill)) == bill


@pytest.mark.campaign
def test_an_arm64_gateway_would_be_given_the_same_packages(made: Made, tmp_path: Path) -> None:
    """Asks the package index."""
    names = wheelhouse.resolve(made.lock, "aarch64", tmp_path)
    there = {wheel.name.partition("-")[0] for wheel in made.wheels}
    assert {name.partition("-")[0] for name in names} == there
    assert not [name for name in names if "x86_64" in name]
    assert [name for name in names if "aarch64" in name]


# -- the bundle ----------------------------------------------------------------------------------------


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "publisher.key"
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem)
    return path


@pytest.fixture
def folder(tmp_path: Path, made: Made, key: Path) -> Path:
    """A bundle of a few small files, made as the whole one is."""
    small = sorted(made.wheels, key=lambda wheel: wheel.stat().st_size)[:3]
    files = [(each, f"wheelhouse/{each.name}") for each in small]
    bundle.collect(tmp_path / "bundle", [*files, (made.lock, made.lock.name)], bundle.signing_key(key))
    return tmp_path / "bundle"


def verified(folder: Path, *options: str | Path) -> tuple[int, str]:
    done = subprocess.run(
        ["sh", folder / "install.sh", "--verify", *options], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


@needs("openssl")
def test_a_whole_bundle_is_found_whole(folder: Path, key: Path, tmp_path: Path) -> None:
    public = tmp_path / "publisher.pem"
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
    assert verified(folder, "--key", public) == (0, "every file is as signed\n")
    code, said = verified(folder)
    assert code == 0
    assert "damage and no malice" in said


def changed(folder: Path) -> None:
    wheel = next((folder / "wheelhouse").iterdir())
    wheel.write_bytes(wheel.read_bytes()[:-1] + b"?")


def removed(folder: Path) -> None:
    next((folder / "wheelhouse").iterdir()).unlink()


def added(folder: Path) -> None:
    (folder / "wheelhouse" / "evil-1.0-py3-none-any.whl").write_bytes(b"?")


def listed_anew(folder: Path) -> None:
    """An intruder who changes a file and its line in the list has no key."""
    changed(folder)
    subprocess.run(
        "find . -type f ! -name 'manifest*' ! -name signer.pem | sed 's,^./,,' | xargs sha256sum > manifest.sha256",
        shell=True,
        cwd=folder,
        check=True,
    )


@needs("openssl")
@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (changed, "are not those that were signed"),
        (removed, "are not those that were signed"),
        (added, "nobody signed wheelhouse/evil-1.0-py3-none-any.whl"),
        (listed_anew, "is not signed by"),
    ],
)
def test_a_bundle_that_is_not_as_signed_installs_nothing(folder: Path, harm: object, sentence: str) -> None:
    assert callable(harm)
    harm(folder)
    code, said = verified(folder)
    assert code == 1
    assert sentence in said


@needs("openssl")
def test_a_bundle_signed_by_somebody_else_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    bundle.collect(other, [], bundle.signing_key(None))
    code, said = verified(folder, "--key", other / "signer.pem")
    assert code == 1
    assert "is not signed by" in said


@pytest.mark.parametrize("content", [b"", b"not a key", None])
def test_a_key_that_is_none_is_refused_with_its_place(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(NotBuilt, match=re.escape(str(path))):
        bundle.signing_key(path)


@pytest.mark.campaign
def test_the_bundle_makes_a_venv_without_any_network(tmp_path: Path) -> None:
    """The whole of `make package`, then its installer in a network namespace that has nothing in it."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-m", "systemd.package", "--out", tmp_path], cwd=ROOT, check=True)
    (packed,) = tmp_path.glob("pondwatch-*.tar")
    subprocess.run(["tar", "-xf", packed, "-C", tmp_path], check=True)
    install = ["sh", str(tmp_path / packed.stem / "install.sh"), "--venv", str(tmp_path / "venv")]
    subprocess.run(["unshare", "--user", "--map-root-user", "--net", *install], check=True, env=environment)
    example = ROOT / "config/site.example.toml"
    command = [str(tmp_path / "venv/bin/pondwatch"), "--config", str(example), "check"]
    assert "no problem found" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
