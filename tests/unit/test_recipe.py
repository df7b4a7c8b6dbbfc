"""What may be asked of a picture: the limits are in the models, and a mistake is named by its place and field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from camdock.images import EXAMPLES
from camdock.recipe import MOST_OPERATIONS, OPERATIONS, RECIPE, name_of


def test_there_is_an_example_of_every_operation_and_it_may_be_asked() -> None:
    assert [one["op"] for one in EXAMPLES] == [name_of(one) for one in OPERATIONS]
    assert [type(one) for one in RECIPE.validate_python(list(EXAMPLES))] == list(OPERATIONS)


def test_a_whole_number_may_be_written_as_json_writes_it() -> None:
    (crop,) = RECIPE.validate_json('[{"op": "crop", "width": 20.0, "height": 3}]')
    assert crop.model_dump()["width"] == 20


@pytest.mark.parametrize(
    ("operation", "names"),
    [
        ({"op": "resize"}, "give width, height or both"),
        ({"op": "resize", "width": 5, "fit": "cover"}, "needs width and height"),
        ({"op": "resize", "width": 0}, "width"),
        ({"op": "resize", "width": 8193}, "width"),
        ({"op": "resize", "width": "640"}, "width"),
        ({"op": "resize", "width": True}, "width"),
        ({"op": "resize", "width": 64, "depth": 3}, "depth"),
        ({"op": "crop", "width": 3}, "height"),
        ({"op": "crop", "x": -1, "width": 3, "height": 3}, "x"),
        ({"op": "rotate", "degrees": 361}, "degrees"),
        ({"op": "rotate", "degrees": 3, "background": "red"}, "background"),
        ({"op": "flip", "direction": "up"}, "direction"),
        ({"op": "blur", "radius": 101}, "radius"),
        ({"op": "blur", "radius": float("nan")}, "radius"),
        ({"op": "sharpen", "percent": 501}, "percent"),
        ({"op": "threshold", "level": 255}, "level"),
        ({"op": "normalise", "cutoff": 41}, "cutoff"),
        ({"op": "annotate", "text": ""}, "text"),
        ({"op": "annotate", "text": "x" * 201}, "text"),
        ({"op": "annotate", "text": "x", "size": 401}, "size"),
        ({"op": "encode", "format": "gif"}, "format"),
        ({"op": "encode", "quality": 0}, "quality"),
        ({"op": "explode"}, "explode"),
        ({}, "op"),
    ],
)
def test_a_wrong_operation_is_named_by_its_place_and_field(operation: dict[str, Any], names: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RECIPE.validate_python([{"op": "edges"}, operation])
    (mistake,) = caught.value.errors()
    assert mistake["loc"][0] == 1
    assert names in (*map(str, mistake["loc"]), *mistake["msg"].split()) or names in mistake["msg"]


def test_a_list_is_not_endless_and_encode_is_its_end() -> None:
    flips = [{"op": "flip"}] * MOST_OPERATIONS
    assert len(RECIPE.validate_python(flips)) == MOST_OPERATIONS
    for wrong in ([*flips, {"op": "flip"}], [{"op": "encode"}, {"op": "flip"}], {"op": "flip"}, "flip", None):
        with pytest.raises(ValidationError):
            RECIPE.validate_json(json.dumps(wrong))
