"""Training that knows no model and no data set: many runs side by side in one compiled program."""
