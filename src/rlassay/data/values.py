# pyright: basic
# pyarrow has no types.
"""Values of records; numbers, dates and decimals keep their text in JSON and in Arrow tables."""

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import numpy as np

from rlassay.data.raw_examples import RowRejectedError

MOST_DIGITS = 1e16
"""Number from which 64-bit floats skip whole numbers. Larger ones are written in scientific notation."""
_WHOLE = re.compile(r"(-?\d+)\.0+")


class WrittenFloat(float):
    """A float that remembers how its source writes it, such as `0.10`.

    The 32-bit float nearest to 0.1 is written `0.1`.
    """

    text: str
    """The number as written."""

    def __new__(cls, text: str) -> "WrittenFloat":
        number = super().__new__(cls, text)
        number.text = text
        return number


def parse_json(text: str) -> Any:
    """The value of a JSON text; a number with a fraction or exponent is a `WrittenFloat`."""
    return json.loads(text, parse_float=WrittenFloat)


def parquet_batches(file: Path, rows: int) -> Iterator[Any]:
    """The record batches of a Parquet file, read one after the other."""
    import pyarrow.parquet as pq  # 33 MB of memory, for tables alone

    with pq.ParquetFile(file) as table:
        yield from table.iter_batches(batch_size=rows)


def arrow_rows(table: Any) -> Iterator[dict[str, Any]]:
    """The rows of a pyarrow table or record batch as plain values."""
    columns = [_plain_column(table.column(index), field.type) for index, field in enumerate(table.schema)]
    names = table.schema.names
    for values in zip(*columns, strict=True):
        yield dict(zip(names, values, strict=True))


def text_of(value: Any, name: str) -> str:
    """A text, number, date or decimal as stripped, NFC-normalized text; a whole float has no fraction: `5`.

    Errors: RowRejectedError for a missing value (null or NaN), an infinite number, a truth value or any other type,
        and for text with a lone surrogate, which cannot be encoded.
    """
    if value is None or is_nan(value):
        raise RowRejectedError(f"{name}: it is missing" + ("" if value is None else " (NaN)"))
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        raise RowRejectedError(f"{name}: it is an infinite number")
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal | date | time | timedelta):
        raise RowRejectedError(f"{name}: it is no text")
    text = unicodedata.normalize("NFC", _written(value)).strip()
    if any("\ud800" <= mark <= "\udfff" for mark in text):
        raise RowRejectedError(f"{name}: half a character (a lone surrogate)")
    return text


def list_of(value: Any) -> tuple[Any, ...]:
    """The items of a list; any other value becomes the only item, and a missing one (null or NaN) becomes no item."""
    if value is None or is_nan(value):
        return ()
    return tuple(cast("list[Any] | tuple[Any, ...]", value)) if isinstance(value, list | tuple) else (value,)


def whole_number(value: Any) -> int | None:
    """The value as an int if it is a whole number, else None.

    A column of integers with a gap, for example, has the value `5.0`.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    return int(value) if math.isfinite(value) and value == int(value) else None


def is_nan(value: Any) -> bool:
    """Whether a value is float or decimal NaN, with which tables mark a missing number."""
    return isinstance(value, float | Decimal) and math.isnan(value)


def _written(value: str | int | float | Decimal | date | time | timedelta) -> str:
    if isinstance(value, WrittenFloat):
        whole = _WHOLE.fullmatch(value.text)
        return whole[1] if whole else value.text
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < MOST_DIGITS else repr(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime) and value.tzinfo is None and value.time() == time():
        return value.date().isoformat()  # a column of dates is often stored as times at midnight
    return value.isoformat() if isinstance(value, date | time) else str(value)


def _plain_column(column: Any, kind: Any) -> list[Any]:
    convert, values = _converter(kind), column.to_pylist()
    return values if convert is None else [_converted(convert, value) for value in values]


def _converter(kind: Any) -> Callable[[Any], Any] | None:
    """From a value of `to_pylist` to the plain value, never called for None; None if they are the same."""
    import pyarrow as pa

    if pa.types.is_float16(kind) or pa.types.is_float32(kind):
        narrow = np.float16 if pa.types.is_float16(kind) else np.float32
        return lambda value: WrittenFloat(str(narrow(value)))
    if isinstance(kind, pa.JsonType):
        return parse_json
    if pa.types.is_dictionary(kind):
        return _converter(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = _converter(kind.value_type)
        return inner and (lambda values: [_converted(inner, value) for value in values])
    if pa.types.is_struct(kind):
        fields = {field.name: convert for field in kind if (convert := _converter(field.type))}
        return (
            (lambda value: {key: _converted(fields.get(key), item) for key, item in value.items()}) if fields else None
        )
    return None


def _converted(convert: Callable[[Any], Any] | None, value: Any) -> Any:
    return value if convert is None or value is None else convert(value)
