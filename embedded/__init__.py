"""The small model that ships with InstructMill: its corpus, its training script, its measurements and its weights."""
