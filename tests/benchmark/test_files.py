import json
import math

import pytest

from attention_sampling.benchmark.files import write_json


def test_json_reads_as_it_was_and_has_numbers_side_by_side(tmp_path):
    content = {
        "curve": [0.5, None, -1e-7, True],
        "nested": [[1, 2], [], [3]],
        "words": ["[\n  1,\n  2\n]", "[ 1,  2 ]", 'a "quoted" one'],
        "rows": [{"shape": [500, 500, 3]}, {}],
        "none": [],
    }
    path = tmp_path / "some.json"
    write_json(path, content)
    assert json.loads(path.read_text()) == content
    lines = [line.strip() for line in path.read_text().splitlines()]
    assert '"curve": [0.5, null, -1e-07, true],' in lines
    assert '"shape": [500, 500, 3]' in lines


def test_json_that_cannot_be_said_leaves_what_was_there(tmp_path):
    path = tmp_path / "some.json"
    write_json(path, {"before": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"after": math.nan})
    assert json.loads(path.read_text()) == {"before": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["some.json"]
