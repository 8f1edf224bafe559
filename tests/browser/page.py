"""What the tests and the screenshots share: a browser on the page of a server's admin port."""

import contextlib
import os

from playwright.sync_api import sync_playwright

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 375, "height": 812}
PASSWORD = os.environ.get("PASSWORD")


@contextlib.contextmanager
def browser():
    with sync_playwright() as playwright:
        # Without the sandbox, which root does not get.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextlib.contextmanager
def page(chromium, url, viewport=DESKTOP, **options):
    """The page, once it is loaded. What it complains about and what it asks for are in its lists."""
    if PASSWORD:
        options = {"http_credentials": {"username": "admin", "password": PASSWORD}, **options}
    context = chromium.new_context(viewport=viewport, **options)
    it = context.new_page()
    it.complaints, it.requests = [], []
    it.on("console", lambda message: it.complaints.append(f"{message.type}: {message.text}"))
    it.on("pageerror", lambda error: it.complaints.append(f"error: {error}"))
    it.on("dialog", lambda dialog: it.complaints.append(f"dialog: {dialog.message}"))
    it.on("request", lambda request: it.requests.append(request.url))
    it.answer = it.goto(url, wait_until="load")
    yield it
    context.close()
