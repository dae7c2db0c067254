"""One file a method; all end in the same kind of head."""
