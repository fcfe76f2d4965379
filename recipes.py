"""recipes.py: what a recipe costs, and which one fits. gpt.py, beside it, has the command line:

    python gpt.py presets                     the recipes: shape, weights, memory, whether they fit here
    python gpt.py plan --gpu h100 --gpus 8    on cards that are not here: memory, traffic, hours, cost

Both answer before torch could be imported. They see only the upper half of gpt.py, so what stands below its
`import torch` is named inside of functions.
"""
import contextlib
import glob
import json
import math
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np

import gpt
import runs

# ---- tables and stopwatches -------------------------------------------------------------------------------

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
    # the residual stream, twice, in 16 bits, and the others what the four products read; 2: dropout's masks.
    if device == "cpu":                                       # which also stores how tokens weigh each other
        block = 40 * m.n_embd + 6 * m.n_head * m.block_size
    else:
        block = (38 if t.dropout else 36) * m.n_embd
    blocks = m.n_layer * block
    if t.checkpoint_activations:                              # each block's input, and one block whole
        blocks = m.n_layer * 4 * m.n_embd + block
    # The logits in 16 bits, in 32 bits, as log-probabilities, and their gradient.
    token = blocks + 14 * m.vocab_size
    rows = min(t.micro_batch or t.batch_size, t.batch_size)
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

def expand(presets, name, level, asked, device, size=None):
    """-> ModelConfig, TrainConfig of a preset at a level, with what was asked for in the place of its values.
    device: what auto chooses for, by arithmetic; size: the bytes of the text, if they are known"""
    if "rule" in presets.get(name, {}):
        values = chosen(presets, {**asked, "level": level}, size, by_arithmetic(device)).values
    else:
        values = gpt.recipe(presets, name, level)
        if limits_in(asked, gpt.LIMITS):                      # as in training
            values = {**values, **dict.fromkeys(gpt.LIMITS, 0)}
    shape = gpt.fill(gpt.ModelConfig, {**values, **asked})
    config = gpt.fill(gpt.TrainConfig, {**values, **asked})
    shape.vocab_size = vocabulary(config)
    return shape, config

def limits_in(asked, names):
    "Those of these limits that are asked for. Zero is none."
    return [name for name in names if gpt.convert(gpt.KNOBS[name], asked.get(name) or 0)]

def vocabulary(config):
    "How many tokens there will be, about."
    own = config.vocab_size if config.level == "bpe" else 0
    return own or TYPICAL_VOCABULARY[config.level]

USUAL_MFU = 0.4                                               # of a GPU, where nothing else is known
CORE_SPEED = 60e9                                             # FLOP/s of a CPU's core in training, about
UNKNOWN_GPU = 5e12                                            # of a GPU in no table: a laptop's, Apple's

def usual_speed(device):
    "FLOP/s that go into a model in training, about; None for a device that is not known."
    if device["device"] == "cpu":
        return CORE_SPEED * (os.cpu_count() or 1)
    gpu = gpu_named(device["name"])
    return USUAL_MFU * 1e12 * gpu.tflops if gpu else None

def cost(shape, config, device):
    "What training takes, and whether a device has it. A device of unknown memory is taken to have it."
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
    size = bytes_of(asked["data"]) if "data" in asked else None
    found = {}
    table = []
    text = None
    for name in names:
        gpt.recipe(presets, name)                             # an error, if there is none
        own_level = only or level_of(presets, name, size)
        found[name] = {"about": "", "for": "", **presets[name], "level": own_level}
        for level in [only] if only else gpt.LEVELS:
            shape, config = expand(presets, name, level, asked, devices[0], size)
            if "data" in asked and "preset" in asked and level == own_level:  # each preset cuts it otherwise
                text = about_data(asked["data"], config)
                if not text.get("is_part", True):             # all of it was read: its vocabulary is known
                    shape.vocab_size = text["kinds"]
            costs = cost(shape, config, devices[0])
            expected = (presets[name].get(level) or {}).get("expect", "")
            found[name][level] = {**vars(shape), **vars(config), **costs, "expect": expected}
            if level == own_level:
                needs = [gpt.short(costs["memory"]) + "B"]
                if no_gpu:                                    # which would need less
                    needs.append(gpt.short(training_memory(shape, config, "cuda")) + "B")
                table.append([name, f"{shape.n_layer}/{shape.n_head}/{shape.n_embd}", shape.block_size, level,
                              gpt.short(costs["parameters"]), *needs, "yes" if costs["fits"] else "no",
                              found[name]["about"]])
    if asked.get("json"):
        fields = [*described(gpt.ModelConfig), *described(gpt.TrainConfig)]
        answer = {"presets": found, "fields": fields, "devices": devices}
        if text:
            answer["data"] = text
        print(json.dumps(answer))
    else:
        needs = "memory on-a-GPU" if no_gpu else "memory"
        print_table(f"preset layers/heads/width context level weights {needs} fits what", table)
        print(f"\nmemory: to train, about; fits: on {devices[0]['name']}. "
              "Next: python gpt.py train --preset laptop")

# ---- --preset auto: a text, minutes and a machine become a recipe -----------------------------------------

# Of a text, for one token, about. A vocabulary of one's own needs a text in which its pieces are frequent.
BYTES_A_TOKEN = {"word": 5.0, "bpe": 3.0}
COMPRESSED = set(gpt.PACKED) - {".jsonl", ".csv"}
OPTIMIZERS_PART = 0.15                                        # of a step
FOR_TRAINING = 0.85                                           # of the minutes; the rest: evaluations, samples
EVALUATIONS = 12
EVALUATING = 0.1                                              # of the time of training, for all of them

def auto(asked):
    """The values of --preset auto: how they follow from text, minutes and speed stands in presets.json. Said
    in one line. Processes that share a run must choose the same, so they go by arithmetic."""
    presets = gpt.load_presets(asked.get("presets"))
    gpt.expect(not asked.get("init_from"), "--preset auto chooses a shape, and --init_from has one: "
               "leave --preset out, or take finetune")
    processes = int(os.environ.get("WORLD_SIZE", 1))
    device = gpt.pick_device(asked.get("device") or "auto", int(os.environ.get("LOCAL_RANK", 0)))
    name = gpt.torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    if processes == 1 and not gpu_named(name):                # a CPU, Apple's, a card that is in no table
        speed, how = measured(device), ""
    else:
        cards = processes if device.type == "cuda" else 1     # processes on CPUs share the cores
        speed = by_arithmetic({"device": device.type, "name": name}, cards)
        how = "; speed by arithmetic"
    source = asked.get("data") or gpt.KNOBS["data"].default
    fixed = fixed_by_folder(Path(source))
    choice = chosen(presets, {**fixed, **asked}, bytes_of(source), speed, bytes_a_character(source))
    if os.environ.get("RANK", "0") == "0":
        print(choice.why + how, flush=True)
    return {**choice.values, **fixed}

def fixed_by_folder(folder):
    "The level and the vocabulary of a folder that data.py made. Any other text fixes nothing."
    with contextlib.suppress(OSError, *gpt.MALFORMED):
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        tokens = {"vocab_size": int(meta["vocab_size"])} if meta["level"] == "bpe" else {}
        return {"level": meta["level"], **tokens}
    return {}

def chosen(presets, asked, known_size, speed, a_character=1.0):
    """What the rule of --preset auto makes of a text, minutes, and the speed of a machine: the largest shape
    that has the time to learn, and the more dropout the more often it will read the text. -> .values, .why
    known_size: the bytes of the text, or None; a_character: bytes, which are three in Chinese"""
    preset = presets["auto"]
    rule = preset.get("rule")
    gpt.expect(rule, "preset auto has no rule to choose by: give a preset of your own another name")
    minutes = gpt.convert(gpt.KNOBS["max_minutes"], asked.get("max_minutes") or 0) or preset["max_minutes"]
    size = known_size or rule["unknown_size"]
    level = gpt.convert(gpt.KNOBS["level"], asked.get("level") or level_of(presets, "auto", known_size))
    values = gpt.recipe(presets, "auto", level)
    if level == "bpe" and gpt.beside("data.py"):              # which learns tokens of its own
        values |= row_of(rule["bpe"], size)

    held_out = gpt.fill(gpt.TrainConfig, {**values, **asked}).val_fraction
    a_token = a_character if level == "char" else BYTES_A_TOKEN[level]
    text = (1 - held_out) * size / a_token                    # tokens to learn from
    limits = {"max_minutes": minutes, "epochs": rule["passes"]}
    if limits_in(asked, ("max_iters", "epochs")):
        limits = dict.fromkeys(gpt.LIMITS, 0)                 # the end is chosen already
    values |= limits

    def allowed(m, t):
        "Tokens, by the limits of steps and passes."
        by_steps = t.max_iters * t.batch_size * m.block_size or math.inf
        by_passes = t.epochs * text or math.inf
        return min(by_steps, by_passes)

    def readable(m, t, tokens_per_s):
        "The same, in these minutes."
        return min(FOR_TRAINING * 60 * minutes * tokens_per_s, allowed(m, t))

    def teaching(m, t, tokens_per_s):
        "Of these, those that can teach a larger model more: from later passes it would learn by heart."
        return min(readable(m, t, tokens_per_s), rule["teaching_passes"] * text)

    shape, m, t, tokens_per_s = largest_shape(rule, values, asked, teaching, speed)
    tokens = readable(m, t, tokens_per_s) if t.max_minutes else allowed(m, t)
    gpt.expect(tokens < math.inf, f"no end in sight: give --{' or --'.join(gpt.LIMITS)}")
    steps = tokens / (t.batch_size * m.block_size)
    passes = tokens / text
    values |= {**shape, **row_of(rule["dropout"], passes)}
    values["eval_interval"] = max(10, round_down(steps / EVALUATIONS))
    # To evaluate a token of both splits costs 2/3 of training on one.
    between = tokens / EVALUATIONS
    values["eval_tokens"] = max(5000, round_down(EVALUATING * 3 / 2 * between))

    how_long = f"{gpt.short(size)}B of text" if known_size else "a text of unknown length"
    minutes_said = f"{minutes:g} minutes, " if t.max_minutes else ""
    dropout = asked.get("dropout", values["dropout"])
    why = (f"auto       {how_long}, {minutes_said}{gpt.short(tokens_per_s)} tokens/s: level {level}, "
           f"{m.n_layer} layers, {m.n_embd} wide, dropout {dropout}; "
           f"about {steps:,.0f} steps, {passes:.1f} times through the text")
    return SimpleNamespace(values=values, why=why)

def level_of(presets, name, size):
    "The level of a preset where none is asked for: auto's goes by the bytes of the text, if they are known."
    rule = presets.get(name, {}).get("rule")
    if rule:
        return row_of(rule["levels"], size or rule["unknown_size"])["level"]
    return gpt.recipe(presets, name)["level"]

def largest_shape(rule, values, asked, teaching, speed):
    """The last of the rule's shapes that has as many tokens to learn from as its row says, "from"
    -> its values, both configurations with what is asked for, and its speed"""
    shapes = rule["shapes"]
    if "n_embd" in asked:                                     # the rest fits the width that is asked for
        width = gpt.convert(gpt.KNOBS["n_embd"], asked["n_embd"])
        shapes = [min(shapes, key=lambda shape: abs(shape["n_embd"] - width))]
    if "n_head" in asked:
        heads = gpt.convert(gpt.KNOBS["n_head"], asked["n_head"])
        shapes = [shape for shape in shapes if heads and shape["n_embd"] % heads == 0] or shapes
    found = smaller = its_speed = None
    for row in shapes:
        shape = {name: value for name, value in row.items() if name != "from"}
        trial = {**values, **shape, **asked}
        m, t = gpt.fill(gpt.ModelConfig, trial), gpt.fill(gpt.TrainConfig, trial)
        m.vocab_size = vocabulary(t)
        if found:
            guess = its_speed * flops_per_token(smaller) / flops_per_token(m)
            if teaching(m, t, 10 * guess) < row["from"]:      # not worth trying, even where a GPU had little
                break                                         # to do with the smaller one
        tokens_per_s, threads = speed(m, t)
        if found and teaching(m, t, tokens_per_s) < row["from"]:
            break                                             # and larger ones are slower
        found = {**shape, "threads": threads}, m, t, tokens_per_s
        smaller, its_speed = m, tokens_per_s
    return found

def round_down(number):
    "387 -> 300: to one digit and zeros."
    unit = 10 ** int(math.log10(max(1, number)))
    return int(number / unit) * unit

def row_of(table, amount):
    "What a table says from so much on: of its rows the last that begins at no more."
    row = [row for row in table if row["from"] <= amount][-1]
    return {name: value for name, value in row.items() if name != "from"}

def by_arithmetic(device, cards=1):
    "-> a function: how many tokens a second devices train a shape on, about, and with how many threads."
    def speed(m, t):
        return cards * (usual_speed(device) or UNKNOWN_GPU) / flops_per_token(m), t.threads

    return speed

def measured(device):
    """-> the same, by trying: passes through a small batch; the optimizer has its usual part of a step. Where
    other programs use the cores, threads wait for each other, and one may be faster than all of them."""
    torch = gpt.torch

    def speed(m, t):
        dtype, threads, _ = gpt.choose_precision(t, device)
        model = gpt.GPT(m, t.dropout).to(device)
        ids = torch.randint(m.vocab_size, (min(8, t.batch_size), m.block_size), device=device)

        def forward_backward():
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                loss = model(ids, targets=ids)
            loss.backward()
            return loss.item()                                # which waits for a GPU

        choices = {threads}
        if device.type == "cpu":
            choices.add(t.threads or 1)
        found = []
        for n in choices:
            torch.set_num_threads(n)
            step_s = median_ms(forward_backward) / 1e3 / (1 - OPTIMIZERS_PART)  # with the optimizers
            found.append((ids.numel() / step_s, n))
        return max(found)

    return speed

def bytes_of(source):
    "Of the text that --data names, about; None where nobody knows before it is here."
    if source == "builtin":
        return len(gpt.read_text(source))
    with contextlib.suppress(OSError, gpt.UserError, *gpt.MALFORMED):
        if (Path(source) / "meta.json").exists():
            return bytes_of_folder(Path(source))
        size = 0
        for path in files_of(source):
            compressed = path.suffix.lower() in COMPRESSED
            size += path.stat().st_size * (3 if compressed else 1)
        if size:
            return size
        corpus = gpt.other_file("data").CORPORA[source]
        number, unit, packed = re.match(r"([\d.]+) (MB|GB)( zip)?", corpus.size).groups()
        return int(float(number) * {"MB": 1e6, "GB": 1e9}[unit] * (3 if packed else 1))
    return None

def bytes_of_folder(folder):
    "Of the text of a folder that data.py made."
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    return int(meta["train_bytes"]) + int(meta["val_bytes"])

def files_of(source):
    "The files here that --data names: a file, a pattern, or a folder's texts."
    path = Path(source)
    if os.path.isfile(path):                                  # Path's own raise for addresses of 256 signs
        return [path]
    if os.path.isdir(path):
        return [Path(name) for name in gpt.other_file("data").text_files(path)]
    return [Path(name) for name in sorted(glob.glob(source, recursive=True)) if os.path.isfile(name)]

def is_packed(path):
    "Whether data.py has to unpack it, going by its name."
    return path.suffix.lower() in gpt.PACKED

def is_plain_text(path):
    "Whether it is a file that is read as it stands."
    return os.path.isfile(path) and not is_packed(path)

def bytes_a_character(source):
    "Of the beginning of a text that is here; 1, as in English, where nobody knows."
    with contextlib.suppress(OSError, gpt.UserError):
        for path in files_of(source):
            if is_plain_text(path):
                with open(path, "rb") as file:
                    head = file.read(1 << 16)
                text = head.decode("utf-8-sig", errors="ignore")  # its last character may be cut
                if text:
                    return len(head) / len(text)
    return 1.0

# ---- plan: how long and how much, on machines that are not here --------------------------------------------

@dataclass
class PlanConfig:
    "the machines, and what they cost"
    gpu: str = gpt.knob("a100", "the card: b200, h200, h100, a100, v100, l40s, t4, rtx-4090 and so on")
    gpus: int = gpt.knob(8, "how many of them", "1 <= gpus <= 1e5")
    gpus_per_host: int = gpt.knob(8, "cards that share a host and its links", "gpus_per_host >= 1")
    network: float = gpt.knob(100.0, "of a host to the others, in Gbit/s", "1e-3 <= network <= 1e6")
    mfu: float = gpt.knob(USUAL_MFU, "the part of a card's peak that computes the model. Published: nanoGPT "
                          "0.29, llm.c 0.6 on A100s, llm.c and nanochat 0.5 on H100s", "0.001 <= mfu <= 1")
    price: float = gpt.knob(0.0, "of one card for an hour, in dollars; 0: unknown", "0 <= price <= 1e6")

PLANNED = ("preset", "presets", "level", "vocab_size", "batch_size", "micro_batch", "max_iters", "optimizer",
           "dropout", "checkpoint_activations")               # knobs of training on which a plan depends
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
    backward = 2 / 3                                          # of the time that a row takes
    if t.checkpoint_activations:                              # blocks go forward once more, on the way back
        row_s *= 4 / 3
        backward = 3 / 4
    compute_s = share * row_s

    # all_reduce in a ring: each number goes around twice, to be summed and to be told, and each time a card
    # sends all but its own part to the next one. The slowest link sets the pace.
    bandwidth = LINK_USED * 1e9 * gigabytes
    others = (gpus - 1) / gpus
    weights = count_parameters(m)
    sent = 2 * others * 4 * weights                           # bytes: gradients have 32 bits
    send_s = sent / bandwidth
    # It begins in the last micro-batch's backward pass, and hides behind that. But the embeddings' gradient
    # is complete at its very end: to send that, all wait.
    backward_s = backward * last_rows * row_s
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
    if hours >= 2:
        return f"{hours:.1f} hours"
    return f"{60 * hours:.1f} minutes" if hours >= 1 / 30 else f"{3600 * hours:.3g} s"

def plan_command(asked):
    "A training on machines that are not here: memory, speed, traffic, hours and money, by arithmetic."
    o = gpt.fill(PlanConfig, asked)
    gpu = card_asked_for(o.gpu)
    presets = gpt.load_presets(asked.get("presets"))
    name = asked.get("preset", "gpt2")
    level = gpt.convert(gpt.KNOBS["level"], asked.get("level") or level_of(presets, name, None))
    m, t = expand(presets, name, level, asked, {"device": "cuda", "name": gpu.name})
    gpt.expect(t.max_iters, f"a plan counts steps, and preset {name} does not end by steps: give --max_iters")
    hosts_full = o.gpus <= o.gpus_per_host or o.gpus % o.gpus_per_host == 0
    gpt.expect(hosts_full, f"--gpus {o.gpus} do not fill hosts of {o.gpus_per_host}: give --gpus_per_host")
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
    excess = needs - 0.95e9 * gpu.memory
    advice = ""
    if excess > 0:
        levers = []
        if p["micro_batch"] > 1:
            levers.append("a smaller --micro_batch")
        if p["memory"]["micro-batch"] > excess and not t.checkpoint_activations:
            levers.append("--checkpoint_activations true")
        levers.append("a larger card")
        advice = f" Too much: take {' or '.join(levers)}."
    say("memory", f"{needs / 1e9:.1f} GB on each card: {parts}.{advice}")
    say("compute", f"{flops_per_token(m) / 1e9:.3g} GFLOP a token. At {o.mfu:.0%} of its peak a card takes "
        f"{seconds_said(p['compute_s'])} a step for {p['rows']} of {t.batch_size} sequences, "
        f"{p['micro_batch']} at a time")
    if t.optimizer == "muon":
        alone_s = muon_flops(m) / (o.mfu * 1e12 * gpu.tflops)
        shared = f"; shared out, then gathered: {seconds_said(p['muon_s'])}" if o.gpus > 1 else ""
        say("Muon", f"{muon_flops(m) / 1e12:.3g} TFLOP a step, {seconds_said(alone_s)} on one card{shared}")
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
    places = [Path(source)]
    own_bpe = config.level == "bpe" and config.vocab_size
    as_it_stands = is_plain_text(Path(source)) and not own_bpe
    if gpt.beside("data.py") and not as_it_stands:
        data = gpt.other_file("data")
        options = gpt.fill(data.Options, vars(config))
        options.sources = [source]
        places.append(data.folder_of(options))                # where it would put this text
    for folder in places:
        if (folder / "meta.json").is_file():                  # data.py made it
            corpus = gpt.open_folder(folder, config.level)
            length = bytes_of_folder(folder)
            tokens = len(corpus.train) + len(corpus.val)
            return judged(corpus.tokenizer, corpus.train[:READ_TO_JUDGE], length, tokens, False)
    gpt.expect(not own_bpe, "its own BPE is learned when training begins")
    if source == "builtin":
        text = gpt.read_text(source)
        length = len(text.encode())
        is_part = False
    else:
        files = files_of(source)
        gpt.expect(files and files[0].is_file(), "it is not here yet: training begins with fetching it")
        gpt.expect(not is_packed(files[0]), "it is packed: it is read when training begins")
        length = sum(path.stat().st_size for path in files)
        with gpt.explain(f"{files[0]} can't be read", OSError):
            with open(files[0], encoding="utf-8-sig", errors="replace") as file:
                text = file.read(READ_TO_JUDGE)
                is_part = file.read(1) != "" or len(files) > 1
        gpt.expect(text.strip() and "\0" not in text, f"{files[0]} is empty, or no text")
    tokenizer = gpt.TOKENIZERS[config.level].train(text, config)
    ids = tokenizer.encode_to_numpy(text)
    read = len(text.encode())
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
