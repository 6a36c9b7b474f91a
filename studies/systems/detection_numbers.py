"""Published numbers of detection on COCO and VOC, quoted, beside those that a system declares itself.

A detector is Mask R-CNN with a ResNet-50 and a feature pyramid (FPN) on COCO with the 1x schedule, and Faster R-CNN
with a ResNet-50 (C4) on VOC07+12, unless a line says otherwise.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from studies.systems.system import Quoted, System

OF_DETECTION = re.compile(r"\b(COCO|VOC).*\bAP(50|75)?\b")
MMSELFSUP = "MMSelfSup, another implementation"
MULTI_LABEL = "of Multi-Label Self-Supervised Learning (ICCV 2023), a secondary source"
SOCO, MOCO = "README of hologerry/SoCo", "README of the detection in facebookresearch/moco"
INSLOC, SLOTCON = "docs/MODELZOO.md of limbo0000/InstanceLoc", "README of CVMI-Lab/SlotCon"
LEWEL, DENSECL = "README of LayneH/LEWEL", "README of WXinlong/DenseCL"
VOC = "VOC07+12, AP / AP50 / AP75"

REFERENCES = {  # what systems are compared with: label -> its numbers
    "random weights": (Quoted("COCO, box / mask AP: 31.0 / 28.5", SOCO),),
    "supervised": (
        Quoted("COCO, box / mask AP after training on ImageNet: 38.9 / 35.4", SOCO),
        Quoted(f"{VOC} after training on ImageNet: 53.5 / 81.3 / 58.8", MOCO),
    ),
    "MoCo": (
        Quoted("COCO, box / mask AP after 200 epochs on ImageNet: 39.8 / 36.1; after 800: 40.4 / 36.4", INSLOC),
        Quoted(f"{VOC} after 200 epochs on ImageNet: 57.0 / 82.4 / 63.6; after 800: 57.4 / 82.5 / 64.0", MOCO),
        Quoted("VOC07+12, AP after 800 epochs on COCO: 54.7", DENSECL),
    ),
    "BYOL": (
        Quoted("COCO, box AP / AP50 / AP75 and mask AP / AP50 / AP75 after 200 epochs on ImageNet: 40.9 / 61.0 / 44.6 "
               "and 36.8 / 58.1 / 39.5", MMSELFSUP),
        Quoted("COCO, box / mask AP after 800 epochs on COCO: 38.8 / 35.0", f"Table 1 {MULTI_LABEL}"),
        Quoted(f"{VOC} after 800 epochs on COCO: 51.7 / 80.2 / 56.4", f"Table 4 {MULTI_LABEL}"),
    ),
    "SimSiam": (Quoted("COCO, box / mask AP after 200 epochs on ImageNet: 38.8 / 34.9", MMSELFSUP),),
}  # fmt: skip
FURTHER = {  # name of a system -> numbers beside its own
    "densecl": (
        Quoted("VOC07+12, AP after 800 / 1600 epochs on COCO: 56.7 / 57.2 (MoCo v2 after 800: 54.7)", DENSECL),
        Quoted("COCO, box / mask AP after 800 epochs on COCO: 39.6 / 35.7", f"Table 1 {MULTI_LABEL}"),
    ),
    "lewel": (
        Quoted("on MoCo, COCO, box / mask AP after 200 epochs on ImageNet: 40.0 / 36.1", f"Table 1 {MULTI_LABEL}"),
        Quoted("on BYOL, COCO, box / mask AP after 200 / 400 epochs on ImageNet: 41.3 / 37.4 and 41.9 / 37.9", LEWEL),
        Quoted("VOC07+12, AP, on which host is not known: 57.3", "an index of results"),
    ),
    "soco": (
        Quoted("COCO, box / mask AP after 400 epochs on ImageNet: 43.0 / 38.2; with four views (SoCo*): 43.2 / 38.4",
               SOCO),
        Quoted("COCO, R50-C4, box / mask AP after 100 / 400 epochs on ImageNet: 40.4 / 34.9 and 40.9 / 35.3", SOCO),
    ),
    "slotcon": (
        Quoted("COCO, box / mask AP after 800 epochs on COCO and its unlabelled images: 41.8 / 37.8; after 100 epochs "
               "on ImageNet: 41.4 / 37.2", SLOTCON),
    ),
    "orl": (Quoted("COCO, box AP50: 60.8", "an index of results; the paper's tables were not read"),),
}  # fmt: skip


class Reported(NamedTuple):
    """What is published of one row of the page's table."""

    label: str
    published: tuple[Quoted, ...]


def reported(systems: Sequence[System], always: Sequence[str] = ()) -> list[Reported]:
    """The published numbers of detection: of references, then of systems that have any.

    Args:
        always: names of systems that get a row also where no number is known.
    """
    rows = [Reported(label, quotes) for label, quotes in REFERENCES.items()]
    for each in systems:
        own = tuple(quote for quote in each.published if OF_DETECTION.search(quote.text))
        quotes = own + FURTHER.get(each.name, ())
        rows += [Reported(each.label, quotes)] if quotes or each.name in always else []
    return rows
