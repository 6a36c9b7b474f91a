"""GroupViT: a ViT that groups patches into segments, and learns from captions alone which ones belong together.

Xu et al., "GroupViT: Semantic Segmentation Emerges from Text Supervision", CVPR 2022, arXiv 2202.11094; its code is
NVlabs/GroupViT. A ViT groups patches into segments in two stages (:mod:`scd.nn.grouping`); the vector z of an image is
the mean of its last segments. With captions t of the images of a batch, and prompts t_m of some nouns m of each
caption, all projected and of unit length,

    L = 1/2 [ InfoNCE(z -> t) + InfoNCE(t -> z) ] + 1/2 [ InfoNCE(z -> {t_m}) + InfoNCE(t_m -> z) ],

each pair of terms with a learned temperature of its own. In the third term an image has all its nouns as positives,
with equal weights that sum to 1.

Official settings (``group_vit_gcc_yfcc_30e.yml``). ViT-S/16 in stages of 6, 3 and 3 blocks with 64 and 8 groups; text
transformer of 12 layers and width 256; projectors of two layers, 4096 and 256; 3 nouns; temperature 0.07, its inverse
at most 100; AdamW, lr 1.6e-3 at batch 4096, weight decay 0.05, clip 5, stochastic depth 0.1; 30 epochs of CC3M, CC12M
and YFCC14M, 2 of warm-up.

NOTE: the images have no captions. A surrogate is made of the name of an image's class in a random template, and its
nouns are the words of this name. So GroupViT learns from labels here, and is declared so. The background is not named.
NOTE: as in the official code every other text of the batch is a negative. With few classes many of them name the
image's own class.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather

from scd.errors import UsageError
from scd.method import Batch, Method, Parts, View
from scd.nn.grouping import GroupingViT
from scd.nn.heads import MLP
from scd.nn.precision import at_least_float32, no_autocast
from scd.nn.processes import place
from scd.nn.text import TextTransformer, Vocabulary, words_of
from scd.nn.vit import ViT

TEMPLATES = ("a photo of a {}.",)
LIKELY = 5  # classes of the whole image that its segments can have


# -------------------------------------------------------------------- captions


class Captions(nn.Module):
    """Surrogate captions of classes, as tokens.

    Args:
        names: of the classes. templates: with ``{}`` for a name or a word of it. nouns: prompts of an image.

    Raises:
        UsageError: a name without a word, or a template without a place for it.

    NOTE: all words of a name count as nouns; the official code takes nouns and verbs of a caption by a tagger.
    """

    def __init__(self, names: Sequence[str], templates: Sequence[str], nouns: int):
        super().__init__()
        split = [list(dict.fromkeys(words_of(name))) for name in names]
        for name, words in zip(names, split, strict=True):
            if not words:
                raise UsageError(f"GroupViT's names of classes need a word each, '{name}' has none")
        if not templates or any(template.count("{}") != 1 for template in templates):
            raise UsageError(f"GroupViT's templates have one place '{{}}' each, not {list(templates)}")
        self.nouns = nouns
        self.vocabulary = Vocabulary([template.format(name) for template in templates for name in names])
        most = max(map(len, split))
        padded = [[*words, *[words[0]] * (most - len(words))] for words in split]

        def filled(texts: Sequence[str]) -> Tensor:
            return torch.stack([self.vocabulary.encode([t.format(text) for t in templates]) for text in texts])

        self.register_buffer("whole", filled(names), persistent=False)  # (C, T, L)
        self.register_buffer("single", torch.stack([filled(words) for words in padded]), persistent=False)  # + words
        self.register_buffer("number", torch.tensor([len(words) for words in split]), persistent=False)  # (C,)

    def forward(self, labels: Tensor) -> Tensor:
        """Tokens (B, 1 + nouns, L) of labels (B,): a caption, then prompts of different words of the name.

        Where a name has fewer words, the caption stands in the place of further prompts (official).
        """
        device, (_, templates, _), most = labels.device, self.whole.shape, self.single.shape[1]
        rows = len(labels)
        chosen = torch.randint(templates, (rows, 1 + self.nouns), device="cpu").to(device)
        order = torch.rand(rows, most, device="cpu").to(device)
        missing = torch.arange(most, device=device) >= self.number[labels][:, None]
        words = F.pad(order.masked_fill(missing, 2.0).argsort(dim=1), (0, self.nouns))[:, : self.nouns]

        caption = self.whole[labels, chosen[:, 0]][:, None]  # (B, 1, L)
        prompts = self.single[labels[:, None], words, chosen[:, 1:]]  # (B, nouns, L)
        there = torch.arange(self.nouns, device=device) < self.number[labels][:, None]
        return torch.cat([caption, torch.where(there[:, :, None], prompts, caption)], dim=1)


# -------------------------------------------------------------------- the method


class GroupViT(Method):
    """A grouping ViT and a text transformer that learn to match images and their captions.

    Args:
        backbone: a :class:`scd.nn.vit.ViT`; see :class:`scd.nn.grouping.GroupingViT`.
        classes: number of classes; labels are 0 to ``classes`` - 1.
        names: of the classes, as text; when None, each class has one made-up word.
        templates: of captions and prompts, with ``{}`` for the name or the word.
        groups, blocks: see :class:`GroupingViT`.
        hidden, dim: widths of the two layers of both projectors.
        text_width, text_depth, text_heads: of the text transformer; heads: one for 64 channels when None.
        nouns: prompts of each caption; 0: without their loss.
        noun_weight: of the loss on nouns.
        temperature: of both losses at the start.
        largest_scale: bound of the inverse temperatures.
        background: class score below which a segment is background, see :meth:`saliency`.

    Raises:
        UsageError: a backbone that is no ViT, a number out of range, or, in a step, more than one view.

    NOTE: the official templates are CLIP's 80 for ImageNet; the text transformer's length is that of the longest text.
    NOTE: batch norm of the projectors is that of each process; official: synchronised.
    """

    needs = frozenset({"labels"})
    supervision = "labels"

    def __init__(
        self,
        backbone: nn.Module,
        classes: int,
        names: Sequence[str] | None = None,
        templates: Sequence[str] = TEMPLATES,
        groups: Sequence[int] = (64, 8),
        blocks: Sequence[int] | None = None,
        hidden: int = 4096,
        dim: int = 256,
        text_width: int = 256,
        text_depth: int = 12,
        text_heads: int | None = None,
        nouns: int = 3,
        noun_weight: float = 1.0,
        temperature: float = 0.07,
        largest_scale: float = 100.0,
        background: float = 0.95,
    ):
        super().__init__()
        if not isinstance(backbone, ViT):
            raise UsageError(f"GroupViT groups patches and needs a ViT (backbone=vit), not a {type(backbone).__name__}")
        if classes < 2 or (names is not None and len(names) != classes):
            given = "no names" if names is None else f"{len(names)} names"
            raise UsageError(f"GroupViT needs two classes or more and a name of each, not {classes} with {given}")
        for name, value in (("nouns", nouns), ("noun_weight", noun_weight)):
            if value < 0:
                raise UsageError(f"GroupViT's {name} is 0 or more, not {value}")
        for name, value in (("temperature", temperature), ("largest_scale", largest_scale), ("background", background)):
            if value <= 0:
                raise UsageError(f"GroupViT's {name} is above 0, not {value}")
        names = [f"class{label}" for label in range(classes)] if names is None else names
        self.backbone = GroupingViT(backbone, groups, blocks)
        self.captions = Captions(names, templates, nouns)
        length = self.captions.vocabulary.length
        heads = max(1, text_width // 64) if text_heads is None else text_heads
        self.text = TextTransformer(len(self.captions.vocabulary), length, text_width, text_depth, heads)
        self.projector = MLP((backbone.dim, hidden, dim), norm="batch")
        self.text_projector = MLP((text_width, hidden, dim), norm="batch")
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.noun_log_scale = nn.Parameter(torch.tensor(-math.log(temperature)), requires_grad=nouns > 0)
        self.noun_weight = noun_weight
        self.largest_scale = largest_scale
        self.background = background

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Both losses; logs each of them, and the temperature."""
        if len(batch.views) != 1:
            raise UsageError(f"GroupViT has one view, the recipe gives {len(batch.views)}: set views.recipe=single")
        (view,) = batch.views.values()
        _, pooled = self.backbone(view.images)
        image = self.projector(pooled)  # (B, D)
        tokens = self.captions(batch.labels)  # (B, 1 + n, L)
        texts = self.text_projector(self.text(tokens.flatten(0, 1))).unflatten(0, tokens.shape[:2])
        scale = self.scale(self.log_scale)
        caption_loss = caption_contrast(image, texts[:, 0], scale)
        loss, logs = caption_loss, {"caption_loss": caption_loss, "temperature": 1 / scale}
        if self.captions.nouns:
            logs["noun_loss"] = noun_contrast(image, texts[:, 1:], self.scale(self.noun_log_scale))
            loss = loss + self.noun_weight * logs["noun_loss"]
        return {"loss": loss, **{name: value.detach() for name, value in logs.items()}}

    def scale(self, logarithm: Tensor) -> Tensor:
        """An inverse temperature, bounded from above."""
        return logarithm.exp().clamp(max=self.largest_scale)

    @torch.no_grad()
    def saliency(self, view: View) -> Tensor:
        """Whether each patch belongs to a segment that shows a class, (B, h, w) in [0, 1].

        A segment shows a class if its class score reaches min(``background``, the image's largest class score); see
        :func:`class_scores`. This is how GroupViT separates classes from the background in VOC. With a and b the
        patch's largest memberships in a segment that does and in one that does not, the map is a / (a + b).

        NOTE: officially a patch belongs to one segment, that of its largest membership; here it does where the map is
        0.5 or more. A class has the mean of its text vectors over all templates (official).
        """
        found = self.backbone.segments(view.images)
        segments, image = self.projector(found.vectors), self.projector(found.pooled)
        scores = class_scores(segments, image, self.class_vectors(), self.scale(self.log_scale))  # (B, G)
        least = scores.amax(dim=1, keepdim=True).clamp(max=self.background)
        shows = (scores >= least)[:, :, None, None]
        memberships = found.memberships()  # (B, G, h, w)
        inside, outside = (memberships.masked_fill(~kind, 0).amax(dim=1) for kind in (shows, ~shows))
        return inside / (inside + outside)

    def class_vectors(self) -> Tensor:
        """One vector (C, D) of unit length for each class: the mean of its text vectors over templates."""
        whole = self.captions.whole
        vectors = self.text_projector(self.text(whole.flatten(0, 1))).unflatten(0, whole.shape[:2])
        return F.normalize(at_least_float32(vectors).mean(dim=1), dim=1)

    def parts(self) -> Parts:
        heads = dict.fromkeys((self.projector, self.text_projector), "heads")
        return Parts(root="loss", modules={self.backbone: "backbone, online", self.text: "text encoder", **heads})


def class_scores(segments: Tensor, image: Tensor, classes: Tensor, scale: Tensor) -> Tensor:
    """How much each segment (B, G) shows its best class, in [0, 1].

    The score of a class is the product of its softmax over all classes and of that over the image's likely ones, which
    are the five with the largest cosine between text and image.

    Args:
        segments: projected, (B, G, D). image: projected, (B, D). classes: (C, D), unit length.
        scale: inverse temperature.
    """
    segments, image = (F.normalize(at_least_float32(x), dim=-1) for x in (segments, image))
    logits = scale * segments @ classes.T  # (B, G, C)
    likely = (image @ classes.T).topk(min(LIKELY, len(classes)), dim=1).indices
    unlikely = torch.ones_like(logits[:, 0], dtype=torch.bool).scatter(1, likely, False)
    among_likely = logits.masked_fill(unlikely[:, None], -math.inf).softmax(dim=2)
    return (logits.softmax(dim=2) * among_likely).amax(dim=2)


def caption_contrast(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Mean of InfoNCE from images to texts and from texts to images.

    Args:
        image, text: projected (B, D), row by row a pair; all other rows, of all processes, are negatives.
        scale: inverse temperature.
    """
    with no_autocast(image):
        image, text = (F.normalize(at_least_float32(x), dim=1) for x in (image, text))
        targets = own_rows(image)
        to_text = F.cross_entropy(scale * image @ of_all(text).T, targets)
        to_image = F.cross_entropy(scale * text @ of_all(image).T, targets)
        return (to_text + to_image) / 2


def noun_contrast(image: Tensor, nouns: Tensor, scale: Tensor) -> Tensor:
    """The same with n texts of each image: an image has 1/n of each as its target, a text its image.

    Args:
        image: projected (B, D). nouns: projected (B, n, D).
        scale: inverse temperature.
    """
    with no_autocast(image):
        image, nouns = (F.normalize(at_least_float32(x), dim=-1) for x in (image, nouns))
        targets, count = own_rows(image), nouns.shape[1]
        logits = scale * image @ of_all(nouns).flatten(0, 1).T  # (B, images of all processes · n)
        chances = logits.log_softmax(dim=1).unflatten(1, (-1, count))
        to_nouns = -chances.take_along_dim(targets[:, None, None], dim=1).mean()
        to_image = F.cross_entropy(scale * nouns.flatten(0, 1) @ of_all(image).T, targets.repeat_interleave(count))
        return (to_nouns + to_image) / 2


def own_rows(rows: Tensor) -> Tensor:
    """Numbers (B,) of this process's rows among those of all processes."""
    return torch.arange(len(rows), device=rows.device) + len(rows) * place()[0]


def of_all(rows: Tensor) -> Tensor:
    """The rows of all processes, in the order of the processes; gradients flow back to the process of each."""
    return rows if place()[1] == 1 else torch.cat(all_gather(rows.contiguous()))
