"""Image and video encoders: names, preprocessing, outputs; from timm and torchvision."""
