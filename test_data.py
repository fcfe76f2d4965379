"""Tests of data.py: nothing here needs a network; SLOW=1 adds the file of 1 GB."""
import bz2, contextlib, gzip, hashlib, io, json, lzma, os, random, re, signal, subprocess, sys, threading, time, zipfile
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import gpt
import data

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
    return data.prepare(data.command_line([str(w) for w in words]))


def bytes_of(folder):
    return {name: (Path(folder) / name).read_bytes() for name in ("train.bin", "val.bin")}


def texts(folder):
    meta = json.loads((folder / "meta.json").read_text())
    corpus = gpt.open_corpus(folder, gpt.TrainConfig(level=meta["level"]), 1)
    return [corpus.tokenizer.decode(ids) for ids in (corpus.train, corpus.val)]


def run(*words, **kw):
    return subprocess.run([sys.executable, str(HERE / "data.py"), *map(str, words)], capture_output=True, text=True,
                          timeout=60, **kw)


def fails(*words, told="", status=2):
    with contextlib.redirect_stderr(io.StringIO()) as said, pytest.raises(SystemExit) as end, gpt.problems_told():
        make(*words)
    said = said.getvalue()
    assert end.value.code == status and said.count("\n") == 1 and said.startswith("error: ") and told in said, said


# ---- what comes out ----------------------------------------------------------------------------------------

def test_a_folder_has_what_the_design_says(place):
    Path("book.txt").write_text(TEXT, encoding="utf-8")
    folder = make("book.txt", "--level", "char", "--val-fraction", "0.25")
    meta = json.loads((folder / "meta.json").read_text())
    assert folder == Path("data/book-char") and sorted(os.listdir(folder)) == ["meta.json", "train.bin", "val.bin"]
    assert (meta["level"], meta["dtype"], meta["source"]) == ("char", "uint16", "book.txt")
    assert meta["vocab_size"] == len(set(TEXT)) + 1
    assert (meta["train_tokens"], meta["val_tokens"]) == (45_000, 15_000)
    assert (meta["train_bytes"], meta["val_bytes"]) == (len(TEXT[:45_000].encode()), len(TEXT[45_000:].encode()))
    assert meta["sha256"] == hashlib.sha256(TEXT.encode()).hexdigest()


@pytest.mark.parametrize("level", ["char", "word", "bpe"])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_as_in_memory(level, workers, place, monkeypatch):
    monkeypatch.setattr(data, "CHUNK", 1000)                   # so that processes are used, and many chunks
    text = "\ufeff" + TEXT.replace("\n\n\n", "\n \n").replace("e.g.", "\"e.g.\" ‘é’ \x1c\x85 日本語。") + " \n"
    Path("t.txt").write_text(text, encoding="utf-8", newline="\r\n")
    folder = make("t.txt", "--level", level, "--workers", workers, *["--vocab_size", 400] * (level == "bpe"))
    config = gpt.TrainConfig(level=level)
    ours = gpt.open_corpus(folder, config, 16)
    if level == "bpe":                                         # in memory there is GPT-2's only
        monkeypatch.setattr(gpt.BPETokenizer, "train", lambda text, config: ours.tokenizer)
    theirs = gpt.open_corpus("t.txt", config, 16)
    assert ours.tokenizer.state == theirs.tokenizer.state and ours.val_bytes == theirs.val_bytes
    assert np.array_equal(ours.train, theirs.train) and np.array_equal(ours.val, theirs.val)


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


@given(st.lists(st.tuples(WORDS, GAPS), min_size=1, max_size=60), st.integers(16, 40))
@settings(max_examples=300, deadline=None)
def test_where_a_chunk_ends_changes_no_token(pairs, size):
    text = "".join(word + gap for word, gap in pairs)
    pieces, kept = [], text
    while len(kept) >= size:
        safe = data.SAFE.match(kept, 0, size)
        if not safe:
            break
        pieces, kept = pieces + [kept[:safe.end()]], kept[safe.end():]
    words = gpt.WordTokenizer.from_counts(Counter(gpt.WordTokenizer.cut(text.replace("\0", "\n\n"))), 1)
    for data.TOKENIZER in (words, TRAINED):
        whole = data.encode(("train", text))[1]
        assert b"".join(data.encode(("train", piece))[1] for piece in [*pieces, kept]) == whole
    data.TOKENIZER = None


def test_own_bpe_is_lossless_and_used(place):
    Path("t.txt").write_text(TEXT)
    folder = make("t.txt", "--level=bpe", "--vocab_size=600")
    meta = json.loads((folder / "meta.json").read_text())
    assert folder == Path("data/t-bpe600") and meta["vocab_size"] == 600 and "".join(texts(folder)) == TEXT
    assert meta["train_tokens"] < 0.45 * len(TEXT)


def test_the_sample_is_spread_over_the_text():
    kept = data.Thinned(10)
    for i in range(1000):
        kept.add(i)
    assert 5 <= len(kept.items) <= 10 and len(set(np.diff(kept.items))) == 1 and kept.items[-1] > 800


def test_a_vocabulary_has_its_limit_in_memory(place, monkeypatch):
    Path("t.txt").write_text(TEXT + " ".join(f"once{i}" for i in range(2000)))
    before = texts(make("t.txt", "--level=word"))
    monkeypatch.setattr(data, "CHUNK", 4000)
    monkeypatch.setattr(data, "SPELLINGS", 3000)
    assert texts(make("t.txt", "--level=word", "--name=small"))[0][:2000] == before[0][:2000]


def test_most_of_a_text_for_validation(place):
    Path("t.txt").write_text(TEXT)
    assert [len(part) for part in texts(make("t.txt", "--val_fraction=0.8"))] == [11_999, 48_001]  # as gpt.py rounds


def test_workers_that_are_not_forked(place):
    "as on macOS and Windows"
    Path("t.txt").write_text(TEXT * 150)
    Path("start.py").write_text(f"""
import multiprocessing, sys
sys.path.insert(0, {str(HERE)!r})
import data
if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    multiprocessing.get_context = lambda how: spawn
    data.prepare(data.command_line(["t.txt", "--level=word", "--name=spawned"]))""")
    done = subprocess.run([sys.executable, "start.py"], capture_output=True, text=True)
    assert done.returncode == 0, done
    assert bytes_of("data/spawned-word") == bytes_of(make("t.txt", "--level=word"))


def test_uint32_for_large_vocabularies():
    few, many = (type("T", (), {"vocab_size": n}) for n in (65_535, 65_536))
    assert data.id_type(few) == np.uint16 and data.id_type(many) == np.uint32


# ---- where it comes from -----------------------------------------------------------------------------------

DOCUMENTS = [f"Document {i} is about {name}.\nIt ends here: é 日本." for i, name in enumerate(TOPICS.split()[:40])]
JOINED = "\n\n".join(DOCUMENTS)


def as_csv(texts, field="text"):
    import csv
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerows([["id", field], *([i, t] for i, t in enumerate(texts))])
    return out.getvalue().encode()


def as_jsonl(texts, field="text"):
    return "\n".join(json.dumps({"id": i, field: t}) for i, t in enumerate(texts)).encode()


def as_parquet(texts, field="text"):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    out = io.BytesIO()
    pq.write_table(pa.table({"id": list(range(len(texts))), field: texts}), out, row_group_size=7)
    return out.getvalue()


def as_zip(name, content):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/x", b"\0")
        archive.writestr("folder/" + name, content)
    return out.getvalue()


def as_zst(content):                                           # in two frames, as parallel packers write it
    zstd = pytest.importorskip("zstandard")
    half = len(content) // 2
    return zstd.compress(content[:half]) + zstd.compress(content[half:])


PACKERS = {"": lambda c: c, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": as_zst}
FORMATS = {".csv": as_csv, ".jsonl": as_jsonl, ".parquet": as_parquet,
           ".txt": lambda texts: "\n\n".join(texts).encode(), ".md": lambda texts: "\n\n".join(texts).encode()}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("packed", [*PACKERS, ".zip", ".gz in .zip"])
def test_every_format_in_every_packing(kind, packed, place):
    content = FORMATS[kind](DOCUMENTS)
    name = f"d{kind}{packed}"
    if packed == ".zip":
        content = as_zip(f"d{kind}", content)
    elif packed == ".gz in .zip":
        name, content = "d.zip", as_zip(f"d{kind}.gz", gzip.compress(content))
    else:
        content = PACKERS[packed](content)
    Path(name).write_bytes(content)
    train, val = texts(make(name, "--name=d"))
    if kind in (".txt", ".md"):
        assert train + val == JOINED
    else:                                                      # cut between two documents
        assert train + "\n\n" + val == JOINED and val.startswith("Document 36 ")


def test_field(place):
    for kind in (".csv", ".jsonl", ".parquet"):
        Path("d" + kind).write_bytes(FORMATS[kind](DOCUMENTS, "body"))
        assert "\n\n".join(texts(make(f"d{kind}", "--field", "body"))) == JOINED
        fails(f"d{kind}", told="has no field text: give --field, and of id, body")
        if kind != ".csv":                                     # where all is text
            fails(f"d{kind}", "--field=id", told="holds no text")


def test_documents_are_joined_by_end_of_text_or_blank_line(place):
    Path("d.jsonl").write_bytes(as_jsonl(["One.", "", None, "Two \ud83d\0.", "Three."] * 20))
    meta = make("d.jsonl", "--level=bpe", "--vocab_size=300")
    tokens = gpt.open_corpus(meta, gpt.TrainConfig(level="bpe"), 1)
    ends = int((tokens.train == tokens.tokenizer.end_id).sum() + (tokens.val == tokens.tokenizer.end_id).sum())
    assert ends == 58 and tokens.val[0] != tokens.tokenizer.end_id  # 60 documents, in two splits
    assert texts(meta)[1].replace("<|endoftext|>", "|") == "One.|Two ?.|Three.|One.|Two ?.|Three."
    assert texts(make("d.jsonl"))[1] == "One.\n\nTwo ?.\n\nThree.\n\nOne.\n\nTwo ?.\n\nThree."


def test_several_files_a_folder_and_a_glob(place):
    for name in ("b.md", "a.txt", "sub/c.txt", ".hidden.txt", ".git/e.txt", "picture.png", "sub/d.jsonl.gz"):
        Path("notes", name).parent.mkdir(parents=True, exist_ok=True)
        content = gzip.compress(as_jsonl([name * 9])) if "jsonl" in name else (name * 9).encode()
        Path("notes", name).write_bytes(content)
    whole = ["a.txt" * 9, "b.md" * 9, "sub/c.txt" * 9, "sub/d.jsonl.gz" * 9]
    for sources, name, documents in ((["notes"], "notes", whole), (["notes/*.??*"], "notes", whole[:2]),
                                     (["notes/a.txt", "notes/b.md"], "notes", whole[:2]),
                                     (["notes/a.txt", "notes/sub/c.txt"], "text", whole[:3:2]),
                                     (["notes/**/*.txt", "--name", "all"], "all", whole[:3:2])):
        if "??" in sources[0]:
            Path("notes/picture.png").unlink()                 # a glob takes what it finds
        folder = make(*sources)
        assert folder == Path(f"data/{name}-char")
        assert re.sub("\n+", "", "".join(texts(folder))) == "".join(documents)


def test_standard_input(place):
    done = run("-", "--name", "logs", input="line of a log\n" * 50)
    assert done.returncode == 0 and "data/logs-char is ready: 630 tokens" in done.stdout, done
    assert "".join(texts(Path("data/logs-char"))) == "line of a log\n" * 50 and not list(Path("data/raw").iterdir())


def test_gutenberg_header_and_licence(place):
    story = "A SCANDAL IN BOHEMIA\n\nTo Sherlock Holmes she is always the woman.\n" * 9
    for start, end in (("*** START OF THE PROJECT GUTENBERG EBOOK THE ADVENTURES OF SHERLOCK\nHOLMES ***",
                        "*** END OF THE PROJECT GUTENBERG EBOOK THE ADVENTURES OF SHERLOCK\nHOLMES ***"),
                       ("***START OF THIS PROJECT GUTENBERG EBOOK SHERLOCK***", "*** END OF THIS PROJECT GUTENBERG E"
                        "BOOK SHERLOCK ***")):
        Path("b.txt").write_text(f"Title\n{start}\n\n\n{story}\n\n{end}\nLicence")
        assert "".join(texts(make("b.txt", "--strip_gutenberg"))) == story.strip()
        assert "Licence" in "".join(texts(make("b.txt")))
    Path("c.txt").write_text(story)
    fails("c.txt", "--strip_gutenberg", told="leave --strip_gutenberg out")


def test_separator_and_a_validation_split_of_its_own(place, monkeypatch):
    stories = [f"Once there were {i} cats.\nThey slept." for i in range(30)]
    for split, part in (("train", stories[:25]), ("valid", stories[25:])):
        Path(f"{split}.txt").write_text("\n<|endoftext|>\n".join(part) + "\n<|endoftext|>\n")
    monkeypatch.setitem(data.CORPORA, "cats", data.Corpus("", "", ["train.txt"], ["valid.txt"],
                                                          separator="<|endoftext|>"))
    monkeypatch.setattr(data, "CHUNK", 50)                     # shorter than what it looks for
    folder = make("cats", "--level=bpe", "--vocab_size=300")
    assert [text.split("<|endoftext|>") for text in texts(folder)] == [stories[:25], stories[25:]]


def test_members_of_a_zip(place, monkeypatch):
    with zipfile.ZipFile("w.zip", "w") as archive:
        for name in ("train", "valid", "test"):
            archive.writestr(f"wiki/wiki.{name}.raw", f" = {name} = \n \n text of {name} \n" * 5)
    monkeypatch.setitem(data.CORPORA, "wiki", data.Corpus("", "", ["w.zip::*train*"], ["w.zip::*valid*"]))
    assert [set(re.findall("train|valid|test", part)) for part in texts(make("wiki"))] == [{"train"}, {"valid"}]


def test_datasets_of_hugging_face(place, monkeypatch):
    for name, value in (("HF_HOME", str(place / "hf")), ("HF_HUB_OFFLINE", "1"), ("HF_DATASETS_OFFLINE", "1")):
        monkeypatch.setenv(name, value)
    pytest.importorskip("datasets")
    Path("set").mkdir()
    Path("set/train.jsonl").write_bytes(as_jsonl(DOCUMENTS[:30], "body"))
    Path("set/validation.jsonl").write_bytes(as_jsonl(DOCUMENTS[30:], "body"))
    train, val = texts(make("hf:./set", "--field", "body"))
    assert train == "\n\n".join(DOCUMENTS[:30]) and val == "\n\n".join(DOCUMENTS[30:])
    assert "\n\n".join(texts(make("hf:./set:validation", "--field", "body"))) == "\n\n".join(DOCUMENTS[30:])
    with pytest.raises(gpt.Problem, match="has no field text"):
        make("hf:./set")
    with pytest.raises(gpt.Problem, match="hf:./nothing can't be read: .*"):
        make("hf:./nothing")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(gpt.Problem, match="pip install datasets"):
        make("hf:./set", "--name", "other")


@pytest.mark.parametrize("package,name", [("zstandard", "x.txt.zst"), ("pyarrow", "x.parquet")])
def test_a_missing_package_is_told(package, name, place, monkeypatch):
    if package == "zstandard" and sys.version_info >= (3, 14):
        pytest.skip("it comes with Python")
    Path(name).write_bytes(b"x")
    for module in (package, f"{package}.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(gpt.Problem, match=f"pip install {package}"):
        make(name)


def test_the_table_of_corpora(place):
    done = run("list")
    assert done.returncode == 0 and not done.stderr
    assert re.search(r"tinystories +2.3 GB +its own +CDLA-Sharing 1.0 +- +https://hugg", done.stdout)
    make("builtin", "--level=word")
    assert "builtin-word" in run("list").stdout
    for corpus in data.CORPORA.values():
        assert corpus.size and corpus.licence and corpus.train and len(corpus.sha256) in (0, 64)


# ---- what can be wrong -------------------------------------------------------------------------------------

def test_mistakes_are_told_in_one_line(place):
    Path("a.txt").write_text("abc " * 99)
    Path("empty.txt").write_text("")
    Path("blank.jsonl").write_text("\n\n")
    Path("bad.jsonl").write_text('{"text": "a"}\n{"text": ')
    Path("list.jsonl").write_text('[1, 2]')
    Path("binary.txt").write_bytes(b"abc" * 99 + b"\0\1\2")
    Path("cut.txt.gz").write_bytes(gzip.compress(TEXT.encode())[:5000])
    Path("no.zip").write_bytes(b"PK no zip")
    Path("cp.txt").write_bytes("caf\u00e9 ".encode() * 70000 + "caf\u00e9".encode("cp1252"))
    Path("nothing").mkdir()
    for words, told, status in (
            (["sherlok"], "did you mean sherlock?", 2), (["a.txt", "--level", "bit"], "--level bit: there is char, ", 2),
            (["a.txt", "--val_fraction", "2"], "needs 0 < val_fraction < 1", 2), (["a.txt", "--wat"], "--wat", 2),
            (["nothing"], "nothing is a folder without any .txt", 2), (["*.nope"], "no such file", 2),
            (["empty.txt"], "there is no text in it", 2), (["blank.jsonl"], "there is no text in it", 2),
            (["bad.jsonl"], "JSONDecodeError", 1), (["list.jsonl"], "row 1 has no field text", 2),
            (["binary.txt"], "not text: there is a zero byte", 2), (["cut.txt.gz"], "EOFError", 1),
            (["no.zip"], "BadZipFile", 1), (["a.txt", "--encoding=klingon"], "unknown encoding: klingon", 1),
            (["cp.txt"], "not utf-8: byte 0xe9 at offset 420,003; say how it is written, as --encoding cp1252", 2)):
        fails(*words, told=told, status=status)
    assert not list(Path("data").glob("*/meta.json"))
    done = run("sherlok")
    assert done.returncode == 2 and re.fullmatch("error: sherlok: no such file, .*\n", done.stderr), done


def test_other_encodings(place):
    text = "Ein Café in Zürich. " * 9
    Path("w.txt").write_bytes(text.encode("cp1252"))
    Path("u.txt").write_text(text, encoding="utf-16")
    assert "".join(texts(make("w.txt", "--encoding", "cp1252"))) == text
    assert "".join(texts(make("u.txt", "--encoding", "utf-16"))) == text
    assert "".join(texts(make("w.txt", "--errors=replace"))) == text.replace("é", "\ufffd").replace("ü", "\ufffd")


@pytest.mark.parametrize("text", ["abcdefghi " * 10_000_000, "日本語" * 400_000])
def test_one_long_line(text, place):
    Path("line.txt").write_text(text, encoding="utf-8")
    folder = make("line.txt", "--level", "char")
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["train_tokens"] + meta["val_tokens"] == len(text)
    assert meta["vocab_size"] == len(set(text[:30])) + 1
    if len(text) < 1e7:
        assert "".join(texts(make("line.txt", "--level=bpe", "--vocab_size=300"))) == text


# ---- the same again, and interruptions ---------------------------------------------------------------------

def test_what_is_here_is_not_made_again(place, capsys):
    Path("a.txt").write_text(TEXT)
    made = make("a.txt")
    before = os.stat(made / "meta.json").st_mtime_ns
    make("a.txt", "--min_freq=7")                              # has no meaning for characters
    assert "already here" in capsys.readouterr().out and os.stat(made / "meta.json").st_mtime_ns == before
    make("a.txt", "--val_fraction=0.2")
    assert json.loads((made / "meta.json").read_text())["val_tokens"] == 12_000
    Path("a.txt").write_text(TEXT + "more")
    make("a.txt", "--val_fraction=0.2")
    assert "".join(texts(made)).endswith("more") and not list(Path("data").glob("*.old"))


SLOWLY = ("import sys; sys.path.insert(0, {here!r}); import data; data.SAVE_EVERY = 0; "
          "data.prepare(data.command_line({words!r}))")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_encode_goes_on(how, place, monkeypatch):
    Path("big.txt").write_text(" ".join(random.Random(1).choices(TEXT.split(" "), k=1_600_000)))
    words = ["big.txt", "--level", "word", "--workers", "2"]
    process = subprocess.Popen([sys.executable, "-c", SLOWLY.format(here=str(HERE), words=words)],
                               stderr=subprocess.DEVNULL)
    progress = Path("data/big-word.part/progress.json")
    while not progress.exists() and process.poll() is None:
        time.sleep(0.01)
    workers = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True).stdout
    process.send_signal(how)
    process.wait()
    assert not Path("data/big-word").exists() and data.load(progress)["chunks"] > 0
    for pid in workers.split():                                # none is left behind
        for _ in range(100):
            if not Path(f"/proc/{pid}").exists():
                break
            time.sleep(0.05)
        assert not Path(f"/proc/{pid}").exists()
    with open("data/big-word.part/train.bin", "r+b") as file:  # a mark: what is done isn't done again
        file.write(b"\7\0\7\0")
    resumed = bytes_of(make(*words))
    assert resumed["train.bin"][:4] == b"\7\0\7\0"
    once = bytes_of(make(*words, "--name", "once"))
    assert resumed["train.bin"][4:] == once["train.bin"][4:] and resumed["val.bin"] == once["val.bin"]


def test_a_full_disk_while_encoding(place):
    Path("big.txt").write_text(TEXT * 40)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)); import runpy, sys; "
    code = limit + f"sys.argv = ['data.py', 'big.txt']; runpy.run_path({str(HERE / 'data.py')!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and re.fullmatch(r"error: data/big-char.part can't be written: .*\n", done.stderr), done
    assert not Path("data/big-char").exists() and "".join(texts(make("big.txt"))) == TEXT * 40


def test_two_at_once(place):
    Path("big.txt").write_text(TEXT * 100)
    both = [subprocess.Popen([sys.executable, str(HERE / "data.py"), "big.txt", "--level=word"], text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert all(process.returncode == 0 for process in both)
    assert sorted("already here" in text for text in said) == [False, True]


# ---- downloads ---------------------------------------------------------------------------------------------

CONTENT = TEXT.encode()


class Handler(BaseHTTPRequestHandler):
    "A server with bad manners: what it does depends on the path."
    asked, seen = Counter(), []

    def log_message(self, *words):
        pass

    def reply(self, status, body=b"", length=None, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body) if length is None else length, **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def do_GET(self):
        path, times = self.path, self.asked[self.path]
        self.asked[self.path] += 1
        start = int(re.findall(r"\d+", self.headers.get("Range", "0"))[0])
        self.seen.append((path, start, dict(self.headers)))
        rest, tag = CONTENT[start:], {"ETag": '"one"'}
        if start:
            tag["Content_Range"] = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        status = 206 if start else 200
        if "cut" in path:                                      # a third of the rest, then silence
            self.reply(status, rest[:25_000], length=len(rest), **tag)
        elif "stop" in path:                                   # always at the same place
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
        elif "less" in path:
            self.reply(416, Content_Range="bytes */10") if start else self.reply(200, CONTENT)
        elif "beyond" in path and start >= len(CONTENT):
            self.reply(416, Content_Range=f"bytes */{len(CONTENT)}")
        elif "raw/pointer" in path:
            self.reply(200, b"version x\noid sha256:" + hashlib.sha256(CONTENT).hexdigest().encode() + b"\n")
        elif "raw/other" in path:
            self.reply(200, b"oid sha256:" + b"0" * 64)
        elif "slow" in path:
            self.send_response(status)
            self.send_header("Content-Length", str(len(rest)))
            for name, value in tag.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            with contextlib.suppress(OSError):
                for i in range(0, len(rest), 1000):
                    self.wfile.write(rest[i:i + 1000])
                    time.sleep(0.01 if times else 0.05)
        elif "chunked" in path:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENT)
        else:
            self.reply(status, rest, **tag)


@pytest.fixture
def server():
    Handler.asked.clear(), Handler.seen.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("path,asked", [("plain", 1), ("cut", 3), ("norange", 2), ("changed", 2), ("flaky", 3),
                                        ("chunked", 1)])
def test_a_download_survives(path, asked, server, place):
    file = data.download(f"{server}/{path}.txt")
    assert file.read_bytes() == CONTENT and Handler.asked[f"/{path}.txt"] == asked
    data.download(f"{server}/{path}.txt")                      # from now on it is here
    assert Handler.asked[f"/{path}.txt"] == asked and os.listdir("data/raw") == [file.name]
    if path == "cut":
        assert [start for _, start, _ in Handler.seen] == [0, 25_000, 50_000]


def test_redirects_and_a_text_by_its_address(server, place):
    assert "".join(texts(make(f"{server}/moved.txt?again=1"))) == TEXT


def test_a_part_that_was_whole_or_too_much(server, place):
    for path, here in (("beyond", CONTENT), ("less", CONTENT[:99])):
        part = data.raw_file(f"{server}/{path}.txt")
        part.parent.mkdir(parents=True, exist_ok=True)
        part.with_name(part.name + ".part").write_bytes(here)
        assert data.download(f"{server}/{path}.txt").read_bytes() == CONTENT


def test_downloads_that_fail_are_told_in_one_line(server, place):
    for path, told in (("gone", "404"), ("stop", "ended after 5,000 of 60,"), ("secret", "401")):
        with pytest.raises(gpt.Failure, match=told) as problem:
            data.download(f"{server}/{path}.txt")
        assert "\n" not in str(problem.value)
    assert Handler.asked["/gone.txt"] == 1 and Handler.asked["/stop.txt"] == 6
    fails("http://127.0.0.1:9/x.txt", told="Connection refused", status=1)
    fails("ftp://127.0.0.1:9/x.txt", told="", status=1)


def test_checksums(server, place, monkeypatch):
    right = hashlib.sha256(CONTENT).hexdigest()
    data.download(f"{server}/a.txt", right)
    with pytest.raises(gpt.Failure, match="instead of 0000.* and was removed"):
        data.download(f"{server}/b.txt", "0" * 64)
    data.download(f"{server}/resolve/pointer.txt")             # as Hugging Face tells them
    with pytest.raises(gpt.Failure, match="instead of 0000"):
        data.download(f"{server}/resolve/other.txt")
    assert len(os.listdir("data/raw")) == 2
    assert data.download(f"{server}/b.txt", right).read_bytes() == CONTENT


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
    assert sent[0].unredirected_hdrs == {"Authorization": "Bearer hf_secret"} and "Range" in sent[0].headers


def test_proxy_variables(server, place, monkeypatch):
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", server)
    monkeypatch.setattr(data.urllib.request, "_opener", None)  # it has read the variables before
    assert data.download("http://text.invalid/x.txt").read_bytes() == CONTENT
    assert Handler.seen[0][0] == "http://text.invalid/x.txt"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_download_goes_on(how, server, place):
    url = f"{server}/slow.txt"
    process = subprocess.Popen([sys.executable, str(HERE / "data.py"), url], stderr=subprocess.PIPE, text=True)
    part = data.raw_file(url).with_name(data.raw_file(url).name + ".part")
    while data.size_of(part) < 5000:
        time.sleep(0.01)
    process.send_signal(how)
    _, said = process.communicate()
    assert how == signal.SIGKILL or "stopped; the same command goes on" in said and process.returncode == 130
    assert not part.with_suffix("").exists()
    assert "".join(texts(make(url))) == TEXT
    assert Handler.seen[-1][1] >= 5000


def test_a_full_disk_while_fetching(server, place):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); import runpy, sys; "
    code = limit + f"sys.argv = ['data.py', '{server}/x.txt']; runpy.run_path({str(HERE / 'data.py')!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and re.fullmatch("error: can't fetch .*File too large.*\n", done.stderr), done
    assert data.download(f"{server}/x.txt").read_bytes() == CONTENT and Handler.seen[-1][1] == 20_000


# ---- together with gpt.py ----------------------------------------------------------------------------------

def test_gpt_prepares_what_it_needs(place):
    Path("book.txt").write_text(TEXT)
    words = [sys.executable, str(HERE / "gpt.py"), "train", "--data", "book.txt", "--level", "bpe", "--vocab_size", "400",
             "--n_layer=1", "--n_head=1", "--n_embd=8", "--block_size=16", "--max_iters=2", "--eval_interval=2",
             "--device=cpu", "--sample_tokens=4"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and Path("data/book-bpe400/meta.json").exists(), done


def test_without_torch_it_starts_at_once(place):
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import data; print('torch' in sys.modules, data.gpt.LEVELS)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False ('char', 'word', 'bpe')\n", done


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


@pytest.mark.skipif(not os.environ.get("SLOW"), reason="SLOW=1 runs it: 1 GB of text, some minutes")
@pytest.mark.parametrize("level", [["char"], ["word"], ["bpe", "--vocab_size=4096"]])
def test_memory_stays_flat(level, place):
    rng, size = random.Random(1), 0
    with open("big.txt", "w") as file:
        while size < 1_000_000_000:                            # new words all the time, as in real text
            for start in range(0, len(TOPICS), 400):
                size += file.write(TOPICS[start:start + 400] + " " + "".join(rng.choices("etaoinshr", k=9)) + " ")
    process = subprocess.Popen([sys.executable, str(HERE / "data.py"), "big.txt", "--level", *level])
    most = 0
    while process.poll() is None:
        most = max(most, memory(process.pid))
        time.sleep(0.2)
    os.unlink("big.txt")
    print(f"{level[0]}: {most:.0f} MB")
    assert process.returncode == 0 and most < 500
