"""The Sparkplug edge node of a station, if its configuration enables it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from agent.from_config import open_outbox, sparkplug_topics
from agent.sparkplug.bd_seq import BdSeq
from agent.sparkplug.edge_node import EdgeNode

if TYPE_CHECKING:
    from contextlib import ExitStack

    from agent.config.model import AgentConfig
    from agent.mqtt.connect import BrokerSettings
    from agent.mqtt.publisher import Station


def edge_nodes_of(
    config: AgentConfig, broker: BrokerSettings, station: Station, stack: ExitStack
) -> tuple[EdgeNode, ...]:
    """One edge node, not started, or none.

    Args:
        config: Configuration of the station, whose state folder exists.
        broker: Settings of the plain connection; the edge node makes its own to the same broker.
        station: What the station publishes about itself.
        stack: Closes the outbox at the end.

    Raises:
        OutboxError: Its outbox cannot be opened.
    """
    if not config.sparkplug.enabled:
        return ()
    outbox = stack.enter_context(open_outbox(config, "sparkplug.sqlite"))
    birth_number = BdSeq(config.state_dir / "sparkplug_birth")
    own_broker = replace(broker, client_id=f"{broker.client_id}-sparkplug")
    node = EdgeNode(own_broker, sparkplug_topics(config), outbox, station, birth_number)
    outbox.notify = node.wake
    return (node,)
