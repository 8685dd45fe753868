"""Voice agents: a conversation between somebody who speaks and a chat model, over the sessions of speech."""
