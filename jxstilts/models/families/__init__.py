"""Model families: one module each, found by its name. What a family says of itself is written in `base`."""

from jxstilts.rooms import Room

ROOM = Room(__name__, "model family", "JXSTILTS_FAMILIES")
