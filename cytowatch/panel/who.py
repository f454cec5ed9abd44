"""Who asks: a person or a token, and what that one may see and do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cytowatch.config import Panel
from cytowatch.record import names

__all__ = ["Person", "Proof", "is_name", "person"]

_LONGEST_NAME = 100


class Proof(Enum):
    """How it is known who asks; each value is the word in the log."""

    NONE = "none"  #: No one is known: `auth = "none"`, this machine only.
    PROXY = "proxy"  #: A trusted proxy named the user.
    COOKIE = "cookie"  #: A log-in with the password of the share.
    TOKEN = "token"  #: A token of `cytowatch token add`.


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who asks; `name` is empty where no one is known.

    `sees_all` and `acts` are decided once, when the request comes in.
    """

    name: str
    proof: Proof
    #: The projects that the configuration names this user for.
    projects: tuple[str, ...] = ()
    admin: bool = False
    sees_all: bool = False
    #: May act on what is visible: retry, return, link, unlink.
    acts: bool = False

    @property
    def shown(self) -> str:
        """The name in the log and on the page."""
        return self.name or "anyone"


def is_name(name: str) -> bool:
    """Whether `name` can be a user's: it can name a folder, and holds nothing that hides.

    >>> is_name("ann"), is_name("../bob"), is_name(""), is_name("a\\u202eb")
    (True, False, False, False)
    """
    return (
        0 < len(name) <= _LONGEST_NAME
        and name.isprintable()
        and not name.startswith((".", "@", "_"))
        and not any(letter in '/\\:*?"<>|' for letter in name)
        and name == name.strip()
    )


def person(name: str, proof: Proof, config: Panel, *, actions: bool = False) -> Person:
    """What `name` may see and do; with `Proof.NONE` everything is visible and `actions` decides.

    Examples
    --------
    >>> ann = person("Ann", Proof.PROXY, Panel(admins=("ann",)))
    >>> ann.admin, ann.sees_all, person("bob", Proof.TOKEN, Panel()).sees_all
    (True, True, False)
    """
    if proof is Proof.NONE:
        return Person(name="", proof=proof, sees_all=True, acts=actions)
    admin = bool(names.alike(config.admins, name))
    member_of = [one for one, users in config.projects.items() if names.alike(users, name)]
    return Person(
        name=name,
        proof=proof,
        projects=tuple(member_of),
        admin=admin,
        sees_all=admin,
        acts=True,
    )
