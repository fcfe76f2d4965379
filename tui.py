"""tui.py: choose a preset, watch it learn, compare runs and talk to the result, in the terminal.

    python tui.py                       choose a preset and train it
    python tui.py runs/NAME             watch that run, whoever started it
    python tui.py --theme gruvbox       any theme of Textual; ctrl+p changes it, and it is remembered
    textual serve "python tui.py"       the same in a browser (pip install textual-dev)

A run's folder is all it reads and writes. Training is `gpt.py train`, a process of its own that outlives
this one; talking is `gpt.py chat --jsonl`. Neither torch nor gpt.py is imported: so it starts at once,
watches runs where there is only textual, and a crash over there is a message here.

Here is the app: which runs there are, what is started, what is remembered. What one sees is in screens/:

    train.py        Train: the form. catalog.py: what it may hold; texts.py: the text to train on
    watch.py        Watch: one run. lapse.py: its time-lapse
    runs_table.py   Runs: all of them
    chat.py         Chat. voice.py: a model that answers; turn.py: an answer; choice.py, inside.py: a look
                    at a token of it; talk.py: the process behind it
    basics.py, shared.py, chart.py, charted.py       for all: words; boxes, knobs; the chart; its keys

A screen imports the files of its line and those for all: no other screen, and not this file.
"""
import argparse
import asyncio
import contextlib
import gc
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

try:
    from textual import work
    from textual.actions import parse as parse_action
    from textual.app import App, SystemCommand
    from textual.binding import Binding

    from runs import LIVE, Run, clean, find_runs, fixed, number, size
    from screens.basics import command_line, hidden, number_of, written
    from screens.catalog import LIMITS, Catalog
    from screens.chat import Chat
    from screens.runs_table import Runs
    from screens.shared import Ask, Help, Leave
    from screens.train import Train
    from screens.watch import Watch
except ImportError as e:
    raise SystemExit(f"error: tui.py needs runs.py and screens/ beside it, and textual ({e}): "
                     "pip install textual") from None

HERE = Path(__file__).resolve().parent

# How one is told that a run has ended. The notice is OSC 9, which many terminals show on the desktop.
NOTICES = {"bell": "the bell", "notice": "a notice of the terminal's", "off": "nothing but this line"}
ENDS = "done", "stopped", "crashed"
BUILTIN = "the English text that comes with Python: no download"
CLIPBOARDS = ["pbcopy"], ["wl-copy"], ["xclip", "-selection", "clipboard"], ["clip.exe"]
READING_SECONDS = 1                              # after which what was read so far is shown
RECENT_RUNS = 5                                  # of a size, by which it is said how long the next one takes
FEW_READINGS = 3                                 # with less a run's speed is that of its start
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


def agreed(speeds):
    "The middle one, if most of them are about as high; else None: the machine was busy with other things."
    middle = sorted(speeds)[len(speeds) // 2]
    near = [speed for speed in speeds if middle / 2 <= speed <= 2 * middle]
    return middle if 2 * len(near) > len(speeds) else None


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
        hidden("1,f2,alt+1", "app.switch_mode('train')", "Train: the screen"),
        hidden("2,f3,alt+2", "app.switch_mode('watch')", "Watch: the screen"),
        hidden("3,f4,alt+3", "app.switch_mode('runs')", "Runs: the screen"),
        hidden("4,f5,alt+4", "app.switch_mode('chat')", "Chat: the screen"),
        hidden("q,ctrl+c", "app.leave", "Quit, after a question"),
        hidden("ctrl+q", "app.quit", "Quit"),
        hidden("f10", "app.notices", "When a run ends: bell, notice or nothing"),
        hidden("ctrl+p", "app.command_palette", "All commands, themes"),
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
        self.renamed = []                        # (folder, its new name), for Chat, which talks to one
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
        whole = Path(os.path.abspath(folder))    # "." has no name to show or to change
        if whole.parent.resolve() == self.root.resolve():
            return self.root / whole.name
        return whole

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
        if os.path.isdir(self.root):
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
        """Of runs on this machine, by operations a token: how many a second they did, or None where that
        differs too much, and how it is known. What is remembered outlives its run."""
        found = {}
        with contextlib.suppress(ValueError, TypeError, AttributeError):  # a file that people can edit
            for flops, speed in self.settings["measured"].items():
                found[float(flops)] = float(speed), "as measured here"
        return found | self.measured_by_runs()

    def measured_by_runs(self):
        "Of each size the last runs that were as one from here would be: one process, on such a device."
        runs = {}
        device = self.catalog.device.get("device", "cpu") if self.catalog else "cpu"
        for run in sorted(self.runs.values(), key=lambda run: run.when):
            flops = run.flops_per_token
            is_over = run.state not in (*LIVE, "gone")
            is_known = flops and run.speed and len(run.rows) >= FEW_READINGS
            is_alone = run.start.get("world_size", 1) == 1
            is_here = str(run.start.get("device", "")).startswith(device)
            if is_over and is_known and is_alone and is_here:
                runs.setdefault(flops, []).append(run)
        found = {}
        for flops, all_of_them in runs.items():
            recent = all_of_them[-RECENT_RUNS:]
            how = f"as the last {len(recent)} such runs" if recent[1:] else f"as {recent[0].name} ran"
            found[flops] = agreed([run.speed * flops for run in recent]), how
        return found

    def speed_for(self, flops, usual):
        "-> operations a second to expect of a model with so many a token, and how that is known"
        measured = self.measured()
        if not flops or not measured:
            return usual, ", by its size alone"
        nearest = min(measured, key=lambda other: abs(math.log(other / flops)))
        speed, how = measured[nearest]
        if abs(math.log(nearest / flops)) < math.log(1.2):
            return speed, f", {how}"
        return max(speed or 0, usual or 0), ", by what other runs did here"

    def remember_speeds(self):
        "For the time when the runs are gone."
        speeds = dict(self.settings.get("measured") or {})
        for flops, (speed, _) in self.measured_by_runs().items():
            if speed:
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
            run = self.chosen
            is_on_gpu = run and run.state in LIVE and "cuda" in str(run.start.get("device"))
            self.gpus = await asyncio.to_thread(gpus_at_work) if is_on_gpu else []
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
        if folder in self.ours():
            self.notify(f"{folder.name} is still at work", severity="warning")
            return
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
        if not os.path.exists(path) or (is_untrained and os.path.exists(latest)):
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
            is_own = name in known and (str(value) != str(known[name]) or self.catalog.is_ruled(preset, name))
            if is_own and not elsewhere:
                settings[name] = value
        if any(name in settings for name in LIMITS):  # one that is asked for unsets those of the preset
            settings |= {name: config[name] for name in LIMITS if config.get(name)}
        return settings

    def ours(self):
        "Folder -> Run, of those at work that were started from here."
        runs = self.runs.items()
        return {folder: run for folder, run in runs if run.process and run.process.poll() is None}

    def is_taken(self, folder):
        "Whether a run has begun in it, or was started from here and has not written a word yet."
        return os.path.exists(folder / "metrics.jsonl") or folder in self.ours()

    def fresh_folder(self, name):
        "The first of name, name-2, name-3 ... that is not taken."
        for i in itertools.count(1):
            folder = self.root / (name if i == 1 else f"{name}-{i}")
            if not self.is_taken(folder):
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
            is_textuals = owner.__module__.startswith("textual")
            bindings = [] if is_textuals else vars(owner).get("BINDINGS", [])
            for binding in Binding.make_bindings(bindings):
                space, name, parameters = parse_action(binding.action)
                can_be_done = space or page.check_action(name, parameters)
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
        ours = list(self.ours().values())
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
            self.exit()
        elif answer:
            self.exit(message=f"Still training: {names}. To watch: python tui.py --runs {self.root}")

    @work
    async def action_leave(self):
        "Quitting by a key that was perhaps meant for something else; pressed twice it is meant."
        if self.ours():
            self.action_quit()
        elif await self.push_screen_wait(Leave("quit", "Leave this program?", q="quit")):
            self.exit()

    def stop_training(self, run):
        if run.begun:
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
    gc.set_threshold(20_000)                     # looking for garbage makes keys wait,
    sys.setswitchinterval(0.001)                 # and so do the threads that read, for 5 ms at a time
    app = Tui(Path(asked.runs), asked.run, theme=asked.theme)
    if asked.theme and asked.theme not in app.available_themes:
        raise SystemExit(f"error: --theme {asked.theme}: there are {', '.join(sorted(app.available_themes))}")
    is_terminal = sys.stdout.isatty()
    if is_terminal:
        print(end="\x1b[22;0t", flush=True)      # the terminal keeps its title
    app.run()
    if is_terminal:
        print(end="\x1b[23;0t", flush=True)      # and has it again


if __name__ == "__main__":
    main()
