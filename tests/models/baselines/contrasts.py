"""UniS-MMC's contrast as a loop over lists of floats."""

import math

import torch


def dot(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True))


def slow_contrast(text, image, text_correct, image_correct, paired, tau):
    above = below = 0.0
    for t, v, right_t, right_v, pair in zip(
        text, image, text_correct, image_correct, paired, strict=True
    ):
        if pair:
            weight = math.exp(dot(t, v) / math.sqrt(dot(t, t) * dot(v, v)) / tau)
            below += weight
            if right_t or right_v:
                above += weight
    return -math.log(above / below) if above else 0.0


def flags(text):
    return torch.tensor([letter == "1" for letter in text], dtype=torch.bool)
