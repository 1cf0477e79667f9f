"""Model families: one module each, found by its name. What a family says of itself is written in `base`."""

from jxstilts.rooms import Room

ROOM = Room("jxstilts.models.families", "model family", "JXSTILTS_FAMILIES")
