"""The edge of the Open Inference Protocol in Triton's superset: inference.GRPCInferenceService for unmodified clients.

service         which method is answered by whom         status   codes and texts, as Triton has them
infer, stream   ModelInfer, ModelStreamInfer             words    refused inputs in Triton's words
options         what request parameters ask for          classification   the extension of that name
describe        health, metadata, ModelConfig            statistics   what was served, in figures
repository      index, load, unload                      unsupported   what is refused, and why
"""
