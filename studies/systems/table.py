"""All systems of the study ``related``. Another one is one more entry; its arms, contrasts and rows follow from it."""

from studies.systems.regions import REGIONS

SYSTEMS = (*REGIONS,)
NOT_YET = (
    "CAST", "InsLoc", "MaskContrast", "ContraCAM", "Hierarchical Grouping", "ORL", "Odin", "CrOC", "COMUS", "DenseSiam",
    "Asym-Siam", "DiLo", "Reverse Attention", "Object-aware Cropping",
)  # fmt: skip
