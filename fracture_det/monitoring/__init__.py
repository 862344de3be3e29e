"""Whether a served detector still sees the radiographs, and says the things, that its reference was made from."""
