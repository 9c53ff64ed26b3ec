"""From an uplink's table to its dialect; what one needs beyond the core is loaded when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from daemon.uplink.folders import LocalFolder
from daemon.uplink.geohazard import Geohazard
from daemon.uplink.past import Nothing
from daemon.uplink.sl651 import Sl651
from daemon.uplink.tables import GeohazardTable, InfluxTable, Sl651Table, SparkplugTable
from daemon.uplink.tailings_files import TailingsFiles
from daemon.uplink.tls import WallClock

if TYPE_CHECKING:
    from daemon.clock import Clock
    from daemon.config import File
    from daemon.uplink.dialect import Dialect
    from daemon.uplink.folders import Folder
    from daemon.uplink.past import Past
    from daemon.uplink.tables import OtherUplink, TailingsFilesTable
    from daemon.uplink.tls import Times


def build(
    table: OtherUplink, site: File, clock: Clock, times: Times | None = None, past: Past | None = None
) -> Dialect:
    """The dialect that `table` is about; nothing is opened.

    `times` knows the present, for TLS, and `past` what was, for those who may ask.
    """
    if isinstance(table, InfluxTable):
        from daemon.uplink.influx import Influx  # noqa: PLC0415 -- an HTTP client that few gateways need

        return Influx(table, site.site.id, site.site.gateway, times or WallClock())
    if isinstance(table, GeohazardTable):
        return Geohazard(table, times or WallClock())
    if isinstance(table, Sl651Table):
        return Sl651(table, site.site.timezone, clock, past or Nothing())
    if isinstance(table, SparkplugTable):
        from daemon.uplink.sparkplug import Sparkplug  # noqa: PLC0415 -- protobuf, likewise

        client_id = f"pondwatch-{site.site.id}-{site.site.gateway}-{table.id}"
        return Sparkplug(table, site.channels, client_id, clock, times or WallClock())
    return TailingsFiles(table, _folder(table), site.site.timezone, clock)


def _folder(table: TailingsFilesTable) -> Folder:
    if not table.folder.startswith("sftp://"):
        return LocalFolder(Path(table.folder))
    from daemon.uplink.sftp import SftpFolder  # noqa: PLC0415 -- an SSH library that few gateways need

    return SftpFolder(table)
