"""One gallery with images and its network, for all tests of `vif serve`, and clients of services over it."""

import pytest
from vif.retrieval import Gallery, open_gallery

from tests.retrieval.people import people as vectors
from tests.serve.browsing import Browser
from tests.serve.clients import LIMIT, LOOPBACK
from tests.serve.serving import Server, make_people


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    return make_people(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="session")
def gallery(people):
    return open_gallery(str(people.gallery))


def client_of(gallery, root, predictor):
    """A client of a service that listens on loopback."""
    from starlette.testclient import TestClient
    from vif.serve.app import create_app
    from vif.serve.service import Service

    service = Service.build(gallery, root, predictor, LIMIT)
    return TestClient(create_app(service, LOOPBACK), base_url="http://localhost")


@pytest.fixture(scope="session")
def client(people, gallery):
    return client_of(gallery, gallery.meta["root"], people.predictor)


@pytest.fixture(scope="session")
def bare_client():
    """Neither images nor a network; some rows without camera."""
    table = vectors(10)
    table.camids[0] = -1
    return client_of(Gallery.build(table), "", None)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.driver.quit()


@pytest.fixture
def browser(chromium):
    yield chromium
    chromium.emulate()


@pytest.fixture(scope="session")
def url(people, chromium):
    with Server(people.gallery, *people.network) as server:
        yield server.url


@pytest.fixture(scope="session")
def photo(people):
    return people.images.parent / "query" / "Cam1" / "Cam1_day_5_1.jpg"
