"""The builder of the dataset ``digits`` for TensorFlow Datasets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..tfds import tfds
from .scikit_learn import read_scikit_learn


class _OfflineDatasetInfo(tfds.core.DatasetInfo):
    """Dataset info that comes from the code alone."""

    def initialize_from_bucket(self) -> None:
        # The base class asks Google Cloud Storage for statistics of its own datasets. This one is
        # not there, and some versions retry for minutes where there is no network.
        """Leave everything as the code says."""


class Digits(tfds.core.GeneratorBasedBuilder):
    """The 1,797 handwritten digits of scikit-learn, images of shape ``(8, 8, 1)``.

    The examples keep scikit-learn's order, and ``id`` is the position in it.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}

    def _info(self) -> tfds.core.DatasetInfo:
        metadata = self.get_metadata()
        return _OfflineDatasetInfo(
            builder=self,
            description=metadata.description,
            citation=metadata.citation,
            homepage="https://doi.org/10.24432/C50P49",
            features=tfds.features.FeaturesDict(
                {
                    "id": np.int64,
                    "image": tfds.features.Image(shape=(8, 8, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            # Positions are the ids, so the stored order has to be the order of the source.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # Nothing is downloaded.
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        images, labels = read_scikit_learn()
        for position, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield position, {"id": position, "image": image, "label": int(label)}
