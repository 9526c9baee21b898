"""The body of a request as posts: JSON with base64, or a form with files, within the limits.

The bodies are read here and not declared as FastAPI's parameters: one address takes both kinds, and
what would cost much to parse or to complain about is refused before pydantic sees it. FastAPI's own
`Form` and `File` would read what is cut off, decode texts by whatever charset the request names,
and keep one of two fields of a name; here a form is complete, its names and texts are in UTF-8.
"""

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from sgmft.data.posts import Attachment, Post
from sgmft.data.preprocessing.images import count_pixels
from sgmft.errors import TEXTS
from sgmft.locator.abstention import Abstention
from sgmft.serving.problems import Limits, Problem

Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Files = Mapping[str, Sequence[Attachment]]
# Texts by the names of their fields; files, each with its field's, which several may share.
Form = tuple[dict[str, str], list[tuple[str, UploadFile]]]
MAX_MEMBERS = 16  # of one JSON object; ours have fewer
MAX_FIELDS = 16  # of one form that are no files
_BOUNDARY = re.compile(r"[\w'()+,./:=? -]{0,69}[\w'()+,./:=?-]", re.ASCII)  # RFC 2046


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class ImageRequest(_Strict):
    """A picture or video file and its name."""

    data: str = Field(description="the file's bytes in base64")
    name: str = Field("", description="the name that messages use")


class PostRequest(_Strict):
    """A post: text, pictures, or both."""

    id: str | None = Field(None, description="comes back with the prediction")
    text: str = Field("", description="as its author wrote it")
    images: list[str | ImageRequest] = Field([], description=TEXTS["images of a request"])
    attributes: dict[str, str | float | bool | None] = Field({}, max_length=64)
    """other columns by name, and time, where the model reads some"""


class AbstentionRequest(_Strict):
    """When the label is withheld; by default as the server was started."""

    coverage: Share | None = Field(None, description=TEXTS["coverage of a request"])
    min_probability: Share | None = Field(None, description="no label below it")
    reject: Share | None = Field(None, description=TEXTS["reject of a request"])


class OnePost(AbstentionRequest, PostRequest):
    """One post, and when its label is withheld."""


class ManyPosts(AbstentionRequest):
    """Posts, and when their labels are withheld."""

    posts: list[PostRequest] = Field(min_length=1)


class ExplainedPost(OnePost):
    """One post to be explained."""

    label: str | None = Field(None, description="to explain; by default the most probable")


class ParsedRequest(NamedTuple):
    """The content of a request."""

    posts: list[Post]
    rules: Abstention | None  # None: as the server has them
    label: str | None = None


async def parse_request(request: Request, limits: Limits, single: type[OnePost]) -> ParsedRequest:
    """Read a request's body: a `single`, where that is `OnePost` also `ManyPosts`; else Problem."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "multipart/form-data"):
        raise Problem("unknown-media-type", f"The type is {kind[:80]!r}." if kind else "")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem("unknown-media-type", "The body is compressed.")
    if kind == "application/json":
        body = await request.body()
        return await asyncio.to_thread(lambda: _validate(_parse(body, limits), limits, single, {}))
    files: dict[str, list[Attachment]] = {}
    async with open_form(request, limits.posts * limits.pictures, limits.body) as (fields, given):
        for name, file in given:
            files.setdefault(name, []).append(Attachment(await file.read(), file.filename or ""))
    return await asyncio.to_thread(_from_form, fields, files, limits, single)


async def parse_object(request: Request, limits: Limits) -> dict[str, Any]:
    """Read a request's body, a JSON object; else Problem."""
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise Problem("unknown-media-type")  # pages of others can send all but that
    found = await asyncio.to_thread(_parse, await request.body(), limits)
    if not isinstance(found, dict):
        raise Problem("invalid-request", "The body is no object.")
    return found


class _Parser(MultiPartParser):
    complete = False

    def on_end(self) -> None:
        self.complete = True
        super().on_end()


@asynccontextmanager
async def open_form(request: Request, max_files: int, max_field: int) -> AsyncIterator[Form]:
    """Read the form in the body, larger files on disk until the end; Problem if it is not whole."""
    _, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"").decode("latin-1")
    if not _BOUNDARY.fullmatch(boundary):
        raise Problem("not-a-form", "Its type has no boundary as RFC 2046 describes it.")
    # Latin-1 has a character for each byte: nothing is lost before `_decode` reads them as UTF-8,
    # which is all that RFC 7578 knows, whatever charset the request names.
    kind = Headers({"content-type": f'multipart/form-data; charset=latin-1; boundary="{boundary}"'})
    limits = {"max_files": max_files, "max_fields": MAX_FIELDS, "max_part_size": max_field}
    parser = _Parser(kind, request.stream(), **limits)
    try:
        parts = await parser.parse()
    except MultiPartException as error:
        raise Problem("not-a-form", error.message) from None
    fields, files = dict[str, str](), list[tuple[str, UploadFile]]()
    try:
        for name, value in parts.multi_items():
            name = _decode(name, "The name of a field")
            if isinstance(value, UploadFile):
                value.filename = _decode(value.filename or "", "The name of a file")[:100]
                files.append((name, value))
            elif name in fields:
                raise Problem("invalid-request", f"The form has the field {name[:80]!r} twice.")
            else:
                fields[name] = _decode(value, f"The field {name[:80]!r}")
        if not parser.complete:
            raise Problem("not-a-form", "It is cut off: its last boundary is missing.")
        yield fields, files
    finally:
        await parts.close()


def _decode(read: str, what: str) -> str:
    try:
        return read.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        raise Problem("not-a-form", f"{what} is not in UTF-8.") from None


def _parse(body: bytes, limits: Limits, where: str = "") -> Any:
    marks = sum(body.count(mark) for mark in (b"[", b"{", b",", b":"))
    most = limits.posts * (limits.text + 1000)  # all its texts could be marks
    if marks > most:  # reading millions of tiny values would take all the server's time
        read = where or "The body"
        raise Problem("invalid-request", TEXTS["many marks"], where=read, count=marks, most=most)
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Problem("not-json", f"{where}: {error}" if where else f"{error}") from None


def _from_form(
    found: dict[str, Any], files: Files, limits: Limits, single: type[OnePost]
) -> ParsedRequest:
    if "posts" in found:
        found["posts"] = _parse(found["posts"].encode(), limits, "The field 'posts'")
    else:
        if unknown := files.keys() - {"image", "images"}:
            raise Problem("invalid-request", f"There is no field {min(unknown)[:80]!r} for files.")
        if "images" in found:
            raise Problem("invalid-request", "The field 'images' is not a file.")
        numbered = [part for parts in files.values() for part in parts]
        files = {str(i): [part] for i, part in enumerate(numbered)}
        found["images"] = [*files]
    return _validate(found, limits, single, files, strict=False)  # whose numbers are texts


def _validate(
    found: Any, limits: Limits, single: type[OnePost], files: Files, *, strict: bool = True
) -> ParsedRequest:
    _check_counts(found, limits)
    many = isinstance(found, dict) and "posts" in found and single is OnePost
    try:
        model: type[ManyPosts | OnePost] = ManyPosts if many else single
        body = model.model_validate(found, strict=strict)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_context=False, include_input=False)
        places = [{"at": "", "message": x["msg"]} for x in mistakes[:20]]
        for place, mistake in zip(places, mistakes, strict=False):  # as RFC 6901 writes it
            parts = (str(x)[:200].replace("~", "~0").replace("/", "~1") for x in mistake["loc"])
            place["at"] = "".join(f"/{part}" for part in parts)
        first = f"{places[0]['at'] or 'The body'}: {places[0]['message']}."
        raise Problem("invalid-request", first, errors=places) from None
    items = body.posts if isinstance(body, ManyPosts) else [body]
    if left := files.keys() - {x for item in items for x in item.images if isinstance(x, str)}:
        raise Problem("invalid-request", f"No post has the file {min(left)[:80]!r}.")
    posts = [_post(x, _where(i, many), limits, files) for i, x in enumerate(items)]
    rules = body.model_dump(include=set(AbstentionRequest.model_fields), exclude_none=True)
    chosen = Abstention(**rules) if rules else None
    return ParsedRequest(posts, chosen, getattr(body, "label", None))


def _check_counts(found: Any, limits: Limits) -> None:
    """Refuse what would be a mistake a million times over, before each is written down."""
    many = isinstance(found, dict) and isinstance(found.get("posts"), list)
    posts = found["posts"] if many else [found]
    if len(posts) > limits.posts:
        raise Problem("too-many-posts", f"{len(posts)} posts; at most {limits.posts} at a time.")
    objects = [found, *posts]
    for i, post in enumerate(posts):
        pictures = post.get("images") if isinstance(post, dict) else None
        if isinstance(pictures, list):
            _limit("too-many-pictures", len(pictures), limits.pictures, _where(i, many))
            objects += pictures
    members = max((len(x) for x in objects if isinstance(x, dict)), default=0)
    if members > MAX_MEMBERS:
        raise Problem("invalid-request", f"An object has {members} members; none needs so many.")


def _limit(kind: str, count: int, most: int, post: str, **more: Any) -> None:
    if count > most:
        raise Problem(kind, TEXTS[kind], post=post, count=count, most=most, **more)


def _where(number: int, many: bool) -> str:
    return f"posts[{number}]" if many else "The post"


def _post(item: PostRequest, where: str, limits: Limits, files: Files) -> Post:
    _limit("text-too-long", len(item.text), limits.text, where)
    images = [_image(x, i, where, files) for i, x in enumerate(item.images)]
    for image in images:
        pixels = count_pixels(image.data, image.name) or 0  # None: it is for the model to refuse
        _limit("too-many-pixels", pixels, limits.pixels, where, name=image.name)
    row, time = item.attributes, item.attributes.get("time")
    return Post(item.text, images, id=item.id, time=None if time is None else str(time), row=row)


def _image(image: str | ImageRequest, number: int, where: str, files: Files) -> Attachment:
    name = f"picture {number + 1}"
    if isinstance(image, str) and files:
        if len(parts := files.get(image, ())) != 1:
            detail = f"{where}: {len(parts)} files of the form are called {image[:80]!r}."
            raise Problem("invalid-request", detail)
        return Attachment(parts[0].data, parts[0].name or name)
    if isinstance(image, ImageRequest):
        name, image = image.name[:100] or name, image.data
    try:
        head, comma, rest = image.partition(",")
        data = rest if comma and head.startswith("data:") and head.endswith(";base64") else image
        return Attachment(base64.b64decode("".join(data.split()), validate=True), name)
    except ValueError:
        raise Problem("invalid-request", TEXTS["no file"], post=where, name=name) from None
