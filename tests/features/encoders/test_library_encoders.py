"""Encoders of transformers and sentence-transformers against what these libraries return."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from image_files import encoded, quarters, scene, turned
from library_checkpoints import change_json, pictures
from sgmft import SemanticLocator
from sgmft.data.posts import Attachment, Post
from sgmft.data.preprocessing.images import LONGEST, decode_image
from sgmft.errors import SgmftError
from sgmft.features.encode import encode_all
from sgmft.features.encoders.base import Encoder
from sgmft.features.encoders.registry import load_encoder
from sgmft.locator.onnx.export import export_model

TEXTS = ["学校上课", "ab", "我们去公司开会 we see you all", "é", "在家里看书 THE end", "z"]
DUAL = ["clip", "siglip", "naflex", "altclip", "chinese-clip"]
POOLED = ["lit", "aimv2"]  # duals without tokens
PADDED = {"siglip": "max_length", "naflex": "max_length"}


@pytest.fixture(scope="session")
def load(families: Any) -> Any:
    """The encoder of a name in which families stand for their families: load("hf:clip")."""
    known: dict[str, Encoder] = {}

    def get(name: str, **settings: Any) -> Encoder:
        key = f"{name} {settings}"
        if key not in known:
            known[key] = load_encoder(named(families, name), **settings)
        return known[key]

    return get


def named(families: Any, name: str) -> str:
    towers = (tower.partition(":") for tower in name.split("+"))
    return "+".join(f"{kind}:{families[family]}" if family else kind for kind, _, family in towers)


def close(found: Any, expected: Any) -> None:
    found, expected = (np.asarray(x, np.float32) for x in (found, expected))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


# --- features


@pytest.mark.parametrize("family", DUAL + POOLED)
@torch.inference_mode()
def test_a_dual_encoders_features_are_the_librarys(families, load, family: str) -> None:
    encoder, folder = load(f"hf:{family}"), families[family]
    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    padding = PADDED.get(family, False)
    for text, row in zip(TEXTS, encoder.encode_texts(TEXTS, False).pooled, strict=True):
        how = {"padding": padding, "truncation": True, "max_length": 16 if padding else 52}
        if family in ("clip", "altclip", *POOLED):
            how["max_length"] = 16
        given = tokenizer([text], return_tensors="pt", **how)
        given.pop("token_type_ids", None)
        close(row, model.get_text_features(**given).pooler_output[0])
    found = encoder.encode_images(pictures(), False).pooled
    for pixels, row in zip(pictures(), found, strict=True):
        given = processor(images=Image.fromarray(pixels), return_tensors="pt")
        close(row, model.get_image_features(**given).pooler_output[0])
    info = encoder.info
    assert info.shared_space and info.image_size == 0 and info.has_tokens is (family in DUAL)
    assert info.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()), rel=1e-5)


def pooler(output: Any) -> Any:
    return output.pooler_output[0]


IMAGE_NETWORKS = [
    ("dinov2", pooler),
    ("ijepa", lambda output: output.last_hidden_state[0].mean(0)),  # has no class token
    ("segformer", lambda output: output.last_hidden_state[0].mean((1, 2))),
]


@pytest.mark.parametrize(("family", "pooled"), IMAGE_NETWORKS)
@torch.inference_mode()
def test_an_image_networks_features_are_its_poolers(families, load, family, pooled) -> None:
    encoder = load(f"hf:xlmr+hf:{family}")
    image = AutoModel.from_pretrained(families[family]).eval()
    processor = AutoImageProcessor.from_pretrained(families[family], backend="pil")
    for pixels, row in zip(
        pictures(), encoder.encode_images(pictures(), False).pooled, strict=True
    ):
        given = processor(images=Image.fromarray(pixels), return_tensors="pt")
        close(row, pooled(image(**given)))


@pytest.mark.parametrize(("family", "most"), [("xlmr", 17), ("gpt2", 16), ("mpnet", 16)])
@torch.inference_mode()
def test_a_text_networks_feature_is_the_mean(families, tmp_path, family: str, most: int) -> None:
    copy = shutil.copytree(families[family], tmp_path / family)
    # Its texts are as long as its positions allow, and no neighbour moves them.
    change_json(copy / "tokenizer_config.json", model_max_length=10**9, padding_side="left")
    encoder = load_encoder(f"hf:{copy}+compact")
    text = AutoModel.from_pretrained(families[family]).eval()
    tokenizer = AutoTokenizer.from_pretrained(families[family])
    for content, row in zip(TEXTS, encoder.encode_texts(TEXTS, False).pooled, strict=True):
        given = tokenizer(content, truncation=True, max_length=most, return_tensors="pt")
        close(row, text(**given).last_hidden_state[0].mean(0))
    assert not encoder.info.shared_space and encoder.info.logit_scale is None


def test_sentence_transformers_features_are_those_of_its_encode(families, load) -> None:
    from sentence_transformers import SentenceTransformer

    text, joint = (
        SentenceTransformer(str(families[x]), device="cpu") for x in ("st-xlmr", "st-clip")
    )
    close(load("st:st-xlmr+compact").encode_texts(TEXTS, False).pooled, text.encode(TEXTS))
    assert np.abs(text.encode(TEXTS) - text.encode(TEXTS, prompt="")).max() > 1e-2  # has a prompt
    encoder = load("st:st-clip")
    close(encoder.encode_texts(TEXTS, False).pooled, joint.encode(TEXTS))
    shown = [Image.fromarray(pixels) for pixels in pictures()]
    close(encoder.encode_images(pictures(), False).pooled, joint.encode(shown))
    assert encoder.info.shared_space and encoder.info.logit_scale == pytest.approx(14.2849, 1e-4)


@pytest.mark.parametrize("family", ["st-llava", "st-blip"])
def test_joint_features_are_those_of_its_encode(families, load, family: str) -> None:
    from sentence_transformers import SentenceTransformer

    encoder, model = load(f"st:{family}"), SentenceTransformer(str(families[family]), device="cpu")
    shown = [Image.fromarray(pixels) for pixels in pictures()]
    pairs = [{"text": x, "image": y} for x, y in zip(TEXTS, shown, strict=False)]
    expected = model.encode(pairs)
    given = [[pixels] for pixels in pictures()]
    close(encoder.encode_joint(TEXTS[:5], given), expected)
    prepared = [[encoder.prepare_image(pixels)] for pixels in pictures()]
    close(encoder.encode_joint(TEXTS[:5], prepared), expected)
    close(encoder.encode_joint(TEXTS[4::-1], given[::-1]), expected[::-1])
    several = encoder.encode_joint(["ab", "z"], [pictures()[1:4], pictures()[:1]])[0]
    if family == "st-llava":  # all in one message
        close(several, model.encode({"text": "ab", "image": shown[1:4]}))
    else:
        close(several, model.encode([{"text": "ab", "image": x} for x in shown[1:4]]).mean(0))
    long = "ab" * 40  # of which a half is read beside a picture, or what the library cuts
    read = long[:40] if family == "st-llava" else long
    found = encoder.encode_joint([long, "ab"], [pictures()[1:2], pictures()[:1]])
    pairs = [{"text": read, "image": shown[1]}, {"text": "ab", "image": shown[0]}]
    close(found, model.encode(pairs))
    info = encoder.info
    assert info.joint_width == expected.shape[1] and not load("st:st-clip").info.joint_width
    assert info.image_key == load(f"st:{family}", cleaning="none").info.image_key
    close(encoder.encode_texts(TEXTS, False).pooled, model.encode([{"text": x} for x in TEXTS]))
    images = encoder.encode_images([x for (x,) in prepared], False)
    close(images.pooled, model.encode(shown))


def test_a_text_that_is_the_path_of_a_picture_stays_a_text(load, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(quarters()))
    encoder = load("st:st-clip")
    close(
        encoder.encode_texts([str(path)], False).pooled,
        encoder.encode_texts([f" {path}".upper()[1:]], False).pooled,
    )


NETWORKS = ["hf:gpt2+hf:dinov2", "hf:aimv2", "st:st-clip", "st:st-xlmr+hf:dinov2"]


@pytest.mark.parametrize("name", [*(f"hf:{x}" for x in DUAL), *NETWORKS])
def test_features_depend_on_nothing_beside_them(load, name: str) -> None:
    encoder, alone = load(name), load(name, batch_size=1)
    prepared = [encoder.prepare_image(pixels) for pixels in pictures()]
    for tokens in {False, encoder.info.has_tokens}:
        texts, reversed_ = (
            encoder.encode_texts(TEXTS, tokens),
            alone.encode_texts(TEXTS[::-1], tokens),
        )
        images = encoder.encode_images(prepared, tokens)
        backwards = alone.encode_images(pictures()[::-1], tokens)
        for one, other in ((texts, reversed_), (images, backwards)):
            close(one.pooled, other.pooled[::-1])
            for a, b in zip(one.tokens or (), (other.tokens or [])[::-1], strict=True):
                close(a, b)
    for empty in (encoder.encode_texts([], True), encoder.encode_images([], True)):
        assert empty.pooled.shape[0] == 0 and empty.pooled.shape[1] > 0 and empty.tokens == []


# --- tokens


@torch.inference_mode()
def test_tokens_of_clip_are_projected_as_the_pooled_are(families, load) -> None:
    encoder = load("hf:clip", patch_grid=2)
    model = AutoModel.from_pretrained(families["clip"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(families["clip"])
    for text, words in zip(TEXTS, encoder.encode_texts(TEXTS, True).tokens, strict=True):
        given = tokenizer(text, truncation=True, return_tensors="pt")
        hidden = model.text_projection(model.text_model(**given).last_hidden_state)[0]
        close(words, hidden[1:-1])
    processor = AutoImageProcessor.from_pretrained(families["clip"], backend="pil")
    for pixels, regions in zip(
        pictures(), encoder.encode_images(pictures(), True).tokens, strict=True
    ):
        given = processor(images=Image.fromarray(pixels), return_tensors="pt")
        hidden = model.vision_model(**given).last_hidden_state[0, 1:]
        patches = model.visual_projection(model.vision_model.post_layernorm(hidden))
        close(regions, patches.reshape(2, 2, 2, 2, 12).mean((1, 3)).reshape(4, 12))


@torch.inference_mode()
def test_tokens_of_naflex_follow_the_pictures_proportions(families, load) -> None:
    encoder = load("hf:naflex", patch_grid=2)
    model = AutoModel.from_pretrained(families["naflex"]).eval()
    processor = AutoImageProcessor.from_pretrained(families["naflex"], backend="pil")
    wide = np.asarray(scene((80, 32)))
    given = processor(images=Image.fromarray(wide), return_tensors="pt")
    h, w = given["spatial_shapes"][0].tolist()
    assert w > h and h * w < given["pixel_values"].shape[1]
    hidden = model.vision_model(**given).last_hidden_state[0, : h * w].reshape(h, w, 16)
    found = encoder.encode_images([wide], True).tokens[0].reshape(2, 2, 16)
    close(found[0, 0], hidden[: (h + 1) // 2, : (w + 1) // 2].mean((0, 1)))
    close(found[1, 1], hidden[h // 2 :, w // 2 :].mean((0, 1)))
    texts = encoder.encode_texts(TEXTS, True)
    ids = AutoTokenizer.from_pretrained(families["naflex"])(TEXTS, truncation=True)["input_ids"]
    assert [len(words) for words in texts.tokens] == [len(row) - 2 for row in ids]


def test_tokens_of_sentence_transformers_average_to_the_pooled(load) -> None:
    encoder = load("st:st-xlmr+hf:dinov2")
    found = encoder.encode_texts(TEXTS, True)
    assert [len(words) for words in found.tokens][1] == len("aaab")  # its prompt is read, too
    assert encoder.info.word_width == 16 and encoder.info.has_tokens


def test_pooled_features_alone_refuse_tokens_before_any_work(load, monkeypatch) -> None:
    encoder = load("st:st-clip")
    assert not encoder.info.has_tokens
    monkeypatch.setattr(encoder, "encode_texts", None)
    with pytest.raises(SgmftError, match="no features of words and picture regions"):
        encode_all([Post("ab")], encoder, tokens=True)


@pytest.mark.parametrize("family", ["flava", "vitmae"])
def test_a_network_without_one_feature_is_refused(families, family: str) -> None:
    why = {"flava": "several vectors, and none of a whole text", "vitmae": "others each time"}
    with pytest.raises(SgmftError, match=why[family]):
        load_encoder(f"compact+hf:{families[family]}")


def test_a_network_whose_texts_must_be_alone_is_not_exported(
    families, clip_posts, tmp_path
) -> None:
    locator = SemanticLocator(f"hf:{families['aimv2']}").fit(clip_posts)
    with pytest.raises(SgmftError, match="cannot be exported"):
        export_model(locator, tmp_path)
    with pytest.raises(SgmftError, match="cannot be fine-tuned"):
        SemanticLocator(f"hf:{families['aimv2']}", tune="lora").fit(clip_posts)


# --- pictures as they are


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_picture_is_decoded_upright_in_its_own_size(orientation: int) -> None:
    found = decode_image(turned(quarters((60, 40)), orientation, "PNG"), "a.png", None)
    upright = Image.open(io.BytesIO(turned(quarters((60, 40)), orientation, "PNG")))
    np.testing.assert_array_equal(found, np.asarray(ImageOps.exif_transpose(upright)))


def test_a_line_of_pixels_is_not_scaled_to_gigabytes(load) -> None:
    line = encoded(Image.new("RGB", (90_000, 1)))
    assert decode_image(line, "line.png", None).shape == (1, LONGEST, 3)
    found = encode_all([Post("", [Attachment(line, "line.png")])], load("hf:clip"))
    assert len(found.posts) == 1


def test_pictures_that_are_prepared_alike_are_encoded_once(load, monkeypatch) -> None:
    encoder, seen = load("hf:naflex"), []
    run = encoder.image_features
    monkeypatch.setattr(
        encoder, "image_features", lambda x, t: seen.append(len(x["pixel_values"])) or run(x, t)
    )
    one, other = (Attachment(encoded(scene(size)), "a.png") for size in ((60, 30), (30, 60)))
    posts = [Post("ab", [one, other]), Post("", [one]), Post("在家", [one])]
    found = encode_all(posts, encoder)
    assert sum(seen) == 2
    np.testing.assert_array_equal(found.features.pooled()[1][1], found.features.pooled()[1][2])


def test_what_its_processor_refuses_is_left_out_with_a_reason(load, monkeypatch) -> None:
    encoder = load("hf:clip")

    def refuse(pixels: Any) -> Any:
        raise ValueError("too odd")

    monkeypatch.setattr(encoder, "prepare_image", refuse)
    post = Post("ab", [Attachment(encoded(quarters()), "a.png")])
    found = encode_all([post], encoder)
    assert "a.png cannot be encoded: too odd" in found.posts[0].warnings[0]


# --- from train to serve

NAMES = ["hf:clip", "st:st-clip", "st:st-xlmr+hf:dinov2"]
OTHERS = ["hf:naflex", "hf:altclip", "hf:xlmr+hf:dinov2", "hf:chinese-clip", "st:st-llava"]


@pytest.mark.parametrize(
    "name", [*NAMES, *(pytest.param(x, marks=pytest.mark.slow) for x in OTHERS)]
)
def test_a_model_is_trained_saved_and_loaded(families, clip_posts, name: str, tmp_path) -> None:
    options = {"settings": {"folds": 2}, "features": tmp_path / "features"}
    locator = SemanticLocator(named(families, name), **options).fit(clip_posts)
    locator.save_pretrained(tmp_path / "model")
    stored = SemanticLocator.from_pretrained(tmp_path / "model", features=tmp_path / "features")
    wanted = locator.predict_proba(clip_posts[:9])
    np.testing.assert_array_equal(stored.predict_proba(clip_posts[:9]), wanted)
    again = SemanticLocator.from_pretrained(tmp_path / "model")  # which encodes anew
    np.testing.assert_allclose(again.predict_proba(clip_posts[:9]), wanted, atol=1e-6)
    explanation = again.explain(clip_posts[3])
    assert explanation.predicted == again.predict(clip_posts[3:4])[0]
    assert (again.network.together is not None) is (name == "st:st-llava")
    assert len(explanation.pictures[0].contributions) == 16


def test_a_tokens_model_is_trained_and_explained(families, clip_posts, tmp_path) -> None:
    settings = {"epochs": 1, "width": 8, "heads": 2, "classifier_widths": (8,)}
    locator = SemanticLocator(named(families, "hf:siglip"), preset="tokens", settings=settings)
    locator.fit(clip_posts)
    locator.save_pretrained(tmp_path)
    again = SemanticLocator.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again.predict(clip_posts), locator.predict(clip_posts))
    assert again.explain(clip_posts[1]).similarity is not None
