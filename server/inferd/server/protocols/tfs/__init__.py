"""TensorFlow Serving's API, for unmodified clients: PredictionService and ModelService, and /v1.

service         the table of gRPC methods               rest            the same over HTTP
predict         Predict                                 calls           runs an inference for a call
examples        Classify, Regress, MultiInference       metadata        GetModelMetadata
models          GetModelStatus                          reload_config   HandleReloadConfigRequest
errors          errors to codes and texts               error_messages  refusals as TensorFlow Serving words them
warmup_records  recorded warm-up requests
"""
