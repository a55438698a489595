"""The finished project that the tests of the workflow share, made once however many of them run side by side."""

from tests.workflow.conftest import finished

__all__ = ["finished"]
