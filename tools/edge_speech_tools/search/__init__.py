"""`edge-speech optimize --search`: what could be made of a model, and which of it is worth making."""
