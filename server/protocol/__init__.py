"""The Open Inference Protocol V2: messages, datatypes and codecs."""
