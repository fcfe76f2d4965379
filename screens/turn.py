"""What was asked and one answer to it, token by token, with the X-ray's colours."""
import bisect
import math
from collections import namedtuple

from textual.containers import Vertical
from textual.content import Content
from textual.style import Style

from runs import clean, number
from screens.basics import KEY, Words, bits

# How a token looks under the X-ray: from red, which the model hardly expected, to green.
SURPRISES = [
    (0.02, "on $error 55%"), (0.1, "on $error 25%"), (0.3, "on $warning 30%"), (0.7, "on $success 18%"),
    (math.inf, "on $success 38%"),
]
EXPECTED = {"hardly": 0.01, "little": 0.05, "rather": 0.2, "well": 0.5, "surely": 0.9}

# And the tokens before it when one looks inside: how much of each a head of the model took in.
ATTENTION = [
    (0.02, ""), (0.05, "on $accent 12%"), (0.1, "on $accent 25%"), (0.25, "on $accent 45%"),
    (0.5, "on $accent 65%"), (math.inf, "on $accent 85%"),
]

# others: (text, prob) of what could have stood there; id: its number in the vocabulary
Token = namedtuple("Token", "text prob others id", defaults=[None])


class Weights(namedtuple("Weights", "path step")):
    "A checkpoint as it was loaded: training writes others of later steps to the same file."

    def __str__(self):
        step = "" if self.step is None else f", step {self.step:,}"
        return f"{self.path.parent.name} {self.path.name}{step}"


def surprise(prob):
    return next(look for limit, look in SURPRISES if prob < limit)


def attention_look(share):
    return next(look for limit, look in ATTENTION if share < limit)


def visible(text):
    "The text of a token, spaces and line ends included."
    return clean(repr(text)[1:-1]).replace(" ", "␣")


class Turn(Vertical):
    """What was asked and one answer to it, in one flow. A text can be long, and each repaint lays out again
    what changed: so it is a column of texts, broken at line ends, of which only the last one grows."""

    DEFAULT_CSS = "Turn { height: auto; margin-top: 1; }"
    CHUNK = 200                                  # tokens, from which a line end begins a new text

    def __init__(self, shown, sent, stop="", xray=False):
        super().__init__()
        self.shown = shown                       # what was asked, as it was typed
        self.sent = sent                         # and as the model gets it
        self.stop = stop                         # the text that ends the answer
        self.xray = xray
        self.at = None                           # the token under the cursor
        self.looks = {}                          # token before it: the share that a head took of it
        self.asked_looks = []                    # the same of what was asked: (text, share)
        self.tokens = []
        self.starts = [0]                        # the first token of each text
        self.chunks = [Words()]
        self.report = Words()
        self.told = ""                           # what the report says
        self.versions = [self]                   # all answers to this, of which one is shown
        self.voice = None                        # whose conversation it is in
        self.settings = {}
        self.weights = []                        # whose answer it is: of two Weights, if another one went on
        self.says_whose = False                  # whether the report names them
        self.requests = []                       # (first token, prompt) of each that was sent to it
        self.asked = 0.0                         # when
        self.stopping = None                     # since when
        self.paint(0)

    def compose(self):
        yield self.chunks[0]
        yield self.report

    def again(self):
        "Another version of it, still to be answered."
        version = Turn(self.shown, self.sent, self.stop, self.xray)
        version.versions = self.versions
        self.versions.append(version)
        return version

    def whose(self):
        return clean(" and ".join(map(str, self.weights)))

    def text(self, first=0, last=None):
        return "".join(token.text for token in self.tokens[first:last])

    def add(self, pieces):
        "What the model says: pieces as `gpt.py chat` writes them."
        for piece in pieces:
            if self.text(-1).endswith("\n") and len(self.tokens) - self.starts[-1] > self.CHUNK:
                self.starts.append(len(self.tokens))
                self.paint(-2)
                self.chunks.append(Words())
                self.mount(self.chunks[-1], before=self.report)
            others = [(str(text), number(p) or 0.0) for text, p in piece.get("alternatives") or []]
            text = str(piece.get("text", ""))
            self.tokens.append(Token(text, number(piece.get("prob")), others, piece.get("token")))
        self.paint(-1)

    def paint(self, part):
        "Show a part of the text: its number, or -1 for the last."
        part %= len(self.starts)
        first, last = [*self.starts, len(self.tokens)][part:part + 2]
        parts = []
        if part == 0:
            asked = self.asked_looks or [(self.shown, 0)]
            parts += [(clean(text), f"{KEY} {attention_look(share)}") for text, share in asked]
        if self.xray:
            parts += [self.seen_through(n) for n in range(first, last)]
        else:
            parts.append(clean(self.text(first, last)))
        shown = bits(*parts)
        is_whole = part + 1 < len(self.starts)
        if is_whole and shown.plain.endswith("\n"):
            shown = shown[:-1]                   # the next text begins a line anyway
        self.chunks[part].renew(shown)

    def paint_all(self):
        for part in range(len(self.starts)):
            self.paint(part)

    def seen_through(self, n):
        "A token under the X-ray."
        token = self.tokens[n]
        look = ""
        if n == self.at:
            look = "bold reverse"
        elif self.looks:
            look = attention_look(self.looks.get(n, 0))
        elif token.prob is not None:
            look = surprise(token.prob)
        return Content.styled(clean(token.text), look).stylize(Style.from_meta({"token": n}))

    def part_of(self, at):
        return bisect.bisect_right(self.starts, at) - 1

    def point(self, at):
        "Put the cursor on a token, or on none."
        changed = {self.at, at} - {None}
        self.at = at
        if self.looks or self.asked_looks:       # they were those of another token
            self.looks = {}
            self.asked_looks = []
            self.paint_all()
            return
        for n in changed:
            self.paint(self.part_of(n))

    def row_of(self, at):
        "In which row of the column a token stands."
        chunk = self.chunks[self.part_of(at)]
        return chunk.virtual_region.y + chunk.row_of("token", at)

    # looking inside

    def said_before(self, at):
        "-> the prompt after which a token was said; of the answer to it, the tokens up to this one"
        first, prompt = [request for request in self.requests if request[0] <= at][-1]
        return prompt, [n for n in range(first, at + 1) if self.tokens[n].id is not None]

    def shade(self, texts, shares):
        "Show how much of each token a head took in, of those that were read before the one under the cursor."
        _, said = self.said_before(self.at)
        before = said[:-1][-len(texts):]         # those that the model still saw
        split = len(texts) - len(before)
        self.looks = dict(zip(before, shares[split:]))
        asked = list(zip(texts[:split], shares[:split]))
        self.asked_looks = asked if "".join(texts[:split]) == self.shown else []
        self.paint_all()

    def tell(self, text):
        self.told = text
        which = ""
        if len(self.versions) > 1:
            which = f"{self.versions.index(self) + 1}/{len(self.versions)} (v) · "
        if self.says_whose:
            which += f"{self.whose()} · "
        self.report.put((f"{which}{text}", "$foreground 50%"))
