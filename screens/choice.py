"""Beside the knobs of Chat: among what a token was chosen, how sure the model was of those before it, and how
its own text compares with text that it never saw."""
import math

from runs import fixed
from screens.basics import BARS, DIM, KEY, Words, bits, ends
from screens.turn import surprise, visible


class Choice(Words):
    DEFAULT_CSS = """
    Choice { height: 14; text-wrap: nowrap; border-top: solid $foreground 15%; }
    """
    WIDTH = 39                                   # columns that it may take
    ROWS = 5                                     # of what could have been said
    NAME = 10                                    # columns for each of these
    NUMBER = 7                                   # and for its probability

    def fit(self):
        "Its height is always the same."

    def nothing(self):
        self.put(("its choices\n", KEY), ("Once it writes, here stands what else it\ncould have said.", DIM))

    def tell(self, turn, loss):
        "Of the token under the cursor of a turn, else of its last; loss: the model's, on text held out."
        tokens = turn.tokens
        at = len(tokens) - 1 if turn.at is None else turn.at
        which = "its last choice" if turn.at is None else "its choice"
        self.put(
            ends(self.WIDTH, [(which, KEY)], [(f"token {at + 1:,}", DIM)]), "\n", *self.choice(tokens[at]),
            ("\nhow sure it was, token by token\n", KEY), *self.sureness(tokens, at),
            "\n\n", *self.losses(tokens, loss),
        )

    def choice(self, token):
        "What could have stood there, the likeliest first; what was taken is marked, and always among them."
        listed = token.others[:self.ROWS]
        if token.text not in [text for text, _ in listed]:
            listed = [*listed[:self.ROWS - 1], (token.text, token.prob or 0)]
        for text, prob in listed:
            is_taken = text == token.text
            yield from self.row("▸ " if is_taken else "  ", visible(text), prob, KEY if is_taken else "")
        rest = max(0, 1 - sum(prob for _, prob in listed))
        yield from self.row("  ", "all others", rest, DIM)

    def row(self, mark, name, prob, look):
        room = self.WIDTH - len(mark) - self.NAME - 1 - self.NUMBER
        yield (mark, KEY)
        yield bits((name, look)).truncate(self.NAME, pad=True)
        yield (f" {'▇' * round(prob * room):{room}}", look or "$primary 70%")
        yield (f"{prob:{self.NUMBER}.1%}\n", look)

    def sureness(self, tokens, at):
        "A bar for each token around one: the likelier the higher, in the colour that it has under the X-ray."
        first = max(0, min(at - self.WIDTH // 2, len(tokens) - self.WIDTH))
        for n, token in enumerate(tokens[first:first + self.WIDTH], first):
            prob = token.prob or 0
            hue = surprise(prob).split()[1]      # of what is behind the token, there
            yield (BARS[min(7, int(8 * math.sqrt(prob)))], KEY if n == at else hue)

    def losses(self, tokens, loss):
        probs = [token.prob for token in tokens if token.prob]
        if probs:
            own = sum(-math.log(prob) for prob in probs) / len(probs)
            yield from [("loss, of what it says here  ", DIM), (f"{fixed(own)}\n", "bold")]
        if loss is not None:
            yield from [("loss, of text held out      ", DIM), (fixed(loss), "bold")]
