"""Make the three screenshots of the README: `python tests/browser/readme_screenshots.py`."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from dashboard.app import build_app, launch
from dashboard.services.model_catalog import ModelCatalog

PICTURES = Path(__file__).parents[2] / "docs" / "images"
WIDTH, SHOWN = 1200, 800  # pixels of the page, and of the picture
SHOTS = {  # name -> address, what must be there, and how much of the page's height is shown
    "why": ("?m=vit_tiny-imagenette&img=ex:tower", "#why-methods canvas", 900),
    "attention": (
        "?m=vit_tiny-imagenette&img=ex:tower&v=attention&p=8,7",
        "#attention-patches .viz-multiples canvas",
        900,
    ),
    "compare": ("?m=vit_tiny-imagenette&img=ex:tower&v=compare", "#compare-maps canvas", 900),
}


def main() -> None:
    """Write the pictures, each in 256 colours of its own."""
    PICTURES.mkdir(exist_ok=True)
    app = build_app(ModelCatalog())
    _, address, _ = launch(app, port=None, prevent_thread_lock=True, quiet=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (query, wanted, height) in SHOTS.items():
            page = browser.new_page(viewport={"width": WIDTH, "height": height})
            page.goto(f"{address}{query}&__theme=light")
            page.wait_for_selector(wanted, timeout=30_000)
            page.wait_for_timeout(3000)  # until pictures and fonts stand still
            whole = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            small = whole.resize((SHOWN, round(SHOWN * whole.height / whole.width)), Image.Resampling.LANCZOS)
            small.quantize(256, dither=Image.Dither.NONE).save(PICTURES / f"{name}.png", optimize=True)
            print(f"{name}.png: {(PICTURES / f'{name}.png').stat().st_size / 1000:.0f} kB")
            page.close()
        browser.close()
    app.close(verbose=False)


if __name__ == "__main__":
    main()
