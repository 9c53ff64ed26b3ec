"""From an uplink's table to its dialect; what one needs beyond the core is loaded when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from daemon.uplink.folders import LocalFolder
from daemon.uplink.tailings_files import TailingsFiles

if TYPE_CHECKING:
    from daemon.clock import Clock
    from daemon.config import File
    from daemon.uplink.dialect import Dialect
    from daemon.uplink.folders import Folder
    from daemon.uplink.tables import OtherUplink, TailingsFilesTable


def build(table: OtherUplink, site: File, clock: Clock) -> Dialect:
    """The dialect that `table` is about; nothing is opened."""
    return TailingsFiles(table, _folder(table), site.site.timezone, clock)


def _folder(table: TailingsFilesTable) -> Folder:
    if not table.folder.startswith("sftp://"):
        return LocalFolder(Path(table.folder))
    from daemon.uplink.sftp import SftpFolder  # noqa: PLC0415 -- an SSH library that few gateways need

    return SftpFolder(table)
