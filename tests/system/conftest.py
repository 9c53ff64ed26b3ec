"""Fixtures that live where they belong, made known here."""

from tests.peers.test_libmodbus import program

__all__ = ["program"]
