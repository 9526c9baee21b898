"""Label posts by a language model behind any server that speaks the OpenAI chat protocol."""

import json
import math
import os
import re
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase
from typing import Any, TypeVar

import numpy as np

from sgmft.data.posts import Post
from sgmft.data.preprocessing.images import ImageError
from sgmft.data.preprocessing.media import make_thumbnail
from sgmft.errors import Message, SgmftError, join_messages, make_printable, needs_extra, raising
from sgmft.locator.abstention import Abstention
from sgmft.locator.prediction import Prediction, Predictions, SupportsPredictions
from sgmft.utils.checksums import digest_of
from sgmft.utils.files import writing

CODES = ascii_uppercase + ascii_lowercase  # of labels: one token each, so one probability
AHEAD = 256  # posts in flight, those included that wait for an earlier one
RETRIES = 5  # of a request, by the client, which waits as long as a server's Retry-After says
SILENCE = 10  # failed requests in a row, after which a job is stopped
FEW = 5  # log-probabilities of a token, where a server refuses 20
PATCH, WRITTEN = 28, 10  # estimates: a token is so many pixels squared; tokens written
_WIDE = re.compile(r"[^\x00-\u024f]")  # each about a token; of other characters four are
_MARKS = " \t\r\n.,:;!\"'`*()[]{}。"  # around an answer, and in a token of it
Messages = list[dict[str, Any]]
Reply = dict[str, Any]  # as it is cached: text, cut, mass by code, tokens, written, seconds
Item, Result = TypeVar("Item"), TypeVar("Result")


class _NoAnswerError(SgmftError):
    """The reason why a post gets no label from a language model."""


@dataclass
class LanguageModel:
    """Labels posts by the answers of a language model; a predictor for `predict_table`.

    Every answer is kept at once, by a digest of server, model, settings and what is sent, so that
    no question is paid for twice, also after a job was killed. Threads may share the object.

    Raises:
        SgmftError: labels, address, prompt or cache cannot be used; `openai` is not installed.
    """

    server: str  # address of the API, such as http://127.0.0.1:8000/v1
    model: str  # its name there
    descriptions: Mapping[str, Sequence[str]]  # of each label; perhaps the label itself
    cache: Path  # SQLite file of answers, without what was asked
    key: str | None = field(default=None, repr=False)  # for the server; in no message and file
    prompt: Path | None = None  # file with {labels} and {text}; by default one of `prompts/`
    language: str = "en"  # of the default prompt; or zh
    max_images: int = 4  # pictures that are sent of one post
    image_size: int = 512  # pixels of their longer side, at most
    votes: int = 0  # answers at temperature 1, whose shares are the probabilities
    max_tokens: int = 32  # of an answer; a model that reasons in its answer needs more
    workers: int = 8  # requests at once
    timeout: float = 120.0  # seconds of one attempt
    price: tuple[float, float] | None = None  # of a million tokens read, and written

    def __post_init__(self) -> None:
        self.labels, self.traits = list(self.descriptions), dict[str, int]()
        self.spent = Counter[str]()  # requests, tokens read and written; answers from the cache
        self.more = ["abstained", "llm_none", "llm_tokens", "llm_seconds"]
        self.more += [] if self.price is None else ["llm_price"]
        if not re.fullmatch(r"https?://[^@\s]+", self.server):
            fix = "begin it with http:// or https://, and leave passwords out"
            raise SgmftError(f"The address of the language model cannot be used: {fix}.")
        if not 2 <= len(self.labels) < len(CODES) or "none" in map(str.casefold, self.labels):
            need = f"2 to {len(CODES) - 1} labels beside 'none', which is always there"
            raise SgmftError(f"A language model chooses among {need}, not {self.labels}.")
        self._codes = CODES[: len(self.labels) + 1]  # the last one is of none of the labels
        prompt = self.prompt or Path(__file__).with_name("prompts") / f"{self.language}.txt"
        with raising(f"The prompt {prompt} cannot be read as UTF-8.", OSError, ValueError):
            text = prompt.read_text("utf-8").strip()
        if missing := [x for x in ("{labels}", "{text}") if x not in text]:
            raise SgmftError(f"{prompt} lacks {' and '.join(missing)}: write it where that goes.")
        about = self.descriptions.items()
        shown = (x if [x] == [*texts] else f"{x} ({'; '.join(texts)})" for x, texts in about)
        lines = "\n".join(": ".join(pair) for pair in zip(self._codes, shown, strict=False))
        text = text.replace("{none}", self._codes[-1]).replace("{codes}", ", ".join(self._codes))
        self._prompt = text.replace("{labels}", lines)
        names = dict(zip([*self.labels, "none"], self._codes, strict=True))
        self._answers = {name.casefold(): code for name, code in names.items()}
        self._answers |= {f"{code}: {name}".casefold(): code for name, code in names.items()}
        self._answers |= {code: code for code in self._codes}
        schema: dict[str, Any] = {"type": "object", "additionalProperties": False}
        schema |= {"properties": {"label": {"type": "string", "enum": [*self._codes]}}}
        form = {"name": "label", "strict": True, "schema": schema | {"required": ["label"]}}
        self._wanted = {"response_format": {"type": "json_schema", "json_schema": form}}
        self._wanted |= {"temperature": 1} if self.votes else {"temperature": 0, "logprobs": True}
        self._wanted |= {} if self.votes else {"top_logprobs": 20}
        self._taken = self._wanted  # without what the server has refused
        self._silent, self._stopped = 0, None
        self._lock, self._asked = threading.Lock(), [threading.Lock() for _ in range(4096)]
        with needs_extra("llm", "A language model"):
            import openai
        http = openai.DefaultHttpxClient(follow_redirects=False)  # nothing goes elsewhere
        own: dict[str, Any] = {"timeout": self.timeout, "max_retries": RETRIES, "http_client": http}
        self._client = openai.OpenAI(base_url=self.server, api_key=self.key or "none", **own)
        with writing(self.cache):
            self.cache.parent.mkdir(parents=True, exist_ok=True)
        self._rows: sqlite3.Connection | None = None
        self._execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT)")

    def close(self) -> None:
        """Close the connections and the cache."""
        self._client.close()
        if self._rows is not None:
            self._rows.close()

    def predictions(self, posts: Iterable[Post], abstain: Abstention | None = None) -> Predictions:
        """Yield predictions in the order of the posts; rules for abstention are not applied.

        Probabilities are shares of the labels alone, `llm_none` is that of none of them. They are
        None without log-probabilities and votes. A post has an error where two answers name no
        label, or there is none.

        Raises:
            SgmftError: the server refuses the key or the model, or does not answer any more.
        """
        return in_order(self.ask, posts, self.workers)

    def survey(self, posts: Iterable[Post]) -> Counter[str]:
        """Count, and send nothing: posts to send, their pictures, posts whose answers are cached,
        and estimates of the tokens that are read and written for the others.
        """
        return sum(in_order(self._survey, posts, os.cpu_count() or 1), Counter[str]())

    def _survey(self, post: Post) -> Counter[str]:
        try:
            messages, pictures, _ = self._messages(post)
        except _NoAnswerError:
            return Counter()
        new = sum(self._known(self._digest(messages, x)) is None for x in self._rounds())
        text = self._prompt + post.text
        wide = len(_WIDE.findall(text))
        tokens = wide + (len(text) - wide) // 4 + pictures * (self.image_size // PATCH) ** 2
        found = {"posts": 1, "pictures": pictures, "tokens": new * tokens, "written": new * WRITTEN}
        return Counter(found if new else {"cached": 1})

    def _rounds(self) -> range:
        return range(max(1, self.votes))

    def cost(self, tokens: int, written: int) -> float:
        """Return the price of tokens read and written; 0 where none was given."""
        read_price, written_price = self.price or (0, 0)
        return (tokens * read_price + written * written_price) / 1e6

    def ask(self, post: Post) -> Prediction:
        """Return the prediction for one post; see `predictions`."""
        replies, codes, mass = list[Reply](), list[str](), Counter[str]()
        try:
            messages, _, warnings = self._messages(post)
            for number in self._rounds():
                replies.append(self._reply(messages, number))
                if self._read(answer := replies[-1]["text"]) is None:
                    again = self._prompt.rpartition("\n")[2]  # its last line asks for a letter
                    turns = zip(("assistant", "user"), (answer, again), strict=True)
                    talk = [*messages, *({"role": role, "content": x} for role, x in turns)]
                    replies.append(self._reply(talk, number))
                if code := self._read(replies[-1]["text"]):
                    codes.append(code)
                    mass.update({code: 1} if self.votes else replies[-1]["mass"])
            if not codes:
                bad = "the model's answer names none of the labels: {answer!r:.80}"
                cut = "the answer was cut off after {most} tokens, see --max-tokens: {answer!r:.80}"
                own = {"answer": replies[-1]["text"], "most": self.max_tokens}
                raise _NoAnswerError(cut if replies[-1]["cut"] else bad, **own)
        except _NoAnswerError as error:
            return Prediction(replace(post, error=str(error)), None, None, None)
        tokens, written = (sum(x[key] or 0 for x in replies) for key in ("tokens", "written"))
        more: dict[str, Any] = {"llm_seconds": round(sum(x["seconds"] for x in replies), 3)}
        more |= {"llm_tokens": tokens + written} if tokens else {}
        more |= {"llm_price": self.cost(tokens, written)} if tokens and self.price else {}
        *shares, none = (mass[code] for code in self._codes)
        more |= {"llm_none": round(none / mass.total(), 6)} if mass else {}
        best = self._codes.index((mass or Counter(codes)).most_common(1)[0][0])
        post = replace(post, warnings=tuple(dict.fromkeys((*post.warnings, *warnings))))
        if best == len(self.labels):
            reason = "the language model found none of the labels"
            return Prediction(post, None, None, None, abstained=reason, more=more)
        probs = np.array(shares, np.float32) / np.float32(sum(shares)) if mass else None
        return Prediction(post, self.labels[best], probs, None, more=more)

    def _messages(self, post: Post) -> tuple[Messages, int, list[str]]:
        """Return what is sent, how many pictures that are, and why others are left out."""
        if post.error is not None:
            raise _NoAnswerError(post.error)
        text, urls, reasons = post.text.encode(errors="replace").decode(), list[str](), list[str]()
        if len(post.images) > self.max_images:
            reason = "has {count} pictures; at most {most} of one post are read"
            reasons.append(Message(reason, count=len(post.images), most=self.max_images))
        for file in post.images[: self.max_images]:
            try:
                urls.append(make_thumbnail(file, self.image_size))
            except ImageError as error:
                reasons.append(str(error))
        if not text.strip() and not urls:
            raise _NoAnswerError(join_messages(reasons) or "nothing to go on: no text, no picture")
        content: Any = self._prompt.replace("{text}", text)
        if urls:  # some servers take nothing but texts
            pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
            content = [{"type": "text", "text": content}, *pictures]
        return [{"role": "user", "content": content}], len(urls), reasons

    def _digest(self, messages: Messages, number: int) -> str:
        own = {"server": self.server, "model": self.model, "settings": self._wanted}
        return digest_of({**own, "most": self.max_tokens, "messages": messages, "number": number})

    def _execute(self, query: str, *values: str) -> Any:
        fix = "make room, or name another file with --cache"
        with self._lock, raising(f"The cache {self.cache} cannot be used: {fix}.", sqlite3.Error):
            if self._rows is None:
                own: dict[str, Any] = {"isolation_level": None, "check_same_thread": False}
                self._rows = sqlite3.connect(self.cache, timeout=60, **own)
            return self._rows.execute(query, values).fetchone()

    def _known(self, key: str) -> Reply | None:
        found = self._execute("SELECT reply FROM replies WHERE key = ?", key)
        return None if found is None else dict(json.loads(found[0]))

    def _reply(self, messages: Messages, number: int) -> Reply:
        key = self._digest(messages, number)
        with self._asked[int(key[:3], 16)]:  # who asks the same waits for this answer
            if (reply := self._known(key)) is not None:
                found = {"cached": 1}
            elif self._stopped is not None:
                raise self._stopped
            else:
                reply = self._send(messages)
                query = "INSERT OR REPLACE INTO replies VALUES (?, ?)"
                self._execute(query, key, json.dumps(reply))
                found = {x: reply[x] or 0 for x in ("tokens", "written")} | {"requests": 1}
        with self._lock:
            self.spent.update(found)
        return reply

    def _send(self, messages: Messages) -> Reply:
        """Ask the server, without what it refuses of the settings, which it is not sent again."""
        from openai import BadRequestError, UnprocessableEntityError

        start, given = time.monotonic(), self._taken
        own: dict[str, Any] = {"model": self.model, "messages": messages}
        own["max_completion_tokens"] = self.max_tokens
        try:
            while True:
                try:
                    got: Any = self._client.chat.completions.create(**own, **given)
                    break
                except (BadRequestError, UnprocessableEntityError) as error:
                    if not given:
                        raise
                    named = [name for name in given if name in str(error)]
                    if "top_logprobs" in named and given["top_logprobs"] > FEW:
                        given = given | {"top_logprobs": FEW}
                    else:
                        given = {x: y for x, y in given.items() if named and x not in named}
            choice, text = got.choices[0], got.choices[0].message.content or ""
            reply = {"text": text, "cut": choice.finish_reason == "length"}
            reply["mass"] = self._mass(choice.logprobs, self._read(text))
            reply["tokens"] = got.usage.prompt_tokens if got.usage else None
            reply["written"] = got.usage.completion_tokens if got.usage else None
        except Exception as error:  # bad servers make the client raise nearly every kind
            status, why = getattr(error, "status_code", 0), str(error)
            why = make_printable(why.replace(self.key, "***") if self.key else why)[:300]
            self._silent += status not in (400, 413, 422)  # which are of this post alone
            if status in (401, 403, 404) or self._silent >= SILENCE:
                fix = "mend that, and run the same again: nothing answered so far is asked again"
                self._stopped = SgmftError(f"{self.server} labels nothing ({why}): {fix}.")
            reason = "the language model could not be asked: {why}"
            raise self._stopped or _NoAnswerError(reason, why=why) from None  # it may have the key
        self._silent, self._taken = 0, given
        return reply | {"seconds": round(time.monotonic() - start, 3)}

    def _read(self, answer: str) -> str | None:
        """Return the code of an answer: JSON, a letter, a label, or both; None for others."""
        answer = answer.rpartition("</think>")[2]
        with suppress(ValueError, LookupError, TypeError):
            answer = json.loads(answer)["label"]
        plain = re.sub(r"^(\w) ?[.:)] ?", r"\1: ", str(answer).strip(_MARKS))
        return self._answers.get(plain, self._answers.get(plain.casefold()))

    def _mass(self, logprobs: Any, code: str | None) -> dict[str, float]:
        """Return the probabilities of codes at the token that decided; {} if they are unknown."""
        mass = Counter[str]()
        tokens = logprobs.content or () if logprobs else ()
        decided = next((x for x in tokens if x.token.strip(_MARKS) == code), None)
        for token in decided.top_logprobs if decided and len(decided.top_logprobs) > 1 else ():
            if (letter := token.token.strip(_MARKS)) in tuple(self._codes):
                mass[letter] += math.exp(token.logprob)
        return dict(mass)


class SecondOpinion:
    """Predictions of a model; of a language model where that is unsure. See `predict_table`.

    A column `source` says whose the label is, "model" or "llm". Posts of which the language model
    gives none, for an error, keep the model's with a warning.
    """

    def __init__(
        self, model: SupportsPredictions, other: LanguageModel, below: float, budget: int | None
    ) -> None:
        self.labels, self.traits, self.more = model.labels, model.traits, ["abstained", "source"]
        self._model, self._other, self._below, self._budget = model, other, below, budget

    def predictions(self, posts: Iterable[Post], abstain: Abstention | None = None) -> Predictions:
        """Yield predictions in order; at most `budget` posts below the probability are asked."""
        left = math.inf if self._budget is None else self._budget

        def unsure(predictions: Predictions) -> Iterator[tuple[Prediction, bool]]:
            nonlocal left
            for p in predictions:
                asked = p.probability is not None and p.probability < self._below and left > 0
                left -= asked
                yield p, asked

        found = unsure(self._model.predictions(posts, abstain))
        return in_order(self._decide, found, self._other.workers)

    def _decide(self, item: tuple[Prediction, bool]) -> Prediction:
        own, asked = item
        other = self._other.ask(own.post) if asked else own
        if asked and not other.error:
            given = {x: getattr(other, x) for x in ("post", "label", "probabilities", "abstained")}
            return own._replace(**given, more={"source": "llm"})
        warnings = (*own.post.warnings, *filter(None, [other.error if asked else None]))
        return own._replace(post=replace(own.post, warnings=warnings), more={"source": "model"})


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Yield results of work by several threads in the order of the items, a few ahead of use."""
    running = deque[Future[Result]]()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                running.append(pool.submit(work, item))
                if len(running) >= AHEAD:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:  # what has begun is waited for
            for future in running:
                future.cancel()
