"""What gpt.py offers to train: presets, fields and the rules for what is typed into them."""
import json
import math

from runs import number

LIMITS = "max_iters", "epochs", "max_minutes"    # a run needs one of these
WORK = "batch_size", "block_size", *LIMITS       # how much there is to do

# What the knobs of a training do, for who turns them for the first time. The others have only their help.
LESSONS = {
    "level": "What the model reads and writes one of at a time. char: it has to learn to spell, and can "
             "write any word. word: sentences come sooner, but rare words are unknown to it. bpe: frequent "
             "words whole, others in parts, as large models do it; that takes more text and more time.",
    "data": "The text to learn from. The model will write like it, so take one that you know well: a book, "
            "your mails, a program. The last tenth is held out, to see how it does on what it never saw.",
    "max_iters": "How many steps. In each the model sees a batch of passages and is corrected once. The "
                 "learning rate falls to its end along these steps, so a longer run is another run from its "
                 "first step on.",
    "epochs": "How many times it may read the text. One that is short is learned by heart if it is read too "
              "often: then what it writes on a new page is worse, not better. 0: the steps decide.",
    "max_minutes": "How long it may take. The learning rate falls with the clock, and the run ends well "
                   "whatever this machine is busy with. 0: the steps decide.",
    "batch_size": "How many passages a step learns from. More: a steadier way down, but each step takes that "
                  "much longer. Where memory runs out, a batch is cut into parts by itself.",
    "learning_rate": "How far a step goes. Too high: the loss jumps, or becomes no number. Too low: nothing "
                     "is wrong, it only takes longer. Try a third or three times as much.",
    "dropout": "The share of its own thoughts that it must do without while it learns. Against learning a "
               "small text by heart: 0.1 to 0.3 where it reads the text many times, 0 where it does not.",
    "label_smoothing": "The share of each right answer that is spread over all tokens alike, while it learns: "
                       "so none is ever impossible. 0.1 for words where the text is short. The loss of a step "
                       "is higher by it, that of an evaluation is not.",
    "eval_interval": "Every so many steps it is tested on the text that is held out, and writes a sample. "
                     "More often: a finer picture, but testing takes time, too.",
    "run": "The folder under runs/ that all of it goes to. Delete it and nothing is left.",
    "n_layer": "How many times the model thinks over what it read. More: better and slower, and it takes "
               "more text to be worth it.",
    "n_head": "In how many places each layer can look at once. It has to divide n_embd.",
    "n_embd": "How many numbers stand for a token. Twice as many: four times the weights.",
    "block_size": "How many tokens back it can see. What lies before that it has forgotten.",
}


class Catalog:
    "What `gpt.py presets --json` tells: recipes, fields with their rules, devices. None of it stands here."

    def __init__(self, found):
        self.presets = found["presets"]
        self.fields = {field["name"]: field for field in found["fields"]}
        devices = found["devices"] or [{}]
        self.device = devices[0]

    def recipe(self, preset, level=None):
        "All values of a preset at a level, and what it costs."
        about = self.presets.get(preset) or {}
        return about.get(level or about.get("level", "char")) or {}

    def is_ruled(self, preset, name):
        "Whether the preset has a rule that chooses this value anew for each text and by the speed measured."
        rule = self.presets.get(preset, {}).get("rule")
        return f'"{name}"' in json.dumps(rule)

    def read(self, name, text):
        "What is typed -> a value of the field's type, or ValueError that says what was expected."
        field = self.fields[name]
        if field["type"] == "bool":
            return self.choice(text, ("true", "false")) == "true"
        if field["choices"]:
            return self.choice(text, field["choices"])
        if field["type"] == "int":
            return self.converted(text, int, "a whole number")
        if field["type"] == "float":
            return self.converted(text, float, "a number")
        return text

    def choice(self, text, choices):
        if text.lower() not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return text.lower()

    def converted(self, text, kind, expected):
        try:
            return kind(text)
        except ValueError:
            raise ValueError(expected) from None

    def problems(self, texts):
        "What is wrong with the values, by field; the rules are those of the command line."
        values = {}
        found = {}
        for name, text in texts.items():
            try:
                values[name] = self.read(name, text)
            except ValueError as e:
                found[name] = f"{name}: expected {e}"
        for name in values:
            if not self.rule_holds(name, values):
                found[name] = f"{name} {texts[name]}: needs {self.fields[name]['rule']}"
        if not any(values.get(name) or name in found for name in LIMITS):
            found["max_iters"] = f"no end in sight: set {' or '.join(LIMITS)}"
        return found

    def rule_holds(self, name, values):
        "A rule is an expression over the fields, such as n_embd % n_head == 0."
        try:
            return bool(eval(self.fields[name]["rule"], {"__builtins__": {}}, values))
        except NameError:                        # a field that it needs is wrong itself
            return True


def tokens_to_see(values, in_text=None):
    "In the planned steps, or, where that is less, in so many passes over a text of a known length."
    work = {name: number(values.get(name)) or 0 for name in WORK}
    tokens = work["max_iters"] * work["batch_size"] * work["block_size"]
    if work["epochs"] and in_text:
        tokens = min(tokens or math.inf, work["epochs"] * in_text)
    return tokens
