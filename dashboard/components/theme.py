"""The theme of the page: one accent colour, and the fonts that gradio ships."""

from __future__ import annotations

from pathlib import Path

from gradio import themes
from gradio.themes.utils.fonts import LocalFont

from dashboard.components.custom_component import read_component_styles

STYLE = Path(__file__).with_suffix(".css")


def build_theme() -> themes.Base:
    """Return the gradio theme: stone greys with orange as accent."""
    return themes.Base(
        primary_hue=themes.colors.orange,
        neutral_hue=themes.colors.stone,
        radius_size=themes.sizes.radius_lg,
        font=[  # regular and bold: the semibold files of gradio 6.31 lack most letters
            LocalFont("IBM Plex Sans", weights=(400, 700)),
            "ui-sans-serif",
            "system-ui",
            "sans-serif",
        ],
        font_mono=[LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"],
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="#161412",
        body_text_color="*neutral_900",
        body_text_color_dark="*neutral_100",
        background_fill_primary="white",
        background_fill_primary_dark="#1e1b19",
        background_fill_secondary="*neutral_100",
        background_fill_secondary_dark="#262220",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_shadow="none",
        block_padding="0px",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_400",
        block_title_text_color="*neutral_600",
        block_title_text_color_dark="*neutral_400",
        block_title_text_weight="400",
        block_title_text_size="*text_sm",
        border_color_primary="*neutral_200",
        border_color_primary_dark="#3a3532",
        input_background_fill="white",
        input_background_fill_dark="#1e1b19",
        input_border_width="1px",
        layout_gap="20px",
        color_accent="#c2410c",
        color_accent_soft="*primary_50",
        color_accent_soft_dark="#3a2217",
        link_text_color="#c2410c",
        link_text_color_dark="#fb923c",
    )


def read_css() -> str:
    """Return the CSS of the page's theme and that of all components."""
    return STYLE.read_text(encoding="utf-8") + read_component_styles()
