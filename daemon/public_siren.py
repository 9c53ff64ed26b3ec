"""Public sirens: they sound at the signed request of the named authority and at nothing else.

No level, no person at the gateway and no detector has a part in it. Whose request counts is said by the
output's own `authority_keys`; for how long, by the request, up to the output's `at_most`. An order outlives a
restart and ends by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from daemon.alarms import NotAllowed
from daemon.seal import key_id

if TYPE_CHECKING:
    from daemon.config import OutputTable, Site

STATE = "public-sirens"


class Order(msgspec.Struct, frozen=True):
    """Who has one sound, and until when (ns, UTC)."""

    output: str
    by: str
    key: str
    until_ns: int


class PublicSirens:
    """The orders under way, at most one for each public siren of the site file."""

    def __init__(self, site: Site) -> None:
        self._outputs = {table.id: table for table in site.outputs if table.kind == "public"}
        self._shadow = site.site.shadow
        self._orders: dict[str, Order] = {}

    def pond(self, output: str) -> str:
        return self._outputs[output].pond

    def is_on(self, output: str) -> bool:
        return output in self._orders

    def sound(self, output: str, *, key: str, by: str, seconds: float, now_ns: int) -> Order:
        """Have it sound from now on for `seconds`; a later request takes the place of the one before.

        Raises:
            NotAllowed: no such siren, not this key's to order, too long, or the site runs in shadow.
        """
        table = self._known(output, key)
        if self._shadow:
            raise NotAllowed(f"the site runs in shadow: {output} stays silent")
        if not by.strip():
            raise NotAllowed(f"who has {output} sound? A name is needed")
        if not 0.0 < seconds <= table.at_most_s:
            raise NotAllowed(
                f"{output} sounds at most {table.at_most_s:g} s at one request, not {seconds:g} s"
            )
        order = Order(output, by, key, now_ns + round(seconds * 1e9))
        self._orders[output] = order
        return order

    def silence(self, output: str, *, key: str) -> Order:
        """Have it fall silent; the order that ends.

        Raises:
            NotAllowed: no such siren, not this key's to order, or it does not sound.
        """
        self._known(output, key)
        if output not in self._orders:
            raise NotAllowed(f"{output} does not sound")
        return self._orders.pop(output)

    def expire(self, now_ns: int) -> list[Order]:
        """Orders that end now, taken out; a clock that has stepped back before them ends them too."""
        over = [each for each in self._orders.values() if self._is_over(each, now_ns)]
        for order in over:
            del self._orders[order.output]
        return over

    def _is_over(self, order: Order, now_ns: int) -> bool:
        left_s = (order.until_ns - now_ns) / 1e9
        return not 0.0 < left_s <= self._outputs[order.output].at_most_s

    def _known(self, output: str, key: str) -> OutputTable:
        table = self._outputs.get(output)
        if table is None:
            there = ", ".join(self._outputs) or "none"
            raise NotAllowed(f"no public siren is called {output}; there is {there}")
        if key not in {key_id(bytes.fromhex(public)) for public in table.authority_keys}:
            raise NotAllowed(f"key {key} is not of the authority that may have {output} sound")
        return table

    # -- state that must outlive a restart -----------------------------------------------------------

    def state(self) -> list[Order]:
        return list(self._orders.values())

    def restore(self, state: Any) -> None:
        """Go on with what was ordered, as far as the site still has it."""
        orders = msgspec.convert(state, list[Order])
        self._orders = {each.output: each for each in orders if each.output in self._outputs}
