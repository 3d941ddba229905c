"""AWS KMS as the holder of the key-encryption key. Needs boto3: requirements/aws.txt.

Credentials and region come from where boto3 finds them: role of the machine, profile, environment.
"""

from __future__ import annotations

from typing import Any

from apps.connectors.errors import ConfigurationError
from apps.connectors.outbound import OutboundRefused
from apps.core.keys.errors import KeyProviderRefused, KeyProviderUnreachable
from config.environment import Environment, KeyProviderName

TIMEOUT_SECONDS = 10
CONTEXT_NAME = "lockstep"
# What KMS calls states that pass by themselves.
PASSING = {
    "DependencyTimeoutException",
    "KMSInternalException",
    "KeyUnavailableException",
    "LimitExceededException",
    "ThrottlingException",
}


class AwsKms:
    """One symmetric key of KMS; its id, ARN or `alias/name`."""

    def __init__(self, key_id: str, *, region: str | None = None, endpoint: str | None = None):
        """endpoint: instead of the region's own, such as a private one."""
        try:
            import boto3
            from botocore.config import Config

            from apps.core.keys.aws_sockets import guard
        except ImportError:
            raise ConfigurationError(
                "the key provider aws-kms needs boto3",
                where="LOCKSTEP_KEY_PROVIDER",
                remedy="Install requirements/aws.txt.",
            ) from None
        self.key_id = key_id
        self.client = boto3.client(
            "kms",
            region_name=region,
            endpoint_url=endpoint,
            config=Config(connect_timeout=TIMEOUT_SECONDS, read_timeout=TIMEOUT_SECONDS),
        )
        guard(self.client)

    @classmethod
    def of(cls, environment: Environment) -> AwsKms | None:
        """None where the environment names no key."""
        if environment.kms_key_id is None:
            return None
        return cls(
            environment.kms_key_id,
            region=environment.kms_region,
            endpoint=environment.kms_endpoint,
        )

    def wrap(self, key: bytes, context: str) -> tuple[bytes, str]:
        answer = self._ask("encrypt", context, KeyId=self.key_id, Plaintext=key)
        return answer["CiphertextBlob"], f"{KeyProviderName.AWS_KMS}:{answer['KeyId']}"

    def unwrap(self, wrapped: bytes, context: str, wrapped_by: str) -> bytes:
        key_id = wrapped_by.partition(":")[2]  # KMS refuses a ciphertext of another key
        answer = self._ask("decrypt", context, KeyId=key_id, CiphertextBlob=wrapped)
        key: bytes = answer["Plaintext"]
        return key

    def _ask(self, verb: str, context: str, **arguments: Any) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer: dict[str, Any] = getattr(self.client, verb)(
                EncryptionContext={CONTEXT_NAME: context}, **arguments
            )
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown")
            if code in PASSING or error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
                raise KeyProviderUnreachable(f"KMS answers {code}", where=self.key_id) from None
            raise KeyProviderRefused(f"KMS answers {code}", where=self.key_id) from None
        except BotoCoreError as error:
            refused = error.kwargs.get("error")
            if isinstance(refused, OutboundRefused):
                raise KeyProviderRefused(
                    refused.message, where=self.key_id, remedy=refused.remedy
                ) from None
            raise KeyProviderUnreachable(
                f"KMS cannot be asked ({type(error).__name__})", where=self.key_id
            ) from None
        return answer
