"""Who may call whom, and which folders there are: the contracts of pyproject.toml, and docs/house.md."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("daemon", "drivers", "edge_rules", "hardware_sim")
GIVEN = {"daemon", "drivers", "edge_rules", "systemd", "config", "tests", "hardware_sim"}
OURS = {"docs"}  # beside what was given, and hidden ones such as .ci


def lint(*options: str) -> subprocess.CompletedProcess[str]:
    """import-linter in a process of its own: it reconfigures logging and the import path of its process."""
    program = (
        "import sys; from importlinter.cli import lint_imports_command; lint_imports_command(sys.argv[1:])"
    )
    return subprocess.run(
        [sys.executable, "-c", program, "--no-cache", "--no-logo", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_room_keeps_to_its_layer() -> None:
    """The contracts are named in words; a broken one is printed with the import that breaks it."""
    said = lint()
    assert said.returncode == 0, said.stdout + said.stderr
    assert re.search(r"Contracts: [4-9] kept, 0 broken", said.stdout), said.stdout


def test_a_broken_layer_would_be_found(tmp_path: Path) -> None:
    """The same linter over a tree in which a driver imports the daemon."""
    contracts = (ROOT / "pyproject.toml").read_text().partition("[tool.importlinter]")
    (tmp_path / "pyproject.toml").write_text("".join(contracts[1:]))
    for package in (*PACKAGES, "edge_rules/advice"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "daemon/app.py").touch()
    (tmp_path / "drivers/curious.py").write_text("import daemon.app\n")
    program = (
        "import sys; sys.path.insert(0, '.');"
        "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert said.returncode == 1, said.stdout + said.stderr
    assert "drivers.curious -> daemon.app" in said.stdout


def tracked() -> list[str]:
    """What belongs to the project; what a build or a run leaves behind does not."""
    try:
        said = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: what belongs to the project cannot be told from what a build left")
    return said.stdout.splitlines()


def test_the_top_level_has_the_folders_that_were_given_and_docs() -> None:
    folders = {path.partition("/")[0] for path in tracked() if "/" in path}
    assert {folder for folder in folders if not folder.startswith(".")} == GIVEN | OURS


@pytest.mark.parametrize("package", ["daemon", "drivers", "edge_rules"])
def test_the_page_of_the_house_names_every_file(package: str) -> None:
    page = (ROOT / "docs/house.md").read_text()
    _, _, rooms = page.partition(f"`{package}/`:")
    rooms = re.split(r"^`\w+/`:", rooms, maxsplit=1, flags=re.MULTILINE)[0]
    named = set(re.findall(r"`([\w/]+\.(?:py|sql))`", rooms))
    there = {
        path.removeprefix(f"{package}/")
        for path in tracked()
        if path.startswith(f"{package}/") and path.endswith((".py", ".sql"))
    }
    there = {path for path in there if not path.endswith("__init__.py") and not path.startswith("commands/")}
    assert there - named == set(), "these files are in no row of docs/house.md"
    assert named - there == set(), "docs/house.md names files that are not there"
    for folder in re.findall(r"`([\w/]+/)`", rooms):
        assert (ROOT / package / folder).is_dir() or (ROOT / folder).is_dir(), folder
