//! The cryptography of TLS: ring, for every client and server in the process.

/// Chooses ring. Must be called before the first client that could speak TLS is made; a second call changes
/// nothing.
pub fn install_provider() {
    // It fails when a provider was installed before, which is then the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
