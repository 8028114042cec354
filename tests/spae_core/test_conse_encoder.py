"""ConSE by hand on three classes, the classifier against timm, and both on real weights and photographs."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from public_assets import fetched
from safetensors.torch import load_file
from torch import Tensor

from spae_core.conse_encoder import ConseImageEncoder, ConseSemanticEncoder
from spae_core.efficientnet_lite import EfficientNetLite0, classifier_state, lite_pytorch_key_map
from spae_core.errors import ModelError
from spae_core.imagenet_classes import imagenet_class_names, imagenet_class_texts
from spae_core.semantic_encoder import SemanticEncoder


class LetterCounts:
    """A text encoder that can be checked by eye: how often a, b and c occur."""

    feature_dim = 3

    def encode_texts(self, texts):
        counts = torch.tensor([[float(text.count(letter)) for letter in "abc"] for text in texts])
        return torch.nn.functional.normalize(counts, dim=1)


def randomised(model: torch.nn.Module) -> dict[str, Tensor]:
    """A state with uneven batch-norm statistics, so that a swapped norm shows."""
    generator = torch.Generator().manual_seed(0)
    state = model.state_dict()
    for name, tensor in state.items():
        if name.endswith(("running_var", "bn1.weight", "bn2.weight", "bn3.weight")):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        elif name.endswith(("running_mean", "bias")):
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
    return state


def test_the_vector_is_the_normalised_mixture_of_the_most_likely_classes():
    encoder = ConseImageEncoder(text_dim=2, num_classes=3, num_top_classes=2)
    encoder.class_text_vectors.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    # The third class is the least likely and does not count: (.6, .3) of length .67.
    vector = encoder.mix_class_texts(torch.tensor([[0.6, 0.3, 0.1]]))
    torch.testing.assert_close(vector, torch.tensor([[0.6, 0.3]]) / (0.6**2 + 0.3**2) ** 0.5)


def test_regions_are_classified_by_their_own_features_and_blended_with_the_whole():
    encoder = ConseImageEncoder(text_dim=2, num_classes=5)
    encoder.classifier.load_state_dict(randomised(encoder.classifier))
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    features = encoder.classifier.features((images * 255 - 127) / 128)  # of 224×224: no resizing in between
    head = encoder.classifier.classifier
    whole = head(features.mean(dim=(2, 3))).softmax(dim=1)
    # A 7×7 grid has one feature vector a region, in raster order.
    for row, column in ((0, 0), (2, 5), (6, 6)):
        region = head(features[:, :, row, column]).softmax(dim=1)
        got = encoder.local_probabilities(images, [(1, 1), (7, 7)], local_weight=0.25)
        assert got.shape == (2, 50, 5)
        torch.testing.assert_close(got[:, 1 + 7 * row + column], 0.75 * whole + 0.25 * region)
        assert not torch.allclose(region, whole, atol=1e-4)
    torch.testing.assert_close(got[:, 0], encoder.class_probabilities(images))
    alike = encoder.local_probabilities(images, [(2, 2)], local_weight=0.0)
    torch.testing.assert_close(alike, whole[:, None].expand(2, 4, 5))


def test_the_classifier_is_timms_with_equal_weights():
    import timm

    reference = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    ours = EfficientNetLite0().eval()
    state = randomised(ours)
    reference.load_state_dict(state)
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = reference(pixels)
        assert expected.std() > 1e-3
        torch.testing.assert_close(ours(pixels), expected, rtol=1e-4, atol=1e-5)


def test_the_key_mapping_names_each_tensor_of_both_sides_once():
    mapping = lite_pytorch_key_map()
    assert set(mapping) == set(EfficientNetLite0().state_dict())
    assert len(set(mapping.values())) == len(mapping)


def test_a_mapped_state_dict_has_every_tensor_in_its_place():
    state = EfficientNetLite0().state_dict()
    foreign = {theirs: state[ours] for ours, theirs in lite_pytorch_key_map().items()}
    mapped = classifier_state(foreign)
    assert all(mapped[name] is tensor for name, tensor in state.items())
    assert classifier_state(state).keys() == state.keys()


def test_a_state_dict_with_a_tensor_too_many_or_too_few_is_refused():
    state = EfficientNetLite0(num_classes=2).state_dict()
    foreign = {theirs: state[ours] for ours, theirs in lite_pytorch_key_map().items()}
    missing = {key: tensor for key, tensor in foreign.items() if key != "_fc.bias"}
    with pytest.raises(ModelError, match=r"1 missing \['_fc.bias'\] and 0 unknown"):
        classifier_state(missing)
    with pytest.raises(ModelError, match=r"0 missing \[\] and 1 unknown \['extra'\]"):
        classifier_state({**foreign, "extra": torch.zeros(1)})


def test_the_image_encoder_travels_in_float16_and_stays_frozen():
    encoder = ConseImageEncoder(text_dim=4, num_classes=5)
    encoder.load_state_dict(randomised(encoder))
    encoder.class_text_vectors.copy_(torch.nn.functional.normalize(torch.randn(5, 4), dim=1))
    half = {k: v.half() if v.is_floating_point() else v for k, v in encoder.state_dict().items()}
    loaded = ConseImageEncoder(text_dim=4, num_classes=5)
    loaded.load_state_dict(half)
    torch.nn.Sequential(loaded).train()
    assert not any(module.training for module in loaded.modules())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert next(loaded.parameters()).dtype == torch.float32
    images = torch.rand(2, 3, 40, 30)
    vectors = loaded(images)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    assert torch.cosine_similarity(vectors, encoder(images)).min() > 0.999
    torch.testing.assert_close(encoder.class_probabilities(images).sum(dim=1), torch.ones(2))


def test_conse_is_a_semantic_encoder_under_its_own_name():
    encoder = ConseSemanticEncoder(ConseImageEncoder(text_dim=3, num_classes=4), LetterCounts())
    assert isinstance(encoder, SemanticEncoder)
    assert encoder.name == "conse"
    assert encoder.feature_dim == 3
    assert encoder.encode_words(["b"]).tolist() == [[0.0, 1.0, 0.0]]


def test_halves_of_different_width_and_flat_images_are_refused():
    with pytest.raises(ModelError, match="expected a text encoder of width 5, got 3"):
        ConseSemanticEncoder(ConseImageEncoder(text_dim=5, num_classes=4), LetterCounts())
    with pytest.raises(ValueError, match=r"expected \(B, 3, H, W\), got \(3, 8, 8\)"):
        ConseImageEncoder(text_dim=3, num_classes=4)(torch.zeros(3, 8, 8))


def test_class_texts_are_a_lemma_and_its_definition_in_class_order():
    names, texts = imagenet_class_names(), imagenet_class_texts()
    assert len(names) == len(texts) == 1000
    assert (names[0], names[281], names[999]) == ("tench", "tabby", "toilet tissue")
    assert texts[281] == "tabby: a cat with a grey or tawny coat mottled with black"
    assert len(set(texts)) == 1000


def test_missing_files_are_refused_with_the_asset_to_fetch(tmp_path):
    with pytest.raises(ModelError, match="Fetch the asset `minilm`"):
        ConseSemanticEncoder.from_files(tmp_path / "absent.safetensors", tmp_path)


@pytest.mark.assets
def test_the_published_classifier_names_at_least_16_of_20_photographs():
    weights = load_file(fetched("efficientnet-lite0") / "efficientnet_lite0.safetensors")
    assert set(weights) == set(lite_pytorch_key_map().values())
    encoder = ConseImageEncoder()
    encoder.classifier.load_state_dict(classifier_state(weights))
    photos = sorted((fetched("foolbox-photos") / "images" / "imagenet").iterdir())
    labels = [int(re.findall(r"_(\d+)\.", photo.name)[0]) for photo in photos]
    predicted = []
    for photo in photos:
        pixels = torch.from_numpy(np.array(Image.open(photo).convert("RGB"))).permute(2, 0, 1).unsqueeze(0) / 255
        predicted.append(int(encoder.class_probabilities(pixels).argmax()))
    assert len(photos) == 20
    assert sum(p == label for p, label in zip(predicted, labels, strict=True)) >= 16


@pytest.mark.assets
@pytest.mark.slow
def test_the_real_encoder_finds_the_word_for_a_photograph_of_a_dalmatian():
    encoder = ConseSemanticEncoder.from_files(
        fetched("efficientnet-lite0") / "efficientnet_lite0.safetensors", fetched("minilm")
    )
    texts = encoder.encode_words(["cat", "kitten", "airplane"])
    assert texts[0] @ texts[1] > 0.7 > 0.5 > texts[0] @ texts[2]
    assert torch.equal(encoder.encode_texts(["cat", "kitten", "airplane"]), texts)
    photo = next((fetched("foolbox-photos") / "images" / "imagenet").glob("*_251.*"))
    pixels = torch.from_numpy(np.array(Image.open(photo).convert("RGB"))).permute(2, 0, 1).unsqueeze(0) / 255
    words = ["airplane", "puppy", "bottle", "shoe", "cannon"]
    scores = encoder.encode_images(pixels) @ encoder.encode_words(words).T
    assert words[int(scores.argmax())] == "puppy"
