"""The encoder of an embed stage: its weights, preprocessing, forward pass and speed."""
