"""The notebook for Colab, executed in a real kernel. No network: the cell that fetches the trainer is skipped
by name, and GPT-2 is a small model in a folder here."""
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

import gpt

HERE = Path(__file__).resolve().parent
FILES = ("gpt.py", "data.py", "tools.py", "recipes.py", "convert.py", "space.py", "presets.json")
NETWORK = {"get", "tune", "compare"}                          # cells tagged so
SKIPPED = {"get"}
SMALL = """
DATA, PRESET, STEPS, PROMPT = "story.txt", "nano", 12, "The "
BASE, TUNING_STEPS = "base", 2
"""


@pytest.fixture(scope="module")
def book():
    nbformat = pytest.importorskip("nbformat")
    book = nbformat.read(HERE / "docs" / "colab.ipynb", as_version=4)
    nbformat.validate(book)
    return book


def cells_of(book):
    return {cell.id: cell for cell in book.cells if cell.cell_type == "code"}


def test_the_notebook_is_clean(book):
    cells = cells_of(book)
    assert {name for name, cell in cells.items() if "network" in cell.metadata.get("tags", [])} == NETWORK
    for name, cell in cells.items():
        assert not cell.outputs and cell.execution_count is None, name
    badge = re.search(r"\[!\[Open in Colab\].*\)", book.cells[0].source)[0]
    assert badge in (HERE / "README.md").read_text(encoding="utf-8")
    assert re.search(r'REPOSITORY = "(.*)"', cells["get"].source)[1] in badge
    # What SMALL puts in the place of the cell's settings is all of them.
    settings = re.findall(r"^(\w+) = ", cells["parameters"].source, re.M)
    assert settings == re.findall(r"[A-Z_]{4,}", SMALL)


def test_cells_that_are_skipped_are_python(book):
    magic = pytest.importorskip("IPython.core.inputtransformer2").TransformerManager()
    for name in SKIPPED:
        compile(magic.transform_cell(cells_of(book)[name].source), name, "exec")


def small_base(folder):
    "A GPT-2 with random weights, in a folder as Hugging Face has it."
    convert = pytest.importorskip("convert")
    tokens = " ".join(gpt.base64.b64encode(bytes([byte])).decode() for byte in range(256))
    tokenizer = gpt.BPETokenizer(tokens)
    config = gpt.ModelConfig(n_layer=1, n_head=1, n_embd=16, block_size=32)
    config.vocab_size = tokenizer.vocab_size
    run = folder / "base-run"
    gpt.save_checkpoint(run / "best.pt", {
        "version": gpt.CHECKPOINT_VERSION, "model": gpt.GPT(config).state_dict(),
        "model_config": vars(config), "train_config": {"level": "bpe"}, "tokenizer": tokenizer.state})
    convert.export_command({"run": [str(run)], "to": "hf", "out": str(folder / "base")})


@pytest.mark.slow
def test_the_notebook_runs(book, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    for name in FILES:
        shutil.copy(HERE / name, tmp_path)
    (tmp_path / "story.txt").write_text(gpt.read_text("builtin")[:20_000], encoding="utf-8")
    small_base(tmp_path)
    # `!python` is this one; and nothing is fetched, or remembered.
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no-cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")                # more would only wait for each other
    cells = cells_of(book)
    cells["parameters"].source = SMALL
    book.cells = [cell for cell in book.cells if cell.id not in SKIPPED]
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3", resources=place).execute()
    text = {}
    for name, cell in cells.items():
        text[name] = "".join(out.get("text", "") for out in cell.outputs)
        assert "error" not in text[name].lower(), text[name]  # of a `!` command: it raises nothing
    assert "step 12" in text["train"] and "it says" in text["train"]
    assert [out for out in cells["curve"].outputs if "image/png" in out.get("data", {})]
    assert text["sample"].startswith("The ") and len(text["sample"]) == 304
    assert text["next"].count("%") == 5
    assert text["temperature"].count("--- temperature") == 3
    assert "--- base ---" in text["compare"] and "--- runs" in text["compare"]
    assert text["export"].count("is ready") == 2
    for folder in ("my-model", "my-space"):
        assert (tmp_path / f"{folder}.zip").stat().st_size > 100_000
