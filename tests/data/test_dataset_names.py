"""File names of CARGO and AG-ReID, as they are and as they are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vif.data.datasets import agreid, cargo
from vif.errors import DataError

from tests.fake_trees import agreid_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Cam2_day_2519_320.jpg", (2519, 2, "aerial")),
        ("Cam5_night_0_0.JPEG", (0, 5, "aerial")),
        ("Cam6_day_1_7.png", (1, 6, "ground")),
        ("Cam13_night_4999_12.jpg", (4999, 13, "ground")),
    ],
)
def test_cargo_name(name, expected):
    assert tuple(cargo.parse_name(name)) == expected


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Cam0_day_1_1.jpg",
        "Cam14_day_1_1.jpg",
        "Cam1_noon_1_1.jpg",
        "Cam1_day_-1_1.jpg",
        "Cam1_day_1.jpg",
        "Cam1_day_1_1.bmp",
        "Cam1_day_1_1.jpg\n",
        "Cam1_day_٣_1.jpg",
    ],
)
def test_cargo_name_refused(name):
    with pytest.raises(DataError, match="is not named Cam") as error:
        cargo.parse_name(name)
    assert repr(name) in str(error.value)


@pytest.mark.parametrize(
    ("name", "identity", "camid"),
    [
        ("P0006T02140A0C0F1831.jpg", "P0006T02140A0", 0),
        ("P0000T04041A2C2F8671Z.jpg", "P0000T04041A2", 2),
        ("P9999T12311A9C3F01111.jpg", "P9999T12311A9", 3),
    ],
)
def test_agreid_name(name, identity, camid):
    parsed = agreid.parse_name(name)
    assert (agreid.decode_identity(parsed.pid), parsed.camid) == (identity, camid)


def test_agreid_identity_is_person_time_and_altitude_together():
    names = [
        "P0006T02140A0C0F1.jpg",
        "P0006T02141A0C0F1.jpg",
        "P0006T02140A1C0F1.jpg",
        "P0007T02140A0C0F1.jpg",
    ]
    assert len({agreid.parse_name(name).pid for name in names}) == 4
    assert agreid.parse_name(names[0]).pid == int(
        "0006" + "02140" + "0"
    )  # as the data set's own tools number it


@pytest.mark.parametrize(
    "name",
    ["", "P6T02140A0C0F1.jpg", "P0006T2140A0C0F1.jpg", "P0006T02140A0C0.jpg", "P0006T02140A0C0F1ZZ.jpg"],
)
def test_agreid_name_refused(name):
    with pytest.raises(DataError, match="is not named P") as error:
        agreid.parse_name(name)
    assert repr(name) in str(error.value)


name_like = st.one_of(
    st.text(),
    st.from_regex(r"Cam[0-9]*_(day|night)?_[0-9]*_?[0-9]*\.?(jpg)?"),
    st.from_regex(r"P?[0-9]*T?[0-9]*A[0-9]?C[0-9]?F[0-9]*[A-Z]?\.?(jpg)?"),
)


@given(name_like)
def test_any_name_is_read_or_refused_with_a_data_error(name):
    for parse in (cargo.parse_name, agreid.parse_name):
        try:
            parsed = parse(name)
        except DataError:
            continue
        assert 0 <= parsed.pid < 2**63
        assert parsed.camid >= 0


@given(st.integers(0, 9999), st.integers(0, 99999), st.integers(0, 9), st.sampled_from((0, 2, 3)))
def test_agreid_identity_goes_there_and_back(person, time, altitude, camera):
    name = agreid_name(person, camera, 1, time, altitude)
    assert name.startswith(agreid.decode_identity(agreid.parse_name(name).pid) + f"C{camera}")
