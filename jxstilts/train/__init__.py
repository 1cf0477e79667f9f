"""Training: objectives, optimizer, the jitted step, and the loop of one phase."""
