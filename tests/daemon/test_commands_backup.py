"""Backup of a running gateway, and a gateway made of it again that the platform cannot confuse with the old one."""

from __future__ import annotations

import json
import shutil
import tarfile
from typing import TYPE_CHECKING

import pytest

from daemon import backup
from daemon.backup import BackupError, Place
from daemon.commands import main
from daemon.config import Site
from tests.fault.test_uplink_identity import site, stopped, stored
from tests.system.running import until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)


async def test_a_gateway_restored_from_a_running_ones_backup_is_a_new_stream_and_forks_nothing(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as here:
        file = tmp_path / "gw1.tar.gz"
        async with here.gateway() as daemon:
            await here.grown()
            keys = daemon.store / "keys"
            (secret,) = await until(lambda: list(keys.glob("*.key")), "the first key")
            private = json.loads(secret.read_bytes())["private"]
            code, said = await daemon.verb("--json", "backup", "--to", str(file))
            assert code == 0, said
            made = json.loads(said)
            await here.grown()  # what the backup does not have
            await stopped(daemon)
        assert file.stat().st_mode & 0o777 == 0o600
        with tarfile.open(file) as tar:
            names = tar.getnames()
            held = b"".join(content.read() for m in tar if (content := tar.extractfile(m)) is not None)
        assert {"manifest.json", "spool.db", "site.toml"} <= set(names)
        assert not any(name.endswith(".key") for name in names)
        assert private.encode() not in held
        before = stored(tmp_path / "p.db")
        folder = daemon.store.parent
        config = folder / "site.toml"
        shutil.rmtree(daemon.store)
        config.unlink()
        code, said = await daemon.verb("restore", str(file), "--store", str(daemon.store))
        assert (code, "a new chain of keys begins" in said) == (0, True), said
        assert Site.load(config).store_folder == daemon.store
        async with here.gateway() as daemon:
            await here.grown()
            alive = await daemon.ask("status")
            await stopped(daemon)
        assert alive["stream"] != made["stream"]
        summary = here.summary
        assert (summary.forks, summary.twins, summary.chain_breaks) == (0, 0, 0)
        after = stored(tmp_path / "p.db")
        assert before.items() <= after.items()
        gaps = [json.loads(payload) for kind, payload in after.values() if kind == "gaps"]
        assert [(gap["of"], gap["reason"]) for gap in gaps] == [(made["stream"], "store-restored")]
        await until(lambda: list(daemon.store.glob("spool.db.bad-*")), "the old image is kept")


async def made(tmp_path: Path) -> tuple[Path, Site]:
    """A backup with keys, of a gateway that has stopped."""
    async with site(tmp_path) as here:
        async with here.gateway() as daemon:
            await here.grown()
            await stopped(daemon)
        file = tmp_path / "gw1.tar.gz"
        loaded = Site.load(daemon.store.parent / "site.toml")
        manifest = backup.make(loaded, file, "0", "2026-11-26T00:00:00.000Z", with_keys=True)
        assert manifest.has_keys
    return file, loaded


async def test_a_damaged_cut_or_foreign_backup_touches_nothing_and_with_keys_the_chain_of_keys_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, loaded = await made(tmp_path)
    to = Place(tmp_path / "new" / "site.toml", tmp_path / "new" / "store")
    whole = file.read_bytes()
    for bad in (whole[: len(whole) // 2], b"no tar", whole[:3000] + bytes(200) + whole[3200:]):
        file.write_bytes(bad)
        with pytest.raises(BackupError):
            backup.restore(file, to)
        assert not (to.store / "spool.db").exists()
        assert not (to.store / "head").exists()
        assert not to.config.exists()
    file.write_bytes(whole)
    manifest, placed = backup.restore(file, to)
    assert placed
    assert (to.store / "keys").stat().st_mode & 0o777 == 0o700
    assert {path.suffix for path in (to.store / "keys").iterdir()} >= {".key", ".chain"}
    with pytest.raises(BackupError, match="is there already"):
        backup.restore(file, to)
    # the verbs say the same in a sentence
    words = ["--config", str(loaded.path), "restore", str(file)]
    assert main(words) == 1
    assert "is there already" in capsys.readouterr().err
    assert main(["--config", str(loaded.path), "backup", "--to", str(file)]) == 2
    assert manifest.site == "fault"
    _no_path_is_obeyed(file, tmp_path / "attacked")


def _no_path_is_obeyed(file: Path, tmp_path: Path) -> None:
    """Members that nobody named in the manifest land nowhere: links, other folders."""
    tmp_path.mkdir()
    evil = tmp_path / "evil.tar.gz"
    with tarfile.open(file) as source, tarfile.open(evil, "w:gz") as target:
        for member in source:
            content = source.extractfile(member)
            assert content is not None
            target.addfile(member, content)
        link = tarfile.TarInfo("keys/real.key")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        target.addfile(link)
        outside = tarfile.TarInfo("../outside")
        target.addfile(outside)
    to = Place(tmp_path / "new" / "site.toml", tmp_path / "new" / "store")
    backup.restore(evil, to)
    assert not any(path.is_symlink() for path in to.store.rglob("*"))
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "new" / "outside").exists()
