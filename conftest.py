"""Load the plugin that compares numbers and figures for nbval."""

pytest_plugins = ["tests.nbval_numeric"]
