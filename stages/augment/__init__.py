"""Augmentation of clips: parameters drawn once a clip, and kernels on the device."""
