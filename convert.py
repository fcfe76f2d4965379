"""convert.py: weights in and out. gpt.py, beside it, has the command line:

    python gpt.py sample --init_from gpt2 --prompt "Holmes said"     OpenAI's weights, fetched once
    python gpt.py train --init_from hf:OWNER/NAME --data my.txt      fine-tune a GPT-2 of Hugging Face
    python gpt.py export --to hf --out DIR        for transformers, with its tokenizer
    python gpt.py export --to gguf --out DIR      for llama.cpp and Ollama: pip install gguf
    python gpt.py export --to space --out DIR     a page to write with, for a Space or any computer

In: checkpoint_from() makes a checkpoint of ours out of OpenAI's GPT-2, a Hugging Face folder or repository, a
nanoGPT ckpt.pt. Out: export_command() makes a folder, which appears when it is whole.

What comes in may be anything: nothing in here unpickles objects, and every size is checked before it is used.
The flags answer before torch is imported; so gpt.torch, gpt.GPT ... are named inside of functions only.
"""
import base64
import contextlib
import hashlib
import json
import math
import os
import pickletools
import re
import shlex
import shutil
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import numpy as np

import gpt

HUB = "https://huggingface.co/"
OPENAI = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")     # on the hub, they are openai-community's
END = "<|endoftext|>"
# Of the 50,256 tokens that OpenAI published, as a tokenizer's state spells them.
GPT2_SHA256 = "445c95aed02d34f9cebfeeba666b08c9aebb5419c128c1c8e6995ac1a15f28b9"

def bytes_as_letters():
    "GPT-2's files show each byte as a letter: Latin-1's where one can see it, else one from U+0100 on."
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    letters = {}
    for byte in range(256):
        hidden = byte - len(visible & set(letters))           # how many of those before it have no letter
        letters[byte] = chr(byte) if byte in visible else chr(256 + hidden)
    return letters

LETTERS = bytes_as_letters()
BYTES = {letter: byte for byte, letter in LETTERS.items()}

# ---- in: where the files are -------------------------------------------------------------------------------

def checkpoint_from(source):
    "OpenAI's names, hf:OWNER/NAME, a folder, a file, a run -> a checkpoint, as gpt.load_checkpoint() has it"
    path = Path(source)
    if source in OPENAI and not path.exists():
        return from_hugging_face(hub_finder(f"openai-community/{source}"), source)
    if source.startswith("hf:") and not path.exists():
        repo = source.removeprefix("hf:")
        known = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", repo)
        gpt.expect(known, f"{source}: expected hf:OWNER/NAME, such as hf:openai-community/gpt2")
        return from_hugging_face(hub_finder(repo), source)
    if path.suffix == ".safetensors" and path.is_file():
        path = path.parent                                    # the configuration lies beside it
    ours = gpt.has_checkpoint(path)
    if (path / "config.json").exists() and not ours:
        return from_hugging_face(folder_finder(path), source)
    if (path / "ckpt.pt").exists():
        path = path / "ckpt.pt"
    if path.is_file() and is_nanogpt(path):
        return from_nanogpt(path)
    return gpt.load_checkpoint(gpt.find_checkpoint(source))

def folder_finder(folder):
    "-> a function that finds a file of a folder, or None"
    def find(name):
        path = folder / name
        return path if path.is_file() else None

    return find

def hub_finder(repo):
    "-> a function that finds a file of a repository: in Hugging Face's cache, or by fetching it; or None"
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    names = [repo, repo.removeprefix("openai-community/")]    # OpenAI's lie under both names
    folders = []                                              # snapshots, that of the newest revision first
    for name in names:
        of_repo = cache / f"models--{name.replace('/', '--')}"
        newest = of_repo / "refs" / "main"
        if newest.is_file():
            folders.append(of_repo / "snapshots" / newest.read_text().strip())
        folders += of_repo.glob("snapshots/*/")
    weights = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
    whole = [folder for folder in folders if any((folder / name).is_file() for name in weights)]
    cached = whole[0] if whole else None
    revision = cached.name if cached else "main"              # files of two don't belong together

    def find(name):
        if cached and (cached / name).is_file():
            return cached / name
        try:
            return gpt.other_file("data").download(f"{HUB}{repo}/resolve/{revision}/{name}")
        except gpt.RunError as error:
            if cached or getattr(error.__cause__, "code", None) == 404:  # a cache with weights is complete
                return None
            raise

    return find

def read_json(path):
    with gpt.explain(f"{path} is no JSON", OSError, ValueError, RecursionError):
        found = json.loads(path.read_text(encoding="utf-8"))
    gpt.expect(isinstance(found, dict), f"{path} is no JSON object")
    return found

# ---- in: Hugging Face's GPT-2 ------------------------------------------------------------------------------

def from_hugging_face(find, source):
    "find(name) -> the file's path, or None"
    path = find("config.json")
    gpt.expect(path, f"{source} has no config.json: is it a model?")
    config = shape_of(read_json(path), source)
    weights = read_weights(find, source)
    gpt.expect(isinstance(weights, dict), f"{source}: its weights have no names")
    state = {str(name).removeprefix("transformer."): tensor for name, tensor in weights.items()}
    tokenizer = read_tokenizer(find, source)
    return checkpoint_of(state, config, tokenizer, source)

def shape_of(theirs, source):
    "config.json -> a ModelConfig. What would compute something else is refused."
    kind = theirs.get("model_type")
    gpt.expect(kind == "gpt2", f"{source} is a {kind}: only the architecture gpt2 can be loaded")
    width = theirs.get("n_embd")
    fixed = {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh", "gelu"),
        "layer_norm_epsilon": (1e-5,),
        "n_inner": (None, 4 * width if isinstance(width, int) else None),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    }
    for name, values in fixed.items():
        value = theirs.get(name, values[0])
        gpt.expect(value in values, f"{source}: its {name} is {value!s:.40}, gpt.py has {values[0]}")
    if theirs.get("activation_function") == "gelu":
        print(f"note: {source} was trained with the exact GELU, gpt.py takes GPT-2's approximation",
              file=sys.stderr)
    ours = {"n_layer": "n_layer", "n_head": "n_head", "n_embd": "n_embd", "block_size": "n_positions"}
    values = {}
    for name, their_name in ours.items():
        gpt.expect(their_name in theirs, f"{source}: its config.json has no {their_name}")
        values[name] = theirs[their_name]
    with gpt.explain(f"{source}: its config.json", gpt.UserError):
        return gpt.fill(gpt.ModelConfig, values)

def read_weights(find, source):
    "All tensors of one file, or of the shards that an index names."
    if path := find("model.safetensors"):
        return read_safetensors(path)
    if path := find("model.safetensors.index.json"):
        shards = read_json(path).get("weight_map")
        gpt.expect(isinstance(shards, dict), f"{path} has no weight_map")
        tensors = {}
        for shard in sorted({str(name) for name in shards.values()}):
            inside = Path(shard).name == shard                # it names a file beside it, and no other one
            gpt.expect(inside, f"{path}: {shard!r:.60} is no name of a shard")
            file = find(shard)
            gpt.expect(file, f"{source} lacks the shard {shard}")
            tensors |= read_safetensors(file)
        return tensors
    path = find("pytorch_model.bin")
    gpt.expect(path, f"{source} has neither model.safetensors nor pytorch_model.bin")
    return read_pickle(path)

# Read by these plain lines everywhere, and not by the package where it is installed: one way is tested once,
# says the same things about a broken file on every machine, and takes no more memory than the weights.
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}    # the format's names, and torch's
MAX_HEADER = 100_000_000                                      # the format's own limit

def read_safetensors(path):
    "8 bytes: the header's length; the header, JSON: each tensor's dtype, shape and place; then the numbers."
    with open(path, "rb") as file, gpt.explain(f"{path} is no safetensors file", ValueError, KeyError,
                                               TypeError, AttributeError, RecursionError, struct.error):
        size = path.stat().st_size
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(size - 8, MAX_HEADER):
            raise ValueError(f"its header is said to have {length:,} bytes, the file has {size:,}")
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        places = check_places(header, size - 8 - length)
        tensors = {}
        for name, (begin, end) in places.items():
            if is_buffer(name):
                continue
            dtype, shape = header[name]["dtype"], header[name]["shape"]
            if dtype not in DTYPES:
                raise ValueError(f"{name} is {dtype}, expected one of {', '.join(DTYPES)}")
            file.seek(8 + length + begin)
            numbers = bytearray(file.read(end - begin))
            tensor = gpt.torch.frombuffer(numbers, dtype=getattr(gpt.torch, DTYPES[dtype]))
            tensors[name] = tensor.view(shape).float()
    return tensors

SIZES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
         "I8": 1, "U8": 1, "BOOL": 1}

def check_places(header, size):
    "-> where each tensor begins and ends: inside the file, one behind the other, as long as its shape says"
    places = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        whole = all(type(n) is int and n >= 0 for n in (begin, end, *entry["shape"]))
        if not whole or not begin < end <= size:
            raise ValueError(f"{name} lies at {begin}-{end}, but there are {size:,} bytes")
        numbers = 1
        for n in entry["shape"]:
            numbers *= n
        if entry["dtype"] not in SIZES or numbers * SIZES[entry["dtype"]] != end - begin:
            raise ValueError(f"{name}: {end - begin:,} bytes are no {entry['dtype']} of {entry['shape']}")
        places[name] = (begin, end)
    before = 0
    for name, (begin, end) in sorted(places.items(), key=lambda item: item[1]):
        if begin < before:
            raise ValueError(f"{name} overlaps with the tensor before it")
        before = end
    return places

def read_pickle(path):
    "torch's own format. weights_only: a stranger's file can hold numbers and names, but can run no code."
    try:
        return gpt.torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:                                # a damaged file can raise anything
        raise gpt.UserError(f"{path} is damaged, or would run code: it was not loaded") from error

# ---- in: the weights, under our names, with the right shapes -----------------------------------------------

def is_buffer(name):
    "The causal mask, which old files store with the weights."
    return name.endswith((".attn.bias", ".attn.masked_bias"))

def checkpoint_of(state, config, tokenizer, source):
    "Names, shapes and the vocabulary are compared with those of the model that this is to become."
    state = {name: tensor for name, tensor in state.items() if not is_buffer(name)}
    for name, tensor in state.items():
        numbers = gpt.torch.is_tensor(tensor) and tensor.layout == gpt.torch.strided
        gpt.expect(numbers and tensor.dim(), f"{source}: {name:.60} is no table of numbers")
    gpt.expect("wte.weight" in state, f"{source} lacks the tensor wte.weight")
    head = state.pop("lm_head.weight", None)
    tied = head is None or gpt.torch.equal(head, state["wte.weight"])
    gpt.expect(tied, f"{source} has a head of its own; in gpt.py the table of tokens is the head")
    rows = len(state["wte.weight"])
    enough = rows >= tokenizer.vocab_size
    gpt.expect(enough, f"{source} has {rows:,} rows for its {tokenizer.vocab_size:,} tokens")
    state["wte.weight"] = state["wte.weight"][:tokenizer.vocab_size]   # the rest is padding
    config.vocab_size = tokenizer.vocab_size
    with gpt.torch.device("meta"):                            # shapes only: no memory yet
        expected = gpt.GPT(config).state_dict()
    weights = {}
    for name, like in expected.items():
        gpt.expect(name in state, f"{source} lacks the tensor {name}")
        tensor = state[name]
        fits = tensor.shape == like.shape
        shapes = f"{list(tensor.shape)}, expected {list(like.shape)}"
        gpt.expect(fits, f"{source}: {name} has the shape {shapes}")
        weights[name] = tensor.float().contiguous()
    strange = [name for name in state if name not in expected]
    gpt.expect(not strange, f"{source} has a tensor that GPT-2 has not: {strange[:1]}")
    return {
        "version": gpt.CHECKPOINT_VERSION,
        "model": weights,
        "model_config": vars(config),
        "train_config": {"level": tokenizer.state["level"], "data": ""},
        "tokenizer": tokenizer.state,
    }

# ---- in: tokens of Hugging Face ----------------------------------------------------------------------------

def read_tokenizer(find, source):
    "tokenizer.json, or the two files that it replaced -> one of our tokenizers"
    if path := find("tokenizer.json"):
        theirs = read_json(path)
        with gpt.explain(f"{path} is no tokenizer of GPT-2's kind", KeyError, TypeError, ValueError,
                         AttributeError, IndexError, OverflowError):
            model = theirs["model"]
            if model.get("type") == "WordLevel":              # an export of ours; OpenAI's file names no type
                return read_word_level(model["vocab"], find)
            check_cutting(theirs)
            vocab = {token: int(i) for token, i in model["vocab"].items()}
            for added in theirs.get("added_tokens") or []:
                vocab[added["content"]] = int(added["id"])
            return read_bpe(vocab, model["merges"], path)
    files = find("vocab.json"), find("merges.txt")
    gpt.expect(all(files), f"{source} has no tokens: neither tokenizer.json nor vocab.json and merges.txt")
    with gpt.explain(f"{files[0]} has no tokens of GPT-2's kind", KeyError, TypeError, ValueError):
        lines = files[1].read_text(encoding="utf-8").split("\n")
        merges = [line for line in lines if line and not line.startswith("#version")]
        return read_bpe(read_json(files[0]), merges, files[0])

def read_word_level(vocab, find):
    "Characters or words, in the order of their ids. The words' spellings are in a key of our own."
    texts = sorted(vocab, key=vocab.get)
    if sorted(vocab.values()) != list(range(len(texts))) or "" in texts:
        raise ValueError("its ids are not 0, 1, 2 and so on")
    settings = find("tokenizer_config.json")
    words = read_json(settings).get("words") if settings else None
    if words is None and all(len(text) == 1 for text in texts[1:]):
        return gpt.CharTokenizer("".join(texts[1:]))
    if not words or [word.lower() for word in words] != texts:
        raise ValueError("its words are no export of gpt.py")
    return gpt.WordTokenizer(words)

def check_cutting(theirs):
    "Tokens go inside the pieces that a pattern cuts: it must be GPT-2's."
    cut = theirs.get("pre_tokenizer") or {}
    plain = cut["type"] == "ByteLevel" and cut.get("use_regex", True) and not theirs.get("normalizer")
    if not plain or cut.get("add_prefix_space"):
        raise ValueError(f"it cuts text by {cut.get('type')}, and not as GPT-2 does")

def read_bpe(vocab, merges, path):
    "-> a BPETokenizer, if the ids say the same as the merges: the earlier merge makes the lower id."
    gpt.expect(END in vocab, f"{path} has no token {END}")
    last = vocab.pop(END)
    in_order = sorted(vocab, key=vocab.get)
    whole = len(vocab) == last and sorted(vocab.values()) == list(range(last))
    gpt.expect(whole, f"{path}: {END} must be the last of its tokens")
    results = []
    for merge in merges:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        results.append(vocab[left + right])
    merged = {i for token, i in vocab.items() if token not in BYTES}
    same = results == sorted(results) and merged == set(results) and len(merged) == last - 256
    gpt.expect(same, f"{path}: its tokens are not numbered in the order of its merges")
    tokens = []
    for token in in_order:
        raw = bytes(BYTES[letter] for letter in token)
        tokens.append(base64.b64encode(raw).decode())
    return bpe_tokenizer(" ".join(tokens))

def bpe_tokenizer(tokens):
    "GPT-2's tokens go by their name, so that folders which data.py made with them fit."
    known = hashlib.sha256(tokens.encode()).hexdigest() == GPT2_SHA256
    return gpt.BPETokenizer(tokens, "gpt2" if known else "own")

# ---- in: nanoGPT -------------------------------------------------------------------------------------------

NANOGPT_PREFIX = re.compile(r"^(_orig_mod\.)?transformer\.")
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")

def is_nanogpt(path):
    "By its keys. A file that torch can't read at all gets its word from gpt.load_checkpoint()."
    with contextlib.suppress(Exception):
        return "model_args" in gpt.torch.load(path, map_location="meta", weights_only=True)
    return False

def from_nanogpt(path):
    """Its names are GPT-2's, its Linear weights lie the other way round. Its GELU is the exact one; the loss
    is the same to four digits."""
    theirs = read_pickle(path)
    with gpt.explain(f"{path} is no checkpoint of nanoGPT", KeyError, TypeError, AttributeError, ValueError):
        shape = {name: theirs["model_args"].get(name) for name in gpt.knobs(gpt.ModelConfig)}
        config = gpt.fill(gpt.ModelConfig, shape)
        state = {}
        for name, tensor in theirs["model"].items():
            name = NANOGPT_PREFIX.sub("", name)
            if name.endswith(TRANSPOSED):
                tensor = tensor.T
            if not name.endswith("lm_head.weight"):           # tied there, too: it is wte once more
                state[name] = tensor
        dataset = str((theirs.get("config") or {}).get("dataset", ""))
        rows = len(state["wte.weight"])
    if rows in (50257, 50304):                                # GPT-2's tokens, and filled up to 64 times 786
        tokenizer = gpt.BPETokenizer.train("", None)
    else:
        tokenizer = gpt.CharTokenizer(nanogpt_characters(path, dataset, rows))
        # Our id 0 stands for the unknown. As the mean of the others it is never the likeliest one.
        table = state["wte.weight"].float()
        state["wte.weight"] = gpt.torch.cat([table.mean(0, keepdim=True), table])
    return checkpoint_of(state, config, tokenizer, path)

def nanogpt_characters(path, dataset, rows):
    """Of a model of characters: they are in meta.pkl, with the data. Unpickling it could run code, so we only
    list its opcodes, which runs nothing, and pick the strings of one character, which stand there by id."""
    places = [path.parent / "meta.pkl"]
    if re.fullmatch(r"[\w-]+", dataset):
        for root in (path.parent.parent, Path()):
            places.append(root / "data" / dataset / "meta.pkl")
    found = [place for place in places if place.is_file()]
    gpt.expect(found, f"{path} does not say which {rows} characters it knows: put nanoGPT's "
               f"data/{dataset or 'DATASET'}/meta.pkl beside it, which does")
    characters = {}                                           # a dict keeps their order
    with gpt.explain(f"{found[0]} is no meta.pkl of nanoGPT", Exception):
        for opcode, value, _ in pickletools.genops(found[0].read_bytes()):
            if "UNICODE" in opcode.name and len(value) == 1:
                characters[value] = True
    characters = "".join(characters)
    same = len(characters) == rows and list(characters) == sorted(characters)
    gpt.expect(same, f"{found[0]} has {len(characters)} characters, the model {rows}: it is another text's")
    return characters

# ---- out: a folder that appears whole ----------------------------------------------------------------------

@dataclass
class ExportConfig:
    "where to, and how"
    to: Literal["hf", "gguf", "space"] = gpt.knob("hf", "for transformers, for llama.cpp, or as a Space")
    out: str = gpt.knob("", "the folder to make")
    dtype: Literal["float32", "float16", "bfloat16", "q8_0", "f32", "f16", "bf16"] = gpt.knob(
        "float32", "precision of the weights; q8_0, eight bits, for gguf only")
    push: str = gpt.knob("", "upload the folder to Hugging Face, as OWNER/NAME")

LONG = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}

def add_flags(parser):
    parser.add_argument("run", nargs="*", help="a run's folder, a checkpoint, gpt2 ... [the newest run]")
    parser.add_knobs("instead of RUN", {"init_from": gpt.KNOBS["init_from"]})
    parser.add_knobs(ExportConfig.__doc__, gpt.knobs(ExportConfig))

def export_command(asked):
    options = gpt.fill(ExportConfig, asked)
    gpt.expect(options.out, "--out DIR: the folder to make")
    pushable = not options.push or re.fullmatch(r"[\w.-]+/[\w.-]+", options.push)
    gpt.expect(pushable, f"--push {options.push}: expected OWNER/NAME")
    hub = gpt.need("huggingface_hub") if options.push else None    # before minutes go into the rest
    run = Run(gpt.run_asked(asked))
    run.dtype = LONG.get(options.dtype, options.dtype)
    folder = Path(options.out)
    run.home = options.push or folder.resolve().name          # where the rest lies is nobody's business
    with whole_folder(folder) as aside:
        TARGETS[options.to](run.lm, run, aside)
    print(f"{folder} is ready: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    if hub:
        push(hub, folder, options)

class Run:
    "What is exported: the model, and what its checkpoint says about how it was trained."
    dtype = "float32"
    home = "."                                                # under which name people will load it

    def __init__(self, source=""):
        self.checkpoint, path = gpt.open_checkpoint(source)
        self.lm = gpt.LM(*gpt.model_of(self.checkpoint, path))
        self.lm.path = path
        place = Path(path)
        if place.exists():                                    # gpt2 and hf:OWNER/NAME are no places
            place = place.resolve()                           # "." has no name
        self.name = place.parent.name if place.is_file() else place.name  # of a checkpoint: its run's

    def text(self):
        "What it was trained on. Where that lies is nobody's business."
        return without_folder(self.checkpoint["train_config"].get("data") or "")

    def command(self):
        "What one types to train it again: what its preset does not say."
        asked = {**self.checkpoint["model_config"], **self.checkpoint["train_config"]}
        if "preset" not in asked:
            return ""
        base, rule = {}, ""
        with contextlib.suppress(gpt.UserError):              # a preset that is no more
            presets = gpt.load_presets(asked.get("presets"))
            base = gpt.recipe(presets, asked["preset"], asked["level"])
            rule = json.dumps(presets[asked["preset"]].get("rule"))
        named = [name for name in gpt.KNOBS if f'"{name}"' in rule]  # else it would choose them anew
        if any(asked.get(name) != base.get(name, gpt.KNOBS[name].default) for name in gpt.LIMITS):
            named += [name for name in gpt.LIMITS if asked.get(name)]  # one that is given unsets the others
        words = ["python gpt.py train", f"--preset {asked['preset']}", f"--level {asked['level']}"]
        for name, knob in gpt.KNOBS.items():
            value = asked.get(name, knob.default)
            is_usual = value == base.get(name, knob.default) and name not in named
            if name in ("preset", "level", "out_dir", "resume") or is_usual:
                continue
            for one in value if isinstance(value, (list, tuple)) else [value]:
                if name in ("data", "init_from", "presets", "teacher"):
                    one = without_folder(one)
                words.append(f"--{name} {shlex.quote(str(one))}")
        return " ".join(words)

def without_folder(source):
    "On whose disk a text or a run lies, and with which password it was fetched, is nobody's business."
    if "://" in source and not source.startswith("file:"):
        parts = urlsplit(source)
        host = parts.netloc.rpartition("@")[2]                # user:password@host
        return parts._replace(netloc=host, query="", fragment="").geturl()
    return source if source.startswith("hf:") else Path(source.replace("\\", "/")).name

@contextlib.contextmanager
def whole_folder(folder):
    "A folder to fill, which gets its name when all is in it. If that fails, nothing stays behind."
    empty = folder.is_dir() and not any(folder.iterdir())
    gpt.expect(empty or not folder.exists(), f"--out {folder} is there already: take another name")
    aside = folder.resolve()
    aside = aside.with_name(f"{aside.name}.{os.getpid()}.part")  # nobody's folder has that name
    try:
        aside.mkdir(parents=True)
        yield aside
        if empty:                                             # it may be a mounted disk, or where one stands
            for path in aside.iterdir():
                shutil.move(path, folder / path.name)
        else:
            aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)

def push(hub, folder, options):
    kind = "space" if options.to == "space" else "model"
    settings = {"space_sdk": "gradio"} if kind == "space" else {}
    with gpt.explain(f"--push {options.push}; {folder} is ready, and not uploaded", Exception,
                     kind=gpt.RunError):
        hub.create_repo(options.push, repo_type=kind, exist_ok=True, **settings)
        url = hub.upload_folder(repo_id=options.push, repo_type=kind, folder_path=str(folder))
    print(f"uploaded: {url}")

def refuse_q8_0(run):
    gpt.expect(run.dtype != "q8_0", "--dtype q8_0 is for --to gguf; here float32, float16 or bfloat16")

def save_json(path, value, indent=1):
    with gpt.explain(f"{path.name}: a lone surrogate is a character for gpt.py alone", UnicodeEncodeError):
        path.write_text(json.dumps(value, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")

# ---- out: Hugging Face's transformers ----------------------------------------------------------------------

def export_hf(lm, run, out):
    refuse_q8_0(run)
    c, end = lm.config, lm.tokenizer.end_id
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": c.vocab_size,
        "n_positions": c.block_size,
        "n_ctx": c.block_size,                                # llama.cpp's converter reads this one
        "n_embd": c.n_embd,
        "n_layer": c.n_layer,
        "n_head": c.n_head,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "bos_token_id": end,
        "eos_token_id": end,
        "tie_word_embeddings": True,
        "torch_dtype": run.dtype,
    }
    generation = {
        "max_length": c.block_size,                           # it has no position for one token more
        "bos_token_id": end,
        "eos_token_id": end,
        "do_sample": True,
        "temperature": gpt.SampleConfig.temperature,
        "top_k": gpt.SampleConfig.top_k,                      # without, it would be 50
    }
    if lm.tokenizer.unknown_id is not None:
        generation["suppress_tokens"] = [lm.tokenizer.unknown_id]   # it stands for no text
    weights = {}
    for name, tensor in with_biases(lm).items():
        weights[f"transformer.{name}"] = tensor
    save_json(out / "config.json", config)
    save_json(out / "generation_config.json", generation)
    write_safetensors(out / "model.safetensors", weights, run.dtype)
    write_tokenizer(lm.tokenizer, c.block_size, out)
    (out / "README.md").write_text(model_card(run), encoding="utf-8")

def with_biases(lm):
    "Our weights; a GPT-2 has all biases: those that ours lacks are zero."
    shape = gpt.ModelConfig(**{**vars(lm.config), "bias": True, "qkv_bias": True})
    with gpt.torch.device("meta"):
        names = gpt.GPT(shape).state_dict()
    ours = lm.model.state_dict()
    weights = {}
    for name, like in names.items():
        weights[name] = ours[name] if name in ours else gpt.torch.zeros(like.shape)
    return weights

def write_safetensors(path, tensors, dtype):
    header = {"__metadata__": {"format": "pt"}}               # transformers asks for it
    code = next(name for name, known in DTYPES.items() if known == dtype)
    dtype = getattr(gpt.torch, dtype)
    place = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * dtype.itemsize
        offsets = [place, place + size]
        header[name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": offsets}
        place += size
    words = json.dumps(header).encode()
    words += b" " * (-len(words) % 8)                         # the numbers begin at a multiple of 8
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(words)) + words)
        for tensor in tensors.values():
            numbers = tensor.to(dtype).contiguous().view(gpt.torch.uint8)
            file.write(numbers.numpy().tobytes())

def model_card(run):
    "README.md: what the model is, how good it is, and how it was made."
    made = how_it_was_made(run)
    if run.lm.tokenizer.state["level"] == "word":
        made += f"\n{WORD_NOTE}\n"
    return CARD.format(name=run.name, home=json.dumps(run.home), table=table_of(run), made=made)

def table_of(run):
    lm, progress = run.lm, run.checkpoint.get("progress", {})
    c, level = lm.config, lm.tokenizer.state["level"]
    rows = {
        "parameters": f"{gpt.num_parameters(lm.model):,}",
        "shape": f"{c.n_layer} layers, {c.n_head} heads, {c.n_embd} wide, context {c.block_size}",
        "tokens": f"{c.vocab_size:,}, level {level}",
        "text": run.text() or "not recorded",
    }
    loss, step = progress.get("best_val_loss"), progress.get("step")
    is_theirs = step == progress.get("best_step")             # else it is that of best.pt
    if is_theirs and isinstance(loss, float) and math.isfinite(loss):  # infinite before the first evaluation
        rows["validation loss"] = f"{loss:.4f} nats a token"
    if step is not None:
        rows["steps"] = f"{step:,}"
    return "\n".join(f"| {name} | {value} |" for name, value in rows.items())

def how_it_was_made(run):
    command = run.command()
    version = run.checkpoint.get("used", {}).get("gpt", "")   # of the day of its training, if that was noted
    program = f"gpt.py {version}".rstrip()
    return f"\nIt was trained by {program}:\n\n```sh\n{command}\n```\n" if command else ""

ABOUT = """# {name}

A GPT-2: it goes on with a text, and is no assistant.

| | |
|---|---|
{table}
{made}
"""

CARD = """---
library_name: transformers
pipeline_tag: text-generation
tags: [gpt2]
---
""" + ABOUT + """```python
from transformers import pipeline
write = pipeline("text-generation", model={home})
print(write("The ")[0]["generated_text"])
```
"""

# ---- out: tokenizer.json, for every level ------------------------------------------------------------------

WORD_NOTE = ("Words come out in lower case: a tokenizer.json can't put back the capitals, and the spaces at "
             "quotes, as gpt.py does.")

def write_tokenizer(tokenizer, block_size, out):
    level = tokenizer.state["level"]
    made = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": None, "post_processor": None, **PARTS[level](tokenizer)}
    # Named, or AutoTokenizer takes GPT2Tokenizer, which would build one of its own.
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": block_size,
                "clean_up_tokenization_spaces": False}
    if level == "bpe":
        settings |= {"bos_token": END, "eos_token": END, "unk_token": END}
    if level == "word":
        settings["words"] = tokenizer.state["words"]          # for the way back: their spelling
        print(f"note: {WORD_NOTE}", file=sys.stderr)
    save_json(out / "tokenizer.json", made, indent=None)
    save_json(out / "tokenizer_config.json", settings)

def char_parts(tokenizer):
    unknown = tokenizer.texts[0]
    if unknown in tokenizer.state["characters"]:
        unknown = "<unk>"
    vocab = {unknown: 0}
    for i, character in enumerate(tokenizer.state["characters"], 1):
        vocab[character] = i
    each = {"Regex": r"[\s\S]"}                               # a plain dot misses the line's end
    return {
        "pre_tokenizer": {"type": "Split", "pattern": each, "behavior": "Isolated", "invert": False},
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": unknown},
    }

def letters_of(token):
    return "".join(LETTERS[byte] for byte in token)

def tokens_of(tokenizer):
    "The bytes of each token but the last one, by id."
    return [base64.b64decode(token) for token in tokenizer.state["tokens"].split()]

def merges_of(tokens):
    """BPE by ranks, as tiktoken does it, joins whichever neighbours make the token of the lowest rank. BPE by
    merges joins what a list names: so it names all ways to make a token, in the order of the tokens."""
    known = set(tokens)
    merges = []
    for token in tokens:
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in known and right in known:
                merges.append((letters_of(left), letters_of(right)))
    return merges

def bpe_parts(tokenizer):
    tokens = tokens_of(tokenizer)
    vocab = {letters_of(token): i for i, token in enumerate(tokens)}
    vocab[END] = tokenizer.end_id
    end = {"id": tokenizer.end_id, "content": END, "single_word": False, "lstrip": False, "rstrip": False,
           "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "added_tokens": [end],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": merges_of(tokens), "fuse_unk": False},
    }

# WordTokenizer.pattern and its spaces in the dialect of the package tokenizers, whose \w and \s are others.
SPACE = r"[\s\x1c-\x1f]"
LETTER = r"\p{L}\p{N}"
WORDS = "|".join([
    rf"\n{SPACE}*\n",
    rf"(?<=[{LETTER}_])['’]s(?![{LETTER}_])",
    r"\p{Nd}+(?:[.,]\p{Nd}+)+",
    rf"[{LETTER}]+(?:(?:-|['’](?!s(?![{LETTER}_])))[{LETTER}]+)*",
    rf"\.\.\.|--|[^{LETTER}_\s\x1c-\x1f]|_",
])

def replace(pattern, content):
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}

def word_parts(tokenizer):
    "Lower case, cut, look up; and back with spaces where WordDecoder has them, but for pairs of marks."
    before = [replace(rf"\n{SPACE}*\n", "\n\n")]              # a blank line is one token, whatever is in it
    if '"' not in tokenizer.ids:                              # as WordTokenizer.encode_to_numpy() has it
        before += [replace(rf'(?<={SPACE})"|\A"', "“"), replace('"', "”")]
    if "'" not in tokenizer.ids:
        before.append(replace("'", "’"))
    left = "".join(map(re.escape, sorted(gpt.WordDecoder.joins_left)))
    right = "".join(map(re.escape, sorted(gpt.WordDecoder.joins_right)))
    after = [
        {"type": "WordPiece", "prefix": "\n##", "cleanup": False},    # a space between any two of them
        {"type": "Fuse"},
        replace(rf" (?=[{left}]|'s(?![{LETTER}_])|--)", ""),
        replace(rf"(?<=[{right}]|--) ", ""),
    ]
    cut = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Removed", "invert": True}
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*before, {"type": "Lowercase"}]},
        "pre_tokenizer": cut,
        "decoder": {"type": "Sequence", "decoders": after},
        "model": {"type": "WordLevel", "vocab": tokenizer.ids, "unk_token": "<unk>"},
    }

PARTS = {"char": char_parts, "word": word_parts, "bpe": bpe_parts}

# ---- out: GGUF, for llama.cpp and Ollama -------------------------------------------------------------------

GGUF_NAMES = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "ln_1": "attn_norm",
              "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm",
              "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}

GGUF_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0"}

def export_gguf(lm, run, out):
    level = lm.tokenizer.state["level"]
    gpt.expect(level != "word", "llama.cpp knows no tokens that are words: export this one with --to hf")
    gguf = gpt.need("gguf")
    writer = gguf.GGUFWriter(out / "model.gguf", "gpt2")
    c = lm.config
    writer.add_name(run.name)
    writer.add_context_length(c.block_size)
    writer.add_embedding_length(c.n_embd)
    writer.add_feed_forward_length(4 * c.n_embd)
    writer.add_block_count(c.n_layer)
    writer.add_head_count(c.n_head)
    writer.add_layer_norm_eps(1e-5)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    kind = GGUF_DTYPES[run.dtype]
    writer.add_file_type(gguf.LlamaFileType["ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"])
    if level == "char":
        add_characters(gguf, writer, lm.tokenizer)
    else:
        add_bpe(gguf, writer, lm.tokenizer)
    for name, tensor in with_biases(lm).items():
        add_tensor(gguf, writer, gguf_name(name), gguf_layout(name, tensor), run.dtype)
    add_tensor(gguf, writer, "output.weight", lm.model.wte.weight.detach(), run.dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    lines = MODELFILE.format(name=run.name, context=c.block_size, warmth=gpt.SampleConfig.temperature)
    (out / "Modelfile").write_text(lines, encoding="utf-8")

MODELFILE = """# ollama create {name} -f Modelfile
FROM ./model.gguf
TEMPLATE \"\"\"{{{{ .Prompt }}}}\"\"\"
PARAMETER num_ctx {context}
PARAMETER temperature {warmth}
PARAMETER top_k 0
PARAMETER top_p 1
PARAMETER min_p 0
PARAMETER repeat_penalty 1
"""                                                           # Ollama's own are 40, 0.9, 0 and 1.1

def gguf_name(name):
    "h.0.attn.c_attn.weight -> blk.0.attn_qkv.weight"
    block = re.match(r"h\.(\d+)\.", name)
    part, _, kind = name[block.end() if block else 0:].rpartition(".")
    prefix = f"blk.{block[1]}." if block else ""
    return f"{prefix}{GGUF_NAMES[part]}.{kind}"

def gguf_layout(name, tensor):
    "Linear weights are (out, in) there."
    return tensor.T if name.endswith(TRANSPOSED) else tensor

def add_tensor(gguf, writer, name, tensor, dtype):
    "Vectors and positions stay float32, as llama.cpp's own converter has it: they are few."
    numbers = np.ascontiguousarray(tensor.float().numpy())
    if numbers.ndim == 1 or name == "position_embd.weight" or dtype == "float32":
        writer.add_tensor(name, numbers)
        return
    kind = GGUF_DTYPES[dtype]
    if kind == "Q8_0" and numbers.shape[-1] % 32:             # it goes by blocks of 32
        kind = "F16"
    kind = gguf.GGMLQuantizationType[kind]
    writer.add_tensor(name, gguf.quantize(numbers, kind), raw_dtype=kind)

def add_vocabulary(gguf, writer, texts, special, bos_eos, unknown):
    "bos, eos and the unknown are always said: what llama.cpp takes without, 11 or 2, are other tokens here."
    kinds = [gguf.TokenType.NORMAL] * len(texts)
    for i, kind in special.items():
        kinds[i] = kind
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(bos_eos)
    writer.add_eos_token_id(bos_eos)
    writer.add_unk_token_id(unknown)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)

def add_bpe(gguf, writer, tokenizer):
    texts = [letters_of(token) for token in tokens_of(tokenizer)] + [END]
    end = tokenizer.end_id
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")                         # the pattern that cuts
    add_vocabulary(gguf, writer, texts, {end: gguf.TokenType.CONTROL}, end, end)
    writer.add_token_merges([f"{left} {right}" for left, right in merges_of(tokens_of(tokenizer))])

def add_characters(gguf, writer, tokenizer):
    """As a unigram model (t5), which has a token for the unknown; a run of these becomes one. Of the other
    kinds, rwkv never ends on a character whose first byte a known one has, and llama fails on any unknown."""
    characters = tokenizer.state["characters"]
    for character in characters:                              # \u2581 is how it writes a space
        possible = character not in "\0\u2581" and not "\ud800" <= character <= "\udfff"
        told = f"llama.cpp can't have the character {character!a}: export this model with --to hf"
        gpt.expect(possible, told)
    texts = ["<unk>"] + [character.replace(" ", "\u2581") for character in characters]
    writer.add_tokenizer_model("t5")
    writer.add_add_space_prefix(False)
    writer.add_remove_extra_whitespaces(False)
    writer.add_token_scores([0.0] * len(texts))
    add_vocabulary(gguf, writer, texts, {0: gguf.TokenType.UNKNOWN}, 0, 0)

# ---- out: a Space of Hugging Face, which runs anywhere -----------------------------------------------------

GRADIO = "6.31.0"                                             # the version that it was tested with

def export_space(lm, run, out):
    "space.py as its app.py, gpt.py, and a checkpoint without the settings and folders of its training."
    refuse_q8_0(run)
    message = "--to space needs space.py beside gpt.py: copy it from where gpt.py came from"
    gpt.expect(gpt.beside("space.py"), message, gpt.RunError)
    shutil.copyfile(gpt.HERE / "space.py", out / "app.py")
    shutil.copyfile(gpt.HERE / "gpt.py", out / "gpt.py")
    checkpoint = {name: run.checkpoint[name] for name in ("version", "model_config", "tokenizer")}
    checkpoint["train_config"] = {"level": lm.tokenizer.state["level"], "data": run.text()}
    checkpoint["progress"] = run.checkpoint.get("progress", {})
    checkpoint["model"] = {}
    for name, tensor in run.checkpoint["model"].items():
        checkpoint["model"][name] = tensor.to(getattr(gpt.torch, run.dtype))
    gpt.save_checkpoint(out / "best.pt", checkpoint)
    (out / "requirements.txt").write_text("\n".join(packages_of_a_space()) + "\n", encoding="utf-8")
    card = SPACE_CARD.format(title=json.dumps(run.name, ensure_ascii=False), gradio=GRADIO, name=run.name,
                             table=table_of(run), made=how_it_was_made(run))
    (out / "README.md").write_text(card, encoding="utf-8")

def packages_of_a_space():
    "gpt.py says in its first lines what it needs; rich and textual are for terminals."
    source = (gpt.HERE / "gpt.py").read_text(encoding="utf-8")
    packages = json.loads(re.search(r"^# dependencies = (.*)", source, re.M)[1])
    return [package for package in packages if not re.match("rich|textual", package)] + [f"gradio=={GRADIO}"]

# Between its first two lines of dashes, what Hugging Face wants to know of a Space.
SPACE_CARD = """---
title: {title}
emoji: ✍️
colorFrom: green
colorTo: gray
sdk: gradio
sdk_version: {gradio}
app_file: app.py
pinned: false
license: mit
short_description: A small GPT-2 goes on with your text
---
""" + ABOUT + """On your own computer:

```sh
pip install -r requirements.txt
python app.py
```

app.py and gpt.py are under the MIT license; on what terms one may use the weights, say here.
"""

TARGETS = {"hf": export_hf, "gguf": export_gguf, "space": export_space}
