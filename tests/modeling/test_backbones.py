"""Networks of timm as backbones: the same features as timm's own, frozen where asked, from an ImageNet classifier."""

import pytest
import timm
import torch

from fracture_det.modeling.backbones import FrozenNormConv2d, TimmBackbone, register_backbones, timm_weights

STAGES = ("res3", "res4", "res5")


def classifier(name="tf_efficientnet_lite0"):
    """A classifier whose batch statistics a forgotten or exchanged tensor would betray."""
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.0)
            module.bias.data.uniform_(-0.1, 0.1)
    return model


def backbone_of(model, name="tf_efficientnet_lite0", **options):
    backbone = TimmBackbone(name, STAGES, **options).eval()
    backbone.load_state_dict(timm_weights(dict(reversed(model.state_dict().items())), backbone))
    return backbone


def features_of(model, name="tf_efficientnet_lite0"):
    features = timm.create_model(name, features_only=True, out_indices=(2, 3, 4)).eval()
    features.load_state_dict(model.state_dict(), strict=False)
    return features


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18"])
@pytest.mark.parametrize("size", [(64, 96), (70, 101)])
def test_it_computes_what_timms_own_network_computes(name, size):
    model = classifier(name)
    image = torch.rand(2, 3, *size)
    with torch.no_grad():
        found, expected = backbone_of(model, name)(image), features_of(model, name)(image)
    for (stage, features), own in zip(found.items(), expected, strict=True):
        torch.testing.assert_close(
            features, own, rtol=1e-3, atol=1e-4, msg=lambda text, stage=stage: f"{stage}: {text}"
        )


def test_it_says_the_channels_and_strides_of_its_maps():
    backbone = TimmBackbone("tf_efficientnet_lite0", STAGES)
    image = torch.zeros(1, 3, 128, 64)
    for stage, features in backbone(image).items():
        shape = backbone.output_shape()[stage]
        assert features.shape == (1, shape.channels, 128 // shape.stride, 64 // shape.stride)
    assert [shape.stride for shape in backbone.output_shape().values()] == [8, 16, 32]


def test_gradients_are_those_of_a_convolution_and_a_frozen_norm():
    # bfloat16 has another way for depthwise convolutions with stride, so both of its precisions are compared.
    model = classifier()
    backbone, features = backbone_of(model).train(), features_of(model)
    image = torch.rand(1, 3, 64, 64)
    for network, last in ((backbone, "res5"), (features, 2)):
        network(image)[last].square().mean().backward()
    own = [p.grad for p in features.parameters() if p.grad is not None and p.ndim == 4]
    found = [p.grad for p in backbone.parameters() if p.grad is not None]
    assert len(found) == len(own) > 40
    for mine, theirs in zip(found, own, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


def test_bfloat16_gives_the_same_gradients_but_for_its_precision():
    backbone = backbone_of(classifier()).train()
    image = torch.rand(1, 3, 64, 64)
    gradients = []
    for enabled in (False, True):
        backbone.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            backbone(image)["res5"].float().square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in backbone.parameters() if p.grad is not None]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.98


@pytest.mark.parametrize(("freeze_at", "last"), [(0, None), (1, "blocks.0."), (2, "blocks.1."), (3, "blocks.2.")])
def test_freezing_goes_up_to_a_stride(freeze_at, last):
    backbone = TimmBackbone("tf_efficientnet_lite0", STAGES, freeze_at=freeze_at)
    frozen = [name for name, p in backbone.network.named_parameters() if not p.requires_grad]
    trained = [name for name, p in backbone.network.named_parameters() if p.requires_grad]
    assert bool(frozen) == bool(freeze_at)
    if last:
        assert "conv_stem.weight" in frozen
        assert frozen[-1].startswith(last)
        assert int(trained[0].split(".")[1]) == int(last.split(".")[1]) + 1


def test_depthwise_kernels_can_be_left_alone():
    backbone = TimmBackbone("tf_efficientnet_lite0", STAGES, freeze_depthwise=True)
    convs = [module for module in backbone.modules() if isinstance(module, FrozenNormConv2d)]
    assert {module.weight.requires_grad for module in convs if module.groups > 1} == {False}
    assert {module.weight.requires_grad for module in convs if module.groups == 1} == {True}


def test_weights_of_another_network_are_refused():
    backbone = TimmBackbone("tf_efficientnet_lite0", STAGES)
    with pytest.raises(ValueError, match=r"the file has .* instead"):
        timm_weights(timm.create_model("tf_efficientnet_lite2").state_dict(), backbone)


@pytest.mark.parametrize("name", ["test_convnext", "darknet53"])
def test_maps_are_found_by_their_stride_wherever_a_network_begins_to_count(name):
    shapes = TimmBackbone(name, STAGES).output_shape()
    assert {stage: shape.stride for stage, shape in shapes.items()} == {"res3": 8, "res4": 16, "res5": 32}


@pytest.mark.parametrize("name", ["darknet53", "tf_efficientnet_b3"])
def test_the_weights_of_the_papers_backbones_fit(name):
    state = timm.create_model(name).state_dict()
    backbone = TimmBackbone(name, STAGES)
    backbone.load_state_dict(timm_weights(state, backbone))


def test_group_norm_takes_the_place_of_the_statistics_and_learns():
    backbone = TimmBackbone("tf_efficientnet_lite0", STAGES, norm="GN")
    assert not [module for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d | FrozenNormConv2d)]
    norms = [module for module in backbone.modules() if isinstance(module, torch.nn.GroupNorm)]
    assert len(norms) == len([m for m in backbone.modules() if isinstance(m, torch.nn.Conv2d)])
    assert all(norm.weight.requires_grad for norm in norms)
    activations = [module for module in backbone.modules() if isinstance(module, torch.nn.ReLU6)]
    expected = [m for m in timm.create_model("tf_efficientnet_lite0").modules() if isinstance(m, torch.nn.ReLU6)]
    assert len(activations) == len(expected) - 1  # the head's is not there
    assert all(features.isfinite().all() for features in backbone(torch.rand(1, 3, 64, 64)).values())


def test_a_network_with_maps_of_other_strides_is_refused():
    with pytest.raises(ValueError, match=r"MODEL\.TIMM\.NAME .*: its maps have strides \[16, 16, 16\], unlike res2"):
        TimmBackbone("test_vit", ("res2", "res3", "res4"))


def test_registering_twice_changes_nothing():
    register_backbones()
    register_backbones()
