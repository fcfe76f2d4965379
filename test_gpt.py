"""The promises of gpt.py, held. Run: see README.md. Everything here works without network and without a GPU.
What tools.py does (presets, runs, plot, eval, chat, bench, trackers, live display) is in test_tools.py."""

import ast
import base64
import contextlib
import copy
import dataclasses
import functools
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tokenize
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

import gpt

HERE = Path(__file__).resolve().parent
GPT = HERE / "gpt.py"

# What gpt.py promises of itself.
LINES = 2237
COLUMNS = 110
TOKENS_A_LINE = 11
LONGEST = 60  # lines in a function

QUIET = dict(threads=1, dtype="float32", sample_tokens=8, eval_interval=10, log_interval=1, warmup_iters=2)
MINI = dict(QUIET, n_layer=2, n_head=2, n_embd=16, block_size=16, batch_size=6, max_iters=10, dropout=0.1)

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals, limits and locks")
linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a fork that has torch may crash")


def mini(**asked):
    return gpt.train(**{**MINI, "data": "story.txt", **asked})


def flags(**asked):
    "The same for a command line."
    return [f"--{name}={value}" for name, value in {**MINI, "data": "story.txt", **asked}.items()]


def python(*words, env=None, timeout=120, **more):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1", **(env or {})}
    command = [sys.executable, *map(str, words)]
    more = {"capture_output": True, "encoding": "utf-8", "timeout": timeout, "env": env, **more}
    return subprocess.run(command, **more)


def shell(*words, **more):
    return python(GPT, *words, **more)


def typed(*words):
    "A command in this process, as the command line does it: a process of its own imports torch for seconds."
    with gpt.errors_told():
        command, asked = gpt.command_line([str(word) for word in words])
        gpt.run_command(command, asked)


def log(folder, kind=None):
    with open(Path(folder) / "metrics.jsonl", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return [line for line in lines if kind in (None, line["kind"])]


def warnings_in(folder):
    return [line["text"] for line in log(folder, "warn")]


def by_step(lines, key="loss", kind="step"):
    return {line["step"]: line[key] for line in lines if line["kind"] == kind}


def saved(folder, name="latest.pt"):
    return torch.load(Path(folder) / name, weights_only=True)


def weights(folder, name="latest.pt"):
    return saved(folder, name)["model"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def nearly_the_same(a, b):
    assert a.keys() == b.keys()
    for name, w in a.items():
        torch.testing.assert_close(b[name], w, rtol=1e-4, atol=2e-5)


def say(folder, word):
    Path(folder, "control").write_text(word)


def before_steps(monkeypatch, does):
    "Calls does(step) before each step, in the same moment as the rates are set."
    inner = gpt.lr_factor

    def watched(config, step, done):
        does(step)
        return inner(config, step, done)

    monkeypatch.setattr(gpt, "lr_factor", watched)


def stop_after(folder, steps, monkeypatch):
    "From now on the run in this folder is stopped after so many steps, once, by its control file."

    def stop(step):
        if step == steps - 1:
            say(folder, "stop")

    before_steps(monkeypatch, stop)


def check_stopped_in_the_middle(folder, step):
    "Without momenta that are worth something, going on would have nothing to get right."
    checkpoint = saved(folder)
    assert log(folder)[-1]["reason"] == "stopped" and checkpoint["progress"]["step"] == step > 0
    for state in checkpoint["optimizers"]:
        assert len(state) > 0
        for momenta in state.values():
            assert all(value.any() for value in momenta.values())


def new_model(vocab=97, dropout=0.0, seed=1, **shape):
    torch.manual_seed(seed)
    return gpt.GPT(gpt.ModelConfig(**{"vocab_size": vocab, **shape}), dropout)


class Clock:
    "The time that gpt.py sees: it passes only where a test says so."

    def __init__(self, monkeypatch):
        self.now = 1000.0
        self.sleeps = lambda seconds: None
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", lambda seconds: self.sleeps(seconds))


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


# ---- the file's own promises -------------------------------------------------------------------------------


def test_length_and_width():
    lines = GPT.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LINES
    assert [i for i, line in enumerate(lines, 1) if len(line) > COLUMNS] == []


def docstring_lines(tree):
    "The numbers of the lines in which docstrings stand."
    found = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found |= set(range(value.lineno, value.end_lineno + 1))
    return found


def python_tokens(path):
    "-> how many names, operators, numbers and strings there are, and on how many lines; docstrings left out."
    left_out = docstring_lines(ast.parse(path.read_text(encoding="utf-8")))
    kinds = {tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING}
    begins = getattr(tokenize, "FSTRING_START", None)  # from Python 3.12 on an f-string is many tokens
    ends = getattr(tokenize, "FSTRING_END", None)
    tokens, lines, inside = 0, set(), 0
    with open(path, "rb") as file:
        for token in tokenize.tokenize(file.readline):
            inside -= token.type == ends
            counts = token.type in kinds or token.type == begins
            if counts and inside == 0 and token.start[0] not in left_out:
                tokens += 1
                lines |= set(range(token.start[0], token.end[0] + 1))
            inside += token.type == begins
    return tokens, len(lines)


def test_density(tmp_path):
    example = tmp_path / "example.py"
    example.write_text(
        '"""A docstring\nof two lines."""\n# a comment\n\nx = f"{1 + 1}" + (\n    "no docstring")\n'
    )
    assert python_tokens(example) == (7, 2)
    tokens, lines = python_tokens(GPT)
    assert tokens / lines <= TOKENS_A_LINE


def test_no_function_is_long():
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    tree = ast.parse(GPT.read_text(encoding="utf-8"))
    lengths = {n: n.end_lineno - n.lineno + 1 for n in ast.walk(tree) if isinstance(n, functions)}
    assert len(lengths) > 100
    assert {n.name: length for n, length in lengths.items() if length > LONGEST} == {}


def packages(text, start):
    "The quoted names of a list of packages."
    return re.findall(r'"([^"]+)"', re.search(rf"^{start} = \[(.*?)\]", text, re.M | re.S)[1])


def test_the_same_packages_and_version_stand_everywhere():
    header, project = (file.read_text(encoding="utf-8") for file in (GPT, HERE / "pyproject.toml"))
    wanted = (HERE / "requirements.txt").read_text(encoding="utf-8").split()
    assert packages(header, "# dependencies") == packages(project, "dependencies") == wanted
    assert re.search(r'^# requires-python = "(.*)"', header, re.M)[1] == ">=3.10"
    assert re.search(r'^requires-python = "(.*)"', project, re.M)[1] == ">=3.10"
    assert re.search(r'^version = "(.*?)"', project, re.M)[1] == gpt.__version__


def test_imports_no_floor_above():
    source = GPT.read_text(encoding="utf-8")
    assert not re.search(r"^\s*(import|from) +(data|tui|convert|tools|runs)\b", source, re.M)


def test_import_has_no_side_effects(tmp_path):
    code = f"""
import os, sys, random, signal
before = dict(os.environ), sys.argv[:], os.getcwd(), random.getstate()
sys.path.insert(0, {str(HERE)!r})
import gpt
assert before == (dict(os.environ), sys.argv, os.getcwd(), random.getstate())
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and not os.listdir()
"""
    done = python("-B", "-c", code, "--no-such-flag", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def without_torch(folder, instead):
    "An environment whose torch does something else when it is imported."
    (folder / "torch.py").write_text(instead)
    return {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize("own", [None, "7"])
def test_threads_that_wait_soon_sleep(tmp_path, monkeypatch, own):
    "libgomp reads this while torch is loaded: later would be too late. What a user has set stays."
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    if own:
        monkeypatch.setenv("GOMP_SPINCOUNT", own)
    env = without_torch(tmp_path, "import os\nprint(os.environ['GOMP_SPINCOUNT'], flush=True)\nos._exit(0)")
    assert python(GPT, "sample", cwd=tmp_path, env=env).stdout == f"{own or 3000}\n"


QUICK = [[], ["--help"], ["--version"], ["train", "--help"], ["sample", "--help"]]


@pytest.mark.parametrize("words", QUICK, ids=" ".join)
def test_quick_answers_need_no_torch(words, tmp_path):
    done = shell(*words, env=without_torch(tmp_path, "raise SystemExit('torch was imported')"))
    assert (done.returncode, done.stderr) == (0, "") and done.stdout


def test_mistakes_on_the_command_line_need_no_torch(tmp_path):
    done = shell(
        "train", "--n_layr", "3", env=without_torch(tmp_path, "raise SystemExit('torch was imported')")
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: unknown option --n_layr: did you mean --n_layer?\n"


@pytest.mark.parametrize("command", ["train", "sample"])
def test_without_torch_one_line_says_what_to_install(command, tmp_path):
    done = shell(command, env=without_torch(tmp_path, "raise ModuleNotFoundError('no torch')"))
    assert done.returncode in (1, 2) and done.stdout == ""
    assert re.fullmatch(r"error: .*pip install torch.*\n", done.stderr)


def test_the_upper_half_is_all_but_torch():
    "data.py and tools.py load gpt.py down to its line `import torch`: the line must stand alone there."
    above, line, below = GPT.read_text(encoding="utf-8").partition("\nimport torch\n")
    assert line and "torch" not in re.findall(r"^\s*(?:import|from) +(\w+)", above, re.M)
    assert "class CharTokenizer" in above and "def configure" in above and "class GPT" in below


def test_manual_and_help_tell_every_knob(capsys):
    for words in ([], ["train", "--help"]):
        with pytest.raises(SystemExit) as end:
            typed(*words)
        assert end.value.code in (0, None)
    told = capsys.readouterr().out
    assert told.startswith(gpt.__doc__)
    for command in (*gpt.COMMANDS, *gpt.TOOLS):
        assert re.search(rf"^    {command} ", told, re.M)
    told = re.sub(r"\s+", " ", told)
    for name, knob in gpt.KNOBS.items():
        assert f"--{name} " in told
        assert knob.metadata["help"].replace("%%", "%") in told


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit):
        typed("--version")
    assert capsys.readouterr().out == f"gpt.py {gpt.__version__}\n"


# ---- configuration -----------------------------------------------------------------------------------------


def test_authority_is_flag_then_level_then_preset_then_default(tmp_path):
    own = tmp_path / "mine.json"
    mine = {"n_embd": 96, "dropout": 0.2, "max_iters": 5, "word": {"dropout": 0.3}}
    own.write_text(json.dumps({"mine": mine}))
    asked = [{}, {"level": "word"}, {"level": "word", "dropout": 0.4}]
    char, word, flag = (gpt.configure({"preset": "mine", "presets": str(own), **more}) for more in asked)
    assert [config.dropout for _, config in (char, word, flag)] == [0.2, 0.3, 0.4]
    shape, config = char
    assert shape.n_embd == 96 and shape.n_head == 3 and config.level == "char"


def test_own_presets_stand_beside_the_shipped_ones(tmp_path):
    own = tmp_path / "mine.json"
    own.write_text('{"mine": {"about": "my own", "n_layer": 5, "max_iters": 3}}')
    presets = gpt.load_presets(str(own))
    assert presets["mine"]["about"] == "my own" and "gpt2-xl" in presets


def test_a_limit_that_is_asked_for_replaces_those_of_the_preset():
    assert gpt.configure({"preset": "nano", "max_minutes": 10})[1].max_iters == 0
    assert gpt.configure({"preset": "laptop", "max_iters": 10})[1].max_minutes == 0


def test_every_preset_fills_at_every_level():
    presets = gpt.load_presets()
    gpt2 = {"gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"}
    assert (
        gpt2 | {"nano", "micro", "tiny", "small", "baby", "stories", "wikitext", "laptop"} <= presets.keys()
    )
    for name in presets:
        assert presets[name]["about"] and presets[name]["for"]
        for level in gpt.LEVELS:
            gpt.configure({"preset": name, "level": level})


def test_without_presets_json_the_defaults_are_nano(tmp_path, monkeypatch):
    nano = json.loads((HERE / "presets.json").read_text(encoding="utf-8"))["nano"]
    assert not set(nano) & set(gpt.KNOBS), "nano's base is the dataclasses; only its levels may add to it"
    beside = gpt.configure({"preset": "nano", "level": "char"})
    monkeypatch.setattr(gpt, "HERE", tmp_path)
    alone = gpt.configure({"preset": "nano", "level": "char"})
    assert alone[0] == gpt.ModelConfig() == beside[0]
    assert alone[1] == gpt.TrainConfig()
    with pytest.raises(gpt.UserError, match="presets.json, which has more, is not beside gpt.py"):
        gpt.configure({"preset": "gpt2"})


def test_values_may_come_from_torch_from_sliders_and_as_nothing():
    assert gpt.fill(gpt.TrainConfig, {"dtype": torch.bfloat16}).dtype == "bfloat16"
    assert gpt.fill(gpt.TrainConfig, {"dtype": torch.float32}).dtype == "float32"
    o = gpt.sampling({"top_k": 50.0, "temperature": None, "seed": None, "stop": None})
    assert o == gpt.SampleConfig(top_k=50) and type(o.top_k) is int
    assert gpt.fill(gpt.ModelConfig, {"n_layer": 4.0, "bias": None}) == gpt.ModelConfig(n_layer=4)
    with pytest.raises(gpt.UserError, match="top_k 50.5: expected a whole number"):
        gpt.sampling({"top_k": 50.5})
    with pytest.raises(gpt.UserError, match="did you mean bfloat16"):
        gpt.fill(gpt.TrainConfig, {"dtype": torch.float64 and "bfloat17"})


def test_a_value_without_its_flag_is_told():
    with pytest.raises(gpt.UserError, match="runs/b: a value without its flag; for several, repeat"):
        gpt.command_line(["train", "--teacher", "runs/a", "runs/b"])


@pytest.mark.parametrize(
    "typo,meant", [("n", "num_samples"), ("temp", "temperature"), ("max_tokens", "max_new_tokens")]
)
def test_a_wrong_name_of_an_option_finds_the_right_one(typo, meant):
    with pytest.raises(gpt.UserError, match=f"unknown option {typo}: did you mean {meant}\\?"):
        gpt.sampling({typo: 3})


BAD = [
    (["trian"], "did you mean train"),
    (["train", "--preset", "nanoo"], "did you mean nano"),
    (["train", "--level", "wrd"], "did you mean word"),
    (["train", "--learning_rat", "1"], "did you mean --learning_rate?"),
    (["train", "--learning-rat", "1"], "did you mean --learning_rate?"),
    (["train", "--n_embd", "50"], "n_embd % n_head == 0"),
    (["train", "--dropout", "1.5"], "0 <= dropout < 1"),
    (["train", "--batch_size", "many"], "a whole number"),
    (["train", "--batch_size", "2.5"], "a whole number"),
    (["train", "--learning_rate", "fast"], "a number"),
    (["train", "--bias", "perhaps"], "true, false"),
    (["train", "--max_iters"], "expected one argument"),
    (["train", "--max_iters", "0", "--epochs", "0"], "--max_minutes"),
    (["train", "--vocab_size", "100"], "vocab_size >= 258"),
    (["train", "--data", "no/such/file.txt"], "no/such/file.txt"),
    (["train", "--data", "empty.txt"], "nothing to learn from"),
    (["train", "--data", "binary.txt"], "offset 3"),
    (["train", "--data", "latin.txt"], "position 3"),
    (["train", "--data", "short.txt"], "--block_size 17 would fit"),
    (["train", "--presets", "broken.json"], "line 2 column 4"),
    (["train", "--presets", "list.json"], "list.json"),
    (["train", "--presets", "none.json"], "none.json"),
    (["train", "--presets", "field.json", "--preset", "x"], "did you mean n_layer"),
    (["train", "--presets", "value.json", "--preset", "x"], "a whole number"),
    (["train", "--device", "cuda:77"], "--device cpu"),
    (["train", "--dtype", "float16", "--device", "cpu", "--data", "builtin"], "for GPUs"),
    (["train", "--resume"], "no checkpoint"),
    (["train", "--resume", "auto"], "--out_dir"),
    (["train", "--colab_drive", "--data", "builtin"], "drive.mount('/content/drive')"),
    (["sample", "nowhere"], "no such run"),
    (["sample", "--top_k", "-1"], "top_k >= 0"),
    (["sample", "foreign.pt"], "no checkpoint of gpt.py"),
    (["sample", "cut.pt"], "no checkpoint of gpt.py"),
    (["sample", "hollow.pt"], "no checkpoint of gpt.py"),
    (["sample", "newer.pt"], "newer"),
]


@pytest.fixture(scope="module")
def bad_place(tmp_path_factory):
    place = tmp_path_factory.mktemp("bad")
    files = {
        "empty.txt": b" \n",
        "binary.txt": b"abc\0def",
        "latin.txt": "caf\xe9 au lait".encode("latin-1"),
        "short.txt": b"twenty characters...",
        "broken.json": b'{"x":\n   nope}',
        "list.json": b"[1, 2]",
        "field.json": b'{"x": {"n_layers": 2}}',
        "value.json": b'{"x": {"n_layer": "two"}}',
    }
    for name, raw in files.items():
        (place / name).write_bytes(raw)
    torch.save({"something": torch.ones(3)}, place / "foreign.pt")
    (place / "cut.pt").write_bytes((place / "foreign.pt").read_bytes()[:300])
    torch.save({"version": gpt.CHECKPOINT_VERSION}, place / "hollow.pt")
    torch.save({"version": gpt.CHECKPOINT_VERSION + 1}, place / "newer.pt")
    return place


@pytest.mark.parametrize("words,told", BAD, ids=[" ".join(words) for words, _ in BAD])
def test_a_mistake_is_one_line_and_leaves_nothing(words, told, bad_place, monkeypatch, capsys):
    monkeypatch.chdir(bad_place)
    before = set(os.listdir())
    with pytest.raises(SystemExit) as end:
        typed(*words)
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and told in said.err and said.out == ""
    assert said.err.count("\n") == (3 if "--colab_drive" in words else 1)
    assert end.value.code == 2 and set(os.listdir()) == before


def test_the_command_line_exits_as_it_says(bad_place):
    done = shell("train", "--data", "latin.txt", cwd=bad_place)
    assert (done.returncode, done.stdout) == (2, "") and re.fullmatch(r"error: .*\n", done.stderr)


def test_dashes_are_underscores():
    asked = {"n_layer": "4", "max_iters": "7", "colab_drive": "true"}
    assert gpt.command_line(["train", "--n-layer", "4", "--max-iters=7", "--colab-drive"]) == ("train", asked)


def test_a_bare_switch_does_not_swallow_the_next_word():
    asked = {"show_probs": True, "run": ["runs/a"]}
    assert gpt.command_line(["sample", "--show_probs", "runs/a"])[1] == asked
    asked = {"colab_drive": "true", "bias": "false"}
    assert gpt.command_line(["train", "--colab-drive", "--bias", "false"])[1] == asked


# ---- tokenizers --------------------------------------------------------------------------------------------

TRAIN = types.SimpleNamespace(min_freq=1, vocab_size=0)


def own_bpe(text):
    "A byte-level vocabulary without a download: the 256 bytes and some pairs of the text."
    pairs = {text.encode()[i : i + 2] for i in range(0, 400)}
    tokens = [bytes([b]) for b in range(256)] + sorted(pair for pair in pairs if len(pair) == 2)
    return gpt.BPETokenizer(" ".join(base64.b64encode(token).decode() for token in tokens))


@given(st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_char_round_trip(text):
    tokenizer = gpt.CharTokenizer.train(text + "a", TRAIN)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.unknown(text) == []


BPE = own_bpe("the theory of the thing, then the rest of it: naïve café 你好")


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_bpe_round_trip_and_stream(text):
    ids = BPE.encode(text)
    assert BPE.decode(ids) == text
    decoder = BPE.decoder()
    shown = ""
    for i in ids:
        shown += decoder.add(i)
        assert text.startswith(shown), "a piece of a character must wait for the rest"
    assert shown + decoder.end() == text


def squash(text):
    return re.sub(r"\s+", "", text).lower()


@given(st.text(alphabet="abcXYZ '\"’“”—-.,!?\n\n0159", max_size=120))
@settings(max_examples=300, deadline=None)
def test_word_round_trip_up_to_case_and_spacing(text):
    tokenizer = gpt.WordTokenizer.train(text + " \" ' “ ’", TRAIN)
    again = tokenizer.decode(tokenizer.encode(text))
    assert squash(again) == squash(text)


def test_words_read_as_text():
    text = (
        'I met Mr. Holmes in London. "It is well-known," he said. "And Watson\'s friends don\'t pay 1,000 '
        "pounds.\"\n\nThe end (of all)... was near—very near; 'tis so!"
    )
    tokenizer = gpt.WordTokenizer.train((text + "\n\n") * 3 + "the and " * 9, TRAIN)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_number_takes_the_capital_of_a_sentence():
    tokenizer = gpt.WordTokenizer.train("42 men came. 1984 was long. " * 3, TRAIN)
    assert tokenizer.decode(tokenizer.encode("42 men came. 1984 was long.")) == "42 men came. 1984 was long."


def test_words_keep_their_commonest_spelling():
    text = "Holmes saw it. HOLMES went. Then Holmes left and he and i saw I and I."
    tokenizer = gpt.WordTokenizer.train(text, TRAIN)
    assert tokenizer.decode(tokenizer.encode("then holmes and i left")) == "Then Holmes and I left"
    assert tokenizer.encode("THE") == [0] and tokenizer.unknown("the holmes") == ["the"]


def test_words_min_freq():
    tokenizer = gpt.WordTokenizer.train("a a a b b c", types.SimpleNamespace(min_freq=2))
    assert tokenizer.state["words"] == ["<unk>", "a", "b"] and tokenizer.vocab_size == 3


def test_typed_quotes_find_printed_ones():
    tokenizer = gpt.WordTokenizer.train("“Yes,” he said, “it’s Holmes’s.” “No,” I said.", TRAIN)
    ids = tokenizer.encode("“Yes,” he said, “it’s")
    assert tokenizer.encode('"Yes," he said, "it\'s') == ids and tokenizer.unknown_id not in ids


def test_a_prompt_from_outside_is_named():
    tokenizer = gpt.CharTokenizer.train("abc", TRAIN)
    assert tokenizer.encode("a♥c") == [1, 0, 3] and tokenizer.unknown("a♥cß") == ["ß", "♥"]
    assert tokenizer.decode([1, 0]) == "a\N{REPLACEMENT CHARACTER}"


EACH_LEVEL = [gpt.CharTokenizer.train("hello", TRAIN), gpt.WordTokenizer.train("hello big world", TRAIN), BPE]


@pytest.mark.parametrize("tokenizer", EACH_LEVEL, ids=gpt.LEVELS)
def test_state_is_all_a_tokenizer_needs(tokenizer):
    again = gpt.load_tokenizer(json.loads(json.dumps(tokenizer.state)))
    assert again.state == tokenizer.state and again.vocab_size == tokenizer.vocab_size
    assert again.encode("hello") == tokenizer.encode("hello")


@pytest.mark.parametrize("tokenizer", EACH_LEVEL, ids=gpt.LEVELS)
def test_ids_are_what_torch_and_numpy_take(tokenizer):
    ids = tokenizer.encode("hello")
    assert all(type(i) is int for i in ids) and torch.tensor([ids]).dtype == torch.int64
    packed = tokenizer.encode_to_numpy("hello")
    assert packed.dtype == np.uint32 and packed.tolist() == ids
    assert tokenizer.decode(torch.tensor(ids)).lower() == tokenizer.decode(ids).lower() == "hello"
    assert tokenizer.encode("") == [] and tokenizer.decode([]) == ""


def test_gpt2_tokens():
    try:
        tokenizer = gpt.BPETokenizer.train("", TRAIN)
    except gpt.RunError as error:
        assert "--vocab_size 4096" in str(error) and "\n" not in str(error)
        pytest.skip("no network and no cache: only the error was checked")
    assert tokenizer.vocab_size == 50257 and tokenizer.end_id == 50256
    assert tokenizer.encode("Hello world") == [15496, 995]
    assert len(json.dumps(tokenizer.state)) < 1e6


def test_without_tiktoken_one_line_says_what_to_install(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(gpt.RunError, match="pip install tiktoken"):
        mini(level="bpe")


# ---- the corpus and its batches ----------------------------------------------------------------------------


def test_text_file_with_bom_and_crlf_is_the_same_text(place, story):
    Path("dos.txt").write_bytes(b"\xef\xbb\xbf" + story.replace("\n", "\r\n").encode())
    assert gpt.read_text("dos.txt") == gpt.read_text("story.txt") == story


def prepared(folder, tokens=2000, vocab=10, level="char", dtype="uint16", claimed=None):
    folder.mkdir()
    ids = (np.arange(tokens) * 7 % vocab).astype("<u2" if dtype == "uint16" else "<u4")
    for split in ("train", "val"):
        ids.tofile(folder / f"{split}.bin")
    meta = {
        "level": level,
        "vocab_size": vocab,
        "dtype": dtype,
        "train_tokens": claimed or tokens,
        "val_tokens": tokens,
        "train_bytes": tokens,
        "val_bytes": tokens,
        "tokenizer": {"level": "char", "characters": "abcdefghi"},
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def test_prepared_folder(place):
    for dtype in ("uint16", "uint32"):
        corpus = gpt.open_corpus(prepared(place / dtype, dtype=dtype), gpt.TrainConfig(), 16)
        assert corpus.tokenizer.vocab_size == 10 and corpus.train[:3].tolist() == [0, 7, 4]
        assert isinstance(corpus.train, np.memmap) and isinstance(corpus.val, np.memmap)
        assert corpus.val_bytes == 2000
    assert mini(data="uint16", max_iters=2).best_val_loss < math.inf


WRONG_FOLDERS = [
    ({"level": "word"}, "--level word"),
    ({"claimed": 3000}, "cut short"),
    ({"dtype": "u"}, "not a folder"),
]


@pytest.mark.parametrize("change,told", WRONG_FOLDERS)
def test_prepared_folder_that_does_not_fit(change, told, place):
    with pytest.raises(gpt.UserError, match=told):
        gpt.open_corpus(prepared(place / "p", **change), gpt.TrainConfig(), 16)


def test_builtin_is_english_prose(story):
    text = gpt.read_text("builtin")
    paragraphs = text.split("\n\n")
    assert len(text) > 100_000 and len(set(paragraphs)) == len(paragraphs) > 500
    for paragraph in paragraphs:
        assert paragraph[0].isupper() and paragraph[-1] in ".!?" and "\n" not in paragraph
        assert not re.search(r'\*\*|"|  |::|__|\(\)', paragraph)


def put_token(file, where, token):
    ids = np.memmap(file, "<u2", "r+")
    ids[where] = token
    ids.flush()


def test_ids_outside_the_vocabulary_are_found_when_they_are_used(place):
    folder = prepared(place / "p", tokens=2000)
    put_token(folder / "train.bin", 1990, 10)
    corpus = gpt.open_corpus(folder, gpt.TrainConfig(), 16)  # does not read it
    batches = gpt.Batches(corpus, 16, 5, seed=1, device=torch.device("cpu"))
    refused = 0
    for step in range(25):  # an epoch has 125 windows
        try:
            batches(step, 0, 5)
        except gpt.UserError as error:
            refused += 1
            assert "the data has token 10, outside of its 10" in str(error)
    assert refused in (1, 2), "the token is in one window of an epoch, and may begin another as its target"


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_run_is_told_of_ids_outside_the_vocabulary(split, place):
    folder = prepared(place / "p")
    put_token(folder / f"{split}.bin", slice(None), 10)
    with pytest.raises(gpt.UserError, match="the data has token 10"):
        mini(data="p", max_iters=2)


def test_a_folder_that_is_no_corpus(place):
    (place / "pictures").mkdir()
    with pytest.raises(gpt.UserError, match="pictures could not be prepared"):
        mini(data="pictures")
    with pytest.raises(gpt.UserError, match="not a folder that data.py made"):
        gpt.open_corpus("pictures", gpt.TrainConfig(), 16)


def test_what_is_no_plain_text_goes_through_data_py(place):
    (place / "notes").mkdir()
    (place / "notes" / "a.md").write_text("a note\n" * 300)
    (place / "notes" / "b.txt").write_text("a word\n" * 300)
    (place / "posts.jsonl").write_text('{"text": "a post, and no braces"}\n' * 200)
    assert Path(mini(data="notes", max_iters=1).out_dir) == Path("runs/nano-char-notes")
    result = mini(data="posts.jsonl", max_iters=1)
    assert "{" not in gpt.load(result.out_dir).tokenizer.state["characters"]
    own = mini(data="story.txt", level="bpe", vocab_size=300, max_iters=1)
    assert gpt.load(own.out_dir).tokenizer.vocab_size == 300
    (place / "notes" / "b.txt").write_text("changed!\n" * 300)  # and is noticed
    assert "!" in gpt.load(mini(data="notes", max_iters=1).out_dir).tokenizer.state["characters"]


def test_tokens_of_ones_own_need_data_py(place, monkeypatch):
    monkeypatch.setattr(gpt, "HERE", place)
    with pytest.raises(gpt.RunError, match="needs data.py beside gpt.py"):
        mini(level="bpe", vocab_size=300)


def batches_of(ids, block_size, batch_size, seed=1):
    tokenizer = types.SimpleNamespace(vocab_size=int(ids.max()) + 1)
    corpus = types.SimpleNamespace(train=ids, tokenizer=tokenizer)
    return gpt.Batches(corpus, block_size, batch_size, seed, torch.device("cpu"))


@pytest.mark.parametrize("tokens,block,batch", [(64, 8, 3), (640, 16, 7), (96, 8, 50)])
def test_every_position_once_per_epoch(tokens, block, batch):
    batches = batches_of(np.arange(tokens), block, batch, seed=5)  # a token says where it stands
    windows = tokens // block
    rows = [batches(step, 0, batch) for step in range(3 * windows // batch + 1)]
    x, y = (torch.cat(part)[: 3 * windows] for part in zip(*rows))
    assert torch.equal((x + 1) % tokens, y)
    for epoch in x.split(windows):
        assert sorted(epoch.flatten().tolist()) == list(range(tokens))
    assert not torch.equal(x[:windows], x[windows : 2 * windows])


def test_a_permutation_is_computed_place_by_place():
    for n in (1, 2, 3, 64, 65, 1000):
        whole = gpt.shuffled(np.arange(n), n, np.random.default_rng(7))
        assert sorted(whole) == list(range(n))
        part = gpt.shuffled(np.arange(n)[n // 3 :: 2], n, np.random.default_rng(7))
        assert part.tolist() == whole[n // 3 :: 2].tolist()


def test_a_permutation_looks_random():
    "How often place i goes to j, over 3,000 permutations: chi-squared, a degree of freedom, is 1 by chance."
    n, times = 40, 3000
    counts = np.zeros((n, n))
    steps = np.zeros(n)  # from one place's window to the next one's
    for seed in range(times):
        order = gpt.shuffled(np.arange(n), n, np.random.default_rng(seed))
        counts[np.arange(n), order] += 1
        steps += np.bincount((order[1:] - order[:-1]) % n, minlength=n)
    assert ((counts - times / n) ** 2 / (times / n)).sum() / n**2 < 1.15
    expected = steps.sum() / (n - 1)
    assert ((steps[1:] - expected) ** 2 / expected).sum() / (n - 2) < 2


@linux
def test_ten_billion_tokens_cost_nothing_at_the_start(place):
    "The file has holes: it takes no room on the disk, and whoever reads all of it takes a minute."
    folder = prepared(place / "p")
    meta = json.loads((folder / "meta.json").read_text())
    meta["train_tokens"] = 10**10
    (folder / "meta.json").write_text(json.dumps(meta))
    os.truncate(folder / "train.bin", 2 * 10**10)
    tracemalloc.start()
    begun = time.monotonic()
    corpus = gpt.open_corpus(folder, gpt.TrainConfig(), 1024)
    batches = gpt.Batches(corpus, 1024, 32, seed=1, device=torch.device("cpu"))
    batches(0, 0, 32)
    batches(10**6, 0, 32)  # where a run goes on after a million steps
    assert time.monotonic() - begun < 10
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_a_rest_shorter_than_a_window_moves_around():
    batches = batches_of(np.arange(70), 16, 4)
    epochs = [batches(step, 0, 4)[0].flatten().tolist() for step in range(20)]
    assert all(len(set(epoch)) == 64 for epoch in epochs)
    assert set().union(*epochs) == set(range(70))


def test_batches_are_a_pure_function_and_ranks_share_them():
    a, b = (batches_of(np.arange(1000), 8, 6, seed=2) for _ in range(2))
    a(31, 0, 6)
    whole = a(9, 0, 6)[0]
    assert torch.equal(whole, b(9, 0, 6)[0])
    assert torch.equal(whole, torch.cat([b(9, 0, 2)[0], b(9, 2, 6)[0]]))
    assert not torch.equal(whole, batches_of(np.arange(1000), 8, 6, seed=3)(9, 0, 6)[0])


@given(st.integers(2, 200), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_evaluation_scores_each_token_once(tokens, block):
    x, y = gpt.fixed_windows(np.arange(tokens), block)
    assert x.shape == y.shape and x.size(1) == block and (x >= 0).all()
    assert y[y >= 0].tolist() == list(range(1, tokens))
    assert torch.equal(x[y >= 0] + 1, y[y >= 0])


# ---- the model ---------------------------------------------------------------------------------------------

COUNTS = [
    ("nano", 97, 357_312),
    ("micro", 97, 822_144),
    ("tiny", 97, 10_733_952),
    ("gpt2", 50257, 124_439_808),
]


@pytest.mark.parametrize("preset,vocab,parameters", COUNTS)
def test_parameter_counts(preset, vocab, parameters):
    shape, _ = gpt.configure({"preset": preset})
    shape.vocab_size = vocab
    with torch.device("meta"):
        model = gpt.GPT(shape)
    assert gpt.num_parameters(model) == parameters


@pytest.mark.parametrize("bias,qkv_bias", [(True, True), (True, False), (False, False), (False, True)])
def test_biases_are_where_they_were_asked_for(bias, qkv_bias):
    model = new_model(bias=bias, qkv_bias=qkv_bias)
    biases = [name for name, _ in model.named_parameters() if name.endswith("bias")]
    of_qkv = [name for name in biases if "c_attn" in name]
    assert len(of_qkv) == (3 if bias and qkv_bias else 0)
    assert len(biases) - len(of_qkv) == (3 * 5 + 1 if bias else 0)


def test_logits_equal_hugging_face():
    transformers = pytest.importorskip("transformers", reason="only needed to compare with")
    shape = dict(vocab_size=61, n_embd=24, n_layer=3, n_head=4)
    ends = dict(bos_token_id=0, eos_token_id=0)
    config = transformers.GPT2Config(n_positions=32, attn_implementation="eager", **shape, **ends)
    torch.manual_seed(3)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    for weight in theirs.parameters():
        weight.data.normal_(0, 0.2)
    ours = gpt.GPT(gpt.ModelConfig(block_size=32, **shape)).eval()
    assert ours.state_dict().keys() == theirs.transformer.state_dict().keys()
    ours.load_state_dict(theirs.transformer.state_dict())  # weights travel as they are
    ids = torch.randint(61, (5, 32))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)


def test_initial_weights_and_loss():
    model = new_model(n_layer=6, n_head=6, n_embd=96)
    for name, w in model.named_parameters():
        if w.ndim == 2:
            expected = 0.02 / math.sqrt(12) if name.endswith("c_proj.weight") else 0.02
            assert abs(w.std().item() / expected - 1) < 0.1, name
    ids = torch.randint(97, (8, 129))
    loss = gpt.loss_of(model(ids[:, :-1]), ids[:, 1:]).item()
    assert abs(loss / math.log(97) - 1) < 0.05


def test_nobody_sees_the_future():
    model = new_model().eval()
    ids = torch.randint(97, (1, 32))
    changed = ids.clone()
    changed[0, 20:] = 5
    for grad in (True, False):  # by hand, and torch's kernel
        with torch.set_grad_enabled(grad):
            assert torch.equal(model(ids)[:, :20], model(changed)[:, :20])
            assert not torch.equal(model(ids)[:, 20:], model(changed)[:, 20:])


def test_logits_have_one_shape():
    model = new_model(block_size=12).eval()
    ids = torch.randint(97, (3, 12))
    logits = model(ids)
    assert logits.shape == (3, 12, 97) and model(ids[:, :1]).shape == (3, 1, 97)
    torch.testing.assert_close(model(ids, last_only=True), logits[:, -1:])
    cache = gpt.Cache(model, 3)
    assert model(ids[:, :5], cache).shape == (3, 5, 97) and cache.length == 5
    assert model(ids[:, 5:], cache, last_only=True).shape == (3, 1, 97)


def test_more_tokens_than_the_context_are_a_plain_error():
    model = new_model(block_size=12)
    with pytest.raises(gpt.UserError, match="^20 tokens are more than the context of 12$"):
        model(torch.zeros(1, 20, dtype=torch.long))
    cache = gpt.Cache(model, 1)
    model(torch.zeros(1, 10, dtype=torch.long), cache)
    with pytest.raises(gpt.UserError, match="^13 tokens are more than the context of 12$"):
        model(torch.zeros(1, 3, dtype=torch.long), cache)


def attention_by_definition(q, k, v):
    "Of the last T positions: each sees all up to its own."
    T, S = q.size(2), k.size(2)
    unseen = torch.full((T, S), -math.inf).triu(S - T + 1)
    likeness = q @ k.mT / math.sqrt(q.size(-1)) + unseen
    return likeness.softmax(-1) @ v


@pytest.mark.parametrize("grad", [True, False], ids=["by hand", "kernel"])
@pytest.mark.parametrize("new", [16, 15, 3, 1])
def test_attention_is_what_it_should_be_however_many_are_new(new, grad):
    torch.manual_seed(2)
    q, k, v = (torch.randn(2, 4, 16, 8, requires_grad=grad) for _ in range(3))
    q = q[:, :, -new:]
    with torch.set_grad_enabled(grad):
        ours, right = gpt.attend(q, k, v, 0.0), attention_by_definition(q, k, v)
        torch.testing.assert_close(ours, right)
        if grad:
            ours, right = (torch.autograd.grad(y.square().sum(), (q, k, v)) for y in (ours, right))
            torch.testing.assert_close(ours, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(
    "cuts", [(0, 12), (0, 1, 12), (0, 5, 11, 12), (0, 11, 12), tuple(range(13))], ids=str
)
def test_cached_logits_are_those_of_the_whole_in_whatever_parts_it_is_read(cuts, grad):
    "Also outside of inference_mode, where attention has another way to go."
    model = loud(new_model(40, n_layer=2, n_head=2, n_embd=16, block_size=12)).eval()
    ids = torch.randint(40, (3, 12), generator=torch.Generator().manual_seed(5))
    with torch.set_grad_enabled(grad):
        whole = model(ids)
        cache = gpt.Cache(model, 3)
        parts = [model(ids[:, a:b], cache) for a, b in zip(cuts, cuts[1:])]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-4)
    assert cache.length == 12


@pytest.mark.parametrize("p", [0.1, 0.5, 0.003])
def test_dropout_is_dropout(p):
    torch.manual_seed(1)
    x = torch.ones(1003, 1001, requires_grad=True)
    assert gpt.dropout(x, 0.0) is x
    y = gpt.dropout(x, p)
    dropped = (y == 0).float().mean().item()
    assert abs(dropped - p) < 5 * math.sqrt(p * (1 - p) / x.numel()) + 1e-5
    assert abs(y.mean().item() - 1) < 0.005
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    lanes = (y == 0).flatten()[:1_000_000].view(-1, 4).float()  # the four cuts of a draw are independent
    assert (lanes.mean(0) - p).abs().max() < 5 * math.sqrt(p / 250_000)
    assert (torch.corrcoef(lanes.T) - torch.eye(4)).abs().max() < 0.02
    torch.manual_seed(1)
    assert torch.equal(y, gpt.dropout(x, p))


def test_dropout_is_for_training():
    model = new_model(dropout=0.5)
    ids = torch.randint(97, (2, 16))
    assert not torch.equal(model(ids), model(ids))
    model.eval()
    assert torch.equal(model(ids), model(ids))


def test_label_smoothing_is_for_training_and_gives_all_tokens_a_share():
    torch.manual_seed(1)
    shape = gpt.ModelConfig(n_layer=1, n_head=1, n_embd=8, block_size=8, vocab_size=7)
    model = gpt.GPT(shape, label_smoothing=0.3)
    ids, targets = torch.randint(7, (2, 2, 8))
    surprise = -model(ids).log_softmax(-1)
    exact = surprise.gather(-1, targets[..., None]).mean()
    smoothed = 0.7 * exact + 0.3 * surprise.mean()
    assert abs(smoothed - exact) > 1e-4
    assert torch.allclose(model(ids, targets=targets), smoothed, atol=1e-6)
    assert torch.allclose(model.eval()(ids, targets=targets), exact, atol=1e-6)


PARTS = (torch.nn.LayerNorm, gpt.Linear, gpt.Attention, gpt.MLP, gpt.Block)


def listen(model):
    "-> the names of all parts, and of those whose forward hooks have fired."
    names, fired = set(), set()
    for name, part in model.named_modules():
        if isinstance(part, PARTS):
            names.add(name)
            part.register_forward_hook(lambda *_, name=name: fired.add(name))
    return names, fired


def test_forward_hooks_fire_on_every_part_in_training_and_in_sampling():
    model = new_model(dropout=0.1).train()
    names, fired = listen(model)
    kinds = {type(part) for part in model.modules()}
    assert kinds >= set(PARTS) and len(names) == 3 * 9 + 1
    gpt.loss_of(model(torch.randint(97, (2, 16))), torch.randint(97, (2, 16))).backward()
    assert fired == names
    it = lm()
    names, fired = listen(it.model)
    it.sample("AB", max_new_tokens=1)
    assert fired == names
    fired.clear()
    it.sample("AB", max_new_tokens=2, num_samples=2)
    assert fired == names


# ---- the optimizer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 12, 12), (2, 12, 48), (4, 48, 12)])
def test_orthogonal(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(gpt.orthogonal(torch.randn(shape)))
    assert values.min() > 0.6 and values.max() < 1.3


def cosine(a, b):
    return torch.nn.functional.cosine_similarity(a.flatten().double(), b.flatten().double(), 0).item()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1e-3, 1e-5, 1e-7])
def test_muon_keeps_its_direction_however_small_the_gradient(dtype, size):
    "16 bits can't hold what a trained model's gradients are like: they must be brought to size before."
    torch.manual_seed(0)
    gradient = torch.randn(24, 48)
    exact = gpt.orthogonal(gradient[None])
    assert cosine(gpt.orthogonal(gradient[None] * size, dtype), exact) > 0.99
    steps = {}
    for each in (torch.float32, dtype):
        steps[each] = torch.nn.Parameter(torch.zeros(24, 48))
        steps[each].grad = gradient * size
        gpt.Muon([{"params": [steps[each]], "parts": 1}], 0.1, 0.9, 0.0, each).step()
    assert cosine(steps[dtype].detach(), steps[torch.float32].detach()) > 0.99


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_every_parameter_in_one_group_and_decay_for_matrices_only(optimizer):
    model = new_model()
    config = gpt.TrainConfig(optimizer=optimizer, weight_decay=0.1)
    decays = {}
    for each in gpt.make_optimizers(model, config, torch.float32):
        for group in each.param_groups:
            for w in group["params"]:
                assert id(w) not in decays
                decays[id(w)] = group["weight_decay"]
    assert decays.keys() == {id(w) for w in model.parameters()}
    for name, w in model.named_parameters():
        assert decays[id(w)] == (0.1 if name.startswith("h.") and w.ndim == 2 else 0)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_bad_step_leaves_no_trace(optimizer):
    model = new_model()
    config = gpt.TrainConfig(optimizer=optimizer, weight_decay=0.1)
    optimizers = gpt.make_optimizers(model, config, torch.float32)
    ids = torch.arange(16)[None]

    def step(scale):
        model.zero_grad()
        (gpt.loss_of(model(ids), ids) * scale).backward()
        for each in optimizers:
            each.found_inf = torch.tensor(float(not math.isfinite(scale)))
            each.step()
        states = [value for each in optimizers for state in each.state.values() for value in state.values()]
        return [value.detach().clone() for value in (*model.parameters(), *states)]

    step(1.0)
    before = step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, step(math.nan)))
    assert not any(torch.equal(a, b) for a, b in zip(before, step(1.0)))


def test_splitting_qkv_is_three_matrices():
    "One Muon step on the fused tensor is the step on q, k and v apart."
    torch.manual_seed(0)
    fused, gradient = torch.nn.Parameter(torch.randn(8, 24)), torch.randn(8, 24)
    apart = [torch.nn.Parameter(part.clone()) for part in fused.detach().chunk(3, dim=1)]
    for params, parts, gradients in (([fused], 3, [gradient]), (apart, 1, gradient.chunk(3, dim=1))):
        for w, g in zip(params, gradients):
            w.grad = g.clone()
        gpt.Muon([{"params": params, "parts": parts}], 0.1, 0.9, 0.01, torch.float32).step()
    torch.testing.assert_close(fused.detach(), torch.cat([w.detach() for w in apart], 1))


def test_the_learning_rate():
    config = gpt.TrainConfig(warmup_iters=9, min_lr=6e-4, learning_rate=6e-3)
    assert gpt.lr_factor(config, 0, 0) == pytest.approx(0.1) and gpt.lr_factor(config, 9, 0) == 1
    assert gpt.lr_factor(config, 500, 0.5) == pytest.approx(0.55)
    assert gpt.lr_factor(config, 1000, 1) == pytest.approx(0.1)
    cosine = dataclasses.replace(config, schedule="cosine", min_lr=0.0)
    assert gpt.lr_factor(cosine, 500, 0.25) == pytest.approx(0.5 + math.sqrt(0.5) / 2)


# ---- sampling ----------------------------------------------------------------------------------------------


def loud(model):
    for w in model.parameters():
        w.data *= 4  # so that the likeliest token is a clear one
    return model


def lm(vocab=40, seed=0, **shape):
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 12, **shape}
    characters = "".join(map(chr, range(65, 65 + vocab - 1)))
    return gpt.LM(loud(new_model(vocab, seed=seed, **shape)).eval(), gpt.CharTokenizer(characters))


def uncached(model, prompt, said, T):
    "The logits before each token that was said, without a cache, over the window that generate() promises."
    row, start, told = list(prompt), max(0, len(prompt) - T), []
    for i in said:
        if len(row) - start > T:
            start = len(row) - T // 2
        with torch.no_grad():
            logits = model(torch.tensor([row[start:]]))[0, -1]
        logits[0] = -math.inf
        told.append(logits)
        row.append(i)
    return torch.stack(told)


@pytest.mark.parametrize("length", [1, 2, 6, 11, 12, 13, 30])
def test_cached_is_uncached_at_every_length_and_past_the_context(length):
    it = lm()
    prompt = torch.randint(1, 40, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    for temperature in (0, 2.0):  # the likeliest token is often the same again
        o = gpt.SampleConfig(max_new_tokens=40, temperature=temperature)
        ids, logits, _ = zip(*gpt.generate(it, [*prompt], o))
        said = [i for (i,) in ids]
        right = uncached(it.model, prompt, said, 12)
        torch.testing.assert_close(torch.cat(logits), right, rtol=1e-3, atol=1e-3)
        if temperature == 0:
            assert said == right.argmax(-1).tolist()
    assert len(set(said)) > 10


def test_rows_do_not_disturb_each_other():
    "Each row is what the model says after that row alone, also past the context."
    it = lm()
    o = gpt.SampleConfig(max_new_tokens=40, temperature=2.0, num_samples=3)
    ids, logits, _ = zip(*gpt.generate(it, [7, 8, 9], o))
    rows = list(zip(*ids))
    assert len(set(rows)) == 3
    for row, its_logits in zip(rows, torch.stack(logits, 1)):
        torch.testing.assert_close(its_logits, uncached(it.model, [7, 8, 9], row, 12), rtol=1e-3, atol=1e-3)


def test_generate_tells_ids_logits_and_how_full_the_context_is():
    it = lm()
    greedy = gpt.SampleConfig(max_new_tokens=14, temperature=0, num_samples=2)
    told = [*gpt.generate(it, [1, 2, 3], greedy)]
    assert [context_used for *_, context_used in told] == [*range(3, 13), 6, 7, 8, 9]
    for ids, logits, _ in told:
        assert len(ids) == 2 and logits.shape == (2, 40) and ids == logits.argmax(-1).tolist()


def test_sampling_is_seeded_and_never_says_unknown():
    it = lm()
    a, b, c = (it.sample("AB", seed=seed, temperature=2.0, max_new_tokens=100) for seed in (1, 1, 2))
    assert a == b != c and "\N{REPLACEMENT CHARACTER}" not in a + c and len(a) == 100


def test_printable():
    assert gpt.printable("a\x1b[31mb\r\n\tc\x00\x9b") == "a�[31mb�\n\tc��"


def picks(logits, seen=None, n=400, **options):
    "How often each of some logits is picked."
    o = gpt.fill(gpt.SampleConfig, {"temperature": 1, **options})
    logits = torch.tensor([logits]).repeat(n, 1)
    seen = seen and torch.tensor([seen]).repeat(n, 1)
    ids = gpt.pick(logits, seen, o, torch.Generator().manual_seed(0))
    return torch.bincount(ids, minlength=logits.size(1)).tolist()


def test_pick():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().tolist()
    assert picks(logits, temperature=0) == [400, 0, 0, 0]
    free = picks(logits)
    assert all(abs(n / 400 - p) < 0.08 for n, p in zip(free, (0.5, 0.3, 0.15, 0.05))) and free[3] > 0
    assert picks(logits, temperature=0.2)[0] > 350
    assert picks(logits, top_k=2)[2:] == [0, 0] and min(picks(logits, top_k=2)[:2]) > 100
    assert picks(logits, top_k=99) == free
    assert picks(logits, top_p=0.5)[1:] == [0, 0, 0]
    assert picks(logits, top_p=0.51)[2:] == [0, 0] and picks(logits, top_p=0.51)[1] > 0
    assert picks(logits, top_p=0.01)[0] == 400
    assert picks(logits, min_p=0.25)[3] == 0 and picks(logits, min_p=0.25)[2] > 0
    assert picks(logits, min_p=1)[0] == 400
    assert picks(logits, top_k=3, top_p=0.9, min_p=0.4)[2:] == [0, 0]


def test_the_penalty_pushes_down_whatever_the_sign():
    greedy = {"temperature": 0, "repetition_penalty": 2.0}
    assert picks([2.0, 1.5, -1.0], seen=[0, 0], **greedy) == [0, 400, 0]
    assert picks([-1.0, -1.5, -3.0], seen=[0, 0], **greedy) == [0, 400, 0]
    greedy["repetition_penalty"] = 0.1
    assert picks([-1.0, -1.5, -3.0], seen=[1, 2], **greedy) == [0, 400, 0]


def test_the_penalty_looks_back_over_its_window_in_prompt_and_text(monkeypatch):
    it, told = lm(), []

    def look(logits, recent, o, generator):
        told.append(recent.tolist())
        return logits.argmax(-1)

    monkeypatch.setattr(gpt, "pick", look)
    o = gpt.SampleConfig(max_new_tokens=5, repetition_penalty=1.5, repetition_window=3)
    new = [i for (i,), *_ in gpt.generate(it, [3, 4, 5, 6], o)]
    assert told == [[[3, 4, 5, 6, *new][i + 1 : i + 4]] for i in range(5)]
    told.clear()
    new = [i for (i,), *_ in gpt.generate(it, [7], o)]  # shorter than its window
    assert told == [[[7, *new][: i + 1][-3:]] for i in range(5)]
    told.clear()
    o.repetition_window, o.max_new_tokens = 20, 30  # longer than the context of 12
    new = [i for (i,), *_ in gpt.generate(it, [7], o)]
    assert told[-1] == [[7, *new][-21:-1]]


TEXTS = st.lists(st.text("abU:\n", max_size=4))


@given(TEXTS, st.lists(st.text("abU:\n", min_size=1, max_size=4), max_size=3))
@settings(deadline=None, max_examples=300)
def test_stop_texts_hold_back_what_may_be_one(texts, stops):
    whole = "".join(texts)
    ends = [(whole.find(stop) + len(stop), whole.find(stop)) for stop in stops if stop in whole]
    first, cut = min(ends, default=(math.inf, len(whole)))  # the one that was whole first
    watched, shown, taken = gpt.StopTexts(stops), "", 0
    for text in texts:
        shown += watched.add(text)
        taken += len(text)
        assert whole.startswith(shown)
        assert watched.found == (taken >= first)
        if watched.found:
            break
        may_begin = [n for stop in stops for n in range(1, len(stop)) if whole[:taken].endswith(stop[:n])]
        assert len(shown) == taken - max(may_begin, default=0)
    if not watched.found:
        shown += watched.held
    assert shown == whole[:cut]


def test_stop_texts_show_at_once_what_cannot_be_one():
    watched = gpt.StopTexts(("User:", "\nUser:"))
    shown = [watched.add(text) for text in ("Hello", " U", "ser", " x", "\nUs", "er:")]
    assert shown == ["Hello", " ", "", "User x", "", ""]
    assert watched.found


def test_a_stop_inside_a_token_cuts_it():
    it = lm()
    text = it.sample("AB", max_new_tokens=8, temperature=0)
    it.tokenizer.texts = [f"<{character}>" for character in it.tokenizer.texts]
    pieces = [*it.stream("AB", max_new_tokens=8, temperature=0, stop=text[3] + ">")]
    first = text.find(text[3])
    assert "".join(pieces) == "".join(f"<{c}>" for c in text[:first]) + "<"
    assert it.report.reason == "stop"


def test_reports():
    it = lm()
    ask = {"max_new_tokens": 9, "temperature": 0}
    text = it.sample("AB", **ask)
    report = it.report
    assert (report.reason, report.tokens, report.context_used, len(text)) == ("length", 9, 10, 9)
    assert report.tokens_per_s > 0 and report.first_s > 0
    assert it.sample("AB", **ask, stop=text[4:6]) == text[: text.find(text[4:6])]
    assert it.report.reason == "stop"
    stream = it.stream("AB", **ask)
    assert next(stream) == text[0]
    stream.close()
    assert it.report.reason == "cancelled" and it.report.tokens == 1
    it.tokenizer.end_id = it.tokenizer.encode(text)[3]
    cut = text[: text.find(text[3])]
    assert it.sample("AB", **ask) == cut and it.report.reason == "end"
    assert it.sample("AB", **ask, num_samples=3) == [cut] * 3
    assert it.sample("AB", max_new_tokens=0) == ""
    assert it.sample("AB", max_new_tokens=0, num_samples=2) == ["", ""]


def test_each_of_several_samples_ends_where_it_ends():
    it = lm()
    ask = {"num_samples": 4, "temperature": 3.0, "max_new_tokens": 40}
    endless = it.sample("AB", **ask)
    it.tokenizer.end_id = it.tokenizer.encode(endless[0])[5]
    end = endless[0][5]
    ended = it.sample("AB", **ask)
    assert ended == [text.partition(end)[0] for text in endless]
    assert len({len(text) for text in ended}) > 1


def test_several_samples_differ_and_are_seeded():
    it = lm()
    ask = {"num_samples": 4, "temperature": 2.0, "max_new_tokens": 30}
    many = it.sample("AB", **ask)
    assert len(many) == 4 and len(set(many)) == 4 and all(len(text) == 30 for text in many)
    assert many == it.sample("AB", **ask)
    greedy = {"temperature": 0, "max_new_tokens": 30}
    assert it.sample("AB", num_samples=2, **greedy) == [it.sample("AB", **greedy)] * 2


def test_a_list_of_prompts_is_answered_by_a_list():
    it = lm()
    greedy = {"temperature": 0, "max_new_tokens": 30}
    prompts = ["AB", "CDEFGHIJKLMNOPQRST", ""]
    alone = [it.sample(prompt, **greedy) for prompt in prompts]
    assert it.sample(prompts, **greedy) == alone
    assert it.sample(["AB"], **greedy) == alone[:1] and it.sample(tuple(prompts), **greedy) == alone
    assert it.sample(prompts, num_samples=2, **greedy) == [[text, text] for text in alone]
    stop = alone[0][2]
    assert it.sample(prompts, stop=stop, **greedy) == [text.partition(stop)[0] for text in alone]
    assert it.sample([], **greedy) == []


def test_logits_of_tokens_are_those_of_the_model():
    it = lm()
    options = gpt.SampleConfig(temperature=0.5, max_new_tokens=6)
    texts, ids, told = zip(*it.tokens("AB", options))
    row = it.encode("AB" + "".join(texts))
    assert list(ids) == row[2:]
    with torch.no_grad():
        logits = it.model(torch.tensor([row]))[0]
    logits[:, 0] = -math.inf
    for i, its_logits in enumerate(told):
        torch.testing.assert_close(its_logits, logits[1 + i], rtol=1e-4, atol=1e-4)


def test_bytes_have_a_text_for_each_token_and_none_more():
    it = gpt.LM(loud(new_model(BPE.vocab_size, block_size=12)).eval(), BPE)
    ids = iter(BPE.encode("the 你好, the é") + BPE.encode("ß")[:1])  # and half of a character at the end
    wanted = [*ids]
    it.model.forward = lambda read, cache, last_only: torch.eye(BPE.vocab_size)[wanted[asked.pop(0)]][
        None, None
    ]
    asked = [*range(len(wanted))]
    options = gpt.SampleConfig(temperature=0, max_new_tokens=len(wanted) - 1)
    texts, ids, _ = zip(*it.tokens("a", options))
    assert list(ids) == wanted[:-1] and "".join(texts) == "the 你好, the é"
    asked = [*range(len(wanted))]
    options.max_new_tokens = len(wanted)
    texts, ids, logits = zip(*it.tokens("a", options))
    assert list(ids[:-1]) == wanted and it.report.tokens == len(wanted)
    assert (texts[-1], ids[-1], logits[-1]) == ("\N{REPLACEMENT CHARACTER}", None, None)
    asked = [*range(len(wanted))]
    assert "".join(it.stream("a", temperature=0, max_new_tokens=len(wanted))) == "".join(texts)


def test_the_cost_of_a_token_does_not_grow():
    it = lm()
    read, forward = [], it.model.forward

    def counting(ids, cache, last_only):
        read.append(ids.numel())
        return forward(ids, cache, last_only)

    it.model.forward = counting
    it.sample("AB", max_new_tokens=600)
    T = it.config.block_size
    assert len(read) == 600 and sum(read) <= 2 + 600 * 2 + T
    assert sum(read[:300]) == pytest.approx(sum(read[300:]), abs=T)


@pytest.mark.parametrize("dtype,off", [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_laid_out_for_speed_it_says_the_same(dtype, off):
    it = lm()
    fast, ids = gpt.laid_out(copy.deepcopy(it.model), dtype), torch.tensor([[1, 2, 3, 4, 5]])
    with torch.no_grad():
        logits = it.model(ids)
        cached = fast(ids, gpt.Cache(fast, 1), last_only=True)
        assert torch.allclose(fast(ids).float(), logits, atol=off)
        assert torch.allclose(cached.float(), logits[:, -1:], atol=off)
    assert fast.state_dict().keys() == it.model.state_dict().keys()
    assert fast.wte.weight.dtype == dtype and it.model.wte.weight.dtype == torch.float32


# ---- training ----------------------------------------------------------------------------------------------


def test_a_run_from_python(place, story, capsys):
    result = mini(max_iters=40, eval_interval=20)
    assert result.reason == "done" and Path(result.out_dir) == Path("runs/nano-char-story")
    lines = log(result.out_dir)
    kinds = [line["kind"] for line in lines]
    assert kinds[0] == "start" and kinds[-1] == "end" and {"step", "eval", "sample", "state"} <= set(kinds)
    evals = log(result.out_dir, "eval")
    assert [line["step"] for line in evals] == [0, 20, 40]
    vocab = lines[0]["config"]["model"]["vocab_size"]
    assert abs(evals[0]["val_loss"] / math.log(vocab) - 1) < 0.05
    assert evals[-1]["val_loss"] < evals[0]["val_loss"] - 0.3 and result.best_val_loss == evals[-1]["best"]
    val = story[36_000:]
    bits = evals[0]["val_loss"] / math.log(2) * len(val) / len(val.encode())
    assert evals[0]["bits_per_byte"] == pytest.approx(bits)
    steps = log(result.out_dir, "step")
    speeds = {"tokens", "tokens_per_s", "mfu", "elapsed_s", "eta_s", "memory_mb"}
    assert speeds | {"loss", "lr", "grad_norm"} <= steps[-1].keys()
    assert steps[-1]["tokens"] == 40 * 6 * 16 and steps[-1]["mfu"] is None
    assert by_step(result.history, "val_loss", "eval") == by_step(lines, "val_loss", "eval")
    assert by_step(result.history) == by_step(lines)
    said = capsys.readouterr().out
    assert re.search(r"^step 20 \| train \d\.\d{4} \| val \d\.\d{4} \| best", said, re.M)
    assert "ln(" in said and "at step 40 it says" in said
    settings = json.loads(Path(result.out_dir, "config.json").read_text(encoding="utf-8"))
    assert settings["train"]["max_iters"] == 40 and settings["used"]["dtype"] == "float32"
    assert settings["used"]["gpt"] == saved(result.out_dir, "best.pt")["used"]["gpt"] == gpt.__version__
    assert sorted(os.listdir(result.out_dir)) == ["best.pt", "config.json", "latest.pt", "metrics.jsonl"]


def test_the_checkpoint_is_self_contained(place, tmp_path_factory, monkeypatch):
    result = mini()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copy(Path(result.out_dir, "best.pt"), elsewhere)
    monkeypatch.chdir(elsewhere)
    it = gpt.load("best.pt")
    assert len(it.sample("The ", max_new_tokens=30, seed=1)) == 30
    logits = it.model(torch.tensor([it.tokenizer.encode("The ")]))
    assert logits.shape == (1, 4, it.tokenizer.vocab_size)
    assert not any(key.startswith(("_orig_mod.", "module.")) for key in weights(".", "best.pt"))
    assert "optimizers" not in saved(".", "best.pt")


def test_newest_run_is_found(place):
    mini(max_iters=1)
    newest = mini(max_iters=1)
    assert Path(newest.out_dir) == Path("runs/nano-char-story-2")
    assert gpt.find_checkpoint() == Path(newest.out_dir, "best.pt")


def test_a_result_and_a_model_are_told_in_one_line(place):
    result = mini(max_iters=3)
    it = gpt.load(result.out_dir, threads=1)
    for told in (repr(result), repr(it)):
        assert "\n" not in told and len(told) < 160
        assert repr(result.out_dir)[1:-1] in told
    assert "done" in repr(result) and str(result.best_val_loss)[:5] in repr(result)
    assert all(part in repr(it) for part in ("char", "2 layers", "16 wide", "context 16", "float32"))


def test_micro_batch_changes_nothing(place):
    runs = [mini(micro_batch=micro, dropout=0.0, max_iters=5) for micro in (0, 1, 3, 4)]
    losses = [list(by_step(run.history).values()) for run in runs]
    assert len(losses[0]) >= 4
    for run in runs[1:]:
        nearly_the_same(weights(runs[0].out_dir), weights(run.out_dir))
    np.testing.assert_allclose(losses[1:], [losses[0]] * 3, rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_stopping_and_going_on_is_bit_for_bit(optimizer, place, monkeypatch):
    ask = {"max_iters": 23, "eval_interval": 8, "optimizer": optimizer, "dropout": 0.2}
    whole = mini(out_dir="whole", **ask)
    with monkeypatch.context() as patch:
        stop_after("parts", 13, patch)  # between two evaluations
        assert mini(out_dir="parts", **ask).reason == "stopped"
    check_stopped_in_the_middle("parts", 13)
    more = gpt.train(resume="parts")
    assert more.reason == "done" and more.best_val_loss == whole.best_val_loss
    assert same(weights("whole"), weights("parts")) and same(
        weights("whole", "best.pt"), weights("parts", "best.pt")
    )
    assert log("parts", "start")[1]["resumed_from"] == 13
    again = gpt.train(resume="parts")  # of a run that is over
    assert again.reason == "done" and same(weights("whole"), weights("parts"))


def test_what_was_best_before_a_stop_is_best_after_it(place, monkeypatch):
    now = [-1]
    before_steps(monkeypatch, lambda step: now.insert(0, step))
    losses = {0: 5.0, 4: 3.0}
    monkeypatch.setattr(gpt, "mean_loss", lambda *_: losses.get(now[0] + 1, 4.0))
    with monkeypatch.context() as patch:
        stop_after("run", 13, patch)
        mini(out_dir="run", max_iters=60, eval_interval=4, patience=4)
    check_stopped_in_the_middle("run", 13)
    best = weights("run", "best.pt")
    more = gpt.train(resume="run")
    assert more.reason == "patience" and log("run")[-1]["step"] == 20 and more.best_val_loss == 3.0
    assert same(best, weights("run", "best.pt"))
    assert [line["best"] for line in log("run", "eval")] == [5.0, 3.0, 3.0, 3.0, 3.0, 3.0]


def test_each_step_has_a_dropout_of_its_own(place, monkeypatch):
    seeds, original = [], gpt.loss_of

    def loss_of(*batch):
        if torch.is_grad_enabled():  # not an evaluation's
            seeds.append(torch.initial_seed())
        return original(*batch)

    monkeypatch.setattr(gpt, "loss_of", loss_of)
    mini(max_iters=5)
    trial, *first = seeds
    assert len(set(first)) == 5 and trial == first[0]
    seeds.clear()
    mini(max_iters=5)
    assert seeds[1:] == first
    seeds.clear()
    mini(max_iters=5, seed=2)
    assert not set(seeds) & set(first)


def forks(house, code):
    "Runs code that has fork(run), in a process of the house: it and its forks have torch from there."
    head = """
import runpy, socket

def fork(run):
    child = os.fork()
    if child == 0:
        run()
        os._exit(0)
    return child

def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""
    done = house.run(patch=head + code + "\nraise SystemExit\n", limit=120, memory=-1)
    assert done.status == 0, done.err


def kill(house, *kills):
    "For each place and run: trains until a SIGKILL there, before a step or in an evaluation."
    forks(house, f"""
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def train_until(place, asked):
    inner = gpt.lr_factor
    if place == "evaluate":
        gpt.mean_loss = die
    gpt.lr_factor = lambda config, step, done: die() if step == place else inner(config, step, done)
    gpt.train(**asked)

for place, asked in {kills!r}:
    assert ended(fork(lambda: train_until(place, asked))) == -signal.SIGKILL, place
""")


@linux
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_sigkill_between_any_two_steps(optimizer, place, house):
    ask = dict(MINI, data="story.txt", max_iters=16, eval_interval=5, optimizer=optimizer, dropout=0.2)
    whole = gpt.train(**ask, out_dir="whole")
    kill(house, (7, dict(ask, out_dir="killed")), (11, {"resume": "killed"}), (14, {"resume": "killed"}))
    result = gpt.train(resume="killed")
    assert result.reason == "done" and same(weights("whole"), weights("killed"))
    assert same(weights("whole", "best.pt"), weights("killed", "best.pt"))
    assert result.best_val_loss == whole.best_val_loss
    assert by_step(log("killed")) == by_step(whole.history)
    assert [line["resumed_from"] for line in log("killed", "start")] == [None, 5, 10, 10]


@linux
def test_a_run_killed_in_its_first_second_goes_on(place, house):
    ask = dict(MINI, data="story.txt", max_iters=8)
    whole = gpt.train(**ask, out_dir="whole")
    kill(
        house,
        ("evaluate", dict(ask, out_dir="runs/newest")),
        ("evaluate", dict(ask, out_dir="auto", resume="auto")),
    )
    for folder, resume in (
        ("runs/newest", {"resume": "newest"}),
        ("auto", dict(ask, out_dir="auto", resume="auto")),
    ):
        assert sorted(os.listdir(folder)) == ["config.json", "latest.pt", "metrics.jsonl"]
        assert log(folder, "eval") == [] and saved(folder)["progress"]["step"] == 0
        result = gpt.train(**resume)
        assert Path(result.out_dir) == Path(folder) and result.best_val_loss == whole.best_val_loss
        assert same(weights("whole"), weights(folder))
        assert [line["resumed_from"] for line in log(folder, "start")] == [None, 0]


def places(optimizer):
    "The parameters of a model of one block, in the order in which its optimizers keep their states."
    model = new_model(n_layer=1)
    names = {w: name for name, w in model.named_parameters()}
    optimizers = gpt.make_optimizers(model, gpt.TrainConfig(optimizer=optimizer), torch.float32)
    return [[names[w] for group in each.param_groups for w in group["params"]] for each in optimizers]


MATRICES = ["attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"]
NORMS = ["ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias"]
BIASES = ["attn.c_attn.bias", "attn.c_proj.bias", "mlp.c_fc.bias", "mlp.c_proj.bias"]


def check_places():
    """In a checkpoint a state has a number, not a name. With another order it would go to another parameter,
    and torch does not see that: a moment of another length is read past its end."""
    matrices = [f"h.0.{name}" for name in MATRICES]
    vectors = [f"h.0.{name}" for name in NORMS + BIASES]
    others = ["wte.weight", "wpe.weight", *vectors, "ln_f.weight", "ln_f.bias"]
    assert places("muon") == [matrices, others] and places("adamw") == [others + matrices]


def test_the_order_of_parameters_is_part_of_the_format():
    check_places()


def test_checkpoints_of_the_first_format_go_on(place, monkeypatch):
    check_places()  # or what follows would end this process, and all tests
    ask = {"max_iters": 20, "eval_interval": 6}
    whole = mini(out_dir="whole", **ask)
    with monkeypatch.context() as patch:
        stop_after("parts", 11, patch)
        mini(out_dir="parts", **ask)
    check_stopped_in_the_middle("parts", 11)
    for name in ("latest.pt", "best.pt"):
        checkpoint = saved("parts", name)
        checkpoint["version"] = 1
        del checkpoint["used"]["gpt"]
        progress = checkpoint["progress"]
        del progress["sampled_at"]  # nobody knew of it
        for old, new in (
            ("best", "best_val_loss"),
            ("worse", "evals_since_best"),
            ("looked", "evaluated_at"),
        ):
            progress[old] = progress.pop(new)
        assert progress.keys() == {"step", "elapsed_s", "best", "best_step", "worse", "looked", "skipped"}
        torch.save(checkpoint, Path("parts", name))
    assert len(gpt.load("parts").sample("The ", max_new_tokens=5)) == 5
    more = gpt.train(resume="parts")
    assert more.best_val_loss == whole.best_val_loss and same(weights("whole"), weights("parts"))
    assert saved("parts")["version"] == gpt.CHECKPOINT_VERSION == 2
    assert saved("parts")["progress"].keys() == saved("whole")["progress"].keys()


def test_resume_takes_new_limits_and_rates_but_no_new_shape(place):
    result = mini(max_iters=5)
    more = gpt.train(resume=result.out_dir, max_iters=8, learning_rate=1e-4, weight_decay=0.5)
    assert more.reason == "done" and log(more.out_dir)[-1]["step"] == 8
    assert max(by_step(more.history, "lr").values()) <= 1e-4
    with pytest.raises(gpt.UserError, match="--n_embd 16: it can't go on with 32"):
        gpt.train(resume=result.out_dir, n_embd=32)
    Path("other.txt").write_text("Quite another text. " * 500)
    with pytest.raises(gpt.UserError, match="(?s)another tokenizer, its characters .* can't go on"):
        gpt.train(resume=result.out_dir, data="other.txt", max_iters=20)


def test_more_minutes_leave_a_run_its_other_limits():
    "Passes over a text keep a run from learning it by heart. Any other limit takes the place of all."
    saved = {"preset": "auto", "max_iters": 0, "max_minutes": 10.0, "epochs": 50.0}
    for asked, expected in (
        ({"max_minutes": 20}, (0, 20, 50)),
        ({"max_iters": 900}, (900, 0, 0)),
        ({"epochs": 60}, (0, 0, 60)),
        ({"max_minutes": 20, "epochs": 60}, (0, 20, 60)),
        ({"learning_rate": 0.001}, (0, 10, 50)),
    ):
        _, config = gpt.configure(asked, saved)
        assert (config.max_iters, config.max_minutes, config.epochs) == expected
    _, config = gpt.configure({"max_minutes": 20}, {**saved, "max_iters": 700, "max_minutes": 0.0})
    assert (config.max_iters, config.max_minutes, config.epochs) == (0, 20, 0)


def test_a_run_goes_on_where_it_is(place):
    mini(max_iters=2, out_dir="run")
    with pytest.raises(gpt.UserError, match="--out_dir elsewhere: a run goes on where it is, in run"):
        gpt.train(resume="run", out_dir="elsewhere", max_iters=3)
    assert not Path("elsewhere").exists()
    assert gpt.train(resume="run", out_dir="./run", max_iters=3).out_dir == "run"


def test_a_run_in_32_bits_can_go_on_in_16(place, monkeypatch):
    "As from a laptop to an old GPU: float16 alone scales its loss."
    mini(max_iters=3, out_dir="run")
    assert saved("run")["scaler"] == {}
    monkeypatch.setattr(gpt, "choose_precision", lambda config, device: (torch.float16, 1, "as asked"))
    with contextlib.ExitStack() as cleanup:
        run = gpt.TrainingRun({"resume": "run", "max_iters": 5, "dtype": "float16"}, cleanup)
        assert run.scaler.is_enabled() and run.progress.step == 3
        assert all(optimizer.state for optimizer in run.optimizers)


def test_other_blocks_frozen_means_optimizers_that_begin_anew(place):
    mini(max_iters=3, out_dir="run")
    assert gpt.train(resume="run", max_iters=5, freeze=1).reason == "done"
    assert any("optimizers begin anew" in text for text in warnings_in("run"))


def test_a_run_goes_on_without_the_file_of_its_preset(place):
    Path("mine.json").write_text('{"mine": {"n_layer": 1, "max_iters": 3}}')
    mini(presets="mine.json", preset="mine", out_dir="run", max_iters=2)
    Path("mine.json").unlink()
    more = gpt.train(resume="run", max_iters=4)
    assert more.reason == "done" and gpt.other_file("tools").afterwards(more) == ""


def test_a_backslash_is_no_new_line_in_the_name_of_a_run():
    knobs = gpt.KNOBS | gpt.knobs(gpt.SampleConfig)
    assert gpt.convert(knobs["teacher"], "runs\\nano-word") == ("runs\\nano-word",)
    assert gpt.convert(knobs["stop"], "end\\n") == ("end\n",)


def test_a_run_can_begin_with_the_weights_of_another(place):
    first = mini(max_iters=5, out_dir="first")
    start = weights("first", "best.pt")
    Path("other.txt").write_text(Path("story.txt").read_text(encoding="utf-8")[:9000], encoding="utf-8")
    ask = dict(QUIET, init_from="first", data="other.txt", max_iters=3, eval_interval=3)
    second = gpt.train(**ask, batch_size=4, out_dir="second")
    assert second.reason == "done" and log("second")[0]["config"]["train"]["preset"] == "finetune"
    assert log("second")[0]["config"]["train"]["optimizer"] == "adamw"
    its = gpt.load("second")
    assert its.tokenizer.state == gpt.load("first").tokenizer.state and its.config.n_embd == 16
    assert log("second", "eval")[0]["val_loss"] < math.log(its.config.vocab_size) - 0.1 and first
    # a shorter context takes the first positions
    gpt.train(**ask, batch_size=4, out_dir="cropped", block_size=8, freeze=2)
    cropped = weights("cropped")
    assert torch.equal(cropped["wpe.weight"], start["wpe.weight"][:8])
    same_names = [name for name in start if name != "wpe.weight" and torch.equal(cropped[name], start[name])]
    assert set(same_names) == {name for name in start if not name.startswith(("ln_f", "wpe"))}
    with pytest.raises(gpt.UserError, match="has --n_layer 2, not 3"):
        gpt.train(**ask, n_layer=3)
    with pytest.raises(gpt.UserError, match="has --level char, not word"):
        gpt.train(**ask, level="word")
    with pytest.raises(gpt.UserError, match="there are 2 blocks"):
        gpt.train(**ask, freeze=3)
    more = gpt.train(resume="second", max_iters=5)
    assert more.reason == "done" and log("second", "start")[-1]["resumed_from"] == 3


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_frozen_blocks_stay_as_they_are(optimizer, place):
    mini(max_iters=2, out_dir="first")
    ask = dict(QUIET, init_from="first", data="story.txt", max_iters=3, batch_size=4, optimizer=optimizer)
    gpt.train(**ask, freeze=1, out_dir="second")
    before, after = weights("first", "best.pt"), weights("second")
    for name in before:
        frozen = name.startswith(("h.0.", "wte", "wpe"))
        assert torch.equal(before[name], after[name]) == frozen, name


def test_resume_auto_starts_or_goes_on(place):
    first = mini(out_dir="auto", resume="auto", max_iters=3)
    second = mini(out_dir="auto", resume="auto", max_iters=6)
    assert [line["resumed_from"] for line in log("auto", "start")] == [None, 3]
    assert first.out_dir == second.out_dir == "auto"


@pytest.mark.slow
@linux
def test_five_starts_have_one_result_busy_or_idle(place, house):
    "Nothing is measured at the start, so nothing depends on what else the computer does."
    forks(house, f"""
def command(folder):
    sys.argv = ["gpt.py", "train", *{flags(max_iters=3, eval_tokens=200, threads=0, dtype="auto")!r}]
    sys.argv.append("--out_dir=" + folder)
    runpy.run_path({str(GPT)!r}, run_name="__main__")

def start(folder):
    return fork(lambda: command(folder))

def forever():
    while True:
        pass

torch.set_num_threads(2)
assert ended(start("idle")) == 0
busy = fork(forever)
try:
    assert ended(start("busy-1")) == ended(start("busy-2")) == 0
finally:
    os.kill(busy, signal.SIGKILL)
beside = [start("busy-3"), start("busy-4")]
assert [ended(child) for child in beside] == [0, 0]
""")
    for folder in ("busy-1", "busy-2", "busy-3", "busy-4"):
        assert saved(folder)["used"] == saved("idle")["used"]
        assert same(weights("idle"), weights(folder))
        assert by_step(log(folder)) == by_step(log("idle"))
    assert saved("idle")["used"]["threads"] == 2


# ---- several processes -------------------------------------------------------------------------------------


def test_two_processes_are_one(place):
    ask = {"dropout": 0.0, "max_iters": 6, "eval_interval": 3}
    mini(out_dir="alone", **ask)
    torchrun = ["-m", "torch.distributed.run", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    done = python(*torchrun, "--nproc_per_node=2", GPT, "train", *flags(out_dir="two", **ask))
    assert done.returncode == 0, done.stderr
    nearly_the_same(weights("alone"), weights("two"))
    for key, kind in (("loss", "step"), ("val_loss", "eval"), ("train_loss", "eval")):
        one, two = (by_step(log(folder), key, kind) for folder in ("alone", "two"))
        assert one.keys() == two.keys() and len(one) >= 3
        np.testing.assert_allclose(list(two.values()), list(one.values()), rtol=1e-4)
    assert log("two")[0]["world_size"] == 2 and done.stdout.count("step 3 |") == 1


def train_on_processes(house, processes, after, reason, before="", behind="", **asked):
    """The second of them is told to stop after some steps: so all must hear of it. before, behind: what else
    each of them does."""
    forks(house, f"""
with socket.socket() as free:
    free.bind(("localhost", 0))
    port = str(free.getsockname()[1])

def one(rank):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE={str(processes)!r})
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=port)
    inner = gpt.lr_factor

    def stopping(config, step, done):
        if step + 1 == {after} and rank == 1:
            signal.raise_signal(signal.SIGTERM)
        return inner(config, step, done)

    gpt.lr_factor = stopping
{before}
    result = gpt.train(**{asked!r})
    assert result.reason == {reason!r}, result
{behind}

children = [fork(lambda: one(rank)) for rank in range({processes})]
assert not any([ended(child) for child in children])
""")


@linux
def test_an_uneven_batch_over_processes_and_a_stop_for_all(place, house):
    ask = dict(MINI, data="story.txt", dropout=0.0, batch_size=7, max_iters=6, eval_interval=3)
    gpt.train(**ask, out_dir="alone")
    share = "    gpt.Muon.WORTH_SHARING = 0"  # these matrices are small
    train_on_processes(house, 3, 4, "stopped", before=share, **ask, out_dir="odd")
    check_stopped_in_the_middle("odd", 4)
    train_on_processes(house, 2, -1, "done", before=share, resume="odd")  # another number of processes
    assert [line["world_size"] for line in log("odd", "start")] == [3, 2]
    nearly_the_same(weights("alone"), weights("odd"))
    more = gpt.train(resume="odd", max_iters=8)  # one goes on where two stopped
    assert more.reason == "done" and log("odd")[-1]["step"] == 8


@linux
def test_a_process_that_runs_out_of_memory_takes_smaller_parts_and_the_others_too(place, house):
    ask = dict(MINI, data="story.txt", dropout=0.0, batch_size=8, max_iters=4, eval_interval=2)
    gpt.train(**ask, out_dir="alone")
    small = """
    forward = gpt.GPT.forward

    def small(self, ids, *more, **named):
        if self.training and rank == 1 and len(ids) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, ids, *more, **named)

    gpt.GPT.forward = small
"""
    train_on_processes(house, 2, -1, "done", before=small, **ask, out_dir="two")
    told = "out of memory in another process: going on with --micro_batch 1"
    assert warnings_in("two") == [told]
    nearly_the_same(weights("alone"), weights("two"))


def test_a_text_of_which_most_words_are_unknown_is_told(place):
    (place / "chinese.txt").write_text("\n".join(f"第{i}句话和别的都不一样。" for i in range(2000)))
    told = warnings_in(mini(data="chinese.txt", level="word", max_iters=1, out_dir="words").out_dir)
    assert any("% of the validation text is <unk>" in text and "--level char" in text for text in told)
    assert not warnings_in(mini(data="chinese.txt", max_iters=1, out_dir="characters").out_dir)
    assert not warnings_in(mini(data="builtin", level="word", max_iters=1, out_dir="english").out_dir)


@linux
def test_the_others_wait_while_the_first_prepares(place, house):
    "Longer than one wait of gloo may last: here 1 second, in a run 30 minutes."
    slow = """
    import datetime, time
    begin, prepare = torch.distributed.init_process_group, gpt.prepare
    second = datetime.timedelta(seconds=1)
    gpt.dist.init_process_group = lambda backend, **rest: begin(backend, timeout=second, **rest)

    def slowly(*asked):
        assert rank == 0
        time.sleep(3)
        return prepare(*asked)

    gpt.prepare = slowly
"""
    train_on_processes(house, 2, -1, "done", before=slow, **{**MINI, "data": "story.txt", "max_iters": 1})


@linux
def test_a_process_that_dies_is_one_line_of_the_others(place, house):
    dies = """
    step = gpt.Muon.step

    def die(muon):
        if rank == 1 and muon.found_inf == 0:
            os._exit(9)
        return step(muon)

    gpt.Muon.step = die
    sys.stderr = open("told.txt", "w", buffering=1)
    try:
        with gpt.errors_told():
            gpt.train_command(ASKED)
    except SystemExit as end:
        os._exit(end.code)
"""
    asked = {**MINI, "data": "story.txt", "max_iters": 3, "out_dir": "dies"}
    begun = time.monotonic()
    with pytest.raises(AssertionError):
        train_on_processes(house, 2, -1, "done", before=dies.replace("ASKED", repr(asked)), **asked)
    assert time.monotonic() - begun < 60
    (line,) = Path("told.txt").read_text().splitlines()
    assert line.startswith("error: another process has ended") and "--resume auto" in line


@pytest.mark.slow
def test_processes_that_torchrun_starts_anew_find_each_other(place):
    (place / "twice.py").write_text(f"""
import os, sys, time
sys.path.insert(0, {str(HERE)!r})
import gpt
ranks = gpt.Ranks("cpu")
ranks.all_reduce_max(1)
if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    if ranks.rank == 1:
        os._exit(9)
    time.sleep(60)
ranks.close()
""")
    done = python("-m", "torch.distributed.run", "--nproc_per_node=2", "--max-restarts=1", "twice.py")
    assert done.returncode == 0 and "can't reach each other" not in done.stderr, done.stderr


@linux
def test_processes_that_end_by_the_clock_pace_themselves_alike(place, house):
    "Though the first one's evaluations take longer, since it saves."
    slow_first = """
    import time
    shares, rate, save = [], gpt.lr_factor, gpt.TrainingRun.save

    def noting(*asked):
        shares.append(rate(*asked))
        return shares[-1]

    def slowly(run, name):
        time.sleep(0.2 * (rank == 0))
        return save(run, name)

    gpt.lr_factor, gpt.TrainingRun.save = noting, slowly
"""
    write = "    gpt.Path(f'{rank}.json').write_text(gpt.json.dumps(shares))"
    asked = {**MINI, "preset": "nano", "data": "story.txt", "max_iters": 0, "max_minutes": 0.05}
    train_on_processes(house, 2, -1, "time", before=slow_first, behind=write, **{**asked, "eval_interval": 3})
    first, second = (json.loads(Path(f"{rank}.json").read_text()) for rank in range(2))
    assert first == second and len(first) > 1


@linux
def test_hosts_with_different_texts_are_one_line(place, house):
    other = """
    open_corpus = gpt.open_corpus

    def other_text(*asked):
        corpus = open_corpus(*asked)
        corpus.sha256 = "0" * 64 if rank else corpus.sha256
        return corpus

    gpt.open_corpus = other_text
    try:
        gpt.train(**ASKED)
        os._exit(1)
    except gpt.UserError as error:
        assert "story.txt is another text on another host" in str(error)
        os._exit(0)
"""
    asked = {**MINI, "data": "story.txt"}
    train_on_processes(house, 2, -1, "done", before=other.replace("ASKED", repr(asked)), **asked)


@linux
def test_gradients_stay_in_the_buffers_that_are_sent(place, house):
    "With micro-batches too: beside them they would take their memory twice."
    places = """
    before, after = [], []  # the last micro-batch of each step, where the gradients lie
    take_step, read = gpt.TrainingRun.take_step, gpt.Batches.__call__

    def noting(run, found_inf):
        after[:] = [w.grad.data_ptr() for w in run.raw_model.parameters()]
        gpt.the_run = run
        return take_step(run, found_inf)

    def reading(*asked):
        before[:] = [w.grad.data_ptr() for w in gpt.the_run.raw_model.parameters() if w.grad is not None]
        return read(*asked)

    gpt.TrainingRun.take_step, gpt.Batches.__call__ = noting, reading
"""
    check = "    assert len(after) > 10 and before == after"
    asked = {**MINI, "data": "story.txt", "max_iters": 6, "micro_batch": 1}
    train_on_processes(house, 2, -1, "done", before=places, behind=check, **asked)


def test_no_memory_for_an_optimizers_step_is_one_line(place, monkeypatch):
    def full(run, found_inf):
        if not found_inf:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(gpt.TrainingRun, "take_step", full)
    with pytest.raises(gpt.RunError, match="out of memory: add a smaller --micro_batch"):
        gpt.train_command({**MINI, "data": "story.txt"})


@linux
def test_processes_that_begin_at_different_steps_are_one_line(place, house):
    mini(out_dir="here", max_iters=2)
    mini(out_dir="there", max_iters=4)
    other = """
    asked = {**ASKED, "resume": ["here", "there"][rank]}
    try:
        gpt.train(**asked)
    except gpt.UserError as error:
        assert "processes begin at different steps" in str(error)
        os._exit(0)
"""
    train_on_processes(house, 2, -1, "done", before=other.replace("ASKED", "dict(max_iters=9)"))


@linux
def test_more_processes_than_windows_to_evaluate(place, house):
    ask = dict(MINI, data="story.txt", max_iters=1, eval_tokens=20)  # two windows, of which one is short
    gpt.train(**ask, out_dir="alone")
    train_on_processes(house, 3, -1, "done", **ask, out_dir="three")
    one, three = (by_step(log(folder), "val_loss", "eval") for folder in ("alone", "three"))
    np.testing.assert_allclose(list(three.values()), list(one.values()), rtol=1e-3)


@linux
def test_gradients_are_shared_once_a_step_in_buckets(place, house):
    "However many micro-batches a step has. What one process waits for the others with is not counted."
    count = """
    shared = []
    wrap = gpt.DistributedDataParallel

    def counting(model, **settings):
        model = wrap(model, **settings)
        model.register_comm_hook(None, counted)
        return model

    def counted(state, bucket):
        shared.append(len(bucket.gradients()))
        work = torch.distributed.all_reduce(bucket.buffer().div_(2), async_op=True)
        return work.get_future().then(lambda future: future.value()[0])

    gpt.DistributedDataParallel = counting
"""
    ask = dict(MINI, data="story.txt", max_iters=5, micro_batch=1)
    parameters = len(list(gpt.GPT(gpt.ModelConfig(n_layer=2)).parameters()))
    check = f"    assert sum(shared) == 5 * {parameters}, shared\n"
    train_on_processes(house, 2, -1, "done", before=count, behind=check, **ask)


def test_the_log_of_a_week_stays_readable():
    run = types.SimpleNamespace(config=gpt.TrainConfig(log_interval=10), max_steps=math.inf)
    lines = []
    for step in range(10, 4_000_000, 10):
        run.progress = gpt.Progress(step=step)
        if gpt.TrainingRun.log_now(run):
            lines.append(step)
    assert lines[:50_000] == list(range(10, 500_001, 10))
    assert len(lines) == 50_000 * (1 + 1 / 2 + 1 / 2 + 1 / 2) - 1
    run.max_steps = 3_999_999
    run.progress = gpt.Progress(step=run.max_steps)
    assert gpt.TrainingRun.log_now(run)


def test_blocks_that_are_computed_twice_give_the_same(place):
    mini(out_dir="once")
    mini(out_dir="twice", checkpoint_activations=True)
    assert same(weights("once"), weights("twice"))


def test_float16_feels_its_way_and_says_nothing(place, monkeypatch):
    "GradScaler begins with a scale that is too large: its first skips are no warning, and 10 are no end."
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**35)
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *_, **__: scaler)
    monkeypatch.setattr(gpt, "choose_precision", lambda *_: (torch.float16, 1, "a test"))
    result = mini(max_iters=40, out_dir="out")
    assert result.reason == "done" and saved("out")["progress"]["skipped"] > 10
    assert not any("skipped" in text for text in warnings_in("out"))


# ---- what can go wrong in a run ----------------------------------------------------------------------------


def raises(error):
    def fail(*_, **__):
        raise error

    return fail


def test_out_of_memory_halves_the_micro_batch(place, monkeypatch):
    forward = gpt.GPT.forward
    no_room = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def small(self, ids, *more, **named):
        if self.training and len(ids) > 2:
            raise no_room
        return forward(self, ids, *more, **named)

    whole = mini(dropout=0.0, max_iters=4)
    monkeypatch.setattr(gpt.GPT, "forward", small)
    halved = mini(dropout=0.0, max_iters=4)
    going_on = "out of memory: going on with --micro_batch"
    assert warnings_in(halved.out_dir) == [f"{going_on} 3", f"{going_on} 2"]
    nearly_the_same(weights(whole.out_dir), weights(halved.out_dir))
    monkeypatch.setattr(gpt.GPT, "forward", raises(no_room))
    with pytest.raises(gpt.RunError, match="not even one sequence"):
        mini(eval_interval=10**6, max_iters=4)


def test_other_runtime_errors_are_not_memory(place, monkeypatch):
    monkeypatch.setattr(gpt, "loss_of", raises(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        mini()


@pytest.mark.parametrize("bad_steps,ends", [({3, 4, 6}, False), (set(range(2, 40)), True)])
def test_steps_that_are_not_finite(bad_steps, ends, place, monkeypatch):
    original, now = gpt.loss_of, []
    before_steps(monkeypatch, now.append)

    def loss_of(*asked):
        loss = original(*asked)
        bad = torch.is_grad_enabled() and now and now[-1] in bad_steps
        return loss * math.nan if bad else loss

    monkeypatch.setattr(gpt, "loss_of", loss_of)
    if ends:
        with pytest.raises(gpt.RunError, match="10 steps in a row"):
            mini(max_iters=60, eval_interval=1, out_dir="out")
        assert log("out")[-1]["reason"] == "error"
    else:
        mini(max_iters=10, out_dir="out")
        assert saved("out")["progress"]["skipped"] == 3
    assert sum("skipped" in text for text in warnings_in("out")) == (10 if ends else 3)
    for name in ("best.pt", "latest.pt"):
        assert all(w.isfinite().all() for w in weights("out", name).values())
    for line in Path("out/metrics.jsonl").read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))


def test_a_full_disk_while_saving(place, monkeypatch):
    mini(max_iters=5, out_dir="full")
    before = weights("full")
    monkeypatch.setattr(os, "fsync", raises(OSError(28, "No space left on device")))
    more = gpt.train(resume="full", max_iters=12)
    assert more.reason == "done" and log("full")[-1]["step"] == 12
    assert any("latest.pt not saved" in text for text in warnings_in("full"))
    assert same(before, weights("full")) and not list(Path("full").glob("*.tmp"))


def test_the_best_loss_is_that_of_the_file_that_holds_it(place, monkeypatch):
    save = gpt.save_checkpoint

    def full(path, checkpoint):
        if path.name == "best.pt" and checkpoint["progress"]["step"] > 0:
            raise OSError(28, "No space left on device")
        save(path, checkpoint)

    monkeypatch.setattr(gpt, "save_checkpoint", full)
    result = mini(max_iters=5, out_dir="full")
    assert "best.pt not saved, the one before it stands: No space left on device" in warnings_in("full")
    assert saved("full", "best.pt")["progress"]["best_val_loss"] == result.best_val_loss
    assert saved("full")["progress"]["best_step"] == 0
    monkeypatch.setattr(gpt, "save_checkpoint", save)
    gpt.train(resume="full", max_iters=10)
    assert saved("full", "best.pt")["progress"]["step"] == 10


def test_a_checkpoint_that_cannot_be_read_is_not_called_damaged(place, monkeypatch):
    "It may be well: going on from best.pt would write over it."
    mini(max_iters=5, out_dir="run")
    before = Path("run/latest.pt").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(gpt.zipfile, "ZipFile", raises(OSError(5, "Input/output error")))
        with pytest.raises(OSError, match="Input/output"):
            gpt.train(resume="run", max_iters=12)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", raises(RuntimeError("DefaultCPUAllocator: can't allocate memory")))
        with pytest.raises(RuntimeError, match="can't allocate"):
            gpt.train(resume="run", max_iters=12)
    with monkeypatch.context() as patch:
        patch.setattr(gpt.zipfile, "ZipFile", raises(OSError(22, "Invalid argument")))  # a place before its start
        with pytest.raises(gpt.UserError, match="is no checkpoint of gpt.py, or a part of one"):
            gpt.train(resume="run", max_iters=12)
    assert Path("run/latest.pt").read_bytes() == before


def test_a_copied_checkpoint_is_not_written_over(place):
    mini(max_iters=1, out_dir="run")
    for folder in ("runs/nano-char-story", "mine"):
        Path(folder).mkdir(parents=True)
        shutil.copy("run/best.pt", folder)
    assert Path(mini(max_iters=1).out_dir) == Path("runs/nano-char-story-2")
    with pytest.raises(gpt.UserError, match="mine holds a run"):
        mini(max_iters=1, out_dir="mine")
    assert os.listdir("mine") == ["best.pt"]


@posix
def test_runs_that_begin_at_the_same_time_take_folders_of_their_own(place):
    first, second = gpt.new_log(gpt.TrainConfig()), gpt.new_log(gpt.TrainConfig())
    assert [Path(log.name).parent.name for log in (first, second)] == ["nano-char", "nano-char-2"]
    with pytest.raises(gpt.UserError, match="another run is writing there"):
        gpt.new_log(gpt.TrainConfig(out_dir="runs/nano-char"))
    first.close()
    second.close()


@pytest.mark.parametrize("data,name", [("notes/*.md", "notes"), ("hf:a/b:c", "b_c"), ("a/b.txt", "b")])
def test_a_run_is_named_like_its_text(data, name, place):
    with gpt.new_log(gpt.TrainConfig(data=data)) as log:
        assert Path(log.name).parent == Path(f"runs/nano-char-{name}")


def test_a_run_is_not_tested_on_what_it_has_learned_from(place):
    mini(max_iters=1, out_dir="run")
    with pytest.raises(gpt.UserError, match="--val_fraction: this run goes on with 0.1"):
        gpt.train(resume="run", max_iters=2, val_fraction=0.3)


def test_a_run_counts_its_steps_by_one_measure(place):
    size = mini(max_iters=1, out_dir="run") and saved("run")["train_config"]["batch_size"]
    with pytest.raises(gpt.UserError, match=f"--batch_size: this run goes on with {size}, .* --micro_batch saves"):
        gpt.train(resume="run", max_iters=2, batch_size=size + 1)
    assert gpt.train(resume="run", max_iters=2, batch_size=size).reason == "done"


def test_a_limit_of_zero_is_none():
    "It leaves the preset's other limits as they are."
    _, usual = gpt.configure({"preset": "nano"})
    _, config = gpt.configure({"preset": "nano", "max_iters": 0})
    assert config.max_iters == 0 and config.epochs == usual.epochs > 0


def test_memory_that_runs_out_is_one_line(trained, monkeypatch, capsys):
    def no_room(*_):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 GB")

    monkeypatch.chdir(trained)
    monkeypatch.setattr(gpt, "Cache", no_room)
    with pytest.raises(SystemExit) as end:
        typed("sample", "--num_samples", "1000")
    assert end.value.code == 1
    assert capsys.readouterr().err.endswith("error: there is not enough memory for this\n")
    monkeypatch.setattr(gpt, "Cache", lambda *_: [].nothing)
    with pytest.raises(AttributeError):  # a bug keeps its traceback
        typed("sample")


@pytest.mark.parametrize("train_loss,why", [(1.0, "is memorizing the text"), (9.0, "a lower --learning_rate")])
def test_why_validation_loss_rises(train_loss, why, place, monkeypatch):
    losses = iter([3.0, 2.0, *[loss for i in range(9) for loss in (train_loss, 3.0 + i)]])
    monkeypatch.setattr(gpt, "mean_loss", lambda *asked: next(losses))
    mini(max_iters=4, eval_interval=1, out_dir="run")
    assert any("rising since step 0" in text and why.lower() in text.lower() for text in warnings_in("run"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_control_word_may_come_from_powershell(encoding, place):
    Path("control").write_text("stop\r\n", encoding=encoding)
    assert gpt.CONTROL_WORDS[gpt.read_control(place)] == "stop"


def test_a_limit_counts_what_a_run_has_had(place):
    mini(max_iters=3, out_dir="run")
    assert gpt.train(resume="run", max_iters=2).reason == "done"
    assert any(text.startswith("this run has had 3 steps and 0.") for text in warnings_in("run"))


def test_minutes_of_zero_are_no_limit(place):
    assert gpt.configure({"max_minutes": "0", "max_iters": "3"})[1].preset == "nano"


def test_a_file_that_another_file_needs_is_named(place, monkeypatch):
    monkeypatch.setattr(gpt, "HERE", place)
    Path("tools.py").touch()
    with pytest.raises(gpt.RunError, match="this needs recipes.py beside gpt.py"):
        gpt.other_file("tools")


def test_texts_go_into_files_whatever_the_code_page(place):
    "Windows writes what is no terminal in an old code page."
    Path("own.json").write_text(json.dumps({"\u65e5\u672c": {"about": "\u65e5\u672c"}}), encoding="utf-8")
    words = [sys.executable, str(HERE / "gpt.py"), "presets", "--presets", "own.json"]
    done = subprocess.run(words, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "cp1252"})
    assert done.returncode == 0, done.stderr
    assert "\u65e5\u672c" in done.stdout.decode("utf-8")


def test_probabilities_are_shown_of_one_sample(place, capsys):
    with pytest.raises(SystemExit):
        typed("sample", "--show_probs", "--num_samples=3")
    assert "--show_probs shows one sample" in capsys.readouterr().err


def test_checkpoints_of_evaluations_are_kept_and_no_others(place):
    mini(max_iters=12, eval_interval=5, keep=2, save_minutes=1e-9, out_dir="run")  # it saves after each step
    assert sorted(path.name for path in Path("run").glob("step-*")) == ["step-00000010.pt", "step-00000012.pt"]


def test_a_numbered_checkpoint_for_which_there_is_no_room(place, monkeypatch):
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(shutil, "copyfileobj", raises(full))
    assert mini(max_iters=5, out_dir="full", keep=2).reason == "done"
    assert "step-00000005.pt not saved: No space left on device" in warnings_in("full")
    assert saved("full")["progress"]["step"] == 5 and not list(Path("full").glob("step-*"))


@posix
def test_a_file_that_may_not_grow(place):
    "The real thing: the system refuses to write more than 20 kB into a file."
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(HERE)!r})
import gpt
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, -1))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
settings = dict({MINI!r}, data="story.txt", out_dir="full", max_iters=3, eval_interval=1)
print(gpt.train(**settings).reason)
"""
    done = python("-c", code)
    assert done.stdout.strip().endswith("done") and "not saved" in done.stdout, done.stderr
    assert sorted(os.listdir("full")) == ["config.json", "metrics.jsonl"]


def test_a_kill_while_saving_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "latest.pt"
    gpt.save_checkpoint(path, {"version": 1, "step": 1})
    monkeypatch.setattr(os, "replace", raises(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        gpt.save_checkpoint(path, {"version": 1, "step": 2})
    assert gpt.load_checkpoint(path)["step"] == 1 and os.listdir(tmp_path) == ["latest.pt"]


class Evil:
    def __reduce__(self):
        return os.system, ("touch i_ran",)


def test_a_hostile_checkpoint_runs_nothing(place):
    torch.save({"version": 1, "model": Evil()}, "evil.pt")
    with pytest.raises(gpt.UserError, match="no checkpoint of gpt.py"):
        gpt.load("evil.pt")
    assert not Path("i_ran").exists()


@posix
def test_only_one_run_writes_a_folder(place):
    with gpt.open_log(Path("mine")):
        with pytest.raises(gpt.UserError, match="another run is writing there"):
            gpt.open_log(Path("mine"))
        with pytest.raises(gpt.UserError, match="another run is writing there"):
            mini(out_dir="mine")
    gpt.open_log(Path("mine")).close()
    assert mini(out_dir="mine", max_iters=1).reason == "done"


def test_a_finished_folder_is_not_overwritten(place):
    mini(max_iters=1, out_dir="once")
    with pytest.raises(gpt.UserError, match="--resume"):
        mini(max_iters=1, out_dir="once")


def tracker_that_does_not_start():
    module = types.ModuleType("trackio")
    module.init = raises(ValueError("no login"))
    return module


FAILED_STARTS = {
    "no tracker": (gpt.RunError, lambda patch: patch.setitem(sys.modules, "trackio", None)),
    "no login": (
        ValueError,
        lambda patch: patch.setitem(sys.modules, "trackio", tracker_that_does_not_start()),
    ),
    "no memory": (MemoryError, lambda patch: patch.setattr(gpt, "make_optimizers", raises(MemoryError))),
    "ctrl-c": (
        KeyboardInterrupt,
        lambda patch: patch.setattr(gpt, "save_checkpoint", raises(KeyboardInterrupt)),
    ),
}


@pytest.mark.parametrize("why", FAILED_STARTS)
def test_a_failed_start_leaves_a_folder_that_can_be_used(why, place, monkeypatch):
    "Also in a notebook, which holds on to the traceback and to all that it has seen."
    error, prepare = FAILED_STARTS[why]
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        prepare(patch)
        with pytest.raises(error) as held:
            mini(out_dir="mine", tracker="trackio" if why in ("no tracker", "no login") else "none")
    assert not gpt.holds_run(Path("mine"))
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    assert mini(out_dir="mine", max_iters=1).reason == "done" and held.value


def test_a_bug_is_logged_and_keeps_its_traceback_but_not_its_lock(place, monkeypatch):
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(gpt, "lr_factor", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError) as held:
            mini(out_dir="bug")
    assert log("bug")[-1]["reason"] == "error" and "ZeroDivisionError" in log("bug")[-1]["message"]
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    more = gpt.train(resume="bug")  # as in the next cell of a notebook
    assert more.reason == "done" and held.value.__traceback__


def test_compile_that_fails_is_one_line(place, monkeypatch):
    broken = functools.partial(torch.compile, backend=raises(RuntimeError("no compiler here\nand a story")))
    monkeypatch.setattr(torch, "compile", broken)
    result = mini(compile="true", max_iters=3, out_dir="broken")
    told = warnings_in(result.out_dir)
    assert result.reason == "done" and len(told) == 1 and "no compiler here" in told[0]
    mini(max_iters=3, out_dir="plain")
    assert same(weights("broken"), weights("plain"))


def test_compiled_in_parts_it_learns_the_same(place, monkeypatch):
    "Each block and the loss by itself, here by a compiler that takes graphs as they are."
    compiled = []

    def as_it_is(graph, inputs):
        compiled.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=as_it_is))
    mini(compile="true", max_iters=3, eval_interval=3, out_dir="parts")
    assert len(compiled) >= 2  # the blocks share theirs
    assert not warnings_in("parts")
    mini(max_iters=3, eval_interval=3, out_dir="plain")
    assert same(weights("parts"), weights("plain"))
    assert weights("parts").keys() == weights("plain").keys()


# ---- when a run ends, and what it is told meanwhile --------------------------------------------------------


def test_time_boxed_run_decays_to_the_end(place, monkeypatch, clock):
    def a_second(step):
        clock.now += 1

    before_steps(monkeypatch, a_second)
    result = mini(max_iters=0, max_minutes=0.5, eval_interval=10**6)
    assert result.reason == "time" and log(result.out_dir)[-1]["step"] == 30
    rates = list(by_step(result.history, "lr").values())
    assert rates[-1] < 0.05 * max(rates) and rates[2:] == sorted(rates[2:], reverse=True)
    assert [line["step"] for line in log(result.out_dir, "eval")] == [0, 30]


def test_the_last_evaluation_belongs_to_the_minutes_that_were_promised(place, monkeypatch, clock):
    "A step takes a second, an evaluation ten: of a minute, 40 seconds are left for steps."
    mean_loss = gpt.mean_loss

    def ten_seconds(*asked):
        clock.now += 5  # for train and for val
        return mean_loss(*asked)

    def a_second(step):
        clock.now += 1

    monkeypatch.setattr(gpt, "mean_loss", ten_seconds)
    monkeypatch.setattr(gpt.other_file("tools"), "shorten_evaluations", lambda run: None)
    before_steps(monkeypatch, a_second)
    begun = clock.now
    result = mini(max_iters=0, max_minutes=1, eval_interval=10**6)
    assert result.reason == "time" and log(result.out_dir)[-1]["step"] == 40
    assert 59 <= clock.now - begun <= 61


def test_a_time_box_is_of_real_time(place):
    start = time.monotonic()
    result = mini(max_iters=0, max_minutes=0.01, eval_interval=10**6)
    assert result.reason == "time" and time.monotonic() - start > 0.5
    assert saved(result.out_dir)["progress"]["elapsed_s"] > 0.3  # the last evaluation has the rest


def test_whichever_limit_ends_first(place):
    assert mini(max_iters=3, epochs=50, max_minutes=9).reason == "done"
    result = mini(max_iters=10**6, epochs=0.05, max_minutes=9)
    assert log(result.out_dir)[-1]["step"] == math.ceil(0.05 * (36_000 // 16) / 6)


def test_patience_and_the_one_warning(place, story, monkeypatch):
    val_losses = iter([5, 4, 3.9, 3.91, 3.92, 3.93, 3.94, 3.95, *[4] * 20])
    first_of_val = gpt.CharTokenizer.train(story, TRAIN).encode(story[36_000 : 36_000 + 16])

    def evaluate(model, windows, *_):
        inputs, _ = windows
        return next(val_losses) if inputs[0].tolist() == first_of_val else 3.0

    monkeypatch.setattr(gpt, "mean_loss", evaluate)
    patient = mini(max_iters=60, eval_interval=5, out_dir="patient", patience=5)
    assert patient.reason == "patience" and log("patient")[-1]["step"] == 35 and patient.best_val_loss == 3.9
    told = log("patient", "warn")
    assert len(told) == 1 and told[0]["step"] == 25 and "since step 10" in told[0]["text"]


def test_control_file(place, monkeypatch):
    "go, sample, stop and what is no word, as another process would write them between two steps."
    words = {3: b"sample", 5: b"nonsense", 6: b"\xff\xfe", 7: b"go", 9: b"\n sample \n", 12: b"stop"}

    def visitor(step):
        assert not Path("run/control").exists(), "it is read once a step, and removed"
        if step in words:
            Path("run/control").write_bytes(words[step])

    before_steps(monkeypatch, visitor)
    result = mini(max_iters=100, eval_interval=10**6, out_dir="run")
    assert result.reason == "stopped" and log("run")[-1]["step"] == 13
    assert [line["step"] for line in log("run", "sample")] == [0, 4, 10]
    assert not Path("run/control").exists() and saved("run")["progress"]["step"] == 13


def test_a_pause_a_sample_in_it_and_no_time_for_it(place, monkeypatch, clock):
    "While it is paused a run only sleeps, here an hour at a time. What is asked for meanwhile, comes then."
    words = iter(["", "sample", "", "", "go"])

    def visitor(step):
        clock.now += 1
        if step == 4:
            say("run", "pause")

    def an_hour(seconds):
        clock.now += 3600
        if word := next(words):
            say("run", word)

    clock.sleeps = an_hour
    before_steps(monkeypatch, visitor)
    result = mini(max_iters=10, max_minutes=1, eval_interval=10**6, out_dir="run")
    assert result.reason == "done" and next(words, "all said") == "all said"
    lines = log("run")
    kinds = [(line["kind"], line.get("state")) for line in lines]
    paused = kinds.index(("state", "paused"))
    goes_on = kinds.index(
        ("state", "training"), max(i for i, kind in enumerate(kinds) if kind[1] == "paused")
    )
    meanwhile = [line["kind"] for line in lines[paused:goes_on]]
    assert meanwhile.count("sample") == 1 and "step" not in meanwhile
    assert [line["step"] for line in log("run", "sample")] == [0, 5, 10]
    steps = [line["step"] for line in log("run", "step")]
    assert steps == [*range(1, 11)]
    assert saved("run")["progress"]["elapsed_s"] == pytest.approx(10)


def test_a_pause_spoils_neither_speed_nor_the_time_that_is_left(place, monkeypatch, clock):
    def visitor(step):
        clock.now += 1
        if step == 4:
            say("run", "pause")

    def an_hour(seconds):
        clock.now += 3600
        say("run", "go")

    clock.sleeps = an_hour
    before_steps(monkeypatch, visitor)
    result = mini(max_iters=10, eval_interval=10**6, out_dir="run")
    speeds = by_step(result.history, "tokens_per_s")
    assert speeds[10] == pytest.approx(96) and min(speeds.values()) > 40
    assert max(by_step(result.history, "eta_s").values()) < 60


def test_a_clock_that_stands_still_breaks_nothing(place, clock):
    "That of Windows ticks 64 times a second, before Python 3.13."
    result = mini(max_iters=4)
    assert result.reason == "done" and len(by_step(result.history)) >= 2


def test_a_word_for_a_run_that_is_no_more_is_forgotten(place):
    Path("run").mkdir()
    say("run", "stop")
    assert mini(max_iters=2, out_dir="run").reason == "done"
    say("run", "stop")
    assert gpt.train(resume="run", max_iters=4).reason == "done" and not Path("run/control").exists()


def test_a_paused_run_can_be_stopped(place, monkeypatch, clock):
    def visitor(step):
        clock.now += 1
        if step == 4:
            say("run", "pause")

    clock.sleeps = lambda seconds: say("run", "stop")
    before_steps(monkeypatch, visitor)
    assert mini(max_iters=10, out_dir="run").reason == "stopped"
    check_stopped_in_the_middle("run", 5)


def test_samples_when_asked(place):
    result = mini(max_iters=12, eval_interval=6, sample_every=4, sample_prompt="The ")
    samples = log(result.out_dir, "sample")
    assert [line["step"] for line in samples] == [0, 4, 8, 12] and samples[0]["text"].startswith("The ")


@pytest.mark.parametrize("name,code", [("SIGINT", 130), ("SIGTERM", 143)])
def test_signals_finish_the_step_and_save(name, code, place, monkeypatch, capsys):
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def visitor(step):
        if step == 5:
            signal.raise_signal(getattr(signal, name))

    before_steps(monkeypatch, visitor)
    with pytest.raises(SystemExit) as end:
        typed("train", *flags(max_iters=200, eval_interval=10**6, out_dir="run"))
    assert end.value.code == code
    said = capsys.readouterr()
    assert "python gpt.py train --resume run" in said.out and said.err == ""
    assert log("run")[-1]["step"] == 6
    check_stopped_in_the_middle("run", 6)
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


@posix
def test_ctrl_c_reaches_a_run_in_a_process_of_its_own(place):
    words = flags(max_iters=10**6, eval_interval=10**6, out_dir="run")
    run = subprocess.Popen([sys.executable, str(GPT), "train", *words], stdout=subprocess.PIPE, text=True)
    for line in run.stdout:
        if line.startswith("--- at step 0"):
            break
    try:
        run.send_signal(signal.SIGINT)
        said = run.communicate(timeout=60)[0]
    finally:
        run.kill()
    assert run.returncode == 130 and "python gpt.py train --resume run" in said
    assert log("run")[-1]["reason"] == "stopped"


def test_a_second_ctrl_c_ends_at_once(place, monkeypatch, capsys):
    def visitor(step):
        if step == 15:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    before_steps(monkeypatch, visitor)
    with pytest.raises(SystemExit) as end:
        typed("train", *flags(max_iters=30, out_dir="run"))
    assert end.value.code == 130 and capsys.readouterr().err.strip() == "stopped"
    assert saved("run")["progress"]["step"] == 10 and log("run")[-1]["kind"] == "end"


INTERRUPTED = [
    "train prepare",
    "train open_corpus",
    "train GPT",
    "train make_optimizers",
    "train open_log",
    "train save_checkpoint",
    "sample load_checkpoint",
    "sample load_tokenizer",
    "sample laid_out",
    "sample pick",
]


@pytest.mark.parametrize("where", INTERRUPTED)
def test_ctrl_c_before_the_first_step_is_one_line(where, trained, tmp_path, monkeypatch, capsys):
    command, function = where.split()
    monkeypatch.chdir(trained if command == "sample" else tmp_path)
    words = ["--prompt=The"] if command == "sample" else flags(data="builtin", out_dir="run")
    with monkeypatch.context() as patch:
        patch.setattr(gpt, function, raises(KeyboardInterrupt))
        with pytest.raises(SystemExit) as end:
            typed(command, *words)
    assert end.value.code == 130
    told = [line for line in capsys.readouterr().err.splitlines() if line]
    assert told[-1] == "stopped"
    assert len(told) <= (2 if function == "pick" else 1)  # sample says which model it is, before it goes on
    if command == "train":
        assert not gpt.holds_run(Path("run"))


def test_ctrl_c_while_torch_is_imported_is_one_line(tmp_path):
    for command in ("train", "sample"):
        done = shell(command, env=without_torch(tmp_path, "raise KeyboardInterrupt"))
        assert done.returncode == 130 and done.stderr.strip() == "stopped"


def test_ctrl_c_in_the_trial_before_the_first_step_stops_there(place, monkeypatch, capsys):
    original, pressed = gpt.loss_of, []

    def loss_of(*batch):
        if torch.is_grad_enabled() and not pressed:  # not an evaluation's
            pressed.append("Ctrl-C")
            signal.raise_signal(signal.SIGINT)
        return original(*batch)

    monkeypatch.setattr(gpt, "loss_of", loss_of)
    with pytest.raises(SystemExit) as end:
        typed("train", *flags(out_dir="run"))
    assert end.value.code == 130 and "Traceback" not in capsys.readouterr().err
    assert saved("run")["progress"]["step"] == 0 and log("run")[-1]["reason"] == "stopped"


# ---- precision and devices ---------------------------------------------------------------------------------


def test_bfloat16_and_float32_agree(place, monkeypatch):
    dtypes, original = set(), gpt.loss_of

    def loss_of(logits, *more):
        dtypes.add(logits.dtype)
        return original(logits, *more)

    monkeypatch.setattr(gpt, "loss_of", loss_of)
    best = []
    for dtype in (torch.float32, torch.bfloat16):
        dtypes.clear()
        result = mini(dtype=dtype, max_iters=60, eval_interval=60, n_embd=32, batch_size=16)
        assert dtypes == {dtype}
        assert {w.dtype for w in weights(result.out_dir).values()} == {torch.float32}
        best.append(result.best_val_loss)
    assert abs(best[0] - best[1]) < 0.01


def used_by(result):
    return json.loads(Path(result.out_dir, "config.json").read_text(encoding="utf-8"))["used"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_precision_and_threads_are_chosen_and_kept(dtype, place, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(gpt, "cpu_has_bfloat16", lambda: dtype == "bfloat16")
        patch.setattr(gpt, "ALL_THREADS", 2)
        result = mini(dtype="auto", threads=0, max_iters=3)
    used = used_by(result)
    assert used["dtype"] == dtype and used["threads"] == 2
    assert re.search(rf"precision +{dtype}; this CPU", capsys.readouterr().out)
    monkeypatch.setattr(gpt, "cpu_has_bfloat16", lambda: dtype != "bfloat16")  # on another computer
    monkeypatch.setattr(gpt, "ALL_THREADS", 1)
    assert used_by(gpt.train(resume=result.out_dir, max_iters=5)) == used
    assert f"{dtype}; as before" in capsys.readouterr().out
    other = "bfloat16" if dtype == "float32" else "float32"
    asked = used_by(gpt.train(resume=result.out_dir, max_iters=6, dtype=other, threads=1))
    assert asked["dtype"] == other and asked["threads"] == 1


def test_threads_are_kept_where_the_precision_was_asked_for(place, monkeypatch):
    result = mini(dtype="float32", threads=2, max_iters=1)
    monkeypatch.setattr(gpt, "ALL_THREADS", 1)  # on another computer
    checkpoint = saved(result.out_dir)
    checkpoint["train_config"]["threads"] = 0   # as if they had been chosen there
    torch.save(checkpoint, Path(result.out_dir, "latest.pt"))
    assert used_by(gpt.train(resume=result.out_dir, max_iters=2))["threads"] == 2


def test_a_dtype_of_torch_is_a_dtype(place):
    result = mini(dtype=torch.float32, max_iters=1)
    assert used_by(result)["dtype"] == "float32"
    for dtype in (torch.float32, torch.bfloat16, "float32", "bfloat16"):
        it = gpt.load(result.out_dir, dtype=dtype)
        assert it.model.wte.weight.dtype == getattr(torch, str(dtype).removeprefix("torch."))


CARDS = {(9, 0): "bfloat16", (8, 0): "bfloat16", (7, 5): "float16", (7, 0): "float16", (6, 1): "float32"}


@pytest.mark.parametrize("capability", CARDS)
def test_gpu_precision_by_capability(capability, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    dtype, _, why = gpt.choose_precision(gpt.TrainConfig(), torch.device("cuda"))
    assert gpt.name_of(dtype) == CARDS[capability] and "{}.{}".format(*capability) in why
    asked = gpt.choose_precision(gpt.TrainConfig(dtype="float32", threads=3), torch.device("cuda"))
    assert asked == (torch.float32, 3, "as asked")


def test_float16_goes_through_the_scaler_and_its_state_goes_on(place, monkeypatch):
    "The path of a T4, with float16 products replaced by float32 ones; the scaler and its state are real."
    monkeypatch.setattr(gpt, "choose_precision", lambda *_: (torch.float16, 1, "a test"))
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    eager = functools.partial(torch.amp.GradScaler, growth_interval=5)  # its scale doubles every 5 steps
    monkeypatch.setattr(torch.amp, "GradScaler", eager)
    ask = dict(dtype="auto", max_iters=12, dropout=0.0)
    half = mini(out_dir="half", **ask)
    scaler = saved("half")["scaler"]
    assert scaler["scale"] == 65536 * 4 and scaler["_growth_tracker"] == 2
    with monkeypatch.context() as patch:
        stop_after("parts", 7, patch)
        mini(out_dir="parts", **ask)
    check_stopped_in_the_middle("parts", 7)
    assert saved("parts")["scaler"] == {**scaler, "scale": 65536 * 2, "_growth_tracker": 2}
    gpt.train(resume="parts")
    assert same(weights("half"), weights("parts")) and saved("parts")["scaler"] == scaler
    monkeypatch.setattr(gpt, "choose_precision", lambda *_: (torch.float32, 1, "a test"))
    whole = mini(out_dir="whole", **ask)
    assert half.best_val_loss == pytest.approx(whole.best_val_loss, rel=1e-3)


def test_colab_drive(place, monkeypatch):
    drive = place / "content"
    monkeypatch.setattr(gpt, "DRIVE", drive)
    monkeypatch.setattr(gpt, "RUN_ROOTS", [Path("runs"), drive / "gpt-runs"])
    with pytest.raises(gpt.UserError, match="drive.mount"):
        mini(colab_drive=True)
    drive.mkdir()
    result = mini(colab_drive=True, max_iters=2)
    assert Path(result.out_dir).parent == drive / "gpt-runs"
    assert gpt.find_checkpoint().parent == Path(result.out_dir)  # sample, chat and eval look there, too
    assert gpt.train(colab_drive=True, resume="newest", max_iters=3).out_dir == result.out_dir


def test_unnamed_data_falls_back_and_named_data_does_not(place, monkeypatch, capsys):
    monkeypatch.setattr(gpt, "HERE", place)  # gpt.py alone, without data.py
    result = gpt.train(**{**MINI, "max_iters": 1})
    assert "training on --data builtin" in capsys.readouterr().out
    assert Path(result.out_dir) == Path("runs/nano-char-builtin")
    with pytest.raises(gpt.UserError, match="--data builtin --level char always works"):
        mini(data="sherlock")


# ---- as people use it --------------------------------------------------------------------------------------


def test_gpt_alone_with_only_torch_and_numpy(tmp_path):
    shutil.copy(GPT, tmp_path)
    others = tmp_path / "others"
    others.mkdir()
    for name in ("tiktoken", "rich", "textual", "matplotlib", "safetensors", "regex"):
        (others / f"{name}.py").write_text(f"raise ImportError('no {name}')")
    alone = functools.partial(python, "gpt.py", cwd=tmp_path, env={"PYTHONPATH": str(others)})
    small = "--max_iters 3 --sample_tokens 5 --eval_tokens 500 --threads 1 --dtype float32"
    done = alone("train", "--preset", "nano", "--level", "word", *small.split())
    assert done.returncode == 0 and re.search(r"runs.nano-word-builtin", done.stdout), done.stderr
    done = alone("sample", "--prompt", "The list", "--max_new_tokens", "5")
    assert done.returncode == 0 and done.stdout.startswith("The list"), done.stderr
    for words in (["plot", "runs/nano-word-builtin"], ["train", "--keep=2"], ["train", "--teacher=runs/x"]):
        done = alone(*words)
        assert done.returncode == 1, words
        assert re.fullmatch(r"error: this needs tools.py beside gpt.py.*\n", done.stderr), words
    assert os.listdir(tmp_path / "runs") == ["nano-word-builtin"]  # nothing was begun


def test_pasted_into_a_notebook(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    ask = dict(MINI, preset="nano", level="char", data="builtin", max_iters=3)
    cells = [
        GPT.read_text(encoding="utf-8"),
        "assert not __import__('os').listdir('.')\nprint(train.__name__)",
        f"result = train(**{ask!r})",
        "print(result.best_val_loss < 9, len(result.history) > 2, load().sample('The', max_new_tokens=4))",
        "result",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3", resources=place).execute()
    text = ["".join(out.get("text", "") for out in cell.outputs) for cell in book.cells]
    assert text[0] == "" and text[1] == "train\n" and "step 3 |" in text[2]
    assert text[3].startswith("True True ")
    shown = book.cells[4].outputs[-1]["data"]["text/plain"]
    assert "nano-char-builtin" in shown and "\n" not in shown and len(shown) < 160


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "A folder with a text and one short run on it, runs/a."
    place = tmp_path_factory.mktemp("trained")
    (place / "story.txt").write_text(gpt.read_text("builtin")[:40_000], encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        mini(out_dir="runs/a", max_iters=20)
    return place


def test_from_python_without_a_warning(trained):
    code = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
import torch
import gpt
lm = gpt.load(dtype=torch.float32)
ids = torch.tensor([lm.tokenizer.encode("The")])
logits = lm.model(ids)
assert ids.dtype == torch.int64 and logits.shape == (1, 3, lm.tokenizer.vocab_size)
assert lm.tokenizer.decode(ids[0]) == "The"
texts = lm.sample(["a", "The "], top_k=50.0, max_new_tokens=8, temperature=None, seed=None)
assert [len(text) for text in texts] == [8, 8]
print("".join(lm.stream("The ", top_k=50.0, max_new_tokens=8)))
result = gpt.train(**{dict(MINI, data="story.txt", out_dir="runs/quiet", max_iters=2)!r})
"""
    done = python("-W", "error", "-c", code, cwd=trained)
    assert (done.returncode, done.stderr) == (0, "")
    shutil.rmtree(trained / "runs" / "quiet")


def test_wrong_options_are_told_before_anything_is_sampled(trained):
    it = gpt.load(trained / "runs" / "a")
    with pytest.raises(gpt.UserError, match="did you mean num_samples"):
        it.sample("The", n=3)
    with pytest.raises(gpt.UserError, match="did you mean temperature"):
        next(it.stream("The", temp=1))
    with pytest.raises(gpt.UserError, match="temperature >= 0"):
        it.sample(["The"], temperature=-1)


def test_sample_command(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    ask = ["--prompt", "The ", "--max_new_tokens", "30", "--temperature", "0"]
    done = shell("sample", *ask)
    plain = done.stdout
    assert done.returncode == 0 and plain.startswith("The ") and len(plain) >= 34
    assert re.search(r"30 tokens, [\d,]+/s, the first after \d", done.stderr)
    assert "float32 on cpu" in done.stderr
    Path("prompt.txt").write_text("The ")
    typed("sample", "runs/a", "--prompt_file", "prompt.txt", *ask[2:])
    assert capsys.readouterr().out == plain
    typed("sample", "runs/a/best.pt", *ask, "--num_samples", "3")
    many = capsys.readouterr().out
    assert many.removesuffix("\n").split("\n---\n") == [plain.removesuffix("\n")] * 3
    typed("sample", *ask, "--stop", plain[8:10], "--stop", "never\\nsaid")
    assert capsys.readouterr().out == "The " + plain[4 : plain.find(plain[8:10], 4)] + "\n"


def test_what_a_prompt_cannot_have_is_said(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    typed("sample", "--prompt", "a☃" * 20, "--max_new_tokens", 2)
    told = capsys.readouterr().err
    assert "does not know '☃'" in told and "of the prompt's 40 tokens the model sees the last 16" in told
    typed("sample", "--prompt=", "--max_new_tokens=5")
    assert len(capsys.readouterr().out) == 6


WITH_A_RUN = [
    ("sample --temperature -1", "temperature >= 0"),
    ("sample --top_p 0", "0 < top_p <= 1"),
    ("sample --top_p 1.5", "0 < top_p <= 1"),
    ("sample --repetition_penalty 0", "repetition_penalty > 0"),
    ("sample runs/none", "no such run"),
    ("sample runs", "no checkpoint in"),
    ("sample --prompt_file none.txt", "none.txt"),
    ("sample runs/a runs/b", "one RUN"),
    ("sample newer.pt", "get a newer one"),
    ("train --resume runs/none", "no such run; did you mean"),
    ("train --out_dir runs/a --data story.txt", "holds a run: add --resume"),
]


@pytest.mark.parametrize("words,told", WITH_A_RUN, ids=[words for words, _ in WITH_A_RUN])
def test_mistakes_of_those_who_have_a_run(words, told, trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    torch.save({**saved("runs/a", "best.pt"), "version": 99}, "newer.pt")
    with pytest.raises(SystemExit) as end:
        typed(*words.split())
    error = capsys.readouterr().err
    assert error.startswith("error: ") and told in error and error.count("\n") == 1 and end.value.code == 2


@posix
def test_ctrl_c_in_sample_is_one_line(trained):
    command = [sys.executable, "-u", str(GPT), "sample", "--max_new_tokens", "1000000000"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    sample = subprocess.Popen(command, cwd=trained, **pipes)
    assert sample.stdout.read(100)
    try:
        sample.send_signal(signal.SIGINT)
        told = sample.communicate(timeout=30)[1].decode().splitlines()
    finally:
        sample.kill()
    assert sample.returncode == 130 and told[-1] == "stopped"
    assert len([line for line in told if line]) == 2, "the model's line, and this one"


def test_a_reader_that_has_seen_enough_is_no_error(trained):
    command = [sys.executable, str(GPT), "sample", "--max_new_tokens", "100000"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    sample = subprocess.Popen(command, cwd=trained, **pipes)
    assert sample.stdout.read(100)
    sample.stdout.close()
    told = sample.stderr.read().decode().splitlines()
    assert sample.wait(30) == 1 and len(told) == 1, told


# ---- the README --------------------------------------------------------------------------------------------

README = (HERE / "README.md").read_text(encoding="utf-8")
DOCS = "".join(path.read_text(encoding="utf-8") for path in sorted((HERE / "docs").glob("*.md")))


def commands_in(text):
    "The commands of a text, on lines of their own and between backquotes."
    said = re.findall(r"(?:^|`)((?:python|torchrun \S+) gpt\.py .*?)(?:`|$)", text, re.M)
    words = [shlex.split(command, comments=True) for command in said]
    return [command[command.index("gpt.py") + 1 :] for command in words]


def test_the_readme_asks_for_what_there_is():
    said = commands_in(README)
    assert len(said) > 15
    for words in said + commands_in(DOCS):
        words = ["nano" if word == "NAME" and "--level" in words else word for word in words]
        words = ["char" if word == "LEVEL" else word for word in words]
        if "NAME" not in words and "--help" not in words:
            command, asked = gpt.command_line(words)
            if command == "train" and "resume" not in asked:
                gpt.configure(asked)
    for name in gpt.load_presets():
        assert name in README


def test_the_commands_of_the_readme_run(place, capsys):
    Path("my.txt").write_text("My own text, again and again. " * 200)
    Path("letter.txt").write_text("My own")
    small = {"max_iters": 2, "eval_tokens": 300, "sample_tokens": 3, "batch_size": 2, "threads": 1}
    small = [f"--{name}={value}" for name, value in {**small, "dtype": "float32"}.items()]

    def trains(*words):
        with pytest.raises(SystemExit) as end:
            typed("train", *words)
        assert end.value.code == 0

    for preset, level in (("nano", "word"), ("nano", "char")):
        folder = f"--out_dir=runs/{preset}-{level}"
        trains("--preset", preset, "--level", level, *small, "--data", "builtin", folder)
    trains("--preset", "laptop", *small, "--data", "my.txt")
    assert "laptop-char-my" in capsys.readouterr().out
    ran = set()
    for words in commands_in(README):
        if words[0] in ("sample", "eval", "runs", "presets") and not {"NAME", "gpt2"} & set(words):
            typed(*words)
            ran.add(words[0])
    assert {"sample", "eval", "runs", "presets"} <= ran
    trains("--resume", "--max_iters=3")


def test_ci_types_what_the_readme_says():
    lines = [line for line in README.splitlines() if re.search("^python -m pip install .* pytest", line)]
    assert len(lines) == 1 and "python -m pytest" in lines[0]
    ci = (HERE / ".ci" / "run").read_text(encoding="utf-8")
    assert "grep -m 1 '^python -m pip install .* pytest' README.md" in ci and "torch==" in ci
