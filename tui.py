"""tui.py: choose a preset, watch it learn, compare runs and talk to the result, in the terminal.

    python tui.py                       choose a preset and train it
    python tui.py runs/NAME             watch that run, whoever started it
    python tui.py --theme gruvbox       any theme of Textual; ctrl+p changes it, and it is remembered
    textual serve "python tui.py"       the same in a browser (pip install textual-dev)

A run's folder is all it reads and writes. Training is `gpt.py train`, a process of its own that outlives
this one; talking is `gpt.py chat --jsonl`. Neither torch nor gpt.py is imported: so it starts at once,
watches runs where there is only textual, and a crash over there is a message here.
"""
import argparse
import array
import asyncio
import bisect
import contextlib
import csv
import gc
import html
import io
import itertools
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from functools import partial
from pathlib import Path

from runs import (
    AXES, LIVE, METRICS, Run, ago, along, clean, clock, differing, find_runs, fixed, in_words, loss_points,
    number, plain_file, short, size, smooth, val_points,
)

try:
    from rich.cells import cell_len
    from rich.segment import Segment, Segments
    from rich.text import Text
    from textual import on, work
    from textual.actions import parse as parse_action
    from textual.app import App, SystemCommand
    from textual.binding import Binding
    from textual.containers import Horizontal, Vertical, VerticalScroll
    from textual.content import Content
    from textual.events import MouseScrollDown, MouseScrollUp
    from textual.message import Message
    from textual.reactive import reactive
    from textual.screen import ModalScreen, Screen
    from textual.style import Style
    from textual.widget import Widget
    from textual.widgets import (
        Button, DataTable, Footer, Input, Label, OptionList, Static, TextArea,
    )
    from textual.widgets.option_list import Option
except ImportError as e:
    raise SystemExit(f"error: tui.py needs textual ({e}): pip install textual") from None

HERE = Path(__file__).resolve().parent
SMALLEST_WIDTH = 60                              # columns and rows of a terminal to work in
SMALLEST_HEIGHT = 16
ROOMY = 76                                       # columns from which lines need not be cut short
WIDE = 112                                       # columns from which there is room for more beside it
KEY = "bold $text-accent"                        # how keys and titles look
DIM = "$foreground 60%"                          # and what matters less

COLORS = dict.fromkeys(LIVE, "success")          # of a run's state
COLORS.update(paused="warning", stalled="warning", stopped="warning", crashed="error", gone="error",
              done="primary")


def hidden(keys, action, description, **more):
    "A key that the footer leaves out."
    return Binding(keys, action, description, show=False, **more)


def command_line(words):
    "Words -> a command as this system's shell reads it."
    if os.name == "nt":
        return subprocess.list2cmdline(words)
    return shlex.join(words)


# ---- text --------------------------------------------------------------------------------------------------

BARS = "▁▂▃▄▅▆▇█"


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
        return float(text)
    except ValueError:
        return None


def written(value):
    "A value of the configuration as it is typed."
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
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
    return bool(text.strip(". ")) and not re.search(r'[\\/:*?"<>|\0-\x1f]', text)


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


# ---- the chart ---------------------------------------------------------------------------------------------

# look: line, strong (thicker), band or marks; style: a name of Chart's, or "0" to "5", a run's among others
Curve = namedtuple("Curve", "name style points look", defaults=["line"])
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a braille character, by row and column
BRAILLE = "utf" in (sys.stdout.encoding or "").lower() and os.environ.get("TERM") != "linux"
ENOUGH_POINTS = 10                               # of a curve, from which its start may leave the picture
HUES = "primary", "accent", "success", "error", "warning", "secondary"  # of runs laid over one another
LETTERS = "abcdef"                               # which tell these apart without colour


class Canvas:
    "Dots, 2 x 4 in each cell, and letters. A cell has one colour: what is drawn later takes the whole cell."

    def __init__(self, width, height):
        self.width = width
        self.height = height
        self.dots = [0] * (width * height)
        self.owner = [None] * (width * height)
        self.marks = {}                          # cell: (letter, style)

    def dot(self, x, y, style):
        if x < 0 or y < 0 or x >= 2 * self.width or y >= 4 * self.height:
            return                               # outside
        cell = y // 4 * self.width + x // 2
        if self.owner[cell] is not style:
            self.owner[cell] = style
            self.dots[cell] = 0
        self.dots[cell] |= DOTS[y % 4][x % 2]

    def line(self, start, end, style):
        x, y = start
        across = end[0] - x
        down = end[1] - y
        n = max(abs(across), abs(down), 1)
        for i in range(n + 1):
            self.dot(x + across * i // n, y + down * i // n, style)

    def mark(self, x, y, letter, style):
        if 0 <= x < 2 * self.width and 0 <= y < 4 * self.height:
            self.marks[y // 4 * self.width + x // 2] = letter, style

    def drawn(self, cell):
        "What stands in a cell, (text, style), or None."
        if cell in self.marks:
            return self.marks[cell]
        if not self.dots[cell]:
            return None
        if not BRAILLE:
            return "•", self.owner[cell]
        return chr(0x2800 + self.dots[cell]), self.owner[cell]


class Frame(namedtuple("Frame", "x0 x1 low high width height")):
    "The part of the plane that a canvas shows, and where a value lies on it: dots from left and top."

    def across(self, x):
        return int((x - self.x0) / (self.x1 - self.x0) * (2 * self.width - 1) + 0.5)

    def down(self, y):
        dots = int((self.high - y) / (self.high - self.low) * (4 * self.height - 1) + 0.5)
        return max(-9, min(4 * self.height + 9, dots))  # far above or below is all the same


def thinned(points, column_of):
    "Of many points in a column of dots: the lowest and the highest, or how far the band reaches."
    columns = {}
    for point in points:
        columns.setdefault(column_of(point[0]), []).append(point)
    for found in columns.values():
        is_band = len(found[0]) > 2
        if len(found) < 3:
            yield from found
        elif is_band:
            x, y, *_ = found[0]
            yield x, y, max(p[2] for p in found), min(p[3] for p in found)
        else:
            lowest = min(found, key=lambda p: p[1])
            highest = max(found, key=lambda p: p[1])
            yield from sorted((lowest, highest))


def three_digits(v):
    return short(v) if v >= 1 else f"{v:.3g}"


def log_ticks(low, high, most):
    "Round numbers between two powers of ten; the densest choice of which there are at most so many."
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in (1, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3), (1,):
        candidates = [step * 10.0 ** e for e in exponents for step in steps]
        found = [v for v in candidates if low <= v <= high]
        if len(found) <= most:
            break
    return found


def ticks(low, high, most, log):
    "Round numbers between low and high, and a function that writes them."
    if log and high > 4 * low > 0:
        return log_ticks(low, high, most), three_digits
    unit = 10 ** math.floor(math.log10(max(high - low, 1e-12) / max(1, most)))
    step = next(unit * s for s in (1, 2, 5, 10) if (high - low) / (unit * s) <= most)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    found = [min(max(i * step, low), high) for i in range(first, last + 1)]
    if high >= 10_000:
        return found, short
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return found, f"{{:,.{decimals}f}}".format


def axis(low, high, most, log):
    "Where the ticks of an axis are, and what is written there; a logarithmic one is in powers of ten."
    if not log:
        found, form = ticks(low, high, most, log)
        return [(v, form(v)) for v in found]
    found, form = ticks(10 ** low, 10 ** high, most, log)
    return [(math.log10(v), form(v)) for v in found]


class Chart(Widget, can_focus=True):
    "Curves in braille. Zoom and place stay when new points come; a view that reaches the end follows it."

    DEFAULT_CSS = """
    Chart {
        height: 1fr; min-height: 5; padding: 0 1 0 0; text-align: center;
        &:focus { background-tint: $foreground 2%; }
        & > .chart--label { color: $text-muted; }
        & > .chart--grid { color: $foreground 12%; }
        & > .chart--raw { color: $primary 45%; }
        & > .chart--train { color: $text-primary; text-style: bold; }
        & > .chart--val { color: $text-accent; text-style: bold; }
        & > .chart--best { color: $text-success; text-style: bold; }
    }
    """ + "".join(f"Chart > .chart--{i} {{ color: $text-{hue}; }}\n" for i, hue in enumerate(HUES))
    STYLES = "label", "grid", "raw", "train", "val", "best", *"012345"
    COMPONENT_CLASSES = {f"chart--{name}" for name in STYLES}
    LEFT = 6                                     # columns for the numbers at the axis
    SIGNS = {"line": "━", "strong": "━", "marks": "●", "band": "▒"}  # of a curve's look
    BINDINGS = [
        hidden("plus,equals_sign", "zoom(0.5)", "Zoom in"),
        hidden("minus", "zoom(2)", "Zoom out"),
        hidden("0", "reset", "All"),
        hidden("left", "pan(-0.2)", "Move left"),
        hidden("right", "pan(0.2)", "Move right"),
        hidden("comma", "read(-1)", "Read left"),
        hidden("full_stop", "read(1)", "Read right"),
    ]
    log_x = reactive(False)
    log_y = reactive(False)
    cursor = reactive(None)                      # the column under the mouse
    view = reactive(None)                        # (first, last) shown; last is None where it follows the end

    def __init__(self, empty="", **more):
        super().__init__(**more)
        self.curves = []
        self.best = None                         # the point with the star
        self.unit = ""                           # of the x axis
        self.empty = empty                       # what is said where there are no points

    def plot(self, curves, best=None, unit=""):
        self.curves = [curve for curve in curves if curve.points]
        self.best = best
        if unit != self.unit:
            self.unit = unit
            self.action_reset()
        self.refresh()

    # what is seen

    def scaled(self, points):
        "Points as the axes have them; the view is on these scales, too."
        if self.log_x:
            points = [(math.log10(p[0]), *p[1:]) for p in points if p[0] > 0]
        if self.log_y:
            points = [(p[0], *(math.log10(max(y, 1e-9)) for y in p[1:])) for p in points]
        return points

    def range(self):
        xs = []
        for curve in self.curves:
            few = self.scaled([*curve.points[:2], curve.points[-1]])
            xs.extend(point[0] for point in few)
        low = min(xs, default=0)
        high = max(xs, default=1)
        if high == low:                          # ten, since steps are whole numbers
            high = low + max(10, abs(low) * 1e-6)
        return low, high

    def span(self):
        low, high = self.range()
        if not self.view:
            return low, high
        first, last = self.view
        return max(first, low), high if last is None else last

    def show(self, first, last):
        "Let this part be seen, or what of it there is."
        low, high = self.range()
        width = min(max(last - first, (high - low) / 2000), high - low)
        first = min(max(first, low), high - width)
        if width == high - low:
            self.view = None
        elif first + width >= high - 1e-9:
            self.view = first, None
        else:
            self.view = first, first + width

    def action_zoom(self, factor, at=None):
        "at: the place that stays, from 0 to 1; without one the end or, in a part, its middle."
        first, last = self.span()
        if at is None:
            at = 0.5 if self.view else 1
        fixed_x = first + at * (last - first)
        self.show(fixed_x - (fixed_x - first) * factor, fixed_x + (last - fixed_x) * factor)

    def action_pan(self, share):
        first, last = self.span()
        way = share * (last - first)
        self.show(first + way, last + way)

    def action_reset(self):
        self.view = None
        self.cursor = None

    def watch_log_x(self):
        self.action_reset()

    def action_read(self, step):
        last = self.size.width - self.LEFT - 1
        here = last if self.cursor is None else self.cursor
        self.cursor = max(0, min(last, here + step))

    def on_leave(self):
        self.cursor = None

    def on_mouse_move(self, event):
        if event.button and event.delta_x:
            self.action_pan(-event.delta_x / max(1, self.size.width - self.LEFT))
            return
        column = event.x - self.LEFT
        self.cursor = column if column >= 0 else None

    @on(MouseScrollUp)
    @on(MouseScrollDown)
    def wheel(self, event):
        event.stop()
        at = (event.x - self.LEFT) / max(1, self.size.width - self.LEFT)
        factor = 0.8 if isinstance(event, MouseScrollUp) else 1.25
        self.action_zoom(factor, at)

    # drawing

    def render(self):
        width = self.size.width - self.LEFT
        height = self.size.height - 1
        if width < 8 or height < 3 or not self.curves:
            text = "" if self.curves else self.empty
            return bits("\n" * (height // 2), (text, "$text-muted"))
        styles = {name: self.get_component_rich_style(f"chart--{name}") for name in self.STYLES}
        curves = [curve._replace(points=self.scaled(curve.points)) for curve in self.curves]
        frame = self.frame(curves, width, height)
        canvas = Canvas(width, height)
        for curve in curves:
            self.draw(canvas, frame, curve, styles[curve.style])
        if self.best:
            for x, y in self.scaled([self.best]):
                canvas.mark(frame.across(x), frame.down(y), "★", styles["best"])
        lines = self.lines(canvas, self.y_axis(frame), styles)
        legend = self.legend(frame, styles)
        length = sum(len(text) for text, _ in legend)
        if length < width:
            lines[0][1 + width - length:] = legend
        lines.append([(self.x_axis(frame), styles["label"])])
        return self.segments(lines)

    def frame(self, curves, width, height):
        "What is shown: the part that was zoomed to, and as high as its points need."
        x0, x1 = self.span()
        calm = x0
        if not self.log_x and not self.view:
            calm = x0 + 0.02 * (x1 - x0)
        reaches = [self.reach(curve, x0, calm, x1) for curve in curves]
        reaches = [reach for reach in reaches if reach] or [(0, 1)]
        low = min(reach[0] for reach in reaches)
        high = max(reach[1] for reach in reaches)
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 1
        return Frame(x0, x1, low - margin, high + margin, width, height)

    def reach(self, curve, x0, calm, x1):
        """-> the lowest and the highest value to be seen of a curve, or None. Its first steps are far above
        all that follows, so they may leave through the top, unless there is little else."""
        ys = sorted(p[1] for p in curve.points if calm <= p[0] <= x1)
        if not ys or len(ys) < ENOUGH_POINTS and curve.look != "marks":
            ys = sorted(p[1] for p in curve.points if x0 <= p[0] <= x1)
        if not ys:
            return None
        return ys[0], ys[min(len(ys) - 1, int(len(ys) * 0.99))]

    def draw(self, canvas, frame, curve, style):
        seen = [p for p in curve.points if frame.x0 <= p[0] <= frame.x1]
        if curve.look == "marks":
            for point in seen:
                canvas.mark(frame.across(point[0]), frame.down(point[1]), "●", style)
            return
        # One more on each side, for the lines that lead out.
        first = max(0, bisect.bisect_left(curve.points, (frame.x0,)) - 1)
        wider = curve.points[first:first + len(seen) + 2]
        before = None
        for point in thinned(wider, frame.across):
            here = frame.across(point[0]), frame.down(point[1])
            if curve.look == "band":
                low, high = point[2:]
                for y in range(frame.down(high), frame.down(low) + 1):
                    canvas.dot(here[0], y, style)
            start = before or here
            canvas.line(start, here, style)
            if curve.look == "strong":           # twice as thick
                canvas.line((start[0], start[1] + 1), (here[0], here[1] + 1), style)
            before = here
        if seen and curve.style.isdigit():       # tells curves apart without colour
            x, y = seen[-1][:2]
            canvas.mark(frame.across(x), frame.down(y), LETTERS[int(curve.style)], style)

    def y_axis(self, frame):
        "Row of cells -> the number that is written there."
        most = frame.height // 2 if frame.height < 16 else frame.height // 3
        numbers = {}
        for v, text in reversed(axis(frame.low, frame.high, max(2, most), self.log_y)):
            if len(text) >= self.LEFT:
                text = f"{10 ** v if self.log_y else v:.0e}".replace("e+", "e")
            if text not in numbers.values():     # two of one name would say nothing
                numbers[frame.down(v) // 4] = text
        return numbers

    def x_axis(self, frame):
        "The line below the chart."
        line = [" "] * (self.LEFT + frame.width)
        line[:len(self.unit)] = self.unit
        end = len(self.unit)                     # of what stands there by now
        for v, text in axis(frame.x0, frame.x1, max(2, frame.width // 12), self.log_x):
            middle = self.LEFT + frame.across(v) // 2
            at = max(0, min(middle - len(text) // 2, len(line) - len(text)))
            if at > end:
                end = at + len(text)
                line[at:end] = text
        return "".join(line)

    def lines(self, canvas, numbers, styles):
        "Each row of the canvas as (text, style) pairs, one a cell, after the number at its left."
        lines = []
        for row in range(canvas.height):
            empty = ("┈" if row in numbers else " ", styles["grid"])
            first = row * canvas.width
            cells = [canvas.drawn(cell) or empty for cell in range(first, first + canvas.width)]
            if self.cursor is not None and self.cursor < canvas.width and cells[self.cursor] is empty:
                cells[self.cursor] = ("│", styles["label"])
            label = f"{numbers.get(row, ''):>{self.LEFT - 1}} "
            lines.append([(label, styles["label"]), *cells])
        return lines

    def segments(self, lines):
        parts = []
        for line in lines:
            for style, cells in itertools.groupby(line, key=lambda cell: cell[1]):
                parts.append(Segment("".join(text for text, _ in cells), style))
            parts.append(Segment.line())
        return Segments(parts)

    def legend(self, frame, styles):
        "What the curves are; under the cursor, their values there."
        x = None
        parts = []
        if self.cursor is not None:
            x = frame.x0 + (frame.x1 - frame.x0) * self.cursor / (frame.width - 1)
            if self.log_x:
                x = 10 ** x
            form = ",.0f" if x >= 10 else ".3g"
            parts.append((f"  at {x:{form}} ", styles["label"]))
        for curve in sorted(self.curves, key=lambda curve: curve.style.isdigit() and curve.style):
            sign = self.SIGNS[curve.look]
            if curve.style.isdigit():
                sign = LETTERS[int(curve.style)]
            value = ""
            if x is not None and curve.look != "band":
                nearest = min(curve.points, key=lambda p: abs(p[0] - x))
                value = f" {fixed(nearest[1])}"
            parts.append((f"  {sign} {curve.name}{value}", styles[curve.style]))
        if self.best and x is None:
            parts.append(("  ★ best", styles["best"]))
        return [*parts, (" ", styles["label"])]


def as_csv(chart):
    "A line for each point of each curve, and what a band spans."
    rows = [["curve", chart.unit or "x", "value", "low", "high"]]
    for curve in chart.curves:
        for point in curve.points:
            rows.append([curve.name, *point])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


INK = {                                          # of a picture on white
    "raw": "#9db8d9", "train": "#1f5fa8", "val": "#c25a00", "0": "#1f5fa8", "1": "#c25a00", "2": "#1b7a3d",
    "3": "#b3261e", "4": "#8a6d00", "5": "#6a3fa0",
}


def as_svg(chart, title, width=900, height=540):
    "The chart as a picture: what is seen of it, on its scales."
    left, top, right, bottom = 70, 50, 20, 45
    curves = [curve._replace(points=chart.scaled(curve.points)) for curve in chart.curves]
    # A cell of the canvas is 2 x 4 dots: as many of them as the picture has pixels.
    frame = chart.frame(curves, (width - left - right) // 2, (height - top - bottom) // 4)

    def place(x, y):
        return f"{left + frame.across(x)},{top + frame.down(y)}"

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-size="13" '
             'font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>',
             f'<text x="{left}" y="20" font-weight="bold">{html.escape(title)}</text>',
             f'<text x="{width // 2}" y="{height - 8}">{html.escape(chart.unit)}</text>']
    for y, text in axis(frame.low, frame.high, 8, chart.log_y):
        at = top + frame.down(y)
        parts.append(f'<path d="M{left},{at}H{width - right}" stroke="#ddd"/>'
                     f'<text x="{left - 8}" y="{at + 4}" text-anchor="end">{text}</text>')
    for x, text in axis(frame.x0, frame.x1, 8, chart.log_x):
        at = left + frame.across(x)
        parts.append(f'<text x="{at}" y="{height - bottom + 18}" text-anchor="middle">{text}</text>')
    at = left
    for curve in curves:
        ink = INK[curve.style]
        seen = [point for point in curve.points if frame.x0 <= point[0] <= frame.x1]
        if curve.look == "marks":
            for x, y in seen:
                if not frame.low <= y <= frame.high:
                    continue                     # it left through the top
                cx, cy = place(x, y).split(",")
                parts.append(f'<circle cx="{cx}" cy="{cy}" r="3.5" fill="{ink}"/>')
        elif curve.look == "band":
            there = [place(point[0], point[3]) for point in seen]
            back = [place(point[0], point[2]) for point in reversed(seen)]
            parts.append(f'<path d="M{" ".join(there + back)}Z" fill="{ink}" stroke="{ink}" opacity="0.4"/>')
        else:
            thick = 3 if curve.look == "strong" else 2
            way = " ".join(place(*point[:2]) for point in seen)
            parts.append(f'<path d="M{way}" fill="none" stroke="{ink}" stroke-width="{thick}"/>')
        parts.append(f'<text x="{at}" y="40" fill="{ink}">{html.escape(curve.name)}</text>')
        at += 8 * len(curve.name) + 20
    return "\n".join([*parts, "</svg>\n"])


# ---- what the screens share --------------------------------------------------------------------------------


class Page(Screen):
    "One of the four screens: tabs and news above, keys below; word of it if the terminal is too small."

    HORIZONTAL_BREAKPOINTS = [(0, "-slim"), (ROOMY, "-narrow"), (WIDE, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (20, "-low"), (32, "-tall")]
    ESCAPE_TO_MINIMIZE = False
    BINDINGS = [Binding("question_mark,f1", "app.help", "Help")]
    had_focus = None                             # the widget that had it, while all is hidden
    KEYED = ()                                   # classes of widgets of the page that have keys of their own

    def compose(self):
        tabs = Words(id="tabs")
        tabs.auto_links = False                  # they look like tabs
        with Horizontal(id="bar"):
            yield tabs
            yield Words(id="news")
        with Vertical(id="body"):
            yield from self.body()
        yield Words(id="small")
        yield Footer(compact=True)

    def on_resize(self, event):
        width, height = event.size
        was_small = self.has_class("-small")
        is_small = width < SMALLEST_WIDTH or height < SMALLEST_HEIGHT
        if is_small and not was_small:
            self.had_focus = self.focused        # what is hidden loses it
        elif was_small and not is_small and self.had_focus:
            self.call_after_refresh(self.had_focus.focus)
        self.set_class(is_small, "-small")
        self.query_one("#small", Words).put(
            f"This terminal is {width}×{height}; it takes {SMALLEST_WIDTH}×{SMALLEST_HEIGHT}.\n"
            "Enlarge the window or shrink the font (Ctrl -).\n"
            "Without screens: python gpt.py train\n\nctrl+q quits"
        )
        self.query_one(Footer).show_command_palette = width >= WIDE
        self.call_after_refresh(self.refreshed)

    def on_descendant_focus(self):
        self.show_tabs()

    def on_descendant_blur(self):
        self.show_tabs()

    def on_screen_resume(self):
        self.refreshed()

    @property
    def is_wide(self):
        return self.size.width >= WIDE

    def refreshed(self):
        "Show what is new, once there is something to show it in."
        if self.is_mounted:
            self.show()

    def show(self):
        "Bring all that is shown up to date."
        self.show_tabs()
        self.query_one("#news", Words).put(self.news())

    def show_tabs(self):
        "The screens, each with the key that leads there from where the focus is."
        tabs = [(" gpt ", "bold $background on $primary"), " "]
        for i, (name, title) in enumerate(self.app.TABS.items(), 1):
            key = f"F{i + 1}" if self.is_typed_into else i
            look = "bold $foreground on $background" if name == self.app.current_mode else DIM
            tabs.append(button(f" {key} {title} ", f"app.switch_mode({name!r})", look))
        self.query_one("#tabs", Words).put(*tabs)

    @property
    def is_typed_into(self):
        "Whether digits and letters go into a field instead of being keys."
        here = self.focused
        return isinstance(here, (Input, TextArea)) or isinstance(here, Knob) and here.free

    def news(self):
        "Of what trains now; without that, the machine."
        live = [run for run in self.app.runs.values() if run.state in LIVE]
        if not live:
            return bits((self.app.machine, DIM))
        run = max(live, key=lambda r: (r is self.app.chosen, r.when))
        more = f" and {len(live) - 1} more" if len(live) > 1 else ""
        dot = ("● ", f"$text-{COLORS[run.state]}")
        words = bits(dot, run.name, (f"{more} {run.state} {run.done:.0%}", DIM))
        return words.stylize(Style.from_meta({"@click": f"app.watch_folder({str(run.folder)!r})"}))


class Box(ModalScreen):
    "A window over a page; esc closes it."

    DEFAULT_CSS = """
    Box {
        align: center middle;
        & > VerticalScroll {
            width: 74; max-width: 96%; height: auto; max-height: 90%; padding: 0 2;
            border: round $primary; background: $surface;
            border-title-color: $text-accent; border-title-style: bold;
        }
        Input { margin: 1 0; }
        OptionList { height: auto; max-height: 18; border: none; background: $surface; padding: 0; }
        .bad { color: $text-error; }
    }
    """
    BINDINGS = [("escape", "dismiss", "Cancel")]

    def __init__(self, title, *widgets, scrolls=False):
        super().__init__()
        self.frame = VerticalScroll(*widgets, can_focus=scrolls)
        self.frame.border_title = title

    def compose(self):
        yield self.frame


class Ask(Box):
    "A question and its answers, each a key -> the key, or None."

    def __init__(self, title, text, **answers):
        self.answers = answers
        options = []
        for key, words in {**answers, "esc": "cancel"}.items():
            options.append(Option(bits((f"{key:>6}  ", KEY), words), id=key))
        super().__init__(title, Static(text, markup=False), OptionList(*options, compact=True))

    def on_mount(self):
        self.query_one(OptionList).highlighted = 0

    def on_key(self, event):
        if event.key in self.answers:
            event.stop()
            self.dismiss(event.key)

    def on_option_list_option_selected(self, event):
        self.dismiss(None if event.option_id == "esc" else event.option_id)


class Leave(Ask):
    "Whether to quit: the key that asked answers, too."

    BINDINGS = [hidden("ctrl+c", "dismiss('q')", "Quit")]


class Enter(Box):
    "A question to be answered in words; problem(words) says what is wrong with them, or nothing."

    def __init__(self, title, value, problem):
        self.problem = problem
        super().__init__(title, Input(value, compact=True), Label("", classes="bad", markup=False))

    def on_input_changed(self, event):
        self.query_one(Label).update(self.problem(event.value) or "")

    def on_input_submitted(self, event):
        if not self.problem(event.value):
            self.dismiss(event.value)


class Pick(Box):
    "A list to choose from, narrowed down by typing: (id, what is shown) -> id, or None."

    BINDINGS = [hidden("down", "move('down')", "Next"), hidden("up", "move('up')", "Back")]

    def __init__(self, title, options, paths=False):
        self.options = options
        self.paths = paths                       # whether a path may be typed or pasted instead
        self.list = OptionList(compact=True)
        super().__init__(title, Input(placeholder="type to narrow down", compact=True), self.list)

    def on_mount(self):
        self.on_input_changed()

    def on_input_changed(self):
        typed = self.query_one(Input).value
        words = typed.lower().split()
        self.list.clear_options()
        for option, shown in self.options:
            text = str(shown).lower()
            if all(word in text for word in words):
                self.list.add_option(Option(shown, id=option))
        if not self.list.option_count:
            self.list.add_option(self.other(typed))
        self.list.highlighted = 0

    def other(self, typed):
        "What is offered for words that are in no line of the list."
        path = Path(os.path.expanduser(typed.strip().strip("'\"")))
        if self.paths and os.path.exists(path):
            return Option(bits(("use ", KEY), clean(path)), id=str(path))
        what = "nothing" if not self.paths else "no file and nothing"
        return Option(bits((f"there is {what} of that name", DIM)), disabled=True)

    def action_move(self, where):
        getattr(self.list, f"action_cursor_{where}")()

    def on_input_submitted(self):
        self.list.action_select()

    def on_option_list_option_selected(self, event):
        self.dismiss(event.option_id)


class Help(Box):
    "The keys that work here, and what the screen is for."

    BINDINGS = [("question_mark,f1,q,enter", "dismiss", "Close")]

    def __init__(self, page, keys):
        lines = []
        for key, words in keys:
            lines += [(f"{key:>14}  ", KEY), f"{words}\n"]
        super().__init__("help", Static(bits(" ".join(page.HELP.split()), "\n\n", *lines)), scrolls=True)


class Knob(Widget, can_focus=True):
    "A value out of a row of values: arrows step, a click picks, and where it is free a number can be typed."

    DEFAULT_CSS = """
    Knob { width: 1fr; height: 1; }
    Knob:focus { background: $primary 30%; }
    """
    BINDINGS = [
        hidden("left,minus", "turn(-1)", "Less"),
        hidden("right,plus,space", "turn(1)", "More"),
        hidden("up", "app.focus_previous", "Back"),
        hidden("down", "app.focus_next", "Next"),
    ]
    value = reactive("", init=False)
    typed = reactive("")                         # a number on its way
    auto_links = reactive(False)                 # what can be clicked looks as it is

    class Changed(Message):
        def __init__(self, knob, value):
            super().__init__()
            self.knob = knob
            self.value = value

        @property
        def control(self):
            return self.knob

    def __init__(self, value, options, free=False, **more):
        super().__init__(**more)
        self.options = [str(option) for option in options]
        self.free = free
        self.set_reactive(Knob.value, str(value))

    def render(self):
        if self.free:
            shown = f"{self.typed}▏" if self.typed else self.value
            return bits(button("◂ ", "turn(-1)"), (shown, "bold"), button(" ▸", "turn(1)"))
        parts = []
        for option in self.options:
            look = "bold $background on $primary" if option == self.value else ""
            parts.append(button(f" {option} ", f"pick({option!r})", look))
        return bits(*parts)

    def watch_value(self):
        self.typed = ""
        self.post_message(self.Changed(self, self.value))

    def action_turn(self, by):
        "A row of words goes round; numbers end at their ends."
        if self.free:
            order = sorted({*self.options, self.value}, key=float)
            at = order.index(self.value) + by
            self.value = order[max(0, min(len(order) - 1, at))]
        else:
            at = self.options.index(self.value) + by
            self.value = self.options[at % len(self.options)]

    def action_pick(self, option):
        self.value = option

    def on_key(self, event):
        if self.free and event.is_printable and event.character in "0123456789.":
            self.typed += event.character
        elif self.typed and event.key == "backspace":
            self.typed = self.typed[:-1]
        elif self.typed and event.key == "enter":
            self.on_blur()
        else:
            return
        event.stop()

    def on_blur(self):
        typed = self.typed
        self.typed = ""
        if number_of(typed) is not None:
            self.value = typed


class Field(Horizontal):
    "A value with its name before it."

    DEFAULT_CSS = """
    Field {
        height: 1;
        Label { width: 15; color: $foreground 60%; }
        Input { width: 1fr; height: 1; }
        &:focus-within Label { color: $text-accent; text-style: bold; }
        &.-edited Label { color: $text-primary; text-style: bold; }
    }
    """

    def __init__(self, label, box, **more):
        super().__init__(Label(label), box, **more)


# ---- time-lapse: babble that turns into English ------------------------------------------------------------

WORD = re.compile(r"[^\W\d_]{3,}")               # shorter ones are hit by chance
ANY_WORD = re.compile(r"[^\W\d_]+")              # and these are known by the one beside them
MOST_TEXT = 20_000_000                           # bytes that are read to know a text's words
PLAYING_SECONDS = 10                             # that all samples take together
SLOWEST = 0.8                                    # seconds a sample is shown while they are played, at most
QUICKEST = 0.1
LIT = "bold $text-success"
UNLIT = "$foreground 55%"


def words_of(text):
    return {word.lower() for word in WORD.findall(text)}


def pairs_of(text):
    "The pairs of words that stand side by side."
    found = [word.lower() for word in ANY_WORD.findall(text)]
    return set(itertools.pairwise(found))


def prepared_text(folder):
    "The start of a text as data.py prepared it, by characters or by words; or nothing."
    if not plain_file(folder / "meta.json") or not plain_file(folder / "train.bin"):
        return ""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        about = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        tokenizer = about["tokenizer"]
        pieces = tokenizer["words"][1:] if "words" in tokenizer else tokenizer["characters"]
        pieces = ["", *pieces]                   # 0 is what it does not know
        ids = array.array({"uint16": "H", "uint32": "I"}[about["dtype"]])
        with open(folder / "train.bin", "rb") as file:
            ids.frombytes(file.read(MOST_TEXT // 4))
        between = " " if "words" in tokenizer else ""
        return between.join(pieces[i] for i in ids if i < len(pieces))
    return ""


def vocabulary(data, look_for=words_of):
    """-> all words of a training text, or what else is looked for in it, and what it is called. Where it is
    not at hand: of Python's manual."""
    path = Path(data)
    if plain_file(path):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            text = file.read(MOST_TEXT).decode("utf-8", "replace")
            return look_for(text), f"its training text, {clean(path.name)}"
    for folder in path, Path("data") / f"{data}-char", Path("data") / f"{data}-word":
        text = prepared_text(folder)
        if text:
            return look_for(text), f"its training text, {clean(path.name)}"
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return set(), ""
    source = "Python's manual"
    if data == "builtin":
        source = "its training text, Python's manual"
    return look_for(" ".join(topics.values())), source


def lit(text, words):
    """A sample with the words that exist in bright; where pairs are given for words, those that stand beside
    one another as they do in the training text. -> its parts, how many were lit, and of how many"""
    are_pairs = isinstance(next(iter(words), ""), tuple)
    parts = []
    end = 0
    known = 0
    found = list((ANY_WORD if are_pairs else WORD).finditer(text))
    lowered = [match[0].lower() for match in found]
    for at, match in enumerate(found):
        exists = lowered[at] in words
        if are_pairs:
            before = tuple(lowered[max(0, at - 1):at + 1])
            after = tuple(lowered[at:at + 2])
            exists = before in words or after in words
        known += exists
        parts.append((text[end:match.start()], UNLIT))
        parts.append((match[0], LIT if exists else UNLIT))
        end = match.end()
    parts.append((text[end:], UNLIT))
    return parts, known, len(found)


class Slider(Widget):
    "Bars of values over a rail with a knob on it; the mouse puts it anywhere."

    DEFAULT_CSS = "Slider { height: 3; padding: 0 1; }"
    at = reactive(0)                             # the value under the knob
    values = reactive([])

    class Moved(Message):
        def __init__(self, at):
            super().__init__()
            self.at = at

    def render(self):
        width = self.content_size.width
        if not self.values or width < 2:
            return ""
        last = len(self.values) - 1
        here = self.at * (width - 1) // max(1, last)
        heights = self.heights()
        columns = [heights[round(column * last / (width - 1))] for column in range(width)]
        parts = []
        for base in 8, 0:                        # two rows of bars
            row = "".join((" " + BARS)[max(0, min(8, height - base))] for height in columns)
            parts += [(row[:here + 1], "$text-primary"), (row[here + 1:], "$foreground 25%"), "\n"]
        parts += [("━" * here, "$text-primary"), ("●", "bold $text-accent")]
        parts.append(("━" * (width - here - 1), "$foreground 25%"))
        return bits(*parts)

    def heights(self):
        "Each value as a number of eighths, from 1 to 16; 0 where it is not known."
        known = [value for value in self.values if value is not None]
        low = min(known, default=0)
        span = max(known, default=0) - low or 1
        return [0 if value is None else 1 + int((value - low) / span * 15) for value in self.values]

    def on_mouse_down(self, event):
        self.capture_mouse()
        self.put_at(event.x)

    def on_mouse_move(self, event):
        if event.button:
            self.put_at(event.x)

    def on_mouse_up(self):
        self.release_mouse()

    def put_at(self, x):
        last = len(self.values) - 1
        at = round((x - 1) * last / max(1, self.content_size.width - 1))
        self.post_message(self.Moved(max(0, min(last, at))))


class TimeLapse(Vertical, can_focus=False):
    "The samples of a run, one after the other: the same prompt and the same dice, only the weights differ."

    DEFAULT_CSS = """
    TimeLapse {
        display: none;
        #first { height: 6; }
        #middle { display: none; }
        #all { display: none; height: 1fr; margin: 1 0; padding: 0 2; text-wrap: nowrap; }
        #meaning { height: 2; padding: 0 1; }
    }
    """
    BINDINGS = [
        Binding("space", "play", "Play"),
        Binding("left,left_square_bracket", "step(-1)", "Earlier"),
        Binding("right,right_square_bracket", "step(1)", "Later"),
        hidden("home", "jump(0)", "First sample"),
        hidden("end", "jump(-1)", "Newest sample"),
        Binding("escape", "screen.lapse", "Back"),
    ]

    def __init__(self):
        super().__init__()
        self.folder = None                       # of the run whose samples these are
        self.samples = []                        # (step, text), the oldest first
        self.losses = []                         # the validation loss at each of them, or None
        self.is_of_words = False                 # a model of words says none but words: its pairs are lit
        self.words = set()                       # what is lit
        self.source = ""                         # where these words stand
        self.at = 0
        self.timer = None

    def compose(self):
        with Vertical(id="lapse"):
            for name in "first", "middle", "now":
                with VerticalScroll(id=name, classes="pane", can_focus=False):
                    yield Words()
        yield Words(id="all")
        yield Slider()
        yield Words(id="meaning")

    def put(self, run):
        "Show this run's samples. Who looks at the newest goes on to do so when one more comes."
        if run.folder != self.folder:
            self.folder = run.folder
            self.samples = []
            self.words = set()
            self.source = ""
            self.is_of_words = run.part("train").get("level") == "word"
            self.learn_words(str(run.part("train").get("data", "")))
        follows = self.at >= len(self.samples) - 1
        newest = {}
        for step, text in run.samples:
            newest.setdefault(step, text)        # of two at one step the later one
        self.samples = sorted(newest.items())
        losses = {found.step: found.val for found in run.evals}
        self.losses = [losses.get(step) for step, _ in self.samples]
        last = max(0, len(self.samples) - 1)
        self.at = last if follows else min(self.at, last)
        self.show()

    @work(thread=True, exclusive=True)
    def learn_words(self, data):
        found = vocabulary(data, pairs_of if self.is_of_words else words_of)
        self.app.call_from_thread(self.know, *found)

    def know(self, words, source):
        self.words = words
        self.source = source
        self.show()

    def show(self):
        slider = self.query_one(Slider)
        slider.values = self.losses
        slider.at = self.at
        if not self.samples:
            self.query_one("#now Words", Words).put(("No sample yet: the first comes with step 0.", DIM))
            return
        count = len(self.samples)
        for name, at, least in ("first", 0, 2), ("middle", self.at // 2, 3), ("now", self.at, 1):
            pane = self.query_one(f"#{name}")
            pane.set_class(count < least, "-again")  # it would show what another one shows
            self.show_sample(pane, name, at)
        self.query_one("#all", Words).put(*self.lines())
        self.query_one("#meaning", Words).put(*self.meaning())

    def lines(self):
        "Where there is room: the start of each sample in a line, as many as fit around the one shown."
        width, height = self.query_one("#all").content_size
        count = max(0, min(height, len(self.samples)))
        first = max(0, min(self.at - count // 2, len(self.samples) - count))
        for at in range(first, first + count):
            step, text = self.samples[at]
            is_here = at == self.at
            loss = fixed(self.losses[at])
            head = (f"{'●' if is_here else ' '} {step:>9,}  {loss:>7}  ", KEY if is_here else DIM)
            parts, _, _ = lit(" ".join(text.split()), self.words)
            yield bits(head, *parts).truncate(width) + "\n"

    def show_sample(self, pane, name, at):
        step, text = self.samples[at]
        parts, known, of = lit(text.strip("\n"), self.words)
        title = f"step {step:,}"
        if self.losses[at] is not None:
            title += f" · loss {fixed(self.losses[at])}"
        if self.words:
            title += f" · {known} of {of} lit"
        pane.border_title = title
        pane.border_subtitle = name
        if name == "now":
            pane.border_subtitle = f"{at + 1} of {len(self.samples)}"
        pane.query_one(Words).put(*parts)

    def meaning(self):
        "What is seen, in two lines."
        keys = "← →", "space"
        yield from [(keys[0], KEY), " or the mouse: step by step   ", (keys[1], KEY)]
        yield " stops" if self.timer else " plays"
        yield ("   bars: loss\n", DIM)
        if self.source:
            yield ("lit", LIT)
            what = "words of 3 letters or more from"
            if self.is_of_words:
                what = "words side by side as in"
            yield (f": {what} {self.source}", DIM)

    def move(self, at):
        if self.samples:
            self.at = max(0, min(len(self.samples) - 1, at))
            self.show()

    def halt(self):
        if self.timer:
            self.timer.stop()
        self.timer = None

    def action_step(self, by):
        self.halt()
        self.move(self.at + by)

    def action_jump(self, to):
        self.halt()
        self.move(to % max(1, len(self.samples)))

    @on(Slider.Moved)
    def slide(self, event):
        self.halt()
        self.move(event.at)

    def action_play(self):
        "From here to the end; from the end, all of it."
        if self.timer:
            self.halt()
            self.show()
            return
        if self.at == len(self.samples) - 1:
            self.at = 0
        pause = PLAYING_SECONDS / max(1, len(self.samples))
        self.timer = self.set_interval(max(QUICKEST, min(SLOWEST, pause)), self.play_on)
        self.show()

    def play_on(self):
        if self.at >= len(self.samples) - 1:
            self.halt()
        self.move(self.at + 1)


# ---- Watch: one run ----------------------------------------------------------------------------------------

SMOOTHING = {0.05: "light", 0.15: "strong", 0: "off"}  # share of the way that smooth() looks back
CHART_KEYS = [
    hidden("x", "log('x')", "Log x"),
    hidden("y", "log('y')", "Log y"),
    hidden("plus,equals_sign", "chart('zoom', 0.5)", "Zoom in"),
    hidden("minus", "chart('zoom', 2)", "Zoom out"),
    hidden("0", "chart('reset')", "Zoom to all"),
    Binding("v", "metric", "Metric"),
    hidden("V", "metric(-1)", "Metric before"),
    hidden("a", "axis", "Along steps, tokens or minutes"),
    hidden("e", "export", "Export: CSV, SVG, PNG"),
]
BAD_NEWS = re.compile(r"error|exception|traceback|\bnan\b|killed", re.IGNORECASE)
Reading = namedtuple("Reading", "now values", defaults=[()])  # as text; and what it was, for its sparkline


class Charted(Page):
    """A page with a chart, whose keys work wherever the focus is, and with a run that other keys are about.
    Which metrics it shows is in METRICS, which of these in .metric, and along what in .axis."""

    axis = AXES[0]
    metric = ""

    def action_metric(self, by=1):
        order = list(self.METRICS)
        self.metric = order[(order.index(self.metric) + by) % len(order)]
        self.show()

    def action_axis(self):
        self.axis = AXES[(AXES.index(self.axis) + 1) % len(AXES)]
        self.show()

    @work
    async def action_export(self):
        "What the chart shows, as numbers or as a picture, beside the runs."
        chart = self.query_one(Chart)
        if not chart.curves:
            self.notify("There is nothing in the chart yet", severity="warning")
            return
        answers = {"c": "CSV, the numbers", "s": "SVG, a picture that scales"}
        if "loss" in self.metric:
            answers["p"] = "PNG, the losses, by gpt.py plot (pip install matplotlib)"
        kind = await self.app.push_screen_wait(Ask("export what is shown", "As which file?", **answers))
        if not kind:
            return
        suffix = {"c": "csv", "s": "svg", "p": "png"}[kind]
        path = self.app.root / time.strftime(f"chart-%Y%m%d-%H%M%S.{suffix}")
        trouble = ""
        try:
            if kind == "c":
                path.write_text(as_csv(chart), encoding="utf-8")
            elif kind == "s":
                path.write_text(as_svg(chart, chart.border_title or self.metric), encoding="utf-8")
            else:
                runs = [str(run.folder) for run in self.meant()]
                code, _, said = await self.app.ask("plot", *runs, "--out", str(path))
                trouble = said if code else ""
        except OSError as e:
            trouble = e.strerror
        if trouble:
            self.notify(trouble, severity="error")
        else:
            self.notify(str(path), title="written")

    def action_log(self, axis):
        chart = self.query_one(Chart)
        log = not getattr(chart, f"log_{axis}")
        setattr(chart, f"log_{axis}", log)
        self.notify(f"{axis} is {'logarithmic' if log else 'linear'}", timeout=1.5)

    def action_chart(self, name, *arguments):
        getattr(self.query_one(Chart), f"action_{name}")(*arguments)

    def action_chat(self, name="best.pt"):
        self.app.talk_to(self.run, name)

    def action_copy(self):
        self.app.copy_command(self.run)


SHAPE = """{preset} {level} on {data}
{n_layer} layers, {n_head} heads, {n_embd} wide
context {block_size}, vocabulary {vocab_size}
{parameters} weights, batch {batch_size}
"""
ADVICE = re.compile(r"Ctrl-C saves and stops; then type: .* --threads (\d+)$")


def in_keys(warning):
    "The trainer's advice, which is for a shell, as what helps here."
    return ADVICE.sub(r"s saves and stops; then r goes on with --threads \1.", warning)


class Watch(Charted):
    KEYED = (TimeLapse,)
    HELP = """Watch one run, running or not, ours or not: all of it is read from the run's folder.
Bright line: training loss, smoothed; dim: each reading; dots: validation; the star: the best."""
    CSS = """
    Watch {
        #head, #stats { height: 2; padding: 0 1; }
        #warning {
            height: auto; max-height: 2; padding: 0 1; display: none;
            background: $warning 15%; color: $text-warning;
        }
        #trouble {
            height: auto; max-height: 12; padding: 0 1; display: none;
            border: round $error; border-title-color: $error; border-title-style: bold;
        }
        #side { width: 42; display: none; padding: 0 1; border-left: solid $foreground 15%; }
        #talk { height: 6; }
        &.-low #talk { height: 8; }
        #talk .pane { width: 1fr; height: 100%; }
        #log { display: none; text-wrap: nowrap; }
        #find { display: none; }
        #log Static { height: auto; min-height: 100%; }
        &.-tall #warning { max-height: 4; }
        &.-tall #talk { height: 40%; }
        &.-wide #side, &.-wide #log, #watch.-log #log { display: block; }
        &.-wide #stats, #watch.-log #samples, #watch.-log #left { display: none; }
        #watch.-log #talk { height: 1fr; }
        #watch.-lapse TimeLapse { display: block; }
        &.-flat #first { display: none; }
        &.-tall #lapse { height: 16; }
        &.-tall #all { display: block; }
        &.-wide #lapse { layout: horizontal; }
        &.-wide.-tall #lapse { height: 12; }
        &.-wide #lapse .pane { width: 1fr; height: 100%; display: block; }
        #lapse .pane.-again { display: none; }
        #watch.-lapse #present, #watch.-lapse #side { display: none; }
    }
    """
    BINDINGS = [
        Binding("p", "control('pause')", "Pause"),
        Binding("p", "control('go')", "Go on"),
        Binding("s", "stop", "Stop"),
        Binding("k", "kill", "Kill"),
        Binding("r", "resume", "Resume"),
        Binding("r", "anew", "Start anew"),
        Binding("g", "control('sample')", "Sample"),
        Binding("c", "chat('best.pt')", "Chat"),
        hidden("C", "chat('latest.pt')", "Chat with the newest weights"),
        Binding("t", "lapse", "Time-lapse"),
        Binding("l", "log_pane", "Log"),
        hidden("m", "smooth", "Smooth"),
        *CHART_KEYS,
        hidden("n", "next(1)", "Next line found"),
        hidden("N", "next(-1)", "Line found before"),
        Binding("n", "app.watch_next", "Next run"),
        hidden("slash", "find", "Find in the log"),
        hidden("escape", "stop_finding", "Stop finding"),
        hidden("w", "copy", "Copy the command"),
    ]
    ABOUT_A_RUN = ("control", "stop", "kill", "resume", "anew", "chat", "lapse", "log_pane", "smooth", "log",
                   "chart", "copy", "metric", "axis", "export", "find", "next", "stop_finding")  # actions
    METRICS = ["loss", *list(METRICS)[2:]]       # the losses are shown in one
    metric = "loss"
    LOG_LINES = 300                              # of its end
    ALWAYS = "train", "val", "best"              # shown even where there is no number yet
    MOST_GPUS = 8                                # whose lines are shown
    STATS = "train", "val", "best", "bits/byte", "memory", "MFU"
    SIDE = {
        "loss": ("train", "val", "best", "bits/byte", "gap"),
        "speed": ("tok/s", "MFU", "so far", "tokens"),
        "optimizer": ("lr", "norm"),
        "machine": ("memory", "device"),
    }
    TOLD = {
        "starting": "Starting: loading torch, preparing the text. The first time takes longest.",
        "compiling": "Compiling: the first step takes up to some minutes, all others gain.",
        "gone": "The folder of {} has vanished. What was read stays here.",
    }

    def __init__(self):
        super().__init__()
        self.share = 0.05                        # how much the loss is smoothed
        self.hits = []                           # lines of the log that have what is looked for
        self.hit = None                          # the one of these that is shown
        self.footer_is_for = None
        self.asked_presets = False

    @property
    def run(self):
        return self.app.chosen

    def body(self):
        yield Words(id="head")
        yield Words(id="warning")
        with Horizontal(id="watch"):
            yield TimeLapse()
            with Vertical(id="present"):
                with Vertical(id="left"):
                    yield Chart("no numbers yet")
                    yield Words(id="stats")
                yield Words(id="trouble")
                with Horizontal(id="talk"):
                    with VerticalScroll(id="samples", classes="pane") as pane:
                        pane.border_title = "it says"
                        yield Words()
                    with VerticalScroll(id="log", classes="pane") as pane:
                        pane.border_title = "log"
                        pane.anchor()
                        yield Words()
                yield Input(placeholder="find in the log", id="find", compact=True)
            yield Words(id="side")

    # what is shown

    def show(self):
        super().show()
        run = self.run
        self.show_footer(run)
        self.query_one("#watch").display = bool(run and run.state)
        head = self.query_one("#head", Words)
        if not run or not run.state:
            self.query_one("#warning").display = False
            if run:
                head.put(f"Reading {run.name} …")
            else:
                head.put("Nothing to watch yet. ", ("1", KEY), " chooses what to train.")
            return
        head.put(self.title_line(run), "\n", self.progress_line(run))
        smoothed = loss_points(run)
        if self.share:
            smoothed = smooth(smoothed, self.share)
        self.show_chart(run, smoothed)
        numbers = self.numbers(run, smoothed)
        self.query_one("#stats", Words).put(self.stats(numbers))
        self.query_one("#side", Words).put(self.side(run, numbers))
        self.show_warnings(run)
        self.show_trouble(run)
        self.show_samples(run)
        if self.query_one("#watch").has_class("-lapse"):
            self.query_one(TimeLapse).put(run)
        self.show_log(run)

    def show_footer(self, run):
        "The footer is made anew where other keys work than before, and not at each repaint."
        now = None
        if run:
            now = run.folder, run.state, len(run.checkpoints), run.full, self.app.next_live()
        if now != self.footer_is_for:
            self.footer_is_for = now
            self.refresh_bindings()

    def title_line(self, run):
        state = f"● {run.state}"
        if run.full:
            state = "● disk full"
        elif run.state == "stalled":
            state += f" {clock(run.silent)}"
        steps = f"  step {run.step:,}"
        most = number(run.start.get("max_iters"))
        if most:
            steps += f"/{most:,}"
        width = self.size.width - 2
        room = max(1, width - len(run.name + state + steps) - 4)
        where = f"  {clean(run.folder)[-room:]}"
        if run.folder.parent == self.app.root and not self.is_wide:
            where = ""                           # the name says it all
        left = [(run.name, "bold"), (where, DIM)]
        return ends(width, left, [(state, f"$text-{COLORS[run.state]}"), steps])

    def progress_line(self, run):
        rows = run.rows
        eta = None
        if run.state in LIVE:
            eta = number(run.now.get("eta_s"))
        tail = f"  {run.done:.0%}"
        if eta is not None:
            tail += f"  {clock(eta)} left"
        elif rows:
            tail += f"  took {clock(rows[-1].elapsed)}"
        width = self.size.width - 2
        cells, half = divmod((width - len(tail)) * run.done, 1)
        bar = "━" * int(cells)
        if half > 0.5:
            bar += "╸"
        bars = [(bar, f"$text-{COLORS[run.state]}"), ("━" * width, "$foreground 15%")]
        return ends(width, bars, [tail])

    def meant(self):
        return [self.run]

    def show_chart(self, run, smoothed):
        x = along(run, self.axis)
        star = None
        if self.metric == "loss":
            band = [(row.step, row.loss, row.low, row.high) for row in run.rows if row.loss is not None]
            curves = [
                Curve("each reading" if self.share else "", "raw", band, "band"),
                Curve("train, smoothed" if self.share else "train", "train", smoothed),
                Curve("val", "val", val_points(run), "marks"),
            ]
            if run.best:
                star = x(run.best.step), run.best.val
        else:
            curves = [Curve(self.metric, "train", METRICS[self.metric](run))]
        placed = [curve._replace(points=[(x(p[0]), *p[1:]) for p in curve.points]) for curve in curves]
        chart = self.query_one(Chart)
        chart.empty = "no numbers yet"
        if self.metric != "loss":
            chart.empty = f"{self.metric}: no numbers yet"
        if self.metric == "bits per byte" and run.part("train").get("level") == "word":
            chart.empty = "bits per byte: a word model has none, since it can't spell rare words"
        chart.plot(placed, star, self.axis)

    def show_warnings(self, run):
        told = []
        if run.full:
            told.append("Disk full: nothing is recorded any more, and p, s and g can't reach the trainer. "
                        "Make room, or k kills the process.")
        elif run.state == "stalled":
            process = "Whether its process lives can't be seen from here."
            if run.held:
                process = "Its process lives: it may wait for a disk or swap memory."
            told.append(f"No news for {clock(run.silent)}. {process} k kills it, r then resumes.")
        elif run.state in self.TOLD:
            told.append(self.TOLD[run.state].format(run.name))
        if run.bad:
            told.append(f"{run.bad} lines of metrics.jsonl make no sense and were skipped.")
        elif run.state in LIVE and run.rows and run.rows[-1].loss is None:
            told.append("The loss is no number any more: what it learned is gone. s stops it; then a lower "
                        "learning_rate helps.")
        for text in reversed(run.warnings[-2:]):
            if run.state in LIVE or not ADVICE.search(text):
                told.append(in_keys(text))
        warning = self.query_one("#warning", Words)
        warning.put("\n".join("▲ " + text for text in told))
        warning.display = bool(told)

    def show_trouble(self, run):
        box = self.query_one("#trouble", Words)
        trouble = run.trouble
        box.display = bool(trouble) and not self.query_one("#watch").has_class("-log")
        self.query_one("#talk").display = not box.display
        if not trouble:
            return
        if trouble.flags and not self.app.catalog and not self.asked_presets:
            self.asked_presets = True
            self.learn_presets()
        box.border_title = f"training ended: {trouble.headline}"
        parts = []
        if trouble.why:
            parts.append(f"{trouble.why}\n")
        last = run.lines()[-4:]
        end = run.end
        if end and not run.log:
            last = [end["message"]]
        parts += [(f"{line[:400]}\n", DIM) for line in last]
        if run.start:
            parts.append(f"{run.kept()} ")
        parts += [("r", KEY), f": {self.remedy(run)[0]}.  "]
        if run.exit_status is None:
            parts.append("l: the whole log.")
        else:
            parts.append(f"(exit status {run.exit_status}; whole log: l)")
        box.put(*parts)

    def show_log(self, run):
        "The log: lines about errors in red, and what is looked for lit."
        lines = run.lines()[-self.LOG_LINES:]
        find = self.query_one("#find", Input).value
        pattern = re.compile(re.escape(find) if find else r"(?!)", re.IGNORECASE)
        self.hits = [at for at, line in enumerate(lines) if pattern.search(line)]
        parts = []
        for at, line in enumerate(lines):
            look = "$text-error" if BAD_NEWS.search(line) else ""
            end = 0
            for match in pattern.finditer(line):
                lit_look = "bold reverse" if at == self.hit else "on $warning 40%"
                found = Content.styled(match[0], lit_look).stylize(Style.from_meta({"line": at}))
                parts += [(line[end:match.start()], look), found]
                end = match.end()
            parts.append((line[end:] + "\n", look))
        self.query_one("#log Words", Words).put(*parts)
        pane = self.query_one("#log")
        pane.border_subtitle = ""
        if find:
            here = self.hits.index(self.hit) + 1 if self.hit in self.hits else "–"
            pane.border_subtitle = f"{here} of {len(self.hits)} lines · n N: next, before"

    def show_samples(self, run):
        parts = []
        for step, text in run.samples[:30]:
            parts += [(f"step {step:,}\n", KEY), text.strip("\n") + "\n\n"]
        if not parts:
            parts.append(("A sample comes with each evaluation; g asks for one now.", DIM))
        self.query_one("#samples Words", Words).put(*parts)

    # the numbers

    def numbers(self, run, smoothed):
        "Name -> Reading, of every number that is shown."

        def series(values, form=".3f"):
            last = values[-1] if values else None
            return Reading(fixed(last, form), values)

        rows = run.rows
        evals = [e for e in run.evals if e.val is not None]
        best = run.best
        memory = None
        took = None
        if rows:
            took = rows[-1].elapsed
            if rows[-1].memory is not None:
                memory = rows[-1].memory * 1e6
        return {
            "train": series([loss for _, loss in smoothed]),
            "val": series([e.val for e in evals]),
            "best": Reading(f"{best.val:.3f} @{best.step:,}" if best else "—"),
            "bits/byte": series([e.bits for e in evals if e.bits is not None]),
            "gap": series([e.val - e.train for e in evals if e.train is not None], "+.3f"),
            "tok/s": Reading(short(run.speed), [row.speed for row in rows]),
            "MFU": series([row.mfu for row in rows], ".0%"),
            "so far": Reading(clock(took)),
            "tokens": Reading(short(number(run.now.get("tokens")))),
            "lr": series([row.lr for row in rows], ".1e"),
            "norm": series([row.norm for row in rows], ".2f"),
            "memory": Reading(size(memory), [row.memory for row in rows]),
            "device": Reading(clean(run.start.get("device", "—"))),
        }

    def is_shown(self, name, reading):
        return name in self.ALWAYS or reading.now != "—"

    def stats(self, numbers):
        "Two lines, for narrow terminals."
        parts = []
        for name in self.STATS:
            reading = numbers[name]
            if self.is_shown(name, reading):
                parts += [(f"{name} ", DIM), (f"{reading.now}  ", "bold")]
        parts.append("\n")
        width = max(4, (self.size.width - 52) // 3)
        for name in "tok/s", "norm", "lr":
            reading = numbers[name]
            bars = (spark(reading.values, width), "$primary 70%")
            parts += [(f"{name} ", DIM), (f"{reading.now} ", "bold"), bars, "  "]
        return bits(*parts)

    def side(self, run, numbers):
        "The column of wide terminals: every number, and how it went."
        parts = []
        for title, names in self.SIDE.items():
            parts.append((f"{title}\n", KEY))
            for name in names:
                reading = numbers[name]
                if self.is_shown(name, reading):
                    bars = (spark(reading.values, 15), "$primary 70%")
                    parts += [(f"{name:11}", DIM), (f"{reading.now:12}", "bold"), bars, "\n"]
            if title != "machine":
                parts.append("\n")
        used = run.part("used")
        processes = number(run.start.get("world_size")) or 1
        noun = "processes" if processes > 1 else "process"
        dtype = clean(used.get("dtype", ""))
        torch = clean(used.get("torch", "?"))
        software = f"{dtype}, {processes} {noun}, torch {torch}"
        if not run.start:                        # nothing is known yet
            return bits(*parts)
        shape = run.shape(SHAPE)
        parts.append((f"{software}\n", DIM))
        if run.state in LIVE:
            parts += [f"{line}\n" for line in self.app.gpus[:self.MOST_GPUS]]
        parts += ["\n", ("run\n", KEY), shape]
        if run.saved is not None:
            parts.append((f"saved {ago(time.time() - run.saved)}", DIM))
        return bits(*parts)

    # keys

    def check_action(self, action, parameters):
        run = self.run
        if not run:
            return action not in self.ABOUT_A_RUN
        live = run.state in LIVE
        if action == "control":
            return live and run.state != "starting" and self.takes(parameters[0])
        if action == "stop":
            return live
        if action == "kill":                     # only where nothing gentler is of use
            return run.full or run.state == "stalled"
        if action == "resume":
            return not live and run.state != "gone" and run.can_go_on
        if action == "anew":
            return not live and run.state != "gone" and not run.can_go_on
        if action == "chat":
            return bool(run.checkpoints)
        if action in ("next", "stop_finding"):
            return self.query_one("#find").display
        return True

    def takes(self, word):
        paused = self.run.state == "paused"
        if word == "pause":
            return not paused
        if word == "go":
            return paused
        return True

    def action_control(self, word):
        told = {"pause": "pauses", "go": "goes on", "sample": "gives a sample", "stop": "saves and stops"}
        try:
            self.run.control(word)
        except OSError as e:
            why = f"{self.run.folder}: {e.strerror}. Only k, which kills it, needs no disk."
            self.notify(why, severity="error")
        else:
            self.notify(f"It {told[word]} after this step", timeout=2)

    @work
    async def action_stop(self):
        run = self.run
        text = f"Stop {run.name}? It saves, and can be resumed. Until you say so it trains on."
        if not await self.app.push_screen_wait(Ask("stop", text, s="stop and save")):
            return
        if run.state == "starting" and run.process:
            run.process.terminate()
        else:
            self.action_control("stop")

    @work
    async def action_kill(self):
        run = self.run
        pid = run.process.pid if run.process else run.start.get("pid")
        text = f"Kill process {pid} of {run.name}, without saving? Stop (s) saves. Kill only what hangs."
        if not await self.app.push_screen_wait(Ask("kill", text, k="kill it")):
            return
        if run.process:
            run.process.kill()
        elif run.ask_lock() and isinstance(pid, int) and os.name == "posix":
            os.kill(pid, 9)
        else:
            self.notify("It was not started here: kill it where it runs", severity="warning")

    def action_resume(self):
        run = self.run
        flags = ["--resume", str(run.folder)]
        flags += [f"--{name}={value}" for name, value in self.remedy(run)[1].items()]
        self.app.launch(run.folder, flags)

    @work
    async def action_anew(self):
        "A run of the same settings in a new folder, since nothing was kept to go on from."
        run = self.run
        if not run.start:
            self.app.switch_mode("train")
            return
        run.find_checkpoints()
        if run.can_go_on:                        # one has come since the footer was made
            self.action_resume()
            return
        settings = await self.app.settings_of(run)
        settings |= self.remedy(run)[1]
        folder = self.app.fresh_folder(run.folder.name)
        self.app.launch(folder, as_flags({**settings, "out_dir": str(folder)}))

    def remedy(self, run):
        "What helps, and its flags. Rates far above the preset's own are set back to those at once."
        if not run.trouble:
            advice = [found[1] for text in run.warnings if (found := ADVICE.search(text))]
            return "", {"threads": advice[-1]} if advice else {}
        flags = dict(run.trouble.flags)
        train = run.part("train")
        known = {}
        if self.app.catalog:
            known = self.app.catalog.recipe(train.get("preset"), train.get("level"))
        for name in {"learning_rate", "muon_lr"} & flags.keys() & known.keys():
            if (number(train.get(name)) or 0) > 3 * known[name]:
                flags[name] = known[name]
        if flags == run.trouble.flags:
            return run.trouble.remedy, flags
        rates = ", ".join(f"{name} {written(value)}" for name, value in sorted(flags.items()))
        return f"{run.again} with the preset's own {rates}", flags

    @work(exclusive=True, group="catalog")
    async def learn_presets(self):
        if not await self.app.read_presets():
            self.show()

    def action_log_pane(self):
        self.query_one("#watch").toggle_class("-log")
        self.show()

    def action_find(self):
        "Search in the log, which is opened for that."
        if not self.is_wide:
            self.query_one("#watch").add_class("-log")
        box = self.query_one("#find")
        box.display = True
        box.focus()
        self.show()

    @on(Input.Changed, "#find")
    def found(self):
        self.hit = None
        if self.run:
            self.show_log(self.run)

    @on(Input.Submitted, "#find")
    def to_the_newest(self):
        self.set_focus(None)
        self.action_next(-1)

    def action_next(self, by):
        "The next line that has what is looked for, or the one before."
        if not self.hits:
            self.notify("No line of the log has it", timeout=2)
            return
        ahead = []
        if self.hit is not None:
            ahead = [at for at in self.hits if (at - self.hit) * by > 0]
        ahead = ahead or self.hits               # from an end on to the other one
        self.hit = ahead[0] if by > 0 else ahead[-1]
        self.show_log(self.run)
        pane = self.query_one("#log")
        y = self.query_one("#log Words", Words).row_of("line", self.hit)
        pane.scroll_to(y=max(0, y - pane.size.height // 2), animate=False)

    def action_stop_finding(self):
        box = self.query_one("#find", Input)
        box.value = ""
        box.display = False
        self.set_focus(None)

    def action_lapse(self):
        "Between the run as it is and the samples of all its steps."
        watch = self.query_one("#watch")
        lapse = self.query_one(TimeLapse)
        watch.toggle_class("-lapse")
        lapse.can_focus = watch.has_class("-lapse")
        if lapse.can_focus:
            lapse.put(self.run)
            lapse.focus()
            self.call_after_refresh(lapse.show)  # now it knows its size
        else:
            lapse.halt()
            self.set_focus(None)

    def action_smooth(self):
        order = list(SMOOTHING)
        self.share = order[(order.index(self.share) + 1) % len(order)]
        self.notify(f"smoothing: {SMOOTHING[self.share]}", timeout=1.5)
        self.show()


# ---- Runs: all of them -------------------------------------------------------------------------------------

# narrow: shown at 80 columns, too; down: sorted with the largest first; form: a number's, right-aligned.
Column = namedtuple("Column", "title narrow value down form")


def configured(run, name):
    "A value of a run's configuration, as text."
    return clean(run.part("train").get(name, "—"))


def best_loss(run):
    best = run.best
    return best.val if best else None


def best_bits(run):
    best = run.best
    return best.bits if best else None


def delete_run(folder):
    "Delete what a run consists of and nothing else. -> what is wrong, or nothing"
    ours = re.compile(r"config\.json|metrics\.jsonl|train\.log|control|.+\.(pt|tmp)|chat-.+")
    try:
        for path in list(folder.iterdir()):
            if ours.fullmatch(path.name):
                path.unlink()
        folder.rmdir()
    except OSError as e:
        return f"{clean(folder)}: {e.strerror}"


TRASH = ".trash"                                 # the folder beside the runs to which deleted ones go


def to_trash(folder, when):
    "Move a run away, under a name that says when. -> what is wrong, or nothing"
    trash = folder.parent / TRASH
    try:
        trash.mkdir(exist_ok=True)
        folder.rename(trash / f"{when}.{folder.name}")
    except OSError as e:
        return f"{clean(folder)}: {e.strerror}"


def in_trash(root):
    "The folders that were moved away last, all at once."
    found = []
    with contextlib.suppress(OSError):
        found = sorted(path for path in (root / TRASH).iterdir() if "." in path.name)
    return [path for path in found if path.name.partition(".")[0] == found[-1].name.partition(".")[0]]


class RunTable(DataTable):
    "The list, whose keys are about a whole line."

    BINDINGS = [
        Binding("enter", "screen.open", "Watch"),
        hidden("home,g", "scroll_top", "First run"),
        hidden("end,G", "scroll_bottom", "Last run"),
    ]


class Runs(Charted):
    HELP = """All runs of this folder. Space marks runs whose curves are then laid over one another; with none
marked, the chart shows the one under the cursor. A click on a column's title sorts by it."""
    CSS = """
    Runs {
        #filter { display: none; }
        #overlay { border-top: solid $foreground 15%; border-title-color: $text-accent; }
        #none { display: none; padding: 1 3; height: 1fr; }
        #differs { height: auto; padding: 0 1; border-top: solid $foreground 15%; text-wrap: nowrap; }
    }
    """
    KEYED = (RunTable,)
    BINDINGS = [
        Binding("space", "mark", "Overlay"),
        hidden("s", "sort", "Sort by the next column"),
        hidden("S", "reverse", "Sort the other way"),
        Binding("slash", "filter", "Filter"),
        Binding("c", "chat", "Chat"),
        Binding("n", "rename", "Rename"),
        Binding("d", "delete", "Delete"),
        Binding("u", "undo", "Undo"),
        hidden("U", "empty", "Empty the trash"),
        hidden("w", "copy", "Copy the command"),
        hidden("escape", "clear", "Show all"),
        *CHART_KEYS,
    ]
    COLUMNS = [
        Column("run", True, lambda run: run.name.lower(), False, None),
        Column("state", True, lambda run: run.state, False, None),
        Column("preset", False, lambda run: configured(run, "preset"), False, None),
        Column("level", False, lambda run: configured(run, "level"), False, None),
        Column("data", False, lambda run: Path(configured(run, "data")).name, False, None),
        Column("weights", False, lambda run: run.weights, True, short),
        Column("steps", True, lambda run: run.step, True, "{:,}".format),
        Column("best", True, best_loss, False, fixed),
        Column("b/byte", True, best_bits, False, fixed),
        Column("tok/s", True, lambda run: run.speed, True, short),
        Column("when", True, lambda run: run.when, True, None),
    ]
    METRICS = METRICS
    PER_TOKEN = "validation loss", "training loss, smoothed", "gap: validation - training"
    metric = "validation loss"
    MOST_DIFFERENCES = 8                         # lines of them, in a tall terminal
    FEW_DIFFERENCES = 3                          # and in others
    FILTERED = "run", "state", "preset", "level", "data"  # the columns in which the filter looks

    def __init__(self):
        super().__init__()
        self.by = "when"                         # the column that sorts
        self.backwards = False
        self.marked = []                         # folders
        self.listed = []                         # the runs as they stand in the table
        self.drawn = None                        # what the table shows

    def body(self):
        yield Words(id="none")
        filter_words = "filter: words of name, state, preset, level or data"
        yield Input(placeholder=filter_words, id="filter", compact=True)
        yield RunTable(id="table", cursor_type="row", zebra_stripes=False, cell_padding=1)
        yield Chart("no such numbers yet", id="overlay")
        yield Words(id="differs")

    def on_mount(self):
        self.query_one(DataTable).focus()

    def column(self, title):
        return next(column for column in self.COLUMNS if column.title == title)

    def columns(self):
        return [column for column in self.COLUMNS if column.narrow or self.is_wide]

    @property
    def goes_down(self):
        "Whether the largest comes first."
        return self.column(self.by).down != self.backwards

    # which runs

    def found(self):
        "The runs that the filter leaves, sorted; those without such a number come last."
        wanted = self.query_one("#filter", Input).value.lower().split()
        looked_at = [self.column(title) for title in self.FILTERED]
        runs = []
        for run in self.app.runs.values():
            text = " ".join(column.value(run) for column in looked_at).lower()
            if all(word in text for word in wanted):
                runs.append(run)
        value = self.column(self.by).value
        known = [run for run in runs if value(run) is not None]
        unknown = [run for run in runs if value(run) is None]
        return sorted(known, key=value, reverse=self.goes_down) + unknown

    @property
    def run(self):
        "The one under the cursor."
        at = self.query_one(DataTable).cursor_row
        return self.listed[at] if 0 <= at < len(self.listed) else None

    def meant(self):
        "The marked runs; with none marked, the one under the cursor."
        marked = [self.app.runs[folder] for folder in self.marked if folder in self.app.runs]
        if marked:
            return marked
        return [self.run] if self.run else []

    # what is shown

    @on(Input.Changed, "#filter")
    def show(self):
        super().show()
        nothing = not self.app.runs
        table = self.query_one(DataTable)
        none = self.query_one("#none", Words)
        none.display = nothing
        table.display = not nothing
        self.query_one(Chart).display = not nothing
        self.query_one("#differs").display = False
        none.put(
            ("No runs yet", "bold"), f" in {clean(self.app.root.absolute())}\n\n",
            ("1", KEY), " chooses a preset: nano takes a minute or two.\nElsewhere: ",
            ("python tui.py --runs FOLDER", "bold"), ", or one run: ", ("python tui.py RUN", "bold"),
        )
        here = self.run
        self.marked = [folder for folder in self.marked if folder in self.app.runs]
        self.listed = self.found()
        columns = self.columns()
        rows = [self.cells(run, columns) for run in self.listed]
        titles = [column.title for column in columns]
        drawn = titles, self.by, self.backwards, [[cell.markup for cell in row] for row in rows]
        if drawn != self.drawn:
            self.drawn = drawn
            self.fill(table, columns, rows)
            if here in self.listed:
                table.move_cursor(row=self.listed.index(here))
        self.show_chart()

    def fill(self, table, columns, rows):
        table.clear(columns=True)
        table.styles.height = min(len(rows) + 1, max(3, self.size.height // 2))
        for i, column in enumerate(columns):
            title = column.title
            if title == "run":
                title = f"  {title}"             # below the letter of the overlay
            if column.title == self.by:
                title += "▼" if self.goes_down else "▲"
            widths = [Text(title).cell_len, *(row[i].cell_len for row in rows)]
            table.add_column(Text(title), key=column.title, width=max(widths))
        for run, row in zip(self.listed, rows):
            table.add_row(*row, key=str(run.folder))

    def cells(self, run, columns):
        "A line of the table."
        color = self.app.color
        cells = []
        for column in columns:
            value = column.value(run)
            if column.title == "run":
                name = (run.name, "bold" if run is self.app.chosen else "")
                cells.append(Text.assemble(self.letter(run), " ", name))
            elif column.title == "state":
                dot = "●" if run.state in LIVE else " "
                hue = COLORS.get(run.state, "primary")
                cells.append(Text(f"{dot} {run.state}", color(f"text-{hue}")))
            elif column.title == "when":
                cells.append(Text(ago(time.time() - run.when), f"{color('foreground')} dim"))
            elif column.title == "steps":
                cells.append(Text(self.steps(run), justify="right"))
            elif column.form:
                cells.append(Text(column.form(value), justify="right"))
            else:
                cells.append(Text(value))
        return cells

    def letter(self, run):
        "That of the run's curve, where runs are laid over one another."
        if run.folder not in self.marked:
            return " ", ""
        mark = self.marked.index(run.folder) % 6
        return LETTERS[mark], f"bold {self.app.color('text-' + HUES[mark])}"

    def steps(self, run):
        most = number(run.start.get("max_iters"))
        if most and run.state != "done":
            return f"{short(run.step)}/{short(most)}"
        return f"{run.step:,}"

    @on(DataTable.RowHighlighted)
    def show_chart(self):
        runs = self.meant()
        levels = {configured(run, "level") for run in runs}
        which = self.metric
        if len(levels) > 1 and which in self.PER_TOKEN:  # their tokens differ, so only bytes compare
            which = "bits per byte"
        curves = []
        for i, run in enumerate(runs):
            x = along(run, self.axis)
            points = [(x(step), y) for step, y in METRICS[which](run)]
            is_here = run is self.run and len(runs) > 1
            curves.append(Curve(run.name[:24], str(i % 6), points, "strong" if is_here else "line"))
        curves.sort(key=lambda curve: curve.look == "strong")  # what is drawn last covers the others
        chart = self.query_one(Chart)
        chart.border_title = f"{which}, by {self.axis}"
        if which != self.metric:
            chart.border_title += f" (levels {' and '.join(sorted(levels))}: loss per token does not compare)"
        chart.plot(curves, unit=self.axis)
        self.show_differences(runs)

    def show_differences(self, runs):
        "Below the curves: in which settings the runs differ, as many as there is room for."
        differs = self.query_one("#differs", Words)
        found = differing(runs)
        differs.display = bool(found) and not self.has_class("-flat")
        most = self.MOST_DIFFERENCES if self.has_class("-tall") else self.FEW_DIFFERENCES
        parts = [(f"{'they differ in':24}", KEY)]
        for i in range(len(runs)):
            parts.append((f"{LETTERS[i % 6]:11}", f"bold $text-{HUES[i % 6]}"))
        for name, values in list(found.items())[:most]:
            parts.append((f"\n{name:24}", DIM))
            parts.append("".join(f"{clean(written(value))[:10]:<11}" for value in values))
        if len(found) > most:
            parts.append((f"\nand {len(found) - most} more", DIM))
        differs.put(*parts)

    # keys

    def check_action(self, action, parameters):
        run = self.run if self.is_mounted else None
        if action in ("open", "mark", "delete", "rename", "copy"):
            return bool(run)
        if action == "chat":
            return bool(run and run.checkpoints)
        if action in ("undo", "empty"):
            return bool(in_trash(self.app.root))
        if action in ("sort", "reverse", "filter", "metric", "axis", "export", "log", "chart"):
            return bool(self.app.runs)
        return True

    @on(DataTable.RowSelected)
    def action_open(self):
        self.app.watch_run(self.run)

    def action_mark(self):
        folder = self.run.folder
        if folder in self.marked:
            self.marked.remove(folder)
        else:
            self.marked.append(folder)
        self.show()

    def action_sort(self):
        titles = [column.title for column in self.columns()]
        at = 0
        if self.by in titles:
            at = titles.index(self.by) + 1
        self.by = titles[at % len(titles)]
        self.backwards = False
        self.show()

    def action_reverse(self):
        self.backwards = not self.backwards
        self.show()

    @on(DataTable.HeaderSelected)
    def sort_by(self, event):
        title = event.column_key.value
        self.backwards = title == self.by and not self.backwards
        self.by = title
        self.show()

    def action_filter(self):
        box = self.query_one("#filter")
        box.display = True
        box.focus()

    @on(Input.Submitted, "#filter")
    def to_table(self):
        self.query_one(DataTable).focus()

    def action_clear(self):
        box = self.query_one("#filter", Input)
        box.display = False
        box.value = ""
        self.query_one(DataTable).focus()

    @work
    async def action_delete(self):
        runs = self.meant()
        alive = [run.name for run in runs if run.state in LIVE]
        if alive:
            self.notify(f"{', '.join(alive)} is running: stop it first", severity="warning")
            return
        names = ", ".join(run.name for run in runs)
        text = f"Delete {names}, checkpoints and all?"
        answer = await self.app.push_screen_wait(Ask(
            "delete", text, y=f"move to {self.app.root / TRASH}: u brings it back",
            x="delete for good, which makes room on the disk",
        ))
        if not answer:
            return
        when = time.strftime("%Y%m%d-%H%M%S")
        for run in runs:
            trouble = to_trash(run.folder, when) if answer == "y" else delete_run(run.folder)
            if trouble:
                self.notify(trouble, severity="error")
            self.app.forget(run)
        self.marked = []
        self.show()
        self.refresh_bindings()

    @work
    async def action_empty(self):
        "Delete for good what was moved away, whenever that was."
        trash = self.app.root / TRASH
        folders = [path for path in trash.iterdir() if path.is_dir()]
        taken = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
        count = "one run" if len(folders) == 1 else f"{len(folders)} runs"
        text = f"Delete for good what is in {trash}: {count}, {size(taken)}?"
        if not await self.app.push_screen_wait(Ask("empty the trash", text, x="delete for good")):
            return
        for folder in folders:
            trouble = delete_run(folder)
            if trouble:
                self.notify(trouble, severity="error")
        self.refresh_bindings()

    def action_undo(self):
        "Bring back what was deleted last."
        for folder in in_trash(self.app.root):
            new = self.app.root / folder.name.partition(".")[2]
            try:
                if new.exists():                 # else it would go into that folder, or take its place
                    raise FileExistsError(17, "there is another run of that name")
                folder.rename(new)
            except OSError as e:
                self.notify(f"{new}: {e.strerror}", severity="error")
                return
            self.app.look_at(new)
        self.show()
        self.refresh_bindings()

    @work
    async def action_rename(self):
        run = self.run
        if run.state in LIVE:
            self.notify(f"{run.name} is running: stop it first", severity="warning")
            return

        def problem(name):
            if not fit_for_a_name(name):
                return "a name without / \\ : * ? \" < > |"
            if name != run.folder.name and run.folder.with_name(name).exists():
                return "there is one of that name"

        name = await self.app.push_screen_wait(Enter("rename", run.folder.name, problem))
        if not name or name == run.folder.name:
            return
        try:
            new = run.folder.rename(run.folder.with_name(name))
        except OSError as e:
            self.notify(f"can't rename: {e.strerror}", severity="error")
            return
        self.marked = [new if folder == run.folder else folder for folder in self.marked]
        self.app.forget(run)
        self.app.look_at(new)
        self.show()


# ---- Train: choose, change, start --------------------------------------------------------------------------

LIMITS = "max_iters", "epochs", "max_minutes"    # a run needs one of these
LONG_HOURS = 2                                   # from which a training is no longer promised in green


class Catalog:
    "What `gpt.py presets --json` tells: recipes, fields with their rules, devices. None of it stands here."

    def __init__(self, found):
        self.presets = found["presets"]
        self.fields = {field["name"]: field for field in found["fields"]}
        devices = found["devices"] or [{}]
        self.device = devices[0]

    def recipe(self, preset, level=None):
        "All values of a preset at a level, and what it costs."
        about = self.presets.get(preset) or {}
        values = about.get(level or about.get("level", "char"))
        if not values:
            return {}
        return {**values, "vocab_size": self.fields["vocab_size"]["default"]}

    def read(self, name, text):
        "What is typed -> a value of the field's type, or ValueError that says what was expected."
        field = self.fields[name]
        if field["type"] == "bool":
            return self.choice(text, ("true", "false")) == "true"
        if field["choices"]:
            return self.choice(text, field["choices"])
        if field["type"] == "int":
            return self.converted(text, int, "a whole number")
        if field["type"] == "float":
            return self.converted(text, float, "a number")
        return text

    def choice(self, text, choices):
        if text.lower() not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return text.lower()

    def converted(self, text, kind, expected):
        try:
            return kind(text)
        except ValueError:
            raise ValueError(expected) from None

    def problems(self, texts):
        "What is wrong with the values, by field; the rules are those of the command line."
        values = {}
        found = {}
        for name, text in texts.items():
            try:
                values[name] = self.read(name, text)
            except ValueError as e:
                found[name] = f"{name}: expected {e}"
        for name in values:
            if not self.rule_holds(name, values):
                found[name] = f"{name} {texts[name]}: needs {self.fields[name]['rule']}"
        if not any(values.get(name) or name in found for name in LIMITS):
            found["max_iters"] = f"no end in sight: set {' or '.join(LIMITS)}"
        return found

    def rule_holds(self, name, values):
        "A rule is an expression over the fields, such as n_embd % n_head == 0."
        try:
            return bool(eval(self.fields[name]["rule"], {"__builtins__": {}}, values))
        except NameError:                        # a field that it needs is wrong itself
            return True


class Browse(Box):
    "A file of one's own: a folder after the other, with the first lines of the file under the cursor."

    DEFAULT_CSS = """
    Browse {
        OptionList { height: 12; max-height: 12; }
        Words { height: 5; border-top: solid $foreground 15%; color: $foreground 60%; text-wrap: nowrap; }
    }
    """
    BINDINGS = [hidden("backspace,left", "up", "The folder above")]
    OURS = {"runs", "__pycache__"}               # folders in which nobody keeps texts

    def __init__(self):
        self.folder = Path.cwd()
        self.list = OptionList(compact=True)
        super().__init__("", self.list, Words())
        self.frame.border_subtitle = "enter takes it, backspace: the folder above"

    def on_mount(self):
        self.open(self.folder)

    def open(self, folder, at=None):
        "Show what is in a folder, with the cursor on the one of a name."
        try:
            found = [path for path in folder.iterdir() if self.is_of_use(path)]
        except OSError as e:
            self.app.notify(f"{folder}: {e.strerror}", severity="warning")
            return
        self.folder = folder
        self.frame.border_title = clean(folder)
        found.sort(key=lambda path: (not os.path.isdir(path), path.name.lower()))
        self.list.clear_options()
        if folder.parent != folder:
            self.list.add_option(Option(bits(("..", "bold"), ("  the folder above", DIM)), id=".."))
        for path in found:
            self.list.add_option(Option(self.line(path), id=path.name))
        names = [path.name for path in found]
        self.list.highlighted = 1 + names.index(at) if at in names else 0
        self.list.focus()

    def is_of_use(self, path):
        return not path.name.startswith(".") and path.name not in self.OURS

    def line(self, path):
        name = clean(path.name)
        if os.path.isdir(path):
            return bits((f"{name}/", "bold"))
        found = plain_file(path)
        length = f"{short(found.st_size)}B" if found else "—"
        return bits(f"{name:52} ", (f"{length:>9}", DIM))

    def on_option_list_option_highlighted(self, event):
        self.query_one(Words).put(self.first_lines(self.path_of(event.option_id)))

    def path_of(self, name):
        return self.folder.parent if name == ".." else self.folder / name

    def first_lines(self, path):
        if os.path.isdir(path):
            is_data = os.path.exists(path / "meta.json")
            return "made by data.py: enter takes it" if is_data else "a folder"
        if not plain_file(path):                 # reading a pipe would wait for who writes into it
            return "no file to read"
        try:
            with open(path, "rb") as file:
                start = file.read(1000)
        except OSError as e:
            return e.strerror
        if b"\0" in start:
            return "no text"
        return clean(start.decode("utf-8", "replace").replace("\r", ""))

    def on_option_list_option_selected(self, event):
        path = self.path_of(event.option_id)
        if os.path.isdir(path) and not os.path.exists(path / "meta.json"):
            self.open(path, at=self.folder.name)
            return
        if path.name in ("meta.json", "train.bin", "val.bin"):
            path = path.parent
        with contextlib.suppress(ValueError):
            path = path.relative_to(Path.cwd())
        self.dismiss(str(path))

    def action_up(self):
        self.open(self.folder.parent, at=self.folder.name)


class Preview(Words):
    "The text to train on: how much it is, and its start as the level cuts it, a block a token."

    BLOCKS = "on $primary 30%", "on $accent 25%", "on $success 25%", "on $warning 25%"
    UNKNOWN = "bold on $error 60%"

    def tell(self, name, about, seen):
        "about: what gpt.py says of it; seen: how many tokens the planned training sees, or None"
        title = (f"{clean(name)}", "bold")
        if "why" in about:
            self.put(title, f"  {clean(about['why'])}")
            return
        roughly = "about " if about["is_part"] else ""
        facts = [size_of_text(about["bytes"]), f"{roughly}{short(about['tokens'])} tokens",
                 f"{about['kinds']:,} kinds"]
        if about["unknown"]:
            facts.append(f"{about['unknown']:.1%} unknown")
        if seen:
            times = seen / max(1, about["tokens"])
            facts.append(f"seen {short(times) if times >= 1000 else f'{times:.3g}'} times")
        self.put(title, f"  {' · '.join(facts)}\n\n", *self.blocks(about))

    def blocks(self, about):
        for at, (text, token) in enumerate(about["start"]):
            look = self.BLOCKS[at % len(self.BLOCKS)]
            if token == about["unknown_id"]:
                look = self.UNKNOWN
            yield clean(text), look


def size_of_text(n):
    return size(n) if n >= 1e6 else f"{short(n)}B"


# What the knobs of a training do, for who turns them for the first time. The others have only their help.
LESSONS = {
    "level": "What the model reads and writes one of at a time. char: it has to learn to spell, and can "
             "write any word. word: sentences come sooner, but rare words are unknown to it. bpe: frequent "
             "words whole, others in parts, as large models do it; that takes more text and more time.",
    "data": "The text to learn from. The model will write like it, so take one that you know well: a book, "
            "your mails, a program. The last tenth is held out, to see how it does on what it never saw.",
    "max_iters": "How many steps. In each the model sees a batch of passages and is corrected once. The "
                 "learning rate falls to its end along these steps, so a longer run is another run from its "
                 "first step on.",
    "max_minutes": "How long it may take. The learning rate falls with the clock, and the run ends well "
                   "whatever this machine is busy with. 0: the steps decide.",
    "batch_size": "How many passages a step learns from. More: a steadier way down, but each step takes that "
                  "much longer. Where memory runs out, a batch is cut into parts by itself.",
    "learning_rate": "How far a step goes. Too high: the loss jumps, or becomes no number. Too low: nothing "
                     "is wrong, it only takes longer. Try a third or three times as much.",
    "dropout": "The share of its own thoughts that it must do without while it learns. Against learning a "
               "small text by heart: 0.1 to 0.3 where it reads the text many times, 0 where it does not.",
    "eval_interval": "Every so many steps it is tested on the text that is held out, and writes a sample. "
                     "More often: a finer picture, but testing takes time, too.",
    "run": "The folder under runs/ that all of it goes to. Delete it and nothing is left.",
    "n_layer": "How many times the model thinks over what it read. More: better and slower, and it takes "
               "more text to be worth it.",
    "n_head": "In how many places each layer can look at once. It has to divide n_embd.",
    "n_embd": "How many numbers stand for a token. Twice as many: four times the weights.",
    "block_size": "How many tokens back it can see. What lies before that it has forgotten.",
}


class Train(Page):
    HELP = """Choose a preset, change what you like, start. Each field is a flag of `python gpt.py train`;
what is wrong is said while you type. enter goes on, esc goes back to the presets. F6 shows the text as the
model gets it: a block is a token."""
    CSS = """
    Train {
        #left { width: 42; }
        #recipes { height: 1fr; overflow-x: hidden; }
        #look { display: none; padding: 0 1; border-top: solid $foreground 15%; height: 1fr; }
        &.-slim #left { width: 23; }
        &.-wide.-tall #look, &.-look #look { display: block; }
        &.-wide.-tall #recipes { height: auto; max-height: 60%; }
        &.-look #left { width: 1fr; }
        &.-look #recipes, &.-look #right { display: none; }
        &.-wide.-tall #recipes, &.-wide.-tall #right { display: block; }
        &.-flat #about, &.-flat #more { display: none; }
        &.-wide #left { width: 68%; }
        #right { border-left: solid $foreground 15%; }
        #form { padding: 0 1; height: 1fr; }
        #lesson { display: none; height: auto; padding: 0 1; border-top: solid $foreground 15%; }
        &.-wide.-tall #lesson { display: block; }
        #about { margin-bottom: 1; }
        #more { height: 1; margin-top: 1; color: $text-primary; }
        #more:focus { text-style: bold reverse; }
        #order { height: auto; border-top: solid $foreground 15%; padding: 0 1; }
        #hint { height: 1; color: $foreground 60%; text-wrap: nowrap; text-overflow: ellipsis; }
        #hint.-bad { color: $text-error; }
        #command { width: 1fr; height: auto; max-height: 3; color: $text-success; }
        #go { height: auto; }
        #estimate { width: 1fr; height: auto; max-height: 2; }
        #start { width: 14; min-width: 14; }
        #broken { display: none; height: 1fr; padding: 1 3; }
        &.-broken #choose, &.-broken #order { display: none; }
        &.-broken #broken { display: block; }
    }
    """
    BINDINGS = [
        Binding("ctrl+s", "start", "Start"),
        Binding("ctrl+o", "data", "Data"),
        Binding("f6", "look", "Text"),
        Binding("ctrl+t,f8", "more", "Advanced"),
        Binding("ctrl+y", "copy", "Copy command"),
        hidden("down", "app.focus_next", "Next"),
        hidden("up", "app.focus_previous", "Back"),
        hidden("escape", "presets", "Presets"),
        Binding("r", "reload", "Read again"),
        Binding("e", "edit", "Edit the file"),
    ]
    COMMON = ("max_iters", "max_minutes", "batch_size", "learning_rate", "dropout", "eval_interval")
    COSTLY = {"n_layer", "n_head", "n_embd", "block_size", "batch_size", "micro_batch", "vocab_size"}
    WORK = ("parameters", "batch_size", "block_size", "max_iters", "max_minutes")  # how much there is to do
    HARMLESS = {"run", "data", "eval_interval", "sample_every", "sample_prompt", "sample_tokens",
                "log_interval", "save_minutes", "keep", "threads", "tracker"}  # to the loss it comes to
    ELSEWHERE = ("preset", "presets", "level", "data", "out_dir", "resume")  # not among the advanced

    def __init__(self):
        super().__init__()
        self.preset = ""
        self.drawn = None                        # the presets' columns, and the speeds they go by
        self.edited = {}                         # field: what was typed
        self.found = {}                          # field: what is wrong
        self.cost = {}                           # of what was edited, as gpt.py says; {}: not asked
        self.looked_at = {}                      # flags that say which text: what gpt.py says of it

    def body(self):
        yield Words(id="broken")
        with Horizontal(id="choose"):
            with Vertical(id="left"):
                yield DataTable(id="recipes", cursor_type="row", cell_padding=1)
                with VerticalScroll(id="look", can_focus=False):
                    yield Preview()
            with Vertical(id="right"):
                with VerticalScroll(id="form", can_focus=False):
                    yield Words(id="about")
                yield Words(id="lesson")
        with Vertical(id="order"):
            yield Words(id="hint")
            yield Words(id="command")
            with Horizontal(id="go"):
                yield Words(id="estimate")
                yield Button("▶ Start", id="start", variant="success", compact=True, disabled=True)

    def on_mount(self):
        self.query_one("#recipes").focus()
        self.query_one("#about", Words).put("reading the presets …")
        self.action_reload()

    # what there is

    @work(exclusive=True)
    async def action_reload(self):
        trouble = await self.app.read_presets()
        if trouble:
            self.broken(trouble)
            return
        self.remove_class("-broken")
        self.refresh_bindings()
        table = self.query_one("#recipes", DataTable)
        names = list(self.app.catalog.presets)
        if self.preset not in names:
            self.preset = names[table.cursor_row] if 0 <= table.cursor_row < len(names) else names[0]
        self.fill_table()
        if not self.query("#level"):
            await self.mount_fields()
        self.choose(self.preset)
        self.show()

    def titles(self):
        "The columns of the presets for which there is room."
        titles = ["preset", "here"]
        if self.size.width >= ROOMY:
            titles = ["preset", "weights", "memory", "here"]
        if self.is_wide:
            titles += ["context", "for"]
        return titles

    def show(self):
        super().show()
        if self.drawn != (self.titles(), self.app.measured()):
            self.fill_table()
            if self.query("#level"):
                self.estimate()
                self.look_at_data()

    def fill_table(self):
        table = self.query_one("#recipes", DataTable)
        titles = self.titles()
        self.drawn = titles, self.app.measured()
        with self.prevent(DataTable.RowHighlighted):
            table.clear(columns=True)
        for title in titles:
            table.add_column(title)
        catalog = self.app.catalog
        presets = catalog.presets if catalog else self.names_at_once()
        for name, about in presets.items():
            cost = catalog.recipe(name) if catalog else {}
            cells = {
                "preset": Text(clean(name), "bold"),
                "weights": Text(short(number(cost.get("parameters"))), justify="right"),
                "memory": Text(size(number(cost.get("memory"))), justify="right"),
                "here": self.verdict(cost),
                "context": Text(str(cost.get("block_size", "—")), justify="right"),
                "for": Text(clean(about.get("for", ""))),
            }
            table.add_row(*[cells[title] for title in titles], key=name)
        if self.preset in presets:
            table.move_cursor(row=list(presets).index(self.preset))

    def names_at_once(self):
        "The presets by name: to say what they take costs gpt.py a moment."
        with contextlib.suppress(OSError, ValueError):
            presets = json.loads(self.presets_file().read_text(encoding="utf-8"))
            if isinstance(presets, dict) and all(isinstance(about, dict) for about in presets.values()):
                return presets
        return {}

    def verdict(self, cost):
        "How long it takes on this machine, or whether it can be trained here at all."
        word, hue = "yes", "success"
        if not cost:
            word, hue = "…", "primary"
        elif not cost.get("fits"):
            word, hue = "no", "error"
        else:
            seconds, _ = self.time_for(cost)
            if seconds:
                word = in_words(seconds)
            if seconds and seconds > LONG_HOURS * 3600:
                hue = "warning"
        return Text(word, self.app.color(f"text-{hue}"))

    def time_for(self, values):
        "-> the seconds that such a training takes here, about, and how that is known; or None."
        work = {name: number(values.get(name)) or 0 for name in self.WORK}
        if work["max_minutes"]:
            return work["max_minutes"] * 60, ""
        steps = work["max_iters"]
        flops = number(values.get("flops_per_token"))
        speed, how = self.app.speed_for(flops, number(values.get("usual_flops_per_s")))
        if not steps or not flops or not speed:
            return None, ""
        return steps * work["batch_size"] * work["block_size"] * flops / speed, how

    def broken(self, message):
        "Instead of all else: what is wrong with presets.json, and where."
        mend = ["\nNothing was started. Mend it, then press ", ("r", KEY), ". ", ("e", KEY),
                " opens it in your editor."]
        self.query_one("#broken", Words).put(
            ("The presets can't be read.\n\n", "bold $text-error"), f"{clean(message)}\n\n",
            *self.place(message), *mend,
        )
        self.add_class("-broken")
        self.set_focus(None)
        self.refresh_bindings()

    def place(self, message):
        "The lines of presets.json around the one that the message names."
        found = re.search(r"line (\d+) column (\d+)", message)
        if not found:
            return []
        try:
            lines = self.presets_file().read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return []
        line = int(found[1])
        column = int(found[2])
        parts = []
        for i in range(max(1, line - 3), min(len(lines), line + 1) + 1):
            parts.append((f"{i:5} | {clean(lines[i - 1])}\n", "bold" if i == line else DIM))
            if i == line:
                parts.append((f"      | {' ' * (column - 1)}^\n", "bold $text-error"))
        return parts

    def presets_file(self):
        return self.app.gpt.with_name("presets.json")

    async def mount_fields(self):
        fields = [self.field(name) for name in ("level", "data", *self.COMMON, "run")]
        await self.query_one("#form").mount_all([*fields, Button("▸ advanced", id="more", compact=True)])

    def field(self, name, classes=None):
        about = self.app.catalog.fields.get(name, {"choices": None, "type": "str"})
        choices = about["choices"]
        if about["type"] == "bool":
            choices = ["true", "false"]
        box = Knob("", choices, id=name) if choices else Input(id=name, compact=True)
        return Field(name, box, classes=classes)

    def boxes(self):
        return self.query("Field Input, Field Knob")

    @on(DataTable.RowHighlighted, "#recipes")
    def moved(self, event):
        is_known = self.app.catalog and self.query("#level")
        if is_known and event.row_key and event.row_key.value and event.row_key.value != self.preset:
            self.choose(event.row_key.value)

    @on(DataTable.RowSelected, "#recipes")
    def picked(self):
        self.query_one("#start").focus()

    def choose(self, preset):
        "Another preset: its level and its values. The data stays."
        self.preset = preset
        self.cost = {}
        self.edited = {name: text for name, text in self.edited.items() if name == "data"}
        about = self.app.catalog.presets[preset]
        with self.prevent(Knob.Changed):
            self.query_one("#level", Knob).value = about.get("level", "char")
        made_for = f"for {clean(about['for'])}" if about.get("for") else ""
        self.query_one("#about", Words).put(
            (clean(preset), "bold"), f"  {clean(about.get('about', ''))}\n", (made_for, DIM)
        )
        self.fill()

    # the form

    @property
    def level(self):
        return self.query_one("#level", Knob).value

    @property
    def run_name(self):
        return self.query_one("#run", Input).value

    def base(self):
        "The recipe, as it is without edits."
        return self.app.catalog.recipe(self.preset, self.level)

    def fill(self):
        "Show each field's value: what was typed, else the recipe's."
        base = {**self.base(), "run": self.fresh_name()}
        with self.prevent(Input.Changed, Knob.Changed):
            for box in self.boxes():
                if box.id != "level":
                    box.value = self.edited.get(box.id, written(base.get(box.id, "")))
        self.check()

    def fresh_name(self):
        "For the next run: preset, level, data and, from the second one on, a number."
        name = f"{self.preset}-{self.level}"
        data = Path(self.edited.get("data", "")).stem
        if data:
            name += f"-{data}"
        name = re.sub(r"[^\w.-]+", "-", name)
        return self.app.fresh_folder(name).name

    def is_taken(self, name):
        return (self.app.root / name / "metrics.jsonl").exists()

    @on(Knob.Changed, "#level")
    def another_level(self):
        self.fill()

    @on(Input.Changed)
    @on(Knob.Changed)
    def changed(self, event):
        name = event.control.id
        if name == "level":
            return
        if event.value == written(self.base().get(name, "")):
            self.edited.pop(name, None)
        else:
            self.edited[name] = event.value
        if name == "data" and "run" not in self.edited:
            with self.prevent(Input.Changed):
                self.query_one("#run", Input).value = self.fresh_name()
        self.check()

    def texts(self):
        "Each field of the command line: what was typed, else the recipe's."
        base = self.base()
        names = [name for name in self.app.catalog.fields if name in base]
        return {name: self.edited.get(name, written(base[name])) for name in names}

    def numbers(self):
        "What is typed of how much there is to do."
        texts = self.texts()
        return {name: number_of(texts[name]) for name in self.WORK if name in texts}

    def problems(self):
        found = self.app.catalog.problems(self.texts())
        run = self.run_name
        data = self.texts().get("data", "")
        looks_like_a_path = re.search(r"[\\/]|\.\w+$", data) and ":" not in data[2:]
        if not fit_for_a_name(run):
            found["run"] = "run: a name without / \\ : * ? \" < > |"
        elif self.is_taken(run):
            found["run"] = f"run: there is one of the name {run}"
        if not data:
            found["data"] = "data: a text file, a folder made by data.py, a name, or builtin"
        elif looks_like_a_path and not Path(data).exists():
            found["data"] = f"data: there is no {data}"
        return found

    def flags(self):
        given = {"preset": self.preset, "level": self.level, **self.edited}
        given.pop("run", None)
        if any(name in self.edited for name in LIMITS):
            texts = self.texts()                 # one of them unsets the others: so name all
            given.update({name: texts[name] for name in LIMITS if number_of(texts[name])})
        given["out_dir"] = str(self.app.root / self.run_name)
        return as_flags(given)

    def command(self):
        return command_line([*self.app.trainer(), *self.flags()])

    def check(self):
        "Marks, the line of what is wrong, the command and the estimate."
        self.found = self.problems()
        for box in self.boxes():
            box.set_class(box.id in self.found, "-invalid")
            box.parent.set_class(box.id in self.edited, "-edited")
        self.hint()
        self.query_one("#start").disabled = bool(self.found)
        self.query_one("#command", Words).put(f"$ {clean(self.command())}")
        more = len(self.app.catalog.fields) - len(self.COMMON) - len(self.ELSEWHERE)
        opened = bool(self.query(".extra"))
        self.query_one("#more", Button).label = "▾ advanced" if opened else f"▸ advanced: {more} more"
        self.cost = {}
        if self.is_costly() and not self.found:
            self.estimate_edited()
        self.estimate()
        self.look_at_data()

    def is_costly(self):
        "Whether what was edited changes size or memory."
        return not self.COSTLY.isdisjoint(self.edited)

    def hint(self):
        "What is wrong with the field that has the focus, or with another; else what the field is."
        here = self.focused.id if self.focused else None
        wrong = self.found.get(here) or next(iter(self.found.values()), None)
        text = "enter: on to Start    tab: change it first"
        if self.has_class("-look") and not self.has_room_for_text:
            text = "esc: back to the presets"
        if wrong:
            text = wrong
        elif here in self.app.catalog.fields:
            text = f"{here}: {self.app.catalog.fields[here]['help']}"
        line = self.query_one("#hint", Words)
        line.set_class(bool(wrong), "-bad")
        line.put(clean(text))
        self.query_one("#lesson", Words).put(*self.lesson(here))

    def lesson(self, name):
        "Where there is room: what the field with the focus does to a training, or what the preset is."
        base = {**self.base(), **self.cost}
        if name not in self.app.catalog.fields:
            shape = "{n_layer} layers, {n_head} heads, {n_embd} wide; it sees {block_size} tokens at once."
            with contextlib.suppress(KeyError):  # what a preset does not say can't be told
                yield (f"{self.preset}\n", KEY)
                yield shape.format_map(base)
            yield "\n\nEvery field above is a flag of the command below. "
            yield from [("tab", KEY), " goes into them, ", ("ctrl+t", KEY), " shows the others."]
            return
        usual = written(base.get(name, ""))
        yield (f"{name}\n", KEY)
        yield f"{clean(LESSONS.get(name) or self.app.catalog.fields[name]['help'])}\n"
        if usual:
            yield (f"\nin this preset: {clean(usual)}", DIM)

    def on_descendant_focus(self):
        if self.app.catalog and self.query("#level"):
            self.hint()

    # what it will take

    @work(exclusive=True, group="estimate")
    async def estimate_edited(self):
        "The size of what was edited, said by the program that knows."
        await asyncio.sleep(0.4)                 # each key typed meanwhile begins it anew
        without_folder = self.flags()[:-2]
        code, out, _ = await self.app.ask("presets", "--json", *without_folder)
        if code != 0:
            return
        with contextlib.suppress(ValueError, KeyError, TypeError):
            self.cost = json.loads(out)["presets"][self.preset][self.level]
            self.estimate()

    def estimate(self):
        base = {**self.base(), **self.cost}
        needs = number(base.get("memory"))
        memory = number(self.app.catalog.device.get("memory"))
        fits = ("does not fit", "bold $text-error")
        seconds, how = self.time_for({**base, **self.numbers()})
        is_long = seconds and seconds > LONG_HOURS * 3600
        if base.get("fits"):
            fits = ("fits", "bold $text-warning" if is_long else "bold $text-success")
        parts = []
        if self.is_costly() and not self.cost:
            parts.append("unedited: ")
        parts.append((short(number(base.get("parameters"))), "bold"))
        parts.append(f" weights · {size(needs)} of {size(memory)} ")
        values = self.numbers()
        tokens = (values["batch_size"] or 0) * (values["block_size"] or 0)
        parts += [fits, f" · {short(tokens)} tokens a step"]
        if seconds:
            about = "about " if how else ""
            look = "bold $text-warning" if is_long else "bold"
            parts += [" · ", (f"{about}{in_words(seconds)}", look), how]
        self.query_one("#estimate", Words).put(*parts, *self.expected(base))

    def expected(self, base):
        "The loss to come, where it is known: of this preset, level and data, without other edits."
        data = self.texts()["data"]
        expect = clean(base.get("expect") or "")
        bests = []
        for run in self.runs_like_it():
            if run.part("train").get("data") == data:
                bests.append(best_loss(run))
        bests = [loss for loss in bests if loss is not None]
        if expect.endswith(f" on {data}") and self.HARMLESS.issuperset(self.edited):
            yield f" · {expect}"
        elif bests:
            yield f" · best so far {fixed(min(bests))}"

    def runs_like_it(self):
        "Earlier runs of this preset at this level, whose speed is known."
        like = []
        for run in self.app.runs.values():
            train = run.part("train")
            same = train.get("preset") == self.preset and train.get("level") == self.level
            if same and run.speed:
                like.append(run)
        return like

    # the text

    @property
    def has_room_for_text(self):
        return self.has_class("-wide") and self.has_class("-tall")

    def look_at_data(self):
        "Show the text that is named, once gpt.py has said what it is; each is asked for once."
        texts = self.texts()
        names = "data", "vocab_size", "min_freq", "val_fraction"
        given = {name: texts[name] for name in names if name in texts}
        flags = tuple(as_flags({"level": self.level, **given}))
        if not self.has_room_for_text and not self.has_class("-look"):
            return
        if self.found:
            wrong = self.found.get("data")
            if wrong:
                self.query_one(Preview).put((clean(wrong), "$text-error"))
            return
        about = self.looked_at.get(flags)
        if not about:
            self.query_one(Preview).put((f"reading {clean(texts['data'])} …", DIM))
            self.ask_about_data(flags)
            return
        work = {name: value or 0 for name, value in self.numbers().items()}
        seen = work["max_iters"] * work["batch_size"] * work["block_size"]
        self.query_one(Preview).tell(texts["data"], about, seen)

    @work(exclusive=True, group="look")
    async def ask_about_data(self, flags):
        await asyncio.sleep(0.4)                 # each key typed meanwhile begins it anew
        code, out, said = await self.app.ask("presets", "--json", "--preset", self.preset, *flags)
        about = {"why": said.strip() or "it can't be read"}
        with contextlib.suppress(ValueError, KeyError, TypeError):
            about = json.loads(out)["data"]
        if "not here yet" in str(about.get("why")):
            about["why"] = await self.why_not_here(self.texts()["data"], about["why"])
        self.looked_at[flags] = about
        self.look_at_data()

    async def why_not_here(self, name, why):
        "Of a text that is not prepared: whether it can be had, and whether it is fetched already."
        known = await self.app.corpora()
        if name not in known and ":" not in name:
            return "is no file, and no text that can be fetched has this name. ctrl+o: what there is"
        if re.search(r"\b(\d+) of \1 files", known.get(name, "")):
            return "is fetched; it is prepared when training begins"
        return why

    def action_look(self):
        "The text in the place of the form, where there is no room for both."
        if self.has_class("-look"):
            self.action_presets()
            return
        self.add_class("-look")
        self.hint()
        self.look_at_data()

    def action_presets(self):
        "Back to them, from the fields or from the text."
        self.remove_class("-look")
        self.query_one("#recipes").focus()
        if self.app.catalog and self.query("#level"):
            self.hint()

    # keys

    def check_action(self, action, parameters):
        broken = self.has_class("-broken")
        if action in ("reload", "edit"):
            return broken
        if action == "look" and self.has_room_for_text:
            return False                         # it is there anyway
        if action in ("start", "data", "more", "copy", "look"):
            return bool(self.app.catalog) and not broken
        return True

    @on(Input.Submitted)
    def next_field(self):
        self.focus_next()

    @on(Button.Pressed, "#more")
    @work
    async def action_more(self):
        extra = self.query(".extra")
        if extra:
            await extra.remove()
            self.check()
            return
        rows = []
        for part in "ModelConfig", "TrainConfig":
            for field in self.app.catalog.fields.values():
                name = field["name"]
                if field["part"] == part and name not in (*self.COMMON, *self.ELSEWHERE):
                    rows.append(self.field(name, classes="extra"))
        await self.query_one("#form").mount_all(rows)
        self.fill()
        rows[0].query_one("Input, Knob").focus()

    @work
    async def action_data(self):
        options = [("", bits(("browse …", KEY), "  a file of your own"))]
        for name, about in (await self.app.corpora()).items():
            options.append((name, bits((f"{name:16}", "bold"), (about, DIM))))
        pick = Pick("data: choose, or paste a path", options, paths=True)
        name = await self.app.push_screen_wait(pick)
        if name == "":
            name = await self.app.push_screen_wait(Browse())
        if name:
            self.query_one("#data", Input).value = name
            self.query_one("#data").focus()

    def action_copy(self):
        self.app.copy(self.command())

    def action_edit(self):
        path = self.presets_file()
        editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
        try:
            with self.app.suspend():
                subprocess.run([*shlex.split(editor), str(path)])
        except Exception as e:                   # Windows, a browser, no such editor
            self.notify(f"{path}: {e}", severity="warning")
            return
        self.action_reload()

    @on(Button.Pressed, "#start")
    @work
    async def action_start(self):
        self.check()                             # the disk may have changed
        if self.found:
            return
        base = {**self.base(), **self.cost}
        if not base.get("fits", True):
            text = f"{self.preset} takes about {size(number(base.get('memory')))} to train: more than " \
                "there is here, so it would fail, or take very long."
            if not await self.app.push_screen_wait(Ask("too large?", text, s="start it all the same")):
                return
        flags = self.flags()
        folder = self.app.root / self.run_name
        self.edited.pop("run", None)
        self.app.launch(folder, flags)
        self.fill()


# ---- Chat: talk to a checkpoint ----------------------------------------------------------------------------

# How it samples, until somebody turns a knob.
TEMPERATURE = 0.8
TOP_K = 0                                        # 0: not limited
TOP_P = 0.95
MIN_P = 0
REPETITION_PENALTY = 1
MAX_NEW_TOKENS = 200
SEED = 0                                         # 0: a new one each time

# choices: what a knob can be turned to; said, off: its name in a report, which is left out where it is off.
Setting = namedtuple("Setting", "name default choices type said off", defaults=[float, None, None])
MODE = Setting("mode", "continue", ("continue", "dialogue"), str)
SETTINGS = [
    Setting("temperature", TEMPERATURE, [f"{t / 10:g}" for t in range(21)], float, "T"),
    Setting("top_k", TOP_K, (0, 1, 5, 10, 20, 40, 100, 200), int, "top-k", 0),
    Setting("top_p", TOP_P, (0.5, 0.7, 0.8, 0.9, 0.95, 1), float, "top-p", 1),
    Setting("min_p", MIN_P, (0, 0.01, 0.02, 0.05, 0.1, 0.2), float, "min-p", 0),
    Setting("repetition_penalty", REPETITION_PENALTY, (1, 1.05, 1.1, 1.2, 1.3, 1.5), float, "repetition", 1),
    Setting("max_new_tokens", MAX_NEW_TOKENS, (20, 50, 100, 200, 500, 1000, 2000), int),
    Setting("seed", SEED, (0, 1, 2, 3, 42, 1337), int, "seed"),
]
KNOBS = {                                        # what they do, for who turns them for the first time
    "mode": "continue: the model writes on from what you begin. dialogue: what you say is put as a question, "
            "for a model that was taught to answer.",
    "temperature": "How much chance there is in each choice. 0: always the likeliest token, which soon goes "
                   "round in circles. 1: just as the model believes. Above that: wilder.",
    "top_k": "Choose among so many of the likeliest tokens. 0: among all.",
    "top_p": "Choose among the likeliest tokens which together have this probability: few where the model "
             "is sure, many where it is not. 1: among all.",
    "min_p": "Leave out tokens that have less than this share of the likeliest one's probability. 0: none.",
    "repetition_penalty": "How much less likely a token becomes once it was said. 1: not at all.",
    "max_new_tokens": "How long an answer may become. ctrl+g writes on.",
    "seed": "The dice: the same seed, text and knobs give the same answer. 0: new dice each time.",
}
DEAF_SECONDS = 2                                 # after which a process that does not stop is ended

# How a token looks under the X-ray: from red, which the model hardly expected, to green.
SURPRISES = [
    (0.02, "on $error 55%"), (0.1, "on $error 25%"), (0.3, "on $warning 30%"), (0.7, "on $success 18%"),
    (math.inf, "on $success 38%"),
]
EXPECTED = {"hardly": 0.01, "little": 0.05, "rather": 0.2, "well": 0.5, "surely": 0.9}

# And the tokens before it when one looks inside: how much of each a head of the model took in.
ATTENTION = [
    (0.02, ""), (0.05, "on $accent 12%"), (0.1, "on $accent 25%"), (0.25, "on $accent 45%"),
    (0.5, "on $accent 65%"), (math.inf, "on $accent 85%"),
]

# others: (text, prob) of what could have stood there; id: its number in the vocabulary
Token = namedtuple("Token", "text prob others id", defaults=[None])


def surprise(prob):
    return next(look for limit, look in SURPRISES if prob < limit)


def attention_look(share):
    return next(look for limit, look in ATTENTION if share < limit)


def attention_bar(share):
    "The root of it, so that small shares are seen, too."
    return (" " + BARS)[min(8, int(8.5 * math.sqrt(share)))]


def visible(text):
    "The text of a token, spaces and line ends included."
    return clean(repr(text)[1:-1]).replace(" ", "␣")


class Talk:
    """A checkpoint to talk to: `gpt.py chat --jsonl`, a process that takes and gives a JSON object a line.

    hear(kind, answer) is called with each answer, on the thread that listens; at last with "gone" and why."""

    def __init__(self, gpt, hear):
        self.gpt = gpt
        self.hear = hear
        self.process = None

    @property
    def is_alive(self):
        return self.process is not None and self.process.poll() is None

    def load(self, path):
        "Another checkpoint: in the process that is there, or in a new one."
        if self.is_alive:
            self.say(load=str(path))
            return
        self.process = subprocess.Popen(
            [sys.executable, str(self.gpt), "chat", str(path), "--jsonl"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
        )
        threading.Thread(target=self.listen, args=[self.process], daemon=True).start()

    def say(self, **request):
        "One request: id=, prompt= and how to sample, stop= the id of one, or load= a checkpoint."
        line = json.dumps(request).encode() + b"\n"
        with contextlib.suppress(OSError):       # it died: listen() finds out
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def stop(self, request):
        "End the answer to the request of that id."
        self.say(stop=request)

    def listen(self, process):
        words = []                               # what is no answer: an error, perhaps
        for line in process.stdout:
            try:
                answer = json.loads(line)
                kind = answer["kind"]
            except (ValueError, TypeError, KeyError):
                words = [*words, clean(line.decode("utf-8", "replace").rstrip())][-4:]
            else:
                self.hear(kind, answer)
        status = process.wait()
        if process is self.process:              # and no other has taken its place
            self.hear("gone", {"message": "\n".join(words) or f"Its process ended (status {status})."})

    def kill(self):
        if self.process:
            self.process.kill()


class Turn(Vertical):
    """What was asked and one answer to it, in one flow. A text can be long, and each repaint lays out again
    what changed: so it is a column of texts, broken at line ends, of which only the last one grows."""

    DEFAULT_CSS = "Turn { height: auto; margin-top: 1; }"
    CHUNK = 200                                  # tokens, from which a line end begins a new text

    def __init__(self, shown, sent, stop="", xray=False):
        super().__init__()
        self.shown = shown                       # what was asked, as it was typed
        self.sent = sent                         # and as the model gets it
        self.stop = stop                         # the text that ends the answer
        self.xray = xray
        self.at = None                           # the token under the cursor
        self.looks = {}                          # token before it: the share that a head took of it
        self.asked_looks = []                    # the same of what was asked: (text, share)
        self.tokens = []
        self.starts = [0]                        # the first token of each text
        self.chunks = [Words()]
        self.report = Words()
        self.told = ""                           # what the report says
        self.versions = [self]                   # all answers to this, of which one is shown
        self.voice = None                        # whose conversation it is in
        self.settings = {}
        self.model = ""                          # the checkpoint that answers
        self.requests = []                       # (first token, prompt) of each that was sent to it
        self.asked = 0.0                         # when
        self.stopping = None                     # since when
        self.paint(0)

    def compose(self):
        yield self.chunks[0]
        yield self.report

    def again(self):
        "Another version of it, still to be answered."
        version = Turn(self.shown, self.sent, self.stop, self.xray)
        version.versions = self.versions
        self.versions.append(version)
        return version

    def text(self, first=0, last=None):
        return "".join(token.text for token in self.tokens[first:last])

    def add(self, pieces):
        "What the model says: pieces as `gpt.py chat` writes them."
        for piece in pieces:
            if self.text(-1).endswith("\n") and len(self.tokens) - self.starts[-1] > self.CHUNK:
                self.starts.append(len(self.tokens))
                self.paint(-2)
                self.chunks.append(Words())
                self.mount(self.chunks[-1], before=self.report)
            others = [(str(text), number(p) or 0.0) for text, p in piece.get("alternatives") or []]
            text = str(piece.get("text", ""))
            self.tokens.append(Token(text, number(piece.get("prob")), others, piece.get("token")))
        self.paint(-1)

    def paint(self, part):
        "Show a part of the text: its number, or -1 for the last."
        part %= len(self.starts)
        first, last = [*self.starts, len(self.tokens)][part:part + 2]
        parts = []
        if part == 0:
            asked = self.asked_looks or [(self.shown, 0)]
            parts += [(clean(text), f"{KEY} {attention_look(share)}") for text, share in asked]
        if self.xray:
            parts += [self.seen_through(n) for n in range(first, last)]
        else:
            parts.append(clean(self.text(first, last)))
        shown = bits(*parts)
        is_whole = part + 1 < len(self.starts)
        if is_whole and shown.plain.endswith("\n"):
            shown = shown[:-1]                   # the next text begins a line anyway
        self.chunks[part].renew(shown)

    def paint_all(self):
        for part in range(len(self.starts)):
            self.paint(part)

    def seen_through(self, n):
        "A token under the X-ray."
        token = self.tokens[n]
        look = ""
        if n == self.at:
            look = "bold reverse"
        elif self.looks:
            look = attention_look(self.looks.get(n, 0))
        elif token.prob is not None:
            look = surprise(token.prob)
        return Content.styled(clean(token.text), look).stylize(Style.from_meta({"token": n}))

    def part_of(self, at):
        return bisect.bisect_right(self.starts, at) - 1

    def point(self, at):
        "Put the cursor on a token, or on none."
        changed = {self.at, at} - {None}
        self.at = at
        if self.looks or self.asked_looks:       # they were those of another token
            self.looks = {}
            self.asked_looks = []
            self.paint_all()
            return
        for n in changed:
            self.paint(self.part_of(n))

    def row_of(self, at):
        "In which row of the column a token stands."
        chunk = self.chunks[self.part_of(at)]
        return chunk.virtual_region.y + chunk.row_of("token", at)

    # looking inside

    def said_before(self, at):
        "-> the prompt after which a token was said; of the answer to it, the tokens up to this one"
        first, prompt = [request for request in self.requests if request[0] <= at][-1]
        return prompt, [n for n in range(first, at + 1) if self.tokens[n].id is not None]

    def shade(self, texts, shares):
        "Show how much of each token a head took in, of those that were read before the one under the cursor."
        _, said = self.said_before(self.at)
        before = said[:-1][-len(texts):]         # those that the model still saw
        split = len(texts) - len(before)
        self.looks = dict(zip(before, shares[split:]))
        asked = list(zip(texts[:split], shares[:split]))
        self.asked_looks = asked if "".join(texts[:split]) == self.shown else []
        self.paint_all()

    def tell(self, text):
        self.told = text
        which = ""
        if len(self.versions) > 1:
            which = f"{self.versions.index(self) + 1}/{len(self.versions)} (v) · "
        self.report.put((f"{which}{text}", "$foreground 50%"))


class Prompt(TextArea):
    "Enter sends, ctrl+j is a new line, up in an empty box brings the last text back."

    BINDINGS = [
        hidden("enter", "screen.send", "Send", priority=True),
        hidden("ctrl+j,shift+enter,alt+enter", "insert('\\n')", "New line", priority=True),
        Binding("f7", "screen.inside", "Inside", priority=True),  # a text area selects with these two
        Binding("f6", "screen.beside", "Two", priority=True),
    ]

    def action_insert(self, text):
        self.insert(text)

    def action_cursor_up(self, select=False):
        if self.text:
            super().action_cursor_up(select)
        else:
            self.screen.action_edit()


class Inside(Words):
    """Of the token under the cursor: what each layer would have said in its place if it were the last one
    (the logit lens), and where the heads of one layer looked before it was said (attention)."""

    DEFAULT_CSS = "Inside { display: none; text-wrap: nowrap; }"
    LENS = 41                                    # columns of the part on the left
    BAR = 12                                     # of them for bars
    FEW_COLUMNS = 90                             # with less, the bars of that part are left out
    MOST_ROWS = 13                               # of layers or heads, in a tall terminal
    FEW_ROWS = 5                                 # and in others

    def __init__(self):
        super().__init__(id="inside")
        self.auto_links = False
        self.at_layer = 0                        # whose heads are shown
        self.at_head = 0                         # whose looks shade the text
        self.about = []                          # what is said of the token itself
        self.texts = []                          # what the model saw
        self.found = []                          # of each layer: what is said, and the shares of its heads
        self.why = ""                            # why there is nothing to see

    def take(self, answer):
        "What `gpt.py chat` says of a token."
        self.texts = [str(text) for text in answer["texts"]]
        self.found = answer["layers"]
        self.at_layer = min(self.at_layer, len(self.found) - 1)
        self.at_head = min(self.at_head, len(self.shares()) - 1)
        self.why = ""
        self.show()

    def nothing(self, why):
        self.found = []
        self.why = why
        self.show()

    def shares(self):
        "For each head of the layer, its share of each token."
        return self.found[self.at_layer]["looks"]

    def turn(self, layers, heads):
        self.at_layer = (self.at_layer + layers) % len(self.found)
        self.at_head = (self.at_head + heads) % len(self.shares())
        self.show()

    def show(self):
        if not self.found:
            self.put(*self.about, "\n\n", (self.why, DIM))
            return
        width = self.content_size.width
        most = self.MOST_ROWS if self.screen.has_class("-tall") else self.FEW_ROWS
        room = min(most, max(len(self.found), len(self.shares()) + 1))
        self.styles.height = room + 3
        has_bars = width >= self.FEW_COLUMNS
        lens_width = self.LENS if has_bars else self.LENS - self.BAR
        lens = [ends(lens_width, [("  a layer says", KEY)], [("what came", DIM)]), *self.lens(room, has_bars)]
        looks = [bits(("   a head looks at", KEY)), *self.looks(room, width - lens_width - 2)]
        keys = [("  ← →", KEY), (" token  ", DIM), ("l", KEY), (" layer  ", DIM), ("h", KEY), (" head ", DIM)]
        parts = [ends(width, self.about, keys)]
        for left, right in itertools.zip_longest(lens, looks, fillvalue=Content("")):
            parts += ["\n", left.truncate(lens_width, pad=True), "  ", right]
        self.put(*parts)

    def seen(self, count, at, room):
        "Of so many lines those for which there is room, around the one of a number."
        first = max(0, min(at - room // 2, count - room))
        return range(first, min(count, first + room))

    def marker(self, at, here, action):
        "The number of a line; a click chooses it."
        look = KEY if at == here else DIM
        return button(f"{'▸' if at == here else ' '}{at + 1:>2} ", f"screen.look{action}", look)

    def lens(self, room, has_bars):
        "A line for each layer: its likeliest token, how likely, and how likely the one was that came."
        for at in self.seen(len(self.found), self.at_layer, room):
            found = self.found[at]
            text, prob = found["says"][0]
            bar = ""
            if has_bars:
                bar = f"{'▇' * round(prob * self.BAR):{self.BAR}}"
            look = "bold $text-accent" if at == self.at_layer else "$primary 70%"
            came = "$text-success" if prob == found["prob"] else DIM
            yield bits(
                self.marker(at, self.at_layer, (at - self.at_layer, 0)),
                (f"{visible(text):10.10} ", "bold"), f"{prob:>6.1%} ", (bar, look),
                (f"{found['prob']:>7.1%}", came),
            )

    def looks(self, room, width):
        "The end of what the model saw, and under each token how much of it each head took."
        columns = []                             # (character, number of its token), as many as fit
        for n in range(len(self.texts) - 1, -1, -1):
            columns = [(character, n) for character in visible(self.texts[n])] + columns
            if len(columns) >= width - 4:
                break
        columns = columns[-max(1, width - 4):]
        yield bits("    ", ("".join(character for character, _ in columns), "bold"))
        shares = self.shares()
        for at in self.seen(len(shares), self.at_head, room - 1):
            bars = "".join(attention_bar(shares[at][n]) * cell_len(letter) for letter, n in columns)
            look = "$text-accent" if at == self.at_head else "$primary 70%"
            yield bits(self.marker(at, self.at_head, (0, at - self.at_head)), (bars, look))


class Voice(Vertical):
    "A checkpoint to talk to and the conversation with it: a column of Chat, which has one or two of them."

    DEFAULT_CSS = """
    Voice {
        width: 1fr;
        #model { height: 1; padding: 0 1; background: $boost; text-wrap: nowrap; }
        #said { padding: 0 1; }
        #said:focus { background-tint: $foreground 2%; }
        #turns { height: auto; min-height: 100%; }
        #welcome { padding: 1 2; color: $foreground 70%; }
    }
    """
    REASONS = {                                  # why an answer ended: of the protocol, in plain words
        "length": "full length",
        "end": "the text is at its end",
        "stop": "stop text reached",
        "cancelled": "stopped",
    }

    BROAD = 58                                   # columns from which there is room for a bar
    SLIM = 40                                    # and with less the name needs all of them

    class Changed(Message):
        "It was loaded, failed, or ended an answer."

    def __init__(self, differs=None, **more):
        super().__init__(**more)
        self.differs = differs or {}             # settings of its own, whatever the knobs say
        self.talk = None                         # a Talk
        self.path = None                         # of the checkpoint
        self.ready = None                        # what the model said of itself when it was loaded
        self.file = None, None                   # the step and the loss of the file that is loaded
        self.trouble = ""
        self.pieces = []                         # said, but not yet shown
        self.count = 0                           # the number of the last request for an answer
        self.busy = None                         # the Turn that is being written
        self.used = 0                            # tokens of the context
        self.looking = None                      # the number of a request to look inside
        self.inside = None                       # what came of it

    def compose(self):
        yield Words(id="model")
        with VerticalScroll(id="said") as said, Vertical(id="turns"):
            said.anchor()                        # it stays at its end, until somebody scrolls
            yield Words(id="welcome")

    def on_mount(self):
        self.talk = Talk(self.app.gpt, self.heard)
        if self.path:                            # it was named before there was a place for it
            self.load(self.path)

    def on_unmount(self):
        self.talk.kill()

    @property
    def turns(self):
        "Of what was asked the version that is shown."
        return [turn for turn in self.query(Turn) if turn.display]

    @property
    def is_loading(self):
        return bool(self.path) and not self.ready and not self.trouble

    # the model

    def load(self, path):
        self.path = path
        self.ready = None
        self.trouble = ""
        self.used = 0
        if self.talk:
            if self.busy:
                self.talk.stop(self.count)
            self.finish("stopped")
            self.talk.load(path)
            self.show()

    def heard(self, kind, answer):
        "Called on the thread that listens."
        if kind == "piece":
            self.pieces.append(answer)           # they wait for the next repaint
        else:
            self.call_later(self.hear, kind, answer)

    def hear(self, kind, answer):
        self.flush()
        if self.looking and answer.get("id") == self.looking:  # what it saw, or an error
            self.looking = None
            self.inside = answer
        elif kind == "ready":
            self.ready = answer
            self.file = self.step_and_loss()
            self.trouble = ""
        elif kind == "gone":
            self.ready = None
            self.looking = None
            self.trouble = answer["message"]
            self.finish("its process ended")
        elif kind == "error":
            self.trouble = answer.get("message", "an error without a word")
            self.finish("error")
        elif kind == "done" and str(answer.get("id")) == str(self.count):
            self.used = number(answer.get("context_used")) or self.used
            tokens = number(answer.get("tokens"))
            self.finish(answer.get("reason", ""), tokens, number(answer.get("tokens_per_s")))
        self.show()
        self.post_message(self.Changed())

    def flush(self):
        "Show what came since the last repaint. -> whether anything did"
        came = self.pieces[:]
        del self.pieces[:len(came)]              # others may have come by now
        turn = self.busy
        if not turn:
            return False
        pieces = [piece for piece in came if str(piece.get("id")) == str(self.count)]
        if pieces:
            turn.add(pieces)
            self.used += len(pieces)
            speed = len(turn.tokens) / max(0.01, time.monotonic() - turn.asked)
            turn.tell(f"{len(turn.tokens)} tokens · {speed:.0f} tokens/s · writing, esc stops")
            self.show_model()
        if turn.stopping and time.monotonic() - turn.stopping > DEAF_SECONDS:
            self.talk.kill()
            self.finish("stopped; its process was ended")
        return bool(pieces)

    def finish(self, why, tokens=None, speed=None):
        "The answer is at its end: below it stands what it took and how it was sampled."
        turn = self.busy
        self.busy = None
        if not turn:
            return
        report = [f"{len(turn.tokens) if tokens is None else tokens} tokens"]
        if speed:
            report.append(f"{speed:.0f} tokens/s")
        for setting in SETTINGS:
            value = turn.settings[setting.name]
            if setting.said and value != setting.off:
                report.append(f"{setting.said} {value:g}")
        why = clean(why)
        turn.tell(" · ".join([*report, self.REASONS.get(why, why)]))

    # what is shown

    def show(self):
        self.show_model()
        welcome = self.query_one("#welcome", Words)
        texts = self.welcome()
        welcome.put(*texts)
        welcome.display = bool(texts)

    def welcome(self):
        "What is said before there is a conversation."
        is_dialogue = self.screen.knob("mode") == "dialogue"
        if self.trouble:
            return [("It does not work:\n", "bold $text-error"), clean(self.trouble), "\n\n", ("ctrl+o", KEY),
                    " opens another checkpoint."]
        if not self.path:
            return [("No model yet. ", "bold"), "To talk you need a trained one.\n\n",
                    ("esc 1", KEY), " trains one: nano takes a minute or two.\n",
                    ("ctrl+o", KEY), " lists what is there."]
        if not self.ready:
            later = "\nWhat you typed is sent when it is ready." if self.screen.waits else ""
            return [f"Loading {clean(self.path)} …{later}"]
        if not self.turns and is_dialogue:
            return ["Dialogue: what you say stands after User:, and the model goes on after Assistant:. "
                    "It was trained to continue text and not to answer: expect noise."]
        if not self.turns:
            return ["This model continues text; it was not taught to answer questions. Write the beginning, "
                    "and it writes the rest."]
        return []

    def show_model(self):
        "The line above: which model, how far it was trained, and how much of its context is used."
        width = self.size.width - 2
        line = self.query_one("#model", Words)
        if not self.path:
            line.put(ends(width, [("no model", "bold")], []))
            return
        name = f"{clean(self.path.parent.name)} "
        own = "".join(f"{s.said} {self.differs[s.name]:g} " for s in SETTINGS if s.name in self.differs)
        fullness, color = self.context()
        room = width - len(name + self.path.name + own + fullness)
        fitting = (about for about in self.about_model() if len(about) < room)
        about = next(fitting, "")
        left = [(name, "bold"), (own, "$text-accent"), self.path.name, (about, DIM)]
        line.put(ends(width, left, [(fullness, color)]))

    def about_model(self):
        "What there is to say of it, the longest first."
        if not self.ready:
            return []
        level = f"  {clean(self.ready.get('level', ''))}"
        step, loss = self.file
        if step is None:
            return [level]
        trained = f"  step {step:,}"
        if loss is not None:
            trained += f" · val {fixed(loss)}"
        return [f"{level} ·{trained[1:]}", trained, level]

    def step_and_loss(self):
        """Of the file as it was loaded: training may have gone on since. The model itself knows best, but of
        a latest.pt no loss."""
        run = self.app.runs.get(self.path.parent)
        in_run = run.in_file(self.path.name) if run else (None, None)
        step = number(self.ready.get("step"))
        if step is None:
            return in_run
        loss = number(self.ready.get("val_loss"))
        if loss is None and in_run[0] == step:
            loss = in_run[1]
        return int(step), loss

    def context(self):
        "-> a bar of how full it is, and its colour."
        size = number((self.ready or {}).get("block_size"))
        if not size:
            return "", "$text-success"
        used = min(self.used, size)
        filled = round(12 * used / size)
        bar = f"context {'█' * filled}{'░' * (12 - filled)} {used}/{size} "
        forgets = self.used > size
        if self.size.width < self.BROAD:
            bar = f"{used}/{size} " if self.size.width < self.SLIM else f"context {used}/{size} "
            if forgets:
                bar = f"forgets {used}/{size} "
        elif forgets:
            bar = f"forgets its beginning  {bar}"
        return bar, "$text-warning" if forgets else "$text-success"

    # asking

    async def begin(self, turn, settings, instead=None):
        "A new turn, after all others; instead: one that is removed, in all its versions."
        for version in instead.versions if instead else []:
            if version.is_attached:
                await version.remove()
        for version in turn.versions:
            version.display = version is turn
        self.query_one("#welcome").display = False
        turn.voice = self
        await self.query_one("#turns").mount(turn)
        self.ask(turn, settings)

    def ask(self, turn, settings):
        "Let the model go on from all of the turn."
        self.count += 1
        self.busy = turn
        turn.asked = time.monotonic()
        turn.stopping = None
        turn.model = str(self.path)
        turn.settings = {**settings, **self.differs}
        prompt = turn.sent + turn.text()
        turn.requests.append((len(turn.tokens), prompt))
        request = {"id": self.count, "prompt": prompt, "probs": True, **turn.settings}
        if turn.stop:
            request["stop"] = turn.stop
        self.talk.say(**request)
        turn.tell("thinking …")
        self.query_one("#said").scroll_end(animate=False)

    def stop(self):
        if not self.busy.stopping:
            self.busy.stopping = time.monotonic()
        self.talk.stop(self.count)

    def new_turn(self, text, instead, is_dialogue, xray):
        if not is_dialogue:
            return Turn(text, text, xray=xray)
        before = ""
        turns = [turn for turn in self.turns if turn is not instead]
        if turns:
            before = turns[-1].sent + turns[-1].text()
        sent = f"{before}\n\nUser: {text}\n\nAssistant:".lstrip("\n")  # as `gpt.py chat` has it
        return Turn(f"{text}\n", sent, "User:", xray)

    def step(self, by):
        "Another version of the last answer."
        if not self.turns:
            return
        here = self.turns[-1]
        versions = here.versions
        shown = versions[(versions.index(here) + by) % len(versions)]
        here.display = False
        shown.display = True
        shown.tell(shown.told)
        self.query_one("#said").scroll_end(animate=False)

    # looking inside

    def look_inside(self, turn, at):
        "Ask what went on in the model before it said a token. -> why that can't be said, or nothing"
        token = turn.tokens[at]
        if token.id is None:
            return "It is the rest of a character and no token of its own."
        if turn.model != str(self.path) or not self.ready:
            return "It was said by another model than the one that is loaded."
        prompt, said = turn.said_before(at)
        self.looking = f"inside {id(turn)} {at}"
        self.talk.say(id=self.looking, prompt=prompt, inside=[turn.tokens[n].id for n in said])

    def scroll_to_row(self, y):
        said = self.query_one("#said")
        if not said.scroll_offset.y <= y < said.scroll_offset.y + said.size.height:
            said.scroll_to(y=y - said.size.height // 2, animate=False)


class Chat(Page):
    HELP = """The model goes on with the text you begin. enter in an empty box: it writes on. esc stops it;
esc again leaves the box; there single keys work: x for the X-ray, then ← → from token to token, and i to
look inside one: what each layer would have said, and where its heads looked. F6 lets two answer at once."""
    CSS = """
    Chat {
        #peek { display: none; height: 3; padding: 0 1; text-wrap: nowrap; }
        #peek, #inside { border-top: solid $foreground 15%; }
        #chat.-xray #peek { display: block; }
        #inside { height: 8; padding: 0 1; }
        #chat.-inside #inside { display: block; }
        #chat.-inside #peek { display: none; }
        #voices { height: 1fr; }
        Voice.second { border-left: solid $foreground 15%; }
        #controls { width: 43; display: none; padding: 0 1; border-left: solid $foreground 15%; }
        #controls Label { width: 19; }
        #lesson { display: none; margin-top: 1; border-top: solid $foreground 15%; }
        &.-tall #lesson { display: block; }
        &.-wide #controls, #chat.-knobs #controls { display: block; }
        #prompt {
            height: 5; border: round $foreground 30%; padding: 0 1; background: $background;
            border-title-color: $text-accent; border-subtitle-color: $foreground 60%;
        }
        #prompt:focus { border: round $primary; }
        &.-low #prompt, &.-flat #prompt { height: 4; }
    }
    """
    KEYED = (Prompt,)
    BINDINGS = [
        Binding("escape", "stop", "Stop"),
        hidden("escape", "leave", "Leave or enter the box"),
        Binding("ctrl+r", "again", "Again"),
        Binding("ctrl+g", "on", "More"),
        Binding("ctrl+o", "open", "Model"),
        Binding("ctrl+t,f8,t", "knobs", "Tune"),
        Binding("ctrl+l,x", "xray", "X-ray"),
        Binding("f7,i", "inside", "Inside"),
        Binding("f6,b", "beside", "Two"),
        Binding("ctrl+s", "save", "Save"),
        hidden("ctrl+n,f9,n", "new", "New"),
        hidden("v", "version(1)", "Next version of the answer"),
        hidden("V", "version(-1)", "Version before"),
        hidden("y", "copy", "Copy the reply"),
        hidden("e", "edit", "Edit and resend"),
        hidden("left", "token(-1)", "Token before"),
        hidden("right", "token(1)", "Next token"),
        hidden("l", "look(1, 0)", "Next layer"),
        hidden("L", "look(-1, 0)", "Layer before"),
        hidden("h", "look(0, 1)", "Next head"),
        hidden("H", "look(0, -1)", "Head before"),
    ]

    def __init__(self):
        super().__init__()
        self.editing = []                        # the Turns that what is sent next replaces
        self.waits = False                       # whether what is typed is sent when the model is ready
        self.xray = False
        self.is_inside = False                   # whether it is shown what goes on in the model

    def body(self):
        with Horizontal(id="chat"):
            with Vertical():
                with Horizontal(id="voices"):
                    yield Voice()
                yield Words(id="peek")
                yield Inside()
            with VerticalScroll(id="controls", can_focus=False):
                yield from self.knobs()
                yield Words(id="lesson")
        yield Prompt(id="prompt", compact=True)

    def knobs(self):
        remembered = self.app.settings.get("sampling", {})
        for setting in MODE, *SETTINGS:
            label = setting.name.replace("_", " ")
            if setting.name == "seed":
                label = "seed (0: new)"
            value = remembered.get(setting.name, setting.default)
            yield Field(label, Knob(value, setting.choices, free=setting is not MODE, id=setting.name))
        yield Button("back to the usual", id="usual", compact=True)

    @on(Button.Pressed, "#usual")
    def set_back(self):
        for setting in MODE, *SETTINGS:
            self.query_one(f"#{setting.name}", Knob).value = str(setting.default)

    def on_mount(self):
        prompt = self.query_one(Prompt)
        prompt.border_subtitle = "enter send · ctrl+j new line"
        prompt.focus()
        self.set_interval(1 / 10, self.flush)

    # the voices

    @property
    def voices(self):
        return list(self.query(Voice))

    @property
    def voice(self):
        "The one that keys are about: where the focus is or the token under the cursor, else the first."
        voices = self.voices
        for voice in voices:
            if self.focused and voice in self.focused.ancestors:
                return voice
        for voice in voices:
            if any(turn.at is not None for turn in voice.turns):
                return voice
        return voices[0]

    @property
    def path(self):
        return self.voices[0].path

    @property
    def ready(self):
        return self.voices[0].ready

    @property
    def count(self):
        return self.voices[0].count

    @property
    def turns(self):
        return self.voices[0].turns

    @property
    def busy(self):
        return any(voice.busy for voice in self.voices)

    def on_screen_resume(self):
        path = self.app.wanted
        self.app.wanted = None
        chosen = self.app.chosen
        if not path and not self.path and chosen:
            chosen.find_checkpoints()            # the best of the selected run
            if chosen.checkpoints:
                path = self.app.file_of(chosen, chosen.checkpoints[0])
        if path and (path != self.path or not self.ready):
            self.voices[0].load(path)
        super().on_screen_resume()

    def flush(self):
        if not self.busy:
            return
        with self.app.batch_update():
            came = [voice.flush() for voice in self.voices]
            if any(came):
                self.follow()

    def follow(self):
        "Of what comes the newest token is read, unless another one is under the cursor."
        turns = self.turns
        if self.xray and turns and turns[-1].tokens and not self.pointed():
            self.peek(turns[-1].tokens[-1])

    @on(Voice.Changed)
    def voice_changed(self):
        self.show()
        self.follow()
        self.refresh_bindings()
        if self.waits and not any(voice.is_loading for voice in self.voices):
            self.action_send()
        for voice in self.voices:
            if voice.inside:
                self.show_inside(voice)

    # what is shown

    def show(self):
        super().show()
        for voice in self.voices:
            voice.show()
        is_dialogue = self.knob("mode") == "dialogue"
        self.query_one(Prompt).border_title = "say something" if is_dialogue else "begin a text"
        self.query_one("#lesson", Words).put(*self.lesson())

    def on_descendant_focus(self):
        super().on_descendant_focus()
        self.query_one("#lesson", Words).put(*self.lesson())

    def lesson(self):
        "Where there is room: what the knob with the focus does, else what the model is."
        name = self.focused.id if self.focused else None
        if name in KNOBS:
            yield (f"{name.replace('_', ' ')}\n", KEY)
            yield f"{KNOBS[name]}\n\n"
            yield ("← → or a number turns it", DIM)
            return
        run = self.app.runs.get(self.path.parent) if self.path else None
        if run:
            yield (f"{run.name}\n", KEY)
            yield run.shape(SHAPE)
            yield "\n"
        yield from [("ctrl+t", KEY), " goes to the knobs, which say here\nwhat they do"]

    # asking

    def knob(self, name):
        return self.query_one(f"#{name}", Knob).value

    def settings(self):
        values = {}
        for setting in SETTINGS:
            values[setting.name] = setting.type(float(self.knob(setting.name)))
        if not values["seed"]:
            values["seed"] = int.from_bytes(os.urandom(2), "big") + 1
        return values

    async def begin(self, turns, instead=None):
        "Let each voice answer: turns and what they replace, by voice. All of them by the same dice."
        self.point_nowhere()
        settings = self.settings()
        replaced = instead or {}
        for voice, turn in turns.items():
            await voice.begin(turn, settings, replaced.get(voice))
        self.refresh_bindings()

    @work
    async def action_send(self):
        if self.busy:
            self.notify("It is still writing: esc stops it")
            return
        prompt = self.query_one(Prompt)
        able = [voice for voice in self.voices if voice.ready]
        if not able or any(voice.is_loading for voice in self.voices):
            self.waits = bool(prompt.text) and any(voice.is_loading for voice in self.voices)
            self.show()
            return
        self.waits = False
        text = prompt.text
        prompt.text = ""
        if not text:
            self.action_on()
            return
        instead = {turn.voice: turn for turn in self.editing}
        self.editing = []
        is_dialogue = self.knob("mode") == "dialogue"
        turns = {}
        for voice in able:
            turns[voice] = voice.new_turn(text, instead.get(voice), is_dialogue, self.xray)
        await self.begin(turns, instead)

    def check_action(self, action, parameters):
        if action in ("again", "on", "save", "edit", "copy", "new"):
            return bool(self.is_mounted and self.turns and not self.busy)
        if action == "version":
            return bool(self.turns and not self.busy and len(self.turns[-1].versions) > 1)
        if action == "beside":
            return not self.busy
        if action == "stop":
            return bool(self.busy)
        if action == "leave":
            return not self.busy
        if action in ("token", "inside"):
            return self.xray
        if action == "look":
            return self.is_inside
        return True

    def action_stop(self):
        for voice in self.voices:
            if voice.busy:
                voice.stop()

    def action_leave(self):
        said = self.voices[0].query_one("#said")
        chat = self.query_one("#chat")
        if chat.has_class("-knobs"):
            chat.remove_class("-knobs")
            self.query_one(Prompt).focus()
        elif self.focused is self.query_one(Prompt):
            said.focus()
        else:
            self.query_one(Prompt).focus()

    def answered(self):
        "The last turn of each voice that can answer."
        return {voice: voice.turns[-1] for voice in self.voices if voice.ready and voice.turns}

    @work
    async def action_again(self):
        "Another answer to the same. The one before is kept: v goes from one to the next."
        await self.begin({voice: turn.again() for voice, turn in self.answered().items()})

    def action_on(self):
        if self.busy:
            return
        self.point_nowhere()
        settings = self.settings()
        for voice, turn in self.answered().items():
            voice.ask(turn, settings)
        self.refresh_bindings()

    def action_version(self, by):
        self.point_nowhere()
        for voice in self.voices:
            voice.step(by)

    def action_edit(self):
        if not self.turns or self.busy:
            return
        self.editing = list(self.answered().values())
        last = self.turns[-1]
        prompt = self.query_one(Prompt)
        prompt.text = last.shown
        if last.stop:                            # of a dialogue: a line of its own
            prompt.text = last.shown.rstrip("\n")
        prompt.move_cursor(prompt.document.end)
        prompt.focus()

    @work
    async def action_new(self):
        await self.query(Turn).remove()
        for voice in self.voices:
            voice.used = 0
        self.point_nowhere()
        self.show()

    # which models

    def checkpoints(self, first=None):
        "All that can be talked to, as lines of a list; those of a folder before all others."
        options = []
        runs = self.app.newest_first()
        for run in sorted(runs, key=lambda run: run.folder != first):
            for name in run.checkpoints:
                loss = best_loss(run)
                if name == "latest.pt":
                    loss = run.last_loss
                about = f"{run.shape('{level:5}')} val {fixed(loss)}"
                shown = bits((f"{run.name:24} ", "bold"), f"{name:10}", (about, DIM))
                options.append((str(run.folder / name), shown))
        return options

    @work
    async def action_open(self):
        voice = self.voice
        options = self.checkpoints()
        if not options:
            self.notify("There is no checkpoint yet: 1 trains a model", severity="warning")
            return
        path = await self.app.push_screen_wait(Pick("talk to", options))
        if path:
            voice.load(Path(path))

    @work
    async def action_beside(self):
        "A second voice beside the first, or no longer."
        first, *others = self.voices
        if others:
            await others[0].remove()
            self.query_one(Prompt).focus()
            self.show()
            return
        if not first.path:
            self.notify("There is no model yet to stand beside", severity="warning")
            return
        same = "", bits(("the same model ", "bold"), ("at another temperature", DIM))
        options = [option for option in self.checkpoints(first.path.parent) if option[0] != str(first.path)]
        path = await self.app.push_screen_wait(Pick("who answers beside it", [same, *options]))
        if path is None:
            return
        differs = {}
        if not path:
            temperature = await self.app.push_screen_wait(self.other_temperature())
            if not temperature:
                return
            differs = {"temperature": float(temperature)}
        second = Voice(differs, classes="second")
        second.load(Path(path) if path else first.path)
        await self.query_one("#voices").mount(second)
        self.show()

    def other_temperature(self):

        def problem(text):
            value = number_of(text)
            if value is None or not 0 <= value <= 10:
                return "a number from 0, where the likeliest is taken, to 10"

        here = float(self.knob("temperature"))
        return Enter("temperature on the right", f"{here + 0.4 if here <= 1 else here - 0.4:g}", problem)

    @on(Knob.Changed)
    def remember(self):
        names = [MODE.name, *(setting.name for setting in SETTINGS)]
        self.app.remember(sampling={name: self.knob(name) for name in names})
        self.show()

    def action_knobs(self):
        chat = self.query_one("#chat")
        if not self.is_wide:
            chat.toggle_class("-knobs")
        opened = self.is_wide or chat.has_class("-knobs")
        self.query_one("#temperature" if opened else "#prompt").focus()

    # the X-ray

    def action_xray(self):
        self.xray = not self.xray
        self.query_one("#chat").set_class(self.xray, "-xray")
        self.point_nowhere()
        for turn in self.query(Turn):
            turn.xray = self.xray
            turn.paint_all()
        if self.xray and self.turns and not self.busy:
            self.voices[0].query_one("#said").focus()
        self.follow()
        if self.is_inside:
            self.action_inside()
        self.refresh_bindings()

    def pointed(self):
        "The turn with the token under the cursor, or None."
        return next((turn for voice in self.voices for turn in voice.turns if turn.at is not None), None)

    def action_token(self, by):
        "From the token under the cursor; without one, from that end where the way begins."
        turns = self.voice.turns
        if not turns:
            return
        here = next((turn for turn in turns if turn.at is not None), turns[-1])
        at = here.at
        if at is None:
            at = -1 if by > 0 else len(here.tokens)
        self.point(here, at + by)

    def point_nowhere(self):
        "No token is under the cursor: what was read of one is gone."
        for turn in self.query(Turn):
            turn.point(None)
        self.query_one("#peek", Words).put(
            ("← → go from token to token, the mouse points at one: how likely it was, and what else", DIM)
        )
        inside = self.query_one(Inside)
        inside.about = []
        inside.nothing("← → choose a token: what each layer would have said, and where its heads looked.")

    def on_mouse_move(self, event):
        at = event.style.meta.get("token")
        if self.xray and at is not None:
            chunk, _ = self.get_widget_at(*event.screen_offset)
            turn = chunk.parent
            if turn.at != at:
                self.point(turn, at)

    def point(self, turn, at):
        "Put the cursor on a token: what else could have stood there?"
        for other in self.query(Turn):
            if other is not turn:
                other.point(None)
        if not turn.tokens:
            return
        turn.point(max(0, min(len(turn.tokens) - 1, at)))
        turn.voice.scroll_to_row(turn.virtual_region.y + turn.row_of(turn.at))
        self.peek(turn.tokens[turn.at])
        if self.is_inside:
            self.look_inside()

    def peek(self, token):
        parts = [(visible(token.text), "bold reverse")]
        if token.prob is None:
            parts.append("  no numbers")
        else:
            parts.append(f" {token.prob:.1%}   instead: ")
        others = [(text, prob) for text, prob in token.others if text != token.text]
        width = self.query_one("#peek").content_size.width or self.size.width - 2
        room = width - bits(*parts).cell_length
        for text, prob in others:
            other = bits((visible(text), "bold"), f" {prob:.1%}  ")
            room -= other.cell_length
            if room < 0:                         # a number cut in two would be another number
                break
            parts.append(other)
        self.query_one(Inside).about = parts
        legend = [("\nexpected: ", DIM)]
        for word, prob in EXPECTED.items():
            legend += [(f" {word} ", surprise(prob)), " "]
        legend += ["  ", ("← →", KEY), (" another token", DIM)]
        self.query_one("#peek", Words).put(*parts, *legend)

    # looking inside

    def action_inside(self):
        self.is_inside = not self.is_inside
        self.query_one("#chat").set_class(self.is_inside, "-inside")
        turns = self.voice.turns
        turn = self.pointed() or (turns[-1] if turns else None)
        if self.is_inside and turn and turn.tokens and not self.busy:
            self.voice.query_one("#said").focus()
            at = len(turn.tokens) - 1 if turn.at is None else turn.at
            self.call_after_refresh(self.point, turn, at)
        elif turn:
            turn.point(turn.at)                  # without the shades
        self.refresh_bindings()

    def look_inside(self):
        "Ask about the token under the cursor, unless an answer is on its way: then about it after that."
        turn = self.pointed()
        voice = turn.voice
        if self.busy:
            self.query_one(Inside).nothing("It is still writing.")
        elif not voice.looking:
            why = voice.look_inside(turn, turn.at)
            if why:
                self.query_one(Inside).nothing(why)

    def show_inside(self, voice):
        answer = voice.inside
        voice.inside = None
        turn = self.pointed()
        if not self.is_inside or not turn:
            return
        if answer["id"] != f"inside {id(turn)} {turn.at}":
            self.look_inside()                   # the cursor has gone on meanwhile
        elif answer["kind"] == "error":
            self.query_one(Inside).nothing(answer["message"])
        else:
            self.query_one(Inside).take(answer)
            self.action_look(0, 0)

    def action_look(self, layers, heads):
        "Another layer, another head."
        inside = self.query_one(Inside)
        turn = self.pointed()
        if inside.found and turn:
            inside.turn(layers, heads)
            turn.shade(inside.texts, inside.shares()[inside.at_head])

    # taking it along

    def action_copy(self):
        turns = self.voice.turns or self.turns
        self.app.copy(turns[-1].text())

    def action_save(self):
        path = self.path.parent / time.strftime("chat-%Y%m%d-%H%M%S.txt")
        texts = []
        turns = []
        for voice in self.voices:
            if len(self.voices) > 1:
                texts.append(f"== {voice.path} ==")
            for turn in voice.turns:
                texts.append(turn.shown + turn.text())
                said = {"model": turn.model, "prompt": turn.sent, "reply": turn.text()}
                turns.append({**said, "settings": turn.settings})
        about = json.dumps({"turns": turns}, indent=1)
        try:
            path.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
            path.with_suffix(".json").write_text(about, encoding="utf-8")
        except OSError as e:
            self.notify(f"{clean(path)}: {e.strerror}", severity="error")
        else:
            self.notify(f"{clean(path)}, and .json with all settings", title="saved")


# ---- the app -----------------------------------------------------------------------------------------------

# How one is told that a run has ended. The notice is OSC 9, which many terminals show on the desktop.
NOTICES = {"bell": "the bell", "notice": "a notice of the terminal's", "off": "nothing but this line"}
ENDS = "done", "stopped", "crashed"
BUILTIN = "the English text that comes with Python: no download"
CLIPBOARDS = ["pbcopy"], ["wl-copy"], ["xclip", "-selection", "clipboard"], ["clip.exe"]


READING_SECONDS = 1                              # after which what was read so far is shown


GPU_LOOK = ("nvidia-smi", "--format=csv,noheader,nounits",
            "--query-gpu=index,utilization.gpu,memory.used,memory.total,temperature.gpu,power.draw")


def gpus_at_work():
    "A line for each NVIDIA GPU: use, memory, temperature, power. Without the driver's command: none."
    try:
        said = subprocess.run(GPU_LOOK, capture_output=True, text=True, timeout=5, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return []
    lines = []
    for row in said.stdout.splitlines():
        fields = [clean(field.strip()) for field in row.split(",")]
        if len(fields) == 6:
            index, use, used, total, degrees, watts = fields
            used, total = ((number_of(text) or 0) / 1024 for text in (used, total))
            lines.append(f"GPU {index}  {use} %  {used:.0f}/{total:.0f} GB  {degrees} °C  {watts} W")
    return lines


def last_written(folder):
    "When a run was last written to; 0 where that can't be said."
    try:
        return (folder / "metrics.jsonl").stat().st_mtime
    except OSError:
        return 0.0


def read_runs(root, known):
    """Read what is new in the runs that are known, and then, the newest first, those that are not: for a
    while, the others next time. -> a new list of Runs"""
    for run in known:
        run.poll()
    runs = list(known)
    end = time.monotonic() + READING_SECONDS
    folders = {run.folder for run in known}
    new = [folder for folder in find_runs(root) if folder not in folders]
    for folder in sorted(new, key=last_written, reverse=True):
        run = Run(folder)
        run.poll()
        runs.append(run)
        if time.monotonic() > end:
            break
    return runs


class Tui(App):
    TITLE = "gpt"
    CSS = """
    Page { background: $background; }
    ModalScreen { background: $background 60%; }
    #bar { height: 1; background: $panel; }
    #tabs { width: auto; }
    #news { width: 1fr; text-align: right; padding-right: 1; text-wrap: nowrap; }
    Footer { background: $panel; }
    #small { display: none; width: 100%; height: 100%; content-align: center middle; text-align: center; }
    .-small #small { display: block; }
    .-small #bar, .-small #body, .-small Footer { display: none; }
    Input.-invalid { color: $text-error; }
    .pane { border: round $foreground 20%; border-title-color: $text-accent; padding: 0 1; }
    .pane:focus { border: round $primary; }
    DataTable, DataTable:focus { background: $background; background-tint: transparent; }
    DataTable > .datatable--header { background: $background; color: $text-muted; text-style: bold; }
    DataTable > .datatable--cursor { background: $primary 30%; color: $foreground; text-style: bold; }
    DataTable, VerticalScroll { scrollbar-size-vertical: 1; }
    """
    TABS = {"train": "Train", "watch": "Watch", "runs": "Runs", "chat": "Chat"}
    MODES = {"train": Train, "watch": Watch, "runs": Runs, "chat": Chat}
    BINDINGS = [
        hidden("1,f2,alt+1", "switch_mode('train')", "Train: the screen"),
        hidden("2,f3,alt+2", "switch_mode('watch')", "Watch: the screen"),
        hidden("3,f4,alt+3", "switch_mode('runs')", "Runs: the screen"),
        hidden("4,f5,alt+4", "switch_mode('chat')", "Chat: the screen"),
        hidden("q,ctrl+c", "leave", "Quit, after a question"),
        hidden("ctrl+q", "quit", "Quit"),
        hidden("f10", "notices", "When a run ends: bell, notice or nothing"),
        hidden("ctrl+p", "command_palette", "All commands, themes"),
    ]

    def __init__(self, root=Path("runs"), run=None, gpt=HERE / "gpt.py", theme=None):
        super().__init__()
        self.root = Path(root)
        self.gpt = Path(gpt)
        self.runs = {}                           # folder: Run
        self.chosen = None                       # the Run that Watch shows
        self.shown = {}                          # folder: what of its run stands on the screen
        self.states = {}                         # folder: the state of its run when last looked at
        self.told_title = ""                     # what stands in the terminal's title
        self.gpus = []                           # lines about the GPUs, as nvidia-smi says
        self.wanted = None                       # the checkpoint that Chat shall open
        self.catalog = None
        self.machine = ""                        # its name and memory
        self.wake = None                         # an event: look at the runs now
        self.settings = {"measured": {}}         # what is remembered from one time to the next
        with contextlib.suppress(OSError, ValueError):
            self.settings |= dict(json.loads((self.root / ".tui.json").read_text(encoding="utf-8")))
        self.theme = self.first_theme(theme)
        if run:
            self.chosen = Run(self.as_found(Path(run)))
            self.runs[self.chosen.folder] = self.chosen

    def first_theme(self, asked):
        on_light = os.environ.get("COLORFGBG", "").endswith((";15", ";7"))
        ours = "textual-light" if on_light else "textual-dark"
        wanted = asked or self.settings.get("theme") or ours
        return wanted if wanted in self.available_themes else "textual-dark"

    def as_found(self, folder):
        "A run's folder under the name by which find_runs() finds it."
        whole = folder.resolve()
        if whole.parent == self.root.resolve():
            return self.root / whole.name
        return folder

    def on_mount(self):
        self.wake = asyncio.Event()
        self.switch_mode("watch" if self.chosen else "train")
        self.theme_changed_signal.subscribe(self, self.remember_theme)
        self.look_around()

    @property
    def page(self):
        "The screen below all boxes."
        return self.screen_stack[0]

    def get_system_commands(self, screen):
        theirs = list(super().get_system_commands(screen))
        yield from theirs
        ours = self.our_keys()
        for command in theirs:
            ours.pop(command.title, None)
        for words, (keys, action) in ours.items():
            yield SystemCommand(words, f"key {' '.join(keys)}", partial(self.page.run_action, action))

    # what is remembered, and how it looks

    def action_notices(self):
        "Whether one is told where one is by now when a run ends."
        order = list(NOTICES)
        kind = order[(order.index(self.notices) + 1) % len(order)]
        self.remember(notices=kind)
        self.notify(f"when a run ends: {NOTICES[kind]}", timeout=3)

    @property
    def notices(self):
        kind = self.settings.get("notices")
        return kind if kind in NOTICES else next(iter(NOTICES))

    def tell_the_terminal(self, sequence):
        "What goes to the terminal itself: its bell, its title."
        if self._driver and not self.is_headless and not self.is_web:
            self._driver.write(sequence)

    def tell_of_ends(self):
        "A run that was at work and ended: say so, also outside of this window."
        for run in self.runs.values():
            before = self.states.get(run.folder)
            self.states[run.folder] = run.state
            if before not in LIVE or run.state not in ENDS:
                continue
            words = f"{run.name}: {run.state}"
            if run.trouble:
                words = f"{run.name}: {run.trouble.headline}"
            elif run.best:
                words += f", val {fixed(run.best.val)}"
            self.notify(words, severity="error" if run.trouble else "information")
            if self.notices == "bell":
                self.tell_the_terminal("\a")
            elif self.notices == "notice":
                self.tell_the_terminal(f"\x1b]9;{clean(words)}\a")

    def show_title(self):
        "In the terminal's title: how far the run is that is at work."
        live = [run for run in self.newest_first() if run.state in LIVE]
        title = f"{live[0].done:.0%} {live[0].name}" if live else "gpt"
        if title != self.told_title:
            self.told_title = title
            self.tell_the_terminal(f"\x1b]2;{clean(title)}\a")

    def remember_theme(self, theme):
        self.remember(theme=theme.name)
        self.page.refreshed()

    def remember(self, **settings):
        if all(self.settings.get(key) == value for key, value in settings.items()):
            return
        self.settings |= settings
        if self.root.is_dir():
            with contextlib.suppress(OSError):
                (self.root / ".tui.json").write_text(json.dumps(self.settings), encoding="utf-8")

    def color(self, name):
        "A theme's colour, as Rich spells it."
        value = self.theme_variables.get(name)
        if not value:
            return "default"
        return value.removeprefix("ansi_").replace("auto", "default").split()[0]

    def notify(self, message, **more):
        "Nothing of it is markup: names and errors come from elsewhere."
        super().notify(clean(message), **{**more, "markup": False})

    # how fast it is here

    def measured(self):
        """Of runs on this machine: what they were and the operations a second that they did, by operations a
        token. What is remembered outlives its run."""
        found = {}
        with contextlib.suppress(ValueError, TypeError, AttributeError):  # a file that people can edit
            for flops, speed in self.settings["measured"].items():
                found[float(flops)] = float(speed), "as measured here"
        return found | self.measured_by_runs()

    def measured_by_runs(self):
        found = {}
        device = self.catalog.device.get("device", "cpu") if self.catalog else "cpu"
        for run in sorted(self.runs.values(), key=lambda run: run.when):
            flops = run.flops_per_token
            is_known = flops and run.speed and run.state not in (*LIVE, "gone")
            if is_known and str(run.start.get("device", "")).startswith(device):
                found[flops] = run.speed * flops, f"as {run.name} ran"
        return found

    def speed_for(self, flops, usual):
        "-> operations a second to expect of a model with so many a token, and how that is known"
        measured = self.measured()
        if flops and measured:
            nearest = min(measured, key=lambda other: abs(math.log(other / flops)))
            speed, how = measured[nearest]
            if abs(math.log(nearest / flops)) < math.log(1.2):
                return speed, f", {how}"
            return max(speed, usual or 0), ", by what other runs did here"
        return usual, ", by its size alone"

    def remember_speeds(self):
        "For the time when the runs are gone."
        speeds = dict(self.settings.get("measured") or {})
        for flops, (speed, _) in self.measured_by_runs().items():
            speeds[f"{flops:.0f}"] = round(speed)
        if speeds:
            self.remember(measured=speeds)

    # runs

    @work
    async def look_around(self):
        "About once a second: which runs are there, and what is new in them. Reading is done on a thread."
        while True:
            known = list(self.runs.values())
            read = await asyncio.to_thread(read_runs, self.root, known)
            if self.chosen and self.chosen.state in LIVE and "cuda" in str(self.chosen.start.get("device")):
                self.gpus = await asyncio.to_thread(gpus_at_work)
            self.take(known, read)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.wake.wait(), 0.8)
            self.wake.clear()

    def take(self, known, read):
        "The list that the thread has read. Meanwhile runs may have been added here, or forgotten."
        for run in read:
            if run not in known:
                self.runs.setdefault(run.folder, run)
            if run.state == "gone" and run is not self.chosen:
                self.runs.pop(run.folder, None)
        if not self.chosen and self.runs:
            self.chosen = self.newest_first()[0]
        self.remember_speeds()
        self.tell_of_ends()
        self.show_title()
        shown = {run.folder: self.what_is_shown(run) for run in self.runs.values()}
        if shown != self.shown:
            self.shown = shown
            with self.batch_update():
                self.page.refreshed()

    def what_is_shown(self, run):
        "When this differs, the screen is made anew: for a run at work at least every five seconds."
        silent = int(run.silent / 5) if run.state in LIVE else 0
        return run.version, run.state, run.checkpoints, silent

    def look_at(self, folder):
        "Choose a run that may not be known yet."
        self.chosen = self.runs.setdefault(folder, Run(folder))
        self.wake.set()

    def newest_first(self):
        "All runs; those at work before all others."
        return sorted(self.runs.values(), key=lambda run: (run.state in LIVE, run.when), reverse=True)

    def next_live(self):
        "The run at work that comes after the one that Watch shows, or None."
        live = [run for run in self.newest_first() if run.state in LIVE]
        if self.chosen in live:
            at = live.index(self.chosen)
            live = live[at + 1:] + live[:at]
        return live[0] if live else None

    def check_action(self, action, parameters):
        return action != "watch_next" or self.next_live() is not None

    def action_watch_next(self):
        self.watch_run(self.next_live())

    def action_watch_folder(self, folder):
        run = self.runs.get(Path(folder))
        if run:
            self.watch_run(run)

    def watch_run(self, run):
        self.chosen = run
        self.switch_mode("watch")

    def forget(self, run):
        self.runs.pop(run.folder, None)
        self.shown.pop(run.folder, None)         # should it come back, that is news
        if self.chosen is run:
            self.chosen = next(iter(self.newest_first()), None)

    def launch(self, folder, flags):
        "Start `gpt.py train` as a process of its own, that outlives this one, and watch it."
        detached = {"start_new_session": True}
        if os.name == "nt":
            detached = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "control").unlink(missing_ok=True)  # a word that a killed run has not read
            with open(folder / "train.log", "ab") as log:
                process = subprocess.Popen(
                    [sys.executable, str(self.gpt), "train", *flags],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    env={**os.environ, "PYTHONUNBUFFERED": "1"}, **detached,
                )
        except OSError as e:
            self.notify(f"can't start: {e}", severity="error")
            return
        run = self.runs.setdefault(folder, Run(folder))
        run.started(process)
        self.watch_run(run)
        self.wake.set()

    def talk_to(self, run, name):
        self.wanted = self.file_of(run, name)
        self.switch_mode("chat")

    def file_of(self, run, name):
        "A checkpoint to talk to. Of a run that was stopped before its second test the best one is untrained."
        path = run.folder / name
        latest = run.folder / "latest.pt"
        is_untrained = name == "best.pt" and run.in_file(name)[0] == 0
        if not path.exists() or is_untrained and latest.exists():
            path = latest
        return path

    # our other programs

    async def ask(self, *words, program="gpt.py"):
        "Run one of our programs and wait. -> exit status, output, errors"
        command = [sys.executable, str(self.gpt.with_name(program)), *words]
        try:
            done = await asyncio.to_thread(
                subprocess.run, command, capture_output=True, timeout=60, encoding="utf-8", errors="replace",
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.SubprocessError) as e:
            return 1, "", str(e)
        return done.returncode, done.stdout, done.stderr

    async def read_presets(self):
        "Learn what gpt.py offers. -> what is wrong, or nothing"
        code, out, said = await self.ask("presets", "--json")
        if code:
            return said.strip() or f"exit status {code}"
        try:
            self.catalog = Catalog(json.loads(out))
        except (ValueError, KeyError, TypeError) as e:
            return str(e)
        device = self.catalog.device
        self.machine = f"{clean(device.get('name', ''))} · {size(number(device.get('memory')))}"

    async def corpora(self):
        "Names of texts, and what is said about them: what data.py knows, and what is prepared."
        names = {"builtin": BUILTIN}
        code, out, _ = await self.ask("list", "--json", program="data.py")
        if code == 0:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                for corpus in json.loads(out)["corpora"]:
                    about = ", ".join([str(corpus["size"]), *map(str, corpus.get("here", []))])
                    names.setdefault(clean(corpus["name"]), clean(about))
        if self.catalog:
            for preset in self.catalog.presets.values():
                names.setdefault(clean(preset.get("data", "sherlock")), "")
        for meta in sorted(Path("data").glob("*/meta.json")):
            names.setdefault(str(meta.parent), "prepared")
        return names

    # taking it along

    @work
    async def copy_command(self, run):
        "The command that makes such a run."
        settings = await self.settings_of(run)
        flags = [f"--{name}={written(value)}" for name, value in settings.items()]
        self.copy(clean(command_line([*self.trainer(), *flags])))

    def trainer(self):
        "The words that start a training from the folder where this program was started."
        if Path("gpt.py").resolve() == self.gpt.resolve():
            return ["python", "gpt.py", "train"]
        return [sys.executable, str(self.gpt), "train"]

    async def settings_of(self, run):
        "The flags that make such a run, as a dict: its preset, and what this does not say."
        if not self.catalog:                     # Train, which asks for it, was not open yet
            await self.read_presets()
        config = {**run.part("model"), "vocab_size": 0, **run.part("train")}
        preset = config.get("preset", "nano")
        level = config.get("level", "char")
        known = self.catalog.recipe(preset, level) if self.catalog else {}
        settings = {"preset": preset, "level": level}
        for name, value in config.items():
            elsewhere = name in ("preset", "level", "resume", "presets", "out_dir")
            if name in known and str(value) != str(known[name]) and not elsewhere:
                settings[name] = value
        return settings

    def fresh_folder(self, name):
        "The first of name, name-2, name-3 ... in which no run has begun."
        for i in itertools.count(1):
            folder = self.root / (name if i == 1 else f"{name}-{i}")
            if not (folder / "metrics.jsonl").exists():
                return folder

    def copy(self, text):
        "To the terminal's clipboard (works over ssh), and to the system's where there is a tool for it."
        self.copy_to_clipboard(text)
        tools = [tool for tool in CLIPBOARDS if shutil.which(tool[0])]
        if tools:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run(tools[0], input=text.encode(), timeout=1, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
        self.notify(text if len(text) < 300 else f"{len(text):,} characters", title="copied", timeout=3)

    # keys

    def our_keys(self, *widgets):
        "Words -> (keys, action), of what classes of widgets, the page and the app do; not what Textual adds."
        page = self.page
        found = {}
        for owner in (*widgets, *type(page).__mro__, Tui):
            bindings = vars(owner).get("BINDINGS", []) if owner.__module__ == __name__ else []
            for binding in Binding.make_bindings(bindings):
                space, name, parameters = parse_action(binding.action)
                can_be_done = space or owner is Tui or page.check_action(name, parameters)
                if binding.description and can_be_done:
                    keys, _ = found.setdefault(binding.description, ([], binding.action))
                    key = self.get_key_display(Binding(binding.key, ""))
                    if key not in keys:          # a field that takes keys has some of its page's, too
                        keys.append(key)
        return found

    def action_help(self):
        if isinstance(self.screen, Help):
            return
        widgets = [owner for owner in self.page.KEYED if self.page.query(owner).first().can_focus]
        keys = [(" ".join(keys), words) for words, (keys, _) in self.our_keys(*widgets).items()]
        self.push_screen(Help(self.page, keys))

    @work
    async def action_quit(self):
        ours = [run for run in self.runs.values() if run.process and run.process.poll() is None]
        if not ours:
            self.exit()
            return
        names = ", ".join(run.name for run in ours)
        text = f"{names} is training. It goes on without this window; python tui.py finds it again."
        answer = await self.push_screen_wait(Ask(
            "quit", text, l="leave it going and quit", s="stop it (it saves) and quit",
        ))
        if answer == "s":
            for run in ours:
                with contextlib.suppress(OSError):
                    self.stop_training(run)
        if answer:
            self.exit()

    @work
    async def action_leave(self):
        "Quitting by a key that was perhaps meant for something else; pressed twice it is meant."
        if any(run.process and run.process.poll() is None for run in self.runs.values()):
            self.action_quit()
        elif await self.push_screen_wait(Leave("quit", "Leave this program?", q="quit")):
            self.exit()

    def stop_training(self, run):
        if run.start:
            run.control("stop")
        else:
            run.process.terminate()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="Keys: ? in the app.")
    parser.add_argument("run", nargs="?", help="a run's folder, to watch it")
    parser.add_argument("--runs", default="runs", metavar="FOLDER", help="where runs are [runs]")
    parser.add_argument("--theme", help="a theme's name, such as nord or textual-light")
    asked = parser.parse_args()
    if asked.run and not Path(asked.run).is_dir():
        raise SystemExit(f"error: {asked.run} is no folder of a run")
    gc.freeze()                                  # what is loaded stays: looking for garbage
    gc.set_threshold(20_000)                     # among it, and often, makes keys wait for 50 ms
    app = Tui(Path(asked.runs), asked.run, theme=asked.theme)
    is_terminal = sys.stdout.isatty()
    if is_terminal:
        print(end="\x1b[22;0t", flush=True)      # the terminal keeps its title
    app.run()
    if is_terminal:
        print(end="\x1b[23;0t", flush=True)      # and has it again


if __name__ == "__main__":
    main()
