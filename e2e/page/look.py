#!/usr/bin/env python3
"""Checks the page of a running request-info in headless Chromium: `look.py URL [--screenshots DIRECTORY]`.

In every size and scheme the page must leave the browser's console empty (its Content-Security-Policy blocks nothing
that it needs), send requests only to its own server, run no script, and be no wider than the window. On the report, the commit
that answers is in sight without scrolling, one click selects a whole value, and a long value leaves the others in sight.
"""

import argparse
import shutil
import sys
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Browser, Page, sync_playwright

WINDOWS = {"phone": (360, 740), "tablet": (768, 1024), "desktop": (1440, 900)}
SCHEMES = ("light", "dark")
VISITS = {
    "plain": "",
    "script": "?" + urlencode({"event": "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"}),
    "long": "?" + urlencode({"event": "signup", "url": "https://example.com/" + "very-long-path/" * 500}),
}
FLAGS = ["--disable-background-networking", "--disable-component-update", "--disable-quic", "--disable-sync"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="where the service is, for example http://127.0.0.1:3000/")
    parser.add_argument("--screenshots", type=Path, metavar="DIRECTORY", help="keep a picture of each visit there")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium")
    if not chromium:
        sys.exit("look.py: chromium is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS, chromium_sandbox=False)
        passed, failures = 0, []
        for path in ("", "headers"):
            for scheme in SCHEMES:
                for window in WINDOWS:
                    for visit, query in VISITS.items():
                        name = f"{path or 'report'}-{visit}-{window}-{scheme}"
                        found = look(browser, arguments.url.rstrip("/") + "/" + path + query, window, scheme, name, arguments)
                        failures += [f"{name}: {fault}" for fault in found]
                        passed += not found
    for failure in failures:
        print(failure, file=sys.stderr)
    print(f"page: {passed} passed, {len(VISITS) * len(WINDOWS) * len(SCHEMES) * 2 - passed} failed")
    sys.exit(bool(failures))


def look(browser: Browser, url: str, window: str, scheme: str, name: str, arguments: argparse.Namespace) -> list[str]:
    """The faults of the page at one size and in one colour scheme."""
    faults: list[str] = []
    width, height = WINDOWS[window]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.on("console", lambda message: faults.append(f"the console says {message.text}"))
    page.on("pageerror", lambda error: faults.append(f"an error: {error}"))
    page.on("request", lambda request: asked.append(request.url))
    asked: list[str] = []
    page.goto(url, wait_until="networkidle")
    faults += [f"it asks for {other}" for other in asked if not other.startswith("data:") and other != page.url]
    if page.title() == "ran":
        faults.append("a visitor's script ran")
    # This is not a script in the page, because the page does not allow scripts.
    if (content := page.evaluate("document.documentElement.scrollWidth")) > width:
        faults.append(f"it is {content} px wide in a window of {width}")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in background.removeprefix("rgb(").rstrip(")").split(","))
    if (brightness > 382) != (scheme == "light"):
        faults.append(f"its background is {background} in the {scheme} scheme: the stylesheet is not applied")
    if page.locator("dl").count():
        faults += look_at_report(page, height)
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=arguments.screenshots / f"{name}.png", full_page=True)
    page.close()
    return faults


def look_at_report(page: Page, height: int) -> list[str]:
    faults = []
    answered = page.locator(".answered").bounding_box()
    if not answered or answered["y"] + answered["height"] > height:
        faults.append("the commit that answers is out of sight")
    values = page.locator("dd")
    last = values.last.bounding_box()
    if not last or last["y"] > 2 * height:
        faults.append("a long value pushes the last one away")
    for value in values.all():
        if "absent" in (value.get_attribute("class") or ""):
            continue
        value.click()
        selected = page.evaluate("getSelection().toString()")
        shown = value.inner_text()
        if selected.strip() != shown.strip():
            faults.append(f"a click selects {selected[:80]!r} of {shown[:80]!r}")
    page.emulate_media(media="print")
    cut = page.evaluate("[...document.querySelectorAll('dd')].some(value => value.scrollHeight > value.clientHeight + 1)")
    if cut:
        faults.append("in print a value is cut off")
    page.emulate_media(media="screen")
    return faults


if __name__ == "__main__":
    main()
