"""Watch, the second screen: one run, its curve, numbers, samples, log and troubles."""
import os
import re
import time
from collections import namedtuple

from textual import on, work
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.style import Style
from textual.widgets import Input

from runs import (
    LIVE, METRICS, ago, along, clean, clock, fixed, loss_points, number, short, size, smooth, val_points,
)
from screens.basics import (
    COLORS, DIM, KEY, SHAPE, Words, as_flags, bits, ends, hidden, number_of, spark, written,
)
from screens.chart import Chart, Curve
from screens.charted import CHART_KEYS, Charted
from screens.lapse import TimeLapse
from screens.shared import Ask, Enter

SMOOTHING = {0.05: "light", 0.15: "strong", 0: "off"}  # share of the way that smooth() looks back
BAD_NEWS = re.compile(r"error|exception|traceback|\bnan\b|killed", re.IGNORECASE)
Reading = namedtuple("Reading", "now values", defaults=[()])  # as text; and what it was, for its sparkline
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
    ABOUT_THE_PRESENT = ("log_pane", "smooth", "log", "chart", "metric", "axis", "export", "find", "next",
                         "stop_finding")         # those about what the time-lapse covers
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
        self.hit_line = ""                       # what stands there
        self.log_lines = []                      # all that are shown
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
        tail = f"  {run.done:.0%}{self.why_done(run)}"
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

    def why_done(self, run):
        "Of a run that ended before its last step: the limit that it came to."
        train = run.part("train")
        if run.limit == "max_minutes":
            minutes = clean(written(train.get("max_minutes")))
            return ": its 1 minute is over" if minutes == "1" else f": its {minutes} minutes are over"
        if run.limit == "patience":
            return f": no better for {clean(train.get('patience'))} evaluations"
        return ""

    def meant(self):
        return [self.run]

    def show_chart(self, run, smoothed):
        x = along(run, self.axis)
        star = None
        if self.metric == "loss":
            band = [(row.step, row.loss, row.low, row.high) for row in run.rows if row.loss is not None]
            curves = [
                Curve("each reading", "raw", band, "band"),
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
        if self.hit is not None:                 # as the log grew, its first lines went
            moved = [at for at in self.hits if at <= self.hit and lines[at] == self.hit_line]
            self.hit = max(moved, default=None)
        self.log_lines = lines
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
        if action in self.ABOUT_THE_PRESENT and self.query("#watch.-lapse"):
            return False
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
            run.killed = True
            run.process.kill()
        elif run.ask_lock() and type(pid) is int and pid > 1 and os.name == "posix":
            try:
                os.kill(pid, 9)
                run.killed = True
            except OSError as e:                 # of another user, or on another machine
                self.notify(f"process {pid}: {e.strerror}", severity="warning")
        else:
            self.notify("It was not started here: kill it where it runs", severity="warning")

    @work
    async def action_resume(self):
        run = self.run
        settings = dict(self.remedy(run)[1])
        if run.limit:
            more = await self.ask_for_more(run)
            if not more:
                return
            settings |= more
        flags = [f"--{name}={written(value)}" for name, value in settings.items()]
        self.app.launch(run.folder, ["--resume", str(run.folder), *flags])

    async def ask_for_more(self, run):
        "A run that came to its limit would end at once again. -> another limit, or nothing"
        if run.limit == "patience":
            self.notify("It goes on without patience", timeout=3)
            return {"patience": 0}
        minutes = number(run.part("train").get("max_minutes")) or 0  # they count from the run's beginning
        if run.limit == "max_minutes":
            question = "how many minutes more?"
            usual = minutes
            least = 0.1
        else:
            question = f"to which step? It is at {run.step:,}"
            usual = 2 * run.step
            least = run.step + 1

        def problem(text):
            wanted = number_of(text)
            if wanted is None or not least <= wanted <= 1e9:
                return f"a number, at least {least:,}"

        answer = await self.app.push_screen_wait(Enter(question, written(usual), problem))
        if not answer:
            return {}
        if run.limit == "max_minutes":
            return {"max_minutes": minutes + float(answer)}
        return {"max_iters": int(float(answer))}

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
        self.hit_line = self.log_lines[self.hit]
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
        self.refresh_bindings()

    def action_smooth(self):
        order = list(SMOOTHING)
        self.share = order[(order.index(self.share) + 1) % len(order)]
        self.notify(f"smoothing: {SMOOTHING[self.share]}", timeout=1.5)
        self.show()
