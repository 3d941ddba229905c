"""The verbs and their arguments. Imports nothing that takes time."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, _SubParsersAction
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    Verbs = _SubParsersAction[ArgumentParser]


def add_verbs(parser: ArgumentParser) -> None:
    """Add every verb to the parser of `manage.py lockstep`."""
    _tell_machines(parser)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _configuration(verbs)
    _sources(verbs)
    _runs(verbs)
    _control(verbs)
    _audit(verbs)
    _tokens(verbs)
    _encryption(verbs)
    _demo(verbs)


def _verb(verbs: Verbs, name: str, function: str, text: str) -> ArgumentParser:
    parser: ArgumentParser = _tell_machines(verbs.add_parser(name, help=text, description=text))
    parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON")
    parser.set_defaults(verb=function)
    return parser


def _tell_machines(parser: ArgumentParser) -> ArgumentParser:
    """With --json, wrong usage is one JSON document as well."""
    tell_people = parser.error

    def error(message: str) -> NoReturn:
        if "--json" not in sys.argv:
            tell_people(message)
        from apps.console.command_line.output import Output, WrongUsage

        wrong = WrongUsage(
            message, where=parser.prog, remedy=f"`{parser.prog} --help` says how it is used."
        )
        Output(sys.stdout, sys.stderr, as_json=True).error(wrong)
        sys.exit(wrong.exit_code)

    parser.error = error  # type: ignore[method-assign]
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ArgumentTypeError("a number of changes is 0 or more")
    return number


def _configuration(verbs: Verbs) -> None:
    text = "Create or update sources, lookups, mappings and rules from a YAML file."
    verb = _verb(verbs, "apply", "configuration:apply", text)
    verb.add_argument("file", metavar="FILE", type=Path)
    verb.add_argument("--dry-run", action="store_true", help="only say what would change")
    verb = _verb(verbs, "export", "configuration:export", "Print everything as such a file.")
    verb.add_argument("--output", metavar="FILE", type=Path, help="write there instead")


def _sources(verbs: Verbs) -> None:
    verb = _verb(verbs, "check", "sources:check", "Test the connection of a source.")
    verb.add_argument("source", metavar="SOURCE")
    text = "Read what a source holds, and report what has changed there."
    verb = _verb(verbs, "discover", "sources:discover", text)
    verb.add_argument("source", metavar="SOURCE")
    parser = _tell_machines(verbs.add_parser("source", help="Propose the settings of a source."))
    source = parser.add_subparsers(metavar="VERB", required=True)
    text = "Print what an OpenAPI 3 document says of an API, as settings of a REST source."
    verb = _verb(source, "propose-rest", "sources:propose_rest", text)
    verb.add_argument("file", metavar="FILE", type=Path, help="the document, JSON or YAML")


def _runs(verbs: Verbs) -> None:
    text = "Dry run: plan what a rule would write, without writing it."
    verb = _verb(verbs, "plan", "runs:plan", text)
    verb.add_argument("rule", metavar="RULE")
    verb.add_argument("--wait", action="store_true", help="wait, then print the first changes")
    verb.add_argument("--sweep", action="store_true", help="a cursor rule compares all keys")
    verb.add_argument(
        "--limit", type=_count, default=20, metavar="N", help="how many changes to print (20)"
    )
    text = "Start rules, in the order in which they depend on each other."
    verb = _verb(verbs, "run", "runs:run", text)
    verb.add_argument("rules", metavar="RULE", nargs="*", help="a name, or a pattern such as 'a*'")
    verb.add_argument("--all", action="store_true", dest="everything", help="every rule")
    verb.add_argument("--wait", action="store_true", help="one after the other, until all are done")
    verb.add_argument("--sweep", action="store_true", help="cursor rules compare all keys")


def _control(verbs: Verbs) -> None:
    verb = _verb(verbs, "status", "control:status", "Show how the rules are doing.")
    verb.add_argument("rule", metavar="RULE", nargs="?")
    for name, text in (("pause", "Start no more runs of"), ("resume", "Start runs again of")):
        verb = _verb(verbs, name, f"control:{name}", f"{text} a rule, a source, or anything.")
        verb.add_argument("name", metavar="RULE|SOURCE", nargs="?")
        verb.add_argument("--all", action="store_true", dest="everything", help="everything")


def _audit(verbs: Verbs) -> None:
    parser = _tell_machines(verbs.add_parser("audit", help="Verify or seal the audit log."))
    audit = parser.add_subparsers(metavar="VERB", required=True)
    text = "Find events and seals that were changed, deleted or put in; exit code 1 if there are."
    verb = _verb(audit, "verify", "audit:verify", text)
    verb.add_argument(
        "--checkpoints", metavar="FILE", type=Path, help="compare with this copy of them"
    )
    _verb(audit, "seal", "audit:seal", "Seal the events that wait; the scheduler does so too.")


def _tokens(verbs: Verbs) -> None:
    text = "Make, list, replace and revoke tokens of programs."
    parser = _tell_machines(verbs.add_parser("token", help=text))
    token = parser.add_subparsers(metavar="VERB", required=True)
    text = "Make a token and print it, this one time; with --service also the account."
    verb = _verb(token, "create", "tokens:create", text)
    verb.add_argument("account", metavar="ACCOUNT", help="a person or a service account")
    verb.add_argument("name", metavar="NAME", help="what the token is for")
    verb.add_argument("scopes", metavar="SCOPE", nargs="+", help="such as runs:start")
    verb.add_argument("--days", type=_count, default=90, metavar="N", help="its life (90)")
    verb.add_argument("--network", action="append", default=[], metavar="CIDR", help="only from")
    verb.add_argument(
        "--service",
        metavar="ROLE",
        help="make the service account, with this role, where there is none",
    )
    verb = _verb(
        token, "list", "tokens:show", "List tokens, with what they may and their last use."
    )
    verb.add_argument("account", metavar="ACCOUNT", nargs="?")
    text = "Make a token in the place of another one, and print it, this one time."
    verb = _verb(token, "rotate", "tokens:rotate", text)
    verb.add_argument("token", metavar="TOKEN", help="its id, as `list` prints it")
    verb.add_argument(
        "--overlap", type=_count, default=24, metavar="HOURS", help="so long both work (24)"
    )
    verb = _verb(token, "revoke", "tokens:revoke", "End a token at once.")
    verb.add_argument("token", metavar="TOKEN", help="its id, as `list` prints it")


def _encryption(verbs: Verbs) -> None:
    parser = verbs.add_parser("encryption", help="Rotate keys, or prove what is encrypted.")
    encryption = parser.add_subparsers(metavar="VERB", required=True)
    text = "Encrypt everything stored anew with a new data key; goes on where it was stopped."
    verb = _verb(encryption, "rotate", "encryption:rotate", text)
    verb.add_argument("--no-wait", action="store_true", help="leave the work to the workers")
    text = "Wrap the data keys anew, after the key-encryption key or its provider was changed."
    _verb(encryption, "rewrap", "encryption:rewrap", text)
    text = "Say from the stored bytes what is under which key; exit code 1 if anything is not."
    _verb(encryption, "audit", "encryption:audit", text)
    text = "Destroy the key of a person, and with it what is kept under it; cannot be taken back."
    verb = _verb(encryption, "erase", "encryption:erase", text)
    verb.add_argument("dataset", metavar="DATASET", help="such as 'CRM: customers'")
    verb.add_argument("subject", metavar="SUBJECT", help="the value of its subject field")
    verb.add_argument("--reason", required=True, help="goes into the audit log")
    text = "After a restore: erase again whom the register of erasures names."
    _verb(encryption, "replay-erasures", "encryption:replay_erasures", text)


def _demo(verbs: Verbs) -> None:
    parser = _tell_machines(verbs.add_parser("demo", help="Load, move, run or remove the demo."))
    demo = parser.add_subparsers(metavar="VERB", required=True)
    _verb(demo, "load", "demo:load", "Write the demo's platforms and configure their sync.")
    _verb(demo, "run", "demo:run", "Do the demo's first runs and a dry run.")
    _verb(demo, "touch", "demo:touch", "Edit a few records of the demo's CRM.")
    _verb(demo, "remove", "demo:remove", "Remove everything of the demo.")
