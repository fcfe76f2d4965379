"""The promises of serve.py, held: the API, who may use it, many at once, whatever is sent, and the page.

Everything here works without a network and without a GPU: servers in this process, with models of a few
thousand random weights."""

import base64
import copy
import http.client
import json
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import gpt
import serve
from conftest import until

HERE = Path(__file__).resolve().parent
TEXT = "The quick brown fox jumps over the lazy dog. “Why?” said Holmes, and then:\n\nUser Assistant é 𝄞 "
SHAPE = dict(n_layer=2, n_head=2, n_embd=32, block_size=32)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    "So small a model is only slowed by more."
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def model(level="char", **shape):
    "An LM with random weights, large enough that some tokens are likelier than others."
    if level == "bpe":
        ranks = [bytes([k]) for k in range(256)] + [b"th", b" t"]
        tokenizer = gpt.BPETokenizer(" ".join(base64.b64encode(rank).decode() for rank in ranks))
    else:
        tokenizer = gpt.TOKENIZERS[level].train(TEXT, gpt.TrainConfig(min_freq=1))
    torch.manual_seed(5)
    network = gpt.GPT(gpt.ModelConfig(**{**SHAPE, **shape}, vocab_size=tokenizer.vocab_size))
    for w in network.parameters():
        w.data *= 4
    return gpt.LM(network.eval(), tokenizer)


class Served:
    "A server in a thread, and a client."

    def __init__(self, lm, **config):
        config = gpt.fill(serve.ServeConfig, {"port": 0, **config})
        self.lm = lm
        self.server = serve.Server(lm, config, gpt.SampleConfig())
        self.port = self.server.port
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def http(self, method, path, body=None, headers=()):
        "-> status, headers, bytes"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        return response.status, response.headers, answer

    def post(self, path="/v1/completions", **body):
        status, _, answer = self.http("POST", path, body)
        assert status == 200, answer
        return json.loads(answer)

    def events(self, path="/v1/completions", **body):
        status, headers, answer = self.http("POST", path, {**body, "stream": True})
        assert status == 200
        assert headers["Content-Type"].startswith("text/event-stream")
        *events, done, end = answer.decode().split("\n\n")
        assert (done, end) == ("data: [DONE]", "")
        return [json.loads(event.removeprefix("data: ")) for event in events]

    def refused(self, body, path="/v1/completions"):
        "-> the error to a wrong request"
        status, _, answer = self.http("POST", path, body)
        assert status == 400, answer
        return json.loads(answer)["error"]

    def raw(self, data, wait=5):
        "All that comes back for these bytes."
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait) as connection:
            answer = b""
            try:
                connection.sendall(data)
                while part := connection.recv(65536):
                    answer += part
            except (ConnectionError, TimeoutError):
                pass
        return answer


@pytest.fixture(scope="module", params=["char", "word", "bpe"])
def each(request):
    served = Served(model(request.param))
    yield served
    served.close()


@pytest.fixture(scope="module")
def served():
    served = Served(model())
    yield served
    served.close()


@pytest.fixture
def start():
    "Servers with settings of their own."
    started = []

    def start(lm=None, **config):
        started.append(Served(lm or model(), **config))
        return started[-1]

    yield start
    for served in started:
        served.close()


def slowed(lm, seconds):
    "The same model on a slower machine. -> the times of its steps"
    forward = lm.model.forward
    steps = []

    def slow_forward(*inputs, **options):
        steps.append(time.monotonic())
        time.sleep(seconds)
        return forward(*inputs, **options)

    lm.model.forward = slow_forward
    return steps


# ---- the text ----------------------------------------------------------------------------------------------

OPTIONS = [
    {"max_tokens": 50, "seed": 3},
    {"max_tokens": 50, "seed": 3, "temperature": 1.0, "top_p": 0.9, "top_k": 12, "min_p": 0.01},
    {"max_tokens": 40, "seed": 4, "temperature": 0, "repetition_penalty": 1.3},
    {"max_tokens": 30, "seed": 5, "n": 3},
    {"max_tokens": 60, "seed": 6, "stop": ["e", "th"]},
    {"max_tokens": 60, "seed": 6, "stop": "o", "n": 3},
    {"max_tokens": 0},
]


def in_ours(options):
    ours = {"max_tokens": "max_new_tokens", "n": "num_samples"}
    return {ours.get(name, name): value for name, value in options.items()}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("prompt", ["The quick", "", "é 𝄞" * 30], ids=["short", "empty", "long"])
def test_completions_are_those_of_sample(each, options, prompt):
    expected = each.lm.sample(prompt, **in_ours(options))
    expected = [expected] if isinstance(expected, str) else expected
    answer = each.post(prompt=prompt, **options)
    assert [choice["text"] for choice in answer["choices"]] == expected
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(expected)))
    assert answer["object"] == "text_completion"
    usage = answer["usage"]
    assert usage["prompt_tokens"] == len(each.lm.encode(prompt))
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    if "stop" not in options:
        assert usage["completion_tokens"] <= options["max_tokens"] * len(expected)
        if each.lm.tokenizer.end_id is None:
            assert usage["completion_tokens"] == options["max_tokens"] * len(expected)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("logprobs", [None, 3])
def test_a_stream_is_the_same_in_pieces(each, options, logprobs):
    options = {**options, "logprobs": logprobs, "prompt": ["The quick", "dog"], "seed": 8}
    whole = each.post(**options)
    *events, last = each.events(**options, stream_options={"include_usage": True})
    assert last["choices"] == [] and last["usage"] == whole["usage"]
    for choice in whole["choices"]:
        pieces = [c for event in events for c in event["choices"] if c["index"] == choice["index"]]
        assert "".join(piece["text"] for piece in pieces) == choice["text"]
        reasons = [piece["finish_reason"] for piece in pieces]
        assert reasons == [None] * (len(pieces) - 1) + [choice["finish_reason"]]
        if logprobs is None:
            assert choice["logprobs"] is None
        else:
            for name, values in choice["logprobs"].items():
                assert [value for piece in pieces for value in piece["logprobs"][name]] == values


def test_stop_and_length_are_told_apart(served):
    text = served.post(prompt="The", max_tokens=40, seed=1)["choices"][0]
    assert text["finish_reason"] == "length"
    stop = text["text"][20:22]
    stopped = served.post(prompt="The", max_tokens=40, seed=1, stop=stop)["choices"][0]
    assert stopped["finish_reason"] == "stop"
    assert stopped["text"] == text["text"].partition(stop)[0]
    as_it_is = served.post(prompt="The", max_tokens=40, seed=1, stop="\\n")["choices"][0]
    assert as_it_is["text"] == text["text"]  # no line's end, as on the command line


def test_logprobs_are_the_model_s(each):
    prompt = "The quick"
    answer = each.post(prompt=prompt, max_tokens=20, seed=2, temperature=1.5, logprobs=4)["choices"][0]
    seen = answer["logprobs"]
    ids = each.lm.encode(prompt)
    options = gpt.sampling({"max_new_tokens": 20, "seed": 2, "temperature": 1.5})
    steps = [new[0] for new, *_ in gpt.generate(each.lm, ids, options)]
    assert len(seen["tokens"]) == len(steps)
    with torch.no_grad():
        logits = each.lm.model(torch.tensor([ids + steps]))[0].float()
    if each.lm.tokenizer.unknown_id is not None:
        logits[:, each.lm.tokenizer.unknown_id] = -torch.inf
    logprobs = logits.log_softmax(-1)[len(ids) - 1:]
    for k, i in enumerate(steps):
        assert seen["token_logprobs"][k] == pytest.approx(float(logprobs[k, i]), abs=1e-4)
        best = list(seen["top_logprobs"][k].values())
        assert best == pytest.approx(logprobs[k].topk(4).values.tolist(), abs=1e-4)
    for token, start in zip(seen["tokens"], seen["text_offset"]):
        here = answer["text"][start:start + len(token) + 1]  # maybe after the sign for half a character
        assert token.startswith("bytes:") or token in here


def test_random_seed_is_told_and_repeats(served):
    first, second = (served.post(prompt="The", max_tokens=30) for _ in range(2))
    assert first["choices"] != second["choices"]
    again = served.post(prompt="The", max_tokens=30, seed=first["seed"])
    assert again["choices"] == first["choices"]


def test_echo(served):
    alone = served.post(prompt=["The", "dog"], max_tokens=5, seed=1, n=2)["choices"]
    echoed = served.post(prompt=["The", "dog"], max_tokens=5, seed=1, n=2, echo=True)["choices"]
    prompts = ["The", "The", "dog", "dog"]
    assert [c["text"] for c in echoed] == [p + c["text"] for p, c in zip(prompts, alone)]


def test_chat_is_the_dialogue(served):
    messages = [
        {"role": "system", "content": "The dog."},
        {"role": "user", "content": [{"type": "text", "text": "Why"}, {"type": "text", "text": "?"}]},
        {"role": "assistant", "content": " Holmes\n"},
        {"role": "user", "content": "and then"},
    ]
    prompt = "\n\nThe dog.\n\nUser: Why?\n\nAssistant: Holmes\n\nUser: and then\n\nAssistant:"
    expected = served.lm.sample(prompt, max_new_tokens=30, seed=1, stop="User:")
    request = dict(path="/v1/chat/completions", messages=messages, max_completion_tokens=30, seed=1)
    answer = served.post(**request, logprobs=True, top_logprobs=2)
    [choice] = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": expected}
    assert "base model" in answer["note"]
    assert answer["object"] == "chat.completion"
    [first, *_] = choice["logprobs"]["content"]
    assert len(first["top_logprobs"]) == 2
    assert bytes(first["bytes"]).decode() == first["token"]
    events = served.events(**request)
    deltas = [event["choices"][0]["delta"] for event in events]
    assert [delta.get("role") for delta in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
    assert "".join(delta["content"] for delta in deltas) == expected
    assert {event["object"] for event in events} == {"chat.completion.chunk"}


def test_models_and_health(served):
    models = json.loads(served.http("GET", "/v1/models")[2])
    [card] = models["data"]
    assert "base model" in card["description"]
    assert json.loads(served.http("GET", f"/v1/models/{card['id']}")[2]) == card
    assert json.loads(served.http("GET", "/health")[2]) == {"status": "ok"}
    status, _, answer = served.http("GET", "/v1/models/gpt-4")
    assert status == 404
    assert json.loads(answer)["error"]["code"] == "model_not_found"


# ---- many at once ------------------------------------------------------------------------------------------

def test_four_at_once_take_turns(start):
    lm = model()
    served = start(lm)
    expected = [lm.sample("The", max_new_tokens=40, seed=seed) for seed in range(4)]
    slowed(lm, 0.005)
    answers, ends = {}, {}

    def ask(seed):
        answers[seed] = served.events(prompt="The", max_tokens=40, seed=seed)
        ends[seed] = time.monotonic()

    started = time.monotonic()
    threads = [threading.Thread(target=ask, args=[seed]) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    texts = ["".join(e["choices"][0]["text"] for e in answers[seed]) for seed in range(4)]
    assert texts == expected
    first, last = min(ends.values()) - started, max(ends.values()) - started
    assert first > 0.6 * last  # one after the other: a quarter


def test_a_short_request_does_not_wait_for_a_long_one(start):
    lm = model()
    served = start(lm)
    steps = slowed(lm, 0.01)
    long = threading.Thread(target=served.post, kwargs=dict(prompt="The", max_tokens=60))
    long.start()
    until(lambda: len(steps) > 5)
    served.post(prompt="The", max_tokens=3)
    assert long.is_alive()
    long.join(20)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_stops_its_text(start, stream):
    lm = model()
    served = start(lm)
    steps = slowed(lm, 0.005)
    body = json.dumps({"prompt": "The", "max_tokens": 50_000, "stream": stream}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(head.encode() + body)
        until(lambda: len(steps) > 10)
    time.sleep(0.2)
    before = len(steps)
    time.sleep(0.3)
    assert len(steps) == before


def test_more_than_fit_are_told_to_come_later(start):
    lm = model()
    served = start(lm, max_requests=2)
    steps = slowed(lm, 0.01)
    busy = [threading.Thread(target=served.post, kwargs=dict(prompt="The", max_tokens=50)) for _ in "12"]
    for thread in busy:
        thread.start()
    until(lambda: len(steps) > 10)
    status, headers, answer = served.http("POST", "/v1/completions", {"prompt": "The"})
    assert status == 429 and headers["Retry-After"] == "1"
    assert json.loads(answer)["error"]["code"] == "rate_limit_exceeded"
    assert served.http("GET", "/health")[0] == 200
    for thread in busy:
        thread.join(20)
    one_more = {"prompt": "The", "max_tokens": 1}  # an answer is whole a moment before its place is free
    until(lambda: served.http("POST", "/v1/completions", one_more)[0] == 200)


def test_half_requests_hold_up_nobody_and_are_closed(start, monkeypatch):
    monkeypatch.setattr(serve, "SECONDS_TO_ASK", 1)
    served = start()
    halves = []
    for half in (b"", b"POST /v1/comp", b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n",
                 b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"):
        connection = socket.create_connection(("127.0.0.1", served.port), timeout=10)
        connection.sendall(half)
        halves.append(connection)
    assert served.post(prompt="The", max_tokens=2)
    for connection in halves:
        assert b"HTTP/1.1 200" not in connection.recv(1000)
        connection.close()
    until(lambda: not served.server.deadlines)


def test_connections_are_counted(start, monkeypatch):
    monkeypatch.setattr(serve, "MAX_CONNECTIONS", threading.active_count() + 4)
    served = start()
    crowd = [socket.create_connection(("127.0.0.1", served.port), timeout=5) for _ in range(8)]
    assert crowd[-1].recv(10) == b""
    for connection in crowd:
        connection.close()
    until(lambda: not served.server.deadlines)
    assert served.http("GET", "/health")[0] == 200


# ---- who may come in ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("host, status", [
    ("localhost", 200), ("localhost:1234", 200), ("127.0.0.1:8000", 200), ("[::1]:8000", 200),
    ("LOCALHOST", 200), ("evil.example", 403), ("localhost.evil.example", 403), ("127.0.0.1.evil", 403),
    ("", 403), ("[::1", 403), ("evil@localhost.com", 403),
])
def test_host_header(served, host, status):
    assert served.http("GET", "/health", headers={"Host": host})[0] == status


def test_origin(served):
    own = f"http://127.0.0.1:{served.port}"
    host = f"127.0.0.1:{served.port}"
    for origin, expected in ((own, 200), ("https://evil.example", 403), ("null", 403)):
        headers = {"Host": host, "Origin": origin, "Content-Type": "text/plain"}
        body = {"prompt": "The", "max_tokens": 1}
        status, answered, _ = served.http("POST", "/v1/completions", body, headers)
        assert status == expected
        assert "Access-Control-Allow-Origin" not in answered


def test_api_key(start):
    served = start(api_key="sésame")
    for key, expected in ((None, 401), ("wrong", 401), ("sésame", 200)):
        headers = {"Authorization": f"Bearer {key}".encode()} if key else {}
        status, _, answer = served.http("GET", "/v1/models", headers=headers)
        assert status == expected
        if status == 401:
            assert json.loads(answer)["error"]["code"] == "invalid_api_key"
    assert served.http("GET", "/health")[0] == 200
    assert served.http("GET", "/")[0] == 200
    for path in ("/%761/models", "/v%31/models", "/%76%31/completions?v=1"):
        method = "GET" if "models" in path else "POST"
        assert served.http(method, path, {"prompt": "The"})[0] == 401, path


# ---- mistakes ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("body, param, says", [
    ({"prompt": 5}, "prompt", "a text or a list"),
    ({"prompt": [1, 2, 3]}, "prompt", "token ids"),
    ({"prompt": []}, "prompt", "1 to 1,000 texts"),
    ({"temperature": -1}, "temperature", "needs temperature >= 0"),
    ({"temperature": "hot"}, "temperature", "expected a number"),
    ({"max_tokens": 1.5}, "max_tokens", "expected a whole number"),
    ({"max_tokens": 10 ** 9}, "max_tokens", "at most 100,000"),
    ({"max_tokens": True}, "max_tokens", "expected a whole number"),
    ({"n": 17}, "n", "at most 16"),
    ({"n": 0}, "n", "needs 1 <= n"),
    ({"top_p": 0}, "top_p", "0 < top_p <= 1"),
    ({"seed": -1}, "seed", "needs 0 <= seed"),
    ({"stop": [""]}, "stop", "1 to 200 characters"),
    ({"stop": ["x"] * 17}, "stop", "at most 16"),
    ({"stop": {"a": 1}}, "stop", "a text or a list"),
    ({"logprobs": 21}, "logprobs", "0 to 20"),
    ({"logprobs": True}, "logprobs", "0 to 20"),
    ({"stream": "yes"}, "stream", "true or false"),
    ({"echo": True, "logprobs": 1}, "echo", "not together"),
    ({"frequency_penalty": 0.5}, "frequency_penalty", "doesn't have it"),
    ({"logit_bias": {"5": 1}}, "logit_bias", "doesn't have it"),
    ({"topp": 0.5}, "topp", "did you mean top_p?"),
    ({"messages": []}, "messages", "unknown parameter"),
    ([], None, "JSON object"),
])
def test_a_mistake_says_what_to_change(served, body, param, says):
    error = served.refused(body)
    assert says in error["message"]
    assert error["param"] == param
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert "--" not in error["message"]


@pytest.mark.parametrize("messages, param", [
    ([], "messages"), ("hello", "messages"), ([5], "messages[0]"), ([{"role": "judge"}], "messages[0].role"),
    ([{"role": "user"}], "messages[0].content"), ([{"role": ["user"], "content": ""}], "messages[0].role"),
    ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content"),
])
def test_mistakes_in_a_dialogue(served, messages, param):
    assert served.refused({"messages": messages}, "/v1/chat/completions")["param"] == param


def test_what_asks_for_nothing_is_taken(served):
    served.post(prompt="The", max_tokens=2.0, temperature=None, user="me", frequency_penalty=0, best_of=1,
                logit_bias={}, suffix=None, model="gpt-3.5-turbo-instruct", stop=None, n=None, logprobs=None)
    served.post("/v1/chat/completions", messages=[{"role": "user", "content": "Why"}], max_tokens=1,
                tools=[], response_format={"type": "text"}, presence_penalty=0.0, store=False)


def test_an_answer_that_is_held_whole_has_a_limit(served):
    much = {"prompt": ["a"] * 10, "max_tokens": 100_000, "n": 16, "logprobs": 20}
    status, _, answer = served.http("POST", "/v1/completions", much)
    assert status == 400 and "stream it" in json.loads(answer)["error"]["message"]


def test_several_texts_of_one_prompt_have_decoders_of_their_own():
    lm = model("bpe")
    first = lm.tokenizer.decoder()
    second = copy.copy(first)
    *begun, last = lm.tokenizer.encode("é")
    assert begun and first.add(begun[0]) == ""
    assert second.end() == "" and first.end() == "\N{REPLACEMENT CHARACTER}"


def test_wrong_places_and_sizes(served):
    for method, path, body, expected in (
        ("GET", "/nowhere", None, 404), ("GET", "/v1/completions", None, 405), ("POST", "/", b"{}", 405),
        ("DELETE", "/v1/models", None, 405), ("OPTIONS", "/v1/completions", None, 405),
        ("BREW", "/", None, 501), ("POST", "/v1/completions", b"x" * 1_000_001, 413),
        ("POST", "/v1/completions", b"\xff\xfe", 400), ("POST", "/v1/completions", b"[" * 500_000, 400),
        ("POST", "/v1/completions", b'{"seed": ' + b"9" * 10_000 + b"}", 400),
        ("POST", "/v1/completions", b'{"temperature": NaN}', 400),
        ("GET", "/" + "x" * 70_000, None, 414),
    ):
        status, headers, answer = served.http(method, path, body)
        assert status == expected, (method, path)
        assert json.loads(answer)["error"]["message"]
        if status == 405:
            assert headers["Allow"] in ("GET", "POST")
    status, headers, answer = served.http("HEAD", "/health")
    assert (status, answer) == (200, b"")


def test_long_prompts_are_read_to_their_end(each):
    prompt = TEXT * 30
    answer = each.post(prompt=prompt, max_tokens=5, seed=1)
    assert answer["choices"][0]["text"] == each.lm.sample(prompt, max_new_tokens=5, seed=1)
    started = time.monotonic()
    each.post(prompt="a" * 900_000, max_tokens=1)
    assert time.monotonic() - started < 10


def test_a_bug_is_an_answer_and_the_server_goes_on(start, capfd):
    lm = model()
    served = start(lm)
    forward = lm.model.forward
    lm.model.forward = lambda *inputs, **options: 1 / 0
    status, _, answer = served.http("POST", "/v1/completions", {"prompt": "The"})
    assert status == 500
    assert json.loads(answer)["error"]["type"] == "server_error"
    answer = served.http("POST", "/v1/completions", {"prompt": "The", "stream": True})[2]
    assert json.loads(answer.split(b"data: ")[1])["error"]["type"] == "server_error"
    lm.model.forward = forward
    assert served.post(prompt="The", max_tokens=1)
    assert "ZeroDivisionError" in capfd.readouterr().err


# ---- whatever is sent --------------------------------------------------------------------------------------

NAMES = sorted(serve.SAMPLING | serve.OTHERS | set(serve.NOT_HERE) | {"prompt", "messages", "echo", "x"})
LEAVES = [None, True, False, 0, 1, -1, 2.5, 1e308, 10 ** 40, "", "The", "\ud800", "\0", "é" * 500, "1e3", [],
          {}, [[]], [None], {"role": "user", "content": "Why"}, float("nan"), float("-inf")]


def odd_value(rng, depth=0):
    if depth > 3 or rng.random() < 0.7:
        return rng.choice(LEAVES)
    if rng.random() < 0.5:
        return [odd_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(NAMES): odd_value(rng, depth + 1) for _ in range(rng.randrange(4))}


def odd_body(rng):
    body = {rng.choice(NAMES): odd_value(rng) for _ in range(rng.randrange(3))}
    if rng.random() < 0.5:
        body = {"prompt": "The", "messages": [{"role": "user", "content": "Why"}], **body}
    data = json.dumps({"max_tokens": 3, **body}, ensure_ascii=rng.random() < 0.8)
    data = data.encode("utf-8", "surrogatepass")
    if rng.random() < 0.15:
        place = rng.randrange(len(data))
        data = data[:place] + bytes([rng.randrange(256)]) + data[place + rng.randrange(3):]
    return data


def odd_request(rng):
    "A request, nearly right or not at all."
    data = odd_body(rng)
    length = rng.choice([len(data)] * 8 + [len(data) - 1, 0, -5, "x", 10 ** 30, len(data) + 40, ""])
    path = rng.choice(["/v1/completions"] * 4 + ["/v1/chat/completions"] * 3 + ["/", "/%zz", "//", "*", "/é"])
    method = rng.choice(["POST"] * 8 + ["GET", "PUT", "\0", "POST POST"])
    version = rng.choice(["HTTP/1.1"] * 8 + ["HTTP/1.0", "HTTP/9.9", "HTTP/x", ""])
    more = rng.choice([""] * 8 + ["Content-Length: 7\r\n", "Transfer-Encoding: chunked\r\n", ": \r\n",
                                  "X: " + "y" * 70_000 + "\r\n", "X: y\r\n" * 200, "Expect: 100-continue\r\n",
                                  "Authorization: \xff\r\n", "Connection: close\r\n"])
    head = f"{method} {path} {version}\r\nHost: localhost\r\nContent-Length: {length}\r\n{more}\r\n"
    return head.encode("latin-1", "replace") + data


def test_odd_requests_give_no_traceback_and_no_hang(start, capfd, monkeypatch):
    monkeypatch.setattr(serve, "SECONDS_TO_ASK", 1)
    served = start()
    rng = random.Random(7)
    last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    hung, answers = [], []

    def ask(requests):
        for request in requests:
            with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
                try:
                    connection.sendall(request + last)
                    while part := connection.recv(65536):
                        answers.append(part)
                except ConnectionError:
                    pass
                except TimeoutError:
                    hung.append(request)

    requests = [b"".join(odd_request(rng) for _ in range(rng.choice([1, 1, 1, 3]))) for _ in range(300)]
    requests += [rng.randbytes(rng.randrange(1, 300)) for _ in range(20)]
    threads = [threading.Thread(target=ask, args=[requests[k::4]]) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert hung == []
    statuses = {int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", b"".join(answers))}
    assert statuses >= {100, 200, 400, 404, 405, 411, 413, 431, 501, 505}
    assert 500 not in statuses
    assert served.post(prompt="The", max_tokens=3)
    until(lambda: not served.server.deadlines)
    until(lambda: served.server.places._value == served.server.config.max_requests)
    assert "Traceback" not in capfd.readouterr().err


def test_odd_bodies_are_answered(served, capfd):
    rng = random.Random(8)
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    statuses = set()
    for _ in range(300):
        path = rng.choice(["/v1/completions", "/v1/chat/completions"])
        connection.request("POST", path, odd_body(rng))
        response = connection.getresponse()
        response.read()
        statuses.add(response.status)
    connection.close()
    assert statuses == {200, 400}
    assert "Traceback" not in capfd.readouterr().err


def test_pipelined_requests_are_answered_in_turn(served):
    body = b'{"prompt": "The", "max_tokens": 2, "seed": 1}'
    one = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(body)
    last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = served.raw((one + b"\r\n" + body) * 3 + last)
    assert answer.count(b"HTTP/1.1 200") == 4
    assert answer.endswith(b'{"status": "ok"}')


# ---- other people's clients --------------------------------------------------------------------------------

def test_openai_package(start):
    openai = pytest.importorskip("openai")
    served = start(api_key="secret")
    settings = {"base_url": f"http://127.0.0.1:{served.port}/v1", "max_retries": 0}
    client = openai.OpenAI(api_key="secret", **settings)
    name = client.models.list().data[0].id
    assert client.models.retrieve(name).id == name
    expected = served.lm.sample("The", max_new_tokens=20, seed=1)
    asked = dict(model=name, prompt="The", max_tokens=20, seed=1)
    answer = client.completions.create(**asked, logprobs=2, extra_body={"top_k": 0, "min_p": 0.0})
    assert answer.choices[0].text == expected
    assert len(answer.choices[0].logprobs.top_logprobs[0]) == 2
    assert answer.usage.completion_tokens == 20
    assert "".join(c.choices[0].text for c in client.completions.create(**asked, stream=True)) == expected
    messages = [{"role": "user", "content": "Why"}]
    chat = dict(model=name, messages=messages, max_tokens=20, seed=1)
    whole = client.chat.completions.create(**chat, logprobs=True, top_logprobs=1)
    pieces = client.chat.completions.create(**chat, stream=True)
    assert "".join(piece.choices[0].delta.content for piece in pieces) == whole.choices[0].message.content
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.completions.create(**asked, temperature=-1)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(api_key="wrong", **settings).models.list()


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_curl(served):
    def curl(*words, input=None):
        place = f"http://localhost:{served.port}"
        command = ["curl", "-sN", "-4", "--max-time", "20", place + words[0], *words[1:]]
        return subprocess.run(command, capture_output=True, input=input, timeout=30).stdout.decode()

    asked = '{"prompt": "The", "max_tokens": 5, "seed": 1'
    expected = served.lm.sample("The", max_new_tokens=5, seed=1)
    assert json.loads(curl("/v1/completions", "-d", asked + "}"))["choices"][0]["text"] == expected
    streamed = curl("/v1/completions", "-d", asked + ', "stream": true}')
    assert streamed.endswith("data: [DONE]\n\n")
    large = curl("/v1/completions", "--data-binary", "@-", input=b"x" * 2_000_000)
    assert "at most 1,000,000" in json.loads(large)["error"]["message"]
    chunked = curl("/v1/completions", "-H", "Transfer-Encoding: chunked", "-d", asked + "}")
    assert "Content-Length" in json.loads(chunked)["error"]["message"]


# ---- the command -------------------------------------------------------------------------------------------

COMMAND = """import sys
sys.path.insert(0, sys.argv.pop(1))
import gpt
gpt.TOOLS.setdefault("serve", "the OpenAI API and one page, on localhost")
with gpt.errors_told():
    gpt.run_command(*gpt.command_line(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve") / "runs" / "tiny"
    folder.mkdir(parents=True)
    lm = model()
    saved = {"version": gpt.CHECKPOINT_VERSION, "model": lm.model.state_dict(),
             "model_config": vars(lm.config), "train_config": {}, "tokenizer": lm.tokenizer.state}
    gpt.save_checkpoint(folder / "best.pt", saved)
    return folder


def command(*words):
    whole = [sys.executable, "-c", COMMAND, str(HERE), "serve", *map(str, words)]
    return subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_command_serves_until_ctrl_c(checkpoint):
    process = command(checkpoint, "--port", 0, "--temperature", 0)
    try:
        process.stdout.readline()
        port = int(re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("POST", "/v1/completions", b'{"prompt": "The", "max_tokens": 5}')
        answer = json.loads(connection.getresponse().read())
        lm = gpt.load(str(checkpoint))
        assert answer["model"] == "tiny"
        assert answer["choices"][0]["text"] == lm.sample("The", max_new_tokens=5, temperature=0)
        connection.request("POST", "/v1/completions", b'{"max_tokens": 90000, "stream": true}')
        connection.getresponse().read(1000)  # one is in the middle of it
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "stopped"
    assert "Traceback" not in errors


def test_command_s_mistakes(checkpoint):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for asked, says in (
            ({"host": "0.0.0.0"}, "--host 0.0.0.0 can be reached by others: give an --api_key"),
            ({"port": "70000"}, "--port 70000: needs 0 <= port <= 65535"),
            ({"port": port}, f"--port {port}: .*in use"),
            ({"host": "no.such.host.", "api_key": "x"}, "--host no.such.host. --port 8000: "),
            ({"temperature": "-1"}, "--temperature -1.0: needs temperature >= 0"),
        ):
            with pytest.raises(gpt.UserError, match=says):
                serve.serve_command({"run": [str(checkpoint)], **asked})


def test_without_the_page_one_line_says_so(checkpoint, monkeypatch, tmp_path):
    monkeypatch.setattr(gpt, "HERE", tmp_path)
    with pytest.raises(gpt.RunError, match="serve needs page.html beside serve.py"):
        serve.serve_command({"run": [str(checkpoint)], "port": 0})


# ---- the page ----------------------------------------------------------------------------------------------

def test_page_loads_nothing_from_elsewhere(served):
    status, headers, answer = served.http("GET", "/")
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    page = answer.decode().replace("http://www.w3.org/2000/svg", "")
    assert "http:" not in page and "https:" not in page
    assert max(len(line) for line in page.splitlines()) <= 110


@pytest.mark.slow
def test_page_in_a_browser(start, browser):
    from selenium.webdriver import ActionChains, Keys
    lm = model("word")
    served = start(lm)
    steps = slowed(lm, 0.02)
    browser.get(f"http://localhost:{served.port}/")

    def find(selector):
        return browser.find_element("css selector", selector)

    def text_on_page():
        return browser.execute_script("return document.getElementById('text').textContent")

    until(lambda: "base model" in find("#about").text)
    find("#prompt").send_keys("The quick")
    find("#seed").send_keys("3")
    find("#max_tokens").send_keys(Keys.HOME)  # a slider, to its left end: 10
    find("#max_tokens").send_keys(Keys.RIGHT, Keys.RIGHT)
    find("#write").click()
    until(lambda: browser.find_elements("css selector", ".token"))
    assert find("#stop").is_enabled() and not find("#write").is_enabled()
    assert len(browser.find_elements("css selector", ".token")) < 30  # it streams
    until(lambda: "as long as asked" in find("#status").text)
    assert len(browser.find_elements("css selector", ".token")) == 30
    expected = lm.sample("The quick", max_new_tokens=30, seed=3)
    assert text_on_page() == "The quick" + expected
    # The X-ray: colours, and what else was likely.
    find("#xray").click()
    token = browser.find_elements("css selector", ".token")[4]
    assert token.value_of_css_property("background-color") != "rgba(0, 0, 0, 0)"
    ActionChains(browser).move_to_element(token).perform()
    until(lambda: find("#card").is_displayed())
    assert len(browser.find_elements("css selector", "#card div")) >= 5
    assert "%" in find("#card").text
    # Another slider changes the text; stop stops the model.
    find("#temperature").send_keys(Keys.HOME)
    find("#max_tokens").send_keys(Keys.END)
    before = len(steps)
    find("#write").click()
    until(lambda: len(steps) > before + 10)
    find("#stop").click()
    until(lambda: "stopped" in find("#status").text)
    time.sleep(0.3)
    before = len(steps)
    time.sleep(0.3)
    assert len(steps) == before
    greedy = "The quick" + lm.sample("The quick", max_new_tokens=60, temperature=0)
    assert greedy.startswith(text_on_page()[:30])
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    # A mistake is shown.
    browser.execute_script("document.getElementById('seed').value = '-5'")
    find("#write").click()
    until(lambda: "seed" in find("#error").text)
