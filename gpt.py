# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "numpy", "tiktoken>=0.7", "rich>=13", "textual>=8"]
# ///
"""gpt.py: train a GPT-2 from scratch and let it write, in one file that you can read.

    python gpt.py train --preset nano --level word      a first model of words: about a minute on a laptop
    python gpt.py train --data my.txt --max_minutes 10  your own text: everything else is chosen for you
    python gpt.py train --resume                        continue the newest run, bit for bit
    torchrun --nproc_per_node=4 gpt.py train --preset gpt2 --data openwebtext           four GPUs, days
    python gpt.py sample --prompt "Holmes said"         the newest run continues your text

Every number has a flag: python gpt.py train --help. From Python: import gpt; gpt.train(preset="nano"); then
gpt.load().sample("Holmes said"). Pasted into a notebook cell, this file defines all that and runs nothing.

After errors and options it reads in the order in which text flows: text -> tokenizer -> tokens -> batch ->
model -> loss -> optimizer -> checkpoint -> sampling -> text; then devices, the log, and the training loop.
To learn how GPTs are trained, read batches, model, optimizer, sampling and train() first: about 550 lines.
Much of the rest makes sure that nothing is lost. The other commands (chat, eval, plot ...) are in tools.py.
"""
import argparse, base64, codecs, contextlib, ctypes, dataclasses, difflib, errno, functools, hashlib
import itertools, json, math, mmap, os, platform, re, shlex, signal, subprocess, sys, threading, time, zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, get_args
import numpy as np

__version__ = "0.1.0"
IS_FILE = "__file__" in globals()                             # False in a notebook cell
HERE = Path(__file__).resolve().parent if IS_FILE else Path.cwd()
DRIVE = Path("/content/drive/MyDrive")                        # in Colab, once it is mounted
RUN_ROOTS = [Path("runs"), DRIVE / "gpt-runs"]                # where runs are looked for

# ---- mistakes: one line that says what to type instead -----------------------------------------------------

class UserError(Exception):
    "Something wrong was asked for: one line that says how to mend it."
    status = 2

class RunError(UserError):
    "It was asked for rightly, and went wrong."
    status = 1

class ToldError(RunError):
    "Another program of ours has already said what went wrong."

def expect(ok, message, kind=UserError):
    if not ok:
        raise kind(message)

@contextlib.contextmanager
def explain(what, *errors, kind=UserError):
    "Errors that a person can mend become one line: what went wrong, and the first line of why."
    try:
        yield
    except errors as error:
        why = str(error).partition("\n")[0]
        raise kind(f"{what}: {why:.160}" if why else what) from error

# What reading a damaged or hostile file can raise.
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError, OverflowError)

def nearest(word, known):
    "The known name that was probably meant."
    known = [str(name) for name in known]
    close = difflib.get_close_matches(str(word), known, n=1)
    close = close or [name for name in known if name.startswith(str(word))]  # temp -> temperature
    return f"did you mean {close[0]}?" if close else f"there is {', '.join(known)}"

def check_known(names, known, what="unknown option"):
    for name in names:
        if name not in known:
            raise UserError(f"{what} {name}: {nearest(name, known)}")

def beside(name):
    "Whether another file of this project is here: gpt.py may have been copied without it."
    return (HERE / name).exists()

def need(module, package=None):
    "Imports a package that only some people need."
    with explain(f"pip install {package or module}", ImportError, kind=RunError):
        return import_module(module)

def other_file(name):
    "Imports another file of this project, or says where to get it."
    also = {"tools": ["recipes", "runs"], "recipes": ["runs"]}  # what these import in turn
    for file in [name, *also.get(name, [])]:
        expect(beside(f"{file}.py"), f"this needs {file}.py beside gpt.py: copy it from where that came from",
               RunError)
    return import_module(name)

def hush():
    "Lets what is still printed go nowhere: the terminal is closed, the pipe is broken, the disk is full."
    with contextlib.suppress(OSError, ValueError):            # not a file: nothing can be done
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

@contextlib.contextmanager
def errors_told():
    "A mistake becomes a line and an exit status. Anything else is a bug and keeps its traceback."
    for stream in sys.stdout, sys.stderr:
        with contextlib.suppress(AttributeError):             # of what stands in for a file
            stream.reconfigure(encoding="utf-8", errors="replace")  # Windows would write in a code page
    try:
        try:
            yield
        finally:
            sys.stdout.flush()                                # a full disk is told here, not at Python's exit
        return
    except UserError as error:
        status = error.status
        why = "" if isinstance(error, ToldError) else f"error: {printable(error)}"
    except KeyboardInterrupt:
        status, why = 130, "\nstopped"
    except BrokenPipeError:                                   # `gpt.py ... | head` has seen enough
        status, why = 1, ""
    except OSError as error:                                  # the system's reasons: no room, no permission
        where = f"{printable(error.filename)}: " if error.filename else ""
        status, why = 1, f"error: {where}{error.strerror or error}"
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        status, why = 1, "error: there is not enough memory for this"
    if why:
        print(why, file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        hush()                                                # or Python's exit would fail
    raise SystemExit(status)

def out_of_memory(error):
    why = " ".join(str(error).split())
    return isinstance(error, MemoryError) or re.search("out of memory|n't allocate|enough memory", why)

# What a terminal would obey rather than show, from a model or a stranger's file, becomes a visible sign.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

def printable(text):
    return UNSAFE.sub("\N{REPLACEMENT CHARACTER}", str(text))

# ---- configuration: one line = one field = one flag = one line of --help -----------------------------------

def knob(default, help, rule="True"):
    """A field of a configuration: its default, why it is there, and the rule that its value must keep: an
    expression over the fields, such as "n_embd % n_head == 0". The form of tui.py has the same rules."""
    return field(default=default, metadata={"help": help, "rule": rule})

@dataclass
class ModelConfig:
    "the shape of the network: what a checkpoint has to agree on"
    n_layer: int = knob(3, "blocks, one after another", "1 <= n_layer <= 1000")
    n_head: int = knob(3, "attention heads, which share the width", "n_head >= 1 and n_embd % n_head == 0")
    n_embd: int = knob(96, "width: how many numbers represent each token", "1 <= n_embd <= 1e5")
    block_size: int = knob(128, "context: how many tokens back the model can see", "1 <= block_size <= 1e6")
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
    vocab_size: int = knob(0, "bpe: learn this many; 0: use GPT-2's", "vocab_size == 0 or vocab_size >= 258")
    min_freq: int = knob(3, "word level: rarer words become <unk>", "min_freq >= 1")
    val_fraction: float = knob(0.1, "share of the text, at its end, for validation", "0 < val_fraction < 1")
    out_dir: str = knob("", "the run's folder; empty: a new one, runs/PRESET-LEVEL")
    init_from: str = knob("", "weights to start from: gpt2, hf:OWNER/NAME, a folder, a file or a run")
    teacher: tuple = knob((), "a run with the same tokens to learn from as well; repeatable")
    teacher_share: float = knob(0.5, "how much of the loss is the teacher's", "0 <= teacher_share <= 1")
    freeze: int = knob(0, "don't train the embeddings and the first N blocks", "0 <= freeze")
    resume: str = knob("", "continue a run: newest, its folder, or auto (if --out_dir has one already)")
    colab_drive: bool = knob(False, "keep runs on the mounted Google Drive, where they outlive the session")
    seed: int = knob(1337, "decides the first weights, the text's order, and dropout", "0 <= seed < 2 ** 63")
    batch_size: int = knob(32, "sequences in an optimizer step, over all processes", "1 <= batch_size <= 1e6")
    micro_batch: int = knob(0, "sequences at a time: saves memory, costs time; 0: all", "micro_batch >= 0")
    checkpoint_activations: bool = knob(False, "compute blocks twice: far less memory, up to half more time")
    max_iters: int = knob(1000, "stop after this many steps; 0: no limit", "max_iters >= 0")
    epochs: float = knob(0.0, "stop after this many passes over the text; 0: no limit", "0 <= epochs <= 1e9")
    max_minutes: float = knob(0.0, "stop after this many minutes; 0: no limit", "max_minutes >= 0")
    patience: int = knob(0, "stop after this many evaluations without a new best; 0: never", "patience >= 0")
    optimizer: Literal["muon", "adamw"] = knob("muon", "muon: for the blocks' matrices, AdamW for the rest")
    learning_rate: float = knob(4e-3, "AdamW's peak learning rate", "learning_rate > 0")
    muon_lr: float = knob(0.03, "Muon's peak learning rate", "muon_lr > 0")
    min_lr: float = knob(0.0, "final learning_rate; muon_lr scales with it", "0 <= min_lr <= learning_rate")
    schedule: Literal["linear", "cosine"] = knob("linear", "how the rate falls after the warmup")
    warmup_iters: int = knob(20, "steps in which the learning rates rise from zero", "warmup_iters >= 0")
    weight_decay: float = knob(0.1, "pulls matrices to zero; not embeddings and vectors", "weight_decay >= 0")
    beta1: float = knob(0.9, "AdamW's memory of gradients", "0 <= beta1 < 1")
    beta2: float = knob(0.99, "AdamW's memory of their squares", "0 <= beta2 < 1")
    momentum: float = knob(0.95, "Muon's memory of gradients", "0 <= momentum < 1")
    grad_clip: float = knob(1.0, "scale a longer gradient down to this norm; 0: never", "grad_clip >= 0")
    dropout: float = knob(0.1, "share of activations left out in training", "0 <= dropout < 1")
    label_smoothing: float = knob(0.0, "share of a target spread over all tokens", "0 <= label_smoothing < 1")
    eval_interval: int = knob(100, "steps between evaluations; each one saves", "eval_interval >= 1")
    save_minutes: float = knob(0.0, "also save every N minutes; 0: at evaluations", "save_minutes >= 0")
    keep: int = knob(0, "checkpoints of earlier evaluations to keep, as step-N.pt", "0 <= keep <= 10_000")
    eval_tokens: int = knob(1_000_000, "evaluate on at most this many tokens", "eval_tokens >= 1")
    log_interval: int = knob(10, "steps between two readings of loss and speed", "log_interval >= 1")
    sample_every: int = knob(0, "steps between samples; 0: one with each evaluation", "sample_every >= 0")
    sample_prompt: str = knob("", "what these samples start from")
    sample_tokens: int = knob(120, "how long they are", "sample_tokens >= 0")
    device: str = knob("auto", "cuda, cuda:1, mps or cpu; auto: the best there is")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = knob("auto", "precision of matrix products")
    compile: Literal["auto", "true", "false"] = knob("auto", "torch.compile; auto: on GPUs with triton")
    threads: int = knob(0, "CPU threads; 0: one for each core", "0 <= threads <= 512")
    tracker: Literal["none", "wandb", "trackio", "tensorboard"] = knob("none", "also send the numbers there")

@dataclass
class SampleConfig:
    "how the next token is picked"
    max_new_tokens: int = knob(200, "stop after this many tokens", "max_new_tokens >= 0")
    temperature: float = knob(0.8, "0: always the likeliest; 1: as the model believes", "temperature >= 0")
    top_k: int = knob(0, "choose among the k likeliest; 0: among all", "top_k >= 0")
    top_p: float = knob(1.0, "nucleus: the likeliest that together have this share", "0 < top_p <= 1")
    min_p: float = knob(0.0, "drop tokens below this share of the top probability", "0 <= min_p <= 1")
    repetition_penalty: float = knob(1.0, "above 1: repeats recent tokens less", "repetition_penalty > 0")
    repetition_window: int = knob(64, "how many tokens back that looks", "repetition_window >= 1")
    stop: tuple = knob((), "a text that ends the sample; repeatable")
    num_samples: int = knob(1, "how many samples at once", "1 <= num_samples <= 10_000")
    seed: int = knob(1, "the same seed picks the same text", "0 <= seed < 2 ** 63")

def knobs(*configs):
    "The fields of configurations by name. Those without help are no knobs."
    return {f.name: f for config in configs for f in dataclasses.fields(config) if f.metadata}

KNOBS = knobs(ModelConfig, TrainConfig)
LEVELS = get_args(KNOBS["level"].type)
LIMITS = ("max_iters", "epochs", "max_minutes")               # each, at zero, is no limit

def choices(f):
    "The words that a field may be set to, where they are few."
    return ("true", "false") if f.type is bool else get_args(f.type)

def convert(f, value):
    "A flag's text, or a value from JSON or Python -> the type of its field."
    if f.type is tuple:
        texts = [value] if isinstance(value, str) else value
        expect(isinstance(texts, (list, tuple)), f"--{f.name} {texts!s:.50}: expected a text, or several")
        if f.name == "stop":                                  # \n is hard to type
            texts = [str(text).replace("\\n", "\n") for text in texts]
        return tuple(str(text) for text in texts if text)
    if choices(f):
        word = str(value).lower().removeprefix("torch.")      # torch.float32 is "float32"
        check_known([word], choices(f), f"--{f.name}")
        return word == "true" if f.type is bool else word
    if f.type is int and isinstance(value, float) and value.is_integer():
        return int(value)                                     # sliders give 50.0 for 50
    expect("\0" not in str(value), f"--{f.name}: holds a zero byte")
    with contextlib.suppress(ValueError, OverflowError):
        converted = f.type(str(value))
        if f.type is str or math.isfinite(converted):
            return converted
    kind = "whole number" if f.type is int else "number"
    raise UserError(f"--{f.name} {value!s:.50}: expected a {kind}")

def fill(config_class, values):
    "A configuration out of a dict that may hold more; None stands for the default. Its rules are checked."
    config = config_class()
    for name, f in knobs(config_class).items():
        if values.get(name) is not None:
            setattr(config, name, convert(f, values[name]))
    for name, f in knobs(config_class).items():
        rule = f.metadata["rule"]                             # eval: our own texts, never a user's
        if not eval(rule, {}, vars(config)):
            others = [k for k in rule.split() if k in vars(config) and k != name]
            others = "".join(f", and {k} is {vars(config)[k]}" for k in others)
            raise UserError(f"--{name} {vars(config)[name]}: needs {rule}{others}")
    return config

def load_presets(own=""):
    "The recipes by name: those of presets.json, which gpt.py may have been copied without, and a user's own."
    presets = {"nano": {"about": "the defaults of gpt.py"}}
    files = [HERE / "presets.json"] if beside("presets.json") else []
    if own:
        files.append(Path(own))
    for path in files:
        with explain(f"presets in {path}", OSError, ValueError, TypeError):
            presets |= json.loads(path.read_text(encoding="utf-8"))
    return presets

def recipe(presets, name, level=None):
    "All that a preset sets for a level: its own fields, then those of its part for the level."
    if not isinstance(presets.get(name), dict):
        more = "" if len(presets) > 1 else " (presets.json, which has more, is not beside gpt.py)"
        raise UserError(f"--preset {name}: {nearest(name, presets)}{more}")
    level = convert(KNOBS["level"], level or presets[name].get("level") or KNOBS["level"].default)
    part = presets[name].get(level) or {}
    expect(isinstance(part, dict), f"preset {name}: its part {level} is no object")
    values = {**presets[name], **part, "level": level, "preset": name}
    for no_field in ("about", "for", "expect", "next", "rule", *LEVELS):  # words for people, parts for levels
        values.pop(no_field, None)
    check_known(values, KNOBS, f"preset {name} has a field")
    return values

def configure(asked, saved=None):
    "-> ModelConfig, TrainConfig. What is asked for goes before the preset, or before the run that goes on."
    check_known(asked, KNOBS)
    asked = {name: value for name, value in asked.items() if value is not None}
    if saved:
        base = saved
        preset = saved.get("preset")
        expect(asked.get("preset", preset) == preset, f"--preset: this run goes on with {preset}")
    else:
        minutes = convert(KNOBS["max_minutes"], asked.get("max_minutes", 0))
        default = "auto" if minutes and beside("recipes.py") and beside("presets.json") else "nano"
        default = "finetune" if "init_from" in asked else default
        base = recipe(load_presets(asked.get("presets")), asked.get("preset", default), asked.get("level"))
    # A limit that is asked for replaces all those of the preset: ten minutes are ten. But more minutes for a
    # run that has had minutes leave its other limits.
    limits = [name for name in LIMITS if convert(KNOBS[name], asked.get(name, 0))]
    more_time = limits == ["max_minutes"] and saved and saved.get("max_minutes")
    if limits and not more_time:
        base = {**base, **dict.fromkeys(LIMITS, 0)}
    if not saved and base["preset"] == "auto":
        base |= other_file("recipes").auto(asked)             # what fits text, minutes and machine
    model_config = fill(ModelConfig, {**base, **asked})
    config = fill(TrainConfig, {**base, **asked})
    limited = any(getattr(config, name) for name in LIMITS)
    expect(limited, f"no end in sight: give --{' or --'.join(LIMITS)}")
    return model_config, config

def short(n):
    "1234567 -> 1.23M"
    n = float(f"{n:.3g}")                                     # 999_999 is 1M, not 1e+03k
    unit = min(4, int(math.log10(max(n, 1)) // 3))
    return f"{n / 1000 ** unit:.3g}" + ["", "k", "M", "G", "T"][unit]

def clock(seconds):
    "3725 -> 1:02:05"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

# ---- the command line --------------------------------------------------------------------------------------

COMMANDS = {
    "train": "train a model, or resume a run",
    "sample": "continue a text with a trained model",
}
TOOLS = {                                                     # these live in tools.py
    "chat": "talk to a trained model",
    "serve": "the OpenAI API and one page, on localhost",
    "eval": "how well a model does on a text",
    "plot": "draw the losses of runs",
    "runs": "list the runs that are here",
    "presets": "list the presets: size, memory, do they fit",
    "plan": "time, cost and traffic on other machines",
    "bench": "tokens/s, use of the device and memory",
    "export": "export to Hugging Face, llama.cpp or a Space",
}

class Parser(argparse.ArgumentParser):
    "argparse, but a mistake is one line that names the nearest flag, and --top-k is --top_k."
    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, **settings)
        self.flags = []

    def error(self, message):
        raise UserError(message)

    def add(self, group, name, help, **settings):
        "Two spellings of a flag; --help shows the first."
        self.flags.append(f"--{name}")
        settings = {"dest": name, "default": argparse.SUPPRESS, **settings}
        group.add_argument(f"--{name}", help=help, **settings)
        if "_" in name:
            group.add_argument("--" + name.replace("_", "-"), help=argparse.SUPPRESS, **settings)

    def add_knobs(self, about, fields):
        "A flag for each field. Its value stays text: fill() converts and checks it."
        group = self.add_argument_group(about)
        alone = {"resume": "newest", "compile": "true"}       # what such a flag means without a value
        for name, f in fields.items():
            settings = {"metavar": "|".join(choices(f)) or f.type.__name__.upper()}
            if f.type is bool or name in alone:
                settings |= {"nargs": "?", "const": alone.get(name, "true")}
            if f.type is tuple:
                settings |= {"action": "append", "metavar": "TEXT"}
            self.add(group, name, f"{f.metadata['help']} [{f.default}]", **settings)

    def parse(self, words):
        asked, unknown = self.parse_known_intermixed_args(words)
        check_known([word.partition("=")[0] for word in unknown if word.startswith("-")], self.flags)
        expect(not unknown, f"{' '.join(unknown)}: a value without its flag; for several, repeat the flag")
        return vars(asked)

def add_loading(parser):
    "The flags of every command that works with a trained model."
    parser.add_argument("run", nargs="*", help="a run's folder, a checkpoint, gpt2 ... [the newest run]")
    parser.add_knobs("instead of RUN", {"init_from": KNOBS["init_from"]})
    parser.add_knobs("where and how it computes", {k: KNOBS[k] for k in ("device", "dtype", "threads")})
    parser.add(parser, "compile", "torch.compile: costs a minute, then tokens take less", action="store_true")

def command_line(words):
    "-> the command, and what was asked of it."
    commands = {**COMMANDS, **TOOLS}
    if not words or words[0] in ("-h", "--help", "help"):
        print(__doc__, "Commands, each with its own --help:\n", sep="\n")
        for name, about in commands.items():
            print(f"    {name:10}{about}")
        raise SystemExit
    if words[0] == "--version":
        print(f"gpt.py {__version__}")
        raise SystemExit
    command, *flags = words
    check_known([command], commands, "unknown command")
    parser = Parser(usage=f"python gpt.py {command} [--OPTION VALUE ...]", description=commands[command])
    if command == "train":
        parser.add_knobs(ModelConfig.__doc__, knobs(ModelConfig))
        parser.add_knobs(TrainConfig.__doc__, knobs(TrainConfig))
    elif command == "sample":
        add_loading(parser)
        parser.add(parser, "prompt", "the text to go on from")
        parser.add(parser, "prompt_file", "the file that has it; -: standard input")
        about = "colour each token by its probability, and list what else was likely"
        parser.add(parser, "show_probs", about, action="store_true")
        parser.add_knobs(SampleConfig.__doc__, knobs(SampleConfig))
    else:
        other_file("tools").add_flags(command, parser)
    return command, parser.parse(flags)

# ---- text -> tokens: three ways to cut, one interface ------------------------------------------------------

class Tokenizer:
    """encode(text) -> a list of ids; decode(ids) -> text; decoder() -> the same id by id, while they come.
    state, which goes into meta.json and checkpoints, is all it takes to have the same tokenizer again."""
    lossless = True
    cut = list                                                # a text -> the parts that tokens stand for
    unknown_id = None                                         # the id of what has no token of its own
    end_id = None                                             # the id that ends a document

    def encode(self, text):
        return self.encode_to_numpy(text).tolist()

    def decoder(self, after=()):
        "after: the ids that were there before, on which it depends how the next ones read"
        decoder = DECODERS[self.state["level"]](self)
        for i in after:
            decoder.add(i)
        return decoder

    def decode(self, ids, after=()):
        decoder = self.decoder(after)
        return "".join(decoder.add(int(i)) for i in ids) + decoder.end()

    def unknown(self, text):
        return sorted({part for part, i in zip(self.cut(text), self.encode(text)) if i == self.unknown_id})

class CharTokenizer(Tokenizer):
    "A token is a character. Id 0 is for those that do not stand in the text."
    unknown_id = 0

    def __init__(self, characters):
        self.state = {"level": "char", "characters": characters}
        self.texts = "\N{REPLACEMENT CHARACTER}" + characters  # of each id
        self.vocab_size = len(self.texts)
        self.table = np.zeros(0x110000, np.uint32)            # code point -> id
        self.table[[ord(c) for c in characters]] = np.arange(1, self.vocab_size)
        self.start_id = int(self.table[ord("\n")]) or 1       # what an empty prompt begins with

    @classmethod
    def train(cls, text, config):
        return cls("".join(sorted(set(text))))

    def encode_to_numpy(self, text):
        return self.table[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)]

class WordTokenizer(Tokenizer):
    """A token is a word or a mark. Case and spacing are left out, and put back when decoding; a word is
    kept in the spelling that it has most often, so that Holmes, London and I come out right."""
    lossless = False
    unknown_id = 0
    pattern = re.compile(r"""
        \n\s*\n                                               # a blank line
        | (?<=\w)['’]s\b                                      # 's
        | \d+(?:[.,]\d+)+                                     # 1,000.50
        | [^\W_]+ (?: (?:-|['’](?!s\b)) [^\W_]+ )*            # a word, maybe with - or ' inside
        | \.\.\. | -- | [^\w\s] | _                           # ... and --; any other mark
        """, re.VERBOSE)

    def __init__(self, words):
        self.state = {"level": "word", "words": words}
        self.texts = words                                    # of each id
        self.vocab_size = len(words)
        self.ids = {word.lower(): i for i, word in enumerate(words)}
        self.start_id = self.ids.get("\n\n", min(1, self.vocab_size - 1))

    @classmethod
    def cut(cls, text):
        return [part if part.strip() else "\n\n" for part in cls.pattern.findall(text)]

    @classmethod
    def train(cls, text, config):
        return cls.from_counts(Counter(cls.cut(text)), config.min_freq)

    @classmethod
    def from_counts(cls, counts, min_freq):
        "counts: how often each spelling stands in the text"
        total = Counter()
        spelling = {}
        for word, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            total[word.lower()] += n
            spelling.setdefault(word.lower(), word)           # the commonest one comes first
        kept = sorted((-n, word) for word, n in total.items() if n >= min_freq)
        return cls(["<unk>"] + [spelling[word] for _, word in kept])

    def encode_to_numpy(self, text):
        if '"' not in self.ids:                               # a book has “” and ’, people type " and '
            text = re.sub(r'(^|\s)"', r"\1“", text).replace('"', "”")
        if "'" not in self.ids:
            text = text.replace("'", "’")
        return np.array([self.ids.get(word.lower(), 0) for word in self.cut(text)], np.uint32)

class BPETokenizer(Tokenizer):
    "A token is a frequent run of bytes: GPT-2's 50,257, or as many as data.py trained. tokens: in base64."
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

    def __init__(self, tokens, name="own"):
        self.state = {"level": "bpe", "name": name, "tokens": tokens}
        ranks = {base64.b64decode(token): i for i, token in enumerate(tokens.split())}
        self.end_id = self.start_id = len(ranks)
        self.vocab_size = len(ranks) + 1
        self.bpe = need("tiktoken").Encoding(name, pat_str=self.pattern, mergeable_ranks=ranks,
                                             special_tokens={"<|endoftext|>": self.end_id})

    @classmethod
    def train(cls, text, config):
        "GPT-2's. data.py trains others."
        how = "GPT-2's tokens can't be downloaded; train your own, with --vocab_size 4096"
        with explain(how, OSError, ValueError, kind=RunError):
            ranks = need("tiktoken").get_encoding("gpt2")._mergeable_ranks
        in_order = sorted(ranks, key=ranks.get)
        return cls(" ".join(base64.b64encode(token).decode() for token in in_order), "gpt2")

    def encode_to_numpy(self, text):
        return np.array(self.bpe.encode_ordinary(text), np.uint32)

class Decoder:
    "Ids in, one at a time; text out. What a token reads like depends on those before it."
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def add(self, i):
        return self.tokenizer.texts[i]

    def end(self):
        "What is left when no more ids come."
        return ""

class WordDecoder(Decoder):
    "Puts back what was left out: a space before most words, a capital where a sentence begins."
    joins_left = set("\n—.,;:!?)]}”’…%")                      # no space before these
    joins_right = set("\n—([{“‘#$£")                          # and none after these
    pairs = {'"', "'", "_"}                                   # the same mark opens and closes

    before = "\n\n"
    capital = True                                            # whether the next word begins a sentence
    opened = frozenset()                                      # the pairs that wait for their second half

    def add(self, i):
        word = self.tokenizer.texts[i]
        closes = word in self.opened
        joins = (closes or self.before in self.opened or word == "'s" or "--" in (word, self.before)
                 or word[0] in self.joins_left or self.before[-1] in self.joins_right)
        if word == "\n\n":
            self.opened = frozenset()
        elif word in self.pairs:
            self.opened = self.opened ^ {word}
        text = word[0].upper() + word[1:] if self.capital else word
        if word in (".", "!", "?", "\n\n", "“") or word == '"' and not closes:
            self.capital = True
        elif word[0].isalnum():
            self.capital = False
        self.before = word
        return text if joins else " " + text

class BPEDecoder(Decoder):
    "A character may be spread over several tokens: its text comes with the last of them."
    unread = b""                                              # the beginning of such a character

    def add(self, i):
        unread = self.unread + self.tokenizer.bpe.decode_single_token_bytes(i)
        text, read = codecs.utf_8_decode(unread, "replace", False)
        self.unread = unread[read:]
        return text

    def end(self):
        return self.unread.decode("utf-8", "replace")

TOKENIZERS = {"char": CharTokenizer, "word": WordTokenizer, "bpe": BPETokenizer}
DECODERS = {"char": Decoder, "word": WordDecoder, "bpe": BPEDecoder}

def load_tokenizer(state):
    settings = {k: v for k, v in state.items() if k != "level"}
    return TOKENIZERS[state["level"]](**settings)

# ---- the corpus: tokens to train on and tokens to validate on ----------------------------------------------

PACKED = (".jsonl", ".csv", ".parquet", ".gz", ".zst", ".bz2", ".xz", ".zip")  # what only data.py reads

def read_text(source):
    "A text file, whole. builtin: English that every Python brings along, its own manual."
    if source == "builtin":
        return manual()
    with explain(f"--data {source} can't be read", OSError, UnicodeDecodeError):
        text = Path(source).read_text(encoding="utf-8-sig")
    expect("\0" not in text, f"--data {source} is not text: at offset {text.find(chr(0)):,} is a zero byte")
    expect(text.strip(), f"--data {source} is empty: there is nothing to learn from")
    return text

def manual():
    "The prose of Python's own manual: its paragraphs of sentences, each once, without marks for printers."
    with explain("this Python lacks its manual", ImportError, kind=RunError):
        from pydoc_data.topics import topics
    found = {}                                                # a dict keeps their order
    for name in sorted(topics):
        for paragraph in topics[name].split("\n\n"):
            text = re.sub(r'\*\*|\*(?=\w)|(?<=\w)\*|"|\[\d+\]', "", paragraph)  # *emphasis*, "code", [1]
            text = " ".join(text.split())
            letters = sum(c.isalpha() or c in " ,.-" for c in text)
            prose = re.fullmatch("[A-Z].{60,}[.!?]", text) and not re.search(r"__|\(\)", text)
            if prose and letters > 0.93 * len(text):
                found[text] = True
    return "\n\n".join(found)

def prepare(config, chosen):
    """-> a folder that data.py made, a text file, or builtin. What is no plain text, or too much for memory,
    goes through data.py. chosen: the user named it. If not, and it can't be had, builtin takes its place."""
    path = Path(config.data)
    own_bpe = config.level == "bpe" and config.vocab_size > 0  # which data.py learns
    small_text = os.path.isfile(path) and path.suffix.lower() not in PACKED and path.stat().st_size < 1 << 27
    plain = small_text or config.data == "builtin"
    if os.path.exists(path / "meta.json") or (plain and not own_bpe):
        return config.data
    if path.suffix in (".txt", ".md") and not re.search(r"://|[*?\[]", config.data):  # no address, no glob
        expect(path.exists(), f"--data {config.data}: there is no such file")
    if beside("data.py"):
        flags = [f"--{k}={vars(config)[k]}" for k in ("level", "val_fraction", "min_freq", "vocab_size")]
        command = [sys.executable, str(HERE / "data.py"), config.data, *flags]
        errors = None if chosen else subprocess.DEVNULL       # shown to those who asked for this text
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8")
        if done.returncode == 0:
            return done.stdout.splitlines()[-1]               # the folder's name, as data.py promises
        expect(not chosen, f"--data {config.data} could not be prepared by data.py", ToldError)
    trouble = "could not be had" if beside("data.py") else "needs data.py beside gpt.py"
    expect(not chosen, f"--data {config.data} {trouble}; --data builtin --level char always works", RunError)
    note = f"note: {config.data} {trouble}: training on --data builtin, Python's manual"
    print(f"\033[1;33m{note}\033[0m" if sys.stdout.isatty() else note, flush=True)
    config.data = "builtin"
    return prepare(config, chosen=True)

def open_corpus(source, config, block_size, tokenizer=None):
    "-> .tokenizer, .train and .val (ids; those of a folder stay on disk until read), .val_bytes, .sha256"
    if Path(source).is_dir():
        corpus = open_folder(Path(source), config.level)
    else:
        text = read_text(source)
        tokenizer = tokenizer or TOKENIZERS[config.level].train(text, config)
        cut = int((1 - config.val_fraction) * len(text))
        corpus = SimpleNamespace(tokenizer=tokenizer, val_bytes=len(text[cut:].encode()))
        corpus.train, corpus.val = map(tokenizer.encode_to_numpy, (text[:cut], text[cut:]))
        corpus.sha256 = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    same = tokenizer is None or tokenizer.state == corpus.tokenizer.state
    expect(same, f"{source} has other tokens than the weights to begin with: give the text itself")
    n, n_val = len(corpus.train), len(corpus.val)
    expect(min(n, n_val) > 1, f"{source} has {n} tokens to train on, {n_val} to validate on: give more text")
    expect(n > block_size, f"{source} has {n:,} tokens to train on: --block_size {n - 1} would fit")
    return corpus

def open_folder(folder, level):
    with explain(f"{folder} is not a folder that data.py made", OSError, *MALFORMED):
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        dtype = np.dtype(meta["dtype"]).newbyteorder("<")
        corpus = SimpleNamespace(val_bytes=int(meta["val_bytes"]), sha256=str(meta.get("sha256", "")))
        corpus.tokenizer = load_tokenizer(meta["tokenizer"])
        corpus.train = np.memmap(folder / "train.bin", dtype, "r")
        if corpus.train.nbytes > 1 << 30 and hasattr(mmap, "MADV_RANDOM"):
            corpus.train._mmap.madvise(mmap.MADV_RANDOM)      # nothing is read ahead: windows are short
        corpus.val = np.memmap(folder / "val.bin", dtype, "r")
        whole = [len(corpus.train), len(corpus.val)] == [meta["train_tokens"], meta["val_tokens"]]
        expect(whole, f"{folder}: a .bin was cut short; prepare it again")
        expect(corpus.val_bytes > 0, f"{folder}: its val_bytes are none")
        expect(meta["level"] == level, f"{folder} needs --level {meta['level']}")
    return corpus

# ---- commands without torch end here (data.py runs this file down to its line `import torch`) --------------

def run_command(command, asked):
    if command in TOOLS:
        other_file("tools").COMMANDS[command](asked)
    elif command == "train":
        train_command(asked)
    else:
        sample_command(asked)

if __name__ == "__main__" and IS_FILE:
    # What needs no torch ends here, before it takes its second to load; the rest runs at the end of the file.
    sys.modules["gpt"] = sys.modules["__main__"]              # `import gpt` in tools.py gets this module
    with errors_told():
        command, asked = command_line(sys.argv[1:])
        if command in ("presets", "plan", "runs", "plot"):
            run_command(command, asked)
            raise SystemExit
        if command == "train" and sys.stdout.isatty():
            print("loading torch ...", flush=True)
        # CPU threads wait for each other by spinning, on Linux for milliseconds. Where other programs want
        # the cores, the thread waited for can't run: a run took 7 times as long as alone, with this 2.2.
        if "OMP_WAIT_POLICY" not in os.environ:
            os.environ.setdefault("GOMP_SPINCOUNT", "3000")
        need("torch")

import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
import torch.utils.checkpoint
from torch.nn.parallel import DistributedDataParallel

# ---- tokens -> batches: a pure function of (seed, step) ----------------------------------------------------

class Batches:
    """A step's number alone says which windows of the text it gets: a run that goes on needs no memory of its
    data. In each epoch the text, taken as a ring, is cut into windows from another offset on, and these are
    shuffled anew: each token is a target once an epoch, except for a rest shorter than a window."""
    def __init__(self, corpus, block_size, batch_size, seed, device):
        self.tokens, self.vocab_size = corpus.train, corpus.tokenizer.vocab_size
        self.block_size, self.batch_size, self.seed, self.device = block_size, batch_size, seed, device
        self.windows = len(self.tokens) // block_size         # in an epoch

    def __call__(self, step, first, end):
        "Rows of a step's batch, first to end (without it) -> inputs and targets, (rows, block_size) each."
        rows = step * self.batch_size + np.arange(first, end)  # counted since the run began
        epochs, nth = np.divmod(rows, self.windows)           # the nth window of a shuffled epoch
        starts = []
        for epoch in np.unique(epochs):                       # a batch can span two
            rng = np.random.default_rng((self.seed, epoch))
            shift = rng.integers(len(self.tokens))
            windows = shuffled(nth[epochs == epoch], self.windows, rng)
            starts.append(shift + self.block_size * windows)
        starts = np.concatenate(starts)[:, None]
        places = (starts + np.arange(self.block_size + 1)) % len(self.tokens)  # (rows, block_size + 1)
        ids = self.tokens[places].astype(np.int64)
        check_ids(ids, self.vocab_size)
        ids = to_device(torch.from_numpy(ids), self.device)
        return ids[:, :-1], ids[:, 1:]

def shuffled(places, n, rng):
    """Where a random permutation of range(n) sends these places, without writing it down: n may be billions.
    A Feistel network permutes all numbers of 2 * half bits: a round XORs one half with a hash of the other,
    which can be undone, so no two collide. A result of n or more goes in again (cycle walking)."""
    half = max(1, ((n - 1).bit_length() + 1) // 2)            # bits
    keys = rng.integers(1 << 63, size=8, dtype=np.uint64)     # one a round
    knuth = np.uint64(0x9E3779B97F4A7C15)                     # 2^64 / golden ratio: products scatter well
    found = places.astype(np.uint64)
    outside = np.full(len(found), True)                       # those that are not below n yet: at first, all
    while outside.any():
        left, right = np.divmod(found[outside], 1 << half)
        for key in keys:
            mixed = (right ^ key) * knuth                     # into a hash of the right half: low bits go up,
            mixed = (mixed ^ (mixed >> 29)) * knuth           # high bits come down and go up once more,
            mixed = mixed >> (64 - half)                      # and the highest, the best mixed, are taken
            left, right = right, left ^ mixed
        found[outside] = (left << half) + right
        outside = found >= n
    return found.astype(np.int64)

def check_ids(ids, vocab_size):
    "An id from nowhere would crash a GPU later on, without a word of why."
    top = ids.max()
    expect(top < vocab_size, f"the data has token {top}, outside of its {vocab_size}: prepare it anew")

def to_device(tensor, device):
    if device.type == "cuda":                                 # from pinned memory: the CPU need not wait
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)

def fixed_windows(tokens, block_size):
    """A split, window by window -> inputs and targets, (windows, block_size) each. Each token but the first
    is a target once. The last window is filled up with -100, cross_entropy's ignore_index."""
    windows = -(-(len(tokens) - 1) // block_size)             # rounded up
    padded = np.full(windows * block_size + 1, -100)
    padded[:len(tokens)] = tokens
    inputs = padded[:-1].reshape(windows, block_size).clip(0)
    targets = padded[1:].reshape(windows, block_size)
    return torch.from_numpy(inputs), torch.from_numpy(targets)

# ---- the model: GPT-2, its parts named as OpenAI and Hugging Face name them --------------------------------

# In shapes: B sequences (the batch), T tokens in each, C numbers a token (n_embd, the channels), H heads of
# D = C / H channels, S tokens that can be looked at, V tokens in the vocabulary.

class Linear(nn.Module):
    "y = x W + b. W is (in, out), as GPT-2 stores it: weights travel to and from Hugging Face as they are."
    def __init__(self, n_in, n_out, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_in, n_out) * 0.02)
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None

    def forward(self, x):                                     # (..., in) -> (..., out)
        return F.linear(x, self.weight.T, self.bias)

class Attention(nn.Module):
    "Causal self-attention: each token asks all up to itself (query, key) what they have to say (value)."
    def __init__(self, config, dropout, layer):
        super().__init__()
        C = config.n_embd
        self.n_head = config.n_head
        self.dropout = dropout
        self.layer = layer                                    # its number, for the cache
        self.c_attn = Linear(C, 3 * C, config.bias and config.qkv_bias)
        self.c_proj = Linear(C, C, config.bias)

    def forward(self, x, cache=None):
        B, T, C = x.shape
        heads = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = heads.permute(2, 0, 3, 1, 4)                # (B, H, T, D) each
        if cache is not None:
            k, v = cache.append(self.layer, k, v)             # (B, H, S, D): of all tokens that were read
        y = attend(q, k, v, self.dropout if self.training else 0.0)  # (B, H, T, D)
        y = y.transpose(1, 2).reshape(B, T, C)                # the heads side by side again
        return self.c_proj(y)

class MLP(nn.Module):
    "What each token makes of what it knows, by itself."
    def __init__(self, config):
        super().__init__()
        C = config.n_embd
        self.c_fc = Linear(C, 4 * C, config.bias)
        self.c_proj = Linear(4 * C, C, config.bias)

    def forward(self, x):                                     # (B, T, C) -> (B, T, C)
        x = self.c_fc(x)                                      # (B, T, 4 C)
        x = F.gelu(x, approximate="tanh")
        return self.c_proj(x)

class Block(nn.Module):
    """Tokens tell each other what they know (attention), then each thinks (MLP). Both read a normalised copy
    of x, the residual stream, and add to it."""
    def __init__(self, config, dropout, layer):
        super().__init__()
        self.dropout = dropout
        # Optimizers store their state by the place of a parameter: this order is part of the format.
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = Attention(config, dropout, layer)
        self.mlp = MLP(config)

    def forward(self, x, cache=None):                         # (B, T, C) -> (B, T, C)
        p = self.dropout if self.training else 0.0
        x = x + dropout(self.attn(self.ln_1(x), cache), p)
        x = x + dropout(self.mlp(self.ln_2(x)), p)
        return x

class GPT(nn.Module):
    "Embeddings of tokens and positions, n_layer blocks, and a head: the likeness to each token's embedding."
    def __init__(self, config, dropout=0.0, checkpoint_activations=False, label_smoothing=0.0):
        super().__init__()
        self.config = config
        self.dropout = dropout
        self.label_smoothing = label_smoothing
        self.checkpoint_activations = checkpoint_activations  # keep only blocks' inputs for the way back
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)  # tokens; also the head (weight tying)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)  # positions
        self.h = nn.ModuleList(Block(config, dropout, layer) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, bias=config.bias)
        for table in (self.wte, self.wpe):
            nn.init.normal_(table.weight, std=0.02)
        for block in self.h:                                  # as in GPT-2: 2 n_layer outputs of these add up
            for last in (block.attn.c_proj, block.mlp.c_proj):  # in the residual stream, which must not grow
                last.weight.data *= (2 * config.n_layer) ** -0.5

    def forward(self, ids, cache=None, last_only=False, targets=None):
        """(B, T) token ids -> (B, T, V) logits: after each of the T, how likely is each token next?
        With a cache the ids go on from those read before. last_only: (B, 1, V), after the last token.
        With targets, the tokens that did come next: the loss."""
        B, T = ids.shape
        past = cache.length if cache else 0
        if past + T > self.config.block_size:
            raise UserError(f"{past + T} tokens are more than the context of {self.config.block_size}")
        positions = self.wpe.weight[past:past + T]            # (T, C)
        x = self.wte(ids) + positions                         # (B, T, C)
        x = dropout(x, self.dropout if self.training else 0.0)
        for block in self.h:
            if self.checkpoint_activations and self.training:
                x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x, cache)
        if cache:
            cache.length += T
        if last_only:
            x = x[:, -1:]
        x = self.ln_f(x)
        return self.head(x) if targets is None else self.loss(x, targets)

    def loss(self, x, targets):                               # a method, so that it compiles as one
        return loss_of(self.head(x), targets, self.label_smoothing if self.training else 0.0)

    def head(self, x):                                        # (B, T, C) -> (B, T, V)
        table = self.wte.weight                               # (V, C)
        if self.training and x.device.type == "cuda":         # trains faster in multiples of 64
            padded = F.pad(table, (0, 0, 0, -len(table) % 64))
            return F.linear(x, padded)[:, :, :len(table)]
        return F.linear(x, table)

def loss_of(logits, targets, label_smoothing=0.0):
    """Cross-entropy: how surprised the model was by what came, in nats a token. targets: (B, T), where -100
    does not count, or how likely each token should have been, (B, T, V). label_smoothing: what share of that
    all tokens have alike, so that the model never takes one for impossible."""
    logits, targets = logits.float().flatten(0, 1), targets.flatten(0, 1)  # (B T, V) and (B T) or (B T, V)
    return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)

def attend(q, k, v, p):
    """Each query weighs the keys by likeness and takes the mean of their values. q: (B, H, T, D), of the last
    T of the S tokens that k and v: (B, H, S, D) have. No query sees a token after its own. p: dropout."""
    T, S = q.size(2), k.size(2)
    if q.device.type == "cpu" and torch.is_grad_enabled() and S == T:
        return attend_on_cpu(q, k, v, p)
    seen = None                                               # T == S: is_causal says it; T == 1: it sees all
    if 1 < T < S:                                             # token t sees 0 to S - T + t
        seen = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    return F.scaled_dot_product_attention(q, k, v, seen, dropout_p=p, is_causal=S == T)

def attend_on_cpu(q, k, v, p):
    "The same, step by step: in bfloat16 torch's own kernel trains four times as slowly on CPUs."
    B, H, T, D = q.shape
    q, k, v = (part.reshape(B * H, T, D) for part in (q, k, v))
    future = q.new_full((T, T), -1e4).triu(1)                 # after the softmax: 0
    scores = torch.baddbmm(future, q, k.mT, alpha=D ** -0.5)  # (B*H, T, T): q k^T / sqrt(D) + future
    weights = dropout(scores.softmax(-1), p)
    return (weights @ v).view(B, H, T, D)

def dropout(x, p):
    """Leaves out each number with probability p, and scales up the others to keep the mean. On CPUs F.dropout
    draws a number for each element. 64 bits are enough for four: the mask is as random, comes 6 times faster,
    and a small model trains twice as fast."""
    if p == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    bits = torch.randint(-2 ** 63, 2 ** 63 - 1, (x.numel() // 4 + 1,)).view(torch.int16)
    threshold = min(round(p * 65536), 65535) - 32768          # a share p of all 16-bit numbers lies below
    keep = bits[:x.numel()].view(x.shape).ge_(threshold)      # 1 or 0, still in 16 bits
    return x * keep.to(x.dtype).div_(1 - p)

# ---- the optimizer -----------------------------------------------------------------------------------------

class Muon(torch.optim.Optimizer):
    """Keller Jordan's Muon: momentum, but each matrix moves by an orthogonal step, which is equally long in
    all directions, also in those of which the gradient says little. Unlike torch.optim.Muon it takes q, k and
    v for the three matrices they are, and sends all matrices of one shape through the iteration together."""
    WORTH_SHARING = 100_000                                   # numbers: fewer are quicker computed than sent
    def __init__(self, groups, lr, momentum, weight_decay, dtype):
        super().__init__(groups, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))
        self.dtype = dtype
        self.found_inf = torch.zeros((), device=groups[0]["params"][0].device)  # 1: step() changes nothing

    @torch.no_grad()
    def step(self):
        go = 1 - self.found_inf
        for group in self.param_groups:
            updates = [self.nesterov(w, group, go) for w in group["params"]]  # (parts, in, out) each
            n_in, n_out = updates[0].shape[1:]
            updates = self.orthogonal_shared(torch.cat(updates))
            lr = go * group["lr"]
            kept = 1 - lr * group["weight_decay"]
            scale = lr * max(1, n_out / n_in) ** 0.5          # a wide matrix's step spreads over more columns
            for w, update in zip(group["params"], updates.split(group["parts"])):
                w.mul_(kept)
                w.sub_(scale * update.transpose(0, 1).reshape(w.shape))

    def nesterov(self, w, group, go):
        "-> Nesterov's momentum of w's gradient, (parts, in, out): that of c_attn is cut into q, k and v."
        if w not in self.state:
            self.state[w]["momentum"] = torch.zeros_like(w)
        momentum = self.state[w]["momentum"]
        gradient = torch.where(go > 0, w.grad, momentum)      # a skipped step leaves it as it is
        momentum.lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(momentum, group["momentum"])
        return ahead.unflatten(1, (group["parts"], -1)).transpose(0, 1)

    def orthogonal_shared(self, stack):
        "Of several processes each does its part of the stack; all get all of it."
        alone = not (dist.is_available() and dist.is_initialized())
        if alone or stack.numel() < self.WORTH_SHARING:
            return orthogonal(stack, self.dtype)
        processes = dist.get_world_size()
        parts = F.pad(stack, (0, 0, 0, 0, 0, -len(stack) % processes)).chunk(processes)
        mine = orthogonal(parts[dist.get_rank()], self.dtype).contiguous()
        done = [torch.empty_like(mine) for _ in parts]
        dist.all_gather(done, mine)
        return torch.cat(done)[:len(stack)]

def orthogonal(m, dtype=torch.float32):
    """Newton-Schulz: five rounds, all of them products, that bring the singular values of a stack of matrices
    near 1. The coefficients are Keller Jordan's: they lift small values fastest."""
    tall = m.size(-2) > m.size(-1)
    m = m.mT if tall else m
    m = m / (m.norm(dim=(-2, -1), keepdim=True) + 1e-12)
    m = m.to(dtype)                                           # not before: float16 would lose small gradients
    for _ in range(5):
        A = m @ m.mT
        B = torch.baddbmm(A, A, A, beta=-4.7750, alpha=2.0315)  # -4.7750 A + 2.0315 A A
        m = torch.baddbmm(m, B, m, beta=3.4445)               # 3.4445 m + B m
    return m.mT if tall else m

def make_optimizers(model, config, dtype):
    "Every parameter in one group of one optimizer; weight decay for the blocks' matrices alone."
    trained = {name: w for name, w in model.named_parameters() if w.requires_grad}
    matrices = {name: w for name, w in trained.items() if name.startswith("h.") and w.ndim == 2}
    others = [w for name, w in trained.items() if name not in matrices]
    groups = [{"params": others, "weight_decay": 0.0}]
    optimizers = []
    if config.optimizer == "adamw":
        groups.append({"params": list(matrices.values()), "weight_decay": config.weight_decay})
    elif matrices:                                            # else all blocks are frozen
        stacks = []
        for name, parts in (("attn.c_attn", 3), ("attn.c_proj", 1), ("mlp.c_fc", 1), ("mlp.c_proj", 1)):
            stack = [w for key, w in matrices.items() if name in key]  # one of each block: of one shape
            stacks.append({"params": stack, "parts": parts})
        optimizers.append(Muon(stacks, config.muon_lr, config.momentum, config.weight_decay, dtype))
    betas = (config.beta1, config.beta2)
    optimizers.append(torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=True))
    return optimizers

# ---- checkpoints: one file that needs nothing but gpt.py ---------------------------------------------------

CHECKPOINT_VERSION = 2

def write_whole(path, write):
    "Written aside, flushed to disk, renamed: whatever happens, a whole file stands under the name."
    aside = path.with_name(path.name + ".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)            # somebody may have taken it away
    aside.unlink(missing_ok=True)
    try:
        with open(aside, "xb") as file:                       # x: follows no link that stands there
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    if os.name == "posix":                                    # the new name must be on disk, too
        folder = os.open(path.parent, os.O_RDONLY)
        with contextlib.suppress(OSError):                    # some network disks refuse
            os.fsync(folder)
        os.close(folder)

def save_checkpoint(path, checkpoint):
    try:
        write_whole(path, lambda file: torch.save(checkpoint, file))
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):            # what the system said, and torch hides
            raise error.__context__ from None
        raise

def load_checkpoint(path):
    """weights_only: a stranger's file may hold numbers and names, but can run no code. torch does not look at
    the checksums of its archive, so we do: a flipped bit would load as another weight."""
    expect(Path(path).is_file(), f"{path} is no file")        # a pipe would wait for ever
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        version = int(checkpoint["version"])
    except Exception as error:                                # a damaged file can raise anything
        unread = isinstance(error, OSError) and error.errno != errno.EINVAL  # EINVAL: a damaged offset
        if unread or out_of_memory(error):                    # the file may be well
            raise
        raise UserError(f"{path} is no checkpoint of gpt.py, or a part of one") from error
    expect(not damaged, f"{path} is damaged: the checksum of {damaged} is wrong")
    expect(version <= CHECKPOINT_VERSION, f"{path} has format {version}; gpt.py is too old: get a newer one")
    return checkpoint

def model_of(checkpoint, path):
    "-> the model and its tokenizer. Rules and shapes are checked before anything of that size is built."
    with explain(f"{path} is no checkpoint of gpt.py", *MALFORMED):
        config = fill(ModelConfig, checkpoint["model_config"])
        config.vocab_size = int(checkpoint["model_config"]["vocab_size"])
        expect(isinstance(checkpoint.get("train_config", {}), dict), f"{path}: its train_config is no table")
        tokenizer = load_tokenizer(checkpoint["tokenizer"])
        expect(tokenizer.vocab_size == config.vocab_size, f"{path}: its tokenizer is another model's")
        with torch.device("meta"):
            model = GPT(config)
        model.load_state_dict(checkpoint["model"], assign=True)
    finite = all(bool(w.isfinite().all()) for w in model.parameters())
    expect(finite, f"{path} holds weights that are no numbers: take an earlier checkpoint")
    return model, tokenizer

def find_checkpoint(run="", names=("best.pt", "latest.pt")):
    "A run's folder, a checkpoint, or nothing for the newest run -> the path of a checkpoint."
    if run and Path(run).is_file():
        return Path(run)
    folders = [folder for root in RUN_ROOTS for folder in root.glob("*/")]
    folders.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
    if run:
        expect(Path(run).is_dir(), f"{run}: no such run; {nearest(run, folders or ['none yet'])}")
        folders = [Path(run)]
    found = [folder / name for folder in folders for name in names if os.path.exists(folder / name)]
    expect(found, f"no checkpoint in {run or 'runs'}: train one with  python gpt.py train --preset nano")
    return found[0]

def has_checkpoint(folder):
    "os.path, since Path.exists() raises where one may not look."
    return any(os.path.exists(os.path.join(folder, name)) for name in ("best.pt", "latest.pt"))

def open_checkpoint(source=""):
    "-> a checkpoint and its path: of a RUN, or of weights from elsewhere, which convert.py reads."
    source = str(source)
    place = Path(source)
    elsewhere = source.startswith(("gpt2", "hf:")) and not place.exists()
    if source and place.is_dir() and not holds_run(place):
        elsewhere = (place / "config.json").exists() or (place / "ckpt.pt").exists()
    if not elsewhere:
        path = find_checkpoint(source)
        try:
            return load_checkpoint(path), path
        except UserError:
            if path != place or not beside("convert.py"):     # which knows nanoGPT's
                raise
    return other_file("convert").checkpoint_from(source), source

# ---- sampling: tokens -> text ------------------------------------------------------------------------------

class Cache:
    "The KV cache: keys and values of the tokens that were read, so that each is read only once."
    def __init__(self, model, rows):
        c, like = model.config, model.wte.weight
        shape = (rows, c.n_head, c.block_size, c.n_embd // c.n_head)  # (B, H, block_size, D)
        self.keys = [like.new_zeros(shape) for _ in model.h]
        self.values = [like.new_zeros(shape) for _ in model.h]
        self.length = 0                                       # how many tokens were read

    def append(self, layer, k, v):                            # T new: (B, H, T, D) -> all S: (B, H, S, D)
        end = self.length + k.size(2)
        self.keys[layer][:, :, self.length:end] = k
        self.values[layer][:, :, self.length:end] = v
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

def pick(logits, recent, options, generator):
    "(B, vocab_size) logits, (B, W) ids that were just said or None -> (B,) ids of what comes next."
    if recent is not None:
        said = logits.gather(1, recent)                       # away from what was said, whatever its sign
        said = torch.where(said > 0, said / options.repetition_penalty, said * options.repetition_penalty)
        said = said.clamp(-1e30, 1e30)                        # also with a penalty of 1e300
        logits = logits.scatter(1, recent, said)
    if options.temperature < 1e-3:                            # too cold for anything but the likeliest
        return logits.argmax(-1)
    logits = logits / options.temperature
    if options.top_k:
        least = logits.topk(min(options.top_k, logits.size(-1))).values[:, -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    probs = logits.softmax(-1)
    if options.min_p:
        probs = probs.masked_fill(probs < options.min_p * probs.amax(-1, keepdim=True), 0)
    if options.top_p < 1:                                     # the likeliest stays in any case
        likely, order = probs.sort(descending=True)
        before = likely.cumsum(-1) - likely
        likely = likely.masked_fill(before >= options.top_p * likely.sum(-1, keepdim=True), 0)
        probs = torch.zeros_like(probs).scatter(1, order, likely)
    # Divided by exponential noise, the largest one is a draw from probs, as torch.multinomial's, but without
    # its checks, which take as long as a small model (the exponential race, or Gumbel-max trick).
    noise = torch.empty_like(probs).exponential_(generator=generator)
    return (probs / noise).argmax(-1)

@torch.inference_mode()
def generate(lm, prompt, options):
    """Goes on from a prompt, a list of ids, in num_samples rows. For each new token: the rows' ids, the
    (rows, vocab_size) logits that they were picked from, and how full the context is."""
    T, W = lm.config.block_size, options.repetition_window
    rows = [list(prompt[-max(T, W):]) for _ in range(options.num_samples)]
    ended = [False] * len(rows)
    generator = torch.Generator(lm.device).manual_seed(options.seed)
    cache = None
    for _ in range(options.max_new_tokens):
        if cache is None or cache.length == T:
            # When the context is full, the last T/2 tokens are read again into an empty cache. That is T/2
            # extra tokens every T/2 steps: the cost per token is constant.
            keep = max(1, T // 2) if cache else T
            rows = [row[-max(keep, W):] for row in rows]
            unread = torch.tensor([row[-keep:] for row in rows], device=lm.device)  # (B, up to T)
            cache = Cache(lm.model, len(rows))
        logits = lm.model(unread, cache, last_only=True)[:, 0].float()
        if lm.tokenizer.unknown_id is not None:
            logits[:, lm.tokenizer.unknown_id] = -math.inf    # it stands for no text
        recent = None
        if options.repetition_penalty != 1:
            recent = torch.tensor([row[-W:] for row in rows], device=lm.device)  # (B, up to W)
        picked = pick(logits, recent, options, generator)     # (B,)
        ids = picked.tolist()
        ended = [was or i == lm.tokenizer.end_id for was, i in zip(ended, ids)]
        if all(ended):
            return
        yield ids, logits, cache.length
        for row, i in zip(rows, ids):
            row.append(i)
        unread = picked[:, None]                              # (B, 1)

class StopTexts:
    """Text goes in piece by piece and comes out as far as it is sure: up to the stop text that is complete
    first (of two that end together, the longer), and without what may be the beginning of one."""
    def __init__(self, stops):
        self.stops = stops
        self.held = ""
        self.found = False

    def add(self, piece):
        "-> the text that is sure by now"
        text = self.held + piece
        places = [(text.find(stop) + len(stop), text.find(stop)) for stop in self.stops if stop in text]
        if places:
            self.found = True
            _, sure = min(places)
        else:
            begun = [n for stop in self.stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
            sure = len(text) - max(begun, default=0)
        self.held = text[sure:]
        return text[:sure]

class LM:
    "A trained model with its tokenizer: .stream(prompt), .sample(prompt), .model(ids), .tokenizer, .config"
    path = precision = train_config = None                    # load() tells

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer, self.config = model, tokenizer, model.config
        self.device = model.wte.weight.device

    def __repr__(self):
        level, c = self.tokenizer.state["level"], self.config
        return (f"LM({self.path}: level {level}, {c.n_layer} layers, {c.n_head} heads, {c.n_embd} wide, "
                f"context {c.block_size}, {self.precision})")

    def encode(self, prompt):
        return self.tokenizer.encode(prompt) or [self.tokenizer.start_id]

    def tokens(self, prompt, options):
        "Each new token: its text, its id, and the logits it was picked from. How it went is in .report."
        ids = self.encode(prompt)
        decoder = self.tokenizer.decoder(ids)
        report = self.report = SimpleNamespace(reason="cancelled", tokens=0, first_s=0.0, tokens_per_s=0.0,
                                               context_used=min(len(ids), self.config.block_size))
        started = time.perf_counter()
        for new, logits, context_used in generate(self, ids, options):
            seconds = time.perf_counter() - started
            report.tokens += 1
            report.tokens_per_s = report.tokens / seconds
            report.first_s = report.first_s or seconds
            report.context_used = context_used
            yield decoder.add(new[0]), new[0], logits[0]
        report.reason = "length" if report.tokens == options.max_new_tokens else "end"
        if rest := decoder.end():                             # of a character that was cut
            yield rest, None, None

    def stream(self, prompt="", **options):
        "Text that goes on from the prompt, piece by piece."
        options = sampling({**options, "num_samples": 1})
        stops = StopTexts(options.stop)
        for text, *_ in self.tokens(prompt, options):
            if sure := stops.add(text):
                yield sure
            if stops.found:
                self.report.reason = "stop"
                return
        if stops.held:
            yield stops.held

    def sample(self, prompt="", **options):
        "All of it as one text; with num_samples a list of so many. For a list of prompts: a list of these."
        if not isinstance(prompt, str):
            return [self.sample(text, **options) for text in prompt]
        o, ids = sampling(options), self.encode(prompt)
        if o.num_samples == 1:
            return "".join(self.stream(prompt, **options))
        steps = [new for new, *_ in generate(self, ids, o)]   # side by side: in each step one id a text
        texts = []
        for row in range(o.num_samples):
            its_ids = (step[row] for step in steps)
            new = itertools.takewhile(lambda i: i != self.tokenizer.end_id, its_ids)
            stops = StopTexts(o.stop)
            text = stops.add(self.tokenizer.decode(new, after=ids))
            texts.append(text if stops.found else text + stops.held)
        return texts

def sampling(options):
    check_known(options, knobs(SampleConfig))
    return fill(SampleConfig, options)

def load(run="", device="auto", dtype="float32", threads=0, compile=False):
    """A run's folder, a checkpoint, weights from elsewhere, or nothing for the newest run -> an LM.
    dtype="auto": what samples fastest on this device."""
    checkpoint, path = open_checkpoint(run)
    model, tokenizer = model_of(checkpoint, path)
    config = fill(TrainConfig, {"dtype": dtype, "threads": threads})
    device = pick_device(device)
    if device.type == "cpu" and num_parameters(model) < 4_000_000:
        # So few weights are read faster than converted, and used faster than several threads can start.
        config.threads = config.threads or 1
        if config.dtype == "auto":
            config.dtype = "float32"
    dtype, threads, _ = choose_precision(config, device)
    torch.set_num_threads(threads)
    model = laid_out(model.to(device).eval(), dtype)
    if compile:
        model = torch.compile(model, dynamic=True)
    lm = LM(model, tokenizer)
    lm.path, lm.train_config = path, checkpoint.get("train_config", {})
    lm.precision = f"{name_of(dtype)} on {device}, threads: {threads}"
    return lm

def laid_out(model, dtype):
    """-> the model in this dtype, laid out for sampling. CPUs multiply one token up to 1.5 times faster where
    the token table lies by columns and the rest by rows in float32, and the other way round in bfloat16."""
    model = model.to(dtype)
    for name, w in model.named_parameters():
        by_columns = (name == "wte.weight") == (dtype == torch.float32)
        if w.device.type == "cpu" and w.ndim == 2 and by_columns:
            w.data = w.data.T.contiguous().T
    return model

# ---- where it runs: processes, device, precision, threads --------------------------------------------------

class Ranks:
    "This process among those that torchrun started. A single process is the first of one."
    def __init__(self, device):
        self.rank = int(os.environ.get("RANK", 0))
        self.world_size = int(os.environ.get("WORLD_SIZE", 1))
        self.at_work = time.monotonic()                       # when it last began work of its own
        self.device = pick_device(device, int(os.environ.get("LOCAL_RANK", 0)))
        if self.world_size > 1 and not dist.is_initialized():
            how = ("the processes can't reach each other. Where hosts call themselves 127.0.1.1, type first, "
                   "with the name of each host's own network:  export GLOO_SOCKET_IFNAME=eth0")
            with explain(how, RuntimeError, kind=RunError):
                self.join("cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo")

    def join(self, backend):
        """Processes that torchrun starts anew must not find the addresses of those that are gone, but it
        keeps its store (2.13): so each start gets keys of its own. On one host alone: several may count
        their restarts differently, and need what docs/gpus.md says."""
        store, rank, world_size = next(dist.rendezvous("env://"))
        if os.environ.get("LOCAL_WORLD_SIZE") == str(world_size):
            store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)

    def prepared(self, make):
        "make() in the first process of each host; the others wait. -> what it gave in process 0, to all."
        if self.world_size == 1:
            return make()
        first = os.environ.get("LOCAL_RANK", "0") == "0"
        job = ThreadPoolExecutor(1).submit(make if first else lambda: None)
        while self.all_reduce_max(not job.done())[0]:         # one long wait would run into a time limit
            time.sleep(0.2)
        box = [job.result()]
        dist.broadcast_object_list(box, device=torch.device("cpu"))
        return box[0]

    def start_max(self, read):
        "-> a function that waits for the largest of what read() gives in any process. By CPU: no GPU waits."
        if self.world_size == 1:
            return read
        numbers = torch.tensor(read(), dtype=torch.float64)
        work = dist.all_reduce(numbers, dist.ReduceOp.MAX, async_op=True)

        def wait():
            work.wait()
            return numbers.tolist()
        return wait

    def all_reduce_max(self, *numbers):
        return self.start_max(lambda: numbers)()

    def all_reduce_sum(self, tensor):
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def close(self):
        if self.world_size > 1:
            time.sleep(0.2)                                   # torch 2.13 crashes if Python ends before
            dist.destroy_process_group()                      # gloo's threads let go of the last tensors

def pick_device(name, local_rank=0):
    best = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
    name = best if name == "auto" else name
    other = "cpu" if name == best else best
    with explain(f"--device {name} can't be used here, --device {other} can", RuntimeError, AssertionError):
        device = torch.empty(1, device=f"cuda:{local_rank}" if name == "cuda" else name).device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if device.type == "cpu":
        keep_memory()
    return device

def keep_memory():
    """Lets the process keep the memory it frees. glibc gives big blocks back and gets them anew in each step,
    page by page: with 3,000 words to choose from, that was two thirds of the time."""
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
    with contextlib.suppress(OSError, AttributeError, TypeError):  # not glibc
        ctypes.CDLL(None).mallopt(M_TRIM_THRESHOLD, 2 ** 31 - 1)
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2 ** 31 - 1)

def name_of(dtype):
    return str(dtype).removeprefix("torch.")

ALL_THREADS = torch.get_num_threads()                         # one for each core, or OMP_NUM_THREADS

def cpu_has_bfloat16():
    "Whether the CPU multiplies in bfloat16 by itself, as Linux tells. Where it must be emulated, it is slow."
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "bf16" in cpuinfo.read_text()

def choose_precision(config, device):
    """-> dtype of the matrix products, CPU threads, and why. These are rules, not measurements: the same
    command on the same machine gives the same bits, however busy it is (if steps end it, not minutes)."""
    threads = config.threads or ALL_THREADS
    best, why = torch.float32, f"16 bits were not measured to be faster on {device.type}"
    if device.type == "cpu":
        expect(config.dtype != "float16", "--dtype float16 is for GPUs: on a CPU take bfloat16 or float32")
        why = "this CPU has no bfloat16"
        if cpu_has_bfloat16():
            best, why = torch.bfloat16, "this CPU multiplies in bfloat16"
    elif device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        why = "compute capability is {}.{}; bfloat16 needs 8.0, float16 7.0".format(*capability)
        if capability >= (7, 0):
            best = torch.bfloat16 if capability >= (8, 0) else torch.float16
    if config.dtype != "auto":
        best, why = getattr(torch, config.dtype), "as asked"
    return best, threads, why

def num_parameters(model):
    return sum(w.numel() for w in model.parameters())

# ---- what a run says: to metrics.jsonl, to a tracker, to whoever watches -----------------------------------

class Log:
    """metrics.jsonl gets a JSON object a line, the screen gets plain lines, and listeners (of tools.py: the
    live display, trackers) hear it all. Without a file, in all processes but the first, it is silent."""
    def __init__(self, file):
        self.file = file
        self.listeners = []
        self.history = []                                     # step and eval lines
        self.newest = {}                                      # of each number the newest
        self.said_at = time.monotonic()

    def say(self, text):
        self.said_at = time.monotonic()
        if self.file:
            try:
                print(text, flush=True)
            except OSError:                                   # nobody reads it any more: no reason to stop
                hush()

    def __call__(self, kind, **fields):
        for name, value in fields.items():
            if isinstance(value, float) and not math.isfinite(value):
                fields[name] = None                           # JSON knows no other numbers
        if self.file:
            with contextlib.suppress(OSError):                # a full disk: save() tells
                self.file.write(json.dumps({"kind": kind, "time": round(time.time(), 3), **fields}) + "\n")
        if kind in ("step", "eval"):
            self.history.append({"kind": kind, **fields})
            self.newest |= fields
        if kind == "eval":
            self.say(" | ".join(numbers_said(self.newest, "train_loss", "val_loss", "best")))
        elif kind == "step" and time.monotonic() - self.said_at > 15:
            self.say(" | ".join(numbers_said(self.newest, "loss")))
        elif kind == "sample":
            self.say(f"--- at step {fields['step']} it says ---\n{printable(fields['text'])}\n---")
        elif kind == "warn":
            self.say(f"warning: {printable(fields['text'])}")
        for listener in self.listeners:
            listener.hear(kind, fields)

def numbers_said(newest, *losses):
    said = [f"step {newest['step']}"] if "step" in newest else []
    for name in losses:
        if newest.get(name) is not None:
            said.append(f"{name.removesuffix('_loss')} {newest[name]:.4f}")
    if newest.get("lr") is not None:
        said += [f"lr {newest['lr']:.2g}", f"{short(newest['tokens_per_s'])} tokens/s"]
        if newest["mfu"]:
            said.append(f"MFU {newest['mfu']:.0%}")
        said.append(f"eta {clock(newest['eta_s'])}")
    return said

# ---- training: a run, and the loop -------------------------------------------------------------------------

CONTROL_WORDS = ["", "go", "pause", "sample", "stop"]         # they travel as numbers

def read_control(folder):
    "-> the word in the run's control file, as its place among CONTROL_WORDS"
    control = folder / "control"
    with contextlib.suppress(OSError, ValueError):            # gone by now, or no such word
        if control.is_file() and control.stat().st_size > 0:  # no pipe; no file that is just being written
            word = control.read_bytes().replace(b"\0", b"").decode("ascii", "ignore").strip()  # UTF-16, too
            control.unlink()
            return CONTROL_WORDS.index(word)
    return 0

def lr_factor(config, step, done):
    "The learning rate's share of its peak: up in the warmup, down to min_lr while the run gets done."
    floor = config.min_lr / config.learning_rate
    fall = 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    warmup = min(1, (step + 1) / (config.warmup_iters + 1))
    return warmup * (floor + (1 - floor) * fall)

@torch.no_grad()
def mean_loss(model, split, rows, autocast, ranks):
    "Over all of a split, so many rows at a time. Every process takes its share."
    model.eval()
    total = torch.zeros(2, device=ranks.device)               # loss, tokens
    inputs, targets = (part[ranks.rank::ranks.world_size] for part in split)
    for first in range(0, len(inputs), rows):                 # no rows, where processes outnumber them
        ranks.at_work = time.monotonic()
        x, y = (to_device(part[first:first + rows], ranks.device) for part in (inputs, targets))
        with autocast():
            loss = model(x, targets=y)
        tokens = (y >= 0).sum()
        total += torch.stack([loss * tokens, tokens])
    total = ranks.all_reduce_sum(total)
    return (total[0] / total[1]).item()

def check_parts(checkpoint, path):
    "All that going on needs is there, and of the right type."
    with explain(f"{path}: this checkpoint can't go on", UserError, *MALFORMED):
        for part in ("model_config", "train_config", "tokenizer", "progress", "used"):
            expect(isinstance(checkpoint[part], dict), f"its {part} is no table")
        fill(TrainConfig, checkpoint["train_config"])
        now = {"best": "best_val_loss", "worse": "evals_since_best", "looked": "evaluated_at"}  # in version 1
        progress = {now.get(name, name): value for name, value in checkpoint["progress"].items()}
        for name, value in progress.items():
            kind = Progress.__annotations__[name]
            expect(type(value) in (kind, int) and value >= -1, f"{name} is {value!s:.30}")  # nor nan
        checkpoint["progress"] = progress
        threads = checkpoint["used"]["threads"]
        expect(type(threads) is int and 1 <= threads <= 512, f"threads is {threads!s:.30}")
        expect(checkpoint["used"]["dtype"] in ("bfloat16", "float16", "float32"), "its dtype is unknown")
    return checkpoint

def find_run(asked):
    "-> the checkpoint to go on from, its folder, and notes to be told. Of a new run: {}, None, []."
    resume, out_dir = str(asked.get("resume") or ""), asked.get("out_dir") or ""
    expect(resume != "auto" or out_dir, "--resume auto: say where, with --out_dir")
    if not resume or (resume == "auto" and not has_checkpoint(out_dir)):
        return {}, None, []
    path = find_checkpoint(out_dir if resume in ("newest", "auto") else resume, ("latest.pt", "best.pt"))
    elsewhere = out_dir and Path(out_dir).resolve() != path.parent.resolve()
    expect(not elsewhere, f"--out_dir {out_dir}: a run goes on where it is, in {path.parent}")
    best = path.with_name("best.pt")
    try:
        return check_parts(load_checkpoint(path), path), path.parent, []
    except UserError as error:
        if path == best or not best.exists():
            raise
        return check_parts(load_checkpoint(best), best), path.parent, [f"{error}. Going on from best.pt"]

def holds_run(folder):
    "Whether a run has begun there: its log is not empty, or somebody has brought a checkpoint."
    log = folder / "metrics.jsonl"
    return (log.exists() and log.stat().st_size > 0) or has_checkpoint(folder)

def new_log(config):
    "-> the log of a new run: in --out_dir, or in the first free one of runs/nano-char, runs/nano-char-2, ..."
    if config.out_dir:
        folder = Path(config.out_dir)
        expect(not config.colab_drive, "--colab_drive chooses the folder: leave --out_dir out")
        taken = holds_run(folder) and config.resume != "auto"
        expect(not taken, f"{folder} holds a run: add --resume to go on, or take another --out_dir")
        return open_log(folder)
    root = RUN_ROOTS[1] if config.colab_drive else RUN_ROOTS[0]
    expect(DRIVE.is_dir() or not config.colab_drive, "--colab_drive: Drive is not mounted. Paste into a cell:"
           "\nfrom google.colab import drive\ndrive.mount('/content/drive')")
    name = f"{config.preset}-{config.level}"
    if config.data != KNOBS["data"].default:
        name += "-" + re.sub(r"[^\w.-]", "_", Path(config.data.partition("*")[0]).stem)[:60]  # of a/*.txt: a
    for i in itertools.count(1):
        folder = root / (f"{name}-{i}" if i > 1 else name)
        with contextlib.suppress(Busy):                       # another run that begins in this moment
            if not holds_run(folder):
                return open_log(folder)

class Busy(UserError):
    "Another run is writing there."

def open_log(folder):
    "-> the folder's metrics.jsonl, locked as long as it is open: two runs would spoil each other's files."
    path = folder / "metrics.jsonl"
    with explain(f"{folder} can't be written", OSError, kind=RunError):
        folder.mkdir(parents=True, exist_ok=True)
        plain = not path.is_symlink() and (path.is_file() or not path.exists())
        expect(plain, f"{path} is no plain file: who put it there? Take another --out_dir")
        file = open(path, "a", buffering=1, encoding="utf-8")
    try:
        import fcntl
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise Busy(f"{folder}: another run is writing there; take another --out_dir") from None
    except (ImportError, OSError):                            # not on Windows, nor on every file system
        pass
    with open(path, "rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - 1))        # to the last byte
        if log.read() not in (b"", b"\n"):
            file.write("\n")                                  # after half a line, which a kill left
    return file

def close_log(file):
    with contextlib.suppress(OSError):                        # a full disk; what matters was told
        file.close()

@dataclass
class Progress:
    "How far a run has come: what every checkpoint keeps beside the weights."
    step: int = 0
    elapsed_s: float = 0.0                                    # without pauses
    best_val_loss: float = math.inf
    best_step: int = 0
    evals_since_best: int = 0
    evaluated_at: int = -1                                    # the step of the last evaluation
    sampled_at: int = -1
    skipped: int = 0                                          # steps whose gradient was not finite

@dataclass
class Result:
    out_dir: str
    best_val_loss: float
    reason: str                                               # why it ended
    unsaved: str                                              # why latest.pt could not be saved at the end
    history: list = field(repr=False)                         # step and eval lines of metrics.jsonl
    signal: int = field(repr=False)                           # the one that stopped it, or 0

class TrainingRun:
    "One run in one process. train(), below, says what happens when; the methods here say how."
    def __init__(self, asked, cleanup):
        # What is asked for, and what it begins with: a checkpoint, other weights, or nothing.
        checkpoint, self.resumed, self.notes = find_run(asked)  # self.resumed: the folder, or None
        saved = {**checkpoint.get("model_config", {}), **checkpoint.get("train_config", {})}
        self.model_config, self.config = configure(asked, saved)
        weights = tokenizer = None
        if checkpoint:
            weights, tokenizer = model_of(checkpoint, self.resumed)
        elif self.config.init_from:
            weights, tokenizer = other_file("tools").weights_from_elsewhere(self, asked)
        if self.config.tracker != "none":                     # a missing one is told before anything begins
            need(self.config.tracker)
        if self.config.keep or self.config.teacher:
            other_file("tools")
        # Its parts. Without init_from the text decides the tokens; a run that goes on must find its own.
        self.ranks = Ranks(self.config.device)
        cleanup.callback(self.ranks.close)
        self.device = self.ranks.device
        self.prepare_batches(asked, tokenizer if self.config.init_from else None)
        if checkpoint:
            self.check_nothing_changed(checkpoint)
        self.build_model(weights, checkpoint.get("used", {}))
        self.progress = Progress()
        self.unsaved = ""                                     # why the newest checkpoint could not be saved
        self.saved_at = time.monotonic()
        self.evaluation_s = 0.0                               # how long the last one took
        self.signals = []                                     # those that came
        self.paused = self.warned_of_rise = False
        self.skips_in_a_row = self.skips_since_log = torch.zeros((), device=self.device)
        if checkpoint:
            with explain(f"{self.resumed}: this checkpoint can't go on", *MALFORMED):
                self.restore(checkpoint)
        latest, earliest = self.ranks.all_reduce_max(self.progress.step, -self.progress.step)
        expect(latest == -earliest, "processes begin at different steps: all hosts must see the run's folder")
        taught = self.config.teacher and self.config.teacher_share > 0
        self.teacher = other_file("tools").Teacher(self) if taught else None
        self.open_run_folder(cleanup)
        if not checkpoint:
            self.save("latest.pt")                            # from now on --resume works, come what may
        self.print_summary()
        for note in self.notes:
            self.warn(note)
        cleanup.push(self.log_error)
        if self.limit_reached():
            had = f"{self.progress.step} steps and {self.progress.elapsed_s / 60:.1f} minutes"
            self.warn(f"this run has had {had}: a limit counts them, too; a higher one goes on")
        self.listen_to_signals(cleanup)

    def prepare_batches(self, asked, tokenizer):
        "text -> tokens -> batches"
        config, ranks, T, B = self.config, self.ranks, self.model_config.block_size, self.config.batch_size
        expect(B >= ranks.world_size, f"--batch_size {B} leaves processes idle: {ranks.world_size} would fit")
        chosen = "data" in asked or config.data != KNOBS["data"].default
        self.source = ranks.prepared(lambda: prepare(config, chosen))
        self.corpus = open_corpus(self.source, config, T, tokenizer)
        self.model_config.vocab_size = self.corpus.tokenizer.vocab_size
        self.batches = Batches(self.corpus, T, B, config.seed, self.device)
        size = min(config.eval_tokens, len(self.corpus.val)) + 1
        self.splits = [fixed_windows(ids[:size], T) for ids in (self.corpus.train, self.corpus.val)]
        for inputs, _ in self.splits:
            check_ids(inputs, self.model_config.vocab_size)
        unknown = np.mean(self.corpus.val[:size] == self.corpus.tokenizer.unknown_id)
        if unknown > 0.07:
            self.notes.append(f"{unknown:.0%} of the validation text is <unk>, words this model can't write: "
                              "its loss looks too good. --level char or bpe has no such words")
        self.first_row = ranks.rank * B // ranks.world_size   # our rows of each batch: from here on
        self.end_row = (ranks.rank + 1) * B // ranks.world_size
        largest_share = -(-B // ranks.world_size)             # rounded up: the same in all processes
        self.micro_batch = min(config.micro_batch or B, largest_share)
        fingerprint = int.from_bytes(self.corpus.sha256.encode()[:6], "big")  # six bytes travel as a float64
        largest, smallest = ranks.all_reduce_max(fingerprint, -fingerprint)
        expect(largest == -smallest, f"{self.source} is another text on another host: give all the same file")
        self.steps_per_epoch = self.batches.windows / B
        limits = [config.max_iters, math.ceil(config.epochs * self.steps_per_epoch)]
        self.max_steps = min([limit for limit in limits if limit], default=math.inf)
        if config.epochs and beside("tools.py"):
            other_file("tools").fit_short_text(self, asked)

    def check_nothing_changed(self, checkpoint):
        "A run goes on with its tokens and its shape. Where the text itself has changed, that is told."
        now = self.corpus.tokenizer.state | vars(self.model_config)
        for name, was in (checkpoint["tokenizer"] | checkpoint["model_config"]).items():
            what = "shape, --" if name in vars(self.model_config) else "tokenizer, its "
            expect(now.get(name) == was, f"{self.resumed} has another {what}{name} {was!s:.30}: it can't go "
                   f"on with {now.get(name)!s:.30}")
        for name, why in {"val_fraction": "be tested on what it has learned from",
                          "batch_size": "count its steps anew; --micro_batch saves memory"}.items():
            now = vars(self.config)[name]
            was = checkpoint["train_config"].get(name, now)
            expect(was == now, f"--{name}: this run goes on with {was}, or it would {why}")
        if checkpoint.get("sha256", self.corpus.sha256) != self.corpus.sha256:
            self.notes.append(f"{self.source} has changed since: what follows is no longer the same run")

    def build_model(self, weights, used):
        "The model and its optimizers. used: what a run that goes on has computed with so far."
        config, device = self.config, self.device
        torch.set_float32_matmul_precision("high")            # TF32, where a GPU has it
        torch.manual_seed(config.seed)
        with explain("a model of this size does not fit into memory", RuntimeError, kind=RunError):
            self.raw_model = GPT(self.model_config, config.dropout, config.checkpoint_activations,
                                 config.label_smoothing).to(device)
        if weights:
            state = weights.state_dict()
            state["wpe.weight"] = state["wpe.weight"][:self.model_config.block_size]
            self.raw_model.load_state_dict(state)
        if config.freeze:
            for part in (self.raw_model.wte, self.raw_model.wpe, *self.raw_model.h[:config.freeze]):
                part.requires_grad_(False)
        can_compile = device.type == "cuda" and find_spec("triton")
        self.compiled = config.compile == "true" or config.compile == "auto" and bool(can_compile)
        torch.compiler.set_stance("default")                  # a run before may have left another
        if self.compiled:                                     # in parts: processes can share the gradients of
            for block in self.raw_model.h:                    # one while the next is still at work
                block.compile()
            self.raw_model.loss = torch.compile(self.raw_model.loss)
        self.model = self.raw_model
        if self.ranks.world_size > 1:                         # backward() takes the mean of all gradients
            self.model = DistributedDataParallel(self.raw_model, gradient_as_bucket_view=True)
        self.dtype, self.threads, self.why_dtype = choose_precision(config, device)
        if used.get("device") == device.type:                 # it goes on with what it had
            self.threads = config.threads or used["threads"]
            if config.dtype == "auto":
                self.dtype, self.why_dtype = getattr(torch, used["dtype"]), "as before"
        torch.set_num_threads(self.threads)
        in_16_bits = self.dtype != torch.float32
        self.autocast = functools.partial(torch.autocast, device.type, self.dtype, enabled=in_16_bits)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.optimizers = make_optimizers(self.raw_model, config, self.dtype)

    def restore(self, checkpoint):
        "Progress and the memory of the optimizers, as they were."
        self.progress = Progress(**checkpoint["progress"])
        memory = checkpoint.get("optimizers")
        was, now = checkpoint["train_config"], self.config
        another = (was.get("optimizer"), was.get("freeze", 0)) != (now.optimizer, now.freeze)
        if another or not memory or (self.progress.step and not all(memory)):
            self.notes.append("the optimizers begin anew: this checkpoint has no memory for them")
            return
        if checkpoint["scaler"]:                              # not from float32 or bfloat16
            self.scaler.load_state_dict(checkpoint["scaler"])
        for optimizer, state in zip(self.optimizers, memory):
            # Momenta go on; rates and decay are those that are asked for now.
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
            for w, moments in optimizer.state.items():
                for name, m in moments.items():
                    expect(name == "step" or m.shape == w.shape, f"{self.resumed}: {name} has another shape")

    def open_run_folder(self, cleanup):
        "The folder, its log and config.json. Only the first process has them."
        self.used = {"device": self.device.type, "dtype": name_of(self.dtype), "threads": self.threads,
                     "processes": self.ranks.world_size, "torch": str(torch.__version__),
                     "python": platform.python_version(), "gpt": __version__}
        self.settings = {"model": vars(self.model_config), "train": vars(self.config), "used": self.used}
        self.folder = file = None
        if self.ranks.rank == 0:
            file = open_log(self.resumed) if self.resumed else new_log(self.config)
            self.folder = Path(file.name).parent
            cleanup.callback(close_log, file)
            (self.folder / "control").unlink(missing_ok=True)  # meant for a run that is no more
            with contextlib.suppress(OSError):                # no git
                ask = ["git", "-C", str(HERE), "rev-parse", "HEAD"]
                self.settings["commit"] = subprocess.run(ask, capture_output=True, text=True).stdout.strip()
            text = json.dumps(self.settings, indent=1).encode()
            with contextlib.suppress(OSError):                # no room: save() tells
                write_whole(self.folder / "config.json", lambda file: file.write(text))
        self.ranks.all_reduce_max(0)                          # all wait here: none goes on where that failed
        self.log = Log(file)
        if self.folder and (beside("tools.py") or self.config.tracker != "none"):
            self.log.listeners = other_file("tools").listeners(self)
            for listener in self.log.listeners:
                cleanup.callback(listener.close)

    def log_error(self, kind, error, traceback):              # as an ExitStack calls it
        if error:
            self.log("end", step=self.progress.step, reason="error", message=f"{kind.__name__}: {error}")

    def print_summary(self):
        "The first lines: what will happen, in numbers that one can check."
        m, config, corpus, step = self.model_config, self.config, self.corpus, self.progress.step
        weights = num_parameters(self.raw_model)
        where = f"{self.device}, threads: {self.threads}"
        if self.device.type == "cuda":
            where = torch.cuda.get_device_name(self.device)
        minutes = f"{config.max_minutes:g} minutes" if config.max_minutes else ""
        epochs = self.max_steps / self.steps_per_epoch
        steps = f"{self.max_steps:,} steps, {epochs:.3g} epochs" if self.max_steps < math.inf else ""
        resumed = f", from step {step:,} on" if self.resumed else ""
        loss = f"starts near ln({m.vocab_size:,}) = {math.log(m.vocab_size):.2f}, all tokens equally likely"
        if config.init_from or self.resumed:
            loss = "begins where the weights had come to"
        elif beside("tools.py") and (usual := other_file("tools").usual_loss(vars(config))):
            loss += f"; {config.preset}'s full run: {usual}"
        if self.teacher:
            loss += f"\nteacher    {', '.join(config.teacher)}: {config.teacher_share:.0%} of the loss"
        self.log.say(f"""\
device     {where}, processes: {self.ranks.world_size}
precision  {name_of(self.dtype)}; {self.why_dtype}
model      {m.n_layer} layers, {m.n_head} heads, {m.n_embd} wide: {weights:,} weights
data       {printable(self.source)}: {len(corpus.train):,} {config.level} tokens to learn from, \
{len(corpus.val):,} to test on
length     {' or '.join(filter(None, [minutes, steps]))}; a step: {config.batch_size} x {m.block_size} tokens
loss       {loss}
run        {printable(self.folder)}{resumed}; Ctrl-C saves and stops""")
        self.log("start", config=self.settings, parameters=weights, device=str(self.device), pid=os.getpid(),
                 max_iters=self.max_steps, world_size=self.ranks.world_size,
                 resumed_from=step if self.resumed else None)

    def listen_to_signals(self, cleanup):
        "Ctrl-C, SIGTERM and a closed terminal are obeyed between two steps; the same one again: at once."
        def note(number, frame):
            self.signals.append(number)
            signal.signal(number, signal.default_int_handler)

        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
                if signal.getsignal(number) != signal.SIG_IGN:  # nohup has asked for that
                    cleanup.callback(signal.signal, number, signal.signal(number, note))

    def fraction_done(self):
        by_steps = self.progress.step / self.max_steps
        minutes = (self.progress.elapsed_s + self.evaluation_s) / 60  # the last one's time is kept back
        by_time = minutes / (self.config.max_minutes or math.inf)
        return min(1, max(by_steps, by_time))

    def limit_reached(self):
        if self.progress.step >= self.max_steps:
            return "done"
        return "time" if self.fraction_done() == 1 else ""

    def heard_here(self):
        "What this process alone knows of: the control file's word, its clock, its signals."
        word = read_control(self.folder) if self.folder else 0
        return word, time.monotonic() - self.clock_zero, max(self.signals, default=0)

    def ask_all(self):
        "Begins to ask all processes what they heard: in a step, they answer while the optimizers work."
        self.wait_for_answers = self.ranks.start_max(self.heard_here)

    def obey_control(self):
        "Obeys control file and signals, all processes at the same step; sets the clock. -> whether to stop"
        while True:
            entered = time.monotonic()
            i, self.progress.elapsed_s, number = self.wait_for_answers()
            self.ranks.at_work = time.monotonic()
            self.signal = int(number)
            word = CONTROL_WORDS[int(i)]
            if self.signal or word == "stop":
                return True
            if word in ("pause", "go"):
                self.paused = word == "pause"
            if word == "sample":
                self.sample()
            if word:
                self.restart_stopwatch()
            if not self.paused:
                return False
            time.sleep(0.1)
            self.clock_zero += time.monotonic() - entered     # waiting is no training time
            self.ask_all()

    def restart_stopwatch(self):
        "Says what goes on now. What was done meanwhile does not count for tokens/s."
        self.log("state", state="paused" if self.paused else "training")
        self.stopwatch = time.monotonic(), self.progress.step

    def evaluate(self):
        progress, corpus = self.progress, self.corpus
        begun = time.monotonic()
        progress.evaluated_at = progress.step
        self.log("state", state="evaluating")
        train_loss, val_loss = [mean_loss(self.raw_model, split, self.micro_batch, self.autocast, self.ranks)
                                for split in self.splits]
        before = progress.best_val_loss, progress.best_step
        better = val_loss < progress.best_val_loss
        progress.evals_since_best = 0 if better else progress.evals_since_best + 1
        if better:
            progress.best_val_loss = val_loss
            progress.best_step = progress.step
        numbers = {"train_loss": train_loss, "val_loss": val_loss, "best": progress.best_val_loss,
                   "perplexity": math.exp(min(val_loss, 99))}
        if corpus.tokenizer.lossless:
            numbers["bits_per_byte"] = val_loss / math.log(2) * len(corpus.val) / corpus.val_bytes
        self.log("eval", step=progress.step, **numbers)
        if better:
            self.save("best.pt")
        unsaved = better and self.unsaved != ""
        self.evaluation_s, unsaved = self.ranks.all_reduce_max(time.monotonic() - begun, unsaved)  # for all
        if unsaved:                                           # best.pt is still the one before
            progress.best_val_loss, progress.best_step = before
        if progress.evals_since_best == 3 and not self.warned_of_rise:
            self.warned_of_rise = True
            why = "training loss is no lower. A lower --learning_rate and --muon_lr may help"
            if train_loss < progress.best_val_loss:
                why = ("the model is memorizing the text. best.pt keeps the best; more text or --dropout "
                       "would help")
            self.warn(f"validation loss is rising since step {progress.best_step}: {why}")

    def warn(self, text):
        self.log("warn", step=self.progress.step, text=text)

    def sample(self):
        self.progress.sampled_at = self.progress.step
        if self.folder:
            self.log("state", state="sampling")
            lm = LM(self.raw_model.eval(), self.corpus.tokenizer)
            prompt = self.config.sample_prompt
            # As the context grows token by token, 16 bits on a CPU and compiling cost more than they save.
            in_16_bits = self.device.type == "cuda" and self.dtype != torch.float32
            with self.autocast(enabled=in_16_bits), torch.compiler.set_stance("force_eager"):
                text = lm.sample(prompt, max_new_tokens=self.config.sample_tokens)
            self.log("sample", step=self.progress.step, text=prompt + text)

    def has_diverged(self):
        "Whether a weight is no number, or the next batch far less expected than by guessing, ln(vocab_size)."
        x, y = self.batches(self.progress.step, self.first_row, self.first_row + self.micro_batch)
        with torch.no_grad(), self.autocast():
            loss = self.raw_model.eval()(x, targets=y).item()
        finite = all(bool(w.isfinite().all()) for w in self.raw_model.parameters())
        return not (finite and loss < 2 * math.log(self.model_config.vocab_size) + 1)

    def save(self, name):
        "best.pt is for sampling, latest.pt for going on as well. Diverged weights replace no good ones."
        if not self.folder:
            return
        checkpoint = {"version": CHECKPOINT_VERSION, "model": self.raw_model.state_dict(),
                      "model_config": vars(self.model_config), "train_config": vars(self.config),
                      "tokenizer": self.corpus.tokenizer.state, "sha256": self.corpus.sha256,
                      "used": self.used, "progress": vars(self.progress)}
        if name == "latest.pt":
            checkpoint["optimizers"] = [optimizer.state_dict()["state"] for optimizer in self.optimizers]
            checkpoint["scaler"] = self.scaler.state_dict()
            self.saved_at = time.monotonic()
        self.unsaved = ""
        try:
            good = self.progress.step == 0 or not self.has_diverged()
            expect(good, "the weights have diverged: resume with a lower --learning_rate and --muon_lr")
            save_checkpoint(self.folder / name, checkpoint)
        except (OSError, RuntimeError, UserError) as error:
            self.unsaved = getattr(error, "strerror", None) or str(error)
            stands = "the one before it stands" if os.path.exists(self.folder / name) else "there is none"
            self.warn(f"{name} not saved, {stands}: {self.unsaved:.100}")
        if self.config.keep and name == "latest.pt" and not self.unsaved:
            other_file("tools").keep_checkpoint(self)

    def accumulate(self, trial):
        """Forward and backward through our rows, a micro-batch at a time: gradients add up, and the last pass
        shares them with the other processes. trial: one micro-batch, not shared. -> our part of the loss"""
        seeds = np.random.SeedSequence((self.config.seed, self.progress.step, self.ranks.rank))
        torch.manual_seed(seeds.generate_state(1, np.uint64)[0])  # for dropout
        self.model.train()
        total = torch.zeros((), device=self.device)
        firsts = range(self.first_row, self.end_row, self.micro_batch)
        for first in firsts[:1] if trial else firsts:
            self.ranks.at_work = time.monotonic()
            end = min(first + self.micro_batch, self.end_row)
            x, y = self.batches(self.progress.step, first, end)
            if self.teacher:
                y = self.teacher(x, y)                        # how likely each token should have been
            self.model.require_backward_grad_sync = first == firsts[-1] and not trial  # DDP's own switch
            with self.autocast():
                loss = self.model(x, targets=y)
            part = loss * (len(x) / self.config.batch_size)
            self.scaler.scale(part * self.ranks.world_size).backward()  # of which DDP takes the mean
            total += part.detach()
        return total

    def forward_backward(self, trial=False):
        "accumulate(), again where it failed and something can be done about that. -> our part of the loss"
        while True:
            try:
                return self.accumulate(trial)
            except Exception as error:
                self.adapt(error)
            self.clear_gradients()                            # here the error no longer holds the tensors
            torch.cuda.empty_cache()

    def clear_gradients(self):
        "With several processes they lie in the buffers that DDP sends: new ones would be held beside these."
        self.raw_model.zero_grad(set_to_none=self.ranks.world_size == 1)

    def adapt(self, error):
        "Memory ran out: smaller micro-batches. torch.compile failed: without it. Anything else is raised."
        others_wait = self.ranks.world_size > 1 and self.model.require_backward_grad_sync
        smaller = (self.micro_batch + 1) // 2
        if out_of_memory(error):
            expect(self.micro_batch > 1, "not even one sequence has room: take a smaller preset, a shorter "
                   "--block_size, or --checkpoint_activations", RunError)
            expect(not others_wait, "out of memory while others wait for our gradients: type the same with "
                   f"--resume auto --micro_batch {smaller}", RunError)
            self.micro_batch = smaller
            self.warn(f"out of memory: going on with --micro_batch {smaller}")
        elif self.compiled and not others_wait and not isinstance(error, UserError):
            self.compiled = False
            torch.compiler.set_stance("force_eager")
            self.warn(f"--compile failed, going on without: {' '.join(str(error).split()):.120}")
        else:
            raise error

    def trial_step(self):
        "Makes optimizer states, compiles, finds what micro-batch fits; changes no weight. Sets the clock."
        if self.compiled:
            self.log("state", state="compiling")
        with explain("no room for optimizers: take a smaller preset", torch.OutOfMemoryError, kind=RunError):
            for w in self.raw_model.parameters():
                if w.requires_grad:
                    w.grad = torch.zeros_like(w)              # optimizers pass over what has none
            self.take_step(torch.ones((), device=self.device))  # makes the states, changes nothing
        self.forward_backward(trial=True)
        self.clear_gradients()
        fits = -int(self.ranks.all_reduce_max(-self.micro_batch)[0])  # the smallest of all
        if fits < self.micro_batch:
            self.micro_batch = fits
            self.warn(f"out of memory in another process: going on with --micro_batch {fits}")
        if self.config.max_minutes and self.progress.evaluated_at < 0 and beside("tools.py"):
            other_file("tools").shorten_evaluations(self)
        self.fraction_at_start = self.fraction_done()
        self.elapsed_at_start = self.progress.elapsed_s
        self.clock_zero = time.monotonic() - self.progress.elapsed_s
        self.restart_stopwatch()

    def take_step(self, found_inf):
        """found_inf, on the device: 1 where the gradient is not finite. Then this changes nothing, and nobody
        has to wait for a GPU to find out: torch's fused AdamW looks at .found_inf, which GradScaler would set
        otherwise, and so does our Muon."""
        for optimizer in self.optimizers:
            optimizer.found_inf = found_inf
            optimizer.step()

    def log_now(self):
        "At log_interval, but ever more seldom after 50,000 lines: a week's log can still be read."
        every = self.config.log_interval
        while self.progress.step > 50_000 * every:
            every *= 2
        return self.progress.step % every == 0 or self.progress.step == self.max_steps

    def log_step(self, loss, grad_norm):
        "Reads the numbers: the only place in a step that waits for a GPU."
        progress = self.progress
        loss, grad_norm = float(self.ranks.all_reduce_sum(loss)), float(grad_norm)
        skipped, in_a_row = int(self.skips_since_log), int(self.skips_in_a_row)
        self.skips_since_log = self.skips_since_log * 0
        progress.skipped += skipped
        usual = 20 if self.scaler.is_enabled() else 0         # in float16 GradScaler feels its way by skips
        if skipped and in_a_row >= usual:
            self.warn(f"{skipped} steps skipped: gradient not finite")
        expect(in_a_row < usual + 10, f"{in_a_row} steps in a row had no finite gradient: take a lower "
               "--learning_rate or --dtype float32. The last checkpoint is good: --resume", RunError)
        now, (then, step_then) = time.monotonic(), self.stopwatch
        self.stopwatch = now, progress.step
        tokens = self.config.batch_size * self.model_config.block_size
        speed = (progress.step - step_then) * tokens / max(1e-9, now - then)
        fraction = self.fraction_done()
        elapsed = now - self.clock_zero - self.elapsed_at_start
        eta = elapsed * (1 - fraction) / max(1e-9, fraction - self.fraction_at_start)
        use = {"mfu": None, "memory_mb": None}
        if beside("tools.py"):
            use = other_file("tools").use_of_machine(self, speed)
        self.log("step", step=progress.step, loss=loss, grad_norm=grad_norm,
                 lr=self.optimizers[-1].param_groups[0]["lr"], tokens=progress.step * tokens,
                 tokens_per_s=speed, elapsed_s=progress.elapsed_s, eta_s=eta, **use, done=fraction)

    def finish(self, reason):
        best = self.progress.best_val_loss
        message = f"best loss {best:.4f} at step {self.progress.best_step}"
        self.log("end", step=self.progress.step, reason=reason, message=message)
        self.ranks.all_reduce_max(0)                          # all wait here: none leaves before the others
        return Result(str(self.folder), best, reason, self.unsaved, self.log.history, self.signal)

def train(**asked):
    """Train a model. The flags of `python gpt.py train` are the keywords: train(preset="nano", level="word").
    -> .out_dir, .best_val_loss, .history (step and eval lines of metrics.jsonl), .reason that it ended"""
    with contextlib.ExitStack() as cleanup:                   # closes what was opened, however this ends
        run = TrainingRun(asked, cleanup)
        config, progress = run.config, run.progress
        run.trial_step()
        run.ask_all()
        while True:
            stop = run.obey_control()                         # sets the clock; may wait, or make a sample
            reason = run.limit_reached()                      # "", "done" or "time"

            # Every so many steps, and at the end: how good is it, what does it say? Once, also when resumed.
            step = progress.step
            sample_every = config.sample_every or config.eval_interval
            evaluate_now = (reason or step % config.eval_interval == 0) and progress.evaluated_at != step
            sample_now = (reason or step % sample_every == 0) and progress.sampled_at != step
            if evaluate_now:
                run.evaluate()
            if sample_now:
                run.sample()
            save_due = 0 < config.save_minutes <= (time.monotonic() - run.saved_at) / 60
            save_now = evaluate_now or stop or save_due
            if save_now:
                run.log("state", state="saving")
                run.save("latest.pt")
            if save_now or sample_now:
                run.restart_stopwatch()
            if not reason and stop:
                reason = "stopped"
            if not reason and 0 < config.patience <= progress.evals_since_best:
                reason = "patience"
            if reason:
                break

            # One step: the gradient of a batch, and a step of the optimizers against it.
            factor = lr_factor(config, progress.step, run.fraction_done())
            for optimizer in run.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = factor * optimizer.defaults["lr"]
            loss = run.forward_backward()                     # fills .grad, the same in all processes
            run.ask_all()                                     # obey_control(), above, waits for the answers
            for optimizer in run.optimizers:                  # float16 only: the loss was scaled up, lest
                run.scaler.unscale_(optimizer)                # small gradients become 0
            grad_norm = nn.utils.clip_grad_norm_(run.raw_model.parameters(), config.grad_clip or math.inf)
            found_inf = (~torch.isfinite(grad_norm)).float()  # 1: this step is skipped
            run.take_step(found_inf)
            run.clear_gradients()
            run.scaler.update()
            run.skips_in_a_row = (run.skips_in_a_row + 1) * found_inf  # on the device: log_step() reads them
            run.skips_since_log = run.skips_since_log + found_inf
            progress.step += 1

            if run.log_now():
                run.log_step(loss, grad_norm)
        return run.finish(reason)

# ---- the two commands --------------------------------------------------------------------------------------

def train_command(asked):
    try:
        result = train(**asked)
    except RuntimeError as error:
        gone = re.search("gloo|NCCL|(reset|closed) by peer", str(error))
        expect(not gone, "another process has ended, or can't be reached; what it said last tells why. Type "
               "the same line again, with --out_dir RUN --resume auto in it", RunError)
        expect(not out_of_memory(error), "out of memory: add a smaller --micro_batch or close programs; "
               "a run that has begun goes on with --resume", RunError)
        raise
    if os.environ.get("RANK", "0") == "0":
        folder = shlex.quote(printable(result.out_dir))
        again = f"\n  python gpt.py train --resume {folder}" if result.reason == "stopped" else ""
        if has_checkpoint(result.out_dir):
            with contextlib.suppress(OSError):                # a terminal that is no more
                print(f"best validation loss {result.best_val_loss:.4f}, {result.reason}. Now type:\n"
                      f"  python gpt.py sample {folder} --prompt \"The \"\n"
                      f"  python gpt.py chat {folder}   or   python tui.py {folder}{again}")
                if beside("tools.py"):
                    print(other_file("tools").afterwards(result))
        expect(not result.unsaved, f"latest.pt was not saved: {result.unsaved}", RunError)
    raise SystemExit(128 + result.signal if result.signal else 0)

def warn_of(lm, prompt):
    "What the model can't take from this prompt is said, on stderr."
    if unknown := lm.tokenizer.unknown(prompt):
        print(f"warning: the model does not know {' '.join(map(repr, unknown))}", file=sys.stderr)
    n, T = len(lm.encode(prompt)), lm.config.block_size
    if n > T:
        print(f"note: of the prompt's {n:,} tokens the model sees the last {T}", file=sys.stderr)

def run_asked(asked):
    "-> the one RUN that the command line names, in either way; or nothing, for the newest run"
    runs = list(asked.get("run", []))
    if "init_from" in asked:
        runs.append(asked["init_from"])
    expect(len(runs) < 2, "one RUN, please: a run's folder or a checkpoint")
    return runs[0] if runs else ""

def load_asked(asked):
    settings = {k: asked[k] for k in ("device", "dtype", "threads", "compile") if k in asked}
    return load(run_asked(asked), **{"dtype": "auto", **settings})

def sample_command(asked):
    "The text goes to stdout, what is to be said about it to stderr."
    options = {name: asked[name] for name in knobs(SampleConfig) if name in asked}
    rows = sampling(options).num_samples                      # wrong options are told before it loads
    expect(rows == 1 or not asked.get("show_probs"), "--show_probs shows one sample: leave --num_samples out")
    lm, prompt = load_asked(asked), asked.get("prompt", "")
    if file := asked.get("prompt_file"):
        with explain(f"--prompt_file {file}", OSError, UnicodeDecodeError):
            prompt = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    warn_of(lm, prompt)
    print(printable(f"{lm.path}, {lm.precision}"), file=sys.stderr)
    if rows > 1:
        print("\n---\n".join(printable(prompt + text) for text in lm.sample(prompt, **options)))
        return
    print(printable(prompt), end="", flush=True)
    if asked.get("show_probs"):
        other_file("tools").show_probs(lm, prompt, options)
    else:
        for piece in lm.stream(prompt, **options):
            print(printable(piece), end="", flush=True)
        print()
    r = lm.report
    print(f"{r.tokens} tokens, {r.tokens_per_s:,.0f}/s, the first after {r.first_s:.3f} s", file=sys.stderr)

if __name__ == "__main__" and IS_FILE:
    with errors_told():
        run_command(command, asked)
