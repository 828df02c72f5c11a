"""Importing vif bridges fastreid before any test module imports it."""

import vif  # noqa: F401
