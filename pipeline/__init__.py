"""InstructMill: instruction-tuning data at cluster scale. `pipeline` is the method, in pure Python."""

__version__ = "0.1.0"
