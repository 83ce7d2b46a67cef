"""Imported once by the server that forks engine children: what a run imports, and no more."""

import importlib

import training.engine.methods

for name in ("training.engine.inputs", "transformers.models.llama.modeling_llama"):
    importlib.import_module(name)
for name in training.engine.methods.MODULES.values():
    importlib.import_module(name)
