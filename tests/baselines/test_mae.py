"""MAE against the official code's numbers and its formula: masks, order of patches, targets, positions, refusals."""

import pytest
import torch
from golden_numbers import assert_gradients, assert_same, begin, golden
from torch import Tensor, nn

from baselines.mae import MAE, Decoder, patches, sincos_positions
from scd.errors import UsageError
from scd.method import Batch, whole_view
from scd.nn.backbone import build_backbone
from scd.nn.vit import vit

P, SIDE = 4, 16  # pixels of a patch and of a view: 4 x 4 patches


def mae(backbone: dict | None = None, **options) -> MAE:
    torch.manual_seed(0)
    size = {"img_size": SIDE, "patch_size": P, "embed_dim": 16, "depth": 2, "num_heads": 2, **(backbone or {})}
    decoder = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
    return MAE(vit("vit_tiny_patch16_224", **size), **{**decoder, **options}).train()


def random_images(rows: int = 3, side: int = SIDE) -> Tensor:
    return torch.randn(rows, 3, side, side, generator=torch.Generator().manual_seed(0))


def coordinates(height: int, width: int) -> Tensor:
    """One image whose red channel is the column of each pixel, whose green channel is its row."""
    x, y = torch.arange(width).float(), torch.arange(height).float()
    return torch.stack([x.expand(height, -1), y[:, None].expand(-1, width), torch.zeros(height, width)])[None]


def batch(images: Tensor) -> Batch:
    return Batch({"v1": whole_view(images, "v1")})


def loss_of(method: MAE, images: Tensor, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return method(batch(images))["loss"]


def masked_patches(method: MAE, rows: int = 3, number: int = 16, seed: int = 0) -> Tensor:
    """(B, N) bool, True where the loss of this seed masks."""
    torch.manual_seed(seed)
    order, count = method.draw_order(rows, number)
    return torch.ones(rows, number, dtype=torch.bool).scatter(1, order[:, :count], False)


def predictions_of(method: MAE, images: Tensor) -> tuple[Tensor, Tensor]:
    """Loss, and the decoder's output (B, N, 3·p·p) with its gradient kept."""
    kept = []

    def keep(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    handle = method.decoder.register_forward_hook(keep)
    loss = loss_of(method, images)
    handle.remove()
    return loss, kept[0]


# ---------------------------------------------------------------- the official code


@pytest.fixture
def numbers() -> dict[str, Tensor]:
    """Inputs, weights, loss and gradients of the official code."""
    return golden("mae")


@pytest.fixture
def official(numbers, monkeypatch) -> MAE:
    """Our method with the official weights and noise."""
    method = mae({"embed_dim": 8}).double()
    begin(method, numbers)
    monkeypatch.setattr(torch, "rand", lambda *shape, device: numbers["noise"].view(*shape))
    return method


def test_loss_and_gradients_are_the_official_ones(official, numbers):
    loss = official(batch(numbers["v1"]))["loss"]
    loss.backward()
    assert_same(loss, numbers["loss"], "loss", precision=1e-6)  # both sides' positions are rounded to float32
    assert_gradients(official, numbers, precision=1e-6)


def test_loss_on_plain_pixels_is_the_official_one(official, numbers):
    official.norm_pix_loss = False
    loss = official(batch(numbers["v1"]))["loss"]
    assert_same(loss, numbers["loss_without_normalisation"], "loss", precision=1e-6)


def test_masks_and_positions_are_the_official_ones(official, numbers):
    assert torch.equal(masked_patches(official), numbers["mask"].bool())
    torch.testing.assert_close(official.backbone.model.pos_embed, numbers["positions"], rtol=0, atol=1e-6)


# ---------------------------------------------------------------- the formula


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_loss_is_the_mean_squared_error_of_the_masked_patches(norm_pix_loss):
    method, images = mae(norm_pix_loss=norm_pix_loss), random_images()
    loss, prediction = predictions_of(method, images)
    errors = []
    for image, values, masked in zip(images, prediction, masked_patches(method), strict=True):
        for n in masked.nonzero()[:, 0].tolist():
            row, column = divmod(n, SIDE // P)
            target = image[:, row * P : (row + 1) * P, column * P : (column + 1) * P]
            if norm_pix_loss:
                target = (target - target.mean()) / (target.var() + 1e-6) ** 0.5
            errors.append((values[n].view(P, P, 3).permute(2, 0, 1) - target).square().mean())
    assert len(errors) == 3 * 12
    torch.testing.assert_close(loss, torch.stack(errors).mean())


def test_only_masked_patches_have_a_loss():
    method = mae()
    loss, prediction = predictions_of(method, random_images())
    loss.backward()
    has_gradient = prediction.grad.abs().sum(dim=2) > 0
    assert torch.equal(has_gradient, masked_patches(method))


def test_the_encoder_never_sees_a_masked_pixel():
    method, images = mae(), random_images()
    masked = masked_patches(method).view(3, 1, SIDE // P, SIDE // P)
    pixels = masked.repeat_interleave(P, dim=2).repeat_interleave(P, dim=3)
    other = torch.where(pixels, images + torch.randn(images.shape), images)
    loss, prediction = predictions_of(method, images)
    other_loss, other_prediction = predictions_of(method, other)
    assert torch.equal(prediction, other_prediction) and loss != other_loss
    visible_changed = torch.where(pixels, images, images + 1)
    assert not torch.equal(prediction, predictions_of(method, visible_changed)[1])


def test_predicting_0_costs_the_variance_of_standardised_patches():
    method = mae()
    nn.init.zeros_(method.decoder.predict.weight)
    n = 3 * P * P  # the target's variance is divided by n - 1, the error by n
    assert loss_of(method, random_images()).item() == pytest.approx(1 - 1 / n, rel=1e-4)


def test_brightness_and_contrast_of_a_patch_do_not_change_its_target():
    method, images = mae(), random_images()
    masked = masked_patches(method).view(3, 1, SIDE // P, SIDE // P)
    pixels = masked.repeat_interleave(P, dim=2).repeat_interleave(P, dim=3)
    changed = torch.where(pixels, images * 3 + 2, images)
    torch.testing.assert_close(loss_of(method, changed), loss_of(method, images))


# ---------------------------------------------------------------- masks


@pytest.mark.parametrize(("ratio", "number", "visible"), [(0.75, 16, 4), (0.5, 16, 8), (0.75, 49, 12), (0.75, 196, 49)])
def test_the_number_of_visible_patches_is_exact_in_every_image(ratio, number, visible):
    method = mae(mask_ratio=ratio)
    order, count = method.draw_order(5, number)
    assert count == visible
    assert torch.equal(order.sort(dim=1).values, torch.arange(number).expand(5, -1))
    assert masked_patches(method, 5, number).sum(dim=1).tolist() == [number - visible] * 5


def test_the_encoder_takes_the_visible_patches_and_the_class_token_only():
    method, lengths = mae(), []
    method.backbone.model.blocks[0].register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    method.decoder.blocks[0].register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    loss_of(method, random_images())
    assert lengths == [1 + 4, 1 + 16]


def test_masks_come_from_the_global_generator_and_differ_between_images_and_steps():
    method, images = mae(), random_images()
    assert torch.equal(loss_of(method, images, seed=1), loss_of(method, images, seed=1))
    one = masked_patches(method, 64, seed=1)
    assert not torch.equal(one, masked_patches(method, 64, seed=2))
    assert len({tuple(row) for row in one.tolist()}) > 32
    assert one.float().mean(dim=0).std() < 0.15  # no place is preferred


# ---------------------------------------------------------------- order and positions


def test_patches_run_by_row_and_column_and_hold_row_column_channel():
    image = coordinates(8, 12)
    cut = patches(image, P)
    assert cut.shape == (1, 2 * 3, P * P * 3)
    for n, (row, column) in enumerate((r, c) for r in range(2) for c in range(3)):
        pixels = cut[0, n].view(P, P, 3)
        assert torch.equal(pixels[..., 0], (column * P + torch.arange(P).float()).expand(P, -1))
        assert torch.equal(pixels[..., 1], (row * P + torch.arange(P).float())[:, None].expand(-1, P))


def test_patches_are_in_the_order_of_the_backbones_tokens():
    method, images = mae(), random_images()
    embed = method.backbone.model.patch_embed
    weight = embed.proj.weight.permute(0, 2, 3, 1).flatten(1)  # (C, p·p·3)
    expected = nn.functional.linear(patches(images, P), weight, embed.proj.bias)
    torch.testing.assert_close(embed(images).flatten(1, 2), expected, rtol=1e-4, atol=1e-5)


def test_all_patches_in_any_order_give_the_tokens_of_the_plain_vit():
    method, images = mae().eval(), random_images()
    order = torch.rand(3, 16, generator=torch.Generator().manual_seed(3)).argsort(dim=1)
    tokens = method.encode(images, visible=order)
    plain = method.backbone.model.forward_features(images)
    plain = torch.cat([plain[:, :1], plain[:, 1:].take_along_dim(order[:, :, None], dim=1)], dim=1)
    torch.testing.assert_close(tokens, plain, rtol=1e-4, atol=1e-5)


def test_the_decoder_puts_every_visible_patch_back_in_its_place():
    """A decoder of identities, on tokens that say where their patch lies, returns these places."""
    h, w, width = 2, 3, 4
    decoder = Decoder(width, 1, width, depth=1, heads=1, values=width)
    decoder.embed = decoder.blocks = decoder.norm = decoder.predict = nn.Identity()
    places = torch.stack([torch.arange(w).expand(h, -1), torch.arange(h)[:, None].expand(-1, w)], dim=2).flatten(0, 1)
    tokens = torch.cat([places + 1.0, places + 1.0], dim=1)[None].expand(5, -1, -1)  # (B, N, 4): column, row, twice
    order = torch.rand(5, h * w, generator=torch.Generator().manual_seed(0)).argsort(dim=1)
    visible = tokens.take_along_dim(order[:, :2, None], dim=1)
    class_token = torch.full((5, 1, width), 9.0)
    out = decoder(torch.cat([class_token, visible], dim=1), order.argsort(dim=1), (h, w))
    out = out - sincos_positions(h, w, width)
    is_visible = torch.zeros(5, h * w, dtype=torch.bool).scatter(1, order[:, :2], True)
    torch.testing.assert_close(out[is_visible], tokens[is_visible])
    torch.testing.assert_close(out[~is_visible], decoder.mask_token[0].expand(5 * 4, -1))


def test_positions_are_sines_and_cosines_of_column_and_row():
    table = sincos_positions(3, 5, 8)
    assert table.shape == (15, 8)
    column, row = 4, 2
    frequencies = torch.tensor([1.0, 1 / 100])  # 10000^(-i / 2), i = 0, 1
    x, y = column * frequencies, row * frequencies
    expected = torch.cat([x.sin(), x.cos(), y.sin(), y.cos()])
    torch.testing.assert_close(table[row * 5 + column], expected)


def test_products_of_positions_depend_on_the_distance_alone():
    table = sincos_positions(4, 4, 16).unflatten(0, (4, 4))
    one = (table[0, 0] * table[1, 2]).sum()
    torch.testing.assert_close((table[2, 1] * table[3, 3]).sum(), one)


def test_the_encoders_positions_are_fixed_and_the_class_token_has_none():
    method = mae()
    positions = method.backbone.model.pos_embed
    assert not positions.requires_grad and (positions[:, 0] == 0).all()
    torch.testing.assert_close(positions[0, 1:], sincos_positions(4, 4, 16))


# ---------------------------------------------------------------- training and other backbones


def test_gradients_reach_every_trainable_parameter():
    method = mae()
    loss_of(method, random_images()).backward()
    missing = [n for n, p in method.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert missing == []


def test_the_loss_falls_on_a_fixed_batch():
    method, images = mae(), random_images(8)
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=3e-3, betas=(0.9, 0.95))
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = loss_of(method, images)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    ("backbone", "prefix"),
    [({"reg_tokens": 2}, 3), ({"class_token": False, "global_pool": "avg", "vector": "mean"}, 0)],
)
def test_takes_vits_with_registers_or_without_a_class_token(backbone, prefix):
    method = mae(backbone)
    assert method.backbone.prefix == prefix
    assert method.encode(random_images(), torch.tensor([[0, 5]] * 3)).shape == (3, prefix + 2, 16)
    assert loss_of(method, random_images()).isfinite()


def test_takes_views_of_another_size_than_the_backbones():
    assert loss_of(mae(), random_images(side=24)).isfinite()


def test_works_on_the_meta_device():
    method = mae().to("meta")
    loss = method(batch(random_images().to("meta")))["loss"]
    loss.backward()
    assert loss.is_meta and loss.shape == ()


@pytest.mark.parametrize(
    ("width", "depth", "expected"),
    [(768, 12, (512, 8, 16)), (384, 12, (256, 8, 8)), (64, 4, (32, 2, 1)), (16, 1, (32, 1, 1))],
)
def test_the_decoders_default_size_is_the_official_one_of_a_vit_b(width, depth, expected):
    backbone = {"embed_dim": width, "depth": depth}
    with torch.device("meta"):
        model = vit("vit_tiny_patch16_224", img_size=SIDE, patch_size=P, num_heads=4, **backbone)
        decoder = MAE(model).decoder
    assert (decoder.embed.out_features, len(decoder.blocks), decoder.blocks[0].attn.num_heads) == expected


def test_parts_cover_encoder_and_decoder():
    method = mae()
    modules = method.parts().modules
    covered = {id(parameter) for module in modules for parameter in module.parameters()}
    rest = [name for name, parameter in method.named_parameters() if id(parameter) not in covered]
    assert rest == ["backbone.model.cls_token", "backbone.model.pos_embed"]


# ---------------------------------------------------------------- refusals


def test_refuses_a_backbone_that_is_no_vit():
    with pytest.raises(UsageError, match="needs a ViT .backbone=vit., not a FeatureMaps"):
        MAE(build_backbone("resnet_tiny", widths=(4, 6, 8)))


def test_refuses_several_views():
    images = random_images()
    with pytest.raises(UsageError, match="reconstructs one view, the recipe gives 2: set views.recipe=single"):
        mae()(Batch({name: whole_view(images, name) for name in ("v1", "v2")}))


def test_refuses_views_that_patches_do_not_divide_and_views_of_too_few_patches():
    with pytest.raises(UsageError, match="views of 18 x 18 px do not split into patches of 4 px"):
        loss_of(mae(), random_images(side=18))
    with pytest.raises(UsageError, match="leaves 0 of 1 patches visible"):
        loss_of(mae(), random_images(side=4))


@pytest.mark.parametrize("ratio", [0.0, 1.0, 1.5])
def test_refuses_an_impossible_ratio(ratio):
    with pytest.raises(UsageError, match="mask_ratio is a share between 0 and 1"):
        mae(mask_ratio=ratio)


def test_refuses_widths_that_heads_or_positions_cannot_have():
    with pytest.raises(UsageError, match="decoder_heads=3 must divide its decoder_width=8"):
        mae(decoder_heads=3)
    with pytest.raises(UsageError, match="multiples of 4, not 6"):
        loss_of(mae(decoder_width=6), random_images())
