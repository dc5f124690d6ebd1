"""What the keys of a section mean: the text under each in the source of the schema.

Read when a schema is written out. pydantic could do it (`use_attribute_docstrings`), but at every start of a server,
which would read the sources (50 ms) and keep what that takes (0.3 MB).
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from functools import cache
from itertools import pairwise

from inferd.server.config.fields import Section


@cache
def meanings(section: type[Section]) -> Mapping[str, str]:
    """By key; empty where Python has no sources."""
    try:
        source = inspect.getsource(section)
    except OSError:
        return {}
    (defined,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(defined, ast.ClassDef)
    found = {}
    for statements in pairwise(defined.body):
        match statements:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = inspect.cleandoc(text)
    return found
