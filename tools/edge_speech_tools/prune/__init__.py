"""One file per pass: a frozen Config and one run(), LoadedModel → a smaller LoadedModel.

`ratio.prune_to` joins those that change shapes.
"""
