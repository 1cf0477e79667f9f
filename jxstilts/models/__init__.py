"""Model families, heads, attention, and the folders they are stored in.

A family is one module of this package that defines `Config`, `PRESETS`, `Encoder`, `huggingface_keys`.
"""
