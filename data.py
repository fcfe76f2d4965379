"""data.py: any text -> a folder of tokens that gpt.py trains on, of any size, in the memory of a laptop.

    python data.py list                                     the corpora it knows, and what is already here
    python data.py sherlock --level word                    fetched once, then data/sherlock-word/
    python data.py my_notes/*.md essay.txt                  your own text: files, globs, folders, zips, URLs
    python data.py posts.jsonl.gz --field body              one document in each line, or row of a .csv
    cat *.log | python data.py - --name logs                what comes in on standard input
    python data.py tinystories --level bpe --vocab_size 4096        with tokens learned from the corpus
    python data.py hf:OWNER/NAME:CONFIG:SPLIT --level bpe   a dataset of Hugging Face, by its datasets package
    python gpt.py train --data tinystories --level bpe      runs this file by itself, where it has to

Reads .txt .md .jsonl .csv .parquet, plain or as .gz .zst .bz2 .xz .zip; anything else as plain text. Stop it when
you like: the same command goes on from there, with downloads and with encoding. More: python data.py --help

Text flows through twice, in chunks: once to measure it and collect a vocabulary, once to be encoded by all cores.
    source -> files -> documents -> chunks -> ids -> train.bin, val.bin
"""
import argparse, base64, bz2, codecs, contextlib, csv, dataclasses, difflib, errno, fnmatch, functools, glob
import gzip, hashlib, heapq, http.client, io, itertools, json, lzma, multiprocessing, os, re, shutil, signal
import sys, threading, time, urllib.error, urllib.parse, urllib.request, zipfile
from collections import Counter, defaultdict, deque
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

try:
    import fcntl
except ImportError:                                           # Windows
    fcntl = None

RAW = Path("data/raw")                                        # downloads
CHUNK = 1 << 18                                               # characters that travel together

# ---- the corpora: facts ------------------------------------------------------------------------------------

@dataclasses.dataclass
class Corpus:
    "FILE.zip::PATTERN: only these members. Without val, the end of train is for validation."
    licence: str
    size: str
    train: list
    val: list = ()
    sha256: str = ""                                          # of the file, where the publisher fixes it
    edition: tuple = ()                                       # characters and sha256 of a text that may change
    separator: str = ""                                       # what stands between documents in a text file

HUB = "https://huggingface.co/datasets/"
WIKITEXT, MAHONEY = "https://wikitext.smerity.com/wikitext-", "http://mattmahoney.net/dc/"
STORIES = HUB + "roneneldan/TinyStories/resolve/main/TinyStoriesV2-GPT4-"
CORPORA = {
    "sherlock": Corpus(
        "public domain in the US (Project Gutenberg licence)", "0.6 MB",
        ["https://www.gutenberg.org/cache/epub/1661/pg1661.txt"],
        edition=(581421, "ef923f736dc2dbac4fa82378045f63caccd861d636c65ab9d6dc86ab2cee85c4")),
    "shakespeare": Corpus(
        "public domain", "1.1 MB",
        ["https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"],
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"),
    "wikitext2": Corpus(
        "CC BY-SA 3.0, GFDL", "4.7 MB zipped", [WIKITEXT + "2-raw-v1.zip::*train*"], [WIKITEXT + "2-raw-v1.zip::*valid*"],
        "ef7edb566e3e2b2d31b29c1fdb0c89a4cc683597484c3dc2517919c615435a11"),
    "wikitext103": Corpus(
        "CC BY-SA 3.0, GFDL", "192 MB zipped",
        [WIKITEXT + "103-raw-v1.zip::*train*"], [WIKITEXT + "103-raw-v1.zip::*valid*"],
        "91c00ae287f0d699e18605c84afc9e45c192bc6b7797ff8837e5474655a33794"),
    "tinystories": Corpus(
        "CDLA-Sharing 1.0", "2.3 GB", [STORIES + "train.txt"], [STORIES + "valid.txt"], separator="<|endoftext|>"),
    "fineweb-edu": Corpus(
        "ODC-By 1.0", "28 GB in 14 shards",
        [f"{HUB}HuggingFaceFW/fineweb-edu/resolve/main/sample/10BT/{i:03}_00000.parquet" for i in range(14)]),
    "openwebtext": Corpus(
        "CC0 (the packaging)", "24 GB in 80 shards",
        [f"{HUB}Skylion007/openwebtext/resolve/main/plain_text/train-{i:05}-of-00080.parquet" for i in range(80)]),
    "text8": Corpus(
        "CC BY-SA, GFDL (Wikipedia)", "31 MB zipped", [MAHONEY + "text8.zip"],
        sha256="a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232"),
    "enwik8": Corpus(
        "CC BY-SA, GFDL (Wikipedia)", "36 MB zipped", [MAHONEY + "enwik8.zip"],
        sha256="547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc"),
    "builtin": Corpus("PSF (Python's own manual)", "0.5 MB, comes with Python", ["builtin"])}

# ---- the command line --------------------------------------------------------------------------------------

class Parser(argparse.ArgumentParser):
    def error(self, message):
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(2)

parser = Parser(prog="python data.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                usage="python data.py SOURCE [SOURCE ...] [--OPTION VALUE ...]", allow_abbrev=False)
parser.add_argument("sources", nargs="+", metavar="SOURCE", help="list, a corpus, file, glob, folder, URL, hf:..., -")
for name, what in {"level": "char, word or bpe: what a token is", "min_freq": "word: rarer ones become <unk>",
                   "vocab_size": "bpe: learn so many tokens from the text; 0: GPT-2's 50,257",
                   "val_fraction": "the part at the end of the text that is for validation, where the corpus "
                                   "has none of its own"}.items():
    parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help=f"{what} [as in gpt.py]")
for name, default, what in (
        ("name", "", "data/NAME-LEVEL is the folder to make [from the source]"),
        ("field", "text", "which field of a .jsonl, .csv, .parquet or dataset holds the text"),
        ("separator", "", "what stands between the documents of a text file, as <|endoftext|> may"),
        ("encoding", "utf-8-sig", "how text files are written: utf-16, cp1252, ..."),
        ("errors", "strict", "bytes that are no text: strict stops there, replace and ignore go on"),
        ("shards", 0, "only so many of a corpus's files; 0: all"),
        ("sample_mb", 16, "bpe with --vocab_size: learn the tokens from so much of the text, evenly spread"),
        ("workers", 0, "how many encode at a time; 0: as many as there are cores")):
    parser.add_argument(f"--{name}", default=default, type=type(default), help=f"{what} [{default}]")
parser.add_argument("--strip_gutenberg", action="store_true", help="leave out Project Gutenberg's header and licence")

KINDS, PACKED = (".txt", ".md", ".jsonl", ".csv", ".parquet"), (".gz", ".zst", ".bz2", ".xz", ".zip")

def is_text(path):                                            # by its name: as a folder's files are chosen
    path = path.with_suffix("") if path.suffix in PACKED[:-1] else path
    return path.suffix in (*KINDS, ".zip")

def find(source):
    "What a person may call a text -> the inputs to train on and those to validate on: files, URLs, hf:..., -"
    path = Path(source)
    if path.is_dir():
        files = sorted(str(p) for p in path.rglob("*") if p.is_file() and is_text(p)
                       and not any(part.startswith(".") for part in p.relative_to(path).parts))
        if not files:
            parser.error(f"{source} is a folder without any {' '.join(KINDS)}")
        return files, []
    if path.exists() or source == "-" or source.startswith("hf:") or "://" in source:
        return [source], []
    if source in CORPORA:
        return list(CORPORA[source].train), list(CORPORA[source].val)
    if files := sorted(f for f in glob.glob(source, recursive=True) if os.path.isfile(f)):
        return files, []
    close = difflib.get_close_matches(source, CORPORA, n=1)
    parser.error(f"{source}: no such file, and no corpus of that name: "
                 + (f"did you mean {close[0]}?" if close else f"there is {', '.join(CORPORA)}"))

def list_corpora():
    "The table, and what is already here."
    rows = [["name", "size", "validation", "licence", "here"]]
    for name, corpus in CORPORA.items():
        urls = {url.split("::")[0] for url in (*corpus.train, *corpus.val)}
        loaded = sum(raw_file(url).exists() for url in urls)
        here = ["downloaded" if loaded == len(urls) else f"{loaded} of {len(urls)} files"] * (loaded > 0)
        here += sorted(p.parent.name for p in Path("data").glob(f"{name}-*/meta.json"))
        rows.append([name, corpus.size, "its own" if corpus.val else "the end", corpus.licence, ", ".join(here)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    print("\nfrom:", *(f"    {name:12} {corpus.train[0]}" for name, corpus in CORPORA.items()), sep="\n")

def raw_file(url):                                            # the suffix stays: it tells the format
    name = re.sub(r"[^\w.-]+", "_", urllib.parse.unquote(Path(urllib.parse.urlsplit(url).path).name))
    return RAW / f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{name[-80:]}"

def command_line(words):
    words = [re.sub("^--[^=]+", lambda flag: flag[0].replace("-", "_").replace("__", "--", 1), w) for w in words]
    if not words:
        words = ["--help"]
    o = parser.parse_args(words)
    if o.sources == ["list"]:
        raise SystemExit(list_corpora())
    found = [find(source) for source in o.sources]
    o.train, o.val = (list(itertools.chain(*inputs)) for inputs in zip(*found))
    if o.shards:
        o.train = o.train[:o.shards]
    return o

if __name__ == "__main__":                                    # list, --help and typos are answered here,
    ASKED = command_line(sys.argv[1:])                        # before torch takes its second to arrive

import gpt

# ---- download: what is left of a file, until it is whole ---------------------------------------------------

class Progress:
    "One line that is drawn again and again; in a log, a new line now and then."
    def __init__(self, what, unit, total=0, done=0):
        self.what, self.unit, self.total, self.first, self.live = what, unit, total, done, sys.stderr.isatty()
        self.began = time.monotonic()
        self.due = self.began + (0 if self.live else 10)

    def show(self, done):
        now = time.monotonic()
        if now >= self.due:
            self.due = now + (0.2 if self.live else 30)
            speed = (done - self.first) / max(now - self.began, 1e-9)
            line = f"{self.what}: {gpt.short(done)}{self.unit}, {gpt.short(speed)}{self.unit}/s"
            if self.total:
                left = gpt.clock((self.total - done) / max(speed, 1e-9))
                line += f", {done / self.total:.0%} of {gpt.short(self.total)}{self.unit}, {left} left"
            print(f"\r{line[:100]}\033[K" if self.live else line, end="" if self.live else "\n", file=sys.stderr,
                  flush=True)

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

def ask(url, **headers):
    "Follows redirects and honours proxy variables, as urllib does; the token goes to its own host only."
    request = urllib.request.Request(url, headers={"User-Agent": "Mozilla/5.0 (data.py)", **headers})
    if os.environ.get("HF_TOKEN") and re.match(r"https://([\w.-]+\.)?huggingface\.co/", url):
        request.add_unredirected_header("Authorization", f"Bearer {os.environ['HF_TOKEN']}")
    return urllib.request.urlopen(request, timeout=30)

def fetch_rest(url, part):
    "One connection's worth of a file, after what is there of it. Raises OSError if it didn't end well."
    have, version = part.stat().st_size if part.exists() else 0, part.with_name(part.name + ".version")
    headers = {}
    if have and version.exists():                             # if the file has changed meanwhile, send it all
        headers = {"Range": f"bytes={have}-", "If-Range": version.read_text()}
    try:
        answer = ask(url, **headers)
    except urllib.error.HTTPError as e:
        if e.code != 416:
            raise
        if e.headers.get("Content-Range") == f"bytes */{have}":  # nothing is left
            return
        part.unlink()
        raise ConnectionError("the server has less of it than we have")
    with answer:
        goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if answer.status == 206 and not goes_on:
            part.unlink()
            raise ConnectionError("the server sent another part than the one asked for")
        have *= goes_on                                       # a server may ignore Range: from the start, then
        total = have + int(answer.headers.get("Content-Length") or 0)
        tag = answer.headers.get("ETag", "W/")
        tag = answer.headers.get("Last-Modified", "") if tag.startswith("W/") else tag
        progress = Progress(f"fetching {Path(urllib.parse.urlsplit(url).path).name}", "B", total * (total > have), have)
        with open(part, "ab" if goes_on else "wb", buffering=0) as file:
            version.unlink(missing_ok=True)
            if tag:
                version.write_text(tag)
            while block := answer.read1(1 << 18):
                file.write(block)
                have += len(block)
                progress.show(have)
        progress.end()
        if answer.headers.get("Content-Length") and have != total:
            raise ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")

def published_sha256(url):
    "Hugging Face keeps a file's checksum in its repository, where the file itself would be."
    with contextlib.suppress(OSError, http.client.HTTPException):
        if "/resolve/" in url:
            with ask(url.replace("/resolve/", "/raw/")) as answer:
                pointer = re.search(rb"oid sha256:(\w{64})", answer.read(200))
            return pointer[1].decode() if pointer else ""
    return ""

def download(url, sha256="", tries=5):
    "-> the file, fetched if it isn't here yet. Trouble on the way costs patience, but nothing that has come."
    path = raw_file(url)
    part = path.with_name(path.name + ".part")
    with alone(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        failed, met = 0, part.exists()
        while not path.exists():
            before = part.stat().st_size if part.exists() else 0
            try:
                fetch_rest(url, part)
                sha256 = sha256 or published_sha256(url)
                if sha256:
                    with open(part, "rb") as file:
                        found = hashlib.file_digest(file, "sha256").hexdigest()
                    if found != sha256:
                        part.unlink()
                        raise gpt.Failure(f"{url}: its sha256 is {found}, where {sha256} was expected: removed it; "
                                          "the same command fetches it again")
                os.replace(part, path)
                part.with_name(part.name + ".version").unlink(missing_ok=True)
            except (OSError, http.client.HTTPException) as e:
                if getattr(e, "errno", 0) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise gpt.Failure(f"{part}: {e.strerror}: make room, and the same command goes on from here")
                met = met or not isinstance(e, urllib.error.URLError) or isinstance(e, urllib.error.HTTPError)
                grown = (part.stat().st_size if part.exists() else 0) > before
                failed = 0 if grown else failed + 1
                code = getattr(e, "code", 500)                # 4xx: asking again would not help
                if failed == tries or not met or 400 <= code < 500 and code not in (408, 425, 429):
                    why = f"{type(e).__name__}: {e}" if str(e) else type(e).__name__
                    hint = ("; if you may read it, set HF_TOKEN" if code in (401, 403) and "huggingface" in url else
                            "" if code in (404, 410) else "; the same command goes on from what has come")
                    raise gpt.Failure(f"can't fetch {url}: {why}{hint} (or put the file there yourself: {path})")
                time.sleep(min(2 ** failed, 30) * PATIENCE)
    return path

PATIENCE = 0.5                                                # seconds before the first new try

# ---- files -> documents: pieces of text, a document's first one begins with a zero character ----------------

def open_zst(file):
    with contextlib.suppress(ImportError):
        from compression import zstd                          # Python 3.14 has it
        return zstd.open(file)
    reader = gpt.need("zstandard").ZstdDecompressor(max_window_size=1 << 31)
    return io.BufferedReader(reader.stream_reader(file, read_across_frames=True), 1 << 17)

OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": open_zst}

def decoded(file, name, o):
    "A text file, block by block. Line ends become \\n."
    with gpt.blame(f"--encoding {o.encoding}, --errors {o.errors}", LookupError):
        decoder = codecs.getincrementaldecoder(o.encoding)(o.errors)
        codecs.lookup_error(o.errors)
    decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
    for start in itertools.count(0, CHUNK):
        block = file.read(CHUNK)
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as e:
            place = start + len(block) - len(e.object) + e.start
            raise gpt.Problem(f"{name} is not {o.encoding.removesuffix('-sig')}: at offset {place:,} is a byte {e.object[e.start]:#x}: say how it "
                              "is written, as --encoding utf-16 or cp1252, or read on with --errors replace")
        gpt.expect("\0" not in text, f"{name} is not text: there is a zero byte near offset {start:,}")
        yield text
        if not block:
            return

GUTENBERG = re.compile(r"\*\*\* ?START OF TH(?:E|IS) PROJECT GUTENBERG EBOOK.{,400}?\*\*\*\s*(.*?)\s*"
                       r"\*\*\* ?END OF TH(?:E|IS) PROJECT GUTENBERG EBOOK", re.S)

def rows(file, kind, name, o):
    "A document for each row of a table: what stands in its field."
    if kind == ".parquet":
        table = gpt.need("pyarrow.parquet", "pyarrow").ParquetFile(file)
        known = table.schema_arrow.names
        found = (batch.to_pylist() for batch in table.iter_batches(64, columns=[o.field]))
        table_rows = itertools.chain.from_iterable(found) if o.field in known else iter([dict.fromkeys(known)])
    elif kind == ".csv":
        csv.field_size_limit(1 << 30)
        table_rows = csv.DictReader(io.TextIOWrapper(file, o.encoding, o.errors, newline=""))
    else:
        table_rows = (json.loads(line) for line in file if line.strip())
    for n, row in enumerate(table_rows, 1):
        yield field(row, n, name, o)

def field(row, n, name, o):
    known = list(row) if isinstance(row, dict) else []
    gpt.expect(o.field in known, f"{name}: row {n} has no field {o.field}: --field takes "
               f"{' or '.join(map(str, known)) or 'a name, but there are none'}")
    text = row[o.field] or ""
    gpt.expect(isinstance(text, str), f"{name}: field {o.field} of row {n} holds no text: {text!r:.40}")
    return text

def parsed(file, name, o):
    "An open file -> documents."
    while Path(name).suffix in OPENERS:
        file, name = OPENERS[Path(name).suffix](file), str(Path(name).with_suffix(""))
    kind = Path(name).suffix.lower()
    if kind in (".parquet", ".csv", ".jsonl"):
        yield from documents_of(rows(file, kind, name, o))
    elif o.strip_gutenberg:
        book = GUTENBERG.search("".join(decoded(file, name, o)))
        gpt.expect(book, f"{name} has not both of Project Gutenberg's markers: leave --strip_gutenberg out")
        yield from documents_of([book[1]])
    elif o.separator:
        yield from documents_of(separated(decoded(file, name, o), o.separator))
    else:
        mark = "\0"
        for text in filter(None, decoded(file, name, o)):
            yield mark + text
            mark = ""

def documents_of(texts):
    for text in texts:                                        # web pages may hold zeros and halves of characters
        if text := text.replace("\0", "").encode("utf-8", "replace").decode().strip():
            yield "\0" + text

def separated(pieces, separator):
    rest = ""
    for piece in pieces:
        *whole, rest = (rest + piece).split(separator)
        yield from whole
    yield rest

def documents(source, o):
    "What one input holds."
    path, _, members = source.partition("::")
    try:
        if source == "builtin":
            yield "\0" + gpt.read_text("builtin")
        elif source.startswith("hf:"):
            name, config, split = source[3:].split(":")
            dataset = gpt.need("datasets").load_dataset(name, config or None, split=split)
            yield from documents_of(field(row, n, source, o) for n, row in enumerate(dataset, 1))
        elif path.endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if not name.endswith("/") and "__MACOSX" not in name and fnmatch.fnmatch(name, members or "*"):
                        with archive.open(name) as file:
                            yield from parsed(file, name, o)
        else:
            with open(path, "rb") as file:
                yield from parsed(file, path, o)
    except gpt.Problem:
        raise
    except Exception as e:                                    # each format has its own for a broken file
        raise gpt.Problem(f"{source} can't be read: {type(e).__name__}: {' '.join(str(e).split()):.200}")

def find_splits(source):
    "hf:OWNER/NAME[:CONFIG][:SPLIT] -> what to train on, what to validate on, each as hf:NAME:CONFIG:SPLIT"
    datasets = gpt.need("datasets")
    name, *more = source[3:].split(":")
    try:
        configs = datasets.get_dataset_config_names(name)
        config = more.pop(0) if more and more[0] in configs else ""
        if not config and len(configs) > 1:
            gpt.expect("default" in configs, f"{source}: say which: hf:{name}:{configs[0]}, or {', '.join(configs[1:])}")
        splits = datasets.get_dataset_split_names(name, config or None)
    except gpt.Problem:
        raise
    except Exception as e:
        raise gpt.Failure(f"{source} can't be had: {type(e).__name__}: {' '.join(str(e).split()):.200}")
    split = more[0] if more else "train" if "train" in splits else splits[0]
    gpt.expect(split.split("[")[0] in splits, f"{source}: {gpt.nearest(split, [*splits, *configs])}")
    val = [] if more else [s for s in ("validation", "valid", "val", "dev") if s in splits][:1]
    return [f"hf:{name}:{config}:{split}"], [f"hf:{name}:{config}:{s}" for s in val]

# ---- documents -> chunks: where one is cut, every tokenizer would cut as well --------------------------------

SAFE = re.compile(r".*[^\s\0](?=[ \n\0])", re.S)              # as far as the last space behind a word

def stream(o, at=sys.maxsize):
    "-> (train or val, a chunk of text), in order. at: where validation begins, unless the corpus knows."
    for split, pieces in itertools.groupby(divided(o, at), key=lambda pair: pair[0]):
        kept, size = [], 0
        for _, piece in pieces:
            kept.append(piece)
            size += len(piece)
            if size >= CHUNK:
                text, start = "".join(kept), 0
                while size - start >= CHUNK:                  # a quarter of a million characters without any
                    safe = SAFE.match(text, start, start + CHUNK)  # space are no words: cut them anyhow
                    end = safe.end() if safe else start + CHUNK
                    yield split, text[start:end]
                    start = end
                kept, size = [text[start:]], size - start
        if size:
            yield split, "".join(kept)

def divided(o, at):
    seen = 0
    for split, inputs in (("train", o.train), ("val", o.val)):
        pieces = (piece for source in inputs for piece in documents(source, o))
        first = next(pieces, "\0")[1:]                        # nothing stands before the first document
        for piece in itertools.chain([first], pieces):
            cut = max(0, at - seen)
            if cut < len(piece):
                head, tail = piece[:cut], piece[cut:]
                if seen <= at:
                    tail = tail.removeprefix("\0")
                if head:
                    yield split, head
                if tail:
                    yield "val", tail
            elif piece:
                yield split, piece
            seen += len(piece)

# ---- work for all cores ------------------------------------------------------------------------------------

def start_worker(tokenizer, parent):
    "In every worker: what it needs all the time. One whose parent was killed would wait for ever: it ends."
    global TOKENIZER
    TOKENIZER = tokenizer
    if os.getpid() != parent:
        signal.signal(signal.SIGINT, signal.SIG_IGN)          # Ctrl-C is the parent's business
        orphan = lambda: (multiprocessing.parent_process().join(), os._exit(1))
        threading.Thread(target=orphan, daemon=True).start()

def spread(work, items, o, tokenizer=None):
    "work(item) for each item, on all cores, in order. numpy and tiktoken let go of Python's lock; words don't."
    workers = o.workers or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count()))
    if o.level == "word" and o.large:
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        kind = functools.partial(ProcessPoolExecutor, mp_context=context)
    else:
        kind = ThreadPoolExecutor
    with kind(workers, initializer=start_worker, initargs=(tokenizer, os.getpid())) as pool:
        waiting = deque()
        with gpt.blame("a worker was killed, maybe for lack of memory: --workers 1 needs least", BrokenProcessPool,
                       kind=gpt.Failure):
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

# ---- first pass: how long is it, where are its documents, what does it consist of ----------------------------

class Thinned:
    "Some of a stream's items, evenly spread over it, at most so many, however long it gets."
    def __init__(self, room):
        self.items, self.room, self.step, self.seen = [], room, 1, 0

    def add(self, item):
        if self.seen % self.step == 0:
            self.items.append(item)
        self.seen += 1
        if len(self.items) > self.room:
            self.items, self.step = self.items[::2], 2 * self.step

def characters(item):                                         # work: those of a chunk, as code points
    seen = np.zeros(0x110000, bool)
    seen[np.frombuffer(item[1].replace("\0", "\n\n").encode("utf-32-le"), np.uint32)] = True
    return np.flatnonzero(seen)

def words(item):                                              # work: those of a chunk, and how often
    return Counter(gpt.WordTokenizer.cut(item[1].replace("\0", "\n\n")))

def survey(o, config):
    "-> what the second pass has to know: the tokenizer, the length, and where validation begins"
    length, sha256, bounds, sample = {"train": 0, "val": 0}, hashlib.sha256(), Thinned(1 << 16), Thinned(4 * o.sample_mb)
    progress = Progress("measuring", " characters")

    def watched():
        for split, text in stream(o):
            for mark in re.finditer("\0", text):
                bounds.add(length[split] + mark.start()) if split == "train" else None
            length[split] += len(text)
            sha256.update(text.encode())
            sample.add(text) if o.level == "bpe" and config.vocab_size else None
            progress.show(sum(length.values()))
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
            if len(counts) > 500_000:                         # memory stays flat: the rarest are forgotten
                counts = Counter(dict(counts.most_common(250_000)))
        tokenizer = gpt.WordTokenizer.from_counts(counts, config.min_freq)
    else:
        for _ in watched():
            pass
        tokenizer = learn_bpe(sample.items, config.vocab_size) if config.vocab_size else gpt.BPETokenizer.train("", config)
    progress.end()
    n = length["train"]
    gpt.expect(n, f"{' '.join(o.sources)}: there is no text in it")
    at = int((1 - config.val_fraction) * n)
    near = min(bounds.items, key=lambda bound: abs(bound - at), default=0)
    if abs(near - at) <= (n - at) // 2:                       # a few long documents have no end nearby
        at = near
    return {"tokenizer": tokenizer.state, "at": sys.maxsize if o.val else at, "characters": sum(length.values()),
            "sha256": sha256.hexdigest()}

def learn_bpe(texts, size):
    "Tokens of one's own. Pieces are what GPT-2 cuts a text into first; a token never reaches over their ends."
    cut, counts = gpt.need("regex").compile(gpt.BPETokenizer.pattern), Counter()
    for text in texts:
        for document in text.split("\0"):
            counts.update(cut.findall(document))
    for piece in [piece for piece in counts if len(piece) > 64]:  # long ones would take for ever, and teach
        n = counts.pop(piece)                                 # no more than their parts
        for i in range(0, len(piece), 64):
            counts[piece[i:i + 64]] += n
    tokens = merge_bytes(counts, size - 1)                    # the last one ends a document
    if len(tokens) < size - 1:
        print(f"note: there is only enough text for a vocabulary of {len(tokens) + 1:,}", file=sys.stderr)
    return gpt.BPETokenizer(" ".join(base64.b64encode(token).decode() for token in tokens))

def merge_bytes(counts, size):
    """Byte-pair encoding. Start from the 256 bytes; merge the commonest pair of neighbours into a new token; repeat.
    counts: pieces of text and how often they stand in the corpus. -> the tokens, as bytes, in order."""
    tokens = [bytes([b]) for b in range(256)]
    ids_of = {token: i for i, token in enumerate(tokens)}           # two ways to merge may meet in the same bytes
    pieces = [(list(piece.encode()), n) for piece, n in sorted(counts.items())]
    pairs, where = Counter(), defaultdict(set)                      # how often a pair stands, and in which pieces
    for p, (ids, n) in enumerate(pieces):
        for pair in zip(ids, ids[1:]):
            pairs[pair] += n
            where[pair].add(p)
    heap = [(-n, pair) for pair, n in pairs.items()]
    heapq.heapify(heap)
    while heap and len(tokens) < size:
        n, pair = heapq.heappop(heap)
        if -n != pairs[pair] or n == 0:                             # an old count: the heap has the new one as well
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

# ---- second pass: text -> ids -> files -----------------------------------------------------------------------

def encode(item):                                             # work: a chunk's ids
    split, text = item
    if TOKENIZER.end_id is None:
        text = text.replace("\0", "\n\n")
        ids = TOKENIZER.encode(text)
    else:
        ids = [part for document in text.split("\0") for part in ([TOKENIZER.end_id], TOKENIZER.encode(document))]
        ids, text = np.concatenate(ids[1:]), text.replace("\0", "")
    return split, ids.astype(id_type(TOKENIZER)).tobytes(), len(item[1]), len(text.encode())

def id_type(tokenizer):
    return np.dtype("<u2" if tokenizer.vocab_size < 1 << 16 else "<u4")

def save_json(path, value):
    aside = path.with_name(path.name + ".aside")
    aside.write_text(json.dumps(value), encoding="utf-8")
    os.replace(aside, path)

def load_json(path):                                          # None if there is none that is whole
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text(encoding="utf-8"))

def write(o, part, found):
    "Encodes into the folder part, from where an earlier call was interrupted. -> tokens and bytes by split"
    tokenizer = gpt.load_tokenizer(found["tokenizer"])
    width, saved = id_type(tokenizer).itemsize, time.monotonic()
    done = load_json(part / "progress.json") or {"chunks": 0, "characters": 0, "train": [0, 0], "val": [0, 0]}
    with contextlib.ExitStack() as stack:
        files = {split: stack.enter_context(open(part / f"{split}.bin", "ab")) for split in ("train", "val")}
        if any(file.tell() < done[split][0] * width for split, file in files.items()):  # after a power cut
            done = {"chunks": 0, "characters": 0, "train": [0, 0], "val": [0, 0]}
        for split, file in files.items():
            file.truncate(done[split][0] * width)
        if done["chunks"]:
            print(f"going on where it stopped: {done['characters'] / found['characters']:.0%}", file=sys.stderr)
        progress = Progress("encoding", " characters", found["characters"], done["characters"])
        items = itertools.islice(stream(o, found["at"]), done["chunks"], None)
        for split, ids, characters, size in spread(encode, items, o, tokenizer):
            files[split].write(ids)
            done["chunks"] += 1
            done["characters"] += characters
            done[split] = [done[split][0] + len(ids) // width, done[split][1] + size]
            progress.show(done["characters"])
            if time.monotonic() > saved + SAVE_EVERY:
                for file in files.values():
                    file.flush()
                save_json(part / "progress.json", done)
                saved = time.monotonic()
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
        progress.end()
    return done

SAVE_EVERY = 5                                                # seconds

def identity(o, config):
    "What the folder depends on: where all this is as it was, there is nothing to do."
    settings = {"char": [], "word": ["min_freq"], "bpe": ["vocab_size"] + ["sample_mb"] * (config.vocab_size > 0)}
    names = ["level", *settings[config.level], *["val_fraction"] * (not o.val)]
    names += ["field", "separator", "encoding", "errors", "strip_gutenberg"]
    files = [[f, *((s.st_size, s.st_mtime_ns) for s in [os.stat(f)])] if os.path.isfile(f) else f for f in o.train + o.val]
    return json.loads(json.dumps({"files": files, **{name: {**vars(o), **vars(config)}[name] for name in names}}))

def prepare(o):
    "All of it: -> the folder."
    asked = {name: getattr(o, name) for name in ("level", "val_fraction", "min_freq", "vocab_size") if hasattr(o, name)}
    places = {Path(source).parent.name for source in o.sources}
    source = o.name or (o.sources[0] if len(o.sources) == 1 else places.pop() if len(places) == 1 else "")
    config = gpt.fill(gpt.TrainConfig, {**asked, "data": "stdin" if source == "-" else source or "text"})
    o.level = config.level
    gpt.expect(o.sample_mb > 0, f"--sample_mb {o.sample_mb}: needs to be 1 or more")
    corpus = CORPORA.get(o.sources[0]) if len(o.sources) == 1 else None
    o.separator = o.separator or (corpus.separator if corpus else "")
    folder = gpt.corpus_folder(config)
    part = folder.with_name(folder.name + ".part")
    with alone(folder):
        made = identity(o, config)
        meta = load_json(folder / "meta.json") or {}
        if meta.get("made") == made:
            return tell(folder, meta, "is already here")
        if any(source.startswith("hf:") for source in o.train):
            pairs = [find_splits(s) if s.startswith("hf:") else ([s], []) for s in o.train]
            o.train, o.val = (list(itertools.chain(*inputs)) for inputs in zip(*pairs))
        o.train, o.val = ([local(s, corpus) for s in inputs] for inputs in (o.train, o.val))
        o.large = sum(os.path.getsize(f) if os.path.isfile(f) else 1 << 26 for f in o.train) >= 1 << 26
        found = load_json(part / "survey.json") or {}
        with gpt.blame(f"{part} can't be written; the same command goes on from here", OSError, kind=gpt.Failure):
            if found.get("made") != made:
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir(parents=True)
                found = survey(o, config) | {"made": made}
                save_json(part / "survey.json", found)
                edition = corpus.edition if corpus and not o.strip_gutenberg else ()
                if edition and found["sha256"] != edition[1]:
                    print(f"note: {o.sources[0]} was edited by its publisher: {found['characters']:,} characters with "
                          f"sha256 {found['sha256'][:8]}..., where the one measured in the README has {edition[0]:,} and "
                          f"{edition[1][:8]}...", file=sys.stderr)
            done = write(o, part, found)
            tokenizer = gpt.load_tokenizer(found["tokenizer"])
            meta = {"level": o.level, "vocab_size": tokenizer.vocab_size, "dtype": id_type(tokenizer).name,
                    "train_tokens": done["train"][0], "val_tokens": done["val"][0], "train_bytes": done["train"][1],
                    "val_bytes": done["val"][1], "source": " ".join(o.sources), "sha256": found["sha256"],
                    "made": made, "tokenizer": found["tokenizer"]}
            for name in ("survey.json", "progress.json"):
                (part / name).unlink(missing_ok=True)
            save_json(part / "meta.json", meta)
            if folder.exists():                               # a run that reads the old one keeps it open
                old = folder.rename(folder.with_name(folder.name + ".old"))
                part.rename(folder)
                shutil.rmtree(old)
            else:
                part.rename(folder)
        for source in o.train:
            if "-" in o.sources and Path(source).name.startswith("stdin"):
                os.unlink(source)
    return tell(folder, meta, "is ready")

def local(source, corpus):
    "A URL or standard input -> a file."
    url, mark, members = source.partition("::")
    if source == "-":
        path = RAW / f"stdin-{os.getpid()}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        return str(path)
    return str(download(url, corpus.sha256 if corpus else "")) + mark + members if "://" in url else source

def tell(folder, meta, what):
    print(f"{folder} {what}: {meta['train_tokens']:,} tokens to train on, {meta['val_tokens']:,} for validation, "
          f"{meta['vocab_size']:,} different ones. Next: python gpt.py train --data {folder} --level {meta['level']}")
    return folder

if __name__ == "__main__":
    with gpt.problems_told():
        try:
            prepare(ASKED)
        except KeyboardInterrupt:
            print("\nstopped: the same command goes on from here", file=sys.stderr)
            raise SystemExit(130)
