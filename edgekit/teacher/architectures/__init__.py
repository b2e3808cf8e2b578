"""Built-in architectures: plain networks that weights of well-known sources load into, and the embedded demo's."""
