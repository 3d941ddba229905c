"""Writes of this room: rotation, rewrapping, destruction of keys, and the proof.

`rotation` encrypts everything anew, `wrapping` changes the key around the data keys,
`destruction` forgets data keys that nothing refers to, `proving` looks at the stored bytes,
`erasure` destroys the keys of persons, which `register` keeps outside the database.
"""

from apps.encryption.services.destruction import destroy_unused_keys
from apps.encryption.services.erasure import Erased, Replayed, erase_subject, replay_erasures
from apps.encryption.services.proving import Proven, prove
from apps.encryption.services.rotation import continue_rotation, start_rotation
from apps.encryption.services.wrapping import rewrap

__all__ = [
    "Erased",
    "Proven",
    "Replayed",
    "continue_rotation",
    "destroy_unused_keys",
    "erase_subject",
    "prove",
    "replay_erasures",
    "rewrap",
    "start_rotation",
]
