"""The promises of recipes.py, held: what a recipe costs, plans for other machines, a text before training.

Everything here works without a network and without a GPU."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import gpt
import recipes
from test_tools import GPT, answer, command, shell


# ---- presets -----------------------------------------------------------------------------------------------


def test_a_preset_that_there_is_not(monkeypatch):
    for ask in (recipes.presets_command, recipes.plan_command):
        for asked in ({"preset": "nanoo"}, {"preset": "nanoo", "level": "char"}):
            with pytest.raises(gpt.UserError, match="nanoo.*nano"):
                ask(asked)
        monkeypatch.setattr(gpt, "load_presets", lambda path: {"nano": {}})  # gpt.py without presets.json
        for asked in ({"preset": "auto"}, {"preset": "auto", "level": "char"}):
            with pytest.raises(gpt.UserError, match="auto"):
                ask(asked)
        monkeypatch.undo()


def test_own_preset_beside_the_shipped_ones(tmp_path):
    own = tmp_path / "mine.json"
    own.write_text('{"mine": {"about": "my own", "n_layer": 5, "max_iters": 3}}')
    table = shell("presets", "--presets", own).stdout
    assert "my own" in table and "gpt2-xl" in table


def test_presets_json_has_what_a_program_needs(capsys):
    told = answer(capsys, "presets --json")
    assert {field["name"] for field in told["fields"]} == gpt.KNOBS.keys()
    assert told["devices"][-1]["device"] == "cpu" and told["devices"][-1]["memory"] > 1e8
    nano = told["presets"]["nano"]
    assert nano["char"]["parameters"] == 357_408 and nano["char"]["fits"] and nano["about"]
    fields = {field["name"]: field for field in told["fields"]}
    keys = {"name", "type", "help", "rule", "choices", "default", "part"}
    assert all(field.keys() == keys for field in fields.values())
    assert fields["level"]["type"] == "choice" and fields["level"]["choices"] == ["char", "word", "bpe"]
    assert fields["bias"]["type"] == "bool" and fields["bias"]["choices"] == []
    assert fields["n_layer"]["part"] == "ModelConfig" and fields["n_layer"]["rule"] == "1 <= n_layer <= 1000"


def test_presets_with_changes_for_a_program(capsys):
    told = answer(capsys, "presets --json --preset nano --level char --n_layer 8 --n_embd=96")
    assert list(told["presets"]) == ["nano"]
    char = told["presets"]["nano"]["char"]
    assert char["n_layer"] == 8
    shape = gpt.ModelConfig(n_layer=8, n_embd=96, vocab_size=recipes.TYPICAL_VOCABULARY["char"])
    assert char["parameters"] == recipes.count_parameters(shape)


@pytest.mark.parametrize(
    "preset,vocab,parameters",
    [
        ("nano", 97, 357_312),
        ("micro", 97, 822_144),
        ("tiny", 97, 10_733_952),
        ("gpt2", 50257, 124_439_808),
    ],
)
def test_parameter_counts(preset, vocab, parameters):
    shape, _ = gpt.configure({"preset": preset})
    shape.vocab_size = vocab
    assert recipes.count_parameters(shape) == parameters
    with torch.device("meta"):
        assert sum(w.numel() for w in gpt.GPT(shape).parameters()) == parameters


@pytest.mark.parametrize("bias,qkv_bias", [(True, True), (True, False), (False, False), (False, True)])
def test_the_parameter_formula(bias, qkv_bias):
    shape = gpt.ModelConfig(bias=bias, qkv_bias=qkv_bias, vocab_size=97)
    model = gpt.GPT(shape)
    assert recipes.count_parameters(shape) == sum(w.numel() for w in model.parameters())
    named = [name for name, _ in model.named_parameters() if name.endswith("c_attn.bias")]
    assert bool(named) == (bias and qkv_bias)


def test_the_table_shows_each_preset_at_its_own_level_or_at_the_one_asked_for(capsys):
    def levels(words):
        command(words)
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].replace(" on-a-GPU", "").split() == (
            "preset layers/heads/width context level weights memory fits what".split()
        )
        return {line.split()[0]: line.split()[3] for line in lines[1:-2]}

    presets = gpt.load_presets()
    of_their_own = {name: gpt.recipe(presets, name)["level"] for name in presets}
    assert levels("presets") == {**of_their_own, "auto": "bpe"}  # as for a text of a megabyte
    assert levels("presets --level WORD") == dict.fromkeys(presets, "word")


def test_without_a_gpu_the_table_shows_what_one_would_need(monkeypatch, capsys):
    cpu = {"device": "cpu", "name": "a CPU", "memory": 64 << 30}
    monkeypatch.setattr(recipes, "machine", lambda: [cpu])
    command("presets --preset gpt2-xl")
    header, row = capsys.readouterr().out.splitlines()[:2]
    columns = dict(zip(header.split(), row.split()))
    assert columns["memory"] == "68.1GB" and columns["on-a-GPU"] == "36.6GB" and columns["fits"] == "no"
    monkeypatch.setattr(recipes, "machine", lambda: [{**cpu, "device": "cuda"}, cpu])
    command("presets --preset gpt2-xl")
    assert "on-a-GPU" not in capsys.readouterr().out


@pytest.mark.parametrize("optimizer,dropout", [("muon", 0.0), ("adamw", 0.0), ("adamw", 0.1)])
def test_the_memory_formula_counts_what_torch_allocates(optimizer, dropout, monkeypatch):
    "On tensors without memory, of a CPU, but computed as on a GPU: in 16 bits, with torch's own attention."
    tracking = pytest.importorskip("torch.distributed._tools.mem_tracker")
    fake = pytest.importorskip("torch._subclasses.fake_tensor")

    def attend(q, k, v, p):  # dropout inside of it stores nothing on GPUs
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    def drop(x, p):  # as GPUs do it: a mask of bytes
        return torch.native_dropout(x, p, True)[0] if p else x

    monkeypatch.setattr(gpt, "attend", attend)
    monkeypatch.setattr(gpt, "dropout", drop)
    m = gpt.ModelConfig(n_layer=6, n_head=4, n_embd=256, block_size=256, vocab_size=5000)
    t = gpt.TrainConfig(optimizer=optimizer, dropout=dropout, batch_size=32, micro_batch=16)
    with fake.FakeTensorMode():
        model = gpt.GPT(m, dropout)
        optimizers = gpt.make_optimizers(model, t, torch.bfloat16)
        ids = torch.zeros(t.micro_batch, m.block_size, dtype=torch.int64)
        tracker = tracking.MemTracker()
        tracker.track_external(model, *optimizers)
        with tracker:
            for micro_batch in range(4):  # two steps of two
                tracker.reset_mod_stats()
                with torch.autocast("cpu", torch.bfloat16):
                    loss = model(ids, targets=ids)
                loss.backward()
                for optimizer in optimizers if micro_batch % 2 else []:
                    optimizer.step()
                    optimizer.zero_grad()
    (peak,) = tracker.get_tracker_snapshot("peak").values()
    parts = recipes.memory_parts(m, t, "cuda")
    ours = sum(parts.values()) - parts["torch"]
    assert 0.97 < ours / peak["Total"] < 1.08


@pytest.mark.parametrize("name", "small baby stories wikitext gpt2 gpt2-medium gpt2-large gpt2-xl".split())
def test_muon_costs_the_presets_for_gpus_a_fifth_of_a_step_at_most(name):
    presets = gpt.load_presets()
    m, t = recipes.expand(presets, name, gpt.recipe(presets, name)["level"], {}, recipes.machine()[0])
    assert recipes.muon_flops(m) < 0.2 * t.batch_size * m.block_size * recipes.flops_per_token(m)


# ---- --preset auto -----------------------------------------------------------------------------------------


def steady(tokens_per_s):
    "A machine that trains auto's smallest shape at this speed, and larger ones as their operations have it."
    vocab_size = recipes.TYPICAL_VOCABULARY["char"]
    smallest = recipes.flops_per_token(gpt.ModelConfig(n_embd=48, vocab_size=vocab_size))
    return lambda m, t: (tokens_per_s * smallest / recipes.flops_per_token(m), 1)


def chosen(tokens_per_s=80_000, **asked):
    return recipes.chosen(gpt.load_presets(), asked, recipes.bytes_of(asked["data"]), steady(tokens_per_s))


def test_more_minutes_and_faster_machines_get_larger_models(place):
    Path("book.txt").write_bytes(b"All work and no play. " * 20_000)
    for sizes in (
        [chosen(max_minutes=minutes, data="book.txt").values["n_embd"] for minutes in (0.1, 10, 300)],
        [chosen(speed, max_minutes=2, data="book.txt").values["n_embd"] for speed in (1e3, 4e5, 1e7)],
    ):
        assert sizes == sorted(sizes) and sizes[0] < sizes[1] < sizes[2]


def test_a_short_text_is_read_often_with_dropout_and_a_long_one_in_pieces(place):
    Path("long.txt").write_bytes(b"All work and no play. " * 400_000)
    short, long = (chosen(max_minutes=5, data=name) for name in ("story.txt", "long.txt"))
    assert short.values["level"] == "char" and long.values["level"] == "bpe"
    assert short.values["dropout"] >= 0.1 > long.values["dropout"]
    assert short.values["epochs"] == gpt.load_presets()["auto"]["rule"]["passes"]  # then more brings nothing
    assert "vocab_size" not in short.values and 500 < long.values["vocab_size"] < 20_000


def test_a_short_text_gets_no_larger_model_than_it_can_teach(place):
    "It is read so many times and no more, however many minutes there are."
    day, hour = (chosen(max_minutes=minutes, data="story.txt") for minutes in (1440, 60))
    assert day.values == {**hour.values, "max_minutes": 1440} and "50.0 times through the text" in day.why


def test_a_limit_that_is_asked_for_unsets_those_of_auto(place):
    for asked, end in (({"max_iters": "700"}, "about 700 steps"), ({"epochs": "2"}, "2.0 times through")):
        choice = chosen(data="story.txt", **asked)
        assert end in choice.why
        _, config = gpt.configure({"preset": "auto", "data": "story.txt", "device": "cpu", **asked})
        (name, value), = asked.items()
        limits = {limit: getattr(config, limit) for limit in gpt.LIMITS}
        assert limits == {**dict.fromkeys(gpt.LIMITS, 0), name: float(value)}


def test_a_limit_of_zero_is_none(place):
    "Without minutes the passes end the run, of the shape that the usual minutes have."
    usual = chosen(data="story.txt")
    for zero in ("0", 0):
        assert chosen(data="story.txt", max_minutes=zero, max_iters=zero).values == usual.values
    assert recipes.limits_in({"max_iters": "0", "epochs": 2, "max_minutes": None}, gpt.LIMITS) == ["epochs"]


def test_auto_takes_the_tokens_of_a_prepared_folder(place):
    Path("chars").mkdir()
    meta = {"level": "char", "vocab_size": 90, "train_bytes": 9_000_000, "val_bytes": 1_000_000}
    Path("chars/meta.json").write_text(json.dumps(meta))
    Path("pieces").mkdir()
    Path("pieces/meta.json").write_text(json.dumps({**meta, "level": "bpe", "vocab_size": 50257}))
    for name, fixed in (("chars", {"level": "char"}), ("pieces", {"level": "bpe", "vocab_size": 50257})):
        values = recipes.auto({"data": name, "max_minutes": 5, "device": "cpu"})
        assert {key: values.get(key) for key in fixed} == fixed
    assert recipes.fixed_by_folder(Path("story.txt")) == recipes.fixed_by_folder(Path("none")) == {}


def test_a_preset_of_ones_own_called_auto_needs_a_rule(place):
    Path("own.json").write_text(json.dumps({"auto": {"n_layer": 2}}))
    with pytest.raises(gpt.UserError, match="preset auto has no rule"):
        gpt.configure({"presets": "own.json", "preset": "auto"})
    gpt.run_command("presets", {"presets": "own.json"})


def test_a_gpu_in_no_table_is_faster_than_a_core():
    model, config = gpt.configure({"preset": "small"})
    model.vocab_size = 98
    core, unknown = (recipes.by_arithmetic(device)(model, config)[0]
                     for device in ({"device": "cpu"}, {"device": "cuda", "name": "a new one"}))
    assert unknown > 10 * core


def test_the_choice_is_explained_in_one_line(place):
    choice = chosen(max_minutes="10", data="story.txt")
    assert choice.why.count("\n") == 0
    words = "40.1kB of text, 10 minutes, .* tokens/s: level char, . layers, .* wide, dropout .*"
    assert re.search(words, choice.why), choice.why


def test_what_is_asked_for_is_not_chosen(place):
    asked = dict(max_minutes=3, data="story.txt", level="word", n_layer=2, n_head=2, n_embd=32)
    values = chosen(**asked).values
    assert values["level"] == "word"
    assert "2 layers, 32 wide, dropout 0.4" in chosen(**asked, dropout="0.4").why
    model, config = gpt.configure({**asked, "device": "cpu"})
    assert (model.n_layer, model.n_embd, config.max_minutes, config.preset) == (2, 32, 3, "auto")


SIZES = [("builtin", 125e3), ("shakespeare", 1.1e6), ("tinystories", 2.3e9), ("*.txt", 60e3), ("texts", 10e3),
         ("a.txt.gz", 3e3), ("hf:a/b", None), ("wikitext2", 14e6), ("notes", 20e3), ("my [1].txt", 10e3),
         ("**/*.md", 20e3)]


@pytest.mark.parametrize("source,size", SIZES)
def test_how_long_a_text_is(source, size, place):
    Path("more.txt").write_text("word " * 2000)
    Path("texts").mkdir()
    Path("texts/a.txt").write_text("word " * 2000)
    Path("my [1].txt").write_text("word " * 2000)
    Path("notes/old").mkdir(parents=True)
    for name in ("notes/a.md", "notes/old/b.md"):
        Path(name).write_text("word " * 2000)
    Path("a.txt.gz").write_bytes(b"x" * 1000)
    assert recipes.bytes_of(source) == (size and pytest.approx(size, rel=0.03))


def test_minutes_alone_choose_the_rest(place):
    "A real machine is tried; the run is as long as it says, and goes on with what was chosen."
    started = time.monotonic()
    words = "train --data story.txt --max_minutes 0.05 --out_dir run --sample_tokens 5"
    done = shell(*words.split())
    took = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("auto       40.1kB of text, 0.05 minutes, ")
    assert "--preset auto --max_minutes 0.1 --level char --data story.txt" in done.stdout  # what to try next
    assert took < 60
    settings = json.loads(Path("run/config.json").read_text())["train"]
    assert settings["preset"] == "auto" and settings["eval_tokens"] < 1e6
    passes = gpt.load_presets()["auto"]["rule"]["passes"]
    again = gpt.train(resume="run", max_minutes=0.1)
    settings = json.loads(Path("run/config.json").read_text())["train"]
    assert again.reason in ("time", "done")
    assert (settings["max_minutes"], settings["epochs"]) == (0.1, passes)  # more minutes, but no more passes


@pytest.mark.slow
def test_the_grid_prints_its_table(place):
    words = ["docs/grid.py", str(place / "story.txt"), "--minutes", "0.03", "--jobs", "1"]
    done = subprocess.run([sys.executable, GPT.parent / words[0], *words[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    header, _, row = done.stdout.splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == header.count("|") - 1 and cells[:2] == ["story.txt", "0.03"]
    auto, *by_hand = map(float, cells[3:-1])
    assert float(cells[-1].strip("+%")) == pytest.approx(100 * auto / min(auto, *by_hand) - 100, abs=0.2)


@pytest.mark.slow
def test_a_grid_ends_with_the_first_run_that_fails(place):
    words = ["docs/grid.py", str(place / "none.txt"), "--minutes", "1", "--jobs", "1"]
    command = [sys.executable, GPT.parent / words[0], *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and len(list((place / "runs" / "grid").glob("*.log"))) < 4


def test_processes_that_share_a_run_choose_the_same(place, monkeypatch, capsys):
    monkeypatch.setattr(recipes, "measured", None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    asked = {"max_minutes": "5", "data": "story.txt", "device": "cpu"}
    choices = []
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        choices.append(recipes.auto(asked))
    assert choices[0] == choices[1]
    said = capsys.readouterr().out
    assert said.count("auto  ") == 1 and said.endswith("; speed by arithmetic\n")


def test_four_cards_are_four_times_as_fast():
    model, config = gpt.configure({"preset": "small"})
    model.vocab_size = 98
    t4 = {"device": "cuda", "name": "Tesla T4"}
    one, _ = recipes.by_arithmetic(t4)(model, config)
    four, _ = recipes.by_arithmetic(t4, 4)(model, config)
    assert four == 4 * one > 0


def test_auto_counts_the_characters_of_a_text_not_its_bytes(place):
    Path("chinese.txt").write_text("\u5b50\u66f0\u3002" * 30_000, encoding="utf-8")  # 90,000 of 3 bytes
    a_character = recipes.bytes_a_character("chinese.txt")
    assert a_character == pytest.approx(3, rel=1e-3) and recipes.bytes_a_character("story.txt") < 1.1
    Path("empty.txt").touch()
    assert recipes.bytes_a_character("empty.txt") == recipes.bytes_a_character("hf:a/b") == 1
    size = recipes.bytes_of("chinese.txt")
    asked = {"max_iters": "100", "data": "chinese.txt"}
    choice = recipes.chosen(gpt.load_presets(), asked, size, steady(80_000), a_character)
    values = {**choice.values, **asked}
    config, model = gpt.fill(gpt.TrainConfig, values), gpt.fill(gpt.ModelConfig, values)
    passes = 100 * config.batch_size * model.block_size / (0.9 * 90_000)
    assert config.level == "char" and f"{passes:.1f} times through" in choice.why


def test_auto_takes_a_shape_that_the_heads_divide(place):
    for heads in (3, 4, 6):
        assert chosen(data="story.txt", max_minutes=5, n_head=str(heads)).values["n_embd"] % heads == 0


def test_auto_tries_no_shape_that_is_far_too_large(place):
    tried = []
    machine = steady(80_000)

    def speed(m, t):
        tried.append(m.n_embd)
        return machine(m, t)

    recipes.chosen(gpt.load_presets(), {"data": "story.txt", "max_minutes": "0.1"}, 40_000, speed)
    assert tried == [48, 96]


def test_auto_has_no_shape_for_weights_that_have_one():
    with pytest.raises(gpt.UserError, match="--init_from has one: leave --preset out, or take finetune"):
        gpt.configure({"preset": "auto", "init_from": "gpt2"})


# ---- plan --------------------------------------------------------------------------------------------------

D32 = "--n_layer 32 --n_head 16 --n_embd 2048 --block_size 2048 --vocab_size 65536 --micro_batch 8"
PUBLISHED = [  # hours, the run, its cards and the MFU that it reports or that follows
    (96, "nanoGPT, 124M", "--gpu a100 --mfu 0.29 --preset gpt2 --max_iters 600000 --optimizer adamw"),
    (1.5, "llm.c, 124M", "--gpu a100 --mfu 0.6 --preset gpt2 --max_iters 19560 --batch_size 512"),
    (0.75, "llm.c, 124M", "--gpu h100 --mfu 0.4 --preset gpt2 --max_iters 19560 --batch_size 512"),
    (24, "llm.c, 1558M", "--gpu h100 --mfu 0.5 --preset gpt2-xl --max_iters 32000 --batch_size 1024"),
    (31.3, "nanochat, d32", f"--gpu h100 --mfu 0.5 {D32} --max_iters 71680 --batch_size 256"),
]


@pytest.mark.parametrize("hours,name,words", PUBLISHED)
def test_a_plan_takes_as_long_as_the_published_run(hours, name, words, capsys):
    p = answer(capsys, f"plan --json --gpus 8 --optimizer adamw {words}")
    assert p["hours"] == pytest.approx(hours, rel=0.1)
    assert p["mfu"] == pytest.approx(float(words.split()[3]), rel=0.02)  # in one host nearly nothing is lost


def test_the_operations_of_a_plan_are_those_that_torch_counts(monkeypatch):
    from torch.utils.flop_counter import FlopCounterMode

    m = gpt.ModelConfig(n_layer=2, n_head=2, n_embd=32, block_size=24, vocab_size=50)
    ids = torch.zeros(3, m.block_size, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        gpt.GPT(m)(ids, targets=ids).backward()
    norms = (4 * m.n_layer + 2) * m.n_embd  # and biases: not multiplied, but in the formula, as everywhere
    biases = 9 * m.n_layer * m.n_embd
    assert counter.get_total_flops() == ids.numel() * (recipes.flops_per_token(m) - 6 * (norms + biases))
    with FlopCounterMode(display=False) as counter:
        for shape in [(4 * m.n_layer, 32, 32), (m.n_layer, 32, 128), (m.n_layer, 128, 32)]:
            gpt.orthogonal(torch.randn(shape))
    assert counter.get_total_flops() == recipes.muon_flops(m)


def test_when_gradients_stop_hiding(capsys):
    words = "plan --json --preset gpt2-xl --gpus 64 --gpu a100 --network"
    slow, fast = answer(capsys, f"{words} 100"), answer(capsys, f"{words} 1600")
    assert slow["gigabytes_per_s"] == 12.5 and slow["sent_bytes"] == 2 * 63 / 64 * 4 * slow["parameters"]
    assert slow["send_s"] == pytest.approx(slow["sent_bytes"] / (0.75 * 12.5e9))
    assert slow["wait_s"] == pytest.approx(slow["send_s"] - slow["backward_s"])
    assert 12.5 < slow["hides_from_gigabytes_per_s"] == fast["hides_from_gigabytes_per_s"] < 200
    tables = (50257 + 1024) * 1600
    assert fast["wait_s"] == pytest.approx(2 * 63 / 64 * 4 * tables / (0.75 * 200e9))
    assert fast["tokens_per_s"] > 2 * slow["tokens_per_s"]
    assert slow["rows"] == 8 and slow["micro_batch"] == 4  # 480 of 64 are 7.5: some have 8, all wait for them
    alone = answer(capsys, "plan --json --preset gpt2-xl --gpus 1")
    assert alone["sent_bytes"] == alone["wait_s"] == 0 and alone["rows"] == 480


@pytest.mark.parametrize(
    "words,told",
    [
        ("", "torchrun --nproc_per_node=8 gpt.py train --preset gpt2"),
        ("--gpus 1 --optimizer adamw", "gpt2, bpe: 124M weights; 20,000 steps of 480 x 1,024 tokens"),
        ("--gpu rtx_4090 --gpus 2 --preset gpt2-xl", "Too much: take a smaller --micro_batch"),
        ("--preset gpt2-xl --gpus 64 --price 2", "$7,388"),
        ("--preset gpt2-xl --gpus 64", "--nnodes=8 --rdzv_backend=c10d"),
        ("--gpus 16 --batch_size 512 --n_layer 13", "--preset gpt2 --batch_size 512 \\ --n_layer 13"),
        ("--preset nano --level word --gpus 32 --gpu H100-PCIe", "32 x H100 PCIe, 756 TFLOP/s"),
    ],
)
def test_a_plan_reads_well_at_80_columns(words, told, capsys):
    command(f"plan {words}")
    shown = capsys.readouterr().out
    assert told in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80


def test_what_fits_goes_by_the_best_device(monkeypatch, capsys):
    gpu = {"device": "cuda", "name": "a GPU", "memory": 4 << 30}
    monkeypatch.setattr(recipes, "machine", lambda: [gpu])
    told = answer(capsys, "presets --json")["presets"]
    assert told["nano"]["char"]["fits"] and not told["gpt2-xl"]["bpe"]["fits"]
    gpu["memory"] = 0  # unknown
    assert answer(capsys, "presets --json")["presets"]["gpt2-xl"]["bpe"]["fits"]


def test_what_a_device_usually_does():
    assert recipes.usual_speed({"device": "cpu", "name": "CPU"}) == recipes.CORE_SPEED * os.cpu_count()
    a100 = {"device": "cuda", "name": "NVIDIA A100-SXM4-80GB"}
    assert recipes.usual_speed(a100) == pytest.approx(0.4 * 312e12)
    assert recipes.usual_speed({"device": "cuda", "name": "some card"}) is None


# ---- a text, before it is trained on -----------------------------------------------------------------------


def about(capsys, data, level):
    found = answer(capsys, ["presets", "--json", "--preset", "nano", "--level", level, "--data", str(data)])
    return found["data"]


def test_a_text_is_looked_at_before_it_is_trained_on(place, capsys):
    Path("some.txt").write_text("one two two two one one. Three?\n" * 3, encoding="utf-8-sig")
    found = about(capsys, "some.txt", "char")
    assert found["bytes"] == 99 and found["tokens"] == 96 and found["unknown"] == 0 and not found["is_part"]
    assert "".join(text for text, _ in found["start"]).startswith("one two two")
    found = about(capsys, "some.txt", "word")
    assert found["tokens"] == 27 and found["kinds"] == 6 and found["unknown"] == 0
    assert [text for text, _ in found["start"][:3]] == ["One", " two", " two"]
    Path("more.txt").write_text("two")
    assert about(capsys, "*.txt", "char")["bytes"] > 40_000  # with the story of this place
    assert about(capsys, "builtin", "word")["tokens"] > 20_000
    Path("folder").mkdir()
    Path("folder/part.txt").write_bytes(Path("some.txt").read_bytes())
    assert about(capsys, "folder", "char")["tokens"] == 96
    Path("rare.txt").write_text("seldom " + "often " * 9)
    assert about(capsys, "rare.txt", "word")["unknown"] == 0.1
    folder = prepared("some.txt", "word")
    by_folder = about(capsys, folder, "word")
    assert by_folder["tokens"] in (27, 28) and by_folder["start"][0] == found["start"][0]
    assert "needs --level word" in about(capsys, folder, "char")["why"]


@pytest.mark.parametrize("name", ["none.txt", "zero.txt", "packed.gz", "empty.txt", "folder"])
def test_of_what_is_no_text_it_is_said_why(place, capsys, name):
    Path("zero.txt").write_bytes(b"a\0b")
    Path("empty.txt").write_text(" ")
    Path("packed.gz").write_bytes(b"")
    Path("folder").mkdir()
    assert about(capsys, name, "char").keys() == {"why"}


def prepared(text, level):
    "The folder that data.py makes."
    words = [sys.executable, str(GPT.with_name("data.py")), text, "--level", level]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


# ---- the file itself ---------------------------------------------------------------------------------------


def test_printed_tables():
    shown = {None: "-", 0.5: "0.5000", 1e12: "1e+12", 12345: "12,345", "a\nb": "a b"}
    assert [recipes.cell(value) for value in shown] == list(shown.values())


def test_the_width_of_the_lines():
    for name in ("recipes.py", "test_recipes.py"):
        text = (Path(__file__).parent / name).read_text(encoding="utf-8")
        assert max(map(len, text.splitlines())) <= 110
