"""People who sign in, what they prove themselves with, and where they are signed in."""

from apps.accounts.models.factors import (
    AuthenticatorApp,
    ExternalIdentity,
    Passkey,
    RecoveryCode,
    RecoveryCodes,
)
from apps.accounts.models.grant import Grant, Level, level_of
from apps.accounts.models.invitation import Invitation
from apps.accounts.models.people import User
from apps.accounts.models.role import StandardRole
from apps.accounts.models.session import Session

__all__ = [
    "AuthenticatorApp",
    "ExternalIdentity",
    "Grant",
    "Invitation",
    "Level",
    "Passkey",
    "RecoveryCode",
    "RecoveryCodes",
    "Session",
    "StandardRole",
    "User",
    "level_of",
]
