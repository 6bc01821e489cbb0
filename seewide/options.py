"""Options: dataclass fields that carry their help text, their range and their resume rule.

A dataclass whose fields are made by `option` is the only place that knows them. The command line,
`config.json`, the generated documentation and the rules for resuming a run read it from there:

    @dataclass(frozen=True)
    class Options:
        lr: float = option(1e-3, "Peak learning rate.", above=0)
        growth: str = option("random", "How weights grow.", choices=("random", "gradient"))

        def __post_init__(self) -> None:
            check(self)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import isfinite
from typing import Any, TypeVar, cast, get_type_hints

from seewide.errors import InputError, unknown

T = TypeVar("T")
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] = (),
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    may_change: bool = False,
    flag: bool = False,
    metavar: str = "",
) -> Any:
    """A dataclass field.

    Args:
        default: of the type that the field is annotated with.
        help: one or two sentences, as `--help` and the documentation print them.
        choices: the allowed words.
        least, most: closed limits of a number.
        above, below: open limits of a number.
        may_change: whether the value may differ when a run is resumed.
        flag: whether the command line offers the option as a flag of its own (`--batch-size`);
            all others are set by `--set KEY=VALUE`.
        metavar: how `--help` shows the value.
    """
    metadata = {
        "help": help,
        "choices": tuple(choices),
        "limits": {"at least": least, "at most": most, "above": above, "below": below},
        "may_change": may_change,
        "flag": flag,
        "metavar": metavar,
    }
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def default_of(field: dataclasses.Field) -> Any:
    """The default value of a field."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def check(options: Any) -> None:
    """Compare every field with its choices and limits.

    Raises:
        InputError: a value out of range, or NaN or infinite.
    """
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if isinstance(value, float) and not isfinite(value):
            raise InputError(f"{field.name} must be finite, got {value!r}")
        choices = field.metadata.get("choices")
        if choices and value not in choices:
            raise InputError(f"{field.name} must be {_either(choices)}, got {value!r}")
        wrong = [
            word
            for word, limit in field.metadata.get("limits", {}).items()
            if limit is not None and not _holds(word, value, limit)
        ]
        if wrong:
            raise InputError(f"{field.name} must be {allowed_range(field)}, got {value!r}")


def allowed_range(field: dataclasses.Field) -> str:
    """The limits of a field in words: `above 0 and at most 1`; empty if there are none."""
    limits = field.metadata.get("limits", {})
    return " and ".join(f"{word} {limit:g}" for word, limit in limits.items() if limit is not None)


def allowed(field: dataclasses.Field) -> str:
    """What values a field may have, in words: its choices or its limits."""
    choices = field.metadata.get("choices")
    return _either(choices) if choices else allowed_range(field)


def parse(options: type, name: str, value: Any) -> Any:
    """`value`, which may be text, as the type of the field `name`.

    Text of a tuple is separated by commas; text of a mapping is `key:value,key:value`.

    Raises:
        InputError: no such field, or text that is not of the field's type.
    """
    kinds = get_type_hints(options)
    if name not in {field.name for field in dataclasses.fields(options)}:
        raise unknown("option", name, kinds)
    kind = kinds[name]
    base = getattr(kind, "__origin__", kind)
    try:
        if base is bool:
            return _boolean(value)
        if base is int and isinstance(value, float) and not value.is_integer():
            raise ValueError
        if base in (int, float, str):
            return base(value)
        if base is tuple:
            parts = [p for p in value.split(",") if p] if isinstance(value, str) else value
            return tuple(kind.__args__[0](part) for part in parts)
        if base is dict:
            if isinstance(value, str):
                value = dict(part.split(":", 1) for part in value.split(",") if part)
            read = kind.__args__[1]
            read = _literal if read is Any else read
            return {str(key): read(entry) for key, entry in value.items()}
    except (TypeError, ValueError):
        raise InputError(f"{name} must be {_KINDS[base]}, got {value!r}") from None
    return value  # optional fields, which the command line does not offer


def replace(options: T, changes: Mapping[str, Any]) -> T:
    """`dataclasses.replace` with values that may be text.

    Raises:
        InputError: as `parse` and `check`.
    """
    kind = type(options)
    return dataclasses.replace(  # type: ignore[type-var]  # typeshed has no bound for it
        options, **{name: parse(kind, name, value) for name, value in changes.items()}
    )


def difference(old: T, new: T, *, ignore_changeable: bool = False) -> tuple[str, Any, Any] | None:
    """The first field in which two instances differ, with both values; None if they agree."""
    for field in dataclasses.fields(cast(Any, old)):
        if ignore_changeable and field.metadata.get("may_change"):
            continue
        pair = getattr(old, field.name), getattr(new, field.name)
        if pair[0] != pair[1]:
            return field.name, *pair
    return None


_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "values separated by commas",
    dict: "a list such as name:0.1,other:10",
}


def _literal(value: Any) -> Any:
    """Text as the number or the boolean that it spells, if it spells one: `3`, `0.5`, `true`."""
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        with suppress(ValueError):
            return kind(value)
    return {"true": True, "false": False}.get(value, value)


def _boolean(value: Any) -> bool:
    word = str(value).lower()
    if word not in TRUE + FALSE:
        raise ValueError
    return word in TRUE


def _holds(word: str, value: float, limit: float) -> bool:
    return {
        "at least": value >= limit,
        "at most": value <= limit,
        "above": value > limit,
        "below": value < limit,
    }[word]


def _either(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
