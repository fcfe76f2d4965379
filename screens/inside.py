"""What went on in the model before it said a token: what each layer would say, where each head looked."""
import itertools
import math

from rich.cells import cell_len
from textual.content import Content

from screens.basics import BARS, DIM, KEY, Words, bits, button, ends
from screens.turn import visible


def attention_bar(share):
    "The root of it, so that small shares are seen, too."
    return (" " + BARS)[min(8, int(8.5 * math.sqrt(share)))]


class Inside(Words):
    """Of the token under the cursor: what each layer would have said in its place if it were the last one
    (the logit lens), and where the heads of one layer looked before it was said (attention)."""

    DEFAULT_CSS = "Inside { display: none; text-wrap: nowrap; }"
    LENS = 41                                    # columns of the part on the left
    BAR = 12                                     # of them for bars
    FEW_COLUMNS = 90                             # with less, the bars of that part are left out
    MOST_ROWS = 13                               # of layers or heads, in a tall terminal
    FEW_ROWS = 5                                 # and in others

    def __init__(self):
        super().__init__(id="inside")
        self.auto_links = False
        self.at_layer = 0                        # whose heads are shown
        self.at_head = 0                         # whose looks shade the text
        self.about = []                          # what is said of the token itself
        self.texts = []                          # what the model saw
        self.found = []                          # of each layer: what is said, and the shares of its heads
        self.why = ""                            # why there is nothing to see

    def take(self, answer):
        "What `gpt.py chat` says of a token."
        self.texts = [str(text) for text in answer["texts"]]
        self.found = answer["layers"]
        self.at_layer = min(self.at_layer, len(self.found) - 1)
        self.at_head = min(self.at_head, len(self.shares()) - 1)
        self.why = ""
        self.show()

    def nothing(self, why):
        self.found = []
        self.why = why
        self.show()

    def shares(self):
        "For each head of the layer, its share of each token."
        return self.found[self.at_layer]["looks"]

    def turn(self, layers, heads):
        self.at_layer = (self.at_layer + layers) % len(self.found)
        self.at_head = (self.at_head + heads) % len(self.shares())
        self.show()

    def show(self):
        if not self.found:
            self.put(*self.about, "\n\n", (self.why, DIM))
            return
        width = self.content_size.width
        most = self.MOST_ROWS if self.screen.has_class("-tall") else self.FEW_ROWS
        room = min(most, max(len(self.found), len(self.shares()) + 1))
        self.styles.height = room + 3
        has_bars = width >= self.FEW_COLUMNS
        lens_width = self.LENS if has_bars else self.LENS - self.BAR
        lens = [ends(lens_width, [("  a layer says", KEY)], [("what came", DIM)]), *self.lens(room, has_bars)]
        looks = [bits(("   a head looks at", KEY)), *self.looks(room, width - lens_width - 2)]
        keys = [("  ← →", KEY), (" token  ", DIM), ("l", KEY), (" layer  ", DIM), ("h", KEY), (" head ", DIM)]
        parts = [ends(width, self.about, keys)]
        for left, right in itertools.zip_longest(lens, looks, fillvalue=Content("")):
            parts += ["\n", left.truncate(lens_width, pad=True), "  ", right]
        self.put(*parts)

    def seen(self, count, at, room):
        "Of so many lines those for which there is room, around the one of a number."
        first = max(0, min(at - room // 2, count - room))
        return range(first, min(count, first + room))

    def marker(self, at, here, action):
        "The number of a line; a click chooses it."
        look = KEY if at == here else DIM
        return button(f"{'▸' if at == here else ' '}{at + 1:>2} ", f"screen.look{action}", look)

    def lens(self, room, has_bars):
        "A line for each layer: its likeliest token, how likely, and how likely the one was that came."
        for at in self.seen(len(self.found), self.at_layer, room):
            found = self.found[at]
            text, prob = found["says"][0]
            bar = ""
            if has_bars:
                bar = f"{'▇' * round(prob * self.BAR):{self.BAR}}"
            look = "bold $text-accent" if at == self.at_layer else "$primary 70%"
            came = "$text-success" if prob == found["prob"] else DIM
            yield bits(
                self.marker(at, self.at_layer, (at - self.at_layer, 0)),
                (f"{visible(text):10.10} ", "bold"), f"{prob:>6.1%} ", (bar, look),
                (f"{found['prob']:>7.1%}", came),
            )

    def looks(self, room, width):
        "The end of what the model saw, and under each token how much of it each head took."
        columns = []                             # (character, number of its token), as many as fit
        for n in range(len(self.texts) - 1, -1, -1):
            columns = [(character, n) for character in visible(self.texts[n])] + columns
            if len(columns) >= width - 4:
                break
        columns = columns[-max(1, width - 4):]
        yield bits("    ", ("".join(character for character, _ in columns), "bold"))
        shares = self.shares()
        for at in self.seen(len(shares), self.at_head, room - 1):
            bars = "".join(attention_bar(shares[at][n]) * cell_len(letter) for letter, n in columns)
            look = "$text-accent" if at == self.at_head else "$primary 70%"
            yield bits(self.marker(at, self.at_head, (0, at - self.at_head)), (bars, look))
