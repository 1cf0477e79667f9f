"""The miniature multilingual world: English and seven invented languages, written as a whole data_dir."""

from jxstilts.miniworld.writer import write

__all__ = ["write"]
