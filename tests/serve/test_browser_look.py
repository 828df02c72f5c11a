"""How the page of `vif serve` looks in headless Chromium: phone width, contrast, focus, motion, policy."""

import re

import pytest

pytest.importorskip("fastapi", reason="vif serve needs the extra `serve`")

from tests.serve.browsing import CONTRASTS, MOVES, RIGHT_ENDS


def test_the_focus_ring_of_a_card_is_seen_on_all_its_sides(browser, url):
    from selenium.webdriver.common.keys import Keys

    browser.emulate(prefers_reduced_motion="reduce")  # nothing else changes between the two
    browser.open(url)
    browser.run("document.getElementById('heading').focus()")
    browser.until(lambda: all(browser.each(".card img", "e.complete")[:20]))
    before = browser.pixels()
    browser.press(Keys.ARROW_DOWN).press(Keys.ARROW_RIGHT)
    changed = (browser.pixels() != before).any(axis=2)
    edges = (
        "const r = document.activeElement.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]"
    )
    left, top, right, bottom = map(round, browser.run(edges))
    for side in (
        changed[top - 4, left:right],
        changed[bottom + 3, left:right],
        changed[top:bottom, left - 4],
        changed[top:bottom, right + 3],
    ):
        assert side.mean() > 0.9  # all but the round corners


def test_what_is_written_into_a_field_of_time_is_not_cut(browser, url):
    browser.open(url)
    room = browser.each("[type=datetime-local]", "e.scrollWidth - e.clientWidth")
    assert room == [0, 0]


@pytest.mark.parametrize("address", ["", "?id=7", "?id=99", "?id=7&views=nowhere"])
def test_at_phone_width_nothing_is_wider_than_the_screen(address, browser, url):
    browser.emulate(375, 740)
    browser.open(url, address)
    browser.run("document.querySelector('details').open = true")
    scroll, inner = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
    assert inner == 375
    assert scroll == 375
    assert max(browser.run(RIGHT_ENDS)) <= 375.5


def test_texts_can_be_read_in_light_and_dark(browser, url, photo):
    papers = []
    for scheme in ("light", "dark"):
        browser.emulate(prefers_color_scheme=scheme)
        for address in ("", "?id=7&views=ground", "?id=99"):
            browser.open(url, address)
            contrasts = browser.run(CONTRASTS)
            assert len(contrasts) > 20
            assert [entry for entry in contrasts if entry[1] < 4.5] == []
        papers.append(browser.run("return getComputedStyle(document.body).backgroundColor"))
    light, dark = (sum(map(int, re.findall(r"\d+", paper)[:3])) for paper in papers)
    assert light > 600
    assert dark < 150


def test_nothing_moves_where_that_is_not_wanted(browser, url):
    browser.emulate(prefers_reduced_motion="reduce")
    browser.open(url, "?id=7")
    assert browser.run(MOVES) is False
    browser.emulate(prefers_reduced_motion="no-preference")
    assert browser.run(MOVES) is True


def test_no_request_leaves_the_server_and_no_policy_is_broken(browser, url, photo):
    browser.logs()
    browser.open(url, "?id=7").hand_over("drop", photo.read_bytes())
    browser.open(url).click(".card")
    names = browser.run("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert len(names) > 20
    assert all(name.startswith(url) for name in names), names
    assert browser.logs() == []
    assert browser.run("return document.cookie + localStorage.length + sessionStorage.length") == "00"
    inline = "const s = document.createElement('script'); s.textContent = 'window.inlined = 1'; "
    browser.run(inline + "document.body.append(s)")
    assert browser.run("return window.inlined") is None
    assert "script-src 'self'" in " ".join(browser.logs())
