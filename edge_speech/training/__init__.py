"""Training: the only part of `edge_speech` that needs torch."""
