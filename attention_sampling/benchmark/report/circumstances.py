"""Under which circumstances a table was measured: commands, versions, machine, seeds."""

from collections.abc import Sequence
from typing import Any

from attention_sampling.benchmark.report.files import Measurement
from attention_sampling.benchmark.report.page import Block, Commands, Items, Paragraph

_DATA = {"images": "images", "noise_patches": "patches of noise in each"}


def describe_circumstances(measurements: Sequence[Measurement]) -> list[Block]:
    """Return what stands under a table.

    Args:
        measurements: that the table is of; none for nothing.
    """
    if not measurements:
        return []
    places: dict[str, list[str]] = {}
    for measurement in measurements:
        content = measurement.content
        place = f"{_machine(content['machine'])}; {_versions(content['versions'])}"
        places.setdefault(place, []).append(measurement.name)
    items = [f"{place}: {', '.join(names)}" for place, names in places.items()]
    seeds = [
        f"{name} {', '.join(map(str, numbers))}"
        for name, numbers in _seeds(measurements).items()
        if numbers
    ]
    if seeds:
        items.append(f"Seeds: {'; '.join(seeds)}")
    data = dict.fromkeys(filter(None, map(_data, measurements)))
    if data:
        items.append(f"Data: {'; '.join(data)}")
    dates = sorted({m.content["date"] for m in measurements if "date" in m.content})
    if dates:
        items.append(f"Dates: {' to '.join(dict.fromkeys([dates[0], dates[-1]]))}")
    commands = dict.fromkeys(
        line for m in measurements for line in m.content["command"].splitlines()
    )
    return [Paragraph("Measured by:"), Commands(list(commands)), Items(items)]


def _seeds(measurements: Sequence[Measurement]) -> dict[str, list[int]]:
    """Return the seeds of the runs of each method."""
    seeds: dict[str, set[int]] = {}
    for measurement in measurements:
        runs = measurement.content.get("runs", [])
        method = measurement.content.get("method", "")
        seeds.setdefault(method, set()).update(run["seed"] for run in runs)
    return {method: sorted(numbers) for method, numbers in seeds.items()}


def _data(measurement: Measurement) -> str:
    """Return what a training is of, nothing where it does not say."""
    settings = measurement.content["settings"].get("data", {})
    texts = [measurement.content["data"]] if "data" in measurement.content else []
    for name, words in _DATA.items():
        if settings.get(name) is not None:
            texts.append(f"{settings[name]:,} {words}")
    if "digest" in settings:
        texts.append(f"digest {settings['digest']}")
    return ", ".join(texts)


def _machine(machine: dict[str, Any]) -> str:
    """Return a machine as text, what is unknown with its name."""
    said = dict(machine)
    parts = [said.pop("processor", None)]
    if "cores" in said:
        parts.append(f"{said.pop('cores')} cores")
    parts.append(
        " ".join(
            str(said.pop(key)) for key in ("system", "architecture") if key in said
        )
    )
    parts += [f"{key.replace('_', ' ')} {value}" for key, value in said.items()]
    return ", ".join(str(part) for part in parts if part)


def _versions(versions: dict[str, Any]) -> str:
    # The backend is among the names, with its version.
    return ", ".join(
        f"{name} {version}" for name, version in versions.items() if name != "backend"
    )
