"""Which frames a file has and when each is shown: frame index, bits of codecs, ends of files, numbers of images."""
