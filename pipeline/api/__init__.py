"""The Python interface: Project, Store, Model and what their nodes made."""
