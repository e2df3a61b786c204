"""Host-side tools: model.pt → bundle."""
