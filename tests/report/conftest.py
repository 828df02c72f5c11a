"""One run that all tests of reports share, and copies of it that a test may change."""

import shutil

import pytest

from tests.report.fake_run import make_run


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("shared")
    return make_run(tmp)


@pytest.fixture
def run(shared, tmp_path):
    """A copy of the run that a test may change."""
    copy = tmp_path / "logs" / "run"
    shutil.copytree(shared, copy)
    return copy
