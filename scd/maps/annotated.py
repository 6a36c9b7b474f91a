"""A map that an annotator makes of each image before the training, in the place of a learned one."""

from scd.maps.controls import OracleMask


class AnnotatedMask(OracleMask):
    """The mask of whichever annotator the run names (``annotations.masks``), as :class:`OracleMask` takes the true one.

    What it is learned from is the annotator's supervision: none for training-free saliency such as
    :class:`scd.data.annotators.rbd.RBD`. With it a study can tell whether a separation needs a learned map at all.
    """

    supervision = "none"
