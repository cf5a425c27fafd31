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

    ``dataclasses.replace`` makes one of other sizes.

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

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the patches."""
        return (*self.patch_size, self.image_shape[-1])

    @property
    def view_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the views."""
        return (*self.view_size, self.image_shape[-1])
