//! Why bytes from a peer are refused.

/// Bytes that no peer of this protocol sends. The link that they came over is of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The first byte after the length names no kind of frame.
    #[error("frame of unknown kind {0}")]
    UnknownFrame(u8),
    /// A frame may not come at this stage of the link.
    #[error("a frame of kind {0} before the hello")]
    BeforeHello(u8),
    /// A frame or a value is longer than its kind may be; refused before anything is allocated.
    #[error("{bytes} bytes where at most {limit} are allowed")]
    TooLong {
        /// How many were announced or are at hand.
        bytes: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A frame's length does not fit its kind: a payload without bytes, a proof that is not a number of whole nodes.
    #[error("{bytes} bytes do not make a frame of kind {kind}")]
    BadLength {
        /// Kind of the frame.
        kind: u8,
        /// Length of its body.
        bytes: usize,
    },
    /// The value ends after the bytes do.
    #[error("the value is cut short")]
    CutShort,
    /// Bytes are left over after the value.
    #[error("{extra} bytes follow the value")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// The bytes are no value of the type: unknown variant, a text that is not UTF-8, a flag that is neither 0 nor 1, a
    /// number wider than its field.
    #[error("the bytes are no such value")]
    Malformed,
    /// The value has a shorter encoding than this one. There is one encoding for each value.
    #[error("the value is not encoded in its one way")]
    NotCanonical,
    /// A list has more elements than it may.
    #[error("{count} {what} where at most {limit} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A field has a value that it can never have, whatever the content is.
    #[error("impossible {0}")]
    BadValue(&'static str),
}
