"""Whether data sets are fit to train and measure on: `measures` → `checks`, `across` → `report` → `html`."""
