"""What goes wrong with keys, by what to do about it."""

from __future__ import annotations

from apps.connectors.errors import Action, ConfigurationError, LockstepError


class KeyProviderUnreachable(LockstepError):
    """The key-encryption key cannot be asked just now."""

    code = "keys.provider_unreachable"
    action = Action.RETRY
    default_remedy = "Check that the key service answers; Lockstep asks again by itself."


class KeyProviderRefused(ConfigurationError):
    """The provider answers, and says no."""

    code = "keys.provider_refused"
    default_remedy = "Check the key's name, and that Lockstep may encrypt and decrypt with it."


class DataKeyMissing(ConfigurationError):
    code = "keys.missing"
    default_remedy = "Restore the table of data keys from the backup that the values are from."
