"""The project's test tools: a camera for machines without one, a crowd of viewers, and the frames that both use."""
