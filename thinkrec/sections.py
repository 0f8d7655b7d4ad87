"""What a section of `params.yaml` is: values of known kinds, and one plain line for the first that is refused."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from thinkrec.errors import nearest_name

PLAINLY = {"model_type": "should be a section with its own keys", "path_type": "should be a path or null"}


def _require(possible: Callable[[Any], bool], fault: str) -> BeforeValidator:
    """Refuse a value before pydantic converts it: `true` is no number, and a text's letters are no list."""

    def check(value: Any) -> Any:
        if not possible(value):
            raise ValueError(fault)
        return value

    return BeforeValidator(check)


def _is_whole(value: Any) -> bool:
    return type(value) is int or (type(value) is float and value.is_integer())  # YAML's 1.0e+3 is a float


def _is_paths(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(path, (str, Path)) for path in value)


def _find_encoding(name: str) -> str:
    """An encoding by the name that Python gives it; lines end in it as in ASCII."""
    with suppress(LookupError, UnicodeError):
        if b"a,\n".decode(name) == "a,\n":
            return codecs.lookup(name).name
    raise ValueError("should name an encoding of text, such as cp1252")


def expand_home(path: Path) -> Path:
    """The path, `~` in front of it being a home; a ValueError where nobody has that home."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("should begin with ~ only where there is such a home") from None


Whole = Annotated[int, _require(_is_whole, "should be a whole number")]
Count = Annotated[Whole, Field(ge=0)]
CountOrAuto = Annotated[
    Count | Literal["auto"],
    # The last is asked first.
    _require(lambda value: value == "auto" or value >= 0, "should be greater than or equal to 0, or auto"),
    _require(lambda value: value == "auto" or _is_whole(value), "should be a whole number or auto"),
]
Positive = Annotated[Whole, Field(ge=1)]
Number = Annotated[
    float, _require(lambda value: type(value) in (int, float), "should be a number"), Field(allow_inf_nan=False)
]
NotNegative = Annotated[Number, Field(ge=0)]
AboveZero = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
BelowOne = Annotated[Share, Field(lt=1)]
Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
HomePath = Annotated[Path, AfterValidator(expand_home)]
HomeName = Annotated[str, AfterValidator(lambda name: str(expand_home(Path(name))) if name[:1] == "~" else name)]
Encoding = Annotated[str, AfterValidator(_find_encoding)]
Paths = Annotated[tuple[HomePath, ...], _require(_is_paths, "should be a list of paths")]


class Section(BaseModel):
    """Parameters that cannot be changed, without room for unknown ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        unknown = [str(key) for key in values if key not in cls.model_fields] if isinstance(values, dict) else []
        if unknown:
            nearest = nearest_name(unknown[0], cls.model_fields)
            raise PydanticCustomError("unknown", "unknown", {"key": unknown[0], "nearest": nearest})
        return values

    @model_validator(mode="after")
    def _refuse_impossible(self) -> Self:
        self._check()
        return self

    def _check(self) -> None:
        """Raise a ValueError if values that are possible one by one do not go together."""


def explain(error: ValidationError) -> str:
    """The first fault of a validation, in one line."""
    fault = error.errors()[0]
    where = [str(part) for part in fault["loc"]]
    name, value = ".".join(where) or "params", fault["input"]
    if fault["type"] == "unknown":
        key, nearest = (".".join([*where, fault["ctx"][role]]) for role in ("key", "nearest"))
        return f"unknown parameter {key}; did you mean {nearest}?"
    if fault["type"] == "missing":
        return f"parameter {name} is missing; add it"
    text = PLAINLY.get(fault["type"]) or fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
    shown = "" if isinstance(value, dict) else f" (it is {value!r})"
    return f"parameter {name} {text}{shown}"
