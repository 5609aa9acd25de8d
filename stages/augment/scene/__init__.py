"""Scene augmentations of clips: another background, objects of other sizes and places, and a moving camera."""
