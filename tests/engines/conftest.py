"""Set vLLM up before any test of this folder, or what it tests, imports it."""

from tests.engines.vllm_process import set_up

set_up()
