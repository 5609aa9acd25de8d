"""Commands to start from: demo, init, index, fetch, prepare, import-features, synthesize."""
