"""What every protocol's edge shares: the journey of a request, its bounds, its gate, and how failures are told.

Nothing here knows gRPC, HTTP or a message class: `rpc` and `http` are two edges over it.

    inference    acquire, check, submit, answer      needs          what that takes from the rooms below
    burst        the same for many that came together, at once or (queued) in line for their model
    inflight     bounds on calls and bytes           gate, view     who calls, and which models they see
    status       errors to codes and texts           failures       one log line for each failed request
    audit        a line for each operator's action   trace          which trace a call belongs to
    oip, tfs     the words of Triton and of TensorFlow Serving      availability   is a version in service
"""
