"""The runtime every task shares: audio, features, streaming modules, state, sessions, batching, protocol, server, client."""
