"""Text to batches: tokenizers, features, their cache, static-shape batch plans and the resumable pipeline."""
