"""How layers are quantised to integers, for every converter; the trainer, which learns them, has them."""

from edge_speech.training.scales import LayerScales, Scales

__all__ = ["LayerScales", "Scales"]
