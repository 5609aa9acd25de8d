"""One folder a stage; each knows its settings and its work, none knows where it is done."""
