"""What a report says in words: of what its numbers are."""

from collections.abc import Sequence

from attention_sampling.benchmark.report.paper import RUNS
from attention_sampling.benchmark.report.series import Series
from attention_sampling.experiments.tasks import Task

ABOUT = (
    "Losses and errors are means over independent runs, ± the standard error of the mean "
    "where there are two or more: it tells of other seeds on the same images, not of other "
    "images. A train loss is the mean over the steps of the last epoch, of augmented images "
    "where a task augments them; the paper does not say of what its own are. Time and memory a sample are of a forward and backward "
    "pass, time the median of the steps, memory the peak of TensorFlow's allocator; the "
    "paper measured both on a GPU, so that ratios compare, not milliseconds. Numbers of "
    "the paper are from Katharopoulos and Fleuret 2019, Tables 1 and 2 and section 4."
)
ABOUT_COSTS = (
    "Time and memory are at batch 1 and at the sizes of the paper, once for each method, "
    "whatever the settings of its trainings: in float32, with the unordered estimator, "
    "without control variate, proposal and centred features. They are of the machine that "
    "stands below the table of costs, which need not be that of the trainings."
)
_RATIOS = (
    "A ratio of times is the median over the turns in which a method and that of "
    "reference took steps after each other. The times are medians over all steps, those "
    "of the method of reference over its turns with every other one, beside some of which "
    "it is slower. So the times need not have that ratio."
)
PAIRS = (
    "Each ratio is the median over pairs of steps, not the quotient of the two medians "
    "beside it. The bare networks do not depend on each other and may run at once. In order, "
    "the feature network waits for the attention map, as it must where this decides which "
    "patches it gets. Processor time is the ratio, to the networks at once, of the time of "
    "all threads. The step is in float32, with the unordered estimator, without control "
    "variate, proposal and centred features."
)
_EPOCHS = (
    "Not all methods were trained for as many epochs: with more, those that had fewer "
    "might err less."
)
_LABELS = (
    "Rows of a method with other settings say in what these differ from its plain row."
)
_FOLDS = (
    "Each run draws its folds with its seed: the standard error includes that choice."
)
_SPLITS = (
    "Where a data set has no test images of its own, as the German one, each run draws "
    "them with its seed: the standard error includes that choice. The paper tests all "
    "runs on the same 684 images."
)
_LOSS = (
    "Training weighs each class by the inverse of its prior, as in the paper. Train "
    "losses here are without these weights. The paper does not say whether its own are: "
    "1.468 of U-5 is more than 1.386, a guess among four classes. The two columns may "
    "not compare."
)
_IN_WORDS = (
    'The paper has the errors of ATS-5 and of the CNN in words, "approximately 20%" and '
    '"roughly 40%", and all else in a figure.'
)
_CAPACITY = (
    'The paper says of this CNN that its capacity is "comparably increased". How far was '
    "chosen here, and its time and memory are of that choice."
)
_SHORT = (
    "A test error falls short of the paper where it is above the paper's by more than "
    "one standard error of the difference. The paper has {} runs."
)


def notes_on_runs(task: Task, series: Sequence[Series], of_paper: bool) -> list[str]:
    """Say what the numbers of a task's runs are of."""
    texts = [_SHORT.format(RUNS[task.name])] if of_paper else []
    if len({one.epochs for one in series if not one.label}) > 1:
        texts.append(_EPOCHS)
    if any(one.label for one in series):
        texts.append(_LABELS)
    if any(len(run) > 1 for one in series for run in one.fits):
        texts.append(_FOLDS)
    if task.name == "speed_limits":
        texts.append(_SPLITS)
        texts += [_LOSS] * of_paper
    if task.name == "megapixel_mnist":
        texts += [_IN_WORDS] * of_paper
    return texts


def notes_on_costs(task: Task) -> list[str]:
    """Say what the costs of a task are of."""
    return [_RATIOS, *[_CAPACITY] * (task.name == "megapixel_mnist")]
