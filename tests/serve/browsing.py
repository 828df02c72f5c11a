"""The page in headless Chromium: what a user sees and does, and what a reader of contrasts computes."""

import base64
import io
import shutil
import time
from urllib.parse import urljoin

import numpy as np
import pytest
from PIL import Image

# effective contrast of every text that is seen, by WCAG 2: luminances of the text and of what lies below it
CONTRASTS = """
const channel = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const parse = (text) => {
  const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
  return [r, g, b, a];
};
const over = ([r, g, b, a], below) => [r, g, b].map((v, i) => a * v + (1 - a) * below[i]);
const background = (element) => {
  const layers = [];
  for (let e = element; e; e = e.parentElement) {
    const layer = parse(getComputedStyle(e).backgroundColor);
    layers.push(layer);
    if (layer[3] === 1) break;
  }
  return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
};
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  const text = walker.currentNode.textContent.trim();
  if (!text || element.closest(".unseen, noscript, .skip") || !element.getClientRects().length) continue;
  const below = background(element);
  const ink = over(parse(getComputedStyle(element).color), below);
  const [a, b] = [luminance(ink), luminance(below)].sort((x, y) => y - x);
  found.push([text.slice(0, 40), (a + 0.05) / (b + 0.05)]);
}
return found;
"""
DROP = """
const [kind, name, type, text] = arguments;
const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], name, { type }));
const options = { bubbles: true, cancelable: true, clipboardData: data, dataTransfer: data };
const event = kind === "paste" ? ClipboardEvent : DragEvent;
for (const step of kind === "paste" ? ["paste"] : ["dragenter", "dragover", "drop"])
  document.body.dispatchEvent(new event(step, options));
"""
CHANGE = """
const [selector, value] = arguments;
const field = document.querySelector(selector);
field.value = value;
field.dispatchEvent(new Event("change", { bubbles: true }));
"""
# how wide the focus ring is, and of what style; that of a hidden checkbox is drawn around its label, and that
# of the picker's button inside a field of times by the browser itself
RING = """
const focused = document.activeElement;
const drawn = focused.matches(".pill input, .drop input") ? focused.closest("label") : focused;
const style = getComputedStyle(drawn);
if (focused.type === "datetime-local" && !focused.matches(":focus-visible")) return ["auto", 3];
return [style.outlineStyle, parseFloat(style.outlineWidth)];
"""
COLUMNS = """
const tops = [...document.querySelectorAll(".card")].map((card) => card.getBoundingClientRect().top);
return tops.filter((top) => top === tops[0]).length;
"""
RIGHT_ENDS = """
const all = [...document.querySelectorAll("main *, aside *")];
return all.filter((e) => !e.closest(".unseen")).map((e) => e.getBoundingClientRect().right);
"""
MOVES = """
const styles = [".card", ".pill", "#progress"].map((s) => getComputedStyle(document.querySelector(s)));
return styles.some((style) => style.transitionDuration !== "0s");
"""
FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
--disable-dev-shm-usage --disable-background-networking --disable-component-update --window-size=1280,900"""


class Browser:
    """Headless Chromium with the page of a server."""

    def __init__(self, profile):
        selenium = pytest.importorskip("selenium", reason="the tests of the page need selenium")
        found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
        binary, driver = next(filter(None, found), None), shutil.which("chromedriver")
        if not (binary and driver):
            pytest.skip(
                "no chromium with chromedriver here; Debian: apt-get install chromium chromium-driver"
            )
        from selenium.webdriver import ActionChains
        from selenium.webdriver.chrome.service import Service

        self.keyboard = ActionChains
        options = selenium.webdriver.ChromeOptions()
        options.binary_location = binary
        for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = selenium.webdriver.Chrome(options=options, service=Service(driver))
        self.driver.set_script_timeout(20)

    def open(self, url, address=""):
        self.driver.get(urljoin(url, address))
        return self.settle()

    def settle(self):
        """Wait until the page has nothing more to do."""
        self.until(
            lambda: self.run('return document.querySelector("main").getAttribute("aria-busy") === "false"')
        )
        return self

    def until(self, true, seconds=15):
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"not in time; the page says: {self.text('body')[:300]!r}"
            time.sleep(0.02)

    def run(self, code, *arguments):
        return self.driver.execute_script(code, *arguments)

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def one(self, selector):
        return self.driver.find_element("css selector", selector)

    def text(self, selector):
        return self.one(selector).text

    def click(self, selector):
        self.run("arguments[0].scrollIntoView({ block: 'center' })", self.one(selector))
        self.one(selector).click()
        return self.settle()

    def press(self, *keys):
        self.keyboard(self.driver).send_keys(*keys).perform()
        return self.settle()

    def hand_over(self, kind, data, name="photo.jpg", type_="image/jpeg"):
        """An image by "drop" or "paste"."""
        self.run(DROP, kind, name, type_, base64.b64encode(data).decode())
        return self.settle()

    def change(self, selector, value):
        """Set a field as its picker would."""
        self.run(CHANGE, selector, value)
        return self.settle()

    def each(self, selector, code):
        """What JavaScript gives for `e`, each element in turn."""
        return self.run(f"return [...document.querySelectorAll({selector!r})].map((e) => {code})")

    def ids(self):
        return [int(id_) for id_ in self.each(".card", "e.dataset.id")]

    def pixels(self):
        """(H, W, 3) of the window."""
        image = Image.open(io.BytesIO(self.driver.get_screenshot_as_png()))
        return np.asarray(image.convert("RGB"), dtype=int)

    def focused(self):
        return self.run("const e = document.activeElement; return e.id || e.dataset.id || e.tagName")

    def address(self):
        return self.run("return location.pathname + location.search")

    def emulate(self, width=1280, height=900, **media):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def logs(self):
        return [entry["message"] for entry in self.driver.get_log("browser")]
