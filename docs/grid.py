"""What --preset auto chooses, beside eight shapes chosen by hand: the table in recipes.md.

    python docs/grid.py my.txt other.txt --minutes 2 5 15 --jobs 2

Each cell is a run of so many minutes with one thread, so many of them at a time: nothing else should keep the
machine busy. It says bits per byte of best.pt over the whole held-out tenth. Runs that are done are not done
again: stop it when you like. The shapes by hand have the dropout that the rule gives to them, too.
"""
import argparse
import contextlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

GPT = str(Path(__file__).resolve().parent.parent / "gpt.py")
BY_HAND = {
    "3/48 char": "--level char --n_layer 3 --n_head 3 --n_embd 48",
    "3/96 char": "--level char --n_layer 3 --n_head 3 --n_embd 96",
    "4/128 char": "--level char --n_layer 4 --n_head 4 --n_embd 128",
    "6/192 char": "--level char --n_layer 6 --n_head 6 --n_embd 192",
    "6/256 char": "--level char --n_layer 6 --n_head 8 --n_embd 256",
    "3/96 bpe": "--level bpe --n_layer 3 --n_head 3 --n_embd 96",
    "4/128 bpe": "--level bpe --n_layer 4 --n_head 4 --n_embd 128",
    "6/192 bpe": "--level bpe --n_layer 6 --n_head 6 --n_embd 192",
}


def bits_per_byte(text, minutes, name, out):
    folder = out / f"{Path(text).stem}-{minutes:g}-{name.replace(' ', '-').replace('/', 'x')}"
    answer = folder / "grid.json"
    if not answer.exists():
        words = BY_HAND.get(name, "").split()
        train = [sys.executable, GPT, "train", "--preset", "auto", "--data", text, "--max_minutes", str(minutes),
                 "--threads", "1", "--out_dir", str(folder), "--resume", "auto", "--sample_tokens", "20", *words]
        with open(f"{folder}.log", "w") as log:
            subprocess.run(train, stdout=log, stderr=log, check=True)
        evaluate = [sys.executable, GPT, "eval", str(folder), "--json", "--threads", "1"]
        done = subprocess.run(evaluate, capture_output=True, text=True, check=True)
        answer.write_text(done.stdout)
    settings = json.loads((folder / "config.json").read_text())
    model, train = settings["model"], settings["train"]
    shape = f"{model['n_layer']}/{model['n_embd']} {train['level']}"
    return json.loads(answer.read_text())["bits_per_byte"], shape


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--minutes", nargs="+", type=float, default=[2, 5, 15])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/grid"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    names = ["auto", *BY_HAND]
    print("| text | minutes | auto chose |", " | ".join(names), "| auto over the best |")
    print("|---" * (len(names) + 4) + "|")
    with ThreadPoolExecutor(asked.jobs) as pool, contextlib.ExitStack() as stop:
        stop.callback(pool.shutdown, cancel_futures=True)     # Ctrl-C, or a run that fails, ends all
        rows = {(text, minutes): [pool.submit(bits_per_byte, text, minutes, name, asked.out) for name in names]
                for minutes in asked.minutes for text in asked.texts}
        for (text, minutes), cells in rows.items():
            found = [cell.result() for cell in cells]
            losses = [loss for loss, _ in found]
            over = losses[0] / min(losses) - 1
            print("|", Path(text).name, "|", f"{minutes:g}", "|", found[0][1], "|",
                  " | ".join(f"{loss:.3f}" for loss in losses), "|", f"{over:+.1%} |", flush=True)


if __name__ == "__main__":
    main()
