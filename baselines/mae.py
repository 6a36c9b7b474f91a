"""MAE: a ViT sees a quarter of the patches, and a small decoder predicts the pixels of the others.

He et al., CVPR 2022, arXiv 2111.06377. An image is split into N patches x_n of p x p pixels. In each image, a random
set M of them is masked. The encoder takes the visible patches only; the decoder takes the encoder's tokens and one
learned vector in the place of every masked patch. With the decoder's predictions y_n,

    L = mean over n in M, and over the images of the batch, of |y_n - t_n|^2 / (3 p^2),

where t_n is x_n itself, or x_n standardised by its own mean and variance (``norm_pix_loss``).

Official settings (PRETRAIN.md). ViT-B/L/H, 75 % masked, decoder of 8 blocks, width 512 and 16 heads, normalised pixels;
AdamW with betas 0.9 and 0.95, lr 1.5e-4 at batch 256 (2.4e-3 at its batch of 4096), weight decay 0.05 except on biases
and norms, 40 epochs of warm-up, cosine to 0, 800 or 1600 epochs; random crops of 20 to 100 % of the area and mirroring,
no colour changes.
"""

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from scd.errors import UsageError
from scd.method import Batch, Method, Parts, View
from scd.nn.precision import at_least_float32
from scd.nn.vit import ViT


class MAE(Method):
    """A masked autoencoder around a ViT; the ViT is what is evaluated, on all patches.

    Args:
        backbone: a :class:`scd.nn.vit.ViT`. Its position embeddings are replaced by fixed sines and cosines (official).
        mask_ratio: share of the patches that is masked.
        decoder_width: of the decoder's tokens; when None, two thirds of C, rounded to a multiple of 32.
        decoder_depth: number of its blocks; when None, two thirds of the encoder's.
        decoder_heads: of its attention; when None, one for 32 channels.
        norm_pix_loss: predict each patch standardised by its own mean and variance.

    Raises:
        UsageError: the backbone is no ViT, or a number is out of range.

    NOTE: the official decoder has width 512, 8 blocks and 16 heads for every encoder. By default a ViT-B gets this one,
    and other encoders one in proportion, so that the decoder stays the smaller part.
    NOTE: the encoder starts from the backbone's own initial weights; the official code draws them by Xavier's rule, as
    the backbone option ``weight_init: jax`` does. The class token starts near 0; official: normal with deviation 0.02.
    NOTE: the masks come from torch's global generator on the CPU, so that all devices agree.
    """

    def __init__(
        self,
        backbone: nn.Module,
        mask_ratio: float = 0.75,
        decoder_width: int | None = None,
        decoder_depth: int | None = None,
        decoder_heads: int | None = None,
        norm_pix_loss: bool = True,
    ):
        super().__init__()
        if not isinstance(backbone, ViT):
            raise UsageError(f"MAE masks patches and needs a ViT (backbone=vit), not a {type(backbone).__name__}")
        if not 0 < mask_ratio < 1:
            raise UsageError(f"MAE's mask_ratio is a share between 0 and 1, not {mask_ratio}")
        self.backbone = backbone
        self.mask_ratio = mask_ratio
        self.norm_pix_loss = norm_pix_loss
        width = max(32, round(backbone.dim / 48) * 32) if decoder_width is None else decoder_width
        depth = max(1, len(backbone.model.blocks) * 2 // 3) if decoder_depth is None else decoder_depth
        heads = max(1, width // 32) if decoder_heads is None else decoder_heads
        self.decoder = Decoder(backbone.dim, backbone.prefix, width, depth, heads, values=3 * backbone.patch**2)
        fix_positions(backbone.model)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """One step's loss.

        Raises:
            UsageError: more than one view, views that do not split into patches, or too few patches to mask.
        """
        images = only_view(batch).images
        target = patches(images, self.backbone.patch)  # (B, N, 3·p·p)
        grid = tuple(side // self.backbone.patch for side in images.shape[2:])
        order, count = self.draw_order(*target.shape[:2])
        order = order.to(images.device)

        tokens = self.encode(images, visible=order[:, :count])
        prediction = self.decoder(tokens, order.argsort(dim=1), grid)  # (B, N, 3·p·p)

        if self.norm_pix_loss:
            variance, mean = torch.var_mean(target, dim=2, keepdim=True)
            target = (target - mean) / (variance + 1e-6).sqrt()
        errors = (at_least_float32(prediction) - target).square().mean(dim=2)  # (B, N)
        return {"loss": errors.gather(1, order[:, count:]).mean()}  # as many masked patches in every image

    def draw_order(self, batch: int, number: int) -> tuple[Tensor, int]:
        """A random order of each image's patches (B, N), and how many of them, the first ones, are visible."""
        count = int(number * (1 - self.mask_ratio))
        if not 0 < count < number:
            raise UsageError(f"mask_ratio={self.mask_ratio} leaves {count} of {number} patches visible")
        return torch.rand(batch, number, device="cpu").argsort(dim=1), count

    def encode(self, images: Tensor, visible: Tensor) -> Tensor:
        """Tokens (B, P + V, C) of the P prefix tokens and of the visible patches, given as indices (B, V)."""
        model = self.backbone.model
        tokens = model._pos_embed(model.patch_embed(images))  # (B, P + N, C)
        prefix, rest = tokens[:, : self.backbone.prefix], tokens[:, self.backbone.prefix :]
        kept = rest.take_along_dim(visible[:, :, None], dim=1)  # (B, V, C)
        return model.norm(model.blocks(model.norm_pre(torch.cat([prefix, kept], dim=1))))

    def parts(self) -> Parts:
        model = self.backbone.model
        encoder = dict.fromkeys((model.patch_embed, model.blocks, model.norm), "backbone, online")
        return Parts(root="loss", modules={**encoder, self.decoder: "decoder"})


class Decoder(nn.Module):
    """Predicts every patch from the tokens of the visible ones.

    Args:
        dim: C of the encoder's tokens.
        prefix: P, how many of them belong to no patch (class token, registers).
        width, depth, heads: of the blocks.
        values: numbers to predict per patch.

    Raises:
        UsageError: heads that do not divide the width.
    """

    def __init__(self, dim: int, prefix: int, width: int, depth: int, heads: int, values: int):
        super().__init__()
        if width % heads:
            raise UsageError(f"MAE's decoder_heads={heads} must divide its decoder_width={width}")
        self.prefix = prefix
        self.embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.blocks = nn.Sequential(*[Block(width, heads, mlp_ratio=4.0, qkv_bias=True) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.predict = nn.Linear(width, values)
        nn.init.normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor, places: Tensor, grid: tuple[int, int]) -> Tensor:
        """Predictions (B, N, values) of all patches, in their order in the image.

        Args:
            tokens: (B, P + V, C), the prefix tokens and V visible patches.
            places: (B, N), where each patch of the image stands in the sequence "visible patches, then masked ones".
            grid: rows and columns of patches, N = h·w.
        """
        tokens = self.embed(tokens)
        prefix, visible = tokens[:, : self.prefix], tokens[:, self.prefix :]
        masked = self.mask_token.expand(len(tokens), places.shape[1] - visible.shape[1], -1)
        sequence = torch.cat([visible, masked], dim=1)  # (B, N, width)
        image = sequence.take_along_dim(places[:, :, None], dim=1)
        image = image + sincos_positions(*grid, image.shape[2], image.device)
        decoded = self.norm(self.blocks(torch.cat([prefix, image], dim=1)))
        return self.predict(decoded[:, self.prefix :])


def only_view(batch: Batch) -> View:
    """The batch's single view.

    Raises:
        UsageError: there are several, which this method would compute and ignore.
    """
    if len(batch.views) != 1:
        raise UsageError(f"MAE reconstructs one view, the recipe gives {len(batch.views)}: set views.recipe=single")
    return next(iter(batch.views.values()))


def patches(images: Tensor, side: int) -> Tensor:
    """Patches (B, N, 3·p·p) of images (B, 3, H, W): rows of patches, and in a patch row, column, channel.

    Raises:
        UsageError: a side of the images that the patches' side p does not divide.
    """
    height, width = images.shape[2:]
    if height % side or width % side:
        raise UsageError(f"views of {height} x {width} px do not split into patches of {side} px")
    blocks = images.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # (B, 3, h, p, w, p)
    return blocks.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def sincos_positions(height: int, width: int, dim: int, device: torch.device | None = None) -> Tensor:
    """Position embeddings (h·w, dim): the column's sines and cosines, then the row's, at dim / 4 frequencies each.

    Raises:
        UsageError: a dimension that is no multiple of 4.
    """
    if dim % 4:
        raise UsageError(f"MAE's position embeddings need widths that are multiples of 4, not {dim}")
    frequencies = 10000.0 ** -(torch.arange(dim // 4, device=device) / (dim / 4))

    def axis(length: int) -> Tensor:
        angles = torch.arange(length, device=device)[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)  # (length, dim / 2)

    columns = axis(width)[None].expand(height, -1, -1)
    rows = axis(height)[:, None].expand(-1, width, -1)
    return torch.cat([columns, rows], dim=2).flatten(0, 1)


@torch.no_grad()
def fix_positions(model: VisionTransformer) -> None:
    """Replace a ViT's position embeddings by sines and cosines that no step changes; those of prefix tokens are 0."""
    table = sincos_positions(*model.patch_embed.grid_size, model.embed_dim)
    model.pos_embed.zero_()
    model.pos_embed[:, -len(table) :] = table
    model.pos_embed.requires_grad_(False)
