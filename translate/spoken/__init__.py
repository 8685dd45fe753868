"""Speech that is translated while it is spoken: captions in two languages, and speech to speech."""
