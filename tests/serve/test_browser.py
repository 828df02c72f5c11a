"""The page of `vif serve` in headless Chromium, over a server process."""

import re

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="vif serve needs the extra `serve`")

from vif.retrieval import Filter, create_gallery

from tests.retrieval.people import people as vectors
from tests.serve.browsing import COLUMNS, RING
from tests.serve.serving import NIGHT, Server

EVIL = "<img src=x onerror=document.title='broken-out'>.jpg"


@pytest.fixture(scope="module")
def bare(tmp_path_factory, chromium):
    """A gallery without images and network, whose texts try to be markup."""
    table = vectors(70)
    table.paths = np.array([f"{i}{EVIL}" for i in range(70)])
    table.views = np.array(["<b>aerial</b>"] * 70)
    folder = str(tmp_path_factory.mktemp("bare") / "gallery")
    create_gallery(folder, table, times=[1e300 if i == 3 else NIGHT for i in range(70)])
    with Server(folder, "--max-upload-mib", "0.01") as server:
        yield server.url


def found(gallery, where=Filter(), k=20, id_=7):  # noqa: B008
    return [row["id"] for row in gallery.similar([id_], k, where).of(0)]


def test_a_chosen_image_shows_the_ranked_list_of_the_gallery(browser, url, gallery, people, photo):
    browser.open(url).one("#file").send_keys(str(photo))
    expected = gallery.search(people.predictor(photo), 20).of(0)
    browser.until(lambda: browser.ids() == [row["id"] for row in expected])
    for card, row in zip(browser.all(".card"), expected):
        told = re.fullmatch(r"rank (\d+) distance (\d\.\d{4}) (.*)", " ".join(card.text.split()))
        rank, distance, seen_by = told.groups()
        assert int(rank) == row["rank"]
        assert abs(float(distance) - row["distance"]) <= 1e-4
        assert seen_by == f"{row['view']} cam {row['camid']} · ID {row['pid']}"
        assert card.get_attribute("title") == row["path"]
    browser.until(lambda: all(browser.each(".card img, #query img", "e.complete && e.naturalWidth > 0")))
    alts = browser.each("#query img, .card img", "e.alt")
    assert alts[0] == "The image to search by"
    assert alts[1] == f"Image {expected[0]['id']}, {expected[0]['view']} camera {expected[0]['camid']}"
    assert browser.text("#status") == "The 20 nearest: by cosine distance"
    assert "photo" not in browser.address()


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_an_image_can_be_dropped_and_pasted(kind, browser, url, gallery, people, photo):
    browser.open(url).hand_over(kind, photo.read_bytes())
    assert browser.ids() == [row["id"] for row in gallery.search(people.predictor(photo), 20).of(0)]
    browser.click("[name=other_cameras]")
    assert browser.text("#alert").startswith("Choose the camera of your image")
    browser.change("[name=query_camid]", "1")
    where = Filter(other_cameras=True)
    assert browser.ids() == [
        row["id"] for row in gallery.search(people.predictor(photo), 20, where, [1]).of(0)
    ]
    assert not browser.one("#alert").is_displayed()


def test_filters_narrow_the_list_and_stand_in_the_address(browser, url, gallery):
    browser.open(url, "?id=7")
    assert browser.ids() == found(gallery)
    browser.click("[name=views][value=aerial]")
    assert browser.ids() == found(gallery, Filter(views=["aerial"]))
    browser.click("[name=camids][value='2']")
    browser.click("[name=camids][value='3']")
    assert browser.ids() == found(gallery, Filter(views=["aerial"], camids=[2, 3]))
    assert browser.address() == "/?id=7&views=aerial&camids=2&camids=3"
    assert browser.text("#active") == "3"
    browser.click("#clear")
    browser.click("[name=other_cameras]")
    assert browser.ids() == found(gallery, Filter(other_cameras=True))
    browser.click("[name=other_cameras]")
    number = browser.one("[name=k]")
    number.clear()
    number.send_keys("4\t")
    browser.settle()
    assert browser.ids() == found(gallery, k=4)
    browser.change("[name=since]", "2026-03-01T10:00:00")
    assert browser.ids() == found(gallery, Filter(since=1_772_359_200.0), k=4)
    browser.open(url, "?id=7&views=nowhere")
    assert browser.ids() == []
    assert browser.text("#heading") == "Nothing passes the filters"


def test_a_result_can_be_linked_searched_on_and_gone_back_from(browser, url, gallery):
    browser.open(url, "?id=7&views=ground&k=5")
    first = browser.ids()
    assert first == found(gallery, Filter(views=["ground"]), 5)
    assert browser.one("[name=views][value=ground]").is_selected()
    browser.click(".card:nth-child(1)")
    assert browser.address() == f"/?id={first[0]}&views=ground&k=5"
    assert browser.ids() == found(gallery, Filter(views=["ground"]), 5, first[0])
    browser.driver.back()
    browser.until(lambda: browser.ids() == first)
    assert browser.address() == "/?id=7&views=ground&k=5"
    browser.driver.forward()
    browser.until(lambda: browser.ids() != first)
    browser.driver.refresh()
    browser.settle()
    assert browser.ids() == found(gallery, Filter(views=["ground"]), 5, first[0])


def test_same_and_other_identities_are_marked_and_said(browser, url, gallery):
    browser.open(url, "?id=7")
    pid = gallery.rows([7]).columns["pids"][0]
    pids = [row["pid"] for row in gallery.similar([7], 20).of(0)]
    marks = browser.each(".card .mark", "e.textContent")
    assert marks == ["same identity" if p == pid else "another identity" for p in pids]
    assert set(marks) == {"same identity", "another identity"}
    assert browser.text("#count") == f"{pids.count(pid)} of the same identity"
    facts = browser.text("#query-facts").split("\n")
    row = {name: column[0] for name, column in gallery.rows([7]).columns.items()}
    assert facts[:2] == ["Query", "#7"]
    assert {row["paths"], row["views"], f"camera {row['camids']}", row["light"]} <= set(facts)


def test_everything_can_be_done_with_the_keyboard(browser, url, gallery):
    from selenium.webdriver.common.keys import Keys

    browser.open(url)
    seen = []
    while "A" not in seen[2:] and not (seen and seen[-1].isdigit()):
        browser.press(Keys.TAB)
        seen.append(browser.focused())
        style, width = browser.run(RING)
        assert style != "none", seen[-1]
        assert width >= 2, seen[-1]
        assert len(seen) < 60, seen
    assert {"home", "file", "find"} <= set(seen)
    rows = [int(id_) for id_ in gallery.rows().ids]
    assert seen[-1] == str(rows[0])
    columns = browser.run(COLUMNS)
    for key, place in (
        (Keys.ARROW_RIGHT, 1),
        (Keys.ARROW_DOWN, 1 + columns),
        (Keys.ARROW_LEFT, columns),
        (Keys.ARROW_UP, 0),
        (Keys.END, 51),
        (Keys.HOME, 0),
        (Keys.ARROW_LEFT, 0),
        (Keys.ARROW_RIGHT, 1),
    ):
        browser.press(key)
        assert browser.focused() == str(rows[place])
    browser.press(Keys.ENTER)
    assert browser.address() == f"/?id={rows[1]}"
    assert browser.focused() == "heading"
    assert browser.ids() == found(gallery, id_=rows[1])
    browser.press(Keys.ARROW_DOWN)
    browser.press(Keys.ENTER)
    second = found(gallery, id_=rows[1])[0]
    assert browser.address() == f"/?id={second}"
    browser.press(Keys.ESCAPE)
    browser.until(lambda: browser.address() == f"/?id={rows[1]}" and browser.focused() == str(second))
    browser.press(Keys.ESCAPE)
    browser.until(lambda: browser.address() == "/" and browser.focused() == str(rows[1]))
    browser.open(url, "?id=7").press(Keys.ESCAPE)
    assert browser.address() == "/"
    assert browser.text("#heading") == "Gallery"


def test_a_time_that_no_calendar_knows_and_one_that_it_does(browser, bare):
    browser.open(bare, "?id=3")
    assert "1e+300 s" in browser.text("#query-facts")
    assert browser.ids()
    browser.open(bare, "?id=4")
    assert "2026-03-01 00:00:00 UTC" in browser.text("#query-facts")


def test_the_gallery_is_browsed_in_pages_and_by_name(browser, bare, url):
    browser.open(bare)
    assert browser.ids() == list(range(60))
    assert browser.text("#pages").split("\n")[-2:] == ["Page 1 of 2", "Next"]
    browser.click("#pages a")
    assert browser.ids() == list(range(60, 70))
    assert browser.address() == "/?page=2"
    browser.open(url).one("#find").send_keys("cam3_\n")
    browser.settle()
    assert browser.address() == "/?find=cam3_"
    titles = browser.each(".card", "e.title")
    assert len(titles) == 4
    assert all(re.fullmatch(r"Cam3/Cam3_\w+\.jpg", title) for title in titles)


def test_text_of_a_gallery_is_never_markup_and_images_that_are_missing_become_figures(browser, bare):
    browser.open(bare, "?id=3")
    assert browser.all(".card")[0].get_attribute("title").endswith(EVIL)
    assert "<b>aerial</b>" in browser.text(".card .view")
    assert EVIL in browser.text("#query-facts")
    assert not browser.all("main img, aside img, aside b, main b")
    assert len(browser.all(".card .blank svg")) == 20
    assert browser.run("return document.title") == "#3 · vif"


def test_errors_stand_in_the_page(browser, url, bare, photo):
    browser.open(url).hand_over("drop", b"plain text", "notes.txt", "text/plain")
    assert browser.text("#alert").startswith("The image cannot be used: no image of a known format")
    assert browser.one("#alert").get_attribute("role") == "alert"
    assert browser.ids() == []
    browser.click("#back")
    browser.until(lambda: len(browser.ids()) == 52)
    assert not browser.one("#alert").is_displayed()
    browser.open(url, "?id=99")
    assert browser.text("#alert").startswith("Id 99 is not in the gallery")
    browser.open(url, "?id=7&since=noon")
    assert "neither seconds since 1970 nor ISO 8601" in browser.text("#alert")
    browser.open(bare)
    assert "start vif serve with --config-file and --weights, or --onnx" in browser.text("#drop")
    assert not browser.one("#file").is_enabled()
    browser.hand_over("drop", photo.read_bytes()[:500])
    assert "start `vif serve` with --config-file and --weights" in browser.text("#alert")
    browser.open(bare).hand_over("drop", bytes(20_000))
    assert "larger than 0.01 MiB" in browser.text("#alert")


def test_an_upload_is_not_kept_over_a_reload(browser, url, photo):
    browser.open(url).hand_over("drop", photo.read_bytes())
    assert len(browser.ids()) == 20
    browser.driver.refresh()
    browser.settle()
    assert browser.text("#alert") == "The image you dropped was not kept. Drop it again."
    assert len(browser.ids()) == 52


def test_a_server_that_is_gone_is_said(browser, url):
    browser.open(url)
    browser.driver.set_network_conditions(offline=True, latency=0, throughput=0)
    try:
        browser.click(".card")
        assert browser.text("#alert") == "The server does not answer. Does vif serve still run?"
    finally:
        browser.driver.delete_network_conditions()
        browser.logs()
