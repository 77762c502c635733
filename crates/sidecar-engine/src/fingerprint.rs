//! Short hashes of texts that are written down and compared later, by another process or another version.

/// FNV-1a: the same in every version of every replica, which the standard library does not promise of its own.
pub fn fingerprint(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
