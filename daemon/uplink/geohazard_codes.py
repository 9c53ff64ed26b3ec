"""What public code shows of the geological-hazard platforms' codes. Nobody here saw the printed page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

STATUS: Final = "S1_ZT"
# Codes without the number of the sensor, and their fields; "" is a bare number.
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "L1_GP": ("gpsTotalX", "gpsTotalY", "gpsTotalZ"),  # GNSS, mm
    "L1_LF": ("",),  # crack
    "L3_YL": ("value", "totalValue"),  # rain
    "L3_DB": ("temp", "value"),  # surface water
    "L3_DX": ("temp", "value"),  # groundwater
    "L3_SY": ("temp", "value"),  # pore pressure
    "L3_ST": ("",),  # seepage pressure
    STATUS: (
        "ext_power_volt", "solar_volt", "battery_dump_energy", "battery_volt", "supply_power",
        "consume_power", "temp", "humidity", "temp_out", "humidity_out", "signal_4g",
    ),
}  # fmt: skip
