"""Tests of data.py. Nothing here needs a network. `-m slow` runs what takes minutes: a text of 1 GB."""

import ast
import bz2
import contextlib
import csv
import gzip
import hashlib
import io
import json
import lzma
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import gpt  # first, so that data.py takes this one and not only its upper half
import data

try:
    import resource
except ImportError:  # Windows
    resource = None

needs_signals = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
needs_limits = pytest.mark.skipif(resource is None, reason="Windows has no such limits")

HERE = Path(__file__).resolve().parent
TOPICS = gpt.read_text("builtin")
TEXT = TOPICS[:60_000]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "TOKENIZER", None)
    monkeypatch.setattr(data, "PATIENCE", 0.01)
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path


def make(*words):
    return data.prepare(data.command_line([str(word) for word in words]))


def bytes_of(folder):
    return {name: (Path(folder) / name).read_bytes() for name in ("train.bin", "val.bin")}


def meta_of(folder):
    return json.loads((folder / "meta.json").read_text())


def texts(folder):
    corpus = gpt.open_corpus(folder, gpt.TrainConfig(level=meta_of(folder)["level"]), 1)
    return [corpus.tokenizer.decode(ids) for ids in (corpus.train, corpus.val)]


def whole(folder):
    "The text, put together again."
    return "".join(texts(folder))


def python(code, **settings):
    "Runs code in a Python of its own."
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, **settings)


def run(*words, **settings):
    "data.py as a person starts it."
    command = [sys.executable, str(HERE / "data.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, **settings)


def fails(*words, told="", status=2):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), pytest.raises(SystemExit) as end, gpt.errors_told():
        make(*words)
    said = said.getvalue()
    assert end.value.code == status, said
    assert said.startswith("error: ")
    assert said.count("\n") == 1, said
    assert told in said


# ---- what comes out ----------------------------------------------------------------------------------------


def test_a_folder_has_what_the_design_says(place):
    Path("book.txt").write_text(TEXT, encoding="utf-8")
    folder = make("book.txt", "--level", "char", "--val-fraction", "0.25")
    meta = meta_of(folder)
    assert folder == Path("data/book-char")
    assert sorted(os.listdir(folder)) == ["meta.json", "train.bin", "val.bin"]
    assert (meta["level"], meta["dtype"], meta["source"]) == ("char", "uint16", "book.txt")
    assert meta["vocab_size"] == len(set(TEXT)) + 1
    assert (meta["train_tokens"], meta["val_tokens"]) == (45_000, 15_000)
    assert meta["train_bytes"] == len(TEXT[:45_000].encode())
    assert meta["val_bytes"] == len(TEXT[45_000:].encode())
    assert meta["sha256"] == hashlib.sha256(TEXT.encode()).hexdigest()


def test_the_last_line_names_the_folder(place):
    Path("book.txt").write_text(TEXT)
    for what in ("is ready", "is already here"):
        done = run("book.txt", "--level", "word", "--min_freq", "5")
        assert done.returncode == 0, done
        ready, following, last = done.stdout.splitlines()
        assert last == str(Path("data/book-word5"))
        assert ready.startswith(f"{last} {what}: ")
        assert following == f"next: python gpt.py train --data {last} --level word"


@pytest.mark.parametrize("level", ["char", "word", "bpe"])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_as_in_memory(level, workers, place, monkeypatch):
    monkeypatch.setattr(data, "CHUNK", 1000)  # so that there are many
    monkeypatch.setattr(data, "SMALL", 1000)  # so that processes are used
    text = TEXT.replace("\n\n\n", "\n \n").replace("e.g.", '"e.g." ‘é’ \x1c\x85 日本語。')
    Path("t.txt").write_text(f"\ufeff{text} \n", encoding="utf-8", newline="\r\n")
    words = ["t.txt", "--level", level, "--workers", workers]
    if level == "bpe":
        words += ["--vocab_size", 400]
    folder = make(*words)
    config = gpt.TrainConfig(level=level)
    ours = gpt.open_corpus(folder, config, 16)
    if level == "bpe":  # in memory there is GPT-2's only
        monkeypatch.setattr(gpt.BPETokenizer, "train", lambda text, config: ours.tokenizer)
    theirs = gpt.open_corpus("t.txt", config, 16)
    assert ours.tokenizer.state == theirs.tokenizer.state
    assert ours.val_bytes == theirs.val_bytes
    assert np.array_equal(ours.train, theirs.train)
    assert np.array_equal(ours.val, theirs.val)


def test_gpt2(place):
    try:
        import tiktoken

        tiktoken.get_encoding("gpt2")
    except Exception:
        pytest.skip("GPT-2's tokens are not here, and neither is a network")
    Path("t.txt").write_text(TEXT)
    ours = gpt.open_corpus(make("t.txt", "--level", "bpe"), gpt.TrainConfig(level="bpe"), 16)
    assert ours.tokenizer.vocab_size == 50257
    assert list(ours.val) == tiktoken.get_encoding("gpt2").encode_ordinary(TEXT[54_000:])


WORDS = st.text("aZ1é'’\"“.,-_!日\x1c\u0300", min_size=1, max_size=4)
GAPS = st.sampled_from([" ", "\n", "  ", "\n\n", " \n ", "\n \n", "\t", "\u2003", "\0", " \0"])
TRAINED = data.learn_bpe([TEXT], 400)


@given(st.lists(st.text("abcdefghäz", min_size=2, max_size=30), min_size=3, max_size=12), st.integers(257, 280))
@settings(max_examples=100, deadline=None)
def test_a_bpe_merges_the_commonest_pair_again_and_again(pieces, size):
    "As if all pairs were counted anew after each merge, which would take long."
    counts = Counter(pieces)
    split = {piece: [bytes([byte]) for byte in piece.encode()] for piece in counts}
    for token in data.merge_bytes(counts, size)[256:]:
        pairs = Counter()
        for piece, parts in split.items():
            for pair in zip(parts, parts[1:]):
                pairs[pair] += counts[piece]
        commonest = [pair for pair, n in pairs.items() if n == max(pairs.values())]
        assert token in {first + second for first, second in commonest}
        if len(commonest) > 1:
            return  # which of them is merged first can't be told from the tokens alone
        for piece, parts in split.items():
            split[piece] = data.merge(parts, commonest[0], token)


@given(st.lists(st.tuples(WORDS, GAPS), min_size=1, max_size=60), st.integers(16, 40))
@settings(max_examples=300, deadline=None)
def test_where_a_chunk_ends_changes_no_token(pairs, size):
    text = "".join(word + gap for word, gap in pairs)
    pieces = []
    kept = text
    while len(kept) >= size:
        safe = data.SAFE.match(kept, 0, size)
        if not safe:
            break
        pieces.append(kept[: safe.end()])
        kept = kept[safe.end() :]
    pieces.append(kept)
    words = gpt.WordTokenizer.from_counts(Counter(gpt.WordTokenizer.cut(text.replace("\0", "\n\n"))), 1)
    for data.TOKENIZER in (words, TRAINED):
        _, at_once, _, _ = data.encode(("train", text))
        assert b"".join(data.encode(("train", piece))[1] for piece in pieces) == at_once
    data.TOKENIZER = None


def test_own_bpe_is_lossless_and_used(place):
    Path("t.txt").write_text(TEXT)
    folder = make("t.txt", "--level=bpe", "--vocab_size=600")
    meta = meta_of(folder)
    assert folder == Path("data/t-bpe600")
    assert meta["vocab_size"] == 600
    assert whole(folder) == TEXT
    assert meta["train_tokens"] < 0.45 * len(TEXT)


def test_the_sample_is_spread_over_the_text():
    kept = data.Thinned(10)
    for i in range(1000):
        kept.add(i)
    assert 5 <= len(kept.items) <= 10
    assert len(set(np.diff(kept.items))) == 1
    assert kept.items[-1] > 800


def test_a_vocabulary_has_its_limit_in_memory(place, monkeypatch):
    Path("t.txt").write_text(TEXT + " ".join(f"once{i}" for i in range(2000)))
    before = texts(make("t.txt", "--level=word"))
    monkeypatch.setattr(data, "CHUNK", 4000)
    monkeypatch.setattr(data, "SPELLINGS", 3000)
    assert texts(make("t.txt", "--level=word", "--name=small"))[0][:2000] == before[0][:2000]


def test_most_of_a_text_for_validation(place):
    Path("t.txt").write_text(TEXT)
    train, val = texts(make("t.txt", "--val_fraction=0.8"))
    assert (len(train), len(val)) == (11_999, 48_001)  # as gpt.py rounds


SPAWNED = """
import multiprocessing, sys
sys.path.insert(0, {here!r})
import data
if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    multiprocessing.get_context = lambda method: spawn
    data.prepare(data.command_line(["t.txt", "--level=word", "--name=spawned"]))
"""


def test_workers_that_are_not_forked(place):
    "as on macOS and Windows"
    Path("t.txt").write_text(TEXT * 150)
    Path("start.py").write_text(SPAWNED.format(here=str(HERE)))
    done = subprocess.run([sys.executable, "start.py"], capture_output=True, text=True)
    assert done.returncode == 0, done
    assert done.stderr == ""
    assert bytes_of("data/spawned-word") == bytes_of(make("t.txt", "--level=word"))


def die(chunk):
    os._exit(9)


def test_a_worker_that_was_killed_is_told(place, monkeypatch):
    monkeypatch.setattr(data, "SMALL", 0)
    monkeypatch.setattr(data, "characters", die)
    Path("t.txt").write_text(TEXT)
    fails("t.txt", told="a worker process was killed, maybe for want of memory: try --workers 1", status=1)


def test_uint32_for_large_vocabularies():
    assert data.id_type(SimpleNamespace(vocab_size=65_535)) == np.uint16
    assert data.id_type(SimpleNamespace(vocab_size=65_536)) == np.uint32


# ---- where it comes from -----------------------------------------------------------------------------------

SUBJECTS = TOPICS.split()[:40]
DOCUMENTS = [f"Document {i} is about {it}.\nIt ends here: é 日本." for i, it in enumerate(SUBJECTS)]
JOINED = "\n\n".join(DOCUMENTS)


def as_csv(texts, field="text"):
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerows([["id", field], *([i, t] for i, t in enumerate(texts))])
    return out.getvalue().encode()


def as_jsonl(texts, field="text"):
    return "\n".join(json.dumps({"id": i, field: t}) for i, t in enumerate(texts)).encode()


def as_parquet(texts, field="text"):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    out = io.BytesIO()
    parquet.write_table(arrow.table({"id": list(range(len(texts))), field: texts}), out, row_group_size=7)
    return out.getvalue()


def as_zip(name, content):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/x", b"\0")
        archive.writestr("folder/" + name, content)
    return out.getvalue()


def as_zst(content):  # in two frames, as parallel packers write it
    zstd = pytest.importorskip("zstandard")
    half = len(content) // 2
    return zstd.compress(content[:half]) + zstd.compress(content[half:])


PACKERS = {"": lambda c: c, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": as_zst}
FORMATS = {
    ".csv": as_csv,
    ".jsonl": as_jsonl,
    ".parquet": as_parquet,
    ".txt": lambda texts: "\n\n".join(texts).encode(),
    ".md": lambda texts: "\n\n".join(texts).encode(),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("packed", [*PACKERS, ".zip", ".gz in .zip"])
def test_every_format_in_every_packing(kind, packed, place):
    content = FORMATS[kind](DOCUMENTS)
    name = f"d{kind}{packed}"
    if packed == ".zip":
        content = as_zip(f"d{kind}", content)
    elif packed == ".gz in .zip":
        name = "d.zip"
        content = as_zip(f"d{kind}.gz", gzip.compress(content))
    else:
        content = PACKERS[packed](content)
    Path(name).write_bytes(content)
    train, val = texts(make(name, "--name=d"))
    if kind in (".txt", ".md"):
        assert train + val == JOINED
    else:  # cut between two documents
        assert train + "\n\n" + val == JOINED
        assert val.startswith("Document 36 ")


def test_field(place):
    for kind in (".csv", ".jsonl", ".parquet"):
        file = f"{kind[1:]}{kind}"
        Path(file).write_bytes(FORMATS[kind](DOCUMENTS, "body"))
        assert "\n\n".join(texts(make(file, "--field", "body"))) == JOINED
        fails(file, told="has no field text: give --field, and of id, body")
        if kind != ".csv":  # where all is text
            fails(file, "--field=id", told="holds no text")


def test_documents_are_joined_by_end_of_text_or_blank_line(place):
    Path("d.jsonl").write_bytes(as_jsonl(["One.", "", None, "Two \ud83d\0.", "Three."] * 20))
    folder = make("d.jsonl", "--level=bpe", "--vocab_size=300")
    tokens = gpt.open_corpus(folder, gpt.TrainConfig(level="bpe"), 1)
    end = tokens.tokenizer.end_id
    assert np.sum(tokens.train == end) + np.sum(tokens.val == end) == 58  # of 60 documents, in two splits
    assert tokens.val[0] != end
    assert texts(folder)[1].replace("<|endoftext|>", "|") == "One.|Two ?.|Three.|One.|Two ?.|Three."
    assert texts(make("d.jsonl"))[1] == "One.\n\nTwo ?.\n\nThree.\n\nOne.\n\nTwo ?.\n\nThree."


def test_several_files_a_folder_and_a_glob(place):
    for name in ("b.md", "a.txt", "sub/c.txt", ".hidden.txt", ".git/e.txt", "picture.png", "sub/d.jsonl.gz"):
        Path("notes", name).parent.mkdir(parents=True, exist_ok=True)
        content = gzip.compress(as_jsonl([name * 9])) if "jsonl" in name else (name * 9).encode()
        Path("notes", name).write_bytes(content)
    a, b, c, d = ["a.txt" * 9, "b.md" * 9, "sub/c.txt" * 9, "sub/d.jsonl.gz" * 9]
    for sources, name, documents in (
        (["notes"], "notes", [a, b, c, d]),
        (["notes/*.??*"], "notes", [a, b]),
        (["notes/a.txt", "notes/b.md"], "notes", [a, b]),
        (["notes/a.txt", "notes/sub/c.txt"], "text", [a, c]),
        (["notes/**/*.txt", "--name", "all"], "all", [a, c]),
    ):
        if "??" in sources[0]:
            Path("notes/picture.png").unlink()  # a glob takes what it finds
        folder = make(*sources)
        assert folder == Path(f"data/{name}-char")
        assert re.sub("\n+", "", whole(folder)) == "".join(documents)


def test_standard_input(place):
    done = run("-", "--name", "logs", input="line of a log\n" * 50)
    assert done.returncode == 0, done
    folder = Path("data/logs-char")
    assert f"{folder} is ready: 630 tokens" in done.stdout
    assert whole(folder) == "line of a log\n" * 50
    assert not list(Path("data/raw").iterdir())
    Path("data/raw/stdin-logs-char.txt").write_text("what a kill has left")
    done = run("-", "--name", "logs", input="what comes the next day\n" * 50)  # is another text
    assert f"{folder} is ready" in done.stdout
    assert whole(folder) == "what comes the next day\n" * 50
    assert not list(Path("data/raw").iterdir())
    fails("-", "-", told="standard input, can be read only once")


def test_gutenberg_header_and_licence(place):
    story = "A SCANDAL IN BOHEMIA\n\nTo Sherlock Holmes she is always the woman.\n" * 9
    for start, end in (
        (
            "*** START OF THE PROJECT GUTENBERG EBOOK THE ADVENTURES OF SHERLOCK\nHOLMES ***",
            "*** END OF THE PROJECT GUTENBERG EBOOK THE ADVENTURES OF SHERLOCK\nHOLMES ***",
        ),
        (
            "***START OF THIS PROJECT GUTENBERG EBOOK SHERLOCK***",
            "*** END OF THIS PROJECT GUTENBERG EBOOK SHERLOCK ***",
        ),
    ):
        Path("b.txt").write_text(f"Title\n{start}\n\n\n{story}\n\n{end}\nLicence")
        assert whole(make("b.txt", "--strip_gutenberg")) == story.strip()
        assert "Licence" in whole(make("b.txt"))
    Path("c.txt").write_text(story)
    fails("c.txt", "--strip_gutenberg", told="leave --strip_gutenberg out")


def test_separator_and_a_validation_split_of_its_own(place, monkeypatch):
    stories = [f"Once there were {i} cats.\nThey slept." for i in range(30)]
    for split, part in (("train", stories[:25]), ("valid", stories[25:])):
        Path(f"{split}.txt").write_text("\n<|endoftext|>\n".join(part) + "\n<|endoftext|>\n")
    cats = data.Corpus("", "", ["train.txt"], ["valid.txt"], separator="<|endoftext|>")
    monkeypatch.setitem(data.CORPORA, "cats", cats)
    monkeypatch.setattr(data, "CHUNK", 50)  # shorter than what it looks for
    folder = make("cats", "--level=bpe", "--vocab_size=300")
    assert [text.split("<|endoftext|>") for text in texts(folder)] == [stories[:25], stories[25:]]


def test_a_separator_as_a_shell_hands_it_over(place):
    Path("poems.txt").write_text("\n\n".join(f"Poem {i}\nis short." for i in range(30)))
    folder = make("poems.txt", "--level=bpe", "--vocab_size=300", "--separator", r"\n\n")
    assert whole(folder).count("<|endoftext|>") == 28  # between 30; where validation begins stands none


def test_members_of_a_zip(place, monkeypatch):
    with zipfile.ZipFile("w.zip", "w") as archive:
        for name in ("train", "valid", "test"):
            archive.writestr(f"wiki/wiki.{name}.raw", f" = {name} = \n \n text of {name} \n" * 5)
    monkeypatch.setitem(data.CORPORA, "wiki", data.Corpus("", "", ["w.zip::*train*"], ["w.zip::*valid*"]))
    train, val = texts(make("wiki"))
    assert set(re.findall("train|valid|test", train)) == {"train"}
    assert set(re.findall("train|valid|test", val)) == {"valid"}


def test_pictures_in_a_zip_are_no_text(place):
    with zipfile.ZipFile("w.zip", "w") as archive:
        archive.writestr("a/one.TXT", "One text. " * 20)
        archive.writestr("a/.DS_Store", b"\0\xff" * 9)
        archive.writestr("a/cat.png", b"\x89PNG\xff")
    assert "".join(texts(make("w.zip"))) == "One text. " * 20
    with zipfile.ZipFile("8.zip", "w") as archive:
        archive.writestr("text8", "no suffix at all " * 20)
    assert "".join(texts(make("8.zip"))) == "no suffix at all " * 20


def test_suffixes_in_capitals(place):
    Path("books").mkdir()
    Path("books/A.TXT").write_text("A book. " * 20)
    Path("books/B.JSONL.GZ").write_bytes(gzip.compress(as_jsonl(["Another. " * 20])))
    assert texts(make("books"))[0].startswith("A book. A book.")
    assert data.kind_of("B.JSONL.GZ") == ".jsonl" and data.kind_of("a/b.Zip") == ".zip"
    train, val = texts(make("books"))
    assert "Another." in train + val and "{" not in train + val


def test_lines_end_alike_in_every_format(place):
    Path("d.jsonl").write_bytes(as_jsonl(["One\r\ntwo\rthree\n"] * 20))
    train, val = texts(make("d.jsonl"))
    assert "\r" not in train + val and train.startswith("One\ntwo\nthree\n\nOne")


def test_json_lines_in_another_encoding(place):
    Path("d.jsonl").write_bytes(as_jsonl(["caf\u00e9 " * 9] * 20).decode("unicode_escape").encode("cp1252"))
    train, _ = texts(make("d.jsonl", "--encoding=cp1252"))
    assert train.startswith("caf\u00e9 caf\u00e9")


def test_a_name_may_have_a_dot(place):
    Path("log.txt").write_text(TEXT)
    for year in (2024, 2025):
        assert make("log.txt", f"--name=logs.{year}").name == f"logs.{year}-char"
    assert make("log.txt").name == "log-char"


def test_another_text_of_the_same_name_replaces_nothing(place):
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "log.txt").write_text(f"{folder}: {TEXT}")
    made = make("a/log.txt")
    with pytest.raises(gpt.UserError, match="data/log-char holds another text, made from a/log.txt: .* --name NAME"):
        make("b/log.txt")
    assert texts(made)[0].startswith("a: ")
    assert texts(make("b/log.txt", "--name=log"))[0].startswith("b: ")  # asked for by name
    assert make(str(place / "b/log.txt")) == made


def test_gpt_reads_the_name_of_a_folder_whatever_the_code_page(place, monkeypatch):
    "As on Windows, where what is no terminal is written in an old one."
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    monkeypatch.setenv("PYTHONUTF8", "0")
    Path("\u65e5\u8a18.jsonl").write_bytes(as_jsonl(DOCUMENTS))
    config = gpt.TrainConfig(data="\u65e5\u8a18.jsonl")
    assert gpt.prepare(config, chosen=True) == str(Path("data/\u65e5\u8a18-char"))


def test_what_was_cut_is_made_again(place):
    Path("log.txt").write_text(TEXT)
    folder = make("log.txt")
    whole = (folder / "train.bin").read_bytes()
    (folder / "train.bin").write_bytes(whole[:-10])
    assert (make("log.txt") / "train.bin").read_bytes() == whole


def test_datasets_of_hugging_face(place, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(place / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    pytest.importorskip("datasets")
    Path("set").mkdir()
    Path("set/train.jsonl").write_bytes(as_jsonl(DOCUMENTS[:30], "body"))
    Path("set/validation.jsonl").write_bytes(as_jsonl(DOCUMENTS[30:], "body"))
    train, val = texts(make("hf:./set", "--field", "body"))
    assert train == "\n\n".join(DOCUMENTS[:30])
    assert val == "\n\n".join(DOCUMENTS[30:])
    assert "\n\n".join(texts(make("hf:./set:validation", "--field", "body"))) == "\n\n".join(DOCUMENTS[30:])
    with pytest.raises(gpt.UserError, match="has no field text"):
        make("hf:./set")
    with pytest.raises(gpt.UserError, match="hf:./nothing can't be read: .*"):
        make("hf:./nothing")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(gpt.UserError, match="pip install datasets"):
        make("hf:./set", "--name", "other")


@pytest.mark.parametrize("package,name", [("zstandard", "x.txt.zst"), ("pyarrow", "x.parquet")])
def test_a_missing_package_is_told(package, name, place, monkeypatch):
    if package == "zstandard" and sys.version_info >= (3, 14):
        pytest.skip("it comes with Python")
    Path(name).write_bytes(b"x")
    for module in (package, f"{package}.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(gpt.UserError, match=f"pip install {package}"):
        make(name)


def test_the_table_of_corpora(place):
    done = run("list")
    assert done.returncode == 0
    assert not done.stderr
    assert re.search(r"tinystories +2.3 GB +its own +CDLA-Sharing 1.0 +- +https://hugg", done.stdout)
    make("builtin", "--level=word")
    assert "builtin-word" in run("list").stdout
    for corpus in data.CORPORA.values():
        assert corpus.size and corpus.licence and corpus.train
        assert len(corpus.sha256) in (0, 64)


def test_the_list_for_programs(place):
    make("builtin", "--level=word")
    raw = data.raw_file(data.CORPORA["text8"].train[0])
    raw.parent.mkdir(parents=True)
    raw.write_bytes(b"")
    done = run("list", "--json")
    assert done.returncode == 0 and not done.stderr
    corpora = {corpus["name"]: corpus for corpus in json.loads(done.stdout)["corpora"]}
    assert list(corpora) == list(data.CORPORA)
    assert corpora["builtin"]["here"] == ["builtin-word"]
    assert corpora["text8"]["here"] == ["1 of 1 files"]
    assert corpora["wikitext2"] == {
        "name": "wikitext2",
        "size": "4.7 MB zip",
        "validation": "its own",
        "licence": "CC BY-SA 3.0",
        "here": [],
        "source": "https://wikitext.smerity.com/wikitext-2-raw-v1.zip",
    }


# ---- what can be wrong -------------------------------------------------------------------------------------


def test_mistakes_are_told_in_one_line(place):
    Path("a.txt").write_text("abc " * 99)
    Path("empty.txt").write_text("")
    Path("blank.jsonl").write_text("\n\n")
    Path("bad.jsonl").write_text('{"text": "a"}\n{"text": ')
    Path("list.jsonl").write_text("[1, 2]")
    Path("binary.txt").write_bytes(b"abc" * 99 + b"\0\1\2")
    Path("cut.txt.gz").write_bytes(gzip.compress(TEXT.encode())[:5000])
    Path("no.zip").write_bytes(b"PK no zip")
    Path("cp.txt").write_bytes("caf\u00e9 ".encode() * 70000 + "caf\u00e9".encode("cp1252"))
    Path("nothing").mkdir()
    for words, told, status in (
        (["sherlok"], "did you mean sherlock?", 2),
        (["a.txt", "--level", "bit"], "--level bit: there is char, ", 2),
        (["a.txt", "--val_fraction", "2"], "needs 0 < val_fraction < 1", 2),
        (["a.txt", "--wat"], "--wat", 2),
        (["nothing"], "nothing is a folder without any .txt", 2),
        ([""], "an empty SOURCE: give a file, ", 2),
        (["*.nope"], "no such file", 2),
        (["empty.txt"], "there is no text in it", 2),
        (["blank.jsonl"], "there is no text in it", 2),
        (["bad.jsonl"], "JSONDecodeError", 1),
        (["list.jsonl"], "row 1 has no field text", 2),
        (["binary.txt"], "not text: there is a zero byte", 2),
        (["cut.txt.gz"], "EOFError", 1),
        (["no.zip"], "BadZipFile", 1),
        (["a.txt", "--encoding=klingon"], "unknown encoding: klingon", 2),
        (["cp.txt"], "not utf-8: byte 0xe9 at offset 420,003; say how it is written, as --encoding cp1", 2),
        (["a.txt", "--json"], "--json is for the list", 2),
        (["://"], ":// is no address: expected something like https://host/text.txt", 2),
        (["http://[::1"], "http://[::1 is no address: Invalid IPv6 URL", 2),
        (["http://127.0.0.1:many/a.txt"], "nonnumeric port: 'many'", 1),
        (["http://host..name/a.txt"], "can't fetch http://host..name/a.txt: ", 1),
        (["http:///a.txt"], "no host given", 1),
        (["x" * 5000], "File name too long", 1),
    ):
        fails(*words, told=told, status=status)
    assert not list(Path("data").glob("*/meta.json"))
    done = run("sherlok")
    assert done.returncode == 2
    assert re.fullmatch("error: sherlok: no such file, .*\n", done.stderr), done


def test_flags_may_stand_anywhere(place):
    Path("a.txt").write_text("abc " * 99)
    Path("b.txt").write_text("def " * 99)
    options = data.command_line(["a.txt", "--val-fraction", "0.2", "--level=word", "b.txt"])
    assert options.sources == ["a.txt", "b.txt"]
    assert (options.val_fraction, options.level) == (0.2, "word")


def test_a_folder_that_changes_while_it_is_listed(place, monkeypatch):
    def rglob(folder, pattern):
        yield folder / "a.txt"
        raise FileNotFoundError(2, "No such file or directory", "notes/gone")

    Path("notes").mkdir()
    monkeypatch.setattr(Path, "rglob", rglob)
    fails("notes", told="notes can't be looked through: [Errno 2] No such file", status=1)


def test_other_encodings(place):
    text = "Ein Café in Zürich. " * 9
    Path("w.txt").write_bytes(text.encode("cp1252"))
    Path("u.txt").write_text(text, encoding="utf-16")
    assert whole(make("w.txt", "--encoding", "cp1252")) == text
    assert whole(make("u.txt", "--encoding", "utf-16")) == text
    assert whole(make("w.txt", "--errors=replace")) == re.sub("[éü]", "\ufffd", text)


@pytest.mark.parametrize("text", ["abcdefghi " * 10_000_000, "日本語" * 400_000])
def test_one_long_line(text, place):
    Path("line.txt").write_text(text, encoding="utf-8")
    folder = make("line.txt", "--level", "char")
    meta = meta_of(folder)
    assert meta["train_tokens"] + meta["val_tokens"] == len(text)
    assert meta["vocab_size"] == len(set(text[:30])) + 1
    if len(text) < 1e7:
        assert whole(make("line.txt", "--level=bpe", "--vocab_size=300")) == text


# ---- the same again, and interruptions ---------------------------------------------------------------------


def test_what_is_here_is_not_made_again(place, capsys):
    Path("a.txt").write_text(TEXT)
    made = make("a.txt")
    before = os.stat(made / "meta.json").st_mtime_ns
    make("a.txt", "--min_freq=7")  # has no meaning for characters
    assert "already here" in capsys.readouterr().out
    assert os.stat(made / "meta.json").st_mtime_ns == before
    make("a.txt", "--val_fraction=0.2")
    assert meta_of(made)["val_tokens"] == 12_000
    Path("a.txt").write_text(TEXT + "more")
    make("a.txt", "--val_fraction=0.2")
    assert whole(made).endswith("more")
    assert not list(Path("data").glob("*.old*"))


def test_files_of_others_stay(place):
    Path("a.txt").write_text(TEXT)
    mine = Path("data/a-char/mine.txt")
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    fails("a.txt", told="data/a-char is there, and data.py did not make it: give a --name")
    assert mine.read_text() == "precious"
    mine.unlink()
    made = make("a.txt")  # an empty folder is nobody's
    mine.write_text("precious")
    make("a.txt", "--val_fraction=0.2")
    assert meta_of(made)["val_tokens"] == 12_000
    kept, = Path("data").glob("a-char.old-*")
    assert [path.name for path in kept.iterdir()] == ["mine.txt"]


def test_what_was_made_of_the_first_files_is_taken(place, monkeypatch, capsys):
    "Training asks for a corpus by its name alone."
    for n in range(3):
        Path(f"{n}.txt").write_text(f"{n}" * 500)
    corpus = data.Corpus("1 kB", "", [str(place / f"{n}.txt") for n in range(3)])
    monkeypatch.setitem(data.CORPORA, "numbers", corpus)
    made = make("numbers", "--shards=2")
    capsys.readouterr()
    assert make("numbers") == made and "0" in whole(made) and "2" not in whole(made)
    said = capsys.readouterr()
    assert "has the first files of numbers; --shards 3 takes all" in said.err and "already here" in said.out
    make("numbers", "--val_fraction=0.2")  # something else is another text
    assert "2" in whole(made)


def test_shards_are_those_of_each_source(place, monkeypatch):
    for name in "abc":
        Path(f"{name}.txt").write_text(name * 500)
    monkeypatch.setitem(data.CORPORA, "letters", data.Corpus("1 kB", "", ["a.txt", "b.txt"]))
    text = whole(make("letters", "c.txt", "--shards=1"))
    assert "a" in text and "b" not in text and "c" in text


def test_the_separator_of_a_corpus_counts_also_behind_others(place, monkeypatch):
    Path("own.txt").write_text("mine " * 100)
    Path("tales.txt").write_text("one<|end|>two<|end|>" * 50)
    monkeypatch.setitem(data.CORPORA, "tales", data.Corpus("1 kB", "", ["tales.txt"], separator="<|end|>"))
    assert "<" not in whole(make("own.txt", "tales"))


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab-", max_size=40), st.sampled_from(["-", "--", "-a-"]), st.integers(1, 7))
def test_a_separator_may_lie_across_blocks(text, separator, size):
    blocks = [text[n:n + size] for n in range(0, len(text), size)]
    assert list(data.separated(blocks, separator)) == text.split(separator)


def test_an_address_may_be_long():
    address = "https://host/some/text.txt?signature=" + "0123456789" * 60
    assert data.find(address) == ([address], [])
    options = data.command_line([address])
    assert data.folder_of(options) == Path("data/text-char")
    assert gpt.other_file("recipes").files_of(address) == []
    chinese = data.raw_file("https://host/" + "\u4e2d" * 80 + ".txt")
    assert len(os.fsencode(chinese.name)) < 200 and chinese.suffix == ".txt"


def test_a_file_may_have_a_colon_in_its_name(place):
    Path("std::vector.txt").write_text(TEXT)
    assert "".join(data.documents("std::vector.txt", data.command_line(["x"]))).strip("\0") == TEXT


def test_a_copy_that_a_person_has_made_stays(place):
    Path("a.txt").write_text(TEXT)
    made = make("a.txt")
    mine = Path("data/a-char.old/mine.txt")
    mine.parent.mkdir()
    mine.touch()
    make("a.txt", "--val_fraction=0.2")
    assert mine.exists()
    assert meta_of(made)["val_tokens"] == 12_000


@pytest.mark.parametrize("what", ["save_json", "put_in_place"])
def test_an_error_at_the_very_end_costs_no_work(what, place, monkeypatch):
    Path("a.txt").write_text(TEXT)
    do = getattr(data, what)

    def fail(path, *more):
        if what == "put_in_place" or path.name == "meta.json":
            raise OSError(28, "No space left on device")
        do(path, *more)

    monkeypatch.setattr(data, what, fail)
    fails("a.txt", told="data/a-char.part can't be written: [Errno 28] No space", status=1)
    monkeypatch.setattr(data, what, do)
    monkeypatch.setattr(data, "survey", None)  # the text is measured once
    if what == "put_in_place":
        monkeypatch.setattr(data, "write", None)  # and encoded once
    folder = make("a.txt")
    assert whole(folder) == TEXT
    assert sorted(os.listdir(folder)) == ["meta.json", "train.bin", "val.bin"]


@pytest.mark.skipif(not data.fcntl, reason="there are no such locks")
def test_a_file_system_without_locks(place, monkeypatch):
    def flock(file, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(data.fcntl, "flock", flock)
    Path("a.txt").write_text(TEXT)
    assert whole(make("a.txt")) == TEXT


@pytest.mark.parametrize("source,told", [("a.txt", "goes on from here"), ("-", "standard input is gone")])
def test_ctrl_c_tells_what_the_same_command_would_do(source, told, monkeypatch, capsys):
    def stopped(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "prepare", stopped)
    with pytest.raises(SystemExit):
        data.main([source])
    assert told in capsys.readouterr().err


SLOWLY = """
import sys
sys.path.insert(0, {here!r})
import data
data.SAVE_EVERY = 0
data.prepare(data.command_line({words!r}))
"""


@needs_signals
@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_a_killed_encode_goes_on(how, place):
    Path("big.txt").write_text(" ".join(random.Random(1).choices(TEXT.split(" "), k=1_600_000)))
    words = ["big.txt", "--level", "word", "--workers", "2"]
    code = SLOWLY.format(here=str(HERE), words=words)
    silent = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-c", code], **silent)
    progress = Path("data/big-word.part/progress.json")
    while not progress.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(getattr(signal, how))
    process.communicate(timeout=60)  # the pipe ends with the last worker: none is left behind
    assert not Path("data/big-word").exists()
    assert data.load_json(progress)["chunks"] > 0
    with open("data/big-word.part/train.bin", "r+b") as file:  # a mark: what is done isn't done again
        file.write(b"\7\0\7\0")
    resumed = bytes_of(make(*words))
    assert resumed["train.bin"][:4] == b"\7\0\7\0"
    once = bytes_of(make(*words, "--name", "once"))
    assert resumed["train.bin"][4:] == once["train.bin"][4:]
    assert resumed["val.bin"] == once["val.bin"]


LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.argv = ["data.py", {source!r}]
runpy.run_path({program!r}, run_name="__main__")
"""


def run_on_a_full_disk(source, limit):
    "Files can't grow over so many bytes."
    return python(LIMITED.format(limit=limit, source=source, program=str(HERE / "data.py")))


@needs_limits
def test_a_full_disk_while_encoding(place):
    Path("big.txt").write_text(TEXT * 40)
    done = run_on_a_full_disk("big.txt", 1 << 20)
    assert done.returncode == 1, done
    assert re.fullmatch(r"error: data/big-char.part can't be written: .*\n", done.stderr), done
    assert not Path("data/big-char").exists()
    assert whole(make("big.txt")) == TEXT * 40


def test_two_at_once(place):
    Path("big.txt").write_text(TEXT * 100)
    command = [sys.executable, str(HERE / "data.py"), "big.txt", "--level=word"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert all(process.returncode == 0 for process in both)
    assert sorted("already here" in text for text in said) == [False, True]


# ---- downloads ---------------------------------------------------------------------------------------------

CONTENT = TEXT.encode()


class Handler(BaseHTTPRequestHandler):
    "A server with bad manners: what it does depends on the path."

    asked = Counter()  # how often each path
    seen = []  # path, first byte and headers of each request

    def log_message(self, *words):
        pass

    def reply(self, status, body=b"", length=None, **headers):
        if length is None:
            length = len(body)
        self.send_response(status)
        for name, value in {"Content-Length": length, **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def do_GET(self):
        path = self.path
        times = self.asked[path]
        self.asked[self.path] += 1
        start = int(re.findall(r"\d+", self.headers.get("Range", "0"))[0])
        self.seen.append((path, start, dict(self.headers)))
        rest = CONTENT[start:]
        tag = {"ETag": '"one"'}
        if start:
            tag["Content_Range"] = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        self.misbehave(path, times, start, rest, 206 if start else 200, tag)

    def trickle(self, status, rest, pause, tag):
        self.reply(status, length=len(rest), **tag)
        with contextlib.suppress(OSError):
            for i in range(0, len(rest), 1000):
                self.wfile.write(rest[i : i + 1000])
                time.sleep(pause)

    def misbehave(self, path, times, start, rest, status, tag):
        if "cut" in path:  # a third of the rest, then silence
            self.reply(status, rest[:25_000], length=len(rest), **tag)
        elif "stop" in path:  # always at the same place
            self.reply(200, CONTENT[:5000], length=len(CONTENT))
        elif "norange" in path:
            self.reply(200, CONTENT if times else CONTENT[:9000], length=len(CONTENT))
        elif "changed" in path and not times:
            self.reply(200, b"old" * 3000, length=len(CONTENT), ETag='"zero"')
        elif "changed" in path:
            assert self.headers["If-Range"] == '"zero"'
            self.reply(200, CONTENT, **{"ETag": '"one"'})
        elif "flaky" in path and times < 2:
            self.reply((500, 429)[times])
        elif "gone" in path:
            self.reply(404)
        elif "secret" in path:
            self.reply(200 if self.headers.get("Authorization") else 401, CONTENT)
        elif "moved" in path:
            self.reply(302, Location="/plain.txt")
        elif "less" in path and start:
            self.reply(416, Content_Range="bytes */10")
        elif "odd" in path:
            self.reply(200, CONTENT, length="abc")
        elif "beyond" in path and start >= len(CONTENT):
            self.reply(416, Content_Range=f"bytes */{len(CONTENT)}")
        elif "raw/pointer" in path:
            self.reply(200, b"version x\noid sha256:" + hashlib.sha256(CONTENT).hexdigest().encode() + b"\n")
        elif "raw/other" in path:
            self.reply(200, b"oid sha256:" + b"0" * 64)
        elif "slow" in path:
            self.trickle(status, rest, 0.01 if times else 0.05, tag)
        elif "chunked" in path:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENT)
        else:
            self.reply(status, rest, **tag)


@pytest.fixture
def server():
    Handler.asked.clear()
    Handler.seen.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


TRIES = [("plain", 1), ("cut", 3), ("norange", 2), ("changed", 2), ("flaky", 3), ("chunked", 1)]


@pytest.mark.parametrize("path,asked", TRIES)
def test_a_download_survives(path, asked, server, place):
    file = data.download(f"{server}/{path}.txt")
    assert file.read_bytes() == CONTENT
    assert Handler.asked[f"/{path}.txt"] == asked
    data.download(f"{server}/{path}.txt")  # from now on it is here
    assert Handler.asked[f"/{path}.txt"] == asked
    assert os.listdir("data/raw") == [file.name]
    if path == "cut":
        assert [start for _, start, _ in Handler.seen] == [0, 25_000, 50_000]


def test_redirects_and_a_text_by_its_address(server, place):
    assert whole(make(f"{server}/moved.txt?again=1")) == TEXT


def test_a_part_that_was_whole_or_too_much(server, place):
    for path, here in (("beyond", CONTENT), ("less", CONTENT[:99])):
        part = data.raw_file(f"{server}/{path}.txt")
        part.parent.mkdir(parents=True, exist_ok=True)
        part.with_name(part.name + ".part").write_bytes(here)
        assert data.download(f"{server}/{path}.txt").read_bytes() == CONTENT


def test_downloads_that_fail_are_told_in_one_line(server, place):
    for path, told in (
        ("gone", "404"),
        ("stop", "ended after 5,000 of 60,"),
        ("secret", "401"),
        ("odd", "the server says Content-Length: abc"),
    ):
        with pytest.raises(gpt.RunError, match=told) as problem:
            data.download(f"{server}/{path}.txt")
        assert "\n" not in str(problem.value)
    assert Handler.asked["/gone.txt"] == 1
    assert Handler.asked["/odd.txt"] == 1
    assert Handler.asked["/stop.txt"] == 6
    fails("http://127.0.0.1:9/x.txt", told="Connection refused", status=1)
    fails("ftp://127.0.0.1:9/x.txt", told="", status=1)


def test_checksums(server, place, monkeypatch):
    right = hashlib.sha256(CONTENT).hexdigest()
    data.download(f"{server}/a.txt", right)
    with pytest.raises(gpt.RunError, match="instead of 0000.* and was removed"):
        data.download(f"{server}/b.txt", "0" * 64)
    data.download(f"{server}/resolve/pointer.txt")  # as Hugging Face tells them
    with pytest.raises(gpt.RunError, match="instead of 0000"):
        data.download(f"{server}/resolve/other.txt")
    assert len(os.listdir("data/raw")) == 2
    assert data.download(f"{server}/b.txt", right).read_bytes() == CONTENT


def test_a_checksum_belongs_to_its_file(server, place, monkeypatch):
    book = data.Corpus("", "", [f"{server}/book.txt"], sha256="0" * 64)
    monkeypatch.setitem(data.CORPORA, "book", book)
    for words in (["book"], [f"{server}/a.txt", "book"], ["book", f"{server}/a.txt"]):
        fails(*words, told=f"{server}/book.txt came with sha256", status=1)
    assert whole(make(f"{server}/a.txt")) == TEXT


def test_an_edited_book_is_a_warning(server, place, monkeypatch, capsys):
    corpus = data.Corpus("", "", [f"{server}/book.txt"], edition=(12, "ab" * 32))
    monkeypatch.setitem(data.CORPORA, "book", corpus)
    make("book")
    assert re.search(r"note: book was edited by its publisher: 60,000 characters", capsys.readouterr().err)


def test_the_token_goes_to_its_own_host_only(server, place, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    data.download(f"{server}/plain.txt")
    assert "Authorization" not in Handler.seen[0][2]
    sent = []
    monkeypatch.setattr(data.urllib.request, "urlopen", lambda request, timeout: sent.append(request))
    data.ask("https://huggingface.co/datasets/a/b/resolve/main/x.txt", Range="bytes=1-")
    assert sent[0].unredirected_hdrs == {"Authorization": "Bearer hf_secret"}
    assert "Range" in sent[0].headers
    for address in ("http://huggingface.co/x.txt", "https://huggingface.co.evil.org/x.txt"):
        data.ask(address)
        assert not sent[-1].has_header("Authorization")
    monkeypatch.setenv("HF_TOKEN", "hf_secret\n")  # as an editor leaves it in a file
    data.ask("https://huggingface.co/x.txt")
    assert sent[-1].unredirected_hdrs == {"Authorization": "Bearer hf_secret"}


def test_proxy_variables(server, place, monkeypatch):
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", server)
    monkeypatch.setattr(data.urllib.request, "_opener", None)  # it has read the variables before
    assert data.download("http://text.invalid/x.txt").read_bytes() == CONTENT
    assert Handler.seen[0][0] == "http://text.invalid/x.txt"


@needs_signals
@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_a_killed_download_goes_on(how, server, place):
    url = f"{server}/slow.txt"
    command = [sys.executable, str(HERE / "data.py"), url]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    path = data.raw_file(url)
    while data.size_of(path.with_name(path.name + ".part")) < 5000:
        time.sleep(0.01)
    process.send_signal(getattr(signal, how))
    _, said = process.communicate()
    if how == "SIGINT":
        assert said == "\nstopped; the same command goes on from here\n"
        assert process.returncode == 130
    assert not path.exists()
    assert whole(make(url)) == TEXT
    _, start, _ = Handler.seen[-1]
    assert start >= 5000


@needs_limits
def test_a_full_disk_while_fetching(server, place):
    done = run_on_a_full_disk(f"{server}/x.txt", 20_000)
    assert done.returncode == 1, done
    assert re.fullmatch("error: can't fetch .*File too large.*\n", done.stderr), done
    assert data.download(f"{server}/x.txt").read_bytes() == CONTENT
    _, start, _ = Handler.seen[-1]
    assert start == 20_000


# ---- together with gpt.py ----------------------------------------------------------------------------------


TINY = "--n_layer=1 --n_head=1 --n_embd=8 --block_size=16 --max_iters=2 --eval_interval=2 --sample_tokens=4"


def test_gpt_prepares_what_it_needs(place):
    Path("book.txt").write_text(TEXT)
    command = [sys.executable, str(HERE / "gpt.py"), "train", "--data=book.txt", "--device=cpu"]
    command += ["--level=bpe", "--vocab_size=400", *TINY.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done
    assert Path("data/book-bpe400/meta.json").exists()


def test_the_upper_half_of_gpt_names_no_torch():
    upper, cut, lower = (HERE / "gpt.py").read_text(encoding="utf-8").partition("\nimport torch\n")
    assert cut, "gpt.py has no line `import torch`"
    assert "class GPT" in lower
    tree = ast.parse(upper)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"torch", "nn", "F", "dist"}
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert not [node for node in imports if "torch" in ast.unparse(node)]


UPPER_HALF = """
import sys
sys.path.insert(0, {here!r})
sys.modules["torch"] = None  # as if it were not installed
import data
print(data.gpt.HERE, data.gpt.LEVELS)
print("gpt" in sys.modules, hasattr(data.gpt, "GPT"), data.gpt.__name__ == "__main__")
print(data.command_line(["x", "--min_freq", "7"]).min_freq)
"""


def test_it_uses_the_upper_half_of_gpt_only(place):
    done = python(UPPER_HALF.format(here=str(HERE)))
    assert not done.stderr
    assert done.stdout.splitlines() == [f"{HERE} ('char', 'word', 'bpe')", "False False False", "7"]


def test_it_uses_gpt_where_that_is_imported():
    assert data.gpt is gpt


# ---- slow --------------------------------------------------------------------------------------------------


def memory(pid):
    "Of a process and its children, in MB: what they share counts once."
    total = 0
    with contextlib.suppress(OSError):
        total = int(re.search(r"Pss: +(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())[1]) / 1024
        for task in os.listdir(f"/proc/{pid}/task"):
            children = Path(f"/proc/{pid}/task/{task}/children").read_text()
            total += sum(memory(int(child)) for child in children.split())
    return total


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux tells the memory")
@pytest.mark.parametrize("level", [["char"], ["word"], ["bpe", "--vocab_size=4096"]])
def test_memory_stays_flat(level, place):
    rng = random.Random(1)
    size = 0
    with open("big.txt", "w") as file:
        while size < 1_000_000_000:
            for start in range(0, len(TOPICS), 400):
                new_word = "".join(rng.choices("etaoinshr", k=9))  # they come all the time, as in real text
                size += file.write(f"{TOPICS[start : start + 400]} {new_word} ")
    process = subprocess.Popen([sys.executable, str(HERE / "data.py"), "big.txt", "--level", *level])
    most = 0
    while process.poll() is None:
        most = max(most, memory(process.pid))
        time.sleep(0.2)
    os.unlink("big.txt")
    print(f"{level[0]}: {most:.0f} MB")
    assert process.returncode == 0
    assert most < 500
