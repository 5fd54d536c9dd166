"""An engine over HTTP, and its pages."""
