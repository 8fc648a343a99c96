"""Figures of images have what they are given in their titles, and leave nothing behind."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import tensorflow as tf
from matplotlib import pyplot
from PIL import Image

from deel_influence.errors import MissingExtraError
from deel_influence.plots import plot_datacentric_explanations, plot_most_influential_images

K = 7
IMAGES = np.random.default_rng(0).normal(size=(K, 6, 4, 3)).astype("float32")
VALUES = np.linspace(0.5, -0.0123, K)
IDS = np.arange(100, 100 + K)


@pytest.fixture(autouse=True)
def _nothing_shown(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        message = "A figure was shown."
        raise AssertionError(message)

    monkeypatch.setattr(pyplot, "show", refuse)
    yield
    assert pyplot.get_fignums() == []


def titles(figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def drawn(figure) -> list[np.ndarray]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes]


def test_every_image_stands_under_its_label_id_and_score():
    figure = plot_most_influential_images(
        (IMAGES, VALUES, IDS), cols=3, labels=np.arange(K) % 2, class_names=["cat", "dog"]
    )
    assert len(figure.axes) == K
    assert titles(figure)[0] == "cat, id 100\nscore 0.5"
    assert titles(figure)[-1] == "cat, id 106\nscore −0.0123"


def test_the_grid_has_as_many_columns_as_asked_for():
    figure = plot_most_influential_images((IMAGES, VALUES), cols=3)
    assert figure.axes[0].get_subplotspec().get_gridspec().get_geometry() == (3, 3)


def test_what_a_top_k_returns_can_be_drawn_as_it_is():
    top = (tf.constant(IMAGES), tf.constant(VALUES), tf.constant(IDS))
    assert titles(plot_most_influential_images(top)) == titles(
        plot_most_influential_images((IMAGES, VALUES), ids=IDS)
    )


def test_images_without_scores_ids_and_labels_have_no_title():
    assert titles(plot_most_influential_images((IMAGES, None))) == [""] * K


def test_one_hot_labels_and_dollar_signs_are_written_as_they_are(tmp_path):
    figure = plot_most_influential_images(
        (IMAGES[:2], None), labels=np.eye(2), class_names=["$a_1$ $", "b"]
    )
    assert titles(figure) == ["$a_1$ $", "b"]
    figure.savefig(tmp_path / "figure.png")


def test_images_keep_their_brightness_relative_to_each_other():
    images = np.stack([np.zeros((4, 4)), np.full((4, 4), 2.0), np.full((4, 4), 4.0)])
    means = [image.mean() for image in drawn(plot_most_influential_images((images, None)))]
    np.testing.assert_allclose(means, [0.0, 0.5, 1.0])


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 3), (5, 4, 4)])
def test_constant_images_of_any_channels_are_drawn(shape, tmp_path):
    figure = plot_most_influential_images((np.ones((2, *shape)), None))
    figure.savefig(tmp_path / "figure.png")
    assert all(np.isfinite(image).all() for image in drawn(figure))


def test_opacity_has_a_range_of_its_own():
    image = np.full((4, 4, 4), 0.25)
    image[0, 0, :3] = 0.0
    image[..., 3] = 255.0
    (array,) = drawn(plot_most_influential_images((image[None], None)))
    np.testing.assert_allclose(array[..., 3], 1.0)
    np.testing.assert_allclose(array[1, 1, :3], 1.0)


def test_the_explained_image_comes_first_and_its_influences_below():
    figure = plot_datacentric_explanations(
        IMAGES[0],
        (IMAGES[1:], VALUES[1:], IDS[1:]),
        cols=4,
        image_id=3,
        image_label="ship",
        labels=["frog"] * (K - 1),
    )
    assert len(figure.axes) == K
    assert titles(figure)[0] == "query: ship, id 3"
    assert [axes.axison for axes in figure.axes[:2]] == [True, False]
    assert titles(figure)[1] == "frog, id 101\nscore 0.415"
    cells = [axes.get_subplotspec().num1 for axes in figure.axes]
    assert cells == [0, *range(4, 4 + K - 1)]


def test_a_figure_is_saved_and_returned(tmp_path):
    path = tmp_path / "figure.png"
    figure = plot_most_influential_images((IMAGES, VALUES), save_path=path)
    assert tf.io.decode_png(path.read_bytes()).shape[1] == round(figure.get_figwidth() * 100)


def test_a_figure_is_shown_only_on_request_and_closed_afterwards(monkeypatch):
    shown = []
    monkeypatch.setattr(pyplot, "show", lambda *, block: shown.extend(pyplot.get_fignums()))
    figure = plot_most_influential_images((IMAGES, VALUES), show=True)
    assert len(shown) == 1
    assert len(figure.axes) == K


def test_files_are_drawn_in_place_of_the_samples(tmp_path):
    pixels = np.zeros((3, 4, 5, 3), np.uint8)
    pixels[1] = 255
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, picture in zip(paths, pixels, strict=True):
        Image.fromarray(picture).save(path)
    embeddings = np.ones((3, 16))
    figure = plot_datacentric_explanations(paths[1], (embeddings, VALUES[:3]), display=paths)
    assert [array.mean() for array in drawn(figure)] == [1.0, 0.0, 1.0, 0.0]
    assert titles(figure)[0] == "query"


def test_what_is_drawn_may_be_computed_from_the_samples():
    flat = np.arange(32.0).reshape(2, 16)
    figure = plot_most_influential_images((flat, None), display=lambda x: x.reshape(-1, 4, 4))
    assert [array.shape for array in drawn(figure)] == [(4, 4), (4, 4)]


def test_a_notebook_shows_a_figure_without_pyplot():
    figure = plot_most_influential_images((IMAGES, VALUES))
    assert tf.io.decode_png(figure._repr_png_()).shape[1] == round(figure.get_figwidth() * 100)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: plot_most_influential_images((IMAGES,)), "Received: tuple of 1 parts"),
        (lambda: plot_most_influential_images(IMAGES), "Received: ndarray"),
        (lambda: plot_most_influential_images((IMAGES, VALUES[1:])), r"\(6,\) for 7 samples"),
        (
            lambda: plot_most_influential_images((IMAGES[:2], np.ones((2, 3)))),
            r"\(2, 3\) for 2 samples",
        ),
        (lambda: plot_most_influential_images((IMAGES[:0], None)), "at least one .*: none"),
        (lambda: plot_most_influential_images(({"a": IMAGES}, VALUES)), r"a dict of \['a'\]"),
        (
            lambda: plot_most_influential_images(
                (IMAGES, None), labels=range(K), class_names=["cat", "dog"]
            ),
            "2 names, and the class 2",
        ),
        (
            lambda: plot_datacentric_explanations(
                IMAGES[0], (IMAGES, None), image_label=-1, class_names=["cat", "dog"]
            ),
            "the class -1",
        ),
        (lambda: plot_most_influential_images((IMAGES, None), ids=[1]), "as many ids"),
        (lambda: plot_most_influential_images((IMAGES, None), display=["a"]), "1 entries for 7"),
        (lambda: plot_most_influential_images((np.ones((2, 9)), None)), r"Received: \(9,\)"),
        (lambda: plot_most_influential_images((IMAGES, None), cols=0), "cols=0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_without_matplotlib_the_message_names_the_extra(monkeypatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name.partition(".")[0])

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"deel-influence\[report\]"):
        plot_most_influential_images((IMAGES, VALUES))
