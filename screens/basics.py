"""What every screen uses: sizes, looks, small texts, and the widget that shows text."""
import math
import os
import re
import shlex
import subprocess

from textual.binding import Binding
from textual.content import Content
from textual.style import Style
from textual.widgets import Static

from runs import LIVE

SMALLEST_WIDTH = 60                              # columns and rows of a terminal to work in
SMALLEST_HEIGHT = 16
ROOMY = 76                                       # columns from which lines need not be cut short
WIDE = 112                                       # columns from which there is room for more beside it
KEY = "bold $text-accent"                        # how keys and titles look
DIM = "$foreground 60%"                          # and what matters less
BARS = "▁▂▃▄▅▆▇█"

COLORS = dict.fromkeys(LIVE, "success")          # of a run's state
COLORS.update(paused="warning", stalled="warning", stopped="warning", crashed="error", gone="error",
              done="primary")

SHAPE = """{preset} {level} on {data}
{n_layer} layers, {n_head} heads, {n_embd} wide
context {block_size}, vocabulary {vocab_size}
{parameters} weights, batch {batch_size}
"""


def hidden(keys, action, description, **more):
    "A key that the footer leaves out."
    return Binding(keys, action, description, show=False, **more)


def command_line(words):
    "Words -> a command as this system's shell reads it."
    if os.name == "nt":
        return subprocess.list2cmdline(words)
    return shlex.join(words)


def spark(values, width):
    "Numbers -> a line of little bars, the newest at the right."
    values = [v for v in values if v is not None]
    if not values or width < 1:
        return ""
    step = max(1.0, len(values) / width)
    picked = [values[int((i + 1) * step) - 1] for i in range(min(width, len(values)))]
    low = min(picked)
    span = max(picked) - low
    if not span:
        return BARS[3] * len(picked)
    return "".join(BARS[int((v - low) / span * 7.99)] for v in picked)


def bits(*parts):
    "Strings and (string, style) pairs, with None left out -> what a Words shows, never read as markup."
    return Content.assemble(*(part for part in parts if part))


def ends(width, left, right):
    "A line with something at both its ends; where it is too short for that, the left one is cut."
    left = bits(*left)
    right = bits(*right)
    room = max(0, width - right.cell_length)
    return left.truncate(room, pad=True) + right


def button(text, action, style=""):
    "Text that does something when it is clicked."
    return Content.styled(text, style).stylize(Style.from_meta({"@click": action}))


def number_of(text):
    "What is typed -> a number, or None."
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def written(value):
    "A value of the configuration as it is typed."
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if value == []:                              # of a field that may hold several
        return ""
    return str(value)


def as_flags(values):
    "A dict -> words of a command line."
    words = []
    for name, value in values.items():
        text = written(value)
        if text.startswith("-"):                 # alone it would be taken for a flag itself
            words.append(f"--{name}={text}")
        else:
            words += [f"--{name}", text]
    return words


def fit_for_a_name(text):
    "Whether a folder can have this name, on every system."
    fits = text.strip(". ") and len(text.encode()) <= 200    # bytes; most file systems have room for 255
    return bool(fits) and not re.search(r'[\\/:*?"<>|\0-\x1f]', text)


class Words(Static):
    "Text that is laid out anew only if it changed: to do so each time costs more than all else."

    def __init__(self, id=None):
        super().__init__(id=id, markup=False)
        self.parts = None

    def put(self, *parts):
        "Show these strings and (string, style) pairs, unless they are shown already."
        if parts != self.parts:
            self.parts = parts
            self.renew(bits(*parts))

    def row_of(self, key, value):
        "The first row with text that has this in its style's meta."
        for y in range(self.size.height):
            for segment in self.render_line(y):
                if segment.style and segment.style.meta.get(key) == value:
                    return y
        return 0

    def renew(self, shown):
        self.update(shown, layout=False)
        self.fit()
        self.call_after_refresh(self.fit)        # of two that come close Textual may forget one

    def fit(self):
        "Lay the screen out anew if this text takes another height than it has."
        width, height = self.size
        if not width or self.visual.get_height(self.styles, width) != height:
            self.refresh(layout=True)


def best_loss(run):
    best = run.best
    return best.val if best else None
