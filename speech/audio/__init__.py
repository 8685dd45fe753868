"""Audio: files, microphones, resampling, features, voice activity, endpoints."""
