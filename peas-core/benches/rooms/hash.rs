//! What a sender and a receiver compute for each piece.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use peas_core::hash::{SpanProof, SpanVerifier, block_cvs, piece_cv, piece_cv_from_blocks};
use peas_core::unit::{BLOCK_BYTES, Geometry, PieceIdx};

const KIB: usize = 1024;

/// The first of two pieces of this size: a single one would be the root, which is another case.
fn piece(piece_bytes: usize) -> (Geometry, PieceIdx, Vec<u8>) {
    let geometry = Geometry::new(2 * piece_bytes as u64, piece_bytes as u32).expect("a size that pieces may have");
    (geometry, geometry.piece(0).expect("the first of two"), super::noise(piece_bytes))
}

/// A whole piece that came in.
#[divan::bench(args = [32 * KIB, 256 * KIB, 1024 * KIB, 16384 * KIB])]
fn whole_piece(bencher: Bencher, piece_bytes: usize) {
    let (geometry, at, bytes) = piece(piece_bytes);
    bencher.counter(BytesCount::new(piece_bytes)).bench_local(|| piece_cv(&geometry, at, black_box(&bytes)));
}

/// A piece to send in parts: its blocks' values, and with them its own.
#[divan::bench(args = [256 * KIB, 1024 * KIB])]
fn piece_by_blocks(bencher: Bencher, piece_bytes: usize) {
    let (geometry, at, bytes) = piece(piece_bytes);
    bencher.counter(BytesCount::new(piece_bytes)).bench_local(|| {
        let blocks = block_cvs(&geometry, at, black_box(&bytes));
        piece_cv_from_blocks(&geometry, at, &blocks)
    });
}

/// Four blocks of a piece that came in with their proof.
#[divan::bench(args = [256 * KIB, 1024 * KIB, 16384 * KIB])]
fn four_proven_blocks(bencher: Bencher, piece_bytes: usize) {
    let (geometry, at, bytes) = piece(piece_bytes);
    let span = geometry.span(at, 4, 4).expect("a piece has eight blocks or more");
    let range = geometry.bytes_in_piece(span);
    let (range, blocks) = (range.start as usize..range.end as usize, block_cvs(&geometry, at, &bytes));
    let (proof, cv) = (SpanProof::new(&geometry, span, &blocks), piece_cv(&geometry, at, &bytes));
    bencher.counter(BytesCount::new(range.len())).bench_local(|| {
        let verifier = SpanVerifier::new(&geometry, span, &proof, &cv).expect("a right proof");
        for (block, bytes) in (span.first()..).zip(black_box(&bytes[range.clone()]).chunks(BLOCK_BYTES as usize)) {
            verifier.block(block, bytes).expect("right bytes");
        }
    });
}
