import pytest
import reference_sgmft as reference
import torch

from sgmft.models.sgmft import FeedForward, interaction

D = 16


def normal(*shape, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * scale


def block(guided, dropout=0.1):
    torch.manual_seed(0)
    made = FeedForward(D, 40, guided, dropout).double().eval()
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(0, 0.5)
    return made


def close(a, b, atol=1e-10):
    torch.testing.assert_close(a, torch.tensor(b, dtype=torch.float64), rtol=0, atol=atol)


@pytest.mark.parametrize("tau", [0.5, 6.0])
def test_equation_14_on_tokens(tau):
    text, image, x = normal(2, 5, D), normal(2, 7, D, seed=1), normal(2, 7, D, seed=2)
    mask = torch.arange(7) < torch.tensor([[7], [3]])
    inter = interaction(text, image, x, torch.tensor(tau).double(), mask)
    assert inter.shape == text.shape
    for b in range(2):
        keys, values = image[b][mask[b]].tolist(), x[b][mask[b]].tolist()
        close(inter[b], reference.interaction(text[b].tolist(), keys, values, tau))


@pytest.mark.parametrize("width", [D, 128])
@pytest.mark.parametrize("tau", [0.5, 6.0])
def test_equation_14_on_elements(tau, width):
    """Exact at width 16, interpolated to float32 rounding at 128."""
    t, v = normal(2, width, scale=0.5), normal(2, width, scale=0.5, seed=1)
    x = normal(2, width, seed=2)
    inter = interaction(t, v, x, torch.tensor(tau).double())
    assert inter.shape == t.shape
    for b in range(2):
        columns = (reference.column(a[b].tolist()) for a in (t, v, x))
        expected = [a for (a,) in reference.interaction(*columns, tau)]
        close(inter[b], expected, 1e-10 if width == D else 1e-7 * float(x.abs().max()))


def test_equations_15_and_16():
    ffn = block(guided=True)
    w = reference.matrices(ffn)
    tokens, inter = normal(2, 5, D), normal(2, 5, D, seed=1)
    out = ffn(tokens, inter)
    for b in range(2):
        close(out[b], reference.feed_forward(w, tokens[b].tolist(), inter[b].tolist()))
    pooled = ffn(tokens[:, 0], inter[:, 0])  # the elements view
    close(pooled, reference.feed_forward(w, tokens[:, 0].tolist(), inter[:, 0].tolist()))
    assert ffn.w3.bias is None  # one b1


def test_the_conventional_block_has_no_w3():
    ffn = block(guided=False)
    assert ffn.w3 is None
    tokens = normal(2, 5, D)
    out = ffn(tokens)
    for b in range(2):
        close(out[b], reference.feed_forward(reference.matrices(ffn), tokens[b].tolist()))


def test_x_inter_comes_in_exactly_where_the_block_is_guided():
    x = normal(2, D)
    with pytest.raises(ValueError, match="needs X_inter"):
        block(guided=True)(x)
    with pytest.raises(ValueError, match="takes no X_inter"):
        block(guided=False)(x, x)


def test_dropout_is_in_training_only():
    ffn, x = block(guided=False, dropout=0.5), normal(2, D)
    assert torch.equal(ffn(x), ffn(x))
    ffn.train()
    assert not torch.equal(ffn(x), ffn(x))
