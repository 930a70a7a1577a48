"""Sources, vocabulary, prepare and the encoded log; numpy and Arrow, never torch."""
