"""Imported once by the process that forked runs come from: what a run imports and compiles is there when it begins."""

import pipeline.commands
import pipeline.launch
import pipeline.recipes.backtranslation
import pipeline.recipes.self_instruct
import pipeline.testing_faults  # noqa: F401
from pipeline.novelty import NoveltyIndex

index = NoveltyIndex()
index.add("Name the lantern of the harbour.")
index.nearest("Name the lantern of the orchard.")
