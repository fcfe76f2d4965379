"""Nothing is lost, and nothing says it is well when it is not: kills, full disks, damaged and hostile files.

    python -m pytest test_chaos.py        a little of each, in seconds
    python -m pytest -m chaos             all of it, in minutes; at its end a table of what was tried and lost

Each rough command runs in a process of its own, forked from one that has imported torch: see House in
conftest.py."""

import contextlib
import copy
import json
import math
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

import gpt
import runs

HERE = Path(__file__).resolve().parent

MINI = dict(
    n_layer=2, n_head=2, n_embd=16, block_size=16, batch_size=6, max_iters=10, dropout=0.1, threads=1,
    dtype="float32", sample_tokens=8, eval_interval=5, eval_tokens=500, log_interval=1, warmup_iters=2,
    data="story.txt",
)  # fmt: skip

ESC = "\x1b[31m"  # a terminal would turn red

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, signals and mounts as Linux has them")
chaos = pytest.mark.chaos


def flags(**asked):
    return [f"--{name}={value}" for name, value in {**MINI, **asked}.items()]


# ---- processes ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def trained(tmp_path_factory, house, story):
    "A folder with a text and one short run, runs/a: to copy from."
    place = tmp_path_factory.mktemp("trained")
    (place / "story.txt").write_text(story, encoding="utf-8")
    done = house.run("train", *flags(out_dir="runs/a"), cwd=place)
    assert done.status == 0, done.err
    return place


@pytest.fixture
def run_a(trained, tmp_path, monkeypatch):
    "A copy of it, to be spoilt."
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs" / "a"


def log(folder, kind=None):
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if kind in (None, line["kind"])]


def saved(folder, name="latest.pt"):
    return gpt.load_checkpoint(Path(folder) / name)


def equal(a, b):
    "Whether two parts of checkpoints are the same, bit for bit."
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def same_run(one, other):
    "Whether two runs came to the same: weights, optimizers, and the best."
    for name, parts in (("latest.pt", ("model", "optimizers", "scaler")), ("best.pt", ("model",))):
        a, b = saved(one, name), saved(other, name)
        if not all(equal(a[part], b[part]) for part in parts):
            return False
        if any(a["progress"][k] != b["progress"][k] for k in ("step", "best_val_loss", "best_step")):
            return False
    return True


def fault(done):
    "What is wrong with how a command ended, or nothing: it may fail, in one line."
    said = done.out + done.err
    if done.hang:
        return f"hangs, {done.seconds:.0f} s"
    if "Traceback" in said:
        return f"traceback: {said.strip().splitlines()[-1]:.100}"
    if done.status not in (0, 1, 2, 130):
        return f"status {done.status}"
    if "\x1b" in said or "\x07" in said:
        return "an escape reaches the terminal"
    errors = len(re.findall("^error: ", done.err, re.M))
    if done.status in (1, 2) and errors != 1:
        return f"status {done.status} with {errors} lines that say why"
    return ""


def check_fine(done, status=0, told=""):
    assert fault(done) == "" and done.status == status, (done.words, done.status, done.out, done.err)
    assert told in done.out + done.err, (done.words, done.out, done.err)


# ---- the table of figures ----------------------------------------------------------------------------------

FIGURES = []  # test, tried, lost, more


def figure(test, tried, lost, more=""):
    FIGURES.append((test, f"{tried:,}", f"{lost:,}", more))


def check_none(test, tried, faults, more=""):
    "faults: of (what was done, what came)"
    figure(test, tried, len(faults), more)
    kinds = Counter(came for _, came in faults)
    first = {came: what for what, came in reversed(faults)}
    assert not faults, "\n".join(
        f"{n} x {came}\n    {first[came]!s:.300}" for came, n in kinds.most_common(40)
    )


@pytest.fixture(scope="session", autouse=True)
def table(request, tmp_path_factory):
    "Printed by the last worker that ends: what was tried, what was lost."
    base = tmp_path_factory.getbasetemp()
    base = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    begun, rows = base / "chaos-begun", base / "chaos-rows"
    with open(begun, "a") as file:
        file.write("+")
    yield
    with open(rows, "a") as file:
        file.writelines(json.dumps(row) + "\n" for row in FIGURES)
    with open(begun, "a") as file:
        file.write("-")
    marks = begun.read_text()
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    if lines and marks.count("+") == marks.count("-"):
        lines = [("test", "tried", "lost", ""), *sorted(lines)]
        widths = [max(map(len, column)) for column in zip(*lines)]
        text = "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths)).rstrip() for line in lines)
        capture = request.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            print(f"\n\n{text}\n", file=sys.stderr, flush=True)


# ---- F1, F2: what is good stays ----------------------------------------------------------------------------

WILD = ["--learning_rate=1e6", "--muon_lr=1e6"]
SANE = ["--learning_rate=0.001", "--muon_lr=0.005"]


def test_a_run_whose_disk_was_full_at_first_begins_anew(place, house):
    full = "def full(*_):\n    raise OSError(28, 'No space left on device')\ngpt.save_checkpoint = full"
    command = ["train", *flags(out_dir="r", resume="auto")]
    done = house.run(*command, patch=full)
    assert done.status == 1 and "No space left" in done.err and "there is none" in done.out
    check_fine(house.run(*command))
    assert saved("r")["progress"]["step"] == 10


@pytest.mark.parametrize("ends", ["by itself", "stopped", "save_minutes"])
def test_diverged_weights_never_replace_good_ones(ends, run_a, house):
    good = saved(run_a)
    patch = ""
    if ends == "stopped":
        patch = "before_step(lambda step: step == 12 and open('runs/a/control', 'w').write('stop'))"
    more = ["--save_minutes=1e-9"] if ends == "save_minutes" else []
    asked = ["--max_iters=40", "--weight_decay=0"]
    done = house.run("train", "--resume=runs/a", *asked, *WILD, *more, patch=patch)
    assert "Traceback" not in done.err and done.status == 1, (done.out, done.err)
    assert equal(saved(run_a)["model"], good["model"]) and equal(
        saved(run_a, "best.pt")["model"], good["model"]
    )
    done = house.run("train", "--resume=runs/a", *asked, *SANE)
    check_fine(done)
    assert log(run_a, "start")[-1]["resumed_from"] == 10 and saved(run_a)["progress"]["step"] == 40
    assert log(run_a, "eval")[-1]["val_loss"] < 5


def test_weights_that_are_no_numbers_are_not_saved(run_a, house):
    good = saved(run_a)
    done = house.run("train", "--resume=runs/a", "--max_iters=20", "--weight_decay=1e308")
    assert done.status == 1 and "Traceback" not in done.err
    assert equal(saved(run_a)["model"], good["model"])


def test_best_goes_on_with_fresh_optimizers_and_says_so(run_a, house):
    step = saved(run_a, "best.pt")["progress"]["step"]
    done = house.run("train", "--resume=runs/a/best.pt", "--max_iters=20")
    check_fine(done, told="optimizers begin anew")
    assert log(run_a, "start")[-1]["resumed_from"] == step and saved(run_a)["progress"]["step"] == 20


def test_another_optimizer_begins_anew_and_says_so(run_a, house):
    check_fine(
        house.run("train", "--resume=runs/a", "--max_iters=15", "--optimizer=adamw"), told="begin anew"
    )
    check_fine(house.run("train", "--resume=runs/a", "--max_iters=20"))  # and stays


# ---- F3: the last line tells the truth ---------------------------------------------------------------------

GONE = {
    "removed": "import shutil\nbefore_step(lambda step: step == 7 and shutil.rmtree('r'))",
    "renamed": "before_step(lambda step: step == 7 and os.rename('r', 'elsewhere'))",
    "a file": "before_step(lambda step: step == 7 and (os.rename('r', 'e'), open('r', 'w')))",
    "read-only": "before_step(lambda step: step == 7 and (os.seteuid(65534) if os.geteuid() == 0 "
    "else os.chmod('r', 0o555)))",
    "no room": """
def full(number):
    raise OSError(28, 'No space left on device')
before_step(lambda step: step == 7 and setattr(os, 'fsync', full))""",
}


def check_truthful(done, folder):
    "Status 0 only where the last step is on the disk."
    assert "Traceback" not in done.out + done.err and done.status in (0, 1), (done.status, done.err)
    latest = Path(folder) / "latest.pt"
    step = saved(folder)["progress"]["step"] if latest.exists() else None
    if done.status == 0:
        assert step == 10, f"status 0, and latest.pt has step {step}"
        return
    last = done.err.strip().splitlines()[-1]
    assert last.startswith("error: ") and "not saved" in last, last
    assert "unexpected pos" not in last and "enforce fail" not in last, last
    if step is None:
        assert "Now type" not in done.out, "there is nothing to sample from"


@pytest.mark.parametrize("how", GONE)
def test_a_folder_that_goes_away_in_mid_run(how, place, house):
    done = house.run("train", *flags(out_dir="r"), patch=GONE[how])
    check_truthful(done, "r")
    if how in ("a file", "read-only", "no room"):
        assert done.status == 1


# ---- F4: damage is seen ------------------------------------------------------------------------------------


def flip(raw, bit):
    spoilt = bytearray(raw)
    spoilt[bit // 8] ^= 1 << bit % 8
    return bytes(spoilt)


def flips(run_a, n):
    "-> how many of n flipped bits were refused; those that loaded as something else."
    path = run_a / "best.pt"
    raw = path.read_bytes()
    good = saved(run_a, "best.pt")
    refused, wrong = 0, []
    chance = random.Random(n)
    for _ in range(n):
        bit = chance.randrange(8 * len(raw))
        path.write_bytes(flip(raw, bit))
        try:
            if not equal(gpt.load_checkpoint(path), good):
                wrong.append((f"bit {bit}", "loads as something else"))
        except gpt.UserError:
            refused += 1
        except Exception as error:
            wrong.append((f"bit {bit}", repr(error)))
    path.write_bytes(raw)
    return refused, wrong


def test_a_flipped_bit_is_seen(run_a):
    refused, wrong = flips(run_a, 40)
    assert not wrong and refused > 30


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "zeros"])
def test_a_damaged_latest_falls_back_to_best(damage, run_a, house):
    raw = (run_a / "latest.pt").read_bytes()
    spoilt = {
        "bit": flip(raw, 4 * len(raw)),
        "cut": raw[: len(raw) // 2],
        "empty": b"",
        "zeros": bytes(len(raw)),
    }
    (run_a / "latest.pt").write_bytes(spoilt[damage])
    done = house.run("train", "--resume=runs/a", "--max_iters=20")
    check_fine(done, told="Going on from best.pt")
    assert any("latest.pt" in line["text"] for line in log(run_a, "warn"))
    assert saved(run_a)["progress"]["step"] == 20
    (run_a / "best.pt").write_bytes(spoilt["cut"])
    (run_a / "latest.pt").write_bytes(spoilt["cut"])
    check_fine(house.run("train", "--resume=runs/a", "--max_iters=30"), 2)


# ---- F6, F7 ------------------------------------------------------------------------------------------------


def test_a_changed_text_is_said(run_a, house, story):
    Path("story.txt").write_text(story[20_000:] + story[:20_000], encoding="utf-8")
    check_fine(house.run("train", "--resume=runs/a", "--max_iters=12"), told="story.txt has changed")


# ---- F8: no checkpoint is a traceback or a hang ------------------------------------------------------------


def change(path, value):
    "A change of one value in a nest of dicts and lists; DELETE takes it away."

    def make(tree):
        for key in path[:-1]:
            tree = tree[key]
        if value is DELETE:
            del tree[path[-1]]
        else:
            tree[path[-1]] = value

    return make


DELETE = object()
WTE = "model", "wte.weight"
HOSTILE = {
    "no model_config": (["model_config"], DELETE),
    "no train_config": (["train_config"], DELETE),
    "no tokenizer": (["tokenizer"], DELETE),
    "no progress": (["progress"], DELETE),
    "no used": (["used"], DELETE),
    "no scaler": (["scaler"], DELETE),
    "no version": (["version"], DELETE),
    "version": (["version"], "two"),
    "version nan": (["version"], math.nan),
    "model": (["model"], None),
    "weight": (WTE, None),
    "shape": (WTE, torch.zeros(3, 5)),
    "integers": (WTE, torch.zeros(2, 2, dtype=torch.int8)),
    "nan": (["model", "ln_f.weight"], torch.full((16,), math.nan)),
    "n_layer": (["model_config", "n_layer"], 1_000_000),
    "n_layer 1000": (["model_config", "n_layer"], 1000),
    "n_embd": (["model_config", "n_embd"], 10_000_000),
    "n_head": (["model_config", "n_head"], 7),
    "vocab_size": (["model_config", "vocab_size"], 10**12),
    "vocab_size text": (["model_config", "vocab_size"], "x"),
    "block_size": (["model_config", "block_size"], math.inf),
    "characters": (["tokenizer", "characters"], "a"),
    "characters none": (["tokenizer", "characters"], None),
    "level": (["tokenizer", "level"], "syllable"),
    "level list": (["tokenizer", "level"], []),
    "a field more": (["tokenizer", "more"], 1),
    "bpe": (["tokenizer"], {"level": "bpe", "name": "x", "tokens": "AA== !!"}),
    "bpe one": (["tokenizer"], {"level": "bpe", "name": "x", "tokens": "YWE="}),
    "word": (["tokenizer"], {"level": "word", "words": [None, 3]}),
    "word empty": (["tokenizer"], {"level": "word", "words": []}),
    "train_config": (["train_config"], [1, 2]),
    "learning_rate": (["train_config", "learning_rate"], "fast"),
    "preset": (["train_config", "preset"], DELETE),
    "data": (["train_config", "data"], ESC),
    "data nul": (["train_config", "data"], "a\0b"),
    "data long": (["train_config", "data"], "x" * 5000),
    "optimizer": (["train_config", "optimizer"], DELETE),
    "step text": (["progress", "step"], "x"),
    "step": (["progress", "step"], 10**9),
    "step minus": (["progress", "step"], -5),
    "step half": (["progress", "step"], 2.5),
    "best": (["progress", "best_val_loss"], None),
    "elapsed": (["progress", "elapsed_s"], math.nan),
    "progress more": (["progress", "more"], 1),
    "optimizers": (["optimizers"], None),
    "optimizers empty": (["optimizers"], []),
    "optimizer states": (["optimizers"], [{}, {}]),
    "moments": (["optimizers", 0, 0], {"momentum": torch.zeros(3)}),
    "scaler": (["scaler"], None),
    "used": (["used"], None),
    "used dtype": (["used", "dtype"], "nn"),
    "used dtype int": (["used", "dtype"], "int8"),
    "used threads": (["used", "threads"], 100_000),
    "used threads text": (["used", "threads"], "x"),
    "sha256": (["sha256"], 7),
}  # fmt: skip

WITH_CHECKPOINT = (
    ["train", "--resume=bad/latest.pt", "--max_iters=11", "--data=story.txt"],
    ["train", "--resume=bad", "--max_iters=11", "--dtype=auto"],
    ["sample", "bad/latest.pt", "--max_new_tokens=3", "--prompt=The"],
    ["eval", "bad/latest.pt", "--data=story.txt", "--split=test"],
    ["eval", "bad/latest.pt"],
)


def hostile(checkpoint, make):
    checkpoint = copy.deepcopy(checkpoint)
    make(checkpoint)
    shutil.rmtree("bad", ignore_errors=True)
    os.mkdir("bad")
    torch.save(checkpoint, "bad/latest.pt")


@pytest.fixture
def small_text(run_a, story):
    "So that eval takes no time."
    Path("story.txt").write_text(story[:3000] + "".join(sorted(set(story))), encoding="utf-8")


@pytest.mark.parametrize("part", range(4))
def test_no_checkpoint_is_a_traceback_or_a_hang(part, run_a, house):
    good = saved(run_a)
    faults = []
    for name, (path, value) in list(HOSTILE.items())[part::4]:
        hostile(good, change(path, value))
        words = WITH_CHECKPOINT[2 if path[0] in ("model", "model_config", "tokenizer") else 1]
        if came := fault(house.run(*words, limit=10)):
            faults.append((f"{name}: {' '.join(words)}", came))
    assert not faults, "\n".join(map(str, faults))


def test_a_checkpoint_without_memory_for_its_optimizers_is_told(run_a, house):
    "It would be another run, silently."
    hostile(saved(run_a), change(["optimizers"], []))
    done = house.run(*WITH_CHECKPOINT[1])
    assert done.status == 2 or "begin anew" in done.out, (done.out, done.err)


# ---- F9, F10, F11: foreign folders -------------------------------------------------------------------------

ODD_LINES = [
    '{"kind":"eval","step":9}',
    '{"kind":"end"}',
    '{"kind":"start","config":[]}',
    "[" * 100_000,
    '{"kind":"step","step":1e400}',
    '{"kind":',
    "\x1b[31m",
    '{"kind":"start","config":{"train":{"preset":"\\u001b[31m","level":[1]}}}',
    '{"kind":"end","reason":"\\u001b]0;x\\u0007","step":3}',
]


def test_one_odd_run_hides_no_other(run_a, house):
    for i, line in enumerate(ODD_LINES):
        folder = run_a.parent / f"odd{i}"
        folder.mkdir()
        (folder / "metrics.jsonl").write_text(line + "\n" + (run_a / "metrics.jsonl").read_text() * (i % 2))
    os.mkfifo(run_a.parent / "fifo")
    for name in ("is-folder", "has-fifo", ESC, "two\nlines"):
        (run_a.parent / name).mkdir()
    (run_a.parent / "is-folder" / "metrics.jsonl").mkdir()
    os.mkfifo(run_a.parent / "has-fifo" / "metrics.jsonl")
    for name in (ESC, "two\nlines"):
        shutil.copy(run_a / "metrics.jsonl", run_a.parent / name)
    done = house.run("runs")
    check_fine(done)
    assert len(re.findall("^a  ", done.out, re.M)) == 1 and "\nlines" not in done.out
    for name in ("odd0", "odd1", "odd3", "has-fifo", ESC):
        assert fault(house.run("plot", f"runs/{name}")) == "", name


def test_after_half_a_line_the_next_one_is_whole(run_a, house):
    with open(run_a / "metrics.jsonl", "a") as file:
        file.write('{"kind": "step", "st')
    check_fine(house.run("train", "--resume=runs/a", "--max_iters=12"))
    run = runs.Run(run_a)
    run.poll()
    assert run.bad <= 1 and run.start["resumed_from"] == 10
    assert [row.step for row in run.rows] == list(range(1, 13))


NAMED = [
    ["train", f"--data={ESC}.txt"],
    ["train", f"--data={ESC}"],
    ["train", f"--preset={ESC}"],
    ["train", f"--presets={ESC}.json"],
    ["train", f"--resume={ESC}"],
    ["train", f"--device={ESC}"],
    ["train", f"--level={ESC}"],
    ["train", f"--{ESC}=1"],
    ["sample", ESC],
    ["sample", f"--prompt_file={ESC}"],
    ["sample", "runs/a", f"--prompt={ESC}", "--max_new_tokens=2"],
    ["eval", ESC],
    ["eval", "runs/a", f"--data={ESC}.txt"],
    ["plot", ESC],
    ["plot", "runs/a", f"--out=no/{ESC}.pdf"],
    ["runs", f"--sort={ESC}"],
    [ESC],
    ["presets", f"--preset={ESC}"],
    ["data", f"{ESC}.txt"],
    ["data", "story.txt", f"--name={ESC}"],
    ["data", "story.txt", f"--level={ESC}"],
]


def test_names_are_shown_and_not_obeyed(run_a, house):
    "Also those of presets, and of what a checkpoint names."
    for words in NAMED:
        done = house.run(*words)
        assert "\x1b" not in done.out + done.err and "Traceback" not in done.err, (words, done.out, done.err)
    Path("own.json").write_text(json.dumps({ESC: {"n_layer": 1, "about": ESC}}))
    assert "\x1b" not in house.run("presets", "--presets=own.json").out
    hostile(saved(run_a), change(["train_config", "data"], f"{ESC}.txt"))
    for words in (["eval", "bad/latest.pt"], ["train", "--resume=bad", "--max_iters=11"]):
        done = house.run(*words)
        assert done.status and "\x1b" not in done.out + done.err


def test_a_run_in_a_folder_with_escapes(run_a, house):
    os.rename("runs/a", f"runs/{ESC}")
    for words in (["train", f"--resume=runs/{ESC}", "--max_iters=11"], ["sample", "--max_new_tokens=2"],
                  ["eval", "--data=story.txt"], ["runs"]):  # fmt: skip
        done = house.run(*words)
        assert done.status == 0 and "\x1b" not in done.out + done.err, (words, done.out, done.err)


def test_planted_links_are_not_followed(place, house):
    victims = []
    os.mkdir("r")
    for name in ("latest.pt.tmp", "best.pt.tmp", "config.json.tmp", "config.json", "latest.pt", "best.pt",
                 "step-00000005.pt"):  # fmt: skip
        victim = place / f"victim-{name}"
        victim.write_text("mine")
        victims.append(victim)
        os.symlink(victim, f"r/{name}")
    assert fault(house.run("train", *flags(out_dir="r", keep=2))) == ""
    assert [victim.name for victim in victims if victim.read_bytes() != b"mine"] == []
    victim = place / "log"
    victim.write_text("")
    os.mkdir("s")
    os.symlink(victim, "s/metrics.jsonl")
    check_fine(house.run("train", *flags(out_dir="s")), 2, told="metrics.jsonl")
    assert victim.read_text() == ""


# ---- F13, F14, F15: whoever listens ------------------------------------------------------------------------

INTERRUPTED = {
    "eval": ("gpt.mean_loss", ["eval", "runs/a"]),
    "eval, its text": ("gpt.prepare", ["eval", "runs/a"]),
    "runs": ("runs.find_runs", ["runs"]),
    "plot": ("runs.val_points", ["plot", "runs/a"]),
    "presets": ("gpt.load_presets", ["presets"]),
    "bench": ("tools.copying_speed", ["bench"]),
    "chat": ("gpt.load_checkpoint", ["chat", "runs/a"]),
    "chat --jsonl": ("gpt.load_checkpoint", ["chat", "runs/a", "--jsonl"]),
    "data": ("data.prepare", ["data", "story.txt"]),
}


@pytest.mark.parametrize("where", INTERRUPTED)
def test_ctrl_c_is_one_line(where, trained, house):
    function, words = INTERRUPTED[where]
    patch = f"def stop(*_, **more):\n    raise KeyboardInterrupt\n{function} = stop"
    done = house.run(*words, cwd=trained, patch=patch)
    assert done.status == 130 and "Traceback" not in done.err, (done.out, done.err)
    assert "stopped" in done.err or where == "chat --jsonl"  # which has no words for people


def test_a_closed_terminal_saves(place, house):
    dead = "before_step(lambda step: step == 7 and signal.raise_signal(signal.SIGHUP))"
    done = house.run("train", *flags(out_dir="r", eval_interval=10**6), patch=dead)
    assert done.status == 129 and saved("r")["progress"]["step"] == 8 and log("r")[-1]["reason"] == "stopped"


def test_a_closed_terminal_that_can_not_be_written_saves(place, house):
    dead = """
def hang_up(step):
    if step == 7:
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        signal.raise_signal(signal.SIGHUP)
before_step(hang_up)"""
    done = house.run("train", *flags(out_dir="r", eval_interval=2), patch=dead)
    assert done.status == 129 and saved("r")["progress"]["step"] == 8 and log("r")[-1]["reason"] == "stopped"


def test_a_reader_that_has_seen_enough_ends_no_training(place, house):
    "train | head -3"
    broken = """
reader, writer = os.pipe()
os.close(reader)
sys.stdout = open(writer, "w", encoding="utf-8")
"""
    done = house.run("train", *flags(out_dir="r"), patch=broken)
    assert (done.status, done.err) == (0, "")
    assert saved("r")["progress"]["step"] == 10 and log("r")[-1]["reason"] == "done"


def test_output_to_a_full_disk_ends_no_training(place, house):
    done = house.run("train", *flags(out_dir="r"), out="/dev/full")
    assert (done.status, done.err) == (0, "")
    assert saved("r")["progress"]["step"] == 10 and log("r")[-1]["reason"] == "done"


FULL = [["runs"], ["presets"], ["eval", "runs/a", "--json"], ["sample", "runs/a", "--max_new_tokens=3"]]


@pytest.mark.parametrize("words", FULL, ids=lambda words: words[0])
def test_output_to_a_full_disk_is_one_line(words, trained, house):
    done = house.run(*words, out="/dev/full", cwd=trained)
    assert done.status == 1 and done.err.count("error: ") == 1 and "Traceback" not in done.err, done


@pytest.mark.parametrize("words", [["presets"], ["--help"], ["--version"]], ids=lambda words: words[0])
def test_output_to_a_full_disk_is_one_line_of_the_whole_program(words):
    "These leave by SystemExit, with all that they have said in a buffer."
    with open("/dev/full", "w") as full:
        command = [sys.executable, str(HERE / "gpt.py"), *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.count("error: ") == 1 and done.stderr.count("\n") == 1, done


def test_nohup_is_obeyed(place, house):
    ignored = "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    hangs_up = "before_step(lambda step: step == 7 and signal.raise_signal(signal.SIGHUP))"
    done = house.run("train", *flags(out_dir="r"), patch=ignored + hangs_up)
    assert done.status == 0 and log("r")[-1]["reason"] == "done"


# ---- F16: smaller ones -------------------------------------------------------------------------------------


def test_pipes_where_files_should_be(run_a, house):
    os.mkfifo(run_a / "control")
    check_fine(house.run("train", "--resume=runs/a", "--max_iters=12"))
    os.mkdir("r")
    os.mkfifo("r/control")
    check_fine(house.run("train", *flags(out_dir="r")))
    for name in ("metrics.jsonl", "config.json", "latest.pt", "best.pt"):
        (run_a / name).unlink()
        os.mkfifo(run_a / name)
        for words in (["runs"], ["sample", "runs/a"], ["train", "--resume=runs/a"], ["plot", "runs/a"]):
            assert not house.run(*words, limit=10).hang, (name, words)


def test_control_of_any_bytes_is_taken_away(place, house):
    patch = """
def tell(step):
    if step == 3:
        open('r/control', 'wb').write(b'\\xff\\xfe\\x00no word')
    if step == 5:
        print('left' if os.path.exists('r/control') else 'taken')
        os.path.exists('r/control') and os.remove('r/control')
        os.mkdir('r/control')
before_step(tell)"""
    check_fine(house.run("train", *flags(out_dir="r"), patch=patch), told="taken")


def test_config_json_is_written_aside(place, house):
    "A kill in its middle leaves the whole one before."
    check_fine(house.run("train", *flags(out_dir="r")))
    before = Path("r/config.json").read_text()
    patch = """
write_whole = gpt.write_whole
def half(path, write):
    if path.name == 'config.json':
        gpt.Path(path.name + '.seen').touch()
        write_whole(path, lambda file: (file.write(b'{'), file.flush(), die()))
    write_whole(path, write)
gpt.write_whole = half"""
    assert house.run("train", "--resume=r", "--max_iters=12", patch=patch).status == -9
    assert Path("config.json.seen").exists() and Path("r/config.json").read_text() == before
    check_fine(house.run("train", "--resume=r", "--max_iters=12"))
    assert not list(Path("r").glob("*.tmp"))


LONG = "n" * 300
EXTREME = [
    "sample runs/a --threads 100000",
    "sample runs/a --seed 18446744073709551616",
    "sample runs/a --temperature 1e-40",
    "sample runs/a --temperature inf",
    "sample runs/a --temperature 1e308",
    "sample runs/a --temperature nan",
    "sample runs/a --top_p 1e-300",
    "sample runs/a --min_p 1",
    "sample runs/a --top_k 99999999999999999999999",
    "sample runs/a --repetition_penalty 1e-320",
    "sample runs/a --repetition_penalty 1e308",
    "sample runs/a --num_samples 100000000",
    "sample runs/a --repetition_window 1000000000000 --repetition_penalty 1.1",
    f"train --threads {'9' * 400}",
    f"train --n_embd {'9' * 400}",
    f"train --n_layer {'9' * 400}",
    f"train --max_iters {'9' * 400}",
    "train --epochs 1e308",
    "train --epochs inf",
    "train --max_minutes 1e308 --max_iters 1",
    "train --n_layer 1000 --n_embd 48000 --n_head 1",
    "train --batch_size 1000000000000000000",
    "train --micro_batch 1000000000000000000",
    "train --eval_tokens 1000000000000000000000000",
    "train --eval_interval 1000000000000000000000000",
    "train --log_interval 1000000000000000000000000",
    "train --learning_rate 1e308 --warmup_iters 0",
    "train --learning_rate 1e-320",
    "train --warmup_iters 1000000000000000000000000000000000000000000",
    "train --grad_clip 1e-320",
    "train --weight_decay 1e300",
    "train --save_minutes 1e-320",
    "train --save_minutes 1e308",
    "train --keep 1000000000",
    "train --val_fraction 1e-320",
    "train --val_fraction 0.9999999999999999",
    "train --min_freq 1000000000000000000000 --level word",
    f"train --data {LONG}",
    f"train --data {LONG}.txt",
    f"train --out_dir {LONG}",
    f"train --resume {LONG}",
    f"train --presets {LONG}",
    f"sample {LONG}",
    f"sample runs/a --prompt_file {LONG}",
    f"eval runs/a --data {LONG}.txt",
    f"plot {LONG}",
    f"plot runs/a --out {LONG}.pdf",
    f"presets --vocab_size {'9' * 400}",
    f"presets --n_embd {'9' * 50} --n_head 1",
    f"data story.txt --name {LONG}",
    f"data {LONG}",
    "data ://",
    "data http://[::1",
    "data story.txt --val_fraction nan",
    f"data story.txt --vocab_size {'9' * 400} --level bpe",
    f"data story.txt --min_freq {'9' * 400} --level word",
    "eval runs/a --data same.txt --rows",
    "eval runs/a --stride 100000000000000000000",
]


@pytest.mark.parametrize("part", range(3))
def test_extreme_values(part, run_a, house):
    Path("same.txt").write_text("e" * 4000)
    faults = []
    for line in EXTREME[part::3]:
        command, *words = line.split(" ")
        if command == "train":
            words = [*flags(max_iters=2), *words]
        if command == "sample":
            words = [*words, "--max_new_tokens=3"]
        if came := fault(house.run(command, *words)):
            faults.append((line[:90], came))
    assert not faults, "\n".join(map(str, faults))


@pytest.mark.parametrize("name", ["a b", "$(touch PWNED)", "it's"])
def test_printed_commands_can_be_pasted(name, place, house):
    done = house.run("train", *flags(out_dir=f"runs/{name}", max_iters=2))
    check_fine(done)
    command = re.search("python gpt.py (sample .*)", done.out)[1]
    words = shlex.split(command)
    assert Path(words[1]) == Path(f"runs/{name}")
    check_fine(house.run(*words, "--max_new_tokens=2"))


def test_a_text_cut_short_while_it_is_mapped(place, house):
    check_fine(house.run("data", "story.txt", "--name=p"))
    cut = "before_step(lambda step: step == 3 and os.truncate('data/p-char/train.bin', 0))"
    done = house.run(
        "train", *flags(data="data/p-char", out_dir="r", max_iters=400, block_size=128), patch=cut
    )
    assert done.status != 0 and saved("r")["progress"]["step"] in (0, 5)
    assert fault(house.run("train", "--resume=r")) == "", "its text is short now"


PRESETS = [
    {"x": None},
    {"x": []},
    {"x": {"char": None}},
    {"x": {"char": []}},
    {"x": {"char": {"n_layer": None}}},
    {"x": {"level": []}},
    {"x": {"level": None}},
    {"x": {"level": "syllable"}},
    {"x": {"n_layer": {}}},
    {"x": {"n_layer": 1e400}},
    {"x": {"bpe": 7}},
    {"x": {"about": 7, "for": None}},
    {"x": {"stop": "a"}},
    {"x": {"char": {"char": {}}}},
    {"x": {"char": {"level": "word"}}},
    {"x": {"char": {"expect": [1]}}},
    [["x", 1]],
    [["x", {}]],
    None,
    7,
]


def test_odd_presets(place, house):
    faults = []
    for i, odd in enumerate(PRESETS):
        Path("own.json").write_text(json.dumps(odd))
        commands = [["presets", "--presets=own.json"]]
        if i % 3 == 1:
            commands.append(["train", "--presets=own.json", "--preset=x", *flags(max_iters=1)])
        for words in commands:
            if came := fault(house.run(*words)):
                faults.append((odd, words[:3], came))
    assert not faults, "\n".join(map(str, faults))


METAS = [
    (["val_bytes"], None),
    (["val_bytes"], "x"),
    (["val_bytes"], 0),
    (["val_bytes"], math.inf),
    (["dtype"], "object"),
    (["dtype"], "float32"),
    (["dtype"], "int8"),
    (["dtype"], ["u2"]),
    (["dtype"], "V3"),
    (["tokenizer"], None),
    (["tokenizer", "level"], []),
    (["tokenizer", "characters"], 7),
    (["level"], None),
    (["train_tokens"], DELETE),
    (["val_tokens"], None),
    (["sha256"], []),
]


@pytest.fixture(scope="session")
def prepared(trained, house):
    "The text of that folder as data.py leaves it, data/p-char."
    check_fine(house.run("data", "story.txt", "--name=p", cwd=trained))
    return trained / "data" / "p-char"


def test_odd_meta(prepared, run_a, house):
    shutil.copytree(prepared, "p", dirs_exist_ok=True)
    good = json.loads(Path("p/meta.json").read_text())
    faults = []
    for path, value in METAS:
        odd = copy.deepcopy(good)
        change(path, value)(odd)
        Path("p/meta.json").write_text(json.dumps(odd))
        for words in (["train", *flags(data="p", max_iters=1)], ["eval", "runs/a", "--data=p"]):
            if came := fault(house.run(*words)):
                faults.append((path, value, words[0], came))
    assert not faults, "\n".join(map(str, faults))


# ---- more checkpoints --------------------------------------------------------------------------------------


def test_keep_and_save_minutes(place, house):
    check_fine(house.run("train", *flags(out_dir="r", keep=2, max_iters=20)))
    names = sorted(path.name for path in Path("r").glob("step-*.pt"))
    assert names == ["step-00000015.pt", "step-00000020.pt"]
    assert [saved("r", name)["progress"]["step"] for name in names] == [15, 20]
    assert equal(saved("r"), saved("r", names[1]))
    done = house.run("train", "--resume=r/step-00000015.pt", "--max_iters=25")
    check_fine(done)
    assert log("r", "start")[-1]["resumed_from"] == 15
    kill = "before_step(lambda step: step == 7 and die())"
    ask = flags(out_dir="often", save_minutes=1e-9, eval_interval=1000)
    assert house.run("train", *ask, patch=kill).status == -9
    assert saved("often")["progress"]["step"] == 7
    check_fine(house.run("train", "--resume=often"))
    check_fine(house.run("train", *flags(out_dir="whole", eval_interval=1000)))
    assert same_run("whole", "often")


# ---- chaos: kills ------------------------------------------------------------------------------------------

KILL = """
import io
kind, n = {kind!r}, {n!r}
first = []

def count(step):
    first.append(step)
    if len(first) > 12 or kind == "step" and len(first) == n:
        die()

before_step(count)
write_whole = gpt.write_whole

def killed_inside(path, write):
    if path.name != kind or not first:
        return write_whole(path, write)
    def part(file):
        whole = io.BytesIO()
        write(whole)
        raw = whole.getvalue()
        file.write(raw[:int(n * len(raw))])
        file.flush()
        if n <= 1:
            die()
    if n > 2:
        os.replace = lambda *_: die()
    elif n > 1:
        os.fsync = lambda *_: die()
    write_whole(path, part)
    die()

gpt.write_whole = killed_inside

class Half:
    def __init__(self, file):
        self.file, self.lines = file, 0
    def write(self, text):
        self.lines += 1
        if kind == "line" and self.lines == n:
            self.file.write(text[:len(text) // 2])
            self.file.flush()
            die()
        return self.file.write(text)
    def __enter__(self):
        return self
    def __exit__(self, *_):
        self.file.close()
    def __getattr__(self, name):
        return getattr(self.file, name)

open_log = gpt.open_log
gpt.open_log = lambda folder: Half(open_log(folder))
"""


def moments(n):
    chance = random.Random(14)
    kinds = ["step", "latest.pt", "best.pt", "line"]
    for i in range(n):
        kind = kinds[i % 4]
        if kind == "step":
            yield kind, chance.randint(1, 12)
        elif kind == "line":
            yield kind, chance.randint(1, 25)
        else:
            yield kind, chance.choice([0.0, 0.1, 0.5, 0.99, 1.5, 2.5, chance.random()])


def killed(place, house, kills, optimizer):
    "Kills a run so many times and lets it go on each time -> how many kills, and the faults."
    steps = 15 * kills
    ask = ["train", *flags(max_iters=steps, optimizer=optimizer, eval_tokens=200)]
    check_fine(house.run(*ask, "--out_dir=whole", limit=120))
    command = [*ask, "--out_dir=killed", "--resume=auto"]
    faults, n, inside = [], 0, Counter()
    for kind, when in moments(kills):
        done = house.run(*command, patch=KILL.format(kind=kind, n=when))
        if done.status != -9:
            faults.append((f"{kind} {when}", f"status {done.status}: {done.err[-200:]}"))
            continue
        n += 1
        inside[kind] += 1
        for name in ("latest.pt", "best.pt"):
            if Path("killed", name).exists():
                saved("killed", name)  # else it is no whole file
    done = house.run(*command, limit=120)
    if came := fault(done) or done.status and f"status {done.status}":
        faults.append(("to the end", came))
    if not same_run("whole", "killed"):
        faults.append(("at the end", "another result"))
    run = runs.Run("killed")
    run.poll()
    if [row.step for row in run.rows] != list(range(1, steps + 1)):
        seen = Counter(row.step for row in run.rows)
        twice = [step for step, times in seen.items() if times > 1]
        faults.append(("a reader", f"{len(twice)} steps twice, {steps - len(seen)} of {steps} missing"))
    if [e.step for e in run.evals] != list(range(0, steps + 1, 5)):
        faults.append(("a reader", "evaluations twice or missing"))
    if run.bad > inside["line"]:
        faults.append(("a reader", f"{run.bad} lines make no sense after {inside['line']} kills in a line"))
    if list(Path("killed").glob("*.tmp")):
        faults.append(("at the end", ".tmp is left"))
    return n, inside, faults


def test_killed_and_resumed(place, house):
    n, _, faults = killed(place, house, 4, "muon")
    assert n == 4 and not faults, faults


@chaos
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_chaos_kills(optimizer, place, house):
    kills = 50
    n, inside, faults = killed(place, house, kills, optimizer)
    more = ", ".join(f"{times} in {kind}" for kind, times in inside.items())
    check_none(f"SIGKILL and --resume auto, {optimizer}", n, faults, more)
    assert n == kills


# ---- chaos: disks and folders ------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(place, kilobytes):
    "A file system of this size; skips where mounting is not allowed."
    disk = place / "disk"
    disk.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "chaos", disk], capture_output=True
    )
    if done.returncode:
        pytest.skip("a small disk needs root: mount -t tmpfs")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@chaos
def test_chaos_full_disks(place, house):
    sizes = [16, 32, 48, 64, 96, 128, 160, 200, 300, 400]  # kB; a checkpoint has 70 and 110
    faults, unsaved = [], 0
    for size in sizes:
        with small_disk(place, size) as disk:
            command = ["train", *flags(out_dir=disk / "r", resume="auto")]
            done = house.run(*command)
            try:
                check_truthful(done, disk / "r")
                for path in (disk / "r").glob("*.pt"):
                    gpt.load_checkpoint(path)
            except (AssertionError, gpt.UserError) as error:
                faults.append((f"{size} kB", f"{error!s:.200}"))
            unsaved += done.status
            subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
            done = house.run(*command)
            if (
                done.status
                or not (disk / "r" / "latest.pt").exists()
                or saved(disk / "r")["progress"]["step"] < 10
            ):
                faults.append((f"{size} kB, then room", f"status {done.status}: {done.err[-150:]}"))
    check_none("disk full, then room", len(sizes), faults, f"{unsaved} could not be saved, and said so")


@chaos
def test_chaos_a_disk_that_fills_in_mid_run(place, house):
    with small_disk(place, 8000) as disk:
        fill = f"""
def fill(step):
    if step == 6:
        with open({str(disk / "filler")!r}, 'wb', buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
    if step == {{}}:
        os.remove({str(disk / "filler")!r})
before_step(fill)"""
        freed = house.run("train", *flags(out_dir=disk / "a", max_iters=20), patch=fill.format(13))
        faults = []
        if freed.status or saved(disk / "a")["progress"]["step"] != 20 or "No space left" not in freed.out:
            faults.append(("freed", f"status {freed.status} {freed.out} {freed.err}"))
        full = house.run("train", *flags(out_dir=disk / "b"), patch=fill.format(-1))
        last = full.err.strip().splitlines()[-1:] or [""]
        if full.status != 1 or "No space left" not in last[0]:
            faults.append(("full", f"status {full.status} {last}"))
        os.remove(disk / "filler")
        done = house.run("train", f"--resume={disk / 'b'}")
        if done.status or saved(disk / "b")["progress"]["step"] != 10:
            faults.append(("room again", f"status {done.status} {done.err}"))
        check_none("disk full in mid-run, freed or not", 2, faults)


@chaos
def test_chaos_folders(place, house):
    faults, tried = [], 0
    for how, patch in GONE.items():
        for step in (0, 4, 5, 9):
            tried += 1
            shutil.rmtree("r", ignore_errors=True)
            for name in ("r", "e", "elsewhere"):
                with contextlib.suppress(OSError):
                    os.remove(name) if os.path.isfile(name) else shutil.rmtree(name)
            done = house.run("train", *flags(out_dir="r"), patch=patch.replace("== 7", f"== {step}"))
            try:
                check_truthful(done, "r")
            except AssertionError as error:
                faults.append((f"{how} at step {step}", f"{error!s:.200}"))
    for name in ("/proc", "/dev/null", "/dev/null/x", "story.txt", "story.txt/x", "/proc/self/fd/1"):
        tried += 1
        if came := fault(house.run("train", *flags(out_dir=name))):
            faults.append((name, came))
    check_none("out_dir removed, renamed, a file, read-only, no room", tried, faults)


# ---- chaos: damage -----------------------------------------------------------------------------------------


@chaos
def test_chaos_bit_flips(run_a):
    refused, wrong = flips(run_a, 400)
    check_none("single bit flips in best.pt", 400, wrong, f"{refused} refused, the others load the same")


@chaos
def test_chaos_damage(run_a):
    path = run_a / "best.pt"
    raw = path.read_bytes()
    good = saved(run_a, "best.pt")
    chance = random.Random(5)
    wrong = []
    for i in range(200):
        start, n = chance.randrange(len(raw)), chance.choice([16, 256, 4096])
        spoilt = [raw[:start], raw[:start] + bytes(n) + raw[start + n :], raw[:start] + raw[start + n :],
                  raw[:start] + b"\xff" * n + raw[start + n :]][i % 4]  # fmt: skip
        path.write_bytes(spoilt)
        try:
            if not equal(gpt.load_checkpoint(path), good):
                wrong.append((f"{i % 4} at {start}, {n} bytes", "loads as something else"))
        except gpt.UserError:
            pass
        except BaseException as error:
            wrong.append((f"{i % 4} at {start}", repr(error)))
    check_none("cut, zeroed, taken out, 0xff", 200, wrong)


VALUES = [
    *(None, True, 0, -1, 1, 2.5, 10**9, 10**30, -(10**30), 1e308, math.nan, math.inf),
    *("", "x", ESC, "a\0b", "x" * 5000, "9" * 50, [], [1, None], {}, {"a": {}}),
]


def tensors(like):
    "What may stand in a tensor's place."
    types = torch.double, torch.int8, torch.complex64, torch.bool, torch.bfloat16, torch.half
    found = [like.to(dtype) for dtype in types]
    found += [like.flatten(), like.unsqueeze(0), like * math.nan, like * 1e30, like.sum(), torch.zeros(())]
    if like.ndim:
        found += [like[:0], like.clone().to_sparse()]
    return found


def ways(tree, path=()):
    "All places in a nest of dicts and lists."
    if path:
        yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        if len(path) < 4:
            yield from ways(value, (*path, key))


def spoil(tree, chance, plain=True):
    "One place of it gets another value, goes away, or a new one comes. -> what was done"
    places = list(ways(tree))
    tops = [path for path in places if len(path) <= 2 and path[0] != "model"] or places
    path = chance.choice(chance.choice([places, tops]))
    where = tree
    for key in path[:-1]:
        where = where[key]
    value = chance.choice([*VALUES, DELETE])
    if not plain and isinstance(where[path[-1]], torch.Tensor):
        value = chance.choice([*tensors(where[path[-1]]), *VALUES])
    if value is DELETE:
        del where[path[-1]]
        return f"{path} deleted"
    where[path[-1]] = value
    if isinstance(value, torch.Tensor):
        return f"{path} {value.dtype} {tuple(value.shape)} {value.layout}"
    return f"{path} = {value!r:.40}"


@chaos
@pytest.mark.parametrize("half", range(2))
def test_chaos_checkpoints(half, run_a, small_text, house):
    hostile(saved(run_a), lambda _: None)  # as it is now, it works
    for words in WITH_CHECKPOINT:
        done = house.run(*words)
        assert fault(done) == "" or "too few" in done.err
    good = saved(run_a)
    chance = random.Random(300 + half)
    faults, ends = [], Counter()
    named = list(HOSTILE.items())[half::2]
    for i in range(150):
        checkpoint = copy.deepcopy(good)
        if i < len(named):
            name, (path, value) = named[i]
            change(path, value)(checkpoint)
            words = WITH_CHECKPOINT[:4]
        else:
            name = spoil(checkpoint, chance, plain=False)
            words = [WITH_CHECKPOINT[i % 4]]
        with contextlib.suppress(Exception):
            hostile(checkpoint, lambda _: None)
        for command in words:
            done = house.run(*command)
            ends[done.status] += 1
            if came := fault(done):
                faults.append((f"{name}: {' '.join(command)}", came))
    check_none(
        f"hostile checkpoints, {half + 1} of 2", 150, faults, f"{ends[2] + ends[1]} of {ends.total()} refused"
    )


@chaos
def test_chaos_presets(run_a, house):
    good = {"x": {"n_layer": 1, "n_embd": 16, "n_head": 2, "about": "a", "for": "b", "level": "char",
                  "char": {"dropout": 0.1, "expect": "c"}, "word": {}, "bpe": {"vocab_size": 500}},
            "y": {"n_layer": 1}}  # fmt: skip
    chance = random.Random(200)
    faults = []
    for i in range(200):
        tree = copy.deepcopy(good)
        what = [spoil(tree, chance) for _ in range(1 + i % 3)]
        text = json.dumps(tree)
        if i % 10 == 0:
            cut = chance.randrange(len(text))
            text = text[:cut] + chance.choice(["", "[", "\x00", "9" * 5000, "[" * 100_000])
        Path("own.json").write_text(text)
        words = [["presets", "--presets=own.json"], ["presets", "--presets=own.json", "--json"],
                 ["train", "--presets=own.json", "--preset=x", *flags(max_iters=1)],
                 ["presets", "--presets=own.json", "--preset=x", "--level=char"]][i % 4]  # fmt: skip
        if came := fault(house.run(*words)):
            faults.append((f"{what} {words[0]}", came))
    check_none("presets.json", 200, faults)


@chaos
def test_chaos_meta(prepared, run_a, house):
    shutil.copytree(prepared, "p", dirs_exist_ok=True)
    good = json.loads(Path("p/meta.json").read_text())
    raw = Path("p/val.bin").read_bytes()
    chance = random.Random(201)
    faults = []
    for i in range(200):
        tree = copy.deepcopy(good)
        what = spoil(tree, chance)
        text = json.dumps(tree)
        if i % 10 == 0:
            text = text[: chance.randrange(len(text))]
        Path("p/meta.json").write_text(text)
        odd = chance.choice([raw, raw, raw[:-1], b"", raw[:2], b"\xff" * len(raw), raw * 2])
        Path("p/val.bin").write_bytes(odd)
        words = [["train", *flags(data="p", max_iters=1)], ["eval", "runs/a", "--data=p"]][i % 2]
        if came := fault(house.run(*words)):
            faults.append((f"{what}, val.bin {len(odd)} {words[0]}", came))
    check_none("meta.json and val.bin", 200, faults)


@chaos
def test_chaos_metrics(run_a, house):
    good = (run_a / "metrics.jsonl").read_text().splitlines()
    chance = random.Random(202)
    faults = []
    for i in range(200):
        lines = [json.loads(line) for line in good]
        what = [spoil(lines, chance) for _ in range(1 + i % 4)]
        text = "\n".join(map(json.dumps, lines)).encode() + b"\n"
        if i % 5 == 0:
            cut = chance.randrange(len(text))
            what.append(f"cut at {cut}")
            text = (
                text[:cut]
                + chance.choice([b"", b"\xff\xfe\n", b"\0" * 100, b"[" * 100_000 + b"\n"])
                + text[cut:]
            )
        (run_a / "metrics.jsonl").write_bytes(text)
        words = [["runs"], ["plot", "runs/a", "--out=l.svg"], ["runs", "--json"], ["runs", "--sort=best"]][
            i % 4
        ]
        done = house.run(*words)
        came = fault(done)
        if words[0] == "runs" and not came and not re.search(r"\ba\b", done.out):
            came = "the run is not listed"
        if came:
            faults.append((f"{what} {words}", came))
    check_none("metrics.jsonl", 200, faults)


# ---- chaos: requests and command lines ---------------------------------------------------------------------


def float_of(value):
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


def requests(n):
    "Lines for chat --jsonl, and for how many of them an answer is due."
    chance = random.Random(1000)
    for i in range(n):
        request = {"id": i, "prompt": "The ", "max_new_tokens": 2}
        kind = i % 8
        if kind < 5:
            names = ["prompt", *gpt.knobs(gpt.SampleConfig), "probs", "id", "load", ESC]
            for name in chance.choices(names, k=1 + kind % 3):
                request[name] = chance.choice(VALUES)
            if float_of(request["max_new_tokens"]) > 1000:
                request["max_new_tokens"] = 3  # else it goes on for ever, as it should
            line = json.dumps(request).encode()
        elif kind == 5:
            line = json.dumps(chance.choice(VALUES)).encode()
        elif kind == 6:
            line = chance.choice(
                [b"\xff\xfe", b"{", b"[" * 100_000, b'{"a":' * 5000, b"\0", b'{"id":1e999}', b"NaN"]
            )
        else:
            line = json.dumps({"stop": chance.choice(VALUES)}).encode()
            yield line, 0
            continue
        yield line, 1


@chaos
def test_chaos_chat(run_a, house):
    lines, due = zip(*requests(1000))
    last = json.dumps({"id": "last", "prompt": "The ", "max_new_tokens": 4}).encode()
    Path("requests").write_bytes(b"\n".join([*lines, last]) + b"\n")
    done = house.run("chat", "runs/a", "--jsonl", stdin="requests", limit=200)
    answers = [json.loads(line) for line in done.out.splitlines()]
    ended = [answer for answer in answers if answer["kind"] in ("done", "error", "ready")]
    faults = []
    if done.status or done.hang or "Traceback" in done.err:
        faults.append(("1,000 requests", f"status {done.status} {done.err[-300:]}"))
    if answers[-1]["kind"] != "done" or answers[-1]["id"] != "last":
        faults.append(("the last", f"{answers[-1]}"))
    if len(ended) != sum(due) + 2:
        faults.append(("answers", f"{len(ended)} for {sum(due) + 2} requests"))
    if any("\x1b" in line for line in done.out.splitlines()):
        faults.append(("answers", "an escape reaches the terminal"))
    check_none("chat --jsonl requests", 1000, faults, f"{done.seconds:.0f} s")


EXTREMES = [
    *("0", "-1", "1", "9" * 40, "9" * 400, "1e308", "-1e308", "1e-320", "nan", "inf", "-inf", "", "x", "1.5"),
    *("0x10", "٣", str(2**63), str(2**63 - 1), str(2**31), "1e9", "true", "-0.0", ESC, "\u202e", "$(id)"),
    *(
        "a/b",
        "/",
        ".",
        "/dev/null",
        "/proc/self/mem",
        "x" * 300,
        "a,b",
        "'",
        "*",
        "~",
        "%s",
        "{}",
        "\\",
        "\n",
    ),
]


def command_lines(n):
    chance = random.Random(250)
    training, sampling = sorted(gpt.KNOBS), sorted(gpt.knobs(gpt.SampleConfig))
    others = {
        "eval": ["data", "split", "stride", "threads", "device"],
        "plot": ["out"],
        "runs": ["sort"],
        "presets": training,
    }
    for i in range(n):
        value = chance.choice(EXTREMES)
        if i % 5 < 2:
            name = training[i * 2 // 5 % len(training)]
            words = ["train", *flags(max_iters=1, max_minutes=0.02), f"--{name}={value}"]
        elif i % 5 == 2:
            words = [
                "sample",
                "runs/a",
                "--max_new_tokens=3",
                f"--{sampling[i // 5 % len(sampling)]}={value}",
            ]
        elif i % 5 == 3:
            command = chance.choice(list(others))
            words = [command, *(["runs/a"] if command in ("eval", "plot") else [])]
            words.append(f"--{chance.choice(others[command])}={value}")
        else:
            names = ["level", "name", "val_fraction", "min_freq", "vocab_size", "field", "workers"]
            commands = [[command, value] for command in ("data", "sample", "train", "eval", "plot")]
            words = chance.choice(
                [["data", "story.txt", f"--{chance.choice(names)}={value}"], *commands, [value]]
            )
        endless = re.search("--(sample_tokens|max_new_tokens)=([1-9]|inf)", words[-1])
        online = words[-1].startswith("--init_from") and "hf:" in words[-1]
        if not endless and not online and words[-1:] != ["/"]:
            yield words


@chaos
@pytest.mark.parametrize("half", range(2))
def test_chaos_command_lines(half, run_a, small_text, house):
    faults, ends = [], Counter()
    lines = list(command_lines(260))[half::2]
    for words in lines:
        done = house.run(*words)
        ends[done.status] += 1
        if came := fault(done):
            faults.append(
                ([word for word in words if word not in flags(max_iters=1, max_minutes=0.02)], came)
            )
    more = ", ".join(f"{n} x status {status}" for status, n in sorted(ends.items()))
    check_none(f"command lines, {half + 1} of 2", len(lines), faults, more)


# ---- chaos: a long run -------------------------------------------------------------------------------------


@pytest.mark.parametrize("hour", [-3600, 3600])
def test_a_clock_that_jumps(hour, place, house):
    jump = f"""
now = time.time
def look(step):
    if step == 5:
        gpt.time.time = lambda: now() + {hour}
before_step(look)"""
    check_fine(house.run("train", *flags(out_dir="r", max_iters=0, max_minutes=0.02), patch=jump))
    assert log("r", "end")[0]["reason"] == "time"
    steps = log("r", "step")
    assert len(steps) > 10 and abs(steps[-1]["time"] - steps[0]["time"] - hour) < 10  # so it did jump
    assert all(0 < line["tokens_per_s"] < 1e7 and 0 <= line["eta_s"] < 10 for line in steps[5:])
    assert all(0 <= b["elapsed_s"] - a["elapsed_s"] < 1 for a, b in zip(steps, steps[1:]))
    run = runs.Run("r")
    run.poll()
    assert run.state == "done"


@chaos
def test_chaos_20_000_steps(place, house):
    watch = """
import resource
def look(step):
    if step % 4000 == 100:
        pages = int(open('/proc/self/statm').read().split()[1])
        size = os.path.getsize('r/metrics.jsonl')
        with open('seen', 'a') as file:
            print(step, time.monotonic(), pages * 4096, len(os.listdir('/proc/self/fd')), size, file=file)
before_step(look)"""
    ask = flags(out_dir="r", n_layer=1, n_head=1, n_embd=8, block_size=8, batch_size=1, max_iters=20_000,
                eval_interval=1000, eval_tokens=100, log_interval=10, sample_every=5000)  # fmt: skip
    done = house.run("train", *ask, patch=watch, limit=600)
    check_fine(done)
    seen = [[float(x) for x in line.split()] for line in Path("seen").read_text().splitlines()]
    (_, _, memory, files, _), (_, _, memory_then, files_then, size_then) = seen[1], seen[-1]
    growth = (memory_then - memory) / 1e6
    more = (
        f"{memory / 1e6:.0f} + {growth:.1f} MB, {files_then:.0f} open files, metrics {size_then / 1e3:.0f} kB"
    )
    rates = [4000 / (b[1] - a[1]) for a, b in zip(seen, seen[1:])]
    figure("steps of one run", 20_000, 0, more + ", steps/s " + ", ".join(f"{rate:.0f}" for rate in rates))
    assert growth < 20 and files == files_then and size_then < 60 * 20_000
    run = runs.Run("r")
    run.poll()
    assert run.bad == 0 and run.rows[-1].step == 20_000


# ---- chaos: two hosts --------------------------------------------------------------------------------------

NAMES = {  # /etc/hosts as an administrator writes it, and as Debian and Ubuntu install it
    "plain": {"a": "10.7.0.1 node-a\n10.7.0.2 node-b\n", "b": "10.7.0.1 node-a\n10.7.0.2 node-b\n"},
    "Debian": {"a": "127.0.1.1 node-a\n10.7.0.2 node-b\n", "b": "127.0.1.1 node-b\n10.7.0.1 node-a\n"},
}
SHARED = dict(batch_size=8, dropout=0.0, max_iters=200, eval_interval=50, out_dir="r")
TORCHRUN = "-m torch.distributed.run --nnodes=2 --nproc_per_node=1 --max-restarts=3"
TORCHRUN += " --rdzv_backend=c10d --rdzv_endpoint=node-a:29400 --rdzv_conf=read_timeout=15"
TORCHRUN += f" {HERE / 'gpt.py'} train --resume auto"


class Hosts:
    """Two hosts on a cable: network namespaces, each with an address, a name and an /etc/hosts of its own.
    They share the disk."""

    def __init__(self):
        self.space = {host: f"gpt-{os.getpid()}-{host}" for host in "ab"}
        self.begun = []

    def __enter__(self):
        try:
            for space in self.space.values():
                self.ip("netns", "add", space)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("two hosts need root and iproute2: ip netns add")
        ends = [["cable", "netns", self.space["a"]], ["cable", "netns", self.space["b"]]]
        self.ip("link", "add", *ends[0], "type", "veth", "peer", "name", *ends[1])
        for host, address in (("a", "10.7.0.1/24"), ("b", "10.7.0.2/24")):
            self.ip("-n", self.space[host], "addr", "add", address, "dev", "cable")
            for link in ("lo", "cable"):
                self.ip("-n", self.space[host], "link", "set", link, "up")
        return self

    def __exit__(self, *error):
        for host in self.space:
            self.kill(host)
        for process in self.begun:
            process.wait()
        for space in self.space.values():
            self.ip("netns", "del", space)

    def ip(self, *words):
        return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout

    def start(self, host, names="plain", again=False, **asked):
        "What one types on a host: torchrun, and again after a while if it fails."
        hosts = Path(f"hosts-{host}").absolute()
        hosts.write_text("127.0.0.1 localhost\n" + NAMES[names][host])
        command = shlex.join([sys.executable, *TORCHRUN.split(), *flags(**{**SHARED, **asked})])
        if again:
            command = f"until {command}; do sleep 5; done"
        command = f"hostname node-{host}; mount --bind {shlex.quote(str(hosts))} /etc/hosts; {command}"
        words = ["ip", "netns", "exec", self.space[host], "unshare", "-u", "-m", "bash", "-c", command]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        if names == "Debian":
            env["GLOO_SOCKET_IFNAME"] = "cable"
        with open(f"said-{host}", "ab") as said:
            process = subprocess.Popen(words, stdout=said, stderr=said, env=env)
        self.begun.append(process)
        return process

    def kill(self, host, only_training=False):
        for pid in self.ip("netns", "pids", self.space[host]).split():
            with contextlib.suppress(OSError):  # it is gone
                environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                if not only_training or any(line.startswith(b"LOCAL_RANK=") for line in environment):
                    os.kill(int(pid), 9)

    def sent(self, host):
        "Bytes that went through the cable."
        where = "/sys/class/net/cable/statistics/tx_bytes"
        return int(self.ip("netns", "exec", self.space[host], "cat", where))


@pytest.fixture
def hosts(place):
    with Hosts() as both:
        yield both


def until_step(n, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError, IndexError):  # not there yet; half a line
            if log("r", "step")[-1]["step"] >= n:
                return
        time.sleep(0.05)
    raise AssertionError("".join(Path(f"said-{host}").read_text()[-3000:] for host in "ab"))


def check_ended(*processes, seconds=180):
    statuses = [process.wait(seconds) for process in processes]
    assert statuses == [0] * len(processes), Path("said-a").read_text()[-3000:]


def losses(folder):
    "By step, each as the run that goes on has it."
    return {(line["kind"], line["step"]): line.get("loss", line.get("val_loss")) for line in log(folder)
            if line["kind"] in ("step", "eval")}  # fmt: skip


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, story):
    "The run that all those below must come to."
    place, before = tmp_path_factory.mktemp("undisturbed"), os.getcwd()
    os.chdir(place)
    Path("story.txt").write_text(story, encoding="utf-8")
    with Hosts() as both:
        check_ended(both.start("a"), both.start("b"))
    os.chdir(before)
    return place / "r"


@chaos
def test_chaos_two_hosts_are_one_process(undisturbed, place, house):
    check_fine(house.run("train", *flags(**SHARED), limit=120))
    one, two = losses("r"), losses(undisturbed)
    apart = max(abs(one[key] - two[key]) for key in one)
    figure("steps on two hosts, against one process", SHARED["max_iters"], 0, f"losses differ by {apart:.0e}")
    assert one.keys() == two.keys() and apart < 1e-3
    assert max(abs(one["step", n] - two["step", n]) for n in range(1, 20)) < 1e-5


@chaos
def test_chaos_hosts_that_call_themselves_127_0_1_1(undisturbed, hosts):
    check_ended(hosts.start("a", "Debian"), hosts.start("b", "Debian"))
    assert same_run(undisturbed, "r")


@chaos
def test_chaos_what_travels_is_what_the_plan_says(hosts):
    wide = dict(n_embd=128, max_iters=20, eval_interval=1000, optimizer="adamw")
    check_ended(hosts.start("a", **wide), hosts.start("b", **wide))
    weights = log("r", "start")[0]["parameters"]
    per_step = hosts.sent("a") / 20
    share = per_step / (4 * weights)  # 2 (n - 1) / n times 4 bytes for each weight
    figure("bytes a step from host to host", int(per_step), 0, f"{share:.2f} of what gpt.py plan says")
    assert 0.95 < share < 1.25


@chaos
@pytest.mark.parametrize("what", ["training on b", "training on b, at once", "a", "b"])
def test_chaos_a_host_dies(what, undisturbed, hosts):
    for host in "ab":
        hosts.start(host, again=True)
    if what.endswith("at once"):
        while not Path("r/metrics.jsonl").exists():
            time.sleep(0.02)
    else:
        until_step(60)
    died = time.monotonic()
    if what.startswith("training"):
        hosts.kill("b", only_training=True)
        check_ended(*hosts.begun)
    else:
        hosts.kill(what)
        time.sleep(5)  # it starts anew
        back = hosts.start(what, again=True)
        check_ended(*[process for process in hosts.begun if process.poll() is None], back)
    took = time.monotonic() - died
    figure(f"kill -9: {what}, of two hosts", 1, 0, f"done {took:.0f} s later, bit for bit")
    assert same_run(undisturbed, "r")


@chaos
def test_chaos_a_cable_that_is_pulled_for_a_moment(undisturbed, hosts):
    both = hosts.start("a"), hosts.start("b")
    until_step(60)
    hosts.ip("-n", hosts.space["b"], "link", "set", "cable", "down")
    time.sleep(8)  # torchrun waits 15 s for its own words, as read_timeout says
    step = log("r", "step")[-1]["step"]
    hosts.ip("-n", hosts.space["b"], "link", "set", "cable", "up")
    check_ended(*both)
    figure("cable pulled for 8 s", 1, 0, f"waited at step {step}, then went on")
    assert 60 <= step < 200 and same_run(undisturbed, "r")


@chaos
def test_chaos_a_cable_that_is_pulled_for_good(hosts):
    "The training waits, and can say nothing. What watches it does, and obeys."
    for host in "ab":
        hosts.start(host)
    until_step(60)
    pulled = time.monotonic()
    hosts.ip("-n", hosts.space["b"], "link", "set", "cable", "down")
    while not any("no word from the other processes" in line["text"] for line in log("r", "warn")):
        assert time.monotonic() - pulled < 100, log("r")[-3:]
        time.sleep(0.2)
    told = time.monotonic() - pulled
    Path("r/control").write_text("stop")
    while log("r")[-1]["kind"] != "end":
        assert time.monotonic() - pulled < told + 20, log("r")[-3:]
        time.sleep(0.2)
    assert "gone" in log("r")[-1]["message"] and gpt.load_checkpoint("r/latest.pt")["progress"]["step"] >= 50
    figure("cable pulled for good", 1, 0, f"told after {told:.0f} s; stop in the control file was obeyed")
