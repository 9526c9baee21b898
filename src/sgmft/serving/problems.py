"""Problem documents (RFC 9457): why a request is refused."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from starlette.responses import JSONResponse

from sgmft.errors import Message


class _Kind(NamedTuple):
    status: int
    title: str
    meaning: str


PROBLEMS = {
    "not-json": _Kind(400, "The body is not JSON", "Send one JSON object, in UTF-8."),
    "not-a-form": _Kind(400, "The body is not a form", "Send well-formed multipart/form-data."),
    "unauthorized": _Kind(
        401,
        "A key is needed",
        "Send the server's key as `Authorization: Bearer KEY` or `X-API-Key: KEY`; browsers ask "
        "for it as a password.",
    ),
    "not-found": _Kind(404, "There is nothing at this address", "See /openapi.json."),
    "not-allowed": _Kind(405, "This address has another method", "See /openapi.json."),
    "too-slow": _Kind(
        408, "The request came too slowly", "It must be complete within the server's time limit."
    ),
    "body-too-large": _Kind(
        413, "The body is too large", "Send fewer posts at a time, or smaller pictures."
    ),
    "too-many-pixels": _Kind(
        413, "A picture has too many pixels", "Send a smaller copy: the model sees it small anyway."
    ),
    "unknown-media-type": _Kind(
        415,
        "The body is of another type",
        "Send application/json or multipart/form-data, not compressed.",
    ),
    "invalid-request": _Kind(
        422, "The request does not say what it should", "`errors` has the places and what is wrong."
    ),
    "too-many-posts": _Kind(422, "Too many posts", "Send them in several requests."),
    "too-many-pictures": _Kind(422, "A post has too many pictures", "Send the most telling ones."),
    "text-too-long": _Kind(422, "A text is too long", "Send the part that matters."),
    "unusable-post": _Kind(
        422, "The post cannot be explained", "`detail` has the reason; predict gives it as `error`."
    ),
    "not-possible": _Kind(422, "This model cannot do that", "`detail` has the reason."),
    "takes-too-long": _Kind(
        422, "The answer takes too long", "Send fewer posts at a time, or shorter videos."
    ),
    "internal": _Kind(500, "The server made a mistake", "Its log says where."),
    "worker-stopped": _Kind(
        503, "The worker stopped", "It is started again by itself; send the request again."
    ),
    "busy": _Kind(503, "The server is busy", "Send the request again after `Retry-After` seconds."),
}

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818 the standard's own word
    """Ends a request with a problem document.

    Args:
        detail: the mistake in this request, and its place; by default the meaning of its kind. With
            `values` the template of a `Message`.
        retry: seconds after which it is worth another try; the header `Retry-After`.
        errors: a list of mistakes, for the document.
    """

    def __init__(
        self,
        kind: str,
        detail: str = "",
        *,
        retry: int | None = None,
        errors: Sequence[Mapping[str, str]] = (),
        **values: Any,
    ) -> None:
        self.kind, self.retry, self.errors = kind, retry, errors
        self.detail = Message(detail, **values) if values else detail
        super().__init__(self.detail or PROBLEMS[kind].title)

    def response(self) -> JSONResponse:
        """Return the response with its document."""
        kind = PROBLEMS[self.kind]
        document: dict[str, Any] = {
            "type": f"/problems/{self.kind}",
            "title": kind.title,
            "status": kind.status,
            "detail": self.detail or kind.meaning,
        }
        document |= {"errors": self.errors} if self.errors else {}
        headers = {} if self.retry is None else {"Retry-After": str(self.retry)}
        if kind.status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="sgmft", charset="UTF-8"'
        if kind.status == 408:
            headers["Connection"] = "close"  # the rest may never come
        return JSONResponse(document, kind.status, headers, MEDIA_TYPE)
