"""tools.py: what one does with runs and machines. gpt.py, beside it, has the command line:

    python gpt.py presets                     the recipes: shape, weights, memory, whether they fit here
    python gpt.py plan --gpu h100 --gpus 8    on cards that are not here: memory, traffic, hours, cost
    python gpt.py runs --sort best            what was trained here
    python gpt.py plot RUN RUN --out loss.pdf
    python gpt.py eval --data other.txt       loss, perplexity and bits per byte on a whole split
    python gpt.py chat                        talk to a model; --jsonl: the same for programs
    python gpt.py serve                       a model behind the OpenAI API, and a page (in serve.py)
    python gpt.py bench --preset tiny         speed and memory on this machine
    python gpt.py export --to hf --out DIR    leave for transformers, llama.cpp or a Space (convert.py)

Training reaches for this file, too, where it is there: for the live display, for trackers, to notice threads
that wait for each other, and for how well a machine is used.

presets, plan, runs and plot answer before torch could be imported. They see only the upper half of gpt.py, so
what stands below its `import torch` (gpt.load, gpt.mean_loss, gpt.torch ...) is named inside of functions.
"""
import contextlib
import glob
import importlib.util
import json
import math
import os
import platform
import queue
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

import gpt
import runs

def cell(value):
    "A value as a table shows it."
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1e9 else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return runs.clean(value).replace("\n", " ")

def print_table(header, rows):
    "A header, in which spaces separate the columns, and rows of values."
    lines = [header.split()]
    for row in rows:
        lines.append([cell(value) for value in row])
    widths = [max(len(text) for text in column) for column in zip(*lines)]
    for line in lines:
        padded = [text.ljust(width) for text, width in zip(line, widths)]
        print("  ".join(padded).rstrip())

def median_ms(work, at_least_ms=0, times=3):
    "Milliseconds that a piece of work takes. The first time does not count: things are set up in it."
    work()
    took = []
    while len(took) < times or sum(took) < at_least_ms:
        start = time.perf_counter()
        work()
        took.append(1e3 * (time.perf_counter() - start))
    return statistics.median(took)

# ---- presets: what a recipe costs --------------------------------------------------------------------------

TYPICAL_VOCABULARY = {"char": 98, "word": 3300, "bpe": 50257}

def count_parameters(m):
    "The weights of a GPT-2 of this shape. The head is the embedding table again, so it counts once."
    vectors = 2                                               # in a block, in widths: the norms' weights
    if m.bias:
        vectors += 8                                          # and all biases but those of q, k and v
    if m.bias and m.qkv_bias:
        vectors += 3
    block = 12 * m.n_embd ** 2 + vectors * m.n_embd
    tables = (m.vocab_size + m.block_size) * m.n_embd
    last_norm = (1 + m.bias) * m.n_embd
    return tables + m.n_layer * block + last_norm

def flops_per_token(m):
    "In training: for each weight 2 forward and 4 backward, and the same for the products between tokens."
    multiplied = count_parameters(m) - m.block_size * m.n_embd  # no product with the positions
    return 6 * multiplied + 12 * m.n_layer * m.n_embd * m.block_size

def matrix_weights(m):
    "The weights in the blocks' matrices, which Muon trains."
    return 12 * m.n_layer * m.n_embd ** 2

def memory_parts(m, t, device):
    """Bytes, about, when most are held: the loss of a micro-batch was just computed, and the gradients of the
    one before it are there. Without torch.compile, which needs less."""
    weights = count_parameters(m)
    moments = 8 * weights                                     # AdamW: two numbers for each weight
    if t.optimizer == "muon":
        moments -= 4 * matrix_weights(m)                      # Muon: one
    # Numbers that the backward pass needs, by token and block. On GPUs: 36 bytes a channel, of which 4 are
    # the residual stream twice, and the others what the four products read, in 16 bits; 2 masks for dropout.
    block = 36 * m.n_embd
    if t.dropout:
        block += 2 * m.n_embd
    if device == "cpu":                                       # which also stores how tokens weigh each other
        block = 40 * m.n_embd + 6 * m.n_head * m.block_size
    # The logits in 16 bits, in 32 bits, as log-probabilities, and their gradient.
    token = m.n_layer * block + 14 * m.vocab_size
    rows = t.micro_batch or t.batch_size
    return {"weights": 4 * weights, "gradients": 4 * weights, "optimizers": moments,
            "16-bit copies": 2 * weights, "micro-batch": rows * m.block_size * token, "torch": int(3e8)}

def training_memory(m, t, device):
    "Bytes, about, that training needs at a time."
    return sum(memory_parts(m, t, device).values())

@dataclass
class GPU:
    "What the maker of a card promises."
    name: str
    tflops: float                                             # dense products of 16-bit numbers
    memory: int                                               # GB; where there are several kinds, the largest
    link: float                                               # GB/s each way to the other cards of a host
    by: str                                                   # what that link is

GPUS = [
    GPU("B200", 2250, 180, 900, "NVLink 5"),
    GPU("H200", 989, 141, 450, "NVLink 4"),
    GPU("H100", 989, 80, 450, "NVLink 4"),
    GPU("H100 NVL", 835, 94, 64, "PCIe 5"),
    GPU("H100 PCIe", 756, 80, 64, "PCIe 5"),
    GPU("A100", 312, 80, 300, "NVLink 3"),
    GPU("A100 PCIe", 312, 80, 32, "PCIe 4"),
    GPU("V100", 125, 32, 150, "NVLink 2"),
    GPU("V100 PCIe", 112, 32, 16, "PCIe 3"),
    GPU("L40S", 362, 48, 32, "PCIe 4"),
    GPU("L40", 181, 48, 32, "PCIe 4"),
    GPU("L4", 121, 24, 32, "PCIe 4"),
    GPU("A10", 125, 24, 32, "PCIe 4"),
    GPU("A10G", 70, 24, 32, "PCIe 4"),
    GPU("T4", 65, 16, 16, "PCIe 3"),
    # These send to each other through the memory of the host, and so over PCIe twice.
    GPU("RTX 5090", 209, 32, 32, "PCIe 5"),
    GPU("RTX 4090", 165, 24, 16, "PCIe 4"),
    GPU("RTX 3090", 71, 24, 16, "PCIe 4"),
]

def gpu_named(name):
    """The card that its driver calls so, such as NVIDIA A100-SXM4-80GB, or None: a laptop's, a part of a card
    and one with another letter compute at another speed."""
    words = re.split(r"[ -]+", name.lower())
    words = [word for word in words if not re.fullmatch(r"nvidia|tesla|geforce|sxm\d|\d+gb|hbm\w+", word)]
    for gpu in GPUS:
        if gpu.name.lower().split() == words:
            return gpu
    return None

def nvidia_gpus():
    "NVIDIA's GPUs, as their driver's own command lists them. No such command: no such GPU."
    ask = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    gpus = []
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        answer = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
        for row in answer.splitlines():
            name, megabytes = row.split(",")
            gpus.append({"device": "cuda", "name": name, "memory": int(megabytes) << 20})
    return gpus

def machine():
    "The devices of this computer, the best one first."
    memory = 0
    with contextlib.suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    devices = nvidia_gpus()
    if sys.platform == "darwin" and platform.machine() == "arm64":
        devices.append({"device": "mps", "name": "Apple GPU", "memory": memory * 3 // 4})
    devices.append({"device": "cpu", "name": f"CPU, {os.cpu_count()} cores", "memory": memory})
    return devices

def expand(presets, name, level, asked):
    "-> ModelConfig, TrainConfig of a preset at a level, with what was asked for in the place of its values."
    values = {**gpt.recipe(presets, name, level), **asked}
    shape = gpt.fill(gpt.ModelConfig, values)
    config = gpt.fill(gpt.TrainConfig, values)
    shape.vocab_size = config.vocab_size or TYPICAL_VOCABULARY[level]
    return shape, config

USUAL_MFU = 0.4                                               # of a GPU, where nothing else is known
CORE_SPEED = 60e9                                             # FLOP/s of a CPU's core in training, about

def usual_speed(device):
    "FLOP/s that go into a model in training, about; None for a device that is not known."
    if device["device"] == "cpu":
        return CORE_SPEED * (os.cpu_count() or 1)
    gpu = gpu_named(device["name"])
    return USUAL_MFU * 1e12 * gpu.tflops if gpu else None

def cost(shape, config, device):
    "What training takes, and whether a device has it. One that does not say its memory is believed to."
    memory = training_memory(shape, config, device["device"])
    room = device["memory"] or math.inf
    return {"parameters": count_parameters(shape), "memory": memory, "fits": memory < 0.9 * room,
            "flops_per_token": flops_per_token(shape), "usual_flops_per_s": usual_speed(device)}

def described(part):
    "The knobs of a configuration, for programs."
    for name, knob in gpt.knobs(part).items():
        words = get_args(knob.type)
        kind = "choice" if words else knob.type.__name__
        yield {"name": name, "type": kind, **knob.metadata, "choices": words, "default": knob.default,
               "part": part.__name__}

def presets_command(asked):
    "The recipes as a table for people, or as JSON for programs: all of them, or one with changes."
    presets = gpt.load_presets(asked.get("presets"))
    names = [asked["preset"]] if "preset" in asked else list(presets)
    only = None
    if "level" in asked:
        only = gpt.convert(gpt.KNOBS["level"], asked["level"])
    devices = machine()
    no_gpu = devices[0]["device"] == "cpu"
    found = {}
    table = []
    for name in names:
        own_level = gpt.recipe(presets, name)["level"]
        found[name] = {"about": "", "for": "", **presets[name], "level": own_level}
        for level in [only] if only else gpt.LEVELS:
            shape, config = expand(presets, name, level, asked)
            costs = cost(shape, config, devices[0])
            expected = (presets[name].get(level) or {}).get("expect", "")
            found[name][level] = {**vars(shape), **vars(config), **costs, "expect": expected}
            if level == (only or own_level):
                needs = [gpt.short(costs["memory"]) + "B"]
                if no_gpu:                                    # which would need less
                    needs.append(gpt.short(training_memory(shape, config, "cuda")) + "B")
                table.append([name, f"{shape.n_layer}/{shape.n_head}/{shape.n_embd}", shape.block_size, level,
                              gpt.short(costs["parameters"]), *needs, "yes" if costs["fits"] else "no",
                              found[name]["about"]])
    if asked.get("json"):
        fields = [*described(gpt.ModelConfig), *described(gpt.TrainConfig)]
        answer = {"presets": found, "fields": fields, "devices": devices}
        if "data" in asked:
            answer["data"] = about_data(asked["data"], config)
        print(json.dumps(answer))
    else:
        needs = "memory on-a-GPU" if no_gpu else "memory"
        print_table(f"preset layers/heads/width context level weights {needs} fits what", table)
        print(f"\nmemory: to train, about; fits: on {devices[0]['name']}. "
              "Next: python gpt.py train --preset laptop")

# ---- plan: how long and how much, on machines that are not here --------------------------------------------

@dataclass
class PlanConfig:
    "the machines, and what they cost"
    gpu: str = gpt.knob("a100", "the card: b200, h200, h100, a100, v100, l40s, t4, rtx-4090 and so on")
    gpus: int = gpt.knob(8, "how many of them", "1 <= gpus <= 1e5")
    gpus_per_host: int = gpt.knob(8, "so many share a host and its links", "gpus_per_host >= 1")
    network: float = gpt.knob(100.0, "of a host to the others, in Gbit/s", "1e-3 <= network <= 1e6")
    mfu: float = gpt.knob(USUAL_MFU, "the part of a card's peak that computes the model. Published: nanoGPT "
                          "0.29, llm.c 0.6 on A100s, llm.c and nanochat 0.5 on H100s", "0.001 <= mfu <= 1")
    price: float = gpt.knob(0.0, "of one card for an hour, in dollars; 0: not told", "0 <= price <= 1e6")

PLANNED = ("preset", "presets", "level", "vocab_size", "batch_size", "micro_batch", "max_iters", "optimizer",
           "dropout")                                         # knobs of training on which a plan depends
LINK_USED = 0.75                                              # all_reduce gets about so much of a link
LINKS = {"NVLink-4": 450, "NVLink-3": 300, "PCIe-5": 64, "PCIe-4": 32, "PCIe-3": 16,  # GB/s each way
         "400-Gbit/s": 50, "100-Gbit/s": 12.5, "25-Gbit/s": 3.125, "10-Gbit/s": 1.25}

def muon_flops(m):
    """In a step: five rounds of Newton-Schulz. A round costs a matrix of a rows and b >= a columns
    4 a a b + 2 a a a. A block has four of C x C, with q, k and v apart, and two of C x 4 C."""
    return 300 * m.n_layer * m.n_embd ** 3

def plan(m, t, gpu, gpus, gigabytes, mfu):
    """What a step costs on so many cards, whose slowest link moves so many gigabytes a second each way.
    Seconds and bytes of the card that has most to do; the others wait for it."""
    speed = mfu * 1e12 * gpu.tflops                           # FLOP/s of one card
    share = math.ceil(t.batch_size / gpus)                    # its rows of the batch
    rows = min(t.micro_batch or share, share)
    last_rows = share - rows * (math.ceil(share / rows) - 1)  # of the last micro-batch
    row_s = m.block_size * flops_per_token(m) / speed
    compute_s = share * row_s

    # all_reduce in a ring: each number goes around twice, to be summed and to be told, and each time a card
    # sends all but its own part to the next one. The slowest link sets the pace.
    bandwidth = LINK_USED * 1e9 * gigabytes
    others = (gpus - 1) / gpus
    weights = count_parameters(m)
    sent = 2 * others * 4 * weights                           # bytes: gradients have 32 bits
    send_s = sent / bandwidth
    # It begins in the last micro-batch's backward pass, two thirds of its time, and hides behind that. But
    # the embeddings' gradient is complete at its very end: to send that, all wait.
    backward_s = 2 / 3 * last_rows * row_s
    embeddings = (m.vocab_size + m.block_size) * m.n_embd / weights  # their part of it
    wait_s = max(send_s - backward_s, embeddings * send_s)

    muon_s = 0.0
    if t.optimizer == "muon":                                 # each card has a part of the layers, and sends
        layers = math.ceil(m.n_layer / gpus)                  # all others what comes out, in 16 bits
        muon_s = muon_flops(m) / m.n_layer * layers / speed
        muon_s += others * 2 * matrix_weights(m) / bandwidth
    step_s = compute_s + wait_s + muon_s
    tokens_per_s = t.batch_size * m.block_size / step_s
    hours = t.max_iters * step_s / 3600
    return {"gpus": gpus, "gigabytes_per_s": gigabytes, "rows": share, "micro_batch": rows,
            "flops_per_token": flops_per_token(m), "muon_flops": muon_flops(m), "compute_s": compute_s,
            "sent_bytes": sent, "send_s": send_s, "backward_s": backward_s, "wait_s": wait_s,
            "muon_s": muon_s, "step_s": step_s, "tokens_per_s": tokens_per_s,
            "mfu": tokens_per_s * flops_per_token(m) / (1e12 * gpu.tflops * gpus),
            "hours": hours, "gpu_hours": gpus * hours,
            # so fast a link would have to be, lest more than the embeddings be waited for
            "hides_from_gigabytes_per_s": (1 - embeddings) * sent / backward_s / LINK_USED / 1e9}

def card_asked_for(name):
    "b200, rtx-4090, h100 pcie ... -> its GPU"
    cards = {gpu.name.lower().replace(" ", "-"): gpu for gpu in GPUS}
    name = name.lower().replace(" ", "-").replace("_", "-")
    gpt.check_known([name], cards, "--gpu")
    return cards[name]

def seconds_said(s):
    return f"{s:.3g} s" if s >= 1 else f"{1e3 * s:.3g} ms"

def hours_said(hours):
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    return f"{hours:.1f} hours" if hours >= 2 else f"{60 * hours:.1f} minutes"

def plan_command(asked):
    "A training on machines that are not here: memory, speed, traffic, hours and money, by arithmetic."
    o = gpt.fill(PlanConfig, asked)
    gpu = card_asked_for(o.gpu)
    presets = gpt.load_presets(asked.get("presets"))
    name = asked.get("preset", "gpt2")
    level = gpt.recipe(presets, name)["level"]
    if "level" in asked:
        level = gpt.convert(gpt.KNOBS["level"], asked["level"])
    m, t = expand(presets, name, level, asked)
    gpt.expect(t.max_iters, f"preset {name} ends by the clock, not by steps: give --max_iters")
    gpt.expect(t.batch_size >= o.gpus, f"--gpus {o.gpus}: a batch has {t.batch_size} sequences, one for each "
               f"at least: give --batch_size {o.gpus} or fewer --gpus")

    def on(gpus, gigabytes=None):
        "The plan for so many cards, joined by what they have or by a link of another speed."
        own = gpu.link
        if gpus > o.gpus_per_host:
            own = min(own, o.network / 8)                     # once around, the ring uses each network once
        return plan(m, t, gpu, gpus, gigabytes or own, o.mfu)

    with gpt.explain("too large to be counted", OverflowError):
        p = on(o.gpus)
    t.micro_batch = p["micro_batch"]
    p |= {"preset": name, "level": level, "gpu": vars(gpu), "parameters": count_parameters(m),
          "tokens": t.max_iters * t.batch_size * m.block_size, "memory": memory_parts(m, t, "cuda"),
          "cost": p["gpu_hours"] * o.price or None}
    if asked.get("json"):
        print(json.dumps(p))
        return
    print_plan(m, t, o, gpu, p)
    print_launch(o, asked, name)
    fewer = [2 ** i for i in range(17) if 2 ** i < o.gpus]
    print_table("cards GB/s tokens/s MFU waits time card-hours cost",
                [plan_row(gpus, on(gpus), o.price) for gpus in [*fewer, o.gpus]])
    if o.gpus > 1:
        print(f"\nThe same {o.gpus} cards, if the slowest link between them were another:\n")
        print_table("link GB/s tokens/s MFU waits time card-hours cost",
                    [plan_row(link, on(o.gpus, speed), o.price) for link, speed in LINKS.items()])
    print("\nwaits: the part of a step in which a card does not compute the model. Left out:\n"
          "evaluations, compiling, failures, and that few sequences at a time lower MFU.")

def plan_row(title, p, price):
    speed = f"{p['gigabytes_per_s']:g}" if p["gpus"] > 1 else None
    waits = 1 - p["compute_s"] / p["step_s"]
    cost = f"${p['gpu_hours'] * price:,.0f}" if price else None
    return [title, speed, f"{p['tokens_per_s']:,.0f}", f"{p['mfu']:.0%}", f"{waits:.0%}",
            hours_said(p["hours"]), f"{p['gpu_hours']:,.1f}", cost]

def print_plan(m, t, o, gpu, p):
    "What goes into a plan, in words."
    def say(title, text):
        print(textwrap.fill(text, 80, initial_indent=f"{title:11}", subsequent_indent=11 * " "))

    say("model", f"{p['preset']}, {p['level']}: {gpt.short(p['parameters'])} weights; {t.max_iters:,} steps "
        f"of {t.batch_size} x {m.block_size:,} tokens, {gpt.short(p['tokens'])} in all")
    hosts = math.ceil(o.gpus / o.gpus_per_host)
    outside = f", {o.network:g} Gbit/s between {hosts} hosts" if hosts > 1 else ""
    say("cards", f"{o.gpus} x {gpu.name}, {gpu.tflops:g} TFLOP/s and {gpu.memory} GB each; {gpu.by}, "
        f"{gpu.link:g} GB/s, inside of a host{outside}")
    needs = sum(p["memory"].values())
    parts = ", ".join(f"{what} {size / 1e9:.2f}" for what, size in p["memory"].items())
    too_much = needs > 0.95e9 * gpu.memory
    advice = " Too much: take a smaller --micro_batch or a larger card." if too_much else ""
    say("memory", f"{needs / 1e9:.1f} GB on each card: {parts}.{advice}")
    say("compute", f"{flops_per_token(m) / 1e9:.3g} GFLOP a token. At {o.mfu:.0%} of its peak a card takes "
        f"{seconds_said(p['compute_s'])} a step for {p['rows']} of {t.batch_size} sequences, "
        f"{p['micro_batch']} at a time")
    if t.optimizer == "muon":
        say("Muon", f"{muon_flops(m) / 1e12:.3g} TFLOP a step, shared out, then gathered: "
            f"{seconds_said(p['muon_s'])}")
    if o.gpus > 1:
        say("gradients", f"{p['sent_bytes'] / 1e9:.3g} GB a step from each card to the next: "
            f"{seconds_said(p['send_s'])} at {LINK_USED:.0%} of {p['gigabytes_per_s']:g} GB/s. The backward "
            f"pass hides {seconds_said(p['backward_s'])}, a card waits for {seconds_said(p['wait_s'])}. "
            f"From {p['hides_from_gigabytes_per_s']:.3g} GB/s on it waits for the embeddings' alone")

def print_launch(o, asked, preset):
    "The command for it: on several hosts the same line on each; HOST is the name of the first."
    hosts = math.ceil(o.gpus / o.gpus_per_host)
    words = [f"torchrun --nproc_per_node={min(o.gpus, o.gpus_per_host)}"]
    if hosts > 1:
        words += [f"--nnodes={hosts}", "--rdzv_backend=c10d", "--rdzv_endpoint=HOST:29400"]
    words.append(f"gpt.py train --preset {shlex.quote(preset)}")
    changed = {flag: value for flag, value in asked.items() if flag in gpt.KNOBS and flag != "preset"}
    words += [f"--{flag} {shlex.quote(str(value))}" for flag, value in changed.items()]
    lines = [words[0]]
    for word in words[1:]:
        if len(f"{lines[-1]} {word} \\") > 80:
            lines.append(f"  {word}")
        else:
            lines[-1] += f" {word}"
    print("\n" + " \\\n".join(lines) + "\n")

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
    "steps": lambda run: run.rows[-1].step if run.rows else None,
    "best": lambda run: best_of(run).val,
    "at": lambda run: best_of(run).step,
    "bits/byte": lambda run: best_of(run).bits,
    "tokens/s": lambda run: round(run.speed or 0),
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
    print_table(" ".join(RUN_COLUMNS), [row.values() for row in rows])

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
    for place in places:
        run, tokens_per_step = run_to_plot(place)
        label = f"{run.name}: {run.best.val:.4f} at {run.best.step:,}"
        label = label.replace("$", r"\$")                     # which would begin a formula
        curve, = axes.plot(*zip(*runs.val_points(run)), label=label)
        colour = curve.get_color()
        if losses := runs.loss_points(run):
            axes.plot(*zip(*losses), ":", color=colour)
        axes.plot(run.best.step, run.best.val, "*", color=colour, markersize=12)
    millions = tokens_per_step / 1e6
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
        self.longest = 0.0                                    # silence that was none: an evaluation, say
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
        heard_at = self.run.heard_at
        while not self.closed.wait(self.PAUSE):
            self.longest = max(self.longest, self.run.heard_at - heard_at)
            heard_at = self.run.heard_at
            silence = time.monotonic() - heard_at
            if silence < max(self.PATIENCE, 3 * self.longest):
                if told:
                    self.run.warn("the other processes are heard again")
                told = False
                continue
            if not told:
                self.run.warn(f"no word from the other processes for {silence:.0f} s. When they are heard "
                              f"again the run goes on; to end it: echo stop > {self.run.folder / 'control'}")
            told = True
            if gpt.CONTROL_WORDS[gpt.read_control(self.run.folder)] == "stop":
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
    x = gpt.torch.randn(rows, T, C)

    def pass_through():
        with run.autocast():
            y = run.raw_model.h[0](x)
        y.sum().backward()

    return median_ms(pass_through, times=5)

def threads_that_wait(run):
    """-> a warning, or nothing. CPU threads that share a piece of work wait for each other by spinning: where
    other programs want the cores as well, two were seen to take ten times as long as one."""
    try:
        alone = block_time(run, 1)
        together = block_time(run, run.threads)
    finally:
        gpt.torch.set_num_threads(run.threads)
        run.raw_model.zero_grad()
    if together <= 1.3 * alone:
        return ""
    folder = shlex.quote(str(run.folder))
    return (f"{run.threads} threads take {together / alone:.1f} times as long as one here: other programs "
            "use the cores. Ctrl-C saves and stops; then type: "
            f"python gpt.py train --resume {folder} --threads 1")

def peak_flops(device, dtype):
    "What the maker promises for dense 16-bit products, or None: rather no figure than a wrong one."
    if device.type == "cuda" and dtype != gpt.torch.float32:
        gpu = gpu_named(gpt.torch.cuda.get_device_name(device))
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
        mfu = tokens_per_s * flops_per_token(run.model_config) / (peak * run.ranks.world_size)
    return {"mfu": mfu, "memory_mb": memory_used(run.device)}

# ---- a teacher: a large model teaches a small one ----------------------------------------------------------

class Teacher:
    """What earlier runs expect after each token: the mean of their probabilities. A model that learns from
    this as well hears not only what came, but also what might have come. They read each batch anew:
    expectations that were kept by place, from other contexts than the learner's, brought a third as much."""
    def __init__(self, run):
        self.run = run
        self.models = [self.load(name) for name in run.config.teacher]
        names = ", ".join(run.config.teacher)
        run.log.say(f"teacher    {names}: has {run.config.teacher_share:.0%} of the loss")

    def load(self, name):
        checkpoint, path = gpt.open_checkpoint(name)
        model, tokenizer = gpt.model_of(checkpoint, path)
        same = tokenizer.state == self.run.corpus.tokenizer.state
        gpt.expect(same, f"--teacher {name} has other tokens: train it with the same --data and --level")
        ours, theirs = self.run.model_config.block_size, model.config.block_size
        gpt.expect(theirs >= ours, f"--teacher {name} sees {theirs} tokens, this run {ours}: "
                   f"--block_size {theirs} would fit")
        return model.to(self.run.device).eval()

    def __call__(self, inputs, targets):
        """What was read and what came, (B, T) each -> how likely each token should have been, (B, T, V): a
        share of it as the teachers expect, the rest on the token that came."""
        share = self.run.config.teacher_share
        with gpt.torch.no_grad(), self.run.autocast():
            logits = [model(inputs) for model in self.models]
        expected = sum(part.float().softmax(-1) for part in logits) / len(logits)
        came = gpt.torch.full_like(expected[..., :1], 1 - share)
        return (share * expected).scatter_add_(-1, targets[..., None], came)

# ---- a text, before it is trained on -----------------------------------------------------------------------

READ_TO_JUDGE = 2_000_000                                     # characters or tokens of it
SHOWN_TOKENS = 500

def about_data(source, config):
    "What --data names: how much it is, and how this level cuts it; or why that can't be said yet."
    try:
        return look_at_data(source, config)
    except gpt.UserError as error:
        return {"why": str(error)}

def look_at_data(source, config):
    own_bpe = config.vocab_size if config.level == "bpe" and config.vocab_size else ""
    for folder in Path(source), Path("data") / f"{source}-{config.level}{own_bpe}":
        if (folder / "meta.json").is_file():                  # data.py made it
            corpus = gpt.open_folder(folder, config.level)
            meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
            length = sum(int(meta[name]) for name in ("train_bytes", "val_bytes"))
            tokens = len(corpus.train) + len(corpus.val)
            return judged(corpus.tokenizer, corpus.train[:READ_TO_JUDGE], length, tokens, False)
    gpt.expect(not own_bpe, "its own BPE is learned when training begins")
    if source == "builtin":
        text = gpt.read_text(source)
        length = len(text.encode())
    else:
        files = [Path(path) for path in sorted(glob.glob(source))]
        if Path(source).is_dir():
            files = sorted(Path(source).rglob("*.txt"))
        gpt.expect(files and files[0].is_file(), "it is not here yet: training begins with fetching it")
        gpt.expect(files[0].suffix not in gpt.PACKED, "it is packed: it is read when training begins")
        length = sum(path.stat().st_size for path in files)
        with gpt.explain(f"{files[0]} can't be read", OSError):
            with open(files[0], encoding="utf-8-sig", errors="replace") as file:
                text = file.read(READ_TO_JUDGE)
        gpt.expect(text.strip() and "\0" not in text, f"{files[0]} is empty, or no text")
    tokenizer = gpt.TOKENIZERS[config.level].train(text, config)
    ids = tokenizer.encode_to_numpy(text)
    read = len(text.encode())
    is_part = length > read + 3                               # a mark at the beginning has 3
    return judged(tokenizer, ids, length, int(len(ids) * length / read) if is_part else len(ids), is_part)

def judged(tokenizer, ids, length, tokens, is_part):
    "is_part: whether only a part was read, so that the numbers are estimates."
    unknown = 0.0
    if tokenizer.unknown_id is not None:
        unknown = float((np.asarray(ids) == tokenizer.unknown_id).mean())
    decoder = tokenizer.decoder()
    start = [[decoder.add(i), i] for i in np.asarray(ids[:SHOWN_TOKENS]).tolist()]
    return {"bytes": length, "tokens": tokens, "is_part": is_part, "kinds": tokenizer.vocab_size,
            "unknown": unknown, "unknown_id": tokenizer.unknown_id, "start": start}

# ---- the X-ray: how likely was each token, and what else? --------------------------------------------------

class Piece(str):
    "The text of a token, with .token, its id, .prob and .alternatives."

def xray(lm, prompt, probs=3, **options):
    """Like lm.stream, but token by token, each with .prob, its probability for the model, and .alternatives:
    so many of the likeliest tokens as probs says, as [text, probability]. The text is how it would read."""
    options = gpt.sampling({**options, "num_samples": 1})
    stops = gpt.StopTexts(options.stop)
    before = lm.encode(prompt)[-1]
    held = []                                                 # pieces whose text is not sure yet
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
                piece.alternatives.append([lm.tokenizer.decoder([before]).add(other), share])
            before = i
        held.append(piece)
        sure = len(stops.add(text))
        while held and len(held[0]) <= sure:
            sure -= len(held[0])
            yield held.pop(0)
        if stops.found:
            lm.report.reason = "stop"
            if sure > 0:                                      # the stop text begins inside of a token
                beginning = Piece(held[0][:sure])
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
        print_table("token probability likeliest second third", table)

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

class Chat:
    "A conversation in the terminal: the text so far, and the model that goes on with it."

    def __init__(self, asked, options):
        self.asked, self.options = asked, options
        self.text = ""
        self.dialogue = False
        self.load(asked)
        print(MANUAL)

    def load(self, asked):
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
            self.load({**self.asked, "run": [rest]})
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
                    self.load({**self.asked, "run": [str(request["load"])]})
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
        for layer in look_inside(self.lm, ids):
            shares = layer.logits.softmax(-1)
            likeliest = shares.topk(min(3, len(shares)))
            says = []
            for i, share in zip(likeliest.indices.tolist(), likeliest.values.tolist()):
                says.append([self.lm.tokenizer.decoder(ids[-1:]).add(i), share])
            looks = layer.attention.mul(1e4).round().div(1e4).tolist()  # four digits: shorter lines
            layers.append({"says": says, "prob": float(shares[token]), "looks": looks})
        decoder = self.lm.tokenizer.decoder()
        self.tell("inside", id=name, texts=[decoder.add(i) for i in ids], layers=layers)

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
    data: str = gpt.knob("", "as in training; empty: what the run was trained on")
    split: Literal["val", "test"] = gpt.knob("val", "test: the folder's test.bin, or all of a text file")
    stride: int = gpt.knob(0, "tokens from a window to the next; 0: no overlap", "stride >= 0")

def windows_of(ids, T, stride):
    """A split, window by window, each beginning stride tokens after the one before -> inputs and targets,
    (windows, T) each. Each token but the first is scored once; what is not scored is -100."""
    starts = np.arange(0, max(1, len(ids) - 1 - T + stride), stride)
    where = starts[:, None] + np.arange(T)                    # (windows, T)
    padded = np.append(ids.astype(np.int64), np.full(T + stride, -100))
    targets = padded[where + 1]
    targets[1:, :max(0, T - stride)] = -100                   # scored in the window before
    return gpt.torch.from_numpy(padded[where].clip(0)), gpt.torch.from_numpy(targets)

def split_of_folder(lm, folder, split):
    "-> ids and their text, from a folder that data.py made."
    with gpt.explain(f"{folder} has no {split} split", OSError, ValueError, KeyError, TypeError):
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        dtype = np.dtype(meta["dtype"]).newbyteorder("<")
        ids = np.fromfile(folder / f"{split}.bin", dtype)
        state = meta["tokenizer"]
    gpt.expect(state == lm.tokenizer.state, f"{folder} has another tokenizer than {lm.path}")
    gpt.expect(len(ids) == meta.get(f"{split}_tokens", len(ids)), f"{folder}: {split}.bin was cut short; "
               "prepare it again")
    if len(ids):
        gpt.check_ids(ids, lm.config.vocab_size)
    return ids, lm.tokenizer.decode(ids.tolist())

def split_of_text(lm, source, split, val_fraction, by_rows):
    "-> ids and their text, from a text file or builtin."
    text = gpt.read_text(source)
    if split == "val":
        text = text[int((1 - val_fraction) * len(text)):]
    parts = [text]
    if by_rows:
        parts = [row for row in text.splitlines(keepends=True) if row.strip()]
    ids = np.concatenate([lm.tokenizer.encode_to_numpy(part) for part in parts])
    return ids, text

def eval_command(asked):
    "The loss on a text, and what it comes to by word and by byte, so that all levels can be compared."
    o = gpt.fill(EvalConfig, asked)
    by_rows = asked.get("rows", False)
    lm = gpt.load_asked({"threads": gpt.ALL_THREADS, **asked, "dtype": "float32"})
    data = {"data": o.data} if o.data else {}
    config = gpt.fill(gpt.TrainConfig, {**lm.train_config, **data})
    source = gpt.prepare(config, chosen=True)
    if Path(source).is_dir():
        ids, text = split_of_folder(lm, Path(source), o.split)
    else:
        ids, text = split_of_text(lm, source, o.split, config.val_fraction, by_rows)
    n, T = len(ids), lm.config.block_size
    gpt.expect(n > T, f"{source} has only {n} tokens: too few to evaluate on")
    if by_rows:
        stride = T + 1                                        # no two windows share a token; all are whole
        windows = windows_of(ids[:n // stride * stride], T, stride)
    else:
        stride = min(o.stride, T) or T
        windows = windows_of(ids, T, stride)
    rows = max(1, 2 ** 24 // (T * lm.config.vocab_size))
    loss = gpt.mean_loss(lm.model, windows, rows, contextlib.nullcontext, gpt.Ranks(str(lm.device)))
    by_word = loss * n / max(1, len(text.split()))
    by_byte = None
    if lm.tokenizer.lossless:
        by_byte = loss / math.log(2) * n / len(text.encode())
    inputs, targets = windows
    found = {"checkpoint": str(lm.path), "data": str(source), "split": o.split, "loss": loss,
             "perplexity": math.exp(min(loss, 709)),          # of 710, exp is more than a float can be
             "word_perplexity": math.exp(min(by_word, 709)), "bits_per_byte": by_byte, "tokens": n,
             "scored": int((targets >= 0).sum()), "windows": len(inputs), "window": T, "stride": stride}
    if asked.get("json"):
        print(json.dumps(found))
    else:
        print_table("what value", found.items())

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
    ms = median_ms(lambda: np.copyto(new, old), 500)
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

    train_ms = min(median_ms(lambda: step(False), 3000), median_ms(lambda: step(True), 3000))
    model.eval()
    start = ids[:1, :1]
    sample_ms = median_ms(lambda: model.generate(start, max_new_tokens=new, do_sample=True, top_k=0), 1000)
    return ids.numel() * 1e3 / train_ms, new * 1e3 / sample_ms

def train_for_seconds(folder, name, config, asked):
    "Trains a preset on made-up tokens, in a process of its own, and returns what that run says."
    letters = "".join(chr(2 ** 17 + i) for i in range(TYPICAL_VOCABULARY[config.level] - 1))
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
    sampled = new * 1e3 / median_ms(lambda: lm.sample(max_new_tokens=new), 1000)
    by_speed = sorted(run.rows, key=lambda row: row.speed)
    row = by_speed[len(by_speed) // 2]
    flops = row.speed * flops_per_token(lm.config)
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
    devices = machine()
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
    for name in [o.preset] if o.preset else presets:
        shape, config = expand(presets, name, gpt.recipe(presets, name)["level"], {})
        costs = cost(shape, config, here)
        if not o.preset and not costs["fits"]:
            needs = runs.size(costs["memory"])
            print(f"{name:12}  skipped: needs about {needs}, more than {here['name']} has", flush=True)
            continue
        try:
            print(form.format(*measure(name, config, asked, hf)), flush=True)
        except gpt.UserError:
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
        parser.add_knobs(PlanConfig.__doc__, gpt.knobs(PlanConfig))
        parser.add_knobs("what is trained", shared(*PLANNED))
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
        add_runs("a run's folder or a checkpoint [the newest run]")
        parser.add_knobs(EvalConfig.__doc__, gpt.knobs(EvalConfig))
        add_switch("rows", "WikiText's protocol: each row by itself, no blank ones, whole windows only")
        add_switch("json", "for programs")
        parser.add_knobs("where it computes", shared("device", "threads"))
    elif command == "bench":
        parser.add_knobs(BenchConfig.__doc__, gpt.knobs(BenchConfig) | shared("presets", "device"))

COMMANDS = {
    "presets": presets_command,
    "plan": plan_command,
    "runs": runs_command,
    "plot": plot_command,
    "eval": eval_command,
    "chat": chat_command,
    "serve": serve_command,
    "bench": bench_command,
    "export": export_command,
}
