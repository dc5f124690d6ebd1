"""Static proof that the rows of a batch are independent: what every graph language shares.

    sizes.py      sizes of dimensions, as polynomials over the number of rows and other unknown sizes
    values.py     what is known about one tensor: constant, rows, row number, shape, mixed
    operators.py  what operators do to such values: element by element, reductions, products, windows
    layout.py     what operators do to the layout: reshape, transpose, broadcast, concatenate, gather
    elements.py   arithmetic on the elements of shapes
    table.py      the type of a table of operators

The question: may requests share a batch along axis 0, so that no row's answer depends on the other rows or on their
number? The analysis answers it for all numbers of rows N >= 1 and all contents at once. Each tensor of a model is
described by a Value; each operator of a graph language is a function from Values to Values, in a table of that
language's package.

What the server must ensure: all dimensions are at least 1, inputs without a batch axis are equal within a batch, and
dimensions that the proof takes as equal are equal (`Independence.equal`). What is proven is a property of the
mathematical function: a kernel may add up in another order for another N, so results may differ by rounding.

Pure. Imports numpy and nothing else.
"""
