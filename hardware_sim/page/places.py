"""Where the bench's instruments stand, and what config/demo.toml calls what it measures there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hardware_sim.site import PIEZOMETERS

if TYPE_CHECKING:
    from hardware_sim.dam import Truth


@dataclass(frozen=True, slots=True)
class Place:
    """One thing that is true and that somebody believes.

    `channel` is what the daemon calls it, in `unit`; where that is derived, `measured` is the channel it
    comes from, whose quality says why there is no value.
    """

    id: str
    name_zh: str
    name_en: str
    channel: str
    measured: str
    unit: str
    digits: int


def _piezometer(name: str) -> Place:
    stem = f"n.{name.lower()}"
    return Place(name, "浸润线", "Phreatic", f"{stem}.elevation", f"{stem}.pressure", "m", 2)


PLACES: Final = (
    *(_piezometer(sheet.name) for sheet in PIEZOMETERS),
    Place("LV01", "库水位", "Pond level", "n.pond.level", "n.pond.level", "m", 2),
    Place("RN01", "1 h 雨量", "Rain, 1 h", "n.rain.1h", "n.rain.depth", "mm", 1),
    Place("AT01", "气温", "Air", "n.air.temperature", "n.air.temperature", "°C", 1),
    Place("AP01", "气压", "Air pressure", "n.air.pressure", "n.air.pressure", "hPa", 1),
    Place("GN01", "水平位移", "Displacement", "n.gn01.horizontal", "n.gn01.east", "mm", 1),
    Place("GN01E", "向东", "East", "n.gn01.east", "n.gn01.east", "mm", 1),
    Place("GN01N", "向北", "North", "n.gn01.north", "n.gn01.north", "mm", 1),
)

# What stands on the bench, as people call it: target of a fault -> Chinese, English.
NAMES: Final = {
    "rs485-1": ("485 总线", "RS-485 bus"),
    "rs485-1/1": ("振弦采集仪 VTN416", "Vibrating-wire logger VTN416"),
    "rs485-1/3": ("继电器与警笛", "Relays and siren"),
    "rs485-1/192": ("雨量计 SEN0575", "Rain gauge SEN0575"),
    "rs485-1-tcp": ("485 总线的串口服务器", "Serial device server of the bus"),
    "weather": ("网口线路", "Ethernet line"),
    "weather/1": ("气压计 MetSENS300", "Barometer MetSENS300"),
    "weather/2": ("雷达水位计 VEGAPULS", "Level radar VEGAPULS"),
    "gnss-1": ("卫星定位接收机", "GNSS receiver"),
    "gateway": ("网关", "Gateway"),
    "platform": ("接收平台", "Receiving platform"),
}


def true_values(truth: Truth, rain_1h_mm: float) -> dict[str, float]:
    """Place -> the truth, in the place's unit."""
    east_m, north_m, _ = truth.displacement_m
    return {
        **{sheet.name: z for sheet, z in zip(PIEZOMETERS, truth.phreatic_m, strict=True)},
        "LV01": truth.pond_m,
        "RN01": rain_1h_mm,
        "AT01": truth.air_celsius,
        "AP01": truth.pressure_hpa,
        "GN01": 1000.0 * (east_m * east_m + north_m * north_m) ** 0.5,
        "GN01E": 1000.0 * east_m,
        "GN01N": 1000.0 * north_m,
    }
