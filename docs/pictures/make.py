"""Makes the README's pictures and its film from the real page: `python -m docs.pictures.make` (needs Playwright and a chromium, and says so).
Names after it, as `clip film`, make only these.

Every picture is a screenshot of the page with the bundled checkpoints and examples; waiting is cut out of the film, nothing else is.
"""

from __future__ import annotations

import argparse
import io
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import numpy as np
from PIL import Image

from benchmarks.browser import PATIENCE, chromium, served

HERE = Path(__file__).resolve().parent
QUALITY, LARGEST = 82, 300_000          # of a WebP; bytes
FILM_SIZE, COLOURS, STEP = (960, 567), 128, 250      # pixels; of the palette all frames share; milliseconds a frame, and of holding still in multiples
LARGEST_FILM = 4_000_000
POINTER = """() => { const dot = document.createElement("div");
  dot.style.cssText = "position:fixed;z-index:9999;width:22px;height:22px;border-radius:50%;background:#e69f00cc;border:2px solid #fff;pointer-events:none;translate:-50% -50%";
  document.body.append(dot);
  addEventListener("mousemove", (event) => { dot.style.left = event.clientX + "px"; dot.style.top = event.clientY + "px"; }, true); }"""


def save(picture: bytes, name: str) -> None:
    """As WebP, with as much quality as fits."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    for quality in (QUALITY, 70, 55):
        image.save(HERE / name, quality=quality, method=6)
        if (HERE / name).stat().st_size < LARGEST:
            break
    print(name, image.size, (HERE / name).stat().st_size)


@contextmanager
def opened(browser, url: str, width: int, height: int, theme: str = "light", scale: int = 1) -> Iterator:
    """The page in a browser that has never been here, until the block ends."""
    page = browser.new_context(viewport={"width": width, "height": height}, device_scale_factor=scale, reduced_motion="reduce").new_page()
    page.set_default_timeout(1000 * PATIENCE)
    page.goto(f"{url}?__theme={theme}")
    page.get_by_role("button", name="Analyse", exact=True).wait_for()
    yield page
    page.context.close()


def put(page, name: str, value: float, shown: str) -> None:
    """Type a value into a slider's number field and wait until `shown` is there: what is struck out."""
    field = page.locator(f"#{name} input[type=number]")
    field.fill(str(value))
    field.press("Enter")
    page.locator(shown).first.wait_for()
    field.blur()
    page.wait_for_timeout(3000)             # the pictures under it are drawn last


def clip(page, title: str = "Happy: everything agrees") -> None:
    page.get_by_role("button", name=title).click()
    page.locator("#curve .js-plotly-plot .legend").wait_for()
    page.locator("#map .js-plotly-plot .heatmaplayer image").first.wait_for()


def post(page, title: str = "Conflict: bitter words, pretty cup") -> None:
    page.get_by_role("tab", name="Post").click()
    page.get_by_role("button", name=title).click()
    page.locator("#post-curve .js-plotly-plot .legend").wait_for()


def errors(page) -> None:
    """The bundled clips analysed."""
    page.get_by_role("tab", name="Errors").click()
    page.locator("#study-go").click()
    page.locator("#study-table tr[data-pick]").first.wait_for()


def worst(page) -> None:
    page.locator("#study-table button[data-pick^='item:']").first.click()
    page.locator("#study-item .msa-score").first.wait_for()
    page.locator("#study-curve .js-plotly-plot .legend").wait_for()


def top(page, place: str, above: int = 12) -> None:
    page.locator(place).evaluate(f"element => scrollTo(0, scrollY + element.getBoundingClientRect().top - {above})")
    page.wait_for_timeout(400)


def clip_still(browser, url: str) -> None:
    with opened(browser, url, 1280, 1760) as page:
        clip(page)
        put(page, "text", 0.6, "#strip s")
        save(page.screenshot(), "clip.webp")


def post_still(browser, url: str) -> None:
    with opened(browser, url, 1280, 1330) as page:
        post(page)
        put(page, "post-linked", 0.25, "#post-left s")
        save(page.screenshot(), "post.webp")


def errors_stills(browser, url: str) -> None:
    with opened(browser, url, 1280, 1330) as page:
        errors(page)
        worst(page)
        box = page.locator("#study-results").bounding_box()
        column = {"x": box["x"] - 12, "y": 0, "width": box["width"] + 24, "height": 1330}
        top(page, "#study-confusion", 60)
        save(page.screenshot(clip=column), "errors.webp")
        top(page, "#study-item")
        save(page.screenshot(clip=column), "worst.webp")


def phone_still(browser, url: str) -> None:
    with opened(browser, url, 390, 844, "dark", 2) as page:
        clip(page, "Conflict: glad words, sad face")
        put(page, "linked", 0.5, "#strip s")
        top(page, "#score")
        save(page.screenshot(), "phone.webp")


class Film:
    """Frames of a page, each with the milliseconds it stays."""

    def __init__(self, page):
        self.page, self.frames, self.at = page, [], (600, 300)
        page.evaluate(POINTER)
        page.mouse.move(*self.at)

    def shoot(self, milliseconds: int = STEP) -> None:
        image = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB").resize(FILM_SIZE, Image.Resampling.LANCZOS)
        self.frames.append((image, milliseconds))

    def go(self, x: float, y: float, steps: int = 3) -> None:
        """The pointer, seen on its way."""
        (x0, y0), self.at = self.at, (x, y)
        for k in range(1, steps + 1):
            self.page.mouse.move(x0 + (x - x0) * k / steps, y0 + (y - y0) * k / steps)
            self.shoot(STEP if k < steps else 2 * STEP)

    def click(self, place) -> None:
        place.scroll_into_view_if_needed()
        box = place.bounding_box()
        self.go(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        self.page.mouse.down()
        self.page.mouse.up()

    def scroll(self, place: str, steps: int = 3) -> None:
        way = self.page.locator(place).first.bounding_box()["y"] - 60
        for _ in range(steps):
            self.page.evaluate(f"scrollBy(0, {way / steps})")
            self.shoot()

    def drag(self, name: str, values, shown: str) -> None:
        """The slider, a value at a time, each with what it does."""
        field = self.page.locator(f"#{name} input[type=range]")
        for value in values:
            before, box = self.page.locator(shown).inner_html(), field.bounding_box()
            self.at = (box["x"] + 8 + value * (box["width"] - 16), box["y"] + box["height"] / 2)
            self.page.mouse.move(*self.at)
            self.page.mouse.down()
            self.page.mouse.up()
            self.page.wait_for_function("([place, before]) => document.querySelector(place).innerHTML !== before", arg=[shown, before])
            self.page.wait_for_timeout(600)
            self.shoot(2 * STEP)

    def save(self, name: str) -> None:
        """One palette for all, taken from all; a frame then only writes what has changed."""
        sheet = Image.fromarray(np.concatenate([np.asarray(image)[::3, ::3] for image, _ in self.frames]))
        palette = sheet.quantize(COLOURS, method=Image.Quantize.MEDIANCUT)
        frames = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image, _ in self.frames]
        frames[0].save(HERE / name, save_all=True, append_images=frames[1:], duration=[ms for _, ms in self.frames], loop=0, optimize=True)
        size = (HERE / name).stat().st_size
        print(name, FILM_SIZE, f"{sum(ms for _, ms in self.frames) / 1000:.1f} s", len(frames), "frames", size)
        if size > LARGEST_FILM:
            raise SystemExit(f"{name} has {size} bytes, more than {LARGEST_FILM}; fewer colours or a smaller size would do.")


def film(browser, url: str) -> None:
    """An example is clicked, its words are taken away, the maps change; a post; the errors of a set."""
    with opened(browser, url, 1280, 756) as page:              # so low that the sliders do not stay in sight and the maps have the room
        errors(page)                            # which takes half a minute that nobody wants to see
        page.get_by_role("tab", name="Clip").click()
        taking = Film(page)
        taking.shoot(2 * STEP)
        taking.click(page.get_by_role("button", name="Conflict: glad words, sad face"))
        page.locator("#curve .js-plotly-plot .legend").wait_for()
        page.evaluate("scrollTo(0, 0)")
        taking.shoot(5 * STEP)
        taking.drag("text", (0.2, 0.4, 0.6, 0.8, 1.0), "#strip")
        taking.drag("text", (0.5,), "#strip")
        taking.scroll("#msa-map")
        page.wait_for_timeout(600)
        taking.shoot(7 * STEP)
        page.evaluate("scrollTo(0, 0)")
        taking.click(page.get_by_role("tab", name="Post"))
        taking.click(page.get_by_role("button", name="Conflict: bitter words, pretty cup"))
        page.locator("#post-curve .js-plotly-plot .legend").wait_for()
        page.evaluate("scrollTo(0, 0)")
        taking.shoot(5 * STEP)
        taking.drag("post-missing-text", (0.4, 0.8), "#post-left")
        taking.scroll("#post-overlays")
        taking.shoot(6 * STEP)
        page.evaluate("scrollTo(0, 0)")
        taking.click(page.get_by_role("tab", name="Errors"))
        taking.scroll("#study-confusion")
        taking.shoot(4 * STEP)
        worst(page)
        top(page, "#study-item")
        taking.shoot(8 * STEP)
    taking.save("tour.gif")


PICTURES = {"clip": clip_still, "post": post_still, "errors": errors_stills, "phone": phone_still, "film": film}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m docs.pictures.make", description="Make the README's pictures from the real page.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these of {', '.join(PICTURES)}")
    names = parser.parse_args().names or list(PICTURES)
    if unknown := set(names) - set(PICTURES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; choose from {', '.join(PICTURES)}")
    with chromium() as browser, served() as url:
        for name in names:
            PICTURES[name](browser, url)


if __name__ == "__main__":
    main()
