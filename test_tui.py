"""Tests of tui.py and screens/: the chart, each screen in each state, the process that Chat talks to, the
whole with a training.

    pytest -q test_tui.py
    python test_tui.py --figures                # how fast it is here, 100 times each: about ten minutes

Needs pytest and hypothesis; for the last tests torch and tmux, without which they are skipped."""

import argparse
import asyncio
import contextlib
import html
import itertools
import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

with contextlib.suppress(ImportError):  # Windows has no such terminals
    import fcntl
    import pty
    import termios

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.segment import Segment
from textual import on
from textual.app import App
from textual.widgets import Button, DataTable, Input, Static

import runs
import tui
from runs import Run, fixed
from screens.basics import KEY, Words, spark, written
from screens.chart import BRAILLE, Canvas, Chart, Curve, Frame, ticks
from screens.chat import Prompt
from screens.inside import Inside
from screens.lapse import LIT, Slider, TimeLapse, lit, pairs_of, vocabulary
from screens.shared import Ask, Enter, Knob, Pick
from screens.talk import KNOBS, MODE, SETTINGS, Talk
from screens.texts import Browse
from screens.train import LESSONS
from screens.turn import Token, Turn
from screens.watch import Watch
from test_runs import lines_of, make_older, make_run, write_lines

HERE = Path(tui.__file__).resolve().parent
REAL = HERE / "gpt.py"

# ---- helpers -----------------------------------------------------------------------------------------------

FAKE = """
"Stands in for gpt.py: answers presets as the real one, trains and talks as the tests want it."
import json, os, queue, subprocess, sys, threading, time
command, words = sys.argv[1], sys.argv[2:]
if command == "presets":
    if words == ["--json"] and ANSWER:
        print(open(ANSWER, encoding="utf-8").read())
        raise SystemExit
    raise SystemExit(subprocess.run([sys.executable, REAL, command, *words]).returncode)
say = lambda kind, **more: print(json.dumps({"kind": kind, **more}), flush=True)
if command == "train":
    print("args", json.dumps(words), flush=True)
    flags = dict(zip(words[::2], words[1::2]))
    data = flags.get("--data", "fine")
    if data == "nothing":
        raise SystemExit("error: there is no nothing")
    file = open(os.path.join(flags["--out_dir"], "metrics.jsonl"), "a")
    write = lambda **line: print(json.dumps(line), file=file, flush=True)
    write(kind="start", config={"model": {}, "train": {"batch_size": 32}}, max_iters=1000, parameters=1,
          pid=os.getpid())
    for step in range(10, 1001, 10):
        write(kind="step", step=step, loss=4 - step / 400, lr=1, tokens_per_s=100, elapsed_s=step / 100,
              done=step / 1000)
        if data == "oom" and step == 50:
            raise RuntimeError("CUDA out of memory. Tried to allocate 3 GiB")
        if os.path.exists(os.path.join(flags["--out_dir"], "control")):
            write(kind="end", step=step, reason="stopped", message="")
            break
        time.sleep(0.05)
if command == "chat":
    if "slow" in words[0]:
        time.sleep(2)
    if "broken" in words[0]:
        raise SystemExit(f"error: {words[0]} is no checkpoint")
    say("ready", model=words[0], level="char", block_size=64)
    requests, stopped = queue.Queue(), set()
    def listen():
        for line in sys.stdin:
            request = json.loads(line)
            wants = {"prompt", "load"} & request.keys()
            requests.put(request) if wants else stopped.add(request["stop"])
        os._exit(0)
    threading.Thread(target=listen, daemon=True).start()
    while True:
        r = requests.get()
        if "load" in r:
            if "bad" in r["load"]:
                say("error", id=None, message="no checkpoint of gpt.py")
            else:
                say("ready", model=r["load"], level="word", block_size=64)
            continue
        with open(LOG, "a") as log:
            print(json.dumps(r), file=log, flush=True)
        if "inside" in r:
            if r["prompt"] == "Twice":
                say("error", id=r["id"], message="no look today")
                continue
            texts = [*r["prompt"], *(f" w{n}" for n in r["inside"][:-1])]
            looks = [[0.9 * (n == len(texts) - 1 - h) + 0.01 for n in range(len(texts))] for h in range(3)]
            say("inside", id=r["id"], texts=texts, layers=[
                {"says": [[f" g{n}", 0.25 * (n + 1)]], "prob": 0.25, "looks": looks} for n in range(2)])
            continue
        for n in range(r["max_new_tokens"]):
            if r["id"] in stopped and "deaf" not in r["prompt"]:
                break
            say("piece", id=r["id"], text=f" w{n}" + "\\n" * (n % 10 == 9), token=n, prob=n % 10 / 10,
                alternatives=[[" the", 0.5]])
            time.sleep(0.005)
        say("done", id=r["id"], reason="stop" if r["id"] in stopped else "length", tokens=n + 1,
            tokens_per_s=99.0,
            context_used=min(64, n + 1))
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLORFGBG", "15;0")
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def answer(tmp_path_factory):
    "What the real gpt.py says of its presets: always the same, so it is asked once."
    path = tmp_path_factory.mktemp("answer") / "presets.json"
    path.write_bytes(subprocess.check_output([sys.executable, REAL, "presets", "--json"]))
    return path


@pytest.fixture
def fake(tmp_path, answer):
    names = {"REAL": str(REAL), "LOG": str(tmp_path / "asked"), "ANSWER": str(answer)}
    head = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    (tmp_path / "gpt.py").write_text(head + FAKE, encoding="utf-8")
    shutil.copy(HERE / "presets.json", tmp_path)
    for name in "fine", "nothing", "oom":        # texts by whose names it knows what to do
        (tmp_path / name).touch()
    return tmp_path / "gpt.py"


def drive(app, script, size=(80, 24), notifications=False):
    async def run():
        async with app.run_test(size=size, notifications=notifications) as pilot:
            await script(pilot)

    asyncio.run(run())


async def until(pilot, true, seconds=10):
    for _ in range(int(seconds * 20)):
        await pilot.pause(0.05)
        try:
            if true():
                return
        except Exception:
            pass
    assert true(), screen(pilot.app)


def screen(app):
    "What stands on the screen, read off its picture."
    rows = [""] * app.size.height
    texts = r'<text [^>]*x="([\d.]+)"[^>]*-line-(\d+)\)">([^<]*)<'
    for x, row, text in re.findall(texts, app.export_screenshot()):
        column = round(float(x) / 12.2)
        text = html.unescape(text).replace("\xa0", " ").rstrip("\n")
        rows[int(row)] = rows[int(row)].ljust(column) + text
    return "\n".join(rows)


def shows(pilot, *texts):
    return all(text in screen(pilot.app) for text in texts)


async def sees(pilot, *texts):
    "Wait until all of these stand on the screen."
    await until(pilot, lambda: shows(pilot, *texts))


async def resized(pilot, widget, width, height):
    "Make the terminal another size and wait until a widget as wide, without edges, knows."
    await pilot.resize_terminal(width, height)
    await until(pilot, lambda: width - 4 <= widget.size.width <= width)


async def reads(pilot, name, text):
    "Wait until this stands in a text of the page."
    await until(pilot, lambda: text in shown(pilot.app.page, name))


async def asks_for(pilot, folder, word):
    "Wait until this was left for the trainer."
    await until(pilot, lambda: (folder / "control").read_text() == word)


def flags_of(run):
    "The flags with which the fake trainer was started."
    words = json.loads(run.log[0].removeprefix("args "))
    return dict(zip(words[::2], words[1::2]))


async def ready(pilot):
    await until(pilot, lambda: pilot.app.catalog and pilot.app.page.query("#run"))
    await pilot.pause()


# ---- small things ------------------------------------------------------------------------------------------


def test_sparklines():
    assert spark([1, 2, 3, None], 9) == "▁▄█"
    assert spark([], 5) == ""
    assert spark([2, 2], 5) == "▄▄"
    assert len(spark(range(999), 20)) == 20


def test_words_are_laid_out_anew_only_where_they_changed(root):
    class One(App):
        def compose(self):
            yield Words(id="words")

    async def script(pilot):
        words = pilot.app.query_one(Words)
        words.put("a [b]", (" c", KEY))
        before = words.content
        assert str(before) == "a [b] c"
        words.put("a [b]", (" c", KEY))
        assert words.content is before
        await until(pilot, lambda: "a [b] c" in screen(pilot.app))
        words.put("one\ntwo")
        await until(pilot, lambda: words.size.height == 2)

    drive(One(), script)


def test_a_knob_tells_of_itself():
    class One(App):
        heard = []

        def compose(self):
            yield Knob("b", ["a", "b"], id="words")
            yield Knob("2", [1, 2, 10], free=True, id="number")

        @on(Knob.Changed, "#number")
        def number_changed(self, event):
            self.heard.append((event.control.id, event.value))

        @on(Input.Changed)
        def never(self, event):
            raise AssertionError("a Knob is no Input")

    async def script(pilot):
        await pilot.press("right", "right", "tab", "right", "right", *"3.5", "enter", "left")
        await pilot.pause()
        assert pilot.app.query_one("#words").value == "b"
        assert pilot.app.heard == [("number", "10"), ("number", "3.5"), ("number", "2")]

    drive(One(), script)


# ---- the chart ---------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 12), st.booleans())
def test_ticks_are_few_round_and_inside(low, width, most, log):
    found, form = ticks(low, low + width, most, log)
    assert len(found) <= most + 1 or log
    assert all(low - 1e-6 * width <= v <= low + width * (1 + 1e-6) for v in found) and all(
        form(v) for v in found
    )


def test_a_canvas_has_one_colour_a_cell_and_nothing_outside():
    canvas = Canvas(2, 1)
    assert canvas.drawn(0) is None
    canvas.dot(0, 0, "red")
    canvas.dot(1, 3, "red")
    assert canvas.drawn(0) == (chr(0x2800 + 0x81) if BRAILLE else "•", "red")
    canvas.dot(1, 0, "blue")  # it takes the whole cell
    assert canvas.drawn(0) == (chr(0x2800 + 0x08) if BRAILLE else "•", "blue")
    for x, y in (-1, 0), (4, 0), (0, -1), (0, 4):
        canvas.dot(x, y, "red")
        canvas.mark(x, y, "!", "red")
    assert canvas.drawn(1) is None
    canvas.line((0, 0), (3, 3), "red")
    assert canvas.dots == [0x01 | 0x10, 0x04 | 0x80]
    canvas.mark(3, 0, "★", "gold")
    assert canvas.drawn(1) == ("★", "gold")


def test_a_frame_says_where_a_value_lies():
    frame = Frame(x0=0, x1=100, low=1, high=3, width=10, height=5)
    assert [frame.across(x) for x in (0, 50, 100)] == [0, 10, 19]
    assert [frame.down(y) for y in (3, 2, 1)] == [0, 10, 19]
    assert frame.down(1e99) == -9
    assert frame.down(-1e99) == 29


def test_chart_draws_anything_anywhere():
    class One(App):
        def compose(self):
            yield Chart("nothing yet")

    def line(ys):
        return Curve("train", "train", list(enumerate(ys)))

    async def script(pilot):
        chart = pilot.app.query_one(Chart)
        assert "nothing yet" in screen(pilot.app)
        for size in ((80, 24), (140, 40), (20, 6), (9, 4), (1, 1)):
            await resized(pilot, chart, *size)
            for ys in ([1], [2, 2, 2], [1e9, -1e9, 0], [5, 4, 3, 2, 1], [1e-9, 2e-9], list(range(5000))):
                for log in (False, True):
                    chart.log_x, chart.log_y = log, log
                    chart.plot([line(ys)], best=(0, ys[0]))
                    await pilot.pause()  # it is painted
                    for row in Segment.split_lines(getattr(chart.render(), "segments", [])):
                        assert sum(part.cell_length for part in row) <= chart.size.width
        await pilot.resize_terminal(80, 24)
        chart.log_x = chart.log_y = False
        chart.plot([line(range(1001))])
        chart.action_zoom(0.5)
        assert chart.view == (500, None) and chart.span() == (500, 1000)
        chart.plot([line(range(501))])  # another run, that is shorter
        assert chart.span() == (0, 500) and chart.render()
        chart.plot([line(range(1001))])
        chart.plot([line(range(2001))])  # new points: a view at the end follows
        assert chart.span() == (500, 2000)
        chart.action_pan(-0.2)
        assert chart.span() == (200, 1700)
        await pilot.press("tab", "minus", "minus", "0", "full_stop", "comma")
        assert chart.view is None and "at 1,9" in screen(pilot.app)

    drive(One(), script)


def test_a_logarithmic_axis_has_no_place_for_zero():
    class One(App):
        def compose(self):
            yield Chart("nothing yet")

    async def script(pilot):
        chart = pilot.app.query_one(Chart)
        chart.log_y = True
        chart.plot([Curve("gap", "train", [(0, -0.1), (10, 0), *((step, 0.2) for step in range(20, 99))])])
        curves = [curve._replace(points=chart.scaled(curve.points)) for curve in chart.curves]
        frame = chart.frame(curves, 60, 10)
        assert (frame.x0, frame.x1) == (0, 98)
        assert 0.1 < 10 ** frame.low < 0.2 < 10 ** frame.high < 0.3
        chart.plot([Curve("gap", "train", [(0, -1), (9, 0)])])
        assert chart.render()

    drive(One(), script)


def test_no_curve_is_left_out_of_the_picture():
    class One(App):
        def compose(self):
            yield Chart("nothing yet")

    async def script(pilot):
        chart = pilot.app.query_one(Chart)
        many = Curve("c", "2", [(step, 2.0) for step in range(500)])
        chart.plot([Curve("a", "0", [(0, 4.2)]), Curve("b", "1", [(0, 4.1), (50, 2.0)]), many])
        assert chart.frame(chart.curves, 60, 10).high > 4.2
        falling = Curve("train", "train", [(step, 9.0 if step < 5 else 2.0) for step in range(500)])
        chart.plot([falling])
        assert chart.frame(chart.curves, 60, 10).high < 9  # its start may leave

    drive(One(), script)


@pytest.mark.parametrize("high", [3.2e16, 1e5, 2.0001, 9e99])
def test_numbers_at_the_axis_fit_and_differ(high):
    frame = Frame(x0=0, x1=9, low=0 if high > 9 else 2, high=high, width=50, height=12)
    chart = Chart()
    texts = list(chart.y_axis(frame).values())
    assert len(texts) == len(set(texts)) > 0
    assert all(len(text) < chart.LEFT + 1 for text in texts)


# ---- Train -------------------------------------------------------------------------------------------------


def test_train_shows_what_there_is_and_checks_what_is_typed(root, fake):
    async def script(pilot):
        app = pilot.app
        await ready(pilot)
        await sees(pilot, "nano", "gpt2-xl", "fits", "--preset nano --level char")
        assert "runs/nano-char" in "".join(screen(app).split())  # a long path takes two lines
        page, value = app.page, lambda name: app.page.query_one(f"#{name}", Input)
        way = list(app.catalog.presets).index("laptop")
        await pilot.press(*["down"] * way)
        await until(pilot, lambda: page.preset == "laptop" and value("max_minutes").value == "3")
        value("batch_size").value = "9"
        await until(pilot, lambda: page.edited.get("batch_size") == "9")
        page.fill_table()  # as when a run has ended, whose speed is told
        await pilot.pause()
        assert page.preset == "laptop" and page.edited.get("batch_size") == value("batch_size").value == "9"
        await pilot.press(*["up"] * way)
        await until(pilot, lambda: page.preset == "nano")
        page.query_one("#level", Knob).value = "word"
        steps = app.catalog.recipe("nano", "word")["max_iters"]
        await until(
            pilot,
            lambda: value("max_iters").value == str(steps) and "--level word" in shown(page, "#command"),
        )
        for name, text, wrong in (
            ("batch_size", "x", "a whole number"),
            ("batch_size", "0", app.catalog.fields["batch_size"]["rule"]),
            ("learning_rate", "-1", app.catalog.fields["learning_rate"]["rule"]),
            ("dropout", "1", app.catalog.fields["dropout"]["rule"]),
            ("data", "no/such.txt", "there is no"),
            ("run", "a/b", "a name without"),
            ("run", "x" * 300, "a name without"),
            ("data", "x" * 300 + ".txt", "there is no"),
        ):
            was = value(name).value
            value(name).value = text
            await reads(pilot, "#hint", wrong)
            assert page.query_one("#start", Button).disabled and value(name).has_class("-invalid")
            value(name).value = was
            await until(pilot, lambda: not page.query_one("#start", Button).disabled)
        value("epochs").value = value("max_iters").value = "0"
        await reads(pilot, "#hint", "no end in sight")
        value("max_iters").value = str(steps)
        value("max_minutes").value = "5"  # a limit unsets the others: so all are named
        for flag in "--max_minutes 5", f"--max_iters {steps}":
            await reads(pilot, "#command", f" {flag} ")
        await pilot.press("ctrl+t")
        await until(pilot, lambda: page.query("#n_layer"))
        value("n_head").value = "5"
        await until(pilot, lambda: "n_embd % n_head == 0" in shown(page, "#hint"))
        value("n_head").value = "2"
        await until(pilot, lambda: "--n_head 2" in shown(page, "#command"))
        await pilot.press("ctrl+y")
        await until(pilot, lambda: app.clipboard.startswith("python gpt.py train --preset nano --level word"))
        assert set(page.texts()) == set(app.catalog.fields)

    drive(tui.Tui(root, gpt=fake), script)


def test_auto_shows_what_its_rule_makes_of_the_text_and_the_minutes(root, fake):
    Path("short.txt").write_text("It was a dark night. " * 500)
    Path("long.txt").write_text("It was a dark night. " * 40_000)

    async def script(pilot):
        await ready(pilot)
        page = pilot.app.page
        page.choose("auto")
        page.query_one("#data", Input).value = "short.txt"
        await until(pilot, lambda: page.level == "char" and "about 91" in shown(page, "#estimate"))
        assert "--level" not in page.command()
        page.query_one("#data", Input).value = "long.txt"
        await until(pilot, lambda: page.level == "bpe")
        assert page.texts()["vocab_size"] == "1024" and "--level" not in page.command()
        await until(pilot, lambda: page.cost)
        page.query_one("#max_minutes", Input).value = "0.01"
        await until(pilot, lambda: page.cost.get("n_embd") == 48)
        page.query_one("#max_minutes", Input).value = "5"
        await until(pilot, lambda: "max_minutes" not in page.edited and page.cost)
        page.query_one("#data", Input).value = "short.txt"  # what was asked for once is known
        await until(pilot, lambda: page.level == "char" and page.cost)
        page.query_one("#level", Knob).value = "word"  # who chooses one is obeyed
        await reads(pilot, "#command", "--level word")
        await until(pilot, lambda: page.cost and page.level == "word")

    drive(tui.Tui(root, gpt=fake), script)


def test_the_weights_are_those_of_the_words_in_the_text(root, fake):
    Path("mine.txt").write_text("to be or not to be " * 9)

    async def script(pilot):
        await ready(pilot)
        page = pilot.app.page
        page.query_one("#level", Knob).value = "word"
        await reads(pilot, "#estimate", "665k weights")
        page.query_one("#data", Input).value = "mine.txt"
        await reads(pilot, "#estimate", "before your changes: 665k weights")
        await until(pilot, lambda: shown(page, "#estimate").startswith("348k weights"))
        assert "about 1 s" in shown(page, "#estimate")  # so short a text is read 35 times and no more

    drive(tui.Tui(root, gpt=fake), script)


def test_a_run_begun_from_the_field_of_its_name_leaves_a_fresh_one_there(root, fake):
    async def script(pilot):
        await ready(pilot)
        page = pilot.app.page
        page.query_one("#run", Input).focus()
        await pilot.press("ctrl+s")
        await until(pilot, lambda: (root / "nano-char" / "metrics.jsonl").exists())
        await pilot.press("f2")
        await until(pilot, lambda: page.run_name == "nano-char-2" and not page.found)

    drive(tui.Tui(root, gpt=fake), script)


SLOW = """
import sys, time
if sys.argv[1] == "train":
    time.sleep(30)
"""


def test_the_name_of_a_run_that_was_just_started_is_not_offered_again(root, fake):
    "The trainer writes its first word only after seconds."
    fake.write_text(SLOW + fake.read_text())

    async def script(pilot):
        app = pilot.app
        await ready(pilot)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.current_mode == "watch" and app.chosen)
        run = app.chosen
        await pilot.press("f2")
        await until(pilot, lambda: app.page.run_name == "nano-char-2" and not app.page.found)
        app.page.query_one("#run", Input).value = "nano-char"
        await reads(pilot, "#hint", "run: there is one of the name nano-char")
        first = run.process
        app.launch(run.folder, [])
        assert run.process is first and first.poll() is None
        assert not (run.folder / "metrics.jsonl").exists()
        first.kill()

    drive(tui.Tui(root, gpt=fake), script)


def test_what_was_wrong_with_a_text_is_asked_again(root, fake):
    async def script(pilot):
        app = pilot.app
        await ready(pilot)
        await pilot.press("f6")
        about = {"why": "it is not here yet"}
        app.page.looked_at = {app.page.data_flags(): about, ("fine",): {"tokens": 1}}
        app.page.answers = {("a",): ({}, about), ("b",): ({}, None)}
        await pilot.press("f3", "f2")
        await until(pilot, lambda: about not in app.page.looked_at.values())
        assert ("fine",) in app.page.looked_at and list(app.page.answers) == [("b",)]

    drive(tui.Tui(root, gpt=fake), script)


def test_keys_wait_for_the_form(root, fake, monkeypatch):
    make_run(root / "mine")
    learn = tui.Tui.read_presets

    async def later(app):
        await asyncio.sleep(2 if app.catalog else 0)
        return await learn(app)

    monkeypatch.setattr(tui.Tui, "read_presets", later)

    async def script(pilot):
        app = pilot.app
        await app.read_presets()  # as Watch does, to say what helps
        await pilot.press("f2", "ctrl+s", "ctrl+y", "ctrl+t", "f6")
        assert not app.page.has_form and not app.page.has_class("-look")
        await ready(pilot)
        await sees(pilot, "^y Copy command")

    drive(tui.Tui(root, root / "mine", gpt=fake), script, (120, 24))


def test_several_or_no_values_of_a_field():
    assert written([]) == ""


def shown(page, name):
    return str(page.query_one(name, Static).content).replace("\xa0", " ")


def test_data_is_picked_from_a_list_or_the_disk(root, fake):
    Path("mine.txt").write_text("my text")

    async def script(pilot):
        await ready(pilot)
        await pilot.press("ctrl+o", *"min")  # while the list is still asked for
        await sees(pilot, "mine.txt", "in this folder")
        await until(pilot, lambda: any(name == "builtin" for name, _ in pilot.app.screen.options))
        await pilot.press("enter")
        await reads(pilot, "#command", "--data mine.txt")
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(pilot.app.screen, Pick) and shows(pilot, "builtin"))
        await pilot.press(*"built", "enter")
        await until(pilot, lambda: "--data builtin" in shown(pilot.app.page, "#command"))
        assert "nano-char-builtin" in shown(pilot.app.page, "#command")
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(pilot.app.screen, Pick))
        await pilot.press(*"browse", "enter")
        await sees(pilot, "mine.txt", "/", "the folder above")
        assert not shows(pilot, "__pycache__")
        await pilot.press("end")  # past presets.json
        while pilot.app.screen.list.highlighted_option.id != "mine.txt":
            await pilot.press("up")
        await sees(pilot, "my text")
        await pilot.press("backspace", "enter")  # up, and down again: the cursor is on where it came from
        await sees(pilot, "mine.txt")
        while pilot.app.screen.list.highlighted_option.id != "mine.txt":
            await pilot.press("down")
        await pilot.press("enter")
        await until(pilot, lambda: "--data mine.txt" in shown(pilot.app.page, "#command"))

    drive(tui.Tui(root, gpt=fake), script)


CORPORA = """
import json, sys
assert sys.argv[1:] == ["list", "--json"]
corpus = {"name": "poems", "size": "3 MB", "validation": "the end", "licence": "free", "source": "http://x"}
print(json.dumps({"corpora": [{**corpus, "here": []}, {**corpus, "name": "plays", "here": ["plays-word"]}]}))
"""


@pytest.mark.parametrize("program, expected", [(CORPORA, True), ("1 / 0", False), ("print('[3]')", False)])
def test_the_list_of_data_is_what_data_py_says(root, fake, program, expected):
    fake.with_name("data.py").write_text(program)
    Path("data/mine-char").mkdir(parents=True)
    Path("data/mine-char/meta.json").write_text("{}")

    async def script(pilot):
        await ready(pilot)
        found = await pilot.app.corpora()
        assert list(found)[0] == "builtin"
        assert found[str(Path("data/mine-char"))] == "prepared"
        assert found["sherlock"] == ""  # which the presets name
        said = {"poems": "3 MB", "plays": "3 MB, plays-word"}
        assert said.items() <= found.items() if expected else said.keys().isdisjoint(found)

    drive(tui.Tui(root, gpt=fake), script)


def test_train_starts_watches_stops_and_quits_beside_a_run(root, fake):
    async def script(pilot):
        app = pilot.app
        await ready(pilot)
        app.page.query_one("#data", Input).value = "fine"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.current_mode == "watch" and app.chosen.rows)
        await sees(pilot, "training", "nano-char-fine", "━")
        flags = flags_of(app.chosen)
        assert flags["--preset"] == "nano"
        assert flags["--level"] == "char"
        assert flags["--data"] == "fine"
        assert flags["--out_dir"] == str(root / "nano-char-fine")
        await pilot.press("ctrl+q")
        await sees(pilot, "leave it going")
        await pilot.press("escape", "s")
        await sees(pilot, "stop and save")
        await pilot.press("enter")
        await until(pilot, lambda: app.chosen.state == "stopped")
        assert (root / "nano-char-fine" / "control").read_text() == "stop"

    drive(tui.Tui(root, gpt=fake), script)


def test_quitting_can_leave_the_run_going(root, fake):
    app = tui.Tui(root, gpt=fake)

    async def script(pilot):
        await ready(pilot)
        app.page.query_one("#data", Input).value = "fine"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.chosen and app.chosen.rows)
        await pilot.press("ctrl+q")
        await sees(pilot, "leave it going")
        await pilot.press("l")

    drive(app, script)
    run = app.chosen
    assert run.process.poll() is None
    again = Run(run.folder)
    again.poll()
    steps = again.step
    for _ in range(100):
        time.sleep(0.1)
        if again.poll() and again.step > steps:
            break
    assert again.step > steps
    assert again.state == "training"
    run.process.kill()
    run.process.wait()


@pytest.mark.parametrize(
    "data, headline, words",
    [("nothing", "it did not start", "there is no nothing"), ("oom", "out of memory", "--micro_batch 16")],
)
def test_what_goes_wrong_in_a_training_is_said(root, fake, data, headline, words):
    async def script(pilot):
        await ready(pilot)
        pilot.app.page.query_one("#data", Input).value = data
        await pilot.press("ctrl+s")
        await sees(pilot, headline, "crashed")
        await until(pilot, lambda: words in " ".join(screen(pilot.app).split()))
        await pilot.press("l")
        await until(pilot, lambda: shows(pilot, "─ log ─", "args") and not shows(pilot, "training ended"))
        await pilot.press("l")
        if data == "oom":
            (pilot.app.chosen.folder / "latest.pt").write_bytes(b"")
            await pilot.press("r")
            await until(pilot, lambda: "--micro_batch=16" in "".join(pilot.app.chosen.log))

    drive(tui.Tui(root, gpt=fake), script)


def test_a_name_that_no_text_has_is_told_before_a_run_is_begun(root, fake):
    async def script(pilot):
        app = pilot.app
        await ready(pilot)
        for name, is_refused in ("somewhere", True), ("fine", False):
            app.page.query_one("#data", Input).value = name
            await pilot.press("ctrl+s")
            if is_refused:
                await reads(pilot, "#hint", "data: somewhere is no file and no text")
                await until(pilot, lambda: app.page.query_one("#data").has_focus)
                assert not app.runs and not root.exists()
        await until(pilot, lambda: app.chosen and flags_of(app.chosen)["--data"] == "fine")
        app.chosen.process.kill()

    drive(tui.Tui(root, gpt=fake), script)


def test_what_does_not_fit_is_asked_about(root, fake):
    async def script(pilot):
        await ready(pilot)
        app = pilot.app
        app.catalog.presets["nano"]["char"]["fits"] = False
        app.page.choose("nano")
        assert "does not fit" in shown(app.page, "#estimate")
        await pilot.press("ctrl+s")
        await sees(pilot, "start it all the same")
        await pilot.press("escape")
        assert app.current_mode == "train" and not root.exists()

    drive(tui.Tui(root, gpt=fake), script)


def test_broken_presets_are_shown_with_the_place(root, tmp_path):
    for name in "gpt.py", "tools.py", "recipes.py", "runs.py", "presets.json":
        if (HERE / name).exists():
            shutil.copy(HERE / name, tmp_path)
    good = (tmp_path / "presets.json").read_text()
    (tmp_path / "presets.json").write_text(good.replace('"nano": {', '"nano": {{', 1))

    async def script(pilot):
        await sees(pilot, "can't be read", '"nano": {{', "^")
        (tmp_path / "presets.json").write_text(good)
        await pilot.press("r")
        await ready(pilot)
        await sees(pilot, "--preset nano")

    drive(tui.Tui(root, gpt=tmp_path / "gpt.py"), script)


def test_what_is_promised_holds_only_for_what_it_was_measured_on(root, fake):
    async def script(pilot):
        app = pilot.app
        await ready(pilot)
        page = app.page
        assert "on sherlock" in shown(page, "#estimate")
        for name, value in {"max_iters": "300", "data": "builtin"}.items():
            box = page.query_one(f"#{name}", Input)
            was = box.value
            box.value = value
            await until(pilot, lambda: "on sherlock" not in shown(page, "#estimate"))
            box.value = was
            await until(pilot, lambda: "on sherlock" in shown(page, "#estimate"))

    drive(tui.Tui(root, gpt=fake), script)


def test_how_long_it_takes_is_said_before_the_start(root, fake):
    async def script(pilot):
        app = pilot.app
        await ready(pilot)
        page = app.page

        def said(name, **more):
            values = {**app.catalog.recipe(name), "fits": True, "usual_flops_per_s": 1.2e11, **more}
            return page.verdict(values).plain

        assert said("nano") == "2 min" and said("laptop") == "3 min" and said("stories") == "2 months"
        assert said("nano", usual_flops_per_s=None) == "yes"  # a card that is not known
        assert "by its size alone" in shown(page, "#estimate")
        (root / "mine").mkdir(parents=True)
        make_run(root / "mine")  # 40,000 tokens a second
        await until(pilot, lambda: app.runs and "about 2 min, as mine ran" in shown(page, "#estimate"))
        assert said("nano") == "2 min" and app.speed_for(1e12, 9e99)[0] == 9e99

        def another(name, speed):
            path = make_run(root / name) / "metrics.jsonl"
            text = path.read_text().replace('"tokens_per_s": 40000', f'"tokens_per_s": {speed}')
            path.write_text(text)

        another("busy", 4000)                    # the machine was: which of the two holds, nobody knows
        await until(pilot, lambda: len(app.runs) == 2 and said("nano") == "yes")
        another("calm", 39000)
        await until(pilot, lambda: "about 2 min, as the last 3 such runs" in shown(page, "#estimate"))
        for name in "busy", "calm":
            shutil.rmtree(root / name)
        shutil.rmtree(root / "mine")
        await until(pilot, lambda: "about 2 min, as measured here" in shown(page, "#estimate"))

    drive(tui.Tui(root, gpt=fake), script)
    (root / ".tui.json").write_text('{"measured": {"many": []}}')
    assert tui.Tui(root).measured() == {}


def test_the_columns_of_the_presets_follow_the_width(root, fake):
    async def script(pilot):
        await ready(pilot)
        assert not shows(pilot, "context")
        await pilot.press("down")
        await pilot.resize_terminal(140, 40)
        await sees(pilot, "context", "any computer")
        assert pilot.app.page.preset == list(pilot.app.catalog.presets)[1]
        await pilot.resize_terminal(60, 16)
        await until(pilot, lambda: not shows(pilot, "memory"))

    drive(tui.Tui(root, gpt=fake), script)


@pytest.mark.parametrize("size", [(80, 24), pytest.param((140, 40), marks=pytest.mark.slow)])
def test_the_text_is_shown_as_it_is_cut(root, fake, monkeypatch, size):
    Path("mine.txt").write_text("seldom " + "often " * 9 + "\x1b[31m")
    known = {"sherlock": "0.6 MB"}

    async def corpora(app):
        return known

    monkeypatch.setattr(tui.Tui, "corpora", corpora)

    async def script(pilot):
        await ready(pilot)
        page = pilot.app.page
        page.query_one("#data", Input).value = "mine.txt"
        if size == (80, 24):
            await pilot.press("f6")
        await sees(pilot, "mine.txt", "66B · 66 tokens", "seen 20 times", "seldom often")
        page.query_one("#level", Knob).value = "word"
        await sees(pilot, "30.8% unknown", "<unk> Often often", "2 kinds")
        page.query_one("#max_iters", Input).value = "1"
        await sees(pilot, "seen 35 times")  # and no more often, in whatever number of steps
        page.query_one("#epochs", Input).value = "0"
        await sees(pilot, "seen 315 times")
        page.query_one("#data", Input).value = "somewhere"
        await sees(pilot, "is no file and no text")
        page.query_one("#data", Input).value = "sherlock"
        await sees(pilot, "it is not here yet")
        known["sherlock"] = "0.6 MB, 1 of 1 files"
        page.looked_at.clear()
        page.query_one("#max_iters", Input).value = "2"
        await sees(pilot, "is fetched; it is prepared")
        page.query_one("#data", Input).value = "no.txt"
        await until(pilot, lambda: shown(page, "Preview") == "data: there is no no.txt")
        if size == (80, 24):
            await pilot.press("escape")
            await sees(pilot, "weights")
            assert page.query_one("#recipes").has_focus
            await pilot.press("f6")
            await until(pilot, lambda: not shows(pilot, "weights  memory"))
            await pilot.press("f6")
            await sees(pilot, "weights  memory")

    drive(tui.Tui(root, gpt=fake), script, size)


def test_a_knob_is_explained_where_there_is_room(root, fake):
    make_run(root / "mine")

    async def script(pilot):
        app = pilot.app
        await ready(pilot)
        await sees(pilot, "3 layers, 3 heads, 96 wide")
        app.page.query_one("#dropout").focus()
        await sees(pilot, "in this preset: 0")
        assert "by heart" in shown(app.page, "#lesson")
        app.page.query_one("#max_iters", Input).value = "ten"
        await sees(pilot, "max_iters: expected")
        assert set(LESSONS) <= {*app.catalog.fields, "run"}
        assert set(KNOBS) == {setting.name for setting in (MODE, *SETTINGS)}
        await pilot.press("f5", "ctrl+t")
        await sees(pilot, "How much chance", "a number turns it")
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: not shows(pilot, "How much chance"))

    drive(tui.Tui(root, gpt=fake), script, (140, 40))


def test_a_pasted_path_is_taken(root, fake):
    Path("mine.txt").write_text("my text")
    path = str(Path("mine.txt").absolute())

    async def script(pilot):
        await ready(pilot)
        for typed in "no/such.txt", path:
            await pilot.press("ctrl+o")
            await until(pilot, lambda: isinstance(pilot.app.screen, Pick))
            pilot.app.screen.query_one(Input).value = typed
            await sees(pilot, "use" if typed == path else "there is no file")
            await pilot.press("enter" if typed == path else "escape")
        await until(pilot, lambda: pilot.app.page.query_one("#data", Input).value == path)

    drive(tui.Tui(root, gpt=fake), script)


def test_copied_commands_find_gpt_py(root, fake, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()

    async def script(pilot):
        await ready(pilot)
        assert shown(pilot.app.page, "#command").startswith("$ python gpt.py train")
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert pilot.app.page.command().startswith(f"{sys.executable} {fake} train")

    drive(tui.Tui(root, gpt=fake), script)


# ---- Watch -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(140, 40), (60, 16)])
def test_watch_shows_a_run_it_did_not_start(root, fake, size):
    folder = make_run(root / "other", 200, end="", most=400, warn="validation loss is rising")

    async def script(pilot):
        await until(
            pilot,
            lambda: shows(pilot, "other", "training", "50%", "200/400", "validation loss is rising", "val"),
        )
        if size[0] > 60:
            assert shows(pilot, "sample 200 [/b] ␛]0;hacked␇") and "\x1b" not in screen(pilot.app)
        for key, word in (("p", "pause"), ("g", "sample")):
            await pilot.press(key)
            await asks_for(pilot, folder, word)
        with open(folder / "metrics.jsonl", "a") as f:
            print(json.dumps({"kind": "state", "state": "paused"}), file=f)
        await sees(pilot, "● paused")
        await pilot.press("p")
        await until(pilot, lambda: (folder / "control").read_text() == "go")
        for key in "xymmlll[]x":  # each of them is answered, nothing breaks
            await pilot.press(key)
        shutil.rmtree(folder)
        await sees(pilot, "has vanished")

    drive(tui.Tui(root, folder, gpt=fake), script, size)


def test_resume_keeps_the_curve(root, fake):
    folder = make_run(root / "mine", 200, end="stopped")
    (folder / "control").write_text("pause")  # which a run that was killed had not read

    async def script(pilot):
        await sees(pilot, "stopped")
        await pilot.press("r")
        await until(pilot, lambda: pilot.app.chosen.process)
        assert not (folder / "control").exists()
        await until(pilot, lambda: "args" in pilot.app.chosen.log[0])
        assert flags_of(pilot.app.chosen) == {"--resume": str(folder)}
        assert len(pilot.app.chosen.rows) == 20

    drive(tui.Tui(root, folder, gpt=fake), script)


def test_a_run_that_is_not_read_yet_is_not_judged(root, fake, monkeypatch):
    folder = make_run(root / "old", 200, age=9999)
    go_on = threading.Event()

    def slowly(root, known):
        go_on.wait(20)
        return read_runs(root, known)

    read_runs = tui.read_runs
    monkeypatch.setattr(tui, "read_runs", slowly)

    async def script(pilot):
        await sees(pilot, "Reading old …")
        assert not shows(pilot, "crashed")
        go_on.set()
        await sees(pilot, "● done", "step 200")

    drive(tui.Tui(root, folder, gpt=fake), script)


def test_many_long_runs_are_shown_bit_by_bit_the_newest_first(root, monkeypatch):
    monkeypatch.setattr(tui, "READING_SECONDS", -1)
    for i, name in enumerate("abc"):
        make_run(root / name, 50, age=100 - i)
    (root / "log-only").mkdir()
    (root / "log-only" / "train.log").touch()
    known = []
    for expected in "c", "cb", "cba":
        known = tui.read_runs(root, known)
        assert "".join(run.name for run in known) == expected
        assert known[-1].state == "done"
    assert len(tui.read_runs(root, known)) == 4


def test_runs_that_come_and_go_while_they_are_read(root, fake):
    for name in "a", "b", "c":
        make_run(root / name, 50)

    async def script(pilot):
        app = pilot.app
        await until(pilot, lambda: len(app.runs) == 3)
        a, b, c = [app.runs[root / name] for name in "abc"]
        known = [a, b]
        app.forget(b)  # deleted while the thread was reading it
        launched = Run(root / "d")
        app.runs[root / "d"] = launched  # started meanwhile, and found by the thread, too
        found = Run(root / "e")
        app.take(known, [a, b, Run(root / "d"), found])
        assert root / "b" not in app.runs
        assert app.runs[root / "a"] is a
        assert app.runs[root / "c"] is c
        assert app.runs[root / "d"] is launched
        assert app.runs[root / "e"] is found

    drive(tui.Tui(root, gpt=fake), script)


def test_a_rate_far_too_high_is_set_back_at_once(root, fake):
    folder = make_run(root / "wild", 50, end="", learning_rate=1e9)
    said = "10 steps in a row had no finite gradient: take a lower --learning_rate"
    write_lines(folder, [{"kind": "end", "step": 50, "reason": "error", "message": said}], "a")

    async def script(pilot):
        own = pilot.app.catalog.recipe("nano", "char")["learning_rate"] if pilot.app.catalog else 0.004
        await sees(pilot, "preset's own learning_rate", f"{own:g}")
        await pilot.press("r")
        await until(pilot, lambda: "--resume" in pilot.app.chosen.log[0])
        assert f"--learning_rate={own:g}" in pilot.app.chosen.log[0]

    drive(tui.Tui(root, folder, gpt=fake), script)


def test_without_a_checkpoint_nothing_is_gone_on_from(root, fake):
    folder = make_run(root / "mine", 50, end="error", checkpoints=(), max_iters=77)

    async def script(pilot):
        await sees(pilot, "No checkpoint was written yet. r: start anew", "r Start anew")
        assert not shows(pilot, "go on from", "Resume")
        await pilot.press("r")
        await until(pilot, lambda: pilot.app.chosen.name == "mine-2" and pilot.app.chosen.rows)
        flags = flags_of(pilot.app.chosen)
        assert flags["--max_iters"] == "77"
        assert "--resume" not in flags

    drive(tui.Tui(root, folder, gpt=fake), script)


@pytest.mark.skipif(not runs.fcntl, reason="there are no such locks")
def test_a_full_disk_is_named_with_the_key_that_helps(root, fake, monkeypatch):
    folder = make_run(root / "mine", 200, end="")
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(runs.shutil, "disk_usage", lambda path: usage._replace(free=0))
    held = open(folder / "metrics.jsonl", "a")
    runs.fcntl.flock(held, runs.fcntl.LOCK_EX)
    make_older(folder, 20)

    async def script(pilot):
        await sees(pilot, "● disk full", "nothing is recorded any more", "k Kill")

    drive(tui.Tui(root, folder, gpt=fake), script)
    held.close()


def test_another_run_at_work_is_one_key_away(root, fake):
    make_run(root / "old", 50)
    make_run(root / "busy", 100, end="", most=400)

    async def script(pilot):
        await sees(pilot, "● done", "n Next run")
        await pilot.press("n")
        await until(pilot, lambda: pilot.app.chosen.name == "busy")

    drive(tui.Tui(root, root / "old", gpt=fake), script)


@pytest.mark.parametrize(
    "end, answer, flags, why",
    [
        ("time", "", "--max_minutes=2", "100%: its 1 minute is over"),
        ("time", "0.5", "--max_minutes=1.5", "100%: its 1 minute is over"),
        ("done", "", "--max_iters=400", "100%"),
        ("done", "201", "--max_iters=201", "100%"),
        ("patience", None, "--patience=0", "100%: no better for 5 evaluations"),
    ],
)
def test_a_run_at_its_limit_is_resumed_with_another(root, fake, end, answer, flags, why):
    folder = make_run(root / "mine", 200, end=end, most=1500, max_minutes=1, patience=5)
    launched = []

    async def script(pilot):
        app = pilot.app
        app.launch = lambda folder, flags: launched.append(flags)
        await sees(pilot, "● done", why)
        await pilot.press("r")
        if answer is not None:
            await until(pilot, lambda: isinstance(app.screen, Enter))
            question = "how many minutes more?" if end == "time" else "to which step? It is at 200"
            assert shows(pilot, question)
            await pilot.press("0", "enter")
            await sees(pilot, "a number, at least")
            await pilot.press("escape", "r")
            await until(pilot, lambda: isinstance(app.screen, Enter))
            assert not launched
            await pilot.press(*answer, "enter")
        await until(pilot, lambda: launched)
        assert launched == [["--resume", str(folder), *flags.split()]]

    drive(tui.Tui(root, folder, gpt=fake), script)


def test_the_legend_has_no_mark_without_words(root, fake):
    make_run(root / "a", 300)

    async def script(pilot):
        await sees(pilot, "▒ each reading", "━ train, smoothed")
        await pilot.press("m", "m")
        await sees(pilot, "▒ each reading  ━ train  ● val")

    drive(tui.Tui(root, root / "a", gpt=fake), script)


# ---- time-lapse --------------------------------------------------------------------------------------------


def test_the_bytes_of_a_packed_text_are_no_words(tmp_path):
    Path(tmp_path / "mine.txt.gz").write_bytes(b"\x1f\x8b zyxzyx")
    words, source = vocabulary(str(tmp_path / "mine.txt.gz"))
    assert "zyxzyx" not in words and source == "Python's manual"


def test_words_that_exist_are_lit(tmp_path):
    (tmp_path / "mine.txt").write_text("The cat sat. On the MAT!")
    words, source = vocabulary(str(tmp_path / "mine.txt"))
    assert words == {"the", "cat", "sat", "mat"}
    assert "mine.txt" in source
    parts, known, of = lit("the ca cxt, Mat", words)
    assert "".join(text for text, _ in parts) == "the ca cxt, Mat"
    assert [text for text, look in parts if look == LIT] == ["the", "Mat"]
    assert (known, of) == (2, 3)
    words, source = vocabulary("nowhere/at/all")
    assert "Python's manual" in source
    assert "its training text" not in source
    assert "statement" in words


@pytest.mark.parametrize("level", ["char", "word"])
def test_words_are_known_from_what_was_prepared(tmp_path, monkeypatch, level):
    monkeypatch.chdir(tmp_path)
    Path("mine.txt").write_text("The cat sat on the mat. " * 99)
    make = [sys.executable, HERE / "data.py", "mine.txt", "--level", level]
    subprocess.run(make, check=True, capture_output=True)
    words, source = vocabulary("mine")
    assert words == {"the", "cat", "sat", "mat"} and source == "its training text, mine"
    assert ("cat", "sat") in vocabulary(f"data/mine-{level}", pairs_of)[0]
    Path(f"data/mine-{level}/train.bin").write_bytes(b"\xff")
    assert "Python's manual" in vocabulary("mine")[1]


def test_of_a_model_of_words_it_is_lit_what_stands_side_by_side(tmp_path):
    (tmp_path / "mine.txt").write_text("The cat sat on a mat. It sat.")
    pairs, _ = vocabulary(str(tmp_path / "mine.txt"), pairs_of)
    assert ("a", "mat") in pairs and ("mat", "a") not in pairs
    parts, known, of = lit("mat a cat sat the on a", pairs)
    assert [text for text, look in parts if look == LIT] == ["cat", "sat", "on", "a"]
    assert (known, of) == (4, 7)


@pytest.mark.parametrize("steps, first, middle", [(0, False, False), (50, True, False), (100, True, True)])
def test_no_sample_is_shown_twice_while_there_are_few(root, fake, steps, first, middle):
    folder = make_run(root / "mine", steps, end="", most=400)

    async def script(pilot):
        await until(pilot, lambda: pilot.app.chosen and pilot.app.chosen.samples)
        await pilot.press("t")
        await sees(pilot, f"{steps // 50 + 1} of {steps // 50 + 1}")
        assert shows(pilot, "─ first ─") == first and shows(pilot, "─ middle ─") == middle

    drive(tui.Tui(root, folder, gpt=fake), script, (140, 40))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_where_nothing_can_be_read_nothing_breaks(tmp_path, root, fake):
    os.mkfifo(tmp_path / "pipe")
    assert "Python's manual" in vocabulary(str(tmp_path / "pipe"))[1]

    async def script(pilot):
        await ready(pilot)
        box = Browse()
        pilot.app.push_screen(box)
        await sees(pilot, "pipe")
        assert box.first_lines(tmp_path / "pipe") == "no file to read"
        assert box.first_lines(tmp_path / "gone") == "no file to read"
        (tmp_path / "bytes").write_bytes(b"a\0b")
        assert box.first_lines(tmp_path / "bytes") == "no text"
        box.open(tmp_path / "gone")
        assert box.folder == tmp_path

    drive(tui.Tui(root, gpt=fake), script)


@pytest.mark.parametrize(
    "size", [(140, 40), *[pytest.param(size, marks=pytest.mark.slow) for size in ((80, 24), (60, 16))]]
)
def test_samples_are_stepped_through_played_and_slid(root, fake, size):
    folder = make_run(root / "mine", 200, end="", most=400)

    async def script(pilot):
        app = pilot.app
        await until(pilot, lambda: app.chosen and app.chosen.state == "training")
        await pilot.press("t")
        lapse = app.page.query_one(TimeLapse)
        await sees(pilot, "step 200 · loss ", "5 of 5", "lit", "sample 200")
        assert shows(pilot, "sample 0 ") == (size[1] > 16)
        assert shows(pilot, "sample 100 ") == (size[0] > 112)  # the middle, where there is room
        await sees(pilot, "words of 3 letters or more from")
        await pilot.press("left", "left_square_bracket")
        await sees(pilot, "step 100 · loss ", "3 of 5", "sample 100")
        await pilot.click(Slider, offset=(1, 2))
        await sees(pilot, "1 of 5")
        await pilot.press("space")
        await until(pilot, lambda: lapse.at == 4 and not lapse.timer)
        write_lines(folder, [{"kind": "sample", "step": 250, "text": "one more"}], "a")
        await sees(pilot, "6 of 6", "one more")  # who looks at the newest goes on to do so
        await pilot.press("home", "escape")
        await until(pilot, lambda: not shows(pilot, "words of 3 letters"))

    drive(tui.Tui(root, folder, gpt=fake), script, size)


@pytest.mark.parametrize("steps", [0, 200])
def test_the_samples_of_another_run_are_gone(root, fake, steps):
    folder = make_run(root / "mine", steps, end="", most=400)

    async def script(pilot):
        app = pilot.app
        await until(pilot, lambda: app.chosen and app.chosen.samples)
        await pilot.press("t")
        await sees(pilot, f"sample {steps} ", "lit")
        app.launch(root / "new", ["--out_dir", str(root / "new")])
        await sees(pilot, "No sample yet")
        assert not shows(pilot, "sample 0") and not shows(pilot, "of 1") and not shows(pilot, "loss 4.")
        await pilot.press("space", "left", "right", "home", "end")
        lapse = app.page.query_one(TimeLapse)
        level = lambda: app.chosen.part("train").get("level")  # noqa: E731
        await until(pilot, lambda: app.chosen.start and lapse.about[2] == level())
        app.chosen.process.kill()

    drive(tui.Tui(root, folder, gpt=fake), script, (140, 40))


# ---- Runs --------------------------------------------------------------------------------------------------


def names(app):
    table = app.page.query_one("#table", DataTable)
    return [Path(row.value).name for row in table.rows]


async def listing(pilot, *expected):
    "Go to Runs and wait until these are listed, in this order."
    await pilot.press("f4")
    await until(pilot, lambda: names(pilot.app) == list(expected))


def test_runs_are_sorted_filtered_overlaid_renamed_copied_and_deleted(root, fake):
    make_run(root / "a", 300, age=100)
    make_run(root / "c", 100, age=10, end="")

    async def script(pilot):
        app = pilot.app
        await ready(pilot)
        recipe = app.catalog.recipe("nano", "word")
        rates = {name: recipe[name] for name in ("learning_rate", "muon_lr")}
        make_run(root / "b", 500, age=50, level="word", max_iters=123, **rates)
        await pilot.press("3")
        await until(pilot, lambda: names(app) == ["c", "b", "a"])
        await pilot.press("s")
        await until(pilot, lambda: names(app) == ["a", "b", "c"])
        await pilot.press("S")
        await until(pilot, lambda: names(app) == ["c", "b", "a"])
        app.page.by, app.page.backwards = "best", False
        app.page.show()
        assert names(app) == ["b", "a", "c"]
        await pilot.press("slash", *"word", "enter")
        await until(pilot, lambda: names(app) == ["b"])
        await pilot.press("w")
        expected = {"python", "gpt.py", "train", "--preset=nano", "--level=word", "--max_iters=123"}
        await until(pilot, lambda: set(app.clipboard.split()) == expected)
        await pilot.press("escape")
        await until(pilot, lambda: len(names(app)) == 3)
        await pilot.press("home", "space", "down", "space")
        await until(pilot, lambda: [f.name for f in app.page.marked] == ["b", "a"])
        await until(
            pilot,
            lambda: (
                [c.name for c in app.page.query_one(Chart).curves] == ["b", "a"]
                and shows(pilot, "a b", "b a")
            ),
        )
        await pilot.press("v")
        await pilot.press("d")
        await sees(pilot, "Delete b, a")
        await pilot.press("escape")
        await until(pilot, lambda: len(names(app)) == 3)
        await pilot.press("d")
        await sees(pilot, "Delete b, a")
        (root / "a" / "precious.txt").write_text("not ours")
        await pilot.press("x")
        await until(pilot, lambda: not (root / "b").exists())
        assert (root / "a" / "precious.txt").exists()
        await until(pilot, lambda: names(app) == ["c"])
        await pilot.press("d")
        await sees(pilot, "c is running: stop it first")
        (root / "c" / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines_of(100)))
        await until(pilot, lambda: app.runs[root / "c"].state == "done")
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, Enter))
        await pilot.press("slash")
        await sees(pilot, "a name without")
        await pilot.press("backspace", "backspace", *"new", "enter")
        await until(pilot, lambda: names(app) == ["new"])
        assert (root / "new" / "metrics.jsonl").exists()
        await pilot.press("enter")
        await until(pilot, lambda: app.current_mode == "watch" and shows(pilot, "new"))

    drive(tui.Tui(root, gpt=fake), script, notifications=True)


def test_any_metric_is_shown_large_along_any_axis(root, fake):
    make_run(root / "a", 300)

    async def script(pilot):
        page = pilot.app.page
        chart = page.query_one(Chart)
        await sees(pilot, "▒ each reading", "━ train, smoothed", "steps")
        seen = []
        for _ in page.METRICS:
            seen.append((page.metric, len(chart.curves)))
            await pilot.press("v")
        assert page.metric == "loss" and all(curves for _, curves in seen) and len(seen) == 6
        await pilot.press("V")
        await sees(pilot, "━ tokens a second")
        await pilot.press("a")
        await sees(pilot, "tokens")
        assert chart.span() == (10 * 4096, 300 * 4096)
        await pilot.press("a")
        assert chart.span() == (pytest.approx(0.005), pytest.approx(0.15))

    drive(tui.Tui(root, root / "a", gpt=fake), script)


def test_runs_tell_in_what_they_differ_and_the_one_here_stands_out(root, fake):
    make_run(root / "a", 300, learning_rate=0.001)
    make_run(root / "b", 300, age=9, preset="micro")
    make_run(root / "c", 300, age=99)

    async def script(pilot):
        await pilot.press("f4")
        await until(pilot, lambda: len(pilot.app.page.listed) == 3)
        page = pilot.app.page
        await pilot.press("space", "down", "space")
        await sees(pilot, "they differ in", "learning_rate", "0.001", "0.006", "preset", "micro")
        chart = page.query_one(Chart)
        assert [(curve.name, curve.look) for curve in chart.curves] == [("a", "line"), ("b", "strong")]
        await pilot.press("up")
        await until(pilot, lambda: [curve.name for curve in chart.curves] == ["b", "a"])
        await sees(pilot, "a a  b b")  # the legend keeps its order
        await pilot.press("space", "space", "v", "a")
        await sees(pilot, "training loss, smoothed, by tokens")

    drive(tui.Tui(root, gpt=fake), script)


@pytest.mark.parametrize("key, mode", [("c", "f3"), ("s", "f3"), ("s", "f4")])
def test_what_the_chart_shows_is_exported(root, fake, key, mode):
    make_run(root / "a <b>", 300)

    async def script(pilot):
        await until(pilot, lambda: pilot.app.chosen)
        await pilot.press(mode)
        await until(pilot, lambda: pilot.app.page.query_one(Chart).curves)
        await pilot.press("e")
        await sees(pilot, "export what is shown")
        await pilot.press(key)
        await until(pilot, lambda: list(root.glob("chart-a <b>-2*")))
        text = next(root.glob("chart-*")).read_text()
        if key == "c":
            assert text.startswith("curve,steps,value,low,high\neach reading,10,")
            assert len(text.splitlines()) == 1 + 30 + 30 + 7
        else:
            ElementTree.fromstring(text)
            assert ("val" if mode == "f3" else "a &lt;b&gt;") in text and "steps" in text

    drive(tui.Tui(root, gpt=fake), script)


def test_the_folder_of_the_runs_is_made_for_an_export(root, fake):
    make_run(root.parent / "elsewhere")

    async def script(pilot):
        app = pilot.app
        await until(pilot, lambda: app.page.query_one(Chart).curves)
        await pilot.press("e")
        await sees(pilot, "export what is shown")
        await pilot.press("c")
        await until(pilot, lambda: list(root.glob("chart-elsewhere-*.csv")))
        shutil.rmtree(root)
        root.touch()
        await pilot.press("e")
        await sees(pilot, "export what is shown")
        await pilot.press("c")
        await until(pilot, lambda: any(str(root) in note.message for note in app._notifications))

    drive(tui.Tui(root, root.parent / "elsewhere", gpt=fake), script, notifications=True)


def test_no_key_is_promised_for_a_run_from_elsewhere(root, fake):
    elsewhere = root.parent / "elsewhere"
    make_run(elsewhere / "mine")
    (elsewhere / "mine" / "events.out.tfevents.1.host").touch()

    async def script(pilot):
        app = pilot.app
        await pilot.press("f4")
        await until(pilot, lambda: names(app) == ["mine"])
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, Ask))
        assert app.screen.answers["y"] == f"move to {elsewhere / '.trash'}"
        await pilot.press("x")
        await until(pilot, lambda: not (elsewhere / "mine").exists())

    drive(tui.Tui(root, elsewhere / "mine", gpt=fake), script)


def test_what_is_deleted_can_be_brought_back(root, fake):
    make_run(root / "a")
    make_run(root / "b", age=9)
    make_run(root / "c", age=99)

    async def script(pilot):
        app = pilot.app
        await listing(pilot, "a", "b", "c")
        await pilot.press("space", "down", "space", "d")
        await sees(pilot, "u brings it back")
        await pilot.press("y")
        await until(pilot, lambda: names(app) == ["c"])
        assert len(list((root / ".trash").iterdir())) == 2 and not (root / "a").exists()
        await sees(pilot, "u Undo v Metric")
        await pilot.press("u")
        await until(pilot, lambda: sorted(names(app)) == ["a", "b", "c"])
        assert (root / "a/best.pt").exists() and not list((root / ".trash").iterdir())
        await until(pilot, lambda: not shows(pilot, "u Undo"))
        await pilot.press("g", "d", "y")
        await until(pilot, lambda: len(names(app)) == 2)
        gone = next((root / ".trash").iterdir()).name.split(".")[1]
        make_run(root / gone)  # in the meantime there is one of that name
        await pilot.press("u")
        await until(pilot, lambda: len(names(app)) == 3)
        assert list((root / ".trash").iterdir())
        await pilot.press("U")
        await sees(pilot, "Delete for good", "one run")
        await pilot.press("x")
        await until(pilot, lambda: not list((root / ".trash").iterdir()))
        assert not app.page.check_action("empty", ())

    drive(tui.Tui(root, gpt=fake), script)


def test_the_last_run_deleted_comes_back_from_another_screen(root, fake):
    make_run(root / "a")

    async def script(pilot):
        app = pilot.app
        await listing(pilot, "a")
        await pilot.press("d", "y")
        await sees(pilot, "No runs yet")
        await pilot.press("f5")
        await sees(pilot, "No model yet")
        await pilot.press("f4")
        await sees(pilot, "No runs yet", "u Undo")
        assert not isinstance(app.focused, Input)
        await pilot.press("u")
        await until(pilot, lambda: names(app) == ["a"])
        await pilot.press("enter")
        await until(pilot, lambda: app.current_mode == "watch")

    drive(tui.Tui(root, gpt=fake), script)


def test_a_filter_that_leaves_nothing_says_so(root, fake):
    make_run(root / "a")

    async def script(pilot):
        app = pilot.app
        await listing(pilot, "a")
        await pilot.press("slash", *"zzz")
        await sees(pilot, "Nothing matches zzz. esc shows all")
        assert not app.page.query_one(Chart).display
        await pilot.press("enter", "escape")
        await until(pilot, lambda: names(app) == ["a"] and app.page.query_one(Chart).display)

    drive(tui.Tui(root, gpt=fake), script)


def test_all_runs_are_seen_in_the_smallest_terminal(root, fake):
    for name in "nano-char-of-a-rather-long-name", "b":
        make_run(root / name, 12340, most=20000, end="stopped")

    async def script(pilot):
        await pilot.press("f4")
        table = pilot.app.page.query_one(DataTable)
        await until(pilot, lambda: len(names(pilot.app)) == 2)
        assert table.scrollable_content_region.height == 3
        assert table.virtual_size.width <= 60 and shows(pilot, "…", "when▼")

    drive(tui.Tui(root, gpt=fake), script, (60, 16))


def test_what_does_not_compare_is_named_and_not_gone_through(root, fake):
    make_run(root / "c", 100)
    folder = make_run(root / "w", 100, age=9, level="word")
    write_lines(folder, [{**line, "bits_per_byte": None} for line in lines_of(100, level="word")])

    async def script(pilot):
        app = pilot.app
        await pilot.press("f4")
        await until(pilot, lambda: set(names(app)) == {"c", "w"})
        letter = "ab"[names(app).index("w")]
        await pilot.press("home", "space", "down", "space")
        title = f"bits per byte, by steps · {letter}: words have none · only bytes compare──"
        await sees(pilot, title)
        await pilot.press("v")
        await sees(pilot, "gradient norm, by steps──")
        await pilot.press("V", "V")
        await sees(pilot, "tokens a second, by steps──")
        await pilot.press("v")
        await sees(pilot, f"bits per byte, by steps · {letter}: words have none──")
        await pilot.press("space", "V")
        await sees(pilot, "training loss, smoothed, by steps──")

    drive(tui.Tui(root, gpt=fake), script)


def test_advice_for_a_shell_is_given_in_keys(root, fake):
    text = "2 threads take 9 times as long as one here. Ctrl-C saves and stops; then type: python --threads 1"
    folder = make_run(root / "mine", 50, end="", most=400)
    write_lines(folder, [{"kind": "warn", "text": text}], "a")
    launched = []

    async def script(pilot):
        app = pilot.app
        app.launch = lambda folder, flags: launched.append(flags)
        await sees(pilot, "s saves and stops; then r goes")
        assert not shows(pilot, "Ctrl-C")
        write_lines(folder, [{"kind": "end", "step": 50, "reason": "stopped", "message": ""}], "a")
        await until(pilot, lambda: not shows(pilot, "as long as one"))
        await pilot.press("r")
        assert launched == [["--resume", str(folder), "--threads=1"]]

    drive(tui.Tui(root, folder, gpt=fake), script)


def test_a_loss_that_is_no_number_is_told_at_once(root, fake):
    folder = make_run(root / "mine", 50, end="", most=400)
    write_lines(folder, [{"kind": "step", "step": 60, "loss": None}], "a")

    async def script(pilot):
        await sees(pilot, "The loss is no number any more")

    drive(tui.Tui(root, folder, gpt=fake), script)


def test_an_untrained_best_checkpoint_is_not_talked_to(root):
    app = tui.Tui(root)
    for steps, name in (0, "latest.pt"), (50, "best.pt"):
        folder = make_run(root / f"to-{steps}", steps)
        (folder / "best.pt").touch()
        (folder / "latest.pt").touch()
        run = Run(folder)
        run.poll()
        assert app.file_of(run, "best.pt") == folder / name


def test_the_end_of_a_run_is_told(root, fake, monkeypatch):
    make_run(root / "mine", 200, end="", most=400)
    told = []
    monkeypatch.setattr(tui.Tui, "tell_the_terminal", lambda app, text: told.append(text))

    async def script(pilot):
        app = pilot.app
        await sees(pilot, "training")
        assert told == ["\x1b]2;50% mine\a"]
        await pilot.press("f10")
        assert app.notices == "notice"
        write_lines(root / "mine", [{"kind": "end", "step": 210, "reason": "done"}], "a")
        await until(pilot, lambda: len(told) == 3)
        assert told[1:] == ["\x1b]9;mine: done, val 2.675\a", "\x1b]2;gpt\a"]
        await sees(pilot, "mine: done, val")
        await pilot.press("f10")
        assert app.notices == "off"

    drive(tui.Tui(root, root / "mine", gpt=fake), script, notifications=True)


@pytest.mark.parametrize("size", [pytest.param((80, 24), marks=pytest.mark.slow), (140, 40)])
def test_the_log_can_be_searched(root, fake, size):
    folder = make_run(root / "mine")
    lines = [f"step {n} {'needle' if n % 100 == 7 else 'hay'} {'word ' * 18}" for n in range(250)]
    (folder / "train.log").write_text("\n".join([*lines, "ValueError: no"]))

    async def script(pilot):
        page = pilot.app.page
        await sees(pilot, "done")
        await pilot.press("slash", *"NEEdle", "enter")
        await sees(pilot, "step 207 needle", "3 of 3 lines")
        await pilot.press("n")  # and around
        await sees(pilot, "step 7 needle", "1 of 3 lines")
        await pilot.press("N", "N")
        await sees(pilot, "step 107 needle", "2 of 3 lines")
        await pilot.press("escape")
        await until(pilot, lambda: not page.query_one("#find").display)
        await pilot.press("slash", *"nowhere", "enter")
        await sees(pilot, "– of 0 lines")

    drive(tui.Tui(root, root / "mine", gpt=fake), script, size)


def test_the_found_line_stays_while_the_log_grows(root, fake):
    folder = make_run(root / "mine")
    lines = [f"step {n} {'needle' if n % 100 == 7 else 'hay'}" for n in range(300)]
    (folder / "train.log").write_text("\n".join(lines))

    async def script(pilot):
        page = pilot.app.page
        await sees(pilot, "done")
        await pilot.press("slash", *"needle", "enter", "N")
        await sees(pilot, "2 of 3 lines")
        assert page.hit_line == "step 107 needle"
        lines.extend(f"step {n} hay" for n in range(300, 350))
        (folder / "train.log").write_text("\n".join(lines))
        await sees(pilot, "1 of 2 lines")  # the first is not among the last 300 any more
        assert page.hit == 57

    drive(tui.Tui(root, root / "mine", gpt=fake), script, (140, 40))


def test_the_time_lapse_leaves_alone_what_it_covers(root, fake):
    make_run(root / "mine")

    async def script(pilot):
        page = pilot.app.page
        await sees(pilot, "done")
        await pilot.press("t")
        await until(pilot, lambda: page.query_one(TimeLapse).has_focus)
        await pilot.press("slash", "l", "v", "x", "plus")
        await pilot.pause()
        chart = page.query_one(Chart)
        assert page.query_one(TimeLapse).has_focus and not page.query_one("#find").display
        assert not page.query("#watch.-log") and page.metric == "loss" and not chart.log_x and not chart.view
        await pilot.press("t", "v")
        assert page.metric != "loss"

    drive(tui.Tui(root, root / "mine", gpt=fake), script)


def test_gpus_are_watched_where_there_are_some(root, fake, monkeypatch, tmp_path):
    assert tui.gpus_at_work() == [] or shutil.which("nvidia-smi")
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '0, 97, 12345, 24576, 71, 320.5'\necho rubbish\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert tui.gpus_at_work() == ["GPU 0  97 %  12/24 GB  71 °C  320.5 W"]
    folder = root / "mine"
    folder.mkdir(parents=True)
    start, *rest = lines_of(100, end="")
    write_lines(folder, [{**start, "device": "cuda:0"}, *rest])

    make_run(root / "other", end="", age=9)  # on a CPU

    async def script(pilot):
        await sees(pilot, "GPU 0  97 %  12/24 GB  71 °C")
        pilot.app.look_at(root / "other")
        await until(pilot, lambda: shows(pilot, "other", "● training", "cpu"))
        await until(pilot, lambda: not shows(pilot, "GPU 0"), seconds=3)

    drive(tui.Tui(root, folder, gpt=fake), script, (140, 40))


def test_no_runs_yet(root, fake):
    async def script(pilot):
        await ready(pilot)
        for key, words in (("2", "Nothing to watch yet"), ("3", "No runs yet"), ("4", "No model yet")):
            await pilot.press(key)
            await sees(pilot, words)

    drive(tui.Tui(root, gpt=fake), script)


def test_a_mark_survives_another_name(root, fake):
    for name in "ab":
        make_run(root / name, 100)

    async def script(pilot):
        app = pilot.app
        await pilot.press("3")
        await until(pilot, lambda: len(names(app)) == 2)
        await pilot.press("home", "space", "down", "space", "n")
        await until(pilot, lambda: isinstance(app.screen, Enter))
        await pilot.press("!", "enter")
        await until(pilot, lambda: any(name.endswith("!") for name in names(app)))
        assert {folder.name for folder in app.page.marked} == set(names(app))
        await until(pilot, lambda: len(app.page.query_one(Chart).curves) == 2)

    drive(tui.Tui(root, gpt=fake), script)


def test_the_keys_of_the_list_are_said(root, fake):
    make_run(root / "a", 100)
    make_run(root / "b", 100, level="word")

    async def script(pilot):
        app = pilot.app
        await pilot.press("3")
        await sees(pilot, "⏎ Watch", "n Rename", "validation loss, by step")
        await pilot.press("v")
        await sees(pilot, "training loss, smoothed, by step")
        await pilot.press("home", "space", "down", "space")  # of different levels: only bytes compare
        await sees(pilot, "bits per byte, by step", "only bytes compare")
        table = app.page.query_one("#table", DataTable)
        await pilot.press("home")
        assert table.cursor_row == 0
        await pilot.press("G")
        assert table.cursor_row == 1
        await pilot.press("question_mark")
        await sees(pilot, "⏎  Watch")
        assert not shows(pilot, "Page Left")

    drive(tui.Tui(root, gpt=fake), script)


# ---- Talk: without any widget ------------------------------------------------------------------------------


class Heard:
    "What a model said, in order."

    def __init__(self):
        self.answers = []

    def __call__(self, kind, answer):
        self.answers.append((kind, answer))

    def until(self, kind, seconds=10):
        "Wait for an answer of this kind and take it and those before it. -> the answer"
        for _ in range(int(seconds * 100)):
            for i, (found, answer) in enumerate(self.answers):
                if found == kind:
                    del self.answers[: i + 1]
                    return answer
            time.sleep(0.01)
        raise AssertionError(f"no {kind} among {self.answers}")


def test_talk_loads_says_stops_and_is_killed(fake):
    heard = Heard()
    talk = Talk(fake, heard)
    assert not talk.is_alive
    talk.kill()  # there is nothing to kill yet
    talk.load("one.pt")
    assert heard.until("ready")["model"] == "one.pt"
    talk.say(id=1, prompt="Once", max_new_tokens=3)
    assert heard.until("piece") == {
        "kind": "piece",
        "id": 1,
        "text": " w0",
        "token": 0,
        "prob": 0,
        "alternatives": [[" the", 0.5]],
    }
    assert heard.until("done")["reason"] == "length"
    talk.say(id=2, prompt="Once", max_new_tokens=2000)
    heard.until("piece")
    talk.stop(2)
    assert heard.until("done")["reason"] == "stop"
    process = talk.process
    talk.load("bad.pt")
    assert heard.until("error")["message"] == "no checkpoint of gpt.py"
    talk.load("two.pt")
    assert heard.until("ready")["model"] == "two.pt"
    assert talk.process is process
    talk.kill()
    assert "status" in heard.until("gone")["message"]
    assert not talk.is_alive
    talk.say(id=3, prompt="nobody listens")  # and nothing breaks
    talk.load("three.pt")
    assert heard.until("ready")["model"] == "three.pt"
    assert talk.process is not process
    talk.kill()


def test_talk_says_why_it_does_not_start(fake):
    heard = Heard()
    talk = Talk(fake, heard)
    talk.load("broken.pt")
    assert heard.until("gone")["message"] == "error: broken.pt is no checkpoint"


# ---- Chat --------------------------------------------------------------------------------------------------


def asked(root):
    return [json.loads(line) for line in (root.parent / "asked").read_text().splitlines()]


async def talking(pilot):
    await pilot.press("f5")
    await until(pilot, lambda: pilot.app.page.ready)
    await pilot.press(*"Once", "enter")
    await sees(pilot, "Once w0")


async def quiet(pilot, count=1):
    "The model has answered the question of that number."
    await until(pilot, lambda: pilot.app.page.count == count and not pilot.app.page.busy)


@pytest.mark.parametrize("size", [(80, 24), pytest.param((140, 40), marks=pytest.mark.slow)])
def test_chat_streams_stops_and_tries_again(root, fake, size):
    make_run(root / "mine")

    async def script(pilot):
        app = pilot.app
        await until(pilot, lambda: app.chosen)
        app.settings["sampling"] = {"max_new_tokens": "2000"}  # it is stopped in the midst of it
        await talking(pilot)
        page = app.page
        await sees(pilot, "writing, esc stops")
        await pilot.press("escape")
        await quiet(pilot)
        await sees(pilot, "stop")
        assert len(page.turns[0].tokens) < 2000
        page.query_one("#max_new_tokens", Knob).value = "25"
        page.query_one("#seed", Knob).value = "7"
        await pilot.press("ctrl+r")
        await quiet(pilot, 2)
        assert asked(root)[1] | {"id": 0} == {
            "id": 0,
            "prompt": "Once",
            "probs": True,
            "temperature": 0.8,
            "top_k": 0,
            "top_p": 0.95,
            "min_p": 0,
            "repetition_penalty": 1,
            "max_new_tokens": 25,
            "seed": 7,
        }
        await until(
            pilot, lambda: shows(pilot, "25 tokens · 99 tokens/s · T 0.8 · top-p 0.95 · seed 7", "25/64")
        )
        await pilot.press("ctrl+g")  # it goes on from all there is
        await quiet(pilot, 3)
        assert asked(root)[2]["prompt"].startswith("Once w0 w1") and len(page.turns[0].tokens) == 50
        await pilot.press("up", "!", "enter")  # edit and send again
        await quiet(pilot, 4)
        assert asked(root)[3]["prompt"] == "Once!" and len(page.turns) == 1
        await pilot.press("ctrl+s")
        await until(pilot, lambda: list((root / "mine").glob("chat-*.json")))
        saved = list((root / "mine").glob("chat-*.txt"))
        assert saved[0].read_text().startswith("Once! w0 w1")
        assert json.loads(saved[0].with_suffix(".json").read_text())["turns"][0]["settings"]["seed"] == 7
        assert json.loads(saved[0].with_suffix(".json").read_text())["turns"][0]["model"].endswith("best.pt")
        await pilot.press("escape", "y")
        assert app.clipboard.startswith(" w0 w1")
        page.query_one("#mode", Knob).value = "dialogue"
        await pilot.press("escape", "H", "i", "ctrl+j", "enter")
        await quiet(pilot, 5)
        last = asked(root)[4]
        assert last["prompt"].startswith("Once! w0")
        assert last["prompt"].endswith("\n\nUser: Hi\n\n\nAssistant:")
        assert last["stop"] == "User:"

    drive(tui.Tui(root, gpt=fake), script, size)


def test_xray_shows_what_else_could_have_stood_there(root, fake):
    make_run(root / "mine")

    async def script(pilot):
        await until(pilot, lambda: pilot.app.chosen)
        pilot.app.settings["sampling"] = {"max_new_tokens": "30"}
        await talking(pilot)
        await quiet(pilot)
        await pilot.press("ctrl+l")
        await sees(pilot, "w29\\n 90.0%", "instead: ␣the 50.0%", "surely")  # of what came last
        await pilot.press("left")
        assert pilot.app.page.turns[0].at == 29
        await pilot.press("escape", "escape", "x", "x")
        await pilot.press("right", "right", "right", "right")
        await until(pilot, lambda: shows(pilot, "␣w3 30.0%") and pilot.app.page.turns[0].at == 3)
        line = next(i for i, text in enumerate(screen(pilot.app).split("\n")) if "Once w0 w1" in text)
        column = screen(pilot.app).split("\n")[line].index("w7")
        await pilot.hover(offset=(column, line))
        await sees(pilot, "␣w7 70.0%")
        await pilot.press("x")
        await until(pilot, lambda: not shows(pilot, "instead"))

    drive(tui.Tui(root, gpt=fake), script)


def test_where_there_is_room_it_is_shown_what_a_token_was_chosen_among(root, fake):
    make_run(root / "mine")

    async def script(pilot):
        app = pilot.app
        await until(pilot, lambda: app.chosen)
        app.settings["sampling"] = {"max_new_tokens": "30"}
        await pilot.press("f5")
        await sees(pilot, "its choices")
        await talking(pilot)
        await quiet(pilot)
        lines = screen(app).split("\n")
        rows = {"last choice": "token 30", "  ␣the": "50.0%", "▸ ␣w29": "90.0%", "all others": " 0.0%"}
        for name, value in rows.items():
            assert any(name in line and value in line for line in lines)
        await sees(pilot, "loss, of what it says here", fixed(app.page.voice.file[1]))
        await pilot.press("ctrl+l", *["left"] * 5)
        await sees(pilot, "its choice ", "token 26", "▸ ␣w25")
        await pilot.resize_terminal(140, 37)
        await until(pilot, lambda: not shows(pilot, "its choice "))

    drive(tui.Tui(root, gpt=fake), script, (140, 40))


def test_chat_survives_models_that_fail(root, fake):
    make_run(root / "broken")
    make_run(root / "good", age=9)
    make_run(root / "bad", age=99)

    async def script(pilot):
        app = pilot.app
        await until(pilot, lambda: app.chosen)
        await pilot.press("f5")
        await sees(pilot, "is no checkpoint")
        await pilot.press("ctrl+o", *"good best", "enter")
        await until(pilot, lambda: app.page.ready)
        await pilot.press("ctrl+o", *"bad best", "enter")
        await sees(pilot, "no checkpoint of gpt.py")
        await pilot.press("ctrl+o", *"good latest", "enter")
        await until(pilot, lambda: app.page.ready)
        await pilot.press(*"deaf", "enter")  # does not listen: after two seconds it is ended
        await sees(pilot, "deaf w0")
        app.page.query_one("#max_new_tokens", Knob).value = "2000"
        await pilot.press("escape")
        await quiet(pilot)

    drive(tui.Tui(root, gpt=fake), script)


def test_an_edit_can_be_called_off(root, fake):
    make_run(root / "mine")

    async def script(pilot):
        app = pilot.app
        await talking_a_little(pilot)
        page = app.page
        count = 1
        for keys in ["backspace"] * 4, ["escape", "escape"], ["ctrl+r"], ["ctrl+g"], ["escape", "e", "escape"]:
            await pilot.press("up")
            await sees(pilot, "replaces the last answer")
            await pilot.press(*keys)
            await until(pilot, lambda: not page.editing and not shows(pilot, "replaces the last answer"))
            count += keys[0].startswith("ctrl")
            await quiet(pilot, count)
            page.query_one(Prompt).text = ""
            page.query_one(Prompt).focus()
        await pilot.press(*"More", "enter")
        await quiet(pilot, count + 1)
        assert [turn.shown for turn in page.turns] == ["Once", "More"]
        await pilot.press("up", "!", "enter")
        await quiet(pilot, count + 2)
        assert [turn.shown for turn in page.turns] == ["Once", "More!"]
        assert not shows(pilot, "replaces the last answer")

    drive(tui.Tui(root, gpt=fake), script)


def test_a_model_whose_process_ended_says_so_below_and_is_loaded_again(root, fake):
    make_run(root / "mine")

    async def script(pilot):
        app = pilot.app
        await talking_a_little(pilot)
        page = app.page
        for count in range(2, 6):  # longer than the screen
            await pilot.press(*"More", "enter")
            await quiet(pilot, count)
        page.voice.talk.kill()
        await sees(pilot, "It does not work", "enter loads it again")
        await pilot.press(*"Again", "enter")
        await quiet(pilot, 6)
        assert page.turns[-1].shown == "Again" and len(page.turns[-1].tokens) == 12
        await until(pilot, lambda: not shows(pilot, "It does not work"))
        page.voice.hear("error", {"message": "too long a text"})
        await sees(pilot, "too long a text")
        assert not shows(pilot, "another one")

    drive(tui.Tui(root, gpt=fake), script)


def test_the_header_tells_of_the_file_and_not_of_the_run(root, fake):
    folder = make_run(root / "mine", 300)
    write_lines(folder, [{"kind": "eval", "step": 350, "val_loss": 9}], "a")
    write_lines(folder, [{"kind": "end", "step": 350, "reason": "done"}], "a")

    async def script(pilot):
        app = pilot.app
        await until(pilot, lambda: app.chosen)
        await pilot.press("f5")
        await sees(pilot, "mine best.pt", "step 300 · val 2.456")
        await pilot.press("ctrl+o", *"latest", "enter")
        await sees(pilot, "mine latest.pt", "step 350 · val 9.000")

    drive(tui.Tui(root, gpt=fake), script)


def test_what_is_typed_while_the_model_loads_is_sent(root, fake):
    make_run(root / "slow")

    async def script(pilot):
        await until(pilot, lambda: pilot.app.chosen)
        pilot.app.settings["sampling"] = {"max_new_tokens": "20"}
        await pilot.press("f5")
        await until(pilot, lambda: pilot.app.page.query_one(Prompt).has_focus)
        await pilot.press(*"Once", "enter")
        await sees(pilot, "What you typed is sent")
        await sees(pilot, "Once w0")

    drive(tui.Tui(root, gpt=fake), script)


def test_the_xray_forgets_a_token_that_is_gone(root, fake):
    make_run(root / "mine")

    async def script(pilot):
        await until(pilot, lambda: pilot.app.chosen)
        pilot.app.settings["sampling"] = {"max_new_tokens": "20"}
        await talking(pilot)
        await quiet(pilot)
        page = pilot.app.page
        await pilot.press("ctrl+l", "right", "right")
        await sees(pilot, "␣w1 10.0%")
        await pilot.press("ctrl+r")
        await quiet(pilot, 2)
        assert page.turns[0].at is None
        await sees(pilot, "␣w19\\n 90.0%")  # what came last
        page.peek(Token(" a", 0.4, [(" a", 0.4), (" b", 0.3)]))
        assert shown(page, "#peek").startswith("␣a 40.0%   instead: ␣b 30.0%")

    drive(tui.Tui(root, gpt=fake), script)


async def talking_a_little(pilot):
    await until(pilot, lambda: pilot.app.chosen)
    pilot.app.settings["sampling"] = {"max_new_tokens": "12", "seed": "7"}
    await talking(pilot)
    await quiet(pilot)


@pytest.mark.parametrize("size", [(60, 16), pytest.param((80, 24), marks=pytest.mark.slow), (140, 40)])
def test_one_can_look_inside_a_token(root, fake, size):
    make_run(root / "mine")

    async def script(pilot):
        page = pilot.app.page
        await talking_a_little(pilot)
        page = pilot.app.page
        inside = page.query_one(Inside)
        await pilot.press("ctrl+l", "f7")
        await until(pilot, lambda: inside.found and page.turns[0].at == 11)
        assert asked(root)[-1]["inside"] == list(range(12))
        assert asked(root)[-1]["prompt"] == "Once"
        await pilot.press("left", "left")
        await until(pilot, lambda: asked(root)[-1]["inside"] == list(range(10)) and len(inside.texts) == 13)
        turn = page.turns[0]
        await until(pilot, lambda: turn.looks.get(8) == 0.91 and turn.looks[7] == 0.01)
        assert turn.asked_looks == [(letter, 0.01) for letter in "Once"]
        await sees(pilot, "␣w9", "a layer says", "␣g0", "25.0%", "a head looks at", "▸ 1")
        await pilot.press("l")
        await sees(pilot, "▸ 2 ␣g1", "50.0%")
        await pilot.press("h")
        assert turn.looks[7] == 0.91 and turn.looks[8] == 0.01
        await pilot.press("H", "L", "L")
        assert (inside.at_head, inside.at_layer) == (0, 1)
        await pilot.press("ctrl+g")  # a second request, whose tokens come after what it was sent
        await quiet(pilot, 2)
        await pilot.press("left")
        await until(pilot, lambda: asked(root)[-1].get("inside") == list(range(12)))
        assert asked(root)[-1]["prompt"] == "Once" + turn.text(0, 12)
        await until(pilot, lambda: inside.found)
        await pilot.press("i")
        assert not turn.looks and not inside.display

    drive(tui.Tui(root, gpt=fake), script, size)


def test_where_one_cannot_look_inside_it_is_said_why(root, fake):
    make_run(root / "mine")
    make_run(root / "other", age=9)

    async def script(pilot):
        await talking_a_little(pilot)
        page = pilot.app.page
        await pilot.press("ctrl+l", "i")
        inside = page.query_one(Inside)
        await until(pilot, lambda: inside.found)
        page.turns[0].tokens[5] = page.turns[0].tokens[5]._replace(id=None)
        page.point(page.turns[0], 5)
        assert "rest of a character" in shown(page, "#inside")
        await pilot.press("ctrl+o", *"other best", "enter")
        await until(pilot, lambda: page.ready and "other" in page.ready["model"])
        await pilot.press("left")
        assert "another model" in shown(page, "#inside")
        await pilot.press("escape", *"Twice", "enter")
        await quiet(pilot, 2)
        await pilot.press("escape", "left")
        await sees(pilot, "no look today")

    drive(tui.Tui(root, gpt=fake), script)


@pytest.mark.parametrize("size", [pytest.param((60, 16), marks=pytest.mark.slow), (140, 40)])
def test_two_answer_the_same_at_once(root, fake, size):
    make_run(root / "mine")

    async def script(pilot):
        await talking_a_little(pilot)
        page = pilot.app.page
        await pilot.press("f6")
        await sees(pilot, "who answers beside it", "at another temperature", "latest.pt")
        await pilot.press("enter")
        await sees(pilot, "temperature on the right")
        await pilot.press("enter")
        await until(pilot, lambda: len(page.voices) == 2 and page.voices[1].ready)
        await sees(pilot, "T 1.2")
        await until(pilot, lambda: page.query_one(Prompt).has_focus)
        await pilot.press(*"Both", "enter")
        await until(pilot, lambda: page.voices[1].count == 1 and page.count == 2 and not page.busy)
        left, right = asked(root)[-2:]
        assert left["prompt"] == right["prompt"] == "Both" and left["seed"] == right["seed"] == 7
        assert {left["temperature"], right["temperature"]} == {0.8, 1.2}
        await pilot.press("ctrl+l", "tab", "left")  # the focus says whose token
        assert page.voices[1].turns[0].at == 11 and page.turns[-1].at is None
        await pilot.press("i")
        await until(pilot, lambda: page.query_one(Inside).found)
        await pilot.press("ctrl+r")  # both again
        await until(pilot, lambda: page.voices[1].count >= 2 and page.count == 3 and not page.busy)
        assert [len(voice.turns[-1].versions) for voice in page.voices] == [2, 2]
        await pilot.press("ctrl+s")
        await until(pilot, lambda: list((root / "mine").glob("chat-*.json")))
        saved = json.loads(next((root / "mine").glob("chat-*.json")).read_text())["turns"]
        assert [turn["settings"]["temperature"] for turn in saved] == [0.8, 0.8, 1.2]
        process = page.voices[1].talk.process
        await pilot.press("f6")
        await until(pilot, lambda: len(page.voices) == 1 and process.poll() is not None)
        assert page.query_one(Prompt).has_focus

    drive(tui.Tui(root, gpt=fake), script, size)


def test_answers_are_kept_and_stepped_through(root, fake):
    make_run(root / "mine")

    async def script(pilot):
        await talking_a_little(pilot)
        page = pilot.app.page
        first = page.turns[0]
        assert not shows(pilot, "1/")
        for count in 2, 3:
            await pilot.press("ctrl+r")
            await quiet(pilot, count)
        await sees(pilot, "3/3 (v) · 12 tokens")
        assert len(page.turns) == 1
        await pilot.press("escape", "v")
        await sees(pilot, "1/3 (v) · 12 tokens")
        assert page.turns == [first]
        await pilot.press("V", "V")
        await sees(pilot, "2/3")
        await pilot.press("e", "!", "enter")  # another question: the answers to the old one go
        await quiet(pilot, 4)
        await until(pilot, lambda: len(page.query(Turn)) == 1)
        assert page.turns[0].shown == "Once!" and not shows(pilot, "1/1")

    drive(tui.Tui(root, gpt=fake), script)


def test_a_chat_is_saved_where_its_run_is_by_now(root, fake):
    make_run(root / "mine")

    async def script(pilot):
        app = pilot.app
        await talking_a_little(pilot)
        page = app.page
        await pilot.press("f4", "n")
        await until(pilot, lambda: isinstance(app.screen, Enter))
        await pilot.press(*"new", "enter")
        await until(pilot, lambda: (root / "new").is_dir() and "new" in names(app))
        await pilot.press("f5")
        await sees(pilot, "new best.pt")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: list((root / "new").glob("chat-*.json")))
        saved = json.loads(next((root / "new").glob("chat-*.json")).read_text())["turns"]
        assert saved[0]["model"].endswith("new/best.pt")
        await pilot.press("ctrl+l", "i")  # it is still the same model
        await until(pilot, lambda: page.query_one(Inside).found)
        shutil.rmtree(root / "new")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: list(root.glob("chat-*.txt")))
        notices = [notice.message for notice in app._notifications]
        assert any(notice.startswith(str(root / "chat-")) for notice in notices)

    drive(tui.Tui(root, gpt=fake), script, (140, 40), notifications=True)


def test_answers_of_several_models_are_told_apart(root, fake):
    make_run(root / "mine")
    make_run(root / "other", age=9)

    async def script(pilot):
        await talking_a_little(pilot)
        page = pilot.app.page
        await pilot.press(*"Two", "enter")
        await quiet(pilot, 2)
        assert not shows(pilot, "step 300 · 12 tokens")  # there is one model only
        await pilot.press("ctrl+s")
        await until(pilot, lambda: list((root / "mine").glob("chat-*.json")))
        assert next((root / "mine").glob("chat-*.txt")).read_text().startswith("Once w0")
        await pilot.press("ctrl+o", *"other best", "enter")
        await until(pilot, lambda: page.ready and "other" in page.ready["model"])
        for count, text in (3, "Three"), (4, "Four"):
            await pilot.press(*text, "enter")
            await quiet(pilot, count)
        reports = [str(turn.report.content) for turn in page.turns]
        begin = [report.partition(" · ")[0] for report in reports]
        assert begin == ["12 tokens", "12 tokens", "other best.pt, step 300", "12 tokens"]
        await pilot.press("ctrl+s")
        await until(pilot, lambda: list((root / "other").glob("chat-*.json")))
        text = next((root / "other").glob("chat-*.txt")).read_text()
        order = ["== mine best.pt, step 300 ==", "Once w0", "Two w0"]
        order += ["== other best.pt, step 300 ==", "Three w0", "Four w0"]
        assert [text.count(part) for part in order] == [1] * 6
        assert sorted(order, key=text.index) == order
        saved = json.loads(next((root / "other").glob("chat-*.json")).read_text())["turns"]
        assert [Path(turn["model"]).parent.name for turn in saved] == ["mine", "mine", "other", "other"]
        await pilot.press("ctrl+o", *"mine best", "enter")
        await until(pilot, lambda: page.ready and "mine" in page.ready["model"])
        await pilot.press("ctrl+r")  # of two answers to the same each says whose it is
        await quiet(pilot, 5)
        await sees(pilot, "2/2 (v) · mine best.pt, step 300 · 12 tokens")
        await pilot.press("escape", "v")
        await sees(pilot, "1/2 (v) · other best.pt, step 300 · 12 tokens")
        await pilot.press("ctrl+g")  # and of one that two wrote both are named
        await quiet(pilot, 6)
        await sees(pilot, "other best.pt, step 300 and mine best.pt, step 300 · 12 tokens")

    drive(tui.Tui(root, gpt=fake), script, (140, 40))


def test_newer_weights_are_loaded_before_they_answer(root, fake):
    folder = make_run(root / "mine")

    async def script(pilot):
        app = pilot.app
        await talking_a_little(pilot)
        page = app.page
        await sees(pilot, "step 300 · val 2.456")
        write_lines(folder, [{"kind": "eval", "step": 350, "val_loss": 1.5, "best": True}], "a")
        (folder / "best.pt").write_bytes(b"better")
        await until(pilot, lambda: app.chosen.in_file("best.pt") == (350, 1.5))
        await pilot.press(*"Two", "enter")
        await sees(pilot, "newer weights")
        await quiet(pilot, 2)
        assert [turn.shown for turn in page.turns] == ["Once", "Two"]
        await sees(pilot, "step 350 · val 1.500", "mine best.pt, step 350 · 12 tokens")
        await pilot.press("ctrl+l", "left")
        page.point(page.turns[0], 5)
        await pilot.press("i")
        await until(pilot, lambda: "another model" in shown(page, "#inside"))
        (folder / "best.pt").write_bytes(b"the best")
        written = (folder / "best.pt").stat().st_mtime_ns
        await pilot.press("f4", "c")  # who asks for that model gets what it is now
        await until(pilot, lambda: page.voice.written == written and page.ready)

    drive(tui.Tui(root, gpt=fake), script, (140, 40), notifications=True)


def test_the_header_says_the_step_at_every_width(root, fake):
    make_run(root / "a-rather-long-name-of-a-run")

    async def script(pilot):
        await talking_a_little(pilot)
        await sees(pilot, "step 300 · val 2.456", "12/64")
        await pilot.press("ctrl+t")
        await until(pilot, lambda: not shows(pilot, "step 300 · val"))
        await pilot.press("escape")
        await sees(pilot, "step 300 · val 2.456", "context 12/64")

    drive(tui.Tui(root, gpt=fake), script)


def test_the_knobs_make_way_for_a_look_inside_where_it_is_narrow(root, fake):
    make_run(root / "mine")

    async def script(pilot):
        await talking_a_little(pilot)
        page = pilot.app.page
        await pilot.press("ctrl+l", "ctrl+t", "f7")
        await sees(pilot, "what came  ", "a head looks at", "head ")
        assert not page.query_one("#controls").display
        await pilot.press("ctrl+t")
        await sees(pilot, "repetition penalty")
        assert not page.query_one(Inside).display and not page.turns[0].looks

    drive(tui.Tui(root, gpt=fake), script)


def test_inside_is_offered_once_there_is_an_answer(root, fake):
    make_run(root / "mine")

    async def script(pilot):
        app = pilot.app
        await until(pilot, lambda: app.chosen)
        await pilot.press("f5")
        await until(pilot, lambda: app.page.ready)
        await pilot.press("ctrl+l")
        await until(pilot, lambda: app.page.xray)
        await pilot.pause(0.2)
        assert not shows(pilot, "f7 Inside")
        await pilot.press(*"Once", "enter")
        await quiet(pilot)
        await sees(pilot, "f7 Inside")
        await pilot.press("ctrl+n")
        await until(pilot, lambda: not shows(pilot, "f7 Inside"))
        assert not shows(pilot, "Again")
        app.page.peek(Token(" a", 1.0, [(" a", 1.0), (" b", 0.0009)]))
        assert "instead" not in shown(app.page, "#peek")

    drive(tui.Tui(root, gpt=fake), script)


# ---- everywhere --------------------------------------------------------------------------------------------


def test_a_terminal_that_is_too_small_says_so(root, fake):
    async def script(pilot):
        for key in "1234":
            await pilot.press("f" + str(int(key) + 1))
            await pilot.resize_terminal(59, 20)
            await sees(pilot, "59×20", "60×16")
            await pilot.resize_terminal(80, 24)
            await sees(pilot, "F2 Train" if key == "4" else "1 Train")

    drive(tui.Tui(root, gpt=fake), script)


def test_tabs_show_the_keys_that_work_from_here(root, fake):
    async def script(pilot):
        await ready(pilot)
        await sees(pilot, "1 Train", "2 Watch")
        pilot.app.page.query_one("#data").focus()
        await sees(pilot, "F2 Train", "F3 Watch")
        await pilot.press("alt+3")
        await until(pilot, lambda: pilot.app.current_mode == "runs")

    drive(tui.Tui(root, gpt=fake), script)


def test_the_smallest_terminal_has_help_and_no_cut_words(root, fake):
    make_run(root / "mine", 100)

    async def script(pilot):
        for key in "2345":
            await pilot.press(f"f{key}")
            await until(pilot, lambda: re.search(r"(\?|f1|F1) Help", screen(pilot.app).split("\n")[-1]))
            assert not shows(pilot, "palette")
        await pilot.press("f2")
        await ready(pilot)
        await sees(pilot, "char", "word", "bpe")

    drive(tui.Tui(root, gpt=fake), script, (60, 16))


def test_the_news_fits_beside_the_tabs(root, fake):
    async def script(pilot):
        await ready(pilot)
        await pilot.resize_terminal(60, 16)
        first_line = lambda: screen(pilot.app).split("\n")[0].rstrip()  # noqa: E731
        await until(pilot, lambda: first_line().endswith("cores"))
        make_run(root / ("long-" * 9), end="")
        await until(pilot, lambda: re.search(r"● lo.*… training \d+%$", first_line()))

    drive(tui.Tui(root, gpt=fake), script)


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_leaving_is_asked_about_in_plain_words(root, fake, key):
    async def script(pilot):
        await ready(pilot)
        await pilot.press(key)
        await sees(pilot, "Leave this program?")
        assert not shows(pilot, "[b]")
        await pilot.press("escape")
        await until(pilot, lambda: not shows(pilot, "Leave this program?"))
        await pilot.press(key)
        await sees(pilot, "Leave this program?")
        await pilot.press(key)
        await until(pilot, lambda: not pilot.app.is_running)

    drive(tui.Tui(root, gpt=fake), script)


def test_the_palette_does_what_it_names(root, fake):
    async def script(pilot):
        app = pilot.app
        await ready(pilot)
        commands = {command.title: command.callback for command in app.get_system_commands(app.page)}
        before = app.notices
        await commands["When a run ends: bell, notice or nothing"]()
        assert app.notices != before
        await commands["Runs: the screen"]()
        await until(pilot, lambda: app.current_mode == "runs")
        await commands["Quit, after a question"]()
        await sees(pilot, "Leave this program?")

    drive(tui.Tui(root, gpt=fake), script)


def test_a_run_is_opened_from_within_its_folder(root, fake, monkeypatch):
    make_run(root / "mine")
    monkeypatch.chdir(root / "mine")
    assert tui.Tui(Path("runs"), ".").chosen.folder == root / "mine"
    assert tui.Tui(Path(".."), ".").chosen.folder == Path("../mine")


def test_the_command_of_auto_names_what_its_rule_chose(root, fake):
    async def script(pilot):
        app = pilot.app
        await ready(pilot)
        recipe = app.catalog.recipe("auto", "char")
        make_run(root / "mine", preset="auto", **{name: recipe[name] for name in ("dropout", "batch_size")})
        run = Run(root / "mine")
        run.poll()
        settings = await app.settings_of(run)
        assert {"n_layer", "n_head", "n_embd", "dropout", "batch_size"} <= settings.keys()

    drive(tui.Tui(root, gpt=fake), script)


def test_the_palette_names_each_thing_once(root, fake):
    make_run(root / "mine", 100)

    async def script(pilot):
        await until(pilot, lambda: pilot.app.chosen)
        await pilot.press("f3")
        titles = [command.title for command in pilot.app.get_system_commands(pilot.app.page)]
        assert len(titles) == len(set(titles))
        assert not {"All", "Copy selected text", "Page Left"} & set(titles)

    drive(tui.Tui(root, gpt=fake), script)


@pytest.mark.slow
def test_help_palette_and_every_theme(root, fake):
    make_run(root / "mine", 100, end="")

    async def script(pilot):
        app = pilot.app
        await until(pilot, lambda: app.chosen)
        await pilot.press("f3", "question_mark")
        await sees(pilot, "Watch one run", "Pause", "Log y")
        await pilot.press("escape", "ctrl+p")
        await until(pilot, lambda: "CommandPalette" in str(app.screen))
        await pilot.press(*"smooth", "enter", "enter")
        await until(pilot, lambda: app.page.share == 0.15)
        for i, theme in enumerate(["textual-light", "nord", "ansi-dark", "ansi-light", "dracula"]):
            app.theme = theme
            await pilot.press(f"f{i % 4 + 2}")
        await pilot.press("f3")
        await sees(pilot, "mine", "training")

    drive(tui.Tui(root, gpt=fake), script)
    assert "theme" in json.loads((root / ".tui.json").read_text())
    assert tui.Tui(root).theme == json.loads((root / ".tui.json").read_text())["theme"]


def test_without_colour(root, fake, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    make_run(root / "a", 100, end="")

    async def script(pilot):
        await sees(pilot, "★ best", "● val")
        # Of texts and of what is behind them; c5c8c6 is what a picture shows for the terminal's own colour.
        picture = pilot.app.export_screenshot()
        colours = re.findall(r"-r\d+ {[^}]*fill: #(\w{6})", picture)
        colours += re.findall(r'<rect fill="#(\w{6})"[^>]*crispEdges', picture)
        assert len(colours) > 5
        for colour in set(colours) - {"c5c8c6"}:
            red, green, blue = bytes.fromhex(colour)
            assert max(red, green, blue) - min(red, green, blue) < 3

    drive(tui.Tui(root, root / "a", gpt=fake), script)


@pytest.mark.skipif(sys.platform == "darwin", reason="a browser is looked for in its usual place there")
def test_without_a_browser_no_pictures_are_begun():
    command = [sys.executable, HERE / "docs/pictures.py"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": "/nowhere"})
    assert done.returncode == 1 and "error: no browser is here; any of these will do: chromium" in done.stderr


def test_command_line():
    def run(*words):
        return subprocess.run([sys.executable, HERE / "tui.py", *words], capture_output=True, text=True)

    told = run("--help").stdout
    assert "choose a preset, watch it learn" in told
    assert "--runs FOLDER" in told
    assert "--screenshots" not in told
    assert run("no/such/run").stderr == "error: no/such/run is no folder of a run\n"
    assert run("--theme", "grovbux").stderr.startswith("error: --theme grovbux: there are ")
    probe = "import sys, tui; assert not {'torch', 'gpt', 'numpy'} & sys.modules.keys()"
    assert subprocess.run([sys.executable, "-c", probe], cwd=HERE).returncode == 0


def test_a_screen_knows_neither_another_one_nor_the_app():
    pages = {"train", "watch", "runs_table", "chat"}
    sources = {path.stem: path.read_text(encoding="utf-8") for path in (HERE / "screens").glob("*.py")}
    assert pages < sources.keys()
    for name, source in sources.items():
        assert not re.search(r"^ *(import|from) +(tui|gpt|torch|data|tools|recipes)\b", source, re.M), name
        assert pages.isdisjoint(re.findall(r"^ *from screens\.(\w+) import", source, re.M)), name


# ---- the whole, for real -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("torch"), reason="trains for real")
def test_a_real_training_from_start_to_talk(root):
    async def script(pilot):
        app = pilot.app
        await ready(pilot)
        for name, value in {"data": "builtin", "max_iters": "3000", "eval_interval": "3000"}.items():
            app.page.query_one(f"#{name}", Input).value = value
        await pilot.press("ctrl+t")
        await until(pilot, lambda: app.page.query("#sample_tokens"))
        for name, value in {
            "threads": "1",
            "n_layer": "1",
            "n_head": "1",
            "n_embd": "16",
            "block_size": "32",
            "batch_size": "8",
            "eval_tokens": "2000",
            "sample_tokens": "20",
        }.items():
            app.page.query_one(f"#{name}", Input).value = value
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.chosen and app.chosen.step >= 20, 40)
        await pilot.press("p")
        await until(pilot, lambda: app.chosen.state in ("paused", "done"))
        await until(pilot, lambda: shows(pilot, "━ train") and re.search("[\u2801-\u28ff]", screen(app)))
        await pilot.press("s", "s")
        await until(pilot, lambda: app.chosen.state == "stopped", 20)
        at = app.chosen.step
        await pilot.press("r")
        await until(pilot, lambda: app.chosen.step == 3000 and app.chosen.state == "done", 40)
        assert at < 3000 and app.chosen.start["resumed_from"] == at > 0
        await pilot.press("c")
        await until(pilot, lambda: app.page.ready, 30)
        await pilot.press(*"The", "enter")
        await until(pilot, lambda: app.page.turns and not app.page.busy, 20)
        assert len(app.page.turns[0].tokens) == 200 and app.page.turns[0].tokens[0][1] > 0

    drive(tui.Tui(root), script)


@pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux")
def test_in_a_real_terminal(root, fake):
    make_run(root / "mine", 200, end="", most=400)
    name = f"tui-test-{os.getpid()}"
    program = f"env -u COLUMNS -u LINES {sys.executable} {HERE / 'tui.py'}"

    def tmux(*words):
        command = ["tmux", "-f", "/dev/null", "-L", name, *words]
        return subprocess.run(command, capture_output=True, text=True).stdout

    def seen(*texts, seconds=10):
        end = time.time() + seconds
        while time.time() < end:
            shown = tmux("capture-pane", "-p")
            if all(text in shown for text in texts):
                return
            time.sleep(0.05)
        raise AssertionError(shown)

    start = time.time()
    subprocess.run(f"{program} --help", shell=True, capture_output=True)
    loading = time.time() - start
    try:
        start = time.time()
        command = f"{program} {root / 'mine'} --runs {root}; echo left $?; sleep 60"
        tmux("new-session", "-d", "-x", "80", "-y", "24", command)
        seen("training", "200/400", "it says", "p Pause")
        assert time.time() - start < 1 + 6 * loading  # Python and textual alone, measured just before
        tmux("send-keys", "3")
        seen("mine", "best", "b/byte")
        tmux("resize-window", "-x", "140", "-y", "40")
        seen("weights", "preset")
        tmux("send-keys", "C-q")
        seen("left 0")
    finally:
        tmux("kill-server")


# ---- figures: how fast it is, in a terminal of its own ------------------------------------------------------

SIZE = 140, 40  # columns and rows


class Terminal:
    "tui.py in a terminal of its own: keys in, and how long it takes until a text stands there."

    def __init__(self, folder, *words):
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor", COLUMNS="", LINES="")
            for name in ("COLUMNS", "LINES", "NO_COLOR"):
                os.environ.pop(name, None)
            os.execv(sys.executable, [sys.executable, *words])
        columns, rows = SIZE
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.started = time.perf_counter()

    def press(self, keys):
        os.write(self.master, keys.encode())

    def drain(self):
        "What was written so far is not looked at."
        while select.select([self.master], [], [], 0)[0]:
            os.read(self.master, 1 << 16)

    def until(self, *texts, seconds=30):
        "-> the time at which all of these were written"
        seen = b""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            if select.select([self.master], [], [], 0.05)[0]:
                seen += os.read(self.master, 1 << 16)
                if all(text.encode() in seen for text in texts):
                    return time.perf_counter()
        raise SystemExit(f"{texts} did not come within {seconds} s, but {seen[-500:]!r}")

    def milliseconds(self, keys, text):
        "From a key to the text that it brings."
        self.drain()
        start = time.perf_counter()
        self.press(keys)
        return 1e3 * (self.until(text) - start)

    def megabytes(self):
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def close(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.master)


def spread(what, values, form="{:.0f} ms"):
    values = sorted(values)
    parts = {
        "n": str(len(values)),
        "p50": form.format(values[len(values) // 2]),
        "p95": form.format(values[min(len(values) - 1, int(0.95 * len(values)))]),
        "max": form.format(values[-1]),
    }
    print(f"{what:52}", "  ".join(f"{name} {text}" for name, text in parts.items()), flush=True)


def house_with_a_fake_trainer(place):
    "tui.py in a folder in which gpt.py is the one that these tests have."
    for name in ("tui.py", "runs.py", "presets.json"):
        shutil.copy(HERE / name, place)
    shutil.copytree(HERE / "screens", place / "screens", dirs_exist_ok=True)
    head = f"REAL, LOG, ANSWER = {str(REAL)!r}, {os.devnull!r}, None\n"
    (place / "gpt.py").write_text(head + FAKE, encoding="utf-8")
    return str(place / "tui.py")


def keep_writing(folder, per_second, stop):
    "A run that logs so many lines a second."
    lines = lines_of(10**6, end="", most=10**6)
    write_lines(folder, itertools.islice(lines, 100))
    with open(folder / "metrics.jsonl", "a", encoding="utf-8") as file:
        for line in lines:
            if stop.is_set():
                return
            file.write(json.dumps(line) + "\n")
            file.flush()
            time.sleep(1 / per_second)


def start_figures(place, n):
    paints = []
    presets = []
    for _ in range(n):
        terminal = Terminal(place, str(HERE / "tui.py"))
        paints.append(1e3 * (terminal.until("Train") - terminal.started))
        presets.append(1e3 * (terminal.until("nano", "fits") - terminal.started))
        terminal.close()
    spread("shell to first paint (below 700)", paints)
    spread("shell to presets that can be started (below 1000)", presets)


def watch_figures(place, n, minutes):
    folder = place / "runs/busy"
    folder.mkdir(parents=True)
    stop = threading.Event()
    threading.Thread(target=keep_writing, args=(folder, 50, stop), daemon=True).start()
    terminal = Terminal(place, house_with_a_fake_trainer(place), "runs/busy")
    terminal.until("train, smoothed")
    metrics = [*Watch.METRICS[1:], "train, smoothed"]
    took = []
    for at in range(n):
        took.append(terminal.milliseconds("v", metrics[at % len(metrics)]))
        time.sleep(0.1 + at % 7 / 50)
    spread("key to repaint, Watch at 50 lines/s (below 50)", took)
    memory = [terminal.megabytes()]
    for _ in range(int(minutes * 60)):
        time.sleep(1)
        terminal.drain()
        memory.append(terminal.megabytes())
    print(f"{'memory, watching':52} {memory[0]:.1f} MB, after {minutes:g} min {memory[-1]:.1f} MB")
    stop.set()
    terminal.close()


def chat_figures(place, n):
    make_run(place / "runs/mine")
    settings = {"sampling": {"max_new_tokens": "2000"}}
    (place / "runs/.tui.json").write_text(json.dumps(settings))
    took = []
    while len(took) < n:
        terminal = Terminal(place, house_with_a_fake_trainer(place), "runs/mine")
        terminal.until("done")
        terminal.press("4")
        terminal.until("best.pt", "begin a text", "0/64")
        terminal.press("Once\r")
        terminal.until("writing")
        for letter in "QZX" * 10:  # no stream and no escape sequence has these
            took.append(terminal.milliseconds(letter, letter))
            time.sleep(0.1 + len(took) % 7 / 50)  # in no rhythm with what is painted
        terminal.close()
    spread("key to repaint, Chat at 200 tokens/s (below 50)", took[:n])


def reading_figures(place, n):
    folder = place / "runs/long"
    folder.mkdir(parents=True)
    write_lines(folder, lines_of(714_280, most=714_280))
    count = len((folder / "metrics.jsonl").read_text().splitlines())
    took = []
    for _ in range(n):
        terminal = Terminal(place, str(HERE / "tui.py"), "runs/long")
        took.append(terminal.until("done", "714,280") - terminal.started)
        terminal.close()
    spread(f"{count:,} lines of metrics read (below 1.2)", took, "{:.2f} s")


def figures(words):
    parser = argparse.ArgumentParser(description="How fast tui.py is here. Let nothing else run meanwhile.")
    parser.add_argument("--figures", type=int, nargs="?", const=100, help="how many times each [100]")
    parser.add_argument("--minutes", type=float, default=1, help="how long memory is watched [1]")
    asked = parser.parse_args(words)
    n = asked.figures or 100
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; terminal {SIZE[0]}x{SIZE[1]}")
    for measure in (
        lambda place: start_figures(place, n),
        lambda place: watch_figures(place, n, asked.minutes),
        lambda place: chat_figures(place, n),
        lambda place: reading_figures(place, n),
    ):
        with tempfile.TemporaryDirectory() as place:
            measure(Path(place))


if __name__ == "__main__":
    figures(sys.argv[1:])
