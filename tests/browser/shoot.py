"""Pictures of the page: URL DIRECTORY."""

import pathlib
import sys

from page import DESKTOP, PHONE, browser, page
from PIL import Image

PICTURES = {
    "dashboard": {"viewport": DESKTOP},
    "dashboard-dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "dashboard-phone": {"viewport": PHONE},
}

# How much of the first picture the README shows, from its top on.
TOP_PIXELS = 1040

# A picture that people have to fetch with the documents.
BYTES_MAX = 150_000


def main(url, directory):
    with browser() as chromium:
        for name, options in PICTURES.items():
            path = pathlib.Path(directory, f"{name}.png")
            with page(chromium, url, **options) as it:
                it.locator("figure, .plot").first.wait_for()
                it.screenshot(path=path, full_page=True)
            for colors in [128, 64, 32]:
                Image.open(path).convert("RGB").quantize(colors).save(path, optimize=True)
                if path.stat().st_size < BYTES_MAX:
                    break
            print(path, path.stat().st_size)
    whole = Image.open(pathlib.Path(directory, "dashboard.png"))
    whole.crop((0, 0, whole.width, TOP_PIXELS)).save(pathlib.Path(directory, "dashboard-top.png"), optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:3])
