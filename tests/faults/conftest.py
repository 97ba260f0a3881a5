"""The fixtures that live as long as a module, as in the contract tests."""

from tests.contract.conftest import module_engine, module_home

__all__ = ["module_engine", "module_home"]
