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
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import islice, product
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np

from sgmft import errors
from sgmft.data.posts import Post
from sgmft.data.preprocessing.images import ImageError
from sgmft.data.preprocessing.media import make_thumbnail
from sgmft.errors import Message, SgmftError, join_messages, make_printable, needs_extra, raising
from sgmft.locator.abstention import Abstention
from sgmft.locator.prediction import Prediction, Predictions, SupportsPredictions
from sgmft.utils.checksums import digest_of
from sgmft.utils.files import cache_folder
from sgmft.utils.turns import Turns

NONE = "the language model found none of the labels"  # a reason
COSTS = ("tokens", "written", "seconds")  # of a reply: tokens read and written
AHEAD = 256  # posts that are worked on together
RETRIES = 5  # of a request, by the client, which waits as long as a server's Retry-After says
MOST = 1 << 25  # bytes of an answer
SILENCE = 10  # failed requests in a row, after which nothing more is sent
PATCH, WRITTEN = 28, 10  # estimates: so many pixels squared are a token; tokens of an answer
PROMPTS = Path(__file__).with_name("prompts")
_WIDE = re.compile(r"[^\x00-\u024f]")  # each about a token; of other characters four are
_MARKS = " \t\r\n.,:;!\"'`*()[]{}。"  # around an answer, and in a token of it
_FORMS = "{1}", "{0} {1}", "{0}: {1}", "{0}. {1}", "{0}) {1}", "{0} - {1}"  # of an answer
LIMITS = "max_completion_tokens", "max_tokens"  # names of a setting, new and old
Messages = list[dict[str, Any]]
Reply = dict[str, Any]  # as it is cached: text, cut, mass by letter, COSTS


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
        if not re.fullmatch(r"https?://[^@\s]+", self.server):
            raise SgmftError(errors.TEXTS["llm address"])
        count = len(self.labels) + 1  # the last code is of none of them
        if not 2 < count < 100 or "none" in self.labels:
            raise SgmftError(errors.TEXTS["llm labels"], labels=self.labels)
        self._codes = [*ascii_uppercase[:count]]
        if count > len(self._codes):
            self._codes = [f"{number:02}" for number in range(1, count + 1)]
        named = dict(zip(self._codes, [label.upper() for label in self.labels], strict=False))
        if any(named.get(x) != x for x in {*self._codes} & {*named.values()}):
            raise SgmftError(errors.TEXTS["labels like codes"], codes=self._codes)
        with raising(f"The prompt {self.prompt} cannot be read as UTF-8.", OSError, ValueError):
            text = self.prompt.read_text("utf-8").strip()
        if "{labels}" not in text or "{text}" not in text:
            raise SgmftError(f"{self.prompt}: write {{labels}} and {{text}} where these go.")
        about = self.descriptions.items()
        shown = [x if [x] == [*texts] else f"{x} ({'; '.join(texts)})" for x, texts in about]
        lines = "\n".join(": ".join(pair) for pair in zip(self._codes, shown, strict=False))
        text = text.replace("{none}", self._codes[-1]).replace("{codes}", ", ".join(self._codes))
        self._prompt = text.replace("{labels}", lines)
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
        self._silent = 0
        self._lock = threading.Lock()
        with needs_extra("llm", "A language model"):
            import openai
        self._key = os.environ.get(self.key_env, "").strip()
        if not re.fullmatch(r"[!#-\[\]-~]*", self._key):  # others may be written in another way
            raise SgmftError(errors.TEXTS["key"], name=self.key_env)
        self.has_key = bool(self._key)
        own: dict[str, Any] = {"timeout": self.timeout, "max_retries": RETRIES}
        hooks = {"response": [self._receive]}  # redirects are not followed: nobody else reads
        own["http_client"] = openai.DefaultHttpxClient(follow_redirects=False, event_hooks=hooks)
        self._client = openai.OpenAI(base_url=self.server, api_key=self._key or "none", **own)
        self._client.organization = self._client.project = None  # which variables may name
        path = self.cache or cache_folder() / "answers.sqlite"
        self._unusable = f"The cache {path} cannot be used: name another file with --cache."
        with raising(self._unusable, OSError, sqlite3.Error):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._rows = sqlite3.connect(path, 60, isolation_level=None, check_same_thread=False)
            self._rows.execute("CREATE TABLE IF NOT EXISTS replies (key PRIMARY KEY, reply)")
            self._rows.execute("DELETE FROM replies WHERE key = ''")  # can it be written to?
            self._turns = Turns(path.with_name(f"{path.name}.lock"))

    def close(self) -> None:
        """Close the cache."""
        self._rows.close()
        self._turns.close()

    def cost(self, tokens: int, written: int) -> float:
        """Return the price of tokens that are read and written."""
        return round(float(np.dot(self.price or (0, 0), (tokens, written))) / 1e6, 9)

    def survey(self, posts: Iterable[Post]) -> Counter[str]:
        """Count posts to send, their pictures and tokens, estimated, and cached posts."""
        return sum(in_order(self._survey, posts, os.cpu_count() or 1), Counter[str]())

    def _survey(self, post: Post) -> Counter[str]:
        found: dict[str, int] = {}
        with suppress(_NoAnswerError):
            messages, pictures, _ = self._messages(post)
            found = {"cached": 1}
            keys = (self._digest(messages, x) for x in range(self.votes or 1))
            if new := sum(self._cached(key) is None for key in keys):
                wide = len(_WIDE.findall(text := self._prompt + post.text))
                tokens = wide + (len(text) - wide) // 4 + pictures * (self.image_size // PATCH) ** 2
                found = {"tokens": new * tokens, "written": new * WRITTEN}
                found |= {"posts": 1, "pictures": pictures}
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
        """Spend the budget on the least sure: ask below the probability that so many posts have."""
        if self.first is not None and self.budget:
            own = (p.probability for p in self.first.predictions(posts))
            least = heapq.nsmallest(self.budget, (x for x in own if x is not None))
            self.below = min(self.below, math.nextafter(max(least, default=1), 2))

    def _choose(self, predictions: Predictions) -> Iterator[tuple[Prediction, bool]]:
        left = math.inf if self.budget is None else self.budget
        for p in predictions:
            unsure = p.probability is not None and p.probability < self.below and left > 0
            left -= unsure
            yield p, unsure

    def _decide(self, item: tuple[Prediction, bool]) -> Prediction:
        own, unsure = item
        post = own.post
        if unsure:
            other = self.ask(post)
            if other.error is None:
                return other._replace(more={"source": "llm", **(other.more or {})})
            post = replace(post, warnings=(*post.warnings, other.error))
        return own._replace(post=post, more={"source": "model"})

    def ask(self, post: Post) -> Prediction:
        """Return the language model's prediction for one post; see `predictions`."""
        try:
            messages, _, warnings = self._messages(post)
            replies = [self._answer(messages, x) for x in range(self.votes or 1)]
        except _NoAnswerError as error:
            return Prediction(replace(post, error=str(error)), None, None, None)
        post = replace(post, warnings=tuple(dict.fromkeys((*post.warnings, *warnings))))
        tokens, written, seconds = (sum(x[key] for x in replies) for key in COSTS)
        more = {"llm_tokens": tokens + written or None, "llm_seconds": round(seconds, 3)}
        more |= {"llm_price": self.cost(tokens, written)} if tokens and self.price else {}
        codes = Counter(code for x in replies if (code := self._read(x["text"])))
        if not codes:
            reason = errors.TEXTS["too long" if replies[-1]["cut"] else "no letter"]
            post = replace(post, error=Message(reason, answer=replies[-1]["text"]))
            return Prediction(post, None, None, None, more=more)
        mass: Mapping[str, float] = codes if self.votes > 1 else replies[0]["mass"]
        best = self._codes.index(max(mass or codes, key=(mass or codes).__getitem__))
        shares = np.array([mass.get(code, 0) for code in self._codes], np.float32)
        more |= {"llm_none": round(float(shares[-1] / shares.sum()), 6)} if mass else {}
        if best == len(self.labels):
            return Prediction(post, None, None, None, abstained=NONE, more=more)
        probs = shares[:-1] / shares[:-1].sum() if mass else None
        return Prediction(post, self.labels[best], probs, None, more=more)

    def _messages(self, post: Post) -> tuple[Messages, int, list[str]]:
        """Return what is sent, how many pictures that are, and why others are left out."""
        if post.error is not None:
            raise _NoAnswerError(post.error)
        text, urls, reasons = post.text.encode(errors="replace").decode(), list[str](), list[str]()
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
        content: Any = self._prompt.replace("{text}", text)
        if urls:  # some servers take nothing but texts
            pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
            content = [{"type": "text", "text": content}, *pictures]
        return [{"role": "user", "content": content}], len(urls), reasons

    def _answer(self, messages: Messages, number: int) -> Reply:
        """Return a reply; that to a second question, with the costs of both, if it has no label."""
        reply = self._reply(messages, number)
        if self._read(reply["text"]) is None:
            again = self._prompt.rpartition("\n")[2]  # the last line, which asks for a letter
            turns = {"assistant": reply["text"], "user": again}.items()
            talk = [*messages, *({"role": role, "content": text} for role, text in turns)]
            second = self._reply(talk, number)
            reply = second | {x: reply[x] + second[x] for x in COSTS}
        return reply

    def _digest(self, messages: Messages, number: int) -> str:
        own = {"server": self.server, "model": self.model, "request": self._wanted}
        return digest_of({**own, "most": self.max_tokens, "messages": messages, "number": number})

    def _cached(self, key: str) -> Any:
        """Return the reply of a key; None where there is none."""
        found = self._query("SELECT reply FROM replies WHERE key = ?", key)
        return found and json.loads(found[0])

    def _query(self, text: str, *values: str) -> Any:
        with self._lock, raising(self._unusable, sqlite3.Error):
            return self._rows.execute(text, values).fetchone()

    def _reply(self, messages: Messages, number: int) -> Reply:
        key = self._digest(messages, number)
        with self._turns.take(key):  # who asks the same waits for this answer
            reply: Reply | None = self._cached(key)
            new = reply is None
            if reply is None:
                reply = self._send(messages)
                self._query("REPLACE INTO replies VALUES (?, ?)", key, json.dumps(reply))
        with self._lock:
            found = {"requests": 1, **{x: reply[x] for x in COSTS}}
            self.spent.update(found if new else {"cached": 1})
        return reply

    def _send(self, messages: Messages) -> Reply:
        start = time.monotonic()
        try:
            got = self._complete(messages)
            if not getattr(got, "choices", None):
                raise ValueError(f"no chat completion: {got!s:.200}")
            choice, usage = got.choices[0], got.usage
            message, cut = choice.message, choice.finish_reason == "length"
            text = str(message.content or message.refusal or "")
            mass = self._mass(choice.logprobs, self._read(text))
            counts = (getattr(usage, f"{x}_tokens", 0) for x in ("prompt", "completion"))
            tokens, written = (x if isinstance(x, int) else 0 for x in counts)
        except Exception as error:  # bad servers make the client raise nearly every kind
            status = getattr(error, "status_code", 0)
            why = str(error) if status else f"{error} {error.__cause__ or ''}".strip()
            why = make_printable(why.replace(self._key, "***") if self._key else why)[:300]
            never = not self.spent["requests"]  # 400 and the like may be of this post alone
            self._silent += never or status not in (400, 413, 422)
            if status in (401, 403, 404) or self._silent >= SILENCE:  # a cause may have the key
                raise SgmftError(errors.TEXTS["no labels"], server=self.server, why=why) from None
            raise _NoAnswerError(errors.TEXTS["no answer"], why=why) from None
        self._silent = 0
        spent = zip(COSTS, (tokens, written, time.monotonic() - start), strict=True)
        return {"text": text, "cut": cut, "mass": mass, **dict(spent)}

    def _complete(self, messages: Messages) -> Any:
        """Ask the server, from then on without what it refuses of the settings by their names."""
        from openai import BadRequestError, UnprocessableEntityError

        settings = self._wanted
        while True:
            given = {name: x for name, x in settings.items() if name not in self.refused}
            limit = LIMITS[LIMITS[0] in self.refused]
            sent = {"model": self.model, "messages": messages, limit: self.max_tokens, **given}
            try:
                return self._client.chat.completions.create(**sent)
            except (BadRequestError, UnprocessableEntityError) as error:
                named = {x for x in (*given, limit) if x in str(error)} - self.refused
                if not named and not given:
                    raise
                settings = settings if named else {}  # it does not say which: this once, none
                self.refused |= named

    def _receive(self, response: Any) -> None:
        """Read a response whole, which may take `timeout` seconds and MOST bytes."""
        httpx = import_module(type(response).__module__.partition(".")[0])  # or the client's fork
        end, body = time.monotonic() + self.timeout, bytearray()
        with closing(response.stream) as stream:
            for part in stream:
                body += part
                if time.monotonic() > end:
                    raise httpx.ReadTimeout(f"no whole answer within {self.timeout:g} s")
                if len(body) > MOST:
                    raise ValueError(f"an answer of more than {MOST:,} bytes")
        response.stream = httpx.ByteStream(bytes(body))

    def _read(self, answer: str) -> str | None:
        """Return the letter of an answer: alone, in JSON, with its label or for it; else None."""
        answer = answer.rpartition("</think>")[2].strip(" \n`").removeprefix("json")
        with suppress(ValueError, LookupError, TypeError):
            answer = json.loads(answer)["label"]
        marked, bare = (x.casefold() for x in (str(answer).strip(), str(answer).strip(_MARKS)))
        return self._answers.get(marked) or self._answers.get(bare)

    def _mass(self, logprobs: Any, code: str | None) -> dict[str, float]:
        """Return the probabilities of letters at the token that decided; {} if they are unknown."""
        mass = defaultdict[str, float](float)
        with suppress(TypeError, AttributeError):  # where a server has none, or something else
            tokens = (x for x in logprobs.content if x.token.strip(_MARKS) == code)
            others = next((x.top_logprobs for x in tokens), ())
            for token in others if len(others) > 1 else ():
                letter = token.token.strip(_MARKS)
                if letter in self._codes and token.logprob < 0.01:  # it is no NaN either
                    mass[letter] += math.exp(token.logprob)
        return dict(mass) if sum(mass.values()) > 0 else {}


def in_order(work: Callable[[Any], Any], items: Iterable[Any], workers: int) -> Iterator[Any]:
    """Yield results of work by several threads in the order of the items, some of these ahead."""
    given = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        while part := list(islice(given, AHEAD)):
            yield from pool.map(work, part)
