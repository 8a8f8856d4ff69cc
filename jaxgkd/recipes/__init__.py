"""One file per system: a configuration and the steps in order. Each reads as the method section of its paper."""
