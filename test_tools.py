"""The promises of tools.py, held: runs, plot, eval, chat, bench, and what stands beside the loop.

Everything here works without a network and without a GPU."""

import base64
import bz2
import contextlib
import json
import math
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import gpt
import recipes
import tools
from conftest import until

HERE = Path(__file__).resolve().parent
GPT = HERE / "gpt.py"
MINI = dict(
    n_layer=2,
    n_head=2,
    n_embd=16,
    block_size=16,
    batch_size=6,
    max_iters=10,
    dropout=0.1,
    threads=1,
    dtype="float32",
    sample_tokens=8,
    eval_interval=10,
    log_interval=1,
    warmup_iters=2,
)


POSIX = pytest.mark.skipif(os.name != "posix", reason="needs signals, locks or names that only POSIX has")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "A folder with a text and one short run on it, runs/a."
    place = tmp_path_factory.mktemp("trained")
    story = place / "story.txt"
    story.write_text(gpt.read_text("builtin")[:40_000], encoding="utf-8")
    gpt.train(**{**MINI, "data": str(story), "out_dir": str(place / "runs" / "a"), "max_iters": 20})
    return place


@pytest.fixture
def inside(trained, monkeypatch):
    "That folder, and we are in it."
    monkeypatch.chdir(trained)
    return trained


def mini(**asked):
    return gpt.train(**{**MINI, "data": "story.txt", **asked})


def shell(*words, timeout=120, env=None, cwd=None):
    command = [sys.executable, str(GPT), *map(str, words)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=cwd, env=env)


def command(words):
    "A command line, in this process."
    words = words.split() if isinstance(words, str) else words
    gpt.run_command(*gpt.command_line(words))


def answer(capsys, words):
    "What a command line prints, as JSON."
    command(words)
    return json.loads(capsys.readouterr().out)


def log(folder):
    text = (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def write_run(folder, *lines, age=0.0):
    "A run's folder with these lines, dicts or anything, last written so many seconds ago."
    folder = Path(folder)
    folder.mkdir(parents=True)
    file = folder / "metrics.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    file.write_text("".join(text + "\n" for text in texts))
    os.utime(file, (time.time() - age,) * 2)
    return folder


def start_line(**train):
    model = {"block_size": 8}
    return {"kind": "start", "time": 1, "parameters": 100, "config": {"train": train, "model": model}}


def lm(vocab=40):
    "A little model with random weights and a character for each token."
    torch.manual_seed(0)
    shape = gpt.ModelConfig(n_layer=2, n_head=2, n_embd=16, block_size=12, vocab_size=vocab)
    model = gpt.GPT(shape).eval()
    for w in model.parameters():
        w.data *= 4  # so that the likeliest token is a clear one
    return gpt.LM(model, gpt.CharTokenizer("".join(chr(65 + i) for i in range(vocab - 1))))


def bytewise_lm(text=""):
    "The same with BPE whose tokens are the 256 bytes; given a text, it says that text over and over."
    tokens = [base64.b64encode(bytes([i])).decode() for i in range(256)]
    tokenizer = gpt.BPETokenizer(" ".join(tokens))
    shape = gpt.ModelConfig(n_layer=1, n_head=1, n_embd=8, block_size=64, vocab_size=257)
    it = gpt.LM(gpt.GPT(shape).eval(), tokenizer)
    if text:
        script = tokenizer.encode(text) * 9
        said = iter(script)

        def forward(ids, cache, last_only):
            cache.length += ids.shape[1]
            logits = torch.zeros(1, 1, 257)
            logits[0, 0, next(said)] = 5.0
            return logits

        it.model.forward = forward
    return it


# ---- the command line --------------------------------------------------------------------------------------

QUICK = ["presets", "presets --json", "plan", "runs", "runs --json"]
QUICK += [f"{name} --help" for name in tools.COMMANDS]


@pytest.mark.parametrize("words", QUICK)
def test_quick_answers_need_no_torch(words, trained, tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    for _ in range(3):
        start = time.perf_counter()
        done = shell(*words.split(), env={"PYTHONPATH": str(tmp_path)}, cwd=trained)
        took = time.perf_counter() - start
        assert done.returncode == 0 and done.stdout, done.stderr
        if took < 1:
            return
    raise AssertionError(f"never in less than a second, the last time in {took:.2f} s")


def test_gpt_py_names_exactly_these_commands():
    assert gpt.TOOLS.keys() == tools.COMMANDS.keys()


def test_a_bare_switch_does_not_swallow_the_next_word():
    assert gpt.command_line(["chat", "--jsonl", "runs/a"])[1] == {"jsonl": True, "run": ["runs/a"]}
    assert gpt.command_line(["eval", "--rows", "runs/a"])[1] == {"rows": True, "run": ["runs/a"]}
    assert gpt.command_line(["plot", "--out", "x.png", "a", "b"])[1] == {"run": ["a", "b"], "out": "x.png"}


MISTAKES = [
    ("sample --temperature -1", "temperature >= 0"),
    ("sample --top_p 0", "0 < top_p <= 1"),
    ("sample --top_p 1.5", "0 < top_p <= 1"),
    ("sample --repetition_penalty 0", "repetition_penalty > 0"),
    ("sample runs/none", "no such run"),
    ("sample runs", "no checkpoint in"),
    ("sample --prompt_file none.txt", "none.txt"),
    ("sample runs/a runs/b", "one RUN"),
    ("eval --data none.txt", "none.txt"),
    ("eval --split train", "there is val, test"),
    ("eval --stride -1", "stride >= 0"),
    ("eval --threads -1", "0 <= threads"),
    ("eval --data short.txt --split test", "too few"),
    ("plot runs/none", "no run's folder"),
    ("plot runs/a --out loss.docx", "--out loss.docx"),
    ("runs --sort size", "--sort size"),
    ("chat newer.pt", "get a newer one"),
    ("chat --temperature -1", "temperature >= 0"),
    ("chat --jsonl runs/none", "no such run"),
    ("bench --preset nanoo", "did you mean nano"),
    ("bench --against x", "there is none, hf"),
    ("presets --level wrd", "did you mean word"),
    ("plan --gpu a1000", "did you mean a100"),
    ("plan --gpu x", "there is b200, h200"),
    ("plan --gpus 0", "1 <= gpus"),
    ("plan --gpus 1000", "--batch_size 1000"),
    ("plan --mfu 2", "0.001 <= mfu <= 1"),
    (f"plan --vocab_size {'9' * 308}", "too large to be counted"),
    ("plan --preset laptop", "give --max_iters"),
    ("presets --preset nanoo", "did you mean nano"),
    ("presets --n_embd 50 --preset nano", "n_embd % n_head == 0"),
]


@pytest.mark.parametrize("words,told", MISTAKES)
def test_mistakes_of_those_who_have_a_run(words, told, inside, capsys):
    Path("short.txt").write_text("abc")
    torch.save({**torch.load("runs/a/best.pt", weights_only=True), "version": 99}, "newer.pt")
    with pytest.raises(SystemExit) as end, gpt.errors_told():
        command(words)
    error = capsys.readouterr().err
    assert error.startswith("error: ") and told in error and error.count("\n") == 1
    assert end.value.code in (1, 2)


# ---- runs --------------------------------------------------------------------------------------------------


def test_runs(inside, capsys):
    foreign = [
        start_line(preset="tiny", level="word"),
        {"kind": "eval", "time": 2, "step": 5, "val_loss": 0.5},
        {"kind": "eval", "step": 6, "val_loss": None},
        "rubbish",
        "[1]",
        '{"kind": "st',
    ]
    b = write_run("runs/b", *foreign, age=1e9)
    c = write_run("runs/c")
    try:
        rows = answer(capsys, "runs --json --sort best")
        assert [row["run"] for row in rows] == ["b", "a", "c"]
        b_row, a_row, c_row = rows
        assert [row["state"] for row in rows] == ["crashed", "done", "starting"]
        assert b_row["best"] == 0.5 and b_row["at"] == 5
        model = gpt.load("runs/a").model
        assert a_row["steps"] == 20 and a_row["weights"] == sum(w.numel() for w in model.parameters())
        assert list(a_row) == list(tools.RUN_COLUMNS) and a_row["bits/byte"] > 1 and a_row["tokens/s"] > 10
        assert a_row["preset"] == "nano" and c_row["steps"] is None
        command("runs")
        table = capsys.readouterr().out.splitlines()
        assert len(table) == 4 and table[0].split()[:4] == ["run", "preset", "level", "data"]
    finally:
        for folder in (b, c):
            (folder / "metrics.jsonl").unlink()
            folder.rmdir()


def test_no_runs_yet(place, capsys):
    with pytest.raises(gpt.UserError, match="no runs yet"):
        command("runs")
    assert answer(capsys, "runs --json") == []


@POSIX
def test_a_paused_run_has_not_crashed(place, capsys):
    import fcntl

    folder = write_run("runs/p", start_line(preset="nano"), {"kind": "state", "state": "paused"}, age=3600)
    with open(folder / "metrics.jsonl", "a") as file:  # as gpt.py has it open
        fcntl.flock(file, fcntl.LOCK_EX)
        assert answer(capsys, "runs --json")[0]["state"] == "paused"
    assert answer(capsys, "runs --json")[0]["state"] == "crashed"


@pytest.mark.parametrize("reason", ["done", "time", "patience", "stopped"])
def test_the_table_says_why_a_run_ended(reason, place, capsys):
    end = {"kind": "end", "step": 3, "reason": reason, "message": ""}
    write_run("runs/x", start_line(), end, age=3600)
    assert answer(capsys, "runs --json")[0]["state"] == reason


@POSIX
def test_bad_folders_beside_good_ones(place, capsys):
    write_run(
        "runs/good", start_line(preset="nano"), {"kind": "step", "step": 7, "loss": 2, "tokens_per_s": 99}
    )
    write_run("runs/deep", "[" * 5000, start_line(preset=["x"], level={}, data=7))
    write_run("runs/wild", {"kind": "eval", "step": 1e99, "val_loss": 1e300}, {"kind": "step", "step": "x"})
    write_run("runs/list", {"kind": "start", "config": [1]}, {"kind": "end", "reason": None, "step": None})
    write_run("runs/\x1b[31mred\nline", start_line(data="\x9b\u202eevil"))
    Path("runs/raw").mkdir()
    Path("runs/raw/metrics.jsonl").write_bytes(b"\xff\xfe\0\n" * 9)
    Path("runs/folder/metrics.jsonl").mkdir(parents=True)
    Path("runs/pipe").mkdir()
    os.mkfifo("runs/pipe/metrics.jsonl")
    Path("runs/link").symlink_to("nowhere")
    for column in tools.RUN_COLUMNS:
        rows = {row["run"]: row for row in answer(capsys, f"runs --json --sort {column}")}
        assert rows["good"]["steps"] == 7 and rows["good"]["tokens/s"] == 99
        assert {"deep", "wild", "list", "raw"} <= rows.keys()
    command("runs")
    table = capsys.readouterr().out
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", table)
    assert len(table.splitlines()) == 1 + len(rows)


def test_runs_on_the_drive_are_found_too(place, monkeypatch, capsys):
    monkeypatch.setattr(gpt, "RUN_ROOTS", [Path("runs"), place / "drive" / "gpt-runs"])
    write_run("runs/here", start_line())
    there = write_run("drive/gpt-runs/there", start_line())
    assert {row["run"] for row in answer(capsys, "runs --json")} == {"here", str(place / there)}


# ---- plot --------------------------------------------------------------------------------------------------


def test_plot_without_matplotlib_and_without_torch(trained, tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError('none')")
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    done = shell("plot", "runs/a", cwd=trained, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1 and done.stderr.startswith("error: pip install matplotlib")


@pytest.fixture
def agg(monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("MPLBACKEND", "agg")


@pytest.mark.parametrize("out", ["loss.svg", "loss.png", "loss.pdf"])
def test_plot(out, agg, inside, capsys):
    command(f"plot runs/a runs/a/best.pt --out {out}")
    assert capsys.readouterr().out == f"{out}\n"
    assert Path(out).stat().st_size > 5000
    if out == "loss.svg":
        assert "million tokens" in Path(out).read_text()


@POSIX
def test_plot_draws_the_newest_run_and_any_name(agg, place):
    train = {"batch_size": 4}
    evals = [{"kind": "eval", "step": step, "val_loss": 3.0 - step} for step in (0, 1)]
    write_run("runs/old", start_line(**train), age=99)
    write_run("runs/$\\frac$", start_line(**train), *evals)
    command("plot --out new.svg")
    assert Path("new.svg").stat().st_size > 5000


@pytest.mark.parametrize(
    "lines,told",
    [
        ([start_line(batch_size=4)], "no evaluation yet"),
        ([start_line(batch_size=4), {"kind": "eval", "step": 1, "val_loss": None}], "no evaluation yet"),
        ([{"kind": "eval", "step": 1, "val_loss": 1.5}], "how the run began is missing"),
        ([], "no evaluation yet"),
    ],
)
def test_a_run_that_cannot_be_drawn_is_one_clear_line(lines, told, agg, place):
    write_run("runs/x", *lines)
    with pytest.raises(gpt.UserError, match=f"^runs/x.*{told}"):
        command("plot runs/x")


# ---- beside the training loop ------------------------------------------------------------------------------

NUMBERS = {
    "step": 7,
    "loss": 2.5,
    "val_loss": 2.75,
    "best": 2.625,
    "lr": 0.001,
    "tokens_per_s": 1234.5,
    "mfu": None,
    "eta_s": 75.0,
    "memory_mb": 512.3,
    "done": 0.25,
}


@pytest.fixture
def display(monkeypatch):
    "-> function: the live display that has heard these lines of a log, as text, after something was printed."
    console = pytest.importorskip("rich.console")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")

    def show(*lines):
        shown = tools.LiveDisplay()
        for kind, fields in lines:
            shown.hear(kind, fields)
        print("[bold]said[/bold] above")
        shown.close()
        screen = console.Console(width=80, height=24)
        with screen.capture() as capture:
            screen.print(shown.draw())
        return capture.get()

    return show


def test_the_live_display_shows_what_is_newest(display, capsys):
    sample = {"text": "It said\n\n\nso\x1b[31m."}
    lines = [
        ("step", NUMBERS),
        ("state", {"state": "training"}),
        ("sample", sample),
        ("warn", {"text": "warning"}),
    ]
    text = display(*lines)
    assert "[bold]said[/bold] above" in capsys.readouterr().out
    words = re.sub(r"[│\s]+", " ", text)
    assert "─ training ─" in words and " step 7 loss 2.5000 val 2.7500 best 2.6250 lr 0.001 " in words
    assert " 1.23k tokens/s eta 1:15 512 MB " in words
    assert text.count("━") == 76
    assert re.search("│ It said +│\n│ so.\\[31m", text) and "\x1b[31m" not in text
    assert "warning" not in text
    assert len(text.splitlines()) == 12


def test_the_live_display_of_a_run_that_has_said_nothing(display):
    assert len(display().splitlines()) == 12


@pytest.mark.parametrize(
    "name,value", [("JPY_PARENT_PID", "1"), ("COLAB_RELEASE_TAG", "x"), ("TERM", "dumb")]
)
def test_no_live_display_where_none_is_right(name, value, monkeypatch):
    for other in ("JPY_PARENT_PID", "COLAB_RELEASE_TAG"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    pytest.importorskip("rich")
    assert tools.can_draw()
    monkeypatch.setenv(name, value)
    assert not tools.can_draw()


@POSIX
def test_a_terminal_gets_a_live_display(place):
    "In a pseudo terminal of 80x24, as people see it."
    pytest.importorskip("rich")
    import fcntl
    import pty
    import struct
    import termios

    asked = {**MINI, "data": "story.txt", "max_iters": 400, "eval_interval": 100}
    words = [f"--{name}={value}" for name, value in asked.items()]
    pid, fd = pty.fork()
    if pid == 0:
        for name in ("JPY_PARENT_PID", "COLAB_RELEASE_TAG"):
            os.environ.pop(name, None)
        os.environ.update(TERM="xterm", COLUMNS="80", LINES="24")
        os.execv(sys.executable, [sys.executable, str(GPT), "train", *words])
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    shown = b""
    while True:
        try:
            chunk = os.read(fd, 65536)
        except OSError:  # the other side is gone
            break
        if not chunk:
            break
        shown += chunk
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    shown = shown.decode()
    bare = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert "━" in bare and "eta 0:" in bare and shown != bare and "╭─ training" in bare


@pytest.fixture
def silence(tmp_path, monkeypatch):
    "-> what begins to watch a run whose other processes were heard so many seconds ago, and what it said."

    class Run:
        folder, progress = tmp_path, types.SimpleNamespace(step=7)
        said, ended = [], []

        def __init__(self, seconds):
            self.ranks = types.SimpleNamespace(at_work=time.monotonic() - seconds)

        def warn(self, text):
            self.said.append(text)

        def log(self, kind, **fields):
            self.said.append(fields)

        log.say = said.append

    monkeypatch.setattr(tools.SilenceCheck, "PAUSE", 0.01)
    monkeypatch.setattr(tools.os, "_exit", Run.ended.append)
    begun = []

    def begin(seconds):
        begun.append(tools.SilenceCheck(Run(seconds)))
        return begun[-1]

    yield begin
    for check in begun:
        check.close()


def test_a_minute_without_the_other_processes_is_told_once(silence):
    check = silence(61)
    until(lambda: check.run.said)
    time.sleep(0.1)
    (text,) = check.run.said
    assert "no word from the other processes for 61 s" in text and "control" in text
    check.run.ranks.at_work = time.monotonic()
    until(lambda: len(check.run.said) == 2)
    assert check.run.said[1] == "the other processes are heard again"


def test_an_evaluation_that_takes_long_is_no_silence(silence):
    check = silence(40)
    time.sleep(0.1)
    check.run.ranks.at_work = time.monotonic()
    until(lambda: check.longest > 39)
    check.run.ranks.at_work = time.monotonic() - 100
    time.sleep(0.1)
    assert check.run.said == []


def test_a_silence_that_grows_is_told(silence, monkeypatch):
    monkeypatch.setattr(tools.SilenceCheck, "PATIENCE", 0.3)
    begun = time.monotonic()
    check = silence(0)
    until(lambda: check.run.said)
    assert 0.3 <= time.monotonic() - begun < 5


def test_stop_is_obeyed_while_the_training_waits_for_others(silence, tmp_path):
    check = silence(61)
    until(lambda: check.run.said)
    (tmp_path / "control").write_text("pause")  # for when the others are heard again
    time.sleep(0.1)
    assert not check.run.ended and (tmp_path / "control").read_text() == "pause"
    (tmp_path / "control").write_text("stop")
    until(lambda: check.run.ended)
    assert check.run.ended[0] == 1
    assert {"step": 7, "reason": "error", "message": "the other processes are gone"} in check.run.said


# ---- after a run -------------------------------------------------------------------------------------------


def test_a_run_ends_with_how_good_that_is_and_what_to_try_next(place):
    def said(loss, reason="done", steps=0, **changes):
        asked = {"preset": "nano", "level": "word", **changes}
        model, config = gpt.configure(asked)
        Path("config.json").write_text(json.dumps({"model": vars(model), "train": vars(config)}))
        history = [{"kind": "eval", "step": steps or config.max_iters}]
        result = types.SimpleNamespace(out_dir=".", best_val_loss=loss, reason=reason, history=history)
        return tools.afterwards(result)

    usual = gpt.load_presets()["nano"]["word"]["expect"].split()[1]
    short, of_it = "The run has read the text ", " times: more text would help most."
    better = "To go lower:\n  python gpt.py train --preset micro --level word"
    assert said(4.9712) == f"4.97 per word: nano usually reaches {usual}. {better}"
    assert f"reaches {usual} without --max_iters." in said(5.5, max_iters=100)
    assert said(5.5, data="my text.txt") == f"{better} --data 'my text.txt'"
    changed = said(5.5, n_layer=1, n_head=1, optimizer="adamw", teacher="runs/t", threads=1, eval_interval=50)
    assert f"reaches {usual} without --n_layer --n_head --teacher --optimizer." in changed
    assert changed.endswith("--preset micro --level word --teacher runs/t")
    assert said(3.0, level="bpe", vocab_size=500).endswith("--preset micro --level bpe --vocab_size 500")
    assert said(3.0, level="bpe").endswith("--preset micro --level bpe")  # which learns its own
    longer = said(1.5, "time", preset="laptop", level="char", data="shakespeare", max_minutes=3, n_embd=64)
    assert longer.endswith("--preset laptop --max_minutes 6 --level char --data shakespeare --n_embd 64")
    assert said(5.5, steps=99) == f"5.50 per word: nano usually reaches {usual}. {short}35{of_it}"
    enough = said(1.5, preset="laptop", level="char", data="shakespeare")
    assert enough == f"1.50 per character: laptop usually reaches 1.45. {short}15{of_it}"
    more = said(1.5, "time", preset="laptop", level="char", data="shakespeare", max_minutes=3)
    assert more.startswith("1.50 per character: laptop usually reaches 1.45. To go lower:")
    assert more.endswith("--preset laptop --max_minutes 6 --level char --data shakespeare")
    assert said(3.0, preset="gpt2", level="bpe") == ""
    assert said(9.9, "stopped") == ""  # --resume is what comes next


def test_a_text_of_ones_own_is_compared_with_a_packer(place):
    text = "".join(random.Random(1).choices("etaoin shrdlu", k=200_000))
    used = {"data": "own.txt", "val_fraction": 0.1}
    history = [{"kind": "step"}, {"bits_per_byte": 2.34}, {"bits_per_byte": None}]  # None was no number
    Path("own.txt").write_text(text, encoding="utf-8")
    packed = 8 * len(bz2.compress(text[180_000:].encode())) / 20_000
    said = tools.beside_bzip2(used, history)
    told = "2.34 bits per byte of the held-out text; bzip2, which has not read the rest, needs"
    assert said == f"{told} {packed:.2f}."
    assert 3.5 < packed < 4  # 13 signs, all as likely: 3.7 bits each
    assert tools.beside_bzip2(used, history[:1]) == ""  # words, of which some are <unk>
    Path("own.txt").write_text(text[:50_000], encoding="utf-8")
    assert tools.beside_bzip2(used, history) == ""  # too short for bzip2
    Path("own.txt").unlink()
    assert tools.beside_bzip2(used, history) == ""


# ---- a teacher ---------------------------------------------------------------------------------------------


@pytest.fixture
def school(trained, tmp_path, monkeypatch):
    "A copy of that folder, for more runs."
    shutil.copytree(trained, tmp_path / "school")
    monkeypatch.chdir(tmp_path / "school")


@pytest.fixture
def taught(school):
    "-> the Teacher of a run that has begun beside runs/a, which teaches it."

    def begin(**asked):
        with contextlib.ExitStack() as cleanup:
            asked = {**MINI, "data": "story.txt", "teacher": "runs/a", **asked}
            return gpt.TrainingRun(asked, cleanup).teacher

    return begin


def rows(places):
    "What stands in the text there -> inputs and targets."
    text = Path("story.txt").read_text(encoding="utf-8")
    ids = torch.tensor([gpt.load("runs/a").tokenizer.encode(text[place : place + 17]) for place in places])
    return ids[:, :-1], ids[:, 1:]


def test_a_teacher_says_how_likely_each_token_should_have_been(taught):
    x, y = rows([0, 500])
    expected = taught(teacher_share=0.25)(x, y)
    torch.testing.assert_close(expected.sum(-1), torch.ones(2, 16))
    with torch.no_grad():
        probs = gpt.load("runs/a").model(x).softmax(-1)
    by_hand = 0.25 * probs + 0.75 * torch.nn.functional.one_hot(y, probs.size(-1))
    torch.testing.assert_close(expected, by_hand)


def test_several_teachers_are_the_mean_of_their_probabilities(taught):
    gpt.train(**{**MINI, "data": "story.txt", "seed": 2, "out_dir": "runs/b"})
    batch = rows([30])
    each = [taught(teacher=name)(*batch) for name in ("runs/a", "runs/b")]
    both = taught(teacher=["runs/a", "runs/b"])(*batch)
    torch.testing.assert_close(both, sum(each) / 2)


def test_a_teacher_without_a_share_changes_nothing_and_one_with_all_of_it_is_copied(school):
    ask = {**MINI, "data": "story.txt", "dropout": 0.0, "max_iters": 60, "eval_interval": 60}
    plain = gpt.train(**ask, out_dir="runs/plain")
    none = gpt.train(**ask, out_dir="runs/no-share", teacher="runs/plain", teacher_share=0)
    assert abs(plain.best_val_loss - none.best_val_loss) < 1e-3
    copied = gpt.train(**ask, out_dir="runs/copied", teacher="runs/plain", teacher_share=1, seed=3)
    assert 3 < copied.best_val_loss < 4  # it began at 4.5
    longer = gpt.train(resume="runs/copied", max_iters=70)  # the teacher comes again
    assert longer.reason == "done"


def test_a_teacher_that_can_not_teach_is_one_line(school):
    gpt.train(**{**MINI, "data": "builtin", "level": "word", "max_iters": 1, "out_dir": "runs/words"})
    ask = {**MINI, "data": "story.txt", "max_iters": 1}
    with pytest.raises(gpt.UserError, match="--teacher runs/words has other tokens"):
        gpt.train(**ask, teacher="runs/words")
    with pytest.raises(gpt.UserError, match="runs/nobody"):
        gpt.train(**ask, teacher="runs/nobody")
    with pytest.raises(gpt.UserError, match="runs/a sees 16 tokens, this run 32: --block_size 16 would fit"):
        gpt.train(**{**ask, "block_size": 32}, teacher="runs/a")


def test_a_teacher_that_can_not_teach_leaves_no_run_behind(school):
    before = sorted(os.listdir("runs"))
    with pytest.raises(gpt.UserError):
        gpt.train(**{**MINI, "data": "story.txt", "out_dir": "runs/new"}, teacher="runs/nobody")
    assert sorted(os.listdir("runs")) == before


def test_a_run_can_go_on_when_its_teacher_is_gone(school, capsys):
    shutil.copytree("runs/a", "runs/gone")
    gpt.train(**{**MINI, "data": "story.txt", "out_dir": "runs/pupil", "max_iters": 2}, teacher="runs/gone")
    assert "teacher    runs/gone: 50% of the loss" in capsys.readouterr().out
    shutil.rmtree("runs/gone")
    for steps, asked in enumerate(({"teacher_share": 0}, {"teacher_share": 0.5, "teacher": ""}), start=3):
        result = gpt.train(resume="runs/pupil", max_iters=steps, **asked)
        assert result.reason == "done"
    assert "teacher  " not in capsys.readouterr().out


# ---- minutes -----------------------------------------------------------------------------------------------


def test_on_a_slow_machine_evaluations_leave_the_minutes_to_training(place, monkeypatch, capsys):
    monkeypatch.setattr(tools, "EVALUATION_SHARE", 1e-6)  # as on a machine of a fraction of the speed
    asked = {**MINI, "preset": "nano", "data": "story.txt", "max_iters": 0, "max_minutes": 0.02}
    gpt.train(**asked, out_dir="runs/slow")
    one_batch = MINI["batch_size"] * MINI["block_size"]
    assert f"evaluations read {one_batch} of 4,000 tokens" in capsys.readouterr().out
    saved = gpt.load_checkpoint(Path("runs/slow/latest.pt"))
    assert saved["train_config"]["eval_tokens"] == one_batch and saved["progress"]["step"] > 1
    result = gpt.train(resume="runs/slow", max_minutes=0.03)  # whose losses are of the same text
    assert result.reason == "time" and "evaluations read" not in capsys.readouterr().out
    assert gpt.load_checkpoint(Path("runs/slow/latest.pt"))["train_config"]["eval_tokens"] == one_batch


def test_a_machine_that_is_fast_enough_evaluates_on_all(place, capsys):
    asked = {**MINI, "preset": "nano", "data": "story.txt", "max_iters": 2, "max_minutes": 10}
    gpt.train(**asked, out_dir="runs/fast")
    assert "evaluations read" not in capsys.readouterr().out
    assert gpt.load_checkpoint(Path("runs/fast/latest.pt"))["train_config"]["eval_tokens"] == 1_000_000


def test_only_numbered_checkpoints_go_and_the_oldest_first(tmp_path):
    ages = {"step-00000040.pt": 50, "step-00000050.pt": 40, "step-final.pt": 99, "step-1.txt": 99}
    for name, age in ages.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    (tmp_path / "latest.pt").write_bytes(b"weights")
    progress = types.SimpleNamespace(step=30, evaluated_at=30)  # it went on from an earlier step
    config = types.SimpleNamespace(keep=2)
    tools.keep_checkpoint(types.SimpleNamespace(folder=tmp_path, progress=progress, config=config))
    left = sorted(path.name for path in tmp_path.glob("step-*"))
    assert left == ["step-00000030.pt", "step-00000050.pt", "step-1.txt", "step-final.pt"]


def fake_tracker(monkeypatch, name):
    "A package that notes what it is told."
    told = []
    package = types.ModuleType(name)
    package.init = lambda **settings: told.append(("init", settings))
    package.log = lambda numbers, step: told.append(("log", step, numbers))
    package.finish = lambda: told.append(("finish",))
    monkeypatch.setitem(sys.modules, name, package)
    return told


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_trackers_get_the_numbers_and_are_closed(name, place, monkeypatch):
    told = fake_tracker(monkeypatch, name)
    mini(tracker=name, max_iters=3)
    mini(tracker=name, max_iters=2)
    assert [kind for kind, *_ in told if kind != "log"] == ["init", "finish", "init", "finish"]
    settings = told[0][1]
    assert settings["project"] == "gpt" and settings["name"] == "nano-char-story"
    assert settings["config"]["train"]["max_iters"] == 3
    steps = [step for kind, step, _ in told[1 : told.index(("finish",))]]
    assert steps[0] == 0 and told[1][2]["val_loss"] > 0 and steps[-1] == 3


def test_a_tracker_is_closed_where_training_fails(place, monkeypatch):
    told = fake_tracker(monkeypatch, "wandb")
    monkeypatch.setattr(gpt, "lr_factor", lambda config, step, done: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        mini(tracker="wandb", max_iters=3)
    assert told[-1] == ("finish",)


def test_a_missing_tracker_is_told_before_anything_begins(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(gpt.RunError, match="pip install trackio"):
        mini(tracker="trackio", max_iters=3)
    assert not Path("runs").exists()


def test_tensorboard(tmp_path, monkeypatch):
    told = []

    class SummaryWriter:
        def __init__(self, folder):
            told.append(folder)

        def add_scalar(self, name, value, step):
            told.append((name, value, step))

        def close(self):
            told.append("closed")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "tensorboard", types.ModuleType("tensorboard"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    tracker = tools.Tracker("tensorboard", tmp_path, {})
    tracker.hear("step", {"step": 5, "loss": 2.0, "lr": 0.1, "mfu": None})
    tracker.hear("state", {"state": "saving"})
    tracker.close()
    assert told == [str(tmp_path), ("step", 5, 5), ("loss", 2.0, 5), ("lr", 0.1, 5), "closed"]


def run_on(device="cpu", threads=2):
    "What threads_that_wait looks at of a gpt.TrainingRun."
    it = lm()
    return types.SimpleNamespace(
        device=torch.device(device),
        threads=threads,
        raw_model=it.model,
        clear_gradients=it.model.zero_grad,
        micro_batch=4,
        model_config=it.config,
        autocast=lambda: torch.autocast("cpu", enabled=False),
        folder=Path("runs/my run"),
    )


@pytest.fixture
def threads_kept():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_threads_that_wait_are_told(monkeypatch, threads_kept):
    took = {1: 10.0, 2: 25.0}
    monkeypatch.setattr(tools, "block_time", lambda run, threads: took[threads])
    told = tools.threads_that_wait(run_on())
    assert told.startswith("2 threads take 2.5 times as long as one here")
    assert told.endswith("python gpt.py train --resume 'runs/my run' --threads 1")
    assert torch.get_num_threads() == 2
    took[2] = 12.9
    assert tools.threads_that_wait(run_on()) == ""


def test_threads_that_wait_are_told_once_and_after_an_evaluation(monkeypatch):
    warned = []
    answers = iter(["", "they wait", "they wait again"])
    monkeypatch.setattr(tools, "threads_that_wait", lambda run: next(answers))
    run = run_on()
    run.warn = warned.append
    check = tools.ThreadCheck(run)
    for kind in ("step", "eval", "eval", "eval"):
        check.hear(kind, {})
    assert warned == ["they wait"]
    for alone in (run_on(threads=1), run_on(device="meta")):  # there is nothing to ask
        tools.ThreadCheck(alone).hear("eval", {})
    assert next(answers) == "they wait again"


def test_the_thread_check_leaves_no_trace(threads_kept):
    run = run_on()
    before = {name: w.clone() for name, w in run.raw_model.state_dict().items()}
    assert tools.block_time(run, 1) > 0
    assert run.raw_model.h[0].mlp.c_fc.weight.grad is not None  # so it did run backward
    assert isinstance(tools.threads_that_wait(run), str)
    assert all(w.grad is None for w in run.raw_model.parameters())
    assert torch.get_num_threads() == 2
    assert all(torch.equal(w, before[name]) for name, w in run.raw_model.state_dict().items())
    run.raw_model.requires_grad_(False)  # --freeze
    assert tools.block_time(run, 2) > 0


def test_a_short_text_has_a_short_warmup_and_evaluations_between():
    def fitted(max_steps, asked=(), resumed=None, **config):
        config = gpt.TrainConfig(epochs=9, **config)
        run = types.SimpleNamespace(config=config, max_steps=max_steps, resumed=resumed)
        tools.fit_short_text(run, asked)
        return config.warmup_iters, config.eval_interval

    assert fitted(18) == (3, 3)
    assert fitted(300) == (20, 50)
    assert fitted(999) == (20, 100)
    assert fitted(1000) == (20, 100)  # max_iters, as a book
    assert fitted(60, max_iters=0) == (10, 10)
    assert fitted(2) == (1, 1)
    assert fitted(60, ["eval_interval"], eval_interval=45) == (10, 45)
    assert fitted(60, resumed="runs/a") == (20, 100)


def test_evaluations_take_a_tenth_of_the_time_at_most(monkeypatch):
    monkeypatch.setattr(recipes, "median_ms", lambda work: 0.001)
    rows = [torch.zeros(10_000, 128)] * 2
    warned = []
    run = types.SimpleNamespace(
        splits=[rows, rows],
        micro_batch=8,
        raw_model=None,
        autocast=None,
        model_config=gpt.ModelConfig(block_size=128),
        config=gpt.TrainConfig(max_minutes=60, eval_interval=100, batch_size=32),
        ranks=types.SimpleNamespace(world_size=1, all_reduce_max=lambda n: [n]),
        corpus=types.SimpleNamespace(val=range(1_280_000)),
        warn=warned.append,
    )
    tools.shorten_evaluations(run)
    assert [len(part) for split in run.splits for part in split] == 4 * [480]
    assert run.config.eval_tokens == 480 * 128 and "61,440 of 1,280,000" in warned[0]
    run.config.eval_interval = 1
    tools.shorten_evaluations(run)
    assert len(run.splits[0][0]) == 20_000 // 128  # fewer would tell little


CARDS = {
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "A100-PCIE-40GB": 312e12,
    "Tesla T4": 65e12,
    "Tesla V100-SXM2-16GB": 125e12,
    "Tesla V100-PCIE-32GB": 112e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA L40": 181e12,
    "NVIDIA L4": 121e12,
    "NVIDIA A10": 125e12,
    "NVIDIA A10G": 70e12,
    "NVIDIA GeForce RTX 4090": 165e12,
    **dict.fromkeys(
        [
            "Some New GPU",
            "NVIDIA GeForce RTX 4090 Laptop GPU",
            "NVIDIA GeForce RTX 4090 D",
            "NVIDIA GeForce RTX 3090 Ti",
            "NVIDIA T400 4GB",
            "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
            "NVIDIA A10-24Q",
            "NVIDIA GH200 480GB",
            "NVIDIA H200 NVL",
            "NVIDIA A1000",
            "",
        ]
    ),
}


@pytest.mark.parametrize("name", CARDS)
def test_mfu_only_where_the_peak_is_known(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert tools.peak_flops(torch.device("cuda"), torch.bfloat16) == CARDS[name]
    assert tools.peak_flops(torch.device("cuda"), torch.float32) is None


def test_the_operations_of_a_token():
    it = lm()
    c = it.config
    per_token = 6 * (gpt.num_parameters(it.model) - c.block_size * c.n_embd)
    assert recipes.flops_per_token(it.config) == per_token + 12 * c.n_layer * c.n_embd * c.block_size
    assert tools.memory_used(torch.device("cpu")) > 50 or os.name == "nt"


# ---- the X-ray ---------------------------------------------------------------------------------------------


def test_probabilities_are_those_of_the_model():
    it = lm()
    pieces = [*tools.xray(it, "AB", probs=3, temperature=0.5, max_new_tokens=6)]
    assert pieces == [*it.stream("AB", temperature=0.5, max_new_tokens=6)]
    row = it.encode("AB" + "".join(pieces))
    with torch.no_grad():
        logits = it.model(torch.tensor([row]))[0]
    logits[:, 0] = -math.inf
    for i, piece in enumerate(pieces):
        probs = logits[1 + i].softmax(-1)
        assert piece.prob == pytest.approx(probs[row[2 + i]].item(), rel=1e-4)
        shares = [share for _, share in piece.alternatives]
        assert shares == pytest.approx(probs.topk(3).values.tolist(), rel=1e-4)
        assert piece.alternatives[0][0] == it.tokenizer.texts[int(probs.argmax())]


def test_a_stop_inside_a_token_leaves_its_probability():
    it = lm()
    text = it.sample("AB", max_new_tokens=8, temperature=0)

    class Decoder(gpt.Decoder):
        def add(self, i):
            return f"<{self.tokenizer.texts[i]}>"

    it.tokenizer.decoder = lambda ids=(): Decoder(it.tokenizer)
    pieces = [*tools.xray(it, "AB", probs=2, max_new_tokens=8, temperature=0, stop=text[3] + ">")]
    first = text.find(text[3])
    assert pieces == [f"<{c}>" for c in text[:first]] + ["<"]
    assert all(0 < piece.prob <= 1 for piece in pieces)


@pytest.mark.parametrize("stop", ["cd", "ab", "ba", "bc", "cda", ("ac", "bcd"), "aabcd", "abab"])
def test_tokens_of_several_characters_stop_where_the_stream_does(stop):
    it = lm(vocab=5)
    texts = ["", "a", "ab", "bc", "cda"]

    class Decoder(gpt.Decoder):
        def add(self, i):
            return texts[i]

    it.tokenizer.decoder = lambda ids=(): Decoder(it.tokenizer)
    for seed in range(20):
        ask = dict(max_new_tokens=12, temperature=9, stop=stop, seed=seed)
        pieces = [*tools.xray(it, "AB", probs=2, **ask)]
        assert "".join(pieces) == it.sample("AB", **ask)


def test_bpe_has_no_phantom_token_at_the_end():
    pieces = [*tools.xray(bytewise_lm("é♥"), "a", max_new_tokens=5, temperature=0)]
    assert "".join(pieces) == "é♥"
    assert len(pieces) == 5 and all(piece.prob > 0.1 for piece in pieces)
    assert len(bytewise_lm().sample("a", max_new_tokens=3)) <= 3


def test_the_rest_of_a_cut_character_has_no_probability():
    pieces = [*tools.xray(bytewise_lm("é♥"), "a", max_new_tokens=4, temperature=0)]
    assert "".join(pieces) == "é\N{REPLACEMENT CHARACTER}"
    *tokens, rest = pieces
    assert len(tokens) == 4 and all(piece.prob > 0.1 for piece in tokens)
    assert rest.prob is None and rest.alternatives == []


def test_alternatives_read_as_they_would_come_after_the_token_before():
    it = bytewise_lm("é♥")
    first, second, *_ = tools.xray(it, "a", max_new_tokens=5, temperature=0)
    assert first == "" and second == "é"
    assert second.alternatives[0][0] == "é"


def test_alternatives_have_their_capitals_where_the_text_has_them():
    tokenizer = gpt.WordTokenizer.train("It was so, he said. It was said so. " * 5, gpt.TrainConfig())
    said, = tokenizer.encode("said")
    for before, reads in (("so,", " said"), ("so.", " Said")):
        decoder = tokenizer.decoder(tokenizer.encode(before))
        assert tools.would_read(decoder, said) == reads == tools.would_read(decoder, said)


def test_a_character_of_three_tokens_is_an_alternative(tmp_path):
    it = bytewise_lm("♥")
    decoder = it.tokenizer.decoder()
    first, second, third = it.tokenizer.encode("♥")
    assert decoder.add(first) == decoder.add(second) == ""
    assert tools.would_read(decoder, third) == "♥" == tools.would_read(decoder, third)


def test_more_alternatives_than_tokens():
    for piece in tools.xray(lm(vocab=5), "AB", probs=9, max_new_tokens=3):
        assert len(piece.alternatives) == 5


def test_show_probs(trained):
    ask = ["sample", "--prompt", "The ", "--max_new_tokens", "30", "--temperature", "0"]
    plain = shell(*ask, cwd=trained).stdout
    shown = shell(*ask, "--show_probs", cwd=trained).stdout
    assert shown.count("\x1b[38;5;") == 30
    bare = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    text, table = bare[: len(plain)], bare[len(plain) :].splitlines()
    assert text == plain
    assert table[0].split() == ["token", "probability", "likeliest", "second", "third"] and len(table) == 31


def test_show_probs_of_a_cut_character(capsys):
    tools.show_probs(bytewise_lm("é♥"), "a", {"max_new_tokens": 4, "temperature": 0})
    shown = capsys.readouterr().out
    assert shown.count("\x1b[38;5;") == 4 and len(shown.splitlines()) == 1 + 1 + 4


# ---- inside ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 7])
def test_the_last_layer_says_what_the_model_says(length):
    it = lm()
    ids = torch.randint(1, it.config.vocab_size, (length,)).tolist()
    layers = tools.look_inside(it, ids)
    with torch.no_grad():
        logits = it.model(torch.tensor([ids]))[0, -1]
    logits[it.tokenizer.unknown_id or 0] = -math.inf
    assert len(layers) == it.config.n_layer
    assert torch.allclose(layers[-1].logits.softmax(-1), logits.softmax(-1), atol=1e-6)
    assert not any(module._forward_hooks for module in it.model.modules())


def test_a_layer_says_what_a_model_that_ends_there_says():
    it = lm()
    first, *_ = tools.look_inside(it, [1, 2, 3])
    del it.model.h[1:]
    it.tokenizer.unknown_id = None
    with torch.no_grad():
        logits = it.model(torch.tensor([[1, 2, 3]]))[0, -1]
    assert torch.allclose(first.logits[1:], logits[1:], atol=1e-5)


def test_heads_look_where_attention_as_it_is_written_in_books_does():
    it = lm()
    ids = [3, 1, 2, 1, 3]
    layers = tools.look_inside(it, ids)
    c = it.config
    with torch.no_grad():
        x = it.model.wte(torch.tensor([ids])) + it.model.wpe.weight[: len(ids)]
        for block, layer in zip(it.model.h, layers):
            q, k, v = block.attn.c_attn(block.ln_1(x)).split(c.n_embd, dim=-1)
            for head in range(c.n_head):
                columns = slice(head * c.n_embd // c.n_head, (head + 1) * c.n_embd // c.n_head)
                scores = k[0, :, columns] @ q[0, -1, columns] / math.sqrt(c.n_embd // c.n_head)
                assert torch.allclose(layer.attention[head], scores.softmax(0), atol=1e-6)
            assert torch.allclose(layer.attention.sum(1), torch.ones(c.n_head))
            x = block(x)


def test_the_context_rolls_as_it_does_in_sampling():
    it = lm()
    T = it.config.block_size
    for prompt in 1, T - 1, T, T + 3:
        options = gpt.sampling({"max_new_tokens": 3 * T})
        seen = [used for _, _, used in gpt.generate(it, [1] * prompt, options)]
        assert seen == [tools.context_at(T, prompt, said) for said in range(3 * T)]


# ---- chat --------------------------------------------------------------------------------------------------


def chat(trained, lines, *words):
    return subprocess.run(
        [sys.executable, str(GPT), "chat", *words],
        input="\n".join(lines),
        text=True,
        capture_output=True,
        cwd=trained,
        timeout=60,
    )


def test_chat_in_a_terminal(trained):
    lines = ["The ", "/temp 0", "/temp -3", "/rep 1.2", "/nonsense", "/dialogue", "Hello", "/save said.txt"]
    lines += [
        "/load runs/none",
        "/load runs/a",
        "/reset",
        "two\\",
        "lines",
        "/save again.txt",
        "/quit",
        "not read",
    ]
    done = chat(trained, lines, "--max_new_tokens", "20")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.count("tokens/s, context") == 3 and "of 16]" in done.stdout
    assert "error: --temperature -3" in done.stdout and "error: runs/none" in done.stdout
    assert "'temperature': 0.0" in done.stdout and "'repetition_penalty': 1.2" in done.stdout
    assert "\n\nUser: Hello\n\nAssistant:" in (trained / "said.txt").read_text()
    assert (trained / "again.txt").read_text().startswith("\n\nUser: two\nlines\n\nAssistant:")


def test_chat_loads_another_run_than_the_flag_names(trained):
    done = chat(trained, ["/load runs/none", "/load runs/a", "/quit"], "--init_from", "runs/a")
    assert done.returncode == 0 and done.stdout.count("error: ") == 1, done
    assert "error: runs/none: no such run" in done.stdout
    assert done.stdout.count("runs/a/best.pt, ") == 2


def test_chat_with_a_line_that_is_not_utf_8_is_one_clear_line(trained):
    words = [sys.executable, str(GPT), "chat", "--max_new_tokens", "5"]
    env = {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(words, input=b"caf\xe9\n", capture_output=True, cwd=trained, timeout=60, env=env)
    assert done.returncode == 2, done
    assert re.fullmatch(rb"error: a line is not UTF-8 \(.*\): type  iconv .*\n", done.stderr), done.stderr


def test_chat_refuses_an_ambiguous_prefix(trained):
    lines = ["/top 5", "/s 3", "/top_k 5", "/se 3", "/", "/top_k", "/save /no/such/place"]
    done = chat(trained, lines)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "error: /top could be /top_k, /top_p" in done.stdout
    assert "error: /s could be /stop, /seed" in done.stdout
    assert (
        done.stdout.count("'top_k': 5") == 2 and "'top_p': 1.0" in done.stdout and "'seed': 3" in done.stdout
    )
    assert "'stop': ()" in done.stdout
    assert "error: /save FILE" in done.stdout


@POSIX
def test_chat_survives_ctrl_c_and_shows_no_raw_control_characters(place):
    Path("escape.txt").write_text("\x1b[31m\x07\x9b" * 2000)
    mini(data="escape.txt", out_dir="runs/escape", max_iters=4)
    words = [sys.executable, "-u", str(GPT), "chat", "--max_new_tokens", "10000000"]
    talk = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    talk.stdin.write(b"[31m\n")
    talk.stdin.flush()
    shown = b""
    while shown.count(b"\xef\xbf\xbd") < 50:
        shown += talk.stdout.read1()
    talk.send_signal(signal.SIGINT)
    shown += talk.communicate(b"/quit\n", timeout=30)[0]
    assert talk.returncode == 0 and b"[cancelled, " in shown
    assert b"\x1b" not in shown and b"\x07" not in shown and b"\xc2\x9b" not in shown


class Program:
    "One that talks to `chat --jsonl`."

    def __init__(self, place):
        words = [sys.executable, str(GPT), "chat", "--jsonl"]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.process = subprocess.Popen(words, cwd=place, **pipes)
        assert self.hear()["kind"] == "ready"

    def tell(self, **request):
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self):
        return json.loads(self.process.stdout.readline())


def jsonl(trained, lines, wait=60):
    done = subprocess.run(
        [sys.executable, str(GPT), "chat", "--jsonl", "--temperature", "0"],
        cwd=trained,
        timeout=wait,
        input=b"\n".join(lines),
        capture_output=True,
    )
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


BAD_REQUESTS = [
    b"",
    b"rubbish",
    b"[1]",
    b"null",
    b"7",
    b"\xff\xfe",
    b"[" * 5000,
    b'{"id": 1}',
    b'{"id": 2, "prompt": 3}',
    b'{"id": 3, "prompt": "a", "temperature": "hot"}',
    b'{"id": 4, "prompt": "a", "top_p": 7}',
    b'{"id": 5, "prompt": "a", "stop": 5}',
    b'{"id": 6, "prompt": "a", "colour": 1}',
    b'{"id": 7, "prompt": "a", "probs": -1}',
    b'{"load": "runs/none"}',
]


def test_chat_jsonl(trained):
    ask = {"id": "x", "prompt": "The ", "max_new_tokens": 5}
    seen_through = {**ask, "id": "y", "probs": True, "stop": None, "temperature": None, "top_k": 3.0}
    fine = [b'{"stop": "nobody"}', b'{"id": {}, "prompt": "", "probs": {}}', b'{"load": "runs/a"}']
    requests = [json.dumps(ask).encode(), json.dumps(seen_through).encode()]
    lines = jsonl(trained, [*BAD_REQUESTS, *fine, *requests])
    assert lines[0]["kind"] == "ready" and lines[0]["level"] == "char" and lines[0]["block_size"] == 16
    assert lines[0].keys() == {"kind", "model", "level", "block_size", "precision", "step", "val_loss"}
    assert [line["kind"] for line in lines].count("ready") == 2
    errors = [line for line in lines if line["kind"] == "error"]
    assert len(errors) == len(BAD_REQUESTS) and all(error["message"] for error in errors)
    assert [error["id"] for error in errors if error["id"]] == [1, 2, 3, 4, 5, 6, 7]
    x, y = ([line for line in lines if line.get("id") == name] for name in "xy")
    assert [line["kind"] for line in x] == ["piece"] * 5 + ["done"]
    assert x[-1]["reason"] == "length" and x[-1]["tokens"] == 5
    assert x[-1]["tokens_per_s"] > 0 and x[-1]["context_used"] == 8
    assert [line["text"] for line in x[:-1]] == [line["text"] for line in y[:-1]]
    assert all(line.keys() == {"kind", "id", "text"} for line in x[:-1])
    for line in y[:-1]:
        assert 0 <= line["prob"] <= 1 and len(line["alternatives"]) == 5
        assert line["alternatives"][0][0] == line["text"]


BAD_LOOKS = [
    b'{"id": 1, "inside": [1]}',
    b'{"id": 2, "inside": [], "prompt": "a"}',
    b'{"id": 3, "inside": 1, "prompt": "a"}',
    b'{"id": 4, "inside": [-1], "prompt": "a"}',
    b'{"id": 5, "inside": [true], "prompt": "a"}',
    b'{"id": 6, "inside": [1e9], "prompt": "a"}',
]


def test_chat_jsonl_looks_inside_a_token(trained):
    ask = {"id": "x", "prompt": "The ", "max_new_tokens": 40, "probs": 3, "temperature": 1, "seed": 3}
    ready, *said = jsonl(trained, [json.dumps(ask).encode(), *BAD_LOOKS])
    pieces = [line for line in said if line["kind"] == "piece"]
    errors = [line for line in said if line["kind"] == "error"]
    assert [error["id"] for error in errors] == [1, 2, 3, 4, 5, 6]
    ids = [piece["token"] for piece in pieces]
    looks = [{"id": n, "prompt": "The ", "inside": ids[: n + 1]} for n in (0, 5, 39)]
    _, *answers = jsonl(trained, [json.dumps(look).encode() for look in looks])
    text = "The " + "".join(piece["text"] for piece in pieces)
    for look, answer in zip(looks, answers):
        piece = pieces[look["id"]]
        last = answer["layers"][-1]
        assert answer["kind"] == "inside" and answer["id"] == look["id"]
        assert last["prob"] == pytest.approx(piece["prob"], rel=1e-4)
        assert [word for word, _ in last["says"]] == [word for word, _ in piece["alternatives"]]
        assert text[: 4 + look["id"]].endswith("".join(answer["texts"]))
        for layer in answer["layers"]:
            for shares in layer["looks"]:
                assert len(shares) == len(answer["texts"]) and sum(shares) == pytest.approx(1, abs=0.01)


def test_ready_tells_of_the_checkpoint(trained):
    ready, *_ = jsonl(trained, [])
    checkpoint = torch.load(ready["model"] if os.path.isabs(ready["model"]) else trained / ready["model"])
    progress = checkpoint["progress"]
    assert ready["step"] == progress["step"]
    best = progress["best_val_loss"]
    is_best = math.isfinite(best) and progress["step"] == progress["best_step"]
    assert ready["val_loss"] == (best if is_best else None)
    assert tools.whence("no/such/file") == {"step": None, "val_loss": None}


def test_chat_jsonl_obeys_a_stop_between_two_tokens(trained):
    program = Program(trained)
    program.tell(id=1, prompt="The ", max_new_tokens=10**9)
    assert program.hear()["kind"] == "piece"
    program.tell(id=2, prompt="A", max_new_tokens=2)
    program.tell(stop=1)
    while (line := program.hear())["kind"] == "piece":
        assert line["id"] == 1
    assert line["kind"] == "done" and line["id"] == 1 and line["reason"] == "cancelled"
    assert [program.hear()["kind"] for _ in range(3)] == ["piece", "piece", "done"]
    assert program.process.communicate(timeout=30) == (b"", b"") and program.process.returncode == 0


@POSIX
@pytest.mark.parametrize("busy", [False, True])
def test_chat_jsonl_ends_quietly_on_ctrl_c(busy, trained):
    program = Program(trained)
    if busy:
        program.tell(id=1, prompt="The ", max_new_tokens=10**9)
        assert program.hear()["kind"] == "piece"
    program.process.send_signal(signal.SIGINT)
    while select.select([program.process.stdout], [], [], 30)[0] and program.process.stdout.read1():
        pass  # stdin stays open: an end of input is not what ends it
    assert program.process.wait(30) == 130 and program.process.stderr.read() == b""
    program.process.communicate()


@POSIX
def test_chat_jsonl_ends_where_nobody_hears_it(trained):
    program = Program(trained)
    program.process.stdout.close()
    program.tell(id=1, prompt="The ", max_new_tokens=10**9)
    assert program.process.wait(30) == 1 and program.process.stderr.read() == b""


# ---- eval --------------------------------------------------------------------------------------------------


def test_eval_is_the_loss_of_every_token(inside, capsys):
    it = gpt.load("runs/a")
    text = Path("story.txt").read_text()
    text = text[int(0.9 * len(text)) :]
    ids = torch.tensor(it.tokenizer.encode(text))
    n, T = len(ids), 16

    def loss(first, start, end):
        "Of the tokens start..end, seen from first on."
        with torch.no_grad():
            logits = it.model(ids[None, first : end - 1])[0]
        return torch.nn.functional.cross_entropy(
            logits[start - first - 1 :], ids[start:end], reduction="sum"
        ).item()

    plain = answer(capsys, "eval runs/a --json")
    assert plain["tokens"] == n and plain["scored"] == n - 1 and plain["window"] == plain["stride"] == T
    total = sum(loss(i, i + 1, min(i + T + 1, n)) for i in range(0, n - 1, T))
    assert plain["loss"] == pytest.approx(total / (n - 1), rel=1e-5)
    assert plain["bits_per_byte"] == pytest.approx(plain["loss"] / math.log(2) * n / len(text.encode()))
    assert plain["word_perplexity"] == pytest.approx(math.exp(plain["loss"] * n / len(text.split())))
    best = min(line["val_loss"] for line in log("runs/a") if line["kind"] == "eval")
    assert plain["loss"] == pytest.approx(best, rel=1e-4)
    slide = answer(capsys, "eval runs/a --json --stride 4")
    total = loss(0, 1, T + 1)
    total += sum(loss(i, i + T - 3, min(i + T + 1, n)) for i in range(4, n - 1, 4) if i + T - 3 < n)
    assert slide["scored"] == n - 1 and slide["loss"] == pytest.approx(total / (n - 1), rel=1e-5)
    command("eval runs/a")
    assert re.search(rf"^loss +{plain['loss']:.4f}$", capsys.readouterr().out, re.M)


def test_eval_of_several_runs_is_that_of_the_mean_of_their_probabilities(inside, capsys):
    gpt.train(**{**MINI, "data": "story.txt", "out_dir": "runs/other", "seed": 2, "max_iters": 20})
    capsys.readouterr()
    one, other = (answer(capsys, f"eval runs/{name} --json")["loss"] for name in ("a", "other"))
    both = answer(capsys, "eval runs/a runs/other --json")
    assert both["loss"] < (one + other) / 2  # log is concave
    assert answer(capsys, "eval runs/a runs/a --json")["loss"] == pytest.approx(one, rel=1e-5)
    gpt.train(**{**MINI, "data": "builtin", "out_dir": "runs/words", "level": "word", "max_iters": 1})
    with pytest.raises(gpt.UserError, match="has other tokens than runs/a"):
        command("eval runs/a runs/words")
    shutil.rmtree("runs/words")
    shutil.rmtree("runs/other")


def test_eval_by_rows(inside, capsys):
    Path("rows.txt").write_text("one row of it\n\n   \n" * 40)
    found = answer(capsys, "eval --data rows.txt --split test --rows --json")
    assert found["tokens"] == 40 * 14 and found["windows"] == 40 * 14 // 17
    assert found["scored"] == 16 * found["windows"]


def test_eval_by_rows_of_blank_ones(inside):
    Path("rows.txt").write_text("a row\n" * 90 + "\n" * 80)
    with pytest.raises(gpt.UserError, match="rows.txt: its val split has only blank rows"):
        command("eval --data rows.txt --rows")


@pytest.mark.parametrize("n", [6, 7, 11, 12, 23])
@pytest.mark.parametrize("stride", [1, 3, 5])
def test_each_token_is_scored_once_with_as_much_before_it_as_there_is(n, stride):
    T = 5
    inputs, targets = tools.windows_of(np.arange(n), T, stride)
    scored = targets[targets >= 0].tolist()
    assert sorted(scored) == list(range(1, n))
    for row_in, row_out in zip(inputs.tolist(), targets.tolist()):
        assert all(y == x + 1 for x, y in zip(row_in, row_out) if y >= 0)


def test_eval_of_a_folder(inside, capsys):
    it = gpt.load("runs/a")
    text = Path("story.txt").read_text()[:3000]
    ids = it.tokenizer.encode_to_numpy(text).astype("<u2")
    folder = Path("folder")
    folder.mkdir()
    for split in ("train", "val"):
        ids.tofile(folder / f"{split}.bin")
    meta = {
        "level": "char",
        "dtype": "uint16",
        "tokenizer": it.tokenizer.state,
        "train_tokens": 3000,
        "val_tokens": 3000,
        "val_bytes": len(text.encode()),
    }

    def write(**change):
        (folder / "meta.json").write_text(json.dumps({**meta, **change}))

    write()
    assert answer(capsys, "eval --data folder --json")["tokens"] == 3000
    with pytest.raises(gpt.UserError, match="no test split"):
        command("eval --data folder --split test")
    write(tokenizer={"level": "char", "characters": "ab"})
    with pytest.raises(gpt.UserError, match="another tokenizer"):
        command("eval --data folder")
    write(val_tokens=3001)
    with pytest.raises(gpt.UserError, match="cut short"):
        command("eval --data folder")
    write(val_tokens=0)
    np.zeros(0, "<u2").tofile(folder / "val.bin")
    with pytest.raises(gpt.UserError, match="too few"):
        command("eval --data folder")
    write()
    ids[1234] = 60000
    ids.tofile(folder / "val.bin")
    with pytest.raises(gpt.UserError, match="token 60000.* outside of"):
        command("eval --data folder")


def own_bpe_run(place, text):
    "runs/bpe, trained for a moment with tokens of its own on docs.txt; -> the folder that data.py made."
    Path("docs.txt").write_text(text, encoding="utf-8")
    words = ["docs.txt", "--level=bpe", "--vocab_size=300", "--separator=###"]
    subprocess.run([sys.executable, str(HERE / "data.py"), *words], check=True, capture_output=True)
    folder = Path("data/docs-bpe300")
    mini(data=str(folder), level="bpe", vocab_size=300, out_dir="runs/bpe", max_iters=2, eval_tokens=10**6)
    return folder


def test_eval_and_training_count_the_same_bytes(place, capsys):
    folder = own_bpe_run(place, "###".join(f"Once there were {i} cats.\nThey slept." for i in range(300)))
    capsys.readouterr()
    found = answer(capsys, "eval runs/bpe --json")
    meta = json.loads((folder / "meta.json").read_text())
    bits = found["loss"] / math.log(2) * found["tokens"]
    assert bits / found["bits_per_byte"] == pytest.approx(meta["val_bytes"])
    trained = [line["bits_per_byte"] for line in log("runs/bpe") if line["kind"] == "eval"]
    assert found["bits_per_byte"] == pytest.approx(min(trained), rel=1e-3)
    words = math.log(found["word_perplexity"]) / found["loss"]  # tokens a word
    documents = 30
    assert found["tokens"] / words == pytest.approx(7 * documents, abs=14)


def test_eval_reads_another_text_with_the_tokens_of_the_model(place, capsys):
    own_bpe_run(place, gpt.read_text("builtin")[:20_000])
    Path("other.txt").write_text("Quite another text: 0123456789. " * 20)
    capsys.readouterr()
    n = len(gpt.load("runs/bpe").tokenizer.encode(Path("other.txt").read_text()))
    assert answer(capsys, "eval runs/bpe --data other.txt --split test --json")["tokens"] == n
    assert not list(Path("data").glob("other*"))
    Path("other.jsonl").write_text(json.dumps({"text": "Quite another text. " * 20}))
    with pytest.raises(gpt.UserError, match="has another tokenizer than .*: give --data a plain text"):
        command("eval runs/bpe --data other.jsonl")


def test_eval_on_all_of_the_text_that_has_taught_the_tokens(place, capsys):
    "data.py has made only the two splits of training from it."
    out = mini(data="story.txt", level="bpe", vocab_size=300, max_iters=1, out_dir="own").out_dir
    n = len(gpt.load(out).tokenizer.encode(Path("story.txt").read_text(encoding="utf-8")))
    capsys.readouterr()
    assert answer(capsys, "eval own --split test --json")["tokens"] == n


def test_eval_of_a_model_of_which_nobody_knows_the_text(inside):
    checkpoint = torch.load("runs/a/best.pt", weights_only=True)
    checkpoint["train_config"] = {"level": "char", "data": ""}  # as of GPT-2
    torch.save(checkpoint, "stranger.pt")
    with pytest.raises(gpt.UserError, match="give --data: nobody knows what stranger.pt was trained on"):
        command("eval stranger.pt")


def test_eval_by_rows_is_refused_for_a_folder(place, capsys):
    own_bpe_run(place, gpt.read_text("builtin")[:20_000])
    with pytest.raises(gpt.UserError, match="--rows is for the lines of a text file"):
        command("eval runs/bpe --rows")


def test_eval_uses_the_threads_that_are_asked_for(inside, monkeypatch, capsys, threads_kept):
    used = []

    def evaluate(*_):
        used.append(torch.get_num_threads())
        return 1.0

    monkeypatch.setattr(gpt, "mean_loss", evaluate)
    for threads in (1, 2, 1):
        command(f"eval runs/a --threads {threads}")
    assert used == [1, 2, 1]


def test_eval_of_a_hopeless_model_is_no_overflow(inside, monkeypatch, capsys):
    monkeypatch.setattr(gpt, "mean_loss", lambda *_: 900.0)
    found = answer(capsys, "eval runs/a --json")
    assert found["perplexity"] == found["word_perplexity"] == math.exp(709)


# ---- bench -------------------------------------------------------------------------------------------------

SPECK = '{"speck": {"n_layer": 1, "n_head": 1, "n_embd": 8, "block_size": 8, "batch_size": 2}}'


def test_bench(tmp_path):
    own = tmp_path / "own.json"
    own.write_text(SPECK)
    done = shell("bench", "--presets", own, "--preset", "speck", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    copying, _, row = done.stdout.splitlines()
    assert float(re.match(r"copying: (\d+) GB/s", copying)[1]) > 0
    name, speed, flops, mfu, memory, _, sampled, read = row.replace(",", "").split()
    assert name == "speck" and float(speed) > 100 and float(memory) > 50 and mfu == "-"
    assert float(sampled) > 100 and float(read) >= 0


def test_bench_skips_what_does_not_fit(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(tools, "measure", lambda name, *_: asked.append(name) or [name] * 7)
    monkeypatch.setattr(recipes, "machine", lambda: [{"device": "cpu", "name": "a CPU", "memory": 8 << 30}])
    command("bench")
    shown = capsys.readouterr().out
    assert "nano" in asked and "tiny" in asked and "gpt2" not in asked and "gpt2-xl" not in asked
    assert not {"auto", "finetune"} & set(asked)  # which have no shape of their own
    assert re.search(r"^gpt2-xl +skipped: needs about \d+\.\d GB, more than a CPU has$", shown, re.M)
    command("bench --preset gpt2-xl")  # who names it, gets it
    assert asked[-1] == "gpt2-xl"


def test_bench_goes_by_the_device_that_is_asked_for(monkeypatch):
    devices = [{"device": "cuda", "name": "a GPU"}, {"device": "cpu", "name": "a CPU"}]
    monkeypatch.setattr(recipes, "machine", lambda: devices)
    named = [tools.device_named(name)["name"] for name in ("auto", "cuda:1", "cpu")]
    assert named == ["a GPU", "a GPU", "a CPU"]


def test_bench_goes_on_after_a_preset_that_failed(monkeypatch, capsys, tmp_path):
    def measure(name, *_):
        raise gpt.RunError("no")

    def no_room(*_):
        raise RuntimeError("CUDA out of memory. Tried to allocate 9 GiB")

    for fails in (measure, no_room):
        monkeypatch.setattr(tools, "measure", fails)
        command("bench --preset nano")
        assert "nano          took too long or did not fit" in capsys.readouterr().out


@POSIX
@pytest.mark.parametrize("number,code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_bench_that_is_stopped_leaves_nothing(number, code, tmp_path):
    own = tmp_path / "own.json"
    own.write_text(SPECK)
    drafts = tmp_path / "drafts"
    drafts.mkdir()
    words = [sys.executable, str(GPT), "bench", "--presets", str(own), "--preset", "speck"]
    env = {**os.environ, "TMPDIR": str(drafts)}
    bench = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    while not (begun := [*drafts.glob("*/run/metrics.jsonl")]):
        time.sleep(0.05)
    trainer = None
    while trainer is None:
        for line in begun[0].read_text().splitlines():
            trainer = trainer or json.loads(line).get("pid")
        time.sleep(0.05)
    bench.send_signal(number)
    _, errors = bench.communicate(timeout=30)
    assert bench.returncode == code and "Traceback" not in errors
    assert not [*drafts.iterdir()]
    with pytest.raises(ProcessLookupError):
        os.kill(trainer, 0)


@pytest.mark.slow
def test_bench_has_a_rival(threads_kept):
    hf = pytest.importorskip("transformers")
    shape = gpt.ModelConfig(n_layer=1, n_head=2, n_embd=16, block_size=12, vocab_size=11)
    config = gpt.TrainConfig(batch_size=2, dropout=0.1)
    trained, sampled = tools.rival(hf, shape, config, torch.device("cpu"), new=5)
    assert trained > 10 and sampled > 10


def test_bench_asks_for_transformers_before_it_trains(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setattr(tools, "measure", None)
    with pytest.raises(gpt.RunError, match="pip install transformers"):
        command("bench --preset nano --against hf")


# ---- the file itself ---------------------------------------------------------------------------------------


def test_the_width_of_the_lines():
    for name in ("tools.py", "test_tools.py"):
        assert max(len(line) for line in (HERE / name).read_text(encoding="utf-8").splitlines()) <= 110
