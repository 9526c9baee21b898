"""What the server answers, as models of its OpenAPI document."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from sgmft.jobs.output_columns import abstention_columns
from sgmft.locator.prediction import Prediction
from sgmft.serving.worker import About


class PredictionResponse(BaseModel):
    """What the model says of one post."""

    id: str | None = Field(description="as the request gave it")
    label: str | None = Field(description="null for a post with an error, or where it is kept back")
    probability: float | None = Field(description="of the most probable label, given or not")
    probabilities: dict[str, float] | None = Field(description="of each label; calibrated")
    set: list[str] | None = Field(description="the prediction set, where a coverage is asked for")
    typicality: float | None = Field(description="where rejecting is asked for")
    abstained: str | None = Field(description="why a post that can be read has no label")
    error: str | None = Field(description="why a post cannot be used")

    @classmethod
    def of(cls, said: Prediction, labels: tuple[str, ...]) -> Self:
        """A prediction as JSON has it."""
        probs = said.probabilities
        return cls(
            id=said.post.id,
            label=said.label,
            probability=said.probability,
            probabilities=None if probs is None else dict(zip(labels, probs.tolist(), strict=True)),
            error=said.error,
            **abstention_columns(said),
        )


class PredictionsResponse(BaseModel):
    """One prediction for each post, in their order."""

    predictions: list[PredictionResponse]


class ExplanationResponse(BaseModel):
    """What the model says of one post, and why; the fields of `Explanation`."""

    prediction: PredictionResponse
    explanation: dict[str, Any]


class ModelResponse(BaseModel):
    """What there is to know of the model."""

    labels: list[str] = Field(description="in the order of `probabilities`")
    runtime: str = Field(description="torch, or onnx for an exported model")
    method: str | None = Field(description="null for an exported model, like the preset")
    preset: str | None
    encoder: str
    metrics: dict[str, float | None] = Field(
        description="on posts held out in training; null for what they cannot tell"
    )
    held_out: int = Field(description="posts that prediction sets and rejecting rest on")
    explains: bool
    versions: dict[str, str] = Field(description="of what decides the numbers, at training")
    version: str = Field(description="of the sgmft that serves")
    limits: dict[str, float] = Field(description="of requests; docs/serving.md")

    @classmethod
    def of(cls, about: About, version: str, limits: dict[str, float]) -> Self:
        """Without what is nobody's business."""
        known = {name: value for name, value in vars(about).items() if name != "pid"}
        return cls(**known, version=version, limits=limits)


class StateResponse(BaseModel):
    """Whether the server can be asked."""

    status: str


class ProblemResponse(BaseModel):
    """RFC 9457: why there is no answer."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="an address on this server that says more")
    title: str
    status: int
    detail: str
