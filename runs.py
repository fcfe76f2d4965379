"""runs.py: what a training run says, read from its folder while it grows.

    from runs import Run, find_runs
    run = Run("runs/nano-char")
    run.poll()                                   # reads what is new; call it as often as you like
    print(run.state, run.step, run.speed, run.best)
    losses = [(row.step, row.loss) for row in run.rows]
    for folder in find_runs("runs"): ...         # every run there is

The folder is all it needs: no torch, no gpt.py, no package. tui.py watches runs with it, `gpt.py runs` and
`gpt.py plot` list and draw them, and so can you.
"""
import bisect
import contextlib
import json
import math
import os
import re
import shutil
import stat
import time
from collections import namedtuple
from pathlib import Path

try:
    import fcntl
except ImportError:                              # Windows has no such locks
    fcntl = None

# Knobs of training that leave the loss as it is, up to rounding and luck.
HARMLESS = {"out_dir", "resume", "colab_drive", "presets", "eval_interval", "eval_tokens", "sample_every",
            "sample_prompt", "sample_tokens", "log_interval", "save_minutes", "keep", "tracker", "seed", "device",
            "threads", "dtype", "compile", "micro_batch", "checkpoint_activations"}

# ---- text and numbers --------------------------------------------------------------------------------------

# Samples, logs, names and models' answers can hold anything: escape sequences that a terminal would obey,
# halves of characters that can't be written at all. Each becomes a visible stand-in.
STAND_INS = {code: 0x2400 + code for code in range(32) if code not in (9, 10)}
STAND_INS[0x7F] = 0x2421
for first, last in (0x80, 0x9F), (0x202A, 0x202E), (0x2066, 0x2069), (0xD800, 0xDFFF):
    STAND_INS.update(dict.fromkeys(range(first, last + 1), 0xFFFD))


def clean(text):
    "Foreign text, made safe to show."
    return str(text).translate(STAND_INS)


def numbers(values):
    "Each that is a number to calculate with; None for nan, what is so large that sums overflow, all else."
    return [x if type(x) in (int, float) and -1e100 < x < 1e100 else None for x in values]  # type: no bool


def number(x):
    "x, if it is such a number, else None."
    return numbers([x])[0]


def short(x):
    "1234567 -> 1.23M"
    if x is None:
        return "—"
    if abs(x) >= 1e15:
        return f"{x:.0e}".replace("e+", "e")
    x = float(f"{x:.3g}")                                     # 999_999 is 1M, not 1e+03k
    thousands = int(math.log10(max(abs(x), 1)) // 3)
    thousands = min(4, thousands)
    return f"{x / 1000 ** thousands:.3g}" + ["", "k", "M", "G", "T"][thousands]


def fixed(x, form=".3f"):
    "2.34567 -> 2.346; what is too large to be written out: 2.5e16"
    if x is None:
        return "—"
    if abs(x) >= 1e6:
        return f"{x:.1e}".replace("e+", "e")
    return format(x, form)


def size(n):
    "Bytes: 1500000000 -> 1.5 GB"
    if n is None:
        return "—"
    if n >= 1e9:
        return f"{n / 1e9:.1f} GB"
    return f"{n / 1e6:.0f} MB"


def clock(seconds):
    "3725 -> 1:02:05"
    if seconds is None:
        return "—"
    minutes, seconds = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{seconds:02}"
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def in_words(seconds):
    "160 -> 3 min; 400000 -> 5 days"
    for unit, name in (5e7, "years"), (4e6, "months"), (1.3e5, "days"), (5400, "hours"), (90, "min"):
        if seconds >= unit:
            return f"{seconds / SECONDS[name]:.0f} {name}"
    return f"{max(1, seconds):.0f} s"


SECONDS = {"years": 31557600, "months": 2629800, "days": 86400, "hours": 3600, "min": 60}


def ago(seconds):
    "7300 -> 2 h ago"
    for unit, name in (86400, "d"), (3600, "h"), (60, "min"):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name} ago"
    return "now"


# ---- a run's folder ----------------------------------------------------------------------------------------

# Of n step lines that have a loss: the mean of these; from lr on what the last line says.
Row = namedtuple("Row", "step loss low high n lr norm speed memory mfu elapsed")
Eval = namedtuple("Eval", "step train val bits")
Trouble = namedtuple("Trouble", "headline why remedy flags")  # flags: what to go on with, as a dict

STEP_KEYS = "lr", "grad_norm", "tokens_per_s", "memory_mb", "mfu", "elapsed_s"  # as metrics.jsonl calls them
EVAL_KEYS = "step", "train_loss", "val_loss", "bits_per_byte"
WORDS = "compiling", "training", "evaluating", "sampling", "saving", "paused"  # what a `state` line says
CHECKPOINTS = "best.pt", "latest.pt"
LIVE = ("starting", *WORDS, "stalled")
# What ended a run, by the reason of its `end` line: the setting to change for more. done: by steps or epochs
ENDED_BY = {"time": "max_minutes", "done": "max_iters", "patience": "patience"}
A_PART = 1 << 16                                 # bytes of metrics.jsonl that are read at a time, about
NONSENSE = ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError  # of a bad line
MOST_ROWS = 2048                                 # from twice as many rows, two become one
MOST_SAMPLES = 200                               # from more samples, every second one is left out
LONG = 600                                       # seconds without a word that need an explanation
QUIET = 5                                        # seconds without a word after which the lock is asked
FULL_DISK = 1_000_000                            # bytes free, with less of which nothing can be written

ONE_SEQUENCE = "not even one sequence"           # has room: a batch can't be smaller
NO_ROOM = re.compile("no room for optimizers|model of this size does not fit")
# Not where the run says that it goes on with a smaller batch: it may end much later, for another reason.
OUT_OF_MEMORY = re.compile(f"out of memory(?!.*going on)|OutOfMemory|n't allocate|{ONE_SEQUENCE}|MemoryError")
DISK_FULL = re.compile("No space left|ENOSPC|quota exceeded|not enough space", re.IGNORECASE)
NOT_FINITE = re.compile("finite gradient|loss is nan")


def plain_file(path):
    "The os.stat_result of a file, or None: opening a pipe would wait for who writes into it."
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def find_runs(root):
    "The folders in root that are runs, or were meant to be."
    found = []
    with contextlib.suppress(OSError):
        for folder in Path(root).iterdir():
            if os.path.exists(folder / "metrics.jsonl") or os.path.exists(folder / "train.log"):
                found.append(folder)
    return sorted(found)


def records_of(lines):
    "What lines of JSON hold, None for one that makes no sense. Read all at once they take a fifth less time."
    with contextlib.suppress(*NONSENSE):
        records = from_json(b"[%b]" % b",".join(lines))
        if len(records) == len(lines):
            return records
    return [record_of(line) for line in lines if line.strip()]


def record_of(line):
    with contextlib.suppress(*NONSENSE):
        return from_json(line)


def from_json(text):
    return json.loads(text.decode("utf-8", "surrogatepass"))  # bytes would cost a third more


def scalars(record):
    "Of a JSON object only what can be calculated with or shown: no lists, no objects."
    if not isinstance(record, dict):
        return {}
    return {key: value for key, value in record.items() if isinstance(value, (str, int, float, type(None)))}


def merged(rows):
    "Half as many rows, each for two: the mean of their losses, and how far these reached."
    halves = []
    for a, b in zip(rows[::2], rows[1::2]):
        if b.loss is None:
            halves.append(a)
        elif a.loss is None:
            halves.append(b)
        else:
            n = a.n + b.n
            loss = (a.loss * a.n + b.loss * b.n) / n
            halves.append(Row(b.step, loss, min(a.low, b.low), max(a.high, b.high), n, *b[5:]))
    return halves + rows[len(halves) * 2:]


class Run:
    """What a run's folder says. Only poll() looks at the disk; what it finds stands in plain attributes:

    state        starting compiling training evaluating sampling saving paused stalled (these are in LIVE),
                 done stopped crashed gone; "" before the first poll()
    rows         one Row for each `step` line; of a long run one for 2, 4, 8 ... of them, to keep memory small
    evals        one Eval for each `eval` line
    samples      (step, text), the newest first
    warnings     texts, the newest last
    start, now   the newest `start` line and the newest `step` line, as dicts
    end          {"step", "reason", "message"} of a run that has ended, else None
    checkpoints  names of those that are there: "best.pt", "latest.pt"
    when, saved  when the run and latest.pt were last written to (saved: or None)
    silent       seconds since the run last wrote
    full         whether it is silent because there is no room left on its disk
    held         whether a process holds the run's lock; None where that was not asked or can't be known
    killed       whether a person has ended its process from here, without saving
    trouble      why it crashed and what helps, a Trouble; else None
    log, events  the last lines of train.log; a line for each evaluation, warning, start and end
    bad          how many lines of metrics.jsonl make no sense (they are skipped)

    Half a line is left for later; kinds and keys that are not known are ignored. Lists are replaced or
    appended to, never shortened, so another thread may read them meanwhile."""

    def __init__(self, folder, process=None):
        self.folder = Path(folder)
        self.process = process                   # where the run was started from here: its Popen
        self.exit_status = None                  # of that process, once it has ended
        self.begun = process is None             # whether that process has written its `start` line
        self.state = ""
        self.checkpoints = []
        self.when = 0.0
        self.saved = None
        self.heard = -math.inf                   # the monotonic time at which it was last seen to write
        self.silent = 0.0
        self.held = None
        self.was_held = False                    # whether its lock was ever seen to be held
        self.killed = False
        self.full = False
        self.trouble = None
        self.log = []
        self.log_stamp = None
        self.sizes = None                        # of metrics.jsonl and train.log at the last look
        self.version = 0                         # grows with all that is read
        self.forget()

    def forget(self):
        "Begin metrics.jsonl anew."
        self.offset = 0
        self.inode = 0
        self.bad = 0
        self.rows = []
        self.pending = []                        # (step, loss, record) of `step` lines that are in no Row yet
        self.lines_a_row = 1
        self.evals = []
        self.samples = []
        self.warnings = []
        self.events = []
        self.start = {}
        self.now = {}
        self.newest = {}                         # the line that `now` is made of
        self.end = None
        self.saved_eval = None                   # the Eval at which latest.pt was saved; None: not known
        self.word = "starting"                   # what the run itself says it does

    def started(self, process):
        "A process was started for this run: what is silent counts from now."
        self.process = process
        self.exit_status = None
        self.begun = False
        self.killed = False
        self.state = "starting"
        self.heard = time.monotonic()

    # reading

    def poll(self):
        "Read what is new and judge it. -> whether anything changed. Never raises, whatever the files hold."
        before = self.version, self.state, self.checkpoints
        metrics = plain_file(self.folder / "metrics.jsonl")
        log = plain_file(self.folder / "train.log")
        with contextlib.suppress(OSError):
            if metrics:
                self.read_metrics(metrics)
        with contextlib.suppress(OSError):
            if log:
                self.read_log(log)
        self.notice(metrics, log)
        self.find_checkpoints()
        if self.process:
            self.exit_status = self.process.poll()
        self.state = self.judge()
        self.trouble = self.diagnose() if self.state == "crashed" else None
        return (self.version, self.state, self.checkpoints) != before

    def read_metrics(self, found):
        if found.st_size < self.offset or self.inode not in (0, found.st_ino):
            self.forget()                        # another file: somebody began anew
        self.inode = found.st_ino
        if found.st_size == self.offset:
            return
        with open(self.folder / "metrics.jsonl", "rb") as file:
            file.seek(self.offset)
            whole = True
            while whole and (lines := file.readlines(A_PART)):
                whole = lines[-1].endswith(b"\n")
                if not whole:
                    lines.pop()                  # half-written: it is read again when it is whole
                self.offset += sum(map(len, lines))
                for record in records_of(lines):
                    self.take(record)
        self.make_row()
        self.now = scalars(self.newest)
        self.version += 1

    def take(self, record):
        try:
            handler = self.HANDLERS.get(record["kind"])
            if handler:
                handler(self, record)
        except NONSENSE:
            self.bad += 1

    def on_start(self, record):
        "A new run, or one that goes on from an earlier step: what was written of later steps is void."
        again = number(record.get("resumed_from"))
        first_void = -math.inf if again is None else again
        self.pending = [reading for reading in self.pending if reading[0] <= first_void]
        self.make_row()
        self.rows = [row for row in self.rows if row.step <= first_void]
        self.lines_a_row = self.rows[-1].n if self.rows else 1
        self.evals = [e for e in self.evals if e.step <= first_void]
        self.samples = [(step, text) for step, text in self.samples if step <= first_void]
        config = record.get("config")
        parts = {}
        if isinstance(config, dict):
            parts = {name: scalars(part) for name, part in config.items()}
        self.start = {**scalars(record), "config": parts}
        self.begun = True
        self.killed = False
        self.newest = {}
        self.end = None
        self.warnings = []
        self.word = "training"
        self.note(f"started from step {again:,}" if again else "started")

    def on_step(self, record):
        step, loss = numbers([record["step"], record.get("loss")])
        self.pending.append((int(step), loss, record))
        self.newest = record
        if len(self.pending) == self.lines_a_row:
            self.make_row()

    def make_row(self):
        "One Row of the pending `step` lines: of a long run one at a time would take twice as long."
        if not self.pending:
            return
        step, _, record = self.pending[-1]
        losses = [loss for _, loss, _ in self.pending if loss is not None]
        n = max(1, len(losses))
        mean = sum(losses) / n if losses else None
        low, high = min(losses, default=None), max(losses, default=None)
        self.rows.append(Row(step, mean, low, high, n, *numbers(map(record.get, STEP_KEYS))))
        self.pending = []
        if len(self.rows) >= 2 * MOST_ROWS:
            self.rows = merged(self.rows)
            self.lines_a_row = self.rows[-1].n

    def on_eval(self, record):
        step, *losses = numbers(map(record.get, EVAL_KEYS))
        found = Eval(int(step), *losses)
        self.evals.append(found)
        if len(self.evals) >= 2 * MOST_ROWS:
            best = self.best
            self.evals = [e for i, e in enumerate(self.evals) if i % 2 or e is best]
        losses = f"train {fixed(found.train, '.4f')} | val {fixed(found.val, '.4f')}"
        self.note(f"step {found.step:,} | {losses}")

    def on_sample(self, record):
        step = number(record.get("step")) or 0
        self.samples = [(int(step), clean(record["text"])), *self.samples]
        if len(self.samples) > MOST_SAMPLES:
            self.samples = self.samples[::2]     # the first and the last stay

    def on_warn(self, record):
        text = clean(record["text"])
        self.warnings = [*self.warnings[-19:], text]
        self.note(f"warning: {text}")

    def on_state(self, record):
        if record["state"] in WORDS:
            self.word = record["state"]
        if self.word == "saving":
            is_now = self.evals and self.evals[-1].step == self.step
            self.saved_eval = self.evals[-1] if is_now else None

    def on_end(self, record):
        self.end = {
            "step": int(number(record.get("step")) or 0),
            "reason": clean(record.get("reason") or ""),
            "message": clean(record.get("message") or ""),
        }
        self.note(f"end: {self.end['reason']}, {self.end['message']}")

    HANDLERS = {"start": on_start, "step": on_step, "eval": on_eval, "sample": on_sample, "warn": on_warn,
                "state": on_state, "end": on_end}

    def note(self, text):
        self.events = [*self.events[-299:], text]

    def read_log(self, found):
        stamp = found.st_size, found.st_mtime
        if stamp == self.log_stamp:
            return
        with open(self.folder / "train.log", "rb") as file:
            file.seek(max(0, found.st_size - 30_000))
            text = file.read(30_000).decode("utf-8", "replace")
        lines = text.replace("\r\n", "\n").split("\n")
        self.log = [clean(line) for line in lines if line.strip()][-300:]
        self.log_stamp = stamp
        self.version += 1

    def notice(self, *files):
        """When the run last wrote. The files' times are another clock where they lie on another machine: so
        only the first look goes by them, and from then on it counts when a file is seen to have grown."""
        there = [file for file in files if file]
        self.when = max([self.when, *(file.st_mtime for file in there)])
        sizes = [file.st_size for file in there]
        now = time.monotonic()
        if self.sizes is None:
            age = max(0.0, time.time() - self.when)
            self.heard = max(self.heard, now - age)
        elif sizes != self.sizes:
            self.heard = now
        self.sizes = sizes
        self.silent = now - self.heard

    def find_checkpoints(self):
        self.checkpoints = [name for name in CHECKPOINTS if plain_file(self.folder / name)]
        latest = plain_file(self.folder / "latest.pt")
        self.saved = latest.st_mtime if latest else None

    # judging

    def judge(self):
        "-> the state. A line `end` ends a run until a later line `start`; no line's time is looked at."
        running = self.process is not None and self.exit_status is None
        self.held = None
        self.full = False
        if not os.path.isdir(self.folder):
            return "gone"
        if not self.begun:                       # what stands there is of the time before
            return "starting" if running else "crashed"
        if self.end:
            return {"stopped": "stopped", "error": "crashed"}.get(self.end["reason"], "done")
        if self.process and not running:
            return "crashed"
        if self.was_held and self.silent <= max(QUIET, 2 * self.pause()):
            return self.word
        self.held = True if running else self.ask_lock()
        vanished = self.held is False and self.was_held  # a lock that is never seen may not work here
        self.was_held = self.was_held or bool(self.held)
        self.full = self.silent > QUIET and self.disk_is_full()
        if vanished:
            return "crashed"
        if self.silent <= self.patience():
            return self.word
        unheard = self.held is None and self.silent > LONG and self.word != "paused"
        if self.held is False or unheard:
            return "crashed"
        if self.word in ("paused", "starting"):
            return self.word                     # these may take their time
        return "stalled"

    def patience(self):
        "How many seconds without a word are ordinary: in training some readings' time, else more."
        if self.word == "starting":
            return 30
        if self.word != "training":
            return LONG
        return max(30, 10 * self.pause())

    def pause(self):
        "How many seconds lie between two readings."
        recent = [row for row in self.rows[-20:] if row.elapsed is not None]
        if len(recent) < 2:
            return 0
        return (recent[-1].elapsed - recent[0].elapsed) / sum(row.n for row in recent[1:])

    def ask_lock(self):
        """Whether a process is at it now: gpt.py holds a lock on metrics.jsonl while it runs, also while it
        is paused or evaluates for an hour. None where that can't be known. Looks at the disk."""
        path = self.folder / "metrics.jsonl"
        if not fcntl:
            return None
        if not plain_file(path):
            return False
        try:
            with open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:                          # a file system without locks, or a file that can't be opened
            return None
        return False

    def disk_is_full(self):
        "Whether nothing can be recorded any more."
        try:
            return shutil.disk_usage(self.folder).free < FULL_DISK
        except OSError:
            return False

    @property
    def can_go_on(self):
        return bool(self.checkpoints)

    @property
    def again(self):
        "What can be done about a run that ended."
        return "go on from the last checkpoint" if self.can_go_on else "start anew"

    def diagnose(self):
        "Why it crashed and what helps: a Trouble. Asks the disk how much is free where that is it."
        said = "\n".join(self.log[-25:])
        if self.end and self.begun:
            said = f"{self.end['message']}\n{said}"
        if not self.begun and self.exit_status in (-15, 143):
            return Trouble("stopped before it began", "", self.again, {})
        if self.killed:
            return Trouble("killed", "You ended it with k.", self.again, {})
        if self.exit_status in (-9, 137):
            return self.too_large("killed", "The system ends a process like this when memory runs out.", said)
        if NO_ROOM.search(said):
            why = "The model itself does not fit into the memory of the device. A smaller preset would."
            return Trouble("out of memory", why, f"close other programs, then {self.again}", {})
        if OUT_OF_MEMORY.search(said):
            why = "This batch does not fit into the memory of the device."
            return self.too_large("out of memory", why, said)
        if DISK_FULL.search(said):
            return Trouble("the disk is full", self.disk_full(), f"make room, then {self.again}", {})
        if NOT_FINITE.search(said):
            remedy = f"{self.again} with a third of the learning rate"
            return Trouble("the loss is no number any more", "The steps were too large.", remedy,
                           self.smaller_rates())
        if "KeyboardInterrupt" in said:
            why = "Somebody pressed Ctrl-C twice, or the system shuts down."
            return Trouble("interrupted", why, self.again, {})
        if not (self.start and self.begun):
            return Trouble("it did not start", "", "change what the last line names, on Train", {})
        why = "Its process is gone without a word: killed, or the machine was turned off."
        if self.end:
            why = ""
        return Trouble("crashed", why, self.again, {})

    def too_large(self, headline, why, said):
        train = self.part("train")
        rows = number(train.get("micro_batch")) or number(train.get("batch_size")) or 32
        half = int(rows) // 2
        if half and ONE_SEQUENCE not in said:
            remedy = f"{self.again} with --micro_batch {half} (same result, less memory)"
            return Trouble(headline, why, remedy, {"micro_batch": half})
        if not train.get("checkpoint_activations"):
            remedy = f"{self.again} with --checkpoint_activations (same result, less memory, slower)"
            return Trouble(headline, why, remedy, {"checkpoint_activations": True})
        why = f"{why} A smaller preset needs less."
        return Trouble(headline, why, f"close other programs, then {self.again}", {})

    def disk_full(self):
        try:
            free = shutil.disk_usage(self.folder).free
        except OSError:
            return "Nothing more could be written."
        return f"Nothing more could be written. {size(free)} are free now."

    def smaller_rates(self):
        flags = {}
        for key in "learning_rate", "muon_lr":
            rate = number(self.part("train").get(key))
            if rate:
                flags[key] = float(f"{rate / 3:.2g}")
        return flags

    # what it means

    @property
    def name(self):
        return clean(self.folder.name)

    @property
    def weights(self):
        "The number of parameters, or None."
        return number(self.start.get("parameters"))

    @property
    def step(self):
        "The last step it told of."
        pending = self.pending
        rows = self.rows
        evals = self.evals
        end = self.end
        steps = [0]
        if pending:
            steps.append(pending[-1][0])
        if rows:
            steps.append(rows[-1].step)
        if evals:
            steps.append(evals[-1].step)
        if end:
            steps.append(end["step"])
        return max(steps)

    @property
    def done(self):
        "How much of it is done, from 0 to 1."
        if self.state == "done":
            return 1.0
        share = number(self.now.get("done")) or 0.0
        return min(1.0, max(0.0, share))

    @property
    def limit(self):
        "Of a run that is done: the setting that ended it, of those in ENDED_BY; else nothing."
        end = self.end                           # another thread may take it away meanwhile
        if not end or self.state != "done":
            return ""
        return ENDED_BY.get(end["reason"], "")

    @property
    def best(self):
        "The Eval with the lowest validation loss, or None."
        measured = [e for e in self.evals if e.val is not None]
        return min(measured, key=lambda e: e.val, default=None)

    @property
    def last_loss(self):
        "The newest validation loss, or None."
        evals = self.evals
        return evals[-1].val if evals else None

    def in_file(self, name):
        "Of best.pt or latest.pt: the step at which it was saved, and its validation loss; None: not known."
        if name == "best.pt":
            found = self.best
        elif self.end and self.end["reason"] != "error":
            step = self.end["step"]
            loss = next((e.val for e in self.evals if e.step == step), None)
            return step, loss
        else:
            found = self.saved_eval
        return (found.step, found.val) if found else (None, None)

    @property
    def speed(self):
        "Tokens a second: the median of the last readings, or None."
        recent = sorted(row.speed for row in self.rows[-31:] if row.speed is not None)
        if not recent:
            return None
        return recent[len(recent) // 2]

    @property
    def flops_per_token(self):
        "Of training: 6 for each weight that is multiplied, and the products between tokens; or None."
        model = self.part("model")
        shape = [number(model.get(name)) for name in ("n_layer", "n_embd", "block_size")]
        if not self.weights or not all(shape):
            return None
        n_layer, n_embd, block_size = shape
        return 6 * (self.weights - block_size * n_embd) + 12 * n_layer * n_embd * block_size

    def part(self, name):
        "A part of the configuration: model, train or used."
        return self.start.get("config", {}).get(name, {})

    def shape(self, form):
        "What the run is, in words: run.shape('{preset} on {data}'), with the names of its configuration."
        names = dict.fromkeys(re.findall(r"{(\w+)", form), "?")
        for key, value in {**self.part("train"), **self.part("model")}.items():
            names[key] = clean(value)
        names["parameters"] = short(self.weights)
        return form.format(**names)

    def lines(self):
        "The log, or what would stand there."
        return self.log or self.events

    def kept(self):
        "What a run that ended leaves behind, as a sentence."
        if not self.checkpoints:
            return "No checkpoint was written yet."
        return f"Kept: {' and '.join(self.checkpoints)}."

    # the other way round

    def control(self, word):
        "Leave a word for the trainer, which looks once a step: pause, go, stop or sample."
        draft = self.folder / "control.tmp"
        draft.write_text(word, encoding="utf-8")
        os.replace(draft, self.folder / "control")


# ---- curves ------------------------------------------------------------------------------------------------


def loss_points(run):
    "(step, training loss)"
    return [(row.step, row.loss) for row in run.rows if row.loss is not None]


def val_points(run):
    "(step, validation loss)"
    return [(e.step, e.val) for e in run.evals if e.val is not None]


def of_rows(name):
    return lambda run: [(row.step, getattr(row, name)) for row in run.rows if getattr(row, name) is not None]


def bits_points(run):
    "(step, bits per byte)"
    return [(e.step, e.bits) for e in run.evals if e.bits is not None]


def gap_points(run):
    "(step, validation loss less that on as much of the training text)"
    return [(e.step, e.val - e.train) for e in run.evals if e.val is not None and e.train is not None]


METRICS = {                                      # what a curve can show of a run: its points by step
    "validation loss": val_points,
    "training loss, smoothed": lambda run: smooth(loss_points(run), 0.05),
    "bits per byte": bits_points,
    "gap: validation - training": gap_points,
    "gradient norm": of_rows("norm"),
    "learning rate": of_rows("lr"),
    "tokens a second": of_rows("speed"),
}
AXES = "steps", "tokens", "min"                  # along which it is shown


def along(run, axis):
    "A function of a step: how many steps, tokens or minutes the run took to come to it."
    if axis == "tokens":
        rows = number(run.part("train").get("batch_size")) or 1
        length = number(run.part("model").get("block_size")) or 1
        return lambda step: step * rows * length
    if axis == "min":
        return minutes_at([(row.step, row.elapsed / 60) for row in run.rows if row.elapsed is not None])
    return lambda step: step


def minutes_at(known):
    "The same, from (step, minutes) of some of the steps."
    steps = [0, *(step for step, _ in known)]
    minutes = [0, *(minutes for _, minutes in known)]

    def find(step):
        after = bisect.bisect_left(steps, step)
        if after == len(steps):
            return minutes[-1]
        if steps[after] == step or after == 0:
            return minutes[after]
        share = (step - steps[after - 1]) / (steps[after] - steps[after - 1])
        return minutes[after - 1] + share * (minutes[after] - minutes[after - 1])

    return find


NO_SETTINGS = {"out_dir", "resume", "run", "tracker", "presets", "threads"}  # no reason for another loss


def differing(runs):
    "Setting -> its value in each of the runs, of the settings in which they differ."
    configs = [{**run.part("model"), **run.part("train")} for run in runs]
    found = {}
    for name in configs[0] if configs else ():
        if name not in NO_SETTINGS and all(name in config for config in configs):
            values = [config[name] for config in configs]
            if any(value != values[0] for value in values):
                found[name] = values
    return found


def smooth(points, share):
    "A mean that looks back over a share of the way so far: the same look at every zoom and length."
    result = points[:1]
    for (last, _), (x, y) in zip(points, points[1:]):
        mean = result[-1][1]
        if x > last:
            reach = share * (x - points[0][0])
            mean += (y - mean) * (1 - math.exp((last - x) / reach))
        result.append((x, mean))
    return result
