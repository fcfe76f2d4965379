"""tui.py: choose a preset, watch it learn, compare runs and talk to the result, in the terminal.

    python tui.py                       choose a preset and train it
    python tui.py runs/NAME             watch that run, whoever started it
    python tui.py --theme gruvbox       any theme of Textual; ctrl+p changes it, and it is remembered
    textual serve "python tui.py"       the same in a browser (pip install textual-dev)

A run's folder is all it reads and writes. Training is `gpt.py train`, a process of its own that outlives
this one; talking is `gpt.py chat --jsonl`. Neither torch nor gpt.py is imported: so it starts at once,
watches runs where there is only textual, and a crash over there is a message here.
"""
import argparse, asyncio, bisect, contextlib, gc, json, math, os, re, shlex, shutil, subprocess, sys
import threading, time
from collections import namedtuple
from functools import partial
from itertools import groupby
from pathlib import Path

try:
    from rich.segment import Segment, Segments
    from rich.text import Text
    from textual import on, work
    from textual.app import App, SystemCommand
    from textual.binding import Binding
    from textual.containers import Horizontal, Vertical, VerticalScroll
    from textual.content import Content
    from textual.events import MouseScrollDown, MouseScrollUp
    from textual.reactive import reactive
    from textual.screen import ModalScreen, Screen
    from textual.style import Style
    from textual.widget import Widget
    from textual.widgets import (Button, DataTable, DirectoryTree, Footer, Input, Label, OptionList, Static,
                                 TextArea)
    from textual.widgets.option_list import Option
except ImportError as e:
    raise SystemExit(f"error: tui.py needs textual ({e}): pip install textual")

try:
    import fcntl
except ImportError:                                           # Windows
    fcntl = None

HERE = Path(__file__).resolve().parent
join = subprocess.list2cmdline if os.name == "nt" else shlex.join  # words -> a command as a shell reads it
hidden = partial(Binding, show=False)                        # a key that the footer leaves out
SMALLEST = 60, 16                                             # columns and rows to work in

# ---- text and numbers --------------------------------------------------------------------------------------

# Foreign text (samples, logs, names, models' answers) can hold anything: escape sequences that a terminal
# would obey, halves of characters that can't be written at all. Each becomes a visible stand-in.
STAND_INS = {**{c: 0x2400 + c for c in range(32) if c not in (9, 10)}, 0x7F: 0x2421,
             **dict.fromkeys([*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A),
                              *range(0xD800, 0xE000)], 0xFFFD)}

def clean(text):
    return str(text).translate(STAND_INS)

def number(x):
    "x, if it is a number to calculate with."
    return x if isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x) else None

def short(x):                                                 # 1234567 -> 1.23M
    if x is None:
        return "—"
    unit = max(0, min(4, int(math.log10(max(abs(x), 1)) // 3)))
    return f"{x / 1000 ** unit:.3g}" + ["", "k", "M", "G", "T"][unit]

def fixed(x, form=".3f"):
    return "—" if x is None else format(x, form)

def size(n):                                                  # bytes
    return "—" if n is None else f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB"

def clock(seconds):                                           # 3725 -> 1:02:05
    if seconds is None:
        return "—"
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"

def ago(seconds):
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name} ago"
    return "now"

def spark(values, width):
    "Numbers -> a line of little bars, the newest at the right."
    values = [v for v in values if v is not None]
    if not values or width < 1:
        return ""
    step = max(1.0, len(values) / width)
    picked = [values[int((i + 1) * step) - 1] for i in range(min(width, len(values)))]
    low, high = min(picked), max(picked)
    height = 7.99 / (high - low) if high > low else 0
    return "".join("▁▂▃▄▅▆▇█"[int((v - low) * height) if height else 3] for v in picked)

def bits(*parts):
    "Strings and (string, style) pairs, with None left out -> what a Static shows, never read as markup."
    return Content.assemble(*(p for p in parts if p))

# ---- a run's folder, read while it grows -------------------------------------------------------------------

Row = namedtuple("Row", "step loss low high n lr norm speed memory mfu elapsed")  # of one or more step lines
Eval = namedtuple("Eval", "step train val bits")
STEP = "lr", "grad_norm", "tokens_per_s", "memory_mb", "mfu", "elapsed_s"  # their names in metrics.jsonl
EVAL = "train_loss", "val_loss", "bits_per_byte"
MOST = 2048                                                   # rows kept; from twice as many, two become one
LIVE = ("starting", "compiling", "training", "evaluating", "sampling", "saving", "paused", "stalled")
COLORS = dict.fromkeys(LIVE, "success") | {"paused": "warning", "stalled": "warning", "stopped": "warning",
                                           "crashed": "error", "gone": "error", "done": "primary"}

def merged(rows):
    "Half as many rows, each for two: means, and how far the losses reached."
    halves = []
    for a, b in zip(rows[::2], rows[1::2]):
        if a.loss is None or b.loss is None:
            halves.append(b if a.loss is None else a)
            continue
        loss = (a.loss * a.n + b.loss * b.n) / (a.n + b.n)
        halves.append(b._replace(loss=loss, low=min(a.low, b.low), high=max(a.high, b.high), n=a.n + b.n))
    return halves + rows[len(halves) * 2:]

class Run:
    """What a run's folder says. poll() reads what is new; half a line is left for later, a line that makes no
    sense is counted and skipped, kinds and keys that are not known are ignored. It never holds more than some
    thousand rows, however long the run. Lists are replaced, not changed, where a reader could be in them."""
    def __init__(self, folder, process=None):
        self.folder, self.process, self.began = Path(folder), process, time.time()
        self.log, self.log_stamp, self.version, self.crashed = [], None, 0, False
        self.forget()
    def forget(self):
        self.offset = self.bad = self.stamp = 0
        self.rows, self.evals, self.samples, self.warnings, self.events = [], [], [], [], []
        self.start, self.now, self.end, self.word, self.written = {}, {}, None, "", 0.0
    @property
    def name(self):
        return clean(self.folder.name)
    def poll(self):
        "Read what is new. -> whether anything was"
        before, version = self.crashed, self.version
        with contextlib.suppress(OSError):
            stat = (self.folder / "metrics.jsonl").stat()
            if stat.st_size < self.offset or self.stamp not in (0, stat.st_ino):
                self.forget()
            self.stamp, self.written = stat.st_ino, stat.st_mtime
            if stat.st_size > self.offset:
                with open(self.folder / "metrics.jsonl", "rb") as file:
                    file.seek(self.offset)
                    whole, newline, _ = file.read().rpartition(b"\n")
                self.offset += len(whole) + len(newline)
                self.read(whole)
        with contextlib.suppress(OSError):
            stat = (self.folder / "train.log").stat()
            if (stamp := (stat.st_size, stat.st_mtime)) != self.log_stamp:
                with open(self.folder / "train.log", "rb") as file:
                    file.seek(max(0, stat.st_size - 30_000))
                    lines = file.read().decode("utf-8", "replace").replace("\r\n", "\n").split("\n")
                self.log, self.log_stamp = [clean(line) for line in lines if line.strip()][-300:], stamp
                self.written = max(self.written, stat.st_mtime)
                self.version += 1
        self.crashed = self.state == "crashed"
        return (self.crashed, self.version) != (before, version)
    def read(self, data):
        for line in data.split(b"\n"):
            try:
                if line:
                    record = json.loads(line)
                    getattr(self, "on_" + record["kind"], lambda record: None)(record)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                self.bad += 1
        self.version += 1
    def on_step(self, r):
        loss = number(r.get("loss"))
        self.rows.append(Row(int(r["step"]), loss, loss, loss, 1, *(number(r.get(key)) for key in STEP)))
        if len(self.rows) >= 2 * MOST:
            self.rows = merged(self.rows)
        self.now, self.end = r, None
    def on_eval(self, r):
        found = Eval(int(r["step"]), *(number(r.get(key)) for key in EVAL))
        self.evals.append(found)
        if len(self.evals) >= 2 * MOST:
            best = self.best
            self.evals = [e for i, e in enumerate(self.evals) if i % 2 or e is best]
        self.tell(f"step {found.step:,} | train {fixed(found.train, '.4f')} | val {fixed(found.val, '.4f')}")
    def on_start(self, r):
        again = number(r.get("resumed_from"))
        self.rows = [row for row in self.rows if again is not None and row.step <= again]
        self.evals = [e for e in self.evals if again is not None and e.step <= again]
        self.start, self.end, self.word, self.warnings, self.now = r, None, "training", [], {}
        self.tell(f"started from step {again:,}" if again else "started")
    def on_sample(self, r):
        self.samples = [(int(r.get("step") or 0), clean(r["text"])), *self.samples][:100]
    def on_warn(self, r):
        self.warnings = [*self.warnings, clean(r["text"])][-20:]
        self.tell(f"warning: {clean(r['text'])}")
    def on_state(self, r):
        self.word = clean(r["state"])
    def on_end(self, r):
        self.end = {"step": number(r.get("step")) or 0, "reason": r.get("reason"),
                    "message": clean(r.get("message") or "")}
        self.tell(f"end: {self.end['reason']}, {self.end['message']}")
    def tell(self, text):
        self.events = [*self.events, text][-300:]

    # what it means

    def part(self, name):
        "Of the configuration, if it is what it should be: model, train or used."
        config = self.start.get("config") if isinstance(self.start.get("config"), dict) else {}
        return config.get(name) if isinstance(config.get(name), dict) else {}
    def shape(self, form):
        "What the run is, in words: the form's names are those of its configuration."
        known = {**self.part("train"), **self.part("model")}
        names = dict.fromkeys(re.findall(r"{(\w+)", form), "?") | {k: clean(v) for k, v in known.items()}
        return form.format(**names | {"parameters": short(number(self.start.get("parameters")))})
    @property
    def step(self):
        return max(self.rows[-1].step if self.rows else 0, self.evals[-1].step if self.evals else 0,
                   self.end["step"] if self.end else 0)
    @property
    def done(self):
        return 1.0 if self.state == "done" else min(1.0, max(0.0, number(self.now.get("done")) or 0.0))
    @property
    def best(self):
        return min((e for e in self.evals if e.val is not None), key=lambda e: e.val, default=None)
    @property
    def speed(self):
        "Tokens a second: the median of the last readings."
        recent = sorted(row.speed for row in self.rows[-31:] if row.speed is not None)
        return recent[len(recent) // 2] if recent else None
    @property
    def silent(self):
        return time.time() - max(self.written, self.began if self.process else 0)
    def held(self):
        "Whether a process is at it: its lock says so. None where that can't be known."
        if self.process:
            return self.process.poll() is None
        if not fcntl:
            return None
        with contextlib.suppress(OSError), open(self.folder / "metrics.jsonl", "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False
    @property
    def state(self):
        "One word: one of LIVE, or done, stopped, crashed, gone."
        running = self.process and self.process.poll() is None
        if self.end and not running:
            return {"stopped": "stopped", "error": "crashed"}.get(self.end["reason"], "done")
        if not self.start and not running:
            return "crashed" if self.folder.exists() else "gone"
        if not self.start or self.end:
            return "starting"
        # A line comes at least so often, unless it evaluates, saves or compiles: give that more time.
        recent = [row.elapsed for row in self.rows[-20:] if row.elapsed is not None]
        pause = (recent[-1] - recent[0]) / (len(recent) - 1) if len(recent) > 1 else 0
        limit = max(30, 10 * pause) if self.word in ("training", "stalled") else 600
        if not self.folder.exists():
            return "gone"
        if self.process and not running:
            return "crashed"
        if self.silent > limit:                               # only then: the question costs a moment's lock
            held = self.held()
            if held is False or held is None and self.silent > 600:
                return "crashed"
        return "stalled" if self.silent > limit and self.word != "paused" else self.word
    def lines(self):
        return self.log or self.events
    def trouble(self):
        """What went wrong -> headline, explanation, what helps, and the flags for it; or None."""
        if self.state != "crashed":
            return None
        code = self.process.poll() if self.process else None
        said = f"{self.end['message'] if self.end else ''}\n" + "\n".join(self.log[-25:])
        train = self.part("train")
        rows = number(train.get("micro_batch")) or number(train.get("batch_size")) or 32
        half = max(1, int(rows) // 2)
        halved = f"go on with --micro_batch {half} (same result, less memory)", {"micro_batch": half}
        if code == -9 or code == 137:
            return "killed", "The system ends a process like this when memory runs out.", *halved
        if re.search("out of memory|OutOfMemory|n't allocate|not even one sequence|MemoryError", said):
            return "out of memory", "This batch does not fit into the memory of the device.", *halved
        if re.search("No space left|ENOSPC|quota exceeded|not enough space", said, re.I):
            free = ""
            with contextlib.suppress(OSError):
                free = f" {size(shutil.disk_usage(self.folder).free)} are free now."
            return "the disk is full", f"Nothing more could be written.{free}", "make room, then go on", {}
        if re.search("finite gradient|loss is nan", said):
            rates = {key: train[key] / 3 for key in ("learning_rate", "muon_lr") if number(train.get(key))}
            flags = {key: float(f"{rate:.2g}") for key, rate in rates.items()}
            return "the loss is no number any more", "The steps were too large.", \
                "go on from the last checkpoint with a third of the learning rate", flags
        if "KeyboardInterrupt" in said:
            return "interrupted", "Somebody pressed Ctrl-C twice, or the system shuts down.", "go on", {}
        if not self.start:
            return "it did not start", "", "change what the last line names, on Train", {}
        why = "" if self.end else "Its process is gone without a word: killed, or the machine was turned off."
        return "crashed", why, "go on from the last checkpoint", {}
    def checkpoints(self):
        return [path for name in ("best.pt", "latest.pt") if (path := self.folder / name).exists()]
    def kept(self):
        names = " and ".join(path.name for path in self.checkpoints())
        return f"Kept: {names}." if names else "No checkpoint was written yet."
    def control(self, word):
        "Leave a word for the trainer, which looks once a step."
        draft = self.folder / "control.tmp"
        draft.write_text(word, encoding="utf-8")
        os.replace(draft, self.folder / "control")

def fit_for_a_name(text):
    "Of a folder, on every system."
    return text.strip(". ") and not re.search(r'[\\/:*?"<>|\0-\x1f]', text)

def find_runs(root):
    "The folders in root that are runs, or were meant to be."
    with contextlib.suppress(OSError):
        return [f for f in root.iterdir() if (f / "metrics.jsonl").exists() or (f / "train.log").exists()]
    return []

# ---- the chart ---------------------------------------------------------------------------------------------

Curve = namedtuple("Curve", "name style points look", defaults=["line"])  # look: line, band or marks
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a braille character, by row and column
BRAILLE = "utf" in (sys.stdout.encoding or "").lower() and os.environ.get("TERM") != "linux"

def smooth(points, share):
    "A mean that looks back over a share of the way so far: the same look at every zoom and length."
    result = points[:1]
    for (last, _), (x, y) in zip(points, points[1:]):
        mean = result[-1][1]
        if x > last:
            mean += (y - mean) * (1 - math.exp((last - x) / (share * (x - points[0][0]))))
        result.append((x, mean))
    return result

def thinned(points, to_x):
    "Of many points in a column of dots: the lowest and the highest, or how far the band reaches."
    columns = {}
    for p in points:
        columns.setdefault(to_x(p[0]), []).append(p)
    for found in columns.values():
        if len(found) < 3:
            yield from found
        elif len(found[0]) > 2:
            yield (*found[0][:2], max(p[2] for p in found), min(p[3] for p in found))
        else:
            yield from sorted((min(found, key=lambda p: p[1]), max(found, key=lambda p: p[1])))

def ticks(low, high, most, log):
    "Round numbers between low and high, and how to write them."
    if log and high > 4 * low > 0:
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for steps in ((1, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3), (1,)):
            found = [s * 10.0 ** e for e in exponents for s in steps if low <= s * 10.0 ** e <= high]
            if len(found) <= most:
                break
        return found, lambda v: short(v) if v >= 1 else f"{v:.3g}"
    step = 10 ** math.floor(math.log10(max(high - low, 1e-12) / max(1, most)))
    step *= next(s for s in (1, 2, 5, 10) if (high - low) / (step * s) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    found = [min(max(i * step, low), high) for i in range(first, last + 1)]
    if high >= 10_000:
        return found, short
    return found, lambda v: f"{v:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"

def axis(low, high, most, log):
    "Where the ticks of an axis are, and what is written there; a logarithmic one is in powers of ten."
    found, form = ticks(*(10 ** v if log else v for v in (low, high)), most, log)
    return [(math.log10(v) if log else v, form(v)) for v in found]

class Chart(Widget, can_focus=True):
    """Curves in braille: 2 x 4 dots a cell. A cell has one colour, so the later curve takes the whole cell.
    Zoom and place stay when new points come; a view that reaches the end follows it."""
    STYLES = "label", "grid", "raw", "train", "val", "best", *"012345"
    COMPONENT_CLASSES = {f"chart--{name}" for name in STYLES}
    LEFT = 6                                                  # columns for the numbers at the axis
    BINDINGS = [hidden("plus,equals_sign", "zoom(0.5)", "Zoom in"), hidden("minus", "zoom(2)", "Zoom out"),
                hidden("0", "reset", "All"), hidden("left", "pan(-0.2)", "Move left"),
                hidden("right", "pan(0.2)", "Move right"), hidden("comma", "read(-1)", "Read left"),
                hidden("full_stop", "read(1)", "Read right")]
    log_x, log_y, cursor, view = reactive(False), reactive(False), reactive(None), reactive(None)
    def __init__(self, empty="", **more):
        super().__init__(**more)
        self.curves, self.best, self.empty = [], None, empty
    def plot(self, curves, best=None):
        self.curves, self.best = [c for c in curves if c.points], best
        self.refresh()
    def scaled(self, points):
        "Points as the axes have them; the view is on these scales, too."
        if self.log_x:
            points = [(math.log10(p[0]), *p[1:]) for p in points if p[0] > 0]
        if self.log_y:
            points = [(p[0], *(math.log10(max(y, 1e-9)) for y in p[1:])) for p in points]
        return points
    def range(self):
        ends = [x for c in self.curves for x, *_ in self.scaled([*c.points[:2], c.points[-1]])] or [0, 1]
        return min(ends), max(ends) if max(ends) > min(ends) else min(ends) + 1
    def span(self):
        low, high = self.range()
        a, b = self.view or (low, None)
        return max(a, low), high if b is None else b
    def look(self, a, b):
        low, high = self.range()
        width = min(max(b - a, (high - low) / 2000), high - low)
        a = min(max(a, low), high - width)
        whole, end = width == high - low, a + width >= high - 1e-9
        self.view = None if whole else (a, None if end else a + width)
    def action_zoom(self, factor, at=None):
        a, b = self.span()
        at = b if at is None and not self.view else a + (0.5 if at is None else at) * (b - a)
        self.look(at - (at - a) * factor, at + (b - at) * factor)
    def action_pan(self, share):
        a, b = self.span()
        self.look(a + share * (b - a), b + share * (b - a))
    def action_reset(self):
        self.view = self.cursor = None

    watch_log_x = action_reset
    def action_read(self, step):
        last = self.size.width - self.LEFT - 1
        self.cursor = max(0, min(last, step + (last if self.cursor is None else self.cursor)))
    def on_leave(self):
        self.cursor = None
    def on_mouse_move(self, event):
        if event.button and event.delta_x:
            return self.action_pan(-event.delta_x / max(1, self.size.width - self.LEFT))
        self.cursor = event.x - self.LEFT if event.x >= self.LEFT else None
    @on(MouseScrollUp)
    @on(MouseScrollDown)
    def wheel(self, event):
        event.stop()
        at = (event.x - self.LEFT) / max(1, self.size.width - self.LEFT)
        self.action_zoom(0.8 if isinstance(event, MouseScrollUp) else 1.25, at)
    def render(self):
        styles = {name: self.get_component_rich_style(f"chart--{name}") for name in self.STYLES}
        w, h = self.size.width - self.LEFT, self.size.height - 1
        if w < 8 or h < 3 or not self.curves:
            return bits("\n" * (h // 2), ("" if self.curves else self.empty, "$text-muted"))
        x0, x1 = self.span()
        curves = [c._replace(points=self.scaled(c.points)) for c in self.curves]
        seen = [[p for p in c.points if x0 <= p[0] <= x1] for c in curves]
        # The first steps are far above all that follows: they may leave through the top.
        calm = x0 + (0.02 * (x1 - x0) if not (self.log_x or self.view) else 0)
        ys = sorted(p[1] for points in seen for p in points if p[0] >= calm)
        ys = ys or sorted(p[1] for points in seen for p in points) or [0, 1]
        low, high = ys[0], ys[min(len(ys) - 1, int(len(ys) * 0.99))]
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 1
        low, high = low - margin, high + margin
        to_x = lambda v: int((v - x0) / (x1 - x0) * (2 * w - 1) + 0.5)
        to_y = lambda v: max(-9, min(4 * h + 9, int((high - v) / (high - low) * (4 * h - 1) + 0.5)))
        dots, owner, marks = [0] * (w * h), [None] * (w * h), {}

        def dot(x, y, style):
            if 0 <= y < 4 * h and 0 <= x < 2 * w:
                i = y // 4 * w + x // 2
                if owner[i] is not style:
                    owner[i], dots[i] = style, 0
                dots[i] |= DOTS[y % 4][x % 2]

        def place(point, mark, style):
            x, y = to_x(point[0]), to_y(point[1])
            if 0 <= y < 4 * h and 0 <= x < 2 * w:
                marks[y // 4 * w + x // 2] = mark, style

        for index, (curve, points) in enumerate(zip(curves, seen)):
            style, before = styles[curve.style], None
            if curve.look == "marks":
                for point in points:
                    place(point, "●", style)
                continue
            inside = bisect.bisect_left(curve.points, (x0,))
            wider = curve.points[max(0, inside - 1):inside + len(points) + 1]  # one more on each side
            for p in thinned(wider, to_x):
                x, y = to_x(p[0]), to_y(p[1])
                for row in range(to_y(p[3]), to_y(p[2]) + 1) if curve.look == "band" else ():
                    dot(x, row, style)
                px, py = before or (x, y)
                n = max(abs(x - px), abs(y - py), 1)
                for i in range(n + 1):
                    dot(px + (x - px) * i // n, py + (y - py) * i // n, style)
                before = x, y
            if points and curve.style.isdigit():              # tells curves apart without colour
                place(points[-1], "abcdef"[index % 6], style)
        for point in self.scaled([self.best] if self.best else []):
            place(point, "★", styles["best"])

        rows = {to_y(v) // 4: text if len(text) < self.LEFT else f"{10 ** v if self.log_y else v:.0e}"
                for v, text in reversed(axis(low, high, max(2, h // (2 if h < 16 else 3)), self.log_y))}
        lines = []
        for row in range(h):
            cells = [(f"{rows.get(row, ''):>{self.LEFT - 1}} ", styles["label"])]
            for i in range(row * w, row * w + w):
                if i in marks:
                    cells.append(marks[i])
                elif dots[i]:
                    cells.append((chr(0x2800 + dots[i]) if BRAILLE else "•", owner[i]))
                elif i - row * w == self.cursor:
                    cells.append(("│", styles["label"]))
                else:
                    cells.append(("┈" if row in rows else " ", styles["grid"]))
            lines.append(cells)
        legend = self.legend(styles, None if self.cursor is None else x0 + (x1 - x0) * self.cursor / (w - 1))
        length = sum(len(text) for text, _ in legend)
        if length < w:
            lines[0][1 + w - length:] = legend
        below, used = [" "] * (self.LEFT + w), -1
        for v, text in axis(x0, x1, max(2, w // 12), self.log_x):
            at = max(0, min(self.LEFT + to_x(v) // 2 - len(text) // 2, self.LEFT + w - len(text)))
            if at > used:
                below[at:at + len(text)], used = text, at + len(text)
        lines.append([("".join(below), styles["label"])])
        return Segments([part for line in lines for part in (
            *(Segment("".join(text for text, _ in cells), style)
              for style, cells in groupby(line, key=lambda cell: cell[1])), Segment.line())])
    def legend(self, styles, x):
        "What the curves are; under the cursor, their values there."
        parts = []
        if x is not None:
            x = 10 ** x if self.log_x else x
            parts.append((f"  at {x:,.0f} ", styles["label"]))
        for i, c in enumerate(c for c in self.curves if c.look != "band"):
            value = "" if x is None else f" {min(c.points, key=lambda p: abs(p[0] - x))[1]:.3f}"
            sign = "●" if c.look == "marks" else "abcdef"[i % 6] if c.style.isdigit() else "━"
            parts.append((f"  {sign} {c.name}{value}", styles[c.style]))
        best = [("  ★ best", styles["best"])] if self.best and x is None else []
        return [*parts, *best, (" ", styles["label"])]

# ---- what the screens share --------------------------------------------------------------------------------

CSS = """
Screen { background: $background; }
.-small #body, .-small Footer, .-small #bar, .-wide #stats { display: none; }
#small { display: none; width: 100%; height: 100%; content-align: center middle; text-align: center; }
.-small #small { display: block; }
#bar { height: 1; background: $panel; }
#tabs { width: auto; }
#news { width: 1fr; text-align: right; padding-right: 1; text-wrap: nowrap; }
Footer { background: $panel; }
Chart { height: 1fr; min-height: 5; padding: 0 1 0 0; text-align: center; }
Chart:focus, #said:focus { background-tint: $foreground 2%; }
Chart > .chart--label { color: $text-muted; }
Chart > .chart--grid { color: $foreground 12%; }
Chart > .chart--raw { color: $primary 45%; }
Chart > .chart--train { color: $text-primary; text-style: bold; }
Chart > .chart--val { color: $text-accent; text-style: bold; }
Chart > .chart--best { color: $text-success; text-style: bold; }
.pane { border: round $foreground 20%; border-title-color: $text-accent; border-subtitle-color: $text-muted;
        padding: 0 1; }
#prompt:focus, .pane:focus { border: round $primary; }
ModalScreen { align: center middle; background: $background 60%; }
.box { width: 74; max-width: 96%; height: auto; max-height: 90%; border: round $primary; background: $surface;
       border-title-color: $text-accent; border-title-style: bold; padding: 0 2; }
.box Input { margin: 1 0; }
.box OptionList { height: auto; max-height: 18; border: none; background: $surface; padding: 0; }
.bad, Input.-invalid { color: $text-error; }

#head, #stats { height: 2; padding: 0 1; }
#side, #controls { width: 43; display: none; padding: 0 1; border-left: solid $foreground 15%; }
#side { width: 42; }
.-wide #side, .-wide #controls, #chat.-knobs #controls { display: block; }
.-tall #warning { max-height: 4; }
#warning { height: auto; max-height: 2; padding: 0 1; display: none; background: $warning 15%;
           color: $text-warning; }
#trouble { height: auto; max-height: 12; display: none; border: round $error; border-title-color: $error;
           border-title-style: bold; padding: 0 1; }
#talk { height: 6; }
.-tall #talk { height: 30%; }
#talk .pane { width: 1fr; height: 100%; }
#log { display: none; text-wrap: nowrap; }
#log Static, #turns { height: auto; min-height: 100%; }
.-wide #log, #watch.-log #log { display: block; }
#watch.-log #samples, #watch.-log #left { display: none; }
#watch.-log #talk { height: 1fr; }

#model { height: 1; padding: 0 1; background: $boost; text-wrap: nowrap; }
#said { padding: 0 1; }
Turn { height: auto; margin-top: 1; }
#welcome { padding: 1 2; color: $foreground 70%; }
#peek { display: none; height: 3; padding: 0 1; border-top: solid $foreground 15%; text-wrap: nowrap; }
#chat.-xray #peek { display: block; }
#controls, #form, #said, .pane, DataTable { scrollbar-size-vertical: 1; }
#controls .field Label { width: 19; }
#prompt { height: 5; border: round $foreground 30%; padding: 0 1; background: $background;
          border-title-color: $text-accent; border-subtitle-color: $foreground 60%; }
.-low #prompt { height: 4; }

#recipes { width: 37; height: 100%; overflow-x: hidden; }
.-wide #recipes { width: 84; }
#form { padding: 0 1; border-left: solid $foreground 15%; }
#about { margin-bottom: 1; }
.field { height: 1; }
.field Label { width: 15; color: $foreground 60%; }
.field:focus-within Label { color: $text-accent; text-style: bold; }
.field Input, .field Knob { width: 1fr; height: 1; }
.field.-edited Label { color: $text-primary; text-style: bold; }
#more { height: 1; margin-top: 1; color: $text-primary; }
#more:focus { text-style: bold reverse; }
#order { height: auto; border-top: solid $foreground 15%; padding: 0 1; }
#hint { height: 1; color: $foreground 60%; text-wrap: nowrap; text-overflow: ellipsis; }
#hint.-bad { color: $text-error; }
#command { width: 1fr; height: auto; max-height: 3; color: $text-success; }
#estimate { width: 1fr; height: auto; max-height: 2; }
#start { width: 14; min-width: 14; }
#go { height: auto; }
#broken { display: none; height: 1fr; padding: 1 3; }
Train.-broken #choose, Train.-broken #order { display: none; }
Train.-broken #broken { display: block; }
.tree { height: 20; background: $surface; }

DataTable, DataTable:focus { background: $background; background-tint: transparent; }
DataTable > .datatable--header { background: $background; color: $text-muted; text-style: bold; }
DataTable > .datatable--cursor { background: $primary 30%; color: $foreground; text-style: bold; }
#filter { display: none; }
#overlay { border-top: solid $foreground 15%; }
#none { display: none; padding: 1 3; height: 1fr; }
"""

KEY, DIM = "bold $text-accent", "$foreground 60%"             # keys and titles; what matters less

def ends(width, left, right):
    "A line with something at both its ends; where it is too short for that, the left one is cut."
    left, right = bits(*left), bits(*right)
    return left.truncate(max(0, width - right.cell_length), pad=True) + right

def fit(static):
    "Lay the screen out anew if this text takes another height than it has: to do so each time costs most."
    width, height = static.size
    if not width or static.visual.get_height(static.styles, width) != height:
        static.refresh(layout=True)

def renew(static, shown):
    static.update(shown, layout=False)
    fit(static)
    static.call_after_refresh(fit, static)                    # of two that come close Textual may forget one

def put(static, *parts):
    "Show this, unless it is shown already: to lay text out anew costs more than to compare it."
    if getattr(static, "parts", None) != parts:
        static.parts = parts
        renew(static, bits(*parts))

class Page(Screen):
    "One of the four screens: tabs and news above, keys below; word of it if the terminal is too small."
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (112, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-low"), (32, "-tall")]
    ESCAPE_TO_MINIMIZE = False
    def compose(self):
        with Horizontal(id="bar"):
            yield (tabs := Static(id="tabs", markup=False))
            yield Static(id="news", markup=False)
            tabs.auto_links = False                           # they look like tabs
        with Vertical(id="body"):
            yield from self.body()
        yield Static(id="small", markup=False)
        yield Footer(compact=True)
    def on_resize(self, event):
        w, h = event.size
        self.set_class(w < SMALLEST[0] or h < SMALLEST[1], "-small")
        self.query_one("#small", Static).update(
            f"This terminal is {w}×{h}; it takes {SMALLEST[0]}×{SMALLEST[1]}.\nEnlarge the window or shrink "
            "the font (Ctrl -).\nWithout screens: python gpt.py train\n\nctrl+q quits")
        self.call_after_refresh(self.refreshed)
    def on_screen_resume(self):
        self.refreshed()
    def refreshed(self):
        "Show what is new, once there is something to show it in."
        if self.is_mounted:
            self.show()
    def show(self):
        "Bring all that is shown up to date."
        app, tabs = self.app, [(" gpt ", "bold $background on $primary"), " "]
        for i, (name, title) in enumerate(app.TABS.items(), 1):
            here = name == app.current_mode
            look = "bold $foreground on $background" if here else DIM
            tabs.append(button(f" {i} {title} ", f"app.switch_mode({name!r})", look))
        put(self.query_one("#tabs"), *tabs)
        put(self.query_one("#news"), self.news())
    def news(self):
        live = [run for run in list(self.app.runs.values()) if run.state in LIVE]
        if not live:
            return bits((self.app.machine, DIM))
        run = max(live, key=lambda r: (r is self.app.chosen, r.written))
        more = f" and {len(live) - 1} more" if len(live) > 1 else ""
        return bits(("● ", f"$text-{COLORS.get(run.state, 'success')}"), run.name,
                    (f"{more} {run.state} {run.done:.0%}", DIM))

class Box(ModalScreen):
    "A window over a page; esc closes it."
    BINDINGS = [("escape", "dismiss", "Cancel")]
    def __init__(self, title, *widgets, scrolls=False):
        super().__init__()
        self.frame = VerticalScroll(*widgets, classes="box", can_focus=scrolls)
        self.frame.border_title = title
    def compose(self):
        yield self.frame

class Ask(Box):
    "A question and its answers, each a key -> the key, or None."
    def __init__(self, title, text, **answers):
        self.answers = answers
        super().__init__(title, Static(text, markup=False), OptionList(compact=True, *[
            Option(bits((f"{key:>6}  ", KEY), words), id=key)
            for key, words in {**answers, "esc": "cancel"}.items()]))
    def on_mount(self):
        self.query_one(OptionList).highlighted = 0
    def on_key(self, event):
        if event.key in self.answers:
            event.stop()
            self.dismiss(event.key)
    def on_option_list_option_selected(self, event):
        self.dismiss(None if event.option_id == "esc" else event.option_id)

class Enter(Box):
    "A question to be answered in words; check(words) says what is wrong with them, or nothing."
    def __init__(self, title, value, check):
        self.check_ = check
        super().__init__(title, Input(value, compact=True), Label("", classes="bad", markup=False))
    def on_input_changed(self, event):
        self.query_one(Label).update(self.check_(event.value) or "")
    def on_input_submitted(self, event):
        if not self.check_(event.value):
            self.dismiss(event.value)

class Pick(Box):
    "A list to choose from, narrowed down by typing: (id, what is shown) -> id, or None."
    BINDINGS = [hidden("down", "move('down')", "Next"), hidden("up", "move('up')", "Back")]
    def __init__(self, title, options):
        self.options, self.list = options, OptionList(compact=True)
        super().__init__(title, Input(placeholder="type to narrow down", compact=True), self.list)
    def on_mount(self):
        self.on_input_changed()
    def on_input_changed(self):
        words = self.query_one(Input).value.lower().split()
        self.list.clear_options()
        self.list.add_options(Option(shown, id=id) for id, shown in self.options
                              if all(word in str(shown).lower() for word in words))
        self.list.highlighted = 0
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
        lines = [part for key, words in keys for part in ((f"{key:>14}  ", KEY), f"{words}\n")]
        super().__init__("help", Static(bits(f"{page.HELP}\n\n", *lines)), scrolls=True)

# ---- Watch: one run ----------------------------------------------------------------------------------------

SMOOTHING = {0.05: "light", 0.15: "strong", 0: "off"}
CHART_KEYS = [hidden("x", "log('x')", "Log x"), Binding("y", "log('y')", "Log y"),
              hidden("plus,equals_sign", "chart('zoom', 0.5)", "Zoom in"),
              hidden("minus", "chart('zoom', 2)", "Zoom out"), hidden("0", "chart('reset')", "Zoom to all")]

class Charted(Page):
    "A page with a chart, whose keys work wherever the focus is, and with a run that other keys are about."
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

def loss_points(run):
    return [(row.step, row.loss) for row in run.rows if row.loss is not None]

def val_points(run):
    return [(e.step, e.val) for e in run.evals if e.val is not None]

class Watch(Charted):
    HELP = """Watch one run, running or not, ours or not: all of it is read from the run's folder.
Bright line: training loss, smoothed; dim: each reading; dots: validation; the star: the best."""
    BINDINGS = [Binding("p", "control('pause')", "Pause"), Binding("p", "control('go')", "Go on"),
                Binding("s", "stop", "Stop"), Binding("r", "resume", "Resume"),
                Binding("g", "control('sample')", "Sample"), Binding("c", "chat('best.pt')", "Chat"),
                hidden("C", "chat('latest.pt')", "Chat with the newest weights"),
                Binding("l", "log_pane", "Log"), Binding("m", "smooth", "Smooth"), *CHART_KEYS,
                hidden("k", "kill", "Kill the process"), hidden("w", "copy", "Copy the command")]
    SIDE = {"loss": ("train", "val", "best", "bits/byte", "gap"),
            "speed": ("tok/s", "MFU", "so far", "tokens"), "optimizer": ("lr", "norm"),
            "machine": ("memory", "device")}
    TOLD = {"starting": "Starting: loading torch, preparing the text. The first time takes longest.",
            "compiling": "Compiling: the first step takes up to some minutes, all others gain.",
            "gone": "The folder of {} has vanished. What was read stays here."}
    share, keyed = 0.05, ()
    @property
    def run(self):
        return self.app.chosen
    def body(self):
        yield Static(id="head", markup=False)
        yield Static(id="warning", markup=False)
        with Horizontal(id="watch"):
            with Vertical():
                with Vertical(id="left"):
                    yield Chart("no numbers yet")
                    yield Static(id="stats", markup=False)
                yield Static(id="trouble", markup=False)
                with Horizontal(id="talk"):
                    with VerticalScroll(id="samples", classes="pane") as pane:
                        pane.border_title = "it says"
                        yield Static(markup=False)
                    with VerticalScroll(id="log", classes="pane") as pane:
                        pane.border_title = "log"
                        pane.anchor()
                        yield Static(markup=False)
            yield Static(id="side", markup=False)
    def show(self):
        super().show()
        run, head = self.run, self.query_one("#head", Static)
        if (now := run and (run.folder, run.state, len(run.checkpoints()))) != self.keyed:
            self.keyed = now                                  # the footer is made anew: not at each repaint
            self.refresh_bindings()
        self.query_one("#watch").display = bool(run)
        if not run:
            self.query_one("#warning").display = False
            return put(head, "Nothing to watch yet. ", ("1", KEY), " chooses what to train.")
        state, color = run.state, f"$text-{COLORS.get(run.state, 'primary')}"
        word = f"● {state}" + f" {clock(run.silent)}" * (state == "stalled")
        most = number(run.start.get("max_iters"))
        steps = f"  step {run.step:,}" + (f"/{most:,}" if most else "")
        width = self.size.width - 2
        room = max(1, width - len(run.name + word + steps) - 4)
        eta = number(run.now.get("eta_s")) if state in LIVE else None
        took = f"  took {clock(run.rows[-1].elapsed)}" if run.rows else ""
        tail = f"  {run.done:.0%}" + (took if eta is None else f"  {clock(eta)} left")
        done, half = divmod((width - len(tail)) * run.done, 1)
        bar = ("━" * int(done) + "╸" * (half > 0.5), color), ("━" * width, "$foreground 15%")
        put(head, ends(width, [(run.name, "bold"), "  ", (clean(run.folder)[-room:], DIM)],
                       [(word, color), steps]), "\n", ends(width, bar, [tail]))
        points = loss_points(run)
        smoothed = smooth(points, self.share) if self.share else points
        best = run.best
        band = [(row.step, row.loss, row.low, row.high) for row in run.rows if row.loss is not None]
        self.query_one(Chart).plot([Curve("", "raw", band, "band"), Curve("train", "train", smoothed),
                                    Curve("val", "val", val_points(run), "marks")],
                                   best and (best.step, best.val))
        numbers = self.numbers(run, smoothed)
        put(self.query_one("#stats"), self.stats(numbers))
        put(self.query_one("#side"), self.side(run, numbers))
        self.show_words(run, state)
    def show_words(self, run, state):
        "Warnings, troubles, samples and the log."
        warning, trouble = self.query_one("#warning", Static), self.query_one("#trouble", Static)
        told = []
        if state == "stalled":
            told.append(f"No news for {clock(run.silent)}. " + (
                "Its process lives: it may wait for a disk or swap memory." if run.held() else
                "Whether its process lives can't be seen from here.") + " k kills it, r then resumes.")
        elif state in self.TOLD:
            told.append(self.TOLD[state].format(run.name))
        if run.bad:
            told.append(f"{run.bad} lines of metrics.jsonl make no sense and were skipped.")
        told += reversed(run.warnings[-2:])
        put(warning, "\n".join("▲ " + text for text in told))
        warning.display = bool(told)
        problem, logging = run.trouble(), self.query_one("#watch").has_class("-log")
        trouble.display = bool(problem) and not logging
        self.query_one("#talk").display = not trouble.display
        if problem:
            headline, why, remedy, flags = problem
            trouble.border_title = f"training ended: {headline}"
            code = run.process.poll() if run.process else None
            last = [run.end["message"]] if run.end and not run.log else run.lines()[-4:]
            put(trouble, f"{why}\n" if why else "", *((f"{line[:400]}\n", DIM) for line in last),
                f"{run.kept()} " if run.start else "", ("r", KEY), f": {remedy}.  ",
                "l: the whole log." if code is None else f"(exit status {code}; whole log: l)")
        newest = [part for step, text in run.samples[:30] for part in (
            (f"step {step:,}\n", KEY), text.strip("\n") + "\n\n")]
        put(self.query_one("#samples Static"), *newest or [
            ("A sample comes with each evaluation; g asks for one now.", DIM)])
        put(self.query_one("#log Static"), "\n".join(run.lines()[-100:]))
    def numbers(self, run, smoothed):
        "Of each number: what it is now, as text, and what it was."
        def series(values, form=".3f"):
            return fixed(values[-1] if values else None, form), values
        evals, best = [e for e in run.evals if e.val is not None], run.best
        speed, memory, mfu, lr, norm = (
            [getattr(row, name) for row in run.rows] for name in ("speed", "memory", "mfu", "lr", "norm"))
        used, took = (run.rows[-1].memory, run.rows[-1].elapsed) if run.rows else (None, None)
        return {"train": series([y for _, y in smoothed]), "val": series([e.val for e in evals]),
                "best": (f"{best.val:.3f} @{best.step:,}" if best else "—", ()),
                "bits/byte": series([e.bits for e in evals if e.bits is not None]),
                "gap": series([e.val - e.train for e in evals if e.train is not None], "+.3f"),
                "tok/s": (short(run.speed), speed), "MFU": series(mfu, ".0%"), "so far": (clock(took), ()),
                "tokens": (short(number(run.now.get("tokens"))), ()), "lr": series(lr, ".1e"),
                "norm": series(norm, ".2f"), "memory": (size(used and used * 1e6), memory),
                "device": (clean(run.start.get("device", "—")), ())}
    def stats(self, numbers):
        "Two lines, for narrow terminals."
        half, parts = max(4, (self.size.width - 52) // 3), []
        for name in ("train", "val", "best", "bits/byte", "memory", "MFU"):
            if numbers[name][0] != "—" or name in ("train", "val", "best"):
                parts += [(f"{name} ", DIM), (f"{numbers[name][0]}  ", "bold")]
        parts.append("\n")
        for name in ("tok/s", "norm", "lr"):
            now, values = numbers[name]
            parts += [(f"{name} ", DIM), (f"{now} ", "bold"), (spark(values, half), "$primary 70%"), "  "]
        return bits(*parts)
    def side(self, run, numbers):
        "The column of wide terminals: every number, and how it went."
        parts = []
        for title, names in self.SIDE.items():
            parts.append((f"{title}\n", KEY))
            for name in names:
                now, values = numbers[name]
                if now != "—" or name in ("train", "val", "best"):
                    bars = spark(values, 15), "$primary 70%"
                    parts += [(f"{name:11}", DIM), (f"{now:12}", "bold"), bars, "\n"]
            parts.append("\n")
        used, processes = run.part("used"), number(run.start.get("world_size")) or 1
        parts[-1] = (f"{clean(used.get('dtype', ''))}, {processes} process{'es' * (processes > 1)}, "
                     f"torch {clean(used.get('torch', '?'))}\n\n", DIM)
        parts += [("run\n", KEY), run.shape(
            "{preset} {level} on {data}\n{n_layer} layers, {n_head} heads, {n_embd} wide\n"
            "context {block_size}, vocabulary {vocab_size}\n{parameters} weights, batch {batch_size}\n")]
        with contextlib.suppress(OSError):
            parts.append((f"saved {ago(time.time() - (run.folder / 'latest.pt').stat().st_mtime)}", DIM))
        return bits(*parts)
    def check_action(self, action, parameters):
        run = self.run
        state = run.state if run else ""
        if action == "control":
            return state in LIVE and state != "starting" and (
                parameters[0] == "sample" or (parameters[0] == "go") == (state == "paused"))
        if action in ("stop", "kill"):
            return state in LIVE
        if action == "resume":
            return bool(run) and state not in LIVE and state != "gone"
        if action == "chat":
            return bool(run and run.checkpoints())
        return bool(run) or action not in ("log_pane", "smooth", "log", "chart", "copy")
    def action_control(self, word):
        try:
            self.run.control(word)
            told = {"pause": "pauses", "go": "goes on", "sample": "gives a sample", "stop": "saves and stops"}
            self.notify(f"It {told[word]} after this step", timeout=2)
        except OSError as e:
            self.notify(f"{self.run.folder}: {e.strerror}", severity="error")
    @work
    async def action_stop(self):
        run = self.run
        text = f"Stop {run.name}? It saves, and can be resumed."
        if await self.app.push_screen_wait(Ask("stop", text, s="stop and save")):
            if run.state == "starting":
                run.process.terminate()
            else:
                self.action_control("stop")
    @work
    async def action_kill(self):
        run = self.run
        pid = run.process.pid if run.process else run.start.get("pid")
        text = f"Kill process {pid} of {run.name}, without saving? Stop (s) saves. Kill only what hangs."
        if await self.app.push_screen_wait(Ask("kill", text, k="kill it")):
            if run.process:
                run.process.kill()
            elif run.held() and isinstance(pid, int) and os.name == "posix":
                os.kill(pid, 9)
            else:
                self.notify("It was not started here: kill it where it runs", severity="warning")
    def action_resume(self):
        run, problem = self.run, self.run.trouble()
        if not run.start:
            return self.app.switch_mode("train")
        flags = problem[3] if problem else {}
        if not (run.folder / "latest.pt").exists():
            return self.notify("No checkpoint to go on from: start anew on Train (1)", severity="warning")
        self.app.launch(run.folder, ["--resume", str(run.folder), *(f"--{k}={v}" for k, v in flags.items())])
    def action_log_pane(self):
        self.query_one("#watch").toggle_class("-log")
        self.show()
    def action_smooth(self):
        order = list(SMOOTHING)
        self.share = order[(order.index(self.share) + 1) % len(order)]
        self.notify(f"smoothing: {SMOOTHING[self.share]}", timeout=1.5)
        self.show()

# ---- Runs: all of them -------------------------------------------------------------------------------------

HUES = "primary", "accent", "success", "error", "warning", "secondary"  # of the runs laid over one another
CSS += "".join(f"Chart > .chart--{i} {{ color: $text-{hue}; }}\n" for i, hue in enumerate(HUES))

class Runs(Charted):
    HELP = """All runs of this folder. Space marks runs whose curves are then laid over one another; with none
marked, the chart shows the one under the cursor. A click on a column's title sorts by it."""
    BINDINGS = [Binding("enter", "open", "Watch"), Binding("space", "mark", "Overlay"),
                Binding("s", "sort", "Sort"), hidden("S", "reverse", "Sort the other way"),
                Binding("slash", "filter", "Filter"), Binding("c", "chat", "Chat"),
                Binding("d", "delete", "Delete"), hidden("n", "rename", "Rename"),
                hidden("w", "copy", "Copy the command"), hidden("escape", "clear", "Show all"),
                hidden("v", "which", "Training or validation loss"), *CHART_KEYS]
    COLUMNS = {  # title: narrow too, what to sort by, larger first, how it is written: right-aligned
        "run": (1, lambda r: r.name.lower(), 0, None), "state": (1, lambda r: r.state, 0, None),
        "preset": (0, lambda r: clean(r.part("train").get("preset", "—")), 0, None),
        "level": (0, lambda r: clean(r.part("train").get("level", "—")), 0, None),
        "data": (0, lambda r: clean(Path(str(r.part("train").get("data", "—"))).name), 0, None),
        "weights": (0, lambda r: number(r.start.get("parameters")), 1, short),
        "steps": (1, lambda r: r.step, 1, lambda n: f"{n:,}"),
        "best": (1, lambda r: r.best.val if r.best else None, 0, fixed),
        "b/byte": (1, lambda r: r.best.bits if r.best else None, 0, fixed),
        "tok/s": (1, lambda r: r.speed, 1, short), "when": (1, lambda r: r.written, 1, None)}
    by, backwards, validation = "when", False, True
    def body(self):
        yield Static(id="none", markup=False)
        yield Input(placeholder="filter: words of name, state, preset, level or data", id="filter",
                    compact=True)
        yield DataTable(id="table", cursor_type="row", zebra_stripes=False, cell_padding=1)
        yield Chart("no validation yet", id="overlay")
    def on_mount(self):
        self.marked, self.listed, self.drawn = [], [], None
        self.query_one(DataTable).focus()
    def found(self):
        words = self.query_one("#filter", Input).value.lower().split()
        keys = ("run", "state", "preset", "level", "data")
        runs = [run for run in list(self.app.runs.values()) if all(
            word in " ".join(self.COLUMNS[k][1](run) for k in keys).lower() for word in words)]
        value, down = self.COLUMNS[self.by][1], bool(self.COLUMNS[self.by][2]) != self.backwards
        known = [run for run in runs if value(run) is not None]
        return sorted(known, key=value, reverse=down) + [run for run in runs if value(run) is None]
    def cells(self, run, wide):
        color, state, most = self.app.color, run.state, number(run.start.get("max_iters"))
        mark = self.marked.index(run.folder) % 6 if run.folder in self.marked else None
        letter = (" ", "") if mark is None else ("abcdef"[mark], f"bold {color('text-' + HUES[mark])}")
        texts = {key: Text(form(value(run)), justify="right") if form else Text(str(value(run)))
                 for key, (_, value, _, form) in self.COLUMNS.items()}
        texts["run"] = Text.assemble(letter, " ", (run.name, "bold" if run is self.app.chosen else ""))
        texts["state"] = Text(f"{'●' if state in LIVE else ' '} {state}",
                              color(f"text-{COLORS.get(state, 'primary')}"))
        texts["when"] = Text(ago(time.time() - run.written), f"{color('foreground')} dim")
        if most and state != "done":
            texts["steps"] = Text(f"{short(run.step)}/{short(most)}", justify="right")
        return [texts[key] for key in self.COLUMNS if wide or self.COLUMNS[key][0]]
    @on(Input.Changed, "#filter")
    def show(self):
        super().show()
        table, runs, wide = self.query_one(DataTable), self.found(), self.size.width >= 112
        none, nothing = self.query_one("#none", Static), not self.app.runs
        none.display, table.display = nothing, not nothing
        put(none, ("No runs yet", "bold"), f" in {clean(self.app.root.absolute())}\n\n", ("1", KEY),
            " chooses a preset: nano takes a minute or two.\nElsewhere: ",
            ("python tui.py --runs FOLDER", "bold"), ", or one run: ", ("python tui.py RUN", "bold"))
        self.query_one(Chart).display = not nothing
        columns = [key for key, (narrow, *_) in self.COLUMNS.items() if wide or narrow]
        rows = [self.cells(run, wide) for run in runs]
        drawn = columns, self.by, self.backwards, [[cell.markup for cell in row] for row in rows]
        here, self.listed = self.run, runs
        if drawn != self.drawn:
            self.drawn = drawn
            table.clear(columns=True)
            table.styles.height = min(len(runs) + 1, max(3, self.size.height // 2))
            for i, key in enumerate(columns):
                arrow = "▲▼"[bool(self.COLUMNS[key][2]) != self.backwards] if key == self.by else ""
                title = Text(f"{'  ' if key == 'run' else ''}{key}{arrow}")
                width = max([title.cell_len, *(row[i].cell_len for row in rows)])
                table.add_column(title, key=key, width=width)
            for run, row in zip(runs, rows):
                table.add_row(*row, key=str(run.folder))
            if here in runs:
                table.move_cursor(row=runs.index(here))
        self.show_chart()
    @property
    def run(self):
        "The one under the cursor."
        at = self.query_one(DataTable).cursor_row
        return self.listed[at] if 0 <= at < len(self.listed) else None
    def meant(self):
        "The marked runs; with none marked, the one under the cursor."
        marked = [self.app.runs[folder] for folder in self.marked if folder in self.app.runs]
        return marked or [run for run in [self.run] if run]
    @on(DataTable.RowHighlighted)
    def show_chart(self):
        curves = []
        for i, run in enumerate(self.meant()):
            points = val_points(run) if self.validation else smooth(loss_points(run), 0.05)
            curves.append(Curve(run.name[:24], str(i % 6), points))
        self.query_one(Chart).plot(curves)
    def check_action(self, action, parameters):
        run = self.run if self.is_mounted else None
        if action in ("open", "mark", "delete", "rename", "copy"):
            return bool(run)
        if action == "chat":
            return bool(run and run.checkpoints())
        return True
    @on(DataTable.RowSelected)
    def action_open(self):
        self.app.watch_run(self.run)
    def action_mark(self):
        folder = self.run.folder
        self.marked.remove(folder) if folder in self.marked else self.marked.append(folder)
        self.query_one(DataTable).action_cursor_down()
        self.show()
    def action_which(self):
        self.validation = not self.validation
        self.notify("validation loss" if self.validation else "training loss, smoothed", timeout=1.5)
        self.show()
    def action_sort(self):
        order = [key for key, (narrow, *_) in self.COLUMNS.items() if narrow or self.size.width >= 112]
        at = order.index(self.by) + 1 if self.by in order else 0
        self.by, self.backwards = order[at % len(order)], False
        self.show()
    def action_reverse(self):
        self.backwards = not self.backwards
        self.show()
    @on(DataTable.HeaderSelected)
    def sort_by(self, event):
        key = event.column_key.value
        self.backwards = key == self.by and not self.backwards
        self.by = key
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
        if alive := [run.name for run in runs if run.state in LIVE]:
            return self.notify(f"{', '.join(alive)} is running: stop it first", severity="warning")
        names = ", ".join(run.name for run in runs)
        text = f"Delete {names}, checkpoints and all? There is no way back."
        answer = f"delete {len(runs)} run{'s' * (len(runs) > 1)}"
        if await self.app.push_screen_wait(Ask("delete", text, d=answer)):
            for run in runs:
                self.app.forget(run, delete_run(run.folder))
            self.marked = []
            self.show()
    @work
    async def action_rename(self):
        run = self.run
        if run.state in LIVE:
            return self.notify(f"{run.name} is running: stop it first", severity="warning")

        def check(name):
            if not fit_for_a_name(name):
                return "a name without / \\ : * ? \" < > |"
            if name != run.folder.name and run.folder.with_name(name).exists():
                return "there is one of that name"
        name = await self.app.push_screen_wait(Enter("rename", run.folder.name, check))
        if name and name != run.folder.name:
            try:
                new = run.folder.rename(run.folder.with_name(name))
            except OSError as e:
                return self.notify(f"can't rename: {e.strerror}", severity="error")
            self.app.forget(run)
            self.app.scan_soon(new)

def delete_run(folder):
    "Delete what a run consists of and nothing else. -> what is wrong, or nothing"
    try:
        for path in list(folder.iterdir()):
            if re.fullmatch(r"config\.json|metrics\.jsonl|train\.log|control|.+\.(pt|tmp)|chat-.+",
                            path.name):
                path.unlink()
        folder.rmdir()
    except OSError as e:
        return f"{clean(folder)}: {e.strerror}"

# ---- Train: choose, change, start --------------------------------------------------------------------------

LIMITS = "max_iters", "epochs", "max_minutes"

class Catalog:
    "What `gpt.py presets --json` tells: recipes, fields with their rules, devices. None of it stands here."
    def __init__(self, found):
        self.presets, self.device = found["presets"], (found["devices"] or [{}])[0]
        self.fields = {f["name"]: f for f in found["fields"]}
    def recipe(self, preset, level=None):
        "All values of a preset at a level, and what it costs."
        about = self.presets.get(preset) or {}
        values = about.get(level or about.get("level", "char")) or {}
        return {**values, "vocab_size": self.fields["vocab_size"]["default"]} if values else {}
    def read(self, name, text):
        "What is typed -> a value of the field's type, or ValueError that says what was expected."
        field = self.fields[name]
        if field["choices"] or field["type"] == "bool":
            choices = field["choices"] or ("true", "false")
            if text.lower() not in choices:
                raise ValueError(f"one of {', '.join(choices)}")
            return text.lower() == "true" if field["type"] == "bool" else text.lower()
        try:
            return {"int": int, "float": float}.get(field["type"], str)(text)
        except ValueError:
            raise ValueError(f"a{' whole' * (field['type'] == 'int')} number") from None
    def problems(self, texts):
        "What is wrong with the values, by field; the rules are those of the command line."
        values, found = {}, {}
        for name, text in texts.items():
            try:
                values[name] = self.read(name, text)
            except ValueError as e:
                found[name] = f"{name}: expected {e}"
        for name in values:
            with contextlib.suppress(NameError):              # a field that it needs is wrong itself
                if not eval(self.fields[name]["rule"], {"__builtins__": {}}, values):
                    found[name] = f"{name} {texts[name]}: needs {self.fields[name]['rule']}"
        if not any(values.get(name) for name in LIMITS):
            found["max_iters"] = f"no end in sight: set {' or '.join(LIMITS)}"
        return found

def written(value):
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.lower() if isinstance(value, bool) else text

def button(text, action, style=""):
    "Text that does something when it is clicked."
    return Content.styled(text, style).stylize(Style.from_meta({"@click": action}))

class Knob(Widget, can_focus=True):
    """A value out of a row of values: arrows step, a click picks, and where it is free a number can be typed.
    Of a change it tells as an Input does."""
    BINDINGS = [hidden("left,minus", "turn(-1)", "Less"), hidden("right,plus,space", "turn(1)", "More"),
                hidden("up", "app.focus_previous", "Back"), hidden("down", "app.focus_next", "Next")]
    value, typed = reactive("", init=False), reactive("")
    auto_links = reactive(False)                              # what can be clicked looks as it is
    def __init__(self, value, options, free=False, **more):
        super().__init__(**more)
        self.options, self.free = [str(o) for o in options], free
        self.set_reactive(Knob.value, str(value))
    def render(self):
        if self.free:
            shown = f"{self.typed}▏" if self.typed else self.value
            return bits(button("◂ ", "turn(-1)"), (shown, "bold"), button(" ▸", "turn(1)"))
        look = {self.value: "bold $background on $primary"}
        return bits(*(button(f" {o} ", f"pick({o!r})", look.get(o, "")) for o in self.options))
    def watch_value(self):
        self.typed = ""
        self.post_message(Input.Changed(self, self.value))
    def action_turn(self, by):
        order = sorted({*self.options, self.value}, key=float) if self.free else self.options
        at = order.index(self.value) + by
        self.value = order[max(0, min(len(order) - 1, at)) if self.free else at % len(order)]
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
        typed, self.typed = self.typed, ""
        if number_of(typed) is not None:
            self.value = typed

def number_of(text):
    with contextlib.suppress(ValueError):
        return float(text)

class Browse(Box):
    "A file of one's own."
    def __init__(self):
        tree = DirectoryTree(".", classes="tree")
        tree.ICON_NODE, tree.ICON_NODE_EXPANDED, tree.ICON_FILE = "▸ ", "▾ ", "  "
        super().__init__("a text file, or a folder made by data.py", tree)
    @on(DirectoryTree.FileSelected)
    def chosen(self, event):
        path = event.path.parent if event.path.name in ("meta.json", "train.bin", "val.bin") else event.path
        with contextlib.suppress(ValueError):
            path = path.relative_to(Path.cwd())
        self.dismiss(str(path))

class Train(Page):
    HELP = """Choose a preset, change what you like, start. Each field is a flag of `python gpt.py train`;
what is wrong is said while you type. enter goes on, esc goes back to the presets."""
    BINDINGS = [Binding("ctrl+s", "start", "Start"), Binding("ctrl+o", "data", "Data"),
                Binding("ctrl+t", "more", "Advanced"), Binding("ctrl+y", "copy", "Copy command"),
                hidden("down", "app.focus_next", "Next"), hidden("up", "app.focus_previous", "Back"),
                hidden("escape", "app.focus('recipes')", "Presets"),
                Binding("r", "reload", "Read again"), Binding("e", "edit", "Edit the file")]
    COMMON = ("max_iters", "max_minutes", "batch_size", "learning_rate", "dropout", "eval_interval")
    COSTLY = {"n_layer", "n_head", "n_embd", "block_size", "batch_size", "micro_batch", "vocab_size"}
    ELSEWHERE = ("preset", "presets", "level", "data", "out_dir", "resume")
    def __init__(self):
        super().__init__()
        self.edited, self.found, self.preset, self.fit = {}, {}, "", {}
    def body(self):
        yield Static(id="broken", markup=False)
        with Horizontal(id="choose"):
            yield DataTable(id="recipes", cursor_type="row", cell_padding=1)
            with VerticalScroll(id="form", can_focus=False):
                yield Static(id="about", markup=False)
        with Vertical(id="order"):
            yield Static(id="hint", markup=False)
            yield Static(id="command", markup=False)
            with Horizontal(id="go"):
                yield Static(id="estimate", markup=False)
                yield Button("▶ Start", id="start", variant="success", compact=True, disabled=True)
    def on_mount(self):
        self.query_one("#recipes").focus()
        self.query_one("#about", Static).update("reading the presets …")
        self.action_reload()

    # what there is

    @work(exclusive=True)
    async def action_reload(self):
        if trouble := await self.app.read_presets():
            return self.broken(trouble)
        self.remove_class("-broken")
        self.refresh_bindings()
        table, wide = self.query_one("#recipes", DataTable), self.size.width >= 112
        table.clear(columns=True)
        for title in ("preset", "weights", "memory", "fits", *(["context", "for"] if wide else [])):
            table.add_column(title)
        right, color = lambda text: Text(text, justify="right"), self.app.color
        for name, about in self.app.catalog.presets.items():
            cost = self.app.catalog.recipe(name)
            fits = Text("yes", color("text-success")) if cost.get("fits") else Text("no", color("text-error"))
            more = [right(str(cost.get("block_size"))), Text(clean(about.get("for", "")))] if wide else []
            table.add_row(Text(clean(name), "bold"), right(short(number(cost.get("parameters")))),
                          right(size(number(cost.get("memory")))), fits, *more, key=name)
        if not self.query("#level"):
            await self.mount_fields()
        names = list(self.app.catalog.presets)
        table.move_cursor(row=names.index(self.preset) if self.preset in names else 0)
        self.choose(self.preset if self.preset in names else names[0])
        self.show()
    def broken(self, message):
        parts = [("The presets can't be read.\n\n", "bold $text-error"), f"{clean(message)}\n\n"]
        if found := re.search(r"line (\d+) column (\d+)", message):
            line, column, path = int(found[1]), int(found[2]), self.presets_file()
            with contextlib.suppress(OSError):
                text = path.read_text(encoding="utf-8", errors="replace").split("\n")
                for i in range(max(1, line - 3), min(len(text), line + 1) + 1):
                    parts.append((f"{i:5} | {clean(text[i - 1])}\n", "bold" if i == line else DIM))
                    if i == line:
                        parts.append((f"      | {' ' * (column - 1)}^\n", "bold $text-error"))
        parts += ["\nNothing was started. Mend it, then press ", ("r", KEY), ". ",
                  ("e", KEY), " opens it in your editor."]
        self.query_one("#broken", Static).update(bits(*parts))
        self.add_class("-broken")
        self.set_focus(None)
        self.refresh_bindings()
    def presets_file(self):
        return self.app.gpt.with_name("presets.json")
    async def mount_fields(self):
        await self.query_one("#form").mount_all([
            *map(self.make, ("level", "data", *self.COMMON, "run")),
            Button("▸ advanced", id="more", compact=True)])
    def make(self, name):
        about = self.app.catalog.fields.get(name, {"choices": None, "type": "str"})
        choices = about["choices"] or (["true", "false"] if about["type"] == "bool" else None)
        widget = Knob("", choices, id=name) if choices else Input(id=name, compact=True)
        return Horizontal(Label(name), widget, classes="field")
    def boxes(self):
        return self.query(".field Input, .field Knob")
    @on(DataTable.RowHighlighted, "#recipes")
    def moved(self, event):
        if event.row_key and event.row_key.value and event.row_key.value != self.preset:
            self.choose(event.row_key.value)
    @on(DataTable.RowSelected, "#recipes")
    def picked(self):
        self.query_one("#start").focus()
    def choose(self, preset):
        "Another preset: its level, its data and its values."
        self.preset, self.fit = preset, {}
        about = self.app.catalog.presets[preset]
        self.edited = {k: v for k, v in self.edited.items() if k == "data"}
        with self.prevent(Input.Changed):
            self.query_one("#level", Knob).value = about.get("level", "char")
        put(self.query_one("#about"), (clean(preset), "bold"), f"  {clean(about.get('about', ''))}\n",
            (f"for {clean(about['for'])}" if about.get("for") else "", DIM))
        self.fill()

    # the form

    @property
    def level(self):
        return self.query_one("#level", Knob).value
    def base(self):
        return self.app.catalog.recipe(self.preset, self.level)
    def fill(self):
        "Show each field's value: what was typed, else the recipe's."
        base = {**self.base(), "run": self.fresh_name()}
        with self.prevent(Input.Changed):
            for box in self.boxes():
                if box.id != "level":
                    box.value = self.edited.get(box.id, written(base.get(box.id, "")))
        self.check()
    def fresh_name(self):
        data = Path(self.edited.get("data", "")).stem
        name = re.sub(r"[^\w.-]+", "-", f"{self.preset}-{self.level}{'-' + data if data else ''}")
        return next(n for i in range(1, 10 ** 6) if not (
            self.app.root / (n := f"{name}-{i}" if i > 1 else name) / "metrics.jsonl").exists())
    @on(Input.Changed)
    def changed(self, event):
        name, text = event.input.id, event.value
        if name == "level":
            return self.fill()
        if text == written(self.base().get(name, "")):
            self.edited.pop(name, None)
        else:
            self.edited[name] = text
        if name == "data" and "run" not in self.edited:
            with self.prevent(Input.Changed):
                self.query_one("#run", Input).value = self.fresh_name()
        self.check()
    def texts(self):
        base = self.base()
        return {name: self.edited.get(name, written(base[name])) for name in self.app.catalog.fields
                if name in base}
    def problems(self):
        found = self.app.catalog.problems(self.texts())
        run, data = self.query_one("#run", Input).value, self.texts().get("data", "")
        if not fit_for_a_name(run):
            found["run"] = "run: a name without / \\ : * ? \" < > |"
        elif (self.app.root / run / "metrics.jsonl").exists():
            found["run"] = f"run: there is one of the name {run}"
        if not data:
            found["data"] = "data: a text file, a folder made by data.py, a name, or builtin"
        elif re.search(r"[\\/]|\.\w+$", data) and ":" not in data[2:] and not Path(data).exists():
            found["data"] = f"data: there is no {data}"
        return found
    def flags(self):
        texts = self.texts()
        edited = {k: v for k, v in self.edited.items() if k != "run"}
        if edited.keys() & {*LIMITS}:                         # one of them unsets the others: so name all
            edited |= {k: texts[k] for k in LIMITS if number_of(texts[k])}
        given = {"preset": self.preset, "level": self.level, **edited,
                 "out_dir": str(self.app.root / self.query_one("#run", Input).value)}
        words = []
        for name, text in given.items():
            words += [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]
        return words
    def command(self):
        return join(["python", "gpt.py", "train", *self.flags()])
    def check(self):
        "Marks, the line of what is wrong, the command and the estimate."
        self.found = self.problems()
        for box in self.boxes():
            box.set_class(box.id in self.found, "-invalid")
            box.parent.set_class(box.id in self.edited, "-edited")
        self.hint()
        self.query_one("#start").disabled = bool(self.found)
        put(self.query_one("#command"), f"$ {clean(self.command())}")
        more = len(self.app.catalog.fields) - len(self.COMMON) - len(self.ELSEWHERE)
        opened = bool(self.query(".extra"))
        self.query_one("#more", Button).label = "▾ advanced" if opened else f"▸ advanced: {more} more"
        self.fit = {}
        if not self.found and self.edited.keys() & self.COSTLY:
            self.estimate_edited()
        self.estimate()
    def hint(self):
        here = self.focused.id if self.focused else None
        about = self.app.catalog.fields.get(here, {})
        text = self.found.get(here) or next(iter(self.found.values()), None)
        line = self.query_one("#hint", Static)
        line.set_class(bool(text), "-bad")
        if not text:
            text = f"{here}: {about['help']}" if about else "enter: on to Start    tab: change it first"
        put(line, clean(text))
    def on_descendant_focus(self):
        if self.app.catalog and self.query("#level"):
            self.hint()
    @work(exclusive=True, group="estimate")
    async def estimate_edited(self):
        "The size of what was edited, said by the program that knows."
        await asyncio.sleep(0.4)                              # each key typed meanwhile begins it anew
        code, out, _ = await self.app.ask("presets", "--json", *self.flags()[:-2])
        with contextlib.suppress(ValueError, KeyError, TypeError):
            self.fit = json.loads(out)["presets"][self.preset][self.level] if code == 0 else {}
            self.estimate()
    def estimate(self):
        base, texts = {**self.base(), **self.fit}, self.texts()
        steps, minutes, batch, block = (
            number_of(texts[k]) or 0 for k in ("max_iters", "max_minutes", "batch_size", "block_size"))
        rough = "" if self.fit or not self.edited.keys() & self.COSTLY else "unedited: "
        fits = ("fits", "bold $text-success") if base.get("fits") else ("does not fit", "bold $text-error")
        needs, memory = (number(about.get("memory")) for about in (base, self.app.catalog.device))
        parts = [rough, (short(number(base.get("parameters"))), "bold"), " weights · ",
                 f"{size(needs)} of {size(memory)} ", fits]
        like = [run for run in list(self.app.runs.values()) if run.speed
                and [run.part("train").get(k) for k in ("preset", "level")] == [self.preset, self.level]]
        parts.append(f" · {short(batch * block)} tokens a step")
        if minutes:
            parts.append(f" · {clock(minutes * 60)} h" if minutes >= 60 else f" · {minutes:g} min")
        elif like and steps:
            took = clock(steps * batch * block / like[-1].speed)
            parts.append(f" · about {took}, as {like[-1].name} ran")
        bests = [run.best.val for run in like if run.best]
        if base.get("expect"):
            parts.append(f" · {clean(base['expect'])}")
        elif bests:
            parts.append(f" · best so far {min(bests):.3f}")
        self.query_one("#estimate", Static).update(bits(*parts))

    # keys

    def check_action(self, action, parameters):
        broken = self.has_class("-broken")
        if action in ("reload", "edit"):
            return broken
        return bool(self.app.catalog) and not broken or action not in ("start", "data", "more", "copy")
    @on(Input.Submitted)
    def next_field(self):
        self.focus_next()
    @on(Button.Pressed, "#more")
    @work
    async def action_more(self):
        if extra := self.query(".extra"):
            await extra.remove()
            return self.check()
        fields = self.app.catalog.fields.values()
        names = [f["name"] for part in ("ModelConfig", "TrainConfig") for f in fields if f["part"] == part]
        rows = [self.make(name) for name in names if name not in (*self.COMMON, *self.ELSEWHERE)]
        for row in rows:
            row.add_class("extra")
        await self.query_one("#form").mount_all(rows)
        self.fill()
        rows[0].query_one("Input, Knob").focus()
    @work
    async def action_data(self):
        names = await self.app.corpora()
        options = [("", bits(("browse …", KEY), "  a file of your own")),
                   *((name, bits((f"{name:16}", "bold"), (about, DIM))) for name, about in names.items())]
        name = await self.app.push_screen_wait(Pick("data", options))
        if name == "":
            name = await self.app.push_screen_wait(Browse())
        if name:
            self.query_one("#data", Input).value = name
            self.query_one("#data").focus()
    def action_copy(self):
        self.app.copy(self.command())
    def action_edit(self):
        path, editor = self.presets_file(), os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
        try:
            with self.app.suspend():
                subprocess.run([*shlex.split(editor), str(path)])
        except Exception as e:                                # Windows, a browser, no such editor
            return self.notify(f"{path}: {e}", severity="warning")
        self.action_reload()
    @on(Button.Pressed, "#start")
    @work
    async def action_start(self):
        self.check()                                          # the disk may have changed
        if self.found:
            return
        base = {**self.base(), **self.fit}
        text = f"{self.preset} takes about {size(number(base.get('memory')))} to train: more than there is " \
            "here, so it would fail, or take very long."
        if not base.get("fits", True) and not await self.app.push_screen_wait(Ask(
                "too large?", text, s="start it all the same")):
            return
        flags, run = self.flags(), self.query_one("#run", Input).value
        self.edited.pop("run", None)
        self.app.launch(self.app.root / run, flags)
        self.fill()

# ---- Chat: talk to a checkpoint ----------------------------------------------------------------------------

def surprise(prob):
    "How a token looks under the X-ray: from red, which the model hardly expected, to green."
    looks = ((0.02, "on $error 55%"), (0.1, "on $error 25%"), (0.3, "on $warning 30%"),
             (0.7, "on $success 18%"), (math.inf, "on $success 38%"))
    return next(look for limit, look in looks if prob < limit)

class Turn(Vertical):
    """What was asked and what was answered, in one flow. A text can be long, and each repaint lays out again
    what changed: so it is a column of texts, broken at line ends, of which only the last one grows."""
    def __init__(self, shown, sent, stop="", xray=False):
        super().__init__()
        self.shown, self.sent, self.stop, self.xray, self.at = shown, sent, stop, xray, None
        self.tokens, self.starts, self.chunks = [], [0], [Static(markup=False)]
        self.report, self.settings, self.asked, self.stopping = Static(markup=False), {}, 0.0, 0.0
        self.paint(0)
    def compose(self):
        yield self.chunks[0]
        yield self.report
    def text(self, first=0, last=None):
        return "".join(text for text, _, _ in self.tokens[first:last])
    def add(self, said):
        for piece in said:
            if self.text(-1).endswith("\n") and len(self.tokens) - self.starts[-1] > 200:
                self.starts.append(len(self.tokens))
                self.paint(-2)
                self.chunks.append(Static(markup=False))
                self.mount(self.chunks[-1], before=self.report)
            options = [(str(text), number(p) or 0.0) for text, p in piece.get("alternatives") or []]
            self.tokens.append((str(piece.get("text", "")), number(piece.get("prob")), options))
        self.paint(-1)
    def paint(self, part):
        "Show a part of the text: its number, or -1 for the last."
        part %= len(self.starts)
        first, last = [*self.starts, len(self.tokens)][part:part + 2]
        parts = [(clean(self.shown), KEY)] if part == 0 else []
        if self.xray:
            for n, (text, prob, _) in enumerate(self.tokens[first:last], first):
                look = "bold reverse" if n == self.at else "" if prob is None else surprise(prob)
                parts.append(Content.styled(clean(text), look).stylize(Style.from_meta({"token": n})))
        else:
            parts.append(clean(self.text(first, last)))
        shown = bits(*parts)
        whole = part + 1 < len(self.starts) and shown.plain.endswith("\n")
        renew(self.chunks[part], shown[:-1] if whole else shown)
    def part_of(self, at):
        return bisect.bisect_right(self.starts, at) - 1
    def point(self, at):
        "Put the cursor on a token, or on none."
        before, self.at = self.at, at
        for n in {before, at} - {None}:
            self.paint(self.part_of(n))
    def row_of(self, at):
        "In which row of the column a token stands."
        chunk = self.chunks[self.part_of(at)]
        lines = map(chunk.render_line, range(chunk.size.height))
        rows = (y for y, line in enumerate(lines)
                if any(s.style and s.style.meta.get("token") == at for s in line))
        return chunk.virtual_region.y + next(rows, 0)
    def tell(self, text):
        put(self.report, (text, "$foreground 50%"))

class Prompt(TextArea):
    "Enter sends, ctrl+j is a new line, up in an empty box brings the last text back."
    BINDINGS = [hidden("enter", "screen.send", "Send", priority=True),
                hidden("ctrl+j,shift+enter,alt+enter", "insert('\\n')", "New line", priority=True)]
    def action_insert(self, text):
        self.insert(text)
    def action_cursor_up(self, select=False):
        super().action_cursor_up(select) if self.text else self.screen.action_edit()

class Chat(Page):
    HELP = """The model goes on with the text you begin. enter in an empty box: it writes on. esc stops it;
esc again leaves the box, and there the single keys work: x for the X-ray, then ← → from token to token."""
    BINDINGS = [Binding("escape", "stop", "Stop"), hidden("escape", "leave", "Leave or enter the box"),
                Binding("ctrl+r", "again", "Again"), Binding("ctrl+g", "on", "More"),
                Binding("ctrl+o", "open", "Model"), Binding("ctrl+t", "knobs", "Tune"),
                Binding("ctrl+l,x", "xray", "X-ray"), Binding("ctrl+s", "save", "Save"),
                hidden("ctrl+n", "new", "New"), hidden("y", "copy", "Copy the reply"),
                hidden("e", "edit", "Edit and resend"), hidden("left", "token(-1)", "Token before"),
                hidden("right", "token(1)", "Next token")]
    KNOBS = {"mode": ("continue", ("continue", "dialogue")),  # what it is at first, and what it can be
             "temperature": (0.8, [f"{t / 10:g}" for t in range(21)]),
             "top_k": (0, (0, 1, 5, 10, 20, 40, 100, 200)), "top_p": (0.95, (0.5, 0.7, 0.8, 0.9, 0.95, 1)),
             "min_p": (0, (0, 0.01, 0.02, 0.05, 0.1, 0.2)),
             "repetition_penalty": (1, (1, 1.05, 1.1, 1.2, 1.3, 1.5)),
             "max_new_tokens": (200, (20, 50, 100, 200, 500, 1000, 2000)),
             "seed": (0, (0, 1, 2, 3, 42, 1337))}
    SAID = {"temperature": ("T", None), "top_k": ("top-k", 0), "top_p": ("top-p", 1), "min_p": ("min-p", 0),
            "repetition_penalty": ("repetition", 1), "seed": ("seed", None)}  # in a report, if it is on
    def __init__(self):
        super().__init__()
        self.process, self.pieces, self.ready, self.busy, self.trouble = None, [], None, None, ""
        self.path, self.count, self.used, self.xray, self.editing = None, 0, 0, False, None
    def body(self):
        yield Static(id="model", markup=False)
        with Horizontal(id="chat"):
            with Vertical():
                with VerticalScroll(id="said") as said, Vertical(id="turns"):
                    said.anchor()                             # it stays at its end, until somebody scrolls
                    yield Static(id="welcome", markup=False)
                yield Static(id="peek", markup=False)
            with VerticalScroll(id="controls", can_focus=False):
                for name, (value, options) in self.KNOBS.items():
                    value = self.app.settings.get("sampling", {}).get(name, value)
                    label = Label("seed (0: new)" if name == "seed" else name.replace("_", " "))
                    yield Horizontal(label, Knob(value, options, name != "mode", id=name), classes="field")
        yield Prompt(id="prompt", compact=True)
    def on_mount(self):
        prompt = self.query_one(Prompt)
        prompt.border_title, prompt.border_subtitle = "begin a text", "enter send · ctrl+j new line"
        prompt.focus()
        self.set_interval(1 / 10, self.flush)
    @property
    def turns(self):
        return list(self.query(Turn))
    def knob(self, name):
        return self.query_one(f"#{name}", Knob).value

    # the model: `gpt.py chat --jsonl` as a process, requests in, answers out

    def on_screen_resume(self):
        path, self.app.wanted = self.app.wanted, None
        if not path and not self.path and self.app.chosen:    # best of the selected run
            path = next(iter(self.app.chosen.checkpoints()), None)
        if path and (path != self.path or not self.ready):
            self.load(path)
        super().on_screen_resume()
    def load(self, path):
        "Another checkpoint: in the process that is there, or in a new one."
        self.path, self.ready, self.trouble, self.used = path, None, "", 0
        self.finish("stopped")
        if self.process and self.process.poll() is None:
            self.say(load=str(path))
        else:
            self.talk(path)
        self.show()
    def say(self, **request):
        with contextlib.suppress(OSError):                    # it died: listen() finds out
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
    def talk(self, path):
        pipe, env = subprocess.PIPE, {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        command = [sys.executable, str(self.app.gpt), "chat", str(path), "--jsonl"]
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, env=env)
        threading.Thread(target=self.listen, args=[self.process], daemon=True).start()
    def listen(self, process):
        words = []
        for line in process.stdout:
            try:
                said = json.loads(line)
                if said["kind"] == "piece":                   # they wait for the next repaint
                    self.pieces.append(said)
                else:
                    self.call_later(self.hear, said["kind"], said)
            except (ValueError, TypeError, KeyError):
                words = [*words, clean(line.decode("utf-8", "replace").rstrip())][-4:]
        why = "\n".join(words) or f"Its process ended (status {process.wait()})."
        if process is self.process:
            self.call_later(self.hear, "gone", {"message": why})
    def on_unmount(self):
        if self.process:
            self.process.kill()
    def hear(self, kind, said):
        self.flush()
        if kind == "ready":
            self.ready, self.trouble = said, ""
        elif kind in ("gone", "error"):
            self.trouble = said.get("message", "an error without a word")
            self.ready = None if kind == "gone" else self.ready
            self.finish("its process ended" if kind == "gone" else "error")
        elif kind == "done" and str(said.get("id")) == str(self.count):
            self.used = number(said.get("context_used")) or self.used
            self.finish(said.get("reason", ""), number(said.get("tokens")), number(said.get("tokens_per_s")))
        self.show()
    def flush(self):
        "What came since the last repaint."
        turn, pieces = self.busy, self.pieces[:]
        del self.pieces[:len(pieces)]                         # others may have come by now
        pieces = [p for p in pieces if turn and str(p.get("id")) == str(self.count)]
        if pieces:
            with self.app.batch_update():
                turn.add(pieces)
                self.used += len(pieces)
                speed = len(turn.tokens) / max(0.01, time.monotonic() - turn.asked)
                turn.tell(f"{len(turn.tokens)} tokens · {speed:.0f} tokens/s · writing, esc stops")
                self.show_model()
        if turn and turn.stopping and time.monotonic() - turn.stopping > 2:  # it does not listen any more
            self.process.kill()
            self.finish("stopped; its process was ended")
    def finish(self, why, tokens=None, speed=None):
        turn, self.busy = self.busy, None
        if turn:
            set_to = [f"{word} {turn.settings[name]:g}" for name, (word, off) in self.SAID.items()
                      if turn.settings[name] != off]
            tokens = len(turn.tokens) if tokens is None else tokens
            rate = [f"{speed:.0f} tokens/s"] if speed else []
            turn.tell(" · ".join([f"{tokens} tokens", *rate, *set_to, clean(why)]))
            self.refresh_bindings()

    # what is shown

    def show(self):
        super().show()
        self.show_model()
        welcome, key = self.query_one("#welcome", Static), lambda name: (name, KEY)
        texts = []
        if self.trouble:
            texts = [("It does not work:\n", "bold $text-error"), clean(self.trouble), "\n\n", key("ctrl+o"),
                     " opens another checkpoint."]
        elif not self.path:
            texts = [("No model yet. ", "bold"), "To talk you need a trained one.\n\n", key("esc 1"),
                     " trains one: nano takes a minute or two.\n", key("ctrl+o"), " lists what is there."]
        elif not self.ready:
            texts = [f"Loading {clean(self.path)} …"]
        elif not self.turns:
            texts = ["This model continues text; it was not taught to answer questions. Write the beginning, "
                     "and it writes the rest."]
        put(welcome, *texts)
        welcome.display = bool(texts)
    def show_model(self):
        "The line above: which model, how far it was trained, and how much of its context is used."
        run = self.app.runs.get(self.path.parent) if self.path else None
        name, file = (f"{clean(self.path.parent.name)} ", self.path.name) if self.path else ("no model", "")
        what = f"  {clean(self.ready.get('level', ''))}" if self.ready else ""
        if run and run.best and self.size.width > 70:
            what += f" · step {run.step:,} · val {run.best.val:.3f}"
        size, right = (self.ready or {}).get("block_size"), ""
        if size:
            used = min(self.used, size)
            filled, over = round(12 * used / size), "forgets its beginning  " * (self.used > size)
            right = f"{over}context {'█' * filled}{'░' * (12 - filled)} {used}/{size} "
        what = what * (len(name + file + what + right) < self.size.width - 2)
        put(self.query_one("#model"), ends(self.size.width - 2, [(name, "bold"), file, (what, DIM)], [
            (right, "$text-warning" if self.used > (size or 0) else "$text-success")]))

    # asking

    def settings(self):
        whole, values = ("top_k", "max_new_tokens", "seed"), {}
        for name in self.SAID.keys() | {"max_new_tokens"}:
            values[name] = (int if name in whole else float)(float(self.knob(name)))
        return values | {"seed": values["seed"] or int.from_bytes(os.urandom(2), "big") + 1}
    def ask(self, turn):
        "Let the model go on from all of the turn."
        self.count += 1
        self.busy, turn.asked, turn.stopping, turn.settings = turn, time.monotonic(), 0.0, self.settings()
        stop = {"stop": turn.stop} if turn.stop else {}
        self.say(id=self.count, prompt=turn.sent + turn.text(), probs=True, **stop, **turn.settings)
        turn.tell("thinking …")
        self.query_one("#said").scroll_end(animate=False)
        self.refresh_bindings()
    async def begin(self, turn, instead=None):
        if instead and instead.is_attached:
            await instead.remove()
        self.query_one("#welcome").display = False
        await self.query_one("#turns").mount(turn)
        self.ask(turn)
    @work
    async def action_send(self):
        prompt, turns = self.query_one(Prompt), [turn for turn in self.turns if turn is not self.editing]
        if self.busy or not self.ready:
            return self.notify("It is still writing: esc stops it" if self.busy
                               else "The model is not ready yet")
        text, prompt.text = prompt.text, ""
        if not text:
            return self.action_on()
        turn = Turn(text, text, xray=self.xray)
        if self.knob("mode") == "dialogue":                   # as `gpt.py chat` has it
            before = turns[-1].sent + turns[-1].text() if turns else ""
            sent = f"{before}\n\nUser: {text}\n\nAssistant:".lstrip("\n")
            turn = Turn(f"{text}\n", sent, "User:", self.xray)
        instead, self.editing = self.editing, None
        await self.begin(turn, instead)
    def check_action(self, action, parameters):
        if action in ("again", "on", "save", "edit", "copy", "new"):
            return bool(self.is_mounted and self.turns and not self.busy)
        if action in ("stop", "leave"):
            return bool(self.busy) == (action == "stop")
        return action != "token" or self.xray
    def action_stop(self):
        self.busy.stopping = self.busy.stopping or time.monotonic()
        self.say(stop=self.count)
    def action_leave(self):
        self.query_one(Prompt if self.focused is self.query_one("#said") else "#said").focus()
    @work
    async def action_again(self):
        if self.ready:
            last = self.turns[-1]
            await self.begin(Turn(last.shown, last.sent, last.stop, self.xray), last)
    def action_on(self):
        if self.turns and self.ready and not self.busy:
            self.ask(self.turns[-1])
    def action_edit(self):
        if self.turns and not self.busy:
            self.editing, prompt = self.turns[-1], self.query_one(Prompt)
            prompt.text = self.editing.shown.rstrip("\n") if self.editing.stop else self.editing.shown
            prompt.move_cursor(prompt.document.end)
            prompt.focus()
    @work
    async def action_new(self):
        await self.query(Turn).remove()
        self.used = 0
        self.show()
    @work
    async def action_open(self):
        options = []
        for run in self.app.newest_first():
            for path in run.checkpoints():
                loss = run.best and (run.best.val if path.name == "best.pt" else run.evals[-1].val)
                about = f"{run.shape('{level:5}')} val {fixed(loss)}", DIM
                options.append((str(path), bits((f"{run.name:24} ", "bold"), f"{path.name:10}", about)))
        if not options:
            return self.notify("There is no checkpoint yet: 1 trains a model", severity="warning")
        if path := await self.app.push_screen_wait(Pick("talk to", options)):
            self.load(Path(path))
    @on(Input.Changed)
    def remember(self):
        self.app.remember(sampling={name: self.knob(name) for name in self.KNOBS})
    def action_knobs(self):
        opened = self.has_class("-wide") or self.query_one("#chat").toggle_class("-knobs").has_class("-knobs")
        self.query_one("#temperature" if opened else Prompt).focus()

    # the X-ray

    def action_xray(self):
        self.xray = not self.xray
        self.query_one("#chat").set_class(self.xray, "-xray")
        for turn in self.turns:
            turn.xray, turn.at = self.xray, None
            for part in range(len(turn.starts)):
                turn.paint(part)
        if self.xray and self.turns and not self.busy:
            self.query_one("#said").focus()
            self.look(self.turns[-1], 0)
        self.refresh_bindings()
    def action_token(self, by):
        if self.turns:
            here = next((turn for turn in self.turns if turn.at is not None), self.turns[-1])
            self.look(here, (here.at or 0) + by)
    def on_mouse_move(self, event):
        if self.xray and (at := event.style.meta.get("token")) is not None:
            self.look(self.get_widget_at(*event.screen_offset)[0].parent, at)
    def look(self, turn, at):
        "Put the cursor on a token: what else could have stood there?"
        for other in self.turns:
            if other is not turn:
                other.point(None)
        if not turn.tokens:
            return
        turn.point(max(0, min(len(turn.tokens) - 1, at)))
        said, y = self.query_one("#said"), turn.virtual_region.y + turn.row_of(turn.at)
        if not said.scroll_offset.y <= y < said.scroll_offset.y + said.size.height:
            said.scroll_to(y=y - said.size.height // 2, animate=False)
        text, prob, others = turn.tokens[turn.at]
        show = lambda text: (clean(repr(text)[1:-1]).replace(" ", "␣"), "bold")
        said = "  no numbers" if prob is None else f" {prob:.1%}   instead: "
        parts = [part for other, p in others for part in (show(other), f" {p:.1%}  ")]
        words = {"hardly": 0.01, "little": 0.05, "rather": 0.2, "well": 0.5, "surely": 0.9}
        legend = [part for word, p in words.items() for part in ((f" {word} ", surprise(p)), " ")]
        self.query_one("#peek", Static).update(bits(
            (show(text)[0], "bold reverse"), said, *parts, ("\nexpected: ", DIM), *legend))

    # taking it along

    def action_copy(self):
        self.app.copy(self.turns[-1].text())
    def action_save(self):
        path = self.path.parent / time.strftime("chat-%Y%m%d-%H%M%S.txt")
        text = "\n\n".join(turn.shown + turn.text() for turn in self.turns)
        turns = [{"prompt": t.sent, "reply": t.text(), "settings": t.settings} for t in self.turns]
        try:
            path.write_text(text + "\n", encoding="utf-8")
            about = json.dumps({"model": str(self.path), "turns": turns}, indent=1)
            path.with_suffix(".json").write_text(about, encoding="utf-8")
            self.notify(f"{clean(path)}, and .json with all settings", title="saved")
        except OSError as e:
            self.notify(f"{clean(path)}: {e.strerror}", severity="error")

# ---- the app -----------------------------------------------------------------------------------------------

class Tui(App):
    TITLE, CSS = "gpt", CSS
    TABS = {"train": "Train", "watch": "Watch", "runs": "Runs", "chat": "Chat"}
    MODES = {"train": Train, "watch": Watch, "runs": Runs, "chat": Chat}
    BINDINGS = [*[hidden(f"{i},f{i + 1}", f"switch_mode('{name}')", f"{title}: the screen")
                  for i, (name, title) in enumerate(TABS.items(), 1)],
                Binding("question_mark,f1", "help", "Help")]
    def __init__(self, root=Path("runs"), run=None, gpt=HERE / "gpt.py", theme=None):
        super().__init__()
        self.root, self.gpt, self.runs, self.chosen, self.machine = Path(root), Path(gpt), {}, None, ""
        self.settings, self.catalog = {}, None
        with contextlib.suppress(OSError, ValueError):
            self.settings = dict(json.loads((self.root / ".tui.json").read_text(encoding="utf-8")))
        dark = not os.environ.get("COLORFGBG", "").endswith((";15", ";7"))
        wanted = theme or self.settings.get("theme") or ("textual-dark" if dark else "textual-light")
        self.theme = wanted if wanted in self.available_themes else "textual-dark"
        self.wake = self.wanted = None                        # the checkpoint that Chat shall open
        if run:                                               # by the name under which scan() finds it
            run, root = Path(run), self.root.resolve()
            run = self.root / run.resolve().name if run.resolve().parent == root else run
            self.chosen = self.runs[run] = Run(run)
    def get_system_commands(self, screen):
        yield from super().get_system_commands(screen)
        for _, binding, enabled, _ in self.page.active_bindings.values():
            if enabled and binding.description and not binding.system:
                act = partial(self.page.run_action, binding.action)
                yield SystemCommand(binding.description, f"key {self.get_key_display(binding)}", act)
    def on_mount(self):
        self.wake = asyncio.Event()
        self.switch_mode("watch" if self.chosen else "train")
        self.theme_changed_signal.subscribe(self, self.remember_theme)
        self.look_around()
    def remember_theme(self, theme):
        self.remember(theme=theme.name)
        self.page.refreshed()
    def remember(self, **settings):
        if any(self.settings.get(key) != value for key, value in settings.items()):
            self.settings |= settings
            with contextlib.suppress(OSError):
                if self.root.is_dir():
                    (self.root / ".tui.json").write_text(json.dumps(self.settings), encoding="utf-8")
    @property
    def page(self):
        return self.screen_stack[0]
    def color(self, name):
        "A theme's colour, as Rich spells it."
        value = self.theme_variables.get(name, "")
        return value.removeprefix("ansi_").replace("auto", "default").split()[0] if value else "default"

    # runs

    @work
    async def look_around(self):
        "About once a second: which runs are there, and what is new in them. Reading is done aside."
        while True:
            if await asyncio.to_thread(self.scan):
                with self.batch_update():
                    self.page.refreshed()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.wake.wait(), 0.8)
            self.wake.clear()
    def scan(self):
        new = [folder for folder in find_runs(self.root) if folder not in self.runs]
        self.runs |= {folder: Run(folder) for folder in new}
        changed = bool(new)
        for run in list(self.runs.values()):
            before = getattr(run, "shown", None)
            run.poll()
            run.shown = run.version, run.state, int(run.silent / 5) if run.state in LIVE else 0
            changed |= run.shown != before
            if run.state == "gone" and run is not self.chosen:
                self.runs.pop(run.folder, None)
        if not self.chosen and self.runs:
            self.chosen = self.newest_first()[0]
        return changed
    def scan_soon(self, folder=None):
        if folder:
            self.chosen = self.runs.setdefault(folder, Run(folder))
        self.wake.set()
    def newest_first(self):
        return sorted(list(self.runs.values()), key=lambda r: (r.state in LIVE, r.written), reverse=True)
    def watch_run(self, run):
        self.chosen = run
        self.switch_mode("watch")
    def forget(self, run, trouble=None):
        if trouble:
            self.notify(trouble, severity="error")
        self.runs.pop(run.folder, None)
        if self.chosen is run:
            self.chosen = next(iter(self.newest_first()), None)
    def launch(self, folder, flags):
        "Start `gpt.py train` as a process of its own, that outlives this one, and watch it."
        own = {"start_new_session": True} if os.name == "posix" else {"creationflags": 0x08000200}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / "train.log", "ab") as log:
                process = subprocess.Popen(
                    [sys.executable, str(self.gpt), "train", *flags], stdin=subprocess.DEVNULL, stdout=log,
                    stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"}, **own)
        except OSError as e:
            return self.notify(f"can't start: {e}", severity="error")
        run = self.runs.setdefault(folder, Run(folder))
        run.process, run.began = process, time.time()
        self.watch_run(run)
        self.scan_soon()
    async def ask(self, *words, program="gpt.py"):
        "Run one of our programs and wait. -> exit status, output, errors"
        command = [sys.executable, str(self.gpt.with_name(program)), *words]
        try:
            done = await asyncio.to_thread(
                subprocess.run, command, capture_output=True, timeout=60, encoding="utf-8", errors="replace",
                stdin=subprocess.DEVNULL)
            return done.returncode, done.stdout, done.stderr
        except (OSError, subprocess.SubprocessError) as e:
            return 1, "", str(e)
    async def read_presets(self):
        "Learn what gpt.py offers. -> what is wrong, or nothing"
        code, out, said = await self.ask("presets", "--json")
        try:
            if code:
                raise ValueError(said.strip() or f"exit status {code}")
            self.catalog = Catalog(json.loads(out))
        except (ValueError, KeyError, TypeError) as e:
            return str(e)
        device = self.catalog.device
        self.machine = f"{clean(device.get('name', ''))} · {size(number(device.get('memory')))}"
    async def corpora(self):
        "Names of texts, and what is said about them: what data.py knows, and what is prepared."
        names = {"builtin": "the English text that comes with Python: no download"}
        code, out, _ = await self.ask("list", program="data.py")
        for line in out.split("\n\n")[0].splitlines()[1:] if code == 0 else ():  # a table, with its titles
            name, about, *_ = [*re.split(r"\s{2,}", clean(line)), ""]
            names.setdefault(name, about)
        for preset in self.catalog.presets.values() if self.catalog else ():
            names.setdefault(clean(preset.get("data", "sherlock")), "")
        for folder in sorted(Path("data").glob("*/meta.json")):
            names.setdefault(str(folder.parent), "prepared")
        return names
    @work
    async def copy_command(self, run):
        "The command that makes such a run: what its preset does not say is a flag."
        if not self.catalog:                                  # Train, which asks for it, was not open yet
            await self.read_presets()
        config = {**run.part("model"), "vocab_size": 0, **run.part("train")}
        preset, level = config.get("preset", "nano"), config.get("level", "char")
        known = self.catalog.recipe(preset, level) if self.catalog else {}
        flags = [f"--{k}={written(v)}" for k, v in config.items() if k in known and str(v) != str(known[k])
                 and k not in ("preset", "level", "resume", "presets", "out_dir")]
        words = ["python", "gpt.py", "train", f"--preset={preset}", f"--level={level}", *flags]
        self.copy(clean(join(words)))
    def copy(self, text):
        "To the terminal's clipboard (works over ssh), and to the system's where there is a tool for it."
        self.copy_to_clipboard(text)
        for tool in (["pbcopy"], ["wl-copy"], ["xclip", "-selection", "clipboard"], ["clip.exe"]):
            if shutil.which(tool[0]):
                with contextlib.suppress(OSError, subprocess.SubprocessError):
                    subprocess.run(tool, input=text.encode(), timeout=1, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
                break
        self.notify(text if len(text) < 300 else f"{len(text):,} characters", title="copied", timeout=3)
    def talk_to(self, run, name):
        path = run.folder / name
        self.wanted = path if path.exists() else run.folder / "latest.pt"
        self.switch_mode("chat")
    def notify(self, message, **more):
        "Nothing of it is markup: names and errors come from elsewhere."
        super().notify(clean(message), **{**more, "markup": False})

    # keys

    def action_help(self):
        if isinstance(self.screen, Help):
            return
        keys = {}
        ours_first = lambda active: (active.node is not self.page, active.node is self)
        for _, binding, enabled, _ in sorted(self.screen.active_bindings.values(), key=ours_first):
            if enabled and binding.description and "Focus" not in binding.description:
                shown = ", ".join(self.get_key_display(Binding(key, "")) for key in binding.key.split(","))
                keys.setdefault(binding.description, []).append(shown)
        self.push_screen(Help(self.page, [(" ".join(shown), words) for words, shown in keys.items()]))
    @work
    async def action_quit(self):
        ours = [run for run in list(self.runs.values()) if run.process and run.process.poll() is None]
        answer = "l"
        if ours:
            names = ", ".join(run.name for run in ours)
            answer = await self.push_screen_wait(Ask(
                "quit", f"{names} is training. It goes on without this window; python tui.py finds it again.",
                l="leave it going and quit", s="stop it (it saves) and quit"))
        for run in ours if answer == "s" else []:
            with contextlib.suppress(OSError):
                run.control("stop") if run.start else run.process.terminate()
        if answer:
            self.exit()

async def picture(app, folder):
    "Pictures of the four screens for the README: of the app as it is, with what runs there really are."
    async with app.run_test(size=(110, 32)) as pilot:
        async def until(true):
            for _ in range(600):
                await pilot.pause(0.1)
                if true():
                    return
        await until(lambda: app.catalog and app.page.query("#run"))
        for key, name in (("f2", "train"), ("f3", "watch"), ("f4", "runs"), ("f5", "chat")):
            await pilot.press(key)
            await pilot.pause(1)
            if name == "chat" and app.page.path:
                await until(lambda: app.page.ready)
                app.page.query_one(Prompt).text = "The "
                await pilot.press("enter")
                await until(lambda: app.page.turns and not app.page.busy)
                await pilot.press("ctrl+l", *["right"] * 5)
                await pilot.pause(0.5)
            app.save_screenshot(f"{name}.svg", path=str(folder))

def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="Keys: ? in the app.")
    parser.add_argument("run", nargs="?", help="a run's folder, to watch it")
    parser.add_argument("--runs", default="runs", metavar="FOLDER", help="where runs are [runs]")
    parser.add_argument("--theme", help="a theme's name, such as nord or textual-light")
    parser.add_argument("--screenshots", metavar="FOLDER", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run and not Path(asked.run).is_dir():
        raise SystemExit(f"error: {asked.run} is no folder of a run")
    gc.freeze()                                               # what is loaded stays: looking for garbage
    gc.set_threshold(20_000)                                  # among it, and often, makes keys wait for 50 ms
    app = Tui(Path(asked.runs), asked.run, theme=asked.theme)
    asyncio.run(picture(app, asked.screenshots)) if asked.screenshots else app.run()

if __name__ == "__main__":
    main()
