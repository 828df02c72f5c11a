"""Comparisons: sweeps over configs and seeds, and the tables and figures made of their results."""
