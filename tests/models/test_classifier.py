"""The classifier, equation 18."""

import reference_sgmft as reference
import torch
from torch import nn

from sgmft.models.layers import classifier
from token_batches import assert_close, normal, randomize

D = 16


def test_the_classifier_is_five_fully_connected_layers():
    made = randomize(classifier(D, 3, (12, 10, 8, 6)))
    x = normal(4, D)
    expected = [reference.classifier(reference.matrices(made), row) for row in x.tolist()]
    assert_close(made(x), torch.tensor(expected, dtype=torch.float64))
    assert made(x).min() < 0  # logits: no ReLU at the end
    default = classifier(D, 3)
    sizes = [(m.in_features, m.out_features) for m in default if isinstance(m, nn.Linear)]
    assert sizes == [(D, 512), (512, 256), (256, 128), (128, 64), (64, 3)]


def test_the_classifier_drops_out_in_training_only():
    made = randomize(classifier(D, 3, (12, 10, 8, 6), dropout=0.5))
    x = normal(4, D)
    assert torch.equal(made(x), made(x))
    made.train()
    assert not torch.equal(made(x), made(x))
