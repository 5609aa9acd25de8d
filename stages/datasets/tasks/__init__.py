"""What is predicted: targets, probabilities, metrics, mixing and columns of each task."""
