"""The promises of convert.py, held against the real packages: transformers, tokenizers, gguf, llama.cpp.

Everything here works without a network: a repository of Hugging Face is a server on this machine."""

import base64
import contextlib
import functools
import http.server
import importlib.util
import inspect
import itertools
import json
import os
import pickle
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import types
import unicodedata
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import convert
import data
import gpt
from conftest import until

SHAPE = dict(n_layer=2, n_head=2, n_embd=32, block_size=64)
STORY = gpt.read_text("builtin")[:30_000].replace("and", "añd").replace("not", "n“o”t")
needs_gguf = pytest.mark.skipif(not importlib.util.find_spec("gguf"), reason="needs: pip install gguf")
needs_llama = pytest.mark.skipif(not importlib.util.find_spec("xllamacpp"), reason="pip install xllamacpp")


@functools.lru_cache(maxsize=None)
def tokenizer_of(level):
    if level == "bpe":
        counts = Counter(re.findall(r" ?\w+|\s+|[^\s\w]+", STORY))
        tokens = data.merge_bytes(counts, 500)
        return gpt.BPETokenizer(" ".join(base64.b64encode(token).decode() for token in tokens))
    if level == "gpt2":
        try:
            return gpt.BPETokenizer.train("", None)
        except gpt.RunError:
            pytest.skip("GPT-2's tokens are neither here nor to be had without network")
    return gpt.TOKENIZERS[level].train(STORY, gpt.TrainConfig())


def make_run(folder, level="char", **changes):
    "A model with random weights, large enough for clear choices, as a run."
    tokenizer = tokenizer_of(level)
    config = gpt.ModelConfig(**{**SHAPE, **changes})
    config.vocab_size = tokenizer.vocab_size
    torch.manual_seed(7)
    model = gpt.GPT(config)
    for w in model.parameters():
        w.data = torch.randn(w.shape) * (0.15 if w.ndim == 2 else 0.05) + (w.data.mean() > 0.5)
    model.wte.weight.data[0] = model.wte.weight.data.mean(0)  # as of a trained one: never the likeliest
    train_config = {**vars(gpt.TrainConfig()), "level": tokenizer.state["level"]}
    gpt.save_checkpoint(Path(folder) / "best.pt", {
        "version": gpt.CHECKPOINT_VERSION, "model": model.state_dict(), "model_config": vars(config),
        "train_config": train_config, "tokenizer": tokenizer.state,
        "progress": {"best_val_loss": 2.5, "best_step": 300, "step": 300}})
    return str(folder)


def export(run, to, out, **more):
    convert.export_command({"run": [str(run)], "to": to, "out": str(out), **more})
    return Path(out)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    "exported(level) -> the run's folder, and its export for Hugging Face"
    place = tmp_path_factory.mktemp("exported")

    @functools.lru_cache(maxsize=None)
    def make(level):
        run = make_run(place / level, level)
        return run, export(run, "hf", place / f"{level}-hf")

    return make


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no-cache"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setattr(data, "PATIENCE", 0)
    return tmp_path


def one_line(source, *words):
    "The mistake is told in one line that has these words."
    with pytest.raises(gpt.UserError) as told:
        convert.checkpoint_from(str(source))
    message = str(told.value)
    assert "\n" not in message and len(message) < 500, message
    for word in words:
        assert word in message, message


def same_weights(checkpoint, run):
    ours = gpt.load_checkpoint(Path(run) / "best.pt")["model"]
    assert checkpoint["model"].keys() == ours.keys()
    for name, w in ours.items():
        assert torch.equal(checkpoint["model"][name], w), name


# ---- out, to Hugging Face: the same ids, the same logits, the same text ------------------------------------

LEVELS = ["char", "bpe", "word"]
PIECES = [" ", "  ", "\n", "\n\n", " \n \n", "\t", "the", " The", "'s", "’s", "it's", "don't", "well-known",
          "1,000.50", "2024", "--", "-", "...", "_", "“", '"', "'", "aaa", "ñ", "n\u0303", "\x1c", " x", "¼",
          "ß", "<|", "é", "漢字", "🙂"]


def texts():
    "Any characters, and runs of what tokenizers stumble over. No surrogates: a Rust string has none."
    anything = st.text(st.characters(codec="utf-8"), max_size=40)
    return st.one_of(anything, st.lists(st.sampled_from(PIECES), max_size=30).map("".join))


def check_ids(exported, level, examples):
    from transformers import AutoTokenizer
    run, folder = exported(level)
    theirs, ours = AutoTokenizer.from_pretrained(folder), tokenizer_of(level)

    @settings(max_examples=examples, deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))
    @given(texts())
    def same(text):
        if level == "word" and any(c == "Σ" or unicodedata.category(c) == "Cn" for c in text):
            return                                            # a Greek word's end; another year's Unicode
        ids = ours.encode(text)
        assert theirs(text)["input_ids"] == ids
        if level != "word":
            assert theirs.decode(ids) == ours.decode(ids)

    same()


@pytest.mark.parametrize("level", LEVELS)
def test_their_tokenizer_gives_our_ids(exported, level):
    check_ids(exported, level, 300)


@pytest.mark.slow
@pytest.mark.parametrize("level", [*LEVELS, "gpt2"])
def test_their_tokenizer_gives_our_ids_on_1000_texts(exported, level):
    check_ids(exported, level, 1000)


@pytest.mark.parametrize("level", LEVELS)
def test_logits_and_greedy_text_are_the_same_in_transformers(exported, level):
    from transformers import GPT2LMHeadModel, pipeline
    run, folder = exported(level)
    lm = gpt.load(run, device="cpu")
    model = GPT2LMHeadModel.from_pretrained(folder)
    ids = torch.randint(lm.config.vocab_size, (2, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, lm.model(ids), atol=1e-5, rtol=1e-5)
    write = pipeline("text-generation", model=str(folder))
    prompt = "the value"
    theirs = write(prompt, do_sample=False, max_length=50, return_tensors=True)
    new = theirs[0]["generated_token_ids"][len(lm.encode(prompt)):]
    steps = gpt.generate(lm, lm.encode(prompt), gpt.sampling({"temperature": 0, "max_new_tokens": len(new)}))
    assert [i for (i,), *_ in steps] == new and len(new) > 20
    if level != "word":
        text = write(prompt, do_sample=False, max_length=50)[0]["generated_text"]
        assert text == prompt + lm.sample(prompt, temperature=0, max_new_tokens=len(new))


def test_words_come_out_spaced_and_in_lower_case(exported, capsys):
    from transformers import AutoTokenizer
    folder = exported("word")[1]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "the value, if any (that is: the object) -- is a list.\n\nthe name"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text.replace(" -- ", " <unk> ")
    assert "lower case" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("changes", [{"bias": False}, {"qkv_bias": False}])
def test_missing_biases_are_zero(place, changes):
    from transformers import GPT2LMHeadModel
    lm = gpt.load(make_run("run", **changes), device="cpu")
    model, told = GPT2LMHeadModel.from_pretrained(export("run", "hf", "out"), output_loading_info=True)
    assert not any(told.values()), told
    ids = torch.randint(lm.config.vocab_size, (1, 20))
    torch.testing.assert_close(model(ids).logits, lm.model(ids), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["f16", "bfloat16"])
def test_half_the_size(place, dtype):
    from safetensors.torch import load_file
    out = export(make_run("run"), "hf", "out", dtype=dtype)
    weights = load_file(out / "model.safetensors")            # by the package itself
    kind = torch.float16 if dtype == "f16" else torch.bfloat16
    assert {w.dtype for w in weights.values()} == {kind}
    assert (out / "model.safetensors").stat().st_size < 2.2 * gpt.num_parameters(gpt.load("run").model)
    back = convert.checkpoint_from("out")["model"]
    assert torch.equal(back["wpe.weight"], weights["transformer.wpe.weight"].float())


def test_the_files_of_an_export(exported):
    run, folder = exported("char")
    names = {path.name for path in folder.iterdir()}
    assert names == {"README.md", "config.json", "generation_config.json", "model.safetensors",
                     "tokenizer.json", "tokenizer_config.json"}
    config = json.loads((folder / "config.json").read_text())
    assert config["n_ctx"] == config["n_positions"] == 64 and config["bos_token_id"] is None
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["max_length"] == 64 and generation["top_k"] == 0  # transformers' own is 50
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "2.5000" in card and "300" in card and "python gpt.py train --preset nano --level char" in card
    assert 'model="char-hf")' in card                          # and not where this folder lies
    bpe = json.loads((exported("bpe")[1] / "config.json").read_text())
    assert bpe["eos_token_id"] == tokenizer_of("bpe").end_id


def test_a_card_tells_of_its_own_weights(place):
    "Of those that went on since the best ones no loss is known; and gpt.py may be a newer one by now."
    make_run("run")
    checkpoint = gpt.load_checkpoint(Path("run/best.pt"))
    checkpoint["progress"]["step"] = 400
    checkpoint["used"] = {"gpt": "0.0.9"}
    gpt.save_checkpoint(Path("run/latest.pt"), checkpoint)
    for to in "hf", "space":
        card = (export("run/latest.pt", to, to) / "README.md").read_text(encoding="utf-8")
        assert "| steps | 400 |" in card and "2.5000" not in card and "by gpt.py 0.0.9:" in card
    app, lm = app_of(Path("space")), gpt.load(Path("space/best.pt"), device="cpu")
    assert "loss" not in app.model_line(lm, gpt.load_checkpoint(Path("space/best.pt"))["progress"])


@pytest.mark.parametrize("asked, told", [
    ({"preset": "tiny", "epochs": 5, "max_minutes": 9}, {"--epochs 5", "--max_minutes 9"}),
    ({"preset": "tiny", "max_minutes": 9, "max_iters": 1300}, {"--max_minutes 9", "--max_iters 1300"}),
    ({"preset": "nano", "max_iters": 1400}, set()),
])
def test_the_command_of_a_card_names_all_limits(asked, told):
    asked = {"preset": "nano", "level": "char", "data": "builtin", **asked}
    model, config = gpt.configure(asked)
    run = convert.Run.__new__(convert.Run)
    run.checkpoint = {"model_config": vars(model), "train_config": vars(config)}
    command = run.command()
    assert all(flag in command.replace(".0", "") for flag in told)
    words = command.split()[3:]
    again = {word[2:]: value for word, value in zip(words[::2], words[1::2])}
    limits = [{name: vars(c)[name] for name in gpt.LIMITS} for c in (config, gpt.configure(again)[1])]
    assert limits[0] == limits[1]


def test_the_command_of_a_card_names_what_a_rule_chose():
    presets = gpt.load_presets()
    model, config = gpt.configure({**gpt.recipe(presets, "nano", "char"), "dropout": 0.0})
    config.preset = "auto"
    run = convert.Run.__new__(convert.Run)
    run.checkpoint = {"model_config": vars(model), "train_config": vars(config)}
    for name in "n_layer", "n_head", "n_embd", "block_size", "batch_size", "learning_rate", "dropout":
        assert f"--{name} {({**vars(model), **vars(config)})[name]}" in run.command()


# ---- in: what comes from elsewhere -------------------------------------------------------------------------

@pytest.mark.parametrize("level", LEVELS)
def test_there_and_back(exported, level):
    run, folder = exported(level)
    back = convert.checkpoint_from(str(folder))
    same_weights(back, run)
    assert back["tokenizer"] == tokenizer_of(level).state
    assert back["train_config"]["level"] == level
    assert convert.checkpoint_from(str(folder / "model.safetensors"))["model"].keys() == back["model"].keys()
    same_weights(convert.checkpoint_from(run), run)
    same_weights(convert.checkpoint_from(f"{run}/best.pt"), run)


def their_model(folder, **changes):
    "A random GPT-2 as transformers saves it, with the tokens of an export of ours."
    from transformers import GPT2Config, GPT2LMHeadModel
    vocab_size = tokenizer_of("bpe").vocab_size
    config = GPT2Config(n_layer=2, n_head=2, n_embd=32, n_positions=64, vocab_size=vocab_size, **changes)
    torch.manual_seed(3)
    model = GPT2LMHeadModel(config).eval()
    for w in model.parameters():
        w.data += torch.randn(w.shape) * 0.05
    model.save_pretrained(folder)
    out = Path(folder)
    convert.write_tokenizer(tokenizer_of("bpe"), 64, out)
    return model


def check_logits(model, source):
    lm = gpt.LM(*gpt.model_of(convert.checkpoint_from(str(source)), source))
    ids = torch.randint(lm.config.vocab_size, (2, 64))
    with torch.no_grad():
        torch.testing.assert_close(lm.model(ids), model(ids).logits, atol=1e-5, rtol=1e-5)


def test_a_folder_of_transformers(place):
    model = their_model("theirs")
    check_logits(model, "theirs")
    model.save_pretrained("shards", max_shard_size="40KB")    # and one in several files
    assert len(list(Path("shards").glob("*.safetensors"))) > 2
    convert.write_tokenizer(tokenizer_of("bpe"), 64, Path("shards"))
    check_logits(model, "shards")


def test_pytorch_model_bin_and_the_two_old_token_files(place):
    model = their_model("theirs")
    Path("theirs/model.safetensors").unlink()
    torch.save(model.state_dict(), "theirs/pytorch_model.bin")
    made = json.loads(Path("theirs/tokenizer.json").read_text(encoding="utf-8"))["model"]
    Path("theirs/tokenizer.json").unlink()
    Path("theirs/vocab.json").write_text(json.dumps(made["vocab"]))
    lines = ["#version: 0.2", *[" ".join(pair) for pair in made["merges"]], ""]
    Path("theirs/merges.txt").write_text("\n".join(lines), encoding="utf-8")
    check_logits(model, "theirs")
    assert convert.checkpoint_from("theirs")["tokenizer"] == tokenizer_of("bpe").state


def test_old_buffers_are_left_out_and_padded_rows_cut(place):
    their_model("theirs")
    weights = convert.read_safetensors(Path("theirs/model.safetensors"))
    n = len(weights["transformer.wte.weight"])
    weights["transformer.wte.weight"] = torch.cat([weights["transformer.wte.weight"], torch.zeros(7, 32)])
    weights["transformer.h.0.attn.bias"] = torch.ones(1, 1, 64, 64)
    weights["transformer.h.0.attn.masked_bias"] = torch.ones(1)
    convert.write_safetensors(Path("theirs/model.safetensors"), weights, "float32")
    checkpoint = convert.checkpoint_from("theirs")
    assert len(checkpoint["model"]["wte.weight"]) == n
    assert not [name for name in checkpoint["model"] if "masked" in name]
    Path("theirs/model.safetensors").unlink()
    weights["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)  # without dimensions, as once
    torch.save(weights, "theirs/pytorch_model.bin")
    assert convert.checkpoint_from("theirs")["model"].keys() == checkpoint["model"].keys()


def test_the_tokenizer_of_openai_names_no_type(place):
    "The tokenizer.json of gpt2 on the hub is of a time when they all were BPE."
    their_model("theirs")
    path = Path("theirs/tokenizer.json")
    theirs = json.loads(path.read_text(encoding="utf-8"))
    assert theirs["model"].pop("type") == "BPE"
    path.write_text(json.dumps(theirs), encoding="utf-8")
    assert convert.checkpoint_from("theirs")["tokenizer"] == tokenizer_of("bpe").state


def test_an_export_tells_nobody_where_things_lay(tmp_path):
    for source, told in (
        ("/home/me/diary.txt", "diary.txt"),
        ("/home/me/diary/*.md", "*.md"),
        ("C:\\diaries\\mine.txt", "mine.txt"),
        ("../../runs/tiny", "tiny"),
        ("shakespeare", "shakespeare"),
        ("hf:owner/name", "hf:owner/name"),
        ("https://host/a.txt", "https://host/a.txt"),
    ):
        assert convert.without_folder(source) == told
    run = convert.Run.__new__(convert.Run)
    model, config = gpt.configure({"teacher": ["/home/me/runs/a", "runs/b"], "data": "/home/me/diary.txt"})
    run.checkpoint = {"model_config": vars(model), "train_config": vars(config)}
    command = run.command()
    assert command.endswith("--level char --data diary.txt --teacher a --teacher b")


@pytest.mark.parametrize("source,told", [
    ("https://me:word@host:80/a.jsonl?signature=1#x", "https://host:80/a.jsonl"),
    ("file:///home/me/diary.jsonl", "diary.jsonl"),
    ("https://host/a.txt", "https://host/a.txt"),
])
def test_no_password_is_published(source, told):
    assert convert.without_folder(source) == told


def test_files_of_two_revisions_are_not_mixed(place, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(place / "hub"))
    snapshots = place / "hub" / "models--owner--name" / "snapshots"
    for revision, name in (("aaa", "model.safetensors"), ("bbb", "config.json")):
        (snapshots / revision).mkdir(parents=True)
        (snapshots / revision / name).touch()
    asked = []
    monkeypatch.setattr(gpt.other_file("data"), "download", lambda url: asked.append(url) or "fetched")
    find = convert.hub_finder("owner/name")
    assert find("model.safetensors").parent.name == "aaa"
    assert find("config.json") == "fetched" and asked[0].endswith("owner/name/resolve/aaa/config.json")


def test_words_of_one_letter_are_words(place):
    tokenizer = gpt.WordTokenizer.train("A C G T A C G T C C A " * 9, gpt.TrainConfig())
    convert.write_tokenizer(tokenizer, 16, place)
    back = convert.read_tokenizer(lambda name: place / name if (place / name).exists() else None, "x")
    assert back.state == tokenizer.state


def test_of_two_snapshots_in_the_cache_the_newest_revision_is_read(place, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(place / "hub"))
    repo = place / "hub" / "models--owner--name"
    for revision in ("aaa", "bbb", "ccc"):
        (repo / "snapshots" / revision).mkdir(parents=True)
        (repo / "snapshots" / revision / "config.json").write_text(revision)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("bbb\n")

    def offline(url):
        raise gpt.RunError("no network")

    monkeypatch.setattr(gpt.other_file("data"), "download", offline)
    with pytest.raises(gpt.RunError, match="no network"):  # without weights there is more to fetch
        convert.hub_finder("owner/name")("model.safetensors")
    (repo / "snapshots" / "bbb" / "pytorch_model.bin").touch()
    find = convert.hub_finder("owner/name")
    assert find("config.json").read_text() == "bbb"
    assert find("model.safetensors") is None  # so pytorch_model.bin is asked for, without a network


# ---- in: a repository, over a network that breaks off ------------------------------------------------------

class Hub(http.server.BaseHTTPRequestHandler):
    "Serves a folder as OWNER/NAME; breaks off the first transfer of the weights in the middle."

    def do_GET(self):
        owner, name, kind, _, file = self.path.strip("/").split("/")
        path = Path(self.server.folder, file)
        if kind != "resolve" or not path.exists():
            return self.send_error(404)
        body = path.read_bytes()
        begin = 0
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked:
            begin = int(asked[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - begin))
        self.send_header("ETag", '"one"')
        self.end_headers()
        self.server.asked.append((file, begin))
        end = len(body)
        if file.endswith("safetensors") and begin == 0:
            end //= 2
        self.wfile.write(body[begin:end])

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(place, monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.folder, server.asked = "theirs", []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(convert, "HUB", f"http://127.0.0.1:{server.server_port}/")
    yield server
    server.shutdown()
    server.server_close()


def test_a_repository_comes_whole_though_the_connection_breaks(hub):
    check_logits(their_model("theirs"), "hf:owner/name")
    begins = [begin for file, begin in hub.asked if file == "model.safetensors"]
    assert len(begins) == 2 and begins[1] > 0                 # it went on from where it had broken off
    before = len(hub.asked)
    convert.checkpoint_from("hf:owner/name")
    assert len(hub.asked) == before                           # what is here is not fetched again
    convert.checkpoint_from("gpt2")                           # openai-community's
    assert len(hub.asked) > before


def test_what_a_repository_lacks(hub):
    one_line("hf:owner/name", "hf:owner/name", "config.json")
    their_model("theirs")
    Path("theirs/tokenizer.json").unlink()
    one_line("hf:owner/name", "tokenizer.json")
    one_line("hf:", "hf:OWNER/NAME")
    one_line("hf:../../x", "hf:OWNER/NAME")


def test_no_network_is_one_line(place, monkeypatch):
    monkeypatch.setattr(convert, "HUB", "http://127.0.0.1:9/")
    one_line("gpt2", "can't fetch")


def test_hugging_faces_cache_is_used(place, monkeypatch):
    monkeypatch.setattr(convert, "HUB", "http://127.0.0.1:9/")
    for name in ("owner--name", "gpt2"):
        folder = place / "no-cache" / "hub" / f"models--{name}" / "snapshots" / "abc"
        folder.mkdir(parents=True)
        model = their_model(folder)
    check_logits(model, "hf:owner/name")
    check_logits(model, "gpt2")


# ---- in: nanoGPT -------------------------------------------------------------------------------------------

def nanogpt(path, characters=65, prefix="_orig_mod.", bias=False, **more):
    "A checkpoint as its train.py writes it, and its model's logits, by its own formulas."
    args = dict(n_layer=2, n_head=2, n_embd=32, block_size=32, bias=bias, vocab_size=characters, dropout=0.0)
    config = gpt.ModelConfig(n_layer=2, n_head=2, n_embd=32, block_size=32, bias=bias)
    config.vocab_size = characters
    torch.manual_seed(5)
    model = gpt.GPT(config)
    state = {}
    for name, w in model.state_dict().items():
        w = w + 0.1 * torch.randn(w.shape)
        model.get_parameter(name).data = w
        state[f"{prefix}transformer.{name}"] = w.T if name.endswith(convert.TRANSPOSED) else w
    state[f"{prefix}lm_head.weight"] = state[f"{prefix}transformer.wte.weight"]
    Path(path).parent.mkdir(exist_ok=True, parents=True)
    torch.save({"model": state, "optimizer": {"state": {}}, "model_args": args, "iter_num": 10,
                "best_val_loss": torch.tensor(1.5), "config": {"dataset": "abc", **more}}, path)
    return model


def meta(path, characters):
    path.parent.mkdir(exist_ok=True, parents=True)
    stoi = {c: i for i, c in enumerate(characters)}
    itos = {i: c for i, c in enumerate(characters)}
    with open(path, "wb") as file:
        pickle.dump({"vocab_size": len(characters), "itos": itos, "stoi": stoi}, file)


CHARACTERS = "".join(sorted({*map(chr, range(33, 96)), "\n", "é"}))


@pytest.mark.parametrize("where", ["out/meta.pkl", "data/abc/meta.pkl"])
@pytest.mark.parametrize("prefix,bias", [("_orig_mod.", False), ("", True)])
def test_nanogpt(place, where, prefix, bias):
    theirs = nanogpt("out/ckpt.pt", len(CHARACTERS), prefix, bias)
    meta(place / where, CHARACTERS)
    for source in ("out/ckpt.pt", "out"):
        checkpoint = convert.checkpoint_from(source)
        model, tokenizer = gpt.model_of(checkpoint, source)
        ids = tokenizer.encode("HELLO\n")
        assert [i - 1 for i in ids] == [CHARACTERS.index(c) for c in "HELLO\n"]
        logits = model(torch.tensor([ids]))[..., 1:]          # our id 0 is one that theirs has not
        torch.testing.assert_close(logits, theirs(torch.tensor([ids]) - 1), atol=1e-5, rtol=1e-5)


def test_nanogpt_without_its_characters(place):
    nanogpt("out/ckpt.pt")
    one_line("out/ckpt.pt", "65 characters", "data/abc/meta.pkl")
    meta(place / "out" / "meta.pkl", "abc")
    one_line("out/ckpt.pt", "3 characters", "another text")


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def test_a_pickle_that_would_run_code_runs_none(place):
    nanogpt("out/ckpt.pt")
    Path("out/meta.pkl").write_bytes(pickle.dumps({"itos": Bomb()}))
    one_line("out/ckpt.pt", "meta.pkl")
    their_model("theirs")
    Path("theirs/model.safetensors").unlink()
    torch.save({"wte.weight": Bomb()}, "theirs/pytorch_model.bin")
    one_line("theirs", "would run code")
    torch.save({"model": Bomb(), "model_args": {}}, "out/ckpt.pt")
    one_line("out/ckpt.pt", "out/ckpt.pt")
    assert not Path("exploded").exists()
    pickle.loads(pickle.dumps(Bomb()))                        # it would have
    assert Path("exploded").exists()


def test_nanogpts_padded_vocabulary(place, monkeypatch):
    their_tokens = types.SimpleNamespace(vocab_size=50257, state={"level": "bpe"})
    monkeypatch.setattr(gpt.BPETokenizer, "train", lambda text, config: their_tokens)
    nanogpt("out/ckpt.pt", 50304)
    assert len(convert.checkpoint_from("out")["model"]["wte.weight"]) == 50257


# ---- in: what is broken, or lies ---------------------------------------------------------------------------

def spoil(path, change):
    "The safetensors file again, with its header changed."
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + length])
    change(header)
    words = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(words)) + words + raw[8 + length:])


WPE = "transformer.wpe.weight"
LIES = {
    "beyond": (lambda h: h[WPE].update(data_offsets=[10 ** 9, 10 ** 9 + 64 * 32 * 4]), "bytes"),
    "negative": (lambda h: h[WPE].update(data_offsets=[-8192, 0]), "bytes"),
    "overlap": (lambda h: h[WPE].update(data_offsets=[4, 4 + 64 * 32 * 4]), "overlaps"),
    "size": (lambda h: h[WPE].update(shape=[64, 33]), "bytes are no F32"),
    "huge": (lambda h: h[WPE].update(shape=[2 ** 40, 2 ** 40]), "bytes are no F32"),
    "dtype": (lambda h: h[WPE].update(dtype="F4", shape=[8192]), "F4"),
    "text": (lambda h: h[WPE].update(shape="abc"), "safetensors"),
    "none": (lambda h: h.update({WPE: None}), "safetensors"),
    "absent": (lambda h: h.pop(WPE), "lacks the tensor wpe.weight"),
    "stranger": (lambda h: h.update({"extra.weight": h.pop(WPE)}), "wpe.weight"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_header(exported, place, lie):
    shutil.copytree(exported("char")[1], "bad")
    change, word = LIES[lie]
    spoil(Path("bad/model.safetensors"), change)
    one_line("bad", word)


@pytest.mark.parametrize("length,header", [(10 ** 10, b"{}"), (2 ** 64 - 1, b"{}"), (2, b"{}"), (2, b"[]"),
                                           (4, b"\xff\xff{}"), (60_000, b"[" * 60_000), (1, b"")])
def test_a_broken_file(exported, place, length, header):
    shutil.copytree(exported("char")[1], "bad")
    Path("bad/model.safetensors").write_bytes(struct.pack("<Q", length) + header)
    one_line("bad")
    Path("bad/model.safetensors").write_bytes(header[:7])
    one_line("bad")


@pytest.mark.parametrize("name,value", [
    ("model_type", "llama"), ("n_embd", 33), ("n_embd", None), ("n_layer", "two"), ("n_layer", -1),
    ("n_head", 10 ** 12), ("n_head", 0), ("activation_function", "relu"), ("layer_norm_epsilon", 1e-6),
    ("activation_function", ["gelu_new"]), ("n_inner", 99), ("scale_attn_by_inverse_layer_idx", True),
    ("n_positions", 65), ("n_positions", 10 ** 15)])
def test_another_configuration(exported, place, name, value):
    shutil.copytree(exported("char")[1], "bad")
    config = json.loads(Path("bad/config.json").read_text())
    Path("bad/config.json").write_text(json.dumps({**config, name: value}))
    if name == "model_type":
        one_line("bad", "is a llama", "gpt2")
    else:
        one_line("bad")


@pytest.mark.parametrize("file,text", [
    ("config.json", "{"), ("config.json", "[]"), ("tokenizer.json", "{}"),
    ("tokenizer.json", '{"model": {}}'),
    ("tokenizer.json", '{"model": {"type": "BPE", "vocab": {}, "merges": []}}'),
    ("tokenizer.json", '{"model": {"type": "WordLevel", "vocab": {"a": 1}}}'),
    ("tokenizer.json", '{"model": {"type": "WordLevel", "vocab": {"a": "b"}}}'),
    ("tokenizer.json", '{"model": {"type": "WordLevel", "vocab": {"<unk>": 0, "ab": 1}}}'),
    ("tokenizer.json", '{"model": {"type": "Unigram"}}'), ("tokenizer.json", '{"model": 5}')])
def test_another_tokenizer(exported, place, file, text):
    shutil.copytree(exported("char")[1], "bad")
    Path("bad", file).write_text(text)
    one_line("bad", file)


def test_tokens_that_bpe_by_ranks_cannot_have(place):
    their_model("theirs")
    path = Path("theirs/tokenizer.json")
    good = json.loads(path.read_text(encoding="utf-8"))

    def spoiled(change, word):
        made = json.loads(json.dumps(good))
        change(made)
        path.write_text(json.dumps(made))
        one_line("theirs", word)

    spoiled(lambda made: made["model"]["merges"].reverse(), "order of its merges")
    pad = {"content": "<pad>", "id": 500}
    spoiled(lambda made: made["added_tokens"].append(pad), "the last of its tokens")
    spoiled(lambda made: made["pre_tokenizer"].update(add_prefix_space=True), "not as GPT-2 does")
    spoiled(lambda made: made.update(pre_tokenizer={"type": "Whitespace"}), "Whitespace")
    spoiled(lambda made: made["model"]["vocab"].pop("Ġ"), "tokenizer.json")


@pytest.mark.parametrize("value", [[], {"wte.weight": 5}, {5: torch.ones(3)}, {"wte.weight": torch.ones(())},
                                   {"wte.weight": torch.ones(500, 32).to_sparse()}, torch.ones(3)])
def test_weights_that_are_none(place, value):
    their_model("theirs")
    Path("theirs/model.safetensors").unlink()
    torch.save(value, "theirs/pytorch_model.bin")
    one_line("theirs")
    shape = dict(n_layer=1, n_head=1, n_embd=4, block_size=4)
    torch.save({"model": value, "model_args": shape}, "ckpt.pt")
    one_line("ckpt.pt")


def test_flipped_bits_raise_one_line_or_give_other_weights(exported, place):
    shutil.copytree(exported("bpe")[1], "bad")
    nanogpt("out/ckpt.pt", len(CHARACTERS))
    meta(place / "out" / "meta.pkl", CHARACTERS)
    draw = random.Random(1)
    for source, file in (("bad", "bad/model.safetensors"), ("bad", "bad/tokenizer.json"),
                         ("bad", "bad/config.json"), ("out", "out/ckpt.pt"), ("out", "out/meta.pkl")):
        good = Path(file).read_bytes()
        for _ in range(40):
            raw = bytearray(good)
            raw[draw.randrange(min(len(raw), 3000))] ^= 1 << draw.randrange(8)
            Path(file).write_bytes(raw[:draw.choice([None, None, draw.randrange(len(raw))])])
            with contextlib.suppress(gpt.UserError):
                convert.checkpoint_from(source)
        Path(file).write_bytes(good)


def test_a_head_of_its_own(place):
    their_model("theirs")
    path = Path("theirs/model.safetensors")
    weights = convert.read_safetensors(path)
    weights["lm_head.weight"] = weights["transformer.wte.weight"].clone()
    convert.write_safetensors(path, weights, "float32")
    convert.checkpoint_from("theirs")                         # the same table once more is none
    weights["lm_head.weight"][0] += 1
    convert.write_safetensors(path, weights, "float32")
    one_line("theirs", "head of its own")


def test_an_index_may_not_name_files_elsewhere(place):
    their_model("theirs")
    Path("theirs/model.safetensors").rename("secret.safetensors")
    index = Path("theirs/model.safetensors.index.json")
    for name, word in (("../secret.safetensors", "no name of a shard"), ("absent", "lacks the shard")):
        index.write_text(json.dumps({"weight_map": {"wte.weight": name}}))
        one_line("theirs", word)
    index.write_text("{}")
    one_line("theirs", "weight_map")


# ---- out: whole folders, and mistakes ----------------------------------------------------------------------

def refused(asked, *words):
    with pytest.raises(gpt.UserError) as told:
        convert.export_command(asked)
    for word in words:
        assert word in str(told.value)
    assert "\n" not in str(told.value)


def test_mistakes_of_an_export(place):
    run = make_run("run")
    refused({"run": [run], "to": "onnx"}, "--to")
    refused({"run": [run]}, "--out")
    refused({"run": [run], "to": "hf", "out": "out", "dtype": "q8_0"}, "q8_0", "gguf")
    refused({"run": [run], "to": "hf", "out": "out", "push": "name"}, "OWNER/NAME")
    refused({"run": ["nowhere"], "to": "hf", "out": "out"}, "nowhere")
    refused({"run": [run, run], "to": "hf", "out": "out"}, "one RUN")
    assert [path.name for path in place.iterdir()] == ["run"]
    Path("full").mkdir()
    Path("full/file").touch()
    refused({"run": [run], "to": "hf", "out": "full"}, "there already")
    Path("empty").mkdir()
    assert len(list(export(run, "hf", "empty").iterdir())) == 6


def test_nothing_half_written_stays(place, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    run = make_run("run")
    monkeypatch.setattr(convert, "write_tokenizer", full)
    with pytest.raises(OSError):
        export(run, "hf", "deep/out")
    assert not list(Path("deep").iterdir())


def test_push(place, monkeypatch):
    real = pytest.importorskip("huggingface_hub")
    create_repo, upload_folder = real.create_repo, real.upload_folder  # it imports them when they are asked for
    calls = []
    hub = types.SimpleNamespace(
        create_repo=lambda *args, **more: calls.append((args, more)),
        upload_folder=lambda **more: calls.append(more) or "https://there")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    out = export(make_run("run"), "hf", "out", push="me/model")
    assert calls[0] == (("me/model",), {"repo_type": "model", "exist_ok": True})
    assert calls[1]["folder_path"] == str(out)
    out = export("run", "space", "space", push="me/page")
    assert calls[2] == (("me/page",), {"repo_type": "space", "exist_ok": True, "space_sdk": "gradio"})
    assert calls[3] == {"repo_id": "me/page", "repo_type": "space", "folder_path": str(out)}
    for args, named in calls[::2]:                            # as the package itself has them
        inspect.signature(create_repo).bind(*args, **named)
    for named in calls[1::2]:
        inspect.signature(upload_folder).bind(**named)
    hub.upload_folder = lambda **more: 1 / 0
    refused({"run": ["run"], "to": "hf", "out": "again", "push": "me/model"}, "not uploaded")
    assert Path("again").exists()


def test_the_flags(capsys):
    parser = gpt.Parser()
    convert.add_flags(parser)
    asked = parser.parse(["runs/a", "--to", "gguf", "--out", "x", "--dtype", "q8_0", "--push", "a/b"])
    assert asked == {"run": ["runs/a"], "to": "gguf", "out": "x", "dtype": "q8_0", "push": "a/b"}


# ---- out: GGUF ---------------------------------------------------------------------------------------------

@needs_gguf
@pytest.mark.parametrize("level", ["char", "bpe"])
@pytest.mark.parametrize("dtype", ["float32", "f16", "bf16", "q8_0"])
def test_gguf(place, level, dtype):
    import gguf
    out = export(make_run("run", level), "gguf", "out", dtype=dtype)
    lines = (out / "Modelfile").read_text()
    assert "num_ctx 64" in lines and "{{ .Prompt }}" in lines
    reader = gguf.GGUFReader(out / "model.gguf")
    ids = {}
    for name in ("bos", "eos", "unknown"):
        ids[name] = reader.fields[f"tokenizer.ggml.{name}_token_id"].contents()
    assert set(ids.values()) == {tokenizer_of(level).end_id or 0}
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    state = gpt.load_checkpoint(Path("run/best.pt"))["model"]
    fc = tensors["blk.1.ffn_up.weight"]
    numbers = torch.from_numpy(gguf.dequantize(fc.data, fc.tensor_type).copy())
    torch.testing.assert_close(numbers.T, state["h.1.mlp.c_fc.weight"], atol=4e-3, rtol=1e-2)
    assert tensors["output.weight"].data.shape == tensors["token_embd.weight"].data.shape


@needs_gguf
def test_what_llama_cannot_have_is_one_line(place, monkeypatch):
    refused({"run": [make_run("run", "word")], "to": "gguf", "out": "out"}, "--to hf")
    make_run("run")
    checkpoint = gpt.load_checkpoint(Path("run/best.pt"))
    for character in "\u2581\ud800":
        changed = checkpoint["tokenizer"]["characters"][:-1] + character
        gpt.save_checkpoint(Path("run/best.pt"), {**checkpoint, "tokenizer": {"level": "char",
                                                                              "characters": changed}})
        refused({"run": ["run"], "to": "gguf", "out": "out"}, "llama.cpp", "--to hf")
    refused({"run": ["run"], "to": "hf", "out": "out"}, "surrogate")
    monkeypatch.setitem(sys.modules, "gguf", None)
    make_run("other")
    refused({"run": ["other"], "to": "gguf", "out": "out"}, "pip install gguf")
    assert not Path("out").exists() and not list(place.glob("*.part"))


def llama(path):
    import xllamacpp
    asked = xllamacpp.CommonParams()
    asked.model.path = str(path)
    asked.n_ctx = 128
    asked.cache_type_k = asked.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32    # not halved
    asked.n_parallel = 1
    asked.warmup = False
    asked.cpuparams.n_threads = 1
    return xllamacpp.Server(asked)


def clear_prompts(lm):
    """Prompts after which the likeliest token is 64 times clearly so: llama.cpp's GELU is a table of 16 bits,
    which decides a near tie otherwise. Random weights tie more often than trained ones."""
    options = gpt.sampling({"temperature": 0, "max_new_tokens": 64})
    for prompt in ("the value", "  añd\n\n“x” -- 'tis 100", *STORY.split()[:200]):
        gaps = []
        for _, logits, _ in gpt.generate(lm, lm.encode(prompt), options):
            first, second = logits[0].topk(2).values
            gaps.append(first - second)
        if len(gaps) == 64 and min(gaps) > 0.002:
            yield prompt


@pytest.mark.slow
@needs_gguf
@needs_llama
@pytest.mark.parametrize("level", ["char", "bpe", "gpt2"])
def test_llama_writes_the_same_64_tokens(place, level):
    lm = gpt.load(make_run("run", level, block_size=128), device="cpu")
    server = llama(export("run", "gguf", "out") / "model.gguf")
    prompts = list(itertools.islice(clear_prompts(lm), 5))
    assert len(prompts) == 5
    for prompt in prompts:
        asked = {"prompt": prompt, "n_predict": 64, "temperature": 0, "top_k": 1, "seed": 1}
        text = server.handle_completions(asked)["choices"][0]["text"]
        assert text == lm.sample(prompt, temperature=0, max_new_tokens=64)
    body = {"content": "\n".join(PIECES).replace("漢字", "漢")}
    request = urllib.request.Request(f"{server.listening_address}/tokenize", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        ids = json.load(answer)["tokens"]
    ours = lm.encode(body["content"])
    if level == "char":                                       # a run of unknowns is one there
        ours = [i for i, before in zip(ours, [1, *ours]) if i or before]
    assert ids == ours


# ---- out: a Space ------------------------------------------------------------------------------------------

def app_of(folder):
    "Its app.py, imported."
    spec = importlib.util.spec_from_file_location("app", folder / "app.py")
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    return app


WARM = dict(max_new_tokens=40, temperature=0.9, top_k=30, top_p=0.95, repetition_penalty=1.1, seed=3)


def test_the_files_of_a_space(place):
    from huggingface_hub import metadata_load
    out = export(make_run("run"), "space", "out")
    assert {path.name for path in out.iterdir()} == {"README.md", "app.py", "best.pt", "gpt.py",
                                                     "requirements.txt"}
    header = metadata_load(out / "README.md")                 # by the package itself
    assert header["title"] == "run" and header["license"] == "mit"
    assert header["sdk"] == "gradio" and header["sdk_version"] == convert.GRADIO
    assert (out / header["app_file"]).exists()
    colors = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}    # all that there are
    assert {header["colorFrom"], header["colorTo"]} <= colors and len(header["short_description"]) <= 60
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "2.5000" in card and "python gpt.py train --preset nano --level char" in card
    assert (out / "gpt.py").read_bytes() == Path(gpt.__file__).read_bytes()
    ours = (gpt.HERE / "requirements.txt").read_text().split()
    theirs = (out / "requirements.txt").read_text().split()
    assert theirs.pop() == f"gradio=={convert.GRADIO}"
    assert theirs == [line for line in ours if line.startswith(("torch", "numpy", "tiktoken"))]
    assert f'"gradio=={convert.GRADIO}"' in (gpt.HERE / "pyproject.toml").read_text(encoding="utf-8")


def test_what_a_space_says_of_its_training_names_no_folder(place):
    Path("secret").mkdir()
    Path("secret/diary.txt").touch()
    make_run("run")
    checkpoint = gpt.load_checkpoint(Path("run/best.pt"))
    checkpoint["train_config"] |= {"data": str(place / "secret/diary.txt"), "out_dir": str(place / "secret")}
    gpt.save_checkpoint(Path("run/best.pt"), checkpoint)
    out = export("run", "space", "out")
    assert gpt.load(out).train_config == {"level": "char", "data": "diary.txt"}
    for path in out.iterdir():
        assert b"secret" not in path.read_bytes() or path.name == "gpt.py", path


@pytest.mark.parametrize("dtype", ["float32", "f16"])
@pytest.mark.parametrize("level", LEVELS)
def test_a_space_writes_what_sample_writes(place, monkeypatch, level, dtype):
    monkeypatch.setitem(sys.modules, "gradio", None)          # only the page needs it
    out = export(make_run("run", level), "space", "out", dtype=dtype)
    app, lm = app_of(out), gpt.load(out / "best.pt", device="cpu")
    if dtype == "float32":
        same_weights(gpt.load_checkpoint(out / "best.pt"), "run")
    prompt = "the value"
    shown = [text for text, status in app.write(lm, prompt, *WARM.values())]
    assert shown[0] == prompt and shown[-1] == prompt + lm.sample(prompt, **WARM)
    assert len(shown) > 20 and all(after.startswith(text) for text, after in zip(shown, shown[1:]))


def test_what_a_space_says(place):
    out = export(make_run("run"), "space", "out")
    app, lm = app_of(out), gpt.load(out / "best.pt", device="cpu")
    line = app.model_line(lm, gpt.load_checkpoint(out / "best.pt")["progress"])
    assert f"{gpt.num_parameters(lm.model):,} parameters" in line and "the last 64 characters" in line
    assert "2.5000 nats a character, at step 300" in line and "sherlock" in line
    assert "loss" not in app.model_line(lm, {})               # of weights from elsewhere
    assert "The " in app.known_examples(lm) and not [text for text in app.known_examples(lm) if "漢" in text]
    *_, (text, status) = app.write(lm, "漢", *WARM.values())
    assert re.fullmatch(r"40 tokens, [\d,]+ a second. It does not know 漢", status)
    (first, _), (text, status) = app.write(lm, "the", *{**WARM, "seed": 2 ** 63}.values())
    assert first == text == "the" and "--seed" in status


def test_two_visitors_of_a_space(place):
    out = export(make_run("run"), "space", "out")
    app, lm = app_of(out), gpt.load(out / "best.pt", device="cpu")
    one, other = app.write(lm, "the", *WARM.values()), app.write(lm, "a list", *WARM.values())
    for _ in range(11):
        text, status = next(one)
    for _ in range(4):
        next(other)
    assert status.startswith("10 tokens") and next(one)[1].startswith("11 tokens")
    assert text == "the" + lm.sample("the", **{**WARM, "max_new_tokens": 10})


def test_the_page_of_a_space(place, monkeypatch):
    gradio = pytest.importorskip("gradio")
    assert gradio.__version__ == convert.GRADIO, "another version than the one that is pinned"
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    out = export(make_run("run"), "space", "out")
    app, lm = app_of(out), gpt.load(out / "best.pt", device="cpu")
    config = app.page(lm, {}).get_config_file()
    sliders = {}
    for part in config["components"]:
        if part["type"] == "slider":
            p = part["props"]
            sliders[p["label"]] = (p["minimum"], p["value"], p["maximum"])
    usual = gpt.SampleConfig()
    assert sliders["Max tokens"] == (10, usual.max_new_tokens, 500)
    assert sliders["Temperature"] == (0.1, usual.temperature, 2)
    assert sliders.keys() == {"Max tokens", "Temperature", "Top-k", "Top-p", "Repetition penalty"}
    assert config["dependencies"][-1]["cancels"]              # Stop does
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(gpt.RunError, match="pip install gradio"):
        app.page(lm, {})


def test_without_its_page_one_line_says_so(place, monkeypatch):
    make_run("run")
    monkeypatch.setattr(gpt, "HERE", place)
    refused({"run": ["run"], "to": "space", "out": "out"}, "space.py beside gpt.py")
    refused({"run": ["run"], "to": "space", "out": "out", "dtype": "q8_0"}, "q8_0", "gguf")
    assert not Path("out").exists() and not list(place.glob("*.part"))


@contextlib.contextmanager
def running(folder):
    "`python app.py`, as its README says -> the process, and where its page is"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {**os.environ, "GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False"}
    process = subprocess.Popen([sys.executable, "app.py"], cwd=folder, env=env)
    address = f"http://localhost:{port}/"

    def answers():
        assert process.poll() is None, "it did not start"
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(address, timeout=10).status == 200

    try:
        until(answers, 90)
        yield process, address
    finally:
        process.terminate()
        process.wait(30)


def cpu_seconds(process):
    "How long it has used the processor."
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_a_space_in_a_browser(place, browser):
    pytest.importorskip("gradio")
    from selenium.webdriver import Keys
    run = make_run("run", n_layer=6, n_head=4, n_embd=256)    # large enough to be watched
    lm = gpt.load(run, dtype="auto")
    with running(export(run, "space", "out")) as (process, address):
        browser.get(address)

        def says(words):
            return words in browser.find_element("css selector", "body").text

        until(lambda: says("Stop") and says("Seed"), 20)      # the page is there, whole
        prompt, output = browser.find_elements("css selector", "textarea")
        buttons = {button.text: button for button in browser.find_elements("css selector", "button")}

        def shown():
            return output.get_property("value")

        def slider(name):
            return browser.find_element("css selector", f"[aria-label='range slider for {name}']")

        assert says("step 300") and says(f"{gpt.num_parameters(lm.model):,} parameters")
        # An example, then a text of one's own; a slider by its keys, to its left end and one up: 20 tokens.
        buttons["Once upon a time"].click()
        until(lambda: prompt.get_property("value") == "Once upon a time", 20)
        prompt.clear()
        prompt.send_keys("the value")
        slider("Max tokens").send_keys(Keys.HOME, Keys.RIGHT)
        buttons["Write"].click()
        until(lambda: says("20 tokens"), 20)
        command = [sys.executable, "gpt.py", "sample", "best.pt", "--prompt=the value", "--max_new_tokens=20"]
        told = subprocess.run(command, cwd="out", capture_output=True, encoding="utf-8")
        assert shown() == told.stdout.removesuffix("\n")
        assert shown() == "the value" + lm.sample("the value", max_new_tokens=20)
        # All that it can: it streams.
        slider("Max tokens").send_keys(Keys.END)
        slider("Top-k").send_keys(Keys.HOME, Keys.RIGHT)      # of the likeliest one: greedy
        before = shown()
        buttons["Write"].click()
        lengths = set()

        def grown():
            if shown() != before:
                lengths.add(len(shown()))
            return len(lengths) > 5

        until(grown, 20)
        # Stop: the text stands still, and so does the model.
        buttons["Stop"].click()
        time.sleep(1)
        text, used = shown(), cpu_seconds(process)
        time.sleep(1)
        assert shown() == text and cpu_seconds(process) - used < 0.3
        greedy = "the value" + lm.sample("the value", temperature=0, max_new_tokens=len(text))
        assert 9 < len(text) < 400 and greedy.startswith(text)
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
