"""What a start takes up: claims half done, second copies, what was in work, and folders that were open."""

from __future__ import annotations

from cytowatch.hooks import drop_untrue
from cytowatch.inbox import claim
from cytowatch.lifecycle import clock
from cytowatch.lifecycle.parts import Parts
from cytowatch.observe import systemd
from cytowatch.transitions.recover import finish, recover, set_doubles_aside

__all__ = ["take_up"]


def take_up(parts: Parts) -> None:
    """Repair what the end of the last daemon left half done, and go on from there.

    Raises
    ------
    OSError
        The machine has a fault; the start is tried again.
    """
    log, spool = parts.log, parts.spool
    for id_, outcome in claim.recover(spool, parts.config.storage).items():
        log.warning("claim_recovered", id=id_, outcome=outcome)
    for id_, status, place in set_doubles_aside(spool):
        log.warning("second_copy", id=id_, status=status.name, path=str(place))
    for number, (user, id_) in enumerate(recover(spool, now=clock.now())):
        if number % 100 == 0:
            # Each of them costs a look at its files: systemd must not take it for hanging.
            systemd.notify("EXTEND_TIMEOUT_USEC=60000000", f"STATUS=taking up, {number:,} so far")
        log.info("taken_up", id=id_, user=user)
        parts.engine.submit(user, id_)
    for untrue in drop_untrue(spool):
        log.info("hook_dropped", hook=untrue.hook, id=untrue.id, status=untrue.status)
    changed = list(finish(spool))
    parts.indexing.reconcile()
    parts.index.look(changed)
    parts.ledger.count_tree(spool, clock.now())
    parts.folders.recover()
