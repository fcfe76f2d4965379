"""Tests of runs.py, the one reader of run folders.

    pytest -q test_runs.py

Needs pytest and hypothesis only."""

import asyncio
import io
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import runs
from runs import Run, find_runs

HERE = Path(runs.__file__).resolve().parent
needs_locks = pytest.mark.skipif(not runs.fcntl, reason="there are no such locks")

# ---- helpers, which test_tui.py uses, too ------------------------------------------------------------------


def lines_of(n=300, end="done", most=0, warn="", level="char", preset="nano", **train):
    "What a run of n steps would write to metrics.jsonl."
    noise = random.Random(n)
    most = most or n
    train = {
        "preset": preset,
        "level": level,
        "data": "sherlock",
        "batch_size": 32,
        "micro_batch": 0,
        "max_iters": most,
        "learning_rate": 0.006,
        "muon_lr": 0.03,
        **train,
    }
    model = {"n_layer": 3, "n_head": 3, "n_embd": 96, "block_size": 128, "vocab_size": 98}
    used = {"dtype": "float32", "torch": "2"}
    yield {
        "kind": "start",
        "config": {"model": model, "train": train, "used": used},
        "parameters": 357408,
        "device": "cpu",
        "pid": 2**22 + 1,
        "max_iters": most,
        "world_size": 1,
        "resumed_from": None,
    }
    for step in range(0, n + 1, 10):
        loss = 1.5 + 3 * (1 + step / 60) ** -0.7
        if step:
            yield {
                "kind": "step",
                "step": step,
                "loss": loss + noise.gauss(0, 0.05),
                "grad_norm": 0.4,
                "lr": 0.006,
                "tokens": step * 4096,
                "tokens_per_s": 40000,
                "elapsed_s": step * 0.03,
                "eta_s": 9,
                "mfu": 0.31,
                "memory_mb": 420,
                "done": step / most,
            }
        if step % 50 == 0:
            yield {
                "kind": "eval",
                "step": step,
                "train_loss": loss,
                "val_loss": loss + 0.1,
                "best": loss + 0.1,
                "perplexity": 7,
                "bits_per_byte": loss / 0.7,
            }
            yield {"kind": "sample", "step": step, "text": f"sample {step} [/b] \x1b]0;hacked\x07 \ud800 end"}
    if warn:
        yield {"kind": "warn", "step": n, "text": warn}
    yield {"kind": "state", "state": "training"}
    if end:
        yield {"kind": "end", "step": n, "reason": end, "message": "best loss 1.9"}


def write_lines(folder, lines, mode="w"):
    with open(folder / "metrics.jsonl", mode, encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line) + "\n")


def make_older(folder, age):
    then = time.time() - age
    os.utime(folder / "metrics.jsonl", (then, then))


def make_run(folder, n=300, age=0.0, checkpoints=("best.pt", "latest.pt"), **more):
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder, lines_of(n, **more))
    make_older(folder, age)
    for name in checkpoints:
        (folder / name).write_bytes(b"weights")
    return folder


def polled(folder, *process):
    run = Run(folder, *process)
    run.poll()
    return run


class Process:
    "Stands in for a Popen: still running (None), or ended with an exit status."

    def __init__(self, status):
        self.status = status

    def poll(self):
        return self.status


# ---- reading -----------------------------------------------------------------------------------------------


def test_reader_understands_a_run(tmp_path):
    run = Run(make_run(tmp_path / "a", warn="it overfits"))
    assert run.state == ""
    assert run.poll()
    assert not run.poll()
    assert (run.name, run.state, run.step, run.done) == ("a", "done", 300, 1)
    assert (run.best.step, len(run.rows), len(run.evals)) == (300, 30, 7)
    assert run.warnings == ["it overfits"]
    assert run.speed == 40000
    assert run.weights == 357408
    assert run.when == (run.folder / "metrics.jsonl").stat().st_mtime
    assert run.checkpoints == ["best.pt", "latest.pt"]
    assert run.saved == (run.folder / "latest.pt").stat().st_mtime
    assert run.part("train")["preset"] == "nano"
    assert run.part("nothing") == {}
    assert run.shape("{preset} {n_layer} {parameters} {what}") == "nano 3 357k ?"
    assert run.end == {"step": 300, "reason": "done", "message": "best loss 1.9"}
    assert run.trouble is None
    step, text = run.samples[0]
    assert step == 300
    assert "\x1b" not in text
    assert text.endswith("end")


def test_a_persons_own_script_as_in_the_docstring(tmp_path):
    make_run(tmp_path / "runs" / "nano-char")
    shutil.copy(runs.__file__, tmp_path)
    block = re.search(r"\n\n((?:    .*\n)+)", runs.__doc__)[1]
    script = re.sub("^    ", "", block, flags=re.MULTILINE)
    found = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert found.stderr == ""
    assert found.stdout.startswith("done 300 40000 Eval(step=300, ")


def test_it_needs_nothing_but_python(tmp_path):
    make_run(tmp_path / "a")
    blocked = "torch", "numpy", "textual", "rich", "gpt", "tools", "data"
    script = f"import sys\nsys.modules.update(dict.fromkeys({blocked}))\nimport runs\n"
    script += f"run = runs.Run({str(tmp_path / 'a')!r})\nrun.poll()\nprint(run.state)"
    found = subprocess.run([sys.executable, "-c", script], cwd=HERE, capture_output=True, text=True)
    assert (found.stdout, found.stderr) == ("done\n", "")


GARBAGE = [
    b"{",
    b"null",
    b"[1]",
    b'{"kind": 3}',
    b'{"kind": []}',
    b'{"kind": "step"}',
    b'{"kind": "step", "step": "x"}',
    b'{"kind": "step", "step": Infinity}',
    b'{"kind": "step", "step": 1' + b"0" * 400 + b"}",
    b"\xff\xfe",
    b"[" * 3000,
    b'{"kind": "start", "config": 7}',
    b'{"kind": "start", "config": [1]}',
    b'{"kind": "start", "config": {"train": [1], "model": {"n_layer": ' + b"[" * 900 + b"]" * 900 + b"}}}",
    b'{"kind": "forget"}',
    b'{"kind": "state", "state": ["paused"]}',
    b'{"kind": "state", "state": "done"}',
    b'{"kind": "eval", "step": 1}',
    b'{"kind": "eval", "step": 1, "val_loss": "NaN"}',
    b'{"kind": "new", "x": 1}',
    b'{"kind": "step", "step": 5, "loss": NaN, "lr": true}',
    b'{"kind": "step", "step": 5, "loss": 1e300, "tokens_per_s": 1e400}',
    b'{"kind": "sample"}',
    b'{"kind": "end", "reason": []}',
]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9000), max_size=8), st.lists(st.sampled_from(GARBAGE), max_size=4))
def test_reader_takes_any_pieces_and_any_garbage(tmp_path_factory, cuts, garbage):
    folder = tmp_path_factory.mktemp("run")
    lines = [json.dumps(line).encode() for line in lines_of(100)]
    data = b"\n".join(lines[:-3] + garbage + lines[-3:]) + b"\n"
    run = Run(folder)
    at = 0
    for cut in sorted(cuts) + [len(data)]:
        with open(folder / "metrics.jsonl", "ab") as file:
            file.write(data[at : max(at, cut)])
        at = max(at, cut)
        run.poll()
    whole = polled(folder)
    for name in "rows", "evals", "samples", "bad", "end", "step", "state", "start", "now":
        assert getattr(run, name) == getattr(whole, name)
    assert run.state == "done"
    assert run.best is None or run.best.val < 9
    assert run.speed is None or math.isfinite(run.speed)
    run.shape("{preset} on {data}, {n_layer} layers, {parameters}")


def test_a_file_that_grows_while_it_is_read(tmp_path, monkeypatch):
    lines = "".join(json.dumps({"kind": "step", "step": i, "loss": 2.0}) + "\n" for i in range(9))
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines[:-20])

    class Growing(io.BufferedReader):
        def __init__(self, path, mode):
            super().__init__(io.FileIO(path, mode))

        def readlines(self, least):
            "What is there; then the rest of the last line comes."
            found = super().readlines(least)
            if path.stat().st_size < len(lines):
                path.write_text(lines)
            return found

    monkeypatch.setattr(runs, "open", Growing, raising=False)
    run = polled(tmp_path)
    run.poll()
    assert [row.step for row in run.rows] == list(range(9))
    assert run.offset == len(lines)
    assert run.bad == 0


def test_hostile_runs_do_not_disturb_the_others(tmp_path):
    for i, line in enumerate(GARBAGE):
        folder = tmp_path / f"garbage-{i:02}"
        folder.mkdir()
        (folder / "metrics.jsonl").write_bytes(b'{"kind": "start", "config": {}}\n' + line + b"\n" + line)
    (tmp_path / "directory" / "metrics.jsonl").mkdir(parents=True)
    (tmp_path / "a-file").write_text("no folder")
    (tmp_path / "not-a-run").mkdir()
    if hasattr(os, "mkfifo"):
        (tmp_path / "pipe").mkdir()
        os.mkfifo(tmp_path / "pipe" / "metrics.jsonl")
        os.mkfifo(tmp_path / "pipe" / "train.log")
        os.mkfifo(tmp_path / "pipe" / "best.pt")
    make_run(tmp_path / "good")
    found = {folder.name: polled(folder) for folder in find_runs(tmp_path)}
    assert {"good", "directory"} < found.keys()
    assert found.keys().isdisjoint({"a-file", "not-a-run"})
    assert found["good"].state == "done"
    assert found["good"].bad == 0
    assert found["directory"].state == "crashed"
    assert len([name for name in found if name.startswith("garbage")]) == len(GARBAGE)
    for run in found.values():
        assert run.state in (*runs.LIVE, "done", "stopped", "crashed", "gone")
    if "pipe" in found:
        assert (found["pipe"].state, found["pipe"].checkpoints) == ("crashed", [])


def test_a_folder_that_cannot_be_looked_into_does_not_hide_the_others(tmp_path, monkeypatch):
    make_run(tmp_path / "good")
    make_run(tmp_path / "secret")
    stat = os.stat

    def refusing(path, **more):
        if "secret" in str(path):
            raise PermissionError(13, "Permission denied", path)
        return stat(path, **more)

    monkeypatch.setattr(os, "stat", refusing)
    assert find_runs(tmp_path) == [tmp_path / "good"]
    assert polled(tmp_path / "secret").state in ("crashed", "gone")


def test_find_runs(tmp_path):
    assert find_runs(tmp_path / "nowhere") == []
    make_run(tmp_path / "b")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "train.log").write_text("error: it did not get far\n")
    assert find_runs(tmp_path) == find_runs(str(tmp_path)) == [tmp_path / "a", tmp_path / "b"]


def test_reader_forgets_what_a_resumed_run_does_again(tmp_path):
    folder = make_run(tmp_path / "a", 300, end="")
    again = [
        {"kind": "start", "config": {}, "resumed_from": 200},
        {"kind": "step", "step": 210, "loss": 2.0},
    ]
    write_lines(folder, again, "a")
    run = polled(folder)
    assert [row.step for row in run.rows][-2:] == [200, 210]
    assert run.evals[-1].step == 200
    (folder / "metrics.jsonl").write_text('{"kind": "start", "config": {}}\n')  # somebody began anew
    run.poll()
    assert run.rows == []
    assert run.offset == 32


def test_reader_is_quick_and_small(tmp_path):
    line = (
        '{"kind": "step", "time": 1795246953.237, "step": %d, "loss": %.4f, "grad_norm": 1.397, '
        '"lr": 0.0027, "tokens": 40960, "tokens_per_s": 25292.33, "elapsed_s": 7.36, "mfu": null, '
        '"memory_mb": 420.46, "done": 0.05}\n'
    )
    lines = [line % (i, 3 - i / 1e5) for i in range(100_000)]
    (tmp_path / "metrics.jsonl").write_text('{"kind": "start", "config": {}}\n' + "".join(lines))
    start = time.process_time()
    for text in lines:
        json.loads(text)
    parsing = time.process_time() - start
    run = Run(tmp_path)
    start = time.process_time()
    run.poll()
    assert time.process_time() - start < 10 * parsing  # about twice, on the same machine at the same time
    assert run.step == 99_999
    assert len(run.rows) < 2 * runs.MOST_ROWS
    assert sum(row.n for row in run.rows) == 100_000
    assert min(row.low for row in run.rows) == pytest.approx(2.0, abs=1e-3)


def test_rows_of_a_long_run_that_goes_on_from_an_earlier_step(tmp_path):
    "Step lines wait until they are enough for a Row: none is lost, and what is void goes, whatever waits."
    count = 5 * runs.MOST_ROWS + 3
    losses = [3 - i / 1e4 for i in range(count)]
    file = tmp_path / "metrics.jsonl"
    records = [
        {"kind": "step", "step": i, "loss": loss, "lr": i, "elapsed_s": 5 * i} for i, loss in enumerate(losses)
    ]
    lines = map(json.dumps, records)
    file.write_text("\n".join(lines) + "\n")
    run = Run(tmp_path)
    run.poll()
    assert run.rows[-1].step == run.rows[-1].lr == run.step == count - 1
    assert sum(row.n for row in run.rows) == count
    assert sum(row.n * row.loss for row in run.rows) == pytest.approx(sum(losses))
    assert run.pause() == 5  # seconds between two lines, not two Rows: a run that says nothing is told in time
    begun = [
        {"kind": "step", "step": 100, "loss": 2.5, "lr": 7},
        {"kind": "step", "step": count, "loss": 9.0},
        {"kind": "start", "resumed_from": 100},
    ]
    with open(file, "a") as log:
        log.writelines(json.dumps(line) + "\n" for line in begun)
    run.poll()
    assert run.rows[-1].step == run.step == 100 and run.rows[-1].lr == 7
    assert max(row.high for row in run.rows) == 3


# ---- states ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "end, state",
    [
        ("done", "done"),
        ("stopped", "stopped"),
        ("time", "done"),
        ("patience", "done"),
        ("error", "crashed"),
        ("", "training"),
    ],
)
def test_how_a_run_ended(tmp_path, end, state):
    assert polled(make_run(tmp_path / "a", end=end)).state == state


def test_a_folder_that_is_not_there(tmp_path):
    run = Run(tmp_path / "never")
    run.poll()
    assert run.state == "gone"
    vanishing = polled(make_run(tmp_path / "a", end=""))
    ended = polled(make_run(tmp_path / "b"))
    shutil.rmtree(vanishing.folder)
    shutil.rmtree(ended.folder)
    assert vanishing.poll()
    ended.poll()
    assert vanishing.state == ended.state == "gone"
    assert vanishing.rows
    (tmp_path / "empty").mkdir()
    assert polled(tmp_path / "empty").state == "crashed"


@needs_locks
@pytest.mark.parametrize("word", runs.WORDS)
@pytest.mark.parametrize("age", [10, 300, 3000])
def test_what_holds_the_lock_is_alive_however_long_it_is_silent(tmp_path, word, age):
    folder = make_run(tmp_path / "a", end="")
    write_lines(folder, [{"kind": "state", "state": word}], "a")
    with open(folder / "metrics.jsonl", "a") as held:
        runs.fcntl.flock(held, runs.fcntl.LOCK_EX)  # as gpt.py does
        make_older(folder, age)
        run = polled(folder)
        silent_is_odd = age == 3000 or (age == 300 and word == "training")
        expected = "stalled" if silent_is_odd and word != "paused" else word
        assert run.state == expected
        assert run.silent == pytest.approx(age, abs=5)
        assert run.trouble is None
        make_older(folder, age)
    run = polled(folder)  # and now nobody holds it
    still_in_time = age == 10 or (age == 300 and word != "training")
    assert run.state == (word if still_in_time else "crashed")


@needs_locks
def test_a_run_whose_lock_was_seen_is_known_to_be_dead_at_once(tmp_path):
    folder = make_run(tmp_path / "a", end="")
    write_lines(folder, [{"kind": "state", "state": "evaluating"}], "a")
    run = Run(folder)
    with open(folder / "metrics.jsonl", "a") as held:
        runs.fcntl.flock(held, runs.fcntl.LOCK_EX)
        run.poll()
    run.poll()
    assert run.state == "evaluating"  # its last word may still be on its way
    run.heard -= 2 * runs.QUIET
    run.poll()
    assert run.state == "crashed"


@needs_locks
def test_a_disk_so_full_that_nothing_is_recorded_is_noticed(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    folder = make_run(tmp_path / "a", end="", age=20)
    with open(folder / "metrics.jsonl", "a") as held:
        runs.fcntl.flock(held, runs.fcntl.LOCK_EX)
        make_older(folder, 20)
        assert not polled(folder).full
        monkeypatch.setattr(runs.shutil, "disk_usage", lambda path: usage._replace(free=4096))
        assert polled(folder).full
        make_older(folder, 0)
        assert not polled(folder).full


def test_what_a_checkpoint_holds_is_not_what_the_run_has_come_to(tmp_path):
    run = polled(make_run(tmp_path / "a", 120, end=""))
    run.evals[1] = run.evals[1]._replace(val=0.5)
    assert run.step == 120
    assert run.in_file("best.pt") == (50, 0.5)
    assert run.in_file("latest.pt") == (None, None)  # when it was saved was not said
    write_lines(run.folder, [{"kind": "eval", "step": 150, "val_loss": 2.0}], "a")
    write_lines(run.folder, [{"kind": "state", "state": "saving"}, {"kind": "step", "step": 160}], "a")
    run.poll()
    assert run.in_file("latest.pt") == (150, 2.0)
    write_lines(run.folder, [{"kind": "end", "step": 165, "reason": "stopped"}], "a")
    run.poll()
    assert run.in_file("latest.pt") == (165, None)


def test_samples_are_thinned_and_void_ones_go(tmp_path):
    most = runs.MOST_SAMPLES
    lines = [{"kind": "sample", "step": step, "text": "x"} for step in range(2 * most)]
    write_lines(tmp_path, lines)
    run = polled(tmp_path)
    assert len(run.samples) <= most
    assert run.samples[-1][0] == 0
    assert run.samples[0][0] == 2 * most - 1
    write_lines(tmp_path, [{"kind": "start", "config": {}, "resumed_from": 9}], "a")
    run.poll()
    assert max(step for step, _ in run.samples) <= 9


def test_without_locks_ten_minutes_of_silence_are_a_crash(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "fcntl", None)
    assert polled(make_run(tmp_path / "a", end="", age=300)).state == "stalled"
    assert polled(make_run(tmp_path / "b", end="", age=3000)).state == "crashed"
    assert polled(make_run(tmp_path / "a", end="", age=300)).held is None
    folder = make_run(tmp_path / "c", end="")
    write_lines(folder, [{"kind": "state", "state": "paused"}], "a")
    make_older(folder, 3000)
    assert polled(folder).state == "paused"


@needs_locks
def test_a_run_that_has_written_nothing_yet_is_starting(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    assert polled(tmp_path).state == "starting"
    make_older(tmp_path, 3000)
    assert polled(tmp_path).state == "crashed"
    with open(tmp_path / "metrics.jsonl", "a") as held:
        runs.fcntl.flock(held, runs.fcntl.LOCK_EX)
        assert polled(tmp_path).state == "starting"


def test_the_order_of_the_lines_counts_and_not_their_clock(tmp_path):
    def line(kind, time, **more):
        return {"kind": kind, "time": time, **more}

    start = line("start", 5000, config={})
    again = line("start", 3000, config={}, resumed_from=10)
    step = line("step", 5001, step=10, loss=1)
    end = line("end", 1, step=10, reason="stopped")
    write_lines(tmp_path, [start, step, end])  # the clock was set back in between
    run = polled(tmp_path)
    assert run.state == "stopped"
    write_lines(tmp_path, [again], "a")  # its clock is before the end's of the run before
    run.poll()
    assert run.state == polled(tmp_path).state == "training"
    write_lines(tmp_path, [line("end", 0, step=10, reason="done"), step], "a")
    run.poll()
    assert run.state == polled(tmp_path).state == "done"


def test_a_file_from_the_future_or_a_slow_clock_is_alive_while_it_grows(tmp_path):
    folder = make_run(tmp_path / "ahead", end="", age=-7200)
    assert polled(folder).state == "training"
    assert polled(folder).silent < 5
    folder = make_run(tmp_path / "behind", end="", age=7200)
    run = polled(folder)
    assert run.silent == pytest.approx(7200, abs=5)
    write_lines(folder, [{"kind": "step", "step": 310, "loss": 2.0}], "a")
    make_older(folder, 7200)  # written just now, by a machine whose clock is two hours late
    assert run.poll()
    assert (run.state, run.step) == ("training", 310)
    assert run.silent < 5


def test_a_process_of_ours_says_itself_whether_it_lives(tmp_path):
    folder = make_run(tmp_path / "a", end="stopped", age=3000)
    run = polled(folder)
    assert run.state == "stopped"
    process = Process(None)
    run.started(process)
    assert run.state == "starting"
    run.poll()
    assert run.state == "starting"
    assert run.silent < 5
    write_lines(folder, [{"kind": "start", "config": {}, "resumed_from": 300}], "a")
    run.poll()
    assert run.state == "training"
    process.status = 1
    assert run.poll()
    assert (run.state, run.exit_status) == ("crashed", 1)
    process = Process(None)
    run.started(process)
    write_lines(folder, [{"kind": "start", "config": {}}, {"kind": "end", "step": 310, "reason": "done"}], "a")
    run.poll()
    assert run.state == "done"  # though its process has not left yet


@pytest.mark.parametrize(
    "status, headline", [(1, "it did not start"), (-15, "stopped before it began"), (-9, "killed")]
)
def test_a_run_that_could_not_go_on_is_not_called_done(tmp_path, status, headline):
    "As when its text has moved: what stands in its folder is of the time before."
    run = polled(make_run(tmp_path / "a", end="done"))
    assert run.state == "done"
    run.started(Process(status))
    run.poll()
    assert (run.state, run.trouble.headline) == ("crashed", headline)


# ---- troubles ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status, said, headline, flags",
    [
        (-9, "", "killed", {"micro_batch": 16}),
        (137, "", "killed", {"micro_batch": 16}),
        (1, "torch.OutOfMemoryError: CUDA out of memory.", "out of memory", {"micro_batch": 16}),
        (1, "OSError: [Errno 28] No space left on device", "the disk is full", {}),
        (130, "KeyboardInterrupt", "interrupted", {}),
        (
            1,
            "error: 10 steps in a row had no finite gradient: take a lower --learning_rate",
            "the loss is no number any more",
            {"learning_rate": 0.002, "muon_lr": 0.01},
        ),
        (1, "ValueError: what", "crashed", {}),
        (0, "", "crashed", {}),
    ],
)
def test_troubles_are_told_apart(tmp_path, status, said, headline, flags):
    folder = make_run(tmp_path / "a", end="")
    (folder / "train.log").write_text(f"step 1\n{said}\n")
    run = polled(folder, Process(status))
    assert (run.trouble.headline, run.trouble.flags) == (headline, flags)
    assert run.trouble.remedy
    assert "latest.pt" in run.kept()
    (folder / "best.pt").unlink()
    (folder / "latest.pt").unlink()
    run = polled(folder, Process(status))
    assert "go on" not in run.trouble.remedy  # from what?


GOING_ON = "warning: out of memory: going on with --micro_batch 4\n"
NO_MORE = "error: not even one sequence has room: take a smaller preset, a shorter --block_size, or"


@pytest.mark.parametrize(
    "said, headline, flags, remedy",
    [
        (GOING_ON + "ValueError: what", "crashed", {}, "go on from"),
        (GOING_ON + "CUDA out of memory.", "out of memory", {"micro_batch": 16}, "--micro_batch 16"),
        (GOING_ON + NO_MORE, "out of memory", {"checkpoint_activations": True}, "--checkpoint_activations"),
        ("error: no room for optimizers: CUDA out of memory", "out of memory", {}, "close other programs"),
    ],
)
def test_what_helps_where_memory_ran_out(tmp_path, said, headline, flags, remedy):
    folder = make_run(tmp_path / "a", end="")
    (folder / "train.log").write_text(f"step 1\n{said}\n")
    trouble = polled(folder, Process(1)).trouble
    assert (trouble.headline, trouble.flags) == (headline, flags)
    assert remedy in trouble.remedy


def test_a_batch_of_one_sequence_is_not_halved(tmp_path):
    for flag, flags in (False, {"checkpoint_activations": True}), (True, {}):
        folder = make_run(tmp_path / "a", end="", micro_batch=1, checkpoint_activations=flag)
        (folder / "train.log").write_text("RuntimeError: CUDA out of memory.\n")
        assert polled(folder, Process(1)).trouble.flags == flags


def test_who_kills_a_run_is_not_told_that_memory_ran_out(tmp_path):
    pytest.importorskip("textual")
    from screens.watch import Watch

    process = Process(None)
    process.pid = 2**22 + 1
    process.kill = lambda: setattr(process, "status", -9)
    run = polled(make_run(tmp_path / "a", end=""), process)
    write_lines(run.folder, [{"kind": "start", "config": {}}], "a")
    run.poll()

    async def yes(question):
        return True

    page = SimpleNamespace(run=run, app=SimpleNamespace(push_screen_wait=yes))
    asyncio.run(Watch.action_kill.__wrapped__(page))
    run.poll()
    assert (run.state, run.trouble.headline, run.trouble.flags) == ("crashed", "killed", {})
    assert "memory" not in run.trouble.why
    run.started(Process(-9))
    run.poll()
    assert "memory" in run.trouble.why  # this one was ended by somebody else


def test_a_run_that_never_started_and_one_that_ended_with_an_error(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "train.log").write_text("error: there is no nothing\n")
    run = polled(tmp_path / "a", Process(2))
    assert run.trouble.headline == "it did not start"
    assert run.lines() == ["error: there is no nothing"]
    assert run.kept() == "No checkpoint was written yet."
    run = polled(make_run(tmp_path / "b", end="error"))
    assert (run.trouble.headline, run.trouble.why) == ("crashed", "")
    make_run(tmp_path / "b", end="done")
    run.poll()
    assert run.trouble is None


def test_words_for_the_trainer(tmp_path):
    run = polled(make_run(tmp_path / "a", end=""))
    run.control("pause")
    assert (run.folder / "control").read_text() == "pause"
    run.control("go")
    assert (run.folder / "control").read_text() == "go"
    assert not (run.folder / "control.tmp").exists()


# ---- text, numbers, curves ---------------------------------------------------------------------------------


@given(st.text())
def test_foreign_text_is_cleaned(text):
    found = runs.clean(text)
    assert len(found) == len(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", found)
    found.encode("utf-8")


def test_numbers_are_written_short():
    shorts = [runs.short(x) for x in (None, 0, 12, 1234, 95760, 999_600, 1.56e9, 3e17)]
    assert shorts == ["—", "0", "12", "1.23k", "95.8k", "1M", "1.56G", "3e17"]
    assert runs.fixed(2.34567) == "2.346"
    assert runs.fixed(25007679009193984.0) == "2.5e16"
    assert [runs.clock(x) for x in (None, 59, 3725)] == ["—", "0:59", "1:02:05"]
    assert [runs.size(x) for x in (None, 42e6, 1.5e9)] == ["—", "42 MB", "1.5 GB"]
    assert [runs.fixed(x) for x in (None, 2.34567)] == ["—", "2.346"]
    assert [runs.ago(x) for x in (5, 120, 7300, 200_000)] == ["now", "2 min ago", "2 h ago", "2 d ago"]


def test_what_is_a_number():
    assert [runs.number(x) for x in (3, 2.5, -1e99)] == [3, 2.5, -1e99]
    nonsense = None, True, "3", [3], math.nan, math.inf, 1e300, 10**400
    assert [runs.number(x) for x in nonsense] == [None] * len(nonsense)


def test_curves_are_steps_and_losses(tmp_path):
    run = polled(make_run(tmp_path / "a", 100))
    assert [step for step, _ in runs.loss_points(run)] == list(range(10, 101, 10))
    assert [step for step, _ in runs.val_points(run)] == [0, 50, 100]


def test_smoothing_follows_and_calms():
    noisy = [(i, 2 + (-1) ** i) for i in range(1, 1000)]
    calm = runs.smooth(noisy, 0.1)
    assert len(calm) == 999
    assert calm[-1][1] == pytest.approx(2, abs=0.1)
    assert runs.smooth([], 0.1) == []
    assert runs.smooth([(0, 1.0), (0, 3.0), (5, 2.0)], 0.1)[-1][1] == pytest.approx(2, abs=0.01)


# ---- curves along steps, tokens and minutes ----------------------------------------------------------------


def test_every_metric_has_points_along_every_axis(tmp_path):
    run = Run(make_run(tmp_path / "a", 300))
    run.poll()
    for name, points_of in runs.METRICS.items():
        points = points_of(run)
        assert len(points) > 5, name
        for axis, last in {"steps": 300, "tokens": 300 * 32 * 128, "min": 300 * 0.03 / 60}.items():
            x = runs.along(run, axis)
            assert x(points[-1][0]) == pytest.approx(last)
            assert [x(step) for step, _ in points] == sorted(x(step) for step, _ in points)
    empty = Run(tmp_path / "none")
    empty.poll()
    for axis in runs.AXES:
        assert runs.along(empty, axis)(0) == 0
        assert all(points_of(empty) == [] for points_of in runs.METRICS.values())


def test_minutes_between_two_readings():
    x = runs.minutes_at([(10, 1), (20, 3)])
    assert [x(step) for step in (0, 5, 10, 15, 20, 99)] == [0, 0.5, 1, 2, 3, 3]


def test_in_what_runs_differ(tmp_path):
    a = Run(make_run(tmp_path / "a", 100))
    b = Run(make_run(tmp_path / "b", 100, learning_rate=0.001, threads=1, new_here=1))
    for run in a, b:
        run.poll()
    assert runs.differing([a, b]) == {"learning_rate": [0.006, 0.001]}
    assert runs.differing([a]) == runs.differing([]) == {}


def test_the_operations_of_a_token(tmp_path):
    run = Run(make_run(tmp_path / "a", 100))
    assert run.flops_per_token is None
    run.poll()
    assert run.flops_per_token == 6 * (357408 - 128 * 96) + 12 * 3 * 96 * 128


@pytest.mark.parametrize(
    "seconds, said",
    [
        (0, "1 s"),
        (40, "40 s"),
        (160, "3 min"),
        (5400, "2 hours"),
        (4e5, "5 days"),
        (1e7, "4 months"),
        (1e9, "32 years"),
    ],
)
def test_times_in_words(seconds, said):
    assert runs.in_words(seconds) == said
