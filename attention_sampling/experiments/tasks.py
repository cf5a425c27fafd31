"""The three experiments of the paper, and the model of each method for them."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras

from attention_sampling.experiments import baselines, networks
from attention_sampling.experiments.methods import (
    PUBLISHED,
    Method,
    PublishedRow,
    parse_method,
)
from attention_sampling.pipeline import attention_sampling
from attention_sampling.regularizers import MultinomialEntropy


@dataclasses.dataclass(frozen=True)
class Task:
    """An experiment of the paper: its sizes and its networks.

    ``resized`` makes one of other sizes, ``dataclasses.replace`` of other networks.

    Attributes:
        name: as on the command line.
        image_shape: (height, width, channels) of the images, in pixels.
        view_size: (height, width) of the low-resolution view, in pixels.
        patch_size: (height, width) of the patches, in pixels of the image.
        n_classes: kinds of images to tell apart.
        reference: method that the cost of the others is compared with.
        attention: from channels to the attention network.
        feature: from the shape of a patch, and ``center``, to the feature network.
        receptive_field: of the attention network, as of ``attention_sampling()``.
        grid_size: rows and columns of the patches of Deep MIL; None for half a patch
            from one to the next.
        convolutional: further keywords of ``convolutional_network``.
        entropy: strength of the entropy regularizer of the attention in the paper.
    """

    name: str
    image_shape: tuple[int, int, int]
    view_size: tuple[int, int]
    patch_size: tuple[int, int]
    n_classes: int
    reference: str
    attention: Callable[..., keras.Model]
    feature: Callable[..., keras.Model]
    receptive_field: int = 0
    grid_size: tuple[int, int] | None = None
    convolutional: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    entropy: float = 1e-4

    @property
    def published(self) -> Mapping[str, PublishedRow]:
        """The paper's numbers by method, in the order of its table."""
        return PUBLISHED[self.name]

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods of the paper, in the order of its table."""
        return tuple(self.published)

    @property
    def deep_mil_grid(self) -> tuple[int, int]:
        """Rows and columns of the patches of Deep MIL."""
        if self.grid_size is not None:
            return self.grid_size
        height, width = self.image_shape[:2]
        return 2 * height // self.patch_size[0], 2 * width // self.patch_size[1]

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the patches."""
        return (*self.patch_size, self.image_shape[-1])

    @property
    def view_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the views."""
        return (*self.view_size, self.image_shape[-1])

    def resized(
        self,
        image_size: tuple[int, int] | None = None,
        view_size: tuple[int, int] | None = None,
    ) -> "Task":
        """Return the experiment with images or views of another size.

        The patches keep their size, and those of Deep MIL their distance.

        Args:
            image_size: (height, width) in pixels, None for as they are.
            view_size: (height, width) in pixels, None for as they are.

        Raises:
            ValueError: the patches or the views are larger than the images, or the
                receptive field of the attention network is not smaller than the views.

        Example:

        >>> TASKS["colon_cancer"].resized((1000, 500), (200, 100)).deep_mil_grid
        (100, 50)
        """
        size, view = image_size or self.image_shape[:2], view_size or self.view_size
        for name, smallest in (("patch_size", self.patch_size), ("view_size", view)):
            if any(small > large for small, large in zip(smallest, size, strict=True)):
                raise ValueError(
                    f"The images must be at least as large as {name}={smallest}. "
                    f"Received: image_size={tuple(size)}"
                )
        if min(view) <= self.receptive_field:
            raise ValueError(
                "The views must be larger than the receptive field of the attention "
                f"network, {self.receptive_field} pixels. "
                f"Received: view_size={tuple(view)}"
            )
        grid = self.grid_size and tuple(
            max(1, round(count * new / old))
            for count, new, old in zip(
                self.grid_size, size, self.image_shape, strict=False
            )
        )
        shape = (*size, self.image_shape[-1])
        return dataclasses.replace(
            self, image_shape=shape, view_size=tuple(view), grid_size=grid
        )


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="megapixel_mnist",
            image_shape=(1500, 1500, 1),
            view_size=(180, 180),
            patch_size=(50, 50),
            n_classes=10,
            reference="ats-10",
            attention=networks.megapixel_mnist_attention,
            feature=networks.megapixel_mnist_features,
            # "Comparably increased capacity": two blocks a stage and widths that double,
            # the ResNet-14 of He et al. at twice its width. A stem of stride 2 leaves a
            # quarter of 2.25 megapixels, with strokes of a pen for finest detail.
            convolutional={
                "filters": (32, 32, 64, 64, 128, 128),
                "strides": (2, 1, 2, 1, 2, 1),
                "first_stride": 2,
            },
        ),
        Task(
            name="colon_cancer",
            image_shape=(500, 500, 3),
            view_size=(100, 100),
            patch_size=(27, 27),
            n_classes=2,
            reference="ats-10",
            attention=networks.colon_cancer_attention,
            feature=networks.colon_cancer_features,
            grid_size=(50, 50),
        ),
        Task(
            name="speed_limits",
            image_shape=(960, 1280, 3),
            view_size=(288, 384),
            patch_size=(100, 100),
            n_classes=4,
            reference="ats-5",
            attention=networks.speed_limits_attention,
            # As the authors' code has it, and the default of convolutional_network().
            feature=functools.partial(
                networks.residual_features, filters=(32, 32, 32), strides=(2, 2, 2)
            ),
            receptive_field=networks.SPEED_LIMITS_RECEPTIVE_FIELD,
            grid_size=(12, 16),
        ),
    )
}


def build_model(
    task: Task,
    method: Method | str,
    seed: int | None = None,
    entropy: float | None = None,
    feature_scale: float = 1.0,
    center: bool = False,
    sampling: Mapping[str, Any] | None = None,
) -> keras.Model:
    """Build the model of a method for a task.

    Args:
        task: one of ``TASKS``, or one made of it.
        method: as ``parse_method`` gives it, or its text.
        seed: of the sampling; None for a random one. Weights are Keras' own business.
        entropy: strength of the entropy regularizer of the attention, 0 for none; None
            for that of the task. Of "ats": the others have none.
        feature_scale: factor of the feature before the classifier, of "ats", "u" and
            "deep-mil". Features of unit norm, averaged, move the logits little.
        center: batch-normalize the features before they get unit norm, of "ats", "u" and
            "deep-mil".
        sampling: further keywords of ``attention_sampling()``, of "ats" and "u". With
            ``source`` the images stay on disk.

    Returns:
        Functional model, not compiled, from a list in the order of ``method.inputs``,
        view (batch, height, width, channels) float and image likewise, uint8,
        pixels 0 to 255, or with a source view and index (batch,) int32, to the
        probability of each class (batch, n_classes), float32. Where there is one input,
        the list has one.

    Raises:
        ValueError: no such method, keywords that it does not have, or sizes that do not
            fit.

    Example:

    >>> model = build_model(TASKS["colon_cancer"], "ats-10")
    >>> [entry.name for entry in model.inputs], model.output_shape
    (['view', 'image'], (None, 2))

    Reference:
        Katharopoulos and Fleuret 2019, section 4.
    """
    sampling = dict(sampling or {})
    method = parse_method(method) if isinstance(method, str) else method
    if sampling and "view" not in method.inputs:
        raise ValueError(
            f"The method {method} samples no patches. Expected: sampling without "
            f"entries. Received: sampling={sampling!r}"
        )
    view = keras.Input(task.view_shape, name="view")
    if sampling.get("source") is not None:
        image = keras.Input((), name="index", dtype="int32")
    else:
        image = keras.Input(task.image_shape, name="image", dtype="uint8")
    inputs = [view, image] if "view" in method.inputs else [image]
    if method.kind == "cnn":
        features = baselines.convolutional_network(
            task.image_shape, method.scale, **task.convolutional
        )(image)
    else:
        features = _pool_patches(task, method, seed, entropy, center, sampling, inputs)
        if feature_scale != 1:
            features = keras.layers.Rescaling(feature_scale, dtype="float32")(features)
    # Probabilities rounded to bfloat16 would give losses of 0.
    label = keras.layers.Dense(
        task.n_classes, activation="softmax", dtype="float32", name="label"
    )(features)
    return keras.Model(inputs, label, name=task.name)


def _pool_patches(task, method, seed, entropy, center, sampling, inputs):
    """Return one feature an image, of the patches that the method looks at."""
    options = {"center": True} if center else {}
    feature = task.feature(task.patch_shape, **options)
    if method.kind == "deep-mil":
        pool = baselines.deep_mil(
            feature, task.patch_size, task.deep_mil_grid, gated=method.gated
        )
        return pool(inputs[0])[0]
    attention = task.attention(task.image_shape[-1])
    strength = task.entropy if entropy is None else entropy
    regularizer = MultinomialEntropy(strength) if strength else None
    if method.kind == "u":
        if sampling.get("prediction") == "top_k" or sampling.get("proposal"):
            raise ValueError(
                f"The method {method} samples every cell alike. Expected: sampling "
                "without a proposal, and prediction not 'top_k', which would always be "
                f"the first cells. Received: sampling={sampling!r}"
            )
        map_size = attention.compute_output_shape((None, *task.view_shape))[1:]
        attention, regularizer = baselines.UniformAttention(map_size), None
    keywords = {
        "patch_size": task.patch_size,
        "n_patches": method.n_patches,
        "attention_regularizer": regularizer,
        "receptive_field": task.receptive_field,
        "seed": seed,
        **sampling,
    }
    return attention_sampling(attention, feature, **keywords)(inputs)[0]
