"""The mask of an annotator as the map: that of the view, with the annotator's supervision."""

import torch

from scd.maps.annotated import AnnotatedMask
from scd.maps.controls import OracleMask
from scd.method import whole_view
from studies.suite.planning.command_line import resolve_settings
from studies.suite.planning.study import Arm


def test_it_is_the_mask_of_the_view():
    view = whole_view(torch.zeros(2, 3, 8, 8))
    view.masks = torch.zeros(2, 8, 8)
    view.masks[:, :, :3] = 1
    maps = torch.zeros(2, 5, 4, 4)
    assert torch.equal(AnnotatedMask()(maps, view), OracleMask()(maps, view))
    assert (AnnotatedMask.needs, AnnotatedMask.supervision) == (OracleMask.needs, "none")


def test_a_run_names_the_annotator():
    arm = Arm("rbd", "", {"wrapper": {"preset": "scd", "saliency": "rbd"}}, "", "")
    config = resolve_settings("multicrop", ["tier=smoke"]).configure(arm, 0)
    assert config["annotations"]["masks"]["_target_"] == "scd.data.annotators.rbd.RBD"
    assert config["wrapper"]["saliency"]["_target_"] == "scd.maps.annotated.AnnotatedMask"
