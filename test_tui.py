"""Tests of tui.py: its reader of runs, its chart, each screen in each state, the whole with a real training.

    pytest -q test_tui.py

Needs pytest and hypothesis; for the last tests torch and tmux, without which they are skipped."""
import asyncio, json, os, random, re, shutil, subprocess, sys, time
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

import tui
from tui import Button, DataTable, Input, Knob, Run, Static

HERE = Path(tui.__file__).resolve().parent
REAL = HERE / "gpt.py"

# ---- helpers -----------------------------------------------------------------------------------------------

def lines_of(n=300, end="done", most=0, warn="", level="char", preset="nano", **train):
    "What a run of n steps would write to metrics.jsonl."
    r, most = random.Random(n), most or n
    train = {"preset": preset, "level": level, "data": "sherlock", "batch_size": 32, "micro_batch": 0,
             "max_iters": most, "learning_rate": 0.006, "muon_lr": 0.03, **train}
    model = {"n_layer": 3, "n_head": 3, "n_embd": 48, "block_size": 128, "vocab_size": 98}
    yield {"kind": "start", "config": {"model": model, "train": train, "used": {"dtype": "float32",
        "torch": "2"}},
           "parameters": 95760, "device": "cpu", "pid": 2 ** 22 + 1, "max_iters": most, "world_size": 1,
           "resumed_from": None}
    for step in range(0, n + 1, 10):
        loss = 1.5 + 3 * (1 + step / 60) ** -0.7
        if step:
            yield {"kind": "step", "step": step, "loss": loss + r.gauss(0, 0.05), "grad_norm": 0.4,
                   "lr": 0.006,
                   "tokens": step * 4096, "tokens_per_s": 40000, "elapsed_s": step * 0.03, "eta_s": 9,
                   "mfu": 0.31, "memory_mb": 420, "done": step / most}
        if step % 50 == 0:
            yield {"kind": "eval", "step": step, "train_loss": loss, "val_loss": loss + 0.1, "best": loss
                   + 0.1, "perplexity": 7, "bits_per_byte": loss / 0.7}
            yield {"kind": "sample", "step": step, "text": f"sample {step} [/b] \x1b]0;hacked\x07 \ud800 end"}
    if warn:
        yield {"kind": "warn", "step": n, "text": warn}
    yield {"kind": "state", "state": "training"}
    if end:
        yield {"kind": "end", "step": n, "reason": end, "message": "best loss 1.9"}

def make_run(folder, n=300, age=0.0, checkpoints=("best.pt", "latest.pt"), **more):
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines_of(n, **more))
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    os.utime(folder / "metrics.jsonl", (time.time() - age,) * 2)
    for name in checkpoints:
        (folder / name).write_bytes(b"weights")
    return folder

FAKE = '''
"Stands in for gpt.py: answers presets as the real one, trains and talks as the tests want it."
import json, os, queue, subprocess, sys, threading, time
command, words = sys.argv[1], sys.argv[2:]
if command == "presets":
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
    if "broken" in words[0]:
        raise SystemExit(f"error: {words[0]} is no checkpoint")
    say("ready", model=words[0], level="char", block_size=64)
    requests, stopped = queue.Queue(), set()
    def listen():
        for line in sys.stdin:
            request = json.loads(line)
            wants = "prompt" in request or "load" in request
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
        for n in range(r["max_new_tokens"]):
            if r["id"] in stopped and "deaf" not in r["prompt"]:
                break
            say("piece", id=r["id"], text=f" w{n}" + "\\n" * (n % 10 == 9), prob=n % 10 / 10,
                alternatives=[[" the", 0.5]])
            time.sleep(0.005)
        say("done", id=r["id"], reason="stop" if r["id"] in stopped else "length", tokens=n + 1,
            tokens_per_s=99.0,
            context_used=min(64, n + 1))
'''

@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLORFGBG", "15;0")
    return tmp_path / "runs"

@pytest.fixture
def fake(tmp_path):
    (tmp_path / "gpt.py").write_text(f"REAL, LOG = {str(REAL)!r}, {str(tmp_path / 'asked')!r}\n{FAKE}",
                                     encoding="utf-8")
    shutil.copy(HERE / "presets.json", tmp_path)
    return tmp_path / "gpt.py"

def drive(app, script, size=(80, 24)):
    async def run():
        async with app.run_test(size=size) as pilot:
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
    "What stands on the screen."
    return "\n".join("".join(s.text for s in strip) for strip in app.screen._compositor.render_strips())

def shows(pilot, *texts):
    return all(text in screen(pilot.app) for text in texts)

async def ready(pilot):
    await until(pilot, lambda: pilot.app.catalog and pilot.app.page.query("#run"))
    await pilot.pause()

# ---- reading runs ------------------------------------------------------------------------------------------

def test_reader_understands_a_run(tmp_path):
    run = Run(make_run(tmp_path / "a", warn="it overfits"))
    assert run.poll() and not run.poll()
    assert (run.step, run.state, run.best.step, len(run.rows), len(run.evals)) == (300, "done", 300, 30, 7)
    assert run.warnings == ["it overfits"] and run.samples[0][0] == 300 and run.speed == 40000
    assert "\x1b" not in run.samples[0][1] and run.samples[0][1].endswith("end") and run.done == 1

@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9000), max_size=8), st.lists(st.sampled_from([
    b"{", b"null", b"[1]", b'{"kind": 3}', b'{"kind": "step"}', b'{"kind": "step", "step": "x"}', b"\xff\xfe",
    b"[" * 3000,
    b'{"kind": "start", "config": 7}', b'{"kind": "forget"}',
    b'{"kind": "eval", "step": 1, "val_loss": "NaN"}',
    b'{"kind": "new", "x": 1}', b'{"kind": "step", "step": 5, "loss": NaN, "lr": true}',
    b'{"kind": "sample"}']), max_size=4))
def test_reader_takes_any_pieces_and_any_garbage(cuts, garbage):
    import tempfile
    with tempfile.TemporaryDirectory() as place:
        lines = [json.dumps(line).encode() for line in lines_of(100)]
        data = b"\n".join(lines[:-3] + garbage + lines[-3:]) + b"\n"
        run, file, at = Run(place), Path(place, "metrics.jsonl"), 0
        for cut in sorted(cuts) + [len(data)]:
            with open(file, "ab") as f:
                f.write(data[at:max(at, cut)])
            at = max(at, cut)
            run.poll()
        whole = Run(place)
        whole.poll()
        for name in ("rows", "evals", "samples", "bad", "end", "step", "state"):
            assert getattr(run, name) == getattr(whole, name)
        assert run.state == "done"

def test_reader_forgets_what_a_resumed_run_does_again(tmp_path):
    folder = make_run(tmp_path / "a", 300, end="")
    with open(folder / "metrics.jsonl", "a") as f:
        print(json.dumps({"kind": "start", "config": {}, "resumed_from": 200}), file=f)
        print(json.dumps({"kind": "step", "step": 210, "loss": 2.0}), file=f)
    run = Run(folder)
    run.poll()
    assert [row.step for row in run.rows][-2:] == [200, 210] and run.evals[-1].step == 200
    (folder / "metrics.jsonl").write_text('{"kind": "start", "config": {}}\n')  # somebody began anew
    run.poll()
    assert run.rows == [] and run.offset == 32

def test_reader_is_quick_and_small(tmp_path):
    with open(tmp_path / "metrics.jsonl", "w") as f:
        line = '{"kind": "step", "time": 1795246953.237, "step": %d, "loss": %.4f, "grad_norm": 1.397, ' \
               '"lr": 0.0027, "tokens": 40960, "tokens_per_s": 25292.33, "elapsed_s": 7.36, "mfu": null, ' \
               '"memory_mb": 420.46, "done": 0.05}\n'
        f.write('{"kind": "start", "config": {}}\n')
        f.writelines(line % (i, 3 - i / 1e5) for i in range(100_000))
    run, start = Run(tmp_path), time.process_time()
    run.poll()
    assert time.process_time() - start < 1.5                  # a second, and room for a slow machine
    assert run.step == 99_999 and len(run.rows) < 2 * tui.MOST
    assert sum(row.n for row in run.rows) == 100_000 and min(row.low
        for row in run.rows) == pytest.approx(2.0, abs=1e-3)

def test_states(tmp_path):
    state = lambda run: (run.poll(), run.state)[1]
    make = lambda name, **more: Run(make_run(tmp_path / name, **more))
    assert state(make("done")) == "done" and state(make("stop", end="stopped")) == "stopped"
    assert state(make("late", end="time")) == "done" and state(make("bad", end="error")) == "crashed"
    assert state(make("live", end="")) == "training" and state(Run(tmp_path / "never")) == "gone"
    assert state(make("old", end="", age=3000)) == ("crashed" if tui.fcntl else "stalled")
    assert state(make("paused", end="", age=10)) == "training"
    vanishing = make("gone", end="")
    vanishing.poll()
    shutil.rmtree(vanishing.folder)
    assert state(vanishing) == "gone" and vanishing.rows

@pytest.mark.skipif(not tui.fcntl, reason="there are no such locks")
def test_a_silent_run_with_a_living_process_is_stalled_and_not_crashed(tmp_path):
    folder = make_run(tmp_path / "a", end="", age=300)
    with open(folder / "metrics.jsonl", "a") as held:
        tui.fcntl.flock(held, tui.fcntl.LOCK_EX)              # as gpt.py does
        run = Run(folder)
        run.poll()
        assert run.state == "stalled"
        for word in ("evaluating", "paused"):                 # these may take their time
            run.word = word
            assert run.state == word
    assert Run(folder).poll() and run.state == "crashed" or run.word == "paused"

class Process:
    def __init__(self, code):
        self.poll = lambda: code

@pytest.mark.parametrize("code, said, headline, flags", [
    (-9, "", "killed", {"micro_batch": 16}), (1, "torch.OutOfMemoryError: CUDA out of memory.",
                                              "out of memory",
                                             {"micro_batch": 16}),
    (1, "OSError: [Errno 28] No space left on device", "the disk is full", {}), (130, "KeyboardInterrupt",
        "interrupted", {}),
    (1, "error: 10 steps in a row had no finite gradient: take a lower --learning_rate",
     "the loss is no number any more",
     {"learning_rate": 0.002, "muon_lr": 0.01}), (1, "ValueError: what", "crashed", {}), (0, "", "crashed",
         {})])
def test_troubles_are_told_apart(tmp_path, code, said, headline, flags):
    run = Run(make_run(tmp_path / "a", end=""), Process(code))
    (run.folder / "train.log").write_text(f"step 1\n{said}\n")
    run.poll()
    assert run.trouble()[0] == headline and run.trouble()[3] == flags and "latest.pt" in run.kept()

@given(st.text())
def test_foreign_text_is_cleaned(text):
    found = tui.clean(text)
    assert len(found) == len(text) and not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", found)
    found.encode("utf-8")

def test_numbers_are_written_short():
    assert [tui.short(x) for x in (None, 0, 12, 1234, 95760, 1.56e9)] == ["—", "0", "12", "1.23k", "95.8k",
        "1.56G"]
    assert [tui.clock(x) for x in (None, 59, 3725)] == ["—", "0:59", "1:02:05"]
    assert tui.spark([1, 2, 3, None], 9) == "▁▄█" and tui.spark([], 5) == "" and len(tui.spark(range(999),
        20)) == 20

# ---- the chart ---------------------------------------------------------------------------------------------

@settings(max_examples=60)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 12), st.booleans())
def test_ticks_are_few_round_and_inside(low, width, most, log):
    found, form = tui.ticks(low, low + width, most, log)
    assert len(found) <= most + 1 or log
    assert all(low - 1e-6 * width <= v <= low + width * (1 + 1e-6) for v in found) and all(form(v)
        for v in found)

def test_chart_draws_anything_anywhere():
    class One(tui.App):
        def compose(self):
            yield tui.Chart("nothing yet")
    line = lambda ys: tui.Curve("train", "train", list(enumerate(ys)))

    async def script(pilot):
        chart = pilot.app.query_one(tui.Chart)
        assert "nothing yet" in screen(pilot.app)
        for ys in ([1], [2, 2, 2], [1e9, -1e9, 0], [5, 4, 3, 2, 1], [1e-9, 2e-9], list(range(5000))):
            for log in (False, True):
                chart.log_x, chart.log_y = log, log
                chart.plot([line(ys)], best=(0, ys[0]))
                for size in ((80, 24), (140, 40), (20, 6), (9, 4), (1, 1)):
                    await pilot.resize_terminal(*size)
                    for row in tui.Segment.split_lines(getattr(chart.render(), "segments", [])):
                        assert sum(part.cell_length for part in row) <= size[0] or size[0] < 20
        await pilot.resize_terminal(80, 24)
        chart.log_x = chart.log_y = False
        chart.plot([line(range(1001))])
        chart.action_zoom(0.5)
        assert chart.view == (500, None) and chart.span() == (500, 1000)
        chart.plot([line(range(2001))])                       # new points: a view at the end follows
        assert chart.span() == (500, 2000)
        chart.action_pan(-0.2)
        assert chart.span() == (200, 1700)
        await pilot.press("tab", "minus", "minus", "0", "full_stop", "comma")
        assert chart.view is None and "at 1,9" in screen(pilot.app)
    drive(One(), script)

def test_smoothing_follows_and_calms():
    noisy = [(i, 2 + (-1) ** i) for i in range(1, 1000)]
    calm = tui.smooth(noisy, 0.1)
    assert len(calm) == 999 and abs(calm[-1][1] - 2) < 0.1 and tui.smooth([], 0.1) == []
    assert tui.smooth([(0, 1.0), (0, 3.0), (5, 2.0)], 0.1)[-1][1] == pytest.approx(2, abs=0.01)

# ---- Train -------------------------------------------------------------------------------------------------

def test_train_shows_what_there_is_and_checks_what_is_typed(root, fake):
    async def script(pilot):
        app = pilot.app
        await ready(pilot)
        await until(pilot, lambda: shows(pilot, "nano", "gpt2-xl", "fits", "--preset nano --level char"))
        assert "runs/nano-char" in "".join(screen(app).split())  # a long path takes two lines
        page, value = app.page, lambda name: app.page.query_one(f"#{name}", Input)
        await pilot.press("down")
        await until(pilot, lambda: page.preset == "laptop" and value("max_minutes").value == "3")
        await pilot.press("up")
        await until(pilot, lambda: page.preset == "nano")
        page.query_one("#level", Knob).value = "word"
        steps = app.catalog.recipe("nano", "word")["max_iters"]
        await until(pilot, lambda: value("max_iters").value == str(steps)
                    and "--level word" in shown(page, "#command"))
        for name, text, wrong in (("batch_size", "x", "a whole number"), ("batch_size", "0",
            "batch_size >= 1"), ("learning_rate", "-1", "learning_rate > 0"), ("dropout", "1", "dropout < 1"),
                                  ("max_iters", "0", "no end in sight"), ("data", "no/such.txt",
                                      "there is no"), ("run", "a/b", "a name without")):
            was = value(name).value
            value(name).value = text
            await until(pilot, lambda: wrong in shown(page, "#hint"))
            assert page.query_one("#start", Button).disabled and value(name).has_class("-invalid")
            value(name).value = was
            await until(pilot, lambda: not page.query_one("#start", Button).disabled)
        value("max_minutes").value = "5"                      # a limit unsets the others: so all are named
        await until(pilot, lambda: f"--max_minutes 5 --max_iters {steps}" in shown(page, "#command"))
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

def shown(page, name):
    return str(page.query_one(name, Static).content)

def test_data_is_picked_from_a_list_or_the_disk(root, fake):
    Path("mine.txt").write_text("my text")

    async def script(pilot):
        await ready(pilot)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(pilot.app.screen, tui.Pick) and shows(pilot, "builtin"))
        await pilot.press(*"built", "enter")
        await until(pilot, lambda: "--data builtin" in shown(pilot.app.page, "#command"))
        assert "nano-char-builtin" in shown(pilot.app.page, "#command")
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(pilot.app.screen, tui.Pick))
        await pilot.press(*"browse", "enter")
        await until(pilot, lambda: shows(pilot, "mine.txt"))
        tree = pilot.app.screen.query_one(tui.DirectoryTree)
        tree.move_cursor(next(n for n in tree.root.children if n.data.path.name == "mine.txt"))
        await pilot.press("enter")
        await until(pilot, lambda: "--data mine.txt" in shown(pilot.app.page, "#command"))
    drive(tui.Tui(root, gpt=fake), script)

def test_train_starts_watches_stops_and_quits_beside_a_run(root, fake):
    async def script(pilot):
        app = pilot.app
        await ready(pilot)
        app.page.query_one("#data", Input).value = "fine"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.current_mode == "watch" and app.chosen.rows)
        await until(pilot, lambda: shows(pilot, "training", "nano-char-fine", "━"))
        assert json.loads(app.chosen.log[0][5:])[:4] == ["--preset", "nano", "--level", "char"]
        await pilot.press("ctrl+q")
        await until(pilot, lambda: shows(pilot, "leave it going"))
        await pilot.press("escape", "s")
        await until(pilot, lambda: shows(pilot, "stop and save"))
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
        await until(pilot, lambda: shows(pilot, "leave it going"))
        await pilot.press("l")
    drive(app, script)
    run = app.chosen
    assert run.process.poll() is None
    again = Run(run.folder)
    steps = (again.poll(), again.step)[1]
    time.sleep(0.3)
    assert again.poll() and again.step > steps and again.state == "training"
    run.process.kill()
    run.process.wait()

@pytest.mark.parametrize("data, headline, words", [("nothing", "it did not start", "there is no nothing"),
                                                   ("oom", "out of memory", "--micro_batch 16")])
def test_what_goes_wrong_in_a_training_is_said(root, fake, data, headline, words):
    async def script(pilot):
        await ready(pilot)
        pilot.app.page.query_one("#data", Input).value = data
        await pilot.press("ctrl+s")
        await until(pilot, lambda: shows(pilot, headline, "crashed"))
        await until(pilot, lambda: words in " ".join(screen(pilot.app).split()))
        await pilot.press("l")
        await until(pilot, lambda: shows(pilot, "─ log ─", "args") and not shows(pilot, "training ended"))
        await pilot.press("l")
        if data == "oom":
            (pilot.app.chosen.folder / "latest.pt").write_bytes(b"")
            await pilot.press("r")
            await until(pilot, lambda: "--micro_batch=16" in "".join(pilot.app.chosen.log))
    drive(tui.Tui(root, gpt=fake), script)

def test_what_does_not_fit_is_asked_about(root, fake):
    async def script(pilot):
        await ready(pilot)
        app = pilot.app
        app.catalog.presets["nano"]["char"]["fits"] = False
        app.page.choose("nano")
        assert "does not fit" in shown(app.page, "#estimate")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: shows(pilot, "start it all the same"))
        await pilot.press("escape")
        assert app.current_mode == "train" and not root.exists()
    drive(tui.Tui(root, gpt=fake), script)

def test_broken_presets_are_shown_with_the_place(root, tmp_path):
    for name in ("gpt.py", "presets.json"):
        shutil.copy(HERE / name, tmp_path)
    good = (tmp_path / "presets.json").read_text()
    (tmp_path / "presets.json").write_text(good.replace('"nano": {', '"nano": {{', 1))

    async def script(pilot):
        await until(pilot, lambda: shows(pilot, "can't be read", '"nano": {{', "^"))
        (tmp_path / "presets.json").write_text(good)
        await pilot.press("r")
        await ready(pilot)
        await until(pilot, lambda: shows(pilot, "--preset nano"))
    drive(tui.Tui(root, gpt=tmp_path / "gpt.py"), script)

# ---- Watch -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [(140, 40), (60, 16)])
def test_watch_shows_a_run_it_did_not_start(root, fake, size):
    folder = make_run(root / "other", 200, end="", most=400, warn="validation loss is rising")

    async def script(pilot):
        await until(pilot, lambda: shows(pilot, "other", "training", "50%", "200/400",
                                         "validation loss is rising", "val"))
        if size[0] > 60:
            assert shows(pilot, "sample 200 [/b] ␛]0;hacked␇") and "\x1b" not in screen(pilot.app)
        for key, word in (("p", "pause"), ("g", "sample")):
            await pilot.press(key)
            await until(pilot, lambda: (folder / "control").read_text() == word)
        with open(folder / "metrics.jsonl", "a") as f:
            print(json.dumps({"kind": "state", "state": "paused"}), file=f)
        await until(pilot, lambda: shows(pilot, "● paused"))
        await pilot.press("p")
        await until(pilot, lambda: (folder / "control").read_text() == "go")
        for key in "xymmlll[]x":                              # each of them is answered, nothing breaks
            await pilot.press(key)
        shutil.rmtree(folder)
        await until(pilot, lambda: shows(pilot, "has vanished"))
    drive(tui.Tui(root, folder, gpt=fake), script, size)

def test_resume_keeps_the_curve(root, fake):
    folder = make_run(root / "mine", 200, end="stopped")

    async def script(pilot):
        await until(pilot, lambda: shows(pilot, "stopped"))
        await pilot.press("r")
        await until(pilot, lambda: pilot.app.chosen.process)
        await until(pilot, lambda: "args" in pilot.app.chosen.log[0])
        assert json.loads(pilot.app.chosen.log[0][5:]) == ["--resume", str(folder)]
        assert len(pilot.app.chosen.rows) == 20
    drive(tui.Tui(root, folder, gpt=fake), script)

# ---- Runs --------------------------------------------------------------------------------------------------

def names(app):
    table = app.page.query_one("#table", DataTable)
    return [Path(row.value).name for row in table.rows]

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
        await until(pilot, lambda: app.clipboard ==
                    "python gpt.py train --preset=nano --level=word --max_iters=123")
        await pilot.press("escape")
        await until(pilot, lambda: len(names(app)) == 3)
        await pilot.press("home", "space", "space")
        await until(pilot, lambda: [f.name for f in app.page.marked] == ["b", "a"])
        await until(pilot, lambda: [c.name for c in app.page.query_one(tui.Chart).curves] == ["b", "a"]
                    and shows(pilot, "a b", "b a"))
        await pilot.press("v")
        await pilot.press("d")
        await until(pilot, lambda: shows(pilot, "Delete b, a"))
        await pilot.press("escape")
        await until(pilot, lambda: len(names(app)) == 3)
        await pilot.press("d")
        await until(pilot, lambda: shows(pilot, "Delete b, a"))
        (root / "a" / "precious.txt").write_text("not ours")
        await pilot.press("d")
        await until(pilot, lambda: not (root / "b").exists())
        assert (root / "a" / "precious.txt").exists()
        await until(pilot, lambda: names(app) == ["c"])
        await pilot.press("d")
        await until(pilot, lambda: "c is running" in [*app._notifications][-1].message)
        (root / "c" / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines_of(100)))
        await until(pilot, lambda: app.runs[root / "c"].state == "done")
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, tui.Enter))
        await pilot.press("slash")
        await until(pilot, lambda: shows(pilot, "a name without"))
        await pilot.press("backspace", "backspace", *"new", "enter")
        await until(pilot, lambda: names(app) == ["new"])
        assert (root / "new" / "metrics.jsonl").exists()
        await pilot.press("enter")
        await until(pilot, lambda: app.current_mode == "watch" and shows(pilot, "new"))
    drive(tui.Tui(root, gpt=fake), script)

def test_no_runs_yet(root, fake):
    async def script(pilot):
        await ready(pilot)
        for key, words in (("2", "Nothing to watch yet"), ("3", "No runs yet"), ("4", "No model yet")):
            await pilot.press(key)
            await until(pilot, lambda: shows(pilot, words))
    drive(tui.Tui(root, gpt=fake), script)

# ---- Chat --------------------------------------------------------------------------------------------------

def asked(root):
    return [json.loads(line) for line in (root.parent / "asked").read_text().splitlines()]

async def talking(pilot):
    await pilot.press("f5")
    await until(pilot, lambda: pilot.app.page.ready)
    await pilot.press(*"Once", "enter")
    await until(pilot, lambda: shows(pilot, "Once w0"))

async def quiet(pilot, count=1):
    "The model has answered the question of that number."
    await until(pilot, lambda: pilot.app.page.count == count and not pilot.app.page.busy)

@pytest.mark.parametrize("size", [(80, 24), (140, 40)])
def test_chat_streams_stops_and_tries_again(root, fake, size):
    make_run(root / "mine")

    async def script(pilot):
        app = pilot.app
        await until(pilot, lambda: app.chosen)
        await talking(pilot)
        page = app.page
        await until(pilot, lambda: shows(pilot, "writing, esc stops"))
        await pilot.press("escape")
        await quiet(pilot)
        await until(pilot, lambda: shows(pilot, "stop"))
        assert len(page.turns[0].tokens) < 200
        page.query_one("#max_new_tokens", Knob).value = "25"
        page.query_one("#seed", Knob).value = "7"
        await pilot.press("ctrl+r")
        await quiet(pilot, 2)
        assert asked(root)[1] | {"id": 0} == {
            "id": 0, "prompt": "Once", "probs": True, "temperature": 0.8, "top_k": 0, "top_p": 0.95,
            "min_p": 0, "repetition_penalty": 1, "max_new_tokens": 25, "seed": 7}
        await until(pilot, lambda: shows(pilot, "25 tokens · 99 tokens/s · T 0.8 · top-p 0.95 · seed 7",
                                         "25/64"))
        await pilot.press("ctrl+g")                           # it goes on from all there is
        await quiet(pilot, 3)
        assert asked(root)[2]["prompt"].startswith("Once w0 w1") and len(page.turns[0].tokens) == 50
        await pilot.press("up", "!", "enter")                 # edit and send again
        await quiet(pilot, 4)
        assert asked(root)[3]["prompt"] == "Once!" and len(page.turns) == 1
        await pilot.press("ctrl+s")
        await until(pilot, lambda: list((root / "mine").glob("chat-*.json")))
        saved = list((root / "mine").glob("chat-*.txt"))
        assert saved[0].read_text().startswith("Once! w0 w1")
        assert json.loads(saved[0].with_suffix(".json").read_text())["turns"][0]["settings"]["seed"] == 7
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
        await until(pilot, lambda: shows(pilot, "instead: ␣the 50.0%", "surely"))
        await pilot.press("right", "right", "right")
        await until(pilot, lambda: shows(pilot, "␣w3 30.0%") and pilot.app.page.turns[0].at == 3)
        line = next(i for i, text in enumerate(screen(pilot.app).split("\n")) if "Once w0 w1" in text)
        column = screen(pilot.app).split("\n")[line].index("w7")
        await pilot.hover(offset=(column, line))
        await until(pilot, lambda: shows(pilot, "␣w7 70.0%"))
        await pilot.press("x")
        await until(pilot, lambda: not shows(pilot, "instead"))
    drive(tui.Tui(root, gpt=fake), script)

def test_chat_survives_models_that_fail(root, fake):
    make_run(root / "broken")
    make_run(root / "good", age=9)
    make_run(root / "bad", age=99)

    async def script(pilot):
        app = pilot.app
        await until(pilot, lambda: app.chosen)
        await pilot.press("f5")
        await until(pilot, lambda: shows(pilot, "is no checkpoint"))
        await pilot.press("ctrl+o", *"good best", "enter")
        await until(pilot, lambda: app.page.ready)
        await pilot.press("ctrl+o", *"bad best", "enter")
        await until(pilot, lambda: shows(pilot, "no checkpoint of gpt.py"))
        await pilot.press("ctrl+o", *"good latest", "enter")
        await until(pilot, lambda: app.page.ready)
        await pilot.press(*"deaf", "enter")                   # does not listen: after two seconds it is ended
        await until(pilot, lambda: shows(pilot, "deaf w0"))
        app.page.query_one("#max_new_tokens", Knob).value = "2000"
        await pilot.press("escape")
        await quiet(pilot)
    drive(tui.Tui(root, gpt=fake), script)

# ---- everywhere --------------------------------------------------------------------------------------------

def test_a_terminal_that_is_too_small_says_so(root, fake):
    async def script(pilot):
        for key in "1234":
            await pilot.press("f" + str(int(key) + 1))
            await pilot.resize_terminal(59, 20)
            await until(pilot, lambda: shows(pilot, "59×20", "60×16"))
            await pilot.resize_terminal(80, 24)
            await until(pilot, lambda: shows(pilot, "1 Train"))
    drive(tui.Tui(root, gpt=fake), script)

def test_help_palette_and_every_theme(root, fake):
    make_run(root / "mine", 100, end="")

    async def script(pilot):
        app = pilot.app
        await until(pilot, lambda: app.chosen)
        await pilot.press("f3", "question_mark")
        await until(pilot, lambda: shows(pilot, "Watch one run", "Pause", "Log y"))
        await pilot.press("escape", "ctrl+p")
        await until(pilot, lambda: "CommandPalette" in str(app.screen))
        await pilot.press(*"smooth", "enter", "enter")
        await until(pilot, lambda: app.page.share == 0.15)
        for i, theme in enumerate(["textual-light", "nord", "ansi-dark", "ansi-light", "dracula"]):
            app.theme = theme
            await pilot.press(f"f{i % 4 + 2}")
        await pilot.press("f3")
        await until(pilot, lambda: shows(pilot, "mine", "training"))
    drive(tui.Tui(root, gpt=fake), script)
    assert "theme" in json.loads((root / ".tui.json").read_text())
    assert tui.Tui(root).theme == json.loads((root / ".tui.json").read_text())["theme"]

def test_without_colour(root, fake, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    make_run(root / "a", 100, end="")

    async def script(pilot):
        await until(pilot, lambda: shows(pilot, "★ best", "● val"))
        colours = {s.style.color.get_truecolor() for strip in pilot.app.screen._compositor.render_strips()
                   for s in strip if s.style and s.style.color and not s.style.color.is_default}
        assert all(max(c) - min(c) < 3 for c in colours)
    drive(tui.Tui(root, root / "a", gpt=fake), script)

def test_command_line():
    run = lambda *words: subprocess.run([sys.executable, HERE / "tui.py", *words], capture_output=True,
                                        text=True)
    assert "python tui.py" in run("--help").stdout or "usage" in run("--help").stdout
    assert run("no/such/run").stderr == "error: no/such/run is no folder of a run\n"
    probe = "import sys, tui; assert not {'torch', 'gpt', 'numpy'} & sys.modules.keys()"
    assert subprocess.run([sys.executable, "-c", probe], cwd=HERE).returncode == 0

# ---- the whole, for real -----------------------------------------------------------------------------------

@pytest.mark.skipif(not find_spec("torch"), reason="trains for real")
def test_a_real_training_from_start_to_talk(root):
    async def script(pilot):
        app = pilot.app
        await ready(pilot)
        for name, value in {"data": "builtin", "max_iters": "3000", "eval_interval": "3000"}.items():
            app.page.query_one(f"#{name}", Input).value = value
        await pilot.press("ctrl+t")
        await until(pilot, lambda: app.page.query("#sample_tokens"))
        for name, value in {"threads": "1", "n_layer": "1", "n_head": "1", "n_embd": "16", "block_size": "32",
                            "batch_size": "8", "eval_tokens": "2000", "sample_tokens": "20"}.items():
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
    tmux = lambda *words: subprocess.run(["tmux", "-f", "/dev/null", "-L", name, *words], capture_output=True,
                                         text=True).stdout
    command = f"env -u COLUMNS -u LINES {sys.executable} {HERE / 'tui.py'} {root / 'mine'} --runs {root}; " \
        "echo left $?; sleep 60"

    def seen(*texts, seconds=10):
        end = time.time() + seconds
        while time.time() < end:
            if all(text in tmux("capture-pane", "-p") for text in texts):
                return True
            time.sleep(0.05)
        raise AssertionError(tmux("capture-pane", "-p"))
    try:
        start = time.time()
        tmux("new-session", "-d", "-x", "80", "-y", "24", command)
        seen("training", "200/400", "it says", "p Pause")
        assert time.time() - start < 5                        # under a second on an idle machine
        tmux("send-keys", "3")
        seen("mine", "best", "b/byte")
        tmux("resize-window", "-x", "140", "-y", "40")
        seen("weights", "preset")
        tmux("send-keys", "C-q")
        seen("left 0")
    finally:
        tmux("kill-server")
