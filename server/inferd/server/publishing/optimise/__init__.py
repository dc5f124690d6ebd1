"""Smaller and faster variants of a version, published only if the model's gate lets them through.

variants       which kinds there are, and what each is made from
split          sample rows: some calibrate, others judge
optimiser      makes the variants, compares each with its parent, publishes the best
onnx_program   the program that makes ONNX variants, in a subprocess
litert_program the same for LiteRT, from a SavedModel; needs TensorFlow in its interpreter
text           the result as a table, and as JSON
"""
