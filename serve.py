"""serve.py: a trained model behind the API that OpenAI's clients speak, and one page to write with it.

    python gpt.py serve                       the newest run, at http://127.0.0.1:8000
    curl localhost:8000/v1/completions -d '{"prompt": "Holmes said", "max_tokens": 50, "stream": true}'

It reads in the order of a request: a server that admits it, a connection that reads it, the request checked,
the text as it grows, and the answer in OpenAI's words. Python's own http.server is all it needs.

Requests take turns token by token. One thread owns the model and has a queue of steps, first come, first
served, in which each request has one at most. So a short request never waits for a long one to end, a slow
reader holds up nobody but itself, and torch keeps one pool of threads instead of one for each connection.
"""
import contextlib
import copy
import hmac
import json
import math
import re
import secrets
import select
import socket
import socketserver
import sys
import threading
import time
import traceback
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import gpt

THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
MAX_BODY = 1_000_000                                          # bytes
MAX_CONNECTIONS = 200                                         # each is a thread
MAX_TOKENS = 100_000                                          # in one text
MAX_TEXTS = 16                                                # side by side, for one prompt
MAX_HELD = 2_000_000                                          # tokens and alternatives, until all is written
SECONDS_TO_ASK = 30                                           # by then a request has to be here, whole

@dataclass
class ServeConfig:
    "where it listens, and to whom"
    host: str = gpt.knob("127.0.0.1", "the address; one that others can reach needs --api_key, too")
    port: int = gpt.knob(8000, "the port; 0: any that is free", "0 <= port <= 65535")
    api_key: str = gpt.knob("", "a secret that callers send, as Authorization: Bearer SECRET")
    max_requests: int = gpt.knob(32, "requests at a time; more get status 429", "max_requests >= 1")

# What a request may leave open. seed is not among them: without one, each request draws its own.
DEFAULTS = {k: f for k, f in gpt.knobs(gpt.SampleConfig).items() if k not in ("seed", "num_samples", "stop")}

class Refusal(Exception):
    "What was asked for is not given: an HTTP status, what to change, and the parameter that is meant."
    def __init__(self, status, message, param=None, code=None, **headers):
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers

class Gone(Exception):
    "Nobody waits for this answer any more."

def name_of_model(path):
    "runs/nano-word/best.pt -> nano-word; but gpt2 and mine.pt are names themselves."
    in_a_run = path.name in ("best.pt", "latest.pt") and path.parent.name
    return in_a_run or path.name

def refuse_unless(ok, param, message):
    if not ok:
        raise Refusal(400, f"{param}: {message}", param)

# ---- the server: who may come in, and whose turn it is -----------------------------------------------------

class Server(socketserver.ThreadingTCPServer):
    "Not http.server's own class, which asks the network for the name of this machine."
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, lm, config, defaults):
        self.lm, self.config, self.defaults = lm, config, defaults
        with gpt.explain("serve needs page.html beside serve.py", OSError, kind=gpt.RunError):
            self.page = (gpt.HERE / "page.html").read_bytes()
        self.places = threading.Semaphore(config.max_requests)
        self.deadlines = {}                                   # of connections that still have to ask
        self.model_thread = ThreadPoolExecutor(1, "model")
        self.started_at = int(time.time())
        self.closing = False
        self.name = name_of_model(Path(lm.path or "model"))
        if ":" in config.host:
            self.address_family = socket.AF_INET6
        address = f"--host {config.host} --port {config.port}"
        with gpt.explain(address, OSError, OverflowError, UnicodeError, kind=gpt.RunError):
            super().__init__((config.host, config.port), Connection)
        self.port = self.server_address[1]

    def turn(self, steps):
        "The next step of a request, when all that came before have had theirs. None: it was the last."
        try:
            step = self.model_thread.submit(next, steps, None)
            return step.result()
        except (CancelledError, RuntimeError):
            if self.closing:
                raise Gone from None
            raise

    @contextlib.contextmanager
    def place(self):
        message = f"{self.config.max_requests} requests are being answered: try again in a second"
        if not self.places.acquire(blocking=False):
            raise Refusal(429, message, code="rate_limit_exceeded", Retry_After="1")
        try:
            yield
        finally:
            self.places.release()

    def process_request(self, request, client_address):
        if threading.active_count() < MAX_CONNECTIONS:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def service_actions(self):
        "Twice a second: a connection that asks too slowly, or not at all, is closed."
        for connection, deadline in list(self.deadlines.items()):
            if time.monotonic() > deadline:
                self.deadlines.pop(connection, None)
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):        # a client that vanished is no news
            traceback.print_exc()

    def server_close(self):
        super().server_close()
        self.closing = True
        self.model_thread.shutdown(cancel_futures=True)
        # Answers that were cut let go of their tensors now: as Python ends, torch would crash at that.
        end = time.monotonic() + 0.3
        for thread in threading.enumerate():
            if thread.daemon:
                thread.join(max(0, end - time.monotonic()))

# ---- a connection: reads requests, refuses what it must, writes answers ------------------------------------

class Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = f"gpt.py/{gpt.__version__}"
    sys_version = ""
    timeout = SECONDS_TO_ASK                                  # also for a client that doesn't read
    disable_nagle_algorithm = True                            # or the last piece of an answer waits for 40 ms

    def handle_one_request(self):
        self.server.deadlines[self.connection] = time.monotonic() + SECONDS_TO_ASK
        super().handle_one_request()

    def finish(self):
        self.server.deadlines.pop(self.connection, None)
        super().finish()

    def log_message(self, format, *values):
        pass                                                  # complete() says what was done

    def answer(self):
        "One request, from its body to its end. Whatever is wrong with it, the connection's others may go on."
        self.streaming = False
        try:
            body = self.read_body()
            self.server.deadlines.pop(self.connection, None)
            self.route(body)
        except Refusal as refusal:
            self.send_refusal(refusal)
        except gpt.UserError as error:
            self.send_refusal(in_our_names(error))
        except (Gone, OSError):
            self.close_connection = True
        except RecursionError:
            self.send_refusal(Refusal(400, "the body is nested too deeply"))
        except Exception as error:                            # a bug, or no memory: the server goes on
            traceback.print_exc()
            why = str(error).partition("\n")[0]
            self.send_refusal(Refusal(500, f"{type(error).__name__}: {why:.200}"))

    do_GET = do_POST = do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def read_body(self):
        "The body must be read whole, or the connection closed: what is left would be the next request."
        closes = self.close_connection
        self.close_connection = True
        lengths = set(self.headers.get_all("Content-Length", ["0"]))
        if "Transfer-Encoding" in self.headers:
            raise Refusal(411, "send the body whole, with its Content-Length")
        length = lengths.pop()
        if lengths or not re.fullmatch("[0-9]{1,40}", length):
            raise Refusal(400, "Content-Length: expected one number")
        length = int(length)
        if length > MAX_BODY:
            left = length if length < 16 * MAX_BODY else 0    # many clients listen only after they have sent
            while left > 0 and (part := self.rfile.read(min(left, 65536))):
                left -= len(part)
            raise Refusal(413, f"the body has {length:,} bytes: send at most {MAX_BODY:,}")
        body = self.rfile.read(length)
        if len(body) < length:
            raise Gone
        self.close_connection = closes
        return body

    def check_caller(self, path):
        "On this machine the danger is a web page of a stranger, open in the same browser."
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        config = self.server.config
        if config.host in THIS_MACHINE:                       # a stranger's name that leads here, by DNS
            try:
                name = urlsplit(f"//{host}").hostname
            except ValueError:
                name = None
            if name not in THIS_MACHINE:
                raise Refusal(403, f"Host: open it as http://localhost:{self.server.port}")
        if origin and origin.partition("://")[2] != host:
            raise Refusal(403, "Origin: a page from elsewhere may not use this server")
        given = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if config.api_key and path.startswith("/v1"):
            if not hmac.compare_digest(given.encode("latin-1", "replace"), config.api_key.encode()):
                raise Refusal(401, "send the header  Authorization: Bearer KEY  with the --api_key of the "
                              "server", code="invalid_api_key")

    def route(self, body):
        path = unquote(self.path.partition("?")[0])           # before the key is asked for: %76 is a v
        self.check_caller(path)
        model = self.server.name
        routes = {
            "/": ("GET", self.send_page),
            "/health": ("GET", lambda: self.send_json(200, {"status": "ok"})),
            "/v1/models": ("GET", lambda: self.send_json(200, {"object": "list", "data": [self.card()]})),
            f"/v1/models/{model}": ("GET", lambda: self.send_json(200, self.card())),
            "/v1/completions": ("POST", lambda: self.complete(Request(body, self.server, chat=False))),
            "/v1/chat/completions": ("POST", lambda: self.complete(Request(body, self.server, chat=True))),
        }
        if path not in routes:
            if path.startswith("/v1/models/"):
                raise Refusal(404, f"the model here is {model}", "model", "model_not_found")
            raise Refusal(404, f"{path:.80}: there is {', '.join(routes)}")
        method, send = routes[path]
        command = self.command.replace("HEAD", "GET")         # its answer has no body, see send_body()
        if command != method:
            raise Refusal(405, f"{path} takes {method}, not {self.command}", Allow=method)
        send()

    def send_head(self, status, kind, length=None, **headers):
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length is None:                                    # it ends when the connection does
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(length))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def send_body(self, status, kind, body, **headers):
        self.send_head(status, kind, len(body), **headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_json(self, status, value, **headers):
        self.send_body(status, "application/json", json.dumps(value).encode(), **headers)

    def send_page(self):
        "It may run its own script and speak with this server, and nothing else."
        policy = ("default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
                  "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
        self.send_body(200, "text/html", self.server.page, Content_Security_Policy=policy)

    def send_event(self, value):
        data = value if isinstance(value, str) else json.dumps(value)
        self.wfile.write(f"data: {data}\n\n".encode())

    def send_refusal(self, refusal):
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        status = refusal.status
        kind = "server_error" if status >= 500 else kinds.get(status, "invalid_request_error")
        error = {"message": str(refusal), "type": kind, "param": refusal.param, "code": refusal.code}
        try:
            if self.streaming:
                self.send_event({"error": error})
            else:
                self.send_json(status, {"error": error}, **refusal.headers)
        except OSError:
            self.close_connection = True

    def send_error(self, code, message=None, explain=None):
        "http.server calls this for what is no HTTP, in HTML; we have one shape for all."
        self.close_connection = True
        self.streaming = False
        self.request_version = self.protocol_version          # or there would be no status line
        self.send_refusal(Refusal(int(code), message or HTTPStatus(code).phrase))

    def card(self):
        "The model, as /v1/models has it."
        lm = self.server.lm
        return {"id": self.server.name, "object": "model", "created": self.server.started_at,
                "owned_by": "you", "description": BASE_MODEL, "level": lm.tokenizer.state["level"],
                "context": lm.config.block_size, "parameters": gpt.num_parameters(lm.model),
                "defaults": {name: vars(self.server.defaults)[name] for name in DEFAULTS}}

    def gone(self):
        """Whether the client has hung up: then there is something to read, and it is nothing. One that only
        says that it won't send any more looks the same, and gets no answer, either."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return readable and self.connection.recv(1, socket.MSG_PEEK) == b""

    def parts(self, request):
        "What is new in the texts that were asked for, step by step."
        lm, n = self.server.lm, request.options.num_samples
        for k, prompt in enumerate(request.prompts):
            ids = lm.encode(prompt)
            request.prompt_tokens += len(ids)
            for row in range(n if request.echo else 0):
                yield k * n + row, Part(prompt)
            offset = len(prompt) if request.echo else 0
            decoder = lm.tokenizer.decoder(ids)               # reads all of them: not in the model's thread
            steps = grow(lm, ids, decoder, request.options, request.alternatives, offset)
            while news := self.server.turn(steps):
                if self.gone():
                    raise Gone
                request.new_tokens += sum(part.counts for _, part in news)
                for row, part in news:
                    yield k * n + row, part

    def complete(self, request):
        "A text as it grows, or all at once."
        started = time.monotonic()
        outcome = "gone"
        with self.server.place():
            try:
                if request.stream:
                    self.stream(request)
                else:
                    self.send_json(200, request.whole(self.parts(request)))
                outcome = "done"
            finally:
                seconds = time.monotonic() - started
                if not self.server.closing:
                    print(f"{outcome}: {request.prompt_tokens} tokens read, {request.new_tokens} written, "
                          f"{seconds:.2f} s", file=sys.stderr)

    def stream(self, request):
        "Server-sent events, as OpenAI's clients expect them: pieces, maybe the usage, and [DONE]."
        self.send_head(200, "text/event-stream")
        self.streaming = True
        for index, part in self.parts(request):
            if part.text or part.tokens or part.reason:
                self.send_event(request.chunk(index, part))
        if request.include_usage:
            self.send_event({**request.head, "choices": [], "usage": request.usage()})
        self.send_event("[DONE]")

# ---- a request: what it asks for, checked; and its answer in OpenAI's words --------------------------------

BASE_MODEL = "a base model: it goes on with a text; it was not taught to answer"
OUR_NAMES = {"max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens", "n": "num_samples"}
SAMPLING = {*gpt.knobs(gpt.SampleConfig), *OUR_NAMES} - {"stop"}
OTHERS = {"model", "stop", "stream", "stream_options", "logprobs"}
IGNORED = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "verbosity",
           "parallel_tool_calls", "reasoning_effort", "prediction"}
# OpenAI has these and we don't. The values, beside null, that ask for nothing.
NOT_HERE = {"best_of": (1,), "suffix": ("",), "frequency_penalty": (0,), "presence_penalty": (0,),
            "logit_bias": ({},), "tools": ([],), "tool_choice": ("none", "auto"), "functions": ([],),
            "function_call": ("none", "auto"), "response_format": ({"type": "text"},), "audio": (),
            "modalities": (["text"],), "web_search_options": ()}

def in_our_names(error):
    "gpt.py's errors speak of flags; a request has parameters, some under OpenAI's names."
    message = str(error).replace("max_new_tokens", "max_tokens").replace("num_samples", "n")
    named = re.match(r"--(\w+)|unknown parameter (\w+)", message)
    param = named[1] or named[2] if named else None
    return Refusal(400, message.removeprefix("--"), param)

class Request:
    "The body of a request, read and checked; and the answer to it in OpenAI's words."

    def __init__(self, body, server, chat):
        self.chat = chat
        self.body = asked = self.parse(body)
        known = SAMPLING | OTHERS | IGNORED | set(NOT_HERE)
        known |= {"messages", "top_logprobs"} if chat else {"prompt", "echo"}
        gpt.check_known([name[:50] for name in asked], sorted(known), "unknown parameter")
        for name, values in NOT_HERE.items():
            refuse_unless(name not in asked or asked[name] in values, name, "this server doesn't have it")
        self.stream = self.take("stream", bool, False, "true or false")
        stream_options = self.take("stream_options", dict, {}, 'an object, {"include_usage": true}')
        self.include_usage = stream_options.get("include_usage") is True
        self.echo = self.take("echo", bool, False, "true or false")
        self.take("model", str, "", "a text; whatever it says, the answer is from the one model here")
        self.alternatives = self.read_logprobs()
        refuse_unless(not self.echo or self.alternatives is None, "echo", "not together with logprobs")
        stops = self.read_stops()
        if chat:
            stops = (*stops, "User:")
            self.prompts = [self.read_messages()]
        else:
            self.prompts = self.read_prompts()
        self.options = self.read_options(server.defaults, stops)
        self.prompt_tokens = self.new_tokens = 0
        kind = "chat.completion" if chat else "text_completion"
        if chat and self.stream:
            kind = "chat.completion.chunk"
        name = ("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(12)
        self.head = {"id": name, "object": kind, "created": int(time.time()), "model": server.name,
                     "seed": self.options.seed}
        if chat:
            self.head["note"] = BASE_MODEL
        self.started = set()                                  # the texts of which something was sent

    def parse(self, body):
        try:
            asked = json.loads(body)
        except ValueError as error:                           # which UnicodeDecodeError is, too
            raise Refusal(400, f"the body is not JSON in UTF-8: {error!s:.100}") from None
        if not isinstance(asked, dict):
            raise Refusal(400, 'the body is a JSON object, such as {"prompt": "Holmes said"}')
        return {name: value for name, value in asked.items() if value is not None}

    def take(self, name, kind, default, expected):
        value = self.body.get(name, default)
        refuse_unless(isinstance(value, kind), name, f"expected {expected}")
        return value

    def read_logprobs(self):
        "-> how many alternatives to each token, or None where probabilities are not asked for"
        name = "top_logprobs" if self.chat else "logprobs"
        if self.chat and not self.take("logprobs", bool, False, "true or false"):
            refuse_unless(name not in self.body, name, 'needs "logprobs": true')
            return None
        count = self.body.get(name, 0 if self.chat else None)
        whole = isinstance(count, int | float) and count == count // 1 and not isinstance(count, bool)
        refuse_unless(count is None or whole and 0 <= count <= 20, name, "expected a number, 0 to 20")
        return None if count is None else int(count)

    def read_stops(self):
        stops = self.take("stop", (str, list), [], "a text or a list of texts")
        stops = [stops] if isinstance(stops, str) else stops
        fine = all(isinstance(stop, str) and 0 < len(stop) <= 200 for stop in stops) and len(stops) <= 16
        refuse_unless(fine, "stop", "expected at most 16 texts of 1 to 200 characters")
        return tuple(stops)

    def read_prompts(self):
        prompts = self.take("prompt", (str, list), "", "a text or a list of texts")
        prompts = [prompts] if isinstance(prompts, str) else prompts
        fine = all(isinstance(prompt, str) for prompt in prompts) and 0 < len(prompts) <= 1000
        refuse_unless(fine, "prompt", "expected a text or a list of 1 to 1,000 texts, not of token ids")
        return prompts

    def read_messages(self):
        "A conversation as the text of a dialogue, which the model goes on with: chat's /dialogue."
        messages = self.take("messages", list, [], "a list of messages")
        refuse_unless(messages, "messages", 'expected [{"role": "user", "content": "Good morning"}]')
        speakers = {"system": "", "developer": "", "user": "User: ", "assistant": "Assistant: "}
        text = ""
        for k, message in enumerate(messages):
            param = f"messages[{k}]"
            refuse_unless(isinstance(message, dict), param, "expected an object with role and content")
            role, content = message.get("role"), message.get("content")
            known = isinstance(role, str) and role in speakers
            refuse_unless(known, f"{param}.role", f"expected {', '.join(speakers)}")
            parts = [content] if isinstance(content, str) else content
            if isinstance(content, list):                     # [{"type": "text", "text": ...}]
                parts = [part.get("text") if isinstance(part, dict) else None for part in content]
            fine = isinstance(parts, list) and all(isinstance(part, str) for part in parts)
            refuse_unless(fine, f"{param}.content", "expected a text, or parts that are texts")
            text += f"\n\n{speakers[role]}{''.join(parts).strip()}"
        return f"{text}\n\nAssistant:"

    def read_options(self, defaults, stops):
        asked = {OUR_NAMES.get(k, k): value for k, value in self.body.items() if k in SAMPLING}
        asked.setdefault("seed", secrets.randbelow(2 ** 31))
        options = gpt.fill(gpt.SampleConfig, {**vars(defaults), **asked})
        options.stop = stops                                  # as they are: \n was no keyboard's problem
        refuse_unless(options.max_new_tokens <= MAX_TOKENS, "max_tokens", f"at most {MAX_TOKENS:,}")
        refuse_unless(options.num_samples <= MAX_TEXTS, "n", f"at most {MAX_TEXTS}")
        numbers = options.num_samples * options.max_new_tokens * (1 + (self.alternatives or 0))
        refuse_unless(self.stream or numbers * len(self.prompts) <= MAX_HELD, "max_tokens",
                      "too much for one answer: stream it")
        return options

    def usage(self):
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.new_tokens,
                "total_tokens": self.prompt_tokens + self.new_tokens}

    def choice(self, index, text, tokens, reason):
        logprobs = None
        if self.alternatives is not None:
            logprobs = chat_logprobs(tokens) if self.chat else completion_logprobs(tokens)
        said = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        return {"index": index, **said, "logprobs": logprobs, "finish_reason": reason}

    def whole(self, parts):
        "The answer to who wants it all at once."
        texts, tokens, reasons = {}, {}, {}
        for index, part in parts:
            texts[index] = texts.get(index, "") + part.text
            tokens.setdefault(index, []).extend(part.tokens)
            reasons[index] = part.reason
        choices = [self.choice(i, texts[i], tokens[i], reasons[i]) for i in sorted(texts)]
        return {**self.head, "choices": choices, "usage": self.usage()}

    def chunk(self, index, part):
        "The next piece for who reads along."
        choice = self.choice(index, part.text, part.tokens, part.reason)
        if self.chat:
            delta = choice.pop("message")
            if index in self.started:
                del delta["role"]
            choice["delta"] = delta
            self.started.add(index)
        return {**self.head, "choices": [choice]}

def completion_logprobs(tokens):
    return {"tokens": [token.text for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [dict(token.alternatives) for token in tokens],
            "text_offset": [token.offset for token in tokens]}

def chat_logprobs(tokens):
    def entry(text, logprob):
        return {"token": text, "logprob": logprob, "bytes": list(text.encode("utf-8", "replace"))}

    content = []
    for token in tokens:
        likeliest = [entry(*alternative) for alternative in token.alternatives]
        content.append({**entry(token.text, token.logprob), "top_logprobs": likeliest})
    return {"content": content}

# ---- the text as it grows: all this happens in the model's thread ------------------------------------------

def grow(lm, ids, decoder, options, alternatives, offset):
    "num_samples texts that go on from ids, side by side. For each step a list: (row, what is new in it)."
    texts = [Text(lm.tokenizer, copy.copy(decoder), options.stop, alternatives, offset)
             for _ in range(options.num_samples)]
    steps = 0
    for new, logits, _ in gpt.generate(lm, ids, options):
        steps += 1
        open_rows = [row for row, text in enumerate(texts) if not text.reason]
        yield [(row, texts[row].add(new[row], logits[row])) for row in open_rows]
        if all(text.reason for text in texts):
            return
    reason = "length" if steps == options.max_new_tokens else "stop"
    yield [(row, text.end(reason)) for row, text in enumerate(texts) if not text.reason]

@dataclass
class Part:
    "What is new in a text."
    text: str
    tokens: list = ()
    reason: str = None                                        # why the text ends here
    counts: int = 0                                           # how many tokens it took

class Text:
    "One text: what of it is sure by now, and how likely each of its tokens was."

    def __init__(self, tokenizer, decoder, stops, alternatives, offset):
        self.tokenizer, self.decoder = tokenizer, decoder
        self.stops = gpt.StopTexts(stops)
        self.alternatives = alternatives                      # None: nobody asked for probabilities
        self.reason = None                                    # why it ended
        self.decoded = self.sent = offset                     # ends of what was decoded, and of what is sure
        self.held = []                                        # tokens whose text is not sure yet

    def add(self, i, logits):
        if i == self.tokenizer.end_id:
            return self.end("stop")
        token = self.look_at(i, logits) if self.alternatives is not None else None
        piece = self.decoder.add(i)
        if token:
            token.offset, token.end = self.decoded, self.decoded + len(piece)
            self.held.append(token)
        self.decoded += len(piece)
        text = self.stops.add(piece)
        if self.stops.found:
            self.reason = "stop"
        return self.part(text, counts=1)

    def end(self, reason):
        "The rest: of a character that was cut, and what might have become a stop text."
        text = self.stops.add(self.decoder.end())
        self.reason = "stop" if self.stops.found else reason
        if not self.stops.found:
            text += self.stops.held
        return self.part(text, counts=0)

    def part(self, text, counts):
        self.sent += len(text)
        tokens = [token for token in self.held if token.end <= self.sent]
        self.held = self.held[len(tokens):]
        if self.reason:                                       # a stop text may begin inside of a token
            tokens += [token for token in self.held if token.offset < self.sent]
        return Part(text, tokens, self.reason, counts)

    def look_at(self, i, logits):
        "How likely a token was, and what else was."
        logprobs = logits.log_softmax(-1)
        likeliest = logprobs.topk(min(self.alternatives, len(logprobs)))
        others = zip(likeliest.indices.tolist(), likeliest.values.tolist())
        others = [(self.spell(k), logprob) for k, logprob in others if logprob > -math.inf]
        return SimpleNamespace(text=self.spell(i), logprob=float(logprobs[i]), alternatives=others)

    def spell(self, i):
        "How a token would read here; where it is only a part of a character its bytes, in OpenAI's way."
        if self.tokenizer.state["level"] != "bpe":
            return copy.copy(self.decoder).add(i)
        token_bytes = self.tokenizer.bpe.decode_single_token_bytes(i)
        try:
            return token_bytes.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token_bytes)

# ---- the command -------------------------------------------------------------------------------------------

def serve_command(asked):
    config = gpt.fill(ServeConfig, asked)
    defaults = gpt.fill(gpt.SampleConfig, {name: asked.get(name) for name in DEFAULTS})
    gpt.expect(defaults.max_new_tokens <= MAX_TOKENS, f"--max_new_tokens: at most {MAX_TOKENS:,}")
    open_to_all = config.host not in THIS_MACHINE
    gpt.expect(config.api_key or not open_to_all,
               f"--host {config.host} can be reached by others: give an --api_key, a secret, too")
    lm = gpt.load_asked(asked)
    with Server(lm, config, defaults) as server:
        host = f"[{config.host}]" if ":" in config.host else config.host
        place = f"http://{host}:{server.port}"
        print(f"{lm.path}, {lm.precision}\nthe page: {place}   the API: {place}/v1   Ctrl-C ends it",
              flush=True)
        server.serve_forever()
