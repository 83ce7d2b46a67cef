"""Imported once by the server that forks engine children: what a run imports, and no more."""

import importlib

import training.engine.__main__

for name in ("training.engine.inputs", "transformers.models.llama.modeling_llama"):
    importlib.import_module(name)
for name in training.engine.__main__.METHODS.values():
    importlib.import_module(name)
