"""Mislabel detection on CIFAR-10."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import keras
import tensorflow as tf
from keras import layers

from ..datasets.sources import load_source
from .mislabeling import MislabelingDetectorEvaluator
from .resnet import ResNet
from .training import KerasTrainingProcedure

_IMAGE_SHAPE = (32, 32, 3)
_CLASSES = 10
_READ_AT_ONCE = 1024

# Images move by up to a tenth of their side in training.
_LARGEST_SHIFT = 3

_LEARNING_RATE = 1e-3
_HALVING_EPOCHS = (10, 20, 30, 40, 50)

# Learning by heart: from the first rate to the last one in so many epochs, at a constant factor.
_FIRST_RATE, _LAST_RATE, _RATE_EPOCHS = 0.1, 1e-4, 200

Splits = tuple[tf.data.Dataset, tf.data.Dataset]


def cifar10_network(
    model_type: str | keras.Model = "resnet",
    use_regularization: bool = True,
    use_bias: bool = True,
) -> keras.Model:
    """Return an untrained network: images ``(b, 32, 32, 3)`` in -1..1 to logits ``(b, 10)``.

    Parameters
    ----------
    model_type
        The feature extractor: ``"resnet"``, ``"efficient_net"`` (B0), ``"vgg19"``, or a functional
        model that gives feature maps.
    use_regularization
        Whether the two dense layers at the end carry L1 and L2 penalties of 1e-4.
    use_bias
        Whether the last layer has a bias.

    Raises
    ------
    ValueError
        For another name.
    """
    features = _features(model_type)
    penalty = keras.regularizers.L1L2(1e-4, 1e-4) if use_regularization else None
    x = layers.Flatten()(features.outputs[0])
    x = layers.Dense(128, kernel_regularizer=penalty)(x)
    x = layers.Dropout(0.4)(x)
    x = layers.LeakyReLU()(x)
    logits = layers.Dense(
        _CLASSES,
        use_bias=use_bias,
        kernel_initializer="he_normal",
        kernel_regularizer=penalty,
        name="logits",
    )(x)
    return keras.Model(features.inputs[0], logits, name="cifar10_network")


def _features(model_type: str | keras.Model) -> keras.Model:
    if isinstance(model_type, keras.Model):
        # A clone has first weights of its own, so that one training does not go on from another.
        return keras.models.clone_model(model_type)
    if model_type == "resnet":
        return ResNet(_IMAGE_SHAPE, include_top=False)
    settings = {"include_top": False, "weights": None, "input_shape": _IMAGE_SHAPE}
    if model_type == "efficient_net":
        return keras.applications.EfficientNetB0(**settings)
    if model_type == "vgg19":
        return keras.applications.VGG19(**settings)
    message = (
        'Argument `model_type` must be "resnet", "efficient_net", "vgg19" or a keras.Model. '
        f"Received: {model_type!r}."
    )
    raise ValueError(message)


def load_cifar10(data_dir: str | os.PathLike[str] | None = None) -> Splits:
    """Return the training and the test set of CIFAR-10 as single examples, from TFDS.

    Images are ``(32, 32, 3)``, float32 in -1..1, labels int64 classes.

    Parameters
    ----------
    data_dir
        Folder of prepared datasets; None means the default of TensorFlow Datasets.

    Raises
    ------
    DataSourceError
        If the dataset is not prepared and cannot be downloaded.
    MissingExtraError
        If TensorFlow Datasets cannot be imported.
    """
    train, test = (
        load_source(f"tfds:cifar10:{split}", _READ_AT_ONCE, data_dir=data_dir).dataset
        for split in ("train", "test")
    )
    return _scaled(train.unbatch()), _scaled(test.unbatch())


def _scaled(dataset: tf.data.Dataset) -> tf.data.Dataset:
    return dataset.map(lambda x, y: (tf.cast(x, tf.float32) / 127.5 - 1.0, y))


class Cifar10TrainingProcedure(KerasTrainingProcedure):
    """Trains a network on CIFAR-10, with images that are shifted and mirrored at random.

    Parameters
    ----------
    epochs
        Passes over the training set.
    model_type
        As for `cifar10_network`.
    use_regu
        Whether the last layers carry penalties.
    use_bias
        Whether the last layer has a bias.
    force_overfit
        Whether to train with momentum and large steps, to the point of learning labels by heart,
        rather than with Adam, whose rate halves every ten epochs.
    epochs_to_save
        Epochs, counted from 0, whose model and learning rate are kept for TracIn.
    verbose
        Whether Keras reports its progress.
    use_tensorboard
        Whether the training is logged for TensorBoard.
    """

    def __init__(
        self,
        epochs: int = 60,
        model_type: str | keras.Model = "resnet",
        use_regu: bool = True,
        use_bias: bool = True,
        force_overfit: bool = False,
        epochs_to_save: Sequence[int] | None = None,
        verbose: bool = True,
        use_tensorboard: bool = False,
    ) -> None:
        super().__init__(
            self._compiled_model,
            epochs,
            epochs_to_save,
            self._schedule,
            verbose,
            use_tensorboard,
        )
        self.model_type = model_type
        self.use_regu = use_regu
        self.use_bias = use_bias
        self.force_overfit = force_overfit

    def _compiled_model(self) -> keras.Model:
        model = cifar10_network(self.model_type, self.use_regu, self.use_bias)
        optimizer = (
            keras.optimizers.SGD(_FIRST_RATE, momentum=0.9)
            if self.force_overfit
            else keras.optimizers.Adam(_LEARNING_RATE)
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
        return model

    def _schedule(self) -> list[keras.callbacks.Callback]:
        rate = falling_rate if self.force_overfit else halving_rate
        return [keras.callbacks.LearningRateScheduler(rate)]

    def _augment(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        # Keras seeds TensorFlow, and with it this number; a generator goes on where it was at the
        # next epoch, where the random operations of `tf.image` would start again.
        seed = int(tf.random.uniform((), maxval=2**31 - 1, dtype=tf.int32))
        generator = tf.random.Generator.from_seed(seed)
        return batches.map(lambda x, y: (_move(x, generator), y))


def halving_rate(epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 0: 1e-3, halved every ten epochs."""
    return _LEARNING_RATE * 0.5 ** sum(epoch >= first for first in _HALVING_EPOCHS)


def falling_rate(epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 0: from 0.1 to 1e-4 in 200 epochs."""
    return _FIRST_RATE * math.pow(_LAST_RATE / _FIRST_RATE, epoch / _RATE_EPOCHS)


def _move(images: tf.Tensor, generator: tf.random.Generator) -> tf.Tensor:
    """Mirror each image ``(b, h, w, c)`` with probability one half, and shift it."""
    size = tf.shape(images)
    mirrored = generator.uniform((size[0],)) < 0.5
    images = tf.where(mirrored[:, None, None, None], tf.reverse(images, [2]), images)
    shifts = generator.uniform((2, size[0]), -_LARGEST_SHIFT, _LARGEST_SHIFT + 1, dtype=tf.int32)
    # Beyond the edge the nearest pixel is repeated.
    rows = tf.clip_by_value(tf.range(size[1])[None] + shifts[0][:, None], 0, size[1] - 1)
    columns = tf.clip_by_value(tf.range(size[2])[None] + shifts[1][:, None], 0, size[2] - 1)
    images = tf.gather(images, rows, axis=1, batch_dims=1)
    return tf.gather(images, columns, axis=2, batch_dims=1)


class Cifar10MislabelingDetectorEvaluator(MislabelingDetectorEvaluator):
    """Mislabel detection on CIFAR-10, read through TensorFlow Datasets.

    Parameters
    ----------
    epochs, model_type, use_regu, use_bias, force_overfit, epochs_to_save
        As for `Cifar10TrainingProcedure`.
    mislabeling_ratio
        Share of the labels to flip. The default, that of Influenciae, flips 25 of 50,000, which
        makes for wide spreads.
    train_batch_size, test_batch_size, influence_batch_size
        As for `MislabelingDetectorEvaluator`.
    take_batch
        Number of examples of the training and of the test set to use; None takes all.
    verbose_training
        Whether Keras reports the progress of the training.
    use_tensorboard
        Whether the training is logged for TensorBoard.
    data
        Training and test set in place of CIFAR-10: single examples, images ``(32, 32, 3)`` and
        classes.
    data_dir
        As for `load_cifar10`.
    """

    def __init__(
        self,
        epochs: int = 60,
        model_type: str | keras.Model = "resnet",
        mislabeling_ratio: float = 0.0005,
        use_regu: bool = True,
        use_bias: bool = True,
        force_overfit: bool = False,
        train_batch_size: int = 128,
        test_batch_size: int = 128,
        influence_batch_size: int | None = None,
        epochs_to_save: Sequence[int] | None = None,
        take_batch: int | None = None,
        verbose_training: bool = True,
        use_tensorboard: bool = False,
        data: Splits | None = None,
        data_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        procedure = Cifar10TrainingProcedure(
            epochs,
            model_type,
            use_regu,
            use_bias,
            force_overfit,
            epochs_to_save,
            verbose_training,
            use_tensorboard,
        )
        train, test = load_cifar10(data_dir) if data is None else data
        if take_batch is not None:
            train, test = train.take(take_batch), test.take(take_batch)
        super().__init__(
            train,
            test,
            procedure,
            nb_classes=_CLASSES,
            mislabeling_ratio=mislabeling_ratio,
            train_batch_size=train_batch_size,
            test_batch_size=test_batch_size,
            influence_batch_size=influence_batch_size,
            config={"data": "cifar10" if data is None else "given", "take_batch": take_batch},
        )
