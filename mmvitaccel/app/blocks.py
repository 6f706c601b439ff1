"""The layout of the page; this module imports gradio."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from mmvitaccel.app.page import MILLISECONDS, SHARE, Page

TITLE = "mmvitaccel: a budget for every frame"
CSS = """
.mistake { color: #b00020; font-weight: 600; }
#costs td { padding: 0.1em 0.4em; text-align: right; font-size: 0.85em; }
#costs td:first-child { text-align: left; }
"""
_SLIDERS = {
    SHARE: dict(minimum=5, maximum=100, value=50, label=SHARE),
    MILLISECONDS: dict(minimum=5, maximum=500, value=100, label=MILLISECONDS),
}
_QUIET = dict(show_progress="hidden", api_visibility="private")
_UPLOAD = """<label>upload your own clip
<input id="upload" type="file" accept="video/*,.mkv,.avi" data-token="${value}"></label>"""
# gradio's own upload stores files of all sessions in one folder and serves them by URL
_UPLOAD_SCRIPT = """
element.addEventListener('change', async (event) => {
  const input = event.target, file = input.files && input.files[0];
  if (!file) return;
  const headers = {'X-Name': encodeURIComponent(file.name)};
  try {
    await fetch('./clip/' + input.dataset.token, {method: 'PUT', body: file, headers});
  } finally {
    input.value = '';
    trigger('submit');
  }
});
"""


def theme() -> gr.themes.Base:
    """A theme with system fonts only, so that none is downloaded."""
    return gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def build(page: Page, most_at_once: int) -> gr.Blocks:
    """Lay the page out.

    Args:
        page: Handles the page's events.
        most_at_once: Most clips that are played at the same time.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        token = gr.State("")
        gr.HTML(f"<h2>{TITLE}</h2>")
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                given = _controls(page)
                shown = {name: gr.HTML() for name in ("costs", "notice", "table")}
            with gr.Column(scale=3, min_width=480):
                shown["picture"] = gr.HTML()
                with gr.Row():
                    for name in ("milliseconds", "macs"):
                        shown[name] = gr.HTML(min_width=240)
        _wire_session(blocks, page, token, given, shown)
        _wire_run(page, token, given, shown, most_at_once)
    return blocks


def _controls(page: Page) -> dict[str, Any]:
    """The page's inputs and buttons, by name."""
    clips, models = list(page.clips), list(page.player.models)
    units = [SHARE, MILLISECONDS]
    given = dict(
        clip=gr.Dropdown(clips, value=clips[0], label="clip", elem_id="clip"),
        upload=gr.HTML("", html_template=_UPLOAD, js_on_load=_UPLOAD_SCRIPT),
        model=gr.Dropdown(models, value=models[0], label="model", elem_id="model"),
        unit=gr.Radio(units, value=SHARE, label="budget", elem_id="unit"),
        slider=gr.Slider(**_SLIDERS[SHARE], step=1, elem_id="budget"),
        beside=gr.Checkbox(True, label="dense beside it", elem_id="beside"),
    )
    with gr.Row():
        given["start"] = gr.Button("play", variant="primary", elem_id="play")
        given["stop"] = gr.Button("stop", elem_id="stop")
    return given


def _wire_session(
    blocks: gr.Blocks, page: Page, token: gr.State, given: dict[str, Any], shown: dict[str, Any]
) -> None:
    """Connect the events of loading, closing and uploading."""

    def begin(request: gr.Request) -> tuple[str, str, str]:
        found, said = page.begin(request)
        return found, found, said

    def end(request: gr.Request) -> None:
        page.end(request)

    def brought(token: str, request: gr.Request) -> tuple[Any, str]:
        titles, first, said = page.brought(token, request)
        return gr.Dropdown(choices=titles, value=first), said

    blocks.load(begin, None, [token, given["upload"], shown["notice"]], **_QUIET)
    blocks.unload(end)
    given["upload"].submit(brought, token, [given["clip"], shown["notice"]], **_QUIET)


def _wire_run(
    page: Page, token: gr.State, given: dict[str, Any], shown: dict[str, Any], most_at_once: int
) -> None:
    """Connect the events of the slider and the buttons."""

    def steer(token: str, unit: str, value: float, request: gr.Request) -> str:
        return page.steer(token, unit, value, request)

    def halt(token: str, request: gr.Request) -> str:
        return page.stop(token, request)

    def play(token, clip, model, unit, value, beside, request: gr.Request) -> Iterator[dict]:
        for seen in page.play(token, clip, model, unit, value, beside, request):
            yield {shown[name]: content for name, content in seen.items()}

    unit, slider = given["unit"], given["slider"]
    steered = (steer, [token, unit, slider], shown["notice"])
    unit.change(lambda name: gr.Slider(**_SLIDERS[name]), unit, slider, **_QUIET).then(
        *steered, **_QUIET
    )
    slider.change(*steered, trigger_mode="always_last", **_QUIET)
    given["stop"].click(halt, token, shown["notice"], **_QUIET)
    taken = [given[name] for name in ("clip", "model", "unit", "slider", "beside")]
    # Pressing play again starts a new run, and the session ends the first one
    given["start"].click(
        play,
        [token, *taken],
        list(shown.values()),
        concurrency_limit=most_at_once,
        trigger_mode="multiple",
        **_QUIET,
    )
