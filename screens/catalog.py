"""What gpt.py offers to train: presets, fields and the rules for what is typed into them."""

LIMITS = "max_iters", "epochs", "max_minutes"    # a run needs one of these


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
