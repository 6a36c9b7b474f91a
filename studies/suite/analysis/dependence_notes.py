"""What a reader must know of scored images that show one thing several times, where intervals are over these images.

The bootstrap over test images (:mod:`studies.suite.analysis.image_bootstrap`) takes them as independent. With four
versions of each photograph, or ten slices of each patient, its intervals are too short. Intervals over seeds are not
affected.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import torch

from scd.data.sources.folder_scan import printable
from scd.evaluation.protocol import EvaluationData
from studies.suite.analysis.altered_notes import MOST_TEST, are_alike, in_memory, spread
from studies.suite.analysis.column_notes import is_missing
from studies.suite.analysis.column_values import stored_rows, values_of_rows
from studies.suite.analysis.group_columns import is_sure
from studies.suite.analysis.name_notes import used_paths, versions_of
from studies.suite.analysis.series_notes import by_series, is_called_video
from studies.suite.analysis.used_rows import used_rows
from studies.suite.analysis.what_was_read import counted

INDEPENDENT = 0.9  # things shown, as a share of the images, below which it is noted
ALIKE = 0.2  # share of the images that look like another one, from which it is noted
TOO_SHORT = "Intervals over test images take them as independent and are too short; score one image of each."


def notes_on_dependence(images: EvaluationData) -> list[str]:
    """A note where several scored images show one thing: by their names, by a column that is not read, or by pixels.

    Raises:
        DataError: an image that cannot be decoded.
    """
    if images.source.embedded:
        return []
    rows = used_rows(images, images.split).tolist()
    names = used_paths(images)[1]
    return (
        notes_on_versions(names, images.has("label"))
        or notes_on_videos(names)
        or notes_on_groups(images, rows)
        or notes_on_alike(images)
    )


def notes_on_versions(paths: Sequence[str | None], by_class: bool) -> list[str]:
    """A note where scored images are, by their names, versions of fewer images: "a.jpg" and "a_flip.jpg"."""
    plain = {PurePosixPath(path).stem for path in paths if path}
    groups = versions_of(paths, plain, by_class).values()
    versions = [found for found in groups if len(found) > 1 and any(changed for _, changed in found)]
    more = sum(len(found) - 1 for found in versions)
    if not versions or len(paths) - more > INDEPENDENT * len(paths):
        return []
    first, second = (name for name, _ in versions[0][:2])
    return [
        f"By their names, the {len(paths):,} scored images are versions of {len(paths) - more:,} images (such as "
        f"'{first}' and '{second}'). {TOO_SHORT}"
    ]


def notes_on_videos(paths: Sequence[str | None]) -> list[str]:
    """A note where the names of scored images say that they are frames of a few videos."""
    series = by_series([PurePosixPath(path) for path in paths if path])
    videos = {name: found for name, found in series.items() if is_called_video(name)}
    more = sum(len(found) - 1 for found in videos.values())
    if not more or len(paths) - more > INDEPENDENT * len(paths):
        return []
    name = max(videos, key=lambda video: len(videos[video]))
    return [
        f"By their names, {more + len(videos):,} of the {len(paths):,} scored images are frames of {len(videos):,} "
        f"videos (such as '{printable(name)}', {len(videos[name])} images). {TOO_SHORT}"
    ]


def notes_on_groups(images: EvaluationData, rows: Sequence[int]) -> list[str]:
    """A note on a column of patients, videos or originals, of which each has several scored images."""
    values = values_of_rows(stored_rows(images.source.split(images.split)), rows)
    for column in filter(is_sure, values):
        counts = Counter(value for value in values[column] if not is_missing(value))
        more = counts.total() - len(counts)
        if counts and len(rows) - more <= INDEPENDENT * len(rows):
            return [
                f"By the column '{printable(column)}', which is not read, {counts.total():,} of the {len(rows):,} "
                f"scored images are of {counted(len(counts), 'group', 'groups')}. {TOO_SHORT}"
            ]
    return []


def notes_on_alike(images: EvaluationData) -> list[str]:
    """A note where many scored images look like altered copies of other scored images."""
    if (both := in_memory(images)) is None:
        return []
    test = both[1].images[spread(len(both[1]), MOST_TEST)]
    count = int(are_alike(test, test, torch.arange(len(test))).sum())
    if count < ALIKE * len(test):
        return []
    return [
        f"By their pixels, {count:,} of the {len(test):,} scored images that were compared look like altered copies of "
        f"other scored images. {TOO_SHORT}"
    ]
