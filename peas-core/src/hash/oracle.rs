//! BLAKE3 written down once more, slowly, for tests: by recursion over byte positions, one leaf at a time, with its own
//! compression function. Shares nothing with the code under test, not even the library.

use super::Cv;

const IV: [u32; 8] = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19];
const SHUFFLE: [usize; 16] = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
const LEAF: u64 = 1024;
const LEAF_START: u32 = 1;
const LEAF_END: u32 = 2;
const PARENT: u32 = 4;
const ROOT: u32 = 8;

/// The node over bytes `start..end` of the content; the root if that is everything.
pub fn node(content: &[u8], start: u64, end: u64) -> Cv {
    let root = if start == 0 && end == content.len() as u64 { ROOT } else { 0 };
    to_bytes(subtree(content, start, end, root))
}

fn subtree(content: &[u8], start: u64, end: u64, root: u32) -> [u32; 8] {
    if end - start <= LEAF {
        return leaf(&content[start as usize..end as usize], start / LEAF, root);
    }
    let mut left = LEAF;
    while left * 2 < end - start {
        left *= 2;
    }
    let children = [subtree(content, start, start + left, 0), subtree(content, start + left, end, 0)].concat();
    compress(IV, children.try_into().expect("two children of eight words"), 0, 64, PARENT | root)
}

fn leaf(bytes: &[u8], number: u64, root: u32) -> [u32; 8] {
    let parts: Vec<&[u8]> = if bytes.is_empty() { vec![bytes] } else { bytes.chunks(64).collect() };
    let mut chain = IV;
    for (at, part) in parts.iter().enumerate() {
        let mut padded = [0; 64];
        padded[..part.len()].copy_from_slice(part);
        let words = std::array::from_fn(|word| u32::from_le_bytes(padded[word * 4..][..4].try_into().expect("four bytes")));
        let start = if at == 0 { LEAF_START } else { 0 };
        let end = if at + 1 == parts.len() { LEAF_END | root } else { 0 };
        chain = compress(chain, words, number, part.len() as u32, start | end);
    }
    chain
}

fn compress(chain: [u32; 8], mut words: [u32; 16], counter: u64, len: u32, flags: u32) -> [u32; 8] {
    let mut v = [0; 16];
    v[..8].copy_from_slice(&chain);
    v[8..12].copy_from_slice(&IV[..4]);
    v[12..].copy_from_slice(&[counter as u32, (counter >> 32) as u32, len, flags]);
    for _ in 0..7 {
        for column in 0..4 {
            mix(&mut v, [column, column + 4, column + 8, column + 12], words[column * 2], words[column * 2 + 1]);
        }
        for line in 0..4 {
            let diagonal = [line, (line + 1) % 4 + 4, (line + 2) % 4 + 8, (line + 3) % 4 + 12];
            mix(&mut v, diagonal, words[8 + line * 2], words[9 + line * 2]);
        }
        words = SHUFFLE.map(|from| words[from]);
    }
    std::array::from_fn(|at| v[at] ^ v[at + 8])
}

fn mix(v: &mut [u32; 16], [a, b, c, d]: [usize; 4], x: u32, y: u32) {
    for (word, to_d, to_b) in [(x, 16, 12), (y, 8, 7)] {
        v[a] = v[a].wrapping_add(v[b]).wrapping_add(word);
        v[d] = (v[d] ^ v[a]).rotate_right(to_d);
        v[c] = v[c].wrapping_add(v[d]);
        v[b] = (v[b] ^ v[c]).rotate_right(to_b);
    }
}

fn to_bytes(words: [u32; 8]) -> Cv {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.try_into().expect("eight words are 32 bytes")
}
