"""People and programs, what they prove themselves with, and where they are signed in."""

from apps.accounts.models.factors import (
    AuthenticatorApp,
    ExternalIdentity,
    Passkey,
    RecoveryCode,
    RecoveryCodes,
)
from apps.accounts.models.grant import Grant, Level, level_of
from apps.accounts.models.invitation import Invitation
from apps.accounts.models.people import ServiceAccount, User
from apps.accounts.models.role import StandardRole
from apps.accounts.models.session import Session
from apps.accounts.models.token import Token

__all__ = [
    "AuthenticatorApp",
    "ExternalIdentity",
    "Grant",
    "Invitation",
    "Level",
    "Passkey",
    "RecoveryCode",
    "RecoveryCodes",
    "ServiceAccount",
    "Session",
    "StandardRole",
    "Token",
    "User",
    "level_of",
]
