"""LPIPS against torchmetrics with equal weights, and its behaviour as a loss."""

import pytest
import torch
from public_assets import fetched
from safetensors.torch import save_file
from torch import Tensor

from spae_core.errors import ModelError
from spae_core.perceptual import Lpips, LpipsNet

NETS: tuple[LpipsNet, ...] = ("vgg", "alex")


def random_lpips(net: LpipsNet) -> Lpips:
    torch.manual_seed(0)
    module = Lpips(net)
    for tap in range(5):  # heads of uneven, positive weights, as the published ones are
        torch.nn.init.uniform_(module.get_submodule(f"lin{tap}").weight)
    return module


def pair(size: int = 64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(3, 3, size, size, generator=generator), torch.rand(3, 3, size, size, generator=generator)


@pytest.mark.parametrize("net", NETS)
def test_distances_are_those_of_torchmetrics_with_equal_weights(net):
    from torchmetrics.functional.image.lpips import _LPIPS

    ours = random_lpips(net)
    reference = _LPIPS(pretrained=False, net=net, pnet_rand=True).eval()
    slices = [reference.net.get_submodule(f"slice{n}") for n in range(1, 6)]
    for layers in slices:
        for name, layer in layers.named_children():
            if isinstance(layer, torch.nn.Conv2d):
                layer.load_state_dict(ours.features.get_submodule(name).state_dict())
    for tap in range(5):
        reference.get_submodule(f"lin{tap}").model[-1].load_state_dict(ours.get_submodule(f"lin{tap}").state_dict())
    images, targets = pair()
    expected = reference(images, targets, normalize=True).flatten()
    torch.testing.assert_close(ours(images, targets), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("net", NETS)
def test_equal_images_have_distance_0_and_the_order_does_not_matter(net):
    lpips = random_lpips(net)
    images, targets = pair()
    assert torch.equal(lpips(images, images), torch.zeros(3))
    assert lpips(images, targets).min() > 0
    torch.testing.assert_close(lpips(images, targets), lpips(targets, images))


def test_gradients_reach_the_image_and_no_weight():
    lpips = random_lpips("alex")
    images, targets = pair()
    images.requires_grad_()
    lpips(images, targets).sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()
    assert images.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in lpips.parameters())


def test_black_images_give_finite_gradients():
    lpips = random_lpips("alex")
    images = torch.zeros(1, 3, 64, 64, requires_grad=True)
    lpips(images, torch.zeros(1, 3, 64, 64)).sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()


def test_the_module_stays_in_evaluation_mode_inside_a_training_parent():
    parent = torch.nn.Sequential(random_lpips("alex"))
    parent.train()
    assert not any(module.training for module in parent[0].modules())


def test_autocast_changes_the_trunk_only_and_the_result_is_float32():
    lpips = random_lpips("alex")
    images, targets = pair()
    exact = lpips(images, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = lpips(images, targets)
    assert mixed.dtype == torch.float32
    assert not torch.equal(mixed, exact)
    torch.testing.assert_close(mixed, exact, rtol=0.03, atol=1e-4)


def test_a_weights_file_comes_back_bit_for_bit(tmp_path):
    lpips = random_lpips("alex")
    save_file(lpips.state_dict(), tmp_path / "alex.safetensors")
    images, targets = pair()
    loaded = Lpips.from_file(tmp_path / "alex.safetensors", net="alex")
    assert torch.equal(loaded(images, targets), lpips(images, targets))


def test_a_weights_file_of_another_network_or_none_is_refused(tmp_path):
    save_file(random_lpips("alex").state_dict(), tmp_path / "alex.safetensors")
    with pytest.raises(ModelError, match="expected the vgg trunk"):
        Lpips.from_file(tmp_path / "alex.safetensors", net="vgg")
    with pytest.raises(ModelError, match=r"got none\. Fetch the asset `lpips`"):
        Lpips.from_file(tmp_path / "absent.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not a weights file")
    with pytest.raises(ModelError, match="expected the alex trunk"):
        Lpips.from_file(tmp_path / "broken.safetensors", net="alex")


@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        (torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 32, 32), "two tensors of one shape"),
        (torch.zeros(1, 1, 64, 64), torch.zeros(1, 1, 64, 64), "two tensors of one shape"),
        (torch.zeros(1, 3, 64, 30), torch.zeros(1, 3, 64, 30), "at least 31 px a side for alex, got 64×30"),
    ],
)
def test_images_that_cannot_be_compared_are_refused(images, targets, message):
    with pytest.raises(ValueError, match=message):
        random_lpips("alex")(images, targets)


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match="expected one of \\['alex', 'vgg'\\], got 'squeeze'"):
        Lpips("squeeze")  # type: ignore[arg-type]


@pytest.mark.assets
@pytest.mark.parametrize("net", NETS)
def test_the_published_weights_rank_a_blur_above_a_shift_in_brightness(net):
    lpips = Lpips.from_file(fetched("lpips") / f"lpips_{net}.safetensors", net=net)
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(1, 3, 64, 64, generator=generator)
    brighter = picture * 0.98 + 0.02
    blurred = torch.nn.functional.avg_pool2d(picture, 3, stride=1, padding=1, count_include_pad=False)
    assert lpips(picture, brighter).item() < 0.05 < lpips(picture, blurred).item()
