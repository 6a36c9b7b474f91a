"""The reviewers' questions, paraphrased, with the studies that answer them and what a larger tier would add.

The questions are those of five public reviews of SCD, in their order. A study has a page where it has been run; the
claims of its page that belong to a question are named by their titles, or by ids in the titles themselves
("R4-b: DenseCL?").
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

REVIEWERS = {
    "R1": "related work and emergence",
    "R2": "LEWEL",
    "R3": "protocols and one-by-one differences",
    "R4": "margins, masked image modelling and cost",
    "R5": "mechanism, multi-crop, DINO and scenes",
}
ID = re.compile(r"R\d-[a-z]\b")


@dataclass(frozen=True)
class Source:
    """A study that answers a question, or a part of it.

    Attributes:
        study: name of its file.
        titles: of the claims that belong to the question (``Claim.question``); all of the study's where None, and none
            where empty.
        note: where the page has what belongs to the question beside its claims.
    """

    study: str
    titles: tuple[str, ...] | None = None
    note: str = ""

    def chosen(self, question: str, titles: Sequence[str]) -> list[bool]:
        """For each claim of a page, whether it belongs to a question; ids in a title decide before this source."""
        found = [ID.findall(title) for title in titles]
        return [
            question in ids if ids else self.titles is None or title in self.titles
            for ids, title in zip(found, titles, strict=True)
        ]


@dataclass(frozen=True)
class Question:
    """One question: its id, its text, the studies that answer it, and what larger tiers would add, a sentence each."""

    id: str
    text: str
    sources: tuple[Source, ...]
    gpu: str
    paper: str


QUESTIONS = (
    Question(
        "R1-a",
        "Foreground separation for self-supervised learning exists (CAST, InsLoc, MaskContrast, ContraCAM, VADeR, "
        "Hierarchical Grouping): what does SCD add?",
        (Source("related"),),
        "The same systems with a ResNet-18 or 50 on CIFAR-10 or ImageNet-100, where their maps and boxes have more "
        "positions.",
        "A ResNet-50 on ImageNet with the settings of each paper, so that published numbers stand beside the measured "
        "ones.",
    ),
    Question(
        "R1-b",
        "Later work separates several objects (ORL, SoCo, SlotCon, Odin, CrOC, COMUS) or uses only points (PointCL): "
        "how does SCD compare?",
        (Source("related"), Source("detection")),
        "Photographs of scenes with several objects, at a resolution at which regions are larger than one position.",
        "COCO with the detectors of the papers, which is what these systems were made for.",
    ),
    Question(
        "R1-c",
        "Is the separation limited to object-centric images, or does it hold on scene-centric, uncurated and "
        "web-crawled ones (Demystifying, Divide and Contrast)?",
        (
            Source("scene_coco", (
                "Can a correct map help on scenes?", "Does SCD help on scenes?", "On object-centric images?",
                "Is it limited to these?",
            )),
            Source("uncurated"),
        ),
        "Object-centric, scene-centric and long-tailed photographs of equal number, and transfer both ways.",
        "ImageNet against COCO and an uncurated set of the same size, with a ResNet-50.",
    ),
    Question(
        "R1-d",
        "DenseSiam and SlotCon are cited but not in the table, and the detection results lack ORL, SoCo, SlotCon, Odin "
        "and PointCL.",
        (
            Source("detection"),
            Source("scene_coco", (), "its section *Transfer* has detection on scenes, without a claim"),
        ),
        "One small detector, fine-tuned with one recipe from every method's backbone on VOC.",
        "Faster R-CNN and Mask R-CNN on VOC and COCO by the papers' recipe, beside the published numbers.",
    ),
    Question(
        "R1-e",
        "Objectness emerges by itself in DINO, DINOv2 and GroupViT: is an explicit separation needed?",
        (
            Source("dino_vit", (
                "Does the learned map help?", "Does the attention help as the map?", "Does TokenCut's map help?",
                "Is an explicit map needed to find objects?", "The same against TokenCut?",
                "Do objects emerge in DINO?",
            )),
        ),
        "A ViT that is trained for 200 epochs and whose attention finds objects, on photographs with true masks.",
        "A ViT-S/16 on ImageNet, where the emergence was reported, beside published checkpoints of DINO and DINOv2.",
    ),
    Question(
        "R2-a",
        "How exactly do SCD's saliency maps and their use differ from LEWEL's alignment maps?",
        (Source("lewel", ("Whose maps?", "Whose map, in LEWEL?"), "it sets the two mechanisms side by side"),),
        "Maps of more positions, and smaller detectable differences for the two exchanges of maps.",
        "LEWEL's own setting, a ResNet-50 on ImageNet, in which its alignment maps were published.",
    ),
    Question(
        "R2-b",
        "The margin over LEWEL is 0.2 and 0.3 points (asymmetric and symmetric loss), and below 0.4 on VOC and COCO: "
        "is it significant?",
        (Source("significance", ("Asymmetric loss?", "Symmetric loss?", "On BYOL?")),),
        "A smaller spread over seeds, because training and test sets are larger: differences below a point come into "
        "reach.",
        "The spread of ImageNet runs themselves; five seeds of each arm tell whether 0.2 points can be seen there.",
    ),
    Question(
        "R2-c",
        "Show scenarios in which SCD-MoCo is clearly better than LEWEL.",
        (Source("lewel", ("Is SCD better than LEWEL?", "Is there a scenario where SCD clearly beats LEWEL?")),),
        "More seeds and larger networks in every scenario, so that each of them can be decided.",
        "Whether the order of the two on embedded scenarios is that on ImageNet, VOC and COCO.",
    ),
    Question(
        "R3-a",
        "The gain over the baselines is weak.",
        (
            Source("significance", (
                "Is there a gain over MoCo at all?", "With the symmetric loss?", "Over BYOL?",
            )),
        ),
        "A smaller detectable difference over MoCo and BYOL, on photographs.",
        "The gain over MoCo and BYOL by the papers' schedules, with seeds in pairs.",
    ),
    Question(
        "R3-b",
        "Table 1 has only linear probing: what do other protocols say?",
        (Source("protocols"),),
        "Fine-tuning with 1 and 10 % of the labels where these are hundreds of images and not a handful.",
        "The papers' protocols on ImageNet, VOC and COCO for every arm.",
    ),
    Question(
        "R3-c",
        "State the differences one by one to Asym-Siam, MaskContrast, VADeR, DiLo and Reverse Attention.",
        (Source("related"),),
        "The same rows on photographs, with less uncertainty; the mechanisms stay as they are.",
        "The rows in the setting in which the systems were published, a ResNet-50 on ImageNet or COCO.",
    ),
    Question(
        "R4-a",
        "Masked image modelling (MAE) has moved on: what is the advantage over it?",
        (Source("mim"),),
        "MAE and SCD on the same ViT at equal compute, with enough training for MAE to learn: it needs long schedules.",
        "A ViT-S or B on ImageNet by MAE's schedule, with few labels, dense tasks and fine-tuning.",
    ),
    Question(
        "R4-b",
        "Comparisons with object-aware cropping, DenseCL and InsLoc are missing.",
        (Source("related"),),
        "The three on photographs with several objects, where crops and boxes matter more.",
        "The three on ImageNet or COCO by their own settings, and their detection results beside the published ones.",
    ),
    Question(
        "R4-c",
        "The margin over older methods is marginal.",
        (Source("significance"),),
        "A smaller detectable difference, on photographs, over the same methods.",
        "Margins on ImageNet in units of their own spread over seeds.",
    ),
    Question(
        "R4-d",
        "The training cost is not analysed.",
        (Source("cost_profile"),),
        "Step time, memory and energy of a GPU, where kernels and data loading change the shares.",
        "Time and memory of eight GPUs at the papers' batch sizes; parameters and FLOPs are counted at that scale "
        "already.",
    ),
    Question(
        "R4-e",
        "Why does it work? The visual analysis belongs in the main text.",
        (
            Source("mechanism", (
                "Can a correct map help here?", "Does the learned map help?", "Is it a map of the object?",
                "Does the repulsion act?", "Does the attraction act?",
            )),
            Source("reconstruction"),
        ),
        "Maps of more positions on photographs with true masks (DUTS, VOC), over a longer training.",
        "The maps of a ResNet-50 on ImageNet, and whether the controls keep their order there.",
    ),
    Question(
        "R5-a",
        "Why can a simple MLP help to find the foreground?",
        (
            Source("mechanism", (
                "Does learning it matter?", "Is it more than a centre?", "Does it have to fit its image?",
                "Is it a map of the object?", "Does the MLP need its hidden layer?",
            )),
            Source("reconstruction"),
        ),
        "The same ladder of maps with a ResNet-18 or 50, whose features may hold more of the object.",
        "The ladder on ImageNet, where objects are larger and more often in the centre than in scenes.",
    ),
    Question(
        "R5-b",
        "Is it the separation, or only additional crops (the same place under other augmentations)? Is multi-crop more "
        "important than the separation?",
        (Source("multicrop"),),
        "Schedules of hundreds of epochs, at which published gains of multi-crop appear.",
        "Multi-crop at 224 and 96 px on ImageNet, as published, against SCD at equal training FLOPs.",
    ),
    Question(
        "R5-c",
        "Does it work on transformers, for example DINO with multi-crop, whose attention gives better saliency "
        "(TokenCut, SGCL)?",
        (
            Source("dino_vit", (
                "Does it work on DINO?", "And without multi-crop?", "Does the attention help as the map?",
                "Does TokenCut's map help?",
            )),
        ),
        "DINO trained for 200 epochs, beyond its start, so that the positive control has a chance to succeed.",
        "A ViT-S/16 on ImageNet with ten local views, DINO's own setting.",
    ),
    Question(
        "R5-d",
        "Is it better on scene images with several foregrounds and backgrounds?",
        (
            Source("scene_coco", (
                "Can a correct map help on scenes?", "Does SCD help on scenes?", "With many objects?",
                "Does the number of objects matter?",
            )),
        ),
        "COCO or VOC in place of embedded scenes, with more training and larger maps.",
        "Pretraining on COCO for 800 epochs, as published methods for scenes do, with detection and segmentation.",
    ),
    Question(
        "R5-e",
        "The backbone is not stated.",
        (Source("backbones", None, "every page states its own backbone under *How it was measured*"),),
        "ResNet-18 and 34, a wide ResNet-50 and a ViT, trained for 200 epochs.",
        "ResNet-18, 50 and 101, a wide ResNet-50 and a ViT-S/16 at 224 px.",
    ),
)  # fmt: skip
