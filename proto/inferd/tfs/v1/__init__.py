"""Generated messages of TensorFlow Serving's API (`make proto`): their field numbers, our package."""
