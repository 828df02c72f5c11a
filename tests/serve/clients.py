"""Requests to a service without a network between, and what an error looks like."""

LIMIT = 200_000  # bytes of an upload
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def picture(people, camid=1, pid=5):
    return (people.images.parent / "query" / f"Cam{camid}" / f"Cam{camid}_day_{pid}_1.jpg").read_bytes()


def post(client, data, address="/api/search", **parameters):
    return client.post(address, params=parameters, files={"image": ("x.jpg", data, "image/jpeg")})


def refused(answer, status, message):
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert message in answer.json()["error"]
