"""The Open Inference Protocol in Triton's superset, for unmodified clients: inference.GRPCInferenceService, and /v2.

service           the table of gRPC methods               rest            the same over HTTP
infer, stream     ModelInfer, ModelStreamInfer            request, request_options    the request and its parameters
errors            errors to codes and texts               error_messages  refusals as Triton words them
metadata          health, metadata, ModelConfig           statistics      ModelStatistics
repository        index, load, unload                     settings        trace and log settings
classification    the classification extension            shared_memory   system shared memory
unsupported       methods that are refused, and why
"""
