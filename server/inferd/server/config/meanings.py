"""The documentation of the keys of a section: the text under each key in the schema's source code.

It is read only when a schema is written out. pydantic's `use_attribute_docstrings` would read it at every start of a
server, which takes 50 ms and 0.3 MB.
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
    """The documentation by key; empty if the source code is not available."""
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
