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
import argparse, ast, atexit, base64, bz2, codecs, contextlib, csv, errno, fnmatch, glob, gzip, hashlib
import heapq, http.client, io, itertools, json, lzma, multiprocessing, os, re, shutil, signal, sys, tempfile
import threading, time, types, urllib.error, urllib.request, zipfile
from collections import Counter, defaultdict, deque
from concurrent.futures import ProcessPoolExecutor
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

def upper_half_of_gpt():
    """gpt.py down to its line `import torch`: flags, errors and tokenizers. Without torch this file starts in
    a moment, works where torch is not installed, and saves 200 MB in each of its processes."""
    if "gpt" in sys.modules:
        return sys.modules["gpt"]
    path = Path(__file__).resolve().with_name("gpt.py")
    module = types.ModuleType("gpt_upper_half")
    module.__file__ = str(path)
    sys.modules["gpt_upper_half"] = module                    # dataclasses look their module up by name
    source = path.read_text(encoding="utf-8").partition("\nimport torch\n")[0]
    exec(compile(source, path, "exec"), vars(module))
    return module

gpt = upper_half_of_gpt()
RAW = Path("data/raw")                                        # downloads
CHUNK = 1 << 18                                               # characters that travel together
SMALL = 8 << 20                                               # bytes: less isn't worth starting processes
SPELLINGS = 500_000                                           # of words, to choose a vocabulary from
PATIENCE = 0.5                                                # seconds between two tries, at first
SAVE_EVERY = 5                                                # seconds between two notes of what is encoded

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
WIKI2 = "https://wikitext.smerity.com/wikitext-2-raw-v1.zip::*"
WIKI103 = "https://wikitext.smerity.com/wikitext-103-raw-v1.zip::*"
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
    "builtin": Corpus("0.1 MB", "PSF: Python's own manual", ["builtin"])}

# ---- the command line --------------------------------------------------------------------------------------

@dataclass
class Options:
    "how text becomes tokens"
    level: Literal["char", "word", "bpe"] = gpt.KNOBS["level"]
    val_fraction: float = gpt.KNOBS["val_fraction"]
    min_freq: int = gpt.KNOBS["min_freq"]
    vocab_size: int = gpt.KNOBS["vocab_size"]
    sample_mb: int = gpt.knob(10, "learn a bpe from this many MB of the text", "sample_mb >= 1")
    name: str = gpt.knob("", "make data/NAME-LEVEL; empty: named like the source")
    field: str = gpt.knob("text", "what holds the text in a .jsonl, .csv, .parquet or dataset")
    separator: str = gpt.knob("", "what stands between two documents in a text file")
    strip_gutenberg: bool = gpt.knob(False, "leave out Project Gutenberg's header and licence")
    encoding: str = gpt.knob("utf-8-sig", "how text files are written: utf-16, cp1252 and so on")
    errors: Literal["strict", "replace", "ignore"] = gpt.knob("strict", "what to do with undecodable bytes")
    shards: int = gpt.knob(0, "use only the first N files of a corpus; 0: all", "shards >= 0")
    workers: int = gpt.knob(0, "chunks encoded at a time; 0: one per core", "workers >= 0")
    # No flags, so without help: what stands on the command line beside the flags, and the inputs behind it.
    sources: list = ()
    json: bool = False
    train: list = ()                                          # files, URLs, hf:NAME:CONFIG:SPLIT, -, builtin
    val: list = ()                                            # the same; empty: the end of train

def command_line(words):
    parser = gpt.Parser(usage="python data.py list | SOURCE ... [--OPTION VALUE ...]", description=__doc__,
                        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="as above; several become one corpus")
    parser.add(parser, "json", "the list as JSON, for programs", action="store_true")
    parser.add_knobs(Options.__doc__, gpt.knobs(Options))
    words = words or ["--help"]
    asked, unknown = parser.parse_known_intermixed_args(words)    # sources may stand before and behind flags
    gpt.check_known([word.partition("=")[0] for word in unknown], parser.flags)
    options = gpt.fill(Options, vars(asked))
    options.sources = asked.sources
    options.json = "json" in asked
    gpt.expect(options.sources.count("-") < 2, "-, standard input, can be read only once")
    options.separator = options.separator.replace("\\n", "\n")  # as a shell hands it over
    if options.json:
        gpt.expect(options.sources == ["list"], "--json is for the list: python data.py list --json")
    with gpt.explain("--encoding", LookupError):
        codecs.lookup(options.encoding)
    return options

KINDS = (".txt", ".md", ".jsonl", ".csv", ".parquet")

def find(source):
    "What a person may call a text -> what to train on and what to validate on: files, URLs, hf:..., -"
    gpt.expect(source, "an empty SOURCE: give a file, a folder, an address, or a name from the list that "
               "python data.py list shows")
    if is_address(source):
        with gpt.explain(f"{source} is no address", ValueError):
            scheme = urlsplit(source).scheme
        gpt.expect(scheme, f"{source} is no address: expected something like https://host/text.txt")
        return [source], []
    path = Path(source)
    if path.is_dir():
        files = text_files(path)
        gpt.expect(files, f"{source} is a folder without any {' '.join(KINDS)}")
        return files, []
    if path.exists() or source == "-" or source.startswith("hf:"):
        return [source], []
    if source in CORPORA:
        return CORPORA[source].train, CORPORA[source].val
    files = sorted(file for file in glob.glob(source, recursive=True) if os.path.isfile(file))
    gpt.expect(files, f"{source}: no such file, and no such corpus: {gpt.nearest(source, CORPORA)}")
    return files, []

def is_address(source):
    "os.path, since Path's own functions raise for long names; addresses with a signature are long."
    return "://" in source and not os.path.exists(source)

def text_files(folder):
    "Those in a folder and in the folders inside; nothing that is hidden, as .git is."
    files = []
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if kind_of(path) in (*KINDS, ".zip") and not hidden and path.is_file():
            files.append(str(path))
    return sorted(files)

def kind_of(name):
    "a/b.TXT.gz -> .txt"
    path = Path(name)
    while path.suffix.lower() in OPENERS:
        path = path.with_suffix("")
    return path.suffix.lower()

def members_of(archive, pattern):
    "Names in a zip: what a pattern finds, else its texts, else all."
    names = [name for name in archive.namelist() if not name.endswith("/")]
    names = [name for name in names if not name.startswith("__MACOSX")]
    if pattern:
        return fnmatch.filter(names, pattern)
    return [name for name in names if kind_of(name) in KINDS] or names

def list_corpora(as_json):
    "What is known of each corpus, and what of it is already here."
    corpora = []
    for name, corpus in CORPORA.items():
        urls = {source.partition("::")[0] for source in (*corpus.train, *corpus.val) if "://" in source}
        fetched = sum(raw_file(url).exists() for url in urls)
        here = sorted(meta.parent.name for meta in Path("data").glob(f"{name}-*/meta.json"))
        if fetched:
            here.insert(0, f"{fetched} of {len(urls)} files")
        corpora.append({
            "name": name,
            "size": corpus.size,
            "validation": "its own" if corpus.val else "the end",
            "licence": corpus.licence,
            "here": here,
            "source": corpus.train[0].partition("::")[0],
        })
    if as_json:
        print(json.dumps({"corpora": corpora}))
    else:
        print_table(corpora)

def print_table(corpora):
    rows = [["corpus", "size", "validation", "licence", "here", "source"]]
    for corpus in corpora:
        here = ", ".join(corpus["here"]) or "-"
        rows.append(list({**corpus, "here": here}.values()))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())

# ---- download: what is missing of a file, until it is whole ------------------------------------------------

class Progress:
    "One line that is drawn again and again; in a log, a new line now and then."

    def __init__(self, what, unit, total=0, done=0):
        self.what = what
        self.unit = unit
        self.total = total                                    # 0: nobody knows
        self.done_before = done                               # by an earlier call
        self.on_terminal = sys.stderr.isatty()
        self.started = time.monotonic()
        self.next_time = self.started
        if not self.on_terminal:
            self.next_time += 10                              # what takes less needs no line in a log

    def show(self, done):
        now = time.monotonic()
        if now < self.next_time:
            return
        speed = max(done - self.done_before, 1e-9) / max(now - self.started, 1e-9)
        line = f"{self.what}: {gpt.short(done)}{self.unit}, {gpt.short(speed)}{self.unit}/s"
        if self.total:
            time_left = gpt.clock((self.total - done) / speed)
            line += f", {done / self.total:.0%} of {gpt.short(self.total)}{self.unit}, {time_left} left"
        if self.on_terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{line[:width]}\033[K", end="", file=sys.stderr, flush=True)
            self.next_time = now + 0.2
        else:
            print(line, file=sys.stderr, flush=True)
            self.next_time = now + 30

    def end(self):
        if self.on_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

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
            except OSError:                                   # not every file system has locks
                pass
        yield

def raw_file(url):
    "Where a download is kept. The suffix stays, since it tells the format."
    name = re.sub(r"[^\w.-]+", "_", unquote(Path(urlsplit(url).path).name), flags=re.ASCII)
    return RAW / f"{hashlib.sha256(url.encode('utf-8', 'replace')).hexdigest()[:8]}-{name[-80:]}"

def ask(url, **headers):
    "Follows redirects and honours proxy variables, as urllib does. The token goes to its own host only."
    url = quote(url, safe=":/?#[]@!$&'()*+,;=%")              # as people type it, with é and spaces
    request = urllib.request.Request(url, headers={"User-Agent": "Mozilla/5.0 (data.py)", **headers})
    token = os.environ.get("HF_TOKEN", "").strip()
    if token and urlsplit(url).scheme == "https" and urlsplit(url).hostname == "huggingface.co":
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    return urllib.request.urlopen(request, timeout=30)

def size_of(path):
    return path.stat().st_size if path.exists() else 0

def fetch_rest(url, part, version):
    "One connection's worth of a file, behind what is there of it. Raises if that isn't all."
    have = size_of(part)
    headers = {}
    if have:
        headers["Range"] = f"bytes={have}-"
    if have and size_of(version):
        headers["If-Range"] = version.read_text()             # if the file has changed meanwhile, send it all
    try:
        answer = ask(url, **headers)
    except urllib.error.HTTPError as error:
        if error.code != 416:                                 # "there is nothing behind what you have"
            raise
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return
        part.unlink(missing_ok=True)
        raise ConnectionError("the server has less of it than has come") from None
    with answer:
        if answer.status != 206:                              # a server may ignore Range, and begin again
            have = 0
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise ConnectionError("the server sent another part than the one asked for")
        receive(answer, part, version, have)

def receive(answer, part, version, have):
    "What a server sends, behind the first bytes of a file."
    length = answer.headers.get("Content-Length", "")
    if length and not length.isdecimal():
        raise ValueError(f"the server says Content-Length: {length}")
    total = have + int(length) if length else 0
    tag = answer.headers.get("ETag", "")
    if not tag or tag.startswith("W/"):                       # a weak one, which says nothing about bytes
        tag = answer.headers.get("Last-Modified", "")
    with open(part, "ab" if have else "wb") as file:
        # Not before open(): by now, the bytes of an older version are gone.
        version.write_text(tag)
        progress = Progress(f"fetching {part.stem}", "B", total, have)
        while block := answer.read1(1 << 18):
            file.write(block)
            file.flush()                                      # whatever happens now, it has come
            have += len(block)
            progress.show(have)
        progress.end()
    if length and have != total:
        raise ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")

def download(url, sha256=""):
    "-> the file, fetched if it isn't here. Trouble on the way costs patience, but nothing that has come."
    path = raw_file(url)
    part = path.with_name(path.name + ".part")
    version = path.with_name(path.name + ".version")
    with alone(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        failures = 0                                          # one after another, with no byte in between
        answered = False                                      # whether the server was ever reached
        while not path.exists():
            before = size_of(part)
            try:
                fetch_rest(url, part, version)
                version.unlink(missing_ok=True)
                check_sha256(part, sha256 or published_sha256(url), url)
                os.replace(part, path)
            except (OSError, ValueError, http.client.HTTPException) as error:
                unreachable = type(error) is urllib.error.URLError      # an HTTPError is an answer
                answered = answered or size_of(part) > 0 or not unreachable
                failures = 0 if size_of(part) > before else failures + 1
                if failures == 5 or not answered or hopeless(error):
                    raise gpt.RunError(f"can't fetch {url}: {reason_of(error, url)}; the same command goes "
                                       f"on from what has come, or takes {path}, if you have it from "
                                       "elsewhere") from error
                time.sleep(PATIENCE * min(2 ** failures, 60))
    return path

def hopeless(error):
    "Whether asking again would mend nothing."
    if isinstance(error, urllib.error.HTTPError):
        return 400 <= error.code < 500 and error.code not in (408, 425, 429)
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return isinstance(error, (ValueError, http.client.InvalidURL))

def reason_of(error, url):
    if not isinstance(error, urllib.error.HTTPError):
        return str(getattr(error, "reason", error)) or type(error).__name__
    if error.code in (401, 403) and "huggingface" in url:
        return f"{error}; may you read it? Set HF_TOKEN"
    return str(error)

def published_sha256(url):
    "Hugging Face has a file's checksum in its repository, where others have the file."
    if "/resolve/" not in url:
        return ""
    with contextlib.suppress(OSError, http.client.HTTPException):
        with ask(url.replace("/resolve/", "/raw/")) as answer:
            found = re.search(rb"oid sha256:(\w{64})", answer.read(200))
            if found:
                return found[1].decode()
    return ""

def check_sha256(part, sha256, url):
    if not sha256:
        return
    found = hashlib.sha256()
    with open(part, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    if found.hexdigest() != sha256:
        part.unlink()
        raise gpt.RunError(f"{url} came with sha256 {found.hexdigest()} instead of {sha256} and was removed; "
                           "the same command fetches it again")

# ---- files -> documents: pieces of text; with a zero character a new document begins -----------------------

@contextlib.contextmanager
def readable(source):
    try:
        yield
    except gpt.UserError:
        raise
    except Exception as error:                                # every format has its own for a broken file
        why = " ".join(str(error).split())
        raise gpt.RunError(f"{source} can't be read: {type(error).__name__}: {why:.200}") from error

def open_zst(file):
    with contextlib.suppress(ImportError):
        from compression import zstd                          # Python 3.14 has it
        return zstd.open(file)
    reader = gpt.need("zstandard").ZstdDecompressor(max_window_size=1 << 31)
    return io.BufferedReader(reader.stream_reader(file, read_across_frames=True), 1 << 17)

OPENERS = {".gz": gzip.open, ".zst": open_zst, ".bz2": bz2.open, ".xz": lzma.open}

def documents(source, options):
    "All that one input holds."
    path, _, pattern = (source, "", "") if os.path.exists(source) else source.partition("::")
    with readable(source):
        if source == "builtin":
            yield "\0" + gpt.read_text("builtin")
        elif source.startswith("hf:"):
            name, config, split = source[3:].split(":")
            rows = gpt.need("datasets").load_dataset(name, config or None, split=split)
            yield from marked(field_of_rows(rows, source, options))
        elif Path(path).suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                for name in members_of(archive, pattern):
                    with archive.open(name) as file:
                        yield from parsed(file, name, options)
        else:
            with open(path, "rb") as file:
                yield from parsed(file, path, options)

GUTENBERG = re.compile(r"\*\*\* ?START OF TH(?:E|IS) PROJECT GUTENBERG EBOOK.{,400}?\*\*\*\s*(.*?)\s*"
                       r"\*\*\* ?END OF TH(?:E|IS) PROJECT GUTENBERG EBOOK", re.S)

def parsed(file, name, options):
    "An open file -> documents, by its name."
    while (kind := Path(name).suffix.lower()) in OPENERS:
        file = OPENERS[kind](file)
        name = str(Path(name).with_suffix(""))
    if kind in (".jsonl", ".csv", ".parquet"):
        rows = rows_of(file, kind, options)
        yield from marked(field_of_rows(rows, name, options))
        return
    blocks = decoded(file, name, options)
    if options.strip_gutenberg:
        book = GUTENBERG.search("".join(blocks))
        gpt.expect(book, f"{name} has not both of Project Gutenberg's markers: leave --strip_gutenberg out")
        yield from marked([book[1]])
    elif options.separator:
        yield from marked(separated(blocks, options.separator))
    else:                                                     # one document, as long as it may be
        mark = "\0"
        for text in blocks:
            if text:
                yield mark + text
                mark = ""

def marked(texts):
    "Documents with their mark. Web pages may hold zeros, halves of characters, and other ends of lines."
    for text in texts:
        text = text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")
        text = text.encode("utf-8", "replace").decode().strip()
        if text:
            yield "\0" + text

def separated(blocks, separator):
    begun, end = [], ""                                       # of a document; its end may begin a separator
    for block in blocks:
        *texts, rest = (end + block).split(separator)
        for text in texts:
            yield "".join(begun) + text
            begun = []
        sure = max(0, len(rest) - len(separator) + 1)
        begun.append(rest[:sure])
        end = rest[sure:]
    yield "".join(begun) + end

def rows_of(file, kind, options):
    "A table's rows, as dicts."
    if kind == ".parquet":
        return parquet_rows(file, options.field)
    lines = io.TextIOWrapper(file, options.encoding, options.errors, newline="" if kind == ".csv" else "\n")
    if kind == ".jsonl":
        return (json.loads(line) for line in lines if line.strip())
    csv.field_size_limit(1 << 30)
    return csv.DictReader(lines)

def parquet_rows(file, field):
    if not file.seekable():                                   # it is read from its end
        unpacked = tempfile.TemporaryFile()
        shutil.copyfileobj(file, unpacked)
        file = unpacked
    parquet = gpt.need("pyarrow.parquet", "pyarrow").ParquetFile(file)
    names = parquet.schema_arrow.names
    if field not in names:
        yield dict.fromkeys(names)                            # for field_of_rows() to complain about
        return
    for batch in parquet.iter_batches(64, columns=[field]):
        yield from batch.to_pylist()

def field_of_rows(rows, name, options):
    "The texts in a table."
    field = options.field
    for n, row in enumerate(rows, 1):
        names = list(row) if isinstance(row, dict) else []
        gpt.expect(field in names, f"{name}: row {n} has no field {field}: give --field, and of "
                   f"{', '.join(map(str, names)) or 'none'} the one with the text")
        text = row[field] or ""
        gpt.expect(isinstance(text, str), f"{name}: field {field} of row {n} holds no text, but {text!r:.40}")
        yield text

def decoded(file, name, options):
    "A text file, block by block. All kinds of line ends become one."
    decoder = codecs.getincrementaldecoder(options.encoding)(options.errors)
    decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
    offset = 0
    while True:
        block = file.read(CHUNK)
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            # The decoder saw the end of the last block once more: error.object is longer than block.
            place = offset + len(block) - len(error.object) + error.start
            byte = error.object[error.start]
            expected = options.encoding.removesuffix("-sig")
            raise gpt.UserError(f"{name} is not {expected}: byte {byte:#x} at offset {place:,}; say how it "
                                "is written, as --encoding cp1252 or utf-16, or read on with --errors "
                                "replace") from None
        gpt.expect("\0" not in text, f"{name} is not text: there is a zero byte behind offset {offset:,}")
        yield text
        offset += len(block)
        if not block:
            return

def hub_splits(source):
    "hf:OWNER/NAME[:CONFIG][:SPLIT] -> what to train on and what to validate on, as hf:NAME:CONFIG:SPLIT"
    datasets = gpt.need("datasets")
    name, *more = source[3:].split(":")
    config = ""
    with readable(source):
        if more and more[0] in datasets.get_dataset_config_names(name):
            config = more.pop(0)
        splits = more or datasets.get_dataset_split_names(name, config or None)
    train = "train" if "train" in splits else splits[0]
    val = [split for split in splits if split in ("validation", "valid", "val", "dev") and split != train]
    return [f"hf:{name}:{config}:{train}"], [f"hf:{name}:{config}:{split}" for split in val[:1]]

# ---- documents -> chunks: where one ends, every tokenizer would cut as well --------------------------------

SAFE = re.compile(r".*[^\s\0](?=[ \n\0])", re.S)              # up to the last space behind a word

def stream(options, val_start=sys.maxsize):
    """-> (train or val, a chunk of text), in order. val_start: the character at which validation begins, in a
    corpus that has no split of its own for it."""
    current = None
    kept = ""
    for split, piece in divided(options, val_start):
        if split != current:
            if kept:
                yield current, kept
            current = split
            kept = piece.removeprefix("\0")                   # nothing stands before the first document
        else:
            kept += piece
        while len(kept) >= CHUNK:
            safe = SAFE.match(kept, 0, CHUNK)
            end = safe.end() if safe else CHUNK               # so much without a space: cut it anywhere
            yield split, kept[:end]
            kept = kept[end:]
    if kept:
        yield current, kept

def divided(options, val_start):
    "-> (train or val, a piece of text)"
    train_left = val_start + 1                                # the mark of the first document doesn't count
    for piece in short_pieces(options.train, options):
        if train_left > 0:
            yield "train", piece[:train_left]
        if train_left < len(piece):
            yield "val", piece[max(train_left, 0):]
        train_left -= len(piece)
    for piece in short_pieces(options.val, options):
        yield "val", piece

def short_pieces(inputs, options):
    "All documents; those that are long in several pieces."
    for source in inputs:
        for document in documents(source, options):
            for start in range(0, len(document), CHUNK):
                yield document[start:start + CHUNK]

# ---- work for all cores ------------------------------------------------------------------------------------

TOKENIZER = None                                              # each process has its own, for encode()

def start_worker(tokenizer_state):
    "The first thing that a worker process does."
    global TOKENIZER
    signal.signal(signal.SIGINT, signal.SIG_IGN)              # Ctrl-C is for the parent, which ends them
    threading.Thread(target=end_with_parent, daemon=True).start()
    if tokenizer_state:
        TOKENIZER = gpt.load_tokenizer(tokenizer_state)

def end_with_parent():
    "A parent that was killed can't end its workers: they would wait for work for ever."
    multiprocessing.parent_process().join()
    os._exit(1)

def spread(work, chunks, options, tokenizer_state=None):
    """work(chunk) for each chunk, in order: in processes, unless the text is so short that starting them
    costs more. Threads take twice as long on two cores, since only one thread at a time runs Python."""
    if sum(map(size_of_input, options.train)) < SMALL:
        yield from map(work, chunks)
        return
    workers = options.workers or core_count()
    if sys.platform == "win32":
        workers = min(workers, 61)                            # it can wait for no more
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    killed = "a worker process was killed, maybe for want of memory: try --workers 1"
    with ProcessPoolExecutor(workers, context, start_worker, (tokenizer_state,)) as pool:
        with gpt.explain(killed, BrokenProcessPool, kind=gpt.RunError):
            results = deque()
            for chunk in chunks:
                results.append(pool.submit(work, chunk))
                if len(results) > workers + 2:                # enough for nobody to wait, little to remember
                    yield results.popleft().result()
            while results:
                yield results.popleft().result()

def size_of_input(source):
    "In bytes. What is no file of its own, as a dataset, counts as not small."
    return os.path.getsize(source) if os.path.isfile(source) else SMALL

def core_count():
    if hasattr(os, "sched_getaffinity"):                      # Linux: those that this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count()

# ---- first pass: how long it is, where documents end, what it consists of ----------------------------------

class Thinned:
    "Items of a stream, evenly spread over it, at most so many, however long it gets."

    def __init__(self, room):
        self.items = []
        self.room = room
        self.step = 1                                         # every step-th item is kept
        self.seen = 0

    def add(self, item):
        if self.seen % self.step == 0:
            self.items.append(item)
        self.seen += 1
        if len(self.items) > self.room:
            self.items = self.items[::2]
            self.step *= 2

class Survey:
    "What the first pass finds out about a text while it flows by."

    def __init__(self, options):
        self.options = options
        self.length = Counter()                               # of train and val, in characters
        self.sha256 = hashlib.sha256()
        self.document_ends = Thinned(1 << 16)                 # in train
        self.sample = Thinned(4 * options.sample_mb)          # chunks, a quarter of a MB each, for an own bpe

    def watch(self, chunks):
        "Hands chunks on, and measures them."
        learns_bpe = self.options.level == "bpe" and self.options.vocab_size > 0
        progress = Progress("measuring", " characters")
        for split, text in chunks:
            if split == "train":
                for mark in re.finditer("\0", text):
                    self.document_ends.add(self.length[split] + mark.start())
            self.length[split] += len(text)
            self.sha256.update(text.encode())
            if learns_bpe:
                self.sample.add(text)
            progress.show(self.length.total())
            yield split, text
        progress.end()

    def val_start(self):
        "Where validation begins in a text that is cut: at the end of a document, if one is near."
        length = self.length["train"]
        wanted = int((1 - self.options.val_fraction) * length)
        nearest = min(self.document_ends.items, key=lambda end: abs(end - wanted), default=wanted)
        near_enough = (length - wanted) // 2                  # a few long documents may have no end nearby
        return nearest if abs(nearest - wanted) <= near_enough else wanted

def survey(options):
    "-> what the second pass has to know: the tokenizer, how long the text is, and where validation begins"
    found = Survey(options)
    tokenizer = make_tokenizer(found.watch(stream(options)), found.sample, options)
    gpt.expect(found.length["train"], f"{' '.join(options.sources)}: there is no text in it")
    val_start = sys.maxsize if options.val else found.val_start()
    return {"tokenizer": tokenizer.state, "at": val_start, "length": found.length.total(),
            "sha256": found.sha256.hexdigest()}

def make_tokenizer(chunks, sample, options):
    "Reads all chunks, and learns from them what is a token. sample: some of those that were read."
    if options.level == "char":
        seen = np.zeros(0x110000, bool)                       # for each code point
        for code_points in spread(characters, chunks, options):
            seen[code_points] = True
        return gpt.CharTokenizer("".join(map(chr, np.flatnonzero(seen))))
    if options.level == "word":
        counts = Counter()
        for counts_of_chunk in spread(words, chunks, options):
            counts.update(counts_of_chunk)
            if len(counts) > SPELLINGS:                       # memory stays flat: the rarest are forgotten
                counts = Counter(dict(counts.most_common(SPELLINGS // 2)))
        return gpt.WordTokenizer.from_counts(counts, options.min_freq)
    tokenizer = None
    if options.vocab_size == 0:
        tokenizer = gpt.BPETokenizer.train("", options)       # GPT-2's; first, since it may need a network
    for _ in chunks:                                          # to be measured
        pass
    return tokenizer or learn_bpe(sample.items, options.vocab_size)

def characters(chunk):
    "Work: those in a chunk, as code points."
    _, text = chunk
    seen = np.zeros(0x110000, bool)
    seen[np.frombuffer(text.replace("\0", "\n\n").encode("utf-32-le"), np.uint32)] = True
    return np.flatnonzero(seen)

def words(chunk):
    "Work: those in a chunk, and how often."
    _, text = chunk
    return Counter(gpt.WordTokenizer.cut(text.replace("\0", "\n\n")))

def learn_bpe(texts, size):
    "Tokens of one's own, from the pieces that GPT-2 cuts a text into; no token reaches over their ends."
    pattern = gpt.need("regex").compile(gpt.BPETokenizer.pattern)
    counts = Counter()
    for document in "\0".join(texts).split("\0"):
        counts.update(pattern.findall(document))
    # Long pieces would take for ever, and teach no more than their parts.
    for piece in [piece for piece in counts if len(piece) > 64]:
        n = counts.pop(piece)
        for start in range(0, len(piece), 64):
            counts[piece[start:start + 64]] += n
    tokens = merge_bytes(counts, size - 1)                    # the last one ends a document
    return gpt.BPETokenizer(" ".join(base64.b64encode(token).decode() for token in tokens))

def merge_bytes(counts, size):
    """Byte-pair encoding: start from the 256 bytes, merge the commonest pair of neighbours into a new token,
    repeat. counts: pieces of text, and how often they stand there. -> the tokens, as bytes, in order."""
    tokens = [bytes([byte]) for byte in range(256)]
    id_of = {token: i for i, token in enumerate(tokens)}      # two ways to merge may meet in the same bytes
    pieces = [(list(piece.encode()), n) for piece, n in sorted(counts.items())]
    pair_counts = Counter()
    pieces_with = defaultdict(set)                            # pair -> the pieces that it stands in
    for p, (ids, n) in enumerate(pieces):
        for pair in zip(ids, ids[1:]):
            pair_counts[pair] += n
            pieces_with[pair].add(p)
    heap = [(-n, pair) for pair, n in pair_counts.items()]    # the commonest pair comes out first
    heapq.heapify(heap)
    progress = Progress("learning", " tokens", size, len(tokens))
    while heap and len(tokens) < size:
        progress.show(len(tokens))
        minus_n, pair = heapq.heappop(heap)
        if pair_counts[pair] == 0 or pair_counts[pair] != -minus_n:
            continue                                          # an old count: the heap has the new one, too
        token = tokens[pair[0]] + tokens[pair[1]]
        new = id_of.setdefault(token, len(tokens))
        if new == len(tokens):
            tokens.append(token)
        changed = set()                                       # pairs whose count is another one now
        for p in pieces_with.pop(pair):
            old_ids, n = pieces[p]
            new_ids = merge(old_ids, pair, new)
            before = Counter(zip(old_ids, old_ids[1:]))
            after = Counter(zip(new_ids, new_ids[1:]))
            # A long piece changes in few places: sets find them faster than a loop over all its pairs.
            different = {neighbours for neighbours, _ in before.items() ^ after.items()}
            for neighbours in different:
                pair_counts[neighbours] += n * (after[neighbours] - before[neighbours])
                if after[neighbours]:
                    pieces_with[neighbours].add(p)
            changed |= different
            pieces[p] = new_ids, n
        for neighbours in changed:
            heapq.heappush(heap, (-pair_counts[neighbours], neighbours))
    progress.end()
    return tokens

def merge(ids, pair, new):
    "Puts the id new wherever the pair stands."
    merged = []
    i = 0
    while i < len(ids):
        if ids[i] == pair[0] and i + 1 < len(ids) and ids[i + 1] == pair[1]:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged

# ---- second pass: text -> ids -> files ---------------------------------------------------------------------

def encode(chunk):
    "Work: -> train or val, a chunk's ids as bytes, its length in characters, and in bytes of text"
    split, text = chunk
    length = len(text)
    if TOKENIZER.end_id is None:
        text = text.replace("\0", "\n\n")
        ids = TOKENIZER.encode_to_numpy(text)
    else:
        texts = text.split("\0")
        text = "".join(texts)
        parts = []
        for document in texts:
            parts.append([TOKENIZER.end_id])
            parts.append(TOKENIZER.encode_to_numpy(document))
        ids = np.concatenate(parts[1:])                       # ends stand between documents
    return split, ids.astype(id_type(TOKENIZER)).tobytes(), length, len(text.encode())

def id_type(tokenizer):
    return np.dtype("<u2" if tokenizer.vocab_size < 1 << 16 else "<u4")

def save_json(path, value):
    aside = path.with_name("aside")
    aside.write_text(json.dumps(value), encoding="utf-8")
    os.replace(aside, path)

def load_json(path):
    "-> what is in a file; nothing if there is none, or not a whole one"
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}

def write(options, part, found):
    "Encodes into the folder part, from where an earlier call was stopped. -> meta"
    global TOKENIZER
    TOKENIZER = gpt.load_tokenizer(found["tokenizer"])
    dtype = id_type(TOKENIZER)
    counts = ("chunks", "length", "train_tokens", "val_tokens", "train_bytes", "val_bytes")
    with open(part / "train.bin", "ab") as train, open(part / "val.bin", "ab") as val:
        files = {"train": train, "val": val}
        done = load_json(part / "progress.json")
        bytes_done = {split: done.get(f"{split}_tokens", 0) * dtype.itemsize for split in files}
        if not done or any(files[split].tell() < bytes_done[split] for split in files):
            done = dict.fromkeys(counts, 0)                   # a first call, or a power cut took some of it
            bytes_done = dict.fromkeys(files, 0)
        for split, file in files.items():
            file.truncate(bytes_done[split])                  # what was written after the last note
        saved_at = time.monotonic()
        progress = Progress("encoding", " characters", found["length"], done["length"])
        chunks = itertools.islice(stream(options, found["at"]), done["chunks"], None)
        for split, ids, length, text_bytes in spread(encode, chunks, options, found["tokenizer"]):
            files[split].write(ids)
            done["chunks"] += 1
            done["length"] += length
            done[f"{split}_tokens"] += len(ids) // dtype.itemsize
            done[f"{split}_bytes"] += text_bytes
            progress.show(done["length"])
            if time.monotonic() > saved_at + SAVE_EVERY:
                saved_at = time.monotonic()
                train.flush()
                val.flush()
                save_json(part / "progress.json", done)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
        progress.end()
    return {"level": options.level, "vocab_size": TOKENIZER.vocab_size, "dtype": dtype.name, **done}

# ---- all of it ---------------------------------------------------------------------------------------------

def prepare(options):
    "-> the folder, made unless it is here already."
    options.train, options.val = find_all(options.sources, options.shards)
    first = options.sources[0]
    known = [source for source in options.sources if source in CORPORA and not os.path.exists(source)]
    corpora = [CORPORA[source] for source in known]
    corpus = corpora[0] if corpora and len(options.sources) == 1 else Corpus("", "", [])
    separators = [one.separator for one in corpora if one.separator]
    options.separator = options.separator or "".join(separators[:1])
    folder = folder_of(options)
    part = folder.with_name(folder.name + ".part")
    with alone(folder), gpt.explain(f"{part} can't be written", OSError, kind=gpt.RunError):
        recipe = recipe_of(options)
        meta = load_json(folder / "meta.json")
        if meta.get("recipe") == recipe and is_whole(folder, meta):
            return report(folder, meta, "is already here")
        if corpus.train and not options.shards and is_beginning(meta.get("recipe", {}), recipe) \
                and is_whole(folder, meta):
            print(f"note: {folder} has the first files of {first}; --shards {len(options.train)} takes all",
                  file=sys.stderr)
            return report(folder, meta, "is already here")
        ours = meta or not folder.exists() or not any(folder.iterdir())
        gpt.expect(ours, f"{folder} is there, and data.py did not make it: give a --name")
        if not options.name and meta.get("recipe"):
            check_name(folder, meta, recipe)
        meta = load_json(part / "meta.json")
        if meta.get("recipe") != recipe or not is_whole(part, meta):  # else all but the end was done
            make_local(options)
            found = load_json(part / "survey.json")
            if found.get("recipe") != recipe:
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir(parents=True)
                found = {**survey(options), "recipe": recipe}
                save_json(part / "survey.json", found)
            if corpus.edition and not options.strip_gutenberg:
                note_an_edit(first, corpus.edition, found)
            meta = {**write(options, part, found), "source": " ".join(options.sources), **found}
            save_json(part / "meta.json", meta)
        put_in_place(part, folder)
        for notes in ("survey.json", "progress.json"):        # not before: an error would cost all the work
            (folder / notes).unlink(missing_ok=True)
    return report(folder, meta, "is ready")

def is_beginning(made, recipe):
    "Whether a folder was made of a corpus's first files (--shards), and else in the same way."
    begun = str(made.get("files", "")).removesuffix("]") + ", "
    return recipe["files"].startswith(begun) and {**made, "files": ""} == {**recipe, "files": ""}

def is_whole(folder, meta):
    "Whether no file of it was lost or cut since."
    size = np.dtype(meta["dtype"]).itemsize
    expected = {split: size * meta[f"{split}_tokens"] for split in ("train", "val")}
    return all(size_of(folder / f"{split}.bin") == length for split, length in expected.items())

def check_name(folder, meta, recipe):
    "a/posts.jsonl and b/posts.jsonl would have one folder: where no file is the same, the text is another."
    earlier, now = ({Path(file).resolve() for file, _ in ast.literal_eval(its["files"])}
                    for its in (meta["recipe"], recipe))
    gpt.expect(earlier & now, f"{folder} holds another text, made from {meta['source']:.200}: "
                              f"python data.py ... --name NAME makes a folder of its own for this one")

def find_all(sources, shards=0):
    "shards: of each source, the first so many files alone"
    train = []
    val = []
    for source in sources:
        with gpt.explain(f"{source:.200} can't be looked through", OSError, kind=gpt.RunError):
            found_train, found_val = find(source)
        train += found_train[:shards or None]
        val += found_val
    return train, val

def folder_of(options):
    "data/NAME-LEVEL; with the flag that makes other tokens of the same text, as data/notes-bpe4096"
    parents = {Path(source).parent.name for source in options.sources}
    if options.name:
        name = options.name
    elif len(options.sources) == 1:
        name = options.sources[0]
    elif len(parents) == 1:
        name = parents.pop()                                  # files of one folder
    else:
        name = "text"
    if name == "-":
        name = "stdin"
    if is_address(name):
        name = unquote(urlsplit(name).path)                   # without a signature
    place = Path(name.split("*")[0])                          # of a/*.txt: a
    whole = options.name or place.is_dir() or name.startswith("hf:")
    name = place.name if whole else place.stem                # of a/b.txt: b
    name = re.sub(r"[^\w.-]", "_", name)[:60] or "text"
    variant = ""
    if options.level == "word" and options.min_freq != gpt.KNOBS["min_freq"].default:
        variant = options.min_freq
    if options.level == "bpe" and options.vocab_size:
        variant = options.vocab_size
    return Path("data") / f"{name}-{options.level}{variant}"

def recipe_of(options):
    "What a folder was made from and how: where this hasn't changed, there is nothing to do."
    names = ["level", "field", "separator", "strip_gutenberg", "encoding", "errors"]
    if not options.val:
        names.append("val_fraction")
    if options.level == "word":
        names.append("min_freq")
    if options.level == "bpe" and options.vocab_size:
        names += ["vocab_size", "sample_mb"]
    files = [(source, stamp_of(source)) for source in (*options.train, *options.val)]
    return {"files": str(files), **{name: getattr(options, name) for name in names}}

def stamp_of(source):
    "What differs when the text does."
    if source == "-":
        return time.time()                                    # it never comes twice
    if os.path.isfile(source):
        return os.path.getsize(source), os.path.getmtime(source)
    return False

def make_local(options):
    "Fetches what is elsewhere: from now on the inputs are files, and datasets with their splits."
    name = folder_of(options).name                            # whose lock is held
    train = []
    hub_val = []
    for source in options.train:
        if source.startswith("hf:"):
            splits = hub_splits(source)
            train += splits[0]
            hub_val += splits[1]
        else:
            train.append(local_file(source, name))
    options.val = [local_file(source, name) for source in options.val] + hub_val
    options.train = train

def local_file(source, name):
    "A URL, or standard input -> a file"
    if source == "-":
        return str(save_stdin(name))
    if not is_address(source):
        return source
    url, mark, pattern = source.partition("::")
    sha256 = ""
    for corpus in CORPORA.values():
        if source in (*corpus.train, *corpus.val):
            sha256 = corpus.sha256
    return f"{download(url, sha256)}{mark}{pattern}"

def save_stdin(name):
    "It can be read only once, and the text is read twice. One that a kill left is written over."
    path = RAW / f"stdin-{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    atexit.register(path.unlink, missing_ok=True)
    with open(path, "wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return path

def note_an_edit(name, edition, found):
    length, sha256 = edition
    if found["sha256"] != sha256:
        print(f"note: {name} was edited by its publisher: {found['length']:,} characters, sha256 "
              f"{found['sha256'][:8]}; our published figures are for {length:,}, {sha256[:8]}",
              file=sys.stderr)

def put_in_place(part, folder):
    "A run that reads the old folder keeps it open."
    old = folder.with_name(f"{folder.name}.old-{os.getpid()}")  # no name that a person would give
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    with contextlib.suppress(OSError):                        # what a person has laid into it stays, in old
        for name in ("meta.json", "train.bin", "val.bin", "survey.json", "progress.json", "aside"):
            (old / name).unlink(missing_ok=True)
        old.rmdir()

def report(folder, meta, what):
    "Two lines for a person, and a last one for gpt.py, which reads the folder's name there."
    print(f"{folder} {what}: {meta['train_tokens']:,} tokens to train on, {meta['val_tokens']:,} for "
          f"validation, a vocabulary of {meta['vocab_size']:,}")
    print(f"next: python gpt.py train --data {folder} --level {meta['level']}")
    print(folder)
    return folder

def main(words):
    options = command_line(words)
    try:
        if options.sources == ["list"]:
            list_corpora(options.json)
        else:
            prepare(options)
    except KeyboardInterrupt:
        again = "the same command goes on from here"
        if "-" in options.sources:
            again = "what came on standard input is gone: the same command begins anew"
        print(f"\nstopped; {again}", file=sys.stderr)
        raise SystemExit(130) from None

if __name__ == "__main__":
    with gpt.errors_told():
        main(sys.argv[1:])
