"""Whether a process lives, whether it can do its work, and its numbers: asked over HTTP, on the host it runs on."""
