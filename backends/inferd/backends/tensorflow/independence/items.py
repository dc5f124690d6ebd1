"""What an edge of the graph carries: a Value, or one of the things that are no plain tensors."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from inferd.backends.independence.sizes import Size
from inferd.backends.independence.values import Cause, Shape, Value


@dataclass(frozen=True, slots=True)
class Handle:
    """A variable or a table. It is the same for all rows: what changes one ends the analysis.

    kind       "variable", or the operator that made the table
    identity   equal for handles of one variable or table
    shape      of a variable; None if the rank is not known
    """

    kind: str
    identity: str
    shape: Shape | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TensorList:
    """A list of tensors, all of which have the layout of `element`. A place that was never set holds zeros.

    element   None as long as no place was set
    length    None if it is not known
    """

    element: Value | None
    length: Size | None


class Role(Enum):
    """What a tensor holds of rows of different length that were cut into parts (words, tokens)."""

    PARTS = auto()  # the parts of all rows, one after the other
    ROW_IDS = auto()  # for each part the number of its row
    PLACES = auto()  # for each part the number of its row and its place in the row
    SHAPE = auto()  # the number of rows, and the number of parts of the longest row
    COUNTS = auto()  # for each row how many parts it has
    ENDS = auto()  # for each row where its parts end in PARTS
    SPLITS = auto()  # 0 and ENDS


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """A tensor that belongs to rows of different length.

    source   equal for tensors that belong to the same parts
    value    what operators see that do not know this type: MIXED, or the rows of COUNTS
    """

    role: Role
    source: int
    value: Value


@dataclass(frozen=True, slots=True, eq=False)
class AtLeast:
    """A whole number that may depend on other rows (`value` is MIXED), but is at least `bound`."""

    bound: Size
    value: Value


class Dead(Enum):
    """What a branch that is never taken carries."""

    DEAD = auto()


DEAD = Dead.DEAD
Item = Value | Handle | TensorList | Ragged | AtLeast | Dead


def cause_of(item: Item) -> Cause | None:
    """Why an item may depend on other rows, None if it does not."""
    if isinstance(item, Value):
        return item.cause
    if isinstance(item, (Ragged, AtLeast)):
        return item.value.cause
    if isinstance(item, TensorList):
        return None if item.element is None else item.element.cause
    return None
