"""One gallery with images and its network, for all tests of `vif serve`."""

import pytest

from tests.serve.serving import make_people


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    return make_people(tmp_path_factory.mktemp("people"))
