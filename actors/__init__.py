"""Where Ray and vLLM live. Actors are plain classes, made remote at the call site."""
