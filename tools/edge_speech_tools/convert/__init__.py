"""One file per pass: a frozen Config and one run()."""
