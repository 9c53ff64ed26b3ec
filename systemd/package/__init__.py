"""Makes what a gateway is given: the Debian package, and the offline bundle around it."""
