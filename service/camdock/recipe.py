"""Recipe: what may be asked of a picture, operation by operation, with the limits of each.

Runs in: the API process. What each does to pixels is in operations.py, under the same name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, model_validator

MOST_OPERATIONS = 20
LONGEST_SIDE = 8192  # pixels of what is made larger
LONGEST_JSON = 16 << 10  # characters


def whole(value: Any) -> Any:
    """To JSON 20000.0 is an integer, and some clients write it so."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(whole), Field(strict=True)]
WholeOrNone = Annotated[Annotated[int, Field(strict=True)] | None, BeforeValidator(whole)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Colour = Annotated[str, Field(strict=True, pattern="^#[0-9a-fA-F]{6}$")]


class _Operation(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Resize(_Operation):
    """Another size. With one side given the other follows."""

    op: Literal["resize"]
    width: WholeOrNone = Field(None, ge=1, le=LONGEST_SIDE, description="pixels", examples=[640])
    height: WholeOrNone = Field(None, ge=1, le=LONGEST_SIDE, description="pixels")
    fit: Literal["inside", "cover", "stretch"] = Field(
        "inside",
        description="inside: the shape is kept, never enlarged; cover: the box is filled, what hangs over is cut off; "
        "stretch: exactly that size. The last two want both sides",
    )

    @model_validator(mode="after")
    def _has_sides(self) -> Resize:
        if self.width is None and self.height is None:
            raise ValueError("give width, height or both")
        if self.fit != "inside" and (self.width is None or self.height is None):
            raise ValueError(f"fit {self.fit} needs width and height")
        return self


class Crop(_Operation):
    """A part of the picture, which must lie inside it."""

    op: Literal["crop"]
    x: Whole = Field(0, ge=0, le=65535, description="left edge, pixels")
    y: Whole = Field(0, ge=0, le=65535, description="upper edge, pixels")
    width: Whole = Field(ge=1, le=65535, description="pixels", examples=[320])
    height: Whole = Field(ge=1, le=65535, description="pixels", examples=[240])


class Rotate(_Operation):
    """Clockwise. Quarter turns are exact; the picture grows to hold all of itself."""

    op: Literal["rotate"]
    degrees: Annotated[Real, Field(ge=-360, le=360)] = Field(description="clockwise", examples=[90])
    background: Colour = Field("#000000", description="of the corners", examples=["#000000"])


class Flip(_Operation):
    """Mirrored."""

    op: Literal["flip"]
    direction: Literal["horizontal", "vertical"] = Field(
        "horizontal", description="horizontal: left and right change places; vertical: up and down"
    )


class Grayscale(_Operation):
    """Brightness alone (ITU-R BT.601)."""

    op: Literal["grayscale"]


class Blur(_Operation):
    """Gaussian."""

    op: Literal["blur"]
    radius: Annotated[Real, Field(ge=0.1, le=100)] = Field(2.0, description="standard deviation in pixels")


class Sharpen(_Operation):
    """Unsharp mask."""

    op: Literal["sharpen"]
    radius: Annotated[Real, Field(ge=0.1, le=50)] = Field(2.0, description="pixels")
    percent: Whole = Field(150, ge=1, le=500, description="strength")


class Threshold(_Operation):
    """Black and white: white is what is brighter."""

    op: Literal["threshold"]
    level: WholeOrNone = Field(
        None, ge=0, le=254, description="brightness, 0 to 254; null: chosen by Otsu's method", examples=[128]
    )


class Edges(_Operation):
    """How steep brightness changes (Sobel), white where it does most."""

    op: Literal["edges"]


class Equalise(_Operation):
    """Every brightness as often as every other; the colours stay."""

    op: Literal["equalise"]


class Normalise(_Operation):
    """Brightness stretched to the whole range."""

    op: Literal["normalise"]
    cutoff: Annotated[Real, Field(ge=0, le=40)] = Field(0.5, description="percent of pixels left out at either end")


class Annotate(_Operation):
    """Text drawn into the picture."""

    op: Literal["annotate"]
    text: Annotated[str, Field(strict=True, min_length=1, max_length=200)] = Field(examples=["front door"])
    x: Whole = Field(10, ge=0, le=65535, description="left edge, pixels")
    y: Whole = Field(10, ge=0, le=65535, description="upper edge, pixels")
    size: Whole = Field(24, ge=6, le=400, description="height of the letters, pixels")
    colour: Colour = Field("#ffffff", examples=["#ffffff"])
    background: Colour | None = Field(None, description="behind the text; null: the picture", examples=["#000000"])


class Encode(_Operation):
    """What the answer is written as; the last one, or left out: JPEG, quality 90."""

    op: Literal["encode"]
    format: Literal["jpeg", "png", "webp", "tiff", "bmp"] = "jpeg"
    quality: Whole = Field(90, ge=1, le=100, description="of JPEG and WebP")


Operation = Annotated[
    Resize | Crop | Rotate | Flip | Grayscale | Blur | Sharpen | Threshold | Edges | Equalise | Normalise | Annotate
    | Encode,
    Field(discriminator="op"),
]  # fmt: skip
OPERATIONS: tuple[type[_Operation], ...] = get_args(get_args(Operation)[0])


def name_of(operation: type[_Operation]) -> str:
    """What `op` says for it."""
    name: str = get_args(operation.model_fields["op"].annotation)[0]
    return name


def _encode_is_last(operations: list[Any]) -> list[Any]:
    if any(isinstance(one, Encode) for one in operations[:-1]):
        raise ValueError("encode is the last operation")
    return operations


RECIPE: TypeAdapter[list[Operation]] = TypeAdapter(
    Annotated[list[Operation], Field(max_length=MOST_OPERATIONS), AfterValidator(_encode_is_last)]
)
