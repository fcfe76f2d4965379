"""tools.py: what one does with runs and machines. gpt.py, beside it, has the command line:

    python gpt.py runs --sort best            what was trained here
    python gpt.py plot RUN RUN --out loss.pdf
    python gpt.py eval --data other.txt       loss, perplexity and bits per byte on a whole split
    python gpt.py chat                        talk to a model; --jsonl: the same for programs
    python gpt.py serve                       a model behind the OpenAI API, and a page (in serve.py)
    python gpt.py bench --preset tiny         speed and memory on this machine
    python gpt.py export --to hf --out DIR    leave for transformers, llama.cpp or a Space (convert.py)

Training reaches for this file, too, where it is there: for the live display, for trackers, to notice threads
that wait for each other, for how well a machine is used, for --init_from, --keep and --teacher, and to
shorten evaluations where minutes are few. What a recipe costs is in recipes.py.

runs and plot answer before torch could be imported. They see only the upper half of gpt.py, so
what stands below its `import torch` (gpt.load, gpt.mean_loss, gpt.torch ...) is named inside of functions.
"""
import bz2
import contextlib
import copy
import functools
import importlib.util
import json
import math
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

import gpt
import recipes
import runs

# ---- runs and plot: what runs.py reads, as a table and as a picture ----------------------------------------

def all_runs():
    "Every run there is, already read."
    for root in gpt.RUN_ROOTS:
        for folder in runs.find_runs(root):
            run = runs.Run(folder)
            run.poll()
            yield run

def place_of(run):
    "A run in ./runs goes by its name, others by where they are."
    return run.folder.name if run.folder.parent == gpt.RUN_ROOTS[0] else str(run.folder)

def outcome(run):
    "Its state; of a run that is done, why it ended: done, time or patience."
    return run.end["reason"] if run.state == "done" else run.state

def best_of(run):
    return run.best or runs.Eval(step=None, train=None, val=None, bits=None)

RUN_COLUMNS = {                                               # of the table: how to find it out
    "run": place_of,
    "preset": lambda run: run.part("train").get("preset"),
    "level": lambda run: run.part("train").get("level"),
    "data": lambda run: run.part("train").get("data"),
    "weights": lambda run: run.weights,
    "steps": lambda run: run.step or None,
    "best": lambda run: best_of(run).val,
    "at": lambda run: best_of(run).step,
    "bits/byte": lambda run: best_of(run).bits,
    "tokens/s": lambda run: run.speed and round(run.speed),
    "state": outcome,
    "when": lambda run: time.strftime("%Y-%m-%d %H:%M", time.localtime(run.when)),
}

def runs_command(asked):
    "What was trained here, as a table or as JSON."
    column = asked.get("sort", "when")
    gpt.check_known([column], RUN_COLUMNS, "--sort")
    rows = [{name: find(run) for name, find in RUN_COLUMNS.items()} for run in all_runs()]
    rows.sort(key=lambda row: (row[column] is None, isinstance(row[column], str), row[column]))
    if asked.get("json"):
        print(json.dumps(rows))
        return
    gpt.expect(rows, "no runs yet: python gpt.py train --preset nano")
    recipes.print_table(" ".join(RUN_COLUMNS), [row.values() for row in rows])

def run_to_plot(place):
    "A run's folder, or a checkpoint in it -> the run, which has come to an evaluation; tokens in a step."
    folder = Path(place)
    if folder.is_file():
        folder = folder.parent
    gpt.expect((folder / "metrics.jsonl").is_file(), f"{place} is no run's folder")
    run = runs.Run(folder)
    run.poll()
    gpt.expect(run.best, f"{place} has no evaluation yet")
    rows = runs.number(run.part("train").get("batch_size"))
    length = runs.number(run.part("model").get("block_size"))
    gpt.expect(rows and length, f"{place}: the line in metrics.jsonl that says how the run began is missing")
    return run, rows * length

def plot_command(asked):
    "Losses over steps, with tokens above; dotted: in training, a star: the best."
    out = asked.get("out", "loss.pdf")
    pyplot = gpt.need("matplotlib.pyplot", "matplotlib")
    places = asked.get("run")
    if not places:
        newest = max(all_runs(), key=lambda run: run.when, default=None)
        gpt.expect(newest, "no runs yet: python gpt.py train --preset nano")
        places = [newest.folder]
    axes = pyplot.figure(figsize=(8, 5)).add_subplot(xlabel="step", ylabel="loss, nats a token")
    sizes = set()                                             # of a step, in tokens
    for place in places:
        run, tokens_per_step = run_to_plot(place)
        sizes.add(tokens_per_step)
        label = f"{run.name}: {run.best.val:.4f} at {run.best.step:,}"
        label = label.replace("$", r"\$")                     # which would begin a formula
        curve, = axes.plot(*zip(*runs.val_points(run)), label=label)
        colour = curve.get_color()
        if losses := runs.loss_points(run):
            axes.plot(*zip(*losses), ":", color=colour)
        axes.plot(run.best.step, run.best.val, "*", color=colour, markersize=12)
    if len(sizes) == 1:                                       # else each run would need an axis of its own
        millions = sizes.pop() / 1e6
        above = axes.secondary_xaxis("top", functions=(lambda x: x * millions, lambda x: x / millions))
        above.set_xlabel("million tokens")
    axes.legend()
    with gpt.explain(f"--out {out}", OSError, ValueError):
        axes.figure.savefig(out, bbox_inches="tight")
    print(gpt.printable(out))

# ---- beside the training loop: the live display, trackers, threads that wait, use of the machine -----------

class LiveDisplay:
    "A panel at the terminal's lower end: how far, how well, how fast, and what the model says by now."

    def __init__(self):
        self.newest = {}                                      # of each number the newest
        self.state = ""
        self.sample = ""
        self.Panel = gpt.need("rich.panel").Panel
        self.Text = gpt.need("rich.text").Text
        # What is printed meanwhile stands above the panel: rich sees to that.
        self.live = gpt.need("rich.live").Live(get_renderable=self.draw, refresh_per_second=4)
        self.live.start()

    def hear(self, kind, fields):
        if kind in ("step", "eval"):
            self.newest.update(fields)
        elif kind == "state":
            self.state = fields["state"]
        elif kind == "sample":
            self.sample = fields["text"]

    def close(self):
        self.live.stop()

    def draw(self):
        newest = dict(self.newest)                            # another thread draws than the one that hears
        width, height = shutil.get_terminal_size()
        whole = width - 4                                     # without the panel's border
        done = int(whole * newest.get("done", 0))
        numbers = "  ".join(gpt.numbers_said(newest, "loss", "val_loss", "best"))
        if newest.get("memory_mb"):
            numbers += f"  {newest['memory_mb']:,.0f} MB"
        sample = re.sub("\n+", "\n", gpt.printable(self.sample)).strip()
        text = self.Text()
        text.append("━" * done, "cyan")
        text.append("━" * (whole - done), "bright_black")
        text.append(f"\n{numbers}\n\n")
        text.append(sample, "italic")
        return self.Panel(text, title=self.state, title_align="left", border_style="bright_black",
                          height=min(12, height - 2))

def can_draw():
    "Whether the output is a terminal that can move its cursor. Notebooks only pretend to be one."
    in_notebook = "JPY_PARENT_PID" in os.environ or "COLAB_RELEASE_TAG" in os.environ
    dumb = in_notebook or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not dumb and importlib.util.find_spec("rich") is not None

class Tracker:
    "Sends the numbers on. Closed at the end, so that the next run is another one there."

    def __init__(self, name, folder, settings):
        self.package = gpt.need(name)
        self.writer = None
        if name == "tensorboard":
            self.writer = gpt.need("torch.utils.tensorboard").SummaryWriter(str(folder))
        else:
            self.package.init(project="gpt", name=folder.name, config=settings)

    def hear(self, kind, fields):
        if kind not in ("step", "eval"):
            return
        numbers = {name: value for name, value in fields.items() if value is not None}
        if self.writer is None:
            self.package.log(numbers, step=fields["step"])
            return
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, fields["step"])

    def close(self):
        if self.writer is None:
            self.package.finish()
        else:
            self.writer.close()

class ThreadCheck:
    "Says once if threads wait for each other. To change their number unasked would change the result."

    def __init__(self, run):
        self.run = run
        self.told = run.device.type != "cpu" or run.threads == 1

    def hear(self, kind, fields):
        if kind == "eval" and not self.told:
            warning = threads_that_wait(self.run)
            if warning:
                self.told = True
                self.run.warn(warning)

    def close(self):
        pass

def listeners(run):
    "What hears all that a training run logs, and is closed at its end."
    found = [ThreadCheck(run)]
    if run.config.tracker != "none":
        found.append(Tracker(run.config.tracker, run.folder, run.settings))
    if run.ranks.world_size > 1:
        found.append(SilenceCheck(run))
    if can_draw():
        found.append(LiveDisplay())
    return found

class SilenceCheck:
    """Says when the other processes are not heard any more: a cable, a host that froze. The training itself
    waits for them and can't say so; nor could it obey, so "stop" in the control file is obeyed here."""
    PATIENCE = 60                                             # seconds
    PAUSE = 5                                                 # between two looks

    def __init__(self, run):
        self.run = run
        self.longest = 0.0                                    # silence that was none: a sample, say
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def hear(self, kind, fields):
        pass

    def close(self):
        self.closed.set()
        self.thread.join()

    def watch(self):
        told = False
        at_work = self.run.ranks.at_work
        while not self.closed.wait(self.PAUSE):
            self.longest = max(self.longest, self.run.ranks.at_work - at_work)
            at_work = self.run.ranks.at_work
            silence = time.monotonic() - at_work
            if silence < max(self.PATIENCE, 3 * self.longest):
                if told:
                    self.run.warn("the other processes are heard again")
                told = False
                continue
            if not told:
                self.run.warn(f"no word from the other processes for {silence:.0f} s. When they are heard "
                              f"again the run goes on; to end it: echo stop > {self.run.folder / 'control'}")
            told = True
            control = self.run.folder / "control"
            with contextlib.suppress(OSError):                # other words stay, for when all are heard again
                if control.is_file() and control.read_bytes().strip() == b"stop":
                    self.end()

    def end(self):
        "From the last checkpoint on it can go on. Nothing but the process's end frees the thread that waits."
        step = self.run.progress.step
        self.run.log("end", step=step, reason="error", message="the other processes are gone")
        self.run.log.say("stopped, without the other processes: --resume goes on from the last checkpoint")
        os._exit(1)

def block_time(run, threads):
    "Milliseconds for a forward and a backward pass through one block: most of what training does."
    gpt.torch.set_num_threads(threads)
    T, C = run.model_config.block_size, run.model_config.n_embd
    rows = max(1, min(run.micro_batch, 2 ** 17 // (T * C)))   # so that it takes no time that anybody notices
    x = gpt.torch.randn(rows, T, C, requires_grad=True)       # the block itself may be frozen

    def pass_through():
        with run.autocast():
            y = run.raw_model.h[0](x)
        y.sum().backward()

    return recipes.median_ms(pass_through, times=5)

def threads_that_wait(run):
    """-> a warning, or nothing. CPU threads that share a piece of work wait for each other: where other
    programs want the cores as well, two can take longer than one."""
    try:
        alone = block_time(run, 1)
        together = block_time(run, run.threads)
    finally:
        gpt.torch.set_num_threads(run.threads)
        run.clear_gradients()
    if together <= 1.3 * alone:
        return ""
    folder = shlex.quote(str(run.folder))
    return (f"{run.threads} threads take {together / alone:.1f} times as long as one here: other programs "
            "use the cores. Ctrl-C saves and stops; then type: "
            f"python gpt.py train --resume {folder} --threads 1")

def peak_flops(device, dtype):
    "What the maker promises for dense 16-bit products, or None: rather no figure than a wrong one."
    if device.type == "cuda" and dtype != gpt.torch.float32:
        gpu = recipes.gpu_named(gpt.torch.cuda.get_device_name(device))
        if gpu:
            return 1e12 * gpu.tflops
    return None

def memory_used(device):
    "The most megabytes that were held at a time."
    if device.type == "cuda":
        return gpt.torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource
    except ImportError:                                       # Windows
        return None
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage / 1e6 if sys.platform == "darwin" else usage / 1e3

def use_of_machine(run, tokens_per_s):
    "MFU, where the peak of the device is known: the share of it that goes into the model. Memory, in MB."
    peak = peak_flops(run.device, run.dtype)
    mfu = None
    if peak:
        mfu = tokens_per_s * recipes.flops_per_token(run.model_config) / (peak * run.ranks.world_size)
    return {"mfu": mfu, "memory_mb": memory_used(run.device)}

# ---- after a run: how good is that, and what to try next? -------------------------------------------------

MANY_PASSES = 10                                              # a larger model learns nothing new in more
LOSS_IS_PER = {"char": "character", "word": "word", "bpe": "token"}

def afterwards(result):
    "Two sentences for the end of a run, as far as there is something to be said."
    if result.reason == "stopped":                            # it is not done: --resume comes first
        return ""
    settings = json.loads((Path(result.out_dir) / "config.json").read_text(encoding="utf-8"))
    used = {**settings["model"], **settings["train"]}
    name, level = used["preset"], used["level"]
    presets = presets_of(used)
    if name not in presets:
        return ""
    said = []
    changed = changed_from(gpt.recipe(presets, name, level), used)
    if usual := usual_loss(used):
        but = f" without --{' --'.join(changed)}" if changed else ""
        loss = f"{result.best_val_loss:.2f} per {LOSS_IS_PER[level]}"
        said.append(f"{loss}: {name} usually reaches {usual}{but}.")
    elif compared := beside_bzip2(used, result.history):
        said.append(compared)
    last_step = max((row["step"] for row in result.history), default=math.inf)
    by_passes = result.reason == "done" and last_step < (used["max_iters"] or math.inf)
    if by_passes and used["epochs"] >= MANY_PASSES:
        said.append(f"The run has read the text {used['epochs']:g} times: more text would help most.")
    elif better := next_command(presets[name], used, changed, result.reason):
        said.append(f"To go lower:\n  {better}")
    return gpt.printable(" ".join(said))

def presets_of(used):
    "The recipes that a run began with; none, where that file is gone."
    with contextlib.suppress(gpt.UserError):
        return gpt.load_presets(used["presets"])
    return {}

def usual_loss(used):
    "What a run's preset comes to on this text, as presets.json tells; or nothing."
    recipe = presets_of(used).get(used["preset"], {}).get(used["level"]) or {}
    usual = re.fullmatch(r"loss ([\d.]+) on (.+)", recipe.get("expect", ""))
    return usual[1] if usual and usual[2] == used["data"] else ""

FEWEST_COMPARED = 10_000                                      # bytes: bzip2 learns nothing from fewer
MOST_COMPARED = 1_000_000

def beside_bzip2(used, history):
    "A yardstick for a text of one's own: who guesses well what comes next could pack it well. Or nothing."
    bits = [row["bits_per_byte"] for row in history if row.get("bits_per_byte")]  # not where words are <unk>
    source = Path(used["data"])
    small = recipes.is_plain_text(source) and source.stat().st_size < 1e8
    if not bits or not (small or used["data"] == "builtin"):
        return ""
    try:
        text = gpt.read_text(used["data"])
    except gpt.UserError:                                     # it is no more
        return ""
    held_out = text[int((1 - used["val_fraction"]) * len(text)):].encode()[:MOST_COMPARED]
    if len(held_out) < FEWEST_COMPARED:
        return ""
    packed = 8 * len(bz2.compress(held_out)) / len(held_out)
    return (f"{min(bits):.2f} bits per byte of the held-out text; bzip2, which has not read the rest, needs "
            f"{packed:.2f}.")

def next_command(preset, used, changed, reason):
    "Twice the minutes, where minutes have ended a run, else the preset that comes next; or nothing."
    kept = [key for key in ("presets", "data") if used[key] != gpt.KNOBS[key].default]
    if reason == "time":
        flags = f"--preset {used['preset']} --max_minutes {2 * used['max_minutes']:g}"
        if used["preset"] != "auto":                          # which chooses anew
            kept += [key for key in changed if key not in gpt.LIMITS]
    else:
        flags = preset.get("next", "")
        kept += [key for key in ("vocab_size", "teacher", "teacher_share") if key in changed]
    if not flags:
        return ""
    words = [f"python gpt.py train {flags} --level {used['level']}"]
    for key in kept:
        values = used[key] if isinstance(used[key], list) else [used[key]]
        words += [f"--{key} {shlex.quote(str(value))}" for value in values]
    return " ".join(words)

def changed_from(recipe, used):
    "The knobs that a run has set otherwise than its preset does, where that moves the loss."
    usual = {**vars(gpt.fill(gpt.ModelConfig, recipe)), **vars(gpt.fill(gpt.TrainConfig, recipe))}
    usual = json.loads(json.dumps(usual))                     # with lists for tuples, as in config.json
    unset = [key for key in gpt.LIMITS if not used[key]]      # by another limit, which is named
    no_matter = {*runs.HARMLESS, *unset, "data", "warmup_iters"}  # which fit_short_text() sets
    if used["init_from"]:                                     # whose tokens were taken
        no_matter.add("vocab_size")
    return [key for key in gpt.KNOBS if used.get(key, usual[key]) != usual[key] and key not in no_matter]

# ---- parts of a run that only some runs need ---------------------------------------------------------------

def fit_short_text(run, asked):
    "Where epochs end a run before max_iters would: the warmup is a fifth of it, evaluations are six."
    if run.resumed or run.max_steps >= (run.config.max_iters or math.inf):
        return
    for name, parts in ("warmup_iters", 5), ("eval_interval", 6):
        if name not in asked:
            fits = max(1, recipes.round_down(run.max_steps / parts))
            setattr(run.config, name, min(fits, getattr(run.config, name)))

EVALUATION_SHARE = 1 / 40                                     # of a run's minutes, for one evaluation
FEWEST_TOKENS = 20_000                                        # or chance would choose the best

def shorten_evaluations(run):
    """--max_minutes on a slow machine: evaluations must not take the minutes in which the model learns. So
    both splits are cut to what can be read in a small part of the minutes, by the time of a few rows now."""
    rows = len(run.splits[1][0])                              # of the text to test on
    some = min(rows, run.micro_batch * run.ranks.world_size)
    few = [part[:some] for part in run.splits[1]]
    evaluate = functools.partial(gpt.mean_loss, run.raw_model, few, run.micro_batch, run.autocast, run.ranks)
    seconds_a_row = recipes.median_ms(evaluate) / 1e3 / some
    room = EVALUATION_SHARE * 60 * run.config.max_minutes
    fit = min(rows, room / seconds_a_row / len(run.splits))
    # To evaluate a row of both splits costs 2/3 of training on one.
    between = recipes.EVALUATING * 3 / 2 * run.config.eval_interval * run.config.batch_size
    fit = min(fit, max(between, FEWEST_TOKENS / run.model_config.block_size))
    fit = max(some, int(fit))
    fit = -int(run.ranks.all_reduce_max(-fit)[0])             # the fewest of all processes
    if fit < rows:
        tokens = fit * run.model_config.block_size
        run.config.eval_tokens = tokens                       # also for those who go on with this run
        run.splits = [[part[:fit] for part in split] for split in run.splits]
        run.warn(f"evaluations read {tokens:,} of {len(run.corpus.val):,} tokens to test on, to leave the "
                 "minutes to training; python gpt.py eval reads all")

def weights_from_elsewhere(run, asked):
    "--init_from: the run takes their shape and their tokens; only the context may be shorter."
    checkpoint, path = gpt.open_checkpoint(run.config.init_from)
    weights, tokenizer = gpt.model_of(checkpoint, path)
    theirs = {name: getattr(weights.config, name) for name in gpt.knobs(gpt.ModelConfig)}
    theirs["block_size"] = min(theirs["block_size"], run.model_config.block_size)
    theirs["level"] = tokenizer.state["level"]
    ours = {**vars(run.config), **vars(run.model_config)}
    for name, value in theirs.items():
        gpt.expect(name not in asked or value == ours[name], f"{path} has --{name} {value}, not {ours[name]}")
    run.config.level = theirs.pop("level")
    run.config.vocab_size = 0                                 # none are learned
    run.model_config = gpt.ModelConfig(**theirs)
    gpt.expect(run.config.freeze <= theirs["n_layer"], f"--freeze: there are {theirs['n_layer']} blocks")
    return weights, tokenizer

def keep_checkpoint(run):
    "--keep: latest.pt under a name of its own, which the next one does not replace; the oldest ones go."
    if run.progress.evaluated_at != run.progress.step:        # saved for another reason
        return
    kept = run.folder / f"step-{run.progress.step:08}.pt"
    try:
        with open(run.folder / "latest.pt", "rb") as latest:
            gpt.write_whole(kept, lambda file: shutil.copyfileobj(latest, file))
    except OSError as error:
        run.warn(f"{kept.name} not saved: {error.strerror}")
    numbered = [file for file in run.folder.iterdir() if re.fullmatch(r"step-\d+\.pt", file.name)]
    # By time and not by step: a run that goes on from an earlier step would lose what it has just kept.
    numbered.sort(key=lambda file: (file.stat().st_mtime_ns, file.name))
    for old in numbered[:-run.config.keep]:
        old.unlink(missing_ok=True)

# ---- a teacher: a large model teaches a small one ----------------------------------------------------------

class Teacher:
    """What earlier runs expect after each token: the mean of their probabilities. A model that learns from
    this as well hears not only what came, but also what might have come. They read each batch anew:
    expectations that were kept by place, from other contexts than the learner's, brought a third as much."""
    def __init__(self, run):
        self.run = run
        self.models = [self.load(name) for name in run.config.teacher]

    def load(self, name):
        checkpoint, path = gpt.open_checkpoint(name)
        model, tokenizer = gpt.model_of(checkpoint, path)
        same = tokenizer.state == self.run.corpus.tokenizer.state
        gpt.expect(same, f"--teacher {name} has other tokens: train it with the same --data, --level and "
                   "--vocab_size")
        ours, theirs = self.run.model_config.block_size, model.config.block_size
        gpt.expect(theirs >= ours, f"--teacher {name} sees {theirs} tokens, this run {ours}: "
                   f"--block_size {theirs} would fit")
        return model.to(self.run.device).eval()

    def __call__(self, inputs, targets):
        """What was read and what came, (B, T) each -> how likely each token should have been, (B, T, V): a
        share of it as the teachers expect, the rest on the token that came."""
        share = self.run.config.teacher_share
        with gpt.torch.no_grad(), self.run.autocast():
            expected = mean_expectation(self.models, inputs)
        came = gpt.torch.full_like(expected[..., :1], 1 - share)
        return (share * expected).scatter_add_(-1, targets[..., None], came)

def mean_expectation(models, ids):
    "(B, T) token ids -> (B, T, V): how likely each token is next, as the models expect on average."
    return sum(model(ids).float().softmax(-1) for model in models) / len(models)

# ---- the X-ray: how likely was each token, and what else? --------------------------------------------------

class Piece(str):
    "The text of a token, with .token, its id, .prob and .alternatives."

def would_read(decoder, i):
    "The text of a token if it came next. The decoder stays where it is."
    return copy.copy(decoder).add(i)

def xray(lm, prompt, probs=3, **options):
    """Like lm.stream, but token by token, each with .prob, its probability for the model, and .alternatives:
    so many of the likeliest tokens as probs says, as [text, probability]. The text is how it would read."""
    options = gpt.sampling({**options, "num_samples": 1})
    stops = gpt.StopTexts(options.stop)
    decoder = lm.tokenizer.decoder(lm.encode(prompt))
    held = []                                                 # pieces whose text is not sure yet
    settled = 0                                               # characters of them that no stop text can take
    for text, i, logits in lm.tokens(prompt, options):
        piece = Piece(text)
        piece.prob = piece.token = None
        piece.alternatives = []
        if i is not None:                                     # the last piece may be the rest of a character
            shares = logits.softmax(-1)
            likeliest = shares.topk(min(probs, len(shares)))
            piece.prob = float(shares[i])
            piece.token = i
            for other, share in zip(likeliest.indices.tolist(), likeliest.values.tolist()):
                piece.alternatives.append([would_read(decoder, other), share])
            decoder.add(i)
        held.append(piece)
        settled += len(stops.add(text))
        while held and len(held[0]) <= settled:
            settled -= len(held[0])
            yield held.pop(0)
        if stops.found:
            lm.report.reason = "stop"
            if settled > 0:                                   # the stop text begins inside of a token
                beginning = Piece(held[0][:settled])
                vars(beginning).update(vars(held[0]))
                yield beginning
            return
    yield from held

COLOURS = [196, 208, 220, 148, 46]                            # of a terminal: from red, unlikely, to green

def show_probs(lm, prompt, options):
    "The text in colours, then token by token in a table."
    table = []
    for piece in xray(lm, prompt, **options):
        text = gpt.printable(piece)
        if piece.prob is None:
            print(text, end="", flush=True)
            continue
        colour = COLOURS[min(4, int(5 * piece.prob))]
        print(f"\033[38;5;{colour}m{text}\033[0m", end="", flush=True)
        others = [f"{other!r} {share:.4f}" for other, share in piece.alternatives]
        table.append([repr(text), piece.prob, *others])
    print()
    if table:
        recipes.print_table("token probability likeliest second third", table)

# ---- inside: what each layer would have said, and where its heads looked -----------------------------------

@dataclass
class Layer:
    "What a layer had come to after the last of the tokens that were read."
    logits: object                                            # (V): if it were the last layer: the logit lens
    attention: object                                         # (H, S): the share that a head took of a token

def look_inside(lm, ids):
    "The model reads these ids, at most block_size of them -> a Layer for each of its blocks."
    model = getattr(lm.model, "_orig_mod", lm.model)          # where it is compiled no hook would be called
    caught = {}

    def catch(module, inputs, output):
        caught[module] = output

    watched = [module for block in model.h for module in (block, block.attn.c_attn)]
    hooks = [module.register_forward_hook(catch) for module in watched]
    layers = []
    try:
        with gpt.torch.inference_mode():
            model(gpt.torch.tensor([ids], device=lm.device), last_only=True)
            for block in model.h:
                x = model.ln_f(caught[block][:, -1:])         # (1, 1, C)
                logits = model.head(x)[0, 0].float()          # (V)
                if lm.tokenizer.unknown_id is not None:
                    logits[lm.tokenizer.unknown_id] = -math.inf  # as in sampling
                layers.append(Layer(logits, last_attention(caught[block.attn.c_attn], block.attn.n_head)))
    finally:
        for hook in hooks:
            hook.remove()
    return layers

def last_attention(heads, H):
    "(1, S, 3 C), queries, keys and values -> (H, S): how the last query weighs the keys."
    q, k, _ = heads[0].float().unflatten(-1, (3, H, -1)).permute(1, 2, 0, 3)  # (H, S, D) each
    scores = q[:, -1:] @ k.mT / q.size(-1) ** 0.5             # (H, 1, S)
    return scores.softmax(-1)[:, 0]

def context_at(T, prompt, said):
    "How many tokens a model saw after a prompt and part of an answer: gpt.generate's rolling context."
    seen = min(T, prompt)
    for _ in range(said):
        seen = seen + 1 if seen < T else max(1, T // 2)
    return seen

# ---- chat: in the terminal, and for programs ---------------------------------------------------------------

MANUAL = """\
The model goes on with a text; it was not taught to answer. Type how a text begins, and it writes on; or
/dialogue, and it writes what a User and an Assistant might say. A \\ at a line's end: more to come.
/reset forgets, /continue leaves the dialogue, /save FILE, /load RUN, /quit; /temp 0.7, /top_k 40, /rep 1.3
and so on set what python gpt.py sample --help explains. Ctrl-C stops a reply."""

SHORTER = {"rep": "repetition_penalty"}                       # though repetition_window begins like that, too

def option_named(word):
    "temp -> temperature: the sampling option whose name begins in this way, or nothing."
    names = list(gpt.knobs(gpt.SampleConfig))
    word = SHORTER.get(word, word)
    if word in names:
        return word
    meant = [name for name in names if name.startswith(word)]
    gpt.expect(len(meant) < 2, f"/{word} could be /{', /'.join(meant)}")
    return meant[0] if meant else ""

def with_run(asked, run):
    "The same command line, but with this RUN."
    kept = {name: value for name, value in asked.items() if name != "init_from"}  # it names a RUN, too
    return {**kept, "run": [run]}

class Chat:
    "A conversation in the terminal: the text so far, and the model that goes on with it."

    def __init__(self, asked, options):
        self.asked, self.options = asked, options
        self.text = ""
        self.dialogue = False
        self.load(asked)
        print(MANUAL)

    def load(self, asked):
        with gpt.explain("the checkpoint can't be read", OSError, MemoryError):
            self.lm = gpt.load_asked(asked)
        print(f"{self.lm.path}, {self.lm.precision}")

    def run(self):
        "A line, an answer, and so on, until /quit or the end of the input."
        while True:
            try:
                line = input("> ")
                while line.endswith("\\"):
                    line = line[:-1] + "\n" + input("| ")
                word, _, rest = line.strip().partition(" ")
                if word == "/quit":
                    return
                if word.startswith("/"):
                    self.obey(word, rest)
                else:
                    self.answer(line)
            except gpt.UserError as error:
                print(gpt.printable(f"error: {error}"))
            except UnicodeDecodeError as error:               # what was read together with it is lost: an end
                raise gpt.UserError(f"a line is not UTF-8 ({error.reason}): type  iconv -f latin1 -t utf-8 "
                                    "FILE | python gpt.py chat") from None
            except KeyboardInterrupt:
                print("\n/quit leaves")
            except EOFError:
                print()
                return

    def obey(self, word, rest):
        if word == "/reset":
            self.text = ""
        elif word in ("/dialogue", "/continue"):
            self.text = ""
            self.dialogue = word == "/dialogue"
        elif word == "/save":
            with gpt.explain("/save FILE", OSError):
                Path(rest).write_text(self.text, encoding="utf-8", errors="replace")
        elif word == "/load":
            self.load(with_run(self.asked, rest))
        elif rest and len(word) > 1 and option_named(word[1:]):
            name = option_named(word[1:])
            gpt.fill(gpt.SampleConfig, {name: rest})          # a wrong value is not kept
            self.options[name] = rest
        else:
            print(MANUAL, vars(gpt.sampling(self.options)), sep="\n")

    def answer(self, line):
        "Goes on from all that was said, until the model is done or Ctrl-C stops it."
        gpt.warn_of(self.lm, line)
        options = dict(self.options)
        if self.dialogue:
            self.text += f"\n\nUser: {line}\n\nAssistant:"
            options["stop"] = "User:"
        else:
            self.text += line
        with contextlib.suppress(KeyboardInterrupt):
            for piece in self.lm.stream(self.text, **options):
                print(gpt.printable(piece), end="", flush=True)
                self.text += piece
        r = self.lm.report
        context = f"context {r.context_used} of {self.lm.config.block_size}"
        print(f"\n[{r.reason}, {r.tokens_per_s:,.0f} tokens/s, {context}]")

@dataclass
class XrayConfig:
    "what a request to chat --jsonl may ask for beside the sampling options"
    probs: int = gpt.knob(0, "with each token, what else was likely: so many", "probs >= 0")

def whence(path):
    "Of a checkpoint: the step it is from and, if that was its best one, the validation loss there."
    try:
        progress = gpt.torch.load(path, mmap=True, weights_only=True)["progress"]  # no weight is read
        step, best = int(progress["step"]), float(progress["best_val_loss"])
    except Exception:                                         # weights from elsewhere have no such thing
        return {"step": None, "val_loss": None}
    is_best = step == progress["best_step"] and math.isfinite(best)
    return {"step": step, "val_loss": best if is_best else None}

class JsonChat:
    """Chat for programs. Lines of JSON: in come requests, each with an "id" that all its answers carry,

    {"id", "prompt", "probs": 5, ...}         go on with this text; beside it the options of sampling
    {"id", "prompt", "inside": [7, 4, 9]}     look inside the last of these tokens, said after that prompt
    {"stop": id}                              end an answer; obeyed between two tokens
    {"load": RUN}                             another model

    out go lines of a "kind":

    ready    a model was loaded: model, level, block_size, precision, step and val_loss of its checkpoint
    piece    of an answer: text; with probs: token, its prob, and alternatives, the likeliest [text, prob]
    done     the answer is at its end: reason, tokens, tokens_per_s, context_used ...
    inside   texts, the tokens that the model saw; layers, for each: says, the likeliest [text, prob] if it
             were the last layer; prob, of the token that came; looks, for each head its share of each text
    error    message"""

    def __init__(self, asked, options):
        self.asked, self.options = asked, options
        self.inbox = queue.Queue()                            # requests, and None at the end
        self.stopped = set()                                  # ids whose answer is not wanted any more
        self.load(asked)

    def tell(self, kind, **fields):
        line = json.dumps({"kind": kind, **fields}) + "\n"
        print(line, end="", flush=True)                       # the line in one piece: two threads write

    def load(self, asked):
        lm = self.lm = gpt.load_asked(asked)
        self.tell("ready", model=str(lm.path), level=lm.tokenizer.state["level"],
                  block_size=lm.config.block_size, precision=lm.precision, **whence(lm.path))

    def listen(self):
        "In a thread of its own, so that a stop is heard while the model talks, or even before."
        try:
            for line in sys.stdin.buffer:
                self.take(line)
        finally:
            self.inbox.put(None)

    def take(self, line):
        try:
            request = dict(json.loads(line))
        except (ValueError, TypeError, RecursionError) as error:
            self.tell("error", id=None, message=f"a request is a JSON object on a line of its own: {error}")
            return
        if set(request) == {"stop"}:
            self.stopped.add(str(request["stop"]))
        else:
            self.stopped.discard(str(request.get("id")))
            self.inbox.put(request)

    def run(self):
        threading.Thread(target=self.listen, daemon=True).start()
        for request in iter(self.inbox.get, None):
            name = request.pop("id", None)
            try:
                if "load" in request:
                    self.load(with_run(self.asked, str(request["load"])))
                elif "inside" in request:
                    self.look_inside(name, request)
                else:
                    self.answer(name, request)
            except BrokenPipeError:
                raise
            except Exception as error:                        # whatever it was, the next request may be right
                self.tell("error", id=name, message=str(error) or type(error).__name__)

    def answer(self, name, request):
        prompt = request.pop("prompt", None)
        gpt.expect(isinstance(prompt, str), 'a request has a "prompt", a text')
        probs = request.pop("probs", None)
        probs = 5 if probs is True else probs or 0
        probs = gpt.fill(XrayConfig, {"probs": probs}).probs
        options = dict(self.options)
        for option, value in request.items():
            if value is not None:
                options[option] = value
        stream = xray(self.lm, prompt, probs, **options) if probs else self.lm.stream(prompt, **options)
        for piece in stream:
            if str(name) in self.stopped:
                break
            self.tell("piece", id=name, text=piece, **vars(piece) if probs else {})
        stream.close()
        self.tell("done", id=name, **vars(self.lm.report))

    def look_inside(self, name, request):
        prompt, said = request.get("prompt"), request["inside"]
        gpt.expect(isinstance(prompt, str), 'a request has a "prompt", a text')
        vocabulary = range(self.lm.config.vocab_size)
        fine = isinstance(said, list) and said and all(type(i) is int and i in vocabulary for i in said)
        gpt.expect(fine, f'"inside" is a list of tokens, numbers below {len(vocabulary)}')
        *before, token = said
        ids = self.lm.encode(prompt)
        seen = context_at(self.lm.config.block_size, len(ids), len(before))
        ids = [*ids, *before][-seen:]
        layers = []
        decoder = self.lm.tokenizer.decoder(ids)
        for layer in look_inside(self.lm, ids):
            shares = layer.logits.softmax(-1)
            likeliest = shares.topk(min(3, len(shares)))
            says = []
            for i, share in zip(likeliest.indices.tolist(), likeliest.values.tolist()):
                says.append([would_read(decoder, i), share])
            looks = layer.attention.mul(1e4).round().div(1e4).tolist()  # four digits: shorter lines
            layers.append({"says": says, "prob": float(shares[token]), "looks": looks})
        reader = self.lm.tokenizer.decoder()
        self.tell("inside", id=name, texts=[reader.add(i) for i in ids], layers=layers)

def chat_command(asked):
    options = {name: asked[name] for name in gpt.knobs(gpt.SampleConfig) if name in asked}
    gpt.sampling(options)                                     # wrong ones are told before anything is loaded
    if not asked.get("jsonl"):
        Chat(asked, options).run()
        return
    try:
        JsonChat(asked, options).run()
        return
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:                                   # nobody hears us any more
        status = 1
    os._exit(status)                                          # Python's own crashes: a thread reads stdin

# ---- serve and export: have files of their own -------------------------------------------------------------

def serve_command(asked):
    gpt.other_file("serve").serve_command(asked)

def export_command(asked):
    gpt.other_file("convert").export_command(asked)

# ---- eval: how good is a model? ----------------------------------------------------------------------------

@dataclass
class EvalConfig:
    "on which text, and how"
    data: str = gpt.knob("", "as in training; empty: what the (first) run was trained on")
    split: Literal["val", "test"] = gpt.knob("val", "test: the folder's test.bin, or all of a text file")
    stride: int = gpt.knob(0, "tokens between the starts of windows; 0: no overlap", "stride >= 0")

def windows_of(ids, T, stride):
    """A split, window by window, each beginning stride tokens after the one before -> inputs and targets,
    (windows, T) each. Each token but the first is scored once; what is not scored is -100."""
    windows = -(-(len(ids) - 1 - T + stride) // stride)       # rounded up
    padded = np.full((windows - 1) * stride + T + 1, -100)
    padded[:len(ids)] = ids
    padded = gpt.torch.from_numpy(padded)
    inputs = padded[:-1].clip(0).unfold(0, T, stride)         # views: the split is in memory once
    targets = padded[1:].unfold(0, T, stride)
    if stride < T:
        targets = targets.clone()
        targets[1:, :T - stride] = -100                       # scored in the window before
    return inputs, targets

def split_of_folder(lm, folder, split):
    "-> ids and the text of each document, from a folder that data.py made."
    with gpt.explain(f"{folder} has no {split} split", OSError, ValueError, KeyError, TypeError):
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        dtype = np.dtype(meta["dtype"]).newbyteorder("<")
        ids = np.fromfile(folder / f"{split}.bin", dtype)
        state = meta["tokenizer"]
    gpt.expect(state == lm.tokenizer.state, f"{folder} has another tokenizer than {lm.path}: give --data a "
               "plain text file, which is read with the model's own")
    gpt.expect(len(ids) == meta.get(f"{split}_tokens", len(ids)), f"{folder}: {split}.bin was cut short; "
               "prepare it again")
    if len(ids):
        gpt.check_ids(ids, lm.config.vocab_size)
    end_id = lm.tokenizer.end_id                              # is no text: data.py counts no bytes for it
    parts = np.split(ids, np.flatnonzero(ids == end_id))
    return ids, [lm.tokenizer.decode(part[part != end_id]) for part in parts]

def split_of_text(lm, source, split, val_fraction, by_rows):
    "-> ids and the text, as the only document, from a text file or builtin."
    text = gpt.read_text(source)
    if split == "val":
        text = text[int((1 - val_fraction) * len(text)):]
    parts = [text]
    if by_rows:
        parts = [row for row in text.splitlines(keepends=True) if row.strip()]
        gpt.expect(parts, f"{source}: its {split} split has only blank rows")
    ids = np.concatenate([lm.tokenizer.encode_to_numpy(part) for part in parts])
    return ids, [text]

class Ensemble:
    "Several models as one, which expects what they expect on average."
    def __init__(self, models):
        self.models = models

    def eval(self):
        "They are: nothing of them is trained."

    def __call__(self, ids, targets):
        return gpt.loss_of(mean_expectation(self.models, ids).log(), targets)  # logits, up to a constant

def eval_command(asked):
    """The loss on a text, and what it comes to by word and by byte, so that all levels can be compared.
    Of several runs: that of the mean of their probabilities."""
    o = gpt.fill(EvalConfig, asked)
    by_rows = asked.get("rows", False)
    settings = {"threads": gpt.ALL_THREADS, **asked, "dtype": "float32"}
    lms = [gpt.load_asked({**settings, "run": [run]}) for run in asked.get("run") or [""]]
    lm = lms[0]
    for other in lms[1:]:
        same = (other.tokenizer.state, other.config.block_size) == (lm.tokenizer.state, lm.config.block_size)
        gpt.expect(same, f"{other.path} has other tokens than {lm.path}, or another context")
    trained_on = lm.train_config.get("data") or ""
    config = gpt.fill(gpt.TrainConfig, {**lm.train_config, "data": o.data or trained_on})
    source = config.data
    gpt.expect(source, f"give --data: nobody knows what {lm.path} was trained on")
    plain = source == "builtin" or recipes.is_plain_text(Path(source))
    as_trained = source == trained_on and o.split == "val"    # which data.py may have made
    if as_trained or not plain:                               # other plain texts get the model's tokens
        source = gpt.prepare(config, chosen=True)
    if Path(source).is_dir():
        gpt.expect(not by_rows, f"--rows is for the lines of a text file: leave it out for {source}")
        ids, texts = split_of_folder(lm, Path(source), o.split)
    else:
        ids, texts = split_of_text(lm, source, o.split, config.val_fraction, by_rows)
    n, T = len(ids), lm.config.block_size
    gpt.expect(n > T, f"{source} has only {n} tokens: too few to evaluate on")
    if by_rows:
        stride = T + 1                                        # no two windows share a token; all are whole
        windows = windows_of(ids[:n // stride * stride], T, stride)
    else:
        stride = min(o.stride, T) or T
        windows = windows_of(ids, T, stride)
    rows = max(1, 2 ** 24 // (T * lm.config.vocab_size))
    model = lm.model if len(lms) == 1 else Ensemble([lm.model for lm in lms])
    loss = gpt.mean_loss(model, windows, rows, contextlib.nullcontext, gpt.Ranks(str(lm.device)))
    by_word = loss * n / max(1, sum(len(text.split()) for text in texts))
    by_byte = None
    if lm.tokenizer.lossless:
        by_byte = loss / math.log(2) * n / sum(len(text.encode()) for text in texts)
    inputs, targets = windows
    found = {"checkpoint": ", ".join(str(lm.path) for lm in lms), "data": str(source), "split": o.split,
             "loss": loss,
             "perplexity": math.exp(min(loss, 709)),          # of 710, exp is more than a float can be
             "word_perplexity": math.exp(min(by_word, 709)), "bits_per_byte": by_byte, "tokens": n,
             "scored": int((targets >= 0).sum()), "windows": len(inputs), "window": T, "stride": stride}
    if asked.get("json"):
        print(json.dumps(found))
    else:
        recipes.print_table("what value", found.items())

# ---- bench: how fast is this machine? ----------------------------------------------------------------------

@dataclass
class BenchConfig:
    "what is measured"
    preset: str = gpt.knob("", "only this one; empty: all that fit here")
    against: Literal["none", "hf"] = gpt.knob("none", "hf: how many times as fast as Hugging Face's GPT-2")

BENCH_COLUMNS = "preset tokens/s TFLOP/s MFU memory sampled/s GB/s"
BENCH_FORM = "{:12}{:>12}{:>10}{:>6}{:>11}{:>11}{:>7}"

def copying_speed():
    "Bytes a second that this machine's memory reads and writes."
    old, new = np.ones((2, 2 ** 24))
    ms = recipes.median_ms(lambda: np.copyto(new, old), 500)
    return (old.nbytes + new.nbytes) * 1e3 / ms

def rival(hf, m, config, device, new):
    """Hugging Face's GPT-2 in the same shape, as its documentation has it -> tokens/s in training, with 32 or
    16 bits, whichever is faster, and in sampling so many new ones."""
    torch = gpt.torch
    torch.set_num_threads(os.cpu_count())
    rows = config.micro_batch or config.batch_size
    ids = torch.randint(m.vocab_size, (rows, m.block_size), device=device)
    p = config.dropout
    shape = hf.GPT2Config(n_layer=m.n_layer, n_head=m.n_head, n_embd=m.n_embd, n_positions=m.block_size,
                          vocab_size=m.vocab_size, bos_token_id=0, eos_token_id=None,
                          resid_pdrop=p, embd_pdrop=p, attn_pdrop=p)
    model = hf.GPT2LMHeadModel(shape).to(device)
    adamw = torch.optim.AdamW(model.parameters())

    def step(in_16_bits):
        with torch.autocast(device.type, enabled=in_16_bits):
            loss = model(ids, labels=ids).loss
        loss.backward()
        adamw.step()
        adamw.zero_grad()
        return loss.item()                                    # which waits for a GPU

    train_ms = min(recipes.median_ms(lambda: step(False), 3000), recipes.median_ms(lambda: step(True), 3000))
    model.eval()
    start = ids[:1, :1]
    sample = functools.partial(model.generate, start, max_new_tokens=new, do_sample=True, top_k=0)
    sample_ms = recipes.median_ms(sample, 1000)
    return ids.numel() * 1e3 / train_ms, new * 1e3 / sample_ms

def train_for_seconds(folder, name, config, asked):
    "Trains a preset on made-up tokens, in a process of its own, and returns what that run says."
    letters = "".join(chr(2 ** 17 + i) for i in range(recipes.vocabulary(config) - 1))
    text = folder / "text"
    text.write_text(letters * (1 + 2 ** 18 // len(letters)), encoding="utf-8")
    flags = {"preset": name, "presets": asked.get("presets", ""), "level": "char", "data": text,
             "out_dir": folder / "run", "device": asked.get("device", "auto"), "dropout": config.dropout,
             "batch_size": config.micro_batch or config.batch_size, "optimizer": config.optimizer,
             "max_minutes": 0.1, "log_interval": 1, "eval_tokens": 1, "sample_tokens": 0}
    command = [sys.executable, str(gpt.HERE / "gpt.py"), "train"]
    command += [f"--{flag}={value}" for flag, value in flags.items()]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            process.wait(300)
        except subprocess.TimeoutExpired:
            pass                                              # what it has said so far will do
        finally:
            process.kill()                                    # also where bench itself is stopped
            process.wait()
    run = runs.Run(folder / "run")
    run.poll()
    return run

def measure(name, config, asked, hf):
    "-> the row of a preset"
    with tempfile.TemporaryDirectory() as place:
        run = train_for_seconds(Path(place), name, config, asked)
        gpt.expect(run.rows, "nothing was measured")
        lm = gpt.load(run.folder, asked.get("device", "auto"), "auto")
    new = min(100, lm.config.block_size - 1)
    sampled = new * 1e3 / recipes.median_ms(lambda: lm.sample(max_new_tokens=new), 1000)
    by_speed = sorted(run.rows, key=lambda row: row.speed)
    row = by_speed[len(by_speed) // 2]
    flops = row.speed * recipes.flops_per_token(lm.config)
    read = sampled * sum(w.nbytes for w in lm.model.parameters())  # bytes: each token reads all weights
    mfu = "-" if row.mfu is None else f"{row.mfu:.0%}"
    memory = "-" if row.memory is None else f"{row.memory:,.0f} MB"
    cells = [name, f"{row.speed:,.0f}", f"{flops / 1e12:.3f}", mfu, memory, f"{sampled:,.0f}",
             f"{read / 1e9:.1f}"]
    if hf:
        their_training, their_sampling = rival(hf, lm.config, config, lm.device, new)
        cells += [f"{row.speed / their_training:.1f}", f"{sampled / their_sampling:.1f}"]
    return cells

def device_named(name):
    "The device of this computer that --device means, with its memory."
    devices = recipes.machine()
    for device in devices:
        if name.startswith(device["device"]):                 # cuda:1
            return device
    return devices[0]

def bench(asked):
    o = gpt.fill(BenchConfig, asked)
    presets = gpt.load_presets(asked.get("presets"))
    hf = None
    columns, form = BENCH_COLUMNS, BENCH_FORM
    if o.against == "hf":
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
        hf = gpt.need("transformers")                         # before minutes have gone into training
        columns += " train/hf sample/hf"
        form += "{:>10}{:>10}"
    here = device_named(asked.get("device", "auto"))
    print(f"copying: {copying_speed() / 1e9:.0f} GB/s")
    print(form.format(*columns.split()), flush=True)
    own_shape = [name for name in presets if not {"rule", "init_from"} & set(presets[name])]
    for name in [o.preset] if o.preset else own_shape:
        shape, config = recipes.expand(presets, name, gpt.recipe(presets, name)["level"], {}, here)
        costs = recipes.cost(shape, config, here)
        if not o.preset and not costs["fits"]:
            needs = runs.size(costs["memory"])
            print(f"{name:12}  skipped: needs about {needs}, more than {here['name']} has", flush=True)
            continue
        try:
            print(form.format(*measure(name, config, asked, hf)), flush=True)
        except (gpt.UserError, RuntimeError) as error:
            if not isinstance(error, gpt.UserError) and not gpt.out_of_memory(error):
                raise
            print(f"{name:12}  took too long or did not fit", flush=True)

def bench_command(asked):
    """Each preset trains for some seconds on made-up tokens, as a run of its own, and then samples. GB/s: the
    weights that this reads; the copy is what the machine's memory can do."""
    def leave(number, frame):
        sys.exit(128 + number)                                # through every `finally`: nothing stays behind

    before = signal.signal(signal.SIGTERM, leave)
    try:
        bench(asked)
    finally:
        signal.signal(signal.SIGTERM, before)

# ---- the commands, and their flags -------------------------------------------------------------------------

def add_flags(command, parser):
    "What `python gpt.py COMMAND --help` lists."
    def add_switch(name, help):
        parser.add(parser, name, help, action="store_true")

    def add_runs(help):
        parser.add_argument("run", nargs="*", help=help)

    def shared(*names):
        "Knobs that mean what they mean in training."
        return {name: gpt.KNOBS[name] for name in names}

    if command == "presets":
        parser.add_knobs(gpt.ModelConfig.__doc__, gpt.knobs(gpt.ModelConfig))
        parser.add_knobs(gpt.TrainConfig.__doc__, gpt.knobs(gpt.TrainConfig))
        add_switch("json", "for programs")
    elif command == "plan":
        parser.add_knobs(recipes.PlanConfig.__doc__, gpt.knobs(recipes.PlanConfig))
        parser.add_knobs("what is trained", shared(*recipes.PLANNED))
        parser.add_knobs(gpt.ModelConfig.__doc__, gpt.knobs(gpt.ModelConfig))
        add_switch("json", "for programs")
    elif command == "runs":
        parser.add(parser, "sort", "the column to sort by [when]", metavar="|".join(RUN_COLUMNS))
        add_switch("json", "for programs")
    elif command == "plot":
        add_runs("runs' folders [the newest run]")
        parser.add(parser, "out", "a .pdf, .png or .svg [loss.pdf]", metavar="FILE")
    elif command == "chat":
        gpt.add_loading(parser)
        add_switch("jsonl", "for programs: a request a line in, a piece of the answer a line out")
        parser.add_knobs(gpt.SampleConfig.__doc__, gpt.knobs(gpt.SampleConfig))
    elif command == "serve":
        gpt.add_loading(parser)
        serve = gpt.other_file("serve")
        parser.add_knobs(serve.ServeConfig.__doc__, gpt.knobs(serve.ServeConfig))
        parser.add_knobs("where a request doesn't say it: how the next token is picked", serve.DEFAULTS)
    elif command == "export":
        gpt.other_file("convert").add_flags(parser)
    elif command == "eval":
        add_runs("runs' folders or checkpoints; several are taken as one, by the mean of what they expect "
                 "[the newest run]")
        parser.add_knobs(EvalConfig.__doc__, gpt.knobs(EvalConfig))
        add_switch("rows", "WikiText's protocol: each row by itself, no blank ones, whole windows only")
        add_switch("json", "for programs")
        parser.add_knobs("where it computes", shared("device", "threads"))
    elif command == "bench":
        parser.add_knobs(BenchConfig.__doc__, gpt.knobs(BenchConfig) | shared("presets", "device"))

COMMANDS = {
    "presets": recipes.presets_command,
    "plan": recipes.plan_command,
    "runs": runs_command,
    "plot": plot_command,
    "eval": eval_command,
    "chat": chat_command,
    "serve": serve_command,
    "bench": bench_command,
    "export": export_command,
}
