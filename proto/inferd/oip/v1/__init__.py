"""Generated messages of the Open Inference Protocol with Triton's extensions (`make proto`).

The field numbers are those of the protocol; the package name is inferd's own.
"""
