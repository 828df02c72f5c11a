"""Importing vif bridges fastreid before any test module imports it; what both log can be caught."""

import logging

import vif  # noqa: F401
import pytest
from hypothesis import settings

settings.register_profile("busy", deadline=None)  # a time limit fails on a machine that does something else
settings.load_profile("busy")


@pytest.fixture(autouse=True)
def caught_logs():
    """fastreid's logger, once set up by a trainer, passes nothing on to pytest's caplog."""
    logging.getLogger("fastreid").propagate = True
