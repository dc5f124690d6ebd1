"""Static proof that the rows of a torch model's batch are independent: torch.export programs and TorchScript methods.

call.py         one call of an operator with what is known of its arguments, and the table of operators
elementwise.py, along.py, products.py, windows.py, layout.py, indexing.py    the operators
operators.py    all of them, and those that are refused on purpose
memory.py       tensors that lie in the same memory, and writes in place
scalars.py      arithmetic on plain numbers, some of which are sizes
interpreter.py  applies an operator to what is known of tensors
program.py      the walk over a torch.export program
script.py       the walk over a TorchScript method; script_values.py: what Python does around tensors there
proof.py        from a signature and a walk to the finding

Shapes are followed from the shapes of the inputs in the signature and from the model's own tensors. Neither the shapes
that an exporter has noted nor runs with samples are used.
"""
