"""Fixtures that live where they belong, made known here."""

from tests.peers.test_libmodbus import program
from tests.system.postgres import postgres

__all__ = ["postgres", "program"]
