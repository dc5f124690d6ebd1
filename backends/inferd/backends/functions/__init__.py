"""Python functions that lie beside a model: `steps.py` around a model of any backend, `model.py` as a model of its own.

source.py    the file of a version: read, and executed once for each instance
function.py  one function: which arrays it takes, what is made of its errors
results.py   what a function returned, as arrays of declared types
steps.py     a Model that runs `before` and `after` around another Model
"""
