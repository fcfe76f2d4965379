"""Make the pictures of README.md: a real first run in the terminal app, from choosing a preset to a chat.

    python docs/pictures.py              docs/*.png and docs/first-run.gif; takes as long as the preset does
    python docs/pictures.py --preset micro --data my.txt --to /tmp/pictures

Needs a Chromium or Chrome, which turns what the app draws into pixels, and Pillow (pip install pillow), which
makes them a moving picture. The run is made in a temporary folder, with the data/ of the folder one is in.
"""
import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import tui                                       # noqa: E402 (it lies beside this folder)
from runs import LIVE                            # noqa: E402
from screens.inside import Inside                # noqa: E402
from screens.lapse import TimeLapse              # noqa: E402
from textual.widgets import Input                # noqa: E402

BROWSERS = "chromium", "chromium-browser", "google-chrome", "chrome", "msedge", "microsoft-edge"
ON_A_MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
COLUMNS, ROWS = 110, 32                          # of the terminal
WIDTH, HEIGHT = 1361, 831                        # of a picture of such a terminal, as Textual draws it
MOVING_WIDTH = 850                               # and of the moving one: nobody waits for it
COLORS = 64
WATCHED = 30                                     # frames while it trains
A_SHEET = 12                                     # frames that the browser draws at once

Frame = namedtuple("Frame", "svg seconds")


class Camera:
    "What the app showed, one after the other, and the pictures that are kept by name."

    def __init__(self, app, pilot):
        self.app = app
        self.pilot = pilot
        self.frames = []
        self.stills = {}

    async def until(self, true, seconds=120):
        for _ in range(10 * seconds):
            await self.pilot.pause(0.1)
            if true():
                return
        raise SystemExit(f"error: waited {seconds} s in vain; the app shows:\n{self.app.screen}")

    async def take(self, seconds, name=None):
        "A frame that is shown so long; with a name also a picture of its own."
        await self.pilot.pause(0.1)
        frame = Frame(self.app.export_screenshot(title="python tui.py"), seconds)
        self.frames.append(frame)
        if name:
            self.stills[name] = frame.svg

    async def press(self, *keys, seconds):
        for key in keys:
            await self.pilot.press(key)
            await self.take(seconds)


async def first_run(camera, preset, data):
    "Choose a preset, watch it learn, see what it said at each step, talk to it."
    app = camera.app
    pilot = camera.pilot
    await camera.until(lambda: app.catalog and app.page.query("#run"))
    if data:
        app.page.query_one("#data", Input).value = data
    await camera.take(1.2)
    await camera.press("down", "down", "down", seconds=0.5)  # a look at larger ones
    names = list(app.catalog.presets)
    while app.page.preset != preset:
        is_above = names.index(preset) < names.index(app.page.preset)
        await camera.press("up" if is_above else "down", seconds=0.25)
    await camera.take(0.8)
    await pilot.press("f6")
    await camera.until(lambda: app.page.looked_at)
    await camera.take(1.5)
    await pilot.press("escape", "enter")
    await camera.take(0.8)
    await pilot.press("ctrl+s")
    await watched(camera)
    await lapse(camera)
    await chat(camera)


async def watched(camera):
    app = camera.app
    await camera.until(lambda: app.chosen)
    run = app.chosen
    await camera.take(0.6)
    await camera.until(lambda: run.start and run.rows, 600)
    shown = -1
    while run.state in LIVE:
        await camera.pilot.pause(0.2)
        if run.step - shown >= run.start["max_iters"] / WATCHED:
            shown = run.step
            await camera.take(0.15)
    if run.state != "done":
        raise SystemExit("error: it did not train:\n" + "\n".join(run.lines()[-5:]))
    await camera.take(1.5)


async def lapse(camera):
    "The time-lapse: from the first sample to the last."
    await camera.pilot.press("t")
    shown = camera.app.page.query_one(TimeLapse)
    await camera.until(lambda: shown.words)
    await camera.pilot.press("home")
    await camera.take(0.8)
    for _ in shown.samples[1:]:
        await camera.press("right", seconds=0.45)
    await camera.take(1.5, "lapse")
    await camera.pilot.press("escape")


async def chat(camera):
    "A text that is begun and gone on with, and what the model thought of a token."
    app = camera.app
    pilot = camera.pilot
    await pilot.press("c")
    await camera.until(lambda: app.page.ready)
    app.page.query_one("#seed").value = "3"      # the same words each time
    for letters in "Hol", "mes", ["space", *"said"]:
        await pilot.press(*letters)
        await camera.take(0.25)
    await pilot.press("enter")
    await camera.until(lambda: app.page.turns and not app.page.busy)
    await camera.take(2.5)
    await pilot.press("ctrl+l")
    await camera.take(1.5)
    await pilot.press("f7")
    turn = app.page.turns[-1]
    app.page.point(turn, len(turn.tokens) - 8)   # before it stands much to look at
    await camera.until(lambda: app.page.query_one(Inside).found)
    await camera.take(0.6)
    await camera.press(*["right"] * 4, seconds=0.6)
    await camera.take(2.5, "chat")


# ---- from what a terminal shows to pixels ------------------------------------------------------------------

def browser():
    found = [shutil.which(name) for name in BROWSERS]
    if Path(ON_A_MAC).exists():
        found.append(ON_A_MAC)
    found = [path for path in found if path]
    if not found:
        raise SystemExit(f"error: no browser is here; any of these will do: {', '.join(BROWSERS)}")
    return found[0]


def draw(svgs, width, path):
    "Pictures of this width, one below the other, as one PNG. -> the height of each"
    height = round(HEIGHT * width / WIDTH)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        lines = ["<style>body { margin: 0 } img { display: block }</style>"]
        for i, svg in enumerate(svgs):
            (Path(folder) / f"{i}.svg").write_text(svg, encoding="utf-8")
            lines.append(f"<img src='{i}.svg' width={width} height={height}>")
        page.write_text("\n".join(lines), encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                 "--force-device-scale-factor=1",
                 f"--user-data-dir={folder}/profile", f"--window-size={width},{height * len(svgs)}",
                 f"--screenshot={path}"]
        subprocess.run([browser(), *flags, page.as_uri()], capture_output=True, timeout=300, check=True)
    return height


def moving_picture(frames, path):
    "A GIF of the frames; only what changes from one to the next is stored."
    try:
        from PIL import Image
    except ImportError:
        raise SystemExit("error: a moving picture takes Pillow: pip install pillow") from None
    images = []
    for first in range(0, len(frames), A_SHEET):
        part = frames[first:first + A_SHEET]
        with tempfile.TemporaryDirectory() as folder:
            sheet = Path(folder) / "sheet.png"
            height = draw([frame.svg for frame in part], MOVING_WIDTH, sheet)
            with Image.open(sheet) as opened:
                pixels = opened.convert("RGB")
        for i in range(len(part)):
            images.append(pixels.crop((0, i * height, MOVING_WIDTH, (i + 1) * height)))
    some = images[::5] + images[-3:]             # which have all colours, those of the X-ray, too
    sample = Image.new("RGB", (MOVING_WIDTH, len(some) * height))
    for i, image in enumerate(some):
        sample.paste(image, (0, i * height))
    palette = sample.quantize(COLORS, dither=Image.Dither.NONE)
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    durations = [round(1000 * frame.seconds) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=False)


async def film(preset, data):
    "-> a Camera with all that was taken"
    app = tui.Tui(Path("runs"))
    async with app.run_test(size=(COLUMNS, ROWS)) as pilot:
        camera = Camera(app, pilot)
        await first_run(camera, preset, data)
    return camera


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="nano", help="what is trained [nano]")
    parser.add_argument("--data", help="a text file, or the name of a text [the preset's]")
    parser.add_argument("--to", default=str(HERE), metavar="FOLDER", help="where they go [docs]")
    asked = parser.parse_args()
    browser()                                    # said now, not after the training
    to = Path(asked.to).resolve()
    to.mkdir(parents=True, exist_ok=True)
    data = Path("data").resolve()
    text = asked.data
    if text and Path(text).is_file():
        text = str(Path(text).resolve())
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)                         # so that the app finds no other runs
        Path("gpt.py").symlink_to(HERE.parent / "gpt.py")
        if data.is_dir():
            Path("data").symlink_to(data)
        camera = asyncio.run(film(asked.preset, text))
        os.chdir(HERE)
    for name, svg in camera.stills.items():
        draw([svg], WIDTH, to / f"{name}.png")
    moving_picture(camera.frames, to / "first-run.gif")
    for path in [*(to / f"{name}.png" for name in camera.stills), to / "first-run.gif"]:
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
