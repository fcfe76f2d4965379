"""The promises of gpt.py, held. Run: see README.md. Everything here works without a network and without a GPU."""
import contextlib
import dataclasses
import io
import itertools
import json
import math
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tokenize
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import gpt

HERE = Path(__file__).resolve().parent
GPT = HERE / "gpt.py"
QUIET = dict(threads=1, dtype="float32", sample_tokens=8, eval_interval=10, log_interval=1, warmup_iters=2)
MINI = dict(QUIET, n_layer=2, n_head=2, n_embd=16, block_size=16, batch_size=6, max_iters=10, dropout=0.1)


@pytest.fixture(scope="session")
def story():
    return gpt.read_text("builtin")[:40_000]


@pytest.fixture
def place(tmp_path, monkeypatch, story):
    "An empty folder with a text, to work in."
    monkeypatch.chdir(tmp_path)
    Path("story.txt").write_text(story, encoding="utf-8")
    return tmp_path


def mini(**asked):
    return gpt.train(**{**MINI, "data": "story.txt", **asked})


def shell(*words, timeout=120, env=None, cwd=None):
    return subprocess.run([sys.executable, str(GPT), *map(str, words)], capture_output=True, text=True,
                          timeout=timeout, cwd=cwd, env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})})


def log(folder):
    return [json.loads(line) for line in open(Path(folder) / "metrics.jsonl", encoding="utf-8")]


def weights(folder, name="latest.pt"):
    return torch.load(Path(folder) / name, weights_only=True)["model"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def new_model(vocab=97, dropout=0.0, seed=1, **shape):
    torch.manual_seed(seed)
    return gpt.GPT(gpt.ModelConfig(**{"vocab_size": vocab, **shape}), dropout)


# ---- the file's own promises ----------------------------------------------------------------------------------

def test_length_and_width():
    lines = GPT.read_text(encoding="utf-8").splitlines()
    assert max(map(len, lines)) <= 110
    promised = [int(n.replace(",", "")) for n in re.findall(r"([\d,]{5,})\s(?:lines|in all)", gpt.__doc__)]
    commands = next(i for i, line in enumerate(lines) if line.startswith("# ---- the commands"))
    assert [commands < promised[0], len(lines) <= promised[1]] == [True, True]


def test_requirements_are_the_header_of_gpt():
    header = re.search(r"# dependencies = (\[.*\])", GPT.read_text(encoding="utf-8"))[1]
    assert json.loads(header) == (HERE / "requirements.txt").read_text().split()


def test_imports_no_floor_above():
    assert not re.search(r"^\s*(import|from) +(data|tui|convert)\b", GPT.read_text(encoding="utf-8"), re.M)


def test_import_has_no_side_effects(tmp_path):
    code = ("import os, sys, random; before = dict(os.environ), sys.argv[:], os.getcwd(), random.getstate()\n"
            f"sys.path.insert(0, {str(HERE)!r}); import gpt, signal\n"
            "assert before == (dict(os.environ), sys.argv, os.getcwd(), random.getstate())\n"
            "assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and not os.listdir()")
    done = subprocess.run([sys.executable, "-B", "-c", code, "--no-such-flag"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["presets"], ["presets", "--json"], []])
def test_quick_answers_need_no_torch(words, tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = shell(*words, env={"PYTHONPATH": str(tmp_path)})
        times.append(time.perf_counter() - start)
        assert done.returncode == 0 and done.stdout, done.stderr
    assert min(times) < 0.5


def test_manual_and_help_tell_every_knob():
    assert shell().stdout.startswith(gpt.__doc__[:200])
    told = shell("train", "--help").stdout
    for name, knob in gpt.KNOBS.items():
        assert f"--{name}" in told
        assert knob.metadata["help"].split(";")[0].split()[0] in told


# ---- configuration ----------------------------------------------------------------------------------------------

def test_authority_is_flag_then_level_then_preset_then_default(tmp_path):
    own = tmp_path / "mine.json"
    own.write_text(json.dumps({"mine": {"n_embd": 96, "dropout": 0.2, "max_iters": 5, "word": {"dropout": 0.3}}}))
    char, word, flag = (gpt.configure({"preset": "mine", "presets": str(own), **more}) for more in
                        ({}, {"level": "word"}, {"level": "word", "dropout": 0.4}))
    assert [c[1].dropout for c in (char, word, flag)] == [0.2, 0.3, 0.4]
    assert char[0].n_embd == 96 and char[0].n_head == 3 and char[1].level == "char"


def test_own_preset_beside_the_shipped_ones(tmp_path):
    own = tmp_path / "mine.json"
    own.write_text('{"mine": {"about": "my own", "n_layer": 5, "max_iters": 3}}')
    table = shell("presets", "--presets", own).stdout
    assert "my own" in table and "gpt2-xl" in table


def test_a_limit_that_is_asked_for_replaces_those_of_the_preset():
    assert gpt.configure({"max_minutes": 10})[1].max_iters == 0
    assert gpt.configure({"preset": "laptop", "max_iters": 10})[1].max_minutes == 0


def test_every_preset_fills_at_every_level():
    presets = gpt.load_presets()
    assert {"nano", "micro", "tiny", "small", "baby", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "stories",
            "wikitext", "laptop"} <= presets.keys()
    for name in presets:
        assert presets[name]["about"] and presets[name]["for"]
        for level in gpt.LEVELS:
            gpt.configure({"preset": name, "level": level})


def test_without_presets_json_the_defaults_are_nano():
    nano = json.loads((HERE / "presets.json").read_text())["nano"]
    assert not set(nano) & set(gpt.KNOBS), "nano's base is the dataclasses; only its levels may add to it"


def test_presets_json_has_what_a_program_needs():
    told = json.loads(shell("presets", "--json").stdout)
    assert {f["name"] for f in told["fields"]} == gpt.KNOBS.keys()
    assert told["devices"][-1]["device"] == "cpu" and told["devices"][-1]["memory"] > 1e8
    nano = told["presets"]["nano"]
    assert nano["char"]["parameters"] == 95_760 and nano["char"]["fits"] and nano["about"]
    assert next(f for f in told["fields"] if f["name"] == "level")["choices"] == ["char", "word", "bpe"]


BAD = [
    (["trian"], "did you mean train"),
    (["train", "--preset", "nanoo"], "did you mean nano"),
    (["train", "--level", "wrd"], "did you mean word"),
    (["train", "--learning-rat", "1"], "did you mean --learning_rate"),
    (["train", "--n_embd", "50"], "n_embd % n_head == 0"),
    (["train", "--dropout", "1.5"], "0 <= dropout < 1"),
    (["train", "--batch_size", "many"], "a whole number"),
    (["train", "--batch_size", "2.5"], "a whole number"),
    (["train", "--learning_rate", "fast"], "a number"),
    (["train", "--bias", "perhaps"], "true, false"),
    (["train", "--max_iters"], "expected one argument"),
    (["train", "--max_iters", "0"], "--max_minutes"),
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
    (["train", "--colab_drive"], "drive.mount('/content/drive')"),
    (["sample", "nowhere"], "no such run"),
    (["sample", "--top_k", "-1"], "top_k >= 0"),
    (["sample", "foreign.pt"], "no checkpoint of gpt.py"),
    (["sample", "cut.pt"], "no checkpoint of gpt.py"),
    (["sample", "newer.pt"], "newer"),
]


@pytest.fixture(scope="module")
def bad_place(tmp_path_factory):
    place = tmp_path_factory.mktemp("bad")
    files = {"empty.txt": b" \n", "binary.txt": b"abc\0def", "latin.txt": "caf\xe9 au lait".encode("latin-1"),
             "short.txt": b"twenty characters...", "broken.json": b'{"x":\n   nope}', "list.json": b"[1, 2]",
             "field.json": b'{"x": {"n_layers": 2}}', "value.json": b'{"x": {"n_layer": "two"}}'}
    for name, raw in files.items():
        (place / name).write_bytes(raw)
    torch.save({"something": torch.ones(3)}, place / "foreign.pt")
    (place / "cut.pt").write_bytes((place / "foreign.pt").read_bytes()[:300])
    torch.save({"version": gpt.VERSION + 1}, place / "newer.pt")
    return place, set(os.listdir(place))


@pytest.mark.parametrize("words,told", BAD, ids=[" ".join(words) for words, _ in BAD])
def test_a_mistake_is_one_line_and_leaves_nothing(words, told, bad_place, monkeypatch, capsys):
    "In this process, as the command line does it: 30 processes would take a minute to import torch."
    place, before = bad_place
    monkeypatch.chdir(place)
    with pytest.raises(SystemExit) as end, gpt.problems_told():
        command, asked = gpt.command_line(words)
        getattr(gpt, f"{command}_command")(asked)
    error = capsys.readouterr().err
    assert error.startswith("error: ") and told in error
    assert error.count("\n") == (3 if "--colab_drive" in words else 1)
    assert end.value.code == (1 if "no/such" in words[-1] else 2) and set(os.listdir(place)) == before


def test_the_command_line_exits_as_it_says(bad_place):
    done = shell("train", "--data", "latin.txt", cwd=bad_place[0])
    assert done.returncode == 2 and re.fullmatch(r"error: .*\n", done.stderr) and "Traceback" not in done.stderr


def test_dashes_are_underscores():
    assert gpt.command_line(["train", "--n-layer", "4", "--max-iters=7", "--colab-drive"])[1] == {
        "n_layer": "4", "max_iters": "7", "colab_drive": "true"}


# ---- tokenizers -------------------------------------------------------------------------------------------------

TRAIN = types.SimpleNamespace(min_freq=1, vocab_size=0)


def own_bpe(text):
    "A byte-level vocabulary without a download: the 256 bytes and some pairs of the text."
    import base64
    pairs = sorted({text.encode()[i:i + 2] for i in range(0, 400)})
    tokens = [bytes([b]) for b in range(256)] + [p for p in pairs if len(p) == 2]
    return gpt.BPETokenizer(" ".join(base64.b64encode(t).decode() for t in tokens))


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
    shown = ""
    for piece in BPE.stream(iter(ids.tolist())):
        shown += piece
        assert text.startswith(shown), "a piece of a character must wait for the rest"


def squash(text):
    return re.sub(r"\s+", "", text).lower()


@given(st.text(alphabet="abcXYZ '\"’“”—-.,!?\n\n0159", max_size=120))
@settings(max_examples=300, deadline=None)
def test_word_round_trip_up_to_case_and_spacing(text):
    tokenizer = gpt.WordTokenizer.train(text + " \" ' “ ’", TRAIN)
    again = tokenizer.decode(tokenizer.encode(text))
    assert squash(again) == squash(text)


def test_words_read_as_text():
    text = ('I met Mr. Holmes in London. "It is well-known," he said. "And Watson\'s friends don\'t pay 1,000 pounds."'
            "\n\nThe end (of all)... was near—very near; 'tis so!")
    tokenizer = gpt.WordTokenizer.train((text + "\n\n") * 3 + "the and " * 9, TRAIN)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_words_keep_their_commonest_spelling():
    tokenizer = gpt.WordTokenizer.train("Holmes saw it. HOLMES went. Then Holmes left and he and i saw I and I.", TRAIN)
    assert tokenizer.decode(tokenizer.encode("then holmes and i left")) == "Then Holmes and I left"
    assert tokenizer.encode("THE") == [0] and tokenizer.unknown("the holmes") == ["the"]


def test_words_min_freq():
    words = gpt.WordTokenizer.train("a a a b b c", types.SimpleNamespace(min_freq=2)).words
    assert words == ["<unk>", "a", "b"]


def test_typed_quotes_find_printed_ones():
    tokenizer = gpt.WordTokenizer.train("“Yes,” he said, “it’s Holmes’s.” “No,” I said.", TRAIN)
    assert tokenizer.encode('"Yes," he said, "it\'s').tolist() == tokenizer.encode("“Yes,” he said, “it’s").tolist()


def test_a_prompt_from_outside_is_named(capsys):
    tokenizer = gpt.CharTokenizer.train("abc", TRAIN)
    assert tokenizer.encode("a♥c").tolist() == [1, 0, 3] and tokenizer.unknown("a♥cß") == ["ß", "♥"]
    assert tokenizer.decode([1, 0]) == "a�"


@pytest.mark.parametrize("tokenizer", [gpt.CharTokenizer.train("hello", TRAIN), BPE,
                                       gpt.WordTokenizer.train("hello big world", TRAIN)])
def test_state_is_all_a_tokenizer_needs(tokenizer):
    again = gpt.load_tokenizer(json.loads(json.dumps(tokenizer.state)))
    assert again.state == tokenizer.state and again.vocab_size == tokenizer.vocab_size
    assert again.encode("hello").tolist() == tokenizer.encode("hello").tolist()


def test_gpt2_tokens():
    try:
        tokenizer = gpt.BPETokenizer.train("", TRAIN)
    except gpt.Failure as problem:
        assert "--vocab_size 4096" in str(problem) and "\n" not in str(problem)
        pytest.skip("no network and no cache: only the error was checked")
    assert tokenizer.vocab_size == 50257 and tokenizer.end_id == 50256
    assert tokenizer.encode("Hello world").tolist() == [15496, 995]
    assert len(json.dumps(tokenizer.state)) < 1e6


# ---- the corpus and its batches -----------------------------------------------------------------------------------

def test_text_file_with_bom_and_crlf_is_the_same_text(place):
    Path("dos.txt").write_bytes(b"\xef\xbb\xbf" + Path("story.txt").read_text().replace("\n", "\r\n").encode())
    assert gpt.read_text("dos.txt") == gpt.read_text("story.txt")


def prepared(folder, tokens=2000, vocab=10, level="char", dtype="uint16", claimed=None):
    folder.mkdir()
    ids = (np.arange(tokens) * 7 % vocab).astype("<u2" if dtype == "uint16" else "<u4")
    for split in ("train", "val"):
        ids.tofile(folder / f"{split}.bin")
    (folder / "meta.json").write_text(json.dumps({
        "level": level, "vocab_size": vocab, "dtype": dtype, "train_tokens": claimed or tokens, "val_tokens": tokens,
        "train_bytes": tokens, "val_bytes": tokens, "tokenizer": {"level": "char", "characters": "abcdefghi"}}))
    return folder


def test_prepared_folder(place):
    for dtype in ("uint16", "uint32"):
        corpus = gpt.open_corpus(prepared(place / dtype, dtype=dtype), gpt.TrainConfig(), 16)
        assert corpus.tokenizer.vocab_size == 10 and corpus.train[:3].tolist() == [0, 7, 4]
    assert mini(data="uint16", max_iters=2).best_val_loss < math.inf


@pytest.mark.parametrize("change,told", [(dict(vocab=11), "token 10"), (dict(level="word"), "--level word"),
                                         (dict(claimed=3000), "cut short")])
def test_prepared_folder_that_does_not_fit(change, told, place):
    with pytest.raises(gpt.Problem, match=told):
        gpt.open_corpus(prepared(place / "p", **change), gpt.TrainConfig(), 16)


def test_a_folder_that_is_no_corpus(place):
    (place / "pictures").mkdir()
    with pytest.raises(gpt.Problem, match="pictures could not be prepared"):
        mini(data="pictures")
    with pytest.raises(gpt.Problem, match="not a folder that data.py made"):
        gpt.open_corpus("pictures", gpt.TrainConfig(), 16)


def test_what_is_no_plain_text_goes_through_data_py(place):
    (place / "notes").mkdir()
    (place / "notes" / "a.md").write_text("a note\n" * 300)
    (place / "notes" / "b.txt").write_text("a word\n" * 300)
    (place / "posts.jsonl").write_text('{"text": "a post, and no braces"}\n' * 200)
    assert mini(data="notes", max_iters=1).out_dir == "runs/nano-char-notes"
    result = mini(data="posts.jsonl", max_iters=1)
    assert "{" not in gpt.load(result.out_dir).tokenizer.state["characters"]
    own = mini(data="story.txt", level="bpe", vocab_size=300, max_iters=1)
    assert gpt.load(own.out_dir).tokenizer.vocab_size == 300
    (place / "notes" / "b.txt").write_text("changed!\n" * 300)  # and is noticed
    assert "!" in gpt.load(mini(data="notes", max_iters=1).out_dir).tokenizer.state["characters"]


@pytest.mark.parametrize("tokens,block,batch", [(64, 8, 3), (640, 16, 7), (96, 8, 50)])
def test_every_position_once_per_epoch(tokens, block, batch):
    ids = np.arange(tokens)                                    # a token says where it stands
    batches = gpt.Batches(ids, block, batch, seed=5, device=torch.device("cpu"))
    windows = tokens // block
    rows = [batches(step, 0, batch) for step in range(3 * windows // batch + 1)]
    x, y = (torch.cat(part)[:3 * windows] for part in zip(*rows))
    assert torch.equal((x + 1) % tokens, y)
    for epoch in x.split(windows):
        assert sorted(epoch.flatten().tolist()) == list(range(tokens))
    assert not torch.equal(x[:windows], x[windows:2 * windows])


def test_a_rest_shorter_than_a_window_moves_around():
    batches = gpt.Batches(np.arange(70), 16, 4, seed=1, device=torch.device("cpu"))
    epochs = [batches(step, 0, 4)[0].flatten().tolist() for step in range(20)]
    assert all(len(set(epoch)) == 64 for epoch in epochs)
    assert set().union(*epochs) == set(range(70))


def test_batches_are_a_pure_function_and_ranks_share_them():
    a, b = (gpt.Batches(np.arange(1000), 8, 6, seed=2, device=torch.device("cpu")) for _ in range(2))
    a(31, 0, 6)
    whole = a(9, 0, 6)[0]
    assert torch.equal(whole, b(9, 0, 6)[0])
    assert torch.equal(whole, torch.cat([b(9, 0, 2)[0], b(9, 2, 6)[0]]))


@given(st.integers(2, 200), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_evaluation_scores_each_token_once(tokens, block):
    x, y = gpt.fixed_windows(np.arange(tokens), block)
    assert y[y >= 0].tolist() == list(range(1, tokens))
    assert torch.equal(x[y >= 0] + 1, y[y >= 0])


# ---- the model ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("preset,vocab,parameters", [
    ("nano", 97, 95_712), ("micro", 97, 822_144), ("tiny", 97, 10_733_952), ("gpt2", 50257, 124_439_808)])
def test_parameter_counts(preset, vocab, parameters):
    shape, _ = gpt.configure({"preset": preset})
    shape.vocab_size = vocab
    assert gpt.count_parameters(shape) == parameters
    with torch.device("meta"):
        assert sum(p.numel() for p in gpt.GPT(shape).parameters()) == parameters


@pytest.mark.parametrize("bias,qkv_bias", [(True, True), (True, False), (False, False), (False, True)])
def test_the_parameter_formula(bias, qkv_bias):
    model = new_model(bias=bias, qkv_bias=qkv_bias)
    assert gpt.count_parameters(model.config) == sum(p.numel() for p in model.parameters())
    assert any(name.endswith("c_attn.bias") for name, _ in model.named_parameters()) == (bias and qkv_bias)


def test_logits_equal_hugging_face():
    transformers = pytest.importorskip("transformers", reason="only needed to compare with")
    config = transformers.GPT2Config(vocab_size=61, n_positions=32, n_embd=24, n_layer=3, n_head=4, bos_token_id=0,
                                     eos_token_id=0, attn_implementation="eager")
    torch.manual_seed(3)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    for weight in theirs.parameters():
        weight.data.normal_(0, 0.2)
    ours = gpt.GPT(gpt.ModelConfig(n_layer=3, n_head=4, n_embd=24, block_size=32, vocab_size=61)).eval()
    assert ours.state_dict().keys() == theirs.transformer.state_dict().keys()
    ours.load_state_dict(theirs.transformer.state_dict())       # weights travel as they are
    ids = torch.randint(61, (5, 32))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)


def test_initial_weights_and_loss():
    model = new_model(n_layer=6, n_head=6, n_embd=96)
    std = {name: w.std().item() for name, w in model.named_parameters() if w.ndim == 2}
    for name, value in std.items():
        expected = 0.02 / math.sqrt(12) if name.endswith("c_proj.weight") else 0.02
        assert abs(value / expected - 1) < 0.1, name
    ids = torch.randint(97, (8, 129))
    loss = gpt.loss_of(model(ids[:, :-1]), ids[:, 1:]).item()
    assert abs(loss / math.log(97) - 1) < 0.05


def test_nobody_sees_the_future():
    model = new_model().eval()
    ids = torch.randint(97, (1, 32))
    changed = ids.clone()
    changed[0, 20:] = 5
    with torch.no_grad():
        assert torch.equal(model(ids)[:, :20], model(changed)[:, :20])


def test_attention_by_hand_is_the_kernel():
    q, k, v = torch.randn(3, 2, 4, 16, 8).unbind(0)
    mask = torch.full((16, 16), -1e4).triu(1)
    kernel = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(gpt.attend(q, k, v, mask, 0.0), kernel)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.003])
def test_dropout_is_dropout(p):
    torch.manual_seed(1)
    x = torch.ones(1003, 1001, requires_grad=True)
    y = gpt.dropout(x, p)
    dropped = (y == 0).float().mean().item()
    assert abs(dropped - p) < 5 * math.sqrt(p * (1 - p) / x.numel()) + 1e-5
    assert abs(y.mean().item() - 1) < 0.005
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    lanes = (y == 0).flatten()[:1_000_000].view(-1, 4).float()     # the four cuts of a draw are independent
    assert (lanes.mean(0) - p).abs().max() < 5 * math.sqrt(p / 250_000)
    assert (torch.corrcoef(lanes.T) - torch.eye(4)).abs().max() < 0.02
    torch.manual_seed(1)
    assert torch.equal(y, gpt.dropout(x, p))


@pytest.mark.parametrize("shape", [(3, 12, 12), (2, 12, 48), (4, 48, 12)])
def test_orthogonal(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(gpt.orthogonal(torch.randn(shape)))
    assert values.min() > 0.6 and values.max() < 1.3


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_every_parameter_in_one_group_and_decay_for_matrices_only(optimizer):
    model = new_model()
    config = gpt.TrainConfig(optimizer=optimizer, weight_decay=0.1)
    grouped = [(id(w), group["weight_decay"]) for o in gpt.make_optimizers(model, config, torch.float32)
               for group in o.param_groups for w in group["params"]]
    assert sorted(i for i, _ in grouped) == sorted(id(w) for w in model.parameters())
    decayed = {i for i, decay in grouped if decay}
    assert decayed == {id(w) for name, w in model.named_parameters() if name.startswith("h.") and w.ndim == 2}


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_bad_step_leaves_no_trace(optimizer):
    model = new_model()
    optimizers = gpt.make_optimizers(model, gpt.TrainConfig(optimizer=optimizer, weight_decay=0.1), torch.float32)

    def step(scale):
        model.zero_grad()
        (gpt.loss_of(model(torch.arange(16)[None]), torch.arange(16)[None]) * scale).backward()
        for o in optimizers:
            o.found_inf = torch.tensor(float(not math.isfinite(scale)))
            o.step()
        return [w.clone() for w in model.parameters()] + [
            t.clone() for o in optimizers for s in o.state.values() for t in s.values()]
    step(1.0)
    before = step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, step(math.nan)))
    assert not all(torch.equal(a, b) for a, b in zip(before, step(1.0)))


def test_splitting_qkv_is_three_matrices():
    "One Muon step on the fused tensor is the step on q, k and v apart."
    torch.manual_seed(0)
    fused, gradient = torch.nn.Parameter(torch.randn(8, 24)), torch.randn(8, 24)
    apart = [torch.nn.Parameter(part.clone()) for part in fused.detach().chunk(3, dim=1)]
    for params, parts, gradients in (([fused], 3, [gradient]), (apart, 1, gradient.chunk(3, dim=1))):
        for w, g in zip(params, gradients):
            w.grad = g.clone()
        muon = gpt.Muon([{"params": params, "parts": parts}], 0.1, 0.9, 0.01, torch.float32)
        muon.found_inf = torch.zeros(())
        muon.step()
    torch.testing.assert_close(fused.detach(), torch.cat([w.detach() for w in apart], 1))


def test_pace():
    config = gpt.TrainConfig(warmup_iters=9, min_lr=6e-4, learning_rate=6e-3)
    assert gpt.pace(config, 0, 0) == pytest.approx(0.1) and gpt.pace(config, 9, 0) == 1
    assert gpt.pace(config, 500, 0.5) == pytest.approx(0.55) and gpt.pace(config, 1000, 1) == pytest.approx(0.1)
    cosine = dataclasses.replace(config, schedule="cosine", min_lr=0.0)
    assert gpt.pace(cosine, 500, 0.25) == pytest.approx(0.5 + math.sqrt(0.5) / 2)


# ---- sampling -------------------------------------------------------------------------------------------------------

def lm(vocab=40, seed=0, **shape):
    model = new_model(vocab, seed=seed, **{"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 12, **shape}).eval()
    for w in model.parameters():
        w.data *= 4                                            # so that the likeliest token is a clear one
    return gpt.LM(model, gpt.CharTokenizer("".join(map(chr, range(65, 65 + vocab - 1)))))


def by_hand(model, prompt, n, T):
    "Greedy generation without a cache, over the window that generate() promises to keep."
    row, start = list(prompt), max(0, len(prompt) - T)
    for _ in range(n):
        if len(row) - start > T:
            start = len(row) - T // 2
        with torch.no_grad():
            logits = model(torch.tensor([row[start:]]))[0, -1]
        logits[0] = -math.inf
        row.append(int(logits.argmax()))
    return row[len(prompt):]


@pytest.mark.parametrize("length", [1, 2, 6, 11, 12, 13, 30])
def test_cached_is_uncached_at_every_length_and_past_the_context(length):
    it = lm()
    prompt = torch.randint(1, 40, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    options = gpt.SampleConfig(max_new_tokens=40, temperature=0)
    cached = [int(i) for i, *_ in gpt.generate(it, [prompt], options)]
    assert cached == by_hand(it.model, prompt, 40, 12)


def test_rows_of_unequal_length_do_not_disturb_each_other():
    it = lm()
    prompts = [[5], [7, 8, 9, 10, 11, 12, 13, 14], list(range(1, 31)), [3, 4]]
    greedy = gpt.SampleConfig(max_new_tokens=40, temperature=0)
    together = torch.stack([ids for ids, *_ in gpt.generate(it, prompts, greedy)], 1)
    for prompt, row in zip(prompts, together.tolist()):
        assert row == by_hand(it.model, prompt, 40, 12)


def test_sampling_is_seeded_and_never_says_unknown():
    it = lm()
    a, b, c = (it.sample("AB", seed=seed, temperature=2.0, max_new_tokens=100) for seed in (1, 1, 2))
    assert a == b != c and "�" not in a + c and len(a) == 100


def test_printable():
    assert gpt.printable("a\x1b[31mb\r\n\tc\x00\x9b") == "a�[31mb�\n\tc��"


# ---- training ---------------------------------------------------------------------------------------------------------

def test_a_run_from_python(place, capsys):
    result = mini(max_iters=40, eval_interval=20)
    assert result.reason == "done" and Path(result.out_dir) == Path("runs/nano-char-story")
    lines = log(result.out_dir)
    kinds = [line["kind"] for line in lines]
    assert kinds[0] == "start" and kinds[-1] == "end" and {"step", "eval", "sample", "state"} <= set(kinds)
    evals = [line for line in lines if line["kind"] == "eval"]
    assert [line["step"] for line in evals] == [0, 20, 40]
    vocab = lines[0]["config"]["model"]["vocab_size"]
    assert abs(evals[0]["val_loss"] / math.log(vocab) - 1) < 0.05
    assert evals[-1]["val_loss"] < evals[0]["val_loss"] - 0.3 and result.best_val_loss == evals[-1]["best"]
    val = gpt.read_text("story.txt")[36_000:]
    assert evals[0]["bits_per_byte"] == pytest.approx(evals[0]["val_loss"] / math.log(2) * len(val) / len(val.encode()))
    steps = [line for line in lines if line["kind"] == "step"]
    assert {"loss", "lr", "grad_norm", "tokens", "tokens_per_s", "mfu", "elapsed_s", "eta_s", "memory_mb"} <= steps[-1].keys()
    assert steps[-1]["tokens"] == 40 * 6 * 16 and steps[-1]["mfu"] is None
    assert [line for line in result.history if line["kind"] == "eval"][-1]["val_loss"] == evals[-1]["val_loss"]
    said = capsys.readouterr().out
    assert re.search(r"^step 20 \| train \d\.\d{4} \| val \d\.\d{4} \| best", said, re.M)
    assert "ln(" in said and "at step 40 it says" in said
    settings = json.loads(Path(result.out_dir, "config.json").read_text())
    assert settings["train"]["max_iters"] == 40 and settings["used"]["dtype"] == "float32"
    assert sorted(os.listdir(result.out_dir)) == ["best.pt", "config.json", "latest.pt", "metrics.jsonl"]


def test_the_checkpoint_is_self_contained(place, tmp_path_factory, monkeypatch):
    result = mini()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copy(Path(result.out_dir, "best.pt"), elsewhere)
    monkeypatch.chdir(elsewhere)
    it = gpt.load("best.pt")
    assert len(it.sample("The ", max_new_tokens=30, seed=1)) == 30
    logits = it.model(torch.tensor([it.tokenizer.encode("The ").tolist()]))
    assert logits.shape == (1, 4, it.tokenizer.vocab_size)
    assert not any(key.startswith(("_orig_mod.", "module.")) for key in weights(".", "best.pt"))
    assert "optimizers" not in torch.load("best.pt", weights_only=True)


def test_newest_run_is_found(place):
    mini(max_iters=1)
    newest = mini(max_iters=1)
    assert newest.out_dir == "runs/nano-char-story-2"
    assert gpt.find_checkpoint() == Path(newest.out_dir, "best.pt")


def test_micro_batch_changes_nothing(place):
    runs = [mini(micro_batch=micro, dropout=0.0, max_iters=5) for micro in (0, 1, 3, 4)]
    losses = [[line["loss"] for line in run.history if line["kind"] == "step"] for run in runs]
    assert len(losses[0]) >= 4
    for other in runs[1:]:
        for k, w in weights(runs[0].out_dir).items():
            torch.testing.assert_close(weights(other.out_dir)[k], w, rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(losses[1:], [losses[0]] * 3, rtol=1e-5)


def test_stopping_and_going_on_is_bit_for_bit(place):
    whole = mini(max_iters=23, optimizer="muon", out_dir="whole")
    mini(max_iters=9, out_dir="parts")
    # the schedule of the first part ended at 9: so stop a run of 23 instead
    shutil.rmtree("parts")
    Path("parts").mkdir()
    Path("parts/control").write_text("stop")
    stopped = mini(max_iters=23, out_dir="parts")
    assert stopped.reason == "stopped"
    for _ in range(2):
        gpt.train(resume="parts")
    assert same(weights(whole.out_dir), weights("parts"))


KILLER = """
import os, signal, sys
sys.path.insert(0, {here!r})
import gpt
at, pace = int(sys.argv[1]), gpt.pace
def deadly(config, step, done):
    if step == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return pace(config, step, done)
gpt.pace = deadly
gpt.train(**eval(sys.argv[2]))
"""


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_sigkill_between_any_two_steps(optimizer, place):
    settings = dict(MINI, data="story.txt", max_iters=16, eval_interval=5, optimizer=optimizer, dropout=0.2)
    whole = gpt.train(**settings, out_dir="whole")
    for kill_at, asked in ((7, dict(settings, out_dir="killed")), (11, dict(resume="killed")), (14, dict(resume="killed"))):
        done = subprocess.run([sys.executable, "-c", KILLER.format(here=str(HERE)), str(kill_at), repr(asked)],
                              capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
    result = gpt.train(resume="killed")
    assert result.reason == "done" and same(weights("whole"), weights("killed"))
    assert same(weights("whole", "best.pt"), weights("killed", "best.pt")) and result.best_val_loss == whole.best_val_loss
    curve = {line["step"]: line["loss"] for line in log("killed") if line["kind"] == "step"}
    assert curve.items() >= {line["step"]: line["loss"] for line in whole.history if line["kind"] == "step"}.items() or all(
        curve.get(line["step"], line["loss"]) == line["loss"] for line in whole.history if line["kind"] == "step")
    assert [line["resumed_from"] for line in log("killed") if line["kind"] == "start"] == [None, 5, 10, 10]


def test_resume_takes_new_limits_and_rates_but_no_new_shape(place):
    result = mini(max_iters=5)
    more = gpt.train(resume=result.out_dir, max_iters=8, learning_rate=1e-4, weight_decay=0.5)
    assert more.reason == "done" and log(more.out_dir)[-1]["step"] == 8
    assert max(line["lr"] for line in more.history if line["kind"] == "step") <= 1e-4
    with pytest.raises(gpt.Problem, match="--n_embd 16: it can't go on with 32"):
        gpt.train(resume=result.out_dir, n_embd=32)
    Path("other.txt").write_text("Quite another text. " * 500)
    with pytest.raises(gpt.Problem, match="another tokenizer .*characters"):
        gpt.train(resume=result.out_dir, data="other.txt", max_iters=20)


def test_resume_auto_starts_or_goes_on(place):
    first = mini(out_dir="auto", resume="auto", max_iters=3)
    second = mini(out_dir="auto", resume="auto", max_iters=6)
    assert [line["resumed_from"] for line in log("auto") if line["kind"] == "start"] == [None, 3]
    assert first.out_dir == second.out_dir == "auto"


def torchrun(processes, folder, *flags, cwd):
    asked = {**MINI, "data": "story.txt", "out_dir": folder, "dropout": 0.0, "max_iters": 6, "eval_interval": 3}
    asked.pop("threads")
    words = [f"--{k}={v}" for k, v in asked.items()] + list(flags)
    runner = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--master_port=0"]
    return subprocess.run([*runner[:-1], "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", str(GPT), "train", *words],
                          cwd=cwd, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_two_processes_are_one(place):
    alone = mini(dropout=0.0, max_iters=6, eval_interval=3, out_dir="alone")
    done = torchrun(2, "two", cwd=place)
    assert done.returncode == 0, done.stderr
    for k, w in weights("alone").items():
        torch.testing.assert_close(weights("two")[k], w, rtol=1e-4, atol=2e-5)
    one, two = ([line for line in log(folder) if line["kind"] in ("step", "eval")] for folder in ("alone", "two"))
    for key, kind in (("loss", "step"), ("val_loss", "eval"), ("train_loss", "eval")):
        a, b = ({line["step"]: line[key] for line in lines if line["kind"] == kind} for lines in (one, two))
        assert a.keys() == b.keys()
        np.testing.assert_allclose(list(b.values()), list(a.values()), rtol=1e-4)
    assert log("two")[0]["world_size"] == 2 and done.stdout.count("step 3 |") == 1
    # and one process goes on where two stopped
    more = gpt.train(resume="two", max_iters=8)
    assert more.reason == "done" and log("two")[-1]["step"] == 8


def test_an_uneven_batch_over_processes_and_a_stop_for_all(place):
    Path("odd").mkdir()
    Path("odd/control").write_text("stop")
    done = torchrun(3, "odd", "--batch_size=7", "--max_iters=4", cwd=place)
    assert done.returncode == 0, done.stderr
    assert log("odd")[-1]["reason"] == "stopped"
    done = torchrun(3, "odd", "--batch_size=7", "--max_iters=4", "--resume", cwd=place)
    assert done.returncode == 0, done.stderr
    alone = mini(dropout=0.0, batch_size=7, max_iters=4, out_dir="alone")
    for k, w in weights("alone").items():
        torch.testing.assert_close(weights("odd")[k], w, rtol=1e-4, atol=2e-5)


def test_out_of_memory_halves_the_micro_batch(place, monkeypatch):
    forward = gpt.GPT.forward

    def small(self, ids, cache=None):
        if self.training and len(ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, ids, cache)
    whole = mini(dropout=0.0, max_iters=4)
    monkeypatch.setattr(gpt.GPT, "forward", small)
    halved = mini(dropout=0.0, max_iters=4)
    warned = [line["text"] for line in log(halved.out_dir) if line["kind"] == "warn"]
    assert warned == ["out of memory: going on with --micro_batch 3", "out of memory: going on with --micro_batch 2"]
    for k, w in weights(whole.out_dir).items():
        torch.testing.assert_close(weights(halved.out_dir)[k], w, rtol=1e-4, atol=2e-5)
    monkeypatch.setattr(gpt.GPT, "forward", lambda self, ids: (_ for _ in ()).throw(torch.OutOfMemoryError("out of memory")))
    with pytest.raises(gpt.Failure, match="not even one sequence"):
        mini(eval_interval=10**6, max_iters=4)


def test_other_runtime_errors_are_not_memory(place, monkeypatch):
    monkeypatch.setattr(gpt, "loss_of", lambda *a: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        mini()


@pytest.mark.parametrize("bad_steps,ends", [({3, 4, 6}, False), (set(range(2, 40)), True)])
def test_steps_that_are_not_finite(bad_steps, ends, place, monkeypatch):
    original, seen = gpt.loss_of, []

    def loss_of(logits, targets, reduction="mean"):
        loss = original(logits, targets, reduction)
        if reduction == "mean":
            seen.append(1)
            loss = loss * (math.nan if len(seen) - 1 in bad_steps else 1)
        return loss
    monkeypatch.setattr(gpt, "loss_of", loss_of)
    if ends:
        with pytest.raises(gpt.Failure, match="10 steps in a row"):
            mini(max_iters=60, eval_interval=1, out_dir="out")
        assert log("out")[-1]["reason"] == "error"
    else:
        mini(max_iters=10, out_dir="out")
    assert sum("skipped" in line["text"] for line in log("out") if line["kind"] == "warn") == (10 if ends else 3)
    assert all(w.isfinite().all() for name in ("best.pt", "latest.pt") for w in weights("out", name).values())
    assert all(json.loads(line, parse_constant=lambda c: 1 / 0) for line in open("out/metrics.jsonl"))
    if not ends:
        assert torch.load("out/latest.pt", weights_only=True)["progress"]["skipped"] == 3


def full_disk(*_, **__):
    raise OSError(28, "No space left on device")


def test_a_full_disk_while_saving(place, monkeypatch):
    result = mini(max_iters=5, out_dir="full")
    before = weights("full")
    monkeypatch.setattr(os, "fsync", full_disk)
    more = gpt.train(resume="full", max_iters=12)
    assert more.reason == "done" and log("full")[-1]["step"] == 12
    assert any("latest.pt not saved" in line["text"] for line in log("full") if line["kind"] == "warn")
    assert same(before, weights("full")) and not list(Path("full").glob("*.tmp")) and result


def test_a_file_that_may_not_grow(place):
    "The real thing: the system refuses to write more than 40 kB into a file."
    code = (f"import sys, resource; sys.path.insert(0, {str(HERE)!r}); import gpt\n"
            f"settings = dict({MINI!r}, data='story.txt', out_dir='full', max_iters=3, eval_interval=1)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, -1)); import signal\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); print(gpt.train(**settings).reason)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("done") and "not saved" in done.stdout, done.stderr
    assert sorted(os.listdir("full")) == ["config.json", "metrics.jsonl"]


def test_a_kill_while_saving_leaves_the_previous_checkpoint(tmp_path):
    path = tmp_path / "latest.pt"
    gpt.save_checkpoint(path, {"version": 1, "step": 1})
    with pytest.raises(KeyboardInterrupt):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            gpt.save_checkpoint(path, {"version": 1, "step": 2})
    assert gpt.load_checkpoint(path)["step"] == 1


class Evil:
    def __reduce__(self):
        return os.system, ("touch i_ran",)


def test_a_hostile_checkpoint_runs_nothing(place):
    torch.save({"version": 1, "model": Evil()}, "evil.pt")
    with pytest.raises(gpt.Problem, match="no checkpoint of gpt.py"):
        gpt.load("evil.pt")
    assert not Path("i_ran").exists()


def test_only_one_run_writes_a_folder(place):
    config = gpt.TrainConfig(out_dir="mine")
    folder, lock = gpt.claim_folder(config, None)
    with pytest.raises(gpt.Problem, match="another run is writing there"):
        gpt.claim_folder(config, Path("mine"))
    lock.close()
    assert gpt.claim_folder(config, Path("mine"))[0] == Path("mine")


def test_a_finished_folder_is_not_overwritten(place):
    mini(max_iters=1, out_dir="once")
    with pytest.raises(gpt.Problem, match="--resume"):
        mini(max_iters=1, out_dir="once")


def test_time_boxed_run_decays_to_the_end(place):
    start = time.monotonic()
    result = mini(max_iters=0, max_minutes=0.05, eval_interval=10**6)
    assert result.reason == "time" and 2.9 < time.monotonic() - start < 30
    lines = log(result.out_dir)
    rates = [line["lr"] for line in lines if line["kind"] == "step"]
    assert rates[-1] < 0.05 * max(rates) and lines[-1]["step"] > 20
    assert [line["kind"] for line in lines].count("eval") == 2


def test_whichever_limit_ends_first(place):
    assert mini(max_iters=3, epochs=50, max_minutes=9).reason == "done"
    result = mini(max_iters=10**6, epochs=0.05, max_minutes=9)
    assert log(result.out_dir)[-1]["step"] == math.ceil(0.05 * (36_000 // 16) / 6)


def test_patience_and_the_one_warning(place, monkeypatch):
    losses = iter([5, 5, 4, 4, 3.5, 3.9, 3, 3.91, 2.5, 3.92, 2.4, 3.93, 2.3, 3.94, 2.2, 3.95] + [2, 4] * 20)
    monkeypatch.setattr(gpt, "evaluate", lambda *_: next(losses))
    patient = mini(max_iters=60, eval_interval=5, out_dir="patient", patience=5)
    lines = log("patient")
    warned = [line for line in lines if line["kind"] == "warn"]
    assert patient.reason == "patience" and lines[-1]["step"] == 35 and patient.best_val_loss == 3.9
    assert len(warned) == 1 and warned[0]["step"] == 25 and "since step 10" in warned[0]["text"]


def test_control_file(place, monkeypatch):
    "pause, go, sample and stop, as another process would write them."
    import threading
    words = []

    def visitor():
        wait = lambda there: [time.sleep(0.02) for _ in range(1500) if not there()]
        says = lambda word: Path("run/control").write_text(word)
        seen = lambda kind, **want: any(line.items() >= want.items() for line in read("run") if line["kind"] == kind)
        wait(lambda: Path("run/metrics.jsonl").exists() and seen("step"))
        says("pause"), wait(lambda: seen("state", state="paused"))
        words.append(max(line["step"] for line in read("run") if line["kind"] == "step"))
        time.sleep(0.5)
        words.append(max(line["step"] for line in read("run") if line["kind"] == "step"))
        says("go"), wait(lambda: max(line["step"] for line in read("run") if line["kind"] == "step") > words[1])
        samples = lambda: sum(line["kind"] == "sample" for line in read("run"))
        words.append(samples())
        says("sample"), wait(lambda: samples() > words[2])
        words.append(samples())
        says("nonsense"), wait(lambda: not Path("run/control").exists())
        says("stop")

    def read(folder):
        return [json.loads(line) for line in open(f"{folder}/metrics.jsonl") if line.endswith("\n")]
    thread = threading.Thread(target=visitor)
    thread.start()
    result = mini(max_iters=100_000, eval_interval=10**6, out_dir="run")
    thread.join()
    assert result.reason == "stopped" and words[1] - words[0] <= 1 and words[3] == words[2] + 1
    assert not Path("run/control").exists() and Path("run/latest.pt").exists()


@pytest.mark.parametrize("number,code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_finish_the_step_and_save(number, code, place):
    words = [f"--{k}={v}" for k, v in {**MINI, "data": "story.txt", "max_iters": 10**6, "eval_interval": 10**6}.items()]
    run = subprocess.Popen([sys.executable, str(GPT), "train", *words, "--out_dir=run"], stdout=subprocess.PIPE, text=True)
    for _ in range(600):
        time.sleep(0.05)
        if Path("run/metrics.jsonl").exists() and '"kind": "step"' in Path("run/metrics.jsonl").read_text():
            break
    run.send_signal(number)
    said = run.communicate(timeout=60)[0]
    assert run.returncode == code and "python gpt.py train --resume run" in said
    end, saved = log("run")[-1], torch.load("run/latest.pt", weights_only=True)
    assert end["reason"] == "stopped" and saved["progress"]["step"] == end["step"] > 0


def test_a_bug_is_logged_and_keeps_its_traceback(place, monkeypatch):
    monkeypatch.setattr(gpt, "pace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        mini(out_dir="bug")
    assert log("bug")[-1]["reason"] == "error" and "ZeroDivisionError" in log("bug")[-1]["message"]


def test_samples_when_asked(place):
    result = mini(max_iters=12, eval_interval=6, sample_every=4, sample_prompt="The ")
    samples = [line for line in log(result.out_dir) if line["kind"] == "sample"]
    assert [line["step"] for line in samples] == [0, 4, 8, 12] and samples[0]["text"].startswith("The ")


def test_compile_that_fails_is_one_line(place, monkeypatch):
    def broken(model):
        def fail(*_):
            raise RuntimeError("no compiler here\nand a long story")
        fail.train = lambda: fail
        return fail
    monkeypatch.setattr(torch, "compile", broken)
    result = mini(compile="true", max_iters=3)
    warned = [line["text"] for line in log(result.out_dir) if line["kind"] == "warn"]
    assert result.reason == "done" and len(warned) == 1 and "no compiler here" in warned[0]


def test_trackers_get_the_numbers(place, monkeypatch):
    got = []
    wandb = types.ModuleType("wandb")
    wandb.init = lambda **settings: got.append(settings)
    wandb.log = lambda numbers, step: got.append((step, numbers))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    mini(tracker="wandb", max_iters=3)
    assert got[0]["name"] == "nano-char-story" and got[0]["config"]["train"]["max_iters"] == 3
    assert got[1][0] == 0 and got[1][1]["val_loss"] > 0 and got[-1][0] == 3
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(gpt.Failure, match="pip install trackio"):
        mini(tracker="trackio", max_iters=3)


def test_bfloat16_and_float32_agree(place):
    runs = [mini(dtype=dtype, max_iters=60, eval_interval=60, n_embd=32, batch_size=16) for dtype in ("float32", "bfloat16")]
    assert abs(runs[0].best_val_loss - runs[1].best_val_loss) < 0.01


def test_precision_and_threads_are_chosen_and_kept(place, capsys):
    result = mini(dtype="auto", threads=0, max_iters=3)
    used = json.loads(Path(result.out_dir, "config.json").read_text())["used"]
    assert used["dtype"] in ("float32", "bfloat16") and used["threads"] >= 1
    assert "ms on" in capsys.readouterr().out
    gpt.train(resume=result.out_dir, max_iters=5)
    assert json.loads(Path(result.out_dir, "config.json").read_text())["used"] == used
    assert "as before" in capsys.readouterr().out


@pytest.mark.parametrize("capability,dtype", [((9, 0), "bfloat16"), ((8, 0), "bfloat16"), ((7, 5), "float16"), ((7, 0), "float16"),
                                              ((6, 1), "float32")])
def test_gpu_precision_by_capability(capability, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    chosen = gpt.choose_precision(gpt.TrainConfig(), torch.device("cuda"), None)
    assert str(chosen[0]) == f"torch.{dtype}" and f"{capability[0]}.{capability[1]}" in chosen[2]
    assert gpt.choose_precision(gpt.TrainConfig(dtype="float32"), torch.device("cuda"), None)[0] == torch.float32


@pytest.mark.parametrize("name,peak", [("NVIDIA A100-SXM4-80GB", 312e12), ("Tesla T4", 65e12), ("NVIDIA H100 PCIe", 756e12),
                                       ("NVIDIA L40S", 362e12), ("NVIDIA A10G", 70e12), ("Some New GPU", None)])
def test_mfu_only_where_the_peak_is_known(name, peak, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert gpt.peak_flops(torch.device("cuda"), torch.bfloat16) == peak
    assert gpt.peak_flops(torch.device("cuda"), torch.float32) is None


def test_float16_goes_through_the_scaler(place, monkeypatch):
    "The path of a T4, with float16 products replaced by float32 ones; the scaler and its state are real."
    monkeypatch.setattr(gpt, "choose_precision", lambda *_: (torch.float16, 1, "a test"))
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    settings = dict(dtype="auto", max_iters=12, dropout=0.0)
    half = mini(out_dir="half", **settings)
    assert torch.load("half/latest.pt", weights_only=True)["scaler"]["scale"] > 1
    Path("parts").mkdir()
    Path("parts/control").write_text("stop")
    mini(out_dir="parts", **settings)
    gpt.train(resume="parts")
    assert same(weights("half"), weights("parts"))
    monkeypatch.setattr(gpt, "choose_precision", lambda *_: (torch.float32, 1, "a test"))
    whole = mini(out_dir="whole", **settings)
    assert half.best_val_loss == pytest.approx(whole.best_val_loss, rel=1e-3)


def test_colab_drive(place, monkeypatch):
    drive = place / "content"
    monkeypatch.setattr(gpt, "Path", lambda *parts: drive if parts == ("/content/drive/MyDrive",) else Path(*parts))
    with pytest.raises(gpt.Problem, match="drive.mount"):
        mini(colab_drive=True)
    drive.mkdir()
    result = mini(colab_drive=True, max_iters=2)
    assert Path(result.out_dir).parent == drive / "gpt-runs"
    assert gpt.train(colab_drive=True, resume="newest", max_iters=3).out_dir == result.out_dir


def test_unnamed_data_falls_back_and_named_data_does_not(place, monkeypatch, capsys):
    monkeypatch.setattr(gpt, "HERE", place)                    # gpt.py alone, without data.py
    result = gpt.train(**{**MINI, "max_iters": 1})
    assert "training on --data builtin" in capsys.readouterr().out and result.out_dir == "runs/nano-char-builtin"
    with pytest.raises(gpt.Problem, match="builtin always works"):
        mini(data="sherlock")


# ---- as people use it -------------------------------------------------------------------------------------------------

def test_gpt_alone_in_an_empty_folder(tmp_path):
    shutil.copy(GPT, tmp_path)
    words = "train --preset nano --level word --max_iters 3 --sample_tokens 5 --eval_tokens 500 --threads 1 --dtype float32"
    alone = [sys.executable, "gpt.py"]
    done = subprocess.run(alone + words.split(), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "runs/nano-word-builtin" in done.stdout, done.stderr
    done = subprocess.run(alone + ["sample", "--prompt", "The list", "--max_new_tokens", "5"], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("The list"), done.stderr
    done = subprocess.run(alone + ["train", "--preset", "gpt2"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "presets.json" in done.stderr


def test_it_needs_only_torch_and_numpy(tmp_path):
    for name in ("tiktoken", "rich", "textual", "matplotlib", "safetensors", "regex"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('no {name}')")
    words = [f"--{k}={v}" for k, v in {**MINI, "max_iters": 2}.items()]
    run = lambda *more: shell("train", "--data=builtin", *words, *more, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert run().returncode == 0
    done = run("--level=bpe")
    assert done.returncode == 1 and "pip install tiktoken" in done.stderr


def test_pasted_into_a_notebook(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cells = [GPT.read_text(encoding="utf-8"), "assert not __import__('os').listdir('.')\nprint(train.__name__)",
             f"result = train(**{dict(MINI, preset='nano', level='char', data='builtin', max_iters=3)!r})",
             "print(result.out_dir, result.best_val_loss < 9, len(result.history) > 2, load().sample('The', max_new_tokens=4))"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    text = ["".join(o.get("text", "") for o in cell.outputs) for cell in book.cells]
    assert text[0] == "" and text[1] == "train\n" and "step 3 |" in text[2]
    assert text[3].startswith("runs/nano-char-builtin True True ")


def test_a_terminal_gets_a_live_display(place):
    "In a pseudo terminal of 80x24, as people see it."
    pytest.importorskip("rich")
    import pty
    import struct
    import fcntl
    import termios
    words = [f"--{k}={v}" for k, v in {**MINI, "data": "story.txt", "max_iters": 400, "eval_interval": 100}.items()]
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", COLUMNS="80", LINES="24")
        os.execv(sys.executable, [sys.executable, str(GPT), "train", *words])
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    shown = b""
    with contextlib.suppress(OSError):
        while chunk := os.read(fd, 65536):
            shown += chunk
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    shown = shown.decode()
    bare = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert "━" in bare and "eta 0:" in bare and shown != bare and "╭─ training" in bare


def test_bench(tmp_path):
    own = tmp_path / "own.json"
    own.write_text('{"speck": {"n_layer": 1, "n_head": 1, "n_embd": 8, "block_size": 8, "batch_size": 2}}')
    done = shell("bench", "--presets", own, "--preset", "speck", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(re.match(r"copying: (\d+) GB/s", done.stdout)[1]) > 0
    name, speed, flops, mfu, memory, _, sampled, read = done.stdout.splitlines()[2].split()
    assert float(sampled.replace(",", "")) > 100 and float(read) >= 0
    assert name == "speck" and float(speed.replace(",", "")) > 100 and float(memory.replace(",", "")) > 50 and mfu == "-"

def test_bench_has_a_rival():
    hf = pytest.importorskip("transformers")
    m, cpu = gpt.ModelConfig(n_layer=1, n_head=2, n_embd=16, block_size=12, vocab_size=11), torch.device("cpu")
    trained, sampled = gpt.rival(hf, m, gpt.TrainConfig(batch_size=2, dropout=0.1), cpu, new=5)
    assert trained > 10 and sampled > 10
    assert "there is none, hf" in shell("bench", "--against", "x").stderr


# ---- sampling, chat, evaluation -------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "A folder with a text and one short run on it, runs/a."
    place = tmp_path_factory.mktemp("trained")
    (place / "story.txt").write_text(gpt.read_text("builtin")[:40_000], encoding="utf-8")
    done = shell("train", *(f"--{k}={v}" for k, v in {**MINI, "data": "story.txt", "out_dir": "runs/a", "max_iters": 20}.items()),
                 cwd=place)
    assert done.returncode == 0, done.stderr
    return place


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
    assert picks([2.0, 1.5, -1.0], seen=[0, 0], temperature=0, repetition_penalty=2.0) == [0, 400, 0]
    assert picks([-1.0, -1.5, -3.0], seen=[0, 0], temperature=0, repetition_penalty=2.0) == [0, 400, 0]
    assert picks([-1.0, -1.5, -3.0], seen=[1, 2], temperature=0, repetition_penalty=0.1) == [0, 400, 0]


def test_the_penalty_looks_back_over_its_window_in_prompt_and_text():
    it, told = lm(), []
    def look(logits, seen, o, generator):
        told.append(seen.tolist())
        return logits.argmax(-1)
    old, gpt.pick = gpt.pick, look
    try:
        o = gpt.SampleConfig(max_new_tokens=5, repetition_penalty=1.5, repetition_window=3)
        new = [ids.tolist() for ids, *_ in gpt.generate(it, [[3, 4, 5, 6], [7]], o)]
    finally:
        gpt.pick = old
    rows = [[3, 4, 5, 6, *(n[0] for n in new)], [7, 7, 7, 7, *(n[1] for n in new)]]
    assert told == [[row[i + 1:i + 4] for row in rows] for i in range(5)]


@given(st.lists(st.text("abU:\n", max_size=4)), st.lists(st.text("abU:\n", min_size=1, max_size=4), max_size=3))
@settings(deadline=None)
def test_until_holds_back_what_may_be_a_stop(pieces, stops):
    whole, shown, taken = "".join(pieces), "", 0
    ends = [i for i in (whole.find(s) for s in stops) if i >= 0]
    first = min((whole.find(s) + len(s) for s in stops if s in whole), default=len(whole))
    def source():
        nonlocal taken
        for piece in pieces:
            taken += len(piece)
            yield piece
    for piece in gpt.until(source(), stops):
        shown += piece
        assert whole.startswith(shown) and len(shown) <= taken
    if not ends:
        assert shown == whole
    else:                                       # up to a stop; where stops overlap, the one that was whole first
        assert shown in [whole[:i] for i in ends] and taken >= min(first, len(whole))


def test_until_shows_at_once_what_cannot_be_a_stop():
    seen = []
    def source():
        for piece in ("Hello", " U", "ser", " x", "\nUs", "er:", "never"):
            seen.append(piece)
            yield piece
    shown = [(piece, seen[-1]) for piece in gpt.until(source(), ("User:", "\nUser:"))]
    assert shown == [("Hello", "Hello"), (" U", " x"), ("ser", " x"), (" x", " x"), ("", "er:")]


def test_reports(monkeypatch):
    it = lm()
    text = it.sample("AB", max_new_tokens=9, temperature=0)
    assert it.report.reason == "length" and it.report.tokens == 9 and it.report.context_used == 10 and len(text) == 9
    assert it.report.tokens_per_s > 0 and 0 < it.report.first_s
    assert it.sample("AB", max_new_tokens=9, temperature=0, stop=text[4:6]) == text[:text.find(text[4:6])]
    assert it.report.reason == "stop"
    stream = it.stream("AB", max_new_tokens=9, temperature=0)
    assert next(stream) == text[0]
    stream.close()
    assert it.report.reason == "cancelled" and it.report.tokens == 1
    it.tokenizer.end_id = int(it.tokenizer.encode(text)[3])
    cut = text[:text.find(text[3])]
    assert it.sample("AB", max_new_tokens=9, temperature=0) == cut and it.report.reason == "end"
    assert it.sample("AB", max_new_tokens=9, temperature=0, num_samples=3) == [cut] * 3
    assert it.sample("AB", max_new_tokens=0) == "" and it.sample("AB", max_new_tokens=0, num_samples=2) == ["", ""]


def test_several_samples_differ_and_are_seeded():
    it = lm()
    many = it.sample("AB", num_samples=4, temperature=2.0, max_new_tokens=30)
    assert len(many) == 4 and len(set(many)) == 4 and all(len(text) == 30 for text in many)
    assert many == it.sample("AB", num_samples=4, temperature=2.0, max_new_tokens=30)
    assert it.sample("AB", num_samples=2, temperature=0, max_new_tokens=30) == [
        it.sample("AB", temperature=0, max_new_tokens=30)] * 2


def test_probabilities_are_those_of_the_model():
    it = lm()
    pieces = [*it.stream("AB", probs=3, temperature=0.5, max_new_tokens=6)]
    row = it.encode("AB" + "".join(pieces))
    with torch.no_grad():
        logits = it.model(torch.tensor([row]))[0]
    logits[:, 0] = -math.inf
    for i, piece in enumerate(pieces):
        probs = logits[1 + i].softmax(-1)
        assert piece.prob == pytest.approx(probs[row[2 + i]].item(), rel=1e-4)
        assert [p for _, p in piece.alternatives] == pytest.approx(probs.topk(3).values.tolist(), rel=1e-4)
        assert piece.alternatives[0][0] == it.tokenizer.characters[int(probs.argmax())]


def test_a_stop_inside_a_token_leaves_its_probability():
    it = lm()
    text = it.sample("AB", max_new_tokens=8, temperature=0)
    it.after = lambda ids, new: ("<" + it.tokenizer.characters[i] + ">" for i in new)
    pieces = [*it.stream("AB", max_new_tokens=8, temperature=0, probs=2, stop=text[3] + ">")]
    first = text.find(text[3])
    assert [*pieces] == [f"<{c}>" for c in text[:first]] + ["<"] and all(0 < piece.prob <= 1 for piece in pieces)


def test_the_cost_of_a_token_does_not_grow():
    it = lm()
    read, forward = [], it.model.forward
    it.model.forward = lambda ids, cache: (read.append(ids.numel()), forward(ids, cache))[1]
    it.sample("AB", max_new_tokens=600)
    T = it.config.block_size
    assert len(read) == 600 and sum(read) <= 2 + 600 * 2 + T and sum(read[:300]) == pytest.approx(sum(read[300:]), abs=T)


@pytest.mark.parametrize("dtype,off", [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_laid_out_for_speed_it_says_the_same(dtype, off):
    it = lm()
    fast, ids = gpt.laid_out(it.model, dtype), torch.tensor([[1, 2, 3, 4, 5]])
    with torch.no_grad():
        assert torch.allclose(fast(ids).float(), it.model(ids), atol=off)
        assert torch.allclose(fast(ids, gpt.Cache(fast, [5])).float(), it.model(ids)[:, -1], atol=off)
    assert fast.state_dict().keys() == it.model.state_dict().keys() and it.model.wte.weight.dtype == torch.float32


def test_sample_command(trained):
    ask = ["sample", "--prompt", "The ", "--max_new_tokens", "30", "--temperature", "0"]
    plain = shell(*ask, cwd=trained)
    assert plain.returncode == 0 and plain.stdout.startswith("The ") and len(plain.stdout) >= 34
    assert re.search(r"30 tokens, [\d,]+/s, the first after \d", plain.stderr)
    (trained / "prompt.txt").write_text("The ")
    from_file = shell("sample", "runs/a", "--prompt_file", "prompt.txt", *ask[3:], cwd=trained)
    assert from_file.stdout == plain.stdout
    shown = shell(*ask, "--show_probs", cwd=trained).stdout
    assert shown.count("\x1b[38;5;") == 30 and "likeliest" in shown
    many = shell(*ask, "--num_samples", "3", cwd=trained).stdout
    assert many.removesuffix("\n").split("\n---\n") == [plain.stdout.removesuffix("\n")] * 3


def test_what_a_prompt_cannot_have_is_said(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    gpt.sample_command({"prompt": "a☃" * 20, "max_new_tokens": "2"})
    told = capsys.readouterr().err
    assert "does not know '☃'" in told and "of the prompt's 40 tokens the model sees the last 16" in told
    gpt.sample_command({"prompt": "", "max_new_tokens": "5"})
    assert len(capsys.readouterr().out) == 6


@pytest.mark.parametrize("words,told", [
    ("sample --temperature -1", "temperature >= 0"), ("sample --top_p 0", "0 < top_p <= 1"), ("sample --top_p 1.5", "0 < top_p <= 1"),
    ("sample --repetition_penalty 0", "repetition_penalty > 0"), ("sample runs/none", "no such run"), ("sample runs", "no checkpoint in"),
    ("sample --prompt_file none.txt", "none.txt"), ("sample runs/a runs/b", "one RUN"), ("eval --data none.txt", "none.txt"),
    ("eval --split train", "there is val, test"), ("eval --data short.txt --split test", "too few"), ("plot runs/none", "no run's folder"),
    ("plot runs/a --out loss.docx", "--out loss.docx"), ("runs --sort size", "--sort size"), ("chat newer.pt", "get a newer one")])
def test_mistakes_of_those_who_have_a_run(words, told, trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    Path("short.txt").write_text("abc")
    torch.save({**torch.load("runs/a/best.pt", weights_only=True), "version": 99}, "newer.pt")
    with pytest.raises(SystemExit) as end, gpt.problems_told():
        command, asked = gpt.command_line(words.split())
        getattr(gpt, f"{command}_command")(asked)
    error = capsys.readouterr().err
    assert error.startswith("error: ") and told in error and error.count("\n") == 1 and end.value.code in (1, 2)


def test_chat_in_a_terminal(trained):
    lines = ["The ", "/temp 0", "/temp -3", "/rep 1.2", "/nonsense", "/dialogue", "Hello", "/save said.txt", "/load runs/none",
             "/load runs/a", "/reset", "two\\", "lines", "/save again.txt", "/quit", "not read"]
    done = subprocess.run([sys.executable, str(GPT), "chat", "--max_new_tokens", "20"], input="\n".join(lines), text=True,
                          capture_output=True, cwd=trained, timeout=60)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.count("tokens/s, context") == 3 and "of 16]" in done.stdout
    assert "error: --temperature -3" in done.stdout and "error: runs/none" in done.stdout
    assert "'temperature': 0.0" in done.stdout and "'repetition_penalty': 1.2" in done.stdout
    assert "\n\nUser: Hello\n\nAssistant:" in (trained / "said.txt").read_text()
    assert (trained / "again.txt").read_text().startswith("\n\nUser: two\nlines\n\nAssistant:")


def test_chat_survives_ctrl_c_and_shows_no_raw_control_characters(place):
    Path("escape.txt").write_text("\x1b[31m\x07\x9b" * 2000)
    mini(data="escape.txt", out_dir="runs/escape", max_iters=4)
    chat = subprocess.Popen([sys.executable, "-u", str(GPT), "chat", "--max_new_tokens", "10000000"], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    chat.stdin.write(b"[31m\n")
    chat.stdin.flush()
    shown = b""
    while shown.count(b"\xef\xbf\xbd") < 50:
        shown += chat.stdout.read1()
    chat.send_signal(signal.SIGINT)
    shown += chat.communicate(b"/quit\n", timeout=30)[0]
    assert chat.returncode == 0 and b"[cancelled, " in shown
    assert b"\x1b" not in shown and b"\x07" not in shown and b"\xc2\x9b" not in shown


def chat_lines(trained, lines, wait=60):
    done = subprocess.run([sys.executable, str(GPT), "chat", "--jsonl", "--temperature", "0"], cwd=trained, timeout=wait,
                          input=b"\n".join(lines), capture_output=True)
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_chat_jsonl(trained):
    ask = {"id": "x", "prompt": "The ", "max_new_tokens": 5}
    bad = [b"", b"rubbish", b"[1]", b"null", b"7", b"\xff\xfe", b"[" * 5000, b'{"id": 1}', b'{"id": 2, "prompt": 3}',
           b'{"id": 3, "prompt": "a", "temperature": "hot"}', b'{"id": 4, "prompt": "a", "top_p": 7}', b'{"id": 5, "prompt": "a", "stop": 5}',
           b'{"id": 6, "prompt": "a", "colour": 1}', b'{"load": "runs/none"}', b'{"stop": "nobody"}', b'{"id": {}, "prompt": "", "probs": {}}']
    lines = chat_lines(trained, [*bad, b'{"load": "runs/a"}', json.dumps(ask).encode(),
                                 json.dumps({**ask, "id": "y", "probs": True, "stop": None, "top_k": 3}).encode()])
    assert lines[0]["kind"] == "ready" and lines[0]["level"] == "char" and lines[0]["block_size"] == 16
    assert [line["kind"] for line in lines].count("ready") == 2
    errors = [line for line in lines if line["kind"] == "error"]
    assert len(errors) == len(bad) - 2 and all(e["message"] for e in errors) and [e["id"] for e in errors if e["id"]] == [1, 2, 3, 4, 5, 6]
    x, y = ([line for line in lines if line.get("id") == name] for name in "xy")
    assert [line["kind"] for line in x] == ["piece"] * 5 + ["done"] and x[-1]["reason"] == "length" and x[-1]["tokens"] == 5
    assert [line["text"] for line in x[:-1]] == [line["text"] for line in y[:-1]]
    assert x[-1]["tokens_per_s"] > 0 and x[-1]["context_used"] == 8 and "prob" not in x[0]
    assert all(0 <= line["prob"] <= 1 and len(line["alternatives"]) == 5 and line["alternatives"][0][0] == line["text"] for line in y[:-1])


def test_chat_jsonl_obeys_a_stop_between_two_tokens(trained):
    chat = subprocess.Popen([sys.executable, str(GPT), "chat", "--jsonl"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=trained)
    def tell(**request):
        chat.stdin.write(json.dumps(request).encode() + b"\n")
        chat.stdin.flush()
    def hear():
        return json.loads(chat.stdout.readline())
    assert hear()["kind"] == "ready"
    tell(id=1, prompt="The ", max_new_tokens=10 ** 9)
    assert hear()["kind"] == "piece"
    tell(id=2, prompt="A", max_new_tokens=2)
    tell(stop=1)
    while (line := hear())["kind"] == "piece":
        assert line["id"] == 1
    assert line["kind"] == "done" and line["id"] == 1 and line["reason"] == "cancelled"
    assert [hear()["kind"] for _ in range(3)] == ["piece", "piece", "done"]
    assert chat.communicate(timeout=30)[0] == b"" and chat.returncode == 0


def test_eval_is_the_loss_of_every_token(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    it = gpt.load("runs/a")
    text = Path("story.txt").read_text()
    text = text[int(0.9 * len(text)):]
    ids = torch.from_numpy(it.tokenizer.encode(text).astype(np.int64))
    def evaluated(*words):
        gpt.eval_command(gpt.command_line(["eval", "runs/a", "--json", *words])[1])
        return json.loads(capsys.readouterr().out)
    def loss(first, start, end):                              # of the tokens start..end, seen from first on
        with torch.no_grad():
            logits = it.model(ids[None, first:end - 1])[0]
        return torch.nn.functional.cross_entropy(logits[start - first - 1:], ids[start:end], reduction="sum").item()
    n, T = len(ids), 16
    plain = evaluated()
    assert plain["tokens"] == n and plain["scored"] == n - 1 and plain["window"] == plain["stride"] == T
    assert plain["loss"] == pytest.approx(sum(loss(i, i + 1, min(i + T + 1, n)) for i in range(0, n - 1, T)) / (n - 1), rel=1e-5)
    assert plain["bits_per_byte"] == pytest.approx(plain["loss"] / math.log(2) * n / len(text.encode()))
    assert plain["word_perplexity"] == pytest.approx(math.exp(plain["loss"] * n / len(text.split())))
    assert plain["loss"] == pytest.approx(min(line["val_loss"] for line in log("runs/a") if line["kind"] == "eval"), rel=1e-4)
    slide = evaluated("--stride", "4")
    total = loss(0, 1, T + 1) + sum(loss(i, i + T - 3, min(i + T + 1, n)) for i in range(4, n - 1, 4) if i + T - 3 < n)
    assert slide["scored"] == n - 1 and slide["loss"] == pytest.approx(total / (n - 1), rel=1e-5)


def test_eval_by_rows(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    Path("rows.txt").write_text("one row of it\n\n   \n" * 40)
    gpt.eval_command(gpt.command_line("eval --data rows.txt --split test --rows --json".split())[1])
    found = json.loads(capsys.readouterr().out)
    assert found["tokens"] == 40 * 14 and found["windows"] == 40 * 14 // 17 and found["scored"] == 16 * found["windows"]


def test_eval_of_a_folder(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    it = gpt.load("runs/a")
    text = Path("story.txt").read_text()[:3000]
    folder = Path("folder")
    folder.mkdir()
    for split in ("train", "val"):
        it.tokenizer.encode(text).astype("<u2").tofile(folder / f"{split}.bin")
    meta = {"level": "char", "dtype": "uint16", "tokenizer": it.tokenizer.state, "train_tokens": 3000, "val_tokens": 3000,
            "val_bytes": len(text.encode())}
    (folder / "meta.json").write_text(json.dumps(meta))
    gpt.eval_command(gpt.command_line("eval --data folder --json".split())[1])
    assert json.loads(capsys.readouterr().out)["tokens"] == 3000
    for change, told in (({}, "test"), ({"tokenizer": {"level": "char", "characters": "ab"}}, "another tokenizer")):
        (folder / "meta.json").write_text(json.dumps({**meta, **change}))
        with pytest.raises(gpt.Problem, match=told):
            gpt.eval_command(gpt.command_line(["eval", "--data", "folder", *(["--split", "test"] if not change else [])])[1])


def test_runs(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    for name, lines in {"b": ['{"kind": "start", "time": 1, "config": {"train": {"preset": "tiny", "level": "word"}}}',
                              '{"kind": "eval", "time": 2, "step": 5, "val_loss": 0.5}', '{"kind": "eval", "step": 6, "val_loss": null}',
                              "rubbish", "[1]", '{"kind": "st'], "c": []}.items():
        Path("runs", name).mkdir()
        Path("runs", name, "metrics.jsonl").write_text("\n".join(lines))
    os.utime("runs/b/metrics.jsonl", (1e9, 1e9))
    try:
        gpt.runs_command({"json": "true", "sort": "best"})
        rows = json.loads(capsys.readouterr().out)
        assert [row["run"] for row in rows] == ["b", "a", "c"]
        assert [row["state"] for row in rows] == ["crashed", "done", "running"] and rows[0]["best"] == 0.5 and rows[0]["at"] == 5
        assert rows[1]["steps"] == 20 and rows[1]["weights"] == gpt.load("runs/a").model.wpe.weight.numel() + sum(
            w.numel() for n, w in gpt.load("runs/a").model.named_parameters() if n != "wpe.weight")
        gpt.runs_command({})
        table = capsys.readouterr().out.splitlines()
        assert len(table) == 4 and table[0].split()[:4] == ["run", "preset", "level", "data"]
    finally:
        shutil.rmtree("runs/b"), shutil.rmtree("runs/c")


def test_plot(trained, tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError('none')")
    done = shell("plot", "runs/a", cwd=trained, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1 and done.stderr.startswith("error: pip install matplotlib")
    pytest.importorskip("matplotlib")
    for out in ("loss.svg", "loss.png", "loss.pdf"):
        done = shell("plot", "runs/a", "runs/a", "--out", out, cwd=trained, env={"MPLBACKEND": "agg"})
        assert done.returncode == 0, done.stderr
        assert (trained / out).stat().st_size > 5000
    assert "million tokens" in re.sub(r"<!--|-->", "", (trained / "loss.svg").read_text())


# ---- the README ---------------------------------------------------------------------------------------------------------

README = (HERE / "README.md").read_text(encoding="utf-8")
SAID = [shlex.split(c, comments=True) for c in re.findall(r"(?:^|`)((?:python|torchrun \S+) gpt\.py .*?)(?:`|$)", README, re.M)]


def test_the_readme_asks_for_what_there_is():
    assert len(SAID) > 15
    for words in SAID:
        words = words[words.index("gpt.py") + 1:]
        if "NAME" not in words and "--help" not in words:
            command, asked = gpt.command_line(words)
            if command == "train" and "resume" not in asked:
                gpt.configure(asked)
    for name in gpt.load_presets():
        assert name in README


def test_the_commands_of_the_readme_run(tmp_path):
    (tmp_path / "my.txt").write_text("My own text, again and again. " * 200)
    (tmp_path / "letter.txt").write_text("My own")
    small = {"--max_iters": 2, "--eval_tokens": 300, "--sample_tokens": 3, "--batch_size": 2, "--threads": 1, "--dtype": "float32"}
    train = [*itertools.chain(*small.items())]
    for preset, level in (("nano", "word"), ("nano", "char")):
        done = shell("train", "--preset", preset, "--level", level, *train, "--data", "builtin",
                     "--out_dir", f"runs/{preset}-{level}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    done = shell("train", "--preset", "laptop", *train, "--data", "my.txt", cwd=tmp_path)
    assert done.returncode == 0 and "laptop-char-my" in done.stdout, done.stderr
    commands = re.search(r"## Sample, chat, evaluate\n\n```sh\n(.*?)```", README, re.S)[1].splitlines()
    for command in commands:
        words = shlex.split(command, comments=True)[2:]
        if words[0] not in ("chat", "bench", "plot"):
            done = shell(*words, cwd=tmp_path)
            assert done.returncode == 0, (command, done.stderr)
    done = shell("train", "--resume", *train[:1], 3, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_ci_types_what_the_readme_says():
    ci = (HERE / ".ci" / "run").read_text()
    assert len(re.findall(r"^pip install .* pytest.* && python -m pytest", README, re.M)) == 1
    assert "grep -m 1 '^pip install .* pytest' README.md" in ci and "torch==" in ci


def test_presets_with_changes_for_a_program():
    told = json.loads(shell("presets", "--json", "--preset", "nano", "--level", "char", "--n_layer", 8, "--n_embd=96").stdout)
    assert list(told["presets"]) == ["nano"] and told["presets"]["nano"]["char"]["n_layer"] == 8
    shape = gpt.ModelConfig(n_layer=8, n_embd=96, vocab_size=gpt.TYPICAL_VOCABULARY["char"])
    assert told["presets"]["nano"]["char"]["parameters"] == gpt.count_parameters(shape)


def test_a_bare_switch_does_not_swallow_the_next_word():
    assert gpt.command_line(["chat", "--jsonl", "runs/a"])[1] == {"jsonl": "true", "run": ["runs/a"]}
    assert gpt.command_line(["train", "--colab-drive", "--bias", "false"])[1] == {"colab_drive": "true", "bias": "false"}
