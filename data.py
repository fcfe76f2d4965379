"""data.py: any text -> a folder of tokens that gpt.py trains on, of any size, in the memory of a laptop.

    python data.py list                                     the corpora it knows, and what is already here
    python data.py sherlock --level word                    fetched once, then data/sherlock-word/
    python data.py my_notes/*.md essay.txt                  your own: files, globs, folders, zips, URLs
    python data.py posts.jsonl.gz --field body              one document in each line, or row of a .csv
    cat *.log | python data.py - --name logs                what comes in on standard input
    python data.py tinystories --level bpe --vocab_size 4096        with tokens learned from the corpus
    python data.py hf:OWNER/NAME:CONFIG:SPLIT --level bpe   a dataset of Hugging Face (pip install datasets)
    python gpt.py train --data tinystories --level bpe      runs this file by itself, where it has to

Reads .txt .md .jsonl .csv .parquet, plain or as .gz .zst .bz2 .xz .zip; anything else as plain text. Stop it
when you like: the same command goes on from there, with downloads and with encoding.

The text flows through twice, in chunks: once to be measured, for a vocabulary, and once to be encoded.
    source -> files -> documents -> chunks -> ids -> train.bin, val.bin
"""
import argparse, atexit, base64, bz2, codecs, contextlib, csv, errno, fnmatch, glob, gzip, hashlib, heapq
import http.client, importlib.util, io, itertools, json, lzma, multiprocessing, os, re, shutil, signal, sys
import tempfile, threading, time, urllib.error, urllib.request, zipfile
from collections import Counter, defaultdict, deque
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

import numpy as np

try:
    import fcntl
except ImportError:                                           # Windows
    fcntl = None

def load_gpt():
    """gpt.py as far down as its tokenizers. Below them it imports torch, which takes a second, and 200 MB in
    every process; without torch it ends there, and what stands above is all that is needed here."""
    if sys.modules.keys() & {"gpt", "torch"}:
        return __import__("gpt")
    spec = importlib.util.spec_from_file_location("gpt_text", Path(__file__).with_name("gpt.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpt_text"], sys.modules["torch"] = module, None
    with contextlib.suppress(SystemExit):
        spec.loader.exec_module(module)
    del sys.modules["torch"]
    return module

gpt = load_gpt()
RAW = Path("data/raw")                                        # downloads
CHUNK = 1 << 18                                               # characters that travel together
SPELLINGS = 500_000                                           # of words, to choose a vocabulary from
PATIENCE, SAVE_EVERY = 0.5, 5                                 # seconds

# ---- the corpora: facts ------------------------------------------------------------------------------------

@dataclass
class Corpus:
    "FILE.zip::PATTERN stands for some of its members. Without val, the end of train is for validation."
    size: str
    licence: str
    train: list
    val: list = ()
    sha256: str = ""                                          # of the file, where its publisher fixes it
    edition: tuple = ()                                       # length and sha256 of a text that may be edited
    separator: str = ""                                       # what stands between documents in a text file

HUB = "https://huggingface.co/datasets/"
STORIES = HUB + "roneneldan/TinyStories/resolve/main/TinyStoriesV2-GPT4-"
WEB = HUB + "Skylion007/openwebtext/resolve/main/plain_text/train-"
EDU = HUB + "HuggingFaceFW/fineweb-edu/resolve/main/sample/10BT/"
WIKI = "https://wikitext.smerity.com/wikitext-"
WIKI2, WIKI103 = WIKI + "2-raw-v1.zip::*", WIKI + "103-raw-v1.zip::*"
KARPATHY = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/"
CORPORA = {
    "sherlock": Corpus("0.6 MB", "public domain", ["https://www.gutenberg.org/cache/epub/1661/pg1661.txt"],
                       edition=(581421, "ef923f736dc2dbac4fa82378045f63caccd861d636c65ab9d6dc86ab2cee85c4")),
    "shakespeare": Corpus("1.1 MB", "public domain", [KARPATHY + "tinyshakespeare/input.txt"],
                          sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"),
    "wikitext2": Corpus("4.7 MB zip", "CC BY-SA 3.0", [WIKI2 + "train*"], [WIKI2 + "valid*"],
                        "ef7edb566e3e2b2d31b29c1fdb0c89a4cc683597484c3dc2517919c615435a11"),
    "wikitext103": Corpus("192 MB zip", "CC BY-SA 3.0", [WIKI103 + "train*"], [WIKI103 + "valid*"],
                          "91c00ae287f0d699e18605c84afc9e45c192bc6b7797ff8837e5474655a33794"),
    "tinystories": Corpus("2.3 GB", "CDLA-Sharing 1.0", [STORIES + "train.txt"], [STORIES + "valid.txt"],
                          separator="<|endoftext|>"),
    "fineweb-edu": Corpus("28 GB, 14 files", "ODC-By 1.0", [f"{EDU}{i:03}_00000.parquet" for i in range(14)]),
    "openwebtext": Corpus("24 GB, 80 files", "CC0 (its packaging)",
                          [f"{WEB}{i:05}-of-00080.parquet" for i in range(80)]),
    "text8": Corpus("31 MB zip", "CC BY-SA (Wikipedia)", ["http://mattmahoney.net/dc/text8.zip"],
                    sha256="a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232"),
    "enwik8": Corpus("36 MB zip", "CC BY-SA (Wikipedia)", ["http://mattmahoney.net/dc/enwik8.zip"],
                     sha256="547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc"),
    "builtin": Corpus("0.5 MB", "PSF: Python's own manual", ["builtin"])}

# ---- the command line --------------------------------------------------------------------------------------

@dataclass
class Options:
    "how text becomes tokens"
    level: Literal["char", "word", "bpe"] = gpt.KNOBS["level"]
    val_fraction: float = gpt.KNOBS["val_fraction"]
    min_freq: int = gpt.KNOBS["min_freq"]
    vocab_size: int = gpt.KNOBS["vocab_size"]
    sample_mb: int = gpt.knob(10, "learn an own bpe from so much of the text", "sample_mb >= 1")
    name: str = gpt.knob("", "make data/NAME-LEVEL; empty: named like the source")
    field: str = gpt.knob("text", "what holds the text in a .jsonl, .csv, .parquet or dataset")
    separator: str = gpt.knob("", "what stands between two documents in a text file")
    strip_gutenberg: bool = gpt.knob(False, "leave out Project Gutenberg's header and licence")
    encoding: str = gpt.knob("utf-8-sig", "how text files are written: utf-16, cp1252 and so on")
    errors: Literal["strict", "replace", "ignore"] = gpt.knob("strict", "what to do with bytes of no text")
    shards: int = gpt.knob(0, "only so many of the files of a corpus; 0: all", "shards >= 0")
    workers: int = gpt.knob(0, "how many chunks are encoded at a time; 0: one a core", "workers >= 0")

KINDS, PACKED = (".txt", ".md", ".jsonl", ".csv", ".parquet"), (".gz", ".zst", ".bz2", ".xz")

def command_line(words):
    "-> the options, with .sources, and the inputs .train and .val"
    parser = gpt.Parser(usage="python data.py list | SOURCE ... [--OPTION VALUE ...]", description=__doc__,
                        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="as above; several become one corpus")
    gpt.add_flags(parser, gpt.knobs(Options))
    asked = vars(parser.parse_intermixed_args(gpt.underscored(words) or ["--help"]))
    o = gpt.fill(Options, asked)
    o.sources = asked["sources"]
    return o

def find(source):
    "What a person may call a text -> what to train on and what to validate on: files, URLs, hf:..., -"
    path = Path(source)
    if path.is_dir():
        files = sorted(str(p) for p in path.rglob("*")
                       if (p.with_suffix("") if p.suffix in PACKED else p).suffix in (*KINDS, ".zip")
                       and p.is_file() and not any(part[0] == "." for part in p.relative_to(path).parts))
        gpt.expect(files, f"{source} is a folder without any {' '.join(KINDS)}")
        return files, []
    if path.exists() or source == "-" or source.startswith("hf:") or "://" in source:
        return [source], []
    if source in CORPORA:
        return CORPORA[source].train, CORPORA[source].val
    files = sorted(f for f in glob.glob(source, recursive=True) if os.path.isfile(f))
    gpt.expect(files, f"{source}: no such file, and no such corpus: {gpt.nearest(source, CORPORA)}")
    return files, []

def list_corpora():
    "The table, and what is already here."
    rows = []
    for name, corpus in CORPORA.items():
        urls = {url.split("::")[0] for url in (*corpus.train, *corpus.val) if "://" in url}
        files = sum(raw_file(url).exists() for url in urls)
        here = [f"{files} of {len(urls)} files"] * (files > 0)
        here += sorted(meta.parent.name for meta in Path("data").glob(f"{name}-*/meta.json"))
        rows.append([name, corpus.size, "its own" if corpus.val else "the end", corpus.licence,
                     ", ".join(here) or "-", corpus.train[0].split("::")[0]])
    gpt.print_table("corpus size validation licence here source", rows)

# ---- download: what is missing of a file, until it is whole ------------------------------------------------

class Progress:
    "One line that is drawn again and again; in a log, a new line now and then."
    def __init__(self, what, unit, total=0, done=0):
        self.what, self.unit, self.total, self.first, self.live = what, unit, total, done, sys.stderr.isatty()
        self.began = time.monotonic()
        self.due = self.began + 10 * (not self.live)

    def show(self, done):
        now = time.monotonic()
        if now >= self.due:
            self.due = now + (0.2 if self.live else 30)
            speed = max(done - self.first, 1e-9) / max(now - self.began, 1e-9)
            line = f"{self.what}: {gpt.short(done)}{self.unit}, {gpt.short(speed)}{self.unit}/s"
            if self.total:
                left = gpt.clock((self.total - done) / speed)
                line += f", {done / self.total:.0%} of {gpt.short(self.total)}{self.unit}, {left} left"
            print(f"\r{line[:100]}\033[K" if self.live else line + "\n", end="", file=sys.stderr, flush=True)

    def end(self):
        print("\r\033[K" * self.live, end="", file=sys.stderr, flush=True)

@contextlib.contextmanager
def alone(path):
    "Two at work on the same file would spoil it: the second one waits. A lock ends with its process."
    lock = Path("data/.locks", path.name)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as file:
        if fcntl:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"note: another data.py is at work on {path}: waiting for it", file=sys.stderr)
                fcntl.flock(file, fcntl.LOCK_EX)
        yield

def raw_file(url):                                            # the suffix stays: it tells the format
    name = re.sub(r"[^\w.-]+", "_", unquote(Path(urlsplit(url).path).name))
    return RAW / f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{name[-80:]}"

def ask(url, **headers):
    "Follows redirects and honours proxy variables, as urllib does. The token goes to its own host only."
    url = quote(url, safe=":/?#[]@!$&'()*+,;=%")              # as people type it, with é and spaces
    request = urllib.request.Request(url, headers={"User-Agent": "Mozilla/5.0 (data.py)", **headers})
    if os.environ.get("HF_TOKEN") and urlsplit(url).hostname == "huggingface.co":
        request.add_unredirected_header("Authorization", f"Bearer {os.environ['HF_TOKEN']}")
    return urllib.request.urlopen(request, timeout=30)

def size_of(path):
    return path.stat().st_size if path.exists() else 0

def fetch_rest(url, part, version):
    "One connection's worth of a file, behind what is there of it. Raises if that isn't all."
    have = size_of(part)
    headers = {"Range": f"bytes={have}-"} if have else {}
    if have and version.exists() and version.read_text():     # if the file has changed meanwhile, send it all
        headers["If-Range"] = version.read_text()
    try:
        answer = ask(url, **headers)
    except urllib.error.HTTPError as e:
        if e.code != 416:
            raise
        if e.headers.get("Content-Range") == f"bytes */{have}":
            return                                            # nothing was missing
        part.unlink(missing_ok=True)
        raise ConnectionError("the server has less of it than has come")
    with answer:
        length, tag = answer.headers.get("Content-Length"), answer.headers.get("ETag", "W/")
        if answer.status == 206 and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise ConnectionError("the server sent another part than the one asked for")
        have *= answer.status == 206                          # a server may ignore Range, and begin again
        total = have + int(length or 0)
        with open(part, "ab" if have else "wb") as file:
            version.write_text(answer.headers.get("Last-Modified", "") if tag.startswith("W/") else tag)
            progress = Progress(f"fetching {part.stem}", "B", total * bool(length), have)
            while block := answer.read1(1 << 18):
                file.write(block)
                file.flush()                                  # whatever happens now, it has come
                have += len(block)
                progress.show(have)
            progress.end()
    if length and have != total:
        raise ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")

def published_sha256(url):
    "Hugging Face has a file's checksum in its repository, where others have the file."
    with contextlib.suppress(OSError, http.client.HTTPException):
        if "/resolve/" in url:
            with ask(url.replace("/resolve/", "/raw/")) as answer:
                return (re.findall(rb"oid sha256:(\w{64})", answer.read(200)) or [b""])[0].decode()

def download(url, sha256=""):
    "-> the file, fetched if it isn't here. Trouble on the way costs patience, but nothing that has come."
    path = raw_file(url)
    part, version = path.with_name(path.name + ".part"), path.with_name(path.name + ".version")
    with alone(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        failed, answered = 0, False
        while not path.exists():
            before = size_of(part)
            try:
                fetch_rest(url, part, version)
                version.unlink(missing_ok=True)
                check(part, sha256 or published_sha256(url), url)
                os.replace(part, path)
            except (OSError, http.client.HTTPException) as e:
                code = getattr(e, "code", 0)                  # of HTTP: asking again mends only some of them
                answered |= code > 0 or size_of(part) > 0 or not isinstance(e, urllib.error.URLError)
                failed = 0 if size_of(part) > before else failed + 1
                if (failed == 5 or not answered or 400 <= code < 500 and code not in (408, 425, 429)
                        or getattr(e, "errno", 0) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)):
                    why = str(e if code else getattr(e, "reason", e)) or type(e).__name__
                    hint = "; may you read it? Set HF_TOKEN" * (code in (401, 403) and "huggingface" in url)
                    raise gpt.Failure(f"can't fetch {url}: {why}{hint}; the same command goes on from what "
                                      f"has come, or takes {path}, if you have it from elsewhere")
                time.sleep(PATIENCE * min(2 ** failed, 60))
    return path

def check(part, sha256, url):
    if sha256:
        found = hashlib.sha256()
        with open(part, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                found.update(block)
        if found.hexdigest() != sha256:
            part.unlink()
            raise gpt.Failure(f"{url} came with sha256 {found.hexdigest()} instead of {sha256} and was "
                              "removed; the same command fetches it again")

# ---- files -> documents: pieces of text; with a zero character a new document begins -----------------------

@contextlib.contextmanager
def readable(source):
    try:
        yield
    except gpt.Problem:
        raise
    except Exception as e:                                    # every format has its own for a broken file
        raise gpt.Failure(f"{source} can't be read: {type(e).__name__}: {' '.join(str(e).split()):.200}")

def open_zst(file):
    with contextlib.suppress(ImportError):
        from compression import zstd                          # Python 3.14 has it
        return zstd.open(file)
    reader = gpt.need("zstandard").ZstdDecompressor(max_window_size=1 << 31)
    return io.BufferedReader(reader.stream_reader(file, read_across_frames=True), 1 << 17)

OPENERS = dict(zip(PACKED, (gzip.open, open_zst, bz2.open, lzma.open)))

def documents(source, o):
    "All that one input holds."
    path, _, members = source.partition("::")
    with readable(source):
        if source == "builtin":
            yield "\0" + gpt.read_text("builtin")
        elif source.startswith("hf:"):
            name, config, split = source[3:].split(":")
            dataset = gpt.need("datasets").load_dataset(name, config or None, split=split)
            yield from whole(field_of(row, n, source, o) for n, row in enumerate(dataset, 1))
        elif path.endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                for name in fnmatch.filter(archive.namelist(), members or "*"):
                    if not name.endswith("/") and not name.startswith("__MACOSX"):
                        with archive.open(name) as file:
                            yield from parsed(file, name, o)
        else:
            with open(path, "rb") as file:
                yield from parsed(file, path, o)

def parsed(file, name, o):
    "An open file -> documents, by its name."
    while Path(name).suffix in OPENERS:
        file, name = OPENERS[Path(name).suffix](file), str(Path(name).with_suffix(""))
    kind = Path(name).suffix.lower()
    if kind in (".jsonl", ".csv", ".parquet"):
        yield from whole(field_of(row, n, name, o) for n, row in enumerate(table(file, kind, o), 1))
    elif o.strip_gutenberg:
        book = GUTENBERG.search("".join(decoded(file, name, o)))
        gpt.expect(book, f"{name} has not both of Project Gutenberg's markers: leave --strip_gutenberg out")
        yield from whole([book[1]])
    elif o.separator:
        yield from whole(separated(decoded(file, name, o), o.separator))
    else:
        mark = "\0"
        for text in filter(None, decoded(file, name, o)):
            yield mark + text
            mark = ""

GUTENBERG = re.compile(r"\*\*\* ?START OF TH(?:E|IS) PROJECT GUTENBERG EBOOK.{,400}?\*\*\*\s*(.*?)\s*"
                       r"\*\*\* ?END OF TH(?:E|IS) PROJECT GUTENBERG EBOOK", re.S)

def whole(texts):
    for text in texts:                                        # web pages may hold zeros, or half characters
        if text := text.replace("\0", "").encode("utf-8", "replace").decode().strip():
            yield "\0" + text

def separated(pieces, separator):
    rest = ""
    for piece in pieces:
        *texts, rest = (rest + piece).split(separator)
        yield from texts
    yield rest

def table(file, kind, o):
    "-> the rows, as dicts"
    if kind == ".jsonl":
        return (json.loads(line) for line in file if line.strip())
    if kind == ".csv":
        csv.field_size_limit(1 << 30)
        return csv.DictReader(io.TextIOWrapper(file, o.encoding, o.errors, newline=""))
    if not file.seekable():                                   # it is read from its end
        packed, file = file, tempfile.TemporaryFile()
        shutil.copyfileobj(packed, file)
    parquet = gpt.need("pyarrow.parquet", "pyarrow").ParquetFile(file)
    names = parquet.schema_arrow.names
    columns = [o.field] if o.field in names else []
    batches = parquet.iter_batches(64, columns=columns) if columns else [names]
    return (row for batch in batches for row in (batch.to_pylist() if columns else [dict.fromkeys(names)]))

def field_of(row, n, name, o):
    names = list(row) if isinstance(row, dict) else []
    gpt.expect(o.field in names, f"{name}: row {n} has no field {o.field}: give --field, and of "
               f"{', '.join(map(str, names)) or 'none'} the one with the text")
    text = row[o.field] or ""
    gpt.expect(isinstance(text, str), f"{name}: field {o.field} of row {n} holds no text, but {text!r:.40}")
    return text

def decoded(file, name, o):
    "A text file, block by block. All kinds of line ends become one."
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(o.encoding)(o.errors), translate=True)
    block, start = True, 0
    while block:
        block = file.read(CHUNK)
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as e:
            place = start + len(block) - len(e.object) + e.start
            raise gpt.Problem(f"{name} is not {o.encoding[:-4] if 'sig' in o.encoding else o.encoding}: byte "
                              f"{e.object[e.start]:#x} at offset {place:,}; say how it is written, as "
                              "--encoding cp1252 or utf-16, or read on with --errors replace")
        gpt.expect("\0" not in text, f"{name} is not text: there is a zero byte behind offset {start:,}")
        yield text
        start += len(block)

def hub_splits(source):
    "hf:OWNER/NAME[:CONFIG][:SPLIT] -> what to train on and what to validate on, as hf:NAME:CONFIG:SPLIT"
    datasets, (name, *more) = gpt.need("datasets"), source[3:].split(":")
    with readable(source):
        config = more.pop(0) if more and more[0] in datasets.get_dataset_config_names(name) else ""
        splits = more or datasets.get_dataset_split_names(name, config or None)
    train = "train" if "train" in splits else splits[0]
    val = [split for split in splits if split in ("validation", "valid", "val", "dev") and split != train]
    return [f"hf:{name}:{config}:{train}"], [f"hf:{name}:{config}:{split}" for split in val[:1]]

# ---- documents -> chunks: where one ends, every tokenizer would cut as well --------------------------------

SAFE = re.compile(r".*[^\s\0](?=[ \n\0])", re.S)              # up to the last space behind a word

def stream(o, at=sys.maxsize):
    "-> (train or val, a chunk of text), in order. at: where validation begins in a corpus without its own."
    for split, pieces in itertools.groupby(divided(o, at), key=lambda pair: pair[0]):
        kept = next(pieces)[1].removeprefix("\0")             # nothing stands before the first document
        for _, piece in pieces:
            kept += piece
            while len(kept) >= CHUNK:                         # so much without a space: cut it anywhere
                safe = SAFE.match(kept, 0, CHUNK)
                end = safe.end() if safe else CHUNK
                yield split, kept[:end]
                kept = kept[end:]
        if kept:
            yield split, kept

def divided(o, at):
    left = at + 1                                             # the first document's mark won't count
    for split, inputs in (("train", o.train), ("val", o.val)):
        for piece in itertools.chain.from_iterable(documents(source, o) for source in inputs):
            for start in range(0, len(piece), CHUNK):         # a document may be long
                part = piece[start:start + CHUNK]
                if split == "val" or left > 0:
                    yield split, part[:left] if split == "train" else part
                if split == "train" and left < len(part):
                    yield "val", part[max(left, 0):]
                left -= len(part)

# ---- work for all cores ------------------------------------------------------------------------------------

TOKENIZER = None                                              # what a worker needs all the time

def start_worker(state, parent):
    global TOKENIZER
    TOKENIZER = TOKENIZER or state and gpt.load_tokenizer(state)  # where there is no fork to inherit it by
    if os.getpid() != parent:
        signal.signal(signal.SIGINT, signal.SIG_IGN)          # Ctrl-C is for the parent
        watch = lambda: (multiprocessing.parent_process().join(), os._exit(1))
        threading.Thread(target=watch, daemon=True).start()   # a killed parent can't end its workers

def spread(work, items, o, state=None):
    "work(item) for each item, in order, on all cores: in processes, or threads if that isn't worth while."
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers, kind, how = o.workers or cores, ThreadPoolExecutor, {}
    if sum(os.path.getsize(f) if os.path.isfile(f) else CHUNK << 6 for f in o.train) > CHUNK << 5:
        kind = ProcessPoolExecutor
        how = {"mp_context": multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")}
    with kind(workers, initializer=start_worker, initargs=(state, os.getpid()), **how) as pool:
        waiting = deque()
        with gpt.blame("a worker was killed, maybe for want of memory: try --workers 1", BrokenProcessPool,
                       kind=gpt.Failure):
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > workers + 2:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

# ---- first pass: how long it is, where documents end, what it consists of ----------------------------------

class Thinned:
    "Items of a stream, evenly spread over it, at most so many, however long it gets."
    def __init__(self, room):
        self.items, self.room, self.step, self.seen = [], room, 1, 0

    def add(self, item):
        if self.seen % self.step == 0:
            self.items.append(item)
        self.seen += 1
        if len(self.items) > self.room:
            self.items, self.step = self.items[::2], 2 * self.step

def characters(item):                                         # work: those in a chunk, as code points
    seen = np.zeros(0x110000, bool)
    seen[np.frombuffer(item[1].replace("\0", "\n\n").encode("utf-32-le"), np.uint32)] = True
    return np.flatnonzero(seen)

def words(item):                                              # work: those in a chunk, and how often
    return Counter(gpt.WordTokenizer.cut(item[1].replace("\0", "\n\n")))

def survey(o):
    "-> what the second pass has to know: the tokenizer, how long the text is, and where validation begins"
    length, sha256, ends, sample = Counter(), hashlib.sha256(), Thinned(1 << 16), Thinned(4 * o.sample_mb)
    progress = Progress("measuring", " characters")

    def watched():
        for split, text in stream(o):
            if split == "train":
                for end in re.finditer("\0", text):
                    ends.add(length[split] + end.start())
            length[split] += len(text)
            sha256.update(text.encode())
            if o.level == "bpe" and o.vocab_size:
                sample.add(text)
            progress.show(length.total())
            yield split, text

    if o.level == "char":
        seen = np.zeros(0x110000, bool)
        for found in spread(characters, watched(), o):
            seen[found] = True
        tokenizer = gpt.CharTokenizer("".join(map(chr, np.flatnonzero(seen))))
    elif o.level == "word":
        counts = Counter()
        for found in spread(words, watched(), o):
            counts.update(found)
            if len(counts) > SPELLINGS:                       # memory stays flat: the rarest are forgotten
                counts = Counter(dict(counts.most_common(SPELLINGS // 2)))
        tokenizer = gpt.WordTokenizer.from_counts(counts, o.min_freq)
    else:
        deque(watched(), 0)
        tokenizer = learn_bpe(sample.items, o.vocab_size) if o.vocab_size else gpt.BPETokenizer.train("", o)
    progress.end()
    n = length["train"]
    gpt.expect(n, f"{' '.join(o.sources)}: there is no text in it")
    at = int((1 - o.val_fraction) * n)
    near = min(ends.items, key=lambda end: abs(end - at), default=at)
    if abs(near - at) <= (n - at) // 2:                       # a few long documents may have no end nearby
        at = near
    return {"tokenizer": tokenizer.state, "at": sys.maxsize - 1 if o.val else at, "length": length.total(),
            "sha256": sha256.hexdigest()}

def learn_bpe(texts, size):
    "Tokens of one's own, from the pieces that GPT-2 cuts a text into; no token reaches over their ends."
    pattern, counts = gpt.need("regex").compile(gpt.BPETokenizer.pattern), Counter()
    for document in "\0".join(texts).split("\0"):
        counts.update(pattern.findall(document))
    for piece in [piece for piece in counts if len(piece) > 64]:  # would take for ever, and teach no more
        n = counts.pop(piece)                                 # than its parts do
        for i in range(0, len(piece), 64):
            counts[piece[i:i + 64]] += n
    tokens = merge_bytes(counts, size - 1)                    # the last one ends a document
    return gpt.BPETokenizer(" ".join(base64.b64encode(token).decode() for token in tokens))

def merge_bytes(counts, size):
    """Byte-pair encoding: start from the 256 bytes, merge the commonest pair of neighbours into a new token,
    repeat. counts: pieces of text, and how often they stand there. -> the tokens, as bytes, in order."""
    tokens = [bytes([b]) for b in range(256)]
    ids_of = {token: i for i, token in enumerate(tokens)}     # two ways to merge may meet in the same bytes
    pieces = [(list(piece.encode()), n) for piece, n in sorted(counts.items())]
    pairs, where = Counter(), defaultdict(set)                # how often a pair stands, and in which pieces
    for p, (ids, n) in enumerate(pieces):
        for pair in zip(ids, ids[1:]):
            pairs[pair] += n
            where[pair].add(p)
    heap = [(-n, pair) for pair, n in pairs.items()]
    heapq.heapify(heap)
    while heap and len(tokens) < size:
        n, pair = heapq.heappop(heap)
        if -n != pairs[pair] or n == 0:                       # an old count: the heap has the new one, too
            continue
        token, changed = tokens[pair[0]] + tokens[pair[1]], set()
        new = ids_of.setdefault(token, len(tokens))
        tokens += [token] * (new == len(tokens))
        for p in where.pop(pair):
            ids, n = pieces[p]
            merged, i = [], 0
            while i < len(ids):
                both = (ids[i], *ids[i + 1:i + 2]) == pair
                merged.append(new if both else ids[i])
                i += 1 + both
            for sign, old in ((-n, ids), (n, merged)):
                for neighbours in zip(old, old[1:]):
                    pairs[neighbours] += sign
                    where[neighbours].add(p)
                    changed.add(neighbours)
            pieces[p] = merged, n
        for neighbours in changed:
            heapq.heappush(heap, (-pairs[neighbours], neighbours))
    return tokens

# ---- second pass: text -> ids -> files ---------------------------------------------------------------------

def encode(item):                                             # work: a chunk's ids
    split, text = item
    if TOKENIZER.end_id is None:
        text = text.replace("\0", "\n\n")
        ids = TOKENIZER.encode(text)
    else:
        texts, end = text.split("\0"), [TOKENIZER.end_id]
        ids, text = np.concatenate([p for t in texts for p in (end, TOKENIZER.encode(t))][1:]), "".join(texts)
    return split, ids.astype(id_type(TOKENIZER)).tobytes(), len(item[1]), len(text.encode())

def id_type(tokenizer):
    return np.dtype("<u2" if tokenizer.vocab_size < 1 << 16 else "<u4")

def save(path, value):
    aside = path.with_name("aside")
    aside.write_text(json.dumps(value), encoding="utf-8")
    os.replace(aside, path)

def load(path):
    with contextlib.suppress(OSError, ValueError):            # no such file, or not a whole one
        return json.loads(path.read_text(encoding="utf-8"))

def write(o, part, found):
    "Encodes into the folder part, from where an earlier call was stopped. -> meta"
    global TOKENIZER
    TOKENIZER = gpt.load_tokenizer(found["tokenizer"])
    dtype, saved = id_type(TOKENIZER), time.monotonic()
    start = dict.fromkeys("chunks length train_tokens val_tokens train_bytes val_bytes".split(), 0)
    done = load(part / "progress.json") or start
    with contextlib.ExitStack() as stack:
        files = {split: stack.enter_context(open(part / f"{split}.bin", "ab")) for split in ("train", "val")}
        if any(file.tell() < done[f"{split}_tokens"] * dtype.itemsize for split, file in files.items()):
            done = start                                      # a power cut took some of it
        for split, file in files.items():
            file.truncate(done[f"{split}_tokens"] * dtype.itemsize)
        progress = Progress("encoding", " characters", found["length"], done["length"])
        items = itertools.islice(stream(o, found["at"]), done["chunks"], None)
        for split, ids, length, size in spread(encode, items, o, found["tokenizer"]):
            files[split].write(ids)
            news = {"chunks": 1, "length": length, f"{split}_tokens": len(ids) // dtype.itemsize,
                    f"{split}_bytes": size}
            done |= {name: done[name] + n for name, n in news.items()}
            progress.show(done["length"])
            if time.monotonic() > saved + SAVE_EVERY:
                saved = time.monotonic()
                for file in files.values():
                    file.flush()
                save(part / "progress.json", done)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
        progress.end()
    return {"level": o.level, "vocab_size": TOKENIZER.vocab_size, "dtype": dtype.name, **done}

# ---- all of it ---------------------------------------------------------------------------------------------

def prepare(o):
    "-> the folder, made unless it is here already."
    found, one = [find(source) for source in o.sources], o.sources[0]
    o.train, o.val = (list(itertools.chain(*inputs)) for inputs in zip(*found))
    o.train = o.train[:o.shards or None]
    corpus = not Path(one).exists() and CORPORA.get(one) or Corpus("", "", [])
    o.separator = o.separator or corpus.separator
    parents = {Path(source).parent.name for source in o.sources}
    o.data = o.name or (one if len(o.sources) == 1 else "".join(parents) if len(parents) == 1 else "")
    o.data = "stdin" if o.data == "-" else o.data or "text"
    folder = gpt.corpus_folder(o)
    part = folder.with_name(folder.name + ".part")
    with alone(folder), gpt.blame(f"{part} can't be written", OSError, kind=gpt.Failure):
        recipe, meta = recipe_of(o), load(folder / "meta.json") or {}
        if meta.get("recipe") == recipe:
            return tell(folder, meta, "is already here")
        for source in [s for s in o.train if s.startswith("hf:")]:
            i, (train, val) = o.train.index(source), hub_splits(source)
            o.train[i:i + 1], o.val = train, o.val + val
        o.train, o.val = ([local(source, corpus.sha256) for source in inputs] for inputs in (o.train, o.val))
        found = load(part / "survey.json") or {}
        if found.get("recipe") != recipe:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            found = {**survey(o), "recipe": recipe}
            save(part / "survey.json", found)
        if corpus.edition and found["sha256"] != corpus.edition[1] and not o.strip_gutenberg:
            print(f"note: {one} was edited by its publisher: {found['length']:,} characters, sha256 "
                  f"{found['sha256'][:8]}; our published figures are for {corpus.edition[0]:,}, "
                  f"{corpus.edition[1][:8]}", file=sys.stderr)
        meta = {**write(o, part, found), "source": " ".join(o.sources), **found}
        for name in ("survey.json", "progress.json"):
            (part / name).unlink(missing_ok=True)
        save(part / "meta.json", meta)
        old = folder.with_name(folder.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():                                   # a run that reads it keeps it open
            folder.rename(old)
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    return tell(folder, meta, "is ready")

def recipe_of(o):
    "What a folder was made from and how: where this hasn't changed, there is nothing to do."
    names = ["level", "field", "separator", "strip_gutenberg", "encoding", "errors"]
    names += ["val_fraction"] * (not o.val) + ["min_freq"] * (o.level == "word")
    names += ["vocab_size", "sample_mb"] * (o.level == "bpe" and o.vocab_size > 0)
    files = [(f, os.path.isfile(f) and (os.path.getsize(f), os.path.getmtime(f))) for f in o.train + o.val]
    return {"files": str(files), **{name: getattr(o, name) for name in names}}

def local(source, sha256):
    "A URL, or standard input -> a file"
    url, mark, members = source.partition("::")
    if "://" in url:
        return f"{download(url, sha256)}{mark}{members}"
    if source != "-":
        return source
    path = RAW / f"stdin-{os.getpid()}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    atexit.register(path.unlink)
    with open(path, "wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return str(path)

def tell(folder, meta, what):
    print(f"{folder} {what}: {meta['train_tokens']:,} tokens to train on, {meta['val_tokens']:,} for "
          f"validation, a vocabulary of {meta['vocab_size']:,}\n"
          f"next: python gpt.py train --data {folder} --level {meta['level']}")
    return folder

if __name__ == "__main__":
    with gpt.problems_told():
        OPTIONS = command_line(sys.argv[1:])
        try:
            list_corpora() if OPTIONS.sources == ["list"] else prepare(OPTIONS)
        except KeyboardInterrupt:
            print("\nstopped; the same command goes on from here", file=sys.stderr)
            raise SystemExit(130)
