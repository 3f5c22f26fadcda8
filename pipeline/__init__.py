"""InstructMill: instruction-tuning data at cluster scale. `pipeline` is the method, in pure Python."""
