"""The edge of TensorFlow Serving: its PredictionService and ModelService for unmodified clients.

service    which method is answered by whom          status    codes and texts, as TensorFlow Serving has them
predict    Predict                                   words     refused models and inputs in its words
examples   Classify, Regress, MultiInference         metadata  GetModelMetadata
models     GetModelStatus                            calls     one inference on behalf of a call
reload     HandleReloadConfigRequest
"""
