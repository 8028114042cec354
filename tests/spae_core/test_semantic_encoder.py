"""The open_clip adapter against open_clip's own preprocessing and zero-shot weights, on a one-layer CLIP."""

import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from spae_core.errors import ModelError
from spae_core.semantic_encoder import OpenClipSemanticEncoder, SemanticEncoder

TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module", autouse=True)
def tiny_clip_config(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "tiny-clip-for-tests.json"
    path.write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(path)


def tiny_encoder(**options) -> OpenClipSemanticEncoder:
    torch.manual_seed(0)
    return OpenClipSemanticEncoder.create("tiny-clip-for-tests", None, **options)


def test_the_adapter_is_a_semantic_encoder_that_says_which_model_it_is():
    encoder = tiny_encoder()
    assert isinstance(encoder, SemanticEncoder)
    assert encoder.name == "open_clip:tiny-clip-for-tests:random"
    assert encoder.feature_dim == 24


def test_all_vectors_have_norm_1_and_no_gradient():
    encoder = tiny_encoder()
    images = torch.rand(2, 3, 40, 50, requires_grad=True)
    for vectors in (
        encoder.encode_images(images),
        encoder.encode_texts(["a", "b"]),
        encoder.encode_words(["cat"]),
    ):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
        assert vectors.dtype == torch.float32
        assert not vectors.requires_grad


def test_word_vectors_are_the_zero_shot_weights_of_open_clip():
    encoder = tiny_encoder()
    words = ["cat", "dog", "jar"]
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-clip-for-tests", pretrained=None).eval()
    expected = open_clip.build_zero_shot_classifier(
        model,
        open_clip.get_tokenizer("tiny-clip-for-tests"),
        words,
        open_clip.zero_shot_metadata.OPENAI_IMAGENET_TEMPLATES,
    ).T
    torch.testing.assert_close(encoder.encode_words(words), expected, atol=1e-5, rtol=0.0)


def test_word_vectors_do_not_depend_on_the_batch_size():
    words = ["cat", "dog", "jar"]
    small = tiny_encoder(text_batch_size=7).encode_words(words)
    torch.testing.assert_close(small, tiny_encoder(text_batch_size=256).encode_words(words), atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("size", [(64, 64), (90, 48)])
def test_pixels_are_prepared_as_by_open_clip(size):
    columns, rows = np.meshgrid(np.linspace(0, 6, size[0]), np.linspace(0, 5, size[1]))
    waves = np.stack([np.sin(columns), np.cos(rows), np.sin(columns + rows)], axis=-1)
    pixels = np.round(127.5 + 127.5 * waves).astype(np.uint8)
    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms("tiny-clip-for-tests", pretrained=None)
    with torch.no_grad():
        expected = model.eval().encode_image(preprocess(Image.fromarray(pixels)).unsqueeze(0), normalize=True)
    images = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0) / 255
    assert torch.cosine_similarity(tiny_encoder().encode_images(images), expected).item() > 0.9999


def test_a_local_checkpoint_is_loaded_by_its_path(tmp_path):
    torch.manual_seed(3)
    model = open_clip.create_model("tiny-clip-for-tests", pretrained=None).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    encoder = OpenClipSemanticEncoder.create("tiny-clip-for-tests", tmp_path / "weights.pt")
    assert encoder.name == "open_clip:tiny-clip-for-tests:weights.pt"
    with torch.no_grad():
        tokens = open_clip.get_tokenizer("tiny-clip-for-tests")(["a cat"])
        expected = model.encode_text(tokens, normalize=True)
    torch.testing.assert_close(encoder.encode_texts(["a cat"]), expected)


def test_unknown_models_tags_and_empty_inputs_are_refused():
    with pytest.raises(ModelError, match=r"expected a name from open_clip.list_models\(\), got 'ViT-Z'"):
        OpenClipSemanticEncoder.create("ViT-Z", None)
    with pytest.raises(ModelError, match="got 'no-such-tag'"):
        OpenClipSemanticEncoder.create("ViT-L-14", "no-such-tag")
    encoder = tiny_encoder()
    with pytest.raises(ValueError, match="expected at least one, got none"):
        encoder.encode_words([])
    with pytest.raises(ValueError, match=r"expected \(B, 3, H, W\), got \(3, 8, 8\)"):
        encoder.encode_images(torch.zeros(3, 8, 8))
