"""Train a method of the paper on one of its experiments, over runs and folds."""

import shlex
from collections import Counter

import keras
import numpy as np
from experiment_figures import draw_learning_curves, draw_pictures
from experiment_metrics import average_fits, check_fit, fit_metrics
from experiment_options import FREE_SETTINGS, experiment_settings
from experiment_training import build_compiled_model, restore_training, train
from run_directory import begin_output, check_output
from run_files import read_json
from run_lock import one_process
from run_progress import note_planned_epochs
from run_settings import check_settings, earlier_epochs
from script import explained

import attention_sampling as ats
from attention_sampling.benchmark.circumstances import date, machine, versions
from attention_sampling.benchmark.files import write_json
from attention_sampling.callbacks import check_model_file


def check_runs(arguments, output):
    """Refuse to touch earlier runs, unless they are to be resumed or overwritten."""
    check_output(output, arguments.resume, arguments.overwrite)
    if arguments.resume:
        check_settings(output, experiment_settings(arguments), FREE_SETTINGS)


def run_experiment(experiment, arguments, output, argv):
    """Train all runs and folds that are not done; write and draw what came out.

    Args:
        experiment: an `Experiment`.
        arguments: of the command line, as `experiment_options.set_defaults` left them.
        output: directory of the runs.
        argv: the command line.
    """
    with explained(output), one_process(output):
        Runs(experiment, arguments, output, argv).run()


def _place(fit):
    return fit["run"], fit["fold"] or 0


class Runs:
    """The runs of an experiment, with what they leave in their directory.

    Args:
        experiment, arguments, output, argv: as of `run_experiment`.
    """

    def __init__(self, experiment, arguments, output, argv):
        if experiment.source is not None and "view" not in arguments.method.inputs:
            raise ValueError(
                "Images that are read on demand are for methods that draw patches. "
                "Expected: --method ats-N or u-N. "
                f"Received: --method {arguments.method}"
            )
        self.experiment, self.arguments = experiment, arguments
        self.output, self.argv = output, argv
        self.settings = {**experiment_settings(arguments), "data": experiment.data}
        self.fits, self.earlier = [], None
        if arguments.resume:
            check_settings(output, self.settings, FREE_SETTINGS)
            self.fits, self.earlier = self._finished_fits(), earlier_epochs(output)
        self.begun = False

    def run(self):
        """Train what is not done yet; then write, draw and say what came out."""
        experiment, arguments = self.experiment, self.arguments
        for run in range(arguments.runs):
            for number, split in enumerate(experiment.splits(arguments.seed + run)):
                fold = None if experiment.folds is None else number
                if (run, fold) in [(fit["run"], fit["fold"]) for fit in self.fits]:
                    print(f"Done before: {self._name(run, fold)}")
                else:
                    self._train(run, fold, split)
                    self._write_metrics()
        self.fits.sort(key=_place)
        metrics = self._write_metrics()
        draw_learning_curves(
            self.fits,
            experiment.folds or 1,
            self.output / "curve.png",
            f"{experiment.task.name.replace('_', ' ')}, {arguments.method}",
        )
        if arguments.pictures and arguments.method.kind in ("ats", "deep-mil"):
            self._draw_pictures()
        print(self._summary(metrics))

    def _finished_fits(self):
        """Return the metrics of earlier fits that are of use for what is asked for."""
        path = self.output / "metrics.json"
        if not path.exists():
            return []
        try:
            fits = read_json(path)["fits"]
            for fit in fits:
                check_fit(fit)
            return [
                {"extended_from": None, **fit}
                for fit in fits
                if fit["epochs"] == self.arguments.epochs
                and fit["run"] < self.arguments.runs
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"What the runs have come to cannot be read: {error!s}. Delete {path}, "
                "and --resume makes it anew, from the models and logs"
            ) from error

    def _name(self, run, fold):
        name = f"run {run + 1} of {self.arguments.runs}"
        return name if fold is None else f"{name}, fold {fold + 1}"

    def _directory(self, run, fold):
        directory = self.output / f"run-{run}"
        return directory if fold is None else directory / f"fold-{fold}"

    def _train(self, run, fold, split):
        arguments, seed = self.arguments, self.arguments.seed + run
        n_train, n_test = len(split.train.labels), len(split.test.labels)
        if len(np.unique(split.train.labels)) < 2:
            raise ValueError(
                "There is nothing to learn. Expected: training images of two classes or "
                f"more. Received: {n_train} of the same class"
            )
        directory = self._directory(run, fold)
        model = build_compiled_model(
            arguments, self.experiment.task, self.experiment.source, n_train, seed
        )
        if self.experiment.prepare is not None:
            self.experiment.prepare(model)
        done = 0
        if arguments.resume:
            done = restore_training(arguments, model, n_train, directory, self.earlier)
        self._begin()
        print(
            f"Training {arguments.method}, {self._name(run, fold)}, seed {seed}: "
            f"{n_train} training and {n_test} test images",
            flush=True,
        )
        rows = train(
            arguments,
            model,
            split,
            directory,
            done,
            (seed, fold or 0),
            self.experiment.balanced,
        )
        self.fits.append(fit_metrics(rows, run, seed, fold, n_train, n_test))

    def _begin(self):
        """Change what is in the directory, once, when all is known to be well."""
        if self.begun:
            return
        begin_output(self.output, self.arguments.overwrite)
        if self.earlier is not None:
            note_planned_epochs(self.output, self.earlier)
        write_json(self.output / "settings.json", self.settings)
        self.begun = True

    def _write_metrics(self):
        metrics = {
            "kind": "training",
            "task": self.experiment.task.name,
            "image_shape": self.experiment.task.image_shape,
            "view_size": self.experiment.task.view_size,
            "method": str(self.arguments.method),
            "date": date(),
            "command": shlex.join(
                ["python", f"examples/{self.experiment.name}.py", *self.argv]
            ),
            # Without a path of this machine: the data have a digest.
            "settings": {
                name: value
                for name, value in self.settings.items()
                if name != "dataset"
            },
            "versions": versions(),
            "machine": machine(),
            "fits": self.fits,
            **average_fits(self.fits, self.experiment.folds or 1),
        }
        write_json(self.output / "metrics.json", metrics)
        return metrics

    def _draw_pictures(self):
        """Draw the attention of the first run on images that it was tested with."""
        first = self._directory(0, None if self.experiment.folds is None else 0)
        check_model_file(first / "model.keras")
        model = keras.saving.load_model(first / "model.keras", compile=False)
        if self.experiment.source is not None:
            ats.set_source(model, self.experiment.source)
        draw_pictures(
            model,
            self.experiment.task,
            self.experiment.splits(self.arguments.seed)[0].test,
            self.arguments.method.inputs,
            self.experiment.classes,
            self.arguments.pictures,
            self.output / "pictures",
        )

    def _summary(self, metrics):
        """Return what came out as one line."""
        said = []
        for name, words in (("test_error", "Test error"), ("train_loss", "train loss")):
            said.append(f"{words} {metrics['mean'][name]:.3f}")
            if metrics["standard_error"][name] is not None:
                said[-1] += f" ± {metrics['standard_error'][name]:.3f}"
        if len(metrics["runs"]) > 1:
            said[-1] += f" (mean and standard error of {len(metrics['runs'])} runs)"
        splits = self.experiment.splits(self.arguments.seed)
        labels = np.concatenate([split.test.labels for split in splits])
        most_frequent = max(Counter(map(int, labels)).values()) / len(labels)
        return (
            f"{', '.join(said)}, after {self.arguments.epochs} epochs and "
            f"{metrics['mean']['seconds']:.0f} s of training. Always the most frequent "
            f"class: test error {1 - most_frequent:.3f}. "
            f"Everything is in {self.output}."
        )
