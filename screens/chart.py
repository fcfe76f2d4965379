"""The chart: curves in braille with zoom, axes and a legend; and what it shows as CSV and as SVG."""
import bisect
import csv
import html
import io
import itertools
import math
import os
import sys
from collections import namedtuple

from rich.segment import Segment, Segments
from textual import on
from textual.events import MouseScrollDown, MouseScrollUp
from textual.reactive import reactive
from textual.widget import Widget

from runs import fixed, short
from screens.basics import bits, hidden

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
            points = [p for p in points if all(y > 0 for y in p[1:])]  # the others have no place there
            points = [(p[0], *map(math.log10, p[1:])) for p in points]
        return points

    def range(self):
        xs = []
        for curve in self.curves:
            few = [*curve.points[:2], curve.points[-1]]
            steps = [(x,) for x, *_ in few]      # without their values, of which an axis may have none
            xs.extend(x[0] for x in self.scaled(steps))
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
        first, last = max(first, low), high if last is None else min(last, high)
        return (first, last) if first < last else (low, high)  # it was made for a longer curve

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
