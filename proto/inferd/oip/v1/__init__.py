"""Generated messages of the Open Inference Protocol, Triton's superset (`make proto`): their numbers, our package."""
