"""mhakit's own head combinations, each a plugin that is found by its entry point."""
