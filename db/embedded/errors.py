"""What goes wrong with an embedded server."""

from core.errors import GuthiError


class EmbeddedServerError(GuthiError):
    """An embedded server did not start; the message names the cause and the log. Nothing of it is left running."""
