"""The rules that a sound log keeps: of the file, of a row by itself, of bodies, and between rows."""
