"""Runs that go on: what a checkpoint holds beside weights, which one is good, what may change between."""
