"""What the calibration sheet says, as pure functions: a device's number into a measured quantity.

Each kind is the settings of one channel, bound straight from the site file. The kinds that need nothing
but the present moment have `apply`; `counter` needs the count before, see `drivers/counter.py`.

Vibrating-wire sheets of different makers use one formula with different signs and units, and the wrong
one turns a rise into a fall; so the family must be named:

    geokon             P = G (R - R0) + K (T - T0) - (S - S0)     R = f^2 / 1000, G negative on the sheet
                       [4500 manual, 6; 4580 manual, 4.1 to 4.3]
    soil-instruments   P = G (R0 - R) + K (T - T0) - (S - S0)     R = f^2 / 1000, G positive; also RST (CF)
                       [itmsoil knowledge base 134; RST VW2100 manual, p. 7]
                       No source seen prints the sign of K for this family; the maker gives K on request only.
    roctest            P = G (L - L0) - K (T - T0) - (S - S0)     L = 1.0156 f^2 / 1000, K is called CT
                       [PW: Dam Engineering XXXIII(3), eq. 3.6; signs of the terms: FOP manual E10160, 2.7]

f in Hz, P in kPa, T in degrees Celsius, S the air pressure in kPa, of a sealed sensor. A vented one has
no `zero_hpa` and no air pressure is subtracted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite, log, nan
from typing import Any, Literal

Family = Literal["geokon", "soil-instruments", "roctest"]

_ROCTEST_K = 1.0156
_KELVIN = 273.15
_KPA_PER_HPA = 0.1
# 1/T = sum of a_i ln(R)^i, in kelvin and ohm.
_THERMISTORS: dict[str, tuple[float, float, float, float, float, float]] = {
    # YSI 44005, Dale 1C3001-B3, Alpha 13A3001-B3: RST VW2100 manual p. 33.
    "3k": (1.4051e-3, 2.369e-4, 0.0, 1.019e-7, 0.0, 0.0),
    # 103JL1A: Geokon 8002-4-1 manual p. 52.
    "10k": (1.12766979300187e-3, 2.34444184128213e-4, 0.0, 8.47692130592308e-8, 0.0, 1.17512193579615e-11),
}


def _key(doc: str, example: str, default: Any = ...) -> Any:
    metadata = {"doc": doc, "example": example}
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Linear:
    """y = scale x + offset."""

    scale: float = _key("factor, in the channel's unit for each unit of the source", "0.1")
    offset: float = _key("added after the factor, in the channel's unit", "0.0", default=0.0)

    needs_temperature = False
    needs_barometer = False

    def apply(self, x: float, celsius: float | None = None, hpa: float | None = None) -> float:  # noqa: ARG002 -- one shape for all
        return self.scale * x + self.offset


@dataclass(frozen=True, slots=True)
class Polynomial:
    """y = a x^2 + b x + c."""

    a: float = _key("coefficient of the square", "-1.2e-6")
    b: float = _key("coefficient of the source", "0.031")
    c: float = _key("constant, in the channel's unit", "4.2")

    needs_temperature = False
    needs_barometer = False

    def apply(self, x: float, celsius: float | None = None, hpa: float | None = None) -> float:  # noqa: ARG002
        return (self.a * x + self.b) * x + self.c


@dataclass(frozen=True, slots=True)
class VibratingWire:
    """Pressure in kPa from a frequency in Hz, by the sheet's linear factor; signs as the family has them."""

    family: Literal["geokon", "soil-instruments", "roctest"] = _key(
        "whose sheet: it decides the signs and the unit of a digit", '"geokon"'
    )
    zero_digits: float = _key("reading at zero pressure, in the sheet's digits (linear units)", "9082.0")
    kpa_per_digit: float = _key("linear factor with the sheet's own sign (G, CF)", "-0.1795")
    zero_celsius: float | None = _key("temperature at the zero reading", "22.0", default=None)
    kpa_per_celsius: float = _key("thermal factor with the sheet's own sign (K, CT)", "0.1319", default=0.0)
    zero_hpa: float | None = _key(
        "air pressure at the zero reading; absent: vented sensor", "1008.2", default=None
    )

    @property
    def needs_temperature(self) -> bool:
        return self.zero_celsius is not None and self.kpa_per_celsius != 0.0

    @property
    def needs_barometer(self) -> bool:
        return self.zero_hpa is not None

    def apply(self, x: float, celsius: float | None = None, hpa: float | None = None) -> float:
        """In kPa. Without a temperature the thermal term is left out; without a needed barometer NaN."""
        rise = digits(x, self.family) - self.zero_digits
        if self.family == "soil-instruments":
            rise = -rise
        thermal = _thermal(celsius, self.zero_celsius, self.kpa_per_celsius)
        if self.family == "roctest":
            thermal = -thermal
        return self.kpa_per_digit * rise + thermal - _air(hpa, self.zero_hpa)


@dataclass(frozen=True, slots=True)
class VibratingWirePolynomial:
    """Pressure in kPa from a frequency in Hz: a r^2 + b r + c + K (T - T0) - (S - S0).

    `c` must be taken anew in the field, from the zero reading (Geokon 4500 manual, p. 36).
    """

    of: Literal["digits", "hz"] = _key("what r is: digits (Hz^2 / 1000) or the frequency itself", '"digits"')
    a: float = _key("coefficient of the square, in kPa", "-2.1e-7")
    b: float = _key("linear coefficient, in kPa", "-0.1743")
    c: float = _key("constant, in kPa, from the zero reading in the field", "1595.7")
    zero_celsius: float | None = _key("temperature at the zero reading", "22.0", default=None)
    kpa_per_celsius: float = _key("thermal factor, added (K)", "0.1319", default=0.0)
    zero_hpa: float | None = _key(
        "air pressure at the zero reading; absent: vented sensor", "1008.2", default=None
    )

    @property
    def needs_temperature(self) -> bool:
        return self.zero_celsius is not None and self.kpa_per_celsius != 0.0

    @property
    def needs_barometer(self) -> bool:
        return self.zero_hpa is not None

    def apply(self, x: float, celsius: float | None = None, hpa: float | None = None) -> float:
        """In kPa. Without a temperature the thermal term is left out; without a needed barometer NaN."""
        r = x if self.of == "hz" else x * x / 1000.0
        thermal = _thermal(celsius, self.zero_celsius, self.kpa_per_celsius)
        return (self.a * r + self.b) * r + self.c + thermal - _air(hpa, self.zero_hpa)


@dataclass(frozen=True, slots=True)
class Thermistor:
    """Degrees Celsius from ohms, by the Steinhart-Hart curve of the type named on the sheet."""

    type: Literal["3k", "10k"] = _key("3k: YSI 44005 and its kin; 10k: 103JL1A", '"3k"')
    offset_celsius: float = _key("added, from a comparison in the field", "0.0", default=0.0)

    needs_temperature = False
    needs_barometer = False

    def apply(self, x: float, celsius: float | None = None, hpa: float | None = None) -> float:  # noqa: ARG002
        """NaN where the resistance is none: a wire broken or shorted."""
        return thermistor_celsius(x, self.type) + self.offset_celsius


@dataclass(frozen=True, slots=True)
class Count:
    """What a counter gained since the reading before, times `per_count`; see `drivers.counter.Counter`."""

    per_count: float = _key("quantity of one count in the channel's unit, as mm of rain for each tip", "0.2")
    bits: Literal[16, 32] = _key("width of the counter: where it wraps", "16")
    max_step: int = _key("largest believable number of counts in one period of the device", "50")

    needs_temperature = False
    needs_barometer = False


Stateless = Linear | Polynomial | VibratingWire | VibratingWirePolynomial | Thermistor
Calibration = Stateless | Count

KINDS: dict[str, type] = {
    "linear": Linear,
    "polynomial": Polynomial,
    "vibrating-wire": VibratingWire,
    "vibrating-wire-polynomial": VibratingWirePolynomial,
    "thermistor": Thermistor,
    "counter": Count,
}


def mistakes(calibration: Calibration) -> list[tuple[str, str]]:
    """What the fields' types cannot say: (key, remedy) of each setting that makes no sense."""
    found = []
    if isinstance(calibration, VibratingWire | VibratingWirePolynomial):
        if calibration.kpa_per_celsius != 0.0 and calibration.zero_celsius is None:
            found.append(("zero_celsius", "is missing; the thermal factor counts from this temperature"))
        if calibration.zero_hpa is not None and not 500.0 < calibration.zero_hpa < 1100.0:  # noqa: PLR2004 -- air on earth
            found.append(("zero_hpa", f"is {calibration.zero_hpa}; air pressure is given in hPa, as 1008.2"))
    if isinstance(calibration, VibratingWire):
        wanted = {"geokon": -1, "soil-instruments": 1}.get(calibration.family, 0)
        if wanted * calibration.kpa_per_digit < 0:
            sign = "negative" if wanted < 0 else "positive"
            found.append(("kpa_per_digit", f"is {sign} on a sheet of the {calibration.family} family"))
    if isinstance(calibration, Count) and not 0 < calibration.max_step < 2 ** (calibration.bits - 1):
        found.append(
            ("max_step", f"must lie within 1 .. {2 ** (calibration.bits - 1) - 1}, half the counter's range")
        )
    return found


def digits(hz: float, family: Family = "geokon") -> float:
    """The sheet's reading unit (B units, linear units, 模数) for a frequency."""
    plain = hz * hz / 1000.0
    return _ROCTEST_K * plain if family == "roctest" else plain


def digits_of_period(microseconds: float) -> float:
    """The same from a period, as some read-outs show it: 10^9 / P^2."""
    return 1e9 / (microseconds * microseconds)


def thermistor_celsius(ohm: float, type: Literal["3k", "10k"]) -> float:  # noqa: A002 -- as on the sheet
    """Steinhart-Hart; NaN unless the resistance is a positive, finite number."""
    if not (isfinite(ohm) and ohm > 0.0):
        return nan
    x, inverse = log(ohm), 0.0
    for coefficient in reversed(_THERMISTORS[type]):
        inverse = inverse * x + coefficient
    return 1.0 / inverse - _KELVIN if inverse > 0.0 else nan


def _thermal(celsius: float | None, zero_celsius: float | None, kpa_per_celsius: float) -> float:
    if celsius is None or zero_celsius is None:
        return 0.0
    return kpa_per_celsius * (celsius - zero_celsius)


def _air(hpa: float | None, zero_hpa: float | None) -> float:
    if zero_hpa is None:
        return 0.0
    return nan if hpa is None else (hpa - zero_hpa) * _KPA_PER_HPA
