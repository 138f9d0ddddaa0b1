//! Every bound of the machine; the drivers size their queues from it.

/// Bounds. Each has a default and its reason; together they keep a session's control memory below 64 MiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Neighbours we try to have. 32: 16 to 128 give the same time within 0.5 %, and 32 leaves room for churn.
    pub neighbors: u16,
    /// Links in all; above it a newcomer is refused with addresses of others. 1.5 times `neighbors` at least; idle uploads may
    /// raise us to 4 times.
    pub links_max: u16,
    /// Member records kept.
    pub members_max: u32,
    /// Fetches outstanding in all. 128: of the smallest pieces that is what 200 Mbit/s bring in 80 ms.
    pub fetches_max: u16,
    /// Serves queued in all (a well-behaved peer asks only for what it was granted, so this is a wall against others).
    pub uploads_max: u16,
    /// Copies of the content that an origin sends beyond its hand-out, in thousandths; `None`: as long as its slots are idle.
    pub origin_copies_max_permille: Option<u32>,
    /// Bytes of pieces in memory, received and not yet written, or read and not yet sent.
    pub buffered_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            neighbors: 32,
            links_max: 128,
            members_max: 4096,
            fetches_max: 128,
            uploads_max: 256,
            origin_copies_max_permille: None,
            buffered_bytes_max: 48 << 20,
        }
    }
}
