//! The one codec: bincode 2.0.1, variable integers, little endian. This is the only file that names it.
//!
//! What always holds: input is a slice of checked length; no claim inside it makes us allocate more than the limit of the type;
//! all of the slice is consumed; and a value has exactly one encoding (decoding encodes again and compares, because bincode
//! alone also takes 5 written in nine bytes). Types that go through here have no elements of size zero, since those cost the
//! sender nothing, and their lists use `list`. Bytes are hashed and signed as they lie, never re-encoded.

use super::WireError;
use bincode::config::{Configuration, Limit, LittleEndian, Varint, standard};
use bincode::error::DecodeError;
use serde::de::{DeserializeOwned, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::marker::PhantomData;

/// Elements for which a list makes room before it has seen any.
const ROOM_BEFORE_ELEMENTS: usize = 64;

/// The value's one encoding.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, standard()).expect("memory does not fail, and our types are plain data of known length")
}

/// The value, if `bytes` are its one encoding and at most `LIMIT` of them.
pub fn decode<const LIMIT: usize, T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    if bytes.len() > LIMIT {
        return Err(WireError::TooLong { bytes: bytes.len(), limit: LIMIT });
    }
    let config: Configuration<LittleEndian, Varint, Limit<LIMIT>> = standard().with_limit::<LIMIT>();
    let (value, consumed) = bincode::serde::decode_from_slice::<T, _>(bytes, config).map_err(refusal)?;
    if consumed < bytes.len() {
        return Err(WireError::Trailing { extra: bytes.len() - consumed });
    }
    if encode(&value) != bytes {
        return Err(WireError::NotCanonical);
    }
    Ok(value)
}

/// For lists in types that are decoded (`#[serde(deserialize_with = "codec::list")]`): memory follows the elements that are
/// really there, whatever number the sender wrote before them.
pub(crate) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    const { assert!(size_of::<T>() > 0, "elements of size zero cost the sender nothing") };
    deserializer.deserialize_seq(ListVisitor(usize::MAX, PhantomData))
}

/// The same for a list that never has more than `MAX` elements: a text or a number in memory is many times what an empty one is when
/// encoded, so the length of the bytes alone does not bound what they become.
pub(crate) fn list_of_at_most<'de, const MAX: usize, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    const { assert!(size_of::<T>() > 0, "elements of size zero cost the sender nothing") };
    deserializer.deserialize_seq(ListVisitor(MAX, PhantomData))
}

/// How many elements the list has that these bytes begin with, whether they are there or not.
pub(crate) fn count_ahead(bytes: &[u8]) -> Option<u64> {
    bincode::decode_from_slice::<u64, _>(bytes, standard().with_limit::<16>()).ok().map(|(count, _)| count)
}

struct ListVisitor<T>(usize, PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::with_capacity(elements.size_hint().unwrap_or(0).min(ROOM_BEFORE_ELEMENTS));
        while let Some(element) = elements.next_element()? {
            if list.len() == self.0 {
                return Err(serde::de::Error::invalid_length(self.0 + 1, &self));
            }
            list.push(element);
        }
        Ok(list)
    }
}

fn refusal(error: DecodeError) -> WireError {
    match error {
        DecodeError::UnexpectedEnd { .. } | DecodeError::LimitExceeded => WireError::CutShort,
        _ => WireError::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        number: u64,
        text: String,
        #[serde(deserialize_with = "list")]
        words: Vec<u32>,
        flag: bool,
    }

    fn decode_sample(bytes: &[u8]) -> Result<Sample, WireError> {
        decode::<64, Sample>(bytes)
    }

    #[test]
    fn one_value_has_one_encoding() {
        let sample = Sample { number: 5, text: "pea".into(), words: vec![1, 70_000], flag: true };
        let bytes = encode(&sample);
        assert_eq!(bytes, [5, 3, b'p', b'e', b'a', 2, 1, 0xFC, 0x70, 0x11, 1, 0, 1]);
        assert_eq!(decode_sample(&bytes), Ok(sample));
        assert_eq!(decode_sample(&[&[0xFB, 5, 0][..], &bytes[1..]].concat()), Err(WireError::NotCanonical));
        assert_eq!(decode_sample(&[&bytes[..], &[0]].concat()), Err(WireError::Trailing { extra: 1 }));
        for len in 0..bytes.len() {
            assert_eq!(decode_sample(&bytes[..len]), Err(WireError::CutShort), "{len} bytes");
        }
        let mut two = bytes.clone();
        two[12] = 2;
        assert_eq!(decode_sample(&two), Err(WireError::Malformed));
        two[2] = 0xFF;
        assert_eq!(decode_sample(&two), Err(WireError::Malformed), "not UTF-8");
        assert_eq!(decode_sample(&[0; 65]), Err(WireError::TooLong { bytes: 65, limit: 64 }));
    }

    /// Nine bytes that claim 2^40 or 2^63 elements: with bincode's own defaults, the end of the process.
    #[test]
    fn nine_bytes_are_no_bomb() {
        for claim in [1u64 << 40, 1 << 63, u64::MAX] {
            let bomb = [&[0xFD][..], &claim.to_le_bytes()].concat();
            assert_eq!(decode::<65_536, Vec<u8>>(&bomb), Err(WireError::CutShort));
            assert_eq!(decode::<65_536, String>(&bomb), Err(WireError::CutShort));
            assert_eq!(decode_sample(&[&[0, 0][..], &bomb].concat()), Err(WireError::CutShort));
        }
    }
}
