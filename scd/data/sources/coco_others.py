"""JSON files beside COCO's instances format that are taken for it: what they are, and what to do."""

from typing import Any

VIA = "_via_img_metadata"
OTHER_FORMATS = {
    "panoptic": (
        "is in COCO's panoptic format (segments_info), whose objects lie in PNG files; give the instances_*.json of "
        "the set, or convert the file with panoptic2detection_coco_format.py of cocodataset/panopticapi"
    ),
    "lvis": (
        "names its images by coco_url alone, as LVIS does; write the end of each coco_url into file_name "
        "(train2017/000000000009.jpg) and give the folder that holds train2017 and val2017"
    ),
    "via": (
        "is a file of the VGG Image Annotator (VIA), not of COCO; export its annotations in COCO's format (Annotation, "
        "Export Annotations)"
    ),
}


def other_format(content: Any) -> str | None:
    """What the content of a JSON file is instead of COCO's instances, to stand after its name; None if unknown."""
    if not isinstance(content, dict):
        return None
    if VIA in content or _are_images_of_via(content):
        return OTHER_FORMATS["via"]
    if any("segments_info" in entry for entry in _entries(content, "annotations")):
        return OTHER_FORMATS["panoptic"]
    images = _entries(content, "images")
    if images and all(entry.get("file_name") is None and isinstance(entry.get("coco_url"), str) for entry in images):
        return OTHER_FORMATS["lvis"]
    return None


def _are_images_of_via(content: dict) -> bool:
    """Whether the values are images of VIA, whose keys are the name and the size of their files."""
    return bool(content) and all(
        isinstance(one, dict) and {"filename", "regions"} <= set(one) for one in content.values()
    )


def _entries(content: dict, kind: str) -> list[dict]:
    found = content.get(kind)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
