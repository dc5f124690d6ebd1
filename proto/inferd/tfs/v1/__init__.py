"""Generated messages of TensorFlow Serving's API (`make proto`).

The field numbers are TensorFlow's; the package name is inferd's own.
"""
