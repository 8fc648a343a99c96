"""The reason in the message of an error of TensorFlow or Keras."""

from __future__ import annotations

import re

# A line of a protocol buffer, which some messages print whole: `name {`, `type: DT_FLOAT`, `}`.
_PROTOCOL_LINE = re.compile(r'^(\w+ \{|\}|\w+: (".*"|\S+))$')


# Keras prints what went wrong inside a layer in bold, between the layer and its arguments.
_BOLD = re.compile(r"\x1b\[1m(.*?)\x1b\[0m", re.DOTALL)


def reason_of(error: Exception) -> str:
    """Return the sentence of a message that gives the reason.

    In those of TensorFlow the history of the graph comes before it, and the name of the node after
    it; what it says of the values is of any length.
    """
    text = str(error)
    bold = _BOLD.findall(text)
    lines = [" ".join(bold[-1].split())] if bold else text.splitlines()
    told = [line for line in map(str.strip, lines) if _is_sentence(line)]
    reason = told[-1].split("}}")[-1] if told else type(error).__name__
    return reason.split("  Label values")[0].split(" [Op:")[0].strip(" .:")[:200]


def _is_sentence(line: str) -> bool:
    """Tell what is said from the names of nodes and from protocol buffers."""
    says = re.search(r"[A-Za-z]", line) and not line.startswith("[[")
    return bool(says) and not _PROTOCOL_LINE.match(line)
