"""The page of a Space: a GPT that gpt.py trained goes on with what somebody types.

    pip install -r requirements.txt
    python app.py                         then open http://127.0.0.1:7860

best.pt is the model, gpt.py reads it and picks the tokens, Gradio draws the page. `python gpt.py export --to
space` lays them together, with this file as app.py. It reads in the order of a visit: what is said about the
model, the text as it grows, the page. Change what you like.
"""
import copy
import functools
import math
from pathlib import Path

import gpt

FOLDER = Path(__file__).resolve().parent
EXAMPLES = ["The ", "It was ", "I have never ", "“Where are you", "Once upon a time"]
TOKEN = {"char": "character", "word": "word", "bpe": "token"}
MANY = 32                                                     # visitors who may wait in line

def model_line(lm, progress):
    "What it is, what it has read, and how well it does."
    c, token = lm.config, TOKEN[lm.tokenizer.state["level"]]
    line = (f"{gpt.num_parameters(lm.model):,} parameters: {c.n_layer} layers, {c.n_head} heads, "
            f"{c.n_embd} wide. It sees the last {c.block_size} {token}s.")
    if lm.train_config.get("data"):
        line += f" Trained on {lm.train_config['data']}."
    loss, step = progress.get("best_val_loss", math.inf), progress.get("step")
    if math.isfinite(loss) and step == progress.get("best_step"):  # else it is that of other weights
        line += f" Validation loss {loss:.4f} nats a {token}, at step {step:,}."
    return line

def known_examples(lm):
    "Those that the model has all the characters or words for: it may have read another language."
    return [text for text in EXAMPLES if not lm.tokenizer.unknown(text)]

def write(lm, prompt, max_new_tokens, temperature, top_k, top_p, repetition_penalty, seed):
    """The text so far and a line about it, again for each new piece: Gradio shows the newest. When somebody
    presses Stop, or leaves, Gradio closes this generator, and the model rests."""
    lm = copy.copy(lm)                                        # the same weights, but a report of its own
    note = ""
    if unknown := lm.tokenizer.unknown(prompt):
        note = f" It does not know {' '.join(unknown)}"
    text = prompt
    yield text, note
    pieces = lm.stream(prompt, max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k,
                       top_p=top_p, repetition_penalty=repetition_penalty, seed=seed)
    try:
        for piece in pieces:
            text += piece
            report = lm.report
            yield text, f"{report.tokens} tokens, {report.tokens_per_s:,.0f} a second.{note}"
    except gpt.UserError as error:                            # a setting that is none
        yield text, str(error)

def page(lm, progress):
    gr = gpt.need("gradio")
    usual = gpt.SampleConfig()                                # as `python gpt.py sample` has them
    with gr.Blocks(title="A GPT goes on with your text", analytics_enabled=False) as blocks:
        gr.Markdown("# It goes on with your text\n" + model_line(lm, progress))
        with gr.Row():
            with gr.Column(scale=2):
                prompt = gr.Textbox(label="Your text", lines=3, max_length=10_000, autofocus=True,
                                    placeholder="The beginning of a text. The model is no assistant.")
                if examples := known_examples(lm):
                    gr.Examples(examples, prompt, label="Or begin with")
                with gr.Row():
                    start = gr.Button("Write", variant="primary")
                    stop = gr.Button("Stop")
                text = gr.Textbox(label="It writes", lines=12, max_lines=24, buttons=["copy"])
                status = gr.Markdown()
            with gr.Column():
                settings = [
                    gr.Slider(10, 500, usual.max_new_tokens, step=10, label="Max tokens",
                              info="how long the text may become"),
                    gr.Slider(0.1, 2, usual.temperature, step=0.05, label="Temperature",
                              info="low: what is likely; high: what is surprising"),
                    gr.Slider(0, 200, usual.top_k, step=1, label="Top-k",
                              info="choose among the k likeliest; 0: among all"),
                    gr.Slider(0.05, 1, usual.top_p, step=0.05, label="Top-p",
                              info="the likeliest that together have this share"),
                    gr.Slider(1, 2, usual.repetition_penalty, step=0.05, label="Repetition penalty",
                              info="over 1: less of what was just said"),
                    gr.Number(usual.seed, precision=0, minimum=0, label="Seed",
                              info="the same seed writes the same text"),
                ]
        writing = gr.on([start.click, prompt.submit], functools.partial(write, lm), [prompt, *settings],
                        [text, status], api_name="write", show_progress="hidden")
        stop.click(None, cancels=writing)
    return blocks.queue(max_size=MANY)

def main():
    path = FOLDER / "best.pt"
    progress = gpt.load_checkpoint(path).get("progress", {})
    lm = gpt.load(path, dtype="auto")                         # what is fastest here, as gpt.py sample has it
    page(lm, progress).launch()

if __name__ == "__main__":
    with gpt.errors_told():
        main()
