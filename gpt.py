# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "numpy", "tiktoken>=0.7", "rich>=13", "textual>=8"]
# ///
"""gpt.py: train a GPT-2 from scratch and talk to it, in one file that you can read in one sitting.

    python gpt.py train --preset nano --level word      a first model of words: about a minute on a laptop
    python gpt.py train --preset laptop --data my.txt   your own text, letter by letter: three minutes
    python gpt.py train --resume                        go on with the newest run, bit for bit
    torchrun --nproc_per_node=4 gpt.py train --preset gpt2 --data openwebtext           four GPUs, days
    python gpt.py sample --prompt "Holmes said"         the newest run continues your text
    python gpt.py chat                                  talk to it
    python gpt.py eval | runs | plot RUN RUN | presets | bench         what is it worth, what else is there

Every number has a flag: python gpt.py train --help. From Python: import gpt; gpt.train(preset="nano"); then
gpt.load().sample("Holmes said"). Pasted into a notebook cell, this file defines all that and runs nothing.

It reads in the order in which text flows: text -> tokenizer -> tokens -> batch -> model -> loss -> optimizer
-> checkpoint -> sampling -> text, then the loop that turns the wheel, and last the commands. A promise to its
reader: at most 1,450 lines up to the commands, 1,700 in all, of at most 110 columns, and nothing in them that
you could not explain after reading it once.
"""
import argparse, base64, codecs, contextlib, copy, ctypes, dataclasses, difflib, functools, itertools, json
import math, os, platform, queue, re, shutil, signal, subprocess, sys, tempfile, threading, time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, get_args
import numpy as np

IS_FILE = "__file__" in globals()                             # a notebook cell is not
HERE = Path(__file__).resolve().parent if IS_FILE else Path.cwd()

class Problem(Exception):                                     # a mistake in what was asked for: one line that
    status = 2                                                # says how to mend it
class Failure(Problem):                                       # it was asked for rightly, and went wrong
    status = 1

def expect(ok, message, kind=Problem):
    if not ok:
        raise kind(message)

@contextlib.contextmanager
def blame(what, *errors, kind=Problem):
    "Errors that a person can mend become a Problem."
    try:
        yield
    except errors as e:
        raise kind(f"{what}: {type(e).__name__}: {str(e).splitlines()[0]:.160}" if str(e) else what)

def nearest(word, known):
    close = difflib.get_close_matches(str(word), map(str, known), n=1)
    return f"did you mean {close[0]}?" if close else f"there is {', '.join(map(str, known))}"

def check_known(names, known, what="unknown option"):
    for name in names:
        expect(name in known, f"{what} {name}: {nearest(name, known)}")

def need(module, package=None):                               # for packages that only some people need
    with blame(f"pip install {package or module}", ImportError, kind=Failure):
        return import_module(module)

# ---- configuration: one line = one field = one flag = one line of --help -----------------------------------

def knob(default, help, rule="True"):
    "A field: why it is there, and the rule that its value must keep beside the other fields' values."
    return field(default=default, metadata={"help": help, "rule": rule})

@dataclass
class ModelConfig:
    "the shape of the network: what a checkpoint has to agree on"
    n_layer: int = knob(3, "blocks, one after another", "n_layer >= 1")
    n_head: int = knob(3, "attention heads, which share the width", "n_head >= 1 and n_embd % n_head == 0")
    n_embd: int = knob(48, "width: how many numbers describe a token on its way through", "n_embd >= 1")
    block_size: int = knob(128, "context: how many tokens the model looks back on", "block_size >= 1")
    bias: bool = knob(True, "biases in the linear and normalising layers, as GPT-2 has them")
    qkv_bias: bool = knob(True, "with --bias: also for queries, keys and values")
    vocab_size: int = 0                                       # no knob: the tokenizer decides it

@dataclass
class TrainConfig:
    "everything else that decides how a run goes"
    preset: str = knob("nano", "the recipe to start from: see python gpt.py presets")
    presets: str = knob("", "a JSON file with recipes of your own")
    level: Literal["char", "word", "bpe"] = knob("char", "what a token is: a character, a word, part of one")
    data: str = knob("sherlock", "a text file, a folder made by data.py, the name of a corpus, or builtin")
    vocab_size: int = knob(0, "bpe: learn so many; 0: GPT-2's own", "vocab_size == 0 or vocab_size >= 258")
    min_freq: int = knob(3, "word: rarer ones become <unk>", "min_freq >= 1")
    val_fraction: float = knob(0.1, "the part of a text, at its end, for validation", "0 < val_fraction < 1")
    out_dir: str = knob("", "the run's folder; empty: a new one, runs/PRESET-LEVEL")
    resume: str = knob("", "go on with a run: newest, its folder, or auto (if --out_dir has one already)")
    colab_drive: bool = knob(False, "keep runs on the mounted Google Drive, where they outlive the session")
    seed: int = knob(1337, "decides the first weights, the order of the text, and dropout", "seed >= 0")
    batch_size: int = knob(32, "sequences in an optimizer step, over all processes", "batch_size >= 1")
    micro_batch: int = knob(0, "so many at a time: trades memory for time; 0: all", "micro_batch >= 0")
    max_iters: int = knob(1000, "stop after so many steps; 0: no such limit", "max_iters >= 0")
    epochs: float = knob(0.0, "stop after so many passes over the text; 0: no such limit", "epochs >= 0")
    max_minutes: float = knob(0.0, "stop after so many minutes; 0: no such limit", "max_minutes >= 0")
    patience: int = knob(0, "stop after so many evaluations without a new best; 0: never", "patience >= 0")
    optimizer: Literal["muon", "adamw"] = knob("muon", "muon: for the blocks' matrices, AdamW for the rest")
    learning_rate: float = knob(4e-3, "AdamW's, at its peak", "learning_rate > 0")
    muon_lr: float = knob(0.03, "Muon's, at its peak", "muon_lr > 0")
    min_lr: float = knob(0.0, "where learning_rate ends; Muon's keeps step", "0 <= min_lr <= learning_rate")
    schedule: Literal["linear", "cosine"] = knob("linear", "the way down after the warmup")
    warmup_iters: int = knob(20, "steps in which the learning rates rise from zero", "warmup_iters >= 0")
    weight_decay: float = knob(0.1, "pulls matrices to zero; not embeddings and vectors", "weight_decay >= 0")
    beta1: float = knob(0.9, "AdamW's memory of gradients", "0 <= beta1 < 1")
    beta2: float = knob(0.99, "AdamW's memory of their squares", "0 <= beta2 < 1")
    momentum: float = knob(0.95, "Muon's memory of gradients", "0 <= momentum < 1")
    grad_clip: float = knob(1.0, "longest gradient that is let through whole; 0: any", "grad_clip >= 0")
    dropout: float = knob(0.1, "share of activations left out in training", "0 <= dropout < 1")
    eval_interval: int = knob(100, "steps between evaluations; each one saves", "eval_interval >= 1")
    eval_tokens: int = knob(1_000_000, "evaluate on no more tokens than these", "eval_tokens >= 1")
    log_interval: int = knob(10, "steps between two readings of loss and speed", "log_interval >= 1")
    sample_every: int = knob(0, "steps between samples; 0: one with each evaluation", "sample_every >= 0")
    sample_prompt: str = knob("", "what these samples start from")
    sample_tokens: int = knob(120, "how long they are", "sample_tokens >= 0")
    device: str = knob("auto", "cuda, cuda:1, mps or cpu; auto: the best there is")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = knob("auto", "precision of matrix products")
    compile: Literal["auto", "true", "false"] = knob("auto", "torch.compile; auto: on GPUs with triton")
    threads: int = knob(0, "CPU threads; 0: what measures fastest", "threads >= 0")
    tracker: Literal["none", "wandb", "trackio", "tensorboard"] = knob("none", "send the numbers there, too")

@dataclass
class SampleConfig:
    "how the next token is picked"
    max_new_tokens: int = knob(200, "stop after so many tokens", "max_new_tokens >= 0")
    temperature: float = knob(0.8, "0: always the likeliest; 1: as the model believes", "temperature >= 0")
    top_k: int = knob(0, "choose among the k likeliest; 0: among all", "top_k >= 0")
    top_p: float = knob(1.0, "choose among the likeliest that together have this share", "0 < top_p <= 1")
    min_p: float = knob(0.0, "leave out what has less than this share of the likeliest", "0 <= min_p <= 1")
    repetition_penalty: float = knob(1.0, "over 1: less of what was just said", "repetition_penalty > 0")
    repetition_window: int = knob(64, "how many tokens back that looks", "repetition_window >= 1")
    stop: tuple = knob((), "a text that ends the sample; may be given several times")
    num_samples: int = knob(1, "so many at once", "num_samples >= 1")
    probs: int = knob(0, "with each token, what else was likely: so many", "probs >= 0")
    seed: int = knob(1, "the same seed picks the same text", "seed >= 0")

@dataclass
class Options(TrainConfig):                                   # of which they use what COMMANDS names
    "what the other commands work on"
    prompt: str = knob("", "the text to go on from")
    prompt_file: str = knob("", "the file that has it; -: standard input")
    show_probs: bool = knob(False, "colour each token by its probability, and list what else was likely")
    preset: str = knob("", "only this one")
    data: str = knob("", "as in training; empty: what the run was trained on")
    split: Literal["val", "test"] = knob("val", "test: the folder's test.bin, or the whole of a text file")
    stride: int = knob(0, "tokens from a window to the next; 0: no overlap", "stride >= 0")
    rows: bool = knob(False, "WikiText's protocol: each row by itself, no blank ones, whole windows only")
    out: str = knob("loss.pdf", "a .pdf, .png or .svg")
    sort: str = knob("when", "the column to sort by")
    json: bool = knob(False, "for programs")
    jsonl: bool = knob(False, "for programs: a request a line in, a piece of the answer a line out")
    compile: bool = knob(False, "torch.compile: takes a minute, then less for each token on GPUs")
    against: Literal["none", "hf"] = knob("none", "hf: how many times as fast as Hugging Face's GPT-2")

def knobs(*configs):
    return {f.name: f for config in configs for f in dataclasses.fields(config) if f.metadata}

KNOBS = knobs(ModelConfig, TrainConfig)
LEVELS = get_args(KNOBS["level"].type)
LIMITS = {"max_iters": 0, "epochs": 0, "max_minutes": 0}

def convert(knob, value):
    "A flag's text, or a value from JSON or Python -> the type of its field."
    if knob.type is tuple:                                    # shells make it hard to type a line's end
        return tuple(str(v).replace("\\n", "\n") for v in ([value] if isinstance(value, str) else value))
    text, choices = str(value), ("true", "false") if knob.type is bool else get_args(knob.type)
    if choices:
        expect(text.lower() in choices, f"--{knob.name} {text}: {nearest(text, choices)}")
        return text.lower() == "true" if knob.type is bool else text.lower()
    with blame(f"--{knob.name} {text}: expected a{' whole' * (knob.type is int)} number", ValueError):
        return knob.type(text)

def fill(config_class, values):
    "A configuration out of a dict that may hold more. Its rules are kept, or the first broken one is told."
    fields = knobs(config_class)
    config = config_class(**{name: convert(f, values[name]) for name, f in fields.items() if name in values})
    for name, f in fields.items():
        rule, now = f.metadata["rule"], vars(config)
        others = "".join(f", and {k} is {now[k]}" for k in rule.split() if k in now and k != name)
        expect(eval(rule, {}, now), f"--{name} {now[name]}: needs {rule}{others}")
    return config

def load_presets(own=""):
    "The recipes by name: those of presets.json, which gpt.py may have been copied without, and a user's own."
    presets, shipped = {"nano": {"about": "the defaults of gpt.py"}}, HERE / "presets.json"
    for path in filter(None, (shipped.exists() and shipped, own)):
        with blame(f"presets in {path}", OSError, ValueError, TypeError):
            presets |= json.loads(Path(path).read_text(encoding="utf-8"))
    return presets

def recipe(presets, name, level=None):
    "All that a preset sets for a level: its own fields, then those of its part for the level."
    expect(isinstance(presets.get(name), dict), f"--preset {name}: {nearest(name, presets)}"
           + " (presets.json, which has more, is not beside gpt.py)" * (len(presets) == 1))
    values = {k: v for k, v in presets[name].items() if k not in ("about", "for", *LEVELS)}
    level = level or values.get("level", KNOBS["level"].default)
    values |= {**presets[name].get(level, {}), "level": level, "preset": name}
    values.pop("expect", None)                                # what it comes to, told by the TUI
    check_known(values, KNOBS, f"preset {name} has a field")
    return values

def configure(asked, saved=None):
    "-> ModelConfig, TrainConfig. What is asked for goes before the preset, or before the run that goes on."
    check_known(asked, KNOBS)
    name, level = asked.get("preset", "nano"), asked.get("level")
    base = saved or recipe(load_presets(asked.get("presets")), name, level)
    if LIMITS.keys() & asked.keys():                          # ten minutes are ten, whatever the preset has
        base = {**base, **LIMITS}
    model, config = (fill(c, {**base, **asked}) for c in (ModelConfig, TrainConfig))
    expect(any(getattr(config, name) for name in LIMITS), f"no end in sight: give --{' or --'.join(LIMITS)}")
    return model, config

# ---- what a recipe costs: arithmetic, so that `presets` answers before torch could be imported -------------

TYPICAL_VOCABULARY = {"char": 98, "word": 3300, "bpe": 50257}

def count_parameters(m):
    "The weights of a GPT-2 of this shape. The head is the embedding table again, so it counts once."
    block = 12 * m.n_embd ** 2 + (2 + m.bias * (8 + 3 * m.qkv_bias)) * m.n_embd
    return (m.vocab_size + m.block_size + 1 + m.bias) * m.n_embd + m.n_layer * block

def training_memory(m, t, device):
    "Bytes, about: what stays (weights, gradients, optimizer, 16-bit copies), and what a micro-batch leaves."
    weights, matrices = count_parameters(m), 12 * m.n_layer * m.n_embd ** 2
    scores = 6 * m.n_head * m.block_size if device == "cpu" else 0  # GPUs don't store these
    token = m.n_layer * (40 * m.n_embd + scores) + 14 * m.vocab_size
    stays = 18 * weights - 4 * matrices * (t.optimizer == "muon") + 3e8
    return int(stays + (t.micro_batch or t.batch_size) * m.block_size * token)

def machine():
    "The devices of this computer, the best one first."
    devices, memory = [], 0
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        ask = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
        for row in subprocess.run(ask, capture_output=True, text=True, check=True).stdout.splitlines():
            name, megabytes = row.split(",")
            devices.append({"device": "cuda", "name": name, "memory": int(megabytes) << 20})
    with contextlib.suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if sys.platform == "darwin" and platform.machine() == "arm64":
        devices.append({"device": "mps", "name": "Apple GPU", "memory": memory * 3 // 4})
    return devices + [{"device": "cpu", "name": f"CPU, {os.cpu_count()} cores", "memory": memory}]

def presets_command(asked):
    "The recipes as a table for people, or as JSON for programs: all of them, or one with changes."
    o, here, found, rows = fill(Options, asked), machine(), {}, []
    presets = load_presets(o.presets)
    every = {"preset": presets, "level": LEVELS}
    for name, level in itertools.product(*([asked[k]] if k in asked else every[k] for k in every)):
        m, t = (fill(c, {**recipe(presets, name, level), **asked}) for c in (ModelConfig, TrainConfig))
        m.vocab_size = t.vocab_size or TYPICAL_VOCABULARY[level]
        cost = {"parameters": count_parameters(m), "memory": training_memory(m, t, here[0]["device"])}
        cost["fits"] = cost["memory"] < 0.9 * (here[0]["memory"] or math.inf)
        about = {"about": "", "for": "", **presets[name], "level": recipe(presets, name)["level"]}
        expected = {"expect": presets[name].get(level, {}).get("expect", "")}
        found.setdefault(name, about)[level] = {**vars(m), **vars(t), **cost, **expected}
        if level == asked.get("level", about["level"]):
            shape, fits = f"{m.n_layer}/{m.n_head}/{m.n_embd}", "yes" if cost["fits"] else "no"
            rows.append([name, shape, m.block_size, level, short(cost["parameters"]),
                         short(cost["memory"]) + "B", fits, about["about"]])
    if o.json:
        fields = [{"name": f.name, "type": "choice" if get_args(f.type) else f.type.__name__, **f.metadata,
                   "choices": get_args(f.type), "default": f.default, "part": part.__name__}
                  for part in (ModelConfig, TrainConfig) for f in knobs(part).values()]
        return print(json.dumps({"presets": found, "fields": fields, "devices": here}))
    print_table("preset layers/heads/width context level weights memory fits what", rows)
    print(f"\nmemory: to train, about; fits: on {here[0]['name']}. Next: python gpt.py train --preset laptop")

def short(n):                                                 # 1234567 -> 1.23M
    unit = max(0, min(4, int(math.log10(max(abs(n), 1)) // 3)))
    return f"{n / 1000 ** unit:.3g}" + ["", "k", "M", "G", "T"][unit]

def clock(seconds):                                           # 3725 -> 1:02:05
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"

def print_table(header, rows):
    forms = {float: "{:.4f}", int: "{:,}", type(None): "-"}
    rows = [[forms.get(type(cell), "{}").format(cell) for cell in row] for row in [header.split(), *rows]]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())

# ---- the command line --------------------------------------------------------------------------------------

COMMANDS = {                                                  # what it does, its configurations and options
    "train": ("train a model, or go on with a run", (ModelConfig, TrainConfig), ""),
    "sample": ("let a trained model go on with a text", (SampleConfig,),
               "RUN prompt prompt_file show_probs device dtype threads compile"),
    "chat": ("talk to a trained model", (SampleConfig,), "RUN jsonl device dtype threads compile"),
    "eval": ("how well a model does on a text", (), "RUN data split stride rows json device threads"),
    "plot": ("draw the losses of runs", (), "RUN out"),
    "runs": ("what was trained here", (), "sort json"),
    "presets": ("the recipes: size, memory, does it fit", (ModelConfig, TrainConfig), "json"),
    "bench": ("tokens/s, use of the device and memory", (), "preset presets device against")}

SWITCHES = {f"--{name}" for name, f in knobs(Options).items() if f.type is bool}

class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Problem(message)

def add_flags(group, fields):
    "A flag for each field. A switch may stand alone."
    for name, f in fields.items():
        alone = {"resume": "newest", "compile": "true"}.get(name, "true" if f.type is bool else None)
        how = {"nargs": "?", "const": alone} if alone else {}
        how |= {"action": "append"} if f.type is tuple else {}
        group.add_argument(f"--{name}", help=f"{f.metadata['help']} [{f.default}]", default=argparse.SUPPRESS,
                           metavar="|".join(get_args(f.type)) or f.type.__name__.upper(), **how)

def underscored(words):                                       # --top-k is --top_k; its value is left alone
    return [re.sub("^--[^=]+", lambda flag: "--" + flag[0][2:].replace("-", "_"), word) for word in words]

def command_line(words):
    "-> the command and what was asked of it: as text, since types and rules are checked where they are used."
    if not words or words[0] in ("-h", "--help", "help"):
        print(__doc__, "Commands, each with its own --help:\n", sep="\n")
        raise SystemExit(print(*(f"    {name:10}{about[0]}" for name, about in COMMANDS.items()), sep="\n"))
    check_known(words[:1], COMMANDS, "unknown command")
    about, configs, options = COMMANDS[words[0]]
    usage = f"python gpt.py {words[0]} [--OPTION VALUE ...]"
    parser = Parser(usage=usage, description=about, allow_abbrev=False)
    if "RUN" in options:
        parser.add_argument("run", nargs="*", help="a run's folder or a checkpoint [the newest run]")
    for config in (*configs, Options):
        wanted = options.split() if config is Options else knobs(config)
        fields = {name: f for name, f in knobs(config).items() if name in wanted}
        add_flags(parser.add_argument_group(config.__doc__), fields)
    flags = underscored(words[1:])
    if "RUN" in options:                                      # --jsonl RUN: that is not its value
        flags = [flag + "=true" * (flag in SWITCHES) for flag in flags]
    asked, unknown = parser.parse_known_args(flags)
    check_known([word.split("=")[0] for word in unknown], parser._option_string_actions)
    return words[0], vars(asked)

@contextlib.contextmanager
def problems_told():
    "A Problem becomes a line and an exit status. Anything else is a bug and keeps its traceback."
    try:
        yield
    except Problem as problem:
        print(f"error: {problem}", file=sys.stderr)
        raise SystemExit(problem.status)
    except BrokenPipeError:                                   # `gpt.py ... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1)

if __name__ == "__main__" and IS_FILE:
    with problems_told():                                     # --help and `presets` are answered here, before
        COMMAND, ASKED = command_line(sys.argv[1:])           # torch takes its second to arrive
        if COMMAND == "presets":
            raise SystemExit(presets_command(ASKED))

# ---- text -> tokens: three ways to cut, one interface ------------------------------------------------------

class Tokenizer:
    """encode(text) -> ids; stream(ids) -> a piece of text for each id, as they come; decode(ids) joins them.
    state, which goes into meta.json and checkpoints, is all it takes to have the same tokenizer again."""
    lossless, unknown_id, end_id = True, None, None           # the ids: stands for no text; ends a document
    cut = staticmethod(list)
    def decode(self, ids):
        return "".join(self.stream(ids))
    def unknown(self, text):                                  # what in this text has no token
        return sorted({part for part, i in zip(self.cut(text), self.encode(text)) if i == self.unknown_id})

class CharTokenizer(Tokenizer):
    "A token is a character. Id 0 is for those that training never saw."
    unknown_id = 0
    def __init__(self, characters):
        self.state = {"level": "char", "characters": characters}
        self.characters, self.vocab_size = "\N{REPLACEMENT CHARACTER}" + characters, 1 + len(characters)
        self.table = np.zeros(0x110000, np.uint32)            # code point -> id
        self.table[[ord(c) for c in characters]] = np.arange(1, self.vocab_size)
        self.start_id = int(self.table[ord("\n")]) or 1       # what an empty prompt begins with
    @classmethod
    def train(cls, text, config):
        return cls("".join(sorted(set(text))))
    def encode(self, text):
        return self.table[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)]
    def stream(self, ids):
        return (self.characters[i] for i in ids)

class WordTokenizer(Tokenizer):
    """A token is a word or a mark. Case and spacing are left out, and put back when decoding; a word is
    kept in the spelling that it has most often, so that Holmes, London and I come out right."""
    lossless, unknown_id = False, 0
    # a blank line; 's; 1,000; a word, maybe with - or ' inside; ... and --; any other mark
    pattern = re.compile(r"\n\s*\n|(?<=\w)['’]s\b|\d+(?:[.,]\d+)+|[^\W_]+(?:(?:-|['’](?!s\b))[^\W_]+)*"
                         r"|\.\.\.|--|[^\w\s]|_")
    joins_left, joins_right, pairs = set("\n—.,;:!?)]}”’…%"), set("\n—([{“‘#$£"), {'"', "'", "_"}
    def __init__(self, words):
        self.state = {"level": "word", "words": words}
        self.words, self.vocab_size = words, len(words)
        self.ids = {word.lower(): i for i, word in enumerate(words)}
        self.start_id = self.ids.get("\n\n", min(1, self.vocab_size - 1))
    @classmethod
    def cut(cls, text):
        return [part if part.strip() else "\n\n" for part in cls.pattern.findall(text)]
    @classmethod
    def train(cls, text, config):
        return cls.from_counts(Counter(cls.cut(text)), config.min_freq)
    @classmethod
    def from_counts(cls, counts, min_freq):                   # how often each spelling stands in the text
        total, spelling = Counter(), {}
        for word, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            total[word.lower()] += n
            spelling.setdefault(word.lower(), word)           # the commonest one comes first
        kept = sorted((-n, word) for word, n in total.items() if n >= min_freq)
        return cls(["<unk>"] + [spelling[word] for _, word in kept])
    def encode(self, text):
        if '"' not in self.ids:  # the book prints “ ” and ’, people type " and '
            text = re.sub(r'(^|\s)"', r"\1“", text).replace('"', "”")
        if "'" not in self.ids:
            text = text.replace("'", "’")
        return np.array([self.ids.get(word.lower(), 0) for word in self.cut(text)], np.uint32)
    def stream(self, ids):
        before, capital, inside = "\n\n", True, set()         # a sentence begins, outside of any quotes
        for word in (self.words[i] for i in ids):
            closes = word in inside
            joins = (closes or before in inside or "--" in (word, before) or word[0] in self.joins_left
                     or before[-1] in self.joins_right or word == "'s")
            inside = set() if word == "\n\n" else inside ^ ({word} & self.pairs)
            text = word[0].upper() + word[1:] if capital else word
            capital = capital and not word[0].isalpha() or word in (".", "!", "?", "\n\n", "“") or (
                word == '"' and not closes)
            before = word
            yield text if joins else " " + text

class BPETokenizer(Tokenizer):
    "A token is a frequent run of bytes: GPT-2's 50,257, or as many as data.py trained. tokens: in base64."
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    def __init__(self, tokens, name="own"):
        self.state = {"level": "bpe", "name": name, "tokens": tokens}
        ranks = {base64.b64decode(token): i for i, token in enumerate(tokens.split())}
        self.start_id, self.end_id, self.vocab_size = len(ranks), len(ranks), len(ranks) + 1
        self.bpe = need("tiktoken").Encoding(name, pat_str=self.pattern, mergeable_ranks=ranks,
                                             special_tokens={"<|endoftext|>": self.end_id})
    @classmethod
    def train(cls, text, config):                             # data.py trains others
        with blame("GPT-2's tokens can't be downloaded; without network train your own, with --level bpe "
                   "--vocab_size 4096", OSError, ValueError, kind=Failure):
            ranks = need("tiktoken").get_encoding("gpt2")._mergeable_ranks
        return cls(" ".join(base64.b64encode(t).decode() for t in sorted(ranks, key=ranks.get)), "gpt2")
    def encode(self, text):
        return np.array(self.bpe.encode_ordinary(text), np.uint32)
    def stream(self, ids):
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")  # a character may span tokens: wait
        for i in ids:
            yield utf8.decode(self.bpe.decode_single_token_bytes(int(i)))
        yield utf8.decode(b"", final=True)

TOKENIZERS = {"char": CharTokenizer, "word": WordTokenizer, "bpe": BPETokenizer}

def load_tokenizer(state):
    return TOKENIZERS[state["level"]](**{k: v for k, v in state.items() if k != "level"})

# ---- the corpus: tokens to train on and tokens to validate on ----------------------------------------------

def read_text(source):
    "A text file, whole. builtin: English that every Python brings along, its own manual."
    if source == "builtin":
        topics = need("pydoc_data.topics", "nothing; this Python lacks its manual").topics
        return "\n\n".join(topics[name] for name in sorted(topics))
    with blame(f"--data {source} can't be read", OSError, UnicodeDecodeError):  # which knows the offset
        text = Path(source).read_text(encoding="utf-8-sig")
    expect("\0" not in text, f"--data {source} is not text: at offset {text.find(chr(0)):,} is a zero byte")
    expect(text.strip(), f"--data {source} is empty: there is nothing to learn from")
    return text

def corpus_folder(config):                                    # where data.py puts the tokens of config.data
    variant = {"word": config.min_freq if config.min_freq != 3 else "", "bpe": config.vocab_size or ""}
    name = re.sub(r"[^\w.-]", "_", Path(config.data.split("*")[0]).stem) or "text"  # of dir/*.txt: dir
    return Path("data") / f"{name}-{config.level}{variant.get(config.level, '')}"

def prepare(config, named):
    """-> a folder of tokens, a text file, or builtin. Whatever is not plain text, or too much for one gulp,
    goes through the command that a person would type. Who named none, and can't have it, gets builtin."""
    path, folder, maker = Path(config.data), corpus_folder(config), HERE / "data.py"
    packed = (".jsonl", ".csv", ".parquet", ".gz", ".zst", ".bz2", ".xz", ".zip")
    plain = path.is_file() and path.stat().st_size < 1 << 27 and path.suffix not in packed
    own_bpe = config.level == "bpe" and config.vocab_size > 0
    if (path / "meta.json").exists() or (plain or config.data == "builtin") and not own_bpe:
        return config.data
    ready, trouble = (folder / "meta.json").exists(), "is no text, and data.py, which knows more, is not here"
    if maker.exists():
        settings = [f"--{k}={vars(config)[k]}" for k in ("level", "val_fraction", "min_freq", "vocab_size")]
        make = [sys.executable, str(maker), config.data, *settings]
        trouble = "could not be prepared by data.py"
        quiet = {"stdout": subprocess.DEVNULL} | ({} if named else {"stderr": subprocess.DEVNULL})
        ready = subprocess.call(make, **quiet) == 0
    if ready:
        return str(folder)
    expect(not named, f"--data {config.data} {trouble}; --data builtin always works", Failure)
    note = f"note: {config.data} {trouble}: training on --data builtin, Python's manual"
    print(f"\033[1;33m{note}\033[0m" if sys.stdout.isatty() else note, flush=True)
    return "builtin"

def open_corpus(source, config, block_size):
    "-> .tokenizer, .train and .val (ids; those of a folder stay on disk until they are read), .val_bytes"
    folder = Path(source)
    if not folder.is_dir():
        text = read_text(source)
        cut = int((1 - config.val_fraction) * len(text))
        tokenizer, parts = TOKENIZERS[config.level].train(text, config), (text[:cut], text[cut:])
        splits, val_bytes = [tokenizer.encode(part) for part in parts], len(parts[1].encode())
    else:
        with blame(f"{folder} is not a folder that data.py made", OSError, ValueError, KeyError, TypeError):
            meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
            tokenizer, dtype = load_tokenizer(meta["tokenizer"]), np.dtype(meta["dtype"]).newbyteorder("<")
            splits = [np.memmap(folder / f"{name}.bin", dtype, "r") for name in ("train", "val")]
            sizes, val_bytes = [meta["train_tokens"], meta["val_tokens"]], meta["val_bytes"]
        expect(sizes == [len(ids) for ids in splits], f"{folder}: a .bin was cut short; prepare it again")
        expect(meta["level"] == config.level, f"{folder} needs --level {meta['level']}")
    few = len(splits[0]) - 1
    expect(few >= block_size, f"{source} has {few + 1:,} tokens to train on: --block_size {few} would fit")
    expect(len(splits[1]) > 1, f"{source} has only {len(splits[1])} tokens for validation: give more text")
    for ids in splits:                                        # an id from nowhere would crash a GPU later on
        top = max(int(ids[i:i + (1 << 24)].max()) for i in range(0, len(ids), 1 << 24))
        expect(top < tokenizer.vocab_size, f"{source}: token {top} is outside of its {tokenizer.vocab_size}")
    return SimpleNamespace(tokenizer=tokenizer, train=splits[0], val=splits[1], val_bytes=val_bytes)

# ---- tokens -> batches: a pure function of (seed, step) ----------------------------------------------------

try:
    import torch                                              # takes a second or more: not needed until here
    import torch.distributed as dist
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError as e:
    raise SystemExit(f"error: {e}: pip install torch")

class Batches:
    """The text, bent to a ring, is cut into windows of block_size tokens, in each epoch from another place,
    and handed out in a new order. So in an epoch each token is a target once (but for a rest shorter than a
    window), and a step's number alone says what it gets: a run that goes on needs no memory of its data."""
    def __init__(self, tokens, block_size, batch_size, seed, device):
        self.block_size, self.batch_size, self.seed, self.device = block_size, batch_size, seed, device
        self.windows = len(tokens) // block_size              # in an epoch
        resident = device.type != "cpu" and len(tokens) < 1 << 28  # small corpora live on the device
        self.tokens = torch.from_numpy(tokens.astype(np.int32)).to(device) if resident else tokens
        self.order = functools.lru_cache(maxsize=2)(self.order)  # a batch can span two epochs
    def order(self, epoch):                                   # where its windows start, one after the other
        rng = np.random.default_rng((self.seed, epoch))
        return rng.integers(len(self.tokens)) + self.block_size * rng.permutation(self.windows)
    def __call__(self, step, first, last):
        "Rows first..last of the step's batch -> inputs and targets, (rows, block_size) each."
        epoch, place = np.divmod(step * self.batch_size + np.arange(first, last), self.windows)
        starts = np.concatenate([self.order(int(e))[place[epoch == e]] for e in np.unique(epoch)])
        where = (starts[:, None] + np.arange(self.block_size + 1)) % len(self.tokens)
        if isinstance(self.tokens, torch.Tensor):
            rows = self.tokens[to_device(torch.from_numpy(where), self.device)].long()
        else:
            rows = to_device(torch.from_numpy(self.tokens[where].astype(np.int64)), self.device)
        return rows[:, :-1], rows[:, 1:]

def to_device(tensor, device):                                # from pinned memory, so that nobody has to wait
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)

def fixed_windows(tokens, block_size, stride=0):
    """A split, window by window -> inputs and targets. Each token but the first is a target once: in windows
    that overlap, those of the window before are -100, and so is what fills up the last window."""
    T, stride = block_size, stride or block_size
    starts = np.arange(0, max(1, len(tokens) - 1 - T + stride), stride)[:, None]
    padded = np.append(tokens.astype(np.int64), np.full(T + stride, -100))
    y = padded[starts + 1 + np.arange(T)]
    y[1:, :max(0, T - stride)] = -100
    return torch.from_numpy(padded[starts + np.arange(T)].clip(0)), torch.from_numpy(y)

# ---- the model: GPT-2, its parts named as OpenAI and Hugging Face name them --------------------------------

# These call their forward directly, without torch's look for hooks: a small model samples a tenth faster.

class LayerNorm(nn.LayerNorm):
    def forward(self, x):
        return torch.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
    __call__ = forward

class Linear(nn.Module):
    "y = x W + b. W is (in, out), as GPT-2 stores it: weights travel to and from Hugging Face as they are."
    def __init__(self, n_in, n_out, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_in, n_out) * 0.02)
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None
    def forward(self, x):                                     # (rows, in) -> (rows, out)
        return x @ self.weight if self.bias is None else torch.addmm(self.bias, x, self.weight)
    __call__ = forward

def dropout(x, p):
    "Leaves out each number with probability p, and scales up the others to make good for it."
    if p == 0 or x.device.type != "cpu":
        return F.dropout(x, p) if p else x
    # On CPUs F.dropout draws a number for each element, one after the other. A draw of 64 bits is enough for
    # four: the mask is as random, comes 6 times faster, and a small model trains twice as fast.
    bits = torch.empty(x.numel() // 4 + 1, dtype=torch.int64).random_(-2 ** 63, None).view(torch.int16)
    keep = bits[:x.numel()].view(x.shape).ge_(round(p * 65536) - 32768)
    return x * keep.to(x.dtype).div_(1 - p)

def attend(q, k, v, mask, p):
    """Each query weighs the keys by likeness and takes the mean of their values. q is (B, H, T, D), k and v
    are (B, H, S, D); mask is very negative where a query may not look; None: it looks left, not right."""
    B, H, T, D = q.shape
    if q.device.type != "cpu" or not torch.is_grad_enabled():
        causal = mask is None and not T == 1                  # (torch.compile can't pass T > 1 on)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p, is_causal=causal)
    # By hand: in bfloat16, torch's own kernel trains four times as slowly on CPUs.
    q, k, v = (part.reshape(B * H, T, D) for part in (q, k, v))
    future = q.new_full((T, T), -1e4).triu(1)
    weights = torch.baddbmm(future, q, k.mT, alpha=D ** -0.5).softmax(-1)  # (B*H, T, T)
    return (dropout(weights, p) @ v).view(B, H, T, D)

class Block(nn.Module):
    "Tokens tell each other what they know (attention), then each thinks (MLP). Both add to what is there."
    def __init__(self, c):
        super().__init__()
        C, self.n_head = c.n_embd, c.n_head
        self.ln_1, self.ln_2 = LayerNorm(C, bias=c.bias), LayerNorm(C, bias=c.bias)
        self.attn = nn.ModuleDict({"c_attn": Linear(C, 3 * C, c.bias and c.qkv_bias),
                                   "c_proj": Linear(C, C, c.bias)})
        self.mlp = nn.ModuleDict({"c_fc": Linear(C, 4 * C, c.bias), "c_proj": Linear(4 * C, C, c.bias)})
    def forward(self, x, B, mask, p, *memory):                # (B*T, C) -> the same
        x = x + dropout(self.attention(self.ln_1(x), B, mask, p, *memory), p)
        thought = F.gelu(self.mlp.c_fc(self.ln_2(x)), approximate="tanh")
        return x + dropout(self.mlp.c_proj(thought), p)
    __call__ = forward
    def attention(self, x, B, mask, p, memory=None, past=0):
        T, C = len(x) // B, x.size(1)
        qkv = self.attn.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head).transpose(1, 3)
        q, k, v = qkv.unbind(2)                               # (B, H, T, D) each
        if memory is not None:                                # of the tokens that were read before
            memory.narrow(3, past, T).copy_(qkv.narrow(2, 1, 2))
            k, v = memory.narrow(3, 0, past + T).unbind(2)    # (B, H, S, D) each
        y = attend(q, k, v, mask, p)
        return self.attn.c_proj(y.transpose(1, 2).reshape(B * T, C))  # the heads side by side again

class GPT(nn.Module):
    def __init__(self, config, dropout=0.0):
        super().__init__()
        c, self.config, self.dropout = config, config, dropout
        self.wte = nn.Embedding(c.vocab_size, c.n_embd)       # tokens, at both ends of the model
        self.wpe = nn.Embedding(c.block_size, c.n_embd)       # positions
        self.h = nn.ModuleList(Block(c) for _ in range(c.n_layer))
        self.ln_f = LayerNorm(c.n_embd, bias=c.bias)
        for table in (self.wte, self.wpe):
            nn.init.normal_(table.weight, std=0.02)
        for block in self.h:                                  # 2 n_layer of these add up in what passes by
            for last in (block.attn.c_proj, block.mlp.c_proj):
                last.weight.data.mul_((2 * c.n_layer) ** -0.5)
    def forward(self, ids, cache=None):
        """(B, T) token ids -> (B, T, vocab_size) logits: after each of the T, how likely is each token next?
        With a cache the ids go on from those read before -> (B, vocab_size), after the last one only."""
        (B, T), p = ids.shape, self.dropout if self.training else 0.0
        past, mask = (cache.length, cache.mask(T)) if cache else (0, None)
        where = self.wpe.weight[past:past + T] if mask is None else self.wpe(cache.positions(T))
        x = dropout(self.wte(ids) + where, p).flatten(0, 1)   # (B*T, C): only attention needs to know of rows
        for i, block in enumerate(self.h):
            x = block(x, B, mask, p, cache.memory[i], past) if cache else block(x, B, mask, p)
        if cache:
            cache.length, x = past + T, x[T - 1::T]
        x, table = self.ln_f(x), self.wte.weight              # how like each token's embedding is it?
        if x.device.type == "cuda":                           # is faster in multiples of 64
            logits = F.linear(x, F.pad(table, (0, 0, 0, -len(table) % 64)))[:, :len(table)]
        else:
            logits = F.linear(x, table)
        return logits if cache else logits.view(B, T, -1)

def loss_of(logits, targets, reduction="mean"):
    "Cross-entropy: how surprised the model was by what came, in nats a token."
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction=reduction)

# ---- the optimizer -----------------------------------------------------------------------------------------

class Muon(torch.optim.Optimizer):
    """Momentum, but each matrix moves by an orthogonal step: in all directions equally far, also where the
    gradient says little. Unlike torch.optim.Muon it takes q, k and v for the three matrices they are, and
    sends all matrices of one shape through the iteration together."""
    def __init__(self, groups, lr, momentum, weight_decay, dtype):
        super().__init__(groups, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))
        self.dtype = dtype

    @torch.no_grad()
    def step(self):
        go = 1 - self.found_inf                               # 0: this step is to leave no trace
        for group in self.param_groups:
            parts, pushes = group["parts"], []
            for w in group["params"]:
                if w not in self.state:
                    self.state[w]["momentum"] = torch.zeros_like(w)
                memory = self.state[w]["momentum"]
                gradient = torch.where(go > 0, w.grad, memory)
                memory.lerp_(gradient, 1 - group["momentum"])
                push = gradient.lerp(memory, group["momentum"])  # Nesterov: where the memory is going
                pushes.append(push.unflatten(1, (parts, -1)).transpose(0, 1))  # (parts, in, out)
            n_in, n_out = pushes[0].shape[1:]
            pushes = orthogonal(torch.cat(pushes).to(self.dtype)).unflatten(0, (-1, parts))
            scale = go * group["lr"] * max(1, n_out / n_in) ** 0.5
            for w, push in zip(group["params"], pushes):
                w.mul_(1 - go * group["lr"] * group["weight_decay"])
                w.sub_(scale * push.transpose(0, 1).reshape(w.shape))

def orthogonal(m):
    "Newton-Schulz: five rounds that bring all singular values of a stack of matrices near 1, by products."
    tall = m.size(-2) > m.size(-1)
    m = m.mT if tall else m
    m = m / (m.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = m @ m.mT
        m = 3.4445 * m + (2.0315 * square @ square - 4.7750 * square) @ m
    return m.mT if tall else m

def make_optimizers(model, c, dtype):
    "Every parameter in one group of one optimizer; weight decay for the blocks' matrices alone."
    matrices = {name: w for name, w in model.named_parameters() if name.startswith("h.") and w.ndim == 2}
    others = [w for name, w in model.named_parameters() if name not in matrices]
    adamw = functools.partial(torch.optim.AdamW, lr=c.learning_rate, betas=(c.beta1, c.beta2), fused=True,
                              weight_decay=c.weight_decay)
    if c.optimizer == "adamw":
        return [adamw([{"params": others, "weight_decay": 0.0}, {"params": list(matrices.values())}])]
    shapes = defaultdict(list)
    for name, w in matrices.items():
        shapes[3 if "c_attn" in name else 1, w.shape].append(w)
    groups = [{"params": ws, "parts": parts} for (parts, _), ws in shapes.items()]
    return [Muon(groups, c.muon_lr, c.momentum, c.weight_decay, dtype), adamw(others, weight_decay=0.0)]

# ---- checkpoints: one file that needs nothing but gpt.py ---------------------------------------------------

VERSION = 1

def save_checkpoint(path, checkpoint):
    "Written aside, flushed to disk, renamed: whatever happens, a whole file stands under the name."
    aside = path.with_name(path.name + ".tmp")
    try:
        with open(aside, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)

def load_checkpoint(path):
    "weights_only: a stranger's file may hold numbers and names, but can run no code."
    with blame(f"{path} is no checkpoint of gpt.py, or a part of one", Exception):
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        version = checkpoint["version"]
    expect(version <= VERSION, f"{path} has format {version}, this gpt.py reads {VERSION}: get a newer one")
    return checkpoint

def runs_root(colab_drive=False):
    drive = Path("/content/drive/MyDrive")
    expect(not colab_drive or drive.is_dir(), "--colab_drive: Drive is not mounted. Paste into a cell:\n"
           "from google.colab import drive\ndrive.mount('/content/drive')")
    return drive / "gpt-runs" if colab_drive else Path("runs")

def find_checkpoint(run="", names=("best.pt", "latest.pt"), root=Path("runs")):
    "A run's folder, a checkpoint, or nothing for the newest run -> the path of a checkpoint."
    if run and Path(run).is_file():
        return Path(run)
    runs = sorted(root.glob("*/"), key=lambda folder: folder.stat().st_mtime, reverse=True)
    expect(not run or Path(run).is_dir(), f"{run}: no such run; {nearest(run, runs or ['none yet'])}")
    for path in (folder / name for folder in ([Path(run)] if run else runs) for name in names):
        if path.exists():
            return path
    raise Problem(f"no checkpoint in {run or root}: train one with  python gpt.py train --preset nano")

# ---- sampling: tokens -> text ------------------------------------------------------------------------------

class Cache:
    "What the blocks remember of what they read. Shorter rows are padded at the left, and nobody looks there."
    def __init__(self, model, lengths):
        c, like, self.length = model.config, model.wte.weight, 0
        room = (len(lengths), c.n_head, 2, c.block_size, c.n_embd // c.n_head)  # 2: keys and values
        self.memory = [like.new_zeros(room) for _ in model.h]
        self.missing = (max(lengths) - torch.tensor(lengths, device=like.device))[:, None]  # (B, 1)
        self.padded, self.dtype = min(lengths) < max(lengths), like.dtype
    def positions(self, T):                                   # of the T tokens to come, in their rows: (B, T)
        at = torch.arange(self.length, self.length + T, device=self.missing.device)
        return (at - self.missing).clamp(min=0)
    def mask(self, T):                                        # (B, 1, T, S): where they may not look
        if not self.padded and (T == 1 or self.length == 0):
            return None
        here = torch.arange(self.length + T, device=self.missing.device)
        hidden = (here < self.missing)[:, None, None] | (here > here[self.length:, None])
        return hidden.to(self.dtype) * -1e4

def pick(logits, seen, o, generator):
    "(B, vocab_size) logits, (B, window) ids that were just said -> (B,) ids of what comes next."
    if seen is not None:
        said = logits.gather(1, seen)                         # away from what was said, whatever its sign
        said = torch.where(said > 0, said / o.repetition_penalty, said * o.repetition_penalty)
        logits = logits.scatter(1, seen, said)
    if o.temperature == 0:
        return logits.argmax(-1)
    logits = logits / o.temperature
    if o.top_k:
        least = logits.topk(min(o.top_k, logits.size(-1))).values[:, -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    probs = logits.softmax(-1)
    if o.min_p:
        probs = probs.masked_fill(probs < o.min_p * probs.amax(-1, keepdim=True), 0)
    if o.top_p < 1:                                           # one stays if those before it are not enough
        likely, order = probs.sort(descending=True)
        enough = likely.cumsum(-1) - likely >= o.top_p * likely.sum(-1, keepdim=True)
        probs = torch.zeros_like(probs).scatter(1, order, likely.masked_fill(enough, 0))
    return torch.multinomial(probs, 1, generator=generator)[:, 0]

@torch.inference_mode()
def generate(lm, prompts, o):
    """Lists of ids -> for each new token (B,) ids, the logits they come from, and how full the context is.
    Close the generator to stop. Who fills the context has its second half read anew: a cost that, shared
    among the tokens in between, stays small and the same. Many rows seldom wait for a GPU."""
    T, device, W = lm.config.block_size, lm.device, o.repetition_window
    generator = torch.Generator(device).manual_seed(o.seed)
    rows, new, cache, end, over = [row[-T:] for row in prompts], [], None, lm.tokenizer.end_id, 0
    seen = [([row[-1]] * W + row)[-W:] for row in prompts] if o.repetition_penalty != 1 else None
    seen = seen and torch.tensor(seen, device=device)
    for _ in range(o.max_new_tokens):
        if cache is None or cache.length == T:
            rows = [row + more for row, more in zip(rows, torch.stack(new, 1).tolist())] if new else rows
            rows, new = [row if len(row) <= T else row[-max(1, T // 2):] for row in rows], []
            cache = Cache(lm.model, [len(row) for row in rows])
            longest = max(map(len, rows))
            ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=device)
        logits = lm.model(ids, cache).float()
        if lm.tokenizer.unknown_id is not None:
            logits[:, lm.tokenizer.unknown_id] = -math.inf    # it stands for no text
        new.append(pick(logits, seen, o, generator))
        over = over | (new[-1] == end)
        if end is not None and (len(rows) == 1 or len(new) % 16 == 0) and over.all():
            return                                            # each row has come to the end of its text
        yield new[-1], logits, cache.length
        ids = new[-1][:, None]
        seen = torch.cat([seen[:, 1:], ids], 1) if seen is not None else None

def until(pieces, stops):
    "The pieces before a stop text. What may be the beginning of one is held back until that is sure."
    held, text = [], ""
    for piece in pieces:
        held.append(piece)
        text += piece
        ends = [text.find(stop) for stop in stops if stop in text]
        begun = max((n for s in stops for n in range(1, len(s)) if text.endswith(s[:n])), default=0)
        sure = min(ends) if ends else len(text) - begun
        while held and len(held[0]) <= sure:
            sure, text = sure - len(held[0]), text[len(held[0]):]
            yield held.pop(0)
        if ends:
            cut = Piece(text[:sure])                          # the beginning of a piece
            vars(cut).update(getattr(held[0], "__dict__", {}))
            yield cut
            return "stop"
    yield from held

class Piece(str):
    "The text of a token, with .prob, which the model gave it, and .alternatives, if --probs asks for them."

class LM:
    "A trained model with its tokenizer."
    def __init__(self, model, tokenizer):
        self.model, self.tokenizer, self.config = model, tokenizer, model.config
        self.device = model.wte.weight.device
    def encode(self, prompt):
        return self.tokenizer.encode(prompt).tolist() or [self.tokenizer.start_id]
    def after(self, ids, new):  # what a token reads like depends on those before
        return itertools.islice(self.tokenizer.stream(itertools.chain(ids, new)), len(ids), None)
    def believed(self, before, picked, logits, n):
        "-> how likely the picked token was, and the n likeliest: as they would read after the one before."
        probs = logits[0].softmax(-1)
        best = zip(*(part.tolist() for part in probs.topk(min(n, len(probs)))))
        return float(probs[picked]), [[next(self.after([before], [i])), share] for share, i in best]
    def stream(self, prompt="", **options):
        "Text that goes on from the prompt, piece by piece. How it went is in .report afterwards."
        check_known(options, knobs(SampleConfig))
        o, ids, begun, belief = fill(SampleConfig, options), self.encode(prompt), time.perf_counter(), ()
        r = self.report = SimpleNamespace(reason="cancelled", tokens=0, first_s=0.0, tokens_per_s=0.0,
                                          context_used=min(len(ids), self.config.block_size))
        def new_ids():
            nonlocal belief
            last = ids[-1]
            for picked, logits, r.context_used in generate(self, [ids], o):
                picked = int(picked)
                belief, last = o.probs and self.believed(last, picked, logits, o.probs), picked
                now, r.tokens = time.perf_counter() - begun, r.tokens + 1
                r.first_s, r.tokens_per_s = r.first_s or now, r.tokens / now
                yield picked
        def pieces():
            for piece in map(Piece, self.after(ids, new_ids())):
                piece.prob, piece.alternatives = belief or (None, ())
                yield piece
        stopped = yield from until(pieces(), o.stop)
        r.reason = stopped or ("length" if r.tokens == o.max_new_tokens else "end")
    def sample(self, prompt="", **options):
        "The same as one text; with num_samples a list of so many, made side by side."
        check_known(options, knobs(SampleConfig))
        o, ids = fill(SampleConfig, options), self.encode(prompt)
        if o.num_samples == 1:
            return "".join(self.stream(prompt, **options))
        steps = [picked for picked, *_ in generate(self, [ids] * o.num_samples, o)]
        rows = torch.stack(steps, 1).tolist() if steps else [[]] * o.num_samples
        rows = (itertools.takewhile(lambda i: i != self.tokenizer.end_id, row) for row in rows)
        return ["".join(until(self.after(ids, row), o.stop)) for row in rows]

def load(run="", device="auto", dtype="float32", threads=0, compile=False, rows=1):
    """A run's folder, a checkpoint, or nothing for the newest run -> an LM. With dtype="auto" it computes in
    the precision that samples so many rows fastest here, and tells why in .precision."""
    path = find_checkpoint(run)
    checkpoint = load_checkpoint(path)
    with blame(f"{path} is no checkpoint of gpt.py", KeyError, TypeError, RuntimeError):
        model = GPT(ModelConfig(**checkpoint["model_config"]))
        model.load_state_dict(checkpoint["model"])
        lm = LM(model.to(pick_device(device)).eval(), load_tokenizer(checkpoint["tokenizer"]))
    lm.path, lm.train_config, lm.precision = path, checkpoint["train_config"], "float32, as saved"
    if dtype != "float32":
        asked = SimpleNamespace(dtype=dtype, threads=threads)
        best, threads, why = choose_precision(asked, lm.device, functools.partial(token_time, model, rows))
        torch.set_num_threads(threads)
        lm.model, lm.precision = laid_out(model, best), f"{str(best)[6:]} on {threads} threads; {why}"
    lm.model = torch.compile(lm.model, dynamic=True) if compile else lm.model
    return lm

def laid_out(model, dtype):
    """A copy to sample with: CPUs read the weights for a single token up to 1.5 times faster from rows in
    float32 (x W), from columns in bfloat16."""
    model = copy.deepcopy(model).to(dtype)
    for name, w in model.named_parameters() if model.wte.weight.device.type == "cpu" else ():
        if w.ndim == 2 and (name == "wte.weight") == (dtype == torch.float32):
            w.data = w.data.T.contiguous().T
    return model

def printable(text):  # control characters can do anything to a terminal
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)

# ---- where it runs: processes, device, precision, threads --------------------------------------------------

class Ranks:
    "This process among those that torchrun started. Alone, it agrees with itself."
    def __init__(self, device):
        self.rank, local, size = (int(os.environ.get(k, 0)) for k in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
        self.device, self.size = pick_device(device, local), size or 1
        if self.size > 1 and not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo")
    def share(self, make):                                    # made by the first process, had by all
        box = [make() if self.rank == 0 else None]
        if self.size > 1:
            dist.broadcast_object_list(box, device=torch.device("cpu"))
        return box[0]
    def agree(self, *numbers):
        "Of each number the largest that any process has. It travels by CPU, so no GPU is waited for."
        if self.size > 1:
            dist.all_reduce(numbers := torch.tensor(numbers, dtype=torch.float64), dist.ReduceOp.MAX)
        return [float(number) for number in numbers]
    def sum(self, tensors):
        for work in [dist.all_reduce(t, async_op=True) for t in tensors if self.size > 1]:
            work.wait()

def pick_device(name, local_rank=0):
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    name = best if name == "auto" else name
    with blame(f"--device {name} can't be used here, --device {best} can", RuntimeError, AssertionError):
        device = torch.empty(1, device=f"cuda:{local_rank}" if name == "cuda" else name).device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if device.type == "cpu":
        keep_memory()
    return device

def median_ms(work, times):
    "Milliseconds that a piece of work takes; the first time, in which things are set up, does not count."
    took = []
    while len(took) < 4 or sum(took) < times:
        start = time.perf_counter()
        work()
        took.append(1e3 * (time.perf_counter() - start))
    return sorted(took[1:])[len(took) // 2 - 1]

def block_time(model, rows, dtype, threads):
    "Milliseconds for a forward and a backward pass through one block: most of what training does."
    torch.set_num_threads(threads)
    T, C = model.config.block_size, model.config.n_embd
    rows = max(1, min(rows, (1 << 21) // (T * C)))
    x = torch.randn(rows * T, C)
    def work():
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            y = model.h[0](x, rows, None, 0.1)
        y.sum().backward()
    return median_ms(work, 200)

@torch.inference_mode()
def token_time(model, rows, dtype, threads):
    "Milliseconds for a new token in each of so many rows."
    torch.set_num_threads(threads)
    model = laid_out(model, dtype)
    cache, ids = Cache(model, [1] * rows), torch.zeros(rows, 1, dtype=torch.long)
    def work():
        cache.length = 0
        model(ids, cache)
    return median_ms(work, 5)

def choose_precision(config, device, measure):
    "-> dtype of the matrix products, CPU threads, and why. On GPUs capability decides, on CPUs measurement."
    asked, threads = getattr(torch, config.dtype, None), config.threads or torch.get_num_threads()
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        best = "bfloat16" if capability >= (8, 0) else "float16" if capability >= (7, 0) else "float32"
        why = "compute capability is {}.{}; bfloat16 needs 8.0, float16 7.0".format(*capability)
        return asked or getattr(torch, best), threads, why
    if device.type != "cpu":
        return asked or torch.float32, threads, f"16 bits were not measured to be faster on {device.type}"
    expect(asked != torch.float16, "--dtype float16 is for GPUs: on a CPU take bfloat16 or float32")
    # Many threads are not always fast: they wait for each other by spinning, and where other programs want
    # the cores as well, two were seen to take four times as long as one.
    fixed = config.threads or "OMP_NUM_THREADS" in os.environ
    counts = {threads} if fixed else {*(1 << i for i in range(threads.bit_length())), threads}
    choices = itertools.product([asked] if asked else [torch.bfloat16, torch.float32], sorted(counts))
    took = {choice: measure(*choice) for choice in choices}
    why = ", ".join(f"{str(dtype)[6:]} {ms:.2f} ms on {n}" for (dtype, n), ms in took.items())
    return *min(took, key=took.get), f"measured: {why}"

def keep_memory():
    """Let the process keep the memory it frees. glibc gives big blocks back and gets them anew in each step,
    page by page: with 3,000 words to choose from, that was two thirds of the time."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        for parameter in (-1, -3):                            # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            ctypes.CDLL(None).mallopt(parameter, 2 ** 31 - 1)

PEAKS = {"B200": 2250, "H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "L40S": 362, "L4": 121,
         "A10G": 70, "A10": 125, "T4": 65, "V100": 125, "RTX 5090": 209, "RTX 4090": 165, "RTX 3090": 71}

def peak_flops(device, dtype):
    "What the maker promises for dense 16-bit products, or None: rather no figure than a wrong one."
    name = torch.cuda.get_device_name(device) if device.type == "cuda" and dtype != torch.float32 else ""
    return next((1e12 * PEAKS[key] for key in sorted(PEAKS, key=len, reverse=True) if key in name), None)

def flops_per_token(m):
    "In training: for each weight 2 forward and 4 backward, and the same for the products between tokens."
    return 6 * (count_parameters(m) - m.block_size * m.n_embd) + 12 * m.n_layer * m.n_embd * m.block_size

def memory_used(device):                                      # the most megabytes that were held at a time
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    usage = find_spec("resource") and need("resource").getrusage(0).ru_maxrss  # Windows has none
    return usage and usage / (1e6 if sys.platform == "darwin" else 1e3)

# ---- what a run says: to metrics.jsonl, to a tracker, to whoever watches -----------------------------------

class Journal:
    """metrics.jsonl gets a JSON object a line, on disk before the run goes on. The screen gets plain lines; a
    terminal, a live display below them. Without a folder (in all processes but the first) it is silent."""
    def __init__(self, folder, track):
        self.track, self.history, self.now, self.live, self.said_at = track, [], {}, None, time.monotonic()
        self.close = (held := contextlib.ExitStack()).close   # the file and the display
        self.file = folder and held.enter_context(open(folder / "metrics.jsonl", "a", 1, "utf-8"))
        dumb = {"JPY_PARENT_PID", "COLAB_RELEASE_TAG"} & os.environ.keys() or os.environ.get("TERM") == "dumb"
        if folder and sys.stdout.isatty() and not dumb and find_spec("rich"):  # notebooks only pretend
            live = need("rich.live").Live(get_renderable=self.draw, refresh_per_second=4)
            self.live = held.enter_context(live)
    def say(self, text):
        self.said_at = time.monotonic()
        if self.live:
            self.live.console.print(text, markup=False, highlight=False)
        elif self.file:
            print(text, flush=True)
    def __call__(self, kind, **fields):
        fields = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()}
        self.now |= {"sample": fields["text"]} if kind == "sample" else fields
        if kind in ("step", "eval"):
            self.history.append({"kind": kind, **fields})
            self.track({k: v for k, v in fields.items() if v is not None}, fields["step"])
        if self.file:
            with contextlib.suppress(OSError):                # a full disk: save() tells
                print(json.dumps({"kind": kind, "time": round(time.time(), 3), **fields}), file=self.file)
        if kind == "eval" or kind == "step" and time.monotonic() - self.said_at > 15:
            self.say(self.line("train_loss", "val_loss", "best") if kind == "eval" else self.line("loss"))
        elif kind == "sample" and not self.live:
            self.say(f"--- at step {fields['step']} it says ---\n{printable(fields['text'])}\n---")
        elif kind == "warn":
            self.say(f"warning: {fields['text']}")
    def line(self, *losses):
        "The newest numbers, each with its name."
        forms = {"step": "step {}", **{loss: loss.removesuffix("_loss") + " {:.4f}" for loss in losses},
                 "lr": "lr {:.2g}", "speed": "{} tokens/s", "mfu": "MFU {:.0%}", "eta": "eta {}"}
        now = {**self.now, "eta": clock(self.now["eta_s"]), "speed": short(self.now["tokens_per_s"])} \
            if "eta_s" in self.now else self.now
        return " | ".join(form.format(now[k]) for k, form in forms.items() if now.get(k) is not None)
    def draw(self):
        "The live display: how far, how well, how fast, and what the model would say by now."
        Text, Panel = need("rich.text").Text, need("rich.panel").Panel
        width, height = shutil.get_terminal_size()
        done = int((width - 4) * self.now.get("done", 0))
        numbers = self.line("loss", "val_loss", "best").replace(" | ", "  ")
        numbers += f"  {self.now['memory_mb']:,.0f} MB" if self.now.get("memory_mb") else ""
        text = Text.assemble(("━" * done, "cyan"), ("━" * (width - 4 - done), "bright_black"), "\n", numbers)
        text.append("\n\n" + re.sub("\n+", "\n", printable(self.now.get("sample", ""))).strip(), "italic")
        return Panel(text, title=self.now.get("state"), title_align="left", border_style="bright_black",
                     height=min(12, height - 2))

def open_tracker(name, folder, settings):
    "-> a function of numbers and a step. The package is imported only for those who ask for it."
    if name in ("wandb", "trackio"):
        need(name).init(project="gpt", name=folder.name, config=settings)
        return lambda numbers, step: need(name).log(numbers, step=step)
    if name == "tensorboard":
        writer = need("tensorboard") and need("torch.utils.tensorboard").SummaryWriter(str(folder))
        return lambda numbers, step: [writer.add_scalar(k, v, step) for k, v in numbers.items()]
    return lambda numbers, step: None

def read_log(folder):
    "What a run wrote to its metrics.jsonl, by kind. Half-written and foreign lines are passed over."
    log = defaultdict(list)
    with blame(f"{folder} is no run's folder", OSError), open(Path(folder) / "metrics.jsonl", "rb") as file:
        for line in file:
            with contextlib.suppress(ValueError, TypeError):
                if isinstance(entry := json.loads(line), dict):
                    log[entry.get("kind")].append(entry)
    return log

# ---- training: the loop that turns the wheel ---------------------------------------------------------------

WORDS = ("", "go", "pause", "sample", "stop")                 # for the control file

def read_control(folder):
    "The word that somebody left in the run's control file, as a number: its place among WORDS."
    with contextlib.suppress(OSError, ValueError, TypeError):  # no file, no such word, no folder
        word = (folder / "control").read_text(encoding="utf-8").strip()
        (folder / "control").unlink()
        return WORDS.index(word)
    return 0

def pace(config, step, done):
    "The learning rate's share of its peak: up in the warmup, down to min_lr while the run gets done."
    shape = 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    floor = config.min_lr / config.learning_rate
    return min(1, (step + 1) / (config.warmup_iters + 1)) * (floor + (1 - floor) * shape)

@torch.no_grad()
def evaluate(model, windows, rows, autocast, ranks):
    "The mean loss over all of a split, of which every process takes its share."
    total = torch.zeros(2, device=ranks.device)               # loss, tokens
    for batch in zip(*(part[ranks.rank::ranks.size].split(rows) for part in windows)):
        x, y = (to_device(part, ranks.device) for part in batch)
        with autocast():
            logits = model.eval()(x)
        total += torch.stack([loss_of(logits, y, "sum"), (y >= 0).sum()])
    ranks.sum([total])
    return (total[0] / total[1]).item()

def find_run(asked):
    "-> the checkpoint to go on from and its folder, or nothing."
    resume, out_dir = str(asked.get("resume", "")), asked.get("out_dir", "")
    root = runs_root(str(asked.get("colab_drive")).lower() == "true")
    expect(resume != "auto" or out_dir, "--resume auto: say where, with --out_dir")
    if not resume or resume == "auto" and not (Path(out_dir) / "latest.pt").exists():
        return None, None
    path = find_checkpoint(out_dir if resume in ("newest", "auto") else resume, ("latest.pt",), root)
    return load_checkpoint(path), path.parent

def claim_folder(config, going_on):
    "-> the run's folder, and a lock that dies with the process, however that ends."
    data = "" if config.data == KNOBS["data"].default else f"-{Path(config.data).stem}"
    name = f"{config.preset}-{config.level}{data}"
    folder = going_on or Path(config.out_dir or runs_root(config.colab_drive) / name)
    if not going_on and (folder / "metrics.jsonl").exists():
        expect(not config.out_dir, f"{folder} holds a run: add --resume to go on, or take another --out_dir")
        folder = next(f for i in itertools.count(2) if not (f := folder.with_name(f"{name}-{i}")).exists())
    with blame(f"{folder} can't be written", OSError, kind=Failure):
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / "metrics.jsonl", "a")
    taken = f"{folder}: another run is writing there; take another --out_dir"
    with contextlib.suppress(Failure, OSError), blame(taken, BlockingIOError):
        need("fcntl").flock(lock, 6)                          # at once or never; Windows has no such locks
    return folder, lock

def train(**asked):
    """Train a model. The flags of `python gpt.py train` are the keywords: train(preset="nano", level="word").
    -> .out_dir, .best_val_loss, .history (step and eval lines of metrics.jsonl), .reason that it ended"""
    saved, going_on = find_run(asked)
    shape, config = configure(asked, saved and {**saved["model_config"], **saved["train_config"]})
    ranks = Ranks(config.device)
    device, B, T = ranks.device, config.batch_size, shape.block_size
    expect(B >= ranks.size, f"--batch_size {B} leaves some of {ranks.size} processes without work")

    # text -> tokens -> batches
    source = ranks.share(lambda: prepare(config, "data" in asked or config.data != KNOBS["data"].default))
    config.data = source if source == "builtin" else config.data
    corpus = open_corpus(source, config, T)
    tokenizer, size = corpus.tokenizer, min(config.eval_tokens, len(corpus.val)) + 1
    shape.vocab_size = tokenizer.vocab_size
    for key, was in (saved["tokenizer"] | saved["model_config"]).items() if saved else ():
        now = (tokenizer.state | vars(shape)).get(key)
        expect(now == was, f"{going_on} has another tokenizer or shape, --{key} {was!s:.30}: it can't go on "
               f"with {now!s:.30}")
    batches = Batches(corpus.train, T, B, config.seed, device)
    splits = [fixed_windows(ids[:size], T) for ids in (corpus.train, corpus.val)]
    first, last = ranks.rank * B // ranks.size, (ranks.rank + 1) * B // ranks.size  # our rows of a batch
    rows = min(config.micro_batch or B, last - first)         # and how many of them at a time

    # the model, its optimizers, and where they were
    torch.set_float32_matmul_precision("high")                # TF32, where a GPU has it
    torch.manual_seed(config.seed)
    model = net = GPT(shape, config.dropout).to(device)
    used = saved["used"] if saved and config.dtype == "auto" else {}
    if used.get("device") == device.type:                     # a run goes on as it began
        dtype, threads, why = getattr(torch, used["dtype"]), config.threads or used["threads"], "as before"
    else:
        measure = functools.partial(block_time, model, rows)
        dtype, threads, why = ranks.share(lambda: choose_precision(config, device, measure))
    torch.set_num_threads(threads)
    autocast = functools.partial(torch.autocast, device.type, dtype, enabled=dtype != torch.float32)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    optimizers = make_optimizers(model, config, dtype)
    at = SimpleNamespace(step=0, elapsed_s=0.0, best=math.inf, best_step=0, worse=0, looked=-1, skipped=0)
    if saved:
        at = SimpleNamespace(**saved["progress"])
        model.load_state_dict(saved["model"])
        scaler.load_state_dict(saved["scaler"])
        for optimizer, state in zip(optimizers, saved["optimizers"]):  # without their old settings
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    if config.compile == "true" or config.compile == "auto" and device.type == "cuda" and find_spec("triton"):
        net = torch.compile(model)
    groups = [(group, group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]

    # how long, where to, and what to say first
    epoch = batches.windows / B                               # in steps
    most = min([n for n in (config.max_iters, math.ceil(config.epochs * epoch)) if n], default=math.inf)
    used = {"device": device.type, "dtype": str(dtype)[6:], "threads": threads, "processes": ranks.size,
            "torch": str(torch.__version__), "python": platform.python_version()}
    settings = {"model": vars(shape), "train": vars(config), "used": used}
    folder, lock = claim_folder(config, going_on) if ranks.rank == 0 else (None, None)
    ranks.share(lambda: None)                                 # nobody goes on where that failed
    journal = Journal(folder, open_tracker(config.tracker if folder else "none", folder, settings))
    if folder:
        with contextlib.suppress(OSError):
            ask = ["git", "-C", str(HERE), "rev-parse", "HEAD"]
            settings["commit"] = subprocess.run(ask, capture_output=True, text=True).stdout.strip()
            (folder / "config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device}, {threads} threads"
    weights, V, minutes = count_parameters(shape), shape.vocab_size, config.max_minutes
    journal.say(f"""\
device     {name}, {ranks.size} process{'es' * (ranks.size > 1)}
precision  {used['dtype']}; {why}
model      {shape.n_layer} layers, {shape.n_head} heads, {shape.n_embd} wide: {weights:,} weights
data       {source}: {len(corpus.train):,} {config.level} tokens to learn from, {len(corpus.val):,} to test on
steps      {f'{minutes:g} minutes, ' * (minutes > 0)}{most:,} of {B} x {T} tokens; an epoch has {epoch:.1f}
loss       begins near ln({V:,}) = {math.log(V):.2f}: every token is as likely
run        {folder}{f', from step {at.step:,} on' * bool(saved)}; Ctrl-C saves and stops""")
    journal("start", config=settings, parameters=weights, device=str(device), pid=os.getpid(), max_iters=most,
            world_size=ranks.size, resumed_from=at.step if saved else None)

    def done():                                               # how much of the run is over, by steps or time
        return min(1, max(at.step / most, at.elapsed_s / 60 / (config.max_minutes or math.inf)))

    def save(name, **more):
        journal("state", state="saving")
        try:
            save_checkpoint(folder / name, {
                "version": VERSION, "model": model.state_dict(), "model_config": vars(shape), "used": used,
                "train_config": vars(config), "tokenizer": tokenizer.state, "progress": vars(at), **more})
        except (OSError, RuntimeError) as e:                  # torch makes a RuntimeError of a full disk
            journal("warn", step=at.step, text=f"{name} not saved, the one before it stands ({e!s:.80})")

    def look(evaluating, sampling):
        "Evaluate, sample and save."
        at.looked = at.step
        if evaluating:
            journal("state", state="evaluating")
            train_loss, val_loss = (evaluate(model, windows, rows, autocast, ranks) for windows in splits)
            at.worse += 1                                     # evaluations since the best
            if better := val_loss < at.best:
                at.best, at.best_step, at.worse = val_loss, at.step, 0
            bits = {"bits_per_byte": val_loss / math.log(2) * len(corpus.val) / corpus.val_bytes}
            journal("eval", step=at.step, train_loss=train_loss, val_loss=val_loss, best=at.best,
                    perplexity=math.exp(min(val_loss, 99)), **bits if tokenizer.lossless else {})
            if at.worse == 3 and val_loss > at.best and not told:
                told.append("said once is enough")
                journal("warn", step=at.step, text=f"validation loss is rising since step {at.best_step}: "
                        "the model learns the text by heart. best.pt keeps the best; more text or --dropout "
                        "would help, --patience 3 would stop here")
            if folder and better:
                save("best.pt")
        if folder and sampling:
            journal("state", state="sampling")
            with autocast(enabled=device.type == "cuda" and dtype != torch.float32):
                lm, n = LM(model.eval(), tokenizer), config.sample_tokens
                text = config.sample_prompt + lm.sample(config.sample_prompt, max_new_tokens=n)
            journal("sample", step=at.step, text=text)
        if folder:
            states = [optimizer.state_dict()["state"] for optimizer in optimizers]
            save("latest.pt", optimizers=states, scaler=scaler.state_dict())
        journal("state", state="training")

    def add_gradients(last):
        "Of our rows up to the last, a micro-batch at a time, as if they were one. -> our share of the loss"
        dice = np.random.SeedSequence((config.seed, at.step, ranks.rank))  # for dropout
        torch.manual_seed(dice.generate_state(1, np.uint64)[0])
        total = torch.zeros((), device=device)
        for start in range(first, last, rows):
            x, y = batches(at.step, start, min(start + rows, last))
            with autocast():
                logits = net.train()(x)
            loss = loss_of(logits, y) * (len(x) / B)
            scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def gradients(last):
        "The same, again and again until it fits into memory. What fails for one of us, all do over again."
        nonlocal rows, net
        while True:
            trouble, why = 0, "another process has the reason"
            try:
                loss = add_gradients(last)
            except Exception as e:
                why = str(e).strip().split("\n")[0]
                trouble = 2 if re.search("out of memory|n't allocate|not enough memory", why) else 1
                if trouble == 1 and net is model:
                    raise
            trouble, = ranks.agree(trouble)
            if not trouble:
                return loss
            if trouble == 1:
                net = model
                journal("warn", step=at.step, text=f"--compile failed, going on without: {why:.80}")
            else:
                expect(rows > 1, "not even one sequence fits into memory: take a smaller preset", Failure)
                rows = -(-rows // 2)
                journal("warn", step=at.step, text=f"out of memory: going on with --micro_batch {rows}")
            model.zero_grad()
            torch.cuda.empty_cache()

    def note(number, frame):  # Ctrl-C and SIGTERM are looked at between steps,
        interrupts.append(number)                             # a second one interrupts at once
        signal.signal(number, signal.default_int_handler)
    interrupts, told, in_main = [], [], threading.current_thread() is threading.main_thread()
    handlers = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM) if in_main}
    began, begun, started = time.monotonic() - at.elapsed_s, done(), time.monotonic()
    read_at = read_step = paused = 0
    streak = skipped = torch.zeros((), device=device)  # steps without a finite gradient: in a row, in all
    peak, flops = peak_flops(device, dtype), flops_per_token(shape)
    try:
        journal("state", state="compiling" if net is not model else "training")
        gradients(min(first + rows, last))                    # finds out what fits, before anything counts
        model.zero_grad()
        while True:
            mine = read_control(folder), time.monotonic() - began, max(interrupts, default=0)
            word, at.elapsed_s, caught = ranks.agree(*mine)
            word = "stop" if caught else WORDS[int(word)]
            if word in ("pause", "go"):
                paused = word == "pause"
                journal("state", state="paused" if paused else "training")
            if paused and word != "stop":
                time.sleep(0.1)
                began += 0.1                                  # does not count
                continue
            over = "done" if at.step >= most else "time" if done() == 1 else ""
            evaluating = at.looked != at.step and (over or at.step % config.eval_interval == 0)
            sampling = at.looked != at.step and at.step % (config.sample_every or math.inf) == 0
            if evaluating or sampling or word in ("sample", "stop"):
                look(evaluating, sampling or word == "sample" or evaluating and not config.sample_every)
                read_at = 0                                   # does not count for tokens/s
            reason = over or "stopped" * (word == "stop") or "patience" * (0 < config.patience <= at.worse)
            if reason:
                break

            for group, peak_lr in groups:
                group["lr"] = peak_lr * pace(config, at.step, done())
            loss = gradients(last)
            ranks.sum([loss] + [w.grad for w in model.parameters()])  # once a step
            for optimizer in optimizers:
                scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip or math.inf)
            bad = (~(loss + norm).isfinite()).float()         # stays on the device: nobody waits for it here
            streak, skipped = (streak + 1) * bad, skipped + bad
            for optimizer in optimizers:
                optimizer.found_inf = bad
                optimizer.step()
                optimizer.zero_grad()
            scaler.update()
            at.step += 1

            if at.step % config.log_interval == 0 or at.step == most or not read_at:
                loss, norm, in_a_row, bad = (float(t) for t in (loss, norm, streak, skipped))  # here we wait
                now, at.skipped, skipped = time.monotonic(), at.skipped + int(bad), skipped * 0
                if bad:
                    journal("warn", step=at.step, text=f"{bad:.0f} steps skipped: gradient not finite")
                    expect(in_a_row < 10, f"{in_a_row:.0f} steps in a row had no finite gradient: take a "
                           "lower --learning_rate or --dtype float32. The last checkpoint is good", Failure)
                if read_at:
                    speed = (at.step - read_step) * B * T / (now - read_at)
                    eta = (now - started) * (1 - done()) / max(1e-9, done() - begun)
                    journal("step", step=at.step, loss=loss, grad_norm=norm, lr=groups[-1][0]["lr"],
                            tokens=at.step * B * T, tokens_per_s=speed, elapsed_s=at.elapsed_s, eta_s=eta,
                            mfu=peak and speed * flops / peak / ranks.size, memory_mb=memory_used(device),
                            done=done())
                read_at, read_step = now, at.step
        journal("end", step=at.step, reason=reason, message=f"best loss {at.best:.4f} at step {at.best_step}")
        ranks.agree(0)                                        # nobody leaves before all have finished
    except BaseException as e:
        journal("end", step=at.step, reason="error", message=f"{type(e).__name__}: {e}")
        raise
    finally:
        journal.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if ranks.size > 1:                                    # gloo's threads let go of the last tensors: a
            time.sleep(0.2)                                   # Python that is leaving by then would crash
            dist.destroy_process_group()
    return SimpleNamespace(out_dir=str(folder), best_val_loss=at.best, history=journal.history, reason=reason,
                           signal=int(caught))

# ---- the commands ------------------------------------------------------------------------------------------

def train_command(asked):
    result = train(**asked)
    if os.environ.get("RANK", "0") == "0":
        print(f"best validation loss {result.best_val_loss:.4f}, {result.reason}. Now type:\n"
              f"  python gpt.py sample {result.out_dir} --prompt \"The \"\n"
              f"  python gpt.py chat {result.out_dir}   or   python tui.py {result.out_dir}\n"
              + f"  python gpt.py train --resume {result.out_dir}\n" * (result.reason == "stopped"), end="")
    raise SystemExit(128 + result.signal if result.signal else 0)

def open_lm(asked):
    "-> the model that is asked for, the options, and those of them that decide how it samples."
    o, run = fill(Options, asked), asked.get("run", [])
    options = {name: asked[name] for name in knobs(SampleConfig) if name in asked}
    rows = fill(SampleConfig, options).num_samples  # wrong options are told before anything is loaded
    expect(len(run) < 2, "one RUN, please: a run's folder or a checkpoint")
    how = {name: vars(o)[name] for name in ("device", "dtype", "threads", "compile")}
    return load(*run, **how, rows=rows), o, options

def warn_of(lm, prompt):
    "What the model can't take from this prompt is said, on stderr."
    if unknown := lm.tokenizer.unknown(prompt):
        print(f"warning: the model does not know {' '.join(map(repr, unknown))}", file=sys.stderr)
    if (n := len(lm.encode(prompt))) > (T := lm.config.block_size):
        print(f"note: of the prompt's {n:,} tokens the model sees the last {T}", file=sys.stderr)

def sample_command(asked):
    "The text goes to stdout, what is to be said about it to stderr."
    lm, o, options = open_lm(asked)
    if o.prompt_file:
        with blame(f"--prompt_file {o.prompt_file}", OSError, UnicodeDecodeError):
            o.prompt = Path(o.prompt_file).read_text("utf-8") if o.prompt_file != "-" else sys.stdin.read()
    warn_of(lm, o.prompt)
    print(f"{lm.path}, {lm.precision}", file=sys.stderr)
    if int(options.get("num_samples", 1)) > 1:
        texts = lm.sample(o.prompt, **options)
        return print(*(printable(o.prompt + text) for text in texts), sep="\n---\n")
    told, colours = [], (196, 208, 220, 148, 46)              # from red, unlikely, to green
    print(printable(o.prompt), end="", flush=True)
    for piece in lm.stream(o.prompt, **{"probs": 3 * o.show_probs, **options}):
        text = printable(piece)
        if o.show_probs:
            told.append([repr(text), piece.prob, *(f"{other!r} {p:.4f}" for other, p in piece.alternatives)])
            text = f"\033[38;5;{colours[min(4, int(5 * piece.prob))]}m{text}\033[0m"
        print(text, end="", flush=True)
    print()
    if told:
        print_table("token probability likeliest second third", told)
    r = lm.report
    print(f"{r.tokens} tokens, {r.tokens_per_s:,.0f}/s, the first after {r.first_s:.3f} s", file=sys.stderr)

CHAT = """\
The model goes on with a text; it was not taught to answer. Type how a text begins, and it writes on; or
/dialogue, and it writes what a User and an Assistant might say. A \\ at a line's end: more to come.
/reset forgets, /save FILE, /load RUN, /quit; /temp 0.7, /top_k 40, /rep 1.3 and so on set what
python gpt.py sample --help explains. Ctrl-C stops a reply."""

def chat_command(asked):
    "Read a line, let the model go on from all that was said, and so on."
    lm, o, options = open_lm(asked)
    if o.jsonl:
        return serve(lm, asked, options)
    text, dialogue = "", {}
    print(f"{lm.path}, {lm.precision}\n{CHAT}")
    while True:
        try:
            line = input("> ")
            while line.endswith("\\"):
                line = line[:-1] + "\n" + input("| ")
            word, _, rest = line.strip().partition(" ")
            name = next((name for name in knobs(SampleConfig) if name.startswith(word[1:])), "")
            if word == "/quit":
                return
            elif word in ("/reset", "/dialogue", "/continue"):
                text, dialogue = "", {"/reset": dialogue, "/dialogue": {"stop": "User:"}}.get(word, {})
            elif word == "/save":
                with blame("/save FILE", OSError):
                    Path(rest).write_text(text, encoding="utf-8")
            elif word == "/load":
                lm, *_ = open_lm({**asked, "run": [rest]})
                print(f"{lm.path}, {lm.precision}")
            elif len(word) > 1 and word[0] == "/" and name and rest:
                fill(SampleConfig, {name: rest})              # a wrong one is not kept
                options[name] = rest
            elif word.startswith("/"):
                print(CHAT, vars(fill(SampleConfig, options)), sep="\n")
            else:
                warn_of(lm, line)
                text += f"\n\nUser: {line}\n\nAssistant:" if dialogue else line
                with contextlib.suppress(KeyboardInterrupt):
                    for piece in lm.stream(text, **{**options, **dialogue}):
                        print(printable(piece), end="", flush=True)
                        text += piece
                r, T = lm.report, lm.config.block_size
                print(f"\n[{r.reason}, {r.tokens_per_s:,.0f} tokens/s, context {r.context_used} of {T}]")
        except Problem as problem:
            print(f"error: {problem}")
        except KeyboardInterrupt:
            print("\n/quit leaves")
        except EOFError:
            return print()

def serve(lm, asked, options):
    "Chat for programs: lines of JSON. A stop is obeyed between two tokens, also where it came early."
    inbox, stopped = queue.Queue(), set()
    def tell(kind, **fields):
        print(json.dumps({"kind": kind, **fields}) + "\n", end="", flush=True)  # whole: two threads write
    def ready():
        tell("ready", model=str(lm.path), level=lm.tokenizer.state["level"], block_size=lm.config.block_size,
             precision=lm.precision)
    def listen():
        for line in sys.stdin.buffer:
            try:
                request = dict(json.loads(line))
                if set(request) == {"stop"}:
                    stopped.add(str(request["stop"]))
                else:
                    stopped.discard(str(request.get("id")))
                    inbox.put(request)
            except (ValueError, TypeError, RecursionError) as e:
                tell("error", id=None, message=f"a request is a JSON object on a line of its own: {e}")
        inbox.put(None)
    ready()
    threading.Thread(target=listen, daemon=True).start()
    for request in iter(inbox.get, None):
        name = request.pop("id", None)
        try:
            if "load" in request:
                lm, *_ = open_lm({**asked, "run": [str(request["load"])]})
                ready()
                continue
            expect(isinstance(prompt := request.pop("prompt", None), str), 'a request has a "prompt", a text')
            request["probs"] = 5 if request.get("probs") is True else request.get("probs") or 0
            stream = lm.stream(prompt, **{**options, **{k: v for k, v in request.items() if v is not None}})
            for piece in stream:
                if str(name) in stopped:
                    break
                belief = {"prob": piece.prob, "alternatives": piece.alternatives} if request["probs"] else {}
                tell("piece", id=name, text=piece, **belief)
            stream.close()
            tell("done", id=name, **vars(lm.report))
        except BrokenPipeError:
            raise
        except Exception as e:                                # whatever it was, the next may be right
            tell("error", id=name, message=str(e) or type(e).__name__)

def eval_command(asked):
    "The loss on a text, and what it comes to by word and by byte, so that all levels can be compared."
    lm, o, _ = open_lm({**asked, "dtype": "float32"})
    config = fill(TrainConfig, {**lm.train_config, **({"data": o.data} if o.data else {})})
    source, T, tokenizer = Path(prepare(config, True)), lm.config.block_size, lm.tokenizer
    if source.is_dir():
        with blame(f"{source} has no {o.split} split", OSError, ValueError, KeyError):
            meta = json.loads((source / "meta.json").read_text(encoding="utf-8"))
            ids = np.fromfile(source / f"{o.split}.bin", np.dtype(meta["dtype"]).newbyteorder("<"))
        expect(meta["tokenizer"] == tokenizer.state, f"{source} has another tokenizer than {lm.path}")
        text = tokenizer.decode(ids.tolist())
    else:
        text = read_text(str(source))
        text = text[int((1 - config.val_fraction) * len(text)) if o.split == "val" else 0:]
        parts = [row for row in text.splitlines(keepends=True) if row.strip()] if o.rows else [text]
        ids = np.concatenate([tokenizer.encode(part) for part in parts])
    expect(len(ids) > T, f"{source} has only {len(ids)} tokens: too few to evaluate on")
    whole = len(ids) // (T + 1) * (T + 1) if o.rows else len(ids)
    stride = T + 1 if o.rows else min(o.stride, T) or T       # no two windows of rows share a token
    windows = fixed_windows(ids[:whole], T, stride)
    rows = max(1, (1 << 24) // (T * lm.config.vocab_size))
    loss = evaluate(lm.model, windows, rows, contextlib.nullcontext, Ranks(o.device))
    bits = loss / math.log(2) * len(ids) / len(text.encode()) if tokenizer.lossless else None
    by_word = math.exp(loss * len(ids) / len(text.split()))
    found = {"checkpoint": str(lm.path), "data": str(source), "split": o.split, "loss": loss,
             "perplexity": math.exp(loss), "word_perplexity": by_word, "bits_per_byte": bits,
             "tokens": len(ids), "scored": int((windows[1] >= 0).sum()), "windows": len(windows[0]),
             "window": T, "stride": stride}
    print(json.dumps(found)) if o.json else print_table("what value", found.items())

def plot_command(asked):
    "Losses over steps, with tokens above; dotted: in training, a star: the best."
    o, pyplot = fill(Options, asked), need("matplotlib.pyplot", "matplotlib")
    axes = pyplot.figure(figsize=(8, 5)).add_subplot(xlabel="step", ylabel="loss, nats a token")
    for run in asked.get("run") or [find_checkpoint().parent]:
        log = read_log(run)
        steps, evals = log["step"], log["eval"]
        expect(evals, f"{run} has no evaluation yet")
        best = min(evals, key=lambda line: line["val_loss"] or math.inf)
        label = f"{Path(run).name}: {best['val_loss']:.4f} at {best['step']:,}"
        curve, = axes.plot([e["step"] for e in evals], [e["val_loss"] for e in evals], label=label)
        style = {"color": curve.get_color(), "markersize": 12}
        axes.plot([s["step"] for s in steps], [s["loss"] for s in steps], ":", **style)
        axes.plot(best["step"], best["val_loss"], "*", **style)
    config = log["start"][-1]["config"]
    size = config["train"]["batch_size"] * config["model"]["block_size"] / 1e6
    above = axes.secondary_xaxis("top", functions=(lambda x: x * size, lambda x: x / size))
    above.set_xlabel("million tokens")
    axes.legend()
    with blame(f"--out {o.out}", OSError, ValueError):
        axes.figure.savefig(o.out, bbox_inches="tight")
    print(o.out)

def runs_command(asked):
    "What was trained here, as a table or as JSON."
    o, rows = fill(Options, asked), []
    for path in Path("runs").glob("*/metrics.jsonl"):
        log, now = read_log(path.parent), path.stat().st_mtime
        start, step, end = ((log[kind] or [{}])[-1] for kind in ("start", "step", "end"))
        config = start.get("config", {}).get("train", {})
        evals = [line for line in log["eval"] if line["val_loss"] is not None]
        best = min(evals, key=lambda line: line["val_loss"], default={})
        over = end and end["time"] >= start.get("time", 0)    # a run that goes on has a new start
        state = end["reason"] if over else "running" if time.time() - now < 120 else "crashed"
        rows.append({"run": path.parent.name, **{k: config.get(k) for k in ("preset", "level", "data")},
                     "weights": start.get("parameters"), "steps": step.get("step"),
                     "best": best.get("val_loss"), "at": best.get("step"),
                     "bits/byte": best.get("bits_per_byte"), "tokens/s": round(step.get("tokens_per_s") or 0),
                     "state": state, "when": time.strftime("%Y-%m-%d %H:%M", time.localtime(now))})
    expect(rows or o.json, "no runs yet: python gpt.py train --preset nano")
    expect(o.sort in (rows or [o.sort])[0], f"--sort {o.sort}: {nearest(o.sort, (rows or [[]])[0])}")
    rows.sort(key=lambda row: (row[o.sort] is None, row[o.sort]))
    print(json.dumps(rows)) if o.json else print_table(" ".join(rows[0]), (row.values() for row in rows))

def rival(hf, m, c, device, new):
    """Hugging Face's GPT-2 in the same shape, as its documentation has it -> tokens/s in training, with 32 or
    16 bits, whichever is faster, and in sampling."""
    ids = torch.randint(m.vocab_size, (c.micro_batch or c.batch_size, m.block_size), device=device)
    torch.set_num_threads(os.cpu_count())
    drop = dict.fromkeys(["resid_pdrop", "embd_pdrop", "attn_pdrop"], c.dropout)
    same = {name: getattr(m, name) for name in ("n_layer", "n_head", "n_embd", "vocab_size")}
    shape = hf.GPT2Config(n_positions=m.block_size, bos_token_id=0, eos_token_id=None, **same, **drop)
    model = hf.GPT2LMHeadModel(shape).to(device)
    adamw = torch.optim.AdamW(model.parameters())
    def step(short):
        with torch.autocast(device.type, enabled=short):
            loss = model(ids, labels=ids).loss
        loss.backward()
        adamw.step()
        adamw.zero_grad()
        return loss.item()
    trained = ids.numel() * 1e3 / min(median_ms(lambda: step(short), 3000) for short in (False, True))
    model.eval()
    ms = median_ms(lambda: model.generate(ids[:1, :1], max_new_tokens=new, do_sample=True, top_k=0), 1000)
    return trained, new * 1e3 / ms

def bench_command(asked):
    """Each preset trains for some seconds on made-up tokens, as a run of its own, and then samples. GB/s: the
    weights that this reads; the copy is what the machine's memory can do."""
    o, presets, (old, new) = fill(Options, asked), load_presets(asked.get("presets")), np.ones((2, 1 << 24))
    copying = 2 * old.nbytes / median_ms(lambda: np.copyto(new, old), 500) / 1e6
    line = "{:12}{:>12}{:>10}{:>6}{:>11}{:>11}{:>7}" + "{:>10}{:>10}" * (o.against == "hf")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
    hf = o.against == "hf" and need("transformers")           # asked for before minutes have gone into it
    head = "preset tokens/s TFLOP/s MFU memory sampled/s GB/s train/hf sample/hf"
    print(f"copying: {copying:.0f} GB/s", line.format(*head.split()), sep="\n", flush=True)
    for name in [o.preset] if o.preset else presets:
        c = fill(TrainConfig, recipe(presets, name))
        letters = "".join(map(chr, range(1 << 17, (1 << 17) + TYPICAL_VOCABULARY[c.level] - 1)))
        with tempfile.TemporaryDirectory() as place:
            text, run = Path(place, "text"), f"{place}/run"
            text.write_text(letters * (1 + (1 << 18) // len(letters)), encoding="utf-8")
            flags = {"preset": name, "presets": o.presets, "level": "char", "data": text, "out_dir": run,
                     "device": o.device, "batch_size": c.micro_batch or c.batch_size, "dropout": c.dropout,
                     "optimizer": c.optimizer, "max_minutes": 0.1, "log_interval": 1, "eval_tokens": 1,
                     "sample_tokens": 0}
            words = [sys.executable, __file__, "train", *(f"--{k}={v}" for k, v in flags.items())]
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    subprocess.run(words, stdout=subprocess.DEVNULL, timeout=300)
                expect(steps := read_log(run)["step"], "none")
                lm = load(run, o.device, "auto")
                new = min(100, lm.config.block_size - 1)
                sampled = new * 1e3 / median_ms(lambda: lm.sample(max_new_tokens=new), 1000)
            except Problem:
                print(f"{name:12}  took too long or did not fit", flush=True)
                continue
        step = sorted(steps, key=lambda entry: entry["tokens_per_s"])[len(steps) // 2]
        flops, mfu = step["tokens_per_s"] * flops_per_token(lm.config), step["mfu"] and f"{step['mfu']:.0%}"
        nbytes = sum(w.nbytes for w in lm.model.parameters())
        theirs = rival(hf, lm.config, c, lm.device, new) if hf else (1, 1)
        times = [f"{us / them:.1f}" for us, them in zip((step["tokens_per_s"], sampled), theirs)]
        print(line.format(name, f"{step['tokens_per_s']:,.0f}", f"{flops / 1e12:.3f}", mfu or "-",
                          f"{step['memory_mb']:,.0f} MB", f"{sampled:,.0f}", f"{sampled * nbytes / 1e9:.1f}",
                          *times), flush=True)

if __name__ == "__main__" and IS_FILE:
    with problems_told():
        globals()[f"{COMMAND}_command"](ASKED)
