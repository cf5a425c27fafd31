"""What an experiment consists of."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras


@dataclasses.dataclass(frozen=True)
class PublishedRow:
    """What the paper reports of a method; None where it has no number.

    Attributes:
        train_loss: mean over its runs of the cross-entropy on the training images.
        train_loss_error: standard error of that mean.
        test_error: mean share of the test images that were classified wrongly.
        test_error_error: standard error of that mean.
        ms: milliseconds a sample for forward and backward pass, batch 1.
        mb: megabytes of peak memory a sample, batch 1.
    """

    train_loss: float | None = None
    train_loss_error: float | None = None
    test_error: float | None = None
    test_error_error: float | None = None
    ms: float | None = None
    mb: float | None = None


@dataclasses.dataclass(frozen=True)
class Task:
    """An experiment of the paper: its sizes, its networks and its published numbers.

    ``resized`` makes one of other sizes, ``dataclasses.replace`` of other networks.

    Attributes:
        name: as on the command line.
        image_shape: (height, width, channels) of the images, in pixels.
        view_size: (height, width) of the low-resolution view, in pixels.
        patch_size: (height, width) of the patches, in pixels of the image.
        n_classes: kinds of images to tell apart.
        receptive_field: of the attention network, as of ``attention_sampling()``.
        grid_size: rows and columns of the patches of Deep MIL; None for half a patch
            from one to the next.
        batch_size: images a training step.
        entropy: strength of the entropy regularizer of the attention.
        reference: method that the cost of the others is compared with.
        published: method -> numbers of the paper, in the order of its table.
        attention: from channels to the attention network.
        feature: from the shape of a patch, and ``center``, to the feature network.
        convolutional: further keywords of ``convolutional_network``.
    """

    name: str
    image_shape: tuple[int, int, int]
    view_size: tuple[int, int]
    patch_size: tuple[int, int]
    n_classes: int
    receptive_field: int
    grid_size: tuple[int, int] | None
    batch_size: int
    entropy: float
    reference: str
    published: Mapping[str, PublishedRow]
    attention: Callable[..., keras.Model]
    feature: Callable[..., keras.Model]
    convolutional: Mapping[str, Any] = dataclasses.field(default_factory=dict)

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
            ValueError: the patches are larger than the images, the views too, or the
                receptive field of the attention network is not smaller than the views.

        Example:

        >>> from attention_sampling.experiments.tasks import TASKS
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
        return dataclasses.replace(
            self,
            image_shape=(*size, self.image_shape[-1]),
            view_size=tuple(view),
            grid_size=grid,
        )

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the patches."""
        return (*self.patch_size, self.image_shape[-1])

    @property
    def view_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the views."""
        return (*self.view_size, self.image_shape[-1])
