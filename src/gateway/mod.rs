//! What every protocol's gateway shares: live connections, the hub that ends them, TLS, limits.
