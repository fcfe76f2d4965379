"""The time-lapse of Watch: the samples of a run one after the other, babble that turns into English."""
import array
import contextlib
import itertools
import json
import re
from pathlib import Path

from textual import on, work
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from runs import clean, fixed, plain_file
from screens.basics import BARS, DIM, KEY, Words, bits, hidden

WORD = re.compile(r"[^\W\d_]{3,}")               # shorter ones are hit by chance
ANY_WORD = re.compile(r"[^\W\d_]+")              # and these are known by the one beside them
PACKED = {".gz", ".zst", ".bz2", ".xz", ".zip", ".parquet"}  # files whose bytes are no text
MOST_TEXT = 20_000_000                           # bytes that are read to know a text's words
PLAYING_SECONDS = 10                             # that all samples take together
SLOWEST = 0.8                                    # seconds a sample is shown while they are played, at most
QUICKEST = 0.1
LIT = "bold $text-success"
UNLIT = "$foreground 55%"


def words_of(text):
    return {word.lower() for word in WORD.findall(text)}


def pairs_of(text):
    "The pairs of words that stand side by side."
    found = [word.lower() for word in ANY_WORD.findall(text)]
    return set(itertools.pairwise(found))


def prepared_text(folder):
    "The start of a text as data.py prepared it, by characters or by words; or nothing."
    if not plain_file(folder / "meta.json") or not plain_file(folder / "train.bin"):
        return ""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        about = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        tokenizer = about["tokenizer"]
        pieces = tokenizer["words"][1:] if "words" in tokenizer else tokenizer["characters"]
        pieces = ["", *pieces]                   # 0 is what it does not know
        ids = array.array({"uint16": "H", "uint32": "I"}[about["dtype"]])
        with open(folder / "train.bin", "rb") as file:
            ids.frombytes(file.read(MOST_TEXT // 4))
        between = " " if "words" in tokenizer else ""
        return between.join(pieces[i] for i in ids if i < len(pieces))
    return ""


def vocabulary(data, look_for=words_of):
    """-> all words of a training text, or what else is looked for in it, and what it is called. Where it is
    not at hand: of Python's manual."""
    path = Path(data)
    if plain_file(path) and path.suffix.lower() not in PACKED:
        with contextlib.suppress(OSError), open(path, "rb") as file:
            text = file.read(MOST_TEXT).decode("utf-8", "replace")
            return look_for(text), f"its training text, {clean(path.name)}"
    for folder in path, Path("data") / f"{data}-char", Path("data") / f"{data}-word":
        text = prepared_text(folder)
        if text:
            return look_for(text), f"its training text, {clean(path.name)}"
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return set(), ""
    source = "Python's manual"
    if data == "builtin":
        source = "its training text, Python's manual"
    return look_for(" ".join(topics.values())), source


def lit(text, words):
    """A sample with the words that exist in bright; where pairs are given for words, those that stand beside
    one another as they do in the training text. -> its parts, how many were lit, and of how many"""
    are_pairs = isinstance(next(iter(words), ""), tuple)
    parts = []
    end = 0
    known = 0
    found = list((ANY_WORD if are_pairs else WORD).finditer(text))
    lowered = [match[0].lower() for match in found]
    for at, match in enumerate(found):
        exists = lowered[at] in words
        if are_pairs:
            before = tuple(lowered[max(0, at - 1):at + 1])
            after = tuple(lowered[at:at + 2])
            exists = before in words or after in words
        known += exists
        parts.append((text[end:match.start()], UNLIT))
        parts.append((match[0], LIT if exists else UNLIT))
        end = match.end()
    parts.append((text[end:], UNLIT))
    return parts, known, len(found)


class Slider(Widget):
    "Bars of values over a rail with a knob on it; the mouse puts it anywhere."

    DEFAULT_CSS = "Slider { height: 3; padding: 0 1; }"
    at = reactive(0)                             # the value under the knob
    values = reactive([])

    class Moved(Message):
        def __init__(self, at):
            super().__init__()
            self.at = at

    def render(self):
        width = self.content_size.width
        if not self.values or width < 2:
            return ""
        last = len(self.values) - 1
        here = self.at * (width - 1) // max(1, last)
        heights = self.heights()
        columns = [heights[round(column * last / (width - 1))] for column in range(width)]
        parts = []
        for base in 8, 0:                        # two rows of bars
            row = "".join((" " + BARS)[max(0, min(8, height - base))] for height in columns)
            parts += [(row[:here + 1], "$text-primary"), (row[here + 1:], "$foreground 25%"), "\n"]
        parts += [("━" * here, "$text-primary"), ("●", "bold $text-accent")]
        parts.append(("━" * (width - here - 1), "$foreground 25%"))
        return bits(*parts)

    def heights(self):
        "Each value as a number of eighths, from 1 to 16; 0 where it is not known."
        known = [value for value in self.values if value is not None]
        low = min(known, default=0)
        span = max(known, default=0) - low or 1
        return [0 if value is None else 1 + int((value - low) / span * 15) for value in self.values]

    def on_mouse_down(self, event):
        self.capture_mouse()
        self.put_at(event.x)

    def on_mouse_move(self, event):
        if event.button:
            self.put_at(event.x)

    def on_mouse_up(self):
        self.release_mouse()

    def put_at(self, x):
        last = len(self.values) - 1
        at = round((x - 1) * last / max(1, self.content_size.width - 1))
        self.post_message(self.Moved(max(0, min(last, at))))


class TimeLapse(Vertical, can_focus=False):
    "The samples of a run, one after the other: the same prompt and the same dice, only the weights differ."

    DEFAULT_CSS = """
    TimeLapse {
        display: none;
        #first { height: 6; }
        #middle { display: none; }
        #all { display: none; height: 1fr; margin: 1 0; padding: 0 2; text-wrap: nowrap; }
        #meaning { height: 2; padding: 0 1; }
    }
    """
    BINDINGS = [
        Binding("space", "play", "Play"),
        Binding("left,left_square_bracket", "step(-1)", "Earlier"),
        Binding("right,right_square_bracket", "step(1)", "Later"),
        hidden("home", "jump(0)", "First sample"),
        hidden("end", "jump(-1)", "Newest sample"),
        Binding("escape", "screen.lapse", "Back"),
    ]

    def __init__(self):
        super().__init__()
        self.about = None                        # whose samples these are: folder, data and level
        self.samples = []                        # (step, text), the oldest first
        self.losses = []                         # the validation loss at each of them, or None
        self.is_of_words = False                 # a model of words says none but words: its pairs are lit
        self.words = set()                       # what is lit
        self.source = ""                         # where these words stand
        self.at = 0
        self.timer = None

    def compose(self):
        with Vertical(id="lapse"):
            for name in "first", "middle", "now":
                with VerticalScroll(id=name, classes="pane", can_focus=False):
                    yield Words()
        yield Words(id="all")
        yield Slider()
        yield Words(id="meaning")

    def put(self, run):
        "Show this run's samples. Who looks at the newest goes on to do so when one more comes."
        train = run.part("train")                # not known of a run that has just begun
        about = run.folder, train.get("data", ""), train.get("level")
        if about != self.about:
            self.about = about
            self.halt()
            self.samples = []
            self.words = set()
            self.source = ""
            self.is_of_words = train.get("level") == "word"
            self.learn_words(about)
        follows = self.at >= len(self.samples) - 1
        newest = {}
        for step, text in run.samples:
            newest.setdefault(step, text)        # of two at one step the later one
        self.samples = sorted(newest.items())
        losses = {found.step: found.val for found in run.evals}
        self.losses = [losses.get(step) for step, _ in self.samples]
        last = max(0, len(self.samples) - 1)
        self.at = last if follows else min(self.at, last)
        self.show()

    @work(thread=True, exclusive=True)
    def learn_words(self, about):
        _, data, level = about
        found = vocabulary(str(data), pairs_of if level == "word" else words_of)
        self.app.call_from_thread(self.know, about, *found)

    def know(self, about, words, source):
        if about != self.about:                  # another run is shown by now
            return
        self.words = words
        self.source = source
        self.show()

    def show(self):
        slider = self.query_one(Slider)
        slider.values = self.losses
        slider.at = self.at
        count = len(self.samples)
        for name, at, least in ("first", 0, 2), ("middle", self.at // 2, 3), ("now", self.at, 0):
            pane = self.query_one(f"#{name}")
            pane.set_class(count < least, "-again")  # it would show what another one shows
            self.show_sample(pane, name, at)
        self.query_one("#all", Words).put(*self.lines())
        self.query_one("#meaning", Words).put(*self.meaning())

    def lines(self):
        "Where there is room: the start of each sample in a line, as many as fit around the one shown."
        width, height = self.query_one("#all").content_size
        count = max(0, min(height, len(self.samples)))
        first = max(0, min(self.at - count // 2, len(self.samples) - count))
        for at in range(first, first + count):
            step, text = self.samples[at]
            is_here = at == self.at
            loss = fixed(self.losses[at])
            head = (f"{'●' if is_here else ' '} {step:>9,}  {loss:>7}  ", KEY if is_here else DIM)
            parts, _, _ = lit(" ".join(text.split()), self.words)
            yield bits(head, *parts).truncate(width) + "\n"

    def show_sample(self, pane, name, at):
        if not self.samples:
            pane.border_title = pane.border_subtitle = ""
            pane.query_one(Words).put(("No sample yet: the first comes with step 0.", DIM))
            return
        step, text = self.samples[at]
        parts, known, of = lit(text.strip("\n"), self.words)
        title = f"step {step:,}"
        if self.losses[at] is not None:
            title += f" · loss {fixed(self.losses[at])}"
        if self.words:
            title += f" · {known} of {of} lit"
        pane.border_title = title
        pane.border_subtitle = name
        if name == "now":
            pane.border_subtitle = f"{at + 1} of {len(self.samples)}"
        pane.query_one(Words).put(*parts)

    def meaning(self):
        "What is seen, in two lines."
        keys = "← →", "space"
        yield from [(keys[0], KEY), " or the mouse: step by step   ", (keys[1], KEY)]
        yield " stops" if self.timer else " plays"
        yield ("   bars: loss\n", DIM)
        if self.source:
            yield ("lit", LIT)
            what = "words of 3 letters or more from"
            if self.is_of_words:
                what = "words side by side as in"
            yield (f": {what} {self.source}", DIM)

    def move(self, at):
        if self.samples:
            self.at = max(0, min(len(self.samples) - 1, at))
            self.show()

    def halt(self):
        if self.timer:
            self.timer.stop()
        self.timer = None

    def action_step(self, by):
        self.halt()
        self.move(self.at + by)

    def action_jump(self, to):
        self.halt()
        self.move(to % max(1, len(self.samples)))

    @on(Slider.Moved)
    def slide(self, event):
        self.halt()
        self.move(event.at)

    def action_play(self):
        "From here to the end; from the end, all of it."
        if self.timer:
            self.halt()
            self.show()
            return
        if self.at == len(self.samples) - 1:
            self.at = 0
        pause = PLAYING_SECONDS / max(1, len(self.samples))
        self.timer = self.set_interval(max(QUICKEST, min(SLOWEST, pause)), self.play_on)
        self.show()

    def play_on(self):
        if self.at >= len(self.samples) - 1:
            self.halt()
        self.move(self.at + 1)
