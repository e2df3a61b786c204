"""Models that others trained and exported: what they are, checked before the first decode, as a bundle."""
