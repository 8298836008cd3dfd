"""Training: faces as one file and as tensors on the device of the model, the loop, several
trainings side by side."""
