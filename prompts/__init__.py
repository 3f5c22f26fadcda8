"""Prompt files and the shipped seed tasks: text, not code. `pipeline.prompting` reads them."""
