"""How the page looks, with the fonts of whoever looks at it."""

from __future__ import annotations

import gradio as gr
from gradio.themes.utils.fonts import Font

_FONTS = ("system-ui", "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "sans-serif")

_FIXED = ("ui-monospace", "Consolas", "monospace")

_COLOURS = {
    "body_background_fill": "#f6f8fa",
    "body_text_color_subdued": "#57606a",
    "body_text_color_subdued_dark": "#a9b4c0",
    "block_info_text_color": "#57606a",
    "block_info_text_color_dark": "#a9b4c0",
    "block_label_text_color": "#1d2733",
    "block_label_text_color_dark": "#e6edf3",
    "block_title_text_color": "#1d2733",
    "block_title_text_color_dark": "#e6edf3",
    "block_title_text_weight": "600",
    "input_placeholder_color": "#6b7580",
    "input_placeholder_color_dark": "#a9b4c0",
    "link_text_color": "#154d93",
    "link_text_color_dark": "#8ec0ff",
    "button_primary_background_fill": "#1a5fb4",
    "button_primary_background_fill_hover": "#154d93",
    "button_primary_text_color": "#ffffff",
    "button_primary_background_fill_dark": "#1a5fb4",
    "button_primary_background_fill_hover_dark": "#2a72cc",
}


def theme() -> gr.themes.Base:
    """Nothing in it is fetched from anywhere."""
    return gr.themes.Default(
        primary_hue="blue",
        secondary_hue="blue",
        neutral_hue="slate",
        radius_size="md",
        text_size="md",
        font=[Font(name) for name in _FONTS],
        font_mono=[Font(name) for name in _FIXED],
    ).set(**_COLOURS)
