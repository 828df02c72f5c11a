"""The page in headless Chromium: no message in its console, nothing loaded, light and dark, phone width."""

import json
import shutil

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytest.importorskip("jinja2")
pytest.importorskip("selenium")

from selenium import webdriver
from vif.cli import main

from tests.report.fake_run import make_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")
FLAGS = [
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking",
    "--disable-component-update --disable-sync --hide-scrollbars",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("browser")
    run = make_run(tmp)
    assert main(["report", str(run), "--root", str(tmp / "data"), "--map", "pca", "--queries", "2"]) == 0
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in " ".join(FLAGS).split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp / 'profile'}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_window_size(1200, 900)
    driver.get((run / "report.html").as_uri())
    yield driver
    driver.quit()


def test_nothing_is_said_in_the_console_and_nothing_loaded(browser):
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    page = [p["request"]["url"] for p in sent if p["documentURL"] == browser.current_url]
    assert browser.current_url in page
    assert [url for url in page if url != browser.current_url and not url.startswith("data:")] == []


def test_every_crop_is_decoded(browser):
    images = browser.execute_script("return [...document.images].map(i => i.complete && i.naturalHeight)")
    assert len(images) > 50
    assert all(images)


@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_is_no_wider_than_the_window(browser, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def luminance(colour):
    parts = [int(value) / 255 for value in colour.split("(")[1].rstrip(")").split(",")[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(browser, scheme):
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
    script = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    paper = luminance(browser.execute_script(script, "body", "backgroundColor"))
    assert (paper > 0.5) == (scheme == "light")
    plot_text = "return getComputedStyle(document.querySelector('figure svg text')).fill"
    colours = [browser.execute_script(script, where, "color") for where in ("body", "dt", "figcaption", "a")]
    for colour in [*colours, browser.execute_script(plot_text)]:
        high, low = sorted([luminance(colour), paper], reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, colour


def test_folded_parts_open_by_keyboard(browser):
    from selenium.webdriver.common.keys import Keys

    closed = browser.find_elements("css selector", "details:not([open]) > summary")
    closed[0].send_keys(Keys.ENTER)
    assert closed[0].find_element("xpath", "..").get_attribute("open")
