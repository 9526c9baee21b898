"""Label posts by a language model behind any server that speaks the OpenAI chat protocol."""

import heapq
import json
import math
import os
import re
import sqlite3
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import islice, product
from multiprocessing.pool import ThreadPool
from pathlib import Path
from string import ascii_uppercase
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from sgmft import errors
from sgmft.data.posts import Post
from sgmft.data.preprocessing.images import ImageError
from sgmft.data.preprocessing.media import make_thumbnail
from sgmft.errors import Message, SgmftError, join_messages, make_printable, needs_extra, raising
from sgmft.locator.abstention import Abstention
from sgmft.locator.prediction import Prediction, Predictions, SupportsPredictions
from sgmft.utils.checksums import digest_of
from sgmft.utils.files import cache_folder, lock_byte

NONE = "the language model found none of the labels"  # a reason
COSTS = ("tokens", "written", "seconds")  # of a reply: tokens read and written
AHEAD = 256  # posts that are worked on together
LONGEST = 20_000  # characters of a text that are sent
RETRIES = 5  # of a request, by the client, which waits as long as a server's Retry-After says
MOST = 1 << 25  # bytes of an answer
SILENCE = 10  # failed requests in a row, after which nothing more is sent
PATCH, WRITTEN = 28, 10  # estimates: so many pixels squared are a token; tokens of an answer
PROMPTS = Path(__file__).with_name("prompts")
TABLE = "CREATE TABLE replies (key PRIMARY KEY, reply)"
TURNS, DAY = 4096, 86_400  # keys that may share a turn; seconds
_WIDE = re.compile(r"[^\x00-\u024f]")  # each about a token; of other characters four are
_MARKS = " \t\r\n.,:;!\"'`*()[]{}。"  # around an answer, and in a token of it
_FORMS = "{1}", "{0} {1}", "{0}: {1}", "{0}. {1}", "{0}) {1}", "{0} - {1}"  # of an answer
LIMITS = "max_completion_tokens", "max_tokens"  # names of a setting, new and old
Messages = list[dict[str, Any]]
Reply = dict[str, Any]  # as it is cached: text, cut, mass by code, COSTS


class _NoAnswerError(SgmftError):
    """The reason why a post gets no label from a language model."""


@dataclass
class LanguageModel:
    """Predicts by the answers of a language model, to all posts or where a model is unsure.

    Labels are asked for as letters, or numbers of two digits where they are more, so that one token
    has a label's probability. Every answer is kept at once, by a digest of all that it depends on:
    no question is paid for twice, by two jobs at once, or after one was killed. The key is in no
    message and no file. SgmftError where labels, address, prompt or cache cannot be used, or
    `openai` is not installed.
    """

    server: str  # address of the API, such as http://127.0.0.1:8000/v1
    model: str  # its name there
    descriptions: Mapping[str, Sequence[str]]  # of each label; perhaps the label itself
    prompt: Path = PROMPTS / "en.txt"  # with {labels} and {text}; there is a zh.txt as well
    max_images: int = 4  # pictures that are sent of one post
    image_size: int = 512  # pixels of their longer side, at most
    votes: int = 0  # answers at temperature 1, whose shares are the probabilities
    max_tokens: int = 32  # of an answer; a model that reasons in its answer needs more
    workers: int = 8  # requests at once
    timeout: float = 120.0  # seconds to wait for an answer
    price: tuple[float, float] | None = None  # of a million tokens read, and written
    key_env: str = "OPENAI_API_KEY"  # variable with the server's key, if it needs one
    cache: Path | None = None  # SQLite file of answers; by default in the user's cache folder
    first: SupportsPredictions | None = None  # whose predictions stand where it is sure
    below: float = 1.0  # probability of its predictions under which the language model is asked
    budget: int | None = None  # posts for which it is, at most

    def __post_init__(self) -> None:
        self.labels = list(self.descriptions)
        self.traits: Mapping[str, int] = {} if self.first is None else self.first.traits
        self.more = ["abstained", "llm_none", "llm_tokens", "llm_seconds"]
        self.more += [*["llm_price"] * (self.price is not None), *["source"] * bool(self.first)]
        self.server = self.server.rstrip("/")
        if not re.fullmatch(r"https?://[^@\s]+", self.server):
            raise SgmftError(errors.TEXTS["llm address"])
        numbers = all(0 <= x < math.inf for x in self.price or ()) and 0 < self.timeout <= DAY
        if not numbers or self.votes == 1:
            raise SgmftError(errors.TEXTS["llm numbers"])
        count = len(self.labels) + 1  # the last code is of none of them
        if not 2 < count < 100 or "none" in map(str.casefold, self.labels):
            raise SgmftError(errors.TEXTS["llm labels"], labels=self.labels)
        numbered = [f"{number:02}" for number in range(1, count + 1)]
        self._codes = [*ascii_uppercase[:count]] if count <= len(ascii_uppercase) else numbered
        own_codes = zip(self._codes, self.labels, strict=False)
        named = {code: label.strip(_MARKS).upper() for code, label in own_codes}
        if any(named.get(x) != x for x in {*self._codes} & {*named.values()}):
            raise SgmftError(errors.TEXTS["labels like codes"], codes=self._codes)
        with raising(f"The prompt {self.prompt} cannot be read as UTF-8.", OSError, ValueError):
            text = self.prompt.read_text("utf-8").strip()
        if "{labels}" not in text or "{text}" not in text:
            raise SgmftError(f"{self.prompt}: write {{labels}} and {{text}} where these go.")
        about = self.descriptions.items()
        shown = [x if [x] == [*texts] else f"{x} ({'; '.join(texts)})" for x, texts in about]
        lines = "\n".join(": ".join(pair) for pair in zip(self._codes, shown, strict=False))
        codes = ", ".join(self._codes)
        text = text.replace("{none}", self._codes[-1]).replace("{codes}", codes)
        self._prompt = [part.replace("{labels}", lines) for part in text.split("{text}")]
        self._again = self._prompt[-1].rpartition("\n")[2].strip() or codes  # it asks for a code
        names = [*zip(self._codes * 2, [*self.labels, "none", *shown], strict=False)]
        names += [(x, y) for x, ys in zip(self._codes, about, strict=False) for y in ys[1]]
        meant = defaultdict[str, set[str]](set)
        for form, x in product(_FORMS, names):
            meant[form.format(*x).casefold()].add(x[0])
        self._answers = {text: min(codes) for text, codes in meant.items() if len(codes) == 1}
        self._answers |= {code.casefold(): code for code in self._codes}
        request = (PROMPTS / "request.json").read_text("utf-8")
        self._wanted = json.loads(request.replace("[]", json.dumps(self._codes)))
        self._wanted["temperature"] = 1 if self.votes else 0
        self.refused = set[str]()  # settings of a request
        self.spent = Counter[str]()  # requests, tokens read and written; answers from the cache
        self._silent, self._odd = 0, 0.0  # in a row: without an answer, without a label in it
        self._lock, self._locks = threading.Lock(), [threading.Lock() for _ in range(TURNS)]
        self._cut, self._ties = self.below, math.inf  # so many are asked for at that probability
        with needs_extra("llm", "A language model"):
            import openai
        self._key = os.environ.get(self.key_env, "").strip()
        if not re.fullmatch(r"[!#-\[\]-~]*", self._key):  # others may be written in another way
            raise SgmftError(errors.TEXTS["key"], name=self.key_env)
        self.has_key = bool(self._key)
        own: dict[str, Any] = {"timeout": self.timeout, "max_retries": RETRIES}
        own |= {"base_url": self.server, "default_headers": {"Accept-Encoding": "identity"}}
        # Nobody else reads: redirects are not followed, and no proxy stands before this machine.
        how: dict[str, Any] = {"event_hooks": {"response": [self._receive]}}
        with raising(errors.TEXTS["llm address"], Exception):  # each library has its own
            local = re.match(r"localhost$|127\.|::1$", urlsplit(self.server).hostname or "")
            how |= {"follow_redirects": False, "trust_env": not local}
            if local and self.server.startswith("http:"):
                how["verify"] = False  # there are no certificates, and 50 ms to read them
            own["http_client"] = openai.DefaultHttpxClient(**how)
            self._client = openai.OpenAI(api_key=self._key or "none", **own)
        self._client.organization = self._client.project = None  # which variables may name
        path = (self.cache or cache_folder() / "answers.sqlite").resolve()
        self._unusable = f"The cache {path} cannot be used ({{error}}): name another by --cache."
        with raising(self._unusable, OSError, sqlite3.Error):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._rows = sqlite3.connect(path, 60, isolation_level=None, check_same_thread=False)
            found = self._rows.execute("SELECT group_concat(sql) FROM sqlite_master").fetchone()
            if found[0] not in (None, TABLE):
                raise sqlite3.Error("it is a database of something else")
            made = TABLE.replace("TABLE", "TABLE IF NOT EXISTS")
            self._rows.executescript(f"{made}; BEGIN IMMEDIATE; END")  # can it be written to?
            self._turns = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)

    def close(self) -> None:
        """Close the connections to the server, and the cache."""
        self._client.close()
        with self._lock:  # after a failure, other threads are still at work
            self._rows.close()
        os.close(self._turns)

    def cost(self, tokens: int, written: int) -> float:
        """Return the price of tokens that are read and written."""
        return round(float(np.dot(self.price or (0, 0), (tokens, written))) / 1e6, 9)

    def survey(self, posts: Iterable[Post]) -> Counter[str]:
        """Count posts to send, their pictures and tokens, estimated, and cached posts."""
        return sum(in_order(self._survey, posts, os.cpu_count() or 1), Counter[str]())

    def _survey(self, post: Post) -> Counter[str]:
        found: dict[str, Any] = {}
        with suppress(_NoAnswerError):
            messages, pictures, _ = self._messages(post)
            known = [self._cached(self._digest(messages, x)) for x in range(self.votes or 1)]
            there = [reply["seconds"] for reply in known if reply]
            found = {"cached": 1, "answers": len(there), "seconds": sum(there)}
            if new := len(known) - len(there):
                wide = len(_WIDE.findall(text := post.text[:LONGEST].join(self._prompt)))
                tokens = wide + (len(text) - wide) // 4 + pictures * (self.image_size // PATCH) ** 2
                found |= {"tokens": new * tokens, "written": new * WRITTEN, "cached": 0}
                found |= {"posts": 1, "pictures": pictures, "requests": new}
        return Counter(found)

    def predictions(self, posts: Iterable[Post], abstain: Abstention | None = None) -> Predictions:
        """Yield predictions in the order of the posts; rules for abstention are those of `first`.

        Probabilities are shares of the labels alone, `llm_none` is that of none of them. They are
        None without log-probabilities and votes. A post has an error where two answers name no
        label, or there is none; where there is a `first`, its prediction stands, with a warning.
        SgmftError where the server refuses the key or the model, or does not answer any more.
        """
        if self.first is None:
            return in_order(self.ask, posts, self.workers)
        chosen = self._choose(self.first.predictions(posts, abstain))
        return in_order(self._decide, chosen, self.workers)

    def adapt(self, posts: Iterable[Post]) -> None:
        """Spend the budget on the least sure: find the probability below which so many are."""
        self._cut, self._ties = self.below, 0
        if self.first is not None and self.budget:
            own = (p.probability for p in self.first.predictions(posts))
            least = heapq.nsmallest(self.budget, (x for x in own if x is not None))
            if least and least[-1] < self.below and len(least) == self.budget:
                self._cut = least[-1]
                self._ties = least.count(self._cut)

    def _choose(self, predictions: Predictions) -> Iterator[tuple[Prediction, bool]]:
        left, ties = math.inf if self.budget is None else self.budget, self._ties
        for p in predictions:
            tied = p.probability == self._cut < self.below and ties > 0
            below = p.probability is not None and p.probability < self._cut
            unsure = left > 0 and (tied or below)
            left, ties = left - unsure, ties - tied
            yield p, unsure

    def _decide(self, item: tuple[Prediction, bool]) -> Prediction:
        own, unsure = item
        post = own.post
        if unsure:
            if (other := self.ask(post)).error is None:
                return other._replace(more={"source": "llm", **(other.more or {})})
            post = replace(post, warnings=(*post.warnings, other.error))
        return own._replace(post=post, more={"source": "model"})

    def ask(self, post: Post) -> Prediction:
        """Return the language model's prediction for one post; see `predictions`."""
        paid, answers = list[Reply](), list[Reply]()
        try:
            messages, _, warnings = self._messages(post)
            post = replace(post, warnings=tuple(dict.fromkeys((*post.warnings, *warnings))))
            for number in range(self.votes or 1):
                answers.append(self._answer(messages, number, paid))
        except _NoAnswerError as error:
            post = replace(post, error=str(error))
        tokens, written, seconds = (sum(x[key] for x in paid) for key in COSTS)
        more = {"llm_tokens": tokens + written or None, "llm_seconds": round(seconds, 3)}
        more |= {"llm_price": self.cost(tokens, written)} if tokens and self.price else {}
        codes = Counter(code for x in answers if (code := self._read(x)))
        with self._lock:
            self._odd = -math.inf if codes else self._odd + bool(answers)
        if answers and self._odd >= SILENCE:
            given = {"count": int(self._odd), "answer": answers[-1]["text"]}
            raise SgmftError(errors.TEXTS["no codes"], server=self.server, **given)
        if post.error is None and not codes:
            reason = errors.TEXTS["too long" if answers[-1]["cut"] else "no letter"]
            post = replace(post, error=Message(reason, answer=answers[-1]["text"]))
        if post.error is not None:
            return Prediction(post, None, None, None, more=more if paid else None)
        if odd := len(answers) - codes.total():
            text = Message(errors.TEXTS["votes lost"], count=odd, votes=len(answers))
            post = replace(post, warnings=(*post.warnings, text))
        mass: Mapping[str, float] = codes if self.votes > 1 else answers[0]["mass"]
        shares = np.array([(mass or codes).get(code, 0) for code in self._codes], np.float64)
        best = int(shares.argmax())  # of several the first, as in all predictions
        more |= {"llm_none": round(float(shares[-1] / shares.sum()), 6)} if mass else {}
        if best == len(self.labels):
            return Prediction(post, None, None, None, abstained=NONE, more=more)
        probs = (shares[:-1] / shares[:-1].sum()).astype(np.float32) if mass else None
        return Prediction(post, self.labels[best], probs, None, more=more)

    def _messages(self, post: Post) -> tuple[Messages, int, list[str]]:
        """Return what is sent, how many pictures that are, and why others are left out."""
        if post.error is not None:
            raise _NoAnswerError(post.error)
        text, urls, reasons = post.text[:LONGEST], list[str](), list[str]()
        if len(post.text) > LONGEST:
            long = {"count": f"{len(post.text):,}", "most": f"{LONGEST:,}"}
            reasons.append(Message(errors.TEXTS["cut text"], **long))
        if len(post.images) > self.max_images > 0:
            many = errors.TEXTS["many pictures of a post"]
            reasons.append(Message(many, count=len(post.images), most=self.max_images))
        for file in post.images[: self.max_images]:
            try:
                urls.append(make_thumbnail(file, self.image_size, enlarge=False))
            except ImageError as error:
                reasons.append(str(error))
        if not text.strip() and not urls:
            raise _NoAnswerError(join_messages(reasons) or errors.TEXTS["no content"])
        content: Any = text.encode(errors="replace").decode().join(self._prompt)
        if urls:  # some servers take nothing but texts
            pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
            content = [{"type": "text", "text": content}, *pictures]
        return [{"role": "user", "content": content}], len(urls), reasons

    def _answer(self, messages: Messages, number: int, paid: list[Reply]) -> Reply:
        """Return a reply; that to a second question if it has no label. Both are in `paid` then."""
        paid.append(reply := self._reply(messages, number))
        if self._read(reply) is None:
            turns = {"assistant": reply["text"], "user": self._again}.items()
            talk = [*messages, *({"role": role, "content": text} for role, text in turns)]
            paid.append(reply := self._reply(talk, number))
        return reply

    def _digest(self, messages: Messages, number: int) -> str:
        own = {"server": self.server, "model": self.model, "request": self._wanted}
        return digest_of({**own, "most": self.max_tokens, "messages": messages, "number": number})

    def _cached(self, key: str) -> Any:
        """Return the reply of a key; None where there is none, or what is no reply."""
        found = self._query("SELECT reply FROM replies WHERE key = ?", key)
        with suppress(ValueError, TypeError, LookupError, AttributeError):
            reply = json.loads(found[0])
            if isinstance(reply["text"], str) and {"cut", "mass", *COSTS} <= reply.keys():
                return reply
        return None

    def _query(self, text: str, *values: str) -> Any:
        with self._lock, raising(self._unusable, sqlite3.Error):
            return self._rows.execute(text, values).fetchone()

    def _reply(self, messages: Messages, number: int) -> Reply:
        key = self._digest(messages, number)
        place = int(key[:3], 16)
        with self._locks[place], lock_byte(self._turns, place):  # who asks the same waits
            reply: Reply | None = self._cached(key)
            new = reply is None
            if reply is None:
                reply = self._send(messages)
                self._query("REPLACE INTO replies VALUES (?, ?)", key, json.dumps(reply))
        with self._lock:
            found = {"requests": 1, "shares": bool(reply["mass"]), **{x: reply[x] for x in COSTS}}
            self.spent.update(found if new else {"cached": 1})
        return reply

    def _send(self, messages: Messages) -> Reply:
        start = time.monotonic()
        try:
            got = self._complete(messages)
            if not getattr(got, "choices", None):
                raise ValueError(f"no chat completion: {got!s:.200}")
            choice, usage = got.choices[0], got.usage
            message, cut = choice.message, choice.finish_reason in ("length", "content_filter")
            text = self._hide(str(message.content or message.refusal or ""))
            mass = self._mass(choice.logprobs, self._read({"text": text, "cut": cut}))
            counts = (getattr(usage, f"{x}_tokens", 0) for x in ("prompt", "completion"))
            tokens, written = (x if type(x) is int and 0 <= x < MOST else 0 for x in counts)
        except Exception as error:  # bad servers make the client raise nearly every kind
            status = getattr(error, "status_code", 0)
            why = str(error) if status else f"{error} {error.__cause__ or ''}".strip()
            why = make_printable(self._hide(why))[:300]
            never = not self.spent.total()  # 400 and the like may be of this post alone
            self._silent += never or status not in (400, 413, 422)
            if status == 401 and not self.has_key:
                why += f"; {self.key_env or '--key-env'} has no key"
            if status in (401, 403, 404) or self._silent >= SILENCE:  # a cause may have the key
                raise SgmftError(errors.TEXTS["no labels"], server=self.server, why=why) from None
            raise _NoAnswerError(errors.TEXTS["no answer"], why=why) from None
        self._silent = 0
        spent = zip(COSTS, (tokens, written, time.monotonic() - start), strict=True)
        return {"text": text, "cut": cut, "mass": mass, **dict(spent)}

    def _complete(self, messages: Messages) -> Any:
        """Ask the server, if need be without what it refuses of the settings.

        Those that it names are left out from then on, if that helped; if none, all this once.
        """
        from openai import BadRequestError, UnprocessableEntityError

        without, named = set(self.refused), {""}
        while True:
            given = {name: x for name, x in self._wanted.items() if name not in without}
            limit = LIMITS[LIMITS[0] in without]
            sent = {"model": self.model, "messages": messages, limit: self.max_tokens, **given}
            try:
                got = self._client.chat.completions.create(**sent)
                self.refused |= without if named else set()
                return got
            except (BadRequestError, UnprocessableEntityError) as error:
                named = {x for x in (*given, limit) if x in str(error)} - without
                if not named and not given:
                    raise
                without |= named or given.keys()

    def _receive(self, response: Any) -> None:
        """Read a response whole, which may take `timeout` seconds and MOST bytes."""
        httpx = import_module(type(response).__module__.partition(".")[0])  # or the client's fork
        if response.headers.get("content-encoding", "identity") != "identity":
            raise ValueError("an answer that is compressed, which was not asked for")
        end, body = time.monotonic() + self.timeout, bytearray()
        with closing(response.stream) as stream:
            for part in stream:
                body += part
                if time.monotonic() > end:
                    raise httpx.ReadTimeout(f"no whole answer within {self.timeout:g} s")
                if len(body) > MOST:
                    raise ValueError(f"an answer of more than {MOST:,} bytes")
        response.stream = httpx.ByteStream(bytes(body))

    def _hide(self, text: str) -> str:
        """Return a text without the key, if one has it; a shorter one is no secret, and a word."""
        return text.replace(self._key, "***") if len(self._key) > 7 else text

    def _read(self, reply: Reply) -> str | None:
        """Return the code of a reply: alone, in JSON, with its label or for it; else None.

        Of one that was cut off, JSON counts if it is whole, or a code that fills `max_tokens`.
        """
        answer = reply["text"].rpartition("</think>")[2].strip(" \n`").removeprefix("json").strip()
        full = answer.upper() in self._codes and len(answer) >= self.max_tokens
        whole = full or not reply["cut"]
        with suppress(ValueError):
            if isinstance(found := json.loads(answer, object_pairs_hook=tuple), tuple):
                ((name, label),) = found
                whole, answer = True, label if (name, type(label)) == ("label", str) else ""
        marked, bare = answer.casefold(), answer.strip(_MARKS).casefold()
        return (self._answers.get(marked) or self._answers.get(bare)) if whole else None

    def _mass(self, logprobs: Any, code: str | None) -> dict[str, float]:
        """Return the codes' shares at the last token that is the answer's; {} if one is unknown."""
        with suppress(TypeError, ValueError, AttributeError, IndexError):  # none, or odd ones
            tokens = [x for x in logprobs.content if x.token.strip(_MARKS) == code]
            others = [(x.token.strip(_MARKS), float(x.logprob)) for x in tokens[-1].top_logprobs]
            known = [(name, x) for name, x in others if name in self._codes]
            logs = np.array([x for _, x in known])
            own = dict(known).get(code or "", -math.inf)
            if len(others) > 1 and (logs < 0.01).all() and own > -math.inf:
                mass = defaultdict[str, float](float)
                for (name, _), share in zip(known, np.exp(logs - logs.max()), strict=True):
                    mass[name] += float(share)
                return dict(mass)
        return {}


def in_order(work: Callable[[Any], Any], items: Iterable[Any], workers: int) -> Iterator[Any]:
    """Yield results of work by several threads in the order of the items, some of these ahead."""
    given = iter(items)
    with ThreadPool(workers) as pool:  # whose threads end with the process, as after Ctrl-C
        while part := list(islice(given, AHEAD)):
            yield from pool.imap(work, part)
