"""Write the three screenshots of the README: `python tests/browser/readme_screenshots.py`."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from dashboard.app import build_app
from dashboard.server.server import launch
from dashboard.services.model_catalog import ModelCatalog

IMAGES_DIR = Path(__file__).parents[2] / "docs" / "images"
PAGE_WIDTH_PX, IMAGE_WIDTH_PX = 1200, 800
SCREENSHOTS = {  # name -> query, selector to wait for, and height of the page in pixels
    "why": ("?m=vit_tiny-imagenet&img=ex:lion", "#why-methods canvas", 900),
    "attention": (
        "?m=vit_tiny-imagenet&img=ex:lion&v=attention&p=3,5&l=8",
        "#attention-patches .viz-multiples canvas",
        900,
    ),
    "compare": ("?m=vit_tiny-imagenette&img=ex:tower&v=compare", "#compare-maps canvas", 900),
}


def main() -> None:
    """Write the screenshots with 256 colours each."""
    IMAGES_DIR.mkdir(exist_ok=True)
    app = build_app(ModelCatalog(), auto_trust=False)
    _, address, _ = launch(app, port=None, prevent_thread_lock=True, quiet=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (query, selector, height) in SCREENSHOTS.items():
            page = browser.new_page(viewport={"width": PAGE_WIDTH_PX, "height": height})
            page.goto(f"{address}{query}&__theme=light")
            page.wait_for_selector(selector, timeout=30_000)
            page.wait_for_timeout(3000)  # until images and fonts are loaded
            screenshot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            image = screenshot.resize(
                (IMAGE_WIDTH_PX, round(IMAGE_WIDTH_PX * screenshot.height / screenshot.width)), Image.Resampling.LANCZOS
            )
            image.quantize(256, dither=Image.Dither.NONE).save(IMAGES_DIR / f"{name}.png", optimize=True)
            print(f"{name}.png: {(IMAGES_DIR / f'{name}.png').stat().st_size / 1000:.0f} kB")
            page.close()
        browser.close()
    app.close(verbose=False)


if __name__ == "__main__":
    main()
