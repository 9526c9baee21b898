import pytest
import slow
import torch
from torch import nn

from sgmft.errors import SgmftError
from sgmft.models.attention import AttentionHeads
from sgmft.models.fusions import FUSIONS, SimilarityAwareFusion, SumFusion, pool
from sgmft.models.layers import classifier
from sgmft.models.sgmft import SGMFT, SGMFTConfig

D, HEADS = 16, 4


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def randomised(module):
    torch.manual_seed(0)
    module.double().eval()
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(0, 0.5)
    return module


def close(a, b):
    torch.testing.assert_close(a, torch.tensor(b, dtype=torch.float64), rtol=1e-10, atol=1e-10)


def masks():
    return (
        torch.tensor([[True, True, False, True, False], [True] * 5]),
        torch.arange(7) < torch.tensor([[7], [2]]),
    )


def test_pooling_is_the_mean_over_real_tokens():
    x, (mask, _) = normal(2, 5, D), masks()
    close(pool(x, mask), [slow.mean(x[b][mask[b]].tolist()) for b in range(2)])
    close(pool(x, None), [slow.mean(x[b].tolist()) for b in range(2)])
    assert torch.equal(pool(x[:, 0], None), x[:, 0])
    assert (pool(x, torch.zeros_like(mask)) == 0).all()  # never 0/0


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("width", [None, 1, 2, 4])
def test_fusion_is_equation_17(width, layers):
    sfm = randomised(SimilarityAwareFusion(D, AttentionHeads(HEADS, width), layers))
    assert len(sfm.layers) == layers
    w = slow.matrices(sfm)
    text, image = normal(2, 5, D), normal(2, 7, D, seed=1)
    if width is not None:
        text, image = text[:, 0], image[:, 0]
        fused = sfm(text, image)
        sides = [([t], [v]) for t, v in zip(text.tolist(), image.tolist(), strict=True)]
    else:
        fused = sfm(text, image, *masks())
        sides = [
            tuple(x[b][m[b]].tolist() for x, m in zip((text, image), masks(), strict=True))
            for b in range(2)
        ]
    close(fused, [slow.fusion(w, t, v, HEADS, width, layers) for t, v in sides])


def test_two_layers_by_default():
    assert len(SimilarityAwareFusion(D, AttentionHeads(HEADS)).layers) == 2


def test_without_the_module_the_pooled_features_are_added():
    text, image, both = normal(2, 5, D), normal(2, 7, D, seed=1), masks()
    expected = [
        slow.add(
            *(slow.mean(x[b][m[b]].tolist()) for x, m in zip((text, image), both, strict=True))
        )
        for b in range(2)
    ]
    fusion = SumFusion(D, AttentionHeads(HEADS))
    close(fusion(text, image, *both), expected)
    assert torch.equal(fusion(text[:, 0], image[:, 0]), text[:, 0] + image[:, 0])
    assert not fusion.state_dict()


@pytest.mark.parametrize(("name", "kind"), [("sfm", SimilarityAwareFusion), ("sum", SumFusion)])
def test_modules_by_name(name, kind):
    fusion = FUSIONS[name](D, AttentionHeads(HEADS), 3)
    assert type(fusion) is kind and FUSIONS[name] is kind
    assert len(list(fusion.children())) <= 1 and len(getattr(fusion, "layers", "123")) == 3


def test_an_unknown_name_tells_those_there_are_and_how_to_add_one(monkeypatch):
    settings = {"classes": 2, "text_width": 5, "image_width": 3, "heads": HEADS, "width": D}
    settings["fusion"] = "mine"
    with pytest.raises(SgmftError, match=r"no fusion module 'mine': use sfm, sum, .*FUSIONS\[name"):
        SGMFTConfig(**settings)
    taken = []
    monkeypatch.setitem(
        FUSIONS, "mine", lambda *arguments: taken.append(arguments) or nn.Identity()
    )
    assert isinstance(SGMFT(SGMFTConfig(**settings)).fusion, nn.Identity)
    assert taken == [(D, AttentionHeads(HEADS, 1), 2)]


def test_the_classifier_is_five_fully_connected_layers():
    made = randomised(classifier(D, 3, (12, 10, 8, 6)))
    x = normal(4, D)
    close(made(x), [slow.classifier(slow.matrices(made), row) for row in x.tolist()])
    assert made(x).min() < 0  # logits: no ReLU at the end
    default = classifier(D, 3)
    sizes = [(m.in_features, m.out_features) for m in default if isinstance(m, nn.Linear)]
    assert sizes == [(D, 512), (512, 256), (256, 128), (128, 64), (64, 3)]


def test_the_classifier_drops_out_in_training_only():
    made = randomised(classifier(D, 3, (12, 10, 8, 6), dropout=0.5))
    x = normal(4, D)
    assert torch.equal(made(x), made(x))
    made.train()
    assert not torch.equal(made(x), made(x))
