"""Choices made for the user: said on stderr when they are made, kept for result.json."""

import logging

logger = logging.getLogger("nrp_onnx")


class Notes:
    """The choices of one run, in the order in which they were made."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        """Log ``text`` as a warning of the logger ``nrp_onnx`` and keep it; once each."""
        if text not in self.said:
            self.said.append(text)
            self.log(text)

    def log(self, text: str) -> None:
        """Log ``text`` only: what is no choice, such as sizes and times of this machine."""
        logger.warning(text)
