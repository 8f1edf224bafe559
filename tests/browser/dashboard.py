"""The page of the admin port in a browser, on the server that its arguments name: ADMIN_PORT RESP_PORT.

The server asks for the password in the variable PASSWORD.

Every check has a bound and polls; the first that fails ends with its reason and status 1.
"""

import socket
import sys

from page import DESKTOP, PHONE, browser, page

PATIENCE_MS = 20_000
HOSTILE = [b"<script>alert(1)</script>", b'"><img src=x onerror=alert(1)>', b"line\nbreak", b"bad\xff\xfe"]


class Redis:
    """One RESP connection; replies are lines here, which is enough for what is asked."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.replies = self.socket.makefile("rb")

    def ask(self, *words, times=1):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        request = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        self.socket.sendall(request * times)
        for _ in range(times):
            line = self.replies.readline()
            if line.startswith(b"$") and line != b"$-1\r\n":
                self.replies.read(int(line[1:]) + 2)


def expect(is_so, what):
    if not is_so:
        sys.exit(f"FAILED: {what}")
    print(f"ok: {what}")


def clean(it, what):
    expect(it.complaints == [], f"{what}: the console stays empty: {it.complaints}")


def shown_html(it):
    return it.locator("main").inner_html()


def main(admin_port, resp_port):
    url = f"http://127.0.0.1:{admin_port}/"
    redis = Redis(resp_port)
    with browser() as chromium:
        with page(chromium, url, http_credentials={"username": "admin", "password": "wrong"}) as it:
            expect(it.answer.status == 401, "a wrong password gets nothing")

        with page(chromium, url) as it:
            it.get_by_text("There are no keys yet.").wait_for(timeout=PATIENCE_MS)
            it.evaluate("window.isTheSame = true")
            redis.ask("SET", "user:17:profile", "x")
            redis.ask("GET", "user:17:profile", times=500)
            for name in HOSTILE:
                redis.ask("SET", name, "x", times=50)
            hot = it.locator("td, th", has_text="user:17:profile").first
            hot.wait_for(timeout=PATIENCE_MS)
            expect(it.evaluate("window.isTheSame"), "a hot key comes up without a new page")
            for name in ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "line\\nbreak", "bad\\xff\\xfe"]:
                it.get_by_text(name, exact=True).first.wait_for(timeout=PATIENCE_MS)
            expect(it.locator("main script, main img").count() == 0, "hostile names are text")
            calls = it.locator("tr", has_text="GET").locator("td").first
            before = calls.inner_text()
            redis.ask("GET", "user:17:profile", times=500)
            it.wait_for_function(
                "before => [...document.querySelectorAll('tr')].some(row => row.innerText.startsWith('GET')"
                " && row.querySelector('td').innerText !== before)",
                arg=before,
                timeout=PATIENCE_MS,
            )
            expect(True, "figures change by themselves")
            it.locator("summary").click()
            it.locator("summary").focus()
            it.evaluate("() => { window.seen = document.querySelector('header'); }")
            it.wait_for_function("() => window.seen !== document.querySelector('header')", timeout=PATIENCE_MS)
            expect(it.locator("details[open]").count() == 1, "what was unfolded stays so")
            focused = it.evaluate("document.activeElement.tagName")
            expect(focused == "SUMMARY", f"the keyboard stays where it was: {focused}")
            names = it.locator("[role=img]").evaluate_all("all => all.map(it => it.getAttribute('aria-label'))")
            expect(all(len(name) > 20 for name in names), f"every plot has a name: {names}")
            tables = it.locator("table").evaluate_all(
                "all => all.every(it => it.caption && it.querySelector('thead th[scope=col]'))"
            )
            expect(tables, "every table has a caption and headers")
            clean(it, "with hostile names")
            strangers = [request for request in it.requests if not request.startswith(url)]
            expect(strangers == [] and len(it.requests) > 4, f"no request leaves the server: {strangers}")

        with page(chromium, url, viewport=PHONE, has_touch=True) as it:
            it.get_by_text("Hottest keys").first.wait_for(timeout=PATIENCE_MS)
            width = it.evaluate("document.documentElement.scrollWidth")
            expect(width <= PHONE["width"], f"a phone does not scroll to the side: {width}")
            clean(it, "on a phone")

        colors = []
        for scheme in ["light", "dark"]:
            with page(chromium, url, viewport=DESKTOP, color_scheme=scheme) as it:
                color = "it => [getComputedStyle(it).color, getComputedStyle(it).backgroundColor]"
                colors.append(it.locator("body").evaluate(color))
                clean(it, scheme)
        expect(colors[0][0] != colors[1][0] and colors[0][1] != colors[1][1], f"the dark differs: {colors}")

        with page(chromium, url, java_script_enabled=False) as it:
            it.get_by_text("user:17:profile").first.wait_for(timeout=PATIENCE_MS)
            first = len(it.requests)
            it.wait_for_event("load", timeout=PATIENCE_MS)
            expect(len(it.requests) > first, "without script it loads itself again")

        with page(chromium, url) as it:
            it.context.set_offline(True)
            it.get_by_text("The server has not answered for").wait_for(timeout=PATIENCE_MS)
            expect(it.locator("header").count() == 1, "a server that is gone is told, and its last figures stay")
    print("the page is well")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
