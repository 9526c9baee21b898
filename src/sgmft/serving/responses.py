"""The JSON of responses, as models of the OpenAPI document."""

from typing import Any, Self

from pydantic import BaseModel, Field

from sgmft.locator.prediction import Prediction


class PredictionResponse(BaseModel):
    """The prediction of one post."""

    id: str | None = Field(description="as the request gave it")
    label: str | None = Field(description="null for a post with an error, or where it is withheld")
    probability: float | None = Field(description="of the most probable label, withheld or not")
    probabilities: dict[str, float] | None = Field(description="of each label; calibrated")
    set: list[str] | None = Field(description="the prediction set, where there is a coverage")
    typicality: float | None = Field(description="where the request rejects")
    abstained: str | None = Field(description="why a post that can be read has no label")
    error: str | None = Field(description="why a post cannot be used")
    warnings: list[str] = Field(description="what was left out of a post that can, and why")

    @classmethod
    def of(cls, prediction: Prediction, labels: tuple[str, ...]) -> Self:
        """Return a prediction as JSON has it."""
        p, probs, members = prediction, prediction.probabilities, prediction.label_set
        shares = None if probs is None else dict(zip(labels, probs.tolist(), strict=True))
        found = p._asdict() | {"id": p.post.id, "probability": p.probability, "error": p.error}
        found |= {"set": None if members is None else list(members), "probabilities": shares}
        return cls(**found, warnings=list(p.post.warnings))


class PredictionsResponse(BaseModel):
    """One prediction for each post, in their order."""

    predictions: list[PredictionResponse]


class ExplanationResponse(BaseModel):
    """The prediction of one post and its explanation; the fields of `Explanation`."""

    prediction: PredictionResponse
    explanation: dict[str, Any]


class ServedModel(BaseModel):
    """Facts about the model that is served."""

    labels: tuple[str, ...] = Field(description="in the order of `probabilities`")
    runtime: str = Field(description="torch, or onnx for an exported model")
    method: str | None = Field(description="null for an exported model, like the preset")
    preset: str | None
    encoder: str
    attributes: tuple[str, ...] = Field(description="other columns that it reads")
    metrics: dict[str, float | None] = Field(description="on held-out posts; null where undefined")
    traits: dict[str, int] = Field(description="of the training's posts, with how many have each")
    held_out: int = Field(description="posts that prediction sets and rejection rest on")
    explains: bool
    versions: dict[str, str] = Field(description="of the packages that decide the numbers")


class ModelResponse(ServedModel):
    """Facts about the model, and the limits of requests."""

    version: str = Field(description="of the sgmft that serves")
    limits: dict[str, float] = Field(description="of requests; docs/serving.md")
